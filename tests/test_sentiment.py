"""The corpus of reviews that comes with the package."""

from itertools import combinations

from fastrnn.data import sentiment


def test_count_and_balance():
    texts, labels = sentiment()
    assert len(texts) == len(labels) == 600
    assert labels.count(1) == labels.count(0) == 300
    for start in range(0, 600, 100):  # mixed: any part has both in plenty
        assert 35 <= sum(labels[start : start + 100]) <= 65


def test_texts_are_plain_and_of_the_lengths_promised():
    texts, _ = sentiment()
    for text in texts:
        assert text.isascii()
        assert text.isprintable()
        assert text == " ".join(text.split())
        assert 8 <= len(text.split()) <= 25


def test_no_text_is_nearly_another():
    words = [frozenset(text.lower().replace(",", "").rstrip(".?").split()) for text in sentiment()[0]]
    assert len(set(words)) == 600
    assert max(len(a & b) / len(a | b) for a, b in combinations(words, 2)) < 0.5


def test_order_is_fixed_and_no_two_calls_share_a_list():
    texts, labels = sentiment()
    assert texts[0].startswith("I have eaten better on an aeroplane")
    again = sentiment()
    assert again == (texts, labels)
    texts.clear()
    assert len(again[0]) == len(sentiment()[0]) == 600
