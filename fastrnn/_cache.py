"""What a forward pass keeps for its backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class RNNGrads(NamedTuple):
    """Gradients of `rnn_forward`'s arguments, each of its argument's shape; a bias that was None has None.

    `variant` has those of the arrays of a `Variant`, by name; it is None where there was none.
    """

    x: np.ndarray
    h0: np.ndarray
    w_ih: np.ndarray
    w_hh: np.ndarray
    b_ih: np.ndarray | None
    b_hh: np.ndarray | None
    variant: dict[str, np.ndarray] | None = None


class LSTMGrads(NamedTuple):
    """Gradients of `lstm_forward`'s arguments, each of its argument's shape; a bias that was None has None.

    `variant` has those of the arrays of a `Variant`, by name; it is None where there was none.
    """

    x: np.ndarray
    h0: np.ndarray
    c0: np.ndarray
    w_ih: np.ndarray
    w_hh: np.ndarray
    b_ih: np.ndarray | None
    b_hh: np.ndarray | None
    variant: dict[str, np.ndarray] | None = None


class GRUGrads(NamedTuple):
    """Gradients of `gru_forward`'s arguments, each of its argument's shape; a bias that was None has None.

    `variant` has those of the arrays of a `Variant`, by name; it is None where there was none.
    """

    x: np.ndarray
    h0: np.ndarray
    w_ih: np.ndarray
    w_hh: np.ndarray
    b_ih: np.ndarray | None
    b_hh: np.ndarray | None
    variant: dict[str, np.ndarray] | None = None


class IndRNNGrads(NamedTuple):
    """Gradients of `indrnn_forward`'s arguments, each of its argument's shape; a bias that was None has None."""

    x: np.ndarray
    h0: np.ndarray
    w_ih: np.ndarray
    u: np.ndarray
    b: np.ndarray | None


class MinGRUGrads(NamedTuple):
    """Gradients of `mingru_forward`'s arguments, each of its argument's shape; a bias that was None has None."""

    x: np.ndarray
    h0: np.ndarray
    w_ih: np.ndarray
    b: np.ndarray | None


class MinLSTMGrads(NamedTuple):
    """Gradients of `minlstm_forward`'s arguments, each of its argument's shape; a bias that was None has None."""

    x: np.ndarray
    h0: np.ndarray
    w_ih: np.ndarray
    b: np.ndarray | None


class Cache:
    """The way from a forward pass to its backward pass: opaque, and good for one use.

    It refers to the arrays of the forward pass and does not copy them: change neither `x` nor the weights before
    backward has run. (`y` is read-only for the same reason.) The compiled engines turn what is kept into gradients
    in place, which is why a second backward is refused.
    """

    __slots__ = ("_gates", "_kept", "cell", "engine", "y")

    def __init__(self, cell: str, engine: str, y: np.ndarray, *kept: Any, gates: Callable[[], dict[str, np.ndarray]]):
        y.setflags(write=False)
        self._gates: Callable[[], dict[str, np.ndarray]] | None = gates
        self.cell, self.engine, self.y = cell, engine, y
        self._kept = [kept]  # of two threads, or of a copy of this cache, one can take it out

    def __repr__(self) -> str:
        state = "used" if self.used else "unused"
        return f"<{self.cell} cache of y {self.y.shape} {self.y.dtype}, engine {self.engine}, {state}>"

    @property
    def used(self) -> bool:
        """Whether backward has taken what this cache kept."""
        return not self._kept

    def gates(self) -> dict[str, np.ndarray]:
        """
        Show what the cell did at every step, until backward has used the cache.

        Returns
        -------
        dict of str to array (T, B, H)
            After the activations: of an LSTM i f g o c h, of a GRU r z n h, of a minLSTM f i h, of a minGRU z h, of an
            RNN or IndRNN h; zeros where no sequence runs. Some are read-only. With checkpoints forward is run again,
            for all steps at once.

        Raises
        ------
        ValueError
            For a cache that is used.
        """
        shown = None if (kept := self.peek()) is None else self._show(*kept)
        if shown is None:
            raise ValueError("cache: it has been used by a backward pass already, which leaves no gates to show")
        return shown

    def _show(self, *kept: Any) -> dict[str, np.ndarray] | None:
        gates = self._gates  # another thread may take it
        return None if gates is None else gates()

    def peek(self) -> tuple | None:
        """What is kept, which stays here; None once it is used."""
        return next(iter(self._kept), None)

    def take(self) -> tuple:
        """What was kept, once."""
        try:
            kept = self._kept.pop()
        except IndexError:
            raise ValueError(
                "cache: it has been used by a backward pass already; run forward again for another one"
            ) from None
        self._gates = None
        return kept


class VariantCache(Cache):
    """That of a call with a `Variant`; `c_width` is the width of an LSTM's c, which a projected h has not."""

    __slots__ = ("c_width",)

    def __init__(self, cell: str, engine: str, y: np.ndarray, c_width: int, *kept: Any, gates: Callable):
        super().__init__(cell, engine, y, *kept, gates=gates)
        self.c_width = c_width
