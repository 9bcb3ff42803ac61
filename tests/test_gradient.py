"""The numerical gradient: central differences on any array, which is left as it was."""

import itertools

import numpy as np
import pytest
import reference

from nnfast import numerical_gradient

SHAPES = [(1,), (7,), (8, 9), (2, 3, 4, 5), (0,), (3, 0)]
# Rounding of a sum of squares of some hundred values, divided by 2 h; the central difference of a square is exact.
TOLERANCE = reference.rounding("f8", 120, 500) / 2e-4


@pytest.mark.parametrize(
    ("layout", "shape"), [("plain", ()), *itertools.product(reference.SAME_DTYPE_LAYOUTS, SHAPES)], ids=str)
def test_the_gradient_of_a_sum_of_squares_is_twice_x(layout, shape, rng):
    x = reference.SAME_DTYPE_LAYOUTS.get(layout, np.asarray)(np.asarray(rng.standard_normal(shape)))
    calls = []

    def f(given):
        assert given is x
        calls.append(1)
        return np.sum(given**2)

    with reference.unchanged(x):
        gradient = numerical_gradient(f, x)
    assert gradient.shape == shape and gradient.dtype == np.float64
    np.testing.assert_allclose(gradient, 2 * x, rtol=0, atol=TOLERANCE)
    assert len(calls) == 2 * x.size


def test_the_gradient_agrees_with_the_reference(rng):
    x, w = rng.uniform(-1, 1, (2, 4, 3))

    def f(x):
        return np.sin(w * x).sum()

    expected = reference.central_difference(f, x)
    np.testing.assert_array_equal(numerical_gradient(f, x), expected)     # the same operations in the same order
    np.testing.assert_allclose(expected, w * np.cos(w * x), rtol=0, atol=1e-8)   # h**2 / 6 times w**3


def test_f_sees_one_element_at_a_time_moved_by_h_to_both_sides():
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    start, seen = x.copy(), []

    def f(given):
        seen.append(given - start)
        return 0.0

    numerical_gradient(f, x)
    for place, (above, below) in enumerate(zip(seen[::2], seen[1::2], strict=True)):
        expected = np.zeros(4)
        expected[place] = 1e-4
        np.testing.assert_allclose(above.ravel(), expected, rtol=0, atol=2.0**-50)
        np.testing.assert_allclose(below.ravel(), -expected, rtol=0, atol=2.0**-50)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("call", range(1, 13))
def test_x_is_restored_when_f_raises(call, error, rng):
    x = np.asfortranarray(rng.standard_normal((2, 3)))
    calls = []

    def f(given):
        calls.append(1)
        if len(calls) == call:
            raise error
        return given.sum()

    with reference.unchanged(x), pytest.raises(error):
        numerical_gradient(f, x)


@pytest.mark.parametrize("result", ["text", None, np.ones(2)], ids=repr)
def test_x_is_restored_when_f_does_not_return_a_number(result, rng):
    x = rng.standard_normal(3)
    with reference.unchanged(x), pytest.raises(TypeError):
        numerical_gradient(lambda _: result, x)


@pytest.mark.parametrize("number", [3, 3.0, np.float32(3), np.array(3.0), True], ids=repr)
def test_f_may_return_any_number(number):
    np.testing.assert_array_equal(numerical_gradient(lambda _: number, np.ones(3)), 0)


def test_float32_is_refused_unless_h_is_given(rng):
    x = rng.standard_normal(5).astype(np.float32)
    with reference.unchanged(x), pytest.raises(TypeError, match=r"^x is float32, whose rounding is as large as"):
        numerical_gradient(np.sum, x)
    h = 2.0**-6
    with reference.unchanged(x):
        gradient = numerical_gradient(lambda x: np.sum(x.astype(np.float64) ** 2), x, h=h)
    assert gradient.dtype == np.float32
    # x + h is rounded, by 2**-24 of some 4, which the slope of the square, some 4 too, divided by 2 h passes on.
    np.testing.assert_allclose(gradient, 2 * x, rtol=0, atol=reference.rounding(np.float32, 2, 4 * 4) / (2 * h))


@pytest.mark.parametrize("h", [1e-2, 1e-3, 1e-5])
def test_the_error_is_the_third_derivative_times_h_squared_over_6(h):
    x = np.array([0.5])
    gradient = numerical_gradient(lambda x: float(x[0] ** 3), x, h=h)
    np.testing.assert_allclose(gradient, [3 * 0.5**2 + h**2], rtol=0, atol=8 * 2.0**-53 / h)


def test_a_read_only_array_is_refused():
    x = reference.LAYOUTS["read-only"](np.ones(3))
    with pytest.raises(ValueError, match=r"^x is read-only, but is perturbed in place: pass x.copy\(\)$"):
        numerical_gradient(np.sum, x)


def test_the_gradient_method_finds_the_minimum_at_the_rate_of_the_notes():
    # f = x0**2 + x1**2 from (-3, 4), learning rate 0.1: each step multiplies by 0.8.
    x = np.array([-3.0, 4.0])
    for _ in range(100):
        x -= 0.1 * numerical_gradient(lambda x: x[0] ** 2 + x[1] ** 2, x)
    np.testing.assert_allclose(x, [-3 * 0.8**100, 4 * 0.8**100], rtol=0, atol=1e-12)
