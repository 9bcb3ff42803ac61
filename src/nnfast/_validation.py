"""The only place that refuses a user's input; all messages live together, those about `fit`'s options in _fit_validation.py.

A message is one sentence: which argument, what arrived, what was expected, and the remedy if there is one.
Functions return the checked value, converted where that is harmless; an array is copied only if it must be.
"""

import math
import operator
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnfast._kernels import kernels

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


# Numbers

def check_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value}, but must be a whole number")
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, but must be a whole number") from None
    if count < least:
        raise ValueError(f"{name} is {count}, but must be at least {least}")
    return count


def check_number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number with low <= number <= high."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}, but must be a number") from None
    if not (math.isfinite(number) and low <= number <= high):
        if high == math.inf:
            expected = "finite" if low == -math.inf else f"a finite number of at least {low:g}"
        else:
            expected = f"between {low:g} and {high:g}"
        raise ValueError(f"{name} is {number:g}, but must be {expected}")
    return number


def check_choice(name: str, value: Any, choices: list[str]) -> str:
    """One of some names."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, but must be one of {', '.join(choices)}")
    if value.lower() not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(choices)}")
    return value.lower()


def check_dtype(name: str, dtype: DTypeLike) -> np.dtype:
    """float32 or float64, in this machine's byte order."""
    try:
        checked = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"{name} is {dtype!r}, but must be float32 or float64") from None
    if checked not in _FLOATS:
        raise ValueError(f"{name} is {checked.name}, but must be float32 or float64")
    return checked


# Arrays

def numbers(name: str, x: ArrayLike) -> np.ndarray:
    """An array of real numbers, of whatever dtype."""
    try:
        array = np.asarray(x)
    except ValueError:
        raise ValueError(f"{name} is a list of rows of unequal length, but must be a rectangular array") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} holds {array.dtype.name} values, but must hold real numbers")
    return array


def floats(name: str, x: ArrayLike, dtype: np.dtype | None = None) -> np.ndarray:
    """A C-contiguous, aligned array in this machine's byte order.

    Of `dtype`; without one float32 for float32 and float16, and float64 for everything else.
    """
    if type(x) is np.ndarray and (x.dtype in _FLOATS if dtype is None else x.dtype == dtype):
        flags = x.flags
        if flags.c_contiguous and flags.aligned:
            return x    # the common case, without a detour
    array = numbers(name, x)
    return np.require(array, float_dtype(array) if dtype is None else dtype, ["C", "A"])


def float_dtype(array: np.ndarray) -> np.dtype:
    """What `floats` makes of numbers without being told."""
    return _FLOATS[0] if array.dtype.kind == "f" and array.dtype.itemsize <= 4 else _FLOATS[1]


def data(name: str, x: np.ndarray, dtype: np.dtype | None, *, rescales: bool) -> np.ndarray:
    """`floats` of rows for a network or, where its first layer rescales them, whole numbers of 16 bits as they are."""
    if rescales and are_small(x.dtype):
        return np.require(x, x.dtype.newbyteorder("="), ["C", "A"])
    return floats(name, x, dtype)


def is_data(x: np.ndarray, *, rescales: bool) -> bool:
    """Whether `data` of all that it is given is that itself."""
    flags = x.flags
    return flags.c_contiguous and flags.aligned and (
        x.dtype in _FLOATS or (rescales and are_small(x.dtype) and x.dtype.isnative))


def are_small(dtype: np.dtype) -> bool:
    """Whole numbers that are exact as float32, and that compiled code converts."""
    return dtype.kind in "biu" and dtype.itemsize <= 2


def rows(name: str, x: ArrayLike, dtype: np.dtype | None, columns: int | None, taker: str) -> np.ndarray:
    """`floats` of shape (B, columns)."""
    if type(x) is not np.ndarray or x.ndim != 2 or x.shape[1] != columns:
        x = row_shaped(name, numbers(name, x), columns, taker)
    return floats(name, x, dtype)


def row_shaped(name: str, array: np.ndarray, columns: int | None, taker: str) -> np.ndarray:
    """`array` as (B, columns), not converted; further axes are flattened into the columns, as the book does."""
    if array.ndim < 2 and not (array.ndim == 1 and columns == 1):
        if array.ndim == 1:
            raise ValueError(
                f"{name} is 1-D with {array.shape[0]} values, but must have a row for each example: "
                f"pass {name}.reshape(1, -1) for one example"
            )
        raise ValueError(f"{name} is a single number, but must have a row for each example")
    if array.ndim != 2:
        array = array.reshape(array.shape[0], math.prod(array.shape[1:]))
    if columns is not None and array.shape[1] != columns:
        raise ValueError(f"{name} has {array.shape[1]} columns, but {taker} takes {columns} inputs")
    return array


def at_most_rows(x: np.ndarray, batch_size: int) -> np.ndarray:
    if x.shape[0] > batch_size:
        raise ValueError(f"x has {x.shape[0]} rows, but this predictor was made for batches of {batch_size}")
    return x


def output(out: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that the user wants filled, of exactly this shape and dtype; it may have any layout."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is {type(out).__name__}, but must be an array of {dtype.name}")
    if out.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"out is an array of {out.dtype.name}, but must be of {dtype.name}, as the network's parameters")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}, but the scores have shape {shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    return out


def like(name: str, x: ArrayLike, shape: tuple[int, ...], dtype: np.dtype, what: str) -> np.ndarray:
    """`floats` of a known shape."""
    array = floats(name, x, dtype)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, but {what} has shape {shape}")
    return array


def parameter(name: str, array: Any, ndim: int) -> np.ndarray:
    """An array that a layer is to share: float32 or float64 (lists become float64)."""
    if not isinstance(array, np.ndarray):
        array = floats(name, array, _FLOATS[1])
    shared: np.ndarray = array
    if shared.dtype.newbyteorder("=") not in _FLOATS:
        raise TypeError(
            f"{name} is an array of {shared.dtype.name}, but must be float32 or float64: "
            f"pass {name}.astype(np.float64)"
        )
    if shared.ndim != ndim:
        raise ValueError(f"{name} has shape {shared.shape}, but must have {ndim} {'axis' if ndim == 1 else 'axes'}")
    return shared


def operand(name: str, array: Any, ndim: int) -> np.ndarray:
    """A layer's `parameter` as the kernels take it: itself, unless it has another layout."""
    if type(array) is np.ndarray and array.ndim == ndim and array.dtype in _FLOATS:
        flags = array.flags
        if flags.c_contiguous and flags.aligned:
            return array    # the common case, without a detour
    array = parameter(name, array, ndim)
    return floats(name, array, array.dtype.newbyteorder("="))


def same_dtype(name: str, array: np.ndarray, other_name: str, other: np.ndarray) -> None:
    if array.dtype.newbyteorder("=") != other.dtype.newbyteorder("="):
        raise ValueError(f"{name} is {array.dtype.name}, but {other_name} is {other.dtype.name}")


def not_empty(name: str, array: np.ndarray) -> np.ndarray:
    if array.shape[0] == 0:
        raise ValueError(f"{name} has no rows, but at least 1 is needed")
    return array


def all_finite(name: str, array: np.ndarray, first_row: int = 0) -> None:
    """Checks rows (B, I) as `data` returns them, the first of which has a number."""
    place = kernels(array.dtype).first_not_finite(array.reshape(-1)) if array.dtype.kind == "f" else -1
    if place >= 0:
        row, column = divmod(place, array.shape[1])
        raise ValueError(f"{name} contains NaN or infinity (first at row {first_row + row}, column {column})")


def rows_are_finite(name: str, array: np.ndarray, rows: np.ndarray | None) -> None:
    """`all_finite` of some rows, each of which there is; of all if not given."""
    if rows is None:
        all_finite(name, array)
        return
    for row in np.unique(rows).tolist():
        all_finite(name, array[row : row + 1], row)


def same_length(t: np.ndarray, x_rows: int, t_name: str = "t", x_name: str = "x") -> None:
    if t.ndim == 0 or t.shape[0] != x_rows:
        found = "is a single value" if t.ndim == 0 else f"has {t.shape[0]} rows"
        raise ValueError(f"{t_name} {found}, but {x_name} has {x_rows} rows")


# What Rescale is made of

def factors_of_columns(name: str, value: Any) -> Any:
    """A finite number, or a copy of some, one for each column."""
    if np.ndim(value) == 0:
        return check_number(name, value)
    array = floats(name, value, _FLOATS[1]).copy()
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} has shape {array.shape}, but must be a number, or one for each column: shape (I,)")
    if not np.isfinite(array).all():
        place = int(np.isfinite(array).argmin())
        raise ValueError(f"{name}[{place}] is {array[place]}, but must be finite: see whether that column is the same "
                         "everywhere")
    array.flags.writeable = False
    return array


def one_width(name: str, one: Any, other_name: str, other: Any) -> int | None:
    """Columns of two such; None if both are numbers."""
    sizes = [np.size(value) for value in (one, other) if np.ndim(value)]
    if len(set(sizes)) > 1:
        raise ValueError(f"{name} is for {sizes[0]} columns, but {other_name} for {sizes[1]}")
    return sizes[0] if sizes else None


def finite_as(name: str, value: Any, dtype: np.dtype) -> None:
    largest = float(np.abs(value).max())
    if largest > float(np.finfo(dtype).max):
        raise ValueError(f"{name} of Rescale is up to {largest:g}, which is beyond {dtype.name}, the network's dtype")


# Labels and targets

def labels(t: ArrayLike, batch_size: int, classes: int) -> NDArray[np.int64]:
    """Class indices (B,), from indices of shape (B,) or (B, 1), or from one-hot rows (B, C).

    Always a copy: a kernel trusts labels that were checked, so nobody may change them afterwards.
    """
    if type(t) is np.ndarray and t.dtype == np.int64 and t.shape == (batch_size,):
        array = t.copy()
    else:
        array = numbers("t", t)
        same_length(array, batch_size)
        if array.ndim == 2 and array.shape[1] == classes > 1:
            return _labels_of_one_hot(array)
        if array.ndim > 2 or (array.ndim == 2 and array.shape[1] != 1):
            raise ValueError(
                f"t has shape {array.shape}, but must hold {batch_size} labels or one-hot rows of {classes} classes"
            )
        array = _whole(array.reshape(batch_size))
    place = kernels(_FLOATS[1]).first_outside(array, classes)
    if place >= 0:
        raise ValueError(f"t[{place}] is {array[place]}, but the network has classes 0 to {classes - 1}")
    return array


def _whole(array: np.ndarray) -> NDArray[np.int64]:
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
        fractional = ~(np.floor(array) == array)     # NaN is not equal to itself
        fractional |= np.abs(array) > 2**53
        if fractional.any():
            place = int(fractional.argmax())
            raise ValueError(f"t[{place}] is {array[place]:g}, but a class label must be a whole number")
    elif array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        place = int(array.argmax())
        raise ValueError(f"t[{place}] is {array[place]}, which is too large for a class label")
    return np.array(array, np.int64, order="C")


def _labels_of_one_hot(array: np.ndarray) -> NDArray[np.int64]:
    result = np.empty(array.shape[0], np.int64)
    place = kernels(_FLOATS[1]).one_hot_to_labels(floats("t", array, _FLOATS[1]), result)
    if place >= 0:
        raise ValueError(
            f"t[{place}] sums to {float(array[place].sum()):g} and is not one-hot, "
            "but a row of t must hold one 1 and otherwise 0"
        )
    return result


def targets(t: ArrayLike, batch_size: int, outputs: int, dtype: np.dtype) -> np.ndarray:
    """Real targets (B, O); (B,) is accepted where there is one output."""
    array = floats("t", t, dtype)
    same_length(array, batch_size)
    if array.ndim == 1 and outputs == 1:
        array = array.reshape(batch_size, 1)
    if array.shape != (batch_size, outputs):
        raise ValueError(f"t has shape {array.shape}, but the network gives outputs of shape {(batch_size, outputs)}")
    return array


def probabilities(t: ArrayLike, batch_size: int, outputs: int, dtype: np.dtype) -> np.ndarray:
    """`targets` between 0 and 1."""
    array = targets(t, batch_size, outputs, dtype)
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        row, column = np.argwhere(~((array >= 0) & (array <= 1)))[0]
        raise ValueError(f"t[{row}, {column}] is {array[row, column]:g}, but must be between 0 and 1")
    return array


def at_least_zero(t: ArrayLike, batch_size: int, outputs: int, dtype: np.dtype) -> np.ndarray:
    """`targets` of at least 0."""
    array = targets(t, batch_size, outputs, dtype)
    if array.size and not array.min() >= 0:
        row, column = np.argwhere(~(array >= 0))[0]
        raise ValueError(f"t[{row}, {column}] is {array[row, column]:g}, but must be at least 0")
    return array


# Losses

def smoothing(name: str, value: Any) -> float:
    """A share of a label."""
    share = check_number(name, value, 0, 1)
    if share == 1:
        raise ValueError(f"{name} is 1, but must be below 1, or nothing is left of the label")
    return share


def quantile(name: str, value: Any) -> float | tuple[float, ...]:
    """A number between 0 and 1, or several."""
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0):
        if not len(value):
            raise ValueError(f"{name} is empty, but must hold a number for each output")
        return tuple(_between_0_and_1(f"{name}[{place}]", one) for place, one in enumerate(value))
    return _between_0_and_1(name, value)


def _between_0_and_1(name: str, value: Any) -> float:
    number = check_number(name, value)
    if not 0 < number < 1:
        raise ValueError(f"{name} is {number:g}, but must be above 0 and below 1")
    return number


def one_for_each_output(name: str, values: Any, outputs: int) -> None:
    if len(values) != outputs:
        raise ValueError(f"{name} has {len(values)} numbers, but the network gives {outputs} outputs")


def loss_function(name: str, function: Any) -> Any:
    if not callable(function):
        raise TypeError(f"{name} is {function!r}, but must be a function of scores and targets")
    return function


def losses_and_gradients(returned: Any, scores: np.ndarray, function: str) -> tuple[np.ndarray, np.ndarray]:
    """What a loss function returned for scores (B, O): losses (B,) of float64, gradients (B, O) of the scores' dtype."""
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        number = f"{len(returned)} values" if isinstance(returned, (tuple, list)) else type(returned).__name__
        raise TypeError(f"the loss function {function} returned {number}, but must return a pair: the losses of the rows "
                        "and their gradients")
    names = [f"what {function} returned as {name}" for name in ("losses", "gradients")]
    losses, gradients = (numbers(name, array) for name, array in zip(names, returned, strict=True))
    batch_size, outputs = scores.shape
    if losses.shape != (batch_size,):
        raise ValueError(f"{names[0]} has shape {losses.shape}, but must have shape ({batch_size},), a loss for each row")
    if gradients.shape != scores.shape and not (outputs == 1 and gradients.shape == (batch_size,)):
        raise ValueError(f"{names[1]} has shape {gradients.shape}, but must have shape {scores.shape}, as the scores have")
    with np.errstate(over="ignore"):
        checked = losses.astype(np.float64), gradients.reshape(scores.shape).astype(scores.dtype)
    for name, array in zip(names, checked, strict=True):
        wrong = ~np.isfinite(array.reshape(batch_size, -1)).all(axis=1) & np.isfinite(scores).all(axis=1)
        if wrong.any():
            row = int(wrong.argmax())
            raise FloatingPointError(f"{name} is NaN or infinity in row {row}, where the scores are finite (of size up to "
                                     f"{np.abs(scores[row]).max():.3g})")
    return checked


def classes_last(name: str, array: np.ndarray) -> np.ndarray:
    """An array whose last axis holds at least one class."""
    if array.ndim == 0:
        raise ValueError(f"{name} is a single number, but must have an axis of classes")
    if array.shape[-1] == 0:
        raise ValueError(f"{name} has shape {array.shape}, but its last axis must hold at least one class")
    return array


def one_target(name: str, t: ArrayLike) -> np.ndarray:
    """The label or one-hot row of a single example, with a batch axis in front."""
    array = numbers(name, t)
    return array.reshape(1) if array.size == 1 else array.reshape(1, -1)


# Networks

def has_methods(name: str, thing: Any, methods: tuple[str, ...] = ("forward", "backward")) -> Any:
    """An object with certain methods; a class instead of an object is a common slip."""
    if isinstance(thing, type):
        raise TypeError(f"{name} is the class {thing.__name__}, but must be an object: write {thing.__name__}(...)")
    for method in methods:
        if not callable(getattr(thing, method, None)):
            raise TypeError(f"{name} is {thing!r}, but must have the methods {' and '.join(methods)}")
    return thing


def sequence_of_layers(layers: Any) -> list[Any]:
    if isinstance(layers, (str, bytes)) or not hasattr(layers, "__iter__"):
        raise TypeError(f"layers is {layers!r}, but must be a list of layers")
    return list(layers)


def layers_once(named: dict[str, Any]) -> None:
    """Layers by name: at least one, each an object that can be a layer, none twice."""
    if not named:
        raise ValueError("layers is empty, but a network has at least one layer")
    seen: dict[int, str] = {}
    for name, layer in named.items():
        has_methods(f"layers[{name!r}]" if name else "a layer", layer)
        if hasattr(layer, "forward_prepared") or hasattr(layer, "row_losses"):
            raise TypeError(f"layers holds {type(layer).__name__}, which is an output layer: pass it as loss=")
        if id(layer) in seen:
            raise ValueError(f"{name} is the same object as {seen[id(layer)]}, but a layer stands in a network once")
        seen[id(layer)] = name


def widths_fit(name: str, takes: int, giver: str, gives: int) -> None:
    if takes != gives:
        raise ValueError(f"{name} takes {takes} inputs, but {giver} gives {gives} outputs")


def one_dtype(found: dict[str, np.dtype], default: np.dtype) -> np.dtype:
    """The one dtype of all the layers' arrays."""
    for name, dtype in found.items():
        first = next(iter(found))
        if dtype != found[first]:
            raise ValueError(f"{name} is {dtype.name}, but {first} is {found[first].name}: use one dtype in a network")
        check_dtype(f"the dtype of {name}", dtype)
    return next(iter(found.values()), default)


def is_classifier(loss: Any) -> None:
    if not getattr(loss, "is_classifier", True):
        raise TypeError(f"accuracy needs a classifier, but the loss is {type(loss).__name__}")


def sequence_of_sizes(name: str, sizes: Any) -> list[int]:
    if not isinstance(sizes, (list, tuple, np.ndarray)):
        raise TypeError(f"{name} is {sizes!r}, but must be a list of whole numbers")
    return [check_count(f"{name}[{place}]", size) for place, size in enumerate(sizes)]


# The computational graph

def seed_of_backward(dout: Any, shape: tuple[int, ...]) -> Any:
    """Where the gradients of a value of this shape begin."""
    if dout is None:
        if math.prod(shape) != 1:
            raise ValueError(f"backward begins at a single number, but the value has shape {shape}: pass dout of that shape")
        return np.ones(shape) if shape else 1
    if not shape and np.ndim(dout) == 0:
        return dout
    return like("dout", dout, shape, np.dtype(np.float64), "the value")


def no_zero(name: str, value: Any) -> None:
    if np.any(np.equal(value, 0)):
        raise ZeroDivisionError(f"{name} is or holds 0, by which nothing can be divided")


def all_above_zero(name: str, value: Any) -> None:
    if not np.all(np.greater(value, 0)):
        raise ValueError(f"{name} is or holds {np.min(value)}, but the logarithm takes what is above 0")


def shapes_multiply(x: Any, W: Any) -> None:
    if np.ndim(x) != 2 or np.ndim(W) != 2 or np.shape(x)[1] != np.shape(W)[0]:
        raise ValueError(f"x has shape {np.shape(x)} and W {np.shape(W)}, but (B, I) and (I, O) are multiplied")


# Training

def pair(name: str, data: Any) -> tuple[ArrayLike, ArrayLike]:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(f"{name} is a {type(data).__name__}, but must be a tuple (x, t)")
    return data[0], data[1]


def callables(name: str, things: Any) -> list[Any]:
    if not hasattr(things, "__iter__"):
        raise TypeError(f"{name} is {things!r}, but must be a list of callables")
    listed = list(things)
    for place, thing in enumerate(listed):
        if not callable(thing):
            raise TypeError(f"{name}[{place}] is {thing!r}, but must be callable")
    return listed


def not_fitting(network: Any, fitting: dict[int, Any]) -> None:
    if id(network) in fitting:
        raise RuntimeError("this network is being trained by another call of fit: wait for it, or train a copy")


_LARGE = 100
"""Training begins with data within a few units of 0: beyond this they are a likelier cause than the learning rate alone."""


def _cause(optimizer: Any, x: np.ndarray, t: np.ndarray, *, before_any_update: bool) -> str:
    """Why a loss or a weight is not finite, and what to do."""
    data = [(name, max(abs(array.max()), abs(array.min()))) for name, array in (("x", x), ("t", t)) if array.dtype.kind == "f"]
    large = " and ".join(f"of {name} up to {largest:.3g}" for name, largest in data if largest > _LARGE)
    lr = getattr(optimizer, "lr", None)
    if before_any_update:
        return f": values {large} are too large: scale them" if large else ": the weights are probably too large"
    if lr is None:
        return f": values {large} are probably too large: scale them" if large else ""
    return f": the learning rate of {lr:g} is probably too large" + (f" for values {large}: scale them" if large else "")


def loss_is_finite(loss: float, epoch: int, step: int, optimizer: Any, x: np.ndarray, t: np.ndarray) -> None:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss became {loss} in epoch {epoch}, step {step}"
            f"{_cause(optimizer, x, t, before_any_update=epoch == step == 1)} (the weights are those before this epoch)"
        )


def weights_are_finite(
    params: dict[str, np.ndarray], epoch: int, optimizer: Any, x: np.ndarray, t: np.ndarray
) -> None:
    for key, array in params.items():
        if not np.isfinite(array).all():
            raise FloatingPointError(
                f"{key} became infinite or NaN in epoch {epoch}{_cause(optimizer, x, t, before_any_update=False)} "
                "(the weights are those before this epoch)"
            )


# Inputs and parameters of a trained network

def seed_of_scores(dout: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Gradients with respect to scores of this shape: ones, if there is one score for a row."""
    if dout is None:
        if shape[1] != 1:
            raise ValueError(f"the network has {shape[1]} outputs: pass dout of shape {shape}, or ask for its jacobian")
        return np.ones(shape, dtype)
    return like("dout", dout, shape, dtype, "the scores")


def flattenable(network: Any) -> list[tuple[Any, str, np.ndarray]]:
    """Layers, names and arrays of all parameters, which other arrays can take the place of."""
    found = []
    for name, layer in network.layers.items():
        params: dict[str, np.ndarray] = getattr(layer, "params", {})
        for key, array in params.items():
            if getattr(layer, key, None) is not array or array.dtype.newbyteorder("=") != network.dtype:
                raise TypeError(f"layer {name} is a {type(layer).__name__}, whose arrays cannot be parts of one vector")
            found.append((layer, key, array))
    return found


# Calls from C

def callable_from_c(network: Any, kinds: tuple[type, ...]) -> NoReturn:
    """Says why a predictor has no C function."""
    for name, layer in network.layers.items():
        if type(layer) not in kinds:
            raise TypeError(
                f"layer {name} is a {type(layer).__name__}, but only nnfast's own layers can be called from C")
    names = [*network.params, *("a running statistic" for _ in network.state())]
    for name, array in zip(names, network.state(), strict=False):
        if operand(name, array, np.ndim(array)) is not array or array.dtype != network.dtype:
            raise ValueError(
                f"{name} is not a plain, contiguous, aligned array of the network's dtype, so a C function cannot read it "
                f"where it is: put np.array(..., np.{network.dtype.name}, order='C') in its place, and make a new predictor")
    raise ValueError("the network could not run in compiled code when this predictor was made: make a new one")


def one_output(outputs: int, caller: str) -> None:
    if outputs != 1:
        raise ValueError(
            f"the network has {outputs} outputs, but {caller} takes a function of one: choose it in one of your own that calls "
            "predictor.address")


# Exporting

def exportable(network: Any, kinds: tuple[type, ...], fits: bool, losses: tuple[type, ...] | None) -> int:
    """That a network can be written in another language, with its output function if that is one of `losses`; its inputs."""
    for name, layer in network.layers.items():
        if type(layer) not in kinds:
            raise TypeError(f"layer {name} is a {type(layer).__name__}, but only nnfast's own layers can be exported")
    if losses is not None and type(network.last_layer) not in losses:
        raise TypeError(f"the loss is a {type(network.last_layer).__name__}, but only nnfast's own give probabilities")
    if not fits:
        raise ValueError("the arrays of the network's layers do not fit together, or its number of inputs is not known")
    for key, array in network.params.items():
        if array.size == 0:
            raise ValueError(f"{key} is empty, but an exported network has at least one value everywhere")
    for place, array in enumerate(network.state()):
        if not np.isfinite(array).all():
            names = [*network.params, *("running statistics" for _ in network.state())]
            raise ValueError(f"{names[place]} hold NaN or infinity, which cannot be exported")
    return int(network.inputs)


MOST_BYTES_OF_ONNX = 2**31 - 2**20
"""Of arrays in a file, which protobuf keeps below 2 GB; nodes and names take the rest."""


def fits_onnx(nbytes: int) -> None:
    """That arrays are not too many for an ONNX file."""
    if nbytes > MOST_BYTES_OF_ONNX:
        raise ValueError(f"the network's arrays take {nbytes / 1e9:.2f} GB, but an ONNX file holds at most 2 GB: keep them as "
                         "float32, or save the network as .npz")


def identifier(name: str, value: Any) -> str:
    """A name for a function in C."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, but must be a string")
    if not (value.isascii() and value.isidentifier()) or value in _KEYWORDS or value.startswith("_"):
        raise ValueError(f"{name} is {value!r}, but must be a name in C: letters, digits and underscores, a letter first, "
                         "and none that C has")
    return value


_KEYWORDS = frozenset((
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern", "float", "for",
    "goto", "if", "inline", "int", "long", "main", "register", "restrict", "return", "short", "signed", "sizeof", "static",
    "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while",
    "erfc", "erfcf", "exp", "expf", "fabs", "fabsf", "printf", "size_t", "tanh", "tanhf",
))
"""Of C, and what an exported file takes from its library."""


# State

def needs_forward(state: object, layer: object) -> None:
    if state is None:
        raise RuntimeError(f"{type(layer).__name__}.backward needs a call of forward first")


# Optimisers

def updatable(key: str, value: Any) -> tuple[np.ndarray, bool]:
    """A parameter, flat and contiguous, and whether that is its own memory: else the values must be put back."""
    if isinstance(value, np.ndarray):
        flags = value.flags
        if not flags.writeable:
            raise ValueError(f"params[{key!r}] is read-only, but is updated in place: pass a copy")
        if value.dtype in _FLOATS and flags.c_contiguous and flags.aligned:
            return value if value.ndim == 1 else value.reshape(-1), True
        dtype = parameter(f"params[{key!r}]", value, value.ndim).dtype.newbyteorder("=")
        return np.array(value, dtype, order="C").reshape(-1), False
    if isinstance(value, (int, float, np.floating, np.integer)):
        return np.array([value], np.float64), False
    raise TypeError(f"params[{key!r}] is a {type(value).__name__}, but must be an array of float32 or float64")


def gradient_of(key: str, gradient: ArrayLike, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The gradient of a parameter of a known shape, flat."""
    if np.shape(gradient) != shape:
        raise ValueError(f"grads[{key!r}] has shape {np.shape(gradient)}, but params[{key!r}] has shape {shape}")
    # The name is put together only where a message may need it: this runs for each parameter in every step.
    if type(gradient) is np.ndarray and gradient.dtype == dtype and gradient.flags.carray:
        array = gradient
    else:
        array = floats(f"grads[{key!r}]", gradient, dtype)
    return array if array.ndim == 1 else array.reshape(-1)


def same_state_shape(key: str, state: ArrayLike, shape: tuple[int, ...]) -> None:
    if np.shape(state) != shape:
        raise ValueError(
            f"params[{key!r}] has shape {shape}, but this optimiser began with shape {np.shape(state)}: "
            "make a new one for each network"
        )


# Numerical gradients

def perturbable(x: Any, h: float | None, name: str = "x") -> float:
    """The step for a numerical gradient at x."""
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{name} is a {type(x).__name__}, but must be an array of float64, which is perturbed in place")
    if x.dtype.newbyteorder("=") not in _FLOATS:
        raise TypeError(f"{name} is an array of {x.dtype.name}, but must be float64: pass {name}.astype(np.float64)")
    if x.dtype.itemsize == 4 and h is None:
        raise TypeError(
            f"{name} is float32, whose rounding is as large as the difference that h = 1e-4 makes: "
            f"pass {name}.astype(np.float64), or a larger h"
        )
    if not x.flags.writeable:
        raise ValueError(f"{name} is read-only, but is perturbed in place: pass {name}.copy()")
    return above_zero("h", 1e-4 if h is None else h)


def is_repeatable(loss: float, again: float) -> None:
    """A gradient can only be checked where the loss is finite, and there is no chance."""
    if not math.isfinite(loss):
        raise ValueError(f"the loss is {loss}, which has no gradient to be checked: look for NaN or infinity in params")
    if loss != again:
        raise ValueError(
            f"the network gives two losses for the same x, {loss:.9g} and {again:.9g}, so that its gradient cannot be "
            "checked: switch off what draws random numbers in your layers, or changes their input"
        )


def has_parameters_and_loss(network: Any) -> None:
    """What a gradient check needs of a network that is no `Network`."""
    if isinstance(network, type):
        raise TypeError(f"network is the class {network.__name__}, but must be an object: write {network.__name__}(...)")
    if not (isinstance(getattr(network, "params", None), dict) and callable(getattr(network, "loss", None))
            and callable(getattr(network, "gradient", None))):
        raise TypeError(
            f"network is a {type(network).__name__}, but must be a Network, or have a dict params and methods "
            "loss(x, t) and gradient(x, t)"
        )


def above_zero(name: str, value: Any) -> float:
    """A finite number > 0."""
    number = check_number(name, value, 0)
    if number == 0:
        raise ValueError(f"{name} is 0, but must be above 0")
    return number


def all_float64(layer: str, params: dict[str, Any]) -> None:
    """The parameters of a layer, which were to be converted wherever it keeps them."""
    for key, array in params.items():
        if not isinstance(array, np.ndarray) or array.dtype != np.float64 or not array.flags.writeable:
            raise TypeError(
                f"{key} of {layer} could not be converted to float64, which a numerical gradient needs: "
                "keep it as an array in an attribute of the layer"
            )


# Pictures

def matplotlib_is_installed() -> None:
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "nnfast[plot]"', name="matplotlib") from error
    del matplotlib


def has_epochs(history: Any) -> None:
    if not hasattr(history, "validation_loss"):
        raise TypeError(f"history is a {type(history).__name__}, but must be the History that fit returned")
    if not history.loss:
        raise ValueError("history has no epoch, but a picture needs at least one: train with fit first")


def params_of(network: Any) -> dict[str, Any]:
    params = getattr(network, "params", None)
    if not isinstance(params, dict):
        raise TypeError(f"network is a {type(network).__name__}, but must have a dict params")
    return params


def any_of(kind: str, found: Any) -> Any:
    """What a network has of a kind, at least one."""
    if not found:
        raise ValueError(f"network has no {kind}, but the picture needs one")
    return found


def has_histogram(name: str, values: Any) -> NDArray[Any]:
    """Outputs of a layer, all finite."""
    array = np.asarray(values)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} gives NaN or infinity, of which there is no histogram: look at x and the weights")
    return array


def of_two_inputs(perceptron: Any) -> None:
    if perceptron.w.shape != (2,):
        raise ValueError(f"the perceptron takes {perceptron.w.size} inputs, but a picture of the plane needs 2")


def one_question(scores: Any) -> None:
    """Scores of a network that says yes or no, once."""
    if np.shape(scores)[1] != 1:
        raise ValueError(
            f"the network answers {np.shape(scores)[1]} questions with yes or no, so a point has no one class: "
            "pass a function that gives the answer to one of them"
        )


def is_function_or_predicts(classifier: Any) -> None:
    if not callable(classifier):
        raise TypeError(
            f"classifier is a {type(classifier).__name__}, but must be a network, a perceptron, a function, or have predict(x)"
        )


def examples_of_labels(x: Any) -> Any:
    if x is None:
        raise ValueError("t was given without x: pass the examples, too")
    return x


def divisible(name: str, place: Any, count: int) -> Any:
    """Where axes stand in a grid."""
    if place is None:
        raise ValueError(f"{name} has a fixed place that cannot be divided: pass {count} axes, or one of pyplot.subplots")
    return place


def image_shape(name: str, shape: Any, inputs: int) -> tuple[int, int]:
    """Height and width of so many inputs as an image; a square if no shape is given."""
    if shape is None:
        side = math.isqrt(inputs)
        if side * side != inputs:
            raise ValueError(f"the first layer takes {inputs} inputs, which are no square: pass {name}=(height, width)")
        return side, side
    sizes = sequence_of_sizes(name, shape)
    if len(sizes) != 2 or sizes[0] * sizes[1] != inputs:
        raise ValueError(f"{name} is {tuple(sizes)}, but must be a height and a width whose product is {inputs}")
    return sizes[0], sizes[1]


def interval(name: str, limits: Any) -> tuple[float, float]:
    """Two finite numbers, the first below the second."""
    low, high = _finite_numbers(name, limits, 2)
    if low >= high:
        raise ValueError(f"{name} is {low:g} to {high:g}, but must go upwards")
    return low, high


def rectangle(name: str, limits: Any) -> tuple[float, float, float, float]:
    """Left, right, bottom, top."""
    left, right, bottom, top = _finite_numbers(name, limits, 4)
    interval(f"{name}[:2]", (left, right))
    interval(f"{name}[2:]", (bottom, top))
    return left, right, bottom, top


def _finite_numbers(name: str, values: Any, count: int) -> list[float]:
    if not isinstance(values, (list, tuple, np.ndarray)) or len(values) != count:
        raise ValueError(f"{name} is {values!r}, but must be {count} numbers")
    return [check_number(f"{name}[{place}]", value) for place, value in enumerate(values)]


def points(name: str, x: ArrayLike) -> np.ndarray:
    """Finite examples of two inputs each, at least one."""
    array = not_empty(name, rows(name, x, np.dtype(np.float64), None, ""))
    if array.shape[1] != 2:
        raise ValueError(f"{name} has {array.shape[1]} columns, but a picture of the plane needs 2")
    all_finite(name, array)
    return array


def answers(given: Any, count: int) -> np.ndarray:
    """What a classifier said to so many rows: labels, or rows of finite scores."""
    array = np.asarray(given)
    if array.ndim not in (1, 2) or array.shape[0] != count or not array.size:
        raise ValueError(
            f"classifier gave an array of shape {array.shape} for {count} rows, but must give {count} labels, or a row of "
            "scores for each"
        )
    if array.ndim == 2:
        all_finite("what classifier gave", floats("what classifier gave", array))
    return array


def each_an_axes(name: str, given: Any, count: int, kind: type) -> list[Any]:
    """As many matplotlib axes as there are panels."""
    flat = list(given.flat) if isinstance(given, np.ndarray) else list(given) if isinstance(given, (list, tuple)) else None
    if flat is None or not all(isinstance(one, kind) for one in flat):
        raise TypeError(f"{name} is {type(given).__name__}, but must be matplotlib axes, or a list of them")
    if len(flat) != count:
        raise ValueError(f"{name} has {len(flat)} axes, but the picture has {count} panels")
    return flat
