"""One row at a time without Python: the C function of a `Predictor`, called in a loop of C and by SciPy.

Others: the same `Predictor` from Python, the best plain NumPy, the network that `export_c` writes, compiled for this very
processor, and one written as a loop for Numba. Microseconds for 1,000 calls are nanoseconds a call.
"""

import ctypes
import sys
import tempfile
from pathlib import Path

import c_code
import numpy as np
import peers
import timing
from numpy_mlp import NumpyMLP
from problems import CALLS, Inference

ROWS = 10_000
"""Calls in one piece of work."""

INTEGRAL = Inference("quad of 1-32-32-1", (1, 32, 32, 1), 1, "float64", "an integrator, with and without Python")


def _network(problem: Inference):
    import nnfast

    weights, layers = problem.weights(), []
    for W, b in zip(weights[::2], weights[1::2], strict=True):
        layers += [nnfast.Affine(W, b), nnfast.Relu()]
    return nnfast.Network(layers[:-1], nnfast.IdentityWithLoss())


def nnfast_c_function(problem: Inference):
    """The C function, in a loop of C."""
    loop = c_code.compiled(c_code.FOLDER / "calls.c", "-O2").call_with_context
    predictor, x, y = _network(problem).predictor(), problem.x(), np.empty((1, problem.sizes[-1]), problem.dtype)

    def work():
        addresses = predictor.address, x.ctypes.data, y.ctypes.data, predictor.context
        loop(*map(ctypes.c_void_p, addresses), ctypes.c_long(ROWS))
        return [y]

    return work


def nnfast_predictor(problem: Inference):
    """The same from Python."""
    predictor, x = _network(problem).predictor(), problem.x()
    y = predictor(x)

    def work():
        for _ in range(ROWS):
            predictor(x, y)
        return [y]

    return work


def numpy_rows(problem: Inference):
    """A loop in Python."""
    predict, x = NumpyMLP(problem.weights(), 1).predict, problem.x()

    def work():
        for _ in range(ROWS):
            y = predict(x)
        return [y]

    return work


def exported_rows(problem: Inference):
    """What `export_c` writes, in a loop of C."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.c"
        _network(problem).export_c(path)
        # What -ffast-math would allow, but for changing the process's floating-point mode.
        library = c_code.compiled(
            path, "-O3", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math")
    loop = c_code.compiled(c_code.FOLDER / "calls.c", "-O2").call
    x, y = problem.x(), np.empty((1, problem.sizes[-1]), problem.dtype)

    def work():
        loop(library.predict, ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_long(ROWS))
        return [y]

    return work


def numba_rows(problem: Inference):
    """Loops that Numba compiles, the innermost over contiguous weights."""
    import numba

    @numba.njit(fastmath=True)
    def predict(x, weights, biases, values, calls):
        for _ in range(calls):
            before = x
            for layer in range(len(weights)):
                W, y = weights[layer], values[layer]
                y[:] = biases[layer]
                for i in range(W.shape[0]):
                    for j in range(W.shape[1]):
                        y[j] += before[i] * W[i, j]
                if layer < len(weights) - 1:
                    for j in range(W.shape[1]):
                        y[j] = max(y[j], 0)
                before = y

    weights = problem.weights()
    given = tuple(weights[::2]), tuple(weights[1::2]), tuple(np.empty_like(b) for b in weights[1::2])
    x = problem.x()[0]

    def work():
        predict(x, *given, ROWS)
        return [given[2][-1][None]]

    return work


def _quad(function):
    from scipy.integrate import quad

    def work():
        return [[quad(function, -1, 2)[0]]]

    return work


def numpy_quad(problem: Inference):
    """SciPy calls Python, and Python NumPy."""
    predict, x = NumpyMLP(problem.weights(), 1).predict, np.empty((1, 1))

    def function(value):
        x[0, 0] = value
        return predict(x)[0, 0]

    return _quad(function)


def nnfast_quad_by_python(problem: Inference):
    """SciPy calls Python, and Python a predictor."""
    predictor, x = _network(problem).predictor(), np.empty((1, 1))
    y = predictor(x)

    def function(value):
        x[0, 0] = value
        return predictor(x, y)[0, 0]

    return _quad(function)


def nnfast_quad(problem: Inference):
    """SciPy calls C."""
    return _quad(_network(problem).predictor().low_level_callable())


def _evaluations(problem: Inference) -> int:
    """Of an integral."""
    from scipy.integrate import quad

    return quad(_network(problem).predictor().low_level_callable(), -1, 2, full_output=1)[2]["neval"]


def cases() -> list[timing.Case]:
    """Every problem, if there is a C compiler; an integral, if SciPy is installed."""
    found = []
    if c_code.compiler() is not None:
        makers = {"NumPy": numpy_rows, "exported C": exported_rows}
        if peers.installed("numba"):
            makers["Numba"] = numba_rows
        makers |= {"nnfast predictor": nnfast_predictor, timing.OURS: nnfast_c_function}
        for problem in CALLS:
            contestants = {name: timing.Contestant(make, (problem,), ROWS / 1000) for name, make in makers.items()}
            tolerance = 1e-12 if problem.dtype == "float64" else 1e-4
            found.append(timing.Case(problem.name, problem.reason, contestants, tolerance, goals=problem.goals))
    if peers.installed("scipy"):
        thousands = _evaluations(INTEGRAL) / 1000
        makers = {"NumPy": numpy_quad, "nnfast predictor": nnfast_quad_by_python, timing.OURS: nnfast_quad}
        contestants = {name: timing.Contestant(make, (INTEGRAL,), thousands) for name, make in makers.items()}
        found.append(timing.Case(INTEGRAL.name, INTEGRAL.reason, contestants, 1e-7))
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if results disagree."""
    argv = sys.argv[1:] if argv is None else argv
    return timing.run("bench_c_functions", "One row at a time, without Python", "for 1,000 calls", cases(),
                      ["--threads", "1", *argv], typed=argv)


if __name__ == "__main__":
    sys.exit(main())
