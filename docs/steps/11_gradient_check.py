"""
Gradient check · 梯度确认
=========================

The numerical gradient is simple, so it is seldom wrong; backpropagation is fast, and easily wrong. Comparing the two is
the gradient check (梯度确认).
"""

import numpy as np

from nnfast import Affine, Network, Sigmoid, gradient_check, load_digits

(x, t), _ = load_digits()
network = Network([Affine(64, 20), Sigmoid(), Affine(20, 10)], seed=0)
print(gradient_check(network, x[:50], t[:50]))

# %%
# Here is a layer with a fault, and it is found, by name.


class Square:
    def forward(self, x):
        self.x = x
        return x**2

    def backward(self, dout):
        return dout * self.x        # forgotten: 2 *


faulty = Network([Affine(64, 20), Square(), Affine(20, 10)], seed=0)
print(gradient_check(faulty, x[:50], t[:50]))

# %%
# The same as a picture: each dot is a parameter before the fault. The right ones lie on the line.

from matplotlib import pyplot

figure, panels = pyplot.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
titles = {"Sigmoid": network, "Square, wrong": faulty}
for axes, (title, checked) in zip(panels, titles.items(), strict=True):
    numerical = checked.numerical_gradient(x[:50], t[:50])["W1"].ravel()
    backward = np.array(checked.gradient(x[:50], t[:50])["W1"]).ravel()
    axes.axline((0, 0), slope=1, color="0.7", linewidth=1)
    axes.plot(numerical, backward, ".", markersize=3)
    axes.set(title=title, xlabel="numerical", ylabel="by backpropagation")
