"""scikit-learn's `MLPClassifier` and `MLPRegressor`, many times faster: change the import, and nothing else.

Needs the extra ``nnfast[sklearn]``. Parameters, defaults, attributes and meanings are those of scikit-learn's classes of
these names (version 1.9). The same `random_state` gives the same coefficients as there, but for rounding, with every
solver. What is here and not there comes after theirs, by keyword.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

try:
    from sklearn.base import ClassifierMixin, RegressorMixin
except ImportError:
    raise ImportError('nnfast.sklearn needs scikit-learn: pip install "nnfast[sklearn]"') from None

from sklearn.metrics import r2_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d, compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target, unique_labels

from nnfast import _estimators, _validation, functions
from nnfast._cross_validation import cross_val_score, cross_validate
from nnfast.losses import IdentityWithLoss, PoissonLoss, SigmoidWithLoss, SoftmaxWithLoss
from nnfast.trainer import Epoch

__all__ = ["MLPClassifier", "MLPRegressor", "cross_val_score", "cross_validate"]


def _accuracy(targets: np.ndarray, predicted: np.ndarray, sample_weight: np.ndarray | None) -> float:
    """The share of rows of which all answers are right. scikit-learn's takes 0.3 ms more to look at what it is given."""
    is_right = targets == predicted
    return float(np.average(is_right if is_right.ndim == 1 else is_right.all(axis=1), weights=sample_weight))


def _warn_if_one_hot(y: np.ndarray) -> None:
    """Tell that y means several answers to a row, where it looks as if classes had been encoded."""
    if y.ndim == 2 and y.shape[1] > 2 and y.shape[0] > 1 and (y.sum(axis=1) == 1).all():
        warnings.warn(
            "each row of y has a single 1, as encoded classes have, but a y of two dimensions means several independent "
            "answers to a row: pass labels, y.argmax(axis=1), if these are classes", UserWarning, stacklevel=6)


def _takes_steps(estimator: Any) -> bool:
    if estimator.solver == "lbfgs":
        raise AttributeError("solver is 'lbfgs', which takes all rows at a time: partial_fit needs 'sgd' or 'adam'")
    return True


class MLPClassifier(ClassifierMixin, _estimators.Perceptron):
    """A multi-layer perceptron for classes, or for several answers of yes or no to each row.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default (100,)
        Units of each hidden layer; () for none.
    activation : {"identity", "logistic", "tanh", "relu"}, default "relu"
        Of the hidden layers.
    solver : {"lbfgs", "sgd", "adam"}, default "adam"
        "lbfgs" takes all rows at a time (SciPy's L-BFGS-B), the others batches.
    alpha : float, default 0.0001
        Strength of the penalty alpha / 2 * sum(W**2) on all matrices, divided by what a batch weighs.
    batch_size : int or "auto", default "auto"
        Rows of a batch; "auto" is the least of 200 and all.
    learning_rate : {"constant", "invscaling", "adaptive"}, default "constant"
        Of "sgd": as `learning_rate_init` has it; divided by ``(t_ + 1)**power_t`` after each epoch; or divided by 5 whenever
        `n_iter_no_change` epochs brought nothing better, until it is 1e-6, where training ends.
    learning_rate_init : float, default 0.001
        Learning rate at first, above 0.
    power_t : float, default 0.5
        Exponent of "invscaling".
    max_iter : int, default 200
        Most epochs; of "lbfgs", iterations.
    shuffle : bool, default True
        Whether batches are drawn anew in each epoch.
    random_state : int, RandomState or None, default None
        What weights, orders and validation rows are drawn from.
    tol : float, default 0.0001
        How much better is better; of "lbfgs", the largest element of a gradient that counts as 0.
    verbose : bool, default False
        Whether to print each epoch's loss.
    warm_start : bool, default False
        Whether `fit` goes on from the weights of the last one.
    momentum : float, default 0.9
        Of "sgd", from 0 to 1.
    nesterovs_momentum : bool, default True
        Whether it is Nesterov's.
    early_stopping : bool, default False
        Whether a part of the rows, or `eval_set`, says when to stop, and the best weights are kept; otherwise the training
        loss says when.
    validation_fraction : float, default 0.1
        The part, from 0 to below 1.
    beta_1, beta_2 : float, default 0.9 and 0.999
        Of "adam".
    epsilon : float, default 1e-8
        Of "adam", above 0.
    n_iter_no_change : int, default 10
        Epochs without anything better, after which training ends; `numpy.inf` for no such end.
    max_fun : int, default 15000
        Most evaluations of "lbfgs".
    class_weight : mapping of labels to float, or "balanced", optional
        How much the rows of each class count; "balanced" makes all classes count the same. A list of mappings, one for each
        answer, where there are several.
    dropout : float, default 0.0
        Share of the outputs of each hidden layer that are left out in a training step, below 1. Not with "lbfgs".
    callbacks : sequence of callables, optional
        Each is called with an `nnfast.Epoch` after every epoch, and may return True to stop.
    num_threads : int, optional
        Most threads for fitting and predicting; as `nnfast.set_num_threads` has it if not given.
    dtype : {"float32", "float64"}, optional
        Of weights and arithmetic; that of X, float64 unless it is float32, if not given.
    time_budget : float, optional
        Seconds, above 0, after which training ends.
    n_ensemble : int, default 1
        Networks that are trained at once, one thread each, and predict together: the probabilities are the means of theirs. They differ
        by what is drawn from `random_state`: the first one is what it would be alone; the others' states are
        ``SeedSequence([number, place]).generate_state(1)[0]`` of `numpy.random`, where number is the first
        ``randint(2**32, dtype=numpy.uint32)`` of `random_state` and place counts from 1. Whatever is set holds for each
        of them; `callbacks` hear of the epochs of all, and end that network's fit alone.

    Attributes
    ----------
    classes_ : ndarray
        The labels, sorted.
    coefs_, intercepts_ : list of ndarray
        A matrix (I, O) and biases (O,) for each layer, live: `network_` and predictions see what is changed in them.
    loss_ : float
        The last epoch's, penalty included.
    best_loss_ : float or None
        The least; None with `early_stopping`.
    loss_curve_ : list of float
        By epoch; not with "lbfgs".
    validation_scores_ : list of float or None
        By epoch, accuracy, where there are validation rows.
    best_validation_score_ : float or None
        The largest, with `early_stopping`.
    validation_loss_curve_ : list of float or None
        Loss of the validation rows by epoch, without penalty.
    n_iter_ : int
        Epochs or iterations of the last fit; of an ensemble, the most of any network.
    estimators_ : list of MLPClassifier
        With `n_ensemble` above 1: one for each network. What belongs to one network (`coefs_`, `intercepts_`, `loss_`,
        `loss_curve_`, `best_loss_`, the validation's attributes, `t_` and `network_`) is theirs, and the ensemble has none.
    t_ : int
        Rows seen in all epochs.
    n_layers_, n_outputs_ : int
        Layers, inputs counted as one; units of the last one.
    out_activation_ : str
        "softmax" for several classes, "logistic" for two, or for several answers.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of str
        Their names, if X had any.

    Examples
    --------
    >>> from nnfast import load_digits
    >>> (x, t), (x_test, t_test) = load_digits()
    >>> classifier = MLPClassifier(hidden_layer_sizes=(50,), random_state=0, early_stopping=True).fit(x, t)
    >>> classifier.score(x_test, t_test) > 0.9
    True
    """

    _output_layers: ClassVar[dict[str, type]] = {"softmax": SoftmaxWithLoss, "logistic": SigmoidWithLoss}
    _score_of = staticmethod(_accuracy)
    _y_is_numeric = False

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: Literal["identity", "logistic", "tanh", "relu"] = "relu",
        *,
        solver: Literal["lbfgs", "sgd", "adam"] = "adam",
        alpha: float = 0.0001,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: Literal["constant", "invscaling", "adaptive"] = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        dropout: float = 0.0,
        callbacks: Sequence[Callable[[Epoch], bool | None]] | None = None,
        num_threads: int | None = None,
        dtype: DTypeLike | None = None,
        time_budget: float | None = None,
        n_ensemble: int = 1,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.class_weight = class_weight
        self.dropout = dropout
        self.callbacks = callbacks
        self.num_threads = num_threads
        self.dtype = dtype
        self.time_budget = time_budget
        self.n_ensemble = n_ensemble

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, eval_set: Sequence[Any] | None = None
    ) -> Self:
        """Find weights for some rows.

        Parameters
        ----------
        X : array_like, data frame or sparse matrix
            Rows, shape (B, I), finite.
        y : array_like
            Labels of any type, shape (B,); or 0 and 1 for each of several answers, shape (B, O).
        sample_weight : array_like, optional
            How much each row counts, shape (B,), at least 0.
        eval_set : tuple of (X, y) or (X, y, sample_weight), keyword-only, optional
            Rows that are not trained on: their loss and score are noted after each epoch, and with `early_stopping` they say
            when to stop.

        Returns
        -------
        MLPClassifier
            Itself.

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter does not fit, or the weights become infinite.
        """
        self._fit(X, y, sample_weight, eval_set, incremental=False)
        return self

    @available_if(_takes_steps)
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, classes: ArrayLike | None = None
    ) -> Self:
        """Make one more pass, over some rows.

        Parameters
        ----------
        X, y, sample_weight : array_like
            As for `fit`.
        classes : array_like, optional
            All labels that will ever come; needed in the first call, but for several answers to a row.

        Returns
        -------
        MLPClassifier
            Itself.

        Raises
        ------
        TypeError, ValueError
            As `fit`; or if `classes` is missing at first, or another one later.
        """
        if not hasattr(self, "classes_"):
            several = type_of_target(y, input_name="y").startswith("multilabel")
            if classes is None and not several:
                raise ValueError("classes must be passed in the first call of partial_fit: all labels that will ever come")
            self._set_classes(y if several else unique_labels(classes))
        elif classes is not None and not np.array_equal(self.classes_, unique_labels(classes)):
            raise ValueError(f"classes is {classes!r}, but was {self.classes_!r} in the first call of partial_fit")
        self._fit(X, y, sample_weight, None, incremental=True)
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The labels of some rows.

        Parameters
        ----------
        X : array_like, data frame or sparse matrix
            Shape (B, I), finite.

        Returns
        -------
        ndarray
            Labels (B,), or answers (B, O).
        """
        predicted = self._averaged(X, self._predicted) if not hasattr(self, "estimators_") else \
            self._likeliest(self._averaged(X, self._probabilities))
        labels: np.ndarray = self.classes_[predicted] if self.out_activation_ == "softmax" else \
            self._label_binarizer.inverse_transform(predicted)
        return labels

    @overload
    def predict_proba(self, X: ArrayLike, return_std: Literal[False] = ...) -> np.ndarray: ...
    @overload
    def predict_proba(self, X: ArrayLike, return_std: bool) -> Any: ...

    def predict_proba(self, X: ArrayLike, return_std: bool = False) -> Any:
        """The probability of each class, for some rows.

        Parameters
        ----------
        X : array_like, data frame or sparse matrix
            Shape (B, I), finite.
        return_std : bool, default False
            Whether the spread is returned, too.

        Returns
        -------
        probabilities : ndarray
            Shape (B, C), in the order of `classes_`, each row summing to 1; of several answers, (B, O). Of an ensemble the
            mean over its networks.
        std : ndarray
            With `return_std` alone: their standard deviation over the networks, the squares divided by ``n_ensemble - 1``.

        Raises
        ------
        ValueError
            If `return_std` is asked of a single network.
        """
        return self._averaged(X, self._probabilities, return_std=return_std)

    def predict_log_proba(self, X: ArrayLike) -> np.ndarray:
        """The logarithms of `predict_proba`.

        Parameters
        ----------
        X : array_like, data frame or sparse matrix
            Shape (B, I), finite.

        Returns
        -------
        ndarray
            Of the shape of `predict_proba`; -infinity where that is 0.
        """
        probabilities = self.predict_proba(X)
        with np.errstate(divide="ignore"):
            np.log(probabilities, out=probabilities)
        return probabilities

    def _set_classes(self, y: ArrayLike) -> None:
        self._label_binarizer = LabelBinarizer().fit(y)
        self.classes_ = self._label_binarizer.classes_

    def _targets(self, y: np.ndarray, *, incremental: bool) -> tuple[np.ndarray, np.ndarray]:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        _warn_if_one_hot(y)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._set_classes(y)
        else:
            found = unique_labels(y)
            missing = np.setdiff1d(found, self.classes_)
            if len(missing) or (not incremental and len(found) != len(self.classes_)):
                raise ValueError(f"y has the classes {found}, but those of the fit that this goes on with are {self.classes_}")
        if self._output_activation() == "softmax":
            return y, np.searchsorted(self.classes_, y).astype(np.int64)
        return y, self._label_binarizer.transform(y).astype(np.float64)

    def _output_activation(self) -> str:
        return "softmax" if self._label_binarizer.y_type_ == "multiclass" else "logistic"

    def _count_outputs(self, targets: np.ndarray) -> int:
        return len(self.classes_) if targets.ndim == 1 else targets.shape[1]

    def _predicted(self, scores: np.ndarray) -> np.ndarray:
        predicted: np.ndarray = scores.argmax(axis=1) if self.out_activation_ == "softmax" else (scores > 0).astype(int)
        return predicted

    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        if self.out_activation_ == "softmax":
            return np.asarray(functions.softmax(scores))
        if self.n_outputs_ > 1:
            return np.asarray(functions.sigmoid(scores))
        return np.hstack([functions.sigmoid(-scores), functions.sigmoid(scores)])

    def _likeliest(self, probabilities: np.ndarray) -> np.ndarray:
        """As `_predicted`, of probabilities as `predict_proba` gives them."""
        if self.out_activation_ == "softmax":
            return np.asarray(probabilities.argmax(axis=1))
        return (probabilities[:, -self.n_outputs_ :] > 0.5).astype(int)

    def _class_weights(self, y: np.ndarray, *, incremental: bool) -> np.ndarray | None:
        if self.class_weight is None:
            return None
        if incremental and isinstance(self.class_weight, str):
            raise ValueError("class_weight is 'balanced', but partial_fit does not see all rows: pass a dict of weights")
        weights: np.ndarray = compute_sample_weight(self.class_weight, y)
        return weights

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, _estimators.Perceptron):
    """A multi-layer perceptron for numbers, one or several to each row.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}, default "squared_error"
        Half the squared error, or half the deviance of Poisson's distribution, with exp as the output's activation and y of at
        least 0.
    hidden_layer_sizes : int or sequence of int, default (100,)
        Units of each hidden layer; () for none.
    activation : {"identity", "logistic", "tanh", "relu"}, default "relu"
        Of the hidden layers.
    solver : {"lbfgs", "sgd", "adam"}, default "adam"
        "lbfgs" takes all rows at a time (SciPy's L-BFGS-B), the others batches.
    alpha : float, default 0.0001
        Strength of the penalty alpha / 2 * sum(W**2) on all matrices, divided by what a batch weighs.
    batch_size : int or "auto", default "auto"
        Rows of a batch; "auto" is the least of 200 and all.
    learning_rate : {"constant", "invscaling", "adaptive"}, default "constant"
        Of "sgd": as `learning_rate_init` has it; divided by ``(t_ + 1)**power_t`` after each epoch; or divided by 5 whenever
        `n_iter_no_change` epochs brought nothing better, until it is 1e-6, where training ends.
    learning_rate_init : float, default 0.001
        Learning rate at first, above 0.
    power_t : float, default 0.5
        Exponent of "invscaling".
    max_iter : int, default 200
        Most epochs; of "lbfgs", iterations.
    shuffle : bool, default True
        Whether batches are drawn anew in each epoch.
    random_state : int, RandomState or None, default None
        What weights, orders and validation rows are drawn from.
    tol : float, default 0.0001
        How much better is better; of "lbfgs", the largest element of a gradient that counts as 0.
    verbose : bool, default False
        Whether to print each epoch's loss.
    warm_start : bool, default False
        Whether `fit` goes on from the weights of the last one.
    momentum : float, default 0.9
        Of "sgd", from 0 to 1.
    nesterovs_momentum : bool, default True
        Whether it is Nesterov's.
    early_stopping : bool, default False
        Whether a part of the rows, or `eval_set`, says when to stop, and the best weights are kept; otherwise the training
        loss says when.
    validation_fraction : float, default 0.1
        The part, from 0 to below 1.
    beta_1, beta_2 : float, default 0.9 and 0.999
        Of "adam".
    epsilon : float, default 1e-8
        Of "adam", above 0.
    n_iter_no_change : int, default 10
        Epochs without anything better, after which training ends; `numpy.inf` for no such end.
    max_fun : int, default 15000
        Most evaluations of "lbfgs".
    dropout : float, default 0.0
        Share of the outputs of each hidden layer that are left out in a training step, below 1. Not with "lbfgs".
    callbacks : sequence of callables, optional
        Each is called with an `nnfast.Epoch` after every epoch, and may return True to stop.
    num_threads : int, optional
        Most threads for fitting and predicting; as `nnfast.set_num_threads` has it if not given.
    dtype : {"float32", "float64"}, optional
        Of weights and arithmetic; that of X, float64 unless it is float32, if not given.
    time_budget : float, optional
        Seconds, above 0, after which training ends.
    n_ensemble : int, default 1
        Networks that are trained at once, one thread each, and predict together: the numbers are the means of theirs. They differ
        by what is drawn from `random_state`: the first one is what it would be alone; the others' states are
        ``SeedSequence([number, place]).generate_state(1)[0]`` of `numpy.random`, where number is the first
        ``randint(2**32, dtype=numpy.uint32)`` of `random_state` and place counts from 1. Whatever is set holds for each
        of them; `callbacks` hear of the epochs of all, and end that network's fit alone.

    Attributes
    ----------
    coefs_, intercepts_ : list of ndarray
        A matrix (I, O) and biases (O,) for each layer, live: `network_` and predictions see what is changed in them.
    loss_ : float
        The last epoch's, penalty included.
    best_loss_ : float or None
        The least; None with `early_stopping`.
    loss_curve_ : list of float
        By epoch; not with "lbfgs".
    validation_scores_ : list of float or None
        By epoch, R squared, where there are validation rows.
    best_validation_score_ : float or None
        The largest, with `early_stopping`.
    validation_loss_curve_ : list of float or None
        Loss of the validation rows by epoch, without penalty.
    n_iter_ : int
        Epochs or iterations of the last fit; of an ensemble, the most of any network.
    estimators_ : list of MLPRegressor
        With `n_ensemble` above 1: one for each network. What belongs to one network (`coefs_`, `intercepts_`, `loss_`,
        `loss_curve_`, `best_loss_`, the validation's attributes, `t_` and `network_`) is theirs, and the ensemble has none.
    t_ : int
        Rows seen in all epochs.
    n_layers_, n_outputs_ : int
        Layers, inputs counted as one; units of the last one.
    out_activation_ : str
        "identity", or "exp" with the loss "poisson".
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of str
        Their names, if X had any.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 200).reshape(-1, 1)
    >>> regressor = MLPRegressor(activation="tanh", solver="lbfgs", random_state=0).fit(x, np.sin(3 * x[:, 0]))
    >>> regressor.score(x, np.sin(3 * x[:, 0])) > 0.999
    True
    """

    _output_layers: ClassVar[dict[str, type]] = {"identity": IdentityWithLoss, "exp": PoissonLoss}
    _score_of = staticmethod(r2_score)
    _y_is_numeric = True

    def __init__(
        self,
        loss: Literal["squared_error", "poisson"] = "squared_error",
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: Literal["identity", "logistic", "tanh", "relu"] = "relu",
        *,
        solver: Literal["lbfgs", "sgd", "adam"] = "adam",
        alpha: float = 0.0001,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: Literal["constant", "invscaling", "adaptive"] = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: float = 0.0,
        callbacks: Sequence[Callable[[Epoch], bool | None]] | None = None,
        num_threads: int | None = None,
        dtype: DTypeLike | None = None,
        time_budget: float | None = None,
        n_ensemble: int = 1,
    ) -> None:
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.dropout = dropout
        self.callbacks = callbacks
        self.num_threads = num_threads
        self.dtype = dtype
        self.time_budget = time_budget
        self.n_ensemble = n_ensemble

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, eval_set: Sequence[Any] | None = None
    ) -> Self:
        """Find weights for some rows.

        Parameters
        ----------
        X : array_like, data frame or sparse matrix
            Rows, shape (B, I), finite.
        y : array_like
            Numbers, shape (B,) or (B, O).
        sample_weight : array_like, optional
            How much each row counts, shape (B,), at least 0.
        eval_set : tuple of (X, y) or (X, y, sample_weight), keyword-only, optional
            Rows that are not trained on: their loss and score are noted after each epoch, and with `early_stopping` they say
            when to stop.

        Returns
        -------
        MLPRegressor
            Itself.

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter does not fit, or the weights become infinite.
        """
        self._fit(X, y, sample_weight, eval_set, incremental=False)
        return self

    @available_if(_takes_steps)
    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Make one more pass, over some rows.

        Parameters
        ----------
        X, y, sample_weight : array_like
            As for `fit`.

        Returns
        -------
        MLPRegressor
            Itself.

        Raises
        ------
        TypeError, ValueError
            As `fit`.
        """
        self._fit(X, y, sample_weight, None, incremental=True)
        return self

    @overload
    def predict(self, X: ArrayLike, return_std: Literal[False] = ...) -> np.ndarray: ...
    @overload
    def predict(self, X: ArrayLike, return_std: bool) -> Any: ...

    def predict(self, X: ArrayLike, return_std: bool = False) -> Any:
        """The numbers for some rows.

        Parameters
        ----------
        X : array_like, data frame or sparse matrix
            Shape (B, I), finite.
        return_std : bool, default False
            Whether the spread is returned, too.

        Returns
        -------
        numbers : ndarray
            Shape (B,), or (B, O) where y had several columns. Of an ensemble the mean over its networks.
        std : ndarray
            With `return_std` alone: their standard deviation over the networks, the squares divided by ``n_ensemble - 1``.

        Raises
        ------
        ValueError
            If `return_std` is asked of a single network.
        """
        return self._averaged(X, self._numbers, return_std=return_std)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        _validation.check_choice("loss", self.loss, ["squared_error", "poisson"])

    def _targets(self, y: np.ndarray, *, incremental: bool) -> tuple[np.ndarray, np.ndarray]:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return y, np.ascontiguousarray(y.reshape(len(y), -1))

    def _output_activation(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _loss_divisor(self) -> int:
        return self.n_outputs_ if self.loss == "squared_error" else 1

    def _numbers(self, scores: np.ndarray) -> np.ndarray:
        predicted = self._predicted(scores)
        return predicted.ravel() if self.n_outputs_ == 1 else predicted

    def _predicted(self, scores: np.ndarray) -> np.ndarray:
        return np.exp(scores) if self.out_activation_ == "exp" else scores

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
