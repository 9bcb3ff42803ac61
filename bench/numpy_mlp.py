"""The best multi-layer perceptron that NumPy alone can do: what nnfast is compared with.

Memory is allocated once, for the largest batch: every operation has an `out=`, nothing is converted, and the gradient
of the input is not computed. All parameters lie in one array and all gradients in another, so that an optimiser's step
is a handful of calls for the whole network. Its losses, accuracies and weights are those of `nnfast.Network.fit`.
"""

from itertools import pairwise

import numpy as np


class NumpyMLP:
    """Affine layers with ReLU or tanh between them, softmax and cross-entropy error at the end.

    `weights` is W1, b1, W2, b2, ..., all of one dtype; they are copied.
    """

    def __init__(self, weights, batch_size, activation="relu", optimizer="sgd", lr=0.1):
        self.lr, self.activation, self.optimizer = weights[0].dtype.type(lr), activation, optimizer
        dtype = weights[0].dtype
        self.sizes = [weights[0].shape[0]] + [bias.shape[0] for bias in weights[1::2]]
        self.flat = np.concatenate([array.ravel() for array in weights])
        self.flat_gradient = np.empty_like(self.flat)
        self.flat_work = np.empty_like(self.flat)
        self.W, self.b = self._views(self.flat)
        self.dW, self.db = self._views(self.flat_gradient)
        self.x = np.empty((batch_size, self.sizes[0]), dtype)
        self.t = np.empty(batch_size, np.intp)
        self.y = [np.empty((batch_size, size), dtype) for size in self.sizes[1:]]
        self.dy = [np.empty((batch_size, size), dtype) for size in self.sizes[1:]]
        self.column = np.empty((batch_size, 1), dtype)
        self.best = np.empty(batch_size, np.intp)
        self.rows = np.arange(batch_size)
        if optimizer == "adam":
            self.m, self.v, self.steps = np.zeros_like(self.flat), np.zeros_like(self.flat), 0
            self.denominator = np.empty_like(self.flat)

    def _views(self, flat):
        """The parts of a flat array that are the weights and the biases."""
        weights, biases, place = [], [], 0
        for inputs, outputs in pairwise(self.sizes):
            weights.append(flat[place : place + inputs * outputs].reshape(inputs, outputs))
            place += inputs * outputs
            biases.append(flat[place : place + outputs])
            place += outputs
        return weights, biases

    def predict(self, x):
        """Scores (B, C) of x (B, I), B at most the batch size; the next call overwrites them."""
        last = len(self.W) - 1
        for place, (W, b, y) in enumerate(zip(self.W, self.b, self.y, strict=True)):
            y = y[: len(x)]
            np.matmul(x, W, out=y)
            np.add(y, b, out=y)
            if place < last:
                self._activate(y)
            x = y
        return x

    def _softmax(self, scores, t):
        """Scores turned into probabilities in place; returns the sum of the losses and how many are right."""
        rows, column = self.rows[: len(t)], self.column[: len(t)]
        # The largest score is found once, by its place: it counts the right ones and is subtracted for the softmax.
        best = np.argmax(scores, axis=1, out=self.best[: len(t)])
        correct = np.count_nonzero(best == t)
        column[:, 0] = scores[rows, best]
        np.subtract(scores, column, out=scores)
        np.exp(scores, out=scores)
        np.add.reduce(scores, axis=1, keepdims=True, out=column)
        np.divide(scores, column, out=scores)
        return -np.log(scores[rows, t].astype(np.float64) + 1e-7).sum(), correct

    def evaluate(self, x, t):
        """Mean loss and accuracy for at most a batch of rows."""
        loss, correct = self._softmax(self.predict(x), t)
        return loss / len(x), correct / len(x)

    def _activate(self, y):
        if self.activation == "relu":
            np.maximum(y, 0, out=y)
        else:
            np.tanh(y, out=y)

    def _activation_backward(self, y, dy):
        if self.activation == "relu":
            np.multiply(dy, y > 0, out=dy)
        else:
            np.multiply(y, y, out=y)
            np.subtract(1, y, out=y)
            np.multiply(dy, y, out=dy)

    def step(self, x, t):
        """Train on one batch; returns the sum of the losses and how many were right, before the update."""
        scores = self.predict(x)
        loss, correct = self._softmax(scores, t)
        scores[self.rows[: len(x)], t] -= 1
        np.divide(scores, len(x), out=scores)
        self._backward(x, scores)
        self._update()
        return loss, correct

    def _backward(self, x, dy):
        for place in reversed(range(len(self.W))):
            below = self.y[place - 1][: len(x)] if place else x
            np.matmul(below.T, dy, out=self.dW[place])
            np.add.reduce(dy, axis=0, out=self.db[place])
            if place:
                d_below = self.dy[place - 1][: len(x)]
                np.matmul(dy, self.W[place].T, out=d_below)
                self._activation_backward(below, d_below)
                dy = d_below

    def _update(self):
        gradient, work = self.flat_gradient, self.flat_work
        if self.optimizer == "sgd":
            np.multiply(gradient, self.lr, out=gradient)
            np.subtract(self.flat, gradient, out=self.flat)
            return
        self.steps += 1
        kind = self.flat.dtype.type
        lr = kind(self.lr * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps))
        np.subtract(gradient, self.m, out=work)
        np.multiply(work, kind(0.1), out=work)
        np.add(self.m, work, out=self.m)
        np.multiply(gradient, gradient, out=gradient)
        np.subtract(gradient, self.v, out=gradient)
        np.multiply(gradient, kind(0.001), out=gradient)
        np.add(self.v, gradient, out=self.v)
        np.sqrt(self.v, out=self.denominator)
        np.add(self.denominator, kind(1e-7), out=self.denominator)
        np.multiply(self.m, lr, out=work)
        np.divide(work, self.denominator, out=work)
        np.subtract(self.flat, work, out=self.flat)

    def epoch(self, x, t, order):
        """One pass over the rows in the given order, or as they come; returns the mean loss and the training accuracy."""
        batch_size, total, correct = len(self.x), 0.0, 0
        for first in range(0, len(x), batch_size):
            if order is None:
                x_batch, t_batch = x[first : first + batch_size], t[first : first + batch_size]
            else:
                rows = order[first : first + batch_size]
                # mode="clip" because "raise" gathers into a buffer first
                x_batch = np.take(x, rows, axis=0, out=self.x[: len(rows)], mode="clip")
                t_batch = np.take(t, rows, out=self.t[: len(rows)], mode="clip")
            loss, right = self.step(x_batch, t_batch)
            total += loss
            correct += right
        return total / len(x), correct / len(x)
