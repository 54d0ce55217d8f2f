"""The final states of recurrent layers as a module: values, and gradients by finite differences."""

import numpy as np
import pytest

import fastrnn
from fastrnn import nn

N, T, I, H = 3, 5, 4, 2
LAYERS = [
    ("RNN", {}),
    ("LSTM", {"num_layers": 2}),
    ("LSTM", {"bidirectional": True, "num_layers": 2}),
    ("GRU", {"bidirectional": True, "merge": "sum"}),
    ("GRU", {"bidirectional": True, "merge": "mul"}),
    ("RNN", {"bidirectional": True, "merge": "ave"}),
]


def make(cell, options):
    return nn.FinalState(getattr(fastrnn, cell)(I, H, batch_first=True, dtype=np.float64, rng=1, **options))


@pytest.mark.parametrize(("cell", "options"), LAYERS, ids=str)
@pytest.mark.parametrize("lengths", [None, [5, 0, 3]])
def test_values_and_gradients(cell, options, lengths):
    module = make(cell, options)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, T, I))
    y, cache = module.forward(x, lengths)
    state = module.layer(x, lengths=lengths)[1]
    h = state[0] if isinstance(state, tuple) else state
    if not options.get("bidirectional"):
        np.testing.assert_array_equal(y, h[-1])
    else:
        ways = {"sum": h[-2] + h[-1], "mul": h[-2] * h[-1], "ave": (h[-2] + h[-1]) / 2}
        np.testing.assert_allclose(y, ways.get(options.get("merge"), np.concatenate([h[-2], h[-1]], axis=1)))
    np.testing.assert_array_equal(module(x, lengths), y)

    dy = rng.standard_normal(y.shape)
    dx = module.backward(cache, dy)
    direction = {p.name: rng.standard_normal(p.value.shape) for p in module.parameters()}
    dx_direction = rng.standard_normal(x.shape)

    def loss(step):
        for p in module.parameters():
            p.value[...] += step * direction[p.name]
        value = (module(x + step * dx_direction, lengths) * dy).sum()
        for p in module.parameters():
            p.value[...] -= step * direction[p.name]
        return value

    expected = (loss(1e-6) - loss(-1e-6)) / 2e-6
    found = sum((p.grad * direction[p.name]).sum() for p in module.parameters()) + (dx * dx_direction).sum()
    assert found == pytest.approx(expected, rel=1e-7)


def test_in_a_sequential_of_no_sequences():
    model = nn.Sequential(make("GRU", {"bidirectional": True}), nn.Linear(2 * H, 3, dtype=np.float64, rng=0))
    assert model(np.zeros((0, T, I))).shape == (0, 3)
    assert model.uses_lengths


def test_what_it_refuses():
    with pytest.raises(TypeError, match=r"^layer: Linear, expected a recurrent layer"):
        nn.FinalState(nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"^layer: LSTM\(2, 3, .*, expected batch_first"):
        nn.FinalState(fastrnn.LSTM(2, 3))
    module = make("GRU", {})
    _, cache = module.forward(np.zeros((N, T, I)))
    with pytest.raises(ValueError, match=r"^dy: shape \(3, 5\), expected that of y = \(3, 2\)"):
        module.backward(cache, np.zeros((N, 5)))
