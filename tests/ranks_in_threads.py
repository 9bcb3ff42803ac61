"""Ranks that are threads of one process, beside a stand-in for mpi4py which notices when they are in different meetings."""

# ruff: noqa: N802 - the names are those of mpi4py
import threading
from types import SimpleNamespace

import numpy as np

from nnfast import _ranks

LONGEST_WAIT = 5
"""Seconds that a rank waits for the others before it is said to hang."""


class LostError(Exception):
    """As `mpi4py.MPI.Exception`."""


class _Group:
    def __init__(self, size):
        self.size, self.said, self.duplicates = size, [None] * size, []
        self.barrier = threading.Barrier(size, timeout=LONGEST_WAIT)


class Comm:
    """What `Ranks` uses of a communicator."""

    def __init__(self, group, rank):
        self.group, self.rank, self.size = group, rank, group.size
        self.is_free, self.is_lost = False, False

    def _meet(self, kind, value):
        assert not self.is_free
        if self.is_lost:
            raise LostError("somebody is gone")
        group = self.group
        group.said[self.rank] = kind, value
        group.barrier.wait()
        said = list(group.said)
        group.barrier.wait()
        kinds = {kind for kind, _ in said}
        assert len(kinds) == 1, f"ranks are in different meetings: {sorted(kinds, key=repr)}"
        return [value for _, value in said]

    def Dup(self):
        self._meet("Dup", None)
        duplicate = Comm(self.group, self.rank)
        self.group.duplicates.append(duplicate)
        return duplicate

    def Free(self):
        self._meet("Free", None)
        self.is_free = True

    def allgather(self, value):
        return self._meet("allgather", value)

    def Allreduce(self, in_place, array):
        self._sum("Allreduce", in_place, array)

    def Iallreduce(self, in_place, array):
        self._sum("Iallreduce", in_place, array)
        return array

    def _sum(self, kind, in_place, array):
        assert in_place is MPI.IN_PLACE
        assert array.flags.c_contiguous
        total = sum(self._meet((kind, array.shape, array.dtype), array.copy()))
        array[:] = total


MPI = SimpleNamespace(IN_PLACE=object(), Exception=LostError, Request=SimpleNamespace(Waitall=lambda requests: None))


def together(size, program):
    """What a program gives, or raises, on each of so many ranks: it is called with `Ranks` that have been entered."""
    group, found = _Group(size), [None] * size

    def run(rank):
        try:
            with _ranks.Ranks(Comm(group, rank), MPI) as ranks:
                found[rank] = program(ranks)
        except BaseException as error:      # noqa: BLE001 - for the test to look at
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * LONGEST_WAIT)
    assert not any(thread.is_alive() for thread in threads), "a rank hangs"
    assert len(group.duplicates) == size
    assert all(duplicate.is_free or duplicate.is_lost for duplicate in group.duplicates)
    return found


def signalled(size, dtype=np.float32):
    """An array of ones to be summed, with room for signals."""
    array = np.ones(size + _ranks.SIGNALS, dtype)
    array[size:] = 0
    return array
