"""A fork waits for the random generators that other threads draw from.

A generator has a lock for the time of one number or one permutation. A child that gets it locked would wait for ever: to
draw, and since NumPy 2.5 to read or copy the generator, too. `os.fork` tells Python before it forks; a fork by C does not.
"""

import os
import threading
import weakref
from typing import Any

import numpy as np

_LONGEST_WAIT = 1.0
"""Seconds that a fork waits for a lock: a permutation holds one for some milliseconds, and for ever only in a deadlock."""

_drawing: "weakref.WeakValueDictionary[int, Any]" = weakref.WeakValueDictionary()     # by id: it need not be hashable
_held = threading.local()   # locks, by a thread that forks


def draws(owner: Any) -> None:
    """`owner`, a network or a layer, draws from its `generator`, or from the global ``np.random`` where that is None."""
    _drawing[id(owner)] = owner


def _before_fork() -> None:
    held = _held.locks = []
    owners = [owner for reference in _drawing.valuerefs() if (owner := reference()) is not None]
    locks = {id(lock): lock for lock in map(_lock, owners) if lock is not None}
    for lock in locks.values():
        if lock.acquire(timeout=_LONGEST_WAIT):
            held.append(lock)


def _lock(owner: Any) -> Any:
    generator = getattr(owner, "generator", None)
    # (NumPy's stubs do not export np.random.get_bit_generator, which is the same function.)
    source = np.random.mtrand.get_bit_generator() if generator is None else getattr(generator, "bit_generator", None)
    return getattr(source, "lock", None)


def _after_fork() -> None:
    for lock in _held.__dict__.pop("locks", ()):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
