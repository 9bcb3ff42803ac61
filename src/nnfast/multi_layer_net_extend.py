"""The book's module name for `MultiLayerNetExtend`, so that its scripts' imports work."""

from nnfast.network import MultiLayerNetExtend

__all__ = ["MultiLayerNetExtend"]
