"""A step of training by its loss: beside PyTorch with the same loss, and a function beside the compiled loss that it is.

`python bench/bench_losses.py`, some five minutes. The first row of a network is the loss that its other benchmarks have.
"""

import sys
from dataclasses import replace

import numpy as np
import peers
import timing
from problems import SEED, TRAINING, Training

NETWORKS = ("784-50-10, batch 100", "10-45-45-10, batch 128, Adam")
QUANTILES = tuple(np.linspace(0.05, 0.95, 10).tolist())
DELTA, SMOOTHING = 0.5, 0.1
TOLERANCE = 1e-3
"""Of the weights after two epochs."""


def squared_error(scores: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As a function for nnfast."""
    difference = scores - t
    return 0.5 * np.square(difference, dtype=np.float64).sum(axis=1), difference


def ours() -> dict:
    """Nnfast's losses by name."""
    import nnfast

    return {
        "SoftmaxWithLoss": nnfast.SoftmaxWithLoss(),
        "SoftmaxWithLoss, smoothed": nnfast.SoftmaxWithLoss(SMOOTHING),
        "SigmoidWithLoss": nnfast.SigmoidWithLoss(),
        "SigmoidWithLoss, smoothed": nnfast.SigmoidWithLoss(SMOOTHING),
        "IdentityWithLoss": nnfast.IdentityWithLoss(),
        "AbsoluteError": nnfast.AbsoluteError(),
        "HuberLoss": nnfast.HuberLoss(DELTA),
        "QuantileLoss, 10 quantiles": nnfast.QuantileLoss(QUANTILES),
        "PoissonLoss": nnfast.PoissonLoss(),
        "FunctionLoss": squared_error,
    }


def theirs() -> dict:
    """PyTorch's by name, of scores and targets: sums over the outputs, means over the rows."""
    import torch

    functional, quantiles = torch.nn.functional, torch.tensor(QUANTILES)

    def pinball(scores, t):
        difference = scores - t
        return torch.maximum((1 - quantiles) * difference, -quantiles * difference).sum() / len(t)

    return {
        "SoftmaxWithLoss": functional.cross_entropy,
        "SoftmaxWithLoss, smoothed": lambda scores, t: functional.cross_entropy(scores, t, label_smoothing=SMOOTHING),
        "SigmoidWithLoss": lambda scores, t: functional.binary_cross_entropy_with_logits(scores, t, reduction="sum") / len(t),
        "SigmoidWithLoss, smoothed": lambda scores, t: functional.binary_cross_entropy_with_logits(
            scores, t * (1 - SMOOTHING) + SMOOTHING / 2, reduction="sum") / len(t),
        "IdentityWithLoss": lambda scores, t: functional.mse_loss(scores, t, reduction="sum") / (2 * len(t)),
        "AbsoluteError": lambda scores, t: functional.l1_loss(scores, t, reduction="sum") / len(t),
        "HuberLoss": lambda scores, t: functional.huber_loss(scores, t, reduction="sum", delta=DELTA) / len(t),
        "QuantileLoss, 10 quantiles": pinball,
        "PoissonLoss": lambda scores, t: functional.poisson_nll_loss(scores, t, reduction="sum") / len(t),
        "FunctionLoss": lambda scores, t: functional.mse_loss(scores, t, reduction="sum") / (2 * len(t)),
    }


LOSSES = tuple(ours())


def targets(problem: Training, loss: str) -> np.ndarray:
    """Labels, or their one-hot rows."""
    labels = problem.data()[1]
    return labels if loss.startswith("Softmax") else np.eye(problem.sizes[-1], dtype=problem.dtype)[labels]


def lr(problem: Training, loss: str) -> float:
    """Sums over ten outputs have larger gradients than their mean."""
    return problem.lr if loss.startswith("Softmax") else problem.lr / 10


def nnfast_training(problem: Training, loss: str):
    """One `fit` of all epochs, rows as they come."""
    import nnfast

    x, t, weights = problem.data()[0], targets(problem, loss), problem.weights()
    layers = []
    for W, b in zip(weights[::2], weights[1::2], strict=True):
        layers += [nnfast.Affine(W, b), nnfast.Relu()]
    network = nnfast.Network(layers[:-1], ours()[loss], seed=SEED)
    optimizer = {"sgd": nnfast.SGD, "adam": nnfast.Adam}[problem.optimizer](lr=lr(problem, loss))

    def work():
        network.fit(x, t, epochs=problem.epochs, batch_size=problem.batch_size, optimizer=optimizer, shuffle=False)
        return list(network.params.values())

    return work


def torch_training(problem: Training, loss: str):
    """The functions that PyTorch has for it, the optimiser fused, batches as views."""
    import torch

    network, loss_of = peers._torch_network(problem.weights(), problem.activation), theirs()[loss]
    x, t = torch.from_numpy(problem.data()[0]), torch.from_numpy(targets(problem, loss))
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[problem.optimizer](
        network.parameters(), lr=lr(problem, loss), fused=True)
    updates = 0

    def work():
        nonlocal updates
        for _ in range(problem.epochs):
            for x_batch, t_batch in zip(x.split(problem.batch_size), t.split(problem.batch_size), strict=True):
                optimizer.zero_grad(set_to_none=True)
                loss_of(network(x_batch), t_batch).backward()
                updates += 1
                if problem.optimizer == "adam":     # ours adds 1e-7 before the bias correction
                    for group in optimizer.param_groups:
                        group["eps"] = 1e-7 / (1 - 0.999**updates) ** 0.5
                optimizer.step()
        return [parameter.detach().numpy().T for parameter in network.parameters()]

    return work


def cases() -> list[timing.Case]:
    """Every network with every loss."""
    found = []
    for problem in (replace(one, shuffles=False) for one in TRAINING if one.name in NETWORKS):
        makers = {"PyTorch": torch_training} if peers.installed("torch") else {}
        for loss in LOSSES:
            contestants = {
                name: timing.Contestant(make, (problem, loss), problem.steps * problem.epochs)
                for name, make in {**makers, timing.OURS: nnfast_training}.items()
            }
            found.append(timing.Case(f"{problem.name}: {loss}", problem.reason, contestants, TOLERANCE))
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if results disagree."""
    return timing.run("bench_losses", "A step by its loss", "a step", cases(), argv)


if __name__ == "__main__":
    sys.exit(main())
