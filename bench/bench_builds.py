"""The installed nnfast beside others, as two compilers or two commits made them: kernels, inference and training.

    pip wheel --no-deps -w clang . && unzip clang/*.whl -d clang/package      (with CC and LDSHARED of another compiler)
    python bench/bench_builds.py clang=clang/package [options of the other benchmarks]

Each is in a process of its own, and they take turns.
"""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import bench_inference
import bench_kernels
import bench_training
import timing

PAUSE = 0.3
"""Seconds between two measurements: LLVM's OpenMP lets its threads spin for 0.2 (with 0.1 a product of GCC's on two threads took
60 microseconds and, right after Clang's turn, 100)."""


def from_folder(folder: str, make, *arguments):
    """`make(*arguments)` with the nnfast of that folder."""
    sys.path.insert(0, folder)
    module = importlib.import_module("nnfast")
    if not Path(module.__file__).is_relative_to(Path(folder).resolve()):
        raise SystemExit(f"the nnfast of {folder} was not imported, but {module.__file__}")
    return make(*arguments)


def cases(folders: dict[str, str]) -> list[timing.Case]:
    """Those of the other benchmarks, with nnfast alone as its own contestants."""
    found = []
    for case in (*bench_kernels.cases(), *bench_inference.cases(), *bench_training.cases()):
        ours = case.contestants[timing.OURS]
        others = {
            name: timing.Contestant(from_folder, (str(Path(folder).resolve()), ours.make, *ours.arguments), ours.units)
            for name, folder in folders.items()
        }
        # Builds for one instruction set may still round differently.
        found.append(replace(case, contestants={**others, timing.OURS: ours}, flops=0, goals={}))
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if results disagree."""
    arguments = sys.argv[1:] if argv is None else argv
    folders = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    rest = [argument for argument in arguments if "=" not in argument]
    if not folders and not {"-h", "--help"} & set(rest):
        raise SystemExit("say where another nnfast is: NAME=FOLDER")
    for folder in folders.values():
        if not (Path(folder) / "nnfast").is_dir():
            raise SystemExit(f"{folder} holds no nnfast")
    timing.PAUSE = PAUSE
    return timing.run(
        "bench_builds", "nnfast as others have made it", "a call or a step", cases(folders), rest, typed=arguments)


if __name__ == "__main__":
    sys.exit(main())
