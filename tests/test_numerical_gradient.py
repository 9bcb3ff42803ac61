"""A network's numerical gradient: what brute force gives, from only what each parameter changes."""

import copy
import itertools

import numpy as np
import pytest
import reference
from test_plan import ACTIVATIONS, LOSSES

import nnfast
from nnfast import (
    Affine,
    BatchNormalization,
    Dropout,
    Identity,
    IdentityWithLoss,
    MultiLayerNetExtend,
    Network,
    Relu,
    Sigmoid,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    _kernels,
    _numerical_gradient,
    _threads,
)

# Brute force's own rounding: losses of some units, each wrong by some of their last places, divided by 2 h, relative to
# gradients of some hundredths.
TOLERANCE = 64 * 2.0**-53 / 2e-4 / 1e-2


def with_threads(monkeypatch, threads):
    """Small networks too get so many threads."""
    monkeypatch.setattr(_threads, "for_product", lambda multiply_adds: threads)


def filled(network, rng):
    """The network with biases, scales and shifts that are not 0 or 1."""
    for array in network.params.values():
        if array.ndim == 1:
            array[...] = rng.random(array.shape) + 0.5
    return network


def drawn(network, examples, rng):
    """Inputs, of which some are 0 and some the same, and targets."""
    x = rng.standard_normal((examples, network.inputs or 5)).round(1)
    x[rng.random(x.shape) < 0.4] = 0
    outputs = network.predict(x).shape[1]
    if type(network.last_layer) is SoftmaxWithLoss:
        return x, rng.integers(0, outputs, examples)
    return x, rng.random((examples, outputs))


def assert_is_brute(network, x, t, h=1e-4):
    expected = network.numerical_gradient(x, t, h=h, method="brute")
    found = network.numerical_gradient(x, t, h=h)
    assert list(found) == list(expected) == list(network.params)
    largest = max(abs(gradient).max() for gradient in expected.values())
    for key, gradient in found.items():
        assert gradient.dtype == np.float64 and gradient.shape == network.params[key].shape
        np.testing.assert_allclose(gradient, expected[key], rtol=0, atol=TOLERANCE * largest, err_msg=key)


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda activation: activation.__name__)
def test_every_activation_and_loss(rng, activation, loss):
    network = Network([Affine(5, 7), activation(), Affine(7, 4), activation(), Affine(4, 3)], loss(), seed=1)
    assert_is_brute(filled(network, rng), *drawn(network, 9, rng))


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("examples", [1, 2, 7, 8, 9, 65])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 1, 1, 2), (1, 15, 16, 17), (2, 33, 2), (3, 64, 3)], ids=str)
def test_every_size(rng, monkeypatch, sizes, examples, threads):
    with_threads(monkeypatch, threads)
    layers = [layer for i, o in itertools.pairwise(sizes) for layer in (Affine(i, o), Tanh())]
    # The last activation stays: a loss need not follow on an Affine layer.
    network = Network(layers, SigmoidWithLoss(), seed=2, dtype="float64")
    assert_is_brute(filled(network, rng), *drawn(network, examples, rng))


NORMALIZED = {
    "before the input": [BatchNormalization(5), Affine(5, 6), Tanh(), Affine(6, 3)],
    "in the middle": [Affine(5, 6), BatchNormalization(6), Sigmoid(), Affine(6, 3)],
    "twice": [Affine(5, 6), BatchNormalization(6), Sigmoid(), Affine(6, 4), BatchNormalization(4), Tanh(), Affine(4, 3)],
    "after two products": [Affine(5, 6), Tanh(), Affine(6, 4), BatchNormalization(4), Tanh(), Affine(4, 3)],
    "before the loss": [Affine(5, 6), Tanh(), Affine(6, 3), BatchNormalization(3)],
    "two, one on the other": [Affine(5, 3), BatchNormalization(3), BatchNormalization(3)],
    "followed by two products": [Affine(5, 6), BatchNormalization(6), Tanh(), Affine(6, 4), Tanh(), Affine(4, 3)],
}


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("examples", [2, 8, 9, 300])
@pytest.mark.parametrize("place", NORMALIZED)
def test_batch_normalization_couples_the_examples(rng, place, examples, loss):
    if examples == 300 and loss is not SoftmaxWithLoss:
        examples = 65       # brute force takes its time
    network = filled(Network(copy.deepcopy(NORMALIZED[place]), loss(), seed=3, dtype="float64"), rng)
    assert_is_brute(network, *drawn(network, examples, rng))


def test_dropout_is_off(rng):
    network = Network([Dropout(0.1), Affine(5, 6), Relu(), Dropout(0.4), Affine(6, 3)], seed=4, dtype="float64")
    x, t = drawn(network, 9, rng)
    assert_is_brute(network, x, t)
    without = Network([Affine(0.9 * network.params["W1"], network.params["b1"]), Relu(),
                       Affine(0.6 * network.params["W2"], network.params["b2"])])
    found, expected = network.numerical_gradient(x, t), without.numerical_gradient(x, t)
    np.testing.assert_allclose(found["b2"], expected["b2"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found["W1"], 0.9 * expected["W1"], rtol=0, atol=1e-8)


def test_the_books_dropout_network_is_no_exception(rng):
    np.random.seed(0)
    network = MultiLayerNetExtend(5, [6], 3, use_dropout=True, dropout_ration=0.3, use_batchnorm=True,
                                  weight_decay_lambda=0.1)
    assert_is_brute(network, *drawn(network, 9, rng))


@pytest.mark.parametrize("activation", [Relu, Tanh])
@pytest.mark.parametrize("values", ["binary", "one value", "all zero", "negative zero"])
def test_values_that_are_equal_count_each_for_itself(rng, values, activation):
    network = filled(Network([Affine(20, 6), activation(), Affine(6, 3)], seed=5, dtype="float64"), rng)
    x = {
        "binary": rng.integers(0, 2, (9, 20)).astype(float),
        "one value": np.full((9, 20), 0.7),
        "all zero": np.zeros((9, 20)),
        "negative zero": np.where(rng.random((9, 20)) < 0.5, -0.0, 1.0),
    }[values]
    assert_is_brute(network, x, rng.integers(0, 3, 9))


@pytest.mark.parametrize("h", [1e-2, 1e-3, 1e-5])
def test_any_h(rng, h):
    network = filled(Network([Affine(5, 6), Sigmoid(), Affine(6, 3)], seed=6, dtype="float64"), rng)
    x, t = drawn(network, 9, rng)
    expected = network.numerical_gradient(x, t, h=h, method="brute")
    for key, gradient in network.numerical_gradient(x, t, h=h).items():
        np.testing.assert_allclose(gradient, expected[key], rtol=0, atol=8 * 2.0**-53 / h)


def test_weight_decay_is_in_the_loss(rng):
    network = filled(Network([Affine(5, 6), Sigmoid(), Affine(6, 3)], seed=7, dtype="float64"), rng)
    network.weight_decay_lambda = 0.3
    assert_is_brute(network, *drawn(network, 9, rng))


def test_a_hundred_layers(rng):
    network = Network([layer for _ in range(100) for layer in (Affine(2, 2), Tanh())], seed=8, dtype="float64")
    assert_is_brute(network, *drawn(network, 3, rng))


@pytest.mark.parametrize("limit", ["_DIFFERENCES", "_BLOCK_BYTES", "_MOST_UNITS", "_CALL_SECONDS"])
def test_the_parts_in_which_the_work_is_done_change_nothing(rng, monkeypatch, limit):
    network = filled(Network([Affine(5, 70), Tanh(), Affine(70, 17), Relu(), Affine(17, 3)], seed=9), rng)
    x, t = drawn(network, 65, rng)
    expected = network.numerical_gradient(x, t)
    monkeypatch.setattr(_numerical_gradient, limit, 1 if limit != "_CALL_SECONDS" else 0)
    for key, gradient in network.numerical_gradient(x, t).items():
        # Examples are added in the same order, but sums of their parts are not.
        tolerance = reference.rounding("f8", 65, abs(expected[key]).max()) if limit == "_DIFFERENCES" else 0
        np.testing.assert_allclose(gradient, expected[key], rtol=0, atol=tolerance, err_msg=key)


@pytest.mark.parametrize("middle", [Relu, lambda: BatchNormalization(40)], ids=["by pairs", "by batches"])
def test_any_number_of_threads_gives_the_same_bits(rng, monkeypatch, middle):
    network = filled(Network([Affine(30, 40), middle(), Affine(40, 17), Tanh(), Affine(17, 3)], seed=10), rng)
    x, t = drawn(network, 65, rng)
    with_threads(monkeypatch, 1)
    expected = network.numerical_gradient(x, t)
    for threads in (2, 3, 8):
        with_threads(monkeypatch, threads)
        for key, gradient in network.numerical_gradient(x, t).items():
            np.testing.assert_array_equal(gradient, expected[key])


def test_float32_networks_are_perturbed_in_float64(rng):
    network = filled(Network([Affine(5, 6), Tanh(), Affine(6, 3)], IdentityWithLoss(), seed=11), rng)
    x, t = drawn(network, 9, rng)
    twin = Network([Affine(*(network.params[key].astype("f8") for key in ("W1", "b1"))), Tanh(),
                    Affine(*(network.params[key].astype("f8") for key in ("W2", "b2")))], IdentityWithLoss())
    expected = twin.gradient(x, t)
    for key, gradient in network.numerical_gradient(x, t).items():
        np.testing.assert_allclose(gradient, expected[key], rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", ["exact", "brute"])
def test_nothing_in_the_network_changes(rng, method):
    network = Network([Affine(5, 6), BatchNormalization(6), Relu(), Dropout(0.5), Affine(6, 3)], seed=12)
    x, t = drawn(network, 9, rng)
    network.gradient(x, t)
    state = [array.copy() for array in network.state()]
    gradients = {key: array.copy() for key, array in network._collected("grads").items()}
    loss, generator = network.last_layer.loss, copy.deepcopy(network.generator.bit_generator.state)
    with reference.unchanged(x):
        network.numerical_gradient(x, t, method=method)
    for array, before in zip(network.state(), state, strict=True):
        np.testing.assert_array_equal(array, before)
    for key, array in network._collected("grads").items():
        np.testing.assert_array_equal(array, gradients[key])
    assert network.last_layer.loss == loss
    assert network.generator.bit_generator.state == generator


# The kernels by themselves; the others are in the loops over builds above


def test_pairs_are_the_different_values_of_each_example_and_1_for_the_bias(build, rng):
    x = rng.integers(-2, 3, (40, 16)) * 0.25
    x[0] = 1.0      # as the bias has it
    pairs, table = np.empty((41, 5), np.int32), np.empty(128, np.int32)
    examples, values = np.full(41 * 5, -7), np.full(41 * 5, np.nan)
    count = build.pair_values(x, 3, pairs, examples, values, table)
    assert count == sum(len(set(column) - {0.0}) for column in x[:, 3:8].T)
    assert (examples[count:] == -7).all() and np.isnan(values[count:]).all()
    for e, i in itertools.product(range(5), range(41)):
        value = x[i, 3 + e] if i < 40 else 1.0
        if value == 0:
            assert pairs[i, e] == -1
        else:
            assert examples[pairs[i, e]] == 3 + e and values[pairs[i, e]] == value


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_the_differences_of_pairs_are_added_up_example_after_example(build, rng, threads):
    pairs = rng.integers(-1, 20, (9, 7)).astype(np.int32)
    differences, gradients = rng.standard_normal((20, 17)), rng.standard_normal((9, 17))
    expected = gradients.copy()
    for i, e in itertools.product(range(9), range(7)):
        if pairs[i, e] >= 0:
            expected[i] += differences[pairs[i, e]]
    build.sum_pairs(pairs, differences, gradients, threads)
    np.testing.assert_array_equal(gradients, expected)


# Beside backpropagation


@pytest.mark.parametrize("loss", LOSSES[1:], ids=lambda loss: loss.__name__)
def test_without_the_1e_7_in_the_logarithm_it_is_backpropagations_gradient(rng, mnist, loss):
    x = mnist[0][0][:30].astype(np.float64)
    network = Network([Affine(784, 20), Tanh(), Affine(20, 10)], loss(), seed=13, dtype="float64")
    t = np.eye(10)[mnist[0][1][:30]]
    gradient, numerical = network.gradient(x, t), network.numerical_gradient(x, t)
    for key in gradient:
        np.testing.assert_allclose(numerical[key], gradient[key], rtol=0, atol=1e-6 * abs(gradient[key]).max())


@pytest.mark.parametrize("spread", [1, 5], ids=["ordinary scores", "large scores"])
def test_the_1e_7_in_the_logarithm_is_all_that_softmax_differs_by(rng, mnist, spread):
    x, t = mnist[0][0][:30].astype(np.float64), mnist[0][1][:30].astype(np.int64)
    network = Network([Affine(784, 20), Sigmoid(), Affine(20, 10)], seed=14, dtype="float64")
    network.params["W2"] *= spread
    network.gradient(x, t)
    probabilities = network.last_layer.y[np.arange(30), t]
    # The derivative of -log(p + 1e-7) is p / (p + 1e-7) times that of -log(p).
    dout = network.last_layer.backward() * (probabilities / (probabilities + 1e-7))[:, np.newaxis]
    for layer in reversed(network.layers.values()):
        dout = layer.backward(dout)
    numerical, expected = network.numerical_gradient(x, t), network._collected("grads")
    differs = network.gradient(x, t)
    for key in expected:
        largest = abs(expected[key]).max()
        np.testing.assert_allclose(numerical[key], expected[key], rtol=0, atol=1e-6 * largest)
        assert abs(differs[key] - expected[key]).max() > 1e-8 * largest     # it does count


# What it cannot do in compiled code


class Scale:
    """A user's layer, which keeps its parameter in an attribute."""

    def __init__(self, n):
        self.s = np.full(n, 2.0, np.float32)

    params = property(lambda self: {"s": self.s})

    def forward(self, x):
        return x * self.s

    def backward(self, dout):
        raise AssertionError("nobody asks for it")


class Slotted(Scale):
    """One whose parameter is nowhere to be found."""

    def __init__(self, n):
        self._kept = [np.full(n, 2.0, np.float32)]

    s = property(lambda self: self._kept[0])


def test_a_layer_of_the_users_is_evaluated_by_brute_force_in_float64(rng):
    network = Network([Affine(5, 4), Scale(4), Tanh(), Affine(4, 3)], IdentityWithLoss(), seed=15)
    x, t = drawn(network, 9, rng)
    found = network.numerical_gradient(x, t)
    assert network.layers["Scale1"].s.dtype == np.float32
    twin = Network([Affine((network.params["W1"] * network.params["s1"]).astype("f8"), np.zeros(4)), Tanh(),
                    Affine(network.params["W2"].astype("f8"), np.zeros(3))], IdentityWithLoss())
    expected = twin.gradient(x, t)
    np.testing.assert_allclose(found["W1"], 2 * expected["W1"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(found["s1"] * 2, (expected["W1"] * twin.params["W1"]).sum(axis=0), rtol=0, atol=1e-7)


def test_a_parameter_that_cannot_be_made_float64_is_refused(rng):
    network = Network([Affine(5, 4), Slotted(4), Affine(4, 3)], seed=16)
    with pytest.raises(TypeError, match=r"^s of Slotted1 could not be converted to float64, which a numerical gradient "
                                        "needs: keep it as an array in an attribute of the layer$"):
        network.numerical_gradient(*drawn(network, 9, rng))


def test_a_loss_that_is_not_finite_has_no_gradient(rng):
    network = Network([Affine(5, 4), Relu(), Affine(4, 3)], seed=17, dtype="float64")
    network.params["W2"][0, 0] = np.inf
    for gradient in network.numerical_gradient(rng.random((9, 5)), rng.integers(0, 3, 9)).values():
        assert np.isnan(gradient).all()


def test_a_network_without_parameters_has_no_gradient(rng):
    network = Network([Identity(), Tanh()], IdentityWithLoss())
    for method in ("exact", "brute"):
        assert network.numerical_gradient(rng.random((3, 2)), rng.random((3, 2)), method=method) == {}


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"h": 0}, ValueError, "h is 0, but must be above 0"),
    ({"h": -1e-4}, ValueError, "h is -0.0001, but must be a finite number of at least 0"),
    ({"h": "small"}, TypeError, "h is 'small', but must be a number"),
    ({"method": "quick"}, ValueError, "method is 'quick', but must be one of exact, brute"),
    ({"x": np.full((2, 5), np.nan)}, ValueError, r"x contains NaN or infinity \(first at row 0, column 0\)"),
    ({"x": np.zeros((0, 5))}, ValueError, "x has no rows, but at least 1 is needed"),
    ({"x": np.zeros((2, 4))}, ValueError, "x has 4 columns, but layer 1"),
    ({"t": [0, 1, 2]}, ValueError, "t has 3 rows, but x has 2 rows"),
    ({"t": [0, 3]}, ValueError, r"t\[1\] is 3, but"),
])
@pytest.mark.parametrize("method", ["exact", "brute"])
def test_bad_arguments_are_refused_in_a_sentence(method, arguments, error, message):
    network = Network([Affine(5, 4), Relu(), Affine(4, 3)], seed=18)
    given = {"x": np.ones((2, 5)), "t": [0, 1], "method": method} | arguments
    with pytest.raises(error, match=f"^{message}"):
        network.numerical_gradient(given.pop("x"), given.pop("t"), **given)


def test_it_may_be_interrupted(rng, monkeypatch):
    """Between two calls of compiled code Python notices Ctrl-C."""
    network = Network([Affine(50, 64), Tanh(), Affine(64, 3)], seed=19)
    x, t = drawn(network, 65, rng)
    ours, calls = _kernels.kernels(np.dtype("float64")), []

    class Counting:
        def __getattr__(self, name):
            return getattr(ours, name)

        def perturb(self, *arguments):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return ours.perturb(*arguments)

    monkeypatch.setattr(_numerical_gradient, "kernels", lambda dtype: Counting())
    monkeypatch.setattr(_numerical_gradient, "_CALL_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        network.numerical_gradient(x, t)
    assert len(calls) == 3
    monkeypatch.undo()
    assert_is_brute(network, x[:2], t[:2])


def test_the_setting_of_threads_holds(rng, monkeypatch):
    network = Network([Affine(50, 64), Tanh(), Affine(64, 3)], seed=20)
    x, t = drawn(network, 65, rng)
    ours, found = _kernels.kernels(np.dtype("float64")), set()

    class Watching:
        def __getattr__(self, name):
            return getattr(ours, name)

        def perturb(self, *arguments):
            found.add(arguments[-1])
            return ours.perturb(*arguments)

    monkeypatch.setattr(_numerical_gradient, "kernels", lambda dtype: Watching())
    with nnfast.num_threads(1):
        network.numerical_gradient(x, t)
    with nnfast.num_threads(2):
        network.numerical_gradient(x, t)
    assert found == {1, 2}
