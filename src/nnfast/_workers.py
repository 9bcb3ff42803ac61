"""Threads that train beside each other: what they are given, who of them does Python, and how they end."""

import contextlib
import contextvars
import functools
import heapq
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from nnfast import _orders, _plan

SHORT = 5e-4
"""Seconds of a turn below which it is not worth another thread, which wakes up some 50 microseconds late, as this one does
afterwards. 32 fits of 20-50-5, 50 epochs of 800 rows with early stopping on 200 more: 0.9 times as fast as with one thread,
instead of 0.67 times."""

SLICE = 0.02
"""Seconds that a thread stays with a fit of short turns while another waits to do Python."""

_LONGEST_WAIT = 0.1
"""Seconds after which the calling thread looks for Ctrl-C. A signal wakes it up, but not one that another thread raised
(`_thread.interrupt_main`), and none on Windows."""


class Workers:
    """Threads that do what they are given, the costliest first, and may ask the calling thread to do something.

    One of them at a time does Python: the one that has the baton, until it is in compiled code. The interpreter goes from
    thread to thread anyway, but whoever wants it waits for the one that has it, which gives it up for microseconds at
    each small step into NumPy and has to wait for it in turn. 32 fits of 20-50-5 were 1.81 times as fast on two cores as
    on one without a baton and 1.86 times with it (100 epochs of 1,000 rows), or 1.21 and 1.55 times (50 of 200).

    No lock is held where Ctrl-C could come, which is between any two lines of the calling thread.

    number: there are so many, or fewer if the system has no more; 0 instead of 1, which would be the calling thread.
    """

    def __init__(self, number: int) -> None:
        self.number = number if number > 1 else 0
        self.several_left = True     # the last one gets all threads
        self._asked: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._work: list[tuple[float, int, functools.partial[None]]] = []    # a heap
        self._lock = threading.Lock()
        self._given: queue.SimpleQueue[None] = queue.SimpleQueue()      # as many as there are in the heap
        self._baton = threading.Lock()
        self._since = 0.0       # somebody has had the baton
        self._rest = False
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for number in range(self.number):
            context = contextvars.copy_context()
            thread = threading.Thread(
                target=context.run, args=(self._work_on,), name=f"nnfast-worker-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:    # the system has no more of them
                break
            self._threads.append(thread)
        self.number = len(self._threads)
        return self

    def __exit__(self, *exception: object) -> None:
        self.rest()

    def rest(self) -> None:
        """Let all of them end, at the latest after the call of compiled code that they are in."""
        self._rest = True
        for _ in self._threads:
            self._given.put(None)
        for thread in self._threads:
            while thread.is_alive():
                with contextlib.suppress(KeyboardInterrupt):    # they write into the networks until then
                    thread.join()

    def give(self, cost: float, place: int, function: Callable[..., None], *arguments: Any) -> None:
        """Something that one of them is to do; of those that cost as much, the one of the first place before the others."""
        with self._lock:
            heapq.heappush(self._work, (-cost, place, functools.partial(function, *arguments)))
        self._given.put(None)

    def ask(self, function: Callable[..., None], *arguments: Any) -> None:
        """Something that the calling thread is to do."""
        self._asked.put(functools.partial(function, *arguments))

    def answer(self) -> None:
        """In the calling thread: wait for the next thing that was asked for, and do it."""
        function = None
        while function is None:
            with contextlib.suppress(queue.Empty):
                function = self._asked.get(timeout=_LONGEST_WAIT)
        function()

    def take(self, turn: _plan.Turn) -> float:
        """In one of them: take a turn; how many seconds that took."""
        if self._rest:
            raise _Rest
        if turn.lasted < SHORT and time.perf_counter() < self._since + SLICE:
            return self.take_here(turn)
        self._baton.release()
        try:
            return self.take_here(turn)
        finally:
            self._baton.acquire()
            self._since = time.perf_counter()

    def take_here(self, turn: _plan.Turn) -> float:
        """In any thread: take a turn, on all threads if nothing else is left."""
        return turn.take(1 if self.several_left else None)

    def _work_on(self) -> None:
        """What each of them does."""
        with _orders.kept_memory(), contextlib.suppress(_Rest):
            while True:
                self._given.get()
                if self._rest:
                    return
                try:
                    with self._baton:
                        self._since = time.perf_counter()
                        with self._lock:
                            *_, function = heapq.heappop(self._work)
                        function()
                except Exception as error:  # noqa: BLE001 - raised in the calling thread, which would wait for ever
                    self.ask(_raise, error)
                del function    # and the plan that it holds, before waiting for the next one


class _Rest(BaseException):
    """What ends a fit of one that is to rest: it is as after its last finished epoch."""


def _raise(error: Exception) -> None:
    raise error
