"""Variables of the computational graph: chapter 5's answers, and the chain rule against central differences."""

from fractions import Fraction

import numpy as np
import pytest
import reference

from nnfast import graph, layers
from nnfast.graph import DivLayer, ExpLayer, LogLayer, MatMulLayer, Variable

TAX = Fraction(11, 10)      # with fractions the sums on paper hold exactly


def gradients(result, *variables):
    result.backward()
    return [variable.grad for variable in variables]


def test_two_apples_cost_220():
    apple, number, tax = Variable(100), Variable(2), Variable(TAX)
    price = apple * number * tax
    assert price.value == 220
    assert gradients(price, apple, number, tax) == [Fraction("2.2"), 110, 200]


def test_two_apples_and_three_oranges_cost_715():
    apple, apples, orange, oranges, tax = values = [Variable(value) for value in (100, 2, 150, 3, TAX)]
    price = (apple * apples + orange * oranges) * tax
    assert price.value == 715
    assert gradients(price, *values) == [Fraction("2.2"), 110, Fraction("3.3"), 165, 650]


def test_with_plain_numbers_they_are_printed_as_in_the_book():
    apple, apples, orange, oranges, tax = values = [Variable(value) for value in (100, 2, 150, 3, 1.1)]
    price = (apple * apples + orange * oranges) * tax
    assert f"{price.value:.0f}" == "715"
    assert [f"{gradient:.4g}" for gradient in gradients(price, *values)] == ["2.2", "110", "3.3", "165", "650"]


# Every node, on numbers and arrays: the gradient is the central difference

FUNCTIONS = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "negative": lambda x, y: -x * y,
    "power": lambda x, y: x**3 * y,
    "exp": lambda x, y: graph.exp(x * y),
    "log": lambda x, y: graph.log(x * x + y * y),
    "sigmoid": lambda x, y: graph.sigmoid(x) * y,
    "relu": lambda x, y: graph.relu(x) * y + graph.relu(-y),
    "one divided": lambda x, y: 1 / (1 + graph.exp(-x)) + y,
    "used twice": lambda x, y: x * y + x,
    "used in two places": lambda x, y: (x + y) * (x * y) * x,
    "numbers on the left": lambda x, y: 2 * x + 3 - y + (5 - x) / 2,
}
SHAPES = [((), ()), ((3,), (3,)), ((2, 3), (2, 3)), ((2, 3), ()), ((2, 3), (3,)), ((2, 3), (2, 1)), ((1, 3), (2, 1)), ((), (4,))]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_gradient_is_the_central_difference(rng, name, shapes):
    values = [rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape) for shape in shapes]
    dout = rng.standard_normal(np.broadcast_shapes(*shapes))
    variables = [Variable(value) for value in values]
    with reference.unchanged(*(value for value in values if isinstance(value, np.ndarray))):
        result = FUNCTIONS[name](*variables)
        assert result.shape == dout.shape
        result.backward(dout)
    for place, variable in enumerate(variables):
        assert np.shape(variable.grad) == shapes[place]

        def f(value, place=place):
            given = [Variable(value) if at == place else Variable(other) for at, other in enumerate(values)]
            return np.sum(FUNCTIONS[name](*given).value * dout)

        expected = reference.central_difference(f, np.array(values[place], np.float64))
        np.testing.assert_allclose(variable.grad, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layer", ["affine", "matmul"])
def test_matrix_nodes_agree_with_central_differences(rng, layer):
    shapes = [(4, 3), (3, 2)] + [(2,)] * (layer == "affine")
    values, dout = [rng.standard_normal(shape) for shape in shapes], rng.standard_normal((4, 2))
    function = getattr(graph, layer)
    variables = [Variable(value) for value in values]
    result = function(*variables)
    np.testing.assert_allclose(result.value, values[0] @ values[1] + (values[2] if layer == "affine" else 0), atol=1e-14)
    result.backward(dout)
    for place, variable in enumerate(variables):
        def f(value, place=place):
            given = [value if at == place else other for at, other in enumerate(values)]
            return np.sum(function(*given).value * dout)

        np.testing.assert_allclose(variable.grad, reference.central_difference(f, values[place].copy()), atol=1e-9)


def test_softmax_with_loss_gives_the_notes_gradient():
    scores = Variable(np.log([[0.3, 0.2, 0.5]]))
    loss = graph.softmax_with_loss(scores, [[0, 1, 0]])
    assert loss.value == pytest.approx(-np.log(0.2 + 1e-7))
    loss.backward()
    np.testing.assert_allclose(scores.grad, [[0.3, -0.8, 0.5]], atol=1e-15)


def test_a_network_written_as_a_graph_has_the_networks_gradients(rng):
    from nnfast import Affine, Network, Relu

    network = Network([Affine(5, 4), Relu(), Affine(4, 3)], seed=0, dtype="float64")
    x, t = rng.standard_normal((6, 5)), rng.integers(0, 3, 6)
    W1, b1, W2, b2 = variables = [Variable(array, key) for key, array in network.params.items()]
    loss = graph.softmax_with_loss(graph.affine(graph.relu(x @ W1 + b1), W2, b2), t)
    loss.backward()
    assert loss.value == pytest.approx(network.loss(x, t), abs=1e-15)
    for variable, expected in zip(variables, network.gradient(x, t).values(), strict=True):
        np.testing.assert_allclose(variable.grad, expected, rtol=0, atol=1e-15)


# What is kept


def kept(node):
    """Names of what a node keeps; the library's layers keep their memory for outputs beside it."""
    return {name for name, value in vars(node).items() if isinstance(value, (int, float, np.ndarray)) and not name.startswith("_")}


def test_nodes_keep_only_what_their_backward_needs():
    x = np.array([1.0, 2.0])
    nodes = {
        "+": (Variable(x) + x, set()),
        "*": (Variable(x) * x, {"x", "y"}),
        "/": (Variable(x) / x, {"y", "out"}),
        "exp": (graph.exp(x), {"out"}),
        "log": (graph.log(x), {"x"}),
        "matmul": (Variable([x]) @ [[1.0], [2.0]], {"x", "W"}),
    }
    for name, (result, expected) in nodes.items():
        assert kept(result.node) == expected, name
    relu, sigmoid = graph.relu(x).node, graph.sigmoid(x).node
    assert type(relu) is layers.Relu and relu._kept.dtype == np.uint8      # a mask
    assert type(sigmoid) is layers.Sigmoid
    np.testing.assert_array_equal(sigmoid._kept, sigmoid.out)


# Backward


def test_a_second_backward_begins_anew():
    x = Variable(3.0)
    y = x * x
    y.backward()
    y.backward()
    assert x.grad == 6
    (x * 5).backward()
    assert x.grad == 5


def test_every_variable_on_the_way_has_its_gradient():
    x = Variable(2.0)
    square = x * x
    result = square * 3
    assert x.grad is square.grad is result.grad is None
    result.backward()
    assert (result.grad, square.grad, x.grad) == (1, 3, 12)


def test_what_the_result_does_not_depend_on_has_no_gradient():
    x, y = Variable(2.0), Variable(3.0)
    other = x * y
    (x * 2).backward()
    assert y.grad is None and other.grad is None and x.grad == 2


def test_a_variable_is_its_own_result():
    x = Variable(5)
    x.backward()
    assert x.grad == 1


def test_a_chain_of_ten_thousand_nodes_is_no_deeper_than_it_is_long():
    x = y = Variable(1.0)
    for _ in range(10_000):
        y = y + 1
    y.backward()
    assert y.value == 10_001 and x.grad == 1


def test_a_diamond_of_many_ways_takes_no_longer_than_its_nodes():
    x = y = Variable(1.0)
    for _ in range(60):
        y = y + y       # 2**60 ways
    y.backward()
    assert x.grad == 2**60


def test_gradients_do_not_share_memory_with_each_other():
    x, y = Variable(np.ones(3)), Variable(np.ones(3))
    (x + y).backward(np.ones(3))
    x.grad += 1
    np.testing.assert_array_equal(y.grad, np.ones(3))


def test_arrays_on_the_left_are_taken_as_constants():
    x = Variable(np.ones(3))
    for result in (np.arange(3.0) * x, np.arange(3.0) + x, np.arange(3.0) - x, np.float64(2) * x):
        assert isinstance(result, Variable) and result.shape == (3,)


def test_a_variable_says_what_it_is():
    assert repr(Variable(2)) == "Variable(2)"
    assert repr(Variable(2.5, "tax")) == "Variable(2.5, 'tax')"


# What is refused


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: Variable("ten"), TypeError, "value holds str96 values, but must hold real numbers"),
    (lambda: Variable([[1], [1, 2]]), ValueError, "value is a list of rows of unequal length"),
    (lambda: Variable(1j), TypeError, "value holds complex128 values"),
    (lambda: Variable([1.0, 2.0]).backward(), ValueError,
     r"backward begins at a single number, but the value has shape \(2,\): pass dout of that shape"),
    (lambda: Variable([1.0, 2.0]).backward([1.0]), ValueError, r"dout has shape \(1,\), but the value has shape \(2,\)"),
    (lambda: Variable(1) / 0, ZeroDivisionError, "y is or holds 0, by which nothing can be divided"),
    (lambda: Variable(1) / [1.0, 0.0], ZeroDivisionError, "y is or holds 0"),
    (lambda: graph.log(0), ValueError, "x is or holds 0, but the logarithm takes what is above 0"),
    (lambda: graph.log([1.0, -2.0]), ValueError, "x is or holds -2.0, but"),
    (lambda: graph.matmul([1.0], [[1.0]]), ValueError, r"x has shape \(1,\) and W \(1, 1\), but \(B, I\) and \(I, O\)"),
    (lambda: graph.matmul([[1.0, 2.0]], [[1.0]]), ValueError, r"x has shape \(1, 2\) and W \(1, 1\)"),
    (lambda: graph.affine([[1.0, 2.0]], [[1.0]], [0.0]), ValueError, "x has 2 columns, but W takes 1 inputs"),
    (lambda: graph.softmax_with_loss([[1.0, 2.0]], [2]), ValueError, r"t\[0\] is 2"),
    (lambda: Variable(2) ** 0.5, TypeError, "exponent is 0.5, but must be a whole number"),
    (lambda: Variable(2) ** 0, ValueError, "exponent is 0"),
])
def test_wrong_values_are_refused_in_a_sentence(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


@pytest.mark.parametrize("node", [DivLayer, ExpLayer, LogLayer, MatMulLayer])
def test_a_node_needs_forward_first(node):
    with pytest.raises(RuntimeError, match=rf"^{node.__name__}\.backward needs a call of forward first$"):
        node().backward(1.0)
