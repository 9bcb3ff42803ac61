"""Memory stays flat over 10,000 calls of every kind, those that are refused included."""

import gzip
import os
import sys
from itertools import pairwise

import pytest
from processes import ENDURANCE, printed

CALLS = 10_000 * ENDURANCE
MOST = 350_000
"""Bytes that memory may grow by while 7,000 of the calls are made: a leak of 100 bytes a call would be twice that."""

# A line each. `refused` calls what follows and wants a ValueError or TypeError.
CASES = {
    "fit": "network.fit(x, t)",
    "fit with everything": "deep.fit(x, t, optimizer=nnfast.Adam(), validation_data=(x, t), callbacks=[id])",
    "fit layer by layer": "own.fit(x, t)",
    "a new network": "nnfast.Network([nnfast.Affine(4, 3)], seed=0).fit(x, t)",
    "predict": "network.predict(x)",
    "predict float64": "network.predict(x64)",
    "predict layer by layer": "own.predict(x)",
    "loss and accuracy": "network.loss(x, t), network.accuracy(x, t)",
    "gradient": "network.gradient(x, t)",
    "gradient with everything": "deep.gradient(x, t)",
    "gradient layer by layer": "own.gradient(x, t)",
    "numerical_gradient": "network.numerical_gradient(x, t)",
    "predictor": "network.predictor(3)",
    "predictor's call": "predictor(x)",
    "predictor with memory for C functions": "wide.predictor()",
    "predictor's C function": "predictor.ctypes(row, scores, predictor.context)",
    "a layer written in Python called from C": "refused(lambda: own.predictor().address)",
    "layers": "layer.forward(x), layer.backward(dout)",
    "params replaced": "network.params.update({'W1': np.ones((4, 3))})",
    "num_threads": "network.predict(x, num_threads=2)",
    "fit of a wrong shape": "refused(network.fit, x[:, :3], t)",
    "fit of a wrong dtype": "refused(network.fit, words, t)",
    "fit of values that are not finite": "refused(network.fit, odd, t)",
    "fit of labels out of range": "refused(network.fit, x, t + 9)",
    "fit of as many targets": "refused(network.fit, x, t[:2])",
    "fit of a wrong optimiser": "refused(network.fit, x, t, optimizer=3)",
    "fit layer by layer of values that are not finite": "refused(own.fit, odd, t)",
    "predict of a wrong shape": "refused(network.predict, x[:, :3])",
    "predict of a wrong dtype": "refused(network.predict, words)",
    "predict of a ragged list": "refused(network.predict, [[1, 2], [3]])",
    "gradient of a wrong shape": "refused(network.gradient, x[:, :3], t)",
    "gradient of labels out of range": "refused(network.gradient, x, t + 9)",
    "numerical_gradient of values that are not finite": "refused(network.numerical_gradient, odd, t)",
    "predictor of too many rows": "refused(predictor, np.ones((9, 4)))",
    "predictor's wrong out": "refused(predictor, x, np.empty((1, 1)))",
    "params of a wrong shape": "refused(network.params.update, {'W1': x})",
    "a network that does not fit together": "refused(nnfast.Network, [nnfast.Affine(2, 3), nnfast.Affine(4, 5)])",
    "save": "deep.save(folder / 'saved.npz')",
    "load": "nnfast.Network.load(folder / 'deep.npz')",
    "load of a file cut off": "refused(nnfast.Network.load, folder / 'half.npz')",
    "load of other arrays": "refused(nnfast.Network.load, folder / 'other.npz')",
    "save of a layer written in Python": "refused(own.save, folder / 'own.npz')",
    "read_idx": "read_idx(folder / 'good')",
    "read_idx packed": "read_idx(folder / 'good.gz')",
    "read_idx of a file cut off": "refused(read_idx, folder / 'short')",
    "read_idx of a packed file cut off": "refused(read_idx, folder / 'short.gz')",
    "read_idx of another format": "refused(read_idx, folder / 'other')",
    "read_idx of a header that promises too much": "refused(read_idx, folder / 'promise')",
}

PROGRAM = """
import os, sys
from pathlib import Path
import numpy as np
import nnfast
from nnfast.datasets import read_idx

class Doubled:      # a layer written in Python
    def forward(self, x):
        return 2 * x
    def backward(self, dout):
        return 2 * dout

def refused(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except (ValueError, TypeError):
        return
    raise AssertionError("not refused")

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

os.fsync = lambda file: None    # 10,000 of them take a minute
folder = Path({folder!r})
x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
x64, t, words, odd = x.astype(float), np.array([0, 1, 2]), np.full((3, 4), "a"), np.full((3, 4), np.nan)
dout = np.ones((3, 3), np.float32)
network = nnfast.Network([nnfast.Affine(4, 3)], seed=0)
deep = nnfast.Network([nnfast.Affine(4, 5), nnfast.BatchNormalization(5), nnfast.Gelu(), nnfast.Dropout(0.5),
                       nnfast.Affine(5, 3)], seed=0)
own = nnfast.Network([Doubled(), nnfast.Affine(4, 3)], seed=0)
layer, predictor = nnfast.Affine(4, 3), network.predictor(3)
wide = nnfast.Network([nnfast.Affine(4, 2000)], seed=0)
row, scores = np.ctypeslib.as_ctypes(x[0]), np.ctypeslib.as_ctypes(np.empty(3, np.float32))
layer.draw(network.generator, np.dtype(np.float32))
deep.save(folder / "deep.npz")
(folder / "half.npz").write_bytes((folder / "deep.npz").read_bytes()[:-300])
np.savez(folder / "other.npz", W1=x)

def run(calls):
    for _ in range(calls):
        {call}

for _ in range(10):
    run({calls} // 10)
    print(resident())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of the IDX format, well-formed and broken."""
    made = tmp_path_factory.mktemp("idx")
    good = bytes([0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 4, *range(12)])
    files = {
        "good": good, "short": good[:-1], "good.gz": gzip.compress(good), "short.gz": gzip.compress(good)[:-9],
        "other": b"PK" + good, "promise": bytes([0, 0, 8, 2, *[255] * 8]),
    }
    for name, contents in files.items():
        (made / name).write_bytes(contents)
    return made


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer keeps what is freed")
@pytest.mark.parametrize("case", CASES)
def test_memory_stays_flat(case, folder):
    sizes = list(map(int, printed(PROGRAM.format(folder=str(folder), call=CASES[case], calls=CALLS)).split()))
    steps = [later - earlier for earlier, later in pairwise(sizes[1:])]
    # Once a table of Python's own may get larger: that of names, in which NumPy's __array_interface__ comes and goes.
    growth = sum(steps) - max(steps)
    print(f"{case}: {growth} bytes")
    assert growth < MOST, steps
