"""Kernels that look through a user's input, count, or call back: the first offender is found wherever it stands."""

from collections import Counter

import numpy as np
import pytest
import reference
from reference import assert_close, rounding, unwritten

SPECIAL = [np.nan, np.inf, -np.inf]


def places(size):
    """First, last, and both sides of every chunk of 2048."""
    return sorted({place for place in (0, 1, 2047, 2048, 2049, size // 2, size - 2, size - 1) if 0 <= place < size})


@pytest.mark.parametrize("size", [1, 7, 64, 2047, 2048, 2049, 5000])
def test_the_first_value_that_is_not_finite_is_found(kernels, dtype, size):
    limits = np.finfo(dtype)
    x = np.resize(np.array([limits.max, -limits.max, limits.smallest_subnormal, -0.0, 1], dtype), size)
    assert kernels.first_not_finite(x) == -1
    for place in places(size):
        for value in SPECIAL:
            bad = x.copy()
            bad[place] = value
            bad[place + 1 :: 3] = np.nan
            assert kernels.first_not_finite(reference.embedded(bad, place % 4, np.nan)[0]) == place
    assert kernels.first_not_finite(reference.embedded(x, 1, np.nan)[0]) == -1
    assert kernels.first_not_finite(x[:0]) == -1


@pytest.mark.parametrize("size", [1, 7, 64, 2049])
def test_the_first_label_outside_the_classes_is_found(build, rng, size):
    labels = rng.integers(0, 10, size)
    labels[size // 2] = 9
    assert build.first_outside(reference.embedded(labels, 1, reference.POISON)[0], 10) == -1
    assert build.first_outside(labels[:0], 10) == -1
    for place in places(size):
        for value in (-1, 10, np.iinfo(np.int64).min, np.iinfo(np.int64).max, 2**32):
            bad = labels.copy()
            bad[place] = value
            bad[place + 1 :: 3] = -7
            assert build.first_outside(bad, 10) == place


@pytest.mark.parametrize("shape", [(1, 1), (7, 2), (65, 10), (3, 2049)])
def test_one_hot_rows_become_labels_and_the_first_other_row_is_found(kernels, dtype, rng, shape):
    rows, classes = shape
    labels = rng.integers(0, classes, rows)
    labels[0], labels[-1] = 0, classes - 1
    t = reference.one_hot(labels, classes).astype(dtype)
    t[t == 0] = -0.0
    first, outputs = reference.call(kernels.one_hot_to_labels, {"t": t}, {"labels": unwritten(rows, np.int64)}, {})
    assert first == -1 and np.array_equal(outputs["labels"], labels)
    for row in {0, rows // 2, rows - 1}:
        for value in (0, 0.5, 2, -1, 1 - 2**-20, *SPECIAL):
            bad = t.copy()
            bad[row, labels[row]] = value
            bad[row + 1 :] = 7
            assert kernels.one_hot_to_labels(bad, np.empty(rows, np.int64)) == row
        if classes > 1:
            bad = t.copy()
            bad[row, [0, classes - 1]] = 1
            assert kernels.one_hot_to_labels(bad, np.empty(rows, np.int64)) == row


@pytest.mark.parametrize("shape", [(1, 1), (64, 2), (65, 10), (9, 2049)])
def test_rows_are_counted_correct_where_numpys_argmax_is_the_label(kernels, dtype, rng, shape):
    scores = rng.integers(-2, 3, shape).astype(dtype)   # so few values that most rows have ties
    special = rng.random(shape)
    scores[special < 0.02], scores[special > 0.96], scores[special > 0.98] = np.nan, np.inf, -np.inf
    scores[-1] = -np.inf
    labels = np.where(rng.random(shape[0]) < 0.7, scores.argmax(axis=1), rng.integers(0, shape[1], shape[0]))
    correct, _ = reference.call(kernels.count_correct, {"scores": scores, "labels": labels}, {}, {})
    assert correct == (scores.argmax(axis=1) == labels).sum()
    for label in places(shape[1]):
        for row in scores:
            assert kernels.count_correct(row[None], np.array([label])) == (label == row.argmax())
        largest = np.zeros((1, shape[1]), dtype)
        for value in (np.nan, np.inf, 1e-30):
            largest[0, label:] = value
            assert kernels.count_correct(largest, np.array([label])) == 1


# The numerical gradient

LAYOUTS = {
    "C": lambda array: array.copy(),
    "Fortran": np.asfortranarray,
    "strided": lambda array: np.repeat(array, 2, axis=1)[:, ::2],
    "reversed": lambda array: np.flip(np.flip(array).copy()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_central_difference_visits_every_element_in_c_order_and_restores_it(build, dtype, rng, layout):
    x = LAYOUTS[layout](rng.integers(-9, 9, (3, 5)).astype(dtype))
    before, seen = x.copy(), []

    def f(given):
        assert given is x
        seen.append(given - before)
        return 0.5 * (given * given * np.arange(15).reshape(3, 5)).sum(dtype=float)

    _, outputs = reference.call(
        build.central_difference, {}, {"gradient": unwritten(15, np.float64)}, {"f": f, "x": x, "h": 0.125}
    )
    # h and the values are short enough in binary for every step to be exact.
    assert np.array_equal(outputs["gradient"], (before * np.arange(15).reshape(3, 5)).ravel())
    assert np.array_equal(x, before)
    steps = [sign * 0.125 * np.eye(15)[place].reshape(3, 5) for place in range(15) for sign in (1, -1)]
    assert np.array_equal(seen, steps)


def test_central_difference_agrees_with_the_reference(build, rng):
    x, gradient = rng.normal(0, 1, (4, 3)), unwritten(12, np.float64)

    def f(x):
        return float((np.sin(x) * x).sum())

    build.central_difference(f, x, gradient, 1e-4)
    assert np.array_equal(gradient, reference.central_difference(f, x, 1e-4).ravel())
    # Truncation: h**2 / 6 times the third derivative, which is below 3 + |x|; rounding: f's error divided by h.
    exact = (np.cos(x) * x + np.sin(x)).ravel()
    assert_close(gradient, exact, 1e-8 / 6 * 7 + rounding(np.float64, 14, 12 * 4) / 1e-4, "gradient")


@pytest.mark.parametrize("calls", [1, 2, 5, 6])
def test_central_difference_restores_x_when_the_function_raises(build, dtype, calls):
    x = np.array([1.1, 2.2, 3.3], dtype)
    before, gradient, count = x.copy(), unwritten(3, np.float64), Counter()

    def f(x):
        count["calls"] += 1
        if count["calls"] == calls:
            raise KeyError("from f")
        return 0.0

    with pytest.raises(KeyError, match="from f"):
        build.central_difference(f, x, gradient, 1e-4)
    assert np.array_equal(x, before)
    finished = (calls - 1) // 2
    assert (gradient[:finished] == 0).all() and (gradient[finished:] == reference.POISON).all()
