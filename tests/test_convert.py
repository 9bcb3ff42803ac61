"""Weights from and to other libraries: what they predict, as formulas and, where they are installed, by themselves."""

from types import SimpleNamespace

import numpy as np
import pytest

from nnfast import (
    SGD,
    Affine,
    BatchNormalization,
    Dropout,
    Identity,
    IdentityWithLoss,
    LeakyRelu,
    Network,
    PoissonLoss,
    Relu,
    Rescale,
    Sigmoid,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    convert,
)


def layers():
    return [Dropout(0.2), Dropout(0.3), Affine(7, 9), Relu(), Dropout(0.5), BatchNormalization(9), LeakyRelu(0.1), Dropout(0.1),
            Identity(), Affine(9, 5), Tanh(), Affine(5, 3)]


def trained(make=layers, dtype="float64", seed=1):
    rng = np.random.default_rng(seed)
    network = Network(make(), seed=seed, dtype=dtype)
    network.fit(rng.standard_normal((60, 7)) + 1, rng.integers(0, 3, 60), epochs=5, batch_size=20, optimizer=SGD(0.05))
    return network


def predicted_by_torch(network, state, x, epsilon):
    """What torch.nn.Sequential of such layers gives in evaluation: Dropout does nothing there."""
    for place, layer in enumerate(network.layers.values()):
        if isinstance(layer, Affine):
            x = x @ state[f"{place}.weight"].T + state[f"{place}.bias"]
        elif isinstance(layer, BatchNormalization):
            std = np.sqrt(state[f"{place}.running_var"] + epsilon)
            x = (x - state[f"{place}.running_mean"]) / std * state[f"{place}.weight"] + state[f"{place}.bias"]
        elif not isinstance(layer, Dropout):
            x = layer.forward(x)
    return x


def predicted_by_keras(network, weights, x, epsilon):
    weights = iter(weights)
    for layer in network.layers.values():
        if isinstance(layer, Affine):
            x = x @ next(weights) + next(weights)
        elif isinstance(layer, BatchNormalization):
            gamma, beta, mean, variance = (next(weights) for _ in range(4))
            x = (x - mean) / np.sqrt(variance + epsilon) * gamma + beta
        elif not isinstance(layer, Dropout):
            x = layer.forward(x)
    return x


@pytest.mark.parametrize("options", [{}, {"epsilon": 1e-2}])
def test_to_pytorch_the_same_is_predicted(rng, options):
    network, x = trained(), rng.standard_normal((20, 7))
    state = convert.to_torch(network, **options)
    np.testing.assert_allclose(
        predicted_by_torch(network, state, x, options.get("epsilon", 1e-5)), network.predict(x), rtol=0, atol=1e-13)
    assert list(state)[:3] == ["2.weight", "2.bias", "5.weight"]


@pytest.mark.parametrize("options", [{}, {"epsilon": 1e-2}])
def test_to_keras_the_same_is_predicted(rng, options):
    network, x = trained(), rng.standard_normal((20, 7))
    weights = convert.to_keras(network, **options)
    np.testing.assert_allclose(
        predicted_by_keras(network, weights, x, options.get("epsilon", 1e-3)), network.predict(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("library", ["torch", "keras"])
@pytest.mark.parametrize("options", [{}, {"epsilon": 1e-2}])
def test_there_and_back_the_same_is_predicted(rng, library, options):
    network, other, x = trained(), trained(seed=2), rng.standard_normal((20, 7))
    assert not np.allclose(other.predict(x), network.predict(x))
    arrays = dict(other.params)
    weights = getattr(convert, f"to_{library}")(network, **options)
    getattr(convert, f"from_{library}")(other, weights, **options)
    np.testing.assert_allclose(other.predict(x), network.predict(x), rtol=0, atol=1e-13)
    assert all(other.params[key] is array for key, array in arrays.items())     # in place


def test_the_scale_of_a_rescale_goes_into_the_next_weights(rng):
    make = lambda seed: Network([Rescale(1 / 255), Affine(7, 9), Relu(), Rescale(0.5), Affine(9, 3)], seed=seed, dtype="float64")
    network, other = make(1), make(2)
    x = rng.integers(0, 255, (20, 7))
    W1, b1, W2, b2 = convert.to_keras(network)
    np.testing.assert_allclose(np.maximum(x @ W1 + b1, 0) @ W2 + b2, network.predict(x), rtol=0, atol=1e-13)
    convert.from_torch(other, convert.to_torch(network))
    np.testing.assert_allclose(other.predict(x), network.predict(x), rtol=0, atol=1e-13)


def test_what_is_converted_is_new_and_of_the_networks_dtype(dtype):
    network = trained(dtype=dtype)
    before = {key: array.copy() for key, array in network.params.items()}
    for array in (*convert.to_torch(network).values(), *convert.to_keras(network)):
        if array.ndim:
            assert array.dtype == dtype
            array[...] = 0
    for key, array in network.params.items():
        np.testing.assert_array_equal(array, before[key])


def test_a_linear_module_may_have_no_bias_and_any_name(rng):
    network = Network([Affine(7, 9), Relu(), Affine(9, 3)], seed=0, dtype="float64")
    first, second = rng.standard_normal((9, 7)), rng.standard_normal((3, 9))
    convert.from_torch(network, {"body.first.weight": first, "head.weight": second, "head.bias": np.ones(3)})
    x = rng.standard_normal((5, 7))
    np.testing.assert_allclose(network.predict(x), np.maximum(x @ first.T, 0) @ second.T + 1, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("activation", "output", "layer", "loss"), [
    ("relu", "softmax", Relu, SoftmaxWithLoss), ("tanh", "logistic", Tanh, SigmoidWithLoss),
    ("logistic", "identity", Sigmoid, IdentityWithLoss), ("identity", "softmax", Identity, SoftmaxWithLoss),
    ("tanh", "exp", Tanh, PoissonLoss)])
def test_scikit_learns_estimators_become_networks(rng, dtype, activation, output, layer, loss):
    coefs = [rng.standard_normal(shape).astype(dtype) for shape in ((7, 9), (9, 5), (5, 3))]
    intercepts = [rng.standard_normal(size).astype(dtype) for size in (9, 5, 3)]
    estimator = SimpleNamespace(coefs_=coefs, intercepts_=intercepts, activation=activation, out_activation_=output)
    network = convert.from_sklearn(estimator, seed=0)
    assert [type(one) for one in network.layers.values()] == [Affine, layer, Affine, layer, Affine]
    assert type(network.last_layer) is loss
    assert network.dtype == dtype
    found = convert.to_sklearn(network)
    for one, other in zip((*found[0], *found[1]), (*coefs, *intercepts), strict=True):
        np.testing.assert_array_equal(one, other)
    network.params["W1"][:] = 0
    assert coefs[0].any()       # a copy


def test_to_scikit_learn_dropouts_scale_is_in_the_next_weights(rng):
    network = trained(lambda: [Affine(7, 9), Relu(), Dropout(0.5), Affine(9, 3)])
    (first, second), (b1, b2) = convert.to_sklearn(network)
    x = rng.standard_normal((5, 7))
    np.testing.assert_allclose(np.maximum(x @ first + b1, 0) @ second + b2, network.predict(x), rtol=0, atol=1e-14)


# The libraries themselves

@pytest.mark.needs("torch")
def test_pytorch_predicts_the_same():
    import torch

    network = trained()
    module = torch.nn.Sequential(
        torch.nn.Dropout(), torch.nn.Dropout(), torch.nn.Linear(7, 9), torch.nn.ReLU(), torch.nn.Dropout(),
        torch.nn.BatchNorm1d(9), torch.nn.LeakyReLU(0.1), torch.nn.Dropout(), torch.nn.Identity(), torch.nn.Linear(9, 5), torch.nn.Tanh(),
        torch.nn.Linear(5, 3)).double()
    x = torch.randn(20, 7, dtype=torch.float64)
    module.load_state_dict({key: torch.from_numpy(array) for key, array in convert.to_torch(network).items()})
    np.testing.assert_allclose(module.eval()(x).detach().numpy(), network.predict(x.numpy()), rtol=0, atol=1e-13)
    module.train()(x).sum().backward()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn_like(parameter)
    for state in (module.state_dict(), {**module.state_dict(keep_vars=True)}):
        other = trained(seed=2)
        convert.from_torch(other, state)
        np.testing.assert_allclose(module.eval()(x).detach().numpy(), other.predict(x.numpy()), rtol=0, atol=1e-12)


@pytest.mark.needs("keras")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")       # Keras 3 on PyTorch gives one of NumPy 2's
def test_keras_predicts_the_same(rng):
    import keras

    model = keras.Sequential([
        keras.Input((7,)), keras.layers.Dropout(0.2), keras.layers.Dense(9, "relu"), keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.1), keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)])
    network = trained(lambda: [Dropout(0.2), Affine(7, 9), Relu(), BatchNormalization(9), Dropout(0.1), Affine(9, 5), Tanh(),
                               Affine(5, 3)], "float32")
    x = rng.standard_normal((20, 7)).astype(np.float32)
    model.set_weights(convert.to_keras(network))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), network.predict(x), rtol=0, atol=1e-5)
    other = Network([Dropout(0.2), Affine(7, 9), Relu(), BatchNormalization(9), Dropout(0.1), Affine(9, 5), Tanh(), Affine(5, 3)])
    convert.from_keras(other, model.get_weights())
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), other.predict(x), rtol=0, atol=1e-5)


@pytest.mark.needs("sklearn")
@pytest.mark.parametrize("classes", [2, 3, None])
def test_scikit_learn_predicts_the_same(rng, classes):
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    x = rng.standard_normal((90, 7))
    options = {"hidden_layer_sizes": (9, 5), "max_iter": 30, "tol": 0.0, "n_iter_no_change": 1000, "random_state": 0}
    model = MLPRegressor(**options) if classes is None else MLPClassifier(**options)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        model.fit(x, x[:, 0] if classes is None else np.arange(90) % classes)
    scores = convert.from_sklearn(model).predict(x)
    if classes is None:
        np.testing.assert_allclose(scores[:, 0], model.predict(x), rtol=0, atol=1e-12)
    elif classes == 2:
        np.testing.assert_allclose(1 / (1 + np.exp(-scores[:, 0])), model.predict_proba(x)[:, 1], rtol=0, atol=1e-12)
    else:
        powers = np.exp(scores)
        np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), model.predict_proba(x), rtol=0, atol=1e-12)


# What is refused

class OwnAffine:
    def __init__(self):
        self.params = {"W": np.ones((3, 3))}
        self.grads = {}

    def forward(self, x):
        return x

    def backward(self, dout):
        return dout


def plain():
    return Network([Affine(7, 9), Relu(), Affine(9, 3)], seed=0)


REFUSED = [
    (lambda: convert.from_torch(plain(), []), TypeError, "state is a list, but must be a dict of arrays by name"),
    (lambda: convert.from_torch(plain(), {"0.weight": np.ones((9, 7))}), ValueError, "state has 1 modules with arrays, but the"),
    (lambda: convert.from_torch(plain(), {"0.weight": np.ones((9, 7)), "2.bias": np.ones(3)}), ValueError,
     "state has bias of module '2', but layer Affine2 needs weight, bias"),
    (lambda: convert.from_torch(plain(), {"0.weight": np.ones((7, 9)), "2.weight": np.ones((3, 9))}), ValueError,
     r"state has an array of shape \(9, 7\) for layer Affine1, which has \(7, 9\) there"),
    (lambda: convert.from_torch(plain(), {"0.weight": "a", "2.weight": np.ones((3, 9))}), TypeError, r"state\['0.weight'\]"),
    (lambda: convert.from_keras(plain(), np.ones((2, 2))), TypeError, "weights is a ndarray, but must be a list of arrays"),
    (lambda: convert.from_keras(plain(), [np.ones((7, 9))]), ValueError, "weights has 1 arrays, but the layers of the network need 4"),
    (lambda: convert.from_keras(plain(), [np.ones((7, 9)), np.ones(9), np.ones((9, 3)), np.ones(4)]), ValueError,
     r"weights has an array of shape \(4,\) for layer Affine2, which has \(3,\) there"),
    (lambda: convert.to_torch(plain(), epsilon=-1), ValueError, "epsilon is -1"),
    (lambda: convert.to_torch(Network([Affine(7, 3), OwnAffine()])), TypeError, "layer OwnAffine1 is a OwnAffine, whose parameters"),
    (lambda: convert.to_keras(Network([Affine(7, 3), Dropout()])), ValueError, "the last Dropout or Rescale is followed by no weights"),
    (lambda: convert.to_keras(Network([Affine(7, 3), Dropout(), Tanh(), Affine(3, 3)])), ValueError,
     "Tanh1 comes between a Dropout or Rescale and the weights that could take its scale"),
    (lambda: convert.to_keras(Network([Rescale(1.0, 0.5), Affine(7, 3)])), ValueError, "Rescale1 is more than one number above 0"),
    (lambda: convert.to_torch(Network([Rescale([1, 2]), Affine(2, 3)])), ValueError, "Rescale1 is more than one number above 0"),
    (lambda: convert.to_torch(Network([Rescale(-1), Affine(2, 3)])), ValueError, "Rescale1 is more than one number above 0"),
    (lambda: convert.to_keras(Network([Dropout(1.0), Affine(7, 3)])), ValueError, "a Dropout of ratio 1 lets nothing pass"),
    (lambda: convert.to_sklearn(Network([BatchNormalization(7), Affine(7, 3)])), TypeError, "a BatchNormalization cannot be"),
    (lambda: convert.from_sklearn(plain()), TypeError, "estimator is a Network without coefs_: a fitted MLPClassifier"),
    (lambda: convert.from_sklearn(SimpleNamespace(coefs_=[], intercepts_=[], activation="selu", out_activation_="softmax")),
     ValueError, "activation is 'selu', but must be one of relu, tanh, logistic, identity"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_nothing_changes_where_one_array_does_not_fit():
    network = plain()
    before = network.params["W1"].copy()
    with pytest.raises(ValueError, match="state has an array"):
        convert.from_torch(network, {"0.weight": np.ones((9, 7)), "2.weight": np.ones((4, 9))})
    np.testing.assert_array_equal(network.params["W1"], before)
