"""Sequence to sequence: an encoder, a decoder, and one of two attentions between them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check
from fastrnn.layers import GRU, LSTM
from fastrnn.models._attention import BahdanauAttention, LuongAttention
from fastrnn.models.decoder import Decoder
from fastrnn.module import Module, float_dtype
from fastrnn.nn import CrossEntropyLoss, Embedding, Linear

CELLS = {"lstm": LSTM, "gru": GRU}


class Translations(NamedTuple):
    """What `Seq2Seq.decode` wrote, samples first."""

    tokens: np.ndarray  # intp (N, T): eos included, pad behind
    lengths: np.ndarray  # intp (N,): eos included
    scores: np.ndarray  # float64 (N,): the mean log-probability of a token
    weights: np.ndarray | None  # (N, T, S): where attention looked
    beams: tuple[np.ndarray, np.ndarray] | None  # all of a beam search: tokens (N, W, T), scores (N, W)


class Seq2Seq(Module):
    """
    Writes a sequence of tokens for a sequence of tokens.

    The encoder reads the source; its last state is what the decoder starts from, through a linear map where the encoder
    is bidirectional (and tanh, for h). All arrays have samples first.

    Parameters
    ----------
    vocab_in, vocab_out : int
        How many tokens there are on either side.
    embedding_dim, hidden_size, num_layers : int
        D, H and the layers, on both sides.
    cell : {"lstm", "gru"}
    attention : {None, "luong", "bahdanau"}
        None: the decoder knows the encoder's last state only. Luong's looks after each step, Bahdanau's before it, and
        trains step by step, which takes longer.
    bidirectional : bool
        Whether the encoder is.
    dropout : float
        Between the layers, in training.
    bos, eos, pad : int
        The tokens of `vocab_out` that begin, end and fill up a target.
    forget_bias : float, optional
        Of both LSTMs, see `fastrnn.LSTM`. With 1 they remember from the start.
    dtype : {float32, float64}
    rng : int, numpy.random.Generator or None
        The source of the initial parameters, of dropout and of scheduled sampling.

    Notes
    -----
    Sutskever, Vinyals & Le, Sequence to sequence learning with neural networks, 2014; the attentions are
    `fastrnn.models.LuongAttention` and `fastrnn.models.BahdanauAttention`.
    """

    def __init__(
        self,
        vocab_in: int,
        vocab_out: int,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int = 1,
        cell: str = "lstm",
        attention: str | None = None,
        bidirectional: bool = False,
        dropout: float = 0.0,
        *,
        bos: int = 1,
        eos: int = 2,
        pad: int = 0,
        forget_bias: float | None = None,
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
    ):
        super().__init__()
        if attention not in (None, "luong", "bahdanau"):
            raise ValueError(f"attention: {attention!r}, expected None, 'luong' or 'bahdanau'")
        for name, token in (("bos", bos), ("eos", eos), ("pad", pad)):
            if not 0 <= token < vocab_out:
                raise ValueError(f"{name}: {token}, expected a token from 0 to {vocab_out - 1}")
        layer = CELLS[_check.choice("cell", cell, tuple(CELLS))]
        if forget_bias is not None and cell != "lstm":
            raise ValueError(f"forget_bias: {forget_bias!r} with cell {cell!r}, expected None or an LSTM")
        self.rng = rng = np.random.default_rng(rng)
        self.dtype, self.bos, self.eos, self.pad = float_dtype(dtype), bos, eos, pad
        options: dict[str, Any] = {"dtype": self.dtype, "rng": rng}
        layers = {"num_layers": num_layers, "batch_first": True, "dropout": dropout, **options}
        if forget_bias is not None:
            layers["forget_bias"] = forget_bias
        E = hidden_size * (2 if bidirectional else 1)
        D = embedding_dim + (E if attention == "bahdanau" else 0)
        self.embedding_in = Embedding(vocab_in, embedding_dim, **options)
        self.encoder = layer(embedding_dim, hidden_size, bidirectional=bidirectional, **layers)
        self.bridges = [f"bridge_{name}" for name in self.encoder.state_names] if bidirectional else []
        for name in self.bridges:
            setattr(self, name, Linear(E, hidden_size, **options))
        self.embedding_out = Embedding(vocab_out, embedding_dim, **options)
        self.decoder = layer(D, hidden_size, **layers)
        self.attention = None
        if attention == "luong":
            self.attention = LuongAttention(hidden_size, E, **options)
        elif attention == "bahdanau":
            self.attention = BahdanauAttention(hidden_size, E, hidden_size, **options)
        self.head = Linear(hidden_size, vocab_out, **options)

    # --- the encoder ---------------------------------------------------------------------------------------------

    def _encode(self, source: ArrayLike, lengths: ArrayLike | None) -> tuple[np.ndarray, np.ndarray, tuple, tuple]:
        """The memory (N, S, E), which of it is there (N, S), the decoder's first state, and the cache."""
        source = _check.indices("source", source, self.embedding_in.num_embeddings)
        if source.ndim != 2:
            raise ValueError(f"source: shape {source.shape}, expected (N, S)")
        N, S = source.shape
        lengths = _check.lengths_array(np.full(N, S) if lengths is None else lengths, S, N)
        vectors, embedding_cache = self.embedding_in.forward(source)
        memory, state, encoder_cache = self.encoder.forward(vectors, lengths=lengths)
        state, bridge_caches = self._bridge(state if isinstance(state, tuple) else (state,))
        mask = np.arange(S) < lengths[:, None]
        return np.ascontiguousarray(memory), mask, state, (embedding_cache, encoder_cache, bridge_caches)

    def _bridge(self, state: tuple) -> tuple[tuple, list]:
        """Each part of the encoder's last state as the decoder's: both directions side by side, mapped."""
        caches, parts = [], []
        for name, part in zip(self.bridges, state, strict=False):
            DL, N, H = part.shape
            both = part.reshape(DL // 2, 2, N, H).transpose(0, 2, 1, 3).reshape(DL // 2, N, 2 * H)
            new, cache = getattr(self, name).forward(both)
            if name == "bridge_h":
                np.tanh(new, out=new)
            parts.append(new)
            caches.append((cache, new))
        return tuple(parts) if self.bridges else state, caches

    def _encode_backward(self, cache: tuple, dmemory: np.ndarray | None, dstate: tuple) -> None:
        embedding_cache, encoder_cache, bridge_caches = cache
        if bridge_caches:
            parts = []
            for name, (bridge_cache, new), d in zip(self.bridges, bridge_caches, dstate, strict=True):
                both = getattr(self, name).backward(bridge_cache, d * (1 - new * new) if name == "bridge_h" else d)
                L, N, E = both.shape
                parts.append(both.reshape(L, N, 2, E // 2).transpose(0, 2, 1, 3).reshape(2 * L, N, E // 2))
            dstate = tuple(parts)
        dvectors, _ = self.encoder.backward(encoder_cache, dmemory, dstate if len(dstate) > 1 else dstate[0])
        self.embedding_in.backward(embedding_cache, dvectors)

    # --- training ------------------------------------------------------------------------------------------------

    def forward(
        self,
        source: ArrayLike,
        source_lengths: ArrayLike | None,
        target_in: ArrayLike,
        teacher_forcing: float = 1.0,
    ) -> tuple[np.ndarray, tuple]:
        """
        The logits of each next token.

        Parameters
        ----------
        source : integers (N, S)
        source_lengths : integers (N,) or None
            None: all are S.
        target_in : integers (N, T)
            What the decoder reads: the target behind `bos`.
        teacher_forcing : float
            The probability with which a step reads the target's token. Otherwise it reads what the model itself found
            likeliest after the step before (scheduled sampling): a first pass, without dropout, finds these tokens, and
            no gradient passes through their choice.

        Returns
        -------
        logits : array (N, T, vocab_out)
        cache : tuple
            For `backward`.

        Raises
        ------
        TypeError, ValueError
            For an argument of another dtype or shape, or out of range; the message names it.
        """
        target_in = _check.indices("target_in", target_in, self.embedding_out.num_embeddings)
        if target_in.ndim != 2 or len(target_in) != len(source):
            raise ValueError(f"target_in: shape {target_in.shape}, expected (N, T) with N = {len(source)}")
        if not 0 <= teacher_forcing <= 1:
            raise ValueError(f"teacher_forcing: {teacher_forcing}, expected a probability from 0 to 1")
        memory, mask, state, encoded = self._encode(source, source_lengths)
        if teacher_forcing < 1 and target_in.shape[1] > 1 and len(target_in):
            target_in = self._sampled(target_in, teacher_forcing, memory, mask, state)
        vectors, embedding_cache = self.embedding_out.forward(target_in)
        run = self._attended_steps if isinstance(self.attention, BahdanauAttention) else self._all_steps
        hidden, cache = run(vectors, memory, mask, state)
        logits, head_cache = self.head.forward(hidden)
        return logits, (encoded, embedding_cache, cache, head_cache)

    def backward(self, cache: tuple, dlogits: ArrayLike) -> None:
        """Add the gradients of all parameters into theirs."""
        encoded, embedding_cache, cache, head_cache = cache
        dhidden = self.head.backward(head_cache, dlogits)
        stepwise = isinstance(self.attention, BahdanauAttention)
        run = self._attended_steps_backward if stepwise else self._all_steps_backward
        dvectors, dmemory, dstate = run(cache, dhidden)
        self.embedding_out.backward(embedding_cache, dvectors)
        self._encode_backward(encoded, dmemory, dstate)

    def learn(
        self,
        source: ArrayLike,
        source_lengths: ArrayLike | None,
        target: ArrayLike,
        *,
        teacher_forcing: float = 1.0,
        loss: CrossEntropyLoss | None = None,
    ) -> float:
        """
        Add the gradients of a batch's loss into those of all parameters.

        Parameters
        ----------
        source : integers (N, S)
        source_lengths : integers (N,) or None
            None: all are S.
        target : integers (N, 1 + T)
            Each row is `bos`, the tokens, `eos`; what stands behind the first `eos` does not count. At least one
            sample and one token to write.
        teacher_forcing : float
            See `forward`.
        loss : CrossEntropyLoss, optional
            None is one without label smoothing.

        Returns
        -------
        float
            The mean over the tokens to write, each `eos` among them, in nats.

        Raises
        ------
        TypeError, ValueError
            For an argument of another dtype or shape, or out of range; the message names it.
        """
        target = _check.indices("target", target, self.embedding_out.num_embeddings)
        if target.ndim != 2 or len(target) != len(source) or target.size == 0 or target.shape[1] < 2:
            raise ValueError(f"target: shape {target.shape}, expected (N, 1 + T), N = {len(source)} and T from 1")
        read, wanted = target[:, :-1], target[:, 1:]
        ended = np.cumsum(wanted == self.eos, axis=1)
        mask = ended - (wanted == self.eos) == 0  # no eos before it
        loss = CrossEntropyLoss() if loss is None else loss
        logits, cache = self.forward(source, source_lengths, read, teacher_forcing)
        value, loss_cache = loss.forward(logits, wanted, mask)
        self.backward(cache, loss.backward(loss_cache))
        return value

    def _sampled(self, target_in: np.ndarray, ratio: float, memory: Any, mask: Any, state: tuple) -> np.ndarray:
        """`target_in` with some tokens, never the first, replaced by those the model finds likeliest."""
        forced = np.where(self.rng.random(target_in[:, 1:].shape) < ratio, target_in[:, 1:], -1)
        written = self._decoder().sample(
            target_in[:, 0], forced.shape[1], forced=forced.T, **self._start(memory, mask.sum(axis=1), state)
        )
        return np.concatenate([target_in[:, :1], written.tokens.T], axis=1)

    def _all_steps(self, vectors: np.ndarray, memory: np.ndarray, mask: np.ndarray, state: tuple) -> tuple:
        """All steps at once: attention comes after the layers, and nothing of it goes back into them."""
        hidden, _, cache = self.decoder.forward(vectors, state if len(state) > 1 else state[0])
        if self.attention is None:
            return hidden, (cache, None)
        out, attention_cache = self.attention.forward(hidden, memory, mask)
        return out, (cache, attention_cache)

    def _all_steps_backward(self, cache: tuple, dhidden: np.ndarray) -> tuple:
        cache, attention_cache = cache
        dmemory = None
        if attention_cache is not None:
            dhidden, dmemory = self.attention.backward(attention_cache, dhidden)
        dvectors, dstate = self.decoder.backward(cache, dhidden)
        return dvectors, dmemory, dstate if isinstance(dstate, tuple) else (dstate,)

    def _attended_steps(self, vectors: np.ndarray, memory: np.ndarray, mask: np.ndarray, state: tuple) -> tuple:
        """One step after the other, each with a context of its own beside its vectors."""
        keys, _ = self.attention.keys.forward(memory)
        hidden, caches = [np.empty((len(memory), 0, self.decoder.hidden_size), self.dtype)], []
        for t in range(vectors.shape[1]):
            context, looked = self.attention.forward(state[0][-1], keys, memory, mask)
            x = np.concatenate([vectors[:, t], context], axis=1)[:, None]
            y, end, stepped = self.decoder.forward(x, state if len(state) > 1 else state[0])
            state = end if isinstance(end, tuple) else (end,)
            hidden.append(y)
            caches.append((looked, stepped))
        return np.concatenate(hidden, axis=1), (caches, memory, keys, state)

    def _attended_steps_backward(self, cache: tuple, dhidden: np.ndarray) -> tuple:
        caches, memory, keys, state = cache
        D = self.embedding_out.embedding_dim
        dvectors = np.empty((*dhidden.shape[:2], D), self.dtype)
        dkeys, dmemory, dstate = np.zeros_like(keys), np.zeros_like(memory), tuple(map(np.zeros_like, state))
        for t in range(len(caches) - 1, -1, -1):
            looked, stepped = caches[t]
            dx, dstart = self.decoder.backward(stepped, dhidden[:, t : t + 1], dstate if len(dstate) > 1 else dstate[0])
            dstate = dstart if isinstance(dstart, tuple) else (dstart,)
            dvectors[:, t] = dx[:, 0, :D]
            dh, dk, dm = self.attention.backward(looked, np.ascontiguousarray(dx[:, 0, D:]))
            dstate[0][-1] += dh
            dkeys += dk
            dmemory += dm
        dmemory += self.attention.keys.backward(memory, dkeys)
        return dvectors, dmemory, dstate

    # --- decoding ------------------------------------------------------------------------------------------------

    def _decoder(self) -> Decoder:
        return Decoder(self.decoder, self.head, self.embedding_out, self.attention)

    def _start(self, memory: np.ndarray, lengths: np.ndarray, state: tuple) -> dict[str, Any]:
        """What a `Decoder` needs of an encoded source."""
        seen = {} if self.attention is None else {"memory": memory, "lengths": lengths}
        return {"state": state if len(state) > 1 else state[0], **seen}

    def decode(
        self,
        source: ArrayLike,
        lengths: ArrayLike | None = None,
        max_len: int = 50,
        beam: int = 1,
        *,
        weights: bool = False,
    ) -> Translations:
        """
        Write the likeliest target of each source; the loop is compiled.

        Parameters
        ----------
        source : integers (N, S)
        lengths : integers (N,), optional
            None: all are S.
        max_len : int
            At most so many tokens.
        beam : int
            1 takes the likeliest token at each step; more keeps so many sequences and gives the best, by the mean
            log-probability of its tokens.
        weights : bool
            Also return the attention's weights.

        Returns
        -------
        Translations

        Raises
        ------
        TypeError, ValueError
            For an argument of another dtype or shape, or out of range; the message names it.
        """
        max_len = _check.positive_int("max_len", max_len, 0)
        memory, mask, state, _ = self._encode_quietly(source, lengths)
        N = len(memory)
        if not N:
            raise ValueError(f"source: shape {np.shape(source)}, expected at least one sample")
        begin, rest = np.full(N, self.bos), self._start(memory, mask.sum(axis=1), state)
        rest |= {"end": self.eos, "padding": self.pad, "weights": weights}
        if _check.positive_int("beam", beam) == 1:
            found = self._decoder().sample(begin, max_len, log_probs=True, **rest)
            scores = found.log_probs.sum(axis=0) / np.maximum(found.lengths, 1)
            looks = None if found.weights is None else found.weights.transpose(1, 0, 2)
            return Translations(found.tokens.T, found.lengths, scores, looks, None)
        many = self._decoder().search(begin, max_len, beam, **rest)
        tokens = many.tokens.transpose(1, 2, 0)
        looks = None if many.weights is None else many.weights[:, :, 0].transpose(1, 0, 2)
        return Translations(tokens[:, 0], many.lengths[:, 0], many.scores[:, 0], looks, (tokens, many.scores))

    def _encode_quietly(self, source: ArrayLike, lengths: ArrayLike | None) -> tuple:
        """As `_encode`, without dropout."""
        dropout, self.encoder.dropout = self.encoder.dropout, 0.0
        try:
            return self._encode(source, lengths)
        finally:
            self.encoder.dropout = dropout
