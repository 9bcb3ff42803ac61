"""What an ONNX graph does to its input, one operation after the other, and the layers that do the same."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnfast._model_files import _require
from nnfast.activations import Gelu
from nnfast.layers import Affine, BatchNormalization

_CLOSE = 1e-6
"""Relative: what GELU is made of is written as float32."""


@dataclass(frozen=True, eq=False)
class Product:
    """x W + b, of W (I, O) and b (O,)."""

    W: np.ndarray
    b: np.ndarray


@dataclass(frozen=True, eq=False)
class Scaling:
    """x times scale plus shift, float64 arrays (I,), or (1,) for all columns."""

    scale: np.ndarray
    shift: np.ndarray

    def factor(self) -> float:
        """What all values are multiplied by, if that is all that is done; else NaN."""
        return float(self.scale[0]) if self.scale.size == 1 and not self.shift.any() else math.nan


@dataclass(frozen=True, eq=False)
class Normalization:
    """A batch normalisation that adds `epsilon` to variances; arrays (I,)."""

    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float
    momentum: float


@dataclass(frozen=True, eq=False)
class Chain:
    """The input after operations: the last one, and the chain before it; the input itself has neither.

    does : a `Product`, `Scaling` or `Normalization`, a function that makes an activation layer, "softmax" or "exp".
    shape : of an example, with None for what is not known. What is still to be flattened has several sizes.
    """

    does: Any
    before: "Chain | None"
    shape: tuple[int | None, ...]

    @property
    def width(self) -> int | None:
        """Columns of the rows."""
        _require(len(self.shape) == 1,
                 f"computes with examples of the shape {sizes(self.shape)}, which it must flatten before")
        return self.shape[0]

    @property
    def total(self) -> int | None:
        """Values of an example."""
        return None if None in self.shape else math.prod(size for size in self.shape if size is not None)

    def then(self, does: Any, width: int | None = None) -> "Chain":
        """With another operation, after which rows have `width` columns if not as many as before."""
        return Chain(does, self, self.shape if width is None else (width,))

    def flat(self, width: int | None) -> "Chain":
        """Of rows."""
        return Chain(self.does, self.before, (width,))


@dataclass(frozen=True, eq=False)
class Erf:
    """erf(x / sqrt(2)) times `factor` plus `shift`, all of it times x if `times_x`: a part of GELU."""

    x: Chain
    factor: float
    shift: float
    times_x: bool

    def settled(self) -> "Erf | Chain":
        """GELU, if that is what it has become: both numbers are one half."""
        is_gelu = self.times_x and np.allclose((self.factor, self.shift), 0.5, rtol=_CLOSE, atol=0)
        return self.x.then(Gelu) if is_gelu else self


def is_root_of_half(number: float) -> bool:
    """Whether GELU's input was divided by sqrt(2)."""
    return math.isclose(number, 0.5**0.5, rel_tol=_CLOSE)


def sizes(shape: tuple[int | None, ...]) -> str:
    """A shape in a sentence."""
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"


def operations_of(chain: Chain) -> list[tuple[Any, int | None]]:
    """In their order, each with the number of values of an example after it."""
    found = []
    while chain.before is not None:
        found.append((chain.does, chain.total))
        chain = chain.before
    return found[::-1]


def layers_of(operations: list[tuple[Any, int | None]], dtype: np.dtype, spend: Callable[[int], None]) -> list[Any]:
    """Layers that do the same. `spend` is told of bytes that no array of the file has.

    A scaling is multiplied into the product beside it, with one rounding of the weights; between other layers it
    becomes a batch normalisation of mean 0 and variance 1.
    """
    layers: list[Any] = []
    for does, width in _folded(operations, dtype):
        if isinstance(does, Product):
            layers.append(Affine(_finite(does.W, dtype), _finite(does.b, dtype)))
        elif isinstance(does, Normalization):
            # What is added to variances here is another number.
            variance = does.variance.astype(np.float64) + does.epsilon - BatchNormalization.EPSILON
            arrays = (does.gamma, does.beta, does.mean, variance)
            gamma, beta, mean, variance = (_finite(array, dtype) for array in arrays)
            layers.append(BatchNormalization(gamma, beta, does.momentum, mean, variance))
        elif isinstance(does, Scaling):
            if (does.scale == 1).all() and not does.shift.any():
                continue
            _require(width is not None, "multiplies or adds where the number of columns is not known")
            assert width is not None
            spend(4 * width * dtype.itemsize)
            gamma, beta = (_finite(np.broadcast_to(array, width), dtype) for array in (does.scale, does.shift))
            mean, variance = np.zeros(width, dtype), np.full(width, 1 - BatchNormalization.EPSILON, dtype)
            layers.append(BatchNormalization(gamma, beta, running_mean=mean, running_var=variance))
        else:
            layers.append(does())
    return layers


def _folded(operations: list[tuple[Any, int | None]], dtype: np.dtype) -> list[tuple[Any, int | None]]:
    """With as few scalings as there can be."""
    merged: list[tuple[Any, int | None]] = []
    for does, width in operations:
        last = merged[-1][0] if merged else None
        if isinstance(does, Scaling) and isinstance(last, Scaling):
            does = Scaling(last.scale * does.scale, last.shift * does.scale + does.shift)
            merged.pop()
        merged.append((does, width))
    folded: list[tuple[Any, int | None]] = []
    for does, width in merged:
        last = folded[-1][0] if folded else None
        if isinstance(does, Scaling) and isinstance(last, Product):
            does = Product(_scaled(last.W, does.scale, dtype), last.b * does.scale + does.shift)
            folded.pop()
        elif isinstance(does, Product) and isinstance(last, Scaling):
            shift = np.broadcast_to(last.shift, does.W.shape[:1]) @ does.W      # b is still 0
            does = Product(_scaled(does.W, last.scale.reshape(-1, 1), dtype), shift)
            folded.pop()
        folded.append((does, width))
    return folded


def _scaled(W: np.ndarray, scale: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return W if (scale == 1).all() else (W * scale).astype(dtype)


def _finite(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The numbers of a layer, in an array of its own."""
    found = np.array(array, dtype, order="C")
    _require(np.isfinite(found).all(), f"has numbers that together are too large for {dtype}")
    return found
