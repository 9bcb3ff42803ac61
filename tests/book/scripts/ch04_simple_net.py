"""Chapter 4: the gradient of one 2 x 3 weight matrix under softmax and cross-entropy."""

import numpy as np
from common.functions import cross_entropy_error, softmax
from common.gradient import numerical_gradient


class SimpleNet:
    def __init__(self):
        self.W = np.random.randn(2, 3)

    def predict(self, x):
        return np.dot(x, self.W)

    def loss(self, x, t):
        return cross_entropy_error(softmax(self.predict(x)), t)


np.random.seed(42)
x = np.array([0.6, 0.9])
t = np.array([0, 0, 1])
net = SimpleNet()
print("W:")
print(net.W)
print("scores:", net.predict(x), "class:", np.argmax(net.predict(x)))
print("loss:", net.loss(x, t))

f = lambda w: net.loss(x, t)  # noqa: E731
for step in range(30):
    dW = numerical_gradient(f, net.W)
    if step % 10 == 0:
        print("step " + str(step) + ", loss " + str(net.loss(x, t)) + ", dW:")
        print(dW)
    net.W -= 0.5 * dW
print("class after descent:", np.argmax(net.predict(x)), "loss:", net.loss(x, t))
