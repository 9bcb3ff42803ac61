"""Who of several threads does Python: the one that has the baton, until it is in compiled code.

The interpreter goes from thread to thread anyway, but whoever wants it waits for the one that has it, which gives it up for
microseconds at each small step into NumPy and has to wait for it in turn. 32 fits of 20-50-5 with 100 epochs of 1,000 rows
were 1.81 times as fast on two cores as on one without a baton, with 50 epochs of 200 rows 1.21 times; with one 1.88 and 1.55.
"""

import contextlib
import threading
import time
from collections.abc import Iterator

_own = threading.local()


@contextlib.contextmanager
def held(baton: threading.Lock) -> Iterator[None]:
    """Have the baton."""
    with baton:
        _own.baton, _own.since = baton, time.perf_counter()
        try:
            yield
        finally:
            del _own.baton, _own.since


@contextlib.contextmanager
def passed() -> Iterator[None]:
    """Be in compiled code, for tens of microseconds and more: another thread may have the baton, if this one has one."""
    baton: threading.Lock | None = getattr(_own, "baton", None)
    if baton is None:
        yield
        return
    baton.release()
    try:
        yield
    finally:
        baton.acquire()
        _own.since = time.perf_counter()


def seconds() -> float:
    """How long this thread has had the baton."""
    since: float = _own.since
    return time.perf_counter() - since
