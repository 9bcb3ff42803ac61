"""The book's helpers for its scripts: `smooth_curve` and `shuffle_dataset`."""

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _validation

__all__ = ["np", "shuffle_dataset", "smooth_curve"]

_WINDOW = 11


def smooth_curve(x: ArrayLike) -> np.ndarray:
    """A curve smoothed by a Kaiser window over 11 points, for plots of losses.

    Parameters
    ----------
    x : array_like
        At least 11 values.

    Returns
    -------
    ndarray of float64
        As many values.

    Raises
    ------
    ValueError
        If there are fewer than 11 values.

    Examples
    --------
    >>> smooth_curve(np.ones(20)).round(6).tolist() == [1.0] * 20
    True
    """
    curve = np.asarray(x, dtype=float)
    if curve.ndim != 1 or curve.size < _WINDOW:
        raise ValueError(f"x has shape {curve.shape}, but must be one row of at least {_WINDOW} values")
    weights = np.kaiser(_WINDOW, 2)
    # Mirrored at both ends, so that the ends are smoothed like the rest; half a window is cut off again.
    mirrored = np.concatenate([curve[_WINDOW - 1 : 0 : -1], curve, curve[-1:-_WINDOW:-1]])
    smooth = np.convolve(weights / weights.sum(), mirrored, mode="valid")
    return smooth[_WINDOW // 2 : len(smooth) - _WINDOW // 2]


def shuffle_dataset(x: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Copies of `x` and `t` with their rows in one random order, from the global ``np.random``.

    Parameters
    ----------
    x : ndarray
        Inputs, shape (B, ...).
    t : ndarray
        Targets, shape (B, ...).

    Returns
    -------
    x, t : ndarray
        In the new order.

    Raises
    ------
    ValueError
        If `x` and `t` have not equally many rows.

    Examples
    --------
    >>> np.random.seed(0)
    >>> x, t = shuffle_dataset(np.array([[10], [20], [30]]), np.array([1, 2, 3]))
    >>> x[:, 0].tolist(), t.tolist()
    ([30, 20, 10], [3, 2, 1])
    """
    x, t = np.asarray(x), np.asarray(t)
    _validation.same_length(t, x.shape[0])
    order = np.random.permutation(x.shape[0])
    return x[order], t[order]
