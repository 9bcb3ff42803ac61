"""How many rows of each global batch every rank takes, and in which order it takes its own.

All ranks find the same, of the numbers of rows alone.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def table(rows: Sequence[int], batch_size: int) -> NDArray[np.int64]:
    """(S, R): rows of each rank in each step of an epoch, where the ranks hold so many, at least 1.

    A step takes `batch_size` rows, the last one what is left. After every step each rank has taken less than one row more
    or less than its part of all that were taken. That there is always such a way is a theorem of Steiner and Yeomans
    (1993, Management Science 39), and to give the rows that there are still to give to those ranks that must have theirs
    first finds it.
    """
    held = np.array(rows, np.int64)
    total = int(held.sum())
    sizes = np.full(-(-total // batch_size), batch_size, np.int64)
    sizes[-1] = total - batch_size * (len(sizes) - 1)
    shares = np.empty((len(sizes), len(held)), np.int64)
    # What a rank should have taken is whole + part / total, and less than one row off that is what it has taken.
    whole, part, taken = (np.zeros_like(held) for _ in range(3))
    given = 0
    for step, size in enumerate(sizes):
        given += int(size)
        part += held * size
        whole += part // total
        part %= total
        least = np.maximum(whole, taken)
        may_have = np.flatnonzero((least == whole) & (part > 0))
        rows_until_due = -(-(total - part[may_have]) // held[may_have])
        first_due = np.argsort(rows_until_due, kind="stable")[: given - int(least.sum())]
        least[may_have[first_due]] += 1
        shares[step] = least - taken
        taken = least
    return shares


def order(number: int, rank: int, rows: int) -> NDArray[np.int64]:
    """In which order a rank takes so many rows of its own in an epoch for which all ranks have drawn a number."""
    return np.random.Generator(np.random.PCG64([number, rank])).permutation(rows)
