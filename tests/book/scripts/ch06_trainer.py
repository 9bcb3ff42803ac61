"""Chapter 6: the Trainer with each optimiser by name, on 250 images: 2.5 steps an epoch, so one report in five steps."""

import numpy as np
from common.datasets import load_mnist
from common.multi_layer_net_extend import MultiLayerNetExtend
from common.trainer import Trainer

(x_train, t_train), (x_test, t_test) = load_mnist()
x_train = x_train[:250]
t_train = t_train[:250]

choices = {"SGD": 0.1, "momentum": 0.02, "Nesterov": 0.02, "AdaGrad": 0.02, "rmsprop": 0.002, "Adam": 0.005}
for name, lr in choices.items():
    np.random.seed(69)
    network = MultiLayerNetExtend(
        784,
        [40, 30],
        10,
        activation="sigmoid" if name == "Adam" else "relu",
        weight_init_std="xavier" if name == "Adam" else "he",
        weight_decay_lambda=0.001,
        use_dropout=True,
        dropout_ration=0.1,
        use_batchnorm=True,
    )
    trainer = Trainer(
        network,
        x_train,
        t_train,
        x_test,
        t_test,
        epochs=10,
        mini_batch_size=100,
        optimizer=name,
        optimizer_param={"lr": lr},
        evaluate_sample_num_per_epoch=200,
        verbose=name == "SGD",
    )
    trainer.train()
    print(name + ": steps " + str(trainer.current_iter) + ", epochs " + str(trainer.current_epoch))
    print("train acc " + " ".join(map(str, trainer.train_acc_list)))
    print("test acc " + " ".join(map(str, trainer.test_acc_list)))
    for step in range(0, trainer.max_iter, 6):
        print("loss after " + str(step + 1) + ": " + str(trainer.train_loss_list[step]))
