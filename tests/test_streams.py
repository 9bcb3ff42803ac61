"""Data that are read while a fit trains on them: the bits of arrays in memory, bounded memory, and nothing left behind."""

import gc
import os
import sys
import threading
import time

import numpy as np
import pytest
from processes import printed
from test_plan import LOSSES, data, targets_for

from nnfast import (
    SGD,
    Adam,
    Affine,
    BatchNormalization,
    Dropout,
    EarlyStopping,
    IdentityWithLoss,
    MultiLayerNetExtend,
    Network,
    Rescale,
    SoftmaxWithLoss,
    Tanh,
    _plan,
    _streams,
    schedules,
)

ROWS = 533
SIZES = (100, 1, 63, 65, 0, 204, 100)     # of arrays and batches: batches of 10 rows cross their borders


class Own:
    """A layer written in Python: such a network trains layer by layer."""

    def forward(self, x):
        return 2 * x

    infer = forward     # rows are predicted block by block, then

    def backward(self, dout):
        return 2 * dout


class OwnLoss:
    """A loss that takes targets as they come."""

    def forward(self, scores, t):
        self.t, self.scores = t, scores
        return float(np.mean((scores - t) ** 2))

    def backward(self, dout=1):
        return dout * 2 * (self.scores - self.t) / self.scores.size


def made(*, own=False, loss=SoftmaxWithLoss, dtype="float64", first=()):
    layers = [*first, Affine(20, 17), BatchNormalization(17), Tanh(), Dropout(0.2), Affine(17, 5)]
    return Network([*([Own()] if own else []), *layers], loss(), seed=1, dtype=dtype)


def bits(network):
    return [array.tobytes() for array in network.state()]


def cut(array):
    return np.split(array, np.cumsum(SIZES)[:-1])


def mapped(path, array):
    array.tofile(path)
    return np.memmap(path, array.dtype, "r", shape=array.shape)


class Sequence:
    """As Keras and PyTorch have it: a length and items."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, place):
        return self.items[place]


# By kind: what fit is given, from examples, targets and weights, and in how many blocks they come in any order; 0: in theirs.
SOURCES = {
    "map": lambda folder, *arrays: (*(None if a is None else mapped(folder / f"{n}", a) for n, a in enumerate(arrays)), 1),
    "map of x alone": lambda folder, x, t, w: (mapped(folder / "x", x), t.tolist(), w, 1),
    "arrays": lambda folder, x, t, w: (cut(x), cut(t), None if w is None else cut(w), 1),
    "maps in a tuple": lambda folder, x, t, w: (
        tuple(mapped(folder / f"{n}", one) if len(one) else one for n, one in enumerate(cut(x))), tuple(cut(t)), None if w is None else tuple(cut(w)), 1),
    "sequence": lambda folder, *arrays: (Sequence(batches(*arrays)), None, None, 1),
    "list of pairs": lambda folder, *arrays: (batches(*arrays), None, None, 1),
    "examples": lambda folder, *arrays: (Sequence(list(zip(*(a for a in arrays if a is not None), strict=True))), None, None, 1),
    "function": lambda folder, *arrays: (lambda: iter(batches(*arrays)), None, None, 0),
    "generator function": lambda folder, *arrays: (lambda: (one for one in batches(*arrays)), None, None, 0),
    "iterable": lambda folder, *arrays: (dict(enumerate(batches(*arrays))).values(), None, None, 0),
}


def batches(x, t, w=None):
    return list(zip(*(cut(a) for a in (x, t, w) if a is not None), strict=True))


@pytest.fixture
def examples(rng):
    x, targets = data(rng, rows=ROWS)
    return x, targets


def fitted(network, x, t, weights=None, *, optimizer=None, **options):
    """What a fit leaves behind."""
    optimizer = Adam(0.01) if optimizer is None else optimizer
    if weights is not None:
        options["sample_weight"] = weights
    history = network.fit(x, t, batch_size=10, optimizer=optimizer, **options)
    return bits(network), getattr(optimizer, "iter", None), repr(network.generator.bit_generator.state), history


def assert_same(found, expected):
    """Weights, statistics, the optimiser's count and the generator to the bit, and means to rounding."""
    assert found[:3] == expected[:3]
    np.testing.assert_allclose(found[3].loss, expected[3].loss, rtol=1e-13)     # sums of parts
    assert found[3].accuracy == expected[3].accuracy


# The bits of arrays in memory

@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("own", [False, True], ids=["compiled", "layer by layer"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_without_shuffling_every_source_trains_to_the_bits_of_arrays_in_memory(
    tmp_path, examples, dtype, source, own, weighted, rng
):
    x, t = examples[0].astype(dtype), examples[1][SoftmaxWithLoss]
    weights = rng.random(ROWS) if weighted else None
    expected = fitted(made(own=own, dtype=dtype), x, t, weights, epochs=3, shuffle=False)
    x_given, t_given, weights_given, _ = SOURCES[source](tmp_path, x, t, weights)
    for block_rows in (None, 1, 7, 64, 600):
        found = fitted(made(own=own, dtype=dtype), x_given, t_given, weights_given, epochs=3, shuffle=False, block_rows=block_rows)
        assert_same(found, expected)


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("loss", [*LOSSES, OwnLoss])
@pytest.mark.parametrize("source", ["map", "arrays", "function"])
@pytest.mark.parametrize("given", ["float32", "float64", "int32", ">f8"])
def test_targets_of_every_loss_and_data_of_every_dtype_are_taken(tmp_path, examples, loss, source, given):
    x, t = (10 * examples[0]).astype(given), targets_for(loss, examples[1])
    expected = fitted(made(loss=loss), x, t, epochs=2, shuffle=False)
    x_given, t_given, *_ = SOURCES[source](tmp_path, x, t, None)
    assert_same(fitted(made(loss=loss), x_given, t_given, epochs=2, shuffle=False, block_rows=30), expected)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("own", [False, True], ids=["compiled", "layer by layer"])
@pytest.mark.parametrize("given", ["uint8", "int16"])
def test_bytes_stay_bytes_where_the_first_layer_rescales(tmp_path, rng, source, own, given, monkeypatch):
    x, t = rng.integers(0, 100, (ROWS, 20)).astype(given), rng.integers(0, 5, ROWS)
    make = lambda: Network([Rescale(0.01), *([Own()] if own else []), Affine(20, 5)], seed=1)
    expected = fitted(make(), x, t, epochs=2, shuffle=False)
    x_given, t_given, *_ = SOURCES[source](tmp_path, x, t, None)
    seen = []
    original = _streams.Part.steps
    monkeypatch.setattr(_streams.Part, "steps", lambda part, size: seen.append(part.x.dtype) or original(part, size))
    assert_same(fitted(make(), x_given, t_given, epochs=2, shuffle=False), expected)
    assert set(seen) == {np.dtype(given)}


OPTIONS = {
    "clip_value": {"clip_value": 0.01},
    "clip_norm": {"clip_norm": 0.1},
    "schedule": {"schedule": schedules.OneCycle()},
    "class_weight": {"class_weight": {1: 3.0, 3: 0.5}},
    "balanced": {"class_weight": "balanced"},
    "early_stopping": {"early_stopping": EarlyStopping("loss", patience=1)},
}


@pytest.mark.parametrize(("source", "option"), [
    (source, option) for source in ("map", "arrays", "sequence") for option in OPTIONS if (source, option) != ("sequence", "balanced")])
@pytest.mark.parametrize("own", [False, True], ids=["compiled", "layer by layer"])
def test_options_of_fit_do_the_same(tmp_path, examples, source, option, own):
    options = OPTIONS[option]
    x, t = examples[0], examples[1][SoftmaxWithLoss]
    t = np.minimum(t, 3)    # one class is rare
    expected = fitted(made(own=own), x, t, epochs=3, shuffle=False, **options)
    steps = {"steps_per_epoch": 54} if source == "sequence" else {}
    x_given, t_given, *_ = SOURCES[source](tmp_path, x, t, None)
    assert_same(fitted(made(own=own), x_given, t_given, epochs=3, shuffle=False, block_rows=20, **options, **steps), expected)


def test_masks_and_penalties_are_the_same(tmp_path, examples):
    x, t = examples[0], examples[1][SoftmaxWithLoss]

    def trained(x, t):
        np.random.seed(5)
        network = MultiLayerNetExtend(20, [17], 5, use_dropout=True, use_batchnorm=True, weight_decay_lambda=0.01)
        network.generator = np.random.default_rng(3)
        return fitted(network, x, t, epochs=2, shuffle=False)

    assert_same(trained(mapped(tmp_path / "x", x), t), trained(x, t))


def test_callbacks_hear_the_same_steps_and_epochs(tmp_path, examples):
    x, t = examples[0], examples[1][SoftmaxWithLoss]

    def heard(*given, **more):
        steps, epochs = [], []
        network = made()
        network.fit(*given, batch_size=10, epochs=2, shuffle=False, validation_data=(x, t), **more,
                    step_callbacks=[lambda step: steps.append((step.number, step.epoch, round(step.loss, 12)))],
                    callbacks=[lambda epoch: epochs.append((epoch.number, epoch.validation_loss, epoch.accuracy))])
        return steps, epochs

    expected = heard(x, t)
    assert len(expected[0]) == 2 * 54
    assert heard(mapped(tmp_path / "x", x), t, block_rows=3) == expected
    assert heard(lambda: iter(batches(x, t)), block_rows=3) == expected


@pytest.mark.parametrize("own", [False, True], ids=["compiled", "layer by layer"])
@pytest.mark.parametrize("last", [12, 13], ids=["at the end of a part", "within one"])
def test_a_step_s_callback_stops_a_fit(tmp_path, examples, own, last):
    x, t = mapped(tmp_path / "x", examples[0]), examples[1][SoftmaxWithLoss]
    network, heard = made(own=own), []
    history = network.fit(x, t, batch_size=10, epochs=5, block_rows=4,
                          step_callbacks=[lambda step: heard.append(step.number) or step.number == 54 + last])
    assert heard == list(range(1, 54 + last + 1))
    assert len(history.loss) == 2


@pytest.mark.parametrize("own", [False, True], ids=["compiled", "layer by layer"])
def test_a_time_budget_ends_an_epoch_that_would_never_end(own):
    def for_ever():
        while True:
            yield np.ones((7, 20)), np.zeros(7, int)

    network = made(own=own)
    begun = time.perf_counter()
    history = network.fit(for_ever, epochs=3, time_budget=0.3)
    assert 0.3 <= time.perf_counter() - begun < 5
    assert len(history.loss) == 1
    assert np.isfinite(history.loss).all()


@pytest.mark.parametrize("first", [(), [Own()]], ids=["inputs known", "inputs unknown"])
@pytest.mark.parametrize("labels", [list, np.array], ids=["list", "array"])
def test_a_list_of_images_is_examples_as_ever(rng, first, labels):
    x, t = rng.standard_normal((30, 4, 5)), rng.integers(0, 3, 30)
    make = lambda: Network([*map(copied, first), Affine(20, 3)], seed=1, dtype="float64")
    one, same = make(), make()
    one.fit(list(x.reshape(30, 20) if first else x), labels(t), batch_size=10)
    same.fit(x.reshape(30, 20), t, batch_size=10)
    assert bits(one) == bits(same)
    if first:
        one.fit(list(x.reshape(30, 1, 20)), labels(t), batch_size=10)
        same.fit(x.reshape(30, 20), t, batch_size=10)
        assert bits(one) == bits(same)


def test_rows_of_more_axes_and_single_numbers_are_taken(tmp_path, rng):
    x, t = rng.standard_normal((30, 4, 5)), rng.integers(0, 3, 30)
    make = lambda: Network([Affine(20, 3)], seed=1, dtype="float64")
    found = [fitted(make(), *given, shuffle=False, epochs=2) for given in (
        (x, t), (mapped(tmp_path / "x", x), t), ([(x[:11], t[:11]), (x[11:], t[11:])], None))]
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])
    x, t = rng.standard_normal(30), rng.standard_normal(30)
    make = lambda: Network([Affine(1, 1)], IdentityWithLoss(), seed=1, dtype="float64")
    found = [fitted(make(), *given, shuffle=False, epochs=2) for given in (
        (x, t), (mapped(tmp_path / "x", x), t), ([(x[:11], t[:11]), (x[11:], t[11:])], None), (list(zip(x, t, strict=True)), None))]
    for other in found[1:]:
        assert_same(other, found[0])


# Shuffling

@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("own", [False, True], ids=["compiled", "layer by layer"])
def test_every_row_is_taken_once_an_epoch_in_another_order_each_time(tmp_path, source, own, monkeypatch):
    x = np.repeat(np.arange(ROWS, dtype=float)[:, np.newaxis], 2, axis=1)
    t = np.arange(ROWS) % 2
    network = Network([*([Own()] if own else []), Affine(np.zeros((2, 2)), np.zeros(2))], seed=0)
    taken = []
    original = Network.training_step if own else _plan.Plan._prepare

    def step(network, x_batch, t_batch):
        taken.append((x_batch[:, 0].copy(), t_batch.copy()))
        return original(network, x_batch, t_batch)

    def prepare(plan, x, t, orders, *more):
        if not more[7]["step"][0]:
            taken.append((x[orders[0], 0].copy(), t[orders[0]].copy()))
        return original(plan, x, t, orders, *more)

    if own:
        monkeypatch.setattr(network, "training_step", step.__get__(network))
    else:
        monkeypatch.setattr(_plan.Plan, "_prepare", prepare)
    x_given, t_given, _, any_order = SOURCES[source](tmp_path, x, t, None)
    network.fit(x_given, t_given, epochs=3, batch_size=10, optimizer=SGD(1e-9), block_rows=4)
    rows, labels = (np.concatenate(parts) for parts in zip(*taken, strict=True))
    np.testing.assert_array_equal(labels, rows % 2)
    epochs = rows.reshape(3, ROWS)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(ROWS), (3, 1)))
    assert not (epochs[0] == epochs[1]).all() and not (epochs[1] == epochs[2]).all()
    assert (np.diff(epochs) != 1).mean() > 0.8
    # A buffer has 8 blocks of 4 rows: where they are in order, no row comes far from its place.
    farthest = np.abs(epochs - np.arange(ROWS)).max()
    assert (farthest > 200) == bool(any_order), farthest


def test_a_seed_gives_the_same_shuffling_and_small_data_that_of_arrays_in_memory(tmp_path, examples):
    x, t = examples[0], examples[1][SoftmaxWithLoss]
    given = mapped(tmp_path / "x", x)
    one, same = (fitted(made(), given, t, epochs=2, block_rows=16) for _ in range(2))
    assert_same(one, same)
    layer_by_layer = fitted(made(own=True), given, t, epochs=1, block_rows=16)
    assert layer_by_layer[2] == fitted(made(), given, t, epochs=1, block_rows=16)[2]      # as many numbers are drawn
    assert_same(fitted(made(), given, t, epochs=2), fitted(made(), x, t, epochs=2))     # one block


# Generators

def test_steps_per_epoch_ends_an_epoch(examples):
    x, t = examples[0], examples[1][SoftmaxWithLoss]
    closed = []

    def for_ever():
        try:
            while True:
                yield from batches(x, t)
        finally:
            closed.append(threading.current_thread().name)

    expected = fitted(made(), x[:70], t[:70], epochs=2, shuffle=False)
    assert_same(fitted(made(), for_ever, None, epochs=2, shuffle=False, steps_per_epoch=7, block_rows=3), expected)
    assert len(closed) == 2
    # A generator that ends before makes a shorter epoch.
    assert_same(fitted(made(), lambda: batches(x, t), None, epochs=2, shuffle=False, steps_per_epoch=1000),
                fitted(made(), x, t, epochs=2, shuffle=False))


def test_an_iterator_is_read_once_and_stays_the_caller_s(examples):
    x, t = examples[0], examples[1][SoftmaxWithLoss]
    iterator = iter(batches(x, t))
    assert_same(fitted(made(), iterator, None, shuffle=False), fitted(made(), x, t, shuffle=False))
    assert next(iterator, None) is None
    generator = (batch for batch in batches(x, t))
    made().fit(generator, batch_size=10, steps_per_epoch=3)
    assert next(generator, None) is not None    # not closed
    with pytest.raises(ValueError, match="x is an iterator, which gives its batches once, but epochs is 2: pass a function"):
        made().fit(iter(batches(x, t)), epochs=2)


def test_a_function_that_gives_the_same_iterator_again_is_found_out(examples):
    x, t = examples[0], examples[1][SoftmaxWithLoss]
    iterator = iter(batches(x, t))
    network, twin = made(), made()
    with pytest.raises(ValueError, match="x gives no rows in epoch 2, but at least 1 is needed: have it return a new iterator"):
        network.fit(lambda: iterator, epochs=3, batch_size=10, shuffle=False)
    twin.fit(x, t, batch_size=10, shuffle=False)
    assert bits(network) == bits(twin)


def test_batches_are_read_while_steps_run():
    """The function is one batch ahead, and not many."""
    asked, trained = [], []

    def given():
        for number in range(12):
            asked.append((number, len(trained)))
            yield np.ones((80, 20)), np.zeros(80, int)

    network = made()
    network.fit(given, batch_size=80, block_rows=10, step_callbacks=[lambda step: trained.append(step.number) or time.sleep(0.02)])
    ahead = [number - done for number, done in asked]
    assert max(ahead) <= 3      # one is trained on, one is in the other buffer, and one waits for room
    assert np.median(ahead) >= 1


@pytest.mark.needs("torch")
def test_pytorch_s_loaders_and_data_sets_are_read(tmp_path):
    program = """
import numpy as np, torch, nnfast
x, t = torch.randn(530, 20), torch.randint(0, 5, (530,))
data = torch.utils.data.TensorDataset(x, t)
weights = []
for given in ((x.numpy(), t.numpy()), (data,), (torch.utils.data.DataLoader(data, batch_size=64),)):
    network = nnfast.Network([nnfast.Affine(20, 5)], seed=0)
    network.fit(*given, epochs=2, batch_size=10, shuffle=False)
    weights.append(network.params["W1"].tobytes())
assert len(set(weights)) == 1
print("read")
"""
    assert printed(program) == "read"


# What is refused

BATCH = np.ones((10, 20)), np.zeros(10, int)

REFUSED = {
    "no targets": (lambda: (np.ones((10, 20)),), {}, TypeError, "t is missing, and x is of type ndarray: pass targets, or as x a seq"),
    "nothing": (lambda: (None,), {}, TypeError, "t is missing, and x is missing: pass targets"),
    "a number": (lambda: (5,), {}, TypeError, "t is missing, and x is 5: pass targets"),
    "a class": (lambda: (Sequence,), {}, TypeError, r"x is the class Sequence, but must be an object: write Sequence\(...\)"),
    "rows without targets": (lambda: ([[0.0, 1.0], [1.0, 0.0]],), {}, TypeError, r"x\[\d\] has as its x .*: is t missing\?"),
    "a function with targets": (lambda: (lambda: [BATCH], np.zeros(10)), {}, TypeError, "x is a function, which gives its targets itself"),
    "no iterator": (lambda: (lambda: 5,), {}, TypeError, "what x returns is 5, but must be something to iterate over"),
    "no pair": (lambda: (lambda: [np.ones((10, 20))],), {}, TypeError, r"batch 1 of x is a ndarray, but must be a pair \(x, t\)"),
    "four": (lambda: (Sequence([(1, 2, 3, 4)]),), {}, TypeError, r"x\[0\] is a tuple of 4, but must be a pair"),
    "empty": (lambda: ([],), {}, ValueError, "x gives no rows in epoch 1, but at least 1 is needed"),
    "no rows": (lambda: ([np.ones((0, 20))], [[]]), {}, ValueError, "x has no rows, but at least 1 is needed"),
    "other lengths of lists": (lambda: ([BATCH[0], BATCH[0]], [BATCH[1]]), {}, ValueError, "x is a list of 2 arrays, but t is a list of 1"),
    "targets in one": (lambda: ([BATCH[0], BATCH[0]], np.zeros(20)), {}, ValueError, "x is a list of 2 arrays, but t is a ndarray"),
    "other lengths": (lambda: ([BATCH[0], BATCH[0]], [BATCH[1], BATCH[1][1:]]), {}, ValueError, r"t\[1\] has 9 rows, but x\[1\] has 10"),
    "columns": (lambda: ([BATCH[0], BATCH[0][:, 1:]], [BATCH[1]] * 2), {}, ValueError, r"x\[1\] has 19 columns, but the network takes 20"),
    "weights in one": (lambda: ([BATCH[0]], [BATCH[1]]), {"sample_weight": np.ones(10)}, ValueError, "x is a list of 1 arrays, but sample_we"),
    "weights of a function": (lambda: (lambda: [BATCH],), {"sample_weight": np.ones(10)}, TypeError, "sample_weight is for arrays: have x"),
    "other weights": (lambda: ([BATCH[0]], [BATCH[1]]), {"sample_weight": [np.ones(9)]}, ValueError, r"sample_weight has shape \(9,\), but x\[0\]"),
    "negative weights": (lambda: ([(*BATCH, -np.ones(10))],), {}, ValueError, r"x\[0\]: sample_weight holds -1, but a weight is at least 0"),
    "no weight": (lambda: ([(*BATCH, np.zeros(10))],), {}, ValueError, "the weights of all rows are 0 together, but must be above zero"),
    "weights in some": (lambda: (lambda: [BATCH, (*BATCH, np.ones(10))],), {}, ValueError, "batch 2 of x: sample_weight is given, but the"),
    "weights not in all": (lambda: (lambda: [(*BATCH, np.ones(10)), BATCH],), {}, ValueError, "batch 2 of x: sample_weight is missing"),
    "balanced": (lambda: (lambda: [BATCH],), {"class_weight": "balanced"}, ValueError, "class_weight is 'balanced', but how often a class"),
    "schedule": (lambda: (lambda: [BATCH],), {"schedule": schedules.Cosine()}, ValueError, "schedule needs the number of steps of an epoch"),
    "steps of arrays": (lambda: ([BATCH[0]], [BATCH[1]]), {"steps_per_epoch": 3}, ValueError, "steps_per_epoch is 3, but an epoch is all"),
    "steps in memory": (lambda: BATCH, {"steps_per_epoch": 3}, ValueError, "steps_per_epoch is 3, but is for data that are read in blocks"),
    "blocks in memory": (lambda: BATCH, {"block_rows": 3}, ValueError, "block_rows is 3, but is for data that are read in blocks"),
    "no steps": (lambda: (lambda: [BATCH],), {"steps_per_epoch": 0}, ValueError, "steps_per_epoch is 0, but must be at least 1"),
    "no blocks": (lambda: (lambda: [BATCH],), {"block_rows": 0}, ValueError, "block_rows is 0, but must be at least 1"),
    "complex": (lambda: ([BATCH[0].astype(complex)], [BATCH[1]]), {}, TypeError, r"x\[0\] holds complex128 values"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_a_sentence_and_changes_nothing(case):
    given, options, error, message = REFUSED[case]
    network, before = made(), bits(made())
    state = repr(network.generator.bit_generator.state)
    with pytest.raises(error, match=message):
        network.fit(*given(), batch_size=10, **options)
    assert bits(network) == before
    assert repr(network.generator.bit_generator.state) == state
    assert not reading()


def reading():
    """Threads that read ahead."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("nnfast")]


# What is wrong with the last of three batches of 10 rows, and what is said of it.
def spoilt(**changed):
    x, t = BATCH
    return lambda: [(x, t), (x, t), (changed.get("x", x), changed.get("t", t))]


def with_nan(value=np.nan):
    x = BATCH[0].copy()
    x[3, 17] = value
    return x


BAD_BLOCKS = {
    "columns": (spoilt(x=np.ones((10, 19))), r"batch 3 of x: x has 19 columns, but layer 1 \(.*\) takes 20 inputs"),
    "length": (spoilt(t=np.zeros(9, int)), "batch 3 of x: t has 9 rows, but x has 10"),
    "labels": (spoilt(t=np.arange(10)), r"batch 3 of x: t\[5\] is 5, but the network has classes 0 to 4"),
    "NaN": (spoilt(x=with_nan()), r"batch 3 of x: x contains NaN or infinity \(first at row 3, column 17\)"),
    "infinity": (spoilt(x=with_nan(np.inf)), r"batch 3 of x: x contains NaN or infinity \(first at row 3, column 17\)"),
    "strings": (spoilt(x=np.full((10, 20), "a")), "batch 3 of x: x holds str.* values, but must hold real numbers"),
}


@pytest.mark.parametrize("bad", BAD_BLOCKS)
@pytest.mark.parametrize("own", [False, True], ids=["compiled", "layer by layer"])
@pytest.mark.parametrize("block_rows", [1, 100])
def test_a_bad_block_is_named_and_leaves_the_last_finished_epoch(bad, own, block_rows):
    given, message = BAD_BLOCKS[bad]
    layers = [Own(), Affine(20, 5)] if own else [Affine(20, 5)]
    network, twin = (Network(list(map(copied, layers)), seed=1) for _ in range(2))
    calls = []

    def batches():
        calls.append(1)
        return given() if len(calls) == 2 else spoilt()()

    message = message if not own else message.replace(r"layer 1 \(.*\) takes", ".*")
    optimizer = Adam()
    if own and bad == "columns":
        message = "batch 3 of x: x has 19 columns, but the blocks before have 20"
    with pytest.raises((ValueError, TypeError), match=message):
        network.fit(batches, epochs=4, batch_size=8, optimizer=optimizer, block_rows=block_rows)
    expected = Adam()
    twin.fit(spoilt(), batch_size=8, optimizer=expected, block_rows=block_rows)
    assert bits(network) == bits(twin)
    assert optimizer.iter == expected.iter
    assert network.generator.bit_generator.state == twin.generator.bit_generator.state
    assert not reading()
    network.fit(spoilt(), batch_size=8)     # and on it goes


def copied(layer):
    return Own() if isinstance(layer, Own) else Affine(layer.inputs, layer.outputs)


def test_a_row_of_a_map_that_is_not_finite_is_named_by_its_block(tmp_path, examples):
    x = examples[0].copy()
    x[333, 7] = np.nan
    with pytest.raises(ValueError, match=r"x\[320:336\]: x contains NaN or infinity \(first at row 13, column 7\)"):
        made().fit(mapped(tmp_path / "x", x), examples[1][SoftmaxWithLoss], block_rows=16)
    with pytest.raises(ValueError, match=r"x\[5\]\[160:176\]: t\[11\] is 9, but the network has classes 0 to 4"):
        t = examples[1][SoftmaxWithLoss].copy()
        t[100 + 1 + 63 + 65 + 171] = 9
        made().fit(cut(examples[0]), cut(t), block_rows=16)


def test_whole_numbers_of_another_kind_are_refused_where_bytes_stay_bytes():
    network = Network([Rescale(0.1), Affine(20, 5)], seed=1)
    give = lambda *kinds: lambda: [(BATCH[0].astype(kind), BATCH[1]) for kind in kinds]
    with pytest.raises(TypeError, match="batch 2 of x: x holds int16, but the blocks before hold uint8, which cannot take it"):
        network.fit(give("uint8", "int16"))
    network.fit(give("int16", "uint8"))
    network.fit(give("float64", "uint8"))
    # Of arrays all kinds are known beforehand.
    network.fit([BATCH[0].astype("uint8"), BATCH[0].astype("int16")], [BATCH[1]] * 2)


def test_a_loss_that_is_not_finite_names_the_step_of_the_epoch(tmp_path, examples):
    x, t = examples[0], examples[1][None]
    make = lambda: Network([Affine(20, 5)], IdentityWithLoss(), seed=1)
    messages = []
    for given in (x, mapped(tmp_path / "x", x)):
        more = {"block_rows": 3} if given is not x else {}
        network, before = make(), bits(make())
        with pytest.raises(FloatingPointError, match="in epoch 1, step") as error:
            network.fit(given, t, batch_size=10, shuffle=False, optimizer=SGD(1e4), **more)
        messages.append(str(error.value).split(":")[0])
        assert bits(network) == before
    assert messages[0] == messages[1]


# Nothing is left behind

class GivenUpError(Exception):
    pass


@pytest.mark.parametrize("own", [False, True], ids=["compiled", "layer by layer"])
@pytest.mark.parametrize("source", ["function", "sequence"])
def test_an_exception_in_the_user_s_code_is_raised_by_fit(own, source):
    epoch = []

    def function():
        epoch.append(1)
        yield BATCH
        if len(epoch) == 2:
            raise GivenUpError
        yield BATCH

    class Failing(Sequence):
        def __getitem__(self, place):
            epoch.append(1)
            if len(epoch) == 4:
                raise GivenUpError
            return BATCH

    network, twin = made(own=own), made(own=own)
    with pytest.raises(GivenUpError) as error:
        network.fit(function if source == "function" else Failing([0, 1]), epochs=3, batch_size=10, shuffle=False)
    assert any(entry.name in ("function", "__getitem__") for entry in error.traceback)      # where it happened
    twin.fit([BATCH, BATCH], batch_size=10, shuffle=False)
    assert bits(network) == bits(twin)
    assert not reading()


@pytest.mark.parametrize("own", [False, True], ids=["compiled", "layer by layer"])
def test_a_fit_that_ends_early_waits_for_a_batch_that_is_on_its_way(own):
    def given():
        while True:
            yield BATCH
            time.sleep(0.1)

    made(own=own).fit(given, batch_size=10, block_rows=1, step_callbacks=[lambda step: True])
    assert not reading()


@pytest.mark.parametrize("source", SOURCES)
def test_no_thread_and_no_memory_outlives_a_fit(tmp_path, examples, source):
    x_given, t_given, *_ = SOURCES[source](tmp_path, examples[0], examples[1][SoftmaxWithLoss], None)
    network = made()
    network.fit(x_given, t_given, epochs=2, block_rows=5)
    network.fit(x_given, t_given, epochs=2, callbacks=[lambda epoch: True])
    assert not reading()
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) in (_streams.Stream, _streams._Buffer)]


def test_two_networks_may_be_trained_at_once(examples):
    x, t = examples[0], examples[1][SoftmaxWithLoss]
    expected, found = fitted(made(), lambda: batches(x, t), None, epochs=5), [None] * 4

    def train(place):
        found[place] = fitted(made(), lambda: batches(x, t), None, epochs=5)

    threads = [threading.Thread(target=train, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        assert_same(one, expected)


@pytest.mark.skipif(os.name == "nt", reason="this system has no SIGINT for one process")
@pytest.mark.parametrize("own", [False, True], ids=["compiled", "layer by layer"])
def test_ctrl_c_ends_a_fit_within_a_second_wherever_it_is(own):
    """While steps run, while fit waits for a batch, and in a function that does not return."""
    print(printed(f"""
import signal, threading, time
import numpy as np
import nnfast
from test_streams import Own, bits, made

signal.signal(signal.SIGINT, signal.default_int_handler)

def busy():
    while True:
        yield np.ones((50, 20)), np.zeros(50, int)

def slow():
    while True:
        time.sleep(0.01)
        yield np.ones((1, 20)), np.zeros(1, int)

def stuck():
    yield np.ones((5, 20)), np.zeros(5, int)
    time.sleep(60)
    yield np.ones((5, 20)), np.zeros(5, int)

def interrupt():
    sent.append(time.perf_counter())
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

longest = 0
for given in (busy, slow, stuck):
    for wait in (0.05, 0.3, 0.6):
        network, sent = made(own={own}), []
        before = bits(network)
        threading.Timer(wait, interrupt).start()
        try:
            network.fit(given, batch_size=5, block_rows=1)
            raise AssertionError("not interrupted")
        except KeyboardInterrupt:
            longest = max(longest, time.perf_counter() - sent[0])
        assert bits(network) == before
        network.fit(np.ones((50, 20)), np.zeros(50, int))
assert longest < 1, longest
left = [thread for thread in threading.enumerate() if thread.name.startswith("nnfast")]
assert len(left) <= 3, left     # of those that are stuck
print(f"{{longest:.3f}} s")
"""))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("own", [False, True], ids=["compiled", "layer by layer"])
def test_a_child_forked_within_a_fit_is_told_that_nobody_reads_and_may_train_anew(own):
    assert printed(f"""
import os, warnings
import numpy as np
import nnfast
from test_streams import bits, made

warnings.simplefilter("ignore", DeprecationWarning)     # threads and a fork
child = None

def fork(step):
    global child
    if step.number == 3:
        child = os.fork()

batch = np.ones((10, 20)), np.zeros(10, int)
network = made(own={own})
before = bits(network)
try:
    network.fit(lambda: [batch] * 1000, batch_size=10, block_rows=1, step_callbacks=[fork])
except RuntimeError as error:
    assert child == 0 and "this process was forked during fit" in str(error), error
    assert bits(network) == before
    network.fit(lambda: [batch] * 50, batch_size=10, block_rows=1)
    os._exit(7)
assert child and os.waitpid(child, 0)[1] == 7 << 8
print("told")
""") == "told"


# Memory

@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and limits that hold")
@pytest.mark.skipif("san" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer takes memory for each byte of the program's")
@pytest.mark.parametrize("kind", ["float32", "float64", "uint8 rescaled", "uint8"])
@pytest.mark.parametrize("own", [False, True], ids=["compiled", "layer by layer"])
def test_a_file_of_ten_times_the_memory_is_trained_on_and_evaluated(tmp_path, kind, own):
    """RLIMIT_DATA is 32 MB above what the process has before, the file has 320 MB; most of it is a hole."""
    print(printed(f"""
import resource, threading
import numpy as np
import nnfast
from test_streams import Own

threading.stack_size(1 << 20)       # a stack of 8 MB is not data

MB = 1 << 20

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(field))

given = np.dtype({kind.split()[0]!r})
columns = {800 if own else 3200} // given.itemsize
rows = 320 * MB // (columns * given.itemsize)
x = np.memmap({str(tmp_path / "x")!r}, given, "w+", shape=(rows, columns))
t = np.memmap({str(tmp_path / "t")!r}, np.uint8, "w+", shape=(rows,))
x[::1000, :5] = 3
t[::1000] = 1
layers = [nnfast.Rescale(0.1)] * ({kind!r} == "uint8 rescaled") + [Own()] * {own} + [nnfast.Affine(columns, 4)]
network = nnfast.Network(layers, seed=0)
network.fit(x[:300], t[:300], batch_size=50)
network.predict(np.asarray(x[:300]))
before, limit = status("RssAnon"), status("VmData") * MB + 32 * MB
resource.setrlimit(resource.RLIMIT_DATA, (int(limit), resource.RLIM_INFINITY))
try:
    np.ones(40 * MB, np.uint8)
    raise AssertionError("there is no limit")
except MemoryError:
    pass
options = {{}} if {own} else dict(validation_data=(x, t))
history = network.fit(x, t, batch_size=50, optimizer=nnfast.SGD(1e-4), **options)
if not {own}:
    assert np.isfinite(network.loss(x, t))
accuracy = network.accuracy(x, t)
assert 0 <= accuracy <= 1
grown = status("RssAnon") - before
assert grown < 32, grown
print(f"{{rows}} rows, {{grown:.1f}} MB more than before, the most was {{status('VmHWM'):.0f}} MB with pages of the file")
""", MALLOC_MMAP_THRESHOLD_=str(1 << 20), OMP_STACKSIZE="1M"))      # what is freed is given back
