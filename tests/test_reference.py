"""The NumPy reference is the specification: proved by finite differences and by scalar arithmetic, not by itself."""

from dataclasses import replace
from math import exp, tanh

import helpers
import numpy as np
import pytest

from fastrnn import functional, reference

T, B, I, H = 4, 5, 2, 3
LENGTHS = (2, 0, 4, 1, 3)  # unsorted, with an empty and a full sequence
BIASES = {"both biases": ("b_ih", "b_hh"), "no bias": (), "b_ih": ("b_ih",), "b_hh": ("b_hh",)}


def loss(problem, module):
    """The scalar whose gradient backward claims to give: y, h_n and c_n against the gradients that arrive at them."""
    outputs, _ = helpers.forward(problem, module, save=False)
    arriving = {"y": problem.dy} | {name[1:]: d for name, d in problem.dstates.items()}
    # Padding of dy is NaN, and the outputs there are zeros.
    return sum(float(np.sum(np.nan_to_num(arriving[name]) * out)) for name, out in outputs.items())


def numeric_gradient(problem, name, module, step=1e-5):
    """Central differences of the loss, one element of `problem.arrays[name]` after the other."""
    array = problem.arrays[name]
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        values = []
        for sign in (1, -1):
            moved = array.copy()
            moved[index] += sign * step
            values.append(loss(problem.with_arrays(**{name: moved}), module))
        gradient[index] = (values[0] - values[1]) / (2 * step)
    return gradient


def numeric_gradients(problem, module):
    return {f"d{name}": numeric_gradient(problem, name, module) for name, a in problem.arrays.items() if a is not None}


@pytest.mark.parametrize("biases", BIASES.values(), ids=BIASES)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["dense", "ragged"])
def test_gradients_are_those_of_finite_differences(variant, lengths, reverse, biases):
    problem = helpers.make(variant, T, B, I, H, seed=1, lengths=lengths, reverse=reverse, biases=biases)
    grads = helpers.backward(problem, helpers.forward(problem, reference)[1], reference)
    # The differences themselves are off by step**2 = 1e-10 and by 1e-16 / step = 1e-11, times the loss's derivatives.
    helpers.assert_close(grads, numeric_gradients(problem, reference), 1e-8)


@pytest.mark.parametrize("lengths", [None, (2, 0, 3)], ids=["dense", "ragged"])
def test_gradients_of_compiled_engines_are_those_of_their_own_finite_differences(variant, lengths, engine):
    """Each on its own, without the reference: more units than a vector has lanes, and a tail."""
    problem = helpers.make(variant, 3, 3, 2, 9, seed=4, lengths=lengths)
    with engine.active():
        grads = helpers.backward(problem, helpers.forward(problem)[1])
        helpers.assert_close(grads, numeric_gradients(problem, functional), 1e-8)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["dense", "ragged"])
def test_gradients_that_are_none_are_zeros(variant, lengths, engine):
    problem = helpers.make(variant, T, B, I, H, seed=2, lengths=lengths)
    absent = dict.fromkeys(problem.dstates)
    zeros = {name: np.zeros((B, H)) for name in absent}
    alternatives = [
        (replace(problem, dstates=absent), replace(problem, dstates=zeros)),
        (replace(problem, dy=None), replace(problem, dy=np.zeros((T, B, H)))),
    ]
    with engine.active():
        for without, with_zeros in alternatives:
            helpers.assert_same_bits(helpers.run(without), helpers.run(with_zeros))


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["dense", "ragged"])
def test_states_and_biases_that_are_none_are_zeros(variant, lengths, engine):
    names = [name for name in ("h0", "c0", "b_ih", "b_hh") if name in helpers.make(variant, 1, 1, 1, 1).arrays]
    problem = helpers.make(variant, T, B, I, H, seed=3, lengths=lengths)
    zeros = problem.with_arrays(**{name: np.zeros_like(problem.arrays[name]) for name in names})
    with engine.active():
        expected = helpers.run(zeros)
        actual = helpers.run(problem.with_arrays(**dict.fromkeys(names)))
    assert {"db_ih", "db_hh"}.isdisjoint(actual)  # a bias that is None has no gradient
    helpers.assert_same_bits(actual, {name: a for name, a in expected.items() if name in actual})


# --- one step, in scalars ---------------------------------------------------------------------------------------------


def sigmoid(a):
    return 1 / (1 + exp(-a))


def one_step(cell, **options):
    """One step with numbers from a table, its outputs, and functions that give row k's input and recurrent part."""
    problem = helpers.make(helpers.Variant(cell, *next(iter(options.items()), ())), 1, 1, 3, 2, seed=4)
    a = {name: array.tolist() for name, array in problem.arrays.items()}
    x, h = a["x"][0][0], a["h0"][0]

    def from_x(k):
        return a["b_ih"][k] + a["w_ih"][k][0] * x[0] + a["w_ih"][k][1] * x[1] + a["w_ih"][k][2] * x[2]

    def from_h(k, h=h):
        return a["b_hh"][k] + a["w_hh"][k][0] * h[0] + a["w_hh"][k][1] * h[1]

    outputs, _ = helpers.forward(problem, reference)
    return {name: array.ravel().tolist() for name, array in outputs.items()}, a, from_x, from_h


def close(expected):
    return pytest.approx(expected, rel=1e-14, abs=1e-15)


@pytest.mark.parametrize(("nonlinearity", "act"), [("tanh", tanh), ("relu", lambda a: max(a, 0.0))])
def test_rnn_step_by_hand(nonlinearity, act):
    outputs, _, from_x, from_h = one_step("rnn", nonlinearity=nonlinearity)
    assert outputs["y"] == outputs["h_n"] == close([act(from_x(0) + from_h(0)), act(from_x(1) + from_h(1))])


def test_lstm_step_by_hand():
    outputs, a, from_x, from_h = one_step("lstm")
    h, c = [], []
    for j in (0, 1):  # blocks i f g o: rows j, 2 + j, 4 + j, 6 + j
        i = sigmoid(from_x(j) + from_h(j))
        f = sigmoid(from_x(2 + j) + from_h(2 + j))
        g = tanh(from_x(4 + j) + from_h(4 + j))
        o = sigmoid(from_x(6 + j) + from_h(6 + j))
        c.append(f * a["c0"][0][j] + i * g)
        h.append(o * tanh(c[j]))
    assert outputs["y"] == outputs["h_n"] == close(h)
    assert outputs["c_n"] == close(c)


@pytest.mark.parametrize("reset_after", [True, False])
def test_gru_step_by_hand(reset_after):
    outputs, a, from_x, from_h = one_step("gru", reset_after=reset_after)
    h0 = a["h0"][0]
    r = [sigmoid(from_x(j) + from_h(j)) for j in (0, 1)]  # blocks r z n: rows j, 2 + j, 4 + j
    z = [sigmoid(from_x(2 + j) + from_h(2 + j)) for j in (0, 1)]
    if reset_after:
        n = [tanh(from_x(4 + j) + r[j] * from_h(4 + j)) for j in (0, 1)]
    else:
        n = [tanh(from_x(4 + j) + from_h(4 + j, [r[0] * h0[0], r[1] * h0[1]])) for j in (0, 1)]
    assert outputs["y"] == outputs["h_n"] == close([(1 - z[j]) * n[j] + z[j] * h0[j] for j in (0, 1)])


# --- sequences --------------------------------------------------------------------------------------------------------


def test_a_sequence_is_its_steps_one_after_the_other(variant):
    problem = helpers.make(variant, T, B, I, H, seed=5)
    whole, _ = helpers.forward(problem, reference)
    arrays = problem.arrays
    for t in range(T):
        outputs, _ = helpers.forward(replace(problem, arrays={**arrays, "x": arrays["x"][t : t + 1]}), reference)
        np.testing.assert_array_equal(outputs["y"][0], whole["y"][t])
        arrays = arrays | {"h0": outputs["h_n"]} | ({"c0": outputs["c_n"]} if "c_n" in outputs else {})
    np.testing.assert_array_equal(outputs["h_n"], whole["h_n"])
    if "c_n" in whole:
        np.testing.assert_array_equal(outputs["c_n"], whole["c_n"])


def flipped(array, lengths):
    """Each sequence of (T, B, n) turned around within its own length."""
    result = array.copy()
    for b, length in enumerate(lengths):
        result[:length, b] = array[:length, b][::-1]
    return result


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["dense", "ragged"])
def test_reverse_is_each_sequence_flipped(variant, lengths):
    problem = helpers.make(variant, T, B, I, H, seed=6, lengths=lengths, reverse=True)
    by_hand = lengths or [T] * B
    turned = replace(
        problem.with_arrays(x=flipped(problem.arrays["x"], by_hand)), dy=flipped(problem.dy, by_hand), reverse=False
    )
    expected = helpers.run(turned, reference)
    for name in ("y", "dx"):
        expected[name] = flipped(expected[name], by_hand)
    helpers.assert_close(helpers.run(problem, reference), expected, 1e-13)


def test_padding_never_matters(variant, reverse, engine, dtype):
    problem = helpers.make(variant, T, B, I, H, dtype, seed=7, lengths=LENGTHS, reverse=reverse)
    assert np.isnan(problem.arrays["x"]).any()
    assert np.isnan(problem.dy).any()
    other = replace(problem.with_arrays(x=np.nan_to_num(problem.arrays["x"], nan=3)), dy=np.nan_to_num(problem.dy))
    padding = np.arange(T)[:, None] >= problem.lengths
    with engine.active():
        results = helpers.run(problem)
        helpers.assert_same_bits(results, helpers.run(other))
    assert all(np.isfinite(a).all() for a in results.values())
    assert not results["y"][padding].any()
    assert not results["dx"][padding].any()


@pytest.mark.parametrize(("steps", "lengths"), [(T, LENGTHS), (T, [0] * B), (0, None), (0, [0] * B)])
def test_an_empty_sequence_ends_where_it_begins(variant, reverse, engine, steps, lengths):
    problem = helpers.make(variant, steps, B, I, H, seed=8, lengths=lengths, reverse=reverse)
    empty = np.asarray(lengths or [0] * B) == 0
    with engine.active():
        results = helpers.run(problem)
    for state in ("h", "c") if "c_n" in results else ("h",):
        np.testing.assert_array_equal(results[f"{state}_n"][empty], problem.arrays[f"{state}0"][empty])
        np.testing.assert_array_equal(results[f"d{state}0"][empty], problem.dstates[f"d{state}_n"][empty])
    if empty.all():
        assert not any(results[name].any() for name in ("dw_ih", "dw_hh", "db_ih", "db_hh"))


def test_lengths_that_are_all_full_are_no_lengths(variant, reverse, engine):
    dense = helpers.make(variant, T, B, I, H, seed=9, reverse=reverse)
    with engine.active():
        helpers.assert_close(helpers.run(replace(dense, lengths=np.full(B, T))), helpers.run(dense), 1e-14)
