"""What ranks say to each other: nobody waits for one that has failed, wherever that was; and how they share batches."""

import signal
import sys
import threading
from types import ModuleType

import numpy as np
import pytest
from ranks_in_threads import signalled, together

from nnfast import _ranks, _ranks_validation, _shares
from nnfast._ranks import SIGNALS, OtherRankError

# Shares of batches


def shards(rng, times):
    """Numbers of rows by rank, and batch sizes: few rows, many ranks, and one rank with nearly all."""
    for _ in range(times):
        rows = rng.integers(1, rng.choice([2, 3, 6, 30]), rng.integers(1, 10))
        if rng.random() < 0.3:
            rows[rng.integers(len(rows))] = rng.integers(1, 300)
        yield rows, int(rng.integers(1, rows.sum() + 1))
    yield np.array([1, 1000]), 10
    yield np.array([1000, 1]), 1001
    yield np.full(50, 7), 50


def test_each_batch_is_whole_but_the_last_and_each_row_is_used_once(rng):
    for rows, batch_size in shards(rng, 500):
        shares = _shares.table(rows, batch_size)
        assert shares.dtype == np.int64
        assert shares.min() >= 0
        assert (shares.sum(0) == rows).all()
        sizes = shares.sum(1)
        assert (sizes[:-1] == batch_size).all()
        assert 0 < sizes[-1] <= batch_size


def test_after_each_step_a_rank_is_less_than_one_row_off_its_part(rng):
    for rows, batch_size in shards(rng, 500):
        taken = _shares.table(rows, batch_size).cumsum(0)
        of_all = taken.sum(1, keepdims=True)
        assert (abs(taken * rows.sum() - of_all * rows) < rows.sum()).all(), (rows, batch_size)


def test_equal_shards_of_whole_batches_are_shared_equally():
    assert (_shares.table([600, 600, 600], 90) == 30).all()


def test_an_order_is_a_permutation_and_differs_by_rank_and_by_epoch():
    orders = [_shares.order(number, rank, 50) for number in (0, 1, 2**64 - 1) for rank in (0, 1)]
    for order in orders:
        assert (np.sort(order) == np.arange(50)).all()
    assert len({order.tobytes() for order in orders}) == len(orders)
    expected = np.random.Generator(np.random.PCG64([2**64 - 1, 1])).permutation(50)
    assert (orders[-1] == expected).all()


# Meetings


def test_each_rank_hears_what_each_has_to_say_and_what_the_first_one_gives():
    def program(ranks):
        return ranks.rank, ranks.size, ranks.meet(10 * ranks.rank), ranks.given_by_first(str(ranks.rank))

    assert together(3, program) == [(rank, 3, [0, 10, 20], "0") for rank in range(3)]


def test_arrays_are_summed_over_ranks_in_place_and_signals_stay_the_callers(dtype):
    def program(ranks):
        array = signalled(5, dtype)
        array[:5] *= ranks.rank + 1
        array[-SIGNALS:] = 7
        piece = np.full(3, ranks.rank + 1, dtype)
        ranks.start_sum(piece)
        ranks.sum_gradients(array)
        return array.tolist(), piece.tolist()

    assert together(3, program) == [([6] * 5 + [0, 21, 21, 21], [6] * 3)] * 3


STEPS = 3


def fit_like(ranks, fails):
    """Meetings as a fit has them; fails(rank, place) may raise. Sums of a step are of different sizes."""
    fails(ranks.rank, "checks")
    ranks.meet("facts")
    fails(ranks.rank, "begins")
    for epoch in range(2):
        with ranks.steps():
            place = 0
            sums = [(6, np.float64), (9, np.float32)] * STEPS
            try:
                for place in range(len(sums)):
                    fails(ranks.rank, f"sum {epoch} {place}")
                    ranks.sum_gradients(signalled(*sums[place]))
                place = -1
            except BaseException as error:
                ranks.fail(error, signalled(*sums[place]))
                raise
        fails(ranks.rank, f"told {epoch}")
        ranks.meet("epoch")
        fails(ranks.rank, f"ends {epoch}")
    return "done"


PLACES = ["checks", "begins", *(f"sum {epoch} {place}" for epoch in range(2) for place in range(2 * STEPS)),
          "told 0", "told 1", "ends 0", "ends 1"]


def failing(places, error=ValueError):
    def fails(rank, place):
        if places.get(rank) == place:
            raise error(f"wrong at {place}")

    return fails


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("failing_rank", [0, 2])
def test_wherever_a_rank_fails_it_raises_its_error_and_the_others_name_it(place, failing_rank):
    found = together(3, lambda ranks: fit_like(ranks, failing({failing_rank: place})))
    for rank, error in enumerate(found):
        if rank == failing_rank:
            assert isinstance(error, ValueError)
            assert str(error) == f"wrong at {place}"
        else:
            assert isinstance(error, OtherRankError)
            assert str(error) == (
                f"the fit has ended on all ranks, for rank {failing_rank} raised ValueError: wrong at {place}")


def test_no_failure_no_error():
    assert together(3, lambda ranks: fit_like(ranks, failing({}))) == ["done"] * 3


@pytest.mark.parametrize("place", ["checks", "sum 0 1", "ends 1"])
def test_ranks_that_fail_in_the_same_place_each_raise_their_own_error(place):
    found = together(3, lambda ranks: fit_like(ranks, failing({0: place, 2: place}, IndexError)))
    assert [type(error) for error in found] == [IndexError, OtherRankError, IndexError]
    assert "rank 0 raised IndexError: wrong at" in str(found[1])
    assert str(found[1]).endswith("(and 1 more rank has failed)")


def test_ranks_that_fail_in_different_places_all_end():
    """The second one hears of the first before it comes to its own place, or fails on the way to the same meeting."""
    for first, second in [("sum 0 2", "sum 0 3"), ("told 0", "ends 0"), ("sum 0 5", "told 0")]:
        found = together(2, lambda ranks, first=first, second=second: fit_like(ranks, failing({0: first, 1: second})))
        assert isinstance(found[0], ValueError)
        assert isinstance(found[1], OtherRankError)


def test_an_interrupt_is_told_as_such_and_an_error_without_words_by_its_kind():
    found = together(2, lambda ranks: fit_like(ranks, failing({1: "told 0"}, lambda text: KeyboardInterrupt())))
    assert isinstance(found[1], KeyboardInterrupt)
    assert str(found[0]).endswith("for rank 1 was interrupted")
    found = together(2, lambda ranks: fit_like(ranks, failing({1: "told 0"}, lambda text: MemoryError())))
    assert str(found[0]).endswith("for rank 1 raised MemoryError")


def test_numbers_that_are_not_finite_give_way_to_what_is_wrong_on_another_rank():
    """Its NaN may have come with the sums."""
    def fails(rank, place):
        if place == "sum 0 1":
            raise (FloatingPointError, FloatingPointError, ValueError)[rank]("wrong")

    first, second, third = together(3, lambda ranks: fit_like(ranks, fails))
    assert isinstance(third, ValueError)
    for error in (first, second):
        assert isinstance(error, OtherRankError)
        assert str(error) == (
            "the fit has ended on all ranks, for rank 2 raised ValueError: wrong (and 2 more ranks have failed)")
        assert isinstance(error.__cause__, FloatingPointError)


def test_what_all_ranks_refuse_is_raised_without_another_meeting():
    def program(ranks):
        ranks.meet(None)
        ranks.refuse(ValueError("not alike"))

    assert [str(error) for error in together(2, program)] == ["not alike"] * 2


def test_a_rank_that_has_lost_the_others_says_nothing_more():
    def program(ranks):
        ranks._comm.is_lost = True
        with pytest.raises(RuntimeError, match=r"rank . has lost the other ranks, so the fit has ended: somebody is gone"):
            ranks.meet(None)
        assert ranks.has_failed
        raise KeyError("the caller's")

    assert [type(error) for error in together(2, program)] == [KeyError] * 2


# Ctrl-C, which a thread cannot be sent: what the handler does is called


def pressed(ranks):
    def hears(number, frame):
        raise KeyboardInterrupt

    ranks._hears = hears
    ranks._note(signal.SIGINT, None)


@pytest.fixture
def keeps_sigint():
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def without_handler(ranks):
    """So that nothing is put back in the end, which only the main thread may do."""
    ranks._hears = None


def test_ctrl_c_during_steps_is_told_in_the_next_sum():
    def program(ranks):
        sums = []
        try:
            with ranks.steps():
                for step in range(5):
                    if (ranks.rank, step) == (1, 2):
                        pressed(ranks)
                    ranks.sum_gradients(signalled(4))
                    sums.append(step)
        finally:
            without_handler(ranks)
            assert sums == [0, 1]
            assert ranks.has_failed

    first, second = together(2, program)
    assert isinstance(second, KeyboardInterrupt)
    assert str(first).endswith("for rank 1 was interrupted")


def test_ctrl_c_after_the_last_sum_of_steps_is_told_in_the_meeting_after_them():
    def program(ranks):
        try:
            with ranks.steps():
                ranks.sum_gradients(signalled(4))
                if ranks.rank == 1:
                    pressed(ranks)
            went_on.append(ranks.rank)
            ranks.meet(None)
        finally:
            without_handler(ranks)

    went_on = []
    first, second = together(2, program)
    assert went_on == [0]
    assert isinstance(second, KeyboardInterrupt)
    assert str(first).endswith("for rank 1 was interrupted")


def test_ctrl_c_between_meetings_is_heard_at_once():
    def program(ranks):
        if ranks.rank == 0:
            try:
                with pytest.raises(KeyboardInterrupt):
                    pressed(ranks)
            finally:
                without_handler(ranks)
        return ranks.meet(None)

    assert together(2, program) == [[None, None]] * 2


def test_ctrl_c_while_a_context_is_left_is_heard_and_told():
    def program(ranks):
        if ranks.rank == 0:
            ranks._waits = True
            pressed(ranks)
            ranks._hear_as_before = lambda: None

    first, second = together(2, program)
    assert isinstance(first, KeyboardInterrupt)
    assert str(second).endswith("for rank 0 was interrupted")


def test_a_handler_that_raises_nothing_ends_nothing():
    heard = []

    def program(ranks):
        with ranks.steps():
            if ranks.rank == 0:
                ranks._hears = lambda number, frame: heard.append(number)
                ranks._note(signal.SIGINT, None)
            ranks.sum_gradients(signalled(4))
        without_handler(ranks)
        return "done"

    assert together(2, program) == ["done"] * 2
    assert heard == [signal.SIGINT]


# What is no communicator


class FakeComm:
    pass


class FakeIntracomm(FakeComm):
    size, rank = 2, 0


class FakeIntercomm(FakeComm):
    size, rank = 2, 0


@pytest.fixture
def fake_mpi(monkeypatch):
    """As if mpi4py were there."""
    mpi = ModuleType("mpi4py.MPI")
    mpi.Comm, mpi.Intracomm, mpi.COMM_NULL = FakeComm, FakeIntracomm, FakeIntracomm()
    mpi.is_over = False
    mpi.Is_finalized = lambda: mpi.is_over
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", mpi)
    return mpi


def test_what_is_no_communicator_of_ranks_is_refused(fake_mpi):
    with pytest.raises(TypeError, match=r"comm is 3, but must be a communicator of mpi4py, such as MPI.COMM_WORLD"):
        _ranks.of(3)
    with pytest.raises(ValueError, match=r"comm is MPI.COMM_NULL: a process that is not in a communicator"):
        _ranks.of(fake_mpi.COMM_NULL)
    with pytest.raises(TypeError, match="comm is an FakeIntercomm, whose two groups cannot train together"):
        _ranks.of(FakeIntercomm())
    assert _ranks.of(FakeIntracomm()).size == 2
    fake_mpi.is_over = True
    with pytest.raises(ValueError, match="but MPI has been finalized"):
        _ranks.of(FakeIntracomm())


def test_without_mpi4py_one_sentence_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r'comm needs mpi4py: pip install "nnfast\[mpi\]"'):
        _ranks.of(FakeComm())


def test_where_mpi_was_never_imported_nothing_is_its_communicator(monkeypatch):
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    monkeypatch.setattr(_ranks_validation.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(TypeError, match="comm is 'world', but must be a communicator"):
        _ranks.of("world")
    assert "mpi4py.MPI" not in sys.modules


# What ranks disagree on


def test_a_disagreement_names_values_and_ranks_and_the_remedy():
    facts = [{"epochs": ("3", "say so"), "batch_size": (size, "give all ranks the same")} for size in ("100", "50", "100")]
    assert _ranks_validation.disagreement(facts) == (
        "batch_size is 100 on ranks 0, 2 but 50 on rank 1: give all ranks the same")
    assert _ranks_validation.disagreement([facts[0]] * 3) is None


def test_of_many_ranks_the_first_are_named():
    assert _ranks_validation.ranks(range(10)) == "ranks 0, 1, 2, 3 and 6 more"
    assert _ranks_validation.ranks([7]) == "rank 7"


def test_threads_other_than_the_main_one_do_not_touch_how_ctrl_c_is_heard(keeps_sigint):
    before = signal.getsignal(signal.SIGINT)

    def program(ranks):
        assert threading.current_thread() is not threading.main_thread()
        assert ranks._hears is None
        return signal.getsignal(signal.SIGINT) is before

    assert together(2, program) == [True, True]


