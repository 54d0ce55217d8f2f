"""Packed sequences: packing against PyTorch, and layers that take them."""

import numpy as np
import pytest
from test_layers import LAYERS, as_tuple, states

import fastrnn
from fastrnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

LENGTHS = [2, 5, 1, 4]
T, B, I, H = 6, 4, 3, 7  # one step more than the longest has


def torch_rnn():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of this test, is not installed").nn.utils.rnn


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a, b.numpy())


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [LENGTHS, [5, 4, 2, 1], [6, 6, 6, 6]], ids=str)
@pytest.mark.parametrize("width", [(), (3,), (3, 2)], ids=str)
def test_packing_like_torch(lengths, batch_first, width):
    rnn = torch_rnn()
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((B, T, *width) if batch_first else (T, B, *width))
    for enforce_sorted in (False, True) if lengths[0] > lengths[1] or lengths[0] == 6 else (False,):
        ours = pack_padded_sequence(x, lengths, batch_first, enforce_sorted)
        theirs = rnn.pack_padded_sequence(torch.tensor(x), torch.tensor(lengths), batch_first, enforce_sorted)
        same(ours, theirs)
        for options in ({}, {"batch_first": True, "padding_value": 7.5}, {"total_length": 8}):
            padded, came = pad_packed_sequence(ours, **options)
            theirs_padded, theirs_came = rnn.pad_packed_sequence(theirs, **options)
            np.testing.assert_array_equal(padded, theirs_padded.numpy())
            np.testing.assert_array_equal(came, theirs_came.numpy())
            np.testing.assert_array_equal(came, lengths)


@pytest.mark.parametrize("enforce_sorted", [False, True])
def test_pack_sequence_like_torch(enforce_sorted):
    rnn = torch_rnn()
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    lengths = sorted(LENGTHS, reverse=True) if enforce_sorted else LENGTHS
    sequences = [rng.standard_normal((length, 2)).astype(np.float32) for length in lengths]
    ours = pack_sequence(sequences, enforce_sorted)
    assert ours.data.dtype == np.float32
    same(ours, rnn.pack_sequence([torch.tensor(s) for s in sequences], enforce_sorted))


def test_packing_keeps_integers_and_one_sequence():
    packed = pack_sequence([[3, 1, 2]])
    np.testing.assert_array_equal(packed.data, [3, 1, 2])
    assert packed.data.dtype.kind == "i"
    np.testing.assert_array_equal(packed.batch_sizes, [1, 1, 1])
    padded, lengths = pad_packed_sequence(packed, total_length=4, padding_value=-1)
    np.testing.assert_array_equal(padded, [[3], [1], [2], [-1]])
    np.testing.assert_array_equal(lengths, [3])


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("merge", ["concat", "mul", None])
def test_a_layer_of_packed_sequences_is_the_layer_with_lengths(kind, batch_first, merge):
    rng = np.random.default_rng(1)
    depth = 1 if merge is None else 2
    layer = LAYERS[kind](
        I, H, num_layers=depth, bidirectional=True, batch_first=batch_first, merge=merge, dtype=np.float64, rng=2
    )
    x = rng.standard_normal((B, 5, I) if batch_first else (5, B, I))
    state = states(layer, B, rng)
    y, end, cache = layer.forward(x, state, LENGTHS)
    dy = tuple(rng.standard_normal(part.shape) for part in y) if merge is None else rng.standard_normal(y.shape)
    dend = states(layer, B, rng)
    dx, dstate = layer.backward(cache, dy, dend)
    grads = {name: grad.copy() for name, grad in layer.grads.items()}
    layer.zero_grad()

    def packed(a):
        return tuple(map(packed, a)) if isinstance(a, tuple) else pack_padded_sequence(a, LENGTHS, batch_first, False)

    def data(a):
        return np.stack([part.data for part in a]) if not isinstance(a, PackedSequence) else a.data

    packed_y, packed_end, cache = layer.forward(packed(x), state)
    packed_dx, packed_dstate = layer.backward(cache, packed(dy), dend)
    np.testing.assert_array_equal(data(packed_y), data(packed(y)))
    np.testing.assert_array_equal(packed_dx.data, packed(dx).data)
    np.testing.assert_array_equal(packed_dx.sorted_indices, [1, 3, 0, 2])
    for a, b in zip(as_tuple(packed_end) + as_tuple(packed_dstate), as_tuple(end) + as_tuple(dstate), strict=True):
        np.testing.assert_array_equal(a, b)
    for name, grad in grads.items():
        np.testing.assert_array_equal(layer.grads[name], grad)
    frozen_y, frozen_end = layer.freeze()(packed(x), state)
    np.testing.assert_allclose(data(frozen_y), data(packed_y), rtol=0, atol=1e-15)
    for a, b in zip(as_tuple(frozen_end), as_tuple(end), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("enforce_sorted", [False, True])
def test_a_layer_of_packed_sequences_like_torch(name, enforce_sorted):
    rnn = torch_rnn()
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn, name)(I, H, num_layers=2, bidirectional=True, dtype=torch.float64)
    ours = getattr(fastrnn, name)(I, H, num_layers=2, bidirectional=True, dtype=np.float64)
    ours.load_state_dict(theirs.state_dict())
    rng = np.random.default_rng(3)
    x, state, dend = rng.standard_normal((T, B, I)), states(ours, B, rng), states(ours, B, rng)
    lengths = sorted(LENGTHS, reverse=True) if enforce_sorted else LENGTHS
    tx = torch.tensor(x, requires_grad=True)
    tstate = tuple(torch.tensor(s, requires_grad=True) for s in as_tuple(state))
    ty, tend = theirs(
        rnn.pack_padded_sequence(tx, lengths, enforce_sorted=enforce_sorted), tstate if name == "LSTM" else tstate[0]
    )
    y, end, cache = ours.forward(pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted), state)
    np.testing.assert_allclose(y.data, ty.data.detach().numpy(), atol=1e-13)
    for a, b in zip(as_tuple(end), as_tuple(tend), strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), atol=1e-13)

    dy = rng.standard_normal(y.data.shape)
    dx, dstate = ours.backward(cache, y._replace(data=dy), dend)
    torch.autograd.backward([ty.data, *as_tuple(tend)], [torch.tensor(d) for d in (dy, *as_tuple(dend))])
    np.testing.assert_allclose(pad_packed_sequence(dx, total_length=T)[0], tx.grad.numpy(), atol=1e-12)
    for a, b in zip(as_tuple(dstate), tstate, strict=True):
        np.testing.assert_allclose(a, b.grad.numpy(), atol=1e-12)
    for parameter, value in theirs.named_parameters():
        np.testing.assert_allclose(ours.grads[parameter], value.grad.numpy(), atol=1e-11, err_msg=parameter)


def test_the_gradient_may_be_none_or_not_needed():
    layer = fastrnn.GRU(I, H, dtype=np.float64, rng=0)
    packed = pack_sequence(list(np.random.default_rng(0).standard_normal((2, 3, I))))
    dend = np.ones((1, 2, H))
    _, _, cache = layer.forward(packed)
    dx, _ = layer.backward(cache, None, dend)
    assert dx.data.shape == (6, I)
    assert dx.data.any()
    _, _, cache = layer.forward(packed)
    dx, _ = layer.backward(cache, None, dend, need="params")
    assert dx is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3), [1]), r"^x: shape \(3,\), expected \(T, B, \.\.\.\)"),
        ((np.zeros((3, 0)), []), r"^x: shape \(3, 0\), expected at least one sequence"),
        ((np.zeros((3, 2)), [3]), r"^lengths: shape \(1,\), expected \(B,\) = \(2,\)"),
        ((np.zeros((3, 2)), [3, 0]), r"^lengths: 0 among them, expected 1 to T = 3"),
        ((np.zeros((3, 2)), [4, 1]), r"^lengths: values from 1 to 4, expected 0 to T = 3"),
        ((np.zeros((3, 2)), [3.0, 1.0]), r"^lengths: dtype float64"),
        ((np.zeros((3, 2)), None), r"^lengths: None"),
        ((np.zeros((3, 2)), [1, 3]), r"^lengths: not in descending order, expected that or enforce_sorted=False"),
    ],
)
def test_bad_padded(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        pack_padded_sequence(*arguments)


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], r"^sequences: none"),
        ([np.zeros((2, 3)), np.zeros((0, 3))], r"^sequences\[1\]: shape \(0, 3\), expected at least one step"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], r"^sequences\[1\]: steps of shape \(4,\), expected \(3,\)"),
        ([np.zeros((2, 3)), np.zeros((2, 3), int)], r"^sequences\[1\]: dtype int64, expected float64"),
        ([np.zeros((1, 3)), np.zeros((2, 3))], r"^lengths: not in descending order"),
    ],
)
def test_bad_sequences(sequences, message):
    with pytest.raises((ValueError, TypeError), match=message):
        pack_sequence(sequences)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_sizes": [1, 2]}, r"^packed: batch_sizes \[1, 2\], expected none above the one before it"),
        ({"batch_sizes": [2, 0]}, r"^packed: batch_sizes \[2, 0\], expected integers \(T,\) from 1"),
        ({"batch_sizes": []}, r"^packed: batch_sizes \[\]"),
        ({"data": np.zeros((2, 3))}, r"^packed: data of shape \(2, 3\), expected 3 rows"),
        ({"sorted_indices": [0, 2]}, r"^packed: sorted_indices \[0, 2\], expected each of 0 to 1 once"),
    ],
)
def test_bad_packed(changed, message):
    packed = PackedSequence(np.zeros((3, 3)), np.array([2, 1]))
    with pytest.raises(ValueError, match=message):
        pad_packed_sequence(packed._replace(**changed))
    with pytest.raises(ValueError, match=message):
        fastrnn.RNN(3, 2, dtype=np.float64)(packed._replace(**changed))


def test_bad_calls():
    packed = pack_sequence(list(np.zeros((2, 3, I))))
    with pytest.raises(TypeError, match=r"^packed: ndarray, expected a PackedSequence"):
        pad_packed_sequence(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"^total_length: 2, expected at least 3"):
        pad_packed_sequence(packed, total_length=2)
    layer = fastrnn.LSTM(I, H, dtype=np.float64)
    fast = layer.freeze()
    for call in (layer, fast):
        with pytest.raises(ValueError, match=r"^lengths: given beside a PackedSequence"):
            call(packed, lengths=[3, 3])
        with pytest.raises(ValueError, match=r"^x: shape \(3, 2, 2\)"):
            call(packed._replace(data=np.zeros((6, 2))))
        with pytest.raises(ValueError, match=r"^state\[0\]: shape \(1, 3, 7\)"):
            call(packed, (np.zeros((1, 3, H)), None))
    with pytest.raises(TypeError, match=r"^out: given beside a PackedSequence"):
        fast(packed, out=np.zeros((3, 2, H)))
    y, _, cache = layer.forward(packed)
    with pytest.raises(TypeError, match=r"^dy: ndarray, expected a PackedSequence"):
        layer.backward(cache, np.zeros((3, 2, H)))
    with pytest.raises(ValueError, match=r"^dy: batch_sizes or indices of another batch"):
        layer.backward(cache, pack_sequence([np.zeros((4, H)), np.zeros((2, H))]))
    with pytest.raises(ValueError, match=r"^dy: shape \(3, 2, 6\)"):
        layer.backward(cache, y._replace(data=np.zeros((6, 6))))
    layer.backward(cache, y)
