"""Chapter 4: the two losses, for one example and for batches, labels one-hot or as indices."""

import numpy as np
from common.functions import cross_entropy_error, softmax, softmax_loss, sum_squared_error

t = np.array([0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
sure = np.array([0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0])
wrong = np.array([0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0])
for y in (sure, wrong):
    print("squared error " + str(sum_squared_error(y, t)) + ", cross-entropy " + str(cross_entropy_error(y, t)))

print("a class of probability nought costs " + str(cross_entropy_error(sure, np.eye(10)[3])))
print("label as an index: " + str(cross_entropy_error(sure, np.array(2))))

np.random.seed(4)
scores = np.random.randn(6, 10)
labels = np.random.randint(10, size=6)
one_hot = np.eye(10, dtype=int)[labels]
print("batch, indices: " + str(cross_entropy_error(softmax(scores), labels)))
print("batch, one-hot: " + str(cross_entropy_error(softmax(scores), one_hot)))
print("batch, from scores: " + str(softmax_loss(scores, labels)))
print("batch, squared error: " + str(sum_squared_error(softmax(scores), one_hot)))
