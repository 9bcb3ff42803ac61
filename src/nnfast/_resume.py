"""A fit that goes on from a checkpoint.

Nothing of a file is trusted. Which arrays there must be follows from the network and optimiser that are given, which must
be like those that were kept; all values are looked at, and all arrays read, before anything changes.
"""

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _fit_validation, _model_files, _plan
from nnfast._checkpoint import HISTORY, SIMPLE, Kept, learned, live, written
from nnfast._model_files import TRAINING, _Expected, _FlawError, _is_number, _is_one_of, _is_whole, _require
from nnfast.schedules import OnPlateau

if TYPE_CHECKING:
    from nnfast._monitor import Best

_STATES = {
    "state": 1 << 128, "inc": 1 << 128, "has_uint32": 2, "uinteger": 1 << 32, "pos": 625, "buffer_pos": 5,
    "has_gauss": 2,
}
"""Whole numbers in the states of NumPy's generators, and above all values of them, where it would read beside its arrays."""


class _OtherFitError(Exception):
    """A file keeps another fit than the one that is to go on from it."""


def read(path: Path, kept: Kept) -> "Resumed":
    """What a file holds for a fit, checked; nothing has changed yet."""
    resumed = Resumed(path, kept)
    try:
        with _model_files.reading(path, "a file of a Checkpoint") as file:
            _, resumed.arrays = _model_files.read_npz(file, resumed.expected)
            resumed.check_arrays()
    except _OtherFitError as error:
        raise ValueError(str(error)) from None
    return resumed


class Resumed:
    """A file's contents, and the fit that is to go on from it."""

    def __init__(self, path: Path, kept: Kept) -> None:
        self._path, self._kept = path, kept
        self.arrays: dict[str, np.ndarray] = {}

    def contents(self) -> dict[str, Any]:
        """What was read, for another process to `take`."""
        return {name: value for name, value in vars(self).items() if name != "_kept"}

    def take(self, contents: Mapping[str, Any]) -> None:
        """Be what another process has read and checked, of a fit like this one."""
        vars(self).update(contents)

    def expected(self, description: dict[str, Any]) -> dict[str, _Expected]:
        """The arrays that there must be; first, everything else is looked at."""
        kept = self._kept
        training = description.get(TRAINING)
        _require(isinstance(training, dict),
                 "holds a network, but no fit to go on with: it is not a file of a Checkpoint")
        self._training = dict(training or {})
        found = self._part("fit", dict)
        for what, given in kept.facts.items():
            _require(what in found, f"does not tell its {what}")
            _same(self._path, what, found[what], given)
        self._check_place()
        self._check_generators()
        self._check_optimizer()
        self._check_learned()
        epochs = self._training["epoch"]
        names = self._part("history", list)
        _require(all(isinstance(name, str) and name in HISTORY for name in names)
                 and (not epochs or {"loss", "seconds"} <= set(names)), "has a wrong history")
        names = [f"history.{name}" for name in names]
        if names:
            names += [f"metrics.{place}" for place in range(1, len(kept.job.history.metrics) + 1)]
        arrays = written(kept.network)
        expected = {name: _like(array) for name, array in arrays.items()}
        for name, state in self._training["states"].items():
            expected |= {f"{TRAINING}.optimizer.{name}.{key}": _Expected(np.dtype(state["dtype"]), arrays[key].shape)
                         for key in state["keys"]}
        if kept.stopping is not None and self._training["early_stopping"]["has_state"]:
            expected |= {f"{TRAINING}.best.{name}": _like(array) for name, array in arrays.items()}
        return expected | {f"{TRAINING}.{name}": _Expected(np.dtype(np.float64), (epochs,)) for name in names}

    def _part(self, name: str, kind: type) -> Any:
        part = self._training.get(name)
        _require(isinstance(part, kind), f"has a wrong {name} in its training")
        return part

    def _check_place(self) -> None:
        job, training = self._kept.job, self._training
        epoch: Any = training.get("epoch")
        step: Any = training.get("step")
        _require(_is_whole(epoch, 0) and _is_whole(step, 0) and step < job.steps, "has a wrong place in its training")
        _require(_is_number(training.get("loss"), -math.inf) and _is_number(training.get("seconds"), 0),
                 "has a wrong loss or time")
        correct: Any = training.get("correct")
        _require((correct is None and not self._kept.is_planned) or (_is_whole(correct, 0) and correct <= job.count),
                 "has a wrong number of rows classified right")
        begun = epoch + (step > 0)
        if begun > job.epochs:
            raise _OtherFitError(f"resume is {self._path}, a fit that has begun epoch {begun}, "
                                 f"but epochs is {job.epochs}: ask for as many at least")

    def _check_generators(self) -> None:
        training, generators = self._training, self._kept.generators
        of_layers = self._part("generators_of_layers", list)
        _require(len(of_layers) == len(generators) - 1, "has a wrong number of random generators")
        found = [training.get("generator_before"), *of_layers]
        self._states = [_state_like(one.state, state) for one, state in zip(generators, found, strict=True)]
        has_state = training["step"] > 0 and not self._kept.is_planned
        _require((training.get("generator") is not None) == has_state, "has a wrong random generator")
        self._generator = _state_like(generators[0].state, training["generator"]) if has_state else None

    def _check_optimizer(self) -> None:
        optimizer, network = self._kept.optimizer, self._kept.network
        values, states = self._part("optimizer", dict), self._part("states", dict)
        current = vars(optimizer)
        _require(values.keys() | states.keys() == current.keys() and not values.keys() & states.keys(),
                 "has other attributes of the optimizer than this one has")
        for name, value in values.items():
            _require(_is_like(value, current[name]), f"has a wrong {name} of the optimizer")
        for name, state in states.items():
            _require((current[name] is None or isinstance(current[name], dict)) and isinstance(state, dict)
                     and _is_one_of(state.get("dtype"), _model_files._DTYPES) and isinstance(state.get("keys"), list)
                     and all(isinstance(key, str) and key in network.params for key in state["keys"]), f"has a wrong {name} of the optimizer")
        if type(optimizer) not in _plan.OPTIMIZERS:
            return
        _require(set(optimizer._states) <= states.keys() | {name for name, value in values.items() if value is None},
                 "has a wrong state of the optimizer")
        _require(_is_whole(values.get("iter", 0), 0) and values.get("iter", math.inf) >= self._training["step"],
                 "has a wrong number of updates of the optimizer")
        try:
            settings = inspect.signature(type(optimizer)).parameters
            type(optimizer)(**{name: value for name, value in values.items() if name in settings})
        except (TypeError, ValueError) as error:
            raise _FlawError(f"has a setting of the optimizer that cannot be: {error}") from error

    def _check_learned(self) -> None:
        kept, training = self._kept, self._training
        if kept.stopping is not None:
            found = self._part("early_stopping", dict)
            has_state = found.get("has_state")
            _require(_is_best(found, training["epoch"]) and isinstance(has_state, bool)
                     and has_state == (kept.stopping.keeps and found["epoch"] is not None),
                     "has wrong values of early stopping")
        schedules = self._part("schedule", list)
        _require(len(schedules) == len(kept.schedules), "has wrong values of the schedule")
        for schedule, found in zip(kept.schedules, schedules, strict=True):
            current = learned(schedule)
            _require(isinstance(found, dict) and found.keys() == current.keys(), "has wrong values of the schedule")
            if isinstance(schedule, OnPlateau):
                is_right = _is_best(found, training["epoch"]) and _is_number(found["factor"], 0)
            else:
                is_right = all(_is_like(value, current[name]) for name, value in found.items())
            _require(is_right, "has wrong values of the schedule")

    def check_arrays(self) -> None:
        """Weights are finite where a fit goes on, and an optimiser's states, which may have overflowed, are numbers."""
        params = self._kept.network.params
        for name, array in self.arrays.items():
            if name.removeprefix(f"{TRAINING}.best.") in params:
                _require(np.isfinite(array).all(), f"has NaN or infinity in the array {name}")
            elif name.startswith(f"{TRAINING}.optimizer."):
                _require(not np.isnan(array).any(), f"has NaN in the array {name}")

    def restore(self) -> _plan.Begun:
        """Make the fit the one that was kept, and tell how far its next epoch has come."""
        kept, training = self._kept, self._training
        arrays, optimizer = live(kept.network), kept.optimizer
        before = {name: array.copy() for name, array in arrays.items()}
        attributes, states = dict(vars(optimizer)), [one.state for one in kept.generators]
        try:
            self._put(arrays, self.arrays, {**training["optimizer"], **self._states_of_optimizer()}, self._states)
        except BaseException:   # Ctrl-C between two arrays
            self._put(arrays, before, attributes, states)
            raise
        history = kept.job.history
        for name in training["history"]:
            setattr(history, name, self.arrays[f"{TRAINING}.history.{name}"].tolist())
        if training["history"]:
            for place, name in enumerate(history.metrics, 1):
                history.metrics[name] = self.arrays[f"{TRAINING}.metrics.{place}"].tolist()
        if kept.stopping is not None:
            _restore_best(kept.stopping.best, training["early_stopping"])
            if training["early_stopping"]["has_state"]:
                kept.stopping.state = [self.arrays[f"{TRAINING}.best.{name}"] for name in arrays]
        for schedule, found in zip(kept.schedules, training["schedule"], strict=True):
            if isinstance(schedule, OnPlateau):
                schedule.factor = found["factor"]
                _restore_best(schedule.best, found)
            elif found:
                vars(schedule).update(found)
        return _plan.Begun(
            training["step"], training["loss"], training["correct"], training["seconds"], self._generator)

    def _states_of_optimizer(self) -> dict[str, dict[str, np.ndarray]]:
        return {name: {**(getattr(self._kept.optimizer, name) or {}),
                       **{key: self.arrays[f"{TRAINING}.optimizer.{name}.{key}"] for key in state["keys"]}}
                for name, state in self._training["states"].items()}

    def _put(
        self, arrays: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray], attributes: Mapping[str, Any],
        states: list[Any],
    ) -> None:
        for name, array in arrays.items():
            array[...] = values[name]
        for name, value in attributes.items():
            setattr(self._kept.optimizer, name, value)
        for generator, state in zip(self._kept.generators, states, strict=True):
            generator.state = state


def _same(path: Path, what: str, found: Any, given: Any) -> None:
    try:
        _fit_validation.kept_with(path, what, found, given)
    except ValueError as error:     # which reading an archive would take for the archive's
        raise _OtherFitError(str(error)) from None


def _like(array: np.ndarray) -> _Expected:
    return _Expected(array.dtype.newbyteorder("="), array.shape)


def _state_like(template: Any, found: Any, name: str = "") -> Any:
    """A state as one of the same generator is made: NumPy itself would read beside its arrays for some."""
    wrong = "has a wrong state of a random generator"
    if isinstance(template, dict):
        _require(isinstance(found, dict) and found.keys() == template.keys(), wrong)
        state = {key: _state_like(value, found[key], key) for key, value in template.items()}
        # Generators that would give 0 for ever, in which NumPy looks for a number that is not.
        _require(state.get("inc", 1) % 2 == 1, wrong)
        _require("key" not in state or "pos" not in state or state["key"][1:].any(), wrong)
        return state
    if isinstance(template, np.ndarray):
        most = np.iinfo(template.dtype).max
        _require(isinstance(found, list) and len(found) == template.size
                 and all(type(number) is int and 0 <= number <= most for number in found), wrong)
        return np.array(found, template.dtype)
    if isinstance(template, str):
        _require(found == template, wrong)
    elif isinstance(template, float):
        _require(_is_number(found, -math.inf), wrong)
    else:
        _require(name in _STATES and _is_whole_below(found, _STATES.get(name, 0)), wrong)
    return found


def _is_whole_below(value: Any, end: int) -> bool:
    return type(value) is int and 0 <= value < end


def _is_like(value: Any, live: Any) -> bool:
    """Whether a value from a file may take the place of a simple one."""
    if live is None or value is None:
        return isinstance(value, SIMPLE)
    if isinstance(live, str):
        return isinstance(value, str)
    return isinstance(live, (bool, int, float, np.generic)) and isinstance(value, (bool, int, float))


def _is_best(found: Mapping[str, Any], epochs: int) -> bool:
    """Whether these are values of a `Best` after so many epochs."""
    values: Any = [found.get(name) for name in ("value", "waited", "epoch")]
    value, waited, epoch = values
    if not (_is_whole(waited, 0) and waited <= epochs):
        return False
    if epoch is None:
        return value is None
    return _is_whole(epoch, 1) and epoch <= epochs and type(value) in (int, float) and not math.isnan(value)


def _restore_best(best: "Best", found: Mapping[str, Any]) -> None:
    best.value = -math.inf if found["value"] is None else float(found["value"])
    best.waited, best.epoch = found["waited"], found["epoch"]
