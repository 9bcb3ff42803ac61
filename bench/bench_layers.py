"""Single layers and optimisers, as the book calls them, against NumPy with all its memory allocated before.

nnfast's layers return new arrays, as the book's do; NumPy here writes into the same ones again and again.
"""

import sys

import numpy as np
import timing
from problems import LAYERS, SEED, Layer

CALLS = 10      # in one piece of work


def _repeated(call):
    def work():
        for _ in range(CALLS):
            found = call()
        return found

    return work


def _arrays(problem: Layer, *shapes):
    generator = np.random.default_rng(SEED)
    return [generator.standard_normal(shape).astype(problem.dtype) for shape in shapes]


def _shapes(problem: Layer):
    """x, dout, W, b."""
    return (
        (problem.rows, problem.inputs), (problem.rows, problem.outputs),
        (problem.inputs, problem.outputs), (problem.outputs,),
    )


def _labels(problem: Layer) -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, problem.outputs, problem.rows)


# NumPy: every function returns one that does the pass once, and the arrays that it filled.

def _numpy_affine(problem: Layer):
    x, dout, W, b = _arrays(problem, *_shapes(problem))
    y, dx, dW, db = (np.empty_like(array) for array in (dout, x, W, b))

    def forward():
        np.matmul(x, W, out=y)
        np.add(y, b, out=y)
        return [y]

    def backward():
        np.matmul(x.T, dout, out=dW)
        np.add.reduce(dout, axis=0, out=db)
        np.matmul(dout, W.T, out=dx)
        return [dx, dW, db]

    return {"forward": forward, "backward": backward}


def _numpy_relu(problem: Layer):
    x, dout = _arrays(problem, *_shapes(problem)[:2])
    y, dx, mask = np.empty_like(x), np.empty_like(x), x > 0

    def forward():
        np.greater(x, 0, out=mask)
        np.maximum(x, 0, out=y)
        return [y]

    def backward():
        np.multiply(dout, mask, out=dx)
        return [dx]

    return {"forward": forward, "backward": backward}


def _numpy_sigmoid(problem: Layer):
    x, dout = _arrays(problem, *_shapes(problem)[:2])
    y, dx = 1 / (1 + np.exp(-x)), np.empty_like(x)

    def forward():
        np.negative(x, out=y)
        np.exp(y, out=y)
        np.add(y, 1, out=y)
        np.divide(1, y, out=y)
        return [y]

    def backward():
        np.subtract(1, y, out=dx)
        np.multiply(dx, y, out=dx)
        np.multiply(dx, dout, out=dx)
        return [dx]

    return {"forward": forward, "backward": backward}


def _numpy_tanh(problem: Layer):
    x, dout = _arrays(problem, *_shapes(problem)[:2])
    y, dx = np.tanh(x), np.empty_like(x)

    def forward():
        np.tanh(x, out=y)
        return [y]

    def backward():
        np.multiply(y, y, out=dx)
        np.subtract(1, dx, out=dx)
        np.multiply(dx, dout, out=dx)
        return [dx]

    return {"forward": forward, "backward": backward}


def _numpy_batch_normalization(problem: Layer):
    x, dout = _arrays(problem, *_shapes(problem)[:2])
    gamma, beta = np.ones(problem.inputs, x.dtype), np.zeros(problem.inputs, x.dtype)
    running_mean, running_var, row = (np.zeros(problem.inputs, x.dtype) for _ in range(3))
    xn, y, work, dx = (np.empty_like(x) for _ in range(4))
    std, mean, variance = (np.empty(problem.inputs, x.dtype) for _ in range(3))

    def forward():
        np.mean(x, axis=0, out=mean)
        np.subtract(x, mean, out=xn)
        np.multiply(xn, xn, out=work)
        np.mean(work, axis=0, out=variance)
        np.add(variance, 10e-7, out=std)
        np.sqrt(std, out=std)
        np.divide(xn, std, out=xn)
        np.multiply(xn, gamma, out=y)
        np.add(y, beta, out=y)
        for running, new in ((running_mean, mean), (running_var, variance)):
            np.multiply(running, 0.9, out=running)
            np.multiply(new, 0.1, out=row)
            np.add(running, row, out=running)
        return [y]

    def backward():
        dbeta = np.add.reduce(dout, axis=0)
        np.multiply(dout, xn, out=work)
        dgamma = np.add.reduce(work, axis=0)
        np.multiply(xn, dgamma / problem.rows, out=work)
        np.subtract(dout, work, out=dx)
        np.subtract(dx, dbeta / problem.rows, out=dx)
        np.multiply(dx, gamma / std, out=dx)
        return [dx, dgamma, dbeta]

    forward()
    return {"forward": forward, "backward": backward}


def _numpy_softmax_with_loss(problem: Layer):
    (x,) = _arrays(problem, _shapes(problem)[0])
    labels, rows = _labels(problem), np.arange(problem.rows)
    y, column = np.empty_like(x), np.empty((problem.rows, 1), x.dtype)

    def both():
        np.maximum.reduce(x, axis=1, keepdims=True, out=column)
        np.subtract(x, column, out=y)
        np.exp(y, out=y)
        np.add.reduce(y, axis=1, keepdims=True, out=column)
        np.divide(y, column, out=y)
        of_label = y[rows, labels]
        loss = -np.log(of_label.astype(np.float64) + 1e-7).mean()
        y[rows, labels] = of_label - 1
        np.divide(y, problem.rows, out=y)
        return [y, np.array([loss])]

    return {"both": both}


def _numpy_sgd(problem: Layer):
    W, dW = _arrays(problem, *[(problem.inputs, problem.outputs)] * 2)
    work, lr = np.empty_like(W), W.dtype.type(0.01)

    def update():
        np.multiply(dW, lr, out=work)
        np.subtract(W, work, out=W)
        return [W]

    return {"update": update}


def _numpy_adam(problem: Layer):
    W, dW = _arrays(problem, *[(problem.inputs, problem.outputs)] * 2)
    m, v = np.zeros_like(W), np.zeros_like(W)
    work, kind, steps = np.empty_like(W), W.dtype.type, 0

    def update():
        nonlocal steps
        steps += 1
        lr = kind(0.001 * np.sqrt(1 - 0.999**steps) / (1 - 0.9**steps))
        np.subtract(dW, m, out=work)
        np.multiply(work, kind(0.1), out=work)
        np.add(m, work, out=m)
        np.multiply(dW, dW, out=work)
        np.subtract(work, v, out=work)
        np.multiply(work, kind(0.001), out=work)
        np.add(v, work, out=v)
        np.sqrt(v, out=work)
        np.add(work, kind(1e-7), out=work)
        np.divide(m, work, out=work)
        np.multiply(work, lr, out=work)
        np.subtract(W, work, out=W)
        return [W]

    return {"update": update}


_NUMPY = {
    "Affine": _numpy_affine, "Relu": _numpy_relu, "Sigmoid": _numpy_sigmoid, "Tanh": _numpy_tanh,
    "BatchNormalization": _numpy_batch_normalization, "SoftmaxWithLoss": _numpy_softmax_with_loss,
    "SGD": _numpy_sgd, "Adam": _numpy_adam,
}


def numpy_layer(problem: Layer):
    return _repeated(_NUMPY[problem.layer](problem)[problem.direction])


def nnfast_layer(problem: Layer):
    import nnfast

    kind = getattr(nnfast, problem.layer)
    if problem.direction == "update":
        W, dW = _arrays(problem, *[(problem.inputs, problem.outputs)] * 2)
        params, grads, optimizer = {"W": W}, {"W": dW}, kind()

        def update():
            optimizer.update(params, grads)
            return [W]

        return _repeated(update)

    x, dout, W, b = _arrays(problem, *_shapes(problem))
    if problem.layer == "SoftmaxWithLoss":
        layer, labels = kind(), _labels(problem)

        def both():
            loss = layer.forward(x, labels)
            return [layer.backward(), np.array([loss])]

        return _repeated(both)

    if problem.layer == "Affine":
        layer = kind(W, b)
    elif problem.layer == "BatchNormalization":
        layer = kind(np.ones(problem.inputs, x.dtype), np.zeros(problem.inputs, x.dtype))
    else:
        layer = kind()
    layer.forward(x)
    gradients = {"Affine": ("dW", "db"), "BatchNormalization": ("dgamma", "dbeta")}.get(problem.layer, ())

    def backward():
        return [layer.backward(dout), *(getattr(layer, name) for name in gradients)]

    return _repeated(backward if problem.direction == "backward" else lambda: [layer.forward(x)])


def cases() -> list[timing.Case]:
    """Every problem; sums run over at most 1024 terms, and an update is repeated a few times."""
    return [
        timing.Case(
            problem.name, problem.reason,
            {"NumPy": timing.Contestant(numpy_layer, (problem,), CALLS),
             timing.OURS: timing.Contestant(nnfast_layer, (problem,), CALLS)},
            1e-11 if problem.dtype == "float64" else 1e-4,
        )
        for problem in LAYERS
    ]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if results disagree."""
    return timing.run("bench_layers", "Layers and optimisers, nnfast against NumPy", "a call", cases(), argv)


if __name__ == "__main__":
    sys.exit(main())
