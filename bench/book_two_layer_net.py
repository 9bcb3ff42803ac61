"""The book's two-layer network and training loop (chapter 5.7), as a reader writes them, on the layers of any library.

The plain NumPy layers are those of tests/book/common.
"""

import sys
from collections import OrderedDict
from pathlib import Path

BOOK = Path(__file__).parents[1] / "tests" / "book"


def numpy_layers():
    """The book's layers in plain NumPy."""
    if str(BOOK) not in sys.path:
        sys.path.insert(0, str(BOOK))
    from common import layers

    return layers


class TwoLayerNet:
    def __init__(self, layers, W1, b1, W2, b2):
        self.params = {"W1": W1.copy(), "b1": b1.copy(), "W2": W2.copy(), "b2": b2.copy()}
        self.layers = OrderedDict()
        self.layers["Affine1"] = layers.Affine(self.params["W1"], self.params["b1"])
        self.layers["Relu1"] = layers.Relu()
        self.layers["Affine2"] = layers.Affine(self.params["W2"], self.params["b2"])
        self.lastLayer = layers.SoftmaxWithLoss()

    def predict(self, x):
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x, t):
        return self.lastLayer.forward(self.predict(x), t)

    def gradient(self, x, t):
        self.loss(x, t)
        dout = self.lastLayer.backward(1)
        for layer in reversed(list(self.layers.values())):
            dout = layer.backward(dout)
        return {
            "W1": self.layers["Affine1"].dW, "b1": self.layers["Affine1"].db,
            "W2": self.layers["Affine2"].dW, "b2": self.layers["Affine2"].db,
        }


def train(network, x, t, batches, learning_rate):
    """A step for each batch of row indices: gradient, update, and the loss once more, as the book's loop does."""
    losses = []
    for rows in batches:
        x_batch, t_batch = x[rows], t[rows]
        grad = network.gradient(x_batch, t_batch)
        for key in ("W1", "b1", "W2", "b2"):
            network.params[key] -= learning_rate * grad[key]
        losses.append(network.loss(x_batch, t_batch))
    return losses
