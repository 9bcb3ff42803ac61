"""The numerical gradient of a network: nnfast against brute force in the best plain NumPy.

Brute force evaluates the loss twice for each parameter, some tens of thousands of times. Here it does so for SAMPLE of
them, chosen at random, and its time is scaled up to all: each costs the same. Its gradients there are compared with
nnfast's.
"""

import sys

import numpy as np
import timing
from numpy_mlp import NumpyMLP
from problems import GRADIENTS, SEED, Training

SAMPLE = 300
H = 1e-4


def sample(problem: Training) -> np.ndarray:
    """Places of some parameters among all of them, W1, b1, W2, b2, ..., side by side."""
    return np.random.default_rng(SEED).choice(problem.parameters, min(SAMPLE, problem.parameters), replace=False)


def numpy_brute_force(problem: Training):
    network = NumpyMLP(problem.weights(), problem.batch_size, problem.activation)
    (x, t), places = problem.data(), sample(problem)
    parameters = network.flat

    def work():
        found = np.empty(len(places))
        for number, place in enumerate(places):
            before = parameters[place]
            parameters[place] = before + H
            above, _ = network.evaluate(x, t)
            parameters[place] = before - H
            below, _ = network.evaluate(x, t)
            parameters[place] = before
            found[number] = (above - below) / (2 * H)
        return [found]

    return work


def nnfast_numerical_gradient(problem: Training):
    import nnfast

    weights, layers = problem.weights(), []
    activation = {"relu": nnfast.Relu, "tanh": nnfast.Tanh}[problem.activation]
    for W, b in zip(weights[::2], weights[1::2], strict=True):
        layers += [nnfast.Affine(W, b), activation()]
    network = nnfast.Network(layers[:-1])
    (x, t), places = problem.data(), sample(problem)

    def work():
        gradients = network.numerical_gradient(x, t, h=H)
        return [np.concatenate([gradient.ravel() for gradient in gradients.values()])[places]]

    return work


def cases() -> list[timing.Case]:
    """Every problem; the two agree as far as rounding of the brute force lets them."""
    return [timing.Case(problem.name, problem.reason, {
        "NumPy": timing.Contestant(
            numpy_brute_force, (problem,), min(SAMPLE, problem.parameters) / problem.parameters),
        timing.OURS: timing.Contestant(nnfast_numerical_gradient, (problem,)),
    }, 1e-6, goals=problem.goals) for problem in GRADIENTS]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if results disagree."""
    title = f"Numerical gradient, nnfast and brute force (timed on {SAMPLE} random parameters, scaled to all)"
    return timing.run("bench_gradient", title, "a gradient", cases(), argv)


if __name__ == "__main__":
    sys.exit(main())
