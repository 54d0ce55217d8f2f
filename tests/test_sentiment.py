"""The corpus of reviews that comes with the package."""

import re
from collections import Counter

import numpy as np

from fastrnn.data import sentiment


def test_count_and_balance():
    texts, labels = sentiment()
    assert len(texts) == len(labels) == 2000
    assert labels.count(1) == labels.count(0) == 1000
    for start in range(0, 2000, 100):  # mixed: any part has both in plenty
        assert 35 <= sum(labels[start : start + 100]) <= 65


def test_texts_are_plain_and_of_the_lengths_promised():
    texts, _ = sentiment()
    for text in texts:
        assert text.isascii()
        assert text.isprintable()
        assert text == " ".join(text.split())
        assert 8 <= len(text.split()) <= 32


def test_no_text_is_nearly_another():
    texts = [frozenset(re.findall(r"[\w']+", text.lower())) for text in sentiment()[0]]
    words = sorted(frozenset().union(*texts))
    there = np.array([[word in text for word in words] for text in texts], np.float32)
    common = there @ there.T
    alone = there.sum(axis=1)
    overlap = common / (alone[:, None] + alone - common)
    np.fill_diagonal(overlap, 0)
    assert overlap.max() < 0.5


def test_only_phrases_are_there_twice():
    counts = Counter(part for text in sentiment()[0] for part in re.split(r"(?<=[.!?]) ", text.lower()))
    assert max(len(part.split()) for part, count in counts.items() if count > 1) <= 6


def test_order_is_fixed_and_no_two_calls_share_a_list():
    texts, labels = sentiment()
    assert texts[0].startswith("I lent my copy to a friend")
    again = sentiment()
    assert again == (texts, labels)
    texts.clear()
    assert len(again[0]) == len(sentiment()[0]) == 2000
