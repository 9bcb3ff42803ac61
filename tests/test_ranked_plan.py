"""Training that is divided among ranks: the same weights, to the bit, on all of them, and to rounding those of one process.

The ranks are threads of this process (ranks.py). The data come batch after batch, and in each batch rank after rank, so
that one process can train on the same batches.
"""

import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
from ranks import Group
from test_plan import LOSSES, OPTIMIZERS, assert_alike, back_after, data, targets_for, tolerance_of, with_threads

from nnfast import (
    SGD,
    Adam,
    Affine,
    BatchNormalization,
    Dropout,
    Gelu,
    Identity,
    IdentityWithLoss,
    LeakyRelu,
    Network,
    Relu,
    Rescale,
    Sigmoid,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
    _layout,
    _plan,
    _ranked_plan,
)

# Rows that ranks take of each batch: all ranks always, or some of them not; the last batch is shorter.
SHARES = {
    "one rank": np.array([[10], [10], [10], [7]]),
    "alike": np.array([[5, 5], [5, 5], [5, 5], [4, 3]]),
    "unlike": np.array([[1, 9], [2, 8], [1, 9], [1, 6]]),
    "some none": np.array([[3, 0, 7], [10, 0, 0], [0, 1, 9], [0, 7, 0]]),
}
WEIGHTED = np.linspace(0, 2, 37)


def generator_state(network):
    return network.generator.bit_generator.state


def kept(network, optimizer):
    """Everything that a fit leaves behind but for the history, by name."""
    found = dict(network.params)
    found |= {f"state {place}": array for place, array in enumerate(network.state())}
    for name in (*optimizer._states, "iter"):
        value = getattr(optimizer, name, 0)
        found |= {f"{name} {key}": array for key, array in value.items()} if isinstance(value, dict) else {name: value}
    return found


def divided(make, optimizer, shares, x, t, *, epochs=2, shuffle=False, weights=_plan.NO_WEIGHTS, clips=(None, None),
            overlaps=False, options=lambda own: {}):
    """By rank: the network, its optimiser, what training returned or raised, and the rank."""
    group = Group(shares)
    found = [SimpleNamespace(network=make(), optimizer=optimizer()) for _ in range(group.size)]
    owned = group.rows()

    def train(ranks):
        own, rows = found[ranks.rank], owned[ranks.rank]
        own.ranks = ranks
        plan = own.plan = _ranked_plan.RankedPlan(
            own.network, own.optimizer, int(shares.sum(axis=1).max()), weights[rows] if weights.size else weights,
            *clips, ranks=ranks, overlaps=overlaps)
        more = {"number": 1, "told": lambda steps: None, **options(own)}
        return plan.train(x[rows], t[rows], epochs, shuffle, more.pop("number"), more.pop("told"), **more)

    for own, result in zip(found, group.run(train), strict=True):
        own.result = result
    return found


def in_one_process(make, optimizer, shares, x, t, *, epochs=2, weights=_plan.NO_WEIGHTS, clips=(None, None), **options):
    network, optimizer = make(), optimizer()
    plan = _plan.Plan(network, optimizer, int(shares.sum(axis=1).max()), weights, *clips)
    result = plan.train(x, t, epochs, False, 1, lambda steps: None, **options)
    return SimpleNamespace(network=network, optimizer=optimizer, result=result)


def assert_ranks_agree(found):
    """To the bit, in all that they keep and tell."""
    for one in found:
        assert not isinstance(one.result, BaseException), one.result
    first, *others = found
    for other in others:
        assert other.result == first.result
        assert generator_state(other.network) == generator_state(first.network)
        assert other.ranks.sums == first.ranks.sums
        one, same = kept(other.network, other.optimizer), kept(first.network, first.optimizer)
        for name, value in same.items():
            assert np.array_equal(one[name], value), name


def assert_as_one_process(make, optimizer, shares, x, t, tolerance, **more):
    found = divided(make, optimizer, shares, x, t, **more)
    assert_ranks_agree(found)
    expected = in_one_process(make, optimizer, shares, x, t, **{
        key: value for key, value in more.items() if key in ("epochs", "weights", "clips")})
    assert_alike(kept(found[0].network, found[0].optimizer), kept(expected.network, expected.optimizer), tolerance)
    assert generator_state(found[0].network) == generator_state(expected.network)
    results, of_one = np.array(found[0].result), np.array(expected.result)
    np.testing.assert_allclose(results[:, 0], of_one[:, 0], rtol=tolerance)
    np.testing.assert_allclose(results[:, 1], of_one[:, 1], rtol=1e-14)
    np.testing.assert_array_equal(results[:, 2:], of_one[:, 2:])
    return found


# One process

@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_ranks_train_as_one_process_does(each_build, rng, dtype, loss, optimizer):
    x, targets = data(rng, 37)
    t = targets_for(loss, targets)
    assert_as_one_process(
        lambda: Network([Affine(20, 18), Tanh(), Affine(18, 9), Relu(), Affine(9, 5)], loss(), seed=1, dtype=dtype),
        OPTIMIZERS[optimizer], SHARES["some none"], x.astype(dtype), t if t.dtype == np.int64 else t.astype(dtype),
        tolerance_of(loss, dtype))


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("options", [
    {}, {"weights": WEIGHTED}, {"clips": (0.01, None)}, {"clips": (None, 0.05)}, {"overlaps": True},
    {"weights": WEIGHTED, "clips": (None, 0.05), "overlaps": True},
], ids=["plain", "weights", "clip_value", "clip_norm", "overlaps", "all"])
@pytest.mark.parametrize("penalties", [(0, 0), (0.1, 0), (0, 0.02), (0.1, 0.02)])
def test_weights_penalties_and_limits_are_those_of_the_whole_batch(each_build, rng, dtype, shares, options, penalties):
    x, targets = data(rng, 37)

    def make():
        network = Network([Affine(20, 17), Sigmoid(), Affine(17, 5)], seed=1, dtype=dtype)
        network.weight_decay_lambda, network.l1_lambda = penalties
        return network

    assert_as_one_process(make, OPTIMIZERS["Momentum"], SHARES[shares], x.astype(dtype), targets[SoftmaxWithLoss],
                          tolerance_of(None, dtype), **options)


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_batch_normalisation_is_that_of_the_whole_batch(each_build, rng, dtype, shares, clip_norm):
    x, targets = data(rng, 37)
    x = x * np.geomspace(0.1, 10, 20) + np.linspace(-30, 30, 20)
    assert_as_one_process(
        lambda: Network([BatchNormalization(20), Affine(20, 33), Tanh(), BatchNormalization(33), Affine(33, 5)],
                        seed=1, dtype=dtype),   # tanh, for without it the gradient of the bias is nothing but rounding
        OPTIMIZERS["Momentum"], SHARES[shares], x.astype(dtype), targets[SoftmaxWithLoss], tolerance_of(None, dtype),
        clips=(None, clip_norm))


def test_an_optimizer_that_adapts_has_states_of_gamma_and_beta(each_build, rng, dtype):
    x, targets = data(rng, 37)
    assert_as_one_process(
        lambda: Network([Affine(20, 9), Relu(), BatchNormalization(9), Affine(9, 5)], seed=1, dtype=dtype),
        OPTIMIZERS["AdamW"], SHARES["some none"], x.astype(dtype), targets[SoftmaxWithLoss], tolerance_of(None, dtype))


def test_a_network_of_nothing_but_batch_normalisation_is_trained(each_build, rng, dtype):
    x, targets = data(rng, 37, inputs=5)
    assert_as_one_process(
        lambda: Network([BatchNormalization(5)], IdentityWithLoss(), seed=1, dtype=dtype),
        OPTIMIZERS["Adam"], SHARES["some none"], x.astype(dtype), targets[None].astype(dtype), tolerance_of(None, dtype),
        overlaps=True)


@pytest.mark.parametrize("overlaps", [False, True])
def test_all_layers_pass_on_what_the_whole_batch_gives(each_build, rng, dtype, overlaps):
    x, targets = data(rng, 37)
    assert_as_one_process(
        lambda: Network(
            [Rescale(0.5, np.linspace(0, 1, 20)), Dropout(0.1), Affine(20, 33), Relu(), BatchNormalization(33),
             Affine(33, 18), Gelu(), LeakyRelu(0.1), Dropout(0.2), Identity(), Affine(18, 5), Sigmoid()],
            SigmoidWithLoss(), seed=1, dtype=dtype),
        OPTIMIZERS["Momentum"], SHARES["some none"], x.astype(dtype), targets[None].astype(dtype),
        tolerance_of(None, dtype), overlaps=overlaps)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 15, 16, 17, 63, 64, 65])
def test_widths_around_those_of_vectors_train_as_in_one_process(each_build, rng, dtype, width):
    x, targets = data(rng, 37, inputs=width)
    assert_as_one_process(
        lambda: Network([Affine(width, width), Tanh(), BatchNormalization(width), Affine(width, 5)], seed=1, dtype=dtype),
        OPTIMIZERS["Momentum"], SHARES["unlike"], x.astype(dtype), targets[SoftmaxWithLoss], tolerance_of(None, dtype),
        clips=(None, 0.1))


@pytest.mark.parametrize("batch", [64, 600])
def test_large_batches_of_many_threads_train_as_in_one_process(each_build, monkeypatch, rng, dtype, batch):
    """More rows than one pass of an update takes, more columns than one group of panels, and a rank that has few."""
    with_threads(monkeypatch, 2)
    shares = np.array([[batch - 3, 3], [batch - 3, 3]])
    x, targets = data(rng, 2 * batch, inputs=70)
    assert_as_one_process(
        lambda: Network([Affine(70, 300), Relu(), BatchNormalization(300), Affine(300, 5)], seed=1, dtype=dtype),
        OPTIMIZERS["SGD"], shares, x.astype(dtype), targets[SoftmaxWithLoss], 10 * tolerance_of(None, dtype))


def test_masks_of_numpy_are_those_of_the_whole_batch(each_build, monkeypatch, rng, dtype):
    """Each rank has a numpy.random of its own; all are alike."""
    import threading

    own = threading.local()

    def state():
        if not hasattr(own, "state"):
            own.state = np.random.RandomState(5)
        return own.state

    monkeypatch.setattr(np.random, "rand", lambda *shape: state().rand(*shape))
    monkeypatch.setattr(np.random, "get_state", lambda: state().get_state())
    monkeypatch.setattr(_plan, "_MASK_BYTES", 300)     # masks of a step or two at a time
    x, targets = data(rng, 37)

    def make():
        network = Network([Affine(20, 9), Relu(), Dropout(0.3), Affine(9, 5)], seed=1, dtype=dtype)
        network.layers["Dropout1"].generator = None
        return network

    assert_as_one_process(make, OPTIMIZERS["SGD"], SHARES["some none"], x.astype(dtype), targets[SoftmaxWithLoss],
                          tolerance_of(None, dtype))


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shares", ["one rank", "unlike"])
def test_the_bits_do_not_depend_on_threads(each_build, monkeypatch, rng, dtype, threads, overlaps, shares):
    x, targets = data(rng, 37)

    def make():
        network = Network([Affine(20, 65), Relu(), BatchNormalization(65), Dropout(0.2), Affine(65, 5)], seed=1, dtype=dtype)
        network.weight_decay_lambda = network.l1_lambda = 0.01
        return network

    arguments = make, OPTIMIZERS["Adam"], SHARES[shares], x.astype(dtype), targets[SoftmaxWithLoss]
    with monkeypatch.context() as patch:
        with_threads(patch, 1)
        expected = divided(*arguments, clips=(None, 0.1))[0]
    with_threads(monkeypatch, threads)
    # All ranks are in this process, where one team runs at a time: whoever comes second has one thread.
    found = divided(*arguments, clips=(None, 0.1), overlaps=overlaps)
    assert_ranks_agree(found)
    assert found[0].result == expected.result
    for name, value in kept(expected.network, expected.optimizer).items():
        assert np.array_equal(kept(found[0].network, found[0].optimizer)[name], value), name


def test_a_rank_permutes_its_own_rows_by_a_number_that_all_draw(rng, dtype):
    x, targets = data(rng, 37)
    shares, t = SHARES["some none"], targets[SoftmaxWithLoss]

    def make():
        return Network([Affine(20, 9), Relu(), Dropout(0.3), Affine(9, 5)], seed=1, dtype=dtype)

    found = divided(make, OPTIMIZERS["SGD"], shares, x.astype(dtype), t, shuffle=True)
    assert_ranks_agree(found)
    network, optimizer = make(), OPTIMIZERS["SGD"]()
    group = Group(shares)
    firsts = shares.cumsum(axis=0) - shares
    for result in found[0].result:
        number = int(network.generator.integers(1 << 64, dtype=np.uint64))
        orders = [rows[np.random.Generator(np.random.PCG64([number, rank])).permutation(len(rows))]
                  for rank, rows in enumerate(group.rows())]
        order = np.concatenate([orders[rank][firsts[step, rank] :][: shares[step, rank]]
                                for step in range(len(shares)) for rank in range(group.size)])
        assert sorted(order) == list(range(37))
        ((loss, *others),) = _plan.Plan(network, optimizer, 10).train(x[order].astype(dtype), t[order], 1, False, 1, id)
        assert result[0] == pytest.approx(loss, rel=tolerance_of(None, dtype))
        assert list(result[1:]) == others
    assert_alike(kept(found[0].network, found[0].optimizer), kept(network, optimizer), tolerance_of(None, dtype))


# What is summed

def test_gradients_lie_side_by_side_with_those_of_the_last_layer_first(rng, dtype):
    x, targets = data(rng, 37)
    (own, _) = divided(lambda: Network([Affine(20, 33), Relu(), Affine(33, 5)], seed=1, dtype=dtype), OPTIMIZERS["SGD"],
                       SHARES["alike"], x.astype(dtype), targets[SoftmaxWithLoss], epochs=1)
    plan = own.plan
    updates = [one for one in plan._layout.operations
               if one["code"] == plan._kernels.OPERATION_CODES["UPDATE"]]
    ends = [plan._layout.gradients]
    for update, (inputs, outputs) in zip(updates, [(33, 5), (20, 33)], strict=True):
        padded = plan._layout.padded(outputs)
        assert (update["inputs"], update["outputs"]) == (inputs, outputs)
        assert 0 <= update["gradient"] - ends[-1] < 16
        assert 0 <= update["bias_gradient"] - (update["gradient"] + inputs * padded) < 16
        assert update["gradient"] % 16 == update["bias_gradient"] % 16 == 0
        ends.append(update["bias_gradient"] + padded)
    (_, summed), = plan._places
    assert summed.size == -(-(ends[-1] - ends[0]) // 16) * 16 + _layout.SIGNALS
    assert summed.ctypes.data == plan._arena[ends[0] :].ctypes.data
    assert own.ranks.sums[:4] == 4 * [(summed.size, dtype.name)]
    # All but the parameters' own elements, the totals and two answers, is 0: also after the sum.
    in_places = np.count_nonzero(summed)
    assert 0 < in_places <= 20 * 33 + 33 + 33 * 5 + 5


def test_with_overlap_each_layer_is_summed_as_soon_as_its_gradient_is_known(rng, dtype):
    x, targets = data(rng, 37)
    def make():
        return Network([Affine(20, 33), Relu(), Affine(33, 9), Relu(), Affine(9, 5)], seed=1, dtype=dtype)

    found = divided(make, OPTIMIZERS["SGD"], SHARES["alike"], x.astype(dtype), targets[SoftmaxWithLoss], epochs=1,
                    overlaps=True)
    assert_ranks_agree(found)
    sizes = [array.size for _, array in found[0].plan._places]
    padded = found[0].plan._layout.padded
    assert len(sizes) == 3
    for size, (inputs, outputs), room in zip(sizes, [(9, 5), (33, 9), (20, 33)], [0, 0, _layout.SIGNALS], strict=True):
        assert 0 <= size - room - (inputs + 1) * padded(outputs) < 32
    assert [size for size, _ in found[0].ranks.sums[:12]] == 4 * sizes


# Stopping

def network_of(dtype):
    """With all kinds of sums, and nothing that is drawn."""
    return Network([BatchNormalization(20), Affine(20, 9), Relu(), Affine(9, 5)], seed=1, dtype=dtype)


def assert_untouched(found, dtype, make=network_of):
    """As before, but that the optimiser may have states, which are 0."""
    for own in found:
        network, optimizer = make(dtype), type(own.optimizer)()
        optimizer.states(network.params)
        own.optimizer.states(own.network.params)
        assert_kept_alike(own, SimpleNamespace(network=network, optimizer=optimizer))


def assert_kept_alike(own, expected):
    assert generator_state(own.network) == generator_state(expected.network)
    one = kept(own.network, own.optimizer)
    for name, value in kept(expected.network, expected.optimizer).items():
        assert np.array_equal(one[name], value), name


@pytest.mark.parametrize("make", [
    network_of, lambda dtype: Network([Affine(20, 5)], seed=1, dtype=dtype),
    # Nothing gets through, so that the loss is finite.
    lambda dtype: Network([Affine(20, 6), Dropout(1.0), BatchNormalization(6), Affine(6, 5)], seed=1, dtype=dtype),
], ids=["normalised", "plain", "with masks of zeros"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_data_that_are_not_finite_stop_all_ranks(each_build, rng, dtype, make, bad):
    """Also where another rank has none of the batch, and a sum comes between the data and the loss."""
    x, targets = data(rng, 37)
    x[Group(SHARES["some none"]).rows()[1][1], 3] = bad     # of 8 rows, the second
    found = divided(lambda: make(dtype), Adam, SHARES["some none"], x.astype(dtype), targets[SoftmaxWithLoss])
    assert isinstance(found[1].result, ValueError)
    message = "x contains NaN or infinity (first at row 1, column 3)"
    assert str(found[1].result) == message
    for other in (0, 2):
        assert isinstance(found[other].result, RuntimeError)
        assert str(found[other].result) == f"rank 1: ValueError: {message}"
    assert_untouched(found, dtype, make)


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_at_its_step(each_build, rng, dtype):
    x, targets = data(rng, 37)
    x = x.astype(dtype)
    # Batch 3 of the first epoch: finite, but not its products.
    x[Group(SHARES["alike"]).rows()[1][12]] = np.finfo(dtype).max
    found = divided(lambda: Network([Affine(20, 5)], IdentityWithLoss(), seed=1, dtype=dtype), Adam, SHARES["alike"], x,
                    targets[None].astype(dtype))
    assert isinstance(found[1].result, FloatingPointError)
    assert "epoch 1, step 3" in str(found[1].result)
    assert isinstance(found[0].result, RuntimeError)
    assert str(found[0].result) == f"rank 1: FloatingPointError: {found[1].result}"
    assert_untouched(found, dtype, lambda dtype: Network([Affine(20, 5)], IdentityWithLoss(), seed=1, dtype=dtype))


def test_weights_that_are_not_finite_are_each_rank_s_own_error(each_build, rng, dtype):
    x, targets = data(rng, 37)
    def make(dtype):
        return Network([Affine(20, 5)], seed=1, dtype=dtype)

    found = divided(lambda: make(dtype), lambda: SGD(1e308), np.array([[20, 17]]), 1000 * x.astype(dtype),
                    targets[SoftmaxWithLoss])
    for own in found:
        assert isinstance(own.result, FloatingPointError), own.result
        assert "epoch 1" in str(own.result)
    assert_untouched(found, dtype, make)


def fails_at(number, kernels):
    """Kernels of which one fails at the end of its so manieth call."""
    def advance(*arguments):
        nonlocal number
        number -= 1
        place = kernels.advance(*arguments)
        if number < 0:
            raise MemoryError("no room")
        return place

    return SimpleNamespace(**{**vars(kernels), "advance": advance})


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("weights", [_plan.NO_WEIGHTS, WEIGHTED], ids=["plain", "weights"])
def test_a_rank_that_fails_anywhere_stops_all_with_the_last_epoch_s_weights(rng, dtype, weights, overlaps):
    """Each sum of two epochs in turn is the one that it does not take part in as it should."""
    x, targets = data(rng, 37)
    arguments = (lambda: network_of(dtype)), Adam, SHARES["some none"], x.astype(dtype), targets[SoftmaxWithLoss]
    after = [divided(*arguments, weights=weights, epochs=epochs, overlaps=overlaps) for epochs in (1, 2)]
    in_a_step = len(after[0][0].plan._places)
    assert in_a_step == (3 + 2 if overlaps else 3 + 1)
    for number in range(2 * 4 * in_a_step + 1):
        def options(own, number=number):
            if own.ranks.rank == 1:
                own.plan._kernels = fails_at(number, own.plan._kernels)
            return {}

        found = divided(*arguments, weights=weights, overlaps=overlaps, options=options)
        assert isinstance(found[1].result, MemoryError)
        for other in (0, 2):
            assert isinstance(found[other].result, RuntimeError)
            assert str(found[other].result) == "rank 1: MemoryError: no room"
        epochs = number // (4 * in_a_step)
        if epochs == 0:
            assert_untouched(found, dtype)
        else:
            for own, expected in zip(found, after[epochs - 1], strict=True):
                assert_kept_alike(own, expected)


def test_a_rank_that_fails_as_the_time_is_over_stops_all(rng, dtype):
    """It and the others are at different sums: it has not told what its steps gave."""
    x, targets = data(rng, 37)

    def options(own):
        if own.ranks.rank == 1:
            own.plan._kernels = fails_at(4, own.plan._kernels)      # three sums of batch normalisation, gradients
        return {"deadline": 0.0 if own.ranks.rank == 0 else math.inf}

    found = divided(lambda: network_of(dtype), Adam, SHARES["some none"], x.astype(dtype), targets[SoftmaxWithLoss],
                    options=options)
    assert isinstance(found[1].result, MemoryError)
    for other in (0, 2):
        assert str(found[other].result) == "rank 1: MemoryError: no room"
    assert_untouched(found, dtype)


def test_a_rank_that_fails_after_the_last_sum_leaves_it_to_the_caller_to_tell(rng, dtype):
    """The others have got all that they need, and wait for nobody here."""
    x, targets = data(rng, 37)

    def options(own):
        if own.ranks.rank == 1:
            def fails(memory, updates):
                del own.plan._store     # putting everything in order works
                raise MemoryError("no room")

            own.plan._store = fails
        return {}

    found = divided(lambda: network_of(dtype), Adam, SHARES["some none"], x.astype(dtype), targets[SoftmaxWithLoss],
                    options=options)
    assert isinstance(found[1].result, MemoryError)
    assert not any(own.ranks.has_failed for own in found)
    assert found[0].result == found[2].result
    assert len(found[0].result) == 2


@pytest.mark.parametrize("weights", [_plan.NO_WEIGHTS, WEIGHTED], ids=["plain", "weights"])
def test_a_rank_that_fails_before_the_first_step_stops_all(rng, dtype, weights):
    x, targets = data(rng, 37)

    def options(own):
        if own.ranks.rank == 2:
            own.ranks.order = lambda number, rows: 1 / 0
        return {}

    found = divided(lambda: network_of(dtype), Adam, SHARES["some none"], x.astype(dtype), targets[SoftmaxWithLoss],
                    shuffle=True, weights=weights, options=options)
    assert isinstance(found[2].result, ZeroDivisionError)
    for other in (0, 1):
        assert str(found[other].result) == "rank 2: ZeroDivisionError: division by zero"
    assert_untouched(found, dtype)


def test_a_step_s_watcher_hears_the_loss_of_the_whole_batch(each_build, rng, dtype):
    x, targets = data(rng, 37)
    arguments = (lambda: network_of(dtype)), Adam, SHARES["some none"], x.astype(dtype), targets[SoftmaxWithLoss]
    heard, expected = [[], [], []], []
    found = divided(*arguments, weights=WEIGHTED, epochs=1, options=lambda own: {
        "watch": lambda step, loss: heard[own.ranks.rank].append((step, loss))})
    one = in_one_process(*arguments, weights=WEIGHTED, epochs=1,
                         watch=lambda step, loss: expected.append((step, loss)))
    assert heard[0] == heard[1] == heard[2]
    assert [step for step, _ in heard[0]] == [1, 2, 3, 4]
    np.testing.assert_allclose(heard[0], expected, rtol=10 * tolerance_of(None, dtype))
    assert_ranks_agree(found)
    assert_alike(kept(found[0].network, found[0].optimizer), kept(one.network, one.optimizer), tolerance_of(None, dtype))


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_watcher_on_any_rank_stops_all_after_its_step(rng, dtype, rank):
    x, targets = data(rng, 37)
    arguments = (lambda: network_of(dtype)), Adam, SHARES["some none"], x.astype(dtype), targets[SoftmaxWithLoss]
    found = divided(*arguments, epochs=1, options=lambda own: {
        "watch": lambda step, loss: own.ranks.rank == rank and step == 2})
    assert_ranks_agree(found)
    ((_, weight, _, rows),) = found[0].result
    assert (weight, rows, found[0].optimizer.iter) == (20, 20, 2)


def test_a_watcher_that_raises_stops_all(rng, dtype):
    x, targets = data(rng, 37)

    def watch(own, step):
        if own.ranks.rank == 1 and step == 2:
            raise KeyError("of the watcher")

    found = divided(lambda: network_of(dtype), Adam, SHARES["some none"], x.astype(dtype), targets[SoftmaxWithLoss],
                    epochs=1, options=lambda own: {"watch": lambda step, loss: watch(own, step)})
    assert isinstance(found[1].result, KeyError)
    for other in (0, 2):
        assert str(found[other].result) == "rank 1: KeyError: 'of the watcher'"
    assert_untouched(found, dtype)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_all_stop_when_the_time_of_one_rank_is_over(rng, dtype, rank):
    x, targets = data(rng, 37)
    found = divided(
        lambda: network_of(dtype), Adam, SHARES["some none"], x.astype(dtype), targets[SoftmaxWithLoss], epochs=3,
        options=lambda own: {"deadline": time.perf_counter() - 1 if own.ranks.rank == rank else math.inf})
    assert_ranks_agree(found)
    ((_, weight, _, rows),) = found[0].result
    assert (weight, rows, found[0].optimizer.iter) == (10, 10, 1)


class Saver:
    """Due after each step, until it has been so often."""

    def __init__(self, times, error=None):
        self.due, self.times, self.error, self.saved = 0.0, times, error, []

    def within(self, step, loss, correct):
        if self.error is not None:
            raise self.error
        self.saved.append((step, loss, correct))
        if len(self.saved) == self.times:
            self.due = math.inf


def test_the_first_rank_keeps_an_epoch_that_all_can_go_on_with(rng, dtype):
    x, targets = data(rng, 37)
    arguments = (lambda: network_of(dtype)), Adam, SHARES["some none"], x.astype(dtype), targets[SoftmaxWithLoss]
    uninterrupted = divided(*arguments, epochs=1)
    saver = Saver(2)
    saved = divided(*arguments, epochs=1, options=lambda own: {"saver": saver if own.ranks.rank == 0 else None})
    for own, expected in zip(saved, uninterrupted, strict=True):
        assert own.result == expected.result
        assert_kept_alike(own, expected)
    assert [step for step, _, _ in saver.saved] == [1, 2]
    totals = saved[0].plan._totals.size, "float64"
    assert saved[0].ranks.sums.count(totals) == 3   # nobody stops in between once it is not due any more
    heard = []
    in_one_process(*arguments, epochs=1, watch=lambda step, loss: heard.append(10 * loss))
    np.testing.assert_allclose([loss for _, loss, _ in saver.saved], np.cumsum(heard)[:2],
                               rtol=10 * tolerance_of(None, dtype))
    stopped = divided(*arguments, epochs=1, options=lambda own: {"watch": lambda step, loss: step == 2})
    step, loss, correct = saver.saved[1]
    remaining = [own.network for own in stopped], [own.optimizer for own in stopped]
    went_on = divided(
        lambda: remaining[0].pop(0), lambda: remaining[1].pop(0), *arguments[2:], epochs=1,
        options=lambda own: {"begun": _plan.Begun(step, loss, correct)})
    for own, expected in zip(went_on, uninterrupted, strict=True):
        assert_kept_alike(own, expected)
        assert own.result[0][0] == pytest.approx(expected.result[0][0], rel=1e-14)
        assert own.result[0][1:] == expected.result[0][1:]


def test_a_file_that_cannot_be_written_stops_all(rng, dtype):
    x, targets = data(rng, 37)
    found = divided(
        lambda: network_of(dtype), Adam, SHARES["some none"], x.astype(dtype), targets[SoftmaxWithLoss], epochs=1,
        options=lambda own: {"saver": Saver(1, OSError("disk full")) if own.ranks.rank == 0 else None})
    assert isinstance(found[0].result, OSError)
    for other in (1, 2):
        assert str(found[other].result) == "rank 0: OSError: disk full"
    assert_untouched(found, dtype)


def test_steps_are_told_as_they_are_taken(monkeypatch, rng, dtype):
    back_after(monkeypatch, 0.0)
    x, targets = data(rng, 37)
    heard = [[], [], []]
    found = divided(lambda: network_of(dtype), Adam, SHARES["some none"], x.astype(dtype), targets[SoftmaxWithLoss],
                    options=lambda own: {"told": heard[own.ranks.rank].append})
    assert_ranks_agree(found)
    assert heard == 3 * [8 * [1]]


def test_steps_that_ranks_divide_are_not_trained_as_a_whole_nor_others_in_parts(monkeypatch, rng, dtype):
    """Nor are those that are over."""
    x, targets = data(rng, 37)
    prepared = []

    def noted(plan, *arguments, original=_plan.PlanBase._prepare):
        prepared.append(original(plan, *arguments))
        return prepared[-1]

    monkeypatch.setattr(_plan.PlanBase, "_prepare", noted)
    arguments = (lambda: network_of(dtype)), Adam, SHARES["one rank"], x.astype(dtype), targets[SoftmaxWithLoss]
    (own,) = divided(*arguments)
    in_one_process(*arguments)
    parts, whole = prepared
    kernels = own.plan._kernels
    for steps in parts, whole:
        with pytest.raises(ValueError, match="no step is left"):
            kernels.advance(steps, 1)
    monkeypatch.setattr(_ranked_plan.RankedPlan, "_take", lambda plan, turn, threads: kernels.train(turn.steps, 1.0, 1))
    monkeypatch.setattr(_plan.Plan, "_take", lambda plan, turn, threads: kernels.advance(turn.steps, 1))
    with pytest.raises(ValueError, match="ranks divide these batches, or do not"):
        in_one_process(*arguments)
    (own,) = divided(*arguments)
    assert str(own.result) == "ranks divide these batches, or do not"
