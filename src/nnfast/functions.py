"""The book's formulas on arrays: activations, their gradients, softmax, and the two error functions.

float32 stays float32; integers and lists are computed in float64. `np` is among the names, since scripts rely on
``from nnfast.functions import *`` to bring it.
"""

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _threads, _validation
from nnfast._kernels import kernels

__all__ = [
    "cross_entropy_error",
    "identity_function",
    "mean_squared_error",
    "np",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]


def identity_function(x: ArrayLike) -> ArrayLike:
    """`x` itself: the output function for regression (chapter 3.5).

    Parameters
    ----------
    x : array_like
        Any shape.

    Returns
    -------
    array_like
        The argument, not a copy.

    Examples
    --------
    >>> identity_function(np.array([0.5, -2.0]))
    array([ 0.5, -2. ])
    """
    return x


def step_function(x: ArrayLike) -> np.ndarray:
    """1 where `x` is above 0, else 0 (chapter 3.2).

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.

    Returns
    -------
    ndarray of int
        Of the shape of `x`.

    Raises
    ------
    TypeError
        If `x` does not hold real numbers.

    Examples
    --------
    >>> step_function(np.array([-1.0, 0.0, 2.0]))
    array([0, 0, 1])
    """
    return np.array(_validation.numbers("x", x) > 0, dtype=int)


def sigmoid(x: ArrayLike) -> np.ndarray:
    """1 / (1 + exp(-x)), element by element (chapter 3.2).

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.

    Returns
    -------
    ndarray of float32 or float64
        Of the shape of `x`, between 0 and 1, for every finite `x` and for infinities. The error is at most 2.5 units in
        the last place; below the normal numbers the result is 0 early.

    Raises
    ------
    TypeError
        If `x` does not hold real numbers.

    Examples
    --------
    >>> sigmoid(np.array([-1.0, 0.0, 2.0])).round(4)
    array([0.2689, 0.5   , 0.8808])
    """
    array = _validation.floats("x", x)
    y = np.empty_like(array)
    kernels(array.dtype).sigmoid_forward(array.reshape(-1), y.reshape(-1), _threads.for_elements(4 * array.size))
    return y[()]    # like NumPy's own functions: a number for a number


def sigmoid_grad(x: ArrayLike) -> np.ndarray:
    """Derivative of the sigmoid at `x`: y (1 - y) with y = sigmoid(x).

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.

    Returns
    -------
    ndarray of float32 or float64
        Of the shape of `x`.

    Raises
    ------
    TypeError
        If `x` does not hold real numbers.

    Examples
    --------
    >>> sigmoid_grad(np.array([0.0, 2.0])).round(4)
    array([0.25 , 0.105])
    """
    y = sigmoid(x)
    # Before NumPy 2, 1 - y of a float32 number was float64.
    gradient: np.ndarray = np.subtract(1, y, dtype=y.dtype) * y
    return gradient


def relu(x: ArrayLike) -> np.ndarray:
    """`x` where it is above 0, else 0 (chapter 3.2).

    Parameters
    ----------
    x : array_like
        Real numbers of any shape; integers stay integers.

    Returns
    -------
    ndarray
        Of the shape of `x`.

    Raises
    ------
    TypeError
        If `x` does not hold real numbers.

    Examples
    --------
    >>> relu(np.array([-1.0, 0.5]))
    array([0. , 0.5])
    """
    array = _validation.numbers("x", x)
    if array.dtype.kind != "f":
        return np.asarray(np.maximum(0, array))[()]
    array = _validation.floats("x", array)
    y = np.empty_like(array)
    kernels(array.dtype).relu_forward(array.reshape(-1), y.reshape(-1), _threads.for_elements(array.size))
    return y[()]    # like NumPy's own functions: a number for a number


def relu_grad(x: ArrayLike) -> np.ndarray:
    """1 where `x` is at least 0, else 0.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.

    Returns
    -------
    ndarray
        Of the shape and dtype of `x`.

    Raises
    ------
    TypeError
        If `x` does not hold real numbers.

    Examples
    --------
    >>> relu_grad(np.array([-1.0, 0.0, 3.0]))
    array([0., 1., 1.])
    """
    array = _validation.numbers("x", x)
    return (array >= 0).astype(array.dtype)


def softmax(x: ArrayLike) -> np.ndarray:
    """exp(x) / sum(exp(x)) over the last axis (chapter 3.5).

    The largest value of each row is subtracted first: it changes nothing but the range, and nothing overflows.

    Parameters
    ----------
    x : array_like
        Scores, shape (..., C).

    Returns
    -------
    ndarray of float32 or float64
        Of the shape of `x`; each row sums to 1. exp has an error of at most 1.1 units in the last place, which the sum
        and the quotient add a unit to.

    Raises
    ------
    TypeError
        If `x` does not hold real numbers.
    ValueError
        If `x` is a single number or its last axis is empty.

    Examples
    --------
    >>> softmax(np.array([0.3, 2.9, 4.0])).round(4)
    array([0.0182, 0.2452, 0.7366])
    """
    array = _validation.classes_last("x", _validation.floats("x", x))
    y = np.empty_like(array)
    classes = array.shape[-1]
    threads = _threads.for_elements(4 * array.size)
    kernels(array.dtype).softmax_forward(array.reshape(-1, classes), y.reshape(-1, classes), threads)
    return y


def sum_squared_error(y: ArrayLike, t: ArrayLike) -> float:
    """0.5 * sum((y - t)**2): half the sum of squares, not a mean (chapter 4.2).

    Parameters
    ----------
    y : array_like
        Outputs, any shape.
    t : array_like
        Targets, of the shape of `y`.

    Returns
    -------
    float
        Summed in float64.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> y = np.array([0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0])
    >>> t = np.array([0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    >>> round(sum_squared_error(y, t), 4)
    0.0975
    """
    outputs = _validation.floats("y", y)
    targets = _validation.like("t", t, outputs.shape, outputs.dtype, "y")
    # A row for each entry of the first axis, so that many rows are many sums for the threads.
    shape = (outputs.shape[0], -1) if outputs.ndim > 1 and outputs.size else (1, outputs.size)
    threads = _threads.for_elements(outputs.size)
    losses = np.empty(shape[0])
    return float(kernels(outputs.dtype).squared_error(outputs.reshape(shape), targets.reshape(shape), losses, threads))


mean_squared_error = sum_squared_error
"""The name that the book's first printing and many notes use for `sum_squared_error`."""


def cross_entropy_error(y: ArrayLike, t: ArrayLike) -> float:
    """-sum(log(y[n, t_n] + 1e-7)) / B: the mean cross-entropy over a batch (chapter 4.2).

    Parameters
    ----------
    y : array_like
        Probabilities, shape (B, C), or (C,) for one example.
    t : array_like
        Labels 0 to C - 1, shape (B,) or (B, 1), or one-hot rows, shape (B, C); for one example a label or (C,).

    Returns
    -------
    float
        Summed in float64.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If the shapes do not fit, or `t` holds something that is not a label.

    Examples
    --------
    >>> y = np.array([0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0])
    >>> round(cross_entropy_error(y, 2), 4)
    0.5108
    >>> round(cross_entropy_error([[0.9, 0.1], [0.2, 0.8]], [[1, 0], [0, 1]]), 4)
    0.1643
    """
    outputs = _validation.classes_last("y", _validation.floats("y", y))
    if outputs.ndim == 1:
        outputs = outputs.reshape(1, -1)
        t = _validation.one_target("t", t)
    outputs = _validation.not_empty("y", _validation.rows("y", outputs, outputs.dtype, None, ""))
    labels = _validation.labels(t, outputs.shape[0], outputs.shape[1])
    losses = np.empty(outputs.shape[0])
    total = kernels(outputs.dtype).cross_entropy(outputs, labels, losses, _threads.for_elements(outputs.shape[0]))
    return float(total / outputs.shape[0])


def softmax_loss(X: ArrayLike, t: ArrayLike) -> float:
    """`cross_entropy_error` of `softmax` of the scores.

    Parameters
    ----------
    X : array_like
        Scores, shape (B, C), or (C,) for one example.
    t : array_like
        As for `cross_entropy_error`.

    Returns
    -------
    float
        Summed in float64.

    Raises
    ------
    TypeError, ValueError
        As `softmax` and `cross_entropy_error` do.

    Examples
    --------
    >>> round(softmax_loss(np.array([0.3, 2.9, 4.0]), 2), 4)
    0.3057
    """
    return cross_entropy_error(softmax(X), t)

