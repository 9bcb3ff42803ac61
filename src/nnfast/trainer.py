"""What training reports, epoch by epoch, and the book's `Trainer`. The loop of `Network.fit` is in _fit.py."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _validation, plots
from nnfast.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, Optimizer, RMSprop

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnfast.network import Network

__all__ = [
    "SGD", "AdaGrad", "Adam", "Epoch", "History", "Momentum", "Nesterov", "RMSprop", "Step", "Trainer", "np",
]


@dataclass(frozen=True)
class Step:
    """What a callback is told after a step.

    Attributes
    ----------
    number : int
        This step, counted from 1 in the fit.
    epoch : int
        The epoch that it is in, counted from 1.
    loss : float
        Mean over its batch, penalty included, before its update.
    network : Network
        The network, with the weights after it.

    Examples
    --------
    >>> Step(1, 1, 0.25, None)
    Step(number=1, epoch=1, loss=0.25)
    """

    number: int
    epoch: int
    loss: float
    network: "Network" = field(repr=False)


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
    metrics : dict of str to float
        What `fit`'s metrics gave for the validation data.

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
    metrics: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"loss {self.loss:.4f}"]
        if self.accuracy is not None:
            parts.append(f"accuracy {self.accuracy:.4f}")
        if self.validation_loss is not None:
            parts.append(f"validation loss {self.validation_loss:.4f}")
        if self.validation_accuracy is not None:
            parts.append(f"validation accuracy {self.validation_accuracy:.4f}")
        parts += [f"{name} {value:.4f}" for name, value in self.metrics.items()]
        parts.append(f"{self.examples_per_second:,.0f} examples/s")
        return f"epoch {self.number:>{len(str(self.epochs))}}/{self.epochs}: {', '.join(parts)}"


@dataclass
class History:
    """A value an epoch of what training saw; the fields are those of `Epoch`, empty where they mean nothing.

    Attributes
    ----------
    loss, accuracy, validation_loss, validation_accuracy, seconds : list of float
        By epoch.
    metrics : dict of str to list of float
        Likewise, by the names that `fit` was given.
    best_epoch : int or None
        The best one, counted from 1, if there was an `EarlyStopping`.

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
    metrics: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int | None = None

    def append(self, epoch: Epoch) -> None:
        """Add an epoch's values.

        Parameters
        ----------
        epoch : Epoch
            As a callback gets it.
        """
        for name in ("loss", "accuracy", "validation_loss", "validation_accuracy", "seconds"):
            value = getattr(epoch, name)
            if value is not None:
                getattr(self, name).append(value)
        for name, value in epoch.metrics.items():
            self.metrics.setdefault(name, []).append(value)

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
