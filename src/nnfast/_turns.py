"""How fits that run at once take turns: whose steps are next in the one call of compiled code that all threads are in.

What a fit does in Python between two turns (draw an order, tell callbacks of an epoch) happens in the calling thread, beside
that call, which another thread makes: of 32 fits of 20-50-5 with 100 epochs of 1,000 rows it is a fifth.
"""

import contextlib
import contextvars
import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from nnfast import _epochs, _fit, _plan, _threads
from nnfast.layers import Dropout
from nnfast.trainer import History

if TYPE_CHECKING:
    from nnfast.network import Network

_BEGUN_BYTES = 1 << 25
"""Of the plans of fits that have begun, beyond one for each thread: so that a call has work for all threads."""

_CALL_SECONDS = 0.1
"""Of a call of compiled code: the longest that Ctrl-C waits for it."""


class FitManyError(RuntimeError):
    """Some of many networks could not be trained to the end; the others were.

    Parameters
    ----------
    errors : dict of int to Exception
        By the place of a network among those that were given.
    histories : list
        A `History` for each network that was trained, None for the others.

    Attributes
    ----------
    errors, histories
        As they were given.

    Examples
    --------
    >>> import numpy as np
    >>> import nnfast
    >>> networks = [nnfast.TwoLayerNet(4, 5, 3) for _ in range(2)]
    >>> x, t = np.ones((10, 4)), np.zeros(10, int)
    >>> x[7] = np.nan
    >>> try:
    ...     histories = nnfast.fit_many(networks, x, t, rows=[range(5), range(5, 10)])
    ... except nnfast.FitManyError as error:
    ...     histories = error.histories
    >>> histories[1] is None
    True
    """

    def __init__(self, errors: dict[int, Exception], histories: list[History | None]) -> None:
        self.errors, self.histories = errors, histories
        told = "; ".join(f"networks[{place}]: {type(error).__name__}: {error}" for place, error in sorted(errors.items()))
        super().__init__(f"{len(errors)} of {len(histories)} networks could not be trained to the end ({told})")

    def __reduce__(self) -> tuple[type, tuple[dict[int, Exception], list[History | None]]]:
        return FitManyError, (self.errors, self.histories)


def train(fits: list[_fit.Fit], told: Callable[[int], None] = lambda place: None) -> list[History]:
    """Train all of them, on as many threads as there may be; `told` hears of each that has ended, by its place."""
    threads = _threads.get_num_threads()
    schedule = _Schedule(fits, told)
    try:
        with _Engine(threads) as engine:    # at rest, when those on their way are closed
            while schedule.begin(engine, threads):
                for one, seconds in engine.taken():
                    if schedule.go_on(one, seconds):
                        engine.give(one)
    finally:
        schedule.close()
    if schedule.errors:
        raise FitManyError(schedule.errors, schedule.histories) from min(schedule.errors.items())[1]
    return [history for history in schedule.histories if history is not None]


@dataclass
class _Running:
    """A fit on its way."""

    place: int
    number: int             # of those that have begun, by which they come first
    followers: list[int]    # that must wait until it has ended
    turns: _plan.Turns[History]
    turn: Any = None        # its next one, a `_plan.Turn`
    nbytes: int = 0
    since: float = 0.0      # when it asked for that turn
    seconds: float = 0.0    # that it has taken so far


class _Engine:
    """A thread that takes turns of those that it is given, in one call after the other; with one thread alone, no other."""

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._given: queue.SimpleQueue[_Running | None] = queue.SimpleQueue()
        self._taken: queue.SimpleQueue[list[_Running] | BaseException | None] = queue.SimpleQueue()
        self._ready: list[_Running] = []
        self.gets_more = True       # unless all that there are have been given
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="nnfast-turns", daemon=True)

    def __enter__(self) -> Self:
        if self._num_threads > 1:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._given.put(None)
        while self._thread.is_alive():
            with contextlib.suppress(KeyboardInterrupt):    # its call ends soon, and writes until then
                self._thread.join()

    def give(self, one: _Running) -> None:
        """One whose next turn is to be taken."""
        one.seconds = 0.0
        self._given.put(one)

    def taken(self) -> list[tuple[_Running, float]]:
        """Those whose turn is over, at least one, and how many seconds it took."""
        found = self._call() if self._num_threads == 1 else self._taken.get()
        if isinstance(found, BaseException):
            raise found
        return [(one, one.seconds) for one in found or ()]

    def _run(self) -> None:
        try:
            while (found := self._call()) is not None:
                self._taken.put(found)
        except BaseException as error:  # noqa: BLE001 - raised by `taken`
            self._taken.put(error)

    def _call(self) -> list[_Running] | None:
        """Calls of compiled code until a turn is over; None if there is nothing more to do."""
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    one = self._given.get(block=not self._ready)
                    if one is None:
                        return None
                    self._ready.append(one)
            self._ready.sort(key=lambda one: one.number)
            if len(self._ready) == 1 and not self.gets_more:
                seconds = [self._ready[0].turn.take()]
            else:
                seconds = _plan.take_all(
                    [(one.turn, one.turn.seconds - one.seconds) for one in self._ready], _CALL_SECONDS, self.gets_more,
                    self._num_threads)
            for one, took in zip(self._ready, seconds, strict=True):
                one.seconds += took
            over = [one for one in self._ready if one.seconds and (
                one.turn.steps.is_over or one.seconds >= one.turn.seconds)]
            if over:
                self._ready = [one for one in self._ready if one not in over]
                return over


class _Schedule:
    """Which fits wait, which are on their way, and what became of the others."""

    def __init__(self, fits: list[_fit.Fit], told: Callable[[int], None]) -> None:
        self._fits, self._told = fits, told
        self._waiting: list[tuple[float, list[int]]] = []      # a heap of chains, the largest first
        self._running: list[_Running] = []
        self._begun = 0
        self.histories: list[History | None] = [None] * len(fits)
        self.errors: dict[int, Exception] = {}
        for chain in chains(fits, _things):
            self._wait(chain)

    def begin(self, engine: _Engine, threads: int) -> bool:
        """Begin as many fits as make work for all threads; whether any is on its way."""
        engine.gets_more = True
        while self._waiting and (
                len(self._running) < threads or sum(one.nbytes for one in self._running) < _BEGUN_BYTES):
            place, *followers = heapq.heappop(self._waiting)[1]
            self._running.append(_Running(place, self._begun, followers, self._fits[place].turns()))
            self._begun += 1
            if self.go_on(self._running[-1], None):
                engine.give(self._running[-1])
        engine.gets_more = len(self._running) > 1 or bool(self._waiting)
        return bool(self._running)

    def go_on(self, one: _Running, seconds: float | None) -> bool:
        """Let a fit do what follows a turn that took so many seconds, until it asks for the next one: whether it does."""
        job = self._fits[one.place].job
        if seconds is not None:
            job.waited += time.perf_counter() - one.since - seconds
        try:
            one.turn = next(one.turns) if seconds is None else one.turns.send(seconds)
        except StopIteration as end:
            self.histories[one.place] = end.value
        except Exception as error:  # noqa: BLE001 - the others go on
            self.errors[one.place] = error
        else:
            one.nbytes, one.since = one.turn.plan.nbytes, time.perf_counter()
            return True
        self._running.remove(one)
        one.turn = None     # and its plan's memory with it
        self._told(one.place)
        if one.followers:
            self._wait(one.followers)
        return False

    def close(self) -> None:
        """Those on their way get the weights of their last finished epoch."""
        for one in self._running:
            one.turns.close()

    def _wait(self, chain: list[int]) -> None:
        heapq.heappush(self._waiting, (-sum(cost(self._fits[place].job) for place in chain), chain))


def cost(job: _epochs.Job) -> float:
    """Of all of a fit: nearly its multiply-adds."""
    return float(job.epochs * job.count * sum(array.size for array in job.network.params.values()))


def chains(fits: list[_fit.Fit], things: Callable[[_fit.Fit], Iterator[Any]]) -> list[list[int]]:
    """Places of fits that share something which training changes, in their order: memory, or one of their things."""
    users: dict[Any, int] = {}
    chain_of = list(range(len(fits)))       # the first place of each one's chain

    def join(place: int, other: int) -> None:
        first, second = sorted((chain_of[place], chain_of[other]))
        chain_of[:] = [first if chain == second else chain for chain in chain_of]

    ranges = []
    for place, fit in enumerate(fits):
        for thing in things(fit):
            join(place, users.setdefault(thing, place))
        ranges += [(*_bytes(array), place) for array in fit.job.network.state() if array.size]
    last = -1, -1
    for begin, end, place in sorted(ranges):
        if begin < last[0]:
            join(place, last[1])
        last = max(last, (end, place))
    found: dict[int, list[int]] = {}
    for place, chain in enumerate(chain_of):
        found.setdefault(chain, []).append(place)
    return list(found.values())


def _things(fit: _fit.Fit) -> Iterator[Any]:
    """What a fit draws from, and Python, where nobody knows."""
    yield from things_between_processes(fit)
    if not fit.is_planned:
        yield "numpy.random"


def things_between_processes(fit: _fit.Fit) -> Iterator[Any]:
    """What it is known to draw from: a process of its own has a Python of its own."""
    network = fit.job.network
    yield id(network.generator)
    if draws_from_numpy(network):
        yield "numpy.random"


def draws_from_numpy(network: "Network") -> bool:
    return any(isinstance(layer, Dropout) and layer.generator is None for layer in network.layers.values())


def _bytes(array: np.ndarray) -> tuple[int, int]:
    """Where an array's memory begins and ends."""
    steps = [stride * (size - 1) for stride, size in zip(array.strides, array.shape, strict=True)]
    begin = array.ctypes.data + sum(step for step in steps if step < 0)
    return begin, begin + sum(map(abs, steps)) + array.itemsize
