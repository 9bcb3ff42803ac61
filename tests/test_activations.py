"""Activation layers against their formulas in plain NumPy float64, forward and backward."""

import functools

import numpy as np
import pytest
import reference
from reference import assert_rounded

import nnfast
from nnfast import Gelu, Identity, LeakyRelu, Relu, Sigmoid, Tanh

SLOPE = 0.125    # a power of two: exact in both dtypes

# Layer; its formulas; rounding errors of max(1, |x|) that forward, and of |dout| that backward, may make.
CASES = {
    "Relu": (Relu, reference.relu_forward, reference.relu_backward, 0, 0),
    "Sigmoid": (Sigmoid, reference.sigmoid_forward, reference.sigmoid_backward, 4, 6),
    "Tanh": (Tanh, reference.tanh_forward, reference.tanh_backward, 4, 8),
    "LeakyRelu": (
        functools.partial(LeakyRelu, SLOPE), functools.partial(reference.leaky_relu_forward, slope=SLOPE),
        functools.partial(reference.leaky_relu_backward, slope=SLOPE), 0, 0),
    "Gelu": (Gelu, reference.gelu_forward, reference.gelu_backward, 8, 16),
    "Identity": (Identity, lambda x: x, lambda x, dy: dy, 0, 0),
}
BOOK = ["Relu", "Sigmoid"]
SHAPES = [(size,) for size in (1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 100, 2047, 2048, 2049)]
SHAPES += [(), (0,), (9, 7), (3, 2, 5, 4)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_backward_are_the_formulas(case, shape, rng, dtype):
    make, forward, backward, forward_errors, backward_errors = CASES[case]
    layer = make()
    x, dout = (np.asarray(2 * rng.standard_normal(shape), dtype) for _ in range(2))
    assert_rounded(layer.forward(x), forward(x), dtype, forward_errors, max(1, np.abs(x).max(initial=0)))
    assert_rounded(layer.backward(dout), backward(x, dout), dtype, backward_errors, np.abs(dout).max(initial=0))


@pytest.mark.parametrize("case", CASES)
def test_backward_agrees_with_central_differences(case, rng):
    layer = CASES[case][0]()
    x, dout = 2 * rng.standard_normal((2, 40))
    layer.forward(x)
    dx = layer.backward(dout)
    h = 1e-5    # no x is so near the bend of a ReLU
    assert np.abs(x).min() > h
    numerical = reference.central_difference(lambda x: layer.infer(x) @ dout, x, h)
    # Truncation: a third derivative of at most 1 or so, h**2 / 6 of it; rounding of a sum of 40 values, over h.
    np.testing.assert_allclose(dx, numerical, rtol=0, atol=h**2 * 4 + reference.rounding("f8", 40, 200) / h)


@pytest.mark.parametrize("layout", reference.LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_layouts_give_the_same_values_and_are_not_written(case, layout, rng, dtype):
    x, dout = rng.integers(-3, 4, (2, 9, 7)).astype(dtype)
    convert = reference.LAYOUTS[layout]
    given_x, given_dout = convert(x), convert(dout)
    plain, layer = CASES[case][0](), CASES[case][0]()
    with reference.unchanged(given_x, given_dout):
        y, dx = layer.forward(given_x), layer.backward(given_dout)
    computed_in = reference.float_of(given_x)
    assert y.dtype == dx.dtype == computed_in
    np.testing.assert_array_equal(y, plain.forward(x.astype(computed_in)))
    np.testing.assert_array_equal(dx, plain.backward(dout.astype(computed_in)))
    np.testing.assert_array_equal(layer.infer(given_x), y)


@pytest.mark.parametrize("case", sorted(CASES.keys() - {"Identity"}))
def test_the_inputs_dtype_decides_the_gradients(case, rng, dtype):
    layer = CASES[case][0]()
    x, dout = rng.integers(-3, 4, (2, 9, 7))
    layer.forward(x.astype(dtype))
    expected = layer.backward(dout.astype(dtype))
    for other in ("f4", "f8", "i8"):
        dx = layer.backward(dout.astype(other))
        assert dx.dtype == dtype
        np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("case", CASES)
def test_any_number_of_threads_gives_the_same_bits(case, rng, dtype):
    # More than nine threads' worth of elements, no multiple of a chunk.
    x, dout = rng.standard_normal((2, 150_001)).astype(dtype)
    results = []
    try:
        for threads in (1, 2, 3, 8):
            nnfast.set_num_threads(threads)
            layer = CASES[case][0]()
            results.append(layer.forward(x).tobytes() + layer.backward(dout).tobytes())
    finally:
        nnfast.set_num_threads(None)
    assert len(set(results)) == 1


@pytest.mark.parametrize("case", CASES)
def test_large_values_saturate_without_a_warning(case, dtype):
    layer = CASES[case][0]()
    x = np.array([-1e30, -1000, -100, 0, 100, 1000, 1e30], dtype)
    y = layer.forward(x)
    dx = layer.backward(np.ones_like(x))
    _, forward, backward, _, _ = CASES[case]
    with np.errstate(under="ignore", over="ignore"):
        expected_y, expected_dx = forward(x), backward(x, np.ones(7))
    np.testing.assert_allclose(y, expected_y, rtol=8 * reference.EPSILON[dtype], atol=reference.rounding(dtype, 1, 1))
    np.testing.assert_allclose(dx, expected_dx, rtol=0, atol=reference.rounding(dtype, 4, 1))


@pytest.mark.parametrize("case", CASES)
def test_nan_stays_nan_and_alone(case, dtype):
    x = np.array([1, np.nan, -1], dtype)
    layer = CASES[case][0]()
    np.testing.assert_array_equal(np.isnan(layer.forward(x)), [False, True, False])


@pytest.mark.parametrize("case", sorted(CASES.keys() - {"Identity"}))
def test_infer_leaves_no_trace(case, rng):
    layer = CASES[case][0]()
    x, dout = rng.standard_normal((2, 9))
    layer.forward(x)
    expected = layer.backward(dout)
    np.testing.assert_array_equal(layer.infer(x + 1), CASES[case][0]().forward(x + 1))
    np.testing.assert_array_equal(layer.backward(dout), expected)


# What the book says of its two

def test_relu_keeps_a_mask_that_is_true_at_zero_and_below(dtype):
    relu = Relu()
    assert relu.mask is None
    relu.forward(np.array([[1, -0.5], [0, -0.0]], dtype))
    assert relu.mask.dtype == bool
    np.testing.assert_array_equal(relu.mask, [[False, True], [True, True]])
    np.testing.assert_array_equal(relu.backward(np.ones((2, 2), dtype)), [[1, 0], [0, 0]])


def test_relu_gives_no_negative_zero(dtype):
    assert not np.signbit(Relu().forward(np.array([-0.0, 0.0, -1.0], dtype))).any()


@pytest.mark.parametrize("case", CASES)
def test_backward_does_not_overwrite_its_argument(case, rng, dtype):
    layer = CASES[case][0]()
    x, dout = rng.standard_normal((2, 9, 7)).astype(dtype)
    with reference.unchanged(x, dout):
        layer.forward(x)
        first = layer.backward(dout).copy()
        np.testing.assert_array_equal(layer.backward(dout), first)


def test_sigmoid_keeps_its_output_from_which_alone_the_gradient_follows(rng, dtype):
    sigmoid = Sigmoid()
    assert sigmoid.out is None
    x, dout = rng.standard_normal((2, 9, 7)).astype(dtype)
    y = sigmoid.forward(x)
    np.testing.assert_array_equal(sigmoid.out, y)
    x[...] = 0      # the input is not needed any more
    y = y.astype(np.float64)
    assert_rounded(sigmoid.backward(dout), dout * y * (1 - y), dtype, 4, np.abs(dout).max())


def test_leaky_relu_multiplies_by_its_slope_at_zero_and_below():
    layer = LeakyRelu(slope=0.25)
    np.testing.assert_array_equal(layer.forward([2.0, -2.0, 0.0]), [2, -0.5, 0])
    np.testing.assert_array_equal(layer.backward([1.0, 1.0, 1.0]), [1, 0.25, 0.25])
    np.testing.assert_array_equal(LeakyRelu().forward([-1.0]), [-0.01])
