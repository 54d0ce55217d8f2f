"""Losses: a number, and its gradient. `mask` says what counts; nothing else has any effect, be it NaN."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from fastrnn import _check
from fastrnn.nn._masking import cleared


class LossCache(NamedTuple):
    """What `backward` needs: the gradient for a sum, and the number of terms that the loss is the mean of."""

    gradient: np.ndarray
    count: int


class Loss:
    """What the losses have in common: a mean over all terms, or over those where `mask` is True."""

    def __call__(self, prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> float:
        """The loss; the arguments are those of `forward`."""
        return self.forward(prediction, target, mask)[0]

    def forward(
        self, prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None
    ) -> tuple[float, LossCache]:
        """The loss, and the cache for `backward`."""
        raise NotImplementedError

    def backward(self, cache: LossCache, dloss: float = 1.0) -> np.ndarray:
        """The gradient with respect to the first argument; zeros where `mask` is False."""
        gradient, count = cache
        return gradient * gradient.dtype.type(dloss / count)


class MSELoss(Loss):
    """The mean of ``(prediction - target)**2``, as `torch.nn.MSELoss`."""

    def forward(
        self, prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None
    ) -> tuple[float, LossCache]:
        """
        The loss, and the cache for `backward`.

        Parameters
        ----------
        prediction : array (...)
            float32 or float64, at least one element.
        target : array of numbers, shaped as `prediction`
            Converted to its dtype.
        mask : bool array, optional
            Shaped as `prediction` or as its first axes, True for what counts, at least once.
        """
        prediction, target, mask, count = _pair("prediction", prediction, target, mask)
        error = cleared(prediction, mask) - target
        return float(np.square(error).sum(dtype=np.float64)) / count, LossCache(2 * error, count)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of probabilities ``sigmoid(logits)``, the mean, as `torch.nn.BCEWithLogitsLoss`."""

    def forward(self, logits: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> tuple[float, LossCache]:
        """
        The loss, and the cache for `backward`.

        Parameters
        ----------
        logits : array (...)
            float32 or float64, at least one element.
        target : array of numbers from 0 to 1, shaped as `logits`
            Converted to its dtype.
        mask : bool array, optional
            Shaped as `logits` or as its first axes, True for what counts, at least once.
        """
        logits, target, mask, count = _pair("logits", logits, target, mask)
        if not ((target >= 0) & (target <= 1)).all():
            raise ValueError(f"target: values from {target.min()} to {target.max()}, expected 0 to 1")
        logits = cleared(logits, mask)
        # log(1 + exp(x)) - x t, so that exp cannot overflow
        terms = np.maximum(logits, 0) - logits * target + np.log1p(np.exp(-np.abs(logits)))
        loss = float(cleared(terms, mask).sum(dtype=np.float64)) / count
        return loss, LossCache(cleared(expit(logits) - target, mask), count)


class CrossEntropyLoss(Loss):
    """
    Softmax cross-entropy against class indices, the mean over all of them, in nats, as `torch.nn.CrossEntropyLoss`.

    The classes are the last axis of the logits (PyTorch has them second).

    Parameters
    ----------
    label_smoothing : float
        From 0 to 1: the part of the wanted probability that is shared out evenly among all classes.

    Notes
    -----
    Label smoothing: Szegedy et al., Rethinking the inception architecture for computer vision, 2016.
    """

    def __init__(self, *, label_smoothing: float = 0.0):
        if not 0 <= label_smoothing <= 1:  # True for NaN too
            raise ValueError(f"label_smoothing: {label_smoothing!r}, expected a number from 0 to 1")
        self.label_smoothing = float(label_smoothing)

    def forward(self, logits: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> tuple[float, LossCache]:
        """
        The loss, and the cache for `backward`.

        Parameters
        ----------
        logits : array (..., C)
            float32 or float64, at least one element.
        target : integers (...)
            From 0 to C - 1 where `mask` is True.
        mask : bool (...), optional
            True for what counts, at least once.
        """
        logits = _check.float_array("logits", logits)
        if logits.ndim == 0 or logits.size == 0:
            raise ValueError(f"logits: shape {logits.shape}, expected (..., C) with at least one element")
        classes, smoothing = logits.shape[-1], self.label_smoothing
        target = _check.as_array("target", target)
        if target.shape != logits.shape[:-1]:
            raise ValueError(
                f"target: shape {target.shape}, expected {logits.shape[:-1]}, that of logits less the last"
            )
        mask, count = _counting(mask, target.shape, target.size)
        target = _check.indices("target", cleared(target, mask), classes)
        rows, wanted = cleared(logits, mask).reshape(-1, classes), target.ravel()
        shifted = rows - rows.max(axis=1, keepdims=True)  # so that exp cannot overflow
        at = np.arange(len(rows)), wanted
        chosen = shifted[at]
        if smoothing:
            chosen = (1 - smoothing) * chosen + smoothing * shifted.mean(axis=1)
        p = np.exp(shifted, out=shifted)
        total = p.sum(axis=1, keepdims=True)
        terms = np.log(total[:, 0]) - chosen
        loss = float(cleared(terms.reshape(target.shape), mask).sum(dtype=np.float64)) / count
        p /= total
        p[at] -= p.dtype.type(1 - smoothing)  # softmax - wanted probabilities
        if smoothing:
            p -= p.dtype.type(smoothing / classes)
        return loss, LossCache(cleared(p.reshape(logits.shape), mask), count)


def _pair(name: str, prediction: Any, target: Any, mask: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, int]:
    """Both arrays in one dtype, the target cleared where it does not count; the mask, and how many elements count."""
    prediction = _check.float_array(name, prediction)
    if prediction.size == 0:
        raise ValueError(f"{name}: shape {prediction.shape}, expected at least one element")
    target = _check.as_array("target", target)
    if target.dtype.kind not in "biuf":
        raise TypeError(f"target: dtype {target.dtype}, expected numbers")
    if target.shape != prediction.shape:
        raise ValueError(f"target: shape {target.shape}, expected {prediction.shape}, that of {name}")
    mask, count = _counting(mask, prediction.shape, prediction.size)
    return prediction, cleared(target.astype(prediction.dtype, copy=False), mask), mask, count


def _counting(mask: Any, shape: tuple[int, ...], size: int) -> tuple[np.ndarray | None, int]:
    """`mask` as a bool array shaped as the first axes of `shape`, and how many of `size` elements it has True."""
    if mask is None:
        return None, size
    first = shape[: np.ndim(mask)]
    mask = _check.flags_array("mask", mask, "the first axes of the prediction", first)
    if not mask.any():
        raise ValueError(f"mask: shape {mask.shape}, nowhere True, expected at least one term of the loss")
    return mask, int(mask.sum()) * (size // mask.size)
