"""The command line.

``nnfast train`` trains a network on handwritten digits, ``nnfast check`` compares backpropagation with the numerical
gradient, ``nnfast info`` tells what is installed.

Whatever is refused is refused in one sentence, with exit status 2 and before anything is written.
"""

import argparse
import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

import nnfast
from nnfast import _pictures, _ranks, _validation
from nnfast._files import require_writable
from nnfast.layers import Affine
from nnfast.network import ACTIVATIONS, Network
from nnfast.optimizer import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, Optimizer, RMSprop

# What `nnfast train` does without options. The benchmark beside it trains the same network in the same way.
HIDDEN_WIDTHS = (50,)
ACTIVATION = "relu"
LEARNING_RATE = 0.1     # of SGD; the other optimisers have sensible ones of their own
BATCH_SIZE = 100
EPOCHS = {"digits": 30, "mnist": 17}
SEED = 0
DTYPE = "float32"

# What `nnfast check` does without options.
EXAMPLES = 100
H = 1e-4
TOLERANCE = 1e-5

_OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    kind.__name__.lower(): kind for kind in (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam, AdamW)
}

_Examples: TypeAlias = tuple[np.ndarray, np.ndarray]
_CLASSES = 10

# What launchers of MPI set to the number of processes: Open MPI, MPICH and its kin, MVAPICH, srun.
_LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")

# Exit statuses: argparse's own, and the one by which shells tell of Ctrl-C, 128 + SIGINT.
_WRONG = 1
_REFUSED = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; those of this process if not given.

    Returns
    -------
    int
        0 if all went well, 1 if a gradient is wrong or nobody reads the output any more, 2 if something was refused, 130
        after Ctrl-C.

    Raises
    ------
    SystemExit
        After ``--help`` and ``--version`` (status 0), and for arguments that cannot be read (status 2).

    Examples
    --------
    >>> main(["info"])  # doctest: +ELLIPSIS
    nnfast ...
    0
    """
    parser = _parser()
    options = parser.parse_args(argv)
    if options.run is None:
        parser.print_help(sys.stderr)
        return _REFUSED
    options.rank = 0    # of several processes that train together
    try:
        status: int = options.run(options) or 0
        print(end="", flush=True)       # what is still buffered must fail here, not when Python ends
    except BrokenPipeError:
        # The reader has seen enough (`nnfast train | head -1`). Python flushes once more as it ends: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        _complain("interrupted", options.rank)
        return _INTERRUPTED
    except (ValueError, OSError, FloatingPointError, MemoryError, _ranks.OtherRankError) as error:
        _complain(error, options.rank)      # the library's errors are sentences
        return _REFUSED
    return status


def _complain(what: object, rank: int) -> None:
    """Say it once: the first rank hears of what goes wrong on the others."""
    if rank == 0:
        print(f"nnfast: {what}", file=sys.stderr)


def build_network(widths: Sequence[int], activation: str, *, seed: int, dtype: DTypeLike) -> Network:
    """The network that ``nnfast train`` trains: Affine layers with an activation between each two of them.

    Parameters
    ----------
    widths : sequence of int
        Inputs, units of each hidden layer, classes.
    activation : str
        A name in `nnfast.network.ACTIVATIONS`. With the kinds of ReLU weights are drawn as He et al. propose,
        with the others as Glorot and Bengio do.
    seed : int
        Of the weights, and of the order of the examples.
    dtype : {"float32", "float64"}
        Of the parameters.

    Returns
    -------
    Network
        Untrained, with softmax and cross-entropy.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> build_network([64, 50, 10], "relu", seed=0, dtype="float32")
    Network([Affine1, Relu1, Affine2], SoftmaxWithLoss)
    """
    activation = _validation.check_choice("activation", activation, list(ACTIVATIONS))
    init = "he" if activation in ("relu", "leaky_relu", "gelu") else "xavier"
    first, *others = (Affine(*sizes, init=init) for sizes in pairwise(widths))
    layers = [first]
    for affine in others:
        layers += [ACTIVATIONS[activation](), affine]
    return Network(layers, seed=seed, dtype=dtype)


# The commands


def _info(_: argparse.Namespace) -> None:
    print(nnfast.show_config())


def _train(options: argparse.Namespace) -> None:
    comm = _comm()
    ranks = None if comm is None else _ranks.of(comm)
    options.rank = 0 if ranks is None else ranks.rank
    curves, mistakes = options.pictures / "nnfast-curves.png", options.pictures / "nnfast-mistakes.png"
    draws = not options.no_pictures and _is_installed("matplotlib")
    with ranks or contextlib.nullcontext():     # the others hear of it if one of them is refused something
        if options.rank == 0:
            _refuse_what_cannot_be_written(options, [curves, mistakes] if draws else [])
            examples = _load(options)
        if ranks is not None:
            ranks.meet(None)    # the first one has fetched what there was to fetch
            if ranks.rank:
                examples = _load(options)
    (x_train, t_train), (x_test, t_test) = examples
    nnfast.set_num_threads(options.threads)
    widths = [x_train.shape[1], *options.layers, _CLASSES]
    network = build_network(widths, options.activation, seed=options.seed, dtype=options.dtype)
    if not options.quiet and options.rank == 0:
        together = "" if ranks is None else f" by {ranks.size} processes together"
        print(f"{options.data}: {len(x_train):,} images to train on{together}, {len(x_test):,} to test; "
              f"network {'-'.join(map(str, widths))}")
    train, test = (_part(len(t), ranks) for t in (t_train, t_test))
    history = network.fit(
        x_train[train], t_train[train], epochs=options.epochs or EPOCHS[options.data], batch_size=options.batch_size,
        optimizer=_optimizer(options), validation_data=(x_test[test], t_test[test]), verbose=not options.quiet,
        progress=_shows_bar(options), resume=options.resume,
        checkpoint=None if options.checkpoint is None else nnfast.Checkpoint(options.checkpoint), comm=comm,
    )
    if options.rank:
        return
    predicted = network.predict(x_test).argmax(axis=1)
    correct = int((predicted == t_test).sum())
    print(f"test accuracy {correct / len(t_test):.4f}: {correct:,} of {len(t_test):,} images right")

    if options.save is not None:
        network.save(options.save)
        print(f"saved {options.save}")
    if draws:
        print(f"saved {_pictures.save_curves(history, curves)}")
        print(f"saved {_pictures.save_mistakes(x_test, t_test, predicted, mistakes)}")
    elif not options.no_pictures:
        print('pictures need matplotlib: pip install "nnfast[plot]"')


def _refuse_what_cannot_be_written(options: argparse.Namespace, pictures: list[Path]) -> None:
    for path in pictures:
        require_writable(path, "name another folder with --pictures, or use --no-pictures")
    if options.resume and options.checkpoint is None:
        raise ValueError("--resume goes on from the file of --checkpoint, but that names none")
    if options.checkpoint is not None:
        require_writable(options.checkpoint, "name another file with --checkpoint")
    if options.save is not None:
        require_writable(options.save, "name another file with --save")


def _comm() -> Any:
    """The communicator of the processes that a launcher of MPI has started; None if this is the only one."""
    started = max(_whole(os.environ.get(name, "")) for name in _LAUNCHED)
    if started < 2:     # to import MPI would begin it
        return None
    if not _is_installed("mpi4py"):
        raise ValueError(f"this is one of {started} processes of an MPI launcher, but they need mpi4py to train together: "
                         'pip install "nnfast[mpi]"')
    from mpi4py import MPI

    if MPI.COMM_WORLD.size == 1:
        raise ValueError(f"this is one of {started} processes of a launcher, but the MPI of mpi4py, {MPI.get_vendor()[0]}, "
                         "was started by none: use the mpiexec that belongs to it")
    return MPI.COMM_WORLD


def _part(rows: int, ranks: "_ranks.Ranks | None") -> slice:
    """The rows of this process, of so many."""
    if ranks is None:
        return slice(rows)
    return slice(rows * ranks.rank // ranks.size, rows * (ranks.rank + 1) // ranks.size)


def _check(options: argparse.Namespace) -> int:
    (x, t), _ = _load(options)
    nnfast.set_num_threads(options.threads)
    if options.network is None:
        widths = [x.shape[1], *options.layers, _CLASSES]
        network = build_network(widths, options.activation, seed=options.seed, dtype="float64")
    else:
        network = Network.load(options.network)
    rows = slice(options.examples)
    report = nnfast.gradient_check(network, x[rows], t[rows], h=options.h, tolerance=options.tolerance)
    print(report)
    return 0 if report.passed else _WRONG


def _load(options: argparse.Namespace) -> tuple[_Examples, _Examples]:
    if options.data == "mnist":
        return nnfast.load_mnist(data_dir=options.data_dir, download=options.download)
    if options.data_dir is not None or options.download:
        raise ValueError("--data-dir and --download are for MNIST, but --data is digits: add --data mnist")
    return nnfast.load_digits()


def _optimizer(options: argparse.Namespace) -> Optimizer:
    kind = _OPTIMIZERS[options.optimizer]
    if options.lr is not None:
        return kind(options.lr)
    return SGD(LEARNING_RATE) if kind is SGD else kind()


def _shows_bar(options: argparse.Namespace) -> bool:
    """Whether there is somebody to watch a progress bar, and something to draw it with."""
    is_watched = sys.stderr is not None and sys.stderr.isatty()     # None: closed, as by 2>&-
    return not options.quiet and is_watched and _is_installed("tqdm")


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


# The arguments


class _Parser(argparse.ArgumentParser):
    """Refuses in one sentence, as everything else here does, instead of with lines of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(_REFUSED, f"nnfast: {message} (see {self.prog} --help)\n")


def _parser() -> _Parser:
    parser = _Parser(prog="nnfast", description="Multi-layer perceptrons on the CPU, fast.")
    parser.add_argument("--version", action="version", version=f"nnfast {nnfast.__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_train_options(commands.add_parser(
        "train", help="train a network on handwritten digits", description=(
            "Train a network on handwritten digits, tell how well it does on images that it has not seen, and draw "
            "how it learned and what it gets wrong."
        ),
    ))
    _add_check_options(commands.add_parser(
        "check", help="compare backpropagation with the numerical gradient", description=(
            "Compare backpropagation with the numerical gradient, parameter by parameter, for a network described here "
            "or saved by nnfast train. The exit status is 1 if a gradient is wrong."
        ),
    ))
    what = "tell the version, instruction set and number of threads in use"
    commands.add_parser("info", help=what, description=what.capitalize() + ".").set_defaults(run=_info)
    return parser


def _add_train_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_train)
    _add_data_options(parser)
    network = _add_network_options(parser)
    network.add_argument("--dtype", choices=["float32", "float64"], default=DTYPE, help=(
        "of the parameters, and of all computing (default: %(default)s)"
    ))

    training = parser.add_argument_group("training")
    training.add_argument("--optimizer", choices=list(_OPTIMIZERS), default="sgd", metavar="NAME", help=(
        f"{', '.join(_OPTIMIZERS)} (default: %(default)s)"
    ))
    training.add_argument("--lr", type=_learning_rate, metavar="X", help=(
        f"learning rate (default: {LEARNING_RATE} for sgd, 0.001 for adam and adamw, 0.01 for the others)"
    ))
    training.add_argument("--batch-size", type=_count(1), default=BATCH_SIZE, metavar="N", help=(
        "examples a step (default: %(default)s)"
    ))
    training.add_argument("--epochs", type=_count(1), metavar="N", help=(
        f"passes over the data (default: {', '.join(f'{epochs} for {data}' for data, epochs in EPOCHS.items())})"
    ))
    training.add_argument("--seed", type=_count(0), default=SEED, metavar="N", help=(
        "of the weights and of the order of the examples (default: %(default)s)"
    ))
    training.add_argument("--threads", type=_count(1), metavar="N", help=(
        "at most so many (default: what nnfast info tells); the result does not depend on it"
    ))

    training.add_argument("--checkpoint", type=Path, metavar="FILE.npz", help=(
        "keep the training after every epoch, for --resume (default: do not)"
    ))
    training.add_argument("--resume", action="store_true", help=(
        "go on from the file of --checkpoint if it is there, to the same result as in one go (default: begin)"
    ))

    output = parser.add_argument_group("output")
    output.add_argument("--save", type=Path, metavar="FILE.npz", help=(
        "keep the network, for Network.load, nnfast check or numpy.load (default: do not)"
    ))
    output.add_argument("--pictures", type=Path, default=Path(), metavar="DIR", help=(
        "folder for nnfast-curves.png and nnfast-mistakes.png (default: the current one)"
    ))
    output.add_argument("--no-pictures", action="store_true", help="draw nothing (default: draw)")
    output.add_argument("--quiet", action="store_true", help="print the result only (default: a line an epoch)")


def _add_check_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_check)
    data = _add_data_options(parser)
    data.add_argument("--examples", type=_count(1), default=EXAMPLES, metavar="N", help=(
        "the first so many images (default: %(default)s)"
    ))
    network = _add_network_options(parser)
    network.add_argument("--network", type=Path, metavar="FILE.npz", help=(
        "a network that nnfast train --save or Network.save has kept (default: a new one of --layers and --activation)"
    ))
    network.add_argument("--seed", type=_count(0), default=SEED, metavar="N", help=(
        "of a new one's weights (default: %(default)s)"
    ))
    comparison = parser.add_argument_group("comparison")
    comparison.add_argument("--h", type=_above_zero, default=H, metavar="X", help=(
        "step of the central differences (default: %(default)s)"
    ))
    comparison.add_argument("--tolerance", type=_above_zero, default=TOLERANCE, metavar="X", help=(
        "largest error that passes, in parts of an array's largest gradient (default: %(default)s)"
    ))
    comparison.add_argument("--threads", type=_count(1), metavar="N", help=(
        "at most so many (default: what nnfast info tells); the result does not depend on it"
    ))


def _add_data_options(parser: argparse.ArgumentParser) -> Any:
    data = parser.add_argument_group("data")
    data.add_argument("--data", choices=list(EPOCHS), default="digits", help=(
        "digits: 1,797 images of 8 x 8 pixels, inside the package; mnist: 70,000 of 28 x 28 (default: %(default)s)"
    ))
    data.add_argument("--data-dir", metavar="DIR", help=(
        "folder with the four files of MNIST (default: what NNFAST_DATA_DIR names, then the user's cache)"
    ))
    data.add_argument("--download", action="store_true", help="fetch MNIST (11 MB) if it is not there (default: no)")
    return data


def _add_network_options(parser: argparse.ArgumentParser) -> Any:
    network = parser.add_argument_group("network")
    network.add_argument("--layers", type=_widths, default=list(HIDDEN_WIDTHS), metavar="N,N,...", help=(
        f"units of each hidden layer, or none for no hidden layer (default: {','.join(map(str, HIDDEN_WIDTHS))})"
    ))
    network.add_argument("--activation", choices=list(ACTIVATIONS), default=ACTIVATION, metavar="NAME", help=(
        f"of the hidden layers: {', '.join(ACTIVATIONS)} (default: %(default)s)"
    ))
    return network


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _count(least: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers of at least `least`."""
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return count


def _widths(text: str) -> list[int]:
    if text == "none":
        return []
    try:
        return [_count(1)(width) for width in text.split(",")]
    except argparse.ArgumentTypeError:
        expected = "none nor whole numbers of at least 1 with commas between, such as 256,128"
        raise argparse.ArgumentTypeError(f"{text!r} is neither {expected}") from None


def _above_zero(text: str) -> float:
    try:
        return _validation.above_zero("X", text)
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0") from None


def _learning_rate(text: str) -> float:
    try:
        return _validation.check_number("lr", text, 0)
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number of at least 0") from None


if __name__ == "__main__":
    sys.exit(main())
