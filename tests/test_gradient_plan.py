"""`Network.gradient` in compiled code: what the layers give one by one, and what they have afterwards."""

import copy
import pickle
import threading
from itertools import pairwise

import numpy as np
import pytest
from test_inference import filled
from test_plan import ACTIVATIONS, LOSSES, data, targets_for

import nnfast
from nnfast import (
    Affine,
    BatchNormalization,
    Dropout,
    LeakyRelu,
    MultiLayerNet,
    MultiLayerNetExtend,
    Network,
    Relu,
    Sigmoid,
    SoftmaxWithLoss,
    Tanh,
    TwoLayerNet,
    _threads,
)

TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


def layer_by_layer(network, x, t):
    """On a copy."""
    twin = copy.deepcopy(network)
    twin._gradient_plans.of = lambda network, rows: None
    return twin.gradient(x, t), twin


def assert_gradients(found, expected, tolerance):
    assert list(found) == list(expected)
    largest = max(abs(gradient).max() for gradient in expected.values())    # a bias may have none but rounding
    for key, gradient in expected.items():
        assert found[key].dtype == gradient.dtype and found[key].shape == gradient.shape
        assert found[key].flags.c_contiguous
        np.testing.assert_allclose(found[key], gradient, rtol=0, atol=tolerance * largest, err_msg=key)


def assert_both_ways_agree(network, x, t):
    expected, twin = layer_by_layer(network, x, t)
    assert network._gradient_plans.of(network, len(x)) is not None
    found = network.gradient(x, t)
    tolerance = TOLERANCE[network.dtype.name]
    assert_gradients(found, expected, tolerance)
    for array, other in zip(network.state(), twin.state(), strict=True):      # running statistics
        np.testing.assert_allclose(array, other, rtol=10 * tolerance, atol=tolerance)
    assert network.last_layer.loss == pytest.approx(twin.last_layer.loss, rel=tolerance)
    for layer in network.layers.values():
        for gradient in getattr(layer, "grads", {}).values():
            assert any(gradient is one for one in found.values())
    assert network.generator.bit_generator.state == twin.generator.bit_generator.state
    return found


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", [*ACTIVATIONS, lambda: LeakyRelu(0.3), lambda: BatchNormalization(18), Dropout])
def test_every_layer_and_loss(rng, dtype, activation, loss):
    x, targets = data(rng)
    network = Network([Affine(20, 18), activation(), Affine(18, 9), Tanh(), Affine(9, 5)], loss(), seed=1, dtype=dtype)
    assert_both_ways_agree(filled(network, rng), x, targets_for(loss, targets))


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("sizes", [
    (1, 1), (7, 15, 16, 17), (9, 31, 32, 33, 2), (8, 47, 48, 49, 2), (65, 63, 64, 65), (130, 5, 3, 129), (300, 520, 10),
])
def test_every_size(rng, monkeypatch, dtype, threads, sizes):
    monkeypatch.setattr(_threads, "for_steps", lambda rows, multiply_adds: threads)
    monkeypatch.setattr(_threads, "get_num_threads", lambda: threads)
    layers = [layer for i, o in pairwise(sizes) for layer in (Affine(i, o), Sigmoid())]
    network = filled(Network(layers[:-1], seed=1, dtype=dtype), rng)
    for rows in (1025, 1, 2, 63, 64, 65):       # in the memory of the largest
        assert_both_ways_agree(network, rng.standard_normal((rows, sizes[0])), rng.integers(0, sizes[-1], rows))


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_number_of_threads_gives_the_same_bits(rng, monkeypatch, dtype):
    network = Network([Affine(70, 50), Relu(), BatchNormalization(50), Affine(50, 10)], seed=1, dtype=dtype)
    x, t = rng.standard_normal((130, 70)), rng.integers(0, 10, 130)
    found = set()
    for threads in (1, 2, 3, 8):
        monkeypatch.setattr(_threads, "for_steps", lambda rows, multiply_adds, threads=threads: threads)
        monkeypatch.setattr(_threads, "get_num_threads", lambda threads=threads: threads)
        twin = copy.deepcopy(network)
        found.add(b"".join(gradient.tobytes() for gradient in twin.gradient(x, t).values()))
    assert len(found) == 1


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("first", [lambda: Affine(20, 5), Relu])
def test_inputs_of_the_other_dtype_are_converted_in_passing(rng, dtype, first):
    x = rng.standard_normal((33, 20)).astype(np.float32)
    t = rng.integers(0, 5, 33)
    layers = [first(), Affine(20, 5)] if first is Relu else [first(), Affine(5, 5)]
    network = Network(layers, seed=1, dtype=dtype)
    other = x.astype(np.float64 if dtype == "float32" else np.float32)
    for key, gradient in network.gradient(x.astype(dtype), t).items():
        np.testing.assert_array_equal(network.gradient(other, t)[key], gradient)


@pytest.mark.usefixtures("each_build")
def test_zeros_are_left_out_and_what_is_not_finite_is_seen(rng, dtype):
    x, t = rng.standard_normal((200, 100)).astype(dtype), rng.integers(0, 4, 200)
    x[:, 20:] = 0
    network = Network([Affine(100, 50), Tanh(), Affine(50, 4)], seed=1, dtype=dtype.name)
    assert_both_ways_agree(network, x, t)
    network.params["W1"][60, 7] = np.nan        # 0 times NaN
    assert np.isnan(network.gradient(x, t)["W1"]).all()
    assert np.isnan(network.last_layer.loss)
    network.params["W1"][60, 7] = 0
    assert_both_ways_agree(network, x, t)


@pytest.mark.parametrize("make", [
    lambda: TwoLayerNet(20, 8, 5),
    lambda: MultiLayerNet(20, [8, 7], 5, weight_decay_lambda=0.1),
    lambda: MultiLayerNetExtend(20, [8, 7], 5, weight_decay_lambda=0.1, use_batchnorm=True),
])
def test_the_books_networks(rng, make):
    x, targets = data(rng)
    network = make()
    for _ in range(3):
        t = targets_for(SoftmaxWithLoss, targets)
        gradients = assert_both_ways_agree(network, x, t)
        for key in gradients:
            network.params[key] -= 0.1 * gradients[key]
    one_hot = np.eye(5)[t]
    assert_gradients(copy.deepcopy(network).gradient(x, one_hot), network.gradient(x, t), 1e-15)
    assert network.last_layer.t is t


def test_the_books_dropout_draws_its_masks_from_numpy_and_leaves_them(rng):
    x, targets = data(rng)
    network = MultiLayerNetExtend(20, [8, 7], 5, use_dropout=True, use_batchnorm=True)
    t = targets_for(SoftmaxWithLoss, targets)
    for rows in (len(x), 3):
        np.random.seed(5)
        expected, twin = layer_by_layer(network, x[:rows], t[:rows])
        np.random.seed(5)
        found = network.gradient(x[:rows], t[:rows])
        assert network._gradient_plans._plan is not None
        assert_gradients(found, expected, 1e-12)
        for name in ("Dropout1", "Dropout2"):
            np.testing.assert_array_equal(network.layers[name].mask, twin.layers[name].mask)


def test_gradients_are_new_arrays_as_long_as_somebody_holds_them(rng):
    network = Network([Affine(300, 200), Relu(), Affine(200, 3)], seed=1)
    x, t = rng.standard_normal((20, 300)), rng.integers(0, 3, 20)
    first = network.gradient(x, t)
    kept = {key: gradient.copy() for key, gradient in first.items()}
    network.gradient(x + 1, t)
    network.gradient(x + 2, t)
    for key, gradient in kept.items():
        np.testing.assert_array_equal(first[key], gradient)


def test_whatever_is_changed_in_between_is_seen(rng):
    x, t = rng.standard_normal((12, 6)), rng.integers(0, 2, 12)
    network = Network([Affine(6, 5), BatchNormalization(5), LeakyRelu(0.1), Affine(5, 2)], seed=1, dtype="float64")
    affine, normalization, leaky, last = network.layers.values()
    changes = [
        lambda: network.params["W1"].fill(0.3),
        lambda: setattr(affine, "W", rng.random((6, 5))),
        lambda: setattr(affine, "b", rng.random(5)),
        lambda: setattr(last, "W", np.asfortranarray(rng.random((5, 2)))),     # layer by layer then
        lambda: setattr(last, "W", rng.random((5, 2))),
        lambda: setattr(normalization, "gamma", rng.random(5)),
        lambda: normalization.gamma.fill(2.0),
        lambda: setattr(normalization, "running_mean", np.full(5, 1.0)),
        lambda: setattr(leaky, "slope", 0.9),
        lambda: network.layers.update({"LeakyRelu1": Sigmoid()}),
        lambda: setattr(network, "last_layer", nnfast.SigmoidWithLoss()),
    ]
    targets = t
    for change in changes:
        change()
        if isinstance(network.last_layer, nnfast.SigmoidWithLoss):
            targets = np.eye(2)[t]
        expected, _ = layer_by_layer(network, x, targets)
        assert_gradients(network.gradient(x, targets), expected, 1e-12)


def test_wrong_arguments_are_refused_and_nothing_has_changed(rng):
    network = Network([Affine(6, 5), BatchNormalization(5), Affine(5, 2)], seed=1)
    x, t = rng.standard_normal((4, 6)), np.array([0, 1, 1, 0])
    network.gradient(x, t)
    before = [array.copy() for array in network.state()]
    for wrong_x, wrong_t, sentence in [
        (x[:, :5], t, "x has 5 columns, but layer 1 (Affine) takes 6 inputs"),
        (x[:3], t, "t has 4 rows, but x has 3 rows"),
        (x[:0], t[:0], "x has no rows, but at least 1 is needed"),
        (x, t + 1, "t[1] is 2, but the network has classes 0 to 1"),
    ]:
        with pytest.raises(ValueError) as caught:
            network.gradient(wrong_x, wrong_t)
        assert str(caught.value) == sentence
    for array, old in zip(network.state(), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_after_gradient_the_layers_show_the_last_pass(rng):
    network = Network([Affine(6, 5), Relu(), Affine(5, 4)], seed=1, dtype="float64")
    first, relu, second = network.layers.values()
    x, t = rng.standard_normal((7, 6)), rng.integers(0, 4, 7)
    network.loss(np.ones((1, 6)), t[:1])
    gradients = network.gradient(x, t)
    np.testing.assert_array_equal(first.x, x)
    np.testing.assert_array_equal(relu.mask, first.infer(x) <= 0)
    assert network.last_layer.y.shape == (7, 4)
    assert network.last_layer.t is t
    second.backward(network.last_layer.backward())      # once more, by hand
    np.testing.assert_allclose(second.dW, gradients["W2"], rtol=1e-12)


def test_after_a_gradient_with_masks_or_statistics_a_backward_pass_needs_a_forward_pass(rng):
    for layer in (Dropout(0.5), BatchNormalization(5)):
        network = Network([Affine(6, 5), layer, Affine(5, 2)], seed=1)
        network._loss(rng.standard_normal((9, 6)), [0] * 9, train_flg=True)
        network.gradient(rng.standard_normal((4, 6)), [0, 1, 1, 0])
        for one in (*network.layers.values(), network.last_layer):
            with pytest.raises(RuntimeError, match="needs a call of forward first"):
                one.backward(1) if one is network.last_layer else one.backward(np.ones((4, one.__dict__.get("outputs", 5))))


def test_dropout_draws_as_layer_by_layer(rng):
    network = Network([Dropout(0.2), Affine(20, 30), Dropout(0.5), Affine(30, 3), Dropout(0.1)], seed=3, dtype="float64")
    x, t = rng.standard_normal((50, 20)), rng.integers(0, 3, 50)
    first = assert_both_ways_agree(network, x, t)
    assert not np.array_equal(network.gradient(x, t)["W1"], first["W1"])


def test_gradient_may_be_called_from_many_threads_of_many_networks(rng):
    x, t = rng.standard_normal((64, 50)), rng.integers(0, 3, 64)
    shared = Network([Affine(50, 40), Relu(), Affine(40, 3)], seed=0)
    wrong = []

    def call(seed):
        network = Network([Affine(50, 40), Relu(), Affine(40, 3)], seed=seed)
        expected = network.gradient(x, t)
        for _ in range(50):
            shared.gradient(x, t)       # by several at once: whatever it gives, nothing is harmed
            if any(not np.array_equal(a, b) for a, b in zip(network.gradient(x, t).values(), expected.values(), strict=True)):
                wrong.append(seed)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_copies_of_a_network_have_plans_of_their_own(rng):
    x, t = rng.standard_normal((9, 6)), rng.integers(0, 2, 9)
    network = Network([Affine(6, 5), Relu(), Affine(5, 2)], seed=1)
    expected = network.gradient(x, t)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        twin.params["b2"] = [3, -3]
        assert not np.array_equal(twin.gradient(x, t)["b2"], expected["b2"])
    assert_gradients(network.gradient(x, t), expected, 0)


def test_what_is_written_in_python_runs_as_before(rng):
    class Double:
        def forward(self, x):
            return 2 * x

        def backward(self, dout):
            return 2 * dout

    network = Network([Affine(6, 5), Double(), Affine(5, 2)], seed=1)
    assert network._gradient_plans.of(network, 3) is None
    gradients = network.gradient(rng.standard_normal((3, 6)), [0, 1, 0])
    assert gradients["W1"].shape == (6, 5)
