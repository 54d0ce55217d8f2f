"""What stands around a recurrent layer: embedding, linear, loss, optimiser, clipping, truncated backpropagation."""

from fastrnn.nn.clip import clip_grad_norm_, clip_grad_value_
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.fit import History, fit
from fastrnn.nn.init import glorot_normal_, glorot_uniform_, orthogonal_, uniform_scaled_
from fastrnn.nn.linear import Linear
from fastrnn.nn.losses import CrossEntropyLoss
from fastrnn.nn.optim import SGD, Adam, AdamW, Optimiser, RMSprop
from fastrnn.nn.schedules import CosineLR, ExponentialLR, ReduceOnPlateau, Schedule, StepLR, WarmupLR
from fastrnn.nn.tbptt import truncated_bptt

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineLR",
    "CrossEntropyLoss",
    "Embedding",
    "ExponentialLR",
    "History",
    "Linear",
    "Optimiser",
    "RMSprop",
    "ReduceOnPlateau",
    "Schedule",
    "StepLR",
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
