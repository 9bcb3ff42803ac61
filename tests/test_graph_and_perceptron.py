"""Chapter 5's computational graph and chapter 2's logic gates: answers that are known by hand."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import reference

from nnfast.graph import AddLayer, MulLayer
from nnfast.perceptron import AND, NAND, OR, XOR, Perceptron

PAIRS = list(itertools.product([0, 1], repeat=2))
TAX = Fraction(11, 10)      # with fractions the sums on paper hold exactly


def test_two_apples_cost_220():
    apples, tax = MulLayer(), MulLayer()
    assert tax.forward(apples.forward(100, 2), TAX) == 220
    dapples_price, dtax = tax.backward(1)
    dapple, dnumber = apples.backward(dapples_price)
    assert (dapple, dnumber, dtax) == (Fraction("2.2"), 110, 200)


def test_two_apples_and_three_oranges_cost_715():
    apples, oranges, fruit, tax = MulLayer(), MulLayer(), AddLayer(), MulLayer()
    assert tax.forward(fruit.forward(apples.forward(100, 2), oranges.forward(150, 3)), TAX) == 715
    dprice, dtax = tax.backward(1)
    dapples_price, doranges_price = fruit.backward(dprice)
    dapple, dapples = apples.backward(dapples_price)
    dorange, doranges = oranges.backward(doranges_price)
    assert (dapple, dapples, dorange, doranges, dtax) == (Fraction("2.2"), 110, Fraction("3.3"), 165, 650)


def test_nodes_take_arrays_and_write_to_none_of_them(rng, dtype):
    x, y, dout = rng.standard_normal((3, 9, 7)).astype(dtype)
    add, multiply = AddLayer(), MulLayer()
    with reference.unchanged(x, y, dout):
        assert multiply.x is multiply.y is None
        np.testing.assert_array_equal(add.forward(x, y), x + y)
        np.testing.assert_array_equal(multiply.forward(x, y), x * y)
        assert multiply.x is x and multiply.y is y
        dx, dy = multiply.backward(dout)
        passed = add.backward(dout)
    np.testing.assert_array_equal(dx, dout * y)
    np.testing.assert_array_equal(dy, dout * x)
    assert dx.dtype == dy.dtype == dtype
    for gradient in passed:
        np.testing.assert_array_equal(gradient, dout)
        gradient += 1   # a gradient changed later must not change the other, nor dout
    np.testing.assert_array_equal(passed[0], dout + 1)
    np.testing.assert_array_equal(passed[1], dout + 1)


@pytest.mark.parametrize("place", [0, 1])
def test_the_chain_rule_through_a_graph_agrees_with_central_differences(place):
    def run(values):
        """(x + y) * x"""
        add, multiply = AddLayer(), MulLayer()
        result = multiply.forward(add.forward(*values), values[0])
        dsum, dx = multiply.backward(1.0)
        dx_of_sum, dy = add.backward(dsum)
        return result, (dx + dx_of_sum, dy)

    values = np.array([1.5, -0.75])
    numerical = reference.central_difference(lambda values: run(values)[0], values.copy())
    assert run(values)[1][place] == pytest.approx(numerical[place], abs=1e-11)


def test_a_multiply_node_needs_forward_first():
    with pytest.raises(RuntimeError, match=r"^MulLayer\.backward needs a call of forward first$"):
        MulLayer().backward(1)


@pytest.mark.parametrize(
    ("gate", "truth"),
    [(AND, [0, 0, 0, 1]), (NAND, [1, 1, 1, 0]), (OR, [0, 1, 1, 1]), (XOR, [0, 1, 1, 0])],
    ids=lambda gate: getattr(gate, "__name__", None),
)
@pytest.mark.parametrize("number", [int, float, bool, np.int8, np.float32], ids=lambda number: number.__name__)
def test_a_gate_has_its_truth_table(gate, truth, number):
    results = [gate(number(x1), number(x2)) for x1, x2 in PAIRS]
    assert results == truth
    assert all(type(result) is int for result in results)


def test_a_perceptron_fires_only_above_zero():
    perceptron = Perceptron(np.array([0.5, 0.25]), -0.75)
    assert [perceptron([x1, x2]) for x1, x2 in [(1, 1), (1, 1.01), (2, 0), (0, 2)]] == [0, 1, 1, 0]
    assert type(perceptron([2, 2])) is int


@pytest.mark.parametrize("layout", reference.LAYOUTS)
def test_a_perceptron_takes_every_layout(layout):
    w = np.array([1.0, -2.0, 3.0])
    for x in ([1, 2, 2], [1, 3, 1]):
        given = reference.LAYOUTS[layout](np.array(x, float))
        with reference.unchanged(given):
            assert Perceptron(w, -2.5)(given) == int(w @ x - 2.5 > 0)


def test_no_single_perceptron_on_a_grid_is_xor_but_each_other_gate_is():
    grid = np.linspace(-1, 1, 9)
    tables = {tuple(Perceptron([w1, w2], b)(pair) for pair in PAIRS) for w1, w2, b in itertools.product(grid, repeat=3)}
    for gate in (AND, NAND, OR):
        assert tuple(gate(*pair) for pair in PAIRS) in tables
    assert tuple(XOR(*pair) for pair in PAIRS) not in tables
