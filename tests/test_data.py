"""Text and sequences as arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.data import (
    CharVocabulary,
    WordVocabulary,
    create_mask,
    pad_sequences,
    read_text,
    split_words,
    text_batches,
    time_split,
    windows,
)


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
    assert vocabulary.decode([]) == ""
    for numbers in ([0, -1], [4]):
        with pytest.raises(ValueError, match=r"^numbers: values from .*, expected 0 to 3"):
            vocabulary.decode(numbers)


def test_sizes_of_batches_are_whole_numbers():
    for sizes, name in (((2.5, 3), "batch_size"), ((2, 3.0), "steps")):
        with pytest.raises(TypeError, match=rf"^{name}: "):
            text_batches(np.arange(20), *sizes)
    with pytest.raises(ValueError, match=r"^steps: 0"):
        text_batches(np.arange(20), 2, 0)


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


def test_padding():
    a, b = np.arange(6.0).reshape(3, 2), np.full((1, 2), 7.0)
    x, lengths = pad_sequences([a, np.zeros((0, 2)), b], value=-1)
    assert (x.shape, x.dtype) == ((3, 3, 2), np.float64)
    np.testing.assert_array_equal(lengths, [3, 0, 1])
    np.testing.assert_array_equal(x[0], a)
    np.testing.assert_array_equal(x[1], np.full((3, 2), -1))
    np.testing.assert_array_equal(x[2], [[7, 7], [-1, -1], [-1, -1]])
    for maxlen in (2, 5):
        x, lengths = pad_sequences([a, b], maxlen=maxlen)
        np.testing.assert_array_equal(lengths, [min(3, maxlen), 1])
        np.testing.assert_array_equal(x[0, :2], a[:2])
        assert x.shape == (2, maxlen, 2)
        assert not x[1, 1:].any()


def test_padding_keeps_the_dtype():
    x, lengths = pad_sequences([[1, 2], [], [3]])
    np.testing.assert_array_equal(x, [[1, 2], [0, 0], [3, 0]])
    assert x.dtype.kind == "i"
    np.testing.assert_array_equal(lengths, [2, 0, 1])
    x, _ = pad_sequences([np.ones(1, np.float32), np.ones(2, np.float32)], value=np.nan)
    assert x.dtype == np.float32
    assert np.isnan(x[0, 1])
    assert pad_sequences([[]])[0].shape == (1, 0)


@pytest.mark.parametrize(
    ("sequences", "options", "message"),
    [
        ([], {}, r"^sequences: none"),
        ([1.0, 2.0], {}, r"^sequences: .*first axis"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], {}, r"^sequences\[1\]: shape \(2, 4\), expected .*\(3,\)"),
        ([[1], [2, 3]], {"value": 0.5}, r"^value: 0.5"),
        ([[1], [2, 3]], {"value": np.nan}, r"^value: nan"),
        ([[1]], {"maxlen": 0}, r"^maxlen: 0"),
    ],
)
def test_what_cannot_be_padded(sequences, options, message):
    with pytest.raises(ValueError, match=message):
        pad_sequences(sequences, **options)


def test_masks():
    expected = [[True, True, False], [False] * 3, [True] * 3]
    np.testing.assert_array_equal(create_mask([2, 0, 3]), expected)
    np.testing.assert_array_equal(create_mask(np.array([2, 0]), 3), expected[:2])
    assert create_mask(np.zeros(0, int)).shape == (0, 0)
    for bad, T in (([1.5], None), ([4], 3), ([-1], None), ([[1]], None)):
        with pytest.raises((TypeError, ValueError), match=r"^lengths: "):
            create_mask(bad, T)


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(1, 3))
def test_windows(steps, length, horizon, step, features):
    series = np.arange(steps * features).reshape(steps, features)
    if steps < length + horizon:
        with pytest.raises(ValueError, match=rf"^series: {steps} steps, expected at least {length + horizon}"):
            windows(series, length, horizon, step)
        return
    x, y = windows(series, length, horizon, step)
    starts = range(0, steps - length - horizon + 1, step)
    np.testing.assert_array_equal(x, [series[s : s + length] for s in starts])
    np.testing.assert_array_equal(y, [series[s + length : s + length + horizon] for s in starts])
    assert np.shares_memory(x, series)
    np.testing.assert_array_equal(windows(series[:, 0], length, horizon, step)[0], x[:, :, :1])


def test_splits_in_the_order_of_time():
    assert time_split(10, (0.7, 0.1, 0.2)) == [slice(0, 7), slice(7, 8), slice(8, 10)]
    x, names = np.arange(20).reshape(10, 2), list("abcdefghij")
    first, second = time_split((x, names), (0.85, 0.15))
    np.testing.assert_array_equal(first[0], x[:8])
    np.testing.assert_array_equal(second[0], x[8:])
    assert (first[1], second[1]) == (names[:8], names[8:])
    np.testing.assert_array_equal(time_split(x, [1.0])[0], x)
    assert time_split(names, (0.5, 0.5)) == [names[:5], names[5:]]
    for data, fractions, message in (
        (10, (0.5, 0.4), r"^fractions: .*sum is 1"),
        (10, (1.5, -0.5), r"^fractions: "),
        (10, (), r"^fractions: "),
        (2, (0.9, 0.1), r"^data: 2 samples, too few"),
        ((x, names[:9]), (0.5, 0.5), r"^data: \[9, 10\] samples"),
    ):
        with pytest.raises(ValueError, match=message):
            time_split(data, fractions)


def test_words():
    texts = ["The cat, the dog.", "A cat? The end."]
    vocabulary = WordVocabulary(texts)
    assert vocabulary.words == ["<pad>", "<unk>", "the", ".", "cat", ",", "?", "a", "dog", "end"]
    numbers = vocabulary.encode("the DOG ate a cat")
    np.testing.assert_array_equal(numbers, [2, 8, 1, 7, 4])
    assert numbers.dtype == np.intp
    assert vocabulary.decode([*numbers, 0, 0]) == "the dog <unk> a cat"
    assert len(vocabulary.encode("")) == 0
    assert vocabulary.decode([]) == ""
    assert len(WordVocabulary(texts, min_count=2)) == 5
    assert WordVocabulary(texts, max_size=3).words[2:] == ["the", ".", "cat"]
    assert WordVocabulary("one text", split=str.split).words[2:] == ["one", "text"]
    padded, _ = pad_sequences([vocabulary.encode(text) for text in ("the", "the cat")])
    np.testing.assert_array_equal(padded, [[2, vocabulary.padding], [2, 4]])
    with pytest.raises(ValueError, match=r"^texts: 7 words, expected one that is there at least 9"):
        WordVocabulary([*texts[:1], "a b"], min_count=9)
    with pytest.raises(ValueError, match=r"^numbers: values from -1 to 3, expected 0 to 9"):
        vocabulary.decode([3, -1])
    with pytest.raises(ValueError, match=r"^max_size: 0"):
        WordVocabulary(texts, max_size=0)


@given(st.lists(st.text(), min_size=1))
def test_words_encode_and_decode_their_texts(texts):
    words = [word for text in texts for word in split_words(text)]
    if not words:
        return
    vocabulary = WordVocabulary(texts)
    assert [vocabulary.words[n] for text in texts for n in vocabulary.encode(text)] == words


@pytest.mark.parametrize("vocabulary", [CharVocabulary("abc"), WordVocabulary("a b")])
@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([0, -1], r"^numbers: values from -1 to 0, expected 0 to"),
        ([0, 9], r"^numbers: values from 0 to 9, expected 0 to"),
        ([0.0, 1.5], r"^numbers: dtype float64, expected integers"),
    ],
)
def test_numbers_that_mean_nothing(vocabulary, numbers, message):
    assert vocabulary.decode([]) == ""
    with pytest.raises((ValueError, TypeError), match=message):
        vocabulary.decode(numbers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("hello", 2, 3), r"^numbers: shape \(\), expected \(N,\)"),
        ((np.zeros((9, 4), int), 2, 3), r"^numbers: shape \(9, 4\), expected \(N,\)"),
        ((np.arange(9), 2.5, 3), r"^batch_size: 2.5"),
        ((np.arange(9), 2, 1.5), r"^steps: 1.5"),
    ],
)
def test_batches_of_no_text(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        text_batches(*arguments)
