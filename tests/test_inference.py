"""Inference in compiled code: what the layers do one by one, whatever the network, batch, dtype and threads."""

import copy
import pickle
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from test_plan import ACTIVATIONS, with_threads

import nnfast
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
    Tanh,
    TwoLayerNet,
)

# Around what divides the work: groups of 8 rows of weights, tiles, few rows or many, blocks of 1024.
ROWS = [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 63, 64, 65, 100, 1025]
TOLERANCE = {"float32": 2e-5, "float64": 1e-13}


def layer_by_layer(network, x):
    for layer in network.layers.values():
        x = layer.infer(x)
    return x


def filled(network, rng):
    """The network with biases and statistics that are not 0 or 1."""
    for array in network.state():
        if array.ndim == 1:
            array[...] = rng.random(array.shape) + 0.5
    return network


def assert_same_scores(network, x):
    expected = layer_by_layer(network, x)
    found = network.predict(x)
    assert found.dtype == network.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[network.dtype.name] * abs(expected).max())
    return found


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", [
    (1, 1), (7, 15, 16, 17), (9, 31, 32, 33, 1), (8, 47, 48, 49, 2), (65, 63, 64, 65), (130, 5, 3, 129), (300, 520, 10),
])
def test_every_size_gives_what_the_layers_give(rng, monkeypatch, dtype, threads, sizes):
    with_threads(monkeypatch, threads)
    layers = [layer for i, o in pairwise(sizes) for layer in (Affine(i, o), Tanh())]
    network = filled(Network(layers[:-1], seed=1, dtype=dtype), rng)
    for rows in ROWS:
        assert_same_scores(network, rng.standard_normal((rows, sizes[0])).astype(dtype))


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 9, 70])
@pytest.mark.parametrize("layer", [
    *ACTIVATIONS, lambda: LeakyRelu(0.3), lambda: Dropout(0.3), lambda: BatchNormalization(19),
])
def test_every_layer_first_between_and_last(rng, dtype, rows, layer):
    x = rng.standard_normal((rows, 19)).astype(dtype)
    for layers in (
        [layer(), layer(), Affine(19, 19)], [Affine(19, 19), layer()],
        [Affine(19, 21), Relu(), Affine(21, 19), layer(), layer(), Affine(19, 3)],
    ):
        network = Network(layers, nnfast.IdentityWithLoss(), seed=1, dtype=dtype)
        assert network._chain() is not None
        assert_same_scores(filled(network, rng), x)


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(20, 50, 10), (300, 520, 33), (65, 2)])
def test_any_number_of_threads_gives_the_same_bits(rng, monkeypatch, dtype, sizes):
    layers = [layer for i, o in pairwise(sizes) for layer in (Affine(i, o), Gelu())]
    network = filled(Network(layers, seed=1, dtype=dtype), rng)
    for rows in (1, 7, 15, 16, 63, 64, 130):
        x = rng.standard_normal((rows, sizes[0])).astype(dtype)
        found = []
        for threads in (1, 2, 3, 8):
            with_threads(monkeypatch, threads)
            found.append(network.predict(x).tobytes())
        assert len(set(found)) == 1, rows


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 3, 40, 1025])
def test_inputs_of_the_other_dtype_are_converted_in_passing(rng, dtype, rows):
    x = rng.standard_normal((rows, 20)).astype(np.float32)
    other = x.astype(np.float64 if dtype == "float32" else np.float32)
    for layers in ([Affine(20, 30), Relu(), Affine(30, 3)], [Relu(), Affine(20, 3)]):
        network = Network(layers, seed=1, dtype=dtype)
        np.testing.assert_array_equal(network.predict(other), network.predict(x.astype(dtype)))


@pytest.mark.usefixtures("each_build")
def test_zeros_are_left_out_unless_a_weight_is_not_finite(rng, dtype):
    x = rng.standard_normal((200, 100)).astype(dtype)
    x[:, 20:] = 0
    network = Network([Affine(100, 50), Relu(), Affine(50, 4)], seed=1, dtype=dtype.name)
    assert_same_scores(network, x)
    network.params["W1"][60, 7] = np.nan    # 0 times NaN
    assert np.isnan(network.predict(x)).all()


def test_whatever_is_changed_in_between_is_seen(rng):
    x = rng.standard_normal((4, 6))
    network = Network(
        [Affine(6, 5), BatchNormalization(5), Dropout(0.5), LeakyRelu(0.1), Affine(5, 2)], seed=1, dtype="float64")
    affine, normalization, dropout, leaky, last = network.layers.values()

    def w(value):
        network.params["W1"] = value

    changes = [
        lambda: w(np.full((6, 5), 0.3)),
        lambda: setattr(affine, "W", np.full((6, 5), 0.7)),
        lambda: setattr(affine, "b", np.full(5, -0.7)),
        lambda: setattr(last, "W", np.asfortranarray(rng.random((5, 2)))),
        lambda: last.W.fill(0.25),      # in another layout than the kernels take: copied anew
        lambda: setattr(normalization, "gamma", np.full(5, 3.0)),
        lambda: setattr(normalization, "beta", np.full(5, 2.0)),
        lambda: setattr(normalization, "running_mean", np.full(5, 1.0)),
        lambda: setattr(normalization, "running_var", np.full(5, 4.0)),
        lambda: normalization.running_mean.fill(2.0),
        lambda: setattr(dropout, "dropout_ratio", 0.25),
        lambda: setattr(leaky, "slope", 0.9),
        lambda: network.layers.update({"LeakyRelu1": Sigmoid()}),
        lambda: network.layers.pop("Dropout1"),
    ]
    before = network.predict(x)
    for number, change in enumerate(changes):
        change()
        after = network.predict(x)
        np.testing.assert_allclose(after, layer_by_layer(network, x), rtol=1e-12, err_msg=str(number))
        assert abs(after - before).max() > 1e-6, number
        before = after


@pytest.mark.parametrize(("key", "array", "sentence"), [
    ("W", np.ones((7, 5)), "x has 6 columns, but W takes 7 inputs"),
    ("W", np.ones((6, 4)), "b has shape (5,), but a row of W has shape (4,)"),
    ("b", np.ones(4), "b has shape (4,), but a row of W has shape (5,)"),
    ("b", np.ones(5, np.float32), "b is float32, but W is float64"),
    ("W", np.ones(30), "W has shape (30,), but must have 2 axes"),
])
def test_arrays_that_do_not_fit_any_more_are_refused(key, array, sentence):
    network = Network([Affine(6, 5), Relu(), Affine(5, 2)], seed=1, dtype="float64")
    network.predict(np.ones((1, 6)))
    setattr(network.layers["Affine1"], key, array)
    with pytest.raises(ValueError) as caught:
        network.predict(np.ones((1, 6)))
    assert str(caught.value) == sentence


def test_a_layer_written_in_python_runs_as_before(rng):
    class Double:
        def forward(self, x):
            return 2 * x

        def backward(self, dout):
            return 2 * dout

    network = Network([Affine(6, 5), Double()], seed=1)
    assert network._chain() is None
    x, out = rng.standard_normal((3, 6)).astype(np.float32), np.empty((3, 5), np.float32)
    expected = 2 * network.layers["Affine1"].infer(x)
    np.testing.assert_array_equal(network.predict(x), expected)
    assert network.predict(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    out[...] = 0
    assert network.predictor(3)(x, out) is out
    np.testing.assert_array_equal(out, expected)


def test_no_rows_no_inputs_and_no_outputs():
    network = Network([Affine(np.ones((0, 3)), np.arange(3.0))], nnfast.IdentityWithLoss())
    np.testing.assert_array_equal(network.predict(np.ones((2, 0))), [[0, 1, 2]] * 2)
    assert network.predict(np.ones((0, 0))).shape == (0, 3)
    network = Network([Affine(np.ones((2, 0)), np.ones(0)), Affine(np.ones((0, 2)), np.ones(2))])
    np.testing.assert_array_equal(network.predict(np.ones((20, 2))), np.ones((20, 2)))
    assert network.predictor()(np.ones((1, 2))).shape == (1, 2)


# out=

@pytest.mark.parametrize("rows", [1, 5, 200])
def test_out_is_filled_and_returned(rng, rows):
    network = Network([Affine(6, 5), Relu(), Affine(5, 2)], seed=1)
    x = rng.standard_normal((rows, 6)).astype(np.float32)
    expected = network.predict(x)
    around = np.full((rows + 2, 2), 7, np.float32)
    layouts = {
        "contiguous": around[1:-1],
        "columns first": np.empty((rows, 2), np.float32, order="F"),
        "strided": np.empty((rows, 4), np.float32)[:, ::2],
        "other byte order": np.empty((rows, 2), np.dtype(np.float32).newbyteorder()),
    }
    for name, out in layouts.items():
        assert network.predict(x, out=out) is out, name
        np.testing.assert_array_equal(out, expected, err_msg=name)
    np.testing.assert_array_equal(around[[0, -1]], 7)


@pytest.mark.parametrize("rows", [1, 20, 300])
def test_out_may_lie_over_x(rng, rows):
    network = Network([Affine(6, 6)], nnfast.IdentityWithLoss(), seed=1, dtype="float64")
    memory = rng.standard_normal((rows + 1, 6))
    for x, out in ((memory[1:], memory[:-1]), (memory[:-1], memory[1:]), (memory[1:], memory[1:])):
        expected = network.predict(x)
        network.predict(x, out=out)
        np.testing.assert_array_equal(out, expected)
        expected = network.predict(x)
        network.predictor(rows)(x, out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(("out", "error", "sentence"), [
    ([[0.0, 0.0]], TypeError, "out is list, but must be an array of float32"),
    (np.empty((1, 2)), TypeError, "out is an array of float64, but must be of float32, as the network's parameters"),
    (np.empty((1, 3), np.float32), ValueError, "out has shape (1, 3), but the scores have shape (1, 2)"),
    (np.empty(2, np.float32), ValueError, "out has shape (2,), but the scores have shape (1, 2)"),
    (np.broadcast_to(np.float32(0), (1, 2)), ValueError, "out is read-only"),
])
def test_a_wrong_out_is_refused(out, error, sentence):
    network = Network([Affine(6, 5), Relu(), Affine(5, 2)], seed=1)
    x = np.ones((1, 6), np.float32)
    for call in (lambda: network.predict(x, out=out), lambda: network.predictor()(x, out)):
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value) == sentence


# Predictors

@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 16, 100])
def test_a_predictor_gives_what_predict_gives(rng, monkeypatch, dtype, threads, batch_size):
    with_threads(monkeypatch, threads)
    network = Network([Affine(6, 70), BatchNormalization(70), Relu(), Affine(70, 2)], seed=1, dtype=dtype)
    predictor = network.predictor(batch_size)
    for rows in {1, batch_size - 1, batch_size} - {0}:
        x = rng.standard_normal((rows, 6))
        expected, out = network.predict(x), np.empty((rows, 2), dtype)
        for given in (x, x.astype(np.float32), x.tolist(), np.asfortranarray(x), x.astype(dtype)[::-1][::-1]):
            np.testing.assert_allclose(predictor(given), expected, rtol=1e-5)
            assert predictor(given, out) is out
            np.testing.assert_allclose(out, expected, rtol=1e-5)
        assert predictor(x).base is None and predictor(x) is not predictor(x)


def test_a_predictor_sees_what_the_network_learns(rng):
    network = Network([Affine(6, 5), Relu(), Affine(5, 2)], seed=1)
    x, t = rng.standard_normal((40, 6)), rng.integers(0, 2, 40)
    predictor = network.predictor(40)
    before = predictor(x)
    network.fit(x, t, epochs=3)
    after = predictor(x)
    np.testing.assert_array_equal(after, network.predict(x))
    assert not np.array_equal(after, before)
    network.params["b2"] = [10, -10]
    np.testing.assert_array_equal(predictor(x), network.predict(x))
    assert not np.array_equal(predictor(x), after)


def test_a_predictor_of_weights_in_another_layout_sees_changes(rng):
    network = Network([Affine(np.asfortranarray(rng.random((6, 5))), np.zeros(5))], seed=1)
    predictor, x = network.predictor(), rng.random((1, 6))
    network.params["W1"] *= 2
    np.testing.assert_array_equal(predictor(x), network.predict(x))


def test_a_predictor_uses_no_more_threads_than_it_has_memory_for(rng):
    network = Network([Affine(300, 300), Relu(), Affine(300, 300)], seed=1)
    x = rng.standard_normal((500, 300)).astype(np.float32)
    with nnfast.num_threads(1):
        predictor = network.predictor(500)
    with nnfast.num_threads(8):
        expected = network.predict(x)
        np.testing.assert_array_equal(predictor(x), expected)
        predictor = network.predictor(500)
    with nnfast.num_threads(2):
        np.testing.assert_array_equal(predictor(x), expected)


@pytest.mark.parametrize(("batch_size", "error", "sentence"), [
    (0, ValueError, "batch_size is 0"), (-1, ValueError, "batch_size is -1"), (1.5, TypeError, "batch_size is"),
    ("2", TypeError, "batch_size is"),
])
def test_a_predictor_needs_a_number_of_rows(batch_size, error, sentence):
    with pytest.raises(error, match=sentence):
        TwoLayerNet(2, 3, 2).predictor(batch_size)


@pytest.mark.parametrize(("x", "error", "sentence"), [
    (np.ones((3, 6)), ValueError, "x has 3 rows, but this predictor was made for batches of 2"),
    (np.ones((2, 5)), ValueError, "x has 5 columns, but layer 1 (Affine) takes 6 inputs"),
    (np.ones(6), ValueError, None),
    (np.ones((2, 6), complex), TypeError, None),
    ([["a"] * 6], TypeError, None),
    (None, TypeError, None),
])
def test_a_predictor_refuses_wrong_inputs(x, error, sentence):
    predictor = Network([Affine(6, 2)], seed=1).predictor(2)
    with pytest.raises(error) as caught:
        predictor(x)
    assert sentence is None or str(caught.value) == sentence


def test_other_python_threads_run_while_a_long_prediction_does():
    network = Network([Affine(1000, 1000), Relu(), Affine(1000, 1000)], seed=1)
    x = np.ones((5000, 1000), np.float32)
    network.predict(x[:1])
    times = []

    def call():
        times.append(time.perf_counter())
        network.predict(x, num_threads=1)
        times.append(time.perf_counter())

    thread = threading.Thread(target=call)
    thread.start()
    seen = []
    while thread.is_alive():
        seen.append(time.perf_counter())
    begun, ended = times
    assert any(begun + 0.25 * (ended - begun) < moment < begun + 0.75 * (ended - begun) for moment in seen)


def test_copies_of_a_network_have_chains_of_their_own():
    network = TwoLayerNet(4, 3, 2)
    x = np.ones((1, 4))
    before = network.predict(x)
    for twin in (copy.deepcopy(network), copy.copy(network), pickle.loads(pickle.dumps(network))):
        np.testing.assert_array_equal(twin.predict(x), before)
    twin = copy.deepcopy(network)
    twin.params["b2"] = [5, 5]
    assert not np.array_equal(twin.predict(x), before)
    np.testing.assert_array_equal(network.predict(x), before)


def test_the_books_networks_run_in_compiled_code():
    for network in (TwoLayerNet(4, 3, 2), MultiLayerNetExtend(4, [3, 3], 2, use_dropout=True, use_batchnorm=True)):
        assert network._chain() is not None


def test_out_of_a_training_pass(rng):
    network, x, out = MultiLayerNetExtend(4, [3], 2, use_batchnorm=True), rng.random((6, 4)), np.empty((6, 2))
    assert network.predict(x, True, out=out) is out
    assert abs(out - network.predict(x)).max() > 1e-6
    assert network.predict(x, out=out) is out
    np.testing.assert_array_equal(out, network.predict(x))
    with pytest.raises(ValueError, match="out has shape"):
        network.predict(x, True, out=out[1:])


def test_identity_alone_copies():
    network = Network([Identity(), Affine(2, 2)], seed=0)
    network.layers.pop("Affine1")
    x = np.ones((3, 2), np.float32)
    scores = network.predict(x)
    scores[...] = 5
    np.testing.assert_array_equal(x, 1)


# The loss

def manual_gradients(network):
    """The book's own way through the layers, after a call of loss."""
    dout = network.last_layer.backward(1)
    for layer in reversed(network.layers.values()):
        dout = layer.backward(dout)
    return dout, {f"{key}{name[-1]}": grad for name, layer in network.layers.items()
                  for key, grad in getattr(layer, "grads", {}).items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_after_loss_the_layers_give_what_their_backward_needs(rng, dtype, activation):
    network = Network([Affine(6, 5), activation(), Affine(5, 3)], seed=1, dtype=dtype)
    x, t = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)
    gradients = network.gradient(x, t)
    network.gradient(x + 1, t)      # whatever the layers kept before is not used
    loss = network.loss(x, t)
    scores = layer_by_layer(network, x)
    assert loss == pytest.approx(type(network.last_layer)().forward(scores, t), rel=1e-6 if dtype == "float32" else 1e-14)
    dx, found = manual_gradients(network)
    assert dx.shape == x.shape
    for key, gradient in gradients.items():
        np.testing.assert_allclose(found[key], gradient, rtol=0, atol=TOLERANCE[dtype], err_msg=key)


def test_after_loss_a_look_at_a_layer_shows_the_last_pass(rng):
    network = Network([Affine(6, 5), Relu(), Affine(5, 4), Sigmoid()], nnfast.IdentityWithLoss(), seed=1, dtype="float64")
    first, relu, second, sigmoid = network.layers.values()
    x, t = rng.standard_normal((7, 2, 3)), rng.random((7, 4))
    network.loss(np.ones((1, 6)), t[:1])
    network.loss(x, t)
    assert first.x.shape == (7, 6)
    np.testing.assert_array_equal(relu.mask, first.infer(x) <= 0)
    np.testing.assert_array_equal(second.x, relu.infer(first.infer(x)))
    np.testing.assert_array_equal(sigmoid.out, layer_by_layer(network, x))
    np.testing.assert_allclose(network.last_layer.y, sigmoid.out, rtol=1e-13)


def test_copies_of_a_network_after_loss_are_whole(rng):
    x, t = rng.standard_normal((7, 6)), rng.integers(0, 3, 7)
    network = Network([Affine(6, 5), Tanh(), Affine(5, 3)], seed=1)
    expected = network.gradient(x, t)
    for copied in (copy.deepcopy, copy.copy, lambda network: pickle.loads(pickle.dumps(network))):
        network.loss(x, t)
        _, found = manual_gradients(copied(network))
        for key, gradient in expected.items():
            np.testing.assert_allclose(found[key], gradient, rtol=0, atol=1e-7, err_msg=key)


def test_a_layer_outlives_its_network(rng):
    affine = Affine(6, 3)
    network = Network([affine], seed=1)
    network.loss(rng.standard_normal((7, 6)), rng.integers(0, 3, 7))
    del network
    assert affine.x is None
    with pytest.raises(RuntimeError, match=r"^Affine.backward needs a call of forward first$"):
        affine.backward(np.ones((7, 3)))
    assert affine.forward(np.ones((2, 6))).shape == (2, 3)
    with pytest.raises(AttributeError, match="'Affine' object has no attribute 'y'"):
        affine.y


def test_loss_of_layers_in_the_mode_of_inference(rng):
    network = filled(Network([Affine(6, 5), BatchNormalization(5), Dropout(0.4), Affine(5, 3)], seed=1), rng)
    x, t = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)
    running = network.layers["BatchNormalization1"].running_mean.copy()
    expected = type(network.last_layer)().forward(layer_by_layer(network, x), t)
    assert network.loss(x, t) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(network.layers["BatchNormalization1"].running_mean, running)
    assert network.layers["Affine1"].x.shape == (40, 6)


@pytest.mark.parametrize("rows", [131_072, 131_073, 300_001])
def test_rows_that_are_converted_some_at_a_time_give_the_same_bits(rng, rows):
    network = Network([Affine(4, 4), Tanh(), Affine(4, 3)], seed=1)
    x = rng.integers(-9, 9, (rows, 4))
    np.testing.assert_array_equal(network.predict(x), network.predict(x.astype(np.float64)))
    np.testing.assert_array_equal(network.predict(x[:, ::-1]), network.predict(np.ascontiguousarray(x[:, ::-1], np.float64)))


def test_a_result_may_lie_over_rows_that_are_converted(rng):
    network = Network([Affine(4, 4)], seed=1)
    memory = rng.integers(-9, 9, (300_001, 4), dtype=np.int32)
    x, out = memory[:-1], memory[1:].view(np.float32)
    expected = network.predict(x.copy())
    assert network.predict(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
