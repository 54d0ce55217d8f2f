"""Attention of queries to keys, by different scores; self-attention and pooling of one sequence.

Where a mask or lengths leave a key out, it has no effect on any result or gradient, be it NaN. A query with no key to
attend to gets zeros. All arrays are batch-first.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn import _check
from fastrnn.module import Module, float_dtype
from fastrnn.nn._masking import cleared, softmax, softmax_backward, valid_steps
from fastrnn.nn.linear import Linear

Seed = int | np.random.Generator | None


class AttentionCache(NamedTuple):
    """What `backward` needs; `weights` (N, L, S) says how much of each value went into each output."""

    weights: np.ndarray
    value: np.ndarray
    used: np.ndarray | None  # the queries that have a key
    given: tuple[bool, bool]  # whether there were a key and a value
    scores: Any


class Attention(Module):
    """What the attentions have in common: ``y = softmax(scores) value``, where a subclass knows the scores."""

    uses_lengths = True
    dtype: np.dtype | None = None  # that of the parameters, if there are any

    def _sizes(self) -> tuple[int | None, int | None]:
        """The widths of query and key, None for any."""
        return None, None

    def _scores(self, query: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, Any]:
        """The scores (N, L, S), and what their gradient is computed from."""
        raise NotImplementedError

    def _scores_backward(self, cache: Any, dscores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add into `grads`; return the gradients with respect to query and key."""
        raise NotImplementedError

    def __call__(
        self,
        query: ArrayLike,
        key: ArrayLike | None = None,
        value: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> np.ndarray:
        """
        Attend.

        Parameters
        ----------
        query : array (N, L, Q)
            What asks.
        key : array (N, S, K), optional
            What is asked; None: the queries each other.
        value : array (N, S, V), optional
            What is mixed; None: the keys.
        lengths : integers (N,), optional
            How many of the keys are valid, and without a `key` of the queries too.
        mask : bool (N, S) or (N, L, S), optional
            True where a key takes part, for all queries or for each. Without a `key` the former is about queries too.

        Returns
        -------
        array (N, L, V)
            Zeros for a query with no key to attend to.

        Raises
        ------
        TypeError, ValueError
            For an argument of another dtype or shape, or out of range; the message names it.
        """
        return self.forward(query, key, value, lengths=lengths, mask=mask)[0]

    def weights(
        self,
        query: ArrayLike,
        key: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> np.ndarray:
        """How much of each value goes into each output: (N, L, S), each row adding up to 1, or 0 with no key."""
        return self.forward(query, key, lengths=lengths, mask=mask)[1].weights

    def forward(
        self,
        query: ArrayLike,
        key: ArrayLike | None = None,
        value: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[np.ndarray, AttentionCache]:
        """What calling gives, and the cache for `backward`."""
        given = key is not None, value is not None
        sizes = self._sizes()
        query = sequences("query", query, sizes[0], self.dtype)
        key = sequences("key", key, sizes[1], query.dtype, query) if given[0] else query
        if not given[0] and sizes[1] not in (None, query.shape[2]):
            raise ValueError(f"key: None, expected an array (N, S, {sizes[1]}), for queries have {query.shape[2]}")
        value = sequences("value", value, None, query.dtype, key, steps=True) if given[1] else key
        mask = _full_mask(lengths, mask, len(query), query.shape[1], key.shape[1], given[0])
        used = None
        if mask is not None:
            used, asked = mask.any(axis=2), mask.any(axis=1)
            query, key, value = cleared(query, used), cleared(key, asked), cleared(value, asked)
        scores, kept = self._scores(query, key)
        weights = softmax(scores, mask)
        return np.matmul(weights, value), AttentionCache(weights, value, used, given, kept)

    def backward(self, cache: AttentionCache, dy: ArrayLike) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """
        Add into `grads`.

        Returns
        -------
        tuple of array or None
            The gradients with respect to query, key and value; None for one that was not given, whose gradient is in
            that of the one that stood for it.
        """
        weights, value, used, given, kept = cache
        shape = (*weights.shape[:2], value.shape[2])
        dy = cleared(_check.shaped("dy", dy, value.dtype, "(N, L, V)", shape, "y"), used)
        dquery, dkey = self._scores_backward(kept, softmax_backward(weights, np.matmul(dy, value.swapaxes(1, 2))))
        dvalue = np.matmul(weights.swapaxes(1, 2), dy)
        if not given[1]:
            dkey, dvalue = dkey + dvalue, None
        if not given[0]:
            dquery, dkey = dquery + dkey, None
        return dquery, dkey, dvalue


def sequences(
    name: str, value: Any, size: int | None, dtype: np.dtype | None, like: Any = None, steps: bool = False
) -> np.ndarray:
    """`value` as a float array of three axes, the last of this size, the first, with `steps` two, those of `like`."""
    array = _check.float_array(name, value, dtype, "the query" if like is not None else "the layer")
    first = () if like is None else like.shape[: 1 + steps]
    fits = array.ndim == 3 and size in (None, array.shape[2]) and array.shape[: len(first)] == first
    if not fits:
        wanted = [*map(str, first), *("N", "T")[len(first) :], "..." if size is None else str(size)]
        raise ValueError(f"{name}: shape {array.shape}, expected ({', '.join(wanted)})")
    return array


def _full_mask(lengths: Any, mask: Any, N: int, L: int, S: int, cross: bool) -> np.ndarray | None:
    """Which query takes which key, (N, L, S) or (N, 1, S); without `cross` the keys are the queries."""
    each = None
    if np.ndim(mask) == 3:
        each, mask = _check.flags_array("mask", mask, "(N, L, S)", (N, L, S)), None
    valid = valid_steps(lengths, mask, N, S)
    if valid is None:
        return each
    full = valid[:, None] if cross else valid[:, None] & valid[:, :, None]
    return full if each is None else full & each


class ScaledDotProductAttention(Attention):
    """
    ``scores = scale * query key'``, as `torch.nn.functional.scaled_dot_product_attention`.

    Parameters
    ----------
    scale : float, optional
        None is 1/sqrt(Q).

    Notes
    -----
    Vaswani et al., Attention is all you need, 2017, equation 1.
    """

    def __init__(self, *, scale: float | None = None):
        super().__init__()
        if scale is not None and not math.isfinite(scale):
            raise ValueError(f"scale: {scale!r}, expected a finite number or None")
        self.scale = scale

    def _scores(self, query: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, Any]:
        if query.shape[2] != key.shape[2]:
            raise ValueError(f"key: shape {key.shape}, expected (..., {query.shape[2]}) as the query")
        scale = query.dtype.type(1 / math.sqrt(max(1, query.shape[2])) if self.scale is None else self.scale)
        query = query * scale
        return np.matmul(query, key.swapaxes(1, 2)), (query, key, scale)

    def _scores_backward(self, cache: Any, dscores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        query, key, scale = cache
        return np.matmul(dscores, key) * scale, np.matmul(dscores.swapaxes(1, 2), query)


class GeneralAttention(Attention):
    """
    ``scores = query W key'`` with a learned W, the "general" score of Luong.

    Parameters
    ----------
    query_size, key_size : int
        Q and K.
    dtype : {float32, float64}
        Of parameters and arrays.
    rng : int, numpy.random.Generator or None
        The source of the initial parameters.

    Attributes
    ----------
    project : Linear
        W, of shape (query_size, key_size), on the keys.

    Notes
    -----
    Luong, Pham & Manning, Effective approaches to attention-based neural machine translation, 2015, section 3.1.
    """

    def __init__(self, query_size: int, key_size: int, *, dtype: DTypeLike = np.float32, rng: Seed = None):
        super().__init__()
        self.query_size = _check.positive_int("query_size", query_size)
        self.key_size = _check.positive_int("key_size", key_size)
        self.dtype = float_dtype(dtype)
        self.project = Linear(key_size, query_size, False, dtype=dtype, rng=rng)

    def _sizes(self) -> tuple[int | None, int | None]:
        return self.query_size, self.key_size

    def _scores(self, query: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, Any]:
        projected, cache = self.project.forward(key)
        return np.matmul(query, projected.swapaxes(1, 2)), (query, projected, cache)

    def _scores_backward(self, cache: Any, dscores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        query, projected, inner = cache
        dprojected = np.matmul(dscores.swapaxes(1, 2), query)
        return np.matmul(dscores, projected), self.project.backward(inner, dprojected)


class AdditiveAttention(Attention):
    """
    ``scores = v . tanh(W_query query + W_key key + b)``, that of Bahdanau.

    Parameters
    ----------
    query_size, key_size, attention_size : int
        Q, K, and the width of the sum.
    dtype : {float32, float64}
        Of parameters and arrays.
    rng : int, numpy.random.Generator or None
        The source of the initial parameters; that of v is uniform in +-1/sqrt(attention_size).

    Attributes
    ----------
    query, key : Linear
        W_query with b, and W_key.
    v : array (attention_size,)

    Notes
    -----
    Bahdanau, Cho & Bengio, Neural machine translation by jointly learning to align and translate, 2015, appendix A.
    The tanh of every pair is kept: N*L*S*attention_size numbers.
    """

    def __init__(
        self, query_size: int, key_size: int, attention_size: int, *, dtype: DTypeLike = np.float32, rng: Seed = None
    ):
        super().__init__()
        self.query_size = _check.positive_int("query_size", query_size)
        self.key_size = _check.positive_int("key_size", key_size)
        self.attention_size = _check.positive_int("attention_size", attention_size)
        self.dtype = float_dtype(dtype)
        rng = np.random.default_rng(rng)
        self.query = Linear(query_size, attention_size, dtype=dtype, rng=rng)
        self.key = Linear(key_size, attention_size, False, dtype=dtype, rng=rng)
        self.add_parameter("v", _uniform(rng, attention_size, self.dtype))

    def _sizes(self) -> tuple[int | None, int | None]:
        return self.query_size, self.key_size

    def _scores(self, query: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, Any]:
        q, query_cache = self.query.forward(query)
        k, key_cache = self.key.forward(key)
        hidden = np.tanh(q[:, :, None] + k[:, None])  # (N, L, S, A)
        return np.einsum("nlsa,a->nls", hidden, self.v), (hidden, query_cache, key_cache)

    def _scores_backward(self, cache: Any, dscores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hidden, query_cache, key_cache = cache
        self.grads["v"] += np.einsum("nlsa,nls->a", hidden, dscores)
        d = dscores[..., None] * self.v * (1 - hidden * hidden)
        return self.query.backward(query_cache, d.sum(axis=2)), self.key.backward(key_cache, d.sum(axis=1))


class SelfAttention(Module):
    """
    Scaled dot-product attention of a sequence to itself, by learned queries, keys and values.

    Parameters
    ----------
    input_size : int
        The width of `x`, say the hidden states of a recurrent layer.
    attention_size, value_size : int, optional
        The widths of queries and keys, and of values; None is `input_size`.
    bias : bool
        Whether the three maps have one.
    dtype : {float32, float64}
        Of parameters and arrays.
    rng : int, numpy.random.Generator or None
        The source of the initial parameters.

    Attributes
    ----------
    query, key, value : Linear
    """

    uses_lengths = True

    def __init__(
        self,
        input_size: int,
        attention_size: int | None = None,
        value_size: int | None = None,
        *,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ):
        super().__init__()
        self.input_size = _check.positive_int("input_size", input_size)
        sizes = [input_size if size is None else size for size in (attention_size, value_size)]
        self.attention_size = _check.positive_int("attention_size", sizes[0])
        self.value_size = _check.positive_int("value_size", sizes[1])
        self.dtype = float_dtype(dtype)
        rng = np.random.default_rng(rng)
        self.query = Linear(input_size, self.attention_size, bias, dtype=dtype, rng=rng)
        self.key = Linear(input_size, self.attention_size, bias, dtype=dtype, rng=rng)
        self.value = Linear(input_size, self.value_size, bias, dtype=dtype, rng=rng)
        self._attention = ScaledDotProductAttention()

    def __call__(self, x: ArrayLike, lengths: ArrayLike | None = None, *, mask: ArrayLike | None = None) -> np.ndarray:
        """
        `y` (N, T, value_size) of `x` (N, T, input_size), zeros where a step is not valid.

        Valid are the steps within `lengths`, integers (N,), where `mask`, bool (N, T), is True.
        """
        return self.forward(x, lengths, mask=mask)[0]

    def weights(self, x: ArrayLike, lengths: ArrayLike | None = None, *, mask: ArrayLike | None = None) -> np.ndarray:
        """How much of each step's value goes into each step's output: (N, T, T)."""
        return self.forward(x, lengths, mask=mask)[1][0].weights

    def forward(
        self, x: ArrayLike, lengths: ArrayLike | None = None, *, mask: ArrayLike | None = None
    ) -> tuple[np.ndarray, tuple]:
        """`y`, and the cache for `backward`."""
        x = sequences("x", x, self.input_size, self.dtype)
        valid = valid_steps(lengths, mask, *x.shape[:2])
        x = cleared(x, valid)
        parts = [linear.forward(x)[0] for linear in (self.query, self.key, self.value)]
        pairs = None if valid is None else valid[:, None] & valid[:, :, None]
        y, cache = self._attention.forward(*parts, mask=pairs)
        return y, (cache, x)

    def backward(self, cache: tuple, dy: ArrayLike) -> np.ndarray:
        """Add into the gradients of the three maps; return that with respect to `x`."""
        inner, x = cache
        gradients = self._attention.backward(inner, dy)
        linears = (self.query, self.key, self.value)
        return sum(linear.backward(x, d) for linear, d in zip(linears, gradients, strict=True))


class PoolingCache(NamedTuple):
    """What `backward` needs; `weights` (N, T) says how much of each step is in `y`."""

    weights: np.ndarray
    x: np.ndarray
    hidden: np.ndarray


class AttentionPooling(Module):
    """
    One vector for a sequence, the mean of its steps weighted by softmax over time of ``v . tanh(W x + b)``.

    Parameters
    ----------
    input_size : int
        The width of `x`.
    attention_size : int, optional
        The width of the tanh; None is `input_size`.
    dtype : {float32, float64}
        Of parameters and arrays.
    rng : int, numpy.random.Generator or None
        The source of the initial parameters; that of v is uniform in +-1/sqrt(attention_size).

    Attributes
    ----------
    project : Linear
        W and b.
    v : array (attention_size,)

    Notes
    -----
    Yang et al., Hierarchical attention networks for document classification, 2016, equations 5 to 7.
    """

    uses_lengths = True

    def __init__(
        self, input_size: int, attention_size: int | None = None, *, dtype: DTypeLike = np.float32, rng: Seed = None
    ):
        super().__init__()
        self.input_size = _check.positive_int("input_size", input_size)
        size = input_size if attention_size is None else attention_size
        self.attention_size = _check.positive_int("attention_size", size)
        self.dtype = float_dtype(dtype)
        rng = np.random.default_rng(rng)
        self.project = Linear(input_size, size, dtype=dtype, rng=rng)
        self.add_parameter("v", _uniform(rng, size, self.dtype))

    def __call__(self, x: ArrayLike, lengths: ArrayLike | None = None, *, mask: ArrayLike | None = None) -> np.ndarray:
        """
        `y` (N, input_size) of `x` (N, T, input_size), zeros for a sequence without valid steps.

        Valid are the steps within `lengths`, integers (N,), where `mask`, bool (N, T), is True.
        """
        return self.forward(x, lengths, mask=mask)[0]

    def weights(self, x: ArrayLike, lengths: ArrayLike | None = None, *, mask: ArrayLike | None = None) -> np.ndarray:
        """How much of each step is in `y`: (N, T), each row adding up to 1, or 0 without valid steps."""
        return self.forward(x, lengths, mask=mask)[1].weights

    def forward(
        self, x: ArrayLike, lengths: ArrayLike | None = None, *, mask: ArrayLike | None = None
    ) -> tuple[np.ndarray, PoolingCache]:
        """`y`, and the cache for `backward`."""
        x = sequences("x", x, self.input_size, self.dtype)
        valid = valid_steps(lengths, mask, *x.shape[:2])
        x = cleared(x, valid)
        hidden = np.tanh(self.project(x))
        weights = softmax(np.einsum("nta,a->nt", hidden, self.v), valid)
        return np.einsum("nt,nth->nh", weights, x), PoolingCache(weights, x, hidden)

    def backward(self, cache: PoolingCache, dy: ArrayLike) -> np.ndarray:
        """Add into `grads` and those of `project`; return the gradient with respect to `x`."""
        weights, x, hidden = cache
        dy = _check.shaped("dy", dy, self.dtype, "(N, input_size)", (len(x), self.input_size), "the layer")
        dscores = softmax_backward(weights, np.einsum("nh,nth->nt", dy, x))
        self.grads["v"] += np.einsum("nta,nt->a", hidden, dscores)
        dx = self.project.backward(x, dscores[..., None] * self.v * (1 - hidden * hidden))
        return dx + weights[..., None] * dy[:, None]


def _uniform(rng: np.random.Generator, size: int, dtype: np.dtype) -> np.ndarray:
    """A vector that begins as a row of a `Linear` does."""
    bound = 1 / math.sqrt(size)
    return rng.uniform(-bound, bound, size).astype(dtype)
