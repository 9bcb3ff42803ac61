r"""
Loss functions and mini-batches · 损失函数与mini-batch
======================================================

A loss function (损失函数) says in one number how wrong a network is. Learning makes it small. Accuracy would not do: a
small change of a weight changes it not at all, or with a jump. Two are usual, the mean squared error (均方误差) and the
cross-entropy error (交叉熵误差), of the outputs :math:`y` and the targets :math:`t`, here one-hot rows (one-hot表示):

.. math:: E = \tfrac12 \sum_k (y_k - t_k)^2 \qquad\qquad E = -\sum_k t_k \log y_k

The right answer is 2. The first outputs give it the probability 0.6, the second 0.1.
"""

import numpy as np

from nnfast.functions import cross_entropy_error, mean_squared_error

t = np.eye(10)[2]
right = np.array([0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0])
wrong = np.array([0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0])
for y in right, wrong:
    squares, entropy = mean_squared_error(y, t), cross_entropy_error(y, t)
    print(f"mean squared error {squares:.4f}, cross-entropy error {entropy:.4f}")

# %%
# The loss of many examples is the mean of theirs. All of them need not be asked at every step: a mini-batch
# (小批量) of 100, drawn at random, has nearly the same loss. On the right the losses of 1,000 mini-batches, by a network
# that has not learned anything yet.

from matplotlib import pyplot

from nnfast import Affine, Network, Relu, load_digits

(x, labels), _ = load_digits()
network = Network([Affine(64, 50), Relu(), Affine(50, 10)], seed=0)
rng = np.random.default_rng(0)
losses = []
for _ in range(1000):
    batch = rng.choice(len(x), 100)
    losses.append(network.loss(x[batch], labels[batch]))
print(f"loss of all {len(x):,} examples {network.loss(x, labels):.3f}")
print(f"loss of mini-batches {np.mean(losses):.3f} ± {np.std(losses):.3f}")

figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
probability = np.linspace(0.01, 1, 200)          # of the right class; the other nine share the rest
outputs = np.where(t == 1, probability[:, None], (1 - probability[:, None]) / 9)
left.plot(probability, [cross_entropy_error(y, t) for y in outputs], label="cross-entropy error")
left.plot(probability, [mean_squared_error(y, t) for y in outputs], label="mean squared error")
left.set(xlabel="probability of the right class", ylabel="loss", ylim=(0, 5))
left.legend(frameon=False)
right.hist(losses, bins=40)
right.axvline(network.loss(x, labels), color="black", label="all examples")
right.set(xlabel="loss of a mini-batch of 100", ylabel="mini-batches")
right.legend(frameon=False)
