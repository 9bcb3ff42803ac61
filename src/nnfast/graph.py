"""The computational graph: values forward, gradients backward by the chain rule (chapter 5).

Two ways to it. `Variable` remembers what was computed from it, so that ``backward`` on the result gives every gradient:

>>> apple, number, tax = Variable(100, "apple"), Variable(2, "number"), Variable(1.1, "tax")
>>> price = apple * number * tax
>>> price.backward()
>>> [round(variable.grad, 6) for variable in (apple, number, tax)]
[2.2, 110.0, 200]

And the nodes themselves, from `AddLayer` to `MatMulLayer`, with ``forward`` and ``backward`` to be called by hand. Each
keeps only what its backward pass needs.
"""

import numbers
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _graph_picture, _validation, layers
from nnfast._graph_nodes import AddLayer, DivLayer, ExpLayer, LogLayer, MatMulLayer, MulLayer
from nnfast._graph_picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "AddLayer",
    "DivLayer",
    "ExpLayer",
    "LogLayer",
    "MatMulLayer",
    "MulLayer",
    "Variable",
    "add",
    "affine",
    "divide",
    "draw",
    "exp",
    "log",
    "matmul",
    "multiply",
    "relu",
    "sigmoid",
    "softmax_with_loss",
]

_Operand: TypeAlias = "Variable | ArrayLike"


class Variable:
    """A value, an edge of the graph: given, or what a node made of others.

    Calculate with it as with numbers and arrays: ``+ - * / @``, whole powers, and the functions of this module.

    Parameters
    ----------
    value : number or array_like
        Of any shape.
    name : str, default ""
        What to call it in a picture.

    Attributes
    ----------
    value : number or ndarray
        As it was given, or was computed.
    grad : number or ndarray or None
        Derivative of the result, on which `backward` was called last, with respect to this value: of its shape, summed
        over all ways from here to there. None before.
    name : str
    node : object or None
        What computed the value, with ``forward`` and ``backward``; None for a value that was given.
    inputs : tuple of Variable
        What it was computed from.

    Raises
    ------
    TypeError
        If `value` does not hold real numbers.

    Examples
    --------
    A value that is used twice gets both gradients:

    >>> x = Variable(3.0)
    >>> y = x * x + x
    >>> y.backward()
    >>> y.value, x.grad
    (12.0, 7.0)
    """

    __array_ufunc__ = None      # array + variable is our business, not NumPy's

    def __init__(self, value: Any, name: str = "") -> None:
        is_number = isinstance(value, numbers.Real)     # a fraction, too, stays what it is
        self.value: Any = value if is_number else _validation.numbers("value", value)
        self.grad: Any = None
        self.name = name
        self.node: Any = None
        self.symbol = ""
        self.inputs: tuple[Variable, ...] = ()
        self._gradients: tuple[Any, ...] = ()   # what backward gave to each input, for a picture

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the value; () for a number."""
        return np.shape(self.value)

    def backward(self, dout: ArrayLike | None = None) -> None:
        """Set `grad` of every variable that this one was computed from, and of itself.

        It replaces what an earlier call has left there.

        Parameters
        ----------
        dout : number or array_like, optional
            Where the gradients begin, of this value's shape; 1 for a single number if not given.

        Raises
        ------
        ValueError
            If the shape differs, or is not that of a single number and `dout` is not given.

        Examples
        --------
        >>> x = Variable([1.0, 2.0])
        >>> (x * x).backward([1.0, 10.0])
        >>> x.grad
        array([ 2., 40.])
        """
        order = _inputs_first(self)
        for variable in order:
            variable.grad = None
        self.grad = _validation.seed_of_backward(dout, self.shape)
        for variable in reversed(order):
            if variable.node is None:
                continue
            given = variable.node.backward(variable.grad)
            given = given if isinstance(given, tuple) else (given,)
            variable._gradients = tuple(
                _summed_to(gradient, one.shape) for gradient, one in zip(given, variable.inputs, strict=True))
            for one, gradient in zip(variable.inputs, variable._gradients, strict=True):
                one.grad = gradient if one.grad is None else one.grad + gradient

    def __add__(self, other: _Operand) -> "Variable":
        return add(self, other)

    def __mul__(self, other: _Operand) -> "Variable":
        return multiply(self, other)

    def __neg__(self) -> "Variable":
        return multiply(self, -1)

    def __sub__(self, other: _Operand) -> "Variable":
        return add(self, -_variable(other))

    def __rsub__(self, other: _Operand) -> "Variable":
        return add(other, -self)

    def __truediv__(self, other: _Operand) -> "Variable":
        return divide(self, other)

    def __rtruediv__(self, other: _Operand) -> "Variable":
        return divide(other, self)

    def __matmul__(self, other: _Operand) -> "Variable":
        return matmul(self, other)

    def __rmatmul__(self, other: _Operand) -> "Variable":
        return matmul(other, self)

    def __pow__(self, exponent: int) -> "Variable":
        product = self
        for _ in range(_validation.check_count("exponent", exponent) - 1):
            product = multiply(product, self)
        return product

    __radd__ = __add__
    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"Variable({self.value!r}{f', {self.name!r}' if self.name else ''})"


def add(x: _Operand, y: _Operand) -> Variable:
    """The sum x + y.

    Parameters
    ----------
    x, y : Variable, number or array_like
        Shapes that NumPy adds; a gradient is summed over what was repeated.

    Returns
    -------
    Variable
        The sum.

    Examples
    --------
    >>> add(200, 450).value
    650
    """
    return _computed("+", AddLayer(), x, y)


def multiply(x: _Operand, y: _Operand) -> Variable:
    """The product x * y, element by element.

    Parameters
    ----------
    x, y : Variable, number or array_like
        Shapes that NumPy multiplies; a gradient is summed over what was repeated.

    Returns
    -------
    Variable
        The product.

    Examples
    --------
    >>> multiply(100, 2).value
    200
    """
    return _computed("\N{MULTIPLICATION SIGN}", MulLayer(), x, y)


def divide(x: _Operand, y: _Operand) -> Variable:
    """The quotient x / y, element by element.

    Parameters
    ----------
    x, y : Variable, number or array_like
        Shapes that NumPy divides, no 0 in y; a gradient is summed over what was repeated.

    Returns
    -------
    Variable
        The quotient.

    Raises
    ------
    ZeroDivisionError
        If `y` holds a 0.

    Examples
    --------
    >>> divide(1, 4).value
    0.25
    """
    return _computed("/", DivLayer(), x, y)


def exp(x: _Operand) -> Variable:
    """The exponential of x, element by element.

    Parameters
    ----------
    x : Variable, number or array_like
        Any shape.

    Returns
    -------
    Variable
        Of that shape.

    Examples
    --------
    >>> float(exp(0.0).value)
    1.0
    """
    return _computed("exp", ExpLayer(), x)


def log(x: _Operand) -> Variable:
    """The natural logarithm, element by element.

    Parameters
    ----------
    x : Variable, number or array_like
        Any shape, all above 0.

    Returns
    -------
    Variable
        Of that shape.

    Raises
    ------
    ValueError
        If `x` holds a value of 0 or below.

    Examples
    --------
    >>> float(log(1.0).value)
    0.0
    """
    return _computed("log", LogLayer(), x)


def relu(x: _Operand) -> Variable:
    """Each x that is above 0, else 0: the node is a `layers.Relu`, which keeps a mask.

    Parameters
    ----------
    x : Variable, number or array_like
        Any shape.

    Returns
    -------
    Variable
        Of that shape.

    Examples
    --------
    >>> relu([2.0, -3.0]).value
    array([2., 0.])
    """
    return _computed("ReLU", layers.Relu(), x)


def sigmoid(x: _Operand) -> Variable:
    """1 / (1 + exp(-x)): the node is a `layers.Sigmoid`, which keeps its output.

    Parameters
    ----------
    x : Variable, number or array_like
        Any shape.

    Returns
    -------
    Variable
        Of that shape.

    Examples
    --------
    >>> x = Variable(0.0)
    >>> y = sigmoid(x)
    >>> y.backward()
    >>> float(y.value), float(x.grad)
    (0.5, 0.25)
    """
    return _computed("sigmoid", layers.Sigmoid(), x)


def matmul(x: _Operand, W: _Operand) -> Variable:
    """The matrix product x W.

    Parameters
    ----------
    x : Variable or array_like
        Shape (B, I).
    W : Variable or array_like
        Shape (I, O).

    Returns
    -------
    Variable
        Shape (B, O).

    Raises
    ------
    ValueError
        If the shapes are others.

    Examples
    --------
    >>> matmul([[1.0, 2.0]], [[3.0], [4.0]]).value
    array([[11.]])
    """
    return _computed("matmul", MatMulLayer(), x, W)


def affine(x: _Operand, W: _Operand, b: _Operand) -> Variable:
    """The product x W + b for a batch: the node is a `layers.Affine`, which keeps x.

    Parameters
    ----------
    x : Variable or array_like
        Shape (B, I).
    W : Variable or array_like
        Shape (I, O).
    b : Variable or array_like
        Shape (O,), of the dtype of `W`.

    Returns
    -------
    Variable
        Shape (B, O).

    Raises
    ------
    ValueError
        If the shapes are others.

    Examples
    --------
    >>> affine([[1.0, 2.0]], [[3.0], [4.0]], [0.5]).value
    array([[11.5]])
    """
    return _computed("Affine", _Affine(), x, W, b)


def softmax_with_loss(x: _Operand, t: ArrayLike) -> Variable:
    """The mean cross-entropy error of softmax(x): the node is a `layers.SoftmaxWithLoss`, which keeps y and t.

    Parameters
    ----------
    x : Variable or array_like
        Scores, shape (B, C).
    t : array_like
        Labels (B,) or one-hot rows (B, C); they get no gradient.

    Returns
    -------
    Variable
        A single number.

    Raises
    ------
    ValueError
        If the shapes do not fit, or `t` holds an impossible value.

    Examples
    --------
    >>> scores = Variable(np.log([[0.3, 0.2, 0.5]]))
    >>> loss = softmax_with_loss(scores, [[0, 1, 0]])
    >>> loss.backward()
    >>> scores.grad
    array([[ 0.3, -0.8,  0.5]])
    """
    return _computed("Softmax\nwith loss", _SoftmaxWithLoss(t), x)


def draw(result: Variable, *, ax: "Axes | None" = None) -> Picture:
    """A picture of all that a variable was computed from: values above the edges, gradients below.

    Gradients are there after `Variable.backward`. Values that were given have their names, nodes stand in circles, and
    an array of more than four elements is written as its shape. Needs matplotlib (``pip install "nnfast[plot]"``).

    Parameters
    ----------
    result : Variable
        Where the graph ends, on the right.
    ax : matplotlib.axes.Axes, keyword-only, optional
        Where to draw; a figure of the size that it takes if not given.

    Returns
    -------
    Picture
        Shown by a notebook; ``.save("graph.svg")`` keeps it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If `result` is no variable.

    Examples
    --------
    >>> apple, number = Variable(100, "apple"), Variable(2, "number")
    >>> price = apple * number
    >>> price.backward()
    >>> picture = draw(price)
    >>> [text.get_text() for text in picture.axes.texts if text.get_text()][:2]
    ['100', '2']
    """
    if not isinstance(result, Variable):
        raise TypeError(f"result is a {type(result).__name__}, but must be a Variable")
    return _graph_picture.of_variables(result, _inputs_first(result)).draw(ax)


def _variable(operand: Any) -> Variable:
    return operand if isinstance(operand, Variable) else Variable(operand)


def _computed(symbol: str, node: Any, *operands: Any) -> Variable:
    """What a node makes of its inputs."""
    inputs = tuple(_variable(operand) for operand in operands)
    value = node.forward(*(one.value for one in inputs))
    result = Variable(value[()] if isinstance(value, np.ndarray) else value)     # a number, not an array without axes
    result.node, result.symbol, result.inputs = node, symbol, inputs
    return result


def _inputs_first(result: Variable) -> list[Variable]:
    """Every variable that the result was computed from, each after its own inputs; the result comes last."""
    order: list[Variable] = []
    seen = set()
    waiting = [(result, False)]     # no recursion: a graph may be thousands of nodes deep
    while waiting:
        variable, is_ready = waiting.pop()
        if is_ready:
            order.append(variable)
        elif id(variable) not in seen:
            seen.add(id(variable))
            waiting.append((variable, True))
            waiting.extend((one, False) for one in reversed(variable.inputs))
    return order


def _summed_to(gradient: Any, shape: tuple[int, ...]) -> Any:
    """A gradient of a value that was repeated along some axes."""
    if np.shape(gradient) == shape:
        return gradient
    gradient = np.asarray(gradient)
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    repeated = tuple(axis for axis, size in enumerate(shape) if size == 1 and gradient.shape[axis] != 1)
    return gradient.sum(axis=repeated, keepdims=True)[()]


# Layers of the library as nodes


class _Affine:
    """`layers.Affine` with its parameters as inputs."""

    def forward(self, x: Any, W: Any, b: Any) -> np.ndarray:
        W, b = (array if np.asarray(array).dtype.kind == "f" else np.asarray(array, np.float64) for array in (W, b))
        self.layer = layers.Affine(W, b)
        return self.layer.forward(x)

    def backward(self, dout: Any) -> tuple[Any, Any, Any]:
        dx = self.layer.backward(dout)
        return dx, self.layer.dW, self.layer.db


class _SoftmaxWithLoss:
    """`layers.SoftmaxWithLoss` with targets that are no input."""

    def __init__(self, t: ArrayLike) -> None:
        self._t = t
        self.layer = layers.SoftmaxWithLoss()

    def forward(self, x: Any) -> float:
        return self.layer.forward(x, self._t)

    def backward(self, dout: Any) -> np.ndarray:
        return self.layer.backward(dout)
