"""Chapter 4: a two-layer network written from the functions alone, its gradient checked, then trained."""

from common.datasets import load_mnist
from common.functions import *
from common.gradient import numerical_gradient


class TwoLayerNet:
    def __init__(self, input_size, hidden_size, output_size, weight_init_std=0.01):
        self.params = {
            "W1": weight_init_std * np.random.randn(input_size, hidden_size),
            "b1": np.zeros(hidden_size),
            "W2": weight_init_std * np.random.randn(hidden_size, output_size),
            "b2": np.zeros(output_size),
        }

    def _forward(self, x):
        a1 = np.dot(x, self.params["W1"]) + self.params["b1"]
        z1 = sigmoid(a1)
        return a1, z1, softmax(np.dot(z1, self.params["W2"]) + self.params["b2"])

    def predict(self, x):
        return self._forward(x)[-1]

    def loss(self, x, t):
        return cross_entropy_error(self.predict(x), t)

    def accuracy(self, x, t):
        return np.sum(np.argmax(self.predict(x), axis=1) == np.argmax(t, axis=1)) / float(x.shape[0])

    def numerical_gradient(self, x, t):
        return {key: numerical_gradient(lambda W: self.loss(x, t), value) for key, value in self.params.items()}

    def gradient(self, x, t):
        a1, z1, y = self._forward(x)
        dy = (y - t) / x.shape[0]
        da1 = np.dot(dy, self.params["W2"].T) * sigmoid_grad(a1)
        return {
            "W1": np.dot(x.T, da1),
            "b1": np.sum(da1, axis=0),
            "W2": np.dot(z1.T, dy),
            "b2": np.sum(dy, axis=0),
        }


np.random.seed(0)
(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True, one_hot_label=True)

small = TwoLayerNet(input_size=20, hidden_size=8, output_size=10, weight_init_std=0.5)
x, t = x_train[:5, 300:320], t_train[:5]
by_formula, by_difference = small.gradient(x, t), small.numerical_gradient(x, t)
for key in by_difference:
    print(key + ": gradients differ by " + str(np.abs(by_formula[key] - by_difference[key]).mean()))

network = TwoLayerNet(input_size=784, hidden_size=50, output_size=10)
iters_num = 600
train_size = x_train.shape[0]
batch_size = 100
learning_rate = 0.5
iter_per_epoch = max(train_size / batch_size, 1)

train_loss_list = []
for i in range(iters_num):
    batch_mask = np.random.choice(train_size, batch_size)
    x_batch, t_batch = x_train[batch_mask], t_train[batch_mask]
    grad = network.gradient(x_batch, t_batch)
    for key in ("W1", "b1", "W2", "b2"):
        network.params[key] -= learning_rate * grad[key]
    train_loss_list.append(network.loss(x_batch, t_batch))
    if i % iter_per_epoch == 0:
        train_acc, test_acc = network.accuracy(x_train, t_train), network.accuracy(x_test, t_test)
        print("train acc, test acc | " + str(train_acc) + ", " + str(test_acc))

for i in range(0, iters_num, 50):
    print("loss at " + str(i) + ": " + str(train_loss_list[i]))
