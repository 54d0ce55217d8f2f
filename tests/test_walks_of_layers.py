"""Layers, frozen ones and stacks with masks, resets, cell states and traces."""

import numpy as np
import pytest
from test_layers import LAYERS, as_tuple, every_layer, states
from test_walks import LENGTHS, B, H, I, T

import fastrnn
from fastrnn import _sharing


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


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_stack_with_residual_connections(engine, batch_first):
    """It is its layers one after the other, and a skipped step is zeros and never matters."""
    rng = np.random.default_rng(27)
    layers = [fastrnn.LSTM(H, H, batch_first=batch_first, rng=1), fastrnn.GRU(H, H, batch_first=batch_first, rng=2)]
    stack = fastrnn.Stack(layers, residual=True)
    x, mask, reset = rng.standard_normal((T, B, H)), rng.random((T, B)) < 0.7, rng.random((T, B)) < 0.3
    x[~mask] = np.nan
    x, mask, reset = (as_layer_wants(layers[0], a) for a in (x.astype(np.float32), mask, reset))
    with engine.active():
        y, _, cache = stack.forward(x, mask=mask, reset=reset)
        served, _ = stack.freeze()(x, mask=mask, reset=reset)
        level = np.where(mask[:, :, None], x, 0)
        for layer in layers:
            level = level + layer(level, mask=mask, reset=reset)[0]
        dx, _ = stack.backward(cache, np.where(mask[:, :, None], np.ones_like(x), np.float32(np.nan)))
    np.testing.assert_allclose(y, level, atol=1e-6)
    np.testing.assert_allclose(served, level, atol=1e-6)
    assert np.isfinite(dx).all()
    assert not dx[~mask].any()
    assert not y[~mask].any()
    with pytest.raises(ValueError, match=r"^trace: given to a stack"):
        stack(x, trace=True)


@pytest.mark.parametrize("merge", ["sum", None])
def test_cell_states_of_merged_directions_are_side_by_side(merge):
    rng = np.random.default_rng(28)
    layer = fastrnn.LSTM(I, H, bidirectional=True, merge=merge, dtype=np.float64, rng=1)
    x, d = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, 2 * H))
    _, _, cache, c = layer.forward(x, return_cell_states=True)
    assert c.shape == d.shape
    dx, _ = layer.backward(cache, None, dcell_states=d)
    direction = rng.standard_normal(x.shape)
    up, down = (layer(x + e * direction, return_cell_states=True)[2] for e in (1e-5, -1e-5))
    assert np.sum(dx * direction) == pytest.approx(np.sum(d * (up - down)) / 2e-5, rel=1e-7)


def test_packed_sequences_with_cell_states_a_mask_and_a_trace():
    layer = fastrnn.LSTM(I, H, dtype=np.float64, rng=1)
    rng, lengths = np.random.default_rng(29), (5, 3, 1)
    x, mask = rng.standard_normal((T, 3, I)), rng.random((T, 3)) < 0.6
    packed = fastrnn.pack_padded_sequence(x, lengths)
    y, end, c, trace = layer(packed, mask=mask, return_cell_states=True, trace=True)
    expected = layer(x, lengths=lengths, mask=mask, return_cell_states=True, trace=True)
    np.testing.assert_array_equal(fastrnn.pad_packed_sequence(y)[0], expected[0])
    np.testing.assert_array_equal(fastrnn.pad_packed_sequence(c)[0], expected[2])
    np.testing.assert_array_equal(end[1], expected[1][1])
    np.testing.assert_array_equal(trace[0][0]["f"], expected[3][0][0]["f"])
