"""The largest and smallest numbers, infinities and NaN: results are the formula's, or infinite, never wrong and finite.

Activations, losses and optimisers by themselves, and in compiled code: predict, loss, gradient and fit.
"""

import copy
import itertools

import numpy as np
import pytest
import reference
import test_activations
import test_inference
import test_losses
import test_optimizers
import test_plan
from reference import assert_close, rounding

import nnfast
from nnfast import (
    SGD,
    AbsoluteError,
    Adam,
    Affine,
    BatchNormalization,
    IdentityWithLoss,
    LeakyRelu,
    MultiLayerNet,
    Network,
    PoissonLoss,
    QuantileLoss,
    Relu,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    functions,
)

pytestmark = pytest.mark.usefixtures("each_build")


def finite_extremes(dtype):
    limits = np.finfo(dtype)
    positive = [limits.max, limits.max / 2, limits.smallest_normal, limits.smallest_normal / 2,
                limits.smallest_subnormal, 0, 1]
    return np.array([sign * value for value in positive for sign in (1, -1)], dtype)


def extremes(dtype):
    """17 values: repeated, each stands in every lane of a vector, and in what is left over."""
    return np.concatenate([finite_extremes(dtype), [np.inf, -np.inf, np.nan]]).astype(dtype)


def subnormals(dtype):
    """The error where they count as 0, in a fit and in an optimiser."""
    return np.finfo(dtype).smallest_normal


def activation_formulas(case):
    """Forward and backward in float64, with their limits at infinity."""
    _, forward, backward, _, _ = test_activations.CASES[case]
    if case != "Gelu":
        return forward, backward

    def limited(x):     # the largest number is as good as infinity, and times 0 it is 0
        return np.nan_to_num(np.asarray(x, np.float64), nan=np.nan)

    return (lambda x: np.where(np.isposinf(x), np.inf, forward(limited(x)))), lambda x, dy: backward(limited(x), dy)


@pytest.fixture(params=test_activations.CASES)
def activation(request):
    return request.param


# Activations by themselves

@np.errstate(all="ignore")
def test_an_activation_of_extremes_and_its_gradient_are_the_formulas(activation, dtype):
    forward, backward = activation_formulas(activation)
    x, dout = (np.tile(array.ravel(), 3) for array in np.meshgrid(extremes(dtype), extremes(dtype)))
    layer = test_activations.CASES[activation][0]()
    y, expected = layer.forward(x), forward(x)
    assert np.isfinite(y[np.isfinite(x)]).all()
    assert_close(y, expected, rounding(dtype, 6, np.abs(expected)), "forward")
    assert layer.infer(x).tobytes() == y.tobytes()
    dx, expected = layer.backward(dout), backward(x, dout)
    assert_close(dx, expected, rounding(dtype, 6, np.where(np.isfinite(dout), np.abs(dout), 0)), "backward")


@np.errstate(all="ignore")
def test_functions_of_extremes_are_the_formulas(dtype):
    x = np.tile(extremes(dtype), 17)
    for function, formula in ((functions.sigmoid, reference.sigmoid), (functions.relu, reference.relu_forward),
                              (functions.sigmoid_grad, lambda x: reference.sigmoid_backward(x, 1))):
        expected = formula(x)
        assert_close(function(x), expected, rounding(dtype, 6, np.abs(expected)), function.__name__)
    rows = np.array(list(itertools.product(extremes(dtype), repeat=2)))
    for classes in (2, 3, 40):
        scores = np.resize(rows, (len(rows), classes))
        assert_close(functions.softmax(scores), reference.softmax(scores), rounding(dtype, classes + 5, 1), "softmax")


# Losses by themselves, and in the engine

def targets_of(loss, dtype, outputs, rng):
    """Of one row, with the extremes that are allowed."""
    if loss is SoftmaxWithLoss:
        return rng.integers(0, outputs, 1)
    values = np.array([0, 1, 0.5, subnormals(dtype)], dtype) if loss is SigmoidWithLoss else finite_extremes(dtype)
    values = np.abs(values) if loss is PoissonLoss else values
    return rng.choice(values, (1, outputs))


def drawn_scores(loss, dtype, rng):
    """Rows of few and of many outputs, one row at a time; half of them are of finite numbers only."""
    for outputs in (1, 2, 10, 33, 40):
        for count in range(40):
            values = (finite_extremes if count % 2 else extremes)(dtype)
            yield rng.choice(values, (1, outputs)), targets_of(loss, dtype, outputs, rng)


def loss_and_gradient(loss, scores, t):
    """In float64; and how exact they must be."""
    _, losses_of, gradient_of, _ = test_losses.CASES[loss]
    expected, gradient = losses_of(scores, t).mean(), gradient_of(scores, t)
    outputs = scores.shape[1]
    largest = 1 if loss.is_classifier else np.abs(gradient)
    if loss is PoissonLoss:
        terms = reference.size_of_poisson_loss(scores, t)[0]
        largest = np.abs(gradient) * (1 + np.abs(np.where(np.isfinite(scores), scores, 0).astype(np.float64)))
    elif loss.is_classifier:
        terms = np.abs(scores[np.isfinite(scores)].astype(np.float64)).sum() + 1
    else:
        terms = expected
    of_loss = rounding(scores.dtype, outputs + 5, 1) if loss is SoftmaxWithLoss else 0
    of_loss += rounding("f8", outputs + 6, terms) if np.isfinite(expected) else 0
    return expected, of_loss, gradient, rounding(scores.dtype, outputs + 5, np.where(np.isfinite(gradient), largest, 0))


@pytest.mark.parametrize("loss", test_losses.CASES)
@np.errstate(all="ignore")
def test_losses_of_extreme_scores_and_their_gradients_are_the_formulas(loss, dtype, rng):
    for scores, t in drawn_scores(loss, dtype, rng):
        expected, of_loss, gradient, of_gradient = loss_and_gradient(loss, scores, t)
        layer = loss()
        assert_close(layer.forward(scores, t), expected, of_loss, f"loss of {scores} for {t}")
        assert_close(layer.backward(), gradient, of_gradient, f"gradient at {scores} for {t}")


@pytest.mark.parametrize("loss", test_losses.CASES)
@np.errstate(all="ignore")
def test_the_engine_gives_the_formulas_for_extreme_scores(loss, dtype, rng):
    for scores, t in drawn_scores(loss, dtype, rng):
        expected, of_loss, gradient, of_gradient = loss_and_gradient(loss, scores, t)
        # The scores are the biases, which reach them as they are.
        network = Network([Affine(np.zeros((1, scores.size), dtype), scores[0].copy())], loss())
        what = f"of {scores} for {t}"
        assert network.predict([[0]]).tobytes() == (scores + 0).tobytes()
        assert_close(network.loss([[0]], t), expected, of_loss, f"loss {what}")
        if loss in (AbsoluteError, QuantileLoss):   # a residual that counts as 0 is at the kink
            of_gradient = of_gradient + (np.abs(scores - t) <= 2 * subnormals(dtype))
        found = network.gradient([[0]], t)
        assert_close(found["b1"][np.newaxis], gradient, of_gradient + subnormals(dtype), f"gradient {what}")
        try:
            history = network.fit([[0]], t, optimizer=SGD(0.5))
        except FloatingPointError:
            new = scores - 0.5 * gradient
            assert not (np.isfinite(expected) and np.isfinite(new.astype(dtype)).all()
                        and np.isfinite(gradient.astype(dtype)).all()), what
            np.testing.assert_array_equal(network.params["b1"], scores[0])
        else:
            of_subnormals = 2 * float(subnormals(dtype)) * scores.size
            if loss is PoissonLoss:     # its targets are multiplied by scores
                of_subnormals *= 1 + float(np.abs(scores).max())
            assert_close(history.loss[0], expected, of_loss + of_subnormals, f"loss told by fit {what}")
            new = (scores - 0.5 * gradient)[0]
            tolerance = of_gradient[0] + rounding(dtype, 2, np.abs(new)) + subnormals(dtype)
            assert_close(network.params["b1"], new, tolerance, f"bias after a step {what}")


# Activations in the engine

def rows_through(activation, dtype):
    """A network that is one activation, and rows of extremes."""
    layer = test_activations.CASES[activation][0]()
    network = Network([layer, Affine(223, 1)], IdentityWithLoss(), dtype=dtype)
    network.layers.pop("Affine1")
    return network, np.resize(extremes(dtype), (70, 223))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [1, 9, 70])
@np.errstate(all="ignore")
def test_predict_of_extremes_is_the_formula(monkeypatch, activation, dtype, rows, threads):
    test_plan.with_threads(monkeypatch, threads)
    network, x = rows_through(activation, dtype)
    assert network._chain() is not None
    expected = activation_formulas(activation)[0](x[:rows])
    y = network.predict(x[:rows])
    assert np.isfinite(y[np.isfinite(x[:rows])]).all()
    assert_close(y, expected, rounding(dtype, 6, np.abs(expected)), f"{activation} in predict")


def one_by_one(activation, dtype):
    """A value through a weight of 1 and an activation, for each finite extreme."""
    for value in finite_extremes(dtype):
        layer = test_activations.CASES[activation][0]()
        yield value, Network([Affine(np.ones((1, 1), dtype), np.zeros(1, dtype)), layer], IdentityWithLoss())


@np.errstate(all="ignore")
def test_the_engines_gradient_at_extremes_is_the_formula(activation, dtype):
    forward, backward = activation_formulas(activation)
    for value, network in one_by_one(activation, dtype):
        x, t = np.array([[value]]), np.array([[0.25]], dtype)
        counted = np.where(np.abs(x) < subnormals(dtype), 0, x)     # in a gradient, too, subnormal numbers are 0
        y = forward(counted).astype(dtype)
        size = float(np.abs(y).item()) + 1
        expected = backward(counted, reference.difference_backward(y, t, 1))
        tolerance = rounding(dtype, 8, size) + subnormals(dtype)
        found = network.gradient(x, t)
        assert_close(found["b1"], expected[0], tolerance, f"bias at {value}")
        dW = reference.affine_backward_parameters(x, expected)[0]
        if np.abs(expected) <= np.finfo(dtype).max:     # else infinity, or infinity * 0
            assert_close(found["W1"], dW, tolerance * max(1, np.abs(np.float64(value))), f"weight at {value}")
        expected = reference.squared_error(forward(x), t)[0]
        of_loss = rounding("f8", 4, expected) + rounding(dtype, 8, 1) if np.isfinite(expected) else 0
        assert_close(network.loss(x, t), expected, of_loss, f"loss at {value}")


@pytest.mark.parametrize("optimizer", test_plan.OPTIMIZERS)
def test_a_fit_on_extremes_ends_with_finite_weights_or_an_error_both_ways(monkeypatch, activation, dtype, optimizer):
    for value, network in one_by_one(activation, dtype):
        x, t, ways = np.array([[value]]), np.array([[0.25]], dtype), []
        before = copy.deepcopy(network.params)
        for planned in (True, False):
            twin = copy.deepcopy(network)
            try:
                *_, history = test_plan.trained(monkeypatch, lambda twin=twin: twin, x, t, planned=planned, epochs=3,
                                                optimizer=test_plan.OPTIMIZERS[optimizer])
            except FloatingPointError as error:
                ways.append(str(error))
                if " epoch 1" in ways[-1]:
                    np.testing.assert_equal(twin.params, before)
            else:
                ways.append("finite")
                assert np.isfinite(history.loss).all()
            assert all(np.isfinite(array).all() for array in twin.params.values())
        assert ways[0] == ways[1], value


# NaN and infinity in a row

@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dense", [True, False])
def test_predict_carries_nan_and_infinity_only_along_their_own_row(monkeypatch, rng, dtype, threads, dense):
    test_plan.with_threads(monkeypatch, threads)
    for inputs, outputs in ((1, 1), (17, 5), (130, 33)):
        layers = [Affine(inputs, 19), BatchNormalization(19), LeakyRelu(), Affine(19, 65), Tanh(), Affine(65, outputs)]
        network = test_inference.filled(Network(layers, seed=1, dtype=dtype), rng)
        for rows in (1, 3, 15, 16, 63, 65, 1030):
            clean = rng.standard_normal((rows, inputs)).astype(dtype)
            if not dense:
                clean[:, inputs // 3 :] = 0
            expected = network.predict(clean)
            for value, row, column in itertools.product(
                (np.nan, np.inf, -np.inf), {0, rows // 2, rows - 1}, {0, inputs - 1}
            ):
                x = clean.copy()
                x[row, column] = value
                with np.errstate(invalid="ignore"):
                    alone = test_inference.layer_by_layer(network, x[row : row + 1])
                    found = network.predict(x)
                others = np.arange(rows) != row
                assert found[others].tobytes() == expected[others].tobytes()
                np.testing.assert_array_equal(np.isnan(found[row]), np.isnan(alone[0]))
                assert not np.isnan(value) or np.isnan(found[row]).all()


# What a fit refuses, and what it says when it stops

@pytest.mark.parametrize("loss", [IdentityWithLoss, SigmoidWithLoss])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["t", "validation_data[1]"])
@pytest.mark.parametrize("planned", [True, False])
def test_targets_that_are_not_finite_are_refused(monkeypatch, rng, loss, value, where, planned):
    x, t = rng.standard_normal((9, 3)), rng.random((9, 2))
    bad = t.copy()
    bad[7, 1] = value
    network = Network([Affine(3, 2)], loss(), seed=1)
    before = copy.deepcopy(network.params)
    given = {"t": bad} if where == "t" else {"t": t, "validation_data": (x, bad)}
    sentence = (rf"^{where.translate({91: '.', 93: '.'})} contains NaN or infinity \(first at row 7, column 1\)$"
                if loss is IdentityWithLoss else r"^t\[7, 1\] is -?(nan|inf), but must be between 0 and 1$")
    with pytest.raises(ValueError, match=sentence):
        test_plan.trained(monkeypatch, lambda: network, x, planned=planned, **given)
    np.testing.assert_equal(network.params, before)


def classifier():
    return Network([Affine(4, 8), Relu(), Affine(8, 3)], seed=0)


def regression():
    return Network([Affine(4, 8), Relu(), Affine(8, 1)], IdentityWithLoss(), seed=0)


def decaying():
    np.random.seed(0)
    network = MultiLayerNet(4, [5], 3, weight_decay_lambda=0.1)
    network.params["W1"] *= 1e160       # finite, but not their squares
    return network


# Network, factors of x and t, learning rate; what the error must say after "in epoch 1"
STOPS = {
    "learning rate": (classifier, 1, 1, 1e30, r": the learning rate of 1e\+30 is probably too large \("),
    "inputs not scaled": (regression, 1e4, 1, 0.1,
                          r": the learning rate of 0.1 is probably too large for values of x up to \S+e\+04: scale them \("),
    "inputs that overflow": (classifier, 3e38, 1, 0.1, r", step 1: values of x up to \S+e\+38 are too large: scale them \("),
    "targets enormous": (regression, 1, 1e15, 0.1,
                         r": the learning rate of 0.1 is probably too large for values of t up to \S+e\+14: scale them \("),
    "both": (regression, 1e6, 1e15, 0.1,
             r": the learning rate of 0.1 is probably too large for values of x up to \S+ and of t up to \S+: scale them \("),
    "weights that overflow in the penalty": (decaying, 1e-160, 1, 1e-3, ""),     # the scores are some units
}


@pytest.mark.parametrize("cause", STOPS)
@pytest.mark.filterwarnings("ignore:overflow encountered in square")     # of the penalty, layer by layer
def test_a_fit_that_stops_names_the_cause_and_keeps_the_last_finished_epoch(monkeypatch, rng, cause):
    make, x_scale, t_scale, lr, sentence = STOPS[cause]
    x = np.float64(x_scale) * np.clip(rng.standard_normal((20, 4)), -1, 1)
    t = rng.integers(0, 3, 20) if make is not regression else t_scale * rng.uniform(0.99, 1, (20, 1))
    said = []
    for planned in (True, False):
        network, kept = make(), []
        kept.append(copy.deepcopy(network.params))
        with pytest.raises(FloatingPointError) as caught:
            test_plan.trained(monkeypatch, lambda network=network: network, x, t, planned=planned, epochs=50,
                              optimizer=lambda: SGD(lr), batch_size=5,
                              callbacks=[lambda epoch, kept=kept: kept.append(copy.deepcopy(epoch.network.params))])
        said.append(str(caught.value))
        assert caught.match(rf"^(the loss|[Wb]\d) became .* in epoch {len(kept)}\b.*{sentence}")
        np.testing.assert_equal(network.params, kept[-1])
        assert all(np.isfinite(array).all() for array in kept[-1].values())
    if make is not decaying:        # the engine notices the penalty at the end of the epoch
        assert said[0] == said[1]


def test_weights_that_overflow_before_any_update_are_named():
    network = classifier()
    network.params["W2"][...] = 3e38
    with pytest.raises(FloatingPointError, match=r"^the loss became nan in epoch 1, step 1: the weights are probably too"):
        network.fit(np.ones((5, 4)), [0, 1, 2, 0, 1])


# Optimisers

@pytest.mark.parametrize("optimizer", test_optimizers.CASES)
@np.errstate(all="ignore")
def test_an_optimiser_steps_by_its_formula_or_not_at_all_where_a_square_overflows(optimizer, dtype):
    gradient, parameter = (array.ravel().astype(dtype) for array in np.meshgrid(finite_extremes(dtype), [0, 1, -2]))
    settings, formula, names = test_optimizers.CASES[optimizer]
    params, updater = {"W": parameter.copy()}, optimizer(**settings)
    updater.update(params, {"W": gradient})
    # Divided by an infinite root, a step is 0: as if there were no gradient.
    counted = np.where(np.isinf(gradient * gradient) & bool({"h", "m"} & set(names)), 0, gradient)
    more = {"iteration": 1} if formula is reference.adam_step else {}
    expected = formula(counted, parameter, *[0.0] * len(names), **settings, **more)[0]
    tolerance = rounding(dtype, 10, np.abs(expected) + np.abs(parameter)) + subnormals(dtype)
    # A subnormal gradient counts as 0: a step of up to lr times it, divided by 1e-7.
    assert_close(params["W"], expected, tolerance + 1e7 * subnormals(dtype), "parameters")


# Subnormal numbers

@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("optimizer", test_optimizers.CASES)
def test_an_optimisers_states_sink_to_zero_and_leave_the_mode_as_it_was(optimizer, dtype, threads):
    updater, names = optimizer(), test_optimizers.CASES[optimizer][2]
    tiny = np.finfo(dtype).smallest_normal
    params, grads = {"W": np.ones(60_000, dtype)}, {"W": np.zeros(60_000, dtype)}
    with nnfast.num_threads(threads):
        updater.update(params, grads)
        for name in names:
            getattr(updater, name)["W"][...] = tiny / 2
        updater.update(params, {"W": np.full(60_000, tiny / 4)})
    for name in names:
        assert not getattr(updater, name)["W"].any()
    assert (np.full(60_000, tiny) / 2 > 0).all()        # also in the threads of the team:
    with nnfast.num_threads(threads):
        assert (LeakyRelu(0.5).forward(np.full(60_000, -tiny)) < 0).all()


def test_after_100_000_steps_no_average_of_adam_is_subnormal(dtype, rng):
    network = Network([Affine(4, 9), Relu(), Affine(9, 2)], seed=1, dtype=dtype)
    # In float64 0.999**n would be subnormal after 700,000 steps only.
    adam = Adam(1e-4) if dtype == np.float32 else Adam(1e-4, beta2=0.99)
    x, t = rng.random((100, 4)), rng.integers(0, 2, 100)
    network.params["b1"] = np.ones(9)
    network.fit(x, t, batch_size=2, optimizer=adam)
    assert adam.m["W1"].any() and adam.v["W1"].any()
    network.params["b1"] = np.full(9, -100)     # whatever x is, every unit gives 0
    network.fit(x, t, batch_size=2, epochs=2000, optimizer=adam)
    assert adam.iter == 50 + 100_000
    for state in (adam.m, adam.v):
        for key in ("W1", "b1", "W2"):      # without FMA they stop where a tenth of them is subnormal, and counts as 0
            assert ((state[key] == 0) | (np.abs(state[key]) >= subnormals(dtype))).all()
            assert np.abs(state[key]).max() < 1001 * subnormals(dtype)
        assert state["b2"].all()


def test_every_activation_and_loss_is_tried_here():
    assert {type(case[0]()) for case in test_activations.CASES.values()} == set(test_plan.ACTIVATIONS)
    assert set(test_losses.CASES) == set(test_plan.LOSSES)
