"""A network made ready for one kind of call, many times over."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _threads, _validation
from nnfast._kernels import kernels

if TYPE_CHECKING:
    from nnfast.network import Network

__all__ = ["Predictor"]


def _does_nothing(*_: Any) -> bool:
    """Stands for the kernel where a network must run layer by layer: every call goes the long way."""
    return False


class Predictor:
    """Scores of a network for up to `batch_size` rows at a time; made by `Network.predictor`.

    It does what `Network.predict` does, with everything that can be done beforehand done: the layers are looked at
    and memory is allocated once. It reads the layers' own arrays, so it gives what the network has learnt by then,
    also after ``fit`` or ``params["W1"] = ...``. Layers or arrays that are put in the place of others need a new
    predictor.

    One Python thread at a time may call it: it has one set of buffers.

    Parameters
    ----------
    network : Network
        Of any layers; one with a layer written in Python is called layer by layer, and gains nothing.
    batch_size : int
        Rows of the largest batch, at least 1.

    Attributes
    ----------
    network : Network
    batch_size : int

    Examples
    --------
    >>> import numpy as np
    >>> from nnfast import Affine, Network, Relu
    >>> network = Network([Affine(4, 64), Relu(), Affine(64, 2)], seed=0)
    >>> predictor = network.predictor()
    >>> state, scores = np.ones((1, 4), np.float32), np.empty((1, 2), np.float32)
    >>> predictor(state, scores) is scores
    True
    """

    def __init__(self, network: "Network", batch_size: int) -> None:
        self.network = network
        self.batch_size = _validation.check_count("batch_size", batch_size)
        chain = network._chain()
        self._chain = chain if chain is not None and chain.is_live else None
        self._threads, self._y_shape, self._dtype = 1, (0, 0), network.dtype
        self._infer: Callable[..., bool] = _does_nothing
        if self._chain is not None:
            self._threads, self._y_shape = self._chain.threads(self.batch_size), (self.batch_size, self._chain.outputs)
            ours = kernels(network.dtype)
            scratch = ours.Scratch(np.empty(self._chain.scratch_size(self.batch_size, self._threads), np.uint8))
            self._infer = partial(ours.infer, self._chain.stages, scratch)

    def __call__(self, x: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
        """Scores of the last layer, before softmax or sigmoid.

        Parameters
        ----------
        x : array_like
            Inputs, shape (B, I), B at most `batch_size`.
        out : ndarray, optional
            Where to put them, shape (B, O), of the network's dtype; a new array if not given. A contiguous one is
            filled directly.

        Returns
        -------
        ndarray
            `out`, or the new array, shape (B, O).

        Raises
        ------
        TypeError
            If `x` does not hold real numbers, or `out` is not an array of the network's dtype.
        ValueError
            If `x` has too many rows, a row has not I values, or `out` has another shape or is read-only.
        """
        try:
            y = np.empty(self._y_shape, self._dtype) if out is None else out
            # What is unusual is refused by the kernel or its memoryviews, and takes the long way.
            if self._infer(x, y, self.batch_size,
                           1 if self._threads == 1 else min(self._threads, _threads.get_num_threads())):
                return y
        except (TypeError, ValueError):
            pass
        rows = _validation.at_most_rows(self.network._input(x), self.batch_size)
        return self.network._scores(rows, out, self._chain)
