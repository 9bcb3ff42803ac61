"""Chapter 3: the activation and output functions on lines, scalars and batches."""

from common.functions import *

x = np.arange(-5.0, 5.0, 0.5)
for function in (step_function, sigmoid, relu, identity_function, sigmoid_grad, relu_grad):
    print(function.__name__)
    for value in function(x):
        print("  " + str(value))

print("of one number: " + str(step_function(np.array(0.3))) + " " + str(sigmoid(0.3)) + " " + str(relu(-0.3)))

print("softmax of a row:", softmax(np.array([0.3, 2.9, 4.0])))
print("sums to:", np.sum(softmax(np.array([0.3, 2.9, 4.0]))))
print("softmax of large integers:", softmax(np.array([1010, 1000, 990])))

np.random.seed(3)
batch = np.random.randn(2, 3, 4)
print("softmax of three axes:")
print(softmax(batch))
print("sums:", softmax(batch).sum(axis=-1))
