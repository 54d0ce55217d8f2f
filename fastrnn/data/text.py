"""Text: reading it, characters as numbers, and one long text as batches."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np


def read_text(path: str | os.PathLike) -> str:
    """
    Read a text file.

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

    def decode(self, numbers: np.ndarray) -> str:
        """The text of numbers, the way back from `encode`."""
        return "".join(map(chr, self.code_points[np.asarray(numbers, dtype=np.intp)]))


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
    ValueError
        If the text is too short for every piece to have an input and a target.
    """
    for name, value in (("batch_size", batch_size), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name}: {value}, expected a whole number from 1")
    numbers = np.asarray(numbers)
    length = (len(numbers) - 1) // batch_size
    if length < 1:
        raise ValueError(f"numbers: {len(numbers)} characters, expected at least {batch_size + 1} for one batch")
    return _walk(numbers, batch_size, steps, length)


def _walk(numbers: np.ndarray, batch_size: int, steps: int, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    inputs = numbers[: batch_size * length].reshape(batch_size, length).T
    targets = numbers[1 : batch_size * length + 1].reshape(batch_size, length).T
    for start in range(0, length, steps):
        yield inputs[start : start + steps], targets[start : start + steps]
