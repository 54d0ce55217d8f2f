"""The affine map."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn import _check
from fastrnn._core.memory import empty
from fastrnn._products import products
from fastrnn.module import Module, float_dtype


class Linear(Module):
    """
    ``y = x W' + b`` over the last axis, as `torch.nn.Linear`.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of `x` and `y`.
    bias : bool
        Whether there is a `b`.
    dtype : {float32, float64}
        Of parameters and arrays.
    rng : int, numpy.random.Generator or None
        The source of the initial parameters, uniform in +-1/sqrt(in_features).

    Attributes
    ----------
    weight, bias : array (out_features, in_features), (out_features,)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ):
        super().__init__()
        self.in_features = _check.positive_int("in_features", in_features)
        self.out_features = _check.positive_int("out_features", out_features)
        self.dtype = float_dtype(dtype)
        rng = np.random.default_rng(rng)
        bound = 1 / math.sqrt(self.in_features)
        self.add_parameter("weight", rng.uniform(-bound, bound, (out_features, in_features)).astype(self.dtype))
        if bias:
            self.add_parameter("bias", rng.uniform(-bound, bound, out_features).astype(self.dtype))

    def __call__(self, x: ArrayLike) -> np.ndarray:
        """`y` (..., out_features) of `x` (..., in_features)."""
        return self.forward(x)[0]

    def forward(self, x: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """`y`, and the cache for `backward`, which is `x` itself: leave it unchanged till then."""
        x = _check.float_array("x", x, self.dtype, "the layer")
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x: shape {x.shape}, expected (..., {self.in_features})")
        return affine(x, self.weight, self.params.get("bias")), x

    def backward(self, cache: np.ndarray, dy: ArrayLike) -> np.ndarray:
        """Add into `grads`; return the gradient with respect to `x`."""
        shape = (*cache.shape[:-1], self.out_features)
        dy = _check.shaped("dy", dy, self.dtype, "that of y", shape, "the layer")
        return affine_backward(cache, self.weight, dy, self.grads["weight"], self.grads.get("bias"))


def affine(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """``x W' + b`` over the last axis."""
    y = empty((*x.shape[:-1], len(weight)), x.dtype)
    products().forward(_rows(y), _rows(x), weight)
    if bias is not None:
        y += bias
    return y


def affine_backward(
    x: np.ndarray, weight: np.ndarray, dy: np.ndarray, dweight: np.ndarray, dbias: np.ndarray | None = None
) -> np.ndarray:
    """Add into `dweight` and `dbias`; return the gradient with respect to `x`."""
    rows, run = _rows(dy), products()
    block = np.array([[0, len(rows)]], dtype=np.intp)
    run.weight_gradient(dweight, rows, _rows(x), block, True)
    if dbias is not None:
        run.bias_gradient(dbias, rows, block, True)
    dx = empty(x.shape, x.dtype)
    run.backward(_rows(dx), rows, weight)
    return dx


def _rows(a: np.ndarray) -> np.ndarray:
    """All but the last axis folded into one; reshape(-1, n) would not know the count of an empty array."""
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
