r"""
The gradient method and its learning rate · 梯度法与学习率
==========================================================

Take a small step against the gradient, look again, take the next: the gradient method (梯度法), here gradient descent
(梯度下降法).

.. math:: x \leftarrow x - \eta \frac{\partial f}{\partial x}

The learning rate (学习率) :math:`\eta` is not learned but chosen: a hyperparameter (超参数). The function is that of
chapter 6, a long valley, and the start is (-7, 2).
"""

import numpy as np

from nnfast.gradient import numerical_gradient


def f(x):
    return x[0] ** 2 / 20 + x[1] ** 2


def gradient_descent(f, x, lr, steps):
    path = [x.copy()]
    for _ in range(steps):
        x -= lr * numerical_gradient(f, x)
        path.append(x.copy())
    return np.array(path)


rates = {"too small": 0.02, "right": 0.9, "too large": 1.03}
paths = {name: gradient_descent(f, np.array([-7.0, 2.0]), lr, steps=40) for name, lr in rates.items()}
for name, path in paths.items():
    x0, x1 = path[-1]
    print(f"{name:9} after 40 steps at ({x0:6.2f}, {x1:6.2f}), where f is {f((x0, x1)):.3g}")

# %%
# Too small, and the path is hardly begun; too large, and every step goes further up the other side: it diverges (发散).

from matplotlib import pyplot

across, up = np.meshgrid(np.linspace(-10, 10, 200), np.linspace(-6, 6, 200))
figure, panels = pyplot.subplots(1, 3, figsize=(13, 4), sharey=True, layout="constrained")
for axes, (name, path) in zip(panels, paths.items(), strict=True):
    axes.contour(across, up, f([across, up]), [0.25, 1, 2, 4, 8, 16, 32], colors="0.7", linewidths=0.8)
    axes.plot(*path.T, "o-", color="tab:red", markersize=3, linewidth=1)
    axes.set(title=f"{name}: {rates[name]}", xlabel="$x_0$", xlim=(-10, 10), ylim=(-6, 6))
    axes.plot(0, 0, "+", color="tab:blue", markersize=12)
panels[0].set_ylabel("$x_1$")
