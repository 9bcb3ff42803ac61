r"""
Numerical differentiation and the gradient · 数值微分与梯度
===========================================================

A derivative (导数) is the slope at a point. Numerical differentiation (数值微分) takes the slope between two points
close by, best on both sides: the central difference (中心差分)

.. math:: \frac{df}{dx} \approx \frac{f(x + h) - f(x - h)}{2h}

How close? If :math:`h` is large, the function is not straight between the points; if it is small, the difference is
lost in the rounding of the two values (舍入误差). 1e-4 is a good choice, and the forward difference (前向差分) a worse
formula for every :math:`h` above 1e-7.
"""

import numpy as np
from matplotlib import pyplot

x, slope = 1.0, np.cos(1.0)
h = np.logspace(-13, -0.5, 60)
forward = (np.sin(x + h) - np.sin(x)) / h
central = (np.sin(x + h) - np.sin(x - h)) / (2 * h)

figure, axes = pyplot.subplots(figsize=(7, 3.8), layout="constrained")
axes.loglog(h, np.abs(forward - slope), label="forward difference")
axes.loglog(h, np.abs(central - slope), label="central difference")
axes.axvline(1e-4, color="0.7", linestyle="--")
axes.set(xlabel="h", ylabel="error", title="slope of the sine at 1")
axes.legend(frameon=False)

# %%
# The partial derivatives (偏导数) for all variables together are the gradient (梯度). Against it a function falls most
# steeply; here :math:`f(x_0, x_1) = x_0^2 + x_1^2`, whose gradient at (3, 4) is (6, 8).

from nnfast.gradient import numerical_gradient


def f(x):
    return float(np.sum(x**2))


print(numerical_gradient(f, np.array([3.0, 4.0])))

places = np.arange(-2, 2.5, 0.5)
points = np.array([(x0, x1) for x0 in places for x1 in places])
downhill = np.array([-numerical_gradient(f, point.copy()) for point in points])
figure, axes = pyplot.subplots(figsize=(4.6, 4.2), layout="constrained")
axes.quiver(*points.T, *downhill.T, angles="xy")
axes.set(xlabel="$x_0$", ylabel="$x_1$", title="minus the gradient")

# %%
# For a network it is the loss that is differentiated, and the weights (权重的梯度) are the variables:
# :math:`\partial L / \partial W` has the shape of :math:`W`, and says for each weight how the loss changes with it. The
# smallest of all networks, with the numbers of chapter 4; the book gives 0.219, 0.144, -0.363 in the first row.

from nnfast import Affine, Network

W = np.array([[0.47355232, 0.9977393, 0.84668094], [0.85557411, 0.03563661, 0.69422093]])
simple = Network([Affine(W, np.zeros(3))])
print(simple.numerical_gradient([[0.6, 0.9]], [2])["W1"])

# %%
# The whole loss twice for every single weight: that takes long (``method="brute"``). nnfast computes the same loss at
# the same points, but of it only what the one weight changes.

import time

from nnfast import Relu, load_digits

(x, t), _ = load_digits()
network = Network([Affine(64, 50), Relu(), Affine(50, 10)], seed=0, dtype="float64")
gradients, seconds = {}, {}
for method in "exact", "brute":
    start = time.perf_counter()
    gradients[method] = network.numerical_gradient(x[:100], t[:100], method=method)
    seconds[method] = time.perf_counter() - start
apart = max(np.abs(gradients["exact"][key] - gradients["brute"][key]).max() for key in network.params)
print(f"3,760 parameters: {seconds['brute']:.3f} s by brute force, {seconds['exact']:.4f} s exactly")
print(f"largest difference {apart:.0e}")
