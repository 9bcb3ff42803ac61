"""Nodes of the computational graph: values forward, gradients backward by the chain rule (chapter 5)."""

from typing import Any

__all__ = ["AddLayer", "MulLayer"]


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
