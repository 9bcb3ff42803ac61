"""What `fit_many` refuses; the style is that of _validation.py."""

from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np

from nnfast import _files, _validation

_OF_FUNCTIONS = ("callbacks", "step_callbacks")


def networks(given: Any) -> list[Any]:
    """At least one, and each of them once."""
    if hasattr(given, "fit") or not isinstance(given, Iterable):
        raise TypeError(f"networks is a {type(given).__name__}, but must be a list of networks")
    found = list(given)
    if not found:
        raise ValueError("networks is empty: there is nothing to train")
    places: dict[int, int] = {}
    for place, network in enumerate(found):
        if not hasattr(network, "training_step"):
            raise TypeError(f"networks[{place}] is a {type(network).__name__}, but must be a Network")
        if id(network) in places:
            raise ValueError(f"networks[{place}] is networks[{places[id(network)]}]: each can be trained once at a time")
        places[id(network)] = place
    return found


def option_of_each(name: str, value: Any, count: int) -> list[Any]:
    """An option by network: a list has one for each, anything else is for all.

    Lists of functions are for all, as in `Network.fit`, and so is a list of the rows' weights.
    """
    if not isinstance(value, list) or (name in _OF_FUNCTIONS and all(map(callable, value))) or (
            name == "sample_weight" and not any(one is None or np.ndim(one) for one in value)):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} is a list of {len(value)}, but there are {count} networks: "
                         "a list has one for each, anything else is for all")
    return value


def rows_of_each(name: str, given: Any, count: int, available: int) -> list[np.ndarray | None]:
    """Numbers of rows by network, int64, from 0 to those that are available; None for all rows."""
    if given is None:
        return [None] * count
    if isinstance(given, (str, bytes)) or not hasattr(given, "__len__"):
        raise TypeError(f"{name} is a {type(given).__name__}, but must be a list of index arrays, one for each network")
    if len(given) != count:
        raise ValueError(f"{name} has {len(given)} index arrays, but there are {count} networks: give one for each")
    return [None if one is None else _rows(f"{name}[{place}]", one, available) for place, one in enumerate(given)]


def _rows(name: str, given: Any, available: int) -> np.ndarray:
    array = np.asarray(given)
    if array.dtype == bool and array.shape == (available,):
        array = np.flatnonzero(array)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(f"{name} has shape {array.shape} and dtype {array.dtype}, but must be numbers of rows, shape (n,), "
                        f"or a mask, shape ({available},)")
    if not array.size:
        raise ValueError(f"{name} is empty: a network needs at least one row")
    outside = (array < 0) | (array >= available)
    if outside.any():
        raise ValueError(f"{name} has {array[outside][0]}, but the rows of x are 0 to {available - 1}")
    return np.ascontiguousarray(array, np.int64)


def rows_in_memory(x: Any) -> int:
    """How many rows there are, of arrays: what gives batches would be read by all networks at once."""
    if isinstance(x, (list, tuple)) and x and all(np.ndim(one) == 2 for one in x):
        raise TypeError("x is a list of arrays, but fit_many takes one array: concatenate them, or train by Network.fit")
    if not isinstance(x, (np.ndarray, list, tuple)) and not hasattr(x, "__array__"):
        raise TypeError(f"x is a {type(x).__name__}, but fit_many takes arrays: what gives batches is read by Network.fit")
    return int(_validation.numbers("x", x).shape[0])


def own_optimizers(optimizers: list[Any]) -> None:
    """That no optimiser of a list is there twice."""
    places: dict[int, int] = {}
    for place, optimizer in enumerate(optimizers):
        if optimizer is not None and id(optimizer) in places:
            raise ValueError(f"optimizer[{place}] is optimizer[{places[id(optimizer)]}], but what it keeps belongs to one "
                             "network: give each its own, or one for all, which is copied")
        places[id(optimizer)] = place


def own_files(checkpoints: list[Any]) -> None:
    """That no two are written into one file."""
    places: dict[Any, int] = {}
    for place, checkpoint in enumerate(checkpoints):
        path = getattr(checkpoint, "path", None)
        if path is not None and path in places:
            raise ValueError(f"checkpoint[{place}] has the file of checkpoint[{places[path]}], {path}: each needs its own")
        places[path] = place


def a_list_for_each(name: str, value: Any) -> None:
    """Of an option that names a file."""
    if value is not None and not isinstance(value, list):
        raise TypeError(f"{name} is a {type(value).__name__}, but must be a list with one for each network: "
                        "each needs a file of its own")


# Executors


def executor(value: Any) -> Any:
    if not callable(getattr(value, "submit", None)):
        raise TypeError(f"executor is {value!r}, but must have a method submit(function, *arguments) that returns futures, "
                        "as the executors of concurrent.futures, Dask (client.get_executor()) and mpi4py.futures have")
    return value


def no_comm(value: Any) -> None:
    if value is not None:
        raise TypeError("comm is given, but fit_many hands whole networks to an executor: leave comm out, or train one network "
                        "on all ranks with Network.fit(..., comm=comm)")


def future(value: Any) -> Any:
    """What an executor's submit gave."""
    if not all(callable(getattr(value, name, None)) for name in ("result", "done", "cancel")):
        raise TypeError(f"executor.submit returned a {type(value).__name__}, but must return a future: "
                        "an object with result(), done() and cancel()")
    return value


def not_sendable(name: str, place: int, error: Exception) -> NoReturn:
    raise TypeError(f"{name} of networks[{place}] cannot be sent to the executor's workers ({_files.in_a_line(str(error))}): "
                    "functions and classes must be defined at the top level of a module") from error


def lost(error: Exception) -> RuntimeError:
    """What to say of a network that no worker brought back; the error is what the executor told."""
    found = RuntimeError("its worker ended before it was trained, and so did the one that tried again "
                         f"({type(error).__name__}: {_files.in_a_line(str(error))})")
    found.__cause__ = error
    return found
