"""Dropout."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check
from fastrnn.module import Module


class Dropout(Module):
    """
    In training, each element is 0 with probability `p`, and is divided by ``1 - p`` otherwise; as `torch.nn.Dropout`.

    Parameters
    ----------
    p : float
        From 0, which does nothing and draws no numbers, to 1.
    rng : int, numpy.random.Generator or None
        The source of chance; an int is a seed.

    Notes
    -----
    Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014.
    """

    def __init__(self, p: float = 0.5, *, rng: int | np.random.Generator | None = None):
        super().__init__()
        if not 0 <= p <= 1:  # True for NaN too
            raise ValueError(f"p: {p!r}, expected a probability from 0 to 1")
        self.p = float(p)
        self.rng = np.random.default_rng(rng)

    def __call__(self, x: ArrayLike) -> np.ndarray:
        """`x` itself."""
        return _check.float_array("x", x)

    def forward(self, x: ArrayLike) -> tuple[np.ndarray, np.ndarray | None]:
        """`y` (...) of `x` (...), and the cache for `backward`: what `x` was multiplied with, None for 1."""
        x = _check.float_array("x", x)
        factors = self.factors(x.shape, x.dtype)
        return (x if factors is None else x * factors), factors

    def backward(self, cache: np.ndarray | None, dy: ArrayLike) -> np.ndarray:
        """The gradient with respect to `x`."""
        if cache is None:
            return _check.float_array("dy", dy)
        return _check.shaped("dy", dy, cache.dtype, "that of y", cache.shape) * cache

    def factors(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
        """What an array of this shape is to be multiplied with, drawn anew: 0 or ``1 / (1 - p)``; None for `p` = 0."""
        if not self.p:
            return None
        keep = 1 - self.p
        kept = (self.rng.random(shape, dtype=dtype) < keep).astype(dtype)
        return kept / dtype.type(keep) if keep else kept
