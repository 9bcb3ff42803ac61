"""A network's gradient by perturbation: from what each parameter changes, and by brute force.

Layout of a stage and of an item, and the technique: `_core_gradient.pxi`.
"""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _inference, _memory, _threads, _validation
from nnfast._kernels import central_difference, kernels
from nnfast.activations import Gelu, Identity, LeakyRelu, Relu, Sigmoid, Tanh
from nnfast.layers import Affine, BatchNormalization, Dropout
from nnfast.losses import IdentityWithLoss, SigmoidWithLoss, SoftmaxWithLoss

if TYPE_CHECKING:
    from nnfast.network import Network

_FLOAT64 = np.dtype(np.float64)

_STAGE = np.dtype(
    [(name, np.int64) for name in (
        "code", "inputs", "outputs", "next_mixed", "couples", "weights", "bias", "x", "y", "normalized", "dweights",
        "dbias", "kinks", "bias_kinks",
    )]
    + [("setting", np.float64)]
)
_ITEM = np.dtype([(name, np.int64) for name in ("stage", "source", "first_unit", "last_unit")])

_IN_PLACE = {Relu: "RELU", LeakyRelu: "LEAKY_RELU", Sigmoid: "SIGMOID", Tanh: "TANH", Gelu: "GELU"}
_LOSSES = {SoftmaxWithLoss: "SOFTMAX_LOSS", SigmoidWithLoss: "SIGMOID_LOSS", IdentityWithLoss: "IDENTITY_LOSS"}

_VECTOR = 8             # of examples, which every build's vectors divide
_MOST_UNITS = 32        # of an item: their next scores are fetched once
_UNIT_VALUES = 8192     # of an item's units for all examples, twice: a part of the L2 cache
_BLOCK_BYTES = 1 << 20
# Columns of a block of changed examples: whole panels of every build, and an odd number of cache lines, so that a
# column's units do not all fall into the same few sets of a cache.
_BLOCK_COLUMNS = (264, 216, 168, 120, 72, 24)
_CALL_SECONDS = 0.1     # after which Ctrl-C is noticed
BOOK_EPSILON = 1e-7
"""What the book adds to a probability before it takes its logarithm."""


def exact(
    network: "Network", x: np.ndarray, t: ArrayLike, h: float, *, epsilon: float = BOOK_EPSILON,
) -> dict[str, np.ndarray]:
    """The central differences of a network that `fits`, in float64, by key of `params`.

    x: finite rows (B, I), at least one. epsilon: inside the logarithm of softmax's cross-entropy.
    """
    return Perturbation(network, x, t, h, epsilon).gradients()


def fits(network: "Network") -> bool:
    """Whether all layers and the loss are nnfast's own, so that compiled code can do it."""
    return type(network.last_layer) in _LOSSES and _inference.fits(network)


class Perturbation:
    """The stages of a network with a batch in them, ready to have each parameter perturbed.

    Attributes
    ----------
    layers : list of str
        Names of the layers that the stages are made of, by stage.
    kinks : dict of str to ndarray of int32
        By key of `params`, if asked for: the stage of the first ReLU that has a kink within h, or -1.
    """

    def __init__(
        self, network: "Network", x: np.ndarray, t: ArrayLike, h: float, epsilon: float, *, finds_kinks: bool = False
    ) -> None:
        self._network, self._h, self._epsilon = network, h, epsilon
        self._kernels = kernels(_FLOAT64)
        self._examples = x.shape[0]
        self._row = _memory.rows_apart(self._examples, _VECTOR, _FLOAT64)
        self._arrays: list[np.ndarray] = []     # kept alive: the stages hold their addresses
        self._x = np.zeros((x.shape[1], self._row))
        self._x[:, : self._examples] = x.T
        self._last = self._x
        self._stages: list[np.ndarray] = []
        self._trained: list[int] = []           # stages with parameters
        self.layers: list[str] = []
        self.kinks: dict[str, np.ndarray] = {}
        self._gradients: dict[str, np.ndarray] = {}
        keys = iter(network.params)
        for name, layer in network.layers.items():
            self._add(name, layer, keys, finds_kinks)
        self._stage("loss", _LOSSES[type(network.last_layer)], self._last.shape[0], keeps_y=False)
        self._look_ahead()
        self._set_targets(t)
        self._plan_blocks()

    def _add(self, name: str, layer: Any, keys: Any, finds_kinks: bool) -> None:
        kind = type(layer)
        if kind is Affine:
            self._stage(name, "PRODUCT", layer.outputs)
        elif kind is BatchNormalization:
            self._stage(name, "BATCH_NORMALIZATION", self._last.shape[0])
            self._stages[-1]["normalized"] = self._address(np.empty_like(self._last))
        elif kind is Dropout:
            self._stage(name, "SCALE", self._last.shape[0], 1.0 - layer.dropout_ratio)
        elif kind is not Identity:
            self._stage(name, _IN_PLACE[kind], self._last.shape[0], getattr(layer, "slope", 0))
        if kind not in (Affine, BatchNormalization):
            return
        self._trained.append(len(self._stages) - 1)
        for field, array in zip(("weights", "bias"), layer.params.values(), strict=True):
            key, stage = next(keys), self._stages[-1]
            stage[field] = self._address(np.ascontiguousarray(array, np.float64))
            self._gradients[key] = np.empty(array.shape)
            stage[f"d{field}"] = self._address(self._gradients[key])
            if finds_kinks:
                self.kinks[key] = np.full(array.shape, -1, np.int32)
                stage["kinks" if field == "weights" else "bias_kinks"] = self._address(self.kinks[key])

    def _stage(self, name: str, code: str, outputs: int, setting: float = 0, *, keeps_y: bool = True) -> None:
        stage = np.zeros((), _STAGE)
        stage["code"], stage["setting"] = self._kernels.OPERATION_CODES[code], setting
        stage["inputs"], stage["outputs"] = self._last.shape[0], outputs
        stage["x"] = self._address(self._last)
        if keeps_y:
            self._last = np.empty((outputs, self._row))
            stage["y"] = self._address(self._last)
        self._stages.append(stage)
        self.layers.append(name)

    def _address(self, array: np.ndarray) -> int:
        self._arrays.append(array)
        address: int = array.__array_interface__["data"][0]
        return address

    def _look_ahead(self) -> None:
        """What each stage must know of those that follow."""
        codes = self._kernels.OPERATION_CODES
        next_mixed, couples = len(self._stages) - 1, False
        for place, stage in reversed(list(enumerate(self._stages))):
            stage["next_mixed"], stage["couples"] = next_mixed, couples
            if stage["code"] == codes["PRODUCT"]:
                next_mixed = place
            couples = couples or stage["code"] == codes["BATCH_NORMALIZATION"]

    def _set_targets(self, t: ArrayLike) -> None:
        outputs = self._last.shape[0]
        targets = self._network.last_layer.prepare(t, self._examples, outputs, _FLOAT64)
        self._labels, self._targets = np.zeros(1, np.int64), np.zeros((1, 1))
        self._powers = np.empty((2 * outputs + 1, self._row))
        if type(self._network.last_layer) is SoftmaxWithLoss:
            self._labels = targets
        else:
            self._targets = np.zeros((outputs, self._row))
            self._targets[:, : self._examples] = targets.T

    def _plan_blocks(self) -> None:
        """How many examples and units are taken at a time, and what work there is to share out."""
        self._widest = max(int(stage["outputs"]) for stage in self._stages)
        columns = max(_BLOCK_BYTES // (16 * self._widest), _BLOCK_COLUMNS[-1])
        padded = -(-self._examples // _VECTOR) * _VECTOR
        if any(stage["couples"] for stage in self._stages):
            self._block_columns = _memory.rows_apart(max(1, min(columns, 264) // padded) * padded, _VECTOR, _FLOAT64)
            self._most_examples = padded
        else:
            self._block_columns = next(fitting for fitting in _BLOCK_COLUMNS if fitting <= columns)
            self._most_examples = min(padded, self._block_columns)
        most_units = max(1, min(_MOST_UNITS, _UNIT_VALUES // self._most_examples))
        items = []
        self._most_units = 1
        for place in self._trained:
            stage = self._stages[place]
            units = int(stage["outputs"])
            parts = -(-units // most_units)
            is_product = stage["code"] == self._kernels.OPERATION_CODES["PRODUCT"]
            for source in range(-1, int(stage["inputs"]) if is_product else 1):
                for part in range(parts):
                    first, last = units * part // parts, units * (part + 1) // parts
                    items.append((place, source, first, last))
                    self._most_units = max(self._most_units, last - first)
        self._items = np.array(items, _ITEM)

    def gradients(self) -> dict[str, np.ndarray]:
        """The central differences by key of `params`."""
        if not self._items.size:
            return self._gradients
        ours, stages, losses = self._kernels, np.array(self._stages), np.empty(self._examples)
        sizes = self._most_units, self._most_examples, self._block_columns, self._widest
        a_thread = -(-ours.perturbation_scratch(*sizes) // _VECTOR) * _VECTOR
        threads = _threads.for_product(self._multiply_adds())
        scratch = np.empty(threads * a_thread + _VECTOR)
        ours.evaluate(stages, self._x, self._labels, self._targets, losses, self._powers, scratch, self._epsilon,
                      self._block_columns, threads)
        if not np.isfinite(losses).all():   # nor is any difference
            return {key: np.full(gradient.shape, np.nan) for key, gradient in self._gradients.items()}
        done = 0
        while done < self._items.size:
            done = ours.perturb(stages, self._items, self._labels, self._targets, losses, self._powers, scratch,
                                self._h, self._epsilon, *sizes, done, _CALL_SECONDS, threads)
        self._add_penalty()
        return self._gradients

    def _multiply_adds(self) -> int:
        """Roughly, for a number of threads: as many as there are values of the next stage to perturb."""
        values = (stage["outputs"] * (stage["inputs"] + 1) * self._stages[int(stage["next_mixed"])]["outputs"]
                  for stage in (self._stages[place] for place in self._trained))
        return 2 * self._examples * int(sum(values))

    def _add_penalty(self) -> None:
        strength = 0.5 * self._network.weight_decay_lambda
        if not strength:
            return
        for key, array in self._network.params.items():
            if key.startswith("W"):
                W = np.asarray(array, np.float64)
                self._gradients[key] += strength * ((W + self._h) ** 2 - (W - self._h) ** 2) / (2 * self._h)


def brute(network: "Network", x: np.ndarray, t: ArrayLike, h: float) -> dict[str, np.ndarray]:
    """The central differences of any network, two evaluations of the whole loss for each parameter."""
    twin = float64_copy(network)
    gradients: dict[str, np.ndarray] = {}
    for key, array in twin.params.items():
        gradients[key] = np.empty(array.shape)
        central_difference(lambda _: twin._loss(x, t, train_flg=True), array, gradients[key].reshape(-1), h)
    return gradients


def float64_copy(network: "Network") -> "Network":
    """A copy of a network for perturbations: all parameters float64, and Dropout off."""
    twin = copy.deepcopy(network)
    twin.dtype = _FLOAT64
    for name, layer in twin.layers.items():
        if isinstance(layer, Dropout):
            twin.layers[name] = _Scale(1.0 - layer.dropout_ratio)
            twin._told_mode.discard(name)
        else:
            _convert(name, layer)
    return twin


def _convert(name: str, layer: Any) -> None:
    """Put float64 copies wherever a layer keeps its parameters: in attributes, or in dicts that are attributes."""
    converted = {id(array): np.array(array, np.float64) for array in getattr(layer, "params", {}).values()}
    places = [vars(layer), *(value for value in vars(layer).values() if isinstance(value, dict))]
    for place in places:
        for key, value in place.items():
            if id(value) in converted:
                place[key] = converted[id(value)]
    _validation.all_float64(name, getattr(layer, "params", {}))


class _Scale:
    """Dropout while it is off."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x * self._factor

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return dout * self._factor
