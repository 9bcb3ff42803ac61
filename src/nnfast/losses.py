"""Output layers: an output function and its loss in one, so that the gradient is often the plain difference y - t.

Each has ``forward(x, t)``, which returns the loss and keeps ``y``, ``t`` and ``loss``, and ``backward(dout=1)``. A
loss is summed in float64 and is a mean over the examples of the batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _threads, _validation
from nnfast._kernels import kernels
from nnfast._memory import Recycler
from nnfast._recall import Recalling

__all__ = [
    "AbsoluteError",
    "FunctionLoss",
    "HuberLoss",
    "IdentityWithLoss",
    "PoissonLoss",
    "QuantileLoss",
    "SigmoidWithLoss",
    "SoftmaxWithLoss",
]


class _OutputLayer(Recalling):
    """What the output layers share. A subclass prepares targets and calls its kernels."""

    _remembered = ("y", "_targets", "row_losses")

    #: Whether `count_correct` means something.
    is_classifier = True

    _operation = ""     # of compiled code
    _setting = ""       # name of the attribute that it is made from, if there is one

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

    def _described(self, outputs: int) -> tuple[float, np.ndarray | None]:
        """What an operation must know besides: a number, or float64 (O,)."""
        return 0.0, None

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
        """Gradient of the loss with respect to the scores, times `dout`.

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
    The gradient is (y - t) / B.

    Parameters
    ----------
    label_smoothing : float, default 0
        At least 0 and below 1. Above 0 each one-hot row t counts as t * (1 - label_smoothing) + label_smoothing / C
        (C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016), and the loss is computed
        from the scores, without the 1e-7.

    Attributes
    ----------
    y : ndarray or None
        Probabilities (B, C) of the last forward pass.
    t : array_like or None
        Its targets, as they were given.
    loss : float or None
        Its loss.

    Raises
    ------
    TypeError, ValueError
        If `label_smoothing` is not such a number.

    Examples
    --------
    >>> output = SoftmaxWithLoss()
    >>> scores = np.log([[0.3, 0.2, 0.5]])
    >>> round(output.forward(scores, np.array([[0, 1, 0]])), 4)
    1.6094
    >>> output.backward()
    array([[ 0.3, -0.8,  0.5]])
    """

    _operation, _setting = "SOFTMAX_LOSS", "label_smoothing"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = _validation.smoothing("label_smoothing", label_smoothing)

    def prepare(self, t: ArrayLike, batch_size: int, outputs: int, dtype: np.dtype) -> np.ndarray:
        """Labels (B,)."""
        return _validation.labels(t, batch_size, outputs)

    def _described(self, outputs: int) -> tuple[float, np.ndarray | None]:
        return self.label_smoothing, None

    def _losses(self, x: np.ndarray, targets: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, float]:
        y = self._outputs.empty(x.shape, x.dtype)
        threads = _threads.for_elements(4 * x.size)
        compiled = kernels(x.dtype)
        if self.label_smoothing:
            compiled.softmax_forward(x, y, threads)
            return y, compiled.smoothed_cross_entropy(x, y, targets, losses, self.label_smoothing, threads)
        total = compiled.softmax_cross_entropy_forward(x, targets, y, losses, threads)
        return y, total

    def _gradient(self, y: np.ndarray, targets: np.ndarray, dout: float) -> np.ndarray:
        dx = self._gradients.empty(y.shape, y.dtype)
        compiled, threads = kernels(y.dtype), _threads.for_elements(y.size)
        if self.label_smoothing:
            compiled.smoothed_cross_entropy_backward(y, targets, dx, self.label_smoothing, dout, threads)
        else:
            compiled.softmax_cross_entropy_backward(y, targets, dx, dout, threads)
        return dx

    def count_correct(self, x: np.ndarray, targets: np.ndarray) -> int:
        """Rows whose largest score is the label's."""
        return int(kernels(x.dtype).count_correct(x, targets))


class SigmoidWithLoss(_OutputLayer):
    """Sigmoid and cross-entropy error, for yes-or-no answers: one (binary) or several (multi-label).

    The loss is the mean over the examples of sum(-t log(y) - (1 - t) log(1 - y)), computed from the scores so that
    it is finite for every finite score. Targets lie between 0 and 1 and have shape (B, O), or (B,) where O is 1.
    A row counts as classified right when every output is on the right side of one half. The gradient is (y - t) / B.

    Parameters
    ----------
    label_smoothing : float, default 0
        At least 0 and below 1. A target t counts as t * (1 - label_smoothing) + label_smoothing / 2.

    Attributes
    ----------
    y : ndarray or None
        Probabilities (B, O) of the last forward pass.
    t : array_like or None
        Its targets, as they were given.
    loss : float or None
        Its loss.

    Raises
    ------
    TypeError, ValueError
        If `label_smoothing` is not such a number.

    Examples
    --------
    >>> output = SigmoidWithLoss()
    >>> round(output.forward(np.array([[0.0], [2.0]]), np.array([1, 1])), 4)
    0.41
    >>> output.backward().round(4)
    array([[-0.25  ],
           [-0.0596]])
    """

    _operation, _setting = "SIGMOID_LOSS", "label_smoothing"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = _validation.smoothing("label_smoothing", label_smoothing)

    def prepare(self, t: ArrayLike, batch_size: int, outputs: int, dtype: np.dtype) -> np.ndarray:
        """Targets (B, O) between 0 and 1, smoothed."""
        return self._smoothed(_validation.probabilities(t, batch_size, outputs, dtype))

    def _smoothed(self, targets: np.ndarray) -> np.ndarray:
        # One half stays one half, and what is above it above.
        return targets + self.label_smoothing * (0.5 - targets) if self.label_smoothing else targets

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
    O is 1. The gradient is (y - t) / B.

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
    _operation = "IDENTITY_LOSS"

    def prepare(self, t: ArrayLike, batch_size: int, outputs: int, dtype: np.dtype) -> np.ndarray:
        """Targets (B, O)."""
        return _validation.targets(t, batch_size, outputs, dtype)

    def _losses(self, x: np.ndarray, targets: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, float]:
        total = kernels(x.dtype).squared_error(x, targets, losses, _threads.for_elements(x.size))
        return x, total

    def _gradient(self, y: np.ndarray, targets: np.ndarray, dout: float) -> np.ndarray:
        return _difference(y, targets, dout, self._gradients)


class _ResidualLoss(_OutputLayer):
    """Identity, and a loss of the residuals y - t: what some losses for regression share."""

    is_classifier = False

    def prepare(self, t: ArrayLike, batch_size: int, outputs: int, dtype: np.dtype) -> np.ndarray:
        """Targets (B, O)."""
        return _validation.targets(t, batch_size, outputs, dtype)

    def _parameters(self, outputs: int) -> np.ndarray:
        """Of each output, (O,) of float64."""
        return np.zeros(outputs)

    def _described(self, outputs: int) -> tuple[float, np.ndarray | None]:
        return 0.0, self._parameters(outputs)

    def _losses(self, x: np.ndarray, targets: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, float]:
        compiled, threads = kernels(x.dtype), _threads.for_elements(x.size)
        code = compiled.OPERATION_CODES[self._operation]
        return x, compiled.residual_losses(x, targets, self._parameters(x.shape[1]), losses, code, threads)

    def _gradient(self, y: np.ndarray, targets: np.ndarray, dout: float) -> np.ndarray:
        dx = self._gradients.empty(y.shape, y.dtype)
        compiled, threads = kernels(y.dtype), _threads.for_elements(y.size)
        code = compiled.OPERATION_CODES[self._operation]
        compiled.residual_losses_backward(y, targets, self._parameters(y.shape[1]), dx, code, dout, threads)
        return dx


class AbsoluteError(_ResidualLoss):
    """Identity and absolute error, for regression where few targets may be far off: the mean of sum(abs(y - t)).

    Targets have shape (B, O), or (B,) where O is 1. The gradient is sign(y - t) / B, 0 where y is t. A network that
    minimises it gives the median.

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
    >>> output = AbsoluteError()
    >>> output.forward(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 1.0], [5.0, 4.0]]))
    1.5
    >>> output.backward()
    array([[ 0. ,  0.5],
           [-0.5,  0. ]])
    """

    _operation = "ABSOLUTE_LOSS"


class HuberLoss(_ResidualLoss):
    """Identity and Huber's loss, for regression: squared error near the target, absolute error far from it.

    The mean of sum(h(y - t)), where h(d) is d**2 / 2 up to `delta` and delta * (abs(d) - delta / 2) beyond (P. J. Huber,
    "Robust Estimation of a Location Parameter", 1964). Targets have shape (B, O), or (B,) where O is 1. The gradient is
    y - t, limited to `delta` on either side, over B.

    Parameters
    ----------
    delta : float, default 1.0
        Above 0.

    Attributes
    ----------
    y : ndarray or None
        Outputs (B, O) of the last forward pass, equal to its scores.
    t : array_like or None
        Its targets, as they were given.
    loss : float or None
        Its loss.

    Raises
    ------
    TypeError, ValueError
        If `delta` is not such a number.

    Examples
    --------
    >>> output = HuberLoss(delta=2.0)
    >>> output.forward(np.array([[1.0], [7.0]]), np.array([0.0, 3.0]))
    3.25
    >>> output.backward()
    array([[0.5],
           [1. ]])
    """

    _operation, _setting = "HUBER_LOSS", "delta"

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = _validation.above_zero("delta", delta)

    def _parameters(self, outputs: int) -> np.ndarray:
        return np.full(outputs, self.delta, np.float64)


class QuantileLoss(_ResidualLoss):
    """Identity and the quantile ("pinball") loss, for regression: of a quantile, or of several by one network.

    The mean of sum(q * max(t - y, 0) + (1 - q) * max(y - t, 0)): a network that minimises it gives the value below which
    a share q of the targets lies (R. Koenker and G. Bassett, "Regression Quantiles", 1978). Targets have shape (B, O), or
    (B,) where O is 1; (B,) and (B, 1) are compared with every output where there is a quantile for each. The gradient is
    (1 - q) / B where y is above t, -q / B below, and 0 where y is t.

    Parameters
    ----------
    quantile : float or sequence of float, default 0.5
        Between 0 and 1, for all outputs, or one for each.

    Attributes
    ----------
    y : ndarray or None
        Outputs (B, O) of the last forward pass, equal to its scores.
    t : array_like or None
        Its targets, as they were given.
    loss : float or None
        Its loss.

    Raises
    ------
    TypeError, ValueError
        If `quantile` is neither such a number nor a sequence of them.

    Examples
    --------
    >>> output = QuantileLoss([0.25, 0.5, 0.75])
    >>> output.forward(np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]), np.array([2.0, 9.0]))
    3.25
    >>> output.backward()
    array([[-0.125,  0.   ,  0.125],
           [-0.125, -0.25 , -0.375]])
    """

    _operation, _setting = "QUANTILE_LOSS", "quantile"

    def __init__(self, quantile: float | Sequence[float] = 0.5) -> None:
        super().__init__()
        self.quantile = _validation.quantile("quantile", quantile)

    def prepare(self, t: ArrayLike, batch_size: int, outputs: int, dtype: np.dtype) -> np.ndarray:
        """Targets (B, O)."""
        if np.ndim(self.quantile):
            _validation.one_for_each_output("quantile", self.quantile, outputs)
            t = _validation.numbers("t", t)
            if outputs > 1 and t.shape in ((batch_size,), (batch_size, 1)):
                t = np.broadcast_to(t.reshape(batch_size, 1), (batch_size, outputs))
        return super().prepare(t, batch_size, outputs, dtype)

    def _parameters(self, outputs: int) -> np.ndarray:
        return np.array(np.broadcast_to(self.quantile, outputs), np.float64)


class PoissonLoss(_OutputLayer):
    """Exponential function and half of Poisson's deviance, for counts and rates, which are never negative.

    The mean of sum(t * log(t / y) - t + y) with y = exp(scores), computed from the scores; t * log(t / y) is 0 where t
    is. That is scikit-learn's `loss="poisson"`. Targets are at least 0 and have shape (B, O), or (B,) where O is 1. The
    gradient is (y - t) / B. `Network.predict` gives scores, so that ``np.exp(network.predict(x))`` are the means; rates
    over unequal times are trained with the rates as targets and the times as weights of the rows.

    Attributes
    ----------
    y : ndarray or None
        Means (B, O) of the last forward pass.
    t : array_like or None
        Its targets, as they were given.
    loss : float or None
        Its loss.

    Examples
    --------
    >>> output = PoissonLoss()
    >>> round(output.forward(np.log([[2.0], [1.0]]), np.array([2, 0])), 12)
    0.5
    >>> output.backward()
    array([[0. ],
           [0.5]])
    """

    is_classifier = False
    _operation = "POISSON_LOSS"

    def prepare(self, t: ArrayLike, batch_size: int, outputs: int, dtype: np.dtype) -> np.ndarray:
        """Targets (B, O) of at least 0."""
        return _validation.at_least_zero(t, batch_size, outputs, dtype)

    def _losses(self, x: np.ndarray, targets: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, float]:
        y = self._outputs.empty(x.shape, x.dtype)
        threads = _threads.for_elements(16 * x.size)
        return y, kernels(x.dtype).poisson_deviance_forward(x, targets, y, losses, threads)

    def _gradient(self, y: np.ndarray, targets: np.ndarray, dout: float) -> np.ndarray:
        return _difference(y, targets, dout, self._gradients)


class FunctionLoss:
    """A loss of your own as a function of the scores, which gives the losses of the rows and their gradients.

    `Network` makes one of a plain function that it is given as `loss`. Its network trains layer by layer. There is no
    accuracy: give `fit` a function in `metrics`. `gradient_check` compares the gradients with the losses.

    Parameters
    ----------
    function : callable
        ``function(scores, t)`` returns a pair: losses (B,), and the gradient (B, O) of each row's own loss with respect to
        its scores, or (B,) where O is 1. Neither is divided by B, which comes of the mean over the rows, and all must be
        finite where the scores are. `scores` is an array (B, O) of the network's dtype, and `t` the targets of the same
        rows as an array of whatever shape and dtype they were given in, NaN included; both are copies.

    Attributes
    ----------
    function : callable
        As it was given.
    y : ndarray or None
        Scores (B, O) of the last forward pass.
    t : array_like or None
        Its targets, as they were given.
    loss : float or None
        Its loss.
    row_losses : ndarray of float64 or None
        Of its rows.

    Raises
    ------
    TypeError
        If `function` cannot be called.

    Examples
    --------
    Where a target is NaN, this one leaves it out:

    >>> def of_known_targets(scores, t):
    ...     difference = np.where(np.isnan(t), 0, scores - t)
    ...     return 0.5 * (difference**2).sum(axis=1), difference
    >>> output = FunctionLoss(of_known_targets)
    >>> output.forward(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, np.nan], [1.0, 4.0]]))
    1.0
    >>> output.backward()
    array([[0., 0.],
           [1., 0.]])
    """

    #: There is no accuracy.
    is_classifier = False

    def __init__(self, function: Callable[[np.ndarray, np.ndarray], tuple[ArrayLike, ArrayLike]]) -> None:
        self.function = _validation.loss_function("function", function)
        self.loss: float | None = None
        self.y: np.ndarray | None = None
        self.t: ArrayLike | None = None
        self.row_losses: np.ndarray | None = None
        self._gradient: np.ndarray | None = None

    @property
    def name(self) -> str:
        """Of the function."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def forward(self, x: ArrayLike, t: ArrayLike) -> float:
        """The mean of what the function gives for the scores `x` and the targets `t`; keeps what `backward` needs.

        Parameters
        ----------
        x : array_like
            Scores of the last layer, shape (B, O).
        t : array_like
            Targets, with a row for each of `x`.

        Returns
        -------
        float
            Mean over the examples, summed in float64.

        Raises
        ------
        TypeError
            If `x` does not hold real numbers, or the function does not return a pair of arrays of them.
        ValueError
            If the shapes do not fit, or the batch is empty.
        FloatingPointError
            If the function returns NaN or infinity for finite scores.
        """
        scores = _validation.not_empty("x", _validation.floats("x", _validation.row_shaped(
            "x", _validation.numbers("x", x), None, "")))
        targets = np.asarray(t)
        _validation.same_length(targets, scores.shape[0])
        returned = self.function(scores.copy(), targets.copy())
        self.row_losses, self._gradient = _validation.losses_and_gradients(returned, scores, self.name)
        self.y, self.t, self.loss = scores, t, float(self.row_losses.sum()) / scores.shape[0]
        return self.loss

    def backward(self, dout: float = 1) -> np.ndarray:
        """Gradient of the loss with respect to the scores: what the function gave, over B, times `dout`.

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
        _validation.needs_forward(self._gradient, self)
        gradient: Any = self._gradient
        return gradient / gradient.shape[0] * _validation.check_number("dout", dout)  # type: ignore[no-any-return]


def _difference(y: np.ndarray, targets: np.ndarray, dout: float, memory: Recycler) -> np.ndarray:
    """(y - t) / B * dout."""
    dx = memory.empty(y.shape, y.dtype)
    threads = _threads.for_elements(y.size)
    kernels(y.dtype).difference_backward(
        y.reshape(-1), targets.reshape(-1), dx.reshape(-1), float(y.shape[0]), dout, threads
    )
    return dx
