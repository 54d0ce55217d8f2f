"""Frozen layers and streams."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import helpers
import numpy as np
import pytest
from test_layers import LAYERS, as_tuple, every_layer, states

import fastrnn
from fastrnn._core import kernels


@every_layer
def test_a_frozen_layer_is_the_layer_at_that_moment(kind):
    rng = np.random.default_rng(0)
    layer = LAYERS[kind](3, 5, num_layers=2, bidirectional=True, rng=1)
    x, state, lengths = rng.standard_normal((6, 4, 3)).astype(np.float32), states(layer, 4, rng), [3, 6, 0, 1]
    expected, end = layer(x, state, lengths)
    fast = layer.freeze()
    for value in layer.params.values():
        value += 1
    y, frozen_end = fast(x, state, lengths)
    np.testing.assert_array_equal(y, expected)
    for a, b in zip(as_tuple(frozen_end), as_tuple(end), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_frozen_layer_tells_its_sizes():
    frozen = fastrnn.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True, dtype=np.float64).freeze()
    assert (frozen.input_size, frozen.hidden_size, frozen.output_size, frozen.num_layers) == (3, 5, 10, 2)
    assert (frozen.bidirectional, frozen.batch_first, frozen.dtype) == (True, True, np.float64)
    with pytest.raises(AttributeError, match="cannot be changed"):
        frozen.input_size = 4


@every_layer
def test_weights_in_any_order(kind):
    """Those in Fortran order were read as if they were not."""
    layer = LAYERS[kind](3, 5, rng=1)
    x = np.random.default_rng(0).standard_normal((6, 4, 3)).astype(np.float32)
    expected, _ = layer(x)
    for name, value in layer.params.items():
        layer.params[name] = np.asfortranarray(value)
    np.testing.assert_array_equal(layer.freeze()(x)[0], expected)
    np.testing.assert_array_equal(layer.freeze().stream(4).step(x[0]), expected[0])


def test_frozen_means_frozen():
    fast = fastrnn.LSTM(3, 5, rng=1).freeze()
    with pytest.raises(AttributeError, match="frozen"):
        fast.weight_ih_l0 = 1
    values = fast.state_dict()
    values["weight_ih_l0"] += 1
    assert not np.array_equal(values["weight_ih_l0"], fast.state_dict()["weight_ih_l0"])


@pytest.mark.parametrize("batch_first", [False, True])
def test_out(batch_first):
    fast = fastrnn.GRU(3, 5, bidirectional=True, batch_first=batch_first, rng=1).freeze()
    x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    expected, _ = fast(x)
    out = np.full(expected.shape, np.nan, np.float32)
    y, _ = fast(x, out=out)
    assert y is out
    np.testing.assert_array_equal(out, expected)
    strided = np.full((4, 2, 30), np.nan, np.float32)[:, :, ::3]
    fast(x, out=strided)
    np.testing.assert_array_equal(strided, expected)
    frozen_out = out.copy()
    frozen_out.flags.writeable = False
    for bad, message in (
        (out[1:], r"^out: shape"),
        (out.astype(np.float64), r"^out: float64"),
        ([1.0], r"^out: list"),
        (frozen_out, r"^out: read-only"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            fast(x, out=bad)


def test_out_may_be_the_input():
    fast = fastrnn.GRU(5, 5, num_layers=2, rng=1).freeze()
    x = np.random.default_rng(0).standard_normal((4, 2, 5)).astype(np.float32)
    expected, _ = fast(x)
    y, _ = fast(x, out=x)
    assert y is x
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (1, 1, 3), (300, 1, 3), (40, 9, 3)])
@pytest.mark.parametrize("batch_first", [False, True])
@every_layer
def test_a_frozen_layer_of_any_size_is_the_layer(kind, batch_first, shape):
    rng = np.random.default_rng(0)
    layer = LAYERS[kind](3, 40, num_layers=3, batch_first=batch_first, rng=1)
    x = rng.standard_normal(shape).astype(np.float32)
    state = states(layer, shape[1], rng)
    given = [s.copy() for s in as_tuple(state)]
    x = np.ascontiguousarray(x.transpose(1, 0, 2)) if batch_first else x
    with fastrnn.config_context(engine="native"):
        expected, end = layer(x, state)
        y, frozen_end = layer.freeze()(x, state)
    np.testing.assert_array_equal(y, expected)
    for a, b in zip(as_tuple(frozen_end), as_tuple(end), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(as_tuple(state), given, strict=True):
        np.testing.assert_array_equal(a, b)  # not written into


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_bad_states(kind):
    layer = LAYERS[kind](3, 4, rng=1)
    fast, x, h = layer.freeze(), np.zeros((5, 2, 3), np.float32), np.zeros((1, 2, 4), np.float32)
    bad = [(h, h, h), h[:, :1], h.astype(np.float64), 3, "state", (h, None, h)] + ([h] if kind == "lstm" else [(h,)])
    for state in bad:
        with pytest.raises((ValueError, TypeError), match=r"^state"):
            fast(x, state)
    strided = np.zeros((1, 2, 8), np.float32)[:, :, ::2]
    y, _ = fast(x, (strided, None) if kind == "lstm" else strided)
    np.testing.assert_array_equal(y, fast(x)[0])


@pytest.mark.parametrize("lengths", [None, [2, 4]])
def test_arrays_at_odd_addresses(lengths):
    layer = fastrnn.LSTM(3, 5, num_layers=2, rng=1)
    rng = np.random.default_rng(0)
    x, state = rng.standard_normal((4, 2, 3)).astype(np.float32), states(layer, 2, rng)
    odd_x, odd_state = helpers.shifted(x, 1), tuple(helpers.shifted(s, 1) for s in state)
    np.testing.assert_array_equal(layer.freeze()(odd_x, odd_state, lengths)[0], layer(x, state, lengths)[0])


def test_many_threads_call_one_frozen_layer():
    fast = fastrnn.LSTM(7, 33, num_layers=2, rng=1).freeze()
    inputs = [np.random.default_rng(k).standard_normal((9, 1 + k % 4, 7)).astype(np.float32) for k in range(40)]
    alone = [fast(x)[0] for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda x: fast(x)[0], inputs))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


def test_pickle():
    fast = fastrnn.GRU(3, 5, num_layers=2, reset_after=False, rng=1).freeze()
    x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    again = pickle.loads(pickle.dumps(fast))
    np.testing.assert_array_equal(again(x)[0], fast(x)[0])
    with pytest.raises(AttributeError, match="frozen"):
        again.anything = 1


@every_layer
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_stream_gives_what_the_whole_sequence_gives(kind, batch_first):
    rng = np.random.default_rng(0)
    layer = LAYERS[kind](3, 5, num_layers=2, batch_first=batch_first, rng=1)
    fast = layer.freeze()
    x = rng.standard_normal((6, 4, 3)).astype(np.float32)
    expected, end = fast(x.transpose(1, 0, 2) if batch_first else x)
    if batch_first:
        expected = expected.transpose(1, 0, 2)
    stream = fast.stream(batch_size=4)
    for t in range(6):
        np.testing.assert_allclose(stream.step(x[t]), expected[t], rtol=0, atol=1e-6)
    for a, b in zip(as_tuple(stream.state), as_tuple(end), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("engine", ["native", "blas", "reference"])
@every_layer
def test_a_stream_on_every_engine(kind, engine):
    rng = np.random.default_rng(0)
    layer = LAYERS[kind](3, 21, num_layers=2, dtype=np.float64, rng=1)
    x, state = rng.standard_normal((5, 2, 3)), states(layer, 2, rng)
    expected, end = layer(x, state)
    with fastrnn.config_context(engine=engine):
        stream = layer.freeze().stream(2)
        stream.state = state
        outputs = [stream.step(x_t).copy() for x_t in x]
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-13)
    for a, b in zip(as_tuple(stream.state), as_tuple(end), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)


@every_layer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_avx2_and_avx512_give_the_same_bits(kind, dtype):
    """Which takes that both use multiply-add at the same places; a baseline without it cannot."""
    if not {"avx512", "avx2"} <= set(kernels.available_isas()):
        pytest.skip("this CPU does not have both")
    rng = np.random.default_rng(0)
    fast = LAYERS[kind](5, 75, num_layers=2, dtype=dtype, rng=1).freeze()
    x = 3 * rng.standard_normal((9, 7, 5)).astype(dtype)
    results = []
    for isa in ("avx512", "avx2"):
        with fastrnn.config_context(isa=isa):
            results.append(fast(x)[0])
    np.testing.assert_array_equal(*results)


@every_layer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("H", [37, 512])  # rows of 512 units' gates have a gap behind them
def test_native_bits_do_not_depend_on_batch_padding_chunks_or_streaming(kind, dtype, H):
    rng = np.random.default_rng(0)
    layer = LAYERS[kind](5, H, num_layers=2, dtype=dtype, rng=1)
    lengths = np.array([9, 0, 4, 9, 1, 7, 6])
    x = rng.standard_normal((9, 7, 5)).astype(dtype)
    with fastrnn.config_context(engine="native"):
        fast = layer.freeze()
        together, _ = fast(x, lengths=lengths)
        live, _ = layer(x, lengths=lengths)
        np.testing.assert_array_equal(live, together)
        for b, length in enumerate(lengths):
            alone, _ = fast(x[:length, b : b + 1])
            np.testing.assert_array_equal(alone[:, 0], together[:length, b])
            padded, _ = fast(np.pad(x[:length, b : b + 1], ((0, 5), (0, 2), (0, 0))), lengths=[length, 0, 0])
            np.testing.assert_array_equal(padded[:length, 0], together[:length, b])
            if length:
                cut = int(rng.integers(0, length + 1))
                first, state = fast(x[:cut, b : b + 1])
                second, _ = fast(x[cut:length, b : b + 1], state)
                np.testing.assert_array_equal(np.concatenate([first, second])[:, 0], together[:length, b])
            stream = fast.stream()
            for t in range(length):
                np.testing.assert_array_equal(stream.step(x[t, b : b + 1])[0], together[t, b])


@every_layer
def test_a_stream_continues_from_a_state_and_resets_by_mask(kind):
    rng = np.random.default_rng(0)
    layer = LAYERS[kind](3, 5, num_layers=2, rng=1)
    fast = layer.freeze()
    x, state = rng.standard_normal((2, 4, 3)).astype(np.float32), states(layer, 4, rng)
    stream = fast.stream(4)
    stream.state = state
    np.testing.assert_array_equal(as_tuple(stream.state)[0], as_tuple(state)[0])
    np.testing.assert_allclose(stream.step(x[0]), fast(x[:1], state)[0][0], rtol=0, atol=1e-6)

    before = [s.copy() for s in as_tuple(stream.state)]
    stream.reset(mask=[True, False, True, False])
    for old, new in zip(before, as_tuple(stream.state), strict=True):
        np.testing.assert_array_equal(new[:, [0, 2]], 0)
        np.testing.assert_array_equal(new[:, [1, 3]], old[:, [1, 3]])
    stream.reset()
    assert not any(s.any() for s in as_tuple(stream.state))
    np.testing.assert_allclose(stream.step(x[1]), fast(x[1:])[0][0], rtol=0, atol=1e-6)


def test_bad_streams():
    with pytest.raises(ValueError, match=r"^stream: the layer is bidirectional"):
        fastrnn.RNN(3, 4, bidirectional=True).freeze().stream()
    fast = fastrnn.LSTM(3, 4).freeze()
    with pytest.raises(ValueError, match=r"^batch_size: 0"):
        fast.stream(0)
    stream = fast.stream(2)
    with pytest.raises(ValueError, match=r"^x_t: shape \(3,\), expected \(B, I\) = \(2, 3\)"):
        stream.step(np.zeros(3, np.float32))
    with pytest.raises(TypeError, match=r"^x_t: dtype float64"):
        stream.step(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"^mask: int64 \(2,\), expected bool"):
        stream.reset(np.array([0, 1]))
    with pytest.raises(ValueError, match=r"^state\[0\]: shape"):
        stream.state = (np.zeros((1, 3, 4), np.float32), np.zeros((1, 2, 4), np.float32))
