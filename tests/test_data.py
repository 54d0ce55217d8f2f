"""Text as arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.data import CharVocabulary, read_text, text_batches


@given(st.text(min_size=1))
def test_a_vocabulary_encodes_and_decodes_its_text(text):
    vocabulary = CharVocabulary(text)
    numbers = vocabulary.encode(text)
    assert vocabulary.decode(numbers) == text
    assert vocabulary.characters == "".join(sorted(set(text)))
    assert len(vocabulary) == len(set(text))


def test_unknown_characters_and_empty_texts():
    vocabulary = CharVocabulary("hello")
    with pytest.raises(ValueError, match=r"^text: 'z' is not among the 4 characters"):
        vocabulary.encode("holz")
    with pytest.raises(ValueError, match=r"^text: empty"):
        CharVocabulary("")
    assert len(vocabulary.encode("")) == 0


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 9))
def test_batches_walk_the_text(length, batch_size, steps):
    numbers = np.arange(length)
    if length <= batch_size:
        with pytest.raises(ValueError, match=rf"^numbers: {length} characters, expected at least {batch_size + 1}"):
            text_batches(numbers, batch_size, steps)
        return
    chunks = list(text_batches(numbers, batch_size, steps))
    assert all(len(inputs) == steps for inputs, _ in chunks[:-1])
    inputs = np.concatenate([a for a, _ in chunks])
    targets = np.concatenate([b for _, b in chunks])
    np.testing.assert_array_equal(targets, inputs + 1)
    # column by column, the inputs are the text from its start, without the few left over
    np.testing.assert_array_equal(inputs.T.ravel(), np.arange(inputs.size))
    assert length - 1 - batch_size < inputs.size <= length - 1


def test_reading(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffnaïve\r\ncafé".encode())
    assert read_text(path) == "naïve\ncafé"
    path.write_bytes(b"abc\xff")
    with pytest.raises(ValueError, match=r"not UTF-8 text, byte 3 is 0xff"):
        read_text(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty, expected text"):
        read_text(path)
    with pytest.raises(OSError, match="No such file"):
        read_text(tmp_path / "none.txt")
