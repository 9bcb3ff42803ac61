"""A network made ready for one kind of call, many times over: from Python, or from C and what calls C functions."""

import os
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_double, c_float, c_void_p
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _inference, _threads, _validation
from nnfast._kernels import kernels

if TYPE_CHECKING:
    from nnfast.network import Network

__all__ = ["Predictor"]

_BLOCKS = max(4, os.cpu_count() or 1)
"""Rows that C functions predict at the same time, where a network is so wide that each needs memory of the predictor's."""

_SCIPY_SIGNATURES = {
    "quad": "double (int, double *, void *)",
    "generic_filter": "int (double *, intptr_t, double *, void *)",
    "geometric_transform": "int (intptr_t *, double *, int, int, void *)",
}


def _does_nothing(*_: Any) -> bool:
    """Stands for the kernel where a network must run layer by layer: every call goes the long way."""
    return False


class Predictor:
    """Scores of a network for up to `batch_size` rows at a time; made by `Network.predictor`.

    It does what `Network.predict` does, with everything that can be done beforehand done: the layers are looked at
    and memory is allocated once. It reads the layers' own arrays, so it gives what the network has learnt by then,
    also after ``fit`` or ``params["W1"] = ...``. Layers or arrays that are put in the place of others need a new
    predictor.

    One Python thread at a time may call it: it has one set of buffers.

    What is not Python may call it, too: `address` is that of a C function for one row, which gives the same bits, also
    sees what the network has learnt, and needs no interpreter lock. Any number of threads may be in it at once, each
    call runs on its own thread, and nothing is allocated. `context` tells it the network. Numba and ctypes take
    `ctypes`, SciPy takes `low_level_callable`. All of these are good for as long as the predictor lives; the objects
    for ctypes and SciPy keep it alive, numbers do not. As with any pointer, a wrong one ends the process or worse.

    Parameters
    ----------
    network : Network
        Of any layers; one with a layer written in Python is called layer by layer, and gains nothing.
    batch_size : int
        Rows of the largest batch, at least 1.

    Attributes
    ----------
    network : Network
    batch_size : int

    Examples
    --------
    >>> import numpy as np
    >>> from nnfast import Affine, Network, Relu
    >>> network = Network([Affine(4, 64), Relu(), Affine(64, 2)], seed=0)
    >>> predictor = network.predictor()
    >>> state, scores = np.ones((1, 4), np.float32), np.empty((1, 2), np.float32)
    >>> predictor(state, scores) is scores
    True

    Through the C function, here by ctypes; within a function that Numba compiles the same line would read
    ``predict(x.ctypes, y.ctypes, context)``:

    >>> predict, context = predictor.ctypes, predictor.context
    >>> x, y = state[0], np.empty(2, np.float32)
    >>> predict(np.ctypeslib.as_ctypes(x), np.ctypeslib.as_ctypes(y), context)
    >>> bool(np.all(y == scores[0]))
    True
    """

    def __init__(self, network: "Network", batch_size: int) -> None:
        self.network = network
        self.batch_size = _validation.check_count("batch_size", batch_size)
        chain = network._chain()
        self._chain = chain if chain is not None and chain.is_live else None
        self._threads, self._y_shape, self._dtype = 1, (0, 0), network.dtype
        self._infer: Callable[..., bool] = _does_nothing
        self._context: Any = None   # of the C functions
        if self._chain is not None:
            self._threads, self._y_shape = self._chain.threads(self.batch_size), (self.batch_size, self._chain.outputs)
            ours = kernels(network.dtype)
            scratch = ours.Scratch(np.empty(self._chain.scratch_size(self.batch_size, self._threads), np.uint8))
            self._infer = partial(ours.infer, self._chain.stages, scratch)
            self._context = ours.Context(self._chain.stages, _BLOCKS)
            self._row_function, self._scipy_functions = ours.ROW_FUNCTION, ours.SCIPY_FUNCTIONS

    def __call__(self, x: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
        """Scores of the last layer, before softmax or sigmoid.

        Parameters
        ----------
        x : array_like
            Inputs, shape (B, I), B at most `batch_size`.
        out : ndarray, optional
            Where to put them, shape (B, O), of the network's dtype; a new array if not given. A contiguous one is
            filled directly.

        Returns
        -------
        ndarray
            `out`, or the new array, shape (B, O).

        Raises
        ------
        TypeError
            If `x` does not hold real numbers, or `out` is not an array of the network's dtype.
        ValueError
            If `x` has too many rows, a row has not I values, or `out` has another shape or is read-only.
        """
        try:
            y = np.empty(self._y_shape, self._dtype) if out is None else out
            # What is unusual is refused by the kernel or its memoryviews, and takes the long way.
            if self._infer(x, y, self.batch_size,
                           1 if self._threads == 1 else min(self._threads, _threads.get_num_threads())):
                return y
        except (TypeError, ValueError):
            pass
        rows = _validation.at_most_rows(self.network._input(x), self.batch_size)
        return self.network._scores(rows, out, self._chain)

    @property
    def address(self) -> int:
        """Address of a C function that predicts one row: ``void f(const T *x, T *y, void *context)``.

        T is ``float`` or ``double``, as the network's dtype. `x` has I values and `y` gets O, as `__call__` gives them
        for one row; `y` may lie over `x`. For cffi: ``ffi.cast("void (*)(const float *, float *, void *)", address)``.

        Raises
        ------
        TypeError
            If the network has a layer written in Python.
        ValueError
            If it has an array that compiled code cannot read where it is.
        """
        self._for_c()
        address: int = self._row_function
        return address

    @property
    def context(self) -> int:
        """What the C functions are given as `context`: the address of what they need to know of the network.

        Raises
        ------
        TypeError, ValueError
            As for `address`.
        """
        address: int = self._for_c().address
        return address

    @property
    def ctypes(self) -> Any:
        """The C function for ctypes, and for Numba, in whose compiled functions it can be called.

        It takes pointers to T and `context`: in Numba ``x.ctypes``, ``y.ctypes`` and an integer. It keeps the predictor
        alive.

        Raises
        ------
        TypeError, ValueError
            As for `address`.
        """
        row = POINTER(c_float if self._dtype == np.float32 else c_double)
        return self._kept_by(CFUNCTYPE(None, row, row, c_void_p)(self.address))

    def low_level_callable(self, caller: str = "quad") -> Any:
        """A ``scipy.LowLevelCallable`` of this network, of float32 or float64, which SciPy calls without Python.

        Needs SciPy (``pip install "nnfast[scipy]"``).

        Parameters
        ----------
        caller : {"quad", "generic_filter", "geometric_transform"}
            Who calls it. ``scipy.integrate``: "quad", also for `nquad`, `dblquad` and `tplquad`; the network takes the
            variables, and the `args`, as its inputs, and has one output; where it takes another number, the integral is
            NaN. ``scipy.ndimage``: "generic_filter", for a network that takes what the footprint covers, and has one
            output; "geometric_transform", for one that takes a place in the output image and gives a point of the input
            image. SciPy raises a RuntimeError where these numbers do not fit.

        Returns
        -------
        scipy.LowLevelCallable
            It keeps the predictor alive.

        Raises
        ------
        TypeError, ValueError
            As for `address`, or if `caller` is none of these, or the network has not one output where it must.
        ImportError
            If SciPy is not installed.
        """
        caller = _validation.check_choice("caller", caller, list(_SCIPY_SIGNATURES))
        context = c_void_p(self.context)
        if caller != "geometric_transform":
            _validation.one_output(self._y_shape[1], caller)
        try:
            from scipy import LowLevelCallable  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError:
            raise ImportError('a low-level callable needs SciPy: pip install "nnfast[scipy]"', name="scipy") from None
        function = self._kept_by(CFUNCTYPE(None)(self._scipy_functions[caller]))
        return LowLevelCallable(function, context, _SCIPY_SIGNATURES[caller])

    def _for_c(self) -> Any:
        """What the C functions are told of the network; an error if they cannot run it."""
        if self._context is None:
            _validation.callable_from_c(self.network, _inference.LAYERS)
        return self._context

    def _kept_by(self, function: Any) -> Any:
        """A function of ctypes that keeps this predictor alive."""
        function.predictor = self
        return function
