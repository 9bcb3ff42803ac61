"""No kernel reads or writes a byte beyond its arrays: they begin, or end, at a page that ends the process when touched.

A vector too many at the end of a row gives right results and is found by nothing else: memory around an array that may
be read is no different from memory that may not, until it is.
"""

import ctypes
import itertools
import mmap
import subprocess
import sys

import numpy as np
import pytest
import reference
import test_kernels
import test_products

if sys.platform == "win32":
    pytest.skip("Windows protects pages in another way", allow_module_level=True)

_NO_ACCESS = 0     # PROT_NONE


def fenced(array, around, at_the_end):
    """As `reference.embedded`: a copy of the array, and the pages that it has for itself between two fences."""
    page = mmap.PAGESIZE
    pages = 2 + max(1, -(-array.nbytes // page))
    memory = mmap.mmap(-1, pages * page)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for fence in (begin, begin + (pages - 1) * page):
        failed = ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(page), _NO_ACCESS)
        assert not failed, f"mprotect failed with errno {ctypes.get_errno()}"
    room = (pages - 2) * page
    first = page + room % array.itemsize if at_the_end else page
    whole = np.frombuffer(memory, np.uint8)[first : first + room // array.itemsize * array.itemsize].view(array.dtype)
    whole[...] = around
    inside = (whole[whole.size - array.size :] if at_the_end else whole[: array.size]).reshape(array.shape)
    inside[...] = array
    return inside, whole


@pytest.fixture(params=[True, False], ids=["end", "begin"])
def fences(request, monkeypatch):
    """Every argument of `reference.call` stands at a fence."""
    monkeypatch.setattr(reference, "embedded", lambda array, offset, around: fenced(array, around, request.param))


@pytest.mark.usefixtures("fences")
@pytest.mark.parametrize("name", test_kernels.CASES)
def test_a_kernel_stays_inside_its_arrays(kernels, dtype, name):
    for shape in test_kernels.CASES[name][1]:
        call = test_kernels.drawn(name, dtype, shape)
        for num_threads in (1, 2):
            test_kernels.assert_right(call, *test_kernels.run(kernels, name, call, num_threads), f"{name} of {shape}")


# Every remainder of rows, columns and depth by the sizes of tiles and vectors.
PRODUCT_SHAPES = [
    *itertools.product([1, 2, 3, 7, 8, 9, 17], [1, 7, 8, 15, 16, 17, 24, 31, 33, 48, 49, 50], [1, 2, 9]),
    (65, 97, 33), (5, 49, 1025), (9, 50, 513),
]


@pytest.mark.usefixtures("fences")
@pytest.mark.parametrize("name", test_products.PRODUCTS)
def test_a_product_stays_inside_its_arrays(kernels, dtype, name):
    for shape in PRODUCT_SHAPES:
        inputs = test_products.draw(name, dtype, shape, test_products.whole)
        for num_threads in (1, 2):
            outputs = test_products.run(kernels, name, inputs, num_threads)
            for key, values in test_products.expected_of(name, inputs).items():
                assert np.array_equal(outputs[key], values), f"{name} of {shape}: {key}"


@pytest.mark.parametrize(("at_the_end", "place"), [(True, 5), (False, -1)])
@pytest.mark.parametrize("access", ["beyond.value", "beyond.value = 0"])
def test_a_step_beyond_the_fence_ends_the_process(at_the_end, place, access):
    program = f"""
import ctypes, sys
sys.path[:0] = {sys.path!r}
import numpy as np
from test_guard_pages import fenced
inside, _ = fenced(np.ones(5, np.float32), np.nan, {at_the_end})
assert inside.sum() == 5
print("inside", flush=True)
beyond = ctypes.c_float.from_address(inside.ctypes.data + {place} * inside.itemsize)
{access}
print("beyond")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "inside\n", done.stderr
    assert done.returncode != 0     # by a signal, or by the sanitizer that caught it
