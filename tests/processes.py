"""Programs that tests run in a process of their own, since they fork, are interrupted or limit themselves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ENDURANCE = int(os.environ.get("NNFAST_ENDURANCE", "1"))
"""How many times as long tests of rare events go on; `make endurance` sets it."""

_SETTINGS = ("OMP_NUM_THREADS", "NNFAST_NUM_THREADS")


def printed(program, *, seconds=120, **environment):
    """What a program prints that may import the modules of this folder; an error if it fails, or does not end."""
    clean = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
    clean["PYTHONPATH"] = str(Path(__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", program], env={**clean, **environment}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=seconds * ENDURANCE)
    except subprocess.TimeoutExpired:
        if hasattr(os, "killpg"):   # its children hold the pipes, too
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        output, errors = process.communicate()
        raise AssertionError(f"no end after {seconds * ENDURANCE} seconds:\n{output}\n{errors}") from None
    assert process.returncode == 0, f"ended with {process.returncode}:\n{output}\n{errors}"
    return output.strip()
