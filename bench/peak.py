"""The FMA peak of this machine in float32, measured in the same run as what is compared with it."""

import ctypes
import sys
import threading
import time

import c_code

SECONDS = 0.05
ROUNDS = 9


def measured(counts: list[int]) -> dict[int, float]:
    """GFLOP/s by number of threads, the best of some rounds; empty where there is no C compiler."""
    if c_code.compiler() is None:
        print("no C compiler: the share of the FMA peak is not measured", file=sys.stderr)
        return {}
    code = c_code.compiled(c_code.FOLDER / "peak.c", "-O2", "-funroll-loops")
    code.multiply_adds.argtypes, code.multiply_adds.restype = [ctypes.c_long, ctypes.c_float], ctypes.c_float
    turns = 1_000_000
    turns = int(turns * SECONDS / _seconds(code, turns, 1))
    return {count: max(count * turns * code.operations() / _seconds(code, turns, count) / 1e9 for _ in range(ROUNDS))
            for count in counts}


def _seconds(code: ctypes.CDLL, turns: int, count: int) -> float:
    """Until all threads are done; ctypes releases the interpreter lock."""
    threads = [threading.Thread(target=code.multiply_adds, args=(turns, 0.999)) for _ in range(count)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


if __name__ == "__main__":
    print(measured([1, 2]))
