"""Where there is less than the machine has: affinity, a container's quota, limits of others, threads that cannot be had."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import ENDURANCE, printed

import nnfast
from nnfast import _threads

EXPLAIN = "from nnfast import _threads; print(*_threads.explain(), sep='|')"
CORES = os.cpu_count() or 1
EIGHTFOLD = 8 * CORES
ONE_CORE = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"

no_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")


@pytest.fixture(autouse=True)
def default_threads():
    yield
    nnfast.set_num_threads(None)


def test_the_environment_sets_the_default():
    assert printed(EXPLAIN, NNFAST_NUM_THREADS="7") == "7|NNFAST_NUM_THREADS"
    assert printed(EXPLAIN, OMP_NUM_THREADS="1,2") == "1|OMP_NUM_THREADS"


def test_openmps_setting_does_not_raise_the_default_above_the_cores():
    assert int(printed(EXPLAIN, OMP_NUM_THREADS="4096").split("|")[0]) <= CORES


@no_affinity
def test_affinity_limits_the_default():
    assert printed(ONE_CORE + EXPLAIN) == "1|physical cores that this process may use"


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/not/visible\n", {"cpu.max": "200000 100000\n"}, 2),
        ("4:cpu,cpuacct:/c\n", {"cpu/c/cpu.cfs_quota_us": "250000", "cpu/c/cpu.cfs_period_us": "100000"}, 2.5),
        ("4:cpu,cpuacct:/c\n", {"cpu/c/cpu.cfs_quota_us": "-1", "cpu/c/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/c\n", {"cpu/c/cpu.cfs_quota_us": "1", "cpu/c/cpu.cfs_period_us": "100000"}, None),
        ("nonsense", {"cpu.max": "50000 100000\n"}, None),
        ("0::/\n", {"cpu.max": "fifty\n"}, None),
    ],
)
def test_the_containers_quota_is_read_and_limits_the_default(tmp_path, monkeypatch, membership, files, cores):
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "membership").write_text(membership)
    quota = _threads._container_quota(tmp_path / "cgroup", tmp_path / "membership")
    assert quota == cores
    monkeypatch.setattr(_threads, "_container_quota", lambda: quota)
    monkeypatch.setattr(_threads, "_physical_cores", lambda: 8)
    for name in ("NNFAST_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    expected = (8, "physical cores that this process may use") if cores is None else (
        max(1, int(cores)), f"the container's quota of {cores:g} cores")
    assert _threads._default_num_threads() == expected


@pytest.mark.needs("threadpoolctl")
@pytest.mark.skipif("CORES == 1", reason="there is one thread anyway")
def test_what_threadpoolctl_limits_holds_for_the_default_and_is_taken_back():
    program = """
import threadpoolctl
from learning import learnt, made, teams, X, T
from nnfast import _threads
network = made()
before = _threads.explain()
with threadpoolctl.threadpool_limits(1):
    network.fit(X, T)
    network.predict(X)
    print(teams(), *_threads.explain(), _threads.explain()[0] if _threads._limit.set(2) else 0, sep="|")
_threads._limit.set(None)
assert _threads.explain() == before, before
"""
    assert printed(program, OMP_NUM_THREADS="2").split("|") == [
        "0", "1", "what OpenMP was limited to, as by threadpoolctl", "2"]


@pytest.mark.parametrize("count", [8 * CORES + 1, 100_000, 2**31, 10**30])
def test_more_than_eight_threads_for_each_processor_are_never_used(count):
    most = EIGHTFOLD, f"num_threads says {count:,}, but eight for each processor are the most"
    with nnfast.num_threads(count):
        assert _threads.explain() == most
    nnfast.set_num_threads(count)
    assert nnfast.get_num_threads() == EIGHTFOLD


def test_absurdly_many_threads_give_the_same_bits():
    assert len(set(printed(f"from learning import learnt; print(learnt(1), learnt({2**31}))").split())) == 1
    assert printed(EXPLAIN, NNFAST_NUM_THREADS="100000").startswith(f"{EIGHTFOLD}|NNFAST_NUM_THREADS says 100,000, but")


@no_affinity
def test_two_threads_on_one_core_give_the_same_bits():
    expected, found = printed("from learning import learnt; print(learnt(1)); " + ONE_CORE + "print(learnt(2))").split()
    assert found == expected


def test_eight_times_as_many_threads_as_cores_give_the_same_bits_and_end():
    program = f"from learning import learnt; print(*[learnt({EIGHTFOLD}) for _ in range({10 * ENDURANCE})], learnt(1))"
    assert len(set(printed(program).split())) == 1


def test_eight_processes_at_once_give_the_same_bits_and_end():
    program = f"from learning import learnt; print(*[learnt({CORES}) for _ in range({10 * ENDURANCE})], learnt(1))"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(printed, [program] * 8))
    assert len({bits for line in found for bits in line.split()}) == 1


# OpenMP would end the process. A limit of memory, not of processes, which does not hold for root: there is room for what
# is computed, but not for a thread's stack of 8 MiB.
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a limit of memory that holds")
def test_one_thread_works_where_others_cannot_be_had():
    program = """
import resource
from learning import learnt, teams
expected = learnt(1)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (7 << 20), -1))
assert learnt(2) == expected
print(teams())
"""
    assert printed(program) == "0"
