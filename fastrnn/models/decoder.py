"""A recurrent layer whose outputs become its inputs: sampling, feeding back and beam search, in compiled code."""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check, _settings, _sharing
from fastrnn._core.decode import Decoder as CompiledDecoder
from fastrnn._core.matrix import Matrix
from fastrnn._products import products
from fastrnn.layers.frozen import Stream
from fastrnn.layers.recurrent import RecurrentLayer
from fastrnn.models._attention import BahdanauAttention, LuongAttention
from fastrnn.models._decoder_reference import NumPyDecoder
from fastrnn.nn import Embedding, Linear


class Decoded(NamedTuple):
    """Tokens that a decoder wrote, time-major, with what was asked for beside them."""

    tokens: np.ndarray  # intp (steps, B): padding behind an end
    lengths: np.ndarray  # intp (B,): the end included
    log_probs: np.ndarray | None  # float64 (steps, B)
    weights: np.ndarray | None  # (steps, B, S): where attention looked
    state: Any  # the layer's; where sequences have ended, of no use


class Beams(NamedTuple):
    """The best sequences that a beam search found, those of a source falling in their score."""

    tokens: np.ndarray  # intp (steps, B, W): padding behind an end
    lengths: np.ndarray  # intp (B, W): the end included
    scores: np.ndarray  # float64 (B, W): -inf where there are fewer
    weights: np.ndarray | None  # (steps, B, W, S)


class Decoder:
    """
    A recurrent layer, what makes its inputs, and what makes something of its outputs; a snapshot, for inference.

    A step takes the embedding of the last token, beside it the context of an additive attention; the layers' step
    follows, a general attention where there is one, the head, and a choice. The whole loop runs without Python and
    without its lock, in the threads of `fastrnn.set_num_threads`; the `reference` engine runs the same in NumPy.

    Parameters
    ----------
    layer : RNN, LSTM, GRU
        Of one direction.
    head : Linear
        From the layer's output, or the attention's, to the logits.
    embedding : Embedding, optional
        None: the head's output itself is the next input (`feed`).
    attention : optional
        A `LuongAttention` or `BahdanauAttention`; then there is a `memory` to look at.

    Raises
    ------
    ValueError
        If sizes do not fit, or the layer is bidirectional.
    TypeError
        For parts of different dtypes.
    """

    def __init__(
        self,
        layer: RecurrentLayer,
        head: Linear,
        embedding: Embedding | None = None,
        attention: LuongAttention | BahdanauAttention | None = None,
    ):
        _check_parts(layer, head, embedding, attention)
        self.frozen = layer.freeze()
        self.head, self.embedding, self.attention = copy.deepcopy((head, embedding, attention))
        self.dtype, self.vocabulary = layer.dtype, head.out_features
        self._multiplications = sum(p.size for p in layer.params.values()) + head.weight.size
        self._bias = self.head.params.get("bias", np.zeros(self.vocabulary, self.dtype))
        self._matrices: dict[tuple[str, str | None], Matrix] = {}

    # --- what runs -----------------------------------------------------------------------------------------------

    def _matrix(self, name: str, weight: np.ndarray) -> Matrix:
        """A weight as the engine multiplies with it, packed once."""
        isa = _settings.isa() if _settings.engine() == "native" else None
        if (name, isa) not in self._matrices:
            self._matrices[name, isa] = Matrix(weight, isa=isa)
        return self._matrices[name, isa]

    def _loop(self, stream: Stream, memory: Any, lengths: Any, sources: int) -> Any:
        """The compiled loop, or that in NumPy where the stream is not compiled."""
        plain = stream._stepper is None

        def weight(name: str, linear: Linear) -> Any:
            return linear.weight if plain else self._matrix(name, linear.weight)

        looks = None
        if self.attention is not None:
            shape = ("N", "S", self.attention.keys.in_features)
            memory = _check.float_array("memory", memory, self.dtype, "the layer")
            if memory.ndim != 3 or memory.shape[0] != sources or memory.shape[2] != shape[2]:
                raise ValueError(f"memory: shape {memory.shape}, expected (N, S, E) with N = {sources}, E = {shape[2]}")
            S = memory.shape[1]
            lengths = _check.lengths_array(np.full(sources, S) if lengths is None else lengths, S, sources)
            looks = (self.attention.kind, self.attention.keys(memory), memory, lengths)
            if self.attention.kind == "additive":
                looks += (weight("query", self.attention.query), self.attention.v, None)
            else:
                looks += (None, None, weight("combine", self.attention.combine))
        elif memory is not None:
            raise ValueError("memory: given, but the decoder has no attention")
        embedding = None if self.embedding is None else self.embedding.weight
        if plain:
            return NumPyDecoder(stream, self.head.weight, self._bias, embedding, looks)
        return CompiledDecoder(stream._stepper, weight("head", self.head), self._bias, embedding, looks)

    def _sharing(self, steps: int, rows: int, sources: int) -> dict[str, Any]:
        """How threads share so many steps, of rows of which those of a source need each other."""
        if _settings.engine() != "native":
            return {}
        parts = min(sources, rows // _sharing.ROWS)
        if parts > 1:
            how = _sharing.independent(steps * rows * self._multiplications, parts)
            return {"members": how.members, "patience": how.patience}
        step = self.frozen._layer.params["weight_hh_l0"].size
        if rows * step < _sharing.MEETING:
            return {}
        how = _sharing.passing(steps, rows, step, self.dtype.itemsize, self._multiplications - step)
        return {"members": how.members, "patience": how.patience, "together": True}

    def _context(self, rows: int) -> AbstractContextManager:
        run = products()
        weights = self.frozen._layer.params["weight_hh_l0"]
        return run.looping(rows, weights) if hasattr(run, "looping") else nullcontext()

    def _tokens(self, name: str, value: ArrayLike) -> np.ndarray:
        if self.embedding is None:
            raise ValueError(f"{name}: the decoder has no embedding, expected a call of feed")
        array = np.ascontiguousarray(_check.indices(name, value, self.embedding.num_embeddings), dtype=np.intp)
        if array.ndim != 1:
            raise ValueError(f"{name}: shape {array.shape}, expected (B,)")
        return array

    def _weights(self, steps: int, rows: int, memory: Any, asked: bool) -> np.ndarray | None:
        if asked and self.attention is None:
            raise ValueError("weights: asked for, but the decoder has no attention")
        return np.zeros((steps, rows, np.shape(memory)[1]), self.dtype) if asked else None

    # --- what it is for ------------------------------------------------------------------------------------------

    def sample(
        self,
        start: ArrayLike,
        steps: int,
        *,
        state: Any = None,
        memory: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        temperature: float = 0.0,
        top_k: int | None = None,
        uniforms: ArrayLike | None = None,
        rng: int | np.random.Generator | None = None,
        end: int | None = None,
        padding: int = 0,
        forced: ArrayLike | None = None,
        log_probs: bool = False,
        weights: bool = False,
    ) -> Decoded:
        """
        Write tokens, each from those before.

        Parameters
        ----------
        start : integers (B,)
            The first input of each sequence; it may be one that has a vector but is never written.
        steps : int
            At most so many tokens.
        state : as the layer's, optional
            What to start from; None is what the layer starts from.
        memory : array (B, S, E), optional
            What attention looks at.
        lengths : integers (B,), optional
            How many places of `memory` each sequence has; None is all.
        temperature : float
            What the logits are divided by; 0 takes the likeliest, of equals the first.
        top_k : int, optional
            Choose among so many of the likeliest only.
        uniforms : array (steps, B), optional
            Numbers from [0, 1) that decide; None draws them from `rng`.
        rng : int, numpy.random.Generator or None
            Their source.
        end : int, optional
            The token that ends a sequence; None is none. Where all have ended, no more steps are taken.
        padding : int
            What stands behind an end; any number.
        forced : integers (steps, B), optional
            Tokens to take instead of a choice, -1 where there is one.
        log_probs : bool
            Also return the log-probability of each token, at temperature 1 and among all; zeros behind an end.
        weights : bool
            Also return the attention's weights; zeros behind an end.

        Returns
        -------
        Decoded

        Raises
        ------
        TypeError, ValueError
            For an argument of another dtype or shape, or out of range; the message names it.
        """
        start = self._tokens("start", start)
        B, steps, top_k = len(start), _check.positive_int("steps", steps, 0), self._top_k(top_k)
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature: {temperature}, expected a finite number from 0")
        if temperature and uniforms is None:
            uniforms = np.random.default_rng(rng).random((steps, B))
        if uniforms is not None:
            uniforms = _check.shaped("uniforms", uniforms, np.dtype(float), "(steps, B)", (steps, B), "their own")
            if not ((uniforms >= 0) & (uniforms < 1)).all():
                raise ValueError(f"uniforms: from {uniforms.min()} to {uniforms.max()}, expected 0 to below 1")
        if forced is not None:
            forced = _check.as_array("forced", forced)
            if forced.shape != (steps, B):
                raise ValueError(f"forced: shape {forced.shape}, expected (steps, B) = {(steps, B)}")
            _check.indices("forced", forced[forced != -1], self.vocabulary)
            forced = np.ascontiguousarray(forced, dtype=np.intp)
        if end is not None:
            _check.indices("end", end, self.vocabulary)
        if B == 0:
            raise ValueError("start: empty, expected at least one sequence")
        stream = self._stream(B, state)
        loop = self._loop(stream, memory, lengths, B)
        tokens = np.full((steps, B), padding, np.intp)
        chances = np.zeros((steps, B)) if log_probs else None
        looks = self._weights(steps, B, memory, weights)
        with self._context(B):
            loop.write(
                start, tokens, temperature=float(temperature), top_k=top_k, uniforms=uniforms,
                end=-1 if end is None else end, forced=forced, log_probs=chances, weights=looks,
                **self._sharing(steps, B, B),
            )  # fmt: skip
        lengths = _lengths(tokens, end)
        last = lengths.max(initial=0) if end is not None else steps
        if looks is not None:
            looks[np.arange(steps)[:, None] >= lengths] = 0
        cut = [None if a is None else a[:last] for a in (chances, looks)]
        return Decoded(tokens[:last], lengths, *cut, stream.state)

    def feed(
        self, start: ArrayLike, steps: int, *, state: Any = None, noise: ArrayLike | None = None
    ) -> tuple[np.ndarray, Any]:
        """
        Go on with numbers: each step's output, plus noise, is the next one's input.

        Parameters
        ----------
        start : array (B, F)
            The first input.
        steps : int
        state : as the layer's, optional
            What to start from.
        noise : array (steps, B, F), optional
            What is added to the outputs.

        Returns
        -------
        y : array (steps, B, F)
        state
            After the last step.

        Raises
        ------
        TypeError, ValueError
            As for `sample`.
        """
        if self.embedding is not None:
            raise ValueError("start: the decoder has an embedding, expected a call of sample")
        start = _check.float_array("start", start, self.dtype, "the layer")
        F, steps = self.vocabulary, _check.positive_int("steps", steps, 0)
        if start.ndim != 2 or start.shape[1] != F or not len(start):
            raise ValueError(f"start: shape {start.shape}, expected (B, F) with F = {F}, B at least 1")
        B = len(start)
        outputs = np.zeros((steps, B, F), self.dtype)
        if noise is not None:
            shape = (steps, B, F)
            outputs += _check.shaped("noise", noise, self.dtype, "(steps, B, F)", shape, "the layer")
        stream = self._stream(B, state)
        with self._context(B):
            self._loop(stream, None, None, B).feed(start, outputs, **self._sharing(steps, B, B))
        return outputs, stream.state

    def search(
        self,
        start: ArrayLike,
        steps: int,
        beam: int,
        *,
        end: int,
        state: Any = None,
        memory: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        padding: int = 0,
        penalty: float = 1.0,
        weights: bool = False,
    ) -> Beams:
        """
        Look for the likeliest sequences, with a beam of W at a time.

        At each step the W best of all continuations are kept, by their log-probability divided by their number of
        tokens to the power `penalty`; a sequence that has ended stays among them for as long as it is.

        Parameters
        ----------
        start, steps, state, memory, lengths, end, padding
            As for `sample`.
        beam : int
            W.
        penalty : float
            0 prefers short sequences, 1 (the mean log-probability) none.
        weights : bool
            Also return the attention's weights.

        Returns
        -------
        Beams

        Raises
        ------
        TypeError, ValueError
            As for `sample`.
        """
        start = self._tokens("start", start)
        N, steps, beam = len(start), _check.positive_int("steps", steps, 0), _check.positive_int("beam", beam)
        _check.indices("end", end, self.vocabulary)
        if not math.isfinite(penalty):
            raise ValueError(f"penalty: {penalty}, expected a finite number")
        if N == 0:
            raise ValueError("start: empty, expected at least one sequence")
        rows = N * beam
        given, _ = self.frozen._layer._start(state, N)
        state = tuple(None if part is None else np.repeat(part, beam, axis=1) for part in given)
        stream = self._stream(rows, state if len(state) > 1 else state[0])
        loop = self._loop(stream, memory, lengths, N)
        tokens = np.full((steps, rows), end, np.intp)
        parents = np.tile(np.arange(beam), (steps, N))
        scores, looks = np.empty(rows), self._weights(steps, rows, memory, weights)
        with self._context(rows):
            loop.search(
                np.repeat(start, beam), tokens, parents, scores, beam=beam, end=end, padding=end,
                penalty=float(penalty), weights=looks, **self._sharing(steps, rows, N),
            )  # fmt: skip
        tokens, looks = _traced(tokens, parents, beam, looks)
        scores = scores.reshape(N, beam)
        lengths = np.where(np.isneginf(scores), 0, _lengths(tokens, end))
        last = lengths.max(initial=0)
        behind = np.arange(steps)[:, None, None] >= lengths
        tokens[behind] = padding  # only now, for the search reads what it writes
        if looks is not None:
            looks[behind] = 0
        return Beams(tokens[:last], lengths, scores, None if looks is None else looks[:last])

    def _stream(self, rows: int, state: Any) -> Stream:
        stream = self.frozen.stream(rows)
        if state is not None:
            stream.state = state
        return stream

    def _top_k(self, top_k: int | None) -> int:
        return self.vocabulary if top_k is None else min(_check.positive_int("top_k", top_k), self.vocabulary)


def _check_parts(layer: Any, head: Linear, embedding: Embedding | None, attention: Any) -> None:
    """That everything is as wide as its neighbours, of one dtype, and that each token has a vector."""
    width = head.out_features if embedding is None else embedding.embedding_dim
    if attention is not None and attention.kind == "additive":
        width += attention.keys.in_features
    if layer.bidirectional:
        raise ValueError("layer: bidirectional, and the way back starts where a decoder has no end")
    if layer.input_size != width:
        raise ValueError(f"layer: input_size {layer.input_size}, expected {width}, what a step's input has")
    if head.in_features != layer.output_size:
        raise ValueError(f"head: in_features {head.in_features}, expected {layer.output_size}, the layer's output")
    if embedding is None and attention is not None:
        raise ValueError("attention: given without an embedding, expected both")
    if embedding is not None and embedding.num_embeddings < head.out_features:
        have, tokens = embedding.num_embeddings, head.out_features
        raise ValueError(f"embedding: {have} vectors, expected one for each of the {tokens} tokens of the head")
    if attention is not None:
        size = attention.query.in_features if attention.kind == "additive" else attention.combine.out_features
        if size != layer.output_size:
            raise ValueError(f"attention: hidden_size {size}, expected {layer.output_size}, the layer's output")
    for name, part in (("head", head), ("embedding", embedding), ("attention", attention)):
        for parameter in () if part is None else part.parameters():
            if parameter.value.dtype != layer.dtype:
                raise TypeError(f"{name}: dtype {parameter.value.dtype}, expected {layer.dtype}, that of the layer")


def _lengths(tokens: np.ndarray, end: int | None) -> np.ndarray:
    """Steps up to the first end, it included, along the first axis."""
    ends = tokens == (-1 if end is None else end)
    return np.where(ends.any(axis=0), ends.argmax(axis=0) + 1, len(tokens)) if len(tokens) else ends.sum(axis=0)


def _traced(
    tokens: np.ndarray, parents: np.ndarray, beam: int, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Tokens (and weights) of each hypothesis of the last step, followed back to the first: (steps, N, W, ...)."""
    steps, rows = tokens.shape
    shape = (steps, rows // beam, beam)
    tokens, parents = tokens.reshape(shape), parents.reshape(shape)
    rows_at, before = np.empty(shape, np.intp), np.empty(shape, np.intp)
    now = np.broadcast_to(np.arange(beam), shape[1:])
    for t in range(steps - 1, -1, -1):
        rows_at[t], now = now, np.take_along_axis(parents[t], now, axis=1)
        before[t] = now
    tokens = np.take_along_axis(tokens, rows_at, axis=2)
    if weights is not None:
        weights = np.take_along_axis(weights.reshape(*shape, weights.shape[-1]), before[..., None], axis=2)
    return tokens, weights
