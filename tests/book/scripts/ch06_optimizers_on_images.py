"""Chapter 6: six optimisers train six networks on the same mini-batches."""

from common.datasets import load_mnist
from common.multi_layer_net import MultiLayerNet
from common.optimizer import *
from common.util import smooth_curve

np.random.seed(60)
(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True)

train_size = x_train.shape[0]
batch_size = 64
max_iterations = 60

optimizers = {
    "SGD": SGD(),
    "Momentum": Momentum(),
    "Nesterov": Nesterov(),
    "AdaGrad": AdaGrad(),
    "RMSprop": RMSprop(lr=0.001),
    "Adam": Adam(),
}
networks = {}
train_loss = {}
for key in optimizers:
    networks[key] = MultiLayerNet(input_size=784, hidden_size_list=[50, 50, 50, 50], output_size=10)
    train_loss[key] = []

for i in range(max_iterations):
    batch_mask = np.random.choice(train_size, batch_size)
    x_batch = x_train[batch_mask]
    t_batch = t_train[batch_mask]
    for key, optimizer in optimizers.items():
        grads = networks[key].gradient(x_batch, t_batch)
        optimizer.update(networks[key].params, grads)
        train_loss[key].append(networks[key].loss(x_batch, t_batch))
    if i % 10 == 0:
        print("===========iteration:" + str(i) + "===========")
        for key in optimizers:
            print(key + ":" + str(train_loss[key][-1]))

for key in optimizers:
    curve = smooth_curve(train_loss[key])
    print(key + ", smoothed loss: " + str(curve[0]) + " ... " + str(curve[-1]) + ", " + str(len(curve)) + " values")
    print(key + ", test acc: " + str(networks[key].accuracy(x_test, t_test)))
