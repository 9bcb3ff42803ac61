"""Losses that are made from a setting, and what every loss of nnfast can do: train, be checked, kept and exported."""

import copy
import itertools
import json
import runpy

import numpy as np
import pytest
import reference
from reference import assert_rounded
from test_plan import OPTIMIZERS, assert_both_ways_agree, numbers, trained, with_threads

from nnfast import (
    SGD,
    AbsoluteError,
    Adam,
    Affine,
    BatchNormalization,
    HuberLoss,
    IdentityWithLoss,
    ModelFormatError,
    Network,
    PoissonLoss,
    QuantileLoss,
    Relu,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    _gradient_plan,
    _kernels,
    _numerical_gradient,
    _plan,
    gradient_check,
    losses,
)

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LABELS, SHARES, COLUMN = "labels", "shares", "a column for five outputs"

# A loss, the targets that it takes, and formulas of scores and targets for each row's loss and its gradient
SMOOTHED = {
    "softmax, smoothed": (
        lambda: SoftmaxWithLoss(0.1), LABELS, lambda x, t: reference.smoothed_cross_entropy(x, t, 0.1),
        lambda x, t: reference.softmax(x) - reference.smoothed(t, x.shape[1], 0.1)),
    "softmax, almost nothing left": (
        lambda: SoftmaxWithLoss(label_smoothing=0.95), LABELS, lambda x, t: reference.smoothed_cross_entropy(x, t, 0.95),
        lambda x, t: reference.softmax(x) - reference.smoothed(t, x.shape[1], 0.95)),
    "sigmoid, smoothed": (
        lambda: SigmoidWithLoss(0.2), SHARES, lambda x, t: reference.sigmoid_cross_entropy(x, t * 0.8 + 0.1),
        lambda x, t: reference.sigmoid(x) - (t * 0.8 + 0.1)),
}
VARIANTS = {
    **SMOOTHED,
    "narrow Huber": (lambda: HuberLoss(0.05), SHARES, lambda x, t: reference.huber_loss(x, t, 0.05),
                     lambda x, t: reference.huber_loss_slope(x, t, 0.05)),
    "wide Huber": (lambda: HuberLoss(delta=100), SHARES, reference.squared_error, lambda x, t: x.astype(float) - t),
    "a low quantile": (lambda: QuantileLoss(0.1), SHARES, lambda x, t: reference.quantile_loss(x, t, 0.1),
                       lambda x, t: reference.quantile_loss_slope(x, t, 0.1)),
    "quantiles of one target": (
        lambda: QuantileLoss(QUANTILES), COLUMN, lambda x, t: reference.quantile_loss(x, t[:, np.newaxis], QUANTILES),
        lambda x, t: reference.quantile_loss_slope(x, t[:, np.newaxis], QUANTILES)),
    "quantiles of five targets": (
        lambda: QuantileLoss(list(QUANTILES)), SHARES, lambda x, t: reference.quantile_loss(x, t, QUANTILES),
        lambda x, t: reference.quantile_loss_slope(x, t, QUANTILES)),
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


def targets(rng, kind, rows, outputs=5):
    if kind == LABELS:
        return rng.integers(0, outputs, rows)
    return rng.random(rows) if kind == COLUMN else rng.random((rows, outputs))


def drawn(rng, variant, rows=53, inputs=20):
    return rng.standard_normal((rows, inputs)), targets(rng, VARIANTS[variant][1], rows)


def network_of(variant, dtype="float64"):
    return Network([Affine(20, 18), Tanh(), Affine(18, 5)], VARIANTS[variant][0](), seed=1, dtype=dtype)


# The formulas

@pytest.mark.parametrize("rows", [1, 7, 8, 9, 15, 16, 17, 63, 64, 65])
def test_losses_and_gradients_are_the_formulas(rng, dtype, variant, rows):
    make, kind, losses_of, gradient_of = VARIANTS[variant]
    x, t = (2 * rng.standard_normal((rows, 5))).astype(dtype), targets(rng, kind, rows)
    if kind != LABELS:
        t = t.astype(dtype)
    output, expected = make(), losses_of(x, t)
    # Smoothed targets are rounded to the dtype; of softmax the largest probability is.
    tolerance = reference.rounding("f8", 20 + rows, expected.max() + 1)
    tolerance += reference.rounding(dtype, 9, 3 if variant in SMOOTHED else 0)
    assert output.forward(x, t) == pytest.approx(expected.mean(), rel=0, abs=tolerance)
    np.testing.assert_allclose(output.row_losses, expected, rtol=0, atol=tolerance)
    assert_rounded(output.backward(), gradient_of(x, t) / rows, dtype, 10, (1 + np.abs(x).max()) / rows)


@pytest.mark.parametrize("classes", [1, 2, 31, 32, 33, 65])
def test_smoothed_labels_of_any_number_of_classes(each_build, monkeypatch, rng, dtype, classes):
    x, t = rng.standard_normal((23, 7)), rng.integers(0, classes, 23)
    make = lambda: Network([Affine(7, classes)], SoftmaxWithLoss(0.3), seed=1, dtype=dtype)
    found = assert_both_ways_agree(monkeypatch, make, x, t, 1e-12 if dtype == np.float64 else 1e-5, batch_size=23, epochs=1)
    scores = make().predict(x)
    expected = reference.smoothed_cross_entropy(scores, t, 0.3).mean()
    assert found["loss"][0] == pytest.approx(expected, abs=reference.rounding(dtype, classes + 9, 1 + expected))
    assert found["accuracy"][0] == (scores.argmax(axis=1) == t).mean()


def test_without_smoothing_the_losses_are_what_they_were(rng, dtype):
    x, labels, shares = (rng.standard_normal((40, 12)).astype(dtype), rng.integers(0, 12, 40), rng.random((40, 12)).astype(dtype))
    kernels, y, row_losses = _kernels.kernels(dtype), np.empty((40, 12), dtype), np.empty(40)
    total = kernels.softmax_cross_entropy_forward(x, labels, y, row_losses, 1)
    output = SoftmaxWithLoss()
    assert output.forward(x, labels) == total / 40
    assert output.y.tobytes() == y.tobytes()
    prepared = SigmoidWithLoss().prepare(shares, 40, 12, dtype)
    assert prepared is shares


def test_one_half_is_no_answer_before_and_after_smoothing(rng):
    x, t = rng.standard_normal((200, 1)), rng.choice([0, 0.5, np.nextafter(0.5, 1), 1], (200, 1))
    plain, smoothed = (Network([Affine(np.ones((1, 1)), np.zeros(1))], SigmoidWithLoss(share)) for share in (0, 0.3))
    assert smoothed.accuracy(x, np.round(t)) == plain.accuracy(x, np.round(t))
    halves = t == 0.5
    assert smoothed.accuracy(x[halves[:, 0]], t[halves[:, 0]]) == plain.accuracy(x[halves[:, 0]], t[halves[:, 0]])


def test_classes_have_weights_where_labels_are_smoothed(rng, dtype):
    x, t = rng.standard_normal((40, 20)), rng.integers(0, 2, 40)
    by_class, by_row = (Network([Affine(20, 1)], SigmoidWithLoss(0.3), seed=1, dtype=dtype) for _ in range(2))
    by_class.fit(x, t, class_weight={1: 3.0})
    by_row.fit(x, t, sample_weight=np.where(t == 1, 3.0, 1.0))
    assert by_class.params["W1"].tobytes() == by_row.params["W1"].tobytes()


# Problems whose answers are known

def bias_after(loss, t, epochs=3000, outputs=1):
    """What the outputs become where there is nothing that they could depend on: the best constants."""
    network = Network([Affine(np.zeros((1, outputs)), np.full(outputs, 0.5))], loss)
    network.fit(np.zeros((len(t), 1)), t, epochs=epochs, batch_size=len(t), optimizer=Adam(lr=0.01),
                schedule=lambda epoch, epochs: 1 - epoch / epochs)
    return network.params["b1"]


def test_the_best_constants_are_median_quantiles_and_mean(rng):
    t = rng.gamma(2.0, 1.0, 1001)
    np.testing.assert_allclose(bias_after(AbsoluteError(), t), np.median(t), rtol=0, atol=0.01)
    quantiles = (0.1, 0.5, 0.9)
    np.testing.assert_allclose(bias_after(QuantileLoss(quantiles), t, outputs=3), np.quantile(t, quantiles), rtol=0, atol=0.03)
    np.testing.assert_allclose(np.exp(bias_after(PoissonLoss(), t)), t.mean(), rtol=1e-3)
    np.testing.assert_allclose(bias_after(HuberLoss(1e3), t), t.mean(), rtol=1e-3)


def test_the_best_scores_of_smoothed_labels_give_the_smoothed_shares():
    t = np.repeat(np.arange(4), 25)
    network = Network([Affine(4, 4)], SoftmaxWithLoss(0.2), seed=1, dtype="float64")
    network.fit(np.eye(4)[t], t, epochs=3000, batch_size=100, optimizer=Adam(lr=0.02))
    np.testing.assert_allclose(reference.softmax(network.predict(np.eye(4))), reference.smoothed(np.arange(4), 4, 0.2), rtol=0,
                               atol=1e-3)


def test_times_as_weights_make_counts_of_rates(rng):
    counts, times = rng.poisson(5, 200), rng.uniform(0.5, 3, 200)
    network = Network([Affine(np.zeros((1, 1)), np.zeros(1))], PoissonLoss())
    network.fit(np.zeros((200, 1)), counts / times, epochs=2000, batch_size=200, sample_weight=times, optimizer=Adam(lr=0.01))
    assert np.exp(network.params["b1"][0]) == pytest.approx(counts.sum() / times.sum(), rel=1e-3)


@pytest.mark.parametrize("score", [-1e4, -745.0, 0.0, 88.0, 89.0, 700.0])
@pytest.mark.parametrize("t", [0, 1, 1e-30, 1e30])
def test_a_loss_of_counts_is_finite_where_the_mean_is(score, t):
    expected = (t * (np.log(t) - score - 1) if t else 0) + np.exp(score)
    for dtype in ("f4", "f8"):
        x, given = np.array([[score]], dtype), np.array([[t]], dtype)
        assert PoissonLoss().forward(x, given) == pytest.approx(expected, rel=1e-6 if dtype == "f4" else 1e-14)
        network = Network([Affine(np.zeros((1, 1), dtype), x[0])], PoissonLoss())
        assert network.loss([[0]], given) == pytest.approx(expected, rel=1e-6 if dtype == "f4" else 1e-14)


# In compiled code

OPTIONS = {
    "plain": lambda rng: {},
    "all": lambda rng: {"sample_weight": rng.random(53), "clip_norm": 0.5, "schedule": lambda epoch, epochs: 1 - epoch / epochs / 2},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_plan_trains_as_the_layers_do(each_build, monkeypatch, rng, dtype, variant, optimizer, options):
    x, t = drawn(rng, variant)
    assert_both_ways_agree(monkeypatch, lambda: network_of(variant, dtype), x, t, 1e-12 if dtype == np.float64 else 1e-4,
                           optimizer=OPTIMIZERS[optimizer], **OPTIONS[options](rng))


def test_the_bits_do_not_depend_on_the_number_of_threads(each_build, monkeypatch, rng, dtype, variant):
    x, t = drawn(rng, variant)
    results = []
    for threads in (1, 2, 3, 8):
        with_threads(monkeypatch, threads)
        results.append(numbers(*trained(monkeypatch, lambda: network_of(variant, dtype), x, t, planned=True, batch_size=13,
                                        optimizer=OPTIMIZERS["Adam"])))
    for other in results[1:]:
        for name, value in results[0].items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)


def layer_by_layer(network, x, t):
    twin = copy.deepcopy(network)
    loss = twin._loss(x, t, train_flg=True)
    return loss, twin._backward()


def assert_gradient_is_of_the_layers(network, x, t):
    found, (loss, expected) = network.gradient(x, t), layer_by_layer(network, x, t)
    assert network._gradient_plans.of(network, len(x)) is not None
    assert network.last_layer.loss == pytest.approx(loss, rel=1e-13)
    for key, gradient in expected.items():
        np.testing.assert_allclose(found[key], gradient, rtol=0, atol=1e-13)
    return found


def test_a_gradient_in_one_call_is_that_of_the_layers(each_build, rng, variant):
    x, t = drawn(rng, variant)
    network = network_of(variant)
    assert_gradient_is_of_the_layers(network, x, t)


@pytest.mark.parametrize(("loss", "setting", "value"), [
    (lambda: SoftmaxWithLoss(), "label_smoothing", 0.3), (lambda: SoftmaxWithLoss(0.3), "label_smoothing", 0.0),
    (lambda: HuberLoss(), "delta", 0.01), (lambda: QuantileLoss(), "quantile", 0.9),
    (lambda: QuantileLoss(), "quantile", QUANTILES)])
def test_a_setting_that_is_changed_counts_at_once(rng, loss, setting, value):
    x, t = drawn(rng, "softmax, smoothed" if setting == "label_smoothing" else "wide Huber")
    network = Network([Affine(20, 5)], loss(), seed=1, dtype="float64")
    before = assert_gradient_is_of_the_layers(network, x, t)["W1"].copy()
    setattr(network.last_layer, setting, value)
    after = assert_gradient_is_of_the_layers(network, x, t)["W1"]
    assert np.abs(after - before).max() > 1e-4


NETWORKS = {
    "one layer": lambda: [Affine(20, 5)],
    "two layers": lambda: [Affine(20, 7), Tanh(), Affine(7, 5)],
    "three layers": lambda: [Affine(20, 7), Tanh(), Affine(7, 6), Relu(), Affine(6, 5)],
    "an activation last": lambda: [Affine(20, 7), Tanh(), Affine(7, 5), Tanh()],
    "batch normalisation": lambda: [Affine(20, 5), BatchNormalization(5)],
}


@pytest.mark.parametrize("layers", NETWORKS)
def test_a_numerical_gradient_is_that_of_brute_force(each_build, rng, variant, layers):
    x, t = drawn(rng, variant, rows=9)
    network = Network(NETWORKS[layers](), VARIANTS[variant][0](), seed=1, dtype="float64")
    network.params["b1"] += 0.3
    assert _numerical_gradient.fits(network)
    found, expected = (network.numerical_gradient(x, t, method=method) for method in ("exact", "brute"))
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for key, gradient in expected.items():
        np.testing.assert_allclose(found[key], gradient, rtol=0, atol=1e-9 * largest, err_msg=key)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backpropagation_passes_the_check(rng, variant, dtype):
    x, t = drawn(rng, variant, rows=20)
    report = gradient_check(network_of(variant, dtype), x, t)
    assert report.passed, report


class OwnTanh(Tanh):
    pass


@pytest.mark.parametrize("variant", SMOOTHED)
def test_so_it_does_where_each_loss_is_evaluated_as_a_whole(rng, variant):
    x, t = drawn(rng, variant, rows=9)
    network = Network([Affine(20, 6), OwnTanh(), Affine(6, 5)], VARIANTS[variant][0](), seed=1)
    report = gradient_check(network, x, t)
    assert report.passed, report


@pytest.mark.parametrize("loss", [AbsoluteError, QuantileLoss, lambda: QuantileLoss((0.2, 0.9)), lambda: HuberLoss(1.0)])
def test_residuals_at_their_kinks_pass_the_check(rng, loss):
    """Any gradient between those to both sides is right there, and 0 is."""
    x = rng.standard_normal((8, 3))
    network = Network([Affine(np.zeros((3, 2)), np.zeros(2))], loss())
    for t in (np.zeros((8, 2)), np.ones((8, 2))):   # 1 is where Huber's becomes a line
        assert gradient_check(network, x, t).passed


@pytest.mark.parametrize("loss", [AbsoluteError(), QuantileLoss(0.2), QuantileLoss((0.2, 0.9)), HuberLoss(0.1)])
def test_there_is_no_gradient_where_an_output_is_its_target(rng, loss, dtype):
    x = rng.standard_normal((9, 2)).astype(dtype)
    t = x + np.array([0, 1], dtype)
    assert loss.forward(x, t) > 0
    gradient = loss.backward()
    assert not gradient[:, 0].any() and (gradient[:, 1] < 0).all()
    network = Network([Affine(np.ones((1, 2)), np.zeros(2))], loss)
    found = network.gradient(np.ones((4, 1)), np.tile([1.0, 2.0], (4, 1)))["b1"]
    assert found[0] == 0 > found[1]


# What every output layer of nnfast can do

EVERY = [getattr(losses, name) for name in losses.__all__ if name != "FunctionLoss"]


def ready(loss, dtype="float32"):
    rng = np.random.default_rng(5)
    t = rng.integers(0, 3, 30) if loss is SoftmaxWithLoss else rng.random((30, 3))
    return Network([Affine(7, 9), Relu(), Affine(9, 3)], loss(), seed=1, dtype=dtype), rng.standard_normal((30, 7)), t


@pytest.mark.parametrize("loss", EVERY)
def test_every_loss_trains_and_is_differentiated_in_compiled_code(loss):
    network, x, t = ready(loss)
    assert _plan.obstacle(network, SGD()) is None
    assert "trains in compiled code" in network.summary()
    assert isinstance(network._gradient_plans.of(network, 30), _gradient_plan.GradientPlan)
    assert _numerical_gradient.fits(network)
    first = network.loss(x, t)
    assert network.fit(x, t, epochs=30, batch_size=10, optimizer=Adam()).loss[-1] < first


@pytest.mark.parametrize("loss", EVERY)
@pytest.mark.parametrize("name", ["a.npz", pytest.param("a.safetensors", marks=pytest.mark.needs("safetensors"))])
def test_every_loss_comes_back_from_a_file(tmp_path, loss, name):
    network, x, t = ready(loss)
    network.save(tmp_path / name)
    again = Network.load(tmp_path / name)
    assert type(again.last_layer) is loss
    assert again.loss(x, t) == network.loss(x, t)


@pytest.mark.parametrize("loss", EVERY)
@pytest.mark.parametrize("probabilities", [True, False])
def test_every_loss_is_exported(tmp_path, loss, probabilities):
    network, x, _ = ready(loss, "float64")
    for export in ("export_numpy", "export_c"):
        getattr(network, export)(tmp_path / export, probabilities=probabilities)
    scores = network.predict(x)
    expected = {SoftmaxWithLoss: reference.softmax, SigmoidWithLoss: reference.sigmoid, PoissonLoss: np.exp}.get(loss, np.asarray)
    found = runpy.run_path(str(tmp_path / "export_numpy"))["predict"](x)
    np.testing.assert_allclose(found, expected(scores) if probabilities else scores, rtol=1e-12)
    kind = {SoftmaxWithLoss: "probabilities", SigmoidWithLoss: "probabilities", PoissonLoss: "means"}.get(loss, "scores")
    assert f"fills y with the {kind if probabilities else 'scores'} for" in (tmp_path / "export_c").read_text()


# Files

@pytest.mark.parametrize(("loss", "setting"), [
    (SoftmaxWithLoss(0.1), "label_smoothing"), (SigmoidWithLoss(0.25), "label_smoothing"), (HuberLoss(1 / 3), "delta"),
    (QuantileLoss(0.7), "quantile"), (QuantileLoss(QUANTILES), "quantile"), (QuantileLoss([0.3]), "quantile")])
def test_settings_of_losses_are_kept(tmp_path, loss, setting):
    Network([Affine(4, 5)], loss, seed=0).save(tmp_path / "net.npz")
    assert getattr(Network.load(tmp_path / "net.npz").last_layer, setting) == getattr(loss, setting)


@pytest.mark.parametrize(("loss", "setting", "value"), [
    (HuberLoss(), "delta", np.float32(0.25)), (SoftmaxWithLoss(), "label_smoothing", np.float64(0.5)),
    (QuantileLoss(), "quantile", [0.25, 0.75]), (QuantileLoss(), "quantile", np.array([0.25, 0.75]))])
def test_what_was_put_in_a_settings_place_is_kept_too(tmp_path, rng, loss, setting, value):
    network = Network([Affine(4, 2)], loss, seed=0)
    setattr(network.last_layer, setting, value)
    x, t = rng.standard_normal((6, 4)), [0, 1, 1, 0, 1, 0]
    t = t if type(loss) is SoftmaxWithLoss else np.column_stack([t, t])
    network.fit(x, t)
    network.save(tmp_path / "net.npz")
    again = Network.load(tmp_path / "net.npz")
    np.testing.assert_array_equal(getattr(again.last_layer, setting), value)
    assert again.loss(x, t) == network.loss(x, t)


@pytest.mark.parametrize(("loss", "setting", "value"), [
    (HuberLoss(), "delta", -1), (SigmoidWithLoss(), "label_smoothing", 1), (QuantileLoss(), "quantile", (0.5, 2))])
def test_a_file_that_could_not_be_loaded_is_not_written(tmp_path, loss, setting, value):
    network = Network([Affine(4, 2)], loss, seed=0)
    setattr(loss, setting, value)
    with pytest.raises(ValueError, match=f"^{setting}"):
        network.save(tmp_path / "net.npz")
    assert not list(tmp_path.iterdir())


def description_of(path):
    with np.load(path) as arrays:
        return json.loads(str(arrays["nnfast"])), {key: arrays[key] for key in arrays}


def test_a_file_without_a_setting_has_the_loss_as_it_is_by_default(tmp_path):
    path = tmp_path / "net.npz"
    Network([Affine(4, 5)], SoftmaxWithLoss(0.5), seed=0).save(path)
    described, arrays = description_of(path)
    del described["loss_setting"]
    np.savez(path, **{**arrays, "nnfast": np.array(json.dumps(described))})
    assert Network.load(path).last_layer.label_smoothing == 0


@pytest.mark.parametrize(("loss", "setting", "said"), [
    ("HuberLoss", 0, "delta is 0, but must be above 0"), ("HuberLoss", -1, "delta is -1"), ("HuberLoss", "1", "no number"),
    ("HuberLoss", True, "no number"), ("HuberLoss", float("nan"), "no number"), ("HuberLoss", float("inf"), "no number"),
    ("HuberLoss", {}, "no number"), ("HuberLoss", [1.0], r"describes a loss that cannot be: delta is \[1.0\]"),
    ("QuantileLoss", 1, "quantile is 1, but must be above 0 and below 1"), ("QuantileLoss", [], "quantile is empty"),
    ("QuantileLoss", [0.5, 0], r"quantile\[1\] is 0"), ("QuantileLoss", [0.5, "0.7"], "no number"),
    ("QuantileLoss", [0.5, [0.7]], "no number"), ("QuantileLoss", "0.5", "no number"),
    ("SoftmaxWithLoss", 1, "label_smoothing is 1"), ("SoftmaxWithLoss", [0.5], r"label_smoothing is \[0.5\]"),
    ("SigmoidWithLoss", -0.1, "label_smoothing is -0.1"), ("PoissonLoss", 1.0, "has a setting of a loss that has none"),
    ("IdentityWithLoss", [], "has a setting of a loss that has none"), ("FunctionLoss", 1.0, "has a loss that nnfast has not"),
])
def test_a_setting_that_cannot_be_is_refused(tmp_path, loss, setting, said):
    path = tmp_path / "net.npz"
    Network([Affine(4, 1)], HuberLoss(), seed=0).save(path)
    described, arrays = description_of(path)
    described |= {"loss": loss, "loss_setting": setting}
    np.savez(path, **{**arrays, "nnfast": np.array(json.dumps(described))})
    with pytest.raises(ModelFormatError, match=said) as caught:
        Network.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_setting_is_looked_at_before_the_arrays(tmp_path):
    path = tmp_path / "net.npz"
    Network([Affine(4, 1)], HuberLoss(), seed=0).save(path)
    described, arrays = description_of(path)
    np.savez(path, nnfast=np.array(json.dumps(described | {"loss_setting": -1})), b1=arrays["b1"])
    with pytest.raises(ModelFormatError, match="delta is -1"):
        Network.load(path)


# Input that is none

@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: HuberLoss(0), ValueError, "^delta is 0, but must be above 0$"),
    (lambda: HuberLoss(-1), ValueError, "^delta is -1, but must be a finite number of at least 0$"),
    (lambda: HuberLoss(np.inf), ValueError, "^delta is inf, but must be"),
    (lambda: HuberLoss("wide"), TypeError, "^delta is 'wide', but must be a number$"),
    (lambda: QuantileLoss(0), ValueError, "^quantile is 0, but must be above 0 and below 1$"),
    (lambda: QuantileLoss(1.5), ValueError, r"^quantile is 1\.5, but must be above 0 and below 1$"),
    (lambda: QuantileLoss(np.nan), ValueError, "^quantile is nan, but must be finite$"),
    (lambda: QuantileLoss(()), ValueError, "^quantile is empty, but must hold a number for each output$"),
    (lambda: QuantileLoss([0.5, 1]), ValueError, r"^quantile\[1\] is 1, but must be above 0 and below 1$"),
    (lambda: QuantileLoss([0.5, None]), TypeError, r"^quantile\[1\] is None, but must be a number$"),
    (lambda: QuantileLoss(None), TypeError, "^quantile is None, but must be a number$"),
    (lambda: SoftmaxWithLoss(1), ValueError, "^label_smoothing is 1, but must be below 1, or nothing is left of the label$"),
    (lambda: SoftmaxWithLoss(-0.1), ValueError, r"^label_smoothing is -0\.1, but must be between 0 and 1$"),
    (lambda: SigmoidWithLoss(2), ValueError, "^label_smoothing is 2, but must be between 0 and 1$"),
    (lambda: SigmoidWithLoss("some"), TypeError, "^label_smoothing is 'some', but must be a number$"),
    (lambda: QuantileLoss((0.1, 0.9)).forward(np.ones((4, 3)), np.ones(4)), ValueError,
     "^quantile has 2 numbers, but the network gives 3 outputs$"),
    (lambda: QuantileLoss((0.1, 0.9)).forward(np.ones((4, 2)), np.ones(3)), ValueError, "^t has 3 rows, but x has 4 rows$"),
    (lambda: QuantileLoss((0.1, 0.9)).forward(np.ones((4, 2)), np.ones((4, 3))), ValueError, r"^t has shape \(4, 3\), but"),
    (lambda: QuantileLoss(0.1).forward(np.ones((4, 2)), np.ones(4)), ValueError, r"^t has shape \(4,\), but"),
    (lambda: PoissonLoss().forward(np.ones((2, 2)), [[0, 1], [2, -1]]), ValueError, r"^t\[1, 1\] is -1, but must be at least 0$"),
    (lambda: PoissonLoss().forward(np.ones((2, 1)), [1, np.nan]), ValueError, r"^t\[1, 0\] is nan, but must be at least 0$"),
    (lambda: AbsoluteError().forward(np.ones((2, 1)), ["a", "b"]), TypeError, "^t holds str"),
    (lambda: Network([Affine(2, 1)], HuberLoss()).accuracy(np.ones((1, 2)), [1]), TypeError, "the loss is HuberLoss$"),
    (lambda: Network([Affine(2, 1)], AbsoluteError), TypeError, r"^loss is the class AbsoluteError, but must be an object"),
])
def test_what_does_not_fit_is_one_sentence(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("loss", [AbsoluteError, HuberLoss, QuantileLoss, lambda: QuantileLoss([0.2, 0.8]), PoissonLoss])
@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_targets_that_are_not_finite_stop_no_fit_halfway(rng, loss, shape):
    network = Network([Affine(3, 2 if isinstance(getattr(loss(), "quantile", 0), tuple) else 1)], loss(), seed=1)
    before, t = copy.deepcopy(network.params), np.ones(shape)
    t[4] = np.inf
    with pytest.raises(ValueError, match=r"^t contains NaN or infinity \(first at row 4, column 0\)$"):
        network.fit(rng.standard_normal((6, 3)), t)
    np.testing.assert_equal(network.params, before)


@pytest.mark.parametrize("t", [[3, 1], [[3], [1]], np.array([3, 1], np.uint8), np.array([[3.0], [1.0]], np.float32)])
def test_several_quantiles_take_one_target_in_any_form(t):
    x = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, 5.0]])
    output, expected = QuantileLoss([0.1, 0.5, 0.9]), QuantileLoss([0.1, 0.5, 0.9])
    assert output.forward(x, t) == expected.forward(x, [[3, 3, 3], [1, 1, 1]])
    np.testing.assert_array_equal(output.backward(), expected.backward())
    assert QuantileLoss([0.1, 0.5, 0.9]).forward(x[0], 3) == expected.forward(x[:1], [[3, 3, 3]])


# Beside other libraries

def torch_losses():
    import torch

    def smoothed(scores, t):
        return torch.nn.functional.binary_cross_entropy_with_logits(scores, t * 0.8 + 0.1, reduction="none").sum(1)

    return {
        "AbsoluteError": (AbsoluteError(), torch.nn.L1Loss(reduction="none"), 0),
        "HuberLoss": (HuberLoss(0.4), torch.nn.HuberLoss(reduction="none", delta=0.4), 0),
        "PoissonLoss": (PoissonLoss(), torch.nn.PoissonNLLLoss(log_input=True, reduction="none"), lambda t: t * np.log(t) - t),
        "SoftmaxWithLoss": (SoftmaxWithLoss(0.3), torch.nn.CrossEntropyLoss(reduction="none", label_smoothing=0.3), 0),
        "SigmoidWithLoss": (SigmoidWithLoss(0.2), smoothed, 0),
    }


@pytest.mark.needs("torch")
@pytest.mark.parametrize("name", ["AbsoluteError", "HuberLoss", "PoissonLoss", "SoftmaxWithLoss", "SigmoidWithLoss"])
@pytest.mark.parametrize("shape", [(9, 1), (1, 4), (17, 5), (8, 40)], ids=str)
def test_losses_and_gradients_are_those_of_pytorch(rng, name, shape):
    import torch

    ours, theirs, constant = torch_losses()[name]
    x = 2 * rng.standard_normal(shape)
    t = rng.integers(0, shape[1], shape[0]) if name == "SoftmaxWithLoss" else rng.random(shape)
    scores = torch.tensor(x, requires_grad=True)
    row_losses = theirs(scores, torch.tensor(t))
    row_losses = row_losses.sum(1) if row_losses.ndim == 2 else row_losses
    row_losses.mean().backward()
    expected = row_losses.mean().item() + (constant(t).sum(axis=1).mean() if constant else 0)
    assert ours.forward(x, t) == pytest.approx(expected, rel=1e-14, abs=1e-14 * (1 + np.exp(x).max() * shape[1]))
    np.testing.assert_allclose(ours.backward(), scores.grad.numpy(), rtol=0, atol=1e-15 * (4 + np.exp(x).max()))


@pytest.mark.needs("sklearn")
def test_losses_of_counts_and_quantiles_are_those_of_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    x, t, weights = rng.standard_normal((50, 3)), rng.integers(0, 4, (50, 3)), rng.random(50)
    output = PoissonLoss()
    output.forward(x, t)
    deviances = [metrics.mean_poisson_deviance(t[:, j], np.exp(x[:, j]), sample_weight=weights) for j in range(3)]
    assert weights @ output.row_losses / weights.sum() == pytest.approx(sum(deviances) / 2, rel=1e-13)
    for quantile, place in itertools.product([0.1, 0.5, 0.8], range(3)):
        expected = metrics.mean_pinball_loss(t[:, place], x[:, place], alpha=quantile)
        assert QuantileLoss(quantile).forward(x[:, place : place + 1], t[:, place]) == pytest.approx(expected, rel=1e-14)


def test_the_squared_error_is_the_limit_of_hubers_loss(rng):
    x, t = rng.standard_normal((2, 9, 4))
    wide, squared = HuberLoss(1e6), IdentityWithLoss()
    assert wide.forward(x, t) == pytest.approx(squared.forward(x, t), rel=1e-14)
    np.testing.assert_allclose(wide.backward(), squared.backward(), rtol=0, atol=1e-16)
