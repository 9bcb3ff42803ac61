"""Products whose first operand is mostly zeros, of which some are left out (_core_zeros.pxi): nothing may show.

A tile has 4 or 8 rows, so zeros in the same place of 8 rows are left out by every build.
"""

import functools

import numpy as np
import pytest
from test_products import PRODUCTS, expected_of, inputs_of, run

GROUP = 8

# Rows, columns and depth: on both sides of a tile, a block of 64 rows, a pass of 512, of one panel and of many; the
# second operand read where it is, copied at once, or panel by panel.
SHAPES = [(8, 10, 40), (9, 50, 513), (64, 1, 65), (65, 49, 512), (71, 24, 1025), (100, 50, 784), (130, 131, 600),
          (20, 401, 7), (784, 50, 100), (16, 97, 1), (63, 17, 8), (12, 400, 1040)]


def with_zeros(rng, rows, depth, share=0.75):
    """Normal numbers, but zeros in a share of the places that 8 rows have in common, and in some others."""
    a = rng.standard_normal((rows, depth))
    a[np.repeat(rng.random((-(-rows // GROUP), depth)) < share, GROUP, axis=0)[:rows]] = 0
    a[rng.random(a.shape) < 0.1] = -0.0
    return a


@functools.cache    # the same for every build
def drawn(name, dtype, shape):
    rows, columns, depth = shape
    rng = np.random.default_rng(shape)
    a, b = with_zeros(rng, rows, depth).astype(dtype), rng.standard_normal((depth, columns)).astype(dtype)
    first, second = {
        "affine_forward": (a, b), "affine_backward_input": (a, b.T.copy()),
        "affine_backward_parameters": (a.T.copy(), b),
    }[name]
    return inputs_of(name, first, second, rng.standard_normal(columns).astype(dtype))


def with_infinity(name, inputs, depth_place, column, value):
    """The same, but for one value in the second operand, which makes one column of the result infinite or NaN."""
    key = list(inputs)[1]
    array = inputs[key].copy()
    array[(column, depth_place) if name == "affine_backward_input" else (depth_place, column)] = value
    return {**inputs, key: array}


def result_of(outputs):
    return next(iter(outputs.values()))     # y, dx or dw


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_zeros_left_out_change_no_bit_for_any_number_of_threads(kernels, dtype, name, shape):
    inputs = drawn(name, dtype, shape)
    # With a NaN in the last column no zero is left out, and the other columns are what they were.
    every = result_of(run(kernels, name, with_infinity(name, inputs, 0, -1, np.nan)))[:, :-1]
    for num_threads in (1, 2, 3, 8):
        found = result_of(run(kernels, name, inputs, num_threads, shape[0]))
        assert found[:, :-1].tobytes() == every.tobytes()
        if shape[2] <= 100:     # and the last column, to rounding
            expected = result_of(expected_of(name, inputs))[:, -1]
            tolerance = 200 * np.finfo(dtype).eps * np.abs(expected).max()
            np.testing.assert_allclose(found[:, -1], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("shape", [(9, 50, 40), (65, 97, 600), (20, 401, 9)], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_zero_times_infinity_is_nan_wherever_it_stands(kernels, dtype, name, shape, value):
    inputs = drawn(name, dtype, shape)
    key = next(iter(inputs))
    inputs = {**inputs, key: np.zeros_like(inputs[key])}
    clean = result_of(run(kernels, name, inputs))
    _, columns, depth = shape
    for place in ((0, 0), (depth // 2, columns // 3), (depth - 1, columns - 1)):
        for num_threads in (1, 2):
            found = result_of(run(kernels, name, with_infinity(name, inputs, *place, value), num_threads))
            assert np.isnan(found[:, place[1]]).all()
            others = np.arange(columns) != place[1]
            np.testing.assert_array_equal(found[:, others], clean[:, others])


@pytest.mark.parametrize("name", PRODUCTS)
def test_what_is_not_zero_is_never_left_out(kernels, dtype, name):
    """One number in a first operand of zeros, in any place: the smallest there is, infinity or NaN."""
    rows, columns, depth = 21, 3, 37
    smallest = np.nextafter(dtype.type(0), dtype.type(1))
    b = np.full((depth, columns), 4, dtype)
    for place in range(0, rows * depth, 5):
        for value in (smallest, -1, np.inf, np.nan):
            a = np.zeros((rows, depth), dtype)
            a.flat[place] = value
            first, second = {
                "affine_forward": (a, b), "affine_backward_input": (a, b.T.copy()),
                "affine_backward_parameters": (a.T.copy(), b),
            }[name]
            found = result_of(run(kernels, name, inputs_of(name, first, second, np.zeros(columns, dtype))))
            expected = np.zeros((rows, columns), dtype)
            expected[place // depth] = dtype.type(value) * 4
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("share", [0, 0.2, 0.4, 0.6, 1])
def test_any_share_of_zeros_is_right(kernels, dtype, share):
    rng = np.random.default_rng(0)
    x = rng.integers(-8, 9, (203, 130)) * (with_zeros(rng, 203, 130, share) != 0)   # exact in float32
    w, b = rng.integers(-8, 9, (130, 70)), rng.integers(-8, 9, 70)
    inputs = {"x": x.astype(dtype), "w": w.astype(dtype), "b": b.astype(dtype)}
    np.testing.assert_array_equal(result_of(run(kernels, "affine_forward", inputs, 2)), x @ w + b)
