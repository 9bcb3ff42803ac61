"""The C functions of a predictor: the bits of `predict`, from any thread, for whoever calls C."""

import copy
import ctypes
import gc
import os
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from processes import ENDURANCE, printed
from test_plan import with_threads

from nnfast import (
    Affine,
    BatchNormalization,
    Dropout,
    Gelu,
    Identity,
    IdentityWithLoss,
    LeakyRelu,
    Network,
    Relu,
    Sigmoid,
    Tanh,
    predictor,
)

# Around groups of 8 rows of weights, vectors, what has room on the stack (1,344 float32, 672 float64) and what is summed
# up at a time (4,096 columns).
SIZES = [
    (1, 1), (4, 64, 64, 2), (7, 15, 16, 17), (9, 31, 32, 33, 1), (8, 7, 9, 8), (65, 63, 64, 65), (130, 5, 3, 129),
    (3, 672, 673, 2), (3, 1344, 1), (3, 1345, 5), (2, 4097, 2), (2, 4095), (1, 5000),
]


def made(sizes, dtype, activation=Tanh, seed=1):
    layers = [layer for i, o in pairwise(sizes) for layer in (Affine(i, o), activation())]
    network = Network(layers[:-1], IdentityWithLoss(), seed=seed, dtype=dtype)
    for layer in network.layers.values():
        if isinstance(layer, Affine):
            layer.b[...] = np.random.default_rng(seed).random(layer.b.size)
    return network


def call(source, x, y=None):
    """What the C function of a predictor gives for a row, in an array that holds something else before."""
    y = np.full(source.network.outputs, 7, source.network.dtype) if y is None else y
    row = ctypes.POINTER(ctypes.c_float if source.network.dtype == np.float32 else ctypes.c_double)
    source.ctypes(x.ctypes.data_as(row), y.ctypes.data_as(row), source.context)
    return y


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("sizes", SIZES)
def test_a_row_has_the_bits_of_predict(rng, dtype, sizes):
    network = made(sizes, dtype.name)
    source = network.predictor()
    for x in rng.standard_normal((3, sizes[0])).astype(dtype):
        expected = network.predict(x[None])[0]
        assert np.ptp(expected) > 0 or sizes[-1] == 1
        np.testing.assert_array_equal(call(source, x), expected)
        np.testing.assert_array_equal(source(x[None])[0], expected)


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("layer", [
    Relu, Sigmoid, Tanh, Gelu, Identity, lambda: LeakyRelu(0.3), lambda: Dropout(0.3), lambda: BatchNormalization(19),
])
def test_every_layer_first_between_and_last(rng, dtype, layer):
    x = rng.standard_normal(19).astype(dtype)
    for layers in (
        [layer(), layer(), Affine(19, 19)], [Affine(19, 19), layer()],
        [Affine(19, 21), Relu(), Affine(21, 19), layer(), layer(), Affine(19, 3)],
    ):
        network = Network(layers, IdentityWithLoss(), seed=1, dtype=dtype.name)
        for array in network.state():
            if array.ndim == 1:
                array[...] = rng.random(array.shape) + 0.5
        np.testing.assert_array_equal(call(network.predictor(), x), network.predict(x[None])[0])


def test_a_network_that_does_nothing_copies(dtype):
    network = Network([Identity(), Affine(2, 2)], IdentityWithLoss(), seed=0, dtype=dtype.name)
    network.layers.pop("Affine1")
    x = np.array([3, 5], dtype)
    np.testing.assert_array_equal(call(network.predictor(), x), x)


def test_a_network_without_inputs_gives_its_biases():
    network = Network([Affine(np.ones((0, 3)), np.arange(3.0))], IdentityWithLoss())
    y = np.full(3, 7.0)
    source = network.predictor()
    source.ctypes(None, y.ctypes.data_as(ctypes.POINTER(ctypes.c_double)), source.context)
    np.testing.assert_array_equal(y, [0, 1, 2])


@pytest.mark.parametrize("threads", [1, 3])
def test_neither_a_batch_size_nor_threads_make_a_difference(rng, monkeypatch, threads):
    with_threads(monkeypatch, threads)
    network = made((20, 300, 300, 5), "float32")
    x = rng.standard_normal((1, 20), np.float32)
    for batch_size in (1, 5, 100):
        np.testing.assert_array_equal(call(network.predictor(batch_size), x), network.predict(x)[0])


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("sizes", [(6, 6), (6, 9, 6), (6, 1400, 6), (5000, 5000), (5000, 9, 5000), (6, 9, 9, 6)])
def test_y_may_lie_over_x(rng, dtype, sizes):
    network = made(sizes, dtype.name)
    source, n = network.predictor(), sizes[0]
    for first, second in ((0, 0), (0, 1), (1, 0), (n - 1, 0), (0, n - 1), (n, 0), (0, n)):
        memory = rng.standard_normal(2 * n).astype(dtype)
        x, y = memory[first : first + n], memory[second : second + n]
        expected = memory.copy()
        expected[second : second + n] = network.predict(x[None])[0]
        call(source, x, y)
        np.testing.assert_array_equal(memory, expected)


def test_nothing_around_x_y_and_the_weights_is_touched(dtype, rng, each_build):
    if sys.platform == "win32":
        pytest.skip("Windows protects pages in another way")
    from test_guard_pages import fenced

    for sizes in SIZES:
        for at_the_end in (True, False):
            def stand(array, at_the_end=at_the_end):
                return fenced(array.astype(dtype), np.nan, at_the_end)[0]

            layers = [layer for i, o in pairwise(sizes) for layer in
                      (Affine(stand(rng.standard_normal((i, o))), stand(rng.random(o))), Gelu())]
            network = Network(layers[:-1], IdentityWithLoss())
            x, y = stand(rng.standard_normal(sizes[0])), stand(np.full(sizes[-1], 7))
            np.testing.assert_array_equal(call(network.predictor(), x, y), network.predict(x[None])[0])


def test_what_the_network_learns_is_seen(rng):
    network = made((6, 5, 2), "float32")
    x, t = rng.standard_normal((40, 6)).astype(np.float32), rng.random((40, 2))
    source = network.predictor()
    before = call(source, x[0])
    network.fit(x, t, epochs=3)
    after = call(source, x[0])
    np.testing.assert_array_equal(after, network.predict(x[:1])[0])
    assert not np.array_equal(after, before)
    network.params["b2"] = [10, -10]
    np.testing.assert_array_equal(call(source, x[0]), network.predict(x[:1])[0])
    assert not np.array_equal(call(source, x[0]), after)


def test_the_callers_floating_point_mode_is_left_alone(dtype):
    source, x = made((3, 9, 1), dtype.name).predictor(), np.ones(3, dtype)
    tiny = np.full(64, np.finfo(dtype).smallest_subnormal)
    call(source, x)
    assert (tiny * dtype.type(3) > 0).all()


@pytest.mark.skipif(sys.platform != "linux", reason="what lies at an address is read from /proc")
def test_the_functions_are_those_of_the_build_in_use(build, each_build, dtype):
    source = made((3, 1), dtype.name).predictor()
    for address in (source.address, *source._scipy_functions.values()):
        for line in Path("/proc/self/maps").read_text().splitlines():
            begin, _, end = line.split()[0].partition("-")
            if int(begin, 16) <= address < int(end, 16):
                assert line.endswith(str(Path(build.__file__).resolve()))
                break
        else:
            pytest.fail("nothing lies there")


# Threads

@pytest.mark.parametrize("sizes", [(16, 200, 200, 3), (16, 1500, 200, 3)])
@pytest.mark.parametrize("blocks", [1, 3])
def test_eight_threads_at_once_get_the_bits_of_one(rng, monkeypatch, dtype, sizes, blocks):
    monkeypatch.setattr(predictor, "_BLOCKS", blocks)
    network = made(sizes, dtype.name)
    source, xs = network.predictor(), rng.standard_normal((8, 16)).astype(dtype)
    expected, start = [network.predict(x[None])[0] for x in xs], threading.Barrier(8)

    def run(x, y):
        start.wait(60)
        return all(np.array_equal(call(source, x), y) for _ in range(200))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, xs, expected))


def test_a_stack_of_128_KiB_is_enough(dtype):  # noqa: N802
    source, x = made((4, 672, 1), dtype.name).predictor(), np.ones(4, dtype)
    expected, found = call(source, x), []
    before = threading.stack_size(131072)   # what musl gives a thread
    try:
        thread = threading.Thread(target=lambda: found.append(call(source, x)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    np.testing.assert_array_equal(found, [expected])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_after_a_fork_a_child_does_not_wait_for_memory_that_its_parents_threads_have():
    program = f"""
import os, sys, threading, warnings
import numpy as np
from nnfast import Affine, Network, predictor
from test_c_functions import call, made

warnings.simplefilter("ignore", DeprecationWarning)      # a fork beside threads is what this is about
predictor._BLOCKS = 2
source = made((4, 2000, 2000, 1), "float32").predictor()
x, ends = np.ones(4, np.float32), threading.Event()
expected = call(source, x)
def run():
    while not ends.is_set():
        call(source, x)
threads = [threading.Thread(target=run) for _ in range(4)]
for thread in threads:
    thread.start()
for generation in range({20 * ENDURANCE}):
    child = os.fork()
    if not child:
        grandchild = os.fork()
        assert np.array_equal(call(source, x), expected)
        if grandchild:
            assert os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(call(source, x), expected)
ends.set()
for thread in threads:
    thread.join()
print("done")
"""
    assert printed(program) == "done"


# Lifetimes

def test_a_function_keeps_its_predictor_and_the_predictor_its_network(rng):
    source = made((6, 1400, 2), "float32").predictor()
    x = rng.standard_normal(6).astype(np.float32)
    row, expected, context = ctypes.POINTER(ctypes.c_float), call(source, x), source.context
    function, reference = source.ctypes, weakref.ref(source)
    del source
    gc.collect()
    assert reference() is not None
    y = np.zeros(2, np.float32)
    function(x.ctypes.data_as(row), y.ctypes.data_as(row), context)
    np.testing.assert_array_equal(y, expected)
    del function
    gc.collect()
    assert reference() is None


def test_a_shallow_copy_of_a_predictor_keeps_the_address_good(rng):
    source = made((6, 1400, 2), "float64").predictor()
    x, expected = rng.random(6), source(np.ones((1, 6)))
    twin = copy.copy(source)
    assert (twin.address, twin.context) == (source.address, source.context)
    expected = call(source, x)
    del source
    gc.collect()
    np.testing.assert_array_equal(call(twin, x), expected)


# Refusals

class Doubled:
    def forward(self, x):
        return 2 * x

    def backward(self, dout):
        return 2 * dout


USES = [
    lambda source: source.address, lambda source: source.context, lambda source: source.ctypes,
    lambda source: source.low_level_callable(),
]


@pytest.mark.parametrize("use", USES)
def test_a_layer_written_in_python_has_no_c_function(use):
    with pytest.raises(TypeError) as caught:
        use(Network([Affine(3, 1), Doubled()], seed=0).predictor())
    assert str(caught.value) == "layer Doubled1 is a Doubled, but only nnfast's own layers can be called from C"


def misaligned(array):
    memory = np.empty(array.nbytes + 1, np.uint8)
    found = memory[1:].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("spoil", [
    np.asfortranarray, misaligned, lambda array: array.astype(array.dtype.newbyteorder()), lambda array: array[:, ::-1],
    lambda array: array.view(type("Kind", (np.ndarray,), {})),
])
def test_arrays_that_compiled_code_cannot_read_in_place_have_no_c_function(use, spoil):
    layers = [Affine(3, 2), Tanh(), Affine(2, 1)]
    network = Network(layers, seed=0, dtype="float64")
    layers[0].W = spoil(np.array([[1.0, 2], [3, 4], [5, 6]]))
    source = network.predictor()
    with pytest.raises(ValueError) as caught:
        use(source)
    assert str(caught.value) == (
        "W1 is not a plain, contiguous, aligned array of the network's dtype, so a C function cannot read it where it is: "
        "put np.array(..., np.float64, order='C') in its place, and make a new predictor")
    layers[0].W = np.array(layers[0].W, np.float64, order="C")
    assert network.predictor().address


def test_statistics_of_another_dtype_have_no_c_function():
    layer = BatchNormalization(3)
    network = Network([Affine(2, 3), layer], seed=0)
    layer.running_mean = layer.running_mean.astype(np.float64)
    with pytest.raises(ValueError, match=r"^a running statistic is not a plain, contiguous"):
        network.predictor().address


def test_a_network_that_did_not_fit_together_says_so():
    network = Network([Affine(2, 3), Affine(3, 1)], seed=0)
    network.layers["Affine2"].W = np.ones((4, 1), np.float32)
    with pytest.raises(ValueError) as caught:
        network.predictor().address
    assert str(caught.value) == (
        "the network could not run in compiled code when this predictor was made: make a new one")


CHOOSE = "choose it in one of your own that calls predictor.address"


@pytest.mark.parametrize(("caller", "error", "sentence"), [
    ("quad", ValueError, "the network has 2 outputs, but quad takes a function of one: " + CHOOSE),
    ("generic_filter", ValueError, "the network has 2 outputs, but generic_filter takes a function of one: " + CHOOSE),
    ("minimize", ValueError, "caller is 'minimize', but must be one of quad, generic_filter, geometric_transform"),
    (None, TypeError, "caller is None, but must be one of quad, generic_filter, geometric_transform"),
])
def test_what_scipy_cannot_call_is_refused(caller, error, sentence):
    with pytest.raises(error) as caught:
        made((3, 2), "float32").predictor().low_level_callable(caller)
    assert str(caught.value) == sentence


def test_a_missing_scipy_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError) as caught:
        made((3, 1), "float32").predictor().low_level_callable()
    assert str(caught.value) == 'a low-level callable needs SciPy: pip install "nnfast[scipy]"'


# SciPy's functions, called as SciPy calls them

DOUBLES, PLACES = ctypes.POINTER(ctypes.c_double), ctypes.POINTER(ctypes.c_ssize_t)
QUAD = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int, DOUBLES, ctypes.c_void_p)
FILTER = ctypes.CFUNCTYPE(ctypes.c_int, DOUBLES, ctypes.c_ssize_t, DOUBLES, ctypes.c_void_p)
TRANSFORM = ctypes.CFUNCTYPE(ctypes.c_int, PLACES, DOUBLES, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("sizes", [(5, 1), (5, 33, 1), (5, 1400, 1)])
def test_functions_for_scipy_take_and_give_doubles(rng, dtype, sizes):
    network = made(sizes, dtype.name)
    source, x = network.predictor(), rng.standard_normal(5)
    quad, generic_filter = (kind(source._scipy_functions[name]) for kind, name in
                            ((QUAD, "quad"), (FILTER, "generic_filter")))
    row, y = x.ctypes.data_as(DOUBLES), np.full(1, 7.0)
    expected = network.predict(x[None])[0]
    assert quad(5, row, source.context) == expected
    assert generic_filter(row, 5, y.ctypes.data_as(DOUBLES), source.context) == 1
    assert y == expected


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("sizes", [(2, 2), (3, 9, 2), (2, 9, 3), (64, 1400, 1)])
def test_a_transform_takes_whole_numbers_and_gives_doubles(rng, dtype, sizes):
    network = made(sizes, dtype.name)
    source, place = network.predictor(), rng.integers(-9, 99, sizes[0]).astype(np.intp)
    transform, y = TRANSFORM(source._scipy_functions["geometric_transform"]), np.full(sizes[-1], 7.0)
    given = place.ctypes.data_as(PLACES), y.ctypes.data_as(DOUBLES), sizes[0], sizes[-1], source.context
    assert transform(*given) == 1
    np.testing.assert_array_equal(y, network.predict(place[None])[0])


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 1), (6, 1), (0, 1), (-1, 1), (2**31 - 1, 1), (5, 2)])
def test_numbers_that_do_not_fit_a_network_are_noticed_and_nothing_read_or_written(dtype, inputs, outputs):
    source = made((5, 3, outputs), dtype.name).predictor()
    functions = source._scipy_functions
    assert np.isnan(QUAD(functions["quad"])(inputs, None, source.context))
    assert FILTER(functions["generic_filter"])(None, inputs, None, source.context) == 0
    transform = TRANSFORM(functions["geometric_transform"])
    assert transform(None, None, inputs, 3 - outputs, source.context) == 0
    assert transform(None, None, 5, 3 - outputs, source.context) == 0
    if inputs != 5:
        assert transform(None, None, inputs, outputs, source.context) == 0


def test_more_axes_than_an_array_has_are_no_place(dtype):
    source = made((65, 2), dtype.name).predictor()
    assert TRANSFORM(source._scipy_functions["geometric_transform"])(None, None, 65, 2, source.context) == 0


@pytest.mark.needs("scipy")
def test_quad_integrates_a_network(dtype):
    from scipy.integrate import quad

    # |x| = relu(x) + relu(-x), whose integral from -1 to 3 is 5.
    network = Network([Affine(np.array([[1, -1]], dtype), np.zeros(2, dtype)), Relu(),
                       Affine(np.ones((2, 1), dtype), np.zeros(1, dtype))], IdentityWithLoss())
    function = network.predictor().low_level_callable()
    rounding = 4 * 4 * np.finfo(dtype).eps      # of x and y, over a length of 4
    found, error = quad(function, -1, 3, points=[0])
    assert abs(found - 5) <= rounding and error < 1e-6
    network.params["b2"] = [1]
    assert abs(quad(function, -1, 3, points=[0])[0] - 9) <= rounding


@pytest.mark.needs("scipy")
@pytest.mark.filterwarnings("ignore:The occurrence of roundoff error")
def test_integrals_of_several_variables_and_with_arguments():
    from scipy.integrate import dblquad, nquad, quad

    source = made((2, 9, 1), "float64").predictor()
    function = source.low_level_callable()

    def python(*x):
        return float(source([x])[0, 0])

    assert quad(function, 0, 2, args=(0.3,))[0] == quad(python, 0, 2, args=(0.3,))[0]
    assert dblquad(function, 0, 1, -1, 2)[0] == dblquad(python, 0, 1, -1, 2)[0]
    assert nquad(function, [[0, 1], [-1, 2]])[0] == nquad(python, [[0, 1], [-1, 2]])[0]
    assert np.isnan(quad(function, 0, 2)[0])


@pytest.mark.needs("scipy")
def test_a_layer_as_a_filter_is_a_correlation(rng, dtype):
    from scipy.ndimage import correlate, generic_filter

    weights, image = rng.standard_normal((3, 5)).astype(dtype), rng.standard_normal((20, 30))
    network = Network([Affine(weights.reshape(15, 1), np.zeros(1, dtype))], IdentityWithLoss())
    function = network.predictor().low_level_callable("generic_filter")
    rounding = 16 * np.finfo(dtype).eps * np.abs(weights).sum() * np.abs(image).max()
    expected = correlate(image, weights.astype(float))
    np.testing.assert_allclose(generic_filter(image, function, (3, 5)), expected, rtol=0, atol=rounding)
    with pytest.raises(RuntimeError):
        generic_filter(image, function, (3, 4))


@pytest.mark.needs("scipy")
def test_a_layer_as_a_transform_is_affine(rng, dtype):
    from scipy.ndimage import affine_transform, geometric_transform

    image, W, b = rng.random((20, 30)), np.array([[0.5, 0.25], [0, 0.75]], dtype), np.array([1.5, 2.25], dtype)
    network = Network([Affine(W, b)], IdentityWithLoss())
    function = network.predictor().low_level_callable("geometric_transform")
    expected = affine_transform(image, W.T, b)      # all of it exact in float32, too
    np.testing.assert_allclose(geometric_transform(image, function), expected, rtol=0, atol=1e-12)
    with pytest.raises(RuntimeError):
        geometric_transform(rng.random((3, 3, 3)), function)


@pytest.mark.needs("scipy")
def test_what_scipy_gets_keeps_the_predictor():
    from scipy.integrate import quad

    source = made((1, 1400, 1), "float64").predictor()
    function, reference = source.low_level_callable(), weakref.ref(source)
    expected = quad(function, 0, 1)[0]
    del source
    gc.collect()
    assert reference() is not None
    assert quad(function, 0, 1)[0] == expected
    del function
    gc.collect()
    assert reference() is None


# Others who call C

@pytest.mark.needs("cffi")
def test_cffi_calls_the_address(rng, dtype):
    import cffi

    network = made((6, 9, 2), dtype.name)
    source, x, y = network.predictor(), rng.standard_normal(6).astype(dtype), np.zeros(2, dtype)
    ffi, T = cffi.FFI(), "float" if dtype == np.float32 else "double"
    function = ffi.cast(f"void (*)(const {T} *, {T} *, void *)", source.address)
    function(ffi.from_buffer(f"{T}[]", x), ffi.from_buffer(f"{T}[]", y), ffi.cast("void *", source.context))
    np.testing.assert_array_equal(y, network.predict(x[None])[0])


@pytest.mark.needs("numba")
def test_numba_calls_the_function_in_loops_and_from_all_its_threads(rng, dtype):
    import numba

    network = made((6, 9, 2), dtype.name)
    source = network.predictor()
    function = source.ctypes

    @numba.njit
    def given(function, context, x, y):
        for row in range(len(x)):
            function(x[row].ctypes, y[row].ctypes, context)

    @numba.njit(parallel=True)
    def at_once(context, x, y):
        for row in numba.prange(len(x)):
            function(x[row].ctypes, y[row].ctypes, context)

    x = rng.standard_normal((1000, 6)).astype(dtype)
    expected = np.concatenate([network.predict(row[None]) for row in x])
    y = np.zeros_like(expected)
    given(function, source.context, x, y)
    np.testing.assert_array_equal(y, expected)
    y[...] = 0
    at_once(source.context, x, y)
    np.testing.assert_array_equal(y, expected)
    other = np.float64 if dtype == np.float32 else np.float32
    with pytest.raises(numba.TypingError):
        given(function, source.context, x.astype(other), y)


@pytest.mark.needs("numba")
def test_numba_walks_a_path_without_python():
    import numba

    # x' = -x by Euler's method: (1 - h) to the power of the number of steps.
    network = Network([Affine(np.array([[-1.0]]), np.zeros(1))], IdentityWithLoss())
    source = network.predictor()
    velocity, context = source.ctypes, source.context

    @numba.njit(nogil=True)
    def end(x, steps, h):
        x = np.array([x])
        v = np.empty(1)
        for _ in range(steps):
            velocity(x.ctypes, v.ctypes, context)
            x += h * v
        return x[0]

    assert end(1.0, 1000, 0.001) == pytest.approx(0.999**1000, rel=1e-12)
