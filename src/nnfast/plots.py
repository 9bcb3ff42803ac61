"""Pictures of training: how it went, the weights, the activations, the regions that classes take.

Each function draws on the matplotlib axes that it is given, or on those of a new pyplot figure, and returns them: a
notebook shows the figure, a script calls ``matplotlib.pyplot.show()``. Needs matplotlib (``pip install "nnfast[plot]"``).
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _decisions, _numerical_gradient, _validation
from nnfast.activations import Gelu, Identity, LeakyRelu, Relu, Sigmoid, Tanh
from nnfast.functions import step_function

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnfast.network import Network
    from nnfast.trainer import History

__all__ = ["plot_activation_functions", "plot_activations", "plot_decision", "plot_history", "plot_weights"]

TRAINING_COLOUR, VALIDATION_COLOUR = "#1f77b4", "#d95f02"     # told apart by the colour-blind, too

_MOST_MARKERS = 40
_LOG_SCALE_FROM = 20        # times the smallest loss, the largest: on a linear scale the end would be a line on the axis
_ACTIVATIONS = (Relu, Sigmoid, Tanh, LeakyRelu, Gelu, Identity)
_RANGES: dict[type, tuple[float, float]] = {Sigmoid: (0.0, 1.0), Tanh: (-1.0, 1.0)}
_MOST_IN_A_ROW = 5          # histograms
_AROUND = 0.15              # of the data's extent: the room that a decision's picture leaves on each side
_MOST_COLOURS = 10          # of matplotlib's tab10


# History

def plot_history(history: "History", *, ax: "Axes | Sequence[Axes] | None" = None) -> "list[Axes]":
    """Loss by epoch and, for a classifier, accuracy by epoch; training beside validation.

    The loss has a logarithmic scale where its largest value is at least 20 times its smallest.

    Parameters
    ----------
    history : History
        What `Network.fit` returned, of one epoch at least.
    ax : matplotlib.axes.Axes or sequence of them, keyword-only, optional
        Axes for each of the two curves, or one whose place is divided; a new figure if not given.

    Returns
    -------
    list of matplotlib.axes.Axes
        Of the loss and, if there is one, of the accuracy.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If `history` is none or has no epoch, or `ax` is not as many axes.

    Examples
    --------
    >>> from nnfast import History
    >>> loss, accuracy = plot_history(History(loss=[2.0, 1.0], accuracy=[0.5, 0.75]))
    >>> accuracy.lines[0].get_ydata().tolist()
    [0.5, 0.75]
    """
    _validation.has_epochs(history)
    panels = _panels(2 if history.accuracy else 1, 2, (5.5, 4.4), ax)
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    _draw_curves(panels[0], history.loss, history.validation_loss)
    panels[0].set_title("Loss", loc="left", weight="bold")
    panels[0].set_ylabel("loss")
    losses = history.loss + history.validation_loss
    if 0 < _LOG_SCALE_FROM * min(losses) <= max(losses):
        panels[0].set_yscale("log")
    elif min(losses) >= 0:
        panels[0].set_ylim(0, 1.08 * max(losses) or 1)
    if history.accuracy:
        _draw_curves(panels[1], history.accuracy, history.validation_accuracy)
        panels[1].set_title("Accuracy", loc="left", weight="bold")
        panels[1].set_ylabel("examples classified right")
        panels[1].yaxis.set_major_formatter(PercentFormatter(1))
    for panel in panels:
        panel.set_xlabel("epoch")
        panel.set_xlim(0.5, len(history.loss) + 0.5)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        panel.grid(color="0.9")
        panel.legend(frameon=False)
        _without_box(panel)
    return panels


def _draw_curves(axes: "Axes", training: Sequence[float], validation: Sequence[float]) -> None:
    # A single epoch has no line to see, and many have no room for markers.
    style: dict[str, Any] = {"marker": "o", "markersize": 4} if len(training) <= _MOST_MARKERS else {}
    axes.plot(range(1, len(training) + 1), training, color=TRAINING_COLOUR, label="training, during the epoch", **style)
    if validation:
        axes.plot(range(1, len(validation) + 1), validation, color=VALIDATION_COLOUR,
                  label="validation, after the epoch", **style)


# Weights

def plot_weights(
    network: Any, *, shape: tuple[int, int] | None = None, units: int = 64, ax: "Axes | None" = None
) -> "Axes":
    """The weights of the first layer, an image for each unit: what input makes it fire.

    Blue is above 0, red below, white 0, on one scale for all units.

    Parameters
    ----------
    network : Network, or any object with a dict `params`
        Its first two-dimensional parameter, shape (I, O), is drawn.
    shape : tuple of two int, keyword-only, optional
        Height and width of the inputs as an image; a square if not given.
    units : int, keyword-only, default 64
        At most so many are shown, the first.
    ax : matplotlib.axes.Axes, keyword-only, optional
        Where to draw; a new figure if not given.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If the network has no weights, or its inputs are no image of that shape.

    Examples
    --------
    >>> from nnfast import Affine, Network
    >>> axes = plot_weights(Network([Affine(64, 50)], seed=0))
    >>> axes.get_title("left")
    'W1: 50 units'
    """
    key, W = _first_weights(network)
    height, width = _validation.image_shape("shape", shape, W.shape[0])
    shown = min(_validation.check_count("units", units), W.shape[1])
    columns = math.ceil(math.sqrt(shown))
    rows = math.ceil(shown / columns)
    # One image of all units, with a line of pixels between each two: far quicker than axes for each.
    mosaic = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for unit in range(shown):
        top, left = unit // columns * (height + 1), unit % columns * (width + 1)
        mosaic[top : top + height, left : left + width] = W[:, unit].reshape(height, width)
    [axes] = _panels(1, 1, (6.4, 5.6), ax)
    largest = float(np.abs(W[:, :shown]).max()) or 1.0
    image = axes.imshow(mosaic, cmap="RdBu", vmin=-largest, vmax=largest, interpolation="nearest")
    axes.get_figure().colorbar(image, ax=axes, shrink=0.8)    # type: ignore[union-attr]
    of_all = f" of {W.shape[1]:,}" if shown < W.shape[1] else ""
    axes.set_title(f"{key}: {shown:,}{of_all} unit{'s' if W.shape[1] > 1 else ''}", loc="left", weight="bold")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def _first_weights(network: Any) -> tuple[str, np.ndarray]:
    matrices = {key: array for key, array in _validation.params_of(network).items() if np.ndim(array) == 2}
    key = next(iter(_validation.any_of("two-dimensional parameter", matrices)))
    return key, np.asarray(matrices[key])


# Activations

def plot_activations(
    network: "Network",
    x: ArrayLike,
    *,
    bins: int = 30,
    limits: tuple[float, float] | None = None,
    ax: "Axes | Sequence[Axes] | None" = None,
) -> "list[Axes]":
    """Histograms of what the activation functions give, layer by layer: whether signals spread, vanish or saturate.

    Chapter 6's figure on the initial values of weights. The pass is that of `Network.draw`: float64, Dropout as in
    prediction, BatchNormalization as in training; nothing in the network changes.

    Parameters
    ----------
    network : Network
        With at least one layer of an activation function.
    x : array_like
        Inputs, shape (B, I).
    bins : int, keyword-only, default 30
        Bars of a histogram.
    limits : tuple of two float, keyword-only, optional
        The least and the greatest value that is shown, and how many lie outside is written; if not given, those that
        the function can take where it is bounded on both sides, else all values of all layers.
    ax : matplotlib.axes.Axes or sequence of them, keyword-only, optional
        Axes for each layer, or one whose place is divided; a new figure if not given.

    Returns
    -------
    list of matplotlib.axes.Axes
        One for each layer of an activation function. Heights are shares of all the layer's values.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If an argument does not fit the network, an activation is not finite, or `ax` is not as many axes.

    Examples
    --------
    >>> from nnfast import Affine, Network, Sigmoid
    >>> network = Network([Affine(9, 9), Sigmoid(), Affine(9, 9), Sigmoid()], seed=0)
    >>> first, second = plot_activations(network, np.eye(9))
    >>> print(round(sum(bar.get_height() for bar in first.patches), 9))
    1.0
    """
    bars = _validation.check_count("bins", bins)
    values = _activations(network, x)
    limits = _natural_limits(network, values) if limits is None else _validation.interval("limits", limits)
    panels = _panels(len(values), _MOST_IN_A_ROW, (2.6, 2.9), ax)
    from matplotlib.ticker import PercentFormatter

    highest = 0.0
    for panel, (name, array) in zip(panels, values.items(), strict=True):
        counts, edges = np.histogram(array, bars, limits)
        shares = counts / array.size
        highest = max(highest, float(shares.max()))
        panel.bar(edges[:-1], shares, np.diff(edges), align="edge", color=TRAINING_COLOUR)
        outside = array.size - int(counts.sum())
        note = f"\n{outside / array.size:.1%} outside" if outside else ""
        panel.set_title(f"{name}\nmean {array.mean():.2g}, std {array.std():.2g}{note}", fontsize=10)
        panel.set_xlim(limits)
        panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _without_box(panel)
    for panel in panels:
        panel.set_ylim(0, 1.05 * highest or 1)
    panels[0].set_ylabel("share of the values")
    return panels


def _activations(network: "Network", x: ArrayLike) -> dict[str, np.ndarray]:
    """Outputs of the layers that are activation functions, by the layers' names."""
    names = [name for name, layer in getattr(network, "layers", {}).items() if isinstance(layer, _ACTIVATIONS)]
    _validation.any_of("layer of an activation function", names)
    rows = _validation.not_empty("x", network._input(x))
    inputs, scores = _numerical_gradient.layer_inputs(_numerical_gradient.float64_copy(network), rows)
    order = list(network.layers)
    outputs = dict(zip(order, [*list(inputs.values())[1:], scores], strict=True))
    return {name: _validation.has_histogram(name, outputs[name]) for name in names}


def _natural_limits(network: "Network", values: dict[str, np.ndarray]) -> tuple[float, float]:
    """The same for all layers, so that they can be compared."""
    kinds = {type(network.layers[name]) for name in values}
    if kinds <= _RANGES.keys():
        return min(_RANGES[kind][0] for kind in kinds), max(_RANGES[kind][1] for kind in kinds)
    low, high = min(float(array.min()) for array in values.values()), max(float(array.max()) for array in values.values())
    return (low, high) if low < high else (low - 0.5, high + 0.5)


# Decisions

def plot_decision(
    classifier: Any,
    x: ArrayLike | None = None,
    t: ArrayLike | None = None,
    *,
    limits: tuple[float, float, float, float] | None = None,
    resolution: int = 200,
    ax: "Axes | None" = None,
) -> "Axes":
    """The region that each class takes in the plane of two inputs, the lines between them, and the examples.

    Parameters
    ----------
    classifier : Network, Perceptron, any object with ``predict(x)``, or function
        ``predict``, or a function of one argument, gets rows of two inputs and gives a label for each, or a row of
        scores: the class is the largest, and with one score 1 where it is above 0. A function of two arguments, as
        `nnfast.perceptron.XOR`, gets two numbers and gives a label.
    x : array_like, optional
        Examples to be drawn, shape (B, 2).
    t : array_like, optional
        Their classes, as labels or one-hot rows.
    limits : tuple of four float, keyword-only, optional
        Left, right, bottom and top; if not given, around the examples, and without any from -0.5 to 1.5.
    resolution : int, keyword-only, default 200
        Points in each direction at which the classifier is asked, at least 2.
    ax : matplotlib.axes.Axes, keyword-only, optional
        Where to draw; a new figure if not given.

    Returns
    -------
    matplotlib.axes.Axes
        Its image has the number of the class at each point, from the bottom up.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If the classifier is none or takes other than two inputs, or an argument does not fit it.

    Examples
    --------
    >>> from nnfast.perceptron import XOR
    >>> axes = plot_decision(XOR, resolution=2, limits=(0, 1, 0, 1))
    >>> axes.images[0].get_array().tolist()
    [[0, 1], [1, 0]]
    """
    points = None if x is None else _validation.points("x", x)
    left, right, bottom, top = _around(points) if limits is None else _validation.rectangle("limits", limits)
    steps = _validation.check_count("resolution", resolution, 2)
    across, up = np.linspace(left, right, steps), np.linspace(bottom, top, steps)
    grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    answers = _validation.answers(_decisions.decide(classifier, grid), len(grid))
    names, classes, margins = _decisions.regions(answers)
    labels = None
    if t is not None:
        names, classes, margins, labels = _decisions.with_labels(
            names, classes, margins, t, len(_validation.examples_of_labels(points)), answers.ndim == 2)
    [axes] = _panels(1, 1, (5.2, 4.8), ax)
    _draw_regions(axes, across, up, names, classes, margins)
    if points is not None:
        _draw_points(axes, points, labels, names)
    axes.set(xlim=(left, right), ylim=(bottom, top), xlabel="$x_1$", ylabel="$x_2$")
    return axes


def _around(points: np.ndarray | None) -> tuple[float, float, float, float]:
    if points is None:
        return -0.5, 1.5, -0.5, 1.5
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.where(high > low, _AROUND * (high - low), 0.5)
    (left, bottom), (right, top) = (low - room).tolist(), (high + room).tolist()
    return left, right, bottom, top


def _draw_regions(
    axes: "Axes", across: np.ndarray, up: np.ndarray, names: Sequence[Any], classes: np.ndarray, margins: np.ndarray
) -> None:
    from matplotlib.colors import ListedColormap

    shape = len(up), len(across)
    half_x, half_y = (across[1] - across[0]) / 2, (up[1] - up[0]) / 2
    pale = 1 - 0.35 * (1 - _colours(len(names)))
    axes.imshow(classes.reshape(shape), cmap=ListedColormap(pale.tolist()), vmin=-0.5, vmax=len(names) - 0.5,
                extent=(across[0] - half_x, across[-1] + half_x, up[0] - half_y, up[-1] + half_y),
                origin="lower", interpolation="nearest", aspect="auto", zorder=0)
    # Of two classes one line says all; a class that is nowhere, or everywhere, has none.
    for place in range(1 if len(names) == 2 else 0, len(names)):
        margin = margins[:, place].reshape(shape)
        if margin.min() < 0 < margin.max():
            axes.contour(across, up, margin, [0.0], colors="0.2", linewidths=1.5, linestyles="solid")


def _draw_points(axes: "Axes", points: np.ndarray, labels: np.ndarray | None, names: Sequence[Any]) -> None:
    style: dict[str, Any] = {"s": 36, "edgecolor": "white", "linewidth": 0.8, "zorder": 3}
    if labels is None:
        axes.scatter(*points.T, color="0.2", **style)
        return
    colours = _colours(len(names))
    for place in np.unique(labels):
        axes.scatter(*points[labels == place].T, color=colours[place], label=str(names[place]), **style)
    axes.legend(title="class", loc="upper right", framealpha=0.9)


def _colours(count: int) -> np.ndarray:
    """One for each class, shape (C, 3)."""
    import matplotlib

    name = "tab10" if count <= _MOST_COLOURS else "turbo"
    places: Any = range(count) if count <= _MOST_COLOURS else np.linspace(0, 1, count)
    return np.array([matplotlib.colormaps[name](place)[:3] for place in places])


# Activation functions

_SHEET: dict[str, Callable[[], Any]] = {
    "sigmoid": Sigmoid, "ReLU": Relu, "tanh": Tanh, "leaky ReLU": LeakyRelu, "GELU": Gelu,
}


def plot_activation_functions(*, limit: float = 5.0, ax: "Axes | Sequence[Axes] | None" = None) -> "list[Axes]":
    """The activation functions of chapter 3 and the library's others on one sheet, with their derivatives.

    Values and derivatives are those that the layers' ``forward`` and ``backward`` give: at 0 the derivative of ReLU is
    what this library takes it to be.

    Parameters
    ----------
    limit : float, keyword-only, default 5.0
        Inputs are from ``-limit`` to ``limit``, above 0.
    ax : matplotlib.axes.Axes or sequence of them, keyword-only, optional
        Six axes, or one whose place is divided; a new figure if not given.

    Returns
    -------
    list of matplotlib.axes.Axes
        Step, sigmoid, ReLU, tanh, leaky ReLU, GELU; on each the function and then its derivative.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If `limit` is no number above 0, or `ax` is not as many axes.

    Examples
    --------
    >>> step, sigmoid, *others = plot_activation_functions()
    >>> sigmoid.get_title("left")
    'sigmoid'
    """
    x = np.linspace(-1, 1, 401) * _validation.above_zero("limit", limit)     # 0 among them
    panels = _panels(1 + len(_SHEET), 3, (3.4, 2.7), ax)
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {"step": (step_function(x), np.zeros_like(x))}
    for name, kind in _SHEET.items():
        layer = kind()
        curves[name] = np.array(layer.forward(x)), np.array(layer.backward(np.ones_like(x)))
    for panel, (name, (y, dy)) in zip(panels, curves.items(), strict=True):
        panel.plot(x, y, color=TRAINING_COLOUR, label="function", linewidth=2)
        panel.plot(x, dy, color=VALIDATION_COLOUR, label="derivative", linewidth=1.5, linestyle="--")
        panel.set_title(name, loc="left", weight="bold")
        panel.grid(color="0.9")
        _without_box(panel)
    panels[0].legend(frameon=False)
    return panels


# Axes

def _panels(count: int, columns: int, size: tuple[float, float], ax: "Axes | Sequence[Axes] | None") -> "list[Axes]":
    """`count` axes: those given, those into which the place of a single one is divided, or new ones of so many inches."""
    _validation.matplotlib_is_installed()
    from matplotlib.axes import Axes

    columns = min(columns, count)
    rows = math.ceil(count / columns)
    if ax is None:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
        return [figure.add_subplot(rows, columns, place) for place in range(1, count + 1)]
    if not isinstance(ax, Axes):
        return list(_validation.each_an_axes("ax", ax, count, Axes))
    if count == 1:
        return [ax]
    place = _validation.divisible("ax", ax.get_subplotspec(), count)
    ax.set_axis_off()
    cells = place.subgridspec(rows, columns)
    figure = ax.get_figure()     # type: ignore[assignment]
    return [figure.add_subplot(cells[divmod(cell, columns)]) for cell in range(count)]


def _without_box(axes: "Axes") -> None:
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
