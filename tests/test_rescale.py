"""Rescale: its formula, and bytes that a network takes as they are, with the bits of rows scaled beforehand."""

import os
import pickle
import sys

import numpy as np
import pytest
import reference
from processes import printed
from test_plan import with_threads

import nnfast
from nnfast import SGD, Adam, Affine, Dropout, Network, Relu, Rescale, Tanh, _numerical_gradient

INTEGERS = ["uint8", "int8", "uint16", "int16", "bool"]
SETTINGS = {
    "a scale": (1 / 255,),
    "a scale and an offset": (0.3, -0.7),
    "one for each column": (np.linspace(0.1, 2, 20), np.linspace(-1, 1, 20)),
    "a scale for each column": (np.linspace(0.1, 2, 20), 0),
    "an offset for each column": (0.5, np.linspace(-1, 1, 20)),
}


def scaled(x, setting, dtype):
    """By hand, in the network's dtype."""
    scale, offset = (np.asarray(value, dtype) for value in (*setting, 0)[:2])
    return x.astype(dtype) * scale + offset


def integers(rng, shape, kind):
    if kind == "bool":
        return rng.random(shape) < 0.3
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    return rng.integers(low, high, shape, dtype=np.dtype(kind).newbyteorder("="), endpoint=True).astype(kind)


def networks(setting, dtype):
    """One that rescales, and the same one without."""
    layers = lambda: [Affine(20, 17), Tanh(), Dropout(0.2), Affine(17, 5)]
    with_it, without = Network([Rescale(*setting), *layers()], seed=1, dtype=dtype), Network(layers(), seed=1, dtype=dtype)
    for array in (*with_it.params.values(), *without.params.values()):
        array *= 0.1    # numbers of 16 bits are large
    return with_it, without


# The layer alone

@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 65])
def test_it_multiplies_and_adds(rng, dtype, setting, rows):
    layer = Rescale(*SETTINGS[setting])
    x = rng.standard_normal((rows, 20)).astype(dtype)
    dout = rng.standard_normal((rows, 20)).astype(dtype)
    with reference.unchanged(x, dout):
        y, dx = layer.forward(x), layer.backward(dout)
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_array_equal(y, scaled(x, SETTINGS[setting], dtype))
    np.testing.assert_array_equal(dx, dout * np.asarray(SETTINGS[setting][0], dtype))
    np.testing.assert_array_equal(layer.infer(x), y)


def test_a_number_takes_any_shape_and_columns_take_rows_of_as_many():
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(Rescale(2, 1).forward(x), 2 * x + 1)
    np.testing.assert_array_equal(Rescale(np.arange(12)).forward(x), x * np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(Rescale(np.arange(12)).backward(x), x * np.arange(12).reshape(3, 4))
    with pytest.raises(ValueError, match="x has 12 columns, but Rescale takes 5 inputs"):
        Rescale(np.ones(5)).forward(x)
    with pytest.raises(ValueError, match="dout has 12 columns, but Rescale takes 5 inputs"):
        Rescale(np.ones(5)).backward(x)


def test_alone_it_gives_what_other_layers_give_and_in_a_network_its_dtype():
    layer, x = Rescale(0.5), np.array([[1, 2]], np.uint8)
    assert layer.forward(x).dtype == layer.forward([[1, 2]]).dtype == np.float64
    assert layer.forward(x.astype(np.float16)).dtype == np.float32
    Network([layer, Affine(2, 1)])
    assert layer.forward(x).dtype == np.float32


def test_its_arrays_are_its_own():
    scale = np.ones(3)
    layer = Rescale(scale)
    scale[0] = 5
    np.testing.assert_array_equal(layer.scale, [1, 1, 1])
    with pytest.raises(ValueError, match="read-only"):
        layer.scale[0] = 5
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(layer)).scale, [1, 1, 1])


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (("a",), TypeError, "scale is 'a', but must be a number"),
    ((np.inf,), ValueError, "scale is inf, but must be finite"),
    ((1, np.nan), ValueError, "offset is nan, but must be finite"),
    (([[1.0]],), ValueError, r"scale has shape \(1, 1\), but must be a number, or one for each column"),
    (([],), ValueError, r"scale has shape \(0,\), but must be a number"),
    ((1, ["a", "b"]), TypeError, "offset holds str.* values, but must hold real numbers"),
    (([1, 2, np.inf],), ValueError, r"scale\[2\] is inf, but must be finite: see whether that column is the same everywhere"),
    (([1, 2], [1, 2, 3]), ValueError, "scale is for 2 columns, but offset for 3"),
])
def test_what_it_is_made_of_is_looked_at(arguments, error, message):
    with pytest.raises(error, match=message):
        Rescale(*arguments)


def test_a_network_refuses_what_does_not_fit_it():
    with pytest.raises(ValueError, match=r"layer 2 \(Affine\) takes 4 inputs, but layer 1 \(Rescale\) gives 3 outputs"):
        Network([Rescale([1, 2, 3]), Affine(4, 2)])
    with pytest.raises(ValueError, match="scale of Rescale is up to 1e\\+100, which is beyond float32, the network's dtype"):
        Network([Rescale([1, -1e100]), Affine(2, 2)])
    Network([Rescale([1, -1e100]), Affine(2, 2)], dtype="float64")
    network = Network([Rescale([1, 2, 3]), Affine(3, 2)])
    with pytest.raises(ValueError, match=r"x has 4 columns, but layer 1 \(Rescale\) takes 3 inputs"):
        network.fit(np.zeros((5, 4), np.uint8), np.zeros(5, int))
    with pytest.raises(TypeError, match="x holds complex128 values"):
        network.predict(np.zeros((5, 3), complex))


# Bytes in a network: the bits of scaling by hand

@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", [*INTEGERS, "float32", "float64", ">u2", ">f8", "int64"])
def test_a_network_trains_to_the_bits_of_rows_that_are_scaled_beforehand(rng, dtype, setting, kind):
    x = rng.standard_normal((67, 20)).astype(kind) if "f" in kind else integers(rng, (67, 20), kind)
    if dtype == np.float32 and np.dtype(kind).itemsize == 8:
        x = x % 1000    # what float32 has
    t = rng.integers(0, 5, 67)
    ours, plain = networks(SETTINGS[setting], dtype)
    given = scaled(x, SETTINGS[setting], dtype)
    with reference.unchanged(x):
        histories = [[network.fit(data, t, epochs=3, batch_size=10, shuffle=shuffle, optimizer=Adam(0.01)).loss
                      for shuffle in (True, False)] for network, data in ((ours, x), (plain, given))]
    assert histories[0] == histories[1]
    for key, array in plain.params.items():
        np.testing.assert_array_equal(ours.params[key], array, err_msg=key)


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", ["uint8", "int16"])
def test_predictions_have_the_bits_of_rows_that_are_scaled_beforehand(monkeypatch, rng, dtype, setting, kind, threads):
    with_threads(monkeypatch, threads)
    x = integers(rng, (1100, 20), kind)
    t = rng.integers(0, 5, 1100)
    ours, plain = networks(SETTINGS[setting], dtype)
    given = scaled(x, SETTINGS[setting], dtype)
    for rows in (1, 3, 15, 16, 17, 63, 64, 65, 1100):
        expected = plain.predict(given[:rows])
        np.testing.assert_array_equal(ours.predict(x[:rows]), expected)
        np.testing.assert_array_equal(ours.predictor(rows)(x[:rows]), expected)
        assert ours.predictor(rows)._infer(x[:rows], np.empty_like(expected), rows, 1) is True  # not the long way
        assert ours.loss(x[:rows], t[:rows]) == plain.loss(given[:rows], t[:rows])
        assert ours.accuracy(x[:rows], t[:rows]) == plain.accuracy(given[:rows], t[:rows])
    backwards = x[:, ::-1]
    np.testing.assert_array_equal(ours.predict(backwards), plain.predict(scaled(backwards, SETTINGS[setting], dtype)))
    out = np.empty((1100, 5), dtype)
    assert ours.predict(x, out=out) is out
    np.testing.assert_array_equal(out, plain.predict(given))


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("setting", SETTINGS)
def test_gradients_have_the_bits_of_rows_that_are_scaled_beforehand(rng, dtype, setting):
    x, t = integers(rng, (30, 20), "uint8"), rng.integers(0, 5, 30)
    ours, plain = networks(SETTINGS[setting], dtype)
    given = scaled(x, SETTINGS[setting], dtype)
    found, expected = ours.gradient(x, t), plain.gradient(given, t)
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)
    dout = rng.standard_normal((30, 5)).astype(dtype)
    np.testing.assert_array_equal(
        ours.input_gradient(x, dout), plain.input_gradient(given, dout) * np.asarray(SETTINGS[setting][0], dtype))
    np.testing.assert_array_equal(ours.jacobian(x)[:, 2], plain.jacobian(given)[:, 2] * np.asarray(SETTINGS[setting][0], dtype))


class Own(Relu):
    """Trains layer by layer."""


@pytest.mark.parametrize("setting", SETTINGS)
def test_layer_by_layer_it_is_the_same(rng, dtype, setting):
    x, t = integers(rng, (67, 20), "uint8"), rng.integers(0, 5, 67)
    ours = Network([Rescale(*SETTINGS[setting]), Affine(20, 9), Own(), Affine(9, 5)], seed=1, dtype=dtype)
    plain = Network([Affine(20, 9), Own(), Affine(9, 5)], seed=1, dtype=dtype)
    given = scaled(x, SETTINGS[setting], dtype)
    for network, data in ((ours, x), (plain, given)):
        network.fit(data, t, epochs=2, batch_size=10, optimizer=SGD(1e-3))
    for key, array in plain.params.items():
        np.testing.assert_array_equal(ours.params[key], array, err_msg=key)
    np.testing.assert_array_equal(ours.predict(x), plain.predict(given))
    assert ours.loss(x, t) == plain.loss(given, t)
    ours.gradient(x, t)     # after which the layers have what they were given
    assert ours.layers["Affine1"].x.dtype == dtype


def test_layers_know_what_backward_needs_after_a_loss_of_bytes(rng):
    x, t = integers(rng, (30, 20), "uint8"), rng.integers(0, 5, 30)
    ours, plain = networks((1 / 255,), "float64")
    given = scaled(x, (1 / 255,), np.float64)
    for network, data in ((ours, x), (plain, given)):
        network.loss(data, t)
    np.testing.assert_array_equal(ours.layers["Affine1"].x, plain.layers["Affine1"].x)


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("layers", [[Rescale(0.1)], [Rescale(0.1), Rescale(0.5)], [Rescale(0.1, 0.2)]], ids=["one", "two", "offset"])
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64", "int16"])
def test_rows_of_many_zeros_give_the_same_bits_as_ever(rng, dtype, layers, kind):
    """Zeros are skipped: in training and in predictions of many rows; and what is not 0 must not be."""
    x = (rng.integers(1, 100, (300, 400)) * (rng.random(400) < 0.2)).astype(kind)
    x[7, 399] = 1
    t = rng.integers(0, 5, 300)
    ours = Network([*layers, Affine(400, 30), Relu(), Affine(30, 5)], seed=2, dtype=dtype)
    plain = Network([Affine(400, 30), Relu(), Affine(30, 5)], seed=2, dtype=dtype)
    given = x.astype(dtype)
    for layer in layers:
        given = given * np.asarray(layer.scale, dtype) + np.asarray(layer.offset, dtype)
    for network, data in ((ours, x), (plain, given)):
        network.fit(data, t, batch_size=64, optimizer=SGD(0.01))
    np.testing.assert_array_equal(ours.predict(x), plain.predict(given))


def test_weights_that_are_not_finite_are_seen_behind_zeros(rng):
    network = Network([Rescale(0.1), Affine(400, 30), Relu(), Affine(30, 5)], seed=2)
    network.params["W1"][3, 4] = np.nan
    assert np.isnan(network.predict(np.zeros((300, 400), np.uint8))).all()


@pytest.mark.parametrize("layers", [
    [Rescale(0.2, 0.1), Affine(6, 4), Tanh(), Affine(4, 3)],
    [Rescale(np.linspace(0.1, 1, 6)), Rescale(0.3, -0.1), Affine(6, 3)],
    [Affine(6, 4), Rescale(0.7), Tanh(), Affine(4, 3)],
    [Affine(6, 4), Rescale(0.7, 0.2), Tanh(), Affine(4, 3)],
    [Affine(6, 4), Rescale(np.linspace(0.1, 1, 4)), Tanh(), Affine(4, 3)],
], ids=["first", "two first", "between", "between, with an offset", "between, by columns"])
def test_backpropagation_is_what_small_differences_give(rng, layers):
    network = Network(layers, seed=1, dtype="float64")
    x, t = rng.integers(0, 10, (8, 6), dtype=np.uint8), rng.integers(0, 3, 8)
    found, exact = network.gradient(x, t), network.numerical_gradient(x, t)
    brute = network.numerical_gradient(x, t, method="brute")
    for key, gradient in found.items():
        # A loss of some 2 has 16 digits, of which h = 1e-4 leaves 12; h**2 times third derivatives is 1e-7.
        np.testing.assert_allclose(exact[key], brute[key], rtol=0, atol=1e-10)
        np.testing.assert_allclose(gradient, exact[key], rtol=0, atol=1e-6)
    assert nnfast.gradient_check(network, x, t).passed


def test_numerical_gradients_are_of_rows_that_are_scaled_in_float64(rng):
    network = Network([Rescale(1 / 3, 1 / 7), Affine(6, 3)], seed=1)
    x, t = rng.integers(0, 10, (8, 6), dtype=np.uint8), rng.integers(0, 3, 8)
    exact, brute = (network.numerical_gradient(x, t, method=method) for method in ("exact", "brute"))
    for key, gradient in exact.items():
        np.testing.assert_allclose(gradient, brute[key], rtol=0, atol=1e-10)    # in float32, x would be wrong by 1e-7


def test_only_what_compiled_code_has_no_stage_for_is_perturbed_by_brute_force():
    fits = lambda *layers: _numerical_gradient.fits(Network(layers))
    assert fits(Rescale([1, 2], [3, 4]), Affine(2, 2), Rescale(2))
    assert not fits(Affine(2, 2), Rescale(2, 1))
    assert not fits(Affine(2, 2), Rescale([1, 2]), Affine(2, 2))


def test_a_network_without_it_takes_bytes_as_it_did(rng, dtype):
    x, t = integers(rng, (67, 20), "uint8"), rng.integers(0, 5, 67)
    one, other = (Network([Affine(20, 5)], seed=1, dtype=dtype) for _ in range(2))
    one.fit(x, t, optimizer=SGD(1e-5))
    other.fit(x.astype(dtype), t, optimizer=SGD(1e-5))
    np.testing.assert_array_equal(one.params["W1"], other.params["W1"])
    np.testing.assert_array_equal(one.predict(x), other.predict(x.astype(np.float64)))
    np.testing.assert_array_equal(one.predictor(67)(x), one.predict(x))


def test_another_scale_in_a_layer_that_is_there_is_seen(rng):
    x = integers(rng, (5, 20), "uint8")
    network, _ = networks((0.1,), "float32")
    network.predict(x)
    network.gradient(x, [0, 1, 2, 3, 4])
    network.layers["Rescale1"].scale = 0.2
    same, _ = networks((0.2,), "float32")
    np.testing.assert_array_equal(network.predict(x), same.predict(x))
    network.layers["Dropout1"].dropout_ratio = same.layers["Dropout1"].dropout_ratio = 0.0
    np.testing.assert_array_equal(*(one.gradient(x, [0, 1, 2, 3, 4])["W1"] for one in (network, same)))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.skipif("san" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer takes memory for each byte of the program's")
def test_bytes_are_never_copied_as_floats():
    """A copy in float32 would take 160 MB, but no more than 60 are to be had."""
    assert printed("""
import resource
import numpy as np
import nnfast

def data():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmData")) << 10

x, t = np.full((200_000, 200), 7, np.uint8), np.zeros(200_000, np.int64)
network = nnfast.Network([nnfast.Rescale(1 / 255), nnfast.Affine(200, 10)], seed=0)
network.fit(x[:1000], t[:1000])
network.predict(x[:1000])
resource.setrlimit(resource.RLIMIT_DATA, (data() + (60 << 20), resource.RLIM_INFINITY))
network.fit(x, t, validation_data=(x, t), batch_size=500)
network.predict(x)
network.gradient(x[:1000], t[:1000])
network.loss(x, t)
network.accuracy(x, t)
try:
    x.astype(np.float32)
except MemoryError:
    print("there is a limit")
""", MALLOC_MMAP_THRESHOLD_=str(1 << 20), OMP_STACKSIZE="1M") == "there is a limit"
