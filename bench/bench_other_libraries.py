"""Whether other libraries are slower for nnfast's being imported, or having trained, in their process; and the reverse.

For each library a process of its own times some work before `import nnfast`, after it, and once nnfast has trained with
all threads and a pause is over; another does the same without nnfast, which shows how far times wander by themselves.
The two take turns. `python bench/bench_other_libraries.py`, some four minutes.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import timing
from peers import installed

ROUNDS, QUICK_ROUNDS = 7, 3
SECONDS = 0.4
PAUSE = 0.2
"""Seconds after the other's training: threads that spin in wait of more work have given up by then."""

SIZES, BATCH = (784, 256, 10), 128


def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.random((2048, SIZES[0]), np.float32), generator.integers(0, SIZES[-1], 2048)


def numpy_product() -> Callable[[], object]:
    a = data()[0]
    return lambda: a.T @ a


def sklearn_boosting() -> Callable[[], object]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, t = data()
    model = HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=15, early_stopping=False)
    return lambda: model.fit(x[:, :100], t > 4)


def torch_step() -> Callable[[], object]:
    import torch

    x, t = (torch.from_numpy(array[:BATCH].copy()) for array in data())
    inputs, hidden, classes = SIZES
    model = torch.nn.Sequential(torch.nn.Linear(inputs, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, classes))
    adam, loss = torch.optim.Adam(model.parameters()), torch.nn.CrossEntropyLoss()

    def step() -> None:
        adam.zero_grad(set_to_none=True)
        loss(model(x), t).backward()
        adam.step()

    return step


def nnfast_epoch() -> Callable[[], object]:
    import nnfast

    inputs, hidden, classes = SIZES
    network = nnfast.Network([nnfast.Affine(inputs, hidden), nnfast.Relu(), nnfast.Affine(hidden, classes)], seed=0)
    x, t = data()
    return lambda: network.fit(x, t, batch_size=BATCH, optimizer=nnfast.Adam())


WORK = {"numpy": numpy_product, "sklearn": sklearn_boosting, "torch": torch_step, "nnfast": nnfast_epoch}
NAMES = {"numpy": "NumPy, product", "sklearn": "scikit-learn, gradient boosting", "torch": "PyTorch, training step",
         "nnfast": "nnfast, epoch"}


def undisturbed_seconds(work: Callable[[], object]) -> float:
    """A tenth of the times are shorter: beside a busy process the median is up to 12 times as long (PyTorch)."""
    times, until = [], time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 10]


def ratios(subject: str, other: str) -> tuple[float, float]:
    """The subject's times after import of the other and after its training, as multiples of those before."""
    work = WORK[subject]()
    undisturbed_seconds(work)    # everything is in memory, and every thread there, afterwards
    before = undisturbed_seconds(work)
    if other:
        __import__(other)
    imported = undisturbed_seconds(work)
    if other:
        train, until = WORK[other](), time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            train()
    time.sleep(PAUSE)
    return imported / before, undisturbed_seconds(work) / before


def measured(subject: str, other: str, rounds: int) -> list[str]:
    """Medians of the rounds: after import and after training, each with the other library and without."""
    found: dict[str, list[tuple[float, float]]] = {other: [], "": []}
    for _ in range(rounds):
        for which, values in found.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                values.append(pool.apply(ratios, (subject, which)))
    columns = [statistics.median(value[place] for value in found[which]) for place in (0, 1) for which in (other, "")]
    return [f"{column:.2f}" for column in columns]


def main(argv: list[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="bench/bench_other_libraries.py", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds instead of {ROUNDS}")
    rounds = QUICK_ROUNDS if parser.parse_args(argv).quick else ROUNDS
    lines = [["times as long as before", "after import", "without it", "after training", "without it"]]
    for peer in ("numpy", "sklearn", "torch"):
        if not installed(peer):
            print(f"{peer} is not installed: left out", file=sys.stderr)
            continue
        for subject, other in ((peer, "nnfast"), ("nnfast", peer)):
            print(f"measuring {NAMES[subject]} beside {other}", file=sys.stderr, flush=True)
            lines.append([f"{NAMES[subject]}, beside {other}", *measured(subject, other, rounds)])
    timing.report_table("bench_other_libraries", "nnfast and other libraries in one process",
                        f"all threads; medians of {rounds} processes each", lines, argv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
