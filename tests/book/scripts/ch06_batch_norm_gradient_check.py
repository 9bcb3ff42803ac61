"""Chapter 6: back-propagation through batch normalisation against numerical gradients.

A batch of one is the book's. All its normalised values are exactly 0, where ReLU has a corner: the two gradients of
beta then differ by half a slope, while a batch of four shows the agreement.
"""

import numpy as np
from common.datasets import load_mnist
from common.multi_layer_net_extend import MultiLayerNetExtend

np.random.seed(66)
(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True, one_hot_label=True)

for batch_size in (1, 4):
    network = MultiLayerNetExtend(input_size=28, hidden_size_list=[12, 12], output_size=10, use_batchnorm=True)
    x_batch = x_train[:batch_size, 392:420]
    t_batch = t_train[:batch_size]
    grad_backprop = network.gradient(x_batch, t_batch)
    grad_numerical = network.numerical_gradient(x_batch, t_batch)
    print("batch of " + str(batch_size))
    for key in grad_numerical.keys():  # noqa: SIM118
        diff = np.average(np.abs(grad_backprop[key] - grad_numerical[key]))
        print(key + ":" + str(diff) + " of " + str(np.average(np.abs(grad_numerical[key]))))
