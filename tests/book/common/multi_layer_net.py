"""A fully connected network: Affine and activation by turns, Affine, softmax with loss."""

from collections import OrderedDict

import numpy as np

from common.gradient import numerical_gradient
from common.layers import Affine, Relu, Sigmoid, SoftmaxWithLoss

_ACTIVATIONS = {"sigmoid": Sigmoid, "relu": Relu}
# Variance of a weight is this number over the inputs of its layer: He for ReLU, Xavier for sigmoid.
_VARIANCE_GAINS = {"relu": 2.0, "he": 2.0, "sigmoid": 1.0, "xavier": 1.0}


class MultiLayerNet:
    def __init__(
        self,
        input_size,
        hidden_size_list,
        output_size,
        activation="relu",
        weight_init_std="relu",
        weight_decay_lambda=0,
    ):
        self.input_size, self.hidden_size_list, self.output_size = input_size, hidden_size_list, output_size
        self.hidden_layer_num = len(hidden_size_list)
        self.weight_decay_lambda = weight_decay_lambda
        self.params = {}
        self._draw_weights([input_size, *hidden_size_list, output_size], weight_init_std)
        self.layers = OrderedDict()
        for number in range(1, self.hidden_layer_num + 1):
            self._add_affine(number)
            self._add_hidden(number, _ACTIVATIONS[activation]())
        self._add_affine(self.hidden_layer_num + 1)
        self.last_layer = SoftmaxWithLoss()

    def _draw_weights(self, sizes, weight_init_std):
        gain = _VARIANCE_GAINS.get(str(weight_init_std).lower())
        for number, (inputs, outputs) in enumerate(zip(sizes, sizes[1:]), start=1):
            std = weight_init_std if gain is None else np.sqrt(gain / inputs)
            self.params[f"W{number}"] = std * np.random.randn(inputs, outputs)
            self.params[f"b{number}"] = np.zeros(outputs)

    def _add_affine(self, number):
        self.layers[f"Affine{number}"] = Affine(self.params[f"W{number}"], self.params[f"b{number}"])

    def _add_hidden(self, number, activation):
        self.layers[f"Activation_function{number}"] = activation

    def _decay(self):
        squares = sum(np.sum(self.params[f"W{n}"] ** 2) for n in range(1, self.hidden_layer_num + 2))
        return 0.5 * self.weight_decay_lambda * squares

    def predict(self, x):
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x, t):
        return self.last_layer.forward(self.predict(x), t) + self._decay()

    def accuracy(self, x, t):
        labels = t if t.ndim == 1 else np.argmax(t, axis=1)
        return np.sum(np.argmax(self.predict(x), axis=1) == labels) / float(len(x))

    def numerical_gradient(self, x, t):
        return self._central_differences(lambda _: self.loss(x, t))

    def gradient(self, x, t):
        self.loss(x, t)
        return self._backward()

    def _gradient_keys(self):
        for number in range(1, self.hidden_layer_num + 2):
            yield from (f"W{number}", f"b{number}")

    def _central_differences(self, loss):
        return {key: numerical_gradient(loss, self.params[key]) for key in self._gradient_keys()}

    def _backward(self):
        dout = self.last_layer.backward(1)
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        return {key: self._gradient_of(key) for key in self._gradient_keys()}

    def _gradient_of(self, key):
        layer = self.layers[f"Affine{key[1:]}"]
        return layer.dW + self.weight_decay_lambda * self.params[key] if key.startswith("W") else layer.db
