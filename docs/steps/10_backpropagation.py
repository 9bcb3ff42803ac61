r"""
Backpropagation · 误差反向传播法
================================

Backpropagation (误差反向传播法) is the backward pass through the graph of a network, a layer (层) at a time. Each layer has a
``forward``, which keeps what it will need, and a ``backward``, which takes :math:`\partial L / \partial y` and gives
:math:`\partial L / \partial x`. An Affine layer (Affine层), for a batch:

.. math::

    \frac{\partial L}{\partial X} = \frac{\partial L}{\partial Y} W^T \qquad
    \frac{\partial L}{\partial W} = X^T \frac{\partial L}{\partial Y} \qquad
    \frac{\partial L}{\partial b} = \text{the sum of } \frac{\partial L}{\partial Y} \text{ over the batch}

A ReLU layer lets a gradient pass where its input was above 0. Softmax and cross-entropy error together
(Softmax-with-Loss层) give :math:`y - t`: how far the outputs are off, no more. Outputs of 0.3, 0.2, 0.5 where the second
class is right send back 0.3, -0.8, 0.5.
"""

import numpy as np

from nnfast import SoftmaxWithLoss

last = SoftmaxWithLoss()
last.forward(np.log([[0.3, 0.2, 0.5]]), np.array([[0, 1, 0]]))
print(last.backward())

# %%
# A network with the shapes of what passes forward and backward:

from matplotlib import pyplot

from nnfast import Affine, Network, Relu, load_digits

(x, t), _ = load_digits()
network = Network([Affine(64, 50), Relu(), Affine(50, 10)], seed=0, dtype="float64")
figure, axes = pyplot.subplots(figsize=(14, 3.8), layout="constrained")
network.draw(x[:100], t[:100], ax=axes)
print(network.summary())

# %%
# One pass gives the gradient of all 3,760 parameters. The numerical gradient gives the same, much later.

import time


def timed(method):
    method(x[:100], t[:100])     # the first call takes longer
    start = time.perf_counter()
    for _ in range(20):
        gradients = method(x[:100], t[:100])
    return gradients, (time.perf_counter() - start) / 20


backward, quick = timed(network.gradient)
numerical, slow = timed(network.numerical_gradient)
apart = max(np.abs(backward[key] - numerical[key]).max() for key in network.params)
print(f"{1e6 * quick:.0f} µs by backpropagation, {1e6 * slow:.0f} µs numerically")
print(f"largest difference {apart:.0e}")
