"""What is installed and in use: version, builds, OpenMP, threads and why."""

import platform

import numpy as np

import nnfast
from nnfast import _kernels, _threads


def show_config() -> str:
    """A few lines on this installation, for bug reports and benchmarks; ``nnfast info`` prints them.

    Returns
    -------
    str
        Version, instruction set in use and built, OpenMP, threads and where their number comes from.

    Examples
    --------
    >>> print(show_config().splitlines()[0].split()[0])
    nnfast
    """
    threads, reason = _threads.explain()
    openmp = f"version {_kernels.OPENMP}" if _kernels.OPENMP else "none: one thread"
    facts = {
        "nnfast": nnfast.__version__,
        "instructions": f"{_kernels.ISA} (can run here: {', '.join(_kernels.builds())})",
        "OpenMP": openmp,
        "threads": f"{threads} ({reason})",
        "Python": f"{platform.python_version()}, NumPy {np.__version__}, {platform.system()} {platform.machine()}",
    }
    return "\n".join(f"{name:<13} {fact}" for name, fact in facts.items())
