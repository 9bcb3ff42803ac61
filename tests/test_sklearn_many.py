"""`nnfast.sklearn` with many networks at once: ensembles, and the folds of a cross-validation."""

import copy
import pickle
import signal
import threading
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn
from sklearn import model_selection, neural_network
from sklearn.base import clone
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import nnfast
from nnfast import _estimator_solvers
from nnfast.sklearn import MLPClassifier, MLPRegressor, cross_val_score, cross_validate

# Nothing here trains until it converges.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@parametrize_with_checks([MLPClassifier(n_ensemble=3), MLPRegressor(n_ensemble=3), MLPRegressor(solver="lbfgs", n_ensemble=2)])
@pytest.mark.filterwarnings("ignore")   # the checks give data that warn, of conversions, batches and ends
def test_ensembles_pass_scikit_learns_own_checks(estimator, check):
    check(estimator)


def data(kind):
    """Rows and targets of a kind."""
    if kind == "two classes":
        return make_classification(90, 7, random_state=1)
    if kind == "several classes":
        x, y = make_classification(90, 7, n_informative=5, n_classes=3, random_state=2)
        return x, np.array(["b", "a", "c"])[y]
    if kind == "several answers":
        return make_multilabel_classification(90, 7, n_classes=3, random_state=3)
    x, y = make_regression(90, 7, n_targets=3 if kind == "several numbers" else 1, random_state=4)
    y = y / np.abs(y).max()
    return x, np.exp(y).round() if kind == "counts" else y


KINDS = {"two classes": MLPClassifier, "several classes": MLPClassifier, "several answers": MLPClassifier,
         "numbers": MLPRegressor, "several numbers": MLPRegressor, "counts": MLPRegressor}


def made(kind, **settings):
    more = {"loss": "poisson"} if kind == "counts" else {}
    return KINDS[kind](**{"hidden_layer_sizes": (9,), "max_iter": 6, "random_state": 3, **more, **settings})


def outputs(estimator, x):
    """Probabilities, or numbers."""
    return estimator.predict_proba(x) if isinstance(estimator, MLPClassifier) else estimator.predict(x)


def assert_same_bits(one, other):
    for array, found in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        np.testing.assert_array_equal(array, found)
        assert array.dtype == found.dtype
    assert one.loss_ == other.loss_ and one.n_iter_ == other.n_iter_ and one.t_ == other.t_
    for name in ("best_loss_", "best_validation_score_", "validation_scores_", "validation_loss_curve_"):
        assert getattr(one, name) == getattr(other, name), name
    assert getattr(one, "loss_curve_", None) == getattr(other, "loss_curve_", None)


# Ensembles

SETTINGS = {
    "defaults": {},
    "sgd": {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.1, "tol": 0.05, "n_iter_no_change": 1},
    "early stopping": {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 2, "max_iter": 30},
    "dropout": {"dropout": 0.3, "batch_size": 20},
    "float32": {"dtype": "float32"},
    "no shuffling": {"shuffle": False, "batch_size": 32},
    "lbfgs": {"solver": "lbfgs"},
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_network_has_the_bits_that_it_has_alone(kind, settings, rng):
    x, y = data(kind)
    weights = rng.random(90)
    ensemble = made(kind, n_ensemble=3, **SETTINGS[settings]).fit(x, y, weights)
    assert_same_bits(ensemble.estimators_[0], made(kind, **SETTINGS[settings]).fit(x, y, weights))
    assert [member.random_state for member in ensemble.estimators_[:1]] == [3]
    for member in ensemble.estimators_[1:]:
        assert member.n_ensemble == 1
        assert_same_bits(member, clone(member).fit(x, y, weights))
    assert ensemble.n_iter_ == max(member.n_iter_ for member in ensemble.estimators_)


def test_states_are_derived_as_it_says():
    x, y = data("two classes")
    number = np.random.RandomState(7).randint(1 << 32, dtype=np.uint32)
    expected = [7] + [int(np.random.SeedSequence([number, place]).generate_state(1)[0]) for place in (1, 2, 3)]
    ensemble = made("two classes", random_state=7, n_ensemble=4).fit(x, y)
    assert [member.random_state for member in ensemble.estimators_] == expected
    assert len({member.coefs_[0].tobytes() for member in ensemble.estimators_}) == 4
    # Of an object that is drawn from, the first network draws as it would alone, and the others know its state before.
    state, alone = np.random.RandomState(7), np.random.RandomState(7)
    ensemble = made("two classes", random_state=state, n_ensemble=4).fit(x, y)
    assert_same_bits(ensemble.estimators_[0], made("two classes", random_state=alone).fit(x, y))
    assert state.random() == alone.random()
    assert [member.random_state for member in ensemble.estimators_[1:]] == expected[1:]


def test_without_a_state_each_fit_draws_another_from_numpys():
    x, y = data("two classes")
    found = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        found.append([member.coefs_[0] for member in made("two classes", random_state=None, n_ensemble=2).fit(x, y).estimators_])
    np.testing.assert_array_equal(found[0], found[1])
    assert not any(np.array_equal(one, other) for one, other in zip(found[0], found[2], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_means_and_their_spread_is_the_standard_deviation(kind):
    x, y = data(kind)
    ensemble = made(kind, n_ensemble=3).fit(x, y)
    each = np.array([outputs(member, x) for member in ensemble.estimators_])
    mean, spread = ensemble.predict_proba(x, return_std=True) if KINDS[kind] is MLPClassifier else \
        ensemble.predict(x, return_std=True)
    np.testing.assert_allclose(mean, each.sum(axis=0) / 3, rtol=1e-14)
    np.testing.assert_allclose(spread, np.sqrt(((each - mean) ** 2).sum(axis=0) / 2), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(outputs(ensemble, x), mean)
    assert mean.shape == spread.shape == outputs(ensemble.estimators_[0], x).shape and spread.max() > 0
    if KINDS[kind] is MLPClassifier:
        expected = (mean > 0.5).astype(int) if kind == "several answers" else ensemble.classes_[mean.argmax(axis=1)]
        np.testing.assert_array_equal(ensemble.predict(x), expected)
        np.testing.assert_array_equal(ensemble.predict_log_proba(x), np.log(mean))
        assert any((member.predict(x) != expected).any() for member in ensemble.estimators_)


@pytest.mark.parametrize("kind", ["several classes", "numbers"])
def test_passes_one_by_one_and_warm_starts_go_on_with_each_network(kind):
    x, y = data(kind)
    more = {"classes": np.unique(y)} if KINDS[kind] is MLPClassifier else {}
    ensemble = made(kind, n_ensemble=2).partial_fit(x[:50], y[:50], **more)
    alone = [clone(member).partial_fit(x[:50], y[:50], **more) for member in ensemble.estimators_]
    ensemble.partial_fit(x[50:], y[50:])
    for member, one in zip(ensemble.estimators_, alone, strict=True):
        assert_same_bits(member, one.partial_fit(x[50:], y[50:]))
    ensemble = made(kind, n_ensemble=2, warm_start=True).fit(x, y)
    alone = [clone(member).fit(x, y) for member in ensemble.estimators_]
    members = ensemble.estimators_
    ensemble.set_params(learning_rate_init=0.02, max_iter=3).fit(x, y)
    for member, before, one in zip(ensemble.estimators_, members, alone, strict=True):
        assert member is before
        assert_same_bits(member, one.set_params(learning_rate_init=0.02, max_iter=3).fit(x, y))


def test_an_ensemble_has_nothing_of_a_single_network_and_the_other_way_round():
    x, y = data("several classes")
    classifier = made("several classes", early_stopping=True).fit(x, y)
    single = {name for name in vars(classifier) if name.endswith("_")}
    classifier.set_params(n_ensemble=2).fit(x, y)
    both = {"classes_", "n_features_in_", "n_outputs_", "n_layers_", "out_activation_", "n_iter_"}
    assert {name for name in vars(classifier) if name.endswith("_")} == both | {"estimators_"}
    with pytest.raises(AttributeError, match=r"^an ensemble has no network_ of its own, but one for each of estimators_$"):
        classifier.network_
    for member in classifier.estimators_:
        np.testing.assert_array_equal(member.predict_proba(x), nnfast.functions.softmax(member.network_.predict(x)))
        assert member.network_.weight_decay_lambda == 0
        np.testing.assert_array_equal(member.classes_, classifier.classes_)
    classifier.set_params(n_ensemble=1).fit(x, y)
    assert {name for name in vars(classifier) if name.endswith("_")} == single
    assert_same_bits(classifier, made("several classes", early_stopping=True).fit(x, y))
    with pytest.raises(NotFittedError):
        made("several classes", n_ensemble=2).predict(x)


def test_a_copied_or_pickled_ensemble_predicts_and_goes_on_as_before():
    x, y = data("two classes")
    ensemble = made("two classes", n_ensemble=2).partial_fit(x, y, classes=[0, 1])
    copies = [pickle.loads(pickle.dumps(ensemble)), copy.deepcopy(ensemble)]
    for copied in copies:
        np.testing.assert_array_equal(copied.predict_proba(x), ensemble.predict_proba(x))
        copied.partial_fit(x, y)
    ensemble.partial_fit(x, y)
    for copied in copies:
        for one, other in zip(copied.estimators_, ensemble.estimators_, strict=True):
            assert_same_bits(one, other)
    assert clone(ensemble).get_params() == ensemble.get_params() and not hasattr(clone(ensemble), "estimators_")


def test_callbacks_and_validation_rows_are_each_networks():
    x, y = data("several classes")
    seen = []

    def second(epoch):
        seen.append(epoch.network)
        return len(seen) == 2   # ends one network's fit alone

    ensemble = made("several classes", n_ensemble=3, callbacks=[second]).fit(x[:60], y[:60], eval_set=(x[60:], y[60:]))
    counts = sorted(member.n_iter_ for member in ensemble.estimators_)
    assert counts[0] < 6 and counts[1:] == [6, 6] and len(seen) == sum(counts) and ensemble.n_iter_ == 6
    assert {id(network) for network in seen} == {id(member.network_) for member in ensemble.estimators_}
    for member in ensemble.estimators_:
        assert len(member.validation_scores_) == member.n_iter_
        assert member.validation_scores_[-1] == member.score(x[60:], y[60:])


@pytest.mark.parametrize("settings", [{}, {"early_stopping": True}, {"verbose": True}])
def test_callbacks_lines_and_scores_belong_to_the_calling_thread_and_all_else_to_workers(monkeypatch, settings):
    threads, original = {True: [], False: []}, _estimator_solvers._Epochs.is_over

    def noted(epochs, epoch):
        threads[bool(epochs._estimator.callbacks)].append(threading.current_thread())
        return original(epochs, epoch)

    monkeypatch.setattr(_estimator_solvers._Epochs, "is_over", noted)
    for callbacks in (None, [lambda epoch: None]):
        made("several classes", n_ensemble=3, num_threads=2, callbacks=callbacks, **settings).fit(*data("several classes"))
    here = {threading.current_thread()}
    assert set(threads[True]) == here
    assert (set(threads[False]) == here) == bool(settings) and threads[False]


@pytest.mark.parametrize("settings", [{}, {"early_stopping": True}])
@pytest.mark.parametrize("most", [1 << 26, 45 * 7 * 8])
def test_sparse_rows_give_an_ensemble_what_dense_ones_give(most, settings, monkeypatch):
    from scipy import sparse

    x, y = data("several classes")
    x[np.abs(x) < 0.5] = 0
    monkeypatch.setattr(_estimator_solvers, "_MOST_DENSE", most)
    settings = {"n_ensemble": 2, "batch_size": 20, **settings}
    dense, ensemble = (made("several classes", **settings).fit(rows, y) for rows in (x, sparse.csr_array(x)))
    for one, other in zip(dense.estimators_, ensemble.estimators_, strict=True):
        for array, found in zip(one.coefs_, other.coefs_, strict=True):
            np.testing.assert_array_equal(array, found)


@pytest.mark.parametrize("is_sparse", [False, True])
def test_networks_of_an_ensemble_share_the_rows(is_sparse, monkeypatch):
    from scipy import sparse

    seen = []
    monkeypatch.setattr(_estimator_solvers, "_train_all", lambda fits, threads: seen.append((fits, threads)) or {})
    x, y = data("numbers")
    made("numbers", n_ensemble=3, early_stopping=True, num_threads=2).fit(sparse.csr_array(x) if is_sparse else x, y)
    ((fits, threads),) = seen
    assert threads == 2 and all(fit["x"] is fits[0]["x"] for fit in fits)
    assert np.shares_memory(fits[0]["x"], x) != is_sparse
    assert {len(fit["rows"]) for fit in fits} == {81}


def refused(call, message, error=ValueError):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_what_does_not_fit_an_ensemble_is_refused_in_one_sentence():
    x, y = data("several classes")
    refused(lambda: made("several classes", n_ensemble=0).fit(x, y), "n_ensemble is 0, but must be at least 1")
    refused(lambda: made("several classes", n_ensemble=2.5).fit(x, y), "n_ensemble is 2.5, but must be a whole number", TypeError)
    single = made("several classes", warm_start=True).fit(x, y)
    refused(lambda: single.predict_proba(x, return_std=True), "return_std is True, but a single network has no spread")
    refused(lambda: single.set_params(n_ensemble=2).fit(x, y), "n_ensemble is 2, but warm_start or partial_fit goes on with 1 networks")
    ensemble = made("several classes", warm_start=True, n_ensemble=3).fit(x, y)
    before = ensemble.predict_proba(x)
    for count in (1, 2):
        refused(lambda count=count: ensemble.set_params(n_ensemble=count).fit(x, y),
                f"n_ensemble is {count}, but warm_start or partial_fit goes on with 3 networks")
    ensemble.set_params(n_ensemble=3)
    refused(lambda: ensemble.set_params(hidden_layer_sizes=(5,)).fit(x, y), "hidden_layer_sizes is (5,), but the weights")
    refused(lambda: ensemble.fit(x, np.where(y == "a", "z", y)), "y has the classes")
    np.testing.assert_array_equal(ensemble.predict_proba(x), before)
    numbers = made("numbers", solver="sgd", learning_rate_init=1e6, max_iter=50, n_ensemble=2)
    refused(lambda: numbers.fit(x, x[:, 0]), "network 0 of 2: ")


def test_a_network_that_fails_does_not_keep_the_others_from_their_ends(monkeypatch):
    x, y = data("several classes")
    failing = []

    def fails(epoch):
        failing.append(epoch.network) if not failing else None
        if epoch.network is failing[0] and epoch.number == 2:
            raise RuntimeError("enough")

    ensemble = made("several classes", n_ensemble=3, callbacks=[fails])
    with pytest.raises(RuntimeError, match=r"^enough$"):
        ensemble.fit(x, y)
    assert sorted(member.n_iter_ for member in ensemble.estimators_)[1:] == [6, 6]
    assert all(member.network_.weight_decay_lambda == 0 for member in ensemble.estimators_)


def timed(**settings):
    """What presses Ctrl-C, some time after the first epoch of an estimator that never ends."""
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])

    def begins(epoch):
        if timer.ident is None:
            timer.start()

    return timer, MLPClassifier((300, 300), max_iter=10**6, tol=0, n_iter_no_change=np.inf, callbacks=[begins], **settings)


def test_ctrl_c_keeps_the_last_whole_epoch_of_each_network(rng, heeds_ctrl_c):
    x, y = rng.standard_normal((3000, 50)), rng.integers(0, 3, 3000)
    timer, ensemble = timed(n_ensemble=2)
    with pytest.warns(UserWarning, match="^training was interrupted: the weights are those of the last whole epoch$"):
        ensemble.fit(x, y)
    timer.join()
    assert all(member.n_iter_ == len(member.loss_curve_) for member in ensemble.estimators_)
    assert all(member.network_.weight_decay_lambda == 0 for member in ensemble.estimators_)
    assert ensemble.predict(x).shape == (3000,) and ensemble.n_iter_ > 0


@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c_in_lbfgs_is_the_callers(count):
    def interrupt(epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made("several classes", solver="lbfgs", n_ensemble=count, callbacks=[interrupt]).fit(*data("several classes"))


@pytest.mark.parametrize("count", [1, 2])
def test_warnings_point_at_the_call_of_fit(count):
    x, y = data("several classes")
    hot = np.eye(3)[np.arange(90) % 3]
    for settings, targets, category in (
        ({}, y, ConvergenceWarning), ({"solver": "lbfgs", "max_iter": 2}, y, ConvergenceWarning),
        ({"batch_size": 500, "max_iter": 1, "n_iter_no_change": 1, "callbacks": [lambda epoch: True]}, y, UserWarning),
        ({"callbacks": [lambda epoch: True]}, hot, UserWarning),
    ):
        with pytest.warns(category) as caught:
            made("several classes", n_ensemble=count, **settings).fit(x, targets)
        assert {warning.filename for warning in caught} == {__file__}


# Cross-validation

FOLDS = {
    "five": None,
    "an int": 3,
    "shuffled": model_selection.KFold(4, shuffle=True, random_state=1),
    "drawn": model_selection.ShuffleSplit(3, test_size=0.3, random_state=np.random.RandomState(5)),
    "groups": model_selection.GroupKFold(3),
    "an iterable": "an iterable",
}
PARTS = {
    "defaults": {},
    "early stopping": SETTINGS["early stopping"],
    "sgd": SETTINGS["sgd"],
    "dropout": SETTINGS["dropout"],
    "float32": {"dtype": "float32"},
    "no shuffling": SETTINGS["no shuffling"],
    "an ensemble": {"n_ensemble": 2, "early_stopping": True, "validation_fraction": 0.2},
    "lbfgs": {"solver": "lbfgs"},
}


def folds(name):
    if name != "an iterable":
        return copy.deepcopy(FOLDS[name])
    rows = np.arange(90)
    return iter([(rows[30:][::-1], rows[:30]), (np.r_[rows[:60], rows[:20]].tolist(), rows[60:] - 90), (rows % 3 > 0, rows % 3 == 0)])


def both(estimator, x, y, function="cross_val_score", **more):
    """What ours gives and what scikit-learn's gives, for our estimator; the splitter is copied, for it may be exhausted."""
    cv = more.pop("cv", None)
    own = {"cross_val_score": cross_val_score, "cross_validate": cross_validate}[function]
    before = {name: copy.deepcopy(value) for name, value in vars(estimator).items()}
    found = own(estimator, x, y, cv=folds(cv) if isinstance(cv, str) else cv, **more)
    assert vars(estimator).keys() == before.keys()      # it is not fitted
    return found, getattr(model_selection, function)(estimator, x, y, cv=folds(cv) if isinstance(cv, str) else cv, **more)


@pytest.fixture
def counts(monkeypatch):
    """How many networks were trained at once, by call."""
    seen = []
    train_all = _estimator_solvers._train_all
    monkeypatch.setattr(_estimator_solvers, "_train_all", lambda fits, threads: seen.append(len(fits)) or train_all(fits, threads))
    return seen


@pytest.mark.parametrize("cv", FOLDS)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_folds_are_scikit_learns(kind, cv, counts, rng):
    x, y = data(kind)
    ours, theirs = both(made(kind), x, y, cv=cv, groups=rng.integers(0, 7, 90) if cv == "groups" else None)
    np.testing.assert_array_equal(ours, theirs)
    assert counts == [len(ours)]


def test_folds_that_are_trained_at_once_need_no_processes(counts):
    x, y = data("numbers")
    found = cross_val_score(made("numbers"), x, y, cv=3, n_jobs=2)
    np.testing.assert_array_equal(found, model_selection.cross_val_score(made("numbers"), x, y, cv=3))
    assert counts == [3]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("settings", PARTS)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_folds_are_scikit_learns_with_each_setting(kind, settings, weighted, rng):
    x, y = data(kind)
    params = {"sample_weight": rng.random(90)} if weighted else None
    ours, theirs = both(made(kind, **PARTS[settings]), x, y, cv=3, params=params)
    np.testing.assert_array_equal(ours, theirs)
    assert np.isfinite(ours).all()


@pytest.mark.parametrize(("kind", "scoring"), [
    ("two classes", "roc_auc"), ("two classes", "neg_log_loss"), ("several classes", "balanced_accuracy"),
    ("several classes", "roc_auc_ovr"), ("several answers", "f1_micro"), ("numbers", "neg_mean_absolute_error"),
    ("several numbers", "r2"), ("counts", "neg_mean_poisson_deviance"),
    ("numbers", lambda estimator, x, y: float(estimator.predict(x)[0] + y[0] + x[0, 0] + estimator.n_iter_)),
])
def test_scores_of_each_kind_are_scikit_learns(kind, scoring):
    ours, theirs = both(made(kind), *data(kind), scoring=scoring, cv=3)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("together", [True, False])
def test_what_cross_validate_returns_is_scikit_learns_but_for_seconds(together):
    x, y = data("several classes")
    ours, theirs = both(
        made("several classes", solver="adam" if together else "lbfgs"), x, y, "cross_validate", cv="drawn",
        scoring=["accuracy", "neg_log_loss"], return_train_score=True, return_estimator=True, return_indices=True)
    assert ours.keys() == theirs.keys()
    for name in ("test_accuracy", "test_neg_log_loss", "train_accuracy", "train_neg_log_loss"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    for part in ("train", "test"):
        for one, other in zip(ours["indices"][part], theirs["indices"][part], strict=True):
            np.testing.assert_array_equal(one, other)
    for one, other in zip(ours["estimator"], theirs["estimator"], strict=True):
        assert_same_bits(one, other)
        assert vars(one).keys() == vars(other).keys()
        assert_same_bits(clone(one).fit(x, y), clone(other).fit(x, y))      # its method is that of its class
    assert (ours["fit_time"] > 0).all() and (ours["score_time"] > 0).all()
    assert not together or len(set(ours["fit_time"])) == 1


def test_data_frames_lists_and_their_names_go_as_to_scikit_learn(counts):
    x, y = data("several classes")
    ours, theirs = both(made("several classes"), x.tolist(), y.tolist(), cv=3)
    np.testing.assert_array_equal(ours, theirs)
    assert counts == [3]
    np.testing.assert_array_equal(*both(made("numbers"), np.asfortranarray(x.astype(np.float32)), x[:, :1].ravel(), cv=3))
    np.testing.assert_array_equal(*both(made("numbers"), (10 * x).astype(int), x[:, 0], cv=3))


@pytest.mark.needs("pandas")
def test_names_of_columns_are_those_of_each_fold(counts):
    pandas = pytest.importorskip("pandas")
    x, y = data("several classes")
    frame = pandas.DataFrame(x, columns=list("abcdefg"))
    ours, theirs = both(made("several classes"), frame, pandas.Series(y, dtype="category"), "cross_validate", cv=3,
                        return_estimator=True)
    np.testing.assert_array_equal(ours["test_score"], theirs["test_score"])
    assert counts == [3]
    assert all(list(one.feature_names_in_) == list("abcdefg") and one.n_features_in_ == 7 for one in ours["estimator"])


def test_rows_are_neither_copied_for_the_folds_nor_by_scikit_learn(counts, monkeypatch):
    x, y = data("numbers")
    seen = []
    train_all = _estimator_solvers._train_all
    monkeypatch.setattr(_estimator_solvers, "_train_all", lambda fits, threads: seen.append((fits, threads)) or train_all(fits, threads))
    copied = []

    class Rows(np.ndarray):
        def __getitem__(self, key):
            found = super().__getitem__(key)
            if isinstance(key[0] if isinstance(key, tuple) else key, np.ndarray):
                copied.append(len(found))
            return found

    cross_val_score(made("numbers", num_threads=2), x.view(Rows), y, cv=3)
    ((fits, threads),) = seen
    assert threads == 2 and all(np.shares_memory(fit["x"], x) and fit["x"].shape == x.shape for fit in fits)
    assert all(isinstance(fit["rows"], np.ndarray) and len(fit["rows"]) == 60 for fit in fits)
    assert sorted(copied) == [1, 1, 1, 30, 30, 30]


def test_a_state_is_copied_for_each_fold_and_without_one_numpys_is_drawn_from():
    x, y = data("numbers")
    state = np.random.RandomState(2)
    ours = cross_val_score(made("numbers", random_state=state), x, y, cv=3)
    np.testing.assert_array_equal(ours, model_selection.cross_val_score(made("numbers", random_state=state), x, y, cv=3))
    assert state.random() == np.random.RandomState(2).random()
    found = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        found.append(cross_validate(made("numbers", random_state=None), x, y, cv=3, return_estimator=True))
    np.testing.assert_array_equal(found[0]["test_score"], found[1]["test_score"])
    assert not (found[0]["test_score"] == found[2]["test_score"]).any()
    np.random.seed(1)
    for fold, rows in zip(found[0]["estimator"], model_selection.KFold(3).split(x), strict=True):
        alone = made("numbers", random_state=np.random.RandomState(np.random.randint(1 << 32, dtype=np.uint32)))
        assert_same_bits(fold, alone.fit(x[rows[0]], y[rows[0]]))
        assert fold.random_state is None
    np.random.seed(1)
    ensembles = cross_validate(made("numbers", random_state=None, n_ensemble=2), x, y, cv=3, return_estimator=True)["estimator"]
    for fold, ensemble in zip(found[0]["estimator"], ensembles, strict=True):
        assert_same_bits(fold, ensemble.estimators_[0])


@pytest.mark.parametrize("error_score", [np.nan, -7.0, "raise"])
@pytest.mark.parametrize("what", ["a loss that becomes infinite", "too few rows to hold back", "a parameter", "NaN", "labels"])
def test_a_fold_that_fails_has_scikit_learns_error_score(what, error_score):
    x, y = data("several classes")
    estimator, cv = made("several classes"), 3
    if what == "a loss that becomes infinite":
        estimator, y = made("numbers", solver="sgd", learning_rate_init=1e-3), x[:, 0].copy()
        y[60:] = 1e200
        cv = [(np.arange(60), np.arange(60, 90)), (np.arange(30, 90), np.arange(30))]
    elif what == "too few rows to hold back":
        estimator.set_params(early_stopping=True, validation_fraction=0.02)
        cv = [(np.arange(30), np.arange(30, 90)), (np.arange(80), np.arange(80, 90))]
    elif what == "a parameter":
        estimator.set_params(max_iter=0)
    elif what == "NaN":
        x[40, 2] = np.nan
    else:   # of which one occurs where it is scored alone
        y = np.where(np.arange(90) < 30, "z", y)
        cv = [(np.arange(30, 90), np.arange(30)), (np.arange(60), np.arange(60, 90))]
    found, said = [], []
    for function in (cross_val_score, model_selection.cross_val_score):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found.append(function(estimator, x, y, cv=cv, error_score=error_score))
            except ValueError as error:
                found.append(str(error).splitlines()[:4] if error_score == "raise" else str(error).splitlines()[1:3])
        said.append([str(one.message).splitlines()[:3] for one in caught if one.category is FitFailedWarning])
    if isinstance(found[0], list):
        assert found[0] == found[1]
        assert error_score == "raise" or what in ("a parameter", "NaN")
    else:
        np.testing.assert_array_equal(found[0], found[1])
    assert said[0] == said[1]


def test_a_warning_that_is_an_error_is_one_of_its_fold(counts):
    x, y = data("several classes")
    few = [(np.arange(15), np.arange(20)), (np.arange(20, 90), np.arange(20)), (np.arange(45), np.arange(45, 90))]
    estimator = made("several classes", batch_size=30, callbacks=[lambda epoch: True])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="batch_size is 30")
        warnings.simplefilter("ignore", FitFailedWarning)
        ours, theirs = both(estimator, x, y, cv=few)
        np.testing.assert_array_equal(ours, theirs)
        assert np.isnan(ours).tolist() == [True, False, False] and counts == [2]
        warnings.filterwarnings("error", category=ConvergenceWarning)
        with pytest.raises(ValueError, match=r"^\nAll the 3 fits failed\."):
            cross_val_score(made("several classes"), x, y, cv=3)
    assert counts == [2, 3]


@pytest.mark.parametrize("what", ["a pipeline", "scikit-learn's own", "a subclass", "sparse rows", "lbfgs", "an empty fold"])
def test_whatever_cannot_be_trained_at_once_goes_to_scikit_learn(what, counts):
    from scipy import sparse

    class Own(MLPClassifier):
        def fit(self, X, y):
            return super().fit(np.abs(X), y)

    x, y = data("several classes")
    estimator, rows, cv, more = made("several classes"), x, 3, {}
    if what == "a pipeline":
        estimator = make_pipeline(StandardScaler(), estimator)
    elif what == "scikit-learn's own":
        estimator = neural_network.MLPClassifier((5,), max_iter=3, random_state=0)
    elif what == "a subclass":
        estimator = Own((5,), max_iter=3, random_state=0)
    elif what == "sparse rows":
        rows = sparse.csr_array(x)
    elif what == "lbfgs":
        estimator.set_params(solver="lbfgs")
    else:
        cv, more = [(np.arange(0), np.arange(9)), *model_selection.KFold(3).split(x)], {"error_score": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitFailedWarning)
        np.testing.assert_array_equal(*both(estimator, rows, y, cv=cv, **more))
    assert counts == []


def test_metadata_that_is_routed_is_left_to_scikit_learn(counts, rng):
    x, y = data("numbers")
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = made("numbers").set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        np.testing.assert_array_equal(*both(estimator, x, y, cv=3, params={"sample_weight": rng.random(90)}))
    assert counts == []


def test_rows_to_validate_with_and_weights_of_one_number_are_for_all_folds():
    x, y = data("several classes")
    ours, theirs = both(made("several classes", early_stopping=True), x, y, "cross_validate", cv=3, return_estimator=True,
                        params={"eval_set": (x[:20], y[:20], np.ones(20)), "sample_weight": 2.0})
    for one, other in zip(ours["estimator"], theirs["estimator"], strict=True):
        assert_same_bits(one, other)


def test_what_scikit_learn_refuses_is_refused_before_anything_is_trained(counts):
    x, y = data("several classes")
    for more in ({"scoring": "beauty"}, {"n_jobs": "all"}, {"cv": 1}, {"cv": "three"}, {"error_score": "nought"}, {"verbose": -1},
                 {"params": {"weight": np.ones(90)}, "error_score": "raise"},
                 {"params": {"sample_weight": np.ones(95)}, "error_score": "raise"}):
        found = []
        for function in (cross_val_score, model_selection.cross_val_score):
            with pytest.raises((ValueError, TypeError)) as caught:
                function(made("several classes"), x, y, **more)
            found.append(str(caught.value))
        assert found[0] == found[1] or "cv" in more
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        cross_val_score(made("several classes"), x, y[:50])
    assert counts == []


def test_ctrl_c_ends_a_cross_validation(rng, heeds_ctrl_c):
    x, y = rng.standard_normal((3000, 50)), rng.integers(0, 3, 3000)
    timer, estimator = timed()
    with pytest.raises(KeyboardInterrupt):
        cross_val_score(estimator, x, y, cv=2)
    timer.join()


def test_arguments_have_scikit_learns_names_order_and_defaults():
    import inspect

    for own, theirs in ((cross_val_score, model_selection.cross_val_score), (cross_validate, model_selection.cross_validate)):
        own, theirs = (inspect.signature(function).parameters for function in (own, theirs))
        assert list(own) == list(theirs)
        assert all(repr(own[name].default) == repr(theirs[name].default) and own[name].kind is theirs[name].kind for name in own)
