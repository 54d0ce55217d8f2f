"""The short way of a pass: dense sequences in plain arrays, on the native engine. Everything else goes the long one.

`_core.dense` has it in one compiled call forward and one back. Both ways have the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import _check, _settings, _sharing
from fastrnn._cache import Cache, GRUGrads, LSTMGrads, RNNGrads
from fastrnn._core import dense
from fastrnn._core.cell import KINDS

LETTERS = {"lstm": "ifgo", "gru": "rzn"}
GRADS = {"rnn": RNNGrads, "lstm": LSTMGrads, "gru": GRUGrads}


class DenseCache(Cache):
    """That of a pass by the short way, made without what others need besides."""

    __slots__ = ()

    def __init__(self, y: np.ndarray, kept: dense.Pass):
        self.cell, self.engine, self.y, self._kept = kept.cell, "native", y, [(kept,)]

    def _show(self, kept: dense.Pass) -> dict[str, np.ndarray]:
        if self.cell == "rnn":
            return {"h": self.y}
        other, gates = kept.show()
        blocks = np.split(gates, len(LETTERS[self.cell]), axis=2)  # copied: backward makes gradients of them
        shown = {name: block.copy() for name, block in zip(LETTERS[self.cell], blocks, strict=True)}
        if self.cell == "lstm":
            other.flags.writeable = False
            shown["c"] = other
        return shown | {"h": self.y}


def forward(
    cell: str, kind: str, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, reverse: Any, save: Any
) -> tuple | None:
    """As `fastrnn.functional.<cell>_forward`; `kind` is of `_core.cell`. None where it has to go the long way."""
    engine, isa = _settings.resolve()
    if engine != "native":
        return None
    cache_of = DenseCache if save else None
    results = dense.forward(isa, kind, x, h0, c0, w_ih, w_hh, b_ih, b_hh, reverse, cache_of, _sharing)
    if results is None and kind in KINDS:  # what is not plain is converted, or refused
        states = {"h0": h0, "c0": c0} if cell == "lstm" else {"h0": h0}
        x, states, *rest = _check.sequence_inputs(cell, x, states, w_ih, w_hh, b_ih, b_hh, None)[:6]
        arrays = x, *states, *([] if cell == "lstm" else [None]), *rest
        results = dense.forward(isa, kind, *arrays, reverse, cache_of, _sharing)
    return results


def backward(
    cell: str, cache: Any, dy: Any, dh_n: Any, dc_n: Any, dc: Any, need: frozenset[str]
) -> RNNGrads | LSTMGrads | GRUGrads | None:
    """As `fastrnn.functional.<cell>_backward`. None where `cache` is of the long way, or of no use."""
    if type(cache) is not DenseCache or cache.cell != cell:
        return None
    try:
        ((kept,),) = cache._kept
    except ValueError:  # used
        return None
    grads = kept.backward(cache.take, dy, dh_n, dc_n, dc, need)
    if grads is None:  # what is not plain is converted, or refused
        ends = {"dh_n": dh_n, "dc_n": dc_n} if cell == "lstm" else {"dh_n": dh_n}
        dy, states = _check.output_gradients(cell, "compiled", cache, dy, ends)
        arrays = dy, *states, *([] if cell == "lstm" else [None]), _check.step_gradients(cache, dc)
        grads = kept.backward(cache.take, *arrays, need)
    return tuple.__new__(GRADS[cell], grads)  # past the class's own __new__, which is Python
