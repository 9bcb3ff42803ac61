"""All benchmarks of the README, one after the other: `python bench/run_all.py [--quick]`, some two hours.

The exit status is 1 if any two contestants computed different things.
"""

import sys

import bench_c_functions
import bench_cores
import bench_demo
import bench_fit_options
import bench_gradient
import bench_import
import bench_inference
import bench_kernels
import bench_layers
import bench_losses
import bench_many
import bench_neighbours
import bench_other_libraries
import bench_ranks
import bench_sklearn
import bench_streams
import bench_subnormals
import bench_training

if __name__ == "__main__":
    status = bench_demo.main()
    for benchmark in (
        bench_training, bench_fit_options, bench_losses, bench_many, bench_streams, bench_sklearn, bench_inference, bench_c_functions,
        bench_layers, bench_gradient, bench_kernels,
    ):
        print(flush=True)
        status |= benchmark.main(sys.argv[1:])
    for benchmark in (bench_import, bench_other_libraries, bench_subnormals, bench_cores, bench_neighbours, bench_ranks):
        print(flush=True)
        status |= benchmark.main([option for option in sys.argv[1:] if option == "--quick"])
    sys.exit(status)
