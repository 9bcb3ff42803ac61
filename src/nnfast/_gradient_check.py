"""Backpropagation beside the numerical gradient: `nnfast.gradient_check` and the report that it returns.

Two questions, asked in turn. Does each parameter's gradient agree with the loss? Of that the numerical gradient of the
whole network is the judge. And if not, or where a layer is somebody's own: which layer's ``backward`` is wrong? For that
each layer is taken by itself, with the input and the gradient that reach it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _numerical_gradient, _validation
from nnfast.activations import LeakyRelu, Relu
from nnfast.losses import FunctionLoss, SoftmaxWithLoss

if TYPE_CHECKING:
    from nnfast.network import Network

_MOST_BY_BRUTE_FORCE = 200
"""Elements of an array that are looked at where each costs two forward passes; chosen at random if there are more."""

_CLOSER = 100
"""Where the two differ, a step so many times smaller tells a kink or a curve from an error."""

_EPSILON = float(np.finfo(np.float64).eps)
_ROUNDING = 16
"""Units in the last place of a loss that its rounding may be wrong by."""

# Central differences at some places of a flattened array, by a step, and for each the layer whose kink lies within the
# step, or "" where that is not known.
_Differences: TypeAlias = Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class GradientRow:
    """How one array's gradient by backpropagation compares.

    Attributes
    ----------
    layer : str
        Name of the layer that the array belongs to.
    name : str
        Key of the parameter, or "x" for the layer's input.
    size, checked : int
        Elements, and how many of them were compared: not those at several kinks at once, nor, where each costs two
        forward passes, more than 200 chosen at random.
    largest_error, mean_error : float
        Of the absolute differences.
    largest_relative_error, mean_relative_error : float
        The same in parts of the array's largest numerical gradient, or of the smallest one that the rounding of the
        loss lets be told from 0.
    where : tuple of int
        Place of the largest error.
    backpropagated, numerical : float
        Both gradients there.
    kinks : int
        Elements whose perturbation by h takes a ReLU over its kink, so that the central difference by h means nothing.
    kinks_in : str
        Names of those layers.
    passed : bool
        Whether all errors are within the tolerance.
    fault : str
        What kept the gradients from being compared, if something did.
    by_itself : bool
        Whether the layer was taken by itself, with the input and the gradient that reach it in the network.

    Examples
    --------
    >>> from nnfast import Affine, Network, gradient_check
    >>> report = gradient_check(Network([Affine(4, 2)], seed=0), np.ones((5, 4)), [0, 1, 1, 0, 1])
    >>> weights, biases = report.rows
    >>> weights.layer, weights.name, weights.size, weights.passed
    ('Affine1', 'W1', 8, True)
    >>> weights.largest_relative_error < 1e-7
    True
    """

    layer: str
    name: str
    size: int = 0
    checked: int = 0
    largest_error: float = 0.0
    mean_error: float = 0.0
    largest_relative_error: float = 0.0
    mean_relative_error: float = 0.0
    where: tuple[int, ...] = ()
    backpropagated: float = 0.0
    numerical: float = 0.0
    kinks: int = 0
    kinks_in: str = ""
    passed: bool = True
    fault: str = ""
    by_itself: bool = False

    def _cells(self) -> list[str]:
        if self.fault:
            return [self.layer, self.name, *[""] * 8, f"WRONG: {self.fault}"]
        checked = f"{self.checked:,}" + (f" of {self.size:,}" if self.checked < self.size else "")
        verdict = "WRONG" if not self.passed else "passed" if self.checked or not self.size else "only kinks"
        if self.kinks:
            verdict += f" ({self.kinks:,} at a kink of {self.kinks_in})"
        return [self.layer, self.name, checked, f"{self.largest_error:.1e}", f"{self.mean_error:.1e}",
                f"{self.largest_relative_error:.1e}", f"{self.mean_relative_error:.1e}",
                "[" + ", ".join(map(str, self.where)) + "]", f"{self.backpropagated:.6g}", f"{self.numerical:.6g}", verdict]


@dataclass(frozen=True, repr=False)
class GradientReport:
    """What `gradient_check` found; printed, it is a table.

    Attributes
    ----------
    rows : tuple of GradientRow
        A row for each parameter of the network, then for the layers that were looked at by themselves.
    tolerance : float
        Largest error that passes, in parts of the array's largest gradient.
    h : float
        Step of the central differences.
    faulty_layers : tuple of str
        Layers (or the loss) whose own ``backward`` is wrong.

    Examples
    --------
    >>> from nnfast import Affine, Network, gradient_check
    >>> report = gradient_check(Network([Affine(4, 2)], seed=0), np.ones((5, 4)), [0, 1, 1, 0, 1])
    >>> report.passed, report.faulty_layers
    (True, ())
    >>> print(str(report).splitlines()[-1][:62])
    passed: backpropagation agrees with the numerical gradient (to
    """

    rows: tuple[GradientRow, ...]
    tolerance: float
    h: float
    faulty_layers: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every row has."""
        return all(row.passed for row in self.rows)

    def __str__(self) -> str:
        head = ["layer", "gradient of", "compared", "largest error", "mean error", "relative", "mean", "at",
                "backward", "numerical", ""]
        lines = [head, *(row._cells() for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
        table = [
            "  ".join([line[0].ljust(widths[0]), line[1].ljust(widths[1]),
                       *(cell.rjust(width) for cell, width in zip(line[2:-1], widths[2:], strict=True)), line[-1]]).rstrip()
            for line in lines
        ]
        first = next((place for place, row in enumerate(self.rows, 1) if row.by_itself), None)
        if first is not None:
            table.insert(first, "each layer by itself, with what reaches it:")
        return "\n".join([*table, self._summary()])

    __repr__ = __str__

    def _summary(self) -> str:
        limit = f"tolerance {self.tolerance:g} of each array's largest gradient, h = {self.h:g}"
        if self.passed:
            return f"passed: backpropagation agrees with the numerical gradient ({limit})"
        if self.faulty_layers:
            return f"WRONG: see the backward of {', '.join(self.faulty_layers)} ({limit})"
        return f"WRONG, but each layer's backward fits its forward: see what connects them ({limit})"


def gradient_check(
    network: "Network", x: ArrayLike, t: ArrayLike, *, h: float = 1e-4, tolerance: float = 1e-5
) -> GradientReport:
    """Backpropagation compared with the numerical gradient, parameter by parameter.

    All is computed in float64 on a copy, with Dropout off and BatchNormalization as in training. Layers of your own are
    also looked at by themselves, and if a gradient is wrong all layers are: the report names those whose ``backward``
    does not fit their ``forward``.

    Where a perturbation takes a ReLU over its kink, and the two gradients differ for that reason, a hundredth of h
    decides. Exactly at a kink any gradient between the slopes to both sides is right, and where several ReLUs are at
    their kinks at once nothing is compared but each layer by itself. The report counts and names kinks.
    `SoftmaxWithLoss` is taken without the 1e-7 inside its logarithm, which its ``backward`` neglects.

    With a layer or loss of your own, each element costs two forward passes; then 200 of each array are compared, chosen
    at random. So it is with a network that is no `Network`, but has ``params`` (a dict of float64 arrays),
    ``loss(x, t)`` and ``gradient(x, t)``, as the classes of the book do: its parameters are perturbed and restored, and
    only they are compared.

    Parameters
    ----------
    network : Network, or object with params, loss and gradient
        A `Network` is not touched.
    x : array_like
        Inputs, shape (B, I), finite. A few rows are enough.
    t : array_like
        Targets, as the output layer takes them.
    h : float, keyword-only, default 1e-4
        Step of the central differences, above 0.
    tolerance : float, keyword-only, default 1e-5
        Largest error that passes, in parts of the largest numerical gradient of the same array, or of the smallest one
        that the rounding of the loss lets be told from 0; above 0.

    Returns
    -------
    GradientReport
        A table when printed; ``.passed`` tells whether all is well.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the network gives different losses for the same input.

    Examples
    --------
    >>> from nnfast import Affine, Network, Tanh, gradient_check
    >>> network = Network([Affine(4, 3), Tanh(), Affine(3, 2)], seed=0)
    >>> report = gradient_check(network, np.ones((5, 4)), [0, 1, 1, 0, 1])
    >>> report.passed
    True
    >>> [row.name for row in report.rows]
    ['W1', 'b1', 'W2', 'b2']
    """
    limits = _Limits(_validation.above_zero("h", h), _validation.above_zero("tolerance", tolerance))
    if isinstance(network, type) or not hasattr(network, "_checked_rows"):
        return _check_by_loss(network, x, t, limits)
    rows = network._checked_rows(x, t)
    inputs = _validation.floats("x", rows)
    _validation.all_finite("x", inputs.reshape(inputs.shape[0], -1))
    return _Check(network, inputs.astype(np.float64), t, limits).report()


class _Check:
    """One check: a float64 copy of the network, with a batch."""

    def __init__(self, network: "Network", x: np.ndarray, t: ArrayLike, limits: "_Limits") -> None:
        self._network, self._x, self._t, self._limits = network, x, t, limits
        self._twin = _numerical_gradient.float64_copy(network)
        self._loss = _without_epsilon(self._twin.last_layer)
        self._value = self._evaluate()[0]
        _validation.is_repeatable(self._value, self._evaluate()[0])

    def report(self) -> GradientReport:
        """All rows, and the layers that are at fault."""
        broken = self._backpropagate()
        if broken:      # what no gradient got through
            return self._reported([broken], [])
        rows = list(self._rows_of_parameters())
        own = [name for name, layer in self._parts()
               if not type(layer).__module__.startswith("nnfast.") or isinstance(layer, FunctionLoss)]
        is_settled = all(row.passed and (not row.kinks or row.checked == row.size) for row in rows)
        suspects = own if is_settled else [name for name, _ in self._parts()]
        return self._reported(rows, [row for name in suspects for row in self._rows_of_layer(name)])

    def _reported(self, rows: list[GradientRow], local: list[GradientRow]) -> GradientReport:
        wrong = [row.layer for row in [row for row in rows if row.fault] + local if not row.passed]
        return GradientReport((*rows, *local), self._limits.tolerance, self._limits.h, tuple(dict.fromkeys(wrong)))

    def _parts(self) -> Iterator[tuple[str, Any]]:
        yield from self._twin.layers.items()
        yield type(self._twin.last_layer).__name__, self._twin.last_layer

    # The whole network

    def _evaluate(self) -> tuple[float, dict[str, np.ndarray]]:
        """The loss, and on which side of its kink each ReLU is."""
        inputs, scores = _numerical_gradient.layer_inputs(self._twin, self._x)
        sides = {name: x > 0 for name, x in inputs.items() if isinstance(self._twin.layers[name], (Relu, LeakyRelu))}
        return float(self._loss(scores, self._t)) + self._twin._penalty(), sides

    def _mode(self, name: str) -> tuple[bool, ...]:
        return (True,) if name in self._twin._told_mode else ()

    def _rows_of_parameters(self) -> Iterator[GradientRow]:
        gradients = self._twin.gradient(self._x, self._t)
        exact = _Exact(self._network, self._x, self._t) if _numerical_gradient.fits(self._network) else None
        for key, array in self._twin.params.items():
            layer = next(name for name, layer in self._twin.layers.items()
                         if any(array is own for own in getattr(layer, "params", {}).values()))
            differences = self._differences(array) if exact is None else exact.differences(key)
            places = _places(array.size) if exact is None else np.arange(array.size)
            yield self._limits.compared(
                GradientRow(layer, key), gradients[key], places, differences,
                partial(_slopes, array, lambda: self._evaluate()[0]), abs(self._value))

    def _differences(self, array: np.ndarray) -> _Differences:
        """By brute force, of the whole network."""
        def differences(places: np.ndarray, h: float) -> tuple[np.ndarray, np.ndarray]:
            found, kinks = np.empty(len(places)), np.full(len(places), "", object)
            _, before = self._evaluate()
            for number, place in enumerate(places):
                (above, sides_above), (below, sides_below) = _moved(array, place, h, self._evaluate)
                found[number] = (above - below) / (2 * h)
                kinks[number] = next((name for name, side in before.items()
                                      if (sides_above[name] != side).any() or (sides_below[name] != side).any()), "")
            return found, kinks

        return differences

    # A layer by itself

    def _backpropagate(self) -> GradientRow | None:
        """Keep each layer's input and the gradient that reaches its output; a row if some backward fails."""
        self._inputs, self._scores = _numerical_gradient.layer_inputs(self._twin, self._x)
        self._douts: dict[str, np.ndarray] = {}
        loss = self._twin.last_layer
        loss.forward(self._scores, self._t)
        name = type(loss).__name__
        dout, fault = _called(partial(loss.backward, 1), self._scores.shape)
        for name, layer in reversed(self._twin.layers.items()) if not fault else ():
            self._douts[name] = dout
            dout, fault = _called(partial(layer.backward, np.array(dout)), self._inputs[name].shape)
            fault = fault or _fault_of_gradients(layer)
            if fault:
                break
        return GradientRow(name, "x", passed=False, fault=fault, by_itself=True) if fault else None

    def _rows_of_layer(self, name: str) -> Iterator[GradientRow]:
        """The input's gradient, and the parameters', for the gradient that reaches the layer's output."""
        layer = dict(self._parts())[name]
        if layer is self._twin.last_layer:
            yield self._row_of_loss(name)
            return
        x, dout = np.array(self._inputs[name], np.float64), self._douts[name]

        def value() -> float:
            return float(np.sum(layer.forward(x, *self._mode(name)) * dout))

        size = float(np.sum(abs(layer.forward(x, *self._mode(name)) * dout)))
        dx = np.array(layer.backward(dout.copy()))
        gradients = {key: np.array(array) for key, array in getattr(layer, "grads", {}).items()}
        yield self._row_by_itself(name, "x", x, dx, value, size)
        for key, array in getattr(layer, "params", {}).items():
            yield self._row_by_itself(name, key, array, gradients[key], value, size)

    def _row_of_loss(self, name: str) -> GradientRow:
        scores = np.array(self._scores, np.float64)
        self._twin.last_layer.forward(scores, self._t)
        gradient = np.array(self._twin.last_layer.backward(1))
        return self._row_by_itself(name, "x", scores, gradient, lambda: float(self._loss(scores, self._t)), abs(self._value))

    def _row_by_itself(
        self, layer: str, name: str, array: np.ndarray, gradient: np.ndarray, value: Callable[[], float], size: float
    ) -> GradientRow:
        row = GradientRow(layer, name, by_itself=True)
        return self._limits.compared(row, gradient, _places(array.size), partial(_central, array, value),
                                     partial(_slopes, array, value), size)


def _check_by_loss(network: Any, x: ArrayLike, t: ArrayLike, limits: "_Limits") -> GradientReport:
    """Of a network that is none of nnfast's: its parameters alone."""
    _validation.has_parameters_and_loss(network)

    def loss() -> float:
        return float(network.loss(x, t))

    value = loss()
    _validation.is_repeatable(value, loss())
    gradients = network.gradient(x, t)
    rows = []
    for key, array in network.params.items():
        _validation.perturbable(array, None, f"params[{key!r}]")
        _validation.like(f"gradient(x, t)[{key!r}]", gradients.get(key), array.shape, array.dtype, "the parameter")
        rows.append(limits.compared(
            GradientRow(type(network).__name__, key), gradients[key], _places(array.size), partial(_central, array, loss),
            partial(_slopes, array, loss), abs(value)))
    return GradientReport(tuple(rows), limits.tolerance, limits.h, ())


@dataclass(frozen=True)
class _Limits:
    """What decides whether two gradients agree."""

    h: float
    tolerance: float

    def compared(
        self, row: GradientRow, gradient: np.ndarray, places: np.ndarray, differences: _Differences,
        slopes: Callable[[int, float], tuple[float, float]], size: float,
    ) -> GradientRow:
        """The row of an array, filled. `size` is that of the numbers whose difference is taken: their rounding."""
        given = np.asarray(gradient, np.float64).reshape(-1)[places]
        row = replace(row, size=gradient.size, checked=len(places))
        if not len(places):
            return row
        numerical, kinks = differences(places, self.h)
        error, is_compared = abs(given - numerical), np.ones(len(places), bool)
        suspects = np.flatnonzero(self._are_apart(error, numerical, size, self.h))
        if len(suspects):
            closer = self.h / _CLOSER
            numerical[suspects], kinks_there = differences(places[suspects], closer)
            error[suspects] = abs(given - numerical)[suspects]
            is_wrong, names = self._are_apart(error[suspects], numerical, size, closer), kinks[suspects]
            for number in np.flatnonzero(is_wrong):
                place = suspects[number]
                least, most = sorted(slopes(places[place], closer))
                distance = max(least - given[place], given[place] - most, 0.0)
                if self._are_apart(distance, numerical, size, closer):
                    if not kinks_there[number]:
                        break       # one is enough
                    is_compared[place] = False      # several kinks, one behind the other
                error[place], is_wrong[number] = distance, False
                names[number] = kinks_there[number] or names[number] or row.layer
            at_kinks = [name for name in names[~is_wrong] if name]
            row = replace(row, passed=not is_wrong.any(), checked=int(is_compared.sum()), kinks=len(at_kinks),
                          kinks_in=", ".join(dict.fromkeys(at_kinks)))
            if not row.checked:
                return row
        error[~is_compared] = 0
        worst, mean, scale = int(np.argmax(error)), float(error.sum() / row.checked), self._scale(numerical, size, self.h)
        return replace(
            row, largest_error=float(error[worst]), mean_error=mean, largest_relative_error=float(error[worst] / scale),
            mean_relative_error=mean / scale,
            where=tuple(int(i) for i in np.unravel_index(places[worst], np.shape(gradient))),
            backpropagated=float(given[worst]), numerical=float(numerical[worst]),
        )

    def _are_apart(self, error: Any, numerical: np.ndarray, size: float, h: float) -> np.ndarray:
        apart: np.ndarray = np.logical_not(error <= self.tolerance * self._scale(numerical, size, h))     # NaN is, too
        return apart

    def _scale(self, numerical: np.ndarray, size: float, h: float) -> float:
        """The largest gradient, but no less than what rounding lets be told from 0."""
        return max(_largest(numerical), _rounding(size, h) / self.tolerance)


def _largest(array: np.ndarray) -> float:
    """The largest absolute value, NaN left out."""
    finite = array[np.isfinite(array)]
    return float(abs(finite).max()) if len(finite) else 0.0


class _Exact:
    """The numerical gradients of a network of nnfast's own layers, all at once for each step."""

    def __init__(self, network: "Network", x: np.ndarray, t: ArrayLike) -> None:
        self._network, self._x, self._t = network, x, t
        self._found: dict[float, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = {}

    def differences(self, key: str) -> _Differences:
        """Of one parameter."""
        def differences(places: np.ndarray, h: float) -> tuple[np.ndarray, np.ndarray]:
            gradients, kinks = self._at(h)
            return gradients[key].reshape(-1)[places], kinks[key].reshape(-1)[places]

        return differences

    def _at(self, h: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        if h not in self._found:
            perturbation = _numerical_gradient.Perturbation(self._network, self._x, self._t, h, 0.0, finds_kinks=True)
            gradients = perturbation.gradients()
            names = np.array([*perturbation.layers, ""], object)
            self._found[h] = gradients, {key: names[kinks] for key, kinks in perturbation.kinks.items()}
        return self._found[h]


def _without_epsilon(loss: Any) -> Callable[[np.ndarray, ArrayLike], float]:
    """The function whose gradient the output layer's backward is."""
    if type(loss) is not SoftmaxWithLoss or loss.label_smoothing:
        return loss.forward     # type: ignore[no-any-return]

    def cross_entropy(scores: np.ndarray, t: ArrayLike) -> float:
        batch_size, classes = scores.shape
        labels = loss.prepare(t, batch_size, classes, scores.dtype)
        shifted = scores - scores.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]))

    return cross_entropy


def _moved(array: np.ndarray, place: int, h: float, f: Callable[[], Any]) -> tuple[Any, Any]:
    """What f gives with one element h above and h below; the element is put back."""
    elements = array.flat
    before = elements[place]
    try:
        elements[place] = before + h
        above = f()
        elements[place] = before - h
        return above, f()
    finally:
        elements[place] = before


def _central(
    array: np.ndarray, f: Callable[[], float], places: np.ndarray, h: float
) -> tuple[np.ndarray, np.ndarray]:
    """Central differences, nothing being known of kinks."""
    found = [(above - below) / (2 * h) for above, below in (_moved(array, place, h, f) for place in places)]
    return np.array(found), np.full(len(places), "", object)


def _slopes(array: np.ndarray, f: Callable[[], float], place: int, h: float) -> tuple[float, float]:
    """The differences to the left and to the right of one element."""
    before = f()
    above, below = _moved(array, place, h, f)
    return (before - below) / h, (above - before) / h


def _places(size: int) -> np.ndarray:
    if size <= _MOST_BY_BRUTE_FORCE:
        return np.arange(size)
    return np.sort(np.random.default_rng(0).choice(size, _MOST_BY_BRUTE_FORCE, replace=False))


def _rounding(size: float, h: float) -> float:
    """Of a central difference of numbers of a size."""
    return _ROUNDING * _EPSILON * (size + 1e-3) / h


def _called(backward: Callable[[], Any], shape: tuple[int, ...]) -> tuple[Any, str]:
    """What a backward returns, and what is wrong with it."""
    try:
        dx = backward()
    except Exception as error:  # noqa: BLE001, whatever a user's layer raises is what the report is about
        return None, f"backward raises {type(error).__name__}: {error}"
    if np.shape(dx) != shape:
        return None, f"backward returns the shape {np.shape(dx)}, but the input has {shape}"
    return dx, ""


def _fault_of_gradients(layer: Any) -> str:
    """Whether there is a gradient for each parameter, after backward."""
    gradients = getattr(layer, "grads", {})
    for key, array in getattr(layer, "params", {}).items():
        if gradients.get(key) is None:
            return f"backward leaves no grads[{key!r}]"
        if np.shape(gradients[key]) != array.shape:
            return f"grads[{key!r}] has the shape {np.shape(gradients[key])}, but {key} has {array.shape}"
    return ""
