"""What a user changes between two calls, behind a layer's or an optimiser's back, is right or refused: never a crash."""

import numpy as np
import pytest

from nnfast import SGD, Adam, Affine, BatchNormalization, Dropout, Momentum, Network, Relu, SoftmaxWithLoss


def test_labels_changed_after_the_forward_pass_change_no_gradient():
    output, t = SoftmaxWithLoss(), np.array([0, 1])
    output.forward(np.zeros((2, 3)), t)
    expected = output.backward()
    t[0] = 10**9        # as a place in memory it is far outside
    np.testing.assert_array_equal(output.backward(), expected)


def test_training_shows_nobody_the_labels_that_it_works_on():
    network, t = Network([Affine(2, 3)], seed=0), np.array([0, 1])
    network.fit(np.eye(2), t, shuffle=False, callbacks=[lambda epoch: t.fill(10**9)], epochs=2)
    assert network.last_layer.t is None


def test_weights_replaced_by_others_of_another_shape_are_used():
    affine = Affine(np.ones((2, 3)), np.ones(3))
    affine.W = np.full((2000, 3), 2.0)
    np.testing.assert_array_equal(affine.forward(np.ones((5, 2000))), np.full((5, 3), 4001.0))
    np.testing.assert_array_equal(affine.backward(np.ones((5, 3))), np.full((5, 2000), 6.0))
    np.testing.assert_array_equal(affine.dW, np.full((2000, 3), 5.0))
    np.testing.assert_array_equal(affine.db, np.full(3, 5.0))


@pytest.mark.parametrize(("name", "array", "sentence"), [
    ("W", np.ones((3, 3)), "x has 2 columns, but W takes 3 inputs"),
    ("W", np.ones((2, 4)), "b has shape (3,), but a row of W has shape (4,)"),
    ("W", np.ones(3), "W has shape (3,), but must have 2 axes"),
    ("b", np.ones(1), "b has shape (1,), but a row of W has shape (3,)"),
    ("b", np.ones(3, np.float32), "b is float32, but W is float64"),
    ("x", np.ones((5, 7)), "x has 7 columns, but W takes 2 inputs"),
])
def test_an_array_of_affine_that_does_not_fit_any_more_is_refused(name, array, sentence):
    affine = Affine(np.ones((2, 3)), np.ones(3))
    affine.forward(np.ones((5, 2)))
    setattr(affine, name, array)
    with pytest.raises(ValueError) as caught:
        affine.backward(np.ones((5, 3)))
    assert str(caught.value) == sentence


@pytest.mark.parametrize("name", ["gamma", "beta", "running_mean", "running_var"])
@pytest.mark.parametrize("train_flg", [True, False])
def test_an_array_of_batch_normalization_that_does_not_fit_any_more_is_refused(name, train_flg):
    normalization = BatchNormalization(np.ones(4), np.zeros(4))
    normalization.forward(np.ones((3, 4)))
    setattr(normalization, name, np.ones(3))
    with pytest.raises(ValueError):
        normalization.forward(np.ones((3, 4)), train_flg)


def test_gamma_replaced_before_the_backward_pass_is_refused():
    normalization = BatchNormalization(np.ones(400), np.zeros(400))
    normalization.forward(np.ones((3, 400)))
    normalization.gamma = np.ones(1)
    with pytest.raises(ValueError, match="gamma has shape"):
        normalization.backward(np.ones((3, 400)))


def test_an_output_of_relu_changed_in_place_changes_no_gradient():
    relu, x = Relu(), np.array([1.0, -1.0])
    y = relu.forward(x)
    y[...], x[...] = 0, -5
    np.testing.assert_array_equal(relu.backward(np.ones(2)), [1, 0])


def test_a_dropout_mask_of_integers_counts_as_true_and_false():
    dropout = Dropout()
    dropout.mask = np.array([0, 1, 2])
    np.testing.assert_array_equal(dropout.backward(np.ones(3)), [0, 1, 1])


@pytest.mark.parametrize(("parameter", "error", "sentence"), [
    ([1.0, 2.0], TypeError, "params['W'] is a list, but must be an array of float32 or float64"),
    (np.array(3), TypeError, ("params['W'] is an array of int64, but must be float32 or float64: "
                             "pass params['W'].astype(np.float64)")),
    (np.broadcast_to(np.ones(1), 2), ValueError, "params['W'] is read-only, but is updated in place: pass a copy"),
])
def test_a_parameter_that_cannot_be_updated_is_refused_before_any_is_changed(parameter, error, sentence):
    params = {"a": np.ones(2), "W": parameter}
    with pytest.raises(error) as caught:
        SGD(lr=1).update(params, {key: np.ones(np.shape(value)) for key, value in params.items()})
    assert str(caught.value) == sentence
    np.testing.assert_array_equal(params["a"], [1, 1])


def test_a_velocity_of_another_layout_or_dtype_is_used_and_moves_on():
    params, grads = {"W": np.zeros((2, 3))}, {"W": np.ones((2, 3))}
    momentum = Momentum(lr=1, momentum=0.5)
    momentum.v = {"W": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))}
    v = np.arange(6.0).reshape(2, 3)
    expected = np.zeros((2, 3))
    for _ in range(2):
        momentum.update(params, grads)
        v = 0.5 * v - 1
        expected += v
    np.testing.assert_array_equal(params["W"], expected)
    np.testing.assert_array_equal(momentum.v["W"], v)


def test_an_optimiser_takes_parameters_of_another_dtype_next_time():
    adam = Adam(lr=0.1)
    adam.update({"W": np.ones(3, np.float32)}, {"W": np.ones(3)})
    params = {"W": np.ones(3)}
    adam.update(params, {"W": np.ones(3)})
    np.testing.assert_allclose(params["W"], 0.9, rtol=1e-6)
