"""
The computational graph and the chain rule · 计算图与链式法则
=============================================================

A calculation drawn as nodes and arrows is a computational graph (计算图). Going forward (正向传播), each node computes its
result from what it is given. Going backward (反向传播), each multiplies the gradient that arrives by its own local
derivative (局部导数) and passes it on: that is the chain rule (链式法则), and at the inputs it gives the derivative of the
result with respect to each of them, all in one pass.

Two apples at 100 each, with a tax of 10%, cost 220. If an apple cost 1 more, the price would be 2.2 more.
"""

from nnfast import graph
from nnfast.graph import Variable

apple, apples, tax = Variable(100, "apple"), Variable(2, "apples"), Variable(1.1, "tax")
price = apple * apples * tax
price.backward()
print(f"price {price.value:.0f}, gradients {apple.grad:.1f}, {apples.grad:.0f}, {tax.grad:.0f}")

# %%
# Values are above the arrows, gradients below. An add node (加法节点) passes the gradient on as it is; a multiply node
# (乘法节点) has kept its inputs, and each gets the gradient times the other.

from matplotlib import pyplot

apple, apples = Variable(100, "apple"), Variable(2, "apples")
orange, oranges = Variable(150, "orange"), Variable(3, "oranges")
tax = Variable(1.1, "tax")
price = (apple * apples + orange * oranges) * tax
price.backward()
figure, axes = pyplot.subplots(figsize=(9, 4.7), layout="constrained")
graph.draw(price, ax=axes)
gradients = [one.grad for one in (apple, apples, orange, oranges, tax)]
print(f"price {price.value:.0f}, gradients", *(f"{gradient:.4g}" for gradient in gradients))

# %%
# Where a value goes two ways, what comes back on both is added up.

x = Variable(3.0, "x")
(x * x + x).backward()
print(f"slope of x² + x at 3: {x.grad:g}")

# %%
# The sigmoid function is a graph of such nodes, too. What comes back to the input is :math:`y (1 - y)`, so that a Sigmoid
# layer keeps its output alone.

x = Variable(0.5, "x")
y = 1 / (1 + graph.exp(-1 * x))
y.backward()
figure, axes = pyplot.subplots(figsize=(10.5, 3), layout="constrained")
graph.draw(y, ax=axes)
print(f"{x.grad:.6f} = {y.value * (1 - y.value):.6f}")
