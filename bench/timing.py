"""The one timer: contestants in processes of their own, taking turns; medians, ratios, tables, JSON and a bar chart.

Machines are shared and noisy, and switch between fast and slow within seconds. So the contestants of a problem are
timed one right after the other, many rounds; a ratio is the median of the rounds' ratios, never a ratio between runs.
"""

import argparse
import importlib.metadata
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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import peak

RESULTS = Path(__file__).parent / "results"

SECONDS = 0.08
"""A measurement repeats the work for about so long."""

PAUSE = 0.1
"""Seconds between two measurements: until then OpenBLAS's threads spin in wait of more work, on a core that the next
contestant needs (with 0.04 a backward pass of nnfast took 150 to 200 instead of 105 microseconds after NumPy's turn)."""

ROUNDS, QUICK_ROUNDS = 11, 3


@dataclass(frozen=True)
class Contestant:
    """`make(*arguments)` returns a function that does the work once and returns arrays to compare.

    `units` is how many steps or calls are in that work, or what part of one: times are given for one of them.
    """

    make: Callable
    arguments: tuple
    units: float = 1


OURS = "nnfast"


@dataclass(frozen=True)
class Case:
    """A problem and its contestants by name, nnfast among them.

    The results of each must agree with nnfast's within `tolerance` of the largest value.
    """

    name: str
    reason: str
    contestants: dict[str, Contestant]
    tolerance: float
    flops: int = 0
    """Floating-point operations of a unit's matrix products; 0 if there are none."""
    goals: dict[str, float] = field(default_factory=dict)
    """With all threads: times as fast as a peer, or the share of the peak under "peak"."""


@dataclass
class Row:
    """What a case gave with some threads: microseconds for one unit, by contestant and round."""

    name: str
    reason: str
    threads: int
    times: dict[str, list[float]]
    difference: float = 0.0     # the largest, of all results
    first: dict[str, float] = field(default_factory=dict)   # seconds until the first result, compilation included
    flops: int = 0
    goals: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # contestants that gave nothing, and why

    def median(self, who: str) -> float:
        return statistics.median(self.times[who])

    def ratio(self, peer: str) -> float:
        """How many times as long the peer takes: the median of the rounds' ratios."""
        return statistics.median(a / b for a, b in zip(self.times[peer], self.times[OURS], strict=True))

    @property
    def best_peer(self) -> str | None:
        return min((who for who in self.times if not who.startswith(OURS)), key=self.median, default=None)

    def share(self, who: str, peak: float) -> float:
        """Of the peak in GFLOP/s."""
        return self.flops / self.median(who) / 1e3 / peak


class DisagreementError(Exception):
    """Two contestants computed different things."""


class EndedEarlyError(Exception):
    """A contestant gave no result."""


THREADS = "NNFAST_BENCH_THREADS"
"""The environment variable that tells a contestant how many threads to ask its library for."""


def _serve(connection, contestant: Contestant) -> None:
    """A contestant's process: the first result, then seconds for as many repetitions as asked for."""
    started = time.perf_counter()
    work = contestant.make(*contestant.arguments)
    result = [np.asarray(array, np.float64) for array in work()]
    connection.send((result, time.perf_counter() - started))
    while (repetitions := connection.recv()) is not None:
        work()      # wakes the threads up
        started = time.perf_counter()
        for _ in range(repetitions):
            work()
        connection.send(time.perf_counter() - started)


class _Process:
    """A contestant in an interpreter of its own, which sees the number of threads before it imports anything."""

    def __init__(self, contestant: Contestant, threads: int) -> None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NNFAST_NUM_THREADS", THREADS):
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
            self.first_result, self.first_seconds = self.connection.recv()
        except EOFError:
            raise EndedEarlyError(f"{contestant.make.__name__} ended early: its own message stands above") from None
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
    """Time all contestants in turn, each round beginning with another one.

    Raises DisagreementError if a result differs from nnfast's. A peer that ends early is noted; nnfast must not.
    """
    row = Row(case.name, case.reason, threads, {}, flops=case.flops, goals=case.goals)
    processes: dict[str, _Process] = {}
    try:
        for name, contestant in case.contestants.items():
            try:
                processes[name] = _Process(contestant, threads)
            except EndedEarlyError as error:
                if name == OURS:
                    raise
                row.failures[name] = str(error)
        for name, process in processes.items():
            difference = _difference(process.first_result, processes[OURS].first_result)
            if not difference <= case.tolerance:
                raise DisagreementError(
                    f"{case.name}: the results of {name} differ by {difference:.1e}, more than {case.tolerance:.1e}")
            row.difference = max(row.difference, difference)
            row.times[name], row.first[name] = [], process.first_seconds
        names = list(processes)
        for number in range(rounds):
            for name in names[number % len(names):] + names[:number % len(names)]:
                row.times[name].append(1e6 * processes[name].seconds())
        return row
    finally:
        for process in processes.values():
            process.close()


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


DISTRIBUTIONS = {
    "scikit-learn": "scikit-learn", "PyTorch": "torch", "JAX": "jax", "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
}
"""Of the peers that are not NumPy, by the beginning of their names."""


def _command(benchmark: str, argv: list[str] | None) -> str:
    """What to type for the same; argv as a main program gets it, None for this process's own."""
    return shlex.join(["python", f"bench/{benchmark}.py", *(sys.argv[1:] if argv is None else argv)])


def facts(command: str, peers: list[str]) -> dict[str, str]:
    """What a figure means nothing without."""
    import nnfast
    from nnfast import _kernels

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "command": command,
        "CPU": f"{_cpu()}, {all_threads()} cores",
        "nnfast": f"{nnfast.__version__} ({_commit()}), build {_kernels.ISA}",
        "NumPy": f"{np.__version__} with {blas['name']} {blas['version']}",
        **{library: importlib.metadata.version(distribution) for library, distribution in DISTRIBUTIONS.items()
           if any(peer.startswith(library) for peer in peers)},
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


def _peers(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(who for row in rows for who in row.times if who != OURS))


def table(rows: list[Row], unit: str, peaks: dict[int, float], as_rate: bool = False) -> str:
    """Markdown: for each number of threads, a line a problem with the medians, and how they compare.

    In microseconds a unit or, as a rate, in GFLOP/s.
    """
    return "\n\n".join(
        _table_of_one_count([row for row in rows if row.threads == count], unit, peaks.get(count, 0), as_rate)
        for count in sorted({row.threads for row in rows})
    )


def _table_of_one_count(rows: list[Row], unit: str, peak: float, as_rate: bool) -> str:
    peers = _peers(rows)
    label = f"{rows[0].threads} thread" + "s" * (rows[0].threads > 1)
    versus = "ratio" if len(peers) == 1 else "ratio to the best"
    has_share = bool(peak) and any(row.flops for row in rows)
    head = f"GFLOP/s, {label}" if as_rate else f"microseconds {unit}, {label}"
    lines = [[head, *peers, OURS, versus] + ["share of peak"] * has_share]
    for row in rows:
        line = [row.name]
        for who in [*peers, OURS]:
            if who not in row.times:
                line.append("-")
            else:
                line.append(_figure(row.flops / row.median(who) / 1e3 if as_rate else row.median(who)))
        line.append(f"{row.ratio(row.best_peer):.2f}" if row.best_peer else "-")
        if has_share:
            line.append(f"{row.share(OURS, peak):.0%}" if row.flops else "-")
        lines.append(line)
    return markdown(lines)


def long_table(rows: list[Row], peaks: dict[int, float]) -> str:
    """Markdown: a line for each problem, number of threads and contestant."""
    lines = [["problem", "threads", "library", "median", "min", "ratio", "share of peak", "seconds to the first result"]]
    for row in rows:
        for who in row.times:
            peak = peaks.get(row.threads, 0)
            lines.append([
                row.name, str(row.threads), who, _figure(row.median(who)), _figure(min(row.times[who])),
                f"{row.ratio(who):.2f}", f"{row.share(who, peak):.0%}" if row.flops and peak else "-",
                f"{row.first[who]:.1f}",
            ])
    return markdown(lines)


def goals_table(rows: list[Row], peaks: dict[int, float]) -> str:
    """Markdown: what was aimed at with all threads, and what was reached; empty if there is nothing."""
    lines = [["goal", "aimed at", "reached", ""]]
    most = max((row.threads for row in rows), default=0)
    for row in (row for row in rows if row.threads == most):
        for who, goal in row.goals.items():
            if who == "peak" and peaks.get(most):
                reached = row.share(OURS, peaks[most])
                lines.append([f"{row.name}: share of the peak", f"{goal:.0%}", f"{reached:.0%}", _verdict(reached, goal)])
            elif who in row.times:
                reached = row.ratio(who)
                lines.append([f"{row.name}: times as fast as {who}", f"{goal:.2f}", f"{reached:.2f}", _verdict(reached, goal)])
            elif who == "microseconds":
                reached = row.median(OURS)
                lines.append([f"{row.name}: microseconds", f"{goal:.1f}", f"{reached:.1f}", _verdict(goal, reached)])
            else:
                lines.append([f"{row.name}: {who}", f"{goal:.2f}", "-", "not measured"])
    return markdown(lines) if len(lines) > 1 else ""


def _verdict(reached: float, goal: float) -> str:
    return "reached" if reached >= goal else "missed"


def markdown(lines: list[list[str]]) -> str:
    """The first line is the head; the first column is text, the others are figures."""
    lines = [lines[0], ["---"] + ["---:"] * (len(lines[0]) - 1), *lines[1:]]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) if not place else cell.rjust(w)
                          for place, (cell, w) in enumerate(zip(line, widths, strict=True))) + " |"
        for line in lines
    )


def report_table(benchmark: str, title: str, found: str, lines: list[list[str]], argv: list[str] | None) -> None:
    """Print the facts, a line about what was found and the table; write the table to `<benchmark>.md`."""
    print("\n".join(f"{key}: {value}" for key, value in facts(_command(benchmark, argv), []).items()))
    print(f"{found}\n")
    text = markdown(lines)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{benchmark}.md").write_text(f"# {title}\n\n{text}\n")


def _figure(microseconds: float) -> str:
    return f"{microseconds:.1f}" if microseconds < 100 else f"{microseconds:,.0f}"


def chart(rows: list[Row], title: str, path: Path) -> None:
    """Bars: for each problem how many times as long each peer takes, with the most threads that were measured."""
    from matplotlib.figure import Figure

    most = max(row.threads for row in rows)
    rows = [row for row in rows if row.threads == most]
    peers = _peers(rows)
    figure = Figure(figsize=(9, 1.4 + 0.2 * (len(peers) + 0.8) * len(rows) * 0.75), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(peers)
    longest = max(row.ratio(who) for row in rows for who in row.times)
    for place, who in enumerate(peers):
        at = [line + place * height for line, row in enumerate(rows) if who in row.times]
        bars = axes.barh(at, [row.ratio(who) for row in rows if who in row.times], height, label=who)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=7)
    axes.set_yticks([line + height * (len(peers) - 1) / 2 for line in range(len(rows))], [row.name for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    if longest > 10:
        axes.set_xscale("log")
        ticks = [1, 2, 5, 10, 20] if longest < 100 else [1, 10, 100, 1000, 10000]
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.margins(x=0.1, y=0.01)
    axes.set_xlabel(f"times as long as nnfast (1: as long), {most} thread" + "s" * (most > 1))
    axes.set_title(title)
    axes.legend(loc="best", fontsize=8)
    figure.savefig(path, dpi=120)


def run(
    name: str, title: str, unit: str, cases: list[Case], argv: list[str] | None = None, as_rate: bool = False,
    typed: list[str] | None = None,
) -> int:
    """The main program of a benchmark; 1 if results disagreed, else 0.

    `typed` is the command line, where the benchmark has taken arguments of its own out of `argv`.
    """
    known = list(dict.fromkeys(who for case in cases for who in case.contestants if who != OURS))
    parser = argparse.ArgumentParser(prog=f"bench/{name}.py", description=title)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds instead of {ROUNDS}")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, all_threads()}), metavar="N",
                        help="default: 1 and all")
    parser.add_argument("--only", default="", metavar="TEXT", help="only problems whose name contains this")
    parser.add_argument("--against", nargs="+", choices=known, default=known, metavar="LIBRARY",
                        help=f"of: {', '.join(known)} (default: all of them)")
    arguments = parser.parse_args(argv)
    cases = [case for case in cases if arguments.only.lower() in case.name.lower()]
    if not cases:
        parser.error(f"no problem's name contains {arguments.only!r}")
    cases = [replace(case, contestants={who: contestant for who, contestant in case.contestants.items()
                                        if who == OURS or who in arguments.against}) for case in cases]
    about = facts(_command(name, typed or argv), known)
    peaks = peak.measured(arguments.threads) if any(case.flops for case in cases) else {}
    print(f"{title}\n" + "\n".join(f"  {key}: {value}" for key, value in about.items()) + "\n", flush=True)

    rows, disagreements = [], []
    for case in cases:
        print(f"measuring {case.name} ({case.reason})", file=sys.stderr, flush=True)
        try:
            rows += [measure(case, count, QUICK_ROUNDS if arguments.quick else ROUNDS) for count in arguments.threads]
        except DisagreementError as error:
            disagreements.append(str(error))
    if peaks:   # and once more: a busy neighbour may have held the first back (124 instead of 233 GFLOP/s, once)
        again = peak.measured(arguments.threads)
        peaks = {count: max(gflops, again[count]) for count, gflops in peaks.items()}
        about["FMA peak, float32"] = ", ".join(f"{count}: {gflops:,.0f} GFLOP/s" for count, gflops in peaks.items())
        print(f"FMA peak, float32: {about['FMA peak, float32']}\n")
    if rows:
        _report(rows, name, title, unit, about, peaks, as_rate)
    for line in disagreements:
        print(f"DISAGREE {line}", file=sys.stderr)
    return 1 if disagreements else 0


def _report(
    rows: list[Row], name: str, title: str, unit: str, about: dict[str, str], peaks: dict[int, float], as_rate: bool
) -> None:
    print(table(rows, unit, peaks, as_rate))
    goals = goals_table(rows, peaks)
    if goals:
        print("\n" + goals)
    for row in rows:
        for who, failure in row.failures.items():
            print(f"NO RESULT {row.name}, {row.threads} threads, {who}: {failure}", file=sys.stderr)
    RESULTS.mkdir(exist_ok=True)
    result = {"facts": about, "unit": unit, "peaks": peaks, "rows": [asdict(row) for row in rows]}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1))
    (RESULTS / f"{name}.md").write_text(
        f"# {title}, microseconds {unit}\n\n" + "\n".join(f"- {key}: {value}" for key, value in about.items())
        + "\n\n" + "\n\n".join(part for part in (long_table(rows, peaks), goals) if part) + "\n")
    if _peers(rows):
        chart(rows, title, RESULTS / f"{name}.png")
    print(f"\nwritten: {RESULTS / name}.json, .md" + (" and .png" if _peers(rows) else ""))
