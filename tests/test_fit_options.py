"""What `Network.fit` is told besides: weights of rows, schedules, limits, when to stop. In compiled code and layer by layer."""

import copy
import pickle
import time

import numpy as np
import pytest
from test_plan import (
    CHAINS,
    LOSSES,
    OPTIMIZERS,
    assert_both_ways_agree,
    data,
    targets_for,
    tolerance_of,
    trained,
    with_threads,
)

from nnfast import (
    SGD,
    Adam,
    Affine,
    EarlyStopping,
    IdentityWithLoss,
    Momentum,
    MultiLayerNetExtend,
    Network,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    _plan,
    schedules,
)


def made(loss=SoftmaxWithLoss, dtype="float64", l1=0.0, l2=0.0, outputs=5):
    network = Network([Affine(20, 9), Tanh(), Affine(9, outputs)], loss(), seed=1, dtype=dtype)
    network.l1_lambda, network.weight_decay_lambda = l1, l2
    return network


def bits(network):
    return b"".join(array.tobytes() for array in network.state())


def some_weights(rng, rows=53):
    weights = rng.random(rows) * 3
    weights[rng.random(rows) < 0.3] = 0
    return weights


# Both ways of training

OPTIONS = {
    "sample_weight": lambda rng: {"sample_weight": some_weights(rng)},
    "a batch without weight": lambda rng: {"sample_weight": np.repeat([1.0, 0, 2], [20, 10, 23]), "shuffle": False},
    "schedule": lambda rng: {"schedule": schedules.Cosine()},
    "clip_value": lambda rng: {"clip_value": 0.003},
    "clip_norm": lambda rng: {"clip_norm": 0.05},
    "all": lambda rng: {"sample_weight": some_weights(rng), "schedule": schedules.OneCycle(), "clip_value": 0.01},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_plan_trains_as_the_layers_do(each_build, monkeypatch, rng, dtype, loss, optimizer, options):
    x, targets = data(rng)
    assert_both_ways_agree(
        monkeypatch, lambda: made(loss, dtype, l1=0.01, l2=0.02), x, targets_for(loss, targets),
        tolerance_of(loss, dtype), optimizer=OPTIMIZERS[optimizer], **OPTIONS[options](rng))


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("clipping", [{"clip_value": 0.01}, {"clip_norm": 0.1}], ids=["value", "norm"])
def test_layers_in_any_order_train_as_one_by_one(each_build, monkeypatch, rng, chain, clipping):
    x, targets = data(rng)
    weights = some_weights(rng)
    assert_both_ways_agree(
        monkeypatch, lambda: Network(CHAINS[chain](), seed=1, dtype="float64"), x, targets[SoftmaxWithLoss], 1e-11,
        optimizer=lambda: Momentum(0.1), sample_weight=weights, schedule=schedules.Exponential(0.7), **clipping)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("clipping", [{"clip_value": 0.01}, {"clip_norm": 0.1}], ids=["value", "norm"])
def test_the_bits_do_not_depend_on_the_number_of_threads(each_build, monkeypatch, rng, dtype, chain, clipping):
    x, targets = data(rng)
    weights = some_weights(rng)
    found = []
    for threads in (1, 2, 3):
        with monkeypatch.context() as patch:
            with_threads(patch, threads)
            network = Network(CHAINS[chain](), seed=1, dtype=dtype)
            network.l1_lambda = 0.01
            history = network.fit(x, targets[SoftmaxWithLoss], epochs=2, batch_size=13, optimizer=Adam(), **clipping,
                                  sample_weight=weights, schedule=schedules.Cosine())
            found.append((bits(network), history.loss))
    assert found[0] == found[1] == found[2]


# Weights of rows

@pytest.mark.parametrize("planned", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_weight_of_two_is_the_row_twice_and_of_zero_its_absence(monkeypatch, rng, loss, planned):
    x, targets = data(rng, rows=12)
    t = targets_for(loss, targets)
    times = rng.integers(0, 3, 12)
    weighted, _, history = trained(
        monkeypatch, lambda: made(loss), x, t, planned=planned, epochs=5, batch_size=100, sample_weight=times * 0.7)
    repeated, _, expected = trained(
        monkeypatch, lambda: made(loss), np.repeat(x, times, 0), np.repeat(t, times, 0), planned=planned, epochs=5,
        batch_size=100)
    np.testing.assert_allclose(history.loss, expected.loss, rtol=1e-12)
    for key, array in repeated.params.items():
        np.testing.assert_allclose(weighted.params[key], array, rtol=0, atol=1e-13)


@pytest.mark.parametrize("planned", [True, False])
def test_equal_weights_change_nothing_and_accuracies_count_rows(monkeypatch, rng, planned):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]
    plain, _, expected = trained(monkeypatch, made, x, t, planned=planned)
    equal, _, history = trained(monkeypatch, made, x, t, planned=planned, sample_weight=np.ones(53))
    assert bits(equal) == bits(plain)
    assert history.loss == pytest.approx(expected.loss, rel=1e-14)
    _, _, history = trained(monkeypatch, made, x, t, planned=planned, optimizer=lambda: SGD(0), sample_weight=some_weights(rng))
    assert history.accuracy[0] == made().accuracy(x, t)


@pytest.mark.parametrize("planned", [True, False])
def test_the_loss_of_an_epoch_is_a_weighted_mean(monkeypatch, rng, planned):
    x, targets = data(rng)
    t, weights = targets[SoftmaxWithLoss], some_weights(rng)
    network, _, history = trained(
        monkeypatch, lambda: made(l1=0.1), x, t, planned=planned, optimizer=lambda: SGD(0), sample_weight=weights)
    rows = np.array([network.loss(x[row : row + 1], t[row : row + 1]) for row in range(53)])
    assert history.loss == pytest.approx([np.average(rows, weights=weights)] * 2, rel=1e-12)


def test_a_class_weight_is_the_weight_of_its_rows(rng):
    x, targets = data(rng)
    t, weights = targets[SoftmaxWithLoss], some_weights(rng)
    by_class = np.array([1, 0.5, 1, 4, 1])
    counts = np.bincount(t, minlength=5)
    balanced = 53 / (5 * counts)
    for options, rows in [
        ({"class_weight": {1: 0.5, 3: 4}}, by_class[t]),
        ({"class_weight": "balanced"}, balanced[t]),
        ({"class_weight": {1: 0.5, 3: 4}, "sample_weight": weights}, by_class[t] * weights),
    ]:
        found, expected = made(), made()
        found.fit(x, t, epochs=2, **options)
        expected.fit(x, t, epochs=2, sample_weight=rows)
        assert bits(found) == bits(expected)
    one_hot = made()
    one_hot.fit(x, np.eye(5)[t], epochs=2, class_weight="balanced")
    expected = made()
    expected.fit(x, t, epochs=2, sample_weight=balanced[t])
    assert bits(one_hot) == bits(expected)


def test_balanced_classes_that_do_not_occur_count_for_nothing_and_a_single_output_has_two(rng):
    x, _ = data(rng)
    t = (np.arange(53) < 10).astype(int)
    found, expected = made(), made()
    found.fit(x, t, class_weight="balanced")
    expected.fit(x, t, sample_weight=np.where(t, 53 / 20, 53 / 86))
    assert bits(found) == bits(expected)
    found, expected = made(SigmoidWithLoss, outputs=1), made(SigmoidWithLoss, outputs=1)
    found.fit(x, t, class_weight={1: 3})
    expected.fit(x, t, sample_weight=1 + 2 * t)
    assert bits(found) == bits(expected)


def test_what_the_loss_kept_is_free_of_weights_afterwards(monkeypatch, rng):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]
    network, _, _ = trained(monkeypatch, made, x, t, planned=False, sample_weight=some_weights(rng))
    expected = copy.deepcopy(network).gradient(x, t)
    network.loss(x, t)
    dout = network.last_layer.backward()
    for layer in reversed(network.layers.values()):
        dout = layer.backward(dout)
    np.testing.assert_allclose(network.layers["Affine1"].dW, expected["W1"], rtol=0, atol=1e-14)


# Penalties

@pytest.mark.parametrize("l2", [0, 0.3])
def test_the_l1_penalty_is_in_the_loss_and_in_every_gradient(rng, l2):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]
    plain, network = made(l2=l2), made(l1=0.2, l2=l2)
    network.params = plain.params
    weights = [network.params["W1"], network.params["W2"]]
    assert network.loss(x, t) == pytest.approx(plain.loss(x, t) + 0.2 * sum(np.abs(W).sum() for W in weights), rel=1e-13)
    expected = plain.gradient(x, t)
    for gradient in (network.gradient(x, t), network.numerical_gradient(x, t), network.numerical_gradient(x, t, method="brute")):
        for key in expected:
            penalty = 0.2 * np.sign(network.params[key]) if key.startswith("W") else 0
            np.testing.assert_allclose(gradient[key], expected[key] + penalty, rtol=0, atol=1e-6)


def test_a_weight_of_zero_has_no_l1_gradient(rng):
    x, targets = data(rng)
    network = made(l1=0.2)
    plain = copy.deepcopy(network)
    plain.l1_lambda = 0
    network.params["W2"][:2] = plain.params["W2"][:2] = 0
    t = targets[SoftmaxWithLoss]
    np.testing.assert_array_equal(network.gradient(x, t)["W2"][:2], plain.gradient(x, t)["W2"][:2])


def test_the_l1_penalty_is_saved_and_a_file_without_one_has_none(tmp_path):
    network = made(l1=0.2)
    network.save(tmp_path / "network.npz")
    assert Network.load(tmp_path / "network.npz").l1_lambda == 0.2


# Limits

@pytest.mark.parametrize("planned", [True, False])
def test_a_step_of_sgd_is_as_long_as_the_limit_at_most(monkeypatch, rng, planned):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]
    network, _, _ = trained(monkeypatch, made, x * 100, t, planned=planned, epochs=1, batch_size=53, clip_value=1e-3,
                            optimizer=lambda: SGD(1.0))
    before = made()
    gradient = before.gradient(x * 100, t)
    for key, array in network.params.items():
        np.testing.assert_allclose(before.params[key] - array, np.clip(gradient[key], -1e-3, 1e-3), rtol=0, atol=1e-15)


@pytest.mark.parametrize("planned", [True, False])
@pytest.mark.parametrize("longest", [0.5, 1e6])
def test_a_step_of_sgd_is_shortened_and_keeps_its_direction(monkeypatch, rng, planned, longest):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]
    network, _, _ = trained(monkeypatch, lambda: made(l2=0.1), x * 100, t, planned=planned, epochs=1, batch_size=53,
                            clip_norm=longest, optimizer=lambda: SGD(1.0))
    before = made(l2=0.1)
    gradient = before.gradient(x * 100, t)
    norm = np.sqrt(sum(np.sum(array**2) for array in gradient.values()))
    assert norm > 0.5
    for key, array in network.params.items():
        np.testing.assert_allclose(before.params[key] - array, gradient[key] * min(1, longest / norm), rtol=0, atol=1e-13)


# Schedules

@pytest.mark.parametrize("planned", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_changed_rate_is_a_changed_lr(monkeypatch, rng, optimizer, planned):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]
    network, one, _ = trained(monkeypatch, made, x, t, planned=planned, epochs=3, optimizer=OPTIMIZERS[optimizer],
                              schedule=schedules.StepDecay(1, 0.5))
    other = OPTIMIZERS[optimizer]()
    assert one.lr == other.lr
    expected = made()
    if not planned:
        monkeypatch.setattr(_plan, "obstacle", lambda network, optimizer: "of the test")
    for _ in range(3):
        expected.fit(x, t, batch_size=10, optimizer=other)
        other.lr *= 0.5
    assert bits(network) == bits(expected)


def test_epochs_that_nobody_watches_have_the_rates_and_weights_of_those_that_are_watched(rng):
    x, targets = data(rng)
    weights = some_weights(rng)
    found = []
    for callbacks in ([], [lambda epoch: None]):
        network = made()
        network.fit(x, targets[SoftmaxWithLoss], epochs=40, batch_size=10, optimizer=Adam(), callbacks=callbacks,
                    sample_weight=weights, schedule=schedules.WarmUp(2.5, schedules.Cosine()))
        found.append(bits(network))
    assert found[0] == found[1]


def test_a_schedule_hears_of_each_step_in_epochs(rng):
    x, targets = data(rng)
    heard = []

    def schedule(epoch, epochs):
        heard.extend(epoch)
        assert epochs == 7
        return 1

    made().fit(x, targets[SoftmaxWithLoss], epochs=7, batch_size=10, schedule=schedule)
    np.testing.assert_allclose(heard, np.arange(42) / 6, rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", [
    schedules.StepDecay(2), schedules.Exponential(0.5), schedules.InverseScaling(), schedules.Cosine(0.1), schedules.OneCycle(),
    schedules.WarmUp(1, schedules.OnPlateau("loss")), schedules.OnPlateau("loss", floor=0.1),
], ids=lambda schedule: type(schedule).__name__)
def test_schedules_give_finite_factors_up_to_1_and_can_be_copied(rng, schedule):
    positions = np.linspace(0, 20, 1001)[:-1]
    factors = schedule(positions, 20)
    assert factors.shape == (1000,)
    assert (factors >= 0).all() and (factors <= 1).all()
    again = pickle.loads(pickle.dumps(copy.deepcopy(schedule)))
    np.testing.assert_array_equal(again(positions, 20), factors)


def test_warming_up_longer_than_the_fit_is_only_that(rng):
    factors = schedules.WarmUp(10, schedules.Cosine(), start=0)(np.arange(4.0), 4)
    np.testing.assert_allclose(factors, [0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("wrap", [lambda schedule: schedule, lambda schedule: schedules.WarmUp(1, schedule, start=1)],
                         ids=["alone", "after warming up"])
def test_a_plateau_lowers_the_rate_after_patience_and_each_fit_begins_anew(rng, wrap):
    x, targets = data(rng)
    rates = []

    class Noted(schedules.OnPlateau):
        def __call__(self, epoch, epochs):
            rates.append(self.factor)
            return super().__call__(epoch, epochs)

    schedule = wrap(Noted("validation_loss", decay=0.5, patience=2, floor=0.2))
    for _ in range(2):
        rates.clear()
        network = made()
        network.fit(x, targets[SoftmaxWithLoss], epochs=9, optimizer=SGD(0), validation_data=(x, targets[SoftmaxWithLoss]),
                    schedule=schedule)
        assert rates == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2]


def test_an_error_in_a_schedule_leaves_the_rate_and_the_last_finished_epoch(monkeypatch, rng):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]

    def schedule(epoch, epochs):
        if epoch[0] >= 2:
            raise RuntimeError("of the test")
        return np.full(len(epoch), 0.5)

    for planned in (True, False):
        expected, _, _ = trained(monkeypatch, made, x, t, planned=planned, epochs=2, optimizer=lambda: SGD(0.05))
        network, optimizer = made(), SGD(0.1)
        with monkeypatch.context() as patch:
            if not planned:
                patch.setattr(_plan, "obstacle", lambda network, optimizer: "of the test")
            with pytest.raises(RuntimeError, match="of the test"):
                network.fit(x, t, epochs=5, batch_size=10, optimizer=optimizer, schedule=schedule, callbacks=[lambda epoch: None])
        assert optimizer.lr == 0.1
        assert bits(network) == bits(expected)


# Stopping early

def curve(values):
    """A metric that gives these values, one after the other."""
    values = iter(values)
    return lambda t, scores: next(values)


class Kept:
    """A callback that keeps the bits of each epoch."""

    def __init__(self):
        self.bits = []

    def __call__(self, epoch):
        self.bits.append(bits(epoch.network))


@pytest.mark.parametrize("planned", [True, False])
@pytest.mark.parametrize(("options", "values", "epochs", "best"), [
    ({"patience": 2}, [3, 2, 1, 2, 1, 0], 5, 3),
    ({"patience": 1}, [3, 2, 2, 0], 3, 2),
    ({"patience": 2, "mode": "max"}, [3, 2, 1, 4], 3, 1),
    ({"patience": 2, "min_delta": 0.5}, [3, 2.6, 2.4, 2.1, 1.9], 5, 3),
    ({"patience": 3}, [np.nan, np.nan, 5, np.nan, np.nan, 4, 6], 7, 6),
    ({"patience": 2}, [np.nan, np.nan, 1], 2, None),
    ({"patience": 10}, [3, 1, 2, 3, 4, 5, 6], 7, 2),
    ({"patience": 2, "restore_best": False}, [3, 2, 3, 4], 4, 2),
])
def test_training_stops_when_nothing_is_better_and_the_best_weights_come_back(
        monkeypatch, rng, options, values, epochs, best, planned):
    x, targets = data(rng)
    t, kept = targets[SoftmaxWithLoss], Kept()
    network, _, history = trained(
        monkeypatch, made, x, t, planned=planned, epochs=7, validation_data=(x[:9], t[:9]), metrics={"curve": curve(values)},
        callbacks=[kept], early_stopping=EarlyStopping("curve", **options))
    assert history.metrics == {"curve": pytest.approx(values[:epochs], nan_ok=True)}
    assert len(history.loss) == epochs
    assert history.best_epoch == best
    last = best if best and options.get("restore_best", True) else epochs
    assert bits(network) == kept.bits[last - 1]


@pytest.mark.parametrize(("monitor", "more"), [
    ("loss", False), ("accuracy", True), ("validation_loss", False), ("validation_accuracy", True)])
def test_every_value_of_an_epoch_can_be_watched(rng, monitor, more):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]
    history = made().fit(x, t, epochs=30, batch_size=10, optimizer=SGD(2.0), validation_data=(x[:9], t[:9]),
                         early_stopping=EarlyStopping(monitor, patience=30))
    values = getattr(history, monitor)
    assert history.best_epoch == 1 + (np.argmax(values) if more else np.argmin(values))


def test_an_early_stopping_serves_many_fits(rng):
    x, targets = data(rng)
    stopping = EarlyStopping("loss", patience=2)
    for _ in range(2):
        history = made().fit(x, targets[SoftmaxWithLoss], epochs=9, optimizer=SGD(0), shuffle=False, early_stopping=stopping)
        assert (len(history.loss), history.best_epoch) == (3, 1)


def test_no_epoch_is_trained_after_the_one_that_stops(rng):
    x, targets = data(rng)
    network, expected = made(), made()
    history = network.fit(x, targets[SoftmaxWithLoss], epochs=50,
                          early_stopping=EarlyStopping("loss", patience=3, min_delta=0.1, restore_best=False))
    assert len(history.loss) < 50
    expected.fit(x, targets[SoftmaxWithLoss], epochs=len(history.loss))
    assert bits(network) == bits(expected)


def test_metrics_are_given_targets_and_scores_and_are_told(rng, capsys):
    x, targets = data(rng)
    t, seen = targets[SoftmaxWithLoss], []

    def error_rate(t_given, scores):
        seen.append((t_given, scores))
        return np.mean(scores.argmax(axis=1) != t_given)

    told = []
    network = made()
    history = network.fit(x, t, epochs=2, validation_data=(x[:9], t[:9]), metrics={"error rate": error_rate},
                          callbacks=[told.append], verbose=1)
    np.testing.assert_array_equal(seen[-1][0], t[:9])
    np.testing.assert_array_equal(seen[-1][1], network.predict(x[:9]))
    expected = [1 - accuracy for accuracy in history.validation_accuracy]
    assert history.metrics["error rate"] == pytest.approx(expected)
    assert [epoch.metrics["error rate"] for epoch in told] == history.metrics["error rate"]
    assert f"error rate {expected[-1]:.4f}" in capsys.readouterr().out.splitlines()[-1]


# A time budget

@pytest.mark.parametrize("planned", [True, False])
def test_when_the_time_is_over_the_step_that_runs_is_the_last(monkeypatch, rng, planned):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]
    network, optimizer, history = trained(
        monkeypatch, made, x, t, planned=planned, epochs=9, batch_size=10, time_budget=1e-9, shuffle=False,
        optimizer=lambda: Adam())
    expected = made()
    loss, accuracy = expected.loss(x[:10], t[:10]), expected.accuracy(x[:10], t[:10])
    if not planned:
        monkeypatch.setattr(_plan, "obstacle", lambda network, optimizer: "of the test")
    expected.fit(x[:10], t[:10], batch_size=10, shuffle=False, optimizer=Adam())
    assert bits(network) == bits(expected)
    assert optimizer.iter == 1
    assert history.loss == pytest.approx([loss], rel=1e-12)
    assert history.accuracy == [accuracy]


@pytest.mark.parametrize("planned", [True, False])
def test_after_a_time_budget_the_next_fit_draws_what_comes_next(monkeypatch, rng, planned):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]
    network, _, _ = trained(monkeypatch, made, x, t, planned=planned, epochs=9, time_budget=1e-9)
    whole, _, _ = trained(monkeypatch, made, x, t, planned=planned, epochs=1)
    assert network.generator.bit_generator.state == whole.generator.bit_generator.state


def test_a_time_budget_holds_in_the_middle_of_an_epoch_and_of_many(rng):
    x, targets = data(rng, rows=2000)
    t = targets[SoftmaxWithLoss]
    for rows, batch_size in [(2000, 1), (100, 100)]:
        started = time.perf_counter()
        network = made()
        history = network.fit(x[:rows], t[:rows], epochs=10**7, batch_size=batch_size, time_budget=0.2)
        assert 0.2 <= time.perf_counter() - started < 20        # epochs: hours
        assert np.isfinite(history.loss).all()
        again = made().generator
        for _ in history.loss:
            again.permutation(rows)
        assert network.generator.bit_generator.state == again.bit_generator.state


def test_a_time_budget_that_is_not_used_up_changes_nothing(rng):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]
    one, other = made(), made()
    assert one.fit(x, t, epochs=3, time_budget=1e6).loss == other.fit(x, t, epochs=3).loss
    assert bits(one) == bits(other)


@pytest.mark.parametrize("planned", [True, False])
def test_weights_that_overflow_in_the_last_step_of_the_time_are_noticed(monkeypatch, rng, planned):
    x, targets = data(rng)
    network = made(dtype="float32")
    before = bits(network)
    if not planned:
        monkeypatch.setattr(_plan, "obstacle", lambda network, optimizer: "of the test")
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="became infinite or NaN in epoch 1"):
        network.fit(x, targets[SoftmaxWithLoss], batch_size=10, optimizer=SGD(1e300), time_budget=1e-9)
    assert bits(network) == before


@pytest.mark.parametrize("call", [1, 2, 3, 4, 9])
def test_ctrl_c_while_the_last_step_is_stored_leaves_the_last_finished_epoch(monkeypatch, rng, call):
    x, targets = data(rng)
    network, adam, original, calls = made(), Adam(), _plan.Plan._unpack, []
    before, generator = bits(network), network.generator.bit_generator.state

    def unpack(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        original(*arguments)

    monkeypatch.setattr(_plan.Plan, "_unpack", unpack)
    with pytest.raises(KeyboardInterrupt):
        network.fit(x, targets[SoftmaxWithLoss], epochs=5, batch_size=10, optimizer=adam, time_budget=1e-9)
    assert bits(network) == before
    assert adam.iter == 0
    assert network.generator.bit_generator.state == generator


def test_the_best_weights_come_back_when_the_time_is_over(rng):
    x, targets = data(rng)
    t, kept = targets[SoftmaxWithLoss], Kept()
    network = made()
    slow = [lambda epoch: time.sleep(0.3) if epoch.number == 3 else None]
    history = network.fit(x, t, epochs=1000, time_budget=0.3, validation_data=(x, t), callbacks=[kept, *slow],
                          metrics={"curve": curve([2, 1] + [3] * 1000)}, early_stopping=EarlyStopping("curve", 500))
    assert history.best_epoch == 2 < len(history.loss)
    assert bits(network) == kept.bits[1]


# Callbacks after steps

class Steps:
    """A callback that keeps what it is told, and the bits of the network then."""

    def __init__(self, stop_after=None):
        self.told, self.bits, self.stop_after = [], [], stop_after

    def __call__(self, step):
        self.told.append(step)
        self.bits.append(bits(step.network))
        return step.number == self.stop_after


@pytest.mark.parametrize("planned", [True, False])
@pytest.mark.parametrize("chain", ["everything", "one layer"])
def test_each_step_is_told_with_its_loss_and_the_weights_after_it(monkeypatch, rng, planned, chain):
    x, targets = data(rng)
    t, weights, steps, epochs = targets[SoftmaxWithLoss], some_weights(rng), Steps(), []
    options = {"planned": planned, "epochs": 3, "sample_weight": weights, "optimizer": lambda: Adam(), "clip_norm": 0.5,
               "schedule": schedules.Exponential(0.5)}

    def make():
        network = Network(CHAINS[chain](), seed=1, dtype="float64")
        network.l1_lambda = 0.01
        return network

    network, optimizer, history = trained(
        monkeypatch, make, x, t, step_callbacks=[steps], callbacks=[lambda epoch: epochs.append(len(steps.told))], **options)
    expected, other, expected_history = trained(monkeypatch, make, x, t, **options)
    assert bits(network) == bits(expected) == steps.bits[-1]
    assert history.loss == pytest.approx(expected_history.loss, rel=1e-12)
    assert history.accuracy == expected_history.accuracy
    assert optimizer.iter == other.iter
    assert epochs == [6, 12, 18]
    assert [(step.number, step.epoch) for step in steps.told] == [(n, 1 + (n - 1) // 6) for n in range(1, 19)]
    assert len(set(steps.bits)) == 18
    order = make().generator.permutation(53)
    by_step = [weights[order[first : first + 10]].sum() for first in range(0, 53, 10)]
    assert np.average([step.loss for step in steps.told[:6]], weights=by_step) == pytest.approx(history.loss[0], rel=1e-12)


def test_steps_are_told_of_when_nobody_watches_epochs(rng):
    x, targets = data(rng)
    steps = Steps()
    made().fit(x, targets[SoftmaxWithLoss], epochs=5, batch_size=10, step_callbacks=[steps])
    assert [(step.number, step.epoch) for step in steps.told] == [(n, 1 + (n - 1) // 6) for n in range(1, 31)]


@pytest.mark.parametrize("planned", [True, False])
def test_the_books_masks_are_the_same_when_steps_are_told(monkeypatch, rng, planned):
    x, targets = data(rng)
    found = []
    for callbacks in ([], [Steps()]):
        np.random.seed(3)
        network, _, _ = trained(
            monkeypatch, lambda: MultiLayerNetExtend(20, [9], 5, use_dropout=True, use_batchnorm=True), x,
            targets[SoftmaxWithLoss], planned=planned, step_callbacks=callbacks, shuffle=False)
        found.append(bits(network))
    assert found[0] == found[1]


@pytest.mark.parametrize("planned", [True, False])
def test_a_steps_callback_stops_the_fit_in_the_middle_of_an_epoch(monkeypatch, rng, planned):
    x, targets = data(rng)
    steps, other, adam, updates = Steps(stop_after=8), Steps(), Adam(), []
    network, optimizer, history = trained(
        monkeypatch, made, x, targets[SoftmaxWithLoss], planned=planned, epochs=9, optimizer=lambda: adam,
        step_callbacks=[steps, lambda step: updates.append(adam.iter), other])
    assert updates == list(range(1, 9))
    assert len(steps.told) == len(other.told) == 8      # all are called, also after one asks to stop
    assert len(history.loss) == 2
    assert optimizer.iter == 8
    assert bits(network) == steps.bits[-1]
    assert history.loss[1] == pytest.approx(np.mean([step.loss for step in steps.told[6:]]), rel=1e-12)


@pytest.mark.parametrize("planned", [True, False])
def test_what_a_steps_callback_changes_is_trained_on(monkeypatch, rng, planned):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]

    def change(step):
        if step.number == 2:
            step.network.params["W1"] *= 0.5
            optimizer.lr = 0.0

    optimizer, steps = SGD(0.1), Steps()
    network, _, _ = trained(
        monkeypatch, made, x, t, planned=planned, epochs=1, step_callbacks=[change, steps], optimizer=lambda: optimizer)
    assert len(set(steps.bits)) == 2
    assert bits(network) == steps.bits[1]


class Shrinking(Network):
    """A network of one's own, which changes when it is evaluated."""

    def accuracy(self, x, t):
        self.shrink()
        return super().accuracy(x, t)


@pytest.mark.parametrize("how", ["callback", "metric", "schedule", "network"])
def test_what_is_changed_between_epochs_is_trained_on(rng, how):
    x, t = data(rng)[0], rng.integers(0, 5, 53)

    def network_and_optimizer():
        network, optimizer = Shrinking([Affine(20, 9), Tanh(), Affine(9, 5)], seed=1), Momentum(0.1)

        def shrink():
            for key, param in network.params.items():
                param *= 0.5
                optimizer.v[key] *= 0.1

        network.shrink = (lambda: None) if how != "network" else shrink
        return network, optimizer, shrink

    class Schedule:
        def __call__(self, positions, epochs):
            return np.ones(len(positions))

        def observe(self, epoch):
            shrink()

        def __deepcopy__(self, memo):
            return self

    network, optimizer, shrink = network_and_optimizer()
    options = {
        "callback": {"callbacks": [lambda epoch: shrink()]}, "network": {},
        "metric": {"metrics": {"noted": lambda t, scores: shrink() or 0.0}}, "schedule": {"schedule": Schedule()}}[how]
    network.fit(x, t, epochs=3, batch_size=20, optimizer=optimizer, validation_data=(x, t), **options)
    other, other_optimizer, shrink = network_and_optimizer()
    other.shrink = lambda: None
    for _ in range(3):
        other.fit(x, t, batch_size=20, optimizer=other_optimizer)
        shrink()
    assert bits(network) == bits(other)
    for key, state in optimizer.v.items():
        np.testing.assert_array_equal(state, other_optimizer.v[key])


@pytest.mark.parametrize("planned", [True, False])
@pytest.mark.parametrize("number", [1, 3, 6, 9])
def test_an_error_in_a_steps_callback_leaves_the_last_finished_epoch(monkeypatch, rng, planned, number):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]

    def fail(step):
        if step.number == number:
            raise KeyboardInterrupt

    network, optimizer = made(), Adam()
    with monkeypatch.context() as patch:
        if not planned:
            patch.setattr(_plan, "obstacle", lambda network, optimizer: "of the test")
        with pytest.raises(KeyboardInterrupt):
            network.fit(x, t, epochs=3, batch_size=10, optimizer=optimizer, step_callbacks=[fail])
    finished = number // 6 if planned else (number - 1) // 6
    expected, other = made(), Adam()
    if finished:
        expected, other, _ = trained(monkeypatch, made, x, t, planned=planned, epochs=1, optimizer=Adam)
    assert bits(network) == bits(expected)
    assert optimizer.iter == other.iter == 6 * finished
    assert network.generator.bit_generator.state == expected.generator.bit_generator.state


# What is refused

class OwnLoss:
    def forward(self, x, t):
        return 1.0

    def backward(self, dout=1):
        return np.zeros((5, 5))


class OwnNetwork(Network):
    def training_step(self, x, t):
        return super().training_step(x, t)


class NoRate:
    def update(self, params, grads):
        pass


W = np.ones(53)

REFUSED = [
    ({"sample_weight": W[:5]}, ValueError, r"sample_weight has shape \(5,\), but x has 53 rows: pass shape \(53,\)"),
    ({"sample_weight": W[:, None]}, ValueError, r"sample_weight has shape \(53, 1\)"),
    ({"sample_weight": -W}, ValueError, "sample_weight holds -1, but a weight is at least 0"),
    ({"sample_weight": 0 * W}, ValueError, "the weights of all rows are 0 together, but must be above zero and finite"),
    ({"sample_weight": 1e308 * W}, ValueError, "the weights of all rows are inf together"),
    ({"sample_weight": np.where(np.arange(53) == 7, np.nan, 1)}, ValueError, r"sample_weight contains NaN or infinity \(first at row 7"),
    ({"sample_weight": ["a"] * 53}, TypeError, "sample_weight"),
    ({"class_weight": "even"}, ValueError, "class_weight is 'even', but must be one of balanced"),
    ({"class_weight": [1, 2, 3, 4, 5]}, TypeError, "class_weight is .*, but must be a dict of weights by class, or 'balanced'"),
    ({"class_weight": {5: 1.0}}, ValueError, "class_weight has class 5, but the classes are 0 to 4"),
    ({"class_weight": {-1: 1.0}}, ValueError, "a class of class_weight is -1"),
    ({"class_weight": {"a": 1.0}}, TypeError, "a class of class_weight is 'a'"),
    ({"class_weight": {0: -1.0}}, ValueError, r"class_weight\[0\] is -1"),
    ({"schedule": 0.5}, TypeError, "schedule is 0.5, but must be callable: one of nnfast.schedules, or a function like them"),
    ({"schedule": schedules.Cosine}, TypeError, "schedule is <class .*>, but must be callable"),
    ({"schedule": lambda epoch, epochs: [1.0, 2.0]}, ValueError, r"schedule gives shape \(2,\) for positions of shape \(1,\)"),
    ({"schedule": lambda epoch, epochs: -1}, ValueError, "schedule gives -1.0, but a factor is finite and at least 0"),
    ({"schedule": lambda epoch, epochs: np.nan}, ValueError, "schedule gives infinity or NaN"),
    ({"schedule": lambda epoch, epochs: "fast"}, TypeError, "what schedule gives"),
    ({"schedule": schedules.Cosine(), "optimizer": NoRate()}, TypeError, "schedule changes a learning rate, but NoRate has no lr"),
    ({"schedule": schedules.OnPlateau()}, ValueError, "monitor is 'validation_loss', but there is no validation_data"),
    ({"schedule": schedules.WarmUp(1, schedules.OnPlateau())}, ValueError, "monitor is 'validation_loss', but there is no"),
    ({"schedule": schedules.WarmUp(1, schedules.WarmUp(1, schedules.OnPlateau("b")))}, ValueError, "monitor is 'b', but must be"),
    ({"clip_value": 0}, ValueError, "clip_value is 0"),
    ({"clip_value": "small"}, TypeError, "clip_value is 'small'"),
    ({"clip_norm": -1}, ValueError, "clip_norm is -1"),
    ({"clip_norm": 1, "clip_value": 1}, ValueError, "clip_value and clip_norm are both given"),
    ({"time_budget": 0}, ValueError, "time_budget is 0"),
    ({"time_budget": "1 s"}, TypeError, "time_budget is '1 s'"),
    ({"early_stopping": 5}, TypeError, "early_stopping is 5, but must be an EarlyStopping"),
    ({"early_stopping": EarlyStopping()}, ValueError, "monitor is 'validation_loss', but there is no validation_data"),
    ({"early_stopping": EarlyStopping("auc")}, ValueError, "monitor is 'auc', but must be one of loss, accuracy, validation_loss"),
    ({"step_callbacks": [3]}, TypeError, r"step_callbacks\[0\] is 3, but must be callable"),
    ({"metrics": {"a": lambda t, scores: 1}}, ValueError, "metrics are evaluated on validation_data, but there is none"),
    ({"metrics": [len]}, TypeError, "metrics is a list, but must be a dict of functions by name"),
    ({"metrics": {"loss": len}}, ValueError, "metrics has 'loss', but a name is a string, and not one that an Epoch has anyway"),
    ({"metrics": {1: len}}, ValueError, "metrics has 1, but"),
    ({"metrics": {"a": 3}}, TypeError, r"metrics\['a'\] is 3, but must be callable"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused_before_anything_changes(rng, options, error, message):
    x, targets = data(rng)
    network = made()
    before, generator = bits(network), network.generator.bit_generator.state
    with pytest.raises(error, match=message) as caught:
        network.fit(x, targets[SoftmaxWithLoss], **options)
    assert "\n" not in str(caught.value)
    assert bits(network) == before
    assert network.generator.bit_generator.state == generator


def test_what_gives_no_number_is_named_and_the_epoch_before_it_stays(rng):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]
    with pytest.raises(TypeError, match=r"metrics\['a'\] gives 'much', but must give a number"):
        made().fit(x, t, validation_data=(x, t), metrics={"a": lambda t, scores: "much"})


@pytest.mark.parametrize(("network", "message"), [
    (lambda: Network([Affine(20, 5)], OwnLoss()), "the loss OwnLoss is written in Python and gives no loss by row"),
    (lambda: OwnNetwork([Affine(20, 5)]), "the training_step of OwnNetwork has no argument sample_weight"),
])
def test_what_cannot_weigh_rows_says_so(rng, network, message):
    x, targets = data(rng)
    with pytest.raises(TypeError, match=message):
        network().fit(x, targets[SoftmaxWithLoss], sample_weight=W)


@pytest.mark.parametrize("loss", [SigmoidWithLoss, IdentityWithLoss])
def test_classes_have_no_weight_where_there_are_none(rng, loss):
    x, targets = data(rng)
    with pytest.raises(TypeError, match="class_weight needs one class for each row: labels, or 0 and 1 for a single output"):
        made(loss).fit(x, targets[None], class_weight={0: 2.0})


def test_accuracy_is_not_watched_where_there_is_none(rng):
    x, targets = data(rng)
    with pytest.raises(TypeError, match="accuracy needs a classifier, but the loss is IdentityWithLoss"):
        made(IdentityWithLoss).fit(x, targets[None], early_stopping=EarlyStopping("accuracy"))


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: schedules.StepDecay(0), ValueError, "every is 0"),
    (lambda: schedules.StepDecay(2, -1), ValueError, "decay is -1"),
    (lambda: schedules.Exponential(0), ValueError, "decay is 0"),
    (lambda: schedules.InverseScaling(-1), ValueError, "power is -1"),
    (lambda: schedules.Cosine(2), ValueError, "floor is 2"),
    (lambda: schedules.OneCycle(rise=1), ValueError, "rise is 1"),
    (lambda: schedules.OneCycle(start=-1), ValueError, "start is -1"),
    (lambda: schedules.WarmUp(0), ValueError, "epochs is 0"),
    (lambda: schedules.WarmUp(1, 3), TypeError, "then is 3, but must be callable"),
    (lambda: schedules.OnPlateau(patience=0), ValueError, "patience is 0"),
    (lambda: schedules.OnPlateau(mode="more"), ValueError, "mode is 'more', but must be one of auto, min, max"),
    (lambda: EarlyStopping(patience=1.5), TypeError, "patience is 1.5"),
    (lambda: EarlyStopping(min_delta=-1), ValueError, "min_delta is -1"),
    (lambda: EarlyStopping(3), TypeError, "monitor is 3, but must be"),
])
def test_wrong_settings_of_schedules_and_stopping_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
