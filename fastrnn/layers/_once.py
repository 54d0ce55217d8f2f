"""A stack of plain cells run in one compiled call with weights as they are now: what a frozen layer does, for once."""

from __future__ import annotations

import numpy as np

from fastrnn import _check, _settings, _sharing
from fastrnn._compiled import bias_sum, gru_bias
from fastrnn._core import stack
from fastrnn._core.cell import Cell
from fastrnn._core.matrix import Matrix
from fastrnn._core.plan import Plan

# All weights are packed for the call. For few rows of large ones that takes longer than the functions, which then read
# them as they are: LSTM, one row, 64 to 128 units 36 and 71 us, 256 to 512 units 1.4 and 0.5 ms.
ROWS, ELEMENTS = 16, 200_000

Weights = tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]  # w_ih, w_hh, b_ih, b_hh


def run_once(
    kind: str,
    weights: list[list[Weights]],
    x: np.ndarray,
    states: list[np.ndarray | None],
    lengths: np.ndarray | None = None,
) -> tuple[np.ndarray, tuple[np.ndarray, ...]] | None:
    """
    Run, and save nothing.

    Parameters
    ----------
    kind : str
        As `_core.cell.Cell` has it.
    weights : list of list of Weights
        Of each layer and direction.
    x : array (T, B, I)
    states : list of array (L*D, B, H) or None
        One for each state of the cell; None is zeros.
    lengths : integers (B,), optional

    Returns
    -------
    y : array (T, B, D*H)
    states : tuple of array (L*D, B, H)
        None instead of both where the functions do it better, or say better what is wrong.
    """
    engine, isa = _settings.resolve()
    T, B, width = x.shape
    w_ih, w_hh = weights[0][0][:2]
    if engine != "native" or (T * B < ROWS and w_ih.size + w_hh.size > ELEMENTS):
        return None
    D, H = len(weights[0]), w_hh.shape[-1]
    rows = _check.GATES[kind.split("-")[0]] * H
    chain = []
    for directions in weights:
        layer = None
        for parts in reversed(directions):
            if not _fit(parts, rows, width, H, x.dtype):
                return None
            bias = (gru_bias if kind.startswith("gru") else bias_sum)(*parts[2:], parts[1])
            matrix = Matrix(np.ascontiguousarray(parts[0]), isa=isa)
            layer = stack.Layer(matrix, Cell(kind, isa, bias, np.ascontiguousarray(parts[1])), layer)
        chain.append(layer)
        width = D * H
    plans = None
    if lengths is not None:
        lengths = _check.lengths_array(lengths, T, B)
        plans = Plan(T, B, lengths, False), Plan(T, B, lengths, True)

    def sharing(steps: int, batch: int) -> _sharing.Sharing:
        if plans is not None:  # fewer and fewer sequences run
            steps, batch = plans[0].steps, -(-plans[0].rows // max(1, plans[0].steps))
        return _sharing.passing(steps, batch, w_hh.size, w_hh.itemsize, w_ih.size, len(weights), D)

    start = None
    if any(state is not None for state in states):
        shape = (len(weights) * D, B, H)
        start = [
            np.zeros(shape, x.dtype) if s is None else s if plans is None else plans[0].sort_states(s) for s in states
        ]
        start = tuple(map(np.ascontiguousarray, start))
        start = start if len(start) > 1 else start[0]
    done = stack.Stack(chain, x.dtype).run(np.ascontiguousarray(x), start, plans, None, sharing)
    if done is None:
        return None
    y, final = done
    final = final if isinstance(final, tuple) else (final,)
    return y, final if plans is None else tuple(map(plans[0].unsort_states, final))


def _fit(parts: Weights, rows: int, width: int, H: int, dtype: np.dtype) -> bool:
    """Whether weights have these shapes and this type; nothing below looks at them again."""
    shapes = (rows, width), (rows, H), (rows,), (rows,)
    return all(a is None or (a.shape == s and a.dtype == dtype) for a, s in zip(parts, shapes, strict=True))
