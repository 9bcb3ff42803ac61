"""What `Network.fit` refuses of data that are read in blocks; the style is that of _validation.py."""

from typing import Any

import numpy as np

_KINDS = ("a sequence of pairs (x, t), a function that returns an iterator of them, or an iterable of them")


def gives_targets(x: Any) -> None:
    """That x is something that gives pairs."""
    if x is None or isinstance(x, (str, bytes, dict, set)) or hasattr(x, "__array__"):
        kind = "missing" if x is None else f"of type {type(x).__name__}"
        raise TypeError(f"t is missing, and x is {kind}: pass targets, or as x {_KINDS}")
    if isinstance(x, type):
        raise TypeError(f"x is the class {x.__name__}, but must be an object: write {x.__name__}(...)")
    if not (callable(x) or hasattr(x, "__iter__") or hasattr(x, "__getitem__")):
        raise TypeError(f"t is missing, and x is {x!r}: pass targets, or as x {_KINDS}")


def gives_no_targets(x: Any) -> None:
    """That x, which came with targets, is examples alone."""
    if (callable(x) or hasattr(x, "__next__")) and not hasattr(x, "__array__"):
        raise TypeError(
            f"x is a {type(x).__name__}, which gives its targets itself: have it give pairs (x, t), and leave t out")


def gives_weights(sample_weight: Any) -> None:
    if sample_weight is not None:
        raise TypeError("sample_weight is for arrays: have x give triples (x, t, sample_weight)")


def iterable(name: str, thing: Any) -> Any:
    if not hasattr(thing, "__iter__"):
        raise TypeError(f"{name} is {thing!r}, but must be something to iterate over")
    return thing


def pair_or_triple(name: str, given: Any) -> Any:
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        kind = f"a {type(given).__name__}" + (f" of {len(given)}" if isinstance(given, (tuple, list)) else "")
        raise TypeError(f"{name} is {kind}, but must be a pair (x, t), or a triple (x, t, sample_weight)")
    return given


def examples(name: str, x: np.ndarray, inputs: int | None) -> np.ndarray:
    """The x of a pair, which is at least a row unless that is one number."""
    if x.ndim == 0 and inputs != 1:
        raise TypeError(
            f"{name} has as its x {x[()]!r}, but must be a pair (x, t) of a batch or an example: is t missing?")
    return x


def as_many(name: str, things: Any, other_name: str, others: Any) -> None:
    """That there is an array for each array."""
    if not isinstance(things, (list, tuple)) or len(things) != len(others):
        found = f"a list of {len(things)}" if isinstance(things, (list, tuple)) else f"a {type(things).__name__}"
        raise ValueError(
            f"{other_name} is a list of {len(others)} arrays, but {name} is {found}: pass one for each of them")


def weights_shaped(weights: np.ndarray, rows: int, x_name: str) -> None:
    if weights.shape != (rows,):
        raise ValueError(f"sample_weight has shape {weights.shape}, but {x_name} has {rows} rows: pass shape ({rows},)")


def some_rows(rows: int) -> None:
    if rows == 0:
        raise ValueError("x has no rows, but at least 1 is needed")


def some_rows_in(rows: int, epoch: int) -> None:
    if rows == 0:
        remedy = ": have it return a new iterator each time" if epoch > 1 else ""
        raise ValueError(f"x gives no rows in epoch {epoch}, but at least 1 is needed{remedy}")


def read_once(source: Any, epochs: int) -> None:
    """That an iterator is not asked for more epochs than one."""
    if getattr(source, "is_for_once", False) and epochs > 1:
        raise ValueError(f"x is an iterator, which gives its batches once, but epochs is {epochs}: "
                         "pass a function that returns a new iterator for each epoch")


def not_streamed(block_rows: Any, steps_per_epoch: Any) -> None:
    """That arrays in memory are not told how to be read."""
    for name, value in (("block_rows", block_rows), ("steps_per_epoch", steps_per_epoch)):
        if value is not None:
            raise ValueError(
                f"{name} is {value!r}, but is for data that are read in blocks, and x is an array in memory")


def ends_itself(steps_per_epoch: Any) -> None:
    if steps_per_epoch is not None:
        raise ValueError(
            f"steps_per_epoch is {steps_per_epoch!r}, but an epoch is all rows of x, however many steps they make")


def knows_its_steps(schedule: Any, steps: int) -> None:
    if schedule is not None and not steps:
        raise ValueError("schedule needs the number of steps of an epoch, which x does not tell: pass steps_per_epoch")


def one_kind(columns: int, found: int) -> None:
    if found != columns:
        raise ValueError(f"x has {found} columns, but the blocks before have {columns}")


def one_dtype(dtype: np.dtype, found: np.dtype) -> None:
    if not np.can_cast(found, dtype, "safe" if dtype.kind != "f" else "unsafe"):
        raise TypeError(f"x holds {found.name}, but the blocks before hold {dtype.name}, which cannot take it: give "
                        "all in one dtype")


def weighted_alike(has_weights: bool, found: bool) -> None:
    if has_weights != found:
        raise ValueError("sample_weight is missing, but the blocks before have one" if has_weights else
                         "sample_weight is given, but the blocks before have none")


def alike(name: str, array: np.ndarray, like: np.ndarray) -> None:
    """Targets of a loss that is written in Python, of the shape and dtype of those before."""
    if array.shape[1:] != like.shape[1:] or not np.can_cast(array.dtype, like.dtype, "same_kind"):
        raise ValueError(f"{name} has rows of shape {array.shape[1:]} and {array.dtype.name}, but the blocks before "
                         f"have {like.shape[1:]} and {like.dtype.name}")


def reader_is_alive(is_alive: bool) -> None:
    if not is_alive:
        raise RuntimeError("this process was forked during fit, and the thread that reads data ahead does not survive "
                           "a fork: fork before fit, or call fit in the child")
