"""A value of the epochs that is watched, and when it was best."""

import math
from typing import TYPE_CHECKING, Any

from nnfast import _fit_validation, _validation

if TYPE_CHECKING:
    from nnfast.trainer import Epoch


class Best:
    """The best value of something so far, and how many epochs ago it was.

    Parameters
    ----------
    monitor : str
        An attribute of `Epoch` that is a number, or the name of a metric.
    min_delta : float
        How much better is better, at least 0.
    mode : {"auto", "min", "max"}
        Whether less or more is better; "auto" takes more only of what ends with "accuracy".

    Attributes
    ----------
    waited : int
        Epochs since the best one.
    epoch : int or None
        Number of the best one.

    Examples
    --------
    >>> Best("validation_accuracy", 0.0, "auto").is_better(0.9)
    True
    """

    def __init__(self, monitor: str, min_delta: float, mode: str) -> None:
        self.monitor = _fit_validation.monitored(monitor)
        self.min_delta = _validation.check_number("min_delta", min_delta, 0)
        mode = _validation.check_choice("mode", mode, ["auto", "min", "max"])
        self.sign = 1 if mode == "max" or (mode == "auto" and monitor.endswith("accuracy")) else -1
        self.value = -math.inf      # times the sign
        self.waited = 0
        self.epoch: int | None = None

    def is_better(self, value: float) -> bool:
        """Whether the value would be the best one; NaN never is."""
        return self.sign * value > self.value + (self.min_delta if self.epoch is not None else 0)

    def observe(self, epoch: "Epoch") -> bool:
        """Look at an epoch that is over.

        Parameters
        ----------
        epoch : Epoch
            As a callback gets it.

        Returns
        -------
        bool
            Whether it is the best one.
        """
        value = monitored(epoch, self.monitor)
        if self.is_better(value):
            self.value, self.waited, self.epoch = self.sign * value, 0, epoch.number
            return True
        self.waited += 1
        return False


def monitored(epoch: "Epoch", name: str) -> float:
    """The value of an epoch that has the name."""
    value: Any = epoch.metrics[name] if name in epoch.metrics else getattr(epoch, name)
    return float(value)
