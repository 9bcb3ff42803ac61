"""What `Network.fit` refuses of ranks that train together; the style is that of _validation.py."""

import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

_MOST_NAMED = 4
"""Ranks that a message names."""


def communicator(comm: Any) -> Any:
    """The module whose communicator this is."""
    # Whoever has one has imported it; and to import it begins MPI.
    mpi: Any = sys.modules.get("mpi4py.MPI")
    if mpi is None and importlib.util.find_spec("mpi4py") is None:
        raise ImportError('comm needs mpi4py: pip install "nnfast[mpi]"', name="mpi4py")
    if mpi is None or not isinstance(comm, mpi.Comm):
        raise TypeError(f"comm is {comm!r}, but must be a communicator of mpi4py, such as MPI.COMM_WORLD")
    if mpi.Is_finalized():
        raise ValueError("comm is a communicator, but MPI has been finalized: train before that")
    if comm == mpi.COMM_NULL:
        raise ValueError("comm is MPI.COMM_NULL: a process that is not in a communicator does not call fit")
    if not isinstance(comm, mpi.Intracomm):
        raise TypeError(f"comm is an {type(comm).__name__}, whose two groups cannot train together: pass an intracommunicator, "
                        "such as comm.Merge() gives")
    return mpi


def trains_in_compiled_code(obstacle: str | None) -> None:
    if obstacle is not None:
        raise TypeError(f"comm needs a network that trains in compiled code, but {obstacle}")


def not_streamed(source: Any) -> None:
    if source is not None:
        raise TypeError("comm needs arrays or maps of files (numpy.memmap), but x gives batches or is a list of arrays: "
                        "give each rank its own rows as one array")


def disagreement(facts: Sequence[dict[str, tuple[str, str]]]) -> str | None:
    """The first thing that is not the same on all ranks, in a sentence; facts: by rank, what is known and a remedy by name."""
    for name in facts[0]:
        values = [of_rank.get(name, ("missing", ""))[0] for of_rank in facts]
        if len(set(values)) > 1:
            found = dict.fromkeys(values)
            parts = [f"{value} on {ranks([rank for rank, other in enumerate(values) if other == value])}" for value in found]
            return f"{name} is {' but '.join(parts)}: {facts[0][name][1]}"
    return None


def diverged(name: str, others: Sequence[int], when: str) -> RuntimeError:
    return RuntimeError(f"{name} on {ranks(others)} differs from that on rank 0 {when}, though all ranks made the same updates: "
                        "if a callback changes the network or the optimizer, let it do so on all ranks")


def ranks(numbers: Sequence[int]) -> str:
    """Some ranks by their numbers, of many only the first."""
    if len(numbers) == 1:
        return f"rank {numbers[0]}"
    named = ", ".join(map(str, numbers[:_MOST_NAMED]))
    more = len(numbers) - _MOST_NAMED
    return f"ranks {named}{f' and {more} more' if more > 0 else ''}"
