"""The layers: composition, gradients, dropout, states, PyTorch's parameters."""

import numpy as np
import pytest

import fastrnn
from fastrnn import functional as F

LAYERS = {
    "rnn": lambda *a, **k: fastrnn.RNN(*a, **k),
    "relu": lambda *a, **k: fastrnn.RNN(*a, nonlinearity="relu", **k),
    "lstm": lambda *a, **k: fastrnn.LSTM(*a, **k),
    "gru": lambda *a, **k: fastrnn.GRU(*a, **k),
    "gru_before": lambda *a, **k: fastrnn.GRU(*a, reset_after=False, **k),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)


def states(layer, B, rng):
    parts = tuple(
        rng.standard_normal((layer.directions * layer.num_layers, B, layer.hidden_size)).astype(layer.dtype)
        for _ in layer.state_names
    )
    return parts if len(parts) > 1 else parts[0]


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


def test_a_stack_is_the_functions_one_after_the_other():
    rng = np.random.default_rng(1)
    layer = fastrnn.LSTM(3, 5, num_layers=2, bidirectional=True, dtype=np.float64, rng=2)
    x, (h0, c0), lengths = rng.standard_normal((6, 4, 3)), states(layer, 4, rng), [6, 0, 2, 5]
    y, (h_n, c_n) = layer(x, (h0, c0), lengths)

    p = layer.params
    level = x
    for k in range(2):
        outputs = []
        for d, suffix in enumerate((f"_l{k}", f"_l{k}_reverse")):
            weights = [p[name + suffix] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            s = 2 * k + d
            out, h, c, _ = F.lstm_forward(level, h0[s], c0[s], *weights, lengths=lengths, reverse=d == 1)
            np.testing.assert_array_equal(h_n[s], h)
            np.testing.assert_array_equal(c_n[s], c)
            outputs.append(out)
        level = np.concatenate(outputs, axis=2)
    np.testing.assert_allclose(y, level, rtol=0, atol=1e-15)


@every_layer
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_gradients_against_finite_differences(kind, bidirectional, batch_first):
    T, B, I, H = 4, 3, 2, 5
    rng = np.random.default_rng(3)

    def make():
        return LAYERS[kind](
            I, H, num_layers=2, dropout=0.4, bidirectional=bidirectional, batch_first=batch_first,
            dtype=np.float64, rng=np.random.default_rng(5),
        )  # fmt: skip

    layer = make()
    x = rng.standard_normal((B, T, I) if batch_first else (T, B, I))
    state = states(layer, B, rng)
    lengths = [4, 1, 3]
    y, _end, cache = layer.forward(x, state, lengths)
    dy = rng.standard_normal(y.shape)
    dend = states(layer, B, rng)
    dx, dstate = layer.backward(cache, dy, dend)

    def loss(x=x, state=state, **changed):
        twin = make()  # the same parameters, and the same dropout masks
        for name, value in changed.items():
            setattr(twin, name, value)
        y, end, _ = twin.forward(x, state, lengths)
        total = np.sum(y * dy)
        return total + sum(np.sum(a * b) for a, b in zip(as_tuple(end), as_tuple(dend), strict=True))

    def check(analytic, value, with_value):
        for index in rng.permutation(value.size)[:12]:
            at = np.unravel_index(index, value.shape)
            up, down = value.copy(), value.copy()
            up[at] += 1e-6
            down[at] -= 1e-6
            numeric = (loss(**with_value(up)) - loss(**with_value(down))) / 2e-6
            assert analytic[at] == pytest.approx(numeric, rel=1e-6, abs=1e-8)

    check(dx, x, lambda v: {"x": v})
    for k, (d, s) in enumerate(zip(as_tuple(dstate), as_tuple(state), strict=True)):
        rest = list(as_tuple(state))

        def replaced(v, k=k, rest=rest):
            parts = tuple(v if j == k else other for j, other in enumerate(rest))
            return {"state": parts if len(parts) > 1 else parts[0]}

        check(d, s, replaced)
    for name, value in layer.params.items():
        check(layer.grads[name], value, lambda v, name=name: {name: v})


def test_backward_adds_into_the_gradients():
    rng = np.random.default_rng(0)
    layer = fastrnn.GRU(3, 4, dtype=np.float64, rng=1)
    x = rng.standard_normal((5, 2, 3))

    def once():
        y, _, cache = layer.forward(x)
        layer.backward(cache, np.ones_like(y))

    once()
    first = {name: grad.copy() for name, grad in layer.grads.items()}
    once()
    for name, grad in layer.grads.items():
        np.testing.assert_allclose(grad, 2 * first[name], rtol=1e-12)
    layer.zero_grad()
    assert not any(grad.any() for grad in layer.grads.values())


def test_dropout_drops_between_layers_and_only_in_forward():
    layer = fastrnn.RNN(3, 400, num_layers=2, dropout=0.25, rng=0)
    x = np.random.default_rng(0).standard_normal((2, 50, 3)).astype(np.float32)
    plain, _ = layer(x)
    again, _ = layer(x)
    np.testing.assert_array_equal(plain, again)
    _, _, cache = layer.forward(x)
    mask = cache.masks[1]
    assert cache.masks[0] is None
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    assert np.mean(mask == 0) == pytest.approx(0.25, abs=0.01)


def test_dropout_of_everything_leaves_the_second_layer_its_biases():
    layer = fastrnn.RNN(3, 4, num_layers=2, dropout=1.0, rng=0)
    a, _, _ = layer.forward(np.ones((3, 2, 3), np.float32))
    b, _, _ = layer.forward(np.zeros((3, 2, 3), np.float32))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", [fastrnn.RNN, fastrnn.LSTM, fastrnn.IndRNN, fastrnn.MinGRU])
def test_dropout_on_a_single_layer_warns_where_it_is_made(kind):
    with pytest.warns(UserWarning, match=r"^dropout: it acts between layers") as caught:
        kind(2, 3, dropout=0.5)
    assert caught[0].filename == __file__


@every_layer
def test_parameters_start_uniform_and_seeded(kind):
    layer = LAYERS[kind](30, 64, rng=7)
    twin = LAYERS[kind](30, 64, rng=7)
    for name, value in layer.params.items():
        assert value.dtype == np.float32
        assert np.abs(value).max() <= 1 / 8
        np.testing.assert_array_equal(value, twin.params[name])
    assert np.abs(layer.weight_hh_l0).max() > 0.12
    assert abs(layer.weight_hh_l0.mean()) < 0.005


def test_assigning_a_parameter_writes_into_it():
    layer = fastrnn.RNN(2, 3, rng=0)
    array = layer.weight_ih_l0
    layer.weight_ih_l0 = np.full((3, 2), 0.5)
    assert layer.weight_ih_l0 is array
    np.testing.assert_array_equal(array, 0.5)
    with pytest.raises(ValueError, match=r"^weight_ih_l0: shape \(2, 3\), expected \(3, 2\)"):
        layer.weight_ih_l0 = np.zeros((2, 3))
    with pytest.raises(AttributeError, match="weight_ih_l1"):
        _ = layer.weight_ih_l1


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind != "gru_before"])  # which PyTorch does not have
@pytest.mark.parametrize("batch_first", [False, True])
def test_like_torch(kind, batch_first):
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of this test, is not installed")
    T, B, I, H = 7, 4, 3, 6
    name = {"rnn": "RNN", "relu": "RNN", "lstm": "LSTM", "gru": "GRU"}[kind]
    extra = {"nonlinearity": "relu"} if kind == "relu" else {}
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(
        I, H, num_layers=3, batch_first=batch_first, bidirectional=True, dtype=torch.float64, **extra
    )
    ours = LAYERS[kind](I, H, num_layers=3, batch_first=batch_first, bidirectional=True, dtype=np.float64)
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.params) == list(theirs.state_dict())

    rng = np.random.default_rng(0)
    x = rng.standard_normal((B, T, I) if batch_first else (T, B, I))
    state = states(ours, B, rng)
    tx = torch.tensor(x, requires_grad=True)
    tstate = tuple(torch.tensor(s, requires_grad=True) for s in as_tuple(state))
    ty, tend = theirs(tx, tstate if len(tstate) > 1 else tstate[0])
    y, end, cache = ours.forward(x, state)
    np.testing.assert_allclose(y, ty.detach().numpy(), atol=1e-13)
    for a, b in zip(as_tuple(end), as_tuple(tend), strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), atol=1e-13)

    dy, dend = rng.standard_normal(y.shape), states(ours, B, rng)
    dx, dstate = ours.backward(cache, dy, dend)
    torch.autograd.backward([ty, *as_tuple(tend)], [torch.tensor(dy), *(torch.tensor(d) for d in as_tuple(dend))])
    np.testing.assert_allclose(dx, tx.grad.numpy(), atol=1e-12)
    for a, b in zip(as_tuple(dstate), tstate, strict=True):
        np.testing.assert_allclose(a, b.grad.numpy(), atol=1e-12)
    for parameter, value in theirs.named_parameters():
        np.testing.assert_allclose(ours.grads[parameter], value.grad.numpy(), atol=1e-11, err_msg=parameter)


def test_state_dict_round_trip_and_refusals():
    layer = fastrnn.LSTM(3, 4, num_layers=2, rng=0)
    saved = layer.state_dict()
    saved["weight_ih_l0"][...] = 9  # a copy
    assert layer.weight_ih_l0.max() < 1
    other = fastrnn.LSTM(3, 4, num_layers=2, rng=1)
    other.load_state_dict(layer.state_dict())
    for name, value in layer.params.items():
        np.testing.assert_array_equal(other.params[name], value)

    before = other.state_dict()
    good = layer.state_dict()
    for bad, message in (
        ({k: v for k, v in good.items() if k != "bias_hh_l1"}, r"missing \['bias_hh_l1'\]"),
        (good | {"bias_hh_l2": good["bias_hh_l1"]}, r"unknown \['bias_hh_l2'\]"),
        (good | {"bias_hh_l1": np.zeros(3, np.float32)}, r"^bias_hh_l1: shape \(3,\), expected \(16,\)"),
        (good | {"bias_hh_l1": np.zeros(16, np.int32)}, r"^bias_hh_l1: dtype int32"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            other.load_state_dict(bad)
        for name, value in before.items():
            np.testing.assert_array_equal(other.params[name], value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": 0}, r"^input_size: 0"),
        ({"hidden_size": 2.5}, r"^hidden_size: 2.5"),
        ({"num_layers": True}, r"^num_layers: True"),
        ({"dropout": float("nan")}, r"^dropout: nan"),
        ({"dropout": 1.5}, r"^dropout: 1.5"),
        ({"dtype": np.int32}, r"^dtype: int32"),
        ({"nonlinearity": "gelu"}, r"^nonlinearity: 'gelu', expected one of 'tanh', 'relu'"),
    ],
)
def test_bad_constructor_arguments(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fastrnn.RNN(**({"input_size": 3, "hidden_size": 4} | arguments))


def test_bad_calls():
    layer = fastrnn.LSTM(3, 4, num_layers=2, rng=0)
    x = np.zeros((5, 2, 3), np.float32)
    h = np.zeros((2, 2, 4), np.float32)
    for arguments, message in (
        ((x[0],), r"^x: shape \(2, 3\), expected \(T, B, I\) with I = 3"),
        ((x[:, :, :2],), r"^x: shape \(5, 2, 2\)"),
        ((x.astype(np.float64),), r"^x: dtype float64, expected float32"),
        ((x, h), r"^state: ndarray, expected the tuple \(h, c\)"),
        ((x, (h, h[:1])), r"^state\[1\]: shape \(1, 2, 4\), expected \(D\*num_layers, B, H\)"),
        ((x, None, [5, 6]), r"^lengths: values from 5 to 6, expected 0 to T = 5"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            layer(*arguments)


def test_a_cache_serves_its_layer_once():
    layer, other = fastrnn.GRU(3, 4, rng=0), fastrnn.GRU(3, 4, rng=0)
    y, _, cache = layer.forward(np.ones((5, 2, 3), np.float32))
    with pytest.raises(ValueError, match=r"^cache: it is of another layer"):
        other.backward(cache, np.ones_like(y))
    with pytest.raises(TypeError, match=r"^cache: NoneType"):
        layer.backward(None, np.ones_like(y))
    with pytest.raises(ValueError, match=r"^dy: shape \(4, 2, 4\), expected \(T, B, D\*H\) = \(5, 2, 4\)"):
        layer.backward(cache, np.ones_like(y)[1:])
    layer.backward(cache, np.ones_like(y))
    with pytest.raises(ValueError, match=r"^cache: it has been used"):
        layer.backward(cache, np.ones_like(y))
