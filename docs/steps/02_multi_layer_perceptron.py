"""
XOR and the multi-layer perceptron · 异或门与多层感知机
=======================================================

XOR (异或门) fires if exactly one of its inputs does. No straight line has (0, 1) and (1, 0) on one side and (0, 0) and
(1, 1) on the other, so no perceptron can be an XOR gate: it is not linear (非线性). Gates behind gates can.
"""

from nnfast.perceptron import AND, NAND, OR


def XOR(x1, x2):
    return AND(NAND(x1, x2), OR(x1, x2))


corners = [(0, 0), (0, 1), (1, 0), (1, 1)]
labels = [XOR(*x) for x in corners]
print(dict(zip(corners, labels, strict=True)))

# %%
# This is a perceptron of two layers (多层感知机): NAND and OR are the units of the first, AND is that of the second. On
# the left the region in which it fires. On the right what the second layer is given: the first has moved the four
# corners (two of them to the same place), and now a line is enough.

from matplotlib import pyplot

from nnfast import plot_decision

hidden = [(NAND(*x), OR(*x)) for x in corners]
figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 4), layout="constrained")
plot_decision(XOR, corners, labels, ax=left)
left.set_title("XOR of the inputs")
plot_decision(AND, hidden, labels, ax=right)
right.set(title="AND of what the first layer gives", xlabel="NAND", ylabel="OR")
