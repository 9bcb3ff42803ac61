r"""
The output layer: identity and softmax · 输出层：恒等函数与softmax函数
======================================================================

The last layer's scores go through an output function (输出函数): for regression (回归) the identity function
(恒等函数), which leaves them as they are; for classification (分类) softmax, which makes them positive numbers whose
sum is 1, so that they can be read as probabilities (概率):

.. math:: y_k = \frac{e^{a_k}}{\sum_i e^{a_i}} = \frac{e^{a_k + C}}{\sum_i e^{a_i + C}}

A constant :math:`C` that is added to all scores changes nothing. Minus the largest score is a good one, since no
exponential can overflow (溢出) then.
"""

import numpy as np

from nnfast.functions import softmax

scores = np.array([0.3, 2.9, 4.0])
probabilities = softmax(scores)
print("probabilities", probabilities, "sum", probabilities.sum())
print("scores 1010, 1000, 990:", softmax(np.array([1010.0, 1000.0, 990.0])))

# %%
# The order stays the same, so that for the answer alone (推理) the largest score will do, without softmax:
# ``network.predict(x).argmax(axis=1)``.

from matplotlib import pyplot

figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.bar(range(3), scores, label="scores")
left.bar(range(3), scores - scores.max(), label="scores less the largest")
left.axhline(0, color="0.2", linewidth=0.8)
left.set(title="two of many rows of scores …", xlabel="class", xticks=range(3))
left.legend(frameon=False)
right.bar(range(3), probabilities, color="tab:green")
right.set(title="… with the same probabilities", xlabel="class", xticks=range(3), ylim=(0, 1))
print("class", scores.argmax(), "=", probabilities.argmax())
