"""Many networks at once: `fit_many` beside the same networks one after the other, and beside PyTorch and JAX.

PyTorch and JAX can train networks of one shape as one, with batched matrix products: their strongest way. A case without
shuffling, so that they need no orders and their weights agree: `python bench/bench_many.py`, some 15 minutes.
"""

import sys

import numpy as np
import peers
import timing

SEED = 0
COUNT = 32
UNEQUAL = [8, 16, 24, 32, 48, 64, 96, 128]
"""Units of hidden layers, four networks each."""


def data(rows: int, inputs: int = 20, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    return rng.standard_normal((rows, inputs), np.float32), rng.integers(0, classes, rows)


def networks(widths: list[int]):
    import nnfast

    return [nnfast.Network([nnfast.Affine(20, width), nnfast.Relu(), nnfast.Affine(width, 5)], seed=place)
            for place, width in enumerate(widths)]


def state(trained) -> list[np.ndarray]:
    return [array for network in trained for array in network.state()]


def at_once(widths: list[int], rows: int, options: dict):
    import nnfast

    x, t = data(rows)
    trained = networks(widths)

    def work():
        nnfast.fit_many(trained, x, t, optimizer=nnfast.SGD(0.05), **options)
        return state(trained)

    return work


def one_after_the_other(widths: list[int], rows: int, options: dict, num_threads: int | None):
    import nnfast

    x, t = data(rows)
    trained = networks(widths)

    def work():
        for network in trained:
            network.fit(x, t, optimizer=nnfast.SGD(0.05), num_threads=num_threads, **options)
        return state(trained)

    return work


def _stacked(width: int) -> list[np.ndarray]:
    """Weights and biases of all networks, (COUNT, inputs, outputs) and (COUNT, 1, outputs)."""
    made = networks([width] * COUNT)
    return [np.stack([np.atleast_2d(network.params[key]) for network in made]) for key in ("W1", "b1", "W2", "b2")]


def _apart(parameters: list[np.ndarray]) -> list[np.ndarray]:
    return [array[place].reshape(-1) if array.shape[1] == 1 else array[place]
            for place in range(COUNT) for array in parameters]


def torch_batched(width: int, rows: int, options: dict):
    """All networks as one: batched products, the fused optimiser, the losses' sum."""
    import torch

    torch.set_num_threads(peers._threads())
    x, t = (torch.from_numpy(array) for array in data(rows))
    W1, b1, W2, b2 = parameters = [torch.from_numpy(array).requires_grad_() for array in _stacked(width)]
    optimizer = torch.optim.SGD(parameters, lr=0.05, fused=True)
    batch_size, epochs = options["batch_size"], options["epochs"]

    def work():
        for _ in range(epochs):
            for first in range(0, rows, batch_size):
                batch, labels = x[first : first + batch_size], t[first : first + batch_size]
                optimizer.zero_grad(set_to_none=True)
                hidden = torch.relu(torch.matmul(batch, W1) + b1)
                scores = torch.baddbmm(b2, hidden, W2)
                loss = torch.nn.functional.cross_entropy(
                    scores.reshape(-1, scores.shape[-1]), labels.repeat(COUNT), reduction="sum") / len(batch)
                loss.backward()
                optimizer.step()
        return _apart([parameter.detach().numpy() for parameter in parameters])

    return work


def jax_batched(width: int, rows: int, options: dict):
    """A network mapped over the weights of all, every epoch's steps and the epochs in one compiled scan."""
    jax = peers._jax("float32")
    x, t = data(rows)
    batch_size = options["batch_size"]
    batches = x.reshape(-1, batch_size, x.shape[1]), t.reshape(-1, batch_size)

    def loss_of(parameters, batch, labels):
        W1, b1, W2, b2 = parameters
        scores = jax.nn.relu(batch @ W1 + b1) @ W2 + b2
        return -jax.numpy.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], axis=1).mean()

    gradients = jax.vmap(jax.grad(loss_of), in_axes=(0, None, None))

    def step(parameters, batch):
        found = gradients(parameters, *batch)
        return [one - 0.05 * gradient for one, gradient in zip(parameters, found, strict=True)], None

    def epoch(parameters, _):
        return jax.lax.scan(step, parameters, batches)

    train = jax.jit(lambda parameters: jax.lax.scan(epoch, parameters, None, length=options["epochs"])[0])
    parameters = [jax.numpy.asarray(array) for array in _stacked(width)]

    def work():
        nonlocal parameters
        parameters = train(parameters)
        return _apart([np.asarray(one) for one in parameters])

    return work


def cases() -> list[timing.Case]:
    found = []
    for name, widths, rows, epochs, goals in (
        ("32 of 20-50-5, 1,000 rows", [50] * COUNT, 1_000, 100, True),
        ("32 of 20-50-5, 10,000 rows", [50] * COUNT, 10_000, 20, True),
        ("32 of 20-50-5, 200 rows", [50] * COUNT, 200, 50, False),
        ("4 each of 20-8-5 to 20-128-5", [width for width in UNEQUAL for _ in range(4)], 1_000, 100, False),
    ):
        given = widths, rows, {"epochs": epochs, "batch_size": 100}
        units = COUNT * epochs * -(-rows // 100)
        found.append(timing.Case(
            name, "shuffled", {
                timing.OURS: timing.Contestant(at_once, given, units),
                "one thread": timing.Contestant(one_after_the_other, (*given, 1), units),
                "all threads": timing.Contestant(one_after_the_other, (*given, None), units),
            }, 0.0, goals={"one thread": 1.9, "all threads": 1.3} if goals else {}))
    given = 1_000, {"epochs": 20, "batch_size": 100, "shuffle": False}
    units = COUNT * 20 * 10
    batched = peers.taking_part(
        {"PyTorch": ("torch", torch_batched, ("float32",)), "JAX": ("jax", jax_batched, ("float32",))}, "float32")
    found.append(timing.Case(
        "32 of 20-50-5, batched products", "not shuffled", {
            timing.OURS: timing.Contestant(at_once, ([50] * COUNT, *given), units),
            **{name: timing.Contestant(make, (50, *given), units) for name, make in batched.items()},
        }, 1e-4))
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if results disagree."""
    return timing.run("bench_many", "Many networks at once, by the step of one", "a step", cases(), argv)


if __name__ == "__main__":
    sys.exit(main())
