"""What a layer keeps from a pass, made up for when it is asked for.

`Network.loss` and `Network.gradient` run all layers in compiled code, which leaves nothing in them; and yet the book's
`gradient` calls `loss` first and then each layer's `backward`. So the layers are told to forget what they kept, and the
first look at it runs them one by one, on the same input.
"""

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nnfast.network import Network


class Recall:
    """The last input of a network, and how its layers get what they would have kept."""

    def __init__(self, network: "Network", rows: np.ndarray, targets: np.ndarray | None = None) -> None:
        # Weak, for the network holds its layers, and they this: a cycle would keep its weights until it is collected.
        self._network = weakref.ref(network)
        self._rows = rows
        self._targets = targets     # as the loss prepared them; None: the loss has what it keeps

    def __call__(self) -> None:
        """Run the layers one by one."""
        network = self._network()
        if network is None:
            return
        scores = network._forward(self._rows, train_flg=False)
        if self._targets is not None:
            t = network.last_layer.t
            network.last_layer.forward_prepared(scores, self._targets)
            network.last_layer.t = t


class Recalling:
    """A layer that can be told to forget what it keeps from a pass."""

    _remembered: tuple[str, ...] = ()
    """Attributes, None before the first pass."""

    def forget(self, recall: Recall | None) -> None:
        """Drop what the last pass left; whoever looks for it calls `recall`, or finds None."""
        for name in self._remembered:
            if recall is None:
                self.__dict__[name] = None
            else:
                self.__dict__.pop(name, None)
        self.__dict__["_recall"] = recall

    def __getattr__(self, name: str) -> Any:
        # Python calls this only for what is not there.
        recall = self.__dict__.pop("_recall", None) if name in self._remembered else None
        if recall is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        recall()
        for missing in self._remembered:
            self.__dict__.setdefault(missing, None)     # the network is gone
        return self.__dict__[name]

    def __getstate__(self) -> dict[str, Any]:
        for name in self._remembered:
            getattr(self, name)     # a copy belongs to no network
        return {name: value for name, value in self.__dict__.items() if name != "_recall"}
