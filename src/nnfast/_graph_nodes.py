"""Nodes of the computational graph, ``forward`` and ``backward`` side by side (chapter 5)."""

from typing import Any

import numpy as np

from nnfast import _validation

__all__ = ["AddLayer", "DivLayer", "ExpLayer", "LogLayer", "MatMulLayer", "MulLayer"]


class MulLayer:
    """The multiply node: it keeps its inputs, since each one's gradient is the other.

    Attributes
    ----------
    x, y : number or ndarray or None
        The inputs of the last forward pass.

    Examples
    --------
    Two apples at 100, with 10% tax:

    >>> apples, tax = MulLayer(), MulLayer()
    >>> round(tax.forward(apples.forward(100, 2), 1.1), 6)
    220.0
    >>> dapples_price, dtax = tax.backward(1)
    >>> dapple, dnumber = apples.backward(dapples_price)
    >>> [round(d, 6) for d in (dapple, dnumber, dtax)]
    [2.2, 110.0, 200]
    """

    def __init__(self) -> None:
        self.x: Any = None
        self.y: Any = None

    def forward(self, x: Any, y: Any) -> Any:
        """The product x * y.

        Parameters
        ----------
        x, y : number or ndarray
            Shapes that multiply element by element.

        Returns
        -------
        number or ndarray
            Of the common shape.
        """
        self.x = x
        self.y = y
        return x * y

    def backward(self, dout: Any) -> tuple[Any, Any]:
        """Gradients with respect to x and to y: dout * y and dout * x.

        Parameters
        ----------
        dout : number or ndarray
            Gradient with respect to the product.

        Returns
        -------
        tuple
            (dx, dy).

        Raises
        ------
        RuntimeError
            If `forward` was not called before.
        """
        if self.x is None:
            raise RuntimeError("MulLayer.backward needs a call of forward first")
        return dout * self.y, dout * self.x


class AddLayer:
    """The add node: it passes the gradient on to both inputs.

    Examples
    --------
    >>> add = AddLayer()
    >>> add.forward(200, 450)
    650
    >>> add.backward(1.1)
    (1.1, 1.1)
    """

    def forward(self, x: Any, y: Any) -> Any:
        """The sum x + y.

        Parameters
        ----------
        x, y : number or ndarray
            Of one shape.

        Returns
        -------
        number or ndarray
            Of that shape.
        """
        return x + y

    def backward(self, dout: Any) -> tuple[Any, Any]:
        """Gradients with respect to x and to y: dout for both.

        Parameters
        ----------
        dout : number or ndarray
            Gradient with respect to the sum.

        Returns
        -------
        tuple
            (dx, dy).
        """
        return dout * 1, dout * 1


class DivLayer:
    """The divide node: it keeps its divisor and its output, since the gradients are dout / y and -dout * out / y.

    Attributes
    ----------
    y, out : number or ndarray or None
        The divisor and the output of the last forward pass.

    Examples
    --------
    >>> divide = DivLayer()
    >>> divide.forward(1.0, 4.0)
    0.25
    >>> divide.backward(1.0)
    (0.25, -0.0625)
    """

    def __init__(self) -> None:
        self.y: Any = None
        self.out: Any = None

    def forward(self, x: Any, y: Any) -> Any:
        """The quotient x / y.

        Parameters
        ----------
        x, y : number or ndarray
            Shapes that divide element by element, no 0 in y.

        Returns
        -------
        number or ndarray
            Of the common shape.

        Raises
        ------
        ZeroDivisionError
            If `y` holds a 0.
        """
        _validation.no_zero("y", y)
        self.y = y
        self.out = x / y
        return self.out

    def backward(self, dout: Any) -> tuple[Any, Any]:
        """Gradients with respect to x and to y: dout / y and -dout * out / y.

        Parameters
        ----------
        dout : number or ndarray
            Gradient with respect to the quotient.

        Returns
        -------
        tuple
            (dx, dy).

        Raises
        ------
        RuntimeError
            If `forward` was not called before.
        """
        _validation.needs_forward(self.y, self)
        dx = dout / self.y
        return dx, -dx * self.out


class ExpLayer:
    """The exp node: it keeps its output, which is its own derivative.

    Attributes
    ----------
    out : number or ndarray or None
        The output of the last forward pass.

    Examples
    --------
    >>> exp = ExpLayer()
    >>> float(exp.forward(0.0))
    1.0
    >>> float(exp.backward(3.0))
    3.0
    """

    def __init__(self) -> None:
        self.out: Any = None

    def forward(self, x: Any) -> Any:
        """The exponential of x.

        Parameters
        ----------
        x : number or ndarray
            Any shape.

        Returns
        -------
        number or ndarray
            Of that shape.
        """
        self.out = np.exp(_as_float(x))
        return self.out

    def backward(self, dout: Any) -> Any:
        """Gradient with respect to x: dout * out.

        Parameters
        ----------
        dout : number or ndarray
            Gradient with respect to the output.

        Returns
        -------
        number or ndarray
            Of the shape of x.

        Raises
        ------
        RuntimeError
            If `forward` was not called before.
        """
        _validation.needs_forward(self.out, self)
        return dout * self.out


class LogLayer:
    """The log node: it keeps its input, since the gradient is dout / x.

    Attributes
    ----------
    x : number or ndarray or None
        The input of the last forward pass.

    Examples
    --------
    >>> log = LogLayer()
    >>> float(log.forward(1.0))
    0.0
    >>> log.backward(3.0)
    3.0
    """

    def __init__(self) -> None:
        self.x: Any = None

    def forward(self, x: Any) -> Any:
        """The natural logarithm of x.

        Parameters
        ----------
        x : number or ndarray
            Any shape, all above 0.

        Returns
        -------
        number or ndarray
            Of that shape.

        Raises
        ------
        ValueError
            If `x` holds a value of 0 or below.
        """
        _validation.all_above_zero("x", x)
        self.x = x
        return np.log(_as_float(x))

    def backward(self, dout: Any) -> Any:
        """Gradient with respect to x: dout / x.

        Parameters
        ----------
        dout : number or ndarray
            Gradient with respect to the output.

        Returns
        -------
        number or ndarray
            Of the shape of x.

        Raises
        ------
        RuntimeError
            If `forward` was not called before.
        """
        _validation.needs_forward(self.x, self)
        return dout / self.x


class MatMulLayer:
    """The matrix product: it keeps its inputs, since the gradients are dout W^T and x^T dout.

    Attributes
    ----------
    x, W : ndarray or None
        The inputs of the last forward pass, shapes (B, I) and (I, O).

    Examples
    --------
    >>> matmul = MatMulLayer()
    >>> matmul.forward(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    >>> dx, dW = matmul.backward(np.array([[1.0]]))
    >>> dx
    array([[3., 4.]])
    >>> dW
    array([[1.],
           [2.]])
    """

    def __init__(self) -> None:
        self.x: Any = None
        self.W: Any = None

    def forward(self, x: Any, W: Any) -> Any:
        """The product x W.

        Parameters
        ----------
        x : ndarray
            Shape (B, I).
        W : ndarray
            Shape (I, O).

        Returns
        -------
        ndarray
            Shape (B, O).

        Raises
        ------
        ValueError
            If the shapes are others.
        """
        _validation.shapes_multiply(x, W)
        self.x, self.W = x, W
        return np.matmul(x, W)

    def backward(self, dout: Any) -> tuple[Any, Any]:
        """Gradients with respect to x and to W: dout W^T and x^T dout.

        Parameters
        ----------
        dout : ndarray
            Gradient with respect to the product, shape (B, O).

        Returns
        -------
        tuple
            (dx, dW).

        Raises
        ------
        RuntimeError
            If `forward` was not called before.
        """
        _validation.needs_forward(self.x, self)
        return np.matmul(dout, np.transpose(self.W)), np.matmul(np.transpose(self.x), dout)


def _as_float(x: Any) -> Any:
    """A fraction or another number that NumPy does not know as a float; arrays as they are."""
    return x if isinstance(x, np.ndarray) else float(x)
