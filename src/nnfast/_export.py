"""A trained network as plain operations, for those who write it in another language: `_export_c.py`, `_export_numpy.py`."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _inference, _validation, functions
from nnfast._numerical_gradient import float64_copy
from nnfast.activations import Identity
from nnfast.layers import Affine, BatchNormalization, Dropout, Rescale
from nnfast.losses import (
    AbsoluteError,
    HuberLoss,
    IdentityWithLoss,
    PoissonLoss,
    QuantileLoss,
    SigmoidWithLoss,
    SoftmaxWithLoss,
)

if TYPE_CHECKING:
    from nnfast.network import Network

_ACTIVATIONS = {kind: name.lower() for kind, name in _inference.IN_PLACE.items()}
OUTPUTS: dict[type, str | None] = {
    SoftmaxWithLoss: "softmax", SigmoidWithLoss: "sigmoid", PoissonLoss: "exp", IdentityWithLoss: None, AbsoluteError: None,
    HuberLoss: None, QuantileLoss: None}
_RESULTS = {None: "scores", "softmax": "probabilities", "sigmoid": "probabilities", "exp": "means"}

_EXAMPLES = 8
"""Of what the network gives, which the exported code compares itself with."""

_TOLERANCES = {"float32": 1e-5, "float64": 1e-12}


@dataclass(frozen=True)
class Operation:
    """What is done to one example's values, `width` of them afterwards.

    kind : affine (arrays W and b), scale_shift (scale and shift), scale or leaky_relu (setting), or the name of what is done
    to each value or, softmax, to all. number : of this one among its kind, from 1, as in the keys of `Network.params`.
    """

    kind: str
    width: int
    arrays: dict[str, np.ndarray]
    setting: float = 0.0
    number: int = 1


@dataclass(frozen=True)
class Exported:
    """A network to be written: its operations, and examples of what it gives.

    Attributes
    ----------
    description : str
        In a few words.
    results : str
        What it gives: scores, probabilities or means.
    dtype : numpy.dtype
        Of arrays and results.
    inputs : int
        Values of an example.
    operations : list of Operation
        In their order; at least one.
    x, y : ndarray
        Examples (E, I) and what the network gives for them (E, O).
    tolerance : float
        By how much the same may differ where sums are added up in another order.
    """

    description: str
    results: str
    dtype: np.dtype
    inputs: int
    operations: list[Operation]
    x: np.ndarray
    y: np.ndarray
    tolerance: float

    @property
    def outputs(self) -> int:
        """Values of a result."""
        return self.operations[-1].width


def exported(network: "Network", probabilities: bool) -> Exported:
    """The network, checked. With probabilities, its output function (softmax, sigmoid, exp) is one of the operations."""
    kinds = (Affine, BatchNormalization, Dropout, Identity, Rescale, *_ACTIVATIONS)
    inputs = _validation.exportable(network, kinds, _inference.fits(network), tuple(OUTPUTS) if probabilities else None)
    operations: list[Operation] = []
    for layer in network.layers.values():
        width = operations[-1].width if operations else inputs
        for operation in _operations(layer, width, network.dtype):
            number = 1 + sum(one.kind == operation.kind for one in operations)
            operations.append(replace(operation, number=number))
    output = OUTPUTS[type(network.last_layer)] if probabilities else None
    if output is not None:
        operations.append(Operation(output, int(network.outputs or 0), {}))
    if not operations:
        operations.append(Operation("scale", inputs, {}, 1.0))
    sizes = [inputs, *(operation.width for operation in operations if operation.kind == "affine")]
    x = np.random.default_rng(0).standard_normal((_EXAMPLES, inputs)).astype(network.dtype)
    x[0] = 0
    y, exact = (_results(one, x, output) for one in (network, float64_copy(network)))
    _validation.all_finite("what the network gives for examples", np.ascontiguousarray(y))
    # Where much cancels, float32 itself is that far from the truth.
    tolerance = max(_TOLERANCES[network.dtype.name] * float(np.abs(y).max()), 16 * float(np.abs(y - exact).max()))
    description = f"a network of {'-'.join(map(str, sizes))} ({network.dtype.name})"
    return Exported(description, _RESULTS[output], network.dtype, inputs, operations, x, y, tolerance or 1e-30)


def _operations(layer: Any, width: int, dtype: np.dtype) -> list[Operation]:
    """What a layer does: one operation, or none."""
    if isinstance(layer, Identity):
        return []
    if isinstance(layer, Affine):
        arrays = {"W": _plain(layer.W, dtype), "b": _plain(layer.b, dtype)}
        return [Operation("affine", int(layer.W.shape[1]), arrays)]
    if isinstance(layer, BatchNormalization):
        mean, variance = (np.asarray(array, np.float64) for array in layer.statistics)
        scale = np.asarray(layer.gamma, np.float64) / np.sqrt(variance + layer.EPSILON)
        shift = np.asarray(layer.beta, np.float64) - mean * scale
        return [Operation("scale_shift", width, {"scale": _plain(scale, dtype), "shift": _plain(shift, dtype)})]
    if isinstance(layer, Rescale):
        if not np.ndim(layer.scale) and not np.any(layer.offset):
            return [Operation("scale", width, {}, layer.scale)]
        factors, summands = layer.operands(width, dtype)
        summands = np.zeros_like(factors) if summands is None else summands
        return [Operation("scale_shift", width, {"scale": _plain(factors, dtype), "shift": _plain(summands, dtype)})]
    if isinstance(layer, Dropout):
        return [Operation("scale", width, {}, 1.0 - layer.dropout_ratio)]
    return [Operation(_ACTIVATIONS[type(layer)], width, {}, getattr(layer, "slope", 0.0))]


def _plain(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.ascontiguousarray(array, dtype.newbyteorder("<"))


def _results(network: "Network", x: np.ndarray, output: str | None) -> np.ndarray:
    scores = network.predict(x)
    function: Any = {None: np.asarray, "softmax": functions.softmax, "sigmoid": functions.sigmoid, "exp": np.exp}[output]
    with np.errstate(over="ignore"):    # what is infinite is refused
        result: np.ndarray = function(scores)
    return result


def version() -> str:
    """Of nnfast."""
    import nnfast

    return nnfast.__version__
