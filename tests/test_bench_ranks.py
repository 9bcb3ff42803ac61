"""The model of ranks is the formula that it says, is made of what was measured, and is compared with measurements."""

import json
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnfast import _ranks

BENCH = Path(__file__).parents[1] / "bench"
if not BENCH.is_dir():
    pytest.skip("the benchmarks are not beside the tests", allow_module_level=True)
sys.path.insert(0, str(BENCH))

import bench_ranks
import cost_of_ranks
import timing
from cost_of_ranks import Arithmetic, Link, Parts

PARTS = Parts(Arithmetic(2e-6, 1e-5), Arithmetic(3e-6, 4e-5), 159_040)
LINK = Link(5e-5, 1.25e8, 1e-10)


@pytest.fixture(autouse=True)
def results(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.parametrize(("ranks", "rounds"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1000, 10)])
def test_an_allreduce_sends_nearly_everything_twice_adds_it_once_and_waits_for_each_round_twice(ranks, rounds):
    part = (ranks - 1) / ranks * 8_000
    expected = 2 * part / 1.25e8 + part * 1e-10 + 2 * rounds * 5e-5
    assert cost_of_ranks.allreduce(ranks, 8_000, LINK) == pytest.approx(expected, rel=1e-12)


def test_a_link_by_the_numbers_that_it_is_sold_by():
    assert cost_of_ranks.ethernet(1, 50, 1e-10) == Link(pytest.approx(5e-5), pytest.approx(1.25e8), 1e-10)


def test_one_rank_reduces_nothing_and_several_take_the_larger_half():
    assert cost_of_ranks.step(1, 101, PARTS, LINK) == pytest.approx(101 * 2e-6 + 1e-5)
    two = 51 * 3e-6 + 4e-5 + cost_of_ranks.allreduce(2, 159_040, LINK)
    assert cost_of_ranks.step(2, 101, PARTS, LINK) == pytest.approx(two)
    assert cost_of_ranks.speedup(2, 101, PARTS, LINK) == pytest.approx((101 * 2e-6 + 1e-5) / two)


@pytest.mark.parametrize("efficiency", [0.3, 0.5, 0.6])
@pytest.mark.parametrize("ranks", [2, 7, 64, 1000])
def test_the_smallest_batch_is_where_the_efficiency_is_reached(ranks, efficiency):
    batch = cost_of_ranks.smallest_batch(ranks, PARTS, LINK, efficiency)
    whole = batch + -batch % ranks      # the same number of rows on each
    assert cost_of_ranks.speedup(ranks, whole, PARTS, LINK) >= efficiency * ranks
    assert cost_of_ranks.speedup(ranks, whole - 2 * ranks, PARTS, LINK) < efficiency * ranks


def test_no_batch_is_large_enough_where_a_row_costs_several_ranks_more_than_can_be_gained():
    assert cost_of_ranks.smallest_batch(8, PARTS, LINK, 2 / 3) == math.inf


def test_arithmetic_is_found_again_and_is_never_negative():
    rows = [50, 200, 1_000, 5_000]
    found = cost_of_ranks.fitted(rows, [2e-6 * count + 3e-5 for count in rows])
    assert (found.a, found.u) == (pytest.approx(2e-6), pytest.approx(3e-5))
    steeper = cost_of_ranks.fitted(rows, [2e-6 * count - 2e-5 for count in rows])
    assert steeper.u == 0 and steeper.a > 0
    flat = cost_of_ranks.fitted(rows, [2e-3 - 1e-9 * count for count in rows])
    assert flat.a == 0 and flat.u > 0


@pytest.mark.parametrize("ranks", [2, 8])
def test_a_link_is_found_again(ranks):
    sizes, link = [4, 10_000, 1_000_000], Link(2e-6, 5e9)
    found = cost_of_ranks.fitted_link(sizes, [cost_of_ranks.allreduce(ranks, size, link) for size in sizes], ranks)
    assert (found.latency, found.bandwidth) == (pytest.approx(2e-6), pytest.approx(5e9))


def test_what_was_measured_is_kept_by_network_and_drawn(results, capsys, tmp_path):
    assert cost_of_ranks.main([]) == 1
    assert "run bench/bench_ranks.py first" in capsys.readouterr().err
    larger = Parts(Arithmetic(1e-4, 1e-3), Arithmetic(1e-4, 2e-3), 8_000_000)
    cost_of_ranks.save({"large": larger}, 3e-10, {"CPU": "one"})
    cost_of_ranks.save({"small": PARTS}, 1e-10, {"CPU": "two"})
    assert cost_of_ranks.load() == ({"small": PARTS, "large": larger}, 1e-10, {"CPU": "two"})
    assert list(cost_of_ranks.load()[0]) == ["small", "large"]
    pytest.importorskip("matplotlib")
    assert cost_of_ranks.main([str(tmp_path / "drawn.png")]) == 0
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    for expected in ("CPU: two", "one rank 2 us a row and 10 us a step; each of several 3 us a row", "1,000 ranks"):
        assert expected in printed


def test_a_pause_is_as_long_as_it_should_be():
    for wished in (5e-5, 3e-3):
        until = time.perf_counter() + wished
        bench_ranks._pause_until(until)
        assert time.perf_counter() >= until


def test_a_link_carries_one_reduction_at_a_time_and_those_that_were_started_beside_the_arithmetic(monkeypatch):
    for name in ("_sum", "start_sum"):
        monkeypatch.setattr(_ranks.Ranks, name, lambda ranks, array: None)
    ranks, array, link = SimpleNamespace(size=2), np.zeros(2_000, np.float32), Link(0, 8_000 / 0.02)    # 20 ms each
    with bench_ranks._Clocked(link) as sums:
        begun = time.perf_counter()
        _ranks.Ranks.start_sum(ranks, array)
        time.sleep(0.01)
        _ranks.Ranks._sum(ranks, array)
        ended = time.perf_counter()
        _ranks.Ranks._sum(ranks, array)
        assert time.perf_counter() - ended >= 0.02
    assert ended - begun >= 0.04
    assert len(sums) == 3
    assert 0.02 <= sum(sums[:2]) <= ended - begun - 0.01
    clocked = bench_ranks._Clocked(None)
    with clocked:
        _ranks.Ranks._sum(ranks, array)
    assert len(clocked.seconds) == 1 and clocked.free_at == 0
    assert len(sums) == 3   # it has let go of the class


def given(*rounds):
    """Of two ranks: seconds of a step and in sums, by round."""
    return [[{"seconds": seconds, "sums": sums} for seconds, sums in ranks] for ranks in rounds]


def test_the_slower_rank_counts_and_ratios_are_those_of_rounds():
    slow = given([(1e-3, 3e-4), (2e-3, 1e-4)], [(8e-3, 2e-4), (4e-3, 5e-4)], [(3e-3, 1e-3), (3e-3, 2e-3)])
    fast = given([(1e-3, 0.0)], [(1e-3, 0.0)], [(2e-3, 0.0)])
    assert bench_ranks.seconds(slow) == [2e-3, 8e-3, 3e-3]
    assert bench_ranks.ratio(slow, fast) == pytest.approx(2)
    kinds = dict.fromkeys(bench_ranks.KINDS, fast) | {bench_ranks.TWO_RANKS: slow}
    assert bench_ranks._medians(kinds) == ["1,000", "1,000", "1,000", "3,000", "200"]


def test_predictions_are_set_beside_the_median_of_what_was_measured():
    two = cost_of_ranks.step(2, 100, PARTS, LINK)
    kinds = {bench_ranks.ONE_RANK: given([(cost_of_ranks.step(1, 100, PARTS, LINK), 0.0)]),
             bench_ranks.TWO_RANKS: given([(two, 0.0), (two / 3, 0.0)])}
    kinds |= {name: given([(2 * (two + cost_of_ranks.allreduce(2, PARTS.size, link)), 0.0)])
              for name, link in bench_ranks.SLOW.items()}
    assert bench_ranks._predictions(kinds, 100, PARTS, LINK) == ["1.00", "1.00", "0.50", "0.50"]


def test_without_a_launcher_nothing_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(bench_ranks.shutil, "which", lambda *_, **__: None)
    assert bench_ranks.main(["--quick"]) == 0
    assert "there is no mpiexec" in capsys.readouterr().err


@pytest.mark.needs("mpi4py")
def test_two_ranks_take_turns_with_fits_and_are_compared_with_the_model(monkeypatch, results, capsys):
    if bench_ranks.launcher() is None:
        pytest.skip("there is no mpiexec")
    for name, value in {"NETWORKS": {"20-30-5": (20, 30, 5)}, "LARGER": {"20-40-5": (20, 40, 5)}, "BATCHES": (1_000,),
                        "OWN_ROWS": (50, 500), "WORK": 0.01, "SECONDS": 0.01, "SIZES": (4, 100_000)}.items():
        monkeypatch.setattr(bench_ranks, name, value)
    monkeypatch.setattr(timing, "QUICK_ROUNDS", 2)
    assert bench_ranks.main(["--quick"]) == 0
    printed = capsys.readouterr().out
    for expected in ("bench_ranks.py --quick", "| 20-30-5 ", "| 20-40-5 ", "predicted : measured", "GB/s", "1 Gbit/s"):
        assert expected in printed
    kept = json.loads((results / "cost_of_ranks.json").read_text())
    expected = {"20-30-5": 4 * (21 * 30 + 31 * 5), "20-40-5": 4 * (21 * 40 + 41 * 5)}
    assert {name: of["size"] for name, of in kept.items()} == expected
    assert all(of[who]["a"] > 0 for of in kept.values() for who in ("alone", "among"))
    assert "predicted : measured" in (results / "bench_ranks.md").read_text()


@pytest.mark.needs("mpi4py")
def test_a_slow_link_delays_each_step_of_two_ranks_and_is_in_the_time_of_reductions():
    if bench_ranks.launcher() is None:
        pytest.skip("there is no mpiexec")
    link = Link(1e-3, 1e9)
    with bench_ranks.teams(bench_ranks.launcher(), [bench_ranks.ONE_THREAD, bench_ranks.TWO_RANKS]) as found:
        two = found[bench_ranks.TWO_RANKS]
        fast, slow = (two.do("fit", (20, 30, 5), 1_000, 1, given) for given in (None, [link.latency, link.bandwidth]))
        (alone,) = found[bench_ranks.ONE_THREAD].do("fit", (20, 30, 5), 1_000, 1, None)
        processes = [team.process for team in found.values()]
    delay = cost_of_ranks.allreduce(2, slow[0]["bytes"], link)
    assert [rank["rows"] for rank in fast] == [bench_ranks.ROWS / 2] * 2 and len(slow) == 2
    for rank in slow:
        assert rank["bytes"] == alone["bytes"] == 4 * (21 * 30 + 31 * 5)
        assert rank["seconds"] > rank["sums"] > delay
    assert alone["sums"] == 0 < min(rank["sums"] for rank in fast)
    assert [process.poll() for process in processes] == [0, 0]
    assert np.isfinite([rank["seconds"] for rank in fast]).all()
