"""How fits that run at once take turns: whose steps are next in the one call of compiled code that all threads are in."""

import heapq
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _epochs, _fit, _plan, _threads
from nnfast.layers import Dropout
from nnfast.trainer import History

if TYPE_CHECKING:
    from nnfast.network import Network

_BEGUN_BYTES = 1 << 25
"""Of the plans of fits that have begun, beyond one for each thread: so that a call has work for all threads."""

_CALL_SECONDS = 0.1
"""Of a call of compiled code, after which Ctrl-C is noticed; a fit whose steps it ended goes on in the next one."""


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
    >>> networks = [nnfast.TwoLayerNet(4, 5, 3, seed=0) for _ in range(2)]
    >>> x, t = np.ones((10, 4)), np.zeros(10, int)
    >>> try:
    ...     histories = nnfast.fit_many(networks, x, t, optimizer=[nnfast.SGD(0.1), nnfast.SGD(1e300)], epochs=3)
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
        schedule.begin(threads)
        while schedule.running:
            schedule.take(threads)
            schedule.begin(threads)
    finally:
        schedule.close()
    if schedule.errors:
        raise FitManyError(schedule.errors, schedule.histories) from min(schedule.errors.items())[1]
    return [history for history in schedule.histories if history is not None]


@dataclass
class _Running:
    """A fit on its way."""

    place: int
    followers: list[int]    # that must wait until it has ended
    turns: _plan.Turns[History]
    turn: Any = None        # its next one, a `_plan.Turn`
    nbytes: int = 0
    since: float = 0.0      # when it asked for that turn


class _Schedule:
    """Which fits wait, which are on their way in what order, and what became of the others."""

    def __init__(self, fits: list[_fit.Fit], told: Callable[[int], None]) -> None:
        self._fits, self._told = fits, told
        self._waiting: list[tuple[float, list[int]]] = []      # a heap of chains, the largest first
        self.running: list[_Running] = []
        self.histories: list[History | None] = [None] * len(fits)
        self.errors: dict[int, Exception] = {}
        for chain in chains(fits, _things):
            self._wait(chain)

    def begin(self, threads: int) -> None:
        """Begin as many fits as make work for all threads."""
        while self._waiting and (
                len(self.running) < threads or sum(one.nbytes for one in self.running) < _BEGUN_BYTES):
            place, *followers = heapq.heappop(self._waiting)[1]
            self.running.append(_Running(place, followers, self._fits[place].turns()))
            self._go_on(self.running[-1], None)

    def take(self, threads: int) -> None:
        """Turns of those on their way, the first ones first, as far as a call of compiled code comes."""
        if len(self.running) == 1 and not self._waiting:
            seconds = [self.running[0].turn.take()]
        else:
            seconds = _plan.take_all([one.turn for one in self.running], _CALL_SECONDS, threads)
        for one, took in zip(list(self.running), seconds, strict=True):
            if took:
                self._fits[one.place].job.waited += time.perf_counter() - one.since - took
                self._go_on(one, took)

    def close(self) -> None:
        """Those on their way get the weights of their last finished epoch."""
        for one in self.running:
            one.turns.close()

    def _go_on(self, one: _Running, took: Any) -> None:
        """Let a fit do what follows a turn that took so many seconds, until it asks for the next one."""
        try:
            one.turn = one.turns.send(took)
        except StopIteration as end:
            self.histories[one.place] = end.value
        except Exception as error:  # noqa: BLE001 - the others go on
            self.errors[one.place] = error
        else:
            one.nbytes, one.since = one.turn.plan.nbytes, time.perf_counter()
            return
        self.running.remove(one)
        self._told(one.place)
        if one.followers:
            self._wait(one.followers)

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
