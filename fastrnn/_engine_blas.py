"""The `blas` engine: everything, everywhere. Cython time loops, BLAS products, the gate functions of csrc.

Allocates, runs the loops of `_core`, and does with a few large products what needs no recurrence. Arguments have been
checked (`_check`). Below, *rows* are those of `_core.plan`.
"""

from __future__ import annotations

import math

import numpy as np

from fastrnn._blas_threads import step_products_of
from fastrnn._cache import Cache, GRUGrads, LSTMGrads, RNNGrads
from fastrnn._check import Inputs
from fastrnn._core import gru, lstm, rnn
from fastrnn._core.memory import empty
from fastrnn._core.plan import Plan
from fastrnn._product import multiply, product

# Without `save`, gates of this many bytes are worked on at a time, so that they stay in the L2 cache. With 512 KB the
# LSTM at T=1000, B=1, I=64, H=128 runs as fast as with 128 KB to 1 MB, and 1.1 times as fast as in one piece.
BLOCK_BYTES = 512 * 1024


# OpenBLAS's AVX-512 kernels read a small transposed operand at half the speed: at B=32, H=50 the recurrent product
# takes 6.3 us with W_hh as it is and 3.8 us with a transposed copy, which costs 2.8 us once. From H=128 on there is no
# gain. With few rows there is little, and a loss: those products then add up one by one, where they add up in as many
# partial sums as a vector has lanes, and the plain RNN at B=2, H=96 has 1.7 times the rounding error.
TRANSPOSE_BELOW = 32 * 1024  # elements of W_hh
TRANSPOSE_FROM_STEPS = 4
TRANSPOSE_FROM_BATCH = 8


def _recurrent_weights(w_hh: np.ndarray, plan: Plan) -> tuple[np.ndarray, bool]:
    """W_hh as the forward loops read it fastest, and whether it is transposed, (H, G*H)."""
    if w_hh.size <= TRANSPOSE_BELOW and plan.steps >= TRANSPOSE_FROM_STEPS and plan.B >= TRANSPOSE_FROM_BATCH:
        return np.ascontiguousarray(w_hh.T), True
    return w_hh, False


def _plan(inputs: Inputs, reverse: bool) -> Plan:
    T, B, _ = inputs.x.shape
    return Plan(T, B, inputs.lengths, reverse)


def _gate_blocks(plan: Plan, width: int, itemsize: int, save: bool) -> tuple[list, int]:
    """The runs of steps to work on, and how many rows of gates to allocate for them: all with `save`, else a block."""
    blocks = plan.blocks(None if save else max(64, BLOCK_BYTES // (width * itemsize)))
    return blocks, max((rows.stop - rows.start for _, _, rows in blocks), default=0)


def _bias_sum(inputs: Inputs) -> np.ndarray:
    b_ih, b_hh = inputs.b_ih, inputs.b_hh
    if b_ih is not None and b_hh is not None:
        return b_ih + b_hh
    if b_ih is None and b_hh is None:
        return np.zeros(len(inputs.w_hh), inputs.w_hh.dtype)
    return b_ih if b_ih is not None else b_hh


def _weight_gradient(d: np.ndarray, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """The product of d transposed with rows, summed over blocks of rows.

    One running sum over all T*B rows has up to 2.5 times the rounding error of NumPy's sum step by step; blocks of
    about the root of their number bring it down to the same. From 96 rows on they cost the product 3% of its speed.
    """
    if out is None:
        out = empty((d.shape[1], rows.shape[1]), d.dtype)
    block = max(96, math.isqrt(len(d)))
    for start in range(0, max(1, len(d)), block):
        multiply(out, d[start : start + block], rows[start : start + block], True, False, start > 0)
    return out


def _multiplied(plan: Plan, x_rows: np.ndarray, h: np.ndarray, h0: np.ndarray) -> np.ndarray:
    """Rows [x(t) 1 h(t-1) 0]: what W_ih, the biases and W_hh were multiplied with.

    One product with these gives all their gradients. At T=30, B=32, I=10, H=50 it takes 183 us with the copies; two
    products and a sum of rows took 240, for few inputs make a thin matrix. The zeros make the width a multiple of 16:
    with 61 columns OpenBLAS's AVX-512 kernel needs 202 us, with 64 it needs 169.
    """
    I, H = x_rows.shape[1], h.shape[1]
    rows = empty((plan.rows, -(-(I + 1 + H) // 16) * 16), h.dtype)
    rows[:, :I] = x_rows
    rows[:, I] = 1
    plan.previous(rows[:, I + 1 : I + 1 + H], h, h0)
    rows[:, I + 1 + H :] = 0
    return rows


def _split(dw: np.ndarray, I: int, H: int, *biases: np.ndarray | None) -> tuple[np.ndarray | None, ...]:
    """The gradients of W_ih, W_hh and each bias that is not None, from those of [W_ih b W_hh 0]."""
    return (
        np.ascontiguousarray(dw[:, :I]),
        np.ascontiguousarray(dw[:, I + 1 : I + 1 + H]),
        *(None if b is None else dw[:, I].copy() for b in biases),
    )


def rnn_forward(inputs: Inputs, isa: str, nonlinearity: str, reverse: bool, save: bool):
    """As `fastrnn.functional.rnn_forward`."""
    x, (h0,), w_ih, w_hh, b_ih, b_hh, _ = inputs
    plan = _plan(inputs, reverse)
    x_rows, h0_sorted = plan.pack(x), plan.sort(h0)
    h = empty((plan.rows, h0.shape[1]), x.dtype)
    relu = nonlinearity == "relu"
    multiply(h, x_rows, w_ih, False, True)
    with step_products_of(plan.B * w_hh.size):
        rnn.forward(isa, plan, h, h0_sorted, *_recurrent_weights(w_hh, plan), _bias_sum(inputs), relu)
    y = plan.unpack(h)
    kept = (isa, plan, x_rows, h0_sorted, h, w_ih, w_hh, b_ih, b_hh, relu)
    return y, plan.last(h, h0_sorted), Cache("rnn", "blas", y, *kept) if save else None


def rnn_backward(cache: Cache, dy: np.ndarray, dh: np.ndarray) -> RNNGrads:
    """As `fastrnn.functional.rnn_backward`."""
    isa, plan, x_rows, h0, h, w_ih, w_hh, b_ih, b_hh, relu = cache.take()
    dh = plan.sort(dh)
    dpre = empty(h.shape, h.dtype)
    with step_products_of(plan.B * w_hh.size):
        rnn.backward(isa, plan, dpre, dh, plan.pack(dy), h, w_hh, relu)
    dw = _weight_gradient(dpre, _multiplied(plan, x_rows, h, h0))
    dx = plan.unpack(product(dpre, w_ih))
    return RNNGrads(dx, plan.unsort(dh), *_split(dw, x_rows.shape[1], h.shape[1], b_ih, b_hh))


def lstm_forward(inputs: Inputs, isa: str, reverse: bool, save: bool):
    """As `fastrnn.functional.lstm_forward`."""
    x, (h0, c0), w_ih, w_hh, b_ih, b_hh, _ = inputs
    H = h0.shape[1]
    plan = _plan(inputs, reverse)
    x_rows, h0_sorted, c0_sorted = plan.pack(x), plan.sort(h0), plan.sort(c0)
    h = empty((plan.rows, H), x.dtype)
    c = empty((plan.rows, H), x.dtype) if save else c0_sorted.copy()
    blocks, gate_rows = _gate_blocks(plan, 4 * H, x.itemsize, save)
    gates = empty((gate_rows, 4 * H), x.dtype)
    recurrent, bias = _recurrent_weights(w_hh, plan), _bias_sum(inputs)
    for s0, s1, rows in blocks:
        multiply(gates[: rows.stop - rows.start], x_rows[rows], w_ih, False, True)
        with step_products_of(plan.B * w_hh.size):
            lstm.forward(isa, plan, s0, s1, h, c, gates, h0_sorted, c0_sorted, *recurrent, bias, save)
    y, h_n = plan.unpack(h), plan.last(h, h0_sorted)
    if not save:
        return y, h_n, plan.unsort(c), None
    kept = (isa, plan, x_rows, h0_sorted, c0_sorted, h, c, gates, w_ih, w_hh, b_ih, b_hh)
    return y, h_n, plan.last(c, c0_sorted), Cache("lstm", "blas", y, *kept)


def lstm_backward(cache: Cache, dy: np.ndarray, dh: np.ndarray, dc: np.ndarray) -> LSTMGrads:
    """As `fastrnn.functional.lstm_backward`."""
    isa, plan, x_rows, h0, c0, h, c, gates, w_ih, w_hh, b_ih, b_hh = cache.take()
    dh, dc = plan.sort(dh), plan.sort(dc)
    with step_products_of(plan.B * w_hh.size):
        lstm.backward(isa, plan, gates, dh, dc, plan.pack(dy), c, c0, w_hh)
    dgates = gates
    dw = _weight_gradient(dgates, _multiplied(plan, x_rows, h, h0))
    dx = plan.unpack(product(dgates, w_ih))
    return LSTMGrads(dx, plan.unsort(dh), plan.unsort(dc), *_split(dw, x_rows.shape[1], h.shape[1], b_ih, b_hh))


def gru_forward(inputs: Inputs, isa: str, reset_after: bool, reverse: bool, save: bool):
    """As `fastrnn.functional.gru_forward`."""
    x, (h0,), w_ih, w_hh, b_ih, b_hh, _ = inputs
    B, H = h0.shape
    plan = _plan(inputs, reverse)
    x_rows, h0_sorted = plan.pack(x), plan.sort(h0)
    h = empty((plan.rows, H), x.dtype)
    extra = empty((plan.rows if save else B, H), x.dtype)
    blocks, gate_rows = _gate_blocks(plan, 3 * H, x.itemsize, save)
    gates = empty((gate_rows, 3 * H), x.dtype)
    gh = empty((B if reset_after else 0, 3 * H), x.dtype)
    bias = np.zeros(4 * H, x.dtype)  # r z n of the input, r and z with the recurrent bias in it, then b_hn
    if b_ih is not None:
        bias[: 3 * H] = b_ih
    if b_hh is not None:
        bias[: 2 * H] += b_hh[: 2 * H]
        bias[3 * H :] = b_hh[2 * H :]
    recurrent = _recurrent_weights(w_hh, plan)
    for s0, s1, rows in blocks:
        multiply(gates[: rows.stop - rows.start], x_rows[rows], w_ih, False, True)
        with step_products_of(B * w_hh.size):
            gru.forward(isa, plan, s0, s1, h, extra, gates, gh, h0_sorted, *recurrent, bias, reset_after, save)
    y = plan.unpack(h)
    kept = (isa, plan, x_rows, h0_sorted, h, extra, gates, w_ih, w_hh, b_ih, b_hh, reset_after)
    return y, plan.last(h, h0_sorted), Cache("gru", "blas", y, *kept) if save else None


def gru_backward(cache: Cache, dy: np.ndarray, dh: np.ndarray) -> GRUGrads:
    """As `fastrnn.functional.gru_backward`."""
    isa, plan, x_rows, h0, h, extra, gates, w_ih, w_hh, b_ih, b_hh, reset_after = cache.take()
    H = h0.shape[1]
    dh = plan.sort(dh)
    drh = empty((0 if reset_after else plan.B, H), h.dtype)
    with step_products_of(plan.B * w_hh.size):
        gru.backward(isa, plan, gates, extra, dh, drh, plan.pack(dy), h, h0, w_hh, reset_after)
    dgates, I = gates, x_rows.shape[1]
    rows = _multiplied(plan, x_rows, h, h0)
    dw = empty((3 * H, rows.shape[1]), h.dtype)
    _weight_gradient(dgates[:, : 2 * H], rows, dw[: 2 * H])
    _weight_gradient(dgates[:, 2 * H :], rows[:, : I + 1], dw[2 * H :, : I + 1])
    if reset_after:
        dhn = extra
        from_hidden = _weight_gradient(dhn, rows[:, I : I + 1 + H])  # of b_hn, W_hn
        dw[2 * H :, I + 1 : I + 1 + H] = from_hidden[:, 1:]
    else:
        rh = extra
        _weight_gradient(dgates[:, 2 * H :], rh, dw[2 * H :, I + 1 : I + 1 + H])
    grads = GRUGrads(plan.unpack(product(dgates, w_ih)), plan.unsort(dh), *_split(dw, I, H, b_ih, b_hh))
    if reset_after and b_hh is not None:
        grads.b_hh[2 * H :] = from_hidden[:, 0]
    return grads
