"""What `Network.fit` refuses of its options; the style is that of _validation.py."""

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnfast import _files, _validation
from nnfast.losses import FunctionLoss

_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def schedule(name: str, value: Any, optimizer: Any = None) -> Any:
    if isinstance(value, type) or not callable(value):
        raise TypeError(f"{name} is {value!r}, but must be callable: one of nnfast.schedules, or a function like them")
    if optimizer is not None and not hasattr(optimizer, "lr"):
        raise TypeError(f"{name} changes a learning rate, but {type(optimizer).__name__} has no lr")
    return value


def factors(name: str, values: Any, steps: int) -> np.ndarray:
    """What a schedule gave for so many steps."""
    array = _validation.floats(f"what {name} gives", values, np.dtype(np.float64))
    if array.shape not in ((), (steps,)):
        raise ValueError(f"{name} gives shape {array.shape} for positions of shape ({steps},): give a factor for each")
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError(f"{name} gives {array.min() if np.isfinite(array).all() else 'infinity or NaN'}, "
                         "but a factor is finite and at least 0")
    return np.broadcast_to(array, (steps,))


def limits(clip_value: Any, clip_norm: Any) -> tuple[float | None, float | None]:
    if clip_value is not None and clip_norm is not None:
        raise ValueError("clip_value and clip_norm are both given, but gradients are clipped in one way: leave one out")
    return (None if clip_value is None else _validation.above_zero("clip_value", clip_value),
            None if clip_norm is None else _validation.above_zero("clip_norm", clip_norm))


def early_stopping(value: Any) -> Any:
    if not (hasattr(value, "best") and hasattr(value, "patience")):
        raise TypeError(f"early_stopping is {value!r}, but must be an EarlyStopping")
    return value


def checkpointing(checkpoint: Any, resume: Any) -> tuple[Any, Path | None]:
    """The checkpoint, and the file to resume, if any."""
    if checkpoint is not None and not (hasattr(checkpoint, "path") and hasattr(checkpoint, "every")):
        raise TypeError(f"checkpoint is {checkpoint!r}, but must be a Checkpoint: write Checkpoint(path)")
    if resume is None or resume is False:
        return checkpoint, None
    if resume is not True:
        return checkpoint, _files.as_path("resume", resume)
    if checkpoint is None:
        raise ValueError("resume is True, but there is no checkpoint whose file it could be: pass the file's path")
    return checkpoint, checkpoint.path if checkpoint.path.exists() else None


def kept_with(path: Path, what: str, found: Any, given: Any) -> None:
    """That a fit was kept with what this one has."""
    if found != given:
        shown = _files.in_a_line(repr(found))
        raise ValueError(f"resume is {path}, a fit with {what} {shown}, but this one has {given!r}")


def bit_generator(state: Mapping[str, Any]) -> str:
    """The kind of a generator in this state: one of NumPy's."""
    kind: str = state["bit_generator"]
    if kind not in _BIT_GENERATORS:
        raise TypeError(f"a random generator is a {kind}, but a checkpoint can keep {', '.join(_BIT_GENERATORS)}")
    return kind


def not_keepable(what: str, attribute: str, value: Any) -> NoReturn:
    raise TypeError(f"{what} has {attribute}, a {type(value).__name__}, which a checkpoint cannot keep: "
                    "numbers, texts and arrays of the parameters' shapes by key are what it can")


def metrics(named: Any, epoch: Any, has_validation: bool) -> dict[str, Any]:
    """Functions by name, none of which hides a field of an `Epoch`."""
    if named is None:
        return {}
    if not isinstance(named, Mapping):
        raise TypeError(f"metrics is a {type(named).__name__}, but must be a dict of functions by name")
    for name, metric in named.items():
        if not isinstance(name, str) or name in epoch.__dataclass_fields__:
            raise ValueError(f"metrics has {name!r}, but a name is a string, and not one that an Epoch has anyway")
        if not callable(metric):
            raise TypeError(f"metrics[{name!r}] is {metric!r}, but must be callable")
    if named and not has_validation:
        raise ValueError("metrics are evaluated on validation_data, but there is none")
    return dict(named)


def metric_value(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"metrics[{name!r}] gives {value!r}, but must give a number") from None


def monitored(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"monitor is {name!r}, but must be the name of a value that an Epoch has, or of a metric")
    return name


def monitor(name: str, loss: Any, has_validation: bool, metrics: Mapping[str, Any]) -> None:
    """That there will be such a value in every epoch."""
    values = ["loss", "accuracy", "validation_loss", "validation_accuracy", *metrics]
    if name not in values:
        raise ValueError(f"monitor is {name!r}, but must be one of {', '.join(values)}")
    if name.startswith("validation_") and name not in metrics and not has_validation:
        raise ValueError(f"monitor is {name!r}, but there is no validation_data")
    if name.endswith("accuracy") and name not in metrics:
        _validation.is_classifier(loss)


def weighs_rows(network: Any) -> None:
    """That the rows of its loss can have weights."""
    if not hasattr(network.last_layer, "row_losses"):
        raise TypeError(
            f"the loss {type(network.last_layer).__name__} is written in Python and gives no loss by row, as weights need it")
    if not network.trains_as_given() and "sample_weight" not in inspect.signature(network.training_step).parameters:
        raise TypeError(f"the training_step of {type(network).__name__} has no argument sample_weight")


def counts_classes(class_weight: Any, has_arrays: bool) -> None:
    if isinstance(class_weight, str) and not has_arrays:
        raise ValueError(f"class_weight is {class_weight!r}, but how often a class occurs is known of arrays alone, "
                         "not of x, which gives batches: pass a dict of weights by class")


def sample_weight(weights: ArrayLike, rows: int) -> NDArray[np.float64]:
    """(B,) of float64, finite and at least 0."""
    array = _validation.floats("sample_weight", weights, np.dtype(np.float64))
    if array.shape != (rows,):
        raise ValueError(f"sample_weight has shape {array.shape}, but x has {rows} rows: pass shape ({rows},)")
    _validation.all_finite("sample_weight", array.reshape(-1, 1))
    if array.min() < 0:
        raise ValueError(f"sample_weight holds {array.min():g}, but a weight is at least 0")
    return array


def some_weight(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not 0 < total < math.inf:
        raise ValueError(f"the weights of all rows are {total:g} together, but must be above zero and finite")
    return np.ascontiguousarray(weights)


def classes(targets: np.ndarray, network: Any, outputs: int | None) -> tuple[NDArray[np.int64], int]:
    """The class of each row, and how many there are; outputs: of the network, None if unknown."""
    if isinstance(network.last_layer, FunctionLoss):    # has the targets as they were given
        if targets.dtype.kind in "biu" and targets.ndim == 1 and targets.min() >= 0:
            return targets.astype(np.int64), int(outputs or 0)
    elif targets.dtype == np.int64 and targets.ndim == 1:
        return targets, int(outputs if outputs is not None else targets.max() + 1)
    if targets.shape[1:] == (1,) and getattr(network.last_layer, "is_classifier", False):
        no_and_yes = getattr(network.last_layer, "_smoothed", np.asarray)(np.array([0, 1], targets.dtype))
        if np.isin(targets, no_and_yes).all():
            return (targets[:, 0] == no_and_yes[1]).astype(np.int64), 2
    raise TypeError("class_weight needs one class for each row: labels, or 0 and 1 for a single output")


def class_weight(weights: Any, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(C,) of float64, for classes that occur so many times."""
    if isinstance(weights, str):
        _validation.check_choice("class_weight", weights, ["balanced"])
        return np.asarray(counts.sum() / ((counts > 0).sum() * np.maximum(counts, 1)))
    if not isinstance(weights, Mapping):
        raise TypeError(f"class_weight is {weights!r}, but must be a dict of weights by class, or 'balanced'")
    found = np.ones(len(counts))
    for label, weight in weights.items():
        label = _validation.check_count("a class of class_weight", label, 0)
        if label >= len(counts):
            raise ValueError(f"class_weight has class {label}, but the classes are 0 to {len(counts) - 1}")
        found[label] = _validation.check_number(f"class_weight[{label}]", weight, 0)
    return found
