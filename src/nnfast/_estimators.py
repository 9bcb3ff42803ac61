"""What the estimators of `nnfast.sklearn` share: parameters checked, weights drawn, a `Network` on the arrays of `coefs_`.

Whatever scikit-learn's estimators draw from `random_state` is drawn here in the same order from the same functions, and
whatever they sum is summed so: the same `random_state` gives the same coefficients, but for rounding.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from nnfast import _estimator_solvers as _solvers
from nnfast import _fit_validation, _threads, _validation
from nnfast.activations import Relu, Sigmoid, Tanh
from nnfast.layers import Affine, Dropout
from nnfast.network import Network

_ACTIVATIONS: dict[str, list[type]] = {"identity": [], "logistic": [Sigmoid], "tanh": [Tanh], "relu": [Relu]}


class Perceptron(BaseEstimator):
    """Fitting and predicting; a subclass knows its targets."""

    _output_layers: ClassVar[dict[str, type]]     # by the name of the output's activation
    _score_of: Callable[..., float]
    _y_is_numeric: bool
    coefs_: list[np.ndarray]
    intercepts_: list[np.ndarray]

    def _targets(self, y: np.ndarray, *, incremental: bool) -> tuple[np.ndarray, np.ndarray]:
        """The checked y, and what the network takes for it: labels (B,) from 0 on, or numbers (B, O)."""
        raise NotImplementedError

    def _predicted(self, scores: np.ndarray) -> np.ndarray:
        """What the network would take for the targets that are most likely, from its scores (B, O)."""
        raise NotImplementedError

    def _output_activation(self) -> str:
        raise NotImplementedError

    def _loss_divisor(self) -> int:
        """By which scikit-learn divides the sum of the outputs' losses."""
        return 1

    def _count_outputs(self, targets: np.ndarray) -> int:
        return int(targets.shape[1])

    def _class_weights(self, y: np.ndarray, *, incremental: bool) -> np.ndarray | None:
        """Of the rows (B,)."""
        return None

    # Fitting

    def _fit(
        self, X: Any, y: Any, sample_weight: ArrayLike | None, eval_set: Sequence[Any] | None, *, incremental: bool
    ) -> "Perceptron":
        self._check_parameters()
        if incremental and self.early_stopping:
            raise ValueError("early_stopping is True, but partial_fit makes a single pass: set it to False, or call fit")
        is_first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        dtype = (np.float64, np.float32) if self.dtype is None else _validation.check_dtype("dtype", self.dtype)
        X, y = validate_data(
            self, X, y, accept_sparse="csr", multi_output=True, y_numeric=self._y_is_numeric, dtype=dtype, order="C",
            reset=is_first)
        y, targets = self._targets(y, incremental=incremental)
        weights = self._weights(X.shape[0], y, sample_weight, incremental=incremental)
        self._random_state = check_random_state(self.random_state)
        self.n_outputs_ = self._count_outputs(targets)
        sizes = [X.shape[1], *self._hidden_sizes(), self.n_outputs_]
        validation = None if eval_set is None else self._validation_set(eval_set, X.dtype)
        if is_first:
            self._initialize(sizes, X.dtype)
        elif [array.shape for array in self.coefs_] != list(itertools.pairwise(sizes)):
            raise ValueError(
                f"hidden_layer_sizes is {self.hidden_layer_sizes!r}, but the weights that warm_start or partial_fit go on with "
                f"have shapes {[array.shape for array in self.coefs_]}: set it back, or fit anew with warm_start=False")
        else:   # arrays that somebody has put in, or that come from a file, may be read-only or in another order
            self.coefs_, self.intercepts_ = (
                [np.require(array, requirements=("C", "A", "W")) for array in arrays] for arrays in (self.coefs_, self.intercepts_))
        if self.solver == "lbfgs":
            _solvers.fit_lbfgs(self, X, targets, weights, validation)
        else:
            _solvers.fit_stochastic(self, X, targets, weights, validation, incremental=incremental)
        if not all(np.isfinite(array).all() for array in (*self.coefs_, *self.intercepts_)):
            raise ValueError("the weights became NaN or infinite: scale the columns of X to about -1 to 1, or lower the "
                             "learning rate")
        return self

    def _check_parameters(self) -> None:
        """Refuse what scikit-learn refuses."""
        check, number, count = _validation.check_choice, _validation.check_number, _validation.check_count
        self._hidden_sizes()
        check("activation", self.activation, list(_ACTIVATIONS))
        check("solver", self.solver, ["lbfgs", "sgd", "adam"])
        check("learning_rate", self.learning_rate, ["constant", "invscaling", "adaptive"])
        for name in ("alpha", "power_t", "tol"):
            number(name, getattr(self, name), 0)
        for name in ("learning_rate_init", "epsilon"):
            _validation.above_zero(name, getattr(self, name))
        number("momentum", self.momentum, 0, 1)
        for name in ("validation_fraction", "beta_1", "beta_2", "dropout"):
            number(name, getattr(self, name), 0, math.nextafter(1, 0))
        for name in ("max_iter", "max_fun"):
            count(name, getattr(self, name))
        if self.batch_size != "auto":
            count("batch_size", self.batch_size)
        if self.n_iter_no_change != np.inf:
            count("n_iter_no_change", self.n_iter_no_change)
        for name in ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise TypeError(f"{name} is {getattr(self, name)!r}, but must be True or False")
        count("verbose", int(self.verbose), 0)
        if self.num_threads is not None:
            count("num_threads", self.num_threads)
        if self.time_budget is not None:
            _validation.above_zero("time_budget", self.time_budget)
        if self.solver == "lbfgs" and self.dropout:
            raise ValueError(f"dropout is {self.dropout:g}, but lbfgs needs a loss without chance: take solver='adam' or 'sgd'")
        _validation.callables("callbacks", self.callbacks or ())

    def _hidden_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes if np.iterable(self.hidden_layer_sizes) else [self.hidden_layer_sizes]
        return [_validation.check_count("hidden_layer_sizes", size) for size in sizes]

    def _weights(
        self, rows: int, y: np.ndarray, sample_weight: ArrayLike | None, *, incremental: bool
    ) -> np.ndarray | None:
        """Of the rows (B,), None if all are 1."""
        weights = self._class_weights(y, incremental=incremental)
        if sample_weight is not None:
            given = np.full(rows, sample_weight) if np.isscalar(sample_weight) else sample_weight
            given = _fit_validation.sample_weight(given, rows)
            weights = given if weights is None else weights * given
        return None if weights is None else _fit_validation.some_weight(weights)

    def _initialize(self, sizes: list[int], dtype: np.dtype) -> None:
        """Weights and biases drawn as Glorot and Bengio (2010) have it, and attributes as before the first epoch."""
        self.n_iter_ = self.t_ = 0
        self.n_layers_ = len(sizes)
        self.out_activation_ = self._output_activation()
        self.coefs_, self.intercepts_ = [], []
        for fan_in, fan_out in itertools.pairwise(sizes):
            bound = math.sqrt((2 if self.activation == "logistic" else 6) / (fan_in + fan_out))
            self.coefs_.append(self._random_state.uniform(-bound, bound, (fan_in, fan_out)).astype(dtype, copy=False))
            self.intercepts_.append(self._random_state.uniform(-bound, bound, fan_out).astype(dtype, copy=False))
        _solvers.forget(self)

    def _validation_set(self, eval_set: Any, dtype: np.dtype) -> "_solvers.Validation":
        if not isinstance(eval_set, (tuple, list)) or len(eval_set) not in (2, 3):
            raise TypeError("eval_set must be a tuple (X, y) or (X, y, sample_weight)")
        X, y = validate_data(
            self, eval_set[0], eval_set[1], accept_sparse="csr", multi_output=True, y_numeric=self._y_is_numeric,
            dtype=dtype, order="C", reset=False)
        targets = self._targets(y, incremental=True)[1]
        if self._count_outputs(targets) != self.n_outputs_:
            raise ValueError(f"the y of eval_set has {self._count_outputs(targets)} outputs, but that of fit {self.n_outputs_}")
        weights = None if len(eval_set) == 2 else _fit_validation.sample_weight(eval_set[2], X.shape[0])
        return _solvers.Validation(X, targets, weights)

    # Predicting

    @property
    def network_(self) -> Network:
        """The `Network` of the arrays of `coefs_` and `intercepts_`: live, and ready for `export_c`, `save` and so on."""
        check_is_fitted(self)
        arrays = [*self.coefs_, *self.intercepts_]
        kind = (self.activation, self.out_activation_, self.dropout)
        made = getattr(self, "_network", None)      # of what kind and arrays, and the network
        if made is None or made[0] != kind or len(made[1]) != len(arrays) or not all(map(is_, made[1], arrays)):
            self._network = made = kind, arrays, self._made(*kind)
        network: Network = made[2]
        return network

    def _made(self, activation: str, output: str, dropout: float) -> Network:
        layers: list[Any] = []
        for W, b in zip(self.coefs_, self.intercepts_, strict=True):
            layers.append(Affine(W, b))
            if W is not self.coefs_[-1]:
                layers += [layer() for layer in _ACTIVATIONS[activation]]
                layers += [Dropout(dropout)] if dropout else []
        return Network(layers, self._output_layers[output]())

    def _scores(self, X: Any) -> np.ndarray:
        """Of the last layer (B, O)."""
        network = self.network_
        X = validate_data(self, X, accept_sparse="csr", dtype=network.dtype, reset=False)
        with _threads.limited(self.num_threads):
            return _solvers.scores_of(network, X)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_network"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
