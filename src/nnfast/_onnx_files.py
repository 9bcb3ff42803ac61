"""ONNX models that come from anywhere, read with care.

What a file claims is compared with what it holds before anything is made of it. protobuf takes up to a hundred times
the memory of what is no array, so a file may hold little of that; arrays that lie in other files are refused. Graphs
inside of nodes, and functions, are refused before ONNX's own checker sees a model.
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from nnfast._export_onnx import library
from nnfast._files import ModelFormatError, opened
from nnfast._model_files import _FlawError, _require

_MOST_BYTES = 2**31 - 1
"""Of a file: protobuf takes no more."""
_TOO_LARGE = "is larger than the 2 GB that an ONNX model can have"

_MOST_STRUCTURE = 1 << 21
"""Bytes of a file that are not numbers of arrays: more than a thousand nodes, as wordy as PyTorch's."""

_MOST_FIELDS = 1 << 18
"""Of its messages: each may take some hundred bytes, and microseconds."""

_TOO_MUCH = "holds too much beside its arrays for a network"

_MOST_NODES = 10_000
"""And arrays."""

OWN_DOMAINS = ("", "ai.onnx")
"""Of ONNX's operators."""

_OLDEST_OPSET = 7
"""Older operators broadcast otherwise."""

# By kind of message, the fields that can hold arrays, and what they are.
_FIELDS = {
    "model": {7: "graph"}, "graph": {1: "node", 5: "tensor"}, "node": {5: "attribute"}, "attribute": {5: "tensor"},
    "tensor": {4: "numbers", 9: "numbers", 10: "numbers"},
}

_DTYPES = {1: ("<f4", "float_data"), 11: ("<f8", "double_data"), 6: ("<i4", "int32_data"), 7: ("<i8", "int64_data"),
           9: ("|b1", "int32_data")}
"""Of arrays, by ONNX's number, with the field that holds the numbers where they are not raw bytes."""


def read(source: Path | bytes | Any) -> Any:
    """The model of a file, of its bytes, or one that is there already: plain operators, and all of it in one place."""
    model: Any = source
    if isinstance(source, Path):
        with opened(source, "an ONNX model", ModelFormatError) as file:
            size = os.fstat(file.fileno()).st_size
            _require(size <= _MOST_BYTES, _TOO_LARGE)
            source = file.read(size)
    if isinstance(source, bytes):
        _require(len(source) <= _MOST_BYTES, _TOO_LARGE)
        _look_through(source)
        model = _parsed(source)
    _require(model.HasField("graph") and model.graph.output, "is no ONNX model: it has no graph with an output")
    for parts, words in ((model.graph.node, "nodes"), (model.graph.initializer, "arrays")):
        _require(len(parts) <= _MOST_NODES, f"has {len(parts)} {words}, but at most {_MOST_NODES} are read")
    opset = opset_of(model)
    _require(opset >= _OLDEST_OPSET, f"is of the operator set {opset}, but {_OLDEST_OPSET} and later ones are read: "
             "onnx.version_converter.convert_version makes one of the other")
    onnx = library()
    newest = onnx.defs.onnx_opset_version()
    _require(opset <= newest,
             f"is of the operator set {opset}, but the onnx that is installed knows those up to {newest}: update it")
    plain = {getattr(onnx.AttributeProto, name) for name in (
        "FLOAT", "INT", "STRING", "TENSOR", "FLOATS", "INTS", "STRINGS")}
    tensors = list(model.graph.initializer)
    for place, node in enumerate(model.graph.node, 1):
        for attribute in node.attribute:
            _require(attribute.type in plain and not attribute.ref_attr_name,
                     f"has a node {place} ({node.op_type}) with an attribute that is no number, text or array")
            if attribute.type == onnx.AttributeProto.TENSOR:
                tensors.append(attribute.t)
    _require(not model.graph.sparse_initializer, "has sparse arrays, which are not understood")
    _require(not model.functions, "has functions of its own, which are not understood: "
             "onnx.inliner.inline_local_functions puts them where they are called")
    for tensor in tensors:
        _require(tensor.data_location != onnx.TensorProto.EXTERNAL and not tensor.external_data,
                 f"keeps the array {tensor.name!r} in another file, which is not read: onnx.save makes one of both")
    return model


def check(model: Any) -> None:
    """That ONNX's own checker finds nothing wrong."""
    onnx = library()
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, TypeError, RuntimeError) as error:
        raise _FlawError(f"is refused by ONNX's checker ({str(error).strip().partition(chr(10))[0]})") from error


def opset_of(model: Any) -> int:
    """The version of ONNX's own operators; 1 where none is named."""
    return max((one.version for one in model.opset_import if one.domain in OWN_DOMAINS), default=1)


def array_of(tensor: Any) -> np.ndarray:
    """What a tensor holds, which must be as much as it claims."""
    name = tensor.name
    _require(tensor.data_type in _DTYPES,
             f"has an array {name!r} of ONNX's type {tensor.data_type}, but only float32, float64, int32, int64 and "
             "bool are understood")
    _require(not tensor.HasField("segment"), f"has an array {name!r} in segments, which are not understood")
    dtype, field = _DTYPES[tensor.data_type]
    shape = tuple(tensor.dims)
    _require(len(shape) <= 8 and all(size >= 0 for size in shape), f"has an array {name!r} of an impossible shape")
    count, itemsize = math.prod(shape), np.dtype(dtype).itemsize
    is_raw = tensor.HasField("raw_data")
    numbers = tensor.raw_data if is_raw else getattr(tensor, field)
    found = len(numbers) / itemsize if is_raw else len(numbers)
    _require(0 < found == count, f"has an array {name!r} of the shape {shape} with {found:g} values")
    array = np.frombuffer(numbers, dtype) if is_raw else np.array(numbers, dtype)
    return array.astype(array.dtype.newbyteorder("="), copy=False).reshape(shape)


def _parsed(data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    model = library().ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise _FlawError("is no ONNX model, or is damaged") from error
    return model


def _look_through(data: bytes) -> None:
    """That the messages are whole, as far as they may hold arrays, and that there is not too much beside the arrays."""
    place = numbers = fields = 0
    open_messages = [("model", len(data))]
    while open_messages:
        kind, end = open_messages[-1]
        if place == end:
            open_messages.pop()
            continue
        fields += 1
        _require(fields <= _MOST_FIELDS, _TOO_MUCH)
        tag, place = _varint(data, place, end)
        wire, length = tag & 7, 0
        if wire == 0:
            _, place = _varint(data, place, end)
        elif wire == 2:
            length, place = _varint(data, place, end)
        else:
            _require(wire in (1, 5), "is no ONNX model, or is damaged")
            length = 8 if wire == 1 else 4
        _require(place + length <= end, "is no ONNX model, or ends early")
        inside = _FIELDS[kind].get(tag >> 3) if wire == 2 else None
        if inside in _FIELDS:
            open_messages.append((inside, place + length))
            continue
        numbers += length if inside else 0
        place += length
    _require(len(data) - numbers <= _MOST_STRUCTURE, _TOO_MUCH)


def _varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """A number of up to ten bytes, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        _require(place < end, "is no ONNX model, or ends early")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise _FlawError("is no ONNX model, or is damaged")
