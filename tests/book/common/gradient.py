"""The gradient by central differences."""

import numpy as np


def numerical_gradient(f, x):
    h = 1e-4
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        try:
            x[index] = kept + h
            above = f(x)
            x[index] = kept - h
            below = f(x)
        finally:
            x[index] = kept
        grad[index] = (above - below) / (2 * h)
    return grad
