"""Chapter 5: the two-layer network built from layers, its gradient checked, then trained."""

from collections import OrderedDict

import numpy as np
from common.datasets import load_mnist
from common.gradient import numerical_gradient
from common.layers import *


class TwoLayerNet:
    def __init__(self, input_size, hidden_size, output_size, weight_init_std=0.01):
        sizes = {"1": (input_size, hidden_size), "2": (hidden_size, output_size)}
        self.params = {}
        for number, (rows, columns) in sizes.items():
            self.params["W" + number] = weight_init_std * np.random.randn(rows, columns)
            self.params["b" + number] = np.zeros(columns)

        self.layers = OrderedDict()
        self.layers["Affine1"] = Affine(self.params["W1"], self.params["b1"])
        self.layers["Relu1"] = Relu()
        self.layers["Affine2"] = Affine(self.params["W2"], self.params["b2"])
        self.lastLayer = SoftmaxWithLoss()

    def predict(self, x):
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x, t):
        return self.lastLayer.forward(self.predict(x), t)

    def accuracy(self, x, t):
        if t.ndim != 1:
            t = np.argmax(t, axis=1)
        return np.sum(np.argmax(self.predict(x), axis=1) == t) / float(x.shape[0])

    def numerical_gradient(self, x, t):
        return {key: numerical_gradient(lambda W: self.loss(x, t), self.params[key]) for key in self.params}

    def gradient(self, x, t):
        self.loss(x, t)
        dout = self.lastLayer.backward(1)
        for layer in reversed(list(self.layers.values())):
            dout = layer.backward(dout)
        grads = {}
        for number in ("1", "2"):
            grads["W" + number] = self.layers["Affine" + number].dW
            grads["b" + number] = self.layers["Affine" + number].db
        return grads


np.random.seed(1)
(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True, one_hot_label=True)

small = TwoLayerNet(input_size=28, hidden_size=10, output_size=10)
x_batch, t_batch = x_train[:3, 392:420], t_train[:3]
grad_numerical = small.numerical_gradient(x_batch, t_batch)
grad_backprop = small.gradient(x_batch, t_batch)
for key in grad_numerical:
    diff = np.average(np.abs(grad_backprop[key] - grad_numerical[key]))
    print(key + ":" + str(diff) + " of " + str(np.average(np.abs(grad_backprop[key]))))

network = TwoLayerNet(input_size=784, hidden_size=50, output_size=10)
iters_num = 600
train_size = x_train.shape[0]
batch_size = 100
learning_rate = 0.1
iter_per_epoch = max(train_size / batch_size, 1)
for i in range(iters_num):
    batch_mask = np.random.choice(train_size, batch_size)
    x_batch, t_batch = x_train[batch_mask], t_train[batch_mask]
    grad = network.gradient(x_batch, t_batch)
    for key in ("W1", "b1", "W2", "b2"):
        network.params[key] -= learning_rate * grad[key]
    loss = network.loss(x_batch, t_batch)
    if i % iter_per_epoch == 0:
        print("loss " + str(loss))
        print("train acc, test acc | " + str(network.accuracy(x_train, t_train)), network.accuracy(x_test, t_test))
