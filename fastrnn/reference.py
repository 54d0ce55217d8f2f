"""The equations of the recurrent cells in plain NumPy: the specification, and the slowest engine.

Same names, signatures and results as `fastrnn.functional`; the shapes are said there. Gate blocks are PyTorch's:
LSTM i f g o, GRU r z n. Read a `*_step` beside its equations, then the loop that drives it, then its mirror.

A sequence that has ended (or, in reverse, not yet begun) keeps its state, and its outputs are zeros. `Walk` says which
sequences run at which step; everything else is the cell.

Sources: LSTM: Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, as in `torch.nn.LSTM`. GRU: Cho
et al. 2014 (reset before the product, `reset_after=False`) and the form of cuDNN and `torch.nn.GRU` (reset after).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastrnn import _check, reference_variants, variants
from fastrnn._cache import Cache, GRUGrads, LSTMGrads, RNNGrads, VariantCache

__all__ = ["gru_backward", "gru_forward", "lstm_backward", "lstm_forward", "rnn_backward", "rnn_forward"]


def sigmoid(a: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-a)), written so that exp never overflows."""
    e = np.exp(-np.abs(a))
    return np.where(a >= 0, 1 / (1 + e), e / (1 + e))


def zeros_for_none(b_ih, b_hh, w_hh):
    """The two biases, zeros for one that is None."""
    return [np.zeros(len(w_hh), w_hh.dtype) if b is None else b for b in (b_ih, b_hh)]


class Walk:
    """The order of the time steps of a batch, and who is running at each."""

    def __init__(self, T: int, lengths: np.ndarray | None, reverse: bool):
        self.times = list(range(T - 1, -1, -1) if reverse else range(T))
        self.running = None if lengths is None else np.arange(T)[:, None, None] < lengths[:, None]

    def __iter__(self) -> Iterator[int]:
        return iter(self.times)

    def __reversed__(self) -> Iterator[int]:
        return reversed(self.times)

    def where_running(self, t: int, value: np.ndarray, otherwise: Any) -> np.ndarray:
        """`value` for the sequences that run at time t, `otherwise` for the rest."""
        return value if self.running is None else np.where(self.running[t], value, otherwise)

    def without_padding(self, a: np.ndarray) -> np.ndarray:
        """A (T, B, n) array with zeros where no sequence runs, so that what stood there cannot matter, NaN included."""
        return a if self.running is None else np.where(self.running, a, a.dtype.type(0))


# --- RNN: h' = act(W_ih x + b_ih + W_hh h + b_hh) --------------------------------------------------------------------


def rnn_step(x, h, w_ih, w_hh, b_ih, b_hh, nonlinearity):
    """One step of the plain RNN; act is tanh or relu."""
    a = x @ w_ih.T + b_ih + h @ w_hh.T + b_hh
    return np.tanh(a) if nonlinearity == "tanh" else np.maximum(a, 0)


def rnn_step_backward(dh_next, h_next, nonlinearity):
    """The gradient of the pre-activation, from that of the step's result."""
    return dh_next * (1 - h_next**2 if nonlinearity == "tanh" else h_next > 0)


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
    reverse=False,
    save=True,
    checkpoint=None,
    variant=None,
):
    """See `fastrnn.functional.rnn_forward`. All is kept, whatever `checkpoint` says."""
    _check.checkpoint_steps(checkpoint)
    _check.choice("nonlinearity", nonlinearity, ("tanh", "relu"))
    inputs = _check.sequence_inputs(
        "rnn", x, {"h0": h0}, w_ih, w_hh, b_ih, b_hh, lengths, variants.projected(variants.checked(variant))
    )
    x, (h0,), w_ih, w_hh, b_ih, b_hh, lengths = inputs
    walk = Walk(len(x), lengths, reverse)
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
        h_next = rnn_step(x[t], h, w_ih, w_hh, *biases, nonlinearity)
        y[t] = walk.where_running(t, h_next, 0)
        steps[t] = h
        h = walk.where_running(t, h_next, h)
    cache = Cache("rnn", "reference", y, walk, x, steps, w_ih, w_hh, b_ih, b_hh, nonlinearity) if save else None
    return y, h, cache


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
        dh = walk.where_running(t, da @ w_hh, dh)
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
    reverse=False,
    save=True,
    checkpoint=None,
    variant=None,
):
    """See `fastrnn.functional.lstm_forward`. All is kept, whatever `checkpoint` says."""
    _check.checkpoint_steps(checkpoint)
    inputs = _check.sequence_inputs(
        "lstm", x, {"h0": h0, "c0": c0}, w_ih, w_hh, b_ih, b_hh, lengths, variants.projected(variants.checked(variant))
    )
    x, (h0, c0), w_ih, w_hh, b_ih, b_hh, lengths = inputs
    walk = Walk(len(x), lengths, reverse)
    if variant is not None:
        y, (h_n, c_n), _, cache = reference_variants.forward("lstm", inputs, variant, walk, save=save)
        return y, h_n, c_n, cache
    x = walk.without_padding(x)
    h, c = h0.copy(), c0.copy()
    y = np.zeros((*x.shape[:2], h.shape[1]), x.dtype)
    biases = zeros_for_none(b_ih, b_hh, w_hh)
    steps = {}
    for t in walk:
        h_next, c_next, gates = lstm_step(x[t], h, c, w_ih, w_hh, *biases)
        y[t] = walk.where_running(t, h_next, 0)
        steps[t] = h, c, c_next, gates
        h, c = walk.where_running(t, h_next, h), walk.where_running(t, c_next, c)
    cache = Cache("lstm", "reference", y, walk, x, steps, w_ih, w_hh, b_ih, b_hh) if save else None
    return y, h, c, cache


def lstm_backward(cache, dy, dh_n=None, dc_n=None):
    """See `fastrnn.functional.lstm_backward`."""
    dy, (dh, dc) = _check.output_gradients("lstm", "reference", cache, dy, {"dh_n": dh_n, "dc_n": dc_n})
    if isinstance(cache, VariantCache):
        return reference_variants.backward("lstm", cache.take(), dy, (dh, dc))
    walk, x, steps, w_ih, w_hh, b_ih, b_hh = cache.take()
    dy = walk.without_padding(dy)
    dx, dw_ih, dw_hh, db = (np.zeros(shape, x.dtype) for shape in (x.shape, w_ih.shape, w_hh.shape, len(w_hh)))
    for t in reversed(walk):
        h, c, c_next, gates = steps[t]
        da, dc_step = lstm_step_backward(dh + dy[t], dc, c, c_next, gates)
        da = walk.where_running(t, da, 0)
        dx[t] = da @ w_ih
        dw_ih += da.T @ x[t]
        dw_hh += da.T @ h
        db += da.sum(axis=0)
        dh, dc = walk.where_running(t, da @ w_hh, dh), walk.where_running(t, dc_step, dc)
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
    reverse=False,
    save=True,
    checkpoint=None,
    variant=None,
):
    """See `fastrnn.functional.gru_forward`. All is kept, whatever `checkpoint` says."""
    _check.checkpoint_steps(checkpoint)
    inputs = _check.sequence_inputs(
        "gru", x, {"h0": h0}, w_ih, w_hh, b_ih, b_hh, lengths, variants.projected(variants.checked(variant))
    )
    x, (h0,), w_ih, w_hh, b_ih, b_hh, lengths = inputs
    walk = Walk(len(x), lengths, reverse)
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
        h_next, gates = gru_step(x[t], h, w_ih, w_hh, *biases, reset_after)
        y[t] = walk.where_running(t, h_next, 0)
        steps[t] = h, gates
        h = walk.where_running(t, h_next, h)
    cache = Cache("gru", "reference", y, walk, x, steps, w_ih, w_hh, b_ih, b_hh, reset_after) if save else None
    return y, h, cache


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
        dh = walk.where_running(t, dh_step, dh)
    return GRUGrads(dx, dh, dw_ih, dw_hh, None if b_ih is None else db_ih, None if b_hh is None else db_hh)
