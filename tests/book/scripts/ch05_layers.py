"""Chapter 5: each layer alone, forwards and backwards, on arrays small enough to print."""

import numpy as np
from common.layers import *

x = np.array([[1.0, -0.5], [-2.0, 3.0]])
for layer in (Relu(), Sigmoid()):
    print(layer.__class__.__name__)
    print(layer.forward(x))
    print(layer.backward(np.ones_like(x)))

np.random.seed(5)
affine = Affine(np.random.randn(6, 4), np.random.randn(4))
images = np.random.randn(3, 1, 2, 3)
print("Affine")
print(affine.forward(images))
dx = affine.backward(np.random.randn(3, 4))
print(dx.shape, affine.original_x_shape)
print(dx)
print(affine.dW)
print(affine.db)

# An update of the array in place is seen by the layer that holds it.
affine.W += 1.0
print(affine.forward(images))

scores = np.log(np.array([[0.3, 0.2, 0.5], [0.01, 0.99, 0.0001]]))
for t in (np.array([[0, 1, 0], [0, 1, 0]]), np.array([1, 1])):
    last = SoftmaxWithLoss()
    print("SoftmaxWithLoss", last.forward(scores, t))
    print(last.y)
    print(last.backward())

np.random.seed(6)
dropout = Dropout(0.3)
print("Dropout")
print(dropout.forward(images[:, 0, 0]))
print(dropout.backward(np.ones((3, 3))))
print(dropout.forward(images[:, 0, 0], train_flg=False))

norm = BatchNormalization(np.array([1.0, 2.0, 0.5]), np.array([0.0, 1.0, -1.0]))
print("BatchNormalization")
for _ in range(3):
    print(norm.forward(images[:, 0, 1]))
print(norm.backward(np.random.randn(3, 3)))
print(norm.dgamma, norm.dbeta)
print(norm.running_mean, norm.running_var)
print(norm.forward(images[:, 0, 1], train_flg=False))
