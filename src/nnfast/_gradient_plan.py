"""A forward and backward pass in one call of compiled code, for `Network.gradient`.

The operations are those of a fit (`_plan.py`), but for two things: each pass begins by packing the weights, which may
have changed since the last one, and what would be an update puts the gradient into an array of the user's.
"""

import threading
from operator import is_
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _inference, _kernels, _layout, _plan
from nnfast.layers import BatchNormalization

if TYPE_CHECKING:
    from nnfast.network import Network

_MOST_KEPT = 1 << 27
"""Bytes of a plan that a network keeps for its next gradient."""


class GradientPlan(_plan.PlanBase):
    """A network ready for gradients of at most `batch_size` rows. There must be no obstacle, and `fits` must be true."""

    def __init__(self, network: "Network", batch_size: int) -> None:
        super().__init__(network, 0, batch_size, packs=True)
        self._parts = _parts(network)
        self._optimizer = self._described("gradient")
        self._settings = np.zeros(1, _plan.SETTINGS)
        self._in_use = threading.RLock()
        self._forks = _kernels.forks()
        operations = self._layout.operations
        codes = {code: name for name, code in self._kernels.OPERATION_CODES.items()}
        self._packed = list(self._layout.loss_parameters)
        self._given: list[_layout.Trained] = []       # of which each pass gives gradients
        given: list[tuple[str, int]] = []           # which field of which operation names the array
        for number, operation in enumerate(operations):
            name = codes[int(operation["code"])]
            if name not in ("PACK", "UPDATE", "BATCH_NORMALIZATION_BACKWARD"):
                continue
            for field, offset in (("array", operation["weights"]), ("bias_array", operation["bias"])):
                one = next(one for one in self._layout.trained if one.offset == offset)
                if name == "PACK":
                    operation[field] = len(self._packed)
                    self._packed.append(one.array)
                else:
                    self._given.append(one)
                    given.append((field, number))
        for place, (field, number) in enumerate(given, len(self._packed)):
            operations[field][number] = place

    @property
    def is_stateful(self) -> bool:
        """Whether a pass draws masks or moves running statistics, so that it cannot be done again."""
        return bool(self._layout.dropouts or self._layout.drawn or self._layout.statistics)

    @staticmethod
    def fits(network: "Network") -> bool:
        """Whether all parameters have the shapes that the network was made with, and the layout of the kernels."""
        return _inference.fits(network) and all(
            array.flags.carray and array.dtype.isnative for array in network.params.values())

    def is_current(self, network: "Network", rows: int) -> bool:
        """Whether the plan is still right for the network, and has memory for the rows and for all threads."""
        if self._forks != _kernels.forks():     # another thread of the parent may have had it in use
            return False
        parts = _parts(network)
        return (rows <= self._batch_size and len(parts) == len(self._parts) and all(map(is_, parts, self._parts))
                and self.wanted_threads(rows) <= self._most_threads)

    def gradients(
        self, x: np.ndarray, t: np.ndarray, weights: np.ndarray = _plan.NO_WEIGHTS, least_probability: float = 0
    ) -> tuple[float, dict[str, np.ndarray]]:
        """The mean loss without penalty, and the gradients by key, which the layers get as well.

        x: rows (B, I) of float32 or float64. t: targets as the loss prepares them. weights: of the rows (B,).
        least_probability: as SETTINGS have it.
        """
        with self._in_use:      # one Python thread at a time: there is one arena
            self._settings["least_probability"] = least_probability
            return self._gradients(x, t, weights)

    def _gradients(self, x: np.ndarray, t: np.ndarray, weights: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        found: dict[str, np.ndarray] = {}
        for one in self._given:
            gradient = self._new(one)
            found[one.key] = gradient
            setattr(one.layer, f"d{one.name}", gradient)
        self._arrays = self._kernels.Arrays([*self._packed, *found.values()])
        keys = self.network.generator.integers(1 << 64, size=(1, self._layout.dropouts), dtype=np.uint64) \
            if self._layout.dropouts else _NO_KEYS
        if self._layout.statistics:
            self._load_statistics()
            for one in self._layout.trained:
                if type(one.layer) is BatchNormalization:
                    self._pack(one.array, one.offset, one.size)
        weight = weights.sum() if weights.size else x.shape[0]
        self._settings["weight"] = weight
        self._settings["l2"], self._settings["l1"] = self.network.weight_decay_lambda, self.network.l1_lambda
        losses, correct, progress = np.zeros(1), np.zeros(1, np.int64), np.zeros(1, _plan.PROGRESS)
        masks = self._draw_masks([x.shape[0]], x.shape[0])
        steps = self._prepare(x, t, _AS_THEY_COME, keys, masks, weights, self._optimizer, self._settings, losses, correct,
                              progress, x.shape[0], False, 1)
        self._kernels.train(steps, 0.0, min(self._most_threads, self.wanted_threads(x.shape[0])))
        for layer, first, last in self._layout.drawn:
            layer.mask = masks[0, :, first:last].view(bool)     # as the book's layer would leave it
        if self._layout.statistics:
            self._store_statistics(self._arena)
        total = float(self._losses[: x.shape[0]].sum())
        return total / weight, {one.key: found[one.key] for one in self._layout.trained}

    @staticmethod
    def _new(one: _layout.Trained) -> np.ndarray:
        """Memory for a gradient: what the layer's last one had, if nobody else holds it."""
        array = one.array
        if one.name == "W":
            one.layer.dW = None
            memory: np.ndarray = one.layer._weight_gradients.empty(array.shape, array.dtype)
            return memory
        return np.empty(array.shape, array.dtype)


_AS_THEY_COME = np.empty((1, 0), np.int64)
_NO_KEYS = np.empty((1, 0), np.uint64)


def _parts(network: "Network") -> list[Any]:
    """What a plan was made of: the same objects mean that it is still right."""
    loss = network.last_layer
    return [loss, getattr(loss, getattr(loss, "_setting", ""), None), *_inference.parts(network)]


class GradientPlans:
    """The plan of a network, made anew when its layers or their arrays are other ones, or a batch is larger."""

    def __init__(self) -> None:
        self._plan: GradientPlan | None = None

    def of(self, network: "Network", rows: int) -> GradientPlan | None:
        """None if the network must run layer by layer."""
        plan = self._plan
        if plan is not None and plan.is_current(network, rows):
            return plan
        self._plan = None
        if _plan.obstacle_to_gradient(network) is not None or not GradientPlan.fits(network):
            return None
        plan = GradientPlan(network, rows)
        if plan.nbytes <= _MOST_KEPT:
            self._plan = plan
        return plan

    def __reduce__(self) -> tuple[Any, ...]:
        return GradientPlans, ()    # a copy of the network has arrays of its own
