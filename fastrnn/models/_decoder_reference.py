"""`fastrnn._core.decode` in NumPy: the specification of decoding, and what runs for streams that are not compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn.layers.frozen import Stream
from fastrnn.nn._masking import softmax


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def draw(logits: np.ndarray, temperature: float, top_k: int, u: np.ndarray | None) -> np.ndarray:
    """For each row the token whose part of the line from 0 to 1 holds u, when tokens share it in their order."""
    likeliest = logits.argmax(axis=1)
    if temperature == 0 or u is None:
        return likeliest
    logits = logits.astype(np.float64)
    p = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    rest = np.argsort(-logits, axis=1, kind="stable")[:, top_k:]
    np.put_along_axis(p, rest, 0, axis=1)
    reached = np.cumsum(p, axis=1)
    over = reached > np.maximum(u, 1e-30)[:, None] * reached[:, -1:]  # 0 would take what has underflowed
    return np.where(over.any(axis=1), over.argmax(axis=1), likeliest)


class NumPyDecoder:
    """The same methods as `_core.decode.Decoder`, with the weights as arrays and without threads."""

    def __init__(
        self,
        stream: Stream,
        head: np.ndarray,
        bias: np.ndarray,
        embedding: np.ndarray | None = None,
        attention: tuple | None = None,
    ):
        self.stream, self.head, self.bias, self.embedding = stream, head, bias, embedding
        self.kind = None
        if attention is not None:
            self.kind, keys, values, lengths, self.query, self.v, self.combine = attention
            group = stream.batch_size // max(1, len(keys))
            self.keys, self.values = np.repeat(keys, group, axis=0), np.repeat(values, group, axis=0)
            self.mask = np.arange(keys.shape[1]) < np.repeat(lengths, group)[:, None]

    def _look(self, scores: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        mine = softmax(scores, self.mask)
        if weights is not None:
            weights[...] = mine
        return (mine[:, None] @ self.values)[:, 0]

    def _logits(self, x: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        """A step."""
        if self.kind == "additive":
            query = self.stream._parts()[-1][0] @ self.query.T
            x = np.concatenate([x, self._look(np.tanh(self.keys + query[:, None]) @ self.v, weights)], axis=1)
        h = self.stream.step(x)
        if self.kind == "general":
            context = self._look((self.keys @ h[:, :, None])[:, :, 0], weights)
            h = np.tanh(np.concatenate([context, h], axis=1) @ self.combine.T)
        return h @ self.head.T + self.bias

    def write(
        self,
        first: np.ndarray,
        tokens: np.ndarray,
        *,
        temperature: float,
        top_k: int,
        uniforms: np.ndarray | None,
        end: int,
        forced: np.ndarray | None = None,
        log_probs: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        **_: Any,
    ) -> None:
        """Write tokens, each from those before."""
        last, ended = first, np.zeros(len(first), bool)
        for t in range(len(tokens)):
            logits = self._logits(self.embedding[last], None if weights is None else weights[t])
            last = draw(logits, temperature, top_k, None if uniforms is None else uniforms[t])
            if forced is not None:
                last = np.where(forced[t] >= 0, forced[t], last)
            tokens[t] = np.where(ended, tokens[t], last)
            if log_probs is not None:
                taken = np.take_along_axis(log_softmax(logits), last[:, None], 1)[:, 0]
                log_probs[t] = np.where(ended, 0, taken)
            ended |= last == end
            if ended.all():
                return

    def feed(self, first: np.ndarray, outputs: np.ndarray, **_: Any) -> None:
        """Go on with logits for the next input; what `outputs` holds is added."""
        x = first
        for y in outputs:
            y += self._logits(x, None)
            x = y

    def search(
        self,
        first: np.ndarray,
        tokens: np.ndarray,
        parents: np.ndarray,
        scores: np.ndarray,
        *,
        beam: int,
        end: int,
        padding: int,
        penalty: float,
        weights: np.ndarray | None = None,
        **_: Any,
    ) -> None:
        """Beam search."""
        N, V = len(first) // beam, len(self.bias)
        sources, last = np.arange(N)[:, None], first
        total = np.full((N, beam), -np.inf)
        total[:, 0] = 0
        score, ended = total.copy(), np.zeros((N, beam), bool)
        for t in range(len(tokens)):
            logits = self._logits(self.embedding[last], None if weights is None else weights[t])
            totals = total[:, :, None] + log_softmax(logits).reshape(N, beam, V)
            candidates = totals / (t + 1) ** penalty
            candidates[ended] = -np.inf
            candidates[:, :, 0] = np.where(ended, score, candidates[:, :, 0])
            candidates = candidates.reshape(N, beam * V)
            best = np.argsort(-candidates, axis=1, kind="stable")[:, :beam]
            parent, token = best // V, best % V
            score, was = candidates[sources, best], ended[sources, parent]
            dead = score == -np.inf
            total = np.where(was, total[sources, parent], totals[sources, parent, token])
            token, parent = np.where(was | dead, padding, token), np.where(dead, 0, parent)
            ended = was | dead | (token == end)
            tokens[t], parents[t], last = token.ravel(), parent.ravel(), token.ravel()
            scores[...] = score.ravel()
            if ended.all():
                return
            rows = (sources * beam + parent).ravel()
            for parts in self.stream._parts():
                for part in parts:
                    part[...] = part[rows]
