"""The optimisers against their formulas in plain NumPy float64, over several steps."""

import inspect
import math

import numpy as np
import pytest
import reference

import nnfast
from nnfast import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop

# Class: settings for the tests (none the default), step in float64, the state's names in the step's order
CASES = {
    SGD: ({"lr": 0.1}, reference.sgd_step, ()),
    Momentum: ({"lr": 0.1, "momentum": 0.75}, reference.momentum_step, ("v",)),
    Nesterov: ({"lr": 0.1, "momentum": 0.75}, reference.nesterov_step, ("v",)),
    AdaGrad: ({"lr": 0.1}, reference.adagrad_step, ("h",)),
    RMSprop: ({"lr": 0.1, "decay_rate": 0.75}, reference.rmsprop_step, ("h",)),
    Adam: ({"lr": 0.1, "beta1": 0.75, "beta2": 0.875, "epsilon": 1e-3}, reference.adam_step, ("m", "v")),
    AdamW: ({"lr": 0.1, "beta1": 0.75, "beta2": 0.875, "weight_decay": 0.5}, reference.adam_step, ("m", "v")),
}
BOOK_DEFAULTS = {
    SGD: {"lr": 0.01},
    Momentum: {"lr": 0.01, "momentum": 0.9},
    Nesterov: {"lr": 0.01, "momentum": 0.9},
    AdaGrad: {"lr": 0.01},
    RMSprop: {"lr": 0.01, "decay_rate": 0.99},
    Adam: {"lr": 0.001, "beta1": 0.9, "beta2": 0.999},
}
SHAPES = {"number": (), "one": (1,), "b": (7,), "W": (8, 9), "wide": (3, 65), "filters": (2, 3, 5, 1), "none": (0, 4),
          "more than a chunk": (2049,)}
STEPS = 6


@pytest.fixture(params=CASES, ids=lambda optimizer: optimizer.__name__)
def optimizer(request):
    return request.param


def arrays(rng, dtype):
    return {key: np.asarray(rng.standard_normal(shape), dtype) for key, shape in SHAPES.items()}


class Expected:
    """The same steps with the reference's formula, from parameters in float64."""

    def __init__(self, optimizer, params):
        self.settings, self.formula, self.names = CASES[optimizer]
        self.params = {key: np.array(array, np.float64) for key, array in params.items()}
        self.state = {key: [0.0] * len(self.names) for key in params}
        self.iteration = 0

    def update(self, grads):
        self.iteration += 1
        more = {"iteration": self.iteration} if self.formula is reference.adam_step else {}
        for key, array in self.params.items():
            self.params[key], *self.state[key] = self.formula(
                grads[key], array, *self.state[key], **self.settings, **more)


@pytest.mark.parametrize("gradients", ["random", "large", "tiny", "zero"])
def test_six_steps_are_the_formula(optimizer, gradients, rng, dtype):
    scale = {"random": 1, "large": 1000, "tiny": 1e-6, "zero": 0}[gradients]
    params = arrays(rng, dtype)
    expected, updater, before = Expected(optimizer, params), optimizer(**CASES[optimizer][0]), dict(params)
    assert all(getattr(updater, name) is None for name in expected.names)
    for _ in range(STEPS):
        grads = {key: (scale * array).astype(dtype) for key, array in arrays(rng, dtype).items()}
        with reference.unchanged(*grads.values()):
            updater.update(params, grads)
        expected.update(grads)
        for key, array in params.items():
            assert array is before[key]     # changed in place
            assert array.dtype == dtype
            # Some ten roundings a step, of a parameter and its change, which is no more than 6 steps' gradients.
            tolerance = reference.rounding(dtype, 10 * STEPS, 8 + STEPS * scale)
            np.testing.assert_allclose(array, expected.params[key], rtol=0, atol=tolerance, err_msg=key)
            for name, values in zip(expected.names, expected.state[key], strict=True):
                state = getattr(updater, name)[key]
                assert state.dtype == dtype and state.shape == array.shape
                # Means and sums: gradients to the first power in v of Momentum and m, squared else.
                largest = np.max(np.abs(grads[key]), initial=0) + 5 * scale
                power = 1 if name == "m" or optimizer in (Momentum, Nesterov) else 2
                np.testing.assert_allclose(state, values, rtol=0, err_msg=f"{name} of {key}",
                                           atol=reference.rounding(dtype, 4 * STEPS, STEPS * largest**power))


def test_iter_counts_updates():
    for optimizer in (Adam(), AdamW()):
        for count in range(4):
            assert optimizer.iter == count
            optimizer.update({"W": np.ones(3), "b": np.ones(2)}, {"W": np.ones(3), "b": np.ones(2)})


@pytest.mark.parametrize("optimizer", BOOK_DEFAULTS, ids=lambda optimizer: optimizer.__name__)
def test_settings_have_the_books_names_order_and_defaults(optimizer):
    parameters = {name: parameter for name, parameter in inspect.signature(optimizer).parameters.items()
                  if parameter.kind is not parameter.KEYWORD_ONLY}
    assert {name: parameter.default for name, parameter in parameters.items()} == BOOK_DEFAULTS[optimizer]
    assert list(parameters) == list(BOOK_DEFAULTS[optimizer])
    made = optimizer(*BOOK_DEFAULTS[optimizer].values())
    assert {name: getattr(made, name) for name in parameters} == BOOK_DEFAULTS[optimizer]


def test_plain_numbers_are_replaced_by_new_ones(optimizer, rng):
    params = {"x": 1.5, "y": np.float64(-2), "W": np.ones(3)}
    expected, updater = Expected(optimizer, params), optimizer(**CASES[optimizer][0])
    for _ in range(STEPS):
        grads = {"x": float(rng.standard_normal()), "y": rng.standard_normal(), "W": rng.standard_normal(3)}
        updater.update(params, grads)
        expected.update(grads)
    for key, value in params.items():
        np.testing.assert_allclose(value, expected.params[key], rtol=0, atol=reference.rounding("f8", 60, 8))
    assert isinstance(params["x"], float) and isinstance(params["y"], float)


@pytest.mark.parametrize("layout", reference.LAYOUTS)
def test_gradients_of_every_layout_are_converted_and_not_written(optimizer, layout, rng, dtype):
    params = {"W": rng.standard_normal((9, 7)).astype(dtype), "b": rng.standard_normal(7).astype(dtype)}
    plain = {key: array.copy() for key, array in params.items()}
    updater, other = optimizer(**CASES[optimizer][0]), optimizer(**CASES[optimizer][0])
    for _ in range(2):
        grads = {key: rng.integers(-3, 4, array.shape).astype(dtype) for key, array in params.items()}
        given = {key: reference.LAYOUTS[layout](array) for key, array in grads.items()}
        with reference.unchanged(*given.values()):
            updater.update(params, given)
        other.update(plain, grads)
    for key, array in params.items():
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, plain[key])


@pytest.mark.parametrize("layout", reference.SAME_DTYPE_LAYOUTS)
def test_parameters_of_every_layout_are_updated_in_place(optimizer, layout, rng, dtype):
    plain = {"W": rng.standard_normal((9, 7)).astype(dtype), "b": rng.standard_normal(7).astype(dtype)}
    params = {key: reference.SAME_DTYPE_LAYOUTS[layout](array) for key, array in plain.items()}
    before = dict(params)
    updater, other = optimizer(**CASES[optimizer][0]), optimizer(**CASES[optimizer][0])
    for _ in range(3):
        grads = {key: rng.standard_normal(array.shape).astype(dtype) for key, array in plain.items()}
        updater.update(params, grads)
        other.update(plain, grads)
    for key, array in params.items():
        assert array is before[key]
        np.testing.assert_array_equal(array, plain[key])


def test_a_view_is_updated_in_the_array_it_is_a_view_of(optimizer, dtype):
    whole = np.ones((4, 6), dtype)
    optimizer().update({"W": whole[:, ::2]}, {"W": np.ones((4, 3))})
    assert (whole[:, ::2] < 1).all()
    assert (whole[:, 1::2] == 1).all()


def test_any_number_of_threads_gives_the_same_bits(optimizer, rng, dtype):
    start, gradient = rng.standard_normal((2, 500, 301)).astype(dtype)     # more than nine threads' worth
    results = []
    try:
        for threads in (1, 2, 3, 8):
            nnfast.set_num_threads(threads)
            params, updater = {"W": start.copy()}, optimizer(**CASES[optimizer][0])
            for _ in range(3):
                updater.update(params, {"W": gradient})
            results.append(params["W"].tobytes())
    finally:
        nnfast.set_num_threads(None)
    assert len(set(results)) == 1


def test_update_reads_the_settings_of_the_moment(rng):
    params, updater = {"W": np.zeros(3)}, SGD(lr=1.0)
    updater.update(params, {"W": np.ones(3)})
    updater.lr = 0.5
    updater.update(params, {"W": np.ones(3)})
    np.testing.assert_array_equal(params["W"], -1.5)


def test_restore_goes_back_to_a_snapshot(optimizer, rng):
    updater, grads = optimizer(), {"W": rng.standard_normal(5)}
    updater.update({"W": np.ones(5)}, grads)
    snapshot = updater.snapshot()
    first, second = {"W": np.ones(5)}, {"W": np.ones(5)}
    updater.update(first, grads)
    updater.restore(snapshot)
    updater.update(second, grads)
    np.testing.assert_array_equal(first["W"], second["W"])


# Answers known without the formulas' code

def test_sgd_on_a_parabola_shrinks_geometrically():
    params, updater = {"x": np.array([1.0])}, SGD(lr=0.25)
    for _ in range(20):
        updater.update(params, {"x": params["x"].copy()})     # of x**2 / 2
    assert params["x"][0] == 0.75**20 or math.isclose(params["x"][0], 0.75**20, rel_tol=40 * 2.0**-53)


def test_momentum_under_a_constant_force_reaches_its_terminal_velocity():
    params, updater = {"x": np.array([0.0])}, Momentum(lr=0.25, momentum=0.5)
    for _ in range(60):
        updater.update(params, {"x": np.array([1.0])})
    np.testing.assert_allclose(updater.v["x"], [-0.25 / (1 - 0.5)], rtol=1e-15)


def test_adagrad_steps_shrink_as_one_over_the_root_of_their_number():
    params, updater = {"x": np.array([0.0])}, AdaGrad(lr=1.0)
    for _ in range(4):
        updater.update(params, {"x": np.array([3.0])})
    # 1 / sqrt(1) + ... + 1 / sqrt(4), less what the 1e-7 takes
    np.testing.assert_allclose(params["x"], [-sum(n**-0.5 for n in range(1, 5))], rtol=1e-7)


def test_the_ten_millionth_is_added_outside_the_root():
    for optimizer, root_of in ((AdaGrad(lr=1.0), 1.0), (RMSprop(lr=1.0, decay_rate=0.75), 0.25)):
        params, gradient = {"x": np.array([0.0])}, 1e-7
        optimizer.update(params, {"x": np.array([gradient])})
        np.testing.assert_allclose(params["x"], [-gradient / (gradient * math.sqrt(root_of) + 1e-7)], rtol=1e-14)


def test_adams_first_step_is_the_learning_rate_in_the_direction_of_the_gradient():
    params = {"x": np.array([0.0, 0.0])}
    Adam(lr=0.125).update(params, {"x": np.array([5.0, -0.5])})
    # sqrt(v) is a thirtieth of the gradient: 1e-7 beside it is a few millionths.
    np.testing.assert_allclose(params["x"], [-0.125, 0.125], rtol=1e-5)


def test_adamw_without_decay_is_adam_and_with_decay_shrinks_every_parameter(rng):
    start, grads = rng.standard_normal(9), {"b": np.zeros(9)}
    params = {"b": start.copy()}
    AdamW(lr=0.5, weight_decay=0.25).update(params, grads)
    np.testing.assert_array_equal(params["b"], start * (1 - 0.125))
    params, same = {"b": start.copy()}, {"b": start.copy()}
    AdamW(weight_decay=0).update(params, {"b": start})
    Adam().update(same, {"b": start})
    np.testing.assert_array_equal(params["b"], same["b"])
