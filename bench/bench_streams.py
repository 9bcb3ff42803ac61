"""Data that are read from a file while steps run: beside arrays in memory, a loop of one's own, and PyTorch's DataLoader.

`python bench/bench_streams.py`, some two minutes. The files are written first, to the system's folder for temporary files,
and are in the system's cache when they are read. A second table says how much memory MNIST's images take as bytes and as
float32.
"""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import peers
import timing
from problems import SEED, Training, images

PROBLEMS = [
    (Training("784-50-10, batch 100, float32", (784, 50, 10), 100, "float32", 600, "a small network: reading is much of the work",
              shuffles=False, epochs=1), "float32"),
    (Training("784-50-10, batch 100, bytes", (784, 50, 10), 100, "float32", 600, "the same, a quarter of the bytes",
              shuffles=False, epochs=1), "uint8"),
    (Training("784-256-128-10, batch 128, float32", (784, 256, 128, 10), 128, "float32", 200, "a usual network",
              shuffles=False, epochs=1), "float32"),
]
SCALE = 1 / 255
TOLERANCE = 5e-3
"""Of the weights after an epoch."""

OWN_LOOP_BYTES = 1 << 23
"""That a loop of one's own reads at a time: as much as `fit` does."""


def written(problem: Training, dtype: str) -> tuple[Path, np.ndarray, np.ndarray]:
    """A file of the problem's data, the same as an array, and labels."""
    x, t = problem.data()
    if dtype == "uint8":
        x = np.clip(np.abs(x) * 80 + 1, 0, 255).astype(np.uint8)
    path = Path(tempfile.gettempdir()) / f"nnfast-bench-{os.getuid()}-{'-'.join(map(str, x.shape))}-{dtype}"
    if not path.exists() or path.stat().st_size != x.nbytes:
        x.tofile(path.with_suffix(f".{os.getpid()}"))
        path.with_suffix(f".{os.getpid()}").replace(path)
    return path, x, t


def nnfast_training(problem: Training, dtype: str, way: str):
    """`fit` on a map of the file, on the array, or on one part of the map after another that is copied before."""
    import nnfast

    path, x, t = written(problem, dtype)
    weights = problem.weights()
    layers: list = [nnfast.Rescale(SCALE)] if dtype == "uint8" else []
    for W, b in zip(weights[::2], weights[1::2], strict=True):
        layers += [nnfast.Affine(W, b), nnfast.Relu()]
    network = nnfast.Network(layers[:-1], seed=SEED)
    optimizer, mapped = nnfast.SGD(problem.lr), np.memmap(path, dtype, "r", shape=x.shape)
    if way != "in memory":
        del x
    rows = max(1, OWN_LOOP_BYTES // (mapped.shape[1] * mapped.itemsize) // problem.batch_size) * problem.batch_size

    def work():
        options = {"batch_size": problem.batch_size, "optimizer": optimizer, "shuffle": False}
        if way == "own loop":
            for first in range(0, len(mapped), rows):
                network.fit(np.array(mapped[first : first + rows]), t[first : first + rows], **options)
        else:
            network.fit(x if way == "in memory" else mapped, t, **options)
        return list(network.params.values())

    return work


def torch_training(problem: Training, dtype: str):
    """`DataLoader` over a data set of whole batches: each is one slice of the map, which is not even copied.

    A worker process would copy it into memory that it shares, and take one of the cores.
    """
    import torch

    path, x, t = written(problem, dtype)
    mapped = torch.from_file(str(path), size=x.size, dtype=getattr(torch, dtype)).reshape(x.shape)
    del x
    labels = torch.from_numpy(t)
    network = peers._torch_network(problem.weights(), problem.activation)
    optimizer = torch.optim.SGD(network.parameters(), lr=problem.lr, fused=True)
    cross_entropy = torch.nn.CrossEntropyLoss()

    class Batches(torch.utils.data.Dataset):
        def __len__(self):
            return problem.steps

        def __getitem__(self, place):
            part = slice(place * problem.batch_size, (place + 1) * problem.batch_size)
            return mapped[part], labels[part]

    loader = torch.utils.data.DataLoader(Batches(), batch_size=None)

    def work():
        for x_batch, t_batch in loader:
            if dtype == "uint8":
                x_batch = x_batch.to(torch.float32).mul_(SCALE)
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(network(x_batch), t_batch).backward()
            optimizer.step()
        return [parameter.detach().numpy().T for parameter in network.parameters()]

    return work


def cases() -> list[timing.Case]:
    """Every problem, read in every way."""
    found = []
    for problem, dtype in PROBLEMS:
        contestants: dict[str, timing.Contestant] = {}
        if peers.installed("torch"):
            contestants["PyTorch DataLoader"] = timing.Contestant(torch_training, (problem, dtype), problem.steps)
        for way in ("in memory", "own loop"):
            contestants[f"nnfast, {way}"] = timing.Contestant(nnfast_training, (problem, dtype, way), problem.steps)
        contestants[timing.OURS] = timing.Contestant(nnfast_training, (problem, dtype, "read ahead"), problem.steps)
        found.append(timing.Case(problem.name, problem.reason, contestants, TOLERANCE))
    return found


# Memory

def _anonymous() -> float:
    """Megabytes that are this process's own, pages of files left out."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1000
    raise RuntimeError("this system does not tell")


def memory_of(as_bytes: bool) -> tuple[float, float]:
    """Megabytes of MNIST's images, and how much more there is after an epoch and a prediction of all."""
    import nnfast

    x, _, _ = images()
    t = np.arange(len(x)) % 10
    x = (x * 255).round().astype(np.uint8)
    network = nnfast.Network(
        [*([nnfast.Rescale(SCALE)] if as_bytes else []), nnfast.Affine(784, 50), nnfast.Relu(), nnfast.Affine(50, 10)], seed=SEED)
    images.cache_clear()
    network.fit(x[:1000], t[:1000])
    before = _anonymous()
    given = x if as_bytes else x * np.float32(SCALE)
    network.fit(given, t)
    network.predict(given)
    return (x.nbytes if as_bytes else x.nbytes + given.nbytes) / 1e6, _anonymous() - before


def memory_table() -> list[list[str]]:
    lines = [["MNIST, 784-50-10", "MB of images", "MB more after fit and predict"]]
    for name, as_bytes in (("bytes, Rescale(1/255) first", True), ("bytes, and a copy in float32", False)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            size, more = pool.apply(memory_of, (as_bytes,))
        lines.append([name, f"{size:.0f}", f"{more:.0f}"])
    return lines


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if results disagree."""
    status = timing.run("bench_streams", "Data read from a file", "a step", cases(), argv)
    if Path("/proc/self/status").exists():
        print()
        timing.report_table("bench_streams_memory", "MNIST in memory", "the process's own memory, pages of files left out",
                            memory_table(), argv)
    return status


if __name__ == "__main__":
    sys.exit(main())
