"""`fit_many`: networks of any kinds trained at once, each on a thread of its own."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast.trainer import Epoch, History, Step

if TYPE_CHECKING:
    from nnfast.checkpoint import Checkpoint
    from nnfast.early_stopping import EarlyStopping
    from nnfast.network import Network
    from nnfast.schedules import Schedule


def fit_many(
    networks: Sequence["Network"],
    x: ArrayLike,
    t: ArrayLike,
    *,
    rows: Sequence[ArrayLike | None] | None = None,
    validation_rows: Sequence[ArrayLike | None] | None = None,
    epochs: int | list[int] = 1,
    batch_size: int | list[int] = 100,
    optimizer: Any = None,
    validation_data: tuple[ArrayLike, ArrayLike] | list[tuple[ArrayLike, ArrayLike] | None] | None = None,
    shuffle: bool | list[bool] = True,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | str | list[Any] | None = None,
    schedule: "Schedule | list[Schedule | None] | None" = None,
    clip_value: float | list[float | None] | None = None,
    clip_norm: float | list[float | None] | None = None,
    early_stopping: "EarlyStopping | list[EarlyStopping | None] | None" = None,
    metrics: Mapping[str, Callable[[ArrayLike, np.ndarray], float]] | list[Any] | None = None,
    time_budget: float | list[float | None] | None = None,
    checkpoint: "list[Checkpoint | None] | None" = None,
    resume: list[str | os.PathLike[str] | bool | None] | bool | None = None,
    callbacks: Iterable[Callable[[Epoch], bool | None]] | list[Any] = (),
    step_callbacks: Iterable[Callable[[Step], bool | None]] | list[Any] = (),
    executor: Any = None,
    verbose: int = 0,
    progress: bool = False,
    num_threads: int | None = None,
) -> list[History]:
    """Train networks of any kinds at once (a stand-in that trains them one after the other)."""
    networks = list(networks)
    options = {
        "epochs": epochs, "batch_size": batch_size, "validation_data": validation_data, "shuffle": shuffle,
        "sample_weight": sample_weight, "class_weight": class_weight, "schedule": schedule, "clip_value": clip_value,
        "clip_norm": clip_norm, "early_stopping": early_stopping, "metrics": metrics, "time_budget": time_budget,
        "checkpoint": checkpoint, "resume": resume, "callbacks": callbacks, "step_callbacks": step_callbacks,
        "optimizer": optimizer,
    }
    x, t = np.asarray(x), np.asarray(t)
    found = []
    for place, network in enumerate(networks):
        mine = {name: value[place] if isinstance(value, list) else value for name, value in options.items()}
        if rows is not None:
            mine["x"], mine["t"] = x[rows[place]], t[rows[place]]
        found.append(network.fit(**{"x": x, "t": t, **mine}, verbose=verbose, progress=progress, num_threads=num_threads))
    return found
