"""Inference: `Network.predict` and a `Predictor` against the best plain NumPy and the libraries that are installed."""

import sys

import peers
import timing
from numpy_mlp import NumpyMLP
from problems import INFERENCE, Inference


def numpy_inference(problem: Inference):
    return _work(problem, NumpyMLP(problem.weights(), problem.rows).predict)


def _network(problem: Inference):
    import nnfast

    weights, layers = problem.weights(), []
    for W, b in zip(weights[::2], weights[1::2], strict=True):
        layers += [nnfast.Affine(W, b), nnfast.Relu()]
    return nnfast.Network(layers[:-1])


def nnfast_predict(problem: Inference):
    return _work(problem, _network(problem).predict)


def nnfast_inference(problem: Inference):
    """A predictor, with a preallocated output."""
    predictor = _network(problem).predictor(problem.rows)
    out = predictor(problem.x())
    return _work(problem, lambda x: predictor(x, out))


def _work(problem: Inference, predict):
    x = problem.x()

    def work():
        for _ in range(problem.calls):
            scores = predict(x)
        return [scores]

    return work


def cases() -> list[timing.Case]:
    """Every problem; the sums run over at most 784 terms a layer."""
    found = []
    for problem in INFERENCE:
        makers = {
            "NumPy": numpy_inference, **peers.taking_part(peers.INFERENCE, problem.dtype),
            "nnfast predict": nnfast_predict, timing.OURS: nnfast_inference,
        }
        contestants = {name: timing.Contestant(make, (problem,), problem.calls) for name, make in makers.items()}
        tolerance = 1e-12 if problem.dtype == "float64" else 1e-4
        flops = problem.flops if problem.dtype == "float32" else 0
        found.append(timing.Case(problem.name, problem.reason, contestants, tolerance, flops, problem.goals))
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if results disagree."""
    return timing.run("bench_inference", "Inference, nnfast and others", "a call", cases(), argv)


if __name__ == "__main__":
    sys.exit(main())
