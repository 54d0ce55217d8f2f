"""Whole systems built from the layers."""

from fastrnn.models._attention import BahdanauAttention, LuongAttention
from fastrnn.models.char_model import CharModel
from fastrnn.models.decoder import Decoder
from fastrnn.models.hierarchical import HierarchicalRNN
from fastrnn.models.seq2seq import Seq2Seq
from fastrnn.models.sequence_generator import SequenceModel

__all__ = ["BahdanauAttention", "CharModel", "Decoder", "HierarchicalRNN", "LuongAttention", "Seq2Seq", "SequenceModel"]
