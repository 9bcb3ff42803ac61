"""Graphs that become networks, node by node, and those that do not. Libraries, and files: `test_onnx.py`."""

import numpy as np
import pytest
from test_onnx import (
    ARRAYS,
    BN,
    GEMM,
    HALVES,
    REST,
    B,
    V,
    W,
    assert_close,
    evaluated,
    model,
    random,
    results_of,
    tensor,
)

from nnfast import (
    Affine,
    BatchNormalization,
    Gelu,
    LeakyRelu,
    ModelFormatError,
    Relu,
    Sigmoid,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    convert,
)

pytestmark = pytest.mark.needs("onnx")


def gelu_of(*nodes):
    """A formula from h to g between two products."""
    return model([GEMM, *nodes, ("MatMul", "g W2", "y")], ARRAYS | HALVES)


def first(*nodes, shape=("N", 7), **arrays):
    """What happens to x before it is called a."""
    return model([*nodes, ("Gemm", "a W b", "h"), *REST], ARRAYS | arrays, [("x", list(shape))])


UNDERSTOOD = {
    "Gemm without b": lambda: model([("Gemm", "x W", "y")], {"W": W}),
    "Gemm transposed": lambda: model([("Gemm", "x W b", "y", {"transB": 1})], {"W": W.T.copy(), "b": B}),
    "Gemm scaled": lambda: model([("Gemm", "x W b", "y", {"alpha": 0.5, "beta": -3.0})], {"W": W, "b": B}),
    "Gemm scaled without b": lambda: model([("Gemm", "x W", "y", {"alpha": 0.5, "beta": -3.0})], {"W": W}),
    "Gemm of a row": lambda: model([("Gemm", "x W b", "y")], {"W": W, "b": B.reshape(1, 5)}),
    "Gemm of a number": lambda: model([("Gemm", "x W b", "y")], {"W": W, "b": np.float32(3)}),
    "Gemm of one number": lambda: model([("Gemm", "x W b", "y")], {"W": W, "b": np.float32([3])}),
    "Gemm of a number in two dimensions": lambda: model([("Gemm", "x W b", "y")], {"W": W, "b": np.float32([[3]])}),
    "one output": lambda: model([("MatMul", "x W", "h"), ("Add", "h b", "y")],
                                {"W": random(7, 1), "b": np.float32([3])}),
    "MatMul": lambda: model([("MatMul", "x W", "h"), *REST], ARRAYS),
    "Add after": lambda: model([("MatMul", "x W", "h0"), ("Add", "h0 b", "h"), *REST], ARRAYS),
    "Add before": lambda: model([("MatMul", "x W", "h0"), ("Add", "b h0", "h"), *REST], ARRAYS),
    "Add of a row": lambda: model([("MatMul", "x W", "h0"), ("Add", "h0 b", "h"), *REST],
                                  ARRAYS | {"b": B.reshape(1, 5)}),
    "Sub": lambda: model([("MatMul", "x W", "h0"), ("Sub", "h0 b", "h"), *REST], ARRAYS),
    "Sub from": lambda: model([("MatMul", "x W", "h0"), ("Sub", "b h0", "h"), *REST], ARRAYS),
    "Mul and Div": lambda: model([GEMM, ("Mul", "m h", "h1"), ("Div", "h1 d", "h2"), ("Relu", "h2", "r"),
                                  ("MatMul", "r W2", "y")],
                                 ARRAYS | {"m": np.float32(3), "d": random(5)}),
    "several between": lambda: model(
        [("Relu", "x", "x1"), ("Mul", "x1 v", "x2"), ("Add", "x2 v", "x3"), ("Sub", "x3 m", "x4"),
         ("Div", "x4 v", "x5"), ("Tanh", "x5", "h"),
         ("Mul", "h m", "y")], {"v": V, "m": np.float32(3)}),
    "scaler": lambda: first(("Sub", "x mean", "x1"), ("Div", "x1 std", "a"), mean=V, std=V**2 + 1),
    "scaled before and after": lambda: model(
        [("Sub", "x mean", "x1"), ("MatMul", "x1 W", "h"), ("Mul", "h m", "h1"), ("Add", "h1 b", "y")],
        ARRAYS | {"mean": V, "m": random(5)}),
    "Scaler": lambda: first(("ai.onnx.ml.Scaler", "x", "a", {"offset": V.tolist(), "scale": (V**2).tolist()})),
    "Scaler of a number": lambda: first(("ai.onnx.ml.Scaler", "x", "a", {"offset": [2.0], "scale": [3.0]})),
    "one thing after another": lambda: model(
        [("Relu", "x", "a"), ("Sigmoid", "a", "b"), ("Tanh", "b", "c"), ("LeakyRelu", "c", "d"),
         ("LeakyRelu", "d", "y", {"alpha": 0.25})]),
    "normalisation": lambda: model([GEMM, ("BatchNormalization", "h gamma beta mean variance", "y")], ARRAYS | BN,
                                   opset=15),
    "normalisation with an epsilon": lambda: model(
        [GEMM, ("BatchNormalization", "h gamma beta mean variance", "g", {"epsilon": 0.1, "momentum": 0.75}),
         ("Relu", "g", "y")],
        ARRAYS | BN, opset=15),
    "Gelu": lambda: model([GEMM, ("Gelu", "h", "y")], ARRAYS, opset=20),
    "GELU as PyTorch": lambda: gelu_of(
        ("Div", "h root", "d"), ("Erf", "d", "e"), ("Add", "e one", "s"), ("Mul", "h s", "p"), ("Mul", "p half", "g")),
    "GELU as torch.export": lambda: gelu_of(
        ("Div", "h root", "d"), ("Erf", "d", "e"), ("Add", "one e", "s"), ("Mul", "half s", "p"), ("Mul", "p h", "g")),
    "GELU of one half of x": lambda: gelu_of(
        ("Mul", "inverse h", "d"), ("Erf", "d", "e"), ("Add", "e one", "s"), ("Mul", "half h", "x2"),
        ("Mul", "x2 s", "g")),
    "GELU of one half of erf": lambda: gelu_of(
        ("Mul", "h inverse", "d"), ("Erf", "d", "e0"), ("Cast", "e0", "e", {"to": 1}), ("Div", "e two", "s"),
        ("Add", "half s", "p"), ("Mul", "h p", "g")),
    "maximum": lambda: model([GEMM, ("Mul", "h half", "p"), ("Max", "p h", "g"), ("MatMul", "g W2", "y")],
                             ARRAYS | HALVES),
    "Dropout": lambda: model([GEMM, ("Dropout", "h", "d"), ("Identity", "d", "y")], ARRAYS),
    "Dropout told": lambda: model([GEMM, ("Dropout", "h half off", "y")], ARRAYS | HALVES | {"off": np.array(False)}),
    "Constant": lambda: model(
        [("Constant", "", "W", {"value": tensor(W)}), ("Constant", "", "m", {"value_float": 3.0}),
         ("Constant", "", "v", {"value_floats": V.tolist()}), ("Mul", "x v", "x1"), ("Mul", "x1 m", "x2"),
         ("MatMul", "x2 W", "y")]),
    "of constants": lambda: model(
        [("Transpose", "W", "Wt"), ("Identity", "Wt", "Wi"), ("Cast", "Wi", "Wf", {"to": 1}), ("MatMul", "x Wf", "h"),
         ("Add", "variance m", "v1"), ("Sqrt", "v1", "v2"), ("Reciprocal", "v2", "v3"), ("Mul", "v3 b", "v4"),
         ("Div", "v4 b", "v5"), ("Sub", "v5 m", "v6"), ("Mul", "h v6", "y")],
        {"W": W.T.copy(), "m": np.float32(0.1), "b": B, "variance": B**2}),
    "Transpose told": lambda: model([("Transpose", "W", "Wt", {"perm": [1, 0]}), ("MatMul", "x Wt", "y")],
                                    {"W": W.T.copy()}),
    "Transpose of nothing": lambda: model([("Transpose", "W", "Wt", {"perm": [0, 1]}), ("MatMul", "x Wt", "y")],
                                          {"W": W}),
    "Cast": lambda: first(("Cast", "x", "a", {"to": 1})),
    "Flatten": lambda: first(("Flatten", "x", "a")),
    "Flatten of images": lambda: first(("Flatten", "x", "a", {"axis": 1}), shape=("N", 1, 7, 1)),
    "Flatten counted from behind": lambda: first(("Flatten", "x", "a", {"axis": -3}), shape=("N", 1, 7, 1)),
    "images divided": lambda: first(("Div", "x d", "x1"), ("Relu", "x1", "x2"), ("Flatten", "x2", "a"),
                                    shape=("N", 7, 1), d=np.float32(255)),
    "Reshape": lambda: first(("Reshape", "x shape", "a"), shape=("N", 7, 1), shape_=np.array([-1, 7])),
    "Reshape with the rows": lambda: first(("Reshape", "x shape", "a"), shape=("N", 7, 1), shape_=np.array([0, -1])),
    "Reshape of rows": lambda: first(("Reshape", "x shape", "a"), shape_=np.array([0, 0])),
    "Reshape of a fixed number of rows": lambda: first(
        ("Reshape", "x shape", "a"), shape=(65, 7, 1), shape_=np.array([65, -1])),
    "Reshape with a computed shape": lambda: first(
        ("Shape", "x", "s"), ("Gather", "s zero", "n"), ("Unsqueeze", "n zeros", "n1"),
        ("Concat", "n1 rest", "shape", {"axis": 0}),
        ("Reshape", "x shape", "a"), shape=("N", 7, 1), zero=np.array(0), zeros=np.array([0]), rest=np.array([-1])),
    "Reshape with a shape of parts": lambda: first(
        ("Shape", "x", "s"), ("Gather", "s zeros", "n"), ("Gather", "s last", "i"),
        ("Concat", "n i", "shape", {"axis": 0}),
        ("Reshape", "x shape", "a"), shape=("N", 1, 7), zeros=np.array([0]), last=np.array([-1])),
    "Softmax": lambda: model([GEMM, ("Softmax", "h", "y")], ARRAYS),
    "Softmax of an old set": lambda: model([GEMM, ("Softmax", "h", "y")], ARRAYS, opset=11),
    "Sigmoid": lambda: model([GEMM, ("Sigmoid", "h", "s"), ("MatMul", "s W2", "t"), ("Sigmoid", "t", "y")], ARRAYS),
    "only a sigmoid": lambda: model([("Sigmoid", "x", "y")]),
    "nobody knows the columns": lambda: model([("Relu", "x", "a"), ("Gemm", "a W b", "h"), ("Tanh", "h", "y")], ARRAYS,
                                              [("x", ["N", "I"])]),
    "an input that nothing takes": lambda: model([GEMM, *REST], ARRAYS, [("x", ["N", 7]), ("z", ["N", 7])]),
    "of the oldest set": lambda: model(
        [GEMM, *REST], ARRAYS, [("x", ["N", 7]), ("W", [7, 5]), ("b", [5]), ("W2", [5, 3])], opset=7, ir_version=3),
}


def built(make):
    proto = make()
    for array in proto.graph.initializer:
        array.name = array.name.rstrip("_")     # shape_ in the call of a function that has a `shape`
    return proto


@pytest.mark.parametrize("kind", UNDERSTOOD)
def test_a_model_becomes_a_network_that_gives_the_same(rng, kind):
    proto = built(UNDERSTOOD[kind])
    shape = [one.dim_value or 7 for one in proto.graph.input[0].type.tensor_type.shape.dim][1:]
    x = (rng.standard_normal((65, *shape)) * 2).astype("float32")
    network = convert.from_onnx(proto)
    assert network.dtype == np.float32
    if kind == "only a sigmoid":
        assert list(network.layers) == ["Sigmoid1"]
    assert_close(results_of(network, x.reshape(65, -1)), evaluated(proto, x), np.float32)
    assert_close(network.predict(x.reshape(65, -1)), network.predict(x), np.float32)      # images are taken as well


def kinds_of(make):
    return [type(layer) for layer in convert.from_onnx(built(make)).layers.values()]


def test_scalings_go_into_the_weights_beside_them_and_else_become_normalisations():
    for kind in ("scaler", "Scaler", "Mul and Div", "Sub from", "Gemm scaled", "of constants"):
        assert BatchNormalization not in kinds_of(UNDERSTOOD[kind]), kind
    assert kinds_of(UNDERSTOOD["several between"]) == [Relu, BatchNormalization, Tanh, BatchNormalization]
    assert kinds_of(UNDERSTOOD["one thing after another"]) == [Relu, Sigmoid, Tanh, LeakyRelu, LeakyRelu]
    for kind, make in UNDERSTOOD.items():
        if "GELU" in kind.upper():
            assert kinds_of(make)[:2] == [Affine, Gelu], kind
    assert kinds_of(UNDERSTOOD["maximum"]) == [Affine, LeakyRelu, Affine]


def test_settings_are_kept_and_epsilons_are_allowed_for():
    network = convert.from_onnx(UNDERSTOOD["normalisation with an epsilon"]())
    layer = network.layers["BatchNormalization1"]
    assert layer.momentum == 0.75
    np.testing.assert_allclose(layer.running_var, BN["variance"] + np.float32(0.1) - 1e-6, rtol=1e-6)
    assert convert.from_onnx(UNDERSTOOD["one thing after another"]()).layers["LeakyRelu2"].slope == 0.25


def test_the_dtype_is_that_of_the_matrices(dtype):
    arrays = {name: array.astype(dtype) for name, array in ARRAYS.items()}
    assert convert.from_onnx(model([GEMM, *REST], arrays, dtype=dtype)).dtype == dtype
    assert convert.from_onnx(model([("Tanh", "x", "y")], dtype=dtype)).dtype == dtype
    nodes = [("Cast", "x", "x1", {"to": 11 if dtype == np.float64 else 1}), ("Gemm", "x1 W b", "y")]
    from onnx import TensorProto

    for kind in (TensorProto.UINT8, TensorProto.INT64, TensorProto.DOUBLE, TensorProto.FLOAT16):
        proto = model(nodes, {"W": arrays["W"], "b": arrays["b"]}, dtype=dtype)
        proto.graph.input[0].type.tensor_type.elem_type = kind
        assert convert.from_onnx(proto).dtype == dtype


def test_float64_is_exact_to_float64(rng):
    arrays = {name: array.astype("float64") for name, array in (ARRAYS | HALVES).items()} | {"root": np.array(2**0.5)}
    x = rng.standard_normal((9, 7))
    proto = model([("Div", "x root", "a"), ("Gemm", "a W b", "h", {"alpha": 0.3}), *REST], arrays, dtype="float64")
    assert_close(convert.from_onnx(proto).predict(x), evaluated(proto, x), np.float64)


def test_a_logarithm_of_a_softmax_is_that_of_a_classifier(rng):
    proto = model([GEMM, ("LogSoftmax", "h", "y", {"axis": 1})], ARRAYS)
    network, x = convert.from_onnx(proto), rng.standard_normal((9, 7)).astype("float32")
    assert type(network.last_layer) is SoftmaxWithLoss
    assert_close(np.log(results_of(network, x)), evaluated(proto, x), np.float32)


def test_numbers_may_be_stored_as_numbers_of_their_type(dtype):
    from onnx import helper

    proto = model([GEMM, *REST], {name: array.astype(dtype) for name, array in ARRAYS.items()}, dtype=dtype)
    expected = convert.from_onnx(proto)
    for place, one in enumerate(proto.graph.initializer):
        values = np.frombuffer(one.raw_data, dtype).tolist()
        proto.graph.initializer[place].CopyFrom(helper.make_tensor(one.name, one.data_type, one.dims, values))
        assert not proto.graph.initializer[place].raw_data
    found = convert.from_onnx(proto.SerializeToString())
    for key, array in expected.params.items():
        np.testing.assert_array_equal(found.params[key], array)


def test_the_probabilities_of_a_classifier_are_taken_and_two_classes_are_one_score(rng):
    from onnx import TensorProto, helper

    proto = model([("Gemm", "x W b", "h"), ("Sigmoid", "h", "p"), ("Sub", "one p", "q"),
                   ("Concat", "q p", "both", {"axis": 1}), ("ArgMax", "both", "place", {"axis": 1}),
                   ("ai.onnx.ml.ArrayFeatureExtractor", "classes place", "label"),
                   ("ai.onnx.ml.ZipMap", "both", "y", {"classlabels_strings": ["no", "yes"]})],
                  {"W": random(7, 1), "b": B[:1], "one": np.float32(1), "classes": np.array(["no", "yes"], object)})
    row = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    proto.graph.output[0].CopyFrom(helper.make_value_info("y", helper.make_sequence_type_proto(row)))
    proto.graph.output.insert(0, helper.make_tensor_value_info("label", TensorProto.STRING, ["N"]))
    network, x = convert.from_onnx(proto), rng.standard_normal((9, 7)).astype("float32")
    assert network.outputs == 1
    assert type(network.last_layer) is SigmoidWithLoss
    assert_close(results_of(network, x), 1 / (1 + np.exp(-x @ random(7, 1) - B[:1])), np.float32)


def test_a_sum_of_columns_of_many_scalings_is_rounded_once():
    W = np.full((1, 1), 1 / 3, np.float32)
    nodes = [("MatMul", "x W", "h0"), *(("Mul", f"h{place} three", f"h{place + 1}") for place in range(9)),
             ("Relu", "h9", "y")]
    network = convert.from_onnx(model(nodes, {"W": W, "three": np.float32(3)}, [("x", ["N", 1])]))
    assert network.params["W1"][0, 0] == np.float32(3.0**9 * np.float64(W[0, 0]))


# What is refused

def node(operator, takes="h", attributes=None, arrays=(), **options):
    """A model with one node between others."""
    return lambda: model([GEMM, (operator, takes, "y", attributes or {})], ARRAYS | HALVES | dict(arrays), **options)


def changed(change, make=UNDERSTOOD["Add after"]):
    """A model after something has been done to it."""
    def made():
        proto = make()
        change(proto)
        return proto
    return made


def infinite():
    return {"b": np.array([0, 0, np.inf, 0, 0], "float32")}


def nested():
    from onnx import helper

    graph = model([GEMM], ARRAYS).graph
    return changed(lambda proto: proto.graph.node.append(helper.make_node(
        "If", ["condition"], ["z"], then_branch=graph, else_branch=graph)))()


REFUSED = {
    "an operator": (node("Conv", "h W2"),
        r"the model has a node 'the Conv' \(Conv\), which is not understood; what is, is Gemm, MatMul"),
    "an operator without a name": (
        changed(lambda proto: proto.graph.node[1].MergeFromString(b"\x1a\x00\x22\x03Pow")),     # name and op_type
                                   r"has a node 2 \(Pow\), which is not"),
    "an operator of others": (node("com.microsoft.Gelu"), r"has a node 'the Gelu' \(Gelu\), which is not understood"),
    "the other GELU": (node("Gelu", attributes={"approximate": "tanh"}, opset=20),
        "with the approximation by tanh, but Gelu is the exact"),
    "erf": (node("Erf"), "with something else than GELU has in it"),
    "erf of another part": (lambda: gelu_of(("Div", "h two", "d"), ("Erf", "d", "g")),
        r"the Erf' \(Erf\) with something else than GELU"),
    "erf alone": (lambda: gelu_of(("Div", "h root", "d"), ("Erf", "d", "g")),
        r"the MatMul' \(MatMul\) with something as its input"),
    "another formula": (lambda: gelu_of(
        ("Div", "h root", "d"), ("Erf", "d", "e"), ("Add", "e one", "s"), ("Mul", "h s", "p"), ("Mul", "p two", "g")),
        r"the MatMul' \(MatMul\) with something as its input"),
    "GELU with a sum": (lambda: gelu_of(("Div", "h root", "d"), ("Erf", "d", "e"), ("Add", "e h", "g")),
        "something else than GELU has beside"),
    "GELU of another x": (lambda: gelu_of(
        ("Div", "h root", "d"), ("Erf", "d", "e"), ("Add", "e one", "s"), ("Relu", "h", "r"), ("Mul", "r s", "g")),
        "GELU has beside"),
    "GELU with a vector": (lambda: gelu_of(("Div", "h root", "d"), ("Erf", "d", "e"), ("Add", "e b", "g")),
        "GELU has beside"),
    "GELU divided by zero": (lambda: model(
        [GEMM, ("Div", "h root", "d"), ("Erf", "d", "e"), ("Div", "e zero", "y")],
        ARRAYS | HALVES | {"zero": np.float32(0)}),
        "GELU has beside"),
    "GELU less a number": (lambda: gelu_of(("Div", "h root", "d"), ("Erf", "d", "e"), ("Sub", "e one", "g")),
        "GELU has beside"),
    "one less erf": (lambda: gelu_of(("Div", "h root", "d"), ("Erf", "d", "e"), ("Sub", "one e", "g")),
        "with something as its input"),
    "a slope": (node("LeakyRelu", attributes={"alpha": 1.5}),
        r"with the alpha 1\.5, but the slope of a LeakyRelu is between 0 and 1"),
    "a maximum": (node("Max", "h b"), "of something else than x and a part of x"),
    "a maximum of more": (lambda: model([GEMM, ("Mul", "h two", "p"), ("Max", "p h", "y")], ARRAYS | HALVES),
        "not between 0 and 1"),
    "a residual": (lambda: model([GEMM, ("Relu", "h", "r"), ("Add", "h r", "y")], ARRAYS),
        "with two inputs that are not constant"),
    "a quotient": (node("Div", "one h"), r"the Div' \(Div\) with something as its input"),
    "a division by zero": (node("Div", "h zero", arrays={"zero": np.zeros(5, "float32")}), "with a division by zero"),
    "a constant times examples": (node("MatMul", "W h"),
        "with what is computed from the input in the place of a constant"),
    "transposed examples": (lambda: model([("Gemm", "x W", "y", {"transA": 1})], {"W": W}),
        r"the Gemm' \(Gemm\) with transA"),
    "a matrix of other examples": (node("MatMul", "h W"), r"with a matrix of the shape \(7, 5\) for rows of 5 values"),
    "a matrix of three dimensions": (node("MatMul", "h W3", arrays={"W3": random(1, 5, 3)}),
        r"with a matrix of the shape \(1, 5, 3\)"),
    "a column of constants": (node("Add", "h c", arrays={"c": random(65, 1)}),
        r"a constant of the shape \(65, 1\) for rows of 5 values"),
    "constants for other columns": (node("Mul", "h c", arrays={"c": random(4)}),
        r"a constant of the shape \(4,\) for rows of 5 values"),
    "a scaler of nothing": (
        changed(lambda proto: proto.graph.node[0].attribute[0].ClearField("floats"), UNDERSTOOD["Scaler"]),
        r"the Scaler' \(Scaler\) with a constant that is no real numbers"),
    "a scaler of two minds": (lambda: model(
        [("ai.onnx.ml.Scaler", "x", "y", {"offset": [1.0, 2.0], "scale": [1.0, 2.0, 3.0]})], (), [("x", ["N", "I"])]),
        "with an offset and a scale of other columns"),
    "columns out of nothing": (lambda: model([("Gemm", "x W", "h"), ("Add", "h b", "y")], {"W": random(7, 1), "b": B}),
        "for rows of 1 values"),
    "more dimensions": (node("Mul", "h c", arrays={"c": random(1, 1, 1)}), r"a constant of the shape \(1, 1, 1\)"),
    "integers": (node("Mul", "h c", arrays={"c": np.array(3)}), "with a constant that is no real numbers"),
    "infinity": (node("Add", "h b", arrays=infinite()), "with NaN or infinity in its constants"),
    "numbers too large": (lambda: model([("Gemm", "x W", "h"), ("Mul", "h m", "y")], {"W": W, "m": np.float32(3e38)}),
        "are too large for float32"),
    "a quotient too large": (lambda: model([("Div", "x d", "a"), ("MatMul", "a W", "y")],
                                           {"d": np.float64(5e-324), "W": W.astype("float64")}, dtype="float64"),
        "are too large for float64"),
    "half precision": (lambda: model([("Cast", "x", "a", {"to": 10}), ("MatMul", "a W", "y")],
                                     {"W": W.astype("float16")}),
                       "with a cast to ONNX's type 10, but only float32 and float64"),
    "arrays of half precision": (lambda: model([("MatMul", "x W", "y")], {"W": W.astype("float16")}),
        "has an array 'W' of ONNX's type 10, but only float32"),
    "training": (node("Dropout", "h half on", arrays={"on": np.array(True)}),
        r"the Dropout' \(Dropout\) with training_mode"),
    "a mask": (lambda: model([GEMM, ("Dropout", "h", "d m"), ("Mul", "d m", "y")], ARRAYS),
        "of which another output than the first is taken"),
    "training a normalisation": (node("BatchNormalization", "h gamma beta mean variance", {"training_mode": 1}, BN,
                                      opset=15),
        "with training_mode"),
    "statistics of a batch": (lambda: model([GEMM, ("BatchNormalization", "h gamma beta mean variance", "y m")],
                                            ARRAYS | BN),
        "with training_mode"),
    "variances": (node("BatchNormalization", "h gamma beta mean variance", {},
                       BN | {"variance": -np.ones(5, "float32")}),
        "not above 0"),
    "no variances": (node("BatchNormalization", "h gamma beta mean variance", {"epsilon": 0.0},
                          BN | {"variance": np.zeros(5, "float32")}),
        "above 0"),
    "an epsilon": (node("BatchNormalization", "h gamma beta mean variance", {"epsilon": -1.0}, BN),
        "not between 0 and 1"),
    "a normalisation of others": (node("BatchNormalization", "h g g g g", {}, {"g": random(4)}),
        r"arrays that are not of the shape \(5,\)"),
    "a softmax between": (lambda: model([GEMM, ("Softmax", "h", "s"), ("MatMul", "s W2", "y")], ARRAYS),
        "a Softmax or Exp that is not at its end"),
    "an exp between": (lambda: model([GEMM, ("Exp", "h", "s"), ("MatMul", "s W2", "y")], ARRAYS),
        "a Softmax or Exp that is not at its end"),
    "a softmax of columns": (node("Softmax", attributes={"axis": 0}), "with another axis than that of the columns"),
    "a softmax alone": (lambda: model([("Softmax", "x", "y")]), "has no layers"),
    "nothing": (lambda: model([("Identity", "x", "y")]), "has no layers: it gives its input as it is"),
    "flattened rows": (node("Flatten", attributes={"axis": 0}), "with another axis than 1"),
    "another shape": (node("Reshape", "h s", arrays={"s": np.array([-1])}),
        r"with the shape \(-1\) for examples of the shape \(5\), but only rows"),
    "other rows": (node("Reshape", "h s", arrays={"s": np.array([-1, 1])}),
        r"the shape \(-1, 1\) for examples of the shape \(5\)"),
    "one row": (node("Reshape", "h s", arrays={"s": np.array([1, -1])}),
        r"the shape \(1, -1\) for examples of the shape \(5\)"),
    "inferred twice": (node("Reshape", "h s", arrays={"s": np.array([-1, -1])}), r"the shape \(-1, -1\)"),
    "no rows": (node("Reshape", "h s", {"allowzero": 1}, {"s": np.array([0, 5])}, opset=14), r"the shape \(0, 5\)"),
    "a shape that is computed": (node("Reshape", "h h"), "a shape or axes that are no constants"),
    "images": (lambda: model([("MatMul", "x W", "y")], ARRAYS, [("x", ["N", 2, 7])]),
        r"computes with examples of the shape \(2, 7\), which"),
    "images as results": (lambda: model([("Relu", "x", "y")], (), [("x", ["N", 2, 7])]),
        r"gives results of the shape \(2, 7\)"),
    "a vector": (lambda: model([("Relu", "x", "y")], (), [("x", [7])]), "has an input 'x' of 1 dimensions, but rows"),
    "two inputs": (lambda: model([("Add", "x z", "y")], (), [("x", ["N", 7]), ("z", ["N", 7])]),
        r"takes 2 inputs \(x, z\), but one with all"),
    "no input": (lambda: model([("Identity", "W", "y")], {"W": W}), r"takes 0 inputs \(\), but one"),
    "text": (changed(lambda proto: setattr(proto.graph.input[0].type.tensor_type, "elem_type", 8)),
        "an input 'x' that is no array of numbers"),
    "two results": (lambda: model([("Relu", "x", "y"), ("Tanh", "x", "z")],
                                  outputs=[("y", ["N", "O"]), ("z", ["N", "O"])]),
        r"gives 2 results \(y, z\), but one"),
    "labels": (changed(lambda proto: setattr(proto.graph.output[0].type.tensor_type, "elem_type", 7)),
        "gives labels only, but scores or"),
    "a constant result": (lambda: model([("Relu", "x", "z"), ("Identity", "W", "y")], {"W": W}),
        "gives 'y', which is not computed from its input"),
    "a name that nothing has": (node("Add", "h missing"), "takes 'missing', which nothing before gives"),
    "a name that is there": (lambda: model([GEMM, ("Relu", "h", "x")], ARRAYS, outputs=[("x", ["N", "I"])]),
        "gives 'x', which is there already"),
    "the name of an array": (lambda: model([GEMM, ("Relu", "h", "W2")], ARRAYS, outputs=[("W2", ["N", "O"])]),
        "gives 'W2', which is there already"),
    "too few inputs": (node("Add", "h"), r"the Add' \(Add\) with 1 inputs"),
    "an input left out": (lambda: model([("Tanh", "x", "h"), ("Gemm", " W", "y")], ARRAYS),
        r"the Gemm' \(Gemm\) with 2 inputs"),
    "an attribute of another type": (lambda: model([("Gemm", "x W", "y", {"alpha": 2})], {"W": W}),
        "with alpha of a wrong type"),
    "another list": (lambda: model([("Transpose", "W", "a", {"perm": [0.0, 1.0]}), ("MatMul", "x a", "y")], {"W": W}),
        "with perm of a wrong type"),
    "other axes": (lambda: model([("Transpose", "W", "a", {"perm": [0, 2]}), ("MatMul", "x a", "y")], {"W": W}),
        "axes that its array has not"),
    "a list as a constant": (lambda: model([("Constant", "", "a", {"value_string": "a"}), ("Add", "x a", "y")]),
        "else than numbers as its value"),
    "larger constants": (lambda: model([("Add", "u v", "w"), ("Add", "x w", "y")], {"u": random(7, 1), "v": V}),
        r"constants of the shapes \(7, 1\)"),
    "constants of two types": (lambda: model([("Add", "u v", "w"), ("Add", "x w", "y")],
                                             {"u": V.astype("float64"), "v": V}),
        "same real numbers"),
    "examples one after the other": (node("Concat", "h h", {"axis": 0}), "with other things than 1 - p and p for two"),
    "no probability of the other class": (lambda: model(
        [("Gemm", "x W", "h"), ("Sigmoid", "h", "p"), ("Sub", "two p", "q"), ("Concat", "q p", "y", {"axis": 1})],
        {"W": random(7, 1)} | HALVES),
        "than 1 - p and p for two"),
    "a part of the other class": (lambda: model(
        [("Gemm", "x W", "h"), ("Sigmoid", "h", "p"), ("Mul", "half p", "q"), ("Concat", "q p", "y", {"axis": 1})],
        {"W": random(7, 1)} | HALVES),
        "than 1 - p and p for two"),
    "both orders of two classes": (lambda: model(
        [("Gemm", "x W", "h"), ("Sigmoid", "h", "p"), ("Sub", "one p", "q"), ("Concat", "p q", "y", {"axis": 1})],
        {"W": random(7, 1)} | HALVES),
        "than 1 - p and p for two"),
    "a graph inside": (nested, r"has a node 5 \(If\) with an attribute that is no number, text or array"),
    "functions": (changed(lambda proto: proto.functions.add()), "has functions of its own, which are not understood"),
    "sparse arrays": (changed(lambda proto: proto.graph.sparse_initializer.add()), "has sparse arrays"),
    "an old set": (lambda: model([GEMM, *REST], ARRAYS, opset=6),
        "is of the operator set 6, but 7 and later ones are read"),
    "no set": (changed(lambda proto: proto.ClearField("opset_import")), "is of the operator set 1, but 7"),
    "a set of the future": (lambda: model([GEMM, *REST], ARRAYS, opset=999),
        r"is of the operator set 999, but the onnx that is installed"),
    "a format of the future": (lambda: model([GEMM, *REST], ARRAYS, ir_version=999), "is refused by ONNX's checker"),
    "no results": (changed(lambda proto: proto.graph.ClearField("output")), "it has no graph with an output"),
    "an array twice": (changed(lambda proto: proto.graph.initializer.append(proto.graph.initializer[0])),
        "has an array twice"),
    "an array with too little": (changed(lambda proto: setattr(proto.graph.initializer[0], "raw_data", b"1234")),
        "'W' of the shape .* with 1 values"),
    "an array with half a number": (changed(lambda proto: setattr(proto.graph.initializer[0], "raw_data", bytes(141))),
        r"'W' of the shape \(7, 5\) with 35\.25 values"),
    "an array without numbers": (changed(lambda proto: proto.graph.initializer[0].ClearField("raw_data")),
        "'W' of the shape .* with 0 values"),
    "a negative size": (changed(lambda proto: proto.graph.initializer[0].dims.__setitem__(0, -7)),
        "'W' of an impossible shape"),
    "an array of nothing": (changed(lambda proto: proto.graph.initializer[0].dims.__setitem__(0, 0)),
        r"'W' of the shape \(0, 5\) with 35 values"),
    "a part of an array": (changed(lambda proto: setattr(proto.graph.initializer[0].segment, "begin", 1)),
        "'W' in segments"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_understood_is_one_sentence(kind):
    make, said = REFUSED[kind]
    proto = make()
    with pytest.raises(ModelFormatError, match=said) as caught:
        convert.from_onnx(proto)
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith("the model ")
    with pytest.raises(ModelFormatError, match=said):
        convert.from_onnx(proto.SerializeToString())
