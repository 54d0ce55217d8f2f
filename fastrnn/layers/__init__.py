"""Recurrent layers with PyTorch's names: stacks, directions, dropout, and frozen copies for serving."""

from fastrnn.layers._variant import VariantLayer
from fastrnn.layers.cells import GRU, LSTM, RNN
from fastrnn.layers.elementwise import IndRNN, MinGRU, MinLSTM
from fastrnn.layers.frozen import Frozen, Stream
from fastrnn.layers.stack import FrozenStack, Stack, StackStream

__all__ = [
    "GRU", "LSTM", "RNN", "Frozen", "FrozenStack", "IndRNN", "MinGRU", "MinLSTM", "Stack", "StackStream", "Stream",
    "VariantLayer",
]  # fmt: skip
