"""An ONNX graph as layers: `convert.from_onnx`.

Nodes are taken in their order. What a node gives is a constant (an array), the input after some operations (a
`Chain`), a part of GELU, or a shape. What is not understood becomes the flaw itself, which passes through all that
follows, and is raised if it reaches the output: a classifier's labels may be computed in any way.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnfast import _onnx_files
from nnfast._export_onnx import library
from nnfast._files import ModelFormatError, explained, in_a_line
from nnfast._model_files import _FlawError, _require
from nnfast._onnx_chains import (
    Chain,
    Erf,
    Normalization,
    Product,
    Scaling,
    is_root_of_half,
    layers_of,
    operations_of,
    sizes,
)
from nnfast.activations import Gelu, LeakyRelu, Relu, Sigmoid, Tanh

_UNDERSTOOD = ("Gemm, MatMul, Add, Sub, Mul and Div with constants, BatchNormalization, Relu, LeakyRelu, Sigmoid, "
               "Tanh, Gelu, Dropout, Flatten, and Softmax or Exp at the end")

_MOST_DIMENSIONS = 8
_UNKNOWN = -2
"""In shapes that a graph computes. The number of examples is None there."""

_FLOAT, _DOUBLE = 1, 11                                 # ONNX's numbers of types
_INPUTS = (1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 16)     # numbers of any kind, where a Cast may follow

_NOT_UNDERSTOOD = "something as its input that is not understood there"


@dataclass(frozen=True, eq=False)
class _Shape:
    """A shape that a graph computes, or one size of it."""

    sizes: tuple[int | None, ...]
    is_number: bool = False


class _Node:
    """An operator with its attributes."""

    def __init__(self, node: Any, place: int, opset: int, get: Callable[[Any], Any]) -> None:
        self.words = f"node {node.name or place!r} ({node.op_type})"
        self.operator = node.op_type if node.domain in _onnx_files.OWN_DOMAINS else f"{node.domain}.{node.op_type}"
        self.inputs, self.outputs, self.opset = list(node.input), list(node.output), opset
        self._attributes = {one.name: get(one) for one in node.attribute}

    def take(self, name: str, default: Any) -> Any:
        """An attribute, of the type of its default; a list's elements, too."""
        value = self._attributes.get(name, default)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        is_fitting = type(value) is type(default)
        if is_fitting and isinstance(value, list):
            is_fitting = {type(one) for one in value} <= {type(one) for one in default}
        self.require(is_fitting, f"{name} of a wrong type")
        return value

    def has(self, name: str) -> bool:
        return name in self._attributes

    def require(self, holds: object, flaw: str) -> None:
        _require(holds, f"has a {self.words} with {flaw}")


@dataclass
class Found:
    """What a model makes a network of.

    layers : without the output function. output : softmax, exp, sigmoid or None. is_of_scores : whether the model is one of
    `Network.export_onnx` without probabilities, so that a sigmoid at its end is a layer.
    """

    layers: list[Any]
    dtype: np.dtype
    output: str | None
    is_of_scores: bool


def load(source: Path | bytes | Any) -> Found:
    """The layers of a file, of its bytes, or of a model that is there already."""
    name = source if isinstance(source, Path) else "the model"
    try:
        with np.errstate(all="ignore"):     # what becomes NaN or infinity is refused
            return _found(_onnx_files.read(source))
    except _FlawError as flaw:
        raise ModelFormatError(f"{name} {in_a_line(str(flaw))}") from flaw.__cause__
    except UnicodeDecodeError as error:     # wherever a name is looked at
        raise ModelFormatError(f"{name} has a name that is no text, or is damaged") from error
    except OSError as error:
        if error.errno is None:     # a sentence of `opened`
            raise
        raise explained(error, f"{name} cannot be read") from error


def _found(model: Any) -> Found:
    name = _output_of(model.graph)
    reader = _Reader(model)
    reader.walk()
    chain = reader.value_of(name)
    _require(isinstance(chain, Chain), f"gives {name!r}, which is not computed from its input as a network does")
    _require(len(chain.shape) == 1, f"gives results of the shape {sizes(chain.shape)}, but rows (N, O) were expected")
    _onnx_files.check(model)
    operations, output = operations_of(chain), None
    if operations and operations[-1][0] in ("softmax", "exp", Sigmoid):
        does = operations.pop()[0]
        output = "sigmoid" if does is Sigmoid else does
    _require(all(does not in ("softmax", "exp") for does, _ in operations), "has a Softmax or Exp that is not at its end")
    matrices = [does.W if isinstance(does, Product) else does.gamma for does, _ in operations
                if isinstance(does, (Product, Normalization))]
    dtype = np.result_type(*matrices) if matrices else reader.dtype
    layers = layers_of(operations, dtype, reader.spend)
    if output == "sigmoid" and not layers:
        layers, output = [Sigmoid()], None
    _require(layers, "has no layers: it gives its input as it is, or a softmax or exp of it")
    return Found(layers, dtype, output, model.producer_name == "nnfast" and name == "scores")


def _output_of(graph: Any) -> str:
    """The one output of real numbers, beside which there may be labels."""
    found: list[str] = []
    for one in graph.output:
        is_tensor = one.type.WhichOneof("value") == "tensor_type"
        if not is_tensor or one.type.tensor_type.elem_type in (_FLOAT, _DOUBLE):      # what ZipMap gives is no tensor
            found.append(one.name)
    _require(found, "gives labels only, but scores or probabilities are needed")
    _require(len(found) == 1, f"gives {len(found)} results ({_listed(found)}), but one was expected: "
             "onnx.utils.extract_model cuts out a part")
    return found[0]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(str, names))       # bytes where a name is no text


def _count(width: int | None) -> str:
    return "?" if width is None else str(width)


class _Reader:
    """Walks a graph, whose input is of `dtype`."""

    def __init__(self, model: Any) -> None:
        self._graph, self._opset = model.graph, _onnx_files.opset_of(model)
        self._tensors = {one.name: one for one in self._graph.initializer}
        _require(len(self._tensors) == len(self._graph.initializer), "has an array twice")
        # One array may be taken many times, and a number may become one: no more than in proportion to the model.
        self._left = 8 * model.ByteSize() + (1 << 20)
        self.dtype: np.dtype = np.dtype(np.float32)
        self._batch: int | None = None
        self._values: dict[str, Any] = {"": None}      # an input that may be left out
        self._add_input()

    def _add_input(self) -> None:
        # tf2onnx names inputs that no node takes.
        taken = {name for node in self._graph.node for name in node.input} - set(self._tensors)
        inputs = [one for one in self._graph.input if one.name in taken]
        _require(len(inputs) == 1, f"takes {len(inputs)} inputs ({_listed(one.name for one in inputs)}), but one with "
                 "all columns was expected")
        name, kind = inputs[0].name, inputs[0].type.tensor_type
        _require(inputs[0].type.HasField("tensor_type") and kind.elem_type in _INPUTS,
                 f"has an input {name!r} that is no array of numbers")
        found = [one.dim_value if one.dim_value > 0 else None for one in kind.shape.dim]
        _require(2 <= len(found) <= _MOST_DIMENSIONS,
                 f"has an input {name!r} of {len(found)} dimensions, but rows of values (N, I) were expected")
        self._batch = found[0]
        if kind.elem_type == _DOUBLE:
            self.dtype = np.dtype(np.float64)
        self._values[name] = Chain(None, None, tuple(found[1:]))

    def walk(self) -> None:
        """Say of each value what it is."""
        get = library().helper.get_attribute_value
        for place, proto in enumerate(self._graph.node, 1):
            node = _Node(proto, place, self._opset, get)
            try:
                value = self._given(node)
            except _FlawError as flaw:
                if self._left < 0:      # every further node would cost as much
                    raise
                value = flaw
            for number, output in enumerate(node.outputs):
                _require(not output or (output not in self._values and output not in self._tensors),
                         f"has a {node.words} that gives {output!r}, which is there already")
                if output:
                    self._values[output] = value if number == 0 else _FlawError(
                        f"has a {node.words} of which another output than the first is taken")

    def _given(self, node: _Node) -> Any:
        least, most, handle = _OPERATORS.get(node.operator, (0, 0, None))
        _require(handle is not None, f"has a {node.words}, which is not understood; what is, is {_UNDERSTOOD}")
        assert handle is not None
        inputs = [self.value_of(name) for name in node.inputs]
        is_given = all(one is not None for one in inputs[:least])
        node.require(least <= len(inputs) <= most and is_given, f"{len(inputs)} inputs")
        value = handle(self, node, *inputs)
        if isinstance(value, np.ndarray):
            self.spend(value.nbytes)
        return value

    def value_of(self, name: str) -> Any:
        """A value by its name; if it is a flaw, that is raised."""
        if name not in self._values and name in self._tensors:
            self._values[name] = _onnx_files.array_of(self._tensors[name])
        _require(name in self._values, f"takes {name!r}, which nothing before gives")
        value = self._values[name]
        if isinstance(value, _FlawError):
            raise value
        return value

    def spend(self, nbytes: int) -> None:
        """Count memory that is taken, or looked through."""
        self._left -= nbytes
        _require(self._left >= 0, "would be a network of many times the memory of the model")

    # Kinds of inputs

    def _chain(self, node: _Node, x: Any) -> Chain:
        node.require(isinstance(x, Chain), _NOT_UNDERSTOOD)
        found: Chain = x
        return found

    def _numbers(self, node: _Node, value: Any) -> np.ndarray:
        node.require(isinstance(value, np.ndarray), "what is computed from the input in the place of a constant")
        node.require(value.dtype.kind == "f" and value.size > 0, "a constant that is no real numbers")
        self.spend(value.nbytes)
        node.require(np.isfinite(value).all(), "NaN or infinity in its constants")
        found: np.ndarray = value
        return found

    def _vector(self, node: _Node, value: Any, chain: Chain) -> np.ndarray:
        """A constant for each column (I,), or one for all (1,), as float64."""
        array = self._numbers(node, value)
        if array.size > 1 or array.ndim > 1 + len(chain.shape):
            width = chain.width
            node.require(array.ndim <= 2 and array.shape[-1] == array.size and width in (None, array.size),
                         f"a constant of the shape {array.shape} for rows of {_count(width)} values")
        return array.reshape(-1).astype(np.float64)

    def _integers(self, node: _Node, value: Any) -> list[int]:
        node.require(isinstance(value, np.ndarray) and value.dtype.kind == "i" and value.size <= _MOST_DIMENSIONS,
                     "a shape or axes that are no constants")
        return [int(one) for one in value.reshape(-1)]

    # Products and what can be multiplied into them

    def gemm(self, node: _Node, x: Any, W: Any, b: Any = None) -> Chain:
        """The product x W times alpha, plus b times beta."""
        node.require(node.take("transA", 0) == 0, "transA")
        alpha, beta = (np.array([node.take(name, 1.0)]) for name in ("alpha", "beta"))
        node.require(np.isfinite([alpha, beta]).all(), "NaN or infinity in its constants")
        matrix = self._numbers(node, W)
        chain = self._multiplied(node, x, matrix.T if node.take("transB", 0) else matrix)
        if alpha != 1:
            chain = chain.then(Scaling(alpha, np.zeros(1)))
        return chain if b is None else chain.then(Scaling(np.ones(1), beta * self._vector(node, b, chain)))

    def matmul(self, node: _Node, x: Any, W: Any) -> Chain:
        return self._multiplied(node, x, self._numbers(node, W))

    def _multiplied(self, node: _Node, x: Any, W: np.ndarray) -> Chain:
        chain = self._chain(node, x)
        node.require(W.ndim == 2 and chain.width in (None, W.shape[0]),
                     f"a matrix of the shape {W.shape} for rows of {_count(chain.width)} values")
        return chain.then(Product(W, np.zeros(W.shape[1], W.dtype)), W.shape[1])

    def arithmetic(self, node: _Node, x: Any, y: Any) -> Any:
        """Add, Sub, Mul or Div."""
        operator = node.operator
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
            return self._of_constants(node, x, y)
        if operator in ("Add", "Mul") and not isinstance(x, Erf) and (isinstance(y, Erf) or isinstance(x, np.ndarray)):
            x, y = y, x
        if isinstance(x, Erf):
            return self._towards_gelu(node, x, y)
        if operator == "Sub" and isinstance(x, np.ndarray):     # constant - y
            return self._scaled(self._chain(node, y), -np.ones(1), self._vector(node, x, y))
        chain = self._chain(node, x)
        node.require(isinstance(y, np.ndarray), "two inputs that are not constant, or a division by what is not")
        constant = self._vector(node, y, chain)
        node.require(operator != "Div" or constant.all(), "a division by zero")
        if operator in ("Add", "Sub"):
            return self._scaled(chain, np.ones(1), constant if operator == "Add" else -constant)
        return self._scaled(chain, constant if operator == "Mul" else 1 / constant, np.zeros(1))

    def scaler(self, node: _Node, x: Any) -> Chain:
        """(x - offset) scale, for machine learning."""
        chain = self._chain(node, x)
        offset, scale = (self._vector(node, np.array(node.take(name, [default])), chain)
                         for name, default in (("offset", 0.0), ("scale", 1.0)))
        fits = offset.size == scale.size or 1 in (offset.size, scale.size)
        node.require(fits, "an offset and a scale of other columns")
        return self._scaled(chain, scale, -offset * scale)

    def _scaled(self, x: Chain, scale: np.ndarray, shift: np.ndarray) -> Chain:
        size = max(scale.size, shift.size)
        return x.then(Scaling(scale, shift), size if size > 1 else None)

    def batch_normalization(self, node: _Node, x: Any, *arrays: Any) -> Chain:
        node.require(not node.take("training_mode", 0) and not any(node.outputs[1:]), "training_mode")
        epsilon, momentum = node.take("epsilon", 1e-5), node.take("momentum", 0.9)
        node.require(0 <= epsilon <= 1 and 0 <= momentum <= 1, "an epsilon or a momentum that is not between 0 and 1")
        chain = self._chain(node, x)
        gamma, beta, mean, variance = (self._numbers(node, one) for one in arrays)
        node.require(gamma.ndim == 1 and chain.width in (None, gamma.size)
                     and all(one.shape == gamma.shape for one in (beta, mean, variance)),
                     f"arrays that are not of the shape ({_count(chain.width)},)")
        is_above = (variance >= 0).all() and (variance + np.float64(epsilon) > 0).all()
        node.require(is_above, "variances that are not above 0")
        return chain.then(Normalization(gamma, beta, mean, variance, epsilon, momentum), gamma.size)

    # Activations

    def activation(self, node: _Node, x: Any) -> Chain:
        return self._chain(node, x).then({"Relu": Relu, "Sigmoid": Sigmoid, "Tanh": Tanh}[node.operator])

    def leaky_relu(self, node: _Node, x: Any) -> Chain:
        slope = node.take("alpha", 0.01)
        node.require(0 <= slope <= 1, f"the alpha {slope:g}, but the slope of a LeakyRelu is between 0 and 1")
        return self._chain(node, x).then(partial(LeakyRelu, slope))

    def largest(self, node: _Node, x: Any, y: Any) -> Chain:
        """max(x, slope x), which is LeakyRelu."""
        for whole, part in ((x, y), (y, x)):
            if isinstance(part, Chain) and part.before is whole and isinstance(part.does, Scaling):
                slope = part.does.factor()
                node.require(0 <= slope <= 1, "x and a part of x that is not between 0 and 1, which is no LeakyRelu")
                return self._chain(node, whole).then(partial(LeakyRelu, slope))
        raise _FlawError(f"has a {node.words} of something else than x and a part of x, which is a LeakyRelu")

    def gelu(self, node: _Node, x: Any) -> Chain:
        node.require(node.take("approximate", "none") == "none",
                     "the approximation by tanh, but Gelu is the exact function, which differs by up to 0.0005")
        return self._chain(node, x).then(Gelu)

    def erf(self, node: _Node, x: Any) -> Erf:
        """Of x / sqrt(2): the first part of GELU."""
        chain = self._chain(node, x)
        node.require(isinstance(chain.does, Scaling) and is_root_of_half(chain.does.factor()),
                     "something else than GELU has in it")
        assert chain.before is not None
        return Erf(chain.before, 1.0, 0.0, times_x=False)

    def _towards_gelu(self, node: _Node, erf: Erf, other: Any) -> Erf | Chain:
        operator, flaw = node.operator, "something else than GELU has beside the error function"
        if isinstance(other, Chain):        # x, or x times a number
            factor = 1.0 if other is erf.x else math.nan
            if other.before is erf.x and isinstance(other.does, Scaling):
                factor = other.does.factor()
            node.require(operator == "Mul" and not erf.times_x and not math.isnan(factor), flaw)
            return Erf(erf.x, erf.factor * factor, erf.shift * factor, times_x=True).settled()
        constant = self._numbers(node, other)
        node.require(constant.size == 1 and constant.all(), flaw)
        number = float(constant.reshape(()))
        if operator in ("Mul", "Div"):
            number = number if operator == "Mul" else 1 / number
            return Erf(erf.x, erf.factor * number, erf.shift * number, erf.times_x).settled()
        node.require(operator == "Add" and not erf.times_x, flaw)
        return Erf(erf.x, erf.factor, erf.shift + number, times_x=False)

    def softmax(self, node: _Node, x: Any) -> Chain:
        """Softmax, or its logarithm: the scores are the same."""
        chain = self._chain(node, x)
        node.require(len(chain.shape) == 1 and node.take("axis", -1 if node.opset >= 13 else 1) in (-1, 1),
                     "another axis than that of the columns")
        return chain.then("softmax")

    def exponential(self, node: _Node, x: Any) -> Chain:
        """What a rate is of a score."""
        return self._chain(node, x).then("exp")

    # What changes nothing

    def same(self, node: _Node, x: Any) -> Any:
        """Identity, or ZipMap, which names the columns."""
        return x

    def dropout(self, node: _Node, x: Any, ratio: Any = None, training: Any = None) -> Any:
        node.require(training is None or (isinstance(training, np.ndarray) and not training.any()), "training_mode")
        return x

    def cast(self, node: _Node, x: Any) -> Any:
        to = node.take("to", 0)
        node.require(to in (_FLOAT, _DOUBLE),
                     f"a cast to ONNX's type {to}, but only float32 and float64 are understood")
        if isinstance(x, np.ndarray):
            return x.astype(np.float32 if to == _FLOAT else np.float64)
        node.require(isinstance(x, (Chain, Erf)), _NOT_UNDERSTOOD)
        return x

    def flatten(self, node: _Node, x: Any) -> Chain:
        chain = self._chain(node, x)
        node.require(node.take("axis", 1) in (1, -len(chain.shape)), "another axis than 1")
        return chain if len(chain.shape) == 1 else chain.flat(chain.total)

    def reshape(self, node: _Node, x: Any, target: Any) -> Chain:
        """To rows (N, I), each an example in the order of memory."""
        chain = self._chain(node, x)
        shape, total = chain.shape, chain.total
        found = list(target.sizes) if isinstance(target, _Shape) else self._integers(node, target)
        flaw = (f"the shape {sizes(tuple(found))} for examples of the shape {sizes(shape)}, but only rows (N, I) are "
                "understood")
        node.require(len(found) == 2, flaw)
        rows, width = found
        copies = not node.take("allowzero", 0)
        if width == 0 and copies and len(shape) == 1:
            width = -1 if total is None else total
        is_inferred = rows == -1
        node.require(rows is None or is_inferred or rows == self._batch or (rows == 0 and copies), flaw)
        if width == -1 and not is_inferred:
            width = total
        else:
            node.require(width is not None and width > 0 and total in (None, width), flaw)
        return chain if shape == (width,) else chain.flat(width)

    # Constants, and shapes that are computed

    def constant(self, node: _Node) -> np.ndarray:
        for name, default in (("value_float", 0.0), ("value_floats", [0.0]), ("value_int", 0), ("value_ints", [0])):
            if node.has(name):
                return np.array(node.take(name, default), np.float32 if "float" in name else np.int64)
        node.require(node.has("value"), "something else than numbers as its value")
        return _onnx_files.array_of(node.take("value", library().TensorProto()))

    def _of_constants(self, node: _Node, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        node.require(x.dtype == y.dtype and x.dtype.kind == "f", "constants that are not both of the same real numbers")
        fits = all(one == other or 1 in (one, other) for one, other in zip(x.shape[::-1], y.shape[::-1], strict=False))
        node.require(fits and np.broadcast_shapes(x.shape, y.shape) in (x.shape, y.shape),
                     f"constants of the shapes {x.shape} and {y.shape}")
        compute = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[node.operator]
        return np.asarray(compute(x, y))

    def of_constant(self, node: _Node, x: Any) -> np.ndarray:
        """Sqrt or Reciprocal."""
        array = self._numbers(node, x)
        return np.asarray(np.sqrt(array) if node.operator == "Sqrt" else 1 / array)

    def transpose(self, node: _Node, x: Any) -> np.ndarray:
        array = self._numbers(node, x)
        axes = node.take("perm", list(range(array.ndim))[::-1] or [0])
        node.require(sorted(axes) == list(range(array.ndim)), "axes that its array has not")
        return array.transpose(axes)

    def shape(self, node: _Node, x: Any) -> _Shape:
        chain = self._chain(node, x)
        node.require(not node.has("start") and not node.has("end"), "a part of a shape")
        return _Shape((None, *(_UNKNOWN if size is None else size for size in chain.shape)))

    def gather(self, node: _Node, x: Any, places: Any) -> _Shape:
        """Sizes of a shape."""
        is_shape = isinstance(x, _Shape) and not x.is_number and node.take("axis", 0) == 0
        node.require(is_shape, "something else than a shape")
        found = self._integers(node, places)
        has_them = all(-len(x.sizes) <= one < len(x.sizes) for one in found)
        node.require(found and has_them, "a size that the shape has not")
        return _Shape(tuple(x.sizes[one] for one in found), is_number=places.ndim == 0)

    def unsqueeze(self, node: _Node, x: Any, axes: Any = None) -> _Shape:
        """A shape of one size."""
        found = node.take("axes", [0]) if axes is None else self._integers(node, axes)
        node.require(isinstance(x, _Shape) and x.is_number and found in ([0], [-1]),
                     "something else than one size of a shape")
        return _Shape(x.sizes)

    def concat(self, node: _Node, *values: Any) -> Chain | _Shape:
        """A shape; or 1 - p and p for two classes, of which p is enough."""
        axis = node.take("axis", 0)
        if len(values) == 2 and axis in (1, -1) and all(isinstance(one, Chain) for one in values):
            first, second = values
            is_probability = second.does is Sigmoid and second.shape == (1,)
            if (is_probability and first.before is second and isinstance(first.does, Scaling)
                    and (first.does.scale == -1).all() and (first.does.shift == 1).all()):
                probability: Chain = second
                return probability
        found: list[int | None] = []
        for one in values:
            node.require(axis == 0 and not isinstance(one, (Chain, Erf)),
                         "other things than 1 - p and p for two classes")
            found += one.sizes if isinstance(one, _Shape) else self._integers(node, one)
        node.require(len(found) <= _MOST_DIMENSIONS, "too many sizes")
        return _Shape(tuple(found))


# The fewest and the most inputs, and what says what comes out.
_OPERATORS: dict[str, tuple[int, int, Callable[..., Any]]] = {
    "Gemm": (2, 3, _Reader.gemm),
    "MatMul": (2, 2, _Reader.matmul),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), (2, 2, _Reader.arithmetic)),
    "ai.onnx.ml.Scaler": (1, 1, _Reader.scaler),
    "BatchNormalization": (5, 5, _Reader.batch_normalization),
    **dict.fromkeys(("Relu", "Sigmoid", "Tanh"), (1, 1, _Reader.activation)),
    "LeakyRelu": (1, 1, _Reader.leaky_relu),
    "Max": (2, 2, _Reader.largest),
    "Gelu": (1, 1, _Reader.gelu),
    "Erf": (1, 1, _Reader.erf),
    **dict.fromkeys(("Softmax", "LogSoftmax"), (1, 1, _Reader.softmax)),
    "Exp": (1, 1, _Reader.exponential),
    **dict.fromkeys(("Identity", "ai.onnx.ml.ZipMap"), (1, 1, _Reader.same)),
    "Dropout": (1, 3, _Reader.dropout),
    "Cast": (1, 1, _Reader.cast),
    "Flatten": (1, 1, _Reader.flatten),
    "Reshape": (2, 2, _Reader.reshape),
    "Constant": (0, 0, _Reader.constant),
    **dict.fromkeys(("Sqrt", "Reciprocal"), (1, 1, _Reader.of_constant)),
    "Transpose": (1, 1, _Reader.transpose),
    "Shape": (1, 1, _Reader.shape),
    "Gather": (2, 2, _Reader.gather),
    "Unsqueeze": (1, 2, _Reader.unsqueeze),
    "Concat": (1, _MOST_DIMENSIONS, _Reader.concat),
}
