"""Networks as ONNX models and back: what ONNX, ONNX Runtime and the libraries that write models say of them.

A model is written with the help of `model`, a list of nodes and of arrays; what it gives is `onnx.reference`'s answer.
"""

import contextlib
import errno
import io
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from test_export import CHAINS, LOSSES, expected_of, trained

import nnfast
from nnfast import (
    Affine,
    BatchNormalization,
    Dropout,
    Gelu,
    Identity,
    IdentityWithLoss,
    LeakyRelu,
    ModelFormatError,
    Network,
    Relu,
    Rescale,
    Sigmoid,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    _export,
    _onnx_files,
    _validation,
    convert,
)

pytestmark = pytest.mark.needs("onnx")

ROOT_OF_2 = np.float32(2**0.5)


def model(nodes, arrays=(), inputs=(("x", ["N", 7]),), outputs=(("y", ["N", "O"]),), dtype="float32", opset=13,
          **settings):
    """A model of nodes (operator, inputs, outputs, attributes), whose operators may be named with their domain."""
    from onnx import helper, numpy_helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    made = []
    for operator, takes, gives, *attributes in nodes:
        domain, _, operator = operator.rpartition(".")
        made.append(helper.make_node(operator, takes.split(" ") if takes else [], gives.split(" "), domain=domain,
                                     name=f"the {operator}", **(attributes[0] if attributes else {})))
    values = [helper.make_tensor_value_info(name, kind, shape) for name, shape in (*inputs, *outputs)]
    graph = helper.make_graph(made, "graph", values[: len(inputs)], values[len(inputs) :],
                              [numpy_helper.from_array(np.asarray(array), name) for name,
                               array in dict(arrays).items()])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, **{"opset_imports": opsets, "ir_version": 8, **settings})


def tensor(array):
    from onnx import numpy_helper

    return numpy_helper.from_array(array)


def random(*shape, dtype="float32"):
    return np.random.default_rng(shape).standard_normal(shape).astype(dtype)


W, W2, B, V = random(7, 5), random(5, 3), random(5), random(7)
GEMM = ("Gemm", "x W b", "h")
REST = [("Relu", "h", "r"), ("MatMul", "r W2", "y")]
ARRAYS = {"W": W, "b": B, "W2": W2}
HALVES = {"root": ROOT_OF_2, "inverse": 1 / ROOT_OF_2, "one": np.float32(1), "half": np.float32(0.5),
          "two": np.float32(2)}
BN = {"gamma": random(5), "beta": B, "mean": random(5) + 1, "variance": random(5) ** 2}


def evaluated(proto, x):
    """What ONNX's own evaluator gives for the last output."""
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(proto).run(None, {proto.graph.input[0].name: x})[-1]


def run(proto, x):
    """What ONNX Runtime gives for the last output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {proto.graph.input[0].name: x})[-1]


RUNTIMES = [
    pytest.param(evaluated, id="onnx"),
    pytest.param(run, id="onnxruntime", marks=pytest.mark.needs("onnxruntime")),
]


def results_of(network, x):
    """What a model gives of which the network was made: through the output function of its loss."""
    return expected_of(network, x, True)


def assert_close(found, expected, dtype, times=1):
    assert found.shape == expected.shape
    tolerance = times * (1e-5 if dtype == np.float32 else 1e-12)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def exported(network, folder, **options):
    import onnx

    network.export_onnx(folder / "network.onnx", **options)
    return onnx.load(folder / "network.onnx")


# Writing

def tolerance_of(network):
    """How many times rounding's part: of float64 GELU has an error function of float32."""
    has_gelu = any(isinstance(layer, Gelu) for layer in network.layers.values())
    return 2e5 if has_gelu and network.dtype == np.float64 else 1


@pytest.mark.parametrize("evaluate", RUNTIMES)
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("chain", CHAINS)
def test_the_model_gives_what_the_network_gives(tmp_path, rng, dtype, chain, loss, probabilities, evaluate):
    network = trained(chain, dtype, loss)
    proto = exported(network, tmp_path, probabilities=probabilities)
    for batch_size in (1, 65):
        x = (rng.standard_normal((batch_size, network.inputs)) * 3).astype(dtype)
        x[0] = 0
        found = evaluate(proto, x)
        assert found.dtype == dtype
        assert_close(found, expected_of(network, x, probabilities), dtype, tolerance_of(network))


def drawn(rng, depth, dtype):
    """A network of so many products with any layers between them."""
    layers, width = [], 7
    for _ in range(depth):
        for _ in range(rng.integers(0, 3)):
            slope, ratio, momentum = rng.random(3)
            normalization = BatchNormalization(*rng.standard_normal((2, width)).astype(dtype), momentum,
                                               rng.standard_normal(width).astype(dtype),
                                               rng.random(width).astype(dtype) + 0.1)
            layers.append([Relu(), LeakyRelu(slope), Sigmoid(), Tanh(), Gelu(), Identity(), Dropout(ratio),
                           normalization][rng.integers(8)])
        outputs = int(rng.choice([1, 7, 8, 9, 17]))
        layers.append(Affine(rng.standard_normal((width, outputs)).astype(dtype) / width**0.5,
                             rng.standard_normal(outputs).astype(dtype)))
        width = outputs
    return Network(layers, LOSSES[rng.integers(len(LOSSES))](), seed=0)


@pytest.mark.parametrize("evaluate", RUNTIMES)
@pytest.mark.parametrize("depth", [1, 2, 3, 5, 9])
def test_networks_at_random_are_written_and_read_again(tmp_path, dtype, depth, evaluate):
    import onnx

    for seed in range(8):
        rng = np.random.default_rng([depth, seed])
        network = drawn(rng, depth, dtype)
        proto = exported(network, tmp_path, probabilities=True)
        onnx.checker.check_model(proto, full_check=True)
        x = rng.standard_normal((65, 7)).astype(dtype)
        assert_close(evaluate(proto, x), results_of(network, x), dtype, tolerance_of(network))
        again = convert.from_onnx(tmp_path / "network.onnx")
        assert type(again.last_layer) is loss_read(network)
        assert_close(again.predict(x), network.predict(x), dtype)


def test_the_model_says_what_it_is(tmp_path, dtype):
    network = trained("normalisation first", dtype)
    proto = exported(network, tmp_path, probabilities=True)
    assert (proto.producer_name, proto.producer_version, proto.ir_version) == ("nnfast", nnfast.__version__, 7)
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", 13)]
    assert proto.doc_string == f"a network of 7-9-3 ({dtype}): probabilities for examples x"
    for value, name, width in ((proto.graph.input, "x", 7), (proto.graph.output, "probabilities", 3)):
        assert [one.name for one in value] == [name]
        batch, columns = value[0].type.tensor_type.shape.dim
        assert (batch.dim_param, columns.dim_value) == ("batch", width)
        assert value[0].type.tensor_type.elem_type == {"float32": 1, "float64": 11}[dtype.name]
    assert exported(network, tmp_path).graph.output[0].name == "scores"
    arrays = {one.name: one for one in proto.graph.initializer}
    for key in ("W1", "b1", "W2", "b2"):
        assert arrays[key].raw_data == network.params[key].tobytes()
        assert tuple(arrays[key].dims) == network.params[key].shape


@pytest.mark.parametrize("chain", CHAINS)
def test_onnx_finds_nothing_wrong(tmp_path, dtype, chain):
    import onnx

    onnx.checker.check_model(exported(trained(chain, dtype), tmp_path, probabilities=True), full_check=True)


def test_a_network_larger_than_a_file_can_be_is_refused_and_the_older_file_is_whole(tmp_path, monkeypatch):
    network = Network([Affine(300, 400)], seed=0)
    path = tmp_path / "network.onnx"
    path.write_bytes(b"older")
    monkeypatch.setattr(_validation, "MOST_BYTES_OF_ONNX", 301 * 400 * 4 - 1)
    with pytest.raises(ValueError,
                       match=r"arrays take 0\.00 GB, but an ONNX file holds at most 2 GB: keep them as"):
        network.export_onnx(path)
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"older"]
    monkeypatch.setattr(_validation, "MOST_BYTES_OF_ONNX", 301 * 400 * 4)
    network.export_onnx(path)


@pytest.mark.parametrize("call", [lambda path: trained("relu", "float32").export_onnx(path), convert.from_onnx])
def test_without_onnx_it_is_asked_for_and_nothing_is_written(tmp_path, monkeypatch, call):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'ONNX models need onnx: pip install "nnfast\[onnx\]"'):
        call(tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


# Reading: there and back

def loss_read(network):
    """The loss that a model tells of: its function at the end, if there is one."""
    kind = type(network.last_layer)
    return kind if _export.OUTPUTS[kind] else IdentityWithLoss


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("chain", CHAINS)
def test_there_and_back_the_same_is_predicted(tmp_path, rng, dtype, chain, loss, probabilities):
    network = trained(chain, dtype, loss)
    network.export_onnx(tmp_path / "network.onnx", probabilities=probabilities)
    again = convert.from_onnx(tmp_path / "network.onnx", seed=1)
    x = (rng.standard_normal((65, network.inputs)) * 3).astype(dtype)
    assert again.dtype == dtype
    assert_close(again.predict(x), network.predict(x), dtype)
    assert type(again.last_layer) is (loss_read(network) if probabilities else IdentityWithLoss)
    left_out = (Dropout, Identity, Rescale) if chain == "no product" else (Dropout, Identity, Rescale, BatchNormalization)
    kinds = [type(layer) for layer in network.layers.values() if not isinstance(layer, left_out)]
    assert [type(layer) for layer in again.layers.values()] == kinds
    if not {BatchNormalization, Dropout, Rescale} & {type(layer) for layer in network.layers.values()}:
        for key, array in network.params.items():
            np.testing.assert_array_equal(again.params[key], array)


def test_paths_bytes_and_models_are_taken(tmp_path, rng):
    network = trained("relu", "float32")
    proto, path = exported(network, tmp_path), tmp_path / "network.onnx"
    x = rng.standard_normal((5, 7)).astype("float32")
    for given in (path, str(path), path.read_bytes(), proto):
        np.testing.assert_array_equal(convert.from_onnx(given).predict(x), network.predict(x))


def test_what_is_read_can_be_trained_and_is_its_own(tmp_path, rng):
    network = trained("relu", "float32")
    proto = exported(network, tmp_path, probabilities=True)
    before = proto.SerializeToString()
    again = convert.from_onnx(proto, seed=0)
    x, t = rng.standard_normal((60, 7)), rng.integers(0, 3, 60)
    loss = again.loss(x, t)
    again.fit(x, t, epochs=5, batch_size=10)
    assert again.loss(x, t) < loss
    assert proto.SerializeToString() == before


def test_scores_that_are_a_sigmoids_stay_what_they_are(tmp_path, rng):
    x = rng.standard_normal((9, 7)).astype("float32")
    network = Network([Affine(7, 3), Sigmoid()], SigmoidWithLoss(), seed=0)
    proto = exported(network, tmp_path)
    for loss in (None, SigmoidWithLoss(), IdentityWithLoss()):
        np.testing.assert_array_equal(convert.from_onnx(proto, loss=loss).predict(x), network.predict(x))
    proto.producer_name = "another"
    assert list(convert.from_onnx(proto).layers) == ["Affine1"]
    assert list(convert.from_onnx(proto, loss=IdentityWithLoss()).layers) == ["Affine1", "Sigmoid1"]
    assert list(convert.from_onnx(proto, loss=SoftmaxWithLoss()).layers) == ["Affine1", "Sigmoid1"]


def test_a_loss_that_is_given_is_the_networks(tmp_path):
    for chain, loss in (("relu", SoftmaxWithLoss()), ("tanh", SigmoidWithLoss()), ("gelu", IdentityWithLoss())):
        assert convert.from_onnx(exported(trained(chain, "float32"), tmp_path), loss=loss).last_layer is loss
    proto = exported(trained("relu", "float32"), tmp_path, probabilities=True)
    loss = SoftmaxWithLoss()
    assert convert.from_onnx(proto, loss=loss).last_layer is loss
    with pytest.raises(ValueError,
                       match="loss is a IdentityWithLoss, but the model ends with a softmax: SoftmaxWithLoss"):
        convert.from_onnx(proto, loss=IdentityWithLoss())


# Reading: files from anywhere

@pytest.mark.parametrize(("given", "error", "said"), [
    (3, TypeError, "model is a int, but a path, bytes or an onnx.ModelProto was expected"),
    (io.BytesIO(), TypeError, "model is a BytesIO, but a path"),
    ("", ValueError, "model is '', but a path without NUL characters and not empty was expected"),
    ("nowhere.onnx", FileNotFoundError, r"nowhere\.onnx does not exist, but an ONNX model was expected"),
    (".", ModelFormatError, r"\. is a folder or a device, but a file was expected"),
    (b"", ModelFormatError, "the model is no ONNX model: it has no graph with an output"),
    (b"no model", ModelFormatError, "the model is no ONNX model, or"),
    (b"\x3a\x05ab", ModelFormatError, "the model is no ONNX model, or ends early"),
])
def test_what_is_no_model_is_refused(tmp_path, monkeypatch, given, error, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=said):
        convert.from_onnx(given)


def test_a_file_is_named(tmp_path):
    (tmp_path / "network.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFormatError, match=r"network\.onnx is no ONNX model"):
        convert.from_onnx(tmp_path / "network.onnx")


def test_every_beginning_of_a_model_is_refused(tmp_path):
    whole = exported(trained("gelu", "float32"), tmp_path).SerializeToString()
    for end in range(len(whole)):
        with pytest.raises(ModelFormatError):
            convert.from_onnx(whole[:end])


def test_no_other_file_is_opened(tmp_path):
    import onnx

    network = trained("wide", "float32")
    proto = exported(network, tmp_path)
    onnx.save(proto, tmp_path / "outside.onnx", save_as_external_data=True, location="arrays", size_threshold=0)
    assert (tmp_path / "arrays").stat().st_size > 300 * 500 * 4
    with pytest.raises(ModelFormatError,
                       match=r"keeps the array 'W1' in another file, which is not read: onnx\.save makes one"):
        convert.from_onnx(tmp_path / "outside.onnx")
    constant = model([("Constant", "", "W", {"value": tensor(W)}), ("MatMul", "x W", "y")])
    constant.graph.node[0].attribute[0].t.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(ModelFormatError, match="in another file"):
        convert.from_onnx(constant)


def test_a_file_of_more_than_two_gigabytes_is_refused_unread(tmp_path, monkeypatch):
    with (tmp_path / "network.onnx").open("wb") as file:
        file.truncate(2**31)

    @contextlib.contextmanager
    def not_to_be_read(path, *_):
        with path.open("rb") as file:
            yield SimpleNamespace(fileno=file.fileno)

    monkeypatch.setattr(_onnx_files, "opened", not_to_be_read)
    with pytest.raises(ModelFormatError, match="is larger than the 2 GB that an ONNX model can have"):
        convert.from_onnx(tmp_path / "network.onnx")
    monkeypatch.setattr(_onnx_files, "_MOST_BYTES", 100)
    with pytest.raises(ModelFormatError, match="is larger than the 2 GB"):
        convert.from_onnx(bytes(101))


def test_what_would_take_much_memory_as_a_message_is_refused_before_it_is_one(tmp_path, monkeypatch):
    proto = exported(trained("wide", "float32"), tmp_path)
    assert proto.ByteSize() > 100 * 1000       # arrays are not counted
    monkeypatch.setattr(_onnx_files, "_MOST_STRUCTURE", 1000)
    convert.from_onnx(proto.SerializeToString())
    monkeypatch.setattr(_onnx_files, "_parsed", None)
    for name in ("node", "attribute", "tensor", "property"):
        more = type(proto)()
        more.CopyFrom(proto)
        if name == "node":
            more.graph.node.add(doc_string="a" * 1000)
        elif name == "attribute":
            more.graph.node[0].attribute.add(ints=[1] * 1000)
        elif name == "tensor":
            more.graph.initializer.add(string_data=[b""] * 1000)
        else:
            more.metadata_props.add(key="a" * 1000)
        with pytest.raises(ModelFormatError, match="holds too much beside its arrays for a network"):
            convert.from_onnx(more.SerializeToString())


def test_too_many_messages_are_refused(tmp_path, monkeypatch):
    data = exported(trained("relu", "float32"), tmp_path).SerializeToString()
    convert.from_onnx(data)
    monkeypatch.setattr(_onnx_files, "_MOST_FIELDS", 30)
    with pytest.raises(ModelFormatError, match="holds too much beside its arrays for a network"):
        convert.from_onnx(data)


def test_too_many_nodes_and_arrays_are_refused():
    arrays = {f"a{place}": np.float32(1) for place in range(10_001)}
    with pytest.raises(ModelFormatError, match="has 10001 arrays, but at most 10000 are read"):
        convert.from_onnx(model([("Relu", "x", "y")], arrays))
    nodes = [("Relu", f"h{place}", f"h{place + 1}") for place in range(10_001)]
    with pytest.raises(ModelFormatError, match="has 10001 nodes, but at most 10000 are read"):
        convert.from_onnx(model(nodes, (), [("h0", ["N", 7])], [("h10001", ["N", "O"])]))
    network = convert.from_onnx(model(nodes[:1000], (), [("h0", ["N", 7])], [("h1000", ["N", "O"])]))
    assert len(network.layers) == 1000


@pytest.mark.parametrize("nodes", [
    [("MatMul", f"h{place} W", f"h{place + 1}") for place in range(200)],
    [("Add", f"h{place} v", f"h{place + 1}") for place in range(9000)],
    [*(("MatMul", "h0 W", f"h{place + 1}") for place in range(200)), ("Relu", "h0", "y")],
    [("Identity", "W", "w0"), *(("Add", f"w{place} W", f"w{place + 1}") for place in range(200)),
     ("MatMul", "h0 w200", "h200")],
])
def test_an_array_that_is_taken_often_is_no_way_to_more_memory(nodes):
    arrays = {"W": random(200, 200), "v": random(200)}
    with pytest.raises(ModelFormatError, match="would be a network of many times the memory of the model"):
        convert.from_onnx(model(nodes, arrays, [("h0", ["N", 200])], [(nodes[-1][2], ["N", "O"])]))


def test_a_size_alone_takes_no_memory():
    for size in (2**40, 2**62):
        proto = model([("Relu", "x", "a"), ("Mul", "a two", "y")], HALVES, [("x", ["N", size])])
        with pytest.raises(ModelFormatError, match="would be a network of many times the memory of the model"):
            convert.from_onnx(proto)
    with pytest.raises(ModelFormatError, match="where the number of columns is not known"):
        convert.from_onnx(model([("Relu", "x", "a"), ("Mul", "a two", "y")], HALVES, [("x", ["N", "I"])]))


def test_names_that_are_no_text_are_escaped_or_refused():
    proto = model([("Conv", "x W", "y")], {"W": W})
    proto.graph.node[0].name = "a\nb\x1b[0m" + "c" * 1000
    with pytest.raises(ModelFormatError) as caught:
        convert.from_onnx(proto)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    data = model([("Relu", "x", "yyyyy")], outputs=[("yyyyy", ["N", "O"]), ("zzzzz", ["N", "O"])]).SerializeToString()
    for name in (b"yyyyy", b"zzzzz"):
        with pytest.raises(ModelFormatError):
            convert.from_onnx(data.replace(name, b"\xff\xfe\xfd\xfc\xfb"))


def test_where_protobuf_refuses_names_that_are_no_text_so_is_the_model(monkeypatch):
    def undecodable(source):
        return b"\xff".decode()

    monkeypatch.setattr(_onnx_files, "read", undecodable)
    with pytest.raises(ModelFormatError, match="the model has a name that is no text, or is damaged"):
        convert.from_onnx(b"")


def test_what_the_system_does_not_give_is_no_fault_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "network.onnx"
    path.write_bytes(b"a model")

    def broken(source):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(_onnx_files, "read", broken)
    with pytest.raises(OSError, match=r"network\.onnx cannot be read: input/output error") as caught:
        convert.from_onnx(path)
    assert not isinstance(caught.value, ModelFormatError)


def test_labels_may_be_computed_in_any_way_and_other_results_may_not(rng):
    from onnx import TensorProto, helper

    proto = model([GEMM, ("Softmax", "h", "y"), ("Mystery", "y", "label")], ARRAYS)
    proto.graph.node[2].domain = "somebody.else"
    proto.opset_import.append(helper.make_opsetid("somebody.else", 1))
    proto.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]))
    assert convert.from_onnx(proto).outputs == 5
    proto.graph.output[1].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(ModelFormatError, match=r"gives 2 results \(y, label\)"):
        convert.from_onnx(proto)
    del proto.graph.output[0]
    with pytest.raises(ModelFormatError, match=r"has a node 'the Mystery' \(Mystery\), which is not understood"):
        convert.from_onnx(proto)


# The libraries themselves

def torch_module(dtype):
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(7, 9), nn.ReLU(), nn.Dropout(0.3), nn.BatchNorm1d(9), nn.Linear(9, 8, bias=False),
        nn.GELU(), nn.Linear(8, 5),
        nn.LeakyReLU(0.2), nn.Linear(5, 4), nn.Tanh(), nn.Identity(), nn.Linear(4, 3),
        nn.Softmax(dim=1)).to(getattr(torch, dtype.name))
    for _ in range(3):
        module.train()(torch.randn(20, 7, dtype=getattr(torch, dtype.name)) + 1)
    return module.eval(), torch.randn(65, 7, dtype=getattr(torch, dtype.name))


@pytest.mark.needs("torch")
@pytest.mark.needs("onnxscript")
@pytest.mark.parametrize(("is_new", "opset"), [(False, 13), (False, 17), (False, 20), (True, 18), (True, 20)])
def test_models_of_pytorch_give_the_same(tmp_path, dtype, is_new, opset):
    import torch

    module, x = torch_module(dtype)
    path = tmp_path / "module.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if is_new:
            torch.onnx.export(module, (x,), dynamo=True, opset_version=opset, verbose=False, external_data=False,
                              dynamic_shapes=({0: torch.export.Dim("N")},)).save(path)
        else:
            torch.onnx.export(module, (x,), path, dynamo=False, opset_version=opset, input_names=["x"],
                              dynamic_axes={"x": {0: "N"}})
    network = convert.from_onnx(path)
    assert network.dtype == dtype
    kinds = [Affine, Relu, BatchNormalization, Affine, Gelu, Affine, LeakyRelu, Affine, Tanh, Affine]
    assert [type(layer) for layer in network.layers.values()] == kinds
    assert_close(results_of(network, x.numpy()), module(x).detach().numpy(),
                 np.float32)      # attributes are of float32


@pytest.mark.needs("torch")
@pytest.mark.needs("onnxscript")
@pytest.mark.parametrize("is_dynamic", [False, True])
def test_a_view_of_pytorch_is_understood(tmp_path, is_dynamic):
    import torch

    class Viewing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(12, 2)

        def forward(self, x):
            return torch.sigmoid(self.linear(x.view(x.size(0), -1)))

    module, x, path = Viewing().eval(), torch.randn(5, 3, 4), tmp_path / "module.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), path, dynamo=False, opset_version=17, input_names=["x"],
                          dynamic_axes={"x": {0: "N"}} if is_dynamic else None)
    network = convert.from_onnx(path)
    assert type(network.last_layer) is SigmoidWithLoss
    assert_close(results_of(network, x.numpy()), module(x).detach().numpy(), np.float32)


@pytest.mark.needs("skl2onnx")
@pytest.mark.parametrize("kind", ["two", "three", "texts", "several", "regression"])
def test_models_of_scikit_learn_give_the_same(rng, dtype, kind):
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    x = (rng.standard_normal((90, 7)) * 3 + 5).astype(dtype)
    t = {"two": np.arange(90) % 2, "three": np.arange(90) % 3, "texts": np.array(["a", "b", "c"])[np.arange(90) % 3],
         "several": rng.integers(0, 2, (90, 3)), "regression": x[:, 0]}[kind]
    make = MLPRegressor if kind == "regression" else MLPClassifier
    estimator = make(hidden_layer_sizes=(9, 5), activation="tanh", max_iter=30, random_state=0)
    pipeline = make_pipeline(MinMaxScaler() if kind == "texts" else StandardScaler(), estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proto = to_onnx(pipeline.fit(x, t), x[:1])
    network = convert.from_onnx(proto)
    assert network.dtype == dtype
    assert [type(layer) for layer in network.layers.values()] == [Affine, Tanh, Affine, Tanh, Affine]
    found = results_of(network, x)
    if kind == "regression":
        assert_close(found[:, 0], pipeline.predict(x), np.float32)
    else:
        expected = pipeline.predict_proba(x)
        assert_close(found, expected[:, 1:] if kind == "two" else expected, np.float32)


@pytest.mark.needs("keras")
def test_models_of_keras_give_the_same(tmp_path, rng):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras

        # Of TensorFlow's GELU tf2onnx makes an operator that ONNX has not, of the constants of Normalization inputs.
        activation = {"torch": "gelu", "tensorflow": "tanh"}.get(keras.backend.backend())
        if activation is None:
            pytest.skip("Keras writes no ONNX models on this backend (KERAS_BACKEND)")
        pytest.importorskip({"gelu": "onnxscript", "tanh": "tf2onnx"}[activation])
        layers = keras.layers
        model = keras.Sequential([
            keras.Input((7, 1)), layers.Rescaling(1 / 255), layers.Flatten(),
            *([layers.Normalization(mean=V, variance=V**2 + 1)] if activation == "gelu" else []),
            layers.Dense(9, "relu"), layers.BatchNormalization(), layers.Dropout(0.1), layers.Dense(8, activation),
            layers.Dense(5), layers.LeakyReLU(negative_slope=0.2), layers.Dense(5, "sigmoid"),
            layers.Dense(3, "softmax")])
        x = (rng.random((65, 7, 1)) * 255).astype(np.float32)
        expected = keras.ops.convert_to_numpy(model(x))
        model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    network = convert.from_onnx(tmp_path / "model.onnx")
    assert_close(results_of(network, x), expected, np.float32)
