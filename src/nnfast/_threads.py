"""How many threads a kernel gets at most: the setting, or what this process may use, and fewer for small work.

The kernels take fewer still, one, while another Python thread's kernel has several, and where other processes want the
cores (`_parallel.h`).
"""

import contextlib
import math
import os
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from nnfast import _kernels
from nnfast._validation import check_count

# A parallel region costs some 3 to 8 microseconds; a thread must have several times that to do. Measured on two cores
# of a Zen 4: below 400,000 multiply-adds a thread (some 10 microseconds) two threads were no faster than one.
_MULTIPLY_ADDS_PER_THREAD = 400_000
_ELEMENTS_PER_THREAD = 16_384
# One call may be all that there is: with 1 row of 784-256-10, 203,000 multiply-adds, two threads were 1.1 to 1.4 times as
# fast as one, with 1 row of 400-256-10, 105,000, 0.9 to 1.1 times, with 32 rows of 4-64-64-2, 143,000, 0.8 to 0.95 times.
_MULTIPLY_ADDS_PER_THREAD_OF_INFERENCE = 75_000
# Within a plan a barrier costs some 0.2 microseconds: from 64 x (16-32-4) on, 90,000 multiply-adds a step, two threads
# were faster than one (1.07 times), below slower (0.91 at half of it).
_MULTIPLY_ADDS_PER_THREAD_OF_A_STEP = 50_000
# A thread fetches the weights that another updated, some 7 nanoseconds a cache line: with 16 rows of 784-50-10 two
# threads were 1.11 times as fast as one, with 8 rows 1.06, with 4 rows 0.79, with 10 rows of 784-16-10 0.83.
_ROWS_PER_THREAD_OF_A_STEP = 8

# A call of compiled code, after which Ctrl-C is noticed and the progress bar moves.
CALL_SECONDS = 0.1
# Trials of one thread and of several: three of the longest steps that are tried, and a few thousandths of the time.
_TRIAL_SECONDS = 0.001
_LONG_STEP_SECONDS = 0.0003
_SECONDS_BETWEEN_TRIALS = 1.0

# More would wait for each other only; and OpenMP keeps them all, with a stack for each.
_MOST = 8 * (os.cpu_count() or 1)

_OPENMP_THREADS = _kernels.openmp_threads()     # before anybody, threadpoolctl for one, sets fewer

_setting: int | None = None
_default: tuple[int, str] | None = None
_limit: ContextVar[int | None] = ContextVar("nnfast_num_threads", default=None)


def set_num_threads(num_threads: int | None) -> None:
    """Set how many threads nnfast uses from now on, in this process; None restores the default.

    Parameters
    ----------
    num_threads : int or None
        At least 1. It is an upper limit: small work runs on fewer, and eight for each processor are the most. No other
        library is affected.

    Raises
    ------
    TypeError
        If `num_threads` is not a whole number.
    ValueError
        If it is below 1.

    Examples
    --------
    >>> import nnfast
    >>> nnfast.set_num_threads(1)
    >>> nnfast.get_num_threads()
    1
    >>> nnfast.set_num_threads(None)
    """
    global _setting
    _setting = None if num_threads is None else check_count("num_threads", num_threads)


def get_num_threads() -> int:
    """The largest number of threads that nnfast uses.

    Examples
    --------
    >>> import nnfast
    >>> nnfast.get_num_threads() >= 1
    True
    """
    return explain()[0]


@contextlib.contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Use so many threads within a ``with`` block, in the Python thread that runs it.

    Parameters
    ----------
    count : int
        At least 1. It is an upper limit: small work runs on fewer, and eight for each processor are the most.

    Raises
    ------
    TypeError
        If `count` is not a whole number.
    ValueError
        If it is below 1.

    Examples
    --------
    >>> import nnfast
    >>> with nnfast.num_threads(1):
    ...     nnfast.get_num_threads()
    1
    """
    before = _limit.set(check_count("count", count))
    try:
        yield
    finally:
        _limit.reset(before)


def limited(count: int | None) -> contextlib.AbstractContextManager[None]:
    """`num_threads` for an argument of that name, which may be None."""
    return contextlib.nullcontext() if count is None else num_threads(check_count("num_threads", count))


def explain() -> tuple[int, str]:
    """The number of threads, and in words where it comes from."""
    if _kernels.forks():
        return 1, "this process was forked, and OpenMP's threads do not survive a fork"
    count, reason = _wanted()
    if count > _MOST:
        return _MOST, f"{reason} says {count:,}, but eight for each processor are the most"
    return count, reason


def _wanted() -> tuple[int, str]:
    global _default
    limit = _limit.get()
    if limit is not None:
        return limit, "num_threads"
    if _setting is not None:
        return _setting, "set_num_threads"
    if _default is None:
        _default = _default_num_threads()
    openmp = _kernels.openmp_threads()
    if openmp < _OPENMP_THREADS and openmp < _default[0]:
        return openmp, "what OpenMP was limited to, as by threadpoolctl"
    return _default


def among(processes: int) -> int:
    """Threads for each of so many processes on the same cores, unless somebody has said how many one of them gets."""
    count, reason = explain()
    if reason in ("num_threads", "set_num_threads", "NNFAST_NUM_THREADS"):
        return count
    return max(1, min(count, min(_cores())[0] // processes))


def for_product(multiply_adds: int) -> int:
    """Threads for a matrix product of so many multiply-adds."""
    if multiply_adds < 2 * _MULTIPLY_ADDS_PER_THREAD:
        return 1
    return min(get_num_threads(), multiply_adds // _MULTIPLY_ADDS_PER_THREAD)


def for_elements(elements: int) -> int:
    """Threads for element-wise work."""
    if elements < 2 * _ELEMENTS_PER_THREAD:
        return 1
    return min(get_num_threads(), elements // _ELEMENTS_PER_THREAD)


def for_steps(rows: int, multiply_adds: int) -> int:
    """Threads for training steps of so many rows and multiply-adds a row."""
    by_work = rows * multiply_adds // _MULTIPLY_ADDS_PER_THREAD_OF_A_STEP
    return max(1, min(get_num_threads(), by_work, rows // _ROWS_PER_THREAD_OF_A_STEP))


def for_inference(rows: int, multiply_adds: int) -> int:
    """Threads for so many rows and multiply-adds a row through a network."""
    most = rows * multiply_adds // _MULTIPLY_ADDS_PER_THREAD_OF_INFERENCE
    return 1 if most < 2 else min(get_num_threads(), most)


class Pace:
    """How many threads the steps of a network's fits get: all that are worth their while, or one if that is faster.

    Where a cache line takes long from one core to the other, two threads can be slower than one although the work says
    otherwise (10-45-45-10 with 128 rows: 87 instead of 46 microseconds a step in a bad hour of two virtual cores, 31
    instead of 40 in a good one). So steps short enough for that are tried both ways, now and then.

    Parameters
    ----------
    most : int
        Threads that are worth their while.
    """

    def __init__(self, most: int) -> None:
        self._most = self._best = most
        self._trials: list[int] = []                # numbers of threads yet to be tried
        self._seconds: dict[int, float] = {}        # a step took at best, by their number
        self._again = 0.0 if most > 1 else math.inf

    def next(self) -> tuple[int, float]:
        """Threads for the next steps, and after how many seconds to ask again."""
        if not self._trials and time.perf_counter() > self._again:
            self._trials, self._seconds = [self._most, 1], {}
        return (self._trials[0], _TRIAL_SECONDS) if self._trials else (self._best, CALL_SECONDS)

    def learn(self, seconds: float) -> None:
        """A step of those took so long."""
        if not self._trials:
            return
        threads = self._trials.pop(0)
        is_repeated = threads in self._seconds
        self._seconds[threads] = min(seconds, self._seconds.get(threads, math.inf))
        several, one = self._seconds[self._most], self._seconds.get(1, math.inf)
        if several > _LONG_STEP_SECONDS:
            self._trials = []
        elif one < several and not is_repeated:
            self._trials = [self._most]     # or has something else disturbed the first?
        if not self._trials:
            self._best = 1 if one < several else self._most
            self._again = time.perf_counter() + _SECONDS_BETWEEN_TRIALS


def _default_num_threads() -> tuple[int, str]:
    """The least of: the setting in the environment, physical cores by affinity, the container's quota."""
    wish = os.environ.get("NNFAST_NUM_THREADS", "")
    if wish.isdecimal() and int(wish) > 0:
        return int(wish), "NNFAST_NUM_THREADS"
    limits = _cores()
    wish = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if wish.isdecimal() and int(wish) > 0:
        limits.append((int(wish), "OMP_NUM_THREADS"))
    return min(limits, key=lambda limit: limit[0])


def _cores() -> list[tuple[int, str]]:
    """How many cores there are for this process, by affinity and by the container's quota."""
    limits = [(_physical_cores(), "physical cores that this process may use")]
    quota = _container_quota()
    if quota is not None:
        limits.append((max(1, int(quota)), f"the container's quota of {quota:g} cores"))
    return limits


def _physical_cores() -> int:
    """Cores that affinity leaves, two hardware threads of one core counted once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        try:
            cores.add(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def _container_quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Cores' worth of time that control groups (versions 1 and 2) allow this process, or None."""
    quotas = []
    try:
        groups = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        groups = []
    for fields in groups:
        if len(fields) != 3:
            continue
        _, controllers, path = fields
        if controllers not in ("",) and "cpu" not in controllers.split(","):
            continue
        base = root if controllers == "" else root / "cpu"
        here = base / path.lstrip("/")
        # A quota on any group above holds too; inside a container the own path may not be visible, the root is.
        while True:
            quotas.append(_quota_of(here))
            if here in (base, root) or here.parent == here:
                break
            here = here.parent
    allowed = [quota for quota in quotas if quota is not None]
    return min(allowed) if allowed else None


def _quota_of(group: Path) -> float | None:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()[:2]
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None     # no such file, or "max": no limit
