"""The one training loop, what it reports, and the book's `Trainer`."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _forks, _plan, _threads, _validation, plots
from nnfast.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, Optimizer, RMSprop

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnfast.network import Network

__all__ = [
    "SGD", "AdaGrad", "Adam", "Epoch", "History", "Momentum", "Nesterov", "RMSprop", "Trainer", "np",
]


@dataclass(frozen=True)
class Epoch:
    """What a callback is told after an epoch.

    Attributes
    ----------
    number, epochs : int
        This epoch, counted from 1, and how many there are to be.
    loss : float
        Mean over the examples as they were trained on, each before its step's update.
    accuracy : float or None
        Share of them classified right, likewise; None where the loss is not a classifier's.
    validation_loss, validation_accuracy : float or None
        After the epoch, on the validation data.
    seconds : float
        Time of training, validation left out.
    examples_per_second : float
        Examples of the epoch divided by `seconds`.
    network : Network
        The network, with the weights at the epoch's end.

    Examples
    --------
    >>> epoch = Epoch(1, 20, 0.25, 0.9, None, None, 0.5, 120000.0, None)
    >>> print(epoch)
    epoch  1/20: loss 0.2500, accuracy 0.9000, 120,000 examples/s
    """

    number: int
    epochs: int
    loss: float
    accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    examples_per_second: float
    network: "Network" = field(repr=False)

    def __str__(self) -> str:
        parts = [f"loss {self.loss:.4f}"]
        if self.accuracy is not None:
            parts.append(f"accuracy {self.accuracy:.4f}")
        if self.validation_loss is not None:
            parts.append(f"validation loss {self.validation_loss:.4f}")
        if self.validation_accuracy is not None:
            parts.append(f"validation accuracy {self.validation_accuracy:.4f}")
        parts.append(f"{self.examples_per_second:,.0f} examples/s")
        return f"epoch {self.number:>{len(str(self.epochs))}}/{self.epochs}: {', '.join(parts)}"


@dataclass
class History:
    """A value an epoch of what training saw; the fields are those of `Epoch`, empty where they mean nothing.

    Attributes
    ----------
    loss, accuracy, validation_loss, validation_accuracy, seconds : list of float
        By epoch.

    Examples
    --------
    >>> History().loss
    []
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def append(self, epoch: Epoch) -> None:
        """Add an epoch's values.

        Parameters
        ----------
        epoch : Epoch
            As a callback gets it.
        """
        for name, values in vars(self).items():
            value = getattr(epoch, name)
            if value is not None:
                values.append(value)

    def plot(self, *, ax: "Axes | Sequence[Axes] | None" = None) -> "list[Axes]":
        """Loss and accuracy by epoch as curves, as `nnfast.plots.plot_history` draws them.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or sequence of them, keyword-only, optional
            Axes for each of the two curves, or one whose place is divided; a new figure if not given.

        Returns
        -------
        list of matplotlib.axes.Axes
            Of the loss and, for a classifier, of the accuracy.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError, ValueError
            If there is no epoch yet, or `ax` is not as many axes.
        """
        return plots.plot_history(self, ax=ax)


_fit_lock = threading.Lock()
_fitting: dict[int, "Network"] = {}     # networks that are being trained, by id; not an attribute, which a copy would have


def _after_fork_in_child() -> None:
    """Another thread of the parent may have held the lock of `fit`.

    What that thread trained is refused in the child: nobody goes on with it, and its optimiser is between two steps.
    """
    global _fit_lock
    _fit_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def fit(
    network: "Network",
    x: ArrayLike,
    t: ArrayLike,
    *,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer | Any,
    validation_data: tuple[ArrayLike, ArrayLike] | None,
    shuffle: bool,
    callbacks: Iterable[Callable[[Epoch], bool | None]],
    verbose: int,
    progress: bool,
    num_threads: int | None,
) -> History:
    """`Network.fit`, whose docstring says all: check everything, then train epoch by epoch."""
    epochs = _validation.check_count("epochs", epochs)
    batch_size = _validation.check_count("batch_size", batch_size)
    optimizer = SGD() if optimizer is None else _validation.has_methods("optimizer", optimizer, ("update",))
    is_planned = _plan.obstacle(network, optimizer) is None
    rows, targets = training_data(network, x, t, "x", "t", is_checked_later=is_planned)
    if validation_data is not None:
        validation_data = _validation.pair("validation_data", validation_data)
        training_data(network, *validation_data, "validation_data[0]", "validation_data[1]")
    callbacks = _validation.callables("callbacks", callbacks)
    limited = _threads.limited(num_threads)
    is_entered = False
    try:
        with _fit_lock:
            _validation.not_fitting(network, _fitting)
            is_entered = True       # before it is: Ctrl-C may come between the two
            _fitting[id(network)] = network
        with limited:
            return _train(network, is_planned, rows, targets, epochs, batch_size, optimizer, validation_data,
                          bool(shuffle), callbacks, _validation.check_count("verbose", int(verbose), 0), progress)
    finally:
        if is_entered:
            _fitting.pop(id(network), None)


def training_data(
    network: "Network", x: ArrayLike, t: ArrayLike, x_name: str, t_name: str, *, is_checked_later: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the network's dtype, finite, and targets as `Network.training_step` takes them.

    A plan checks later, when it has a row in the cache, whether it is finite.
    """
    if network.inputs is None:
        rows = _validation.rows(x_name, x, network.dtype, None, "")
    else:
        first = type(next(iter(network.layers.values()))).__name__
        rows = _validation.rows(x_name, x, network.dtype, network.inputs, f"layer 1 ({first})")
    _validation.not_empty(x_name, rows)
    if not is_checked_later:
        _validation.all_finite(x_name, rows)
    if not hasattr(network.last_layer, "prepare"):
        targets = np.asarray(t)
        _validation.same_length(targets, rows.shape[0], t_name, x_name)
        return rows, targets
    outputs = network.outputs if network.outputs is not None else network.predict(rows[:1]).shape[1]
    targets = network.last_layer.prepare(t, rows.shape[0], outputs, network.dtype)
    if targets.dtype.kind == "f":
        _validation.all_finite(t_name, targets)
    return rows, targets


def _train(
    network: "Network", is_planned: bool, x: np.ndarray, t: np.ndarray, epochs: int, batch_size: int, optimizer: Any,
    validation_data: tuple[ArrayLike, ArrayLike] | None, shuffle: bool,
    callbacks: list[Callable[[Epoch], bool | None]], verbose: int, progress: bool,
) -> History:
    history = History()
    steps = -(-x.shape[0] // batch_size)
    with _progress_bar(progress, epochs * steps) as bar:
        if is_planned:
            is_watched = bool(verbose or callbacks or validation_data)
            results = _planned(network, x, t, epochs, batch_size, optimizer, shuffle, is_watched, bar)
        else:
            results = _layer_by_layer(network, x, t, epochs, batch_size, optimizer, shuffle, bar)
        for number, (loss, accuracy, seconds) in enumerate(results, 1):
            validation = _evaluated(network, validation_data)
            epoch = Epoch(number, epochs, loss, accuracy, *validation, seconds, x.shape[0] / seconds, network)
            history.append(epoch)
            if verbose:
                bar.write(str(epoch))
            answers = [callback(epoch) for callback in callbacks]   # all are called, also after one asks to stop
            if True in answers:
                break
    return history


# By epoch: mean loss, accuracy if it means something, and seconds.
_Results = Iterator[tuple[float, float | None, float]]

_EPOCHS_SECONDS = 0.1
"""Epochs that nobody watches are trained together, for about so long."""

_MOST_ROWS = 1 << 20
"""In the orders of epochs that are trained together: 8 MB."""


def _planned(
    network: "Network", x: np.ndarray, t: np.ndarray, epochs: int, batch_size: int, optimizer: Any, shuffle: bool,
    is_watched: bool, bar: Any,
) -> _Results:
    """Train in compiled code: one epoch at a time where somebody looks at the network after each."""
    optimizer.states(network.params)    # refuses what does not fit
    plan = _plan.Plan(network, optimizer, min(batch_size, x.shape[0]))
    done, together = 0, 1
    while done < epochs:
        started = time.perf_counter()
        losses, correct = plan.train(x, t, together, shuffle, done + 1, bar.update)
        seconds = (time.perf_counter() - started) / together
        for loss, right in zip(losses, correct, strict=True):
            accuracy = float(right / x.shape[0]) if network.last_layer.is_classifier else None
            yield float(loss / x.shape[0]), accuracy, seconds
        done += together
        if not is_watched:
            most = min(epochs - done, max(1, _MOST_ROWS // x.shape[0]))
            together = max(1, min(most, int(_EPOCHS_SECONDS / seconds)))


def _layer_by_layer(
    network: "Network", x: np.ndarray, t: np.ndarray, epochs: int, batch_size: int, optimizer: Any, shuffle: bool,
    bar: Any,
) -> _Results:
    for number in range(1, epochs + 1):
        started = time.perf_counter()
        loss, accuracy = _epoch(network, x, t, batch_size, optimizer, shuffle, number, bar)
        yield loss, accuracy, time.perf_counter() - started


def _epoch(
    network: "Network", x: np.ndarray, t: np.ndarray, batch_size: int, optimizer: Any, shuffle: bool,
    number: int, bar: Any,
) -> tuple[float, float | None]:
    """One pass over the data: mean loss and accuracy. Stopped on the way, everything is as before the epoch."""
    before = [array.copy() for array in network.state()]
    generator_before = network.generator.bit_generator.state
    optimizer_before = optimizer.snapshot() if isinstance(optimizer, Optimizer) else None
    total = 0.0
    correct: int | None = 0
    try:
        params = network.params
        # Rows are gathered into the same memory every step: fresh memory costs more than copying them.
        memory = np.empty((min(batch_size, x.shape[0]), x.shape[1]), x.dtype)
        for step, batch in enumerate(_batches(network, x.shape[0], batch_size, shuffle), 1):
            x_batch = x[batch] if isinstance(batch, slice) else _gathered(x, batch, memory)
            t_batch = t[batch]
            loss, right, gradients = network.training_step(x_batch, t_batch)
            _validation.loss_is_finite(loss, number, step, optimizer, x, t)
            optimizer.update(params, gradients)
            total += loss * x_batch.shape[0]
            correct = None if right is None or correct is None else correct + right
            bar.update(1)
        _validation.weights_are_finite(params, number, optimizer, x, t)
    except BaseException:
        for array, old in zip(network.state(), before, strict=True):
            array[...] = old
        network.generator.bit_generator.state = generator_before
        if optimizer_before is not None:
            optimizer.restore(optimizer_before)
        raise
    return total / x.shape[0], None if correct is None else correct / x.shape[0]


def _batches(network: "Network", rows: int, batch_size: int, shuffle: bool) -> Iterator[Any]:
    """Which rows each step takes: indices, or slices where they are consecutive."""
    _forks.draws(network)
    order = network.generator.permutation(rows) if shuffle else None
    for first in range(0, rows, batch_size):
        part = slice(first, min(first + batch_size, rows))
        yield part if order is None else order[part]


def _gathered(x: np.ndarray, rows: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """x[rows], written into the first rows of `memory`."""
    # mode="clip": the rows are known to be there, and "raise" would gather into a buffer first.
    return np.take(x, rows, axis=0, out=memory[: len(rows)], mode="clip")


def _evaluated(
    network: "Network", validation_data: tuple[ArrayLike, ArrayLike] | None
) -> tuple[float | None, float | None]:
    if validation_data is None:
        return None, None
    is_classifier = getattr(network.last_layer, "is_classifier", True)
    return network.loss(*validation_data), network.accuracy(*validation_data) if is_classifier else None


class _NoBar:
    """Stands in for a progress bar that nobody asked for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, steps: int) -> None:
        pass

    def write(self, line: str) -> None:
        print(line, flush=True)


def _progress_bar(progress: bool, total: int) -> Any:
    if not progress:
        return _NoBar()
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError("progress=True needs tqdm: pip install nnfast[progress]") from None
    return tqdm(total=total, unit="step", leave=False)


_OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSprop,
    "adam": Adam,
}


class Trainer:
    """The book's training loop: mini-batches drawn with replacement from the global ``np.random`` (chapter 6).

    Parameters
    ----------
    network : object
        With ``gradient(x, t)``, ``loss(x, t)``, ``accuracy(x, t)`` and ``params``.
    x_train, t_train : ndarray
        Training inputs (B, I) and targets.
    x_test, t_test : ndarray
        Test inputs and targets.
    epochs : int, default 20
        An epoch is train size / mini_batch_size steps.
    mini_batch_size : int, default 100
        Rows a step.
    optimizer : str, default "SGD"
        sgd, momentum, nesterov, adagrad, rmsprop or adam, in either case.
    optimizer_param : dict, optional
        Arguments of the optimiser; ``{"lr": 0.01}`` if not given.
    evaluate_sample_num_per_epoch : int, optional
        Use only so many rows, the first, to measure accuracies.
    verbose : bool, default True
        Print as the book does.

    Attributes
    ----------
    train_loss_list : list of float
        Loss of each step's batch, after its update.
    train_acc_list, test_acc_list : list of float
        Accuracies at the first step of each epoch.

    Raises
    ------
    TypeError, ValueError
        If a number is below 1, the optimiser is not known, or rows and targets are not equally many.

    Examples
    --------
    >>> from nnfast.network import TwoLayerNet
    >>> np.random.seed(0)
    >>> x, t = np.random.rand(20, 2), np.arange(20) % 2
    >>> trainer = Trainer(TwoLayerNet(2, 4, 2), x, t, x, t, epochs=2, mini_batch_size=10, verbose=False)
    >>> trainer.train()
    >>> len(trainer.train_loss_list), len(trainer.test_acc_list)
    (4, 2)
    """

    def __init__(
        self,
        network: Any,
        x_train: np.ndarray,
        t_train: np.ndarray,
        x_test: np.ndarray,
        t_test: np.ndarray,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str = "SGD",
        optimizer_param: dict[str, float] | None = None,
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
    ) -> None:
        self.network = network
        self.verbose = verbose
        self.x_train, self.t_train = np.asarray(x_train), np.asarray(t_train)
        self.x_test, self.t_test = np.asarray(x_test), np.asarray(t_test)
        _validation.not_empty("x_train", self.x_train)
        _validation.same_length(self.t_train, self.x_train.shape[0], "t_train", "x_train")
        _validation.same_length(self.t_test, self.x_test.shape[0], "t_test", "x_test")
        self.epochs = _validation.check_count("epochs", epochs)
        self.batch_size = _validation.check_count("mini_batch_size", mini_batch_size)
        if evaluate_sample_num_per_epoch is not None:
            _validation.check_count("evaluate_sample_num_per_epoch", evaluate_sample_num_per_epoch)
        self.evaluate_sample_num_per_epoch = evaluate_sample_num_per_epoch
        kind = _OPTIMIZERS[_validation.check_choice("optimizer", optimizer, list(_OPTIMIZERS))]
        self.optimizer = kind(**({"lr": 0.01} if optimizer_param is None else optimizer_param))

        self.train_size = self.x_train.shape[0]
        self.iter_per_epoch = max(self.train_size / self.batch_size, 1)
        self.max_iter = int(self.epochs * self.iter_per_epoch)
        self.current_iter = 0
        self.current_epoch = 0

        self.train_loss_list: list[float] = []
        self.train_acc_list: list[float] = []
        self.test_acc_list: list[float] = []

    def train_step(self) -> None:
        """One step, and the accuracies where an epoch begins."""
        batch = np.random.choice(self.train_size, self.batch_size)
        x, t = self.x_train[batch], self.t_train[batch]
        self.optimizer.update(self.network.params, self.network.gradient(x, t))
        loss = self.network.loss(x, t)
        self.train_loss_list.append(loss)
        if self.verbose:
            print(f"train loss:{loss}")
        if self.current_iter % self.iter_per_epoch == 0:
            self.current_epoch += 1
            rows = slice(self.evaluate_sample_num_per_epoch)
            train_acc = self.network.accuracy(self.x_train[rows], self.t_train[rows])
            test_acc = self.network.accuracy(self.x_test[rows], self.t_test[rows])
            self.train_acc_list.append(train_acc)
            self.test_acc_list.append(test_acc)
            if self.verbose:
                print(f"=== epoch:{self.current_epoch}, train acc:{train_acc}, test acc:{test_acc} ===")
        self.current_iter += 1

    def train(self) -> None:
        """All the steps, then the accuracy on the test data."""
        for _ in range(self.max_iter):
            self.train_step()
        test_acc = self.network.accuracy(self.x_test, self.t_test)
        if self.verbose:
            print("=============== Final Test Accuracy ===============")
            print(f"test acc:{test_acc}")
