"""The one timer: contestants in processes of their own, taking turns; medians, ratios, a table, JSON and a bar chart.

Machines are shared and noisy, and switch between fast and slow within seconds. So the contestants of a problem are
timed one right after the other, many rounds; a ratio is the median of the rounds' ratios, never a ratio between runs.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"

SECONDS = 0.08
"""A measurement repeats the work for about so long."""

PAUSE = 0.04
"""Seconds between two measurements: until then OpenBLAS's threads spin in wait of more work (some 25 ms), on a core
that the next contestant needs."""

ROUNDS, QUICK_ROUNDS = 11, 3


@dataclass(frozen=True)
class Contestant:
    """`make(*arguments)` returns a function that does the work once and returns arrays to compare.

    `units` is how many steps or calls are in that work: times are given for one of them.
    """

    make: Callable
    arguments: tuple
    units: int = 1


@dataclass(frozen=True)
class Case:
    """A problem and its two contestants; their results must agree within `tolerance` of the largest value."""

    name: str
    reason: str
    peer: Contestant
    nnfast: Contestant
    tolerance: float


@dataclass
class Row:
    """Microseconds for one unit, by round."""

    name: str
    reason: str
    threads: int
    peer: list[float]
    nnfast: list[float]
    difference: float

    @property
    def ratio(self) -> float:
        return statistics.median(peer / own for peer, own in zip(self.peer, self.nnfast, strict=True))


class DisagreementError(Exception):
    """Two contestants computed different things."""


def _serve(connection, contestant: Contestant) -> None:
    """A contestant's process: the first result, then seconds for as many repetitions as asked for."""
    work = contestant.make(*contestant.arguments)
    connection.send([np.asarray(array, np.float64) for array in work()])
    while (repetitions := connection.recv()) is not None:
        work()      # wakes the threads up
        started = time.perf_counter()
        for _ in range(repetitions):
            work()
        connection.send(time.perf_counter() - started)


class _Process:
    """A contestant in an interpreter of its own, which sees the number of threads before it imports anything."""

    def __init__(self, contestant: Contestant, threads: int) -> None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NNFAST_NUM_THREADS"):
            os.environ[name] = str(threads)
        # These would hold OpenBLAS to another processor's kernels and weaken the peer.
        for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
            os.environ.pop(name, None)
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.units = contestant.units
        self.process = context.Process(target=_serve, args=(theirs, contestant), daemon=True)
        self.process.start()
        theirs.close()
        try:
            self.first_result = self.connection.recv()
        except EOFError:
            raise RuntimeError(f"{contestant.make.__name__} ended early: its own message stands above") from None
        self.repetitions = 1
        self.repetitions = max(1, round(SECONDS / min(self.seconds() * self.units for _ in range(3))))

    def seconds(self) -> float:
        """Of one unit."""
        time.sleep(PAUSE)
        self.connection.send(self.repetitions)
        return self.connection.recv() / self.repetitions / self.units

    def close(self) -> None:
        self.connection.send(None)
        self.process.join()


def measure(case: Case, threads: int, rounds: int) -> Row:
    """Time both contestants in turn. Raises DisagreementError if their results differ."""
    peer, own = _Process(case.peer, threads), _Process(case.nnfast, threads)
    try:
        difference = _difference(peer.first_result, own.first_result)
        if not difference <= case.tolerance:
            raise DisagreementError(f"{case.name}: the results differ by {difference:.1e}, more than {case.tolerance:.1e}")
        row = Row(case.name, case.reason, threads, [], [], difference)
        for number in range(rounds):
            for who in ((peer, own) if number % 2 else (own, peer)):
                (row.peer if who is peer else row.nnfast).append(1e6 * who.seconds())
        return row
    finally:
        peer.close()
        own.close()


def _difference(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    """Largest difference of two lists of arrays, relative to the largest value of each array.

    NaN if shapes differ or NaN is among the values.
    """
    if [array.shape for array in expected] != [array.shape for array in found]:
        return float("nan")
    # NumPy's max, because Python's loses a NaN.
    return float(np.max([np.abs(a - b).max() / (np.abs(a).max() or 1) for a, b in zip(expected, found, strict=True)]))


def all_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts(command: str) -> dict[str, str]:
    """What a figure means nothing without."""
    import nnfast
    from nnfast import _kernels

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "command": command,
        "CPU": f"{_cpu()}, {all_threads()} cores",
        "nnfast": f"{nnfast.__version__} ({_commit()}), build {_kernels.ISA}",
        "NumPy": f"{np.__version__} with {blas['name']} {blas['version']}",
        "Python": platform.python_version(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in lines if ":" in line}
    except OSError:
        return platform.processor() or platform.machine()
    levels = "AVX-512" if "avx512f" in fields.get("flags", "") else "AVX2" if "avx2" in fields.get("flags", "") else ""
    family = f"family {fields.get('cpu family')} model {fields.get('model')}"
    return f"{fields.get('model name', platform.machine())} ({family}{', ' + levels if levels else ''})"


def _commit() -> str:
    """The commit checked out, with a + where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "no commit"
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def table(rows: list[Row], unit: str) -> str:
    """Markdown; a line a problem, for each number of threads the medians and their ratio."""
    counts = sorted({row.threads for row in rows})
    head = [f"microseconds {unit}"]
    for count in counts:
        label = f"{count} thread" + "s" * (count > 1)
        head += [f"NumPy, {label}", f"nnfast, {label}", "ratio"]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for name in dict.fromkeys(row.name for row in rows):
        line = [name]
        for count in counts:
            row = next(row for row in rows if row.name == name and row.threads == count)
            line += [_figure(statistics.median(row.peer)), _figure(statistics.median(row.nnfast)), f"{row.ratio:.2f}"]
        lines.append(line)
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) if not place else cell.rjust(w)
                          for place, (cell, w) in enumerate(zip(line, widths, strict=True))) + " |"
        for line in lines
    )


def _figure(microseconds: float) -> str:
    return f"{microseconds:.1f}" if microseconds < 100 else f"{microseconds:,.0f}"


def chart(rows: list[Row], title: str, path: Path) -> None:
    """A bar chart of the ratios."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.name for row in rows))
    counts = sorted({row.threads for row in rows})
    figure = Figure(figsize=(9, 1.2 + 0.25 * (len(counts) + 0.6) * len(names)), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(counts)
    for place, count in enumerate(counts):
        ratios = [row.ratio for name in names for row in rows if row.name == name and row.threads == count]
        at = [line + place * height for line in range(len(names))]
        bars = axes.barh(at, ratios, height, label=f"{count} thread" + "s" * (count > 1))
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set_yticks([line + height * (len(counts) - 1) / 2 for line in range(len(names))], names, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.margins(x=0.08)
    axes.set_xlabel("times as fast as NumPy (1: as fast)")
    axes.set_title(title)
    axes.legend(loc="best", fontsize=8)
    figure.savefig(path, dpi=120)


def run(name: str, title: str, unit: str, cases: list[Case], argv: list[str] | None = None) -> int:
    """The main program of a benchmark; 1 if results disagreed, else 0."""
    parser = argparse.ArgumentParser(prog=f"bench/{name}.py", description=title)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds instead of {ROUNDS}")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, all_threads()}), metavar="N",
                        help="default: 1 and all")
    parser.add_argument("--only", default="", metavar="TEXT", help="only problems whose name contains this")
    arguments = parser.parse_args(argv)
    cases = [case for case in cases if arguments.only.lower() in case.name.lower()]
    if not cases:
        parser.error(f"no problem's name contains {arguments.only!r}")
    options = sys.argv[1:] if argv is None else argv
    about = facts(shlex.join(["python", f"bench/{name}.py", *options]))
    print(f"{title}\n" + "\n".join(f"  {key}: {value}" for key, value in about.items()) + "\n", flush=True)

    rows, disagreements = [], []
    for case in cases:
        print(f"measuring {case.name} ({case.reason})", file=sys.stderr, flush=True)
        try:
            rows += [measure(case, count, QUICK_ROUNDS if arguments.quick else ROUNDS) for count in arguments.threads]
        except DisagreementError as error:
            disagreements.append(str(error))
    if rows:
        print(table(rows, unit))
        RESULTS.mkdir(exist_ok=True)
        result = {"facts": about, "unit": unit, "rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1))
        chart(rows, title, RESULTS / f"{name}.png")
        print(f"\nwritten: {RESULTS / name}.json and .png")
    for line in disagreements:
        print(f"DISAGREE {line}", file=sys.stderr)
    return 1 if disagreements else 0
