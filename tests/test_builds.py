"""The builds of the kernels: one for each instruction set, alike but for the instructions, and the right one in use."""

import ast
import inspect
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import reference
from reference import rounding

import nnfast
from nnfast import _kernels, _memory

LOWEST = "neon" if platform.machine().lower() in ("aarch64", "arm64") else "baseline"
NAMES = ["v4", "v3", LOWEST]    # the fastest first
BUILDS = _kernels.builds()
STUBS = Path(nnfast.__file__).with_name("_core.pyi")


def kernels_of(build):
    """The functions; the classes only hold what some of them take."""
    return {
        name: value for name, value in vars(build).items()
        if callable(value) and not isinstance(value, type) and not name.startswith("_")
    }


def variants(kernel):
    """The float32 and the float64 kernel of a fused one, or the one that there is."""
    return list(kernel.__signatures__.values()) if hasattr(kernel, "__signatures__") else [kernel]


def declared():
    """What _core.pyi declares: the parameters of functions, and the names of constants."""
    body = ast.parse(STUBS.read_text()).body
    functions = {node.name: [arg.arg for arg in node.args.args] for node in body if isinstance(node, ast.FunctionDef)}
    constants = {node.target.id for node in body if isinstance(node, ast.AnnAssign) and node.value is None}
    return functions, constants


def in_new_process(code, **environment):
    """Output, and the last line of what was written to stderr."""
    environment = {name: value for name, value in os.environ.items() if name != "NNFAST_ISA"} | environment
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.strip(), done.stderr.strip().rpartition("\n")[2]


IN_USE = """
import sys
from nnfast import _kernels, _memory
import numpy as np
from nnfast import layers, losses, optimizer, activations
build = _kernels._build
kernels = _kernels.kernels(np.dtype("float32"))
kernel = kernels.relu_forward
assert kernel is build.relu_forward["float"], kernel
assert layers.kernels is _kernels.kernels
print(build.__name__, build.ISA, _kernels.ISA, *sorted(name for name in sys.modules if name.startswith("nnfast._core")))
"""


def test_the_builds_come_fastest_first_and_end_with_the_one_that_runs_everywhere():
    assert list(BUILDS) == [name for name in NAMES if name in BUILDS]
    assert list(BUILDS)[-1] == LOWEST


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="no list of the instructions of x86-64")
def test_every_build_that_the_processor_supports_can_run():
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    needed = {
        "v3": {"avx2", "fma", "bmi1", "bmi2", "popcnt"},
        "v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    }
    supported = [name for name in needed if needed[name] | needed["v3"] <= set(flags)]
    made = [name for name in supported if list(STUBS.parent.glob(f"_core_{name}.*.so"))]
    assert set(BUILDS) == {LOWEST, *made}
    assert nnfast._core.cpu_level() == max([0, *(int(name[1]) for name in supported)])


def test_a_build_knows_its_instruction_set(build):
    name = build.__name__.rpartition("_core")[2].lstrip("_") or LOWEST
    assert name == build.ISA
    assert BUILDS[name] is build


def test_a_build_is_compiled_and_has_openmp(build):
    assert not build.__file__.endswith(".py")
    assert build.OPENMP > 200000


def test_all_builds_have_the_same_kernels_with_the_same_parameters(build):
    expected = {name: str(inspect.signature(kernel)) for name, kernel in kernels_of(BUILDS[LOWEST]).items()}
    assert {name: str(inspect.signature(kernel)) for name, kernel in kernels_of(build).items()} == expected


def test_the_stubs_declare_every_kernel_with_its_parameters(build):
    functions, constants = declared()
    found = {name: list(inspect.signature(kernel).parameters) for name, kernel in kernels_of(build).items()}
    assert found == functions
    assert constants == {name for name in vars(build) if name.isupper() and not name.startswith("_")}


def test_every_kernel_exists_for_both_dtypes_or_has_no_dtype(build):
    without = {"advance", "cpu_level", "dropout_mask", "first_outside", "forks", "openmp_threads", "teams"}
    without |= {"shuffle", "train", "central_difference", "evaluate", "pair_values", "perturb", "perturbation_scratch", "sum_pairs"}
    for name, kernel in kernels_of(build).items():
        assert (set(getattr(kernel, "__signatures__", [])) == set()) == (name in without), name
        both = {"float", "double"}
        converting = {f"{given}|{own}" for given in both for own in both}    # x may be of the other dtype
        assert set(getattr(kernel, "__signatures__", both)) in (both, converting), name


def test_every_kernel_has_its_formula_as_docstring(build):
    for name, kernel in kernels_of(build).items():
        for variant in variants(kernel):
            assert variant.__doc__ and variant.__doc__.rstrip().endswith("."), name


def test_a_kernel_of_one_dtype_refuses_the_other(build, dtype):
    kernels = _kernels.specialised(build, dtype)
    other = np.zeros(3, np.float32 if dtype == np.float64 else np.float64)
    with pytest.raises(ValueError, match="dtype mismatch"):
        kernels.relu_forward(other, other.copy(), 1)


def test_the_fastest_build_that_can_run_is_in_use_and_no_other_loaded():
    fastest = next(iter(BUILDS))
    loaded = {"nnfast._core", BUILDS[fastest].__name__}
    expected = [BUILDS[fastest].__name__, fastest, fastest, *sorted(loaded)]
    assert in_new_process(IN_USE) == (0, " ".join(expected), "")
    assert in_new_process(IN_USE, NNFAST_ISA="")[1] == " ".join(expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_environment_forces_a_build_or_the_import_fails(name):
    status, output, error = in_new_process(IN_USE, NNFAST_ISA=name)
    if name in BUILDS:
        assert status == 0, error
        assert output.split()[:3] == [BUILDS[name].__name__, name, name]
    else:
        assert status == 1 and error.startswith(("ImportError: ", "ModuleNotFoundError: "))


@pytest.mark.parametrize("wish", ["avx2", "V3", "v5", " v3", "base line"])
def test_an_unknown_instruction_set_fails_the_import_with_a_sentence(wish):
    expected = f"ImportError: NNFAST_ISA is {wish!r}, but must be one of v4, v3, {LOWEST}"
    assert in_new_process("import nnfast", NNFAST_ISA=wish) == (1, "", expected)


@pytest.mark.parametrize(("level", "wish"), [(0, "v3"), (0, "v4"), (3, "v4")])
def test_an_instruction_set_that_the_processor_lacks_fails_with_a_sentence(monkeypatch, level, wish):
    monkeypatch.setattr(_kernels._core, "cpu_level", lambda: level)
    monkeypatch.setenv("NNFAST_ISA", wish)
    monkeypatch.setattr(_kernels, "_load", lambda isa: pytest.fail("a build that cannot run was imported"))
    with pytest.raises(ImportError) as error:
        _kernels._choose()
    assert str(error.value) == f"NNFAST_ISA is '{wish}', but this processor or system does not support it"


@pytest.mark.parametrize(("level", "expected"), [(0, [LOWEST]), (3, ["v3", LOWEST]), (4, NAMES)])
def test_a_build_above_the_processors_level_is_not_even_imported(monkeypatch, level, expected):
    loaded = []
    monkeypatch.setattr(_kernels._core, "cpu_level", lambda: level)
    monkeypatch.setattr(_kernels, "_load", loaded.append)
    monkeypatch.delenv("NNFAST_ISA", raising=False)
    assert list(_kernels.builds()) == loaded == expected
    _kernels._choose()
    assert loaded == [*expected, expected[0]]


def test_a_build_that_was_not_made_is_passed_over(monkeypatch):
    def load(isa):
        if isa != LOWEST:
            raise ImportError(isa)
        return _kernels._core

    monkeypatch.setattr(_kernels._core, "cpu_level", lambda: 4)
    monkeypatch.setattr(_kernels, "_load", load)
    monkeypatch.delenv("NNFAST_ISA", raising=False)
    assert _kernels.builds() == {LOWEST: _kernels._core}
    assert _kernels._choose() is _kernels._core


def test_the_builds_agree_to_rounding(dtype, rng):
    x, w, b = (rng.normal(0, 1, shape).astype(dtype) for shape in ((65, 513), (513, 49), 49))
    largest = np.abs(x.astype(float)) @ np.abs(w.astype(float)) + np.abs(b)
    results = {}
    for name, build in BUILDS.items():
        kernels = _kernels.specialised(build, dtype)
        y, p = np.empty((65, 49), dtype), np.empty((65, 49), dtype)
        kernels.affine_forward(x, w, b, y, np.empty(513 * (49 + 1000), dtype), 1)
        kernels.softmax_forward(x[:, :49].copy(), p, 1)
        results[name] = y, p
    for name, (y, p) in results.items():
        # Each is within depth + 1 roundings of the exact sum, so two of them are within twice that.
        reference.assert_close(y, results[LOWEST][0].astype(float), rounding(dtype, 2 * 514, largest), name)
        reference.assert_close(p, results[LOWEST][1].astype(float), rounding(dtype, 2 * 64, p), name)


def test_the_builds_are_not_copies_of_one():
    # FMA rounds once where the baseline rounds twice; were all results equal, one build would run under two names.
    x = np.random.default_rng(0).normal(0, 1, (20, 100))
    results = {}
    for name, build in BUILDS.items():
        y = np.empty((20, 20))
        workspace = np.empty(100 * 200)
        _kernels.specialised(build, x.dtype).affine_forward(x, x.T.copy(), np.zeros(20), y, workspace, 1)
        results[name] = y
    for name in set(BUILDS) - {LOWEST}:
        assert not np.array_equal(results[name], results[LOWEST])
    files = [Path(build.__file__).read_bytes() for build in BUILDS.values()]
    assert len(set(files)) == len(BUILDS)


def test_a_workspace_is_as_large_as_the_build_in_use_needs(dtype, monkeypatch):
    monkeypatch.setattr(_memory, "_scratch", threading.local())
    assert _kernels.PANEL_PADDING == _kernels._build.PANEL_PADDING
    padding = _kernels.PANEL_PADDING
    workspace = _memory.product_workspace(7, 50, dtype, 1)
    assert workspace.size == 7 * 50 + padding * (7 + 1)
    assert _memory.product_workspace(6, 50, dtype, 1) is workspace     # used again where it suffices
    assert _memory.product_workspace(8, 50, dtype, 3).size == 3 * (8 * 50 + padding * (8 + 1))
