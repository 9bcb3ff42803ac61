"""The fully connected network with dropout and batch normalisation."""

import numpy as np

from common.layers import BatchNormalization, Dropout
from common.multi_layer_net import MultiLayerNet


class MultiLayerNetExtend(MultiLayerNet):
    def __init__(
        self,
        input_size,
        hidden_size_list,
        output_size,
        activation="relu",
        weight_init_std="relu",
        weight_decay_lambda=0,
        use_dropout=False,
        dropout_ration=0.5,
        use_batchnorm=False,
    ):
        self.use_dropout, self.dropout_ration = use_dropout, dropout_ration
        self.use_batchnorm = use_batchnorm
        super().__init__(input_size, hidden_size_list, output_size, activation, weight_init_std, weight_decay_lambda)

    def _add_hidden(self, number, activation):
        if self.use_batchnorm:
            width = self.hidden_size_list[number - 1]
            gamma = self.params[f"gamma{number}"] = np.ones(width)
            beta = self.params[f"beta{number}"] = np.zeros(width)
            self.layers[f"BatchNorm{number}"] = BatchNormalization(gamma, beta)
        super()._add_hidden(number, activation)
        if self.use_dropout:
            self.layers[f"Dropout{number}"] = Dropout(self.dropout_ration)

    def predict(self, x, train_flg=False):
        for layer in self.layers.values():
            knows_training = isinstance(layer, (BatchNormalization, Dropout))
            x = layer.forward(x, train_flg) if knows_training else layer.forward(x)
        return x

    def loss(self, x, t, train_flg=False):
        return self.last_layer.forward(self.predict(x, train_flg), t) + self._decay()

    def numerical_gradient(self, x, t):
        return self._central_differences(lambda _: self.loss(x, t, train_flg=True))

    def gradient(self, x, t):
        self.loss(x, t, train_flg=True)
        return self._backward()

    def _gradient_keys(self):
        for number in range(1, self.hidden_layer_num + 2):
            yield from (f"W{number}", f"b{number}")
            if self.use_batchnorm and number <= self.hidden_layer_num:
                yield from (f"gamma{number}", f"beta{number}")

    def _gradient_of(self, key):
        for name in ("gamma", "beta"):
            if key.startswith(name):
                return getattr(self.layers[f"BatchNorm{key.removeprefix(name)}"], f"d{name}")
        return super()._gradient_of(key)
