"""C that a benchmark needs, compiled on the spot."""

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent


def compiler() -> str | None:
    """The C compiler, None where there is none."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def compiled(source: Path, *flags: str) -> ctypes.CDLL:
    """A source as a library, for this very processor."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "library.so"
        subprocess.run([compiler(), "-march=native", *flags, "-shared", "-fPIC", source, "-o", library], check=True)
        return ctypes.CDLL(library)
