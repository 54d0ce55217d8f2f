"""Whole systems built from the layers."""

from fastrnn.models.char_model import CharModel

__all__ = ["CharModel"]
