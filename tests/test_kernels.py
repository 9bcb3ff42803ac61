"""Every kernel but the products: each build and dtype against plain NumPy in float64.

A case draws a kernel's inputs and states what it must give, each element with its tolerance. The tests run all cases,
so a kernel is tested for sizes, threads, NaN and infinity, and what it may write, as soon as it has a case.
"""

import functools
import itertools
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest
import reference
from reference import assert_close, rounding, unwritten

from nnfast import _kernels

SIZES = [1, 7, 8, 9, 15, 16, 17, 23, 24, 25, 47, 48, 49, 63, 64, 65]
VECTORS = [(n,) for n in [*SIZES, 2047, 2048, 2049, 6145]]      # a chunk of work is 2048 elements
MATRICES = [(rows, SIZES[(7 * i + j) % 16]) for i, rows in enumerate(SIZES) for j in (0, 3, 11)]
MATRICES += [(1025, 3), (2, 2049), (130, 33)]
# For threads: one piece of work, as many as threads, one more or fewer, and many.
DIVIDED = {"vectors": [(1,), (2048,), (2049,), (6145,), (16385,)],
           "matrices": [(1, 65), (2, 2049), (3, 7), (7, 15), (8, 16), (9, 17), (65, 49), (130, 33), (1025, 3)]}
EXACT = 0.0
DOUBLE = np.dtype(np.float64)


class Call(NamedTuple):
    """A kernel's arguments by name, and what must come out: values and tolerance of outputs and of the sum returned."""

    inputs: dict
    expected: dict
    settings: dict = MappingProxyType({})
    states: dict = MappingProxyType({})     # outputs that the kernel changes instead of fills
    total: tuple | None = None
    dtypes: dict = MappingProxyType({})     # of the outputs that are not of the inputs' dtype


class Draw:
    """Draws inputs of one shape; `planted` (number of the draw, place, value) puts one special value into them."""

    def __init__(self, dtype, shape, planted=(None, None, None)):
        self.dtype, self.shape, self.planted, self.count = dtype, shape, planted, 0
        self.rng = np.random.default_rng([*shape, 20161103])

    def normal(self, scale=1.0, shape=None):
        return self._finish(self.rng.normal(0, scale, self.shape if shape is None else shape))

    def positive(self, shape=None):
        return self._finish(np.abs(self.rng.normal(0, 1, self.shape if shape is None else shape)))

    def labels(self):
        return self.rng.integers(0, self.shape[1], self.shape[0])

    def _finish(self, array):
        array = array.astype(self.dtype)
        number, place, value = self.planted
        if number == self.count:
            array.flat[place % array.size] = value
        self.count += 1
        return array


CASES = {}


def case(shapes):
    def register(function):
        CASES[function.__name__] = (function, shapes)
        return function

    return register


@functools.cache    # expected values are the same for every build
def drawn(name, dtype, shape):
    return CASES[name][0](Draw(dtype, shape))


def exactly(expected):
    return expected, EXACT


# Activations. A setting is rounded to the dtype: one rounding more.

@case(VECTORS)
def relu_forward(draw):
    x = draw.normal()
    return Call({"x": x}, {"y": exactly(reference.relu_forward(x))})


@case(VECTORS)
def relu_backward(draw):
    x, dy = draw.normal(), draw.normal()
    return Call({"dy": dy, "mask": (x <= 0).astype(np.uint8)}, {"dx": exactly(reference.relu_backward(x, dy))})


@case(VECTORS)
def leaky_relu_forward(draw):
    x = draw.normal()
    y = reference.leaky_relu_forward(x, 0.01)
    return Call({"x": x}, {"y": (y, rounding(draw.dtype, 2, np.abs(y)))}, {"slope": 0.01})


@case(VECTORS)
def leaky_relu_backward(draw):
    x, dy = draw.normal(), draw.normal()
    dx = reference.leaky_relu_backward(x, dy, 0.01)
    return Call({"x": x, "dy": dy}, {"dx": (dx, rounding(draw.dtype, 2, np.abs(dx)))}, {"slope": 0.01})


@case(VECTORS)
def sigmoid_forward(draw):
    x = draw.normal(5)
    y = reference.sigmoid_forward(x)
    return Call({"x": x}, {"y": (y, sigmoid_tolerance(draw.dtype, y))})


def sigmoid_tolerance(dtype, y):
    """2.5 units in the last place (test_vector_maths.py) are at most 5 roundings."""
    return rounding(dtype, 2.5, y)


@case(VECTORS)
def sigmoid_backward(draw):
    x, dy = draw.normal(5), draw.normal()
    y = reference.sigmoid_forward(x)
    # y is rounded on its way in, which counts once for y and once for 1 - y; then a difference and two products.
    tolerance = rounding(draw.dtype, 5, y * np.abs(dy))
    return Call({"y": y.astype(draw.dtype), "dy": dy}, {"dx": (reference.sigmoid_backward(x, dy), tolerance)})


@case(VECTORS)
def tanh_forward(draw):
    x = draw.normal(3)
    y = reference.tanh_forward(x)
    return Call({"x": x}, {"y": (y, rounding(draw.dtype, 2.5, np.abs(y)))})


@case(VECTORS)
def tanh_backward(draw):
    x, dy = draw.normal(3), draw.normal()
    y = reference.tanh_forward(x)
    # y's rounding counts twice in y**2; then a product, a difference, a product.
    tolerance = rounding(draw.dtype, 5, np.abs(dy))
    return Call({"y": y.astype(draw.dtype), "dy": dy}, {"dx": (reference.tanh_backward(x, dy), tolerance)})


@case(VECTORS)
def gelu_forward(draw):
    x = draw.normal(3)
    # 1 + erf(x / sqrt(2)) loses digits for negative x: the error is of the size of x, not of the result. The roundings:
    # sqrt(1/2), the quotient, two in erf, the sum, the product.
    return Call({"x": x}, {"y": (reference.gelu_forward(x), rounding(draw.dtype, 6, np.abs(x)))})


@case(VECTORS)
def gelu_backward(draw):
    x, dy = draw.normal(3), draw.normal()
    # As many for the density: its exponent's 3 roundings add at most 3 z**3 / 2 exp(-z**2 / 2) / sqrt(2 pi) < 1.
    return Call({"x": x, "dy": dy}, {"dx": (reference.gelu_backward(x, dy), rounding(draw.dtype, 12, np.abs(dy)))})


@case(VECTORS)
def masked(draw):
    x, mask = draw.normal(), (np.arange(draw.shape[0]) % 3 == 0).astype(np.uint8)
    return Call({"x": x, "mask": mask}, {"y": exactly(reference.masked(x, mask))})


@case(VECTORS)
def scaled(draw):
    x = draw.normal()
    y = reference.scaled(x, 1 / 0.7)
    return Call({"x": x}, {"y": (y, rounding(draw.dtype, 2, np.abs(y)))}, {"factor": 1 / 0.7})


# Batch normalisation. Sums run in float64: for a float32 batch they add next to nothing.

def sum_roundings(dtype, terms):
    return terms if dtype == DOUBLE else 1


@case(MATRICES)
def batch_normalization_forward(draw):
    x = draw.normal() + draw.dtype.type(3)
    columns = x.shape[1]
    gamma, beta, epsilon = draw.normal(1, columns), draw.normal(1, columns), 1e-3
    y, xn, mean, variance, std = reference.batch_normalization_forward(x, gamma, beta, epsilon)
    terms = sum_roundings(draw.dtype, len(x))
    largest = np.abs(x).max(axis=0)
    of_mean = rounding(draw.dtype, terms + 1, largest)
    # The mean's error counts as its square, as the sum of (x - mean) is 0; difference, square, sum and rounding remain.
    of_variance = rounding(draw.dtype, terms + 4, variance) + of_mean**2
    of_std = of_variance / (2 * std) + rounding(draw.dtype, 2, std)
    of_xn = (of_mean + np.abs(xn) * of_std) / std + rounding(draw.dtype, 2, np.abs(xn))
    of_y = np.abs(gamma) * of_xn + rounding(draw.dtype, 2, np.abs(gamma * xn) + np.abs(beta))
    expected = {
        "y": (y, of_y), "xn": (xn, of_xn), "mean": (mean, of_mean),
        "variance": (variance, of_variance), "std": (std, of_std),
    }
    return Call({"x": x, "gamma": gamma, "beta": beta}, expected, {"epsilon": epsilon})


@case(MATRICES)
def batch_normalization_predict(draw):
    columns = draw.shape[1]
    inputs = {"x": draw.normal(), "gamma": draw.normal(1, columns), "beta": draw.normal(1, columns),
              "mean": draw.normal(1, columns), "variance": draw.positive(columns)}
    y = reference.batch_normalization_predict(**inputs, epsilon=1e-3)
    # x - mean is rounded; epsilon, sum, root, quotient, two products and a sum follow.
    x, gamma, beta, mean, variance = (np.abs(array.astype(float)) for array in inputs.values())
    tolerance = rounding(draw.dtype, 8, gamma * (x + mean) / np.sqrt(variance + 1e-3) + beta)
    return Call(inputs, {"y": (y, tolerance)}, {"epsilon": 1e-3})


@case(MATRICES)
def batch_normalization_backward(draw):
    x, dy, gamma, epsilon = draw.normal(), draw.normal(), draw.normal(1, draw.shape[1]), 1e-3
    _, xn, _, _, std = reference.batch_normalization_forward(x, gamma, gamma, epsilon)
    dx, dgamma, dbeta = reference.batch_normalization_backward(x, gamma, dy, epsilon)
    terms = sum_roundings(draw.dtype, len(x))
    of_dgamma = rounding(draw.dtype, terms + 3, np.abs(dy * xn).sum(axis=0))
    of_dbeta = rounding(draw.dtype, terms + 1, np.abs(dy).sum(axis=0))
    # dx: the three terms' own errors, and their largest sum through difference, quotient and product with xn's rounding
    scale = np.abs(gamma) / std
    sizes = np.abs(dy) + np.abs(dy).mean(axis=0) + np.abs(xn) * np.abs(dy * xn).mean(axis=0)
    of_dx = scale * (of_dbeta / len(x) + np.abs(xn) * of_dgamma / len(x) + rounding(draw.dtype, 8, sizes))
    inputs = {"xn": xn.astype(draw.dtype), "std": std.astype(draw.dtype), "gamma": gamma, "dy": dy}
    return Call(inputs, {"dx": (dx, of_dx), "dgamma": (dgamma, of_dgamma), "dbeta": (dbeta, of_dbeta)})


# Losses. The losses of the rows are float64 whatever the dtype of the scores.

LOSSES = {"losses": DOUBLE}


def softmax_tolerance(dtype, scores, y):
    """One rounding for each class in the sum; exp makes the rounding of a distance from the largest score relative."""
    scores = scores.astype(float)
    distance = scores.max(axis=-1, keepdims=True) - scores
    distance = np.where(np.isfinite(distance), distance, 0)
    return rounding(dtype, scores.shape[1] + 5 + distance, y)


def total_of(losses, tolerances):
    return losses.sum(), tolerances.sum() + rounding(DOUBLE, len(losses), np.abs(losses).sum())


@case(MATRICES)
def softmax_forward(draw):
    x = draw.normal(4)
    y = reference.softmax(x)
    return Call({"x": x}, {"y": (y, softmax_tolerance(draw.dtype, x, y))})


@case(MATRICES)
def cross_entropy(draw):
    y, labels = np.clip(draw.normal(), 0, 1), draw.labels()
    losses = reference.cross_entropy(y, labels)
    tolerance = rounding(DOUBLE, 2, 1 + np.abs(losses))
    return Call({"y": y, "labels": labels}, {"losses": (losses, tolerance)}, total=total_of(losses, tolerance),
                dtypes=LOSSES)


@case(MATRICES)
def softmax_cross_entropy_forward(draw):
    scores, labels = draw.normal(4), draw.labels()
    y, losses = reference.softmax(scores), reference.softmax_cross_entropy(scores, labels)
    of_y = softmax_tolerance(draw.dtype, scores, y)
    rows = np.arange(len(scores))
    of_losses = of_y[rows, labels] / (y[rows, labels] + 1e-7) * 1.01 + rounding(DOUBLE, 2, 1 + np.abs(losses))
    return Call({"scores": scores, "labels": labels}, {"y": (y, of_y), "losses": (losses, of_losses)},
                total=total_of(losses, of_losses), dtypes=LOSSES)


@case(MATRICES)
def softmax_cross_entropy_backward(draw):
    scores, labels = draw.normal(4), draw.labels()
    y, dx = reference.softmax(scores), 0.7 * reference.softmax_cross_entropy_backward(scores, labels)
    # y on its way in, the difference, the quotient, dout and the product; at the label y - 1 is rounded, not y.
    size = (y + reference.one_hot(labels, y.shape[1])) / len(y)
    return Call({"y": y.astype(draw.dtype), "labels": labels}, {"dx": (dx, rounding(draw.dtype, 5, size))},
                {"dout": 0.7})


@case(MATRICES)
def squared_error(draw):
    y, t = draw.normal(), draw.normal()
    losses = reference.squared_error(y, t)
    tolerance = rounding(DOUBLE, y.shape[1] + 3, losses)
    return Call({"y": y, "t": t}, {"losses": (losses, tolerance)}, total=total_of(losses, tolerance), dtypes=LOSSES)


@case(MATRICES)
def sigmoid_cross_entropy_forward(draw):
    scores, t = draw.normal(5), draw.rng.integers(0, 3, draw.shape).astype(draw.dtype) / 2
    y, losses = reference.sigmoid(scores), reference.sigmoid_cross_entropy(scores, t)
    of_losses = rounding(DOUBLE, y.shape[1] + 4, (2 * np.abs(scores.astype(float)) + 1).sum(axis=-1))
    return Call({"scores": scores, "t": t}, {"y": (y, sigmoid_tolerance(draw.dtype, y)), "losses": (losses, of_losses)},
                total=total_of(losses, of_losses), dtypes=LOSSES)


@case(MATRICES)
def smoothed_cross_entropy(draw):
    scores, labels = draw.normal(4), draw.labels()
    y = reference.softmax(scores).astype(draw.dtype)
    losses = reference.smoothed_cross_entropy(scores, labels, 0.3)
    # The logarithm of the largest y, rounded on its way in; each distance, its share, and their sum.
    sizes = losses + np.log(y.shape[1]) if y.size else losses
    tolerance = rounding(draw.dtype, 1, 1) + rounding(DOUBLE, y.shape[1] + 8, sizes)
    return Call({"scores": scores, "y": y, "labels": labels}, {"losses": (losses, tolerance)}, {"smoothing": 0.3},
                total=total_of(losses, tolerance), dtypes=LOSSES)


@case(MATRICES)
def smoothed_cross_entropy_backward(draw):
    scores, labels = draw.normal(4), draw.labels()
    y, t = reference.softmax(scores), reference.smoothed(labels, draw.shape[1], 0.3)
    return Call({"y": y.astype(draw.dtype), "labels": labels},
                {"dx": (0.7 * (y - t) / len(y), rounding(draw.dtype, 6, (y + t) / len(y)))}, {"smoothing": 0.3, "dout": 0.7})


def residual_loss(draw):
    """One of the three, by the number of rows: its code, its parameters, and the functions of its losses and slopes."""
    codes = _kernels.kernels(draw.dtype).OPERATION_CODES
    parameters = np.random.default_rng(1).uniform(0.1, 0.9, draw.shape[1])
    name = ("absolute_error", "huber_loss", "quantile_loss")[draw.shape[0] % 3]
    functions = getattr(reference, name), getattr(reference, f"{name}_slope")
    settings = () if name == "absolute_error" else (parameters,)
    code = codes[{"absolute_error": "ABSOLUTE_LOSS", "huber_loss": "HUBER_LOSS", "quantile_loss": "QUANTILE_LOSS"}[name]]
    return code, parameters, *(lambda y, t, function=function: function(y, t, *settings) for function in functions)


@case(MATRICES)
def residual_losses(draw):
    y, t = draw.normal(), draw.normal()
    code, parameters, losses_of, _ = residual_loss(draw)
    losses = losses_of(y, t)
    tolerance = rounding(DOUBLE, y.shape[1] + 4, losses)
    return Call({"y": y, "t": t, "parameters": parameters}, {"losses": (losses, tolerance)}, {"code": code},
                total=total_of(losses, tolerance), dtypes=LOSSES)


@case(MATRICES)
def residual_losses_backward(draw):
    y, t = draw.normal(), draw.normal()
    code, parameters, _, slopes_of = residual_loss(draw)
    dx = 0.7 * slopes_of(y, t) / max(1, len(y))
    # The difference, 1 - a quantile that was rounded, the quotient, dout and the product.
    return Call({"y": y, "t": t, "parameters": parameters}, {"dx": (dx, rounding(draw.dtype, 6, 1 / max(1, len(y))))},
                {"code": code, "dout": 0.7})


@case(MATRICES)
def poisson_deviance_forward(draw):
    scores, t = draw.normal(2), np.floor(3 * draw.positive())
    y, losses = np.exp(scores.astype(float)), reference.poisson_loss(scores, t)
    of_y = rounding(draw.dtype, 3 + np.abs(np.where(np.isfinite(scores), scores, 0)), y)
    of_losses = rounding(DOUBLE, y.shape[1] + 3, reference.size_of_poisson_loss(scores, t))
    return Call({"scores": scores, "t": t}, {"y": (y, of_y), "losses": (losses, of_losses)},
                total=total_of(losses, of_losses), dtypes=LOSSES)


@case(VECTORS)
def difference_backward(draw):
    y, t = draw.normal(), draw.normal()
    dx = 0.7 * reference.difference_backward(y, t, 100)
    return Call({"y": y, "t": t}, {"dx": (dx, rounding(draw.dtype, 4, np.abs(dx)))}, {"batch_size": 100, "dout": 0.7})


# Optimisers: the settings' roundings, then one for each operation, of the terms that are added. Subnormal numbers count
# as 0.

def optimizer_case(name, draw, states, settings, operations, size, **given):
    gradient, parameter = draw.normal(), draw.normal()
    state = {key: make() for key, make in states.items()}
    new = getattr(reference, name)(gradient, parameter, **state, **settings)
    absolute = (np.abs(array.astype(float)) for array in (gradient, parameter, *state.values()))
    sizes = size(*absolute, *new[1:])
    expected = {
        key: (values, rounding(draw.dtype, operations, values_size) + np.finfo(draw.dtype).smallest_normal)
        for key, values, values_size in zip(("parameter", *state), new, sizes, strict=True)
    }
    return Call({"gradient": gradient}, expected, given or settings, {"parameter": parameter, **state})


@case(VECTORS)
def sgd_step(draw):
    return optimizer_case("sgd_step", draw, {}, {"lr": 0.05}, 3, lambda g, p: [p + 0.05 * g])


@case(VECTORS)
def momentum_step(draw):
    settings = {"lr": 0.05, "momentum": 0.9}
    return optimizer_case("momentum_step", draw, {"v": draw.normal}, settings, 6,
                          lambda g, p, v, _: [p + 0.9 * v + 0.05 * g, 0.9 * v + 0.05 * g])


@case(VECTORS)
def nesterov_step(draw):
    settings = {"lr": 0.05, "momentum": 0.9}
    return optimizer_case("nesterov_step", draw, {"v": draw.normal}, settings, 8,
                          lambda g, p, v, _: [p + 0.81 * v + 1.9 * 0.05 * g, 0.9 * v + 0.05 * g])


@case(VECTORS)
def adagrad_step(draw):
    return optimizer_case("adagrad_step", draw, {"h": draw.positive}, {"lr": 0.05}, 8,
                          lambda g, p, _, h: [p + 0.05 * g / np.sqrt(h), h])


@case(VECTORS)
def rmsprop_step(draw):
    settings = {"lr": 0.05, "decay_rate": 0.99}
    return optimizer_case("rmsprop_step", draw, {"h": draw.positive}, settings, 8,
                          lambda g, p, _, h: [p + 0.05 * g / np.sqrt(h), h])


@case(VECTORS)
def adam_step(draw):
    settings = {"lr": 0.05, "beta1": 0.9, "beta2": 0.999, "iteration": 3, "weight_decay": 0.01, "epsilon": 1e-3}
    lr_t = 0.05 * np.sqrt(1 - 0.999**3) / (1 - 0.9**3)
    return optimizer_case("adam_step", draw, {"m": draw.normal, "v": draw.positive}, settings, 10,
                          lambda g, p, m, _, new_m, v: [p + lr_t * (m + g) / np.sqrt(v), m + g, v],
                          lr_t=lr_t, beta1=0.9, beta2=0.999, epsilon=1e-3, shrink=1 - 0.05 * 0.01)


# The tests

def run(kernels, name, call, num_threads, offset=0):
    outputs = {
        key: unwritten(values.shape, call.dtypes.get(key, next(iter(call.inputs.values())).dtype))
        for key, (values, _) in call.expected.items()
    }
    settings = {**call.settings, "num_threads": num_threads}
    return reference.call(getattr(kernels, name), call.inputs, {**outputs, **call.states}, settings, offset)


def assert_right(call, returned, outputs, what):
    for key, (values, tolerance) in call.expected.items():
        assert_close(outputs[key], values, tolerance, f"{what}: {key}")
    if call.total is None:
        assert returned is None
    else:
        assert_close(returned, *call.total, f"{what}: the sum returned")


def bits(returned, outputs):
    return np.float64(returned or 0).tobytes(), {key: array.tobytes() for key, array in outputs.items()}


def test_every_kernel_has_a_case_or_a_test_of_its_own(build):
    names = {name for name, value in vars(build).items() if callable(value) and not name.startswith("_")}
    names -= {"Arrays", "Chain", "Context", "Data", "GradientChain", "Scratch", "Shares", "TrainingSteps"}   # hold what others take
    products = {"affine_forward", "affine_backward_input", "affine_backward_parameters"}
    others = {"cpu_level", "teams", "forks", "openmp_threads", "count_correct", "one_hot_to_labels", "first_outside",
              "first_not_finite", "relu_forward_masked"}
    engine = {"advance", "prepare", "train", "shuffle", "infer", "pack", "unpack", "dropout_mask"}
    gradients = {"central_difference", "evaluate", "pair_values", "perturb", "perturbation_scratch", "sum_pairs"}
    assert names == CASES.keys() | products | others | engine | gradients


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_is_right_for_every_size_and_writes_its_outputs_only(kernels, dtype, name):
    for offset, shape in enumerate(CASES[name][1]):
        call = drawn(name, dtype, shape)
        assert_right(call, *run(kernels, name, call, 1, offset), f"{name} of {shape}")


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_gives_the_same_bits_for_any_number_of_threads(kernels, dtype, name):
    for shape in DIVIDED["vectors" if CASES[name][1] is VECTORS else "matrices"]:
        call = drawn(name, dtype, shape)
        one = bits(*run(kernels, name, call, 1))
        for num_threads in (2, 3, 8):
            assert bits(*run(kernels, name, call, num_threads)) == one, f"{name} of {shape}, {num_threads} threads"


SPECIAL = [np.nan, np.inf, -np.inf]
EXTREME = [1e30, -1e30, 1e-40, -1e-40, -0.0]

# Kernels that square: in float32 1e30 overflows, in the reference not.
NO_EXTREMES = {"batch_normalization_forward", "batch_normalization_backward", "adagrad_step", "rmsprop_step",
               "adam_step", "gelu_forward", "gelu_backward"}

# Kernels with another formula than the reference, where infinity - infinity or 0 * infinity comes up in one alone.
# GELU's is the better one: test_vector_maths.py has its limits.
NO_INFINITY = {"gelu_forward", "gelu_backward", "batch_normalization_backward", "adam_step"}


@pytest.mark.parametrize("name", CASES)
def test_nan_infinity_and_extremes_go_no_further_than_in_numpy(kernels, dtype, name):
    assert_goes_no_further_than_in_numpy(kernels, dtype, name, (67,) if CASES[name][1] is VECTORS else (9, 17))


@pytest.mark.parametrize("name", ["residual_losses", "residual_losses_backward"])
@pytest.mark.parametrize("rows", [10, 11])
def test_nor_do_they_in_other_losses_of_residuals(kernels, dtype, name, rows):
    assert_goes_no_further_than_in_numpy(kernels, dtype, name, (rows, 17))


def assert_goes_no_further_than_in_numpy(kernels, dtype, name, shape):
    make, _ = CASES[name]
    draw = Draw(dtype, shape)
    clean = make(draw)
    usual = run(kernels, name, clean, 1)
    values = SPECIAL[: 1 if name in NO_INFINITY else None] + EXTREME * (name not in NO_EXTREMES)
    # 17 lies among whole vectors, 66 in what is left over; masked() keeps the latter only.
    for planted in itertools.product(range(draw.count), (17, 66), values):
        with np.errstate(all="ignore"):
            call = make(Draw(dtype, shape, planted))
        returned, outputs = run(kernels, name, call, 1)
        what = f"{name} with (input, place, value) {planted}"
        assert_right(call, returned, outputs, what)
        for key, (expected, _) in call.expected.items():
            untouched = expected == clean.expected[key][0]
            assert np.array_equal(outputs[key][untouched], usual[1][key][untouched]), f"{what}: {key}"


def test_a_thread_count_above_the_work_is_harmless(kernels, dtype):
    call = CASES["relu_forward"][0](Draw(dtype, (1,)))
    assert bits(*run(kernels, "relu_forward", call, 64)) == bits(*run(kernels, "relu_forward", call, 1))


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("batch_normalization")])
def test_an_empty_batch_is_no_work(kernels, dtype, name):
    make, shapes = CASES[name]
    call = make(Draw(dtype, (0,) if shapes is VECTORS else (0, 3)))
    returned, _ = run(kernels, name, call, 2)
    assert not returned


def test_softmax_rows_are_finite_and_sum_to_one(kernels, dtype, rng):
    largest = np.finfo(dtype).max
    x = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [largest, -largest, largest], [0, 0, -np.inf]], dtype)
    y = np.empty_like(x)
    kernels.softmax_forward(x, y, 1)
    expected = [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    assert_close(y, expected, rounding(dtype, 1, 1 / 3), "softmax")
    x = rng.normal(0, 1e4, (50, 1000)).astype(dtype)
    y = np.empty_like(x)
    kernels.softmax_forward(x, y, 1)
    assert_close(y.astype(float).sum(axis=1), np.ones(50), rounding(dtype, 1000, 1), "sums of rows")


def test_the_loss_of_an_impossible_label_is_finite(kernels, dtype):
    scores, y, losses = np.array([[1e4, -1e4]], dtype), np.empty((1, 2), dtype), np.empty(1)
    total = kernels.softmax_cross_entropy_forward(scores, np.array([1]), y, losses, 1)
    assert_close(total, -np.log(1e-7), rounding(DOUBLE, 3, 17), "loss")
    total = kernels.sigmoid_cross_entropy_forward(scores, np.array([[0, 1]], dtype), y, losses, 1)
    assert_close(total, 2e4, rounding(DOUBLE, 3, 2e4), "loss")


@pytest.mark.parametrize("size", [1, 15, 2047, 2048, 2049, 40_000])
@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
def test_relu_forward_masked_also_says_where_x_is_at_most_zero(kernels, dtype, rng, size, num_threads):
    x = rng.standard_normal(size).astype(dtype)
    x[rng.integers(0, size, 20)] = rng.choice([0.0, -0.0, np.nan, np.inf, -np.inf], 20)
    y, expected = np.empty_like(x), np.empty_like(x)
    memory = np.full(size + 2, 77, np.uint8)
    kernels.relu_forward_masked(x, y, memory[1:-1], num_threads)
    kernels.relu_forward(x, expected, 1)
    assert y.tobytes() == expected.tobytes()
    assert (memory[1:-1] == (x <= 0)).all()
    assert memory[0] == memory[-1] == 77
