"""Networks as files: what `Network.save` writes and `Network.load` reads.

A file holds the arrays of all layers and a description of the network, as JSON. ``.npz`` is NumPy's format, an archive of
arrays that `numpy.load` opens too; ``.safetensors`` is written and read by the library of that name. Neither can hold
code.

No file is trusted. The description is read first. It says which arrays there must be, and each one's name, dtype, shape
and size in the file are compared with it before memory for any of them is allocated. What is wrong with a file is a
`ModelFormatError`, and nothing else.
"""

import errno
import io
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast._files import ModelFormatError, explained, in_a_line, opened, put_in_place, replacing
from nnfast.activations import Gelu, Identity, LeakyRelu, Relu, Sigmoid, Tanh
from nnfast.layers import Affine, BatchNormalization, Dropout, Rescale
from nnfast.losses import (
    AbsoluteError,
    FunctionLoss,
    HuberLoss,
    IdentityWithLoss,
    PoissonLoss,
    QuantileLoss,
    SigmoidWithLoss,
    SoftmaxWithLoss,
)

if TYPE_CHECKING:
    from nnfast.network import Network

FORMAT_VERSION = 1
"""Of the description. Every version up to this one is read."""

_DESCRIPTION = "nnfast"
TRAINING = "training"
"""The part of a checkpoint's description that is about the fit; so begin the names of the arrays that belong to it."""

_MOST_TEXT = 1 << 18
"""Characters of a description: some thousand layers."""

_WRITTEN_IN_PYTHON = " written in Python"
"""Behind the name of a kind, so that it is not taken for the library's of that name."""

_PIECE = 1 << 20
"""Bytes that are read at a time, whatever a header says."""

_MOST_SIZE = 1 << 40

_LAYERS = {kind.__name__: kind for kind in (
    Affine, BatchNormalization, Dropout, Gelu, Identity, LeakyRelu, Relu, Rescale, Sigmoid, Tanh)}
_SETTINGS = {"BatchNormalization": "momentum", "Dropout": "dropout_ratio", "LeakyRelu": "slope"}
_LOSSES: dict[str, Any] = {kind.__name__: kind for kind in (
    AbsoluteError, HuberLoss, IdentityWithLoss, PoissonLoss, QuantileLoss, SigmoidWithLoss, SoftmaxWithLoss)}
_DTYPES = {"float32": "F32", "float64": "F64"}      # and what safetensors calls them


class _FlawError(Exception):
    """What is wrong with a file, as the rest of a sentence that begins with its name."""


@dataclass
class Contents:
    """What a file makes a network of."""

    layers: dict[str, Any]
    loss: Any
    dtype: np.dtype
    weight_decay_lambda: float
    l1_lambda: float


@dataclass
class _Expected:
    """An array that must be there."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


# Writing


def save(network: "Network", path: Path) -> None:
    """Write the network whole or not at all."""
    write(path, described(network), dict(arrays_of(network)))


def write(path: Path, description: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """A file of a description and arrays, whole or not at all."""
    text = text_of(description)
    arrays = {key: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for key, array in arrays.items()}
    if path.suffix == ".safetensors":
        put_in_place(path, _safetensors().numpy.save(arrays, metadata={_DESCRIPTION: text}))
        return
    with replacing(path) as file:
        contents: dict[str, Any] = {_DESCRIPTION: np.array(text), **arrays}
        np.savez(file, **contents)


def text_of(description: dict[str, Any]) -> str:
    """A description as a file holds it, of a length that is read."""
    text = json.dumps(description)
    if len(text) > _MOST_TEXT:
        raise ValueError(f"the description of the network has {len(text)} characters, but at most {_MOST_TEXT} are kept")
    return text


def described(network: "Network", *, own_only: bool = True) -> dict[str, Any]:
    """What makes the network; of a layer or loss written in Python no more than its name, unless it is refused."""
    layers = []
    for name, layer in network.layers.items():
        kind = type(layer).__name__
        if own_only and not is_own(layer):
            raise TypeError(f"layer {name} is a {kind}, but only nnfast's own layers can be saved; keep params instead")
        one: dict[str, Any] = {"name": str(name), "kind": kind + _WRITTEN_IN_PYTHON * (not is_own(layer))}
        if isinstance(layer, Affine):
            one |= {"inputs": int(layer.W.shape[0]), "outputs": int(layer.W.shape[1])}
        elif isinstance(layer, BatchNormalization):
            one |= {"inputs": int(layer.gamma.shape[0]), "statistics": np.result_type(*layer.statistics).name}
        elif isinstance(layer, Rescale):
            one |= {key: float(value) for key, value in _rescaling(layer) if not np.ndim(value)}
            one |= {"inputs": layer.inputs} if layer.inputs else {}
        if kind in _SETTINGS and is_own(layer):
            one[_SETTINGS[kind]] = float(getattr(layer, _SETTINGS[kind]))
        layers.append(one)
    return {"format_version": FORMAT_VERSION, "dtype": network.dtype.name, "layers": layers,
            **_described_loss(network.last_layer, own_only=own_only),
            "weight_decay_lambda": float(network.weight_decay_lambda), "l1_lambda": float(network.l1_lambda)}


def _described_loss(loss: Any, *, own_only: bool) -> dict[str, Any]:
    kind = type(loss).__name__
    if isinstance(loss, FunctionLoss) and own_only:
        raise TypeError(f"the loss is a Python function, {loss.name}, which no file holds: put another loss in its place, "
                        "network.last_layer = nnfast.IdentityWithLoss(), and that one back after loading")
    if _LOSSES.get(kind) is not type(loss):
        if own_only:
            raise TypeError(f"the loss is a {kind}, but only nnfast's own losses can be saved; keep params instead")
        return {"loss": kind + _WRITTEN_IN_PYTHON}
    if not loss._setting:
        return {"loss": kind}
    setting = np.asarray(getattr(loss, loss._setting), np.float64).tolist()
    _LOSSES[kind](setting)      # refuses what could not be loaded
    return {"loss": kind, "loss_setting": setting}


def is_own(layer: Any) -> bool:
    """Whether nnfast has the layer."""
    return _LAYERS.get(type(layer).__name__) is type(layer)


def arrays_of(network: "Network") -> Iterator[tuple[str, np.ndarray]]:
    yield from network.params.items()
    normalizations = (layer for layer in network.layers.values() if isinstance(layer, BatchNormalization))
    for number, layer in enumerate(normalizations, 1):
        mean, variance = layer.statistics
        yield f"running_mean{number}", mean.astype(np.result_type(mean, variance))
        yield f"running_var{number}", variance.astype(np.result_type(mean, variance))
    rescalings = (layer for layer in network.layers.values() if isinstance(layer, Rescale))
    for number, rescaling in enumerate(rescalings, 1):
        for key, value in _rescaling(rescaling):
            if np.ndim(value):
                yield f"{key}{number}", value


def _rescaling(layer: Rescale) -> list[tuple[str, Any]]:
    return [("scale", layer.scale), ("offset", layer.offset)]


# Reading


def load(path: Path) -> Contents:
    """The layers and the loss of a file."""
    with reading(path, "a file of Network.save") as file:
        if path.suffix == ".safetensors":
            return _read_safetensors(file, path)
        return _built(*read_npz(file, _expected))


@contextmanager
def reading(path: Path, kind: str) -> Iterator[BufferedReader]:
    """The file, and sentences of what is wrong with it."""
    try:
        with opened(path, kind, ModelFormatError) as file:
            yield file
    except _FlawError as flaw:
        raise ModelFormatError(f"{path} {in_a_line(str(flaw))}") from flaw.__cause__
    except OSError as error:
        if error.errno is None:     # a sentence of `opened`
            raise
        raise explained(error, f"{path} cannot be read") from error


def _require(holds: object, flaw: str) -> None:
    if not holds:
        raise _FlawError(flaw)


def _parsed(text: str) -> dict[str, Any]:
    """The description, which is JSON without repeated names, as far as its version."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        _require(len(found) == len(pairs), "has a description in which a name stands twice")
        return found

    try:
        description: Any = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise _FlawError(f"has a description that is not JSON ({error})") from error
    _require(isinstance(description, dict), "has a description that is no JSON object")
    version = description.get("format_version")
    _require(_is_whole(version, 1), f"has the format version {version!r}, but a whole number was expected")
    _require(version <= FORMAT_VERSION,
             f"has format version {version}, but this nnfast reads versions up to {FORMAT_VERSION}: update nnfast")
    found: dict[str, Any] = description
    return found


def _loss_of(description: Mapping[str, Any]) -> Any:
    """The loss, made from its setting: a number or some, and if it has none as it is by default."""
    kind, found = _LOSSES[description["loss"]], description.get("loss_setting")
    if found is None:
        return kind()
    _require(kind._setting, "has a setting of a loss that has none")
    _require(all(map(_is_finite, found)) if isinstance(found, list) else _is_finite(found),
             "has a setting of its loss that is no number")
    try:
        return kind(found)
    except (TypeError, ValueError) as error:
        raise _FlawError(f"describes a loss that cannot be: {error}") from error


def _is_finite(value: Any) -> bool:
    return _is_number(value, -math.inf)


def _is_one_of(value: Any, names: Mapping[str, Any]) -> bool:
    return isinstance(value, str) and value in names


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= _MOST_SIZE


def _is_number(value: Any, least: float, most: float = math.inf) -> bool:
    return type(value) in (int, float) and least <= value <= most and math.isfinite(value)


def _expected(description: Mapping[str, Any]) -> dict[str, _Expected]:
    """The arrays of the described layers by key, which must follow from each other."""
    _require(_is_one_of(description.get("dtype"), _DTYPES), "has a dtype that is neither float32 nor float64")
    _require(_is_one_of(description.get("loss"), _LOSSES), "has a loss that nnfast has not")
    _loss_of(description)
    _require(_is_number(description.get("weight_decay_lambda"), 0), "has a weight decay that is no number of at least 0")
    _require(_is_number(description.get("l1_lambda", 0), 0), "has an L1 penalty that is no number of at least 0")
    layers: Any = description.get("layers")
    _require(isinstance(layers, list) and layers, "describes no layers")
    dtype, width, names = np.dtype(description["dtype"]), None, set()
    expected: dict[str, _Expected] = {}
    affines = normalizations = rescalings = 0
    for place, layer in enumerate(layers, 1):
        _require(isinstance(layer, dict) and _is_one_of(layer.get("kind"), _LAYERS),
                 f"has a layer {place} that nnfast has not")
        name, kind = layer.get("name"), layer["kind"]
        _require(isinstance(name, str) and name not in names, f"has a layer {place} without a name of its own")
        names.add(name)
        setting = layer.get(_SETTINGS.get(kind, ""))
        high = math.inf if kind == "LeakyRelu" else 1
        _require(kind not in _SETTINGS or _is_number(setting, -high, high),
                 f"has a wrong {_SETTINGS.get(kind)} in layer {place}")
        if kind == "Rescale":
            rescalings += 1
            numbers = [key for key in ("scale", "offset") if key in layer]
            _require(all(_is_number(layer[key], -math.inf) for key in numbers),
                     f"has a wrong scale or offset in layer {place}")
            if len(numbers) == 2:
                continue
        elif kind not in ("Affine", "BatchNormalization"):
            continue
        inputs, outputs = layer.get("inputs"), layer.get("outputs" if kind == "Affine" else "inputs")
        _require(_is_whole(inputs, 0) and _is_whole(outputs, 0), f"has wrong sizes in layer {place}")
        _require(width in (None, inputs), f"has a layer {place} of {inputs} inputs after one of {width} outputs")
        width = outputs
        if kind == "Rescale":
            arrays = [key for key in ("scale", "offset") if key not in numbers]
            expected |= {f"{key}{rescalings}": _Expected(np.dtype(np.float64), (inputs,)) for key in arrays}
            continue
        if kind == "Affine":
            affines += 1
            expected[f"W{affines}"] = _Expected(dtype, (inputs, outputs))
            expected[f"b{affines}"] = _Expected(dtype, (outputs,))
            continue
        normalizations += 1
        _require(_is_one_of(layer.get("statistics"), _DTYPES), f"has statistics of a wrong dtype in layer {place}")
        for key, of in (("gamma", dtype), ("beta", dtype), *(
                (key, np.dtype(layer["statistics"])) for key in ("running_mean", "running_var"))):
            expected[f"{key}{normalizations}"] = _Expected(of, (inputs,))
    return expected


def _built(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Contents:
    """The described layers, of these arrays."""
    layers: dict[str, Any] = {}
    affines = normalizations = rescalings = 0
    try:
        for layer in description["layers"]:
            kind = layer["kind"]
            if kind == "Affine":
                affines += 1
                made: Any = Affine(arrays[f"W{affines}"], arrays[f"b{affines}"])
            elif kind == "BatchNormalization":
                normalizations += 1
                gamma, beta, mean, variance = (
                    arrays[f"{key}{normalizations}"] for key in ("gamma", "beta", "running_mean", "running_var"))
                made = BatchNormalization(gamma, beta, layer["momentum"], mean, variance)
            elif kind == "Rescale":
                rescalings += 1
                made = Rescale(*(
                    layer[key] if key in layer else arrays[f"{key}{rescalings}"] for key in ("scale", "offset")))
            else:
                made = _LAYERS[kind](*(layer[name] for name in [_SETTINGS.get(kind)] if name))
            layers[layer["name"]] = made
    except (TypeError, ValueError) as error:    # what only a layer refuses, such as the range of a setting
        raise _FlawError(f"describes a layer that cannot be: {error}") from error
    return Contents(layers, _loss_of(description), np.dtype(description["dtype"]), float(description["weight_decay_lambda"]),
                    float(description.get("l1_lambda", 0)))


def _compare_names(found: Iterable[str], expected: Iterable[str]) -> None:
    found, expected = set(found), set(expected)
    missing, unknown = sorted(expected - found)[:1], sorted(found - expected)[:1]
    _require(not missing, f"has no array {''.join(missing)}, which its layers have")
    _require(not unknown, f"has an array {''.join(unknown)!r}, which none of its layers has")


# .npz


class _InPieces:
    """A file that gives no more than a piece at a time: no directory that a header describes is larger."""

    def __init__(self, file: BufferedReader) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        found = self._file.read(_PIECE + 1 if size < 0 else size) if size <= _PIECE else b""
        _require(size <= _PIECE and len(found) <= _PIECE, "has a directory that is too large for a network")
        return found


@contextmanager
def _flaws_of_zip() -> Iterator[None]:
    """What zipfile says of an archive that is none, which may be almost anything."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, LookupError, ValueError,
            OverflowError) as error:
        raise _FlawError(f"is not a file of Network.save, or is damaged ({error})") from error
    except OSError as error:
        if error.errno not in (errno.EINVAL, None):     # a place before the beginning
            raise
        raise _FlawError("is not a file of Network.save, or is damaged") from error


def read_npz(
    file: BufferedReader, expect: Callable[[dict[str, Any]], Mapping[str, _Expected]]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Description and arrays, which must be those that are expected of it."""
    size = os.fstat(file.fileno()).st_size
    with _flaws_of_zip(), zipfile.ZipFile(_InPieces(file)) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        _require(len(members) == len(archive.infolist()), "has an array twice")
        _require(all(member.filename.endswith(".npy") for member in members.values()), "has something that is no array")
        for name, member in members.items():
            _require(member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size,
                     f"has a compressed array {name}, but those of Network.save are not")
        _require(sum(member.file_size for member in members.values()) <= size, "claims more than it holds")
        _require(_DESCRIPTION in members, "has no description of a network: it is not a file of Network.save")
        description = _parsed(_text_of(archive, members.pop(_DESCRIPTION)))
        expected = expect(description)
        if expect is _expected and TRAINING in description:     # a checkpoint, of which the network alone is wanted
            members = {name: member for name, member in members.items() if not name.startswith(f"{TRAINING}.")}
        _compare_names(members, expected)
        for name, one in expected.items():      # all of them, before the first is read
            with archive.open(members[name]) as content:
                _skip_header(content, members[name], one)
        arrays = {}
        for name, one in expected.items():
            with archive.open(members[name]) as content:
                _skip_header(content, members[name], one)
                arrays[name] = _filled(content, one)
    return description, arrays


def _text_of(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str:
    """The description, a NumPy array that is one text, of four bytes a character."""
    _require(member.file_size <= 4 * _MOST_TEXT, "has a description that is too long")
    with archive.open(member) as content:
        found = content.read(member.file_size)
    begin = 10 + int.from_bytes(found[8:10], "little")
    text = np.dtype(("<U", max(len(found) - begin, 0) // 4))
    with archive.open(member) as content:
        _skip_header(content, member, _Expected(text, ()))
    return found[begin:].decode("utf-32-le")


def _skip_header(content: Any, member: zipfile.ZipInfo, expected: _Expected) -> None:
    """Past the header of an array, which must be the one that NumPy writes for it."""
    name = member.filename.removesuffix(".npy")
    magic = content.read(10)
    _require(len(magic) == 10 and magic[:8] == b"\x93NUMPY\x01\x00", f"has something else in the place of array {name}")
    length = int.from_bytes(magic[8:], "little")
    found, ours = content.read(length), io.BytesIO()
    fields = {"descr": expected.dtype.newbyteorder("<").str, "fortran_order": False, "shape": expected.shape}
    np.lib.format.write_array_header_1_0(ours, fields)
    # The padding may differ, which versions of NumPy choose otherwise.
    _require(found.rstrip(b" \n") == ours.getvalue()[10:].rstrip(b" \n"),
             f"has an array {name} that is not of {expected.dtype} and of the shape {expected.shape}")
    _require(member.file_size == 10 + length + expected.nbytes, f"has an array {name} of a wrong length")


def _filled(content: Any, expected: _Expected) -> np.ndarray:
    """The array that follows."""
    array = np.empty(expected.shape, expected.dtype.newbyteorder("<").str)
    memory, arrived = array.reshape(-1).view(np.uint8).data, 0
    while piece := content.read(_PIECE):        # to the end, where the checksum is compared
        memory[arrived : arrived + len(piece)] = piece
        arrived += len(piece)
    _require(arrived == array.nbytes, "ends within an array")
    return array.astype(expected.dtype, copy=False)


# .safetensors


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError('files of this kind need safetensors: pip install "nnfast[safetensors]"') from None
    return safetensors


def _read_safetensors(file: BufferedReader, path: Path) -> Contents:
    library = _safetensors()
    # The library itself would read a header of 100 MB.
    length = int.from_bytes(file.read(8), "little")
    _require(length <= _PIECE, "has a header that is too large for a network, or is no file of safetensors")
    try:
        with library.safe_open(str(path), framework="numpy") as tensors:
            text: str = (tensors.metadata() or {}).get(_DESCRIPTION, "")
            _require(text, "has no description of a network: it is not a file of Network.save")
            _require(len(text) <= _MOST_TEXT, "has a description that is too long")
            description = _parsed(text)
            expected = _expected(description)
            _compare_names(tensors.keys(), expected)
            for name, one in expected.items():
                tensor = tensors.get_slice(name)
                _require(tensor.get_dtype() == _DTYPES[one.dtype.name] and tuple(tensor.get_shape()) == one.shape,
                         f"has an array {name} that is not of {one.dtype} and of the shape {one.shape}")
            arrays = {name: tensors.get_tensor(name) for name in expected}
    except library.SafetensorError as error:
        raise _FlawError(f"is no file of safetensors, or is damaged ({error})") from error
    return _built(description, arrays)
