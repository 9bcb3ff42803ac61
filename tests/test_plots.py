"""The pictures of training, read back off their figures."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import reference

import nnfast
from nnfast import (
    SGD,
    Affine,
    BatchNormalization,
    Dropout,
    Gelu,
    History,
    IdentityWithLoss,
    LeakyRelu,
    Network,
    Relu,
    Sigmoid,
    SigmoidWithLoss,
    Tanh,
    load_digits,
    plot_activation_functions,
    plot_activations,
    plot_decision,
    plot_history,
    plot_weights,
)
from nnfast.perceptron import AND, OR, XOR, Perceptron

pytest.importorskip("matplotlib")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def words(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


# History


def falling(epochs, by=0.8, **others):
    loss = [2 * by**epoch for epoch in range(epochs)]
    return History(loss=loss, seconds=[0.1] * epochs, **others)


def test_what_fit_returns_is_drawn_curve_by_curve():
    (x, t), validation_data = load_digits()
    network = Network([Affine(64, 20), Relu(), Affine(20, 10)], seed=0)
    history = network.fit(x, t, epochs=3, validation_data=validation_data)
    loss, accuracy = history.plot()
    assert isinstance(loss, Axes) and loss.get_figure() is accuracy.get_figure()
    for axes, curves in (loss, (history.loss, history.validation_loss)), (
        accuracy, (history.accuracy, history.validation_accuracy),
    ):
        assert [line.get_xdata().tolist() for line in axes.lines] == [[1, 2, 3]] * 2
        assert [line.get_ydata().tolist() for line in axes.lines] == list(curves)
        assert words(axes) == ["training, during the epoch", "validation, after the epoch"]
        assert axes.get_xlabel() == "epoch"
        low, high = axes.get_ylim()
        assert low < min(curves[0] + curves[1]) and max(curves[0] + curves[1]) < high
    assert loss.lines[0].get_color() != loss.lines[1].get_color()
    reference.assert_nothing_sticks_out(loss.get_figure())


def test_without_validation_data_there_is_one_curve_and_without_classes_one_panel(rng):
    network = Network([Affine(3, 4), Relu(), Affine(4, 1)], loss=IdentityWithLoss(), seed=0)
    history = network.fit(rng.normal(size=(20, 3)), rng.normal(size=(20, 1)), epochs=2, batch_size=10)
    [loss] = history.plot()
    [line] = loss.lines
    assert line.get_ydata().tolist() == history.loss
    assert words(loss) == ["training, during the epoch"]


@pytest.mark.parametrize(("losses", "scale"), [
    ([2.0, 1.0, 0.101], "linear"), ([2.0, 1.0, 0.1], "log"), ([2.0, 0.0], "linear"), ([2.0, -5.0], "linear"), ([0.0], "linear"),
])
def test_the_scale_of_the_loss_is_logarithmic_from_twenty_times_on(losses, scale):
    [axes] = plot_history(History(loss=losses))
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert low <= min(losses) and max(losses) <= high


def test_the_loss_of_validation_counts_for_the_scale():
    [axes] = plot_history(History(loss=[2.0, 1.0], validation_loss=[0.05, 0.05]))
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize(("epochs", "marker"), [(1, "o"), (40, "o"), (41, "None")])
def test_few_epochs_are_marked(epochs, marker):
    [axes] = plot_history(falling(epochs))
    assert axes.lines[0].get_marker() == marker


def test_epochs_are_whole_numbers():
    [axes] = plot_history(falling(2))
    assert all(tick == int(tick) for tick in axes.get_xticks())


def test_a_history_without_an_epoch_is_refused():
    with pytest.raises(ValueError, match="no epoch"):
        History().plot()
    with pytest.raises(TypeError, match=r"history is a list, but must be the History"):
        plot_history([2.0, 1.0])
    assert not pyplot.get_fignums()


# Weights


@pytest.mark.parametrize(("inputs", "units", "shape"), [(64, 50, None), (64, 1, None), (6, 5, (2, 3)), (6, 4, (3, 2)), (7, 3, (1, 7))])
def test_each_image_is_a_column_of_the_weights(inputs, units, shape, dtype):
    network = Network([Affine(inputs, units)], seed=0, dtype=dtype)
    axes = plot_weights(network, shape=shape)
    height, width = shape or (8, 8)
    mosaic = np.ma.filled(axes.images[0].get_array(), np.nan)
    columns = int(np.ceil(np.sqrt(units)))
    seen = np.zeros(mosaic.shape, bool)
    for unit in range(units):
        top, left = unit // columns * (height + 1), unit % columns * (width + 1)
        tile = np.s_[top : top + height, left : left + width]
        np.testing.assert_array_equal(mosaic[tile].ravel(), network.params["W1"][:, unit])
        seen[tile] = True
    assert np.isnan(mosaic[~seen]).all()
    low, high = axes.images[0].get_clim()
    assert -low == high == pytest.approx(np.abs(network.params["W1"]).max())
    assert axes.get_title("left") == f"W1: {units} unit{'s' if units > 1 else ''}"
    reference.assert_nothing_sticks_out(axes.get_figure())


def test_of_many_units_the_first_are_shown():
    network = Network([Affine(4, 1000)], seed=0)
    axes = plot_weights(network, units=3)
    mosaic = np.ma.filled(axes.images[0].get_array(), np.nan)
    assert mosaic.shape == (5, 5)
    np.testing.assert_array_equal(mosaic[3:, :2].ravel(), network.params["W1"][:, 2])
    assert np.isnan(mosaic[3:, 3:]).all()
    assert axes.get_title("left") == "W1: 3 of 1,000 units"
    assert axes.images[0].get_clim()[1] == pytest.approx(np.abs(network.params["W1"][:, :3]).max())


def test_weights_of_the_books_networks_and_of_zeros_are_drawn():
    from nnfast.multi_layer_net import MultiLayerNet

    axes = plot_weights(MultiLayerNet(input_size=9, hidden_size_list=[4], output_size=2))
    assert axes.images[0].get_array().shape == (7, 7)
    axes = plot_weights(Network([Affine(np.zeros((4, 2)), np.zeros(2))]))
    assert axes.images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize(("network", "arguments", "error", "sentence"), [
    (Network([Affine(6, 2)]), {}, ValueError, r"6 inputs, which are no square: pass shape=\(height, width\)"),
    (Network([Affine(6, 2)]), {"shape": (2, 2)}, ValueError, r"shape is \(2, 2\), .* product is 6"),
    (Network([Affine(6, 2)]), {"shape": 6}, TypeError, "shape"),
    (Network([Affine(4, 2)]), {"units": 0}, ValueError, "units"),
    (Network([Affine(4, 2)]), {"units": 1.5}, TypeError, "units"),
    (Network([Relu()]), {}, ValueError, "no two-dimensional parameter"),
    (3, {}, TypeError, "a dict params"),
])
def test_weights_that_are_no_images_are_refused(network, arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        plot_weights(network, **arguments)
    assert not pyplot.get_fignums()


# Activations


def chapter_6(std, activation=Sigmoid, layers=5, units=100):
    """Weights of chapter 6's experiment, and its network of five layers of 100 units, without biases."""
    rng = np.random.default_rng(6)
    weights = [std * rng.standard_normal((units, units)) for _ in range(layers)]
    network = Network([layer for W in weights for layer in (Affine(W, np.zeros(units)), activation())])
    return weights, network, rng.standard_normal((1000, units))


def heights(axes):
    return np.array([bar.get_height() for bar in axes.patches])


@pytest.mark.parametrize("std", [1, 0.01, 0.1])
def test_the_histograms_are_those_of_chapter_6_in_numpy(std):
    weights, network, x = chapter_6(std)
    panels = plot_activations(network, x)
    assert len(panels) == 5
    z = x
    for place, (axes, W) in enumerate(zip(panels, weights, strict=True), 1):
        z = 1 / (1 + np.exp(-z @ W))
        counts, edges = np.histogram(z, 30, (0, 1))
        np.testing.assert_allclose(heights(axes), counts / z.size, atol=2 / z.size)      # a value on an edge may fall to either side
        np.testing.assert_allclose([bar.get_x() for bar in axes.patches], edges[:-1], atol=1e-12)
        assert axes.get_title().startswith(f"Sigmoid{place}\nmean {z.mean():.2g}, std {z.std():.2g}")
        assert axes.get_xlim() == (0, 1)
        assert axes.get_ylim() == panels[0].get_ylim()
        assert axes.get_ylim()[1] > heights(axes).max()
    reference.assert_nothing_sticks_out(panels[0].get_figure())


def test_the_histograms_tell_what_chapter_6_tells():
    at_the_ends, in_the_middle, spread = (
        [heights(axes) for axes in plot_activations(*chapter_6(std)[1:], bins=10)] for std in (1, 0.01, 0.1)
    )
    for layer in range(5):
        assert at_the_ends[layer][[0, -1]].sum() > 0.6
        assert in_the_middle[layer][4:6].sum() > 0.98
        assert spread[layer][[0, -1]].sum() < 0.05 and (spread[layer] > 0.01).sum() >= 5


@pytest.mark.parametrize(("activation", "limits"), [(Sigmoid, (0, 1)), (Tanh, (-1, 1)), (Relu, None), (Gelu, None)])
def test_layers_share_one_range(activation, limits):
    _, network, x = chapter_6(0.1, activation, layers=2)
    first, second = plot_activations(network, x)
    assert first.get_xlim() == second.get_xlim()
    if limits:
        assert first.get_xlim() == limits
    else:
        outputs = [network.layers[f"{activation.__name__}1"], network.layers[f"{activation.__name__}2"]]
        z1 = outputs[0].forward(x @ network.params["W1"])
        z2 = outputs[1].forward(z1 @ network.params["W2"])
        assert first.get_xlim() == pytest.approx((min(z1.min(), z2.min()), max(z1.max(), z2.max())))
    assert heights(first).sum() == pytest.approx(1) == heights(second).sum()


def test_what_lies_outside_the_limits_is_said():
    network = Network([Affine(np.eye(2), np.zeros(2)), Relu()])
    [axes] = plot_activations(network, [[1.0, 2.0], [3.0, 4.0]], limits=(0, 2.5), bins=5)
    np.testing.assert_array_equal(heights(axes), [0, 0, 0.25, 0, 0.25])
    assert axes.get_title().endswith("\n50.0% outside")


def test_batch_normalization_is_in_training_dropout_scales_and_the_network_is_as_before(rng):
    network = Network(
        [Affine(4, 6), BatchNormalization(np.ones(6), np.zeros(6)), Relu(), Dropout(0.5), Affine(6, 3), Sigmoid()], seed=0)
    x = rng.normal(size=(50, 4))
    before = {name: array.copy() for name, array in network.params.items()}
    running = network.layers["BatchNormalization1"].running_mean.copy()
    relu, sigmoid = plot_activations(network, x, bins=7)
    p = {name: array.astype(float) for name, array in before.items()}
    a = x @ p["W1"] + p["b1"]
    z = np.maximum((a - a.mean(0)) / np.sqrt(a.var(0) + 1e-7), 0)
    np.testing.assert_allclose(heights(relu), np.histogram(z, 7, relu.get_xlim())[0] / z.size, atol=1.5 / z.size)
    y = 1 / (1 + np.exp(-(0.5 * z @ p["W2"] + p["b2"])))
    np.testing.assert_allclose(heights(sigmoid), np.histogram(y, 7, sigmoid.get_xlim())[0] / y.size, atol=1.5 / y.size)
    for name, array in network.params.items():
        np.testing.assert_array_equal(array, before[name])
    np.testing.assert_array_equal(network.layers["BatchNormalization1"].running_mean, running)


def test_values_that_are_all_the_same_are_one_bar():
    [axes] = plot_activations(Network([Affine(np.zeros((2, 2)), np.zeros(2)), Relu()]), np.ones((3, 2)))
    assert heights(axes).max() == 1 == heights(axes).sum()


@pytest.mark.parametrize(("network", "x", "arguments", "error", "sentence"), [
    (Network([Affine(2, 2)]), np.ones((1, 2)), {}, ValueError, "no layer of an activation function"),
    (3, np.ones((1, 2)), {}, ValueError, "no layer of an activation function"),
    (Network([Affine(2, 2), Relu()]), np.ones((1, 3)), {}, ValueError, "3"),
    (Network([Affine(2, 2), Relu()]), np.ones((0, 2)), {}, ValueError, "x"),
    (Network([Affine(np.eye(2), np.zeros(2)), Relu()]), [[np.inf, 0]], {}, ValueError, "Relu1 gives NaN or infinity"),
    (Network([Affine(2, 2), Relu()]), np.ones((1, 2)), {"bins": 0}, ValueError, "bins"),
    (Network([Affine(2, 2), Relu()]), np.ones((1, 2)), {"limits": (1, 1)}, ValueError, "limits is 1 to 1"),
    (Network([Affine(2, 2), Relu()]), np.ones((1, 2)), {"limits": 1}, ValueError, "must be 2 numbers"),
    (Network([Affine(2, 2), Relu()]), np.ones((1, 2)), {"limits": (0, np.nan)}, ValueError, r"limits\[1\]"),
])
def test_activations_that_cannot_be_drawn_are_refused(network, x, arguments, error, sentence):
    with np.errstate(invalid="ignore"), pytest.raises(error, match=sentence):
        plot_activations(network, x, **arguments)
    assert not pyplot.get_fignums()


# Decisions


def regions(axes):
    return np.asarray(axes.images[0].get_array())


def grid(axes):
    """The points of the image's middles, row by row from the bottom."""
    left, right, bottom, top = axes.images[0].get_extent()
    height, width = regions(axes).shape
    half_x, half_y = (right - left) / width / 2, (top - bottom) / height / 2
    across, up = np.linspace(left + half_x, right - half_x, width), np.linspace(bottom + half_y, top - half_y, height)
    return np.stack(np.meshgrid(across, up), axis=-1)


def lines(axes):
    """All points of the lines between regions."""
    paths = [path for contour in axes.collections for path in contour.get_paths() if contour.get_array() is not None]
    return np.concatenate([path.vertices for path in paths if len(path.vertices)])


def test_a_perceptrons_line_is_where_its_sum_is_0():
    perceptron = Perceptron([0.5, -0.3], -0.1)
    axes = plot_decision(perceptron)
    points = lines(axes)
    assert len(points) > 50
    np.testing.assert_allclose(points @ perceptron.w + perceptron.b, 0, atol=1e-12)
    np.testing.assert_array_equal(regions(axes), grid(axes) @ perceptron.w + perceptron.b > 0)
    assert axes.get_xlim() == axes.get_ylim() == (-0.5, 1.5)


def test_the_pixels_have_the_colour_of_their_point():
    axes = plot_decision(Perceptron([1.0, 3.0], -2.0), CORNERS)
    figure = axes.get_figure()
    figure.draw_without_rendering()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3]
    shades = np.round(255 * axes.images[0].get_cmap()([0, 1])[:, :3])
    for point, place in ((-0.1, 1.1), 1), ((1.1, -0.1), 0), ((0.1, 0.1), 0), ((1.1, 1.1), 1):
        column, row = axes.transData.transform(point).astype(int)
        np.testing.assert_allclose(pixels[row, column], shades[place], atol=1)


@pytest.mark.parametrize("gate", [AND, OR, XOR])
def test_a_gate_of_two_numbers_is_asked_at_every_point(gate):
    axes = plot_decision(gate, resolution=21)
    expected = [[gate(*point) for point in row.tolist()] for row in grid(axes)]
    np.testing.assert_array_equal(regions(axes), expected)
    assert len(lines(axes))


@pytest.mark.parametrize("outputs", [2, 3, 12])
def test_a_networks_regions_are_its_predictions_and_its_lines_are_ties(outputs):
    network = Network([Affine(2, 8), Tanh(), Affine(8, outputs)], seed=2)
    axes = plot_decision(network, limits=(-3, 3, -4, 5), resolution=90)
    scores = network.predict(grid(axes).reshape(-1, 2))
    ranked = np.sort(scores, axis=1)
    clear = (ranked[:, -1] - ranked[:, -2] > 1e-5).reshape(90, 90)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(regions(axes)[clear], scores.argmax(axis=1).reshape(90, 90)[clear])
    best, second, *_ = np.sort(network.predict(lines(axes)), axis=1)[:, ::-1].T
    assert np.quantile(best - second, 0.9) < 0.01 * (scores.max() - scores.min())
    assert axes.get_xlim() == (-3, 3) and axes.get_ylim() == (-4, 5)


def test_a_network_that_learned_xor_takes_two_corners_for_each_class():
    network = Network([Affine(2, 8), Tanh(), Affine(8, 2)], seed=1)
    t = [0, 1, 1, 0]
    network.fit(CORNERS, t, epochs=500, batch_size=4, optimizer=SGD(lr=0.5))
    axes = plot_decision(network, CORNERS, t, limits=(0, 1, 0, 1), resolution=2)
    assert regions(axes).tolist() == [[0, 1], [1, 0]]
    assert words(axes) == ["0", "1"]


@pytest.mark.parametrize("form", [np.array, lambda t: np.eye(2)[t]])
def test_examples_are_drawn_in_the_colour_of_their_class(form):
    axes = plot_decision(AND, CORNERS, form([0, 1, 1, 0]))
    zero, one = axes.get_legend().legend_handles
    drawn = {tuple(points.get_offsets().ravel().tolist()): points.get_facecolor()[0].tolist()
             for points in axes.collections if points.get_label() in ("0", "1")}
    assert drawn == {
        (0.0, 0.0, 1.0, 1.0): zero.get_facecolor()[0].tolist(), (0.0, 1.0, 1.0, 0.0): one.get_facecolor()[0].tolist(),
    }
    # The region of a class has a paler shade of the same colour.
    shades = axes.images[0].get_cmap()(axes.images[0].norm([0, 1]))[:, :3]
    full = np.array([zero.get_facecolor()[0][:3], one.get_facecolor()[0][:3]])
    np.testing.assert_allclose(1 - shades, 0.35 * (1 - full), atol=1e-6)
    left, right, bottom, top = *axes.get_xlim(), *axes.get_ylim()
    assert (left, right, bottom, top) == pytest.approx((-0.15, 1.15, -0.15, 1.15))


def test_examples_without_classes_are_drawn_in_one_colour():
    axes = plot_decision(AND, CORNERS)
    assert any(len(points.get_offsets()) == 4 for points in axes.collections)
    assert axes.get_legend() is None


def test_one_example_has_room_around_it():
    axes = plot_decision(AND, [[3.0, 4.0]])
    assert axes.get_xlim() == (2.5, 3.5) and axes.get_ylim() == (3.5, 4.5)


def test_a_single_score_is_class_1_above_0():
    network = Network([Affine(np.array([[1.0], [2.0]]), np.array([-1.0]))], loss=SigmoidWithLoss())
    axes = plot_decision(network, CORNERS, [0, 1, 0, 1], resolution=30)
    np.testing.assert_array_equal(regions(axes), grid(axes) @ [1, 2] - 1 > 0)
    np.testing.assert_allclose(lines(axes) @ [1, 2], 1, atol=1e-6)


class Named:
    """As an estimator of scikit-learn: labels of any kind."""

    def predict(self, x):
        return np.where(x[:, 0] > 0.5, "yes", "no")


def test_an_estimators_labels_keep_their_names():
    axes = plot_decision(Named(), CORNERS, ["no", "no", "yes", "perhaps"], resolution=11)
    assert words(axes) == ["no", "perhaps", "yes"]
    np.testing.assert_array_equal(regions(axes), np.where(grid(axes)[..., 0] > 0.5, 2, 0))


def test_a_function_of_rows_is_asked_once():
    asked = []

    def nearest_corner(rows):
        asked.append(rows)
        return ((rows[:, None] - CORNERS) ** 2).sum(axis=2) * -1

    axes = plot_decision(nearest_corner, resolution=20)
    assert [rows.shape for rows in asked] == [(400, 2)]
    np.testing.assert_array_equal(regions(axes), (2 * (grid(axes)[..., 0] > 0.5) + (grid(axes)[..., 1] > 0.5)))


def test_one_class_everywhere_has_no_line():
    axes = plot_decision(Perceptron([1.0, 1.0], 100.0))
    assert (regions(axes) == 1).all()
    assert not axes.collections


@pytest.mark.parametrize(("classifier", "arguments", "error", "sentence"), [
    (3, {}, TypeError, "classifier is a int"),
    (Perceptron([1.0], 0.0), {}, ValueError, "the perceptron takes 1 inputs"),
    (Network([Affine(3, 2)]), {}, ValueError, "3"),
    (Network([Affine(2, 1)], loss=IdentityWithLoss()), {}, TypeError, "IdentityWithLoss"),
    (Network([Affine(2, 3)], loss=SigmoidWithLoss()), {}, ValueError, "3 questions"),
    (lambda rows: rows[:3], {}, ValueError, r"shape \(3, 2\) for 40000 rows"),
    (lambda rows: rows * np.nan, {}, ValueError, "what classifier gave"),
    (AND, {"x": CORNERS[:, :1]}, ValueError, "x has 1 columns"),
    (AND, {"x": [[0, np.inf]]}, ValueError, "x"),
    (AND, {"t": [0]}, ValueError, "t was given without x"),
    (AND, {"x": CORNERS, "t": [0, 1]}, ValueError, "t"),
    (Network([Affine(2, 2)]), {"x": CORNERS, "t": [0, 1, 2, 0]}, ValueError, "2"),
    (AND, {"resolution": 1}, ValueError, "resolution"),
    (AND, {"limits": (0, 1)}, ValueError, "must be 4 numbers"),
    (AND, {"limits": (1, 0, 0, 1)}, ValueError, "must go upwards"),
    (AND, {"limits": (0, 1, 1, 0)}, ValueError, "must go upwards"),
])
def test_what_is_no_classifier_of_the_plane_is_refused(classifier, arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        plot_decision(classifier, **arguments)
    assert not pyplot.get_fignums()


# Activation functions


def test_the_sheet_has_each_function_and_its_derivative():
    panels = plot_activation_functions(limit=4)
    assert [axes.get_title("left") for axes in panels] == ["step", "sigmoid", "ReLU", "tanh", "leaky ReLU", "GELU"]
    functions = [
        reference.sigmoid_forward, reference.relu_forward, reference.tanh_forward,
        lambda x: reference.leaky_relu_forward(x, LeakyRelu().slope), reference.gelu_forward,
    ]
    for axes, function in zip(panels[1:], functions, strict=True):
        y, dy = axes.lines
        x = y.get_xdata()
        assert x[0] == -4 and x[-1] == 4 and 0 in x
        np.testing.assert_allclose(y.get_ydata(), function(x), atol=1e-12)
        away = np.abs(x) > 1e-3      # from the kinks
        slope = (function(x + 1e-5) - function(x - 1e-5)) / 2e-5
        np.testing.assert_allclose(dy.get_ydata()[away], slope[away], atol=1e-8)
    y, dy = panels[0].lines
    np.testing.assert_array_equal(y.get_ydata(), y.get_xdata() > 0)
    assert not dy.get_ydata().any()
    assert words(panels[0]) == ["function", "derivative"]
    reference.assert_nothing_sticks_out(panels[0].get_figure())


@pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (-1, ValueError), (np.inf, ValueError), ("wide", TypeError)])
def test_a_limit_that_is_none_is_refused(limit, error):
    with pytest.raises(error, match="limit"):
        plot_activation_functions(limit=limit)
    assert not pyplot.get_fignums()


# Axes

SINGLE = {
    "plot_weights": lambda ax: plot_weights(Network([Affine(4, 2)]), ax=ax),
    "plot_decision": lambda ax: plot_decision(AND, resolution=5, ax=ax),
}
SEVERAL = {
    "History.plot": (2, lambda ax: falling(3, accuracy=[0.1, 0.2, 0.3]).plot(ax=ax)),
    "plot_history": (2, lambda ax: plot_history(falling(3, accuracy=[0.1, 0.2, 0.3]), ax=ax)),
    "plot_activations": (2, lambda ax: plot_activations(
        Network([Affine(2, 2), Relu(), Affine(2, 2), Tanh()]), CORNERS, ax=ax)),
    "plot_activation_functions": (6, lambda ax: plot_activation_functions(ax=ax)),
}


@pytest.mark.parametrize("draw", SINGLE.values(), ids=SINGLE)
def test_a_picture_is_drawn_on_the_axes_given(draw):
    axes = Figure().add_subplot()
    assert draw(axes) is axes
    assert draw([axes]) is axes
    assert axes.has_data()
    assert not pyplot.get_fignums()
    for wrong, error in ("axes", TypeError), ([axes, axes], ValueError), ([], ValueError), ([3], TypeError):
        with pytest.raises(error, match="ax "):
            draw(wrong)


@pytest.mark.parametrize(("panels", "draw"), SEVERAL.values(), ids=SEVERAL)
def test_panels_are_drawn_on_the_axes_given(panels, draw):
    for columns in 1, panels:
        grid_of_axes = Figure().subplots(panels // columns, columns, squeeze=False)
        assert draw(grid_of_axes) == list(grid_of_axes.flat)
        assert all(axes.has_data() for axes in grid_of_axes.flat)
    assert not pyplot.get_fignums()
    for wrong, error in ("axes", TypeError), (list(grid_of_axes.flat)[1:], ValueError), ([3] * panels, TypeError):
        with pytest.raises(error, match="ax "):
            draw(wrong)


@pytest.mark.parametrize(("panels", "draw"), SEVERAL.values(), ids=SEVERAL)
def test_the_place_of_a_single_axes_is_divided(panels, draw):
    figure = Figure(layout="constrained", figsize=(10, 10))
    above, below = figure.subplots(2, 1)
    drawn = draw(below)
    assert len(drawn) == panels
    figure.draw_without_rendering()
    assert not below.axison
    places = [axes.get_position() for axes in drawn]
    for axes, place in zip(drawn, places, strict=True):
        assert axes.get_figure() is figure and axes.has_data()
        assert place.x0 >= 0 and place.x1 <= 1 and place.y0 >= 0 and place.y1 <= above.get_position().y0
    assert not any(one.overlaps(other) for one, other in itertools.combinations(places, 2))
    assert not pyplot.get_fignums()


@pytest.mark.parametrize(("panels", "draw"), SEVERAL.values(), ids=SEVERAL)
def test_a_fixed_place_cannot_be_divided(panels, draw):
    with pytest.raises(ValueError, match=f"pass {panels} axes"):
        draw(Figure().add_axes((0.1, 0.1, 0.8, 0.8)))


def test_a_figure_of_its_own_is_pyplots():
    axes = plot_decision(AND, resolution=5)
    assert pyplot.gcf() is axes.get_figure()


def test_matplotlib_is_imported_only_to_draw():
    program = """
import sys
import nnfast
assert not any(name.split(".")[0] == "matplotlib" for name in sys.modules)
sys.modules["matplotlib"] = None
try:
    nnfast.plot_activation_functions()
except ImportError as error:
    assert "nnfast[plot]" in str(error), error
else:
    raise AssertionError("drawn without matplotlib")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_pictures_are_the_packages():
    for function in plot_activation_functions, plot_activations, plot_decision, plot_history, plot_weights:
        assert getattr(nnfast, function.__name__) is function
