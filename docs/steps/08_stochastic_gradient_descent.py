"""
Learning: stochastic gradient descent · 学习：随机梯度下降法
============================================================

All is there to learn (学习). Repeat: draw a mini-batch at random, take the gradient of its loss, change the weights
a little against it. Drawing at random is what makes it stochastic gradient descent (随机梯度下降法, SGD). The
gradient is the numerical one, with no chain rule in it: some seven thousand losses a step.
"""

import time

import numpy as np

from nnfast import Affine, Network, Relu, load_digits

(x, t), (x_test, t_test) = load_digits()
network = Network([Affine(64, 50), Relu(), Affine(50, 10)], seed=0, dtype="float64")
rng = np.random.default_rng(0)
losses, accuracies, lr = [], [], 0.3

start = time.perf_counter()
for step in range(300):
    batch = rng.choice(len(x), 100)
    gradients = network.numerical_gradient(x[batch], t[batch])
    for key in network.params:
        network.params[key] -= lr * gradients[key]
    losses.append(network.loss(x[batch], t[batch]))
    if step % 15 == 14:
        accuracies.append((step + 1, network.accuracy(x, t), network.accuracy(x_test, t_test)))
print(f"{time.perf_counter() - start:.2f} s for 300 steps, test accuracy {accuracies[-1][2]:.1%}")

# %%
# Whether something general was learned (泛化能力) is seen in examples that took no part, the test data (测试数据). If
# the training data go on to get better and these do not, the network learns by heart (过拟合).

from matplotlib import pyplot

from nnfast.util import smooth_curve

figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
left.plot(losses, color="0.8")
left.plot(smooth_curve(losses))
left.set(xlabel="step", ylabel="loss of the mini-batch", ylim=(0, None))
steps, training, test = zip(*accuracies, strict=True)
right.plot(steps, training, label="training data")
right.plot(steps, test, label="test data")
right.set(xlabel="step", ylabel="accuracy", ylim=(0, 1))
right.legend(frameon=False)
