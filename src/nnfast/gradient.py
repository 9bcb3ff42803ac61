"""Gradients by perturbation: the numerical gradient of any Python function (chapter 4.4), and the gradient check."""

from collections.abc import Callable

import numpy as np

from nnfast import _validation
from nnfast._gradient_check import GradientReport, GradientRow, gradient_check
from nnfast._kernels import central_difference

__all__ = ["GradientReport", "GradientRow", "gradient_check", "np", "numerical_gradient"]


def numerical_gradient(f: Callable[[np.ndarray], float], x: np.ndarray, h: float | None = None) -> np.ndarray:
    """Gradient of `f` at `x` by central differences: (f(x + h) - f(x - h)) / (2 h), element by element.

    `f` is called twice for each element of `x`, which is perturbed in place and restored, also when `f` raises.

    Parameters
    ----------
    f : callable
        Takes `x` and returns a number.
    x : ndarray of float64
        Any shape and layout, writeable; float32 only with an `h`, since rounding in float32 is as large as the
        difference that 1e-4 makes.
    h : float, optional
        Step, above 0; 1e-4 if not given.

    Returns
    -------
    ndarray
        Of the shape and dtype of `x`.

    Raises
    ------
    TypeError
        If `x` is not an array of float64 or float32, or float32 without an `h`.
    ValueError
        If `x` is read-only or `h` is not above 0.

    Examples
    --------
    >>> numerical_gradient(lambda x: x[0] ** 2 + x[1] ** 2, np.array([3.0, 4.0])).round(6)
    array([6., 8.])
    """
    step = _validation.perturbable(x, h)
    gradient = np.empty(x.size)
    central_difference(f, x, gradient, step)
    return gradient.reshape(x.shape).astype(x.dtype.newbyteorder("="), copy=False)
