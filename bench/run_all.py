"""All benchmarks of the README, one after the other: `python bench/run_all.py [--quick]`, some minutes.

The exit status is 1 if any two contestants computed different things.
"""

import sys

import bench_demo
import bench_inference
import bench_layers
import bench_training

if __name__ == "__main__":
    status = bench_demo.main()
    for benchmark in (bench_training, bench_layers, bench_inference):
        print(flush=True)
        status |= benchmark.main(sys.argv[1:])
    sys.exit(status)
