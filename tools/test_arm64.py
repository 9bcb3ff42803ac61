"""Builds the wheel for arm64 on a Debian machine of another kind, audits it, and runs tests of it in an emulator.

    python tools/test_arm64.py [PYTEST ARGUMENTS...]

Needs the packages gcc-aarch64-linux-gnu and qemu-user-static, and a Python of the version that Debian's arm64 packages
have. An arm64 Python, its C library and NumPy come from Debian and the package index; all lie in build/arm64, and the
machine is not changed. What is emulated is right or wrong as on a processor, but some 10 times as slow: by default the tests
of everything that the compiler made are run, and none of what is Python alone.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import audit_wheel
from make_wheels import NUMPY, ROOT, build_sdist, interpreters, run, version_of

FOLDER = ROOT / "build" / "arm64"
SYSTEM = FOLDER / "system"
HEADERS = SYSTEM / "usr" / "include"
PROGRAMS = {"aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu", "qemu-aarch64-static": "qemu-user-static", "apt-get": "apt"}
PACKAGES = ["python3-minimal", "libpython3-stdlib", "libpython3-dev", "libgomp1", "libstdc++6"]
TESTS = [
    f"tests/test_{name}.py" for name in (
        "builds", "kernels", "vector_maths", "products", "zeros", "guard_pages", "layers", "losses", "optimizers", "network",
        "plan", "fit", "inference", "gradient", "gradient_plan", "gradient_check", "numerical_gradient",
    )
]


def unpack_system() -> None:
    """Debian's arm64 Python and all it needs, in a folder of its own."""
    state = FOLDER / "apt"
    for name in ("lists/partial", "archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    # With a state of its own apt takes nothing for installed, so that all that is needed is downloaded, libc too.
    settings = {
        "APT::Architecture": "arm64", "APT::Architectures": "arm64", "APT::Install-Recommends": "false", "APT::Sandbox::User": "",
        "Dir::State::lists": state / "lists", "Dir::State::status": "/dev/null", "Dir::Cache": state,
    }
    apt_get: list[str | Path] = ["apt-get", "--quiet=2", "--yes", *(f"-o{name}={value}" for name, value in settings.items())]
    run(*apt_get, "update")
    run(*apt_get, "--download-only", "install", *PACKAGES)
    for package in (state / "archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, SYSTEM], check=True)
    # Programs that a test starts by sys.executable run in the emulator, too: Python takes its name from what calls it.
    start = SYSTEM / "usr" / "bin" / "python"
    start.write_text(f'#!/bin/sh\nQEMU_LD_PREFIX={SYSTEM} exec qemu-aarch64-static -0 {start} {start}3 "$@"\n')
    start.chmod(0o755)


def build_wheel(host: Path, sdist: Path) -> Path:
    """The wheel, made by this machine's Python and the cross compiler, with the OpenMP runtime in it."""
    for name in ("raw", "repaired"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    # What arm64's Python was built with says how to build for it; it lies beside no module of that Python.
    [settings] = (SYSTEM / "usr" / "lib").glob("python3.*/_sysconfigdata__aarch64-linux-gnu.py")
    (FOLDER / "settings").mkdir(exist_ok=True)
    shutil.copy(settings, FOLDER / "settings")
    [headers] = HEADERS.glob("python3.*")
    cross = {
        "_PYTHON_HOST_PLATFORM": "linux-aarch64", "_PYTHON_SYSCONFIGDATA_NAME": settings.stem,
        "PYTHONPATH": str(FOLDER / "settings"), "CC": "aarch64-linux-gnu-gcc", "LDSHARED": "aarch64-linux-gnu-gcc -shared",
        "CFLAGS": f"-DNDEBUG -I{headers} -idirafter {HEADERS}", "NNFAST_REQUIRE_OPENMP": "1",
    }
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    builder = FOLDER / "builder"
    run(host, "-m", "venv", "--clear", builder)
    run(builder / "bin" / "python", "-m", "pip", "install", "--quiet", *requires)
    run(builder / "bin" / "python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-cache-dir", "--no-build-isolation",
        "--wheel-dir", FOLDER / "raw", sdist, env=os.environ | cross)
    [wheel] = (FOLDER / "raw").glob("*.whl")
    tools = Path(sys.executable).parent
    libraries = SYSTEM / "usr" / "lib" / "aarch64-linux-gnu"
    run(tools / "auditwheel", "repair", "--ldpaths", libraries, "--wheel-dir", FOLDER / "repaired", wheel,
        env=os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"})
    [repaired] = (FOLDER / "repaired").glob("*.whl")
    return repaired


def install(host: Path, wheel: Path) -> None:
    """The wheel beside NumPy and pytest alone, where arm64's Python looks for packages."""
    packages = SYSTEM / "usr" / "lib" / "python3" / "dist-packages"
    shutil.rmtree(packages, ignore_errors=True)
    platforms = [f"--platform={tag}" for tag in ("manylinux2014_aarch64", "manylinux_2_28_aarch64", wheel.stem.rpartition("-")[2])]
    run(FOLDER / "builder" / "bin" / "python", "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--target", packages,
        *platforms, wheel, NUMPY, "pytest")


def test(arguments: list[str]) -> int:
    """Runs pytest outside the checkout, in the emulator; what it returned."""
    outside = FOLDER / "outside"
    shutil.rmtree(outside, ignore_errors=True)
    shutil.copytree(ROOT / "tests", outside / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", outside)
    command: list[str | Path] = [SYSTEM / "usr" / "bin" / "python", "-X", "faulthandler", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return run(*command, *arguments, cwd=outside, check=False).returncode


def main() -> int:
    """Everything; the exit status is 1 if the wheel or a test has a fault."""
    for program, package in PROGRAMS.items():
        if not shutil.which(program):
            raise SystemExit(f"{program} was not found, which Debian's package {package} has: apt install {' '.join(PROGRAMS.values())}")
    shutil.rmtree(FOLDER, ignore_errors=True)
    unpack_system()
    [python] = (SYSTEM / "usr" / "bin").glob("python3.*[0-9]")
    version = tuple(map(int, python.name.removeprefix("python").split(".")))
    host = next((path for path in interpreters() if version_of(path) == version), None)
    if host is None:
        raise SystemExit(f"{python.name} was not found on this machine, which Debian has for arm64")
    wheel = build_wheel(host, build_sdist(FOLDER / "sdist"))
    if audit_wheel.main([str(wheel)]):
        return 1
    install(host, wheel)
    return test(sys.argv[1:] or TESTS)


if __name__ == "__main__":
    sys.exit(main())
