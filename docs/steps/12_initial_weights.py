"""
Initial values of the weights · 权重的初始值
============================================

Weights begin at random, since units that begin equal stay equal. How large? Chapter 6 sends 1,000 examples through five
layers of 100 sigmoid units and looks at what comes out of each. With a standard deviation (标准差) of 1 the outputs stick
to 0 and 1, where the sigmoid is flat and its gradient vanishes (梯度消失); with 0.01 all units say the same. The initial
value of Xavier (Xavier初始值), one over the root of the number of inputs, keeps them spread out.
"""

import numpy as np
from matplotlib import pyplot

from nnfast import Affine, Network, Sigmoid, plot_activations

rng = np.random.default_rng(0)
x = rng.normal(size=(1000, 100))

figure, rows = pyplot.subplots(3, 1, figsize=(13, 9), layout="constrained")
for row, std in zip(rows, [1, 0.01, 1 / np.sqrt(100)], strict=True):
    layers = []
    for _ in range(5):
        layers += [Affine(std * rng.normal(size=(100, 100)), np.zeros(100)), Sigmoid()]
    first, *_ = plot_activations(Network(layers), x, ax=row)
    first.set_ylabel(f"std of the weights {std:g}")

# %%
# ReLU throws half of its input away, so its weights must be larger by the root of 2: the initial value of He (He初始值),
# which ``Affine(inputs, units)`` begins with unless it is told ``init="xavier"``.

from nnfast import Relu

figure, rows = pyplot.subplots(2, 1, figsize=(13, 6), layout="constrained")
initial = {"Xavier": np.sqrt(1 / 100), "He": np.sqrt(2 / 100)}
for row, (name, std) in zip(rows, initial.items(), strict=True):
    layers = []
    for _ in range(5):
        layers += [Affine(std * rng.normal(size=(100, 100)), np.zeros(100)), Relu()]
    first, *_ = plot_activations(Network(layers), x, limits=(0, 3), ax=row)
    first.set_ylabel(name)
