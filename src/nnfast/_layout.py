"""Where in the arena everything of a network lies, and the operations that name these places.

`Layout` walks the layers once, forward and backward, and writes the list that compiled code walks in every step.
Layout of an operation: `_core_plan.pxi`.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _memory
from nnfast._kernels import kernels
from nnfast.activations import Gelu, Identity, LeakyRelu, Relu, Sigmoid, Tanh
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

_OPERATION = np.dtype(
    [(name, np.int64) for name in (
        "code", "inputs", "outputs", "x", "x_row", "y", "y_row", "weights", "bias", "transposed", "state", "bias_state",
        "normalized", "statistics", "looks_for_zeros", "number", "mask", "array", "bias_array",
        "gradient", "bias_gradient",
    )]
    + [("setting", np.float64)]
)

_IN_PLACE = {Relu: "RELU", LeakyRelu: "LEAKY_RELU", Sigmoid: "SIGMOID", Tanh: "TANH"}
LOSSES = {kind: kind._operation for kind in (
    SoftmaxWithLoss, SigmoidWithLoss, IdentityWithLoss, AbsoluteError, HuberLoss, QuantileLoss, PoissonLoss)}
"""Names of the operations that are a loss and its gradient."""

LAYERS = (Affine, BatchNormalization, Dropout, Gelu, Identity, Rescale, *_IN_PLACE)
"""What can be laid out."""

SIGNALS = 4
"""Elements after what is summed over ranks, by which they tell each other how they are (_ranks.py)."""

_ALIGNMENT = 16
"""Elements: a cache line of float32."""


@dataclass
class _Rows:
    """Rows in the arena, of values or of gradients: where the first begins, and how far it is to the next."""

    offset: int
    stride: int
    is_needed: bool = False
    """Whether a backward operation reads what is there now, so that nothing may write over it."""


@dataclass
class _Link:
    """A layer's place in the chain, and where what belongs to it lies in the arena, by field of an operation."""

    layer: Any
    x: _Rows
    inputs: int
    y: _Rows
    outputs: int
    fields: dict[str, int] = field(default_factory=dict)


@dataclass
class Trained:
    """A parameter and where it lies in the arena, with its states one after the other."""

    key: str
    layer: Any
    name: str
    offset: int
    size: int
    state: int
    transposed: int = -1

    @property
    def array(self) -> np.ndarray:
        """The user's array."""
        array: np.ndarray = getattr(self.layer, self.name)
        return array


class Layout:
    """Operations, and the places in the arena that they refer to."""

    def __init__(
        self, network: "Network", states: int, batch_size: int, packs: bool, keeps_gradients: bool
    ) -> None:
        self.kept = 0       # elements of what outlives a step: parameters, states and statistics
        self.size = 0       # and of all the rest, which follows it
        self._list: list[dict[str, float]] = []
        self.trained: list[Trained] = []
        self.statistics: list[tuple[BatchNormalization, int]] = []
        self.constants: list[tuple[np.ndarray, int]] = []   # and where in the arena they are
        self.dropouts = 0   # whose masks come from keys
        self.drawn: list[tuple[Dropout, int, int]] = []     # from numpy.random: with their columns in the masks
        self.loss_parameters: list[np.ndarray] = []     # which operations name by their place in it
        self.gradients = -1     # where they are kept, side by side, those of the last layer first
        self.kept_gradients = 0     # elements of them
        self.multiply_adds = 0      # a row
        self.row_bytes = 0          # of values and gradients
        self._kernels = kernels(network.dtype)
        self._dtype = network.dtype
        self._states = states
        self._packs = packs
        self._keeps_gradients = keeps_gradients
        self._batch_size = batch_size
        inputs: Any = network.inputs    # known: it would have been an obstacle
        self._lay_out(list(network.layers.values()), inputs, network.last_layer)
        if keeps_gradients:
            self.gradients = self._place(self.kept_gradients + SIGNALS) + self.kept
        self.operations = np.array(
            [tuple(one.get(name, 0) for name in _OPERATION.names or ()) for one in self._list], _OPERATION)
        for name in ("x", "y", "transposed", "normalized"):
            offsets = self.operations[name]
            offsets[offsets >= 0] += self.kept
        is_update = self.operations["code"] == self._kernels.OPERATION_CODES["UPDATE"]
        for name in ("gradient", "bias_gradient"):
            self.operations[name][is_update] += max(self.gradients, 0)
        is_backward = (self.operations["code"] == self._kernels.OPERATION_CODES["PRODUCT"]) & (self.operations["bias"] < 0)
        self.operations["weights"][is_backward] += self.kept

    @property
    def mask_columns(self) -> int:
        """Columns of all masks that are drawn from numpy.random, side by side."""
        return self.drawn[-1][2] if self.drawn else 0

    def padded(self, columns: int) -> int:
        """Columns in whole grains."""
        grain: int = self._kernels.PANEL_GRAIN
        return -(-columns // grain) * grain

    def scratch_size(self, block_rows: int, group_columns: int, panel_columns: int) -> int:
        """Elements that each thread needs for itself.

        For the data of a block of rows; or for the columns of x and the gradient of a block of weights, or of one panel
        of it where that is used before the next is summed; or for the gradient of biases.
        """
        columns = min(group_columns, max(self.padded(one.array.shape[-1]) for one in self.trained))
        is_one_pass = self._batch_size <= self._kernels.UPDATE_DEPTH
        of_rows = min(block_rows, self._batch_size) * self._input_stride
        of_weights = self._kernels.UPDATE_ROWS * (
            self._kernels.UPDATE_DEPTH + (min(panel_columns, columns) if is_one_pass else columns))
        size: int = -(-max(of_rows, of_weights, columns) // _ALIGNMENT) * _ALIGNMENT
        return size

    def _keep(self, size: int) -> int:
        offset = self.kept
        self.kept += -(-size // _ALIGNMENT) * _ALIGNMENT
        return offset

    def _place(self, size: int) -> int:
        """As seen from the end of what is kept."""
        offset = self.size
        self.size += -(-size // _ALIGNMENT) * _ALIGNMENT
        return offset

    def _place_gradient(self, size: int) -> int:
        """As seen from the first that is kept."""
        offset = self.kept_gradients
        self.kept_gradients += -(-size // _ALIGNMENT) * _ALIGNMENT
        return offset

    def _stride(self, width: int) -> int:
        """Elements from one row of so many columns to the next."""
        return _memory.rows_apart(width, self._kernels.VECTOR, self._dtype)

    def _rows(self, width: int) -> _Rows:
        stride = self._stride(width)
        self.row_bytes += stride * self._dtype.itemsize
        return _Rows(self._place(self._batch_size * stride), stride)

    def _operation(
        self, code: str, y: _Rows, outputs: int, x: _Rows | None = None, setting: float = 0, **fields: int
    ) -> dict[str, float]:
        """An operation by its fields; those that are left out are 0."""
        operation = {
            "code": self._kernels.OPERATION_CODES[code], "outputs": outputs, "setting": setting, "y": y.offset,
            "y_row": y.stride, **fields,
        }
        if x is not None:
            operation |= {"x": x.offset, "x_row": x.stride}
        return operation

    def _add(self, *arguments: Any, **fields: Any) -> None:
        self._list.append(self._operation(*arguments, **fields))

    def _constant(self, array: np.ndarray) -> int:
        """A place for what no step changes."""
        self.constants.append((array, self._keep(array.size)))
        return self.constants[-1][1]

    def _train(self, layer: Any, name: str, size: int, transposed: int = -1) -> Trained:
        """Places for a parameter and its states."""
        key = f"{name}{1 + sum(other.name == name for other in self.trained)}"
        self.trained.append(
            Trained(key, layer, name, self._keep(size), size, self._keep(self._states * size), transposed))
        return self.trained[-1]

    def _lay_out(self, layers: list[Any], inputs: int, loss: Any) -> None:
        first = next(place for place, layer in enumerate(layers) if getattr(layer, "params", {}))
        width = inputs
        self._input_stride = self._stride(inputs)
        if type(layers[0]) is Affine:   # reads the data itself
            rows = _Rows(-1, self._input_stride)
        else:
            rows = self._rows(inputs)
            self._add("GATHER", rows, width)
        links: list[_Link] = []
        for place, layer in enumerate(layers):
            links.append(self._forward(
                layer, rows, width, is_first=all(type(before) is Rescale for before in layers[:place]),
                passes_on=place > first))
            rows, width = links[-1].y, links[-1].outputs
        gradient = self._rows(width)
        setting, parameters = loss._described(width)
        self.loss_parameters += [] if parameters is None else [parameters]
        self._add(LOSSES[type(loss)], gradient, width, rows, setting, array=0)
        updates: list[dict[str, float]] = []
        for link in reversed(links[first:]):
            gradient = self._backward(link, gradient, updates, passes_on=link is not links[first])
        self._list += updates

    def _forward(self, layer: Any, x: _Rows, width: int, *, is_first: bool, passes_on: bool) -> _Link:
        """Add a layer's forward operation."""
        if isinstance(layer, Affine):
            transposed = self._place(layer.outputs * self.padded(width)) if passes_on else -1
            weights = self._train(layer, "W", width * self.padded(layer.outputs), transposed)
            bias = self._train(layer, "b", self.padded(layer.outputs))
            fields = {
                "weights": weights.offset, "bias": bias.offset, "state": weights.state, "bias_state": bias.state,
                "transposed": transposed, "looks_for_zeros": is_first,
            }
            link = _Link(layer, x, width, self._rows(layer.outputs), layer.outputs, fields)
            if self._packs:
                self._list.insert(0, self._operation("PACK", link.y, link.outputs, None, 0, inputs=width, **fields))
            self._add("PRODUCT", link.y, link.outputs, x, inputs=width, **fields)
            self.multiply_adds += (2 + passes_on) * width * layer.outputs
            return link
        if isinstance(layer, Identity):
            return _Link(layer, x, width, x, width)
        if isinstance(layer, BatchNormalization):
            gamma, beta = (self._train(layer, name, self.padded(width)) for name in ("gamma", "beta"))
            fields = {
                "weights": gamma.offset, "bias": beta.offset, "state": gamma.state, "bias_state": beta.state,
                "normalized": self._rows(width).offset, "statistics": self._keep(7 * self.padded(width)),
            }
            self.statistics.append((layer, fields["statistics"]))
            link = _Link(layer, x, width, self._rows(width), width, fields)
            self._add("BATCH_NORMALIZATION", link.y, width, x, layer.momentum, **fields)
            return link
        if isinstance(layer, Gelu):
            link = _Link(layer, x, width, self._rows(width), width)
            self._add("GELU", link.y, width, x)
            return link
        if isinstance(layer, Dropout):
            fields = {"number": self.dropouts, "mask": -1}
            if layer.generator is None:
                fields["mask"] = self.mask_columns
                self.drawn.append((layer, self.mask_columns, self.mask_columns + width))
            else:
                self.dropouts += 1
            link = _Link(layer, x, width, self._rows(width) if x.is_needed else x, width, fields)
            self._add("DROPOUT", link.y, width, x, layer.dropout_ratio, **fields)
            return link
        if isinstance(layer, Rescale):
            scale, offset = layer.operands(width, self._dtype)
            fields = {"weights": self._constant(scale), "bias": -1 if offset is None else self._constant(offset)}
            link = _Link(layer, x, width, self._rows(width) if x.is_needed else x, width, fields)
            if x.is_needed:
                self._add("COPY", link.y, width, x)
            self._add("RESCALE", link.y, width, **fields)
            return link
        link = _Link(layer, x, width, x, width)
        if x.is_needed:
            link.y = self._rows(width)
            self._add("COPY", link.y, width, x)
        self._add(_IN_PLACE[type(layer)], link.y, width, setting=getattr(layer, "slope", 0))
        link.y = replace(link.y, is_needed=True)
        return link

    def _backward(self, link: _Link, gradient: _Rows, updates: list[dict[str, float]], *, passes_on: bool) -> _Rows:
        """Add a layer's backward operation and its update; returns where the gradient is that it passes on."""
        layer, fields = link.layer, link.fields
        if isinstance(layer, Affine):
            if self._keeps_gradients:
                padded = self.padded(link.outputs)
                fields = {**fields, "gradient": self._place_gradient(link.inputs * padded),
                          "bias_gradient": self._place_gradient(padded)}
            updates.append(self._operation("UPDATE", gradient, link.outputs, link.x, inputs=link.inputs, **fields))
            if not passes_on:
                return gradient
            passed = self._rows(link.inputs)
            self._add("PRODUCT", passed, link.inputs, gradient, inputs=link.outputs, weights=fields["transposed"],
                      bias=-1)
            return passed
        if isinstance(layer, BatchNormalization):
            self._add("BATCH_NORMALIZATION_BACKWARD", gradient, link.outputs, **fields)
        elif isinstance(layer, Gelu):
            self._add("GELU_BACKWARD", gradient, link.outputs, link.x)
        elif isinstance(layer, Dropout):
            self._add("DROPOUT_BACKWARD", gradient, link.outputs, setting=layer.dropout_ratio, **fields)
        elif isinstance(layer, Rescale):
            self._add("RESCALE", gradient, link.outputs, weights=fields["weights"], bias=-1)
        elif not isinstance(layer, Identity):
            self._add(f"{_IN_PLACE[type(layer)]}_BACKWARD", gradient, link.outputs, link.y, getattr(layer, "slope", 0))
        return gradient
