"""Programs that run on several ranks, started by the launcher of MPI that is beside this Python, or else on the path."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_AS_ANYBODY = {     # Open MPI wants to be asked for more ranks than cores, and by root
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}

_PREAMBLE = """
import json, os, pathlib, signal, sys, time
import numpy as np
from mpi4py import MPI
import nnfast
from nnfast import *
from nnfast import schedules

comm = MPI.COMM_WORLD
folder = pathlib.Path({folder!r})

def tell(value):
    "What this rank has found."
    with (folder / f"{{comm.rank}}.json").open("w") as file:
        json.dump(value, file)

def raised(function, *arguments, **more):
    "What calling it raises, as a list of its kind and words."
    try:
        function(*arguments, **more)
    except BaseException as error:
        return [type(error).__name__, str(error)]
    return []

def bits(network, *others):
    import hashlib
    arrays = [*network.state(), *others]
    state = repr(network.generator.bit_generator.state).encode()
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays) + state).hexdigest()
"""


def command(size, *arguments):
    """To start so many ranks."""
    beside = Path(sys.executable).with_name("mpiexec")
    launcher = str(beside) if beside.exists() else shutil.which("mpiexec")
    if launcher is None:
        pytest.skip("there is no mpiexec")
    return [launcher, "-n", str(size), *map(str, arguments)]


def started(arguments, **environment):
    """A process in a session of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "NNFAST_NUM_THREADS")}
    return subprocess.Popen(
        arguments, env={**kept, **_AS_ANYBODY, "NNFAST_NUM_THREADS": "1", **environment}, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def ended(process, seconds=60):
    """What a process prints; an error if it does not end."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        raise AssertionError(f"no end after {seconds} seconds:\n{output}\n{errors}") from None


def start(size, program, folder):
    """Ranks that run a program, which may use `comm`, `tell`, `raised` and `bits`."""
    path = Path(folder, "program.py")
    path.write_text(_PREAMBLE.format(folder=str(folder)) + program)
    return started(command(size, sys.executable, "-m", "mpi4py", path))    # which ends all when one fails


def told(size, program, folder, seconds=60):
    """What each rank of a program has told; an error if it fails or does not end."""
    process = start(size, program, folder)
    output, errors = ended(process, seconds)
    assert process.returncode == 0, f"ended with {process.returncode}:\n{output}\n{errors}"
    return found(size, folder)


def found(size, folder):
    """What ranks have told that have ended."""
    return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(size)]
