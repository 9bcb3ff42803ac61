"""`Network.save` and `Network.load`: a loaded network predicts the same bits, and a file is never trusted.

test_fuzzed_files.py has mutations at random; here is what somebody would think of.
"""

import ast
import errno
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import nnfast
from nnfast import (
    SGD,
    Affine,
    BatchNormalization,
    Dropout,
    Gelu,
    Identity,
    IdentityWithLoss,
    LeakyRelu,
    ModelFormatError,
    MultiLayerNetExtend,
    Network,
    QuantileLoss,
    Relu,
    Rescale,
    Sigmoid,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    TwoLayerNet,
)

FORMATS = ["npz", pytest.param("safetensors", marks=pytest.mark.needs("safetensors"))]


@pytest.fixture(params=FORMATS)
def path(request, tmp_path):
    return tmp_path / f"network.{request.param}"


NETWORKS = {
    "every layer": lambda dtype: Network(
        [Affine(7, 9), BatchNormalization(9, momentum=0.7), Relu(), Affine(9, 8), Tanh(), Sigmoid(), Gelu(), Identity(),
         LeakyRelu(0.3), Dropout(0.4), Affine(8, 3), BatchNormalization(3)], seed=1, dtype=dtype),
    "rescaled": lambda dtype: Network(
        [Rescale(1 / 3, -0.1), Rescale(np.arange(7) / 7), Rescale(2.0, np.arange(7) / 3), Affine(7, 4), Rescale(np.arange(1, 5), np.ones(4))],
        seed=1, dtype=dtype),
    "regression": lambda dtype: Network([Affine(7, 3)], IdentityWithLoss(), seed=1, dtype=dtype),
    "quantiles": lambda dtype: Network([Affine(7, 3)], QuantileLoss((0.1, 0.5, 0.9)), seed=1, dtype=dtype),
    "smoothed labels": lambda dtype: Network([Affine(7, 3)], SoftmaxWithLoss(0.1), seed=1, dtype=dtype),
    "several labels": lambda dtype: Network({"first": Affine(7, 4), "Größe": Affine(4, 3)}, SigmoidWithLoss(), seed=1, dtype=dtype),
    "the book's": lambda _: TwoLayerNet(7, 5, 3),
    "the book's of any depth": lambda _: MultiLayerNetExtend(
        7, [6, 5], 3, weight_decay_lambda=0.25, use_dropout=True, use_batchnorm=True),
}


def trained(kind, dtype, rng):
    network = NETWORKS[kind](dtype)
    x = rng.standard_normal((30, 7)).astype(network.dtype)
    t = rng.integers(0, 3, 30) if type(network.last_layer) is SoftmaxWithLoss else rng.random((30, 3))
    network.fit(x, t, epochs=2, batch_size=10)
    return network, x, t


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_loaded_network_predicts_the_same_bits(path, rng, dtype, kind):
    network, x, t = trained(kind, dtype, rng)
    network.save(path)
    loaded = Network.load(path)
    assert type(loaded) is Network
    assert list(loaded.layers) == list(network.layers)
    assert [type(layer) for layer in loaded.layers.values()] == [type(layer) for layer in network.layers.values()]
    assert type(loaded.last_layer) is type(network.last_layer)
    assert loaded.dtype == network.dtype
    for rows in (1, 7, 30):
        assert loaded.predict(x[:rows]).tobytes() == network.predict(x[:rows]).tobytes()
    assert loaded.loss(x, t) == network.loss(x, t)      # with the weight decay
    ours, theirs = loaded.state(), network.state()
    assert [array.tobytes() for array in ours] == [array.tobytes() for array in theirs]
    assert [array.dtype for array in ours] == [array.dtype for array in theirs]


def test_settings_of_layers_are_kept(path):
    network = NETWORKS["every layer"]("float32")
    network.save(path)
    layers = Network.load(path).layers
    assert layers["BatchNormalization1"].momentum == 0.7
    assert layers["LeakyRelu1"].slope == 0.3
    assert layers["Dropout1"].dropout_ratio == 0.4


def test_a_loaded_network_is_trained_further_as_it_would_have_been(path, rng, dtype):
    network, x, t = trained("several labels", dtype, rng)
    network.save(path)
    loaded = Network.load(path)
    for each in (network, loaded):
        each.fit(x, t, epochs=3, batch_size=10, shuffle=False, optimizer=SGD(0.1))
    assert loaded.predict(x).tobytes() == network.predict(x).tobytes()


def test_the_seed_is_of_further_training(path, rng):
    network, x, t = trained("every layer", "float32", rng)
    network.save(path)
    scores = [Network.load(path, seed=seed) for seed in (3, 3, 4)]
    for loaded in scores:
        loaded.fit(x, t, epochs=2, batch_size=10)
    one, same, other = (loaded.predict(x) for loaded in scores)
    assert one.tobytes() == same.tobytes() != other.tobytes()


@pytest.mark.parametrize("change", [
    np.asfortranarray, lambda array: array.astype(array.dtype.newbyteorder(">")),
    lambda array: array.astype(array.dtype.newbyteorder("<")), lambda array: np.repeat(array, 2, axis=0)[::2],
], ids=["Fortran", "big-endian", "little-endian", "strided"])
def test_arrays_of_any_layout_are_kept(path, rng, change):
    W, b = rng.standard_normal((7, 5)), rng.standard_normal(5)
    network = Network([Affine(change(W), change(b))])
    network.save(path)
    loaded = Network.load(path)
    assert np.array_equal(loaded.params["W1"], W)
    assert np.array_equal(loaded.params["b1"], b)
    assert loaded.params["W1"].dtype.isnative
    assert loaded.predict(W.T).tobytes() == network.predict(W.T).tobytes()


def test_a_layer_without_inputs_or_outputs_is_kept(path):
    network = Network([Affine(np.ones((0, 3)), np.arange(3.0)), Affine(np.ones((3, 0)), np.ones(0))])
    network.save(path)
    assert [array.shape for array in Network.load(path).state()] == [(0, 3), (3,), (3, 0), (0,)]


def test_values_that_are_not_finite_are_kept(path):
    W = np.array([[np.nan, np.inf, -np.inf, -0.0, 5e-324]])
    Network([Affine(W, np.zeros(5))]).save(path)
    assert Network.load(path).params["W1"].tobytes() == W.tobytes()


def test_numpy_opens_the_file(tmp_path, rng):
    network, _, _ = trained("every layer", "float32", rng)
    network.save(tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz") as arrays:
        assert {*arrays} == {"nnfast", *network.params, "running_mean1", "running_var1", "running_mean2", "running_var2"}
        assert all(np.array_equal(arrays[key], array) for key, array in network.params.items())
        assert json.loads(arrays["nnfast"].item())["format_version"] == 1


def test_paths_of_all_kinds_are_taken_and_no_extension_is_added(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = NETWORKS["regression"]("float32")
    for path in ("one", Path("two.model"), str(tmp_path / "three.npz")):
        network.save(path)
        assert Network.load(path).dtype == network.dtype
    assert {one.name for one in tmp_path.iterdir()} == {"one", "two.model", "three.npz"}


@pytest.mark.parametrize("method", [NETWORKS["regression"]("float32").save, Network.load])
@pytest.mark.parametrize(("path", "error", "said"), [
    (5, TypeError, r"^path is 5, but a path"), (b"name", TypeError, r"^path is b'name'"), (io.BytesIO(), TypeError, "^path is"),
    ("", ValueError, "^path is ''"), ("a\0b", ValueError, r"^path is 'a\\x00b'"),
])
def test_what_is_no_path_is_refused(method, path, error, said):
    with pytest.raises(error, match=said):
        method(path)


# Saving


class Doubled:
    """A layer of the user's."""

    def forward(self, x):
        return 2 * x

    backward = forward


class OwnRelu(Relu):
    """A layer that does something else than what it is made from."""


@pytest.mark.parametrize(("layers", "loss", "said"), [
    ([Affine(2, 2), Doubled()], None, "^layer Doubled1 is a Doubled, but only nnfast's own layers can be saved"),
    ([Affine(2, 2), OwnRelu()], None, "^layer OwnRelu1 is a OwnRelu, but"),
    ([Affine(2, 2), type("Relu", (OwnRelu,), {})()], None, "^layer Relu1 is a Relu, but"),
    ([Affine(2, 2)], type("Own", (SoftmaxWithLoss,), {})(), "^the loss is a Own, but only nnfast's own losses"),
])
def test_what_is_written_in_python_is_refused_before_the_file_changes(path, layers, loss, said):
    path.write_bytes(b"something else")
    with pytest.raises(TypeError, match=said):
        Network(layers, loss).save(path)
    assert path.read_bytes() == b"something else"
    assert [*path.parent.iterdir()] == [path]


def test_where_the_disk_is_full_the_older_file_is_whole(path, monkeypatch):
    network = NETWORKS["regression"]("float32")
    network.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"network\.\w+ cannot be written: no space left on device$"):
        network.save(path)
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing.net\.npz cannot be written: no such file or directory$"):
        NETWORKS["regression"]("float32").save(tmp_path / "missing" / "net.npz")


@pytest.mark.parametrize("kind", ["net.npz", "net.safetensors"])
def test_safetensors_is_asked_for_only_where_it_is_needed(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    network, path = NETWORKS["regression"]("float32"), tmp_path / kind
    if kind == "net.npz":
        network.save(path)
        Network.load(path)
        return
    with pytest.raises(ImportError, match=r'pip install "nnfast\[safetensors\]"'):
        network.save(path)
    path.write_bytes(bytes(20))
    with pytest.raises(ImportError, match=r'pip install "nnfast\[safetensors\]"'):
        Network.load(path)


SAVING = """
import sys
import numpy as np
from nnfast import Affine, Network

one, other = (Network([Affine(np.full((300, 300), value), np.full(300, value))]) for value in (1.0, 2.0))
one.save(sys.argv[1])
print("saved", flush=True)
while True:
    other.save(sys.argv[1])
    one.save(sys.argv[1])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_while_saving_the_file_is_one_or_the_other(path, rng):
    """At moments spread over some ten savings."""
    for delay in rng.uniform(0, 0.05, int(os.environ.get("NNFAST_KILLS", "5"))):
        process = subprocess.Popen([sys.executable, "-c", SAVING, path], stdout=subprocess.PIPE)
        try:
            assert process.stdout.readline() == b"saved\n"
            time.sleep(delay)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        params = Network.load(path).params
        assert params["b1"][0] in (1, 2)
        assert all((array == params["b1"][0]).all() for array in params.values())


# Loading what is none


@pytest.fixture
def saved(tmp_path):
    """A file, and its arrays and description in order to write another one."""
    path = tmp_path / "network.npz"
    Network([Affine(4, 3), LeakyRelu(), BatchNormalization(3), Affine(3, 2)], seed=0).save(path)
    with np.load(path) as arrays:
        return path, {key: arrays[key] for key in arrays}


def rewritten(path, arrays, **changes):
    """The file anew, with other arrays (None: left out)."""
    np.savez(path, **{key: array for key, array in {**arrays, **changes}.items() if array is not None})
    return path


def refused(path, said):
    with pytest.raises(ModelFormatError, match=said) as caught:
        Network.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_the_description_and_the_arrays_must_agree(saved):
    path, arrays = saved
    W = arrays["W1"]
    for changes, said in [
        ({"W1": None}, "has no array W1, which its layers have"),
        ({"W3": W}, "has an array 'W3', which none of its layers has"),
        ({"W1": W.T.copy()}, r"has an array W1 that is not of float32 and of the shape \(4, 3\)"),
        ({"W1": W[:3]}, "has an array W1 that is not of"), ({"W1": W.astype(float)}, "has an array W1 that is not of float32"),
        ({"W1": W.astype(">f4")}, "has an array W1 that is not of"), ({"W1": np.asfortranarray(W)}, "has an array W1 that is not"),
        ({"W1": W.ravel()}, "has an array W1 that is not of"), ({"running_var1": W}, "has an array running_var1"),
        ({"nnfast": None}, "has no description of a network"), ({"nnfast": W}, "has an array nnfast that is not of"),
    ]:
        refused(rewritten(path, arrays, **changes), said)
    rewritten(path, arrays)
    Network.load(path)


def described(arrays, change):
    """The description, changed."""
    description = json.loads(arrays["nnfast"].item())
    change(description)
    return np.array(json.dumps(description))


def test_a_description_that_makes_no_sense_is_refused(saved):
    path, arrays = saved
    layer = "layers", 0
    for place, value, said in [
        (("format_version",), 2, r"has format version 2, but this nnfast reads versions up to 1: update nnfast$"),
        (("format_version",), 0, "has the format version 0, but"), (("format_version",), True, "has the format version True"),
        (("format_version",), "1", "has the format version '1'"), (("format_version",), None, "has the format version None"),
        (("dtype",), "float16", "has a dtype that is neither"), (("dtype",), ["float32"], "has a dtype that is neither"),
        (("loss",), "Softmax", "has a loss that nnfast has not"), (("loss",), {}, "has a loss"),
        (("weight_decay_lambda",), -1, "has a weight decay"), (("weight_decay_lambda",), float("nan"), "has a weight decay"),
        (("weight_decay_lambda",), 1e999, "has a weight decay"), (("weight_decay_lambda",), "0", "has a weight decay"),
        (("layers",), [], "describes no layers"), (("layers",), {}, "describes no layers"), (("layers",), [5], "has a layer 1"),
        ((*layer, "kind"), "Pickle", "has a layer 1 that nnfast has not"), ((*layer, "kind"), [], "has a layer 1 that nnfast"),
        ((*layer, "name"), None, "has a layer 1 without a name"), ((*layer, "name"), "Affine2", "has a layer 4 without a name"),
        ((*layer, "inputs"), -1, "has wrong sizes in layer 1"), ((*layer, "inputs"), 4.0, "has wrong sizes in layer 1"),
        ((*layer, "inputs"), 2**60, "has wrong sizes in layer 1"), ((*layer, "inputs"), 2**40, "has an array W1 that is not of"),
        ((*layer, "outputs"), 5, "has a layer 3 of 3 inputs after one of 5 outputs"),
        (("layers", 1, "slope"), "0.1", "has a wrong slope in layer 2"), (("layers", 1, "slope"), 1e999, "has a wrong slope"),
        (("layers", 2, "momentum"), 1.5, "has a wrong momentum in layer 3"),
        (("layers", 2, "momentum"), -0.5, "describes a layer that cannot be: momentum"),
        (("layers", 2, "statistics"), "int8", "has statistics of a wrong dtype in layer 3"),
    ]:

        def change(description, place=place, value=value):
            for key in place[:-1]:
                description = description[key]
            description[place[-1]] = value

        refused(rewritten(path, arrays, nnfast=described(arrays, change)), said)


@pytest.mark.parametrize(("text", "said"), [
    ("", "description"), ("{", "has a description that is not JSON"), ("[1]", "has a description that is no JSON object"),
    ("[" * 100_000, "has a description that is not JSON"), ('{"a": ' * 40_000, "has a description that is not JSON"),
    ("1" * 200_000, "has a description that is not JSON"), ('{"loss": 1, "loss": 2}', "in which a name stands twice"),
    ("x" * (1 << 18) + "x", "has a description that is too long"), ("\ud800", "damaged|not JSON"),
], ids=lambda text: text[:9])
def test_a_description_that_is_no_json_object_is_refused(saved, text, said):
    path, arrays = saved
    refused(rewritten(path, arrays, nnfast=np.array(text)), said)


def test_objects_are_never_unpickled(saved):
    path, arrays = saved

    class Explosive:
        def __reduce__(self):
            return os.mkdir, (str(path.parent / "executed"),)

    bomb = np.empty((4, 3), object)
    bomb[...] = Explosive()
    for key in ("W1", "nnfast"):
        refused(rewritten(path, arrays, **{key: bomb}), f"has an array {key} that is not of")
    assert not (path.parent / "executed").exists()


def test_nothing_that_reads_files_imports_pickle():
    folder = Path(nnfast.__file__).parent
    for module in ("_model_files.py", "_files.py", "datasets.py", "_download.py"):
        tree = ast.parse((folder / module).read_text())
        names = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {str(name).partition(".")[0] for name in names} & {"pickle", "marshal", "shelve", "joblib", "dill"}
        assert "allow_pickle=True" not in (folder / module).read_text()


def test_every_beginning_of_a_file_is_refused(path, tmp_path):
    network = Network([Affine(2, 3), Relu(), Affine(3, 2)], seed=0)
    network.save(path)
    whole, part = path.read_bytes(), tmp_path / f"part{path.suffix}"
    for length in range(0, len(whole), 1 if len(whole) < 3000 else 3):
        part.write_bytes(whole[:length])
        with pytest.raises(ModelFormatError):
            Network.load(part)
    assert length > 300


def archive(path, members, **settings):
    """A zip of members as they are given."""
    with zipfile.ZipFile(path, "w", **settings) as file:
        for name, contents in members:
            file.writestr(name, contents)
    return path


def members_of(path):
    with zipfile.ZipFile(path) as file:
        return [(name, file.read(name)) for name in file.namelist()]


def test_what_a_sentence_quotes_from_a_file_is_printable_and_short(saved):
    path, _ = saved
    name = "a\nb\x1b[31m\u2028\ud7fe" + 1000 * "c" + ".npy"
    with pytest.raises(ModelFormatError) as caught:
        Network.load(archive(path, [(name, b"")], compression=zipfile.ZIP_DEFLATED))
    said = str(caught.value)
    assert said.startswith(f"{path} has a compressed array a\\nb\\x1b[31m\\u2028\\ud7fec")
    assert said.isprintable() and said.endswith("ccc...") and len(said) < len(str(path)) + 400


def test_an_archive_of_other_things_is_refused(saved):
    path, _ = saved
    members = members_of(path)
    refused(archive(path, members, compression=zipfile.ZIP_DEFLATED), "has a compressed array")
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(path, [*members, members[1]])
    refused(path, "has an array twice")
    refused(archive(path, [*members, ("readme.txt", b"")]), "has something that is no array")
    refused(archive(path, [*members, ("../../W9.npy", b"")]), r"has an array '../../W9', which none of its layers has")
    refused(archive(path, []), "has no description of a network")
    for contents in (b"", b"\x93NUMPY\x02\x00" + members[1][1][8:], members[1][1][:60], members[1][1] + b"\0"):
        refused(archive(path, [members[0], (members[1][0], contents), *members[2:]]), r"has (something else|an array W1)")
    path.write_bytes(b"")
    refused(path, "is not a file of Network.save, or is damaged")


def patched(path, place, form, *values):
    contents = bytearray(path.read_bytes())
    struct.pack_into(form, contents, place, *values)
    path.write_bytes(contents)
    return path


def test_a_directory_of_a_gigabyte_is_refused_unread(saved):
    path, _ = saved
    end = bytearray(path.read_bytes()[-22:])
    struct.pack_into("<II", end, 12, 1 << 30, 0)
    with path.open("wb") as file:       # a hole, so that it takes no room
        file.seek(1 << 30)
        file.write(end)
    refused(path, "has a directory that is too large for a network")


def test_members_that_claim_more_than_the_file_holds_are_refused(saved):
    path, _ = saved
    whole = path.read_bytes()
    first = whole.index(b"PK\x01\x02")     # of the directory
    for size in (len(whole), 1 << 31, 0xFFFFFFFE):
        path.write_bytes(whole)
        refused(patched(path, first + 20, "<II", size, size), "claims more than it holds|description that is too long")
    extra = struct.pack("<HHQQ", 1, 16, 1 << 50, 1 << 50)   # of petabytes, as ZIP64 has it
    name = struct.unpack_from("<H", whole, first + 28)[0]
    head = bytearray(whole[first : first + 46])
    struct.pack_into("<II", head, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", head, 30, len(extra))
    end = bytearray(whole[-22:])
    struct.pack_into("<I", end, 12, struct.unpack_from("<I", end, 12)[0] + len(extra))
    path.write_bytes(whole[:first] + head + whole[first + 46 : first + 46 + name] + extra + whole[first + 46 + name : -22] + end)
    refused(path, "claims more than it holds")


def test_arrays_that_share_their_place_are_refused(saved):
    path, _ = saved
    whole = path.read_bytes()
    places = [place for place in range(len(whole)) if whole[place : place + 4] == b"PK\x01\x02"]
    offset = struct.unpack_from("<I", whole, places[1] + 42)[0]
    refused(patched(path, places[2] + 42, "<I", offset), "is not a file of Network.save, or is damaged")


def test_a_changed_bit_of_an_array_is_seen(saved):
    path, arrays = saved
    place = path.read_bytes().index(arrays["W2"].tobytes())
    refused(patched(path, place, "<B", path.read_bytes()[place] ^ 1), "damaged")


@pytest.mark.parametrize("flags", [1, 1 << 5, 1 << 6])
def test_encrypted_and_patched_arrays_are_refused(saved, flags):
    path, _ = saved
    place = path.read_bytes().index(b"PK\x01\x02")
    refused(patched(path, place + 8, "<H", flags), "damaged")


def test_what_the_system_does_not_give_is_no_fault_of_the_file(saved, monkeypatch):
    path, _ = saved

    def failing(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(zipfile.ZipExtFile, "read", failing)
    with pytest.raises(OSError, match=r"network\.npz cannot be read: input/output error$"):
        Network.load(path)


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    refused(tmp_path, "is a folder or a device, but a file was expected")
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz does not exist, but a file of Network\.save was expected$"):
        Network.load(tmp_path / "nothing.npz")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        refused(tmp_path / "pipe", "is a folder or a device")
        refused(Path(os.devnull), "is a folder or a device")


@pytest.mark.needs("safetensors")
def test_files_of_safetensors_are_not_trusted_either(tmp_path):
    import safetensors.numpy

    path = tmp_path / "network.safetensors"
    network = Network([Affine(4, 3), Relu(), Affine(3, 2)], seed=0)
    network.save(path)
    whole, arrays = path.read_bytes(), dict(network.params)
    length = int.from_bytes(whole[:8], "little")
    metadata = json.loads(whole[8 : 8 + length])["__metadata__"]

    def written(arrays, metadata=metadata):
        safetensors.numpy.save_file(arrays, path, metadata)
        return path

    Network.load(written(arrays))
    refused(written({**arrays, "W3": arrays["W1"]}), "has an array 'W3', which none of its layers has")
    refused(written({key: arrays[key] for key in ("W1", "b1", "W2")}), "has no array b2")
    refused(written({**arrays, "W1": arrays["W1"].T.copy()}), "has an array W1 that is not of float32")
    refused(written({**arrays, "W1": arrays["W1"].astype(float)}), "has an array W1 that is not of float32")
    refused(written(arrays, None), "has no description of a network")
    refused(written(arrays, {"nnfast": "x" * ((1 << 18) + 1)}), "has a description that is too long")
    for claimed in (length + 1, 1 << 20, 1 << 30, 1 << 62, 2**64 - 1, 0):
        path.write_bytes(claimed.to_bytes(8, "little") + whole[8:])
        refused(path, "is no file of safetensors|too large")
    path.write_bytes((1 << 21).to_bytes(8, "little") + whole[8 : 8 + length].ljust(1 << 21) + whole[8 + length :])
    refused(path, "has a header that is too large for a network")
    for text in (b"{}", b"[" * 90_000, b'{"W1":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4611686018427387904]}}'):
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(100))
        refused(path, "safetensors|description")
