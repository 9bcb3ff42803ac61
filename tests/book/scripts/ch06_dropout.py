"""Chapter 6: a deep network over-fits 300 images, with dropout and without; the Trainer reports each step."""

import numpy as np
from common.datasets import load_mnist
from common.multi_layer_net_extend import MultiLayerNetExtend
from common.trainer import Trainer

np.random.seed(64)
(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True)
x_train = x_train[:300]
t_train = t_train[:300]

for use_dropout in (True, False):
    network = MultiLayerNetExtend(
        input_size=784,
        hidden_size_list=[50, 50, 50, 50],
        output_size=10,
        use_dropout=use_dropout,
        dropout_ration=0.15,
    )
    trainer = Trainer(
        network,
        x_train,
        t_train,
        x_test,
        t_test,
        epochs=31,
        mini_batch_size=100,
        optimizer="sgd",
        optimizer_param={"lr": 0.05},
        verbose=True,
    )
    trainer.train()
    print("dropout " + str(use_dropout) + ": values kept", len(trainer.train_loss_list), len(trainer.train_acc_list))
