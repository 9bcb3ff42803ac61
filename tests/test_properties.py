"""What holds for every network, tried on random ones: batches and their rows, threads, copies, seeds, parts."""

import copy
import hashlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from test_fit import OPTIMIZERS
from test_inference import TOLERANCE, filled
from test_plan import ACTIVATIONS, LOSSES, with_threads

from nnfast import Affine, BatchNormalization, Dropout, Network, SoftmaxWithLoss

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

FEW, MANY = 16, 64      # rows: below the one, and from the other on, all networks add up in one and the same order
ROWS = st.one_of(st.integers(1, 200), st.sampled_from([1, FEW - 1, FEW, MANY - 1, MANY, 1025]))

pytestmark = pytest.mark.usefixtures("each_build")


@st.composite
def architectures(draw):
    """Widths and layers between them, a loss, a dtype and a seed: what `made` makes a network of."""
    widths = draw(st.lists(st.integers(1, 70), min_size=2, max_size=5))
    between = st.one_of(st.sampled_from(ACTIVATIONS), st.sampled_from([BatchNormalization, Dropout]))
    places = [draw(st.lists(between, max_size=2)) for _ in widths]
    return widths, places, draw(st.sampled_from(LOSSES)), draw(st.sampled_from(["float32", "float64"])), draw(st.integers(0, 9))


def layers_of(architecture):
    """A list of layers for each width."""
    widths, places, *_ = architecture
    groups = [[]]
    for number, (width, place) in enumerate(zip(widths, places, strict=True)):
        if number:
            groups.append([Affine(widths[number - 1], width)])
        groups[-1] += [layer(width) if layer is BatchNormalization else layer() for layer in place]
    return groups


def made(architecture):
    *_, loss, dtype, seed = architecture
    network = Network([layer for group in layers_of(architecture) for layer in group], loss(), seed=seed, dtype=dtype)
    return filled(network, np.random.default_rng(seed))


def data(architecture, rows):
    """Inputs, some of whose columns are 0, and targets."""
    widths, _, loss, dtype, seed = architecture
    generator = np.random.default_rng([seed, rows])
    x = generator.standard_normal((rows, widths[0])) * (generator.random(widths[0]) < 0.8)
    t = generator.integers(0, widths[-1], rows) if loss is SoftmaxWithLoss else generator.random((rows, widths[-1]))
    return x.astype(dtype), t


def for_random_networks(examples=25):
    """Run a test with an architecture and a number of rows."""
    def decorated(test):
        settings = hypothesis.settings(
            max_examples=examples, deadline=None, derandomize=True, database=None,
            suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])    # the build, the same for all
        return settings(hypothesis.given(architecture=architectures(), rows=ROWS)(test))
    return decorated


def bits(arrays):
    return [np.asarray(array).tobytes() for array in arrays]


def assert_rounded(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[found.dtype.name] * max(1, abs(expected).max()))


# Rows

@for_random_networks()
def test_a_row_has_the_same_scores_in_every_batch_but_for_rounding(architecture, rows):
    network, (x, _) = made(architecture), data(architecture, rows)
    scores = network.predict(x)
    assert_rounded(np.concatenate([network.predict(x[row : row + 1]) for row in range(rows)]), scores)
    assert_rounded(network.predict(x[: rows // 2 + 1]), scores[: rows // 2 + 1])


@for_random_networks()
def test_a_row_has_the_same_bits_in_every_batch_of_few_and_in_every_batch_of_many(architecture, rows):
    network, (x, _) = made(architecture), data(architecture, 3 * MANY)
    alone = np.concatenate([network.predict(x[row : row + 1]) for row in range(FEW - 1)])
    few = rows % (FEW - 1) + 1
    np.testing.assert_array_equal(network.predict(x[:few]), alone[:few])
    first = rows % MANY
    np.testing.assert_array_equal(network.predict(x[first : first + MANY + few]), network.predict(x)[first : first + MANY + few])


@for_random_networks()
def test_permuted_rows_have_permuted_scores_to_the_bit(architecture, rows):
    network, (x, _) = made(architecture), data(architecture, rows)
    order = np.random.default_rng(rows).permutation(rows)
    np.testing.assert_array_equal(network.predict(x[order]), network.predict(x)[order])


# Repetition, threads, copies

@for_random_networks()
def test_predict_loss_and_gradient_give_the_same_bits_again_and_with_any_number_of_threads(architecture, rows):
    x, t = data(architecture, rows)
    found = set()
    for threads in (1, 1, 2, 3, 8):
        with pytest.MonkeyPatch.context() as patch:
            with_threads(patch, threads)
            network = made(architecture)
            scores, again, loss = network.predict(x), network.predict(x), network.loss(x, t)
            assert scores.tobytes() == again.tobytes()
            gradients = network.gradient(x, t) if network.params else {}
            found.add((scores.tobytes(), loss, *bits(gradients.values())))
    assert len(found) == 1


@for_random_networks()
def test_fit_gives_the_same_bits_again_and_with_any_number_of_threads(architecture, rows):
    x, t = data(architecture, rows)
    found = set()
    for threads in (1, 1, 2, 3, 8):
        with pytest.MonkeyPatch.context() as patch:
            with_threads(patch, threads)
            network, optimizer = made(architecture), OPTIMIZERS[rows % len(OPTIMIZERS)](1e-3)
            history = network.fit(x, t, epochs=2, batch_size=rows // 2 + 1, optimizer=optimizer)
            found.add((*bits(network.state()), *history.loss))
    assert len(found) == 1


@for_random_networks()
def test_a_copy_predicts_and_learns_to_the_same_bits(architecture, rows):
    network, (x, t) = made(architecture), data(architecture, rows)
    network.fit(x, t, batch_size=rows, optimizer=OPTIMIZERS[0](1e-3))
    twins = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    found = set()
    for one in (network, *twins):
        scores = one.predict(x)
        one.fit(x, t, epochs=2, batch_size=rows // 2 + 1, optimizer=OPTIMIZERS[0](1e-3))
        found.add((scores.tobytes(), *bits(one.state())))
    assert len(found) == 1


# Parts

@for_random_networks()
def test_a_network_in_two_parts_gives_the_same_scores(architecture, rows):
    widths, _, _, dtype, _ = architecture
    hypothesis.assume(len(widths) > 2)
    network, (x, _) = made(architecture), data(architecture, rows)
    layers, groups = list(network.layers.values()), layers_of(architecture)
    count = sum(len(group) for group in groups[:2])     # up to the second Affine
    first, second = (Network(part, dtype=dtype) for part in (layers[:count], layers[count:]))
    parts, scores = second.predict(first.predict(x)), network.predict(x)
    assert_rounded(parts, scores)
    if not FEW <= rows < MANY:      # there the widths decide in which order a network adds up
        np.testing.assert_array_equal(parts, scores)


# Processes

PROGRAM = """
import hashlib
import numpy as np
from nnfast import *

generator = np.random.default_rng(1)
x, t = generator.standard_normal((300, 40)), generator.integers(0, 5, 300)
network = Network([Affine(40, 33), BatchNormalization(33), Gelu(), Dropout(0.3), Affine(33, 5)], seed=7)
network.fit(x, t, epochs=3, batch_size=32, optimizer=Adam())
print(hashlib.sha256(b"".join(array.tobytes() for array in [*network.state(), network.predict(x)])).hexdigest())
"""


def test_a_fit_has_the_same_bits_in_another_process_whatever_its_hash_seed(build):
    found = {
        subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True,
                       env=os.environ | {"PYTHONHASHSEED": seed, "NNFAST_ISA": build.ISA}).stdout
        for seed in ("0", "1", "4000000000")
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 2 * hashlib.sha256().digest_size
