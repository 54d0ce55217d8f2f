"""Every compiled engine, instruction set, dtype and thread count against the NumPy reference, forward and backward."""

from dataclasses import replace
from functools import cache

import helpers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn import _compiled, _products, functional, reference

# Against the float64 reference, relative to the largest element. A result sums some hundred products, each rounded
# (eps 2.2e-16, 1.2e-7), over a recurrence that passes errors on: 1e-12 is 4500 eps and 1e-5 is 84. A wrong formula
# is off by far more than either.
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}

SIZES = (  # T, B, I, H
    (1, 1, 1, 1),
    (6, 1, 3, 5),
    (9, 3, 5, 1),
    (7, 4, 3, 17),  # a vector of 16 floats, and one more
    (5, 6, 1, 33),
    (3, 5, 2, 97),  # too few steps, and in the next line too large, for the transposed copy of W_hh
    (5, 2, 3, 190),
    (3, 5, 212, 236),  # large enough to be packed for weight gradients, of every number of vectors in the last panel
    (2, 6, 252, 204),
    (3, 1, 2, 300),  # one sequence, of more units than a step makes at once
    (4, 3, 0, 6),
    (0, 3, 4, 5),
    (3, 0, 4, 5),
    (40, 8, 20, 50),  # large enough for a BLAS to use its threads
)


@cache
def problem_and_reference(variant, sizes, dtype, ragged, reverse):
    problem = helpers.make(variant, *sizes, dtype, seed=sum(sizes), lengths=ragged, reverse=reverse)
    return problem, helpers.run(problem.astype(np.float64), reference)


def states_and_outputs(results):
    return {name: results[name] for name in ("y", "h_n", "c_n") if name in results}


# Small work is never shared; what is shared, test_team.py is about.
@pytest.mark.parametrize(("sizes", "threads"), [*((sizes, 1) for sizes in SIZES), (SIZES[-1], 2)], ids=str)
def test_same_values_as_the_reference(compiled, dtype, threads, variant, ragged, reverse, sizes):
    problem, expected = problem_and_reference(variant, sizes, dtype, ragged, reverse)
    with compiled.active(threads):
        results = helpers.run(problem)
        inference, no_cache = helpers.forward(problem, save=False)
    assert no_cache is None
    assert {a.dtype for a in (results | inference).values()} == {np.dtype(dtype)}
    helpers.assert_close(results, expected, TOLERANCE[dtype])
    helpers.assert_close(inference, states_and_outputs(expected), TOLERANCE[dtype])


@st.composite
def problems(draw):
    T, B, I = draw(st.integers(0, 9)), draw(st.integers(0, 6)), draw(st.integers(0, 9))
    return helpers.make(
        draw(st.sampled_from(helpers.VARIANTS)),
        T,
        B,
        I,
        draw(st.integers(1, 40)),
        draw(st.sampled_from(helpers.DTYPES)),
        seed=draw(st.integers(0, 2**32 - 1)),
        lengths=draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B)),
        reverse=draw(st.booleans()),
        biases=draw(st.sets(st.sampled_from(("b_ih", "b_hh")))),
    )


@given(problem=problems())
def test_same_values_for_any_sizes(compiled, problem):
    expected = helpers.run(problem.astype(np.float64), reference)
    tolerance = TOLERANCE[problem.arrays["w_hh"].dtype.type]
    with compiled.active():
        helpers.assert_close(helpers.run(problem), expected, tolerance)
        inference, _ = helpers.forward(problem, save=False)
    helpers.assert_close(inference, states_and_outputs(expected), tolerance)


@pytest.mark.parametrize("B", [1, 3])
def test_inference_in_many_blocks_of_steps(compiled, variant, ragged, reverse, B, monkeypatch):
    # The least a block holds is 64 rows: with T=301 there are 5 to 15 of them, and the last is not full.
    monkeypatch.setattr(_compiled, "BLOCK_BYTES", 1)
    problem = helpers.make(variant, 301, B, 2, 5, seed=B, lengths=ragged, reverse=reverse)
    if ragged:  # B=1 would draw an empty sequence
        problem = helpers.make(variant, 301, B, 2, 5, seed=B, lengths=(299, 0, 301)[:B], reverse=reverse)
    with compiled.active():
        whole, _ = helpers.forward(problem)
        blocks, _ = helpers.forward(problem, save=False)
    helpers.assert_close(blocks, whole, 1e-13)  # not the same bits: a BLAS may sum otherwise for other numbers of rows


def test_transposed_weights_change_nothing(compiled, variant, dtype, monkeypatch):
    problem = helpers.make(variant, 6, 8, 2, 9, dtype, seed=3)
    results = []
    for threshold in (0, 1 << 20):  # elements of W_hh up to which it is transposed: never, always
        monkeypatch.setattr(_products.BlasProducts, "TRANSPOSE_BELOW", threshold)
        with compiled.active():
            results.append(helpers.run(problem))
    helpers.assert_close(*results, TOLERANCE[dtype])


def test_arguments_and_outputs_stay_as_they_were(engine, variant, ragged, dtype):
    problem = helpers.make(variant, 5, 4, 3, 20, dtype, seed=4, lengths=ragged)
    given = {**problem.arrays, **problem.dstates, "dy": problem.dy}
    before = {name: a.copy() for name, a in given.items()}
    with engine.active():
        outputs, saved = helpers.forward(problem)
        outputs_before = {name: a.copy() for name, a in outputs.items()}
        grads = helpers.backward(problem, saved)
    for name, a in given.items():
        np.testing.assert_array_equal(a, before[name], err_msg=name)
    helpers.assert_same_bits(outputs, outputs_before)
    # Whoever adds into one result must not find another one changed, nor an argument.
    results = [a for name, a in (outputs | grads).items() if name != "y"]
    for k, a in enumerate(results):
        assert a.flags.writeable
        assert not any(np.shares_memory(a, b) for b in [*results[:k], outputs["y"], *given.values()])


def test_caches_are_independent(engine, variant, ragged):
    first, second = (helpers.make(variant, 6, 3, 4, 30, seed=seed, lengths=ragged) for seed in (5, 6))
    with engine.active():
        alone = helpers.run(first), helpers.run(second)
        outputs, caches = zip(*(helpers.forward(p) for p in (first, second)), strict=True)
        grads = [helpers.backward(p, saved) for p, saved in zip((second, first), caches[::-1], strict=True)]
    helpers.assert_same_bits(outputs[0] | grads[1], alone[0])
    helpers.assert_same_bits(outputs[1] | grads[0], alone[1])


def test_not_a_number_is_passed_on(engine, variant):
    """A NaN in one sequence reaches its outputs from there on, and no other sequence."""
    problem = helpers.make(variant, 5, 3, 2, 19, np.float32, seed=7)
    clean = problem.arrays["x"]
    x = clean.copy()
    x[2, 1] = np.nan
    with engine.active():
        y = helpers.forward(problem.with_arrays(x=x))[0]["y"]
        expected = helpers.forward(problem)[0]["y"]
    assert np.isnan(y[2:, 1]).all()
    untouched = np.ones(y.shape, bool)
    untouched[2:, 1] = False
    np.testing.assert_allclose(y[untouched], expected[untouched], rtol=1e-5, atol=1e-6)


def test_no_gradient_passes_where_the_slope_of_relu_is_0(engine):
    """Not even one that is not a number."""
    problem = helpers.make(helpers.Variant("rnn", "nonlinearity", "relu"), 1, 3, 2, 19, np.float32)
    with engine.active():
        y = helpers.forward(problem)[0]["y"]
        ends = {"dh_n": np.zeros_like(y[0])}
        zeros, nans = (
            helpers.run(replace(problem, dy=np.where(y > 0, problem.dy, dead), dstates=ends))
            for dead in (np.float32(0), np.float32(np.nan))
        )
    assert (y == 0).any()
    helpers.assert_same_bits(nans, zeros)


@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize("variant", [v for v in helpers.VARIANTS if v.value != "relu"], ids=str)  # which has no limits
def test_saturated_gates(engine, variant, dtype, size):
    """Pre-activations far outside of what exp can take: the limits, no overflow, no NaN."""
    problem = helpers.make(variant, 4, 3, 2, 21, dtype, seed=8)
    problem = problem.with_arrays(x=problem.arrays["x"] * dtype(size))
    with engine.active():
        results = helpers.run(problem)
    expected = helpers.run(problem.astype(np.float64), reference)
    # dw_ih is a product with x, so it grows as x does: its part of x is what is compared.
    for r in (results, expected):
        r["dw_ih"] = r["dw_ih"] / size
    helpers.assert_close(results, expected, TOLERANCE[dtype] * 10)


def test_a_problem_is_never_run_by_the_wrong_engine(compiled, variant):
    problem = replace(helpers.make(variant, 3, 2, 4, 5), lengths=None)
    with compiled.active():
        _, saved = helpers.forward(problem, functional)
        assert saved.engine == compiled.name
    # The cache remembers: backward needs no setting.
    grads = helpers.backward(problem, saved)
    helpers.assert_close(grads, {k: v for k, v in helpers.run(problem, reference).items() if k in grads}, 1e-12)
