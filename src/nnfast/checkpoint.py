"""Where a fit keeps what it needs to go on, and how often."""

import os

from nnfast import _files, _validation

__all__ = ["Checkpoint"]


class Checkpoint:
    """Keep a fit in a file while it runs, from which ``fit(..., resume=...)`` goes on as if it had never stopped.

    The file is written after so many epochs, or when so many seconds are over, whichever comes first; when the fit
    ends; and where a time budget or a step's callback ends it within an epoch. It takes the place of the one before when
    it is finished: at every moment, also if the process is killed, a whole one is there. It holds the network as
    `Network.save` keeps it, so that `Network.load` reads it, and besides what the optimiser keeps, the random generators,
    the place in the order of the rows, the history, and what early stopping and a schedule have learned. The best weights
    of an early stopping are beside those of the last epoch, which are the ones that `Network.load` gives.

    Parameters
    ----------
    path : str or os.PathLike
        Where to, extension included: an ``.npz``.
    every : int, optional
        Epochs, at least 1; 1 if neither number is given.
    seconds : float, optional
        Above 0. The file is then also written within an epoch, after the step that runs when they are over.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from nnfast import Affine, Network
    >>> x, t = np.eye(4), np.arange(4) % 2
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "fit.npz")
    ...     history = Network([Affine(4, 2)], seed=0).fit(x, t, epochs=3, checkpoint=Checkpoint(path))
    ...     history = Network([Affine(4, 2)]).fit(x, t, epochs=5, resume=path)
    >>> len(history.loss)
    5
    """

    def __init__(self, path: str | os.PathLike[str], every: int | None = None, seconds: float | None = None) -> None:
        self.path = _files.as_path("path", path)
        if self.path.suffix == ".safetensors":
            raise ValueError(f"path is {self.path}, but a checkpoint is an .npz: name it so")
        if every is None and seconds is None:
            every = 1
        self.every = None if every is None else _validation.check_count("every", every)
        self.seconds = None if seconds is None else _validation.above_zero("seconds", seconds)
