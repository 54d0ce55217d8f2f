"""Attention with several heads, with PyTorch's parameters."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn import _check
from fastrnn.module import Module, float_dtype
from fastrnn.nn._masking import cleared, softmax, softmax_backward, valid_steps
from fastrnn.nn.attention import sequences
from fastrnn.nn.dropout import Dropout
from fastrnn.nn.linear import Linear, affine, affine_backward


class MultiHeadCache(NamedTuple):
    """What `backward` needs; `weights` (N, heads, L, S) says how much each head takes of each key's value."""

    weights: np.ndarray
    factors: np.ndarray | None  # those of dropout
    inputs: tuple[np.ndarray, ...]
    heads: tuple[np.ndarray, ...]  # query, scaled, key and value of each head
    valid: np.ndarray | None  # the queries that are no padding
    out: Any
    given: tuple[bool, bool]


class Masks(NamedTuple):
    """The masks of a call in one form."""

    takes: np.ndarray | None  # bool (N, heads or 1, L or 1, S): which query takes which key
    added: np.ndarray | None  # finite numbers that go to the scores
    valid: np.ndarray | None  # bool (N, L): the queries of self-attention that are no padding


class MultiHeadAttention(Module):
    """
    Scaled dot-product attention in several heads, as `torch.nn.MultiheadAttention` with ``batch_first=True``.

    Parameters
    ----------
    embed_dim, num_heads : int
        E, and how many heads share it, evenly.
    dropout : float
        The probability with which `forward` drops a weight.
    bias : bool
        Whether the projections have one.
    kdim, vdim : int, optional
        The widths of key and value; None is E.
    dtype : {float32, float64}
        Of parameters and arrays.
    rng : int, numpy.random.Generator or None
        The source of the initial parameters, distributed as PyTorch's, and of dropout.

    Attributes
    ----------
    in_proj_weight, in_proj_bias : array (3E, E), (3E,)
        Those of query, key and value. With another `kdim` or `vdim` the weights are three parameters,
        ``q_proj_weight``, ``k_proj_weight`` and ``v_proj_weight``.
    out_proj : Linear

    Notes
    -----
    Vaswani et al., Attention is all you need, 2017, section 3.2.2.
    """

    uses_lengths = True

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        kdim: int | None = None,
        vdim: int | None = None,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ):
        super().__init__()
        E = self.embed_dim = _check.positive_int("embed_dim", embed_dim)
        self.num_heads = _check.positive_int("num_heads", num_heads)
        if E % self.num_heads:
            raise ValueError(f"num_heads: {num_heads}, expected a divisor of embed_dim = {E}")
        self.kdim = _check.positive_int("kdim", E if kdim is None else kdim)
        self.vdim = _check.positive_int("vdim", E if vdim is None else vdim)
        self.dtype = float_dtype(dtype)
        rng = np.random.default_rng(rng)
        self.dropout = _dropout(dropout, rng)
        self._together = self.kdim == self.vdim == E
        shapes = {"in_proj_weight": (3 * E, E)}
        if not self._together:
            shapes = {f"{name}_proj_weight": (E, size) for name, size in zip("qkv", self._widths(), strict=True)}
        for name, shape in shapes.items():
            bound = math.sqrt(6 / sum(shape))
            self.add_parameter(name, rng.uniform(-bound, bound, shape).astype(self.dtype))
        if bias:
            self.add_parameter("in_proj_bias", np.zeros(3 * E, self.dtype))
        self.out_proj = Linear(E, E, bias, dtype=dtype, rng=rng)
        if bias:
            self.out_proj.bias = np.zeros(E)

    def _widths(self) -> tuple[int, int, int]:
        return self.embed_dim, self.kdim, self.vdim

    def _projections(self, arrays: dict[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """Weight and bias of query, key and value, views into `params` or `grads`."""
        parts = [slice(k * self.embed_dim, (k + 1) * self.embed_dim) for k in range(3)]
        if self._together:
            weights = [arrays["in_proj_weight"][part] for part in parts]
        else:
            weights = [arrays[f"{name}_proj_weight"] for name in "qkv"]
        bias = arrays.get("in_proj_bias")
        return [(weight, None if bias is None else bias[part]) for weight, part in zip(weights, parts, strict=True)]

    def __call__(
        self,
        query: ArrayLike,
        key: ArrayLike | None = None,
        value: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        key_padding_mask: ArrayLike | None = None,
        attn_mask: ArrayLike | None = None,
    ) -> np.ndarray:
        """
        Attend, without dropout.

        Parameters
        ----------
        query : array (N, L, E)
            What asks.
        key : array (N, S, kdim), optional
            What is asked; None: the queries each other.
        value : array (N, S, vdim), optional
            What is mixed; None: the keys.
        lengths : integers (N,), optional
            How many of the keys are valid.
        key_padding_mask : bool (N, S), optional
            True where a key is padding, as in PyTorch. Without a `key` this and `lengths` are about the queries too.
        attn_mask : bool or float (L, S) or (N*num_heads, L, S), optional
            True where a query must not take a key, as in PyTorch; or what is added to the scores, finite or -inf.

        Returns
        -------
        array (N, L, E)
            Without a `key`, zeros where the query is padding. Elsewhere, what a query with no key to attend to gets is
            the bias of `out_proj` (PyTorch: NaN).

        Raises
        ------
        TypeError, ValueError
            For an argument of another dtype or shape, or out of range; the message names it.
        """
        return self._run(query, key, value, lengths, key_padding_mask, attn_mask, False)[0]

    def weights(
        self,
        query: ArrayLike,
        key: ArrayLike | None = None,
        value: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        key_padding_mask: ArrayLike | None = None,
        attn_mask: ArrayLike | None = None,
    ) -> np.ndarray:
        """How much each head takes of each key's value: (N, num_heads, L, S), rows adding up to 1, or 0 with no key."""
        return self._run(query, key, value, lengths, key_padding_mask, attn_mask, False)[1].weights

    def forward(
        self,
        query: ArrayLike,
        key: ArrayLike | None = None,
        value: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        key_padding_mask: ArrayLike | None = None,
        attn_mask: ArrayLike | None = None,
    ) -> tuple[np.ndarray, MultiHeadCache]:
        """What calling gives, with dropout, and the cache for `backward`."""
        return self._run(query, key, value, lengths, key_padding_mask, attn_mask, True)

    def _run(
        self, query: Any, key: Any, value: Any, lengths: Any, key_padding_mask: Any, attn_mask: Any, training: bool
    ) -> tuple[np.ndarray, MultiHeadCache]:
        given = key is not None, value is not None
        query = sequences("query", query, self.embed_dim, self.dtype)
        key = sequences("key", key if given[0] else query, self.kdim, self.dtype, query)
        value = sequences("value", value if given[1] else key, self.vdim, self.dtype, key, steps=True)
        masks = self._masks(query, key, lengths, key_padding_mask, attn_mask, given[0])
        inputs = (query, key, value)
        if masks.takes is not None:
            used, asked = masks.takes.any(axis=(1, 3)), masks.takes.any(axis=(1, 2))
            inputs = cleared(query, used), cleared(key, asked), cleared(value, asked)
        q, k, v = (
            self._split(affine(x, *projection))
            for x, projection in zip(inputs, self._projections(self.params), strict=True)
        )
        q *= self.dtype.type(self._scale())
        scores = np.matmul(q, k.swapaxes(2, 3))
        if masks.added is not None:
            scores += masks.added
        weights = softmax(scores, masks.takes)
        factors = self.dropout.factors(weights.shape, self.dtype) if training else None
        mixed = np.matmul(weights if factors is None else weights * factors, v)
        y, out = self.out_proj.forward(self._joined(mixed))
        return cleared(y, masks.valid), MultiHeadCache(weights, factors, inputs, (q, k, v), masks.valid, out, given)

    def backward(self, cache: MultiHeadCache, dy: ArrayLike) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """
        Add into `grads` and those of `out_proj`.

        Returns
        -------
        tuple of array or None
            The gradients with respect to query, key and value; None for one that was not given, whose gradient is in
            that of the one that stood for it.
        """
        weights, factors, inputs, (q, k, v), valid, out, given = cache
        shape = inputs[0].shape
        dy = cleared(_check.shaped("dy", dy, self.dtype, "(N, L, E)", shape, "the layer"), valid)
        dmixed = self._split(self.out_proj.backward(out, dy))
        dweights = np.matmul(dmixed, v.swapaxes(2, 3))
        if factors is not None:
            dweights *= factors
            dv = np.matmul((weights * factors).swapaxes(2, 3), dmixed)
        else:
            dv = np.matmul(weights.swapaxes(2, 3), dmixed)
        dscores = softmax_backward(weights, dweights)
        dq = np.matmul(dscores, k) * self.dtype.type(self._scale())
        dk = np.matmul(dscores.swapaxes(2, 3), q)
        dquery, dkey, dvalue = (
            affine_backward(x, weight, self._joined(d), dweight, dbias)
            for x, d, (weight, _), (dweight, dbias) in zip(
                inputs, (dq, dk, dv), self._projections(self.params), self._projections(self.grads), strict=True
            )
        )
        if not given[1]:
            dkey, dvalue = dkey + dvalue, None
        if not given[0]:
            dquery, dkey = dquery + dkey, None
        return dquery, dkey, dvalue

    def _scale(self) -> float:
        return 1 / math.sqrt(self.embed_dim // self.num_heads)

    def _split(self, x: np.ndarray) -> np.ndarray:
        """(N, T, E) -> (N, heads, T, E/heads)."""
        N, T, E = x.shape
        return x.reshape(N, T, self.num_heads, E // self.num_heads).transpose(0, 2, 1, 3)

    def _joined(self, x: np.ndarray) -> np.ndarray:
        """(N, heads, T, E/heads) -> (N, T, E)."""
        N, _, T, _ = x.shape
        return np.ascontiguousarray(x.transpose(0, 2, 1, 3)).reshape(N, T, self.embed_dim)

    def _masks(
        self, query: np.ndarray, key: np.ndarray, lengths: Any, key_padding_mask: Any, attn_mask: Any, cross: bool
    ) -> Masks:
        N, L, S = len(query), query.shape[1], key.shape[1]
        padding = _check.flags_array("key_padding_mask", key_padding_mask, "(N, S)", (N, S))
        keys = valid_steps(lengths, None if padding is None else ~padding, N, S)
        takes = None if keys is None else keys[:, None, None]
        valid = None if cross else keys
        if valid is not None:
            takes = takes & valid[:, None, :, None]
        if attn_mask is None:
            return Masks(takes, None, valid)
        allowed, added = self._attention_mask(attn_mask, N, L, S)
        return Masks(allowed if takes is None else takes & allowed, added, valid)

    def _attention_mask(self, attn_mask: Any, N: int, L: int, S: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Which query may take which key, and what is added to the scores: (N or 1, heads or 1, L, S)."""
        array = _check.as_array("attn_mask", attn_mask)
        if array.dtype.kind not in "bf":
            raise TypeError(f"attn_mask: dtype {array.dtype}, expected bool or floats")
        if array.shape not in ((L, S), (N * self.num_heads, L, S)):
            raise ValueError(
                f"attn_mask: shape {array.shape}, expected (L, S) = {(L, S)} or (N*num_heads, L, S) = "
                f"{(N * self.num_heads, L, S)}"
            )
        array = array.reshape((1, 1, L, S) if array.ndim == 2 else (N, self.num_heads, L, S))
        if array.dtype == bool:
            return np.broadcast_to(~array, (N, *array.shape[1:])), None
        allowed = ~np.isneginf(array)
        added = cleared(array.astype(self.dtype), allowed)
        if not np.isfinite(added).all():
            raise ValueError("attn_mask: NaN or +inf, expected finite numbers or -inf")
        return np.broadcast_to(allowed, (N, *allowed.shape[1:])), added


def _dropout(p: float, rng: np.random.Generator) -> Dropout:
    try:
        return Dropout(p, rng=rng)
    except ValueError:
        raise ValueError(f"dropout: {p!r}, expected a probability from 0 to 1") from None
