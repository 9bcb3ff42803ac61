"""Where data come from that are not arrays in memory: maps of files, lists of arrays, sequences and generators.

A source gives the blocks of an epoch, one after the other, as they are; `_streams.py` reads them ahead, checks and
collects them. What `fit` was given is looked at once, in `source`.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _source_validation, _validation


@dataclass
class Block:
    """Some examples that come together: x (B, I), targets, and weights of the rows or None."""

    name: str
    x: Any
    t: Any
    weights: Any = None


class Arrays:
    """Arrays, perhaps maps of files, that are cut into blocks: they are read where they are, and never copied whole.

    Attributes
    ----------
    xs : list of ndarray
        Examples.
    rows : int
        Of all of them.
    is_same : bool
        Whether every epoch has the same examples, whose numbers need be looked at once.
    """

    is_same = True

    def __init__(
        self, names: list[str], xs: list[np.ndarray], ts: list[np.ndarray], weights: list[np.ndarray] | None
    ) -> None:
        self._names, self.xs, self._ts, self._weights = names, xs, ts, weights
        self.rows = sum(len(x) for x in xs)
        self._places: list[tuple[int, int, int]] = []

    def cut(self, block_rows: int) -> None:
        """Blocks of so many rows, and what is left over of each array."""
        self._places = [(array, first, min(first + block_rows, len(x)))
                        for array, x in enumerate(self.xs) for first in range(0, len(x), block_rows)]

    @property
    def count(self) -> int | None:
        """Of the blocks, which may come in any order."""
        return len(self._places)

    def blocks(self, order: np.ndarray | None) -> Generator[Block]:
        """The blocks of an epoch, in this order."""
        for place in range(len(self._places)) if order is None else order:
            array, first, last = self._places[place]
            part = slice(first, last)
            weights = None if self._weights is None else self._weights[array][part]
            yield Block(f"{self._names[array]}[{first}:{last}]", self.xs[array][part], self._ts[array][part], weights)


class Items:
    """An object with a length, whose items are batches or single examples, in any order."""

    rows: int | None = None
    is_same = False

    def __init__(self, items: Any, inputs: int | None) -> None:
        self._items, self._inputs = items, inputs

    @property
    def count(self) -> int | None:
        """Of the items."""
        return len(self._items)

    def blocks(self, order: np.ndarray | None) -> Generator[Block]:
        """The items of an epoch, in this order."""
        for place in range(len(self._items)) if order is None else map(int, order):
            yield _block(f"x[{place}]", self._items[place], self._inputs)


class Batches:
    """What gives batches in an order of its own: a function that returns an iterator, or something to iterate over."""

    rows: int | None = None
    is_same = False
    count: int | None = None

    def __init__(self, batches: Iterable[Any] | Callable[[], Iterable[Any]], inputs: int | None) -> None:
        self._batches, self._inputs = batches, inputs
        self.is_for_once = hasattr(batches, "__next__")

    def blocks(self, order: np.ndarray | None) -> Generator[Block]:
        """The batches of an epoch, as they come."""
        batches = self._batches() if callable(self._batches) else self._batches
        for number, batch in enumerate(_source_validation.iterable("what x returns", batches), 1):
            yield _block(f"batch {number} of x", batch, self._inputs)


Source = Arrays | Items | Batches


def source(x: Any, t: Any, sample_weight: Any, inputs: int | None) -> Source | None:
    """What `fit` was given, if it is to be read in blocks; None for arrays in memory."""
    if t is None:
        return _without_targets(x, sample_weight, inputs)
    if isinstance(x, np.memmap):
        return _arrays(["x"], ["t"], [x], [t], None if sample_weight is None else [sample_weight], inputs)
    if _are_blocks(x, t, inputs):
        _source_validation.as_many("t", t, "x", x)
        if sample_weight is not None:
            _source_validation.as_many("sample_weight", sample_weight, "x", x)
        numbers = range(len(x))
        x_names, t_names = ([f"{name}[{place}]" for place in numbers] for name in ("x", "t"))
        return _arrays(x_names, t_names, x, t, sample_weight, inputs)
    _source_validation.gives_no_targets(x)
    return None


def _without_targets(x: Any, sample_weight: Any, inputs: int | None) -> Source:
    _source_validation.gives_targets(x)
    _source_validation.gives_weights(sample_weight)
    if hasattr(x, "__len__") and hasattr(x, "__getitem__"):
        return Items(x, inputs)
    return Batches(x, inputs)


def _are_blocks(x: Any, t: Any, inputs: int | None) -> bool:
    """Whether x is a list of arrays with several rows each; not of examples, which may be images of several rows."""
    if not (isinstance(x, (list, tuple)) and x and all(isinstance(one, np.ndarray) and one.ndim == 2 for one in x)):
        return False
    if len({one.shape for one in x}) > 1:
        return True
    if inputs is not None:
        return bool(x[0].size != inputs)
    return isinstance(t, (list, tuple)) and all(np.shape(one)[:1] == x[0].shape[:1] for one in t)


def _arrays(
    x_names: list[str], t_names: list[str], xs: list[np.ndarray], ts: list[Any], weights: list[ArrayLike] | None,
    inputs: int | None,
) -> Arrays:
    """The arrays, checked as far as that needs none of their numbers."""
    ts = [t if isinstance(t, np.ndarray) else np.asarray(t) for t in ts]
    for x_name, t_name, x, t in zip(x_names, t_names, xs, ts, strict=True):
        _validation.row_shaped(x_name, _validation.numbers(x_name, x[:0]), inputs, "the network")
        _validation.same_length(t, len(x), t_name, x_name)
    of_rows = None if weights is None else [np.asarray(one) for one in weights]
    for x_name, x, one in zip(x_names, xs, of_rows or [], strict=False):
        _source_validation.weights_shaped(one, len(x), x_name)
    _source_validation.some_rows(sum(map(len, xs)))
    return Arrays(x_names, list(xs), ts, of_rows)


def _block(name: str, given: Any, inputs: int | None) -> Block:
    """A pair, or a triple with weights: of a batch or of one example, whose target is a number or which is a row."""
    parts = list(_source_validation.pair_or_triple(name, given))
    x = _source_validation.examples(name, np.asarray(parts[0]), inputs)
    if np.ndim(parts[1]) == 0 or (x.ndim == 1 and inputs != 1):
        parts = [np.asarray(part)[np.newaxis] for part in parts]
    return Block(name, *parts)
