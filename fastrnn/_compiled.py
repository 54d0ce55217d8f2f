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


def plan_of(inputs: Inputs, reverse: bool) -> Plan:
    T, B, _ = inputs.x.shape
    mask = None if inputs.mask is None or inputs.mask.all() else inputs.mask
    reset = None if inputs.reset is None or not inputs.reset.any() else inputs.reset
    return Plan(T, B, inputs.lengths, reverse, mask, reset)


class _Kept:
    """
    How much of a forward pass is kept for backward: all of it, nothing, or with checkpoints what makes it anew.

    With checkpoints that is h, which is y, and an LSTM's c before each segment of so many steps; backward runs a
    segment forward again before it runs it back. The number of steps is rounded up to a multiple of
    `Plan.steps_at_once`, so that the sums over steps have the same bits.
    """

    def __init__(self, plan: Plan, save: bool, checkpoint: int | None):
        self.steps = None
        if save and checkpoint is not None and checkpoint < plan.steps:
            self.steps = -(-checkpoint // plan.steps_at_once) * plan.steps_at_once
        self.all = save and self.steps is None
        self.c: list[np.ndarray] = []

    def blocks(self, plan: Plan, width: int, itemsize: int) -> tuple[list, int]:
        """The runs of steps that forward works on, and how many rows of gates to allocate for them."""
        rows = None if self.all else max(64, BLOCK_BYTES // (width * itemsize))
        blocks = plan.blocks(rows, self.steps)
        return blocks, max((rows.stop - rows.start for _, _, rows in blocks), default=0)

    def before(self, s0: int, c: np.ndarray) -> None:
        """Keep c as it is before step s0, if a segment begins there."""
        if self.steps and s0 % self.steps == 0:
            self.c.append(c.copy())

    def segments(self, plan: Plan) -> list:
        """What backward works on, from the last one on."""
        return plan.blocks(None, self.steps)[::-1] or [(0, 0, slice(0, 0))]


def _shown(plan: Plan, gates: np.ndarray, names: str) -> dict[str, np.ndarray]:
    """The gates by name, one letter a block, as copies: backward makes gradients of them."""
    blocks = np.split(gates, len(names), axis=1)
    return {name: plan.unpack(block.copy()) for name, block in zip(names, blocks, strict=True)}


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


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


def loop_sharing(products: BlasProducts, plan: Plan, w_hh: np.ndarray) -> Sharing:
    """How threads share the time loop: ragged sequences get shorter in number, so count their rows."""
    return products.sharing(plan.steps, -(-plan.rows // max(1, plan.steps)), w_hh)


WEIGHTS = frozenset(("w_ih", "w_hh", "b_ih", "b_hh"))


class _Gradients:
    """Those of x, the weights and the biases, added up segment by segment."""

    def __init__(self, products, plan: Plan, x_rows, both, h0, w_ih, w_hh, b_ih, b_hh, need: frozenset[str]):
        self.products, self.plan, self.x_rows, self.both, self.h0, self.w_ih = products, plan, x_rows, both, h0, w_ih
        self.dx = empty(x_rows.shape, x_rows.dtype) if "x" in need else None
        self.weights = bool(need & WEIGHTS)
        if self.weights:
            self.dw_ih, self.dw_hh = empty(w_ih.shape, w_ih.dtype), empty(w_hh.shape, w_hh.dtype)
            self.db_ih, self.db_hh = (None if b is None else np.empty(b.shape, b.dtype) for b in (b_ih, b_hh))
        self.add = False

    def of_segment(self, s0: int, s1: int, rows: slice, dgates: np.ndarray, hidden: list | None = None) -> None:
        """
        Add those of the steps s0 <= s < s1.

        `hidden` is for the GRU, whose recurrent product has gradients of its own: (rows of W_hh, their gradient, what
        they were multiplied with, or None for h(t-1)) each. Otherwise that is dgates.
        """
        products, plan = self.products, self.plan
        if self.dx is not None:
            products.backward(self.dx[rows], dgates, self.w_ih)
        if not self.weights:
            return
        blocks = plan.blocks_of_sums(s0, s1)
        previous = plan.previous(self.both, self.h0, s0, s1)
        products.weight_gradient(self.dw_ih, dgates, self.x_rows[rows], blocks, self.add)
        for part, d, a in hidden or [(slice(None), dgates, None)]:
            products.weight_gradient(self.dw_hh[part], d, previous if a is None else a, blocks, self.add)
        if self.db_ih is not None:
            products.bias_gradient(self.db_ih, dgates, blocks, self.add)
        if self.db_hh is not None:
            for part, d, _ in hidden or [(slice(None), dgates, None)]:
                products.bias_gradient(self.db_hh[part], d, blocks, self.add)
        self.add = True

    def all(self) -> tuple[np.ndarray | None, ...]:
        """Those of x, W_ih, W_hh, b_ih, b_hh; None for what is not needed."""
        dx = None if self.dx is None else self.plan.unpack(self.dx)
        return (dx, self.dw_ih, self.dw_hh, self.db_ih, self.db_hh) if self.weights else (dx, None, None, None, None)


def rnn_forward(inputs: Inputs, products: BlasProducts, isa: str, nonlinearity: str, reverse: bool, save: bool):
    """As `fastrnn.functional.rnn_forward`."""
    x, (h0,), w_ih, w_hh, b_ih, b_hh, *_ = inputs
    plan = plan_of(inputs, reverse)
    x_rows, h0_sorted = plan.pack(x), plan.sort(h0)
    both = plan.states(h0_sorted)
    h = plan.of_steps(both)
    cell = products.cell(f"rnn-{nonlinearity}", isa, w_hh, bias_sum(b_ih, b_hh, w_hh), plan.steps, plan.B)
    products.forward(h, x_rows, w_ih)
    with products.looping(plan.B, w_hh):
        # save, so that the gates are all rows, from the first on; the states take their place
        forward(cell, plan, 0, plan.steps, h, None, h, None, h0_sorted, None, True, loop_sharing(products, plan, w_hh))
    y = plan.unpack(h)
    kept = (products, isa, plan, x_rows, h0_sorted, both, w_ih, w_hh, b_ih, b_hh, nonlinearity == "relu")
    cache = Cache("rnn", products.engine, y, *kept, gates=lambda: {"h": y}) if save else None
    return y, plan.last(h, h0_sorted), cache


def rnn_backward(cache: Cache, dy: np.ndarray, dh: np.ndarray, need: frozenset[str]) -> RNNGrads:
    """As `fastrnn.functional.rnn_backward`."""
    products, isa, plan, x_rows, h0, both, w_ih, w_hh, b_ih, b_hh, relu = cache.take()
    h, dh, dy_rows = plan.of_steps(both), plan.sort_ends(dh), plan.pack(dy)
    dpre = empty(h.shape, h.dtype)
    sharing = loop_sharing(products, plan, w_hh)
    recurrent = products.recurrent_backward(w_hh, plan.steps, plan.B, sharing.members)
    with products.looping(plan.B, w_hh):
        back.rnn(isa, plan, dpre, dh, dy_rows, h, recurrent, relu, sharing)
    grads = _Gradients(products, plan, x_rows, both, h0, w_ih, w_hh, b_ih, b_hh, need)
    grads.of_segment(0, plan.steps, slice(0, plan.rows), dpre)
    dx, *weights = grads.all()
    return RNNGrads(dx, plan.unsort(dh), *weights)


def lstm_forward(
    inputs: Inputs,
    products: BlasProducts,
    isa: str,
    reverse: bool,
    save: bool,
    checkpoint: int | None = None,
    cell_states: bool = False,
):
    """As `fastrnn.functional.lstm_forward`."""
    x, (h0, c0), w_ih, w_hh, b_ih, b_hh, *_ = inputs
    H = h0.shape[1]
    plan = plan_of(inputs, reverse)
    kept = _Kept(plan, save, checkpoint)
    x_rows, h0_sorted, c0_sorted = plan.pack(x), plan.sort(h0), plan.sort(c0)
    both = plan.states(h0_sorted)
    h = plan.of_steps(both)
    every_c = kept.all or cell_states
    c = empty((plan.rows, H), x.dtype) if every_c else c0_sorted.copy()
    blocks, gate_rows = kept.blocks(plan, 4 * H, x.itemsize)
    gates = empty((gate_rows, 4 * H), x.dtype)
    bias = bias_sum(b_ih, b_hh, w_hh)
    cell = products.cell("lstm", isa, w_hh, bias, plan.steps, plan.B)
    sharing = loop_sharing(products, plan, w_hh)
    for s0, s1, rows in blocks:
        # c(s0-1): a row for each sequence that runs at s0, which are the first of those before
        before = c if not every_c else c[plan.rows_of(s0 - 1)] if s0 else c0_sorted
        kept.before(s0, before)
        products.forward(gates[: rows.stop - rows.start], x_rows[rows], w_ih)
        with products.looping(plan.B, w_hh):
            c_rows = c[rows] if every_c else c
            forward(cell, plan, s0, s1, h, c_rows, gates, None, h0_sorted, before, every_c, sharing)
    y, h_n = plan.unpack(h), plan.last(h, h0_sorted)
    c_n = plan.last(c, c0_sorted) if every_c else plan.unsort_ends(c)
    shown = (plan.unpack(c),) if cell_states else ()
    if not save:
        return y, h_n, c_n, None, *shown
    values = (c, gates) if kept.all else (None, None)
    to_keep = (products, isa, plan, x_rows, h0_sorted, c0_sorted, both, kept, *values, bias, w_ih, w_hh, b_ih, b_hh)
    if kept.all:

        def show() -> dict[str, np.ndarray]:
            return _shown(plan, gates, "ifgo") | {"c": _read_only(plan.unpack(c)), "h": y}
    else:

        def show() -> dict[str, np.ndarray]:
            return lstm_forward(inputs, products, isa, reverse, True)[3].gates()

    return y, h_n, c_n, Cache("lstm", products.engine, y, *to_keep, gates=show), *map(_read_only, shown)


def lstm_backward(
    cache: Cache, dy: np.ndarray, dh: np.ndarray, dc: np.ndarray, dcs: np.ndarray | None, need: frozenset[str]
) -> LSTMGrads:
    """As `fastrnn.functional.lstm_backward`; dc is that of c_n, dcs that of all steps."""
    products, isa, plan, x_rows, h0, c0, both, kept, c, gates, bias, w_ih, w_hh, b_ih, b_hh = cache.take()
    h, dh, dc, dy_rows = plan.of_steps(both), plan.sort_ends(dh), plan.sort_ends(dc), plan.pack(dy)
    dcs_rows = None if dcs is None else plan.pack(dcs)
    sharing = loop_sharing(products, plan, w_hh)
    recurrent = products.recurrent_backward(w_hh, plan.steps, plan.B, sharing.members)
    grads = _Gradients(products, plan, x_rows, both, h0, w_ih, w_hh, b_ih, b_hh, need)
    cell = None if kept.all else products.cell("lstm", isa, w_hh, bias, plan.steps, plan.B)
    for s0, s1, rows in kept.segments(plan):
        before = c0
        if cell is not None:
            size, before = rows.stop - rows.start, kept.c.pop()
            c, gates = empty((size, h.shape[1]), h.dtype), empty((size, len(w_hh)), h.dtype)
            products.forward(gates, x_rows[rows], w_ih)
        with products.looping(plan.B, w_hh):
            if cell is not None:
                forward(cell, plan, s0, s1, h, c, gates, None, h0, before, True, sharing)
            back.lstm(isa, plan, s0, s1, gates, dh, dc, dy_rows, dcs_rows, c, before, recurrent, sharing)
        grads.of_segment(s0, s1, rows, gates)
    dx, *weights = grads.all()
    return LSTMGrads(dx, plan.unsort(dh), plan.unsort(dc), *weights)


def gru_forward(
    inputs: Inputs,
    products: BlasProducts,
    isa: str,
    reset_after: bool,
    reverse: bool,
    save: bool,
    checkpoint: int | None = None,
):
    """As `fastrnn.functional.gru_forward`."""
    x, (h0,), w_ih, w_hh, b_ih, b_hh, *_ = inputs
    plan = plan_of(inputs, reverse)
    B, H = plan.B, h0.shape[1]
    kept = _Kept(plan, save, checkpoint)
    x_rows, h0_sorted = plan.pack(x), plan.sort(h0)
    both = plan.states(h0_sorted)
    h = plan.of_steps(both)
    extra = empty((plan.rows if kept.all else B, H), x.dtype)
    blocks, gate_rows = kept.blocks(plan, 3 * H, x.itemsize)
    gates = empty((gate_rows, 3 * H), x.dtype)
    kind = "gru-after" if reset_after else "gru-before"
    bias = gru_bias(b_ih, b_hh, w_hh)
    cell = products.cell(kind, isa, w_hh, bias, plan.steps, B)
    sharing = loop_sharing(products, plan, w_hh)
    for s0, s1, rows in blocks:
        products.forward(gates[: rows.stop - rows.start], x_rows[rows], w_ih)
        with products.looping(B, w_hh):
            forward(cell, plan, s0, s1, h, None, gates, extra, h0_sorted, None, kept.all, sharing)
    y, h_n = plan.unpack(h), plan.last(h, h0_sorted)
    if not save:
        return y, h_n, None
    values = (extra, gates) if kept.all else (None, None)
    to_keep = (products, isa, plan, x_rows, h0_sorted, both, kept, *values, kind, bias, w_ih, w_hh, b_ih, b_hh)
    if kept.all:

        def show() -> dict[str, np.ndarray]:
            return _shown(plan, gates, "rzn") | {"h": y}
    else:

        def show() -> dict[str, np.ndarray]:
            return gru_forward(inputs, products, isa, reset_after, reverse, True)[2].gates()

    return y, h_n, Cache("gru", products.engine, y, *to_keep, gates=show)


def gru_backward(cache: Cache, dy: np.ndarray, dh: np.ndarray, need: frozenset[str]) -> GRUGrads:
    """As `fastrnn.functional.gru_backward`."""
    products, isa, plan, x_rows, h0, both, kept, extra, gates, kind, bias, w_ih, w_hh, b_ih, b_hh = cache.take()
    H, reset_after = h0.shape[1], kind == "gru-after"
    h, dh, dy_rows = plan.of_steps(both), plan.sort_ends(dh), plan.pack(dy)
    drh = empty((0 if reset_after else plan.B, H), h.dtype)
    rz, n = slice(0, 2 * H), slice(2 * H, 3 * H)
    sharing = loop_sharing(products, plan, w_hh)
    recurrent = [products.recurrent_backward(w_hh[part], plan.steps, plan.B, sharing.members) for part in (rz, n)]
    grads = _Gradients(products, plan, x_rows, both, h0, w_ih, w_hh, b_ih, b_hh, need)
    cell = None if kept.all else products.cell(kind, isa, w_hh, bias, plan.steps, plan.B)
    for s0, s1, rows in kept.segments(plan):
        if cell is not None:
            size = rows.stop - rows.start
            extra, gates = empty((size, H), h.dtype), empty((size, 3 * H), h.dtype)
            products.forward(gates, x_rows[rows], w_ih)
        with products.looping(plan.B, w_hh):
            if cell is not None:
                forward(cell, plan, s0, s1, h, None, gates, extra, h0, None, True, sharing)
            back.gru(isa, plan, s0, s1, gates, extra, dh, drh, dy_rows, h, h0, *recurrent, reset_after, sharing)
        # extra is now the gradient of h(t-1) W_hn' + b_hn, or it is still r h(t-1), which W_hn was multiplied with
        hidden_n = (n, extra, None) if reset_after else (n, gates[:, n], extra)
        grads.of_segment(s0, s1, rows, gates, [(rz, gates[:, rz], None), hidden_n])
    dx, *weights = grads.all()
    return GRUGrads(dx, plan.unsort(dh), *weights)
