"""The largest error of exp, log, sigmoid, tanh and GELU over every finite float32, in units in the last place (ulp).

The tests look at every 1021st float32; this looks at all 4,278,190,080, for each build: `python bench/bench_accuracy.py`,
most of an hour. The exact values are NumPy's in float64; those of log, whose result is a float64, in its longest float.
The exit status is 1 if a bound of the docstrings does not hold.
"""

import argparse
import multiprocessing
import sys

import numpy as np
import timing

PIECE = 1 << 22     # bit patterns at a time: what is computed on the way stays in the cache

BOUNDS = {"exp": 1.1, "log": 2, "sigmoid": 2.5, "tanh": 2.5, "gelu": 5}
"""As nnfast's docstrings and tests state them."""

SHIFT = 1e-7
"""What the cross-entropy adds to a probability."""

SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


def normal_tail(z: np.ndarray) -> np.ndarray:
    """P(Z > z) of the standard normal distribution for z >= 0, to 12 digits.

    Below 2.5 by the series of P(z) - 1/2, above by Laplace's continued fraction (Abramowitz and Stegun, 26.2.11 and .14).
    """
    z = np.minimum(z, 40)
    near = z < 2.5
    tail = np.empty_like(z)
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    term = total = z[near]
    for k in range(1, 30):
        term = term * z[near] ** 2 / (2 * k + 1)
        total = total + term
    tail[near] = 0.5 - density[near] * total
    fraction = far = z[~near]
    for k in range(60, 0, -1):
        fraction = far + k / fraction
    tail[~near] = density[~near] / fraction
    return tail


def exact(name: str, x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    if name == "log":
        return np.log((x + SHIFT).astype(np.longdouble))
    with np.errstate(under="ignore", over="ignore"):
        if name == "tanh":
            return np.tanh(x)
        if name == "exp":
            return np.exp(x)
        if name == "sigmoid":
            power = np.exp(-np.abs(x))
            return np.where(x >= 0, 1, power) / (1 + power)
        tail = normal_tail(np.abs(x))
        return x * np.where(x < 0, tail, 1 - tail)


def computed(name: str, isa: str, x: np.ndarray) -> np.ndarray:
    from nnfast import _kernels

    kernels = _kernels.specialised(_kernels.builds()[isa], x.dtype)
    if name == "exp":   # softmax of the row (0, x) is exp(x) / (1 + exp(x)), which is exp(x) where 1 + exp(x) is 1
        pairs = np.zeros((x.size, 2), x.dtype)
        pairs[:, 1] = x
        result = np.empty_like(pairs)
        kernels.softmax_forward(pairs, result, 1)
        return result[:, 1]
    if name == "log":   # the cross-entropy of rows of one column is -log(x + SHIFT)
        losses = np.empty(x.size)
        kernels.cross_entropy(x.reshape(-1, 1), np.zeros(x.size, np.int64), losses, 1)
        return -losses
    result = np.empty_like(x)
    getattr(kernels, f"{name}_forward")(x, result, 1)
    return result


def worst(task: tuple[str, str, int]) -> tuple[float, float]:
    """Of a piece of all bit patterns: the largest error, and the value that has it."""
    name, isa, first = task
    x = np.arange(first, first + PIECE, dtype=np.uint32).view(np.float32)
    x = x[np.isfinite(x)]
    if name == "exp":
        x = x[x < -18]
    if name == "log":
        x = x[x >= 0]
    if not x.size:
        return 0.0, 0.0
    expected = exact(name, x)
    # Results below the normal numbers lose digits, or are 0 early, as the docstrings say; tanh's do not.
    chosen = np.abs(expected) >= {"sigmoid": 4, "gelu": 64}.get(name, 0) * SMALLEST_NORMAL
    with np.errstate(under="ignore", over="ignore"):    # beyond the largest float32 is no unit
        unit = np.spacing(np.abs(expected[chosen].astype(np.float64 if name == "log" else np.float32)))
    errors = np.abs(computed(name, isa, x)[chosen] - expected[chosen]) / unit
    if not errors.size:
        return 0.0, 0.0
    place = int(errors.argmax())
    return float(errors[place]), float(x[chosen][place])


def main(argv: list[str] | None = None) -> int:
    """Print a line for each function and build; 1 if an error is beyond its bound."""
    from nnfast import _kernels

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=BOUNDS, nargs="+", default=list(BOUNDS), help="these functions")
    parser.add_argument("--isa", choices=list(_kernels.builds()), nargs="+", default=list(_kernels.builds()))
    options = parser.parse_args(argv)
    lines = [["function", "build", "largest error in ulp", "at", "bound"]]
    holds = True
    with multiprocessing.get_context("spawn").Pool(timing.all_threads()) as pool:
        for name in options.only:
            for isa in options.isa:
                tasks = [(name, isa, first) for first in range(0, 1 << 32, PIECE)]
                error, value = max(pool.imap_unordered(worst, tasks, chunksize=8))
                holds = holds and error <= BOUNDS[name]
                lines.append([name, isa, f"{error:.4f}", f"{value:.9g}", f"{BOUNDS[name]}"])
                print(" ".join(lines[-1]), file=sys.stderr, flush=True)
    print(timing.markdown(lines))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
