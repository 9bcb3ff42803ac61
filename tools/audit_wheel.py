"""Looks into finished wheels for what must not be shipped.

    python tools/audit_wheel.py WHEEL...

A wheel is refused (exit status 1, a line for each reason) if

- a build of the kernels holds an instruction above its level, which older processors would die of,
- a library is in it, or is asked for, that is not expected,
- something in it changes the floating-point mode when it is loaded, for the whole process,
- it is above 3 MB, or holds sources of the compiled part.

The instructions are read with binutils (objdump, readelf; for another processor those of its cross compiler), and only in
wheels for Linux: of others names and sizes are looked at.
"""

import argparse
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

MOST_BYTES = 3_000_000

# Instructions above the level of a build, by its name. On x86-64 an instruction is written behind its encoding, VEX (AVX,
# AVX2, FMA, BMI) or EVEX (AVX-512), if it has one of these.
_NEVER = r"aes(enc|dec|imc|key)\w*|pclmul\w*|sha(1|256)\w*|ad[co]x|rdrand|rdseed|x(begin|end|abort|test)|(VEX )?(tile|tdp)\w+"
_NEITHER_V3_NOR_V4 = (
    r"v(?!cvtps2ph\b)\w+(ph|sh)\b|vpdp\w+|v\w*bf16\w*|vp(ermb|ermi2b|ermt2b|multishiftqb|sh[lr]d\w*|opcnt[bwdq]|compress[bw]|expand[bw])\b"
    r"|vgf2p8\w*|vaes\w*|vpclmul\w*|vpmadd52\w*|vp2intersect\w*"
)
X86_64_LEVELS = {
    "_core": ("x86-64-v2", re.compile(rf"E?VEX|lzcnt|movbe|{_NEVER}")),
    "_core_v3": ("x86-64-v3", re.compile(rf"EVEX|.*%k[0-7]\b|VEX ({_NEITHER_V3_NOR_V4})|{_NEVER}")),
    "_core_v4": ("x86-64-v4", re.compile(rf"E?VEX ({_NEITHER_V3_NOR_V4})|{_NEVER}")),
}
# All wheels for arm64 are for ARMv8.0. SVE has registers of its own; half precision, dot products and atomics came one by one.
AARCH64_LEVELS = {
    "_core": ("ARMv8.0", re.compile(
        r".*\b[zp]\d+(\.[bhsd]|/[mz])|f\w+\s+v\d+\.[48]h, v\d+\.[48]h|([su]{1,2}|bf)(dot|mmla)\b|fml[as]l2?\b|fc(mla|add)\b"
        r"|(cas|swp|ld(add|clr|eor|set|[su](max|min)))(a|l|al)?[bh]?\b"
    )),
}
LEVELS = {"x86-64": X86_64_LEVELS, "aarch64": AARCH64_LEVELS}
_ENCODINGS = {"c4": "VEX ", "c5": "VEX ", "62": "EVEX "}    # the first byte, but for the prefix 67
# GCC's own functions, which ask the processor before they use an atomic instruction of ARMv8.1.
_GUARDED = ("__aarch64_",)
_CHANGES_FLOATING_POINT_MODE = re.compile(r"(VEX v)?ldmxcsr|fldcw|fldenv|f?xrstor|msr\s+fpcr")
_MACHINES = {62: "x86_64", 183: "aarch64"}      # by the number in an ELF file

EXPECTED_FILES = [
    "nnfast/*.py", "nnfast/*.pyi", "nnfast/py.typed", "nnfast/data/*", "nnfast-*.dist-info/*",
    *(f"nnfast/_core{build}.*.{kind}" for build in ("", "_v3", "_v4") for kind in ("so", "pyd")),
    "nnfast.libs/libgomp-*.so*",            # Linux, by auditwheel
    "nnfast/.dylibs/libomp.dylib",          # macOS, by delocate
    "nnfast.libs/vcomp140*.dll", "nnfast.libs/.load-order-*",      # Windows, by delvewheel
]
EXPECTED_LIBRARIES = ["libgomp-*.so*", "libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-*.so.*", "libc.musl-*.so.1"]


def faults(wheel: Path) -> Iterator[str]:
    """Why a wheel must not be shipped, a sentence each."""
    if wheel.stat().st_size > MOST_BYTES:
        yield f"{wheel.stat().st_size:,} bytes, but at most {MOST_BYTES:,} are allowed"
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        for name in names:
            if not any(fnmatch(name, pattern) for pattern in EXPECTED_FILES):
                yield f"{name} is not expected in a wheel"
        if not any(fnmatch(name, "nnfast/_core.*") for name in names):
            yield "there is no compiled module nnfast/_core"
        for name in names:
            path = Path(archive.extract(name, folder))
            if path.read_bytes().startswith(b"\x7fELF"):
                yield from (f"{name}: {fault}" for fault in faults_of_library(path))


def faults_of_library(path: Path) -> Iterator[str]:
    """What is wrong with an ELF file, a sentence each."""
    for library in needed_libraries(path):
        if not any(fnmatch(library, pattern) for pattern in EXPECTED_LIBRARIES):
            yield f"asks for {library}, which is not expected"
    machine, code = instructions(path)
    levels = LEVELS.get(machine)
    if levels is None:
        yield f"is for {machine}, of which no level is known"
        return
    if path.name.partition(".")[0] in levels:
        level, above = levels[path.name.partition(".")[0]]
        for function, lines in code.items():
            for _, text in lines:
                if above.match(text) and not function.startswith(_GUARDED):
                    yield f"{text!r} in {function} is above {level}"
                    break
    for function in sorted(run_at_load(path, code)):
        if any(_CHANGES_FLOATING_POINT_MODE.match(text) for _, text in code[function]):
            yield f"{function} changes the floating-point mode when the library is loaded"


def needed_libraries(path: Path) -> list[str]:
    """The names of the libraries that the loader will look for."""
    return re.findall(r"\(NEEDED\).*\[(.*)\]", _printed("readelf", "-dW", path))


def instructions(path: Path) -> tuple[str, dict[str, list[tuple[int, str]]]]:
    """The processor, and the instructions of each function with their addresses."""
    printed = _printed("objdump", "-d", "--insn-width=15", path)
    machine = re.search(r"file format elf64-(?:little)?(\S+)", printed)
    processor = machine[1] if machine else "an unknown processor"
    code: dict[str, list[tuple[int, str]]] = {}
    lines: list[tuple[int, str]] = []
    for line in printed.splitlines():
        if head := re.fullmatch(r"[0-9a-f]+ <(.*)>:", line):
            lines = code.setdefault(head[1], [])
        elif instruction := re.fullmatch(r"\s+([0-9a-f]+):\t(?:67 )?([0-9a-f]{2})[0-9a-f ]*\t(.*)", line):
            # "notrack jmp", "lock xadd", "{vex} vpdpbusd": what they begin with does not matter here.
            text = re.sub(r"\s+", " ", instruction[3])
            text = re.sub(r"^((\{e?vex\}|notrack|lock|rep\w*|bnd|data16|addr32|cs|ds)\s+)+", "", text)
            encoding = _ENCODINGS.get(instruction[2], "") if processor == "x86-64" else ""
            lines.append((int(instruction[1], 16), encoding + text))
    return processor, code


def run_at_load(path: Path, code: dict[str, list[tuple[int, str]]]) -> set[str]:
    """The functions that the loader runs (DT_INIT and DT_INIT_ARRAY), and those of the library that they call."""
    starts = {lines[0][0]: name for name, lines in code.items() if lines}
    dynamic = _printed("readelf", "-dW", path)
    first = re.search(r"\(INIT_ARRAY\)\s+0x([0-9a-f]+)", dynamic)
    size = re.search(r"\(INIT_ARRAYSZ\)\s+(\d+)", dynamic)
    array = range(int(first[1], 16), int(first[1], 16) + int(size[1])) if first and size else range(0)
    addresses = {int(address, 16) for address in re.findall(r"\(INIT\)\s+0x([0-9a-f]+)", dynamic)}
    relocations = _printed("readelf", "-rW", path)
    for place, address in re.findall(r"^([0-9a-f]+)\s+\S+\s+R_\w+_RELATIVE\s+([0-9a-f]+)", relocations, re.MULTILINE):
        if int(place, 16) in array:
            addresses.add(int(address, 16))
    found: set[str] = set()
    waiting = [starts[address] for address in addresses if address in starts]
    while waiting:
        function = waiting.pop()
        if function not in found:
            found.add(function)
            for _, text in code[function]:
                target = re.match(r"(?:call|jmp|bl?)\s+([0-9a-f]+)", text)
                if target and int(target[1], 16) in starts:
                    waiting.append(starts[int(target[1], 16)])
    return found


def _printed(program: str, *arguments: str | Path) -> str:
    # Binutils know the processor that they are made for; those of a cross compiler have its name in front.
    machine = _MACHINES.get(Path(arguments[-1]).read_bytes()[18], platform.machine())
    if machine != platform.machine():
        program = f"{machine}-linux-gnu-{program}"
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 1 if a wheel has a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    failed = False
    for wheel in parser.parse_args(arguments).wheels:
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB")
        for fault in faults(wheel):
            failed = True
            print(f"  {fault}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
