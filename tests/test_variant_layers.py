"""Layers whose cells are variants: PyTorch's projections, parameters and their gradients, serving, learning."""

import copy

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, RNN

ALL = {"activations": ("hard_sigmoid", "tanh", "softsign"), "clip": 2.0, "layer_norm": True, "peepholes": True}
LAYERS = {
    "lstm": lambda: LSTM(3, 6, 2, bidirectional=True, proj_size=4, **ALL, dtype=np.float64, rng=0),
    "coupled": lambda: LSTM(3, 5, coupled=True, bias=False, dtype=np.float64, rng=0),
    "gru": lambda: GRU(3, 5, 2, reset_after=False, layer_norm=True, zoneout=0.2, dtype=np.float64, rng=0),
    "rnn": lambda: RNN(3, 5, bidirectional=True, merge="sum", activations=("elu",), dtype=np.float64, rng=0),
}


def problem(layer, T=4, B=3, seed=1):
    rng = np.random.default_rng(seed)
    D = layer.directions * layer.num_layers
    state = tuple(rng.standard_normal((D, B, layer._state_width(name))) for name in layer.state_names)
    return rng.standard_normal((T, B, layer.input_size)), state if len(state) > 1 else state[0]


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_parameters_have_the_gradients_of_finite_differences(make, engine):
    layer = make()
    assert "zoneout" not in layer.variant_options or not layer.variant_options["zoneout"] or layer.cell == "gru"
    x, state = problem(layer)
    dy = np.random.default_rng(2).standard_normal((4, 3, layer.output_size))
    seed = copy.deepcopy(layer.rng)

    def loss():
        layer.rng = copy.deepcopy(seed)  # the same elements are drawn
        y, _, cache = layer.forward(x, state, lengths=(4, 1, 3))
        return float(np.sum(y * dy)), cache

    with engine.active():
        _, cache = loss()
        layer.backward(cache, dy)
        checked = np.random.default_rng(3)
        for name, value in layer.params.items():
            index = tuple(checked.integers(0, n) for n in value.shape)
            original, values = value[index], []
            for step in (1e-6, -1e-6):
                value[index] = original + step
                values.append(loss()[0])
            value[index] = original
            assert layer.grads[name][index] == pytest.approx((values[0] - values[1]) / 2e-6, abs=2e-7), name


@pytest.mark.parametrize("bidirectional", [False, True])
def test_projections_are_those_of_torch(bidirectional):
    torch = pytest.importorskip("torch")
    ours = LSTM(3, 7, 2, bidirectional=bidirectional, proj_size=4, dtype=np.float64, rng=0)
    theirs = torch.nn.LSTM(3, 7, 2, bidirectional=bidirectional, proj_size=4, dtype=torch.float64)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    theirs.load_state_dict({name: torch.tensor(a) for name, a in ours.state_dict().items()})
    x, state = problem(ours)
    y, (h, c), cache = ours.forward(x, state)
    x_t = torch.tensor(x, requires_grad=True)
    y_t, (h_t, c_t) = theirs(x_t, tuple(map(torch.tensor, state)))
    dy = np.random.default_rng(4).standard_normal(y.shape)
    y_t.backward(torch.tensor(dy))
    dx, _ = ours.backward(cache, dy)
    for a, b in ((y, y_t), (h, h_t), (c, c_t), (dx, x_t.grad)):
        np.testing.assert_allclose(a, b.detach().numpy(), atol=1e-12)
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(ours.grads[name], parameter.grad.numpy(), atol=1e-11, err_msg=name)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_frozen_and_streamed_are_the_layer(make):
    layer = make()
    x, state = problem(layer)
    y, end = layer(x, state)
    frozen_y, frozen_end = layer.freeze()(x, state)
    np.testing.assert_array_equal(frozen_y, y)
    for a, b in zip(*(e if isinstance(e, tuple) else (e,) for e in (frozen_end, end)), strict=True):
        np.testing.assert_array_equal(a, b)
    if not layer.bidirectional:
        stream = layer.freeze().stream(3)
        stream.state = state
        for x_t, y_t in zip(x, y, strict=True):
            np.testing.assert_allclose(stream.step(x_t), y_t, atol=1e-14)


def test_elements_are_drawn_in_training_alone():
    layer = LSTM(3, 8, zoneout=(0.5, 0.5), recurrent_dropout=0.5, input_dropout=0.5, rng=0)
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(layer(x)[0], layer(x)[0])
    first, second = (layer.forward(x)[0] for _ in range(2))
    assert np.abs(first - second).max() > 0.01
    again = LSTM(3, 8, zoneout=(0.5, 0.5), recurrent_dropout=0.5, input_dropout=0.5, rng=0)
    np.testing.assert_array_equal(again.forward(x)[0], first)


def test_initial_values():
    layer = LSTM(3, 8, layer_norm=True, peepholes=True, forget_bias=1.5, rng=0)
    assert (layer.bias_ih_l0[8:16] == 1.5).all()
    assert not layer.bias_hh_l0[8:16].any()
    assert (layer.gain_ih_l0 == 1).all()
    assert not layer.shift_c_l0.any()
    assert np.unique(layer.peephole_l0).size > 20
    assert "layer_norm=True" in repr(layer)


def test_a_normalised_lstm_with_zoneout_learns():
    """Which of two tones is in the noise."""
    rng = np.random.default_rng(0)
    T, B = 20, 40
    which = rng.integers(0, 2, B)
    waves = np.sin(np.arange(T)[:, None] * np.where(which, 0.9, 0.5) + rng.random(B) * 6)
    x = (waves + 0.3 * rng.standard_normal((T, B))).astype(np.float32)[:, :, None]
    lstm = LSTM(1, 16, layer_norm=True, zoneout=(0.1, 0.05), recurrent_dropout=0.1, rng=1)
    head, loss = fastrnn.nn.Linear(16, 2, rng=2), fastrnn.nn.CrossEntropyLoss()
    optimisers = [fastrnn.nn.Adam(module, 0.01) for module in (lstm, head)]
    for _ in range(60):
        y, _, cache = lstm.forward(x)
        logits, head_cache = head.forward(y[-1])
        _, loss_cache = loss.forward(logits, which)
        dy = np.zeros_like(y)
        dy[-1] = head.backward(head_cache, loss.backward(loss_cache))
        lstm.backward(cache, dy)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
    accuracy = np.mean(np.argmax(head(lstm(x)[0][-1]), axis=1) == which)
    assert accuracy > 0.9


def test_a_frozen_layer_with_dropout_alone_is_the_plain_one():
    x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    layer = GRU(3, 6, input_dropout=0.3, recurrent_dropout=0.2, rng=0)
    plain = GRU(3, 6, rng=0)
    frozen = layer.freeze()
    assert frozen.stream(2)._stepper is not None or fastrnn.get_config()["engine"] == "reference"
    np.testing.assert_array_equal(frozen(x)[0], plain.freeze()(x)[0])
    np.testing.assert_allclose(layer(x)[0], plain(x)[0], rtol=1e-5, atol=1e-6)
    assert not np.array_equal(layer.forward(x)[0], plain.forward(x)[0])
    assert GRU(3, 6, input_dropout=0.3, zoneout=0.1).freeze()._layer.varies


def test_bad_arguments():
    for match, make in {
        r"^proj_size: 6, expected fewer than hidden_size = 6": lambda: LSTM(3, 6, proj_size=6),
        r"^proj_size: 2, expected 0, for only an LSTM has a projection": lambda: GRU(3, 6, proj_size=2),
        r"^forget_bias: 1, expected None for a layer without biases": lambda: LSTM(3, 6, bias=False, forget_bias=1),
        r"^zoneout: 2, expected a probability": lambda: GRU(3, 6, zoneout=2),
        r"^zoneout: a gru has no cell state": lambda: GRU(3, 6, zoneout=(0.1, 0.1)),
        r"^peepholes: a rnn has none": lambda: RNN(3, 6, peepholes=True),
        r"^activations: 1 of them, expected 3 for lstm": lambda: LSTM(3, 6, activations=("tanh",)),
    }.items():
        with pytest.raises(ValueError, match=match):
            make()
    layer = LSTM(3, 6, proj_size=2)
    with pytest.raises(
        ValueError, match=r"^state\[0\]: shape \(1, 2, 6\), expected \(D\*num_layers, B, H\) = \(1, 2, 2\)"
    ):
        layer(np.zeros((1, 2, 3), np.float32), (np.zeros((1, 2, 6), np.float32),) * 2)
