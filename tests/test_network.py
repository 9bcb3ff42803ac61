"""Network: its parameters, its passes against the plain NumPy reference, and layers of a user's own."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import reference

import nnfast
from nnfast import (
    SGD,
    AbsoluteError,
    Affine,
    BatchNormalization,
    Dropout,
    Gelu,
    HuberLoss,
    Identity,
    IdentityWithLoss,
    LeakyRelu,
    MultiLayerNet,
    MultiLayerNetExtend,
    Network,
    PoissonLoss,
    QuantileLoss,
    Relu,
    Sigmoid,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    TwoLayerNet,
)

ACTIVATIONS = [Relu, Sigmoid, Tanh, LeakyRelu, Gelu, Identity]
LOSSES = {
    SoftmaxWithLoss: lambda rng, rows, outputs: rng.integers(0, outputs, rows),
    SigmoidWithLoss: lambda rng, rows, outputs: rng.integers(0, 2, (rows, outputs)),
    IdentityWithLoss: lambda rng, rows, outputs: rng.standard_normal((rows, outputs)),
    AbsoluteError: lambda rng, rows, outputs: rng.standard_normal((rows, outputs)),
    HuberLoss: lambda rng, rows, outputs: rng.standard_normal((rows, outputs)),
    QuantileLoss: lambda rng, rows, outputs: rng.standard_normal((rows, outputs)),
    PoissonLoss: lambda rng, rows, outputs: rng.integers(0, 5, (rows, outputs)),
}


def random_network(rng, loss, activation=Tanh, dtype="float64", sizes=(5, 7, 3)):
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [Affine(inputs, outputs), activation()]
    network = Network(layers[:-1], loss(), seed=int(rng.integers(1000)), dtype=dtype)
    for key, array in network.params.items():
        if key.startswith("b"):
            array[:] = rng.standard_normal(array.shape)     # zero biases would hide a missing bias
    return network


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda activation: activation.__name__)
def test_backpropagation_agrees_with_the_numerical_gradient(rng, loss, activation):
    network = random_network(rng, loss, activation)
    x = rng.standard_normal((6, 5))
    t = LOSSES[loss](rng, 6, 3)
    gradient, numerical = network.gradient(x, t), network.numerical_gradient(x, t)
    assert list(gradient) == list(numerical) == list(network.params) == ["W1", "b1", "W2", "b2"]
    tolerance = 1e-7    # h**2 of truncation and eps / h of rounding are both some 1e-8 here
    if loss is SoftmaxWithLoss:
        # Backpropagation leaves out the 1e-7 in the logarithm: a row's gradient is too large by 1e-7 / y[n, t_n].
        y = reference.softmax(network.predict(x))
        tolerance += 1e-7 / y[np.arange(6), t].min()
    if loss is PoissonLoss:     # whose derivatives are as large as the means
        tolerance *= 1 + np.exp(network.predict(x)).max()
    for key in gradient:
        np.testing.assert_allclose(gradient[key], numerical[key], rtol=0, atol=tolerance, err_msg=key)


def test_backpropagation_through_batch_normalization_agrees_with_the_numerical_gradient(rng):
    network = Network(
        [Affine(5, 4), BatchNormalization(4), Sigmoid(), Dropout(0.0), Affine(4, 3)], seed=0, dtype="float64"
    )
    x, t = rng.standard_normal((6, 5)), rng.integers(0, 3, 6)
    gradient, numerical = network.gradient(x, t), network.numerical_gradient(x, t)
    assert list(gradient) == ["W1", "b1", "gamma1", "beta1", "W2", "b2"]
    for key in gradient:
        np.testing.assert_allclose(gradient[key], numerical[key], rtol=0, atol=3e-7, err_msg=key)


def test_predict_is_the_formula_layer_by_layer(rng, dtype):
    network = random_network(rng, SoftmaxWithLoss, Relu, dtype, (65, 17, 9, 4))
    x = rng.standard_normal((33, 65)).astype(dtype)
    params = {key: array.astype(np.float64) for key, array in network.params.items()}
    y = x.astype(np.float64)
    for layer in (1, 2, 3):
        y = y @ params[f"W{layer}"] + params[f"b{layer}"]
        if layer < 3:
            y = np.maximum(y, 0)
    # 3 layers' rounding of sums of up to 65 terms; values are of order 10.
    tolerance = 3 * 65 * np.finfo(dtype).eps * np.abs(y).max()
    scores = network.predict(x)
    assert scores.dtype == dtype
    np.testing.assert_allclose(scores, y, rtol=0, atol=tolerance)


def test_loss_is_the_mean_over_the_batch(rng):
    network = random_network(rng, SoftmaxWithLoss)
    x, t = rng.standard_normal((6, 5)), rng.integers(0, 3, 6)
    one_by_one = [network.loss(x[i : i + 1], t[i : i + 1]) for i in range(6)]
    assert network.loss(x, t) == pytest.approx(np.mean(one_by_one), rel=1e-14)


def test_predict_leaves_no_trace_and_loss_does(rng):
    network = random_network(rng, SoftmaxWithLoss)
    x, t = rng.standard_normal((6, 5)), rng.integers(0, 3, 6)
    network.predict(x)
    assert network.layers["Affine1"].x is None
    network.loss(x, t)
    assert network.layers["Affine1"].x.shape == (6, 5)


def test_accuracy_counts_the_first_largest_score():
    network = Network([Affine(np.eye(3), np.zeros(3))])
    x = [[2, 1, 0], [0, 1, 1], [0, 0, 1], [1, 1, 1]]
    assert network.accuracy(x, [0, 1, 2, 0]) == 1
    assert network.accuracy(x, [0, 2, 2, 1]) == 0.5
    assert network.accuracy(x, np.eye(3)[[0, 1, 2, 2]]) == 0.75


def test_accuracy_of_a_multi_label_network_wants_every_output_right():
    network = Network([Affine(np.eye(2), np.zeros(2))], SigmoidWithLoss())
    assert network.accuracy([[1, -1], [1, 1], [-1, -1], [-1, 1]], [[1, 0], [1, 0], [0, 0], [1, 1]]) == 0.5


def test_accuracy_of_a_regression_is_refused(rng):
    with pytest.raises(TypeError, match=r"^accuracy needs a classifier, but the loss is IdentityWithLoss$"):
        random_network(rng, IdentityWithLoss).accuracy(np.zeros((1, 5)), np.zeros((1, 3)))


def test_params_are_live(rng):
    network = random_network(rng, SoftmaxWithLoss)
    x = rng.standard_normal((6, 5))
    before = network.predict(x)
    network.params["b2"] += 1
    np.testing.assert_allclose(network.predict(x), before + 1, rtol=0, atol=1e-14)    # values of up to some 4
    network.params["b2"] -= 1
    w = network.layers["Affine2"].W
    network.params["W2"] = np.zeros((7, 3))
    assert network.layers["Affine2"].W is w
    assert not w.any()
    network.params = {"W2": np.ones((7, 3))}
    assert (w == 1).all()


def test_given_arrays_are_shared_and_keep_their_dtype():
    w, b = np.ones((2, 3)), np.zeros(3)
    network = Network([Affine(w, b)], dtype="float32")
    assert network.params["W1"] is w
    assert network.dtype == np.float64
    w[:] = 2
    np.testing.assert_array_equal(network.predict(np.ones((1, 2))), [[4, 4, 4]])


def test_drawn_layers_take_the_dtype_of_given_ones():
    network = Network([Affine(np.ones((2, 3)), np.zeros(3)), Relu(), Affine(3, 2)])
    assert network.params["W2"].dtype == np.float64


def test_the_seed_decides_the_weights(dtype):
    first, same, other = (Network([Affine(20, 30), Relu(), Affine(30, 2)], seed=s, dtype=dtype) for s in (1, 1, 2))
    for key in first.params:
        assert first.params[key].dtype == dtype
        np.testing.assert_array_equal(first.params[key], same.params[key])
    assert not np.array_equal(first.params["W1"], other.params["W1"])


@pytest.mark.parametrize(("init", "expected"), [("he", np.sqrt(2 / 400)), ("xavier", np.sqrt(1 / 400)), (0.3, 0.3)])
def test_initial_weights_have_the_standard_deviation_asked_for(init, expected):
    w = Network([Affine(400, 400, init=init)], seed=0).params["W1"]
    # The deviation of a sample of n has a relative error of 1 / sqrt(2 n) = 0.0018; five of them.
    assert np.std(w) == pytest.approx(expected, rel=0.009)
    assert abs(np.mean(w)) < 5 * expected / 400


def test_input_layouts_give_the_same_scores_and_are_not_written(rng, dtype):
    network = random_network(rng, SoftmaxWithLoss, dtype=dtype)
    x = rng.integers(-3, 4, (6, 5)).astype(dtype)   # whole numbers: exact in every dtype
    expected = network.predict(x)
    wide = np.repeat(x, 2, axis=1)
    read_only = x.copy()
    read_only.flags.writeable = False
    layouts = {
        "Fortran": np.asfortranarray(x),
        "sliced": wide[:, ::2],
        "reversed": x[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": read_only,
        "byte-swapped": x.astype(x.dtype.newbyteorder()),
        "float64": x.astype(np.float64),
        "float32": x.astype(np.float32),
        "int8": x.astype(np.int8),
        "list": x.tolist(),
    }
    for name, layout in layouts.items():
        copied = copy.deepcopy(layout)
        np.testing.assert_array_equal(network.predict(layout), expected, err_msg=name)
        network.gradient(layout, [0, 1, 2, 0, 1, 2])
        np.testing.assert_array_equal(layout, copied, err_msg=name)


class Scale:
    """A layer of a user's own: y = s x, with one parameter and no idea of nnfast."""

    def __init__(self, width):
        self.params = {"s": np.full(width, 2.0)}
        self.grads = {}
        self.modes = []

    def forward(self, x, train_flg=True):
        self.modes.append(train_flg)
        self.x = x
        return x * self.params["s"]

    def backward(self, dout):
        self.grads["s"] = (dout * self.x).sum(axis=0)
        return dout * self.params["s"]


def test_a_layer_written_in_python_takes_part(rng):
    network = Network([Affine(5, 4), Scale(4), Tanh(), Affine(4, 3)], seed=0, dtype="float64")
    x, t = rng.standard_normal((6, 5)), rng.integers(0, 3, 6)
    assert list(network.params) == ["W1", "b1", "s1", "W2", "b2"]
    gradient, numerical = network.gradient(x, t), network.numerical_gradient(x, t)
    np.testing.assert_allclose(gradient["s1"], numerical["s1"], rtol=0, atol=1e-7)
    history = network.fit(x, t, epochs=50, batch_size=6, optimizer=SGD(0.5))
    assert history.loss[-1] < history.loss[0] / 2
    assert not np.array_equal(network.params["s1"], np.full(4, 2.0))
    scale = network.layers["Scale1"]
    scale.modes.clear()
    network.predict(x)
    network.gradient(x, t)
    assert scale.modes == [False, True]


def test_a_loss_written_in_python_takes_part(rng):
    class AbsoluteError:
        def forward(self, x, t):
            self.sign = np.sign(x - t) / x.shape[0]
            return np.abs(x - t).sum() / x.shape[0]

        def backward(self, dout=1):
            return dout * self.sign

    network = Network([Affine(2, 1)], AbsoluteError(), seed=0, dtype="float64")
    x = rng.standard_normal((50, 2))
    t = x @ [[1.0], [-2.0]]
    network.fit(x, t, epochs=300, batch_size=50, optimizer=SGD(0.02))
    np.testing.assert_allclose(network.params["W1"], [[1], [-2]], atol=0.05)


def test_networks_can_be_copied_and_pickled(rng):
    network = random_network(rng, SoftmaxWithLoss)
    x = rng.standard_normal((6, 5))
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        np.testing.assert_array_equal(twin.predict(x), network.predict(x))
        twin.params["b1"] += 1
        assert not np.array_equal(twin.predict(x), network.predict(x))


def test_summary_counts_parameters_and_names_every_layer():
    text = Network([Affine(784, 50), BatchNormalization(50), Relu(), Affine(50, 10)]).summary()
    for expected in ("Affine1", "BatchNormalization1", "Relu1", "Affine2", "39,250", "39,860 parameters"):
        assert expected in text


@pytest.mark.parametrize("rows", [0, 1])
def test_predict_takes_no_rows_and_one_row(rng, rows):
    network = random_network(rng, SoftmaxWithLoss)
    assert network.predict(np.ones((rows, 5))).shape == (rows, 3)


def test_a_network_of_a_hundred_layers_works(rng):
    layers = [layer for _ in range(50) for layer in (Affine(8, 8), Tanh())]
    network = Network(layers, seed=0, dtype="float64")
    gradient = network.gradient(rng.standard_normal((4, 8)), [0, 1, 2, 3])
    assert list(gradient)[-1] == "b50"
    assert all(np.isfinite(array).all() and array.any() for array in gradient.values())


def test_nan_in_one_row_stays_in_that_row(rng, dtype):
    network = random_network(rng, SoftmaxWithLoss, Relu, dtype)
    x = rng.standard_normal((6, 5)).astype(dtype)
    expected = network.predict(x)
    x[2, 3] = np.nan
    scores = network.predict(x)
    assert np.isnan(scores[2]).all()
    np.testing.assert_array_equal(np.delete(scores, 2, 0), np.delete(expected, 2, 0))


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_any_number_of_threads_gives_the_same_bits(rng, dtype, threads):
    x, t = rng.standard_normal((257, 130)), rng.integers(0, 11, 257)
    reference_network = Network([Affine(130, 300), Relu(), Affine(300, 11)], seed=0, dtype=dtype)
    network = copy.deepcopy(reference_network)
    try:
        nnfast.set_num_threads(1)
        reference_network.fit(x, t, epochs=2, batch_size=100)
        nnfast.set_num_threads(threads)
        network.fit(x, t, epochs=2, batch_size=100)
    finally:
        nnfast.set_num_threads(None)
    for key, array in network.params.items():
        assert array.tobytes() == reference_network.params[key].tobytes(), key


# The book's shapes

def test_two_layer_net_draws_in_the_books_order():
    np.random.seed(3)
    network = TwoLayerNet(4, 3, 2, weight_init_std=0.5)
    np.random.seed(3)
    np.testing.assert_array_equal(network.params["W1"], 0.5 * np.random.randn(4, 3))
    np.testing.assert_array_equal(network.params["W2"], 0.5 * np.random.randn(3, 2))
    assert not network.params["b1"].any()
    assert list(network.layers) == ["Affine1", "Relu1", "Affine2"]
    assert network.lastLayer is network.last_layer


@pytest.mark.parametrize(("name", "gain"), [("relu", 2), ("he", 2), ("sigmoid", 1), ("Xavier", 1)])
def test_multi_layer_net_knows_the_names_of_initial_weights(name, gain):
    np.random.seed(3)
    network = MultiLayerNet(4, [3, 5], 2, weight_init_std=name)
    np.random.seed(3)
    for key, (inputs, outputs) in {"W1": (4, 3), "W2": (3, 5), "W3": (5, 2)}.items():
        np.testing.assert_array_equal(network.params[key], np.sqrt(gain / inputs) * np.random.randn(inputs, outputs))


def test_weight_decay_enters_loss_and_gradient(rng):
    np.random.seed(0)
    plain = MultiLayerNet(4, [3], 2)
    decayed = copy.deepcopy(plain)
    decayed.weight_decay_lambda = 0.1
    x, t = rng.standard_normal((5, 4)), [0, 1, 1, 0, 1]
    squares = sum((plain.params[key] ** 2).sum() for key in ("W1", "W2"))
    assert decayed.loss(x, t) == pytest.approx(plain.loss(x, t) + 0.05 * squares, rel=1e-14)
    difference = decayed.gradient(x, t)["W1"] - plain.gradient(x, t)["W1"]
    np.testing.assert_allclose(difference, 0.1 * plain.params["W1"], rtol=1e-12)
    np.testing.assert_array_equal(decayed.gradient(x, t)["b1"], plain.gradient(x, t)["b1"])


def test_multi_layer_net_extend_draws_dropout_from_the_global_generator(rng):
    np.random.seed(0)
    network = MultiLayerNetExtend(4, [6], 2, use_dropout=True, dropout_ration=0.4)
    x, t = rng.standard_normal((5, 4)), [0, 1, 1, 0, 1]
    np.random.seed(7)
    network.gradient(x, t)
    np.random.seed(7)
    np.testing.assert_array_equal(network.layers["Dropout1"].mask, np.random.rand(5, 6) > 0.4)
    assert network.loss(x, t) == network.loss(x, t)
    assert network.loss(x, t, train_flg=True) != network.loss(x, t, train_flg=False)


def test_book_shapes_train_with_fit(rng):
    np.random.seed(0)
    network = TwoLayerNet(2, 16, 2, weight_init_std=1)
    network.generator = np.random.default_rng(0)    # of the order: with some orders 0.925 were right
    x = rng.standard_normal((200, 2))
    t = (x[:, 0] * x[:, 1] > 0).astype(int)
    network.fit(x, t, epochs=200, batch_size=50, optimizer=SGD(0.5))
    assert network.accuracy(x, t) > 0.95


def test_reference_and_network_train_alike(rng):
    """Ten steps of everything at once, against the formulas in float64."""
    network = random_network(rng, SoftmaxWithLoss, Sigmoid)
    params = {key: array.copy() for key, array in network.params.items()}
    x, t = rng.standard_normal((20, 5)), rng.integers(0, 3, 20)
    network.fit(x, t, epochs=10, batch_size=20, optimizer=SGD(0.3), shuffle=False)
    for _ in range(10):
        h = reference.sigmoid(x @ params["W1"] + params["b1"])
        y = reference.softmax(h @ params["W2"] + params["b2"])
        dscores = (y - np.eye(3)[t]) / 20
        dh = dscores @ params["W2"].T * h * (1 - h)
        gradient = {"W1": x.T @ dh, "b1": dh.sum(0), "W2": h.T @ dscores, "b2": dscores.sum(0)}
        for key in params:
            params[key] -= 0.3 * gradient[key]
    for key, expected in params.items():
        np.testing.assert_allclose(network.params[key], expected, rtol=1e-12, atol=1e-13, err_msg=key)
