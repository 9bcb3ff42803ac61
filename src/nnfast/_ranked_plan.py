"""A plan whose batches are divided among ranks: processes that each hold rows of their own, and all of the weights.

A step is walked from one sum over all ranks to the next (`_core_ranks.pxi`): batch normalisation's, which are those of the
whole batch, and the gradients', after which every rank makes the same update. What is drawn is drawn alike: masks belong
to the row's place in the whole batch. What the ranks say to each other goes through `_ranks.py`.
"""

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _threads
from nnfast._layout import SIGNALS
from nnfast._plan import NO_WEIGHTS, Begun, Plan, Sums, Turn, Turns

if TYPE_CHECKING:
    from nnfast._ranks import Ranks
    from nnfast.network import Network

_SHARE = np.dtype([(name, np.int64) for name in ("rows", "first", "place", "together")])

_STOP = 1 - SIGNALS
"""The signal by which a rank says that all shall stop after the step."""

# Sums of gradients overlap with the computation of the next ones where these are many bytes, and many rows are summed up
# for them. With two ranks on one machine and 784-1024-1024-10, 7.4 MB, a step took 12.7 instead of 12.5 milliseconds with
# 200 rows in a batch, 40.6 instead of 44.9 with 1,000, 122 instead of 126 with 3,000.
_OVERLAPPED_BYTES = 1 << 20
_OVERLAPPED_ROWS = 256

_NONE = -1
"""No sum is left."""


class RankedPlan(Plan):
    """A network and an optimiser, ready to train in batches of at most `batch_size` rows of all ranks together.

    weights: of this rank's rows. ranks: the processes, with the rows that each takes of each batch. overlaps: sum the
    gradients of each layer while those of the layers before it are computed; where that pays, if it is not said. There
    must be no `obstacle`.
    """

    _is_divided = True

    def __init__(
        self, network: "Network", optimizer: Any, batch_size: int, weights: np.ndarray = NO_WEIGHTS,
        clip_value: float | None = None, clip_norm: float | None = None, *, ranks: "Ranks", overlaps: bool | None = None,
    ) -> None:
        self._ranks = ranks
        self._rows: np.ndarray = ranks.shares.sum(axis=1)   # of each batch of an epoch
        own = ranks.shares[:, ranks.rank]
        self._own_batches = np.zeros(len(own), _SHARE)
        self._own_batches["rows"], self._own_batches["first"] = own, own.cumsum() - own
        self._own_batches["place"] = ranks.shares[:, : ranks.rank].sum(axis=1)
        self._own_batches["together"] = self._rows
        super().__init__(network, optimizer, max(1, int(own.max())), weights, clip_value, clip_norm)
        self._finished = self._arena[: self._layout.kept].copy()
        if overlaps is None:
            nbytes = self._layout.kept_gradients * self._arena.itemsize
            overlaps = nbytes >= _OVERLAPPED_BYTES and self._rows.max() >= _OVERLAPPED_ROWS * ranks.size
        self._places = self._summed_places(overlaps)
        # The sum that all ranks make next, should this one fail before it: one of a step, or one between steps.
        self._place = 0
        self._between: np.ndarray | None = None
        self._vote = np.zeros(1 + SIGNALS)
        self._steps_ahead = 0

    def _summed_places(self, overlaps: bool) -> list[tuple[Any, np.ndarray]]:
        """The sums of a step in their order: how each is made, and of which array."""
        layout, places, size = self._layout, [], 0
        codes = {code: name for name, code in self._kernels.OPERATION_CODES.items()}
        for operation in layout.operations:
            name, columns = codes[int(operation["code"])], int(operation["outputs"])
            if name == "BATCH_NORMALIZATION":
                operation["gradient"], operation["bias_gradient"] = size, size + columns + SIGNALS
                places += [(size, columns), (size + columns + SIGNALS, columns)]
                size += 2 * (columns + SIGNALS)
            elif name == "BATCH_NORMALIZATION_BACKWARD":
                operation["gradient"], operation["bias_gradient"] = size, size + columns
                places.append((size, 2 * columns))
                size += 2 * columns + SIGNALS
        sums, gradients = np.zeros(size), layout.gradients
        end = gradients + layout.kept_gradients + SIGNALS
        firsts = [int(operation["gradient"]) for operation in layout.operations if codes[int(operation["code"])] == "UPDATE"]
        firsts = firsts if overlaps and firsts else [gradients]
        self._of_gradients = len(places)
        self._shares = self._kernels.Shares(self._own_batches, sums, end + _STOP, overlaps)
        self._signals = self._arena[end - SIGNALS : end]
        return [
            *((self._ranks.sum_gradients, sums[first : first + columns + SIGNALS]) for first, columns in places),
            *((self._ranks.start_sum, self._arena[first:last]) for first, last in itertools.pairwise(firsts)),
            (self._ranks.sum_gradients, self._arena[firsts[-1] : end]),
        ]

    def turns(
        self, x: np.ndarray, t: np.ndarray, epochs: int, shuffle: bool, number: int, told: Callable[[int], None],
        **more: Any,
    ) -> Turns[list[tuple[float, float, int, int]]]:
        """As those of `Plan`, of this rank's rows. What they give is that of all ranks, which stop alike."""
        self._told, self._place = told, 0
        self._totals = np.zeros(4 + 2 * epochs + SIGNALS)
        self._between = np.zeros(epochs * len(self._rows) + SIGNALS) if self._weights.size else None
        return super().turns(x, t, epochs, shuffle, number, lambda steps: None, **more)

    def _prepare(self, *arguments: Any) -> Any:
        settings, progress, most_steps = arguments[7], arguments[10][0], arguments[13]
        done = int(progress["epoch"]) * len(self._rows) + int(progress["step"])
        self._steps_ahead = min(most_steps, len(settings) - done)
        return super()._prepare(*arguments)

    def _take(self, turn: Turn, num_threads: int | None) -> float:
        """Steps, until there are no more or some rank wants to stop: it is the same step everywhere."""
        places, signals, advance = self._places, self._signals, self._kernels.advance
        last, steps, computed, is_new = len(places) - 1, 0, 0.0, False
        threads, seconds = self._threads_now()
        begun = time.perf_counter()
        stops_at, asks_at = begun + turn.seconds, begun + seconds
        while True:
            before = time.perf_counter()
            place = advance(turn.steps, threads)
            now = time.perf_counter()
            computed += now - before
            if place < 0:
                break
            if is_new and now >= asks_at:
                self._note(steps, computed)
                threads, seconds = self._threads_now()
                asks_at, steps, computed = now + seconds, 0, 0.0
            make_sum, array = places[place]
            if place < last:
                make_sum(array)
                self._place, is_new = place + 1, False
                continue
            if now > stops_at:
                signals[_STOP] = 1
            make_sum(array)
            steps += 1
            self._steps_ahead -= 1
            self._place, is_new = 0, True
            if self._steps_ahead == 0 or signals[_STOP] != 0:
                self._between = self._totals
        self._note(steps, computed)
        return now - begun

    def _threads_now(self) -> tuple[int, float]:
        """For the next steps, and for how many seconds."""
        threads, seconds = self._pace.next()
        return min(threads, _threads.get_num_threads()), seconds

    def _note(self, steps: int, computed: float) -> None:
        """That so many steps took so many seconds of this rank's own."""
        if steps:
            self._pace.learn(computed / steps)
            self._told(steps)

    def _own(self, begun: Begun) -> tuple[int, float, int | None]:
        return begun[:3] if self._ranks.rank == 0 else (begun.step, 0.0, 0)

    def _summed(self, own: Sums) -> Sums:
        epochs, totals = len(own.losses), self._totals
        totals[:4] = own.loss, own.correct, own.is_kept, own.is_due
        totals[4 : 4 + epochs], totals[4 + epochs : -SIGNALS] = own.losses, own.epoch_correct
        self._ranks.sum_gradients(totals)
        self._between = self._vote
        loss, correct, savers, due = totals[:4].tolist()
        return Sums(loss, int(correct), totals[4 : 4 + epochs].copy(), totals[4 + epochs : -SIGNALS].astype(np.int64),
                    savers > 0, due > 0)

    def _decided(self, sums: Sums, is_over: bool, is_within: bool) -> tuple[bool, bool]:
        self._vote[0] = is_over
        self._ranks.sum_gradients(self._vote)
        is_over, is_kept = super()._decided(sums, bool(self._vote[0] > 0), is_within)
        self._between = self._vote if is_kept else None
        self._place = _NONE if is_over else 0
        return is_over, is_kept

    def _is_kept(self) -> None:
        self._ranks.sum_gradients(self._vote)   # the file is there, or the rank that writes it has failed
        self._between = None

    def _tell(self, error: BaseException) -> None:
        if self._ranks.has_failed or (self._between is None and self._place == _NONE):
            return
        if self._between is not None:
            array = self._between
        elif self._place < self._of_gradients:
            array = self._places[self._place][1]
        else:
            for start_sum, gradient in self._places[self._place : -1]:
                start_sum(gradient)
            array = self._places[-1][1]
        self._ranks.fail(error, array)

    def _draw(self, rows: np.ndarray, epochs: int, steps: int, shuffle: bool) -> tuple[np.ndarray, np.ndarray]:
        """Orders of this rank's rows, from one number that is the same on all ranks; and keys of the masks."""
        generator = self.network.generator
        orders = np.empty((epochs, len(rows) if shuffle else 0), np.int64)
        keys = np.empty((epochs, steps, self._layout.dropouts), np.uint64)
        for epoch in range(epochs):
            if shuffle:
                orders[epoch] = self._ranks.order(int(generator.integers(1 << 64, dtype=np.uint64)), len(rows))
            keys[epoch] = generator.integers(1 << 64, size=keys[epoch].shape, dtype=np.uint64)
        return orders, keys.reshape(epochs * steps, self._layout.dropouts)

    def _masks_from(self, step: int, steps: int, rows: int) -> np.ndarray:
        """Of the whole batches, as one process would draw them; this rank's rows of them."""
        largest = int(self._rows.max())
        numbers = [number % len(self._rows) for number in self._masked_steps(step, steps, largest)]
        drawn = self._draw_masks(self._rows[numbers].tolist(), largest)
        masks = np.zeros((len(numbers), self._batch_size, self._layout.mask_columns), np.uint8)
        for mask, of_all, own in zip(masks, drawn, self._own_batches[numbers], strict=True):
            mask[: own["rows"]] = of_all[own["place"] : own["place"] + own["rows"]]
        return masks

    def _weights_of_steps(self, orders: np.ndarray, rows: int, steps: int) -> np.ndarray:
        own_weights = self._between
        if own_weights is None:     # no row has one
            return super()._weights_of_steps(orders, rows, steps)
        own_rows, firsts = self._own_batches["rows"], self._own_batches["first"]
        for place, order in enumerate(orders):
            weights = np.append(self._weights[order] if orders.shape[1] else self._weights, 0.0)
            own_weights[place * steps : (place + 1) * steps] = np.where(own_rows > 0, np.add.reduceat(weights, firsts), 0)
        self._ranks.sum_gradients(own_weights)
        self._between = None
        return own_weights[:-SIGNALS]

    def _rows_of_steps(self, rows: int) -> np.ndarray:
        of_all: np.ndarray = self._rows.astype(float)
        return of_all

    def _settings_of_steps(self, weights: np.ndarray, counts: np.ndarray, rates: np.ndarray | None) -> np.ndarray:
        settings = super()._settings_of_steps(weights, counts, rates)
        if self._ranks.rank > 0:
            settings["penalty_share"] = 0   # it is in the loss of the first rank
        return settings
