"""The documentation is true: its code runs, its numbers are the book's, and nothing public is missing from it."""

import importlib
import os
import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from launched import command, ended, started

import nnfast

pytest.importorskip("matplotlib")
from matplotlib import pyplot

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
if not DOCS.is_dir():
    pytest.skip("the documentation is not beside the tests", allow_module_level=True)
STEPS = sorted((DOCS / "steps").glob("*.py"))
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

# What a step prints is on its page; these lines hold for every machine.
PRINTED = {
    "01_perceptron": ["AND  {(0, 0): 0, (0, 1): 0, (1, 0): 0, (1, 1): 1}", "NAND {(0, 0): 1,", "OR   {(0, 0): 0,"],
    "02_multi_layer_perceptron": ["{(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 0}"],
    "03_activation_functions": ["one: True", "[[0.31682708 0.69627909]]"],
    "04_output_functions": ["[0.01821127 0.24519181 0.73659691] sum 1.0", "9.99954600e-01 4.53978686e-05 2.06106005e-09", "class 2 = 2"],
    "05_loss_functions": ["error 0.0975, cross-entropy error 0.5108", "error 0.5975, cross-entropy error 2.3026"],
    "06_numerical_gradient": ["[6. 8.]", "[[ 0.219", "0.143"],
    "07_gradient_method": ["too small after 40 steps", "right     after 40 steps at ( -0.16,   0.00)", "too large after 40 steps"],
    "08_stochastic_gradient_descent": ["300 steps, test accuracy 9"],
    "09_computational_graph": ["price 220, gradients 2.2, 110, 200", "price 715, gradients 2.2 110 3.3 165 650"],
    "10_backpropagation": ["[[ 0.3 -0.8  0.5]]"],
    "11_gradient_check": ["passed: backpropagation agrees", "WRONG: see the backward of Square1"],
    "12_initial_weights": [],
    "13_mnist": ["training data (60000, 784)", "test accuracy 97."],
}


@pytest.fixture(autouse=True)
def _leave_no_trace(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    state = np.random.get_state()
    yield
    np.random.set_state(state)
    pyplot.close("all")


@pytest.mark.parametrize("step", STEPS, ids=lambda path: path.stem)
def test_a_step_of_the_tour_runs_prints_what_the_book_has_and_draws(step, capsys):
    if step.stem == "13_mnist" and not os.environ.get("NNFAST_DATA_DIR"):
        pytest.skip("NNFAST_DATA_DIR is not set: no MNIST, and tests download nothing")
    runpy.run_path(str(step))
    printed = capsys.readouterr().out
    for expected in PRINTED[step.stem]:
        assert expected in printed
    assert pyplot.get_fignums()
    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        figure.draw_without_rendering()
        assert all(axes.has_data() or not axes.axison for axes in figure.axes)


# Of the examples, what each prints: whether it did what it says.
EXAMPLES = {
    "device": ([], [r"in C, test accuracy 0\.9[5-9]", "the same classes as in Python: True", "examples agree"]),
    "policy": ([], [r"after \d+ episodes the pole stands for (4[89]|50)\d? of 500 steps"]),
    "surrogate": (["scipy"], [r"at most 0\.0[0-4]\d radians from", r"mean integral -1\.18\d+\nthrough C: mean integral -1\.18"]),
    "tabular": (["sklearn"], [r"45 fits in", r"cross-validated 0\.9[6-9]", r"\d of 53 malignant tumours missed"]),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs_and_does_what_it_says(example, capsys):
    packages, expected = EXAMPLES[example]
    for package in packages:
        pytest.importorskip(package)
    if example == "device" and shutil.which("cc") is None:
        pytest.skip("there is no C compiler here")
    runpy.run_path(str(DOCS / "examples" / f"{example}.py"))
    printed = capsys.readouterr().out
    for pattern in expected:
        assert re.search(pattern, printed), printed


@pytest.mark.needs("mpi4py")
@pytest.mark.parametrize("size", [1, 2])
def test_the_example_of_ranks_trains_on_one_and_on_two(size, tmp_path):
    example = DOCS / "examples" / "ranks.py"
    process = started(command(size, sys.executable, "-m", "mpi4py", example), TMPDIR=str(tmp_path))
    output, errors = ended(process)
    assert process.returncode == 0, errors
    lines = output.splitlines()     # one rank alone prints
    assert lines[0] == f"{size} rank(s), {60_000 // size:,} of 60,000 rows on the first one"
    assert re.fullmatch(r"3 epochs in .* s, loss 0\.\d+, test accuracy 0\.9[5-9]\d", lines[1])
    assert len(lines) == 2
    assert not list(tmp_path.glob("*/*.npy"))


def test_every_example_is_run():
    assert sorted(path.stem for path in (DOCS / "examples").glob("*.py")) == sorted([*EXAMPLES, "ranks"])


@pytest.mark.parametrize("step", STEPS, ids=lambda path: path.stem)
def test_a_step_has_a_heading_in_both_languages(step):
    _, title, line, *_ = step.read_text("utf-8").split("\n")
    assert re.fullmatch(r"[^\u4e00-\u9fff]+ · .*[\u4e00-\u9fff].*", title)
    assert set(line) == {"="}


def test_every_step_is_there():
    assert [step.stem for step in STEPS] == list(PRINTED)


BLOCKS = [
    (f"{page.name}-{number}", block)
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL), 1)
]


@pytest.mark.parametrize("block", [block for _, block in BLOCKS], ids=[name for name, _ in BLOCKS])
def test_a_block_of_code_runs(block, tmp_path):
    for package in re.findall(r"^(?:import|from) (cffi|distributed|numba|scipy)\b", block, re.MULTILINE):
        pytest.importorskip(package)
    if "nnfast.sklearn" in block:
        pytest.importorskip("sklearn")
    script = tmp_path / "block.py"
    script.write_text(block, "utf-8")
    runpy.run_path(str(script))


def test_blocks_are_found_in_the_readme_and_on_the_first_page():
    assert {name.rpartition("-")[0] for name, _ in BLOCKS} >= {"README.md", "index.md"}


def documented():
    """Full names of what the reference describes."""
    found = set()
    for page in (DOCS / "api").glob("*.rst"):
        module = "nnfast"
        directives = r"^\.\. (\w+):: ([\w.]+)\n((?: +:.*\n)*)"
        for directive, name, options in re.findall(directives, page.read_text("utf-8"), re.MULTILINE):
            if directive in ("currentmodule", "automodule"):
                module = name
            if directive == "automodule" and ":members:" in options:
                found |= {f"{name}.{member}" for member in importlib.import_module(name).__all__}
            elif directive in ("autoclass", "autoexception", "autofunction"):
                found.add(name if name.startswith("nnfast.") else f"{module}.{name}")
    return found


def test_everything_public_is_in_the_reference():
    described = set()
    for name in documented():
        module, _, thing = name.rpartition(".")
        described.add(id(getattr(importlib.import_module(module), thing)))
    public = {f"nnfast.{name}": getattr(nnfast, name) for name in nnfast.__all__}
    for one in ("functions", "gradient", "layers", "optimizer", "perceptron", "trainer", "graph", "util", "datasets",
                "multi_layer_net", "convert", "schedules", "sklearn"):
        if one == "sklearn":
            pytest.importorskip("sklearn")
        module = importlib.import_module(f"nnfast.{one}")
        public |= {f"nnfast.{one}.{name}": getattr(module, name) for name in module.__all__}
    own = {name: thing for name, thing in public.items() if getattr(thing, "__module__", "").startswith("nnfast")}
    assert [name for name, thing in own.items() if id(thing) not in described] == []


def test_every_page_of_the_reference_is_in_its_index():
    listed = (DOCS / "api" / "index.md").read_text("utf-8").split("\n")
    assert {page.stem for page in (DOCS / "api").glob("*.rst")} <= set(listed)
