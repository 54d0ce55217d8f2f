"""Layers of the cells that recur element by element: the functions again, states, streams, learning."""

import helpers
import numpy as np
import pytest
from test_elementwise import GATES, KINDS, LAYERS, LINEAR, every_kind, make, marked, run_with_gates

import fastrnn
from fastrnn import functional, nn


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_layer_is_its_function_again_and_again(kind, bidirectional, engine):
    T, B, I, H = 70, 3, 2, 5
    layer = LAYERS[kind.cell](I, H, 2, bidirectional=bidirectional, **dict(kind.options), dtype=np.float64, rng=0)
    rng = np.random.default_rng(0)
    D = layer.directions
    x, state, lengths = rng.standard_normal((T, B, I)), rng.standard_normal((2 * D, B, H)), [70, 0, 66]
    dy, dstate = rng.standard_normal((T, B, D * H)), rng.standard_normal((2 * D, B, H))
    step, back = (getattr(functional, f"{kind.cell}_{way}") for way in ("forward", "backward"))

    def weights(suffix):
        return [layer.params[name + suffix] for name in layer.weights]

    with engine.active():
        y, end, saved = layer.forward(x, state, lengths)
        dx, dstart = layer.backward(saved, dy, dstate)
        inference, _ = layer(x, state, lengths)
        below, ends, caches = x, [], []
        for k in range(2):
            outputs = []
            for d, suffix in enumerate((f"_l{k}", f"_l{k}_reverse")[:D]):
                out, h_n, one = step(
                    below, state[k * D + d], *weights(suffix), **dict(kind.options), lengths=lengths, reverse=d == 1
                )
                outputs.append(out)
                ends.append(h_n)
                caches.append((suffix, one))
            below = np.concatenate(outputs, axis=2)
        d, starts = dy, [None] * (2 * D)
        for k in (1, 0):
            parts = []
            for direction in range(D):
                which = k * D + direction
                suffix, one = caches[which]
                grads = back(one, d[:, :, direction * H : (direction + 1) * H], dstate[which])
                parts.append(grads.x)
                starts[which] = grads.h0
                for name, argument in layer.weights.items():
                    np.testing.assert_array_equal(layer.grads[name + suffix], getattr(grads, argument))
            d = sum(parts)
    helpers.assert_same_bits({"y": y, "end": end, "dx": dx}, {"y": below, "end": np.array(ends), "dx": d})
    np.testing.assert_array_equal(dstart, np.array(starts))
    np.testing.assert_allclose(inference, y, rtol=0, atol=1e-13)


@every_kind
@pytest.mark.parametrize("batch_first", [False, True])
def test_layers_take_masks_and_resets_and_show_their_gates(kind, batch_first, engine):
    """Both directions of one layer by their function."""
    T, B, I, H = 70, 3, 2, 5
    options = {"bidirectional": True, "merge": "sum", "batch_first": batch_first, "dtype": np.float64, "rng": 1}
    layer = LAYERS[kind.cell](I, H, **dict(kind.options), **options)
    problems = []
    for d, suffix in enumerate(("_l0", "_l0_reverse")):
        problem = marked(make(kind, T, B, I, H, seed=34, ragged=np.array((70, 0, 66))), often=0.05, seed=35)
        weights = {argument: layer.params[name + suffix] for name, argument in layer.weights.items()}
        problems.append(problem.but(**weights)._replace(reverse=d == 1))
    a, b = problems
    state, dstate = (np.stack(parts) for parts in ((a.arrays["h0"], b.arrays["h0"]), (a.dh_n, b.dh_n)))

    def turned(array):
        return np.swapaxes(array, 0, 1) if batch_first else array

    marks = {name: turned(getattr(a, name)) for name in ("mask", "reset")}
    x = turned(a.arrays["x"])
    with engine.active():
        y, end, saved = layer.forward(x, state, a.lengths, **marks)
        dx, dstart = layer.backward(saved, turned(a.dy), dstate)
        inference, _, ((shown, shown_reverse),) = layer(x, state, a.lengths, **marks, trace=True)
        one, other = run_with_gates(a), run_with_gates(b)
    results = {"y": y, "h_n": end, "dx": dx, "dh0": dstart, "inference": inference}
    expected = {"h_n": np.stack((one["h_n"], other["h_n"])), "dh0": np.stack((one["dh0"], other["dh0"]))}
    expected |= {name: turned(one[name] + other[name]) for name in ("y", "dx")}
    helpers.assert_close(results, expected | {"inference": expected["y"]}, 1e-13)
    for trace, run_of in ((shown, one), (shown_reverse, other)):
        helpers.assert_close(
            {f"gate {name}": turned(array) for name, array in trace.items()},
            {name: array for name, array in run_of.items() if name.startswith("gate")},
            1e-13,
        )
    for name, argument in layer.weights.items():
        np.testing.assert_allclose(layer.grads[f"{name}_l0_reverse"], other[f"d{argument}"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", GATES)
def test_layers_remember_and_learn_where_they_start(cell):
    x = np.random.default_rng(36).standard_normal((6, 2, 3)).astype(np.float32)
    options = {"num_layers": 2, "rng": 1}
    plain, stateful = LAYERS[cell](3, 4, **options), LAYERS[cell](3, 4, stateful=True, **options)
    stateful(x[:2])
    np.testing.assert_allclose(stateful(x[2:])[0], plain(x)[0][2:], atol=1e-6)
    learned = LAYERS[cell](3, 4, learn_initial_state=True, **options)
    learned.h0_l1[...] = np.arange(4)
    state = np.zeros((2, 2, 4), np.float32)
    state[1] = np.arange(4)
    plain.load_state_dict({name: a for name, a in learned.state_dict().items() if "h0" not in name})
    np.testing.assert_array_equal(learned(x)[0], plain(x, state)[0])
    y, _, saved = learned.forward(x)
    _, dstart = learned.backward(saved, np.ones_like(y))
    np.testing.assert_array_equal(learned.grads["h0_l1"], dstart[1].sum(axis=0))
    assert learned.grads["h0_l1"].any()


@pytest.mark.parametrize("cell", GATES)
def test_layers_batch_first_and_without_bias(cell):
    layer = LAYERS[cell](3, 4, num_layers=2, bias=False, batch_first=True, rng=1)
    other = LAYERS[cell](3, 4, num_layers=2, rng=2)
    other.load_state_dict(layer.state_dict() | {f"bias_ih_l{k}": np.zeros(GATES[cell] * 4) for k in range(2)})
    x = np.random.default_rng(3).standard_normal((5, 7, 3)).astype(np.float32)
    y, end, saved = layer.forward(x)
    expected, expected_end, expected_saved = other.forward(x.transpose(1, 0, 2))
    assert y.shape == (5, 7, 4)
    assert end.shape == (2, 5, 4)
    np.testing.assert_array_equal(y.transpose(1, 0, 2), expected)
    np.testing.assert_array_equal(end, expected_end)
    dx, _ = layer.backward(saved, y)
    expected_dx, _ = other.backward(expected_saved, expected)
    np.testing.assert_array_equal(dx.transpose(1, 0, 2), expected_dx)


def test_initial_parameters():
    layer = fastrnn.IndRNN(3, 1000, num_layers=2, rng=0)
    assert list(layer.params) == [f"{name}_l{k}" for k in range(2) for name in ("weight_ih", "bias_ih", "weight_hh")]
    for k in range(2):
        u = layer.params[f"weight_hh_l{k}"]
        assert u.shape == (1000,)
        assert u.dtype == np.float32
        assert 0 <= u.min() < 0.02
        assert 0.98 < u.max() < 1
    assert np.abs(layer.weight_ih_l0).max() <= 1000**-0.5
    assert repr(layer) == "IndRNN(3, 1000, num_layers=2, nonlinearity='relu', dtype=float32)"
    layer = fastrnn.MinLSTM(3, 4, scan="parallel", rng=0)
    assert layer.weight_ih_l0.shape == (12, 3)
    assert repr(layer) == "MinLSTM(3, 4, candidate='linear', scan='parallel', dtype=float32)"


def test_what_layers_refuse():
    with pytest.raises(ValueError, match=r"^nonlinearity: 'gelu'"):
        fastrnn.IndRNN(3, 4, nonlinearity="gelu")
    with pytest.raises(ValueError, match=r"^candidate: 'gelu'"):
        fastrnn.MinGRU(3, 4, candidate="gelu")
    with pytest.raises(ValueError, match=r"^scan: 'other'"):
        fastrnn.MinLSTM(3, 4, scan="other")
    layer = fastrnn.MinGRU(3, 4)
    with pytest.raises(TypeError, match=r"^freeze: MinGRU has no recurrent matrix"):
        layer.freeze()
    with pytest.raises(ValueError, match=r"^return_cell_states: .*expected an LSTM"):
        layer(np.zeros((5, 2, 3), np.float32), return_cell_states=True)
    with pytest.raises(TypeError, match="checkpoint"):
        layer.forward(np.zeros((5, 2, 3), np.float32), checkpoint=2)


def adding_problem(rng, T, B):
    """Numbers, and marks at two of them, whose sum is asked for: (T, B, 2) and (B, 1)."""
    values = rng.random((T, B), dtype=np.float32)
    marks = np.zeros((T, B), np.float32)
    for b in range(B):
        marks[rng.choice(T, 2, replace=False), b] = 1
    return np.stack((values, marks), axis=2), (values * marks).sum(axis=0)[:, None]


class Adder(fastrnn.Module):
    """A layer and what reads its last state."""

    def __init__(self, kind):
        super().__init__()
        self.layer = LAYERS[kind.cell](2, 32, num_layers=2, **dict(kind.options), rng=1)
        self.head = nn.Linear(32, 1, rng=2)

    def error(self, x, target):
        """The mean square of the errors; their gradients are added up."""
        _, end, saved = self.layer.forward(x)
        out, head_saved = self.head.forward(end[-1])
        dend = np.zeros_like(end)
        dend[-1] = self.head.backward(head_saved, 2 * (out - target) / len(out))
        self.layer.backward(saved, None, dend, need="params")
        return float(np.mean((out - target) ** 2))


@pytest.mark.parametrize("kind", [KINDS[0], *(k for k in LINEAR if "linear-seq" in str(k))], ids=str)
def test_learning_to_add(kind):
    """Whoever answers 1 whatever comes has an error of 1/6."""
    rng = np.random.default_rng(0)
    model = Adder(kind)
    optimizer = nn.Adam(model, lr=0.01)
    errors = []
    for _ in range(250):
        optimizer.zero_grad()
        errors.append(model.error(*adding_problem(rng, 20, 32)))
        optimizer.step()
    assert errors[0] > 0.1
    assert np.mean(errors[-20:]) < 0.06
