"""A network as one Python file that needs NumPy alone: `Network.export_numpy`."""

import base64
import textwrap
from collections.abc import Iterator
from string import Template

import numpy as np

from nnfast._export import Exported, Operation

_EXPRESSIONS = {
    "affine": "x @ W$number + b$number",
    "scale_shift": "x * scale$number + shift$number",
    "scale": "x * DTYPE($setting)",
    "relu": "np.maximum(x, 0)",
    "leaky_relu": "np.where(x > 0, x, x * DTYPE($setting))",
    "sigmoid": "np.exp(-np.logaddexp(DTYPE(0), -x))",
    "exp": "np.exp(x)",
    "tanh": "np.tanh(x)",
    "gelu": "x * _erfc(x * DTYPE(-0.5**0.5)) / 2",
    "softmax": "_softmax(x)",
}

_HELPERS = {
    "gelu": '''

def _erfc(x):
    """Value by value, since NumPy has none: some 0.1 microseconds each."""
    return np.frompyfunc(math.erfc, 1, 1)(x).astype(DTYPE)
''',
    "softmax": '''

def _softmax(x):
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
''',
}

_HEAD = '''"""$description, exported by nnfast $version: `predict(x)`. It needs NumPy alone.

Executed as a program it compares what it gives for $examples examples with what nnfast gave.
"""

import base64
$imports
import numpy as np

DTYPE = np.$dtype


def _array(shape, text):
    return np.frombuffer(base64.b64decode(text), "$order").reshape(shape).astype(DTYPE)


'''

_PREDICT = '''

def predict(x):
    """The $results (B, $outputs) for examples x (B, $inputs)."""
    x = np.asarray(x, DTYPE)
    if x.ndim != 2 or x.shape[1] != $inputs:
        raise ValueError(f"x has shape {x.shape}, but rows of $inputs values were expected")
$body    return x


if __name__ == "__main__":
    difference = np.abs(predict(_EXAMPLES) - _EXPECTED).max()
    if not difference <= $tolerance:
        raise SystemExit(f"results differ by {difference:.1g}, more than $tolerance")
    print(f"$examples examples agree to {difference:.1g} (at most $tolerance)")
'''


def source(network: Exported, version: str) -> str:
    """The file's text."""
    kinds = {one.kind for one in network.operations}
    arrays = [_array(name, array) for name, array in _arrays(network)]
    body = "".join(f"    x = {_expression(one)}\n" for one in network.operations)
    text = "".join([_HEAD, *arrays, *(helper for kind, helper in _HELPERS.items() if kind in kinds), _PREDICT])
    description = network.description[0].upper() + network.description[1:]
    return Template(text).substitute(
        description=description, version=version, examples=len(network.x), imports="import math\n" if "gelu" in kinds else "",
        dtype=network.dtype.name, order=network.dtype.newbyteorder("<").str, results=network.results,
        inputs=network.inputs, outputs=network.outputs, body=body, tolerance=f"{network.tolerance:.2g}")


def _arrays(network: Exported) -> Iterator[tuple[str, np.ndarray]]:
    for operation in network.operations:
        for name, array in operation.arrays.items():
            yield f"{name}{operation.number}", array
    yield "_EXAMPLES", network.x
    yield "_EXPECTED", network.y


def _array(name: str, array: np.ndarray) -> str:
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    lines = textwrap.wrap(base64.b64encode(data.tobytes()).decode(), 116)
    return f"{name} = _array({array.shape}, (\n" + "".join(f'    "{line}"\n' for line in lines) + "))\n"


def _expression(operation: Operation) -> str:
    return Template(_EXPRESSIONS[operation.kind]).substitute(
        number=operation.number, setting=repr(float(operation.setting)))
