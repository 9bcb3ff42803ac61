"""fit_many: every network as if it were trained alone, to the bit, whatever trains beside it."""

import copy
import re
import signal
import threading
import time

import numpy as np
import pytest

import nnfast
from nnfast import (
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Affine,
    BatchNormalization,
    Dropout,
    EarlyStopping,
    FitManyError,
    FunctionLoss,
    Gelu,
    HuberLoss,
    IdentityWithLoss,
    Momentum,
    Nesterov,
    Network,
    PoissonLoss,
    Relu,
    Rescale,
    RMSprop,
    Sigmoid,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    _epochs,
    _fit,
    _plan,
    _threads,
    _turns,
    _workers,
    fit_many,
    schedules,
)

ROWS, INPUTS, CLASSES = 230, 12, 3


class Doubled:
    """A layer written in Python: such a network trains layer by layer."""

    def forward(self, x):
        return 2 * x

    def backward(self, dout):
        return 2 * dout


class Plain:
    """An optimiser written in Python."""

    lr = 0.1

    def update(self, params, grads):
        for key, param in params.items():
            param -= self.lr * grads[key]


@pytest.fixture
def data(rng):
    return rng.standard_normal((ROWS, INPUTS)).astype(np.float32), rng.integers(0, CLASSES, ROWS)


def book_dropout():
    layer = Dropout(0.3)
    layer.generator = None
    return layer


def penalised():
    network = Network([Affine(INPUTS, 30), Relu(), Affine(30, CLASSES)], seed=13)
    network.weight_decay_lambda = 0.01
    return network


def squares(scores, t):
    difference = scores - np.eye(CLASSES)[t]
    return 0.5 * (difference**2).sum(axis=1), difference


# Different in depth, width, dtype, loss and seed; (how it is made, its optimiser).
KINDS = {
    "shallow": (lambda: Network([Affine(INPUTS, CLASSES)], seed=1), SGD),
    "wide": (lambda: Network([Affine(INPUTS, 70), Relu(), Affine(70, CLASSES)], seed=2), Momentum),
    "deep": (lambda: Network([Affine(INPUTS, 9), Tanh(), Affine(9, 17), Sigmoid(), Affine(17, CLASSES)], seed=3), Adam),
    "of float64": (lambda: Network([Affine(INPUTS, 8), Gelu(), Affine(8, CLASSES)], seed=4, dtype="float64"), AdamW),
    "normalised": (lambda: Network([Affine(INPUTS, 20), BatchNormalization(20), Relu(), Affine(20, CLASSES)], seed=5), RMSprop),
    "with dropout": (lambda: Network([Affine(INPUTS, 20), Relu(), Dropout(0.3), Affine(20, CLASSES)], seed=6), Nesterov),
    "with the book's dropout": (
        lambda: Network([Affine(INPUTS, 20), Relu(), book_dropout(), Affine(20, CLASSES)], seed=7), AdaGrad),
    "another of the book's": (
        lambda: Network([Affine(INPUTS, 6), Relu(), book_dropout(), Affine(6, CLASSES)], seed=8), SGD),
    "smoothed": (lambda: Network([Affine(INPUTS, 10), Relu(), Affine(10, CLASSES)], SoftmaxWithLoss(0.1), seed=9), Adam),
    "with a layer in Python": (lambda: Network([Doubled(), Affine(INPUTS, 5), Relu(), Affine(5, CLASSES)], seed=10), Adam),
    "with an optimiser in Python": (lambda: Network([Affine(INPUTS, 5), Relu(), Affine(5, CLASSES)], seed=11), Plain),
    "with a loss in Python": (lambda: Network([Affine(INPUTS, CLASSES)], FunctionLoss(squares), seed=12), SGD),
    "penalised": (penalised, SGD),
}


def all_kinds():
    return [made() for made, _ in KINDS.values()]


def bits(network):
    return [array.tobytes() for array in network.state()], repr(network.generator.bit_generator.state)


def values(history):
    found = dict(vars(history))
    del found["seconds"]
    return found


def assert_as_alone(x, t, options_of_each, together, *, networks=None, **more):
    """That fit_many, given `together`, does what fit does with each one's options, whatever the number of threads.

    networks: how to make them; rows are given to fit as copies.
    """
    networks = networks or all_kinds
    np.random.seed(5)
    alone, expected = networks(), []
    for network, options in zip(alone, options_of_each, strict=True):
        rows = options.pop("rows", slice(None))
        expected.append(network.fit(x[rows], t[rows], num_threads=1, **options))
    state = np.random.get_state()[1]
    for num_threads in (1, 2, 3):
        np.random.seed(5)
        found = networks()
        histories = fit_many(found, x, t, num_threads=num_threads, **copy.deepcopy(together), **more)
        for place, (one, other) in enumerate(zip(found, alone, strict=True)):
            assert bits(one) == bits(other), f"networks[{place}] on {num_threads} threads"
            assert values(histories[place]) == values(expected[place])
            assert len(histories[place].seconds) == len(expected[place].seconds)
        assert (np.random.get_state()[1] == state).all()


def test_networks_of_all_kinds_are_trained_to_the_bits_of_each_alone(data):
    epochs = [5, 1, 9, 3, 4, 6, 2, 3, 7, 2, 2, 3, 8]
    sizes = [10, 100, 7, 230, 50, 33, 20, 20, 1000, 50, 50, 50, 64]
    optimizers = [made() for _, made in KINDS.values()]
    assert_as_alone(
        *data,
        [{"epochs": n, "batch_size": size, "optimizer": copy.deepcopy(optimizer)}
         for n, size, optimizer in zip(epochs, sizes, optimizers, strict=True)],
        {"epochs": epochs, "batch_size": sizes, "optimizer": optimizers})


@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_are_folds_bootstraps_and_masks_of_what_all_share(data, rng, shuffle):
    x, t = data
    mask = rng.random(ROWS) < 0.4
    rows = [rng.permutation(ROWS)[:100], rng.integers(0, ROWS, 400), mask, None, [7], np.arange(ROWS)[::-2],
            *[rng.integers(0, ROWS, 50).astype(np.int32) for _ in range(7)]]
    each = [{"rows": slice(None) if one is None else one, "epochs": 4, "batch_size": 30, "shuffle": shuffle} for one in rows]
    assert_as_alone(x, t, each, {"epochs": 4, "batch_size": 30, "shuffle": shuffle, "rows": rows})


def test_a_schedule_counts_the_steps_of_the_rows_that_are_trained_on(data, rng):
    rows = [rng.integers(0, ROWS, count) for count in (40, 130, 300)]

    def networks():
        return all_kinds()[:3]

    common = {"epochs": 3, "batch_size": 20, "schedule": schedules.OneCycle()}
    assert_as_alone(*data, [{"rows": one, **common} for one in rows], {"rows": rows, **common}, networks=networks)


def test_bytes_stay_bytes_where_the_first_layer_rescales_them(rng):
    x, t = rng.integers(0, 256, (90, INPUTS)).astype(np.uint8), rng.integers(0, CLASSES, 90)

    def networks():
        return [Network([*first, Affine(INPUTS, CLASSES)], seed=0, dtype=dtype)
                for dtype in ("float32", "float64") for first in ((), (Rescale(1 / 255),), (Rescale(0.1),))]

    assert_as_alone(x, t, [{"epochs": 2}] * 6, {"epochs": 2}, networks=networks)


def test_validation_rows_have_the_targets_as_they_were_given(rng):
    x, t = rng.standard_normal((60, INPUTS)), rng.integers(0, 2, (60, 1))
    held = np.arange(40, 60)

    def network():
        return Network([Affine(INPUTS, 1)], SigmoidWithLoss(label_smoothing=0.2), seed=0)

    alone = network().fit(x, t, epochs=3, validation_data=(x[held], t[held]))
    (found,) = fit_many([network()], x, t, epochs=3, validation_rows=[held])
    assert found.validation_loss == alone.validation_loss


def test_weights_count_in_the_rows_that_are_trained_on(data, rng):
    x, t = data
    weights = rng.random(ROWS)
    rows = [rng.integers(0, ROWS, 60 + 10 * place) for place in range(6)]
    together = {"epochs": 3, "rows": rows, "sample_weight": weights, "class_weight": ["balanced", {0: 3.0}, None] * 2}
    each = [{"rows": one, "epochs": 3, "sample_weight": weights[one], "class_weight": which}
            for one, which in zip(rows, together["class_weight"], strict=True)]

    def networks():
        return all_kinds()[:6]

    assert_as_alone(x, t, each, together, networks=networks)
    weights[:20] = 0
    with pytest.raises(ValueError, match=r"^the weights of all rows are 0 together"):
        fit_many(networks(), x, t, rows=[*rows[:5], np.arange(20)], sample_weight=weights)
    given = [weights, None, rng.random(ROWS)] * 2
    assert_as_alone(
        x, t, [{"epochs": 2, "sample_weight": one} for one in given], {"epochs": 2, "sample_weight": given},
        networks=networks)
    assert_as_alone(x, t, [{"sample_weight": weights}] * 6, {"sample_weight": weights.tolist()}, networks=networks)


def test_all_options_of_fit_are_for_all_or_for_each(data, rng):
    x, t = data
    held = rng.permutation(ROWS)[:50], np.arange(60)

    def recall(t, scores):
        return float((scores.argmax(axis=1) == t).mean())

    def networks():
        return all_kinds()[:6]

    common = {
        "epochs": 12, "batch_size": 40, "validation_data": (x[:30], t[:30]), "metrics": {"recall": recall},
        "early_stopping": EarlyStopping("recall", patience=2, restore_best=True), "schedule": schedules.OneCycle(),
        "clip_norm": 0.5, "class_weight": "balanced",
    }
    assert_as_alone(x, t, [dict(common) for _ in range(6)], common, networks=networks)
    each = [
        {"early_stopping": EarlyStopping("validation_loss", patience=1), "validation_data": (x[held[0]], t[held[0]])},
        {"schedule": schedules.OnPlateau("loss", patience=1), "clip_value": 0.01},
        {"validation_data": (x[held[1]], t[held[1]])}, {"clip_norm": 0.1}, {"shuffle": False},
        {"callbacks": [lambda epoch: epoch.number == 4]},
    ]
    names = {"early_stopping": None, "schedule": None, "clip_value": None, "clip_norm": None, "shuffle": True}
    together = {name: [one.get(name, default) for one in each] for name, default in names.items()}
    together["callbacks"] = [one.get("callbacks", []) for one in each]
    together["validation_rows"] = [held[0], None, held[1], None, None, None]
    assert_as_alone(x, t, [{"epochs": 9, **one} for one in each], {"epochs": 9, **together}, networks=networks)


def test_a_list_of_functions_is_for_all_and_each_epoch_is_told_in_the_calling_thread(data):
    told, steps = [], []
    networks = all_kinds()[:4]
    fit_many(networks, *data, epochs=3, num_threads=2,
             callbacks=[lambda epoch: told.append((epoch.network, epoch.number, threading.current_thread()))],
             step_callbacks=[lambda step: steps.append((step.network, step.number))])
    for network in networks:
        assert [number for one, number, _ in told if one is network] == [1, 2, 3]
        assert [number for one, number in steps if one is network] == list(range(1, 10))
    assert {thread for *_, thread in told} == {threading.current_thread()}


def test_losses_of_regression_train_beside_each_other(rng):
    x, t = rng.standard_normal((90, INPUTS)), rng.random((90, 2))

    def networks():
        losses = (IdentityWithLoss(), HuberLoss(0.5), PoissonLoss(), SigmoidWithLoss())
        return [Network([Affine(INPUTS, 7), Relu(), Affine(7, 2)], loss, seed=place, dtype=dtype)
                for dtype in ("float32", "float64") for place, loss in enumerate(losses)]

    assert_as_alone(x, t, [{"epochs": 6, "batch_size": 20}] * 8, {"epochs": 6, "batch_size": 20}, networks=networks)


def test_one_optimizer_for_all_is_copied_and_lists_keep_what_they_learn(data):
    adam, each = Adam(), [Momentum(0.1), Momentum(0.2)]
    fit_many(all_kinds()[:2], *data, optimizer=adam)
    assert adam.iter == 0 and adam.m is None
    networks = all_kinds()[:2]
    fit_many(networks, *data, optimizer=each, epochs=2)
    fit_many(networks, *data, optimizer=each, epochs=3)
    alone, momentum = all_kinds()[1], Momentum(0.2)
    alone.fit(*data, optimizer=momentum, epochs=2)
    alone.fit(*data, optimizer=momentum, epochs=3)
    assert bits(networks[1]) == bits(alone)
    np.testing.assert_equal(each[1].v, momentum.v)


def test_networks_that_share_something_are_trained_in_their_order(data):
    def sharing():
        layer = Affine(np.full((INPUTS, CLASSES), 0.1, np.float32), np.zeros(CLASSES, np.float32))
        memory = np.random.default_rng(4).standard_normal(40 * INPUTS).astype(np.float32)
        weights = [memory[first : first + INPUTS * CLASSES].reshape(INPUTS, CLASSES) for first in (0, CLASSES)]
        networks = [
            Network([Affine(INPUTS, 30), Dropout(0.2), Relu(), Affine(30, CLASSES)], seed=0),
            Network([Affine(weights[0], np.zeros(CLASSES, np.float32))], seed=0),
            Network([Affine(INPUTS, 60), Relu(), Affine(60, CLASSES)], seed=1),
            Network([layer], seed=5), Network([layer], seed=6),
            Network([Affine(INPUTS, 90), Dropout(0.1), Relu(), Affine(90, CLASSES)], seed=1),
            Network([Affine(weights[1], np.zeros(CLASSES, np.float32))], seed=0),
        ]
        networks[5].generator = networks[5].layers["Dropout1"].generator = networks[0].generator
        assert np.shares_memory(*weights)
        return networks

    assert_as_alone(*data, [{"epochs": 4}] * 7, {"epochs": 4}, networks=sharing)


def test_data_are_not_copied(data):
    x, t = data[0], data[1].astype(np.int64)
    fits, train = [], _turns.train

    def noted(given, *more):
        fits.extend(given)
        return train(given, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_turns, "train", noted)
        fit_many(all_kinds()[:3], x, t, rows=[np.arange(9)] * 3)
        fit_many([Network([Affine(INPUTS, CLASSES)], seed=1, dtype="float64") for _ in range(3)], x.astype(np.float16), t)
    assert all(np.shares_memory(fit.job.x, x) for fit in fits[:3])
    assert all(fit.job.x is fits[3].job.x for fit in fits[3:])     # converted once
    assert all(fit.job.t is fits[0].job.t for fit in fits[:3])      # labels are copied, once


def test_the_largest_begin_first(monkeypatch, data):
    begun, original = [], _epochs.planned
    monkeypatch.setattr(_epochs, "planned", lambda job, *more: begun.append(job.network) or original(job, *more))
    widths, epochs = [10, 300, 40, 80, 20], [4, 1, 20, 2, 4]
    for num_threads in (1, 2, 3):
        begun.clear()
        networks = [Network([Affine(INPUTS, width), Relu(), Affine(width, CLASSES)], seed=0) for width in widths]
        fit_many(networks, *data, epochs=epochs, num_threads=num_threads)
        assert [networks.index(one) for one in begun] == [2, 1, 3, 4, 0]


@pytest.mark.parametrize("callbacks", [[], [lambda epoch: None]], ids=["", "with callbacks"])
def test_each_has_a_thread_and_the_last_one_all_of_them(monkeypatch, data, callbacks):
    networks = [Network([Affine(INPUTS, 30), Relu(), Affine(30, CLASSES)], seed=0) for _ in range(3)]
    smaller = [networks[0], networks[2]]
    taken, take, looks, evaluated = [], _plan.Plan._take, [], _fit.evaluated

    def taking(plan, turn, num_threads):
        taken.append((plan.network, num_threads))
        if plan.network is networks[1] and num_threads == 1 and len(taken) > 10:    # the others must end first
            until = time.monotonic() + 20
            while (len({id(one) for one, _ in taken}) < 3 or any(id(one) in _fit._fitting for one in smaller)) and (
                    time.monotonic() < until):
                time.sleep(0.001)
            time.sleep(0.001)
        return take(plan, turn, num_threads)

    monkeypatch.setattr(_plan.Plan, "_take", taking)
    monkeypatch.setattr(_fit, "evaluated", lambda network, *given: looks.append(
        (network, _threads.get_num_threads())) or evaluated(network, *given))
    monkeypatch.setattr(_workers, "SHORT", 0)
    fit_many(networks, *data, epochs=[1, 2000, 3], num_threads=2, validation_rows=[range(9)] * 3, callbacks=callbacks)
    for noted, most in ((taken, None), (looks, 2)):     # None: as many as are worth their while
        assert {threads for network, threads in noted if network in smaller} == {1}
        of_last = [threads for network, threads in noted if network is networks[1]]
        assert of_last[-1] == most and set(of_last) <= {1, most}
        assert of_last == sorted(of_last, key=lambda threads: threads == most)
    assert taken[0] == (networks[1], 1)


class Telling(Network):
    """A network of one's own, which evaluates in its own way."""

    def accuracy(self, x, t, **more):
        self.heard.append(threading.current_thread())
        return super().accuracy(x, t, **more)


class Noting(Doubled):
    """A layer of one's own."""

    def forward(self, x):
        self.heard.append(threading.current_thread())
        return super().forward(x)


def slowly(positions, epochs):
    slowly.heard.append(threading.current_thread())
    return np.ones(len(positions))


def test_functions_of_others_are_called_in_the_calling_thread_and_all_else_runs_in_workers(monkeypatch, data):
    begun, planned = {}, _epochs.planned

    def noting(job, *more):
        begun[id(job.network)] = threading.current_thread()
        return planned(job, *more)

    monkeypatch.setattr(_epochs, "planned", noting)
    heard = slowly.heard = Telling.heard = []
    made = [Affine(INPUTS, 9), Relu(), Affine(9, CLASSES)]
    networks = [Telling(copy.deepcopy(made), seed=0), *(Network(copy.deepcopy(made), seed=0) for _ in range(6))]
    fit_many(
        networks, *data, epochs=5, num_threads=2, validation_rows=[range(30)] * 7,
        early_stopping=[None, EarlyStopping(patience=9), *[None] * 5],
        schedule=[None, schedules.Cosine(), slowly, schedules.WarmUp(2, then=slowly), schedules.OnPlateau(), None, None],
        metrics=[*[None] * 5, {"noted": lambda t, scores: heard.append(threading.current_thread()) or 0.0}, None],
        callbacks=[*[[]] * 6, [lambda epoch: heard.append(threading.current_thread())]])
    here = threading.current_thread()
    assert len(heard) > 4 * 5 and set(heard) == {here}
    assert [begun[id(network)] is here for network in networks] == [True, False, True, True, False, True, True]


def test_layers_of_ones_own_run_in_the_calling_thread(data):
    heard = Noting.heard = []
    networks = [Network([*first, Affine(INPUTS, CLASSES)], seed=0) for first in ([Noting()], [], [])]
    fit_many(networks, *data, num_threads=2)
    assert heard and set(heard) == {threading.current_thread()}


def test_a_chain_with_one_that_calls_functions_is_trained_in_the_calling_thread(data):
    networks = [Network([Affine(INPUTS, CLASSES)], seed=0) for _ in range(3)]
    networks[1].generator = networks[0].generator
    heard = []
    fit_many(networks, *data, num_threads=2, callbacks=[[], [lambda epoch: heard.append(threading.current_thread())], []])
    assert heard == [threading.current_thread()]


def test_workers_have_the_context_of_the_call(monkeypatch, data):
    found, planned = [], _epochs.planned
    monkeypatch.setattr(
        _epochs, "planned", lambda *given: found.append(_threads.get_num_threads()) or planned(*given))
    with nnfast.num_threads(3):
        fit_many(all_kinds()[:2], *data)
    assert found == [3, 3]


def test_a_system_without_threads_to_spare_trains_in_the_calling_thread(monkeypatch, data):
    start, started = threading.Thread.start, []

    def start_one(thread):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    for _ in range(2):      # one worker, then none
        networks, alone = all_kinds()[:4], all_kinds()[:4]
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start_one)
            fit_many(networks, *data, num_threads=3, optimizer=SGD(0.1))
        for network, expected in zip(networks, alone, strict=True):
            expected.fit(*data, optimizer=SGD(0.1))
            assert bits(network) == bits(expected)


def test_an_error_of_a_worker_is_raised_and_nobody_waits_for_ever(monkeypatch, data):
    def fails(chain, take, note):
        raise LookupError("in a worker")

    monkeypatch.setattr(_turns._Chain, "train", fails)
    with pytest.raises(LookupError, match="in a worker"):
        fit_many(all_kinds()[:3], *data, num_threads=2)


@pytest.mark.parametrize(("callbacks", "plans", "least", "most_at_once"), [
    ([], 6, 2, 2), ([lambda epoch: None], 6, 6, 8), ([lambda epoch: None], 0, 2, 2)])
def test_only_as_many_begin_as_the_memory_for_them_allows(monkeypatch, data, callbacks, plans, least, most_at_once):
    alive, most = set(), []

    class Counted(_plan.Plan):
        def __init__(self, *given, **more):
            super().__init__(*given, **more)
            alive.add(id(self))
            most.append(len(alive))

        def __del__(self):
            alive.discard(id(self))

    monkeypatch.setattr(_plan, "Plan", Counted)
    networks = [Network([Affine(INPUTS, 200), Relu(), Affine(200, CLASSES)], seed=i) for i in range(20)]
    with nnfast.num_threads(2):
        nbytes = _plan.Plan(networks[0], SGD(), 100).nbytes
    most.clear()
    monkeypatch.setattr(_turns, "_BEGUN_BYTES", plans * nbytes)
    fit_many(networks, *data, epochs=3, num_threads=2, callbacks=callbacks)
    assert least <= max(most) <= most_at_once


def test_one_that_cannot_be_trained_is_named_and_the_others_are_trained(data):
    networks, alone = all_kinds()[:5], all_kinds()[:5]
    optimizers = [SGD(0.1), SGD(1e30), SGD(0.1), SGD(0.1), SGD(0.1)]

    def fails(epoch):
        raise LookupError("a callback of one's own")

    with pytest.raises(FitManyError, match=r"^2 of 5 networks .*networks\[1\]: FloatingPointError: .*networks\[3\]: Lookup") as info:
        fit_many(networks, *data, epochs=3, optimizer=optimizers, num_threads=2, callbacks=[[], [], [], [fails], []])
    assert set(info.value.errors) == {1, 3} and isinstance(info.value.errors[3], LookupError)
    assert info.value.__cause__ is info.value.errors[1]
    assert [history is None for history in info.value.histories] == [False, True, False, True, False]
    for place in (0, 2, 4):
        alone[place].fit(*data, epochs=3, optimizer=SGD(0.1))
        assert bits(networks[place]) == bits(alone[place])
    assert bits(networks[1]) == bits(alone[1])      # as before its first epoch
    again = copy.copy(info.value).errors
    assert again.keys() == {1, 3}
    fit_many(networks, *data)       # and all can go on


@pytest.mark.parametrize("callbacks", [[], [lambda epoch: None]], ids=["", "with callbacks"])
@pytest.mark.parametrize("short", [0, 5e-4])
def test_an_error_in_compiled_code_is_of_its_network(monkeypatch, data, callbacks, short):
    take, networks, alone = _plan.Plan._take, all_kinds()[:4], all_kinds()[:4]

    def fails(plan, turn, num_threads):
        if plan.network is networks[1] and turn.lasted < np.inf:    # in its second turn
            raise IndexError("as compiled code says it")
        return take(plan, turn, num_threads)

    monkeypatch.setattr(_plan.Plan, "_take", fails)
    monkeypatch.setattr(_workers, "SHORT", short)
    with pytest.raises(FitManyError, match=r"^1 of 4 networks .*networks\[1\]: IndexError: as compiled code says it") as info:
        fit_many(networks, *data, epochs=3, validation_rows=[range(9)] * 4, callbacks=callbacks, num_threads=2)
    assert list(info.value.errors) == [1]
    for place, network in enumerate(alone):
        network.fit(*data, epochs=1 if place == 1 else 3)
        assert bits(networks[place]) == bits(network)


def test_data_that_are_not_finite_are_refused_where_they_are_used_only(data):
    x, t = data
    x[[10, 100], 3] = np.nan
    networks = all_kinds()[:2]
    fit_many(networks, x, t, rows=[np.arange(11, 100), np.arange(101, ROWS)])
    with pytest.raises(FitManyError, match=r"networks\[1\]: ValueError: x contains NaN or infinity \(first at row 100"):
        fit_many(networks, x, t, rows=[np.arange(11, 100), np.arange(ROWS - 1, 50, -1)])


def test_seconds_are_those_that_each_trains_itself(data):
    networks = [Network([Affine(INPUTS, 40), Relu(), Affine(40, CLASSES)], seed=i) for i in range(8)]
    begun = time.perf_counter()
    histories = fit_many(networks, *data, epochs=300, num_threads=1)
    assert 0 < sum(sum(history.seconds) for history in histories) <= time.perf_counter() - begun


def test_seconds_in_which_others_have_the_threads_are_not_counted(monkeypatch, data):
    monkeypatch.setattr(_workers, "SHORT", 0)
    networks = [Network([Affine(INPUTS, 90), Relu(), Affine(90, CLASSES)], seed=i) for i in range(12)]
    begun = time.perf_counter()
    histories = fit_many(networks, *data, epochs=60, num_threads=2, callbacks=[lambda epoch: None])
    # Two workers at most, and the calling thread.
    assert sum(sum(history.seconds) for history in histories) < 3.5 * (time.perf_counter() - begun)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_time_budget_is_that_of_each(data, num_threads):
    networks = all_kinds()[:6]
    histories = fit_many(networks, *data, epochs=10**7, time_budget=[0.4, *[0.05] * 5], num_threads=num_threads)
    seconds = [sum(history.seconds) for history in histories]     # without those for the plan, which the budget counts
    assert seconds[0] > 0.2 and min(seconds) > 0.01


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("num_threads", [1, 2])
def test_ctrl_c_keeps_what_is_finished_and_finished_epochs_of_the_others(data, num_threads):
    def made(seed):
        return Network([Affine(INPUTS, 40), BatchNormalization(40), Relu(), Affine(40, CLASSES)], seed=seed)

    networks, ended, noted = [made(seed) for seed in range(6)], [], {}

    def note(epoch):
        place = networks.index(epoch.network)
        noted[place] = epoch.number, bits(epoch.network)
        if epoch.number == 2 and place == 0:    # which costs most and begins first
            ended.append(place)
            return True

    timer = threading.Thread(target=lambda: (wait(), signal.raise_signal(signal.SIGINT)), daemon=True)

    def wait():
        while not ended or noted.get(1, (0,))[0] < 3:
            time.sleep(0.001)

    timer.start()
    with pytest.raises(KeyboardInterrupt):
        fit_many(networks, *data, epochs=[10**7, *[10**6] * 5], callbacks=[note], num_threads=num_threads)
    timer.join()
    assert noted[0][0] == 2
    for place, (epochs, expected) in noted.items():
        if bits(networks[place]) != expected:   # interrupted after the next epoch, before it was told of
            alone = made(place)
            alone.fit(*data, epochs=epochs + 1, optimizer=SGD())
            assert bits(networks[place]) == bits(alone)
    fit_many(networks, *data)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_a_call_without_watchers_is_interrupted_soon(data):
    networks = [Network([Affine(INPUTS, 40), Relu(), Affine(40, CLASSES)], seed=i) for i in range(6)]
    before = [bits(network) for network in networks]
    timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    begun = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        fit_many(networks, *data, epochs=10**6, num_threads=2)
    assert time.perf_counter() - begun < 10     # where the signal comes from another thread, and wakes nobody up
    assert not any(thread.name.startswith("nnfast-worker") for thread in threading.enumerate())
    assert bits(networks[0]) != before[0]
    fit_many(networks, *data)


def test_a_network_that_is_being_trained_is_refused(data):
    networks = all_kinds()[:2]
    refused = []

    def again(epoch):
        with pytest.raises(RuntimeError) as info:
            networks[0].fit(*data)
        refused.append(info.value)

    fit_many(networks, *data, callbacks=[[again], []])
    assert "is being trained" in str(refused[0])


def test_progress_and_lines_tell_of_networks(data, capsys):
    fit_many(all_kinds()[:3], *data, epochs=2, verbose=1, num_threads=2)
    lines = sorted(capsys.readouterr().out.splitlines())
    assert [line[:11] for line in lines] == ["networks[0]", "networks[1]", "networks[2]"]
    assert "2/2 epochs: loss" in lines[0] and all(re.search(r"[1-9][\d,]* examples/s", line) for line in lines)


@pytest.mark.needs("tqdm")
def test_the_progress_bar_is_one_of_networks(data, capsys):
    fit_many(all_kinds()[:3], *data, progress=True)
    assert "network" in capsys.readouterr().err


def test_checkpoints_are_of_each(tmp_path, data):
    def checkpoints():
        return [nnfast.Checkpoint(tmp_path / f"{place}.npz") for place in range(2)]

    networks, alone = all_kinds()[:2], all_kinds()[:2]
    fit_many(networks, *data, epochs=2, checkpoint=checkpoints())
    again = all_kinds()[:2]
    fit_many(again, *data, epochs=5, checkpoint=checkpoints(), resume=[True, True])
    for place, network in enumerate(alone):
        network.fit(*data, epochs=5)
        assert bits(again[place]) == bits(network)


ONE = Network([Affine(INPUTS, CLASSES)], seed=0)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"networks": []}, ValueError, "^networks is empty"),
    ({"networks": ONE}, TypeError, "^networks is a Network, but must be a list"),
    ({"networks": 3}, TypeError, "^networks is a int, but must be a list"),
    ({"networks": [ONE, "net"]}, TypeError, r"^networks\[1\] is a str, but must be a Network"),
    ({"networks": [ONE, ONE]}, ValueError, r"^networks\[1\] is networks\[0\]"),
    ({"rows": [[0]]}, ValueError, "^rows has 1 index arrays, but there are 2 networks"),
    ({"rows": 3}, TypeError, "^rows is a int"),
    ({"rows": [[0], [ROWS]]}, ValueError, rf"^rows\[1\] has {ROWS}, but the rows of x are 0 to {ROWS - 1}"),
    ({"rows": [[0], [-1]]}, ValueError, r"^rows\[1\] has -1"),
    ({"rows": [[0], []]}, ValueError, r"^rows\[1\] is empty"),
    ({"rows": [[0], [False] * ROWS]}, ValueError, r"^rows\[1\] is empty"),
    ({"rows": [[0], [True, False]]}, TypeError, r"^rows\[1\] has shape \(2,\) and dtype bool"),
    ({"rows": [[0], [0.5]]}, TypeError, r"^rows\[1\] has shape \(1,\) and dtype float64"),
    ({"rows": [[0], [[0]]]}, TypeError, r"^rows\[1\] has shape \(1, 1\)"),
    ({"validation_rows": [[0], [ROWS]]}, ValueError, rf"^validation_rows\[1\] has {ROWS}"),
    ({"epochs": [1, 2, 3]}, ValueError, "^epochs is a list of 3, but there are 2 networks"),
    ({"epochs": [1, 0]}, ValueError, "^epochs is 0"),
    ({"callbacks": [[print], 3]}, TypeError, "^callbacks"),
    ({"checkpoint": "file"}, TypeError, "^checkpoint is a str, but must be a list"),
    ({"resume": True}, TypeError, "^resume is a bool, but must be a list"),
    ({"x": [np.zeros((2, INPUTS)), np.zeros((2, INPUTS))]}, TypeError, "^x is a list of arrays"),
    ({"x": iter(())}, TypeError, "^x is a tuple_iterator, but fit_many takes arrays"),
    ({"x": np.zeros((ROWS, 5))}, ValueError, "^x has 5 columns"),
    ({"t": [0]}, ValueError, "^t "),
    ({"num_threads": 0}, ValueError, "^num_threads is 0"),
    ({"verbose": -1}, ValueError, "^verbose is -1"),
    ({"sample_weight": np.zeros(ROWS)}, ValueError, "^the weights of all rows are 0"),
], ids=str)
def test_what_does_not_fit_is_refused_before_anything_changes(data, arguments, error, message):
    networks = [Network([Affine(INPUTS, CLASSES)], seed=0) for _ in range(2)]
    before = [bits(network) for network in networks]
    with pytest.raises(error, match=message):
        fit_many(**{"networks": networks, "x": data[0], "t": data[1], **arguments})
    assert [bits(network) for network in networks] == before


def test_a_refusal_names_the_network_and_lists_must_not_repeat_an_optimizer(data):
    with pytest.raises(ValueError, match=r"^epochs is 0") as info:
        fit_many(all_kinds()[:2], *data, epochs=[1, 0])
    assert info.value.__notes__ == ["This is of networks[1]."]
    adam = Adam()
    with pytest.raises(ValueError, match=r"^optimizer\[1\] is optimizer\[0\]"):
        fit_many(all_kinds()[:2], *data, optimizer=[adam, adam])
    same = nnfast.Checkpoint("somewhere.npz")
    with pytest.raises(ValueError, match=r"^checkpoint\[1\] has the file of checkpoint\[0\]"):
        fit_many(all_kinds()[:2], *data, checkpoint=[same, same])
