"""The book's functions on arrays against their formulas in plain NumPy float64."""

import operator

import numpy as np
import pytest
import reference
from reference import assert_rounded

from nnfast.functions import (
    cross_entropy_error,
    identity_function,
    mean_squared_error,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    softmax,
    softmax_loss,
    step_function,
    sum_squared_error,
)
from nnfast.util import shuffle_dataset, smooth_curve

SIZES = [1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 100, 2047, 2048, 2049]

# Formula in float64, and how many rounding errors of the largest value the function may make. exp costs two of its
# own value, a sum, a quotient and a product one each.
ELEMENTWISE = {
    sigmoid: (reference.sigmoid_forward, 4),
    sigmoid_grad: (lambda x: reference.sigmoid_backward(x, 1), 6),
    relu: (lambda x: np.maximum(0, x), 0),
    relu_grad: (lambda x: np.where(x >= 0, 1.0, 0.0), 0),
}
EVERY = [*ELEMENTWISE, softmax]
name = operator.attrgetter("__name__")


@pytest.mark.parametrize("function", ELEMENTWISE, ids=name)
@pytest.mark.parametrize("shape", [(), *[(size,) for size in SIZES], (0,), (9, 7), (3, 2, 5, 4)], ids=str)
def test_elementwise_functions_are_their_formulas(function, shape, rng, dtype):
    formula, operations = ELEMENTWISE[function]
    x = np.asarray(3 * rng.standard_normal(shape), dtype)
    assert_rounded(function(x), formula(x.astype(np.float64)), dtype, operations)


@pytest.mark.parametrize("shape", [(1,), (3,), *[(rows, 10) for rows in SIZES], (9, 1), (5, 17), (2, 3, 4, 5), (0, 3)],
                         ids=str)
def test_softmax_is_its_formula_over_the_last_axis(shape, rng, dtype):
    x = (3 * rng.standard_normal(shape)).astype(dtype)
    # Each of C powers is off by some two errors of itself, their sum by C more; then a quotient.
    assert_rounded(softmax(x), reference.softmax(x) if x.size else x, dtype, shape[-1] + 5)


@pytest.mark.parametrize("function", EVERY, ids=name)
def test_numbers_and_lists_are_computed_in_float64(function):
    for given in ([1, -2, 3], (1.0, -2.0, 3.0), np.array([1, -2, 3], np.int8), np.array([True, False, True])):
        exact = np.asarray(given, np.float64)
        result = function(given)
        np.testing.assert_array_equal(result, function(exact))
        if function not in (relu, relu_grad):   # these keep integers, as in the book
            assert result.dtype == np.float64


@pytest.mark.parametrize("function", ELEMENTWISE, ids=name)
@pytest.mark.parametrize("number", [2, -1.5, np.float32(0.25), np.float64(-3)], ids=repr)
def test_a_number_gives_a_number(function, number):
    result = function(number)
    assert np.ndim(result) == 0
    assert not isinstance(result, np.ndarray)
    assert float(result) == function(np.array([number]))[0]


@pytest.mark.parametrize("layout", reference.LAYOUTS)
@pytest.mark.parametrize("function", EVERY, ids=name)
def test_layouts_give_the_same_values_and_are_not_written(function, layout, rng, dtype):
    x = rng.integers(-3, 4, (9, 7)).astype(dtype)
    given = reference.LAYOUTS[layout](x)
    with reference.unchanged(given):
        result = function(given)
    np.testing.assert_array_equal(result, function(x.astype(reference.float_of(given))))


def test_step_function_is_int_and_1_only_above_zero():
    for given in (np.array([[-1.0, -0.0, 0.0], [1e-300, 2.0, np.inf]]), np.array([[-1, 0, 0], [1, 2, 3]], np.int8)):
        result = step_function(given)
        assert result.dtype == int
        np.testing.assert_array_equal(result, [[0, 0, 0], [1, 1, 1]])
    assert step_function(3.0) == 1


def test_identity_function_returns_its_argument():
    for thing in (np.ones(3), [1, 2], 5.0):
        assert identity_function(thing) is thing


def test_relu_and_its_gradient_keep_integers_and_count_zero_as_the_book_does():
    x = np.array([-2, 0, 3])
    np.testing.assert_array_equal(relu(x), [0, 0, 3])
    np.testing.assert_array_equal(relu_grad(x), [0, 1, 1])
    assert relu(x).dtype == relu_grad(x).dtype == x.dtype
    np.testing.assert_array_equal(relu_grad(np.array([-0.0, 0.0, -1e-300])), [1, 1, 0])


def test_sigmoid_saturates_without_a_warning(dtype):
    x = np.array([-np.inf, -1e30, -800, -88.8, 0, 40, 800, 1e30, np.inf], dtype)
    y = sigmoid(x)
    assert_rounded(y, reference.sigmoid(x), dtype, 4)
    assert y[0] == 0 and y[-1] == 1
    assert ((y >= 0) & (y <= 1)).all()
    assert np.isfinite(sigmoid_grad(x)).all()
    # Small values count too: exp(-40) is far below a rounding error of 1, but known to some of its own.
    np.testing.assert_allclose(sigmoid(x.dtype.type(-40)), np.exp(-40.0), rtol=64 * reference.EPSILON[dtype])


def test_sigmoid_grad_is_the_slope_of_sigmoid(rng):
    x = rng.standard_normal(50)
    h = 1e-5    # truncation h**2 / 6 times a third derivative below 1/8; rounding 2**-53 / h
    slope = (sigmoid(x + h) - sigmoid(x - h)) / (2 * h)
    np.testing.assert_allclose(sigmoid_grad(x), slope, rtol=0, atol=h**2 / 48 + 8 * 2.0**-53 / h)


@pytest.mark.parametrize("constant", [-1000, 1, 4096, 1e6])
def test_a_constant_changes_nothing_in_softmax(constant, dtype, rng):
    scores = rng.integers(-5, 6, (9, 7)).astype(dtype)      # whole numbers: the sum with the constant is exact
    shifted = scores + dtype.type(constant)
    np.testing.assert_array_equal(softmax(shifted), softmax(scores))


def test_softmax_does_not_overflow_and_its_rows_sum_to_1(dtype):
    y = softmax(np.array([[1010, 1000, 990], [-1e30, 0, 1e30], [0, 0, 0]], dtype))
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=0, atol=reference.rounding(dtype, 4, 1))
    np.testing.assert_array_equal(y[1], [0, 0, 1])
    np.testing.assert_allclose(y[2], 1 / 3, rtol=0, atol=reference.rounding(dtype, 1, 1))


@pytest.mark.parametrize("shape", [(1,), (7,), (8, 9), (65, 17), (2, 3, 4), (0,), ()], ids=str)
def test_sum_squared_error_is_half_the_sum_of_squares_and_no_mean(shape, rng, dtype):
    y, t = (np.asarray(rng.standard_normal(shape), dtype) for _ in range(2))
    expected = 0.5 * np.sum((y.astype(np.float64) - t.astype(np.float64)) ** 2)
    # Summed in float64 whatever the dtype.
    assert sum_squared_error(y, t) == pytest.approx(expected, rel=0, abs=reference.rounding("f8", y.size + 3, expected))
    assert isinstance(sum_squared_error(y, t), float)


def test_sum_squared_error_is_also_called_mean_squared_error():
    assert mean_squared_error([1.0, 2.0], [3.0, 5.0]) == sum_squared_error([1.0, 2.0], [3.0, 5.0]) == 6.5


@pytest.mark.parametrize("size", [100_000])
def test_errors_of_many_float32_values_are_summed_in_float64(size):
    y = np.full((size, 2), 0.1, np.float32)
    tenth = float(np.float32(0.1))
    assert sum_squared_error(y, np.zeros_like(y)) == pytest.approx(size * tenth**2, rel=size * 2.0**-53)
    assert cross_entropy_error(y, np.zeros(size, int)) == pytest.approx(-np.log(tenth + 1e-7), rel=size * 2.0**-53)


LABELS = {
    "indices": lambda t: t,
    **{kind: lambda t, kind=kind: t.astype(kind) for kind in ("i1", "u1", "i2", "u2", "i4", "u4", ">i8", "u8", "f2",
                                                              "f4", "f8")},
    "column": lambda t: t.reshape(-1, 1),
    "column of uint8": lambda t: t.astype(np.uint8).reshape(-1, 1),
    "list": lambda t: t.tolist(),
    "strided": lambda t: np.repeat(t, 2)[::2],
    "unaligned": reference.LAYOUTS["unaligned"],
    "read-only": reference.LAYOUTS["read-only"],
    "one-hot": lambda t: np.eye(9)[t],
    "one-hot of float32": lambda t: np.eye(9, dtype=np.float32)[t],
    "one-hot of uint8": lambda t: np.eye(9, dtype=np.uint8)[t],
    "one-hot of bool": lambda t: np.eye(9, dtype=bool)[t],
    "one-hot, Fortran": lambda t: np.asfortranarray(np.eye(9)[t]),
    "one-hot list": lambda t: np.eye(9, dtype=int)[t].tolist(),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("rows", [1, 8, 9, 65])    # 9 rows of 9 classes: labels are not taken for one-hot rows
def test_cross_entropy_error_takes_labels_of_every_kind(kind, rows, rng, dtype):
    y = rng.dirichlet(np.ones(9), rows).astype(dtype)
    labels = rng.integers(0, 9, rows)
    given = LABELS[kind](labels)
    losses = reference.cross_entropy(y, labels)
    with reference.unchanged(given, y):
        loss = cross_entropy_error(y, given)
    assert isinstance(loss, float)
    assert loss == pytest.approx(losses.mean(), rel=0, abs=reference.rounding("f8", rows + 4, losses.max()))


@pytest.mark.parametrize("t", [1, np.int8(1), [1], np.array([[1]]), 1.0, [0, 1, 0], np.array([False, True, False])],
                         ids=repr)
def test_one_example_may_be_1_d(t):
    y = np.array([0.3, 0.2, 0.5])
    assert cross_entropy_error(y, t) == pytest.approx(-np.log(0.2 + 1e-7), rel=4 * 2.0**-53)
    scores = np.log(y)
    assert softmax_loss(scores, t) == pytest.approx(-np.log(0.2 + 1e-7), rel=16 * 2.0**-53)


def test_as_many_labels_as_outputs_are_not_taken_for_one_hot_rows():
    y = np.full((4, 1), 0.5)    # one class: as many values in y as in t
    assert cross_entropy_error(y, np.zeros(4, int)) == pytest.approx(-np.log(0.5 + 1e-7), rel=2.0**-50)


def test_cross_entropy_error_of_an_impossible_class_is_finite(dtype):
    y = np.array([[1, 0]], dtype)
    assert cross_entropy_error(y, [1]) == pytest.approx(-np.log(1e-7), rel=2.0**-50)
    assert cross_entropy_error(y, [0]) == pytest.approx(-np.log(1 + 1e-7), rel=1e-8)    # 1 + 1e-7 is rounded


def test_the_mean_over_a_mini_batch_of_100_from_60000_is_the_mean_of_its_examples(rng):
    x_train, t_train = rng.standard_normal((60_000, 10)), rng.integers(0, 10, 60_000)
    batch = rng.choice(60_000, 100)
    y, t = softmax(x_train[batch]), t_train[batch]
    one_by_one = [cross_entropy_error(row, label) for row, label in zip(y, t, strict=True)]
    assert cross_entropy_error(y, t) == pytest.approx(np.mean(one_by_one), rel=200 * 2.0**-53)


@pytest.mark.parametrize("shape", [(3,), (9, 7), (100, 10)], ids=str)
def test_softmax_loss_is_cross_entropy_of_softmax(shape, rng, dtype):
    x = (3 * rng.standard_normal(shape)).astype(dtype)
    t = rng.integers(0, shape[-1], shape[:-1])
    losses = reference.softmax_cross_entropy(np.atleast_2d(x), np.atleast_1d(t))
    # A relative error of y is an absolute one of its logarithm.
    tolerance = reference.rounding(dtype, shape[-1] + 5, 1) + reference.rounding("f8", 100, losses.max())
    assert softmax_loss(x, t) == pytest.approx(losses.mean(), rel=0, abs=tolerance)


# The helpers of the book's scripts

@pytest.mark.parametrize("size", [11, 12, 50])
def test_smooth_curve_is_a_kaiser_window_over_11_points_with_mirrored_ends(size, rng):
    x = rng.standard_normal(size)
    weights = np.kaiser(11, 2) / np.kaiser(11, 2).sum()
    with reference.unchanged(x):
        smooth = smooth_curve(x)
    assert smooth.shape == (size,)
    for place, value in enumerate(smooth):
        around = np.arange(place - 5, place + 6)
        # Before the first value the second comes again, after the last one the last: the book's two mirrors differ.
        around = np.where(around < 0, -around, np.where(around >= size, 2 * size - 1 - around, around))
        np.testing.assert_allclose(value, weights @ x[around], rtol=0, atol=reference.rounding("f8", 11, 4))


def test_shuffle_dataset_reorders_copies_by_one_permutation_of_the_global_generator(rng):
    x, t = rng.standard_normal((20, 2, 3)), np.arange(20)
    np.random.seed(5)
    order = np.random.permutation(20)
    np.random.seed(5)
    with reference.unchanged(x, t):
        shuffled_x, shuffled_t = shuffle_dataset(x, t)
    np.testing.assert_array_equal(shuffled_x, x[order])
    np.testing.assert_array_equal(shuffled_t, order)
