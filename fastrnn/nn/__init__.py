"""What stands around a recurrent layer: embedding, linear, loss, optimiser, clipping, truncated backpropagation."""

from fastrnn.nn.clip import clip_grad_norm_, clip_grad_value_
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.linear import Linear
from fastrnn.nn.losses import CrossEntropyLoss
from fastrnn.nn.optim import Adam
from fastrnn.nn.tbptt import truncated_bptt

__all__ = [
    "Adam",
    "CrossEntropyLoss",
    "Embedding",
    "Linear",
    "clip_grad_norm_",
    "clip_grad_value_",
    "truncated_bptt",
]
