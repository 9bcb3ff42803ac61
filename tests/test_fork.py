"""After a fork OpenMP's threads are gone: children train and predict with one thread, and end; the parent goes on with all."""

import os

import pytest
from processes import ENDURANCE, printed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

FORKS = 5 * ENDURANCE

# What the parent has made with several threads is used by its children, too.
PARENT = """
import copy, ctypes, multiprocessing, os, threading, time
import numpy as np
import nnfast
from learning import T, X, learnt, made, teams
from nnfast import _threads

def has_a_team(seconds=60):
    # Beside busy neighbours teams have one thread for a while.
    before, end = teams(), time.perf_counter() + seconds
    while teams() == before and time.perf_counter() < end:
        assert learnt() == expected
    return teams() > before

def forked(fork, work=learnt):
    reads, writes = os.pipe()
    child = fork()
    if child == 0:
        os.write(writes, str(work()).encode())
        os._exit(0)
    os.close(writes)
    with open(reads) as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return answer

def pooled(method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(learnt, [2, 2, 2, 2])

def joined(backend):
    import joblib
    return joblib.Parallel(2, backend=backend)(joblib.delayed(learnt)() for _ in range(4))

def kept():
    predictor(X)
    network.gradient(X, T)
    try:
        network.fit(X, T)
    except RuntimeError:    # another thread of the parent was training it
        copy.deepcopy(network).fit(X, T)
    return learnt()

nnfast.set_num_threads(2)
network = made()
predictor = network.predictor(600)
network.gradient(X, T)
expected = learnt(1)
assert has_a_team()
"""

WAYS = {
    "os.fork": "forked(os.fork)",
    "fork from C": "forked(ctypes.PyDLL(None).fork)",
    "a child of a child": "forked(os.fork, lambda: forked(os.fork))",
    "what the parent has made": "forked(os.fork, kept)",
    "several threads asked for": "forked(os.fork, lambda: (nnfast.set_num_threads(4), learnt(8))[1])",
    "multiprocessing, fork": "pooled('fork')",
    "multiprocessing, forkserver": "pooled('forkserver')",
    "multiprocessing, spawn": "pooled('spawn')",
    "joblib, loky": "joined('loky')",
    "joblib, multiprocessing": "joined('multiprocessing')",
}


@pytest.mark.parametrize("way", [
    pytest.param(name, marks=pytest.mark.needs("joblib") if "joblib" in name else []) for name in WAYS
])
def test_children_learn_the_same_bits_and_the_parent_keeps_its_threads(way):
    times = FORKS if "fork(" in WAYS[way] or "fork," in WAYS[way] or way == "fork from C" else ENDURANCE
    program = f"""
for _ in range({times}):
    has_a_team(0.5)     # a child would want one, too
    found = {WAYS[way]}
    assert set([found] if isinstance(found, str) else found) == {{expected}}, found
assert has_a_team()
print(_threads.explain())
"""
    assert printed(PARENT + program) == "(2, 'set_num_threads')"


@pytest.mark.parametrize("fork", ["os.fork", "ctypes.PyDLL(None).fork"])
def test_a_child_says_that_it_has_one_thread_and_why(fork):
    program = f"print(forked({fork}, lambda: (nnfast.set_num_threads(4), _threads.explain())[1]))"
    assert printed(PARENT + program) == "(1, \"this process was forked, and OpenMP's threads do not survive a fork\")"


@pytest.mark.parametrize("busy", ["fit", "gradient", "predict"])
def test_children_learn_that_were_forked_while_another_thread_was_at_work(busy):
    program = f"""
def work():
    while not over:
        network.{busy}(X, *{{"predict": ()}}.get("{busy}", (T,)))

over = False
thread = threading.Thread(target=work)
thread.start()
try:
    for count in range({FORKS}):
        time.sleep(0.003 * (count % 7))
        assert forked(os.fork, kept) == expected
finally:
    over = True
    thread.join()
assert has_a_team()
"""
    printed(PARENT + program)


# What draws numbers, made ready by drawing some, and where from.
DRAWS = {
    "fit": ("owner = made(); owner.fit(X, T)", "owner.generator.bit_generator"),
    "fit, layer by layer": ("owner = made(); owner.fit(X, T, optimizer=Own())", "owner.generator.bit_generator"),
    "gradient": ("owner = masked(nnfast.Relu()); owner.gradient(X, T)", "owner.generator.bit_generator"),
    "gradient, layer by layer": ("owner = masked(OwnRelu()); owner.gradient(X, T)", "owner.generator.bit_generator"),
    "gradient as in the book": ("owner = MultiLayerNetExtend(300, [20], 10, use_dropout=True); owner.gradient(X, T)",
                                "np.random.get_bit_generator()"),
    "a layer by itself": ("owner = nnfast.Dropout(); owner.forward(X)", "np.random.get_bit_generator()"),
}

DRAWING = PARENT + """
from nnfast.network import MultiLayerNetExtend

class Own:
    def update(self, params, grads):
        pass

class OwnRelu(nnfast.Relu):
    pass

def masked(activation):
    return nnfast.Network([nnfast.Affine(300, 20), activation, nnfast.Dropout(), nnfast.Affine(20, 10)], seed=0)
"""


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("ends", [True, False])
def test_a_fork_waits_for_another_thread_s_numbers_but_not_for_ever(draws, ends):
    made, source = DRAWS[draws]
    program = f"""
{made}
lock = {source}.lock
drawing, done = threading.Event(), threading.Event()

def draw():
    with lock:
        drawing.set()
        done.wait({0.3 if ends else 60})

thread = threading.Thread(target=draw)
thread.start()
drawing.wait()
print(forked(os.fork, lambda: lock.acquire(timeout=0.1)))
done.set()
thread.join()
print(lock.acquire(timeout=0.1))
"""
    assert printed(DRAWING + program).split() == [str(ends), "True"]


def test_a_fork_waits_for_no_lock_twice_and_for_none_that_nobody_draws_with():
    program = """
import gc
owner, gone = made(), made()
owner.fit(X, T)
gone.fit(X, T)
unused = [owner.generator, gone.generator]
owner.generator = np.random.default_rng(1)
del gone
gc.collect()
of_two_layers = MultiLayerNetExtend(300, [20, 20], 10, use_dropout=True)
of_two_layers.gradient(X, T)
waiting, done = threading.Barrier(3), threading.Event()

def hold(generator):
    with generator.bit_generator.lock:
        waiting.wait()
        done.wait()

for generator in unused:
    threading.Thread(target=hold, args=(generator,)).start()
waiting.wait()
started = time.perf_counter()
forked(os.fork, lambda: None)
print(time.perf_counter() - started < 0.9)
done.set()
"""
    assert printed(DRAWING + program) == "True"


def test_a_fork_within_a_callback_leaves_both_processes_training():
    program = """
def note(epoch):
    assert forked(os.fork, kept) == expected

made().fit(X, T, epochs=3, callbacks=[note])
assert has_a_team()
"""
    printed(PARENT + program)
