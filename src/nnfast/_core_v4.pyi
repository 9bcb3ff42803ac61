from nnfast._core import *
