"""Checkpoints: less is kept, and every result and gradient has the same bits."""

import helpers
import numpy as np
import pytest

import fastrnn
from fastrnn import _sharing
from fastrnn._core import plan


@pytest.mark.parametrize(
    ("batch", "steps", "members"), [(1, 7, 1), (1, 64, 2), (5, 1, 2), (5, 64, 1), (300, 7, 2), (1, 1000, 2)]
)
def test_same_bits(compiled, variant, ragged, reverse, batch, steps, members, monkeypatch):
    monkeypatch.setattr(_sharing, "LEAST", 1)  # else nothing here would be large enough to be shared
    monkeypatch.setattr(_sharing, "CPUS", 2)
    T = 9 if batch == 300 else 290 if batch == 1 else 120
    lengths = [283] if ragged and batch == 1 else ragged or None
    problem = helpers.make(variant, T, batch, 3, 11, np.float32, seed=steps, lengths=lengths, reverse=reverse)
    with compiled.active(members):
        assert _sharing.independent(1000, 4).members == members
        expected, cache = helpers.forward(problem)
        expected |= helpers.backward(problem, cache)
        outputs, cache = helpers.forward(problem, checkpoint=steps)
        results = outputs | helpers.backward(problem, cache)
    if compiled.name == "native":
        helpers.assert_same_bits(results, expected)
    else:  # a BLAS may sum otherwise for other numbers of rows
        helpers.assert_close(results, expected, 1e-5)


def test_segments_are_many_where_they_are_meant_to_be():
    """What the test above stands on: blocks of sums are shorter than its sequences, and so are segments."""
    for batch, T in ((1, 290), (5, 120), (300, 9)):
        assert plan.Plan(T, batch).steps_at_once < T


def test_a_layer_with_checkpoints(engine):
    layer = fastrnn.GRU(5, 9, num_layers=2, bidirectional=True, dropout=0.3, rng=3)
    x = np.random.default_rng(0).standard_normal((300, 2, 5)).astype(np.float32)
    results = []
    for checkpoint in (None, 100):
        layer.rng = np.random.default_rng(1)  # the same dropout
        layer.zero_grad()
        with engine.active():
            y, state, cache = layer.forward(x, checkpoint=checkpoint)
            dx, dstate = layer.backward(cache, np.ones_like(y), np.ones_like(state))
        results.append(
            {"y": y, "state": state, "dx": dx, "dstate": dstate, **{k: v.copy() for k, v in layer.grads.items()}}
        )
    helpers.assert_close(results[1], results[0], 0 if engine.name == "native" else 1e-5)


@pytest.mark.parametrize("value", [0, -3, True])
def test_a_number_of_steps_out_of_range(engine, variant, value):
    with engine.active(), pytest.raises(ValueError, match="checkpoint"):
        helpers.forward(helpers.make(variant, 3, 2, 2, 2), checkpoint=value)


@pytest.mark.parametrize("value", [2.0, "all"])
def test_no_number_of_steps(engine, variant, value):
    with engine.active(), pytest.raises(TypeError, match="checkpoint"):
        helpers.forward(helpers.make(variant, 3, 2, 2, 2), checkpoint=value)


def test_no_workspace():
    layer = fastrnn.RNN(2, 3)
    with pytest.raises(TypeError, match="workspace"):
        layer.forward(np.zeros((1, 1, 2), np.float32), workspace=1)
