"""How fits that run at once share the threads: which is next, and who does its Python.

Workers, threads of Python's, take one fit after the other, the costliest first, and each does all of its fit: what is
Python (make the plan, draw orders, note epochs) and, in between, calls of compiled code, which leave the interpreter to
the others. One at a time does Python (_workers.py). Where fits call functions of somebody else's, the calling thread does
their Python, as those may expect, and workers take the turns of compiled code that it gives them.

32 fits of 20-50-5, as many times as fast on two cores as one after the other on one (bench/bench_many.py): 20 epochs of
10,000 rows 1.94, 100 epochs of 1,000 rows 1.86, 50 of 200 rows 1.5. (With one call of compiled code that all threads were
in, and all Python beside it in the calling thread, they were 1.80, 1.73 and 1.27.)
"""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _epochs, _fit, _plan, _threads, _workers
from nnfast.layers import Dropout
from nnfast.trainer import History

if TYPE_CHECKING:
    from nnfast.network import Network

_BEGUN_BYTES = 1 << 25
"""Of the plans of fits that have begun in the calling thread, beyond one for each worker: so that there are turns for all."""

_Note = Callable[[int, History | Exception], None]
"""What hears of each fit that has ended, by its place, what it gave or what went wrong."""


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
    results: list[History | Exception | None] = [None] * len(fits)

    def note(place: int, result: History | Exception) -> None:
        results[place] = result
        told(place)

    found = [_Chain([(place, fits[place]) for place in places]) for places in chains(fits, _things)]
    found.sort(key=lambda chain: -chain.cost)   # and those that cost as much in their order
    with _workers.Workers(min(_threads.get_num_threads(), len(found))) as workers:
        if workers.number:
            _train_beside(workers, found, note)
        else:
            for chain in found:
                chain.train(_plan.Turn.take, note)
    errors = {place: result for place, result in enumerate(results) if isinstance(result, Exception)}
    histories = [result if isinstance(result, History) else None for result in results]
    if errors:
        raise FitManyError(errors, histories) from min(errors.items())[1]
    return [history for history in histories if history is not None]


def _train_beside(workers: _workers.Workers, found: "list[_Chain]", note: _Note) -> None:
    """Let workers train, and do in the calling thread what must be done there."""
    left = list(found)      # that are not over
    waiting = [chain for chain in found if chain.calls_functions]
    begun: list[_Led] = []

    def share_threads() -> None:
        workers.several_left = len(left) > 1
        for chain in left:
            for _, fit in chain.fits:
                fit.job.is_beside = workers.several_left

    def end(chain: _Chain) -> None:
        left.remove(chain)
        if len(left) == 1:
            share_threads()

    def train_there(chain: _Chain) -> None:
        chain.train(workers.take, lambda *result: workers.ask(note, *result))
        workers.ask(end, chain)

    share_threads()
    for chain in found:
        if not chain.calls_functions:
            workers.give(chain.cost, chain.place, train_there, chain)
    try:
        while left:
            begun = [one for one in begun if not one.is_over]
            while waiting and (len(begun) < workers.number or sum(one.nbytes for one in begun) < _BEGUN_BYTES):
                begun.append(_Led(waiting.pop(0), workers, note, end))
                begun[-1].go_on()
            if left:
                workers.answer()
    finally:
        workers.rest()
        for one in begun:
            one.close()


class _Chain:
    """Fits that are trained one after the other: one alone, or those that share something; with their places."""

    def __init__(self, fits: list[tuple[int, _fit.Fit]]) -> None:
        self.fits, self.place = fits, fits[0][0]
        self.cost = sum(cost(fit.job) for _, fit in fits)
        self.calls_functions = any(fit.calls_functions for _, fit in fits)

    def train(self, take: Callable[[_plan.Turn], float], note: _Note) -> None:
        """All of them; the turns of compiled code are taken by a function, which says how many seconds that took."""
        for place, fit in self.fits:
            try:
                result: History | Exception = _plan.taken(fit.turns(), take)
            except Exception as error:  # noqa: BLE001 - the others go on
                result = error
            note(place, result)


class _Led:
    """A chain of fits that call somebody's functions: their Python is run here, their turns are given to workers."""

    def __init__(self, chain: _Chain, workers: _workers.Workers, note: _Note, end: Callable[[_Chain], None]) -> None:
        self.is_over = False
        self.nbytes = 0     # of its plan
        self._chain, self._workers, self._note, self._end = chain, workers, note, end
        self._left = list(chain.fits)
        self._turns: _plan.Turns[History] | None = None     # of the first that is left, unless it has not begun
        self._turn: Any = None
        self._since = 0.0   # when the turn was given

    def go_on(self, taken: float | Exception = 0.0) -> None:
        """Do what follows a turn that took so many seconds, or failed, until there is another for the workers."""
        begun = time.perf_counter()
        while self._left:
            place, fit = self._left[0]
            try:
                if self._turns is None:
                    self._turns = fit.turns()
                    self._turn = next(self._turns)
                elif isinstance(taken, Exception):
                    self._turn = self._turns.throw(taken)   # the fit puts everything in order and raises it
                else:
                    fit.job.waited += time.perf_counter() - self._since - taken
                    self._turn = self._turns.send(taken)
            except StopIteration as end:
                self._note(place, end.value)
            except Exception as error:  # noqa: BLE001 - the others go on
                self._note(place, error)
            else:
                self.nbytes, self._since = self._turn.plan.nbytes, time.perf_counter()
                if self._turn.lasted >= _workers.SHORT:
                    self._workers.give(self._chain.cost, self._chain.place, self._take_there)
                    return
                taken = self._taken(self._workers.take_here)
                if time.perf_counter() - begun > _workers.SLICE:
                    self._workers.ask(self.go_on, taken)    # after what others have asked for
                    return
                continue
            self._turns = self._turn = None     # and its plan's memory with it
            del self._left[0]
        self.is_over = True
        self._end(self._chain)

    def _take_there(self) -> None:
        """In a worker."""
        self._workers.ask(self.go_on, self._taken(self._workers.take))

    def _taken(self, take: Callable[[_plan.Turn], float]) -> float | Exception:
        try:
            return take(self._turn)
        except Exception as error:  # noqa: BLE001 - raised by the fit
            return error

    def close(self) -> None:
        """The one on its way gets the weights of its last finished epoch."""
        if self._turns is not None:
            self._turns.close()


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
    if array.flags.forc:    # the common case, in a third of the time
        begin = array.__array_interface__["data"][0]
        return begin, begin + array.nbytes
    steps = [stride * (size - 1) for stride, size in zip(array.strides, array.shape, strict=True)]
    begin = array.ctypes.data + sum(step for step in steps if step < 0)
    return begin, begin + sum(map(abs, steps)) + array.itemsize
