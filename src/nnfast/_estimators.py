"""What the estimators of `nnfast.sklearn` share: parameters checked, weights drawn, a `Network` on the arrays of `coefs_`.

Whatever scikit-learn's estimators draw from `random_state` is drawn here in the same order from the same functions, and
whatever they sum is summed so: the same `random_state` gives the same coefficients, but for rounding.
"""

import copy
import itertools
import math
import warnings
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

_OF_DATA = ("classes_", "_label_binarizer", "n_outputs_", "n_features_in_", "feature_names_in_")
"""Attributes that an ensemble's networks share."""

_OF_ONE_NETWORK = (
    "coefs_", "intercepts_", "loss_", "best_loss_", "loss_curve_", "validation_scores_", "best_validation_score_",
    "validation_loss_curve_", "t_", "_network", "_optimizer", "_no_improvement_count",
)
"""Attributes that an ensemble has not."""


class Perceptron(BaseEstimator):
    """Fitting and predicting; a subclass knows its targets."""

    _output_layers: ClassVar[dict[str, type]]     # by the name of the output's activation
    _score_of: Callable[..., float]
    _y_is_numeric: bool
    coefs_: list[np.ndarray]
    intercepts_: list[np.ndarray]
    estimators_: list["Perceptron"]
    n_iter_: int

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
    ) -> None:
        self._check_parameters()
        if incremental and self.early_stopping:
            raise ValueError("early_stopping is True, but partial_fit makes a single pass: set it to False, or call fit")
        X, y = self._checked_data(X, y, incremental=incremental)
        fits = self._begin(X, y, sample_weight, eval_set, incremental=incremental)
        errors: list[Exception | None] = []
        try:
            errors = _solvers.train(fits, self.num_threads)
        except KeyboardInterrupt:
            if self.solver == "lbfgs":
                raise
            warnings.warn("training was interrupted: the weights are those of the last whole epoch", stacklevel=3)
        self._end(errors)

    def _begins_anew(self, *, incremental: bool) -> bool:
        """Whether there are no weights to go on with."""
        return not (hasattr(self, "coefs_") or hasattr(self, "estimators_")) or not (self.warm_start or incremental)

    def _checked_data(self, X: Any, y: Any, *, incremental: bool) -> tuple[Any, np.ndarray]:
        dtype = (np.float64, np.float32) if self.dtype is None else _validation.check_dtype("dtype", self.dtype)
        X, y = validate_data(
            self, X, y, accept_sparse="csr", multi_output=True, y_numeric=self._y_is_numeric, dtype=dtype, order="C",
            reset=self._begins_anew(incremental=incremental))
        return X, y

    def _begin(
        self, X: Any, y: np.ndarray, sample_weight: ArrayLike | None, eval_set: Sequence[Any] | None, *, incremental: bool,
        rows: np.ndarray | None = None, random_state: np.random.RandomState | None = None,
    ) -> list["_solvers.Fit"]:
        """What is to be done for each network, weights drawn, to fit some or all rows of checked data.

        sample_weight: of these rows alone. random_state: instead of the parameter of that name.
        """
        is_first = self._begins_anew(incremental=incremental)
        y, targets = self._targets(y if rows is None else y[rows], incremental=incremental)
        weights = self._weights(len(targets), y, sample_weight, incremental=incremental)
        self._random_state = check_random_state(self.random_state) if random_state is None else random_state
        self.n_outputs_ = self._count_outputs(targets)
        validation = None if eval_set is None else self._validation_set(eval_set, X.dtype)
        data = _solvers.Data.of_rows(X, targets, weights, rows)
        sizes = [X.shape[1], *self._hidden_sizes(), self.n_outputs_]
        if self.n_ensemble == 1 and (is_first or hasattr(self, "coefs_")):
            self.__dict__.pop("estimators_", None)
            return [self._begin_one(sizes, data, validation, is_first=is_first, incremental=incremental)]
        networks = self.n_ensemble if is_first else len(getattr(self, "estimators_", [self]))
        if networks != self.n_ensemble:
            raise ValueError(
                f"n_ensemble is {self.n_ensemble}, but warm_start or partial_fit goes on with {networks} networks: set it "
                "back, or fit anew with warm_start=False")
        if is_first:
            for name in _OF_ONE_NETWORK:
                self.__dict__.pop(name, None)
            self.n_layers_, self.out_activation_ = len(sizes), self._output_activation()
        members = self._members(is_first=is_first)
        data = data.shared()
        fits = []
        for member in members:      # no comprehension, which has a frame that warnings would count, or not
            fits.append(member._begin_one(sizes, data, validation, is_first=is_first, incremental=incremental))
        self.estimators_ = members
        return fits

    def _begin_one(
        self, sizes: list[int], data: "_solvers.Data", validation: "_solvers.Validation | None", *, is_first: bool,
        incremental: bool,
    ) -> "_solvers.Fit":
        if is_first:
            self._initialize(sizes, data.x.dtype)
        elif [array.shape for array in self.coefs_] != list(itertools.pairwise(sizes)):
            raise ValueError(
                f"hidden_layer_sizes is {self.hidden_layer_sizes!r}, but the weights that warm_start or partial_fit go on with "
                f"have shapes {[array.shape for array in self.coefs_]}: set it back, or fit anew with warm_start=False")
        else:   # arrays that somebody has put in, or that come from a file, may be read-only or in another order
            self.coefs_, self.intercepts_ = (
                [np.require(array, requirements=("C", "A", "W")) for array in arrays] for arrays in (self.coefs_, self.intercepts_))
        if self.solver == "lbfgs":
            return _solvers.Minimization(self, data, validation)
        return _solvers.Descent(self, data, validation, incremental=incremental)

    def _members(self, *, is_first: bool) -> list["Perceptron"]:
        """The networks of an ensemble, with its parameters, and what it has found out about the data."""
        settings = {**self.get_params(deep=False), "n_ensemble": 1}
        del settings["random_state"]
        if is_first:
            number = int(copy.deepcopy(self._random_state).randint(1 << 32, dtype=np.uint32))
            seeds = [self.random_state] + [
                int(np.random.SeedSequence([number, place]).generate_state(1)[0]) for place in range(1, self.n_ensemble)]
            members = [type(self)(**settings, random_state=seed) for seed in seeds]
        else:
            members = [member.set_params(**settings) for member in self.estimators_]
        for member in members:
            member._take_after(self)
            member._random_state = self._random_state if member is members[0] else check_random_state(member.random_state)
        return members

    def _take_after(self, other: "Perceptron") -> None:
        """Know of the data what another one knows."""
        self.__dict__.update({name: vars(other)[name] for name in _OF_DATA if name in vars(other)})

    def _end(self, errors: Sequence[Exception | None]) -> None:
        """Sum up the networks' fits, and raise what went wrong first, if anything did."""
        if self.n_ensemble > 1:
            self.n_iter_ = max(member.n_iter_ for member in self.estimators_)
        for place, error in enumerate(errors):
            if isinstance(error, ValueError) and self.n_ensemble > 1:
                raise ValueError(f"network {place} of {self.n_ensemble}: {error}") from error
            if error is not None:
                raise error

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
        count("n_ensemble", self.n_ensemble)
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
        """The `Network` of the arrays of `coefs_` and `intercepts_`: live, and ready for `export_c`, `save` and so on.

        Not of an ensemble, whose networks are those of `estimators_`.
        """
        check_is_fitted(self)
        if not hasattr(self, "coefs_"):
            raise AttributeError("an ensemble has no network_ of its own, but one for each of estimators_")
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

    def _averaged(
        self, X: Any, of: Callable[[np.ndarray], np.ndarray], *, return_std: bool = False
    ) -> Any:
        """What is made of the scores (B, O) of the last layer: the mean over the networks of an ensemble, and its spread."""
        check_is_fitted(self)
        networks = [one.network_ for one in vars(self).get("estimators_", [self])]
        if return_std and len(networks) == 1:
            raise ValueError("return_std is True, but a single network has no spread: fit with n_ensemble of at least 2")
        X = validate_data(self, X, accept_sparse="csr", dtype=networks[0].dtype, reset=False)
        with _threads.limited(self.num_threads):
            found = [of(_solvers.scores_of(network, X)) for network in networks]
        if len(networks) == 1:
            return found[0]
        mean = np.mean(found, axis=0)
        return (mean, np.std(found, axis=0, ddof=1)) if return_std else mean

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_network"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
