"""Inference: `Network.predict` against the best plain NumPy."""

import sys

import numpy as np
import timing
from numpy_mlp import NumpyMLP
from problems import INFERENCE, SEED, Inference, Training

CALLS = 10      # in one piece of work


def _weights(problem: Inference) -> list[np.ndarray]:
    return Training(problem.name, problem.sizes, problem.rows, problem.dtype, 1, problem.reason).weights()


def _x(problem: Inference) -> np.ndarray:
    generator = np.random.default_rng(SEED)
    return generator.standard_normal((problem.rows, problem.sizes[0])).astype(problem.dtype)


def _work(predict, x):
    def work():
        for _ in range(CALLS):
            scores = predict(x)
        return [scores]

    return work


def numpy_inference(problem: Inference):
    return _work(NumpyMLP(_weights(problem), problem.rows).predict, _x(problem))


def nnfast_inference(problem: Inference):
    import nnfast

    weights, layers = _weights(problem), []
    for W, b in zip(weights[::2], weights[1::2], strict=True):
        layers += [nnfast.Affine(W, b), nnfast.Relu()]
    return _work(nnfast.Network(layers[:-1]).predict, _x(problem))


def cases() -> list[timing.Case]:
    """Every problem; the sums run over at most 784 terms a layer."""
    return [
        timing.Case(
            problem.name, problem.reason, timing.Contestant(numpy_inference, (problem,), CALLS),
            timing.Contestant(nnfast_inference, (problem,), CALLS), 1e-12 if problem.dtype == "float64" else 1e-4,
        )
        for problem in INFERENCE
    ]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if results disagree."""
    return timing.run("bench_inference", "Inference, nnfast against NumPy", "a call", cases(), argv)


if __name__ == "__main__":
    sys.exit(main())
