"""A network as an ONNX model: `Network.export_onnx`. The package onnx is imported when it is needed."""

from typing import Any

import numpy as np

from nnfast import _validation
from nnfast._export import Exported, Operation

_OPSET, _IR_VERSION = 13, 7
"""Of ONNX 1.8 (2020), which every runtime reads: only Gelu's own operator would need a later set, 20."""

# An operation by its nodes: operator, inputs, output. x is what comes in and y what goes out; the others are constants,
# arrays of the operation, or what passes between its nodes.
_NODES = {
    "affine": [("Gemm", "x W b", "y")],
    "scale_shift": [("Mul", "x scale", "scaled"), ("Add", "scaled shift", "y")],
    "scale": [("Mul", "x setting", "y")],
    "relu": [("Relu", "x", "y")],
    "leaky_relu": [("LeakyRelu", "x", "y")],
    "sigmoid": [("Sigmoid", "x", "y")],
    "tanh": [("Tanh", "x", "y")],
    "gelu": [("Div", "x root", "divided"), ("Erf", "divided", "erf"), ("Add", "erf one", "sum"),
             ("Mul", "x sum", "product"), ("Mul", "product half", "y")],
    "softmax": [("Softmax", "x", "y")],
    "exp": [("Exp", "x", "y")],
}
# ONNX Runtime has no LeakyRelu and no Erf of float64. The slope is between 0 and 1.
_NODES_OF_FLOAT64 = {
    "leaky_relu": [("Mul", "x setting", "scaled"), ("Max", "x scaled", "y")],
    "gelu": [("Div", "x root", "divided"), ("Cast:float32", "divided", "single"), ("Erf", "single", "erf32"),
             ("Cast:float64", "erf32", "erf"), *_NODES["gelu"][2:]],
}
_CONSTANTS = {"root": 2**0.5, "one": 1.0, "half": 0.5}


def library() -> Any:
    """The package onnx."""
    try:
        import onnx
        import onnx.checker
        import onnx.defs
        import onnx.helper
    except ImportError:
        raise ImportError('ONNX models need onnx: pip install "nnfast[onnx]"') from None
    return onnx


def contents(network: Exported, version: str) -> bytes:
    """The file."""
    onnx = library()
    _validation.fits_onnx(sum(array.nbytes for one in network.operations for array in one.arrays.values()))
    nodes, arrays, value = [], [], "x"
    for place, operation in enumerate(network.operations, 1):
        prefix = f"{operation.kind}{operation.number}"
        names = {"x": value, "y": network.results if place == len(network.operations) else f"{prefix}_y"}
        kinds = _NODES_OF_FLOAT64 if network.dtype == np.float64 and operation.kind in _NODES_OF_FLOAT64 else _NODES
        for operator, takes, gives in kinds[operation.kind]:
            for name in (*takes.split(), gives):
                if name in operation.arrays:
                    names[name] = f"{name}{operation.number}"   # as in Network.params
                names.setdefault(name, f"{prefix}_{name}")
            inputs, output = [names[name] for name in takes.split()], names[gives]
            nodes.append(_node(onnx, operator, inputs, output, operation))
            arrays += [_tensor(onnx, names[name], array) for name in takes.split()
                       if (array := _array(operation, name, network.dtype)) is not None]
        value = names["y"]
    kind = onnx.helper.np_dtype_to_tensor_dtype(network.dtype)
    graph = onnx.helper.make_graph(
        nodes, "nnfast", [onnx.helper.make_tensor_value_info("x", kind, ["batch", network.inputs])],
        [onnx.helper.make_tensor_value_info(network.results, kind, ["batch", network.outputs])], arrays)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="nnfast",
        producer_version=version, doc_string=f"{network.description}: {network.results} for examples x")
    found: bytes = model.SerializeToString()
    return found


def _array(operation: Operation, name: str, dtype: np.dtype) -> np.ndarray | None:
    """What an operation takes besides, under a name of the table above."""
    if name == "setting":
        return np.array(operation.setting, dtype)
    if name in _CONSTANTS:
        return np.array(_CONSTANTS[name], dtype)
    return operation.arrays.get(name)


def _tensor(onnx: Any, name: str, array: np.ndarray) -> Any:
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype.newbyteorder("="))
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return onnx.helper.make_tensor(name, kind, array.shape, data, raw=True)


def _node(onnx: Any, operator: str, inputs: list[str], output: str, operation: Operation) -> Any:
    settings: dict[str, Any] = {}
    operator, _, dtype = operator.partition(":")
    if dtype:
        settings["to"] = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    elif operator == "LeakyRelu":
        settings["alpha"] = operation.setting
    elif operator == "Softmax":
        settings["axis"] = -1
    return onnx.helper.make_node(operator, inputs, [output], name=output, **settings)
