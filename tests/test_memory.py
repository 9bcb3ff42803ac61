"""Results are new arrays for as long as anybody holds them; memory that nobody holds is used again."""

import copy
import pickle

import numpy as np
import pytest

from nnfast import Affine, Network, Relu, Sigmoid, SoftmaxWithLoss, Tanh
from nnfast._memory import Recycler

LARGE = (300, 400)      # above the size that malloc is left to keep
FLOAT64 = np.dtype(np.float64)


def address(array):
    return array.__array_interface__["data"][0]


def test_an_array_is_handed_out_again_once_nobody_holds_it():
    recycler = Recycler()
    array = recycler.empty(LARGE, FLOAT64)
    place = address(array)
    del array
    assert address(recycler.empty(LARGE, FLOAT64)) == place


@pytest.mark.parametrize("hold", [
    lambda array: array, lambda array: array[3:5], lambda array: array.T[5], lambda array: {"W1": array},
    memoryview, lambda array: (lambda: array),
])
def test_an_array_that_somebody_holds_is_not_handed_out_again(hold):
    recycler = Recycler()
    array = recycler.empty(LARGE, FLOAT64)
    place, held = address(array), hold(array)
    del array
    others = [recycler.empty(LARGE, FLOAT64) for _ in range(5)]
    assert len({place, *(address(other) for other in others)}) == 6
    assert held is not None


def test_another_shape_or_dtype_gets_other_memory():
    recycler = Recycler()
    recycler.empty(LARGE, FLOAT64)
    for shape, dtype in [((300, 401), FLOAT64), (LARGE, np.dtype(np.float32)), ((400, 300), FLOAT64), ((2,), FLOAT64)]:
        array = recycler.empty(shape, dtype)
        assert array.shape == shape
        assert array.dtype == dtype


def test_no_more_than_two_arrays_are_kept():
    recycler = Recycler()
    arrays = [recycler.empty(LARGE, FLOAT64) for _ in range(6)]
    places = {address(array) for array in arrays}
    assert len(places) == 6
    assert len(recycler._arrays) == 2


def test_copies_of_a_layer_share_no_memory():
    layer = Affine(np.ones(LARGE), np.ones(400))
    layer.forward(np.ones(LARGE[::-1]))
    layer.backward(np.ones((400, 400)))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin._outputs._arrays == []
        assert not np.may_share_memory(twin.dW, layer.dW)


@pytest.mark.parametrize("layer", [Affine(np.eye(400), np.ones(400)), Relu(), Sigmoid(), Tanh()],
                         ids=lambda layer: type(layer).__name__)
def test_results_that_are_held_stay_what_they_were(layer, rng):
    kept, expected = [], []
    for _ in range(6):
        x, dout = rng.standard_normal((2, *LARGE))
        results = [layer.forward(x), layer.backward(dout), getattr(layer, "dW", None)]
        kept += [array for array in results if array is not None]
        expected += [array.copy() for array in results if array is not None]
    for array, values in zip(kept, expected, strict=True):
        np.testing.assert_array_equal(array, values)


def test_losses_gradients_and_probabilities_that_are_held_stay_what_they_were(rng):
    output, kept, expected = SoftmaxWithLoss(), [], []
    for _ in range(6):
        output.forward(rng.standard_normal(LARGE), rng.integers(0, 400, 300))
        kept += [output.y, output.backward()]
        expected += [array.copy() for array in kept[-2:]]
    for array, values in zip(kept, expected, strict=True):
        np.testing.assert_array_equal(array, values)


def test_gradients_of_many_batches_stay_what_they_were(rng):
    network = Network([Affine(300, 400), Relu(), Affine(400, 10)], seed=0)
    batches = [(rng.standard_normal((50, 300)), rng.integers(0, 10, 50)) for _ in range(5)]
    kept = [network.gradient(x, t) for x, t in batches]
    for gradients, (x, t) in zip(kept, batches, strict=True):
        for key, expected in network.gradient(x, t).items():
            np.testing.assert_array_equal(gradients[key], expected)
