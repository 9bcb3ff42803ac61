"""One network on two ranks, each with one thread, beside fits with one and two threads; and what it is made of.

    python bench/bench_ranks.py [--quick] [--only TEXT] [--batches B ...]

needs mpi4py and a launcher (extra `mpi`, and mpich or Open MPI). Processes of four kinds live side by side and take
turns: a fit with one thread and one with two, and one and two ranks as `mpiexec` starts them. In turns that are not
theirs they wait for their socket and take no processor. Times are of the steps, from `History.seconds`; a ratio is
the median of the rounds' ratios.

Then the model of `cost_of_ranks.py` is made of parts: the work of a rank, measured at numbers of rows of its own
while the other rank does the same and nothing is exchanged, and reductions alone over two ranks. What it says about
steps of two ranks is compared with the times above, and with those behind a slower network: a pause after each
reduction, as long as the model says that a network of that kind takes. It knows of no reduction that goes on beside
the arithmetic.
"""

import argparse
import contextlib
import functools
import importlib.util
import itertools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cost_of_ranks
import numpy as np
import timing
from cost_of_ranks import Arithmetic, Link, Parts, allreduce, described, ethernet, fitted, fitted_link, save, step

NETWORKS = {"784-50-10": (784, 50, 10), "784-1024-1024-10": (784, 1024, 1024, 10)}
LARGER = {"784-4096-4096-10": (784, 4096, 4096, 10)}
"""Of which the parts are measured only, for the picture."""

BATCHES = (100, 1_000, 10_000)
ROWS = 20_000           # that all ranks together hold: two steps of the largest batch
OWN_ROWS = (50, 200, 500, 2_000, 5_000)
"""Of one rank, where its work is measured: as many steps as take WORK seconds, unless one takes LONGEST."""
WORK, LONGEST = 0.5, 2.5
SIZES = (4, 1_000, 30_000, 160_000, 1_000_000, 8_000_000)     # bytes of reductions
SLOW = {"1 Gbit/s, 50 us": ethernet(1, 50), "10 Gbit/s, 20 us": ethernet(10, 20)}
SECONDS = 0.3           # of a turn, by the fit with one thread
WAKES_LATE = 2e-4       # seconds
PATIENCE = 60.0         # seconds until a process must be there

ONE_THREAD, TWO_THREADS, ONE_RANK, TWO_RANKS = "1 thread", "2 threads", "1 rank", "2 ranks"
KINDS = {ONE_THREAD: (0, 1), TWO_THREADS: (0, 2), ONE_RANK: (1, 1), TWO_RANKS: (2, 1)}
"""Ranks (0: a process without a communicator) and threads of each."""


# The processes


class Team:
    """The processes of one kind."""

    def __init__(self, kind: str, starts: str) -> None:
        ranks, threads = KINDS[kind]
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NNFAST_NUM_THREADS")
        as_root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        environment = {**os.environ, **dict.fromkeys(names, str(threads)), **as_root}
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(PATIENCE)
            command = [sys.executable, __file__, "--serve", str(server.getsockname()[1])]
            launched = [starts, "-n", str(ranks), *command] if ranks else [*command, "--alone"]
            self.process = subprocess.Popen(launched, env=environment, stdin=subprocess.DEVNULL)
            try:
                members = [_lines(server.accept()[0]) for _ in range(max(1, ranks))]
            except TimeoutError:
                self.process.kill()
                raise timing.EndedEarlyError(f"{kind}: no process has come in {PATIENCE:.0f} seconds") from None
        self.kind = kind
        self.members = sorted(members, key=lambda member: int(member.readline()))

    def do(self, task: str, *arguments: Any) -> list[Any]:
        """What each rank gives."""
        for member in self.members:
            print(json.dumps([task, *arguments]), file=member, flush=True)
        lines = [member.readline() for member in self.members]
        if not all(lines):
            raise timing.EndedEarlyError(f"{self.kind}: a process has ended early, its own message stands above")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        for member in self.members:
            member.close()
        self.process.wait()


def launcher() -> str | None:
    """The mpiexec beside this Python, or else on the path."""
    return shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def _lines(connection: socket.socket) -> Any:
    """A file to talk through, with which the connection ends."""
    with connection:
        return connection.makefile("rw")


@contextlib.contextmanager
def teams(starts: str, kinds: Iterable[str] = tuple(KINDS)) -> Iterator[dict[str, Team]]:
    found: dict[str, Team] = {}
    try:
        for kind in kinds:
            found[kind] = Team(kind, starts)
        yield found
    finally:
        for team in found.values():
            team.close()


def serve(port: int, is_alone: bool) -> None:
    """A process: does what it reads from the socket until that ends."""
    if is_alone:
        comm = None
    else:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rw") as lines:
        print(0 if comm is None else comm.rank, file=lines, flush=True)
        for line in lines:
            task, *arguments = json.loads(line)
            print(json.dumps(TASKS[task](comm, *arguments)), file=lines, flush=True)


class _Clocked:
    """A context in which the seconds of reductions are noted, and take so long more as a link would need.

    It carries one at a time. Those that are started while the arithmetic goes on are waited for with the last one.
    """

    def __init__(self, link: Link | None) -> None:
        self.link, self.seconds, self.free_at = link, [], 0.0

    def _occupy(self, ranks: Any, array: np.ndarray) -> None:
        if self.link is not None:
            self.free_at = max(time.perf_counter(), self.free_at) + allreduce(ranks.size, array.nbytes, self.link)

    def __enter__(self) -> list[float]:
        from nnfast._ranks import Ranks

        self.sum, self.start_sum = Ranks._sum, Ranks.start_sum

        def clocked_sum(ranks: Ranks, array: np.ndarray) -> None:
            begun = time.perf_counter()
            self.sum(ranks, array)
            self._occupy(ranks, array)
            _pause_until(self.free_at)
            self.seconds.append(time.perf_counter() - begun)

        def clocked_start(ranks: Ranks, array: np.ndarray) -> None:
            begun = time.perf_counter()
            self.start_sum(ranks, array)
            self._occupy(ranks, array)
            self.seconds.append(time.perf_counter() - begun)

        Ranks._sum, Ranks.start_sum = clocked_sum, clocked_start
        return self.seconds

    def __exit__(self, *_: object) -> None:
        from nnfast._ranks import Ranks

        Ranks._sum, Ranks.start_sum = self.sum, self.start_sum


def _pause_until(until: float) -> None:
    """Asleep but for the end, since the system wakes late."""
    seconds = until - time.perf_counter()
    if seconds > WAKES_LATE:
        time.sleep(seconds - WAKES_LATE)
    while time.perf_counter() < until:
        pass


def _network(sizes: list[int]):
    import nnfast

    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nnfast.Affine(inputs, outputs), nnfast.Relu()]
    return nnfast.Network(layers[:-1], seed=0)


@functools.cache
def _data(inputs: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.standard_normal((ROWS, inputs), dtype=np.float32), generator.integers(classes, size=ROWS)


def fit(comm, sizes: list[int], batch: int, epochs: int, link: list[float] | None) -> dict[str, Any]:
    """Seconds of a step, those that this rank is in reductions, bytes of the gradients, and rows that it holds."""
    import nnfast

    x, t = _data(sizes[0], sizes[-1])
    if comm is not None:
        mine = slice(ROWS * comm.rank // comm.size, ROWS * (comm.rank + 1) // comm.size)
        x, t = x[mine], t[mine]
    network = _network(sizes)
    with _Clocked(None if link is None else Link(*link)) as sums:
        history = network.fit(x, t, epochs=epochs, batch_size=batch, optimizer=nnfast.SGD(lr=0.001), comm=comm)
    steps = epochs * -(-ROWS // batch)
    nbytes = 4 * network.flat_params.size
    return {"seconds": sum(history.seconds) / steps, "sums": sum(sums) / steps, "bytes": nbytes, "rows": len(x)}


def work(comm, sizes: list[int], rows: int, steps: int) -> float:
    """Seconds of a step of a rank with so many rows, without those in which it reduces: it talks to itself alone.

    One that has no others does not even do that.
    """
    from mpi4py import MPI

    import nnfast
    from nnfast import _ranks

    of = _ranks.of
    if comm.size > 1:
        _ranks.of = lambda comm: _ranks.Ranks(comm, MPI)
    try:
        x, t = (of_all[: rows * steps] for of_all in _data(sizes[0], sizes[-1]))
        with _Clocked(None) as sums:
            history = _network(sizes).fit(
                x, t, epochs=2, batch_size=rows, optimizer=nnfast.SGD(lr=0.001), comm=MPI.COMM_SELF)
        return (history.seconds[1] - sum(sums) / 2) / steps     # the second time all memory is there
    finally:
        _ranks.of = of


def reductions(comm, size: int, repetitions: int) -> float:
    """Seconds of one, the median."""
    from mpi4py import MPI

    array = np.ones(size // 4, np.float32)
    found = []
    for _ in range(repetitions):
        array[:] = 1
        comm.Barrier()
        begun = time.perf_counter()
        comm.Allreduce(MPI.IN_PLACE, array)
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def additions(comm) -> float:
    """Seconds to add a byte to another, of arrays that no cache holds."""
    sums, others = np.zeros(8_000_000, np.float32), np.ones(8_000_000, np.float32)
    found = []
    for _ in range(7):
        begun = time.perf_counter()
        sums += others
        found.append(time.perf_counter() - begun)
    return statistics.median(found) / sums.nbytes


TASKS = {"fit": fit, "work": work, "reductions": reductions, "additions": additions}


# What is measured with them


def epochs_of(team: Team, sizes: tuple[int, ...], batch: int) -> int:
    """Of a turn."""
    (found,) = team.do("fit", sizes, batch, 1, None)
    return max(1, round(SECONDS / (found["seconds"] * -(-ROWS // batch))))


def compared(found: dict[str, Team], sizes: tuple[int, ...], batch: int, rounds: int) -> dict[str, list[list[Any]]]:
    """What each rank of each kind, and of two ranks behind each slow network, gave in each round."""
    turns = [(kind, team, None) for kind, team in found.items()]
    turns += [(name, found[TWO_RANKS], [link.latency, link.bandwidth]) for name, link in SLOW.items()]
    epochs = epochs_of(found[ONE_THREAD], sizes, batch)
    given: dict[str, list[list[Any]]] = {name: [] for name, _, _ in turns}
    for _, team, link in turns:     # the first time is not counted
        team.do("fit", sizes, batch, 1, link)
    for number in range(rounds):
        first = number % len(turns)
        for name, team, link in turns[first:] + turns[:first]:
            given[name].append(team.do("fit", sizes, batch, epochs, link))
    return given


def seconds(given: list[list[Any]]) -> list[float]:
    """Of a step, by round: that of the rank that takes longest."""
    return [max(rank["seconds"] for rank in ranks) for ranks in given]


def ratio(over: list[list[Any]], under: list[list[Any]]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(seconds(over), seconds(under), strict=True))


def arithmetic_of(team: Team, sizes: tuple[int, ...], rounds: int) -> tuple[Arithmetic, float]:
    """Of each of its ranks, which work at once; and the largest error of the fit, relative to what was measured."""
    rows, medians = [], []
    for count in OWN_ROWS:
        first = max(team.do("work", sizes, count, 1))
        if rows and first > LONGEST:
            break
        steps = max(1, min(ROWS // len(team.members) // count, int(WORK / first)))
        rows.append(count)
        medians.append(statistics.median(max(team.do("work", sizes, count, steps)) for _ in range(rounds)))
    arithmetic = fitted(rows, medians)
    return arithmetic, _largest_error([arithmetic.seconds(count) for count in rows], medians)


def link_between(team: Team, rounds: int) -> tuple[Link, float]:
    """Of the ranks of this machine; and the largest error of the fit."""
    medians = [statistics.median(max(team.do("reductions", size, 30)) for _ in range(rounds)) for size in SIZES]
    link = fitted_link(SIZES, medians, 2)
    return link, _largest_error([allreduce(2, size, link) for size in SIZES], medians)


def _largest_error(predicted: list[float], measured: list[float]) -> float:
    return max(abs(one / other - 1) for one, other in zip(predicted, measured, strict=True))


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, and keep the parts for the picture."""
    if argv is None and sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]), "--alone" in sys.argv)
        return 0
    parser = argparse.ArgumentParser(prog="bench/bench_ranks.py", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{timing.QUICK_ROUNDS} rounds instead of {timing.ROUNDS}")
    parser.add_argument("--only", default="", metavar="TEXT", help="only networks whose name contains this")
    parser.add_argument("--batches", type=int, nargs="*", default=BATCHES, metavar="B",
                        help="of all ranks together; none: measure the parts only")
    arguments = parser.parse_args(argv)
    starts = launcher()
    missing = "mpiexec" if starts is None else None if importlib.util.find_spec("mpi4py") else "mpi4py"
    if missing:
        print(f"there is no {missing}: pip install mpi4py mpich", file=sys.stderr)
        return 0
    chosen = {name: sizes for name, sizes in {**NETWORKS, **LARGER}.items() if arguments.only in name}
    if not chosen:
        parser.error(f"no network's name contains {arguments.only!r}")
    rounds = timing.QUICK_ROUNDS if arguments.quick else timing.ROUNDS
    measure(starts, chosen, arguments.batches, rounds, argv)
    return 0


def measure(
    starts: str, chosen: dict[str, tuple[int, ...]], batches: Sequence[int], rounds: int, argv: list[str] | None
) -> None:
    times = [["microseconds a step", "batch", *KINDS, "inside Allreduce", "2 ranks : 1 thread", "2 ranks : 2 threads",
              "1 rank : 1 thread"]]
    checks = [["predicted : measured", "batch", ONE_RANK, TWO_RANKS, *SLOW]]
    notes, parts = [], {}
    with teams(starts) as found:
        print("measuring reductions", file=sys.stderr, flush=True)
        link, error = link_between(found[TWO_RANKS], rounds)
        addition = found[ONE_RANK].do("additions")[0]
        notes.append(f"reductions over two ranks: {1e6 * link.latency:.2f} us and {link.bandwidth / 1e9:.1f} GB/s "
                     f"(off by at most {error:.0%}); to add: {1e9 * addition:.3f} ns a byte")
        for name, sizes in chosen.items():
            print(f"measuring the work of {name}", file=sys.stderr, flush=True)
            alone, error = arithmetic_of(found[ONE_RANK], sizes, rounds)
            among, other = arithmetic_of(found[TWO_RANKS], sizes, rounds)
            parts[name] = Parts(alone, among, 4 * sum((i + 1) * o for i, o in itertools.pairwise(sizes)))
            notes.append(f"{name}: {described(parts[name])} (off by at most {max(error, other):.0%})")
            for batch in batches if name in NETWORKS else ():
                print(f"measuring {name}, batch {batch:,}", file=sys.stderr, flush=True)
                given = compared(found, sizes, batch, rounds)
                times.append([name, f"{batch:,}", *_medians(given),
                              *(f"{ratio(given[over], given[under]):.2f}" for over, under in (
                                  (ONE_THREAD, TWO_RANKS), (TWO_THREADS, TWO_RANKS), (ONE_THREAD, ONE_RANK)))])
                checks.append([name, f"{batch:,}", *_predictions(given, batch, parts[name], link)])
    save(parts, addition, timing.facts(timing._command("bench_ranks", argv), []))
    report(times, checks, notes, parts, addition, argv)


def _medians(given: dict[str, list[list[Any]]]) -> list[str]:
    """Microseconds of a step of each kind, and those that two ranks are in reductions, the one that waits less."""
    medians = [statistics.median(seconds(given[kind])) for kind in KINDS]
    inside = statistics.median(min(rank["sums"] for rank in ranks) for ranks in given[TWO_RANKS])
    return [f"{1e6 * found:,.0f}" for found in (*medians, inside)]


def _predictions(given: dict[str, list[list[Any]]], batch: int, parts: Parts, link: Link) -> list[str]:
    predicted = {ONE_RANK: step(1, batch, parts, link), TWO_RANKS: step(2, batch, parts, link)}
    predicted |= {name: predicted[TWO_RANKS] + allreduce(2, parts.size, slow) for name, slow in SLOW.items()}
    return [f"{found / statistics.median(seconds(given[name])):.2f}" for name, found in predicted.items()]


def report(times, checks, notes, parts, addition, argv) -> None:
    """Print it all and write it to results/bench_ranks.md."""
    told = "times as fast: a step of the second over one of the first"
    timing.report_table("bench_ranks", "One network on two ranks", told, times, argv)
    more = "\n\n".join([timing.markdown(checks), "\n".join(f"- {note}" for note in notes),
                        timing.markdown(cost_of_ranks.smallest_batches(parts, addition))])
    print(f"\n{more}")
    with (timing.RESULTS / "bench_ranks.md").open("a") as file:
        file.write(f"\n{more}\n")


if __name__ == "__main__":
    sys.exit(main())
