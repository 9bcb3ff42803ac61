"""A file changed at random is loaded or refused with `ModelFormatError`, in little time and memory.

NNFAST_FILES says how many of each of six kinds (make endurance: 30,000). Files begin as real ones, are cut, lengthened, and have
bytes, numbers, keys and whole parts of them changed; descriptions are changed as JSON, too, in an archive that is whole.
"""

import copy
import json
import os
import struct
import time
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_equal  # loaded here, not where memory is measured

from nnfast import (
    Adam,
    Affine,
    BatchNormalization,
    Checkpoint,
    Dropout,
    EarlyStopping,
    IdentityWithLoss,
    LeakyRelu,
    ModelFormatError,
    Network,
    QuantileLoss,
    Relu,
    SigmoidWithLoss,
    TwoLayerNet,
    convert,
    schedules,
)

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

FILES = int(os.environ.get("NNFAST_FILES", "300"))
NETWORKS = [
    lambda: Network([Affine(3, 4), BatchNormalization(4), LeakyRelu(0.2), Dropout(0.3), Affine(4, 2)], seed=0),
    lambda: Network([Affine(2, 1)], IdentityWithLoss(), seed=0, dtype="float64"),
    lambda: Network([Relu(), BatchNormalization(3)], SigmoidWithLoss(), seed=0),
    lambda: Network([Affine(2, 3)], QuantileLoss([0.1, 0.5, 0.9]), seed=0),
    lambda: TwoLayerNet(5, 3, 2),
]
NUMBERS = [0, 1, 2, 255, 256, 0x7FFF, 0xFFFF, 0x10000, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**60, 2**63 - 1, 2**64 - 1]


@st.composite
def changes(draw, contents, others):
    """The contents of a file, with some things changed."""
    contents = bytearray(contents)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(contents)))
        kind = draw(st.sampled_from(["byte", "bit", "number", "cut", "remove", "insert", "repeat", "other"]))
        length = draw(st.sampled_from([1, 2, 4, 8, 16, 100]))
        if kind == "cut":
            del contents[place:]
        elif kind == "remove":
            del contents[place : place + length]
        elif kind == "insert":
            contents[place:place] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "repeat":
            contents[place:place] = contents[max(place - length, 0) : place]
        elif kind == "other":
            other = draw(st.sampled_from(others))
            contents[place : place + length] = other[place : place + length]
        elif place < len(contents):
            if kind == "byte":
                contents[place] = draw(st.integers(0, 255))
            elif kind == "bit":
                contents[place] ^= 1 << draw(st.integers(0, 7))
            else:
                form = draw(st.sampled_from(["<H", "<I", "<Q"]))
                number = draw(st.sampled_from(NUMBERS)) % 256 ** struct.calcsize(form)
                contents[place : place + struct.calcsize(form)] = struct.pack(form, number)
    return bytes(contents)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.sampled_from(NUMBERS), st.floats(), st.text(max_size=5),
    st.sampled_from(["Affine", "BatchNormalization", "Relu", "Dropout", "float16", "SoftmaxWithLoss", "nnfast"]),
    st.lists(st.integers(0, 9), max_size=3), st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=2),
)


@st.composite
def descriptions(draw, description):
    """A description with some of its values replaced, left out or repeated."""
    description = copy.deepcopy(description)
    for _ in range(draw(st.integers(1, 3))):
        layers = description.get("layers")
        place = description
        if isinstance(layers, list) and layers and draw(st.booleans()):
            number = draw(st.integers(0, len(layers) - 1))
            what = draw(st.sampled_from(["change", "remove", "repeat"]))
            if what == "remove":
                del layers[number]
                continue
            if what == "repeat":
                layers.insert(number, copy.deepcopy(layers[number]))
                continue
            place = layers[number]
        if isinstance(place, dict) and place:
            key = draw(st.sampled_from(sorted(place)))
            place[key] = draw(VALUES)
            if draw(st.integers(0, 5)) == 0:
                del place[key]
    return description


@st.composite
def fits(draw, description):
    """A description whose part about the fit has some of its values replaced, left out or repeated, at any depth."""
    description = copy.deepcopy(description)
    for _ in range(draw(st.integers(1, 3))):
        place, key = description, "training"
        while isinstance(place[key], (dict, list)) and place[key] and draw(st.integers(0, 4)):
            place = place[key]
            key = draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else draw(st.integers(0, len(place) - 1))
        place[key] = draw(VALUES)
        if draw(st.integers(0, 5)) == 0:
            del place[key]
        if "training" not in description:
            break
    return description


def goes_on(path):
    """Whether a fit goes on from a file; it is refused otherwise, as a bad file or as one of another fit, and nothing has changed."""
    network, adam = NETWORKS[0](), Adam()
    before = copy.deepcopy([network.state(), network.generator.bit_generator.state, vars(adam)])
    begun, memory = time.perf_counter(), tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    try:
        fit_of(network, adam, resume=path)
    except FloatingPointError:      # of a learning rate that is allowed
        found = True
    except ValueError as error:
        assert isinstance(error, ModelFormatError) or str(error).startswith(f"resume is {path}, a fit ")
        assert str(error).isprintable()
        assert_equal([network.state(), network.generator.bit_generator.state, vars(adam)], before)
        found = False
    else:
        found = True
    assert tracemalloc.get_traced_memory()[1] - memory < 4_000_000 + 20 * path.stat().st_size
    assert time.perf_counter() - begun < 10
    return found


def fit_of(network, adam, **options):
    x, t = np.eye(9, 3), np.arange(9) % 2
    network.fit(x, t, epochs=3, batch_size=4, optimizer=adam, schedule=schedules.OnPlateau("loss"),
                early_stopping=EarlyStopping("loss"), **options)


def loads(path):
    """Whether a file is loaded; it is refused otherwise. In little time, and in memory of the size of the file."""
    begun, before = time.perf_counter(), tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    try:
        network = convert.from_onnx(path) if path.suffix == ".onnx" else Network.load(path)
    except ModelFormatError as error:
        assert str(error).isprintable()
        found = False
    else:
        network.predict(np.ones((2, network.inputs or 3)))
        found = True
    # A piece of the file, which is read at a time, and what zipfile and json make of it.
    assert tracemalloc.get_traced_memory()[1] - before < 4_000_000 + 20 * path.stat().st_size
    assert time.perf_counter() - begun < 10     # some milliseconds, but the machine may be busy
    return found


def fuzzed(path, given, loads=loads):
    """Load what `given` draws, and count what was loaded and what was refused."""
    count = {True: 0, False: 0}

    @hypothesis.settings(
        max_examples=FILES, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(given)
    def is_loaded_or_refused(contents):
        if not isinstance(contents, bytes):
            write(path, *contents)
        else:
            path.write_bytes(contents)
        count[loads(path)] += 1

    tracemalloc.start()
    try:
        is_loaded_or_refused()
    finally:
        tracemalloc.stop()
    print(f"{sum(count.values())} files, {count[True]} loaded and {count[False]} refused")
    return count


def write(path, description, arrays):
    if path.suffix == ".onnx":
        path.write_bytes(description.SerializeToString())
    elif path.suffix == ".safetensors":
        import safetensors.numpy

        safetensors.numpy.save_file(arrays, path, {"nnfast": json.dumps(description)})
    else:
        np.savez(path, nnfast=np.array(json.dumps(description)), **arrays)


def arrays_of(path):
    """Description and arrays of a file."""
    network = Network.load(path)
    arrays = dict(network.params)
    normalizations = (layer for layer in network.layers.values() if isinstance(layer, BatchNormalization))
    for number, layer in enumerate(normalizations, 1):
        arrays |= {f"running_mean{number}": layer.running_mean, f"running_var{number}": layer.running_var}
    network.save(path.with_suffix(".npz"))
    with np.load(path.with_suffix(".npz")) as file:
        return json.loads(file["nnfast"].item()), arrays


@pytest.mark.parametrize("kind", ["npz", pytest.param("safetensors", marks=pytest.mark.needs("safetensors"))])
def test_a_file_changed_at_random_is_loaded_or_refused(tmp_path, kind):
    path = tmp_path / f"network.{kind}"
    contents = []
    for make in NETWORKS:
        make().save(path)
        contents.append(path.read_bytes())
    count = fuzzed(path, st.sampled_from(contents).flatmap(lambda one: changes(one, contents)))
    assert count[False] > FILES // 3


@pytest.mark.parametrize("kind", ["npz", pytest.param("safetensors", marks=pytest.mark.needs("safetensors"))])
def test_a_description_changed_at_random_is_loaded_or_refused(tmp_path, kind):
    path, found = tmp_path / f"network.{kind}", []
    for make in NETWORKS:
        make().save(path)
        found.append(arrays_of(path))
    count = fuzzed(path, st.sampled_from(found).flatmap(lambda one: st.tuples(descriptions(one[0]), st.just(one[1]))))
    assert count[False] > FILES // 4
    assert count[True] > 0


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """ONNX models: those of networks, and the graphs of test_onnx_graphs.py."""
    import onnx
    from test_onnx_graphs import UNDERSTOOD, built

    found, path = [built(make) for make in UNDERSTOOD.values()], tmp_path_factory.mktemp("models") / "network.onnx"
    for make in NETWORKS:
        make().export_onnx(path, probabilities=True)
        found.append(onnx.load(path))
    return found


@pytest.mark.needs("onnx")
def test_a_model_changed_at_random_is_loaded_or_refused(tmp_path, models):
    contents = [model.SerializeToString() for model in models]
    count = fuzzed(tmp_path / "network.onnx", st.sampled_from(contents).flatmap(lambda one: changes(one, contents)))
    assert count[False] > FILES // 3


@st.composite
def graphs(draw, models):
    """A model with nodes, names, attributes and sizes replaced, left out or repeated."""
    from onnx import helper

    model = type(models[0])()
    model.CopyFrom(draw(st.sampled_from(models)))
    graph = model.graph
    names = sorted({"", *(name for node in graph.node for name in (*node.input, *node.output))})
    others = [node for other in models for node in other.graph.node]
    for _ in range(draw(st.integers(1, 3))):
        node = graph.node[draw(st.integers(0, len(graph.node) - 1))]
        what = draw(st.sampled_from(["name", "operator", "node", "input", "attribute", "size", "dtype", "width"]))
        if what == "name" and node.input:
            node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(names))
        elif what == "operator":
            node.op_type = draw(st.sampled_from(others)).op_type
        elif what == "node":
            node.CopyFrom(draw(st.sampled_from(others)))
        elif what == "input":
            node.input.append(draw(st.sampled_from(names)))
        elif what == "attribute":
            del node.attribute[draw(st.integers(0, len(node.attribute))):]
            known = [attribute.name for other in others for attribute in other.attribute]
            values = st.one_of(st.sampled_from([-1, 0, 1, 2, 7, 2**63 - 1]), st.floats(width=32), st.text(max_size=3),
                               st.lists(st.integers(-3, 3), min_size=1, max_size=3), st.just([0.0, 1.0]))
            node.attribute.append(helper.make_attribute(draw(st.sampled_from(known)), draw(values)))
        elif what == "width":
            size = draw(st.sampled_from(graph.input[0].type.tensor_type.shape.dim))
            size.dim_value = draw(st.sampled_from([0, 1, 7, 2**31, 2**62]))
        elif graph.initializer:
            array = draw(st.sampled_from(graph.initializer))
            if what == "dtype":
                array.data_type = draw(st.integers(0, 16))
            elif array.dims:
                array.dims[draw(st.integers(0, len(array.dims) - 1))] = draw(st.sampled_from([-1, 0, 1, 5, 7, 2**62]))
    return model, None


@pytest.mark.needs("onnx")
def test_a_graph_changed_at_random_is_loaded_or_refused(tmp_path, models):
    count = fuzzed(tmp_path / "network.onnx", graphs(models))
    assert count[False] > FILES // 4
    assert count[True] > 0


@pytest.fixture
def checkpoint(tmp_path):
    """A file of the second step of the second epoch."""
    path = tmp_path / "fit.npz"
    fit_of(NETWORKS[0](), Adam(), checkpoint=Checkpoint(path), step_callbacks=[lambda step: step.number == 5])
    assert goes_on(path)
    return path


def test_a_checkpoint_changed_at_random_is_gone_on_with_or_refused_and_loaded_or_refused(checkpoint):
    contents = [checkpoint.read_bytes()]
    NETWORKS[0]().save(checkpoint)
    contents.append(checkpoint.read_bytes())
    count = fuzzed(checkpoint, changes(contents[0], contents), lambda path: loads(path) and goes_on(path))
    assert count[False] > FILES // 3


def test_a_fit_changed_at_random_is_gone_on_with_or_refused(checkpoint):
    with np.load(checkpoint) as file:
        arrays = {name: file[name] for name in file.files}
    description = json.loads(arrays.pop("nnfast").item())
    count = fuzzed(checkpoint, st.tuples(fits(description), st.just(arrays)), goes_on)
    assert count[False] > FILES // 4
    assert count[True] > 0
