"""Scripts in the manner of *Deep Learning from Scratch* print the same with nnfast as they did before.

Every script in tests/book/scripts runs twice in this process. First ("before") its ``common.`` is tests/book/common,
a plain NumPy library with the names and meaning of the book's; then ``common.`` in its import lines, and nothing else,
becomes ``nnfast.``. ``common.datasets``, made-up images, stays the same module in both runs: what is compared is the
library, not the data.

Compared is all that is printed, token by token and without regard to white space:

* words and signs must be identical, ``nan`` and ``inf`` among them;
* integers must be written identically (so ``1.0`` for ``1`` is noticed);
* every number on a line that speaks of accuracy ("acc") must be exactly equal: it is a count over a count, and in
  these scripts no two scores are so near a tie that relative errors of 1e-9 would move one;
* other numbers agree to RTOL and ATOL. Arrays are printed to all 17 digits for it.

RuntimeWarnings are not compared: NumPy warns on overflow where compiled code is silent.
"""

import contextlib
import functools
import io
import re
import sys
import types
import warnings
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest

BOOK = Path(__file__).parent / "book"
SCRIPTS = sorted(path.stem for path in (BOOK / "scripts").glob("*.py"))

# Measured: a random relative error of 1e-9 in every product, sum and exponential of tests/book/common moves the printed
# numbers by up to 5e-8 of themselves, 3e-7 where large terms cancel (and the numerical gradients by more, see ATOL).
# Rounding, 1e-15, is thus below 1e-12. The rest is room, but single precision, 6e-8, is far outside.
RTOL = 1e-9
# A numerical gradient divides the rounding errors of two losses, 1e-15, by 2e-4: 1e-11, however small the gradient.
ATOL = 1e-9


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_prints_with_nnfast_what_it_printed_before(script):
    assert first_difference(output_before(script), run(nnfast_source(script), may_import={"datasets"})) is None


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_prints_the_same_again(script):
    assert output_before(script)
    assert first_difference(output_before(script), run(book_source(script))) is None


@pytest.mark.parametrize(
    ("script", "at_least"),
    [
        ("ch03_batch_prediction", 0.9),
        ("ch04_two_layer_net", 0.95),
        ("ch05_two_layer_net", 0.95),
        ("ch06_dropout", 0.9),
        ("ch06_optimizers_on_images", 0.9),
        ("ch06_weight_init", 0.9),
    ],
)
def test_a_training_script_learns(script, at_least):
    last = [line for line in output_before(script).splitlines() if "acc" in line.lower()][-1]
    assert float(_NUMBER.findall(last)[-1]) >= at_least


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("loss 0.5", "loss 0.50000001"),
        ("loss 0.5", "lost 0.5"),
        ("loss 0.5", "loss -0.5"),
        ("loss 0.5", "loss nan"),
        ("loss 0.5", "loss 0.5\nloss 0.5"),
        ("loss 0.5\nloss 0.5", "loss 0.5"),
        ("test acc:0.5", "test acc:0.5000000000000001"),
        ("Accuracy:0.5", "Accuracy:0.5000000000000001"),
        ("[1 0]", "[1. 0.]"),
        ("steps 25", "steps 26"),
        ("{'W1': 0.5}", "{'b1': 0.5}"),
        ("3e-5", "3e-6"),
        ("", "loss 0.5"),
    ],
)
def test_a_changed_word_number_or_line_is_noticed(before, after):
    assert first_difference(before, after) is not None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("loss:0.1 ", "loss:0.10000000000000002"),
        ("[[ 1.  -0.]\n [ 2. nan]]", "[[1. 0.]\n [2. nan]]"),
        ("W1:3.1e-17", "W1:0.0"),
        ("train acc:0.5, loss", "train acc:0.5, loss"),
    ],
)
def test_a_rounding_error_is_passed(before, after):
    assert first_difference(before, after) is None


# One slip per row: what is easily got wrong in a library that is to stand in for the book's.
@pytest.mark.parametrize(
    ("script", "module", "right", "wrong"),
    [
        ("ch02_logic_gates", "perceptron", "0.5, -0.2", "0.5, -0.7"),
        ("ch03_activations", "functions", "x >= 0", "x > 0"),
        ("ch03_activations", "functions", "axis=-1, keepdims", "axis=0, keepdims"),
        ("ch04_losses", "functions", "1e-7", "1e-8"),
        ("ch04_losses", "functions", "0.5 * np.sum", "np.mean"),
        ("ch05_apples_and_oranges", "graph", "dout * self.y, dout * self.x", "dout * self.x, dout * self.y"),
        ("ch05_layers", "layers", "10e-7", "1e-7"),
        ("ch05_layers", "layers", "kept, new = self.momentum, 1 - self.momentum", "new, kept = 0.9, 0.1"),
        ("ch05_layers", "layers", "return x * self.mask", "return x * self.mask / (1 - self.dropout_ratio)"),
        ("ch05_layers", "layers", "> self.dropout_ratio", "< self.dropout_ratio"),
        ("ch06_weight_decay", "layers", "self.x @ self.W + self.b", "np.float32(self.x @ self.W + self.b)"),
        ("ch06_batch_norm_gradient_check", "layers", "self.mask = x <= 0", "self.mask = x < 0"),
        ("ch06_multi_layer_gradient_check", "gradient", "h = 1e-4", "h = 1e-3"),
        ("ch06_multi_layer_gradient_check", "multi_layer_net", '"sigmoid": 1.0', '"sigmoid": 2.0'),
        ("ch06_multi_layer_gradient_check", "multi_layer_net", "+ self.weight_decay_lambda * ", "+ 0 * "),
        ("ch06_optimizers_on_a_bowl", "optimizer", "m * m * self.v[key]", "m * m * (m * self.v[key] - descent)"),
        ("ch06_optimizers_on_a_bowl", "optimizer", "np.sqrt(self.v[key]) + 1e-7", "np.sqrt(self.v[key] + 1e-7)"),
        ("ch06_trainer", "trainer", "self.train_size / mini_batch_size", "self.train_size // mini_batch_size"),
        ("ch06_trainer", "trainer", "self.train_size, self.batch_size", "self.train_size, self.batch_size, False"),
        ("ch06_optimizers_on_images", "util", "np.kaiser(11, 2)", "np.kaiser(11, 3)"),
    ],
)
def test_a_slip_in_the_library_is_noticed(script, module, right, wrong):
    path = BOOK / "common" / f"{module}.py"
    source = path.read_text(encoding="utf-8")
    assert right in source
    printed = run(book_source(script), slips={module: source.replace(right, wrong)})
    assert first_difference(output_before(script), printed) is not None


def test_only_imports_change_for_nnfast():
    source = "from common.layers import *\n  import common.util\nfrom common.datasets import x\nprint('common.util')\n"
    changed = "from nnfast.layers import *\n  import nnfast.util\nfrom common.datasets import x\nprint('common.util')\n"
    assert _with_nnfast(source) == changed


# Running


def book_source(script):
    return (BOOK / "scripts" / f"{script}.py").read_text(encoding="utf-8")


def nnfast_source(script):
    return _with_nnfast(book_source(script))


def _with_nnfast(source):
    return re.sub(r"^(\s*(?:from|import)\s+)common\.(?!datasets\b)", r"\1nnfast.", source, flags=re.MULTILINE)


@functools.cache
def output_before(script):
    return run(book_source(script))


def run(source, may_import=None, slips=None):
    """Return what the script prints.

    may_import: the modules of tests/book/common that it may load; all when None.
    slips: source texts that stand in for modules of tests/book/common.
    """
    printed = io.StringIO()
    with _fresh_common(), np.printoptions(precision=17), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for name, text in (slips or {}).items():
            module = sys.modules[f"common.{name}"] = types.ModuleType(f"common.{name}")
            exec(compile(text, f"<{name} with a slip>", "exec"), module.__dict__)  # noqa: S102
        with contextlib.redirect_stdout(printed):
            exec(compile(source, "<script>", "exec"), {"__name__": "__main__"})  # noqa: S102
        loaded = {name.partition(".")[2] for name in sys.modules if name.startswith("common.")}
    assert may_import is None or loaded <= may_import, f"tests/book/common still gave {loaded - may_import}"
    return printed.getvalue()


@contextlib.contextmanager
def _fresh_common():
    """Let ``common`` mean tests/book/common, newly imported, and leave no trace of it or of the seed."""
    modules, path, random_state = _take_common(), sys.path.copy(), np.random.get_state()
    sys.path.insert(0, str(BOOK))
    try:
        yield
    finally:
        _take_common()
        sys.modules.update(modules)
        sys.path[:] = path
        np.random.set_state(random_state)


def _take_common():
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "common"}


# Comparing

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_TOKEN = re.compile(rf"{_NUMBER.pattern}|[^\W\d]+|\S")
_INTEGER = re.compile(r"[-+]?\d+")


def first_difference(before, after):
    """Return None if the two outputs agree as the module's docstring says, else where they first do not."""
    for (old, old_line), (new, new_line) in zip_longest(_tokens(before), _tokens(after), fillvalue=("", "(the end)")):
        if not _agree(old, new, exactly="acc" in old_line.lower()):
            return f"before: {old!r} in {old_line!r}; after: {new!r} in {new_line!r}"
    return None


def _tokens(output):
    for line in output.splitlines():
        for token in _TOKEN.findall(line):
            yield token, line


def _agree(old, new, exactly):
    if not (_NUMBER.fullmatch(old) and _NUMBER.fullmatch(new)) or _INTEGER.fullmatch(old) or _INTEGER.fullmatch(new):
        return old == new
    if exactly:
        return float(old) == float(new)
    return abs(float(new) - float(old)) <= ATOL + RTOL * abs(float(old))
