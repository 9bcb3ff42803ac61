"""Networks as C and as NumPy: the files stand alone, and give what the network gives."""

import ctypes
import runpy
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from test_plan import LOSSES

from nnfast import (
    SGD,
    Affine,
    BatchNormalization,
    Dropout,
    Gelu,
    Identity,
    LeakyRelu,
    MultiLayerNetExtend,
    Network,
    PoissonLoss,
    Relu,
    Rescale,
    Sigmoid,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
)

CHAINS = {
    "relu": lambda: [Affine(7, 9), Relu(), Affine(9, 3)],
    "leaky relu": lambda: [Affine(7, 9), LeakyRelu(0.3), Affine(9, 3), LeakyRelu(0.9)],
    "sigmoid": lambda: [Affine(7, 9), Sigmoid(), Affine(9, 3)],
    "tanh": lambda: [Affine(7, 9), Tanh(), Affine(9, 3)],
    "gelu": lambda: [Affine(7, 9), Gelu(), Affine(9, 3)],
    "one layer": lambda: [Affine(7, 3)],
    "one value": lambda: [Affine(1, 1), Relu()],
    "no weights between": lambda: [Affine(7, 9), Affine(9, 5), Identity(), Affine(5, 3)],
    "growing and shrinking": lambda: [Affine(7, 30), Relu(), Affine(30, 2), Tanh(), Affine(2, 40), Gelu(), Affine(40, 3)],
    "normalisation first": lambda: [BatchNormalization(7), Affine(7, 9), Relu(), BatchNormalization(9), Affine(9, 3)],
    "dropout": lambda: [Dropout(0.2), Affine(7, 9), Relu(), Dropout(0.5), Affine(9, 3)],
    "rescaled": lambda: [Rescale(0.25), Affine(7, 9), Relu(), Affine(9, 3)],
    "rescaled by columns": lambda: [Rescale(np.arange(1, 8), 0.5), Affine(7, 9), Rescale(2.0, -1.0), Tanh(), Affine(9, 3)],
    "no product": lambda: [BatchNormalization(7), Tanh()],
    "wide": lambda: [Affine(300, 500), Relu(), Affine(500, 10)],
}
NEEDED = {f"{name}{suffix}" for name in ("exp", "tanh", "erfc") for suffix in ("", "f")} | {"memset", "memcpy"}

COMPILERS = [pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"there is no {name} here"))
             for name in ("gcc", "clang", "clang-19")]
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc here")
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror"]


def trained(chain, dtype, loss=SoftmaxWithLoss):
    """After a few steps, so that running statistics and biases are something."""
    rng = np.random.default_rng(3)
    network = Network(CHAINS[chain](), loss(), seed=1, dtype=dtype)
    x = rng.standard_normal((60, network.inputs)) * 2 + 1
    t = rng.integers(0, network.outputs, 60) if loss is SoftmaxWithLoss else rng.random((60, network.outputs))
    # Means of scores that nobody has trained yet are so large that a step would lead anywhere.
    network.fit(x, t, epochs=3, batch_size=20, optimizer=SGD(0.01), clip_norm=0.1 if loss is PoissonLoss else None)
    return network


def expected_of(network, x, probabilities):
    scores = network.predict(x).astype(np.float64)
    kind = type(network.last_layer)
    if not probabilities or not (kind.is_classifier or kind is PoissonLoss):
        return scores
    if kind is PoissonLoss:
        return np.exp(scores)
    if kind is SigmoidWithLoss:
        return 1 / (1 + np.exp(-scores))
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def compiled(folder, compiler="gcc", name="predict"):
    subprocess.run([compiler, *STRICT, "-O2", "-shared", "-fPIC", "network.c", "-o", "network.so", "-lm"], cwd=folder, check=True)
    return getattr(ctypes.CDLL(str(folder / "network.so")), name)


def called(function, x, outputs):
    pointer = np.ctypeslib.ndpointer(x.dtype, flags="C")
    function.argtypes, function.restype = [pointer, pointer], None
    y = np.full((len(x), outputs), np.nan, x.dtype)
    for row, result in zip(x, y, strict=True):
        function(row, result)
    return y


def self_tested(folder, compiler="gcc", name="predict"):
    subprocess.run([compiler, *STRICT, "-O2", f"-D{name}_SELF_TEST", "network.c", "-o", "network", "-lm"], cwd=folder, check=True)
    return subprocess.run([folder / "network"], capture_output=True, text=True, check=False)


def assert_close(found, expected, dtype):
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("chain", CHAINS)
def test_c_gives_what_the_network_gives(tmp_path, rng, dtype, chain, probabilities, compiler):
    network = trained(chain, dtype)
    network.export_c(tmp_path / "network.c", probabilities=probabilities)
    x = (rng.standard_normal((20, network.inputs)) * 3).astype(dtype)
    x[0] = 0
    before = x.copy()
    found = called(compiled(tmp_path, compiler), x, network.outputs)
    assert_close(found, expected_of(network, x, probabilities), dtype)
    np.testing.assert_array_equal(x, before)
    tested = self_tested(tmp_path, compiler)
    assert tested.returncode == 0, tested.stdout
    assert tested.stdout.startswith("predict: 8 examples agree to ")


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("chain", CHAINS)
def test_numpy_gives_what_the_network_gives(tmp_path, rng, dtype, chain, loss, probabilities):
    network = trained(chain, dtype, loss)
    network.export_numpy(tmp_path / "network.py", probabilities=probabilities)
    x = (rng.standard_normal((20, network.inputs)) * 3).astype(dtype)
    found = runpy.run_path(str(tmp_path / "network.py"))["predict"](x)
    assert found.dtype == dtype
    assert_close(found, expected_of(network, x, probabilities), dtype)


@needs_gcc
@pytest.mark.parametrize("loss", LOSSES)
def test_the_output_of_each_loss_is_written(tmp_path, rng, dtype, loss):
    network = trained("relu", dtype, loss)
    network.export_c(tmp_path / "network.c", name="net", probabilities=True)
    x = rng.standard_normal((20, 7)).astype(dtype)
    assert_close(called(compiled(tmp_path, name="net"), x, 3), expected_of(network, x, True), dtype)
    kind = "probabilities" if loss.is_classifier else "means" if loss is PoissonLoss else "scores"
    assert f"fills y with the {kind} for one example" in (tmp_path / "network.c").read_text()


@needs_gcc
def test_the_books_network_is_written(tmp_path, rng):
    network = MultiLayerNetExtend(7, [9, 8], 3, use_dropout=True, use_batchnorm=True, activation="sigmoid")
    network.fit(rng.standard_normal((50, 7)), rng.integers(0, 3, 50), epochs=2, batch_size=10)
    network.export_c(tmp_path / "network.c")
    x = rng.standard_normal((20, 7))
    assert_close(called(compiled(tmp_path), x, 3), network.predict(x), np.float64)


@needs_gcc
def test_c_needs_nothing_but_its_library_and_keeps_nothing(tmp_path):
    network = Network([Affine(300, 400), Gelu(), BatchNormalization(400), Affine(400, 3), Sigmoid(), Affine(3, 2)], seed=0)
    network.export_c(tmp_path / "network.c", probabilities=True)
    subprocess.run(["gcc", *STRICT, "-O2", "-c", "network.c"], cwd=tmp_path, check=True)
    symbols = subprocess.run(["nm", "network.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    kinds = [line.split()[-2:] for line in symbols.splitlines()]
    assert {name for kind, name in kinds if kind == "U"} <= NEEDED
    assert [name for kind, name in kinds if kind == "T"] == ["predict"]
    assert not [name for kind, name in kinds if kind in "bBdDC"]      # no variable that could change


@needs_gcc
def test_threads_may_call_it_at_once(tmp_path, rng):
    network = trained("growing and shrinking", "float32")
    network.export_c(tmp_path / "network.c")
    function, x = compiled(tmp_path), rng.standard_normal((200, 7)).astype(np.float32)
    expected, found = called(function, x, 3), [None] * 8

    def call(place):
        found[place] = called(function, x, 3)

    threads = [threading.Thread(target=call, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        np.testing.assert_array_equal(one, expected)


@needs_gcc
def test_nan_comes_out_and_large_values_do_not_overflow(tmp_path):
    for chain in ("relu", "leaky relu", "tanh"):
        network = trained(chain, "float64")
        network.export_c(tmp_path / "network.c", probabilities=True)
        x = np.vstack([np.full(7, np.nan), np.full(7, 1e300), np.full(7, -1e300)])
        found = called(compiled(tmp_path), x, 3)
        assert np.isnan(found[0]).all()
        np.testing.assert_allclose(found[1:].sum(axis=1), 1)
        network.export_numpy(tmp_path / "network.py", probabilities=True)
        found = runpy.run_path(str(tmp_path / "network.py"))["predict"](x)
        assert np.isnan(found[0]).all()
        np.testing.assert_allclose(found[1:].sum(axis=1), 1)


def damaged(text, beginning):
    """The text with one digit of the first number after some words changed."""
    place = text.index("1.", text.index(beginning))
    return text[: place + 2] + ("4" if text[place + 2] != "4" else "5") + text[place + 3 :]


@needs_gcc
def test_the_self_tests_notice_a_weight_that_is_another(tmp_path):
    network = trained("relu", "float32")
    network.export_c(tmp_path / "network.c")
    text = (tmp_path / "network.c").read_text()
    (tmp_path / "network.c").write_text(damaged(text, "predict_W1["))
    tested = self_tested(tmp_path)
    assert tested.returncode == 1
    assert "instead of" in tested.stdout


def test_the_python_file_tests_itself_and_notices_a_weight_that_is_another(tmp_path):
    network = trained("gelu", "float64")
    network.export_numpy(tmp_path / "network.py")
    run = [sys.executable, "-I", "network.py"]
    tested = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert tested.stdout.startswith("8 examples agree to ")
    text = (tmp_path / "network.py").read_text()
    place = text.index('"', text.index("W1 = _array")) + 15
    (tmp_path / "network.py").write_text(text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :])
    tested = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert tested.returncode == 1
    assert "results differ by" in tested.stderr


def test_the_python_file_refuses_other_shapes_and_imports_no_nnfast(tmp_path):
    network = trained("relu", "float32")
    network.export_numpy(tmp_path / "network.py")
    program = ("import sys, runpy; predict = runpy.run_path('network.py')['predict']; assert 'nnfast' not in sys.modules\n"
               "predict([1.0] * 7)")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "ValueError: x has shape (7,), but rows of 7 values were expected" in done.stderr


def test_weights_are_kept_to_the_last_bit(tmp_path, dtype):
    network = trained("relu", dtype)
    network.params["W1"][0, :3] = [-0.0, np.finfo(dtype).tiny / 4, np.finfo(dtype).max / 1e6]
    network.params["b1"][:] = 0
    network.params["W2"][:] = 0
    network.export_c(tmp_path / "network.c")
    network.export_numpy(tmp_path / "network.py")
    text = (tmp_path / "network.c").read_text()
    numbers = text[text.index("{", text.index("predict_W1[")) + 1 : text.index("};", text.index("predict_W1["))]
    found = np.array([float.fromhex(number.strip().rstrip("f") if dtype == np.float32 else number.strip())
                      for number in numbers.split(",")], dtype)
    assert found.tobytes() == network.params["W1"].tobytes()
    assert runpy.run_path(str(tmp_path / "network.py"))["W1"].tobytes() == network.params["W1"].tobytes()


# What is refused

class OwnRelu(Relu):
    pass


class OwnLoss(SoftmaxWithLoss):
    pass


@pytest.mark.parametrize("export", ["export_c", "export_numpy", "export_onnx"])
@pytest.mark.parametrize(("make", "options", "error", "message"), [
    (lambda: Network([Affine(2, 2), OwnRelu()]), {}, TypeError, "layer OwnRelu1 is a OwnRelu, but only nnfast's own layers can"),
    (lambda: Network([Affine(2, 2)], OwnLoss()), {"probabilities": True}, TypeError, "the loss is a OwnLoss, but only nnfast's"),
    (lambda: Network([Affine(np.ones((2, 0)), np.ones(0)), Affine(np.ones((0, 2)), np.ones(2))]), {}, ValueError, "W1 is empty"),
    (lambda: Network([Relu()]), {}, ValueError, "its number of inputs is not known"),
    (lambda: Network([Affine(np.array([[np.nan]]), np.zeros(1))]), {}, ValueError, "W1 hold NaN or infinity"),
    (lambda: Network([Affine(np.zeros((1, 1)), np.full(1, 1e3))], PoissonLoss()), {"probabilities": True}, ValueError,
     "what the network gives for examples contains NaN or infinity"),
])
def test_what_cannot_be_exported_is_refused_and_no_file_is_written(tmp_path, export, make, options, error, message):
    with pytest.raises(error, match=message):
        getattr(make(), export)(tmp_path / "network", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "2fast", "a-b", "while", "main", "expf", "_x", "größe", "a b", "x\ny"])
def test_names_that_c_has_not_or_has_already_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"name is .*, but must be a name in C"):
        trained("relu", "float32").export_c(tmp_path / "network.c", name=name)
    with pytest.raises(TypeError, match="name is 3, but must be a string"):
        trained("relu", "float32").export_c(tmp_path / "network.c", name=3)


def test_a_path_that_is_none_or_cannot_be_written_is_named(tmp_path):
    network = trained("relu", "float32")
    with pytest.raises(TypeError, match="path is 3"):
        network.export_c(3)
    with pytest.raises(FileNotFoundError, match=r"network\.py cannot be written"):
        network.export_numpy(tmp_path / "nowhere" / "network.py")
