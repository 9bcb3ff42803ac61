"""Ctrl-C and want of memory at any moment: the network is that of the last finished epoch, and goes on from there."""

import os
import sys

import pytest
from processes import ENDURANCE, printed

ROUNDS = 25 * ENDURANCE     # of each of six ways to train

# Each round interrupts a fit at some moment, finds out by the bits how many epochs were finished, and trains for one more.
INTERRUPTED = """
import copy, hashlib, random, signal, threading, time
import numpy as np
import nnfast
from nnfast import _threads

class Doubled:      # a layer written in Python: such a network trains layer by layer
    def forward(self, x):
        return 2 * x
    def backward(self, dout):
        return 2 * dout

signal.signal(signal.SIGINT, signal.default_int_handler)    # a shell's background jobs ignore it
generator = np.random.default_rng(0)
x, t = generator.standard_normal((400, 16), np.float32), generator.integers(0, 3, 400)

def made():
    layers = [nnfast.Affine(16, 32), nnfast.BatchNormalization(32), nnfast.Relu(), nnfast.Dropout(0.2), nnfast.Affine(32, 3)]
    if {way!r} == "layer by layer":
        layers.insert(0, Doubled())
    return nnfast.Network(layers, seed=0), nnfast.Adam()

def bits(network, adam):
    arrays = [*network.state(), *adam.m.values(), *adam.v.values()]
    assert all(np.isfinite(array).all() for array in arrays)
    rest = repr((adam.iter, network.generator.bit_generator.state)).encode()
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays) + rest).digest()

def train(network, adam, epochs, **more):
    given = x, t
    if {way!r} == "read ahead":     # in parts of 40 rows
        given = [x[:150], x[150:]], [t[:150], t[150:]]
        more["block_rows"] = 5
    network.fit(*given, epochs=epochs, batch_size=20, optimizer=adam, num_threads=2, **more)

def options(told):
    return dict(progress=True, callbacks=[lambda epoch: told.append(epoch.number)]) if {is_watched} else {{}}

network, adam = made()
adam.states(network.params)
finished = {{bits(network, adam): 0}}
train(network, adam, {epochs} + 1, callbacks=[lambda epoch: finished.setdefault(bits(network, adam), epoch.number) and None])
assert len(finished) == {epochs} + 2
seconds = 60.0      # of such a fit
for _ in range(5):
    begun = time.perf_counter()
    train(*made(), {epochs}, **options([]))
    seconds = min(seconds, time.perf_counter() - begun)

seed = random.SystemRandom().randrange(1 << 32)
moments = random.Random(seed)
longest, on_the_way = 0.0, 0
for count in range({rounds}):
    network, adam = made()
    adam.states(network.params)
    sent, told = [], []
    _threads.CALL_SECONDS = moments.choice([0.1, 0.002])   # compiled code is back between epochs and within one

    def interrupt():
        sent.append(time.perf_counter())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    timer = threading.Timer(moments.uniform(0, seconds), interrupt)
    try:
        timer.start()
        train(network, adam, {epochs}, **options(told))
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        longest = max(longest, time.perf_counter() - sent[0])
    where = f"round {{count}} of seed {{seed}}"
    timer.join()
    epochs = finished.get(bits(network, adam))
    assert epochs is not None, f"{{where}}: these are no epoch's weights"
    if {is_watched}:
        assert told == list(range(1, len(told) + 1)) and 0 <= epochs - len(told) <= 1, f"{{where}}: {{epochs}} {{told}}"
    on_the_way += epochs < {epochs}
    train(network, adam, 1)
    assert finished[bits(network, adam)] == epochs + 1, f"{{where}}: the next fit does not go on"
assert longest < 5, longest
assert on_the_way > 0, "all fits were over: not tested"
print(f"{{on_the_way}} of {rounds} on the way, the longest after {{longest:.3f}} s")
"""


@pytest.mark.skipif(os.name == "nt", reason="this system has no SIGINT for one process")
@pytest.mark.parametrize("way", ["in compiled code", "layer by layer", "read ahead"])
@pytest.mark.parametrize("is_watched", [
    False, pytest.param(True, marks=pytest.mark.needs("tqdm")),
], ids=["unwatched", "with a callback and a progress bar"])
def test_ctrl_c_at_any_moment_leaves_the_last_finished_epoch_and_the_next_fit_goes_on(way, is_watched):
    epochs = 300 if way == "in compiled code" else 10
    print(printed(INTERRUPTED.format(
        way=way, is_watched=is_watched, epochs=epochs, rounds=ROUNDS), seconds=300))


@pytest.mark.skipif(os.name == "nt", reason="this system has no SIGINT for one process")
def test_ctrl_c_does_not_wait_for_the_end_of_an_epoch():
    program = """
import signal, threading, time
import numpy as np
import nnfast
signal.signal(signal.SIGINT, signal.default_int_handler)
x, t = np.ones((200_000, 64), np.float32), np.zeros(200_000, int)
network = nnfast.Network([nnfast.Affine(64, 512), nnfast.Relu(), nnfast.Affine(512, 512), nnfast.Affine(512, 10)], seed=0)
longest = 0.0
for wait in (0.1, 0.5, 1.0):
    sent = []

    def interrupt():
        sent.append(time.perf_counter())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Timer(wait, interrupt).start()
    try:
        network.fit(x, t, batch_size=5)     # some 10 seconds
    except KeyboardInterrupt:
        longest = max(longest, time.perf_counter() - sent[0])
    else:
        raise AssertionError("not interrupted")
assert longest < 5, longest
print(f"longest {longest:.3f} s")
"""
    print(printed(program))


# Each needs far more memory than there is.
WANTING = {
    "fit": "network.fit(x, t, batch_size=len(x))",
    "fit layer by layer": "own.fit(x, t, batch_size=len(x))",
    "gradient": "network.gradient(x, t)",
    "gradient layer by layer": "own.gradient(x, t)",
    "predict": "network.predict(x)",
    "predict layer by layer": "own.predict(x)",
    "predict float64": "wide.predict(few)",
    "loss": "network.loss(x, t)",
    "numerical_gradient": "network.numerical_gradient(x, t)",
    "numerical_gradient by brute force": "own.numerical_gradient(x, t, method='brute')",
    "predictor": "broad.predictor(100)",
    "predictor's call": "predictor(x)",
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a limit of memory that holds")
@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer takes memory for each byte of the program's")
@pytest.mark.parametrize("call", WANTING)
def test_want_of_memory_is_a_memory_error_and_leaves_no_trace(call):
    program = f"""
import copy, resource
import numpy as np
import nnfast

class Doubled:
    def forward(self, x):
        return 2 * x
    def backward(self, dout):
        return 2 * dout

def pages(field):
    with open("/proc/self/statm") as file:
        return int(file.read().split()[field])

def state():
    return [copy.deepcopy([*each.state(), each.generator.bit_generator.state]) for each in (network, own)]

layers = lambda: [nnfast.Affine(64, 256), nnfast.BatchNormalization(256), nnfast.Relu(), nnfast.Affine(256, 128)]
network, own = nnfast.Network(layers(), seed=0), nnfast.Network([Doubled(), *layers()], seed=0)
wide = nnfast.Network([nnfast.Affine(8, 10**6)], seed=0)
broad = nnfast.Network([nnfast.Affine(8, 10**5), nnfast.Relu(), nnfast.Affine(10**5, 1)], seed=0)
x, t = np.zeros((200_000, 64), np.float32), np.zeros(200_000, int)
few = np.zeros((100, 8))
predictor = network.predictor(len(x))
for each in (network, own):
    each.fit(x[:100], t[:100])
    each.gradient(x[:100], t[:100])
    scores = each.predict(x[:100])
before = state()
unlimited = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages(0) * resource.getpagesize() + (48 << 20), unlimited[1]))
resident = []
for _ in range(30):
    try:
        {WANTING[call]}
    except MemoryError as error:
        message = str(error)
    else:
        raise AssertionError("there was enough memory")
    resident.append(pages(1))
resource.setrlimit(resource.RLIMIT_AS, unlimited)
assert resident[-1] - resident[9] < 100, resident
np.testing.assert_equal(state(), before)
np.testing.assert_equal(own.predict(x[:100]), scores)
for each in (network, own):
    each.fit(x[:100], t[:100])
    each.gradient(x[:100], t[:100])
print(message)
"""
    assert printed(program)
