"""Layers: what two directions become, and where a layer starts from."""

import copy
import pickle

import numpy as np
import pytest
from test_layers import LAYERS, as_tuple, every_layer, states

import fastrnn
from fastrnn import functional as F

T, B, I, H = 4, 3, 2, 5
LENGTHS = [4, 0, 3]
MERGES = {
    "concat": lambda f, b: np.concatenate([f, b], axis=2),
    "sum": lambda f, b: f + b,
    "mul": lambda f, b: f * b,
    "ave": lambda f, b: 0.5 * (f + b),
}
every_merge = pytest.mark.parametrize("merge", [*MERGES, None])


def arrays(y):
    return y if isinstance(y, tuple) else (y,)


def assert_gradients(make, x, state=None, lengths=None):
    """All gradients of `make()`, a layer that is the same each time, against finite differences."""
    layer, rng = make(), np.random.default_rng(7)
    y, _, cache = layer.forward(x, state, lengths)
    dy, dend = tuple(rng.standard_normal(a.shape) for a in arrays(y)), states(layer, B, rng)
    dx, dstate = layer.backward(cache, dy if isinstance(y, tuple) else dy[0], dend)

    def loss(x=x, state=state, **changed):
        twin = make()
        for name, value in changed.items():
            setattr(twin, name, value)
        y, end, _ = twin.forward(x, state, lengths)
        pairs = zip((*arrays(y), *as_tuple(end)), (*dy, *as_tuple(dend)), strict=True)
        return sum(np.sum(a * b) for a, b in pairs)

    def check(analytic, value, with_value):
        for index in rng.permutation(value.size)[:6]:
            at = np.unravel_index(index, value.shape)
            up, down = value.copy(), value.copy()
            up[at] += 1e-6
            down[at] -= 1e-6
            numeric = (loss(**with_value(up)) - loss(**with_value(down))) / 2e-6
            assert analytic[at] == pytest.approx(numeric, rel=1e-6, abs=1e-8)

    check(dx, x, lambda v: {"x": v})
    if isinstance(state, np.ndarray):
        check(dstate, state, lambda v: {"state": v})
    for name, value in layer.params.items():
        check(layer.grads[name], value, lambda v, name=name: {name: v})


# --- merge ------------------------------------------------------------------------------------------------------------


@every_merge
@pytest.mark.parametrize("batch_first", [False, True])
def test_merged_directions_are_the_functions_merged(merge, batch_first):
    rng = np.random.default_rng(0)
    depth = 1 if merge is None else 2
    layer = fastrnn.GRU(
        I, H, num_layers=depth, bidirectional=True, merge=merge, batch_first=batch_first, dtype=np.float64, rng=1
    )
    assert layer.output_size == (2 * H if merge == "concat" else H)
    x, h0 = rng.standard_normal((T, B, I)), states(layer, B, rng)
    y, end = layer(x.transpose(1, 0, 2) if batch_first else x, h0, LENGTHS)
    y = tuple(a.transpose(1, 0, 2) if batch_first else a for a in arrays(y))
    level = x
    for k in range(depth):
        outputs = []
        for d, suffix in enumerate((f"_l{k}", f"_l{k}_reverse")):
            weights = [layer.params[name + suffix] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            out, h, _ = F.gru_forward(level, h0[2 * k + d], *weights, lengths=LENGTHS, reverse=d == 1)
            np.testing.assert_array_equal(end[2 * k + d], h)
            outputs.append(out)
        level = outputs if merge is None else MERGES[merge](*outputs)
    for a, b in zip(y, level if merge is None else (level,), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-15)


@every_layer
@every_merge
def test_gradients_of_merged_directions_against_finite_differences(kind, merge):
    batch_first = merge in ("mul", None)

    def make():
        depth, dropout = (1, 0.0) if merge is None else (2, 0.4)
        return LAYERS[kind](
            I, H, num_layers=depth, dropout=dropout, bidirectional=True, merge=merge, batch_first=batch_first,
            dtype=np.float64, rng=np.random.default_rng(5),
        )  # fmt: skip

    rng = np.random.default_rng(3)
    x = rng.standard_normal((B, T, I) if batch_first else (T, B, I))
    assert_gradients(make, x, states(make(), B, rng), [4, 1, 3])


def test_padding_does_not_come_through_a_product():
    layer = fastrnn.LSTM(I, H, bidirectional=True, merge="mul", dtype=np.float64, rng=1)
    x = np.random.default_rng(0).standard_normal((T, B, I))
    x[3:, 2] = x[:, 1] = np.nan
    y, _, cache = layer.forward(x, None, LENGTHS)
    assert not y[3:, 2].any()
    dy = np.ones_like(y)
    dy[3:, 2] = dy[:, 1] = np.nan
    dx, _ = layer.backward(cache, dy)
    assert np.isfinite(dx).all()
    assert all(np.isfinite(grad).all() for grad in layer.grads.values())


@every_layer
@every_merge
@pytest.mark.parametrize("engine", ["native", "blas", "reference"])
def test_frozen_merged_layers(kind, merge, engine):
    rng = np.random.default_rng(0)
    depth = 1 if merge is None else 2
    layer = LAYERS[kind](I, H, num_layers=depth, bidirectional=True, merge=merge, rng=1)
    x, state = rng.standard_normal((T, B, I)).astype(np.float32), states(layer, B, rng)
    with fastrnn.config_context(engine=engine):
        expected, end = layer(x, state, LENGTHS)
        fast = layer.freeze()
        fast = pickle.loads(pickle.dumps(fast))
        y, frozen_end = fast(x, state, LENGTHS)
        for a, b in zip((*arrays(y), *as_tuple(frozen_end)), (*arrays(expected), *as_tuple(end)), strict=True):
            np.testing.assert_array_equal(a, b)
        out = tuple(np.full(a.shape, np.nan, np.float32) for a in arrays(expected))
        out = out if merge is None else out[0]
        y, _ = fast(x, state, LENGTHS, out=out)
        assert y is out
        for a, b in zip(arrays(out), arrays(expected), strict=True):
            np.testing.assert_array_equal(a, b)
        if merge is None:
            with pytest.raises(TypeError, match=r"^out: ndarray, expected the tuple \(forward, backward\)"):
                fast(x, out=out[0])
        else:
            with pytest.raises(ValueError, match=r"^out: shape"):
                fast(x, out=np.zeros((T, B, 3 * H), np.float32))


def test_bad_merges():
    for arguments, message in (
        ({"merge": "max"}, r"^merge: 'max', expected one of 'concat', 'sum', 'mul', 'ave', None"),
        ({"merge": "sum", "bidirectional": False}, r"^merge: 'sum', expected 'concat' for a layer that is not"),
        ({"merge": None, "bidirectional": False}, r"^merge: None, expected 'concat' for a layer that is not"),
        ({"merge": None, "num_layers": 2}, r"^merge: None, expected one output for the layer above"),
    ):
        with pytest.raises(ValueError, match=message):
            fastrnn.LSTM(I, H, **({"bidirectional": True} | arguments))
    x = np.zeros((T, B, I), np.float32)
    layer = fastrnn.GRU(I, H, bidirectional=True, merge="sum")
    _, _, cache = layer.forward(x)
    with pytest.raises(ValueError, match=r"^dy: shape \(4, 3, 10\), expected \(T, B, H\) = \(4, 3, 5\)"):
        layer.backward(cache, np.zeros((T, B, 2 * H), np.float32))
    layer = fastrnn.GRU(I, H, bidirectional=True, merge=None)
    y, _, cache = layer.forward(x)
    with pytest.raises(TypeError, match=r"^dy: ndarray, expected the tuple \(forward, backward\)"):
        layer.backward(cache, y[0])
    with pytest.raises(ValueError, match=r"^dy\[1\]: shape"):
        layer.backward(cache, (y[0], y[1][1:]))
    dx, _ = layer.backward(cache, (None, y[1]))
    assert dx.any()
    _, _, cache = layer.forward(x)
    dx, _ = layer.backward(cache, None)
    assert not dx.any()


# --- stateful ---------------------------------------------------------------------------------------------------------


@every_layer
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_stateful_layer_starts_where_it_ended(kind, bidirectional):
    rng = np.random.default_rng(0)
    options = {"num_layers": 2, "bidirectional": bidirectional, "dtype": np.float64, "rng": 1}
    layer, plain = LAYERS[kind](I, H, stateful=True, **options), LAYERS[kind](I, H, **options)
    assert list(layer.state_dict()) == list(plain.state_dict())
    assert layer.state is None
    state = None
    for step, steps in enumerate((3, 1, 4)):
        x = rng.standard_normal((steps, B, I))
        expected, state, plain_cache = plain.forward(x, state)
        y, end, *cache = layer(x) if step == 1 else layer.forward(x)
        np.testing.assert_array_equal(y, expected)
        for a, b, c in zip(as_tuple(end), as_tuple(state), as_tuple(layer.state), strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(c, b)
            a[...] = np.nan  # its caller's, as is what reading it gave
            c[...] = np.nan
    dx, dstate = layer.backward(*cache, np.ones_like(y))
    plain_dx, plain_dstate = plain.backward(plain_cache, np.ones_like(y))
    np.testing.assert_array_equal(dx, plain_dx)
    for a, b in zip(as_tuple(dstate), as_tuple(plain_dstate), strict=True):
        np.testing.assert_array_equal(a, b)


@every_layer
def test_a_remembered_state_is_set_and_reset(kind):
    rng = np.random.default_rng(0)
    layer, plain = LAYERS[kind](I, H, stateful=True, rng=1), LAYERS[kind](I, H, rng=1)
    x, state = rng.standard_normal((T, B, I)).astype(np.float32), states(layer, B, rng)
    layer.reset_state(mask=[True] * B)  # nothing there yet
    layer.state = state
    np.testing.assert_array_equal(layer(x)[0], plain(x, state)[0])
    layer.state = state
    layer.reset_state(mask=[True, False, True])
    for a, b in zip(as_tuple(layer.state), as_tuple(state), strict=True):
        np.testing.assert_array_equal(a[:, 1], b[:, 1])
        assert not a[:, [0, 2]].any()
        assert b[:, [0, 2]].all()  # not written into
    np.testing.assert_array_equal(layer(x, state)[0], plain(x, state)[0])  # one that is given counts
    layer.reset_state()
    assert layer.state is None
    np.testing.assert_array_equal(layer(x[:, :2])[0], plain(x[:, :2])[0])  # another batch size
    layer.state = None
    np.testing.assert_array_equal(layer(x)[0], plain(x)[0])
    layer.state = (state[0], None) if kind == "lstm" else state
    assert as_tuple(layer.state)[-1].any() == (kind != "lstm")
    again = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(again(x)[0], layer(x)[0])


def test_a_frozen_stateful_layer_remembers_nothing():
    layer, plain = (fastrnn.GRU(I, H, stateful=stateful, rng=1) for stateful in (True, False))
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype(np.float32)
    layer(x)
    fast = layer.freeze()
    for _ in range(2):
        np.testing.assert_array_equal(fast(x)[0], plain.freeze()(x)[0])
    assert not fast.stream(B).state.any()
    assert layer.state.any()


def test_bad_remembered_states():
    layer = fastrnn.LSTM(I, H, stateful=True)
    x = np.zeros((T, B, I), np.float32)
    layer(x)
    before = layer.state
    with pytest.raises(ValueError, match=r"^x: batch of 2, expected 3 as in the remembered state; reset_state\(\)"):
        layer(x[:, :2])
    with pytest.raises(ValueError, match=r"^mask: bool \(2,\), expected bool \(B,\) = \(3,\)"):
        layer.reset_state([True, False])
    with pytest.raises(ValueError, match=r"^mask: int64 \(3,\)"):
        layer.reset_state(np.array([0, 1, 0]))
    h = np.zeros((1, B, H), np.float32)
    for bad in (h, (h, h[:, :2]), (h, h.astype(np.float64)), (h[0], h[0]), 3):
        with pytest.raises((ValueError, TypeError), match=r"^state"):
            layer.state = bad
    for a, b in zip(before, layer.state, strict=True):
        np.testing.assert_array_equal(a, b)
    plain = fastrnn.LSTM(I, H)
    with pytest.raises(ValueError, match=r"^state: the layer remembers none"):
        plain.state = (h, h)
    with pytest.raises(ValueError, match=r"^reset_state: the layer remembers no state"):
        plain.reset_state()
    with pytest.raises(ValueError, match=r"^stateful, learn_initial_state: both True"):
        fastrnn.LSTM(I, H, stateful=True, learn_initial_state=True)


# --- learned ----------------------------------------------------------------------------------------------------------


def learned(kind, **options):
    """A layer with initial states that are not zeros, and the state that they are for B sequences."""
    layer = LAYERS[kind](I, H, learn_initial_state=True, **options)
    rng = np.random.default_rng(9)
    names = [name for name in layer.params if name[1:4] == "0_l"]
    for name in names:
        assert not layer.params[name].any()
        setattr(layer, name, rng.standard_normal(H))
    state = tuple(
        np.stack([np.tile(layer.params[name], (B, 1)) for name in names if name[0] == state])
        for state in layer.state_names
    )
    return layer, state if len(state) > 1 else state[0]


def test_names_of_learned_states():
    layer, _ = learned("lstm", num_layers=2, bidirectional=True)
    names = {f"{state}0_l{k}{suffix}" for state in "hc" for k in (0, 1) for suffix in ("", "_reverse")}
    plain = fastrnn.LSTM(I, H, num_layers=2, bidirectional=True)
    assert set(layer.state_dict()) - set(plain.state_dict()) == names
    assert layer.c0_l1_reverse.shape == (H,)
    twin, _ = learned("lstm", num_layers=2, bidirectional=True, rng=0)
    twin.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(twin.h0_l0, layer.h0_l0)


@every_layer
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=str)
def test_gradients_of_learned_states_against_finite_differences(kind, bidirectional, lengths):
    x = np.random.default_rng(3).standard_normal((T, B, I))

    def make():
        return learned(kind, num_layers=2, bidirectional=bidirectional, dtype=np.float64, rng=1)[0]

    assert_gradients(make, x, None, lengths)


@every_layer
@pytest.mark.parametrize("engine", ["native", "blas", "reference"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_learned_states_are_where_all_starts(kind, engine, batch_first):
    layer, state = learned(kind, num_layers=2, batch_first=batch_first, dtype=np.float64, rng=1)
    plain = LAYERS[kind](I, H, num_layers=2, batch_first=batch_first, dtype=np.float64, rng=1)
    x = np.random.default_rng(0).standard_normal((T, B, I))
    given = x.transpose(1, 0, 2) if batch_first else x
    other = states(layer, B, np.random.default_rng(1))
    with fastrnn.config_context(engine=engine):
        for lengths in (None, LENGTHS):
            expected, end = plain(given, state, lengths)
            fast = layer.freeze()
            for call in (layer, fast, copy.deepcopy(layer)):
                y, own_end = call(given, None, lengths)
                np.testing.assert_allclose(y, expected, rtol=0, atol=1e-14)
                for a, b in zip(as_tuple(own_end), as_tuple(end), strict=True):
                    np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)
                np.testing.assert_allclose(call(given, other)[0], plain(given, other)[0], rtol=0, atol=1e-14)
        stream = fast.stream(B)
        expected = plain(given, state)[0]
        expected = expected.transpose(1, 0, 2) if batch_first else expected
        for reset in (lambda: None, stream.reset, lambda: stream.reset([True] * B), lambda: set_none(stream)):
            reset()
            for a, b in zip(as_tuple(stream.state), as_tuple(state), strict=True):
                np.testing.assert_array_equal(a, b)
            for x_t, y_t in zip(x, expected, strict=True):
                np.testing.assert_allclose(stream.step(x_t), y_t, rtol=0, atol=1e-14)


def set_none(stream):
    stream.state = None


def test_a_given_state_leaves_the_learned_one_its_gradient():
    layer, (h0, c0) = learned("lstm", dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((T, B, I))
    y, _, cache = layer.forward(x, (h0 + 1, None))
    np.testing.assert_array_equal(y, layer(x, (h0 + 1, c0))[0])
    _, (_, dc0) = layer.backward(cache, np.ones_like(y))
    assert not layer.grads["h0_l0"].any()
    np.testing.assert_allclose(layer.grads["c0_l0"], dc0[0].sum(axis=0), rtol=1e-14)
    layer.zero_grad()
    y, _, cache = layer.forward(x)
    layer.backward(cache, np.ones_like(y), need="x")
    assert not any(grad.any() for grad in layer.grads.values())


def test_learned_states_of_a_stream_reset_by_mask():
    layer, state = learned("gru")
    stream = layer.freeze().stream(B)
    for _ in range(2):
        stream.step(np.ones((B, I), np.float32))
    before = stream.state
    stream.reset([False, True, False])
    np.testing.assert_array_equal(stream.state[:, 1], state[:, 1])
    np.testing.assert_array_equal(stream.state[:, [0, 2]], before[:, [0, 2]])
