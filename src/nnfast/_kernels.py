"""Picks the compiled build once, and hands out its kernels by dtype; the only importer of `_core*`.

`NNFAST_ISA` (baseline, v3 or v4) forces a build, and importing fails when it is not there or cannot run.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import numpy as np

from nnfast import _core

_LEVELS = {"v4": 4, "v3": 3, "baseline": 0}


def _load(isa: str) -> ModuleType:
    # Literal imports, so that tools that freeze programs see them. A build above the processor's level must not even
    # be imported: its first instruction may be the illegal one.
    if isa == "v4":
        from nnfast import _core_v4

        return _core_v4
    if isa == "v3":
        from nnfast import _core_v3

        return _core_v3
    return _core


def builds() -> dict[str, ModuleType]:
    """The builds that were made and can run here, the fastest first."""
    return dict(_each_build())


def _each_build() -> Iterator[tuple[str, ModuleType]]:
    for isa, level in _LEVELS.items():
        if level <= _core.cpu_level():
            with contextlib.suppress(ImportError):  # not made for this platform
                yield isa, _load(isa)


def _choose() -> ModuleType:
    wanted = os.environ.get("NNFAST_ISA", "")
    if not wanted:
        return next(_each_build())[1]   # the others are not even loaded
    if wanted not in _LEVELS:
        raise ImportError(f"NNFAST_ISA is {wanted!r}, but must be one of {', '.join(_LEVELS)}")
    if _LEVELS[wanted] > _core.cpu_level():
        raise ImportError(f"NNFAST_ISA is {wanted!r}, but this processor or system does not support it")
    return _load(wanted)


def specialised(build: ModuleType, dtype: np.dtype) -> SimpleNamespace:
    """The kernels of one build for one dtype, chosen here once: a call then costs no search by argument types."""
    ctype = {"float32": "float", "float64": "double"}[dtype.name]
    found = SimpleNamespace()
    for name, kernel in vars(build).items():
        if callable(kernel) and not name.startswith("_"):
            setattr(found, name, kernel[ctype] if hasattr(kernel, "__signatures__") else kernel)
    return found


_build = _choose()

ISA: str = _build.ISA
"""Instruction set of the build in use: baseline, v3 or v4."""

OPENMP: int = _build.OPENMP
"""Version of OpenMP as its year and month, 0 when the build has none."""

PANEL_PADDING: int = _build.PANEL_PADDING
central_difference = _build.central_difference

_BY_DTYPE = {dtype: specialised(_build, dtype) for dtype in (np.dtype(np.float32), np.dtype(np.float64))}


def kernels(dtype: np.dtype) -> SimpleNamespace:
    """The kernels for float32 or float64."""
    return _BY_DTYPE[dtype]


_scratch = threading.local()


def scratch(name: str, size: int, dtype: np.dtype) -> np.ndarray:
    """Memory (size,) for the length of one kernel's call, this thread's own, kept for the next call.

    Fresh memory costs a page fault for every 4 KiB: 60 of the 190 microseconds of a 100 x 784 x 50 product in float64.
    """
    key = name + dtype.char
    buffer: np.ndarray | None = getattr(_scratch, key, None)
    if buffer is None or buffer.size < size:
        buffer = np.empty(size, dtype)
        setattr(_scratch, key, buffer)
    return buffer[:size]


def product_workspace(depth: int, columns: int, dtype: np.dtype) -> np.ndarray:
    """Scratch memory for a product whose second operand is (depth, columns)."""
    return scratch("panels", depth * (columns + PANEL_PADDING) + PANEL_PADDING, dtype)
