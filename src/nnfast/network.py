"""Networks: layers in a row and an output layer with its loss. `TwoLayerNet` and its like are the book's shapes of it."""

import inspect
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from nnfast import (
    _files,
    _fit,
    _flat,
    _gradient_plan,
    _graph_picture,
    _inference,
    _input_gradient,
    _numerical_gradient,
    _plan,
    _threads,
    _validation,
)
from nnfast._recall import Recall, Recalling
from nnfast.activations import Gelu, Identity, LeakyRelu, Relu, Sigmoid, Tanh
from nnfast.checkpoint import Checkpoint
from nnfast.early_stopping import EarlyStopping
from nnfast.layers import SAME_WIDTH, Affine, BatchNormalization, Dropout, Rescale
from nnfast.losses import FunctionLoss, SoftmaxWithLoss
from nnfast.optimizer import SGD, Optimizer
from nnfast.predictor import Predictor
from nnfast.trainer import Epoch, History, Step

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnfast._graph_picture import Picture
    from nnfast.schedules import Schedule

__all__ = ["ACTIVATIONS", "MultiLayerNet", "MultiLayerNetExtend", "Network", "Parameters", "TwoLayerNet"]

ACTIVATIONS: dict[str, Callable[[], Any]] = {
    "relu": Relu,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "leaky_relu": LeakyRelu,
    "gelu": Gelu,
    "identity": Identity,
}
"""Activation layers by the names that `MultiLayerNet` and the command line take."""

_ROW_BLOCK = 1024
"""Rows that are predicted at a time, so that what lies between the layers stays in the cache and small."""


class Parameters(dict[str, np.ndarray]):
    """The live arrays of a network by key. Assigning to a key changes the array's values, not which array it is.

    Examples
    --------
    >>> network = Network([Affine(np.ones((1, 2)), np.zeros(2))])
    >>> network.params["b1"] = [0.5, -0.5]
    >>> network.layers["Affine1"].b
    array([ 0.5, -0.5])
    """

    def __setitem__(self, key: str, value: ArrayLike) -> None:
        array = self[key]
        if value is not array:
            array[...] = _validation.like(f"params[{key!r}]", value, array.shape, array.dtype, "the parameter")

    def update(self, other: Mapping[str, ArrayLike]) -> None:  # type: ignore[override]
        """Assign to several keys.

        Parameters
        ----------
        other : mapping of str to array_like
            Values of the parameters' shapes.
        """
        for key, value in other.items():
            self[key] = value

    def __reduce__(self) -> tuple[Any, ...]:
        return Parameters, (dict(self),)     # copying item by item would assign to keys that are not there yet


class Network:
    """A multi-layer perceptron: layers, one after the other, and an output layer with its loss.

    Parameters
    ----------
    layers : sequence of layers, or mapping of names to layers
        Objects with ``forward(x)`` and ``backward(dout)``, and with dicts ``params`` and ``grads`` if they have
        parameters. A ``forward`` with an argument `train_flg` is told whether it is a training pass. Layers without
        names are called Affine1, Relu1, Affine2, ... in their order.
    loss : output layer or function, optional
        An object with ``forward(x, t)`` and ``backward(dout)``, or a function as `FunctionLoss` takes it; `SoftmaxWithLoss`
        if not given.
    seed : int, keyword-only, optional
        At least 0. Layers made from sizes draw their weights from it, in their order; then every epoch's permutation
        and Dropout's masks come from it. A different one each time if not given.
    dtype : {"float32", "float64"}, keyword-only, default "float32"
        Of the arrays to be drawn, unless a layer was given arrays: then all have theirs.

    Attributes
    ----------
    layers : OrderedDict of str to layer
        By name.
    last_layer : output layer
        The loss.
    dtype : numpy.dtype
        Of the parameters; inputs are converted to it.

    Raises
    ------
    TypeError
        If something is not a layer.
    ValueError
        If there is no layer, one stands twice, or two that follow each other do not fit together.

    Examples
    --------
    >>> from nnfast import SGD
    >>> network = Network([Affine(2, 8), Tanh(), Affine(8, 2)], seed=1)
    >>> x, t = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    >>> history = network.fit(x, t, epochs=500, batch_size=4, optimizer=SGD(lr=0.5))
    >>> network.accuracy(x, t)
    1.0
    >>> network.predict(x).argmax(axis=1)
    array([0, 1, 1, 0])
    """

    weight_decay_lambda: float = 0
    """Strength of the L2 penalty lambda / 2 * sum(W**2) on the weights of all Affine layers; set by the book's shapes."""

    l1_lambda: float = 0
    """Strength of the L1 penalty lambda * sum(abs(W)) on the same weights."""

    def __init__(
        self,
        layers: Sequence[Any] | Mapping[str, Any],
        loss: Any = None,
        *,
        seed: int | None = None,
        dtype: DTypeLike = "float32",
    ) -> None:
        self.layers: OrderedDict[str, Any] = _named(layers)
        self.last_layer = _output_layer(loss)
        self.generator = np.random.default_rng(None if seed is None else _validation.check_count("seed", seed, 0))
        self.dtype = _common_dtype(self.layers, _validation.check_dtype("dtype", dtype))
        self.inputs, self.outputs = _connected(self.layers)
        for layer in self.layers.values():
            if hasattr(layer, "draw"):
                layer.draw(self.generator, self.dtype)
            if isinstance(layer, Dropout):
                layer.generator = self.generator
        self._chains = _inference.ChainCache()
        self._paces: dict[tuple[int, int, int], _threads.Pace] = {}
        self._gradient_plans = _gradient_plan.GradientPlans()
        self._flat = _flat.FlatParameters()
        self._by_blocks = all(hasattr(layer, "infer") for layer in self.layers.values())
        self._told_mode = {name for name, layer in self.layers.items() if _takes_mode(layer)}

    # Parameters

    @property
    def params(self) -> Parameters:
        """The arrays themselves, not copies; W1, b1, W2, ..., gamma1, beta1, ..., numbered in the order of the layers."""
        return Parameters(self._collected("params"))

    @params.setter
    def params(self, values: Mapping[str, ArrayLike]) -> None:
        self.params.update(values)

    @property
    def flat_params(self) -> np.ndarray:
        """All parameters as one vector (P,), in the order of `params`: live, so that a change to either is one to both.

        The first look at it makes the layers' arrays views of it; arrays that somebody held before are no longer the
        network's. For evolution strategies, `scipy.optimize` and the like.

        Raises
        ------
        RuntimeError
            If the first look comes while the network is being trained.
        TypeError
            If a layer of your own keeps its arrays elsewhere than in attributes of the names in its `params`.

        Examples
        --------
        >>> network = Network([Affine(np.ones((1, 2)), np.zeros(2))])
        >>> network.flat_params
        array([1., 1., 0., 0.])
        >>> network.flat_params += 0.5
        >>> network.params["b1"]
        array([0.5, 0.5])
        """
        return self._flat.of(self, _fit._fitting)

    @flat_params.setter
    def flat_params(self, values: ArrayLike) -> None:
        vector = self.flat_params
        if values is not vector:
            vector[...] = _validation.like("flat_params", values, vector.shape, vector.dtype, "all parameters together")

    def _collected(self, attribute: Literal["params", "grads"]) -> dict[str, Any]:
        """All layers' params or grads, under numbered keys."""
        collected: dict[str, Any] = {}
        count: dict[str, int] = {}
        for layer in self.layers.values():
            for key, array in getattr(layer, attribute, {}).items():
                count[key] = count.get(key, 0) + 1
                collected[f"{key}{count[key]}"] = array
        return collected

    # Using a network

    def predict(
        self, x: ArrayLike, *, out: np.ndarray | None = None, num_threads: int | None = None
    ) -> np.ndarray:
        """Scores of the last layer, before softmax, sigmoid or exp: the class is their argmax.

        May be called from many threads at once (unless a layer of your own keeps something in ``forward``). The other rows
        change a row's scores by rounding at most, and not at all among batches of fewer than 16 rows, which are added
        up in another order than larger ones, nor among batches of 64 or more.

        Parameters
        ----------
        x : array_like
            Inputs, shape (B, I).
        out : ndarray, keyword-only, optional
            Where to put the scores, shape (B, O), of the network's dtype; a new array if not given. A contiguous one is
            filled directly.
        num_threads : int, keyword-only, optional
            At most so many threads; `nnfast.get_num_threads` if not given. One, while another call computes.

        Returns
        -------
        ndarray
            `out`, or the new array, shape (B, O).

        Raises
        ------
        TypeError
            If `x` does not hold real numbers, or `out` is not an array of the network's dtype.
        ValueError
            If a row of `x` has not I values, or `out` has another shape or is read-only.
        """
        with _threads.limited(num_threads):
            return self._scores(self._input(x), out, self._chain())

    def predictor(self, batch_size: int = 1) -> Predictor:
        """A `Predictor` of this network: made ready for many calls, with memory of its own.

        Parameters
        ----------
        batch_size : int, default 1
            Rows of the largest batch, at least 1.

        Returns
        -------
        Predictor
            Called with `x`, and an array to fill if there is one, it gives what `predict` gives.

        Raises
        ------
        TypeError, ValueError
            If `batch_size` is not a whole number of at least 1.
        """
        return Predictor(self, batch_size)

    def _chain(self) -> _inference.Chain | None:
        """The layers for compiled code, None where they must run one by one."""
        return self._chains.of(self)

    def _scores(self, rows: np.ndarray, out: np.ndarray | None, chain: _inference.Chain | None) -> np.ndarray:
        if chain is None:
            return _put(self._predicted(rows), out)
        shape = rows.shape[0], chain.outputs
        if out is not None:
            flags = _validation.output(out, shape, chain.dtype).flags
            if not (flags.carray and out.dtype.isnative):
                return _put(self._scores(rows, None, chain), out)
        y = np.empty(shape, chain.dtype) if out is None else out
        if _validation.is_data(rows, rescales=chain.rescales):
            chain.run(rows, y)      # the common case, without a detour
            return y
        for part in _inference.row_slices(rows, are_all=np.may_share_memory(rows, y)):
            chain.run(self._data("x", rows[part]), y[part])
        return y

    def _data(self, name: str, rows: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
        """Rows as compiled code takes them."""
        return _validation.data(name, rows, dtype, rescales=self._rescales)

    @property
    def _rescales(self) -> bool:
        """Whether the first layer is one that takes whole numbers as they are."""
        return type(next(iter(self.layers.values()))) is Rescale

    def _predicted(self, rows: np.ndarray) -> np.ndarray:
        if not self._by_blocks or rows.shape[0] <= _ROW_BLOCK:
            return self._inferred(rows)
        first = self._inferred(rows[:_ROW_BLOCK])
        scores = np.empty((rows.shape[0], first.shape[1]), first.dtype)
        scores[:_ROW_BLOCK] = first
        for place in range(_ROW_BLOCK, rows.shape[0], _ROW_BLOCK):
            scores[place : place + _ROW_BLOCK] = self._inferred(rows[place : place + _ROW_BLOCK])
        return scores

    def loss(self, x: ArrayLike, t: ArrayLike) -> float:
        """Mean loss over the examples, layers in the mode of inference.

        Afterwards the layers give what their ``backward`` needs, as in the book.

        Parameters
        ----------
        x : array_like
            Inputs, shape (B, I).
        t : array_like
            Targets, as the output layer takes them.

        Returns
        -------
        float
            Summed in float64.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit the network.
        """
        return self._loss(x, t, train_flg=False)

    def accuracy(self, x: ArrayLike, t: ArrayLike) -> float:
        """Share of the examples that are classified right.

        Parameters
        ----------
        x : array_like
            Inputs, shape (B, I).
        t : array_like
            Labels or one-hot rows.

        Returns
        -------
        float
            Between 0 and 1.

        Raises
        ------
        TypeError
            If the loss is not a classifier's.
        ValueError
            If an argument does not fit the network.
        """
        return self._share_right(_validation.not_empty("x", self.predict(x)), t)

    def _share_right(self, scores: np.ndarray, t: ArrayLike) -> float:
        """Of rows with these scores."""
        _validation.is_classifier(self.last_layer)
        batch_size, outputs = scores.shape
        if hasattr(self.last_layer, "prepare"):
            targets = self.last_layer.prepare(t, batch_size, outputs, scores.dtype)
            return float(self.last_layer.count_correct(scores, targets) / batch_size)
        return float((scores.argmax(axis=1) == _validation.labels(t, batch_size, outputs)).mean())

    def gradient(self, x: ArrayLike, t: ArrayLike) -> dict[str, np.ndarray]:
        """Gradient of the loss with respect to every parameter, by backpropagation.

        The layers have their parts of it afterwards (``dW``, ``db``, ``dgamma``, ``dbeta``), and may be asked for their
        ``backward`` again, unless a Dropout or BatchNormalization is among them.

        Parameters
        ----------
        x : array_like
            Inputs, shape (B, I).
        t : array_like
            Targets, as the output layer takes them.

        Returns
        -------
        dict of str to ndarray
            An array of the parameter's shape for each key of `params`.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit the network.
        """
        rows = self._checked_rows(x, t)
        plan = self._gradient_plans.of(self, rows.shape[0])
        if plan is not None:
            inputs = self._data("x", rows)
            outputs: Any = self.outputs     # known: it would have been an obstacle
            targets = self.last_layer.prepare(t, rows.shape[0], outputs, self.dtype)
            self._forget(None if plan.is_stateful else Recall(self, inputs, targets))
            self.last_layer.loss, gradients = plan.gradients(inputs, targets)
            self.last_layer.t = t
            return gradients
        self._loss(x, t, train_flg=True)
        return self._backward()

    def input_gradient(self, x: ArrayLike, dout: ArrayLike | None = None) -> np.ndarray:
        """Gradient of the scores with respect to the inputs, layers in the mode of inference.

        Nothing in the network changes, and any number of threads may call it; layers of your own are copied for it.

        Parameters
        ----------
        x : array_like
            Inputs, shape (B, I).
        dout : array_like, optional
            Gradient of something with respect to the scores, shape (B, O); ones if not given, where O is 1.

        Returns
        -------
        ndarray
            Shape (B, I), of the network's dtype: the sum over the scores of `dout` times their gradients.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or `dout` is missing and there are several outputs.

        Examples
        --------
        >>> network = Network([Affine(np.array([[2.0], [-1.0]]), np.zeros(1)), Relu()])
        >>> network.input_gradient([[1.0, 1.0], [0.0, 1.0]])
        array([[ 2., -1.],
               [ 0.,  0.]])
        """
        return _input_gradient.input_gradient(self, _validation.floats("x", self._input(x), self.dtype), dout)

    def jacobian(self, x: ArrayLike) -> np.ndarray:
        """Derivative of every score with respect to every input, layers in the mode of inference.

        Parameters
        ----------
        x : array_like
            Inputs, shape (B, I).

        Returns
        -------
        ndarray
            Shape (B, O, I), of the network's dtype.

        Raises
        ------
        TypeError, ValueError
            If `x` does not fit the network.

        Examples
        --------
        >>> network = Network([Affine(np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros(2))])
        >>> network.jacobian([[0.0, 0.0]])
        array([[[1., 3.],
                [2., 4.]]])
        """
        return _input_gradient.jacobian(self, _validation.floats("x", self._input(x), self.dtype))

    def numerical_gradient(
        self, x: ArrayLike, t: ArrayLike, *, h: float = 1e-4, method: Literal["exact", "brute"] = "exact"
    ) -> dict[str, np.ndarray]:
        """Gradient of the loss with respect to every parameter, by central differences.

        (loss with the parameter h above - loss with it h below) / (2 h), each parameter on its own: what to check
        `gradient` with, since no chain rule is in it. It is computed in float64, whatever the network's dtype, with
        Dropout off and BatchNormalization as in training. Nothing in the network changes.

        "exact" takes the same losses as "brute" at the same perturbed points, but computes of each only what the
        parameter changes: one unit, a change of rank one in the next layer, and what follows; examples whose input is
        0 cost nothing. A network with a layer or loss of your own is evaluated as by "brute".

        From backpropagation it differs by h**2 times the third derivative over 6 and, with `SoftmaxWithLoss`, because
        1e-7 is added inside the logarithm, which backpropagation neglects: an example whose class has probability p
        counts p / (p + 1e-7) times as much here.

        Parameters
        ----------
        x : array_like
            Inputs, shape (B, I), finite.
        t : array_like
            Targets, as the output layer takes them.
        h : float, keyword-only, default 1e-4
            Step, above 0.
        method : {"exact", "brute"}, keyword-only, default "exact"
            "brute" evaluates the whole loss twice for each single parameter: slow, and the plain truth.

        Returns
        -------
        dict of str to ndarray of float64
            An array of the parameter's shape for each key of `params`.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit the network.
        """
        step = _validation.above_zero("h", h)
        chosen = _validation.check_choice("method", method, ["exact", "brute"])
        rows = self._checked_rows(x, t)
        inputs = _validation.floats("x", rows)
        _validation.all_finite("x", inputs.reshape(inputs.shape[0], -1))
        if chosen == "exact" and _numerical_gradient.fits(self):
            return _numerical_gradient.exact(self, inputs, t, step)
        return _numerical_gradient.brute(self, rows, t, step)

    def fit(
        self,
        x: Any,
        t: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 100,
        optimizer: Optimizer | Any = None,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        shuffle: bool = True,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | Literal["balanced"] | None = None,
        block_rows: int | None = None,
        steps_per_epoch: int | None = None,
        schedule: "Schedule | None" = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        early_stopping: EarlyStopping | None = None,
        metrics: Mapping[str, Callable[[ArrayLike, np.ndarray], float]] | None = None,
        time_budget: float | None = None,
        checkpoint: Checkpoint | None = None,
        resume: str | os.PathLike[str] | bool | None = None,
        callbacks: Iterable[Callable[[Epoch], bool | None]] = (),
        step_callbacks: Iterable[Callable[[Step], bool | None]] = (),
        verbose: int = 0,
        progress: bool = False,
        num_threads: int | None = None,
        comm: Any = None,
    ) -> History:
        """Train by mini-batches.

        When training stops on the way, by an error or Ctrl-C, the network has the weights of the last finished epoch.

        Data that do not fit into memory are read in blocks, the next ones by another thread while steps run on the
        last ones: a `numpy.memmap`, a list of arrays (or maps), and whatever gives batches. Two buffers of 8 MB of
        inputs are all that is in memory, unless `block_rows` says otherwise, or a batch is larger. Batches and,
        without shuffling, weights are those of the same rows as one array.

        Parameters
        ----------
        x : array_like, or what gives batches
            Inputs, shape (B, I), finite. A `numpy.memmap`, or a list of 2-D arrays with `t` a list of as many, is read
            in blocks. Without `t`: an object with ``len(x)`` and ``x[i]``, a function that returns a new iterator in
            each epoch, an iterable, or an iterator for a single epoch, of pairs (x, t) or triples (x, t,
            sample_weight), each a batch of any number of rows, or one example. Steps take `batch_size` rows wherever a
            batch ends.
        t : array_like
            Targets, as the output layer takes them; left out where x gives them.
        epochs : int, default 1
            Passes over the data, at least 1.
        batch_size : int, default 100
            Rows a step, at least 1. The last batch of an epoch may be shorter; its loss and gradient are means over
            its own rows.
        optimizer : optimiser, optional
            An object with ``update(params, grads)``; ``SGD(lr=0.01)`` if not given.
        validation_data : tuple of (x, t), optional
            Evaluated after every epoch.
        shuffle : bool, default True
            Permute the rows before every epoch; otherwise batches are consecutive slices. Of data that are read in
            blocks, blocks and items come in random order, and the rows of some eight blocks are permuted together;
            what a function or an iterable gives keeps its order but for the latter.
        sample_weight : array_like, optional
            How much each row counts, shape (B,), at least 0; a list of as many arrays as `x` has. Losses and gradients
            are means with these weights, of a batch or of an epoch; accuracies count rows.
        class_weight : mapping of int to float, or "balanced", optional
            How much the rows of a class count, besides; 1 for a class that is not in it. "balanced" makes all classes that
            occur count the same, and a row 1 in the mean.
        block_rows : int, optional
            Rows that are read in one piece, at least 1, of what is read in blocks; as many as make 1 MB if not given.
            Eight blocks, in whole batches, are in each buffer.
        steps_per_epoch : int, optional
            After so many steps an epoch ends, at least 1, where `x` gives batches: for a `schedule`, which needs to
            know, and for a function that never ends. If there are fewer it ends sooner.
        schedule : callable, optional
            By what the optimiser's `lr` is multiplied in each step: one of `nnfast.schedules`, or a function like them.
        clip_value : float, optional
            Each element of a gradient, penalty included, is limited to this size, above 0.
        clip_norm : float, optional
            All gradients of a step together, penalty included, are multiplied by one number so that their Euclidean norm is
            at most this, above 0. Not with `clip_value`.
        early_stopping : EarlyStopping, optional
            When to stop, and whether to go back to the best weights.
        metrics : mapping of str to callable, optional
            Evaluated on the validation data after every epoch: ``metric(t, scores)``, with the targets as they were given
            and what `predict` gives, returns a number, which the `Epoch` and the `History` have under the name.
        time_budget : float, optional
            Seconds, above 0, after which the step that runs is the last one. The epoch that it is in is told of as the
            others are, with its mean over fewer rows.
        checkpoint : Checkpoint, optional
            Where to keep the fit while it runs, and how often.
        resume : str, os.PathLike or bool, optional
            The file of a `Checkpoint`, from which this fit goes on: give it the same network (its weights do not
            matter), data and options, and it ends with the bits of one that was never interrupted. `epochs` counts from
            the beginning, and may be more now. What the file keeps takes the place of what is here: parameters, running
            statistics, all attributes of the optimiser (`lr` too), the states of the random generators (of ``np.random``,
            too, if layers draw from it), and the history. A layer written in Python is kept as far as `params`, an
            attribute `statistics` (a tuple of arrays) and an attribute `generator` (of NumPy) go, an optimiser if its
            attributes are numbers, texts and dicts of arrays by parameter, a schedule that learns if they are numbers
            and texts; callbacks are not kept. With True the checkpoint's file is resumed if it is there, and else the
            fit begins: the same call starts and goes on.
        callbacks : iterable of callables
            Each is called with an `Epoch` after every epoch, and may return True to stop.
        step_callbacks : iterable of callables
            Likewise with a `Step` after every step, which then costs as much more as to copy all weights twice. The epoch
            in which one stops is told of as the others are, with its mean over fewer rows.
        verbose : int, default 0
            1 prints a line an epoch.
        progress : bool, default False
            Show a progress bar, if tqdm is installed (``pip install nnfast[progress]``), and else print a line in the
            end; on the standard error.
        num_threads : int, optional
            At most so many threads; `nnfast.get_num_threads` if not given.
        comm : mpi4py.MPI.Intracomm, optional
            Train one network together with the other ranks of this communicator, each of which calls `fit` alike (extra
            ``mpi``; see Notes). With one rank it is as if it was not given.

        Returns
        -------
        History
            Losses and accuracies by epoch.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or the fit is not the one that `resume` kept; nothing has changed then. Of what
            is read in blocks, a wrong block is named when it is read.
        FloatingPointError
            If the loss becomes infinite or NaN.
        ModelFormatError, OSError
            If the file of `resume` is none of a `Checkpoint`, is damaged or cannot be read, or one cannot be written.
        RuntimeError
            If another call is training this network, or this process was forked while it read ahead; or if another rank
            of `comm` has failed, or ranks no longer have the same weights.
        ImportError
            If `comm` is given and mpi4py is not installed (``pip install "nnfast[mpi]"``).

        Notes
        -----
        The function that gives batches runs in the thread that reads, which is one besides `num_threads`; an exception
        in it ends the fit, and is raised. If it waits for something while the fit is interrupted, that thread stays
        behind until it returns.

        With `comm` each rank gives rows of its own as `x`, `t` and `sample_weight`, one at least, and of `validation_data`
        a part of its own; ranks may hold different numbers of rows. A `numpy.memmap` is taken as the array that it is: the
        system reads the rows of a step, unless it has another dtype than the network and is converted as a whole. What gives
        batches, and networks that do not train in compiled code, are refused.

        - `batch_size` is that of all ranks together. Of each batch a rank takes as nearly as whole rows allow what its part
          of all rows is, from a permutation of its own; each row is used once an epoch. Gradients are summed, and batch
          normalisation has the statistics of the whole batch, so that the weights follow those of one process with the
          same batches to rounding. All ranks have the same bits, which is checked now and then.
        - The network, its random generator, the optimiser and the options must be alike; what differs is a ValueError
          on all ranks that names it. Of `checkpoint`, `resume`, `verbose` and `progress` those of rank 0 count: it alone reads
          and writes files, and prints. A fit is resumed by as many ranks with as many rows each.
        - All losses, accuracies and metrics are those of all rows, alike on all ranks; metrics are computed on rank 0 with the
          targets and scores of all ranks. Callbacks are called on every rank; where one stops, or a time budget is
          over on one rank, all stop. What callbacks change they must change on all ranks.
        - An error or Ctrl-C on one rank ends the fit on all: there it is raised, on the others a RuntimeError tells of it. A
          process that is killed is for the launcher to notice, which ends the others. Before and after `fit` each rank is on its
          own: ``mpiexec -n 2 python -m mpi4py program.py`` ends all if one fails there.
        - Ranks that may run on the same cores of a machine share them, unless `num_threads` is given or set.
        """
        return _fit.fit(
            self, x, t, epochs=epochs, batch_size=batch_size, optimizer=optimizer, validation_data=validation_data,
            shuffle=shuffle, sample_weight=sample_weight, class_weight=class_weight, block_rows=block_rows,
            steps_per_epoch=steps_per_epoch, schedule=schedule,
            clip_value=clip_value, clip_norm=clip_norm, early_stopping=early_stopping, metrics=metrics, time_budget=time_budget,
            checkpoint=checkpoint, resume=resume, callbacks=callbacks, step_callbacks=step_callbacks, verbose=verbose,
            progress=progress, num_threads=num_threads, comm=comm,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a file, from which `load` makes it again: layers, loss and parameters.

        A name that ends with ``.safetensors`` gets a file of that format (needs ``pip install "nnfast[safetensors]"``),
        any other one a file that `numpy.load` opens: arrays under the keys of `params`, the running statistics of
        BatchNormalization, and a description under "nnfast". The file takes the place of an older one when it is
        finished; whatever happens before, the older one is whole. What an optimiser keeps and the random generator's
        state are not in it.

        Parameters
        ----------
        path : str or os.PathLike
            Where to, extension included.

        Raises
        ------
        ImportError
            If safetensors is needed and not installed.
        OSError
            If the file cannot be written.
        TypeError
            If a layer or the loss is written in Python.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> network = Network([Affine(4, 8), Relu(), Affine(8, 3)], seed=0)
        >>> x = np.ones((1, 4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     network.save(pathlib.Path(folder, "network.npz"))
        ...     again = Network.load(pathlib.Path(folder, "network.npz"))
        >>> again
        Network([Affine1, Relu1, Affine2], SoftmaxWithLoss)
        >>> bool((again.predict(x) == network.predict(x)).all())
        True
        """
        from nnfast import _model_files  # here, for only who keeps networks needs json and zipfile

        _model_files.save(self, _files.as_path("path", path))

    def export_c(
        self, path: str | os.PathLike[str], *, name: str = "predict", probabilities: bool = False
    ) -> None:
        """Write the network as one file of C99, for where there is no Python: devices, and programs in C, C++ or Fortran.

        It holds a function ``void predict(const float x[I], float y[O])`` (or double) for one example, which allocates
        nothing, may be called by any number of threads, and needs the C library alone. Compiled with ``predict_SELF_TEST``
        defined it is a program that compares what it gives for some examples with what this network gives. Weights are
        written to the last bit; sums are added up in another order than here, so that results differ by rounding.

        Parameters
        ----------
        path : str or os.PathLike
            Where to, extension included. A file that is there is replaced whole.
        name : str, keyword-only, default "predict"
            Of the function; all other names begin with it.
        probabilities : bool, keyword-only, default False
            Whether it gives probabilities, through the softmax or sigmoid of the loss, or means, through the exp of
            `PoissonLoss`, instead of scores.

        Raises
        ------
        OSError
            If the file cannot be written.
        TypeError
            If a layer is written in Python, or the loss is and probabilities are asked for.
        ValueError
            If `name` is none in C, or a weight is not finite.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> network = Network([Affine(4, 8), Relu(), Affine(8, 3)], seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     network.export_c(pathlib.Path(folder, "network.c"), name="classify")
        ...     text = pathlib.Path(folder, "network.c").read_text()
        >>> "void classify(const float x[4], float y[3]);" in text
        True
        """
        from nnfast import _export, _export_c

        name = _validation.identifier("name", name)
        text = _export_c.source(_export.exported(self, bool(probabilities)), name, _export.version())
        _files.put_in_place(_files.as_path("path", path), text.encode())

    def export_numpy(self, path: str | os.PathLike[str], *, probabilities: bool = False) -> None:
        """Write the network as one Python file that needs NumPy alone, with a function ``predict(x)`` for rows (B, I).

        Executed as a program it compares what it gives for some examples with what this network gives. Weights are kept to
        the last bit; results differ by rounding.

        Parameters
        ----------
        path : str or os.PathLike
            Where to, extension included. A file that is there is replaced whole.
        probabilities : bool, keyword-only, default False
            Whether it gives probabilities, through the softmax or sigmoid of the loss, or means, through the exp of
            `PoissonLoss`, instead of scores.

        Raises
        ------
        OSError
            If the file cannot be written.
        TypeError
            If a layer is written in Python, or the loss is and probabilities are asked for.
        ValueError
            If a weight is not finite.

        Examples
        --------
        >>> import pathlib, runpy, tempfile
        >>> network = Network([Affine(4, 8), Relu(), Affine(8, 3)], seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     network.export_numpy(pathlib.Path(folder, "network.py"))
        ...     predict = runpy.run_path(str(pathlib.Path(folder, "network.py")))["predict"]
        >>> x = np.ones((1, 4), np.float32)
        >>> bool(np.allclose(predict(x), network.predict(x), rtol=1e-5))
        True
        """
        from nnfast import _export, _export_numpy

        text = _export_numpy.source(_export.exported(self, bool(probabilities)), _export.version())
        _files.put_in_place(_files.as_path("path", path), text.encode())

    def export_onnx(self, path: str | os.PathLike[str], *, probabilities: bool = False) -> None:
        """Write the network as an ONNX model, for ONNX Runtime, OpenVINO and whatever else reads these.

        Its input is "x" (batch, I), its output "scores" or "probabilities" (batch, O), of the network's dtype, for any
        number of examples. It is of operator set 13, with the weights to the last bit; results differ by rounding.
        Where the network is of float64, the error function of `Gelu` is computed in float32, since ONNX Runtime has no
        other. `convert.from_onnx` reads such files.

        Parameters
        ----------
        path : str or os.PathLike
            Where to, extension included. A file that is there is replaced whole.
        probabilities : bool, keyword-only, default False
            Whether it gives probabilities, through the softmax or sigmoid of the loss, instead of scores.

        Raises
        ------
        ImportError
            If onnx is not installed (``pip install "nnfast[onnx]"``).
        OSError
            If the file cannot be written.
        TypeError
            If a layer is written in Python, or the loss is and probabilities are asked for.
        ValueError
            If a weight is not finite, or all of them take more than the 2 GB that such a file can hold.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import onnx
        >>> network = Network([Affine(4, 8), Relu(), Affine(8, 3)], seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     network.export_onnx(pathlib.Path(folder, "network.onnx"), probabilities=True)
        ...     model = onnx.load(pathlib.Path(folder, "network.onnx"))
        >>> [node.op_type for node in model.graph.node]
        ['Gemm', 'Relu', 'Gemm', 'Softmax']
        """
        from nnfast import _export, _export_onnx

        path = _files.as_path("path", path)
        _files.put_in_place(path, _export_onnx.contents(_export.exported(self, bool(probabilities)), _export.version()))

    @staticmethod
    def load(path: str | os.PathLike[str], *, seed: int | None = None) -> "Network":
        """A network from a file that `save` has written: it predicts the same bits, and can be trained further.

        So it is from that of a `Checkpoint`. A file that comes from anywhere may be given: nothing in it is executed,
        and what it claims is compared with what is there before memory is allocated.

        Parameters
        ----------
        path : str or os.PathLike
            A name that ends with ``.safetensors`` means that format, any other one ``.npz``.
        seed : int, keyword-only, optional
            At least 0; for the permutations and masks of further training.

        Returns
        -------
        Network
            With the names of the layers that were saved, also where one of the book's classes was.

        Raises
        ------
        FileNotFoundError, OSError
            If the file cannot be read.
        ImportError
            If safetensors is needed and not installed.
        ModelFormatError
            If it is not a file of `save`, is damaged, or is one of a newer nnfast.
        """
        from nnfast import _model_files

        found = _model_files.load(_files.as_path("path", path))
        network = Network(found.layers, found.loss, seed=seed, dtype=found.dtype)
        network.weight_decay_lambda, network.l1_lambda = found.weight_decay_lambda, found.l1_lambda
        return network

    def draw(self, x: ArrayLike, t: ArrayLike, *, ax: "Axes | None" = None) -> "Picture":
        """A picture of the layers with what passes between them: values above the edges, gradients below.

        On each edge stand the shape and the root mean square, which tells whether signals and gradients grow or vanish
        from layer to layer; under each layer its number of parameters, and above the layers the units. The passes are
        those of `numerical_gradient`: float64, Dropout off, BatchNormalization as in training; nothing in the network
        changes. Of more than 12 layers those in the middle are drawn as one, and of more than 7 units some as dots.
        Needs matplotlib (``pip install "nnfast[plot]"``).

        Parameters
        ----------
        x : array_like
            Inputs, shape (B, I).
        t : array_like
            Targets, as the output layer takes them.
        ax : matplotlib.axes.Axes, keyword-only, optional
            Where to draw; a figure of the size that it takes if not given.

        Returns
        -------
        Picture
            Shown by a notebook; ``.save("network.svg")`` keeps it.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError, ValueError
            If an argument does not fit the network.
        """
        return _graph_picture.of_network(_numerical_gradient.float64_copy(self), self._checked_rows(x, t), t).draw(ax)

    def summary(self, batch_size: int = 100, optimizer: Any = None) -> str:
        """A table of the layers, their outputs and numbers of parameters, and how `fit` would train them.

        A network of nnfast's own layers, loss and optimiser trains in compiled code, in memory that is allocated once.
        Anything written in Python among them is called layer by layer.

        Parameters
        ----------
        batch_size : int, default 100
            As `fit` would be given it.
        optimizer : optimiser, optional
            Likewise.

        Returns
        -------
        str
            Several lines.

        Examples
        --------
        >>> print(Network([Affine(784, 50), Relu(), Affine(50, 10)]).summary())  # doctest: +ELLIPSIS
        layer          outputs  parameters
        Affine1             50      39,250
        Relu1               50           0
        Affine2             10         510
        SoftmaxWithLoss     10
        39,760 parameters of float32 (159,040 bytes)
        trains in compiled code, in ... MB of memory (batches of 100 with SGD)
        """
        lines = [f"{'layer':<15}{'outputs':>7}{'parameters':>12}"]
        width = self.inputs
        for name, layer in self.layers.items():
            width = getattr(layer, "outputs", width if isinstance(layer, SAME_WIDTH) else None)
            size = sum(array.size for array in getattr(layer, "params", {}).values())
            lines.append(f"{name:<15}{width if width is not None else '?':>7}{size:>12,}")
        width_of_loss = self.outputs if self.outputs is not None else "?"
        lines.append(f"{type(self.last_layer).__name__:<15}{width_of_loss:>7}")
        arrays = self.params.values()
        lines.append(
            f"{sum(array.size for array in arrays):,} parameters of {self.dtype.name} "
            f"({sum(array.nbytes for array in arrays):,} bytes)"
        )
        optimizer = SGD() if optimizer is None else _validation.has_methods("optimizer", optimizer, ("update",))
        lines.append(_plan.described(self, optimizer, _validation.check_count("batch_size", batch_size)))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"{type(self).__name__}([{', '.join(self.layers)}], {type(self.last_layer).__name__})"

    # What training consists of

    def training_step(
        self, x: np.ndarray, t: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> tuple[float, int | None, dict[str, np.ndarray]]:
        """One forward and backward pass over a batch whose `x` and `t` are checked.

        Parameters
        ----------
        x : ndarray
            Rows of the network's dtype.
        t : ndarray
            Targets as the output layer's `prepare` returned them, or as given where it has none.
        sample_weight : ndarray, optional
            Weights (B,) of float64 for a mean over the rows; needs an output layer of nnfast.

        Returns
        -------
        loss : float
            Penalty included.
        correct : int or None
            Rows classified right before the update, None where that has no meaning.
        gradients : dict of str to ndarray
            By key of `params`.
        """
        scores = self._forward(x, train_flg=True)
        correct = None
        if hasattr(self.last_layer, "forward_prepared"):
            loss = self.last_layer.forward_prepared(scores, t)
            if self.last_layer.is_classifier:
                correct = self.last_layer.count_correct(scores, t)
        else:
            loss = self.last_layer.forward(scores, t)
        if sample_weight is None:
            return float(loss) + self._penalty(), correct, self._backward()
        shares = sample_weight / (sample_weight.sum() or 1)
        row_losses: Any = self.last_layer.row_losses
        return float(shares @ row_losses) + self._penalty(), correct, self._backward(shares)

    def trains_as_given(self) -> bool:
        """Whether `training_step` is the one above, so that a plan may stand in for it."""
        return self._is_as_given("training_step")

    def _is_as_given(self, *names: str) -> bool:
        """Whether these methods are those of `Network`."""
        return all(getattr(getattr(self, name), "__func__", None) is getattr(Network, name) for name in names)

    def state(self) -> list[np.ndarray]:
        """The arrays that training changes: parameters, and running statistics.

        Returns
        -------
        list of ndarray
            Live, not copies.
        """
        statistics = (array for layer in self.layers.values() for array in getattr(layer, "statistics", ()))
        return [*self.params.values(), *statistics]

    def _input(self, x: ArrayLike) -> np.ndarray:
        """`x` as rows, if the network knows how many inputs it has; the layers convert it to their dtype."""
        array = _validation.numbers("x", x)
        if self.inputs is None:
            return array
        first = next(iter(self.layers.values()))
        return _validation.row_shaped("x", array, self.inputs, f"layer 1 ({type(first).__name__})")

    def _inferred(self, x: np.ndarray) -> np.ndarray:
        """Scores, leaving no trace in the layers."""
        for name, layer in self.layers.items():
            if hasattr(layer, "infer"):
                x = layer.infer(x)
            else:
                x = layer.forward(x, *((False,) if name in self._told_mode else ()))
        return x

    def _forward(self, x: np.ndarray, train_flg: bool) -> np.ndarray:
        """Scores; every layer keeps what its backward needs."""
        for name, layer in self.layers.items():
            x = layer.forward(x, *((train_flg,) if name in self._told_mode else ()))
        return x

    def _evaluated(self, x: ArrayLike, t: ArrayLike) -> tuple[float, float | None, np.ndarray | None]:
        """`loss`, `accuracy` of a classifier and, if they come for nothing, `predict`'s scores.

        By one pass through the layers instead of three where they are in compiled code and these methods nobody's own.
        """
        is_classifier = getattr(self.last_layer, "is_classifier", True)
        if self._chain() is None or not self._is_as_given("loss", "accuracy", "predict"):
            return self.loss(x, t), self.accuracy(x, t) if is_classifier else None, None
        loss, scores = self._loss_and_scores(x, t, train_flg=False)
        return loss, self._share_right(scores, t) if is_classifier else None, scores

    def _loss(self, x: ArrayLike, t: ArrayLike, train_flg: bool) -> float:
        return self._loss_and_scores(x, t, train_flg)[0]

    def _loss_and_scores(self, x: ArrayLike, t: ArrayLike, train_flg: bool) -> tuple[float, np.ndarray]:
        rows = self._checked_rows(x, t)
        chain = None if train_flg else self._chain()
        if chain is None:
            scores = self._forward(rows, train_flg)
        else:
            scores = self._scores(rows, None, chain)
            self._forget(Recall(self, rows))
        return float(self.last_layer.forward(scores, t)) + self._penalty(), scores

    def _checked_rows(self, x: ArrayLike, t: ArrayLike) -> np.ndarray:
        """At least one row, and as many targets."""
        rows = _validation.not_empty("x", self._input(x))
        _validation.same_length(np.asarray(t), rows.shape[0])
        return rows

    def _forget(self, recall: Recall | None) -> None:
        """What the layers kept from an earlier pass is not that of the last one, which ran in compiled code."""
        for layer in (*self.layers.values(), self.last_layer):
            # These two keep something in training only, and that cannot be made up for.
            is_stateful = isinstance(layer, (BatchNormalization, Dropout))
            if isinstance(layer, Recalling) and not (is_stateful and recall is not None):
                layer.forget(recall)

    def _backward(self, shares: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Gradients of the mean loss or, with shares (B,), of the sum of the rows' losses times them."""
        dout = self.last_layer.backward(1)
        if shares is not None:
            dout = dout * (shares * len(shares)).astype(dout.dtype)[:, np.newaxis]
        first, *others = self.layers.values()
        for layer in reversed(others):
            dout = layer.backward(dout)
        if isinstance(first, Affine):
            first.backward_parameters(dout)     # nobody needs the gradient with respect to x
        else:
            first.backward(dout)
        for layer in self.layers.values():
            if isinstance(layer, Affine) and layer.dW is not None:
                if self.weight_decay_lambda:
                    layer.dW += self.weight_decay_lambda * layer.W
                if self.l1_lambda:
                    layer.dW += self.l1_lambda * np.sign(layer.W)
        return self._collected("grads")

    def _penalty(self) -> float:
        weights = [layer.W for layer in self.layers.values() if isinstance(layer, Affine)]
        penalty = 0.0
        if self.weight_decay_lambda:
            penalty += 0.5 * self.weight_decay_lambda * sum(float(np.sum(W**2, dtype=np.float64)) for W in weights)
        if self.l1_lambda:
            penalty += self.l1_lambda * sum(float(np.sum(np.abs(W), dtype=np.float64)) for W in weights)
        return penalty


def _put(scores: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """The scores where the user wants them."""
    if out is None:
        return scores
    _validation.output(out, scores.shape, scores.dtype)[...] = scores
    return out


def _output_layer(loss: Any) -> Any:
    if loss is None:
        return SoftmaxWithLoss()
    if callable(loss) and not isinstance(loss, type) and not hasattr(loss, "forward"):
        return FunctionLoss(loss)
    return _validation.has_methods("loss", loss)


def _named(layers: Sequence[Any] | Mapping[str, Any]) -> "OrderedDict[str, Any]":
    """Layers by name, each checked to be one, and to be there once."""
    if isinstance(layers, Mapping):
        named = OrderedDict(layers)
    else:
        count: dict[str, int] = {}
        named = OrderedDict()
        for layer in _validation.sequence_of_layers(layers):
            kind = type(layer).__name__
            count[kind] = count.get(kind, 0) + 1
            named[f"{kind}{count[kind]}"] = layer
    _validation.layers_once(named)
    return named


def _common_dtype(layers: Mapping[str, Any], default: np.dtype) -> np.dtype:
    """The dtype of the arrays that layers were given, which must agree; the default if none was."""
    found: dict[str, np.dtype] = {}
    for name, layer in _with_places(layers):
        for array in getattr(layer, "params", {}).values():
            if array is not None:
                found[name] = np.asarray(array).dtype.newbyteorder("=")
    return _validation.one_dtype(found, default)


def _connected(layers: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Inputs of the first layer and outputs of the last (None if unknown), the layers checked to fit together."""
    inputs: int | None = None
    width: int | None = None    # of what reaches the next layer
    giver = ""                  # the layer that gave it; none yet: it is the network's own input
    for name, layer in _with_places(layers):
        takes = getattr(layer, "inputs", None)
        if takes is not None and width is not None:
            _validation.widths_fit(name, takes, giver, width)
        if takes is not None and not giver:
            inputs = takes
        if takes is not None or not isinstance(layer, SAME_WIDTH):
            width, giver = getattr(layer, "outputs", takes if isinstance(layer, SAME_WIDTH) else None), name
    return inputs, width


def _with_places(layers: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Layers with the words that a message names them by."""
    return [(f"layer {place} ({type(layer).__name__})", layer) for place, layer in enumerate(layers.values(), 1)]


def _takes_mode(layer: Any) -> bool:
    """Whether forward is told if it is a training pass."""
    return isinstance(layer, (Dropout, BatchNormalization)) or "train_flg" in inspect.signature(layer.forward).parameters


class TwoLayerNet(Network):
    """The book's first network: Affine, ReLU, Affine, softmax with cross-entropy (chapters 4 and 5).

    Weights are float64, drawn from the global ``np.random`` in the book's order, so that ``np.random.seed``
    reproduces the book's numbers.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        Numbers of inputs, hidden units and classes, each at least 1.
    weight_init_std : float, default 0.01
        Standard deviation of the weights; biases start at 0.

    Raises
    ------
    TypeError, ValueError
        If a size is not a whole number of at least 1, or the deviation not a number of at least 0.

    Examples
    --------
    >>> np.random.seed(0)
    >>> network = TwoLayerNet(input_size=4, hidden_size=3, output_size=2)
    >>> list(network.params)
    ['W1', 'b1', 'W2', 'b2']
    >>> x, t = np.random.rand(5, 4), np.array([0, 1, 1, 0, 1])
    >>> round(network.loss(x, t), 3)
    0.693
    >>> from nnfast import SGD
    >>> SGD(lr=0.1).update(network.params, network.gradient(x, t))
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int, weight_init_std: float = 0.01) -> None:
        deviation = _validation.check_number("weight_init_std", weight_init_std, 0)
        super().__init__({
            "Affine1": _drawn_by_book("input_size", input_size, "hidden_size", hidden_size, deviation),
            "Relu1": Relu(),
            "Affine2": _drawn_by_book("hidden_size", hidden_size, "output_size", output_size, deviation),
        })

    @property
    def lastLayer(self) -> Any:  # noqa: N802, the book's name
        """The output layer, under the book's first name for it."""
        return self.last_layer


class MultiLayerNetExtend(Network):
    """The book's network of any depth, with weight decay, Dropout and BatchNormalization (chapter 6).

    Weights are float64, drawn from the global ``np.random`` in the book's order, as are Dropout's masks.

    Parameters
    ----------
    input_size : int
        Number of inputs.
    hidden_size_list : list of int
        Numbers of units of the hidden layers.
    output_size : int
        Number of classes.
    activation : str, default "relu"
        "relu", "sigmoid" or another name in `ACTIVATIONS`.
    weight_init_std : float or str, default "relu"
        Standard deviation of the weights; "relu" or "he" for sqrt(2 / inputs), "sigmoid" or "xavier" for
        sqrt(1 / inputs).
    weight_decay_lambda : float, default 0
        lambda / 2 * sum(W**2) over all weights is added to the loss.
    use_dropout : bool, default False
        A Dropout layer after each activation.
    dropout_ration : float, default 0.5
        Its ratio (the book's spelling).
    use_batchnorm : bool, default False
        A BatchNormalization layer before each activation.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> np.random.seed(0)
    >>> network = MultiLayerNetExtend(4, [3], 2, use_dropout=True, use_batchnorm=True)
    >>> list(network.layers)
    ['Affine1', 'BatchNorm1', 'Activation_function1', 'Dropout1', 'Affine2']
    >>> list(network.gradient(np.random.rand(5, 4), np.array([0, 1, 1, 0, 1])))
    ['W1', 'b1', 'gamma1', 'beta1', 'W2', 'b2']
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
    ) -> None:
        make_activation = ACTIVATIONS[_validation.check_choice("activation", activation, list(ACTIVATIONS))]
        sizes = [input_size, *_validation.sequence_of_sizes("hidden_size_list", hidden_size_list), output_size]
        layers: dict[str, Any] = {}
        last = len(sizes) - 1
        # All the weights first, then the other layers: the book's order of draws.
        affines = [
            _drawn_by_book("input_size" if place == 1 else "hidden_size_list", sizes[place - 1],
                           "output_size" if place == last else "hidden_size_list", sizes[place], weight_init_std)
            for place in range(1, last + 1)
        ]
        for place, affine in enumerate(affines, 1):
            layers[f"Affine{place}"] = affine
            if place == last:
                break
            if use_batchnorm:
                layers[f"BatchNorm{place}"] = BatchNormalization(np.ones(affine.outputs), np.zeros(affine.outputs))
            layers[f"Activation_function{place}"] = make_activation()
            if use_dropout:
                layers[f"Dropout{place}"] = Dropout(dropout_ration)
        super().__init__(layers)
        for layer in layers.values():
            if isinstance(layer, Dropout):
                layer.generator = None      # the book's masks come from the global np.random
        self.weight_decay_lambda = _validation.check_number("weight_decay_lambda", weight_decay_lambda, 0)
        self.input_size = input_size
        self.output_size = output_size
        self.hidden_size_list = hidden_size_list
        self.hidden_layer_num = last - 1
        self.use_dropout = use_dropout
        self.use_batchnorm = use_batchnorm

    def predict(
        self, x: ArrayLike, train_flg: bool = False, *, out: np.ndarray | None = None, num_threads: int | None = None
    ) -> np.ndarray:
        """Scores of the last layer, as `Network.predict`; of a training pass if `train_flg`.

        Parameters
        ----------
        x : array_like
            Inputs, shape (B, I).
        train_flg : bool, default False
            Whether Dropout and BatchNormalization are to act as in training.
        out, num_threads : keyword-only, optional
            As `Network.predict`.

        Returns
        -------
        ndarray
            `out`, or a new array, shape (B, O).

        Raises
        ------
        TypeError, ValueError
            If `x` or `out` does not fit the network.
        """
        if not train_flg:
            return super().predict(x, out=out, num_threads=num_threads)
        with _threads.limited(num_threads):
            return _put(self._forward(self._input(x), True), out)

    def loss(self, x: ArrayLike, t: ArrayLike, train_flg: bool = False) -> float:
        """Mean loss over the examples plus the weight decay; of a training pass if `train_flg`.

        Parameters
        ----------
        x : array_like
            Inputs, shape (B, I).
        t : array_like
            Labels or one-hot rows.
        train_flg : bool, default False
            Whether Dropout and BatchNormalization are to act as in training.

        Returns
        -------
        float
            Summed in float64.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit the network.
        """
        return self._loss(x, t, train_flg)


class MultiLayerNet(MultiLayerNetExtend):
    """The book's network of any depth with weight decay (chapter 6).

    Parameters
    ----------
    input_size : int
        Number of inputs.
    hidden_size_list : list of int
        Numbers of units of the hidden layers.
    output_size : int
        Number of classes.
    activation : str, default "relu"
        "relu", "sigmoid" or another name in `ACTIVATIONS`.
    weight_init_std : float or str, default "relu"
        Standard deviation of the weights; "relu" or "he" for sqrt(2 / inputs), "sigmoid" or "xavier" for
        sqrt(1 / inputs).
    weight_decay_lambda : float, default 0
        lambda / 2 * sum(W**2) over all weights is added to the loss.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> np.random.seed(0)
    >>> network = MultiLayerNet(4, [3, 3], 2, activation="sigmoid", weight_init_std="xavier")
    >>> list(network.params)
    ['W1', 'b1', 'W2', 'b2', 'W3', 'b3']
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0,
    ) -> None:
        super().__init__(
            input_size, hidden_size_list, output_size, activation, weight_init_std, weight_decay_lambda
        )


def _drawn_by_book(
    inputs_name: str, inputs: int, outputs_name: str, outputs: int, weight_init_std: float | str
) -> Affine:
    """An Affine layer of float64 with weights from the global np.random."""
    inputs = _validation.check_count(inputs_name, inputs)
    outputs = _validation.check_count(outputs_name, outputs)
    if isinstance(weight_init_std, str):
        gains = {"relu": 2, "he": 2, "sigmoid": 1, "xavier": 1}
        gain = gains[_validation.check_choice("weight_init_std", weight_init_std, list(gains))]
        deviation = float(np.sqrt(gain / inputs))
    else:
        deviation = _validation.check_number("weight_init_std", weight_init_std, 0)
    return Affine(deviation * np.random.randn(inputs, outputs), np.zeros(outputs))
