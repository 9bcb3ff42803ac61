"""The book's optimisers: ``update(params, grads)`` changes the arrays of the dict `params` in place (chapter 6.1)."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _threads, _validation
from nnfast._kernels import kernels

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "Momentum", "Nesterov", "Optimizer", "RMSprop", "np"]

class _Work(NamedTuple):
    """A parameter and its gradient as a kernel takes them: flat, contiguous and of one dtype."""

    key: str
    gradient: np.ndarray
    parameter: np.ndarray
    is_own_memory: bool     # else the new values must be put back


class Optimizer:
    """What the optimisers share: a walk over the parameters, and state of the parameters' shapes.

    A subclass names its state attributes (`_states`), dicts from keys to arrays that are None before the first
    update, and applies a kernel to one flattened parameter (`_step`).

    Parameters
    ----------
    lr : float
        Learning rate, at least 0.

    Examples
    --------
    >>> [kind.__name__ for kind in Optimizer.__subclasses__()]
    ['SGD', 'Momentum', 'Nesterov', 'AdaGrad', 'RMSprop', 'Adam']
    """

    _states: tuple[str, ...] = ()

    def __init__(self, lr: float) -> None:
        self.lr = _validation.check_number("lr", lr, 0)
        for name in self._states:
            setattr(self, name, None)

    def _begin(self) -> None:
        """Called once an update, before the parameters."""

    def _step(
        self, step: SimpleNamespace, gradient: np.ndarray, parameter: np.ndarray, *state: np.ndarray, threads: int
    ) -> None:
        raise NotImplementedError

    def update(self, params: dict[str, Any], grads: dict[str, ArrayLike]) -> None:
        """Change the parameters in place by one step.

        Parameters
        ----------
        params : dict of str to ndarray
            Parameters of float32 or float64, any shape; plain numbers are replaced by new ones.
        grads : dict of str to array_like
            A gradient of the same shape for each key of `params`.

        Raises
        ------
        KeyError
            If a gradient is missing.
        TypeError
            If a parameter is neither an array of float32 or float64 nor a number.
        ValueError
            If shapes differ, also from those of the first update, or a parameter is read-only.
        """
        # All is checked before anything is changed.
        work = [self._prepared(key, parameter, grads) for key, parameter in params.items()]
        self._begin()
        for key, gradient, parameter, is_own_memory in work:
            state = [self._state_of(name, key, parameter, params[key]) for name in self._states]
            threads = _threads.for_elements(parameter.size)
            self._step(kernels(parameter.dtype), gradient, parameter, *state, threads=threads)
            if not is_own_memory:
                _put_back(params, key, parameter)

    def states(self, params: dict[str, Any]) -> dict[str, list[np.ndarray]]:
        """The states of all parameters by key, flat; made where there are none.

        Parameters
        ----------
        params : dict of str to ndarray
            Parameters of float32 or float64.

        Returns
        -------
        dict of str to list of ndarray
            In the order of the class's states, live.

        Raises
        ------
        TypeError, ValueError
            As `update`.
        """
        flat = {key: self._checked(key, parameter)[0] for key, parameter in params.items()}
        return {key: [self._state_of(name, key, flat[key], params[key]) for name in self._states] for key in params}

    def _checked(self, key: str, parameter: Any) -> tuple[np.ndarray, bool]:
        """A parameter as `_validation.updatable` gives it, its states checked to fit."""
        flat, is_own_memory = _validation.updatable(key, parameter)
        shape = np.shape(parameter)
        for name in self._states:
            states = getattr(self, name)
            if states is not None and key in states:
                _validation.same_state_shape(key, states[key], shape)
        return flat, is_own_memory

    def _prepared(self, key: str, parameter: Any, grads: dict[str, ArrayLike]) -> _Work:
        if key not in grads:
            raise KeyError(f"grads has no {key!r}, but params has")
        flat, is_own_memory = self._checked(key, parameter)
        gradient = _validation.gradient_of(key, grads[key], np.shape(parameter), flat.dtype)
        return _Work(key, gradient, flat, is_own_memory)

    def _state_of(self, name: str, key: str, flat: np.ndarray, parameter: Any) -> np.ndarray:
        """The state of one parameter, flat; made when there is none, converted when it has another layout."""
        states = getattr(self, name)
        if states is None:
            states = {}
            setattr(self, name, states)
        if key not in states:
            states[key] = np.zeros(np.shape(parameter), flat.dtype)
        state: np.ndarray = states[key]
        if state.ndim == 1 and state.dtype == flat.dtype and state.flags.c_contiguous:
            return state
        state = states[key] = _validation.floats(name, state, flat.dtype)
        return state.reshape(-1)

    def snapshot(self) -> dict[str, Any]:
        """A copy of the state, for `restore`.

        Returns
        -------
        dict
            Attributes by name.
        """
        return {name: _copied(value) for name, value in vars(self).items()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a `snapshot`.

        Parameters
        ----------
        snapshot : dict
            What `snapshot` returned.
        """
        for name, value in snapshot.items():
            setattr(self, name, _copied(value))


def _put_back(params: dict[str, Any], key: str, values: np.ndarray) -> None:
    if isinstance(params[key], np.ndarray):
        params[key][...] = values.reshape(params[key].shape)
    else:
        params[key] = float(values[0])


def _copied(value: Any) -> Any:
    return {key: array.copy() for key, array in value.items()} if isinstance(value, dict) else value


class SGD(Optimizer):
    """Stochastic gradient descent: params -= lr * grads.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, at least 0.

    Examples
    --------
    >>> params = {"W": np.array([1.0, 2.0])}
    >>> SGD(lr=0.1).update(params, {"W": np.array([1.0, -1.0])})
    >>> params["W"]
    array([0.9, 2.1])
    """

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)

    def _step(
        self, step: SimpleNamespace, gradient: np.ndarray, parameter: np.ndarray, *state: np.ndarray, threads: int
    ) -> None:
        step.sgd_step(gradient, parameter, self.lr, threads)


class Momentum(Optimizer):
    """Momentum: v = momentum * v - lr * grads; params += v.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, at least 0.
    momentum : float, default 0.9
        Between 0 and 1.

    Attributes
    ----------
    v : dict of str to ndarray or None
        Velocities.

    Examples
    --------
    >>> params, momentum = {"W": np.array([1.0])}, Momentum(lr=0.1)
    >>> for _ in range(2):
    ...     momentum.update(params, {"W": np.array([1.0])})
    >>> params["W"]
    array([0.71])
    """

    _states = ("v",)

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr)
        self.momentum = _validation.check_number("momentum", momentum, 0, 1)

    def _step(
        self, step: SimpleNamespace, gradient: np.ndarray, parameter: np.ndarray, *state: np.ndarray, threads: int
    ) -> None:
        step.momentum_step(gradient, parameter, *state, self.lr, self.momentum, threads)


class Nesterov(Optimizer):
    """Nesterov's accelerated gradient in the form of Bengio et al., 2013 (arXiv 1212.0901).

    params += momentum**2 * v - (1 + momentum) * lr * grads, with the velocity before this step; then
    v = momentum * v - lr * grads. (Early printings of the book's code update v first; later ones mend that.)

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, at least 0.
    momentum : float, default 0.9
        Between 0 and 1.

    Attributes
    ----------
    v : dict of str to ndarray or None
        Velocities.

    Examples
    --------
    >>> params, nesterov = {"W": np.array([1.0])}, Nesterov(lr=0.1)
    >>> for _ in range(2):
    ...     nesterov.update(params, {"W": np.array([1.0])})
    >>> params["W"].round(4)
    array([0.539])
    """

    _states = ("v",)

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr)
        self.momentum = _validation.check_number("momentum", momentum, 0, 1)

    def _step(
        self, step: SimpleNamespace, gradient: np.ndarray, parameter: np.ndarray, *state: np.ndarray, threads: int
    ) -> None:
        step.nesterov_step(gradient, parameter, *state, self.lr, self.momentum, threads)


class AdaGrad(Optimizer):
    """AdaGrad (Duchi et al., 2011): h += grads**2; params -= lr * grads / (sqrt(h) + 1e-7).

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, at least 0.

    Attributes
    ----------
    h : dict of str to ndarray or None
        Sums of squared gradients.

    Examples
    --------
    >>> params = {"W": np.array([1.0])}
    >>> AdaGrad(lr=0.1).update(params, {"W": np.array([2.0])})
    >>> params["W"].round(4)
    array([0.9])
    """

    _states = ("h",)

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)

    def _step(
        self, step: SimpleNamespace, gradient: np.ndarray, parameter: np.ndarray, *state: np.ndarray, threads: int
    ) -> None:
        step.adagrad_step(gradient, parameter, *state, self.lr, threads)


class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton, 2012): h = decay_rate * h + (1 - decay_rate) * grads**2, then as AdaGrad.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, at least 0.
    decay_rate : float, default 0.99
        Weight of the old mean of squares, between 0 and 1.

    Attributes
    ----------
    h : dict of str to ndarray or None
        Running means of squared gradients.

    Examples
    --------
    >>> params = {"W": np.array([1.0])}
    >>> RMSprop(lr=0.01).update(params, {"W": np.array([2.0])})
    >>> params["W"].round(4)
    array([0.9])
    """

    _states = ("h",)

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        super().__init__(lr)
        self.decay_rate = _validation.check_number("decay_rate", decay_rate, 0, 1)

    def _step(
        self, step: SimpleNamespace, gradient: np.ndarray, parameter: np.ndarray, *state: np.ndarray, threads: int
    ) -> None:
        step.rmsprop_step(gradient, parameter, *state, self.lr, self.decay_rate, threads)


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015), as the book writes it: 1e-7 is added to sqrt(v) before the bias correction.

    Parameters
    ----------
    lr : float, default 0.001
        Learning rate, at least 0.
    beta1, beta2 : float, default 0.9 and 0.999
        Weights of the old means, at least 0 and below 1.
    epsilon : float, keyword-only, default 1e-7
        What is added to sqrt(v), above 0.

    Attributes
    ----------
    iter : int
        Number of updates so far.
    m, v : dict of str to ndarray or None
        Running means of gradients and of their squares.

    Examples
    --------
    >>> params, adam = {"W": np.array([1.0])}, Adam(lr=0.1)
    >>> adam.update(params, {"W": np.array([2.0])})
    >>> params["W"].round(4)
    array([0.9])
    """

    _states = ("m", "v")

    weight_decay = 0.0      # AdamW has its own

    def __init__(
        self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, *, epsilon: float = 1e-7
    ) -> None:
        super().__init__(lr)
        self.epsilon = _validation.above_zero("epsilon", epsilon)
        below_1 = float(np.nextafter(1, 0))
        self.beta1 = _validation.check_number("beta1", beta1, 0, below_1)
        self.beta2 = _validation.check_number("beta2", beta2, 0, below_1)
        self.iter = 0

    def _begin(self) -> None:
        self.iter += 1

    def _step(
        self, step: SimpleNamespace, gradient: np.ndarray, parameter: np.ndarray, *state: np.ndarray, threads: int
    ) -> None:
        lr_t = self.lr * float(np.sqrt(1.0 - self.beta2**self.iter)) / (1.0 - self.beta1**self.iter)
        shrink = 1.0 - self.lr * self.weight_decay
        step.adam_step(
            gradient, parameter, *state, lr_t, self.beta1, self.beta2, self.epsilon, shrink, threads)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019): params also shrink by lr * weight_decay.

    Every parameter shrinks, biases too.

    Parameters
    ----------
    lr : float, default 0.001
        Learning rate, at least 0.
    beta1, beta2 : float, default 0.9 and 0.999
        Weights of the old means, at least 0 and below 1.
    weight_decay : float, default 0.01
        At least 0.
    epsilon : float, keyword-only, default 1e-7
        What is added to sqrt(v), above 0.

    Attributes
    ----------
    iter : int
        Number of updates so far.
    m, v : dict of str to ndarray or None
        Running means of gradients and of their squares.

    Examples
    --------
    >>> params = {"W": np.array([1.0])}
    >>> AdamW(lr=0.1, weight_decay=0.5).update(params, {"W": np.array([2.0])})
    >>> params["W"].round(4)
    array([0.85])
    """

    def __init__(
        self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, weight_decay: float = 0.01, *,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(lr, beta1, beta2, epsilon=epsilon)
        self.weight_decay = _validation.check_number("weight_decay", weight_decay, 0)
