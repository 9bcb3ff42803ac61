"""`fit_many(..., executor=...)`: groups of networks are handed to an executor's workers, and put back as they return.

What is handed over, and what a worker does with it, is in _parcels.py.
"""

import contextlib
import copy
import heapq
import multiprocessing
import os
import pickle
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _fit, _many_validation, _parcels, _threads, _turns, _validation
from nnfast.trainer import History

if TYPE_CHECKING:
    from nnfast.network import Network

_GROUPS_PER_WORKER = 4
"""Whoever is done first waits for a quarter of a worker's share at most, where costs are as estimated."""

_SECONDS_BETWEEN_LOOKS = 0.005
"""At futures that are not those of concurrent.futures."""


def train(
    fits: list[_fit.Fit], x: np.ndarray, t: np.ndarray, options: Mapping[str, Sequence[Any]], executor: Any,
    told: Callable[[int, str], None], num_threads: int | None,
) -> list[History]:
    """Train what was prepared by an executor instead; options: by network; told: hears of each that has ended."""
    networks = [fit.job.network for fit in fits]
    chains = _turns.chains(fits, _turns.things_between_processes)
    costs = [sum(_turns.cost(fits[place].job) for place in chain) for chain in chains]
    of_each = [{name: values[place] for name, values in options.items()} for place in range(len(fits))]
    pool = _Pool(executor, len(chains), num_threads)
    call = _Call(networks, of_each, _parcels.shared(x, t, of_each), chains, pool, told)
    fits.clear()    # and what they have converted
    with _being_trained(networks):
        call.run(costs)
    if call.errors:
        raise _turns.FitManyError(call.errors, call.histories) from min(call.errors.items())[1]
    return [history for history in call.histories if history is not None]


class _Pool:
    """What is to be known of an executor.

    Attributes
    ----------
    workers : int
        Tasks that it runs at a time.
    window : int or None
        Tasks that it is given at a time; None: all.
    threads : int
        Of a task.
    """

    def __init__(self, executor: Any, parcels: int, num_threads: int | None) -> None:
        self._executor = executor
        self.is_usable: bool | None = None      # not known yet
        client = getattr(executor, "_client", executor)
        self.client = client if hasattr(client, "scatter") else None    # Dask's
        self.is_here = isinstance(executor, futures.ThreadPoolExecutor)
        workers = self._workers()
        self.workers = workers or os.cpu_count() or 1
        # A worker that has not got the data says so before the next task is sent; Dask sees to it that all have.
        self.window = None if self.client is not None else workers
        # Loky's is a ProcessPoolExecutor by its name alone. A task of Dask's is one of a worker's threads, MPI has a
        # process to a core, and of others nothing is known: there a task has one thread.
        is_local = self.is_here or any(kind.__name__ == "ProcessPoolExecutor" for kind in type(executor).__mro__)
        self.threads = _validation.check_count("num_threads", num_threads) if num_threads is not None else \
            max(1, _threads.get_num_threads() // min(self.workers, parcels)) if is_local else 1
        self.pickler = self._pickler()

    def _workers(self) -> int | None:
        if self.client is not None:
            return sum(self.client.nthreads().values()) or None
        found = getattr(self._executor, "_max_workers", None)    # mpi4py's, too
        return found if isinstance(found, int) and found > 0 else None

    def _pickler(self) -> type:
        kinds = {kind.__module__.partition(".")[0] for kind in type(self._executor).__mro__}
        if kinds & {"distributed", "loky"}:     # who bring it along; it takes what is defined in __main__, and lambdas
            with contextlib.suppress(ImportError):
                import cloudpickle

                kind: type = cloudpickle.Pickler
                return kind
        return pickle.Pickler

    def submit(self, *task: Any) -> Any:
        """A future of the executor's."""
        if self.client is None:
            return _many_validation.future(self._executor.submit(*task))
        # Not by ClientExecutor, whose futures never end where Dask has lost a result.
        return self.client.submit(*task, pure=False, **getattr(self._executor, "_kwargs", {}))

    def process(self) -> futures.ProcessPoolExecutor:
        """A process of this machine, like the executor's if it has any."""
        context = getattr(self._executor, "_mp_context", None) or multiprocessing.get_context("spawn")
        return futures.ProcessPoolExecutor(
            1, context, getattr(self._executor, "_initializer", None), getattr(self._executor, "_initargs", ()))


@dataclass
class _Group:
    """Parcels that are handed over together, by their numbers."""

    numbers: list[int]
    brings_data: bool = False


class _Call:
    """One call of `fit_many`; chains: places of the networks of each parcel."""

    def __init__(
        self, networks: Sequence["Network"], options: Sequence[_parcels.Options], arrays: list[np.ndarray],
        chains: list[list[int]], pool: _Pool, told: Callable[[int, str], None],
    ) -> None:
        self.histories: list[History | None] = [None] * len(networks)
        self.errors: dict[int, Exception] = {}
        self._networks, self._options, self._arrays, self._chains = networks, options, arrays, chains
        self._pool, self._told = pool, told
        self._parcels = [self._parcel(chain) for chain in chains]
        self._waiting: deque[_Group] = deque()
        self._again: deque[_Group] = deque()
        self._tried: set[int] = set()       # numbers of parcels that were lost once
        self._running: dict[Any, _Group] = {}       # by future
        self._processes: dict[Any, futures.ProcessPoolExecutor] = {}    # of this call, by future
        self._idle: list[futures.ProcessPoolExecutor] = []
        self._stored: _parcels.Stored | None = None
        self._sent: _parcels.Sent | None = None
        self._data: Any = None

    def _parcel(self, chain: list[int]) -> _parcels.Parcel:
        networks = [self._networks[place] for place in chain]
        if self._pool.is_here:
            return [(network, self._options[place]) for network, place in zip(networks, chain, strict=True)]
        draws = any(map(_turns.draws_from_numpy, networks))
        contents = _parcels.Contents(
            [(network, _for_elsewhere(self._options[place])) for network, place in zip(networks, chain, strict=True)],
            np.random.get_state(legacy=False) if draws else None)
        return _parcels.packed(contents, chain, self._arrays, self._pool.pickler)

    def run(self, costs: Sequence[float]) -> None:
        """Have all parcels trained, which cost about so much."""
        self._waiting += [_Group(numbers) for numbers in _divided(costs, self._pool)]
        with contextlib.ExitStack() as self._until_over:
            if self._pool.is_here:
                self._data = self._arrays
            elif self._pool.client is None:
                self._data = self._in_files()
            try:
                while self._waiting or self._again or self._running:
                    self._hand_over()
                    for future in self._finished():
                        self._take(future)
            except BaseException:
                self._stop()
                raise
            for process in self._idle:
                process.shutdown()

    def _in_files(self) -> _parcels.Stored:
        if self._stored is None:
            # Not shared memory, of which a container may have 64 MB only, and where more ends the process.
            folder = tempfile.TemporaryDirectory(prefix="nnfast-", ignore_cleanup_errors=True)
            self._stored = _parcels.Stored(Path(self._until_over.enter_context(folder)), self._arrays)
        return self._stored

    # Groups, on their way

    def _hand_over(self) -> None:
        """As many as may be under way. A second time one at a time, or each in a process of its own."""
        while self._waiting and (self._most is None or len(self._running) < self._most):
            future = self._submitted(self._waiting[0])
            self._running[future] = self._waiting.popleft()
        most = 1 if self._pool.is_usable else self._pool.workers
        while self._again and not self._waiting and len(self._running) < most:
            future = self._submitted(self._again[0])
            self._running[future] = self._again.popleft()

    @property
    def _most(self) -> int | None:
        return self._pool.window if self._pool.is_usable is not False else self._pool.workers

    def _submitted(self, group: _Group) -> Any:
        parcels = [self._parcels[number] for number in group.numbers]
        if self._pool.is_usable is not False:
            try:
                future = self._pool.submit(_parcels.trained, self._data_for(group), parcels, self._pool.threads)
            except Exception:
                if self._pool.is_usable is None or self._pool.is_here:
                    raise
                self._pool.is_usable = False    # it is broken, or was shut down on the way
            else:
                self._pool.is_usable = True
                return future
        process = self._idle.pop() if self._idle else self._pool.process()
        future = process.submit(_parcels.trained, self._in_files(), parcels, self._pool.threads)
        self._processes[future] = process
        return future

    def _data_for(self, group: _Group) -> Any:
        is_again = group.numbers[0] in self._tried
        if self._pool.client is not None and (self._data is None or is_again):    # Dask's copies may have ended, too
            self._data = self._pool.client.scatter(self._arrays, broadcast=True, hash=False)
        return self._as_sent() if group.brings_data else self._data

    def _as_sent(self) -> _parcels.Sent:
        if self._sent is None:
            self._sent = _parcels.Sent(self._in_files().token, pickle.dumps(self._arrays, 5))
        return self._sent

    # And back

    def _finished(self) -> list[Any]:
        if all(isinstance(future, futures.Future) for future in self._running):
            return list(futures.wait(self._running, return_when=futures.FIRST_COMPLETED).done)
        while not (done := [future for future in self._running if future.done()]):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return done

    def _take(self, future: Any) -> None:
        group, lost, returned = self._running[future], None, None
        try:
            returned = future.result()
        except Exception as error:  # noqa: BLE001 - whatever became of the worker
            lost = error
        if returned is not None:
            self._keep(group, returned)
        del self._running[future]
        process = self._processes.pop(future, None)
        if lost is not None:
            self._try_again(group, lost)
            if process is not None:
                process.shutdown()
        else:
            if returned is None:
                (self._again if group.numbers[0] in self._tried else self._waiting).appendleft(
                    _Group(group.numbers, brings_data=True))
            if process is not None:
                self._idle.append(process)

    def _keep(self, group: _Group, returned: Sequence[_parcels.Returned]) -> None:
        for number, parcel in zip(group.numbers, returned, strict=False):
            places = self._chains[number]
            for place, outcome in zip(places, parcel.outcomes, strict=False):
                _parcels.put_back(self._networks[place], self._options[place]["optimizer"], outcome)
                if outcome.error is None:
                    self.histories[place] = outcome.history
            if parcel.state_of_numpy is not None:
                np.random.set_state(parcel.state_of_numpy)
            errors = [outcome.error for outcome in parcel.outcomes] or [parcel.error] * len(places)
            self.errors |= {place: error for place, error in zip(places, errors, strict=True) if error is not None}
            summaries = [outcome.summary for outcome in parcel.outcomes] or [""] * len(places)
            for place, summary in zip(places, summaries, strict=True):
                self._told(place, summary)

    def _try_again(self, group: _Group, error: Exception) -> None:
        """Once, and each parcel for itself, so that one that ends its worker takes no others with it."""
        for number in group.numbers:
            if number not in self._tried:
                self._tried.add(number)
                self._again.append(_Group([number]))
                continue
            for place in self._chains[number]:
                self.errors[place] = _many_validation.lost(error)
                self._told(place, "")

    def _stop(self) -> None:
        """Nothing more begins; what is finished is kept."""
        for future in self._running:
            if not future.done():   # Dask's cancel() drops results, too
                future.cancel()
        for future, group in self._running.items():
            if future.done() and not future.cancelled():
                with contextlib.suppress(Exception, KeyboardInterrupt):     # Ctrl-C reached the worker, too
                    self._keep(group, future.result() or ())
        for process in [*self._idle, *self._processes.values()]:
            process.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _being_trained(networks: Sequence["Network"]) -> Iterator[None]:
    """No other call trains them meanwhile."""
    entered: list[Network] = []
    try:
        for network in networks:
            with _fit._fit_lock:
                _validation.not_fitting(network, _fit._fitting)
                entered.append(network)
                _fit._fitting[id(network)] = network
        yield
    finally:
        for network in entered:
            _fit._fitting.pop(id(network), None)


def _for_elsewhere(options: _parcels.Options) -> _parcels.Options:
    """With the same files, from whatever folder."""
    options = dict(options)
    if hasattr(options.get("checkpoint"), "path"):
        options["checkpoint"] = copy.copy(options["checkpoint"])
        options["checkpoint"].path = options["checkpoint"].path.absolute()
    if isinstance(options.get("resume"), (str, os.PathLike)):
        options["resume"] = Path(options["resume"]).absolute()
    return options


def _divided(costs: Sequence[float], pool: _Pool) -> list[list[int]]:
    """Parcels, by number, in groups that cost about the same; the costliest group and in each the costliest first."""
    fewest, most = min(len(costs), pool.workers), pool.workers * _GROUPS_PER_WORKER
    count = max(fewest, min(most, len(costs) // pool.threads))
    groups: list[tuple[float, list[int]]] = [(0.0, []) for _ in range(count)]
    for number in sorted(range(len(costs)), key=lambda number: -costs[number]):
        cost, numbers = groups[0]
        heapq.heapreplace(groups, (cost + costs[number], [*numbers, number]))
    return [numbers for _, numbers in sorted(groups, reverse=True)]
