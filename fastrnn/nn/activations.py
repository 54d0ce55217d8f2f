"""Activations as modules."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import erf, expit

from fastrnn import _check
from fastrnn.module import Module
from fastrnn.nn import _masking


class Activation(Module):
    """What the activations have in common: `x` of any shape, float32 or float64; `y` like it."""

    def _value(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`y`, and what the gradient is computed from."""
        raise NotImplementedError

    def _gradient(self, kept: np.ndarray, dy: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def __call__(self, x: ArrayLike) -> np.ndarray:
        """`y` (...) of `x` (...)."""
        return self.forward(x)[0]

    def forward(self, x: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """`y`, and the cache for `backward`: `x` or `y` itself, to be left unchanged till then."""
        return self._value(_check.float_array("x", x))

    def backward(self, cache: np.ndarray, dy: ArrayLike) -> np.ndarray:
        """The gradient with respect to `x`."""
        return self._gradient(cache, _check.shaped("dy", dy, cache.dtype, "that of y", cache.shape))


class Tanh(Activation):
    """``y = tanh(x)``, as `torch.nn.Tanh`."""

    def _value(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = np.tanh(x)
        return y, y

    def _gradient(self, kept: np.ndarray, dy: np.ndarray) -> np.ndarray:
        return dy * (1 - kept * kept)


class Sigmoid(Activation):
    """``y = 1 / (1 + exp(-x))``, as `torch.nn.Sigmoid`."""

    def _value(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = expit(x)
        return y, y

    def _gradient(self, kept: np.ndarray, dy: np.ndarray) -> np.ndarray:
        return dy * kept * (1 - kept)


class ReLU(Activation):
    """``y = max(x, 0)``, as `torch.nn.ReLU`; the gradient at 0 is 0."""

    def _value(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = np.maximum(x, 0)
        return y, y

    def _gradient(self, kept: np.ndarray, dy: np.ndarray) -> np.ndarray:
        return dy * (kept > 0)


class GELU(Activation):
    """
    ``y = x * Phi(x)`` with the standard normal distribution function, as `torch.nn.GELU`.

    Notes
    -----
    Hendrycks & Gimpel, Gaussian error linear units, 2016; the exact form, not the approximation by tanh.
    """

    def _value(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x * _normal(x), x

    def _gradient(self, kept: np.ndarray, dy: np.ndarray) -> np.ndarray:
        near = np.clip(kept, -40, 40)  # beyond, the density is 0, and the square may overflow
        density = np.exp(-0.5 * near * near) * kept.dtype.type(1 / math.sqrt(2 * math.pi))
        return dy * (_normal(kept) + kept * density)


def _normal(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + erf(x * x.dtype.type(math.sqrt(0.5))))


class Softmax(Activation):
    """``y = exp(x) / sum of exp(x)`` over the last axis, as `torch.nn.Softmax` with ``dim=-1``."""

    def _value(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if x.ndim == 0:
            raise ValueError("x: shape (), expected (..., C)")
        y = _masking.softmax(x)
        return y, y

    def _gradient(self, kept: np.ndarray, dy: np.ndarray) -> np.ndarray:
        return _masking.softmax_backward(kept, dy)
