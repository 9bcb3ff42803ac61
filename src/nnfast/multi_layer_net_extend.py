"""The book's module name for `MultiLayerNetExtend`, with the names that a star import of it brings there."""

from collections import OrderedDict

from nnfast import layers
from nnfast.gradient import numerical_gradient
from nnfast.layers import *
from nnfast.network import MultiLayerNet, MultiLayerNetExtend

__all__ = ["MultiLayerNet", "MultiLayerNetExtend", "OrderedDict", "numerical_gradient"]
__all__ += layers.__all__
