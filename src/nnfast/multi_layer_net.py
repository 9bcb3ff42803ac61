"""The book's module name for `MultiLayerNet`, so that its scripts' imports work."""

from nnfast.network import MultiLayerNet

__all__ = ["MultiLayerNet"]
