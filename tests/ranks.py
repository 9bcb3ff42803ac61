"""Ranks that are threads of this process: what `nnfast._ranks.Ranks` is to a plan, without MPI."""

import threading

import numpy as np

from nnfast import _layout

PATIENCE = 20
"""Seconds after which a rank that waits for another fails."""


class Group:
    """Ranks that sum arrays in their order, and know when one of them has failed."""

    def __init__(self, shares):
        self.shares = shares
        self.size = shares.shape[1]
        self.barrier = threading.Barrier(self.size)
        self.arrays, self.messages = [None] * self.size, [None] * self.size

    def rows(self):
        """Of all data, those of each rank: data come batch after batch, and in each batch rank after rank."""
        owner = np.repeat(np.tile(np.arange(self.size), len(self.shares)), self.shares.ravel())
        return [np.flatnonzero(owner == rank) for rank in range(self.size)]

    def run(self, task):
        """What `task(ranks)` returns or raises, by rank."""
        results = [None] * self.size

        def run(rank):
            try:
                results[rank] = task(Rank(self, rank))
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                results[rank] = error

        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


class Rank:
    """One of them, as a plan knows it."""

    def __init__(self, group, rank):
        self.group, self.rank, self.size, self.shares = group, rank, group.size, group.shares
        self.has_failed = False
        self.sums = []      # sizes and dtypes
        self.started = []   # arrays, and what was in them

    def order(self, number, rows):
        return np.random.Generator(np.random.PCG64([number, self.rank])).permutation(rows)

    def _exchanged(self, own):
        """Of all ranks."""
        group = self.group
        group.arrays[self.rank] = own
        group.barrier.wait(PATIENCE)
        found = list(group.arrays)
        group.barrier.wait(PATIENCE)
        return found

    def _sum(self, array):
        self.sums.append((array.size, array.dtype.name))
        arrays = self._exchanged(array.copy())
        assert len({(one.shape, one.dtype) for one in arrays}) == 1, "ranks sum different arrays"
        total = arrays[0]
        for one in arrays[1:]:
            total = total + one
        array[...] = total

    def start_sum(self, array):
        self.started.append((array, array.copy()))

    def sum_gradients(self, array, message=None):
        assert not self.has_failed
        for one, before in self.started:
            np.testing.assert_array_equal(one, before, "changed while it is summed")
            self._sum(one)
        self.started.clear()
        array[-_layout.SIGNALS] = message is not None
        self._sum(array)
        if array[-_layout.SIGNALS] == 0:
            return
        self.has_failed = True
        messages = self._exchanged(message)
        if message is None:
            raise RuntimeError("; ".join(f"rank {rank}: {one}" for rank, one in enumerate(messages) if one))

    def fail(self, error, array):
        if not self.has_failed:
            self.sum_gradients(array, f"{type(error).__name__}: {error}")
