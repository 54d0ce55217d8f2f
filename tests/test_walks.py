"""Ways through a sequence: masks, resets, cell states and gates of all steps, on every engine."""

import os
from dataclasses import replace

os.environ.setdefault("KERAS_BACKEND", "jax")

import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layers import LAYERS, as_tuple, every_layer, states
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


# --- layers ---------------------------------------------------------------------------------------------------------


def as_layer_wants(layer, array):
    """A time-major array for a layer, or one of its results time-major."""
    return np.swapaxes(array, 0, 1) if layer.batch_first else array


@every_layer
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_stack_takes_a_mask_and_resets_in_every_layer(engine, kind, batch_first):
    """One layer after the other, each direction by its function; y, states and all gradients."""
    rng = np.random.default_rng(20)
    options = {"num_layers": 2, "bidirectional": True, "dtype": np.float64, "rng": 1}
    layer = LAYERS[kind](I, H, **options, batch_first=batch_first)
    x, state = rng.standard_normal((T, B, I)), states(layer, B, rng)
    dy, dend = rng.standard_normal((T, B, 2 * H)), states(layer, B, rng)
    marks = {"mask": rng.random((T, B)) < 0.7, "reset": rng.random((T, B)) < 0.3}
    turned = {name: as_layer_wants(layer, a) for name, a in marks.items()}
    forward, backward = layer._functions()
    with engine.active():
        y, end, cache = layer.forward(as_layer_wants(layer, x), state, LENGTHS, **turned)
        called, called_end = layer(as_layer_wants(layer, x), state, LENGTHS, **turned)
        dx, dstate = layer.backward(cache, as_layer_wants(layer, dy), dend)
        level, caches = x, []
        for k in range(2):
            outputs = []
            for d, suffix in enumerate((f"_l{k}", f"_l{k}_reverse")):
                start = [s[2 * k + d] for s in as_tuple(state)]
                out, *final, cell = forward(
                    level, *start, *layer._weights(suffix), **layer._options(), **marks, lengths=LENGTHS, reverse=d == 1
                )
                for mine, a, b in zip(final, as_tuple(end), as_tuple(called_end), strict=True):
                    np.testing.assert_allclose(a[2 * k + d], mine, atol=1e-13)
                    np.testing.assert_allclose(b[2 * k + d], mine, atol=1e-13)
                outputs.append(out)
                caches.append(cell)
            level = np.concatenate(outputs, axis=2)
        np.testing.assert_allclose(as_layer_wants(layer, y), level, atol=1e-13)
        np.testing.assert_allclose(called, y, atol=1e-13)
        arriving = dy
        for k in (1, 0):
            parts = []
            for d in (0, 1):
                ends = [s[2 * k + d] for s in as_tuple(dend)]
                grads = backward(caches[2 * k + d], arriving[:, :, d * H : (d + 1) * H], *ends)
                np.testing.assert_allclose(as_tuple(dstate)[0][2 * k + d], grads.h0, atol=1e-12)
                np.testing.assert_allclose(layer.grads[f"weight_hh_l{k}" + "_reverse" * d], grads.w_hh, atol=1e-12)
                parts.append(grads.x)
            arriving = parts[0] + parts[1]
    np.testing.assert_allclose(as_layer_wants(layer, dx), arriving, atol=1e-12)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_cell_states_of_a_layer(engine, batch_first, bidirectional):
    rng = np.random.default_rng(21)
    layer = fastrnn.LSTM(I, H, 2, batch_first=batch_first, bidirectional=bidirectional, dtype=np.float64, rng=1)
    x = as_layer_wants(layer, rng.standard_normal((T, B, I)))
    with engine.active():
        y, (_, c_n), cache, c = layer.forward(x, lengths=LENGTHS, return_cell_states=True)
        called = layer(x, lengths=LENGTHS, return_cell_states=True)
        assert len(called) == 3
        np.testing.assert_allclose(called[2], c, atol=1e-14)
        assert c.shape == y.shape
        ends = np.array(LENGTHS) - 1
        ran = np.flatnonzero(ends >= 0)
        np.testing.assert_array_equal(as_layer_wants(layer, c)[ends[ran], ran, :H], c_n[-layer.directions][ran])
        dc = rng.standard_normal(c.shape)
        dx, _ = layer.backward(cache, None, dcell_states=dc)

        def loss(x):
            return float(np.sum(dc * layer(x, lengths=LENGTHS, return_cell_states=True)[2]))

        direction = rng.standard_normal(x.shape)
        slope = (loss(x + 1e-5 * direction) - loss(x - 1e-5 * direction)) / 2e-5
    assert np.sum(dx * direction) == pytest.approx(slope, rel=1e-7)


@every_layer
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_trace_of_a_layer(engine, kind, batch_first):
    """The gates make the states, by the last line of the equations; each layer's outputs are the h of its trace."""
    rng = np.random.default_rng(22)
    layer = LAYERS[kind](I, H, 2, batch_first=batch_first, bidirectional=True, dtype=np.float64, rng=1)
    x = as_layer_wants(layer, rng.standard_normal((T, B, I)))
    with engine.active():
        expected, _ = layer(x, lengths=LENGTHS)
        y, _, trace = layer(x, lengths=LENGTHS, trace=True)
    np.testing.assert_allclose(y, expected, atol=1e-14)
    assert [len(directions) for directions in trace] == [2, 2]
    np.testing.assert_array_equal(np.concatenate([part["h"] for part in trace[1]], axis=2), y)
    past = np.arange(T)[:, None] >= np.array(LENGTHS)
    for directions in trace:
        gates = {name: as_layer_wants(layer, a) for name, a in directions[0].items()}
        assert all(a.shape == (T, B, H) and not a[past].any() for a in gates.values())
        before = {name: np.concatenate([np.zeros((1, B, H)), gates[name][:-1]]) for name in ("c", "h") if name in gates}
        if layer.cell == "lstm":
            c = gates["f"] * before["c"] + gates["i"] * gates["g"]
            made = {"c": c, "h": gates["o"] * np.tanh(c)}
        elif layer.cell == "gru":
            made = {"h": (1 - gates["z"]) * gates["n"] + gates["z"] * before["h"]}
        else:
            made = {}
        for name, value in made.items():
            np.testing.assert_allclose(gates[name][~past], value[~past], atol=1e-13)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@every_layer
def test_frozen_layers_take_them_too(engine, kind, batch_first, bidirectional, threads, monkeypatch):
    monkeypatch.setattr(_sharing, "LEAST", 1)
    monkeypatch.setattr(_sharing, "CPUS", 2)
    rng = np.random.default_rng(23)
    options = {"num_layers": 2, "bidirectional": bidirectional, "batch_first": batch_first, "rng": 1}
    layer = LAYERS[kind](3, 40, **options)
    x, state = rng.standard_normal((20, 30, 3)).astype(np.float32), states(layer, 30, rng)
    x = np.ascontiguousarray(as_layer_wants(layer, x))
    mask, reset = rng.random(x.shape[:2]) < 0.7, rng.random(x.shape[:2]) < 0.1
    with engine.active(threads):
        fast = layer.freeze()
        for marks in ({"mask": mask}, {"reset": reset}, {"mask": mask, "reset": reset}):
            y, end = fast(x, state, **marks)
            expected, expected_end = layer(x, state, **marks)
            pairs = [(y, expected), *zip(as_tuple(end), as_tuple(expected_end), strict=True)]
            for a, b in pairs:
                np.testing.assert_allclose(a, b, atol=0 if engine.name == "native" else 1e-6)
            out = np.full(y.shape, np.nan, np.float32)
            assert fast(x, state, out=out, **marks)[0] is out
            np.testing.assert_array_equal(out, y)


def test_bad_calls_of_layers():
    x = np.zeros((B, T, I), np.float32)
    lstm, gru = fastrnn.LSTM(I, H, batch_first=True, rng=0), fastrnn.GRU(I, H, batch_first=True, rng=0)
    for call in (lstm, lstm.forward, lstm.freeze()):
        with pytest.raises(ValueError, match=r"^mask: shape \(5, 6\), expected \(B, T\) = \(6, 5\); transposed\?"):
            call(x, mask=np.ones((T, B), bool))
        with pytest.raises(TypeError, match=r"^reset: dtype int64, expected bool"):
            call(x, reset=np.ones((B, T), np.int64))
    with pytest.raises(ValueError, match=r"^return_cell_states: given to GRU, expected an LSTM"):
        gru(x, return_cell_states=True)
    _, _, cache = gru.forward(x)
    with pytest.raises(ValueError, match=r"^dcell_states: given to GRU"):
        gru.backward(cache, None, dcell_states=np.zeros((B, T, H), np.float32))
    _, _, cache = lstm.forward(x)
    with pytest.raises(ValueError, match=r"^dcell_states: shape \(5, 6, 3\), expected \(B, T, D\*H\) = \(6, 5, 3\)"):
        lstm.backward(cache, None, dcell_states=np.zeros((T, B, H), np.float32))
    lstm.backward(cache, None)  # which is still good
