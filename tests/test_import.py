"""Importing nnfast is cheap and changes nothing, whatever else is imported before or after it."""

import pytest
from processes import printed


def test_what_is_needed_only_sometimes_is_not_imported():
    program = "import sys, numpy; before = set(sys.modules); import nnfast; print(*set(sys.modules) - before)"
    costly = {"numpy.random", "gzip", "hashlib", "secrets", "http", "urllib.request", "argparse", "subprocess", "tempfile",
              "multiprocessing", "asyncio", "matplotlib", "tqdm", "scipy", "sklearn", "torch"}
    assert not costly & set(printed(program).split())


def test_subnormals_are_the_callers_as_before():
    # A library that was linked with -ffast-math would make them 0 for the whole process.
    program = """
import numpy as np
subnormal = np.full(100, 1e-40, np.float32)
half = (subnormal * np.float32(0.5)).tobytes()
assert any(half)
import nnfast
assert (subnormal * np.float32(0.5)).tobytes() == half
(x, t), _ = nnfast.load_digits()
nnfast.Network([nnfast.Affine(64, 50), nnfast.Relu(), nnfast.Affine(50, 10)], seed=0).fit(x, t, epochs=2, num_threads=2)
assert (subnormal * np.float32(0.5)).tobytes() == half
"""
    printed(program)


OURS = """
import hashlib, nnfast
nnfast.set_num_threads(2)
(x, t), (x_test, t_test) = nnfast.load_digits()
network = nnfast.Network([nnfast.Affine(64, 50), nnfast.Relu(), nnfast.Affine(50, 10)], seed=0)
def train():
    network.fit(x, t, epochs=5)
    print(hashlib.sha256(network.predict(x_test).tobytes()).hexdigest(), flush=True)
"""
THEIRS = {
    "torch": """
import torch
def learn():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    inputs, labels = torch.randn(2000, 64), torch.randint(0, 10, (2000,))
    first = torch.nn.functional.cross_entropy(model(inputs), labels).item()
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
    print("learned", loss.item() < first, flush=True)
""",
    "sklearn": """
from sklearn.ensemble import HistGradientBoostingClassifier     # OpenMP, as nnfast
from sklearn.datasets import load_digits
def learn():
    inputs, labels = load_digits(return_X_y=True)
    model = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(inputs, labels)
    print("learned", model.score(inputs, labels) > 0.8, flush=True)
""",
    "numpy": """
import numpy
def learn():     # threads of OpenBLAS
    a = numpy.ones((600, 600))
    print("learned", bool(((a @ a) == 600).all()), flush=True)
""",
}


@pytest.mark.parametrize("peer", [pytest.param(name, marks=pytest.mark.needs(name)) for name in THEIRS])
@pytest.mark.parametrize("ours_first", [True, False], ids=["nnfast first", "nnfast last"])
def test_both_train_as_if_they_were_alone(peer, ours_first):
    alone = printed(OURS + "train()")
    imports = [OURS, THEIRS[peer]] if ours_first else [THEIRS[peer], OURS]
    for calls, expected in [
        ("train(); learn()", f"{alone}\nlearned True"), ("learn(); train()", f"learned True\n{alone}"),
    ]:
        assert printed("\n".join([*imports, calls])) == expected
