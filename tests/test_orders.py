"""Orders of rows: those of NumPy's generator, number by number, whoever draws them."""

import threading

import numpy as np
import pytest

from nnfast import _orders

BIT_GENERATORS = (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 255, 256, 257, 258, 511, 512, 513, 514, 1000, 4095, 4097, 70_000)


@pytest.mark.parametrize("kind", BIT_GENERATORS)
@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_orders_are_those_of_permutation_and_the_generator_goes_on_alike(build, kind, epochs):
    ours, theirs = np.random.Generator(kind(5)), np.random.Generator(kind(5))
    for size in SIZES:
        orders, rows = np.full((epochs, size), -1), np.arange(10, 10 + 3 * size, 3)
        build.shuffle(ours.bit_generator, rows, orders)
        for order in orders:
            np.testing.assert_array_equal(order, rows[theirs.permutation(size)], err_msg=f"{size} rows")
        assert ours.integers(1 << 64, dtype=np.uint64) == theirs.integers(1 << 64, dtype=np.uint64)
    assert ours.integers(1 << 20, dtype=np.uint32) == theirs.integers(1 << 20, dtype=np.uint32)


@pytest.mark.parametrize("at_the_end", [False, True])
def test_only_the_orders_are_written_and_the_lock_is_given_back(build, rng, at_the_end):
    from test_guard_pages import fenced  # which skips itself on Windows

    for size in (1, 3, 257):
        orders, _ = fenced(np.zeros((2, size), np.int64), 0, at_the_end)
        rows, _ = fenced(rng.integers(0, 9, size), 0, at_the_end)
        build.shuffle(rng.bit_generator, rows, orders)
        assert (np.sort(orders) == np.sort(rows)).all()
    assert rng.bit_generator.lock.acquire(timeout=0)
    rng.bit_generator.lock.release()


@pytest.mark.parametrize(("rows", "orders", "message"), [
    (np.empty(0, np.int64), np.empty((1, 0), np.int64), "there are no rows, or too many"),
    (np.arange(3), np.empty((1, 4), np.int64), r"orders has shape \(1, 4\), but must have \(1, 3\)"),
    (np.arange(3), np.empty((1, 2), np.int64), r"orders has shape \(1, 2\), but must have \(1, 3\)"),
    (np.frombuffer(bytes(25), np.int64, 3, 1), np.empty((1, 3), np.int64), "not aligned"),
])
def test_what_does_not_fit_is_refused(build, rng, rows, orders, message):
    with pytest.raises(ValueError, match=message):
        build.shuffle(rng.bit_generator, rows, orders)


@pytest.mark.parametrize("given", [None, 3, np.random.default_rng(0)])
def test_what_is_no_bit_generator_is_refused(build, given):
    with pytest.raises(AttributeError, match="lock"):
        build.shuffle(given, np.arange(3), np.empty((1, 3), np.int64))


class Fake:
    """Something that looks like a bit generator."""

    lock, capsule = threading.Lock(), np.random.default_rng


def test_a_capsule_of_something_else_is_refused_and_the_lock_is_given_back(build):
    with pytest.raises(ValueError, match="PyCapsule"):
        build.shuffle(Fake, np.arange(3), np.empty((1, 3), np.int64))
    assert not Fake.lock.locked()


class Reversed(np.random.Generator):
    """A generator of somebody's own."""

    def permutation(self, count):
        return np.arange(count)[::-1]


def test_generators_of_ones_own_and_a_numpy_that_draws_otherwise_are_asked(monkeypatch):
    rows, orders = np.arange(5) + 7, np.empty((2, 5), np.int64)
    _orders.shuffle(Reversed(np.random.PCG64(0)), rows, orders)
    assert orders.tolist() == [[11, 10, 9, 8, 7]] * 2
    _orders.shuffle(np.random.RandomState(3), rows, orders)
    again = np.random.RandomState(3)
    assert orders.tolist() == [rows[again.permutation(5)].tolist() for _ in orders]

    drawn = []
    monkeypatch.setattr(_orders._kernels, "shuffle", lambda bits, rows, orders: drawn.append(bits) or orders.fill(0))
    _orders._are_numpys.cache_clear()
    try:
        assert not _orders._are_numpys()
        _orders.shuffle(np.random.Generator(np.random.PCG64(3)), rows, orders)
    finally:
        _orders._are_numpys.cache_clear()
    again = np.random.default_rng(3)
    assert orders.tolist() == [rows[again.permutation(5)].tolist() for _ in orders]
    assert len(drawn) == 1      # to compare


def test_this_numpy_draws_like_the_compiled_code():
    assert _orders._are_numpys()


def test_kept_memory_is_used_again_by_its_thread_alone():
    first = _orders.empty(2, 3)
    assert not np.shares_memory(first, _orders.empty(2, 3))
    with _orders.kept_memory():
        kept = _orders.empty(2, 300)
        assert kept.shape == (2, 300) and kept.dtype == np.int64 and kept.flags.c_contiguous
        assert np.shares_memory(kept, _orders.empty(3, 5)) and _orders.empty(3, 5).shape == (3, 5)
        assert _orders.empty(4, 0).shape == (4, 0)
        found = []
        other = threading.Thread(target=lambda: found.append(_orders.empty(2, 3)))
        other.start()
        other.join()
        assert not np.shares_memory(kept, found[0])
        larger = _orders.empty(3, 500)
        assert not np.shares_memory(kept, larger) and np.shares_memory(larger, _orders.empty(2, 300))
    assert not np.shares_memory(larger, _orders.empty(2, 3))
