"""How the estimators of `nnfast.sklearn` find weights.

Step by step in the loop of `Network.fit`, by scikit-learn's rules for when to stop and at what rate; or by SciPy's L-BFGS
on the loss and gradient of compiled code.
"""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy.optimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from nnfast import _fit, _plan, _threads, _turns, _validation, functions
from nnfast._gradient_plan import GradientPlan
from nnfast.network import Network
from nnfast.optimizer import SGD, Adam, Momentum, Nesterov, Optimizer
from nnfast.trainer import Epoch

if TYPE_CHECKING:
    from nnfast._estimators import Perceptron

_LEAST_RATE = 1e-6
"""The adaptive learning rate is not divided below this."""

_NOT_ASKED_FOR: dict[str, Any] = {
    **dict.fromkeys((
        "validation_data", "class_weight", "block_rows", "steps_per_epoch", "schedule", "clip_value", "clip_norm",
        "early_stopping", "metrics", "checkpoint", "resume",
    )),
    "step_callbacks": (), "verbose": 0, "progress": False,
}
"""Options of `fit` that are none of an estimator's."""

_MOST_DENSE = 1 << 26
"""Bytes of sparse rows that are made dense at a time."""


def dense(x: Any) -> np.ndarray:
    """Rows that may be sparse, as an array."""
    return np.ascontiguousarray(x.toarray()) if hasattr(x, "toarray") else x


def scores_of(network: Network, x: Any) -> np.ndarray:
    """What a network gives for rows (B, O), which may be sparse."""
    if not hasattr(x, "toarray"):
        return network.predict(x)
    rows = _dense_rows(x)
    return np.concatenate([network.predict(dense(x[first : first + rows])) for first in range(0, x.shape[0], rows)])


def _dense_rows(x: Any) -> int:
    """How many of them are made dense at a time."""
    return max(1, int(_MOST_DENSE // (x.shape[1] * x.dtype.itemsize)))


@dataclasses.dataclass
class Validation:
    """Rows that are not trained on, with targets as the network takes them."""

    x: Any      # an array, or sparse
    targets: np.ndarray
    weights: np.ndarray | None

    def evaluated(self, estimator: "Perceptron") -> tuple[float, float]:
        """The mean of their losses, without penalty; and the score, NaN where what the network gives is not finite."""
        network = estimator.network_
        scores = scores_of(network, self.x)
        score = math.nan
        if np.isfinite(scores).all():
            score = float(estimator._score_of(self.targets, estimator._predicted(scores), sample_weight=self.weights))
        if estimator.out_activation_ == "softmax":
            probabilities = functions.softmax(scores)[np.arange(len(scores)), self.targets]
            losses = -np.log(np.maximum(probabilities, np.finfo(scores.dtype).eps))
        else:
            network.last_layer.forward(scores, self.targets)
            losses = network.last_layer.row_losses
        return float(np.average(losses, weights=self.weights)) / estimator._loss_divisor(), score


def forget(estimator: "Perceptron") -> None:
    """What was found in former fits."""
    estimator._no_improvement_count = 0
    estimator.validation_loss_curve_ = estimator.validation_scores_ = None
    estimator.best_loss_ = estimator.best_validation_score_ = None
    if estimator.solver != "lbfgs":
        estimator.loss_curve_ = []


@dataclasses.dataclass
class Data:
    """What is trained on: rows of data, all or some, with targets as the network takes them."""

    x: Any      # an array, or sparse
    targets: np.ndarray     # of all rows of x, whatever they are where none is trained on
    weights: np.ndarray | None  # likewise
    rows: np.ndarray | None = None      # that are trained on

    @classmethod
    def of_rows(cls, x: Any, targets: np.ndarray, weights: np.ndarray | None, rows: np.ndarray | None) -> Self:
        """With targets and weights of these rows alone."""
        if rows is not None:
            targets = _spread(targets, rows, x.shape[0])
            weights = None if weights is None else _spread(weights, rows, x.shape[0])
        return cls(x, targets, weights, rows)

    @property
    def count(self) -> int:
        """Rows that are trained on."""
        return int(self.x.shape[0]) if self.rows is None else len(self.rows)

    def shared(self) -> "Data":
        """For several networks: sparse rows that may be dense at a time are so once."""
        is_few = hasattr(self.x, "toarray") and self.x.shape[0] <= _dense_rows(self.x)
        return dataclasses.replace(self, x=dense(self.x)) if is_few else self

    def divided(self, kept: np.ndarray, held: np.ndarray) -> tuple["Data", Validation]:
        """What is left to train on, and to validate with, by places in the rows."""
        if self.rows is not None:
            kept, held = self.rows[kept], self.rows[held]
        x, targets, weights = self.x, self.targets, self.weights
        validation = Validation(x[held], targets[held], None if weights is None else weights[held])
        if not hasattr(x, "toarray"):
            return Data(x, targets, weights, kept), validation
        return Data(x[kept], targets[kept], None if weights is None else weights[kept]), validation


def _spread(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Values of some of so many rows, at their places."""
    found = np.zeros((count, *values.shape[1:]), values.dtype)
    found[rows] = values
    return found


class Fit:
    """A network's fit, all ready: weights drawn, data divided."""

    def __init__(self, estimator: "Perceptron") -> None:
        self.estimator = estimator

    def run(self) -> None:
        """Train."""
        raise NotImplementedError

    def end(self, error: Exception | None = None) -> Exception | None:
        """Clear up after training, and tell what went wrong."""
        arrays = (*self.estimator.coefs_, *self.estimator.intercepts_)
        if error is None and not all(np.isfinite(array).all() for array in arrays):
            return ValueError(
                "the weights became NaN or infinite: scale the columns of X to about -1 to 1, or lower the learning rate")
        return error


def train(fits: Sequence[Fit], num_threads: int | None) -> list[Exception | None]:
    """Train several networks at once, by L-BFGS one after the other; returns by fit what went wrong."""
    errors: list[Exception | None] = [None] * len(fits)
    descents = [fit for fit in fits if isinstance(fit, Descent)]    # all or none
    try:
        if len(descents) > 1:
            for place, error in _train_all([fit.begin() for fit in descents], num_threads).items():
                errors[place] = error
        else:
            for place, fit in enumerate(fits):
                try:
                    fit.run()
                except Exception as error:  # noqa: BLE001, it is the others' turn before it is raised
                    errors[place] = error
    except BaseException:   # Ctrl-C
        for fit in fits:
            fit.end()
        raise
    for place, fit in enumerate(fits):
        try:
            errors[place] = fit.end(errors[place])
        except Exception as error:      # noqa: BLE001, a warning that the user has made an error
            errors[place] = error
    return errors


def _train_all(many: Sequence[dict[str, Any]], num_threads: int | None) -> dict[int, Exception]:
    """Train what `_fit.Fit` takes, each on one thread at a time; what went wrong by place."""
    fits, places = [], []
    errors: dict[int, Exception] = {}
    with _threads.limited(num_threads):
        for place, options in enumerate(many):
            try:
                fits.append(_fit.Fit(**options))
            except (TypeError, ValueError) as error:
                errors[place] = error
            else:
                places.append(place)
        try:
            _turns.train(fits)
        except _turns.FitManyError as error:
            errors |= {places[number]: one for number, one in error.errors.items()}
    return errors


# By steps

class Descent(Fit):
    """On all rows, or, to choose when to stop, on those that are not held back; one pass if it is incremental."""

    def __init__(self, estimator: "Perceptron", data: Data, validation: Validation | None, *, incremental: bool) -> None:
        super().__init__(estimator)
        if not incremental or not hasattr(estimator, "_optimizer"):
            estimator._optimizer = _optimizer(estimator)
        if estimator.early_stopping and validation is None:
            data, validation = _held_back(estimator, data)
        rows = data.count
        if estimator.batch_size == "auto":
            batch_size = min(200, rows)
        else:
            batch_size = min(estimator.batch_size, rows)
            if batch_size < estimator.batch_size:
                warnings.warn(
                    f"batch_size is {estimator.batch_size}, but there are {rows} rows: it is cut to that", stacklevel=6)
        random_state = estimator._random_state
        if estimator.dropout:
            # Other masks in each partial_fit, also after pickling in between.
            generator = np.random.default_rng([random_state.randint(np.iinfo(np.int32).max), estimator.t_])
            estimator.network_.generator.bit_generator.state = generator.bit_generator.state
        self._epochs = _Epochs(estimator, validation, rows, incremental=incremental)
        order = np.arange(rows)

        def shuffled(_: int) -> np.ndarray:
            places = np.arange(rows)
            random_state.shuffle(places)
            order[:] = order[places]    # each epoch's is that of the last one, shuffled
            return order

        given: dict[str, Any] = {
            "x": data.x, "t": data.targets, "sample_weight": data.weights, "rows": data.rows, "shuffle": estimator.shuffle}
        if hasattr(data.x, "toarray"):
            block_rows = _dense_rows(data.x) // batch_size * batch_size
            if block_rows < rows:
                given = _in_blocks(data, max(block_rows, batch_size), shuffled if estimator.shuffle else np.arange)
            else:
                given["x"] = dense(data.x)
        self._options = {
            "network": estimator.network_, **given, "epochs": 1 if incremental else estimator.max_iter,
            "batch_size": batch_size, "optimizer": estimator._optimizer, "time_budget": estimator.time_budget,
            "callbacks": [self._epochs.is_over], "manner": _plan.Manner(
                shuffled, estimator._loss_divisor(), self._epochs.most_together,
                self._epochs.calls_functions()), **_NOT_ASKED_FOR}
        estimator.n_iter_ = 0

    def begin(self) -> dict[str, Any]:
        """What `_fit.Fit` takes."""
        # A batch's share of the penalty is scikit-learn's way, not the network's: `end` takes it back.
        self.estimator.network_.weight_decay_lambda = self.estimator.alpha
        return self._options

    def run(self) -> None:
        """Train on all threads."""
        _fit.fit(**self.begin(), num_threads=self.estimator.num_threads)

    def end(self, error: Exception | None = None) -> Exception | None:
        """Clear up after training, and tell what went wrong."""
        self.estimator.network_.weight_decay_lambda = 0
        if isinstance(error, FloatingPointError):
            error, error.__cause__ = ValueError(str(error)), error
        if error is None:
            self._epochs.end()
        return super().end(error)


def _optimizer(estimator: "Perceptron") -> Optimizer:
    rate, momentum = float(estimator.learning_rate_init), float(estimator.momentum)
    if estimator.solver == "adam":
        return Adam(rate, estimator.beta_1, estimator.beta_2, epsilon=estimator.epsilon)
    if momentum == 0:
        return SGD(rate)
    return (Nesterov if estimator.nesterovs_momentum else Momentum)(rate, momentum)


def _in_blocks(data: Data, block_rows: int, order_of: Callable[[int], np.ndarray]) -> dict[str, Any]:
    """What `fit` takes for sparse rows that are too many to be dense at a time: blocks in the order of the epoch."""
    x, targets, weights = data.x, data.targets, data.weights

    def blocks() -> Iterator[tuple[np.ndarray, ...]]:
        order = order_of(x.shape[0]).copy()
        for first in range(0, len(order), block_rows):
            part = order[first : first + block_rows]
            yield dense(x[part]), targets[part], *(() if weights is None else (weights[part],))

    return {"x": blocks, "t": None, "sample_weight": None, "rows": None, "shuffle": False}


def _held_back(estimator: "Perceptron", data: Data) -> tuple[Data, Validation]:
    """What is left to train on, and a part of the rows to validate with."""
    is_binary = estimator.out_activation_ == "logistic" and estimator.n_outputs_ == 1
    targets = data.targets if data.rows is None else data.targets[data.rows]
    kept, held = train_test_split(
        np.arange(data.count), random_state=estimator._random_state, test_size=estimator.validation_fraction,
        stratify=targets[:, 0].astype(int) if is_binary else None)
    if len(held) < 2:
        raise ValueError(f"validation_fraction is {estimator.validation_fraction:g} of {data.count} rows, which is fewer than 2")
    return data.divided(kept, held)


class _Epochs:
    """What follows each epoch of a fit: its values noted, the rate changed, and whether it was the last one."""

    def __init__(self, estimator: "Perceptron", validation: Validation | None, rows: int, *, incremental: bool) -> None:
        self._estimator, self._validation, self._rows, self._incremental = estimator, validation, rows, incremental
        self._is_over = False
        self._best = [array.copy() for array in self._arrays()] if estimator.early_stopping else []
        if not hasattr(estimator, "loss_curve_"):   # lbfgs went before
            forget(estimator)
        if validation is not None and estimator.validation_scores_ is None:
            estimator.validation_loss_curve_, estimator.validation_scores_ = [], []
        if estimator.early_stopping:
            estimator.best_loss_ = None
            if estimator.best_validation_score_ is None:
                estimator.best_validation_score_ = -math.inf
        elif estimator.best_loss_ is None:
            estimator.best_loss_ = math.inf

    def _arrays(self) -> list[np.ndarray]:
        return [*self._estimator.coefs_, *self._estimator.intercepts_]

    def most_together(self) -> int:
        """Epochs that can be trained before the first of them is heard of: none but the last may be the one to stop after."""
        estimator = self._estimator
        if self._validation is not None or estimator.callbacks or estimator.learning_rate == "invscaling":
            return 1
        return int(min(estimator.n_iter_no_change - estimator._no_improvement_count + 1, estimator.max_iter))

    def calls_functions(self) -> bool:
        """Whether `is_over` calls, or prints, anything that belongs into the thread of the user."""
        return bool(self._validation is not None or self._estimator.callbacks or self._estimator.verbose)

    def is_over(self, epoch: Epoch) -> bool:
        """Hear of an epoch, and say whether to stop."""
        estimator, validation = self._estimator, self._validation
        estimator.n_iter_ += 1
        estimator.loss_ = epoch.loss
        estimator.t_ += self._rows
        estimator.loss_curve_.append(epoch.loss)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {epoch.loss:.8f}")
        score = None
        if validation is not None:
            loss, score = validation.evaluated(estimator)
            epoch = dataclasses.replace(epoch, validation_loss=loss, validation_accuracy=score)
            estimator.validation_loss_curve_.append(loss)
            estimator.validation_scores_.append(score)
            if estimator.verbose:
                print(f"Validation score: {score:f}")
        self._compare(score)
        if estimator.solver == "sgd" and estimator.learning_rate == "invscaling":
            estimator._optimizer.lr = estimator.learning_rate_init / (estimator.t_ + 1) ** estimator.power_t
        answers = [callback(epoch) for callback in _validation.callables("callbacks", estimator.callbacks or ())]
        self._is_over = self._stops() or True in answers
        return self._is_over

    def _compare(self, score: float | None) -> None:
        """Count the epochs that brought nothing better."""
        estimator = self._estimator
        if estimator.early_stopping:
            assert score is not None    # there is a validation set
            is_better = not score < estimator.best_validation_score_ + estimator.tol
            if score > estimator.best_validation_score_:
                estimator.best_validation_score_ = score
                self._best = [array.copy() for array in self._arrays()]
        else:
            is_better = not estimator.loss_ > estimator.best_loss_ - estimator.tol
            estimator.best_loss_ = min(estimator.best_loss_, estimator.loss_)
        estimator._no_improvement_count = 0 if is_better else estimator._no_improvement_count + 1

    def _stops(self) -> bool:
        """Whether too many did; where the rate adapts, it falls first."""
        estimator = self._estimator
        if not estimator._no_improvement_count > estimator.n_iter_no_change:
            return False
        what = "validation score" if estimator.early_stopping else "training loss"
        message = f"The {what} did not improve by more than {estimator.tol:g} in {estimator.n_iter_no_change} epochs:"
        is_adaptive = estimator.solver == "sgd" and estimator.learning_rate == "adaptive"
        if is_adaptive and estimator._optimizer.lr > _LEAST_RATE:
            estimator._optimizer.lr /= 5
            estimator._no_improvement_count = 0
            if estimator.verbose:
                print(f"{message} the learning rate is {estimator._optimizer.lr:g} from now on.")
            return False
        if estimator.verbose:
            print(f"{message} training ends.")
        return True

    def end(self) -> None:
        """The best weights, and a warning if a better end was in sight."""
        estimator = self._estimator
        if estimator.n_iter_ == estimator.max_iter and not (self._is_over or self._incremental):
            warnings.warn(
                f"the fit had not converged after {estimator.max_iter} iterations, as many as max_iter allows: allow more, or "
                "raise tol", ConvergenceWarning, stacklevel=6)
        if estimator.early_stopping:
            for array, best in zip(self._arrays(), self._best, strict=True):
                array[...] = best


# By L-BFGS

class Minimization(Fit):
    """Of the loss over all rows, which are dense in memory meanwhile."""

    def __init__(self, estimator: "Perceptron", data: Data, validation: Validation | None) -> None:
        super().__init__(estimator)
        self._data, self._validation = data, validation

    def run(self) -> None:
        """Minimise."""
        estimator, data = self.estimator, self._data
        search = _Search(estimator, dense(data.x), data.targets, data.weights, self._validation)
        network = estimator.network_
        try:
            network.weight_decay_lambda = estimator.alpha / search.total
            with _threads.limited(estimator.num_threads):
                found = search.minimum()
        finally:
            network.weight_decay_lambda = 0
        search.put(found.x)
        estimator.loss_, estimator.n_iter_ = float(found.fun), min(found.nit, estimator.max_iter)
        if found.status and not search.is_over:
            warnings.warn(
                f"lbfgs ended before it converged ({found.message}): raise max_iter or max_fun, or scale the columns of X",
                ConvergenceWarning, stacklevel=5)


class _Search:
    """The loss as a function of one vector: matrices, then biases."""

    def __init__(
        self, estimator: "Perceptron", x: np.ndarray, targets: np.ndarray, weights: np.ndarray | None,
        validation: Validation | None,
    ) -> None:
        self._estimator, self._validation = estimator, validation
        self._weights = _plan.NO_WEIGHTS if weights is None else weights
        self.total = len(x) if weights is None else float(weights.sum())
        network = estimator.network_
        self._x, self._targets = _fit.training_data(network, x, targets, "X", "y")
        self._plan = GradientPlan(network, len(x))
        layers = range(1, len(estimator.coefs_) + 1)
        self._keys = [f"W{number}" for number in layers] + [f"b{number}" for number in layers]
        self._arrays = [*estimator.coefs_, *estimator.intercepts_]
        self._least = float(np.finfo(network.dtype).eps)
        self._started, self._iterations = time.perf_counter(), 0
        self.is_over = False
        if validation is not None:
            estimator.validation_loss_curve_, estimator.validation_scores_ = [], []

    def minimum(self) -> Any:
        """SciPy's result, from the weights as they are."""
        estimator = self._estimator
        return scipy.optimize.minimize(
            self.value_and_gradient, np.concatenate([array.ravel() for array in self._arrays]).astype(np.float64),
            method="L-BFGS-B", jac=True, callback=self.heard,
            options={"maxfun": estimator.max_fun, "maxiter": estimator.max_iter, "gtol": estimator.tol})

    def put(self, vector: np.ndarray) -> None:
        """Set the weights."""
        first = 0
        for array in self._arrays:
            array[...] = vector[first : first + array.size].reshape(array.shape)
            first += array.size

    def value_and_gradient(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """Of the mean loss with its penalty.

        Of several outputs' squared errors, as scikit-learn has it, the value is a mean and the gradient that of a sum.
        """
        self.put(vector)
        loss, gradients = self._plan.gradients(self._x, self._targets, self._weights, self._least)
        penalty = 0.5 * self._estimator.alpha / self.total * sum(
            float(np.vdot(array, array)) for array in self._estimator.coefs_)
        self._value = loss / self._estimator._loss_divisor() + penalty
        return self._value, np.concatenate([gradients[key].ravel() for key in self._keys]).astype(np.float64)

    def heard(self, vector: np.ndarray) -> None:
        """Called by SciPy after each iteration."""
        estimator, validation = self._estimator, self._validation
        self._iterations += 1
        if estimator.verbose:
            print(f"Iteration {self._iterations}, loss = {self._value:.8f}")
        loss = score = None
        seconds = time.perf_counter() - self._started
        if validation is not None:
            self.put(vector)
            loss, score = validation.evaluated(estimator)
            estimator.validation_loss_curve_.append(loss)
            estimator.validation_scores_.append(score)
        epoch = Epoch(
            self._iterations, estimator.max_iter, self._value, None, loss, score, seconds,
            self._iterations * len(self._x) / seconds, estimator.network_)
        answers = [callback(epoch) for callback in _validation.callables("callbacks", estimator.callbacks or ())]
        self.is_over = True in answers or (estimator.time_budget is not None and seconds > estimator.time_budget)
        if self.is_over:
            raise StopIteration
