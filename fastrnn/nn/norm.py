"""Normalisation of each step by itself."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn import _check
from fastrnn.module import Module, float_dtype


class LayerNormCache(NamedTuple):
    """What `backward` needs: the normalised input, and one over its spread before."""

    normal: np.ndarray
    inverse: np.ndarray


class LayerNorm(Module):
    """
    ``y = (x - mean) / sqrt(variance + eps) * weight + bias`` over the last axis, as `torch.nn.LayerNorm`.

    Parameters
    ----------
    normalized_shape : int
        Size of the last axis.
    eps : float
        Added to the variance, at least 0.
    elementwise_affine, bias : bool
        Whether there is a `weight`, and with it a `bias`.
    dtype : {float32, float64}
        Of parameters and arrays.

    Attributes
    ----------
    weight, bias : array (normalized_shape,)
        Ones and zeros at first.

    Notes
    -----
    Ba, Kiros & Hinton, Layer normalization, 2016.
    """

    def __init__(
        self,
        normalized_shape: int,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
    ):
        super().__init__()
        self.normalized_shape = _check.positive_int("normalized_shape", normalized_shape)
        if not 0 <= eps < math.inf:
            raise ValueError(f"eps: {eps!r}, expected a finite number from 0")
        self.eps = float(eps)
        self.dtype = float_dtype(dtype)
        if elementwise_affine:
            self.add_parameter("weight", np.ones(self.normalized_shape, self.dtype))
            if bias:
                self.add_parameter("bias", np.zeros(self.normalized_shape, self.dtype))

    def __call__(self, x: ArrayLike) -> np.ndarray:
        """`y` (..., normalized_shape) of `x` (..., normalized_shape)."""
        return self.forward(x)[0]

    def forward(self, x: ArrayLike) -> tuple[np.ndarray, LayerNormCache]:
        """`y`, and the cache for `backward`."""
        x = _check.float_array("x", x, self.dtype, "the layer")
        if x.ndim == 0 or x.shape[-1] != self.normalized_shape:
            raise ValueError(f"x: shape {x.shape}, expected (..., {self.normalized_shape})")
        normal = x - x.mean(axis=-1, keepdims=True)
        inverse = 1 / np.sqrt(np.square(normal).mean(axis=-1, keepdims=True) + self.dtype.type(self.eps))
        normal *= inverse
        y = normal * self.weight if "weight" in self.params else normal.copy()
        if "bias" in self.params:
            y += self.bias
        return y, LayerNormCache(normal, inverse)

    def backward(self, cache: LayerNormCache, dy: ArrayLike) -> np.ndarray:
        """Add into `grads`; return the gradient with respect to `x`."""
        normal, inverse = cache
        dy = _check.shaped("dy", dy, self.dtype, "that of y", normal.shape, "the layer")
        rows = tuple(range(dy.ndim - 1))
        d = dy
        if "weight" in self.params:
            self.grads["weight"] += (dy * normal).sum(axis=rows)
            d = dy * self.weight
        if "bias" in self.params:
            self.grads["bias"] += dy.sum(axis=rows)
        d = d - d.mean(axis=-1, keepdims=True) - normal * (d * normal).mean(axis=-1, keepdims=True)
        return d * inverse
