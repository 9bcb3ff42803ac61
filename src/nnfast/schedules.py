"""Learning rates that change during a fit: factors of the optimiser's `lr`, step by step.

A schedule is called with the position of each step, counted in epochs since the fit began (0.5 is in the middle of the
first one), and with the number of epochs that there are to be; it gives a factor for each position. Any function of the
kind is one. The optimiser's own `lr` stays as it is. One with a method `observe` is shown every epoch that is over; each
fit works with a copy of such a one, as it was given.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _fit_validation, _validation
from nnfast._monitor import Best

if TYPE_CHECKING:
    from nnfast.trainer import Epoch

__all__ = ["Cosine", "Exponential", "InverseScaling", "OnPlateau", "OneCycle", "Schedule", "StepDecay", "WarmUp"]

Schedule = Callable[[np.ndarray, int], np.ndarray]
"""What `fit` takes: positions (S,) in epochs and the number of epochs give factors (S,), finite and at least 0."""


class StepDecay:
    """A factor that is multiplied by `decay` after every so many epochs.

    Parameters
    ----------
    every : int
        Epochs, at least 1.
    decay : float, default 0.1
        At least 0.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> StepDecay(10, 0.5)(np.array([0.0, 9.9, 10.0, 20.0]), 30)
    array([1.  , 1.  , 0.5 , 0.25])
    """

    def __init__(self, every: int, decay: float = 0.1) -> None:
        self.every = _validation.check_count("every", every)
        self.decay = _validation.check_number("decay", decay, 0)

    def __call__(self, epoch: np.ndarray, epochs: int) -> np.ndarray:
        """Factors at positions `epoch` (S,) of a fit of so many epochs."""
        return np.asarray(self.decay ** np.floor(np.asarray(epoch) / self.every))


class Exponential:
    """decay**epoch, step by step.

    Parameters
    ----------
    decay : float
        Factor after one epoch, above 0.

    Raises
    ------
    TypeError, ValueError
        If `decay` does not fit.

    Examples
    --------
    >>> Exponential(0.5)(np.array([0.0, 1.0, 2.0]), 3)
    array([1.  , 0.5 , 0.25])
    """

    def __init__(self, decay: float) -> None:
        self.decay = _validation.above_zero("decay", decay)

    def __call__(self, epoch: np.ndarray, epochs: int) -> np.ndarray:
        """Factors at positions `epoch` (S,) of a fit of so many epochs."""
        return np.asarray(self.decay ** np.asarray(epoch, float))


class InverseScaling:
    """1 / (1 + epoch)**power, step by step.

    Parameters
    ----------
    power : float, default 0.5
        At least 0.

    Raises
    ------
    TypeError, ValueError
        If `power` does not fit.

    Examples
    --------
    >>> InverseScaling()(np.array([0.0, 3.0]), 4)
    array([1. , 0.5])
    """

    def __init__(self, power: float = 0.5) -> None:
        self.power = _validation.check_number("power", power, 0)

    def __call__(self, epoch: np.ndarray, epochs: int) -> np.ndarray:
        """Factors at positions `epoch` (S,) of a fit of so many epochs."""
        return np.asarray((1 + np.asarray(epoch, float)) ** -self.power)


class Cosine:
    """From 1 down to `floor` over the whole fit, along half a wave of the cosine (Loshchilov and Hutter, 2017).

    Parameters
    ----------
    floor : float, default 0.0
        Between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        If `floor` does not fit.

    Examples
    --------
    >>> Cosine()(np.array([0.0, 5.0, 10.0]), 10)
    array([1. , 0.5, 0. ])
    """

    def __init__(self, floor: float = 0.0) -> None:
        self.floor = _validation.check_number("floor", floor, 0, 1)

    def __call__(self, epoch: np.ndarray, epochs: int) -> np.ndarray:
        """Factors at positions `epoch` (S,) of a fit of so many epochs."""
        return _along_cosine(1, self.floor, np.asarray(epoch, float) / epochs)


class OneCycle:
    """Up to 1 and down again over the whole fit, along two half waves (the 1cycle policy of Smith and Topin, 2017).

    The optimiser's `lr` is the largest one. The defaults are those of PyTorch's OneCycleLR, whose top and end come one step
    earlier.

    Parameters
    ----------
    rise : float, default 0.3
        Part of the fit until the top, above 0 and below 1.
    start : float, default 0.04
        First factor, between 0 and 1.
    end : float, default 4e-6
        Last one.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> OneCycle(start=0.5, end=0.0)(np.array([0.0, 3.0, 6.5, 10.0]), 10)
    array([0.5, 1. , 0.5, 0. ])
    """

    def __init__(self, rise: float = 0.3, start: float = 0.04, end: float = 4e-6) -> None:
        self.rise = _validation.check_number("rise", rise, float(np.nextafter(0, 1)), float(np.nextafter(1, 0)))
        self.start = _validation.check_number("start", start, 0, 1)
        self.end = _validation.check_number("end", end, 0, 1)

    def __call__(self, epoch: np.ndarray, epochs: int) -> np.ndarray:
        """Factors at positions `epoch` (S,) of a fit of so many epochs."""
        part = np.asarray(epoch, float) / epochs
        up = _along_cosine(self.start, 1, part / self.rise)
        down = _along_cosine(1, self.end, (part - self.rise) / (1 - self.rise))
        return np.where(part < self.rise, up, down)


class WarmUp:
    """From `start` up to 1 in a straight line, then what `then` gives for the rest of the fit.

    Parameters
    ----------
    epochs : float
        How long, above 0; may be a part of an epoch.
    then : schedule, optional
        For the rest, as if that was the whole fit; 1 if not given.
    start : float, default 0.1
        First factor, between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> WarmUp(2, Cosine(), start=0.5)(np.array([0.0, 1.0, 2.0, 6.0, 10.0]), 10)
    array([0.5 , 0.75, 1.  , 0.5 , 0.  ])
    """

    def __init__(self, epochs: float, then: Schedule | None = None, start: float = 0.1) -> None:
        self.epochs = _validation.above_zero("epochs", epochs)
        self.then: Any = None if then is None else _fit_validation.schedule("then", then)
        self.start = _validation.check_number("start", start, 0, 1)

    def __call__(self, epoch: np.ndarray, epochs: int) -> np.ndarray:
        """Factors at positions `epoch` (S,) of a fit of so many epochs."""
        position = np.asarray(epoch, float)
        rising = self.start + (1 - self.start) * position / self.epochs
        if self.then is None:
            return np.minimum(rising, 1)
        later = self.then(np.maximum(position - self.epochs, 0), max(epochs - self.epochs, np.finfo(float).tiny))
        return np.where(position < self.epochs, rising, later)

    @property
    def observe(self) -> Callable[["Epoch"], None]:
        """That of `then`; there is none if it has none."""
        observe: Callable[[Epoch], None] = self.then.observe
        return observe


class OnPlateau:
    """A factor that is multiplied by `decay` whenever so many epochs have brought nothing better.

    Parameters
    ----------
    monitor : str, default "validation_loss"
        Which value of an `Epoch`; or the name of one of `fit`'s metrics.
    decay : float, default 0.1
        At least 0.
    patience : int, default 10
        Epochs without anything better, at least 1.
    min_delta : float, default 0.0
        How much better is better, at least 0.
    mode : {"auto", "min", "max"}, default "auto"
        Whether less or more is better; "auto" takes more only of what ends with "accuracy".
    floor : float, default 0.0
        Smallest factor, between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> from nnfast import Affine, Network
    >>> network = Network([Affine(2, 2)], seed=0)
    >>> schedule = OnPlateau("loss", decay=0.5, patience=2)
    >>> history = network.fit(np.ones((4, 2)), np.zeros(4, int), epochs=5, schedule=schedule)
    >>> len(history.loss)
    5
    """

    def __init__(
        self, monitor: str = "validation_loss", decay: float = 0.1, patience: int = 10, min_delta: float = 0.0,
        mode: str = "auto", floor: float = 0.0,
    ) -> None:
        self.decay = _validation.check_number("decay", decay, 0)
        self.floor = _validation.check_number("floor", floor, 0, 1)
        self.patience = _validation.check_count("patience", patience)
        self.best = Best(monitor, min_delta, mode)
        self.factor = 1.0

    def __call__(self, epoch: np.ndarray, epochs: int) -> np.ndarray:
        """The factor that holds now, for all positions `epoch` (S,)."""
        return np.full(np.shape(epoch), self.factor)

    def observe(self, epoch: "Epoch") -> None:
        """Look at an epoch that is over.

        Parameters
        ----------
        epoch : Epoch
            As a callback gets it.
        """
        self.best.observe(epoch)
        if self.best.waited >= self.patience:
            self.factor = max(self.factor * self.decay, self.floor)
            self.best.waited = 0


def _along_cosine(first: float, last: float, part: np.ndarray) -> np.ndarray:
    """From first to last, where a part of the way is covered: half a wave."""
    return np.asarray(last + (first - last) * (1 + np.cos(np.pi * np.clip(part, 0, 1))) / 2)
