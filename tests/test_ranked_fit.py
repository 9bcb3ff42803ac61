"""`fit(comm=...)` on real ranks: what they compute, decide and refuse together, and how they all end when one fails."""

import json
import os
import re
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from launched import command, ended, found, start, started, told
from processes import printed
from test_ranks import FakeIntracomm, fake_mpi  # noqa: F401 - a fixture

from nnfast import Adam, Affine, BatchNormalization, Dropout, Network, Relu, _epochs, _shares

REAL = pytest.mark.needs("mpi4py")

# Each rank's part of 150 rows, the first one's being the larger one, and a network. `local` differs by rank where it can.
MADE = """
rows = 150
rng = np.random.default_rng(0)
x, t = rng.standard_normal((rows, 8)), rng.integers(0, 3, rows)
first = slice(0, 90) if comm.rank == 0 else slice(90, 120) if comm.rank == 1 else slice(120, rows)
if comm.size == 2:
    first = slice(0, 100) if comm.rank == 0 else slice(100, rows)
mine = x[first], t[first]

def made(seed=0, dtype="float64", width=6):
    return Network([Affine(8, width), BatchNormalization(width), Relu(), Dropout(0.2), Affine(width, 3)], seed=seed, dtype=dtype)

def fitted(network=None, data=None, **options):
    network = made() if network is None else network
    options = {"epochs": 3, "batch_size": 20, "optimizer": Adam(), "comm": comm, **options}
    return network, network.fit(*(data or mine), **options)
"""


def network():
    """As `made` above."""
    return Network([Affine(8, 6), BatchNormalization(6), Relu(), Dropout(0.2), Affine(6, 3)], seed=0, dtype="float64")


def examples():
    rng = np.random.default_rng(0)
    return rng.standard_normal((150, 8)), rng.integers(0, 3, 150)


def together(shards, batch_size):
    """Rows in the order in which ranks with these shards take them without shuffling."""
    firsts = np.cumsum([0, *shards[:-1]])
    order = []
    for shares in _shares.table(shards, batch_size):
        for rank, share in enumerate(shares):
            order += range(firsts[rank], firsts[rank] + share)
            firsts[rank] += share
    return np.array(order)


# What they compute


@REAL
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_follow_one_process_on_the_same_global_batches(size, tmp_path):
    """float64: 24 steps of Adam, whose steps are of 0.001, differ by far less than one of them."""
    program = MADE + """
network, history = fitted(shuffle=False, validation_data=mine, metrics={"wrong": lambda t, scores: np.sum(scores.argmax(1) != t)})
tell([network.flat_params.tolist(), history.loss, history.accuracy, history.validation_loss, history.validation_accuracy,
      history.metrics, bits(network)])
"""
    ranks = told(size, program, tmp_path)
    assert all(of_rank == ranks[0] for of_rank in ranks)
    x, t = examples()
    order = together([100, 50] if size == 2 else [90, 30, 30], 20)
    alone = network()
    history = alone.fit(
        x[order], t[order], epochs=3, batch_size=20, optimizer=Adam(), shuffle=False, validation_data=(x, t),
        metrics={"wrong": lambda t, scores: np.sum(scores.argmax(1) != t)})
    params, loss, accuracy, validation_loss, validation_accuracy, metrics, _ = ranks[0]
    assert np.abs(params - alone.flat_params).max() < 1e-9
    np.testing.assert_allclose(loss, history.loss, rtol=1e-9)
    np.testing.assert_allclose(validation_loss, history.validation_loss, rtol=1e-9)
    np.testing.assert_allclose(accuracy, history.accuracy, rtol=1e-12)
    np.testing.assert_allclose(validation_accuracy, history.validation_accuracy, rtol=1e-12)
    assert metrics == history.metrics


@REAL
def test_each_rank_permutes_its_own_rows_by_one_number_that_all_draw(tmp_path):
    program = MADE + """
network = Network([Affine(8, 3)], seed=0, dtype="float64")
fitted(network, epochs=1)
tell([network.flat_params.tolist(), network.generator.bit_generator.state["state"]["state"]])
"""
    (first, state), (second, other_state) = told(2, program, tmp_path)
    assert (first, state) == (second, other_state)
    x, t = examples()
    alone = Network([Affine(8, 3)], seed=0, dtype="float64")
    number = int(alone.generator.integers(1 << 64, dtype=np.uint64))
    assert alone.generator.bit_generator.state["state"]["state"] == state
    permuted = np.concatenate([_shares.order(number, 0, 100), 100 + _shares.order(number, 1, 50)])
    order = permuted[together([100, 50], 20)]
    alone.fit(x[order], t[order], batch_size=20, optimizer=Adam(), shuffle=False)
    assert np.abs(first - alone.flat_params).max() < 1e-9


@REAL
def test_balanced_classes_are_those_of_all_ranks(tmp_path):
    program = MADE + """
found = []
for weights in (None, np.arange(1.0, rows + 1)[first]):
    network, history = fitted(shuffle=False, class_weight="balanced", sample_weight=weights, batch_size=rows)
    found.append([network.flat_params.tolist(), history.loss])
tell(found)
"""
    first, second = told(2, program, tmp_path)
    assert first == second
    x, t = examples()
    for (params, loss), weights in zip(first, (None, np.arange(1.0, 151)), strict=True):
        alone = network()
        history = alone.fit(x, t, epochs=3, batch_size=150, optimizer=Adam(), shuffle=False, class_weight="balanced",
                            sample_weight=weights)
        assert np.abs(params - alone.flat_params).max() < 1e-9
        np.testing.assert_allclose(loss, history.loss, rtol=1e-9)


@REAL
def test_maps_of_files_give_the_bits_of_arrays(tmp_path):
    program = MADE + """
if comm.rank == 0:
    x.tofile(folder / "x"), t.tofile(folder / "t")
comm.Barrier()
maps = (np.memmap(folder / "x", x.dtype, "r", shape=x.shape)[first], np.memmap(folder / "t", t.dtype, "r", shape=t.shape)[first])
tell([bits(fitted()[0]), bits(fitted(data=maps)[0])])
"""
    ranks = told(2, program, tmp_path)
    assert len({one for of_rank in ranks for one in of_rank}) == 1


def test_a_communicator_of_one_is_a_plain_fit(fake_mpi):  # noqa: F811
    class Alone(FakeIntracomm):
        size = 1

        def __getattr__(self, name):
            raise AssertionError(f"a rank that is alone calls {name}")

    x, t = examples()
    found = []
    for more in ({}, {"comm": Alone()}):
        trained = network()
        history = trained.fit(x, t, epochs=3, batch_size=20, optimizer=Adam(), **more)
        found.append(([array.tobytes() for array in trained.state()], history.loss, trained.generator.bit_generator.state))
    assert found[0] == found[1]


def test_fit_imports_no_mpi():
    assert printed("""
import sys
import numpy as np, nnfast
nnfast.Network([nnfast.Affine(2, 2)]).fit(np.eye(2), [0, 1])
print([name for name in sys.modules if name.startswith("mpi4py")])
""") == "[]"


@REAL
def test_threads_of_ranks_on_the_same_cores_are_no_more_than_the_cores(tmp_path):
    program = MADE + """
os.environ.pop("NNFAST_NUM_THREADS")
seen = []
fitted(callbacks=[lambda epoch: seen.append(nnfast.get_num_threads())])
fitted(callbacks=[lambda epoch: seen.append(nnfast.get_num_threads())], num_threads=3)
tell([seen, nnfast.get_num_threads(), sorted(os.sched_getaffinity(0))])
"""
    ranks = told(3, program, tmp_path)
    for seen, alone, cores in ranks:
        sharing = sum(others == cores for _, _, others in ranks)
        assert seen == [max(1, alone // sharing)] * 3 + [3] * 3


# What they decide


@REAL
def test_what_one_rank_decides_holds_for_all(tmp_path):
    """And all have seen the same epochs."""
    program = MADE + """
def run(**options):
    seen = []
    calls = options.pop("callbacks", [])
    network, history = fitted(epochs=9, callbacks=[lambda epoch: seen.append(repr(epoch)), *calls], **options)
    return seen, len(history.loss), history.best_epoch, bits(network)

def late(epoch):
    if comm.rank == 1:
        time.sleep(0.3)

found = {
    "callback": run(callbacks=[lambda epoch: comm.rank == 1 and epoch.number == 3]),
    "step": run(step_callbacks=[lambda step: step.number == 13] if comm.rank == 1 else []),
    "time": run(time_budget=0.5, callbacks=[late]),
    "stopping": run(validation_data=mine, early_stopping=EarlyStopping(min_delta=10.0, patience=2)),
    "plateau": run(validation_data=mine, schedule=schedules.OnPlateau(patience=1)),
}
tell(found)
"""
    ranks = told(2, program, tmp_path)
    assert ranks[0] == ranks[1]
    epochs = {name: of_run[1] for name, of_run in ranks[0].items()}
    assert epochs == {"callback": 3, "step": 2, "time": epochs["time"], "stopping": 3, "plateau": 9}
    assert 1 <= epochs["time"] < 9
    assert ranks[0]["stopping"][2] == 1
    assert all(len(of_run[0]) == of_run[1] for of_run in ranks[0].values())


def test_ranks_do_not_look_at_their_own_clocks_between_epochs():
    """One would leave and another go on: they agree at the end of each epoch."""
    job = SimpleNamespace(ranks=object(), deadline=1.0, clock=lambda: 2.0)
    assert not _epochs.Job.is_late(job)
    job.ranks = None
    assert _epochs.Job.is_late(job)


@REAL
def test_steps_are_told_on_all_ranks_with_the_loss_of_the_global_batch(tmp_path):
    program = MADE + """
seen = []
fitted(shuffle=False, epochs=1, step_callbacks=[lambda step: seen.append(step.loss)])
tell(seen)
"""
    first, second = told(2, program, tmp_path)
    assert first == second
    x, t = examples()
    order, seen = together([100, 50], 20), []
    network().fit(x[order], t[order], batch_size=20, optimizer=Adam(), shuffle=False,
                  step_callbacks=[lambda step: seen.append(step.loss)])
    np.testing.assert_allclose(first, seen, rtol=1e-9)


@REAL
def test_only_the_first_rank_prints_and_writes(tmp_path):
    program = MADE + """
path = folder / f"fit-{comm.rank}.npz"
fitted(verbose=1, progress=True, checkpoint=Checkpoint(path, every=1))
"""
    process = start(2, program, tmp_path)
    output, errors = ended(process)
    assert process.returncode == 0, errors
    lines = output.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert sorted(path.name for path in tmp_path.glob("fit-*")) == ["fit-0.npz"]


# Checkpoints

KEEPING = MADE + """
def trained(epochs, **options):
    network, adam = made(), Adam()
    network, history = fitted(network, epochs=epochs, optimizer=adam, validation_data=mine,
                              early_stopping=EarlyStopping(patience=50), **options)
    return [bits(network, *adam.m.values(), *adam.v.values()), history.loss, history.best_epoch]
"""


@REAL
def test_a_fit_that_goes_on_has_the_bits_of_one_in_one_go(tmp_path):
    """Whatever the other ranks say of files; also from within an epoch, and where no rank but the first can read it."""
    program = KEEPING + """
path = folder / "fit.npz" if comm.rank == 0 else None
keeps = {"checkpoint": Checkpoint(path, every=2)} if comm.rank == 0 else {}
found = [trained(6)]
trained(3, **keeps)
found.append(trained(6, resume=path))
trained(2, **keeps, step_callbacks=[lambda step: step.number == 11 and comm.rank == 1])     # 8 steps an epoch
found.append(trained(6, resume=path))
trained(3, **keeps, resume=False)
found.append(trained(6, **keeps, resume=True))
tell(found)
"""
    first, second = told(2, program, tmp_path)
    assert first == second
    assert all(one == first[0] for one in first)


@REAL
def test_a_fit_is_kept_within_an_epoch_when_it_is_time_for_the_first_rank(tmp_path):
    """Each step is, and an error in the middle of the second epoch ends the fit."""
    program = KEEPING + """
path = folder / "fit.npz"
def fails(step):
    if comm.rank == 1 and step.number == 13:
        raise ValueError("of the callback")
keeps = {"checkpoint": Checkpoint(path, seconds=1e-9)} if comm.rank == 0 else {}
tell([raised(trained, 6, step_callbacks=[fails], **keeps), trained(6), trained(6, resume=path)])
"""
    (first, whole, resumed), (second, *others) = told(2, program, tmp_path)
    assert first[0] == "OtherRankError"
    assert second == ["ValueError", "of the callback"]
    assert whole == resumed
    assert others == [whole, resumed]
    with np.load(tmp_path / "fit.npz") as kept:
        training = json.loads(str(kept["nnfast"]))["training"]
    assert (training["epoch"], training["step"]) == (1, 4)     # 8 steps an epoch; the 13th was not kept any more


@REAL
def test_a_kept_fit_of_other_shards_is_refused_on_all_ranks(tmp_path):
    program = KEEPING + """
path = folder / "fit.npz"
trained(2, checkpoint=Checkpoint(path))
less = mine[0][:-1], mine[1][:-1]
tell([raised(fitted, data=less, validation_data=mine, early_stopping=EarlyStopping(patience=50), resume=path),
      raised(fitted, made(), (x, t), validation_data=mine, early_stopping=EarlyStopping(patience=50), resume=path, comm=None)])
"""
    first, second = told(2, program, tmp_path)
    refused = r"resume is .*fit.npz, a fit with number of rows \[100, 50\], but this one has \[99, 49\]"
    assert first[0][0] == "ValueError"
    assert re.fullmatch(refused, first[0][1])
    assert second[0][0] == "OtherRankError"
    assert re.search(f"rank 0 raised ValueError: {refused}", second[0][1])
    assert first[1] == second[1]
    assert "number of rows [100, 50], but this one has 150" in first[1][1]


@REAL
def test_a_rank_that_is_killed_ends_all_and_the_last_checkpoint_goes_on(tmp_path):
    program = KEEPING + """
path = folder / "fit.npz"
if {kills}:
    def kill(epoch):
        if epoch.number == 4 and comm.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    trained(8, checkpoint=Checkpoint(path), callbacks=[kill])
tell([trained(8), trained(8, checkpoint=Checkpoint(path), resume=True)])
"""
    killed = start(2, program.replace("{kills}", "True"), tmp_path)
    begun = time.monotonic()
    ended(killed)
    assert killed.returncode != 0
    assert time.monotonic() - begun < 30
    assert not (tmp_path / "0.json").exists()
    with np.load(tmp_path / "fit.npz") as kept:
        assert 3 <= len(kept["training.history.loss"]) < 8
    first, second = told(2, program.replace("{kills}", "False"), tmp_path)
    assert first == second
    assert first[0] == first[1]


# What they refuse


@REAL
def test_what_is_not_alike_is_refused_on_all_ranks_and_named(tmp_path):
    """One after the other with the same communicator, and in the end a fit that is all right."""
    program = MADE + """
def differs(name, one, other):
    return raised(fitted, **{name: one if comm.rank == 0 else other})

def changed(change):
    network = made()
    if comm.rank == 1:
        change(network)
    return raised(fitted, network)

def change_weight(network):
    network.params["W2"][0, 0] += 1e-12

def change_statistics(network):
    list(network.layers.values())[1].running_mean[0] = 1

def draw(network):
    network.generator.random()

def penalise(network):
    network.weight_decay_lambda = 0.1

def trained_adam():
    adam = Adam()
    if comm.rank == 1:
        adam.states(made().params)["W1"][0][...] = 1
    return raised(fitted, optimizer=adam)

def masks_from_numpy():
    np.random.seed(comm.rank)
    layer = Dropout(0.5)
    network = Network([Affine(8, 3), layer, Affine(3, 3)], seed=0)
    layer.generator = None
    return raised(fitted, network)

def one_of(first, second):
    return raised(fitted, first if comm.rank == 0 else second)

tell({
    "batch_size": differs("batch_size", 100, 50), "epochs": differs("epochs", 3, 4),
    "shuffle": differs("shuffle", True, False), "clip_norm": differs("clip_norm", None, 1.0),
    "optimizer": differs("optimizer", Adam(), SGD()), "lr": differs("optimizer", SGD(0.1), SGD(0.2)),
    "optimizer state": trained_adam(), "schedule": differs("schedule", None, schedules.Cosine()),
    "decay": differs("schedule", schedules.StepDecay(3), schedules.StepDecay(3, 0.5)),
    "early_stopping": differs("early_stopping", EarlyStopping("loss"), EarlyStopping("loss", 3)),
    "validation_data": differs("validation_data", mine, None),
    "class_weight": differs("class_weight", "balanced", {0: 1.0}), "weights": differs("sample_weight", None, np.ones(len(mine[0]))),
    "dtype": one_of(made(), made(dtype="float32")), "seed": one_of(made(), made(seed=1)),
    "width": one_of(made(), made(width=7)), "layers": one_of(made(), Network([Affine(8, 3)], dtype="float64")),
    "loss": one_of(Network([Affine(8, 3)], seed=0), Network([Affine(8, 3)], SoftmaxWithLoss(0.1), seed=0)),
    "weight": changed(change_weight), "statistics": changed(change_statistics), "generator": changed(draw),
    "penalty": changed(penalise), "masks": masks_from_numpy(), "metrics": raised(
        fitted, validation_data=mine, metrics={"a" if comm.rank == 0 else "b": lambda t, scores: 0.0}),
    "nothing": raised(fitted),
})
"""
    first, second = told(2, program, tmp_path, 120)
    assert first == second
    assert first.pop("nothing") == []
    digest = "[0-9a-f]{16}"
    same = "give all ranks the same"
    expected = {
        "batch_size": f"batch_size is 100 on rank 0 but 50 on rank 1: {same}",
        "epochs": f"epochs is 3 on rank 0 but 4 on rank 1: {same}",
        "shuffle": f"shuffle is True on rank 0 but False on rank 1: {same}",
        "clip_norm": f"clip_norm is None on rank 0 but 1.0 on rank 1: {same}",
        "optimizer": f"optimizer is Adam on rank 0 but SGD on rank 1: {same}",
        "lr": f"the optimizer's lr is 0.1 on rank 0 but 0.2 on rank 1: {same}",
        "optimizer state": f"the digest of the optimizer's m of W1 is {digest} on rank 0 but {digest} on rank 1: "
                           "give all ranks the same network and optimizer",
        "schedule": rf"schedule is None on rank 0 but \[\['Cosine', .*\]\] on rank 1: {same}",
        "decay": rf"schedule is \[\['StepDecay', 'every=3', 'decay=0.1'\]\] on rank 0 but .*'decay=0.5'\]\] on rank 1: {same}",
        "early_stopping": "early_stopping is loss, less is better by 0, patience 10, restore_best True on rank 0 but "
                          f"loss, less is better by 0, patience 3, restore_best True on rank 1: {same}",
        "validation_data": f"validation_data is given on rank 0 but not given on rank 1: {same}",
        "class_weight": f"class_weight is balanced on rank 0 but not balanced on rank 1: {same}",
        "weights": f"sample_weight or class_weight is not given on rank 0 but given on rank 1: {same}",
        "dtype": f"the network's dtype is float64 on rank 0 but float32 on rank 1: {same} network",
        "seed": f"the digest of W1 is {digest} on rank 0 but {digest} on rank 1: make the network with the same seed on all "
                r"ranks, or give all of them the weights of rank 0, network.flat_params = comm.bcast\(network.flat_params\)",
        "width": rf"layer 1 is Affine, inputs 8, outputs 6 on rank 0 but Affine, inputs 8, outputs 7 on rank 1: {same} network",
        "layers": f"the number of layers is 5 on rank 0 but 1 on rank 1: {same} network",
        "loss": rf"the network's loss_setting is 0.0 on rank 0 but 0.1 on rank 1: {same} network",
        "weight": f"the digest of W2 is {digest} on rank 0 but {digest} on rank 1: make the network with the same seed .*",
        "statistics": f"the digest of running_mean1 is {digest} on rank 0 but {digest} on rank 1: "
                      "give all ranks the same network and optimizer",
        "generator": f"the state of the network's random generator is {digest} on rank 0 but {digest} on rank 1: "
                     "give the network the same seed on all ranks",
        "penalty": f"the network's weight_decay_lambda is 0.0 on rank 0 but 0.1 on rank 1: {same} network",
        "masks": f"the state of np.random is {digest} on rank 0 but {digest} on rank 1: "
                 "call np.random.seed with the same number on all ranks",
        "metrics": rf"metrics is \['a'\] on rank 0 but \['b'\] on rank 1: {same}",
    }
    assert first.keys() == expected.keys()
    for what, (kind, words) in first.items():
        assert kind == "ValueError", what
        assert re.fullmatch(expected[what], words), f"{what}: {words}"


@REAL
def test_what_one_rank_is_refused_ends_all_with_its_words(tmp_path):
    program = MADE + """
def at(rank, **options):
    return raised(fitted, **(options if comm.rank == rank else {}))

class Own:
    def forward(self, x):
        return x
    def backward(self, dout):
        return dout

odd = mine[0].copy()
odd[3, 1] = np.nan
tell({
    "empty": at(1, data=(mine[0][:0], mine[1][:0])), "columns": at(0, data=(mine[0][:, :5], mine[1])),
    "labels": at(1, data=(mine[0], mine[1] + 1)), "epochs": at(1, epochs=0), "batch_size": at(0, batch_size=2.5),
    "threads": at(1, num_threads=0), "callbacks": at(1, callbacks=3), "balance": at(1, class_weight="even"),
    "validation": at(0, validation_data=(mine[0], mine[1] + 1)), "folder": at(0, checkpoint=Checkpoint("/nowhere/fit.npz")),
    "stream": at(1, data=([mine[0], mine[0][:5]], [mine[1], mine[1][:5]])),
    "list": at(1, data=(list(zip(*mine)), None)),
    "layer": raised(fitted, Network([Affine(8, 3), Own()], seed=0, dtype="float64") if comm.rank == 1 else None),
    "NaN": at(1, data=(odd, mine[1])), "nothing": at(0),
})
"""
    first, second = told(2, program, tmp_path, 120)
    assert first.pop("nothing") == second.pop("nothing") == []
    expected = {
        "empty": (1, "ValueError", "x .*"), "columns": (0, "ValueError", "x has 5 columns, but layer 1 .*"),
        "labels": (1, "ValueError", r"t\[\d+\] is 3, but .*"), "epochs": (1, "ValueError", "epochs is 0, .*"),
        "batch_size": (0, "TypeError", "batch_size is 2.5, .*"), "threads": (1, "ValueError", "num_threads is 0, .*"),
        "callbacks": (1, "TypeError", "callbacks is 3, .*"), "balance": (1, "ValueError", "class_weight is 'even', .*"),
        "validation": (0, "ValueError", r"t\[\d+\] is 3, but .*"),
        "folder": (0, "FileNotFoundError", "/nowhere/fit.npz cannot be written .*"),
        "stream": (1, "TypeError", "comm needs arrays or maps of files .*"),
        "list": (1, "TypeError", "comm needs arrays or maps of files .*"),
        "layer": (1, "TypeError", "comm needs a network that trains in compiled code, but layer Own1 is written in Python"),
        "NaN": (1, "ValueError", r"x contains NaN or infinity \(first at row 3, column 1\)"),
    }
    assert first.keys() == expected.keys()
    for what, (rank, kind, words) in expected.items():
        own, other = (first[what], second[what]) if rank == 0 else (second[what], first[what])
        assert own[0] == kind, f"{what}: {own}"
        assert re.fullmatch(words, own[1]), f"{what}: {own}"
        also = " (and 1 more rank has failed)" if what == "NaN" else ""     # of which batch normalisation told it
        assert other == ["OtherRankError", f"the fit has ended on all ranks, for rank {rank} raised {kind}: {own[1]}{also}"]


# How they end


@REAL
def test_an_error_on_one_rank_ends_all_with_the_weights_of_the_last_finished_epoch(tmp_path):
    program = MADE + """
def fails(rank, number, error=KeyError):
    def callback(told):
        if comm.rank == rank and told.number == number:
            raise error("of the callback")
    return [callback]

after = {0: bits(made())}
for epochs in (1, 2):
    after[epochs] = bits(fitted(epochs=epochs)[0])

def ends(**options):
    network = made()
    error = raised(fitted, network, **options)
    now = bits(network)
    return [error, [epochs for epochs, kept in after.items() if kept == now]]

def metric(t, scores):
    raise IndexError("of the metric")

def bad_schedule(positions, epochs):
    if comm.rank == 1 and positions[0] >= 1:
        raise OSError("of the schedule")
    return np.ones(len(positions))

tell({
    "callback": ends(callbacks=fails(1, 2)), "first rank": ends(callbacks=fails(0, 1)),
    "step": ends(step_callbacks=fails(1, 11)), "exit": ends(callbacks=fails(1, 2, SystemExit)),
    "memory": ends(step_callbacks=fails(0, 3, MemoryError)), "interrupt": ends(step_callbacks=fails(1, 20, KeyboardInterrupt)),
    "metric": ends(validation_data=mine, metrics={"bad": metric}), "schedule": ends(schedule=bad_schedule),
    "nothing": ends(epochs=1),
})
"""
    first, second = told(2, program, tmp_path, 120)
    assert first.pop("nothing") == second.pop("nothing") == [[], [1]]
    expected = {
        "callback": (1, "KeyError", "'of the callback'", 2), "first rank": (0, "KeyError", "'of the callback'", 1),
        "step": (1, "KeyError", "'of the callback'", 1), "exit": (1, "SystemExit", "of the callback", 2),
        "memory": (0, "MemoryError", "of the callback", 0), "interrupt": (1, "KeyboardInterrupt", "of the callback", 2),
        "metric": (0, "IndexError", "of the metric", 1), "schedule": (1, "OSError", "of the schedule", 1),
    }
    for what, (rank, kind, words, epochs) in expected.items():
        own, other = (first[what], second[what]) if rank == 0 else (second[what], first[what])
        assert own == [[kind, words], [epochs]], what
        told_of = "was interrupted" if kind == "KeyboardInterrupt" else f"raised {kind}: {words}"
        assert other == [
            ["OtherRankError", f"the fit has ended on all ranks, for rank {rank} {told_of}"], [epochs]], what


@REAL
def test_a_loss_that_becomes_infinite_ends_all_ranks_alike(tmp_path):
    program = MADE + """
network = Network([Affine(8, 6), Relu(), Affine(6, 3)], seed=0)
before = bits(network)
tell([raised(fitted, network, optimizer=SGD(1e30)), bits(network) == before])
"""
    first, second = told(2, program, tmp_path)
    assert {first[0][0], second[0][0]} <= {"FloatingPointError", "OtherRankError"}
    assert all(re.search("the loss became (nan|inf) in epoch 1", words) for (_, words), _ in (first, second))
    assert first[1] and second[1]


@REAL
def test_weights_that_one_rank_changes_are_noticed(tmp_path):
    program = MADE + """
def change(network, number):
    def callback(epoch):
        if comm.rank == 1 and epoch.number == number:
            network.params["W1"][0, 0] += 1
    return [callback]

now, late = made(), made()
tell([raised(fitted, now, epochs=40, callbacks=change(now, 5)), raised(fitted, late, callbacks=change(late, 3))])
"""
    first, second = told(2, program, tmp_path)
    assert first == second
    for (kind, words), when in zip(first, ("after epoch 13", "in the end"), strict=True):   # 13 epochs: 104 steps
        assert kind == "RuntimeError"
        assert words.startswith(f"W1 on rank 1 differs from that on rank 0 {when}, though all ranks made the same updates")


@REAL
@pytest.mark.parametrize("who", ["one rank", "all ranks"])
@pytest.mark.parametrize("way", ["unwatched", "watched", "step by step"])
def test_ctrl_c_ends_all_ranks(who, way, tmp_path, heeds_ctrl_c):
    options = {"unwatched": "", "watched": "validation_data=mine, callbacks=[lambda epoch: None]",
               "step by step": "step_callbacks=[lambda step: None]"}[way]
    program = MADE + f"""
signal.signal(signal.SIGINT, signal.default_int_handler)
(folder / f"{{comm.rank}}.pid").write_text(str(os.getpid()))
network = made()
error = raised(fitted, network, epochs=100_000_000, {options})
tell([error, bits(network), comm.allgather(comm.rank)])
"""
    process = start(2, program, tmp_path)
    pids = [tmp_path / f"{rank}.pid" for rank in range(2)]
    while not all(path.exists() and path.read_text() for path in pids):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(0.5)
    for path in pids if who == "all ranks" else pids[1:]:
        os.kill(int(path.read_text()), signal.SIGINT)
    begun = time.monotonic()
    _, errors = ended(process, 30)
    assert time.monotonic() - begun < 15
    assert process.returncode == 0, errors
    first, second = found(2, tmp_path)
    assert first[1:] == second[1:]
    errors = [first[0], second[0]]
    own = ["KeyboardInterrupt", ""]
    if who == "one rank":
        assert errors == [["OtherRankError", "the fit has ended on all ranks, for rank 1 was interrupted"], own]
    else:   # the second one may hear of the first one's before its own
        assert own in errors
        assert all(error == own or error[1].endswith(" was interrupted") for error in errors)


@REAL
def test_ctrl_c_is_heard_after_a_fit_as_before_it(tmp_path):
    program = MADE + """
heard = []
signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
mine_before = signal.getsignal(signal.SIGINT)
fitted(callbacks=[lambda epoch: os.kill(os.getpid(), signal.SIGINT)])
tell([heard, signal.getsignal(signal.SIGINT) is mine_before])
"""
    assert told(2, program, tmp_path) == [[[signal.SIGINT] * 3, True]] * 2


# The command line


def trained(size, folder, *options, **environment):
    """Exit status, and lines of output and of errors, of ``nnfast train`` on so many ranks."""
    process = started(command(size, sys.executable, "-m", "nnfast", "train", "--pictures", folder, *options), **environment)
    output, errors = ended(process)
    return process.returncode, output.splitlines(), errors.splitlines()


@REAL
def test_the_command_line_trains_on_all_ranks_and_prints_once(tmp_path):
    path = tmp_path / "digits.npz"
    status, output, errors = trained(2, tmp_path, "--epochs", "3", "--no-pictures", "--save", path)
    assert status == 0, errors
    assert output[0] == ("digits: 1,437 images to train on by 2 processes together, 360 to test; network 64-50-10")
    assert [line[:9] for line in output[1:4]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert output[4].startswith("test accuracy 0.")
    assert output[5:] == [f"saved {path}"]
    assert Network.load(path).inputs == 64


@REAL
def test_the_command_line_refuses_once(tmp_path):
    for options, words in (
        (["--save", "/nowhere/digits.npz"], "nnfast: /nowhere/digits.npz cannot be written .*"),
        (["--resume"], "nnfast: --resume goes on from the file of --checkpoint, but that names none"),
        (["--data", "mnist", "--data-dir", "/nowhere"], "nnfast: data_dir is /nowhere, .*"),
        (["--lr", "1e30"], "nnfast: the loss became .*"),
    ):
        status, output, errors = trained(2, tmp_path, "--no-pictures", "--quiet", *options)
        assert status != 0
        assert output == []
        said = [line for line in errors if line.startswith("nnfast: ")]
        assert len(said) == 1
        assert re.fullmatch(words, said[0])


@REAL
def test_a_launcher_of_another_mpi_is_noticed(tmp_path):
    """As when mpiexec of one MPI starts a Python whose mpi4py uses another one, and each process thinks it is alone."""
    status, output, errors = trained(1, tmp_path, "--no-pictures", MV2_COMM_WORLD_SIZE="2")
    assert status == 2
    assert output == []
    assert errors[0].startswith("nnfast: this is one of 2 processes of a launcher, but the MPI of mpi4py, ")


def test_a_launcher_without_mpi4py_is_refused(monkeypatch, capsys):
    from nnfast import __main__

    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setattr(__main__, "_is_installed", lambda package: package != "mpi4py")
    assert __main__.main(["train"]) == 2
    assert capsys.readouterr().err == (
        "nnfast: this is one of 4 processes of an MPI launcher, but they need mpi4py to train together: "
        'pip install "nnfast[mpi]"\n')
