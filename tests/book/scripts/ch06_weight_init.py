"""Chapter 6: the loss of five-layer networks whose weights start small, as Xavier says, or as He says."""

import numpy as np
from common.datasets import load_mnist
from common.multi_layer_net import MultiLayerNet
from common.optimizer import SGD
from common.util import smooth_curve

np.random.seed(61)
(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True)

train_size = x_train.shape[0]
batch_size = 128
max_iterations = 150

weight_init_types = {"std=0.01": 0.01, "Xavier": "sigmoid", "He": "relu"}
optimizer = SGD(lr=0.03)

networks = {}
train_loss = {}
for key, weight_type in weight_init_types.items():
    networks[key] = MultiLayerNet(
        input_size=784, hidden_size_list=[60, 60, 60, 60], output_size=10, weight_init_std=weight_type
    )
    train_loss[key] = []

for i in range(max_iterations):
    batch_mask = np.random.choice(train_size, batch_size)
    x_batch = x_train[batch_mask]
    t_batch = t_train[batch_mask]
    for key in weight_init_types:
        optimizer.update(networks[key].params, networks[key].gradient(x_batch, t_batch))
        train_loss[key].append(networks[key].loss(x_batch, t_batch))
    if i % 25 == 0:
        print("===========" + "iteration:" + str(i) + "===========")
        for key in weight_init_types:
            print(key + ":" + str(networks[key].loss(x_batch, t_batch)))

for key in weight_init_types:
    for value in smooth_curve(np.array(train_loss[key]))[::50]:
        print(key + ", smoothed:" + str(value))
    print(key + ", test acc:" + str(networks[key].accuracy(x_test, t_test)))
