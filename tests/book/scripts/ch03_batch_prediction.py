"""Chapter 3: a three-layer network with ready weights predicts the test images, a batch at a time."""

import numpy as np
from common.datasets import load_mnist
from common.functions import sigmoid, softmax


def hidden(network, x):
    for number in "12":
        x = sigmoid(np.dot(x, network["W" + number]) + network["b" + number])
    return x


def predict(network, x):
    return softmax(np.dot(hidden(network, x), network["W3"]) + network["b3"])


def init_network(x, t):
    """Random hidden layers under an output layer fitted by ridge regression: ready weights without a file."""
    network = {
        "W1": np.random.randn(784, 50) / np.sqrt(20),
        "b1": np.random.randn(50),
        "W2": np.random.randn(50, 100) / np.sqrt(5),
        "b2": np.random.randn(100),
        "b3": np.zeros(10),
    }
    z = hidden(network, x)
    network["W3"] = 5 * np.linalg.solve(np.dot(z.T, z) + np.eye(100), np.dot(z.T, t))
    return network


np.random.seed(0)
(x_train, t_train), _ = load_mnist(one_hot_label=True)
_, (x, t) = load_mnist(normalize=True, flatten=True, one_hot_label=False)
network = init_network(x_train, t_train)

print("probabilities of the first image:")
for probability in predict(network, x[0]):
    print(probability)

batch_size = 100
accuracy_cnt = 0
for i in range(0, len(x), batch_size):
    y_batch = predict(network, x[i : i + batch_size])
    p = np.argmax(y_batch, axis=1)
    print("batch from " + str(i) + ", largest probability " + str(y_batch.max()))
    accuracy_cnt += np.sum(p == t[i : i + batch_size])

print("Accuracy:" + str(float(accuracy_cnt) / len(x)))
