"""Training: a step of `Network.fit` against the best plain NumPy, and the book's own script against the book's NumPy."""

import sys

import numpy as np
import timing
from book_two_layer_net import TwoLayerNet, numpy_layers, train
from numpy_mlp import NumpyMLP
from problems import BOOK, SEED, TRAINING, Training, images

EPOCHS = 2      # in one piece of work: what `fit` does once, it does for at least two epochs


def numpy_training(problem: Training):
    x, t = problem.data()
    network = NumpyMLP(problem.weights(), problem.batch_size, problem.activation, problem.optimizer, problem.lr)
    generator = np.random.default_rng(SEED)

    def work():
        history = [network.epoch(x, t, generator.permutation(len(x))) for _ in range(EPOCHS)]
        parameters = [array for pair in zip(network.W, network.b, strict=True) for array in pair]
        return [*parameters, np.array(history)]

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
        history = network.fit(x, t, epochs=EPOCHS, batch_size=problem.batch_size, optimizer=optimizer)
        return [*network.params.values(), np.column_stack([history.loss, history.accuracy])]

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


def cases() -> list[timing.Case]:
    """Every problem. Rounding errors grow as training goes on, so the tolerance is wide of a single step's."""
    found = []
    for data, network, make, on_images in [
        (images()[2], "its own class on our layers", book_training_own_class, True),
        (images()[2], "with nnfast.TwoLayerNet", book_training_two_layer_net, True),
        ("inputs without zeros", "its own class", book_training_own_class, False),
    ]:
        contestants = [
            timing.Contestant(function, (BOOK, on_images), BOOK.steps) for function in (book_training_numpy, make)
        ]
        found.append(timing.Case(f"{BOOK.name} on {data}, {network}", BOOK.reason, *contestants, 1e-9))
    for problem in TRAINING:
        contestants = [
            timing.Contestant(make, (problem,), problem.steps * EPOCHS) for make in (numpy_training, nnfast_training)
        ]
        tolerance = 1e-9 if problem.dtype == "float64" else 1e-2
        found.append(timing.Case(problem.name, problem.reason, *contestants, tolerance))
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if results disagree."""
    return timing.run("bench_training", "Training, nnfast against NumPy", "a step", cases(), argv)


if __name__ == "__main__":
    sys.exit(main())
