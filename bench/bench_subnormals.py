"""Whether Adam slows down as its averages sink among the subnormal numbers: the last tenth of many steps over the first.

After the first tenth the gradient of most parameters is 0 for ever, as that of dead ReLUs is. Their averages then shrink
by a tenth and a thousandth a step, and arithmetic with subnormal numbers is several times slower, unless the processor
is told to take them for 0. A process and one thread for each contestant: `python bench/bench_subnormals.py`, half a minute.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import timing
from peers import installed

PARTS = 10
STEPS = 100_000
QUICK_STEPS = 20_000
BETA2 = {STEPS: 0.999, QUICK_STEPS: 0.99}   # the second average must get there, too
SHAPE = (200, 100)


def parts_of(step: Callable[[np.ndarray], None], steps: int) -> Iterator[float]:
    """Seconds of each part; the gradient is 0 from the second one on."""
    gradient = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32) * np.float32(1e-3)
    for _ in range(PARTS):
        started = time.perf_counter()
        for _ in range(steps // PARTS):
            step(gradient)
        yield time.perf_counter() - started
        gradient[...] = 0


def nnfast_fit(steps: int) -> Iterator[float]:
    import nnfast

    inputs, hidden = SHAPE
    generator = np.random.default_rng(0)
    x, t = generator.random((100, inputs)).astype(np.float32), generator.integers(0, 2, 100)
    network = nnfast.Network([nnfast.Affine(inputs, hidden), nnfast.Relu(), nnfast.Affine(hidden, 2)], seed=0)
    adam = nnfast.Adam(1e-5, beta2=BETA2[steps])
    for part in range(PARTS):
        if part == 1:
            network.params["b1"] = np.full(hidden, -1000.0)     # every unit is dead
        started = time.perf_counter()
        network.fit(x, t, epochs=steps // PARTS // 50, batch_size=2, optimizer=adam)
        yield time.perf_counter() - started


def nnfast_update(steps: int) -> Iterator[float]:
    import nnfast

    adam, params = nnfast.Adam(1e-5, beta2=BETA2[steps]), {"W": np.ones(SHAPE, np.float32)}
    return parts_of(lambda gradient: adam.update(params, {"W": gradient}), steps)


def numpy_update(steps: int) -> Iterator[float]:
    """The same arithmetic, with subnormal numbers."""
    w, m, v, change, root = (np.full(SHAPE, value, np.float32) for value in (1, 0, 0, 0, 0))
    m_share, v_share, lr = np.float32(0.1), np.float32(1 - BETA2[steps]), np.float32(1e-5)

    def step(gradient: np.ndarray) -> None:
        np.subtract(gradient, m, out=change)
        np.multiply(change, m_share, out=change)
        np.add(m, change, out=m)
        np.multiply(gradient, gradient, out=change)
        np.subtract(change, v, out=change)
        np.multiply(change, v_share, out=change)
        np.add(v, change, out=v)
        np.sqrt(v, out=root)
        np.add(root, np.float32(1e-7), out=root)
        np.divide(m, root, out=change)
        np.multiply(change, lr, out=change)
        np.subtract(w, change, out=w)

    return parts_of(step, steps)


def torch_update(steps: int) -> Iterator[float]:
    import torch

    torch.set_num_threads(1)
    w = torch.ones(SHAPE)
    adam = torch.optim.Adam([w], lr=1e-5, betas=(0.9, BETA2[steps]))

    def step(gradient: np.ndarray) -> None:
        w.grad = torch.from_numpy(gradient)
        adam.step()

    return parts_of(step, steps)


CONTESTANTS = {
    "nnfast, fit": nnfast_fit,
    "nnfast, Adam.update": nnfast_update,
    "NumPy, subnormal numbers as they are": numpy_update,
    "PyTorch, subnormal numbers as they are": torch_update,
}


def seconds_of(name: str, steps: int) -> list[float]:
    return list(CONTESTANTS[name](steps))


def main(argv: list[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="bench/bench_subnormals.py", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS:,} steps instead of {STEPS:,}")
    steps = QUICK_STEPS if parser.parse_args(argv).quick else STEPS
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NNFAST_NUM_THREADS"):
        os.environ[variable] = "1"
    lines = [["microseconds a step", "first tenth", "slowest tenth", "last tenth", "last over first"]]
    for name in CONTESTANTS:
        if name.startswith("PyTorch") and not installed("torch"):
            print("PyTorch is not installed: left out", file=sys.stderr)
            continue
        print(f"measuring {name}", file=sys.stderr, flush=True)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            times = [1e6 * seconds / (steps // PARTS) for seconds in pool.apply(seconds_of, (name, steps))]
        first, slowest, last = times[0], max(times), times[-1]
        lines.append([name, f"{first:.1f}", f"{slowest:.1f}", f"{last:.1f}", f"{last / first:.2f}"])
    timing.report_table("bench_subnormals", "Adam and subnormal numbers",
                        f"{steps:,} steps, float32, {SHAPE[0]:,} x {SHAPE[1]} parameters, one thread", lines, argv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
