"""The book's layers: parameters, forward and backward side by side.

Affine, Dropout, BatchNormalization and Rescale are here; `nnfast.activations` and `nnfast.losses` hold the rest. Their
names and those of `nnfast.functions` are here too, so that ``from common.layers import *`` becomes
``from nnfast.layers import *``.

A layer is anything with ``forward(x)`` and ``backward(dout)``; one with parameters also has ``params`` and ``grads``,
dicts from short names ("W") to arrays. The layers here have ``infer(x)`` as well, which leaves no trace.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _forks, _threads, _validation, functions
from nnfast._kernels import kernels
from nnfast._memory import Recycler, product_workspace
from nnfast._recall import Recalling
from nnfast.activations import Gelu, Identity, LeakyRelu, Relu, Sigmoid, Tanh
from nnfast.functions import *
from nnfast.losses import IdentityWithLoss, SigmoidWithLoss, SoftmaxWithLoss

__all__ = [
    "Affine",
    "BatchNormalization",
    "Dropout",
    "Gelu",
    "Identity",
    "IdentityWithLoss",
    "LeakyRelu",
    "Relu",
    "Rescale",
    "Sigmoid",
    "SigmoidWithLoss",
    "SoftmaxWithLoss",
    "Tanh",
]
__all__ += functions.__all__

_FLOAT32 = np.dtype(np.float32)


class Affine(Recalling):
    """x W + b for a batch (chapter 5.6).

    ``Affine(W, b)`` shares the given arrays: changing them in place is seen by the next call. ``Affine(784, 50)``
    draws its own when a `Network` takes it up, from the network's seed and in its dtype; used alone, it draws float32
    ones at the first call.

    Parameters
    ----------
    W : array_like or int
        Weights, shape (I, O), float32 or float64; or the number of inputs.
    b : array_like or int
        Biases, shape (O,), of the dtype of `W`; or the number of outputs.
    init : {"he", "xavier"} or float, keyword-only, default "he"
        Standard deviation of the weights to be drawn: sqrt(2 / I) (He et al., 2015), sqrt(1 / I) (Glorot and Bengio,
        2010, as the book gives it), or the number itself. Biases start at 0.

    Attributes
    ----------
    W, b : ndarray or None
        The parameters; None until drawn.
    x : ndarray or None
        The last input as rows, (B, I), of float32 or float64 as it came; inputs with more than two axes are flattened
        to (B, -1).
    original_x_shape : tuple of int or None
        The last input's shape, which the gradient gets back.
    dW, db : ndarray or None
        Gradients of the last backward pass.

    Raises
    ------
    TypeError
        If an array is not of float32 or float64, or `init` is neither a name nor a number.
    ValueError
        If shapes or dtypes of `W` and `b` do not fit, or a size is below 1.

    Examples
    --------
    >>> affine = Affine(np.array([[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]), np.array([0.5, 0.5, 0.5]))
    >>> affine.forward(np.array([[1.0, 2.0]]))
    array([[ 5.5, 11.5, 17.5]])
    >>> affine.backward(np.array([[1.0, 0.0, 1.0]]))
    array([[6., 8.]])
    >>> affine.dW
    array([[1., 0., 1.],
           [2., 0., 2.]])
    >>> affine.db
    array([1., 0., 1.])
    """

    _remembered = ("x", "original_x_shape")

    def __init__(self, W: ArrayLike | int, b: ArrayLike | int, *, init: str | float = "he") -> None:
        self.x: np.ndarray | None = None
        self.original_x_shape: tuple[int, ...] | None = None
        self.dW: np.ndarray | None = None
        self.db: np.ndarray | None = None
        self.W: Any = None
        self.b: Any = None
        self._init = init
        self._outputs, self._weight_gradients, self._input_gradients = Recycler(), Recycler(), Recycler()
        if isinstance(W, (int, np.integer)) or isinstance(b, (int, np.integer)):
            self.inputs = _validation.check_count("W", W)
            self.outputs = _validation.check_count("b", b)
            self._deviation()   # refuses a wrong init here, not when it is used
            return
        self.W = _validation.parameter("W", W, 2)
        self.b = _validation.parameter("b", b, 1)
        self.inputs, self.outputs = self.W.shape
        self._operands()    # refuses what does not fit

    def _deviation(self) -> float:
        """Standard deviation of the weights to be drawn."""
        if isinstance(self._init, str):
            gain = {"he": 2, "xavier": 1}[_validation.check_choice("init", self._init, ["he", "xavier"])]
            return float(np.sqrt(gain / self.inputs))
        return _validation.check_number("init", self._init, 0)

    def draw(self, generator: "np.random.Generator", dtype: np.dtype) -> None:
        """Draw the parameters unless there are some.

        Parameters
        ----------
        generator : numpy.random.Generator
            Where the weights come from.
        dtype : numpy.dtype
            float32 or float64.
        """
        if self.W is None:
            # Drawn in float64 whatever the dtype: the same seed gives the same network, rounded.
            weights = generator.standard_normal((self.inputs, self.outputs)) * self._deviation()
            self.W = weights.astype(dtype)
            self.b = np.zeros(self.outputs, dtype)

    def _draw_alone(self) -> None:
        """Draw at the first call, for a layer made from sizes that no network took up."""
        if self.W is None:
            self.draw(np.random.default_rng(), _FLOAT32)

    @property
    def params(self) -> dict[str, np.ndarray]:
        """W and b."""
        return {"W": self.W, "b": self.b}

    @property
    def grads(self) -> dict[str, np.ndarray | None]:
        """Gradients of W and b."""
        return {"W": self.dW, "b": self.db}

    def _operands(self) -> tuple[np.ndarray, np.ndarray]:
        """W and b as the kernels take them: themselves, unless the arrays have another layout.

        Checked every time, since they may have been replaced.
        """
        W, b = _validation.operand("W", self.W, 2), _validation.operand("b", self.b, 1)
        if b.shape[0] != W.shape[1] or b.dtype != W.dtype:
            _validation.like("b", b, (W.shape[1],), b.dtype, "a row of W")
            _validation.same_dtype("b", b, "W", W)
        return W, b

    def _forward(self, x: ArrayLike, memory: Recycler | None) -> tuple[np.ndarray, np.ndarray]:
        """The rows of x, in float32 or float64 as they came, and their outputs."""
        W, b = self._operands()
        rows = _validation.rows("x", x, None, W.shape[0], "W")
        shape = (rows.shape[0], W.shape[1])
        y = np.empty(shape, W.dtype) if memory is None else memory.empty(shape, W.dtype)
        threads = _threads.for_product(rows.shape[0] * W.size)
        workspace = product_workspace(W.shape[0], W.shape[1], W.dtype, threads)
        ours = kernels(W.dtype)
        product = ours.affine_forward if rows.dtype == W.dtype else ours.affine_forward_converting
        product(rows, W, b, y, workspace, threads)
        return rows, y

    def infer(self, x: ArrayLike) -> np.ndarray:
        """The output for `x`, leaving no trace in the layer: safe from many threads at once."""
        self._draw_alone()
        return self._forward(x, None)[1]

    def forward(self, x: ArrayLike) -> np.ndarray:
        """The output x W + b; keeps `x` for `backward`.

        Parameters
        ----------
        x : array_like
            Shape (B, I), or (B, ...) with I values a row. Converted to the dtype of `W`.

        Returns
        -------
        ndarray
            Shape (B, O), of the dtype of `W`.

        Raises
        ------
        TypeError
            If `x` does not hold real numbers.
        ValueError
            If a row of `x` has not I values.
        """
        self._draw_alone()
        self.x, y = self._forward(x, self._outputs)
        self.original_x_shape = np.shape(x)
        return y

    def backward(self, dout: ArrayLike) -> np.ndarray:
        """Gradient dout W^T with respect to the input; sets `dW` and `db`.

        Parameters
        ----------
        dout : array_like
            Gradient with respect to the output, shape (B, O).

        Returns
        -------
        ndarray
            Of the shape of the last input.

        Raises
        ------
        RuntimeError
            If `forward` was not called before.
        ValueError
            If the shape is not that of the output.
        """
        gradient, W = self._backward_parameters(dout)
        x: Any = self.x
        dx = self._input_gradients.empty(x.shape, W.dtype)
        threads = _threads.for_product(gradient.shape[0] * W.size)
        workspace = product_workspace(W.shape[1], W.shape[0], W.dtype, threads)
        kernels(W.dtype).affine_backward_input(gradient, W, dx, workspace, threads)
        return dx.reshape(self.original_x_shape)

    def backward_parameters(self, dout: ArrayLike) -> None:
        """Set `dW` and `db` alone: all that the first layer of a network needs.

        Parameters
        ----------
        dout : array_like
            Gradient with respect to the output, shape (B, O).

        Raises
        ------
        RuntimeError, ValueError
            As `backward`.
        """
        self._backward_parameters(dout)

    def _backward_parameters(self, dout: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Set dW and db; returns dout and W as the kernels take them."""
        x: Any = self.x
        _validation.needs_forward(x, self)
        W, _ = self._operands()
        x = _validation.rows("x", x, None, W.shape[0], "W")
        outputs = W.shape[1]
        gradient = _validation.like("dout", dout, (x.shape[0], outputs), W.dtype, "the output")
        self.dW = None      # free, unless somebody else holds it
        self.dW = self._weight_gradients.empty(W.shape, W.dtype)
        self.db = np.empty(outputs, W.dtype)
        threads = _threads.for_product(x.shape[0] * self.dW.size)
        workspace = product_workspace(x.shape[0], outputs, W.dtype, threads)
        ours = kernels(W.dtype)
        products = ours.affine_backward_parameters if x.dtype == W.dtype else ours.affine_backward_parameters_converting
        products(x, gradient, self.dW, self.db, workspace, threads)
        return gradient, W


class Dropout(Recalling):
    """Randomly set activations to 0 while training (chapter 6.4; Srivastava et al., 2014).

    Not inverted: training multiplies by a 0/1 mask, inference by ``1 - dropout_ratio``. The mask comes from the
    global ``np.random``, as in the book, or, in a `Network` made from layers, from the network's generator.

    Parameters
    ----------
    dropout_ratio : float, default 0.5
        Probability of being set to 0, between 0 and 1.

    Attributes
    ----------
    mask : ndarray of bool or None
        True where the last training pass kept the value.

    Raises
    ------
    TypeError, ValueError
        If `dropout_ratio` is not a number between 0 and 1.

    Examples
    --------
    >>> np.random.seed(0)
    >>> dropout = Dropout(0.5)
    >>> dropout.forward(np.array([[1.0, 2.0, 3.0]]))
    array([[1., 2., 3.]])
    >>> dropout.backward(np.array([[1.0, 1.0, 1.0]]))
    array([[1., 1., 1.]])
    >>> dropout.forward(np.array([[1.0, 2.0, 3.0]]), train_flg=False)
    array([[0.5, 1. , 1.5]])
    """

    _remembered = ("mask",)

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        self.dropout_ratio = _validation.check_number("dropout_ratio", dropout_ratio, 0, 1)
        self.mask: np.ndarray | None = None
        self.generator: np.random.Generator | None = None

    def infer(self, x: ArrayLike) -> np.ndarray:
        """`x` times ``1 - dropout_ratio``; safe from many threads at once."""
        array = _validation.floats("x", x)
        y = np.empty_like(array)
        threads = _threads.for_elements(array.size)
        kernels(array.dtype).scaled(array.reshape(-1), y.reshape(-1), 1.0 - self.dropout_ratio, threads)
        return y

    def forward(self, x: ArrayLike, train_flg: bool = True) -> np.ndarray:
        """The masked input when training, else the scaled input.

        Parameters
        ----------
        x : array_like
            Any shape.
        train_flg : bool, default True
            Whether this is a training pass.

        Returns
        -------
        ndarray of float32 or float64
            Of the shape of `x`.

        Raises
        ------
        TypeError
            If `x` does not hold real numbers.
        """
        if not train_flg:
            return self.infer(x)
        array = _validation.floats("x", x)
        _forks.draws(self)
        if self.generator is None:
            self.mask = np.random.rand(*array.shape) > self.dropout_ratio
        else:
            key = self.generator.integers(1 << 64, dtype=np.uint64)
            self.mask = np.empty(array.shape, bool)
            kernels(array.dtype).dropout_mask(key, self.dropout_ratio, self.mask.reshape(-1).view(np.uint8))
        return self._masked(array, np.asarray(self.mask))

    def backward(self, dout: ArrayLike) -> np.ndarray:
        """The gradient where the forward pass kept the value, else 0.

        Parameters
        ----------
        dout : array_like
            Of the shape of the last training input.

        Returns
        -------
        ndarray of float32 or float64
            Of the same shape.

        Raises
        ------
        RuntimeError
            If `forward` was not called for training before.
        ValueError
            If the shapes differ.
        """
        _validation.needs_forward(self.mask, self)
        mask = np.asarray(self.mask)
        gradient = _validation.floats("dout", dout)
        return self._masked(_validation.like("dout", gradient, mask.shape, gradient.dtype, "the output"), mask)

    @staticmethod
    def _masked(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        y = np.empty_like(x)
        bytes_of_mask = np.ascontiguousarray(mask, bool).reshape(-1).view(np.uint8)
        kernels(x.dtype).masked(x.reshape(-1), bytes_of_mask, y.reshape(-1), _threads.for_elements(x.size))
        return y


class BatchNormalization(Recalling):
    """Normalise each column over the batch, then scale and shift it (chapter 6.3; Ioffe and Szegedy, 2015).

    Training uses the batch's own mean and variance and moves the running ones towards them; inference uses the
    running ones. 1e-6 (the book writes 10e-7) is added to the variance.

    Parameters
    ----------
    gamma : array_like or int
        Scales, shape (I,); or the number of inputs, for ones of the network's dtype.
    beta : array_like, optional
        Shifts, shape (I,); zeros where `gamma` is a number.
    momentum : float, default 0.9
        Weight of the old running value, between 0 and 1.
    running_mean, running_var : array_like, optional
        Where inference starts from, shape (I,); zeros, as in the book, if not given.

    Attributes
    ----------
    gamma, beta : ndarray or None
        The parameters, shared as they were given.
    running_mean, running_var : ndarray or None
        Statistics for inference.
    dgamma, dbeta : ndarray or None
        Gradients of the last backward pass.

    Raises
    ------
    TypeError
        If an array is not of float32 or float64.
    ValueError
        If shapes or dtypes do not fit, or `momentum` is not between 0 and 1.

    Examples
    --------
    >>> normalization = BatchNormalization(np.ones(2), np.zeros(2))
    >>> normalization.forward(np.array([[1.0, 0.0], [3.0, 4.0]])).round(4)
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> normalization.running_mean
    array([0.2, 0.2])
    >>> normalization.backward(np.array([[1.0, 2.0], [3.0, 4.0]])).round(4)
    array([[-0., -0.],
           [ 0.,  0.]])
    >>> normalization.dgamma.round(4)
    array([2., 2.])
    """

    _remembered = ("_xn", "_std", "input_shape")
    EPSILON = 10e-7

    def __init__(
        self,
        gamma: ArrayLike | int,
        beta: ArrayLike | None = None,
        momentum: float = 0.9,
        running_mean: ArrayLike | None = None,
        running_var: ArrayLike | None = None,
    ) -> None:
        self.momentum = _validation.check_number("momentum", momentum, 0, 1)
        self.gamma: Any = None
        self.beta: Any = None
        self.dgamma: np.ndarray | None = None
        self.dbeta: np.ndarray | None = None
        self.input_shape: tuple[int, ...] | None = None
        self._xn: np.ndarray | None = None
        self._std: np.ndarray | None = None
        if isinstance(gamma, (int, np.integer)):
            self.inputs = _validation.check_count("gamma", gamma)
            if beta is not None:
                raise ValueError("beta is given, but gamma is a size: give both as arrays, or the size alone")
        else:
            self.gamma = _validation.parameter("gamma", gamma, 1)
            self.inputs = self.gamma.shape[0]
            if beta is None:
                raise ValueError("beta is missing: it must have the shape of gamma")
            self.beta = _validation.parameter("beta", beta, 1)
            _validation.like("beta", self.beta, self.gamma.shape, self.beta.dtype, "gamma")
            _validation.same_dtype("beta", self.beta, "gamma", self.gamma)
        self.running_mean = self._statistic("running_mean", running_mean)
        self.running_var = self._statistic("running_var", running_var)

    def _statistic(self, name: str, value: ArrayLike | None) -> np.ndarray | None:
        if value is None:
            return None
        array = _validation.floats(name, value)
        return _validation.like(name, array, (self.inputs,), array.dtype, "gamma").copy()

    def draw(self, generator: "np.random.Generator", dtype: np.dtype) -> None:
        """Make the parameters and running statistics unless there are some: ones and zeros.

        Parameters
        ----------
        generator : numpy.random.Generator
            Not used.
        dtype : numpy.dtype
            float32 or float64.
        """
        if self.gamma is None:
            self.gamma = np.ones(self.inputs, dtype)
            self.beta = np.zeros(self.inputs, dtype)
        if self.running_mean is None:
            self.running_mean = np.zeros(self.inputs, self.gamma.dtype.newbyteorder("="))
        if self.running_var is None:
            self.running_var = np.zeros(self.inputs, self.gamma.dtype.newbyteorder("="))

    @property
    def statistics(self) -> tuple[Any, Any]:
        """The running mean and variance, live."""
        return self.running_mean, self.running_var

    @property
    def params(self) -> dict[str, np.ndarray]:
        """Gamma and beta."""
        return {"gamma": self.gamma, "beta": self.beta}

    @property
    def grads(self) -> dict[str, np.ndarray | None]:
        """Gradients of gamma and beta."""
        return {"gamma": self.dgamma, "beta": self.dbeta}

    def _operands(self, x: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of x, gamma and beta as the kernels take them."""
        if self.gamma is None or self.running_mean is None or self.running_var is None:
            self.draw(np.random.default_rng(), _FLOAT32)
        gamma = _validation.operand("gamma", self.gamma, 1)
        beta = _validation.like("beta", self.beta, gamma.shape, gamma.dtype, "gamma")
        return _validation.rows("x", x, gamma.dtype, gamma.shape[0], "BatchNormalization"), gamma, beta

    def infer(self, x: ArrayLike) -> np.ndarray:
        """`x` normalised with the running statistics; safe from many threads at once."""
        rows, gamma, beta = self._operands(x)
        mean, variance = self.statistics
        y = np.empty_like(rows)
        kernels(rows.dtype).batch_normalization_predict(
            rows, gamma, beta,
            _validation.like("running_mean", mean, gamma.shape, rows.dtype, "gamma"),
            _validation.like("running_var", variance, gamma.shape, rows.dtype, "gamma"),
            y, self.EPSILON, _threads.for_elements(rows.size),
        )
        return y.reshape(np.shape(x))

    def forward(self, x: ArrayLike, train_flg: bool = True) -> np.ndarray:
        """The normalised input; a training pass also moves the running statistics.

        Parameters
        ----------
        x : array_like
            Shape (B, I), or (B, ...) with I values a row.
        train_flg : bool, default True
            Whether this is a training pass.

        Returns
        -------
        ndarray
            Of the shape of `x`, of the dtype of `gamma`.

        Raises
        ------
        TypeError
            If `x` does not hold real numbers.
        ValueError
            If a row of `x` has not I values, or a training batch is empty.
        """
        if not train_flg:
            return self.infer(x)
        rows, gamma, beta = self._operands(x)
        _validation.not_empty("x", rows)
        self.input_shape = np.shape(x)
        y = np.empty_like(rows)
        self._xn = np.empty_like(rows)
        mean, variance, self._std = (np.empty_like(gamma) for _ in range(3))
        kernels(rows.dtype).batch_normalization_forward(
            rows, gamma, beta, y, self._xn, mean, variance, self._std, self.EPSILON, _threads.for_elements(rows.size)
        )
        for running, new in zip(self.statistics, (mean, variance), strict=True):
            running *= self.momentum
            running += (1 - self.momentum) * new
        return y.reshape(self.input_shape)

    def backward(self, dout: ArrayLike) -> np.ndarray:
        """Gradient with respect to the input; sets `dgamma` and `dbeta`.

        Parameters
        ----------
        dout : array_like
            Gradient with respect to the output, of its shape.

        Returns
        -------
        ndarray
            Of the shape of the last training input.

        Raises
        ------
        RuntimeError
            If `forward` was not called for training before.
        ValueError
            If the shapes differ.
        """
        _validation.needs_forward(self._xn, self)
        xn: Any = self._xn
        shape: Any = self.input_shape
        gradient = _validation.like("dout", dout, shape, xn.dtype, "the output").reshape(xn.shape)
        dx = np.empty_like(xn)
        gamma = _validation.like("gamma", self.gamma, xn.shape[1:], xn.dtype, "a row of the last input")
        self.dgamma, self.dbeta = np.empty_like(gamma), np.empty_like(gamma)
        kernels(xn.dtype).batch_normalization_backward(
            xn, self._std, gamma, gradient,
            dx, self.dgamma, self.dbeta, _threads.for_elements(xn.size),
        )
        result: np.ndarray = dx.reshape(shape)
        return result


class Rescale:
    """x times `scale`, plus `offset`: numbers, or one for each column. Nothing in it is trained.

    As a network's first layer it takes bytes and other whole numbers of at most 16 bits as they are: each row is
    converted and scaled when a step, or a prediction, reads it, and images of uint8 need a quarter of the memory. The
    bits are those of rows that are converted and scaled beforehand in the network's dtype.

    Parameters
    ----------
    scale : float or array_like
        A number, or one for each column, shape (I,); finite.
    offset : float or array_like, default 0
        Likewise.

    Attributes
    ----------
    scale, offset : float or ndarray of float64
        As given; arrays are copies that cannot be written.
    inputs : int or None
        Columns, if `scale` or `offset` is an array.
    dtype : numpy.dtype or None
        Of what it gives: that of the network that took it up; alone, float32 or float64 as other layers have it.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If one is not finite, or the shapes do not fit.

    Examples
    --------
    >>> Rescale(1 / 255).forward(np.array([[0, 51, 255]], np.uint8))
    array([[0. , 0.2, 1. ]])
    >>> Rescale([1.0, 0.5], offset=[0.0, -1.0]).forward(np.array([[3.0, 4.0]]))
    array([[3., 1.]])

    With the mean and the standard deviation of each column:

    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> Rescale(1 / x.std(axis=0), -x.mean(axis=0) / x.std(axis=0)).forward(x)
    array([[-1., -1.],
           [ 1.,  1.]])
    """

    def __init__(self, scale: ArrayLike, offset: ArrayLike = 0.0) -> None:
        self.scale = _validation.factors_of_columns("scale", scale)
        self.offset = _validation.factors_of_columns("offset", offset)
        self.inputs = _validation.one_width("scale", self.scale, "offset", self.offset)
        self.dtype: np.dtype | None = None

    def draw(self, generator: "np.random.Generator", dtype: np.dtype) -> None:
        """Take the network's dtype, in which `scale` and `offset` must be finite, too.

        Parameters
        ----------
        generator : numpy.random.Generator
            Not used.
        dtype : numpy.dtype
            float32 or float64.
        """
        for name, value in (("scale", self.scale), ("offset", self.offset)):
            _validation.finite_as(name, value, dtype)
        self.dtype = dtype

    def operands(self, columns: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray | None]:
        """Scale and offset for each of so many columns; None where there is nothing to add.

        Parameters
        ----------
        columns : int
            I; that of the arrays, if there are some.
        dtype : numpy.dtype
            float32 or float64.

        Returns
        -------
        tuple of ndarray and (ndarray or None)
            Shapes (I,), of the dtype.
        """
        scale, offset = (np.ascontiguousarray(np.broadcast_to(np.asarray(value, dtype), (columns,)))
                         for value in (self.scale, self.offset))
        return scale, offset if np.any(offset) else None

    def rescaled(self, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """What `forward` gives, in a dtype.

        Parameters
        ----------
        x : ndarray
            Numbers of any kind; with I columns, if `scale` or `offset` is an array.
        dtype : numpy.dtype
            float32 or float64.

        Returns
        -------
        ndarray
            A new array of the shape of `x`.
        """
        y: np.ndarray = np.ascontiguousarray(x, dtype) * np.asarray(self.scale, dtype)
        if np.any(self.offset):
            y += np.asarray(self.offset, dtype)
        return y

    def infer(self, x: ArrayLike) -> np.ndarray:
        """The output for `x`, leaving no trace in the layer: safe from many threads at once."""
        array = _validation.numbers("x", x)
        dtype = _validation.float_dtype(array) if self.dtype is None else self.dtype
        if self.inputs is None:
            return self.rescaled(array, dtype)
        rows = _validation.row_shaped("x", array, self.inputs, "Rescale")
        return self.rescaled(rows, dtype).reshape(array.shape)

    def forward(self, x: ArrayLike) -> np.ndarray:
        """The output x * scale + offset.

        Parameters
        ----------
        x : array_like
            Any shape; (B, I) or (B, ...) with I values a row, if `scale` or `offset` is an array.

        Returns
        -------
        ndarray of float32 or float64
            Of the shape of `x`.

        Raises
        ------
        TypeError
            If `x` does not hold real numbers.
        ValueError
            If a row of `x` has not I values.
        """
        return self.infer(x)

    def backward(self, dout: ArrayLike) -> np.ndarray:
        """`dout` times the scale.

        Parameters
        ----------
        dout : array_like
            Gradient with respect to the output, of its shape.

        Returns
        -------
        ndarray of float32 or float64
            Of the same shape.

        Raises
        ------
        ValueError
            If a row has not I values.
        """
        array = _validation.floats("dout", dout)
        rows = array if self.inputs is None else _validation.row_shaped("dout", array, self.inputs, "Rescale")
        gradient: np.ndarray = (rows * np.asarray(self.scale, array.dtype)).reshape(array.shape)
        return gradient


SAME_WIDTH = (Relu, Sigmoid, Tanh, LeakyRelu, Gelu, Identity, Dropout, BatchNormalization, Rescale)
"""Layers that give as many outputs as they take inputs, each output of one input."""
