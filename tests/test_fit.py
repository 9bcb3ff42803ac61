"""Network.fit: batches, histories, callbacks, and what remains when it stops on the way."""

import builtins
import copy

import numpy as np
import pytest

from nnfast import (
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Affine,
    BatchNormalization,
    Dropout,
    IdentityWithLoss,
    Momentum,
    Nesterov,
    Network,
    Relu,
    RMSprop,
    SigmoidWithLoss,
    Trainer,
    TwoLayerNet,
    _inference,
)

OPTIMIZERS = [SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam, AdamW]


@pytest.fixture
def data(rng):
    x = rng.standard_normal((23, 4))
    return x, (x[:, 0] > x[:, 1]).astype(int)


def make_network(seed=0, **options):
    return Network([Affine(4, 8), Relu(), Affine(8, 2)], seed=seed, dtype="float64", **options)


class Recorder:
    """A stand-in optimiser that notes what it is given and changes nothing."""

    def __init__(self):
        self.gradients = []

    def update(self, params, grads):
        self.gradients.append({key: array.copy() for key, array in grads.items()})


@pytest.mark.parametrize("batch_size", [1, 7, 22, 23, 24, 1000])
def test_consecutive_slices_cover_every_row_and_the_short_last_batch_is_a_mean(data, batch_size):
    x, t = data
    network, recorder = make_network(), Recorder()
    history = network.fit(x, t, batch_size=batch_size, optimizer=recorder, shuffle=False)
    batches = [slice(first, first + batch_size) for first in range(0, 23, batch_size)]
    assert len(recorder.gradients) == len(batches)
    for batch, gradient in zip(batches, recorder.gradients, strict=True):
        expected = network.gradient(x[batch], t[batch])
        for key in expected:
            np.testing.assert_allclose(gradient[key], expected[key], rtol=0, atol=1e-15)
    assert history.loss == [pytest.approx(network.loss(x, t), rel=1e-13)]
    assert history.accuracy == [network.accuracy(x, t)]


def test_shuffling_permutes_every_epoch_anew_from_the_seed():
    rows = np.arange(23.0).reshape(-1, 1)

    def orders(seed):
        network = Network([Affine(1, 1)], IdentityWithLoss(), seed=seed, dtype="float64")
        network.params["W1"][:] = 1
        seen = []
        original = network.training_step
        network.training_step = lambda x_batch, t_batch: (seen.append(x_batch[:, 0].copy()), original(x_batch, t_batch))[1]
        network.fit(rows, np.zeros(23), epochs=2, batch_size=10, optimizer=Recorder())
        assert [len(batch) for batch in seen] == [10, 10, 3, 10, 10, 3]
        return np.concatenate(seen[:3]), np.concatenate(seen[3:])

    first, second = orders(0)
    assert sorted(first) == sorted(second) == list(range(23))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, np.arange(23))
    np.testing.assert_array_equal(orders(0)[0], first)
    assert not np.array_equal(orders(1)[0], first)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.__name__)
def test_every_optimiser_learns(data, optimizer):
    x, t = data
    network = make_network()
    history = network.fit(x, t, epochs=200, batch_size=8, optimizer=optimizer(lr=0.01))
    assert history.loss[-1] < history.loss[0] / 2


def test_the_same_seed_gives_the_same_bits(data):
    x, t = data
    networks = [
        Network([Affine(4, 8), BatchNormalization(8), Relu(), Dropout(0.3), Affine(8, 2)], seed=5) for _ in range(2)
    ]
    for network in networks:
        network.fit(x, t, epochs=3, batch_size=5, optimizer=Adam())
    for key in networks[0].params:
        assert networks[0].params[key].tobytes() == networks[1].params[key].tobytes()


def test_history_and_callbacks_tell_every_epoch(data):
    x, t = data
    network, seen = make_network(), []
    history = network.fit(x, t, epochs=3, validation_data=(x[:5], t[:5]), callbacks=[seen.append])
    assert [epoch.number for epoch in seen] == [1, 2, 3]
    assert [epoch.loss for epoch in seen] == history.loss
    assert len(history.validation_loss) == len(history.validation_accuracy) == len(history.seconds) == 3
    assert history.validation_loss[-1] == network.loss(x[:5], t[:5])
    assert history.validation_accuracy[-1] == network.accuracy(x[:5], t[:5])
    assert seen[-1].network is network
    assert seen[-1].examples_per_second == pytest.approx(23 / seen[-1].seconds)


def test_a_regression_has_no_accuracy(rng):
    network = Network([Affine(3, 1)], IdentityWithLoss(), seed=0)
    x = rng.standard_normal((50, 3))
    t = x @ [1.0, 2.0, -1.0] + 0.5
    history = network.fit(x, t, epochs=200, batch_size=10, optimizer=SGD(0.05), validation_data=(x, t))
    assert history.accuracy == history.validation_accuracy == []
    np.testing.assert_allclose(network.params["W1"][:, 0], [1, 2, -1], atol=1e-3)
    np.testing.assert_allclose(network.params["b1"], [0.5], atol=1e-3)


def test_a_binary_classifier_learns(rng):
    network = Network([Affine(2, 1)], SigmoidWithLoss(), seed=0)
    x = rng.standard_normal((100, 2))
    t = x[:, 0] > 0
    network.fit(x, t, epochs=100, batch_size=10, optimizer=SGD(1.0))
    assert network.accuracy(x, t) > 0.97


@pytest.mark.parametrize("own", [None, "loss", "accuracy", "predict"])
def test_validation_gives_loss_accuracy_and_scores_by_one_pass_unless_they_are_ones_own(data, own):
    x, t = data

    def called(network, *given):
        heard.append(own)
        return getattr(Network, own)(network, *given)

    heard, passes, scores = [], [], []
    network = type("Own", (Network,), {own: called} if own else {})([Affine(x.shape[1], 9), Relu(), Affine(9, 3)], seed=0)
    chain = network._chain().run.__func__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_inference.Chain, "run", lambda *given: passes.append(1) or chain(*given))
        history = network.fit(
            x, t, epochs=2, validation_data=(x[:9], t[:9]),
            metrics={"noted": lambda t, given: scores.append(given) or float(len(given))})
    assert len(passes) == (2 if own is None else 6) and len(heard) == (0 if own is None else 4 if own == "predict" else 2)
    assert history.validation_loss[-1] == network.loss(x[:9], t[:9])
    assert history.validation_accuracy[-1] == network.accuracy(x[:9], t[:9])
    np.testing.assert_array_equal(scores[-1], network.predict(x[:9]))


def test_a_callback_stops_training_by_returning_true(data):
    x, t = data
    others = []
    history = make_network().fit(
        x, t, epochs=10, callbacks=[lambda epoch: epoch.number == 2, others.append]
    )
    assert len(history.loss) == 2
    assert len(others) == 2


def test_verbose_prints_a_line_an_epoch(data, capsys):
    x, t = data
    make_network().fit(x, t, epochs=2, verbose=1, validation_data=(x, t))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    for word in ("loss", "accuracy", "validation loss", "validation accuracy", "examples/s"):
        assert word in lines[0]


def test_fit_is_silent_by_default(data, capsys):
    make_network().fit(*data, epochs=2)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.needs("tqdm")
def test_the_progress_bar_counts_steps(data, capsys):
    make_network().fit(*data, epochs=2, batch_size=10, progress=True)
    assert "6" in capsys.readouterr().err


def test_without_tqdm_there_is_a_line_in_the_end(data, monkeypatch, capsys):
    original = builtins.__import__

    def without_tqdm(name, *arguments, **options):
        if name.startswith("tqdm"):
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_tqdm)
    history = make_network().fit(*data, epochs=3, validation_data=data, progress=True)
    captured = capsys.readouterr()
    loss, accuracy, validation_loss, validation_accuracy = (
        values[-1] for values in (history.loss, history.accuracy, history.validation_loss, history.validation_accuracy))
    assert captured.out == ""
    assert captured.err == (
        f"3/3 epochs: loss {loss:.4f}, accuracy {accuracy:.4f}, validation loss {validation_loss:.4f}, "
        f"validation accuracy {validation_accuracy:.4f}; {sum(history.seconds):.2f} s of training, "
        f"{3 * 23 / sum(history.seconds):,.0f} examples/s\n")
    history = make_network(loss=IdentityWithLoss()).fit(
        data[0], data[0][:, :2], epochs=9, progress=True, callbacks=[lambda epoch: epoch.number == 2])
    assert capsys.readouterr().err.startswith(f"2/9 epochs: loss {history.loss[-1]:.4f}; ")


def stopping_on_the_way(network, x, t, exception):
    """Fit for two epochs; the optimiser raises in the middle of the second. Returns the state after the first."""
    after_first = []

    class Stops(Momentum):
        steps = 0

        def update(self, params, grads):
            self.steps += 1
            if self.steps == 5:
                raise exception
            super().update(params, grads)

    def note(epoch):
        after_first.extend(array.copy() for array in network.state())

    optimizer = Stops(0.01)
    with pytest.raises(type(exception)):
        network.fit(x, t, epochs=2, batch_size=8, optimizer=optimizer, callbacks=[note])
    return after_first, optimizer


@pytest.mark.parametrize("exception", [KeyboardInterrupt(), MemoryError(), ValueError("mine")], ids=repr)
def test_stopped_on_the_way_the_weights_are_those_of_the_last_finished_epoch(data, exception):
    x, t = data
    network = Network([Affine(4, 8), BatchNormalization(8), Relu(), Affine(8, 2)], seed=0)
    expected, optimizer = stopping_on_the_way(network, x, t, exception)
    assert expected
    for array, old in zip(network.state(), expected, strict=True):
        np.testing.assert_array_equal(array, old)
    assert optimizer.steps == 3     # its state went back too
    network.fit(x, t)               # and the network can be used again


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("row", [0, 9, 22])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("first", [[], [Dropout(0.99)], [BatchNormalization(4)], [Relu()]], ids=["Affine", "Dropout", "BatchNormalization", "Relu"])
def test_data_that_are_not_finite_are_refused_wherever_they_are_and_leave_no_trace(data, first, value, row, shuffle):
    x, t = data
    network = Network([*copy.deepcopy(first), Affine(4, 8), Relu(), Affine(8, 2)], seed=0, dtype="float64")
    x[row, 2] = value
    optimizer, before = Momentum(0.01), copy.deepcopy(network.state())
    drawn = network.generator.bit_generator.state
    with pytest.raises(ValueError, match=rf"^x contains NaN or infinity \(first at row {row}, column 2\)$"):
        network.fit(x, t, epochs=3, batch_size=11, optimizer=optimizer, shuffle=shuffle)
    for array, old in zip(network.state(), before, strict=True):
        np.testing.assert_array_equal(array, old)
    assert not any(state.any() for state in optimizer.v.values())
    assert network.generator.bit_generator.state == drawn


def test_data_beyond_the_networks_dtype_are_refused(data):
    x, t = data
    x[7, 1] = 1e300
    with (
        np.errstate(over="ignore"),
        pytest.raises(ValueError, match=r"^x contains NaN or infinity \(first at row 7, column 1\)$"),
    ):
        Network([Affine(4, 8), Relu(), Affine(8, 2)]).fit(x, t)


def test_a_learning_rate_that_overflows_is_named_with_epoch_and_step(data):
    x, t = data
    network = make_network()
    before = copy.deepcopy(network.params)
    with pytest.raises(FloatingPointError, match=r"^the loss became \w+ in epoch 1, step \d+: the learning rate of 1e\+160"):
        network.fit(x, t, epochs=5, batch_size=5, optimizer=SGD(1e160))
    for key in before:
        np.testing.assert_array_equal(network.params[key], before[key])


def test_weights_that_overflow_in_the_last_step_are_noticed(data):
    x, t = data
    network = make_network()
    with pytest.raises(FloatingPointError, match=r"became infinite or NaN in epoch 1: the learning rate of 1e\+308"):
        network.fit(x * 100, t, epochs=1, batch_size=23, optimizer=SGD(1e308))
    assert np.isfinite(network.loss(x, t))


def test_a_copy_made_by_a_callback_can_be_trained(data):
    x, t = data
    copies = []
    make_network().fit(x, t, callbacks=[lambda epoch: copies.append(copy.deepcopy(epoch.network))])
    copies[0].fit(x, t)


def test_fit_does_not_change_its_inputs(data):
    x, t = data
    x_before, t_before = x.copy(), t.copy()
    x.flags.writeable = t.flags.writeable = False
    make_network().fit(x, t, epochs=2)
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(t, t_before)


def test_trainer_counts_epochs_and_accuracies_as_the_book_does(rng, capsys):
    np.random.seed(0)
    x, t = rng.random((30, 4)), rng.integers(0, 2, 30)
    trainer = Trainer(
        TwoLayerNet(4, 5, 2), x, t, x[:7], t[:7], epochs=3, mini_batch_size=10, optimizer="AdaGrad",
        optimizer_param={"lr": 0.1}, evaluate_sample_num_per_epoch=5,
    )
    trainer.train()
    assert len(trainer.train_loss_list) == 9
    assert len(trainer.train_acc_list) == len(trainer.test_acc_list) == 3
    assert isinstance(trainer.optimizer, AdaGrad)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9 + 3 + 2
    assert lines[0] == f"train loss:{trainer.train_loss_list[0]}"
    assert lines[1] == (
        f"=== epoch:1, train acc:{trainer.train_acc_list[0]}, test acc:{trainer.test_acc_list[0]} ==="
    )
    assert lines[-2] == "=============== Final Test Accuracy ==============="


def test_trainer_refuses_an_unknown_optimiser(rng):
    x, t = rng.random((30, 4)), rng.integers(0, 2, 30)
    with pytest.raises(ValueError, match=r"^optimizer is 'sdg', but must be one of sgd, momentum, "):
        Trainer(TwoLayerNet(4, 5, 2), x, t, x, t, optimizer="sdg")
