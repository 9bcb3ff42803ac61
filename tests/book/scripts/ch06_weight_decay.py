"""Chapter 6: seven layers over-fit 300 images, without and with weight decay."""

import numpy as np
from common.datasets import load_mnist
from common.multi_layer_net import MultiLayerNet
from common.optimizer import SGD

np.random.seed(63)
(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True)
x_train = x_train[:300]
t_train = t_train[:300]

max_epochs = 31
train_size = x_train.shape[0]
batch_size = 100
iter_per_epoch = max(train_size / batch_size, 1)

for weight_decay_lambda in (0, 0.1):
    print("weight decay " + str(weight_decay_lambda))
    network = MultiLayerNet(
        input_size=784,
        hidden_size_list=[50, 50, 50, 50, 50, 50],
        output_size=10,
        weight_decay_lambda=weight_decay_lambda,
    )
    optimizer = SGD(lr=0.05)
    epoch_cnt = 0
    for i in range(1000000000):
        batch_mask = np.random.choice(train_size, batch_size)
        x_batch = x_train[batch_mask]
        t_batch = t_train[batch_mask]
        optimizer.update(network.params, network.gradient(x_batch, t_batch))
        if i % iter_per_epoch == 0:
            train_acc = network.accuracy(x_train, t_train)
            test_acc = network.accuracy(x_test, t_test)
            if epoch_cnt % 5 == 0:
                print("epoch:" + str(epoch_cnt) + ", train acc:" + str(train_acc) + ", test acc:" + str(test_acc))
                print("loss with decay:" + str(network.loss(x_train, t_train)))
            epoch_cnt += 1
            if epoch_cnt >= max_epochs:
                break
    for key, value in network.params.items():
        print(key + " has root mean square " + str(np.sqrt(np.mean(value**2))))
