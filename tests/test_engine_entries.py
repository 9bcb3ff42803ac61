"""The engine's entries (training, prediction, numerical gradient) stay inside the memory that they are given, whatever
they are given.

They take descriptions of a network: places in an arena, numbers of arrays, sizes. Real calls are recorded and made
again on arrays that stand at fences (test_guard_pages.py), as they were and with every number of every description,
every size and every array wrong in turn. A wrong one is refused, or does no harm.
"""

import ctypes
import dataclasses
import itertools
import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from reference import UNREADABLE
from test_guard_pages import fenced

from nnfast import (
    SGD,
    Adam,
    Affine,
    BatchNormalization,
    Dropout,
    Gelu,
    IdentityWithLoss,
    LeakyRelu,
    Momentum,
    Network,
    PoissonLoss,
    QuantileLoss,
    Relu,
    Rescale,
    Sigmoid,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    _kernels,
    _ranked_plan,
    _threads,
    fit_many,
)

REFUSED = (ValueError, IndexError, TypeError, OverflowError, MemoryError)
HELD = ("Arrays", "Chain", "Context", "GradientChain", "Scratch", "Shares", "prepare")
CALLED = ("train", "advance", "infer", "evaluate", "perturb")


@dataclasses.dataclass
class Recorded:
    """A call, or what made an object: a kernel, and what it was given. Arrays are copies from before the call."""

    kernel: Any
    name: str
    arguments: list


def copied(argument, made):
    if isinstance(argument, list):
        return [copied(one, made) for one in argument]
    return argument.copy() if isinstance(argument, np.ndarray) else made.get(id(argument), argument)


def to_the_end(advance):
    """Steps that ranks divide, from their first sum to their last. With one rank, sums are what they are already."""
    def advanced(steps, threads):
        while advance(steps, threads) >= 0:
            pass

    return advanced


class Recorder:
    """Kernels that note how they are called. What objects are made of is noted as well, so that they can be made anew."""

    def __init__(self, kernels):
        self.calls, self.made, self.alive, self.advanced = [], {}, [], []
        self.kernels = SimpleNamespace(**vars(kernels))
        for name in (*HELD, *CALLED):
            setattr(self.kernels, name, self.noting(getattr(kernels, name), name))

    def noting(self, kernel, name):
        def noted(*arguments):
            record = Recorded(kernel, name, [copied(argument, self.made) for argument in arguments])
            result = kernel(*arguments)
            if name in HELD:
                self.made[id(result)] = record
                self.alive.append(result)
            elif name != "advance":
                self.calls.append(record)
            elif arguments[0] not in self.advanced:     # its other calls are parts of the same steps
                self.advanced.append(arguments[0])
                self.calls.append(dataclasses.replace(record, kernel=to_the_end(kernel)))
            return result

        return noted


NETWORKS = {
    "of all layers": lambda dtype: Network(
        [Rescale(0.5, np.linspace(0, 1, 20)), Dropout(0.1), Affine(20, 33), BatchNormalization(33), Relu(), Affine(33, 18), Gelu(), LeakyRelu(0.1), Dropout(0.2),
         Affine(18, 5), Sigmoid()], SoftmaxWithLoss(), seed=1, dtype=dtype),
    "of bytes": lambda dtype: Network(
        [Rescale(1 / 255), Affine(20, 12), Relu(), Rescale(2.0), Affine(12, 4)], seed=1, dtype=dtype),
    "of regression": lambda dtype: Network(
        [Affine(20, 50), Tanh(), Affine(50, 3)], IdentityWithLoss(), seed=1, dtype=dtype),
    "of many classes": lambda dtype: Network([Affine(20, 7), Relu(), Affine(7, 40)], SoftmaxWithLoss(), seed=1, dtype=dtype),
    "of quantiles": lambda dtype: Network(
        [Affine(20, 9), Tanh(), Affine(9, 3)], QuantileLoss((0.1, 0.5, 0.9)), seed=1, dtype=dtype),
    "of smoothed labels": lambda dtype: Network([Affine(20, 3)], SoftmaxWithLoss(0.1), seed=1, dtype=dtype),
    "of counts": lambda dtype: Network([Affine(20, 2)], PoissonLoss(), seed=1, dtype=dtype),
    "with drawn masks": lambda dtype: Network(
        [Affine(20, 9), Sigmoid(), Dropout(0.3), Affine(9, 4)], SigmoidWithLoss(), seed=1, dtype=dtype),
}


def recorded(monkeypatch, kernels, dtype, kind, threads):
    """Calls of every entry, made by an ordinary use of a network."""
    recorder, rng = Recorder(kernels), np.random.default_rng(1)
    monkeypatch.setitem(_kernels._BY_DTYPE, dtype, recorder.kernels)
    if dtype != np.float64:
        double = Recorder(_kernels.kernels(np.dtype(np.float64)))
        double.calls = recorder.calls
        monkeypatch.setitem(_kernels._BY_DTYPE, np.dtype(np.float64), double.kernels)
    for name in ("for_steps", "for_inference"):
        monkeypatch.setattr(_threads, name, lambda rows, multiply_adds: threads)
    monkeypatch.setattr(_threads, "for_product", lambda multiply_adds: threads)
    network = NETWORKS[kind](dtype)
    if kind == "with drawn masks":
        network.layers["Dropout1"].generator = None
    outputs = network.outputs
    x = rng.standard_normal((23, 20)).astype(dtype)
    if type(network.last_layer) is SoftmaxWithLoss:
        t = rng.integers(0, outputs, 23)
    else:
        t = rng.random((23, outputs)).astype(dtype)
    network.weight_decay_lambda = network.l1_lambda = 0.01
    for optimizer in (SGD(), Momentum(), Adam()):
        network.fit(x, t, epochs=2, batch_size=10, optimizer=optimizer)
    network.fit(x.astype(np.float32 if dtype == np.float64 else np.float64), t, epochs=1, batch_size=30, shuffle=False)
    network.fit(x, t, batch_size=10, optimizer=Momentum(), sample_weight=rng.random(23), clip_value=0.1)
    network.fit(x, t, batch_size=10, optimizer=Adam(), clip_norm=0.1)
    fit_many([NETWORKS[kind](dtype) for _ in range(3)], x, t, rows=[None, np.arange(17), rng.integers(0, 23, 40)], epochs=2,
             batch_size=10, optimizer=Momentum(), num_threads=threads)
    for optimizer, overlaps, more in ((SGD(), False, {}), (Adam(), True, {"clip_norm": 0.1, "weights": rng.random(23)})):
        # The other rank has rows of each batch, but nobody sums.
        ranks = SimpleNamespace(
            rank=0, shares=np.array([[10, 3], [0, 13], [13, 1]]), order=lambda number, rows: rng.permutation(rows),
            sum_gradients=lambda array: None, start_sum=lambda array: None, has_failed=False)
        _ranked_plan.RankedPlan(network, optimizer, 13, ranks=ranks, overlaps=overlaps, **more).train(
            x, t, 1, not overlaps, 1, lambda steps: None)
    network.gradient(x, t)
    for rows in (1, 5, 20, 23):
        network.predict(x[:rows])
    network.predict(x[:3].astype(np.float32 if dtype == np.float64 else np.float64))
    if kind == "of bytes":
        for integers in (np.uint8, np.int8, np.uint16, np.int16):
            network.fit((40 * x).astype(np.int8).astype(integers), t, batch_size=10)
            network.predict((40 * x[:20]).astype(np.int8).astype(integers))
    network.numerical_gradient(x[:3], t[:3])
    monkeypatch.undo()
    return recorder.calls


def at_fences(argument, at_the_end):
    """The argument anew, every array in it standing at a fence."""
    if isinstance(argument, Recorded):
        return argument.kernel(*at_fences(argument.arguments, at_the_end))
    if isinstance(argument, list):
        return [at_fences(one, at_the_end) for one in argument]
    if isinstance(argument, np.ndarray):
        around = UNREADABLE.get(argument.dtype.kind, 0) if argument.dtype.names is None else np.zeros((), argument.dtype)
        around = -99 if argument.dtype == np.int8 else around
        return fenced(argument, around, at_the_end)[0]
    return argument


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("at_the_end", [True, False], ids=["end", "begin"])
def test_an_engine_stays_inside_its_arrays(monkeypatch, kernels, dtype, kind, threads, at_the_end):
    calls = recorded(monkeypatch, kernels, dtype, kind, threads)
    assert {call.name for call in calls} == set(CALLED)
    for call in calls:
        call.kernel(*at_fences(call.arguments, at_the_end))


def test_a_limit_without_an_optimizer_is_refused(monkeypatch, kernels, dtype):
    """Else its update would look for states that nobody has made room for."""
    calls = recorded(monkeypatch, kernels, dtype, "of regression", 1)
    (prepared,) = [one.arguments[0] for one in calls if one.name == "train"
                   and any(isinstance(argument, np.ndarray) and "rule" in (argument.dtype.names or ())
                           and argument["rule"][0] == kernels.OPTIMIZER_RULES["gradient"]
                           for argument in one.arguments[0].arguments)]
    arguments = at_fences(prepared.arguments, at_the_end=True)
    for argument in arguments:
        if isinstance(argument, np.ndarray) and "rule" in (argument.dtype.names or ()):
            argument["has_norm_limit"], argument["limit"] = 1, 0.1
    with pytest.raises(ValueError, match="gradients that are given to the caller have no limit"):
        prepared.kernel(*arguments)


@pytest.mark.parametrize(("data", "message"), [
    (np.zeros((3, 4), np.float16), "x holds e, but must hold floats, or whole numbers of at most 2 bytes"),
    (np.zeros((3, 4), np.int32), "x holds i, but must hold floats"),
    (np.zeros((3, 4), ">u2"), "x holds >H, but must hold floats"),
    (np.zeros((3, 4), complex), "x holds Zd, but must hold floats"),
    (np.zeros((3, 4), "u1, u1"), "x holds T.*, but must hold floats"),
    (np.zeros((3, 4), "S1"), "x holds 1?s, but must hold floats"),
    (np.zeros(3), "x has not two dimensions"),
    (np.zeros((3, 4, 5)), "x has not two dimensions"),
    (np.zeros((3, 8))[:, ::2], "contiguous"),
    (np.zeros((4, 3)).T, "contiguous"),
    (np.frombuffer(bytearray(97), np.uint8)[1:].view(np.float32).reshape(6, 4), "not aligned"),
    (None, "bytes-like object is required"),
    ([[1.0]], "bytes-like object is required"),
], ids=lambda one: getattr(one, "dtype", None))
def test_data_are_refused_that_compiled_code_cannot_convert(kernels, data, message):
    with pytest.raises(REFUSED, match=message):
        kernels.Data(data)
    for kind in ("f4", "f8", "u1", "i1", "u2", "i2", "?"):
        kernels.Data(np.zeros((3, 4), kind))


WRONG_NUMBERS = (-(2**63), -(2**31), -1, 0, 1, 2, 3, 7, 64, 1000, 2**16, 2**31 - 1, 2**31, 2**40, 2**60, 2**62, 2**63 - 1)


def wrong_numbers(value):
    near = {*WRONG_NUMBERS, int(value) - 1, int(value) + 1, 2 * int(value), 8 * int(value)} - {int(value)}
    return [number for number in near if -(2**63) <= number < 2**63]


def with_number(array, field, place, number):
    wrong = fenced(array, np.zeros((), array.dtype), at_the_end=True)[0]
    (wrong[field] if field else wrong.view(np.int64)).flat[place] = number
    return wrong


def spoilt(argument):
    """Ways to make the argument, an array or a number, with one thing wrong."""
    if type(argument) is int:
        for number in wrong_numbers(argument):
            yield lambda number=number: number
    if not isinstance(argument, np.ndarray):
        return
    for axis in range(argument.ndim):
        yield lambda axis=axis: fenced(np.delete(argument, slice(-1, None), axis), np.zeros((), argument.dtype), True)[0]
        yield lambda axis=axis: np.empty([0 if place == axis else size for place, size in enumerate(argument.shape)],
                                         argument.dtype)
    for field in argument.dtype.names or ():
        for place in range(argument.size if argument.dtype[field].kind == "i" else 0):
            for number in wrong_numbers(argument[field].flat[place]):
                yield lambda field=field, place=place, number=number: with_number(argument, field, place, number)
    if argument.dtype.kind in "iu" and argument.itemsize == 8 and argument.size:      # labels, an order
        for number in (-1, 2**40, 2**63 - 1):
            yield lambda number=number: with_number(argument, None, argument.size // 2, number)


def with_one(values, place, make):
    """How to make a list with another value in one place."""
    return lambda: [*values[:place], make(), *values[place + 1 :]]


def variants(record):
    """Ways to make a record's call, or object, with one thing wrong in what it is given."""
    for place, argument in enumerate(record.arguments):
        if isinstance(argument, Recorded):
            parts = variants(argument)
        elif isinstance(argument, list):    # of arrays, or of what was prepared
            parts = [with_one(argument, number, wrong) for number, one in enumerate(argument)
                     for wrong in (variants(one) if isinstance(one, Recorded) else spoilt(one))]
        else:
            parts = spoilt(argument)
        for wrong in parts:
            arguments = with_one(record.arguments, place, wrong)
            yield lambda arguments=arguments: dataclasses.replace(record, arguments=arguments())


def made(record):
    """What a record makes, or the result of its call. Progress is made by a call, and would be at its end in the next."""
    def of(argument):
        if isinstance(argument, list):
            return [of(one) for one in argument]
        if isinstance(argument, Recorded):
            return made(argument)
        return argument.copy() if isinstance(argument, np.ndarray) and "epoch" in (argument.dtype.names or ()) else argument

    return record.kernel(*map(of, record.arguments))


def standing(record):
    """A record whose arrays stand at fences."""
    def of(argument):
        if isinstance(argument, list):
            return [of(one) for one in argument]
        return standing(argument) if isinstance(argument, Recorded) else at_fences(argument, at_the_end=True)

    return dataclasses.replace(record, arguments=[of(one) for one in record.arguments])


# Some 200,000 in all take minutes, so every so manieth is tried: a prime, so that it is another number in each place.
EVERY = int(os.environ.get("NNFAST_EVERY", "61"))


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_that_an_engine_is_given_makes_it_leave_its_arrays(monkeypatch, kernels, dtype, kind, threads):
    refused = taken = 0
    for number, call in enumerate(recorded(monkeypatch, kernels, dtype, kind, threads)):
        for variant in itertools.islice(variants(standing(call)), number % EVERY, None, EVERY):
            try:
                made(variant())
                taken += 1
            except REFUSED:
                refused += 1
    assert min(refused, taken) > 50


MOST_VALUES = 4096


@pytest.mark.parametrize("kind", NETWORKS)
def test_no_context_makes_a_c_function_leave_its_arrays(monkeypatch, kernels, dtype, kind):
    """Rows are as long as the stages say; everything else about them is wrong in turn."""
    network, recorder = NETWORKS[kind](dtype), Recorder(kernels)
    monkeypatch.setitem(_kernels._BY_DTYPE, dtype, recorder.kernels)
    source = network.predictor()
    monkeypatch.undo()
    function, refused, called = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(kernels.ROW_FUNCTION), 0, 0
    x, y = (fenced(np.ones(MOST_VALUES, dtype), np.nan, True)[0] for _ in "xy")
    record = standing(recorder.made[id(source._context)])
    for variant in itertools.islice(variants(record), 0, None, max(1, EVERY // 20)):
        try:
            wrong = variant()
            context = made(wrong)
        except REFUSED:
            refused += 1
            continue
        stages = wrong.arguments[0].arguments[0]
        inputs, outputs = int(stages["inputs"][0]), int(stages["outputs"][-1])
        if max(inputs, outputs) <= MOST_VALUES:
            function(x[MOST_VALUES - inputs :].ctypes.data, y[MOST_VALUES - outputs :].ctypes.data, context.address)
            called += 1
    assert min(refused, called) > 20
