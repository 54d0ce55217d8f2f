"""Recurrent layers with PyTorch's names: stacks, directions, dropout, and frozen copies for serving."""

from fastrnn.layers.cells import GRU, LSTM, RNN
from fastrnn.layers.frozen import Frozen, Stream

__all__ = ["GRU", "LSTM", "RNN", "Frozen", "Stream"]
