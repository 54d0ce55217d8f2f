"""Losses: a number, and its gradient."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check


class CrossEntropyLoss:
    """
    Softmax cross-entropy against class indices, the mean over all of them, in nats, as `torch.nn.CrossEntropyLoss`.

    The classes are the last axis of the logits (PyTorch has them second).
    """

    def __call__(self, logits: ArrayLike, target: ArrayLike) -> float:
        """The loss of `logits` (..., C) against `target` (...)."""
        return self.forward(logits, target)[0]

    def forward(self, logits: ArrayLike, target: ArrayLike) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
        """The loss, and the cache for `backward`."""
        logits = _check.float_array("logits", logits)
        if logits.ndim == 0 or logits.size == 0:
            raise ValueError(f"logits: shape {logits.shape}, expected (..., C) with at least one element")
        classes = logits.shape[-1]
        target = _check.indices("target", target, classes)
        if target.shape != logits.shape[:-1]:
            raise ValueError(
                f"target: shape {target.shape}, expected {logits.shape[:-1]}, that of logits less the last"
            )
        rows, wanted = logits.reshape(-1, classes), target.ravel()
        shifted = rows - rows.max(axis=1, keepdims=True)  # so that exp cannot overflow
        chosen = shifted[np.arange(len(rows)), wanted]
        p = np.exp(shifted, out=shifted)
        total = p.sum(axis=1, keepdims=True)
        loss = float(np.mean(np.log(total[:, 0]) - chosen, dtype=np.float64))
        p /= total
        return loss, (p.reshape(logits.shape), target)

    def backward(self, cache: tuple[np.ndarray, np.ndarray], dloss: float = 1.0) -> np.ndarray:
        """The gradient with respect to the logits: (softmax - one-hot) / n."""
        p, target = cache
        d = p.reshape(-1, p.shape[-1]).copy()
        d[np.arange(len(d)), target.ravel()] -= 1
        d *= d.dtype.type(dloss / len(d))
        return d.reshape(p.shape)
