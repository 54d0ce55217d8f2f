"""How the NumPy reference goes through the steps of a batch, and the one gate function NumPy lacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def sigmoid(a: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-a)), written so that exp never overflows."""
    e = np.exp(-np.abs(a))
    return np.where(a >= 0, 1 / (1 + e), e / (1 + e))


class Walk:
    """The order of the time steps of a batch, who is running at each, and who starts anew there."""

    def __init__(
        self,
        T: int,
        lengths: np.ndarray | None,
        reverse: bool,
        mask: np.ndarray | None = None,
        reset: np.ndarray | None = None,
    ):
        self.times = list(range(T - 1, -1, -1) if reverse else range(T))
        self.running = None if mask is None else mask[:, :, None]
        self.reset = None if reset is None else reset[:, :, None]
        if lengths is not None:
            inside = np.arange(T)[:, None, None] < lengths[:, None]
            self.running = inside if mask is None else inside & self.running
            self.reset = None if reset is None else inside & self.reset

    def __iter__(self) -> Iterator[int]:
        return iter(self.times)

    def __reversed__(self) -> Iterator[int]:
        return reversed(self.times)

    def where_running(self, t: int, value: np.ndarray, otherwise: Any) -> np.ndarray:
        """`value` for the sequences that run at time t, `otherwise` for the rest."""
        return value if self.running is None else np.where(self.running[t], value, otherwise)

    def zeros_where_reset(self, t: int, state: np.ndarray) -> np.ndarray:
        """The state that step t begins with. Also the gradient of the one before, which is of no use after a reset."""
        return state if self.reset is None else np.where(self.reset[t], state.dtype.type(0), state)

    def without_padding(self, a: np.ndarray) -> np.ndarray:
        """A (T, B, n) array with zeros where no sequence runs, so that what stood there cannot matter, NaN included."""
        return a if self.running is None else np.where(self.running, a, a.dtype.type(0))

    def by_name(self, steps: dict[int, tuple], names: tuple[str, ...], like: np.ndarray) -> dict[str, np.ndarray]:
        """The first values kept of each step, as arrays like `like` over all of them."""
        result = {name: np.zeros_like(like) for name in names}
        for t, values in steps.items():
            for name, value in zip(names, values, strict=False):
                result[name][t] = self.where_running(t, value, 0)
        return result
