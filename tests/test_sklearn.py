"""`nnfast.sklearn`: scikit-learn's own checks, its own trajectories, and what it does not have."""

import copy
import inspect
import pickle
import signal
import threading
import time
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import parametrize_with_checks

import nnfast
from nnfast import _estimator_solvers
from nnfast.sklearn import MLPClassifier, MLPRegressor

OURS = {"classifier": MLPClassifier, "regressor": MLPRegressor}
THEIRS = {"classifier": neural_network.MLPClassifier, "regressor": neural_network.MLPRegressor}

# Nothing here trains until it converges, but where that is what is tested.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@parametrize_with_checks([MLPClassifier(), MLPRegressor(), MLPClassifier(solver="sgd"), MLPRegressor(solver="lbfgs")])
@pytest.mark.filterwarnings("ignore")   # the checks give data that warn, of conversions, batches and ends
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


# The same numbers

def data(kind, rng):
    """Rows and targets of a kind."""
    if kind == "two classes":
        return make_classification(150, 12, random_state=1)
    if kind == "several classes":
        x, y = make_classification(150, 12, n_informative=6, n_classes=4, random_state=2)
        return x, np.array(["d", "a", "c", "b"])[y]
    if kind == "several answers":
        return make_multilabel_classification(150, 12, n_classes=3, random_state=3)
    x, y = make_regression(150, 12, n_targets=3 if kind == "several numbers" else 1, random_state=4)
    y = y / np.abs(y).max()
    return x, np.exp(y).round() if kind == "counts" else y


FACES = {"two classes": "classifier", "several classes": "classifier", "several answers": "classifier",
         "numbers": "regressor", "several numbers": "regressor", "counts": "regressor"}
OF_KIND = {"counts": {"loss": "poisson"}}
SETTINGS = {
    "defaults": {},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.05},
    "sgd without Nesterov": {"solver": "sgd", "nesterovs_momentum": False},
    "sgd without momentum": {"solver": "sgd", "momentum": 0},
    "a momentum of 1": {"solver": "sgd", "momentum": 1},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.05, "power_t": 0.3},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.1, "tol": 0.05, "n_iter_no_change": 1,
                 "max_iter": 40},
    "a rate that adapts to the end": {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 1e-5, "tol": 9,
                                      "n_iter_no_change": 1, "max_iter": 40},
    "adam": {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 1e-3, "learning_rate_init": 0.02},
    "lbfgs": {"solver": "lbfgs", "max_iter": 15},
    "lbfgs with few evaluations": {"solver": "lbfgs", "max_fun": 9},
    "a penalty": {"alpha": 3.0},
    "no shuffling": {"shuffle": False, "batch_size": 32},
    "large batches": {"batch_size": 150},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 2, "validation_fraction": 0.2, "max_iter": 40},
    "an early end": {"tol": 0.05, "n_iter_no_change": 2, "learning_rate_init": 0.01, "max_iter": 60},
    "tanh": {"activation": "tanh", "hidden_layer_sizes": [7, 9, 8]},
    "logistic": {"activation": "logistic", "hidden_layer_sizes": 17},
    "identity": {"activation": "identity"},
    "no hidden layer": {"hidden_layer_sizes": ()},
}


def fitted(estimator, x, y, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(x, y, **more)


def both(kind, settings, x, y, **more):
    settings = {"max_iter": 12, "random_state": 5, "hidden_layer_sizes": (15,), **OF_KIND.get(kind, {}), **settings}
    return tuple(fitted(each[FACES[kind]](**settings), x, y, **more) for each in (OURS, THEIRS))


def assert_same(ours, theirs, x, rtol=1e-9):
    """L-BFGS doubles a difference of rounding in each iteration, more or less."""
    for one, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)
        assert one.dtype == other.dtype
    np.testing.assert_allclose(ours.predict(x[:40]) if theirs.predict(x).dtype.kind == "f" else ours.predict_proba(x[:40]),
                               theirs.predict(x[:40]) if theirs.predict(x).dtype.kind == "f" else theirs.predict_proba(x[:40]),
                               rtol=1e2 * rtol, atol=1e2 * rtol)
    if theirs.predict(x).dtype.kind != "f":
        np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    for name, value in vars(theirs).items():
        if name.endswith("_") and not name.startswith("_") and name not in ("coefs_", "intercepts_", "feature_names_in_"):
            own = getattr(ours, name)
            if value is None or isinstance(value, str):
                assert own == value, name
            elif isinstance(value, np.ndarray) and value.dtype.kind not in "f":
                np.testing.assert_array_equal(own, value, err_msg=name)
            else:
                np.testing.assert_allclose(own, value, rtol=1e2 * rtol, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", FACES)
def test_weights_losses_and_predictions_are_scikit_learns(kind, settings, rng):
    x, y = data(kind, rng)
    assert_same(*both(kind, SETTINGS[settings], x, y), x)


@pytest.mark.parametrize("settings", ["defaults", "sgd", "adam", "early stopping"])
@pytest.mark.parametrize("kind", FACES)
def test_float32_stays_float32_and_follows(kind, settings, rng):
    x, y = data(kind, rng)
    ours, theirs = both(kind, {**SETTINGS[settings], "max_iter": 5}, x.astype(np.float32), y)
    assert ours.coefs_[0].dtype == np.float32
    for one, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("settings", ["defaults", "sgd", "lbfgs", "early stopping"])
@pytest.mark.parametrize("kind", FACES)
def test_rows_with_weights_count_as_in_scikit_learn(kind, settings, rng):
    x, y = data(kind, rng)
    weights = rng.random(150) * 3
    assert_same(*both(kind, {"batch_size": 40, **SETTINGS[settings]}, x, y, sample_weight=weights), x)


@pytest.mark.parametrize("kind", FACES)
def test_passes_one_by_one_follow(kind, rng):
    x, y = data(kind, rng)
    face = FACES[kind]
    ours, theirs = (each[face](random_state=1, batch_size=30, **OF_KIND.get(kind, {})) for each in (OURS, THEIRS))
    more = {"classes": np.arange(3) if y.ndim == 2 else np.unique(y)} if face == "classifier" else {}
    for rows in (slice(0, 60), slice(60, 90), slice(90, 150)):
        for estimator in (ours, theirs):
            assert estimator.partial_fit(x[rows], y[rows], **more) is estimator
        more = {}
        assert_same(ours, theirs, x)
    assert ours.n_iter_ == 1 and ours.t_ == 150


@pytest.mark.parametrize("settings", ["defaults", "sgd", "lbfgs"])
@pytest.mark.parametrize("kind", ["several classes", "several numbers"])
def test_a_warm_start_goes_on_as_scikit_learns(kind, settings, rng):
    x, y = data(kind, rng)
    ours, theirs = both(kind, {"warm_start": True, **SETTINGS[settings]}, x, y)
    for estimator in (ours, theirs):
        fitted(estimator, x, y)
    assert_same(ours, theirs, x)


def test_a_warm_start_that_finds_nothing_better_keeps_the_best_weights(rng):
    # scikit-learn ends with the last ones then: the best are the arrays that it trains.
    x, y = data("several classes", rng)
    classifier = fitted(MLPClassifier((15,), early_stopping=True, n_iter_no_change=2, max_iter=40, random_state=5,
                                      validation_fraction=0.2, warm_start=True), x, y)
    best, before = classifier.best_validation_score_, [array.copy() for array in classifier.coefs_]
    fitted(classifier.set_params(learning_rate_init=1e-9), x, y)
    assert classifier.best_validation_score_ == best and max(classifier.validation_scores_) == best
    for one, other in zip(before, classifier.coefs_, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_warm_start_goes_on_with_another_solver(rng):
    x, y = data("several classes", rng)
    classifier = fitted(MLPClassifier(solver="lbfgs", max_iter=3, warm_start=True, random_state=0), x, y)
    before = [array.copy() for array in classifier.coefs_]
    fitted(classifier.set_params(solver="adam", max_iter=2), x, y)
    assert len(classifier.loss_curve_) == 2 and classifier.best_loss_ == min(classifier.loss_curve_)
    fitted(classifier.set_params(early_stopping=True), x, y)
    fitted(classifier.set_params(early_stopping=False), x, y)
    assert all(np.abs(one - other).max() < 0.1 for one, other in zip(before, classifier.coefs_, strict=True))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_warm_start_takes_arrays_of_any_order_and_read_only_ones(solver, rng):
    x, y = data("several classes", rng)
    plain, other = (fitted(MLPClassifier((5,), solver=solver, max_iter=2, warm_start=True, random_state=0), x, y) for _ in "12")
    other.coefs_ = [np.asfortranarray(array) for array in other.coefs_]
    other.intercepts_[0].flags.writeable = False
    for classifier in (plain, other):
        fitted(classifier, x, y)
    for one, found in zip(plain.coefs_ + plain.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        np.testing.assert_array_equal(one, found)


def test_an_activation_that_is_set_after_the_fit_is_what_predicts(rng):
    x, y = data("several classes", rng)
    ours, theirs = both("several classes", {}, x, y)
    ours.predict(x)
    for estimator in (ours, theirs):
        estimator.set_params(activation="tanh")
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=1e-9)


def test_a_random_state_object_is_drawn_from_as_by_scikit_learn(rng):
    x, y = data("several classes", rng)
    states = []
    for face in (OURS, THEIRS):
        state = np.random.RandomState(3)
        fitted(face["classifier"](random_state=state, max_iter=4, early_stopping=True), x, y)
        states.append(state.random())
    assert states[0] == states[1]


@pytest.mark.parametrize("face", OURS)
def test_parameters_have_scikit_learns_names_order_and_defaults(face):
    ours, theirs = (inspect.signature(kind[face]).parameters for kind in (OURS, THEIRS))
    assert list(ours)[: len(theirs)] == list(theirs)
    assert all(ours[name].default == theirs[name].default and ours[name].kind is theirs[name].kind for name in theirs)
    assert all(ours[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(ours)[len(theirs):])


# What scikit-learn's have not

def test_classes_with_weights_are_rows_with_weights(rng):
    x, y = data("several classes", rng)
    y[:60] = "a"
    settings = {"max_iter": 5, "random_state": 0}
    for weights in ("balanced", {"a": 0.5, "b": 2, "c": 1, "d": 3}):
        by_class = fitted(MLPClassifier(class_weight=weights, **settings), x, y)
        by_row = fitted(MLPClassifier(**settings), x, y, sample_weight=compute_sample_weight(weights, y))
        for one, other in zip(by_class.coefs_, by_row.coefs_, strict=True):
            np.testing.assert_array_equal(one, other)
    weights = rng.random(150)
    both_ways = fitted(MLPClassifier(class_weight={"a": 0.5}, **settings), x, y, sample_weight=weights)
    product = fitted(MLPClassifier(**settings), x, y, sample_weight=weights * np.where(y == "a", 0.5, 1))
    np.testing.assert_array_equal(both_ways.coefs_[0], product.coefs_[0])


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("kind", FACES)
def test_a_validation_set_is_evaluated_after_each_epoch(kind, solver, rng):
    x, y = data(kind, rng)
    seen = []
    weights = rng.random(50)
    settings = {"solver": solver, "max_iter": 4, "random_state": 0, **OF_KIND.get(kind, {})}
    estimator = OURS[FACES[kind]](callbacks=[seen.append], **settings)
    fitted(estimator, x[:100], y[:100], eval_set=(x[100:], y[100:], weights))
    assert len(estimator.validation_loss_curve_) == len(estimator.validation_scores_) == estimator.n_iter_ == 4
    assert [epoch.validation_loss for epoch in seen] == estimator.validation_loss_curve_
    assert estimator.validation_scores_[-1] == pytest.approx(estimator.score(x[100:], y[100:], weights))
    if FACES[kind] == "classifier":
        p = estimator.predict_proba(x[100:])
        hot = y[100:] if y.ndim == 2 else y[100:, None] == estimator.classes_
        losses = -(np.log(np.where(hot, p, 1 - p if y.ndim == 2 else 1))).sum(axis=1)
    elif kind == "counts":
        p, t = estimator.predict(x[100:]), y[100:]
        losses = p - t + np.where(t > 0, t * np.log(np.where(t > 0, t, 1) / p), 0)
    else:
        losses = 0.5 * (estimator.predict(x[100:]) - y[100:]).reshape(50, -1) ** 2
        losses = losses.mean(axis=1)
    assert estimator.validation_loss_curve_[-1] == pytest.approx(np.average(losses, weights=weights), rel=1e-5)
    plain = fitted(OURS[FACES[kind]](**settings), x[:100], y[:100])
    np.testing.assert_array_equal(estimator.coefs_[0], plain.coefs_[0])
    assert plain.validation_loss_curve_ is None


def test_a_validation_loss_is_finite_where_a_probability_is_zero(rng):
    x, y = data("several classes", rng)
    classifier = fitted(MLPClassifier(max_iter=1, random_state=0), x, y, eval_set=(1e5 * x, y))
    (loss,) = classifier.validation_loss_curve_
    is_wrong = classifier.predict(1e5 * x) != y
    assert loss == pytest.approx(is_wrong.mean() * -np.log(np.finfo(float).eps))


def test_a_validation_set_decides_when_to_stop_and_which_weights_are_best(rng):
    x, y = data("several classes", rng)
    noise = rng.permutation(y)      # nothing to be learned: the score rises by chance only
    classifier = MLPClassifier(
        max_iter=100, random_state=0, early_stopping=True, n_iter_no_change=3, learning_rate_init=0.02)
    fitted(classifier, x[:100], noise[:100], eval_set=(x[100:], y[100:]))
    assert classifier.n_iter_ < 100 and classifier.best_validation_score_ == max(classifier.validation_scores_)
    assert classifier.score(x[100:], y[100:]) == classifier.best_validation_score_
    assert classifier.t_ == 100 * classifier.n_iter_    # no rows were held back


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_a_callback_hears_of_each_epoch_and_may_end_the_fit(solver, rng):
    x, y = data("two classes", rng)
    seen = []

    def third(epoch):
        seen.append((epoch.number, epoch.loss))
        return epoch.number == 3

    with warnings.catch_warnings():
        warnings.simplefilter("error")      # an end that was asked for is none to warn of
        classifier = MLPClassifier(solver=solver, random_state=0, callbacks=[third]).fit(x, y)
    assert classifier.n_iter_ == 3 and [number for number, _ in seen] == [1, 2, 3]
    assert classifier.loss_ == seen[-1][1]


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_time_budget_ends_a_fit(solver, rng):
    x, y = rng.standard_normal((2000, 50)), rng.integers(0, 2, 2000)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MLPClassifier((200, 200), solver=solver, max_iter=10**6, tol=0, n_iter_no_change=np.inf, time_budget=0.2).fit(x, y)
    assert 0.2 <= time.perf_counter() - started < 10


def test_threads_do_not_change_a_bit_and_are_limited(rng, monkeypatch):
    x, y = data("several classes", rng)
    made = [fitted(MLPClassifier((64, 64), max_iter=3, random_state=0, num_threads=count), x, y) for count in (1, 2)]
    for one, other in zip(*(each.coefs_ for each in made), strict=True):
        np.testing.assert_array_equal(one, other)
    counts = []
    monkeypatch.setattr(nnfast.Network, "predict", lambda self, x: counts.append(nnfast.get_num_threads()) or np.zeros((len(x), 4)))
    made[0].predict(x)
    assert counts == [1]


def test_a_dtype_is_that_of_weights_and_predictions(rng):
    x, y = data("several numbers", rng)
    regressor = fitted(MLPRegressor(dtype="float32", max_iter=3, random_state=0), x, y)
    assert {array.dtype for array in regressor.coefs_ + regressor.intercepts_} == {np.dtype(np.float32)}
    assert regressor.predict(x).dtype == np.float32


def test_dropout_leaves_out_units_in_training_alone(rng):
    x, y = data("several classes", rng)
    settings = {"max_iter": 5, "random_state": 0, "hidden_layer_sizes": (20, 20)}
    plain, dropped, again = (fitted(MLPClassifier(dropout=ratio, **settings), x, y) for ratio in (0, 0.5, 0.5))
    assert [type(layer).__name__ for layer in dropped.network_.layers.values()] == [
        "Affine", "Relu", "Dropout", "Affine", "Relu", "Dropout", "Affine"]
    np.testing.assert_array_equal(dropped.coefs_[0], again.coefs_[0])
    assert not np.array_equal(dropped.coefs_[0], plain.coefs_[0])
    np.testing.assert_array_equal(dropped.predict_proba(x), dropped.predict_proba(x))


def test_each_pass_with_dropout_draws_other_masks_also_after_pickling(rng):
    x, y = data("several classes", rng)
    straight = MLPClassifier(dropout=0.5, random_state=0).partial_fit(x, y, classes=np.unique(y))
    pickled = pickle.loads(pickle.dumps(straight))
    for classifier in (straight, pickled):
        classifier.partial_fit(x, y)
    np.testing.assert_array_equal(straight.coefs_[0], pickled.coefs_[0])
    state = copy.deepcopy(straight)
    state.t_ = 0        # as if it were the first pass: the masks of that one
    state.partial_fit(x, y)
    straight.partial_fit(x, y)
    assert not np.array_equal(straight.coefs_[0], state.coefs_[0])


def test_the_network_is_live_and_follows_arrays_that_are_replaced(rng, tmp_path):
    x, y = data("several classes", rng)
    classifier = fitted(MLPClassifier(max_iter=2, random_state=0), x, y)
    network = classifier.network_
    assert network.weight_decay_lambda == 0     # alpha is of the fit
    assert fitted(MLPClassifier(solver="lbfgs", max_iter=2), x, y).network_.weight_decay_lambda == 0
    assert classifier.network_ is network and network.params["W1"] is classifier.coefs_[0]
    np.testing.assert_array_equal(network.predict(x).argmax(axis=1), np.searchsorted(classifier.classes_, classifier.predict(x)))
    before = classifier.predict_proba(x)
    classifier.coefs_[0] *= 2
    assert not np.array_equal(classifier.predict_proba(x), before)
    classifier.coefs_[1] = classifier.coefs_[1] * 0.5
    assert classifier.network_ is not network and classifier.network_.params["W2"] is classifier.coefs_[1]
    classifier.network_.save(tmp_path / "model.npz")
    np.testing.assert_array_equal(nnfast.Network.load(tmp_path / "model.npz").predict(x), classifier.network_.predict(x))


# With the rest of scikit-learn

def test_it_works_in_pipelines_searches_and_cross_validation(rng):
    x, y = data("several classes", rng)
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(max_iter=20, random_state=0, learning_rate_init=0.01))
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [1e-4, 1.0], "mlpclassifier__hidden_layer_sizes": [(5,), (20, 10)]}, cv=3)
    search.fit(x, y)
    assert search.best_score_ > 0.4 and search.best_estimator_[-1].hidden_layer_sizes in [(5,), (20, 10)]
    theirs = make_pipeline(StandardScaler(), neural_network.MLPClassifier(max_iter=20, random_state=0, learning_rate_init=0.01))
    np.testing.assert_allclose(cross_val_score(pipeline, x, y, cv=3), cross_val_score(theirs, x, y, cv=3))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")     # fork, in loky
def test_a_search_in_processes_finds_the_same(rng):
    x, y = data("several classes", rng)
    search = GridSearchCV(MLPClassifier(max_iter=5, random_state=0), {"alpha": [1e-4, 1.0, 10.0]}, cv=3, n_jobs=2)
    alone = clone(search).set_params(n_jobs=1).fit(x, y)
    np.testing.assert_array_equal(search.fit(x, y).cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


@pytest.mark.parametrize("library", [pytest.param(name, marks=pytest.mark.needs(name)) for name in ("pandas", "polars")])
def test_frames_are_taken_and_their_names_remembered(library, rng):
    frames = pytest.importorskip(library)
    x, y = data("several classes", rng)
    frame = frames.DataFrame({f"column {number}": x[:, number] for number in range(12)})
    labels = frames.Series(y.tolist())
    ours = fitted(MLPClassifier(max_iter=3, random_state=0), frame, labels)
    plain = fitted(MLPClassifier(max_iter=3, random_state=0), x, y)
    np.testing.assert_array_equal(ours.coefs_[0], plain.coefs_[0])
    assert list(ours.feature_names_in_) == [f"column {number}" for number in range(12)]
    np.testing.assert_array_equal(ours.predict(frame), plain.predict(x))
    other = frames.DataFrame({f"other {number}": x[:, number] for number in range(12)})
    with pytest.raises(ValueError, match="feature names"):
        ours.predict(other)


def test_sparse_rows_give_what_dense_ones_give(rng):
    from scipy import sparse

    x, y = data("several classes", rng)
    x[np.abs(x) < 0.5] = 0
    dense = fitted(MLPClassifier(max_iter=3, random_state=0), x, y)
    for form in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array):
        classifier = fitted(MLPClassifier(max_iter=3, random_state=0), form(x), y)
        np.testing.assert_array_equal(classifier.coefs_[0], dense.coefs_[0])
        np.testing.assert_array_equal(classifier.predict_proba(form(x)), dense.predict_proba(x))


@pytest.mark.parametrize("settings", [{}, {"shuffle": False}, {"early_stopping": True}, {"batch_size": 7, "class_weight": {"a": 3.0}},
                                      {"dropout": 0.5}])
def test_sparse_rows_that_are_many_are_dense_some_at_a_time(settings, rng, monkeypatch):
    from scipy import sparse

    x, y = data("several classes", rng)
    x[np.abs(x) < 0.5] = 0
    settings = {"batch_size": 20, "max_iter": 4, "random_state": 0, **settings}
    dense = fitted(MLPClassifier(**settings), x, y)
    sizes = []
    monkeypatch.setattr(_estimator_solvers, "_MOST_DENSE", 45 * 12 * 8)
    monkeypatch.setattr(_estimator_solvers, "dense", lambda x: sizes.append(x.shape[0]) or x.toarray())
    classifier = fitted(MLPClassifier(**settings), sparse.csr_array(x), y)
    assert max(sizes) <= 45
    for one, other in zip(classifier.coefs_, dense.coefs_, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(classifier.loss_curve_, dense.loss_curve_, rtol=1e-12)
    # The number of rows decides in which order a product is summed.
    np.testing.assert_allclose(classifier.predict_proba(sparse.csr_array(x)), dense.predict_proba(x), rtol=1e-12)
    assert max(sizes) <= 45


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_a_pickled_one_predicts_and_goes_on_as_before(solver, rng):
    x, y = data("several classes", rng)
    classifier = MLPClassifier(solver=solver, random_state=0, hidden_layer_sizes=(9,))
    classifier.partial_fit(x, y, classes=np.unique(y))
    classifier.predict(x)
    assert "_network" not in classifier.__getstate__()  # made again of the arrays
    for copied in (pickle.loads(pickle.dumps(classifier)), copy.deepcopy(classifier)):
        np.testing.assert_array_equal(copied.predict_proba(x), classifier.predict_proba(x))
        straight = copy.deepcopy(classifier)
        copied.partial_fit(x, y)
        straight.partial_fit(x, y)
        np.testing.assert_array_equal(copied.coefs_[0], straight.coefs_[0])
        assert not np.shares_memory(copied.coefs_[0], classifier.coefs_[0])


def test_a_clone_has_the_parameters_and_nothing_that_was_learned(rng):
    x, y = data("several classes", rng)
    classifier = fitted(MLPClassifier((3,), max_iter=2, dropout=0.1, class_weight={"a": 2}, callbacks=[print]), x, y)
    cloned = clone(classifier)
    assert cloned.get_params() == classifier.get_params() and not hasattr(cloned, "coefs_")
    with pytest.raises(NotFittedError):
        cloned.predict(x)
    with pytest.raises(NotFittedError):
        cloned.network_


# Warnings and what is refused

def test_it_warns_where_the_loss_still_fell_or_a_batch_was_cut(rng):
    x, y = data("two classes", rng)
    with pytest.warns(ConvergenceWarning, match=r"^the fit had not converged after 2 iterations, as many as max_iter allows"):
        MLPClassifier(max_iter=2).fit(x, y)
    with pytest.warns(ConvergenceWarning, match=r"^lbfgs ended before it converged \("):
        MLPClassifier(solver="lbfgs", max_iter=2).fit(x, y)
    with pytest.warns(UserWarning, match=r"^batch_size is 500, but there are 150 rows: it is cut to that$"):
        MLPClassifier(batch_size=500, max_iter=1).fit(x, y)
    with pytest.warns(DataConversionWarning):
        MLPRegressor(max_iter=1).fit(x, y[:, None])
    with pytest.warns(UserWarning, match=r"^each row of y has a single 1"):
        MLPClassifier(max_iter=1).fit(x, np.eye(3)[np.arange(150) % 3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MLPClassifier(max_iter=500, tol=0.1, random_state=0).fit(x, y)
        MLPClassifier(max_iter=2, random_state=0).partial_fit(x, y, classes=[0, 1])


def test_ctrl_c_keeps_the_weights_of_the_last_whole_epoch(rng, heeds_ctrl_c):
    x, y = rng.standard_normal((5000, 50)), rng.integers(0, 3, 5000)
    classifier = MLPClassifier((300, 300), max_iter=10**6, tol=0, n_iter_no_change=np.inf)
    timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.warns(UserWarning, match="^training was interrupted: the weights are those of the last whole epoch$"):
        classifier.fit(x, y)
    timer.join()
    assert classifier.n_iter_ == len(classifier.loss_curve_) and classifier.predict(x).shape == (5000,)


def test_it_says_how_it_goes_where_it_is_asked_to(rng, capsys):
    x, y = data("two classes", rng)
    fitted(MLPClassifier(max_iter=2), x, y)
    assert capsys.readouterr().out == ""
    for solver in ("adam", "lbfgs"):
        classifier = fitted(MLPClassifier(solver=solver, max_iter=2, verbose=True, random_state=0), x, y)
        lines = capsys.readouterr().out.splitlines()
        assert lines[1] == f"Iteration 2, loss = {classifier.loss_:.8f}" and len(lines) == 2
    classifier = fitted(MLPClassifier(solver="sgd", learning_rate="adaptive", tol=9, n_iter_no_change=1, max_iter=3, verbose=True,
                                      early_stopping=True), x, y)
    assert "the learning rate is 0.0002 from now on." in capsys.readouterr().out
    fitted(MLPClassifier(tol=9, n_iter_no_change=1, verbose=True), x, y)
    assert "The training loss did not improve by more than 9 in 1 epochs: training ends." in capsys.readouterr().out


WRONG = {
    "activation": ("softplus", ValueError, "activation is 'softplus', but must be one of identity, logistic, tanh, relu"),
    "solver": ("newton", ValueError, "solver is 'newton', but must be one of lbfgs, sgd, adam"),
    "learning_rate": (0.1, TypeError, "learning_rate is 0.1, but must be one of constant, invscaling, adaptive"),
    "alpha": (-1, ValueError, "alpha is -1, but must be a finite number of at least 0"),
    "learning_rate_init": (0, ValueError, "learning_rate_init is 0, but must be above 0"),
    "momentum": (1.5, ValueError, "momentum is 1.5, but must be between 0 and 1"),
    "beta_1": (1, ValueError, "beta_1 is 1, but must be between 0 and 1"),
    "dropout": (1.0, ValueError, "dropout is 1, but must be between 0 and 1"),
    "max_iter": (0, ValueError, "max_iter is 0, but must be at least 1"),
    "batch_size": (2.5, TypeError, "batch_size is 2.5, but must be a whole number"),
    "n_iter_no_change": (0, ValueError, "n_iter_no_change is 0, but must be at least 1"),
    "hidden_layer_sizes": ((3, 0), ValueError, "hidden_layer_sizes is 0, but must be at least 1"),
    "shuffle": ("yes", TypeError, "shuffle is 'yes', but must be True or False"),
    "num_threads": (0, ValueError, "num_threads is 0, but must be at least 1"),
    "dtype": ("int8", ValueError, "dtype is int8, but must be float32 or float64"),
    "time_budget": (0, ValueError, "time_budget is 0, but must be above 0"),
    "callbacks": ([3], TypeError, "callbacks"),
    "validation_fraction": (1.0, ValueError, "validation_fraction is 1, but must be between 0 and 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_parameter_is_refused_when_it_is_fitted(name, rng):
    x, y = data("two classes", rng)
    value, error, message = WRONG[name]
    classifier = MLPClassifier(**{name: value})
    with pytest.raises(error) as caught:
        classifier.fit(x, y)
    assert str(caught.value).startswith(message)
    assert not hasattr(classifier, "coefs_")


def refused(call, message, error=ValueError):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_does_not_fit_together_is_refused_in_one_sentence(rng):
    x, y = data("several classes", rng)
    classifier = MLPClassifier(random_state=0, max_iter=1)
    refused(lambda: classifier.partial_fit(x, y), "classes must be passed in the first call of partial_fit")
    classifier.partial_fit(x, y, classes=["a", "b", "c", "d"])
    refused(lambda: classifier.partial_fit(x, np.where(y == "a", "z", y)), "y has the classes ['b' 'c' 'd' 'z'], but those of")
    refused(lambda: classifier.partial_fit(x, y, classes=["a"]), "in the first call of partial_fit")
    refused(lambda: MLPClassifier(early_stopping=True).partial_fit(x, y, classes=np.unique(y)), "early_stopping is True, but")
    refused(lambda: MLPClassifier(class_weight="balanced").partial_fit(x, y, classes=np.unique(y)), "partial_fit does not see")
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit") and not hasattr(MLPRegressor(solver="lbfgs"), "partial_fit")
    refused(lambda: MLPClassifier(solver="lbfgs", dropout=0.2).fit(x, y), "dropout is 0.2, but lbfgs needs a loss without chance")
    refused(lambda: MLPClassifier(early_stopping=True, validation_fraction=0.001).fit(x, y), "of 150 rows, which is fewer than 2")
    refused(lambda: MLPRegressor(loss="huber").fit(x, np.ones(150)), "loss is 'huber', but must be one of squared_error, poisson")
    before = classifier.predict_proba(x)
    refused(lambda: classifier.fit(x, y, eval_set=[x]), "eval_set must be a tuple (X, y) or (X, y, sample_weight)", TypeError)
    refused(lambda: classifier.fit(x, y, eval_set=(x[:, :3], y)), "features")
    refused(lambda: classifier.fit(x, y, eval_set=(x, np.full(150, "z"))), "y has the classes ['z']")
    refused(lambda: MLPRegressor(max_iter=1).fit(x, np.ones(150), eval_set=(x, np.ones((150, 2)))), "has 2 outputs, but that of fit 1")
    refused(lambda: classifier.fit(x, y, sample_weight=np.full(150, -1.0)), "sample_weight holds -1")
    refused(lambda: classifier.fit(x, y, sample_weight=np.zeros(150)), "must be above zero")
    np.testing.assert_array_equal(classifier.predict_proba(x), before)
    warm = fitted(MLPClassifier((5,), warm_start=True, max_iter=1), x, y)
    refused(lambda: warm.set_params(hidden_layer_sizes=(6,)).fit(x, y), "hidden_layer_sizes is (6,), but the weights that warm_start")
    refused(lambda: warm.set_params(hidden_layer_sizes=(5,)).fit(x[:50], np.full(50, "a")), "y has the classes ['a']")
    refused(lambda: MLPRegressor(solver="sgd", learning_rate_init=1e6, max_iter=50).fit(x, x[:, 0]), "became")


def test_weights_that_the_user_put_in_are_taken_or_refused(rng):
    x, y = data("several classes", rng)
    classifier = fitted(MLPClassifier((5,), max_iter=1, warm_start=True), x, y)
    classifier.coefs_[1] = classifier.coefs_[1].astype(np.float32)
    with pytest.raises((ValueError, RuntimeError), match=r"dtype|float32"):
        fitted(classifier, x, y)
