"""Derivatives with respect to inputs, and all parameters as one vector."""

import copy
import pickle
import threading

import numpy as np
import pytest

from nnfast import (
    SGD,
    Adam,
    Affine,
    BatchNormalization,
    Dropout,
    Gelu,
    Identity,
    LeakyRelu,
    MultiLayerNetExtend,
    Network,
    Relu,
    Rescale,
    Sigmoid,
    SoftmaxWithLoss,
    Tanh,
)


class OwnCube:
    def forward(self, x):
        self.x = x
        return x**3

    def backward(self, dout):
        return 3 * self.x**2 * dout


CHAINS = {
    "relu": lambda: [Affine(6, 9), Relu(), Affine(9, 4)],
    "leaky relu": lambda: [Affine(6, 9), LeakyRelu(0.3), Affine(9, 4)],
    "sigmoid": lambda: [Affine(6, 9), Sigmoid(), Affine(9, 4), Sigmoid()],
    "tanh": lambda: [Tanh(), Affine(6, 9), Tanh(), Affine(9, 4)],
    "gelu": lambda: [Affine(6, 9), Gelu(), Affine(9, 4), Identity()],
    "normalisation": lambda: [BatchNormalization(6), Affine(6, 9), Relu(), BatchNormalization(9), Affine(9, 4)],
    "dropout": lambda: [Dropout(0.2), Affine(6, 9), Tanh(), Dropout(0.5), Affine(9, 4)],
    "rescaled": lambda: [Rescale([0.5, 2, 1, -1, 1, 3], 0.1), Affine(6, 9), Tanh(), Rescale(0.7, 0.2), Affine(9, 4)],
    "own": lambda: [Affine(6, 9), OwnCube(), Affine(9, 4)],
    "no weights": lambda: [Tanh(), BatchNormalization(6)],
}


def trained(chain, dtype="float64"):
    rng = np.random.default_rng(2)
    network = Network(CHAINS[chain](), seed=1, dtype=dtype)
    network.fit(rng.standard_normal((40, 6)), rng.integers(0, network.outputs, 40), epochs=3, batch_size=10, optimizer=SGD(0.01))
    return network


def differences(network, x, h=1e-6):
    """The Jacobian by central differences."""
    found = np.empty((len(x), network.outputs, x.shape[1]))
    for place in range(x.shape[1]):
        step = np.zeros(x.shape[1])
        step[place] = h
        found[:, :, place] = (network.predict(x + step) - network.predict(x - step)) / (2 * h)
    return found


@pytest.mark.parametrize("chain", CHAINS)
def test_the_jacobian_is_what_small_differences_give(rng, chain):
    network, x = trained(chain), rng.standard_normal((7, 6))
    found = network.jacobian(x)
    assert found.shape == (7, network.outputs, 6)
    np.testing.assert_allclose(found, differences(network, x), rtol=0, atol=1e-7 * max(1, abs(found).max()))


@pytest.mark.parametrize("chain", CHAINS)
def test_the_gradient_is_the_jacobian_times_what_comes_in(rng, dtype, chain):
    network, x = trained(chain, dtype), rng.standard_normal((7, 6))
    dout = rng.standard_normal((7, network.outputs))
    found = network.input_gradient(x, dout)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found, np.einsum("bo,boi->bi", dout, network.jacobian(x)), rtol=0, atol=(1e-12 if dtype == np.float64 else 1e-4))


def test_one_output_needs_no_gradient_to_begin_with(rng):
    network = Network([Affine(6, 9), Tanh(), Affine(9, 1)], seed=0, dtype="float64")
    x = rng.standard_normal((7, 6))
    np.testing.assert_array_equal(network.input_gradient(x), network.jacobian(x)[:, 0])


@pytest.mark.parametrize("chain", CHAINS)
def test_nothing_in_the_network_changes(rng, chain):
    network, x = trained(chain), rng.standard_normal((7, 6))
    t = rng.integers(0, network.outputs, 7)
    network.loss(x, t)
    twin = copy.deepcopy(network)
    network.jacobian(x + 1)
    for array, other in zip(network.state(), twin.state(), strict=True):
        np.testing.assert_array_equal(array, other)
    if chain != "normalisation" and chain != "no weights":      # whose backward wants a training pass
        gradients = []
        for one in (network, twin):
            dout = one.last_layer.backward()
            for layer in reversed(one.layers.values()):
                dout = layer.backward(dout) if type(layer) is not Dropout else dout
            gradients.append(dout)
        np.testing.assert_array_equal(*gradients)


def test_many_threads_may_ask_at_once(rng):
    network, inputs = trained("relu"), [rng.standard_normal((50, 6)) for _ in range(8)]
    expected, found = [network.jacobian(x) for x in inputs], [None] * 8

    def ask(place):
        for _ in range(20):
            found[place] = network.jacobian(inputs[place])

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_results_that_are_held_stay_what_they_were(rng):
    network, x = trained("relu"), rng.standard_normal((7, 6))
    held = network.input_gradient(x, np.ones((7, 4)))
    kept = held.copy()
    network.input_gradient(x + 1, np.ones((7, 4)))
    np.testing.assert_array_equal(held, kept)


def test_what_is_given_is_not_what_comes_back(rng):
    dout = rng.standard_normal((7, 6))
    found = Network([Identity()], dtype="float64").input_gradient(rng.standard_normal((7, 6)), dout)
    np.testing.assert_array_equal(found, dout)
    assert not np.shares_memory(found, dout)


def test_no_rows_and_wrong_arguments(rng):
    network = trained("relu")
    assert network.jacobian(np.empty((0, 6))).shape == (0, 4, 6)
    with pytest.raises(ValueError, match=r"the network has 4 outputs: pass dout of shape \(7, 4\), or ask for its jacobian"):
        network.input_gradient(np.ones((7, 6)))
    with pytest.raises(ValueError, match=r"dout has shape \(7, 3\)"):
        network.input_gradient(np.ones((7, 6)), np.ones((7, 3)))
    with pytest.raises(ValueError, match="x has 5 columns"):
        network.jacobian(np.ones((7, 5)))
    with pytest.raises(TypeError, match="x "):
        network.jacobian("a")


@pytest.mark.needs("torch")
def test_pytorch_gives_the_same(rng):
    import torch

    from nnfast import convert

    network, x = trained("gelu"), rng.standard_normal((7, 6))
    module = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.GELU(), torch.nn.Linear(9, 4)).double()
    module.load_state_dict({key: torch.from_numpy(array) for key, array in convert.to_torch(network).items()})
    expected = torch.stack([torch.autograd.functional.jacobian(module, row) for row in torch.from_numpy(x)])
    np.testing.assert_allclose(network.jacobian(x), expected.numpy(), rtol=0, atol=1e-14)


# One vector

@pytest.mark.parametrize("chain", ["relu", "normalisation", "no weights"])
def test_the_vector_is_all_parameters_in_their_order_and_live(rng, dtype, chain):
    network, x = trained(chain, dtype), rng.standard_normal((7, 6))
    expected = np.concatenate([array.reshape(-1) for array in network.params.values()])
    scores = network.predict(x)
    vector = network.flat_params
    np.testing.assert_array_equal(vector, expected)
    assert vector.dtype == dtype
    assert network.flat_params is vector
    np.testing.assert_array_equal(network.predict(x), scores)
    vector[:] = rng.standard_normal(vector.size)
    assert not np.array_equal(network.predict(x), scores)
    key = next(iter(network.params))
    network.params[key][...] = 3
    assert (vector[: network.params[key].size] == 3).all()


def test_assigning_to_the_vector_assigns_to_the_parameters():
    network = trained("relu")
    vector = network.flat_params
    network.flat_params = np.arange(vector.size)
    assert network.flat_params is vector
    np.testing.assert_array_equal(network.params["W1"].reshape(-1), np.arange(54))
    network.flat_params -= 1
    assert network.params["b2"][-1] == vector.size - 2
    with pytest.raises(ValueError, match=r"flat_params has shape \(3,\)"):
        network.flat_params = np.ones(3)


@pytest.mark.parametrize("chain", ["relu", "normalisation"])
def test_a_network_of_one_vector_trains_as_before(rng, chain):
    one, other = (Network(CHAINS[chain](), seed=1, dtype="float64") for _ in range(2))
    vector = one.flat_params
    x, t = rng.standard_normal((40, 6)), rng.integers(0, 4, 40)
    for network in (one, other):
        network.fit(x, t, epochs=3, batch_size=10, optimizer=Adam())
    assert one.flat_params is vector
    for key, array in other.params.items():
        np.testing.assert_array_equal(one.params[key], array)
        np.testing.assert_array_equal(one.gradient(x, t)[key], other.gradient(x, t)[key])


def test_replaced_arrays_and_copies_get_a_vector_of_their_own(rng):
    network = trained("relu")
    vector = network.flat_params
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        twin.flat_params[:] = 0
        assert vector.any()
        assert not twin.params["W1"].any()
    pickled = len(pickle.dumps(network))
    assert abs(pickled - len(pickle.dumps(trained("relu")))) < 200      # the vector is not in it besides
    network.layers["Affine1"].W = np.ones((6, 9))
    other = network.flat_params
    assert other is not vector
    np.testing.assert_array_equal(other[:54], 1)
    np.testing.assert_array_equal(other[54:], vector[54:])


def test_arrays_in_another_order_are_noticed():
    network = Network([Affine(4, 4), Relu(), Affine(4, 4)], seed=0)
    first, second = network.flat_params[:16].copy(), network.flat_params[20:36].copy()
    one, other = network.layers["Affine1"], network.layers["Affine2"]
    one.W, other.W = other.W, one.W
    vector = network.flat_params
    np.testing.assert_array_equal(vector[:16], second)
    np.testing.assert_array_equal(vector[20:36], first)
    one.W = one.W.T
    np.testing.assert_array_equal(network.flat_params[:16].reshape(4, 4), second.reshape(4, 4).T)


def test_the_books_network_has_one_too():
    network = MultiLayerNetExtend(6, [5], 4, use_batchnorm=True)
    assert network.flat_params.size == sum(array.size for array in network.params.values())


def test_while_another_thread_trains_no_array_is_replaced(rng):
    network, started, over = trained("relu"), threading.Event(), threading.Event()

    def note(epoch):
        started.set()
        over.wait()

    thread = threading.Thread(target=lambda: network.fit(
        rng.standard_normal((40, 6)), np.arange(40) % 4, callbacks=[note]))
    thread.start()
    started.wait()
    with pytest.raises(RuntimeError, match="this network is being trained"):
        network.flat_params
    over.set()
    thread.join()
    network.flat_params[:] = 1
    assert (network.params["W2"] == 1).all()


class OwnAffine:
    def __init__(self):
        self.params = {"V": np.ones((4, 4))}
        self.grads = {}

    def forward(self, x):
        return x @ self.params["V"]

    def backward(self, dout):
        return dout


def test_arrays_that_cannot_be_parts_are_named():
    network = Network([Affine(np.ones((6, 4)), np.ones(4)), OwnAffine()], SoftmaxWithLoss())
    before = network.layers["Affine1"].W
    with pytest.raises(TypeError, match="layer OwnAffine1 is a OwnAffine, whose arrays cannot be parts of one vector"):
        network.flat_params
    assert network.layers["Affine1"].W is before
