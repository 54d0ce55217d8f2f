"""Text: reading it, characters and words as numbers, and one long text as batches."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check
from fastrnn._check import positive_int


def read_text(path: str | os.PathLike) -> str:
    """
    Read a text file.

    Parameters
    ----------
    path : path
        Of UTF-8, with or without a byte order mark; ends of lines become line feeds.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If it is empty, or not UTF-8.
    OSError
        If it cannot be read.
    """
    with open(path, "rb") as file:
        raw = file.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text, byte {error.start} is 0x{raw[error.start]:02x}") from None
    if not text:
        raise ValueError(f"{path}: empty, expected text")
    return text.replace("\r\n", "\n")


class CharVocabulary:
    """
    A number for each of the characters of a text, in code point order.

    Parameters
    ----------
    text : str
        Its characters are the vocabulary.
    """

    def __init__(self, text: str):
        points = np.unique(_code_points(text))
        if not len(points):
            raise ValueError("text: empty, expected at least one character")
        self.code_points = points

    def __len__(self) -> int:
        return len(self.code_points)

    @property
    def characters(self) -> str:
        """All characters, each at the place that is its number."""
        return "".join(map(chr, self.code_points))

    def encode(self, text: str) -> np.ndarray:
        """
        The number of each character: (len(text),) intp.

        Raises
        ------
        ValueError
            For a character that is not in the vocabulary.
        """
        points = _code_points(text)
        numbers = np.searchsorted(self.code_points, points)
        known = self.code_points[np.minimum(numbers, len(self) - 1)] == points
        if not known.all():
            strange = text[int(np.argmin(known))]
            raise ValueError(f"text: {strange!r} is not among the {len(self)} characters of the vocabulary")
        return numbers

    def decode(self, numbers: ArrayLike) -> str:
        """
        The text of numbers (T,), the way back from `encode`.

        Raises
        ------
        TypeError, ValueError
            For numbers that no character has.
        """
        return "".join(map(chr, self.code_points[_indices(numbers, len(self))]))


def split_words(text: str) -> list[str]:
    """Words in lower case, and each other mark that is not white space as one of its own."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


class WordVocabulary:
    """
    A number for each of the commonest words of texts, from 2 on, the commonest first.

    Parameters
    ----------
    texts : iterable of str, or str
        Their words are the vocabulary. Equally common ones are in the order of the alphabet.
    min_count : int
        How often a word must be there.
    max_size : int, optional
        How many words to take at most.
    split : callable
        Makes a list of words of a text.

    Attributes
    ----------
    words : list of str
        Each at the place that is its number; the first two are the names of padding and of unknown words.
    padding, unknown : int
        0, which is also what `fastrnn.data.pad_sequences` puts behind the ends, and 1.

    Raises
    ------
    ValueError
        If no word is left.
    """

    padding, unknown = 0, 1

    def __init__(
        self,
        texts: Iterable[str] | str,
        min_count: int = 1,
        max_size: int | None = None,
        *,
        split: Callable[[str], list[str]] = split_words,
    ):
        positive_int("min_count", min_count)
        self._split = split
        counts = Counter(word for text in ([texts] if isinstance(texts, str) else texts) for word in split(text))
        common = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        if not common:
            raise ValueError(f"texts: {len(counts)} words, expected one that is there at least {min_count} times")
        taken = common if max_size is None else common[: positive_int("max_size", max_size)]
        self.words = ["<pad>", "<unk>", *(word for _, word in taken)]
        self._numbers = {word: number for number, word in enumerate(self.words) if number > self.unknown}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> np.ndarray:
        """The number of each word: (words,) intp."""
        return np.array([self._numbers.get(word, self.unknown) for word in self._split(text)], dtype=np.intp)

    def decode(self, numbers: ArrayLike) -> str:
        """
        The words of numbers (T,) with spaces in between, without padding.

        Raises
        ------
        TypeError, ValueError
            For numbers that no word has.
        """
        numbers = _indices(numbers, len(self))
        return " ".join(self.words[number] for number in numbers if number != self.padding)


def _indices(numbers: ArrayLike, count: int) -> np.ndarray:
    """`numbers` of a vocabulary in one row."""
    array = _check.as_array("numbers", numbers).ravel()
    return _check.indices("numbers", array if array.size else array.astype(np.intp), count)  # [] is of float64


def _code_points(text: str) -> np.ndarray:
    # surrogatepass: a lone surrogate is a character here like any other.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32)


def text_batches(numbers: np.ndarray, batch_size: int, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """
    Cut one long text into `batch_size` equal pieces and walk them side by side.

    Each chunk goes on where the one before stopped, so a state can be handed on (`fastrnn.nn.truncated_bptt`).

    Parameters
    ----------
    numbers : integers (N,)
        The encoded text.
    batch_size : int
        B, how many pieces.
    steps : int
        T, how many characters of each piece a chunk has; the last chunk may have fewer.

    Yields
    ------
    inputs, targets : integers (T, B)
        The targets are the inputs moved on by one character. Each character but the few left over at the end is an
        input once.

    Raises
    ------
    TypeError, ValueError
        For another shape, and a text too short for every piece to have an input and a target.
    """
    batch_size, steps = positive_int("batch_size", batch_size), positive_int("steps", steps)
    numbers = _check.as_array("numbers", numbers)
    if numbers.ndim != 1:
        raise ValueError(f"numbers: shape {numbers.shape}, expected (N,)")
    length = (len(numbers) - 1) // batch_size
    if length < 1:
        raise ValueError(f"numbers: {len(numbers)} characters, expected at least {batch_size + 1} for one batch")
    return _walk(numbers, batch_size, steps, length)


def _walk(numbers: np.ndarray, batch_size: int, steps: int, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    inputs = numbers[: batch_size * length].reshape(batch_size, length).T
    targets = numbers[1 : batch_size * length + 1].reshape(batch_size, length).T
    for start in range(0, length, steps):
        yield inputs[start : start + steps], targets[start : start + steps]
