"""Pictures of computational graphs and of networks: values above the edges going forward, gradients below coming back.

Drawn with matplotlib, an optional dependency, on figures of their own that pyplot does not know.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _numerical_gradient, _validation
from nnfast._files import put_in_place
from nnfast.layers import SAME_WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nnfast.network import Network

FORWARD, BACKWARD = "#1a1a1a", "#c1440e"    # told apart by their places, and on paper without colour by their lightness
_GIVEN, _NODE = "#e8eef7", "#ffffff"
_INCHES_ACROSS, _INCHES_DOWN = 1.7, 1.1     # from one column or row to the next
_RADIUS = 0.3                               # of a node, in inches
_MOST_INCHES = 60
_LONGEST = 4                                # elements of an array that are written out


class Picture:
    """A picture, which a notebook shows by itself.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
    axes : matplotlib.axes.Axes
        To draw more upon.
    """

    def __init__(self, axes: "Axes") -> None:
        self.axes = axes
        self.figure: Figure = axes.get_figure(root=True)    # type: ignore[assignment]

    def save(self, path: str | Path) -> Path:
        """Path of a new file with the picture; one that is there is replaced.

        Parameters
        ----------
        path : str or Path
            Its ending says what it is: .svg, .png or .pdf.

        Returns
        -------
        Path
            `path`.

        Raises
        ------
        ValueError
            If the ending is another one.
        OSError
            If the file cannot be written; nothing is left behind then.
        """
        path = Path(path)
        kind = _validation.check_choice("the ending of path", path.suffix.lower(), [".svg", ".png", ".pdf"])
        put_in_place(path, self._contents(kind[1:]))
        return path

    def _contents(self, kind: str) -> bytes:
        contents = io.BytesIO()
        self.figure.savefig(contents, format=kind, dpi=150)
        return contents.getvalue()

    def _repr_svg_(self) -> str:
        return self._contents("svg").decode()

    def _repr_png_(self) -> bytes:
        return self._contents("png")


@dataclass
class Mark:
    """A node of a picture: a circle or box with some words, at a place in columns and rows."""

    text: str
    column: float
    row: float
    is_given: bool = False      # a value that was given, written without a frame
    caption: str = ""           # under it
    width: float = 0.0          # of a box, in inches; 0 for a circle


@dataclass
class Edge:
    """From one mark to another, with what is written above and below."""

    start: Mark
    end: Mark
    value: str
    gradient: str = ""
    at: float = 0.5             # where along the edge that is


@dataclass
class Drawing:
    """Marks and edges in columns and rows."""

    marks: list[Mark] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    columns_of_units: list[tuple[Edge, int]] = field(default_factory=list)

    def draw(self, ax: "Axes | None" = None) -> Picture:
        """On the axes given, or on new ones of the size that it takes."""
        columns = [mark.column for mark in self.marks]
        rows = [mark.row for mark in self.marks]
        across = (max(columns) - min(columns)) * _INCHES_ACROSS + 2.0
        above = _UNITS_ABOVE + 1.2 if self.columns_of_units else 0.65
        down = (max(rows) - min(rows)) * _INCHES_DOWN + above + 0.65
        if ax is None:
            ax = new_axes(min(across, _MOST_INCHES), min(down, _MOST_INCHES))
        left, top = min(columns) * _INCHES_ACROSS - 1.0, -min(rows) * _INCHES_DOWN + above
        ax.set(xlim=(left, left + across), ylim=(top - down, top), aspect="equal")
        ax.axis("off")
        for edge in self.edges:
            _draw_edge(ax, edge)
        for mark in self.marks:
            _draw_mark(ax, mark)
        _draw_units(ax, self.columns_of_units)
        return Picture(ax)


def new_axes(width: float, height: float) -> "Axes":
    """Axes that fill a figure of so many inches."""
    _validation.matplotlib_is_installed()
    from matplotlib.figure import Figure

    return Figure((width, height)).add_axes((0, 0, 1, 1))


def _place(mark: Mark) -> tuple[float, float]:
    return mark.column * _INCHES_ACROSS, -mark.row * _INCHES_DOWN


def _draw_mark(ax: "Axes", mark: Mark) -> None:
    from matplotlib.patches import Circle, FancyBboxPatch

    x, y = _place(mark)
    if mark.width:
        ax.add_patch(FancyBboxPatch((x - mark.width / 2, y - _RADIUS), mark.width, 2 * _RADIUS, boxstyle="round,pad=0.02",
                                    facecolor=_GIVEN, edgecolor=FORWARD, linewidth=1.2))
    elif not mark.is_given:
        ax.add_patch(Circle((x, y), _RADIUS, facecolor=_NODE, edgecolor=FORWARD, linewidth=1.2))
    size: float = 10 if mark.is_given else 9 if len(mark.text) > 3 else 13
    if mark.width:
        size = min(10, 118 * mark.width / max(len(mark.text), 1))     # so that long names fit
    ax.text(x, y, mark.text, ha="center", va="center", size=size, color=FORWARD)
    if mark.caption:
        below = 0.12 if mark.is_given else _RADIUS + 0.08
        # Edges leave a given value to the right.
        ax.text(x + 0.1 if mark.is_given else x, y - below, mark.caption, ha="right" if mark.is_given else "center",
                va="top", size=8, color=BACKWARD if mark.is_given else "0.35")


def _draw_edge(ax: "Axes", edge: Edge) -> None:
    """An arrow to the right and, below it, one back."""
    start, end = np.array(_place(edge.start)), np.array(_place(edge.end))
    along = (end - start) / np.hypot(*(end - start))
    across = np.array([-along[1], along[0]])
    first = start + along * _reach(edge.start, along)
    last = end - along * _reach(edge.end, along)
    lift = 0.06 if edge.gradient else 0.0
    _draw_arrow(ax, first + across * lift, last + across * lift, FORWARD)
    middle, angle = first + edge.at * (last - first), np.degrees(np.arctan2(along[1], along[0]))
    style: dict[str, Any] = {"ha": "center", "rotation": angle, "rotation_mode": "anchor", "size": 9}
    x, y = middle + across * (lift + 0.05)
    ax.text(x, y, edge.value, va="bottom", color=FORWARD, **style)
    if edge.gradient:
        _draw_arrow(ax, last - across * lift, first - across * lift, BACKWARD)
        x, y = middle - across * (lift + 0.05)
        ax.text(x, y, edge.gradient, va="top", color=BACKWARD, **style)


def _reach(mark: Mark, along: np.ndarray) -> float:
    """From a mark's middle to where an edge in this direction begins."""
    if mark.width:
        return float(min(mark.width / 2 / max(abs(along[0]), 1e-9), _RADIUS / max(abs(along[1]), 1e-9))) + 0.06
    if mark.is_given:
        return 0.13 + 0.04 * len(mark.text) * float(abs(along[0]))
    return _RADIUS + 0.04


def _draw_arrow(ax: "Axes", first: np.ndarray, last: np.ndarray, colour: str) -> None:
    ax.annotate("", xy=tuple(last), xytext=tuple(first),
                arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0})


def written(value: Any) -> str:
    """A value in few characters: itself, or the shape of an array that is too long."""
    if value is None:
        return ""
    array = np.asarray(value, np.float64)
    if array.ndim == 0:
        return f"{float(array):.4g}"
    if array.size <= _LONGEST:
        return "[" + " ".join(f"{element:.3g}" for element in array.ravel()) + "]"
    return shape_written(array.shape)


def shape_written(shape: Sequence[int]) -> str:
    """As rows by columns: 100 x 784."""
    return " \N{MULTIPLICATION SIGN} ".join(f"{size:,}" for size in shape)


def of_variables(result: Any, order: Sequence[Any]) -> Drawing:
    """The graph of a variable; `order` is all variables, inputs first."""
    drawing, marks = Drawing(), _placed(result, order)
    consumers: dict[int, int] = {}
    for variable in order:
        for one in variable.inputs:
            consumers[id(one)] = consumers.get(id(one), 0) + 1
    for variable in order:
        mark = marks[id(variable)]
        drawing.marks.append(mark)
        if variable.node is None and consumers.get(id(variable), 0) > 1 and variable.grad is not None:
            mark.caption = f"in all {written(variable.grad)}"
        for place, one in enumerate(variable.inputs):
            gradient = written(variable._gradients[place]) if variable._gradients and variable.grad is not None else ""
            # Where edges leave one value, or come from below, they are close together at one end.
            at = 0.62 if consumers[id(one)] > 1 else 0.36 if marks[id(one)].row > mark.row else 0.5
            drawing.edges.append(Edge(marks[id(one)], mark, written(one.value), gradient, at))
    end = Mark(result.name, marks[id(result)].column + 1, marks[id(result)].row, is_given=True)
    drawing.marks.append(end)
    drawing.edges.append(Edge(marks[id(result)], end, written(result.value), written(result.grad)))
    return drawing


def _placed(result: Any, order: Sequence[Any]) -> dict[int, Mark]:
    """Marks by the variables' identities. A node stands right of all its inputs, a given value just left of its first use."""
    columns: dict[int, int] = {}
    for variable in order:
        if variable.node is not None:
            columns[id(variable)] = 1 + max(columns.get(id(one), 0) for one in variable.inputs)
    for variable in reversed(order):
        for one in variable.inputs:
            if one.node is None:
                columns[id(one)] = min(columns.get(id(one), columns[id(variable)] - 1), columns[id(variable)] - 1)
    columns.setdefault(id(result), 0)
    rows = _rows(order, columns)
    return {
        id(variable): Mark(variable.symbol if variable.node is not None else variable.name, columns[id(variable)],
                           rows[id(variable)], is_given=variable.node is None)
        for variable in order
    }


def _rows(order: Sequence[Any], columns: dict[int, int]) -> dict[int, float]:
    """A node stands between the nodes that it computes with, given values beside and below them."""
    rows: dict[int, float] = {}
    taken: dict[int, list[float]] = {}

    def put(variable: Any, row: float) -> float:
        others = taken.setdefault(columns[id(variable)], [])
        while any(abs(row - other) < 0.9 for other in others):
            row += 0.5
        others.append(row)
        rows[id(variable)] = row
        return row

    for variable in order:
        given = [one for one in variable.inputs if one.node is None and id(one) not in rows]
        computed = [rows[id(one)] for one in variable.inputs if one.node is not None]
        first = float(np.mean(computed)) + 1 if computed else max(rows.values(), default=-1.0) + 1
        for one in given:
            first = put(one, first) + 1
        if variable.node is not None:
            put(variable, float(np.mean(computed or [rows[id(one)] for one in variable.inputs])))
    for variable in order:
        if id(variable) not in rows:    # the result itself, if it was given
            put(variable, 0.0)
    return rows


# Networks

_BOX = 1.3                      # inches
_COLUMNS_PER_LAYER = 1.55       # of _INCHES_ACROSS: a box, and an edge with a shape on it
_MOST_LAYERS = 12               # that are drawn; of more, the middle ones are one box
_LAYERS_IN_A_LINE = 6
_LINE = 4.2                     # rows from one line of layers to the next
_MOST_UNITS = 7                 # circles in a column; of more, the middle ones are dots
_UNIT = 0.1                     # inches, the radius of a unit
_UNITS_ABOVE = 1.9              # inches from a layer to its column of units


@dataclass
class LayerPass:
    """What went through a layer: its input and the gradient that came back out of it."""

    name: str
    parameters: int
    x: np.ndarray
    dx: np.ndarray
    mixes: bool     # its units: each of its outputs is made of all inputs


def of_network(twin: "Network", x: np.ndarray, t: ArrayLike) -> Drawing:
    """Layers as boxes, the last of them the loss; above them the units between the layers.

    twin: a `float64_copy`, whose layers keep what they need of this pass.
    """
    passes, loss = _passes(twin, x, t)
    shown = _folded(passes)
    drawing = Drawing()
    first = Mark("x", 0.35, 0, is_given=True)
    drawing.marks.append(first)
    before = first
    for place, one in enumerate(shown):
        line, column = divmod(place, _LAYERS_IN_A_LINE)
        caption = f"{one.parameters:,} parameters" if one.parameters else ""
        mark = Mark(one.name, (column + 1) * _COLUMNS_PER_LAYER, line * _LINE, caption=caption, width=_BOX)
        if line and not column:     # the line above goes on here
            before = Mark("", 0.35, line * _LINE, is_given=True)
            drawing.marks.append(before)
        drawing.edges.append(Edge(before, mark, _size_written(one.x), _size_written(one.dx)))
        if not column or shown[place - 1].mixes:
            drawing.columns_of_units.append((drawing.edges[-1], one.x.shape[-1] if one.x.ndim > 1 else 1))
        drawing.marks.append(mark)
        before = mark
    end = Mark("loss", before.column + _COLUMNS_PER_LAYER - 0.35, before.row, is_given=True)
    drawing.marks.append(end)
    drawing.edges.append(Edge(before, end, written(loss), "1"))
    return drawing


def _passes(twin: "Network", x: np.ndarray, t: ArrayLike) -> tuple[list[LayerPass], float]:
    """What goes through each layer and through the loss, and the loss."""
    inputs, scores = _numerical_gradient.layer_inputs(twin, x)
    loss = float(twin.last_layer.forward(scores, t)) + twin._penalty()
    layers = [*twin.layers.items(), (type(twin.last_layer).__name__, twin.last_layer)]
    passes: list[LayerPass] = []
    dx: Any = 1
    for (name, layer), value in zip(reversed(layers), reversed([*inputs.values(), scores]), strict=True):
        dx = layer.backward(dx)
        parameters = sum(array.size for array in getattr(layer, "params", {}).values())
        keeps_apart = isinstance(layer, (*SAME_WIDTH, _numerical_gradient.Scale))
        passes.insert(0, LayerPass(name, parameters, np.asarray(value), np.asarray(dx), not keeps_apart))
    return passes, loss


def _folded(passes: Sequence[LayerPass]) -> list[LayerPass]:
    """The layers to draw: all, or the first, one that stands for those in the middle, and the last."""
    if len(passes) <= _MOST_LAYERS:
        return list(passes)
    half = (_MOST_LAYERS - 1) // 2
    middle = passes[half : len(passes) - half - 1]
    parameters = sum(one.parameters for one in middle)
    stand_in = LayerPass(f"{len(middle)} layers", parameters, middle[0].x, middle[0].dx, any(one.mixes for one in middle))
    return [*passes[:half], stand_in, *passes[len(passes) - half - 1 :]]


def _size_written(array: np.ndarray) -> str:
    """Shape and root mean square, which tell whether signals vanish or grow."""
    square = float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0
    return f"{shape_written(array.shape)}\nrms {square:.2g}"


def _draw_units(ax: "Axes", columns: Sequence[tuple[Edge, int]]) -> None:
    """Above the edges of each line: circles for the units whose values pass there, joined with those of the next."""
    from matplotlib.patches import Circle

    before: list[tuple[float, float]] = []
    line: float | None = None
    for edge, units in columns:
        if edge.end.row != line:
            before, line = [], edge.end.row
        x = (_place(edge.start)[0] + _place(edge.end)[0]) / 2
        y = _place(edge.end)[1] + _UNITS_ABOVE
        slots = min(units, _MOST_UNITS)
        places = [(x, y + (slots - 1) / 2 * 0.28 - slot * 0.28) for slot in range(slots)]
        if units > _MOST_UNITS:
            x_dots, y_dots = places.pop(_MOST_UNITS // 2)
            ax.text(x_dots, y_dots, "\N{VERTICAL ELLIPSIS}", ha="center", va="center", size=11, color=FORWARD)
        for start in before:
            for end in places:
                ax.plot(*zip(start, end, strict=True), color="0.8", linewidth=0.5, zorder=0)
        for place in places:
            ax.add_patch(Circle(place, _UNIT, facecolor=_NODE, edgecolor=FORWARD, linewidth=0.9))
        ax.text(x, y - 1.06, f"{units:,} units" if units > 1 else "1 unit", ha="center", va="top", size=8, color="0.35")
        before = places
