"""Weights from and to PyTorch, Keras and scikit-learn, as arrays, and networks from ONNX models.

None of the three is imported, nor needs to be installed; models are read by the package onnx.

All that is converted predicts the same there and here, but for rounding: matrices are transposed for PyTorch, the
numbers that batch normalisations add to variances are allowed for, and so is `Dropout`, which here scales in inference
and elsewhere in training: the scale goes into the weights of the next layer. So does that of a `Rescale`, if it is one
number above 0 without an offset: what is converted takes the data that are not scaled yet.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _files, _validation
from nnfast.activations import Identity, LeakyRelu, Relu, Sigmoid, Tanh
from nnfast.layers import Affine, BatchNormalization, Dropout, Rescale
from nnfast.losses import IdentityWithLoss, PoissonLoss, SigmoidWithLoss, SoftmaxWithLoss

if TYPE_CHECKING:
    from nnfast.network import Network

__all__ = ["from_keras", "from_onnx", "from_sklearn", "from_torch", "to_keras", "to_sklearn", "to_torch"]

_TORCH_EPSILON = 1e-5       # torch.nn.BatchNorm1d
_KERAS_EPSILON = 1e-3       # keras.layers.BatchNormalization


def to_torch(network: "Network", *, epsilon: float = _TORCH_EPSILON) -> dict[str, np.ndarray]:
    """The weights as the state of a `torch.nn.Sequential` of the same layers, one module for each layer of the network.

    ``module.load_state_dict({key: torch.from_numpy(array) for key, array in to_torch(network).items()})``

    Parameters
    ----------
    network : Network
        Of nnfast's own layers.
    epsilon : float, keyword-only, default 1e-5
        What the modules `BatchNorm1d` add to variances.

    Returns
    -------
    dict of str to ndarray
        "0.weight" (O, I), "0.bias" (O,), and so on by the place of the layer; "1.running_mean", "1.running_var" and
        "1.num_batches_tracked" of batch normalisations as well. New arrays.

    Raises
    ------
    TypeError, ValueError
        If a layer cannot be converted.

    Examples
    --------
    >>> from nnfast import Network
    >>> network = Network([Affine(4, 8), Relu(), Affine(8, 3)], seed=0)
    >>> {key: array.shape for key, array in to_torch(network).items()}
    {'0.weight': (8, 4), '0.bias': (8,), '2.weight': (3, 8), '2.bias': (3,)}
    """
    found: dict[str, np.ndarray] = {}
    for place, layer, values in _written(network, epsilon):
        if isinstance(layer, Affine):
            found |= {f"{place}.weight": np.ascontiguousarray(values[0].T), f"{place}.bias": values[1]}
        else:
            names = ("weight", "bias", "running_mean", "running_var")
            found |= {f"{place}.{name}": value for name, value in zip(names, values, strict=True)}
            found[f"{place}.num_batches_tracked"] = np.array(0)
    return found


def from_torch(network: "Network", state: Mapping[str, Any], *, epsilon: float = _TORCH_EPSILON) -> None:
    """Put the weights of a PyTorch module into a network of the same layers.

    Parameters
    ----------
    network : Network
        Its layers with parameters are taken in their order, whatever the module calls its own.
    state : mapping of str to array_like
        The module's ``state_dict()``: names that end with "weight" (O, I), "bias" (O,), "running_mean" or "running_var".
    epsilon : float, keyword-only, default 1e-5
        What its `BatchNorm1d` add to variances.

    Raises
    ------
    TypeError, ValueError
        If the state is not that of such layers; nothing has changed then.

    Examples
    --------
    >>> from nnfast import Network
    >>> network, other = (Network([Affine(4, 8), Relu(), Affine(8, 3)], seed=seed) for seed in (0, 1))
    >>> from_torch(other, to_torch(network))
    >>> bool((other.params["W1"] == network.params["W1"]).all())
    True
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state is a {type(state).__name__}, but must be a dict of arrays by name: module.state_dict()")
    modules: dict[str, dict[str, Any]] = {}
    for key, value in state.items():
        module, _, name = str(key).rpartition(".")
        if name != "num_batches_tracked":
            modules.setdefault(module, {})[name] = value
    layers = _trained_layers(network)
    if len(modules) != len(layers):
        raise ValueError(f"state has {len(modules)} modules with arrays, but the network has {len(layers)} such layers")
    found = []
    for (module, arrays), (name, layer) in zip(modules.items(), layers, strict=True):
        names = ["weight", "bias"] if isinstance(layer, Affine) else ["weight", "bias", "running_mean", "running_var"]
        if isinstance(layer, Affine) and "bias" not in arrays:      # Linear(..., bias=False)
            arrays = {**arrays, "bias": np.zeros(layer.outputs)}
        if set(arrays) != set(names):
            raise ValueError(f"state has {', '.join(sorted(arrays))} of module {module!r}, but layer {name} needs "
                             f"{', '.join(names)}")
        values = [_array(f"state[{module + '.' + key!r}]", arrays[key]) for key in names]
        found.append([values[0].T, *values[1:]] if isinstance(layer, Affine) else values)
    _read(network, found, epsilon, "state")


def to_keras(network: "Network", *, epsilon: float = _KERAS_EPSILON) -> list[np.ndarray]:
    """The weights as ``model.set_weights`` of a Keras model of the same layers takes them.

    Parameters
    ----------
    network : Network
        Of nnfast's own layers.
    epsilon : float, keyword-only, default 1e-3
        What the layers `BatchNormalization` of Keras add to variances.

    Returns
    -------
    list of ndarray
        Of each layer with weights in turn: kernel (I, O) and bias (O,), or gamma, beta, moving mean and moving variance.

    Raises
    ------
    TypeError, ValueError
        If a layer cannot be converted.

    Examples
    --------
    >>> from nnfast import Network
    >>> [array.shape for array in to_keras(Network([Affine(4, 8), Relu(), Affine(8, 3)], seed=0))]
    [(4, 8), (8,), (8, 3), (3,)]
    """
    return [value for _, _, values in _written(network, epsilon) for value in values]


def from_keras(network: "Network", weights: Sequence[ArrayLike], *, epsilon: float = _KERAS_EPSILON) -> None:
    """Put the weights of a Keras model into a network of the same layers.

    Parameters
    ----------
    network : Network
        Whose layers with parameters are taken in their order.
    weights : sequence of array_like
        ``model.get_weights()``.
    epsilon : float, keyword-only, default 1e-3
        What its layers `BatchNormalization` add to variances.

    Raises
    ------
    TypeError, ValueError
        If the weights are not those of such layers; nothing has changed then.

    Examples
    --------
    >>> from nnfast import Network
    >>> network, other = (Network([Affine(4, 8), Relu(), Affine(8, 3)], seed=seed) for seed in (0, 1))
    >>> from_keras(other, to_keras(network))
    >>> bool((other.params["W1"] == network.params["W1"]).all())
    True
    """
    _read(network, _divided(network, "weights", weights), epsilon, "weights")


def to_sklearn(network: "Network") -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The weights as the attributes ``coefs_`` and ``intercepts_`` of scikit-learn's estimators.

    Parameters
    ----------
    network : Network
        Of Affine layers, activations and Dropout.

    Returns
    -------
    coefs, intercepts : list of ndarray
        Matrices (I, O) and vectors (O,) of the layers. New arrays.

    Raises
    ------
    TypeError, ValueError
        If a layer cannot be converted.

    Examples
    --------
    >>> from nnfast import Network
    >>> coefs, intercepts = to_sklearn(Network([Affine(4, 8), Relu(), Affine(8, 3)], seed=0))
    >>> [array.shape for array in coefs], [array.shape for array in intercepts]
    ([(4, 8), (8, 3)], [(8,), (3,)])
    """
    coefs, intercepts = [], []
    for _, layer, values in _written(network, 0):
        if not isinstance(layer, Affine):
            raise TypeError("a BatchNormalization cannot be converted: scikit-learn has none")
        coefs.append(values[0])
        intercepts.append(values[1])
    return coefs, intercepts


_SKLEARN_ACTIVATIONS = {"relu": Relu, "tanh": Tanh, "logistic": Sigmoid, "identity": Identity}
_ONNX_OUTPUTS: dict[str | None, Any] = {"softmax": SoftmaxWithLoss, "exp": PoissonLoss}
_SKLEARN_OUTPUTS = {"softmax": SoftmaxWithLoss, "logistic": SigmoidWithLoss, "identity": IdentityWithLoss, "exp": PoissonLoss}


def from_sklearn(estimator: Any, *, seed: int | None = None) -> "Network":
    """A network from a fitted `MLPClassifier` or `MLPRegressor` of scikit-learn.

    Parameters
    ----------
    estimator : object
        With ``coefs_``, ``intercepts_``, ``activation`` and ``out_activation_``.
    seed : int, keyword-only, optional
        Of the network, for what it draws when it is trained further.

    Returns
    -------
    Network
        Of the estimator's dtype, with copies of its weights. Scores are those before softmax, sigmoid or exp; a class is the
        place in ``estimator.classes_``.

    Raises
    ------
    TypeError, ValueError
        If that is no such estimator.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> estimator = SimpleNamespace(coefs_=[np.ones((2, 3)), np.ones((3, 1))], intercepts_=[np.zeros(3), np.zeros(1)],
    ...                             activation="relu", out_activation_="identity")
    >>> from_sklearn(estimator).predict(np.array([[1.0, 2.0]]))
    array([[9.]])
    """
    from nnfast.network import Network

    for name in ("coefs_", "intercepts_", "activation", "out_activation_"):
        if not hasattr(estimator, name):
            raise TypeError(f"estimator is a {type(estimator).__name__} without {name}: a fitted MLPClassifier or MLPRegressor "
                            "has it")
    activation = _SKLEARN_ACTIVATIONS[_validation.check_choice("activation", estimator.activation, list(_SKLEARN_ACTIVATIONS))]
    output = _validation.check_choice("out_activation_", estimator.out_activation_, list(_SKLEARN_OUTPUTS))
    layers: list[Any] = []
    for coefs, intercepts in zip(estimator.coefs_, estimator.intercepts_, strict=True):
        layers += [Affine(np.array(coefs, order="C"), np.array(intercepts)), activation()]
    return Network(layers[:-1], _SKLEARN_OUTPUTS[output](), seed=seed)


def from_onnx(model: str | os.PathLike[str] | bytes | Any, *, loss: Any = None, seed: int | None = None) -> "Network":
    """A network from an ONNX model of a multi-layer perceptron, whoever wrote it: PyTorch, Keras, scikit-learn, nnfast.

    It may hold Gemm, MatMul, Add, Sub, Mul and Div with constants, BatchNormalization, Relu, LeakyRelu, Sigmoid, Tanh,
    Gelu (also as a formula of Erf), Dropout, Identity, Cast, Flatten or Reshape to rows (N, I), and Softmax, LogSoftmax,
    Sigmoid or Exp at its end; of ONNX for machine learning, Scaler and ZipMap. Additions and multiplications by constants,
    such as those of a `StandardScaler`, are put into the weights beside them, which then round differently, or become a
    `BatchNormalization`. Dropout, which does nothing in inference there, is left out. Of a classifier's outputs the
    probabilities are taken, not the labels.

    A file that comes from anywhere may be given: nothing in it is executed, no other file is opened, and what it claims
    is compared with what is there before memory is allocated.

    Parameters
    ----------
    model : str, os.PathLike, bytes or onnx.ModelProto
        A file, its contents, or the model itself.
    loss : output layer, keyword-only, optional
        If not given, `SoftmaxWithLoss` where the model ends with a softmax, `SigmoidWithLoss` where it ends with a
        sigmoid, `PoissonLoss` where it ends with an exp, and else `IdentityWithLoss`, although scores may well be those of classes: a model does not tell.
    seed : int, keyword-only, optional
        Of the network, for what it draws when it is trained further.

    Returns
    -------
    Network
        Of float32 or float64, as the model's matrices are. `predict` gives scores: what goes into the softmax,
        sigmoid or exp at the end, which are the loss's. Two classes of scikit-learn are one score.

    Raises
    ------
    FileNotFoundError, OSError
        If the file cannot be read.
    ImportError
        If onnx is not installed (``pip install "nnfast[onnx]"``).
    ModelFormatError
        If the model is damaged, or has something that is not understood.
    TypeError, ValueError
        If an argument is not as described, or the loss does not take what the model gives.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from nnfast import Network
    >>> network = Network([Affine(4, 8), Relu(), Affine(8, 3)], seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     network.export_onnx(pathlib.Path(folder, "network.onnx"), probabilities=True)
    ...     again = from_onnx(pathlib.Path(folder, "network.onnx"))
    >>> again
    Network([Affine1, Relu1, Affine2], SoftmaxWithLoss)
    >>> bool((again.params["W1"] == network.params["W1"]).all())
    True
    """
    from nnfast import _export, _export_onnx, _import_onnx
    from nnfast.network import Network

    onnx = _export_onnx.library()
    if not isinstance(model, (bytes, onnx.ModelProto)):
        if not isinstance(model, (str, os.PathLike)):
            raise TypeError(f"model is a {type(model).__name__}, but a path, bytes or an onnx.ModelProto was expected")
        model = _files.as_path("model", model)
    found = _import_onnx.load(model)
    function = None if loss is None else _export.OUTPUTS.get(type(loss))
    if found.output in _ONNX_OUTPUTS:
        expected = _ONNX_OUTPUTS[found.output]
        if loss is not None and function != found.output:
            raise ValueError(f"loss is a {type(loss).__name__}, but the model ends with a {found.output}: {expected.__name__} was "
                             "expected")
        loss = loss or expected()
    elif found.output == "sigmoid" and not found.is_of_scores and (loss is None or function == "sigmoid"):
        loss = loss or SigmoidWithLoss()
    elif found.output == "sigmoid":
        found.layers.append(Sigmoid())
    return Network(found.layers, IdentityWithLoss() if loss is None else loss, seed=seed, dtype=found.dtype)


# What all have in common: layers with parameters in their order, free of Dropout's scale and of their own epsilon.

def _trained_layers(network: "Network") -> list[tuple[str, Any]]:
    found = []
    for name, layer in network.layers.items():
        if isinstance(layer, (Affine, BatchNormalization)):
            found.append((name, layer))
        elif getattr(layer, "params", {}):
            raise TypeError(f"layer {name} is a {type(layer).__name__}, whose parameters nnfast does not know")
    return found


def _scales(network: "Network") -> dict[str, float]:
    """By what the input of each layer with parameters is multiplied by the Dropout or Rescale before it."""
    found, scale = {}, 1.0
    for name, layer in network.layers.items():
        if isinstance(layer, Dropout):
            scale *= 1.0 - layer.dropout_ratio
        elif isinstance(layer, Rescale):
            if np.ndim(layer.scale) or np.any(layer.offset) or layer.scale <= 0:
                raise ValueError(
                    f"{name} is more than one number above 0, which alone weights can take: scale the data before")
            scale *= layer.scale
        elif isinstance(layer, (Affine, BatchNormalization)):
            found[name], scale = scale, 1.0
        elif scale != 1 and not isinstance(layer, (Relu, LeakyRelu, Identity)):
            raise ValueError(f"{name} comes between a Dropout or Rescale and the weights that could take its scale")
    if scale != 1:
        raise ValueError("the last Dropout or Rescale is followed by no weights that could take its scale")
    if 0 in found.values():
        raise ValueError("a Dropout of ratio 1 lets nothing pass, and cannot be converted")
    return found


def _written(network: "Network", epsilon: float) -> list[tuple[int, Any, list[np.ndarray]]]:
    """Place, layer and new arrays of each layer with parameters, for inference without Dropout's scale."""
    epsilon = _validation.check_number("epsilon", epsilon, 0)
    scales, places = _scales(network), {name: place for place, name in enumerate(network.layers)}
    found = []
    for name, layer in _trained_layers(network):
        if isinstance(layer, Affine):
            values = [layer.W * scales[name], layer.b.copy()]
        else:
            mean, variance = layer.statistics
            # gamma (s x - m) / sqrt(v + e) = gamma (x - m / s) / sqrt((v + e) / s**2)
            values = [layer.gamma.copy(), layer.beta.copy(), mean / scales[name],
                      (variance + layer.EPSILON) / scales[name] ** 2 - epsilon]
        found.append((places[name], layer, [np.ascontiguousarray(value, network.dtype) for value in values]))
    return found


def _divided(network: "Network", name: str, weights: Sequence[ArrayLike]) -> list[list[np.ndarray]]:
    """A list of arrays by layer."""
    if not isinstance(weights, (list, tuple)):
        raise TypeError(f"{name} is a {type(weights).__name__}, but must be a list of arrays")
    layers = _trained_layers(network)
    counts = [2 if isinstance(layer, Affine) else 4 for _, layer in layers]
    if len(weights) != sum(counts):
        raise ValueError(f"{name} has {len(weights)} arrays, but the layers of the network need {sum(counts)}")
    arrays = iter(_array(f"{name}[{place}]", value) for place, value in enumerate(weights))
    return [[next(arrays) for _ in range(count)] for count in counts]


def _read(network: "Network", values: list[list[np.ndarray]], epsilon: float, source: str) -> None:
    """Put arrays into the layers, all of them checked first."""
    epsilon = _validation.check_number("epsilon", epsilon, 0)
    scales, targets = _scales(network), []
    for (name, layer), arrays in zip(_trained_layers(network), values, strict=True):
        if isinstance(layer, Affine):
            places, found = [layer.W, layer.b], [arrays[0] / scales[name], arrays[1]]
        else:
            gamma, beta, mean, variance = arrays
            places = [layer.gamma, layer.beta, *layer.statistics]
            found = [gamma, beta, mean * scales[name], (variance + epsilon) * scales[name] ** 2 - layer.EPSILON]
        for place, array in zip(places, found, strict=True):
            if array.shape != place.shape:
                raise ValueError(f"{source} has an array of shape {array.shape} for layer {name}, which has {place.shape} there")
            targets.append((place, array))
    for place, array in targets:
        place[...] = array


def _array(name: str, value: Any) -> np.ndarray:
    """An array of float64; of PyTorch a tensor, too, also one that is trained."""
    detached = value.detach() if hasattr(value, "detach") else value
    return _validation.floats(name, detached, np.dtype(np.float64))
