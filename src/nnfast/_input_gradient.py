"""Gradients of the scores with respect to the inputs, layers in the mode of inference: they leave no trace in them."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _validation
from nnfast.activations import Gelu, Identity, LeakyRelu, Relu, Sigmoid, Tanh
from nnfast.layers import Affine, BatchNormalization, Dropout, Rescale

if TYPE_CHECKING:
    from nnfast.network import Network

_Backward = Callable[[np.ndarray], np.ndarray]
"""From the gradient with respect to a layer's output to that with respect to its input."""


def input_gradient(network: "Network", rows: np.ndarray, dout: ArrayLike | None) -> np.ndarray:
    """`Network.input_gradient` for rows (B, I) of the network's dtype."""
    scores, passes = _forward(network, rows)
    gradient = _validation.seed_of_scores(dout, scores.shape, scores.dtype)
    return _through(passes, gradient)


def jacobian(network: "Network", rows: np.ndarray) -> np.ndarray:
    """`Network.jacobian`: a backward pass for each output."""
    scores, passes = _forward(network, rows)
    found = np.empty((*scores.shape, rows.shape[1]), scores.dtype)
    for output in range(scores.shape[1]):
        one = np.zeros_like(scores)
        one[:, output] = 1
        found[:, output] = _through(passes, one)
    return found


def _through(passes: list[_Backward], gradient: np.ndarray) -> np.ndarray:
    for one in reversed(passes):
        gradient = one(gradient)
    return np.array(gradient)   # a layer may use its memory again


def _forward(network: "Network", x: np.ndarray) -> tuple[np.ndarray, list[_Backward]]:
    """Scores, and how to come back."""
    passes = []
    for name, layer in network.layers.items():
        x, back = _passed(layer, x, (False,) if name in network._told_mode else ())
        passes.append(back)
    return x, passes


def _passed(layer: Any, x: np.ndarray, mode: tuple[bool, ...]) -> tuple[np.ndarray, _Backward]:
    kind = type(layer)
    if kind is Affine:
        W = layer.W
        return layer.infer(x), lambda dout: dout @ W.T
    if kind is Identity:
        return x, lambda dout: dout
    if kind is Dropout:
        scale = x.dtype.type(1.0 - layer.dropout_ratio)
        return layer.infer(x), lambda dout: dout * scale
    if kind is Rescale:
        factors = layer.operands(x.shape[1], x.dtype)[0]
        return layer.infer(x), lambda dout: dout * factors
    if kind is BatchNormalization:
        scales = (layer.gamma / np.sqrt(layer.statistics[1] + layer.EPSILON)).astype(x.dtype)
        return layer.infer(x), lambda dout: dout * scales
    if kind in (Relu, Sigmoid, Tanh, Gelu):
        own = kind()
    elif kind is LeakyRelu:
        own = LeakyRelu(layer.slope)
    else:
        own = copy.deepcopy(layer)
    return own.forward(x, *mode), own.backward
