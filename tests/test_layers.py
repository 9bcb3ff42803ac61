"""Affine, Dropout and BatchNormalization against their formulas in plain NumPy float64, forward and backward."""

import numpy as np
import pytest
import reference
from reference import assert_rounded

import nnfast
from nnfast import Affine, BatchNormalization, Dropout

ROWS = [1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 100]
EPSILON = 1e-6      # the book writes 10e-7


def numbers(rng, shape, dtype):
    """Whole numbers from -3 to 3: exact in every dtype, and so are their products and sums."""
    return rng.integers(-3, 4, shape).astype(dtype)


# Layers with two parameters, which decide the dtype: by the number of inputs
LAYERS = {
    "Affine": lambda rng, inputs, dtype: Affine(numbers(rng, (inputs, 5), dtype), numbers(rng, 5, dtype)),
    "BatchNormalization": lambda rng, inputs, dtype: BatchNormalization(*numbers(rng, (2, inputs), dtype)),
}


@pytest.fixture(params=LAYERS)
def make(request):
    return LAYERS[request.param]


# The layers' common promises

def passes(layer, x, dout):
    y, dx = layer.forward(x), layer.backward(dout)
    return y, dx, *layer.grads.values()


@pytest.mark.parametrize("layout", reference.LAYOUTS)
def test_layouts_give_the_same_values_and_are_not_written(make, layout, dtype):
    rng = np.random.default_rng(0)
    layer, plain = (make(np.random.default_rng(1), 7, dtype) for _ in range(2))
    x = numbers(rng, (9, 7), dtype)
    dout = numbers(rng, plain.infer(x).shape, dtype)
    given_x, given_dout = (reference.LAYOUTS[layout](array) for array in (x, dout))
    with reference.unchanged(given_x, given_dout):
        results = *passes(layer, given_x, given_dout), layer.infer(given_x)
    for result, expected in zip(results, (*passes(plain, x, dout), plain.infer(x)), strict=True):
        assert result.dtype == dtype    # the parameters'
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("layout", reference.SAME_DTYPE_LAYOUTS)
def test_parameters_of_every_layout_are_used_and_shared(make, layout, dtype):
    rng = np.random.default_rng(0)
    plain = make(rng, 7, dtype)
    arrays = [reference.SAME_DTYPE_LAYOUTS[layout](array) for array in plain.params.values()]
    layer = type(plain)(*arrays)
    assert all(held is given for held, given in zip(layer.params.values(), arrays, strict=True))
    x = numbers(rng, (9, 7), dtype)
    dout = numbers(rng, plain.infer(x).shape, dtype)
    with reference.unchanged(*arrays):
        results = passes(layer, x, dout)
    for result, expected in zip(results, passes(plain, x, dout), strict=True):
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, expected)


def test_parameters_changed_in_place_are_seen_by_the_next_call(make, rng, dtype):
    layer = make(rng, 7, dtype)
    x = numbers(rng, (9, 7), dtype)
    layer.forward(x)
    for array in layer.params.values():
        array *= 2
        array += 1
    dout = numbers(rng, layer.infer(x).shape, dtype)
    fresh = type(layer)(*(array.copy() for array in layer.params.values()))
    for result, expected in zip(passes(layer, x, dout), passes(fresh, x, dout), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_backward_agrees_with_central_differences(make, rng):
    layer = make(rng, 4, np.float64)
    x, h = rng.standard_normal((6, 4)), 1e-5
    dout = rng.standard_normal(layer.infer(x).shape)
    _, dx, *gradients = passes(layer, x, dout)
    for array, gradient in zip([x, *layer.params.values()], [dx, *gradients], strict=True):
        numerical = reference.central_difference(lambda _: (layer.forward(x) * dout).sum(), array, h)
        # Truncation: h**2 times third derivatives, of some tens in BatchNormalization; rounding of the sum, over h.
        np.testing.assert_allclose(gradient, numerical, rtol=0, atol=100 * h**2 + reference.rounding("f8", 40, 50) / h)


def test_any_number_of_threads_gives_the_same_bits(make, rng, dtype):
    x = rng.standard_normal((2001, 130)).astype(dtype)
    dout, results = None, []
    try:
        for threads in (1, 2, 3, 8):
            nnfast.set_num_threads(threads)
            layer = make(np.random.default_rng(0), 130, dtype)
            if dout is None:
                dout = rng.standard_normal(layer.infer(x).shape).astype(dtype)
            results.append([array.tobytes() for array in (*passes(layer, x, dout), layer.infer(x))])
    finally:
        nnfast.set_num_threads(None)
    assert all(result == results[0] for result in results)


def test_four_axes_are_flattened_and_the_gradient_has_the_inputs_shape(make, rng, dtype):
    layer, flat = (make(np.random.default_rng(0), 2 * 3 * 4, dtype) for _ in range(2))
    x = numbers(rng, (9, 2, 3, 4), dtype)
    y, expected = layer.forward(x), flat.forward(x.reshape(9, 24))
    np.testing.assert_array_equal(y.reshape(expected.shape), expected)
    dout = numbers(rng, y.shape, dtype)
    dx = layer.backward(dout)
    assert dx.shape == x.shape
    np.testing.assert_array_equal(dx.reshape(9, 24), flat.backward(dout.reshape(expected.shape)))
    for gradient, its in zip(layer.grads.values(), flat.grads.values(), strict=True):
        np.testing.assert_array_equal(gradient, its)
    # A transposed view in four axes is no different.
    np.testing.assert_array_equal(layer.forward(np.asfortranarray(x)), y)


# Affine

@pytest.mark.parametrize("inputs, outputs", [(1, 1), (3, 2), (17, 9), (64, 10), (50, 33)])
@pytest.mark.parametrize("rows", ROWS)
def test_affine_is_its_formula(rows, inputs, outputs, rng, dtype):
    x, W, b, dout = (rng.standard_normal(shape).astype(dtype)
                     for shape in [(rows, inputs), (inputs, outputs), outputs, (rows, outputs)])
    affine = Affine(W, b)
    with reference.unchanged(x, W, b, dout):
        y, dx = affine.forward(x), affine.backward(dout)
    # A sum of n products makes 2 n roundings of partial sums no larger than that of the absolute values.
    absolute = [np.abs(array) for array in (x, W, b, dout)]
    largest = (absolute[0] @ absolute[1] + absolute[2]).max()
    assert_rounded(y, reference.affine_forward(x, W, b), dtype, inputs + 1, largest)
    largest = (absolute[3] @ absolute[1].T).max()
    assert_rounded(dx, reference.affine_backward_input(dout, W), dtype, outputs, largest)
    dW, db = reference.affine_backward_parameters(x, dout)
    assert_rounded(affine.dW, dW, dtype, rows, (absolute[0].T @ absolute[3]).max())
    assert_rounded(affine.db, db, dtype, rows, absolute[3].sum(axis=0).max())


@pytest.mark.parametrize("rows", ROWS)
def test_affine_of_whole_numbers_is_exact(rows, rng, dtype):
    x, W, b, dout = (numbers(rng, shape, dtype) for shape in [(rows, 50), (50, 33), 33, (rows, 33)])
    affine = Affine(W, b)
    np.testing.assert_array_equal(affine.forward(x), x @ W + b)
    np.testing.assert_array_equal(affine.backward(dout), dout @ W.T)
    np.testing.assert_array_equal(affine.dW, x.T @ dout)
    np.testing.assert_array_equal(affine.db, dout.sum(axis=0))


def test_affine_keeps_what_the_book_keeps(rng, dtype):
    W, b = numbers(rng, (24, 3), dtype), numbers(rng, 3, dtype)
    affine = Affine(W, b)
    assert affine.W is W and affine.b is b
    assert affine.x is affine.original_x_shape is affine.dW is affine.db is None
    x = numbers(rng, (5, 2, 3, 4), dtype)
    affine.forward(x)
    assert affine.original_x_shape == (5, 2, 3, 4)
    np.testing.assert_array_equal(affine.x, x.reshape(5, 24))
    affine.backward(np.ones((5, 3), dtype))
    assert affine.params == {"W": W, "b": b} and affine.grads == {"W": affine.dW, "b": affine.db}


def test_batches_of_changing_size_and_dtype_do_not_disturb_one_another(rng):
    W, b = numbers(rng, (7, 5), np.float32), numbers(rng, 5, np.float32)
    affine = Affine(W, b)
    for rows, given in [(9, "f8"), (9, "f8"), (4, "f8"), (9, "i4"), (9, "f4"), (1, "f8"), (9, ">f4")]:
        x, dout = numbers(rng, (rows, 7), given), numbers(rng, (rows, 5), given)
        np.testing.assert_array_equal(affine.forward(x), x @ W + b)
        affine.infer(numbers(rng, (rows, 7), given))    # leaves no trace
        np.testing.assert_array_equal(affine.backward(dout), dout @ W.T)
        np.testing.assert_array_equal(affine.dW, x.T @ dout)


# Dropout

@pytest.mark.parametrize("shape", [(1,), (9, 7), (2, 3, 4, 5), (), (0, 3)], ids=str)
@pytest.mark.parametrize("ratio", [0, 0.25, 0.5, 1])
def test_dropout_multiplies_by_the_mask_of_the_global_generator(shape, ratio, rng, dtype):
    x, dout = (np.asarray(rng.standard_normal(shape), dtype) for _ in range(2))
    np.random.seed(7)
    mask = np.random.rand(*shape) > ratio
    dropout = Dropout(ratio)
    assert dropout.mask is None
    np.random.seed(7)
    with reference.unchanged(x, dout):
        y, dx = dropout.forward(x), dropout.backward(dout)
    np.testing.assert_array_equal(dropout.mask, mask)
    for result, given in ((y, x), (dx, dout)):
        assert result.dtype == dtype and result.shape == shape
        np.testing.assert_array_equal(result, given * mask)     # not divided by 1 - ratio


@pytest.mark.parametrize("ratio", [0, 0.25, 0.5, 1])
def test_dropout_scales_when_it_does_not_train_and_draws_nothing(ratio, rng, dtype):
    x, dropout = rng.standard_normal((9, 7)).astype(dtype), Dropout(ratio)
    np.random.seed(7)
    expected = np.random.rand()
    np.random.seed(7)
    with reference.unchanged(x):
        y = dropout.forward(x, train_flg=False)
    np.testing.assert_array_equal(y, x * dtype.type(1 - ratio))
    np.testing.assert_array_equal(dropout.infer(x), y)
    assert y.dtype == dtype
    assert dropout.mask is None
    assert np.random.rand() == expected


def test_dropout_drops_half_by_default_and_the_asked_share_else():
    np.random.seed(7)
    x = np.ones(100_000)
    for dropout, ratio in [(Dropout(), 0.5), (Dropout(0.15), 0.15), (Dropout(dropout_ratio=0.9), 0.9)]:
        # Five standard deviations of a share among 100,000.
        assert abs(np.mean(dropout.forward(x, True) == 0) - ratio) < 5 * np.sqrt(ratio * (1 - ratio) / x.size)


@pytest.mark.parametrize("layout", reference.LAYOUTS)
def test_dropout_takes_every_layout(layout, rng, dtype):
    x, dout = rng.integers(1, 9, (2, 9, 7)).astype(dtype)
    dropout = Dropout(0.5)
    given_x, given_dout = (reference.LAYOUTS[layout](array) for array in (x, dout))
    with reference.unchanged(given_x, given_dout):
        y, dx, scaled = dropout.forward(given_x), dropout.backward(given_dout), dropout.forward(given_x, False)
    assert y.dtype == dx.dtype == scaled.dtype == reference.float_of(given_x)
    np.testing.assert_array_equal(y, x * dropout.mask)
    np.testing.assert_array_equal(dx, dout * dropout.mask)
    np.testing.assert_array_equal(scaled, x / 2)


# BatchNormalization

@pytest.mark.parametrize("columns", [1, 3, 15, 16, 17, 33])
@pytest.mark.parametrize("rows", ROWS[1:])
def test_batch_normalization_in_training_is_its_formula(rows, columns, rng, dtype):
    x, dout = rng.standard_normal((2, rows, columns)).astype(dtype)
    gamma, beta = rng.standard_normal((2, columns)).astype(dtype)
    layer = BatchNormalization(gamma, beta)
    with reference.unchanged(x, dout, gamma, beta):
        y, dx = layer.forward(x), layer.backward(dout)
    expected_y, xn, mean, variance, std = reference.batch_normalization_forward(x, gamma, beta, EPSILON)
    # Sums run in float64. mean, std, difference, quotient, product and sum are rounded once each, in units of
    # (|x| + |mean|) / std.
    spread = ((np.abs(x).max(axis=0) + np.abs(mean)) / std).max()
    assert_rounded(y, expected_y, dtype, 8, spread * np.abs(gamma).max() + np.abs(beta).max())
    expected_dx, dgamma, dbeta = reference.batch_normalization_backward(x, gamma, dout, EPSILON)
    slope = np.abs(gamma / std).max()
    assert_rounded(dx, expected_dx, dtype, 16, slope * np.abs(dout).max() * (1 + spread * np.abs(xn).max()))
    assert_rounded(layer.dgamma, dgamma, dtype, 8, rows * np.abs(dout).max() * spread)
    assert_rounded(layer.dbeta, dbeta, dtype, 2, rows * np.abs(dout).max())
    assert_rounded(layer.running_mean, 0.1 * mean, dtype, 4, np.abs(x).max())
    assert_rounded(layer.running_var, 0.1 * variance, dtype, 4, np.abs(x).max() ** 2)


@pytest.mark.parametrize("momentum", [0, 0.25, 0.9, 1])
def test_momentum_is_the_weight_of_the_old_running_value(momentum, rng, dtype):
    gamma, beta, mean, variance = np.array([[2, 3], [1, -1], [4, 8], [1, 2]], dtype)
    layer = BatchNormalization(gamma, beta, momentum, running_mean=mean, running_var=variance)
    expected_mean, expected_variance = mean.astype(np.float64), variance.astype(np.float64)
    with reference.unchanged(mean, variance):
        for _ in range(5):
            x = rng.standard_normal((9, 2)).astype(dtype)
            layer.forward(x, True)
            _, _, batch_mean, batch_variance, _ = reference.batch_normalization_forward(x, gamma, beta, EPSILON)
            expected_mean = momentum * expected_mean + (1 - momentum) * batch_mean
            expected_variance = momentum * expected_variance + (1 - momentum) * batch_variance
    assert_rounded(layer.running_mean, expected_mean, dtype, 20, 8)
    assert_rounded(layer.running_var, expected_variance, dtype, 20, 8)
    assert BatchNormalization(gamma, beta).momentum == 0.9


@pytest.mark.parametrize("rows", [0, *ROWS])
def test_batch_normalization_at_inference_uses_the_running_values_and_keeps_them(rows, rng, dtype):
    gamma, beta, mean = rng.standard_normal((3, 17)).astype(dtype)
    variance = rng.random(17).astype(dtype) + dtype.type(0.1)
    layer = BatchNormalization(gamma, beta, running_mean=mean, running_var=variance)
    x = rng.standard_normal((rows, 17)).astype(dtype)
    with reference.unchanged(x, layer.running_mean, layer.running_var):
        y = layer.forward(x, train_flg=False)
    expected = reference.batch_normalization_predict(x, gamma, beta, mean, variance, EPSILON)
    assert_rounded(y, expected, dtype, 6, 8 * 8 / np.sqrt(0.1))
    np.testing.assert_array_equal(layer.infer(x), y)


def test_running_values_of_another_dtype_do_not_change_the_outputs_dtype(rng, dtype):
    x = rng.standard_normal((9, 7)).astype(dtype)
    for other in (np.float32, np.float64):
        layer = BatchNormalization(*np.ones((2, 7), dtype), running_mean=np.zeros(7, other),
                                   running_var=np.ones(7, other))
        assert layer.forward(x).dtype == layer.backward(x).dtype == layer.infer(x).dtype == dtype


def test_untrained_batch_normalization_infers_from_zeros_as_the_book_does():
    layer = BatchNormalization(np.array([2.0]), np.array([0.5]))
    y = layer.forward(np.array([[3e-3]]), train_flg=False)
    np.testing.assert_allclose(y, [[2 * 3e-3 / 1e-3 + 0.5]], rtol=8 * 2.0**-53)     # the root of 1e-6 is 1e-3


def test_epsilon_is_a_millionth_and_added_inside_the_root(dtype):
    x = np.array([[1e-3], [-1e-3]], dtype)      # its variance is 1e-6 too: the root is of 2e-6
    layer = BatchNormalization(np.ones(1, dtype), np.zeros(1, dtype))
    assert_rounded(layer.forward(x), [[0.5**0.5], [-(0.5**0.5)]], dtype, 6, 1)
    layer = BatchNormalization(np.ones(1, dtype), np.zeros(1, dtype), running_var=np.array([1e-6], dtype))
    assert_rounded(layer.forward(x, train_flg=False), [[0.5**0.5], [-(0.5**0.5)]], dtype, 6, 1)


@pytest.mark.parametrize("rows", [1, 2, 65])
def test_a_constant_column_is_normalised_to_beta_with_no_gradient(rows, dtype):
    layer = BatchNormalization(np.array([3], dtype), np.array([0.25], dtype))
    np.testing.assert_array_equal(layer.forward(np.full((rows, 1), 7, dtype)), np.full((rows, 1), 0.25))
    np.testing.assert_array_equal(layer.backward(np.full((rows, 1), 2, dtype)), np.zeros((rows, 1)))
    assert layer.dgamma == 0 and layer.dbeta == 2 * rows
    np.testing.assert_array_equal(layer.running_var, [0])


def test_a_large_mean_does_not_spoil_the_variance():
    x = 1e8 + np.array([[0.0], [1.0], [2.0]])   # the mean of squares less the square of the mean would be lost
    layer = BatchNormalization(np.ones(1), np.zeros(1), momentum=0)
    layer.forward(x)
    np.testing.assert_allclose(layer.running_var, [2 / 3], rtol=1e-15)
