"""What `fit` is told besides, step by step: each option beside PyTorch doing the same, and beside a fit without it.

`python bench/bench_fit_options.py`, some five minutes. The first row of a network has no option: the others' times less
that one's are what the option costs. A checkpoint is written after each epoch, on the disk of the temporary folder, as a file
that takes the place of the one before: nnfast waits until the disk has it (fsync), and so does the peer.
"""

import atexit
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import peers
import timing
from problems import SEED, TRAINING, Training

NETWORKS = ("784-50-10, batch 100", "784-256-128-10, batch 128", "10-45-45-10, batch 128, Adam")
OPTIONS = ("no option", "class_weight", "schedule", "clip_value", "clip_norm", "weight_decay_lambda", "l1_lambda",
           "step_callbacks", "checkpoint")
CLASS_WEIGHT = {2: 3.0, 5: 0.5}
CLIP_VALUE, CLIP_NORM, PENALTY = 0.003, 0.1, 0.03
TOLERANCE = 1e-3
"""Of the weights after two epochs. An option changes them by more than that (but for a callback or a file)."""



def nnfast_training(problem: Training, option: str):
    """Weights by class are weights of rows; the schedule is half a wave of the cosine; a checkpoint is one an epoch."""
    import nnfast
    from nnfast import schedules

    x, t = problem.data()
    weights = problem.weights()
    layers = []
    for W, b in zip(weights[::2], weights[1::2], strict=True):
        layers += [nnfast.Affine(W, b), nnfast.Relu()]
    network = nnfast.Network(layers[:-1], seed=SEED)
    if option.endswith("_lambda"):
        setattr(network, option, PENALTY)
    optimizer = {"sgd": nnfast.SGD, "adam": nnfast.Adam}[problem.optimizer](lr=problem.lr)
    options = {
        "class_weight": {"class_weight": CLASS_WEIGHT},
        "schedule": {"schedule": schedules.Cosine()},
        "clip_value": {"clip_value": CLIP_VALUE},
        "clip_norm": {"clip_norm": CLIP_NORM},
        "step_callbacks": {"step_callbacks": [lambda step: None]},
    }.get(option, {})
    if option == "checkpoint":
        options["checkpoint"] = nnfast.Checkpoint(_file())

    def work():
        network.fit(x, t, epochs=problem.epochs, batch_size=problem.batch_size, optimizer=optimizer, shuffle=False, **options)
        return list(network.params.values())

    return work


def _file() -> Path:
    """In a folder that is gone when the process ends."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder, "checkpoint")


def torch_training(problem: Training, option: str):
    """The functions that PyTorch has for it, the optimiser fused, batches as views."""
    import torch

    network = peers._torch_network(problem.weights(), problem.activation)
    x, t = (torch.from_numpy(array) for array in problem.data())
    matrices = [parameter for parameter in network.parameters() if parameter.ndim == 2]
    biases = [parameter for parameter in network.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": PENALTY * (option == "weight_decay_lambda")}, {"params": biases}]
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[problem.optimizer](groups, lr=problem.lr, fused=True)
    weight = torch.ones(problem.sizes[-1], dtype=x.dtype)
    for label, its_weight in CLASS_WEIGHT.items():
        weight[label] = its_weight
    cross_entropy = torch.nn.CrossEntropyLoss(weight=weight if option == "class_weight" else None)
    updates, path = 0, _file()

    def work():
        nonlocal updates
        steps = problem.epochs * problem.steps
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if option == "schedule" else None
        for _ in range(problem.epochs):
            for x_batch, t_batch in zip(x.split(problem.batch_size), t.split(problem.batch_size), strict=True):
                optimizer.zero_grad(set_to_none=True)
                loss = cross_entropy(network(x_batch), t_batch)
                if option == "l1_lambda":
                    loss = loss + PENALTY * sum(matrix.abs().sum() for matrix in matrices)
                loss.backward()
                if option == "clip_value":
                    torch.nn.utils.clip_grad_value_(network.parameters(), CLIP_VALUE)
                elif option == "clip_norm":
                    torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
                updates += 1
                if problem.optimizer == "adam":     # ours adds 1e-7 before the bias correction: else weights differ by 5%
                    for group in optimizer.param_groups:
                        group["eps"] = 1e-7 / (1 - 0.999**updates) ** 0.5
                optimizer.step()
                if schedule is not None:
                    schedule.step()
            if option == "checkpoint":
                unfinished = path.with_suffix(".part")
                with unfinished.open("wb") as file:
                    torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict()}, file)
                    file.flush()
                    os.fsync(file.fileno())
                unfinished.replace(path)
        for group in optimizer.param_groups:
            group["lr"] = problem.lr
            group.pop("initial_lr", None)
        return [parameter.detach().numpy().T for parameter in network.parameters()]

    return work


def cases() -> list[timing.Case]:
    """Every network with every option."""
    found = []
    for problem in (replace(one, shuffles=False) for one in TRAINING if one.name in NETWORKS):
        makers = {"PyTorch": torch_training} if peers.installed("torch") else {}
        for option in OPTIONS:
            contestants = {
                name: timing.Contestant(make, (problem, option), problem.steps * problem.epochs)
                for name, make in {**makers, timing.OURS: nnfast_training}.items()
            }
            found.append(timing.Case(
                f"{problem.name}: {option}", problem.reason, contestants, TOLERANCE))
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if results disagree."""
    return timing.run("bench_fit_options", "What fit is told besides", "a step", cases(), argv)


if __name__ == "__main__":
    sys.exit(main())
