"""`Network.fit`: its arguments checked, and what happens at the end of each epoch. The epochs are in _epochs.py."""

import contextlib
import copy
import math
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from nnfast import (
    _epochs,
    _fit_validation,
    _inference,
    _plan,
    _ranks,
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
    from nnfast._checkpoint import Kept
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


def fit(network: "Network", x: Any, t: Any, *, num_threads: int | None, comm: Any = None, **options: Any) -> History:
    """`Network.fit`, whose docstring says all."""
    ranks = None if comm is None else _ranks.of(comm)
    if ranks is not None:
        from nnfast import _ranked_fit  # here, for only who trains with others needs it

        return _ranked_fit.fit(ranks, network, x, t, num_threads=num_threads, **options)
    prepared = Fit(network, x, t, **options)
    with _threads.limited(num_threads):
        return _plan.taken(prepared.turns())


class Fit:
    """A fit whose arguments were checked, ready to train epoch by epoch.

    manner: for networks without an `obstacle`. rows, validation_rows: of x and t, int64, to train on and to validate with.
    shared: what fits on the same x and t have in common.
    """

    def __init__(
        self,
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
        block_rows: int | None = None,
        steps_per_epoch: int | None = None,
        verbose: int = 0,
        progress: bool = False,
        manner: _plan.Manner | None = None,
        rows: np.ndarray | None = None,
        validation_rows: np.ndarray | None = None,
        shared: dict[Any, np.ndarray] | None = None,
    ) -> None:
        epochs = _validation.check_count("epochs", epochs)
        batch_size = _validation.check_count("batch_size", batch_size)
        optimizer = SGD() if optimizer is None else _validation.has_methods("optimizer", optimizer, ("update",))
        obstacle = _plan.obstacle(network, optimizer)
        self.is_planned = obstacle is None
        if manner is not None and obstacle is not None:
            raise RuntimeError(f"this cannot be trained in compiled code: {obstacle}")
        source = _sources.source(x, t, sample_weight, network.inputs) if shared is None else None
        if source is None:
            _source_validation.not_streamed(block_rows, steps_per_epoch)
            stream, (data, targets) = None, training_data(
                network, x, t, "x", "t", is_checked_later=self.is_planned, shared=shared)
            weights = _weights(network, targets, sample_weight, class_weight, rows)
            batch_size = min(batch_size, data.shape[0] if rows is None else len(rows))
        else:
            data = targets = weights = _plan.NO_WEIGHTS
            stream = _streams.Stream(network, source, batch_size, block_rows, steps_per_epoch, bool(shuffle), class_weight)
            batch_size = stream.batch_size
            _source_validation.read_once(source, epochs)
            _source_validation.knows_its_steps(schedule, stream.steps)
        if validation_data is not None:
            validation_data = _validation.pair("validation_data", validation_data)
            training_data(network, *validation_data, "validation_data[0]", "validation_data[1]", keeps_rows=False)
        has_validation = validation_data is not None or validation_rows is not None
        self._given, self._validation_data, self._validation_rows = (x, t), validation_data, validation_rows
        self._metrics = _fit_validation.metrics(metrics, Epoch, has_validation)
        self.job = job = _epochs.Job(
            network, data, targets, weights, epochs, batch_size, optimizer, bool(shuffle),
            None if schedule is None else _own(_fit_validation.schedule("schedule", schedule, optimizer)),
            *_fit_validation.limits(clip_value, clip_norm),
            math.inf if time_budget is None else _validation.above_zero("time_budget", time_budget),
            _validation.callables("step_callbacks", step_callbacks), manner, stream,
            history=History(metrics={name: [] for name in self._metrics}), rows=rows)
        self._stopping = None if early_stopping is None else _Stopping(
            _fit_validation.early_stopping(early_stopping), network)
        for watcher in (self._stopping, *_with_those_after(job.schedule)):
            if isinstance(best := getattr(watcher, "best", None), Best):
                _fit_validation.monitor(best.monitor, network.last_layer, has_validation, self._metrics)
        self._callbacks = _validation.callables("callbacks", callbacks)
        self._verbose, self._progress = _validation.check_count("verbose", int(verbose), 0), progress
        checkpoint, resumed_path = _fit_validation.checkpointing(checkpoint, resume)
        job.is_told = bool(
            checkpoint or verbose or self._callbacks or job.step_callbacks or has_validation
            or self._stopping is not None or hasattr(job.schedule, "observe"))
        job.is_watched = job.is_told and manner is None
        job.is_undisturbed = not self.calls_functions
        self._resumed: Any = None
        self._done = 0      # epochs, of a fit that was resumed
        self._keep(checkpoint, resumed_path, has_validation)

    def _keep(self, checkpoint: Checkpoint | None, resumed_path: Path | None, has_validation: bool) -> None:
        """Prepare to keep the fit, and read what was kept of it."""
        if checkpoint is not None or resumed_path is not None:
            from nnfast import _checkpoint, _resume  # here, for only who keeps fits needs json and zipfile

            kept = self._kept(has_validation)
            self.job.saver = None if checkpoint is None else _checkpoint.Saver(checkpoint, kept)
            self._resumed = None if resumed_path is None else _resume.read(resumed_path, kept)

    def _kept(self, has_validation: bool) -> "Kept":
        from nnfast import _checkpoint

        return _checkpoint.Kept(
            self.job, _with_those_after(self.job.schedule), self._stopping, self.is_planned, has_validation)

    def turns(self) -> _plan.Turns[History]:
        """Train; the turns are those of steps in compiled code."""
        job, is_entered = self.job, False
        try:
            with _fit_lock:
                _validation.not_fitting(job.network, _fitting)
                is_entered = True       # before it is: Ctrl-C may come between the two
                _fitting[id(job.network)] = job.network
            if self._resumed is not None:
                job.begun = self._resumed.restore()
            self._done = done = len(job.history.loss)
            with progress_bar(self._progress, job.epochs * job.steps, done * job.steps + job.begun.step, "step") as job.bar:
                yield from self._train()
            if self._progress and isinstance(job.bar, _NoBar):    # there is no tqdm
                print(self.summary(), file=sys.stderr, flush=True)
            return job.history
        finally:
            if is_entered:
                _fitting.pop(id(job.network), None)

    @property
    def calls_functions(self) -> bool:
        """Whether training calls anything that is not ours: that expects to be in the thread that asked for the fit."""
        job = self.job
        if job.manner is not None:
            return job.manner.calls_functions
        return not self.is_planned or bool(self._callbacks or job.step_callbacks or self._metrics) or any(
            type(one).__module__.split(".")[0] != "nnfast" for one in (job.network, *_with_those_after(job.schedule)))

    def summary(self) -> str:
        """What was trained, in a line."""
        history = self.job.history
        seconds = sum(history.seconds[self._done :])
        parts = [f"{name.replace('_', ' ')} {getattr(history, name)[-1]:.4f}"
                 for name in ("loss", "accuracy", "validation_loss", "validation_accuracy") if getattr(history, name)]
        rate = f", {self.job.trained_rows / seconds:,.0f} examples/s" if seconds else ""
        return f"{len(history.loss)}/{self.job.epochs} epochs: {', '.join(parts)}; {seconds:.2f} s of training{rate}"

    def _train(self) -> _plan.Turns[None]:
        job, stopping, done = self.job, self._stopping, self._done
        job.deadline = job.clock() + job.time_budget
        if self._validation_rows is not None:
            x, t = self._given
            self._validation_data = np.asarray(x)[self._validation_rows], np.asarray(t)[self._validation_rows]
        if stopping is None or not stopping.has_waited():   # it may have, in what was resumed
            if job.stream is not None:
                _epochs.streamed(job, done, self._end_epoch, is_planned=self.is_planned)
            elif self.is_planned:
                yield from _epochs.planned(job, done, self._end_epoch)
            else:
                _epochs.layer_by_layer(job, done, self._end_epoch)
        if job.saver is not None:
            job.saver.end()
        if stopping is not None:
            stopping.restore()
            job.history.best_epoch = stopping.best.epoch

    def _end_epoch(self, loss: float, accuracy: float | None, seconds: float, rows: int) -> bool:
        job, stopping, history = self.job, self._stopping, self.job.history
        job.trained_rows += rows
        number = len(history.loss) + 1
        validation_loss, validation_accuracy, metrics = self._evaluated()
        epoch = Epoch(number, job.epochs, loss, accuracy, validation_loss, validation_accuracy, seconds, rows / seconds,
                      job.network, metrics)
        history.append(epoch)
        if self._verbose:
            job.bar.write(str(epoch))
        if hasattr(job.schedule, "observe"):
            job.schedule.observe(epoch)
        answers = [callback(epoch) for callback in self._callbacks]     # all are called, also after one asks to stop
        is_over = self._agreed((stopping is not None and stopping.is_over(epoch)) or True in answers or job.stops)
        if job.saver is not None and job.is_whole:  # it was kept as it stopped, otherwise
            job.saver.after(number)
        return is_over

    def _evaluated(self) -> tuple[float | None, float | None, dict[str, float]]:
        """Loss, accuracy and metrics on the validation data."""
        with _threads.limited(1 if self.job.is_beside else None):
            return evaluated(self.job.network, self._validation_data, self._metrics)

    def _agreed(self, is_over: bool) -> bool:
        """Whether the fit is over, where this process thinks so or not."""
        return is_over


def training_data(
    network: "Network", x: ArrayLike, t: ArrayLike, x_name: str, t_name: str, *, is_checked_later: bool = False,
    keeps_rows: bool = True, shared: dict[Any, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the network's dtype, finite, and targets as `Network.training_step` takes them.

    A plan checks later, when it has a row in the cache, whether it is finite. Rows that are not kept are not converted
    as a whole. shared: conversions of x and t that other networks had made.
    """
    shared = {} if shared is None else shared
    first = type(next(iter(network.layers.values()))).__name__
    rows = _validation.row_shaped(x_name, _validation.numbers(x_name, x), network.inputs, f"layer 1 ({first})")
    _validation.not_empty(x_name, rows)
    if keeps_rows:
        rows = _once(shared, ("x", network.dtype, network._rescales),
                     lambda: network._data(x_name, rows, network.dtype))
    if not is_checked_later:
        for part in _inference.row_slices(rows, are_all=keeps_rows):
            _validation.all_finite(x_name, network._data(x_name, rows[part], network.dtype), part.start)
    if not hasattr(network.last_layer, "prepare"):
        targets = np.asarray(t)
        _validation.same_length(targets, rows.shape[0], t_name, x_name)
        return rows, targets
    outputs = network.outputs if network.outputs is not None else network.predict(rows[:1]).shape[1]
    loss = network.last_layer
    setting = getattr(loss, getattr(loss, "_setting", ""), None)
    targets = _once(shared, (type(loss), repr(setting), outputs, network.dtype),
                    lambda: _finite(t_name, loss.prepare(t, rows.shape[0], outputs, network.dtype)))
    return rows, targets


def _once(shared: dict[Any, np.ndarray], key: Any, made: Callable[[], np.ndarray]) -> np.ndarray:
    if key not in shared:
        shared[key] = made()
    return shared[key]


def _finite(name: str, targets: np.ndarray) -> np.ndarray:
    if targets.dtype.kind == "f":
        _validation.all_finite(name, targets)
    return targets


def _own(schedule: Any) -> Any:
    """A schedule for one fit: a copy, if it learns from the epochs."""
    return copy.deepcopy(schedule) if hasattr(schedule, "observe") else schedule


def _with_those_after(schedule: Any) -> Iterator[Any]:
    """A schedule, what it gives way to, and so on."""
    while schedule is not None:
        yield schedule
        schedule = getattr(schedule, "then", None)


def _weights(
    network: "Network", targets: np.ndarray, sample_weight: ArrayLike | None,
    class_weight: Mapping[int, float] | str | None, rows: np.ndarray | None,
) -> np.ndarray:
    """Of all rows, (N,) of float64, or empty where all are 1; rows: those that are trained on, and so count."""
    if sample_weight is None and class_weight is None:
        return _plan.NO_WEIGHTS
    _fit_validation.weighs_rows(network)
    weights = np.ones(len(targets)) if sample_weight is None else \
        _fit_validation.sample_weight(sample_weight, len(targets))
    if class_weight is not None:
        labels, classes = _fit_validation.classes(targets, network, network.outputs)
        counts = np.bincount(labels if rows is None else labels[rows], minlength=classes)
        weights = weights * _fit_validation.class_weight(class_weight, counts)[labels]
    _fit_validation.some_weight(weights if rows is None else weights[rows])
    return np.ascontiguousarray(weights)


class _Stopping:
    """An `EarlyStopping` at work in one fit."""

    def __init__(self, asked: EarlyStopping, network: "Network") -> None:
        self.best = copy.copy(asked.best)
        self._patience = asked.patience
        self.keeps = asked.restore_best
        self._network = network
        self.state: list[np.ndarray] = []   # copies of the best epoch's

    def settings(self) -> str:
        """How it stops, to compare it with others."""
        best = self.best
        return (f"{best.monitor}, {'more' if best.sign > 0 else 'less'} is better by {best.min_delta:g}, "
                f"patience {self._patience}, restore_best {self.keeps}")

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


def evaluated(
    network: "Network", validation_data: tuple[ArrayLike, ArrayLike] | None, metrics: Mapping[str, Any]
) -> tuple[float | None, float | None, dict[str, float]]:
    """Loss, accuracy and metrics on the validation data."""
    if validation_data is None:
        return None, None, {}
    x, t = validation_data
    loss, accuracy, scores = network._evaluated(x, t)
    if not metrics:
        return loss, accuracy, {}
    scores = network.predict(x) if scores is None else scores
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


def progress_bar(is_shown: bool, total: int, done: int, unit: str) -> Any:
    """total: 0 if nobody knows."""
    if is_shown:
        with contextlib.suppress(ImportError):
            from tqdm.auto import tqdm

            return tqdm(total=total or None, initial=done, unit=unit, leave=False)
    return _NoBar()
