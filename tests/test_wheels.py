"""Wheels are made for the platforms that are promised, by workflows that say what they run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
if not WORKFLOWS:
    pytest.skip("the workflows are not beside the tests", allow_module_level=True)

PYTHONS = ["cp311", "cp312", "cp313", "cp314", "cp314t"]
PLATFORMS = {
    ("linux", "x86_64"): ["manylinux_x86_64", "musllinux_x86_64"],
    ("linux", "aarch64"): ["manylinux_aarch64", "musllinux_aarch64"],
    ("macos", "arm64"): ["macosx_arm64"],
    ("macos", "x86_64"): ["macosx_x86_64"],
    ("windows", "AMD64"): ["win_amd64"],
    ("windows", "ARM64"): ["win_arm64"],
}


@pytest.mark.needs("cibuildwheel")
@pytest.mark.parametrize(("platform", "arch"), PLATFORMS, ids=lambda word: word)
def test_a_platform_gets_its_wheels(platform, arch):
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", platform, "--archs", arch, ROOT]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CIBW_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == sorted(f"{python}-{tag}" for tag in PLATFORMS[platform, arch] for python in PYTHONS)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_an_action_is_named_by_its_commit_and_its_version(workflow):
    used = re.findall(r"uses: (.*)", workflow.read_text("utf-8"))
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_an_action_has_the_same_commit_everywhere():
    used = {line for workflow in WORKFLOWS for line in re.findall(r"uses: (.*)", workflow.read_text("utf-8"))}
    names = [line.partition("@")[0] for line in used]
    assert len(names) == len(set(names))


def test_the_runners_are_those_of_the_platforms():
    [runners] = re.findall(r"runner: \[(.*)\]", (ROOT / ".github" / "workflows" / "wheels.yml").read_text("utf-8"))
    kinds = {"ubuntu": "linux", "macos": "macos", "windows": "windows"}
    found = [(kinds[name.partition("-")[0]], "arm" in name or name == "macos-14") for name in runners.split(", ")]
    assert sorted(found) == sorted((platform, "arm" in arch.lower() or arch == "aarch64") for platform, arch in PLATFORMS)
