"""Every entry of the compiled modules refuses arrays that do not fit together, whoever calls it.

Compiled code checks no bounds: what is not refused at the entry reads or writes the memory around an array. The engine's
entries, which take descriptions of a network, are in test_engine_entries.py.
"""

import numpy as np
import pytest
import test_kernels
import test_products
from reference import unwritten

REFUSED = (ValueError, TypeError, IndexError)


def arguments(kernels, name, dtype, shape):
    """Arrays that a kernel takes, by name, and its settings."""
    if name in test_products.PRODUCTS:
        inputs = test_products.draw(name, dtype, shape)
        expected = test_products.expected_of(name, inputs)
        _, second = test_products.shapes_of(name, *shape)
        depth, columns = second if name != "affine_backward_input" else second[::-1]
        arrays = {**inputs, **{key: unwritten(values.shape, dtype) for key, values in expected.items()}}
        padding = kernels.PANEL_PADDING
        return {**arrays, "workspace": test_products.scratch(depth, columns, dtype, padding)}, {}
    call = test_kernels.drawn(name, dtype, shape)
    outputs = {key: unwritten(values.shape, call.dtypes.get(key, dtype)) for key, (values, _) in call.expected.items()}
    return {**call.inputs, **outputs, **call.states}, call.settings


def shape_of(name):
    if name in test_products.PRODUCTS:
        return (9, 17, 5)
    return (67,) if test_kernels.CASES[name][1] is test_kernels.VECTORS else (9, 17)


def misaligned(array):
    memory = np.empty(array.nbytes + 1, np.uint8)
    result = memory[1:].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


def longer(array, axis):
    shape = list(array.shape)
    shape[axis] += 1
    return np.zeros(shape, array.dtype)


def spoilt(array):
    """What an argument must not be, by what is wrong with it."""
    for axis in range(array.ndim):
        yield f"shorter along axis {axis}", np.ascontiguousarray(np.delete(array, -1, axis))
        yield f"longer along axis {axis}", longer(array, axis)
    yield "empty", array[:0]
    yield "None", None
    yield "of one dimension more", array[None]
    yield "of no dimension", np.zeros((), array.dtype)
    yield "with gaps", np.repeat(array, 2, axis=-1)[..., ::2]
    yield "backwards", array[::-1]
    yield "of integers", np.zeros(array.shape, np.int16)
    yield "of the other byte order", array.astype(array.dtype.newbyteorder())
    if array.itemsize > 1:
        yield "misaligned", misaligned(array)


@pytest.mark.parametrize("name", [*test_kernels.CASES, *test_products.PRODUCTS])
def test_a_kernel_refuses_an_array_that_does_not_fit_the_others(kernels, dtype, name):
    arrays, settings = arguments(kernels, name, dtype, shape_of(name))
    kernel = getattr(kernels, name)
    kernel(**arrays, **settings, num_threads=1)     # as they are, they are taken
    for key, array in arrays.items():
        for what, wrong in spoilt(array):
            if (key == "workspace" and what.startswith("longer")) or (array.itemsize == 1 and what.endswith("byte order")):
                continue
            if name == "cross_entropy" and key == "y" and what.endswith("along axis 1"):
                continue    # another number of classes
            with pytest.raises(REFUSED):
                kernel(**{**arrays, key: wrong}, **settings, num_threads=1)
                pytest.fail(f"{name} took a {key} that is {what}")


@pytest.mark.parametrize("name", [*test_kernels.CASES, *test_products.PRODUCTS])
@pytest.mark.parametrize("num_threads", [0, -1, -(2**31)])
def test_a_kernel_refuses_less_than_one_thread(kernels, dtype, name, num_threads):
    arrays, settings = arguments(kernels, name, dtype, shape_of(name))
    with pytest.raises(ValueError, match="num_threads"):
        getattr(kernels, name)(**arrays, **settings, num_threads=num_threads)


@pytest.mark.parametrize("name", [name for name in test_kernels.CASES if name != "sigmoid_cross_entropy_forward"])
def test_an_output_that_may_not_be_written_is_refused(kernels, dtype, name):
    arrays, settings = arguments(kernels, name, dtype, shape_of(name))
    call = test_kernels.drawn(name, dtype, shape_of(name))
    for key in (*call.expected, *call.states):
        wrong = arrays[key].copy()
        wrong.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            getattr(kernels, name)(**{**arrays, key: wrong}, **settings, num_threads=1)


@pytest.mark.parametrize("name", ["cross_entropy", "softmax_cross_entropy_forward", "softmax_cross_entropy_backward"])
@pytest.mark.parametrize("label", [17, -1, 2**40, -(2**63)])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_label_that_is_no_class_is_refused(kernels, dtype, name, label, num_threads):
    arrays, settings = arguments(kernels, name, dtype, shape_of(name))
    labels = arrays["labels"].copy()
    labels[4] = label
    with pytest.raises(IndexError, match=r"^labels has an element that is not in 0 to 16$"):
        getattr(kernels, name)(**{**arrays, "labels": labels}, **settings, num_threads=num_threads)


@pytest.mark.parametrize("name", ["cross_entropy", "softmax_cross_entropy_forward", "softmax_cross_entropy_backward"])
def test_a_loss_of_labels_needs_a_class(kernels, dtype, name):
    arrays, settings = arguments(kernels, name, dtype, shape_of(name))
    arrays = {key: array[:, :0].copy() if array.ndim == 2 else array for key, array in arrays.items()}
    with pytest.raises(ValueError, match="no classes"):
        getattr(kernels, name)(**arrays, **settings, num_threads=1)


def test_functions_that_look_through_an_input_refuse_what_does_not_fit(kernels, dtype):
    rows, labels = np.eye(3, dtype=dtype), np.zeros(3, np.int64)
    for call in (kernels.count_correct, kernels.one_hot_to_labels):
        call(rows, labels.copy())
        for wrong in (labels[:2].copy(), np.zeros(4, np.int64), labels[:0]):
            with pytest.raises(ValueError, match=r"^labels has \d elements, but must have 3$"):
                call(rows, wrong)
    assert kernels.count_correct(np.empty((3, 0), dtype), labels) == 0
    with pytest.raises(ValueError, match="not aligned"):
        kernels.first_not_finite(misaligned(np.ones(40, dtype)))


def test_weights_and_panels_must_have_the_same_size(kernels, dtype):
    grain = kernels.PANEL_GRAIN
    w, panels = np.ones((5, 3), dtype), np.zeros(5 * grain, dtype)
    for call in (lambda w, p: kernels.pack(w, p), lambda w, p: kernels.unpack(p, w)):
        call(w.copy(), panels.copy())
        for size in (0, 5 * grain - 1, 5 * grain + 1, 4 * grain, 6 * grain):
            with pytest.raises(ValueError, match=r"panels"):
                call(w.copy(), np.zeros(size, dtype))
        with pytest.raises(ValueError, match="not aligned"):
            call(w.copy(), misaligned(panels))
    apart = np.zeros((5, 3), [("before", np.uint8), ("value", dtype)])["value"]     # a stride of 5 or 9 bytes
    with pytest.raises(ValueError, match="not aligned"):
        kernels.pack(apart, panels)


def test_pairs_that_do_not_fit_are_refused(build):
    pairs, differences = np.zeros((3, 4), np.int32), np.ones((2, 5))
    build.sum_pairs(pairs, differences, np.zeros((3, 5)), 1)
    for shape in ((2, 5), (4, 5), (3, 4), (3, 6)):
        with pytest.raises(ValueError, match=r"^gradients has shape"):
            build.sum_pairs(pairs, differences, np.zeros(shape), 1)
    pairs[1, 2] = 2
    with pytest.raises(IndexError, match=r"^pairs has an element that is not in 0 to 1$"):
        build.sum_pairs(pairs, differences, np.zeros((3, 5)), 2)

    def count(x=(3, 8), first=2, pairs=(4, 5), examples=20, values=20, table=8):
        return build.pair_values(np.ones(x), first, np.empty(pairs, np.int32), np.empty(examples, np.int64),
                                 np.empty(values), np.empty(table, np.int32))

    assert count() == 5     # one value an example, which is the bias's as well
    for wrong in ({"first": 4}, {"first": -1}, {"pairs": (3, 5)}, {"pairs": (5, 5)}, {"examples": 19}, {"values": 19},
                  {"table": 4}, {"table": 7}, {"table": 0}, {"x": (3, 6)}):
        with pytest.raises(ValueError, match=r"pairs|examples|table"):
            count(**wrong)
