"""Training: a step of `Network.fit` against the best NumPy and the libraries installed, the book's script against NumPy."""

import sys

import numpy as np
import peers
import timing
from book_two_layer_net import TwoLayerNet, numpy_layers, train
from numpy_mlp import NumpyMLP
from problems import BOOK, SEED, TRAINING, Training, images


def numpy_training(problem: Training):
    x, t = problem.data()
    network = NumpyMLP(problem.weights(), problem.batch_size, problem.activation, problem.optimizer, problem.lr)
    generator = np.random.default_rng(SEED)

    def work():
        for _ in range(problem.epochs):
            network.epoch(x, t, generator.permutation(len(x)) if problem.shuffles else None)
        return [array for pair in zip(network.W, network.b, strict=True) for array in pair]

    return work


def nnfast_training(problem: Training):
    import nnfast

    x, t = problem.data()
    weights = problem.weights()
    layers = []
    for W, b in zip(weights[::2], weights[1::2], strict=True):
        layers += [nnfast.Affine(W, b), {"relu": nnfast.Relu, "tanh": nnfast.Tanh}[problem.activation]()]
    network = nnfast.Network(layers[:-1], seed=SEED)
    optimizer = {"sgd": nnfast.SGD, "adam": nnfast.Adam}[problem.optimizer](lr=problem.lr)

    def work():
        network.fit(
            x, t, epochs=problem.epochs, batch_size=problem.batch_size, optimizer=optimizer, shuffle=problem.shuffles)
        return list(network.params.values())

    return work


def book_data(problem: Training, on_images: bool):
    """Images, or inputs without zeros, as `load_mnist(one_hot_label=True)` gives them: float32 in 0..1, one-hot rows."""
    if on_images:
        return images()[:2]
    x, t = problem.data()
    return np.clip(abs(x), 0.01, 1, dtype=np.float32), np.eye(problem.sizes[-1])[t]


def _book_loop(problem: Training, on_images: bool, network):
    x, t = book_data(problem, on_images)
    generator = np.random.default_rng(SEED)

    def work():
        batches = [generator.choice(len(x), problem.batch_size) for _ in range(problem.steps)]
        losses = train(network, x, t, batches, 0.1)
        return [*network.params.values(), np.array(losses)]

    return work


def book_training_numpy(problem: Training, on_images: bool):
    return _book_loop(problem, on_images, TwoLayerNet(numpy_layers(), *problem.weights()))


def book_training_own_class(problem: Training, on_images: bool):
    """The script's own class on the layers of nnfast: only the imports are changed."""
    from nnfast import layers

    return _book_loop(problem, on_images, TwoLayerNet(layers, *problem.weights()))


def book_training_two_layer_net(problem: Training, on_images: bool):
    """The same loop with `nnfast.TwoLayerNet`."""
    import nnfast

    network = nnfast.TwoLayerNet(*problem.sizes)
    network.params.update(dict(zip(network.params, problem.weights(), strict=True)))
    return _book_loop(problem, on_images, network)


TOLERANCES = {"float32": 1e-2, "float64": 1e-4}
"""Of the weights after two epochs. Rounding errors grow as training goes on; Adam's epsilon is 1e-8 here and 1e-7 there;
and 1e-7 is added to the probability in the book's loss."""


def cases() -> list[timing.Case]:
    """Every problem."""
    found = []
    for data, network, make, on_images, goals in [
        (images()[2], "its own class on our layers", book_training_own_class, True, {"NumPy": 2.5}),
        (images()[2], "with nnfast.TwoLayerNet", book_training_two_layer_net, True, {"NumPy": 2.5}),
        ("inputs without zeros", "its own class", book_training_own_class, False, {}),
    ]:
        contestants = {
            "NumPy": timing.Contestant(book_training_numpy, (BOOK, on_images), BOOK.steps),
            timing.OURS: timing.Contestant(make, (BOOK, on_images), BOOK.steps),
        }
        found.append(timing.Case(f"{BOOK.name} on {data}, {network}", BOOK.reason, contestants, 1e-9, goals=goals))
    for problem in TRAINING:
        makers = {
            "NumPy": numpy_training, **peers.taking_part(peers.TRAINING, problem.dtype), timing.OURS: nnfast_training
        }
        contestants = {
            name: timing.Contestant(make, (problem,), problem.steps * problem.epochs) for name, make in makers.items()
        }
        found.append(timing.Case(
            problem.name, problem.reason, contestants, TOLERANCES[problem.dtype],
            problem.flops if problem.dtype == "float32" else 0, problem.goals))
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if results disagree."""
    return timing.run("bench_training", "Training, nnfast and others", "a step", cases(), argv)


if __name__ == "__main__":
    sys.exit(main())
