"""Chapter 6: learning rate and weight decay drawn at random, tried on validation images, sorted by accuracy."""

import numpy as np
from common.datasets import load_mnist
from common.multi_layer_net import MultiLayerNet
from common.trainer import Trainer
from common.util import shuffle_dataset

np.random.seed(68)
(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True)
x_train = x_train[:500]
t_train = t_train[:500]

validation_rate = 0.20
validation_num = int(x_train.shape[0] * validation_rate)
x_train, t_train = shuffle_dataset(x_train, t_train)
x_val = x_train[:validation_num]
t_val = t_train[:validation_num]
x_train = x_train[validation_num:]
t_train = t_train[validation_num:]


def train(lr, weight_decay, epochs=12):
    network = MultiLayerNet(
        input_size=784, hidden_size_list=[50, 50, 50], output_size=10, weight_decay_lambda=weight_decay
    )
    trainer = Trainer(
        network,
        x_train,
        t_train,
        x_val,
        t_val,
        epochs=epochs,
        mini_batch_size=100,
        optimizer="sgd",
        optimizer_param={"lr": lr},
        verbose=False,
    )
    trainer.train()
    return trainer.test_acc_list, trainer.train_acc_list


results_val = {}
results_train = {}
for _ in range(8):
    weight_decay = 10 ** np.random.uniform(-4, -8)
    lr = 10 ** np.random.uniform(-0.5, -4)
    val_acc_list, train_acc_list = train(lr, weight_decay)
    key = "lr:" + str(lr) + ", weight decay:" + str(weight_decay)
    print("val acc:" + str(val_acc_list[-1]) + " | " + key)
    results_val[key] = val_acc_list
    results_train[key] = train_acc_list

print("=========== Hyper-Parameter Optimization Result ===========")
for i, (key, val_acc_list) in enumerate(sorted(results_val.items(), key=lambda item: item[1][-1], reverse=True)):
    print("Best-" + str(i + 1) + "(val acc:" + str(val_acc_list[-1]) + ") | " + key)
    print("train acc by epoch: " + " ".join(str(acc) for acc in results_train[key]))
