"""The training of `nnfast train` once more, in nnfast and in the best plain NumPy: same weights, same batches.

Checks that losses, accuracies and weights agree, then prints both times and their ratio.
"""

import copy
import sys

import numpy as np
import timing
from numpy_mlp import NumpyMLP

ROUNDS = 9


def _start():
    """The untrained network of `nnfast train`, and its data."""
    import nnfast
    from nnfast import __main__ as command_line

    network = command_line.build_network(
        [64, *command_line.HIDDEN_WIDTHS, 10], command_line.ACTIVATION, seed=command_line.SEED, dtype=command_line.DTYPE
    )
    (x_train, t_train), (x_test, t_test) = nnfast.load_digits()
    settings = {
        "epochs": command_line.EPOCHS["digits"], "batch_size": command_line.BATCH_SIZE,
        "lr": command_line.LEARNING_RATE,
    }
    dtype = command_line.DTYPE      # converted beforehand, for both
    return network, (x_train.astype(dtype), t_train.astype(np.intp), x_test.astype(dtype), t_test.astype(np.intp)), settings


def nnfast_demo():
    import nnfast

    untrained, (x_train, t_train, x_test, t_test), settings = _start()

    def work():
        network = copy.deepcopy(untrained)
        history = network.fit(
            x_train, t_train, epochs=settings["epochs"], batch_size=settings["batch_size"],
            optimizer=nnfast.SGD(settings["lr"]), validation_data=(x_test, t_test),
        )
        curves = [history.loss, history.accuracy, history.validation_loss, history.validation_accuracy]
        return [*network.params.values(), np.array(curves)]

    return work


def numpy_demo():
    untrained, (x_train, t_train, x_test, t_test), settings = _start()
    weights = list(untrained.params.values())

    def work():
        # Memory for the test images too: they are evaluated at once.
        network = NumpyMLP(weights, settings["batch_size"], lr=settings["lr"])
        evaluator = NumpyMLP(weights, len(t_test))
        generator = copy.deepcopy(untrained.generator)
        curves = []
        for _ in range(settings["epochs"]):
            loss, accuracy = network.epoch(x_train, t_train, generator.permutation(len(x_train)))
            evaluator.flat[...] = network.flat
            curves.append((loss, accuracy, *evaluator.evaluate(x_test, t_test)))
        parameters = [array for pair in zip(network.W, network.b, strict=True) for array in pair]
        return [*parameters, np.array(curves).T]

    return work


def main() -> int:
    """Run the comparison; 1 if the results disagree."""
    contestants = {"NumPy": timing.Contestant(numpy_demo, ()), timing.OURS: timing.Contestant(nnfast_demo, ())}
    case = timing.Case("the demo", "the digits in the package", contestants, 1e-3)
    print("the same training in plain NumPy, same weights and batches:")
    try:
        row = timing.measure(case, timing.all_threads(), ROUNDS)
    except timing.DisagreementError as error:
        print(error, file=sys.stderr)
        return 1
    numpy_ms, nnfast_ms = (row.median(who) / 1e3 for who in ("NumPy", timing.OURS))
    print(f"  NumPy {numpy_ms:.1f} ms, nnfast {nnfast_ms:.1f} ms, ratio {row.ratio('NumPy'):.2f} (above 1: nnfast is faster; "
          f"medians of {ROUNDS} runs in turn, {row.threads} threads)")
    print(f"  weights, losses and accuracies agree (largest relative difference {row.difference:.0e})")
    about = timing.facts("python bench/bench_demo.py", [])
    print(f"  {about['CPU']}; nnfast {about['nnfast']}; NumPy {about['NumPy']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
