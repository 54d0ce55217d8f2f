"""The compiled engines for the cells whose recurrence is element by element: IndRNN, minGRU, minLSTM.

One product gives every step's gates, one time loop (`_core.scan`) the states; back, the loop gives the gates' gradients
and a few large products those of the weights. Arguments have been checked (`_check`); *rows* are those of `_core.plan`.
"""

from __future__ import annotations

import numpy as np

from fastrnn import _compiled
from fastrnn._cache import Cache, IndRNNGrads, MinGRUGrads, MinLSTMGrads
from fastrnn._check import ElementwiseInputs
from fastrnn._core import scan
from fastrnn._core.memory import empty
from fastrnn._core.plan import Plan
from fastrnn._products import BlasProducts
from fastrnn._sharing import Sharing

ROWS_AT_ONCE = 256  # of a sum over rows
SHOWN = {"mingru": "z", "minlstm": "fi"}  # the gates before the candidate


def _bias(b: np.ndarray | None, w_ih: np.ndarray) -> np.ndarray:
    return np.zeros(len(w_ih), w_ih.dtype) if b is None else b


def _sharing(products: BlasProducts, plan: Plan, width: int, parallel: bool) -> Sharing:
    """How threads share a loop over all rows, of so many gates each."""
    parts = plan.steps // scan.STEPS_AT_ONCE if parallel else max(plan.B, width // 64)
    return products.scanning(plan.rows * width, parts)


def _weight_gradients(products: BlasProducts, plan: Plan, x_rows, w_ih, b, dgates, need: frozenset[str]):
    """Those of x, W_ih and b; None for what is not needed."""
    dx = dw_ih = db = None
    if "x" in need:
        dx = empty(x_rows.shape, x_rows.dtype)
        products.backward(dx, dgates, w_ih)
        dx = plan.unpack(dx)
    blocks = plan.blocks_of_sums(0, plan.steps)
    if "w_ih" in need:
        dw_ih = empty(w_ih.shape, w_ih.dtype)
        products.weight_gradient(dw_ih, dgates, x_rows, blocks, False)
    if "b" in need and b is not None:
        db = np.empty(b.shape, b.dtype)
        products.bias_gradient(db, dgates, blocks, False)
    return dx, dw_ih, db


def indrnn_forward(
    inputs: ElementwiseInputs, products: BlasProducts, isa: str, nonlinearity: str, reverse: bool, save: bool
):
    """As `fastrnn.functional.indrnn_forward`."""
    x, h0, w_ih, u, b, *_ = inputs
    plan = _compiled.plan_of(inputs, reverse)
    kind = f"indrnn-{nonlinearity}"
    x_rows, h0_sorted = plan.pack(x), plan.sort(h0)
    h = empty((plan.rows, len(u)), x.dtype)
    products.forward(h, x_rows, w_ih)
    sharing = _sharing(products, plan, len(u), False)
    scan.forward(
        isa, plan, kind, 0, plan.steps, h, h, _bias(b, w_ih), u, h0_sorted, h0_sorted, False, False, False, sharing
    )
    y = plan.unpack(h)
    kept = (products, isa, plan, kind, x_rows, h0_sorted, h, w_ih, u, b)
    cache = Cache("indrnn", products.engine, y, *kept, gates=lambda: {"h": y}) if save else None
    return y, plan.last(h, h0_sorted), cache


def indrnn_backward(cache: Cache, dy: np.ndarray, dh: np.ndarray, need: frozenset[str]) -> IndRNNGrads:
    """As `fastrnn.functional.indrnn_backward`."""
    products, isa, plan, kind, x_rows, h0, h, w_ih, u, b = cache.take()
    dh, dpre = plan.sort_ends(dh), empty(h.shape, h.dtype)
    sharing = _sharing(products, plan, len(u), False)
    parts = scan.backward(isa, plan, kind, dpre, dh, plan.pack(dy), h, u, h0, False, False, sharing)
    edges = np.append(np.arange(0, len(parts), ROWS_AT_ONCE, dtype=np.intp), len(parts))
    du = np.empty(u.shape, u.dtype)
    products.bias_gradient(du, parts, np.stack((edges[:-1], edges[1:]), axis=1), False)
    dx, dw_ih, db = _weight_gradients(products, plan, x_rows, w_ih, b, dpre, need)
    return IndRNNGrads(dx, plan.unsort(dh), dw_ih, du, db)


def min_forward(
    cell: str,
    inputs: ElementwiseInputs,
    products: BlasProducts,
    isa: str,
    positive: bool,
    parallel: bool,
    reverse: bool,
    save: bool,
):
    """As `fastrnn.functional.mingru_forward` and `minlstm_forward`: `cell` says which."""
    x, h0, w_ih, _, b, *_ = inputs
    plan = _compiled.plan_of(inputs, reverse)
    parallel = parallel and plan.steps > scan.STEPS_AT_ONCE
    bias, width = _bias(b, w_ih), len(w_ih)
    x_rows, h0_sorted = plan.pack(x), plan.sort(h0)
    h = empty((plan.rows, h0.shape[1]), x.dtype)
    steps = None
    if not save:
        # Whole chunks, so that the states have the same bits as with `save`.
        steps = _compiled.BLOCK_BYTES // (width * x.itemsize * max(1, plan.B))
        steps = max(1, steps // scan.STEPS_AT_ONCE) * scan.STEPS_AT_ONCE
    blocks = plan.blocks(None, steps)
    gates = empty((max((rows.stop - rows.start for _, _, rows in blocks), default=0), width), x.dtype)
    start = h0_sorted.copy() if parallel else h0_sorted
    sharing = _sharing(products, plan, width, parallel)
    for s0, s1, rows in blocks:
        part = gates[: rows.stop - rows.start]
        products.forward(part, x_rows[rows], w_ih)
        scan.forward(isa, plan, cell, s0, s1, h, part, bias, None, h0_sorted, start, positive, save, parallel, sharing)
    y, h_n = plan.unpack(h), plan.last(h, h0_sorted)
    kept = (products, isa, plan, cell, positive, parallel, x_rows, h0_sorted, h, gates, w_ih, b)

    def show() -> dict[str, np.ndarray]:
        return _compiled._shown(plan, gates[:, : -h.shape[1]], SHOWN[cell]) | {"h": y}

    return y, h_n, Cache(cell, products.engine, y, *kept, gates=show) if save else None


def _min_backward(grads, cache: Cache, dy: np.ndarray, dh: np.ndarray, need: frozenset[str]):
    products, isa, plan, cell, positive, parallel, x_rows, h0, h, gates, w_ih, b = cache.take()
    dh = plan.sort_ends(dh)
    sharing = _sharing(products, plan, gates.shape[1], parallel)
    scan.backward(isa, plan, cell, gates, dh, plan.pack(dy), h, None, h0, positive, parallel, sharing)
    dx, dw_ih, db = _weight_gradients(products, plan, x_rows, w_ih, b, gates, need)
    return grads(dx, plan.unsort(dh), dw_ih, db)


def mingru_backward(cache: Cache, dy: np.ndarray, dh: np.ndarray, need: frozenset[str]) -> MinGRUGrads:
    """As `fastrnn.functional.mingru_backward`."""
    return _min_backward(MinGRUGrads, cache, dy, dh, need)


def minlstm_backward(cache: Cache, dy: np.ndarray, dh: np.ndarray, need: frozenset[str]) -> MinLSTMGrads:
    """As `fastrnn.functional.minlstm_backward`."""
    return _min_backward(MinLSTMGrads, cache, dy, dh, need)
