"""`nnfast.sklearn` beside scikit-learn's own estimators: the same parameters, the same `random_state`, the same weights at the end.

`python bench/bench_sklearn.py`, some twenty minutes. Whole calls of `fit` as a user makes them, checks of the data and all; on MNIST
two epochs of one. scikit-learn's products are OpenBLAS's, with as many threads as nnfast may use.
"""

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
    ]


def main(argv: list[str] | None = None) -> int:
    return timing.run("bench_sklearn", "nnfast.sklearn beside scikit-learn", "a call", cases(), argv)


if __name__ == "__main__":
    sys.exit(main())
