"""From all steps of a sequence to one vector: the last step, both ends, or the mean."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check
from fastrnn.module import Module
from fastrnn.nn._masking import cleared, valid_steps


class LastStepCache(NamedTuple):
    """What `backward` needs: the shape of `x`, the sequences that have a step, and the last one of each."""

    shape: tuple[int, ...]
    rows: np.ndarray
    steps: np.ndarray


class LastStep(Module):
    """
    The last valid step of each sequence.

    Of a bidirectional layer the last step holds the other direction's first one only; `FinalState`, or `MeanOverTime`,
    hold more.
    """

    uses_lengths = True

    def __call__(self, x: ArrayLike, lengths: ArrayLike | None = None) -> np.ndarray:
        """`y` (N, ...) of `x` (N, T, ...), zeros for a sequence without steps; `lengths` are integers (N,)."""
        return self.forward(x, lengths)[0]

    def forward(self, x: ArrayLike, lengths: ArrayLike | None = None) -> tuple[np.ndarray, LastStepCache]:
        """`y`, and the cache for `backward`."""
        x = _steps(x)
        N, T = x.shape[:2]
        lengths = _check.lengths_array(lengths, T, N)
        lengths = np.full(N, T) if lengths is None else lengths
        rows = np.flatnonzero(lengths)
        y = np.zeros((N, *x.shape[2:]), x.dtype)
        y[rows] = x[rows, lengths[rows] - 1]
        return y, LastStepCache(x.shape, rows, lengths[rows] - 1)

    def backward(self, cache: LastStepCache, dy: ArrayLike) -> np.ndarray:
        """The gradient with respect to `x`: zeros but for the last steps."""
        shape, rows, steps = cache
        dy = _check.float_array("dy", dy)
        dy = _check.shaped("dy", dy, dy.dtype, "that of y", (shape[0], *shape[2:]))
        dx = np.zeros(shape, dy.dtype)
        dx[rows, steps] = dy[rows]
        return dx


class MeanCache(NamedTuple):
    """What `backward` needs: the shape of `x`, the steps that count, and one over how many these are."""

    shape: tuple[int, ...]
    valid: np.ndarray | None
    inverse: np.ndarray


class MeanOverTime(Module):
    """The mean of the valid steps of each sequence."""

    uses_lengths = True

    def __call__(self, x: ArrayLike, lengths: ArrayLike | None = None, *, mask: ArrayLike | None = None) -> np.ndarray:
        """
        `y` (N, ...) of `x` (N, T, ...), zeros for a sequence without valid steps.

        Those are the ones within `lengths`, integers (N,), where `mask`, bool (N, T), is True.
        """
        return self.forward(x, lengths, mask=mask)[0]

    def forward(
        self, x: ArrayLike, lengths: ArrayLike | None = None, *, mask: ArrayLike | None = None
    ) -> tuple[np.ndarray, MeanCache]:
        """`y`, and the cache for `backward`."""
        x = _steps(x)
        N, T = x.shape[:2]
        valid = valid_steps(lengths, mask, N, T)
        count = np.full(N, T) if valid is None else valid.sum(axis=1)
        inverse = (1 / np.maximum(count, 1)).astype(x.dtype).reshape(N, *(1,) * (x.ndim - 2))
        return cleared(x, valid).sum(axis=1) * inverse, MeanCache(x.shape, valid, inverse)

    def backward(self, cache: MeanCache, dy: ArrayLike) -> np.ndarray:
        """The gradient with respect to `x`."""
        shape, valid, inverse = cache
        dy = _check.shaped("dy", dy, inverse.dtype, "that of y", (shape[0], *shape[2:]))
        dx = np.broadcast_to((dy * inverse)[:, None], shape)
        return dx.copy() if valid is None else cleared(dx, valid)


def _steps(x: Any) -> np.ndarray:
    x = _check.float_array("x", x)
    if x.ndim < 2:
        raise ValueError(f"x: shape {x.shape}, expected (N, T, ...)")
    return x
