"""Blocks of data (`_sources.py`) read ahead, checked, and put together to what `fit` trains on: an epoch, part by part.

There are two buffers. While a step runs on the rows of one, a thread copies rows into the other, from a file or from
whatever the user's function gives, converted to what compiled code takes. A buffer holds whole batches, so that
batches are the same as those of an array in memory: what is left over of a block begins the next buffer.

With shuffling, blocks come in random order where the source has one that may be changed, and the rows of a buffer,
which come from several blocks, are permuted. All numbers are drawn by the thread that called `fit`.
"""

import contextlib
import math
import queue
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _fit_validation, _forks, _source_validation, _validation
from nnfast._sources import Arrays, Block, Source

if TYPE_CHECKING:
    from nnfast.network import Network

_BUFFER_BYTES = 1 << 23
"""Of x in a buffer, of which there are two."""

_BLOCKS = 8
"""In a buffer: their rows are mixed. Each is read in one piece, of 1 MiB unless told otherwise."""

_LOOK_SECONDS = 0.2
"""Between two looks whether the thread that reads is alive: a fork of this process has not got it."""

_LAST_SECONDS = 0.3
"""That the end of an epoch waits for the thread. It may be in a function of the user's that does not return."""

_NO_WEIGHTS = np.empty(0)


@dataclass
class Part:
    """Rows of an epoch that are in memory, in whole batches but for the last one."""

    x: np.ndarray
    t: np.ndarray
    weights: np.ndarray     # of the rows; empty: all are 1
    first_step: int
    checks_data: bool       # whether nobody has looked yet if x is finite
    marks: list[tuple[int, str, int]]   # a row from which on rows are of a block, from which row of it on

    def steps(self, batch_size: int) -> int:
        """Batches of so many rows."""
        return -(-len(self.x) // batch_size)

    def refuse_odd(self) -> None:
        """Look where x is not finite."""
        ends = [first for first, _, _ in self.marks[1:]] + [len(self.x)]
        for (first, name, row), last in zip(self.marks, ends, strict=True):
            _validation.all_finite(f"{name}: x", self.x[first:last], row)


@dataclass
class _Buffer:
    """Memory for a part, made when the first rows are known, and used again."""

    rows: int
    arrays: list[np.ndarray]
    filled: int = 0
    marks: list[tuple[int, str, int]] = field(default_factory=list)

    def take(self, name: str, arrays: list[np.ndarray], first: int, most: int) -> int:
        """Copy rows from the first on, as many as there is room for; says how many."""
        count: int = min(arrays[0].shape[0] - first, self.rows - self.filled, most)
        self.marks.append((self.filled, name, first))
        for mine, array in zip(self.arrays, arrays, strict=True):
            np.copyto(mine[self.filled : self.filled + count], array[first : first + count], casting="unsafe")
        self.filled += count
        return count


class Stream:
    """What one fit reads: a source for a network.

    Attributes
    ----------
    batch_size : int
        That of `fit`, or the number of rows if that is less.
    rows : int or None
        Of an epoch; None where nobody knows.
    steps, most_rows : int
        Likewise; 0 where nobody knows.
    buffers : list of _Buffer
        At most two, for all epochs.
    """

    def __init__(
        self, network: "Network", source: Source, batch_size: int, block_rows: int | None, steps_per_epoch: int | None,
        shuffle: bool, class_weight: Mapping[int, float] | str | None,
    ) -> None:
        self._network, self._source, self._shuffles = network, source, shuffle
        self.rows = source.rows
        self.batch_size = batch_size if source.rows is None else min(batch_size, source.rows)
        if isinstance(source, Arrays):
            _source_validation.ends_itself(steps_per_epoch)
            self.steps, self.most_rows = -(-source.rows // self.batch_size), source.rows
        else:
            self.steps = 0 if steps_per_epoch is None else _validation.check_count("steps_per_epoch", steps_per_epoch)
            self.most_rows = self.steps * batch_size
        self._block_rows = None if block_rows is None else _validation.check_count("block_rows", block_rows)
        self._x_like: np.ndarray | None = None      # no rows, of what x is converted to
        self._t_like: np.ndarray | None = None
        self._has_weights: bool | None = None
        self._outputs = network.outputs
        self.buffers: list[_Buffer] = []
        self._class_weight = class_weight
        self._of_classes: np.ndarray | None = None
        if isinstance(source, Arrays):
            found = {self._taken_as(x.dtype) for x in source.xs}
            columns = math.prod(source.xs[0].shape[1:])
            self._x_like = np.empty((0, columns), found.pop() if len(found) == 1 else network.dtype)
            source.cut(self._rows_of_blocks())
        if class_weight is not None:
            _fit_validation.weighs_rows(network)
        if isinstance(class_weight, str):
            _fit_validation.counts_classes(class_weight, isinstance(source, Arrays))
            self._of_classes = self._balanced(class_weight)

    # Sizes

    def _taken_as(self, dtype: np.dtype) -> np.dtype:
        """The dtype of the buffers for data of some dtype."""
        is_taken = self._network._rescales and _validation.are_small(dtype)
        return dtype.newbyteorder("=") if is_taken else self._network.dtype

    def _rows_of_blocks(self) -> int:
        like: Any = self._x_like
        row_bytes = max(1, like.shape[1] * like.itemsize)
        return max(1, _BUFFER_BYTES // row_bytes // _BLOCKS) if self._block_rows is None else self._block_rows

    def new_buffer(self, arrays: list[np.ndarray]) -> _Buffer:
        """For whole batches of such rows."""
        rows = _BLOCKS * self._rows_of_blocks()
        rows = -(-min(rows, self.most_rows or rows) // self.batch_size) * self.batch_size
        likes: list[Any] = [self._x_like, *arrays[1:]]
        return _Buffer(rows, [np.empty((rows, *like.shape[1:]), like.dtype) for like in likes])

    # Blocks

    def _balanced(self, class_weight: str) -> np.ndarray:
        """Weights of the classes, by how often each one occurs."""
        counts: Any = 0
        for block in self._source.blocks(None):
            with _named(block):
                targets = self._targets(block.t, len(block.x), block.x)
                labels, classes = _fit_validation.classes(targets, self._network, self._outputs)
                counts = counts + np.bincount(labels, minlength=classes)
        return _fit_validation.class_weight(class_weight, counts)

    def _targets(self, t: Any, rows: int, x: Any) -> np.ndarray:
        loss = self._network.last_layer
        if not hasattr(loss, "prepare"):
            targets: np.ndarray = np.asarray(t)
            _validation.same_length(targets, rows)
            if self._t_like is None:
                self._t_like = np.empty((0, *targets.shape[1:]), targets.dtype)
            _source_validation.alike("t", targets, self._t_like)
            return targets
        if self._outputs is None:
            self._outputs = self._network.predict(x[:1]).shape[1]
        targets = loss.prepare(t, rows, self._outputs, self._network.dtype)
        if targets.dtype.kind == "f":
            _validation.all_finite("t", targets)
        return targets

    def prepared(self, block: Block) -> list[np.ndarray]:
        """x, targets and perhaps weights, checked but for x being finite, and x not converted."""
        network = self._network
        first = type(next(iter(network.layers.values()))).__name__
        x = _validation.row_shaped("x", _validation.numbers("x", block.x), network.inputs, f"layer 1 ({first})")
        if not len(x):
            _validation.same_length(np.asarray(block.t), 0)
            return []
        has_weights = block.weights is not None
        if self._x_like is None:
            self._x_like = np.empty((0, x.shape[1]), self._taken_as(x.dtype))
        if self._has_weights is None:
            self._has_weights = has_weights
        _source_validation.one_kind(self._x_like.shape[1], x.shape[1])
        _source_validation.one_dtype(self._x_like.dtype, x.dtype)
        _source_validation.weighted_alike(self._has_weights, has_weights)
        targets = self._targets(block.t, len(x), x)
        if not has_weights and self._class_weight is None:
            return [x, targets]
        _fit_validation.weighs_rows(network)
        weights = _fit_validation.sample_weight(block.weights, len(x)) if has_weights else np.ones(len(x))
        if self._class_weight is not None:
            labels, classes = _fit_validation.classes(targets, network, self._outputs)
            if self._of_classes is None:
                self._of_classes = _fit_validation.class_weight(self._class_weight, np.zeros(classes, np.int64))
            weights = weights * self._of_classes[labels]
        return [x, targets, weights]

    # Epochs

    @contextlib.contextmanager
    def epoch(self, number: int) -> Iterator[Iterator[Part]]:
        """The parts of an epoch, each of them good until the next one is asked for."""
        _forks.draws(self._network)
        order = None
        if self._shuffles and self._source.count is not None:
            order = self._network.generator.permutation(self._source.count)
        blocks = self._source.blocks(order)
        reading = _Reading(self, blocks, number, checks_data=number == 1 or not self._source.is_same)
        try:
            reading.thread.start()
            yield reading.parts()
        finally:
            reading.end()


class _Reading:
    """The thread that reads an epoch. To it go buffers to fill, back come full ones, and then None or an exception."""

    def __init__(self, stream: Stream, blocks: Generator[Block], number: int, *, checks_data: bool) -> None:
        self._stream, self._blocks, self._number, self._checks_data = stream, blocks, number, checks_data
        self._empty: queue.SimpleQueue[_Buffer | None] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[_Buffer | BaseException | None] = queue.SimpleQueue()
        self._is_over = False
        for buffer in stream.buffers:
            self._empty.put(buffer)
        self.thread = threading.Thread(target=self._run, name="nnfast reads ahead", daemon=True)

    def parts(self) -> Iterator[Part]:
        """What was read, in whole batches."""
        steps = 0
        while True:
            buffer = self._next()
            if buffer is None:
                return
            x, t, *weights = (array[: buffer.filled] for array in buffer.arrays)
            yield Part(x, t, weights[0] if weights else _NO_WEIGHTS, steps, self._checks_data, buffer.marks)
            steps += -(-buffer.filled // self._stream.batch_size)
            self._empty.put(buffer)

    def _next(self) -> _Buffer | None:
        while True:
            try:
                found = self._full.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if self._full.empty():
                    _source_validation.reader_is_alive(self.thread.is_alive())
                continue
            if isinstance(found, BaseException):
                raise found
            return found

    def end(self) -> None:
        """Have the thread stop, and wait for it, though not for ever."""
        self._is_over = True
        self._empty.put(None)
        if self.thread.is_alive():
            self.thread.join(_LAST_SECONDS)

    # In the thread

    def _run(self) -> None:
        try:
            self._read()
            self._full.put(None)
        except BaseException as error:      # noqa: BLE001, whatever the user's function raises is raised by fit
            self._full.put(error)

    def _read(self) -> None:
        stream, buffer, rows = self._stream, None, 0
        most = stream.most_rows or sys.maxsize
        with contextlib.closing(self._blocks):
            for block in self._blocks:
                with _named(block):
                    arrays = stream.prepared(block)
                first = 0
                while arrays and first < len(arrays[0]) and rows < most:
                    buffer = buffer or self._emptied(arrays)
                    if buffer is None or self._is_over:
                        return
                    count = buffer.take(block.name, arrays, first, most - rows)
                    first, rows = first + count, rows + count
                    if buffer.filled == buffer.rows:
                        self._full.put(buffer)
                        buffer = None
                if rows == most or self._is_over:
                    break
        _source_validation.some_rows_in(rows, self._number)
        if buffer is not None:
            self._full.put(buffer)

    def _emptied(self, arrays: list[np.ndarray]) -> _Buffer | None:
        """A buffer that has been trained on, or a new one; None if nobody wants any more."""
        if len(self._stream.buffers) < 2:
            self._stream.buffers.append(self._stream.new_buffer(arrays))
            return self._stream.buffers[-1]
        buffer = self._empty.get()
        if buffer is not None:
            buffer.filled, buffer.marks = 0, []
        return buffer


@contextlib.contextmanager
def _named(block: Block) -> Iterator[None]:
    """What is refused of a block is said to be its."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise
        raise type(error)(f"{block.name}: {error}") from None
