"""Networks for the workers of executors, which import this module; and what their callbacks do there."""

import os
import pickle
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import nnfast
from nnfast import schedules

_generator = np.random.default_rng(0)
X = _generator.standard_normal((300, 20), np.float32)
T = _generator.integers(0, 5, 300)


def share(t, scores):
    """A metric."""
    return float((scores.argmax(axis=1) == t).mean())


OPTIONS = {
    "epochs": [3, 2, 4, 3, 1, 2, 2], "batch_size": [30, 64, 17, 100, 1, 7, 65], "validation_data": (X[:50], T[:50]),
    "schedule": [None, schedules.Cosine(), schedules.OnPlateau(patience=1), None, None, None, None],
    "early_stopping": nnfast.EarlyStopping(patience=2), "metrics": {"share": share},
    "clip_norm": [None, 1.0, None, None, None, None, None], "shuffle": [True, True, False, True, True, True, True],
}


class Noisy:
    """A layer written in Python, with statistics and a generator of its own."""

    def __init__(self, seed):
        self.generator = np.random.default_rng(seed)
        self.passes = np.zeros(1)

    @property
    def statistics(self):
        return (self.passes,)

    def forward(self, x, train_flg=False):
        if not train_flg:
            return x
        self.passes += 1
        return x + self.generator.standard_normal(x.shape).astype(x.dtype) / 8

    def backward(self, dout):
        return dout


class Heavy:
    """An optimiser written in Python, whose state is an array by key and a number."""

    def __init__(self):
        self.lr, self.velocity, self.steps = 0.1, {}, 0

    def update(self, params, grads):
        self.steps += 1
        for key, gradient in grads.items():
            velocity = self.velocity.setdefault(key, np.zeros_like(params[key]))
            velocity *= 0.5
            velocity -= self.lr * gradient
            params[key] += velocity


def networks(count=7, dtype="float32"):
    """Of unlike sizes, the last with layers that no plan takes."""
    found = [nnfast.Network(
        [nnfast.Affine(20, 8 + 3 * number), nnfast.BatchNormalization(8 + 3 * number), nnfast.Relu(), nnfast.Dropout(0.2),
         nnfast.Affine(8 + 3 * number, 5)], seed=number, dtype=dtype) for number in range(count - 1)]
    return [*found, nnfast.Network([Noisy(3), nnfast.Affine(20, 9), nnfast.Tanh(), nnfast.Affine(9, 5)], seed=9, dtype=dtype)]


def optimizers(count=7):
    kinds = [nnfast.Adam, nnfast.Momentum, lambda: nnfast.SGD(lr=0.1), Heavy]
    return [kinds[number % 4]() for number in range(count)]


def rows(count=7):
    """Of each: bootstraps of unlike lengths, and all rows of one network."""
    generator = np.random.default_rng(5)
    return [*(generator.integers(0, len(X), 130 + 20 * number) for number in range(count - 1)), None]


def bits(network, optimizer=None, history=None):
    """All that training has changed, times left out."""
    def plain(value):
        if isinstance(value, np.ndarray):
            return value.dtype.str, value.shape, value.tobytes()
        return {key: plain(one) for key, one in value.items()} if isinstance(value, dict) else value

    generators = [getattr(one, "generator", None) for one in (network, *network.layers.values())]
    found = [plain(array) for array in network.state()]
    found += [plain(one.bit_generator.state) for one in generators if one is not None]
    if optimizer is not None:
        found.append(plain(vars(optimizer)))
    if history is not None:
        found.append({key: value for key, value in vars(history).items() if key != "seconds"})
    return found


def options_of(place, options=OPTIONS):
    return {name: value[place] if isinstance(value, list) else value for name, value in options.items()}


def fitted_alone(dtype="float32"):
    """What each `Network.fit` alone gives."""
    found = []
    for place, (network, optimizer, mine) in enumerate(zip(networks(dtype=dtype), optimizers(), rows(), strict=True)):
        x, t = (X, T) if mine is None else (X[mine], T[mine])
        history = network.fit(x, t, optimizer=optimizer, num_threads=1, **options_of(place))
        found.append(bits(network, optimizer, history))
    return found


def fitted_many(executor, dtype="float32", **more):
    made, optimizer = networks(dtype=dtype), optimizers()
    histories = nnfast.fit_many(made, X, T, rows=rows(), optimizer=optimizer, executor=executor, **OPTIONS, **more)
    return [bits(*one) for one in zip(made, optimizer, histories, strict=True)]


class Ends:
    """A callback that ends its process, unless that is the caller's; only the first time if it has a file to say so."""

    def __init__(self, told=None):
        self.caller, self.told = os.getpid(), told

    def __call__(self, epoch):
        if os.getpid() == self.caller:
            raise AssertionError("this is the caller's process")
        if self.told is not None:
            if self.told.exists():
                return
            self.told.touch()
        os.kill(os.getpid(), signal.SIGKILL)


class Fails:
    """A callback with an error, which may be one that cannot be pickled."""

    def __init__(self, error):
        self.error = error

    def __call__(self, epoch):
        raise self.error("said by a callback")


class UnpicklableError(Exception):
    """An error that cannot be sent."""

    def __reduce__(self):
        raise TypeError("not to be pickled")


class OnlyHere:
    """A callback that other processes cannot unpickle."""

    def __call__(self, epoch):
        pass

    def __reduce__(self):
        return unpickled, (os.getpid(),)


def unpickled(caller):
    if os.getpid() != caller:
        raise LookupError("only in the caller's process")
    return OnlyHere()


class Notes:
    """A callback that writes a line about its process into a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, epoch):
        line = f"{os.getpid()} {os.getppid()} {nnfast.get_num_threads()}\n"
        with Path(self.folder, str(os.getpid())).open("a") as file:
            file.write(line)


class Waits:
    """A callback that says in a file that it has begun, and takes longer than any test."""

    def __init__(self, begun):
        self.begun = begun

    def __call__(self, epoch):
        Path(self.begun).touch()
        time.sleep(1000)


# How data come to a worker: what it begins with writes a line for each time


def count_arrivals(folder, sees_files=True):
    """In files of a folder, by kind and process; files that it does not see are as on another machine."""
    from nnfast import _parcels

    def noted(kind, function):
        def call(*arguments, **options):
            with Path(folder, f"{kind}-{os.getpid()}").open("a") as file:
                file.write("once\n")
            if kind == "mapped" and not sees_files:
                raise FileNotFoundError("as on another machine")
            return function(*arguments, **options)
        return call

    np.load = noted("mapped", np.load)
    _parcels.pickle = SimpleNamespace(**vars(pickle) | {"loads": noted("unpickled", pickle.loads)})


def arrivals(folder, kind):
    """How often, by process."""
    return [len(path.read_text().split()) for path in sorted(Path(folder).glob(f"{kind}-*"))]


def note_data():
    """In a worker of Dask's: the inputs that each task gets."""
    from nnfast import _parcels

    given, _parcels.noted = _parcels.trained, []

    def trained(data, *rest):
        _parcels.noted.append(data[0])
        return given(data, *rest)

    _parcels.trained = trained


def noted_data():
    """How many tasks there were, and how many arrays they had."""
    from nnfast import _parcels

    return len(_parcels.noted), len({id(array) for array in _parcels.noted})
