"""
Reading handwriting: MNIST · 手写数字识别
=========================================

MNIST holds 60,000 images of handwritten digits to learn from and 10,000 to be tested with, of 28 x 28 pixels each.
"""

from matplotlib import pyplot

from nnfast import SGD, Affine, Network, Relu, load_mnist, plot_weights

(x, t), (x_test, t_test) = load_mnist(download=True)
print("training data", x.shape, t.shape, "test data", x_test.shape, t_test.shape)

figure, panels = pyplot.subplots(2, 8, figsize=(9, 2.8), layout="constrained")
for axes, image, label in zip(panels.flat, x, t, strict=False):
    axes.imshow(image.reshape(28, 28), cmap="gray_r")
    axes.set_title(int(label))
    axes.set_axis_off()

# %%
# Two layers, mini-batches of 100, and the gradient by backpropagation. In `fit` a whole epoch (轮次), in which each
# example has its turn once, runs in compiled code.

network = Network([Affine(784, 50), Relu(), Affine(50, 10)], seed=0)
history = network.fit(
    x, t, epochs=16, batch_size=100, optimizer=SGD(lr=0.2), validation_data=(x_test, t_test)
)
print(f"{sum(history.seconds):.2f} s for 16 epochs")
print(f"test accuracy {network.accuracy(x_test, t_test):.2%}")
history.plot()

# %%
# What the units of the first layer look for, blue where ink speaks for them, red where it speaks against:

plot_weights(network)

# %%
# And what it gets wrong. For some one cannot blame it.

answers = network.predict(x_test).argmax(axis=1)
wrong = (answers != t_test).nonzero()[0]
figure, panels = pyplot.subplots(2, 8, figsize=(9, 2.8), layout="constrained")
for axes, place in zip(panels.flat, wrong, strict=False):
    axes.imshow(x_test[place].reshape(28, 28), cmap="gray_r")
    axes.set_title(f"{t_test[place]}, not {answers[place]}", fontsize=9)
    axes.set_axis_off()
print(f"{len(wrong)} of {len(x_test):,} are wrong")
