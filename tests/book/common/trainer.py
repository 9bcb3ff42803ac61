"""The training loop of chapter 6: random mini-batches, one update each, accuracies once an epoch."""

import numpy as np

from common.optimizer import *

_OPTIMIZERS = {rule.__name__.lower(): rule for rule in (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam)}


class Trainer:
    def __init__(
        self,
        network,
        x_train,
        t_train,
        x_test,
        t_test,
        epochs=20,
        mini_batch_size=100,
        optimizer="SGD",
        optimizer_param={"lr": 0.01},
        evaluate_sample_num_per_epoch=None,
        verbose=True,
    ):
        self.network = network
        self.x_train, self.t_train, self.x_test, self.t_test = x_train, t_train, x_test, t_test
        self.epochs, self.batch_size = epochs, mini_batch_size
        self.optimizer = _OPTIMIZERS[optimizer.lower()](**optimizer_param)
        self.evaluate_sample_num_per_epoch = evaluate_sample_num_per_epoch
        self.verbose = verbose
        self.train_size = len(x_train)
        # Not rounded: with 2.5 steps an epoch, only every fifth step ends one.
        self.iter_per_epoch = max(self.train_size / mini_batch_size, 1)
        self.max_iter = int(epochs * self.iter_per_epoch)
        self.current_iter = self.current_epoch = 0
        self.train_loss_list, self.train_acc_list, self.test_acc_list = [], [], []

    def train_step(self):
        rows = np.random.choice(self.train_size, self.batch_size)
        x, t = self.x_train[rows], self.t_train[rows]
        self.optimizer.update(self.network.params, self.network.gradient(x, t))
        loss = self.network.loss(x, t)
        self.train_loss_list.append(loss)
        self._say(f"train loss:{loss}")
        if self.current_iter % self.iter_per_epoch == 0:
            self._end_epoch()
        self.current_iter += 1

    def _end_epoch(self):
        self.current_epoch += 1
        some = slice(self.evaluate_sample_num_per_epoch)
        train_acc = self.network.accuracy(self.x_train[some], self.t_train[some])
        test_acc = self.network.accuracy(self.x_test[some], self.t_test[some])
        self.train_acc_list.append(train_acc)
        self.test_acc_list.append(test_acc)
        self._say(f"=== epoch:{self.current_epoch}, train acc:{train_acc}, test acc:{test_acc} ===")

    def train(self):
        for _ in range(self.max_iter):
            self.train_step()
        test_acc = self.network.accuracy(self.x_test, self.t_test)
        self._say("=============== Final Test Accuracy ===============")
        self._say(f"test acc:{test_acc}")

    def _say(self, line):
        if self.verbose:
            print(line)
