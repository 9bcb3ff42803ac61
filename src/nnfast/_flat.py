"""All parameters of a network as one vector, of which the layers' arrays are views."""

from typing import TYPE_CHECKING, Any

import numpy as np

from nnfast import _validation

if TYPE_CHECKING:
    from nnfast.network import Network


class FlatParameters:
    """The vector, made anew when the layers have other arrays than its parts."""

    def __init__(self) -> None:
        self._vector = np.empty(0)

    def of(self, network: "Network", fitting: dict[int, "Network"]) -> np.ndarray:
        """The vector (P,), which every array of the layers is a view of afterwards."""
        arrays = _validation.flattenable(network)
        if not self._is_current([array for _, _, array in arrays]):
            _validation.not_fitting(network, fitting)   # which may be about to change the arrays that are there
            vector = np.empty(sum(array.size for _, _, array in arrays), network.dtype)
            first = 0
            for layer, key, array in arrays:
                part = vector[first : first + array.size].reshape(array.shape)
                part[...] = array
                setattr(layer, key, part)
                first += array.size
            self._vector = vector
        return self._vector

    def _is_current(self, arrays: list[np.ndarray]) -> bool:
        address = self._vector.ctypes.data
        for array in arrays:
            if array.ctypes.data != address or not array.flags.c_contiguous:
                return False
            address += array.nbytes
        return address == self._vector.ctypes.data + self._vector.nbytes and bool(arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return FlatParameters, ()   # a copy of the network has arrays of its own
