"""Which steps count: masks of lengths, arrays without their padding, softmax over what counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import _check


def valid_steps(lengths: Any, mask: Any, N: int, T: int) -> np.ndarray | None:
    """Where a step is within its sequence and `mask` is True: bool (N, T), or None for everywhere."""
    lengths = _check.lengths_array(lengths, T, N)
    mask = _check.flags_array("mask", mask, "(N, T)", (N, T))
    if lengths is None:
        return mask
    within = np.arange(T) < lengths[:, None]
    return within if mask is None else within & mask


def cleared(x: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """`x` with zeros where `valid`, which covers its first axes, is False. Not a product: 0 * NaN is NaN."""
    if valid is None:
        return x
    return np.where(valid.reshape(valid.shape + (1,) * (x.ndim - valid.ndim)), x, x.dtype.type(0))


def softmax(scores: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Over the last axis, of what `mask` has True alone; zeros where that is nothing."""
    if mask is not None:
        scores = np.where(mask, scores, scores.dtype.type(-np.inf))
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    top[np.isneginf(top)] = 0
    p = np.exp(scores - top)
    total = p.sum(axis=-1, keepdims=True)
    total[total == 0] = 1
    p /= total
    return p


def softmax_backward(p: np.ndarray, dp: np.ndarray) -> np.ndarray:
    """The gradient with respect to the scores: p * (dp - sum of p * dp)."""
    return p * (dp - (p * dp).sum(axis=-1, keepdims=True))
