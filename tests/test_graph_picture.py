"""Pictures of graphs and networks: what stands on them is what was computed, read back off the figure."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

from nnfast import (
    Affine,
    BatchNormalization,
    Dropout,
    IdentityWithLoss,
    Network,
    Relu,
    Sigmoid,
    SigmoidWithLoss,
    Tanh,
    _graph_picture,
    graph,
)
from nnfast.graph import Variable


def texts(picture):
    return [text.get_text() for text in picture.axes.texts if text.get_text()]


def written_in(picture, colour):
    return [text.get_text() for text in picture.axes.texts if text.get_text() and text.get_color() == colour]


def apples_and_oranges():
    apple, apples, orange, oranges, tax = (
        Variable(100, "apple"), Variable(2, "apples"), Variable(150, "orange"), Variable(3, "oranges"), Variable(1.1, "tax"))
    price = (apple * apples + orange * oranges) * tax
    price.name = "price"
    return price


def test_chapter_5s_picture_has_its_values_above_and_its_gradients_below():
    price = apples_and_oranges()
    before = graph.draw(price)
    assert written_in(before, _graph_picture.BACKWARD) == []
    price.backward()
    picture = graph.draw(price)
    assert sorted(written_in(picture, _graph_picture.BACKWARD)) == sorted(
        ["2.2", "110", "3.3", "165", "1.1", "1.1", "1.1", "650", "1"])
    above = written_in(picture, _graph_picture.FORWARD)
    for expected in ("100", "2", "150", "3", "1.1", "200", "450", "650", "715", "apple", "oranges", "tax", "price", "+"):
        assert expected in above
    assert above.count("\N{MULTIPLICATION SIGN}") == 3
    assert sum(isinstance(patch, Circle) for patch in picture.axes.patches) == 4


def test_a_gradient_stands_below_its_value():
    price = apples_and_oranges()
    price.backward()
    by_text = {text.get_text(): text for text in graph.draw(price).axes.texts}
    for value, gradient in (("100", "2.2"), ("2", "110"), ("150", "3.3"), ("715", "1")):
        above, below = by_text[value], by_text[gradient]
        assert above.get_position()[1] > below.get_position()[1]
        assert above.get_verticalalignment() == "bottom" and below.get_verticalalignment() == "top"


def test_everything_flows_from_left_to_right():
    result = graph.softmax_with_loss(graph.affine(graph.relu(Variable(np.ones((2, 3)), "x")), np.ones((3, 4)), np.ones(4)), [0, 1])
    places = {text.get_text(): text.get_position()[0] for text in graph.draw(result).axes.texts}
    assert places["x"] < places["ReLU"] < places["Affine"] < places["Softmax\nwith loss"]


def test_a_value_that_is_used_twice_shows_its_sum():
    x = Variable(3.0, "x")
    y = x * x + x
    y.backward()
    picture = graph.draw(y)
    assert "in all 7" in texts(picture)
    assert written_in(picture, _graph_picture.BACKWARD).count("3") == 2


def test_arrays_are_written_out_if_short_and_as_shapes_if_not(rng):
    W = Variable(rng.standard_normal((784, 50)), "W")
    y = Variable(np.ones((3, 784)), "x") @ W
    y.backward(np.ones((3, 50)))
    assert {"784 \N{MULTIPLICATION SIGN} 50", "3 \N{MULTIPLICATION SIGN} 784", "3 \N{MULTIPLICATION SIGN} 50"} <= set(
        texts(graph.draw(y)))
    assert "[1 2.5]" in texts(graph.draw(Variable([1.0, 2.5], "v") + 1))


@pytest.mark.parametrize("build", [
    apples_and_oranges,
    lambda: 1 / (1 + graph.exp(-Variable(0.7, "x"))),
    lambda: sum((Variable(i) * Variable(i + 1) for i in range(9)), Variable(0)),
    lambda: Variable(2) * Variable(3) * Variable(4) + Variable(5) * Variable(6) * Variable(7),
    lambda: graph.affine(graph.affine(np.ones((2, 2)), np.ones((2, 2)), np.ones(2)), np.ones((2, 2)), np.ones(2)),
])
def test_no_two_nodes_lie_on_each_other(build):
    result = build()
    drawing = _graph_picture.of_variables(result, graph._inputs_first(result))
    places = np.array([_graph_picture._place(mark) for mark in drawing.marks])
    distances = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) + 10 * np.eye(len(places))
    assert distances.min() > 2 * _graph_picture._RADIUS


def test_a_given_value_alone_has_a_picture():
    assert "5" in texts(graph.draw(Variable(5, "x")))


def test_axes_that_are_given_are_drawn_upon():
    ax = Figure().add_subplot()
    picture = graph.draw(apples_and_oranges(), ax=ax)
    assert picture.axes is ax and picture.figure is ax.figure


def test_a_picture_is_saved_by_its_ending_and_shown_by_a_notebook(tmp_path):
    picture = graph.draw(apples_and_oranges())
    assert picture.save(tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in picture.save(str(tmp_path / "graph.svg")).read_text()
    assert picture.save(tmp_path / "graph.PDF").read_bytes().startswith(b"%PDF")
    assert "<svg" in picture._repr_svg_() and picture._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"^the ending of path is '.gif', but must be one of .svg, .png, .pdf$"):
        picture.save(tmp_path / "graph.gif")
    with pytest.raises(FileNotFoundError, match=r"cannot be written: no such file or directory$"):
        picture.save(tmp_path / "nowhere" / "graph.png")
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["graph.PDF", "graph.png", "graph.svg"]


def test_what_is_no_variable_is_refused():
    with pytest.raises(TypeError, match=r"^result is a float, but must be a Variable$"):
        graph.draw(2.0)


# Networks


def rms(array):
    return f"rms {np.sqrt(np.mean(np.square(array))):.2g}"


def test_a_network_shows_layers_shapes_sizes_and_numbers_of_parameters(rng):
    network = Network([Affine(784, 50), Relu(), Affine(50, 10)], seed=0, dtype="float64")
    x, t = rng.random((100, 784)), rng.integers(0, 10, 100)
    picture = network.draw(x, t)
    found = texts(picture)
    for expected in ("Affine1", "Relu1", "Affine2", "SoftmaxWithLoss", "39,250 parameters", "510 parameters", "784 units",
                     "50 units", "10 units", f"{network.loss(x, t):.4g}"):
        assert expected in found
    network.gradient(x, t)
    y1 = network.layers["Affine1"].forward(x)
    y2 = network.layers["Relu1"].forward(y1)
    scores = network.layers["Affine2"].forward(y2)
    network.last_layer.forward(scores, t)
    dscores = network.last_layer.backward()
    dy2 = network.layers["Affine2"].backward(dscores)
    dy1 = network.layers["Relu1"].backward(dy2)
    dx = network.layers["Affine1"].backward(dy1)
    values = [text for text in written_in(picture, _graph_picture.FORWARD) if "rms" in text]
    gradients = [text for text in written_in(picture, _graph_picture.BACKWARD) if "rms" in text]
    assert values == [f"100 \N{MULTIPLICATION SIGN} {array.shape[1]}\n{rms(array)}" for array in (x, y1, y2, scores)]
    assert gradients == [f"100 \N{MULTIPLICATION SIGN} {array.shape[1]}\n{rms(array)}" for array in (dx, dy1, dy2, dscores)]
    assert sum(isinstance(patch, FancyBboxPatch) for patch in picture.axes.patches) == 4


@pytest.mark.parametrize("units", [1, 2, 6, 7, 8, 1000])
def test_a_wide_layer_is_folded_and_its_number_of_units_written(units):
    network = Network([Affine(units, 3)], seed=0)
    picture = network.draw(np.ones((2, units)), [0, 1])
    circles = [patch for patch in picture.axes.patches if isinstance(patch, Circle)]
    assert len(circles) == min(units, 7) - (units > 7) + 3
    assert texts(picture).count("\N{VERTICAL ELLIPSIS}") == (units > 7)
    assert (f"{units:,} units" if units > 1 else "1 unit") in texts(picture)


@pytest.mark.parametrize("depth", [1, 6, 7, 12, 13, 100])
def test_a_deep_network_is_folded_and_stays_within_a_page(depth):
    network = Network([Affine(3, 3) for _ in range(depth - 1)], IdentityWithLoss(), seed=0) if depth > 1 else Network([Tanh()])
    picture = network.draw(np.ones((2, 3)), np.zeros((2, 3)) if depth > 1 else [0, 1])
    boxes = [patch for patch in picture.axes.patches if isinstance(patch, FancyBboxPatch)]
    layers = depth if depth > 1 else 2
    assert len(boxes) == min(layers, 12)
    width, height = picture.figure.get_size_inches()
    assert width < 21 and height < 12
    parameters = sum(int(text.split()[0].replace(",", "")) for text in texts(picture) if "parameters" in text)
    assert parameters == sum(array.size for array in network.params.values())
    if depth > 12:
        assert f"{depth - 11} layers" in texts(picture)


def test_long_names_stay_inside_their_boxes(rng):
    network = Network({"a_layer_with_quite_a_long_name": Affine(5, 4), "norm": BatchNormalization(4)}, seed=0)
    picture = network.draw(rng.random((6, 5)), [0, 1, 2, 3, 0, 1])
    renderer = FigureCanvasAgg(picture.figure).get_renderer()
    boxes = [patch.get_window_extent(renderer) for patch in picture.axes.patches if isinstance(patch, FancyBboxPatch)]
    names = [text.get_window_extent(renderer) for text in picture.axes.texts
             if text.get_text() in (*network.layers, "SoftmaxWithLoss")]
    assert len(boxes) == len(names) == 3
    for box, name in zip(boxes, names, strict=True):
        assert box.x0 < name.x0 and name.x1 < box.x1


def test_drawing_changes_nothing_and_leaves_dropout_off(rng):
    network = Network([Affine(5, 4), BatchNormalization(4), Sigmoid(), Dropout(0.5), Affine(4, 1)], SigmoidWithLoss(), seed=1)
    x, t = rng.random((6, 5)), rng.integers(0, 2, 6)
    network.gradient(x, t)
    before, state = [array.copy() for array in network.state()], network.generator.bit_generator.state
    first, second = (texts(network.draw(x, t)) for _ in range(2))
    assert first == second and "Dropout1" in first
    for array, kept in zip(network.state(), before, strict=True):
        np.testing.assert_array_equal(array, kept)
    assert network.generator.bit_generator.state == state


def test_layers_of_the_users_are_drawn(rng):
    class Double:
        def forward(self, x):
            return np.concatenate([x, x], axis=1)

        def backward(self, dout):
            return dout[:, : dout.shape[1] // 2] + dout[:, dout.shape[1] // 2 :]

    picture = Network([Affine(5, 4), Double(), Affine(8, 3)], seed=0).draw(rng.random((6, 5)), [0, 1, 2, 0, 1, 2])
    assert {"Double1", "8 units", "4 units"} <= set(texts(picture))


@pytest.mark.parametrize(("x", "t", "message"), [
    (np.ones((2, 4)), [0, 1], "x has 4 columns, but layer 1"),
    (np.ones((2, 5)), [0, 3], r"t\[1\] is 3"),
    (np.ones((0, 5)), [], "x has no rows"),
])
def test_what_does_not_fit_the_network_is_refused(x, t, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Network([Affine(5, 3)]).draw(x, t)


def test_pyplot_knows_nothing_of_the_pictures():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    graph.draw(apples_and_oranges())
    assert pyplot.get_fignums() == before


def test_values_are_written_short():
    written = _graph_picture.written
    assert [written(value) for value in (None, 2, 0.1 + 0.2, 1e-7, np.float32(1.5), 123456789)] == [
        "", "2", "0.3", "1e-07", "1.5", "1.235e+08"]
    assert re.fullmatch(r"\[1 2 3 4\]", written([1, 2, 3, 4])) and written(np.ones(1000)) == "1,000"
