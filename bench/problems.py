"""The named problems that the benchmarks measure, each with its reason, and their data.

Nothing here is tuned to: the sizes are those that users have or that others have published, and some are odd on
purpose. Inputs are random and without a zero, so that no product gets shorter (_core_zeros.pxi), but for the demo and
the book's script: those train on images.
"""

import functools
from dataclasses import dataclass, field

import numpy as np

SEED = 0


@functools.cache
def images() -> tuple[np.ndarray, np.ndarray, str]:
    """The training images of MNIST as `load_mnist(one_hot_label=True)` gives them, their one-hot labels, and "MNIST".

    Where it is not found (NNFAST_DATA_DIR), the digits in the package, each pixel three by three, with a margin of two.
    """
    from nnfast import datasets

    try:
        (x, t), _ = datasets.load_mnist(one_hot_label=True)
    except FileNotFoundError:
        (digits, t), _ = datasets.load_digits(one_hot_label=True)
        enlarged = digits.reshape(-1, 8, 8).repeat(3, axis=1).repeat(3, axis=2)
        return np.pad(enlarged, ((0, 0), (2, 2), (2, 2))).reshape(-1, 784), t, "enlarged digits"
    return x, t, "MNIST"


@dataclass(frozen=True)
class Training:
    """Layers of `sizes` with `activation` between them and softmax with cross-entropy at the end."""

    name: str
    sizes: tuple[int, ...]
    batch_size: int
    dtype: str
    steps: int              # in an epoch
    reason: str
    activation: str = "relu"
    optimizer: str = "sgd"
    on_images: bool = False     # MNIST instead of inputs without zeros
    shuffles: bool = True       # the rows, before each epoch
    epochs: int = 2             # in one piece of work: what `fit` does once, it does for so many
    goals: dict[str, float] = field(default_factory=dict)   # timing.Case

    @property
    def flops(self) -> int:
        """Of a step's products; the gradient with respect to the input is not needed."""
        sizes = [inputs * outputs for inputs, outputs in zip(self.sizes, self.sizes[1:], strict=False)]
        return 2 * self.batch_size * (3 * sum(sizes) - sizes[0])

    @property
    def parameters(self) -> int:
        """How many there are."""
        return sum((inputs + 1) * outputs for inputs, outputs in zip(self.sizes, self.sizes[1:], strict=False))

    @property
    def lr(self) -> float:
        return {"sgd": 0.01, "adam": 0.001}[self.optimizer]

    def weights(self) -> list[np.ndarray]:
        """W1, b1, W2, b2, ... for a network to begin with."""
        generator = np.random.default_rng(SEED)
        arrays = []
        for inputs, outputs in zip(self.sizes, self.sizes[1:], strict=False):
            weights = generator.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)
            arrays += [weights.astype(self.dtype), np.zeros(outputs, self.dtype)]
        return arrays

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (batch_size * steps, inputs) and labels that depend on it, so that there is something to learn."""
        if self.on_images:
            x, t, _ = images()
            rows = self.batch_size * self.steps
            return x[:rows].astype(self.dtype), t[:rows].argmax(axis=1)
        generator = np.random.default_rng(SEED + 1)
        x = generator.standard_normal((self.batch_size * self.steps, self.sizes[0]), dtype=np.float32)
        labels = (x @ generator.standard_normal((self.sizes[0], self.sizes[-1]), dtype=np.float32)).argmax(axis=1)
        return x.astype(self.dtype), labels


TRAINING = [
    Training("64-50-10, batch 100", (64, 50, 10), 100, "float32", 60, "the demo: the digits in the package"),
    Training("784-50-10, batch 100", (784, 50, 10), 100, "float32", 60, "the book's network on MNIST"),
    Training("784-50-10, batch 100, MNIST", (784, 50, 10), 100, "float32", 120, "the same, on the images themselves",
             on_images=True, goals={"NumPy": 4.7, "PyTorch": 4.7, "JAX scan": 2.2}),
    Training("784-50-10, batch 100, float64", (784, 50, 10), 100, "float64", 60, "the same in the book's dtype"),
    Training("784-256-128-10, batch 128", (784, 256, 128, 10), 128, "float32", 20, "a usual network for MNIST"),
    Training("784-256-128-10, batch 128, MNIST", (784, 256, 128, 10), 128, "float32", 60, "the same, on the images",
             on_images=True, goals={"PyTorch": 2.25, "JAX scan": 1.55}),
    Training("784-1024-1024-10, batch 256", (784, 1024, 1024, 10), 256, "float32", 20, "bound by the matrix products",
             goals={"peak": 0.92}),
    Training("784-1024-1024-10, batch 256, MNIST", (784, 1024, 1024, 10), 256, "float32", 20, "the same, on the images",
             on_images=True, goals={"PyTorch": 1.45, "JAX scan": 1.2}),
    Training("10-45-45-10, batch 128, Adam", (10, 45, 45, 10), 128, "float32", 60, "tiny: PyTorch issue 144633",
             optimizer="adam", goals={"PyTorch": 10, "JAX scan": 2}),
    Training("10-46-46-10, batch 128, Adam", (10, 46, 46, 10), 128, "float32", 60, "the width at which PyTorch slows down",
             optimizer="adam", goals={"PyTorch": 10, "JAX scan": 2}),
    Training("4-32-16-4 tanh, batch 10,000, Adam", (4, 32, 16, 4), 10_000, "float32", 1,
             "narrow and long, all rows at once: the example of SimpleChains.jl", "tanh", "adam", shuffles=False,
             epochs=20, goals={"JAX scan": 2, "peak": 0.3}),
    Training("123-77-33-5, batch 50, float64", (123, 77, 33, 5), 50, "float64", 60, "odd sizes, on purpose"),
]

GRADIENTS = [   # one batch
    Training("784-50-10, batch 100, MNIST", (784, 50, 10), 100, "float64", 1, "the book's gradient check", on_images=True,
             goals={"NumPy": 1000}),
    Training("784-50-10, batch 100", (784, 50, 10), 100, "float64", 1, "the same without a zero, all values different"),
    Training("64-50-10, batch 100", (64, 50, 10), 100, "float64", 1, "as small as the digits in the package"),
    Training("784-256-128-10, batch 32, MNIST", (784, 256, 128, 10), 32, "float64", 1, "a usual network", on_images=True),
    Training("4-64-64-2 tanh, batch 32", (4, 64, 64, 2), 32, "float64", 1, "few inputs, nothing keeps still", "tanh"),
    Training("123-77-33-5, batch 50", (123, 77, 33, 5), 50, "float64", 1, "odd sizes, on purpose"),
]

BOOK = Training("the book's ch05 script", (784, 50, 10), 100, "float64", 60, "a script of the book, its imports changed")


@dataclass(frozen=True)
class Layer:
    """One pass through one layer, or one update by an optimiser, for a batch of `rows`."""

    name: str
    layer: str
    rows: int
    inputs: int
    outputs: int
    dtype: str
    reason: str
    direction: str = "forward"


def _layers() -> list[Layer]:
    problems = []
    for rows, inputs, outputs, dtype, reason in [
        (100, 784, 50, "float32", "the book's first layer"),
        (100, 784, 50, "float64", "the same in the book's dtype"),
        (256, 1024, 1024, "float32", "bound by arithmetic"),
        (57, 123, 77, "float32", "odd sizes, on purpose"),
    ]:
        for direction in ("forward", "backward"):
            name = f"Affine {direction}, {rows} x {inputs} x {outputs}, {dtype}"
            problems.append(Layer(name, "Affine", rows, inputs, outputs, dtype, reason, direction))
    for layer, rows, columns, dtype, reason in [
        ("Relu", 100, 50, "float32", "small: the cost of a call"),
        ("Relu", 256, 1024, "float32", "large: bound by memory"),
        ("Sigmoid", 100, 50, "float64", "small, with exp"),
        ("Sigmoid", 256, 1024, "float32", "large, with exp"),
        ("Tanh", 10_000, 32, "float32", "the activation of the narrow network"),
        ("BatchNormalization", 100, 100, "float64", "chapter 6 of the book"),
    ]:
        for direction in ("forward", "backward"):
            name = f"{layer} {direction}, {rows} x {columns}, {dtype}"
            problems.append(Layer(name, layer, rows, columns, columns, dtype, reason, direction))
    for rows, classes, reason in [(100, 10, "the book's output layer"), (1000, 1000, "many classes")]:
        name = f"SoftmaxWithLoss, both passes, {rows} x {classes}, float32"
        problems.append(Layer(name, "SoftmaxWithLoss", rows, classes, classes, "float32", reason, "both"))
    for optimizer, inputs, outputs, reason in [
        ("SGD", 784, 50, "the book's optimiser"),
        ("Adam", 784, 50, "the usual optimiser"),
        ("Adam", 1024, 1024, "the same beyond the cache"),
    ]:
        name = f"{optimizer} update, {inputs} x {outputs}, float32"
        problems.append(Layer(name, optimizer, 0, inputs, outputs, "float32", reason, "update"))
    return problems


LAYERS = _layers()


@dataclass(frozen=True)
class Inference:
    """Scores of a network of `sizes` with ReLU between its layers, for `rows` examples at a time."""

    name: str
    sizes: tuple[int, ...]
    rows: int
    dtype: str
    reason: str
    goals: dict[str, float] = field(default_factory=dict)   # timing.Case

    calls = 10      # in one piece of work

    @property
    def flops(self) -> int:
        return 2 * self.rows * sum(i * o for i, o in zip(self.sizes, self.sizes[1:], strict=False))

    def weights(self) -> list[np.ndarray]:
        """W1, b1, W2, b2, ..."""
        return Training(self.name, self.sizes, self.rows, self.dtype, 1, self.reason).weights()

    def x(self) -> np.ndarray:
        return np.random.default_rng(SEED).standard_normal((self.rows, self.sizes[0])).astype(self.dtype)


_THOUSAND = {"PyTorch": 1, "ONNX Runtime": 1, "OpenVINO": 1}
INFERENCE = [
    Inference("4-64-64-2, 1 row", (4, 64, 64, 2), 1, "float32", "control and reinforcement learning",
              {"microseconds": 1.2}),
    Inference("4-64-64-2, 32 rows", (4, 64, 64, 2), 32, "float32", "the same for a few states at a time"),
    Inference("784-50-10, 1 row", (784, 50, 10), 1, "float32", "one image", {"ONNX Runtime": 2}),
    Inference("784-50-10, 32 rows", (784, 50, 10), 32, "float32", "a small server's batch"),
    Inference("784-50-10, 1000 rows", (784, 50, 10), 1000, "float32", "a test set in pieces", _THOUSAND),
    Inference("784-50-10, 1000 rows, float64", (784, 50, 10), 1000, "float64", "the same in the book's dtype"),
    Inference("784-512-512-10, 1 row", (784, 512, 512, 10), 1, "float32", "bound by reading the weights",
              {"ONNX Runtime": 1.2}),
    Inference("784-512-512-10, 1000 rows", (784, 512, 512, 10), 1000, "float32", "bound by arithmetic", _THOUSAND),
    Inference("61-43-29-3, 77 rows, float64", (61, 43, 29, 3), 77, "float64", "odd sizes, on purpose"),
]

CALLS = [   # of a C function, for one row
    Inference("1-1", (1, 1), 1, "float32", "the call itself", {"microseconds": 100}),
    Inference("2-32-32-1", (2, 32, 32, 1), 1, "float64", "a term of a differential equation"),
    Inference("4-64-64-2", (4, 64, 64, 2), 1, "float32", "control and reinforcement learning"),
    Inference("784-50-10", (784, 50, 10), 1, "float32", "one image"),
    Inference("784-512-512-10", (784, 512, 512, 10), 1, "float32", "bound by reading the weights"),
]


@dataclass(frozen=True)
class Product:
    """One of the three products of an Affine layer with `inputs` and `outputs`, for a batch of `rows`."""

    product: str
    rows: int
    inputs: int
    outputs: int
    reason: str
    dtype: str = "float32"

    @property
    def name(self) -> str:
        return f"{self.product}, {self.rows} x {self.inputs} x {self.outputs}"

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inputs * self.outputs

    @property
    def goals(self) -> dict[str, float]:
        """No slower than OpenBLAS anywhere, and near the peak where there is arithmetic enough."""
        return {"NumPy": 1.0, "peak": 0.92} if (self.rows, self.inputs, self.outputs) == (256, 1024, 1024) else {"NumPy": 1.0}


PRODUCTS = [
    Product(product, rows, inputs, outputs, reason)
    for rows, inputs, outputs, reason in [
        (100, 64, 50, "the demo"),
        (100, 784, 50, "the book's first layer"),
        (100, 50, 10, "the book's second layer"),
        (128, 784, 256, "a usual first layer"),
        (57, 123, 77, "odd sizes, on purpose"),
        (16, 512, 512, "few rows"),
        (256, 256, 256, "a cube"),
        (256, 1024, 1024, "bound by arithmetic"),
        (1000, 300, 1000, "long and wide"),
    ]
    for product in ("x W", "x.T dz", "dz W.T")
]
