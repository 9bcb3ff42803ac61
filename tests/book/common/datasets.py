"""Made-up images of MNIST's shape and range, the same on every call, without touching the global np.random.

Each class is a smooth random blot on a black ground. An image is its class's blot moved by up to two pixels,
mixed with another smooth field, under noise: easy enough to learn in a second, hard enough to over-fit.
"""

import numpy as np

_SIDE = 28
_CLASSES = 10


def load_mnist(normalize=True, flatten=True, one_hot_label=False):
    random = np.random.RandomState(20161003)
    blots = np.clip(_smooth_fields(random, _CLASSES, width=3.0) - 0.3, 0, None)
    blots /= blots.max(axis=(1, 2), keepdims=True)
    disturbances = np.clip(_smooth_fields(random, 60, width=2.0), 0, None)
    return tuple(_draw(random, size, blots, disturbances, normalize, flatten, one_hot_label) for size in (3000, 500))


def _smooth_fields(random, count, width):
    """Return count fields of unit standard deviation, smoothed over about width pixels."""
    frequency = np.fft.fftfreq(_SIDE)
    low_pass = np.exp(-2 * (np.pi * width) ** 2 * (frequency[:, None] ** 2 + frequency**2))
    fields = np.fft.ifft2(np.fft.fft2(random.randn(count, _SIDE, _SIDE)) * low_pass).real
    return fields / fields.std(axis=(1, 2), keepdims=True)


def _draw(random, size, blots, disturbances, normalize, flatten, one_hot_label):
    labels = random.randint(_CLASSES, size=size)
    down, right = random.randint(-2, 3, size=(2, size, 1))
    pixel = np.arange(_SIDE)
    rows, columns = (pixel + down) % _SIDE, (pixel + right) % _SIDE
    images = blots[labels[:, None, None], rows[:, :, None], columns[:, None, :]]
    images = images + 0.35 * disturbances[random.randint(len(disturbances), size=size)]
    images += 0.15 * random.randn(size, _SIDE, _SIDE)
    pixels = np.uint8(255 * np.clip(images - 0.15, 0, 1)).reshape(size, 1, _SIDE, _SIDE)
    if normalize:
        pixels = pixels.astype(np.float32) / 255
    if flatten:
        pixels = pixels.reshape(size, -1)
    return pixels, np.eye(_CLASSES, dtype=int)[labels] if one_hot_label else labels.astype(np.uint8)
