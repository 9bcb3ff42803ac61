"""Chapter 6: training with batch normalisation and without it, from weights of several scales.

With weights of scale 1 the plain network overflows to NaN, as it does in the book; its accuracy is then the share
of class 0, which argmax chooses among NaNs.
"""

import numpy as np
from common.datasets import load_mnist
from common.multi_layer_net_extend import MultiLayerNetExtend
from common.optimizer import SGD

np.random.seed(65)
(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True)
x_train = x_train[:500]
t_train = t_train[:500]

max_epochs = 6
train_size = x_train.shape[0]
batch_size = 50
learning_rate = 0.02


def train(weight_init_std):
    shape = {"input_size": 784, "hidden_size_list": [50, 50, 50, 50, 50], "output_size": 10}
    bn_network = MultiLayerNetExtend(**shape, weight_init_std=weight_init_std, use_batchnorm=True)
    network = MultiLayerNetExtend(**shape, weight_init_std=weight_init_std)
    optimizer = SGD(lr=learning_rate)

    iter_per_epoch = max(train_size / batch_size, 1)
    epoch_cnt = 0
    for i in range(1000000000):
        batch_mask = np.random.choice(train_size, batch_size)
        x_batch = x_train[batch_mask]
        t_batch = t_train[batch_mask]
        for _network in (bn_network, network):
            optimizer.update(_network.params, _network.gradient(x_batch, t_batch))
        if i % iter_per_epoch == 0:
            train_acc = network.accuracy(x_train, t_train)
            bn_train_acc = bn_network.accuracy(x_train, t_train)
            print("epoch:" + str(epoch_cnt) + " | train acc " + str(train_acc) + " - " + str(bn_train_acc))
            epoch_cnt += 1
            if epoch_cnt >= max_epochs:
                break
    print("loss " + str(network.loss(x_test, t_test)) + " - " + str(bn_network.loss(x_test, t_test)))
    print("running mean of the last norm " + str(bn_network.layers["BatchNorm5"].running_mean.mean()))


weight_scale_list = np.logspace(0, -4, num=5)
for i, w in enumerate(weight_scale_list):
    print("============== " + str(i + 1) + "/" + str(len(weight_scale_list)) + " ============== W:" + str(w))
    train(w)
