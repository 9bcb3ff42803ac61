"""What `import nnfast` costs above `import numpy`: a new interpreter for each, in turn.

python bench/bench_import.py
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import timing

ROUNDS = 41
QUICK_ROUNDS = 11
GOAL = 30       # milliseconds

PROGRAMS = {"nothing": "pass", "numpy": "import numpy", "nnfast": "import nnfast"}


# Installed packages are compiled, by pip or by the first import; where that may write nothing, each import compiles anew (65
# milliseconds above NumPy instead of 25, 40 of them for Python's compiler).
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(program: str) -> float:
    """From the start of an interpreter to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, env=ENVIRONMENT)
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="bench/bench_import.py", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds instead of {ROUNDS}")
    rounds = QUICK_ROUNDS if parser.parse_args(argv).quick else ROUNDS
    for program in PROGRAMS.values():
        seconds(program)    # the files are in memory, and compiled, afterwards
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name, program in PROGRAMS.items():
            times[name].append(1e3 * seconds(program))
    lines = [["milliseconds", *PROGRAMS, "nnfast above numpy", "aimed at"]]
    above = statistics.median(ours - numpys for ours, numpys in zip(times["nnfast"], times["numpy"], strict=True))
    lines.append([f"median of {rounds}", *(f"{statistics.median(times[name]):.1f}" for name in PROGRAMS), f"{above:.1f}",
                  f"at most {GOAL}"])
    timing.report_table("bench_import", "The time to import", "each in an interpreter of its own, in turn", lines, argv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
