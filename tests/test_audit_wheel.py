"""The audit of wheels refuses what it says: each fault is built in here, with a compiler, and must be found."""

import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"
if not TOOLS.is_dir():
    pytest.skip("the tools are not beside the tests", allow_module_level=True)
sys.path.insert(0, str(TOOLS))

import audit_wheel

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not (shutil.which("gcc") and shutil.which("objdump")),
    reason="the faults are built for x86-64, with gcc and binutils",
)

HARMLESS = "int answer(int x) { return x + 42; }"
# Whatever the compiler makes of C, these are what they say.
INSTRUCTIONS = {
    "sse4.2": "pcmpistri $0, %xmm0, %xmm1", "popcnt": "popcnt %eax, %ebx", "tzcnt": "rep bsf %eax, %ebx",
    "avx": "vaddps %ymm0, %ymm1, %ymm2", "avx of xmm": "vaddss %xmm0, %xmm1, %xmm2", "fma": "vfmadd231ps %ymm0, %ymm1, %ymm2",
    "bmi": "andn %eax, %ebx, %ecx", "bmi2": "shlx %eax, %ebx, %ecx", "lzcnt": "lzcnt %eax, %ebx", "movbe": "movbe (%rax), %ebx",
    "f16c": "vcvtps2ph $0, %ymm0, %xmm1", "addresses of 32 bits": "vaddps (%eax), %ymm1, %ymm2",
    "avx512": "vaddps %zmm0, %zmm1, %zmm2", "avx512vl": "vpternlogd $1, %xmm0, %xmm1, %xmm2", "mask": "kmovw %k1, %eax",
    "aes": "aesenc %xmm0, %xmm1", "vaes": "vaesenc %ymm0, %ymm1, %ymm2", "vnni": "vpdpbusd %zmm0, %zmm1, %zmm2",
    "vnni of avx": "{vex} vpdpbusd %ymm0, %ymm1, %ymm2", "bf16": "vdpbf16ps %zmm0, %zmm1, %zmm2",
    "fp16": "vaddph %zmm0, %zmm1, %zmm2", "vbmi": "vpermb %zmm0, %zmm1, %zmm2", "amx": "tilezero %tmm0", "adx": "adcx %eax, %ebx",
}
V2 = {"sse4.2", "popcnt", "tzcnt"}
V3 = V2 | {"avx", "avx of xmm", "fma", "bmi", "bmi2", "lzcnt", "movbe", "f16c", "addresses of 32 bits"}
V4 = V3 | {"avx512", "avx512vl", "mask"}


def library(folder, source, *options, name="_core.cpython-311-x86_64-linux-gnu.so"):
    path = folder / name
    (folder / "source.c").write_text(source)
    command = ["gcc", "-shared", "-fPIC", "-O2", "-o", str(path), str(folder / "source.c"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "no such instruction" in done.stderr:
        pytest.skip("the assembler does not know this instruction")
    assert done.returncode == 0, done.stderr
    return path


def wheel(folder, files):
    path = folder / "nnfast-1-cp311-cp311-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, contents in files.items():
            archive.writestr(name, contents)
    return path


@pytest.mark.parametrize(("build", "allowed"), [("_core", V2), ("_core_v3", V3), ("_core_v4", V4)])
@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_an_instruction_above_the_level_of_a_build_is_found(tmp_path, build, allowed, instruction):
    source = f'void kernel(void) {{ __asm__("{INSTRUCTIONS[instruction]}"); }}'
    faults = list(audit_wheel.faults_of_library(library(tmp_path, source, name=f"{build}.so")))
    if instruction in allowed:
        assert faults == []
    else:
        [fault] = faults
        assert "in kernel is above x86-64-v" in fault


def test_libraries_other_than_the_builds_may_use_what_they_ask_for(tmp_path):
    source = 'void kernel(void) { __asm__("vaddps %zmm0, %zmm1, %zmm2"); }'
    assert list(audit_wheel.faults_of_library(library(tmp_path, source, name="libgomp-1.so"))) == []


@pytest.mark.parametrize(("source", "options", "culprit"), [
    (HARMLESS, ["-ffast-math"], "set_fast_math"),
    ("""
     #include <xmmintrin.h>
     static void deep(void) { _mm_setcsr(_mm_getcsr() | 0x8040); }
     static __attribute__((noinline)) void inner(void) { __asm__(""); deep(); }
     __attribute__((constructor)) static void begin(void) { inner(); __asm__(""); }
     """, ["-fno-inline"], "deep"),
])
def test_a_library_that_changes_the_floating_point_mode_when_loaded_is_found(tmp_path, source, options, culprit):
    [fault] = audit_wheel.faults_of_library(library(tmp_path, source, *options))
    assert fault == f"{culprit} changes the floating-point mode when the library is loaded"


def test_a_function_that_changes_the_mode_when_called_is_none_of_its_business(tmp_path):
    source = '#include <xmmintrin.h>\nvoid flush(void) { _mm_setcsr(_mm_getcsr() | 0x8040); }'
    assert list(audit_wheel.faults_of_library(library(tmp_path, source))) == []


def test_a_library_that_is_not_expected_is_found(tmp_path):
    path = library(tmp_path, HARMLESS, "-Wl,--no-as-needed", "-lgomp", "-lm")
    assert list(audit_wheel.faults_of_library(path)) == ["asks for libgomp.so.1, which is not expected"]


def test_a_good_wheel_has_no_fault(tmp_path):
    good = wheel(tmp_path, {
        "nnfast/__init__.py": "", "nnfast/_core.pyi": "", "nnfast/py.typed": "", "nnfast/data/digits.npz": b"PK",
        "nnfast-1.dist-info/METADATA": "", "nnfast-1.dist-info/licenses/LICENSE": "", "nnfast.libs/libgomp-1.so.1": b"",
        "nnfast/_core.cpython-311-x86_64-linux-gnu.so": library(tmp_path, HARMLESS).read_bytes(),
    })
    assert list(audit_wheel.faults(good)) == []
    assert audit_wheel.main([str(good)]) == 0


def test_what_does_not_belong_into_a_wheel_is_found(tmp_path, capsys):
    compiled = library(tmp_path, HARMLESS).read_bytes()
    bad = wheel(tmp_path, {
        "nnfast/_core.cpython-311-x86_64-linux-gnu.so": compiled, "nnfast/_core.pyx": "", "tests/test_fit.py": "",
        "nnfast/_core_avx10.so": compiled, "nnfast.libs/libopenblas-1.so": b"",
    })
    assert list(audit_wheel.faults(bad)) == [
        f"{name} is not expected in a wheel"
        for name in ("nnfast/_core.pyx", "tests/test_fit.py", "nnfast/_core_avx10.so", "nnfast.libs/libopenblas-1.so")
    ]
    assert audit_wheel.main([str(bad)]) == 1
    assert "nnfast/_core.pyx is not expected" in capsys.readouterr().out


def test_a_wheel_without_the_compiled_module_and_one_that_is_too_large_are_found(tmp_path):
    bad = wheel(tmp_path, {"nnfast/__init__.py": "#" * audit_wheel.MOST_BYTES})
    large, missing = audit_wheel.faults(bad)
    assert large.endswith("but at most 3,000,000 are allowed")
    assert missing == "there is no compiled module nnfast/_core"
