"""The model of two time scales: what it says of itself written out step by step, and all gradients by differences."""

from itertools import product

import numpy as np
import pytest
from nn_helpers import check_padding, gradients_of, numeric_gradient

import fastrnn
from fastrnn import nn
from fastrnn.models import HierarchicalRNN

T, B, I, H, U, EVERY = 8, 4, 2, 3, 5, 3
CELLS = ("rnn", "lstm", "gru")


def model(cell="gru", every=EVERY, **options):
    return HierarchicalRNN(I, H, every, U, cell, **{"dtype": np.float64, "rng": 1} | options)


def states(rng, cell, B=B):
    """A state of both layers that is not zero."""
    parts = [tuple(rng.standard_normal((1, B, size)) for _ in range(2)) for size in (H, U)]
    return tuple(part if cell == "lstm" else part[0] for part in parts)


def arrays(state):
    """All of a state's arrays."""
    return [array for part in state for array in (part if isinstance(part, tuple) else (part,))]


def by_hand(net, x, state, length):
    """One sequence (T, 1, I), step by step with the layers themselves; y without padding, and the final states."""
    lower, upper = state
    ys = []
    for t in range(length):
        held = upper[0] if isinstance(upper, tuple) else upper
        read = np.concatenate([x[t : t + 1], held], axis=2) if net.top_down else x[t : t + 1]
        l, lower = net.lower(read, lower)
        if (t + 1) % net.every == 0:
            _, upper = net.upper(l, upper)
        ys.append(np.concatenate([l, upper[0] if isinstance(upper, tuple) else upper], axis=2))
    return np.concatenate(ys) if ys else np.zeros((0, 1, H + U)), (lower, upper)


@pytest.mark.parametrize(("cell", "top_down", "every"), [*product(CELLS, (False, True), (EVERY,)), ("gru", False, 1)])
def test_step_by_step(cell, top_down, every):
    rng = np.random.default_rng(0)
    net = model(cell, every, top_down=top_down)
    x, state, lengths = rng.standard_normal((T, B, I)), states(rng, cell), [T, 0, 5, 6]
    y, ends = net(x, state, lengths)
    for b, length in enumerate(lengths):
        one = tuple(tuple(a[:, b : b + 1] for a in arrays([part])) for part in state)
        one = one if cell == "lstm" else tuple(part[0] for part in one)
        expected, last = by_hand(net, x[:, b : b + 1], one, length)
        np.testing.assert_allclose(y[:length, b : b + 1], expected, atol=1e-14)
        assert not y[length:, b].any()
        for actual, wanted in zip(arrays(ends), arrays(last), strict=True):
            np.testing.assert_allclose(actual[:, b : b + 1], wanted, atol=1e-14)


@pytest.mark.parametrize(
    ("cell", "top_down", "every", "lengths"),
    [*product(CELLS, (False, True), (EVERY,), ((T, 0, 5, 6),)), ("gru", False, EVERY, None), ("rnn", True, 1, None)],
)
def test_gradients_against_finite_differences(cell, top_down, every, lengths):
    rng = np.random.default_rng(2)
    net = model(cell, every, top_down=top_down)
    x, state = rng.standard_normal((T, B, I)), states(rng, cell)
    y, _, cache = net.forward(x, state, lengths)
    plain, _ = net(x, state, lengths)
    np.testing.assert_array_equal(plain, y)
    dy, dends = rng.standard_normal(y.shape), states(rng, cell)

    def loss():
        y, ends = net(x, state, lengths)
        return np.sum(y * dy) + sum(np.sum(a * d) for a, d in zip(arrays(ends), arrays(dends), strict=True))

    dx, dstate = net.backward(cache, dy, dends)
    np.testing.assert_allclose(dx, numeric_gradient(loss, x), atol=1e-8)
    for actual, array in zip(arrays(dstate), arrays(state), strict=True):
        np.testing.assert_allclose(actual, numeric_gradient(loss, array), atol=1e-8)
    for name, value, grad in net.parameters():
        np.testing.assert_allclose(grad, numeric_gradient(loss, value), atol=1e-8, err_msg=name)


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("sizes", [(0, 3), (1, 1), (2, 3), (3, 3), (7, 0)], ids=str)
def test_sizes_and_a_state_of_none(top_down, sizes):
    net, rng = model("lstm", top_down=top_down), np.random.default_rng(3)
    T, B = sizes
    x = rng.standard_normal((T, B, I))
    zeros = tuple(tuple(np.zeros((1, B, size)) for _ in range(2)) for size in (H, U))
    runs = []
    for state in (None, (None, None), zeros):
        net.zero_grad()
        y, ends, cache = net.forward(x, state)
        assert y.shape == (T, B, H + U)
        dx, dstate = net.backward(cache, np.ones_like(y), ends)
        runs.append([y, dx, *arrays(ends), *arrays(dstate), *gradients_of(net).values()])
    for run in runs[1:]:
        for actual, expected in zip(run, runs[0], strict=True):
            np.testing.assert_array_equal(actual, expected)
    net.backward(net.forward(x)[2], None)


@pytest.mark.parametrize("top_down", [False, True])
def test_batch_first_and_float32(top_down):
    rng = np.random.default_rng(4)
    net, turned = (model(top_down=top_down, dtype=np.float32, batch_first=flag) for flag in (False, True))
    x, dy = (rng.standard_normal((T, B, width), dtype=np.float32) for width in (I, H + U))
    y, ends, cache = net.forward(x, None, [7, 2, T, 6])
    y_turned, ends_turned, cache_turned = turned.forward(x.swapaxes(0, 1), None, [7, 2, T, 6])
    assert y.dtype == ends[0].dtype == np.float32
    np.testing.assert_array_equal(y_turned, y.swapaxes(0, 1))
    dx, dstate = net.backward(cache, dy)
    dx_turned, dstate_turned = turned.backward(cache_turned, dy.swapaxes(0, 1))
    np.testing.assert_array_equal(dx_turned, dx.swapaxes(0, 1))
    for actual, expected in zip([*ends_turned, *dstate_turned], [*ends, *dstate], strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("top_down", [False, True])
def test_chunks_of_whole_blocks(top_down):
    rng = np.random.default_rng(5)
    net = model(top_down=top_down)
    x, state = rng.standard_normal((T, B, I)), states(rng, "gru")
    whole, end = net(x, state)
    first, between = net(x[: 2 * EVERY], state)
    rest, last = net(x[2 * EVERY :], between)
    np.testing.assert_allclose(np.concatenate([first, rest]), whole, atol=1e-14)
    for actual, expected in zip(last, end, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-14)


@pytest.mark.parametrize("top_down", [False, True])
def test_padding_has_no_effect(top_down):
    rng = np.random.default_rng(6)
    check_padding(
        OutputsOnly(model(top_down=top_down, batch_first=True)), rng.standard_normal((B, T, I)), [5, 0, T, 6], rng
    )


class OutputsOnly(fastrnn.Module):
    """A model without its state."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def __call__(self, x, lengths=None):
        return self.net(x, lengths=lengths)[0]

    def forward(self, x, lengths=None):
        y, _, cache = self.net.forward(x, lengths=lengths)
        return y, cache

    def backward(self, cache, dy):
        return self.net.backward(cache, dy)[0]


@pytest.mark.parametrize("top_down", [False, True])
def test_what_is_needed(top_down):
    rng = np.random.default_rng(7)
    net, x = model(top_down=top_down), rng.standard_normal((T, B, I))
    dy = rng.standard_normal((T, B, H + U))
    dx, dstate = net.backward(net.forward(x)[2], dy)
    grads = gradients_of(net)
    net.zero_grad()
    only_x, dstate_x = net.backward(net.forward(x)[2], dy, need="x")
    assert not any(grad.any() for grad in gradients_of(net).values())
    none, dstate_params = net.backward(net.forward(x)[2], dy, need=["params"])
    assert none is None
    np.testing.assert_array_equal(only_x, dx)
    for name, grad in gradients_of(net).items():
        np.testing.assert_array_equal(grad, grads[name])
    for other in (dstate_x, dstate_params):
        for actual, expected in zip(other, dstate, strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_state_dict():
    net, other, x = model("lstm"), model("lstm", rng=2), np.ones((T, B, I))
    state = net.state_dict()
    assert state["lower.weight_ih_l0"].shape == (4 * H, I)
    assert state["upper.weight_ih_l0"].shape == (4 * U, H)
    assert model("lstm", top_down=True).lower.weight_ih_l0.shape == (4 * H, I + U)
    other.load_state_dict(state)
    np.testing.assert_array_equal(other(x)[0], net(x)[0])
    assert repr(net) == "HierarchicalRNN(2, 3, every=3, upper_size=5, cell='lstm', dtype=float64)"


def test_in_a_sequential_it_learns():
    rng = np.random.default_rng(8)
    x = rng.standard_normal((64, 12, 1)).astype(np.float32)
    first_positive = (x[:, 0, 0] > 0).astype(np.intp)
    net = HierarchicalRNN(1, 8, every=4, batch_first=True, rng=0)
    whole = nn.Sequential(net, nn.LastStep(), nn.Linear(net.output_size, 2, rng=1))
    history = nn.fit(
        whole, x, first_positive, loss=nn.CrossEntropyLoss(), optimiser=nn.Adam(whole, lr=0.03), epochs=25,
        progress=False,
    )  # fmt: skip
    assert history.epochs[-1]["loss"] < 0.3 < 0.6 < history.epochs[0]["loss"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input_size": 0}, ValueError, r"^input_size: 0"),
        ({"every": 0}, ValueError, r"^every: 0, expected a whole number from 1"),
        ({"every": 2.5}, TypeError, r"^every: 2.5"),
        ({"upper_size": -1}, ValueError, r"^upper_size: -1"),
        ({"cell": "tanh"}, ValueError, r"^cell: 'tanh', expected one of 'rnn', 'lstm', 'gru'"),
        ({"dtype": np.int32}, TypeError, r"^dtype: int32"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        HierarchicalRNN(**{"input_size": I, "hidden_size": H, "every": EVERY} | arguments)


def test_bad_input():
    net, x = model(), np.ones((T, B, I))
    with pytest.raises(ValueError, match=r"^x: shape \(8, 4, 3\), expected \(T, B, I\) with I = 2"):
        net(np.ones((T, B, H)))
    with pytest.raises(TypeError, match=r"^state: ndarray, expected the tuple \(lower, upper\)"):
        net(x, np.ones((1, B, H)))
    with pytest.raises(ValueError, match=r"^state\[1\]: shape \(1, 4, 3\)"):
        net(x, (np.ones((1, B, H)), np.ones((1, B, H))))
    with pytest.raises(ValueError, match=r"^lengths: values from 1 to 9, expected 0 to T = 8"):
        net(x, lengths=[1, 9, 2, 3])
    y, _, cache = net.forward(x)
    with pytest.raises(ValueError, match=r"^dy: shape \(8, 4, 3\), expected \(T, B, H \+ U\) = \(8, 4, 8\)"):
        net.backward(cache, y[..., :H])
    with pytest.raises(ValueError, match=r"^dstate\[0\]: shape \(1, 4, 5\)"):
        net.backward(cache, y, (np.ones((1, B, U)), None))
    with pytest.raises(ValueError, match=r"^need: 'dx'"):
        net.backward(cache, y, need="dx")
    with pytest.raises(TypeError, match=r"^cache: tuple, expected what this model's forward returned"):
        net.backward((), y)
    with pytest.raises(ValueError, match=r"^cache: it is of another"):
        model(rng=3).backward(cache, y)
    assert not any(grad.any() for grad in gradients_of(net).values())
    net.backward(cache, y)
    with pytest.raises(ValueError, match=r"^cache: it has been used"):
        net.backward(cache, y)
