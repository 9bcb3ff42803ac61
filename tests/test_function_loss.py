"""A loss given as a Python function: what it is told, what is done with what it returns, and what is refused."""

import copy
import functools
import pickle

import numpy as np
import pytest
import reference
from test_plan import data

import nnfast
from nnfast import (
    SGD,
    Adam,
    Affine,
    BatchNormalization,
    EarlyStopping,
    FunctionLoss,
    IdentityWithLoss,
    Network,
    PoissonLoss,
    Relu,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    gradient_check,
    plot_decision,
    schedules,
)


def squared(scores, t):
    difference = scores - t
    return 0.5 * (difference**2).sum(axis=1), difference


def poisson(scores, t):
    return reference.poisson_loss(scores, t), np.exp(scores) - t


def cross_entropy(scores, t):
    y = reference.softmax(scores)
    return -np.log(y[np.arange(len(t)), t] + 1e-7), y - reference.one_hot(t, scores.shape[1])


def one_answer(scores, t):
    """For a network of one output: everything of one axis."""
    return reference.sigmoid_cross_entropy(scores, t[:, np.newaxis]), reference.sigmoid(scores[:, 0]) - t


# Functions, the layers that they are, and which targets both take
SAME = {
    "squared error": (squared, IdentityWithLoss, None), "counts": (poisson, PoissonLoss, None),
    "classes": (cross_entropy, SoftmaxWithLoss, SoftmaxWithLoss),
}


def made(loss, dtype="float64", outputs=5):
    return Network([BatchNormalization(20), Affine(20, 9), Tanh(), Affine(9, outputs)], loss, seed=1, dtype=dtype)


OPTIONS = {
    "plain": lambda rng: {},
    "weights": lambda rng: {"sample_weight": rng.random(53) * 3},
    "clipped": lambda rng: {"clip_norm": 0.1, "schedule": schedules.Cosine()},
    "all": lambda rng: {"sample_weight": rng.random(53), "clip_value": 0.01, "time_budget": 1e3,
                        "early_stopping": EarlyStopping("loss", patience=2)},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", SAME)
def test_a_function_trains_as_the_layer_that_it_is(rng, dtype, name, options):
    function, layer, kind = SAME[name]
    x, targets = data(rng)
    given = OPTIONS[options](rng)
    found, expected = made(function, dtype), made(layer(), dtype)
    history, other = (one.fit(x, targets[kind], epochs=4, batch_size=10, optimizer=Adam(), **given) for one in (found, expected))
    tolerance = 1e-11 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(history.loss, other.loss, rtol=tolerance)
    for one, two in zip(found.state(), expected.state(), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=tolerance * max(np.abs(two).max(), 1e-3))
    assert not history.accuracy


@pytest.mark.parametrize("name", SAME)
def test_losses_and_gradients_are_the_layers(rng, dtype, name):
    function, layer, kind = SAME[name]
    x, targets = data(rng)
    t = targets[kind]
    network, expected = made(function, dtype), made(layer(), dtype)
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    assert network.loss(x, t) == pytest.approx(expected.loss(x, t), rel=tolerance)
    assert network.predict(x).tobytes() == expected.predict(x).tobytes()
    gradients, others = network.gradient(x, t), expected.gradient(x, t)
    numerical, exact = (one.numerical_gradient(x[:9], t[:9]) for one in (network, expected))
    for key, gradient in others.items():
        np.testing.assert_allclose(gradients[key], gradient, rtol=0, atol=tolerance * (1 + np.abs(gradient).max()))
        np.testing.assert_allclose(numerical[key], exact[key], rtol=0, atol=1e-8)


def test_an_output_alone_may_come_without_its_axis(rng):
    x, t = rng.standard_normal((53, 20)), rng.integers(0, 2, 53)
    found, expected = made(one_answer, outputs=1), made(SigmoidWithLoss(), outputs=1)
    for network in (found, expected):
        network.fit(x, t, epochs=3, batch_size=10, class_weight={1: 3.0})
    for one, two in zip(found.state(), expected.state(), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-12)


def test_classes_have_weights_where_targets_are_labels(rng):
    x, targets = data(rng)
    for t in (targets[SoftmaxWithLoss], targets[SoftmaxWithLoss].astype(np.uint8)):
        found, expected = made(cross_entropy), made(SoftmaxWithLoss())
        for network in (found, expected):
            network.fit(x, t, epochs=2, batch_size=10, class_weight="balanced")
        np.testing.assert_allclose(found.params["W1"], expected.params["W1"], rtol=0, atol=1e-12)
    for t in (targets[None], targets[SoftmaxWithLoss] - 1, targets[SoftmaxWithLoss] + 0.0):
        with pytest.raises(TypeError, match="class_weight needs one class for each row"):
            made(squared).fit(x, t, class_weight={0: 2.0})


class Called:
    def __call__(self, scores, t):
        return squared(scores, t)


class CalledLayer(IdentityWithLoss):
    def __call__(self, *_):
        raise NotImplementedError


def test_what_a_network_makes_an_output_layer_of():
    layer = IdentityWithLoss()
    assert made(layer).last_layer is layer
    assert type(made(None).last_layer) is SoftmaxWithLoss
    for function in (squared, lambda scores, t: squared(scores, t), functools.partial(squared)):
        loss = made(function).last_layer
        assert type(loss) is FunctionLoss
        assert loss.function is function
    for kind in (FunctionLoss, Called):
        with pytest.raises(TypeError, match=rf"^loss is the class {kind.__name__}, but must be an object"):
            made(kind)
    assert type(made(Called()).last_layer) is FunctionLoss
    own = CalledLayer()
    assert made(own).last_layer is own
    with pytest.raises(TypeError, match=r"^loss is 'mse', but must have the methods forward and backward$"):
        made("mse")
    with pytest.raises(TypeError, match=r"^function is 3, but must be a function of scores and targets$"):
        FunctionLoss(3)
    with pytest.raises(TypeError, match=r"^layers holds FunctionLoss, which is an output layer: pass it as loss=$"):
        Network([Affine(2, 2), FunctionLoss(squared)])


@pytest.mark.parametrize(("function", "name"), [
    (squared, "squared"), (lambda scores, t: squared(scores, t), "<lambda>"), (functools.partial(squared), "partial")])
def test_the_summary_says_why_it_trains_layer_by_layer(function, name):
    assert made(function).summary().splitlines()[-1] == f"trains layer by layer: the loss is a Python function, {name}"
    assert repr(made(function)).endswith("], FunctionLoss)")


# What the function is told

def test_the_function_gets_copies_in_the_networks_dtype(rng, dtype):
    x, targets = data(rng)
    before, t = x.copy(), targets[None].astype(np.float16)
    seen = []

    def spoiling(scores, t):
        seen.append((scores.dtype, scores.shape, t.dtype, t.shape))
        result = squared(scores.copy(), t.copy())
        scores[...], t[...] = np.nan, np.nan
        return result

    # The last layer's backward looks at what it gave.
    found, expected = (Network([Affine(20, 5), Tanh()], loss, seed=1, dtype=dtype) for loss in (spoiling, squared))
    for network in (found, expected):
        network.fit(x, t, batch_size=50, shuffle=False)
    assert seen == [(dtype, (50, 5), np.float16, (50, 5)), (dtype, (3, 5), np.float16, (3, 5))]
    np.testing.assert_array_equal(x, before)
    assert np.isfinite(t).all()
    for one, two in zip(found.state(), expected.state(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_targets_of_any_kind_reach_the_function_row_by_row(rng):
    x = rng.standard_normal((30, 20))
    t = np.zeros(30, [("time", float), ("happened", bool)])
    t["time"], t["happened"] = rng.random(30), rng.random(30) < 0.5

    def of_records(scores, t):
        return np.where(t["happened"], (scores[:, 0] - t["time"]) ** 2, 0), np.where(
            t["happened"], 2 * (scores[:, 0] - t["time"]), 0)[:, np.newaxis]

    history = made(of_records, outputs=1).fit(x, t, epochs=20, batch_size=10, optimizer=Adam(), validation_data=(x, t))
    assert history.loss[-1] < history.loss[0]
    assert history.validation_loss[-1] < history.validation_loss[0]
    assert not history.validation_accuracy


def test_targets_may_be_missing(rng):
    x, targets = data(rng)
    t = targets[None].copy()
    t[rng.random(t.shape) < 0.4] = np.nan

    def of_known(scores, t):
        return squared(scores, np.where(np.isnan(t), scores, t))

    network = made(of_known)
    history = network.fit(x, t, epochs=5, batch_size=10)
    assert history.loss[-1] < history.loss[0]
    assert np.isfinite(network.loss(x, t))


# What it returns

def returning(change):
    return lambda scores, t: change(*squared(scores, t))


@pytest.mark.parametrize(("change", "error", "message"), [
    (lambda losses, gradients: losses, TypeError,
     r"^the loss function <lambda> returned ndarray, but must return a pair: the losses of the rows and their gradients$"),
    (lambda losses, gradients: None, TypeError, "returned NoneType, but must return a pair"),
    (lambda losses, gradients: (losses, gradients, gradients), TypeError, "returned 3 values, but must return a pair"),
    (lambda losses, gradients: (losses.mean(), gradients), ValueError,
     r"^what <lambda> returned as losses has shape \(\), but must have shape \(10,\), a loss for each row$"),
    (lambda losses, gradients: (losses[:, None], gradients), ValueError, r"as losses has shape \(10, 1\), but must have shape"),
    (lambda losses, gradients: (losses[:-1], gradients), ValueError, r"as losses has shape \(9,\)"),
    (lambda losses, gradients: (losses, gradients[:, 0]), ValueError,
     r"^what <lambda> returned as gradients has shape \(10,\), but must have shape \(10, 5\), as the scores have$"),
    (lambda losses, gradients: (losses, gradients.T), ValueError, r"as gradients has shape \(5, 10\)"),
    (lambda losses, gradients: (losses + 0j, gradients), TypeError, "as losses holds complex128 values, but must hold real"),
    (lambda losses, gradients: (losses, gradients.astype(object)), TypeError, "as gradients holds object values"),
    (lambda losses, gradients: (losses, [[1], [1, 2]]), ValueError, "as gradients is a list of rows of unequal length"),
    (lambda losses, gradients: (np.where(np.arange(10) == 3, np.nan, losses), gradients), FloatingPointError,
     r"^what <lambda> returned as losses is NaN or infinity in row 3, where the scores are finite \(of size up to [\d.]+\)$"),
    (lambda losses, gradients: (losses, gradients / (np.arange(10) != 7)[:, None]), FloatingPointError,
     "as gradients is NaN or infinity in row 7, where the scores are finite"),
])
@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value)")
def test_what_it_may_not_return_is_one_sentence(rng, change, error, message):
    x, targets = data(rng, rows=10)
    network = made(returning(change))
    before = copy.deepcopy(network.state())
    with pytest.raises(error, match=message) as caught:
        network.fit(x, targets[None])
    assert "\n" not in str(caught.value)
    np.testing.assert_equal(network.state(), before)


def test_what_float32_does_not_hold_is_refused(rng):
    x, targets = data(rng, rows=10)
    huge = returning(lambda losses, gradients: (losses, np.full(gradients.shape, 1e300)))
    with pytest.raises(FloatingPointError, match="as gradients is NaN or infinity in row 0"):
        made(huge, "float32").loss(x, targets[None])
    assert np.isfinite(made(huge, "float64").loss(x, targets[None]))


@pytest.mark.parametrize("kind", [
    lambda losses, gradients: [losses.tolist(), gradients.tolist()],
    lambda losses, gradients: (losses, np.asfortranarray(gradients)),
    lambda losses, gradients: (losses.astype(">f8"), np.repeat(gradients, 2, axis=1)[:, ::2])])
def test_pairs_of_any_layout_are_taken(rng, kind):
    x, targets = data(rng, rows=10)
    found, expected = made(returning(kind)), made(squared)
    assert found.loss(x, targets[None]) == pytest.approx(expected.loss(x, targets[None]), rel=1e-7)
    np.testing.assert_allclose(found.gradient(x, targets[None])["W1"], expected.gradient(x, targets[None])["W1"], rtol=1e-12)


def of_size(scores, t):
    """Finite for all finite scores."""
    return np.abs(scores).sum(axis=1), np.sign(scores)


@pytest.mark.parametrize(("function", "said"), [
    (of_size, r"^the loss became (nan|inf) in epoch \d"),
    (squared, r"^what squared returned as losses is NaN or infinity in row")])
def test_a_network_that_diverges_is_told_of_as_with_any_loss(rng, function, said):
    x, targets = data(rng)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=said):
        made(function).fit(x, targets[None], epochs=50, batch_size=10, optimizer=SGD(1e307 if function is of_size else 1e200))


def test_infinite_scores_may_have_infinite_losses_and_others_may_not():
    loss = FunctionLoss(of_size)
    assert loss.forward(np.array([[np.inf, 1.0], [1.0, 2.0]]), np.zeros(2)) == np.inf
    with pytest.raises(FloatingPointError, match="as losses is NaN or infinity in row 1, where"):
        FunctionLoss(lambda scores, t: (np.full(2, np.inf), scores)).forward([[np.inf, 1.0], [1.0, 2.0]], np.zeros(2))


# When something goes wrong

@pytest.mark.parametrize("error", [KeyError("what"), KeyboardInterrupt()])
def test_an_exception_goes_through_and_leaves_the_last_epochs_network(rng, error):
    x, targets = data(rng, rows=50)
    calls = []

    def failing(scores, t):
        calls.append(len(scores))
        if len(calls) == 18:    # in the fourth epoch of five steps
            raise error
        return squared(scores, t)

    network, expected = made(failing), made(squared)
    adam, other = Adam(), Adam()
    with pytest.raises(type(error)) as caught:
        network.fit(x, targets[None], epochs=9, batch_size=10, optimizer=adam)
    assert caught.value is error
    expected.fit(x, targets[None], epochs=3, batch_size=10, optimizer=other)
    for one, two in zip(network.state(), expected.state(), strict=True):
        assert one.tobytes() == two.tobytes()
    assert adam.iter == other.iter
    calls[:] = [0] * 20
    for each, optimizer in ((network, adam), (expected, other)):    # and it goes on as if nothing had been
        each.fit(x, targets[None], batch_size=10, optimizer=optimizer)
    assert network.params["W1"].tobytes() == expected.params["W1"].tobytes()


def test_before_the_first_pass_nothing_is_kept():
    loss = FunctionLoss(squared)
    assert loss.loss is loss.y is loss.t is loss.row_losses is None
    with pytest.raises(RuntimeError, match=r"FunctionLoss\.backward needs a call of forward first"):
        loss.backward()


@pytest.mark.parametrize("dout", [1, 2.0, -0.5, 0])
def test_backward_is_over_the_batch_and_times_dout(rng, dtype, dout):
    x, t = rng.standard_normal((2, 9, 4)).astype(dtype)
    loss = FunctionLoss(squared)
    assert loss.forward(x, t) == pytest.approx(reference.squared_error(x, t).mean(), rel=1e-6)
    assert loss.backward(dout).dtype == dtype
    reference.assert_rounded(loss.backward(dout), dout * (x.astype(float) - t) / 9, dtype, 4, 1)


@pytest.mark.parametrize(("x", "t", "message"), [
    (np.ones(3), np.ones(3), "^x is 1-D with 3 values"), (np.ones((0, 2)), np.ones((0, 2)), "^x has no rows"),
    (np.ones((3, 2)), np.ones((4, 2)), "^t has 4 rows, but x has 3 rows$"), (np.ones((3, 2)), 1, "^t is a single value")])
def test_scores_and_targets_must_have_the_same_rows(x, t, message):
    with pytest.raises(ValueError, match=message):
        FunctionLoss(squared).forward(x, t)


# The rest of a network

def test_the_check_finds_a_gradient_that_is_not_the_losses(rng):
    x, targets = data(rng, rows=10)
    assert gradient_check(made(squared), x, targets[None]).passed
    report = gradient_check(made(lambda scores, t: (squared(scores, t)[0], 2 * squared(scores, t)[1])), x, targets[None])
    assert not report.passed
    assert report.faulty_layers == ("FunctionLoss",)


def test_a_right_function_is_looked_at_by_itself(rng):
    x, targets = data(rng, rows=10)
    (row,) = [row for row in gradient_check(made(squared), x, targets[None]).rows if row.by_itself]
    assert (row.layer, row.passed) == ("FunctionLoss", True)


def test_there_is_no_accuracy(rng):
    x, targets = data(rng)
    network = made(cross_entropy, outputs=5)
    with pytest.raises(TypeError, match=r"^accuracy needs a classifier, but the loss is FunctionLoss$"):
        network.accuracy(x, targets[SoftmaxWithLoss])
    with pytest.raises(TypeError, match="accuracy needs a classifier"):
        network.fit(x, targets[SoftmaxWithLoss], early_stopping=EarlyStopping("accuracy"))
    history = network.fit(x, targets[SoftmaxWithLoss], validation_data=(x, targets[SoftmaxWithLoss]), metrics={
        "right": lambda t, scores: np.mean(scores.argmax(axis=1) == t)})
    assert 0 <= history.metrics["right"][0] <= 1


@pytest.mark.needs("matplotlib")
def test_no_regions_are_drawn_of_what_is_perhaps_no_classifier():
    network = Network([Affine(2, 2)], squared)
    with pytest.raises(TypeError, match="accuracy needs a classifier, but the loss is FunctionLoss"):
        plot_decision(network, np.ones((3, 2)))


@pytest.mark.parametrize("name", ["net.npz", pytest.param("net.safetensors", marks=pytest.mark.needs("safetensors"))])
def test_a_function_is_not_written_to_a_file(tmp_path, name):
    network = made(squared)
    with pytest.raises(TypeError, match=r"^the loss is a Python function, squared, which no file holds: put another loss "
                                        r"in its place, network\.last_layer = nnfast\.IdentityWithLoss\(\), and that one "
                                        "back after loading$"):
        network.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
    network.last_layer = nnfast.IdentityWithLoss()
    network.save(tmp_path / name)
    again = Network.load(tmp_path / name)
    again.last_layer = FunctionLoss(squared)
    x = np.ones((2, 20))
    assert again.loss(x, np.ones((2, 5))) == made(squared).loss(x, np.ones((2, 5)))


def test_scores_are_exported_and_probabilities_are_not(tmp_path):
    network = Network([Affine(3, 2), Relu()], squared, seed=0)
    network.export_numpy(tmp_path / "net.py")
    for export in (network.export_c, network.export_numpy):
        with pytest.raises(TypeError, match="the loss is a FunctionLoss, but only nnfast's own give probabilities"):
            export(tmp_path / "other", probabilities=True)
    assert [path.name for path in tmp_path.iterdir()] == ["net.py"]


def test_a_network_is_copied_and_pickled_with_its_function(rng):
    x, targets = data(rng)
    network = made(squared)
    network.loss(x, targets[None])
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert twin.last_layer.function is squared
        twin.fit(x, targets[None], batch_size=10)
    network.fit(x, targets[None], batch_size=10)
    assert twin.params["W1"].tobytes() == network.params["W1"].tobytes()
