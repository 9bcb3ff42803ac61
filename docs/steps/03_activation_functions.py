"""
Activation functions and the neural network · 激活函数与神经网络
================================================================

What turns a unit's sum into its output is its activation function (激活函数). The perceptron's is the step function
(阶跃函数): its derivative is 0 wherever it has one, so that a small change of a weight changes nothing, and nothing can
be learned from it. Take a smooth one, the sigmoid function (sigmoid函数), or one that is a straight line on one side,
ReLU, and the perceptron becomes a neural network (神经网络).
"""

from nnfast import plot_activation_functions

plot_activation_functions()

# %%
# It must not be linear (线性函数), or layers would be for nothing: two matrix products in a row are one.

import numpy as np

rng = np.random.default_rng(0)
x, W1, W2 = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=(3, 2))
print("two linear layers are one:", np.allclose((x @ W1) @ W2, x @ (W1 @ W2)))

# %%
# A network of n layers (n层神经网络) passes the signal on (信号传递): times the weights, plus the biases, through the
# activation function, layer by layer. This one has three, with the weights of chapter 3; for the inputs 1.0 and 0.5
# the book gives 0.31682708 and 0.69627909.

from nnfast import Affine, Network, Sigmoid

network = Network([
    Affine(np.array([[0.1, 0.3, 0.5], [0.2, 0.4, 0.6]]), np.array([0.1, 0.2, 0.3])),
    Sigmoid(),
    Affine(np.array([[0.1, 0.4], [0.2, 0.5], [0.3, 0.6]]), np.array([0.1, 0.2])),
    Sigmoid(),
    Affine(np.array([[0.1, 0.3], [0.2, 0.4]]), np.array([0.1, 0.2])),
])
print(network.predict([[1.0, 0.5]]))
