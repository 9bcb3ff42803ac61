"""nnfast: multi-layer perceptrons on the CPU, fast.

Reading order: networks and their training, layers, output layers, optimisers, gradients, pictures, data, files, threads. The book's
modules (`nnfast.functions`, `nnfast.layers`, `nnfast.gradient`, ...) hold the names that its scripts import.
"""

from nnfast.network import MultiLayerNet, MultiLayerNetExtend, Network, TwoLayerNet
from nnfast.predictor import Predictor
from nnfast.trainer import Epoch, History, Step, Trainer
from nnfast.early_stopping import EarlyStopping
from nnfast.checkpoint import Checkpoint
from nnfast._fit_many import fit_many
from nnfast._turns import FitManyError
from nnfast.layers import Affine, BatchNormalization, Dropout, Rescale
from nnfast.activations import Gelu, Identity, LeakyRelu, Relu, Sigmoid, Tanh
from nnfast.losses import (
    AbsoluteError,
    FunctionLoss,
    HuberLoss,
    IdentityWithLoss,
    PoissonLoss,
    QuantileLoss,
    SigmoidWithLoss,
    SoftmaxWithLoss,
)
from nnfast.optimizer import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop
from nnfast.gradient import GradientReport, GradientRow, gradient_check, numerical_gradient
from nnfast.plots import plot_activation_functions, plot_activations, plot_decision, plot_history, plot_weights
from nnfast.datasets import load_digits, load_mnist
from nnfast._files import ModelFormatError
from nnfast._threads import get_num_threads, num_threads, set_num_threads
from nnfast._config import show_config

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "AbsoluteError",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Affine",
    "BatchNormalization",
    "Checkpoint",
    "Dropout",
    "EarlyStopping",
    "Epoch",
    "FitManyError",
    "FunctionLoss",
    "Gelu",
    "GradientReport",
    "GradientRow",
    "History",
    "HuberLoss",
    "Identity",
    "IdentityWithLoss",
    "LeakyRelu",
    "ModelFormatError",
    "Momentum",
    "MultiLayerNet",
    "MultiLayerNetExtend",
    "Nesterov",
    "Network",
    "PoissonLoss",
    "Predictor",
    "QuantileLoss",
    "RMSprop",
    "Relu",
    "Rescale",
    "Sigmoid",
    "SigmoidWithLoss",
    "SoftmaxWithLoss",
    "Step",
    "Tanh",
    "Trainer",
    "TwoLayerNet",
    "__version__",
    "fit_many",
    "get_num_threads",
    "gradient_check",
    "load_digits",
    "load_mnist",
    "num_threads",
    "numerical_gradient",
    "plot_activation_functions",
    "plot_activations",
    "plot_decision",
    "plot_history",
    "plot_weights",
    "set_num_threads",
    "show_config",
]
