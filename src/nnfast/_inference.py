"""A network's layers as compiled code walks them forward: for `predict`, and for a `Predictor`.

Layout of a stage: `_core_inference.pxi`. The stages read the layers' own arrays, so a change to their values is
seen by the next call; that another array has been put in their place is noticed by `ChainCache`.
"""

from collections.abc import Iterator
from operator import is_
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _memory, _threads, _validation
from nnfast._kernels import kernels
from nnfast.activations import Gelu, Identity, LeakyRelu, Relu, Sigmoid, Tanh
from nnfast.layers import Affine, BatchNormalization, Dropout, Rescale

if TYPE_CHECKING:
    from nnfast.network import Network

_STAGE = np.dtype(
    [(name, np.int64) for name in (
        "code", "inputs", "outputs", "y_row", "weights", "bias", "mean", "variance", "copy",
    )]
    + [("setting", np.float64)]
)

IN_PLACE = {Relu: "RELU", LeakyRelu: "LEAKY_RELU", Sigmoid: "SIGMOID", Tanh: "TANH", Gelu: "GELU"}
"""Names of the operations that are what a layer does."""

LAYERS = (Affine, BatchNormalization, Dropout, Identity, Rescale, *IN_PLACE)
"""Those that compiled code knows."""

_BLOCK_BYTES = 1 << 18
"""Of values between the layers for a block of rows, which goes through all layers before the next: a part of the L2
cache."""

_FEWEST_BLOCK_ROWS, _MOST_BLOCK_ROWS = 64, 1024
"""Fewer would read the weights too often, and few rows are all in one block (FEW_ROWS_OF_WIDE); more would gain nothing."""


_CONVERTED_BYTES = 1 << 22
"""Of data as float64, which are converted at a time."""

class Chain:
    """The stages of a network whose layers are all nnfast's own and fit together.

    Attributes
    ----------
    is_live : bool
        Whether all stages read the layers' own arrays. Some may have a layout that the kernels do not take, and were
        copied: then the chain is good for one call.
    inputs, outputs : int
        Columns of x and y.
    multiply_adds : int
        A row.
    rescales : bool
        Whether the first layer takes whole numbers as they are.
    """

    def __init__(self, network: "Network") -> None:
        self.dtype = network.dtype
        self.is_live = True
        self.inputs = self.outputs = network.inputs or 0
        self.multiply_adds = 0
        self.rescales = network._rescales
        self._parts = list(parts(network))
        self._kernels = kernels(network.dtype)
        self._arrays: list[np.ndarray] = []     # which the stages name by their place
        self._copies = 0                        # elements
        self._stages: list[np.ndarray] = []
        for layer in network.layers.values():
            self._add(layer)
        writers = [stage for stage in self._stages if stage["y_row"]]
        writers[-1]["y_row"] = 0    # to the result
        widest = max(int(stage["y_row"]) for stage in writers)
        fitting = _BLOCK_BYTES // (2 * max(widest, 1) * self.dtype.itemsize) // 8 * 8
        self._block_rows = min(max(fitting, _FEWEST_BLOCK_ROWS), _MOST_BLOCK_ROWS)
        self._buffer_size = max(self._block_rows * widest, self._kernels.FEWEST_BUFFER)
        arrays = self._kernels.Arrays(self._arrays)
        self.stages = self._kernels.Chain(
            np.array(self._stages), arrays, self.dtype.itemsize, self._block_rows, self._buffer_size)

    def is_current(self, network: "Network") -> bool:
        """Whether the network still has the same layers, arrays and settings."""
        found = list(parts(network))
        return len(found) == len(self._parts) and all(map(is_, found, self._parts))

    def threads(self, rows: int) -> int:
        """How many are worth their while."""
        return _threads.for_inference(rows, self.multiply_adds)

    def scratch_size(self, rows: int, num_threads: int) -> int:
        """Bytes that a call for so many rows needs."""
        copies = self._copies if rows >= self._kernels.FEWEST_ROWS_BY_TILES else 0
        size: int = ((num_threads + 1) * 2 * self._buffer_size + copies) * self.dtype.itemsize + 64
        return size

    def run(self, x: np.ndarray, y: np.ndarray) -> None:
        """Fill y (B, outputs) from rows x (B, inputs) as `_validation.data` returns them, both contiguous."""
        if y.size == 0:
            return
        if x.size == 0:     # no inputs at all: no row has an address
            x = np.zeros((x.shape[0], 1), self.dtype)
        threads = self.threads(x.shape[0])
        scratch = _memory.scratch(self._kernels.Scratch, self.scratch_size(x.shape[0], threads))
        if not self._kernels.infer(self.stages, scratch, x, y, x.shape[0], threads):  # y lies over x
            self.run(x.copy(), y)

    def _add(self, layer: Any) -> None:
        """The stages of one layer."""
        kind = type(layer)
        if kind is Affine:
            padded = self._rows_apart(layer.W.shape[1])
            inputs, self.outputs = self.outputs, layer.W.shape[1]
            self._stage("PRODUCT", inputs=inputs, y_row=padded, weights=self._place_of(layer.W, 2),
                        bias=self._place_of(layer.b, 1), copy=self._copies)
            self._copies += (inputs + 1) * padded
            self.multiply_adds += inputs * self.outputs
            return
        if not self._stages:
            self._stage("COPY", y_row=self._rows_apart(self.outputs))
        if kind is BatchNormalization:
            mean, variance = layer.statistics
            self._stage("NORMALIZE", weights=self._place_of(layer.gamma, 1), bias=self._place_of(layer.beta, 1),
                        mean=self._place_of(mean, 1), variance=self._place_of(variance, 1))
        elif kind is Rescale:
            scale, offset = layer.operands(self.outputs, self.dtype)
            self._stage("RESCALE", weights=self._place_of(scale, 1),
                        bias=-1 if offset is None else self._place_of(offset, 1))
        elif kind is Dropout:
            self._stage("SCALE", setting=1.0 - layer.dropout_ratio)
        elif kind is not Identity:
            self._stage(IN_PLACE[kind], setting=getattr(layer, "slope", 0))

    def _rows_apart(self, width: int) -> int:
        return _memory.rows_apart(width, self._kernels.VECTOR, self.dtype)

    def _stage(self, code: str, *, setting: float = 0, **fields: int) -> None:
        stage = np.zeros((), _STAGE)
        stage["code"], stage["setting"] = self._kernels.OPERATION_CODES[code], setting
        stage["inputs"] = stage["outputs"] = self.outputs
        for name, value in fields.items():
            stage[name] = value
        self._stages.append(stage)

    def _place_of(self, array: np.ndarray, ndim: int) -> int:
        """The place among the arrays that an array gets, or a copy in the layout that the kernels take."""
        operand = _validation.operand("array", array, ndim)
        if operand.dtype != self.dtype:
            operand = operand.astype(self.dtype)
        self.is_live = self.is_live and operand is array
        self._arrays.append(operand)
        return len(self._arrays) - 1


def row_slices(x: np.ndarray, *, are_all: bool) -> Iterator[slice]:
    """All rows of x, or so many at a time that no copy of them is large.

    Each slice has at least half as many rows as it may have, since few rows are added up in another order than many.
    """
    most = max(2 * _FEWEST_BLOCK_ROWS, _CONVERTED_BYTES // (8 * max(x.shape[1], 1)))
    count = 1 if are_all else max(1, -(-x.shape[0] // most))
    for place in range(count):
        yield slice(x.shape[0] * place // count, x.shape[0] * (place + 1) // count)


def parts(network: "Network") -> Iterator[Any]:
    """What a chain was made of: the same objects mean that it is still right."""
    for layer in network.layers.values():
        yield layer
        kind = type(layer)
        if kind is Affine:
            yield layer.W
            yield layer.b
        elif kind is BatchNormalization:
            yield layer.gamma
            yield layer.beta
            yield layer.running_mean
            yield layer.running_var
        elif kind is Dropout:
            yield layer.dropout_ratio
            yield layer.generator
        elif kind is LeakyRelu:
            yield layer.slope
        elif kind is Rescale:
            yield layer.scale
            yield layer.offset


def fits(network: "Network") -> bool:
    """Whether all layers are nnfast's own, and their arrays of the right shapes and dtype."""
    width = network.inputs
    if width is None:
        return False
    for layer in network.layers.values():
        kind = type(layer)
        if kind is Affine:
            if not (_is(layer.W, network.dtype, (width, layer.outputs)) and _is(layer.b, network.dtype, (layer.outputs,))):
                return False
            width = layer.outputs
        elif kind is BatchNormalization:
            if not (_is(layer.gamma, network.dtype, (width,)) and _is(layer.beta, network.dtype, (width,))
                    and all(_is(array, None, (width,)) for array in layer.statistics)):
                return False
        elif kind is Rescale:
            if layer.inputs not in (None, width):
                return False
        elif kind not in LAYERS:
            return False
    return True


def _is(array: Any, dtype: np.dtype | None, shape: tuple[int, ...]) -> bool:
    """Whether something is a floating-point array of this shape, and of this dtype in either byte order."""
    if not isinstance(array, np.ndarray) or array.shape != shape:
        return False
    found: np.dtype = array.dtype.newbyteorder("=")
    return found.kind == "f" if dtype is None else found == dtype


class ChainCache:
    """The chain of a network, made anew when its layers or their arrays are other ones."""

    def __init__(self) -> None:
        self._chain: Chain | None = None

    def of(self, network: "Network") -> Chain | None:
        """None if the network must run layer by layer, for what it has or to say what is wrong."""
        chain = self._chain
        if chain is not None and chain.is_current(network):
            return chain
        self._chain = None
        chain = Chain(network) if fits(network) else None
        if chain is not None and chain.is_live:
            self._chain = chain
        return chain

    def __reduce__(self) -> tuple[Any, ...]:
        return ChainCache, ()       # a copy of the network has arrays of its own
