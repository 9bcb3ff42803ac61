"""A training step against the number of cores: measured as far as there are cores, and beyond that by a model.

The model. A step is work that the threads divide, by rows of the batch and then by tiles of weights, and what each of
them must do by itself: fetch the weights that the others have updated, and wait at two barriers.

    t(n) = t(1) * uneven(n) / n + lines * (n - 1) / n * FETCH + 2 * barrier(n)

`uneven` is the largest share of the rows, in whole tiles of TILE rows, over the average one. `lines` is how many cache
lines the weights and their transposed copies have: of each a thread has updated one n-th, and takes the others from the
caches of the other cores. FETCH comes from the measurement with all cores of this machine, the barrier likewise from a
network that is too small for anything else. Where t(n) stops falling, the division by rows stops paying: another one is
needed, or, as `_threads.for_steps` has it, fewer threads.
"""

import argparse
import statistics
import sys

import timing
from bench_training import nnfast_training
from problems import TRAINING, Training

TILE = 8        # rows, in the build for AVX-512
LINE = 64       # bytes
BARRIER = 0.2   # microseconds with two threads, measured by a network of 2-8-2 with 4 rows; grows with their logarithm
CORES = (1, 2, 4, 8, 16, 32, 64)


def uneven(rows: int, cores: int) -> float:
    """The largest share of the rows over the average one."""
    tiles = -(-rows // TILE)
    return -(-tiles // cores) * cores / tiles


def shared_lines(problem: Training) -> float:
    """Cache lines of all weights, and of the transposed copies that all layers but the first have."""
    sizes = [inputs * outputs for inputs, outputs in zip(problem.sizes, problem.sizes[1:], strict=False)]
    return (2 * sum(sizes) - sizes[0]) * (8 if problem.dtype == "float64" else 4) / LINE


def modelled(problem: Training, one: float, cores: int, fetch: float) -> float:
    """Microseconds a step, from those on one core."""
    if cores == 1:
        return one
    barriers = 2 * BARRIER * (cores - 1).bit_length()
    return one * uneven(problem.batch_size, cores) / cores + shared_lines(problem) * (cores - 1) / cores * fetch + barriers


def fetch_of(problem: Training, one: float, several: float, cores: int) -> float:
    """Microseconds a line, from a measurement with several cores; not below 0."""
    return max(0.0, (several - modelled(problem, one, cores, 0.0)) / (shared_lines(problem) * (cores - 1) / cores))


def main(argv: list[str] | None = None) -> int:
    """Measure, fit, and print the table."""
    parser = argparse.ArgumentParser(prog="bench/bench_cores.py", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{timing.QUICK_ROUNDS} rounds instead of {timing.ROUNDS}")
    rounds = timing.QUICK_ROUNDS if parser.parse_args(argv).quick else timing.ROUNDS
    most = timing.all_threads()
    if most == 1:
        print("this machine has one core: there is nothing to fit the model to", file=sys.stderr)
        return 0
    measured: dict[str, dict[int, float]] = {}
    fetches = []
    for problem in TRAINING:
        contestant = timing.Contestant(nnfast_training, (problem,), problem.steps * problem.epochs)
        case = timing.Case(problem.name, problem.reason, {timing.OURS: contestant}, 1.0)
        print(f"measuring {problem.name}", file=sys.stderr, flush=True)
        counts = [count for count in CORES if count <= most]
        measured[problem.name] = {count: timing.measure(case, count, rounds).median(timing.OURS) for count in counts}
        fetches.append(fetch_of(problem, measured[problem.name][1], measured[problem.name][counts[-1]], counts[-1]))
    fetch = statistics.median(fetches)
    lines = [["microseconds a step; m: by the model", *(f"{cores} cores" for cores in CORES), "fastest with"]]
    for problem in TRAINING:
        times = measured[problem.name]
        model = {cores: modelled(problem, times[1], cores, fetch) for cores in CORES}
        cells = [f"{times[cores]:,.0f}" if cores in times else f"{model[cores]:,.0f} m" for cores in CORES]
        best = min(CORES, key=lambda cores, times=times, model=model: times.get(cores, model[cores]))
        lines.append([problem.name, *cells, str(best)])
    found = f"a line of weights from another core: {1e3 * fetch:.1f} ns (median of the problems)"
    timing.report_table("bench_cores", "A training step against the number of cores", found, lines, argv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
