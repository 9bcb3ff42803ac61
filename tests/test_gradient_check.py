"""The gradient check: right networks pass, and a wrong backward is found and its layer named."""

import copy

import numpy as np
import pytest
import reference
from test_plan import LOSSES

from nnfast import (
    Affine,
    BatchNormalization,
    Dropout,
    Gelu,
    Identity,
    LeakyRelu,
    MultiLayerNetExtend,
    Network,
    Relu,
    Sigmoid,
    SoftmaxWithLoss,
    Tanh,
    TwoLayerNet,
    gradient_check,
)
from nnfast.gradient import numerical_gradient

B, I, H, O = 6, 5, 4, 3


@pytest.fixture
def data(rng):
    return rng.standard_normal((B, I)), rng.integers(0, O, B)


# Right ones


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", [Relu, LeakyRelu, Sigmoid, Tanh, Gelu, Identity])
def test_every_layer_and_loss_of_the_library_passes(rng, activation, loss, dtype):
    layers = [Affine(I, H), activation(), Dropout(0.3), Affine(H, H), BatchNormalization(H), activation(), Affine(H, O)]
    network = Network(layers, loss(), seed=1, dtype=dtype)
    t = rng.integers(0, O, B) if loss is SoftmaxWithLoss else rng.random((B, O))
    report = gradient_check(network, rng.standard_normal((B, I)), t)
    assert report.passed and not report.faulty_layers, str(report)
    assert [row.name for row in report.rows] == list(network.params)
    assert [row.layer for row in report.rows] == ["Affine1"] * 2 + ["Affine2"] * 2 + ["BatchNormalization1"] * 2 + ["Affine3"] * 2
    for row in report.rows:
        assert row.checked == row.size == network.params[row.name].size


def test_the_books_networks_pass(data):
    np.random.seed(0)
    for network in (TwoLayerNet(I, H, O), MultiLayerNetExtend(I, [H, H], O, use_dropout=True, use_batchnorm=True,
                                                              weight_decay_lambda=0.2)):
        report = gradient_check(network, *data)
        assert report.passed, str(report)


def test_nothing_in_the_network_changes(data):
    network = Network([Affine(I, H), BatchNormalization(H), Relu(), Dropout(0.5), Affine(H, O)], seed=2)
    network.gradient(*data)
    before = copy.deepcopy(network)
    with reference.unchanged(data[0]):
        gradient_check(network, *data)
    for array, kept in zip(network.state(), before.state(), strict=True):
        np.testing.assert_array_equal(array, kept)
    assert network.generator.bit_generator.state == before.generator.bit_generator.state
    np.testing.assert_array_equal(network.layers["Affine1"].dW, before.layers["Affine1"].dW)


def test_probabilities_that_the_1e_7_in_the_logarithm_would_hide_pass(rng, data):
    """Confidently wrong: a class with probability 1e-30 has hardly any gradient in the book's loss."""
    x, t = data
    network = Network([Affine(50 * rng.standard_normal((I, O)), np.zeros(O))])
    report = gradient_check(network, x, t)
    assert report.passed, str(report)
    assert abs(network.numerical_gradient(x, t)["W1"] - network.gradient(x, t)["W1"]).max() > 1e-2


def test_large_inputs_pass_for_all_the_curvature(rng, data):
    x, t = rng.integers(0, 256, (B, I)).astype(np.uint8), data[1]
    network = Network([Affine(I, H, init=0.01), Tanh(), Affine(H, O)], seed=3)
    assert gradient_check(network, x, t).passed
    coarse = network.numerical_gradient(x, t)["W1"]
    exact = Network([Affine(*(network.params[key].astype("f8") for key in ("W1", "b1"))), Tanh(),
                     Affine(*(network.params[key].astype("f8") for key in ("W2", "b2")))]).gradient(x, t)["W1"]
    assert abs(coarse - exact).max() > 1e-5 * abs(exact).max()     # with h alone it would not


# Errors that are counted


def test_the_report_says_how_far_apart_where_and_both_values(data, monkeypatch):
    x, t = data
    network = Network([Affine(I, H), Tanh(), Affine(H, O)], seed=4, dtype="float64")
    right, numerical = Network.gradient(network, x, t), network.numerical_gradient(x, t)

    def wrong(self, x, t):
        gradients = {key: array.copy() for key, array in right.items()}
        gradients["W1"][2, 1] += 0.5
        gradients["W1"][4, 3] -= 0.25
        return gradients

    monkeypatch.setattr(Network, "gradient", wrong)
    report = gradient_check(network, x, t)
    assert not report.passed
    row = report.rows[0]
    assert (row.layer, row.name, row.where, row.passed) == ("Affine1", "W1", (2, 1), False)
    assert row.backpropagated == pytest.approx(right["W1"][2, 1] + 0.5)
    assert row.numerical == pytest.approx(numerical["W1"][2, 1], abs=2e-6)      # which has the 1e-7 in its logarithm
    assert row.largest_error == pytest.approx(0.5, abs=1e-8)
    assert row.mean_error == pytest.approx(0.75 / (I * H), abs=1e-8)
    largest = abs(numerical["W1"]).max()
    assert row.largest_relative_error == pytest.approx(0.5 / largest, rel=1e-4)
    assert row.mean_relative_error == pytest.approx(0.75 / (I * H) / largest, rel=1e-4)
    assert all(row.passed for row in report.rows[1:])
    # Every layer was looked at by itself, and none is at fault.
    assert report.faulty_layers == ()
    assert {row.layer for row in report.rows if row.by_itself} == {"Affine1", "Tanh1", "Affine2", "SoftmaxWithLoss"}
    text = str(report)
    assert text == repr(report)
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "gradient", "of", "compared", "largest", "error", "mean", "error", "relative",
                                "mean", "at", "backward", "numerical"]
    assert lines[1].startswith("Affine1") and "[2, 1]" in lines[1] and lines[1].endswith("WRONG")
    assert lines[2].endswith("passed")
    assert lines[5] == "each layer by itself, with what reaches it:"
    assert lines[-1].startswith("WRONG, but each layer's backward fits its forward")


@pytest.mark.parametrize("error", [2e-5, 5e-4])
def test_the_tolerance_decides(data, monkeypatch, error):
    network = Network([Affine(I, O)], seed=5, dtype="float64")
    right = Network.gradient(network, *data)
    monkeypatch.setattr(Network, "gradient", lambda self, x, t: {key: (1 + error) * a for key, a in right.items()})
    assert not gradient_check(network, *data).passed
    assert gradient_check(network, *data, tolerance=2 * error).passed


def test_a_small_error_does_not_hide_in_the_curvature_of_a_large_step(data, monkeypatch):
    network = Network([Affine(I, H), Tanh(), Affine(H, O)], seed=5, dtype="float64")
    right = Network.gradient(network, *data)
    assert gradient_check(network, *data, h=0.05).passed
    # Within the slopes of h to both sides, not within those of a hundredth of it.
    largest = abs(right["W1"]).max()
    wrong = right["W1"] + np.where(abs(right["W1"]) == largest, 0.005 * largest, 0)
    monkeypatch.setattr(Network, "gradient", lambda self, x, t: {**right, "W1": wrong})
    assert not gradient_check(network, *data, h=0.05).passed


# Kinks


def test_a_kink_within_h_is_named_and_a_smaller_step_decides(data):
    x, t = data
    network = Network([Affine(I, H), Relu(), Affine(H, O)], seed=6, dtype="float64")
    scores = x @ network.params["W1"]
    network.params["b1"][1] = 2e-5 - scores[3, 1]       # example 3 leaves unit 1 just above its kink
    report = gradient_check(network, x, t)
    assert report.passed, str(report)
    W1, b1 = report.rows[:2]
    assert (b1.kinks, b1.kinks_in, b1.checked) == (1, "Relu1", H)
    assert W1.kinks >= 1 and W1.kinks_in == "Relu1" and W1.checked == W1.size
    assert "passed (1 at a kink of Relu1)" in str(report)


def test_at_a_kink_any_gradient_between_the_slopes_is_right(data):
    x, t = data
    network = Network([Affine(I, H), LeakyRelu(0.2), Affine(H, O)], seed=7, dtype="float64")
    x[0] = 0        # with biases of 0: every unit of the first example is at its kink
    report = gradient_check(network, x, t)
    assert report.passed and not report.faulty_layers, str(report)
    W1, b1 = report.rows[:2]
    assert W1.kinks == 0        # inputs of 0 move nothing
    assert (b1.kinks, b1.kinks_in, b1.checked) == (H, "LeakyRelu1", H)
    assert "passed (4 at a kink of LeakyRelu1)" in str(report)
    assert not any(row.by_itself for row in report.rows)


def test_where_kinks_stand_one_behind_the_other_layers_are_compared_by_themselves(data):
    x, t = data
    network = Network([Affine(I, H), LeakyRelu(0.2), Affine(H, H), Relu(), Affine(H, O)], seed=7, dtype="float64")
    x[0] = 0
    report = gradient_check(network, x, t)
    assert report.passed and not report.faulty_layers, str(report)
    b1 = report.rows[1]
    assert b1.kinks == H and b1.checked < H
    assert {row.layer for row in report.rows if row.by_itself} == {*network.layers, "SoftmaxWithLoss"}


def test_a_backward_beyond_both_slopes_at_a_kink_is_wrong(rng, data):
    class Steep(MyRelu):
        def forward(self, x):
            self.is_at_kink = x == 0
            return super().forward(x)

        def backward(self, dout):
            return super().backward(dout) + 2 * dout * self.is_at_kink

    x, t = data
    x[0] = 0
    network = Network({"theirs": Affine(I, H), "mine": Steep(), "last": Affine(H, O)}, seed=7, dtype="float64")
    assert gradient_check(network, x, t).faulty_layers == ("mine",)


def test_kinks_of_a_layer_of_the_users_are_found_too(rng, data):
    x, t = data
    x[0] = 0
    network = Network({"theirs": Affine(I, H), "mine": MyRelu(), "last": Affine(H, O)}, seed=7, dtype="float64")
    report = gradient_check(network, x, t)
    assert report.passed, str(report)
    (row,) = [row for row in report.rows if row.by_itself]
    assert (row.layer, row.kinks, row.kinks_in) == ("mine", H, "mine")


def test_an_error_at_a_kink_of_another_element_is_still_an_error(data):
    class Doubled(Relu):
        def backward(self, dout):
            return 2 * super().backward(dout)

    x, t = data
    x[0] = 0
    network = Network([Affine(I, H), Doubled(), Affine(H, O)], seed=8, dtype="float64")
    report = gradient_check(network, x, t)
    assert report.faulty_layers == ("Doubled1",)


# Layers of the user's. Each fault is one that people make.


class MyAffine:
    def __init__(self, inputs, outputs, rng):
        self.params = {"W": rng.standard_normal((inputs, outputs)), "b": rng.standard_normal(outputs)}
        self.grads = {}

    def forward(self, x):
        self.x = x
        return x @ self.params["W"] + self.params["b"]

    def backward(self, dout):
        self.grads = {"W": self.x.T @ dout, "b": dout.sum(axis=0)}
        return dout @ self.params["W"].T


class MySigmoid:
    def forward(self, x):
        self.y = 1 / (1 + np.exp(-x))
        return self.y

    def backward(self, dout):
        return dout * self.y * (1 - self.y)


class MyRelu:
    def forward(self, x):
        self.is_on = x > 0
        return x * self.is_on

    def backward(self, dout):
        return dout * self.is_on


class MyLoss:
    def forward(self, x, t):
        self.difference = x - np.eye(O)[t]
        return (self.difference**2).sum() / 2 / len(x)

    def backward(self, dout=1):
        return dout * self.difference / len(self.difference)


def network_of_mine(rng, width=H):
    return Network(
        {"first": MyAffine(I, width, rng), "relu": MyRelu(), "second": MyAffine(width, width, rng), "sigmoid": MySigmoid(),
         "theirs": Affine(width, O), "tanh": Tanh()}, MyLoss(), seed=9, dtype="float64")


def test_layers_of_the_users_that_are_right_pass(rng, data):
    report = gradient_check(network_of_mine(rng), *data)
    assert report.passed and report.faulty_layers == (), str(report)
    by_itself = [(row.layer, row.name) for row in report.rows if row.by_itself]
    assert by_itself == [("first", "x"), ("first", "W"), ("first", "b"), ("relu", "x"), ("second", "x"), ("second", "W"),
                         ("second", "b"), ("sigmoid", "x"), ("MyLoss", "x")]


def wrong_sign(self, dout):
    return -MyAffine.backward(self, dout)


def missing_transpose(self, dout):
    MyAffine.backward(self, dout)
    return dout @ self.params["W"]


def transposed_weights(self, dout):
    dx = MyAffine.backward(self, dout)
    self.grads["W"] = dout.T @ self.x
    return dx


def sum_over_the_wrong_axis(self, dout):
    dx = MyAffine.backward(self, dout)
    self.grads["b"] = dout.sum(axis=1)
    return dx


def mean_instead_of_sum(self, dout):
    dx = MyAffine.backward(self, dout)
    self.grads["b"] = dout.mean(axis=0)
    return dx


def divided_by_the_batch_again(self, dout):
    dx = MyAffine.backward(self, dout)
    self.grads["W"] = self.grads["W"] / len(dout)
    return dx


def output_instead_of_input(self, dout):
    dx = MyAffine.backward(self, dout)
    self.grads["W"] = (self.x @ self.params["W"]).T @ dout
    return dx


def bias_forgotten(self, dout):
    dx = MyAffine.backward(self, dout)
    self.grads["b"] = np.zeros_like(self.params["b"])
    return dx


def no_gradient_left(self, dout):
    dx = MyAffine.backward(self, dout)
    del self.grads["W"]
    return dx


def one_example_lost(self, dout):
    dx = MyAffine.backward(self, dout)
    dx[-1] = 0
    return dx


def input_instead_of_output(self, dout):
    return dout * np.log(self.y / (1 - self.y)) * (1 - self.y)


def plus_instead_of_minus(self, dout):
    return dout * self.y * (1 + self.y)


def mask_inverted(self, dout):
    return dout * ~self.is_on


def mask_forgotten(self, dout):
    return dout


def batch_forgotten(self, dout=1):
    return dout * self.difference


def half_forgotten(self, dout=1):
    return 2 * dout * self.difference / len(self.difference)


FAULTS = {
    "first": [wrong_sign, sum_over_the_wrong_axis, mean_instead_of_sum, divided_by_the_batch_again, bias_forgotten,
              no_gradient_left, one_example_lost],
    "second": [wrong_sign, missing_transpose, transposed_weights, output_instead_of_input, mean_instead_of_sum,
               one_example_lost],
    "sigmoid": [input_instead_of_output, plus_instead_of_minus],
    "relu": [mask_inverted, mask_forgotten],
    "MyLoss": [batch_forgotten, half_forgotten],
}


@pytest.mark.parametrize(("place", "fault"), [(place, fault) for place, faults in FAULTS.items() for fault in faults],
                         ids=lambda value: getattr(value, "__name__", value))
def test_a_wrong_backward_is_found_and_the_layer_named(rng, data, place, fault):
    network = network_of_mine(rng, B)   # as many units as examples: a wrong axis or transpose has the right shape
    faulty = network.last_layer if place == "MyLoss" else network.layers[place]
    faulty.backward = fault.__get__(faulty)
    report = gradient_check(network, *data)
    assert not report.passed
    assert report.faulty_layers == (place,), str(report)
    assert str(report).splitlines()[-1].startswith(f"WRONG: see the backward of {place} (")


def test_a_wrong_shape_is_found_and_the_layer_named(rng, data):
    for fault, message in [
        (missing_transpose, "backward raises ValueError: matmul"),
        (transposed_weights, "grads['W'] has the shape (4, 5), but W has (5, 4)"),
        (lambda self, dout: MyAffine.backward(self, dout).T, "backward returns the shape (5, 6), but the input has (6, 5)"),
        (lambda self, dout: None, "backward returns the shape (), but the input has (6, 5)"),
    ]:
        network = network_of_mine(rng)
        faulty = network.layers["first"]
        faulty.backward = fault.__get__(faulty)
        report = gradient_check(network, *data)
        assert not report.passed and report.faulty_layers == ("first",)
        assert f"WRONG: {message}" in str(report)


def test_two_faults_are_both_named(rng, data):
    network = network_of_mine(rng)
    network.layers["first"].backward = mean_instead_of_sum.__get__(network.layers["first"])
    network.layers["sigmoid"].backward = plus_instead_of_minus.__get__(network.layers["sigmoid"])
    assert gradient_check(network, *data).faulty_layers == ("first", "sigmoid")


def test_large_arrays_of_such_networks_are_sampled(rng):
    network = Network([MyAffine(40, 30, rng), MySigmoid(), Affine(30, O)], seed=10, dtype="float64")
    report = gradient_check(network, rng.standard_normal((B, 40)), rng.integers(0, O, B))
    assert report.passed
    assert (report.rows[0].checked, report.rows[0].size) == (200, 1200)
    assert "200 of 1,200" in str(report)


def test_a_layer_that_draws_random_numbers_is_refused(data):
    class Noise:
        def forward(self, x):
            return x + np.random.standard_normal(x.shape)

        def backward(self, dout):
            return dout

    with pytest.raises(ValueError, match=r"^the network gives two losses for the same x, .*: switch off what draws"):
        gradient_check(Network([Affine(I, O), Noise()]), *data)


def test_a_loss_that_is_not_finite_is_refused(data):
    network = Network([Affine(I, O)], seed=11)
    network.params["W1"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"^the loss is nan, which has no gradient to be checked: look for NaN or infinity"):
        gradient_check(network, *data)


# A network that is none of nnfast's


class BookNet:
    """As chapter 4 writes it: nothing but NumPy."""

    def __init__(self, rng):
        self.params = {"W1": rng.standard_normal((I, O)), "b1": np.zeros(O)}
        self.factor = 1.0

    def loss(self, x, t):
        y = np.tanh(x @ self.params["W1"] + self.params["b1"])
        return float(((y - np.eye(O)[t]) ** 2).sum() / 2 / len(x))

    def gradient(self, x, t):
        y = np.tanh(x @ self.params["W1"] + self.params["b1"])
        dz = (y - np.eye(O)[t]) / len(x) * (1 - y**2)
        return {"W1": x.T @ dz, "b1": self.factor * dz.sum(axis=0)}

    def numerical_gradient(self, x, t):
        return {key: numerical_gradient(lambda _: self.loss(x, t), array) for key, array in self.params.items()}


def test_any_network_with_params_loss_and_gradient_is_checked(rng, data):
    network = BookNet(rng)
    before = {key: array.copy() for key, array in network.params.items()}
    report = gradient_check(network, *data)
    assert report.passed and [row.name for row in report.rows] == ["W1", "b1"]
    for key, array in network.params.items():
        np.testing.assert_array_equal(array, before[key])
    network.factor = 6.0    # divided by the batch, forgotten
    report = gradient_check(network, *data)
    assert [row.passed for row in report.rows] == [True, False]


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"network": None}, TypeError, r"network is a NoneType, but must be a Network, or have a dict params and methods"),
    ({"network": Network}, TypeError, "network is the class Network, but must be an object"),
    ({"h": 0}, ValueError, "h is 0, but must be above 0"),
    ({"tolerance": 0}, ValueError, "tolerance is 0, but must be above 0"),
    ({"tolerance": "tight"}, TypeError, "tolerance is 'tight', but must be a number"),
    ({"x": np.full((B, I), np.inf)}, ValueError, "x contains NaN or infinity"),
    ({"x": np.ones((B, I + 1))}, ValueError, "x has 6 columns, but layer 1"),
    ({"t": np.full(B, O)}, ValueError, r"t\[0\] is 3"),
])
def test_bad_arguments_are_refused_in_a_sentence(data, arguments, error, message):
    given = {"network": Network([Affine(I, O)]), "x": data[0], "t": data[1]} | arguments
    with pytest.raises(error, match=f"^{message}"):
        gradient_check(given.pop("network"), given.pop("x"), given.pop("t"), **given)


def test_parameters_of_float32_that_are_perturbed_in_place_are_refused(rng, data):
    network = BookNet(rng)
    network.params["W1"] = network.params["W1"].astype(np.float32)
    with pytest.raises(TypeError, match=r"^params\['W1'\] is float32, whose rounding"):
        gradient_check(network, *data)
