"""What stands around recurrent layers: other modules, losses, optimisers, training, truncated backpropagation."""

from fastrnn.nn.activations import GELU, ReLU, Sigmoid, Softmax, Tanh
from fastrnn.nn.attention import (
    AdditiveAttention,
    AttentionPooling,
    GeneralAttention,
    ScaledDotProductAttention,
    SelfAttention,
)
from fastrnn.nn.clip import clip_grad_norm_, clip_grad_value_
from fastrnn.nn.distributed import TimeDistributed
from fastrnn.nn.dropout import Dropout
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.final_state import FinalState
from fastrnn.nn.fit import History, fit
from fastrnn.nn.init import glorot_normal_, glorot_uniform_, orthogonal_, uniform_scaled_
from fastrnn.nn.linear import Linear
from fastrnn.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from fastrnn.nn.multihead import MultiHeadAttention
from fastrnn.nn.norm import LayerNorm
from fastrnn.nn.optim import SGD, Adam, AdamW, Optimiser, RMSprop
from fastrnn.nn.schedules import CosineLR, ExponentialLR, ReduceOnPlateau, Schedule, StepLR, WarmupLR
from fastrnn.nn.select import LastStep, MeanOverTime
from fastrnn.nn.sequential import Sequential
from fastrnn.nn.tbptt import truncated_bptt
from fastrnn.nn.transformer import TransformerEncoderLayer

__all__ = [
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "AdditiveAttention",
    "AttentionPooling",
    "BCEWithLogitsLoss",
    "CosineLR",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "ExponentialLR",
    "FinalState",
    "GeneralAttention",
    "History",
    "LastStep",
    "LayerNorm",
    "Linear",
    "MSELoss",
    "MeanOverTime",
    "MultiHeadAttention",
    "Optimiser",
    "RMSprop",
    "ReLU",
    "ReduceOnPlateau",
    "ScaledDotProductAttention",
    "Schedule",
    "SelfAttention",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "StepLR",
    "Tanh",
    "TimeDistributed",
    "TransformerEncoderLayer",
    "WarmupLR",
    "clip_grad_norm_",
    "clip_grad_value_",
    "fit",
    "glorot_normal_",
    "glorot_uniform_",
    "orthogonal_",
    "truncated_bptt",
    "uniform_scaled_",
]
