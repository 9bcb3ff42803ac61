"""In which orders epochs take their rows: those of NumPy's generator, drawn for many epochs at a time.

``generator.permutation(1000)`` takes 10 to 16 microseconds, an epoch of 20-50-5 some 115, and NumPy gives the interpreter to
other threads and asks for it back in each: two threads that draw at once take longer than one after the other. Compiled
code draws the same numbers for all epochs of a turn in one call, in 3 to 4 microseconds each.
"""

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from nnfast import _kernels

_kept = threading.local()


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Draw orders into the same memory again and again, in this thread.

    The system takes back what a thread other than the first frees, and gives it anew page by page: 3% of 32 fits of 20-50-5
    with 100 epochs of 1,000 rows, on two cores.
    """
    _kept.memory = np.empty(0, np.int64)
    try:
        yield
    finally:
        del _kept.memory


def empty(epochs: int, rows: int) -> np.ndarray:
    """Memory for orders (epochs, rows), of int64; where it is kept, until the next ones."""
    size = epochs * rows
    memory: np.ndarray | None = getattr(_kept, "memory", None)
    if memory is None:
        return np.empty((epochs, rows), np.int64)
    if len(memory) < size:
        _kept.memory = memory = np.empty(size, np.int64)
    return memory[:size].reshape(epochs, rows)


def shuffle(generator: Any, rows: np.ndarray, orders: np.ndarray) -> None:
    """Each of orders (epochs, N) = rows (N,), both int64, as ``rows[generator.permutation(N)]`` gives them."""
    if type(generator) is np.random.Generator and len(rows) < (1 << 32) - 1 and _are_numpys():
        _kernels.shuffle(generator.bit_generator, rows, orders)
    else:
        for order in orders:
            order[:] = rows[generator.permutation(len(rows))]


@functools.cache
def _are_numpys() -> bool:
    """Whether this NumPy still draws like that: a later one may draw otherwise (NEP 19)."""
    rows, ours = np.arange(300), np.empty((2, 300), np.int64)
    _kernels.shuffle(np.random.PCG64(0), rows, ours)
    theirs = np.random.Generator(np.random.PCG64(0))
    return all(np.array_equal(order, theirs.permutation(300)) for order in ours)
