"""Output layers: an output function and its loss in one, so that the gradient is the plain difference y - t.

Each has ``forward(x, t)``, which returns the loss and keeps ``y``, ``t`` and ``loss``, and ``backward(dout=1)``. A
loss is summed in float64 and is a mean over the examples of the batch.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _threads, _validation
from nnfast._kernels import kernels
from nnfast._memory import Recycler
from nnfast._recall import Recalling

__all__ = ["IdentityWithLoss", "SigmoidWithLoss", "SoftmaxWithLoss"]


class _OutputLayer(Recalling):
    """What the output layers share. A subclass prepares targets and calls its kernels."""

    _remembered = ("y", "_targets", "row_losses")

    #: Whether `count_correct` means something.
    is_classifier = True

    def __init__(self) -> None:
        self.loss: float | None = None
        self.y: np.ndarray | None = None
        self.t: ArrayLike | None = None
        self._targets: np.ndarray | None = None
        self.row_losses: np.ndarray | None = None   # of the last call of forward_prepared
        self._outputs, self._gradients = Recycler(), Recycler()

    def prepare(self, t: ArrayLike, batch_size: int, outputs: int, dtype: np.dtype) -> np.ndarray:
        """Targets checked and converted once, as `forward_prepared` takes them."""
        raise NotImplementedError

    def _losses(self, x: np.ndarray, targets: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, float]:
        """The output (B, O) and the sum of the rows' losses, which are written to losses (B,)."""
        raise NotImplementedError

    def _gradient(self, y: np.ndarray, targets: np.ndarray, dout: float) -> np.ndarray:
        raise NotImplementedError

    def count_correct(self, x: np.ndarray, targets: np.ndarray) -> int:
        """How many rows of scores are classified right."""
        raise NotImplementedError

    def forward(self, x: ArrayLike, t: ArrayLike) -> float:
        """The loss of the scores `x` for the targets `t`; keeps what `backward` needs.

        Parameters
        ----------
        x : array_like
            Scores of the last layer, shape (B, O), or (O,) for one example.
        t : array_like
            Targets, as the class describes them.

        Returns
        -------
        float
            Mean over the examples, summed in float64.

        Raises
        ------
        TypeError
            If an argument does not hold real numbers.
        ValueError
            If the shapes do not fit, the batch is empty, or `t` holds an impossible value.
        """
        scores = _validation.classes_last("x", _validation.floats("x", x))
        one_example = scores.ndim == 1
        if one_example:
            scores = scores.reshape(1, -1)
        elif scores.ndim > 2:
            scores = _validation.row_shaped("x", scores, None, "")
        scores = _validation.not_empty("x", scores)
        batch_size, outputs = scores.shape
        prepared = self.prepare(_validation.one_target("t", t) if one_example else t, batch_size, outputs, scores.dtype)
        loss = self.forward_prepared(scores, prepared)
        self.t = t
        return loss

    def forward_prepared(self, x: np.ndarray, targets: np.ndarray) -> float:
        """`forward` for targets that `prepare` returned, which are not shown as `t`: nobody may change them."""
        self.t, self._targets = None, targets
        self.y = None   # free, unless somebody else holds it
        self.row_losses = np.empty(x.shape[0])
        self.y, total = self._losses(x, targets, self.row_losses)
        self.loss = total / x.shape[0]
        return self.loss

    def backward(self, dout: float = 1) -> np.ndarray:
        """Gradient of the loss with respect to the scores: (y - t) / B, times `dout`.

        Parameters
        ----------
        dout : float, default 1
            Gradient of the final value with respect to this loss.

        Returns
        -------
        ndarray of float32 or float64
            Shape (B, O).

        Raises
        ------
        RuntimeError
            If `forward` was not called before.
        """
        _validation.needs_forward(self.y, self)
        y: Any = self.y
        targets: Any = self._targets
        return self._gradient(y, targets, _validation.check_number("dout", dout))


class SoftmaxWithLoss(_OutputLayer):
    """Softmax and cross-entropy error, for one class out of C (chapter 5.6).

    The loss is -mean(log(y[n, t_n] + 1e-7)); log has an error of at most 2 units in the last place of float64. Targets
    are labels 0 to C - 1 of shape (B,) or (B, 1), of any integer type or whole floats, or one-hot rows of shape (B, C).

    Attributes
    ----------
    y : ndarray or None
        Probabilities (B, C) of the last forward pass.
    t : array_like or None
        Its targets, as they were given.
    loss : float or None
        Its loss.

    Examples
    --------
    >>> output = SoftmaxWithLoss()
    >>> scores = np.log([[0.3, 0.2, 0.5]])
    >>> round(output.forward(scores, np.array([[0, 1, 0]])), 4)
    1.6094
    >>> output.backward()
    array([[ 0.3, -0.8,  0.5]])
    """

    def prepare(self, t: ArrayLike, batch_size: int, outputs: int, dtype: np.dtype) -> np.ndarray:
        """Labels (B,)."""
        return _validation.labels(t, batch_size, outputs)

    def _losses(self, x: np.ndarray, targets: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, float]:
        y = self._outputs.empty(x.shape, x.dtype)
        threads = _threads.for_elements(4 * x.size)
        total = kernels(x.dtype).softmax_cross_entropy_forward(x, targets, y, losses, threads)
        return y, total

    def _gradient(self, y: np.ndarray, targets: np.ndarray, dout: float) -> np.ndarray:
        dx = self._gradients.empty(y.shape, y.dtype)
        kernels(y.dtype).softmax_cross_entropy_backward(y, targets, dx, dout, _threads.for_elements(y.size))
        return dx

    def count_correct(self, x: np.ndarray, targets: np.ndarray) -> int:
        """Rows whose largest score is the label's."""
        return int(kernels(x.dtype).count_correct(x, targets))


class SigmoidWithLoss(_OutputLayer):
    """Sigmoid and cross-entropy error, for yes-or-no answers: one (binary) or several (multi-label).

    The loss is the mean over the examples of sum(-t log(y) - (1 - t) log(1 - y)), computed from the scores so that
    it is finite for every finite score. Targets lie between 0 and 1 and have shape (B, O), or (B,) where O is 1.
    A row counts as classified right when every output is on the right side of one half.

    Attributes
    ----------
    y : ndarray or None
        Probabilities (B, O) of the last forward pass.
    t : array_like or None
        Its targets, as they were given.
    loss : float or None
        Its loss.

    Examples
    --------
    >>> output = SigmoidWithLoss()
    >>> round(output.forward(np.array([[0.0], [2.0]]), np.array([1, 1])), 4)
    0.41
    >>> output.backward().round(4)
    array([[-0.25  ],
           [-0.0596]])
    """

    def prepare(self, t: ArrayLike, batch_size: int, outputs: int, dtype: np.dtype) -> np.ndarray:
        """Targets (B, O) between 0 and 1."""
        return _validation.probabilities(t, batch_size, outputs, dtype)

    def _losses(self, x: np.ndarray, targets: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, float]:
        y = self._outputs.empty(x.shape, x.dtype)
        threads = _threads.for_elements(16 * x.size)
        total = kernels(x.dtype).sigmoid_cross_entropy_forward(x, targets, y, losses, threads)
        return y, total

    def _gradient(self, y: np.ndarray, targets: np.ndarray, dout: float) -> np.ndarray:
        return _difference(y, targets, dout, self._gradients)

    def count_correct(self, x: np.ndarray, targets: np.ndarray) -> int:
        """Rows with every output on the right side of one half."""
        return int(((x > 0) == (targets > 0.5)).all(axis=1).sum())


class IdentityWithLoss(_OutputLayer):
    """Identity and squared error, for regression: the mean over the examples of sum((y - t)**2) / 2.

    That is the book's `sum_squared_error` divided by the size of the batch. Targets have shape (B, O), or (B,) where
    O is 1.

    Attributes
    ----------
    y : ndarray or None
        Outputs (B, O) of the last forward pass, equal to its scores.
    t : array_like or None
        Its targets, as they were given.
    loss : float or None
        Its loss.

    Examples
    --------
    >>> output = IdentityWithLoss()
    >>> output.forward(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 1.0], [1.0, 4.0]]))
    1.25
    >>> output.backward()
    array([[0. , 0.5],
           [1. , 0. ]])
    """

    is_classifier = False

    def prepare(self, t: ArrayLike, batch_size: int, outputs: int, dtype: np.dtype) -> np.ndarray:
        """Targets (B, O)."""
        return _validation.targets(t, batch_size, outputs, dtype)

    def _losses(self, x: np.ndarray, targets: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, float]:
        total = kernels(x.dtype).squared_error(x, targets, losses, _threads.for_elements(x.size))
        return x, total

    def _gradient(self, y: np.ndarray, targets: np.ndarray, dout: float) -> np.ndarray:
        return _difference(y, targets, dout, self._gradients)


def _difference(y: np.ndarray, targets: np.ndarray, dout: float, memory: Recycler) -> np.ndarray:
    """(y - t) / B * dout."""
    dx = memory.empty(y.shape, y.dtype)
    threads = _threads.for_elements(y.size)
    kernels(y.dtype).difference_backward(
        y.reshape(-1), targets.reshape(-1), dx.reshape(-1), float(y.shape[0]), dout, threads
    )
    return dx
