"""A character-level language model: embedding, LSTM, linear."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastrnn import _check, files
from fastrnn._building import build
from fastrnn._safetensors import parse_json
from fastrnn.data import CharVocabulary, text_batches
from fastrnn.layers import LSTM
from fastrnn.models.decoder import Decoder
from fastrnn.module import Module
from fastrnn.nn import CrossEntropyLoss, Embedding, Linear

FORMAT_1 = "fastrnn.CharModel/1"
CHUNK = 32  # characters at a time: the first one comes soon, and a call's own time is little beside theirs


class CharModel(Module):
    """
    Predicts the next character of a text.

    Parameters
    ----------
    vocabulary : CharVocabulary
        The characters it knows.
    embedding_dim, hidden_size, num_layers : int
        The sizes of the embedding and of the LSTM.
    dropout : float
        Between the LSTM's layers, in training.
    dtype : {float32, float64}
        Of the parameters.
    rng : int, numpy.random.Generator or None
        The source of the initial parameters and of dropout.

    Attributes
    ----------
    embedding : Embedding
    lstm : LSTM
    head : Linear
    """

    def __init__(
        self,
        vocabulary: CharVocabulary,
        embedding_dim: int = 32,
        hidden_size: int = 192,
        num_layers: int = 1,
        dropout: float = 0.0,
        *,
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
    ):
        super().__init__()
        rng = np.random.default_rng(rng)
        self.vocabulary = vocabulary
        self.config = {
            "embedding_dim": embedding_dim,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "dropout": dropout,
        }
        self.embedding = Embedding(len(vocabulary), embedding_dim, dtype=dtype, rng=rng)
        self.lstm = LSTM(embedding_dim, hidden_size, num_layers, dropout=dropout, dtype=dtype, rng=rng)
        self.head = Linear(hidden_size, len(vocabulary), dtype=dtype, rng=rng)

    def forward(self, inputs: np.ndarray, state: Any = None) -> tuple[np.ndarray, Any, tuple]:
        """Logits (T, B, len(vocabulary)) of characters (T, B), the state after them, and the cache for `backward`."""
        vectors, embedding_cache = self.embedding.forward(inputs)
        hidden, state, lstm_cache = self.lstm.forward(vectors, state)
        logits, head_cache = self.head.forward(hidden)
        return logits, state, (embedding_cache, lstm_cache, head_cache)

    def backward(self, cache: tuple, dlogits: np.ndarray) -> None:
        """Add into the gradients of all three layers."""
        embedding_cache, lstm_cache, head_cache = cache
        dvectors, _ = self.lstm.backward(lstm_cache, self.head.backward(head_cache, dlogits))
        self.embedding.backward(embedding_cache, dvectors)

    def __call__(self, inputs: np.ndarray, state: Any = None) -> tuple[np.ndarray, Any]:
        """Logits and state as by `forward`, for inference."""
        hidden, state = self.lstm(self.embedding(inputs), state)
        return self.head(hidden), state

    def bits_per_character(self, numbers: np.ndarray, batch_size: int = 32, steps: int = 256) -> float:
        """
        The cross-entropy on a text, in bits per character.

        Parameters
        ----------
        numbers : integers (N,)
            The encoded text, longer than `batch_size`.
        batch_size, steps : int
            How the text is cut, see `fastrnn.data.text_batches`. Each piece starts from a state of zeros.
        """
        loss, state, total, count = CrossEntropyLoss(), None, 0.0, 0
        for inputs, targets in text_batches(numbers, batch_size, steps):
            logits, state = self(inputs, state)
            total += loss(logits, targets) * targets.size
            count += targets.size
        return total / count / math.log(2)

    def generate(
        self,
        prompt: str,
        length: int,
        temperature: float = 0.7,
        rng: int | np.random.Generator | None = None,
        *,
        top_k: int | None = None,
    ) -> Iterator[str]:
        """
        Sample a continuation; the loop is compiled.

        Parameters
        ----------
        prompt : str
            At least one character, all of the vocabulary.
        length : int
            How many characters.
        temperature : float
            What the logits are divided by: below 1 is bolder, above 1 wilder, 0 always takes the likeliest.
        rng : int, numpy.random.Generator or None
            The source of chance: one uniform number for each character, drawn some in advance.
        top_k : int, optional
            Choose among so many of the likeliest characters only.

        Yields
        ------
        str
            One character after another.

        Raises
        ------
        ValueError
            For an empty prompt, an unknown character, a `length` below 0, a temperature that is negative or not finite,
            or a `top_k` below 1.
        """
        numbers = check_sampling(self.vocabulary, prompt, temperature)
        if top_k is not None:
            _check.positive_int("top_k", top_k)
        length = _check.positive_int("length", length, 0)
        return self._sample(numbers, length, temperature, top_k, np.random.default_rng(rng))

    def _sample(
        self, numbers: np.ndarray, length: int, temperature: float, top_k: int | None, rng: np.random.Generator
    ) -> Iterator[str]:
        decoder = Decoder(self.lstm, self.head, self.embedding)
        _, state = decoder.frozen(self.embedding(numbers[:-1, None]))
        last = numbers[-1:]
        for done in range(0, length, CHUNK):
            steps = min(CHUNK, length - done)
            tokens, *_, state = decoder.sample(last, steps, state=state, temperature=temperature, top_k=top_k, rng=rng)
            last = tokens[-1]
            yield from self.vocabulary.decode(tokens[:, 0])

    def save(self, path: str | os.PathLike) -> None:
        """Write everything to an ``.npz`` or ``.safetensors`` file, as `fastrnn.save` does."""
        files.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> CharModel:
        """
        Read what `save` wrote, also before there was `fastrnn.load`. Nothing in the file is executed.

        Raises
        ------
        ValueError
            If it is not such a file, damaged, or its arrays do not fit one another.
        OSError
            If it cannot be read.
        """
        with files.naming(path, "not a weights file of a character model, or damaged"):
            arrays, text = files.read(path)
            model = build(_described_in(arrays), arrays) if text is None else files.built(text, arrays)
            if not isinstance(model, CharModel):
                raise ValueError(f"it is a {type(model).__name__}")
        return model


def check_sampling(vocabulary: CharVocabulary, prompt: str, temperature: float) -> np.ndarray:
    """The prompt's characters as numbers; ValueError for what `CharModel.generate` refuses."""
    if not prompt:
        raise ValueError("prompt: empty, expected at least one character")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature: {temperature}, expected a finite number from 0")
    return vocabulary.encode(prompt)


def _described_in(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The description of a model in a file of format 1, taken out of its arrays."""
    if "header" not in arrays or "vocabulary" not in arrays:
        raise ValueError("neither a description nor a header with a vocabulary")
    header = parse_json(str(arrays.pop("header")))
    if not isinstance(header, dict) or header.pop("format", None) != FORMAT_1:
        raise ValueError(f"a header that is not of format {FORMAT_1}")
    vocabulary = {"class": "CharVocabulary", "code_points": arrays.pop("vocabulary").tolist()}
    dtype = str(next(iter(arrays.values())).dtype) if arrays else None
    return {"class": "CharModel", "arguments": {"vocabulary": vocabulary, **header, "dtype": dtype}}
