"""How exact exp, log, sigmoid, tanh and GELU are, over all that a float can be.

The error is measured in units in the last place (ulp) of the exact result: float32 against NumPy's float64, float64
against longdouble. exp is seen through the kernels that call it: softmax of the row (0, x) is exp(x) / (1 + exp(x))
for x < 0, a sum and a quotient more, and below the precision of 1 it is exp(x) itself.

The bounds are half an ulp each for the roundings on the way, and the measured maximum must stay within them.
"""

import functools
import math

import numpy as np
import pytest
from reference import assert_close, rounding, unwritten

FLOAT, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
LARGER = {FLOAT: np.dtype(np.float64), DOUBLE: np.dtype(np.longdouble)}
# Where longdouble is no longer than float64 (Windows, ARM), the reference has errors of its own, of below an ulp.
OF_REFERENCE = 0 if np.finfo(np.longdouble).nmant > 52 else 1


@functools.cache
def all_over(dtype):
    """float32: every 1021st bit pattern (4.2 million). float64: random ones, half of them between 2**-60 and 2**10."""
    if dtype == FLOAT:
        values = np.arange(0, 2**32, 1021, dtype=np.uint64).astype(np.uint32).view(FLOAT)
    else:
        rng = np.random.default_rng(20161103)
        values = rng.integers(0, 2**63, 100_000, dtype=np.uint64).view(DOUBLE)
        values = np.concatenate([values, np.exp2(rng.uniform(-60, 10, 100_000))])
        values = np.concatenate([values, -values])
    return values[np.isfinite(values)]


@functools.cache
def exact(name, dtype):
    x = all_over(dtype).astype(LARGER[dtype])
    with np.errstate(over="ignore", under="ignore"):
        if name == "tanh":
            return np.tanh(x)
        if name == "gelu":
            return x * np.where(x < 0, normal_tail(-x), 1 - normal_tail(x))
        power = np.exp(-np.abs(x))
        return np.where(x >= 0, 1, power) / (1 + power)


def normal_tail(z):
    """P(-z) of the standard normal distribution for z >= 0, in the precision of z.

    Below 2 by the series of P(z) - 1/2, above by Laplace's continued fraction (Abramowitz and Stegun, 26.2.11 and .14).
    """
    z = np.minimum(np.maximum(z, 0), 60)
    density = np.exp(-z * z / 2) / np.sqrt(2 * z.dtype.type("3.14159265358979323846264338327950288"))
    term = total = np.minimum(z, 2)
    for k in range(1, 60):
        term = term * np.minimum(z, 2) ** 2 / (2 * k + 1)
        total = total + term
    fraction = np.maximum(z, 2)
    for k in range(300, 0, -1):
        fraction = np.maximum(z, 2) + k / fraction
    return np.where(z < 2, z.dtype.type(0.5) - density * total, density / fraction)


def ulps(result, expected):
    """The distance of each result from the exact one, in units of the last place of the latter."""
    with np.errstate(under="ignore"):
        unit = np.spacing(np.abs(expected.astype(result.dtype)))
    return np.abs(result - expected) / unit


def computed(kernel, x):
    y = unwritten(x.shape, x.dtype)
    kernel(x, y, 1)
    return y


def below_softmax_of_0(kernels, x):
    pairs = np.zeros((x.size, 2), x.dtype)
    pairs[:, 1] = x
    return computed(kernels.softmax_forward, pairs)[:, 1]


def test_sigmoid_is_exact_to_two_and_a_half_ulp(kernels, dtype):
    x, expected = all_over(dtype), exact("sigmoid", dtype)
    y = computed(kernels.sigmoid_forward, x)
    # exp (1), a sum (0.5), a quotient (0.5), each at most doubled where the result stands just below a power of two
    # and its ulp is half as long: at most 2.49 over every float32 (bench/bench_accuracy.py), measured 2.00 in
    # float64.
    normal = expected >= np.finfo(dtype).tiny * 4
    assert ulps(y, expected)[normal].max() <= 2.5 + OF_REFERENCE
    # Below the normal numbers exp(-x) overflows, and the result is 0 early.
    assert (np.abs(y - expected)[~normal] <= np.finfo(dtype).tiny).all()
    assert y.min() == 0 and y.max() == 1


def test_tanh_is_exact_to_two_and_a_half_ulp(kernels, dtype):
    x = all_over(dtype)
    y = computed(kernels.tanh_forward, x)
    # exp - 1 (1.5), a sum (0.5), a quotient (0.5): at most 2.42 over every float32,
    # measured 2.34 in float64. Subnormals included.
    assert ulps(y, exact("tanh", dtype)).max() <= 2.5 + OF_REFERENCE
    assert y.min() == -1 and y.max() == 1
    assert np.array_equal(computed(kernels.tanh_forward, -x), -y)


def test_exp_is_exact_to_an_ulp_down_to_the_subnormals(kernels, dtype):
    x = all_over(dtype)
    chosen = x < (-18 if dtype == FLOAT else -38)     # 1 + exp(x) is 1
    expected = exact("sigmoid", dtype)[chosen]
    y = below_softmax_of_0(kernels, x[chosen])
    # Reduction and series: at most 1.07 over every float32, measured 0.95 in float64.
    assert ulps(y, expected).max() <= 1.1 + OF_REFERENCE
    assert (y[expected > np.finfo(dtype).smallest_subnormal] > 0).all()


def test_softmax_of_two_is_exact_to_two_and_a_half_ulp(kernels, dtype):
    x = all_over(dtype)
    # exp (1), the sum (0.5), the quotient (0.5), doubled as for sigmoid: measured 2.06 in float32, 1.89 in float64.
    y = below_softmax_of_0(kernels, x[x < 0])
    assert ulps(y, exact("sigmoid", dtype)[x < 0]).max() <= 2.5 + OF_REFERENCE


def test_gelu_is_exact_to_five_ulp(kernels, dtype):
    x, expected = all_over(dtype), exact("gelu", dtype)
    y = computed(kernels.gelu_forward, x)
    # exp twice (1.1), a polynomial (1.2 to 1.4), quotient, products: at most 4.81 over every
    # float32, measured 4.0 in float64.
    normal = np.abs(expected) >= np.finfo(dtype).tiny * 64
    assert ulps(y, expected)[normal].max() <= 5 + OF_REFERENCE
    # Below the normal numbers P(x) is one that has lost digits, which x multiplies.
    assert (np.abs(y - expected)[~normal] <= 20 * np.finfo(dtype).smallest_subnormal + 5 * np.spacing(
        np.abs(expected[~normal]).astype(dtype))).all()


def test_the_reference_of_gelu_is_right():
    x = np.array([-30.0, -5.0, -2.0, -1.0, 0.5, 1.999, 2.001, 8.0])
    expected = [value * math.erfc(-value / math.sqrt(2)) / 2 for value in x]
    np.testing.assert_allclose(x * np.where(x < 0, normal_tail(-x), 1 - normal_tail(x)), expected, rtol=1e-12)


def test_log_is_exact_to_two_ulp(kernels, dtype):
    # Seen through the cross-entropy, -log(y + 1e-7) in float64.
    y = np.abs(all_over(dtype))
    y = y[y > 0]
    argument = y.astype(np.float64) + 1e-7
    losses = np.empty(y.size)
    kernels.cross_entropy(y.reshape(-1, 1), np.zeros(y.size, np.int64), losses, 1)
    # A quotient and a product (0.5 each, doubled below a power of two), the sum: at most 1.98 over every float32.
    assert ulps(-losses, np.log(argument.astype(np.longdouble))).max() <= 2 + OF_REFERENCE


SPECIAL = [0, -0.0, np.inf, -np.inf, np.nan, 1e4, -1e4]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu_forward", [0, 0, np.inf, 0, np.nan, 1e4, 0]),
        ("sigmoid_forward", [0.5, 0.5, 1, 0, np.nan, 1, 0]),
        ("tanh_forward", [0, 0, 1, -1, np.nan, 1, -1]),
        ("gelu_forward", [0, 0, np.inf, 0, np.nan, 1e4, 0]),
    ],
)
@pytest.mark.parametrize("copies", [1, 5])      # vectors, and what is left over
def test_special_values_have_their_limits(kernels, dtype, name, expected, copies):
    y = computed(getattr(kernels, name), np.array(SPECIAL * copies, dtype))
    assert np.array_equal(y, np.array(expected * copies, dtype), equal_nan=True)


def test_gelus_slope_has_its_limits(kernels, dtype):
    x, dx = np.array(SPECIAL, dtype), unwritten(len(SPECIAL), dtype)
    kernels.gelu_backward(x, np.full(len(x), 2, dtype), dx, 1)
    assert np.array_equal(dx, [1, 1, 2, 0, np.nan, 2, 0], equal_nan=True)


FORWARD = ["relu_forward", "sigmoid_forward", "tanh_forward", "gelu_forward"]


@pytest.mark.parametrize("name", FORWARD)
def test_every_finite_input_gives_a_finite_output(kernels, dtype, name):
    x = np.concatenate([all_over(dtype)[::37], [np.finfo(dtype).max, np.finfo(dtype).min]]).astype(dtype)
    assert np.isfinite(computed(getattr(kernels, name), x)).all()


@pytest.mark.parametrize("name", ["gelu_backward", "sigmoid_backward", "tanh_backward"])
def test_every_finite_input_has_a_finite_slope(kernels, dtype, name):
    x = np.concatenate([all_over(dtype)[::37], [np.finfo(dtype).max, np.finfo(dtype).min]]).astype(dtype)
    if name != "gelu_backward":
        x = computed(getattr(kernels, name.replace("backward", "forward")), x)
    dx = unwritten(x.size, dtype)
    getattr(kernels, name)(x, np.ones_like(x), dx, 1)
    assert (np.abs(dx) <= 1.13).all()      # the largest slope of GELU, at sqrt(2); the others' is 1


@pytest.mark.parametrize("name", ["sigmoid_forward", "tanh_forward"])
def test_larger_inputs_give_no_smaller_outputs_beyond_their_error(kernels, dtype, name):
    x = np.sort(all_over(dtype)[::11])
    y = computed(getattr(kernels, name), x)
    falls = y[:-1] - y[1:]
    assert (falls <= 5 * np.spacing(np.maximum(np.abs(y[1:]), np.abs(y[:-1])))).all()


def test_known_values(kernels, dtype):
    half, quarter = np.log(3) / 2, np.log(3)
    y = computed(kernels.tanh_forward, np.array([half, -half], dtype))
    assert_close(y, [0.5, -0.5], rounding(dtype, 4, 0.5), "tanh(log(3) / 2)")
    y = computed(kernels.sigmoid_forward, np.array([quarter, -quarter], dtype))
    assert_close(y, [0.75, 0.25], rounding(dtype, 4, 0.5), "sigmoid(log(3))")
    y = computed(kernels.softmax_forward, np.log(np.array([[1, 2, 3, 4]])).astype(dtype))
    assert_close(y, [[0.1, 0.2, 0.3, 0.4]], rounding(dtype, 8, 0.4), "softmax(log([1, 2, 3, 4]))")
