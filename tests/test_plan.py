"""Training by a plan: in compiled code, and yet what the layers do one by one, for every layer, loss and optimiser."""

import copy
import itertools
import signal
import threading

import numpy as np
import pytest

import nnfast
from nnfast import (
    SGD,
    AbsoluteError,
    AdaGrad,
    Adam,
    AdamW,
    Affine,
    BatchNormalization,
    Dropout,
    Gelu,
    HuberLoss,
    Identity,
    IdentityWithLoss,
    LeakyRelu,
    Momentum,
    MultiLayerNet,
    MultiLayerNetExtend,
    Nesterov,
    Network,
    PoissonLoss,
    QuantileLoss,
    Relu,
    Rescale,
    RMSprop,
    Sigmoid,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    TwoLayerNet,
    _kernels,
    _layout,
    _plan,
    _threads,
)

ACTIVATIONS = [Relu, Sigmoid, Tanh, LeakyRelu, Gelu, Identity]
LOSSES = [SoftmaxWithLoss, SigmoidWithLoss, IdentityWithLoss, AbsoluteError, HuberLoss, QuantileLoss, PoissonLoss]
OPTIMIZERS = {
    "SGD": lambda: SGD(0.1),
    "Momentum": lambda: Momentum(0.05, 0.8),
    "Nesterov": lambda: Nesterov(0.05, 0.8),
    "AdaGrad": lambda: AdaGrad(0.05),
    "RMSprop": lambda: RMSprop(0.01, 0.9),
    "Adam": lambda: Adam(0.01, 0.8, 0.95),
    "AdamW": lambda: AdamW(0.01, weight_decay=0.3),
}


def with_threads(monkeypatch, threads):
    """Small networks too are trained and used by so many threads, also where there are fewer cores."""
    monkeypatch.setattr(_threads, "get_num_threads", lambda: threads)
    monkeypatch.setattr(_threads, "for_steps", lambda rows, multiply_adds: threads)
    monkeypatch.setattr(_threads, "for_inference", lambda rows, multiply_adds: threads)
    monkeypatch.setattr(_threads.Pace, "next", lambda self: (self._most, _threads.CALL_SECONDS))


def back_after(monkeypatch, seconds):
    """Let compiled code return when so many are over."""
    monkeypatch.setattr(_threads, "CALL_SECONDS", seconds)
    monkeypatch.setattr(_threads, "_TRIAL_SECONDS", seconds)


def data(rng, rows=53, inputs=20, outputs=5):
    """Inputs, and targets that every loss takes: labels, and rows between 0 and 1."""
    x = rng.standard_normal((rows, inputs))
    return x, {SoftmaxWithLoss: rng.integers(0, outputs, rows), None: rng.random((rows, outputs))}


def tolerance_of(loss, dtype):
    """Where a slope jumps, a residual that is nothing but rounding may have that of the other side."""
    if dtype == np.float64:
        return 1e-12
    return 1e-3 if loss in (AbsoluteError, QuantileLoss) else 1e-4


def targets_for(loss, targets):
    return targets.get(loss, targets[None])


def trained(monkeypatch, make, x, t, *, planned, epochs=2, batch_size=10, optimizer=None, **options):
    """The network, optimiser and history after a fit by a plan, or layer by layer."""
    network = make()
    optimizer = SGD(0.1) if optimizer is None else optimizer()
    with monkeypatch.context() as patch:
        if planned:
            patch.setattr(Network, "training_step", None)       # nobody may call it
            patch.setattr(Network, "trains_as_given", lambda self: True)
            assert _plan.obstacle(network, optimizer) is None
        else:
            patch.setattr(_plan, "obstacle", lambda network, optimizer: "of the test")
        history = network.fit(x, t, epochs=epochs, batch_size=batch_size, optimizer=optimizer, **options)
    return network, optimizer, history


def numbers(network, optimizer, history):
    """Everything that a fit leaves behind, by name."""
    found = dict(network.params)
    found |= {f"state {place}": array for place, array in enumerate(network.state())}
    for name in (*optimizer._states, "iter"):
        value = getattr(optimizer, name, 0)
        found |= {f"{name} {key}": array for key, array in value.items()} if isinstance(value, dict) else {name: value}
    return found | {"loss": history.loss, "accuracy": history.accuracy}


def assert_alike(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = np.max(np.abs(value), initial=1e-3)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance * scale, err_msg=name)


def assert_both_ways_agree(monkeypatch, make, x, t, tolerance, **options):
    expected = numbers(*trained(monkeypatch, make, x, t, planned=False, **options))
    found = numbers(*trained(monkeypatch, make, x, t, planned=True, **options))
    assert np.isfinite(found["loss"]).all()
    assert_alike(found, expected, tolerance)
    return found


# The two ways agree

@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_plan_trains_as_the_layers_do(each_build, monkeypatch, rng, dtype, activation, loss, optimizer):
    x, targets = data(rng)
    assert_both_ways_agree(
        monkeypatch,
        lambda: Network([Affine(20, 18), activation(), Affine(18, 9), Tanh(), Affine(9, 5)], loss(), seed=1, dtype=dtype),
        x, targets_for(loss, targets), tolerance_of(loss, dtype), optimizer=OPTIMIZERS[optimizer])


# Biases before a batch normalisation have no gradient but rounding, so the layers before it are without one.
CHAINS = {
    "dropout": lambda: [Affine(20, 18), Relu(), Dropout(0.3), Affine(18, 5)],
    "dropout of the input": lambda: [Dropout(0.2), Affine(20, 18), Relu(), Affine(18, 5)],
    "two dropouts": lambda: [Affine(20, 18), Dropout(0.5), Tanh(), Dropout(0.1), Affine(18, 5)],
    "dropout of scores": lambda: [Affine(20, 5), Dropout(0.4)],
    "batch normalisation of the input": lambda: [BatchNormalization(20), Affine(20, 18), Relu(), Affine(18, 5)],
    "batch normalisation of scores": lambda: [BatchNormalization(20), Tanh(), Affine(20, 5), Relu(),
                                              BatchNormalization(5, momentum=0.5)],
    "two batch normalisations": lambda: [BatchNormalization(20), Tanh(), BatchNormalization(20), Affine(20, 5)],
    "nothing else to train": lambda: [Tanh(), BatchNormalization(20)],
    "activation first": lambda: [Relu(), Affine(20, 5)],
    "activation last": lambda: [Affine(20, 18), Relu(), Affine(18, 5), Sigmoid()],
    "two activations": lambda: [Affine(20, 18), Relu(), Tanh(), Affine(18, 5)],
    "three activations": lambda: [Affine(20, 18), Sigmoid(), Gelu(), LeakyRelu(0.3), Affine(18, 5)],
    "activations and dropout": lambda: [Affine(20, 18), Tanh(), Dropout(0.5), Sigmoid(), Dropout(0.5), Affine(18, 5)],
    "gelu twice": lambda: [Gelu(), Gelu(), Affine(20, 5), Gelu()],
    "affine after affine": lambda: [Affine(20, 18), Affine(18, 7), Identity(), Affine(7, 5)],
    "one layer": lambda: [Affine(20, 5)],
    "identities": lambda: [Identity(), Affine(20, 5), Identity(), Identity()],
    "rescaled": lambda: [Rescale(0.7), Affine(20, 18), Tanh(), Affine(18, 5)],
    "rescaled by columns": lambda: [Rescale(np.linspace(-1, 2, 20), np.linspace(1, 0, 20)), Affine(20, 5)],
    "rescaled in between": lambda: [Affine(20, 18), Tanh(), Rescale(2.0, -0.3), Sigmoid(), Affine(18, 5), Rescale(0.5)],
    "rescaled again": lambda: [Rescale(0.5, 0.1), Rescale(1.3), Gelu(), Rescale(0.8), Affine(20, 5)],
    "everything": lambda: [Dropout(0.1), Gelu(), Relu(), BatchNormalization(20), Identity(), Affine(20, 33), Sigmoid(),
                           Dropout(0.1), Tanh(), Affine(33, 5), LeakyRelu(), Gelu()],
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_layers_in_any_order_train_as_one_by_one(each_build, monkeypatch, rng, chain, optimizer):
    x, targets = data(rng)
    assert_both_ways_agree(monkeypatch, lambda: Network(CHAINS[chain](), seed=1, dtype="float64"), x,
                           targets[SoftmaxWithLoss], 1e-11, optimizer=OPTIMIZERS[optimizer])


@pytest.mark.parametrize("chain", CHAINS)
def test_the_bits_do_not_depend_on_the_number_of_threads(each_build, monkeypatch, rng, dtype, chain):
    x, targets = data(rng)
    results = []
    for threads in (1, 2, 3, 8):
        with_threads(monkeypatch, threads)
        results.append(numbers(*trained(
            monkeypatch, lambda: Network(CHAINS[chain](), seed=1, dtype=dtype), x, targets[SoftmaxWithLoss],
            planned=True, batch_size=13, optimizer=OPTIMIZERS["Adam"])))
    for other in results[1:]:
        for name, value in results[0].items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("width", [1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 33, 47, 48, 49, 50, 63, 64, 65, 97])
def test_widths_around_the_tile_train_as_one_by_one(each_build, monkeypatch, rng, dtype, width, threads):
    with_threads(monkeypatch, threads)
    x = rng.standard_normal((21, width))
    t = rng.integers(0, width, 21)
    assert_both_ways_agree(
        monkeypatch, lambda: Network([Affine(width, width), Tanh(), Affine(width, width)], seed=1, dtype=dtype),
        x, t, 1e-12 if dtype == np.float64 else 1e-4, batch_size=10)     # the last batch has one row


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 63, 64, 65, 511, 512, 513, 1030])
def test_batches_of_any_size_train_as_one_by_one(each_build, monkeypatch, rng, rows):
    with_threads(monkeypatch, 2)
    x = rng.standard_normal((rows, 11))
    t = rng.integers(0, 3, rows)
    make = lambda: Network([Affine(11, 19), Relu(), Affine(19, 3)], seed=1, dtype="float64")
    assert_both_ways_agree(monkeypatch, make, x, t, 1e-12, batch_size=rows)
    assert_both_ways_agree(monkeypatch, make, x[:20], t[:20], 1e-12, batch_size=1)
    assert_both_ways_agree(monkeypatch, make, x, t, 1e-12, batch_size=rows + 1, shuffle=False)
    assert_both_ways_agree(monkeypatch, make, x, t, 1e-12, batch_size=rows // 2 + 1)    # a row more than the last one has


def test_wide_layers_train_as_one_by_one(each_build, monkeypatch, rng, dtype):
    """More panels than one group, more columns of data than one block, more classes than go side by side."""
    with_threads(monkeypatch, 2)
    x = rng.standard_normal((130, 600))
    t = rng.integers(0, 40, 130)
    monkeypatch.setattr(_plan, "_GROUP_BYTES", 1 << 15)
    assert_both_ways_agree(
        monkeypatch, lambda: Network([Affine(600, 530), Relu(), Affine(530, 40)], seed=1, dtype=dtype), x, t,
        1e-12 if dtype == np.float64 else 1e-4, batch_size=70)


@pytest.mark.parametrize("activation", [Relu, lambda: LeakyRelu(0.5)], ids=["Relu", "LeakyRelu"])
def test_an_output_of_exactly_zero_has_the_slope_on_the_left(each_build, monkeypatch, rng, activation):
    x, targets = data(rng)
    W2 = rng.standard_normal((7, 5))
    make = lambda: Network([Affine(np.zeros((20, 7)), np.zeros(7)), activation(), Affine(W2.copy(), np.zeros(5))], seed=1)
    found = assert_both_ways_agree(monkeypatch, make, x, targets[SoftmaxWithLoss] // 2, 1e-12)
    assert found["W1"].any() == (activation is not Relu)


@pytest.mark.parametrize("classes", [5, 33, 40])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_padding_stays_zero(each_build, rng, dtype, loss, classes):
    x, targets = data(rng, outputs=classes)
    plan = _plan.Plan(Network([BatchNormalization(20), Affine(20, 7), Sigmoid(), Affine(7, classes)], loss(), seed=1,
                              dtype=dtype), Adam(0.1), 10)
    plan.train(x.astype(dtype), targets_for(loss, targets).astype(np.int64 if loss is SoftmaxWithLoss else dtype), 2, True,
               1, lambda steps: None)
    for key, panels in plan._parameters().items():
        assert np.count_nonzero(panels) == plan.network.params[key].size, key


def test_sparse_data_train_as_one_by_one(each_build, monkeypatch, rng, dtype):
    with_threads(monkeypatch, 2)
    x = rng.standard_normal((150, 300)) * (rng.random(300) < 0.3)
    assert np.mean(x == 0) > 0.5
    assert_both_ways_agree(
        monkeypatch, lambda: Network([Affine(300, 50), Relu(), Affine(50, 5)], seed=1, dtype=dtype), x,
        rng.integers(0, 5, 150), 1e-12 if dtype == np.float64 else 1e-4, batch_size=80)


def test_one_class_and_one_row_are_learned_from(each_build, monkeypatch, rng):
    assert_both_ways_agree(monkeypatch, lambda: Network([Affine(3, 1)], seed=1), rng.standard_normal((1, 3)), [0], 1e-6)


def test_very_wide_layers_train_as_one_by_one(each_build, monkeypatch, rng):
    # Biases of 100,000 columns are updated at a time, more than a block of weights has elements.
    assert_both_ways_agree(monkeypatch, lambda: Network([Affine(2, 100_000), Relu(), Affine(100_000, 3)], seed=1),
                           rng.standard_normal((2, 2)), [0, 2], 1e-5, batch_size=1)


def test_a_hundred_layers_train_as_one_by_one(monkeypatch, rng):
    with_threads(monkeypatch, 2)
    layers = lambda: [layer for _ in range(50) for layer in (Affine(6, 6, init="xavier"), Tanh())]
    found = assert_both_ways_agree(monkeypatch, lambda: Network(layers(), seed=1, dtype="float64"),
                                   rng.standard_normal((30, 6)), rng.integers(0, 6, 30), 1e-10)
    assert "W50" in found


@pytest.mark.parametrize("make", [
    lambda: TwoLayerNet(20, 7, 5),
    lambda: MultiLayerNet(20, [9, 8], 5, activation="sigmoid", weight_decay_lambda=0.1),
    lambda: MultiLayerNetExtend(20, [9], 5, weight_decay_lambda=0.2, use_batchnorm=True),
    lambda: MultiLayerNetExtend(20, [9, 17], 5, use_dropout=True, dropout_ration=0.3),
], ids=["TwoLayerNet", "MultiLayerNet", "MultiLayerNetExtend", "Dropout"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_books_networks_train_as_one_by_one(each_build, monkeypatch, rng, make, threads):
    with_threads(monkeypatch, threads)
    x, targets = data(rng)

    def seeded():
        np.random.seed(1)
        network = make()
        network.generator = np.random.default_rng(2)
        return network

    assert_both_ways_agree(monkeypatch, seeded, x, targets[SoftmaxWithLoss], 1e-11)


@pytest.mark.parametrize("bytes_at_a_time", [1, 700, 1 << 22])
@pytest.mark.parametrize("seconds", [0, 0.1])      # after which compiled code returns: after each step, or hardly ever
@pytest.mark.parametrize("batch_size", [1, 10, 23, 40])
def test_the_books_masks_come_step_by_step_however_many_are_drawn_at_a_time(
    monkeypatch, rng, batch_size, bytes_at_a_time, seconds
):
    monkeypatch.setattr(_plan, "_MASK_BYTES", bytes_at_a_time)
    back_after(monkeypatch, seconds)
    x, targets = data(rng)

    def seeded():
        np.random.seed(3)
        network = MultiLayerNetExtend(20, [9, 17], 5, use_dropout=True)
        network.generator = network.layers["Dropout1"].generator = np.random.default_rng(2)     # and some from keys
        return network

    left = []
    for planned in (False, True):
        network, *_ = trained(monkeypatch, seeded, x, targets[SoftmaxWithLoss], planned=planned, epochs=3,
                              batch_size=batch_size)
        left.append((network.params, np.random.rand()))     # and as many were drawn
    for key, array in left[0][0].items():
        np.testing.assert_allclose(left[1][0][key], array, rtol=0, atol=1e-12, err_msg=key)
    assert left[0][1] == left[1][1]


def test_weight_decay_is_part_of_the_loss_that_is_told(monkeypatch, rng):
    x, targets = data(rng, rows=10)
    t = targets[SoftmaxWithLoss]
    network = MultiLayerNet(20, [9], 5, weight_decay_lambda=0.5)
    expected = network.loss(x, t)
    assert network.fit(x, t, batch_size=10).loss[0] == pytest.approx(expected, rel=1e-12)
    assert expected > 0.5 / 2 * np.sum(network.params["W1"] ** 2)


# The user's arrays

@pytest.mark.parametrize("change", [np.asfortranarray, lambda array: array[::-1][::-1], lambda array: array.astype(">f8"),
                                    lambda array: np.repeat(array, 2, axis=-1)[..., ::2]],
                         ids=["F order", "reversed twice", "big-endian", "every second"])
def test_given_arrays_of_any_layout_are_trained_in_place(monkeypatch, rng, change):
    x, targets = data(rng)
    plain = [rng.standard_normal(shape) for shape in ((20, 7), 7, (7, 5), 5)]
    given = [change(array.copy()) for array in plain]
    make = lambda arrays: Network([Affine(*arrays[:2]), Relu(), Affine(*arrays[2:])], seed=1)
    expected, *_ = trained(monkeypatch, lambda: make(plain), x, targets[SoftmaxWithLoss], planned=True)
    network, *_ = trained(monkeypatch, lambda: make(given), x, targets[SoftmaxWithLoss], planned=True)
    for array, key in zip(given, ("W1", "b1", "W2", "b2"), strict=True):
        assert np.shares_memory(network.params[key], array)
        np.testing.assert_array_equal(array, expected.params[key])


def test_a_read_only_parameter_is_refused_before_anything_changes(rng):
    x, targets = data(rng)
    network = Network([Affine(20, 7), Relu(), Affine(7, 5)], seed=1)
    network.params["b2"].flags.writeable = False
    before = copy.deepcopy(network.state())
    with pytest.raises(ValueError, match=r"^params\['b2'\] is read-only"):
        network.fit(x, targets[SoftmaxWithLoss])
    np.testing.assert_equal(network.state(), before)


def test_an_optimizer_of_another_network_is_refused(rng):
    x, targets = data(rng)
    adam = Adam()
    Network([Affine(20, 5)]).fit(x, targets[SoftmaxWithLoss], optimizer=adam)
    with pytest.raises(ValueError, match="make a new one for each network"):
        Network([Affine(20, 7), Affine(7, 5)]).fit(x, targets[SoftmaxWithLoss], optimizer=adam)


def test_what_a_callback_changes_is_trained_on(monkeypatch, rng):
    x, targets = data(rng)

    def change(epoch):
        epoch.network.params["W1"] *= 0.5                                       # in place
        epoch.network.layers["Affine2"].b = np.full(5, float(epoch.number))     # another array
        optimizers[-1].lr *= 0.3

    optimizers = []

    def optimizer():
        optimizers.append(Momentum(0.1))
        return optimizers[-1]

    assert_both_ways_agree(
        monkeypatch, lambda: Network([Affine(20, 7), Relu(), Affine(7, 5)], seed=1, dtype="float64"), x,
        targets[SoftmaxWithLoss], 1e-12, epochs=4, optimizer=optimizer, callbacks=[change])


def test_two_fits_go_on_where_the_first_ended(rng):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]
    results = []
    for epochs in ([4], [1, 3], [2, 1, 1]):
        network, adam = Network([Affine(20, 7), Relu(), Affine(7, 5)], seed=1), Adam()
        for count in epochs:
            network.fit(x, t, epochs=count, batch_size=7, optimizer=adam)
        results.append(np.concatenate([array.ravel() for array in network.state()]).tobytes())
        assert adam.iter == 4 * 8
    assert results[1:] == results[:1] * 2


# What stands in a plan's way

class OwnRelu(Relu):
    pass


class OwnAdam(Adam):
    pass


class OwnLoss(SoftmaxWithLoss):
    pass


class OwnNetwork(Network):
    def training_step(self, x, t):
        return super().training_step(x, t)


def tied():
    affine = Affine(5, 5)
    affine.draw(np.random.default_rng(0), np.dtype("float32"))
    return [affine, Affine(affine.W, np.zeros(5, np.float32))]


def own_generator():
    network = Network([Affine(5, 5), Dropout(0.1), Affine(5, 5)], seed=1)
    network.layers["Dropout1"].generator = np.random.default_rng(3)
    return network


@pytest.mark.parametrize(("network", "optimizer", "why"), [
    (lambda: Network([Affine(5, 5), OwnRelu(), Affine(5, 5)], seed=1), SGD, "layer OwnRelu1 is written in Python"),
    (lambda: Network([Affine(5, 5)], OwnLoss(), seed=1), SGD, "the loss OwnLoss is written in Python"),
    (lambda: Network([Affine(5, 5)], seed=1), OwnAdam, "the optimiser OwnAdam is written in Python"),
    (lambda: OwnNetwork([Affine(5, 5)], seed=1), SGD, "OwnNetwork has a training step of its own"),
    (lambda: Network(tied(), seed=1), SGD, "two of its parameters share memory"),
    (lambda: Network([Relu()]), SGD, "there is nothing to train"),
    (own_generator, SGD, "layer Dropout1 has a generator of its own"),
], ids=["layer", "loss", "optimiser", "network", "tied weights", "nothing", "generator"])
def test_what_no_plan_can_hold_trains_layer_by_layer_and_the_summary_says_why(rng, network, optimizer, why):
    network = network()
    assert network.summary(optimizer=optimizer()).endswith(f"\ntrains layer by layer: {why}")
    if network.inputs:
        x, t = rng.standard_normal((30, 5)), rng.integers(0, 5, 30)
        history = network.fit(x, t, epochs=20, batch_size=10, optimizer=optimizer(0.01), shuffle=False)
        assert history.loss[-1] < history.loss[0]


def test_the_summary_says_how_much_memory_a_fit_takes(monkeypatch):
    with_threads(monkeypatch, 1)
    network = Network([Affine(784, 1000), Relu(), Affine(1000, 10)])
    *_, small = network.summary(batch_size=10).splitlines()
    *_, large = network.summary(batch_size=1000, optimizer=Adam()).splitlines()
    assert small.startswith("trains in compiled code, in ") and small.endswith(" MB of memory (batches of 10 with SGD)")
    assert large.endswith(" MB of memory (batches of 1,000 with Adam)")
    megabytes = [float(line.split(" MB")[0].rpartition(" ")[2]) for line in (small, large)]
    # Weights, of now and of the last finished epoch; with Adam two states as well; 1000 rows of values and gradients.
    assert 3.2 * 2 < megabytes[0] < 3.2 * 2 + 1
    assert 3.2 * 3 * 2 + 8 < megabytes[1] < 3.2 * 3 * 2 + 8 + 2


def test_wrong_settings_of_a_summary_are_refused():
    network = Network([Affine(2, 2)])
    with pytest.raises(ValueError, match=r"^batch_size is 0"):
        network.summary(batch_size=0)
    with pytest.raises(TypeError, match=r"^optimizer"):
        network.summary(optimizer="adam")


# How it runs

def test_memory_stays_the_same_over_ten_thousand_steps(rng):
    resource = pytest.importorskip("resource")
    x, targets = data(rng, rows=1000)
    network, adam = Network([Affine(20, 30), Relu(), Affine(30, 5)], seed=1), Adam()
    network.fit(x, targets[SoftmaxWithLoss], epochs=20, batch_size=10, optimizer=adam)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network.fit(x, targets[SoftmaxWithLoss], epochs=100, batch_size=10, optimizer=adam)    # 100 steps an epoch
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024   # kilobytes (bytes on macOS)


@pytest.mark.parametrize("threads", [1, 2])
def test_other_python_threads_run_during_a_fit(monkeypatch, rng, threads):
    with_threads(monkeypatch, threads)
    back_after(monkeypatch, 1000)    # an epoch is one call of compiled code
    network = Network([Affine(300, 300), Relu(), Affine(300, 5)], seed=1)
    x, t = rng.standard_normal((20_000, 300)).astype(np.float32), rng.integers(0, 5, 20_000)
    plan = _plan.Plan(network, SGD(), 100)
    most = 0
    for _ in range(20):     # of some hundred ticks, where nobody else wants the cores; with the lock held, one at most
        ticks, done = [], threading.Event()

        def tick(ticks=ticks, done=done):
            while not done.wait(0.001):
                ticks.append(len(ticks))

        thread = threading.Thread(target=tick)
        thread.start()
        before = len(ticks)
        plan.train(x, t, 1, False, 1, lambda steps, done=done: done.set())     # at once when the call is over
        thread.join()
        most = max(most, len(ticks) - before)
        if most > 3:
            break
    assert most > 3


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_in_the_middle_of_an_epoch_leaves_the_last_finished_one(monkeypatch, rng):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]
    network, momentum, noted, calls = Network(CHAINS["everything"](), seed=1), Momentum(0.1), [], []
    core = _kernels.kernels(np.dtype("float32"))
    original = core.train

    def interrupted(*arguments):
        calls.append(original(*arguments))
        if len(calls) == 15:                        # 6 steps an epoch: in the third
            signal.raise_signal(signal.SIGINT)      # noticed when compiled code is back

    def note(epoch):
        noted.append([array.copy() for array in (*network.state(), *momentum.v.values())])
        noted[-1].append(network.generator.bit_generator.state)

    monkeypatch.setattr(core, "train", interrupted)
    back_after(monkeypatch, 0)       # back after every step
    with pytest.raises(KeyboardInterrupt):
        network.fit(x, t, epochs=9, batch_size=10, optimizer=momentum, callbacks=[note])
    assert len(noted) == 2
    np.testing.assert_equal([*network.state(), *momentum.v.values(), network.generator.bit_generator.state], noted[-1])
    network.fit(x, t, optimizer=momentum)           # and it can go on


def test_compiled_code_is_back_within_the_time_it_was_given(monkeypatch, rng):
    x, t = rng.standard_normal((20_000, 400)).astype(np.float32), rng.integers(0, 5, 20_000)
    network, told = Network([Affine(400, 400), Relu(), Affine(400, 5)], seed=1), []
    back_after(monkeypatch, 0.001)
    _plan.Plan(network, SGD(), 20).train(x, t, 1, True, 1, told.append)
    assert sum(told) == 1000
    assert len(told) > 3    # 1000 steps take far longer than 3 milliseconds


def test_a_loss_that_overflows_is_named_and_the_weights_are_as_before(each_build, monkeypatch, rng):
    with_threads(monkeypatch, 2)
    x, targets = data(rng)
    network, adam = Network([Affine(20, 30), Relu(), Affine(30, 5)], seed=1), Adam(1e38)
    before = copy.deepcopy([*network.state(), network.generator.bit_generator.state])
    with pytest.raises(FloatingPointError, match=r"^(the loss|W\d|b\d) became (nan|inf).* in epoch 1"):
        network.fit(x, targets[SoftmaxWithLoss], batch_size=10, epochs=5, optimizer=adam)
    np.testing.assert_equal([*network.state(), network.generator.bit_generator.state], before)
    assert adam.iter == 0 and not any(state.any() for state in adam.m.values())


@pytest.mark.parametrize("threads", [1, 2])
def test_subnormal_numbers_are_numbers_again_after_a_fit(each_build, monkeypatch, rng, threads):
    with_threads(monkeypatch, threads)
    x, targets = data(rng)
    Network([Affine(20, 5)], seed=1).fit(x, targets[SoftmaxWithLoss])
    assert (np.full(3, 1e-40, np.float32) * np.float32(0.5) > 0).all()
    with pytest.raises(FloatingPointError):
        Network([Affine(20, 9), Relu(), Affine(9, 5)], seed=1).fit(x, targets[SoftmaxWithLoss], optimizer=Adam(1e38),
                                                                   epochs=9)
    assert (np.full(3, 1e-40, np.float32) * np.float32(0.5) > 0).all()


def test_subnormal_numbers_are_taken_for_zero_during_a_fit(rng):
    network = Network([Affine(np.full((1, 1), 1e-40, np.float32), np.zeros(1, np.float32))], IdentityWithLoss())
    network.fit([[1.0]], [[0.0]], optimizer=SGD(1e-3))
    assert network.params["W1"] == 0


def test_the_progress_bar_hears_of_every_step(monkeypatch, rng):
    network = Network([Affine(20, 5)], seed=1)
    x, targets = data(rng)
    told = []
    plan = _plan.Plan(network, SGD(), 5)
    back_after(monkeypatch, 0)       # back after every step
    plan.train(x.astype(np.float32), targets[SoftmaxWithLoss], 3, True, 1, told.append)
    assert told == [1] * 3 * 11


@pytest.mark.parametrize("chain", ["everything", "two dropouts", "one layer"])
@pytest.mark.parametrize("seconds", [0, 1000])
def test_epochs_trained_together_are_those_trained_one_by_one(each_build, monkeypatch, rng, chain, seconds):
    back_after(monkeypatch, seconds)
    with_threads(monkeypatch, 2)
    x, targets = data(rng)
    make = lambda: Network(CHAINS[chain](), seed=1)
    t = targets[SoftmaxWithLoss]
    together = trained(monkeypatch, make, x, t, planned=True, epochs=12, optimizer=Adam)
    watched = trained(monkeypatch, make, x, t, planned=True, epochs=12, optimizer=Adam, callbacks=[lambda epoch: None])
    np.testing.assert_equal(numbers(*together), numbers(*watched))
    assert len(together[2].loss) == 12
    assert together[0].generator.bit_generator.state == watched[0].generator.bit_generator.state


def test_stopped_among_epochs_trained_together_the_last_finished_one_remains(each_build, monkeypatch, rng):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]
    make = lambda: Network(CHAINS["everything"](), seed=1)
    steps = []

    def interrupt(count):
        steps.append(count)
        if len(steps) == 40:    # 6 steps an epoch: in the seventh
            raise KeyboardInterrupt

    back_after(monkeypatch, 0)
    network, adam = make(), Adam()
    with pytest.raises(KeyboardInterrupt):
        _plan.Plan(network, adam, 10).train(x.astype(np.float32), t, 12, True, 1, interrupt)
    expected, expected_adam, _ = trained(monkeypatch, make, x, t, planned=True, epochs=6, optimizer=Adam)
    np.testing.assert_equal(network.state(), expected.state())
    np.testing.assert_equal(vars(adam), vars(expected_adam))
    assert network.generator.bit_generator.state == expected.generator.bit_generator.state


def test_a_state_that_overflows_is_no_error_but_a_weight_is(each_build, rng):
    x = np.full((10, 3), 1e25, np.float32)
    network, adam = Network([Affine(3, 2)], IdentityWithLoss(), seed=1), RMSprop(1e-3)
    network.params.update({"W1": np.zeros((3, 2)), "b1": [1, 1]})
    network.fit(x, np.zeros((10, 2)), optimizer=adam, batch_size=10)
    assert np.isinf(adam.h["W1"]).all() and np.isfinite(network.params["W1"]).all()


# Panels

@pytest.mark.parametrize("shape", list(itertools.product([1, 3, 8, 17], [1, 2, 8, 16, 23, 25, 40, 41, 47, 48, 49, 50, 64, 97])))
def test_weights_come_out_of_panels_as_they_went_in(kernels, dtype, rng, shape):
    w = rng.standard_normal(shape).astype(dtype)
    padded = -(-shape[1] // kernels.PANEL_GRAIN) * kernels.PANEL_GRAIN
    panels = np.full(shape[0] * padded + 1, 7, dtype)
    kernels.pack(w, panels[:-1])
    assert np.sort(panels[panels != 0]).tolist() == sorted([*w.ravel().tolist(), 7])     # zeros elsewhere
    back = np.empty_like(w)
    kernels.unpack(panels[:-1], back)
    np.testing.assert_array_equal(back, w)


def test_a_panels_rows_are_contiguous_and_the_last_is_padded(kernels, dtype):
    width = kernels.PANEL_VECTORS * kernels.VECTOR
    w = np.arange(1, 2 * (width + 1) + 1, dtype=dtype).reshape(2, width + 1)
    panels = np.empty(2 * (width + kernels.PANEL_GRAIN), dtype)
    kernels.pack(w, panels)
    np.testing.assert_array_equal(panels[: 2 * width].reshape(2, width), w[:, :width])
    last = panels[2 * width :].reshape(2, kernels.PANEL_GRAIN)
    np.testing.assert_array_equal(last[:, 0], w[:, -1])
    assert not last[:, 1:].any()


# Dropout's masks

def test_a_mask_depends_on_its_key_and_keeps_its_share(kernels):
    masks = np.empty((3, 1_000_000), np.uint8)
    for key, mask in zip((1, 2, 1 << 40), masks, strict=True):
        kernels.dropout_mask(key, 0.3, mask)
    # A million fair draws: 5 standard deviations are 0.0023.
    np.testing.assert_allclose(masks.mean(axis=1), 0.7, atol=0.0023)
    np.testing.assert_allclose((masks[0] & masks[1]).mean(), 0.49, atol=0.0025)
    np.testing.assert_allclose((masks[0] & masks[2]).mean(), 0.49, atol=0.0025)
    for lag in (1, 2, 16, 48, 64, 784):
        np.testing.assert_allclose((masks[0][lag:] & masks[0][:-lag]).mean(), 0.49, atol=0.0025)
    kernels.dropout_mask(7, 1.0, masks[0])
    assert not masks[0].any()
    kernels.dropout_mask(7, 0.0, masks[0])
    assert masks[0].mean() > 0.99999


def test_masks_are_drawn_anew_in_every_step_and_differ_between_layers(monkeypatch, rng):
    keys = []
    original = _kernels.kernels(np.dtype("float64")).prepare

    def spy(*arguments):
        keys.append(arguments[7].copy())
        return original(*arguments)

    monkeypatch.setattr(_kernels.kernels(np.dtype("float64")), "prepare", spy)
    x, targets = data(rng)
    trained(monkeypatch, lambda: Network(CHAINS["two dropouts"](), seed=1, dtype="float64"), x, targets[SoftmaxWithLoss],
            planned=True)
    keys = np.concatenate(keys)
    assert keys.shape == (2 * 6, 2)
    assert len(np.unique(keys)) == keys.size


def test_nnfast_has_no_layer_loss_or_optimizer_without_a_plan():
    layers = {cls for cls in vars(nnfast).values() if isinstance(cls, type) and hasattr(cls, "infer")}
    assert layers == set(_layout.LAYERS)
    losses = {cls for cls in vars(nnfast).values() if isinstance(cls, type) and hasattr(cls, "forward_prepared")}
    assert losses == set(_layout.LOSSES) == set(LOSSES)
    optimizers = {cls for cls in vars(nnfast).values() if isinstance(cls, type) and hasattr(cls, "snapshot")}
    assert optimizers == set(_plan.OPTIMIZERS)
    assert {cls.__name__ for cls in optimizers} == OPTIMIZERS.keys()


def test_a_fit_hears_of_what_interrupts_its_turn_and_is_closed_whatever_it_answers():
    class Turns:
        heard = ()

        def __next__(self):
            return self

        def take(self):
            raise KeyboardInterrupt("during a turn")

        def throw(self, error):
            self.heard += (error,)
            raise LookupError("putting things in order")

        def close(self):
            self.heard += ("closed",)

    turns = Turns()
    with pytest.raises(LookupError, match="in order"):
        _plan.taken(turns, Turns.take)
    assert isinstance(turns.heard[0], KeyboardInterrupt) and turns.heard[1:] == ("closed",)
