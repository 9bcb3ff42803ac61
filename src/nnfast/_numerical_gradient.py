"""A network's gradient by perturbation: from what each parameter changes, and by brute force.

Layout of a stage and of an item, and the technique: `_core_gradient.pxi`.
"""

import copy
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _inference, _layout, _memory, _threads, _validation
from nnfast._kernels import central_difference, kernels
from nnfast.activations import Identity
from nnfast.layers import Affine, BatchNormalization, Dropout, Rescale
from nnfast.losses import SoftmaxWithLoss

if TYPE_CHECKING:
    from nnfast.network import Network

_FLOAT64 = np.dtype(np.float64)

_STAGE = np.dtype(
    [(name, np.int64) for name in (
        "code", "inputs", "outputs", "next_mixed", "weights", "bias", "x", "y", "normalized",
    )]
    + [("setting", np.float64)]
)
_ITEM = np.dtype([(name, np.int64) for name in (
    "stage", "source", "first_unit", "last_unit", "first_pair", "last_pair",
)])

_MOST_UNITS = 16        # of an item: what the next product gives is fetched once for all of them
_MOST_CHANGES = 8192    # of an item, units by lanes: twice that, in bytes, is a part of the L2 cache
_BLOCK_BYTES = 1 << 20  # of two blocks
# Columns of a block: whole panels of every build, and an odd number of cache lines, so that what belongs to one lane does
# not all fall into the same few sets of a cache.
_BLOCK_COLUMNS = (264, 216, 168, 120, 72, 24)
_DIFFERENCES = 1 << 22  # of pairs by units that are kept at a time, 32 MiB
_CALL_SECONDS = 0.1     # after which Ctrl-C is noticed
_BOOK_EPSILON = 1e-7    # that is added to a probability before its logarithm is taken


def exact(network: "Network", x: np.ndarray, t: ArrayLike, h: float) -> dict[str, np.ndarray]:
    """The central differences of a network that `fits`, in float64, by key of `params`.

    x: finite rows (B, I), at least one.
    """
    return Perturbation(network, x, t, h, _BOOK_EPSILON).gradients()


def fits(network: "Network") -> bool:
    """Whether all layers and the loss are nnfast's own, so that compiled code can do it.

    Behind other layers it multiplies all columns by one number at most: a `Rescale` by columns, or with an offset, is
    none of its stages.
    """
    behind = itertools.dropwhile(lambda layer: type(layer) is Rescale, network.layers.values())
    return (type(network.last_layer) in _layout.LOSSES and _inference.fits(network)
            and not any(type(layer) is Rescale and (np.ndim(layer.scale) or np.any(layer.offset)) for layer in behind))


class Perturbation:
    """The stages of a network with a batch in them, ready to have each parameter perturbed by h.

    epsilon: inside the logarithm of softmax's cross-entropy.

    Attributes
    ----------
    kinks : dict of str to ndarray of int32
        By key of `params`, if asked for: the place in `layers` of the first ReLU that has a kink within h of the
        parameter, or `no_kink`.
    layers : list of str
        Names of the layers that became stages.
    """

    def __init__(
        self, network: "Network", x: np.ndarray, t: ArrayLike, h: float, epsilon: float, *, finds_kinks: bool = False
    ) -> None:
        self._network, self._h, self._epsilon, self._finds_kinks = network, h, epsilon, finds_kinks
        self._kernels = kernels(_FLOAT64)
        self._codes = self._kernels.OPERATION_CODES
        self._examples = x.shape[0]
        self._group = self._kernels.LANES_LEFT_OUT
        self._row = _memory.rows_apart(self._examples, self._group, _FLOAT64)
        self._arrays: list[np.ndarray] = []     # which the stages name by their place
        self._y = [np.zeros((x.shape[1], self._row))]   # what goes into each stage
        self._stages: list[np.ndarray] = []
        self.layers: list[str] = []
        for name, layer in network.layers.items():
            if type(layer) is Rescale and not self._stages:
                x = layer.rescaled(x, _FLOAT64)
            else:
                self._add(name, layer)
        self._y[0][:, : self._examples] = x.T
        self._add_loss(network.last_layer)
        self._look_ahead()
        self._set_targets(t)
        self._set_sizes()
        self.no_kink = len(self._stages)
        self.kinks: dict[str, np.ndarray] = {}
        self._gradients: dict[str, np.ndarray] = {}

    def _add(self, name: str, layer: Any) -> None:
        kind, inputs = type(layer), self._y[-1].shape[0]
        if kind is Affine:
            self._add_stage(name, "PRODUCT", layer.outputs)
            self._set_parameters(layer.W, layer.b)
        elif kind is BatchNormalization:
            self._add_stage(name, "BATCH_NORMALIZATION", inputs)
            self._set_parameters(layer.gamma, layer.beta)
            self._stages[-1]["normalized"] = self._place_of(np.empty((inputs, self._row)))
        elif kind is Dropout:
            self._add_stage(name, "SCALE", inputs, 1.0 - layer.dropout_ratio)
        elif kind is Rescale:
            self._add_stage(name, "SCALE", inputs, layer.scale)
        elif kind is not Identity:
            self._add_stage(name, _inference.IN_PLACE[kind], inputs, getattr(layer, "slope", 0))

    def _add_loss(self, loss: Any) -> None:
        outputs = self._y[-1].shape[0]
        smoothing, parameters = loss._described(outputs)
        self._add_stage("loss", _layout.LOSSES[type(loss)], outputs, smoothing)
        if parameters is not None:
            self._stages[-1]["weights"] = self._place_of(parameters)
        if smoothing:
            self._epsilon = 0.0

    def _add_stage(self, name: str, code: str, outputs: int, setting: float = 0) -> None:
        stage = np.zeros((), _STAGE)
        stage["code"], stage["setting"] = self._codes[code], setting
        stage["inputs"], stage["outputs"] = self._y[-1].shape[0], outputs
        stage["x"] = self._place_of(self._y[-1])
        self._y.append(np.empty((outputs, self._row)))
        stage["y"] = self._place_of(self._y[-1])
        self._stages.append(stage)
        self.layers.append(name)

    def _set_parameters(self, weights: np.ndarray, bias: np.ndarray) -> None:
        self._stages[-1]["weights"] = self._place_of(np.ascontiguousarray(weights, np.float64))
        self._stages[-1]["bias"] = self._place_of(np.ascontiguousarray(bias, np.float64))

    def _place_of(self, array: np.ndarray) -> int:
        self._arrays.append(array)
        return len(self._arrays) - 1

    def _look_ahead(self) -> None:
        """What must be known of the stages that follow each one."""
        next_mixed, couples = len(self._stages) - 1, False
        self._couples: list[bool] = []      # whether batch normalisation follows
        for place, stage in reversed(list(enumerate(self._stages))):
            stage["next_mixed"] = next_mixed
            self._couples.insert(0, couples)
            if stage["code"] == self._codes["PRODUCT"]:
                next_mixed = place
            couples = couples or stage["code"] == self._codes["BATCH_NORMALIZATION"]
        self._has_batches = couples

    def _set_targets(self, t: ArrayLike) -> None:
        outputs = self._y[-1].shape[0]
        targets = self._network.last_layer.prepare(t, self._examples, outputs, _FLOAT64)
        self._labels, self._targets = np.zeros(1, np.int64), np.zeros((1, 1))
        self._powers = np.empty((2 * outputs + 2, self._row))
        if type(self._network.last_layer) is SoftmaxWithLoss:
            self._labels = targets
        else:
            self._targets = np.zeros((outputs, self._row))
            self._targets[:, : self._examples] = targets.T

    def _set_sizes(self) -> None:
        """How many lanes and units are taken at a time."""
        widest = max(int(stage["outputs"]) for stage in self._stages)
        fitting = max(_BLOCK_BYTES // (2 * _FLOAT64.itemsize * widest), _BLOCK_COLUMNS[-1])
        columns = self._pairs_of_item = next(columns for columns in _BLOCK_COLUMNS if columns <= fitting)
        lanes = columns
        if self._has_batches:
            lanes = max(lanes, -(-self._examples // self._group) * self._group)
            columns = max(columns, _memory.rows_apart(lanes, self._group, _FLOAT64))
        self._most_units = max(1, min(_MOST_UNITS, _MOST_CHANGES // lanes))
        self._sizes = self._most_units, lanes, columns, widest

    def gradients(self) -> dict[str, np.ndarray]:
        """The central differences by key of `params`."""
        a_thread = -(-self._kernels.perturbation_scratch(*self._sizes) // 8) * 8      # whole cache lines
        self._threads = _threads.for_product(self._multiply_adds())
        self._scratch = np.empty(self._threads * a_thread + 8)
        self._losses = np.empty(self._examples)
        self._chain = self._kernels.GradientChain(
            np.array(self._stages), self._kernels.Arrays(self._arrays), self._labels, self._examples, self._row)
        self._kernels.evaluate(self._chain, self._targets, self._losses, self._powers, self._scratch, self._epsilon,
                               self._sizes[2], self._threads)
        is_finite = np.isfinite(self._losses).all()
        keys = iter(self._network.params)
        for place, stage in enumerate(self._stages):
            is_product = stage["code"] == self._codes["PRODUCT"]
            if not is_product and stage["code"] != self._codes["BATCH_NORMALIZATION"]:
                continue
            sources = int(stage["inputs"]) if is_product else 1
            if not is_finite:       # nor is any difference
                differences = np.full((sources + 1, int(stage["outputs"])), np.nan)
                kinks = np.full(differences.shape, self.no_kink, np.int32)
            elif self._couples[place] or not is_product:
                differences, kinks = self._differences_of_sources(place, sources)
            else:
                differences, kinks = self._differences_of_pairs(place)
            self._keep(next(keys), differences[:-1], kinks[:-1])
            self._keep(next(keys), differences[-1:], kinks[-1:])
        self._add_penalty()
        return self._gradients

    def _keep(self, key: str, differences: np.ndarray, kinks: np.ndarray) -> None:
        shape = self._network.params[key].shape
        self._gradients[key] = differences.reshape(shape) / (self._examples * 2 * self._h)
        if self._finds_kinks:
            self.kinks[key] = kinks.reshape(shape)

    def _differences_of_sources(self, place: int, sources: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each parameter, one after the other, with all examples."""
        outputs = int(self._stages[place]["outputs"])
        items = [(place, source, first, last, 0, 0)
                 for source in range(-1, sources) for first, last in self._unit_ranges(outputs)]
        differences = np.empty((sources + 1, outputs))
        kinks = np.empty(differences.shape, np.int32) if self._finds_kinks else _NO_KINKS
        self._perturb(items, np.zeros(1, np.int64), np.zeros(1), differences, kinks)
        return differences, kinks

    def _differences_of_pairs(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each parameter, as sums over the pairs of an example and a value of its inputs."""
        stage, x = self._stages[place], self._y[place]
        sources, outputs = int(stage["inputs"]) + 1, int(stage["outputs"])
        gradients = np.zeros((sources, outputs))
        kinks = np.full(gradients.shape, self.no_kink, np.int32) if self._finds_kinks else _NO_KINKS
        examples = max(1, min(self._examples, _DIFFERENCES // (sources * outputs)))
        table = np.empty(1 << (2 * sources).bit_length(), np.int32)
        pair_examples, pair_values = np.empty(sources * examples, np.int64), np.empty(sources * examples)
        differences = np.empty((0, outputs))
        for first in range(0, self._examples, examples):
            pairs = np.empty((sources, min(examples, self._examples - first)), np.int32)
            count = self._kernels.pair_values(x, first, pairs, pair_examples, pair_values, table)
            if len(differences) < count:
                differences = np.empty((count, outputs))
            kinks_of_pairs = np.empty((count, outputs), np.int32) if self._finds_kinks else _NO_KINKS
            parts = range(0, count, self._pairs_of_item)
            items = [(place, 0, *units, first_pair, min(first_pair + self._pairs_of_item, count))
                     for first_pair in parts for units in self._unit_ranges(outputs)]
            self._perturb(items, pair_examples, pair_values, differences, kinks_of_pairs)
            self._kernels.sum_pairs(pairs, differences, gradients, self._threads)
            if self._finds_kinks:
                _least_of_pairs(pairs, kinks_of_pairs, kinks)
        return gradients, kinks

    def _unit_ranges(self, units: int) -> list[tuple[int, int]]:
        parts = -(-units // self._most_units)
        return [(units * part // parts, units * (part + 1) // parts) for part in range(parts)]

    def _perturb(
        self, items: Sequence[tuple[int, ...]], pair_examples: np.ndarray, pair_values: np.ndarray, differences: np.ndarray,
        kinks: np.ndarray,
    ) -> None:
        all_items, done = np.array(items, _ITEM), 0
        while done < len(items):
            done = self._kernels.perturb(
                self._chain, all_items, self._targets, self._losses, self._powers, pair_examples, pair_values, differences,
                kinks, self._scratch, self._h, self._epsilon, *self._sizes, done, _CALL_SECONDS, self._threads)

    def _multiply_adds(self) -> int:
        """Of the products next to those that are perturbed: what there is to do at least, for a number of threads."""
        return sum(2 * self._examples * int((stage["inputs"] + 1) * stage["outputs"])
                   * int(self._stages[int(stage["next_mixed"])]["outputs"])
                   for stage in self._stages if stage["code"] == self._codes["PRODUCT"])

    def _add_penalty(self) -> None:
        """Of the weights of Affine layers."""
        l2, l1, h = 0.5 * self._network.weight_decay_lambda, self._network.l1_lambda, self._h
        for key, array in self._network.params.items() if l2 or l1 else ():
            if key.startswith("W"):
                W = np.asarray(array, np.float64)
                difference = l2 * ((W + h) ** 2 - (W - h) ** 2) + l1 * (np.abs(W + h) - np.abs(W - h))
                self._gradients[key] += difference / (2 * h)


_NO_KINKS = np.empty((0, 0), np.int32)


def _least_of_pairs(pairs: np.ndarray, kinks_of_pairs: np.ndarray, kinks: np.ndarray) -> None:
    """Each parameter's first kink, of all its pairs'."""
    for row, places in zip(kinks, pairs, strict=True):
        found = kinks_of_pairs[places[places >= 0]]
        if len(found):
            np.minimum(row, found.min(axis=0), out=row)


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
            twin.layers[name] = Scale(1.0 - layer.dropout_ratio)
            twin._told_mode.discard(name)
        else:
            _convert(name, layer)
    return twin


def layer_inputs(twin: "Network", x: np.ndarray) -> tuple[dict[str, Any], Any]:
    """What goes into each layer of such a copy in a training pass, by name, and the scores."""
    inputs, y = {}, x
    for name, layer in twin.layers.items():
        inputs[name] = y
        y = layer.forward(y, *((True,) if name in twin._told_mode else ()))
    return inputs, y


def _convert(name: str, layer: Any) -> None:
    """Put float64 copies wherever a layer keeps its parameters: in attributes, or in dicts that are attributes."""
    converted = {id(array): np.array(array, np.float64) for array in getattr(layer, "params", {}).values()}
    if isinstance(layer, Rescale):
        layer.dtype = _FLOAT64
    places = [vars(layer), *(value for value in vars(layer).values() if isinstance(value, dict))]
    for place in places:
        for key, value in place.items():
            if id(value) in converted:
                place[key] = converted[id(value)]
    _validation.all_float64(name, getattr(layer, "params", {}))


class Scale:
    """Dropout while it is off."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x * self._factor

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return dout * self._factor
