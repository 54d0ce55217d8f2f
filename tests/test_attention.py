"""Attention and the transformer's encoder layer: gradients by finite differences, parity with PyTorch, padding."""

import numpy as np
import pytest
from nn_helpers import check_gradients, check_padding, gradients_of, randomised

import fastrnn
from fastrnn import nn

F64 = {"dtype": np.float64}
N, L, S, Q, K, V = 2, 3, 4, 6, 5, 2


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of this test, is not installed")


def attention(kind, key_size=K):
    if kind == "additive":
        return nn.AdditiveAttention(Q, key_size, 7, rng=1, **F64)
    if kind == "general":
        return nn.GeneralAttention(Q, key_size, rng=1, **F64)
    if kind == "multihead":
        return nn.MultiHeadAttention(Q, 3, kdim=key_size, vdim=key_size, rng=1, **F64)
    return nn.ScaledDotProductAttention()


KINDS = ("dot", "general", "additive")


def width(kind):
    """That of keys, for attentions of a learned score another than that of queries."""
    return Q if kind == "dot" else K


@pytest.mark.parametrize("kind", KINDS)
def test_attention(kind, rng):
    module = attention(kind)
    query, key, value = (rng.standard_normal(s) for s in ((N, L, Q), (N, S, width(kind)), (N, S, V)))
    each = rng.random((N, L, S)) < 0.6
    each[1, 2] = False  # a query with no key
    for options in ({}, {"lengths": [4, 1]}, {"mask": each}, {"mask": each.any(axis=1), "lengths": [3, 4]}):
        y, (_, _, dvalue) = check_gradients(module, query, key, value, **options)
        assert dvalue is not None
        weights = module.weights(query, key, **options)
        np.testing.assert_allclose(y, weights @ value, atol=1e-14)
        sums = weights.sum(axis=2)
        np.testing.assert_allclose(sums, sums > 0, atol=1e-14)
    y = module(query, key, value, mask=each)
    assert not y[1, 2].any()
    both = module.weights(query, key, mask=each, lengths=[3, 2])
    np.testing.assert_array_equal(both > 0, each & (np.arange(S) < [[[3]], [[2]]]))
    y, gradients = check_gradients(module, query, key, lengths=[2, 4])
    np.testing.assert_array_equal(y, module(query, key, key, lengths=[2, 4]))
    assert gradients[2] is None


def test_scores_by_hand(rng):
    query, key = rng.standard_normal((N, L, Q)), rng.standard_normal((N, S, K))
    general, additive = attention("general"), attention("additive")
    by_hand = {
        general: lambda q, k: q @ general.project.weight @ k,
        additive: lambda q, k: (
            additive.v @ np.tanh(additive.query.weight @ q + additive.query.bias + additive.key.weight @ k)
        ),
        nn.ScaledDotProductAttention(scale=0.3): lambda q, k: 0.3 * (q[:K] @ k),
    }
    for module, score in by_hand.items():
        e = np.exp([[[score(query[n, i], key[n, j]) for j in range(S)] for i in range(L)] for n in range(N)])
        q = query[..., :K] if isinstance(module, nn.ScaledDotProductAttention) else query
        np.testing.assert_allclose(module.weights(q, key), e / e.sum(axis=2, keepdims=True), atol=1e-14)


def test_scaled_dot_product_like_torch(torch, rng):
    query, key, value = (rng.standard_normal(s) for s in ((N, L, Q), (N, S, Q), (N, S, V)))
    mask = rng.random((N, L, S)) < 0.7
    mask[..., 0] = True
    tensors = [torch.tensor(a, requires_grad=True) for a in (query, key, value)]
    theirs = torch.nn.functional.scaled_dot_product_attention(*tensors, attn_mask=torch.tensor(mask))
    dy = rng.standard_normal(theirs.shape)
    theirs.backward(torch.tensor(dy))
    y, cache = nn.ScaledDotProductAttention().forward(query, key, value, mask=mask)
    np.testing.assert_allclose(y, theirs.detach().numpy(), atol=1e-14)
    for ours, tensor in zip(nn.ScaledDotProductAttention().backward(cache, dy), tensors, strict=True):
        np.testing.assert_allclose(ours, tensor.grad.numpy(), atol=1e-14)


@pytest.mark.parametrize("kind", [*KINDS, "multihead"])
def test_padded_keys_have_no_effect(kind, rng):
    """In cross-attention: keys and values past the ends may be anything, and so may they where no query takes them."""
    module = attention(kind)
    query, key, value = (rng.standard_normal((N, T, w)) for T, w in ((L, Q), (S, width(kind)), (S, width(kind))))
    multi = kind == "multihead"
    three = np.zeros((N * 3, L, S), bool) if multi else np.ones((N, L, S), bool)
    three[..., 2:] = multi
    for options in ({"lengths": [2, 2]}, {"attn_mask": three} if multi else {"mask": three}):
        runs = []
        for filling in (0.0, np.nan, np.inf):
            key[:, 2:] = value[:, 2:] = filling
            module.zero_grad()
            y, cache = module.forward(query, key, value, **options)
            gradients = dict(zip("qkv", module.backward(cache, np.cos(y + 1)), strict=True))
            assert not gradients["k"][:, 2:].any()
            assert not gradients["v"][:, 2:].any()
            runs.append({"y": y} | gradients | gradients_of(module))
        for other in runs[1:]:
            for name, expected in runs[0].items():
                np.testing.assert_array_equal(other[name], expected, err_msg=name)


SELF = {
    "dot": nn.ScaledDotProductAttention,
    "general": lambda: nn.GeneralAttention(4, 4, rng=1, **F64),
    "additive": lambda: nn.AdditiveAttention(4, 4, 3, rng=1, **F64),
    "self": lambda: nn.SelfAttention(4, 3, 2, rng=1, **F64),
    "multihead": lambda: nn.MultiHeadAttention(4, 2, rng=1, **F64),
    "pooling": lambda: nn.AttentionPooling(4, 3, rng=1, **F64),
    "encoder": lambda: nn.TransformerEncoderLayer(4, 2, 5, 0.0, rng=1, **F64),
}


@pytest.mark.parametrize("kind", SELF)
def test_sequences_by_themselves(kind, rng):
    """Of one array: gradients, padding, in a Sequential, sizes of 0 and 1."""
    module = randomised(SELF[kind](), rng)
    x = rng.standard_normal((3, 5, 4))
    check_gradients(module, x, tolerance=1e-6)
    check_gradients(module, x, lengths=[5, 2, 0], tolerance=1e-6)
    check_padding(module, x, [2, 5, 1], rng)
    gru = fastrnn.GRU(3, 4, batch_first=True, rng=2, **F64)
    check_padding(nn.Sequential(gru, module), rng.standard_normal((2, 4, 3)), [4, 2], rng)
    for shape in ((0, 5, 4), (2, 0, 4), (1, 1, 4)):
        y, cache = module.forward(np.zeros(shape))
        dx = module.backward(cache, np.ones_like(y))
        assert (dx[0] if isinstance(dx, tuple) else dx).shape == shape
        assert len(y) == shape[0]
        assert np.isfinite(y).all()


def test_self_attention(rng):
    module = nn.SelfAttention(4, 3, 2, rng=1, **F64)
    x, mask = rng.standard_normal((2, 5, 4)), np.array([[True, False, True, True, True], [True] * 5])
    y, _ = check_gradients(module, x, mask=mask, lengths=[4, 5])
    weights = module.weights(x, [4, 5], mask=mask)
    e = np.exp(module.query(x[0, :1]) @ module.key(x[0, [0, 2, 3]]).T / np.sqrt(3))[0]
    np.testing.assert_allclose(weights[0, 0, [0, 2, 3]], e / e.sum(), atol=1e-14)
    np.testing.assert_allclose(y[0, 0], e / e.sum() @ module.value(x[0, [0, 2, 3]]), atol=1e-14)
    assert not weights[0, :, [1, 4]].any()
    assert not weights[0, [1, 4]].any()
    plain = nn.SelfAttention(4, bias=False, **F64)
    assert [p.name for p in plain.parameters()] == ["query.weight", "key.weight", "value.weight"]
    assert plain(x).shape == x.shape


def test_attention_pooling(rng):
    module = nn.AttentionPooling(4, 3, rng=1, **F64)
    x, mask = rng.standard_normal((3, 5, 4)), rng.random((3, 5)) < 0.6
    mask[:, 0], mask[2] = True, False
    y, _ = check_gradients(module, x, mask=mask, lengths=[4, 5, 5])
    weights = module.weights(x, [4, 5, 5], mask=mask)
    steps = np.flatnonzero(mask[0, :4])
    e = np.exp(np.tanh(module.project(x[0, steps])) @ module.v)
    np.testing.assert_allclose(weights[0, steps], e / e.sum(), atol=1e-14)
    np.testing.assert_allclose(weights.sum(axis=1), [1, 1, 0], atol=1e-14)
    np.testing.assert_allclose(y, np.einsum("nt,nth->nh", weights, x), atol=1e-14)


# --- several heads ---------------------------------------------------------------------------------------------------


def torch_like(torch, module, **options):
    """PyTorch's module with the parameters of ours."""
    theirs = torch.nn.MultiheadAttention(
        module.embed_dim, module.num_heads, batch_first=True, dtype=torch.float64, **options
    )
    theirs.load_state_dict({name: torch.tensor(value) for name, value in module.state_dict().items()})
    return theirs


@pytest.mark.parametrize("sizes", [{}, {"kdim": K, "vdim": V}, {"bias": False}], ids=("same", "others", "no-bias"))
@pytest.mark.parametrize("masked", ["not", "padding", "bool", "each", "float"])
def test_multi_head_like_torch(torch, sizes, masked, rng):
    module = randomised(nn.MultiHeadAttention(Q, 3, rng=1, **sizes, **F64), rng)
    theirs = torch_like(torch, module, **sizes)
    arrays = [rng.standard_normal(s) for s in ((N, L, Q), (N, S, sizes.get("kdim", Q)), (N, S, sizes.get("vdim", Q)))]
    options = {}
    if masked in ("padding", "each"):
        options["key_padding_mask"] = np.array([[False, False, True, True], [False, False, False, True]])
    if masked in ("bool", "each"):
        options["attn_mask"] = rng.random((L, S) if masked == "bool" else (N * 3, L, S)) < 0.4
        options["attn_mask"][..., 0] = False
    if masked == "float":
        options["attn_mask"] = np.where(rng.random((L, S)) < 0.2, -np.inf, rng.standard_normal((L, S)))
        options["attn_mask"][:, 0] = 0.5
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    theirs_y, theirs_weights = theirs(
        *tensors, average_attn_weights=False, **{name: torch.tensor(mask) for name, mask in options.items()}
    )
    dy = rng.standard_normal(theirs_y.shape)
    theirs_y.backward(torch.tensor(dy))
    y, cache = module.forward(*arrays, **options)
    np.testing.assert_allclose(y, theirs_y.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(module.weights(*arrays, **options), theirs_weights.detach().numpy(), atol=1e-13)
    for ours, tensor in zip(module.backward(cache, dy), tensors, strict=True):
        np.testing.assert_allclose(ours, tensor.grad.numpy(), atol=1e-12)
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(gradients_of(module)[name], parameter.grad.numpy(), atol=1e-11, err_msg=name)


@pytest.mark.parametrize("engine", ["native", "blas", "reference"])
def test_multi_head_gradients(engine, rng):
    with fastrnn.config_context(engine=engine):
        _check_multi_head(rng)


def _check_multi_head(rng):
    module = randomised(nn.MultiHeadAttention(4, 2, kdim=3, vdim=2, rng=1, **F64), rng)
    query, key, value = (rng.standard_normal(s) for s in ((2, 3, 4), (2, 5, 3), (2, 5, 2)))
    blocked = rng.random((3, 5)) < 0.5
    blocked[1] = True  # a query with no key
    y, _ = check_gradients(module, query, key, value, lengths=[5, 2], attn_mask=blocked)
    np.testing.assert_allclose(y[:, 1], np.broadcast_to(module.out_proj.bias, (2, 4)), atol=1e-15)
    assert not module.weights(query, key, value, attn_mask=blocked)[:, :, 1].any()
    same = randomised(nn.MultiHeadAttention(4, 2, rng=1, **F64), rng)
    causal = np.triu(np.ones((3, 3), bool), 1)
    y, (dx, *rest) = check_gradients(same, query, attn_mask=causal, lengths=[3, 2])
    assert rest == [None, None]
    assert not y[1, 2].any()
    assert not dx[1, 2].any()
    np.testing.assert_allclose(y[:, :1], same(query[:, :1]), atol=1e-14)  # the first step takes from itself alone


def test_multi_head_dropout_drops_weights(rng):
    module = nn.MultiHeadAttention(4, 2, 0.5, rng=1, **F64)
    x = rng.standard_normal((2, 6, 4))
    np.testing.assert_array_equal(module(x), nn.MultiHeadAttention(4, 2, rng=1, **F64)(x))
    y, cache = module.forward(x)
    assert set(np.unique(cache.factors)) == {0, 2}
    dy = rng.standard_normal(y.shape)
    (dx, _, _), factors = module.backward(cache, dy), cache.factors

    class Same:  # the same factors each time, so that there is something to differentiate
        factors = staticmethod(lambda shape, dtype: factors)

    module.dropout = Same()
    eps, direction = 1e-6, rng.standard_normal(x.shape)
    up, down = (np.sum(module.forward(x + sign * eps * direction)[0] * dy) for sign in (1, -1))
    assert np.sum(dx * direction) == pytest.approx((up - down) / (2 * eps), rel=1e-6)


def test_multi_head_begins_as_in_torch(torch):
    module, theirs = nn.MultiHeadAttention(32, 4, rng=0), torch.nn.MultiheadAttention(32, 4)
    for name, parameter in theirs.state_dict().items():
        ours, expected = module.state_dict()[name], parameter.numpy()
        assert ours.shape == expected.shape
        assert np.abs(ours).max(initial=0) == pytest.approx(np.abs(expected).max(initial=0), rel=0.1)


# --- the encoder layer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("bias", [True, False])
def test_encoder_layer_like_torch(torch, norm_first, activation, bias, rng):
    options = {"activation": activation, "norm_first": norm_first, "layer_norm_eps": 1e-3, "bias": bias}
    module = randomised(nn.TransformerEncoderLayer(6, 2, 7, 0.1, rng=1, **options, **F64), rng)
    theirs = torch.nn.TransformerEncoderLayer(6, 2, 7, 0.1, batch_first=True, dtype=torch.float64, **options)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in module.state_dict().items()})
    theirs.eval()
    x, dy = rng.standard_normal((2, 3, 5, 6))
    padding = np.arange(5) >= np.array([[3], [5], [1]])
    causal = np.triu(np.ones((5, 5), bool), 1)
    for masks in ({}, {"src_key_padding_mask": padding}, {"src_mask": causal, "src_key_padding_mask": padding}):
        valid = ~padding if "src_key_padding_mask" in masks else np.ones((3, 5), bool)
        x_t = torch.tensor(x, requires_grad=True)
        y_t = theirs(x_t, **{name: torch.tensor(mask) for name, mask in masks.items()})
        theirs.zero_grad()
        y_t.backward(torch.tensor(dy * valid[..., None]))
        y = module(x, **masks)
        np.testing.assert_allclose(y[valid], y_t.detach().numpy()[valid], atol=1e-12)
        assert not y[~valid].any()
        module.zero_grad()
        for dropout in (module.dropout, module.dropout1, module.dropout2, module.self_attn.dropout):
            dropout.p = 0.0
        y, cache = module.forward(x, **masks)
        np.testing.assert_allclose(module.backward(cache, dy), x_t.grad.numpy(), atol=1e-11)
        for name, parameter in theirs.named_parameters():
            np.testing.assert_allclose(gradients_of(module)[name], parameter.grad.numpy(), atol=1e-10, err_msg=name)


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layer_gradients(norm_first, rng):
    module = nn.TransformerEncoderLayer(4, 2, 3, 0.0, activation="gelu", norm_first=norm_first, rng=1, **F64)
    x = rng.standard_normal((2, 4, 4))
    check_gradients(module, x, tolerance=1e-6)
    check_gradients(module, x, lengths=[4, 2], src_mask=np.triu(rng.standard_normal((4, 4)), 1), tolerance=1e-6)


def test_encoder_layer_drops_by_its_seed(rng):
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    first, second = (nn.TransformerEncoderLayer(4, 2, 5, 0.3, rng=4) for _ in range(2))
    y, _ = first.forward(x)
    np.testing.assert_array_equal(second.forward(x)[0], y)
    assert (first.forward(x)[0] != y).any()
    np.testing.assert_array_equal(first(x), first(x))
    assert y.dtype == np.float32


# --- bad input -------------------------------------------------------------------------------------------------------

X = np.zeros((2, 3, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SELF["dot"]()(X[0]), r"^query: shape \(3, 4\), expected \(N, T, \.\.\.\)"),
        (lambda: SELF["dot"]()(X, X[:1]), r"^key: shape \(1, 3, 4\), expected \(2, T, \.\.\.\)"),
        (lambda: SELF["dot"]()(X, X, X[:, :2]), r"^value: shape \(2, 2, 4\), expected \(2, 3, \.\.\.\)"),
        (lambda: SELF["dot"]()(X, X.astype(np.float32)), r"^key: dtype float32, expected float64, that of the query"),
        (lambda: SELF["dot"]()(X, X[..., :3]), r"^key: shape \(2, 3, 3\), expected \(\.\.\., 4\)"),
        (lambda: SELF["dot"]()(X, mask=np.zeros((2, 2), bool)), r"^mask: shape \(2, 2\), expected \(N, T\)"),
        (lambda: SELF["dot"]()(X, mask=np.zeros((2, 3, 2), bool)), r"^mask: shape \(2, 3, 2\), expected \(N, L, S\)"),
        (lambda: SELF["dot"]()(X, mask=np.zeros((2, 3))), r"^mask: dtype float64, expected bool"),
        (lambda: SELF["dot"]()(X, lengths=[4, 1]), r"^lengths: values from 1 to 4"),
        (lambda: SELF["dot"]().backward(SELF["dot"]().forward(X)[1], X[:1]), r"^dy: shape \(1, 3, 4\)"),
        (lambda: nn.ScaledDotProductAttention(scale=float("nan")), r"^scale: nan"),
        (lambda: SELF["general"]()(X[..., :3]), r"^query: shape \(2, 3, 3\), expected \(N, T, 4\)"),
        (lambda: nn.GeneralAttention(4, 5, **F64)(X), r"^key: None, expected an array \(N, S, 5\)"),
        (lambda: nn.AdditiveAttention(4, 4, 0), r"^attention_size: 0"),
        (lambda: nn.SelfAttention(4, 0), r"^attention_size: 0"),
        (lambda: SELF["self"]()(X.astype(np.float32)), r"^x: dtype float32, expected float64, that of the layer"),
        (lambda: SELF["pooling"]()(X[..., 0]), r"^x: shape \(2, 3\)"),
        (lambda: nn.MultiHeadAttention(4, 3), r"^num_heads: 3, expected a divisor of embed_dim = 4"),
        (lambda: nn.MultiHeadAttention(4, 2, dropout=1.5), r"^dropout: 1.5"),
        (lambda: SELF["multihead"]()(X, attn_mask=np.zeros((3, 2))), r"^attn_mask: shape \(3, 2\), expected \(L, S\)"),
        (lambda: SELF["multihead"]()(X, attn_mask=np.zeros((3, 3), int)), r"^attn_mask: dtype int64"),
        (lambda: SELF["multihead"]()(X, attn_mask=np.full((3, 3), np.nan)), r"^attn_mask: NaN or \+inf"),
        (lambda: SELF["multihead"]()(X, key_padding_mask=np.zeros((2, 3))), r"^key_padding_mask: dtype float64"),
        (lambda: nn.MultiHeadAttention(4, 2, kdim=3, **F64)(X), r"^key: shape \(2, 3, 4\), expected \(2, T, 3\)"),
        (lambda: nn.TransformerEncoderLayer(4, 2, activation="tanh"), r"^activation: 'tanh'"),
        (lambda: nn.TransformerEncoderLayer(4, 2, 0), r"^dim_feedforward: 0"),
        (lambda: SELF["encoder"]()(X[..., :3]), r"^x: shape \(2, 3, 3\), expected \(N, T, 4\)"),
        (lambda: SELF["encoder"]()(X, src_key_padding_mask=np.zeros((3, 2), bool)), r"^src_key_padding_mask: shape"),
    ],
)
def test_bad_attention(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
