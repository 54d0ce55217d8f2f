"""The same module for every step of a sequence."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check
from fastrnn.module import Module
from fastrnn.nn._masking import valid_steps
from fastrnn.nn._running import run, run_backward


class TimeDistributedCache(NamedTuple):
    """What `backward` needs: the module's cache, the valid steps, and the shape and dtype of `y`."""

    inner: Any
    valid: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype


class TimeDistributed(Module):
    """
    A module that is run on every valid step of every sequence by itself, as if each were a sample.

    Parameters
    ----------
    module : Module
        From (M, ...) to (M, ...); of a recurrent layer, which must be ``batch_first``, the output is taken.

    Attributes
    ----------
    module : Module
    """

    uses_lengths = True

    def __init__(self, module: Module):
        super().__init__()
        if not isinstance(module, Module):
            raise TypeError(f"module: {type(module).__name__}, expected a fastrnn.Module")
        if not getattr(module, "batch_first", True):
            raise ValueError("module: batch_first False, expected True, for samples are on the first axis")
        self.module = module

    def __call__(self, x: ArrayLike, lengths: ArrayLike | None = None) -> np.ndarray:
        """`y` (N, T, ...) of `x` (N, T, ...), zeros past the ends that `lengths`, integers (N,), give."""
        return self._run(x, lengths, False)[0]

    def forward(self, x: ArrayLike, lengths: ArrayLike | None = None) -> tuple[np.ndarray, TimeDistributedCache]:
        """`y`, and the cache for `backward`."""
        return self._run(x, lengths, True)

    def backward(self, cache: TimeDistributedCache, dy: ArrayLike) -> np.ndarray | None:
        """Add into the gradients of the module; return that with respect to `x`, None where indices went in."""
        inner, valid, shape, dtype = cache
        dy = _check.shaped("dy", dy, dtype, "that of y", shape, "y")
        dsteps = run_backward(self.module, inner, dy[valid])
        return None if dsteps is None else _spread(dsteps, valid)

    def _run(self, x: Any, lengths: Any, training: bool) -> tuple[np.ndarray, TimeDistributedCache]:
        x = _check.as_array("x", x)
        if x.ndim < 2:
            raise ValueError(f"x: shape {x.shape}, expected (N, T, ...)")
        N, T = x.shape[:2]
        valid = valid_steps(lengths, None, N, T)
        valid = np.ones((N, T), bool) if valid is None else valid
        steps, inner = run(self.module, x[valid], training)
        y = _spread(steps, valid)
        return y, TimeDistributedCache(inner, valid, y.shape, y.dtype)


def _spread(steps: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The valid steps where they belong, zeros elsewhere."""
    y = np.zeros((*valid.shape, *steps.shape[1:]), steps.dtype)
    y[valid] = steps
    return y
