"""The perceptron and the logic gates: 1 if w . x + b is above 0, else 0 (chapter 2)."""

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _validation

__all__ = ["AND", "NAND", "OR", "XOR", "Perceptron"]


class Perceptron:
    """A unit that fires, or not: 1 if w . x + b > 0, else 0.

    Parameters
    ----------
    w : array_like
        Weights, shape (I,).
    b : float
        Bias: how easily it fires.

    Raises
    ------
    TypeError, ValueError
        If `w` is not one row of numbers, or `b` is not a finite number.

    Examples
    --------
    >>> both = Perceptron([0.5, 0.5], -0.7)
    >>> both([1, 0]), both([1, 1])
    (0, 1)
    """

    def __init__(self, w: ArrayLike, b: float) -> None:
        self.w = _validation.parameter("w", w if isinstance(w, np.ndarray) else np.asarray(w, float), 1)
        self.b = _validation.check_number("b", b)

    def __call__(self, x: ArrayLike) -> int:
        """1 or 0 for one example.

        Parameters
        ----------
        x : array_like
            Inputs, shape (I,).

        Returns
        -------
        int
            1 if the unit fires.

        Raises
        ------
        ValueError
            If `x` has another shape.
        """
        inputs = _validation.like("x", x, self.w.shape, self.w.dtype, "w")
        return int(self.w @ inputs + self.b > 0)


# The book's weights. One line separates the four points for each of these; for XOR none does, so it takes two layers.
_AND = Perceptron([0.5, 0.5], -0.7)
_NAND = Perceptron([-0.5, -0.5], 0.7)
_OR = Perceptron([0.5, 0.5], -0.2)


def AND(x1: float, x2: float) -> int:
    """1 if both inputs are 1.

    Parameters
    ----------
    x1, x2 : float
        0 or 1.

    Returns
    -------
    int
        0 or 1.

    Examples
    --------
    >>> [AND(x1, x2) for x1, x2 in [(0, 0), (1, 0), (0, 1), (1, 1)]]
    [0, 0, 0, 1]
    """
    return _AND([x1, x2])


def NAND(x1: float, x2: float) -> int:
    """0 if both inputs are 1.

    Parameters
    ----------
    x1, x2 : float
        0 or 1.

    Returns
    -------
    int
        0 or 1.

    Examples
    --------
    >>> [NAND(x1, x2) for x1, x2 in [(0, 0), (1, 0), (0, 1), (1, 1)]]
    [1, 1, 1, 0]
    """
    return _NAND([x1, x2])


def OR(x1: float, x2: float) -> int:
    """1 if an input is 1.

    Parameters
    ----------
    x1, x2 : float
        0 or 1.

    Returns
    -------
    int
        0 or 1.

    Examples
    --------
    >>> [OR(x1, x2) for x1, x2 in [(0, 0), (1, 0), (0, 1), (1, 1)]]
    [0, 1, 1, 1]
    """
    return _OR([x1, x2])


def XOR(x1: float, x2: float) -> int:
    """1 if exactly one input is 1: NAND and OR, joined by AND.

    Parameters
    ----------
    x1, x2 : float
        0 or 1.

    Returns
    -------
    int
        0 or 1.

    Examples
    --------
    >>> [XOR(x1, x2) for x1, x2 in [(0, 0), (1, 0), (0, 1), (1, 1)]]
    [0, 1, 1, 0]
    """
    return AND(NAND(x1, x2), OR(x1, x2))
