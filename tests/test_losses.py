"""Output layers against their formulas in plain NumPy float64, forward and backward."""

import numpy as np
import pytest
import reference
from reference import assert_rounded

import nnfast
from nnfast import (
    AbsoluteError,
    HuberLoss,
    IdentityWithLoss,
    PoissonLoss,
    QuantileLoss,
    SigmoidWithLoss,
    SoftmaxWithLoss,
)

ROWS = [1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 100]


def identity(x):
    return np.asarray(x, np.float64)


def difference(y, t):
    return reference.difference_backward(y, t, len(y))


def of_residuals(losses, slopes, *settings):
    """The case of a loss of the residuals of real targets."""
    return (identity, lambda x, t: losses(x, t, *settings), lambda x, t: slopes(x, t, *settings) / len(x),
            lambda rng, rows, outputs: rng.integers(-3, 4, (rows, outputs)))


# Layer: output function, each row's loss, gradient, random targets; all from scores
CASES = {
    SoftmaxWithLoss: (
        reference.softmax, reference.softmax_cross_entropy, reference.softmax_cross_entropy_backward,
        lambda rng, rows, outputs: rng.integers(0, outputs, rows)),
    SigmoidWithLoss: (
        reference.sigmoid, reference.sigmoid_cross_entropy, lambda x, t: difference(reference.sigmoid(x), t),
        lambda rng, rows, outputs: rng.integers(0, 2, (rows, outputs))),
    IdentityWithLoss: (
        identity, reference.squared_error, difference,
        lambda rng, rows, outputs: rng.integers(-3, 4, (rows, outputs))),
    AbsoluteError: of_residuals(reference.absolute_error, reference.absolute_error_slope),
    HuberLoss: of_residuals(reference.huber_loss, reference.huber_loss_slope, 1.0),
    QuantileLoss: of_residuals(reference.quantile_loss, reference.quantile_loss_slope, 0.5),
    PoissonLoss: (
        lambda x: np.exp(identity(x)), reference.poisson_loss, lambda x, t: difference(np.exp(identity(x)), t),
        lambda rng, rows, outputs: rng.integers(0, 4, (rows, outputs))),
}


@pytest.fixture(params=CASES, ids=lambda layer: layer.__name__)
def layer(request):
    return request.param


@pytest.mark.parametrize("shape", [*[(rows, 10) for rows in ROWS], (9, 1), (9, 2), (9, 17), (9, 65)], ids=str)
def test_loss_output_and_gradient_are_the_formulas(layer, shape, rng, dtype):
    output_of, losses_of, gradient_of, targets = CASES[layer]
    x, t = (3 * rng.standard_normal(shape)).astype(dtype), targets(rng, *shape)
    output = layer()
    loss, y, losses = output.forward(x, t), output_of(x), losses_of(x, t)
    assert isinstance(loss, float)
    assert output.loss == loss
    assert output.t is t
    operations = shape[1] + 5   # each power is off by some two errors of itself, their sum by as many more as it has
    assert_rounded(output.y, y, dtype, operations, max(1, np.abs(y).max()))
    # From softmax the loss has y's error, a relative one; the others sum the scores in float64.
    tolerance = reference.rounding(dtype, operations, 1) if layer is SoftmaxWithLoss else 0
    # Of Poisson's the terms t log(y / t) and y are larger than what is left of them.
    largest = (reference.size_of_poisson_loss(x, t) if layer is PoissonLoss else losses).max()
    tolerance += reference.rounding("f8", shape[0] + shape[1] + 5, largest)
    assert loss == pytest.approx(losses.mean(), rel=0, abs=tolerance)
    largest = max(1, np.abs(x).max() + np.abs(t).max(), np.abs(y).max()) / shape[0]
    assert_rounded(output.backward(), gradient_of(x, t), dtype, operations, largest)


@pytest.mark.parametrize("rows", [1, 6])
def test_backward_agrees_with_central_differences(layer, rows, rng):
    x, t = rng.standard_normal((rows, 5)), CASES[layer][3](rng, rows, 5)
    output = layer()
    output.forward(x, t)
    gradient, least = output.backward(), output.y.min()
    h = 1e-5
    numerical = reference.central_difference(lambda x: layer().forward(x, t), x, h)
    # Truncation h**2, rounding of a loss over h, and the 1e-7 in softmax's logarithm, which the gradient leaves out.
    tolerance = h**2 + reference.rounding("f8", 20, output.loss) / h
    tolerance += 1e-7 / least if layer is SoftmaxWithLoss else 0
    np.testing.assert_allclose(gradient, numerical, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dout", [1, 2.0, -0.5, np.float32(4), 0])
def test_backward_is_multiplied_by_dout(layer, dout, rng, dtype):
    x, t = rng.standard_normal((9, 4)).astype(dtype), CASES[layer][3](rng, 9, 4)
    output = layer()
    output.forward(x, t)
    np.testing.assert_array_equal(output.backward(dout), output.backward() * dtype.type(dout))


@pytest.mark.parametrize("layout", reference.LAYOUTS)
def test_layouts_give_the_same_values_and_are_not_written(layer, layout, rng, dtype):
    x, t = rng.integers(-3, 4, (9, 7)).astype(dtype), CASES[layer][3](rng, 9, 7).astype(dtype)
    given_x, given_t = (reference.LAYOUTS[layout](array) for array in (x, t))
    plain, output = layer(), layer()
    with reference.unchanged(given_x, given_t):
        loss, gradient = output.forward(given_x, given_t), output.backward()
    computed_in = reference.float_of(given_x)
    assert loss == plain.forward(x.astype(computed_in), t)
    assert output.y.dtype == gradient.dtype == computed_in
    np.testing.assert_array_equal(output.y, plain.y)
    np.testing.assert_array_equal(gradient, plain.backward())


def test_any_number_of_threads_gives_the_same_bits(layer, rng, dtype):
    x, t = rng.standard_normal((15_001, 10)).astype(dtype), CASES[layer][3](rng, 15_001, 10)
    results = []
    try:
        for threads in (1, 2, 3, 8):
            nnfast.set_num_threads(threads)
            output = layer()
            results.append((output.forward(x, t), output.y.tobytes(), output.backward().tobytes()))
    finally:
        nnfast.set_num_threads(None)
    assert len(set(results)) == 1


def test_before_the_first_pass_nothing_is_kept(layer):
    output = layer()
    assert output.y is output.t is output.loss is None
    with pytest.raises(RuntimeError, match="needs a call of forward first"):
        output.backward()


def test_many_rows_are_summed_in_float64(layer):
    rows = 50_000
    losses = {SoftmaxWithLoss: -np.log(0.5 + 1e-7), SigmoidWithLoss: 2 * np.log(2), IdentityWithLoss: 1, AbsoluteError: 2,
              HuberLoss: 1, QuantileLoss: 1, PoissonLoss: 0}
    t = np.zeros(rows, int) if layer is SoftmaxWithLoss else np.ones((rows, 2), int)
    loss = layer().forward(np.zeros((rows, 2), np.float32), t)
    assert loss == pytest.approx(losses[layer], rel=rows * 2.0**-53)


# Softmax-with-Loss

LABELS = {
    **{kind: lambda t, kind=kind: t.astype(kind) for kind in ("i1", "u1", "i2", "u2", "i4", "u4", ">i8", "u8", "f4",
                                                              "f8")},
    "column": lambda t: t.reshape(-1, 1),
    "list": lambda t: t.tolist(),
    "unaligned": reference.LAYOUTS["unaligned"],
    "one-hot": lambda t: np.eye(9)[t],
    "one-hot of float32": lambda t: np.eye(9, dtype=np.float32)[t],
    "one-hot of uint8, Fortran": lambda t: np.asfortranarray(np.eye(9, dtype=np.uint8)[t]),
    "one-hot of bool": lambda t: np.eye(9, dtype=bool)[t],
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("rows", [1, 8, 9, 65])     # 9 rows of 9 classes: labels are not taken for one-hot rows
def test_labels_of_every_kind_mean_the_same(kind, rows, rng, dtype):
    x, labels = rng.standard_normal((rows, 9)).astype(dtype), rng.integers(0, 9, rows)
    given = LABELS[kind](labels)
    plain, output = SoftmaxWithLoss(), SoftmaxWithLoss()
    with reference.unchanged(given):
        assert output.forward(x, given) == plain.forward(x, labels)
    np.testing.assert_array_equal(output.backward(), plain.backward())


@pytest.mark.parametrize("t", [1, [1], [0, 1, 0], np.array([0.0, 1.0, 0.0]), np.array([[0, 1, 0]])], ids=repr)
@pytest.mark.parametrize("axes", [1, 2])
def test_softmax_with_loss_of_the_notes_example(axes, t):
    x = np.log([0.3, 0.2, 0.5])     # scores whose softmax is (0.3, 0.2, 0.5)
    output = SoftmaxWithLoss()
    if axes == 2:
        x, t = x[np.newaxis], np.reshape(t, (1, -1))
    loss = output.forward(x, t)
    assert loss == pytest.approx(-np.log(0.2 + 1e-7), rel=16 * 2.0**-53)
    np.testing.assert_allclose(output.y, [[0.3, 0.2, 0.5]], rtol=0, atol=reference.rounding("f8", 8, 1))
    np.testing.assert_allclose(output.backward(), [[0.3, -0.8, 0.5]], rtol=0, atol=reference.rounding("f8", 8, 1))


def test_a_constant_changes_nothing_in_the_loss(rng, dtype):
    x, t = rng.integers(-5, 6, (9, 7)).astype(dtype), rng.integers(0, 7, 9)
    assert SoftmaxWithLoss().forward(x + dtype.type(4096), t) == SoftmaxWithLoss().forward(x, t)


def test_large_scores_give_finite_losses_and_gradients(layer, dtype):
    x = np.array([[1e4, -1e4], [1e4, -1e4]], dtype)
    t = {SoftmaxWithLoss: [0, 1]}.get(layer, [[1, 0], [0, 1]])
    output = layer()
    expected = {
        SoftmaxWithLoss: (-np.log(1e-7) - np.log1p(1e-7)) / 2,    # the book's 1e-7 limits the loss of a row
        SigmoidWithLoss: (0 + 2e4) / 2,
        IdentityWithLoss: ((1e4 - 1) ** 2 / 2 + 1e8 / 2 + 1e8 / 2 + (1e4 + 1) ** 2 / 2) / 2,
        AbsoluteError: 2e4,
        HuberLoss: 2e4 - 1,
        QuantileLoss: 1e4,
        PoissonLoss: np.inf,    # exp(1e4)
    }
    assert output.forward(x, t) == pytest.approx(expected[layer], rel=1e-15, abs=1e-15)
    assert np.isfinite(output.backward()).all() == (layer is not PoissonLoss)


def test_identity_with_loss_is_sum_squared_error_over_the_batch(rng):
    x, t = rng.standard_normal((2, 9, 4))
    assert IdentityWithLoss().forward(x, t) == pytest.approx(0.5 * np.sum((x - t) ** 2) / 9, rel=50 * 2.0**-53)


@pytest.mark.parametrize("layer", [layer for layer in CASES if layer is not SoftmaxWithLoss])
def test_one_output_takes_targets_of_one_axis(layer, rng):
    x, t = rng.standard_normal((9, 1)), rng.integers(0, 2, 9)
    column, row = layer(), layer()
    assert row.forward(x, t) == column.forward(x, t.reshape(9, 1))
    np.testing.assert_array_equal(row.backward(), column.backward())


def test_soft_targets_of_sigmoid_with_loss_count_by_their_share(rng, dtype):
    x, t = rng.standard_normal((9, 4)).astype(dtype), (rng.integers(0, 5, (9, 4)) / 4).astype(dtype)
    output = SigmoidWithLoss()
    losses = reference.sigmoid_cross_entropy(x, t)
    assert output.forward(x, t) == pytest.approx(losses.mean(), rel=40 * 2.0**-53)
    assert_rounded(output.backward(), difference(reference.sigmoid(x), t), dtype, 6, 1 / 9)
