"""Every kernel once more, in plain NumPy and float64: what the fast ones are compared with.

A function has its kernel's name, takes the kernel's inputs and returns its outputs. Arguments are converted to
float64, so that the result is the exact one to some 1e-16. Letters for shapes: B examples, I inputs, O outputs,
C classes.
"""

import contextlib
import copy
import math

import numpy as np

EPSILON = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float64): 2.0**-53}
"""Half a unit in the last place of 1: the largest relative error of one rounding."""


def rounding(dtype, operations, largest):
    """The error that so many roundings of values as large as `largest` can add up to, with as much for safety."""
    return 2 * operations * EPSILON[np.dtype(dtype)] * largest


def in_float64(*arrays):
    return tuple(np.asarray(array, np.float64) for array in arrays)


# Products

def affine_forward(x, w, b):
    x, w, b = in_float64(x, w, b)
    return x @ w + b


def affine_backward_input(dy, w):
    dy, w = in_float64(dy, w)
    return dy @ w.T


def affine_backward_parameters(x, dy):
    """dw, db."""
    x, dy = in_float64(x, dy)
    return x.T @ dy, dy.sum(axis=0)


# Element by element. backward takes the layer's input x, whatever the kernel keeps, and dy.

def relu_forward(x):
    (x,) = in_float64(x)
    return np.where(x <= 0, 0, x)   # this way round NaN stays NaN, as with the book's mask


def relu_backward(x, dy):
    x, dy = in_float64(x, dy)
    return np.where(x <= 0, 0, dy)


def leaky_relu_forward(x, slope):
    (x,) = in_float64(x)
    return np.where(x <= 0, slope * x, x)


def leaky_relu_backward(x, dy, slope):
    x, dy = in_float64(x, dy)
    return np.where(x <= 0, slope * dy, dy)


def sigmoid_forward(x):
    (x,) = in_float64(x)
    small = np.exp(-np.abs(x))     # never overflows
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def sigmoid_backward(x, dy):
    y = sigmoid_forward(x)
    return y * (1 - y) * dy


sigmoid = sigmoid_forward


def tanh_forward(x):
    (x,) = in_float64(x)
    return np.tanh(x)


def tanh_backward(x, dy):
    return (1 - tanh_forward(x) ** 2) * dy


def _normal_distribution(x):
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x.ravel()]).reshape(x.shape)


def gelu_forward(x):
    """x times the standard normal distribution function at x."""
    (x,) = in_float64(x)
    return x * _normal_distribution(x)


def gelu_backward(x, dy):
    x, dy = in_float64(x, dy)
    return (_normal_distribution(x) + x * np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)) * dy


def masked(x, mask):
    x, mask = in_float64(x, mask)
    return x * mask


def scaled(x, factor):
    (x,) = in_float64(x)
    return x * factor


# Batch normalisation

def batch_normalization_forward(x, gamma, beta, epsilon):
    """y, xn, mean, variance, std."""
    x, gamma, beta = in_float64(x, gamma, beta)
    mean = x.mean(axis=0)
    variance = ((x - mean) ** 2).mean(axis=0)
    std = np.sqrt(variance + epsilon)
    xn = (x - mean) / std
    return gamma * xn + beta, xn, mean, variance, std


def batch_normalization_predict(x, gamma, beta, mean, variance, epsilon):
    x, gamma, beta, mean, variance = in_float64(x, gamma, beta, mean, variance)
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def batch_normalization_backward(x, gamma, dy, epsilon):
    """dx, dgamma, dbeta, by the chain rule through mean and variance step by step, as the book does it."""
    x, gamma, dy = in_float64(x, gamma, dy)
    centred = x - x.mean(axis=0)
    std = np.sqrt((centred**2).mean(axis=0) + epsilon)
    dxn = gamma * dy
    dstd = -(dxn * centred / std**2).sum(axis=0)
    dvariance = 0.5 * dstd / std
    dcentred = dxn / std + 2 / x.shape[0] * centred * dvariance
    dx = dcentred - dcentred.mean(axis=0)
    return dx, (dy * centred / std).sum(axis=0), dy.sum(axis=0)


# Losses

def softmax(x):
    """Over the last axis."""
    (x,) = in_float64(x)
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def one_hot(labels, classes):
    return np.eye(classes)[np.asarray(labels)]


def cross_entropy(y, labels):
    """Each row's loss; the 1e-7 in the logarithm is the book's."""
    (y,) = in_float64(y)
    return -np.log(y[np.arange(y.shape[0]), labels] + 1e-7)


def softmax_cross_entropy(scores, labels):
    """Each row's loss."""
    return cross_entropy(softmax(scores), labels)


def softmax_cross_entropy_backward(scores, labels):
    """Gradient of the mean of the rows' losses, the 1e-7 in the logarithm left out, as the book does."""
    y = softmax(scores)
    return (y - one_hot(labels, y.shape[1])) / y.shape[0]


def squared_error(y, t):
    """Each row's loss."""
    y, t = in_float64(y, t)
    return 0.5 * ((y - t) ** 2).sum(axis=-1)


def sigmoid_cross_entropy(scores, t):
    """Each row's loss. log(1 + exp(s)) is taken from its larger part so that it is exact for large scores."""
    scores, t = in_float64(scores, t)
    return (np.logaddexp(0, scores) - scores * t).sum(axis=-1)


def smoothed(labels, classes, smoothing):
    """One-hot rows, of which a part is shared out among all classes."""
    return one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def smoothed_cross_entropy(scores, labels, smoothing):
    """Each row's loss, all from how far the scores are below the largest."""
    (scores,) = in_float64(scores)
    largest = scores.max(axis=-1, keepdims=True)
    t = smoothed(labels, scores.shape[1], smoothing)
    return np.log(np.exp(scores - largest).sum(axis=-1)) + (t * (largest - scores)).sum(axis=-1)


def absolute_error(y, t):
    """Each row's loss."""
    y, t = in_float64(y, t)
    return np.abs(y - t).sum(axis=-1)


def absolute_error_slope(y, t):
    """The derivative of a row's loss with respect to each output."""
    y, t = in_float64(y, t)
    return np.sign(y - t)


def huber_loss(y, t, delta):
    y, t = in_float64(y, t)
    size = np.abs(y - t)
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).sum(axis=-1)


def huber_loss_slope(y, t, delta):
    y, t = in_float64(y, t)
    return np.clip(y - t, -delta, delta)


def quantile_loss(y, t, quantile):
    y, t = in_float64(y, t)
    q = np.asarray(quantile)
    half = y / 2 - t / 2    # the whole of it may overflow where its share does not
    return (2 * np.where(half > 0, 1 - q, -q) * half).sum(axis=-1)


def quantile_loss_slope(y, t, quantile):
    y, t = in_float64(y, t)
    q = np.asarray(quantile)
    return np.where(y > t, 1 - q, np.where(y < t, -q, y - t))


def poisson_loss(scores, t):
    """Half of the deviance of each row, whose first term is 0 where t is, and whose last one outgrows the others."""
    scores, t = in_float64(scores, t)
    with np.errstate(all="ignore"):
        y = np.exp(scores)
        terms = np.where(t > 0, t * (np.log(t) - scores - 1), -t) + y
    return np.where(np.isposinf(y) & ~np.isnan(t), np.inf, terms).sum(axis=-1)


def size_of_poisson_loss(scores, t):
    """What each row's loss is a difference of, with what its rounding is multiplied by."""
    scores, t = in_float64(scores, t)
    with np.errstate(all="ignore"):
        sizes = (np.exp(scores) + np.abs(t)) * (np.abs(scores) + np.abs(np.log(np.where(t > 0, t, 1))) + 4)
    return np.where(np.isfinite(sizes), sizes, 0).sum(axis=-1)


def difference_backward(y, t, batch_size):
    y, t = in_float64(y, t)
    return (y - t) / batch_size


# Optimisers: the new parameter, and the new state

def sgd_step(gradient, parameter, *, lr):
    gradient, parameter = in_float64(gradient, parameter)
    return (parameter - lr * gradient,)


def momentum_step(gradient, parameter, v, *, lr, momentum):
    gradient, parameter, v = in_float64(gradient, parameter, v)
    v = momentum * v - lr * gradient
    return parameter + v, v


def nesterov_step(gradient, parameter, v, *, lr, momentum):
    """Bengio et al., 2013, equations 6 and 7: the velocity of before the step moves the parameter."""
    gradient, parameter, v = in_float64(gradient, parameter, v)
    parameter = parameter + momentum**2 * v - (1 + momentum) * lr * gradient
    return parameter, momentum * v - lr * gradient


def adagrad_step(gradient, parameter, h, *, lr):
    gradient, parameter, h = in_float64(gradient, parameter, h)
    h = h + gradient**2
    return parameter - lr * gradient / (np.sqrt(h) + 1e-7), h


def rmsprop_step(gradient, parameter, h, *, lr, decay_rate):
    gradient, parameter, h = in_float64(gradient, parameter, h)
    h = decay_rate * h + (1 - decay_rate) * gradient**2
    return parameter - lr * gradient / (np.sqrt(h) + 1e-7), h


def adam_step(gradient, parameter, m, v, *, lr, beta1, beta2, iteration, weight_decay=0.0, epsilon=1e-7):
    """The book's Adam: the bias corrections in the learning rate, epsilon outside the root. AdamW with weight_decay."""
    gradient, parameter, m, v = in_float64(gradient, parameter, m, v)
    lr_t = lr * math.sqrt(1 - beta2**iteration) / (1 - beta1**iteration)
    m = beta1 * m + (1 - beta1) * gradient
    v = beta2 * v + (1 - beta2) * gradient**2
    return (1 - lr * weight_decay) * parameter - lr_t * m / (np.sqrt(v) + epsilon), m, v


# Gradients

def central_difference(f, x, h=1e-4):
    """The gradient of f at x, one element after the other; x is restored."""
    gradient = np.empty(x.shape)
    for place in np.ndindex(x.shape):
        value = x[place]
        x[place] = value + h
        above = f(x)
        x[place] = value - h
        below = f(x)
        x[place] = value
        gradient[place] = (above - below) / (2 * h)
    return gradient


# One array in every layout that NumPy knows: the values are the same if they are small whole numbers

def _reversed(array):
    return np.flip(np.flip(array).copy())


def _strided(array):
    return np.repeat(array, 3, axis=-1)[..., 1::3]


def _read_only(array):
    array = array.copy(order="K")
    array.flags.writeable = False
    return array


def _unaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    result = memory[1:].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


SAME_DTYPE_LAYOUTS = {
    "Fortran": np.asfortranarray,
    "strided": _strided,
    "reversed": _reversed,
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "unaligned": _unaligned,
}
"""Functions from an array to one with its values, writeable and of its dtype but for the order of bytes."""

LAYOUTS = SAME_DTYPE_LAYOUTS | {
    "read-only": _read_only,
    "read-only Fortran": lambda array: _read_only(np.asfortranarray(array)),
    "float32": lambda array: array.astype(np.float32),
    "float64": lambda array: array.astype(np.float64),
    "Fortran of the other float": lambda array: np.asfortranarray(array, "f4" if array.itemsize == 8 else "f8"),
    "float16": lambda array: array.astype(np.float16),
    "longdouble": lambda array: array.astype(np.longdouble),
    "int8": lambda array: array.astype(np.int8),
    "list": lambda array: array.tolist(),
}
"""Functions from an array to array_likes of its values."""


@contextlib.contextmanager
def unchanged(*given):
    """Assert that what is given is the same after as before."""
    before = copy.deepcopy(given)
    yield
    for now, then in zip(given, before, strict=True):
        assert type(now) is type(then)
        np.testing.assert_array_equal(now, then)


def float_of(given):
    """The dtype in which layers without parameters compute: of two floats the one that holds the values."""
    dtype = np.asarray(given).dtype
    return np.dtype(np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64)


def assert_rounded(result, expected, dtype, operations, largest=1.0):
    """The expected shape, the dtype, and the values but for so many roundings of values as large as `largest`."""
    assert result.shape == np.shape(expected)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, rtol=0, atol=rounding(dtype, operations, largest))


# Calling a kernel

POISON = -12345
"""What an output holds before a call: finite, exact in every dtype, and far from every result."""

GUARD = 64
"""Elements before and after an argument that no kernel may touch."""

UNREADABLE = {"f": np.nan, "i": POISON, "u": 255}
"""What stands around an input, by kind of dtype: read by mistake, it spoils the result."""


def embedded(array, offset, around):
    """A copy of the array amid guard elements, so many elements further into the memory; and all of that memory."""
    whole = np.full(array.size + 2 * GUARD + offset, around, array.dtype)
    inside = whole[GUARD + offset : GUARD + offset + array.size].reshape(array.shape)
    inside[...] = array
    return inside, whole


def unwritten(shape, dtype):
    return np.full(shape, POISON, dtype)


def call(kernel, inputs, outputs, settings, offset=0):
    """What the kernel returns, and a copy of its outputs (and states), all of them passed by name.

    inputs are read-only, outputs start as given. Every array has its own alignment, varied by offset. Fails when the
    kernel changes an input or writes beside an output.
    """
    arguments, memory = {}, {}
    for number, (name, array) in enumerate({**inputs, **outputs}.items()):
        around = UNREADABLE[array.dtype.kind] if name in inputs else POISON
        arguments[name], memory[name] = embedded(array, (offset + number) % 4, around)
    before = {name: memory[name].copy() for name in inputs}
    for name in inputs:
        arguments[name].flags.writeable = False
    returned = kernel(**arguments, **settings)
    for name in inputs:
        assert memory[name].tobytes() == before[name].tobytes(), f"the kernel wrote to its input {name}"
    for name in outputs:
        result = arguments[name].copy()
        arguments[name][...] = POISON
        assert (memory[name] == POISON).all(), f"the kernel wrote beside its output {name}"
        arguments[name] = result
    return returned, {name: arguments[name] for name in outputs}


def assert_close(result, expected, tolerance, what):
    """The same infinities and NaN, and everything else within the tolerance (of one value, or of each)."""
    result, expected = np.asarray(result), np.asarray(expected, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = expected.astype(result.dtype)
        finite = np.isfinite(rounded)
        allowed = tolerance + 2 * np.finfo(result.dtype).smallest_subnormal    # underflow may lose the last digits
        error = np.where(finite, np.abs(result - expected), 0)
        wrong = np.where(finite, ~(error <= allowed), ~((result == rounded) | (np.isnan(result) & np.isnan(rounded))))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{what}: {wrong.sum()} of {wrong.size} wrong, first at {place}: {result[place]!r} instead of "
            f"{expected[place]!r}, allowed {np.broadcast_to(allowed, wrong.shape)[place]!r}"
        )


# Figures

def assert_nothing_sticks_out(figure):
    """All that is drawn lies inside the figure."""
    figure.draw_without_rendering()
    box = figure.get_tightbbox()      # in inches
    width, height = figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
