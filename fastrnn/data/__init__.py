"""Getting text and sequences into arrays, and a small corpus."""

from fastrnn.data.corpora import sentiment
from fastrnn.data.sequences import create_mask, pad_sequences, time_split, windows
from fastrnn.data.text import CharVocabulary, WordVocabulary, read_text, split_words, text_batches

__all__ = [
    "CharVocabulary",
    "WordVocabulary",
    "create_mask",
    "pad_sequences",
    "read_text",
    "sentiment",
    "split_words",
    "text_batches",
    "time_split",
    "windows",
]
