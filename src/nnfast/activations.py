"""Activation layers: element by element, forward and backward side by side.

Each keeps from the forward pass only what its derivative needs: a mask (ReLU), the output where that is enough
(sigmoid, tanh), else the input. Like the book's layers they may be called on arrays of any shape.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _threads, _validation
from nnfast._kernels import kernels
from nnfast._memory import Recycler
from nnfast._recall import Recalling

__all__ = ["Gelu", "Identity", "LeakyRelu", "Relu", "Sigmoid", "Tanh"]


class _Activation(Recalling):
    """What the activations share: conversion, an output array, and the call of a kernel.

    A subclass names its kernel and says what its derivative needs.
    """

    _remembered = ("_kept", "_dtype")
    _kernel: str
    _keeps_output = False   # the input instead
    # Cost of an element relative to a comparison: how soon a second thread pays.
    _cost = 1

    def __init__(self) -> None:
        self._kept: np.ndarray | None = None
        self._dtype: np.dtype | None = None
        self._outputs, self._gradients = Recycler(), Recycler()

    def _settings(self) -> tuple[float, ...]:
        """Arguments of the kernel between the arrays and the threads."""
        return ()

    def infer(self, x: ArrayLike) -> np.ndarray:
        """The output for `x`, leaving no trace in the layer: safe from many threads at once."""
        array = _validation.floats("x", x)
        y = np.empty_like(array)
        self._forward(array, y)
        return y

    def forward(self, x: ArrayLike) -> np.ndarray:
        """The output for `x`; keeps what `backward` needs.

        Parameters
        ----------
        x : array_like
            Any shape.

        Returns
        -------
        ndarray of float32 or float64
            Of the shape of `x`.

        Raises
        ------
        TypeError
            If `x` does not hold real numbers.
        """
        array = _validation.floats("x", x)
        if self._keeps_output:
            self._kept = None       # free, unless somebody else holds it
        y = self._outputs.empty(array.shape, array.dtype)
        self._kept = self._forward(array, y)
        self._dtype = array.dtype
        return y

    def _forward(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Fills y; returns what the kernel of the backward pass takes beside the gradient."""
        kernel = getattr(kernels(x.dtype), self._kernel + "_forward")
        kernel(x.reshape(-1), y.reshape(-1), *self._settings(), _threads.for_elements(x.size * self._cost))
        return y if self._keeps_output else x

    def backward(self, dout: ArrayLike) -> np.ndarray:
        """Gradient of the loss with respect to the input.

        Parameters
        ----------
        dout : array_like
            Gradient with respect to the output, of its shape; it is not changed.

        Returns
        -------
        ndarray of float32 or float64
            Of the same shape.

        Raises
        ------
        RuntimeError
            If `forward` was not called before.
        ValueError
            If the shapes differ.
        """
        kept: Any = self._kept
        dtype: Any = self._dtype
        _validation.needs_forward(kept, self)
        gradient = _validation.like("dout", dout, kept.shape, dtype, "the output")
        dx = self._gradients.empty(gradient.shape, dtype)
        kernel = getattr(kernels(dtype), self._kernel + "_backward")
        threads = _threads.for_elements(kept.size * self._cost)
        kernel(kept.reshape(-1), gradient.reshape(-1), dx.reshape(-1), *self._settings(), threads)
        return dx


class Relu(_Activation):
    """Rectified linear unit: x where x > 0, else 0 (chapter 5.5).

    Attributes
    ----------
    mask : ndarray of bool or None
        True where the last input was at most 0.

    Examples
    --------
    >>> relu = Relu()
    >>> relu.forward(np.array([[1.0, -0.5], [-2.0, 3.0]]))
    array([[1., 0.],
           [0., 3.]])
    >>> relu.backward(np.array([[10.0, 20.0], [30.0, 40.0]]))
    array([[10.,  0.],
           [ 0., 40.]])
    """

    _kernel = "relu"

    @property
    def mask(self) -> np.ndarray | None:
        """True where the last input was at most 0."""
        return None if self._kept is None else self._kept.view(bool)

    def _forward(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # A mask of its own, as in the book: what happens to x and y after the forward pass changes no gradient.
        mask = np.empty(x.shape, np.uint8)
        threads = _threads.for_elements(x.size)
        kernels(x.dtype).relu_forward_masked(x.reshape(-1), y.reshape(-1), mask.reshape(-1), threads)
        return mask


class Sigmoid(_Activation):
    """1 / (1 + exp(-x)); its derivative is y (1 - y), from the output alone (chapter 5.5).

    The error of the output is at most 2.5 units in the last place.

    Attributes
    ----------
    out : ndarray or None
        The last output.

    Examples
    --------
    >>> sigmoid = Sigmoid()
    >>> sigmoid.forward(np.array([0.0, 2.0])).round(4)
    array([0.5   , 0.8808])
    >>> sigmoid.backward(np.array([1.0, 1.0])).round(4)
    array([0.25 , 0.105])
    """

    _kernel = "sigmoid"
    _keeps_output = True
    _cost = 4

    @property
    def out(self) -> np.ndarray | None:
        """The last output."""
        return self._kept


class Tanh(_Activation):
    """tanh(x); its derivative is 1 - y**2, from the output alone.

    The error of the output is at most 2.5 units in the last place.

    Examples
    --------
    >>> tanh = Tanh()
    >>> tanh.forward(np.array([0.0, 1.0])).round(4)
    array([0.    , 0.7616])
    >>> tanh.backward(np.array([1.0, 1.0])).round(4)
    array([1.  , 0.42])
    """

    _kernel = "tanh"
    _keeps_output = True
    _cost = 4


class LeakyRelu(_Activation):
    """x where x > 0, else `slope` times x (Maas, Hannun and Ng, 2013).

    Parameters
    ----------
    slope : float, default 0.01
        Between 0 and 1.

    Examples
    --------
    >>> leaky = LeakyRelu(slope=0.1)
    >>> leaky.forward(np.array([2.0, -2.0]))
    array([ 2. , -0.2])
    >>> leaky.backward(np.array([1.0, 1.0]))
    array([1. , 0.1])
    """

    _kernel = "leaky_relu"

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = _validation.check_number("slope", slope, 0, 1)

    def _settings(self) -> tuple[float, ...]:
        return (self.slope,)


class Gelu(_Activation):
    """x times the probability that a standard normal variable is below x (Hendrycks and Gimpel, 2016).

    The exact form, x (1 + erf(x / sqrt(2))) / 2, not its approximation by tanh. The error of the output is at most 5
    units in the last place, also where it is tiny.

    Examples
    --------
    >>> gelu = Gelu()
    >>> gelu.forward(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-0.1587,  0.    ,  1.9545])
    >>> gelu.backward(np.array([1.0, 1.0, 1.0])).round(4)
    array([-0.0833,  0.5   ,  1.0852])
    """

    _kernel = "gelu"
    _cost = 8


class Identity:
    """The input, unchanged.

    Examples
    --------
    >>> Identity().forward(np.array([1.0, -2.0]))
    array([ 1., -2.])
    >>> Identity().backward(np.array([0.5, 0.5]))
    array([0.5, 0.5])
    """

    def forward(self, x: ArrayLike) -> np.ndarray:
        """`x` as an array of float32 or float64, not copied if it is one.

        Parameters
        ----------
        x : array_like
            Any shape.

        Returns
        -------
        ndarray
            Of the shape of `x`.
        """
        return _validation.floats("x", x)

    infer = forward

    def backward(self, dout: ArrayLike) -> np.ndarray:
        """`dout` as an array.

        Parameters
        ----------
        dout : array_like
            Any shape.

        Returns
        -------
        ndarray
            Of the shape of `dout`.
        """
        return _validation.floats("dout", dout)
