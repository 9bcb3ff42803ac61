"""Checkpoints: what is kept of a fit, and when. How a fit goes on from one is in _resume.py.

A checkpoint is a file of _model_files.py. Its description has a part "training" besides, and it has arrays whose names
begin with that word.
"""

import math
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _files, _fit_validation, _model_files, _plan
from nnfast._model_files import TRAINING
from nnfast.checkpoint import Checkpoint
from nnfast.layers import BatchNormalization, Dropout
from nnfast.schedules import OnPlateau

if TYPE_CHECKING:
    from nnfast._epochs import Job
    from nnfast._fit import _Stopping
    from nnfast._monitor import Best
    from nnfast.network import Network

HISTORY = ("loss", "accuracy", "validation_loss", "validation_accuracy", "seconds")

SIMPLE = (bool, int, float, str, type(None))


class _Global:
    """``np.random``, as if it were a bit generator."""

    @property
    def state(self) -> Any:
        return np.random.get_state(legacy=False)

    @state.setter
    def state(self, state: Any) -> None:
        np.random.set_state(state)


class Kept:
    """What is kept of a fit, where it lives."""

    def __init__(
        self, job: "Job", schedules: Iterable[Any], stopping: "_Stopping | None", is_planned: bool,
        has_validation: bool,
    ) -> None:
        self.job, self.schedules, self.stopping, self.is_planned = job, list(schedules), stopping, is_planned
        self.network, self.optimizer = job.network, job.optimizer
        self.generators = [self.network.generator.bit_generator, *_generators_of_layers(self.network)]
        self.facts = self._facts(has_validation)
        # Refuses what cannot be kept, before the training.
        _model_files.text_of(self.contents(_plan.NOT_BEGUN, self.generators[0].state)[0])

    def _facts(self, has_validation: bool) -> dict[str, Any]:
        """What must be the same in a fit that goes on, under names that a message may use."""
        job, stopping = self.job, self.stopping
        described = _model_files.described(self.network, own_only=False)
        layers = [", ".join(f"{name} {value}" for name, value in layer.items() if name != "name").removeprefix("kind ")
                  for layer in described.pop("layers")]
        del described["format_version"]
        return {
            **described, "number of layers": len(layers),
            **{f"layer {place}": layer for place, layer in enumerate(layers, 1)},
            "optimizer": type(self.optimizer).__name__, "data read in blocks": job.stream is not None,
            # Of each rank, if there are several: with other shares other rows would come together.
            "number of rows": job.ranks.rows if job.ranks is not None else
            job.count if job.stream is None else job.stream.rows,
            "batch_size": job.batch_size, "shuffle": job.shuffle, "weights of rows": bool(job.weights.size),
            "schedule": [getattr(one, "__name__", type(one).__name__) for one in self.schedules],
            "clip_value": job.clip_value, "clip_norm": job.clip_norm,
            "early_stopping": None if stopping is None else [stopping.best.monitor, stopping.best.sign, stopping.keeps],
            "validation_data": has_validation, "metrics": list(job.history.metrics),
            "random generators": [_fit_validation.bit_generator(one.state) for one in self.generators],
            "a compiled epoch": self.is_planned,
        }

    def contents(self, begun: _plan.Begun, generator: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Description and arrays, at a step of an epoch before which the network's generator was in a state."""
        history, stopping = self.job.history, self.stopping
        arrays = written(self.network)
        values, states = _attributes(f"optimizer {type(self.optimizer).__name__}", self.optimizer, self.network)
        for name, of_keys in states.items():
            arrays |= {f"{TRAINING}.optimizer.{name}.{key}": array for key, array in of_keys.items()}
        has_best = stopping is not None and stopping.keeps and stopping.best.epoch is not None
        if stopping is not None and has_best:
            arrays |= {f"{TRAINING}.best.{name}": array.astype(arrays[name].dtype, copy=False)
                       for name, array in zip(live(self.network), stopping.state, strict=True)}
        kept = [name for name in HISTORY if getattr(history, name)]
        arrays |= {f"{TRAINING}.history.{name}": np.array(getattr(history, name)) for name in kept}
        if kept:
            arrays |= {f"{TRAINING}.metrics.{place}": np.array(metric, np.float64)
                       for place, metric in enumerate(history.metrics.values(), 1)}
        training = {
            "fit": self.facts, "epoch": len(history.loss), **begun._asdict(), "history": kept, "optimizer": values,
            "states": {name: {"dtype": _dtype_of(of_keys), "keys": list(of_keys)} for name, of_keys in states.items()},
            "early_stopping": None if stopping is None else {**best_of(stopping.best), "has_state": has_best},
            "schedule": [learned(one) for one in self.schedules],
            "generator_before": _as_json(generator), "generator": _as_json(begun.generator),
            "generators_of_layers": [_as_json(one.state) for one in self.generators[1:]],
        }
        return {**_model_files.described(self.network, own_only=False), TRAINING: training}, arrays


class Saver:
    """Writes the file of a fit when it is time."""

    def __init__(self, checkpoint: Checkpoint, kept: Kept) -> None:
        self._path, self._kept = checkpoint.path, kept
        self._every = checkpoint.every or math.inf
        self._seconds = checkpoint.seconds or math.inf
        self.due = time.perf_counter() + self._seconds
        """When it is time, also within an epoch."""
        self._is_behind = False
        _files.require_writable(self._path, "name another file with Checkpoint")
        _files.remove_unfinished(self._path)

    def begin(self, begun: _plan.Begun) -> None:
        """An epoch begins, or goes on."""
        self._before = self._kept.generators[0].state
        self._begun = time.perf_counter() - begun.seconds

    def within(self, step: int, loss: float, correct: int | None) -> None:
        """So many steps of the epoch are over, and have given so much; all arrays are up to date."""
        generator = None if self._kept.is_planned else self._kept.generators[0].state
        self._write(_plan.Begun(step, loss, correct, time.perf_counter() - self._begun, generator), self._before)

    def after(self, epoch: int) -> None:
        """The epoch is over, and told of."""
        self._is_behind = True
        if epoch % self._every == 0 or time.perf_counter() >= self.due:
            self.end()

    def end(self) -> None:
        """The fit is over: keep what has not been kept yet."""
        if self._is_behind:
            self._write(_plan.NOT_BEGUN, self._kept.generators[0].state)

    def _write(self, begun: _plan.Begun, generator: Any) -> None:
        _model_files.write(self._path, *self._kept.contents(begun, generator))
        self._is_behind = False
        self.due = time.perf_counter() + self._seconds


# Networks


def written(network: "Network") -> dict[str, np.ndarray]:
    """The network's arrays as a file holds them, those of layers written in Python included."""
    arrays = dict(_model_files.arrays_of(network))
    return {name: arrays.get(name, array) for name, array in live(network).items()}


def live(network: "Network") -> dict[str, np.ndarray]:
    """The arrays of `Network.state`, in its order, by their names in a file."""
    found, normalizations = dict(network.params), 0
    for place, layer in enumerate(network.layers.values(), 1):
        names = [f"{TRAINING}.layer{place}.{number}" for number in range(len(getattr(layer, "statistics", ())))]
        if isinstance(layer, BatchNormalization):
            normalizations += 1
            names = [f"running_mean{normalizations}", f"running_var{normalizations}"]
        for name, array in zip(names, getattr(layer, "statistics", ()), strict=True):
            if array.dtype.kind not in "biuf":
                _fit_validation.not_keepable(f"layer {place}", f"statistics of {array.dtype.name}", array)
            found[name] = array
    return found


# Generators


def _generators_of_layers(network: "Network") -> list[Any]:
    """Bit generators of layers that are not the network's; if one draws from np.random, or may, that is the last."""
    found: dict[int, Any] = {}
    is_global = False
    for layer in network.layers.values():
        generator = getattr(layer, "generator", None)
        if generator is None:
            is_global = is_global or isinstance(layer, Dropout) or not _model_files.is_own(layer)
        elif (bits := getattr(generator, "bit_generator", None)) is not None:
            found[id(bits)] = bits
    found.pop(id(network.generator.bit_generator), None)
    return [*found.values(), *([_Global()] if is_global else [])]


def _as_json(state: Any) -> Any:
    """A generator's state, whose arrays become lists."""
    if isinstance(state, dict):
        return {name: _as_json(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state


# What optimisers, schedules and early stopping have learned


def _attributes(what: str, thing: Any, network: "Network") -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """An object's attributes that are numbers and the like, and those that are arrays by key of the parameters."""
    values: dict[str, Any] = {}
    states: dict[str, dict[str, np.ndarray]] = {}
    if not hasattr(thing, "__dict__"):
        _fit_validation.not_keepable(what, "__slots__", thing)
    for name, value in vars(thing).items():
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, SIMPLE):
            values[name] = value
            continue
        if not isinstance(value, dict):
            _fit_validation.not_keepable(what, name, value)
        arrays = {key: np.asarray(array) for key, array in value.items() if key in network.params}
        for key, array in arrays.items():
            is_float = array.dtype.newbyteorder("=").name in _model_files._DTYPES
            if not is_float or array.shape != network.params[key].shape:
                _fit_validation.not_keepable(what, f"{name}[{key!r}]", value[key])
        states[name] = {key: array.astype(_dtype_of(arrays), copy=False) for key, array in arrays.items()}
    return values, states


def _dtype_of(arrays: Mapping[str, np.ndarray]) -> str:
    return np.result_type(*arrays.values()).name if arrays else "float32"


def learned(schedule: Any) -> dict[str, Any]:
    """What a schedule has learned from the epochs."""
    if isinstance(schedule, OnPlateau):
        return {"factor": schedule.factor, **best_of(schedule.best)}
    if not hasattr(schedule, "observe") or type(schedule).__module__ == "nnfast.schedules":
        return {}
    found = {name: value.item() if isinstance(value, np.generic) else value
             for name, value in getattr(schedule, "__dict__", {}).items() if name != "then"}
    for name, value in found.items():
        if not isinstance(value, SIMPLE):
            _fit_validation.not_keepable(f"schedule {type(schedule).__name__}", name, value)
    return found


def best_of(best: "Best") -> dict[str, Any]:
    return {"value": None if best.epoch is None else best.value, "waited": best.waited, "epoch": best.epoch}
