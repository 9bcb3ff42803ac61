r"""
The perceptron and logic gates · 感知机与逻辑电路
=================================================

A perceptron (感知机) is one unit. It adds up its inputs, each times a weight (权重), and a bias (偏置), and fires if
the sum is above 0:

.. math::

    y = \begin{cases} 1 & \text{if } w_1 x_1 + w_2 x_2 + b > 0 \\ 0 & \text{otherwise} \end{cases}

The weights say how much an input matters, the bias how easily the unit fires. Three choices of the three numbers make
three logic gates: AND (与门), NAND (与非门) and OR (或门).
"""

from nnfast.perceptron import Perceptron

gates = {
    "AND": Perceptron([0.5, 0.5], -0.7),
    "NAND": Perceptron([-0.5, -0.5], 0.7),
    "OR": Perceptron([0.5, 0.5], -0.2),
}
corners = [(0, 0), (0, 1), (1, 0), (1, 1)]
for name, gate in gates.items():
    print(f"{name:4}", {x: gate(x) for x in corners})

# %%
# The sum is 0 on a straight line, so this is all that a perceptron can do: fire on one side of a line, and not on the
# other.

from matplotlib import pyplot

from nnfast import plot_decision

figure, panels = pyplot.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
for axes, (name, gate) in zip(panels, gates.items(), strict=True):
    plot_decision(gate, corners, [gate(x) for x in corners], ax=axes)
    axes.set_title(name)
