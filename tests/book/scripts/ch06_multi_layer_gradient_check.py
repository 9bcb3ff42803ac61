"""Chapter 6: the gradients of the deep network, with weight decay, for both activations and both kinds of label."""

import numpy as np
from common.multi_layer_net import MultiLayerNet

for activation in ("relu", "sigmoid"):
    np.random.seed(67)
    network = MultiLayerNet(6, [5, 7], 3, activation=activation, weight_init_std=activation, weight_decay_lambda=0.2)
    x = np.random.randn(4, 6)
    t = np.array([2, 0, 1, 1])
    print(activation + " " + " ".join(network.params) + " | " + " ".join(network.layers))
    print("scores:")
    print(network.predict(x))
    print("loss " + str(network.loss(x, t)) + ", one-hot " + str(network.loss(x, np.eye(3)[t])))
    print("acc " + str(network.accuracy(x, t)))
    grads = network.gradient(x, t)
    numerical = network.numerical_gradient(x, t)
    for key in grads:
        print(
            key + ": size " + str(np.abs(grads[key]).sum()) + ", at most off by",
            np.abs(grads[key] - numerical[key]).max(),
        )
    print(grads["W3"])
