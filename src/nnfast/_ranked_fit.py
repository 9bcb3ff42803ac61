"""`Network.fit` on the ranks of a communicator: what must be alike on all of them, and what they decide together."""

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import nnfast
from nnfast import _fit, _fit_validation, _kernels, _plan, _ranks_validation, _threads
from nnfast.trainer import History

if TYPE_CHECKING:
    from nnfast._checkpoint import Saver
    from nnfast._ranks import Ranks
    from nnfast.checkpoint import Checkpoint
    from nnfast.network import Network

_STEPS_UNCHECKED = 100
"""After so many steps ranks compare their weights when the epoch is over: to digest them takes less than a step."""

_SIMPLE = (bool, int, float, str, type(None))

_OF_FIRST: dict[str, Any] = {"checkpoint": None, "resume": None, "verbose": 0, "progress": False}
"""Options of which those of rank 0 count, and what stands for them on the others."""


def fit(ranks: "Ranks", network: "Network", x: Any, t: Any, *, num_threads: int | None, **options: Any) -> History:
    """`Network.fit` with `comm`, on one of several ranks."""
    with ranks:
        if ranks.rank:
            options |= _OF_FIRST
        # A map of a file is an array, too: steps read the rows that they take.
        x = np.asarray(x) if isinstance(x, np.memmap) else x
        ranked = RankedFit(ranks, network, x, t, **options)
        with _threads.limited(_threads.among(ranked.on_these_cores) if num_threads is None else num_threads):
            history = _plan.taken(ranked.turns())
        ranked.compare_weights("in the end")
    return history


class RankedFit(_fit.Fit):
    """A fit on one of several ranks, with this rank's rows."""

    def __init__(self, ranks: "Ranks", network: "Network", x: Any, t: Any, **options: Any) -> None:
        self._ranks = ranks
        self._batch_size = options["batch_size"]
        # What is balanced is known when all rows are.
        self._is_balanced = isinstance(options["class_weight"], str)
        if self._is_balanced:
            _fit_validation.class_weight(options["class_weight"], np.ones(1, np.int64))
            _fit_validation.weighs_rows(network)
            options = {**options, "class_weight": None}
        self._unchecked = 0     # steps since the weights were compared
        super().__init__(network, x, t, **options)

    def _keep(self, checkpoint: "Checkpoint | None", resumed_path: Path | None, has_validation: bool) -> None:
        """Agree with the other ranks on what is trained before anything is kept."""
        job, ranks = self.job, self._ranks
        _ranks_validation.not_streamed(job.stream)
        _ranks_validation.trains_in_compiled_code(_plan.obstacle(job.network, job.optimizer))
        job.optimizer.states(job.network.params)    # refuses what does not fit
        self._agree(has_validation)
        job.ranks, job.is_watched, job.is_told = ranks, True, True    # of each epoch, which ends alike everywhere
        ranks.share_rows(self._rows, self._batch_size)
        job.batch_size = self._batch_size
        if ranks.rank == 0:
            super()._keep(checkpoint, resumed_path, has_validation)
        is_kept, resumed = ranks.given_by_first(
            (job.saver is not None, None if self._resumed is None else self._resumed.contents()))
        if is_kept:
            job.saver = _SharedSaver(ranks, job.saver)  # type: ignore[assignment]
        if resumed is not None and ranks.rank:
            from nnfast import _resume

            self._resumed = _resume.Resumed(Path(), self._kept(has_validation))
            self._resumed.take(resumed)

    def _agree(self, has_validation: bool) -> None:
        """Compare with the other ranks what must be alike, and learn what may differ."""
        job, ranks = self.job, self._ranks
        said = ranks.meet((self._facts(has_validation), len(job.x), _cores(), bool(job.step_callbacks)))
        facts, rows, cores, are_told_of_steps = zip(*said, strict=True)
        difference = _ranks_validation.disagreement(facts)
        if difference is not None:
            ranks.refuse(ValueError(difference))
        self._rows = list(rows)
        self.on_these_cores = cores.count(cores[ranks.rank])
        if any(are_told_of_steps) and not job.step_callbacks:
            job.step_callbacks = [_hears_of_steps]
        if self._is_balanced:
            labels, classes = _fit_validation.classes(job.t, job.network, job.network.outputs)
            counts = np.sum(ranks.meet(np.bincount(labels, minlength=classes)), axis=0)
            weights = _fit_validation.class_weight("balanced", counts)[labels]
            job.weights = weights * job.weights if job.weights.size else weights

    def _facts(self, has_validation: bool) -> dict[str, tuple[str, str]]:
        """What must be alike on all ranks, and what to do if it is not, by name."""
        job, stopping = self.job, self._stopping
        found = {name: (value, "install the same on all of them") for name, value in (
            ("the version of nnfast", nnfast.__version__), ("the version of NumPy", np.__version__))}
        found["the instruction set"] = (
            _kernels.ISA, "set the environment variable NNFAST_ISA to one that all processors have, such as baseline")
        found |= {name: (value, "give all ranks the same network") for name, value in _described(job.network).items()}
        options = {
            "optimizer": type(job.optimizer).__name__,
            **{f"the optimizer's {name}": repr(value) for name, value in vars(job.optimizer).items()
               if isinstance(value, _SIMPLE)},
            "epochs": job.epochs, "batch_size": self._batch_size, "shuffle": job.shuffle,
            "class_weight": "balanced" if self._is_balanced else "not balanced",
            "sample_weight or class_weight": "given" if job.weights.size or self._is_balanced else "not given",
            "schedule": [[getattr(one, "__name__", type(one).__name__), *(
                f"{name}={value!r}" for name, value in getattr(one, "__dict__", {}).items() if isinstance(value, _SIMPLE)
            )] for one in _fit._with_those_after(job.schedule)] or None,
            "clip_value": job.clip_value, "clip_norm": job.clip_norm,
            "early_stopping": None if stopping is None else stopping.settings(),
            "validation_data": "given" if has_validation else "not given", "metrics": list(self._metrics),
            "time_budget": job.time_budget,
        }
        found |= {name: (str(value), "give all ranks the same") for name, value in options.items()}
        found |= {f"the digest of {name}": (_digest(array), (
            "make the network with the same seed on all ranks, or give all of them the weights of rank 0, "
            "network.flat_params = comm.bcast(network.flat_params)" if name in job.network.params else
            "give all ranks the same network and optimizer"
        )) for name, array in _arrays(job).items()}
        found |= {f"the state of {name}": (_digest(state), remedy) for name, state, remedy in _generators(job.network)}
        return found

    def compare_weights(self, when: str) -> None:
        """That all ranks have the same bits."""
        self._refuse_differences(self._ranks.meet(self._digests()), when)

    def _digests(self) -> dict[str, str]:
        found = {name: _digest(array) for name, array in _arrays(self.job).items()}
        return found | {f"the state of {name}": _digest(state) for name, state, _ in _generators(self.job.network)}

    def _refuse_differences(self, digests: Sequence[dict[str, str]], when: str) -> None:
        for name in digests[0]:
            others = [rank for rank, of_rank in enumerate(digests) if of_rank[name] != digests[0][name]]
            if others:
                self._ranks.refuse(_ranks_validation.diverged(name, others, when))

    def _end_epoch(self, loss: float, accuracy: float | None, seconds: float, rows: int) -> bool:
        self._unchecked += self.job.steps
        digests = None
        if self._unchecked >= _STEPS_UNCHECKED:     # on all ranks alike
            self._unchecked, digests = 0, self._digests()
        of_ranks, said = zip(*self._ranks.meet((seconds, digests)), strict=True)
        if digests is not None:
            self._refuse_differences(said, f"after epoch {len(self.job.history.loss) + 1}")
        return super()._end_epoch(loss, accuracy, max(of_ranks), rows)

    def _evaluated(self) -> tuple[float | None, float | None, dict[str, float]]:
        """Loss, accuracy and metrics on the validation data of all ranks together."""
        if self._validation_data is None:
            return None, None, {}
        network, ranks, (x, t) = self.job.network, self._ranks, self._validation_data
        own_loss, own_accuracy, _ = _fit.evaluated(network, (x, t), {})
        said = ranks.meet((len(np.asarray(t)), own_loss, own_accuracy))
        rows, losses, accuracies = zip(*said, strict=True)
        loss = _mean(losses, rows)
        accuracy = None if own_accuracy is None else _mean(accuracies, rows)
        if not self._metrics:
            return loss, accuracy, {}
        parts = ranks.meet((np.asarray(t), network.predict(x)))
        found: dict[str, float] = {}
        if ranks.rank == 0:
            targets, scores = (np.concatenate(of_all) for of_all in zip(*parts, strict=True))
            found = {name: _fit_validation.metric_value(name, metric(targets, scores))
                     for name, metric in self._metrics.items()}
        return loss, accuracy, ranks.given_by_first(found)

    def _agreed(self, is_over: bool) -> bool:
        """Whether the fit is over, for one of the ranks at least."""
        return any(self._ranks.meet(is_over or self.job.clock() > self.job.deadline))


class _SharedSaver:
    """The saver of rank 0, for all ranks, of which the others wait until it has written."""

    def __init__(self, ranks: "Ranks", saver: "Saver | None") -> None:
        self._ranks, self._saver = ranks, saver

    @property
    def due(self) -> float:
        return math.inf if self._saver is None else self._saver.due

    def begin(self, begun: _plan.Begun) -> None:
        if self._saver is not None:
            self._saver.begin(begun)

    def within(self, step: int, loss: float, correct: int | None) -> None:
        """The plan lets the ranks meet."""
        if self._saver is not None:
            self._saver.within(step, loss, correct)

    def after(self, epoch: int) -> None:
        if self._saver is not None:
            self._saver.after(epoch)
        self._ranks.meet(None)

    def end(self) -> None:
        if self._saver is not None:
            self._saver.end()
        self._ranks.meet(None)


def _hears_of_steps(step: Any) -> None:
    """Stands in on a rank that has no callback of steps, where another one has."""


def _mean(values: Sequence[Any], rows: Sequence[int]) -> float:
    """Over all rows, of means over the rows of each rank."""
    return math.fsum(value * of_rank for value, of_rank in zip(values, rows, strict=True)) / sum(rows)


def _described(network: "Network") -> dict[str, str]:
    from nnfast import _model_files  # here, for only who trains with others needs json and zipfile

    found: dict[str, Any] = dict(_model_files.described(network))
    layers = found.pop("layers")
    del found["format_version"]
    found = {"the number of inputs": network.inputs, "the number of outputs": network.outputs,
             "the number of layers": len(layers), **{f"the network's {name}": value for name, value in found.items()}}
    for place, layer in enumerate(layers, 1):
        found[f"layer {place}"] = ", ".join(
            f"{name} {value}" for name, value in layer.items() if name != "name").removeprefix("kind ")
    return {name: str(value) for name, value in found.items()}


def _arrays(job: Any) -> dict[str, np.ndarray]:
    """Everything of which all ranks must have the same bits, by name."""
    from nnfast import _model_files

    network = job.network
    found = dict(_model_files.arrays_of(network))
    for key, states in job.optimizer.states(network.params).items():
        for name, state in zip(job.optimizer._states, states, strict=True):
            found[f"the optimizer's {name} of {key}"] = state
    return found


def _generators(network: "Network") -> Iterable[tuple[str, Any, str]]:
    """What draws random numbers, its state, and how it gets another one."""
    yield "the network's random generator", network.generator.bit_generator.state, "give the network the same seed on all ranks"
    if any(hasattr(layer, "dropout_ratio") and layer.generator is None for layer in network.layers.values()):
        yield "np.random", np.random.get_state(legacy=False), "call np.random.seed with the same number on all ranks"


def _digest(thing: Any) -> str:
    hashed = hashlib.blake2b(digest_size=8)
    for part in _parts(thing):
        hashed.update(part)
    return hashed.hexdigest()


def _parts(thing: Any) -> Iterable[Any]:
    if isinstance(thing, np.ndarray):
        yield f"{thing.dtype.str}{thing.shape}".encode()
        yield np.ascontiguousarray(thing).data
    elif isinstance(thing, Mapping):
        for name, value in thing.items():
            yield name.encode()
            yield from _parts(value)
    else:
        yield repr(thing).encode()


def _cores() -> tuple[str, tuple[int, ...]]:
    """The machine, and which of its processors this process may use."""
    import platform

    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return platform.node(), tuple(sorted(allowed))
