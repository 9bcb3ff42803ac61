"""`Network.fit`: its arguments checked, then epoch by epoch, in compiled code (_plan.py) or layer by layer."""

import contextlib
import copy
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from nnfast import (
    _fit_validation,
    _forks,
    _inference,
    _plan,
    _source_validation,
    _sources,
    _streams,
    _threads,
    _validation,
)
from nnfast._monitor import Best
from nnfast.checkpoint import Checkpoint
from nnfast.early_stopping import EarlyStopping
from nnfast.optimizer import SGD, Optimizer
from nnfast.trainer import Epoch, History, Step

if TYPE_CHECKING:
    from nnfast._checkpoint import Saver
    from nnfast.network import Network

_fit_lock = threading.Lock()
_fitting: dict[int, "Network"] = {}     # networks that are being trained, by id; not an attribute, which a copy would have


def _after_fork_in_child() -> None:
    """Another thread of the parent may have held the lock of `fit`.

    What that thread trained is refused in the child: nobody goes on with it, and its optimiser is between two steps.
    """
    global _fit_lock
    _fit_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


@dataclass
class _Job:
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
    is_watched: bool = False    # whether somebody looks at the network after each epoch
    bar: Any = None
    deadline: float = math.inf
    stops: bool = False     # a step's callback said so
    history: History = field(default_factory=History)
    trained_rows: int = 0       # in all epochs of this fit
    is_whole: bool = True   # whether the last epoch went over all rows
    begun: _plan.Begun = _plan.NOT_BEGUN    # of the next epoch, where one was resumed
    saver: "Saver | None" = None

    @property
    def steps(self) -> int:
        """Of an epoch; 0 if nobody knows."""
        return -(-len(self.x) // self.batch_size) if self.stream is None else self.stream.steps

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

    def watch(self, epoch: int, done: int) -> Callable[[int, float], bool] | None:
        """What hears of each step, by its number after those that are done and its loss, and says whether to stop."""
        if not self.step_callbacks:
            return None

        def hear(number: int, loss: float) -> bool:
            step = Step(done + number, epoch, loss, self.network)
            self.stops = True in [callback(step) for callback in self.step_callbacks]
            return self.stops

        return hear


def fit(
    network: "Network",
    x: Any,
    t: Any,
    *,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer | Any,
    validation_data: tuple[ArrayLike, ArrayLike] | None,
    shuffle: bool,
    sample_weight: Any,
    class_weight: Mapping[int, float] | str | None,
    block_rows: int | None,
    steps_per_epoch: int | None,
    schedule: Any,
    clip_value: float | None,
    clip_norm: float | None,
    early_stopping: EarlyStopping | None,
    metrics: Mapping[str, Callable[[ArrayLike, np.ndarray], float]] | None,
    time_budget: float | None,
    checkpoint: Checkpoint | None,
    resume: str | os.PathLike[str] | bool | None,
    callbacks: Iterable[Callable[[Epoch], bool | None]],
    step_callbacks: Iterable[Callable[[Step], bool | None]],
    verbose: int,
    progress: bool,
    num_threads: int | None,
    manner: _plan.Manner | None = None,
) -> History:
    """`Network.fit`, whose docstring says all: check everything, then train epoch by epoch.

    manner: for networks without an `obstacle`.
    """
    epochs = _validation.check_count("epochs", epochs)
    batch_size = _validation.check_count("batch_size", batch_size)
    optimizer = SGD() if optimizer is None else _validation.has_methods("optimizer", optimizer, ("update",))
    obstacle = _plan.obstacle(network, optimizer)
    is_planned = obstacle is None
    if manner is not None and obstacle is not None:
        raise RuntimeError(f"this cannot be trained in compiled code: {obstacle}")
    source = _sources.source(x, t, sample_weight, network.inputs)
    if source is None:
        _source_validation.not_streamed(block_rows, steps_per_epoch)
        stream, (rows, targets) = None, training_data(network, x, t, "x", "t", is_checked_later=is_planned)
        weights, batch_size = _weights(network, targets, sample_weight, class_weight), min(batch_size, rows.shape[0])
    else:
        rows = targets = weights = _plan.NO_WEIGHTS
        stream = _streams.Stream(network, source, batch_size, block_rows, steps_per_epoch, bool(shuffle), class_weight)
        batch_size = stream.batch_size
        _source_validation.read_once(source, epochs)
        _source_validation.knows_its_steps(schedule, stream.steps)
    if validation_data is not None:
        validation_data = _validation.pair("validation_data", validation_data)
        training_data(network, *validation_data, "validation_data[0]", "validation_data[1]", keeps_rows=False)
    metrics = _fit_validation.metrics(metrics, Epoch, validation_data is not None)
    job = _Job(
        network, rows, targets, weights, epochs, batch_size, optimizer, bool(shuffle),
        None if schedule is None else _own(_fit_validation.schedule("schedule", schedule, optimizer)),
        *_fit_validation.limits(clip_value, clip_norm),
        math.inf if time_budget is None else _validation.above_zero("time_budget", time_budget),
        _validation.callables("step_callbacks", step_callbacks), manner, stream,
        history=History(metrics={name: [] for name in metrics}))
    stopping = None if early_stopping is None else _Stopping(_fit_validation.early_stopping(early_stopping), network)
    for watcher in (stopping, *_with_those_after(job.schedule)):
        if isinstance(best := getattr(watcher, "best", None), Best):
            _fit_validation.monitor(best.monitor, network.last_layer, validation_data is not None, metrics)
    callbacks = _validation.callables("callbacks", callbacks)
    verbose = _validation.check_count("verbose", int(verbose), 0)
    checkpoint, resumed_path = _fit_validation.checkpointing(checkpoint, resume)
    job.is_watched = bool(
        checkpoint or verbose or callbacks or job.step_callbacks or validation_data or stopping is not None
        or hasattr(job.schedule, "observe")) and manner is None
    limited = _threads.limited(num_threads)
    resumed = None
    if checkpoint is not None or resumed_path is not None:
        from nnfast import _checkpoint, _resume  # here, for only who keeps fits needs json and zipfile

        kept = _checkpoint.Kept(job, _with_those_after(job.schedule), stopping, is_planned, validation_data is not None)
        job.saver = None if checkpoint is None else _checkpoint.Saver(checkpoint, kept)
        resumed = None if resumed_path is None else _resume.read(resumed_path, kept)
    is_entered = False
    try:
        with _fit_lock:
            _validation.not_fitting(network, _fitting)
            is_entered = True       # before it is: Ctrl-C may come between the two
            _fitting[id(network)] = network
        if resumed is not None:
            job.begun = resumed.restore()
        done = len(job.history.loss)
        with limited, _progress_bar(progress, epochs * job.steps, done * job.steps + job.begun.step) as job.bar:
            _train(job, is_planned, validation_data, metrics, stopping, callbacks, verbose)
        if progress and isinstance(job.bar, _NoBar):    # there is no tqdm
            print(_summary(job, done), file=sys.stderr, flush=True)
        return job.history
    finally:
        if is_entered:
            _fitting.pop(id(network), None)


def training_data(
    network: "Network", x: ArrayLike, t: ArrayLike, x_name: str, t_name: str, *, is_checked_later: bool = False,
    keeps_rows: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the network's dtype, finite, and targets as `Network.training_step` takes them.

    A plan checks later, when it has a row in the cache, whether it is finite. Rows that are not kept are not converted
    as a whole.
    """
    first = type(next(iter(network.layers.values()))).__name__
    rows = _validation.row_shaped(x_name, _validation.numbers(x_name, x), network.inputs, f"layer 1 ({first})")
    _validation.not_empty(x_name, rows)
    if keeps_rows:
        rows = network._data(x_name, rows, network.dtype)
    if not is_checked_later:
        for part in _inference.row_slices(rows, are_all=keeps_rows):
            _validation.all_finite(x_name, network._data(x_name, rows[part], network.dtype), part.start)
    if not hasattr(network.last_layer, "prepare"):
        targets = np.asarray(t)
        _validation.same_length(targets, rows.shape[0], t_name, x_name)
        return rows, targets
    outputs = network.outputs if network.outputs is not None else network.predict(rows[:1]).shape[1]
    targets = network.last_layer.prepare(t, rows.shape[0], outputs, network.dtype)
    if targets.dtype.kind == "f":
        _validation.all_finite(t_name, targets)
    return rows, targets


def _own(schedule: Any) -> Any:
    """A schedule for one fit: a copy, if it learns from the epochs."""
    return copy.deepcopy(schedule) if hasattr(schedule, "observe") else schedule


def _with_those_after(schedule: Any) -> Iterator[Any]:
    """A schedule, what it gives way to, and so on."""
    while schedule is not None:
        yield schedule
        schedule = getattr(schedule, "then", None)


def _weights(
    network: "Network", targets: np.ndarray, sample_weight: ArrayLike | None, class_weight: Mapping[int, float] | str | None
) -> np.ndarray:
    """Of the rows, (N,) of float64, or empty where all are 1."""
    if sample_weight is None and class_weight is None:
        return _plan.NO_WEIGHTS
    _fit_validation.weighs_rows(network)
    weights = np.ones(len(targets)) if sample_weight is None else \
        _fit_validation.sample_weight(sample_weight, len(targets))
    if class_weight is not None:
        labels, classes = _fit_validation.classes(targets, network, network.outputs)
        counts = np.bincount(labels, minlength=classes)
        weights = weights * _fit_validation.class_weight(class_weight, counts)[labels]
    return _fit_validation.some_weight(weights)


class _Stopping:
    """An `EarlyStopping` at work in one fit."""

    def __init__(self, asked: EarlyStopping, network: "Network") -> None:
        self.best = copy.copy(asked.best)
        self._patience = asked.patience
        self.keeps = asked.restore_best
        self._network = network
        self.state: list[np.ndarray] = []   # copies of the best epoch's

    def is_over(self, epoch: "Epoch") -> bool:
        """Look at an epoch, keep the weights if it is the best one, and say whether to stop."""
        if self.best.observe(epoch) and self.keeps:
            self.state = [array.copy() for array in self._network.state()]
        return self.has_waited()

    def has_waited(self) -> bool:
        """Whether it is long enough since the best epoch."""
        return self.best.waited >= self._patience

    def restore(self) -> None:
        """The best weights into the network, unless they are there."""
        if self.state and self.best.waited:
            for array, best in zip(self._network.state(), self.state, strict=True):
                array[...] = best


def _train(
    job: _Job, is_planned: bool, validation_data: tuple[ArrayLike, ArrayLike] | None, metrics: Mapping[str, Any],
    stopping: _Stopping | None, callbacks: list[Callable[[Epoch], bool | None]], verbose: int,
) -> None:
    history = job.history
    is_over = stopping is not None and stopping.has_waited()    # it may have, in what was resumed
    job.deadline = time.perf_counter() + job.time_budget
    train = _streamed if job.stream is not None else _planned if is_planned else _layer_by_layer
    epochs = train(job, len(history.loss), is_planned) if not is_over else ()
    for number, (loss, accuracy, seconds, rows) in enumerate(epochs, len(history.loss) + 1):
        evaluated = _evaluated(job.network, validation_data, metrics)
        epoch = Epoch(number, job.epochs, loss, accuracy, *evaluated[:2], seconds, rows / seconds, job.network, evaluated[2])
        history.append(epoch)
        if verbose:
            job.bar.write(str(epoch))
        if hasattr(job.schedule, "observe"):
            job.schedule.observe(epoch)
        answers = [callback(epoch) for callback in callbacks]   # all are called, also after one asks to stop
        is_over = (stopping is not None and stopping.is_over(epoch)) or True in answers or job.stops
        job.trained_rows += rows
        if job.saver is not None and job.is_whole:  # it was kept as it stopped, otherwise
            job.saver.after(number)
        if is_over:
            break
    if job.saver is not None:
        job.saver.end()
    if stopping is not None:
        stopping.restore()
        history.best_epoch = stopping.best.epoch


# By epoch: mean loss, accuracy if it means something, seconds, and rows; fewer than there are if the time was over.
_Results = Iterator[tuple[float, float | None, float, int]]

_EPOCHS_SECONDS = 0.1
"""Epochs that nobody watches are trained together, for about so long."""

_MOST_ROWS = 1 << 20
"""In the orders of epochs that are trained together: 8 MB."""


def _planned(job: _Job, first: int, is_planned: bool) -> _Results:
    """Train in compiled code, after the first epochs: one at a time where somebody looks at the network after each."""
    network, optimizer = job.network, job.optimizer
    optimizer.states(network.params)    # refuses what does not fit
    plan = _plan.Plan(network, optimizer, job.batch_size, job.weights, job.clip_value, job.clip_norm, job.manner)
    done, together = first, 1
    while done < job.epochs and (done == first or time.perf_counter() <= job.deadline):
        begun = job.begin()
        started = time.perf_counter() - begun.seconds
        trained = plan.train(
            job.x, job.t, together, job.shuffle, done + 1, job.bar.update,
            rates=job.rates(done * job.steps, together * job.steps), deadline=job.deadline,
            watch=job.watch(done + 1, done * job.steps), begun=begun, saver=job.saver)
        seconds = (time.perf_counter() - started) / len(trained)
        for loss, weight, correct, rows in trained:
            job.is_whole = rows == len(job.x)
            yield loss / (weight or 1), correct / rows if network.last_layer.is_classifier else None, seconds, rows
        done += together
        if not job.is_watched:
            most = min(job.epochs - done, max(1, _MOST_ROWS // job.x.shape[0]))
            if job.manner is not None:
                most = min(most, job.manner.most_together())
            together = max(1, min(most, int(_EPOCHS_SECONDS / seconds)))


def _layer_by_layer(job: _Job, first: int, is_planned: bool) -> _Results:
    for number in range(first + 1, job.epochs + 1):
        begun = job.begin()
        started = time.perf_counter() - begun.seconds
        done = (number - 1) * job.steps
        with _undone_if_stopped(job):
            loss, weight, correct, rows = _steps(
                job, job.x, job.t, job.weights, number, 0, job.rates(done, job.steps), job.watch(number, done), begun)
            _validation.weights_are_finite(job.network.params, number, job.optimizer, job.x, job.t)
        job.is_whole = rows == len(job.x)
        yield loss / (weight or 1), None if correct is None else correct / rows, time.perf_counter() - started, rows
        if time.perf_counter() > job.deadline:
            return


def _streamed(job: _Job, first: int, is_planned: bool) -> _Results:
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
        started = time.perf_counter()
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
                job.is_whole = not (job.stops or time.perf_counter() > job.deadline)
                if not job.is_whole:
                    break
            else:
                _fit_validation.some_weight(totals[1:2])
        done += steps
        loss, weight, correct, rows = totals.tolist()
        yield loss / (weight or 1), correct / rows if has_accuracy else None, time.perf_counter() - started, int(rows)
        if time.perf_counter() > job.deadline:
            return


@contextlib.contextmanager
def _undone_if_stopped(job: _Job) -> Iterator[None]:
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
    job: _Job, x: np.ndarray, t: np.ndarray, weights: np.ndarray, number: int, done: int, rates: np.ndarray | None,
    watch: Callable[[int, float], bool] | None, begun: _plan.Begun = _plan.NOT_BEGUN,
) -> tuple[float, float, int | None, int]:
    """One pass over data, after some steps of the epoch that are done: loss, weight, rows classified right, rows."""
    network, optimizer = job.network, job.optimizer
    total, weight, rows, correct = begun.loss, 0.0, 0, begun.correct
    params = network.params
    # Rows are gathered into the same memory every step: fresh memory costs more than copying them.
    memory = np.empty((job.batch_size, x.shape[1]), x.dtype)
    for step, batch in enumerate(_batches(job, x.shape[0]), 1):
        batch_rows = min(job.batch_size, x.shape[0] - rows)
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
        is_over = (watch is not None and watch(step, loss)) or time.perf_counter() > job.deadline
        if job.saver is not None and job.stream is None and step < job.steps and (
                is_over or time.perf_counter() >= job.saver.due):
            _validation.weights_are_finite(params, number, optimizer, x, t)
            job.saver.within(step, total, correct)
        if is_over:
            break
    return total, weight, correct, rows


def _batches(job: _Job, rows: int) -> Iterator[Any]:
    """Which rows each step takes: indices, or slices where they are consecutive."""
    _forks.draws(job.network)
    order = job.network.generator.permutation(rows) if job.shuffle else None
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


def _evaluated(
    network: "Network", validation_data: tuple[ArrayLike, ArrayLike] | None, metrics: Mapping[str, Any]
) -> tuple[float | None, float | None, dict[str, float]]:
    """Loss, accuracy and metrics on the validation data."""
    if validation_data is None:
        return None, None, {}
    is_classifier = getattr(network.last_layer, "is_classifier", True)
    loss, accuracy = network.loss(*validation_data), network.accuracy(*validation_data) if is_classifier else None
    if not metrics:
        return loss, accuracy, {}
    x, t = validation_data
    scores = network.predict(x)
    return loss, accuracy, {name: _fit_validation.metric_value(name, metric(t, scores)) for name, metric in metrics.items()}


class _NoBar:
    """Stands in for a progress bar that nobody asked for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, steps: int) -> None:
        pass

    def write(self, line: str) -> None:
        print(line, flush=True)


def _progress_bar(progress: bool, total: int, done: int) -> Any:
    """Of steps; total: 0 if nobody knows."""
    if progress:
        with contextlib.suppress(ImportError):
            from tqdm.auto import tqdm

            return tqdm(total=total or None, initial=done, unit="step", leave=False)
    return _NoBar()


def _summary(job: _Job, first: int) -> str:
    """The fit in a line, whose first epochs were those of another one."""
    history = job.history
    seconds = sum(history.seconds[first:])
    parts = [f"{name.replace('_', ' ')} {getattr(history, name)[-1]:.4f}"
             for name in ("loss", "accuracy", "validation_loss", "validation_accuracy") if getattr(history, name)]
    rate = f", {job.trained_rows / seconds:,.0f} examples/s" if seconds else ""
    return f"{len(history.loss)}/{job.epochs} epochs: {', '.join(parts)}; {seconds:.2f} s of training{rate}"
