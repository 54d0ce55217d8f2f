"""The cells whose recurrence is element by element, in plain NumPy: IndRNN, minGRU, minLSTM.

Same names, signatures and results as `fastrnn.functional`; the shapes are said there. Gate blocks: minGRU z h~, minLSTM
f i h~. The last two are linear in their state, ``h(t) = a(t) h(t-1) + b(t)``, where a and b come from the input alone:
first all of them, then one scan over the steps, in either of two orders.

Sources: IndRNN: Li et al. 2018, "Independently Recurrent Neural Network". minGRU, minLSTM, and the positive candidate:
Feng et al. 2024, "Were RNNs All We Needed?". The parallel scan: Hillis & Steele 1986.
"""

from __future__ import annotations

import numpy as np

from fastrnn import _check
from fastrnn._cache import Cache, IndRNNGrads, MinGRUGrads, MinLSTMGrads
from fastrnn._walk import Walk, sigmoid

__all__ = [
    "indrnn_backward",
    "indrnn_forward",
    "mingru_backward",
    "mingru_forward",
    "minlstm_backward",
    "minlstm_forward",
]


# --- IndRNN: h' = act(W_ih x + b + u h) -------------------------------------------------------------------------------


def indrnn_forward(
    x, h0, w_ih, u, b=None, *, nonlinearity="relu", lengths=None, mask=None, reset=None, reverse=False, save=True
):
    """See `fastrnn.functional.indrnn_forward`."""
    _check.choice("nonlinearity", nonlinearity, ("relu", "tanh"))
    inputs = _check.elementwise_inputs("indrnn", x, h0, w_ih, u, b, lengths, mask, reset)
    x, h0, w_ih, u, b, lengths, mask, reset = inputs
    walk = Walk(len(x), lengths, reverse, mask, reset)
    x = walk.without_padding(x)
    h = h0.copy()
    y = np.zeros((*x.shape[:2], len(u)), x.dtype)
    before = {}
    for t in walk:
        h = walk.zeros_where_reset(t, h)
        a = x[t] @ w_ih.T + (0 if b is None else b) + u * h
        h_next = np.tanh(a) if nonlinearity == "tanh" else np.maximum(a, 0)
        y[t] = walk.where_running(t, h_next, 0)
        before[t] = h
        h = walk.where_running(t, h_next, h)
    kept = (walk, x, before, w_ih, u, b, nonlinearity)
    return y, h, Cache("indrnn", "reference", y, *kept, gates=lambda: {"h": y}) if save else None


def indrnn_backward(cache, dy, dh_n=None):
    """See `fastrnn.functional.indrnn_backward`."""
    dy, (dh,) = _check.output_gradients("indrnn", "reference", cache, dy, {"dh_n": dh_n})
    walk, x, before, w_ih, u, b, nonlinearity = cache.take()
    dy, y = walk.without_padding(dy), cache.y
    dx, dw_ih, du, db = np.zeros_like(x), np.zeros_like(w_ih), np.zeros_like(u), np.zeros_like(u)
    for t in reversed(walk):
        da = dh + dy[t]
        da = da * (1 - y[t] ** 2) if nonlinearity == "tanh" else np.where(y[t] > 0, da, 0)
        da = walk.where_running(t, da, 0)
        dx[t] = da @ w_ih
        dw_ih += da.T @ x[t]
        du += (da * before[t]).sum(axis=0)
        db += da.sum(axis=0)
        dh = walk.zeros_where_reset(t, walk.where_running(t, da * u, dh))
    return IndRNNGrads(dx, dh, dw_ih, du, None if b is None else db)


# --- h(t) = a(t) h(t-1) + b(t), all of (T, B, H); b(t) alone where there is a cut (T, B or 1, 1) ----------------------


def of_state(a, h, cut):
    """``a h``, 0 where there is a cut: not a product with a = 0, which would let a NaN through."""
    return np.where(cut, a.dtype.type(0), a * h)


def sequential_scan(a, b, h0, cut):
    """All h(t), step by step."""
    h = np.empty_like(b)
    for t in range(len(b)):
        h0 = h[t] = of_state(a[t], h0, cut[t]) + b[t]
    return h


def parallel_scan(a, b, h0, cut):
    """All h(t), in log2(T) passes over all steps at once.

    Before the pass of distance d, ``h(t) = a(t) h(t-d) + b(t)``, or b(t) if one of the last d steps has a cut; putting
    in that for h(t-d) doubles the distance.
    """
    a, b, cut = a.copy(), b.copy(), cut.copy()
    b[:1] += of_state(a[:1], h0, cut[:1])
    distance = 1
    while distance < len(b):
        b[distance:] += of_state(a[distance:], b[:-distance], cut[distance:])
        a[distance:] *= a[:-distance].copy()
        cut[distance:] |= cut[:-distance].copy()
        distance *= 2
    return b


SCANS = {"sequential": sequential_scan, "parallel": parallel_scan}


# --- minGRU:  a = 1 - z,         b = z h~,              z = sigmoid(W_z x + b_z) --------------------------------------
# --- minLSTM: a = f / (f + i),   b = i / (f + i) h~,    f, i = sigmoid(...) -------------------------------------------


def log_sigmoid(a):
    """Of any size, where the sigmoid itself would be 0."""
    return np.minimum(a, 0) - np.log1p(np.exp(-np.abs(a)))


def positive(a):
    """The paper's g: a + 1/2 from 0 on, sigmoid(a) below; continuous, and positive."""
    return np.where(a >= 0, a + a.dtype.type(0.5), sigmoid(a))


def positive_slope(value):
    """That of `positive`, from its value."""
    return np.where(value >= 0.5, value.dtype.type(1), value * (1 - value))


def keep_of_mingru(pre):
    """How much of the state a step keeps, and the gradient of that with respect to (z,), before the sigmoid."""
    (z,) = (sigmoid(part) for part in pre)
    return 1 - z, z, (-z * (1 - z),)


def keep_of_minlstm(pre):
    """The same of (f, i). f / (f + i) is the sigmoid of log f - log i, which does not divide 0 by 0."""
    f, i = pre
    difference = log_sigmoid(f) - log_sigmoid(i)
    keep, take = sigmoid(difference), sigmoid(-difference)
    return keep, take, (keep * take * sigmoid(-f), -keep * take * sigmoid(-i))


KEEP_OF = {"mingru": keep_of_mingru, "minlstm": keep_of_minlstm}
GATES = {"mingru": "z", "minlstm": "fi"}  # what these take


def _in_walking_order(a, reverse):
    return a[::-1] if reverse else a


def _min_forward(cell, x, h0, w_ih, b, candidate, scan, lengths, mask, reset, reverse, save):
    _check.choice("candidate", candidate, ("linear", "positive"))
    _check.choice("scan", scan, tuple(SCANS))
    inputs = _check.elementwise_inputs(cell, x, h0, w_ih, None, b, lengths, mask, reset)
    x, h0, w_ih, _, b, lengths, mask, reset = inputs
    walk = Walk(len(x), lengths, reverse, mask, reset)
    x = walk.without_padding(x)
    *pre, c = np.split(x @ w_ih.T + (0 if b is None else b), _check.GATES[cell], axis=2)
    keep, take, slopes = KEEP_OF[cell](pre)
    if candidate == "positive":
        c = positive(c)
    # Where nothing runs the state stays as it is.
    keep, take = keep if walk.running is None else np.where(walk.running, keep, 1), walk.without_padding(take)
    keep, take = keep.astype(x.dtype, copy=False), take.astype(x.dtype, copy=False)
    cut = np.zeros((len(x), 1, 1), bool) if walk.reset is None else walk.reset
    factors, added, cuts = (_in_walking_order(part, reverse) for part in (keep, take * c, cut))
    h = SCANS[scan](factors, added, h0, cuts)
    before = _in_walking_order(np.concatenate((h0[None], h))[:-1], reverse)
    before = np.where(cut, x.dtype.type(0), before)
    h_n = h[-1].copy() if len(h) else h0.copy()
    y = walk.without_padding(np.array(_in_walking_order(h, reverse)))
    if not save:
        return y, h_n, None

    def gates_by_name():
        gates = (walk.without_padding(sigmoid(part)) for part in pre)
        return dict(zip(GATES[cell], gates, strict=True)) | {"h": y}

    kept = (walk, reverse, x, before, keep, take, cut, slopes, c, w_ih, b, candidate, scan)
    return y, h_n, Cache(cell, "reference", y, *kept, gates=gates_by_name)


def _min_backward(cell, cache, dy, dh_n):
    dy, (dh,) = _check.output_gradients(cell, "reference", cache, dy, {"dh_n": dh_n})
    walk, reverse, x, before, keep, take, cut, slopes, c, w_ih, b, candidate, scan = cache.take()
    dy = walk.without_padding(dy)
    # dh(t) = dy(t) + keep(t+1) dh(t+1): the same recurrence from the other end, each factor a step later.
    factors, cut = _in_walking_order(keep, not reverse), _in_walking_order(cut, not reverse)
    later_factors = np.concatenate((np.ones_like(factors[:1]), factors))[: len(factors)]
    later_cut = np.concatenate((np.zeros_like(cut[:1]), cut))[: len(cut)]
    arriving = SCANS[scan](later_factors, _in_walking_order(dy, not reverse), dh, later_cut)
    if len(arriving):
        dh = of_state(factors[-1], arriving[-1], cut[-1])
    d = walk.without_padding(_in_walking_order(arriving, not reverse))
    dc = d * take * (positive_slope(c) if candidate == "positive" else 1)
    da = np.concatenate([d * (before - c) * slope for slope in slopes] + [dc], axis=2)
    dw_ih = np.tensordot(da, x, axes=((0, 1), (0, 1)))
    return da @ w_ih, dh, dw_ih, None if b is None else da.sum(axis=(0, 1))


def mingru_forward(
    x,
    h0,
    w_ih,
    b=None,
    *,
    candidate="linear",
    scan="sequential",
    lengths=None,
    mask=None,
    reset=None,
    reverse=False,
    save=True,
):
    """See `fastrnn.functional.mingru_forward`."""
    return _min_forward("mingru", x, h0, w_ih, b, candidate, scan, lengths, mask, reset, reverse, save)


def mingru_backward(cache, dy, dh_n=None):
    """See `fastrnn.functional.mingru_backward`."""
    return MinGRUGrads(*_min_backward("mingru", cache, dy, dh_n))


def minlstm_forward(
    x,
    h0,
    w_ih,
    b=None,
    *,
    candidate="linear",
    scan="sequential",
    lengths=None,
    mask=None,
    reset=None,
    reverse=False,
    save=True,
):
    """See `fastrnn.functional.minlstm_forward`."""
    return _min_forward("minlstm", x, h0, w_ih, b, candidate, scan, lengths, mask, reset, reverse, save)


def minlstm_backward(cache, dy, dh_n=None):
    """See `fastrnn.functional.minlstm_backward`."""
    return MinLSTMGrads(*_min_backward("minlstm", cache, dy, dh_n))
