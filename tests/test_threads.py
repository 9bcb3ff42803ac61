"""How many threads: the setting, for a call or a block, by the work, and beside other threads and processes."""

import os
import threading
import warnings

import numpy as np
import pytest
from processes import printed

import nnfast
from nnfast import _kernels, _threads


@pytest.fixture(autouse=True)
def default_threads():
    yield
    nnfast.set_num_threads(None)


def test_the_setting_is_used_and_taken_back():
    default = nnfast.get_num_threads()
    nnfast.set_num_threads(default + 1)
    assert nnfast.get_num_threads() == default + 1
    assert _threads.explain()[1] == "set_num_threads"
    nnfast.set_num_threads(None)
    assert nnfast.get_num_threads() == default


def test_small_work_takes_one_thread_and_large_work_all():
    nnfast.set_num_threads(4)
    assert _threads.for_product(1000) == _threads.for_elements(100) == 1
    assert _threads.for_product(10**9) == _threads.for_elements(10**7) == 4


def test_processes_share_their_cores_unless_somebody_has_said_how_many_threads(monkeypatch):
    monkeypatch.setattr(_threads, "_default", (8, "physical cores that this process may use"))
    monkeypatch.setattr(_threads, "_cores", lambda: [(9, "cores"), (8, "a quota")])
    monkeypatch.setattr(_threads, "_OPENMP_THREADS", 0)
    assert [_threads.among(processes) for processes in (1, 2, 3, 8, 100)] == [8, 4, 2, 1, 1]
    monkeypatch.setattr(_threads, "_default", (2, "OMP_NUM_THREADS"))
    assert [_threads.among(processes) for processes in (1, 2, 8)] == [2, 2, 1]
    with nnfast.num_threads(5):
        assert _threads.among(3) == 5
    monkeypatch.setattr(_threads, "_default", (6, "NNFAST_NUM_THREADS"))
    assert _threads.among(3) == 6


def test_show_config_tells_threads_and_where_they_come_from():
    nnfast.set_num_threads(3)
    text = nnfast.show_config()
    assert "threads       3 (set_num_threads)" in text
    assert f"nnfast        {nnfast.__version__}" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "OpenMP" in text


def test_a_with_block_sets_the_number_for_its_own_thread(monkeypatch):
    nnfast.set_num_threads(5)
    seen = []
    with nnfast.num_threads(3):
        assert nnfast.get_num_threads() == 3
        assert _threads.explain() == (3, "num_threads")
        thread = threading.Thread(target=lambda: seen.append(nnfast.get_num_threads()))
        thread.start()
        thread.join()
        with nnfast.num_threads(2):
            assert nnfast.get_num_threads() == 2
        with pytest.raises(KeyError), nnfast.num_threads(1):
            raise KeyError
        assert nnfast.get_num_threads() == 3
    assert nnfast.get_num_threads() == 5
    assert seen == [5]


@pytest.mark.parametrize(("count", "error", "message"), [
    (0, ValueError, "^count is 0"), (-1, ValueError, "^count is -1"), (1.5, TypeError, r"^count is 1\.5"),
    ("2", TypeError, "^count"), (None, TypeError, "^count"),
])
def test_a_wrong_number_for_a_with_block_is_refused(count, error, message):
    with pytest.raises(error, match=message), nnfast.num_threads(count):
        pass


def spied(monkeypatch, seen):
    """Notes the number of threads that each kernel of a product and each call of the engine gets."""
    kernels = _kernels.kernels(np.dtype("float32"))
    for name in ("train", "infer"):
        original = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *args, original=original: (seen.append(args[-1]), original(*args))[1])


@pytest.fixture
def large():
    """A network and data that are worth eight threads."""
    network = nnfast.Network([nnfast.Affine(300, 300), nnfast.Relu(), nnfast.Affine(300, 300)], seed=0)
    generator = np.random.default_rng(0)
    return network, generator.standard_normal((1000, 300), np.float32), generator.integers(0, 300, 1000)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_fit_and_predict_take_a_number_of_threads(monkeypatch, large, count):
    network, x, t = large
    seen = []
    spied(monkeypatch, seen)
    network.fit(x, t, batch_size=500, num_threads=count)
    network.predict(x, num_threads=count)
    assert set(seen) == {count}
    seen.clear()
    with nnfast.num_threads(count):
        network.fit(x, t, batch_size=500)
        network.predict(x)
    assert set(seen) == {count}
    with pytest.raises(ValueError, match=r"^num_threads is 0"):
        network.fit(x, t, num_threads=0)
    with pytest.raises(ValueError, match=r"^num_threads is 0"):
        network.predict(x, num_threads=0)
    assert nnfast.MultiLayerNetExtend(300, [5], 5).predict(x, True, num_threads=count).shape == (1000, 5)


def test_a_call_gets_one_thread_while_another_computes():
    kernels = _kernels.kernels(np.dtype(np.float32))
    network = nnfast.Network([nnfast.Affine(300, 300), nnfast.Relu(), nnfast.Affine(300, 300)], seed=0)
    x, t = np.ones((20_000, 300), np.float32), np.zeros(20_000, int)
    values, y = np.ones(100_000, np.float32), np.empty(100_000, np.float32)
    refused = seen = 0
    for _ in range(50):     # busy neighbours may leave one thread to the first calls, or let a call end too soon
        assembled, _, _ = kernels.teams()
        thread = threading.Thread(target=network.fit, args=(x, t), kwargs={"batch_size": 500, "num_threads": 2})
        thread.start()
        while kernels.teams()[0] == assembled and thread.is_alive():
            pass
        refused = kernels.teams()[1]
        kernels.relu_forward(values, y, 2)
        seen = kernels.teams()[1]
        thread.join()
        if seen == refused + 1:
            break
    assert seen == refused + 1
    assert np.array_equal(y, values)
    kernels.relu_forward(values, y, 2)
    assert kernels.teams()[1] == seen


# Two threads on one core, as where other processes want the others: each waits for the other's turn.
CROWDED = """
import os, time
import numpy as np
import nnfast
from nnfast._kernels import kernels

def rests(work):
    end = time.perf_counter() + 20
    while kernels(np.dtype(np.float32)).teams()[2] == 0 and time.perf_counter() < end:
        work()
    return kernels(np.dtype(np.float32)).teams()[2] > 0

os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
generator = np.random.default_rng(0)
x, t = generator.standard_normal((1000, 300), np.float32), generator.integers(0, 10, 1000)
network = nnfast.Network([nnfast.Affine(300, 100), nnfast.Relu(), nnfast.Affine(100, 10)], seed=0)
layer, sigmoid, large = nnfast.Affine(300, 300), nnfast.Sigmoid(), np.zeros((1000, 300), np.float32)
print(rests({work}))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot keep a process to one core")
@pytest.mark.skipif("san" in os.environ.get("LD_PRELOAD", ""), reason="under a sanitizer threads work longer than they wait")
@pytest.mark.parametrize("work", [
    "lambda: network.fit(x, t, batch_size=100, epochs=5)", "lambda: network.gradient(x, t)", "lambda: network.predict(x)",
    "lambda: layer.forward(x)", "lambda: sigmoid.forward(large)",
])
def test_one_thread_works_where_several_wait_for_a_core(work):
    assert printed(CROWDED.replace("{work}", work), NNFAST_NUM_THREADS="2") == "True"


def paced(pace, seconds):
    """The numbers of threads of the next calls, if a step takes `seconds[threads]`."""
    numbers = []
    for _ in range(6):
        threads, _ = pace.next()
        numbers.append(threads)
        pace.learn(seconds[threads])
    return numbers


def test_short_steps_get_the_number_of_threads_that_is_faster():
    assert paced(_threads.Pace(2), {2: 2e-5, 1: 3e-5}) == [2, 1, 2, 2, 2, 2]
    assert paced(_threads.Pace(2), {2: 4e-5, 1: 3e-5}) == [2, 1, 2, 1, 1, 1]     # several are tried twice
    assert paced(_threads.Pace(8), {8: 1e-3}) == [8, 8, 8, 8, 8, 8]      # too long for one to be faster
    assert paced(_threads.Pace(1), {1: 1e-5}) == [1, 1, 1, 1, 1, 1]


def test_a_disturbed_trial_does_not_count():
    pace, seconds = _threads.Pace(2), iter([1e-4, 3e-5, 2e-5])
    for _ in range(3):
        pace.next()
        pace.learn(next(seconds))
    assert pace.next()[0] == 2


def test_the_number_of_threads_is_tried_again_after_a_while(monkeypatch):
    pace = _threads.Pace(2)
    assert paced(pace, {2: 4e-5, 1: 3e-5})[-1] == 1
    later = _threads.time.perf_counter() + 2
    monkeypatch.setattr(_threads.time, "perf_counter", lambda: later)
    assert paced(pace, {2: 2e-5, 1: 3e-5}) == [2, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(("rows", "multiply_adds", "expected"), [
    (100, 10_000_000, 8), (1, 10_000_000, 1), (15, 10_000_000, 1), (16, 10_000_000, 2), (24, 10_000_000, 3),
    (1000, 10, 1), (1000, 99, 1), (1000, 100, 2), (1000, 399, 7), (1000, 400, 8), (0, 0, 1),
])
def test_small_steps_get_fewer_threads(rows, multiply_adds, expected):
    with nnfast.num_threads(8):
        assert _threads.for_steps(rows, multiply_adds) == expected
