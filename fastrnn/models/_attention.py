"""The two attentions of a decoder, with what `fastrnn.models.Decoder` needs to know of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn.module import Module
from fastrnn.nn import Linear
from fastrnn.nn._masking import softmax, softmax_backward


class LuongAttention(Module):
    """
    ``out = tanh(W_c [context; h])``, where the context is a mean of what the encoder gave, weighed by h.

    Parameters
    ----------
    hidden_size, memory_size : int
        H of the decoder, E of the encoder.
    dtype : {float32, float64}
    rng : int, numpy.random.Generator or None
        The source of the initial parameters.

    Notes
    -----
    Luong, Pham & Manning, Effective approaches to attention-based neural machine translation, 2015: global attention
    with the general score ``h' W_a e``, without input feeding, so that all steps are computed together.
    """

    kind = "general"

    def __init__(self, hidden_size: int, memory_size: int, *, dtype: Any = np.float32, rng: Any = None):
        super().__init__()
        rng = np.random.default_rng(rng)
        self.keys = Linear(memory_size, hidden_size, False, dtype=dtype, rng=rng)
        self.combine = Linear(memory_size + hidden_size, hidden_size, False, dtype=dtype, rng=rng)

    def forward(self, hidden: np.ndarray, memory: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, tuple]:
        """`out` (N, T, H) of hidden (N, T, H), memory (N, S, E) and mask (N, S), and the cache."""
        keys, _ = self.keys.forward(memory)
        weights = softmax(hidden @ keys.transpose(0, 2, 1), mask[:, None])
        joined = np.concatenate([weights @ memory, hidden], axis=2)
        out, _ = self.combine.forward(joined)
        np.tanh(out, out=out)
        return out, (hidden, memory, keys, weights, joined, out)

    def backward(self, cache: tuple, dout: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gradients of hidden and memory; adds into `grads`."""
        hidden, memory, keys, weights, joined, out = cache
        djoined = self.combine.backward(joined, dout * (1 - out * out))
        dcontext, dhidden = np.split(djoined, [memory.shape[2]], axis=2)
        dscores = softmax_backward(weights, dcontext @ memory.transpose(0, 2, 1))
        dmemory = weights.transpose(0, 2, 1) @ dcontext
        dmemory += self.keys.backward(memory, dscores.transpose(0, 2, 1) @ hidden)
        return dhidden + dscores @ keys, dmemory


class BahdanauAttention(Module):
    """
    A mean of what the encoder gave, weighed by the decoder's state before a step, for that step's input.

    Parameters
    ----------
    hidden_size, memory_size, size : int
        H of the decoder, E of the encoder, and A, the width of the score's layer.
    dtype : {float32, float64}
    rng : int, numpy.random.Generator or None
        The source of the initial parameters.

    Notes
    -----
    Bahdanau, Cho & Bengio, Neural machine translation by jointly learning to align and translate, 2015: the score
    ``v' tanh(W_e e + W_h h)``.
    """

    kind = "additive"

    def __init__(self, hidden_size: int, memory_size: int, size: int, *, dtype: Any = np.float32, rng: Any = None):
        super().__init__()
        rng = np.random.default_rng(rng)
        self.keys = Linear(memory_size, size, False, dtype=dtype, rng=rng)
        self.query = Linear(hidden_size, size, False, dtype=dtype, rng=rng)
        self.add_parameter("v", rng.uniform(-1, 1, size).astype(dtype) / np.sqrt(size).astype(dtype))

    def forward(
        self, h: np.ndarray, keys: np.ndarray, memory: np.ndarray, mask: np.ndarray
    ) -> tuple[np.ndarray, tuple]:
        """The context (N, E) for h (N, H), with ``keys = self.keys(memory)`` (N, S, A), and the cache."""
        query, _ = self.query.forward(h)
        a = np.tanh(keys + query[:, None])
        weights = softmax(a @ self.v, mask)
        return (weights[:, None] @ memory)[:, 0], (h, memory, a, weights)

    def backward(self, cache: tuple, dcontext: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The gradients of h, keys and memory; adds into `grads`."""
        h, memory, a, weights = cache
        dscores = softmax_backward(weights, (memory @ dcontext[:, :, None])[:, :, 0])
        self.grads["v"] += np.einsum("ns,nsa->a", dscores, a)
        da = dscores[:, :, None] * self.v * (1 - a * a)
        return self.query.backward(h, da.sum(axis=1)), da, weights[:, :, None] * dcontext[:, None]
