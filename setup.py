"""The compiled part of the build: a module for each instruction set, all from src/nnfast/_core.pyx.

Everything that can be said statically stands in pyproject.toml. Environment variables read here:

NNFAST_REQUIRE_OPENMP=1  a compiler without OpenMP is an error (set when wheels are built), not a warning
NNFAST_DEBUG_CHECKS=1    bounds checks on and hardly optimised, to find a wrong index
NNFAST_SANITIZE=a,b      compiled for these sanitizers (address, undefined of GCC or Clang; thread of Clang, which alone has an
                         OpenMP that ThreadSanitizer understands), which must be preloaded then
NNFAST_NATIVE=1          only the baseline and the best build for the processor at hand: half the time to compile
"""

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("NNFAST_DEBUG_CHECKS") == "1"
SANITIZERS = os.environ.get("NNFAST_SANITIZE", "")
NATIVE = os.environ.get("NNFAST_NATIVE") == "1"
OPENMP_REQUIRED = os.environ.get("NNFAST_REQUIRE_OPENMP") == "1" or os.environ.get("CIBUILDWHEEL") == "1"
# Objects are kept, so what is compiled with other flags has a folder of its own.
BUILD_FOLDER = "build/debug" if DEBUG else f"build/sanitize-{SANITIZERS.replace(',', '-')}" if SANITIZERS else "build"
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": True,
}

# GCC unrolls short loops completely before it vectorises, and then fails; the limit must be below the columns of the
# narrowest tile (_compiler.h): 8 and 4. Clang has no such option and no such trouble.
GCC_PEELING = {"_core_v4": "7", "_core_v3": "3", "_core": "3"}
X86_64_FLAGS = {
    "_core": ["-march=x86-64-v2"],
    "_core_v3": ["-march=x86-64-v3"],
    "_core_v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}
MSVC_X86_64_FLAGS = {"_core": [], "_core_v3": ["/arch:AVX2"], "_core_v4": ["/arch:AVX512"]}


def target_is_x86_64() -> bool:
    """Whether the build is for x86-64, also when the machine that builds is not."""
    target = os.environ.get("ARCHFLAGS") or os.environ.get("VSCMD_ARG_TGT_ARCH") or sysconfig.get_platform()
    if target.endswith("universal2"):   # a Python of macOS that is for both
        target = platform.machine()
    return any(name in target.lower() for name in ("x86_64", "amd64", "x64"))


class BuildKernels(build_ext):
    """Adds the compiler's flags once the compiler is known."""

    def build_extensions(self) -> None:
        """Build all of them side by side."""
        self.parallel = self.parallel or os.cpu_count()
        msvc = self.compiler.compiler_type == "msvc"
        compile_openmp, link_openmp = (["/openmp"], []) if msvc else self.openmp_flags()
        for extension in self.extensions:
            name = extension.name.rpartition(".")[2]
            extension.extra_compile_args += self.msvc_flags(name) if msvc else self.gcc_flags(name)
            extension.extra_compile_args += compile_openmp
            extension.extra_link_args += link_openmp + sanitizer_flags()
        super().build_extensions()

    def gcc_flags(self, name: str) -> list[str]:
        """Flags of GCC and Clang."""
        # Never -ffast-math: linked into a shared library it changes the floating-point mode of the whole process.
        # -fno-math-errno and -fno-trapping-math alone let square roots and choices be vectorised.
        # What is inlined is left to the source (CYTHON_INLINE, "static inline"): a tile that GCC inlined into a larger
        # function of its own accord kept its sums in memory (2,020 instead of 1,310 microseconds a step for
        # 784-256-128-10). -fno-inline would leave out Python's own inline functions, too: 0.3 microseconds a call.
        # -falign-loops: else a change anywhere in the file moves the innermost loops to where they run up to 6% slower
        # (the backward pass of 100 x 784 x 50 in 201 instead of 189 microseconds; 64 gains no more).
        flags = ["-O1" if DEBUG else "-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
                 "-fno-inline-functions", "-falign-loops=32"]
        if DEBUG or SANITIZERS:
            flags += ["-O1", "-g", "-fno-omit-frame-pointer", *sanitizer_flags()]
        if "thread" in SANITIZERS:
            flags.append("-DNNFAST_PATIENCE=INT64_MAX")     # instrumented threads wait long: no team shall shrink for that
        if target_is_x86_64():
            flags += X86_64_FLAGS[name]
        if self.is_gcc():
            flags += ["-fno-inline-small-functions", "-fno-inline-functions-called-once",
                      "--param", f"max-completely-peel-times={GCC_PEELING[name]}"]
            if DEBUG or SANITIZERS:
                flags.append("-fexpensive-optimizations")   # -O1 alone contracts nothing to FMA, in which the builds differ
        elif name == "_core_v4" and self.compiles(["-mllvm", "-enable-misched=false"]):
            # Clang 19's scheduler fetches all factors of a tile before it uses the first, and so keeps 4 of the 24 vectors of
            # sums in memory. The processor finds an order by itself.
            flags += ["-mllvm", "-enable-misched=false"]
        return flags

    def is_gcc(self) -> bool:
        """Whether it is GCC, and not Clang, which takes most of its flags and says that it is GCC, too."""
        return self.compiles([], None, "#if !defined(__GNUC__) || defined(__clang__)\n#error\n#endif")

    def msvc_flags(self, name: str) -> list[str]:
        """Flags of the Microsoft compiler."""
        return ["/Od" if DEBUG else "/O2", "/fp:contract", *(MSVC_X86_64_FLAGS[name] if target_is_x86_64() else [])]

    def openmp_flags(self) -> tuple[list[str], list[str]]:
        """Compiler and linker flags that give OpenMP, or none."""
        flags = (["-fopenmp"], ["-fopenmp"])
        if sys.platform == "darwin":    # Apple's clang: the runtime library is a package of its own
            flags = (["-Xpreprocessor", "-fopenmp"], ["-lomp"])
        if self.compiles(*flags, "#include <omp.h>\nint main(void) { return !omp_get_num_procs(); }"):
            return flags
        message = "the C compiler has no OpenMP: nnfast is built for one thread"
        if OPENMP_REQUIRED:
            raise SystemExit(message)
        warnings.warn(message, stacklevel=1)
        return [], []

    def compiles(
        self, flags: list[str], link_flags: list[str] | None = None, source: str = "int main(void) { return 0; }"
    ) -> bool:
        """Whether the compiler takes these flags without a warning, and links where link flags are given."""
        # With the flags of the environment, which may say where the libraries are.
        command = [*self.compiler.compiler_so, "-Werror", *flags, *shlex.split(os.environ.get("LDFLAGS", ""))]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "try.c")
            path.write_text(source + "\n")
            output = ["-o", str(Path(folder, "try"))]
            command += [str(path), *output] + (["-c"] if link_flags is None else link_flags)
            return subprocess.run(command, capture_output=True, check=False).returncode == 0


def sanitizer_flags() -> list[str]:
    """Flags for the compiler and the linker; what is found ends the process."""
    return [f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all"] if SANITIZERS else []


def native_build() -> str | None:
    """The best build for the processor at hand, None where that cannot be read."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
    except OSError:
        return None
    return "_core_v4" if {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"} <= flags else "_core_v3"


def kernels() -> list[Extension]:
    """The builds of _core.pyx; _core_v3.pyx and _core_v4.pyx only include it, so that each has its own C file."""
    # The debug build is of the baseline alone: bounds checks are the same in all of them.
    names = list(X86_64_FLAGS) if target_is_x86_64() and not DEBUG else ["_core"]
    best = native_build() if NATIVE else None
    if best:
        names = [name for name in names if name in ("_core", best)]
    return cythonize(
        [
            Extension(
                f"nnfast.{name}",
                [f"src/nnfast/{name}.pyx"],
                include_dirs=["src/nnfast"],
                depends=["src/nnfast/_compiler.h", "src/nnfast/_parallel.h", "setup.py"],    # which has the flags
            )
            for name in names
        ],
        build_dir=f"{BUILD_FOLDER}/cython",
        compiler_directives=DIRECTIVES,
        nthreads=(os.cpu_count() or 0) if sys.platform == "linux" else 0,   # elsewhere it would run this file again
        quiet=True,
    )


setup(ext_modules=kernels(), cmdclass={"build_ext": BuildKernels}, options={"build": {"build_base": BUILD_FOLDER}})
