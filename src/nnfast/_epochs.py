"""The epochs of a fit: in compiled code (_plan.py), layer by layer, or on what is read in blocks (_streams.py)."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _fit_validation, _forks, _plan, _streams, _validation
from nnfast.optimizer import Optimizer
from nnfast.trainer import History, Step

if TYPE_CHECKING:
    from nnfast._checkpoint import Saver
    from nnfast._ranks import Ranks
    from nnfast.network import Network

EndEpoch = Callable[[float, float | None, float, int], bool]
"""What hears of each epoch its mean loss, its accuracy if that means something, its seconds and its rows (fewer than there are
if the time was over), and says whether it was the last one."""


@dataclass
class Job:
    """What is trained, and how: the checked arguments that both ways of training need."""

    network: "Network"
    x: np.ndarray
    t: np.ndarray
    weights: np.ndarray     # of the rows; empty: all are 1
    epochs: int
    batch_size: int
    optimizer: Any
    shuffle: bool
    schedule: Any
    clip_value: float | None
    clip_norm: float | None
    time_budget: float
    step_callbacks: list[Callable[[Step], bool | None]]
    manner: _plan.Manner | None = None
    stream: _streams.Stream | None = None   # x, t and weights are empty then
    is_watched: bool = False    # whether somebody looks at the network after each epoch,
    is_told: bool = True        # or hears of it at least
    is_undisturbed: bool = False    # nobody else's function is called, which might change something
    bar: Any = None
    deadline: float = math.inf
    stops: bool = False     # a step's callback said so
    history: History = field(default_factory=History)
    trained_rows: int = 0       # in all epochs of this fit
    is_whole: bool = True   # whether the last epoch went over all rows
    begun: _plan.Begun = _plan.NOT_BEGUN    # of the next epoch, where one was resumed
    saver: "Saver | None" = None
    rows: np.ndarray | None = None      # of x, t and the weights, int64; None: all
    is_beside: bool = False     # others, which have the other threads
    waited: float = 0.0         # seconds for its turn, beside them
    ranks: "Ranks | None" = None    # that train together; x, t and the weights are this one's

    @property
    def count(self) -> int:
        """Rows of an epoch."""
        if self.ranks is not None:
            return sum(self.ranks.rows)
        return len(self.x) if self.rows is None else len(self.rows)

    @property
    def steps(self) -> int:
        """Of an epoch; 0 if nobody knows."""
        return -(-self.count // self.batch_size) if self.stream is None else self.stream.steps

    def clock(self) -> float:
        """Seconds since some moment, but for those that it has waited."""
        return time.perf_counter() - self.waited

    def plan(self) -> _plan.Plan:
        """Made for these batches."""
        how = self.network, self.optimizer, self.batch_size, self.weights, self.clip_value, self.clip_norm
        if self.ranks is None:
            return _plan.Plan(*how, self.manner)
        from nnfast import _ranked_plan

        return _ranked_plan.RankedPlan(*how, ranks=self.ranks)

    def is_late(self) -> bool:
        """Whether the time is over; ranks find that out together at the end of an epoch."""
        return self.ranks is None and self.clock() > self.deadline

    def in_steps(self) -> contextlib.AbstractContextManager[None]:
        """A context of steps in compiled code."""
        return contextlib.nullcontext() if self.ranks is None else self.ranks.steps()

    def begin(self) -> _plan.Begun:
        """Begin the next epoch, and tell how far it has come already."""
        begun, self.begun = self.begun, _plan.NOT_BEGUN
        if self.saver is not None:
            self.saver.begin(begun)
        return begun

    def rates(self, done: int, steps: int) -> np.ndarray | None:
        """What the learning rate is multiplied by, in each of some steps after those that are done."""
        if self.schedule is None:
            return None
        # Rounded alike, however many steps are trained at a time.
        positions = np.arange(done, done + steps) / self.steps
        return _fit_validation.factors("schedule", self.schedule(positions, self.epochs), len(positions))

    def record(self, trained: list[tuple[float, float, int, int]], seconds: float) -> None:
        """Note epochs that nobody is told of, each of which took so long."""
        history = self.history
        history.loss += [loss / (weight or 1) for loss, weight, _, _ in trained]
        if self.network.last_layer.is_classifier:
            history.accuracy += [correct / rows for _, _, correct, rows in trained]
        history.seconds += [seconds] * len(trained)
        self.trained_rows += sum(rows for *_, rows in trained)

    def watch(self, epoch: int, done: int) -> Callable[[int, float], bool] | None:
        """What hears of each step, by its number after those that are done and its loss, and says whether to stop."""
        if not self.step_callbacks:
            return None

        def hear(number: int, loss: float) -> bool:
            step = Step(done + number, epoch, loss, self.network)
            self.stops = True in [callback(step) for callback in self.step_callbacks]
            return self.stops

        return hear


_EPOCHS_SECONDS = 0.1
"""Epochs that nobody watches are trained together, for about so long."""

_MOST_ROWS = 1 << 18
"""In the orders of epochs that are trained together: 2 MB, as an L2 cache holds. With 8 MB two fits of 20-50-5 beside each other,
10,000 rows and 40 epochs, took 1.02 to 1.04 times as long."""

# Of the first ones nobody knows how long they take: so long, if a core is four times as slow as one with AVX-512.
_MULTIPLY_ADD_SECONDS = 3e-10
_STEP_SECONDS = 3e-6


def planned(job: Job, first: int, end_epoch: EndEpoch) -> _plan.Turns[None]:
    """Train in compiled code, after the first epochs: one at a time where somebody looks at the network after each."""
    network, optimizer = job.network, job.optimizer
    optimizer.states(network.params)    # refuses what does not fit
    plan = job.plan()
    done = first
    together = _together(
        job, done, _MULTIPLY_ADD_SECONDS * job.count * plan.multiply_adds + _STEP_SECONDS * job.steps)
    while done < job.epochs and (done == first or not job.is_late()):
        begun = job.begin()
        started = job.clock() - begun.seconds
        rates, watch = job.rates(done * job.steps, together * job.steps), job.watch(done + 1, done * job.steps)
        with job.in_steps():
            trained = yield from plan.turns(
                job.x, job.t, together, job.shuffle, done + 1, job.bar.update, rows=job.rows, rates=rates,
                deadline=job.deadline, clock=job.clock, watch=watch, begun=begun, saver=job.saver,
                goes_on=job.is_undisturbed)
        seconds = (job.clock() - started) / len(trained)
        if not job.is_told:     # 10 microseconds less an epoch, which may take 100
            job.record(trained, seconds)
            trained = []
        for loss, weight, correct, rows in trained:
            job.is_whole = rows == job.count
            accuracy = correct / rows if network.last_layer.is_classifier else None
            if end_epoch(loss / (weight or 1), accuracy, seconds, rows):
                return
        done += together
        together = _together(job, done, seconds)


def _together(job: Job, done: int, seconds: float) -> int:
    """How many epochs to train together, after those that are done, if each takes so long."""
    if job.is_watched:
        return 1
    most = min(job.epochs - done, _MOST_ROWS // job.count, int(_EPOCHS_SECONDS / seconds))
    if job.manner is not None:
        most = min(most, job.manner.most_together())
    return max(1, most)


def layer_by_layer(job: Job, first: int, end_epoch: EndEpoch) -> None:
    """Train, after the first epochs, as `Network.training_step` and the optimiser do it."""
    for number in range(first + 1, job.epochs + 1):
        begun = job.begin()
        started = job.clock() - begun.seconds
        done = (number - 1) * job.steps
        with _undone_if_stopped(job):
            loss, weight, correct, rows = _steps(
                job, job.x, job.t, job.weights, number, 0, job.rates(done, job.steps), job.watch(number, done), begun)
            _validation.weights_are_finite(job.network.params, number, job.optimizer, job.x, job.t)
        job.is_whole = rows == job.count
        accuracy = None if correct is None else correct / rows
        if end_epoch(loss / (weight or 1), accuracy, job.clock() - started, rows) or job.clock() > job.deadline:
            return


def streamed(job: Job, first: int, end_epoch: EndEpoch, *, is_planned: bool) -> None:
    """Train on what is read, part by part: a part is to the plan an epoch of its own. Kept at the ends of epochs only."""
    network, optimizer = job.network, job.optimizer
    stream: Any = job.stream    # there is one
    plan = None
    if is_planned:
        optimizer.states(network.params)    # refuses what does not fit
        plan = _plan.Plan(
            network, optimizer, job.batch_size, _plan.NO_WEIGHTS, job.clip_value, job.clip_norm, job.manner)
    has_accuracy = getattr(network.last_layer, "is_classifier", False)
    done = first * job.steps
    for number in range(first + 1, job.epochs + 1):
        job.begin()
        started = job.clock()
        totals = np.zeros(4)    # loss, weight, correct, rows
        steps = 0
        with _undone_if_stopped(job), stream.epoch(number) as parts:
            for part in parts:
                rates = job.rates((number - 1) * job.steps + part.first_step, part.steps(job.batch_size))
                watch = job.watch(number, done + part.first_step)
                found: tuple[float, float, int | None, int]
                if plan is not None:
                    found = plan.train_part(
                        part, job.shuffle, number, job.bar.update, rates=rates, deadline=job.deadline, watch=watch)
                else:
                    if part.checks_data:
                        part.refuse_odd()
                    found = _steps(job, part.x, part.t, part.weights, number, part.first_step, rates, watch)
                    _validation.weights_are_finite(network.params, number, optimizer, part.x, part.t)
                has_accuracy = has_accuracy and found[2] is not None
                totals += [found[0], found[1], found[2] or 0, found[3]]
                steps = part.first_step + -(-found[3] // job.batch_size)
                job.is_whole = not (job.stops or job.clock() > job.deadline)
                if not job.is_whole:
                    break
            else:
                _fit_validation.some_weight(totals[1:2])
        done += steps
        loss, weight, correct, rows = totals.tolist()
        accuracy = correct / rows if has_accuracy else None
        if end_epoch(loss / (weight or 1), accuracy, job.clock() - started, int(rows)) or job.clock() > job.deadline:
            return


@contextlib.contextmanager
def _undone_if_stopped(job: Job) -> Iterator[None]:
    """Stopped by an exception, everything is as before."""
    network, optimizer = job.network, job.optimizer
    before = [array.copy() for array in network.state()]
    generator_before = network.generator.bit_generator.state
    optimizer_before = optimizer.snapshot() if isinstance(optimizer, Optimizer) else None
    try:
        yield
    except BaseException:
        for array, old in zip(network.state(), before, strict=True):
            array[...] = old
        network.generator.bit_generator.state = generator_before
        if optimizer_before is not None:
            optimizer.restore(optimizer_before)
        raise


def _steps(
    job: Job, x: np.ndarray, t: np.ndarray, weights: np.ndarray, number: int, done: int, rates: np.ndarray | None,
    watch: Callable[[int, float], bool] | None, begun: _plan.Begun = _plan.NOT_BEGUN,
) -> tuple[float, float, int | None, int]:
    """One pass over data, after some steps of the epoch that are done: loss, weight, rows classified right, rows."""
    network, optimizer = job.network, job.optimizer
    total, weight, rows, correct = begun.loss, 0.0, 0, begun.correct
    params = network.params
    # Rows are gathered into the same memory every step: fresh memory costs more than copying them.
    memory = np.empty((job.batch_size, x.shape[1]), x.dtype)
    for step, batch in enumerate(_batches(job, x.shape[0]), 1):
        batch_rows = len(batch) if isinstance(batch, np.ndarray) else batch.stop - batch.start
        of_rows = {"sample_weight": weights[batch]} if weights.size else {}
        batch_weight = float(of_rows["sample_weight"].sum()) if of_rows else batch_rows
        weight += batch_weight
        rows += batch_rows
        if step <= begun.step:      # all that it drew is drawn after the order
            network.generator.bit_generator.state = begun.generator
            continue
        x_batch = x[batch] if isinstance(batch, slice) else _gathered(x, batch, memory)
        loss, right, gradients = network.training_step(x_batch, t[batch], **of_rows)
        _validation.loss_is_finite(loss, number, done + step, optimizer, x, t)
        with _multiplied_lr(optimizer, None if rates is None else rates[step - 1]):
            optimizer.update(params, _clipped(gradients, job.clip_value, job.clip_norm))
        total += loss * batch_weight
        correct = None if right is None or correct is None else correct + right
        job.bar.update(1)
        is_over = (watch is not None and watch(step, loss)) or job.clock() > job.deadline
        if job.saver is not None and job.stream is None and step < job.steps and (
                is_over or time.perf_counter() >= job.saver.due):
            _validation.weights_are_finite(params, number, optimizer, x, t)
            job.saver.within(step, total, correct)
        if is_over:
            break
    return total, weight, correct, rows


def _batches(job: Job, rows: int) -> Iterator[Any]:
    """Which rows each step takes: indices, or slices where they are consecutive."""
    _forks.draws(job.network)
    rows = rows if job.rows is None else len(job.rows)
    order = job.network.generator.permutation(rows) if job.shuffle else None
    if job.rows is not None:
        order = job.rows if order is None else job.rows[order]
    for first in range(0, rows, job.batch_size):
        part = slice(first, min(first + job.batch_size, rows))
        yield part if order is None else order[part]


def _gathered(x: np.ndarray, rows: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """x[rows], written into the first rows of `memory`."""
    # mode="clip": the rows are known to be there, and "raise" would gather into a buffer first.
    return np.take(x, rows, axis=0, out=memory[: len(rows)], mode="clip")


@contextlib.contextmanager
def _multiplied_lr(optimizer: Any, rate: float | None) -> Iterator[None]:
    """For one update."""
    if rate is None:
        yield
        return
    lr = optimizer.lr
    optimizer.lr = lr * rate
    try:
        yield
    finally:
        optimizer.lr = lr


def _clipped(
    gradients: dict[str, np.ndarray], clip_value: float | None, clip_norm: float | None
) -> dict[str, np.ndarray]:
    if clip_value is not None:
        return {key: np.clip(gradient, -clip_value, clip_value) for key, gradient in gradients.items()}
    if clip_norm is not None:
        norm = math.sqrt(sum(float(np.sum(np.square(gradient, dtype=np.float64))) for gradient in gradients.values()))
        if norm > clip_norm:
            return {key: gradient * (clip_norm / norm) for key, gradient in gradients.items()}
    return gradients
