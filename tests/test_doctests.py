"""Every example in a docstring is true, and everything public has one."""

import doctest
import importlib.util
import inspect
import pkgutil
from types import ModuleType

import numpy as np
import pytest

import nnfast
from nnfast import convert

ESTIMATORS = ["nnfast.sklearn", "nnfast._estimators", "nnfast._estimator_solvers"]
MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(nnfast.__path__, "nnfast.")
    if not module.name.rpartition(".")[2].startswith("_core")    # compiled; those for other processors cannot run here
    and (module.name not in ESTIMATORS or importlib.util.find_spec("sklearn"))
]


def public_objects():
    """Classes and functions that a module names in `__all__` and that are nnfast's own, each once."""
    found = {}
    for module in [nnfast, *MODULES]:
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if (inspect.isclass(thing) or inspect.isroutine(thing)) and thing.__module__.startswith("nnfast"):
                found[f"{thing.__module__}.{thing.__qualname__}"] = thing
    return found


PUBLIC = public_objects()


@pytest.mark.parametrize("module", [nnfast, *MODULES], ids=lambda module: module.__name__)
def test_the_examples_of_a_module_are_true(module, monkeypatch, tmp_path):
    if module.__name__ in ("nnfast.graph", "nnfast.plots"):
        pytest.importorskip("matplotlib")
    if importlib.util.find_spec("onnx") is None:
        for thing in (convert.from_onnx, nnfast.Network.export_onnx):
            monkeypatch.setattr(thing, "__doc__", "")
    monkeypatch.chdir(tmp_path)     # an example that names no such file means it
    before = np.random.get_state()
    try:
        results = doctest.testmod(module)
    finally:
        np.random.set_state(before)
        nnfast.set_num_threads(None)
    assert results.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_has_an_example(name):
    docstring = inspect.cleandoc(PUBLIC[name].__doc__ or "")
    assert "\nExamples\n--------\n" in docstring
    examples = docstring.split("\nExamples\n--------\n")[1]
    assert doctest.DocTestParser().get_examples(examples)


def test_the_walk_finds_the_books_modules_and_its_objects():
    books = ["functions", "layers", "gradient", "optimizer", "trainer", "graph", "util", "perceptron", "network"]
    assert {f"nnfast.{name}" for name in books} <= {module.__name__ for module in MODULES}
    assert {"nnfast.layers.Affine", "nnfast.functions.softmax", "nnfast.graph.Variable"} <= set(PUBLIC)


def test_an_example_that_is_false_would_be_noticed(capsys):
    module = ModuleType("false")
    module.__doc__ = ">>> 1 + 1\n3\n"
    assert doctest.testmod(module).failed == 1
    assert "Got:\n    2" in capsys.readouterr().out


@pytest.mark.parametrize("module", [module for module in MODULES if "._" not in module.__name__],
                         ids=lambda module: module.__name__)
def test_a_public_module_names_what_is_public_and_says_what_it_is(module):
    assert module.__doc__
    assert len(set(module.__all__)) == len(module.__all__)
    written_here = {
        name for name, thing in vars(module).items()
        if not name.startswith("_") and (inspect.isclass(thing) or inspect.isroutine(thing))
        and thing.__module__ == module.__name__
    }
    assert written_here <= set(module.__all__)


def test_the_package_names_all_that_it_imports_and_nothing_else():
    public = {name for name, thing in vars(nnfast).items() if not name.startswith("_") and not inspect.ismodule(thing)}
    assert public | {"__version__"} == set(nnfast.__all__)
    assert len(set(nnfast.__all__)) == len(nnfast.__all__)
    assert all(part.isdecimal() for part in nnfast.__version__.split(".")[:2])


@pytest.mark.parametrize("name", [name for name, thing in PUBLIC.items() if inspect.isroutine(thing)])
def test_a_public_function_names_each_parameter_in_its_docstring(name):
    parameters = list(inspect.signature(PUBLIC[name]).parameters)
    documented = inspect.cleandoc(PUBLIC[name].__doc__).partition("\nParameters\n----------\n")[2].splitlines()
    named = [word.strip("* ") for line in documented if " : " in line and not line.startswith(" ")
             for word in line.split(" : ")[0].split(",")]
    assert named[:len(parameters)] == parameters
