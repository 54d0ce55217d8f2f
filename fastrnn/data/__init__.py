"""Getting text into arrays."""

from fastrnn.data.text import CharVocabulary, read_text, text_batches

__all__ = ["CharVocabulary", "read_text", "text_batches"]
