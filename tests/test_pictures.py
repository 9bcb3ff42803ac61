"""The two pictures show what happened: these tests look at the figures, and at the files as images."""

import subprocess
import sys

import numpy as np
import pytest
import reference

from nnfast import Affine, History, Network, Relu, _pictures, load_digits

pytest.importorskip("matplotlib")
from matplotlib.image import imread


def history(epochs):
    falling = [1 / epoch for epoch in range(1, epochs + 1)]
    return History(
        loss=[2 * value for value in falling], validation_loss=[3 * value for value in falling],
        accuracy=[1 - value / 2 for value in falling], validation_accuracy=[1 - value / 4 for value in falling],
        seconds=[0.1] * epochs,
    )


def classified(total, mistakes, side=28):
    """Images whose pixels tell them apart, labels, and predictions of which every seventh is wrong at first."""
    x = np.random.default_rng(0).random((total, side * side), np.float32)
    t = (np.arange(total) % 10).astype(np.uint8)
    predicted = t.astype(np.int64)
    wrong = (np.arange(mistakes) * 7) % total
    predicted[wrong] = (predicted[wrong] + 3) % 10
    return x, t, predicted


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, laid out but not saved."""
    drawn = []

    def keep(figure, path):
        figure.draw_without_rendering()
        drawn.append(figure)
        return path

    monkeypatch.setattr(_pictures, "_save", keep)
    return drawn


# Curves


@pytest.mark.parametrize("epochs", [1, 2, 17, 40, 41, 200])
def test_curves_are_the_history(figures, tmp_path, epochs):
    _pictures.save_curves(history(epochs), tmp_path / "curves.png")
    [figure] = figures
    loss, accuracy = figure.axes
    for axes, names in (loss, ("loss", "validation_loss")), (accuracy, ("accuracy", "validation_accuracy")):
        training, test = axes.lines
        np.testing.assert_array_equal(training.get_ydata(), getattr(history(epochs), names[0]))
        np.testing.assert_array_equal(test.get_ydata(), getattr(history(epochs), names[1]))
        np.testing.assert_array_equal(test.get_xdata(), np.arange(1, epochs + 1))
        assert [text.get_text().split(",")[0] for text in axes.get_legend().get_texts()] == ["training", "validation"]
        assert training.get_color() != test.get_color()
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylabel()
    assert "Loss" in loss.get_title("left")
    assert f"{1 - 1 / epochs / 4:.2%}" in accuracy.get_title("left")


@pytest.mark.parametrize("epochs", [1, 2, 17, 40, 41, 200])
def test_curves_are_all_inside_the_picture_and_epochs_are_whole(figures, tmp_path, epochs):
    _pictures.save_curves(history(epochs), tmp_path / "curves.png")
    [figure] = figures
    reference.assert_nothing_sticks_out(figure)
    for axes in figure.axes:
        low, high = axes.get_ylim()
        for line in axes.lines:
            assert low < min(line.get_ydata()) and max(line.get_ydata()) < high
        seen = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
        assert seen
        assert all(tick == int(tick) for tick in seen)


def test_a_single_epoch_can_be_seen(figures, tmp_path):
    _pictures.save_curves(history(1), tmp_path / "curves.png")
    assert all(line.get_marker() == "o" for axes in figures[0].axes for line in axes.lines)


# Mistakes


@pytest.mark.parametrize("side", [8, 28])
@pytest.mark.parametrize("mistakes", [1, 7, 8, 9, 39, 40])
def test_every_mistake_is_shown_with_its_label_and_what_it_was_taken_for(figures, tmp_path, mistakes, side):
    x, t, predicted = classified(1000, mistakes, side)
    _pictures.save_mistakes(x, t, predicted, tmp_path / "mistakes.png")
    [figure] = figures
    wrong = [place for place in range(1000) if t[place] != predicted[place]]
    assert len(figure.axes) == len(wrong) == mistakes
    for axes, place in zip(figure.axes, wrong, strict=True):
        [image] = axes.images
        np.testing.assert_array_equal(image.get_array(), x[place].reshape(side, side))
        assert axes.get_title() == f"{t[place]} taken for {predicted[place]}"
    assert figure.get_suptitle() == f"{mistakes} of 1,000 test images wrong"
    reference.assert_nothing_sticks_out(figure)


@pytest.mark.parametrize("mistakes", [41, 500])
def test_of_many_mistakes_the_first_40_are_shown(figures, tmp_path, mistakes):
    x, t, predicted = classified(10_000, mistakes)
    _pictures.save_mistakes(x, t, predicted, tmp_path / "mistakes.png")
    [figure] = figures
    assert len(figure.axes) == 40
    np.testing.assert_array_equal(figure.axes[39].images[0].get_array(), x[39 * 7].reshape(28, 28))
    assert figure.get_suptitle() == f"{mistakes} of 10,000 test images wrong, of which these are the first 40"
    reference.assert_nothing_sticks_out(figure)


def test_no_mistake_is_said_in_words(figures, tmp_path):
    _pictures.save_mistakes(*classified(360, 0), tmp_path / "mistakes.png")
    [figure] = figures
    assert [text.get_text() for text in figure.texts] == ["All 360 test images right"]
    assert figure.axes == []


def test_ink_is_dark_and_paper_is_white(figures, tmp_path):
    x, t, predicted = classified(360, 1)
    _pictures.save_mistakes(x, t, predicted, tmp_path / "mistakes.png")
    [image] = figures[0].axes[0].images
    assert image.get_clim() == (0, 1)     # also where an image has neither
    assert image.to_rgba(np.array([[0.0, 1.0]]))[0, :, :3].tolist() == [[1, 1, 1], [0, 0, 0]]


# Files


def test_the_files_are_png_images_and_nothing_else_is_left(tmp_path):
    (x, t), validation_data = load_digits()
    network = Network([Affine(64, 10), Relu(), Affine(10, 10)], seed=0)
    trained = network.fit(x, t, epochs=2, validation_data=validation_data)
    curves, mistakes = tmp_path / "curves.png", tmp_path / "mistakes.png"
    curves.write_text("an older one")

    assert _pictures.save_curves(trained, curves) == curves
    predicted = network.predict(validation_data[0]).argmax(axis=1)
    assert _pictures.save_mistakes(*validation_data, predicted, mistakes) == mistakes
    for path in curves, mistakes:
        height, width, _ = imread(path).shape
        assert 600 <= width <= 2000 and 400 <= height <= 2000
    assert sorted(tmp_path.iterdir()) == [curves, mistakes]


def test_a_picture_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    occupied = tmp_path / "occupied.png"
    occupied.mkdir()
    with pytest.raises(OSError, match=r"occupied\.png cannot be written"):
        _pictures.save_curves(history(2), occupied)
    assert list(tmp_path.iterdir()) == [occupied]


def test_matplotlib_is_imported_only_to_draw_and_pyplot_never(tmp_path):
    program = """
import sys
from pathlib import Path
from nnfast import History, _pictures
assert not any(name.split(".")[0] == "matplotlib" for name in sys.modules)
_pictures.save_curves(History([1.0], [0.5], [1.0], [0.5], [0.1]), Path("curves.png"))
assert "matplotlib.figure" in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_without_matplotlib_drawing_is_an_import_error(monkeypatch, tmp_path):
    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError):
        _pictures.save_curves(history(1), tmp_path / "curves.png")
