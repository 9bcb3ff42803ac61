"""A network as one C99 file: `Network.export_c`."""

from collections.abc import Iterator
from string import Template

import numpy as np

from nnfast._export import Exported, Operation

_COLUMNS = 8
"""Numbers on a line."""

# By kind of operation. All but the first change values where they are.
_FUNCTIONS = {
    "affine": """
/* y = x W + b, W row after row: (inputs, outputs) */
static void ${name}_affine(const $real *x, size_t inputs, const $real *W, const $real *b, $real *y, size_t outputs)
{
    size_t i, j;
    for (j = 0; j < outputs; j++)
        y[j] = b[j];
    for (i = 0; i < inputs; i++)
        for (j = 0; j < outputs; j++)
            y[j] += x[i] * W[i * outputs + j];
}
""",
    "scale_shift": """
static void ${name}_scale_shift($real *x, size_t n, const $real *scale, const $real *shift)
{
    size_t i;
    for (i = 0; i < n; i++)
        x[i] = x[i] * scale[i] + shift[i];
}
""",
    "scale": """
static void ${name}_scale($real *x, size_t n, $real factor)
{
    size_t i;
    for (i = 0; i < n; i++)
        x[i] *= factor;
}
""",
    "relu": """
static void ${name}_relu($real *x, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (x[i] <= 0) /* NaN stays */
            x[i] = 0;
}
""",
    "leaky_relu": """
static void ${name}_leaky_relu($real *x, size_t n, $real slope)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (x[i] <= 0)
            x[i] *= slope;
}
""",
    "sigmoid": """
static void ${name}_sigmoid($real *x, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        x[i] = 1 / (1 + exp$f(-x[i]));
}
""",
    "exp": """
static void ${name}_exp($real *x, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        x[i] = exp$f(x[i]);
}
""",
    "tanh": """
static void ${name}_tanh($real *x, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        x[i] = tanh$f(x[i]);
}
""",
    "gelu": """
/* erfc, since 1 + erf loses all digits far below 0 */
static void ${name}_gelu($real *x, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        x[i] = x[i] * erfc$f(x[i] * -0.70710678118654752440$f) / 2;
}
""",
    "softmax": """
/* the largest value is subtracted first, so that nothing overflows */
static void ${name}_softmax($real *x, size_t n)
{
    $real largest = x[0], total = 0;
    size_t i;
    for (i = 1; i < n; i++)
        if (x[i] > largest)
            largest = x[i];
    for (i = 0; i < n; i++) {
        x[i] = exp$f(x[i] - largest);
        total += x[i];
    }
    for (i = 0; i < n; i++)
        x[i] /= total;
}
""",
}

_HEAD = """/* $name: $description, exported by nnfast $version.
 *
 *     void $name(const $real x[$inputs], $real y[$outputs]);
 *
 * fills y with the $results for one example x; the two may not overlap. C99 and its library (-lm) are all it needs.
 * It allocates nothing, keeps nothing, and takes some $stack bytes of stack: any number of threads may call it.
 *
 * With ${name}_SELF_TEST defined, main() compares what it gives for $examples examples with what nnfast gave:
 *
 *     cc -std=c99 -O2 -D${name}_SELF_TEST FILE.c -lm && ./a.out
 */
#include <math.h>
#include <stddef.h>

void $name(const $real x[$inputs], $real y[$outputs]);
"""

_SELF_TEST = """
int main(void)
{
    $real y[$outputs], largest = 0;
    size_t example, j;
    for (example = 0; example < $examples; example++) {
        $name(${name}_examples + example * $inputs, y);
        for (j = 0; j < $outputs; j++) {
            $real expected = ${name}_expected[example * $outputs + j], difference = fabs$f(y[j] - expected);
            if (!(difference <= $tolerance)) { /* NaN is none */
                printf("$name: example %lu gives %.9g in place %lu instead of %.9g\\n", (unsigned long)example,
                       (double)y[j], (unsigned long)j, (double)expected);
                return 1;
            }
            if (difference > largest)
                largest = difference;
        }
    }
    printf("$name: $examples examples agree to %.1g (at most %.1g)\\n", (double)largest, (double)$tolerance);
    return 0;
}
"""


def source(network: Exported, name: str, version: str) -> str:
    """The file's text."""
    kinds = {one.kind for one in network.operations}
    affines = [one.width for one in network.operations if one.kind == "affine"][:-1]
    begins_in_place = network.operations[0].kind != "affine" and "affine" in kinds
    widths = [network.inputs, *affines] if begins_in_place else affines
    buffers = [max(widths[first::2], default=0) for first in (0, 1)]
    text = "".join([
        _HEAD, *(function for kind, function in _FUNCTIONS.items() if kind in kinds), *_arrays(network),
        *_function(network, buffers, begins_in_place), "\n#ifdef ${name}_SELF_TEST\n#include <stdio.h>\n",
        _array("examples", network.x), _array("expected", network.y), _SELF_TEST, "#endif\n",
    ])
    is_float = network.dtype == np.float32
    return Template(text).substitute(
        name=name, description=network.description, version=version, results=network.results, inputs=network.inputs,
        outputs=network.outputs, examples=len(network.x), stack=sum(buffers) * network.dtype.itemsize + 200,
        tolerance=_number(network.tolerance, is_float), real="float" if is_float else "double", f="f" if is_float else "")


def _number(value: float, is_float: bool) -> str:
    """In hexadecimal, so that no digit is lost."""
    return float(value).hex() + ("f" if is_float else "")


def _array(name: str, array: np.ndarray) -> str:
    numbers = [_number(value, array.dtype.itemsize == 4) for value in array.reshape(-1).tolist()]
    lines = [", ".join(numbers[first : first + _COLUMNS]) for first in range(0, len(numbers), _COLUMNS)]
    return f"\nstatic const $real ${{name}}_{name}[{array.size}] = {{\n    " + ",\n    ".join(lines) + "};\n"


def _arrays(network: Exported) -> Iterator[str]:
    for operation in network.operations:
        for name, array in operation.arrays.items():
            yield _array(f"{name}{operation.number}", array)


def _function(network: Exported, buffers: list[int], begins_in_place: bool) -> Iterator[str]:
    """The function itself: values go from one buffer to the other, and at last to y."""
    yield "\nvoid $name(const $real x[$inputs], $real y[$outputs])\n{\n"
    for number, width in enumerate(buffers):
        if width:
            yield f"    $real buffer{number}[{width}];\n"
    left = sum(one.kind == "affine" for one in network.operations)
    targets = iter(["buffer0", "buffer1"] * (left + 1))
    values = "x"
    if begins_in_place or not left:
        values = next(targets) if left else "y"
        yield f"    size_t i;\n    for (i = 0; i < {network.inputs}; i++)\n        {values}[i] = x[i];\n"
    width = network.inputs
    for operation in network.operations:
        if operation.kind == "affine":
            left -= 1
            target = next(targets) if left else "y"
            yield (f"    ${{name}}_affine({values}, {width}, ${{name}}_W{operation.number}, ${{name}}_b{operation.number}, {target}, "
                   f"{operation.width});\n")
            values, width = target, operation.width
        else:
            yield f"    ${{name}}_{operation.kind}({values}, {width}{_settings(operation, network.dtype)});\n"
    yield "}\n"


def _settings(operation: Operation, dtype: np.dtype) -> str:
    """What an operation in place takes besides."""
    if operation.kind in ("scale", "leaky_relu"):
        return f", {_number(dtype.type(operation.setting), dtype == np.float32)}"
    return "".join(f", ${{name}}_{name}{operation.number}" for name in operation.arrays)
