"""scikit-learn's cross-validation of the estimators of `nnfast.sklearn`, with the networks of all folds trained at once.

The folds are fitted on rows of one array when scikit-learn asks to fit the first of them. Everything else is
scikit-learn's own function: it gets estimators whose `fit` only says how that went.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import joblib
import numpy as np
import sklearn
from numpy.typing import ArrayLike
from sklearn import model_selection
from sklearn.base import clone, is_classifier
from sklearn.utils import check_random_state, indexable

from nnfast import _estimator_solvers as _solvers
from nnfast import _estimators

_PARAMS = {"sample_weight", "eval_set"}
"""What `fit` takes beside X and y."""


def cross_val_score(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    groups: ArrayLike | None = None,
    scoring: str | Callable[..., float] | None = None,
    cv: Any = None,
    n_jobs: int | None = None,
    verbose: int = 0,
    params: Mapping[str, Any] | None = None,
    pre_dispatch: int | str = "2*n_jobs",
    error_score: float | Literal["raise"] = np.nan,
) -> np.ndarray:
    """What `sklearn.model_selection.cross_val_score` returns, with all folds trained at once.

    The same numbers, for `MLPClassifier` and `MLPRegressor`: each fold's network is trained on a thread of its own, on rows
    of one array that is not copied for it, and `num_threads` of the estimator says how many threads there are. Anything
    else goes to scikit-learn's function as it is: other estimators (pipelines, searches, subclasses), the solver "lbfgs",
    a sparse X, X or y that `fit` refuses, an empty fold, parameters that `fit` has not, and metadata routing.

    An estimator without `random_state` draws one number of NumPy's global state for each fold, in their order, and its fold
    draws all others from that. Callbacks hear of the epochs of all folds in turn.

    Parameters
    ----------
    estimator : estimator
        Is not fitted itself; a clone is, for each fold.
    X : array_like
        Rows, shape (B, I).
    y : array_like
        As `fit` takes it.
    groups : array_like, optional
        Groups of the rows, shape (B,), for a splitter that heeds them.
    scoring : str or callable, optional
        As scikit-learn takes it; the estimator's `score` if not given.
    cv : int, splitter or iterable of (rows to train on, rows to score), optional
        As scikit-learn takes it; 5 folds if not given.
    n_jobs : int, optional
        Processes, where scikit-learn's function does it all; otherwise nothing.
    verbose : int, default 0
        As scikit-learn takes it.
    params : mapping, optional
        What `fit` takes: "sample_weight", of which each fold gets its rows', and "eval_set".
    pre_dispatch : int or str, default "2*n_jobs"
        As `n_jobs`.
    error_score : float or "raise", default NaN
        The score of a fold that could not be fitted or scored.

    Returns
    -------
    ndarray
        A score for each fold.

    Raises
    ------
    TypeError, ValueError
        As scikit-learn's: if an argument does not fit, no fold could be fitted, or a fold could not with ``error_score="raise"``.

    Examples
    --------
    >>> from nnfast import load_digits
    >>> from nnfast.sklearn import MLPClassifier, cross_val_score
    >>> (x, t), _ = load_digits()
    >>> scores = cross_val_score(MLPClassifier((50,), random_state=0, early_stopping=True), x, t, cv=3)
    >>> len(scores), bool(scores.min() > 0.8)
    (3, True)
    """
    folds = _Folds(estimator, X, y, groups, cv, params)
    with folds.in_order():
        found: np.ndarray = model_selection.cross_val_score(
            folds.estimator, X, y, scoring=scoring, n_jobs=n_jobs, verbose=verbose, params=params,
            pre_dispatch=pre_dispatch, error_score=error_score, **folds.divided(keeps_rows=False))
    return found


def cross_validate(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    groups: ArrayLike | None = None,
    scoring: str | Callable[..., Any] | Iterable[str] | Mapping[str, Any] | None = None,
    cv: Any = None,
    n_jobs: int | None = None,
    verbose: int = 0,
    params: Mapping[str, Any] | None = None,
    pre_dispatch: int | str = "2*n_jobs",
    return_train_score: bool = False,
    return_estimator: bool = False,
    return_indices: bool = False,
    error_score: float | Literal["raise"] = np.nan,
) -> dict[str, Any]:
    """What `sklearn.model_selection.cross_validate` returns, with all folds trained at once.

    The same numbers, but for seconds: all folds' "fit_time" is that of fitting them together, divided by how many they are.

    Parameters
    ----------
    estimator, X, y, groups : optional
        As for `cross_val_score`.
    scoring : str, callable, list or mapping, optional
        As scikit-learn takes it: one score or several.
    cv, n_jobs, verbose, params, pre_dispatch : optional
        As for `cross_val_score`.
    return_train_score : bool, default False
        Whether the rows that are trained on are scored, too: scikit-learn copies them, a fold at a time.
    return_estimator : bool, default False
        Whether the fitted estimators are returned.
    return_indices : bool, default False
        Whether the rows of each fold are returned.
    error_score : float or "raise", default NaN
        As for `cross_val_score`.

    Returns
    -------
    dict
        By "test_score", "fit_time", "score_time" and so on, an array with a value for each fold.

    Raises
    ------
    TypeError, ValueError
        As `cross_val_score`.

    Examples
    --------
    >>> from nnfast.sklearn import MLPRegressor, cross_validate
    >>> x = np.random.default_rng(0).uniform(-1, 1, (120, 2))
    >>> regressor = MLPRegressor(hidden_layer_sizes=(10,), learning_rate_init=0.02, tol=0.01, random_state=0)
    >>> found = cross_validate(regressor, x, x @ [1, 2], cv=3, scoring=["r2", "neg_mean_squared_error"])
    >>> sorted(found)
    ['fit_time', 'score_time', 'test_neg_mean_squared_error', 'test_r2']
    """
    folds = _Folds(estimator, X, y, groups, cv, params)
    with folds.in_order():
        found: dict[str, Any] = model_selection.cross_validate(
            folds.estimator, X, y, scoring=scoring, n_jobs=n_jobs, verbose=verbose, params=params, pre_dispatch=pre_dispatch,
            return_train_score=return_train_score, return_estimator=return_estimator, return_indices=return_indices,
            error_score=error_score, **folds.divided(keeps_rows=return_train_score or return_indices))
    if folds.are_together:
        found["fit_time"] = np.full(len(found["fit_time"]), folds.seconds / len(found["fit_time"]))
    return found


class _Folds:
    """An estimator whose clones are of one fold after the other, and are fitted all at once."""

    def __init__(
        self, estimator: Any, X: Any, y: Any, groups: Any, cv: Any, params: Mapping[str, Any] | None
    ) -> None:
        self.estimator = estimator
        self.seconds = 0.0
        self.are_together = False
        self._given = {"groups": groups, "cv": cv}
        if not _is_ours(estimator) or sklearn.get_config()["enable_metadata_routing"] or set(params or ()) - _PARAMS:
            return
        X, y = indexable(X, y)
        cv = model_selection.check_cv(cv, y, classifier=is_classifier(estimator))
        self._splits = list(cv.split(X, y, groups=groups))
        self._given["cv"] = self._splits    # it may be exhausted, or draw others another time
        template = clone(estimator)
        try:
            self._x, self._y = template._checked_data(X, y, incremental=False)
            places = np.arange(len(self._y))
            self._rows = [places[train] for train, _ in self._splits]
        except Exception:   # noqa: BLE001, scikit-learn's function raises it where it belongs
            return
        if hasattr(self._x, "toarray") or not all(rows.size for rows in self._rows):
            return
        self.are_together = True
        self._params = dict(params or {})
        self._folds = [clone(estimator) for _ in self._splits]
        self._errors: list[Exception | None] = []
        for place, fold in enumerate(self._folds):
            fold._take_after(template)
            fold.fit = self._fit_of(place)
        remaining = iter(self._folds)
        self.estimator = template
        template.__sklearn_clone__ = lambda: next(remaining)

    def in_order(self) -> contextlib.AbstractContextManager[Any]:
        """Where scikit-learn asks for one fold after the other, in this process."""
        context: contextlib.AbstractContextManager[Any] = \
            joblib.parallel_config("sequential") if self.are_together else contextlib.nullcontext()
        return context

    def divided(self, *, keeps_rows: bool) -> dict[str, Any]:
        """The folds as scikit-learn takes them; without the rows to train on, which it would copy for nobody."""
        if not self.are_together or keeps_rows:
            return self._given
        return {"cv": [(rows[:1], test) for rows, (_, test) in zip(self._rows, self._splits, strict=True)]}

    def _fit_of(self, place: int) -> Callable[..., Any]:
        """Stands in for the method of one fold's estimator."""

        def fit(X: Any, y: Any, **_: Any) -> Any:
            if not self._errors:
                started = time.perf_counter()
                self._errors = self._fit_all()
                self.seconds = time.perf_counter() - started
            fold, error = self._folds[place], self._errors[place]
            del fold.fit
            if error is not None:
                raise error
            return fold

        return fit

    def _fit_all(self) -> list[Exception | None]:
        errors: list[Exception | None] = [None] * len(self._folds)
        fits: list[list[_solvers.Fit]] = [[] for _ in self._folds]
        for place, (fold, rows) in enumerate(zip(self._folds, self._rows, strict=True)):
            try:
                fits[place] = self._begin(fold, rows)
            except Exception as error:      # noqa: BLE001, the fold's `fit` raises it
                errors[place] = error
        found = iter(_solvers.train([fit for of_fold in fits for fit in of_fold], self.estimator.num_threads))
        for place, (fold, of_fold) in enumerate(zip(self._folds, fits, strict=True)):
            if errors[place] is None:
                try:
                    fold._end([next(found) for _ in of_fold])
                except Exception as error:  # noqa: BLE001, likewise
                    errors[place] = error
        return errors

    def _begin(self, fold: Any, rows: np.ndarray) -> list[_solvers.Fit]:
        fold._check_parameters()
        weights: Any = self._params.get("sample_weight")
        if np.ndim(weights) and len(weights) == len(self._y):
            weights = np.asarray(weights)[rows]
        state = None
        if fold.random_state is None:
            state = np.random.RandomState(check_random_state(None).randint(1 << 32, dtype=np.uint32))
        begun: list[_solvers.Fit] = fold._begin(
            self._x, self._y, weights, self._params.get("eval_set"), incremental=False, rows=rows, random_state=state)
        return begun


def _is_ours(estimator: Any) -> bool:
    """Whether it is one of `nnfast.sklearn` that trains step by step."""
    return (isinstance(estimator, _estimators.Perceptron) and type(estimator).__module__ == "nnfast.sklearn"
            and estimator.solver != "lbfgs")
