"""Two pictures of a training: how it went, and the images that the network gets wrong.

Drawn with matplotlib, an optional dependency, on figures of their own: neither pyplot nor anything else that the
caller's own pictures might share.
"""

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnfast import plots
from nnfast._files import put_in_place
from nnfast.trainer import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS, _COLUMNS = 5, 8


def save_curves(history: History, path: Path) -> Path:
    """Path of a new picture of loss and accuracy by epoch.

    Parameters
    ----------
    history : History
        Of a classifier's training with validation data; at least one epoch.
    path : Path
        A PNG file to be; one that is there is replaced.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the file cannot be written; nothing is left behind then.
    """
    figure = _figure(width=11, height=4.4)
    loss, accuracy = plots.plot_history(history, ax=figure.subplots(1, 2))
    loss.set_ylabel("cross-entropy error")
    accuracy.set_title(f"Accuracy: {history.validation_accuracy[-1]:.2%} of the test images in the end",
                       loc="left", weight="bold")
    return _save(figure, path)


def save_mistakes(x: np.ndarray, t: np.ndarray, predicted: np.ndarray, path: Path) -> Path:
    """Path of a new picture of the images that a network gets wrong, the first 40 if there are more.

    Parameters
    ----------
    x : ndarray
        Square images as rows of pixels, 0 for paper and 1 for ink, shape (B, side * side).
    t, predicted : ndarray of int
        What they show and what the network takes them for, shape (B,).
    path : Path
        A PNG file to be; one that is there is replaced.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the file cannot be written; nothing is left behind then.
    """
    wrong = np.flatnonzero(predicted != t)
    shown = wrong[: _ROWS * _COLUMNS]
    title = f"{len(wrong):,} of {len(t):,} test images wrong"
    if len(shown) < len(wrong):
        title += f", of which these are the first {len(shown)}"
    columns = min(len(shown), _COLUMNS)
    rows = math.ceil(len(shown) / _COLUMNS)
    side = math.isqrt(x.shape[1])

    figure = _figure(width=11, height=0.8 + 1.6 * rows)
    if len(wrong):
        figure.suptitle(title, weight="bold")
    else:
        all_right = f"All {len(t):,} test images right"
        figure.text(0.5, 0.5, all_right, size="large", weight="bold", ha="center", va="center")
    for cell, place in enumerate(shown, 1):
        axes = figure.add_subplot(rows, columns, cell)
        axes.imshow(x[place].reshape(side, side), cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(f"{t[place]} taken for {predicted[place]}", fontsize=10)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("0.8")
    return _save(figure, path)


def _figure(width: float, height: float) -> "Figure":
    """A figure of so many inches that pyplot knows nothing of."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure((width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.05))


def _save(figure: "Figure", path: Path) -> Path:
    contents = io.BytesIO()
    figure.savefig(contents, format="png", dpi=150)
    put_in_place(path, contents.getvalue())
    return path
