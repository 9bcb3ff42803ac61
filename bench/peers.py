"""The other libraries, each in its strongest honest configuration: trained on the same batches from the same weights.

Imports are inside the functions: each contestant has a process of its own, and only those that are installed take part.
Every `*_training(problem)` and `*_inference(problem)` returns a function that does the work once and returns arrays to
compare, as `timing.Contestant` wants it.
"""

import importlib.util
import os
import warnings
from collections.abc import Callable

import numpy as np
from problems import SEED, Inference, Training
from timing import THREADS


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _threads() -> int:
    return int(os.environ[THREADS])


def _orders(problem: Training, rows: int):
    """What `Network.fit` draws: a permutation an epoch, in their order."""
    generator = np.random.default_rng(SEED)
    while True:
        yield generator.permutation(rows) if problem.shuffles else np.arange(rows)


def _pairs(arrays: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(arrays[::2], arrays[1::2], strict=True))


# scikit-learn

def sklearn_training(problem: Training):
    """`MLPClassifier.partial_fit`, an epoch a call, on rows that are permuted before."""
    from sklearn.neural_network import MLPClassifier

    x, t = problem.data()
    settings = {"sgd": {"solver": "sgd", "momentum": 0.0, "nesterovs_momentum": False}, "adam": {"solver": "adam"}}
    model = MLPClassifier(
        problem.sizes[1:-1], activation=problem.activation, alpha=0.0, batch_size=problem.batch_size,
        learning_rate_init=problem.lr, shuffle=False, random_state=0, **settings[problem.optimizer],
    )
    warnings.filterwarnings("ignore", message="Got `batch_size` less than 1")     # by this first call alone
    model.set_params(learning_rate_init=1e-30)  # a call makes the arrays, which then get the weights of the others
    model.partial_fit(x[: problem.sizes[-1]], np.arange(problem.sizes[-1]), classes=np.arange(problem.sizes[-1]))
    model.set_params(learning_rate_init=problem.lr)
    for place, (W, b) in enumerate(_pairs(problem.weights())):
        model.coefs_[place][...], model.intercepts_[place][...] = W, b
    del model._optimizer                        # which counted that call
    orders = _orders(problem, len(x))

    def work():
        for _ in range(problem.epochs):
            order = next(orders)
            model.partial_fit(*((x[order], t[order]) if problem.shuffles else (x, t)))
        return [array for pair in zip(model.coefs_, model.intercepts_, strict=True) for array in pair]

    return work


# PyTorch

def _torch_network(weights: list[np.ndarray], activation: str):
    import torch

    torch.set_num_threads(_threads())
    layers: list = []
    for W, b in _pairs(weights):
        linear = torch.nn.Linear(*W.shape, dtype=torch.from_numpy(W).dtype)
        linear.weight.data, linear.bias.data = torch.from_numpy(np.ascontiguousarray(W.T)), torch.from_numpy(b.copy())
        layers += [linear, {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[activation]()]
    return torch.nn.Sequential(*layers[:-1])


def torch_training(problem: Training, is_compiled: bool = False):
    """Fused optimiser, gradients set to None, the batch gathered by index; forward and backward compiled if asked for."""
    import torch

    network = _torch_network(problem.weights(), problem.activation)
    x, t = (torch.from_numpy(array) for array in problem.data())
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[problem.optimizer](
        network.parameters(), lr=problem.lr, fused=True)
    cross_entropy = torch.nn.CrossEntropyLoss()

    def loss_of(x_batch, t_batch):
        return cross_entropy(network(x_batch), t_batch)

    loss_of = torch.compile(loss_of) if is_compiled else loss_of
    orders = _orders(problem, len(x))

    def work():
        for _ in range(problem.epochs):
            order = torch.from_numpy(next(orders))
            for number, rows in enumerate(order.split(problem.batch_size)):
                # Consecutive rows are a view.
                rows = rows if problem.shuffles else slice(number * problem.batch_size, (number + 1) * problem.batch_size)
                optimizer.zero_grad(set_to_none=True)
                loss_of(x[rows], t[rows]).backward()
                optimizer.step()
        return [p.detach().numpy().T for p in network.parameters()]

    return work


def torch_compiled_training(problem: Training):
    return torch_training(problem, is_compiled=True)


def torch_inference(problem: Inference, is_compiled: bool = False):
    import torch

    network = _torch_network(problem.weights(), "relu").eval()
    x = torch.from_numpy(problem.x())
    network = torch.compile(network) if is_compiled else network

    def work():
        with torch.inference_mode():
            for _ in range(problem.calls):
                scores = network(x)
        return [scores.numpy()]

    return work


def torch_compiled_inference(problem: Inference):
    return torch_inference(problem, is_compiled=True)


# JAX

def _jax(dtype: str):
    """The module; it takes its number of threads from the cores that it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: _threads()])
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", dtype == "float64")
    return jax


def _jax_step(jax, problem: Training) -> Callable:
    """(parameters, state, x, t) to the parameters and the state after a step."""
    import jax.numpy as jnp

    activation = {"relu": jax.nn.relu, "tanh": jnp.tanh}[problem.activation]

    def loss_of(parameters, x, t):
        for W, b in parameters[:-1]:
            x = activation(x @ W + b)
        W, b = parameters[-1]
        return -jnp.take_along_axis(jax.nn.log_softmax(x @ W + b), t[:, None], axis=1).mean()

    def sgd(parameters, state, gradients):
        return jax.tree.map(lambda p, g: p - problem.lr * g, parameters, gradients), state

    def adam(parameters, state, gradients):
        count, m, v = state
        count = count + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradients)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradients)
        lr = problem.lr * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        return jax.tree.map(lambda p, m, v: p - lr * m / (jnp.sqrt(v) + 1e-7), parameters, m, v), (count, m, v)

    update = {"sgd": sgd, "adam": adam}[problem.optimizer]

    def step(parameters, state, x, t):
        return update(parameters, state, jax.grad(loss_of)(parameters, x, t))

    return step


def _jax_start(problem: Training):
    import jax.numpy as jnp

    parameters = [(jnp.array(W), jnp.array(b)) for W, b in _pairs(problem.weights())]
    # Twice, for what is donated must not be the same memory.
    m, v = ([(jnp.zeros_like(W), jnp.zeros_like(b)) for W, b in parameters] for _ in range(2))
    return parameters, (jnp.zeros((), problem.dtype), m, v) if problem.optimizer == "adam" else ()


def _jax_data(jax, problem: Training):
    """Rows to be gathered, or whole batches one after the other where rows are not shuffled."""
    x, t = (jax.numpy.array(array) for array in problem.data())
    if problem.shuffles:
        return x, t
    return x.reshape(problem.steps, problem.batch_size, -1), t.reshape(problem.steps, problem.batch_size)


def _of_jax(parameters) -> list[np.ndarray]:
    return [np.asarray(array) for pair in parameters for array in pair]


def jax_training(problem: Training):
    """A jitted step, batch gathered inside, parameters donated."""
    jax = _jax(problem.dtype)
    step = _jax_step(jax, problem)
    jitted = jax.jit(lambda p, s, x, t, rows: step(p, s, x[rows], t[rows]), donate_argnums=(0, 1))
    x, t = _jax_data(jax, problem)
    parameters, state = _jax_start(problem)
    orders = _orders(problem, problem.batch_size * problem.steps)

    def work():
        nonlocal parameters, state
        for _ in range(problem.epochs):
            order = next(orders).astype(np.int32)
            batches = order.reshape(-1, problem.batch_size) if problem.shuffles else range(problem.steps)
            for rows in batches:
                parameters, state = jitted(parameters, state, x, t, rows)
        jax.block_until_ready(parameters)
        return _of_jax(parameters)

    return work


def jax_scan_training(problem: Training):
    """A whole epoch in one jitted scan."""
    jax = _jax(problem.dtype)
    step = _jax_step(jax, problem)

    def epoch(parameters, state, x, t, order):
        return jax.lax.scan(lambda carry, rows: (step(*carry, x[rows], t[rows]), None), (parameters, state), order)[0]

    jitted = jax.jit(epoch, donate_argnums=(0, 1))
    x, t = _jax_data(jax, problem)
    parameters, state = _jax_start(problem)
    orders = _orders(problem, problem.batch_size * problem.steps)

    def work():
        nonlocal parameters, state
        for _ in range(problem.epochs):
            order = next(orders).astype(np.int32).reshape(-1, problem.batch_size)
            order = order if problem.shuffles else np.arange(problem.steps, dtype=np.int32)
            parameters, state = jitted(parameters, state, x, t, order)
        jax.block_until_ready(parameters)
        return _of_jax(parameters)

    return work


def jax_inference(problem: Inference):
    """A jitted call, from a NumPy array to a NumPy array."""
    jax = _jax(problem.dtype)
    parameters = [(jax.numpy.array(W), jax.numpy.array(b)) for W, b in _pairs(problem.weights())]

    @jax.jit
    def predict(x):
        for W, b in parameters[:-1]:
            x = jax.nn.relu(x @ W + b)
        W, b = parameters[-1]
        return x @ W + b

    x = problem.x()

    def work():
        for _ in range(problem.calls):
            scores = np.asarray(predict(x))
        return [scores]

    return work


# Runtimes for inference, which take the network as an ONNX model

def _onnx_model(problem: Inference) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    kind = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}[problem.dtype]
    nodes, constants, value = [], [], "x"
    pairs = _pairs(problem.weights())
    for place, (W, b) in enumerate(pairs):
        constants += [numpy_helper.from_array(W, f"W{place}"), numpy_helper.from_array(b, f"b{place}")]
        last = place == len(pairs) - 1
        nodes.append(helper.make_node("Gemm", [value, f"W{place}", f"b{place}"], ["y" if last else f"z{place}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"z{place}"], [f"a{place}"]))
        value = f"a{place}"
    graph = helper.make_graph(
        nodes, "mlp", [helper.make_tensor_value_info("x", kind, [problem.rows, problem.sizes[0]])],
        [helper.make_tensor_value_info("y", kind, [problem.rows, problem.sizes[-1]])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def onnxruntime_inference(problem: Inference):
    """All graph optimisations, which are the default."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(_onnx_model(problem), options, providers=["CPUExecutionProvider"])
    x = problem.x()

    def work():
        for _ in range(problem.calls):
            (scores,) = session.run(None, {"x": x})
        return [scores]

    return work


def openvino_inference(problem: Inference):
    """Compiled for latency in the network's own precision; x is the input tensor's own memory, half of a call's cost."""
    import openvino

    core = openvino.Core()
    precision = {"float32": openvino.Type.f32, "float64": openvino.Type.f64}[problem.dtype]
    compiled = core.compile_model(core.read_model(_onnx_model(problem)), "CPU", {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": _threads(),
    })
    request, x = compiled.create_infer_request(), problem.x()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

    def work(x=x):  # which must live on: the tensor does not hold it
        for _ in range(problem.calls):
            scores = request.infer(share_inputs=True, share_outputs=True)[0]
        return [scores]

    return work


# What takes part: by name, the module that must be there, the function, and the dtypes that it can do.

_BOTH = ("float32", "float64")
TRAINING: dict[str, tuple[str, Callable, tuple[str, ...]]] = {
    "scikit-learn": ("sklearn", sklearn_training, _BOTH),
    "PyTorch": ("torch", torch_training, _BOTH),
    "PyTorch compiled": ("torch", torch_compiled_training, _BOTH),
    "JAX step": ("jax", jax_training, _BOTH),
    "JAX scan": ("jax", jax_scan_training, _BOTH),
}
INFERENCE: dict[str, tuple[str, Callable, tuple[str, ...]]] = {
    "PyTorch": ("torch", torch_inference, _BOTH),
    "PyTorch compiled": ("torch", torch_compiled_inference, _BOTH),
    "JAX": ("jax", jax_inference, _BOTH),
    "ONNX Runtime": ("onnxruntime", onnxruntime_inference, _BOTH),
    "OpenVINO": ("openvino", openvino_inference, ("float32",)),     # computes float64 in float32
}


def taking_part(peers: dict[str, tuple[str, Callable, tuple[str, ...]]], dtype: str) -> dict[str, Callable]:
    """Functions by name, of the peers that are installed and can do this dtype."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    found = {name: make for name, (module, make, dtypes) in peers.items() if dtype in dtypes and installed(module)}
    if not installed("onnx"):
        found = {name: make for name, make in found.items() if make not in (onnxruntime_inference, openvino_inference)}
    return found
