"""Ways through a sequence: masks, resets, cell states and gates of all steps, on every engine."""

import os
from dataclasses import replace

os.environ.setdefault("KERAS_BACKEND", "jax")

import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_parity import TOLERANCE, states_and_outputs
from test_reference import numeric_gradients

import fastrnn
from fastrnn import _sharing, reference
from fastrnn._core.plan import Plan

T, B, I, H = 5, 6, 2, 3
LENGTHS = (5, 3, 0, 5, 4, 5)


def marked(problem, rng, mask=True, reset=True, often=0.3):
    """`problem` with a random mask and random resets, and NaN wherever a step is skipped."""
    shape = problem.arrays["x"].shape[:2]
    mask = rng.random(shape) < 0.7 if mask is True else mask
    reset = rng.random(shape) < often if reset is True else reset
    problem = replace(problem, mask=mask, reset=reset)
    x, dy = problem.arrays["x"].copy(), problem.dy.copy()
    x[~valid(problem)] = dy[~valid(problem)] = np.nan
    return replace(problem.with_arrays(x=x), dy=dy)


def valid(problem):
    """Where sequences run (T, B)."""
    T, B, _ = problem.arrays["x"].shape
    inside = np.ones((T, B), bool) if problem.lengths is None else np.arange(T)[:, None] < problem.lengths
    return inside if problem.mask is None else inside & problem.mask


def make(variant, lengths=None, reverse=False, dtype=np.float64, seed=0, sizes=(T, B, I, H), **marks):
    problem = helpers.make(variant, *sizes, dtype, seed=seed, lengths=lengths, reverse=reverse)
    return marked(problem, np.random.default_rng(seed), **marks)


def run_all(problem, module=helpers.functional):
    """Outputs, gates and gradients by name, for an LSTM with cell states and what arrives at them."""
    if problem.variant.cell != "lstm":
        outputs, cache = helpers.forward(problem, module)
        gates = cache.gates()
        return outputs | gates_named(gates) | helpers.backward(problem, cache, module)
    rest = {name: getattr(problem, name) for name in ("lengths", "mask", "reset", "reverse")}
    y, h_n, c_n, cache, c = module.lstm_forward(**problem.arrays, **rest, return_cell_states=True)
    gates = cache.gates()
    # Past the ends it holds NaN as dy does.
    grads = helpers.backward(replace(problem, dstates=problem.dstates | {"dc": 0.5 * problem.dy}), cache, module)
    return {"y": y, "h_n": h_n, "c_n": c_n, "c": c} | gates_named(gates) | grads


def gates_named(gates):
    return {f"gate {name}": value for name, value in gates.items()}


# --- the reference --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["dense", "ragged"])
@pytest.mark.parametrize("seed", [1, 2])
def test_gradients_are_those_of_finite_differences(variant, lengths, reverse, seed):
    problem = make(variant, lengths, reverse, seed=seed)
    grads = helpers.backward(problem, helpers.forward(problem, reference)[1], reference)
    helpers.assert_close(grads, numeric_gradients(problem, reference), 1e-8)


def walked_by_hand(problem, module=reference):
    """y, h_n, c_n of the same problem, one valid step of one sequence at a time; a reset sets the state to zeros."""
    T, B, _ = problem.arrays["x"].shape
    rest = {name: a for name, a in problem.arrays.items() if name not in ("x", "h0", "c0")}
    y, ends = np.zeros_like(problem.dy), []
    for b in range(B):
        states = [problem.arrays[name][b : b + 1] for name in ("h0", "c0") if name in problem.arrays]
        length = T if problem.lengths is None else problem.lengths[b]
        for t in range(length)[:: -1 if problem.reverse else 1]:
            if problem.reset is not None and problem.reset[t, b]:
                states = [np.zeros_like(s) for s in states]
            if valid(problem)[t, b]:
                x = problem.arrays["x"][t : t + 1, b : b + 1]
                forward = getattr(module, f"{problem.variant.cell}_forward")
                out, *states, _ = forward(x, *states, **rest, **problem.variant.options, save=False)
                y[t, b] = out[0, 0]
        ends.append(states)
    ends = [np.concatenate(parts) for parts in zip(*ends, strict=True)]
    return dict(zip(("y", "h_n", "c_n"), (y, *ends), strict=False))


def test_it_is_the_steps_that_are_valid_one_after_the_other(variant, reverse):
    """On every engine, so that the reference's way of skipping is not all there is to compare with."""
    for lengths in (None, LENGTHS):
        for marks in ({}, {"mask": None}, {"reset": None}):
            problem = make(variant, lengths, reverse, seed=3, **marks)
            expected = walked_by_hand(problem)
            for engine in helpers.ENGINES:
                with engine.active():
                    outputs, _ = helpers.forward(problem)
                helpers.assert_close(outputs, expected, 1e-13)


def test_cell_states_and_what_arrives_at_them(reverse, engine):
    """Against finite differences: c of all steps is an output like y."""
    problem = make(helpers.Variant("lstm"), LENGTHS, reverse, seed=4)
    dc = np.where(valid(problem)[:, :, None], np.random.default_rng(5).standard_normal(problem.dy.shape), np.nan)
    rest = {name: getattr(problem, name) for name in ("lengths", "mask", "reset", "reverse")}

    def loss(**changed):
        *_, c = helpers.functional.lstm_forward(**problem.arrays | changed, **rest, save=False, return_cell_states=True)
        return float(np.sum(np.nan_to_num(dc) * c))

    with engine.active():
        *_, cache, c = helpers.functional.lstm_forward(**problem.arrays, **rest, return_cell_states=True)
        grads = helpers.functional.lstm_backward(cache, None, None, None, dc)
        assert not c[~valid(problem)].any()
        for name in ("x", "h0", "c0", "w_hh", "b_ih"):
            value = problem.arrays[name]
            direction = np.random.default_rng(6).standard_normal(value.shape)
            slope = (loss(**{name: value + 1e-5 * direction}) - loss(**{name: value - 1e-5 * direction})) / 2e-5
            assert np.nansum(getattr(grads, name) * direction) == pytest.approx(slope, rel=1e-7, abs=1e-9)


def test_variants_are_walked_the_same_way(engine, reverse):
    """Peepholes, a projection, a normalised c, dropout, zoneout: slopes along random directions, c of all steps too."""
    rng = np.random.default_rng(24)
    P, rows = 4, 4 * H
    shapes = {"x": (T, B, I), "h0": (B, P), "c0": (B, H), "w_ih": (rows, I), "w_hh": (rows, P), "b_ih": (rows,)}
    arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    parts = {"peepholes": (3 * H,), "w_hr": (P, H), "norm_c": (H,), "norm_c_bias": (H,)}
    arrays_of_variant = {name: rng.standard_normal(shape) for name, shape in parts.items()}
    variant = fastrnn.Variant(**arrays_of_variant, recurrent_dropout=0.4, zoneout=(0.2, 0.3), rng=1)
    rest = {"mask": rng.random((T, B)) < 0.7, "reset": rng.random((T, B)) < 0.3, "lengths": LENGTHS, "reverse": reverse}
    d = [rng.standard_normal(shape) for shape in ((T, B, P), (B, P), (B, H), (T, B, H))]

    def forward(**changed):
        results = helpers.functional.lstm_forward(**arrays | changed, **rest, variant=variant, return_cell_states=True)
        y, h_n, c_n, cache, c = results
        return sum(float(np.sum(a * b)) for a, b in zip((y, h_n, c_n, c), d, strict=True)), cache

    with engine.active():
        value, cache = forward()
        assert not any(gate[~rest["mask"]].any() for gate in cache.gates().values())
        grads = helpers.functional.lstm_backward(cache, *d)
        for name, array in arrays.items():
            direction = rng.standard_normal(array.shape)
            up, down = (forward(**{name: array + step * direction})[0] for step in (1e-5, -1e-5))
            assert np.sum(getattr(grads, name) * direction) == pytest.approx((up - down) / 2e-5, rel=1e-6, abs=1e-8)
    with fastrnn.config_context(engine="reference"):
        assert value == pytest.approx(forward()[0], rel=1e-12)


# --- every engine is the reference ----------------------------------------------------------------------------------


@st.composite
def problems(draw):
    T, B, I = draw(st.integers(0, 9)), draw(st.integers(0, 6)), draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    problem = helpers.make(
        draw(st.sampled_from(helpers.VARIANTS)),
        T,
        B,
        I,
        draw(st.integers(1, 20)),
        draw(st.sampled_from(helpers.DTYPES)),
        seed=draw(st.integers(0, 2**32 - 1)),
        lengths=draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B)),
        reverse=draw(st.booleans()),
    )
    kind = st.sampled_from([None, True])
    return marked(problem, rng, draw(kind), draw(kind), draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])))


@settings(max_examples=60)
@given(problem=problems(), threads=st.sampled_from(helpers.THREADS))
def test_same_values_as_the_reference(compiled, problem, threads):
    expected = run_all(problem.astype(np.float64), reference)
    with compiled.active(threads):
        results = run_all(problem)
        inference, _ = helpers.forward(problem, save=False)
    tolerance = TOLERANCE[problem.arrays["w_hh"].dtype.type]
    helpers.assert_close(results, expected, tolerance)
    helpers.assert_close(inference, states_and_outputs(expected), tolerance)


@pytest.mark.parametrize("members", [1, 2])
def test_the_same_in_pieces_and_on_shared_threads(compiled, variant, dtype, reverse, members, monkeypatch):
    """Inference in many blocks, backward by checkpoints, sequences shared by two threads."""
    monkeypatch.setattr(_sharing, "LEAST", 1)
    monkeypatch.setattr(_sharing, "CPUS", 2)
    monkeypatch.setattr("fastrnn._compiled.BLOCK_BYTES", 1)
    problem = make(variant, None, reverse, dtype, seed=7, sizes=(301, 5, 3, 11), often=0.01)
    with compiled.active(1):
        expected, plain = run_all(problem), helpers.run(problem)  # without what arrives at c
    with compiled.active(members):
        assert _sharing.independent(1000, 4).members == members
        results = run_all(problem)
        inference, _ = helpers.forward(problem, save=False)
        outputs, cache = helpers.forward(problem, checkpoint=60)
        again = gates_named(cache.gates())
        pieces = outputs | helpers.backward(problem, cache)
    exact = helpers.assert_same_bits if compiled.name == "native" else close_in(dtype)
    exact(results, expected)
    exact(inference, states_and_outputs(expected))
    exact(again, {name: a for name, a in expected.items() if name.startswith("gate")})
    exact(pieces, plain)


def close_in(dtype):
    return lambda actual, expected: helpers.assert_close(actual, expected, TOLERANCE[dtype])


def test_cell_states_do_not_depend_on_what_is_kept(compiled, dtype, ragged, monkeypatch):
    problem = helpers.make(helpers.Variant("lstm"), 290, 3, 4, 9, dtype, seed=8, lengths=ragged)
    results = []
    for size, save, checkpoint in ((1 << 20, True, None), (1, False, None), (1, True, 90), (1 << 20, False, None)):
        monkeypatch.setattr("fastrnn._compiled.BLOCK_BYTES", size)
        with compiled.active():
            y, h_n, c_n, cache, c = helpers.functional.lstm_forward(
                **problem.arrays, lengths=problem.lengths, save=save, checkpoint=checkpoint, return_cell_states=True
            )
            results.append({"y": y, "h_n": h_n, "c_n": c_n, "c": c})
            if save:
                results[-1] |= helpers.backward(problem, cache)
    exact = helpers.assert_same_bits if compiled.name == "native" else close_in(dtype)
    exact(results[1], results[3])
    exact(results[1], {name: results[0][name] for name in results[1]})
    exact(results[2], results[0])
    ends = (problem.lengths if ragged else np.full(3, 290)) - 1
    ran = ends >= 0
    np.testing.assert_array_equal(results[0]["c"][ends[ran], np.arange(3)[ran]], results[0]["c_n"][ran])


# --- the same bits --------------------------------------------------------------------------------------------------


def test_a_mask_of_the_padding_is_lengths(engine, variant, reverse, dtype, threads):
    sizes = (9, 7, 4, 21)
    ragged = helpers.make(variant, *sizes, dtype, seed=9, lengths=True, reverse=reverse)
    as_mask = replace(ragged, lengths=None, mask=np.arange(9)[:, None] < ragged.lengths)
    with engine.active(threads):
        helpers.assert_same_bits(run_all(as_mask), run_all(ragged))


def test_nothing_masked_and_nothing_reset_is_dense(engine, variant, reverse):
    dense = helpers.make(variant, 9, 7, 4, 21, seed=10, reverse=reverse)
    plain = replace(dense, mask=np.ones((9, 7), bool), reset=np.zeros((9, 7), bool))
    with engine.active():
        helpers.assert_same_bits(run_all(plain), run_all(dense))


def test_nothing_runs(engine, variant, reverse):
    """All is masked: states pass through, and so do their gradients, but for what was reset."""
    problem = make(variant, None, reverse, seed=11, mask=np.zeros((T, B), bool), often=0.1)
    untouched = ~problem.reset.any(axis=0)
    assert 0 < untouched.sum() < B
    with engine.active():
        results = run_all(problem)
    for state in ("h", "c") if "c_n" in results else ("h",):
        for got, went_in in (
            (f"{state}_n", problem.arrays[f"{state}0"]),
            (f"d{state}0", problem.dstates[f"d{state}_n"]),
        ):
            np.testing.assert_array_equal(results[got], np.where(untouched[:, None], went_in, 0))
    for name in ("y", "dx", "dw_ih", "dw_hh", "db_ih", "db_hh"):
        assert not results[name].any()


def test_what_is_skipped_never_matters(engine, variant, reverse):
    problem = make(variant, LENGTHS, reverse, seed=12)
    assert np.isnan(problem.arrays["x"]).any()
    other = replace(problem.with_arrays(x=np.nan_to_num(problem.arrays["x"], nan=3)), dy=np.nan_to_num(problem.dy))
    with engine.active():
        results = run_all(problem)
        helpers.assert_same_bits(results, run_all(other))
    assert not any(results[name][~valid(problem)].any() for name in ("y", "dx"))


def test_resets_past_the_end_do_not_exist(engine, variant, reverse):
    """What a sequence gives never depends on its padding: here there is none, and there it is full of resets."""
    problem = make(variant, (3,) * B, reverse, seed=13)
    padded = replace(problem, reset=problem.reset | (np.arange(T)[:, None] >= 3))
    cut = {name: getattr(problem, name)[:3] for name in ("dy", "mask", "reset")}
    short = replace(problem.with_arrays(x=problem.arrays["x"][:3]), lengths=None, **cut)
    with engine.active():
        results, expected = run_all(padded), run_all(short)
    for name, array in expected.items():
        actual = results[name][:3] if len(array) == 3 and array.ndim == 3 else results[name]
        np.testing.assert_allclose(actual, array, rtol=1e-12, atol=1e-13, err_msg=name)


def segments_of(problem):
    """The stretches between resets, as (column, valid steps in walking order, whether it begins with the state)."""
    T, B, _ = problem.arrays["x"].shape
    for b in range(B):
        steps, own = [], True
        for t in range(T)[:: -1 if problem.reverse else 1]:
            if problem.reset[t, b]:
                if steps:
                    yield b, steps, own, False
                steps, own = [], False
            if valid(problem)[t, b]:
                steps.append(t)
        yield b, steps, own, True


@pytest.mark.parametrize("isa", [e for e in helpers.COMPILED if e.name == "native"], ids=str)
def test_splitting_by_hand_gives_the_same_bits(isa, variant, dtype, reverse, threads):
    problem = make(variant, None, reverse, dtype, seed=14, sizes=(40, 5, 3, 21), often=0.1)
    with isa.active(threads):
        results = helpers.run(problem)
        for b, steps, own, last in segments_of(problem):
            alone = replace(
                problem.with_arrays(
                    x=problem.arrays["x"][steps, b : b + 1],
                    **{
                        name: problem.arrays[name][b : b + 1] if own else None
                        for name in ("h0", "c0")
                        if name in problem.arrays
                    },
                ),
                dy=problem.dy[steps, b : b + 1],
                dstates={name: d[b : b + 1] if last else None for name, d in problem.dstates.items()},
                **{"mask": None, "reset": None, "reverse": False},
            )
            part = helpers.run(alone)
            for name in ("y", "dx"):
                np.testing.assert_array_equal(results[name][steps, b], part[name][:, 0], err_msg=name)
            for state in ("h", "c") if "c_n" in results else ("h",):
                if last:
                    np.testing.assert_array_equal(results[f"{state}_n"][b], part[f"{state}_n"][0])
                if own:
                    np.testing.assert_array_equal(results[f"d{state}0"][b], part[f"d{state}0"][0])
                elif not any(o for c, _, o, _ in segments_of(problem) if c == b and o):
                    assert not results[f"d{state}0"][b].any()


# --- the plan -------------------------------------------------------------------------------------------------------


def test_rows_are_sorted_by_valid_steps_and_every_place_is_one():
    rng = np.random.default_rng(15)
    mask, reset = rng.random((30, 8)) < 0.6, rng.random((30, 8)) < 0.2
    plan = Plan(30, 8, None, False, mask, reset)
    assert plan.rows == mask.sum()
    assert plan.B > 8 == plan.columns
    array = np.arange(1.0, 30 * 8 + 1).reshape(30, 8, 1)
    rows = plan.pack(array)
    assert sorted(rows.ravel()) == sorted(array[mask].ravel())
    np.testing.assert_array_equal(plan.unpack(rows), np.where(mask[:, :, None], array, 0))


# --- others ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_masks_are_those_of_keras(cell):
    keras = pytest.importorskip("keras", reason="Keras, the oracle of this test, is not installed")
    problem = make(next(v for v in helpers.VARIANTS if v.cell == cell), seed=16, reset=None, dtype=np.float32)
    options = {"return_sequences": True, "return_state": True, "zero_output_for_mask": True}
    theirs = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[cell](H, **options)
    a = problem.arrays
    x = np.nan_to_num(a["x"], nan=1).transpose(1, 0, 2)
    theirs.build(x.shape)

    def order(w):  # Keras's blocks are i f g o as well, and z r n
        return w if cell == "lstm" else np.concatenate([w[H : 2 * H], w[:H], w[2 * H :]])

    bias = order(a["b_ih"] + a["b_hh"]) if cell == "lstm" else np.stack([order(a["b_ih"]), order(a["b_hh"])])
    theirs.set_weights([order(a["w_ih"]).T, order(a["w_hh"]).T, bias])
    states = [a[name] for name in ("h0", "c0") if name in a]
    outputs = theirs(x, mask=problem.mask.T, initial_state=states)
    ours, _ = helpers.forward(problem)
    for mine, other in zip(ours.values(), (np.transpose(outputs[0], (1, 0, 2)), *outputs[1:]), strict=True):
        np.testing.assert_allclose(mine, np.asarray(other), atol=2e-6)


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mask", "reset"])
@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (np.ones((T, B)), TypeError, r"dtype float64, expected bool"),
        (np.ones((B, T), bool), ValueError, r"shape \(6, 5\), expected \(T, B\) = \(5, 6\); transposed\?"),
        (np.ones(T, bool), ValueError, r"shape \(5,\), expected \(T, B\)"),
        (np.ones((T, B, 1), bool), ValueError, r"shape \(5, 6, 1\)"),
    ],
)
def test_bad_marks(variant, name, value, error, says):
    problem = replace(helpers.make(variant, T, B, I, H), **{name: value})
    for module in (helpers.functional, reference):
        with pytest.raises(error, match=f"^{name}: {says}"):
            helpers.forward(problem, module)


def test_marks_of_any_layout(engine, variant):
    problem = make(variant, seed=17)
    turned = {name: np.asfortranarray(getattr(problem, name)) for name in ("mask", "reset")}
    for a in turned.values():
        a.flags.writeable = False
    with engine.active():
        helpers.assert_same_bits(run_all(replace(problem, **turned)), run_all(problem))


def test_bad_gradients_of_cell_states(engine):
    problem = make(helpers.Variant("lstm"), seed=18)
    with engine.active():
        _, cache = helpers.forward(problem)
    with pytest.raises(ValueError, match=r"^dc: shape \(6, 3\), expected \(T, B, H\)"):
        helpers.functional.lstm_backward(cache, None, None, None, np.zeros((B, H)))
    with pytest.raises(TypeError, match=r"^dc: dtype float32"):
        helpers.functional.lstm_backward(cache, None, None, None, np.zeros((T, B, H), np.float32))
    assert not cache.used


def test_gates_of_a_cache_that_is_used(engine, variant):
    problem = make(variant, seed=19)
    with engine.active():
        _, cache = helpers.forward(problem)
        assert list(cache.gates()) == {"rnn": ["h"], "lstm": [*"ifgoch"], "gru": [*"rznh"]}[variant.cell]
        helpers.backward(problem, cache)
    with pytest.raises(ValueError, match=r"^cache: it has been used"):
        cache.gates()


def test_variants_of_all_cells(compiled, variant, reverse):
    """Each with a normalised recurrent product and dropout of its own, against the reference."""
    problem = make(variant, LENGTHS, reverse, seed=25)
    norm = np.random.default_rng(26).standard_normal(helpers.GATES[variant.cell] * H)
    options = {"variant": fastrnn.Variant(norm_hh=norm, recurrent_dropout=0.3, input_dropout=0.2, rng=2)}
    outputs, cache = helpers.forward(problem, reference, **options)
    expected = outputs | helpers.backward(problem, cache, reference)
    with compiled.active():
        outputs, cache = helpers.forward(problem, **options)
        results = outputs | helpers.backward(problem, cache)
    of_variant = [r.pop("dvariant") for r in (results, expected)]
    helpers.assert_close(*of_variant, 1e-12)
    helpers.assert_close(results, expected, 1e-12)
