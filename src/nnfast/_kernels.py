"""Picks the compiled build once, and hands out its kernels by dtype; the only importer of `_core*`.

`NNFAST_ISA` (on x86-64 baseline, v3 or v4, on arm64 neon) forces a build, and importing fails when it is not there or
cannot run.
"""

import contextlib
import os
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import numpy as np

from nnfast import _core

_OF_A_DTYPE = {"VECTOR", "PANEL_GRAIN", "ROW_FUNCTION"}     # constants that are dicts from the name of a dtype

_LEVELS = {"v4": 4, "v3": 3, _core.ISA: 0}     # _core: baseline, or neon


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
    """The kernels and constants of one build for one dtype, chosen here once: a call then costs no search by types.

    A kernel that converts an input in passing is there twice: by its name for an input of this dtype, and as
    `<name>_converting` for one of the other.
    """
    ctype, other = ("float", "double") if dtype == np.float32 else ("double", "float")
    found = SimpleNamespace()
    for name, kernel in vars(build).items():
        if not callable(kernel) or name.startswith("_"):
            continue
        signatures = getattr(kernel, "__signatures__", {})
        if f"{ctype}|{ctype}" in signatures:
            setattr(found, name, kernel[ctype, ctype])
            setattr(found, f"{name}_converting", kernel[other, ctype])
        else:
            setattr(found, name, kernel[ctype] if signatures else kernel)
    for name, value in vars(build).items():
        if name.isupper() and not name.startswith("_"):
            setattr(found, name, value[dtype.name] if name in _OF_A_DTYPE else value)
    return found


_build = _choose()

ISA: str = _build.ISA
"""Instruction set of the build in use: baseline, v3, v4 or neon."""

OPENMP: int = _build.OPENMP
"""Version of OpenMP as its year and month, 0 when the build has none."""

PANEL_PADDING: int = _build.PANEL_PADDING
central_difference = _build.central_difference
forks = _build.forks
openmp_threads = _build.openmp_threads
shuffle = _build.shuffle

_BY_DTYPE = {dtype: specialised(_build, dtype) for dtype in (np.dtype(np.float32), np.dtype(np.float64))}


def kernels(dtype: np.dtype) -> SimpleNamespace:
    """The kernels for float32 or float64."""
    return _BY_DTYPE[dtype]
