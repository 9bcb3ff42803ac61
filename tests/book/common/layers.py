"""The layers of chapters 5 and 6: forward(x) keeps what backward(dout) needs.

No ``__all__``: a star import also brings ``np`` and the functions, and scripts rely on it.
"""

import numpy as np

from common.functions import *


class Relu:
    def __init__(self):
        self.mask = None

    def forward(self, x):
        self.mask = x <= 0
        # Chosen rather than multiplied, so that inf and NaN stay what they are where x is positive.
        return np.where(self.mask, 0, x)

    def backward(self, dout):
        return np.where(self.mask, 0, dout)


class Sigmoid:
    def __init__(self):
        self.out = None

    def forward(self, x):
        self.out = sigmoid(x)
        return self.out

    def backward(self, dout):
        return dout * (1.0 - self.out) * self.out


class Affine:
    def __init__(self, W, b):
        self.W, self.b = W, b
        self.x = self.original_x_shape = None
        self.dW = self.db = None

    def forward(self, x):
        self.original_x_shape = x.shape
        self.x = x.reshape(len(x), -1)
        return self.x @ self.W + self.b

    def backward(self, dout):
        self.dW = self.x.T @ dout
        self.db = dout.sum(axis=0)
        return (dout @ self.W.T).reshape(self.original_x_shape)


class SoftmaxWithLoss:
    def __init__(self):
        self.loss = self.y = self.t = None

    def forward(self, x, t):
        self.y, self.t = softmax(x), t
        self.loss = cross_entropy_error(self.y, t)
        return self.loss

    def backward(self, dout=1):
        # dout is not used, as in the book: this layer is always the last.
        batch_size = len(self.t)
        target = self.t if self.t.size == self.y.size else np.eye(self.y.shape[1])[self.t]
        return (self.y - target) / batch_size


class Dropout:
    """Dropout that scales when it predicts, not when it trains (arXiv 1207.0580)."""

    def __init__(self, dropout_ratio=0.5):
        self.dropout_ratio = dropout_ratio
        self.mask = None

    def forward(self, x, train_flg=True):
        if not train_flg:
            return x * (1.0 - self.dropout_ratio)
        self.mask = np.random.rand(*x.shape) > self.dropout_ratio
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class BatchNormalization:
    """Batch normalisation (arXiv 1502.03167); more than two axes are flattened to (N, -1)."""

    def __init__(self, gamma, beta, momentum=0.9, running_mean=None, running_var=None):
        self.gamma, self.beta = gamma, beta
        self.momentum = momentum
        self.running_mean, self.running_var = running_mean, running_var
        self.dgamma = self.dbeta = None

    def forward(self, x, train_flg=True):
        rows = x.reshape(len(x), -1)
        if self.running_mean is None:
            self.running_mean = np.zeros(rows.shape[1])
            self.running_var = np.zeros(rows.shape[1])
        if train_flg:
            mean = rows.mean(axis=0)
            self.xc = rows - mean
            variance = np.mean(self.xc**2, axis=0)
            self.std = np.sqrt(variance + 10e-7)
            self.xn = normalised = self.xc / self.std
            kept, new = self.momentum, 1 - self.momentum
            self.running_mean = kept * self.running_mean + new * mean
            self.running_var = kept * self.running_var + new * variance
        else:
            normalised = (rows - self.running_mean) / np.sqrt(self.running_var + 10e-7)
        return (self.gamma * normalised + self.beta).reshape(x.shape)

    def backward(self, dout):
        rows = dout.reshape(len(dout), -1)
        batch_size = len(rows)
        self.dbeta = rows.sum(axis=0)
        self.dgamma = (self.xn * rows).sum(axis=0)
        dxn = self.gamma * rows
        # Through the centred values directly, then through the variance, then through the mean.
        dvariance = -0.5 * np.sum(dxn * self.xc, axis=0) / self.std**3
        dxc = dxn / self.std + 2.0 / batch_size * self.xc * dvariance
        return (dxc - dxc.sum(axis=0) / batch_size).reshape(dout.shape)
