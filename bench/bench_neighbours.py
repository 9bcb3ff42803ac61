"""Training beside busy processes: nnfast with its default of threads against nnfast with one thread.

Threads that wait for each other get little done where other processes want the cores. nnfast promises that with the
defaults no call is slower than with one thread, also there; this measures it, some 6 minutes:
`python bench/bench_neighbours.py`. A neighbour is a process that does nothing but count.
"""

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import timing
from bench_training import nnfast_training
from problems import SEED, TRAINING, Training

NEIGHBOURS = (0, 1, 2, 4)
NAMES = ("784-50-10, batch 100, MNIST", "784-256-128-10, batch 128, MNIST", "10-45-45-10, batch 128, Adam")
ONE_THREAD = "one thread"

ROUNDS_FACTOR = 2
"""More rounds than elsewhere: beside two neighbours the same turn takes up to twice as long as the last one, by chance."""


def nnfast_layers(problem: Training):
    """The same networks, but for the optimiser, layer by layer, as the book writes it."""
    import nnfast

    x, t = problem.data()
    weights = problem.weights()
    layers = []
    for W, b in zip(weights[::2], weights[1::2], strict=True):
        layers += [nnfast.Affine(W, b), nnfast.Relu()]
    layers[-1] = nnfast.SoftmaxWithLoss()
    generator = np.random.default_rng(SEED)

    def work():
        for _ in range(problem.steps):
            rows = generator.choice(len(x), problem.batch_size)
            values = x[rows]
            for layer in layers[:-1]:
                values = layer.forward(values)
            layers[-1].forward(values, t[rows])
            gradient = layers[-1].backward()
            for layer in layers[-2::-1]:
                gradient = layer.backward(gradient)
        return [gradient]

    return work


def with_one_thread(make, problem: Training):
    import nnfast

    nnfast.set_num_threads(1)
    return make(problem)


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[list[subprocess.Popen]]:
    """So many processes that keep a core busy."""
    processes: list[subprocess.Popen] = []
    try:
        for _ in range(count):
            processes.append(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def cases() -> list[timing.Case]:
    found = []
    for problem in TRAINING:
        if problem.name not in NAMES:
            continue
        for how, make in (("fit", nnfast_training), ("layer by layer", nnfast_layers)):
            steps = problem.steps * (problem.epochs if how == "fit" else 1)
            contestants = {
                timing.OURS: timing.Contestant(make, (problem,), steps),
                ONE_THREAD: timing.Contestant(with_one_thread, (make, problem), steps),
            }
            found.append(timing.Case(f"{problem.name}, {how}", problem.reason, contestants, 0.0))    # the same bits
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="bench/bench_neighbours.py", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true",
                        help=f"{ROUNDS_FACTOR * timing.QUICK_ROUNDS} rounds instead of {ROUNDS_FACTOR * timing.ROUNDS}")
    rounds = ROUNDS_FACTOR * (timing.QUICK_ROUNDS if parser.parse_args(argv).quick else timing.ROUNDS)
    threads = timing.all_threads()
    lines = [["times as fast as one thread, beside", *(f"{count} busy" for count in NEIGHBOURS)]]
    for case in cases():
        print(f"measuring {case.name}", file=sys.stderr, flush=True)
        ratios = []
        for count in NEIGHBOURS:
            with neighbours(count):
                ratios.append(timing.measure(case, threads, rounds).ratio(ONE_THREAD))
        lines.append([case.name, *(f"{ratio:.2f}" for ratio in ratios)])
    timing.report_table("bench_neighbours", "Training beside busy processes", f"threads: {threads}", lines, argv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
