"""The plan: a network flattened into a list of operations on one arena, which compiled code walks on its own.

A `Plan` lays out the arena once, for the largest batch: weights and optimiser state in panels, and every value and
gradient that a step needs. `load` copies the parameters in, `store` copies them back; between the two, epochs run
without the interpreter. What a plan cannot hold (a layer, loss or optimiser written in Python) runs layer by layer,
and `obstacle` says why.

Layout of an operation: `_core_plan.pxi`; how the list is walked: `_core_step.pxi`.
"""

import contextlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from nnfast import _forks, _orders, _threads, _validation
from nnfast._kernels import kernels
from nnfast._layout import LAYERS, LOSSES, Layout
from nnfast.layers import Dropout
from nnfast.losses import FunctionLoss
from nnfast.optimizer import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop

if TYPE_CHECKING:
    from nnfast._checkpoint import Saver
    from nnfast._streams import Part
    from nnfast.network import Network

_OPTIMIZER = np.dtype(
    [(name, np.int64) for name in ("rule", "updates", "has_limit", "has_norm_limit")]
    + [(name, np.float64) for name in ("first", "second", "weight_decay", "epsilon", "limit")]
)
SETTINGS = np.dtype([(name, np.float64) for name in ("lr", "weight", "l2", "l1", "loss_share", "penalty_share", "least_probability")])
"""Of one step: learning rate, what its rows weigh together, strengths of the penalties, what the sum of its losses and its penalty
count in the loss of the epoch, and the least probability that a logarithm is taken of, 0 for the book's way."""

NO_WEIGHTS = np.empty(0)
"""Of rows that all weigh 1."""

@dataclass(frozen=True)
class Manner:
    """How scikit-learn trains, where that is not how `Network.fit` does.

    Penalties are divided by what the rows of a batch weigh together. The loss of an epoch is the mean over its rows,
    whatever they weigh, of the losses of their batches, which are means over the outputs of a regression, too. Logarithms
    are taken of probabilities of at least the dtype's epsilon.
    """

    order: Callable[[int], np.ndarray]
    """Of so many rows, for an epoch."""

    outputs: int
    """By which losses are divided."""

    most_together: Callable[[], int]
    """How many epochs may be trained before somebody looks at the first of them."""

    calls_functions: bool
    """Whether what is called after an epoch calls functions of somebody else's."""


PROGRESS = np.dtype(
    [(name, np.int64) for name in ("epoch", "step", "correct")] + [("loss", np.float64), ("is_finite", np.int64)]
)


class Begun(NamedTuple):
    """How far an epoch has come: steps, their summed loss, rows classified right, and seconds.

    And where the network's generator is, if layers draw from it step by step.
    """

    step: int = 0
    loss: float = 0.0
    correct: int | None = 0
    seconds: float = 0.0
    generator: Any = None


NOT_BEGUN = Begun()


class Sums(NamedTuple):
    """What the steps gave so far, on all ranks together: in the epoch that is not over, and in those that are."""

    loss: float
    correct: int
    losses: np.ndarray
    epoch_correct: np.ndarray
    is_kept: bool = False       # somebody has a saver,
    is_due: bool = False        # and it is due

Result = TypeVar("Result")


class Turn(NamedTuple):
    """Steps that a fit wants to be taken, and for how long at most."""

    plan: "Plan"
    steps: Any          # as compiled code has prepared them
    progress: np.ndarray
    in_epoch: int       # steps
    seconds: float
    lasted: float       # seconds, of the turn before; infinity: there was none

    def take(self, num_threads: int | None = None) -> float:
        """Take them on so many threads, or on as many as are worth their while; how many seconds that took."""
        return self.plan._take(self, num_threads)


Turns = Generator[Turn, float, Result]
"""A fit on its way: it gives its turns, is told how many seconds each took, and returns what it gave."""


def taken(turns: Turns[Result], take: Callable[[Turn], float] = Turn.take) -> Result:
    """What a fit gives whose turns are taken as they come."""
    with contextlib.closing(turns):     # also after Ctrl-C between two lines below, whatever holds the traceback
        try:
            turn = next(turns)
            while True:
                try:
                    seconds = take(turn)
                except BaseException as error:  # noqa: BLE001 - the fit puts everything in order and raises it
                    turn = turns.throw(error)
                else:
                    turn = turns.send(seconds)
        except StopIteration as end:
            result: Result = end.value
            return result


# By optimiser: its rule, and the attributes that the rule calls first and second.
OPTIMIZERS = {
    SGD: ("SGD", ()),
    Momentum: ("Momentum", ("momentum",)),
    Nesterov: ("Nesterov", ("momentum",)),
    AdaGrad: ("AdaGrad", ()),
    RMSprop: ("RMSprop", ("decay_rate",)),
    Adam: ("Adam", ("beta1", "beta2")),
    AdamW: ("Adam", ("beta1", "beta2")),
}

_BLOCK_BYTES = 1 << 18
"""Of values and gradients in a block of rows, which goes through all layers before the next: a part of the L2 cache."""

_FEWEST_BLOCK_ROWS = 128
"""Fewer would read the weights too often (ROW_BLOCK in _core.pyx)."""

_GROUP_BYTES = 3 << 17
"""Of gradients of outputs for which a copy of inputs is used in an update, so that both stay in the L2 cache."""

_MASK_BYTES = 1 << 22
"""Of masks that are drawn from numpy.random at a time."""


def obstacle(network: "Network", optimizer: Any) -> str | None:
    """What keeps a fit of `network` with `optimizer` from running as a plan; None if nothing does."""
    if type(optimizer) not in OPTIMIZERS:
        return f"the optimiser {type(optimizer).__name__} is written in Python"
    if not network.trains_as_given():
        return f"{type(network).__name__} has a training step of its own"
    return obstacle_to_gradient(network)


def obstacle_to_gradient(network: "Network") -> str | None:
    """What keeps a forward and backward pass from running as a plan; None if nothing does."""
    for name, layer in network.layers.items():
        if type(layer) not in LAYERS:
            return f"layer {name} is written in Python"
        if type(layer) is Dropout and layer.generator is not None and layer.generator is not network.generator:
            return f"layer {name} has a generator of its own"
    if isinstance(network.last_layer, FunctionLoss):
        return f"the loss is a Python function, {network.last_layer.name}"
    if type(network.last_layer) not in LOSSES:
        return f"the loss {type(network.last_layer).__name__} is written in Python"
    arrays = list(network.params.values())
    if not arrays:
        return "there is nothing to train"
    if network.inputs is None or network.outputs is None:
        return "its numbers of inputs and outputs are not known"
    if any(array.dtype.newbyteorder("=") != network.dtype for array in network.state()):
        return "its parameters are not of one dtype"
    if any(np.may_share_memory(one, other) for one, other in combinations(arrays, 2)):
        return "two of its parameters share memory"
    return None


def described(network: "Network", optimizer: Any, batch_size: int) -> str:
    """How a fit would train, in a line for `Network.summary`."""
    why = obstacle(network, optimizer)
    if why is not None:
        return f"trains layer by layer: {why}"
    megabytes = Plan(network, optimizer, batch_size).nbytes / 1e6
    return (f"trains in compiled code, in {megabytes:.1f} MB of memory "
            f"(batches of {batch_size:,} with {type(optimizer).__name__})")


class PlanBase:
    """A network laid out for steps of at most `batch_size` rows, with so many optimiser's states for each parameter.

    Parameters and statistics lie in an arena, in panels. What `packs` does so itself, at the beginning of each step.
    """

    def __init__(
        self, network: "Network", states: int, batch_size: int, *, packs: bool = False, keeps_gradients: bool = False
    ) -> None:
        self.network = network
        self._batch_size = batch_size
        self._kernels = kernels(network.dtype)
        self._layout = layout = Layout(network, states, batch_size, packs, keeps_gradients)
        _forks.draws(network)
        for layer, _, _ in layout.drawn:
            _forks.draws(layer)
        self._most_threads = self.wanted_threads(batch_size)
        self._block_rows = max(_FEWEST_BLOCK_ROWS, _BLOCK_BYTES // layout.row_bytes // 8 * 8)
        panel = self._kernels.PANEL_VECTORS * self._kernels.VECTOR
        depth = min(batch_size, self._kernels.UPDATE_DEPTH)
        self._group = max(1, _GROUP_BYTES // (depth * panel * network.dtype.itemsize))
        self._scratch = layout.kept + layout.size
        self._scratch_size = layout.scratch_size(self._block_rows, self._group * panel, panel)
        self._arena = _aligned_zeros(self._scratch + self._most_threads * self._scratch_size, network.dtype)
        for array, offset in layout.constants:
            self._arena[offset : offset + array.size] = array
        self._finished = self._arena[:0]
        self._arrays = self._kernels.Arrays(layout.loss_parameters)   # that the operations name by their place
        self._shares: Any = None    # of batches, where ranks divide them
        self._losses = np.zeros(batch_size)
        self._correct = np.zeros(batch_size, np.int32)
        # One for each tile, and a tile has at least 4 rows.
        tiles = sum(
            (one.array.shape[0] // 4 + 1) * -(-one.array.shape[-1] // panel) for one in layout.trained)
        self._penalties, self._squares = np.zeros(tiles), np.zeros(tiles if keeps_gradients else 0)

    @property
    def multiply_adds(self) -> int:
        """Of a row in a step."""
        return self._layout.multiply_adds

    @property
    def nbytes(self) -> int:
        """Bytes that are allocated: the arena, what is beside it, and what the last finished epoch left."""
        arrays = (self._layout.operations, self._arena, self._losses, self._correct, self._penalties, self._squares)
        return sum(array.nbytes for array in arrays) + self._layout.kept * self._arena.itemsize

    def wanted_threads(self, rows: int) -> int:
        """Threads that are worth their while for steps of so many rows."""
        return _threads.for_steps(rows, self._layout.multiply_adds)

    def _prepare(
        self, x: np.ndarray, t: np.ndarray, orders: np.ndarray, keys: np.ndarray, masks: np.ndarray, weights: np.ndarray,
        optimizer: np.ndarray, settings: np.ndarray, losses: np.ndarray, correct: np.ndarray, progress: np.ndarray,
        batch_size: int, checks_data: bool, most_steps: int,
    ) -> Any:
        """At most so many steps for compiled code to take, from where the progress is."""
        nothing = np.empty((0, 0), self._arena.dtype)
        labels, targets = (t, nothing) if t.dtype == np.int64 else (np.empty(0, np.int64), t)
        return self._kernels.prepare(
            x, self._layout.operations, self._arrays, self._arena, labels, targets, orders, keys, masks, weights, optimizer,
            settings, self._losses, self._correct, self._penalties, self._squares, self._finished, losses, correct, progress,
            self._layout.kept, batch_size, self._block_rows, self._group, self._scratch,
            self._scratch_size, checks_data, most_steps, self._shares,
        )

    def _draw_masks(self, sizes: list[int], batch_size: int) -> np.ndarray:
        """Masks from numpy.random for batches of so many rows, as the layers one by one would draw them."""
        masks = np.empty((len(sizes), batch_size, self._layout.mask_columns), np.uint8)
        for mask, rows in zip(masks, sizes, strict=True):
            for layer, first, last in self._layout.drawn:
                mask[:rows, first:last] = np.random.rand(rows, last - first) > layer.dropout_ratio
        return masks

    def _described(self, rule: str) -> np.ndarray:
        """An optimiser as compiled code takes it."""
        optimizer = np.zeros(1, _OPTIMIZER)
        optimizer["rule"] = self._kernels.OPTIMIZER_RULES[rule]
        return optimizer

    def _load_statistics(self) -> None:
        for layer, offset in self._layout.statistics:
            padded = self._layout.padded(layer.inputs)
            for number, array in enumerate(layer.statistics, 3):
                self._pack(array, offset + number * padded, padded)

    def _store_statistics(self, memory: np.ndarray) -> None:
        for layer, offset in self._layout.statistics:
            padded = self._layout.padded(layer.inputs)
            for number, array in enumerate(layer.statistics, 3):
                self._unpack(memory, offset + number * padded, padded, array)

    def _pack(self, array: np.ndarray, offset: int, size: int) -> None:
        flags = array.flags
        as_it_is = array.dtype == self._arena.dtype and flags.aligned and (flags.c_contiguous or flags.f_contiguous)
        rows = array if as_it_is else np.ascontiguousarray(array, self._arena.dtype)
        self._kernels.pack(rows.reshape(1, -1) if rows.ndim == 1 else rows, self._arena[offset : offset + size])

    def _unpack(self, memory: np.ndarray, offset: int, size: int, array: np.ndarray) -> None:
        panels = memory[offset : offset + size]
        rows = array if array.flags.carray and array.dtype == panels.dtype else np.empty(array.shape, panels.dtype)
        self._kernels.unpack(panels, rows.reshape(1, -1) if rows.ndim == 1 else rows)
        if rows is not array:
            array[...] = rows


class Plan(PlanBase):
    """A network and an optimiser, ready to train in batches of at most `batch_size` rows.

    There must be no `obstacle`.
    """

    _is_divided = False     # among ranks

    def __init__(
        self, network: "Network", optimizer: Any, batch_size: int, weights: np.ndarray = NO_WEIGHTS,
        clip_value: float | None = None, clip_norm: float | None = None, manner: Manner | None = None,
    ) -> None:
        super().__init__(network, len(optimizer._states), batch_size,
                         keeps_gradients=clip_norm is not None or self._is_divided)
        self.optimizer = optimizer
        self._manner = manner
        self._weights = weights
        self._clip_value, self._clip_norm = clip_value, clip_norm
        self._has_seen_data = False     # and found them finite
        self._is_loaded = False         # what the network and the optimiser have is in the arena, and is
        self._states: dict[str, list[np.ndarray]] = {}      # these, of the optimiser
        self._part: Part | None = None
        workload = batch_size, self._layout.multiply_adds, self._most_threads
        self._lasted = math.inf     # the last turn, seconds
        self._pace = network._paces.setdefault(workload, _threads.Pace(self._most_threads))

    def train_part(
        self, part: "Part", shuffle: bool, number: int, told: Callable[[int], None], **more: Any
    ) -> tuple[float, float, int, int]:
        """Train on a part of the epoch that has a number, as `train` does on all of one."""
        self._part, self._weights, self._has_seen_data = part, part.weights, not part.checks_data
        return self.train(part.x, part.t, 1, shuffle, number, told, **more)[0]

    def train(self, *arguments: Any, **more: Any) -> list[tuple[float, float, int, int]]:
        """What `turns` gives, each of them taken alone."""
        return taken(self.turns(*arguments, **more))

    def turns(
        self, x: np.ndarray, t: np.ndarray, epochs: int, shuffle: bool, number: int, told: Callable[[int], None], *,
        rows: np.ndarray | None = None, rates: np.ndarray | None = None, deadline: float = math.inf,
        clock: Callable[[], float] = time.perf_counter, watch: Callable[[int, float], bool] | None = None,
        begun: Begun = NOT_BEGUN, saver: "Saver | None" = None, goes_on: bool = False,
    ) -> Turns[list[tuple[float, float, int, int]]]:
        """Train on all rows for some epochs, the first of which has a number; `told` hears of every so many steps.

        x may hold NaN or infinity: the first epoch looks at each row when it reads it, and refuses them.
        rows: which of x, t and the weights; all if not given. rates: by which each step's learning rate is multiplied.
        deadline: of the clock, after which the step that runs is the last one. watch: called after each step of one epoch with its number in it and its loss, the network as
        it is then; says whether the step shall be the last one. begun: steps of the first epoch that are over, which
        the generator has not drawn for yet and the optimiser has counted. saver: keeps one epoch, when it is due and when
        that ends early. goes_on: nobody has changed an array since the last call, if there was one.

        Returns by epoch the sum of the losses and of the weights, how many rows were classified right, and how many
        there were: fewer in the last one that ended early. Stopped on the way by an exception, everything is as after
        the last finished epoch.
        """
        generator = self.network.generator
        places = np.arange(x.shape[0]) if rows is None else rows
        count = len(places)
        before, updates = generator.bit_generator.state, getattr(self.optimizer, "iter", 0) - begun.step
        progress = np.zeros(1, PROGRESS)
        progress["step"], progress["loss"], progress["correct"] = self._own(begun)
        is_over = has_stored = False
        loss_before = begun.loss
        losses, correct = np.zeros(epochs), np.zeros(epochs, np.int64)
        rows_of_steps = self._rows_of_steps(count)
        steps = len(rows_of_steps)
        # Perhaps, an epoch; where ranks divide it, one of them may know what this one does not
        ends_within = watch is not None or deadline < math.inf or saver is not None or self._is_divided
        if (epochs > 1 or ends_within) and not self._finished.size:
            self._finished = _aligned_zeros(self._layout.kept, self._arena.dtype)
        try:
            orders, keys = self._draw(places, epochs, steps, shuffle)
            if rows is not None and not shuffle:
                orders = np.tile(rows, (epochs, 1))
            if not (goes_on and self._is_loaded):
                self._load()
            if ends_within:
                self._finished[:] = self._arena[: self._layout.kept]
            optimizer = self._optimizer_described(updates)
            weights = self._weights_of_steps(orders, count, steps)
            counts = weights if self._manner is None else np.tile(rows_of_steps, epochs)
            settings = self._settings_of_steps(weights, counts, rates)
            masks = np.empty((0, 0, 0), np.uint8)
            while not is_over:
                before_them = _steps_taken(progress, steps)
                if self._layout.drawn and not masks.shape[0]:
                    undrawn: Any = before_them, np.random.get_state()
                    masks = self._masks_from(before_them, epochs * steps, count)
                most = 1 if watch is not None else len(masks) if self._layout.drawn else epochs * steps
                prepared = self._prepare(x, t, orders, keys, masks, self._weights, optimizer, settings, losses, correct,
                                         progress, self._batch_size, not self._has_seen_data, most)
                seconds = min(deadline - clock(), math.inf if saver is None else saver.due - time.perf_counter())
                self._lasted = yield Turn(self, prepared, progress, steps, max(seconds, 0), self._lasted)
                taken = _steps_taken(progress, steps)
                masks = masks[taken - before_them :]    # time may have been over before all were used
                told(taken - before_them)
                if not progress["is_finite"]:
                    if self._part is None:
                        _validation.rows_are_finite("x", x, rows)
                    else:
                        self._part.refuse_odd()
                    number += int(progress["epoch"][0])
                    loss, step = float(progress["loss"][0]), int(progress["step"][0])
                    step += 0 if self._part is None else self._part.first_step
                    _validation.loss_is_finite(loss, number, step, self.optimizer, x, t)
                    _validation.weights_are_finite(self._parameters(), number, self.optimizer, x, t)
                sums = self._summed(Sums(
                    float(progress["loss"][0]), int(progress["correct"][0]), losses, correct, saver is not None,
                    saver is not None and time.perf_counter() >= saver.due))
                is_over = taken == epochs * steps or clock() > deadline
                if watch is not None:
                    loss = float(sums.losses[0] if taken == steps else sums.loss) - loss_before
                    has_stored, loss_before = True, sums.loss
                    self._store(self._arena, updates + taken)
                    is_over = watch(taken, loss / (counts[taken - 1] or 1)) or is_over
                    self._load()    # what the watcher may have changed
                    if not is_over:
                        next_one = slice(taken, taken + 1)
                        settings[next_one] = self._settings_of_steps(
                            weights[next_one], counts[next_one], None if rates is None else rates[next_one])
                is_over, is_kept = self._decided(sums, is_over, taken % steps != 0)
                if is_kept:
                    _validation.weights_are_finite(self._parameters(), number, self.optimizer, x, t)
                    has_stored = True
                    self._store(self._arena, updates + taken)
                    if masks.shape[0]:      # drawn for later steps
                        np.random.set_state(undrawn[1])
                        self._masks_from(undrawn[0], taken, count)
                        masks = masks[:0]
                    if saver is not None:
                        saver.within(taken, sums.loss, sums.correct)
                    self._is_kept()
            if taken % steps:   # at the end of an epoch, compiled code looks
                number += int(progress["epoch"][0])
                _validation.weights_are_finite(self._parameters(), number, self.optimizer, x, t)
                has_stored = True
            told_of = -(-taken // steps)
            if told_of < epochs:
                generator.bit_generator.state = before
                self._draw(places, told_of, steps, shuffle and self._manner is None)
            self._store(self._arena, updates + taken)
        except BaseException as error:   # also Ctrl-C between two arrays that are stored
            finished = int(progress["epoch"][0])
            generator.bit_generator.state = before
            self._draw(places, finished, steps, shuffle and self._manner is None)
            if finished or has_stored:
                memory = self._finished if self._finished.size else self._arena
                self._store(memory, updates + max(finished * steps, begun.step))
            self._tell(error)
            raise
        self._has_seen_data = self._is_loaded = True
        if taken % steps:   # the last epoch is unfinished
            sums.losses[told_of - 1], sums.epoch_correct[told_of - 1] = sums.loss, sums.correct
        counts[taken:] = 0
        rows_taken = [int(rows_of_steps.sum())] * told_of
        rows_taken[-1] = int(rows_of_steps[: taken - (told_of - 1) * steps].sum())
        return list(zip(
            sums.losses.tolist(), counts[: told_of * steps].reshape(told_of, steps).sum(axis=1).tolist(),
            sums.epoch_correct.tolist(), rows_taken, strict=False))

    # What is otherwise where ranks divide the batches (_ranked_plan.py).

    def _own(self, begun: Begun) -> tuple[int, float, int | None]:
        """How far an epoch has come here: of what it gave so far, this rank's part."""
        return begun[:3]

    def _summed(self, own: Sums) -> Sums:
        """What the steps gave on all ranks."""
        return own

    def _decided(self, sums: Sums, is_over: bool, is_within: bool) -> tuple[bool, bool]:
        """Whether it is over on all ranks, and whether the epoch, if they are within it, is kept."""
        return is_over, is_within and sums.is_kept and (is_over or sums.is_due)

    def _is_kept(self) -> None:
        """All ranks have kept what they had to."""

    def _tell(self, error: BaseException) -> None:
        """Let the other ranks know of an error."""

    def _take(self, turn: Turn, num_threads: int | None) -> float:
        threads, seconds = self._pace.next() if num_threads is None else (num_threads, _threads.CALL_SECONDS)
        before, started = _steps_taken(turn.progress, turn.in_epoch), time.perf_counter()
        self._kernels.train(turn.steps, min(seconds, turn.seconds), min(threads, _threads.get_num_threads()))
        took = time.perf_counter() - started
        if num_threads is None:
            self._pace.learn(took / max(_steps_taken(turn.progress, turn.in_epoch) - before, 1))
        return took

    def _draw(self, rows: np.ndarray, epochs: int, steps: int, shuffle: bool) -> tuple[np.ndarray, np.ndarray]:
        """Orders of the rows and keys of the masks, as the layers one by one would draw them."""
        generator = self.network.generator
        orders = _orders.empty(epochs, len(rows) if shuffle else 0)
        keys = np.empty((epochs, steps, self._layout.dropouts), np.uint64)
        at_once = 1 if self._layout.dropouts else max(epochs, 1)
        for first in range(0, epochs, at_once):
            drawn = slice(first, first + at_once)
            if shuffle:
                self._shuffle(rows, orders[drawn])
            if self._layout.dropouts:
                keys[drawn] = generator.integers(1 << 64, size=keys[drawn].shape, dtype=np.uint64)
        return orders, keys.reshape(epochs * steps, self._layout.dropouts)

    def _shuffle(self, rows: np.ndarray, orders: np.ndarray) -> None:
        """Draw orders of the rows, for one epoch after the other."""
        if self._manner is None:
            _orders.shuffle(self.network.generator, rows, orders)
            return
        for order in orders:
            order[:] = rows[self._manner.order(len(rows))]

    def _masks_from(self, step: int, steps: int, rows: int) -> np.ndarray:
        """Masks from numpy.random for as many steps as fit into some memory."""
        in_an_epoch = -(-rows // self._batch_size)
        firsts = (number % in_an_epoch * self._batch_size for number in self._masked_steps(step, steps, self._batch_size))
        return self._draw_masks([min(self._batch_size, rows - first) for first in firsts], self._batch_size)

    def _masked_steps(self, step: int, steps: int, rows: int) -> range:
        """For which masks are drawn at a time, of so many rows each, of some steps from one on."""
        return range(step, min(steps, step + max(1, _MASK_BYTES // (rows * self._layout.mask_columns))))

    def _optimizer_described(self, updates: int) -> np.ndarray:
        rule, names = OPTIMIZERS[type(self.optimizer)]
        optimizer = self._described(rule)
        optimizer["updates"] = updates
        for place, name in zip(("first", "second"), names, strict=False):
            optimizer[place] = getattr(self.optimizer, name)
        optimizer["weight_decay"] = getattr(self.optimizer, "weight_decay", 0)
        optimizer["epsilon"] = getattr(self.optimizer, "epsilon", 0)
        if self._clip_value is not None:
            optimizer["has_limit"], optimizer["limit"] = True, self._clip_value
        if self._clip_norm is not None:
            optimizer["has_norm_limit"], optimizer["limit"] = True, self._clip_norm
        return optimizer

    def _weights_of_steps(self, orders: np.ndarray, rows: int, steps: int) -> np.ndarray:
        """What the rows of each step of all epochs weigh together."""
        if not self._weights.size:
            return np.tile(self._rows_of_steps(rows), len(orders))
        firsts = np.arange(0, rows, self._batch_size)
        if not orders.shape[1]:
            return np.tile(np.add.reduceat(self._weights, firsts), len(orders))
        return np.concatenate([np.add.reduceat(self._weights[order], firsts) for order in orders])

    def _rows_of_steps(self, rows: int) -> np.ndarray:
        """Of an epoch."""
        firsts = np.arange(0, rows, self._batch_size)
        return np.minimum(self._batch_size, rows - firsts).astype(float)

    def _settings_of_steps(self, weights: np.ndarray, counts: np.ndarray, rates: np.ndarray | None) -> np.ndarray:
        """Of steps whose rows weigh so much together, and count so much in the loss of an epoch."""
        settings = np.zeros(len(weights), SETTINGS)
        settings["lr"] = self.optimizer.lr if rates is None else self.optimizer.lr * rates
        settings["weight"], settings["penalty_share"], settings["loss_share"] = weights, counts, 1
        settings["l2"], settings["l1"] = self.network.weight_decay_lambda, self.network.l1_lambda
        if self._manner is not None:
            divisors = np.where(weights > 0, weights, 1)
            settings["loss_share"] = counts / divisors / self._manner.outputs
            settings["l2"] = np.where(weights > 0, settings["l2"] / divisors, 0)
            settings["least_probability"] = np.finfo(self._arena.dtype).eps
        return settings

    def _parameters(self) -> dict[str, np.ndarray]:
        """The parameters as they are in the arena, by key: flat, in panels, padded with zeros."""
        return {one.key: self._arena[one.offset : one.offset + one.size] for one in self._layout.trained}

    def _load(self) -> None:
        """Copy parameters, states and statistics into the arena."""
        self._states = states = self.optimizer.states(self.network.params)
        for one in self._layout.trained:
            self._pack(one.array, one.offset, one.size)
            if one.transposed >= 0:
                size = self._layout.padded(one.array.shape[0]) * one.array.shape[1]
                self._pack(one.array.T, self._layout.kept + one.transposed, size)
            for number, state in enumerate(states[one.key]):
                self._pack(state.reshape(one.array.shape), one.state + number * one.size, one.size)
        self._load_statistics()

    def _store(self, memory: np.ndarray, updates: int) -> None:
        """Copy what is kept back into the user's arrays; the optimiser has made so many updates."""
        for one in self._layout.trained:
            self._unpack(memory, one.offset, one.size, one.array)
            for number, state in enumerate(self._states[one.key]):
                self._unpack(memory, one.state + number * one.size, one.size, state.reshape(one.array.shape))
        self._store_statistics(memory)
        if hasattr(self.optimizer, "iter"):
            self.optimizer.iter = updates


def _steps_taken(progress: np.ndarray, steps: int) -> int:
    return int(progress["epoch"][0] * steps + progress["step"][0])


def _aligned_zeros(size: int, dtype: np.dtype) -> np.ndarray:
    """Zeros that begin at a cache line."""
    memory = np.zeros(size * dtype.itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size * dtype.itemsize].view(dtype)
