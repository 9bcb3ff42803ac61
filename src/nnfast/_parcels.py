"""What goes to an executor's workers and comes back: data, networks with their options, and what became of them."""

import copy
import io
import pickle
import traceback
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _fit, _many_validation, _threads, _turns
from nnfast.trainer import History

if TYPE_CHECKING:
    from nnfast.network import Network

Options = dict[str, Any]
"""Of one network, as `_fit.Fit` takes them."""

_received: tuple[str, list[np.ndarray]] = "", []
"""In a worker: the data that were sent to it last, and what their call is known by."""


# Data: a list of arrays, where a worker gets one for all its tasks (a thread of this process, Dask), or one of these


class Stored:
    """Arrays in files, which processes of a machine map: they are in its memory once, no longer than the files."""

    def __init__(self, folder: Path, arrays: list[np.ndarray]) -> None:
        self.token = uuid.uuid4().hex   # no other machine has files of these names
        self._paths = [folder / f"{self.token}-{place}.npy" for place in range(len(arrays))]
        for path, array in zip(self._paths, arrays, strict=True):
            np.save(path, array, allow_pickle=False)

    def arrays(self) -> list[np.ndarray] | None:
        """None where there are no such files."""
        if _received[0] == self.token:
            return _received[1]
        try:
            return [np.load(path, mmap_mode="r") for path in self._paths]
        except OSError:
            return None     # this is another machine, or the call is over


class Sent:
    """Arrays as bytes, for a worker that does not see the files. It keeps them until others are sent to it."""

    def __init__(self, token: str, packed: bytes) -> None:
        self._token, self._packed = token, packed

    def arrays(self) -> list[np.ndarray]:
        """Those that this worker has already, or unpacked now."""
        global _received
        if _received[0] != self._token:
            _received = self._token, pickle.loads(self._packed)
        return _received[1]


Data = list[np.ndarray] | Stored | Sent


def shared(x: np.ndarray, t: np.ndarray, options: Sequence[Options]) -> list[np.ndarray]:
    """Data that go over apart from the networks: x and t first, then arrays that several networks were given."""
    times: dict[int, int] = {}
    found: dict[int, np.ndarray] = {}
    for of_one in options:
        for value in of_one.values():
            for array in value if isinstance(value, tuple) else (value,):   # validation_data is a pair
                if type(array) is np.ndarray and array.size and not array.dtype.hasobject:
                    times[id(array)] = times.get(id(array), 0) + 1
                    found[id(array)] = array
    return [x, t, *(array for key, array in found.items() if times[key] > 1 and array is not x and array is not t)]


# Networks, on their way. Those that share something that training changes are one parcel


Parcel = bytes | list[tuple["Network", Options]]
"""Networks and their options: as bytes, or as they are for a thread of this process, which trains copies."""


@dataclass
class Contents:
    """Of a parcel that is sent."""

    networks: list[tuple["Network", Options]]
    state_of_numpy: Any     # of numpy.random, if the networks may draw from it


def packed(contents: Contents, places: Sequence[int], arrays: Sequence[np.ndarray], pickler: type) -> bytes:
    """Without the shared arrays; places: of the networks."""
    try:
        return _dumped(contents, arrays, pickler)
    except Exception as error:  # noqa: BLE001 - pickle lets through what an object raises
        for place, (network, options) in zip(places, contents.networks, strict=True):
            for name, part in {"the network itself": network, **options}.items():
                try:
                    _dumped(part, arrays, pickler)
                except Exception as its_own:  # noqa: BLE001
                    _many_validation.not_sendable(name, place, its_own)
        _many_validation.not_sendable("what belongs together", places[0], error)


def _dumped(thing: Any, arrays: Sequence[np.ndarray], pickler: type) -> bytes:
    numbers = {id(array): number for number, array in enumerate(arrays)}

    class Packer(pickler):  # type: ignore[misc]
        def persistent_id(self, thing: Any) -> int | None:
            return numbers.get(id(thing)) if type(thing) is np.ndarray else None

    file = io.BytesIO()
    Packer(file, 5).dump(thing)
    return file.getvalue()


class _Unpacker(pickle.Unpickler):
    def __init__(self, parcel: bytes, arrays: Sequence[np.ndarray]) -> None:
        super().__init__(io.BytesIO(parcel))
        self._arrays = arrays

    def persistent_load(self, number: int) -> np.ndarray:
        return self._arrays[number]


def _opened(parcel: Parcel, arrays: Sequence[np.ndarray]) -> Contents:
    if isinstance(parcel, bytes):
        contents: Contents = _Unpacker(parcel, arrays).load()
        return contents
    copies = copy.deepcopy([(network, options["optimizer"]) for network, options in parcel])
    return Contents([(network, {**options, "optimizer": optimizer})
                     for (network, optimizer), (_, options) in zip(copies, parcel, strict=True)], None)


# What a worker does


@dataclass
class Outcome:
    """What became of a network."""

    history: History
    summary: str
    error: Exception | None     # and what the others are then
    state: list[np.ndarray]     # of `Network.state`
    generators: tuple[Any, ...]
    optimizer: dict[str, Any]   # its attributes


@dataclass
class Returned:
    """What became of a parcel."""

    outcomes: Sequence[Outcome] = ()
    error: Exception | None = None      # of all its networks, none of which has begun then
    state_of_numpy: Any = None


def trained(data: Data, parcels: Sequence[Parcel], num_threads: int) -> list[Returned] | None:
    """Train the networks of some parcels; None if this worker does not have the data."""
    arrays = data if isinstance(data, list) else data.arrays()
    if arrays is None:
        return None
    with _threads.limited(num_threads):
        common: dict[Any, np.ndarray] = {}
        works = [_Work(parcel, arrays, common) for parcel in parcels]
        fits = [fit for work in works for fit in work.fits]
        errors: dict[int, Exception] = {}
        try:
            if fits:
                _turns.train(fits)
        except _turns.FitManyError as error:
            errors = {id(fits[place].job): one for place, one in error.errors.items()}
        finally:
            states = [work.end() for work in works]
    return [work.returned(errors, state) for work, state in zip(works, states, strict=True)]


class _Work:
    """A parcel, opened."""

    def __init__(self, parcel: Parcel, arrays: Sequence[np.ndarray], common: dict[Any, np.ndarray]) -> None:
        self._is_sent = isinstance(parcel, bytes)
        self.fits: list[_fit.Fit] = []
        self._optimizers: list[Any] = []    # as they were given: None for the default one
        self._error: Exception | None = None
        self._numpy_before: Any = None
        try:
            contents = _opened(parcel, arrays)
            self.fits = [
                _fit.Fit(network, *arrays[:2], **options, shared=common) for network, options in contents.networks]
            self._optimizers = [options["optimizer"] for _, options in contents.networks]
            if contents.state_of_numpy is not None:     # who draw from it are all in one parcel
                self._numpy_before = np.random.get_state(legacy=False)
                np.random.set_state(contents.state_of_numpy)
        except Exception as error:  # noqa: BLE001 - the other parcels go on
            self._error = error

    def end(self) -> Any:
        """The state that numpy.random has now, if these drew from it; it gets that of before."""
        if self._numpy_before is None:
            return None
        state = np.random.get_state(legacy=False)
        np.random.set_state(self._numpy_before)
        return state

    def returned(self, errors: Mapping[int, Exception], state_of_numpy: Any) -> Returned:
        """For the caller; errors: by the id of a fit's job."""
        outcomes = [Outcome(
            fit.job.history, fit.summary(), self._sendable(errors.get(id(fit.job))), fit.job.network.state(),
            tuple(generator.state for generator in _generators(fit.job.network)), dict(getattr(optimizer, "__dict__", {})),
        ) for fit, optimizer in zip(self.fits, self._optimizers, strict=True)]
        return Returned(outcomes, self._sendable(self._error), state_of_numpy)

    def _sendable(self, error: Exception | None) -> Exception | None:
        """The error, or one that can be sent, with the lines where it was raised."""
        if error is None or not self._is_sent:
            return error
        lines = "In the worker:\n" + "".join(traceback.format_exception(error))
        try:
            error.add_note(lines)
            pickle.loads(pickle.dumps(error))
        except Exception:   # noqa: BLE001 - pickle lets through what an object raises
            error = RuntimeError(f"{type(error).__name__}: {error}")
            error.add_note(lines)
        return error


# Networks, back again


def put_back(network: "Network", optimizer: Any, outcome: Outcome) -> None:
    """The network, its generators and its optimiser as they became; whole, also if Ctrl-C comes in between."""
    try:
        _put_back(network, optimizer, outcome)
    except KeyboardInterrupt:
        _put_back(network, optimizer, outcome)
        raise


def _put_back(network: "Network", optimizer: Any, outcome: Outcome) -> None:
    for array, became in zip(network.state(), outcome.state, strict=True):
        array[...] = became
    for generator, state in zip(_generators(network), outcome.generators, strict=True):
        generator.state = state
    for name, value in outcome.optimizer.items():
        setattr(optimizer, name, _put_into(getattr(optimizer, name, None), value))


def _put_into(old: Any, new: Any) -> Any:
    """The old arrays and dicts with new contents where they can hold them, since others may have them, too."""
    if isinstance(old, dict) and isinstance(new, dict):
        values = {key: _put_into(old.get(key), value) for key, value in new.items()}
        old.clear()
        old.update(values)
        return old
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray) and (old.shape, old.dtype) == (new.shape, new.dtype):
        old[...] = new
        return old
    return new


def _generators(network: "Network") -> list[Any]:
    """Its bit generators and its layers', each once."""
    owners = [network, *network.layers.values()]
    found = [getattr(getattr(owner, "generator", None), "bit_generator", None) for owner in owners]
    return list({id(bits): bits for bits in found if bits is not None}.values())
