"""Gradients that are not asked for: None, not computed, and the others with the same bits."""

import helpers
import numpy as np
import pytest
from test_layers import LAYERS, every_layer

import fastrnn
from fastrnn import _products
from fastrnn import functional as F

ENGINES = ("reference", "blas", "native")


def gradients(variant, **options):
    problem = helpers.make(variant, 6, 3, 4, 5, np.float32, seed=3)
    _, cache = helpers.forward(problem)
    return helpers.backward(problem, cache, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("variant", helpers.VARIANTS, ids=str)
@pytest.mark.parametrize("need", [(), ("x",), ("w_hh", "b_ih"), ("h0", "w_ih"), "x"])
def test_what_is_asked_for_is_the_same_and_nothing_else_is_there(variant, engine, need):
    with fastrnn.config_context(engine=engine):
        everything, some = gradients(variant), gradients(variant, need=need)
    asked = {need} if isinstance(need, str) else set(need)
    assert set(some) == {f"d{name}" for name in asked}
    for name, part in some.items():
        np.testing.assert_array_equal(part, everything[name])


@pytest.mark.parametrize("variant", helpers.VARIANTS, ids=str)
def test_work_is_skipped(variant, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("it was not asked for")

    with fastrnn.config_context(engine="native"):
        with monkeypatch.context() as patched:
            patched.setattr(_products.NativeProducts, "weight_gradient", forbidden)
            gradients(variant, need=("x", "h0"))
        monkeypatch.setattr(_products.NativeProducts, "backward", forbidden)
        gradients(variant, need=("w_ih", "h0"))


@every_layer
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers(kind, bidirectional):
    x, dy = np.ones((5, 2, 3), np.float32), np.ones((5, 2, 8 if bidirectional else 4), np.float32)
    results = []
    for need in (("x", "params"), ("params",), ("x",), ()):
        layer = LAYERS[kind](3, 4, num_layers=2, bidirectional=bidirectional, rng=0)
        _, _, cache = layer.forward(x)
        dx, dstate = layer.backward(cache, dy, need=need)
        results.append((dx, dstate, layer.grads))
    dx, dstate, grads = results[0]
    for need, (some_dx, some_dstate, some_grads) in zip((("params",), ("x",), ()), results[1:], strict=True):
        assert (some_dx is None) == ("x" not in need)
        if "x" in need:
            np.testing.assert_array_equal(some_dx, dx)
        np.testing.assert_array_equal(some_dstate, dstate)
        for name, grad in grads.items():
            np.testing.assert_array_equal(some_grads[name], grad if "params" in need else np.zeros_like(grad))


@pytest.mark.parametrize(
    ("need", "error", "says"),
    [(("y",), ValueError, "need: 'y', expected some of 'x', 'h0'"), (1, TypeError, "need: int, expected names")],
)
def test_bad_names(need, error, says):
    *_, cache = F.rnn_forward(np.zeros((2, 1, 3)), None, np.zeros((4, 3)), np.zeros((4, 4)))
    with pytest.raises(error, match=says):
        F.rnn_backward(cache, None, need=need)
    F.rnn_backward(cache, None)  # which is still good


def test_bad_names_for_a_layer():
    layer = fastrnn.GRU(3, 4, rng=0)
    _, _, cache = layer.forward(np.zeros((2, 1, 3), np.float32))
    with pytest.raises(ValueError, match="need: 'w_ih', expected some of 'x', 'params'"):
        layer.backward(cache, None, need=("w_ih",))
