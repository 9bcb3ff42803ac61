"""`from common.x import *` of a script becomes `from nnfast.x import *` and brings all the names that it did."""

import importlib
import inspect
import sys
from pathlib import Path

import pytest

BOOK = Path(__file__).parent / "book"
MODULES = sorted(path.stem for path in (BOOK / "common").glob("[!_]*.py"))


@pytest.fixture(scope="module")
def book():
    """The modules of tests/book/common by name, and no trace of them afterwards."""
    def take():
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "common"}

    before = take()
    sys.path.insert(0, str(BOOK))
    try:
        yield {name: importlib.import_module(f"common.{name}") for name in MODULES}
    finally:
        sys.path.remove(str(BOOK))
        take()
        sys.modules.update(before)


def starred(module_name):
    """What a star import brings, by name."""
    namespace = {}
    exec(f"from {module_name} import *", namespace)  # noqa: S102
    del namespace["__builtins__"]
    return namespace


def written_in(module):
    """Classes and functions that a module defines itself."""
    return {name: thing for name, thing in vars(module).items()
            if not name.startswith("_") and callable(thing) and thing.__module__ == module.__name__}


@pytest.mark.parametrize("name", sorted({*MODULES} - {"datasets"}))     # that one stands in for the book's images
def test_a_star_import_brings_every_name_that_the_books_module_brings(name, book):
    assert set(starred(f"common.{name}")) <= set(starred(f"nnfast.{name}"))


@pytest.mark.parametrize("name", ["functions", "gradient", "layers", "optimizer", "trainer", "util"])
def test_a_star_import_brings_numpy_as_np(name):
    assert starred(f"nnfast.{name}")["np"] is sys.modules["numpy"]


@pytest.mark.parametrize("name", MODULES)
def test_a_name_means_what_the_book_means_by_it(name, book):
    ours = starred(f"nnfast.{name}")
    for key, theirs in written_in(book[name]).items():
        assert inspect.isclass(ours[key]) == inspect.isclass(theirs), key
        takes_the_arguments_of(ours[key], theirs)
        for method in public_methods(theirs):
            takes_the_arguments_of(getattr(ours[key], method), getattr(theirs, method))


def takes_the_arguments_of(ours, theirs):
    """Assert: in the same order, by the same names, and with the same defaults. There may be more."""
    expected = list(inspect.signature(theirs).parameters.values())
    found = list(inspect.signature(ours).parameters.values())
    for parameter, own in zip(expected, found, strict=False):
        assert own.name.lower() == parameter.name.lower(), theirs   # printings differ in softmax_loss(X, t)
        if parameter.default is not parameter.empty and not isinstance(parameter.default, dict):
            assert own.default == parameter.default, theirs     # Trainer's {"lr": 0.01} is made anew each time
    assert len(found) >= len(expected), theirs
    assert all(own.default is not own.empty for own in found[len(expected):]), theirs


def public_methods(thing):
    if not inspect.isclass(thing):
        return []
    return [name for name, method in vars(thing).items() if not name.startswith("_") and callable(method)]
