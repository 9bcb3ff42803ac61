"""Bad input, tried as a user would: each is one sentence, and nothing given is changed.

Wrong files are in test_datasets.py, the command line in test_cli.py.
"""

import copy

import numpy as np
import pytest

import nnfast
from nnfast import (
    SGD,
    Adam,
    Affine,
    BatchNormalization,
    Dropout,
    IdentityWithLoss,
    LeakyRelu,
    Momentum,
    MultiLayerNet,
    Network,
    Relu,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Trainer,
    TwoLayerNet,
    numerical_gradient,
)
from nnfast.functions import cross_entropy_error, sigmoid, softmax, sum_squared_error
from nnfast.perceptron import Perceptron
from nnfast.util import shuffle_dataset, smooth_curve

X = np.linspace(-1, 1, 40).reshape(10, 4)
T = np.arange(10) % 3


def changed(array, place, value):
    array = np.array(array)
    array[place] = value
    return array


def network(loss=None):
    return Network([Affine(4, 5), Relu(), Affine(5, 3)], loss, seed=0)


# x and t of fit (loss and gradient refuse the same, apart from NaN): arguments, type of the error, its sentence
DATA = {
    "too few columns": (X[:, :3], T, ValueError, "x has 3 columns, but layer 1 (Affine) takes 4 inputs"),
    "one example": (
        X[0], T[:1], ValueError,
        "x is 1-D with 4 values, but must have a row for each example: pass x.reshape(1, -1) for one example",
    ),
    "a number": (3.0, T, ValueError, "x is a single number, but must have a row for each example"),
    "no rows": (X[:0], T[:0], ValueError, "x has no rows, but at least 1 is needed"),
    "ragged rows": ([[1, 2, 3, 4], [1, 2]], T[:2], ValueError,
                    "x is a list of rows of unequal length, but must be a rectangular array"),
    "strings": ([["a"] * 4], [0], TypeError, "x holds str32 values, but must hold real numbers"),
    "objects": ([[None] * 4], [0], TypeError, "x holds object values, but must hold real numbers"),
    "complex numbers": (X + 1j, T, TypeError, "x holds complex128 values, but must hold real numbers"),
    "label too large": (X, changed(T, 7, 3), ValueError, "t[7] is 3, but the network has classes 0 to 2"),
    "label negative": (X, changed(T, 7, -1), ValueError, "t[7] is -1, but the network has classes 0 to 2"),
    "label fractional": (X, changed(T.astype(float), 2, 1.5), ValueError,
                         "t[2] is 1.5, but a class label must be a whole number"),
    "label NaN": (X, changed(T.astype(float), 2, np.nan), ValueError,
                  "t[2] is nan, but a class label must be a whole number"),
    "label infinite": (X, changed(T.astype(float), 2, np.inf), ValueError,
                       "t[2] is inf, but a class label must be a whole number"),
    "label huge": (X, changed(T.astype(np.uint64), 2, 2**64 - 1), ValueError,
                   "t[2] is 18446744073709551615, which is too large for a class label"),
    "label strings": (X, ["a"] * 10, TypeError, "t holds str32 values, but must hold real numbers"),
    "one-hot of two ones": (X, changed(np.eye(3)[T], (4, slice(2)), 1), ValueError,
                            "t[4] sums to 2 and is not one-hot, but a row of t must hold one 1 and otherwise 0"),
    "one-hot of none": (X, changed(np.eye(3)[T], 4, 0), ValueError,
                        "t[4] sums to 0 and is not one-hot, but a row of t must hold one 1 and otherwise 0"),
    "one-hot of halves": (X, changed(np.eye(3)[T], 4, [0.5, 0.5, 0]), ValueError,
                          "t[4] sums to 1 and is not one-hot, but a row of t must hold one 1 and otherwise 0"),
    "one-hot of too many classes": (X, np.eye(4)[T], ValueError,
                                    "t has shape (10, 4), but must hold 10 labels or one-hot rows of 3 classes"),
    "too few labels": (X, T[:9], ValueError, "t has 9 rows, but x has 10 rows"),
    "one label for all": (X, 1, ValueError, "t is a single value, but x has 10 rows"),
}
NOT_FINITE = {
    "NaN": (changed(X, (3, 1), np.nan), T, ValueError, "x contains NaN or infinity (first at row 3, column 1)"),
    "infinity": (changed(X, (9, 3), -np.inf), T, ValueError, "x contains NaN or infinity (first at row 9, column 3)"),
    "infinite in float32": (changed(X, (0, 2), 1e39), T, ValueError,
                            "x contains NaN or infinity (first at row 0, column 2)"),
}


def refuses(call, error, sentence):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert str(caught.value.args[0]) == sentence


@pytest.mark.parametrize("case", {**DATA, **NOT_FINITE})
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_fit_refuses(case):
    x, t, error, sentence = {**DATA, **NOT_FINITE}[case]
    x_before, t_before = copy.deepcopy(x), copy.deepcopy(t)
    refused = network()
    params_before = copy.deepcopy(refused.params)
    refuses(lambda: refused.fit(x, t), error, sentence)
    for given, before in ((x, x_before), (t, t_before)):
        assert given == before if isinstance(given, list) else np.array_equal(given, before, equal_nan=np.asarray(given).dtype.kind == "f")
    for key, array in refused.params.items():
        np.testing.assert_array_equal(array, params_before[key])


@pytest.mark.parametrize("method", ["loss", "gradient", "numerical_gradient", "accuracy"])
@pytest.mark.parametrize("case", DATA)
def test_loss_gradient_and_accuracy_refuse(case, method):
    x, t, error, sentence = DATA[case]
    refuses(lambda: getattr(network(), method)(x, t), error, sentence)


@pytest.mark.parametrize(
    "labels",
    [
        T.tolist(), T.reshape(-1, 1), T.astype(float), T.astype(np.uint8), T.astype(">i4"), np.eye(3)[T],
        np.eye(3, dtype=bool)[T], np.eye(3, dtype=int)[T].tolist(), np.asfortranarray(np.eye(3)[T]),
    ],
    ids=["list", "column", "whole floats", "uint8", "byte-swapped", "one-hot", "booleans", "one-hot list", "Fortran"],
)
def test_labels_of_every_kind_mean_the_same(labels):
    assert network().loss(X, labels) == network().loss(X, T)
    assert network().accuracy(X, labels) == network().accuracy(X, T)


OPTIONS = {
    "epochs 0": ({"epochs": 0}, ValueError, "epochs is 0, but must be at least 1"),
    "epochs negative": ({"epochs": -3}, ValueError, "epochs is -3, but must be at least 1"),
    "epochs fractional": ({"epochs": 1.5}, TypeError, "epochs is 1.5, but must be a whole number"),
    "epochs True": ({"epochs": True}, TypeError, "epochs is True, but must be a whole number"),
    "batch size 0": ({"batch_size": 0}, ValueError, "batch_size is 0, but must be at least 1"),
    "batch size text": ({"batch_size": "many"}, TypeError, "batch_size is 'many', but must be a whole number"),
    "optimiser by name": ({"optimizer": "sgd"}, TypeError, "optimizer is 'sgd', but must have the methods update"),
    "optimiser class": ({"optimizer": SGD}, TypeError,
                        "optimizer is the class SGD, but must be an object: write SGD(...)"),
    "validation x alone": ({"validation_data": X}, TypeError,
                           "validation_data is a ndarray, but must be a tuple (x, t)"),
    "validation width": ({"validation_data": (X[:, :2], T)}, ValueError,
                         "validation_data[0] has 2 columns, but layer 1 (Affine) takes 4 inputs"),
    "callbacks not a list": ({"callbacks": print}, TypeError,
                             f"callbacks is {print!r}, but must be a list of callables"),
    "callback not callable": ({"callbacks": [3]}, TypeError, "callbacks[0] is 3, but must be callable"),
    "verbose negative": ({"verbose": -1}, ValueError, "verbose is -1, but must be at least 0"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_fit_refuses_option(case):
    options, error, sentence = OPTIONS[case]
    refuses(lambda: network().fit(X, T, **options), error, sentence)


def test_a_batch_larger_than_the_data_is_one_batch():
    assert len(network().fit(X, T, batch_size=10**9).loss) == 1


CALLS = {
    "no layers": (lambda: Network([]), ValueError, "layers is empty, but a network has at least one layer"),
    "layers a number": (lambda: Network(3), TypeError, "layers is 3, but must be a list of layers"),
    "layer a class": (lambda: Network([Affine(2, 2), Relu]), TypeError,
                      "layers['type1'] is the class Relu, but must be an object: write Relu(...)"),
    "layer a number": (lambda: Network([784]), TypeError,
                       "layers['int1'] is 784, but must have the methods forward and backward"),
    "layer twice": (lambda: Network([relu := Relu(), relu]), ValueError,
                    "Relu2 is the same object as Relu1, but a layer stands in a network once"),
    "loss among layers": (lambda: Network([Affine(2, 2), SoftmaxWithLoss()]), TypeError,
                          "layers holds SoftmaxWithLoss, which is an output layer: pass it as loss="),
    "loss a name": (lambda: Network([Affine(2, 2)], "softmax"), TypeError,
                    "loss is 'softmax', but must have the methods forward and backward"),
    "widths apart": (lambda: Network([Affine(784, 50), Relu(), Affine(60, 10)]), ValueError,
                     "layer 3 (Affine) takes 60 inputs, but layer 1 (Affine) gives 50 outputs"),
    "widths apart at normalisation": (
        lambda: Network([Affine(784, 50), BatchNormalization(60)]), ValueError,
        "layer 2 (BatchNormalization) takes 60 inputs, but layer 1 (Affine) gives 50 outputs"),
    "dtypes apart": (
        lambda: Network([Affine(np.ones((2, 3)), np.ones(3)), Affine(*(np.ones(s, "f4") for s in [(3, 2), 2]))]),
        ValueError, "layer 2 (Affine) is float32, but layer 1 (Affine) is float64: use one dtype in a network"),
    "dtype int": (lambda: Network([Affine(2, 2)], dtype=int), ValueError,
                  "dtype is int64, but must be float32 or float64"),
    "dtype nonsense": (lambda: Network([Affine(2, 2)], dtype="float33"), TypeError,
                       "dtype is 'float33', but must be float32 or float64"),
    "seed negative": (lambda: Network([Affine(2, 2)], seed=-1), ValueError, "seed is -1, but must be at least 0"),
    "W of integers": (lambda: Affine(np.ones((2, 3), int), np.ones(3)), TypeError,
                      "W is an array of int64, but must be float32 or float64: pass W.astype(np.float64)"),
    "W one row": (lambda: Affine(np.ones(3), np.ones(3)), ValueError, "W has shape (3,), but must have 2 axes"),
    "b too long": (lambda: Affine(np.ones((2, 3)), np.ones(4)), ValueError,
                   "b has shape (4,), but a row of W has shape (3,)"),
    "b of another dtype": (lambda: Affine(np.ones((2, 3)), np.ones(3, "f4")), ValueError,
                           "b is float32, but W is float64"),
    "size 0": (lambda: Affine(0, 3), ValueError, "W is 0, but must be at least 1"),
    "init unknown": (lambda: Affine(2, 3, init="hee"), ValueError, "init is 'hee', but must be one of he, xavier"),
    "init negative": (lambda: Affine(2, 3, init=-1), ValueError,
                      "init is -1, but must be a finite number of at least 0"),
    "gamma and beta apart": (lambda: BatchNormalization(np.ones(3), np.ones(2)), ValueError,
                             "beta has shape (2,), but gamma has shape (3,)"),
    "gamma without beta": (lambda: BatchNormalization(np.ones(3)), ValueError,
                           "beta is missing: it must have the shape of gamma"),
    "momentum above 1": (lambda: BatchNormalization(3, momentum=2), ValueError,
                         "momentum is 2, but must be between 0 and 1"),
    "ratio above 1": (lambda: Dropout(1.5), ValueError, "dropout_ratio is 1.5, but must be between 0 and 1"),
    "ratio text": (lambda: Dropout("half"), TypeError, "dropout_ratio is 'half', but must be a number"),
    "slope NaN": (lambda: LeakyRelu(float("nan")), ValueError, "slope is nan, but must be between 0 and 1"),
    "lr negative": (lambda: SGD(-0.1), ValueError, "lr is -0.1, but must be a finite number of at least 0"),
    "lr text": (lambda: SGD("fast"), TypeError, "lr is 'fast', but must be a number"),
    "lr infinite": (lambda: SGD(float("inf")), ValueError, "lr is inf, but must be a finite number of at least 0"),
    "beta1 of 1": (lambda: Adam(beta1=1), ValueError, "beta1 is 1, but must be between 0 and 1"),
    "params of integers": (
        lambda: Momentum().update({"W": np.ones(3, int)}, {"W": np.ones(3)}), TypeError,
        "params['W'] is an array of int64, but must be float32 or float64: pass params['W'].astype(np.float64)"),
    "gradient missing": (lambda: SGD().update({"W": np.ones(3)}, {}), KeyError, "grads has no 'W', but params has"),
    "gradient of another shape": (lambda: SGD().update({"W": np.ones(3)}, {"W": np.ones(2)}), ValueError,
                                  "grads['W'] has shape (2,), but params['W'] has shape (3,)"),
    "parameter assigned another shape": (
        lambda: network().params.__setitem__("b1", np.ones(3)), ValueError,
        "params['b1'] has shape (3,), but the parameter has shape (5,)"),
    "parameter unknown": (lambda: network().params.__setitem__("b9", np.ones(3)), KeyError, "b9"),
    "backward first": (lambda: Relu().backward(X), RuntimeError, "Relu.backward needs a call of forward first"),
    "dout of another shape": (
        lambda: [layer := Relu(), layer.forward(X), layer.backward(X[:5])], ValueError,
        "dout has shape (5, 4), but the output has shape (10, 4)"),
    "regression targets": (
        lambda: network(IdentityWithLoss()).loss(X, T), ValueError,
        "t has shape (10,), but the network gives outputs of shape (10, 3)"),
    "targets above 1": (
        lambda: network(SigmoidWithLoss()).loss(X, np.full((10, 3), 2.0)), ValueError,
        "t[0, 0] is 2, but must be between 0 and 1"),
    "sigmoid of text": (lambda: sigmoid("one"), TypeError, "x holds str96 values, but must hold real numbers"),
    "softmax of a number": (lambda: softmax(1.0), ValueError,
                            "x is a single number, but must have an axis of classes"),
    "softmax of nothing": (lambda: softmax(np.ones((3, 0))), ValueError,
                           "x has shape (3, 0), but its last axis must hold at least one class"),
    "errors of other shapes": (lambda: sum_squared_error(np.ones((3, 1)), np.ones(3)), ValueError,
                               "t has shape (3,), but y has shape (3, 1)"),
    "cross-entropy label": (lambda: cross_entropy_error([0.5, 0.5], 2), ValueError,
                            "t[0] is 2, but the network has classes 0 to 1"),
    "numerical gradient of a list": (
        lambda: numerical_gradient(sum, [1.0]), TypeError,
        "x is a list, but must be an array of float64, which is perturbed in place"),
    "numerical gradient of integers": (
        lambda: numerical_gradient(np.sum, np.arange(3)), TypeError,
        "x is an array of int64, but must be float64: pass x.astype(np.float64)"),
    "numerical gradient of float32": (
        lambda: numerical_gradient(np.sum, np.ones(3, "f4")), TypeError,
        ("x is float32, whose rounding is as large as the difference that h = 1e-4 makes: "
         "pass x.astype(np.float64), or a larger h")),
    "h of 0": (lambda: numerical_gradient(np.sum, np.ones(3), h=0), ValueError, "h is 0, but must be above 0"),
    "threads 0": (lambda: nnfast.set_num_threads(0), ValueError, "num_threads is 0, but must be at least 1"),
    "hidden sizes a number": (lambda: MultiLayerNet(4, 5, 2), TypeError,
                              "hidden_size_list is 5, but must be a list of whole numbers"),
    "hidden size 0": (lambda: MultiLayerNet(4, [5, 0], 2), ValueError,
                      "hidden_size_list[1] is 0, but must be at least 1"),
    "activation unknown": (
        lambda: MultiLayerNet(4, [5], 2, activation="rleu"), ValueError,
        "activation is 'rleu', but must be one of relu, sigmoid, tanh, leaky_relu, gelu, identity"),
    "input size 0": (lambda: TwoLayerNet(0, 5, 2), ValueError, "input_size is 0, but must be at least 1"),
    "trainer without data": (lambda: Trainer(TwoLayerNet(4, 5, 2), X[:0], T[:0], X, T), ValueError,
                             "x_train has no rows, but at least 1 is needed"),
    "trainer lengths": (lambda: Trainer(TwoLayerNet(4, 5, 2), X, T[:3], X, T), ValueError,
                        "t_train has 3 rows, but x_train has 10 rows"),
    "shuffle lengths": (lambda: shuffle_dataset(X, T[:3]), ValueError, "t has 3 rows, but x has 10 rows"),
    "short curve": (lambda: smooth_curve([1.0]), ValueError,
                    "x has shape (1,), but must be one row of at least 11 values"),
    "perceptron inputs": (lambda: Perceptron([1, 1], 0)([1, 2, 3]), ValueError,
                          "x has shape (3,), but w has shape (2,)"),
}


@pytest.mark.parametrize("case", CALLS)
def test_call_is_refused(case):
    call, error, sentence = CALLS[case]
    refuses(call, error, sentence)


def test_the_optimiser_changes_nothing_when_a_later_gradient_is_wrong():
    params = {"W": np.ones(3), "b": np.ones(2)}
    optimizer = Adam()
    with pytest.raises(ValueError, match="grads"):
        optimizer.update(params, {"W": np.ones(3), "b": np.ones(3)})
    assert (params["W"] == 1).all()
    assert optimizer.iter == 0


def test_an_optimiser_of_another_network_is_refused():
    optimizer = Momentum()
    optimizer.update({"W": np.ones(3)}, {"W": np.ones(3)})
    refuses(
        lambda: optimizer.update({"W": np.ones(4)}, {"W": np.ones(4)}), ValueError,
        "params['W'] has shape (4,), but this optimiser began with shape (3,): make a new one for each network",
    )
