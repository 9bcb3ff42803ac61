"""The three matrix products: each build and dtype against plain NumPy in float64.

A tile is 4 or 8 rows by one to three vectors (4 to 48 columns), work goes by 512 of depth and 64 rows, and with fewer
than 8 rows the second operand is read in place (_core_products.pxi): the sizes here lie on both sides of all of these.
"""

import functools

import numpy as np
import pytest
import reference
from reference import POISON, assert_close, rounding, unwritten

from nnfast import _kernels

SIZES = [1, 7, 8, 9, 15, 16, 17, 23, 24, 25, 33, 40, 47, 48, 49, 63, 64, 65]

# Rows, columns and depth of a product. A Latin square: every pair of sizes stands in every pair of these three places.
SQUARE = [(SIZES[i], SIZES[j], SIZES[(i + j) % 16]) for i in range(16) for j in range(16)]
DEEP_TILES = [(1, 1), (7, 50), (9, 49), (65, 31)]
DEEP = [(rows, columns, depth) for depth in (511, 512, 513, 1025) for rows, columns in DEEP_TILES]
TALL = [(rows, columns, depth) for rows in (63, 64, 65, 127, 128, 129, 200) for columns, depth in [(10, 20), (97, 3)]]
WIDE = [(rows, columns, 5) for rows in (1, 5, 7, 8, 20) for columns in (95, 96, 97, 144, 145, 400)]

# A second operand so large that it does not stay in a cache as it is, and is copied.
LARGE = [(rows, columns, depth) for rows in (7, 8, 65) for columns, depth in [(129, 512), (145, 513), (150, 1025)]]

# For threads: fewer tiles than threads, a share of rows or of panels for each, and sums picked up again after 512.
DIVIDED = [(1, 1, 1), (7, 50, 513), (9, 49, 1025), (65, 31, 511), (48, 48, 48), (63, 97, 3), (64, 10, 20), (65, 145, 7),
           (127, 10, 20), (129, 97, 3), (200, 400, 3), (1, 400, 5), (5, 145, 1030), (8, 96, 5), (20, 401, 5),
           (130, 131, 600), (12, 150, 1025)]

PADDING = max(build.PANEL_PADDING for build in _kernels.builds().values())

PRODUCTS = ["affine_forward", "affine_backward_input", "affine_backward_parameters"]


def shapes_of(name, rows, columns, depth):
    """Shapes of the two factors of a product that is (rows, columns), as the kernel takes them."""
    return {
        "affine_forward": ((rows, depth), (depth, columns)),
        "affine_backward_input": ((rows, depth), (columns, depth)),
        "affine_backward_parameters": ((depth, rows), (depth, columns)),
    }[name]


def inputs_of(name, first, second, bias):
    names = {"affine_forward": ("x", "w", "b"), "affine_backward_input": ("dy", "w"),
             "affine_backward_parameters": ("x", "dy")}[name]
    return dict(zip(names, (first, second, bias), strict=False))


def outputs_of(name, expected):
    names = {"affine_forward": ["y"], "affine_backward_input": ["dx"], "affine_backward_parameters": ["dw", "db"]}[name]
    return dict(zip(names, expected if isinstance(expected, tuple) else (expected,), strict=True))


def normal(rng, shape):
    return rng.normal(0, 1, shape)


def whole(rng, shape):
    """Numbers so small that every product and sum is exact in float32: any order of summation gives the same."""
    return rng.integers(-8, 9, shape)


def draw(name, dtype, shape, numbers=normal):
    rng = np.random.default_rng(shape)
    first, second = shapes_of(name, *shape)
    return inputs_of(name, *(numbers(rng, size).astype(dtype) for size in (first, second, shape[1])))


def expected_of(name, inputs):
    with np.errstate(invalid="ignore"):
        return outputs_of(name, getattr(reference, name)(**inputs))


def scratch(depth, columns, dtype, padding=PADDING, num_threads=1):
    """As much as a kernel asks for, and full of NaN."""
    return np.full(num_threads * (depth * columns + padding * (depth + 1)), np.nan, dtype)


def run(kernels, name, inputs, num_threads=1, offset=0):
    """The outputs, by name; the scratch memory starts as NaN and is guarded like an output."""
    first, second = list(inputs.values())[:2]
    if name == "affine_backward_parameters":
        rows, depth, columns = first.shape[1], *second.shape
    else:
        rows, depth = first.shape
        columns = second.shape[name == "affine_forward"]
    outputs = {"dw": (rows, columns), "db": columns} if name == "affine_backward_parameters" else {
        "y" if name == "affine_forward" else "dx": (rows, columns)}
    given = {key: unwritten(shape, first.dtype) for key, shape in outputs.items()}
    given["workspace"] = scratch(depth, columns, first.dtype, num_threads=num_threads)
    returned, results = reference.call(getattr(kernels, name), inputs, given, {"num_threads": num_threads}, offset)
    assert returned is None
    return {key: results[key] for key in outputs}


@functools.cache    # the same for every build
def drawn(name, dtype, shape):
    """Inputs, expected outputs, and tolerances: a rounding for each term of the sum, the bias included, of the absolute
    values, that is where nothing cancels.
    """
    inputs = draw(name, dtype, shape)
    sizes = expected_of(name, {key: np.abs(array) for key, array in inputs.items()})
    return inputs, expected_of(name, inputs), {key: rounding(dtype, shape[2] + 1, size) for key, size in sizes.items()}


def assert_right(outputs, expected, tolerances, what):
    for key, values in expected.items():
        assert_close(outputs[key], values, tolerances[key], f"{what}: {key}")


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_right_for_every_pair_of_sizes(kernels, dtype, name):
    for number, shape in enumerate(SQUARE + DEEP + TALL + WIDE + LARGE):
        inputs, expected, tolerances = drawn(name, dtype, shape)
        assert_right(run(kernels, name, inputs, 1, number), expected, tolerances, f"{name} of {shape}")


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_has_the_same_bits_for_any_number_of_threads(kernels, dtype, name):
    for number, shape in enumerate(DIVIDED):
        inputs, expected, tolerances = drawn(name, dtype, shape)
        one = run(kernels, name, inputs, 1, number)
        assert_right(one, expected, tolerances, f"{name} of {shape}")
        for num_threads in (2, 3, 8):
            several = run(kernels, name, inputs, num_threads, number)
            same = all(several[key].tobytes() == one[key].tobytes() for key in one)
            assert same, f"{name} of {shape}: {num_threads} threads gave other bits than one"


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_of_small_whole_numbers_is_exact(kernels, dtype, name):
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies

    @hypothesis.settings(max_examples=20, deadline=None, derandomize=True, database=None)
    @hypothesis.given(shape=st.tuples(*[st.integers(1, 150)] * 2, st.integers(1, 600)),
                      num_threads=st.sampled_from([1, 1, 1, 2, 3, 8]))
    @hypothesis.example(shape=(9, 50, 1025), num_threads=3)
    @hypothesis.example(shape=(5, 49, 1025), num_threads=1)
    def is_exact(shape, num_threads):
        inputs = draw(name, dtype, shape, whole)
        outputs = run(kernels, name, inputs, num_threads, shape[0])
        for key, values in expected_of(name, inputs).items():
            assert np.array_equal(outputs[key], values)

    is_exact()


@pytest.mark.parametrize("size", [1, 7, 8, 49, 65])
def test_a_product_with_the_identity_changes_no_bit(kernels, dtype, rng, size):
    x, identity = rng.normal(0, 1, (33, size)).astype(dtype), np.eye(size, dtype=dtype)
    zeros = np.zeros(size, dtype)
    assert np.array_equal(run(kernels, "affine_forward", {"x": x, "w": identity, "b": zeros})["y"], x)
    assert np.array_equal(run(kernels, "affine_backward_input", {"dy": x, "w": identity})["dx"], x)
    assert np.array_equal(
        run(kernels, "affine_backward_parameters", {"x": np.eye(33, dtype=dtype), "dy": x})["dw"], x)


# Which elements of an output hang on one element of an input

def changed_by(key, place, output):
    row, column = place
    return {
        ("affine_forward", "x"): np.s_[row, :], ("affine_forward", "w"): np.s_[:, column],
        ("affine_backward_input", "dy"): np.s_[row, :], ("affine_backward_input", "w"): np.s_[:, row],
        ("affine_backward_parameters", "x"): np.s_[column, :],
        ("affine_backward_parameters", "dy"): np.s_[:, column] if output == "dw" else np.s_[column],
    }[key]


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 50, 17), (5, 97, 20), (70, 23, 600)], ids=str)
def test_nan_and_infinity_reach_their_own_row_or_column_only(kernels, dtype, name, shape):
    inputs = draw(name, dtype, shape)
    clean = run(kernels, name, inputs)
    for key in list(inputs)[:2]:
        rows, columns = inputs[key].shape
        for place in {(0, 0), (rows // 2, columns // 2), (rows - 1, columns - 1)}:
            for value in (np.nan, np.inf):
                bad = {**inputs, key: inputs[key].copy()}
                bad[key][place] = value
                expected = expected_of(name, bad)
                for output, values in run(kernels, name, bad).items():
                    touched = np.zeros(values.shape, bool)
                    if (output, key) != ("db", "x"):
                        touched[changed_by((name, key), place, output)] = True
                    assert np.array_equal(values[~touched], clean[output][~touched])
                    assert np.array_equal(values[touched], expected[output][touched], equal_nan=True)


@pytest.mark.parametrize("name", PRODUCTS)
def test_zero_times_infinity_is_nan_and_no_row_is_skipped(kernels, dtype, name):
    first, second = shapes_of(name, 9, 50, 20)
    inputs = inputs_of(name, np.zeros(first, dtype), np.full(second, np.inf, dtype), np.zeros(50, dtype))
    assert np.isnan(next(iter(run(kernels, name, inputs).values()))).all()


@pytest.mark.parametrize("columns", [1, 3, 49, 50, 97])
def test_the_padding_of_the_last_panel_never_shows(kernels, dtype, columns):
    # Its zeros times infinity are NaN: in the padding alone, as every factor within is 1.
    x, w = np.full((9, 600), np.inf, dtype), np.ones((600, columns), dtype)
    inputs = {"x": x, "w": w, "b": np.zeros(columns, dtype)}
    assert (run(kernels, "affine_forward", inputs)["y"] == np.inf).all()
    assert (run(kernels, "affine_backward_input", {"dy": x, "w": w.T.copy()})["dx"] == np.inf).all()
    assert (run(kernels, "affine_backward_parameters", {"x": x.T.copy(), "dy": w})["dw"] == np.inf).all()


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("shape", [(9, 50, 0), (0, 50, 9), (9, 0, 50), (0, 0, 0)], ids=str)
def test_a_product_without_depth_is_the_bias_or_zero_and_one_without_rows_or_columns_is_empty(
    kernels, dtype, name, shape
):
    inputs, expected, tolerances = drawn(name, dtype, shape)
    try:
        outputs = run(kernels, name, inputs)
    except IndexError:
        pytest.skip("a build with bounds checks refuses the address of an empty array's first element")
    assert_right(outputs, expected, tolerances, name)


CONTIGUOUS = {
    "some rows of more": lambda x: np.concatenate([x, x, x])[len(x) : 2 * len(x)],
    "a reshaped vector": lambda x: x.ravel().reshape(x.shape),
    "read-only memory": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "a subclass": lambda x: np.ma.masked_array(x),
    "half a larger axis": lambda x: np.stack([x, x * np.nan])[0],
}


@pytest.mark.parametrize("layout", CONTIGUOUS)
@pytest.mark.parametrize("rows", [1, 9])
def test_x_may_be_any_c_contiguous_array(kernels, dtype, layout, rows):
    inputs, expected, tolerances = drawn("affine_forward", dtype, (rows, 50, 17))
    y, workspace = unwritten((rows, 50), dtype), scratch(17, 50, dtype)
    kernels.affine_forward(CONTIGUOUS[layout](inputs["x"]), inputs["w"], inputs["b"], y, workspace, 1)
    assert_right({"y": y}, expected, tolerances, layout)


def test_a_single_row_or_column_may_have_any_stride(kernels, dtype):
    inputs, expected, tolerances = drawn("affine_forward", dtype, (1, 1, 17))
    y, workspace = unwritten((1, 1), dtype), scratch(17, 1, dtype)
    x = np.repeat(inputs["x"], 5, axis=0)[::5]              # the next row, if there were one, 5 rows further
    w = inputs["w"].T.copy().T                              # one column, in Fortran's order
    assert x.flags.c_contiguous and w.flags.c_contiguous
    kernels.affine_forward(x, w, inputs["b"], y, workspace, 1)
    assert_right({"y": y}, expected, tolerances, "one row, one column")


def test_an_array_that_is_not_contiguous_and_a_read_only_output_are_refused(kernels, dtype):
    x, y = np.ones((4, 4), dtype), np.empty((4, 4), dtype)
    workspace = scratch(4, 4, dtype)
    with pytest.raises(ValueError, match="contiguous"):
        kernels.affine_forward(np.asfortranarray(x), x, x[0], y, workspace, 1)
    y.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        kernels.affine_forward(x, x, x[0], y, workspace, 1)


@pytest.mark.parametrize("columns", [1, 15, 16, 17, 49, 96, 97])
def test_the_workspace_suffices_wherever_it_starts(build, kernels, dtype, columns):
    # Depth 1: the least to spare.
    inputs, expected, tolerances = drawn("affine_forward", dtype, (9, columns, 1))
    for offset in range(64 // dtype.itemsize):      # panels are aligned to cache lines
        y = unwritten((9, columns), dtype)
        workspace, memory = reference.embedded(scratch(1, columns, dtype, build.PANEL_PADDING), offset, POISON)
        kernels.affine_forward(**inputs, y=y, workspace=workspace, num_threads=1)
        assert_right({"y": y}, expected, tolerances, f"workspace at {offset}")
        workspace[...] = POISON
        assert (memory == POISON).all()


@pytest.mark.parametrize("name", ["affine_forward", "affine_backward_parameters"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 17, 9), (100, 784, 50), (65, 513, 200)])
def test_an_input_of_the_other_dtype_gives_the_bits_of_a_converted_one(kernels, dtype, rng, name, shape):
    rows, inputs, outputs = shape
    other = np.dtype({"float32": "float64", "float64": "float32"}[dtype.name])
    x = rng.standard_normal((rows, inputs)).astype(other)
    w, b, dy = (rng.standard_normal(size).astype(dtype) for size in ((inputs, outputs), outputs, (rows, outputs)))
    results = []
    for x_given, kernel in ((x.astype(dtype), name), (x, f"{name}_converting")):
        if name == "affine_forward":
            found = [unwritten((rows, outputs), dtype)]
            arguments = (x_given, w, b, *found, scratch(inputs, outputs, dtype, num_threads=3))
        else:
            found = [unwritten((inputs, outputs), dtype), unwritten(outputs, dtype)]
            arguments = (x_given, dy, *found, scratch(rows, outputs, dtype, num_threads=3))
        for num_threads in (1, 3):
            getattr(kernels, kernel)(*arguments, num_threads)
            results.append([array.tobytes() for array in found])
    assert all(result == results[0] for result in results)
