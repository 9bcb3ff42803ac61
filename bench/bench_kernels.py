"""The three products of an Affine layer, over a grid of sizes, each build of the kernels against OpenBLAS.

What is measured is one call of a kernel: the copies that it makes of its second operand are in the time.
"""

import sys

import numpy as np
import timing
from problems import PRODUCTS, SEED, Product

CALLS = 10      # in one piece of work


def _operands(problem: Product) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The arrays x (B, I), W (I, O), b (O,) and dz (B, O)."""
    generator = np.random.default_rng(SEED)
    shapes = ((problem.rows, problem.inputs), (problem.inputs, problem.outputs), (problem.outputs,),
              (problem.rows, problem.outputs))
    x, W, b, dz = (generator.standard_normal(shape).astype(problem.dtype) for shape in shapes)
    return x, W, 0 * b, dz


def _repeated(call, *results: np.ndarray):
    def work():
        for _ in range(CALLS):
            call()
        return list(results)

    return work


def numpy_product(problem: Product):
    x, W, _, dz = _operands(problem)
    a, b = {"x W": (x, W), "x.T dz": (x.T, dz), "dz W.T": (dz, W.T)}[problem.product]
    result = a @ b
    return _repeated(lambda: np.matmul(a, b, out=result), result)


def nnfast_product(problem: Product, isa: str):
    from nnfast import _kernels, _memory, get_num_threads

    kernels = _kernels.specialised(_kernels.builds()[isa], np.dtype(problem.dtype))
    x, W, b, dz = _operands(problem)
    threads = get_num_threads()
    deepest = max(x.shape[0], *W.shape)
    workspace = _memory.product_workspace(deepest, deepest, W.dtype, threads)
    y, dW, db, dx = np.empty_like(dz), np.empty_like(W), np.empty_like(b), np.empty_like(x)
    if problem.product == "x W":
        return _repeated(lambda: kernels.affine_forward(x, W, b, y, workspace, threads), y)
    if problem.product == "x.T dz":
        return _repeated(lambda: kernels.affine_backward_parameters(x, dz, dW, db, workspace, threads), dW)
    return _repeated(lambda: kernels.affine_backward_input(dz, W, dx, workspace, threads), dx)


def cases() -> list[timing.Case]:
    """Every product of every size; the fastest build that can run here is nnfast's own."""
    from nnfast import _kernels

    fastest, *others = _kernels.builds()
    found = []
    for problem in PRODUCTS:
        contestants = {"NumPy": timing.Contestant(numpy_product, (problem,), CALLS)}
        contestants |= {f"{timing.OURS} {isa}": timing.Contestant(nnfast_product, (problem, isa), CALLS) for isa in others}
        contestants[timing.OURS] = timing.Contestant(nnfast_product, (problem, fastest), CALLS)
        found.append(timing.Case(problem.name, problem.reason, contestants, 1e-4, problem.flops, problem.goals))
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if results disagree."""
    title = "The products of an Affine layer, nnfast's builds and OpenBLAS"
    return timing.run("bench_kernels", title, "a call", cases(), argv, as_rate=True)


if __name__ == "__main__":
    sys.exit(main())
