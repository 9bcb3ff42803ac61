"""`nnfast.sklearn` beside scikit-learn's own estimators: the same parameters, the same `random_state`, the same weights at the end.

`python bench/bench_sklearn.py`, some twenty minutes. Whole calls of `fit` as a user makes them, checks of the data and all; on MNIST
two epochs of one. scikit-learn's products are OpenBLAS's, with as many threads as nnfast may use.
"""

import multiprocessing
import multiprocessing.util
import sys
import warnings

import numpy as np
import problems
import timing

DIGITS, MNIST, TABLE = "digits", "MNIST", "table"
GOALS = {DIGITS: 3.0, MNIST: 2.0}
"""Times as fast as scikit-learn to fit."""

TOLERANCE = 1e-4
"""Of the largest weight of a layer after a fit in float64: rounding errors grow in training."""

LOSS_TOLERANCE = 1e-3
"""Of the largest loss by epoch, in float32: where a unit of ReLU is at its kink, weights go apart."""


def data(source: str, dtype: str):
    """scikit-learn's digits (1797 x 64), MNIST (60,000 x 784; where it is not found, what `problems.images` has), or a table."""
    if source == DIGITS:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return (x / 16).astype(dtype), y
    if source == MNIST:
        x, t, _ = problems.images()
        return x.astype(dtype), t.argmax(axis=1)
    from sklearn.datasets import make_classification

    x, y = make_classification(500, 10, random_state=0)
    return x.astype(dtype), y


def _estimator(library: str, settings: dict):
    warnings.simplefilter("ignore")     # that a fit of a few epochs did not converge
    if library == "nnfast":
        from nnfast.sklearn import MLPClassifier
    else:
        from sklearn.neural_network import MLPClassifier
    return MLPClassifier(random_state=0, **settings)


def fitting(library: str, source: str, dtype: str, settings: dict):
    estimator, (x, y) = _estimator(library, settings), data(source, dtype)

    def work():
        estimator.fit(x, y)
        return [*estimator.coefs_, *estimator.intercepts_] if dtype == "float64" else [np.array(estimator.loss_curve_)]

    return work


def predicting(library: str, source: str, dtype: str, rows: int):
    x, y = data(source, dtype)
    estimator = _estimator(library, {"max_iter": 1}).fit(x, y)
    return lambda: [estimator.predict_proba(x[:rows])]


def passing(library: str, source: str, dtype: str, rows: int):
    """`partial_fit` with a few rows at a time."""
    x, y = data(source, dtype)
    estimator, classes = _estimator(library, {}), np.unique(y)
    estimator.partial_fit(x, y, classes=classes)
    first = 0

    def work():
        nonlocal first
        estimator.partial_fit(x[first : first + rows], y[first : first + rows])
        first = (first + rows) % (len(x) - rows)
        return [*estimator.coefs_]      # compared after the first pass of each

    return work


def _may_have_processes() -> None:
    """A contestant's process is a daemon, in which joblib would not start any; and which would wait for them to rest."""
    from joblib.externals.loky import get_reusable_executor

    multiprocessing.current_process()._config["daemon"] = False
    multiprocessing.util.Finalize(None, lambda: get_reusable_executor().shutdown(kill_workers=True), exitpriority=100)


def scoring(library: str, function: str, source: str, settings: dict, folds: int, jobs: int | None):
    """Cross-validation by scikit-learn's function, or by that of `nnfast.sklearn`."""
    _may_have_processes()
    from sklearn import model_selection

    from nnfast import sklearn as own

    estimator, (x, y) = _estimator(library, settings), data(source, "float64")
    score = (own if function == "nnfast" else model_selection).cross_val_score
    return lambda: [score(estimator, x, y, cv=folds, scoring="neg_log_loss", n_jobs=jobs)]


def voting(library: str, source: str, settings: dict, members: int, jobs: int | None):
    """An ensemble, or scikit-learn's of estimators with the same `random_state`."""
    _may_have_processes()
    from sklearn.ensemble import VotingClassifier

    x, y = data(source, "float64")
    estimator = _estimator("nnfast", {**settings, "n_ensemble": members})
    if library != "nnfast":
        states = [one.random_state for one in estimator.set_params(max_iter=1).fit(x, y).estimators_]
        estimator = VotingClassifier(
            [(str(state), _estimator(library, settings).set_params(random_state=state)) for state in states], voting="soft",
            n_jobs=jobs)

    def work():
        estimator.fit(x, y)
        return [estimator.predict_proba(x[:100])]

    return work


def at_once() -> list[timing.Case]:
    """Several networks in one call; scikit-learn's alone and in two processes, and ours by scikit-learn's function."""
    folds = [
        ("5 folds, digits", "10 epochs", DIGITS, {"max_iter": 10}, 5),
        ("5 folds, table, 500 x 10", "50 epochs", TABLE, {"max_iter": 50}, 5),
        ("20 folds, table, 20-20", "small networks, 20 epochs", TABLE, {"hidden_layer_sizes": (20, 20), "max_iter": 20}, 20),
    ]
    ensembles = [
        ("ensemble of 8, digits", "10 epochs", DIGITS, {"max_iter": 10}, 8),
        ("ensemble of 32, table, 20", "small networks, 20 epochs", TABLE, {"hidden_layer_sizes": (20,), "max_iter": 20}, 32),
    ]
    return [
        timing.Case(name, reason, {
            "scikit-learn": timing.Contestant(scoring, ("sklearn", "sklearn", source, settings, count, None)),
            "scikit-learn, 2 jobs": timing.Contestant(scoring, ("sklearn", "sklearn", source, settings, count, 2)),
            "nnfast, fold by fold": timing.Contestant(scoring, ("nnfast", "sklearn", source, settings, count, None)),
            timing.OURS: timing.Contestant(scoring, ("nnfast", "nnfast", source, settings, count, None)),
        }, TOLERANCE)
        for name, reason, source, settings, count in folds
    ] + [
        timing.Case(name, reason, {
            "scikit-learn": timing.Contestant(voting, ("sklearn", source, settings, count, None)),
            "scikit-learn, 2 jobs": timing.Contestant(voting, ("sklearn", source, settings, count, 2)),
            timing.OURS: timing.Contestant(voting, ("nnfast", source, settings, count, None)),
        }, TOLERANCE)
        for name, reason, source, settings, count in ensembles
    ]


def cases() -> list[timing.Case]:
    fits = [
        ("fit, digits, defaults", "scikit-learn's own digits, until it converges", DIGITS, "float64", {}),
        ("fit, digits, float32", "50 epochs", DIGITS, "float32", {"max_iter": 50}),
        ("fit, digits, early stopping", "a validation score after each epoch", DIGITS, "float64", {"early_stopping": True}),
        ("fit, digits, sgd", "50 epochs", DIGITS, "float64", {"solver": "sgd", "max_iter": 50}),
        ("fit, digits, lbfgs", "20 iterations over all rows", DIGITS, "float64", {"solver": "lbfgs", "max_iter": 20}),
        ("fit, table, 500 x 10", "where the overhead is most of it", TABLE, "float64", {}),
        ("fit, table, 64-64", "two hidden layers", TABLE, "float64", {"hidden_layer_sizes": (64, 64), "max_iter": 100}),
        ("fit, MNIST, defaults", "2 epochs", MNIST, "float64", {"max_iter": 2}),
        ("fit, MNIST, float32", "2 epochs", MNIST, "float32", {"max_iter": 2}),
        ("fit, MNIST, 256-128", "2 epochs", MNIST, "float32", {"max_iter": 2, "hidden_layer_sizes": (256, 128)}),
    ]
    return [
        timing.Case(name, reason, {
            who: timing.Contestant(fitting, (library, source, dtype, settings))
            for who, library in (("scikit-learn", "sklearn"), (timing.OURS, "nnfast"))
        }, TOLERANCE if dtype == "float64" else LOSS_TOLERANCE,
            goals={"scikit-learn": GOALS[source]} if name.endswith("defaults") else {})
        for name, reason, source, dtype, settings in fits
    ] + [
        timing.Case(f"predict_proba, MNIST, {rows:,} rows", "784-100-10, float32", {
            who: timing.Contestant(predicting, (library, MNIST, "float32", rows))
            for who, library in (("scikit-learn", "sklearn"), (timing.OURS, "nnfast"))
        }, TOLERANCE)
        for rows in (1, 1000)
    ] + [
        timing.Case("partial_fit, digits, 20 rows", "data that come bit by bit", {
            who: timing.Contestant(passing, (library, DIGITS, "float64", 20))
            for who, library in (("scikit-learn", "sklearn"), (timing.OURS, "nnfast"))
        }, TOLERANCE)
    ] + at_once()


def main(argv: list[str] | None = None) -> int:
    return timing.run("bench_sklearn", "nnfast.sklearn beside scikit-learn", "a call", cases(), argv)


if __name__ == "__main__":
    sys.exit(main())
