"""When to stop a fit, and with which weights."""

from nnfast import _validation
from nnfast._monitor import Best

__all__ = ["EarlyStopping"]


class EarlyStopping:
    """Stop a fit when so many epochs have brought nothing better, and go back to the best weights.

    Parameters
    ----------
    monitor : str, default "validation_loss"
        Which value of an `Epoch`: loss, accuracy, validation_loss or validation_accuracy; or the name of one of `fit`'s
        metrics.
    patience : int, default 10
        Epochs without anything better, at least 1.
    min_delta : float, default 0.0
        How much better is better, at least 0.
    mode : {"auto", "min", "max"}, default "auto"
        Whether less or more is better; "auto" takes more only of what ends with "accuracy".
    restore_best : bool, default True
        Whether the network has the weights of the best epoch in the end, also when all epochs were trained or the time was
        over; otherwise those of the last one.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from nnfast import Affine, Network
    >>> network = Network([Affine(2, 2)], seed=0)
    >>> x, t = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 1])
    >>> stopping = EarlyStopping(patience=3)
    >>> history = network.fit(x, t, epochs=1000, validation_data=(x, 1 - t), early_stopping=stopping)
    >>> history.best_epoch, len(history.loss)
    (1, 4)
    """

    def __init__(
        self, monitor: str = "validation_loss", patience: int = 10, min_delta: float = 0.0, mode: str = "auto",
        restore_best: bool = True,
    ) -> None:
        self.best = Best(monitor, min_delta, mode)
        self.patience = _validation.check_count("patience", patience)
        self.restore_best = bool(restore_best)
