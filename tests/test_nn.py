"""The toolkit: gradients by finite differences, optimiser and clipping against their formulas."""

import math

import numpy as np
import pytest

import fastrnn
from fastrnn import nn


def numeric_gradient(loss, value, eps=1e-6):
    grad = np.zeros_like(value)
    for at in np.ndindex(*value.shape):
        keep = value[at]
        value[at] = keep + eps
        up = loss()
        value[at] = keep - eps
        grad[at] = (up - loss()) / (2 * eps)
        value[at] = keep
    return grad


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("engine", ["native", "blas", "reference"])
def test_linear(bias, engine):
    rng = np.random.default_rng(0)
    layer = nn.Linear(3, 4, bias, dtype=np.float64, rng=1)
    x, dy = rng.standard_normal((2, 5, 3)), rng.standard_normal((2, 5, 4))
    with fastrnn.config_context(engine=engine):
        y, cache = layer.forward(x)
        expected = x @ layer.weight.T + (layer.bias if bias else 0)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-14)
        dx = layer.backward(cache, dy)
        layer.backward(cache, dy)  # adds

        def loss():
            return float(np.sum(layer(x) * dy))

        np.testing.assert_allclose(dx, numeric_gradient(loss, x), atol=1e-8)
        for name, value in layer.params.items():
            np.testing.assert_allclose(layer.grads[name], 2 * numeric_gradient(loss, value), atol=1e-7)
        assert layer(np.zeros((0, 3))).shape == (0, 4)
    with pytest.raises(ValueError, match=r"^x: shape \(2, 2\), expected \(\.\.\., 3\)"):
        layer(np.zeros((2, 2)))


def test_embedding():
    rng = np.random.default_rng(0)
    layer = nn.Embedding(5, 3, dtype=np.float64, rng=1)
    indices = np.array([[0, 4, 4], [2, 0, 4]])
    y, cache = layer.forward(indices)
    np.testing.assert_array_equal(y[1, 2], layer.weight[4])
    dy = rng.standard_normal(y.shape)
    layer.backward(cache, dy)
    expected = np.zeros((5, 3))
    np.add.at(expected, indices, dy)
    np.testing.assert_allclose(layer.grads["weight"], expected, atol=1e-15)
    for bad, message in (
        ([5], r"^indices: values from 5 to 5, expected 0 to 4"),
        ([-1], r"^indices: values from -1"),
        ([1.0], r"^indices: dtype float64, expected integers"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            layer(bad)


def test_cross_entropy():
    rng = np.random.default_rng(0)
    logits, target = 5 * rng.standard_normal((2, 3, 4)), np.array([[0, 3, 1], [2, 2, 0]])
    loss = nn.CrossEntropyLoss()
    by_hand = 0.0
    for at in np.ndindex(2, 3):
        row = [math.exp(v) for v in logits[at]]
        by_hand -= math.log(row[target[at]] / sum(row)) / 6
    value, cache = loss.forward(logits, target)
    assert value == pytest.approx(by_hand, rel=1e-12)
    d = loss.backward(cache, 2.0)
    np.testing.assert_allclose(d, 2 * numeric_gradient(lambda: loss(logits, target), logits), atol=1e-8)
    # logits far beyond what exp can take do not overflow
    huge = np.array([[1e38, 0, -1e38]], np.float32)
    assert loss(huge, [0]) == 0.0
    for bad, message in (
        (([[1.0, 2.0]], [2]), r"^target: values from 2 to 2, expected 0 to 1"),
        (([[1.0, 2.0]], [0, 1]), r"^target: shape \(2,\), expected \(1,\)"),
        ((np.zeros((0, 3)), np.zeros(0, int)), r"^logits: shape \(0, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(*bad)


def test_adam_follows_its_algorithm():
    layer = nn.Linear(2, 1, dtype=np.float64, rng=0)
    optimiser = nn.Adam(layer, lr=0.1, betas=(0.8, 0.9), eps=1e-3)
    rng = np.random.default_rng(0)
    w = {name: value.copy() for name, value in layer.params.items()}
    m = dict.fromkeys(w, 0)
    v = dict.fromkeys(w, 0)
    for t in range(1, 6):
        optimiser.zero_grad()
        for name, grad in layer.grads.items():
            grad += rng.standard_normal(grad.shape)
            m[name] = 0.8 * m[name] + 0.2 * grad
            v[name] = 0.9 * v[name] + 0.1 * grad**2
            w[name] = w[name] - 0.1 * (m[name] / (1 - 0.8**t)) / (np.sqrt(v[name] / (1 - 0.9**t)) + 1e-3)
        optimiser.step()
        for name, value in layer.params.items():
            np.testing.assert_allclose(value, w[name], rtol=1e-12)


def test_adam_like_torch():
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of this test, is not installed")
    ours = nn.Linear(3, 2, dtype=np.float64, rng=0)
    theirs = torch.nn.Linear(3, 2, dtype=torch.float64)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in ours.state_dict().items()})
    mine, optimiser = nn.Adam(ours, lr=0.05), torch.optim.Adam(theirs.parameters(), lr=0.05)
    rng = np.random.default_rng(1)
    for _ in range(10):
        mine.zero_grad()
        for name, parameter in theirs.named_parameters():
            grad = rng.standard_normal(parameter.shape)
            parameter.grad = torch.tensor(grad)
            ours.grads[name] += grad
        mine.step()
        optimiser.step()
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(ours.params[name], parameter.detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": float("nan")}, r"^lr: nan"),
        ({"lr": -1}, r"^lr: -1"),
        ({"eps": float("inf")}, r"^eps: inf"),
        ({"betas": (0.9, 1.0)}, r"^betas: \(0.9, 1.0\)"),
    ],
)
def test_bad_adam(arguments, message):
    with pytest.raises(ValueError, match=message):
        nn.Adam(nn.Linear(1, 1), **arguments)


def test_clipping():
    layer = nn.Linear(2, 2, dtype=np.float64, rng=0)
    layer.grads["weight"][...] = [[3, -4], [0, 12]]
    layer.grads["bias"][...] = [0, 84]
    assert nn.clip_grad_norm_(layer, 8.5) == 85
    np.testing.assert_allclose(layer.grads["weight"], [[0.3, -0.4], [0, 1.2]], rtol=1e-14)
    np.testing.assert_allclose(layer.grads["bias"], [0, 8.4], rtol=1e-14)
    assert nn.clip_grad_norm_(layer, 100) == pytest.approx(8.5)
    np.testing.assert_allclose(layer.grads["bias"], [0, 8.4], rtol=1e-14)
    nn.clip_grad_value_(layer, 1)
    np.testing.assert_allclose(layer.grads["weight"], [[0.3, -0.4], [0, 1]], rtol=1e-14)
    layer.grads["bias"][0] = np.inf
    assert nn.clip_grad_norm_(layer, 1) == np.inf
    np.testing.assert_allclose(layer.grads["weight"], [[0.3, -0.4], [0, 1]], rtol=1e-14)
    for clip in (nn.clip_grad_norm_, nn.clip_grad_value_):
        with pytest.raises(ValueError, match=r"expected a number above 0"):
            clip(layer, float("nan"))


class Tagger(fastrnn.Module):
    """An LSTM and a linear layer."""

    def __init__(self):
        super().__init__()
        self.lstm = fastrnn.LSTM(3, 4, dtype=np.float64, rng=0)
        self.head = nn.Linear(4, 5, dtype=np.float64, rng=1)

    def forward(self, x, state=None):
        y, state, lstm_cache = self.lstm.forward(x, state)
        logits, head_cache = self.head.forward(y)
        return logits, state, (lstm_cache, head_cache)

    def backward(self, cache, dlogits):
        self.lstm.backward(cache[0], self.head.backward(cache[1], dlogits))


def test_modules_within_modules_are_named_by_attribute():
    model = Tagger()
    names = [p.name for p in model.parameters()]
    assert names == [f"lstm.{n}" for n in model.lstm.params] + ["head.weight", "head.bias"]
    other = Tagger()
    other.head.weight = np.zeros((5, 4))
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other.head.weight, model.head.weight)


def test_truncated_bptt_carries_the_state_and_cuts_the_gradient():
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((12, 2, 3)), rng.integers(0, 5, (12, 2))
    chunks = [(x[t : t + 4], target[t : t + 4]) for t in range(0, 12, 4)]
    model, twin = Tagger(), Tagger()
    losses = list(nn.truncated_bptt(model, nn.CrossEntropyLoss(), nn.Adam(model, 0.1), chunks, max_norm=0.5))

    loss, optimiser, state, expected = nn.CrossEntropyLoss(), nn.Adam(twin, 0.1), None, []
    for inputs, wanted in chunks:
        twin.zero_grad()
        logits, state, cache = twin.forward(inputs, state)
        value, loss_cache = loss.forward(logits, wanted)
        twin.backward(cache, loss.backward(loss_cache))
        nn.clip_grad_norm_(twin, 0.5)
        optimiser.step()
        expected.append(value)
    assert losses == expected
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_array_equal(a.value, b.value)


def test_truncated_bptt_through_more_steps_than_an_update_has():
    """TBPTT(4, 8): the loss of the last 4 steps, its gradient through 8, from where the 4 before these ended."""
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((14, 2, 3)), rng.integers(0, 5, (14, 2))
    chunks = [(x[t : t + 4], target[t : t + 4]) for t in range(0, 14, 4)]  # the last one has 2 steps
    model, twin = Tagger(), Tagger()
    losses = list(nn.truncated_bptt(model, nn.CrossEntropyLoss(), nn.Adam(model, 0.1), chunks, k2=8))

    loss, optimiser, states, expected = nn.CrossEntropyLoss(), nn.Adam(twin, 0.1), [None], []
    for start, end, first in ((0, 4, 0), (0, 8, 4), (4, 12, 8), (8, 14, 12)):
        twin.zero_grad()
        logits, state, cache = twin.forward(x[start:end], states[max(0, len(states) - 2)])
        value, loss_cache = loss.forward(logits[first - start :], target[first:end])
        dlogits = np.zeros_like(logits)
        dlogits[first - start :] = loss.backward(loss_cache)
        twin.backward(cache, dlogits)
        optimiser.step()
        states.append(state)
        expected.append(value)
    assert losses == expected
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_array_equal(a.value, b.value)


@pytest.mark.parametrize("k2", [0, 3, 6])
def test_truncated_bptt_through_no_whole_number_of_chunks(k2):
    model = Tagger()
    chunk = np.zeros((4, 2, 3)), np.zeros((4, 2), int)
    with pytest.raises(ValueError, match="k2"):
        next(nn.truncated_bptt(model, nn.CrossEntropyLoss(), nn.Adam(model), [chunk], k2=k2))


def test_training_learns():
    """Whether the first of 8 inputs was positive, told at the end: the loss falls to a tenth."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 64, 3))
    target = np.broadcast_to((x[0, :, 0] > 0).astype(int), (8, 64))
    model, loss = Tagger(), nn.CrossEntropyLoss()
    optimiser = nn.Adam(model, 0.02)
    values = [next(nn.truncated_bptt(model, loss, optimiser, [(x, target)])) for _ in range(200)]
    assert values[-1] < values[0] / 10
