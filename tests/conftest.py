"""What the tests share: this folder on the import path (for `reference`), generators, dtypes and builds."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from nnfast import _kernels

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("MPLBACKEND", "Agg")     # no window opens


def pytest_configure(config):
    config.addinivalue_line("markers", "needs(package): skipped where an optional dependency is not installed")


def pytest_runtest_setup(item):
    for mark in item.iter_markers("needs"):
        pytest.importorskip(mark.args[0])


@pytest.fixture
def rng():
    return np.random.default_rng(20161103)


@pytest.fixture
def heeds_ctrl_c():
    """SIGINT is heard here and in processes that start here, as in a terminal: a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=list(_kernels.builds()))
def build(request):
    """Each compiled build that can run here, as a module."""
    return _kernels.builds()[request.param]


@pytest.fixture
def each_build(build, monkeypatch):
    """All of nnfast runs on each build in turn."""
    found = {np.dtype(dtype): _kernels.specialised(build, np.dtype(dtype)) for dtype in ("float32", "float64")}
    for name, module in list(sys.modules.items()):
        if name.startswith("nnfast.") and module is not _kernels and hasattr(module, "kernels"):
            monkeypatch.setattr(module, "kernels", found.__getitem__)


@pytest.fixture
def kernels(build, dtype):
    """The kernels of each build for each dtype."""
    return _kernels.specialised(build, dtype)


@pytest.fixture(scope="session")
def mnist():
    """MNIST as `load_mnist` gives it by default, where NNFAST_DATA_DIR says it is."""
    if not os.environ.get("NNFAST_DATA_DIR"):
        pytest.skip("NNFAST_DATA_DIR is not set: no MNIST")
    from nnfast.datasets import load_mnist

    return load_mnist()
