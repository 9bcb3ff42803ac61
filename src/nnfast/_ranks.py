"""The ranks of an mpi4py communicator that train one network together: everything that one of them says to the others.

Ranks go through a fit in step, from one meeting of all to the next. Outside of the steps a meeting is an `allgather` of
Python objects, in the steps it is an `Allreduce` of an array whose last `SIGNALS` elements are kept for what the
ranks tell each other on the way. A rank on which something goes wrong takes part in the meeting that comes next all the same,
says so there, and all of them end the fit: it with its error, the others with a `RuntimeError` that tells of it. So nobody waits
for a rank that does not come any more.

Ctrl-C is heard between meetings, never within one, and during `steps` it waits for the next one.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from nnfast import _ranks_validation, _shares
from nnfast._layout import SIGNALS

_Value = TypeVar("_Value")


class OtherRankError(RuntimeError):
    """Another rank has failed, and tells of it itself."""


def of(comm: Any) -> "Ranks | None":
    """The ranks of a communicator; None if there is but one, which has nobody to talk to."""
    mpi = _ranks_validation.communicator(comm)
    return None if comm.size == 1 else Ranks(comm, mpi)


class Ranks:
    """All ranks of a communicator, as one of them sees them: a context, which all of them enter and leave together.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        A duplicate of it is used, so that nothing mixes with what the caller says.
    mpi : module
        ``mpi4py.MPI``.

    Attributes
    ----------
    rank, size : int
        This one, and how many there are.
    rows : list of int
        That each rank holds, once `share_rows` was called.
    shares : ndarray
        Likewise (S, R): rows of each rank in each step of an epoch.
    has_failed : bool
        Whether all ranks know that one has failed: nothing more is said then.
    """

    def __init__(self, comm: Any, mpi: Any) -> None:
        self._given, self._mpi = comm, mpi
        self.rank, self.size = int(comm.rank), int(comm.size)
        self.rows: list[int] = []
        self.shares: NDArray[np.int64] = np.empty((0, self.size), np.int64)
        self.has_failed = False
        self._is_lost = False       # so that nothing can be said
        self._cause: OtherRankError | None = None   # of numbers here that are not finite: what is wrong on another rank
        self._started: list[Any] = []   # requests of sums that go on
        self._hears: Any = None     # what SIGINT called before; None: it goes another way than through here
        self._waits = False         # what it calls, for the end of a meeting
        self._noted: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> Self:
        self._waits = True      # whoever is interrupted here says so in the next meeting
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self._hears = signal.signal(signal.SIGINT, self._note)
        try:
            with self._talking():
                self._comm = self._given.Dup()
        except BaseException:
            self._hear_as_before()
            raise
        self._waits = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waits = True      # until nothing is left to be said
        last = self._heard() if error is None else error
        try:
            if not self.has_failed:
                self._meet(None, last)
        finally:
            if not self._is_lost:
                self._comm.Free()
            self._hear_as_before()
        if self._cause is not None:
            raise self._cause from error
        if error is None:
            if last is not None:
                raise last
            self._raise_what_was_noted()

    def _hear_as_before(self) -> None:
        if self._hears is not None:
            signal.signal(signal.SIGINT, self._hears)
        self._waits = False

    # Outside of steps

    def meet(self, value: _Value) -> list[_Value]:
        """What each rank has to say, by rank."""
        with self._uninterrupted():
            return self._meet(value, None)

    def given_by_first(self, value: _Value) -> _Value:
        """What rank 0 has."""
        return self.meet(value if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def share_rows(self, rows: Sequence[int], batch_size: int) -> None:
        """Know how many rows each rank holds, and from then on how many it takes in each step."""
        self.rows = list(rows)
        self.shares = _shares.table(self.rows, batch_size)

    def refuse(self, error: Exception) -> NoReturn:
        """Raise what all ranks have found to be wrong."""
        self.has_failed = True
        raise error

    # In steps

    @contextlib.contextmanager
    def steps(self) -> Iterator[None]:
        """A context of steps alone, from a meeting on: whatever goes wrong in it is for `fail` to tell."""
        with self._uninterrupted():
            self._meet(None, None)
            yield

    def order(self, number: int, rows: int) -> NDArray[np.int64]:
        """In which order this rank takes so many rows in an epoch for which all have drawn a number."""
        return _shares.order(number, self.rank, rows)

    def sum_gradients(self, array: np.ndarray) -> None:
        """Sum over all ranks, in place, a contiguous array of float32 or float64; all sums that were started are over, too."""
        error = self._heard() if self._noted is not None else None
        array[-SIGNALS] = error is not None
        self._sum(array)
        if array[-SIGNALS]:
            self._meet(None, error)
            if error is not None:
                raise error

    def start_sum(self, array: np.ndarray) -> None:
        """Begin to sum, in place, an array without room for signals; nobody reads it before the next `sum_gradients`."""
        with self._talking():
            self._started.append(self._comm.Iallreduce(self._mpi.IN_PLACE, array))

    def fail(self, error: BaseException, array: np.ndarray) -> None:
        """Tell of an error in steps: all others sum an array next that is like this one.

        What they know already is not said again.
        """
        if not self.has_failed:
            array[:] = 0
            array[-SIGNALS] = 1
            self._sum(array)
            self._meet(None, error)

    # How it is said

    def _sum(self, array: np.ndarray) -> None:
        with self._talking():
            self._comm.Allreduce(self._mpi.IN_PLACE, array)
            if self._started:
                self._mpi.Request.Waitall(self._started)
                self._started = []

    def _meet(self, value: Any, error: BaseException | None) -> list[Any]:
        """What each rank says, unless one has an error: it returns with nothing then, and the others raise."""
        with self._talking():
            said = self._comm.allgather((value, _in_words(error), isinstance(error, FloatingPointError)))
        failed = [(follows, f"rank {rank} {told}") for rank, (_, told, follows) in enumerate(said) if told]
        if not failed:
            return [value for value, _, _ in said]
        self.has_failed = True
        follows, first = min(failed, key=lambda one: one[0])
        more = len(failed) - 1
        others = f" (and {more} more {'ranks have' if more > 1 else 'rank has'} failed)" if more else ""
        other = OtherRankError(f"the fit has ended on all ranks, for {first}{others}")
        if error is None:
            raise other
        if isinstance(error, FloatingPointError) and not follows:
            self._cause = other
        return []

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        """What goes wrong on the way cannot be told any more."""
        try:
            yield
        except self._mpi.Exception as error:
            self.has_failed = self._is_lost = True
            raise RuntimeError(f"rank {self.rank} has lost the other ranks, so the fit has ended: {error}") from error

    # Ctrl-C

    @contextlib.contextmanager
    def _uninterrupted(self) -> Iterator[None]:
        """A context in whose end Ctrl-C is heard."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
        self._raise_what_was_noted()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._waits:
            self._noted = number, frame
        else:
            self._hears(number, frame)

    def _heard(self) -> BaseException | None:
        """What the caller's way to hear Ctrl-C raises, if it was pressed."""
        try:
            self._raise_what_was_noted()
        except BaseException as error:  # noqa: BLE001 - it is raised when all know of it
            return error
        return None

    def _raise_what_was_noted(self) -> None:
        noted, self._noted = self._noted, None
        if noted is not None:
            self._hears(*noted)


def _in_words(error: BaseException | None) -> str:
    if error is None:
        return ""
    if isinstance(error, KeyboardInterrupt):
        return "was interrupted"
    text = str(error)
    return f"raised {type(error).__name__}" + (f": {text}" if text else "")
