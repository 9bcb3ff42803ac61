"""The innermost loops of the products, as the compiler made them: their sums must stay in registers.

A compiler that spills them, or that does not vectorise at all, makes a product two to ten times as slow and every
result right, so that no other test would notice.
"""

import functools
import re
import shutil
import subprocess

import pytest

from nnfast import _kernels

# By build: bytes of a vector, and the multiply-adds of the widest tile: its rows times the vectors of a row.
TILES = {"v4": ("zmm", 8 * 3), "v3": ("ymm", 4 * 3)}
FMA = {"float32": re.compile(r"vfn?m\w+ps\b"), "float64": re.compile(r"vfn?m\w+pd\b")}
STORE = re.compile(r"vmov\w+\s+%[xyz]mm\d+,.*\(")


@functools.cache
def functions(path):
    """Instructions (address, text) by name of the function."""
    listing = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", str(path)], capture_output=True, text=True, check=True).stdout
    found, current = {}, []
    for line in listing.splitlines():
        if head := re.fullmatch(r"[0-9a-f]+ <(.*)>:", line):
            current = found.setdefault(head[1], [])
        elif instruction := re.fullmatch(r"\s+([0-9a-f]+):\t(.*)", line):
            current.append((int(instruction[1], 16), instruction[2]))
    return found


def innermost_loops(instructions):
    """What stands between a jump backwards and its target, if no other such jump does."""
    places = {address: place for place, (address, _) in enumerate(instructions)}
    for place, (_, text) in enumerate(instructions):
        jump = re.match(r"j\w+\s+([0-9a-f]+)", text)
        target = places.get(int(jump[1], 16)) if jump else None
        if target is not None and target <= place:
            body = [text for _, text in instructions[target:place]]
            if not any(text.startswith("j") for text in body):
                yield body


def multiply_adds(body, dtype, vector):
    return sum(bool(FMA[dtype].match(text)) and vector in text for text in body)


def stores(body):
    return sum(bool(STORE.match(text)) for text in body)


@pytest.mark.parametrize("isa", TILES)
@pytest.mark.parametrize("dtype", FMA)
@pytest.mark.parametrize("kernel", ["_product_of_all", "_product_of_steps"])
def test_the_widest_tile_keeps_its_sums_in_registers(isa, dtype, kernel):
    build = _kernels.builds().get(isa)
    if build is None or shutil.which("objdump") is None:
        pytest.skip(f"no build {isa} here, or no objdump to look into it")
    vector, wanted = TILES[isa]
    number = list(FMA).index(dtype)     # Cython numbers the types of a fused function
    code = functions(build.__file__)
    # In every copy of the function for some constant arguments, too.
    copies = [name for name in code if re.search(rf"fuse_{number}_{number}__pyx_f_\w*{kernel}\b", name)]
    assert copies, "the function was inlined, or the symbols were stripped"
    for name in copies:
        counts = [multiply_adds(body, dtype, vector) for body in innermost_loops(code[name]) if not stores(body)]
        assert wanted in counts, f"{name}: no loop without stores has {wanted} multiply-adds, but {sorted(counts)}"


@pytest.mark.parametrize("isa", TILES)
@pytest.mark.parametrize("dtype", FMA)
def test_nowhere_else_was_a_tile_inlined_and_spilled(isa, dtype):
    build = _kernels.builds().get(isa)
    if build is None or shutil.which("objdump") is None:
        pytest.skip(f"no build {isa} here, or no objdump to look into it")
    vector, of_a_tile = TILES[isa]
    for name, instructions in functions(build.__file__).items():
        for body in innermost_loops(instructions):
            assert not multiply_adds(body, dtype, vector) >= of_a_tile <= stores(body), name
