"""`fit_many`: networks of any kinds trained at once, each on a thread of its own. How they take turns is in _turns.py."""

import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _fit, _many_validation, _threads, _turns, _validation
from nnfast.trainer import Epoch, History, Step

if TYPE_CHECKING:
    from nnfast.checkpoint import Checkpoint
    from nnfast.early_stopping import EarlyStopping
    from nnfast.network import Network
    from nnfast.schedules import Schedule


def fit_many(
    networks: "Sequence[Network]",
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
    sample_weight: ArrayLike | list[ArrayLike | None] | None = None,
    class_weight: Mapping[int, float] | str | list[Any] | None = None,
    schedule: "Schedule | list[Schedule | None] | None" = None,
    clip_value: float | list[float | None] | None = None,
    clip_norm: float | list[float | None] | None = None,
    early_stopping: "EarlyStopping | list[EarlyStopping | None] | None" = None,
    metrics: Mapping[str, Callable[[ArrayLike, np.ndarray], float]] | list[Any] | None = None,
    time_budget: float | list[float | None] | None = None,
    checkpoint: "list[Checkpoint | None] | None" = None,
    resume: list[str | os.PathLike[str] | bool | None] | None = None,
    callbacks: Iterable[Callable[[Epoch], bool | None]] | list[Any] = (),
    step_callbacks: Iterable[Callable[[Step], bool | None]] | list[Any] = (),
    executor: Any = None,
    comm: None = None,
    verbose: int = 0,
    progress: bool = False,
    num_threads: int | None = None,
) -> list[History]:
    """Train many networks at once, each on a thread of its own.

    Small networks do not fill a processor one at a time: their steps are too short for several threads. Here each thread has
    a network, in its own cache, and all read the same data. Networks may differ in everything: layers, loss, optimiser,
    dtype, seed. Each is trained as `Network.fit` trains it alone, to the bit. The largest ones begin, so that no
    thread waits long for the last one; the last one gets all threads.

    Options are those of `Network.fit`. **A list has one for each network, anything else is for all.** (Lists of functions,
    as `callbacks` are, and a list of row weights are for all as well; a list of such lists has one for each.)

    Parameters
    ----------
    networks : sequence of Network
        Each once. Their parameters change in place.
    x : array_like
        Inputs of all of them, shape (B, I), finite in the rows that are used; not copied if it has the networks' dtype.
    t : array_like
        Targets, as the output layers take them.
    rows : sequence of array_like, optional
        For each network the numbers of the rows to train on, shape (n,), or a mask, shape (B,), or None for all: folds, or
        bootstrap samples, in which rows may be there several times. Training is that on ``x[rows]``, ``t[rows]``, but
        nothing is copied.
    validation_rows : sequence of array_like, optional
        Likewise the rows that are evaluated after each epoch, instead of `validation_data`.
    epochs, batch_size : int or list of int
        As in `Network.fit`, like all that follow.
    optimizer : optimiser or list of optimisers, optional
        One for all is copied for each network, and is not changed itself.
    validation_data, shuffle : optional
        One for all or a list.
    sample_weight : array_like or list of array_like, optional
        Of all rows of `x`, shape (B,).
    class_weight, schedule, clip_value, clip_norm, early_stopping, metrics : optional
        One for all or a list.
    time_budget : float or list of float, optional
        Seconds, above 0, that each network may train, those not counted in which others have its thread.
    checkpoint, resume : list, optional
        One for each network.
    callbacks, step_callbacks : iterable of callables, or list of them
        Called in the thread that calls this function, or with an executor in its workers.
    executor : concurrent.futures.Executor or the like, optional
        What trains the networks instead of this process: processes or threads of `concurrent.futures`, Dask's
        ``client.get_executor()`` or client, ``mpi4py.futures``, or any object with a ``submit`` that returns futures.
        Networks go over in groups, the costliest first, several for each worker; x and t once for each worker. What
        comes back is put into the networks, their random generators, a list's optimisers and the histories, to the
        same bits.
    comm : None
        Not for this function: one network is trained on all ranks of a communicator by `Network.fit`.
    verbose : int, default 0
        1 prints a line for each network that is finished.
    progress : bool, default False
        Show a progress bar of networks, if tqdm is installed (``pip install nnfast[progress]``); on the standard error.
    num_threads : int, optional
        At most so many networks at a time; `nnfast.get_num_threads` if not given. With an `executor`, of each group: if
        not given, threads and processes of this machine share its cores, and elsewhere a group has one.

    Returns
    -------
    list of History
        One for each network, in their order. Seconds are those that the network itself trained.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; nothing has changed then.
    FitManyError
        If networks could not be trained to the end, as when a loss becomes NaN, or their worker ended, twice. It names
        them; the others have been.
    RuntimeError
        If another call is training one of the networks.

    Notes
    -----
    After Ctrl-C, networks that are finished stay so, and those on their way have the weights of their last finished epoch.

    Networks that share something that training changes (an array, a random generator, ``numpy.random``) are trained one after
    the other, in their order. What is written in Python (a layer, a loss, an optimiser, a schedule, a metric, a network's own
    `accuracy`) runs in the calling thread.

    One thread at a time does Python. So where an epoch is shorter than half a millisecond and somebody looks at each, as early
    stopping does, fits take their epochs one after the other; processes (`executor`) do not.

    With an executor, callbacks, metrics and whatever else is written in Python run in the workers, on copies of the
    networks, and but for threads must be such that pickle takes it. A layer written in Python comes back as far as
    `params`, an attribute `statistics` (a tuple of arrays) and an attribute `generator` go; what it draws from
    ``numpy.random`` is its worker's. Files of `checkpoint` and `resume` are those that the workers see under the same path. If a worker ends,
    what it had is tried again, once: by the executor, or, if that takes no more work, by a new process of this machine.
    After Ctrl-C what is finished is kept, what has not begun never does, and what is on its way is left as it was.

    Examples
    --------
    Five networks on five folds:

    >>> import numpy as np
    >>> import nnfast
    >>> x, t = nnfast.load_digits(flatten=True)[0]
    >>> folds = np.array_split(np.random.default_rng(0).permutation(len(x)), 5)
    >>> networks = [nnfast.MultiLayerNet(64, [30], 10) for _ in folds]
    >>> histories = nnfast.fit_many(
    ...     networks, x, t, rows=[np.setdiff1d(np.arange(len(x)), fold) for fold in folds], epochs=10,
    ...     optimizer=nnfast.Adam(0.01))
    >>> accuracies = [network.accuracy(x[fold], t[fold]) for network, fold in zip(networks, folds)]
    >>> min(accuracies) > 0.9
    True
    """
    _many_validation.no_comm(comm)
    if executor is not None:
        _many_validation.executor(executor)
    found = _many_validation.networks(networks)
    for name, value in (("checkpoint", checkpoint), ("resume", resume)):
        _many_validation.a_list_for_each(name, value)
    available = _many_validation.rows_in_memory(x)
    given = {
        "epochs": epochs, "batch_size": batch_size, "optimizer": optimizer, "validation_data": validation_data,
        "shuffle": shuffle, "sample_weight": sample_weight, "class_weight": class_weight, "schedule": schedule,
        "clip_value": clip_value, "clip_norm": clip_norm, "early_stopping": early_stopping, "metrics": metrics,
        "time_budget": time_budget, "checkpoint": checkpoint, "resume": resume, "callbacks": callbacks,
        "step_callbacks": step_callbacks,
    }
    options = {name: _many_validation.option_of_each(name, value, len(found)) for name, value in given.items()}
    if isinstance(optimizer, list):
        _many_validation.own_optimizers(optimizer)
    else:
        options["optimizer"] = [copy.deepcopy(optimizer) for _ in found]
    _many_validation.own_files(options["checkpoint"])
    options["rows"] = _many_validation.rows_of_each("rows", rows, len(found), available)
    options["validation_rows"] = _many_validation.rows_of_each("validation_rows", validation_rows, len(found), available)
    verbose = _validation.check_count("verbose", int(verbose), 0)
    with _threads.limited(num_threads):
        shared: dict[Any, np.ndarray] = {}
        fits = []
        for place, network in enumerate(found):
            mine = {name: values[place] for name, values in options.items()}
            try:
                fits.append(_fit.Fit(network, x, t, **mine, shared=shared))
            except (TypeError, ValueError) as error:
                error.add_note(f"This is of networks[{place}].")
                raise
        with _fit.progress_bar(progress, len(fits), 0, "network") as bar:
            def told(place: int, summary: str) -> None:
                bar.update(1)
                if verbose and summary:
                    bar.write(f"networks[{place}]: {summary}")

            if executor is None:
                return _turns.train(fits, lambda place: told(place, fits[place].summary()))

            from nnfast import _executors  # here, for only who has an executor needs multiprocessing

            converted = [array for key, array in shared.items() if key[0] == "x"]
            data = converted[0] if len(converted) == 1 else np.asarray(x)
            return _executors.train(fits, data, np.asarray(t), options, executor, told, num_threads)
