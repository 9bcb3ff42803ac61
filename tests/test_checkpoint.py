"""Checkpoints: a fit that was kept anywhere and goes on ends with the bits of one in one go, whatever it keeps.

What a file may hold that somebody has changed is at the end; test_fuzzed_files.py changes them at random.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from processes import ENDURANCE, printed
from test_plan import CHAINS, LOSSES, OPTIMIZERS, data, targets_for, with_threads

from nnfast import (
    SGD,
    AdaGrad,
    Adam,
    Affine,
    BatchNormalization,
    Checkpoint,
    Dropout,
    EarlyStopping,
    Identity,
    IdentityWithLoss,
    ModelFormatError,
    Momentum,
    MultiLayerNetExtend,
    Network,
    Relu,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    _model_files,
    _plan,
    schedules,
)

ROWS, BATCH, STEPS = 53, 10, 6


def made(seed=1, dtype="float32", loss=SoftmaxWithLoss):
    return Network([Affine(20, 9), BatchNormalization(9), Tanh(), Dropout(0.2), Affine(9, 5)], loss(), seed=seed, dtype=dtype)


def everything(network, optimizer, history):
    """What a fit leaves behind, comparable: all bits but those of the seconds."""
    attributes = {
        name: {key: array.tobytes() for key, array in value.items()} if isinstance(value, dict) else value
        for name, value in vars(optimizer).items()}
    layers = network.layers.values()
    generators = [owner.generator.bit_generator.state for owner in (network, *layers) if getattr(owner, "generator", None)]
    if any(isinstance(layer, Masked) or getattr(layer, "generator", network) is None for layer in layers):
        generators.append(np.random.get_state(legacy=False))
    history = repr({name: value for name, value in vars(history).items() if name != "seconds"})
    states = json.dumps(generators, default=np.ndarray.tolist)
    return [array.tobytes() for array in network.state()], attributes, states, history


@pytest.fixture
def ways(request, monkeypatch):
    """Training layer by layer also of what could be a plan."""
    if not request.param:
        monkeypatch.setattr(_plan, "obstacle", lambda network, optimizer: "of the test")


BOTH_WAYS = pytest.mark.parametrize("ways", [True, False], indirect=True, ids=["compiled", "layer by layer"])


def files_of(monkeypatch, folder, fit):
    """All files that a fit writes with a checkpoint that it is given, in their order; and what it leaves behind."""
    found, write = [], _model_files.write

    def writes(path, description, arrays):
        write(path, description, arrays)
        found.append(folder / f"{len(found)}.npz")
        found[-1].write_bytes(path.read_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(_model_files, "write", writes)
        patch.setattr(os, "fsync", lambda file: None)       # some milliseconds each
        return found, fit(folder / "fit.npz")


def place(path):
    """Epochs and steps that a file has."""
    training = described(path)["training"]
    return training["epoch"], training["step"]


def described(path):
    with np.load(path) as file:
        return json.loads(file["nnfast"].item())


def assert_goes_on(monkeypatch, folder, make, optimizer, x, t, options=dict, *, epochs=3, **checkpoint):
    """From everywhere where a checkpoint is written, also by a network with other weights, a generator and settings."""

    def begin(seed=1):
        np.random.seed(seed)
        return make(seed), optimizer()

    def fit(begun, **more):
        network, its_optimizer = begun
        history = network.fit(x, t, epochs=epochs, batch_size=BATCH, optimizer=its_optimizer, **options(), **more)
        return everything(network, its_optimizer, history)

    in_one_go = fit(begin())
    files, kept = files_of(monkeypatch, folder, lambda path: fit(
        begin(), checkpoint=Checkpoint(path, **(checkpoint or {"seconds": 1e-9}))))
    assert kept == in_one_go
    for file in files:
        resumed = begin(seed=2)
        for name, value in vars(resumed[1]).items():
            if type(value) is float:
                setattr(resumed[1], name, value / 2)
        assert fit(resumed, resume=file) == in_one_go, place(file)
    return files


# The same bits

@BOTH_WAYS
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_fit_goes_on_to_the_same_bits_from_every_step(monkeypatch, tmp_path, rng, dtype, optimizer, ways):
    x, targets = data(rng)
    files = assert_goes_on(
        monkeypatch, tmp_path, lambda seed: made(seed, dtype), OPTIMIZERS[optimizer], x, targets[SoftmaxWithLoss])
    assert [place(file) for file in files] == [
        (epoch, step) if step < STEPS else (epoch + 1, 0) for epoch in range(3) for step in range(1, STEPS + 1)]


@BOTH_WAYS
@pytest.mark.parametrize("chain", CHAINS)
def test_so_it_does_with_layers_in_any_order(monkeypatch, tmp_path, rng, chain, ways):
    x, targets = data(rng)
    assert_goes_on(
        monkeypatch, tmp_path, lambda seed: Network(CHAINS[chain](), seed=seed), Adam, x, targets[SoftmaxWithLoss], epochs=2)


X, TARGETS = data(np.random.default_rng(7))
WEIGHTS = np.random.default_rng(8).random(ROWS)
VALIDATION = X[:20], TARGETS[SoftmaxWithLoss][:20]


class Halving:      # a schedule of one's own, which learns
    def __init__(self):
        self.factor, self.best, self.note, self.then = np.float32(1), float("inf"), None, schedules.Cosine()

    def __call__(self, position, epochs):
        return self.factor * self.then(position, epochs)

    def observe(self, epoch):
        self.factor, self.best, self.note = self.factor / 2, min(self.best, epoch.loss), f"after {epoch.number}"


OPTIONS = {
    "consecutive batches": lambda: {"shuffle": False},
    "weights of rows": lambda: {"sample_weight": WEIGHTS, "class_weight": {1: 3.0}},
    "schedule": lambda: {"schedule": schedules.WarmUp(0.7, schedules.Cosine())},
    "on plateau": lambda: {"schedule": schedules.WarmUp(1.5, schedules.OnPlateau("loss", 0.3, patience=1, min_delta=0.2))},
    "a schedule of one's own": lambda: {"schedule": schedules.WarmUp(0.1, Halving())},
    "a function as schedule": lambda: {"schedule": lambda position, epochs: 1 - position / epochs},
    "clip_value": lambda: {"clip_value": 0.003},
    "clip_norm": lambda: {"clip_norm": 0.05},
    "validation and metrics": lambda: {
        "validation_data": VALIDATION, "metrics": {"ü/1": lambda t, scores: scores.sum(), "nan": lambda t, scores: np.nan}},
    "best weights": lambda: {
        "validation_data": (X[:20], (TARGETS[SoftmaxWithLoss][:20] + 1) % 5), "early_stopping": EarlyStopping(patience=2)},
    "last weights": lambda: {"early_stopping": EarlyStopping("accuracy", patience=1, min_delta=2, restore_best=False)},
}


@BOTH_WAYS
@pytest.mark.parametrize("options", OPTIONS)
def test_so_it_does_with_every_option(monkeypatch, tmp_path, dtype, options, ways):
    def make(seed):
        network = made(seed, dtype)
        network.weight_decay_lambda, network.l1_lambda = 0.01, 0.02
        return network

    files = assert_goes_on(
        monkeypatch, tmp_path, make, lambda: Momentum(0.3), X, TARGETS[SoftmaxWithLoss], OPTIONS[options], epochs=5)
    if "weights" in options and options != "weights of rows":
        assert place(files[-1])[0] < 5, "no early stopping: not tested"


@BOTH_WAYS
@pytest.mark.parametrize("loss", LOSSES)
def test_so_it_does_with_every_loss(monkeypatch, tmp_path, rng, loss, ways):
    x, targets = data(rng)
    assert_goes_on(monkeypatch, tmp_path, lambda seed: made(seed, loss=loss), Adam, x, targets_for(loss, targets))


@pytest.mark.parametrize("mask_bytes", [1, 500, 1 << 22], ids=["a step's", "some steps'", "all"])
@BOTH_WAYS
def test_so_it_does_where_masks_come_from_the_global_generator(monkeypatch, tmp_path, rng, mask_bytes, ways):
    monkeypatch.setattr(_plan, "_MASK_BYTES", mask_bytes)
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]

    def make(seed):
        network = MultiLayerNetExtend(20, [9, 8], 5, use_dropout=True, use_batchnorm=True)
        network.generator = np.random.default_rng(seed)
        return network

    assert_goes_on(monkeypatch, tmp_path, make, Adam, x, t)


class Noise:        # a layer of one's own: parameters, statistics, a generator
    def __init__(self, width, seed):
        self.shift, self.grads = np.zeros(width, np.float32), {}
        self.statistics = (np.zeros(width), np.zeros((), np.int64))
        self.generator = np.random.Generator(np.random.Philox(seed))

    @property
    def params(self):
        return {"shift": self.shift}

    def forward(self, x):
        mean, count = self.statistics
        mean += x.mean(axis=0)
        count += 1
        return x + self.shift + self.generator.standard_normal(x.shape, np.float32) / 10 + np.float32(mean / count)

    def backward(self, dout):
        self.grads = {"shift": dout.sum(axis=0)}
        return dout


class Masked:       # draws as the book's layers do
    def forward(self, x):
        self.mask = np.random.rand(*x.shape) > 0.1
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class Halved(IdentityWithLoss):
    pass


class BooksAdaGrad:     # an optimiser of one's own, which has nothing at first
    def __init__(self):
        self.lr, self.h, self.count, self.name, self.nothing = np.float32(0.1), None, np.int64(0), "AdaGrad", {}

    def update(self, params, grads):
        if self.h is None:
            self.h = {key: np.zeros(array.shape) for key, array in params.items()}
        self.count += 1
        for key in params:
            self.h[key] += grads[key] ** 2
            params[key] -= self.lr * grads[key] / (np.sqrt(self.h[key]) + 1e-7)


def own(seed, loss=SoftmaxWithLoss):
    """A network with all that: two generators besides the network's, and the global one."""
    dropout = Dropout(0.3)
    network = Network(
        [Affine(20, 8), Noise(8, seed), Masked(), dropout, Relu(), Noise(8, seed + 1), Affine(8, 5)], loss(), seed=seed)
    dropout.generator = np.random.default_rng(seed)
    return network


@pytest.mark.parametrize("loss", [SoftmaxWithLoss, Halved])
@pytest.mark.parametrize("optimizer", [BooksAdaGrad, Adam])
def test_so_it_does_with_layers_losses_and_optimisers_of_ones_own(monkeypatch, tmp_path, rng, optimizer, loss):
    x, targets = data(rng)
    files = assert_goes_on(
        monkeypatch, tmp_path, lambda seed: own(seed, loss), optimizer, x.astype(np.float32), targets_for(loss, targets))
    with pytest.raises(ModelFormatError, match="has a loss that nnfast has not" if loss is Halved else
                       "has a layer 2 that nnfast has not"):
        Network.load(files[0])


def test_a_layer_of_ones_own_is_not_taken_for_one_of_the_same_name(tmp_path):
    class Relu:
        def forward(self, x):
            return x

        def backward(self, dout):
            return dout

    class Dropout(Relu):
        pass

    other = type("SoftmaxWithLoss", (IdentityWithLoss,), {})()
    for layers, loss, flaw in (([Relu()], None, "layer 2"), ([Dropout()], None, "layer 2"), ([], other, "loss")):
        t = TARGETS[SoftmaxWithLoss if loss is None else None]
        Network([Affine(20, 5), *layers], loss, seed=0).fit(X, t, checkpoint=Checkpoint(tmp_path / "fit.npz"))
        with pytest.raises(ModelFormatError, match=f"has a {flaw} that nnfast has not"):
            Network.load(tmp_path / "fit.npz")


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64])
@BOTH_WAYS
def test_so_it_does_with_every_generator_of_numpy(monkeypatch, tmp_path, rng, kind, ways):
    def make(seed):
        network = made(seed)
        network.generator = network.layers["Dropout1"].generator = np.random.Generator(kind(seed))
        network.generator.integers(9, dtype=np.int32)
        return network

    x, targets = data(rng)
    assert_goes_on(monkeypatch, tmp_path, make, SGD, x, targets[SoftmaxWithLoss], epochs=2)


def test_so_it_does_with_other_numbers_of_threads(each_build, monkeypatch, tmp_path, rng):
    x, targets = data(rng)
    found = []
    for threads, others in ((1, 3), (2, 1), (3, 8)):
        with monkeypatch.context() as patch:
            with_threads(patch, threads)
            made().fit(x, targets[SoftmaxWithLoss], epochs=2, batch_size=BATCH, checkpoint=Checkpoint(tmp_path / "fit.npz"),
                       optimizer=Adam(), step_callbacks=[lambda step: step.number == 9])
            with_threads(patch, others)
            network, adam = made(2), Adam()
            history = network.fit(
                x, targets[SoftmaxWithLoss], epochs=2, batch_size=BATCH, optimizer=adam, resume=tmp_path / "fit.npz")
            found.append(everything(network, adam, history))
    assert found[0] == found[1] == found[2]


@BOTH_WAYS
def test_a_fit_that_is_resumed_again_and_again_is_the_same(tmp_path, rng, ways):
    x, targets = data(rng)
    t = targets[SoftmaxWithLoss]

    def fit(**more):
        network, adam = made(), Adam()
        return everything(network, adam, network.fit(
            x, t, epochs=4, batch_size=BATCH, optimizer=adam, validation_data=(x, t),
            schedule=schedules.OnPlateau(patience=1, min_delta=0.5), **more))

    in_one_go = fit()
    for _ in range(4 * STEPS + 1):
        steps = []
        found = fit(checkpoint=Checkpoint(tmp_path / "fit.npz"), resume=True,
                    step_callbacks=[lambda step, steps=steps: steps.append(step) or True])
    assert not steps
    assert found == in_one_go


@BOTH_WAYS
def test_a_time_budget_that_ends_within_an_epoch_ends_at_a_checkpoint(tmp_path, rng, ways):
    x, targets = data(rng)
    options = {"epochs": 3, "batch_size": BATCH, "time_budget": 1e-9, "checkpoint": Checkpoint(tmp_path / "fit.npz", every=100)}
    history = made().fit(x, targets[SoftmaxWithLoss], **options)
    assert len(history.loss) == 1
    assert 0 < described(tmp_path / "fit.npz")["training"]["seconds"] < history.seconds[0]
    assert place(tmp_path / "fit.npz") == (0, 1)
    rewrite(tmp_path / "fit.npz", lambda description: description["training"].update(seconds=1000.0))
    network, sgd = made(2), SGD()
    again = network.fit(x, targets[SoftmaxWithLoss], **options, resume=True, optimizer=sgd)
    assert place(tmp_path / "fit.npz") == (0, 2)
    assert len(again.loss) == 1
    assert 1000 < described(tmp_path / "fit.npz")["training"]["seconds"] < again.seconds[0] < 1100


# When it is written

def test_a_file_is_written_after_every_so_many_epochs_and_in_the_end(monkeypatch, tmp_path):
    def fit(path, **more):
        return made().fit(X, TARGETS[SoftmaxWithLoss], epochs=7, checkpoint=Checkpoint(path, **more))

    for more, expected in [
        ({}, [1, 2, 3, 4, 5, 6, 7]), ({"every": 3}, [3, 6, 7]), ({"every": 7}, [7]), ({"every": 8}, [7]), ({"seconds": 1e6}, [7]),
        ({"every": 5, "seconds": 1e6}, [5, 7]), ({"every": 5, "seconds": 1e-9}, [1, 2, 3, 4, 5, 6, 7]),
    ]:
        files, _ = files_of(monkeypatch, tmp_path, lambda path, more=more: fit(path, **more))
        assert [place(file) for file in files] == [(epoch, 0) for epoch in expected], more


@BOTH_WAYS
def test_a_file_is_written_when_so_many_seconds_are_over(monkeypatch, tmp_path, rng, ways):
    """Each step takes 10 ms: the file is written not after each, but within the epoch."""
    x, targets = data(rng, rows=200)
    network = made()
    step = network.training_step
    if not network.trains_as_given() or _plan.obstacle(network, SGD()):
        network.training_step = lambda *batch: time.sleep(0.01) or step(*batch)
        options = {}
    else:
        options = {"step_callbacks": [lambda step: time.sleep(0.01)]}
    begun = time.perf_counter()
    files, _ = files_of(monkeypatch, tmp_path, lambda path: network.fit(
        x, targets[SoftmaxWithLoss], batch_size=2, checkpoint=Checkpoint(path, seconds=0.1), **options))
    most = 1 + (time.perf_counter() - begun) / 0.1
    places = [place(file) for file in files]
    assert places[-1] == (1, 0)
    assert 2 <= len(places) <= most
    assert all(epoch == 0 and step >= 1 for epoch, step in places[:-1])


def test_a_run_without_callbacks_is_written_within_its_epoch(monkeypatch, tmp_path):
    x, t = np.ones((400_000, 20), np.float32), np.zeros(400_000, int)
    files, _ = files_of(monkeypatch, tmp_path, lambda path: Network([Affine(20, 5)], seed=0).fit(
        x, t, batch_size=1, checkpoint=Checkpoint(path, seconds=0.02)))
    steps = [place(file)[1] for file in files]
    assert len(steps) > 1
    assert steps[:-1] == sorted(steps[:-1])
    assert steps[-1] == 0


def test_network_load_reads_a_checkpoint(tmp_path, dtype):
    network = made(dtype=dtype)
    network.fit(X, TARGETS[SoftmaxWithLoss], epochs=2, optimizer=Adam(), checkpoint=Checkpoint(tmp_path / "fit.npz"))
    loaded = Network.load(tmp_path / "fit.npz")
    assert [array.tobytes() for array in loaded.state()] == [array.tobytes() for array in network.state()]
    assert loaded.predict(X).tobytes() == network.predict(X).tobytes()


def test_more_epochs_may_be_asked_for_and_no_fewer(tmp_path):
    x, t, path = X, TARGETS[SoftmaxWithLoss], tmp_path / "fit.npz"
    network, expected = made(), made()
    expected.fit(x, t, epochs=5)
    history = network.fit(x, t, epochs=2, checkpoint=Checkpoint(path))
    again = made(3)
    assert again.fit(x, t, epochs=2, resume=path).loss == history.loss      # and nothing to do
    assert [array.tobytes() for array in again.state()] == [array.tobytes() for array in network.state()]
    assert len(again.fit(x, t, epochs=5, resume=path).loss) == 5
    assert [array.tobytes() for array in again.state()] == [array.tobytes() for array in expected.state()]
    before = [array.tobytes() for array in again.state()]
    message = f"^resume is {re.escape(str(path))}, a fit that has begun epoch 2, but epochs is 1: ask for as many at least$"
    with pytest.raises(ValueError, match=message):
        again.fit(x, t, epochs=1, resume=path)
    assert [array.tobytes() for array in again.state()] == before


def test_an_epoch_that_has_begun_is_asked_for(path):
    with pytest.raises(ValueError, match=r"a fit that has begun epoch 2, but epochs is 1: ask for as many at least$"):
        unchanged(path, epochs=1)


def test_what_an_optimiser_keeps_for_others_is_let_alone(tmp_path):
    adam, again, mine = Adam(), Adam(), np.ones(3)
    for one in (adam, again):
        one.m, one.v = {"W9": mine}, {"W9": mine}
    made().fit(X, TARGETS[SoftmaxWithLoss], optimizer=adam, checkpoint=Checkpoint(tmp_path / "fit.npz"))
    made().fit(X, TARGETS[SoftmaxWithLoss], optimizer=again, resume=tmp_path / "fit.npz")
    assert again.m["W9"] is mine
    assert again.m["W1"].tobytes() == adam.m["W1"].tobytes()


def test_callbacks_hear_of_what_is_left(tmp_path):
    told, path = [], tmp_path / "fit.npz"
    made().fit(X, TARGETS[SoftmaxWithLoss], epochs=3, batch_size=BATCH, checkpoint=Checkpoint(path),
               step_callbacks=[lambda step: step.number == 8])
    made().fit(X, TARGETS[SoftmaxWithLoss], epochs=3, batch_size=BATCH, resume=path,
               callbacks=[lambda epoch: told.append(epoch.number)],
               step_callbacks=[lambda step: told.append((step.number, step.epoch))])
    assert told == [*((step, 2) for step in range(9, 13)), 2, *((step, 3) for step in range(13, 19)), 3]


@pytest.mark.needs("tqdm")
def test_the_progress_bar_begins_where_the_fit_does(tmp_path, capsys):
    path = tmp_path / "fit.npz"
    made().fit(X, TARGETS[SoftmaxWithLoss], batch_size=BATCH, checkpoint=Checkpoint(path),
               step_callbacks=[lambda step: step.number == 4])
    made().fit(X, TARGETS[SoftmaxWithLoss], batch_size=BATCH, epochs=10, resume=path, progress=True)
    assert "4/60" in capsys.readouterr().err


# Ends that nobody wants

KILLED = """
import hashlib, sys
import numpy as np
from nnfast import Adam, Affine, BatchNormalization, Checkpoint, Dropout, EarlyStopping, Network, Relu

generator = np.random.default_rng(0)
x, t = generator.standard_normal((3000, 64), np.float32), generator.integers(0, 10, 3000)
network = Network([Affine(64, 100), BatchNormalization(100), Relu(), Dropout(0.2), Affine(100, 10)], seed=0)
adam = Adam()
checkpoint = Checkpoint(sys.argv[1], seconds=0.003) if len(sys.argv) > 1 else None
print("begins", flush=True)
history = network.fit(x, t, epochs=25, batch_size=5, optimizer=adam, checkpoint=checkpoint, resume=checkpoint is not None,
                      early_stopping=EarlyStopping("loss", patience=100))
arrays = [*network.state(), *adam.m.values(), *adam.v.values(), np.array(history.loss), np.array(history.accuracy)]
rest = repr((adam.iter, network.generator.bit_generator.state))
print(hashlib.sha256(b"".join(array.tobytes() for array in arrays) + rest.encode()).hexdigest())
"""


def test_a_process_that_is_killed_again_and_again_ends_with_the_bits_of_one_in_one_go(tmp_path):
    path, program = tmp_path / "fit.npz", tmp_path / "program.py"
    program.write_text(KILLED)
    expected = printed(KILLED).splitlines()[-1]
    moments, kills, places = np.random.default_rng(), 0, [(0, 0)]
    for _ in range(8 * ENDURANCE + 1):
        before = path.stat().st_ino if path.exists() else None
        process = subprocess.Popen([sys.executable, str(program), str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "begins\n"
        while kills < 8 * ENDURANCE and process.poll() is None:
            if path.exists() and path.stat().st_ino != before:      # it has come further, however busy the machine is
                time.sleep(moments.uniform(0, 0.1))
                process.kill()
                kills += 1
                break
        output, _ = process.communicate()
        if process.returncode == 0:
            break
        places.append(place(path))
        assert places[-1] > places[-2]
        Network.load(path)
    assert output.strip() == expected
    assert kills > 0
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".part"] == []
    print(f"{kills} kills, at {places}")


@pytest.mark.parametrize("moment", ["writing", "putting in place"])
def test_what_stops_the_writing_leaves_the_checkpoint_before_and_the_epoch_that_is_over(monkeypatch, tmp_path, moment):
    path, network, sgd = tmp_path / "fit.npz", made(), SGD()
    network.fit(X, TARGETS[SoftmaxWithLoss], epochs=2, optimizer=sgd)
    expected = [array.tobytes() for array in network.state()]
    network = made()

    def fails(*arguments, **named):
        raise OSError(28, "No space left on device")

    def later(epoch):
        if epoch.number == 2:
            monkeypatch.setattr(*((np, "savez") if moment == "writing" else (os, "fsync")), fails)

    with pytest.raises(OSError, match=f"^{re.escape(str(path))} cannot be written: no space left on device$"):
        network.fit(X, TARGETS[SoftmaxWithLoss], epochs=5, optimizer=sgd, checkpoint=Checkpoint(path), callbacks=[later])
    assert place(path) == (1, 0)
    assert [array.tobytes() for array in network.state()] == expected
    assert list(tmp_path.iterdir()) == [path]


@BOTH_WAYS
def test_an_interrupt_within_the_resumed_epoch_leaves_what_was_kept_and_later_the_last_epoch(tmp_path, rng, ways):
    x, targets = data(rng)
    t, path = targets[SoftmaxWithLoss], tmp_path / "fit.npz"
    network, adam = made(), Adam()
    network.fit(x, t, epochs=2, batch_size=BATCH, optimizer=adam, checkpoint=Checkpoint(path),
                step_callbacks=[lambda step: step.number == 8])
    after_second, adam_then = made(), Adam()
    after_second.fit(x, t, epochs=2, batch_size=BATCH, optimizer=adam_then)
    for step, expected, updates in ((10, network, 8), (14, after_second, 12)):
        again, its_adam = made(3), Adam()

        def interrupt(at, step=step):
            if at.number == step:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            again.fit(x, t, epochs=3, batch_size=BATCH, optimizer=its_adam, resume=path,
                      checkpoint=Checkpoint(tmp_path / "b.npz", 9), step_callbacks=[interrupt])
        assert [array.tobytes() for array in again.state()] == [array.tobytes() for array in expected.state()]
        assert its_adam.iter == updates
        assert not (tmp_path / "b.npz").exists()


@BOTH_WAYS
def test_an_interrupt_after_checkpoints_within_an_epoch_leaves_the_last_finished_one(monkeypatch, tmp_path, rng, ways):
    x, targets = data(rng)
    found, writes = [], _model_files.write
    for interrupted_at in (3, 6, 9, 99):

        def interrupt(path, description, arrays, at=interrupted_at):
            training = description["training"]
            writes(path, description, arrays)
            if training["epoch"] * STEPS + training["step"] == at:
                raise KeyboardInterrupt

        monkeypatch.setattr(_model_files, "write", interrupt)
        network, adam = made(), Adam()
        with contextlib.suppress(KeyboardInterrupt):
            network.fit(x, targets[SoftmaxWithLoss], epochs=1 + (interrupted_at < 99), batch_size=BATCH, optimizer=adam,
                        checkpoint=Checkpoint(tmp_path / "fit.npz", seconds=1e-9))
        found.append((adam.iter, everything(network, adam, object)))
    begun, finished, after_that, whole = found
    assert (begun[0], finished[0], after_that[0], whole[0]) == (0, 6, 6, 6)
    assert begun[1][0] == [array.tobytes() for array in made().state()]
    assert finished == after_that == whole


def test_an_interrupt_while_a_file_is_restored_changes_nothing(monkeypatch, tmp_path):
    path = tmp_path / "fit.npz"
    made().fit(X, TARGETS[SoftmaxWithLoss], optimizer=Adam(), checkpoint=Checkpoint(path))
    network, adam = made(2), Adam(0.3)
    before = [array.tobytes() for array in network.state()]

    class Interrupts(Adam):
        is_armed = True

        def __setattr__(self, name, value):
            if name == "v" and self.is_armed and value is not None:
                Interrupts.is_armed = False
                raise KeyboardInterrupt
            super().__setattr__(name, value)

    adam = Interrupts(0.3)
    description = described(path)
    description["training"]["fit"] |= {"optimizer": "Interrupts", "a compiled epoch": False}
    rewrite(path, lambda found: found.update(description))
    with pytest.raises(KeyboardInterrupt):
        network.fit(X, TARGETS[SoftmaxWithLoss], epochs=2, optimizer=adam, resume=path)
    assert [array.tobytes() for array in network.state()] == before
    assert (adam.lr, adam.iter, adam.m, adam.v) == (0.3, 0, None, None)


@BOTH_WAYS
def test_no_checkpoint_has_weights_that_are_not_finite(tmp_path, rng, ways):
    x, targets = data(rng)
    network = Network([Affine(20, 5)], IdentityWithLoss(), seed=0)
    with pytest.raises(FloatingPointError):
        network.fit(x * 1e15, targets[None], epochs=50, batch_size=BATCH, optimizer=SGD(1e9),
                    checkpoint=Checkpoint(tmp_path / "fit.npz", seconds=1e-9))
    if (tmp_path / "fit.npz").exists():
        assert all(np.isfinite(array).all() for array in Network.load(tmp_path / "fit.npz").state())


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    left = tmp_path / ".fit[1].npz.0123456789abcdef.part"
    others = [tmp_path / name for name in (
        ".fit[1].npz.0123456789abcdeg.part", ".fit1.npz.0123456789abcdef.part", "fit[1].npz.0123456789abcdef.part", ".fit[1].npz.part")]
    for file in (left, *others):
        file.touch()
    made().fit(X, TARGETS[SoftmaxWithLoss], checkpoint=Checkpoint(tmp_path / "fit[1].npz"))
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "fit[1].npz"])


# What is refused

def unchanged(path, make=made, make_optimizer=SGD, **options):
    """Try to resume; all is as it was, whatever the error."""
    network, optimizer = make(), make_optimizer()
    before = everything(network, optimizer, object)
    try:
        network.fit(**{"x": X, "t": TARGETS[SoftmaxWithLoss], "epochs": 9, "batch_size": BATCH, "optimizer": optimizer,
                       "resume": path} | options)
    finally:
        assert everything(network, optimizer, object) == before


def with_lambda(network):
    network.weight_decay_lambda = 0.5
    return network


def with_generator(network):
    network.generator = np.random.Generator(np.random.MT19937(1))
    return network


OTHERS = {
    "layer": ({"make": lambda: Network([Affine(20, 9), BatchNormalization(9), Relu(), Dropout(0.2), Affine(9, 5)])},
              "a fit with layer 3 'Tanh', but this one has 'Relu'"),
    "width": ({"make": lambda: Network([Affine(20, 8), BatchNormalization(8), Tanh(), Dropout(0.2), Affine(8, 5)])},
              "a fit with layer 1 'Affine, inputs 20, outputs 9', but this one has 'Affine, inputs 20, outputs 8'"),
    "setting": ({"make": lambda: Network([Affine(20, 9), BatchNormalization(9), Tanh(), Dropout(0.3), Affine(9, 5)])},
                "a fit with layer 4 'Dropout, dropout_ratio 0.2', but this one has 'Dropout, dropout_ratio 0.3'"),
    "number of layers": ({"make": lambda: Network([Affine(20, 5)])}, "a fit with number of layers 5, but this one has 1"),
    "dtype": ({"make": lambda: made(dtype="float64")}, "a fit with dtype 'float32', but this one has 'float64'"),
    "loss": ({"make": lambda: made(loss=SigmoidWithLoss), "t": TARGETS[None]},
             "a fit with loss 'SoftmaxWithLoss', but this one has 'SigmoidWithLoss'"),
    "decay": ({"make": lambda: with_lambda(made())}, "a fit with weight_decay_lambda 0.0, but this one has 0.5"),
    "optimizer": ({"make_optimizer": Momentum}, "a fit with optimizer 'SGD', but this one has 'Momentum'"),
    "rows": ({"x": X[:50], "t": TARGETS[SoftmaxWithLoss][:50]}, "a fit with number of rows 53, but this one has 50"),
    "batch_size": ({"batch_size": 11}, "a fit with batch_size 10, but this one has 11"),
    "shuffle": ({"shuffle": False}, "a fit with shuffle True, but this one has False"),
    "weights": ({"sample_weight": WEIGHTS}, "a fit with weights of rows False, but this one has True"),
    "schedule": ({"schedule": schedules.WarmUp(1, schedules.Cosine())}, r"a fit with schedule \[\], but this one has \['WarmUp', 'Cosine'\]"),
    "clip_value": ({"clip_value": 1}, "a fit with clip_value None, but this one has 1.0"),
    "clip_norm": ({"clip_norm": 1}, "a fit with clip_norm None, but this one has 1.0"),
    "early stopping": ({"early_stopping": EarlyStopping("loss")}, r"a fit with early_stopping None, but this one has \['loss', -1, True\]"),
    "validation": ({"validation_data": VALIDATION}, "a fit with validation_data False, but this one has True"),
    "generator": ({"make": lambda: with_generator(made())}, r"a fit with random generators \['PCG64'\], but this one has \['MT19937', 'PCG64'\]"),
}


@pytest.fixture
def path(tmp_path):
    made().fit(X, TARGETS[SoftmaxWithLoss], epochs=3, batch_size=BATCH, checkpoint=Checkpoint(tmp_path / "fit.npz"),
               step_callbacks=[lambda step: step.number == 8])
    return tmp_path / "fit.npz"


@pytest.mark.parametrize("other", OTHERS)
def test_another_fit_is_refused_with_the_difference_and_nothing_has_changed(path, other):
    options, message = OTHERS[other]
    with pytest.raises(ValueError, match=f"^resume is {re.escape(str(path))}, {message}$") as error:
        unchanged(path, **options)
    assert type(error.value) is ValueError


def test_a_compiled_epoch_is_not_gone_on_with_layer_by_layer(path, monkeypatch):
    monkeypatch.setattr(_plan, "obstacle", lambda network, optimizer: "of the test")
    with pytest.raises(ValueError, match=r"a fit with a compiled epoch True, but this one has False$"):
        unchanged(path)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"checkpoint": "fit.npz"}, TypeError, r"^checkpoint is 'fit.npz', but must be a Checkpoint: write Checkpoint\(path\)$"),
    ({"resume": True}, ValueError, "^resume is True, but there is no checkpoint whose file it could be: pass the file's path$"),
    ({"resume": 3}, TypeError, "^resume is 3, but a path"),
    ({"resume": "missing.npz"}, FileNotFoundError, "^missing.npz does not exist, but a file of a Checkpoint was expected$"),
    ({"resume": "."}, ModelFormatError, "^. is a folder or a device, but a file was expected$"),
])
def test_wrong_arguments_are_refused(tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        unchanged(None, **options)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"path": 3}, TypeError, "^path is 3, but a path"),
    ({"path": "a.safetensors"}, ValueError, "^path is a.safetensors, but a checkpoint is an .npz: name it so$"),
    ({"path": "a", "every": 0}, ValueError, "^every is 0, but must be at least 1$"),
    ({"path": "a", "seconds": 0}, ValueError, "^seconds is 0"),
])
def test_a_wrong_checkpoint_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Checkpoint(**arguments)


def test_a_place_that_cannot_be_written_is_refused_before_the_training(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "no such folder" / "fit.npz", tmp_path / "folder"):
        with pytest.raises(OSError, match=f"^{re.escape(str(path))} .*name another file with Checkpoint"):
            unchanged(None, checkpoint=Checkpoint(path))


class WithList(SGD):
    def __init__(self):
        super().__init__()
        self.rates = [0.1]


class OfOtherShapes(BooksAdaGrad):
    def __init__(self):
        super().__init__()
        self.h = {"W1": np.zeros(3)}


class WithSlots:
    __slots__ = ()

    def update(self, params, grads):
        pass


class HalvingList(Halving):
    def __init__(self):
        super().__init__()
        self.all = []


def test_what_cannot_be_kept_is_refused_before_the_training(tmp_path):
    checkpoint = Checkpoint(tmp_path / "fit.npz")
    with pytest.raises(TypeError, match=r"^optimizer WithList has rates, a list, which a checkpoint cannot keep: numbers, texts and arrays"):
        made().fit(X, TARGETS[SoftmaxWithLoss], optimizer=WithList(), checkpoint=checkpoint)
    with pytest.raises(TypeError, match=r"^optimizer OfOtherShapes has h\['W1'\], a ndarray, which a checkpoint cannot keep"):
        made().fit(X, TARGETS[SoftmaxWithLoss], optimizer=OfOtherShapes(), checkpoint=checkpoint)
    with pytest.raises(TypeError, match=r"^schedule HalvingList has all, a list, which a checkpoint cannot keep"):
        made().fit(X, TARGETS[SoftmaxWithLoss], schedule=HalvingList(), checkpoint=checkpoint)
    network = own(0)
    network.layers["Noise1"].statistics = (np.array([None]),)
    with pytest.raises(TypeError, match=r"^layer 2 has statistics of object, a ndarray, which a checkpoint cannot keep"):
        network.fit(X, TARGETS[SoftmaxWithLoss], checkpoint=checkpoint)
    with pytest.raises(TypeError, match=r"^optimizer WithSlots has __slots__, a WithSlots, which a checkpoint cannot keep"):
        made().fit(X, TARGETS[SoftmaxWithLoss], optimizer=WithSlots(), checkpoint=checkpoint)
    network = made()
    network.generator = SimpleNamespace(bit_generator=SimpleNamespace(state={"bit_generator": "Dice"}))
    with pytest.raises(TypeError, match=r"^a random generator is a Dice, but a checkpoint can keep PCG64, PCG64DXSM, MT19937, "):
        network.fit(X, TARGETS[SoftmaxWithLoss], checkpoint=checkpoint)
    network = Network([Affine(20, 5), *(Identity() for _ in range(4000))])
    with pytest.raises(ValueError, match=r"^the description of the network has \d+ characters, but at most 262144 are kept$"):
        network.fit(X, TARGETS[SoftmaxWithLoss], checkpoint=checkpoint)
    assert list(tmp_path.iterdir()) == []


def test_a_saved_network_is_no_checkpoint(tmp_path):
    made().save(tmp_path / "network.npz")
    with pytest.raises(ModelFormatError, match=r"holds a network, but no fit to go on with: it is not a file of a Checkpoint$"):
        unchanged(tmp_path / "network.npz")


# Files that somebody has changed

def rewrite(path, change, **arrays):
    """The file with another description, and with arrays put in or, where None, left out."""
    with np.load(path) as file:
        found = {name: file[name] for name in file.files}
    description = json.loads(found.pop("nnfast").item())
    change(description)
    found |= arrays
    found = {name: array for name, array in found.items() if array is not None}
    np.savez(path, nnfast=np.array(json.dumps(description)), **found)


def rich():
    return {"x": X, "t": TARGETS[SoftmaxWithLoss], "batch_size": BATCH, "validation_data": VALIDATION,
            "schedule": schedules.WarmUp(1, schedules.OnPlateau()), "early_stopping": EarlyStopping(),
            "metrics": {"sum": lambda t, scores: scores.sum()}}


@pytest.fixture
def rich_path(tmp_path):
    """A file with something of everything, of the second step of the second epoch."""
    made().fit(epochs=3, optimizer=Adam(), checkpoint=Checkpoint(tmp_path / "fit.npz"), **rich(),
               step_callbacks=[lambda step: step.number == 8])
    return tmp_path / "fit.npz"


BAD = [0.5, -1, 10**30, 10**400, float("nan"), float("inf"), "x", [], [[]], {}, {"state": 1}, True, None]
GOOD = {        # in each place, what of these is right
    "epoch": [], "step": [], "loss": [0.5, -1, 10**30], "correct": [], "seconds": [0.5, 10**30],
    "fit": [], "history": [], "optimizer": [], "states": [], "early_stopping": [], "schedule": [], "generator": [None],
    "generator_before": [], "generators_of_layers": [[]],
    "optimizer.lr": [0.5, 10**30, True], "optimizer.beta1": [0.5], "optimizer.beta2": [0.5], "optimizer.iter": [],
    "states.m": [], "states.m.keys": [], "states.m.dtype": [],
    "early_stopping.value": [0.5, -1, 10**30, float("inf")], "early_stopping.waited": [], "early_stopping.epoch": [],
    "early_stopping.has_state": [True],
    "schedule.0": [{}], "schedule.1": [], "schedule.1.factor": [0.5, 10**30], "schedule.1.value": [0.5, -1, 10**30, float("inf")],
    "schedule.1.waited": [], "schedule.1.epoch": [],
    "generator_before.state": [], "generator_before.state.state": [10**30], "generator_before.state.inc": [],
    "generator_before.has_uint32": [], "generator_before.uinteger": [], "generator_before.bit_generator": [],
}


@pytest.mark.parametrize("where", GOOD)
def test_every_value_of_a_file_is_looked_at(rich_path, where):
    original = rich_path.read_bytes()
    for value in BAD:
        rewrite(rich_path, lambda description, value=value: put(description["training"], where, value))
        is_good = any(repr(value) == repr(good) for good in GOOD[where])
        try:
            unchanged(rich_path, make_optimizer=Adam, **rich())
        except ModelFormatError as error:
            assert not is_good, value
            assert str(error).startswith(f"{rich_path} ")
        except AssertionError:      # it goes on, and all has changed
            assert is_good, value
        rich_path.write_bytes(original)


@pytest.mark.parametrize(("where", "value"), [
    ("step", STEPS), ("epoch", 2), ("epoch", 3), ("correct", ROWS + 1), ("optimizer.iter", 1), ("optimizer.beta1", 1), ("optimizer.m", 1),
    ("optimizer.more", 1), ("states.more", {"dtype": "float32", "keys": []}), ("states.lr", {"dtype": "float32", "keys": []}),
    ("states.m.keys", ["W1"] * 2), ("states.m.keys", ["W1", "W9"]), ("states.m.keys", [["W1"]]), ("states.m.dtype", "float16"),
    ("early_stopping.waited", 2), ("early_stopping.epoch", 2), ("early_stopping.epoch", 0), ("early_stopping.has_state", False),
    ("schedule", [{}]), ("schedule.1.waited", 2), ("schedule.1.epoch", 2), ("schedule.1.more", 1), ("schedule.0.more", 1),
    ("history", ["loss"]), ("history", []), ("history", ["loss", "seconds"] * 2), ("history", ["loss", "seconds", "best_epoch"]),
    ("generators_of_layers", [None]),
])
def test_a_value_that_is_just_beyond_its_range_is_refused(rich_path, where, value):
    rewrite(rich_path, lambda description: put(description["training"], where, value))
    with pytest.raises(ModelFormatError, match=f"^{re.escape(str(rich_path))} has "):
        unchanged(rich_path, make_optimizer=Adam, **rich())


def test_a_history_has_every_epoch(rich_path):
    names = ["loss", "accuracy", "validation_loss", "validation_accuracy", "seconds"]
    arrays = {f"training.history.{name}": None for name in names} | {"training.metrics.1": None}
    rewrite(rich_path, lambda description: put(description["training"], "history", []), **arrays)
    with pytest.raises(ModelFormatError, match=r"has a wrong history$"):
        unchanged(rich_path, make_optimizer=Adam, **rich())


def test_the_best_weights_are_there_if_they_were_kept(rich_path):
    arrays = {f"training.best.{name}": None for name in Network.load(rich_path).params}
    arrays |= {"training.best.running_mean1": None, "training.best.running_var1": None}
    rewrite(rich_path, lambda description: put(description["training"], "early_stopping.has_state", False), **arrays)
    with pytest.raises(ModelFormatError, match=r"has wrong values of early stopping$"):
        unchanged(rich_path, make_optimizer=Adam, **rich())


def test_arrays_are_not_taken_for_a_number_nor_a_number_for_arrays(rich_path):
    def to_arrays(description):
        del description["training"]["optimizer"]["lr"]
        description["training"]["states"]["lr"] = {"dtype": "float32", "keys": []}

    def to_number(description):
        del description["training"]["states"]["m"]
        description["training"]["optimizer"]["m"] = 1

    original = rich_path.read_bytes()
    for change, flaw in ((to_arrays, "has a wrong lr of the optimizer"), (to_number, "has a wrong state of the optimizer")):
        rewrite(rich_path, change)
        with pytest.raises(ModelFormatError, match=f"{flaw}$"):
            unchanged(rich_path, make_optimizer=Adam, **rich())
        rich_path.write_bytes(original)


def put(place, where, value):
    *parts, last = [int(part) if part.isdecimal() else part for part in where.split(".")]
    for part in parts:
        place = place[part]
    place[last] = value


@pytest.mark.parametrize(("where", "value"), [
    ("gauss", "x"), ("gauss", None), ("gauss", float("nan")), ("has_gauss", 2), ("state.pos", 625), ("state.key", [0] * 624), ("more", 1),
])
def test_the_global_generator_is_given_no_state_that_it_cannot_have(tmp_path, where, value):
    def make():
        network = Network([Affine(20, 5), Dropout(0.1)])
        network.layers["Dropout1"].generator = None
        return network

    make().fit(X, TARGETS[SoftmaxWithLoss], batch_size=BATCH, checkpoint=Checkpoint(tmp_path / "fit.npz"))
    rewrite(tmp_path / "fit.npz", lambda description: put(description["training"]["generators_of_layers"][0], where, value))
    with pytest.raises(ModelFormatError, match=r"has a wrong state of a random generator$"):
        unchanged(tmp_path / "fit.npz", make)


@pytest.mark.parametrize(("where", "value"), [
    ("correct", -1), ("generator", None), ("generator", {}), ("optimizer.lr", "x"), ("optimizer.name", 3), ("optimizer.count", "x"),
    ("states.h.keys", ["shift9"]), ("states.lr", {"dtype": "float32", "keys": []}), ("schedule.0.factor", "x"), ("schedule.0.best", []),
])
def test_values_of_what_is_written_in_python_are_looked_at_too(tmp_path, where, value):
    def options():
        return {"t": TARGETS[SoftmaxWithLoss], "batch_size": BATCH, "schedule": Halving()}

    own(1).fit(X, optimizer=BooksAdaGrad(), epochs=2, checkpoint=Checkpoint(tmp_path / "fit.npz"), **options(),
               step_callbacks=[lambda step: step.number == 8])
    own(1).fit(X, optimizer=BooksAdaGrad(), epochs=2, resume=tmp_path / "fit.npz", **options())
    rewrite(tmp_path / "fit.npz", lambda description: put(description["training"], where, value))
    with pytest.raises(ModelFormatError):
        unchanged(tmp_path / "fit.npz", lambda: own(2), BooksAdaGrad, **options())


@pytest.mark.parametrize(("arrays", "flaw"), [
    ({"W1": np.full((20, 9), np.nan, np.float32)}, "has NaN or infinity in the array W1"),
    ({"W1": np.zeros((20, 8), np.float32)}, r"has an array W1 that is not of float32 and of the shape \(20, 9\)"),
    ({"training.best.b2": np.full(5, np.inf, np.float32)}, "has NaN or infinity in the array training.best.b2"),
    ({"training.best.b2": None}, "has no array training.best.b2, which its layers have"),
    ({"training.optimizer.m.b2": np.full(5, np.nan, np.float32)}, "has NaN in the array training.optimizer.m.b2"),
    ({"training.optimizer.m.b2": np.zeros(6, np.float32)}, "has an array training.optimizer.m.b2 that is not of float32"),
    ({"training.history.loss": np.zeros(2)}, r"has an array training.history.loss that is not of float64 and of the shape \(1,\)"),
    ({"training.metrics.1": np.zeros(1, np.float32)}, "has an array training.metrics.1 that is not of float64"),
    ({"training.metrics.2": np.zeros(1)}, "has an array 'training.metrics.2', which none of its layers has"),
    ({"x": np.zeros(1)}, "has an array 'x', which none of its layers has"),
])
def test_every_array_of_a_file_is_looked_at(rich_path, arrays, flaw):
    rewrite(rich_path, lambda description: None, **arrays)
    with pytest.raises(ModelFormatError, match=flaw):
        unchanged(rich_path, make_optimizer=Adam, **rich())


def test_a_state_of_an_optimiser_that_has_overflowed_is_gone_on_with(tmp_path):
    adagrad = AdaGrad()
    made().fit(X, TARGETS[SoftmaxWithLoss], optimizer=adagrad, checkpoint=Checkpoint(tmp_path / "fit.npz"))
    rewrite(tmp_path / "fit.npz", lambda description: None, **{"training.optimizer.h.b2": np.full(5, np.inf, np.float32)})
    made().fit(X, TARGETS[SoftmaxWithLoss], optimizer=adagrad, resume=tmp_path / "fit.npz", epochs=2)
    assert (adagrad.h["b2"] == np.inf).all()


@pytest.mark.parametrize(("kind", "change"), [
    (np.random.MT19937, lambda state: state["state"].update(pos=625)),
    (np.random.MT19937, lambda state: state["state"].update(pos=10**9)),
    (np.random.MT19937, lambda state: state["state"].update(key=[0] * 624)),
    (np.random.MT19937, lambda state: state["state"].update(key=[1] * 623)),
    (np.random.MT19937, lambda state: state["state"].update(key=[2**32] * 624)),
    (np.random.Philox, lambda state: state.update(buffer_pos=5)),
    (np.random.Philox, lambda state: state.update(buffer=[1] * 5)),
    (np.random.SFC64, lambda state: state["state"].update(state=[2**64] * 4)),
    (np.random.SFC64, lambda state: state["state"].update(state=[0.5] * 4)),
    (np.random.PCG64, lambda state: state["state"].update(state=0, inc=0)),
    (np.random.PCG64, lambda state: state["state"].update(state=2**128)),
    (np.random.PCG64DXSM, lambda state: state.update(bit_generator="PCG64")),
    (np.random.PCG64, lambda state: state.update(more=1)),
])
def test_a_generator_is_given_no_state_that_it_cannot_have(tmp_path, kind, change):
    """NumPy would read beside the generator's array for some of them, and look for a number for ever for others."""
    def make():
        network = Network([Affine(20, 5)])
        network.generator = np.random.Generator(kind(1))
        return network

    make().fit(X, TARGETS[SoftmaxWithLoss], batch_size=BATCH, checkpoint=Checkpoint(tmp_path / "fit.npz"))
    unchanged_file = (tmp_path / "fit.npz").read_bytes()
    rewrite(tmp_path / "fit.npz", lambda description: change(description["training"]["generator_before"]))
    with pytest.raises(ModelFormatError, match=r"has a wrong state of a random generator$"):
        unchanged(tmp_path / "fit.npz", make)
    (tmp_path / "fit.npz").write_bytes(unchanged_file)
    make().fit(X, TARGETS[SoftmaxWithLoss], batch_size=BATCH, resume=tmp_path / "fit.npz", epochs=2)


def test_the_description_of_a_fit_is_shown_in_a_line(path):
    def change(description):
        description["training"]["fit"]["batch_size"] = "10\n\x1b" + "x" * 1000

    rewrite(path, change)
    with pytest.raises(ValueError, match="a fit with batch_size '10") as error:
        unchanged(path)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500 + len(str(path))
    rewrite(path, lambda description: description["training"]["fit"].pop("batch_size"))
    with pytest.raises(ModelFormatError, match=r"does not tell its batch_size$"):
        unchanged(path)


@pytest.mark.parametrize("is_own", [True, False], ids=["compiled", "layer by layer"])
def test_a_fit_that_reads_blocks_is_kept_at_the_ends_of_epochs(tmp_path, is_own):
    rng = np.random.default_rng(5)
    x = [rng.standard_normal((rows, 4)).astype(np.float32) for rows in (30, 45, 28)]
    t = [rng.integers(0, 3, len(part)) for part in x]
    path = tmp_path / "fit.npz"

    def made():
        activation = Relu() if is_own else type("OwnRelu", (Relu,), {})()
        return Network([Affine(4, 9), activation, Dropout(0.2), Affine(9, 3)], seed=3)

    def fit(epochs, **more):
        network = made()
        history = network.fit(x, t, epochs=epochs, batch_size=10, block_rows=20, optimizer=Adam(0.01), **more)
        return history, network

    expected_history, expected = fit(5)
    seen = []
    fit(5, checkpoint=Checkpoint(path, seconds=1e-9), step_callbacks=[lambda step: seen.append(step) or len(seen) == 27])
    assert 20 < len(seen) < 30      # within the third epoch, which is not kept
    history, network = fit(5, resume=path)
    assert history.loss == expected_history.loss
    for key, array in expected.params.items():
        np.testing.assert_array_equal(network.params[key], array)
    with pytest.raises(ValueError, match="data read in blocks"):
        made().fit(np.concatenate(x), np.concatenate(t), epochs=5, batch_size=10, optimizer=Adam(0.01), resume=path)
