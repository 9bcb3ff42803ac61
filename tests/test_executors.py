"""`fit_many` by executors: threads, processes, Dask and MPI give the bits of each fit alone, whatever ends on the way."""

import json
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import executed
import numpy as np
import pytest
from executed import T, X, bits, fitted_alone, fitted_many, networks, options_of
from processes import printed

import nnfast
from nnfast import _executors

METHODS = [method for method in ("spawn", "forkserver", "fork") if method in multiprocessing.get_all_start_methods()]

def processes(method="spawn", workers=2, *initializer):
    return ProcessPoolExecutor(workers, multiprocessing.get_context(method), *initializer)


@pytest.fixture(scope="module")
def pool():
    """Processes for tests that end none of them."""
    with processes() as found:
        yield found


class Here(Executor):
    """Runs a task when its future is made, and knows nothing of processes; keeps what it was given, as bytes."""

    def __init__(self):
        self.tasks = []

    def submit(self, function, *arguments):
        self.tasks.append(pickle.dumps((function, arguments), 5))
        future = Future()
        future.set_running_or_notify_cancel()
        function, arguments = pickle.loads(self.tasks[-1])
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)
        return future


def refused(executor, **options):
    """Networks that were to be trained, and the error."""
    made = networks()
    with pytest.raises(Exception) as caught:
        nnfast.fit_many(made, X, T, epochs=2, executor=executor, **options)
    return made, caught.value


def each(**of_place):
    """Callbacks of each network: those given, by place."""
    return [of_place.get(f"at{place}", []) for place in range(7)]


def left_behind():
    return list(Path(tempfile.gettempdir()).glob("nnfast-*"))


@pytest.fixture(autouse=True)
def no_file_is_left():
    before = set(left_behind())
    yield
    assert set(left_behind()) <= before


# The bits


@pytest.mark.parametrize("method", METHODS)
def test_processes_give_the_bits_of_each_fit_alone(method, dtype):
    program = f"""
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from executed import fitted_alone, fitted_many

if __name__ == "__main__":
    with ProcessPoolExecutor(2, multiprocessing.get_context({method!r})) as pool:
        assert fitted_many(pool, {dtype.name!r}) == fitted_alone({dtype.name!r})
        assert fitted_many(pool, {dtype.name!r}) == fitted_alone({dtype.name!r})      # again, by the same processes
"""
    printed(program)    # a fork by this process, which has threads, would be warned of


def test_threads_give_the_bits_of_each_fit_alone(dtype):
    with ThreadPoolExecutor(2) as executor:
        assert fitted_many(executor, dtype) == fitted_alone(dtype)


def test_an_executor_of_which_nothing_is_known_gives_the_bits_of_each_fit_alone(dtype):
    assert fitted_many(Here(), dtype) == fitted_alone(dtype)


def test_weights_of_rows_and_of_classes_go_along(pool):
    options = {"sample_weight": np.linspace(0, 1, len(X)), "class_weight": [None, {2: 0.5}], "epochs": 2}
    made, alone = networks(2), networks(2)
    nnfast.fit_many(made, X, T, executor=pool, **options)
    for place, network in enumerate(alone):
        network.fit(X, T, **options_of(place, options))
    assert [bits(network) for network in made] == [bits(network) for network in alone]


def test_the_networks_and_optimisers_of_the_caller_are_changed_in_place(pool):
    made, optimizer = networks(2), [nnfast.Adam(), nnfast.Adam()]
    for network, adam in zip(made, optimizer, strict=True):
        network.fit(X, T, optimizer=adam)
    live = [(network.params["W1"], adam.m["W1"], network.generator) for network, adam in zip(made, optimizer, strict=True)]
    before = [W.copy() for W, _, _ in live]
    nnfast.fit_many(made, X, T, optimizer=optimizer, executor=pool)
    for network, adam, old, (W, m, generator) in zip(made, optimizer, before, live, strict=True):
        assert network.params["W1"] is W and adam.m["W1"] is m and network.generator is generator
        assert not np.array_equal(W, old)
        assert network.layers["Affine1"].W is W


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_one_optimiser_for_all_is_copied_for_each_and_stays_as_it_is(kind, pool):
    adam = nnfast.Adam()
    made, alone = networks(3), networks(3)
    with ThreadPoolExecutor(2) as threads:
        nnfast.fit_many(made, X, T, optimizer=adam, epochs=2, executor=threads if kind == "threads" else pool)
    for network in alone:
        network.fit(X, T, optimizer=nnfast.Adam(), epochs=2)
    assert vars(adam) == vars(nnfast.Adam())
    assert [bits(network) for network in made] == [bits(network) for network in alone]


@pytest.mark.parametrize("kind", ["threads", "processes", "nothing known"])
def test_networks_that_share_a_generator_or_numpys_are_trained_as_without_an_executor(kind, pool):
    def made():
        found = networks(6)
        found[4].generator = found[1].generator
        for place in (0, 2, 5):
            found[place] = nnfast.Network([nnfast.Affine(20, 30), nnfast.Relu(), nnfast.Dropout(0.3), nnfast.Affine(30, 5)], seed=place)
            found[place].layers["Dropout1"].generator = None    # masks from np.random
        return found

    def found_by(executor):
        np.random.seed(7)
        np.random.random(3)
        trained = made()
        nnfast.fit_many(trained, X, T, epochs=2, executor=executor)
        assert trained[4].generator is trained[1].generator
        return [bits(network) for network in trained], np.random.random()

    expected = found_by(None)
    with ThreadPoolExecutor(2) as threads:
        executor = {"threads": threads, "processes": pool, "nothing known": Here()}[kind]
        assert found_by(executor) == expected
        assert found_by(executor) == expected


def test_a_workers_own_numpy_random_stays_as_it_is():
    class Watched(Here):
        def submit(self, *task):
            np.random.seed(1)
            before = np.random.get_state()[1].tolist()
            future = super().submit(*task)
            assert np.random.get_state()[1].tolist() == before
            return future

    network = nnfast.Network([nnfast.Affine(20, 5), nnfast.Dropout(0.3)], seed=0)
    network.layers["Dropout1"].generator = None
    nnfast.fit_many([network], X, T, executor=Watched())


def test_histories_come_in_the_order_of_the_networks(pool):
    histories = nnfast.fit_many(networks(), X, T, epochs=[1, 2, 3, 4, 5, 6, 7], executor=pool)
    assert [len(history.loss) for history in histories] == [1, 2, 3, 4, 5, 6, 7]
    assert all(seconds > 0 for history in histories for seconds in history.seconds)


def test_a_checkpoint_is_written_where_the_caller_says_and_resumed_from_there(tmp_path, monkeypatch):
    made, alone = networks(2), networks(2)
    paths = ["first.npz", "second.npz"]
    with processes(workers=1) as executor:
        assert executor.submit(os.getcwd).result() != str(tmp_path)     # it has begun, and stays there
        monkeypatch.chdir(tmp_path)
        checkpoints = [nnfast.Checkpoint(path) for path in paths]
        nnfast.fit_many(networks(2), X, T, epochs=2, checkpoint=checkpoints, executor=executor)
        assert sorted(path.name for path in tmp_path.iterdir()) == paths
        histories = nnfast.fit_many(made, X, T, epochs=3, resume=paths, executor=executor)
    for network, history in zip(alone, histories, strict=True):
        assert history.loss == network.fit(X, T, epochs=3).loss
    assert [bits(network) for network in made] == [bits(network) for network in alone]


# Data


def test_data_are_stored_once_and_tasks_hold_none_of_them(monkeypatch):
    stored = []
    monkeypatch.setattr(
        np, "save", lambda path, array, save=np.save, **more: (stored.append(array.nbytes), save(path, array, **more)))
    x = np.tile(X, (40, 1))     # 960 KB
    t, weights, mine = np.tile(T, 40), np.ones(len(x)), np.arange(len(x))
    validation_data = x[:5000].copy(), t[:5000].copy()
    executor = Here()
    executor._max_workers = 4
    nnfast.fit_many(
        networks(), x, t, rows=[mine] * 7, sample_weight=weights, validation_data=validation_data, batch_size=1000,
        executor=executor)
    assert sorted(stored) == sorted(array.nbytes for array in (x, t, weights, mine, *validation_data))
    assert len(executor.tasks) == 7
    assert sum(map(len, executor.tasks)) < 7 * 20_000, "that is more than the networks"


def test_rows_of_one_network_alone_go_with_it(monkeypatch):
    stored = []
    monkeypatch.setattr(
        np, "save", lambda path, array, save=np.save, **more: (stored.append(array.nbytes), save(path, array, **more)))
    nnfast.fit_many(networks(), X, T, rows=executed.rows(), executor=Here())
    assert stored == [X.nbytes, T.nbytes]


def test_data_that_all_networks_convert_are_converted_before_they_go_over(monkeypatch):
    stored = []
    monkeypatch.setattr(
        np, "save", lambda path, array, save=np.save, **more: (stored.append(array.dtype.name), save(path, array, **more)))
    made, alone = networks(), networks()
    nnfast.fit_many(made, X.astype(np.float64), T, executor=Here())
    assert stored == ["float32", T.dtype.name]
    for network in alone:
        network.fit(X, T)
    assert [bits(network) for network in made] == [bits(network) for network in alone]
    stored.clear()
    both, alone = [[*networks(2), *networks(2, dtype="float64")] for _ in range(2)]
    x = np.random.default_rng(1).standard_normal(X.shape)
    nnfast.fit_many(both, x, T, executor=Here())
    assert stored == ["float64", T.dtype.name]      # as they were given
    for network in alone:
        network.fit(x, T)
    assert [bits(network) for network in both] == [bits(network) for network in alone]


def test_a_worker_that_does_not_see_the_files_is_sent_the_data_once(tmp_path):
    made, alone = networks(8), networks(8)
    with processes("spawn", 2, executed.count_arrivals, (tmp_path, False)) as executor:
        for _ in range(2):      # and again by the next call
            nnfast.fit_many(made, X, T, executor=executor)
    for network in alone:
        network.fit(X, T)
        network.fit(X, T)
    assert [bits(network) for network in made] == [bits(network) for network in alone]
    assert sum(executed.arrivals(tmp_path, "unpickled")) <= 4
    assert sum(executed.arrivals(tmp_path, "mapped")) <= 8, "of 16 groups: who has the data looks for no files"
    assert max(executed.arrivals(tmp_path, "unpickled")) <= 2


def test_a_worker_that_sees_the_files_is_sent_nothing(tmp_path):
    with processes("spawn", 2, executed.count_arrivals, (tmp_path,)) as executor:
        nnfast.fit_many(networks(), X, T, executor=executor)
    assert executed.arrivals(tmp_path, "unpickled") == []
    assert sum(executed.arrivals(tmp_path, "mapped")) == 2 * 7      # x and t for each of seven groups


def test_a_worker_keeps_the_data_of_one_call_at_most_and_none_that_it_has_mapped():
    from nnfast import _parcels

    tokens = []
    for _ in range(2):
        sent = _parcels.Sent(f"call {_}", pickle.dumps([X, T]))
        assert np.array_equal(sent.arrays()[0], X)
        tokens.append(_parcels._received[0])
    assert tokens == ["call 0", "call 1"]
    nnfast.fit_many(networks(2), X, T, executor=Here())
    assert _parcels._received[0] == "call 1"


# What does not fit


class Returns:
    def __init__(self, value):
        self.value = value

    def submit(self, function, *arguments):
        return self.value


@pytest.mark.parametrize(("executor", "message"), [
    (object(), "executor is <object object at 0x[0-9a-f]+>, but must have a method submit"),
    (4, "executor is 4, but must have a method submit"),
    (Returns(None), "executor.submit returned a NoneType, but must return a future"),
])
def test_what_is_no_executor_is_refused(executor, message):
    made, error = refused(executor)
    assert isinstance(error, TypeError)
    assert re.match(message, str(error))
    assert [bits(network) for network in made] == [bits(network) for network in networks()]


def test_a_communicator_is_refused_with_the_call_that_takes_one():
    _, error = refused(Here(), comm=object())
    assert isinstance(error, TypeError)
    assert "leave comm out" in str(error) and "Network.fit(..., comm=comm)" in str(error)


@pytest.mark.parametrize(("option", "value", "named"), [
    ("callbacks", each(at4=[lambda epoch: None]), r"callbacks of networks\[4\]"),
    ("metrics", [None] * 5 + [{"mine": lambda t, scores: 1.0}, None], r"metrics of networks\[5\]"),
    ("schedule", lambda position, epochs: position, r"schedule of networks\[0\]"),
])
def test_what_cannot_be_pickled_is_named_with_its_network(option, value, named, pool):
    made, error = refused(pool, validation_data=(X, T), **{option: value})
    assert isinstance(error, TypeError)
    assert re.match(named + " cannot be sent .* top level of a module", str(error))
    assert [bits(network) for network in made] == [bits(network) for network in networks()]


def test_a_layer_that_cannot_be_pickled_is_named_with_its_network(pool):
    class Mine(executed.Noisy):
        pass

    made = [*networks(2), nnfast.Network([Mine(1), nnfast.Affine(20, 5)])]
    with pytest.raises(TypeError, match=r"the network itself of networks\[2\] cannot be sent"):
        nnfast.fit_many(made, X, T, executor=pool)


def test_threads_take_what_cannot_be_pickled():
    told = []
    with ThreadPoolExecutor(2) as executor:
        nnfast.fit_many(networks(2), X, T, epochs=3, callbacks=[lambda epoch: told.append(epoch.number)], executor=executor)
    assert sorted(told) == [1, 1, 2, 2, 3, 3]


def test_an_executor_that_was_shut_down_trains_nothing():
    executor = processes()
    executor.shutdown()
    made, error = refused(executor)
    assert isinstance(error, RuntimeError) and "shutdown" in str(error)
    assert [bits(network) for network in made] == [bits(network) for network in networks()]


def test_a_network_is_trained_by_one_call_at_a_time():
    made, errors = networks(2), []

    def train_it():
        try:
            made[0].fit(X, T)
        except RuntimeError as error:
            errors.append(str(error))
        return Here.submit(executor, *executor.given)

    class Meanwhile(Here):
        def submit(self, *given):
            self.given = given
            return train_it()

    executor = Meanwhile()
    nnfast.fit_many(made, X, T, executor=executor)
    assert len(errors) == 2 and "being trained by another call" in errors[0]
    made[0].fit(X, T)   # now nobody does


# Errors of networks


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_a_networks_own_error_names_it_and_the_others_are_trained(kind, pool):
    learning_rate = [0.1] * 7
    learning_rate[2] = 1e30
    optimizer = [nnfast.SGD(lr) for lr in learning_rate]
    with ThreadPoolExecutor(2) as threads:
        made, error = refused(threads if kind == "threads" else pool, optimizer=optimizer)
    assert isinstance(error, nnfast.FitManyError)
    assert list(error.errors) == [2] and isinstance(error.errors[2], FloatingPointError)
    assert "networks[2]: FloatingPointError: the loss became" in str(error)
    assert [history is None for history in error.histories] == [place == 2 for place in range(7)]
    assert [len(history.loss) for history in error.histories if history is not None] == [2] * 6
    for place, (network, alone) in enumerate(zip(made, networks(), strict=True)):
        if place == 2:
            with pytest.raises(FloatingPointError):
                alone.fit(X, T, epochs=2, optimizer=nnfast.SGD(1e30))
        else:
            alone.fit(X, T, epochs=2, optimizer=nnfast.SGD(0.1))
        assert bits(network) == bits(alone), place


def test_each_error_comes_with_the_lines_of_its_worker(pool):
    callbacks = each(at1=[executed.Fails(KeyError)], at3=[executed.Fails(ValueError)], at6=[executed.Fails(ValueError)])
    _, error = refused(pool, callbacks=callbacks)
    assert {place: (type(one), one.args) for place, one in error.errors.items()} == {
        1: (KeyError, ("said by a callback",)), 3: (ValueError, ("said by a callback",)),
        6: (ValueError, ("said by a callback",))}
    assert error.__cause__ is error.errors[1]
    for one in error.errors.values():
        assert "In the worker:" in one.__notes__[0] and "in __call__" in one.__notes__[0]


def test_an_error_that_cannot_be_sent_is_told_of_in_words(pool):
    _, error = refused(pool, callbacks=each(at1=[executed.Fails(executed.UnpicklableError)]))
    assert list(error.errors) == [1] and type(error.errors[1]) is RuntimeError
    assert str(error.errors[1]) == "UnpicklableError: said by a callback"


def test_what_a_worker_refuses_is_refused_as_without_an_executor(pool):
    made, error = refused(pool, batch_size=0)
    assert isinstance(error, ValueError) and "batch_size is 0, but must be at least 1" in str(error)
    assert [bits(network) for network in made] == [bits(network) for network in networks()]


def test_what_a_worker_cannot_unpickle_is_an_error_of_its_network_alone(pool):
    made, error = refused(pool, callbacks=each(at4=[executed.OnlyHere()]))
    assert list(error.errors) == [4] and "only in the caller's process" in str(error.errors[4])
    for place, (network, alone) in enumerate(zip(made, networks(), strict=True)):
        if place != 4:
            alone.fit(X, T, epochs=2)
        assert bits(network) == bits(alone), place


# Workers that end


@pytest.mark.skipif(os.name == "nt", reason="this system has no SIGKILL")
@pytest.mark.parametrize("method", [method for method in METHODS if method != "fork"])
def test_networks_whose_worker_ends_are_tried_again(tmp_path, method):
    before = set(multiprocessing.active_children())
    with processes(method) as executor:
        made, alone = networks(), networks()
        nnfast.fit_many(made, X, T, epochs=3, callbacks=each(at3=[executed.Ends(tmp_path / "ended")]), executor=executor)
    assert set(multiprocessing.active_children()) <= before
    for network in alone:
        network.fit(X, T, epochs=3)
    assert (tmp_path / "ended").exists()
    assert [bits(network) for network in made] == [bits(network) for network in alone]


@pytest.mark.skipif(os.name == "nt", reason="this system has no SIGKILL")
def test_a_network_that_ends_its_worker_twice_is_named_and_the_others_are_trained():
    with processes() as executor:
        made, error = refused(executor, callbacks=each(at2=[executed.Ends()], at5=[executed.Ends()]))
    assert isinstance(error, nnfast.FitManyError) and sorted(error.errors) == [2, 5]
    for one in error.errors.values():
        assert str(one).startswith("its worker ended before it was trained, and so did the one that tried again (BrokenProcessPool")
        assert one.__cause__ is not None
    assert [place for place, history in enumerate(error.histories) if history is None] == [2, 5]
    for place, (network, alone) in enumerate(zip(made, networks(), strict=True)):
        if place not in (2, 5):
            alone.fit(X, T, epochs=2)
        assert bits(network) == bits(alone), place


class Loses(Here):
    """Some of its tasks, as if the worker had ended, and goes on."""

    def __init__(self, lost):
        super().__init__()
        self.lost = lost

    def submit(self, function, *arguments):
        future = super().submit(function, *arguments)
        if len(self.tasks) in self.lost:
            future = Future()
            future.set_exception(ConnectionError("the worker is gone"))
        return future


def test_what_an_executor_loses_and_goes_on_is_tried_again_by_it_each_network_alone():
    executor = Loses([2])
    executor._max_workers = 1
    made, alone = networks(), networks()
    nnfast.fit_many(made, X, T, executor=executor)
    for network in alone:
        network.fit(X, T)
    assert [bits(network) for network in made] == [bits(network) for network in alone]
    counts = [len(pickle.loads(task)[1][1]) for task in executor.tasks]
    assert counts[4:] == [1] * counts[1] and sum(counts[:4]) == 7


def test_what_an_executor_loses_twice_is_named():
    executor = Loses([2, 5])
    executor._max_workers = 1
    made, error = refused(executor, optimizer=nnfast.SGD(0.1))
    trained = [not np.array_equal(network.params["W1"], old.params["W1"]) for network, old in zip(made, networks(), strict=True)]
    place = trained.index(False)
    assert trained.count(False) == 1
    assert list(error.errors) == [place]
    assert "ConnectionError: the worker is gone" in str(error)


# Ctrl-C


@pytest.mark.skipif(os.name == "nt", reason="this system has no SIGINT for one process")
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_ctrl_c_keeps_what_is_finished_and_nothing_more_begins(kind, tmp_path):
    # One worker: groups of one network, the largest first; the third waits for longer than this test.
    program = f"""
import glob, multiprocessing, os, signal, tempfile, threading, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from executed import *

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = glob.glob(tempfile.gettempdir() + "/nnfast-*")
    made, alone = networks(4), networks(4)
    costs = [network.params["W1"].size + network.params["W2"].size for network in made]
    order = sorted(range(4), key=lambda place: -costs[place])
    callbacks = [[], [], [], []]
    begun = {str(tmp_path / 'begun')!r}
    callbacks[order[2]] = [Waits(begun)]
    if {kind!r} == "threads":
        executor = ThreadPoolExecutor(1)
    else:
        executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        executor.submit(os.getpid).result()     # it has begun

    def interrupt():
        while not os.path.exists(begun):    # then the two before are back
            time.sleep(0.05)
        sent.append(time.perf_counter())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    sent = []
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        nnfast.fit_many(made, X, T, callbacks=callbacks, executor=executor, num_threads=1)
    except KeyboardInterrupt:
        print("interrupted", time.perf_counter() - sent[0] < 60)
    for place in order[:2]:
        alone[place].fit(X, T)
    assert [bits(network) for network in made] == [bits(network) for network in alone]
    assert glob.glob(tempfile.gettempdir() + "/nnfast-*") == before
    made[order[2]].fit(X, T)    # nobody is training it
    print("kept", flush=True)
    for process in (getattr(executor, "_processes", None) or {{}}).values():
        process.kill()
    os._exit(0)
"""
    assert printed(program).splitlines() == ["interrupted True", "kept"]


def test_ctrl_c_keeps_what_is_finished_and_not_yet_put_back_also_if_a_worker_heard_it():
    class Interrupted(Here):
        _max_workers = 5

        def submit(self, *task):
            if len(self.tasks) == 3:
                if hasattr(self, "pending"):
                    raise KeyboardInterrupt
                self.pending = Future()
                return self.pending
            future = super().submit(*task)
            if len(self.tasks) == 2:
                future = Future()
                future.set_exception(KeyboardInterrupt())
            return future

    executor, made, alone = Interrupted(), networks(), networks()
    with pytest.raises(KeyboardInterrupt):
        nnfast.fit_many(made, X, T, executor=executor)
    for network in alone:
        network.fit(X, T)
    kept = [bits(network) == bits(fitted) for network, fitted in zip(made, alone, strict=True)]
    begun = [bits(network) != bits(new) for network, new in zip(made, networks(), strict=True)]
    assert sum(kept) == 2 and kept == begun
    assert executor.pending.cancelled()


def test_networks_are_put_back_whole_also_if_ctrl_c_comes_in_between():
    from nnfast import _parcels

    made, trained = networks(2), networks(2)
    trained[0].fit(X, T)
    states = [array.copy() for array in trained[0].state()]
    outcome = _parcels.Outcome(None, "", None, states, (trained[0].generator.bit_generator.state,), {})
    given, times = made[0].state, []
    made[0].state = lambda: _Interrupted(given(), not times, times.append(1))
    with pytest.raises(KeyboardInterrupt):
        _parcels.put_back(made[0], None, outcome)
    del made[0].state
    assert bits(made[0]) == bits(trained[0])


class _Interrupted:
    """Arrays, after the first of which Ctrl-C comes."""

    def __init__(self, arrays, is_interrupted, _):
        self.arrays, self.is_interrupted = arrays, is_interrupted

    def __iter__(self):
        yield self.arrays[0]
        if self.is_interrupted:
            raise KeyboardInterrupt
        yield from self.arrays[1:]


# What is told


def test_verbose_prints_a_line_for_each_network_in_the_callers_process(pool, capfd):
    histories = nnfast.fit_many(networks(3), X, T, epochs=[1, 2, 3], validation_data=(X, T), verbose=1, executor=pool)
    lines = sorted(capfd.readouterr().out.splitlines())
    for place, (line, history) in enumerate(zip(lines, histories, strict=True)):
        values = [f"{name.replace('_', ' ')} {getattr(history, name)[-1]:.4f}"
                  for name in ("loss", "accuracy", "validation_loss", "validation_accuracy")]
        assert line.startswith(f"networks[{place}]: {place + 1}/{place + 1} epochs: {', '.join(values)}; ")
        assert line.endswith(" examples/s")


@pytest.mark.needs("tqdm")
def test_the_progress_bar_counts_networks_up_to_all_of_them(pool, monkeypatch):
    import tqdm.auto

    bars = []

    class Bar(tqdm.auto.tqdm):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            bars.append(self)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    nnfast.fit_many(networks(), X, T, progress=True, executor=pool)
    assert [(bar.n, bar.total, bar.unit) for bar in bars] == [(7, 7, "network")]


# Groups and threads


class Workers:
    def __init__(self, workers, threads=1):
        self.workers, self.threads = workers, threads


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 32, 64, 65])
def test_groups_hold_each_network_once_the_costliest_first_and_every_worker_has_one(workers, threads, count, rng):
    costs = rng.pareto(1, count) + 1
    groups = _executors._divided(costs, Workers(workers, threads))
    assert sorted(place for group in groups for place in group) == list(range(count))
    of_groups = [sum(costs[place] for place in group) for group in groups]
    assert of_groups == sorted(of_groups, reverse=True)
    assert all(list(costs[group]) == sorted(costs[group], reverse=True) for group in groups)
    assert min(count, workers) <= len(groups) <= 4 * workers
    # What the list rule guarantees: but for its last network, a group is no costlier than a fair share.
    assert all(sum(costs[group]) - costs[group[-1]] <= costs.sum() / len(groups) * (1 + 1e-12) for group in groups)


def threads_of_workers(executor, tmp_path, **options):
    """Whether callbacks ran in this process, and with how many threads."""
    tmp_path.mkdir()
    nnfast.fit_many(networks(4), X, T, callbacks=[executed.Notes(tmp_path)], executor=executor, **options)
    lines = [line.split() for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    return {(int(process) == os.getpid(), int(threads)) for process, _, threads in lines}


@pytest.mark.parametrize(("cores", "workers", "options", "expected"), [
    (8, 2, {}, 4), (8, 3, {}, 2), (2, 3, {}, 1), (8, 16, {}, 2), (8, 2, {"num_threads": 3}, 3),
])
def test_threads_and_processes_share_the_cores_unless_told_otherwise(tmp_path, cores, workers, options, expected):
    # 16 workers: there are four networks.
    nnfast.set_num_threads(cores)
    try:
        with ThreadPoolExecutor(workers) as executor:
            assert threads_of_workers(executor, tmp_path / "threads", **options) == {(True, expected)}
        if workers == 3:
            with processes(workers=workers) as executor:
                assert threads_of_workers(executor, tmp_path / "processes", **options) == {(False, expected)}
    finally:
        nnfast.set_num_threads(None)


def test_elsewhere_a_task_has_one_thread_unless_told_otherwise(tmp_path):
    nnfast.set_num_threads(8)
    try:
        assert threads_of_workers(Here(), tmp_path / "one") == {(True, 1)}
        assert threads_of_workers(Here(), tmp_path / "three", num_threads=3) == {(True, 3)}
    finally:
        nnfast.set_num_threads(None)


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_tasks_are_under_way_than_there_are_workers(workers):
    waiting = []

    class Slow(Here):
        _max_workers = workers
        most = 0

        def submit(self, *task):
            future = Future()
            waiting.append((future, task))
            self.most = max(self.most, len(waiting))
            threading.Timer(0.02, self.finish).start()
            return future

        def finish(self):
            future, task = waiting.pop(0)
            future.set_result(super().submit(*task).result())

    executor = Slow()
    made = networks()
    nnfast.fit_many(made, X, T, executor=executor)
    assert executor.most == workers
    assert not waiting and made[0].accuracy(X, T) > 0


def test_futures_of_any_kind_are_waited_for():
    class Plain:
        """No future of concurrent.futures."""

        def __init__(self, future):
            self.future, self.looks = future, 0

        def done(self):
            self.looks += 1
            return self.looks > 3

        def result(self):
            assert self.done()
            return self.future.result()

        def cancel(self):
            raise AssertionError("nobody asked for it")

    class Gives(Here):
        def submit(self, *task):
            return Plain(super().submit(*task))

    assert fitted_many(Gives()) == fitted_alone()


# Dask and MPI

DASK = """
import logging, os
from pathlib import Path
from distributed import Client, LocalCluster
import executed
from executed import *

if __name__ == "__main__":
    with LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.CRITICAL,
    ) as cluster, Client(cluster) as client:
"""


def by_dask(body):
    return printed(DASK + "\n".join("        " + line for line in body.strip().splitlines()), seconds=180)


@pytest.mark.needs("distributed")
def test_a_dask_cluster_gives_the_bits_of_each_fit_alone_and_each_worker_has_the_data_once():
    assert by_dask("""
import time
client.run(executed.note_data)
for calls, (executor, dtype) in enumerate([
        (client.get_executor(), "float32"), (client.get_executor(), "float64"), (client, "float32")], 1):
    assert fitted_many(executor, dtype) == fitted_alone(dtype)
    (first, arrived), (second, arrived_there) = client.run(executed.noted_data).values()
    assert first + second == 7 * calls
    print(max(arrived, arrived_there))

def kept():
    return sum(client.run(lambda dask_worker: len(dask_worker.data)).values())

end = time.perf_counter() + 60
while kept() and time.perf_counter() < end:
    time.sleep(0.1)
print(kept())
""").splitlines() == ["1", "2", "3", "0"]


@pytest.mark.needs("distributed")
def test_dask_takes_lambdas_and_a_task_has_one_thread(tmp_path):
    printed_by = by_dask(f"""
histories = nnfast.fit_many(
    networks(4), X, T, epochs=5, executor=client.get_executor(),
    callbacks=[[lambda epoch: epoch.number == 3], [Notes({str(tmp_path)!r})], [], []])
print([len(history.loss) for history in histories])
""")
    assert printed_by == "[3, 5, 5, 5]"
    lines = [line.split() for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert len(lines) == 5 and {line[2] for line in lines} == {"1"}


@pytest.mark.needs("distributed")
def test_a_network_that_ends_dasks_workers_is_named_and_the_others_are_trained(tmp_path):
    assert by_dask(f"""
made, alone = networks(), networks()
nnfast.fit_many(made, X, T, callbacks=[[], [], [Ends(Path({str(tmp_path / "ended")!r}))], [], [], [], []], executor=client)
for network in alone:
    network.fit(X, T)
print([bits(network) for network in made] == [bits(network) for network in alone])
made, alone = networks(), networks()
try:
    nnfast.fit_many(made, X, T, callbacks=[[], [], [Ends()], [], [], [], []], executor=client.get_executor())
except nnfast.FitManyError as error:
    print(list(error.errors), str(error.errors[2])[:38])
for place, network in enumerate(alone):
    if place != 2:
        network.fit(X, T)
print([bits(network) for network in made] == [bits(network) for network in alone])
""").splitlines() == ["True", "[2] its worker ended before it was trained", "True"]


MPI = """
import sys
from mpi4py.futures import MPICommExecutor, MPIPoolExecutor
from executed import *

def check(executor):
    assert executor.num_workers == 2
    for dtype in ("float32", "float64"):
        assert fitted_many(executor, dtype) == fitted_alone(dtype)
    made, alone = networks(), networks()
    try:
        nnfast.fit_many(made, X, T, callbacks=[[], [], [], [], [Fails(ValueError)], [], []], executor=executor)
    except nnfast.FitManyError as error:
        print(error)
    print([bits(network) == bits(fitted) for network, fitted in zip(made, alone)])

if __name__ == "__main__":
    if sys.argv[1] == "pool":
        with MPIPoolExecutor() as executor:
            check(executor)
    else:
        with MPICommExecutor() as executor:
            if executor is not None:
                check(executor)
"""


@pytest.mark.needs("mpi4py")
@pytest.mark.parametrize("kind", ["pool", "communicator"])
def test_a_pool_of_mpi_gives_the_bits_of_each_fit_alone_and_names_an_error(tmp_path, kind):
    launcher = next((path for path in (Path(sys.executable).with_name("mpiexec"), shutil.which("mpiexec")) if path), None)
    if launcher is None or not Path(launcher).exists():
        pytest.skip("there is no mpiexec")
    program = tmp_path / "program.py"
    program.write_text(MPI)
    module = ["-m", "mpi4py.futures"] if kind == "pool" else []
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.run(
        [str(launcher), "-n", "3", sys.executable, *module, str(program), kind], env=environment, text=True,
        capture_output=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines() == [
        "1 of 7 networks could not be trained to the end (networks[4]: ValueError: said by a callback)", str([False] * 7)]


DOCUMENTATION = Path(__file__).parents[1] / "docs" / "many.md"


@pytest.mark.needs("distributed")
@pytest.mark.skipif(not DOCUMENTATION.exists(), reason="the documentation is not beside the tests")
def test_the_example_of_the_documentation_trains_by_dask():
    block = re.search(r"```python\n(import nnfast\nfrom distributed.*?)```", DOCUMENTATION.read_text("utf-8"), re.DOTALL)[1]
    accuracies = json.loads(printed(block, seconds=180))
    assert len(accuracies) == 8 and min(accuracies) > 0.9
