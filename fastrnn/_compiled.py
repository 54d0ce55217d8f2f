"""The compiled engines, `native` and `blas`: Cython time loops, the gate functions of csrc, products of either kind.

Allocates, runs the loops of `_core`, and does with a few large products what needs no recurrence. Arguments have been
checked (`_check`). Below, *rows* are those of `_core.plan`.
"""

from __future__ import annotations

import numpy as np

from fastrnn._cache import Cache, GRUGrads, LSTMGrads, RNNGrads
from fastrnn._check import Inputs
from fastrnn._core import back
from fastrnn._core.cell import forward
from fastrnn._core.memory import empty
from fastrnn._core.plan import Plan
from fastrnn._products import BlasProducts
from fastrnn._sharing import Sharing

# Without `save`, gates of this many bytes are worked on at a time, so that a long sequence does not take memory for all
# of its gates. It is as fast as one piece (LSTM, T=1000 B=1 and T=200 B=32, I=64 H=128); a live layer packs W_ih for
# every block, which with 512 KB costs it 5%.
BLOCK_BYTES = 2 * 1024 * 1024


def _plan(inputs: Inputs, reverse: bool) -> Plan:
    T, B, _ = inputs.x.shape
    return Plan(T, B, inputs.lengths, reverse)


def _gate_blocks(plan: Plan, width: int, itemsize: int, save: bool) -> tuple[list, int]:
    """The runs of steps to work on, and how many rows of gates to allocate for them: all with `save`, else a block."""
    blocks = plan.blocks(None if save else max(64, BLOCK_BYTES // (width * itemsize)))
    return blocks, max((rows.stop - rows.start for _, _, rows in blocks), default=0)


def bias_sum(b_ih: np.ndarray | None, b_hh: np.ndarray | None, w_hh: np.ndarray) -> np.ndarray:
    """The bias of an RNN or LSTM: where both are added to the same sums, one does."""
    if b_ih is not None and b_hh is not None:
        return b_ih + b_hh
    if b_ih is None and b_hh is None:
        return np.zeros(len(w_hh), w_hh.dtype)
    return b_ih if b_ih is not None else b_hh


def gru_bias(b_ih: np.ndarray | None, b_hh: np.ndarray | None, w_hh: np.ndarray) -> np.ndarray:
    """The bias (4H) of a GRU: r z n of the input, r and z with the recurrent bias in it, then b_hn."""
    H = w_hh.shape[1]
    bias = np.zeros(4 * H, w_hh.dtype)
    if b_ih is not None:
        bias[: 3 * H] = b_ih
    if b_hh is not None:
        bias[: 2 * H] += b_hh[: 2 * H]
        bias[3 * H :] = b_hh[2 * H :]
    return bias


def _loop(products: BlasProducts, plan: Plan, w_hh: np.ndarray) -> Sharing:
    """How threads share the time loop: ragged sequences get shorter in number, so count their rows."""
    return products.sharing(plan.steps, -(-plan.rows // max(1, plan.steps)), w_hh)


def _recurrent_gradient(products, plan: Plan, d: np.ndarray, h: np.ndarray, h0: np.ndarray, out=None) -> np.ndarray:
    """The gradient of what multiplied h(t-1): d(t)' h(t-1), summed over all steps."""
    if plan.ragged:
        previous = empty(h.shape, h.dtype)
        plan.previous(previous, h, h0)
        return products.weight_gradient(d, previous, out)
    first, later, before = plan.moved_on()
    grad = products.weight_gradient(d[first], h0[: plan.rows], out)
    return products.weight_gradient(d[later], h[before], grad, add=True) if plan.steps > 1 else grad


def _weight_gradients(products, plan, d, x_rows, h, h0, b_ih, b_hh) -> tuple[np.ndarray | None, ...]:
    """Those of W_ih, W_hh and each bias that is not None, of an RNN or LSTM."""
    bias = None if b_ih is None and b_hh is None else products.bias_gradient(d)
    return (
        products.weight_gradient(d, x_rows),
        _recurrent_gradient(products, plan, d, h, h0),
        None if b_ih is None else bias,
        None if b_hh is None else bias if b_ih is None else bias.copy(),
    )


WEIGHTS = frozenset(("w_ih", "w_hh", "b_ih", "b_hh"))
NOTHING = (None,) * len(WEIGHTS)


def _input_gradient(products: BlasProducts, plan: Plan, d: np.ndarray, w_ih: np.ndarray, need: frozenset[str]):
    return plan.unpack(products.backward(d, w_ih)) if "x" in need else None


def rnn_forward(inputs: Inputs, products: BlasProducts, isa: str, nonlinearity: str, reverse: bool, save: bool):
    """As `fastrnn.functional.rnn_forward`."""
    x, (h0,), w_ih, w_hh, b_ih, b_hh, _ = inputs
    plan = _plan(inputs, reverse)
    x_rows, h0_sorted = plan.pack(x), plan.sort(h0)
    h = empty((plan.rows, h0.shape[1]), x.dtype)
    relu = nonlinearity == "relu"
    cell = products.cell(f"rnn-{nonlinearity}", isa, w_hh, bias_sum(b_ih, b_hh, w_hh), plan.steps, plan.B)
    products.forward(h, x_rows, w_ih)
    with products.looping(plan.B, w_hh):
        # save, so that the gates are all rows, from the first on; the states take their place
        forward(cell, plan, 0, plan.steps, h, None, h, None, h0_sorted, None, True, _loop(products, plan, w_hh))
    y = plan.unpack(h)
    kept = (products, isa, plan, x_rows, h0_sorted, h, w_ih, w_hh, b_ih, b_hh, relu)
    return y, plan.last(h, h0_sorted), Cache("rnn", products.engine, y, *kept) if save else None


def rnn_backward(cache: Cache, dy: np.ndarray, dh: np.ndarray, need: frozenset[str]) -> RNNGrads:
    """As `fastrnn.functional.rnn_backward`."""
    products, isa, plan, x_rows, h0, h, w_ih, w_hh, b_ih, b_hh, relu = cache.take()
    dh = plan.sort(dh)
    dpre = empty(h.shape, h.dtype)
    recurrent = products.recurrent_backward(w_hh, plan.steps, plan.B)
    dy_rows = plan.pack(dy)

    with products.looping(plan.B, w_hh):
        back.rnn(isa, plan, dpre, dh, dy_rows, h, recurrent, relu, _loop(products, plan, w_hh))
    weights = NOTHING
    if need & WEIGHTS:
        weights = _weight_gradients(products, plan, dpre, x_rows, h, h0, b_ih, b_hh)
    return RNNGrads(_input_gradient(products, plan, dpre, w_ih, need), plan.unsort(dh), *weights)


def lstm_forward(inputs: Inputs, products: BlasProducts, isa: str, reverse: bool, save: bool):
    """As `fastrnn.functional.lstm_forward`."""
    x, (h0, c0), w_ih, w_hh, b_ih, b_hh, _ = inputs
    H = h0.shape[1]
    plan = _plan(inputs, reverse)
    x_rows, h0_sorted, c0_sorted = plan.pack(x), plan.sort(h0), plan.sort(c0)
    h = empty((plan.rows, H), x.dtype)
    c = empty((plan.rows, H), x.dtype) if save else c0_sorted.copy()
    blocks, gate_rows = _gate_blocks(plan, 4 * H, x.itemsize, save)
    gates = empty((gate_rows, 4 * H), x.dtype)
    cell = products.cell("lstm", isa, w_hh, bias_sum(b_ih, b_hh, w_hh), plan.steps, plan.B)
    sharing = _loop(products, plan, w_hh)
    for s0, s1, rows in blocks:
        products.forward(gates[: rows.stop - rows.start], x_rows[rows], w_ih)
        with products.looping(plan.B, w_hh):
            forward(cell, plan, s0, s1, h, c, gates, None, h0_sorted, c0_sorted, save, sharing)
    y, h_n = plan.unpack(h), plan.last(h, h0_sorted)
    if not save:
        return y, h_n, plan.unsort(c), None
    kept = (products, isa, plan, x_rows, h0_sorted, c0_sorted, h, c, gates, w_ih, w_hh, b_ih, b_hh)
    return y, h_n, plan.last(c, c0_sorted), Cache("lstm", products.engine, y, *kept)


def lstm_backward(cache: Cache, dy: np.ndarray, dh: np.ndarray, dc: np.ndarray, need: frozenset[str]) -> LSTMGrads:
    """As `fastrnn.functional.lstm_backward`."""
    products, isa, plan, x_rows, h0, c0, h, c, gates, w_ih, w_hh, b_ih, b_hh = cache.take()
    dh, dc = plan.sort(dh), plan.sort(dc)
    recurrent = products.recurrent_backward(w_hh, plan.steps, plan.B)
    dy_rows = plan.pack(dy)

    with products.looping(plan.B, w_hh):
        back.lstm(isa, plan, gates, dh, dc, dy_rows, c, c0, recurrent, _loop(products, plan, w_hh))
    dgates = gates
    weights = NOTHING
    if need & WEIGHTS:
        weights = _weight_gradients(products, plan, dgates, x_rows, h, h0, b_ih, b_hh)
    dx = _input_gradient(products, plan, dgates, w_ih, need)
    return LSTMGrads(dx, plan.unsort(dh), plan.unsort(dc), *weights)


def gru_forward(inputs: Inputs, products: BlasProducts, isa: str, reset_after: bool, reverse: bool, save: bool):
    """As `fastrnn.functional.gru_forward`."""
    x, (h0,), w_ih, w_hh, b_ih, b_hh, _ = inputs
    B, H = h0.shape
    plan = _plan(inputs, reverse)
    x_rows, h0_sorted = plan.pack(x), plan.sort(h0)
    h = empty((plan.rows, H), x.dtype)
    extra = empty((plan.rows if save else B, H), x.dtype)
    blocks, gate_rows = _gate_blocks(plan, 3 * H, x.itemsize, save)
    gates = empty((gate_rows, 3 * H), x.dtype)
    kind = "gru-after" if reset_after else "gru-before"
    cell = products.cell(kind, isa, w_hh, gru_bias(b_ih, b_hh, w_hh), plan.steps, B)
    sharing = _loop(products, plan, w_hh)
    for s0, s1, rows in blocks:
        products.forward(gates[: rows.stop - rows.start], x_rows[rows], w_ih)
        with products.looping(B, w_hh):
            forward(cell, plan, s0, s1, h, None, gates, extra, h0_sorted, None, save, sharing)
    y = plan.unpack(h)
    kept = (products, isa, plan, x_rows, h0_sorted, h, extra, gates, w_ih, w_hh, b_ih, b_hh, reset_after)
    return y, plan.last(h, h0_sorted), Cache("gru", products.engine, y, *kept) if save else None


def gru_backward(cache: Cache, dy: np.ndarray, dh: np.ndarray, need: frozenset[str]) -> GRUGrads:
    """As `fastrnn.functional.gru_backward`."""
    products, isa, plan, x_rows, h0, h, extra, gates, w_ih, w_hh, b_ih, b_hh, reset_after = cache.take()
    H = h0.shape[1]
    dh = plan.sort(dh)
    drh = empty((0 if reset_after else plan.B, H), h.dtype)
    recurrent = (products.recurrent_backward(w, plan.steps, plan.B) for w in (w_hh[: 2 * H], w_hh[2 * H :]))
    dy_rows = plan.pack(dy)

    sharing = _loop(products, plan, w_hh)
    with products.looping(plan.B, w_hh):
        back.gru(isa, plan, gates, extra, dh, drh, dy_rows, h, h0, *recurrent, reset_after, sharing)
    dgates = gates
    weights = NOTHING
    if need & WEIGHTS:
        weights = _gru_weight_gradients(products, plan, dgates, extra, x_rows, h, h0, b_ih, b_hh, reset_after)
    return GRUGrads(_input_gradient(products, plan, dgates, w_ih, need), plan.unsort(dh), *weights)


def _gru_weight_gradients(products, plan, dgates, extra, x_rows, h, h0, b_ih, b_hh, reset_after) -> tuple:
    H = h0.shape[1]
    dw_hh = empty((3 * H, H), h.dtype)
    _recurrent_gradient(products, plan, dgates[:, : 2 * H], h, h0, dw_hh[: 2 * H])
    if reset_after:
        dhn = extra
        _recurrent_gradient(products, plan, dhn, h, h0, dw_hh[2 * H :])
    else:
        rh = extra  # r h(t-1)
        products.weight_gradient(dgates[:, 2 * H :], rh, dw_hh[2 * H :])
    db_ih = db_hh = None
    if b_ih is not None or b_hh is not None:
        db_ih = db_hh = products.bias_gradient(dgates)
    if b_hh is not None:
        db_hh = db_ih.copy()
        if reset_after:
            db_hh[2 * H :] = products.bias_gradient(dhn)
    return (
        products.weight_gradient(dgates, x_rows),
        dw_hh,
        None if b_ih is None else db_ih,
        None if b_hh is None else db_hh,
    )
