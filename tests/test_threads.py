"""How many threads: the setting, the environment, affinity, containers, and after a fork."""

import os
import subprocess
import sys
import warnings

import pytest

import nnfast
from nnfast import _threads


@pytest.fixture(autouse=True)
def default_threads():
    yield
    nnfast.set_num_threads(None)


def in_new_process(code, **environment):
    names = ("OMP_NUM_THREADS", "NNFAST_NUM_THREADS")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


EXPLAIN = "from nnfast import _threads; print(*_threads.explain(), sep='|')"


def test_the_setting_is_used_and_taken_back():
    default = nnfast.get_num_threads()
    nnfast.set_num_threads(default + 1)
    assert nnfast.get_num_threads() == default + 1
    assert _threads.explain()[1] == "set_num_threads"
    nnfast.set_num_threads(None)
    assert nnfast.get_num_threads() == default


def test_the_environment_sets_the_default():
    assert in_new_process(EXPLAIN, NNFAST_NUM_THREADS="7") == "7|NNFAST_NUM_THREADS"
    assert in_new_process(EXPLAIN, OMP_NUM_THREADS="1,2") == "1|OMP_NUM_THREADS"


def test_openmps_setting_does_not_raise_the_default_above_the_cores():
    assert int(in_new_process(EXPLAIN, OMP_NUM_THREADS="4096").split("|")[0]) <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_limits_the_default():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + EXPLAIN
    assert in_new_process(code) == "1|physical cores that this process may use"


def group_files(tmp_path, membership, **files):
    for name, text in files.items():
        path = tmp_path / "cgroup" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "membership").write_text(membership)
    return _threads._container_quota(tmp_path / "cgroup", tmp_path / "membership")


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a__b__cpu.max": "max 100000\n", "a__cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a__b__cpu.max": "400000 100000\n", "a__cpu.max": "150000 100000\n"}, 1.5),
        ("0::/not/visible\n", {"cpu.max": "200000 100000\n"}, 2),
        ("4:cpu,cpuacct:/c\n", {"cpu__c__cpu.cfs_quota_us": "250000", "cpu__c__cpu.cfs_period_us": "100000"}, 2.5),
        ("4:cpu,cpuacct:/c\n", {"cpu__c__cpu.cfs_quota_us": "-1", "cpu__c__cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/c\n", {"cpu__c__cpu.cfs_quota_us": "1", "cpu__c__cpu.cfs_period_us": "100000"}, None),
        ("nonsense", {"cpu.max": "50000 100000\n"}, None),
        ("0::/\n", {"cpu.max": "fifty\n"}, None),
    ],
)
def test_the_containers_quota_is_read(tmp_path, membership, files, cores):
    assert group_files(tmp_path, membership, **files) == cores


def test_a_quota_below_one_core_gives_one_thread(monkeypatch):
    monkeypatch.setattr(_threads, "_container_quota", lambda: 0.5)
    monkeypatch.delenv("NNFAST_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(_threads, "_physical_cores", lambda: 8)
    assert _threads._default_num_threads() == (1, "the container's quota of 0.5 cores")


def test_small_work_takes_one_thread_and_large_work_all():
    nnfast.set_num_threads(4)
    assert _threads.for_product(1000) == _threads.for_elements(100) == 1
    assert _threads.for_product(10**9) == _threads.for_elements(10**7) == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_trains_with_one_thread_and_ends():
    code = """
import os, numpy as np, nnfast
from nnfast import _threads
nnfast.set_num_threads(4)
def train():
    net = nnfast.Network([nnfast.Affine(300, 300), nnfast.Relu(), nnfast.Affine(300, 10)], seed=0)
    net.fit(np.ones((500, 300)), np.zeros(500, int), epochs=2)
    return net.predict(np.ones((500, 300)))
expected = train()
child = os.fork()
if child == 0:
    ok = _threads.explain()[0] == 1 and np.array_equal(train(), expected)
    os._exit(0 if ok else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), _threads.explain()[0])
"""
    assert in_new_process(code) == "0 4"


def test_show_config_tells_threads_and_where_they_come_from():
    nnfast.set_num_threads(3)
    text = nnfast.show_config()
    assert "threads       3 (set_num_threads)" in text
    assert f"nnfast        {nnfast.__version__}" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "OpenMP" in text
