"""The benchmarks measure what they say: the peer is right, the problems are named, disagreement is found."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import reference

BENCH = Path(__file__).parents[1] / "bench"
sys.path.insert(0, str(BENCH))

import bench_inference
import bench_layers
import bench_training
import problems
import timing
from numpy_mlp import NumpyMLP

from nnfast import load_digits

CASES = {
    f"{module.__name__}: {case.name}": case
    for module in (bench_training, bench_layers, bench_inference) for case in module.cases()
}


def test_every_problem_has_a_name_of_its_own_and_a_reason():
    for module in (bench_training, bench_layers, bench_inference):
        names = [case.name for case in module.cases()]
        assert len(set(names)) == len(names)
    assert all(case.reason for case in CASES.values())


@pytest.mark.parametrize("name", [name for name in CASES if "1024" not in name])   # seconds each, and nothing new
def test_the_contestants_compute_the_same(name):
    case = CASES[name]
    results = [contestant.make(*contestant.arguments)() for contestant in (case.peer, case.nnfast)]
    expected, found = ([np.asarray(array, np.float64) for array in result] for result in results)
    assert timing._difference(expected, found) <= case.tolerance


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_step_of_the_peer_is_the_formula(rng, activation):
    weights = [rng.standard_normal(shape) for shape in ((5, 7), 7, (7, 3), 3)]
    x, t = rng.standard_normal((6, 5)), rng.integers(0, 3, 6)
    network = NumpyMLP(weights, 8, activation, lr=0.1)      # memory for more rows than the batch has
    W1, b1, W2, b2 = weights
    forward, backward = {
        "relu": (reference.relu_forward, reference.relu_backward),
        "tanh": (reference.tanh_forward, reference.tanh_backward),
    }[activation]
    z = reference.affine_forward(x, W1, b1)
    scores = reference.affine_forward(forward(z), W2, b2)
    dscores = reference.softmax_cross_entropy_backward(scores, t)
    dW2, db2 = reference.affine_backward_parameters(forward(z), dscores)
    dW1, db1 = reference.affine_backward_parameters(x, backward(z, reference.affine_backward_input(dscores, W2)))
    loss, correct = network.step(x, t)
    assert loss == pytest.approx(reference.softmax_cross_entropy(scores, t).sum(), rel=1e-12)
    assert correct == (scores.argmax(axis=1) == t).sum()
    parameters = [network.W[0], network.b[0], network.W[1], network.b[1]]
    for found, before, gradient in zip(parameters, weights, (dW1, db1, dW2, db2), strict=True):
        np.testing.assert_allclose(found, before - 0.1 * gradient, rtol=1e-12, atol=1e-13)


def test_results_of_other_shapes_or_values_disagree():
    a = [np.ones((2, 2)), np.array([1.0, 100.0])]
    assert timing._difference(a, [array.copy() for array in a]) == 0
    assert timing._difference(a, [a[0], np.array([1.0, 101.0])]) == pytest.approx(0.01)
    assert not timing._difference(a, [a[0].reshape(4), a[1]]) <= 1
    assert not timing._difference(a, a[:1]) <= 1
    assert not timing._difference(a, [a[0], np.array([np.nan, 100.0])]) <= 1


def constant(value):
    return lambda: [np.array([value])]


def case(name, value):
    return timing.Case(name, "a test", timing.Contestant(constant, (1.0,)), timing.Contestant(constant, (value,)), 0.1)


@pytest.fixture
def quickly(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(timing, "SECONDS", 0.001)
    monkeypatch.setattr(timing, "PAUSE", 0)
    return tmp_path / "results"


def test_a_benchmark_prints_a_table_and_writes_json_and_a_chart(quickly, capsys):
    assert timing.run("bench_x", "A title", "a call", [case("one", 1.0)], ["--quick", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    for expected in ("A title", "bench/bench_x.py --quick --threads 1", "CPU", "NumPy", "| one ", "ratio"):
        assert expected in printed
    result = json.loads((quickly / "bench_x.json").read_text())
    (row,) = result["rows"]
    assert set(result["facts"]) == {"command", "CPU", "nnfast", "NumPy", "Python"}
    assert len(row["peer"]) == len(row["nnfast"]) == timing.QUICK_ROUNDS
    assert row["ratio"] > 0
    assert (quickly / "bench_x.png").read_bytes().startswith(b"\x89PNG")


def test_a_benchmark_whose_results_disagree_fails_and_shows_no_figure(quickly, capsys):
    assert timing.run("bench_x", "A title", "a call", [case("wrong", 2.0)], ["--quick", "--threads", "1"]) == 1
    output = capsys.readouterr()
    assert "wrong: the results differ by 1.0e+00" in output.err
    assert "| wrong" not in output.out
    assert not quickly.exists()


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        timing.run("bench_x", "A title", "a call", [case("one", 1.0)], ["--only", "nothing"])
    assert stop.value.code == 2
    assert "no problem's name contains 'nothing'" in capsys.readouterr().err


def test_the_ratio_is_the_median_of_the_rounds():
    row = timing.Row("a", "b", 1, [2.0, 9.0, 40.0], [1.0, 3.0, 10.0], 0.0)
    assert row.ratio == 3


@pytest.mark.parametrize("on_images", [True, False])
def test_the_book_data_are_images_and_one_hot_rows(on_images):
    x, t = bench_training.book_data(problems.BOOK, on_images)
    assert x.dtype == np.float32
    assert x.min() >= 0 and x.max() <= 1
    assert (x == 0).any() == on_images
    assert (t.sum(axis=1) == 1).all()


def test_without_mnist_the_book_trains_on_the_digits_enlarged(monkeypatch, tmp_path):
    monkeypatch.setenv("NNFAST_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    x, t, name = problems.images.__wrapped__()
    (digits, labels), _ = load_digits(one_hot_label=True)
    assert name == "enlarged digits"
    assert x.shape == (len(digits), 784)
    np.testing.assert_array_equal(x.reshape(-1, 28, 28)[:, 3:26:3, 3:26:3].reshape(-1, 64), digits)
    assert x.sum() == pytest.approx(9 * digits.sum(), rel=1e-4)
    np.testing.assert_array_equal(t, labels)
