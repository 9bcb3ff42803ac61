"""The formulas of chapters 3 and 4 on NumPy arrays, as the scripts in tests/book/scripts expect them.

No ``__all__``: the book's module has none, and its scripts take ``np`` from a star import.
"""

import numpy as np


def identity_function(x):
    return x


def step_function(x):
    return np.where(np.asarray(x) > 0, 1, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def sigmoid_grad(x):
    s = sigmoid(x)
    return s * (1.0 - s)


def relu(x):
    return np.maximum(0, x)


def relu_grad(x):
    # Slope 1 at zero itself, unlike the Relu layer, whose backward pass stops there.
    return (x >= 0).astype(x.dtype)


def softmax(x):
    exponentials = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return exponentials / np.sum(exponentials, axis=-1, keepdims=True)


def sum_squared_error(y, t):
    return 0.5 * np.sum((y - t) ** 2)


def cross_entropy_error(y, t):
    rows = np.atleast_2d(y)
    batch_size = rows.shape[0]
    labels = np.reshape(t, rows.shape).argmax(axis=1) if t.size == y.size else np.reshape(t, batch_size)
    return -np.sum(np.log(rows[np.arange(batch_size), labels] + 1e-7)) / batch_size


def softmax_loss(x, t):
    return cross_entropy_error(softmax(x), t)
