"""The equations of the recurrent cells in plain NumPy: the specification, and the slowest engine.

Same names, arguments and results as `fastrnn.functional`, but for its `need=`; the shapes are said there. Gate blocks
are PyTorch's: LSTM i f g o, GRU r z n. Read a `*_step` beside its equations, then the loop that drives it, then its
mirror.

A sequence that has ended (or, in reverse, not yet begun) keeps its state, and its outputs are zeros. `Walk` (in
`fastrnn._walk`) says which sequences run at which step; everything else is the cell. Variants of the cells are in
`fastrnn.reference_variants`, those that recur element by element in `fastrnn.reference_elementwise`.

Sources: LSTM: Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, as in `torch.nn.LSTM`. GRU: Cho
et al. 2014 (reset before the product, `reset_after=False`) and the form of cuDNN and `torch.nn.GRU` (reset after).
"""

from __future__ import annotations

import numpy as np

from fastrnn import _check, reference_variants, variants
from fastrnn._cache import Cache, GRUGrads, LSTMGrads, RNNGrads, VariantCache
from fastrnn._walk import Walk, sigmoid
from fastrnn.reference_elementwise import (
    indrnn_backward,
    indrnn_forward,
    mingru_backward,
    mingru_forward,
    minlstm_backward,
    minlstm_forward,
)

__all__ = [
    "gru_backward",
    "gru_forward",
    "indrnn_backward",
    "indrnn_forward",
    "lstm_backward",
    "lstm_forward",
    "mingru_backward",
    "mingru_forward",
    "minlstm_backward",
    "minlstm_forward",
    "rnn_backward",
    "rnn_forward",
]


def zeros_for_none(b_ih, b_hh, w_hh):
    """The two biases, zeros for one that is None."""
    return [np.zeros(len(w_hh), w_hh.dtype) if b is None else b for b in (b_ih, b_hh)]


# --- RNN: h' = act(W_ih x + b_ih + W_hh h + b_hh) --------------------------------------------------------------------


def rnn_step(x, h, w_ih, w_hh, b_ih, b_hh, nonlinearity):
    """One step of the plain RNN; act is tanh or relu."""
    a = x @ w_ih.T + b_ih + h @ w_hh.T + b_hh
    return np.tanh(a) if nonlinearity == "tanh" else np.maximum(a, 0)


def rnn_step_backward(dh_next, h_next, nonlinearity):
    """The gradient of the pre-activation, from that of the step's result."""
    if nonlinearity == "tanh":
        return dh_next * (1 - h_next**2)
    return np.where(h_next > 0, dh_next, 0)  # not a product with 0, which would let a NaN through; as torch.relu


def rnn_forward(
    x,
    h0,
    w_ih,
    w_hh,
    b_ih=None,
    b_hh=None,
    *,
    nonlinearity="tanh",
    lengths=None,
    mask=None,
    reset=None,
    reverse=False,
    save=True,
    checkpoint=None,
    variant=None,
):
    """See `fastrnn.functional.rnn_forward`. All is kept, whatever `checkpoint` says."""
    _check.checkpoint_steps(checkpoint, variants.checked(variant))
    _check.choice("nonlinearity", nonlinearity, ("tanh", "relu"))
    inputs = _check.sequence_inputs("rnn", x, {"h0": h0}, w_ih, w_hh, b_ih, b_hh, lengths, mask, reset, variant)
    x, (h0,), w_ih, w_hh, b_ih, b_hh, lengths, mask, reset = inputs
    walk = Walk(len(x), lengths, reverse, mask, reset)
    if variant is not None:
        y, (h_n,), _, cache = reference_variants.forward(
            "rnn", inputs, variant, walk, nonlinearity=nonlinearity, save=save
        )
        return y, h_n, cache
    x = walk.without_padding(x)
    h = h0.copy()
    y = np.zeros((*x.shape[:2], h.shape[1]), x.dtype)
    biases = zeros_for_none(b_ih, b_hh, w_hh)
    steps = {}
    for t in walk:
        h = walk.zeros_where_reset(t, h)
        h_next = rnn_step(x[t], h, w_ih, w_hh, *biases, nonlinearity)
        y[t] = walk.where_running(t, h_next, 0)
        steps[t] = h
        h = walk.where_running(t, h_next, h)
    if not save:
        return y, h, None
    kept = (walk, x, steps, w_ih, w_hh, b_ih, b_hh, nonlinearity)
    return y, h, Cache("rnn", "reference", y, *kept, gates=lambda: {"h": y})


def rnn_backward(cache, dy, dh_n=None):
    """See `fastrnn.functional.rnn_backward`."""
    dy, (dh,) = _check.output_gradients("rnn", "reference", cache, dy, {"dh_n": dh_n})
    if isinstance(cache, VariantCache):
        return reference_variants.backward("rnn", cache.take(), dy, (dh,))
    walk, x, steps, w_ih, w_hh, b_ih, b_hh, nonlinearity = cache.take()
    dy = walk.without_padding(dy)
    dx, dw_ih, dw_hh, db = (np.zeros(shape, x.dtype) for shape in (x.shape, w_ih.shape, w_hh.shape, len(w_hh)))
    for t in reversed(walk):
        h = steps[t]
        da = walk.where_running(t, rnn_step_backward(dh + dy[t], cache.y[t], nonlinearity), 0)
        dx[t] = da @ w_ih
        dw_ih += da.T @ x[t]
        dw_hh += da.T @ h
        db += da.sum(axis=0)
        dh = walk.zeros_where_reset(t, walk.where_running(t, da @ w_hh, dh))
    return RNNGrads(dx, dh, dw_ih, dw_hh, None if b_ih is None else db, None if b_hh is None else db.copy())


# --- LSTM: i f o = sigmoid(...), g = tanh(...); c' = f c + i g; h' = o tanh(c') --------------------------------------


def lstm_step(x, h, c, w_ih, w_hh, b_ih, b_hh):
    """One step of the LSTM; also gives the gates, which backward wants."""
    i, f, g, o = np.split(x @ w_ih.T + b_ih + h @ w_hh.T + b_hh, 4, axis=1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    c_next = f * c + i * g
    return o * np.tanh(c_next), c_next, (i, f, g, o)


def lstm_step_backward(dh_next, dc_next, c, c_next, gates):
    """The gradients of the four pre-activations, side by side, and of c."""
    i, f, g, o = gates
    tanh_c = np.tanh(c_next)
    dc_next = dc_next + dh_next * o * (1 - tanh_c**2)
    di = dc_next * g * i * (1 - i)
    df = dc_next * c * f * (1 - f)
    dg = dc_next * i * (1 - g**2)
    do = dh_next * tanh_c * o * (1 - o)
    return np.concatenate((di, df, dg, do), axis=1), dc_next * f


def lstm_forward(
    x,
    h0,
    c0,
    w_ih,
    w_hh,
    b_ih=None,
    b_hh=None,
    *,
    lengths=None,
    mask=None,
    reset=None,
    reverse=False,
    save=True,
    checkpoint=None,
    return_cell_states=False,
    variant=None,
):
    """See `fastrnn.functional.lstm_forward`. All is kept, whatever `checkpoint` says."""
    _check.checkpoint_steps(checkpoint, variants.checked(variant))
    inputs = _check.sequence_inputs(
        "lstm", x, {"h0": h0, "c0": c0}, w_ih, w_hh, b_ih, b_hh, lengths, mask, reset, variant
    )
    x, (h0, c0), w_ih, w_hh, b_ih, b_hh, lengths, mask, reset = inputs
    walk = Walk(len(x), lengths, reverse, mask, reset)
    if variant is not None:
        y, (h_n, c_n), cs, cache = reference_variants.forward("lstm", inputs, variant, walk, save=save)
        return y, h_n, c_n, cache, *((cs,) if return_cell_states else ())
    x = walk.without_padding(x)
    h, c = h0.copy(), c0.copy()
    y = np.zeros((*x.shape[:2], h.shape[1]), x.dtype)
    cs = np.zeros_like(y)
    biases = zeros_for_none(b_ih, b_hh, w_hh)
    steps = {}
    for t in walk:
        h, c = walk.zeros_where_reset(t, h), walk.zeros_where_reset(t, c)
        h_next, c_next, gates = lstm_step(x[t], h, c, w_ih, w_hh, *biases)
        y[t], cs[t] = walk.where_running(t, h_next, 0), walk.where_running(t, c_next, 0)
        steps[t] = h, c, c_next, gates
        h, c = walk.where_running(t, h_next, h), walk.where_running(t, c_next, c)
    shown = (cs,) if return_cell_states else ()
    if not save:
        return y, h, c, None, *shown

    def gates_by_name():
        of_steps = {t: gates for t, (_, _, _, gates) in steps.items()}
        return walk.by_name(of_steps, ("i", "f", "g", "o"), y) | {"c": cs.copy(), "h": y}

    cache = Cache("lstm", "reference", y, walk, x, steps, w_ih, w_hh, b_ih, b_hh, gates=gates_by_name)
    return y, h, c, cache, *shown


def lstm_backward(cache, dy, dh_n=None, dc_n=None, dc=None):
    """See `fastrnn.functional.lstm_backward`."""
    dcs = dc  # at every step; below, dc is that of one state
    dy, (dh, dc) = _check.output_gradients("lstm", "reference", cache, dy, {"dh_n": dh_n, "dc_n": dc_n})
    dcs = _check.step_gradients(cache, dcs)
    if isinstance(cache, VariantCache):
        return reference_variants.backward("lstm", cache.take(), dy, (dh, dc), dcs)
    walk, x, steps, w_ih, w_hh, b_ih, b_hh = cache.take()
    dy, dcs = walk.without_padding(dy), None if dcs is None else walk.without_padding(dcs)
    dx, dw_ih, dw_hh, db = (np.zeros(shape, x.dtype) for shape in (x.shape, w_ih.shape, w_hh.shape, len(w_hh)))
    for t in reversed(walk):
        h, c, c_next, gates = steps[t]
        da, dc_step = lstm_step_backward(dh + dy[t], dc if dcs is None else dc + dcs[t], c, c_next, gates)
        da = walk.where_running(t, da, 0)
        dx[t] = da @ w_ih
        dw_ih += da.T @ x[t]
        dw_hh += da.T @ h
        db += da.sum(axis=0)
        dh = walk.zeros_where_reset(t, walk.where_running(t, da @ w_hh, dh))
        dc = walk.zeros_where_reset(t, walk.where_running(t, dc_step, dc))
    return LSTMGrads(dx, dh, dc, dw_ih, dw_hh, None if b_ih is None else db, None if b_hh is None else db.copy())


# --- GRU: r z = sigmoid(...); h' = (1 - z) n + z h -------------------------------------------------------------------
#     reset_after:      n = tanh(W_in x + b_in + r (W_hn h + b_hn))
#     not reset_after:  n = tanh(W_in x + b_in + W_hn (r h) + b_hn)


def gru_step(x, h, w_ih, w_hh, b_ih, b_hh, reset_after):
    """One step of the GRU; also gives the gates, and what the reset gate was multiplied with, or by."""
    H = h.shape[1]
    r, z, n = np.split(x @ w_ih.T + b_ih, 3, axis=1)
    r_hidden, z_hidden = np.split(h @ w_hh[: 2 * H].T + b_hh[: 2 * H], 2, axis=1)
    r, z = sigmoid(r + r_hidden), sigmoid(z + z_hidden)
    if reset_after:
        hn = h @ w_hh[2 * H :].T + b_hh[2 * H :]
        n = np.tanh(n + r * hn)
    else:
        hn = r * h
        n = np.tanh(n + hn @ w_hh[2 * H :].T + b_hh[2 * H :])
    return (1 - z) * n + z * h, (r, z, n, hn)


def gru_step_backward(dh_next, h, w_hh, gates, reset_after):
    """The gradients of the input's pre-activations, of the recurrent ones, and of h.

    Also what stands to the right of W_hn in the forward product: h, or r h when the reset comes before.
    """
    H = h.shape[1]
    r, z, n, hn = gates
    dn = dh_next * (1 - z) * (1 - n**2)
    dz = dh_next * (h - n) * z * (1 - z)
    if reset_after:
        dr = dn * hn * r * (1 - r)
        dhn = dn * r
        dh = dh_next * z + dhn @ w_hh[2 * H :]
        beside = h
    else:
        drh = dn @ w_hh[2 * H :]
        dr = drh * h * r * (1 - r)
        dhn = dn
        dh = dh_next * z + drh * r
        beside = hn
    dh = dh + np.concatenate((dr, dz), axis=1) @ w_hh[: 2 * H]
    return np.concatenate((dr, dz, dn), axis=1), np.concatenate((dr, dz, dhn), axis=1), dh, beside


def gru_forward(
    x,
    h0,
    w_ih,
    w_hh,
    b_ih=None,
    b_hh=None,
    *,
    reset_after=True,
    lengths=None,
    mask=None,
    reset=None,
    reverse=False,
    save=True,
    checkpoint=None,
    variant=None,
):
    """See `fastrnn.functional.gru_forward`. All is kept, whatever `checkpoint` says."""
    _check.checkpoint_steps(checkpoint, variants.checked(variant))
    inputs = _check.sequence_inputs("gru", x, {"h0": h0}, w_ih, w_hh, b_ih, b_hh, lengths, mask, reset, variant)
    x, (h0,), w_ih, w_hh, b_ih, b_hh, lengths, mask, reset = inputs
    walk = Walk(len(x), lengths, reverse, mask, reset)
    if variant is not None:
        y, (h_n,), _, cache = reference_variants.forward(
            "gru", inputs, variant, walk, reset_after=reset_after, save=save
        )
        return y, h_n, cache
    x = walk.without_padding(x)
    h = h0.copy()
    y = np.zeros((*x.shape[:2], h.shape[1]), x.dtype)
    biases = zeros_for_none(b_ih, b_hh, w_hh)
    steps = {}
    for t in walk:
        h = walk.zeros_where_reset(t, h)
        h_next, gates = gru_step(x[t], h, w_ih, w_hh, *biases, reset_after)
        y[t] = walk.where_running(t, h_next, 0)
        steps[t] = h, gates
        h = walk.where_running(t, h_next, h)
    if not save:
        return y, h, None

    def gates_by_name():
        return walk.by_name({t: gates for t, (_, gates) in steps.items()}, ("r", "z", "n"), y) | {"h": y}

    kept = (walk, x, steps, w_ih, w_hh, b_ih, b_hh, reset_after)
    return y, h, Cache("gru", "reference", y, *kept, gates=gates_by_name)


def gru_backward(cache, dy, dh_n=None):
    """See `fastrnn.functional.gru_backward`."""
    dy, (dh,) = _check.output_gradients("gru", "reference", cache, dy, {"dh_n": dh_n})
    if isinstance(cache, VariantCache):
        return reference_variants.backward("gru", cache.take(), dy, (dh,))
    walk, x, steps, w_ih, w_hh, b_ih, b_hh, reset_after = cache.take()
    dy = walk.without_padding(dy)
    H = w_hh.shape[1]
    dx, dw_ih, dw_hh = np.zeros_like(x), np.zeros_like(w_ih), np.zeros_like(w_hh)
    db_ih, db_hh = np.zeros(3 * H, x.dtype), np.zeros(3 * H, x.dtype)
    for t in reversed(walk):
        h, gates = steps[t]
        da, da_hidden, dh_step, beside = gru_step_backward(dh + dy[t], h, w_hh, gates, reset_after)
        da, da_hidden = walk.where_running(t, da, 0), walk.where_running(t, da_hidden, 0)
        dx[t] = da @ w_ih
        dw_ih += da.T @ x[t]
        dw_hh[: 2 * H] += da_hidden[:, : 2 * H].T @ h
        dw_hh[2 * H :] += da_hidden[:, 2 * H :].T @ beside
        db_ih += da.sum(axis=0)
        db_hh += da_hidden.sum(axis=0)
        dh = walk.zeros_where_reset(t, walk.where_running(t, dh_step, dh))
    return GRUGrads(dx, dh, dw_ih, dw_hh, None if b_ih is None else db_ih, None if b_hh is None else db_hh)
