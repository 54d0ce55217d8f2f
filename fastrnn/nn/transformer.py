"""The encoder layer of the transformer."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn import _check
from fastrnn.module import Module, float_dtype
from fastrnn.nn._masking import cleared, valid_steps
from fastrnn.nn._running import run, run_backward
from fastrnn.nn.activations import GELU, ReLU
from fastrnn.nn.attention import sequences
from fastrnn.nn.dropout import Dropout
from fastrnn.nn.linear import Linear
from fastrnn.nn.multihead import MultiHeadAttention
from fastrnn.nn.norm import LayerNorm

ACTIVATIONS = {"relu": ReLU, "gelu": GELU}


class TransformerCache(NamedTuple):
    """What `backward` needs: the caches of the modules in the order they ran in, the valid steps, the shape of `x`."""

    caches: list[Any]
    valid: np.ndarray | None
    shape: tuple[int, ...]


class TransformerEncoderLayer(Module):
    """
    Self-attention and two linear layers, each added to what it reads and normalised.

    As `torch.nn.TransformerEncoderLayer` with ``batch_first=True``, and with its parameters' names.

    Parameters
    ----------
    d_model, nhead : int
        The width of `x`, and how many heads share it.
    dim_feedforward : int
        The width between the two linear layers.
    dropout : float
        The probability with which `forward` drops attention weights, what is added, and what is between the two.
    activation : {"relu", "gelu"}
        Between the two.
    layer_norm_eps : float
        Added to the variances.
    norm_first : bool
        Whether each part's input is normalised, and not the sum.
    bias : bool
        Whether there are biases.
    dtype : {float32, float64}
        Of parameters and arrays.
    rng : int, numpy.random.Generator or None
        The source of the initial parameters and of dropout.

    Attributes
    ----------
    self_attn : MultiHeadAttention
    linear1, linear2 : Linear
    norm1, norm2 : LayerNorm

    Notes
    -----
    Vaswani et al., Attention is all you need, 2017; `norm_first`: Xiong et al., On layer normalization in the
    transformer architecture, 2020.
    """

    uses_lengths = True

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        *,
        activation: str = "relu",
        layer_norm_eps: float = 1e-5,
        norm_first: bool = False,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ):
        super().__init__()
        self.d_model = _check.positive_int("d_model", d_model)
        _check.positive_int("dim_feedforward", dim_feedforward)
        activation = _check.choice("activation", activation, tuple(ACTIVATIONS))
        self.norm_first = bool(norm_first)
        self.dtype = float_dtype(dtype)
        rng = np.random.default_rng(rng)
        self.self_attn = MultiHeadAttention(d_model, nhead, dropout, bias, dtype=dtype, rng=rng)
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype=dtype, rng=rng)
        self.activation = ACTIVATIONS[activation]()
        self.dropout, self.dropout1, self.dropout2 = (Dropout(dropout, rng=rng) for _ in range(3))
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype=dtype, rng=rng)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)

    def _parts(self) -> tuple[tuple[LayerNorm, tuple[Module, ...]], ...]:
        """What is normalised, and added, one after the other."""
        feedforward = (self.linear1, self.activation, self.dropout, self.linear2, self.dropout2)
        return (self.norm1, (self.self_attn, self.dropout1)), (self.norm2, feedforward)

    def __call__(
        self,
        x: ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        src_key_padding_mask: ArrayLike | None = None,
        src_mask: ArrayLike | None = None,
    ) -> np.ndarray:
        """
        Run the layer without dropout.

        Parameters
        ----------
        x : array (N, T, d_model)
            Of the layer's dtype.
        lengths : integers (N,), optional
            The number of valid steps of each sequence.
        src_key_padding_mask : bool (N, T), optional
            True where a step is padding, as in PyTorch.
        src_mask : bool or float (T, T) or (N*nhead, T, T), optional
            True where a step must not take from another, or what is added to the scores, as in PyTorch.

        Returns
        -------
        array (N, T, d_model)
            Zeros where a step is padding.
        """
        return self._run(x, lengths, src_key_padding_mask, src_mask, False)[0]

    def forward(
        self,
        x: ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        src_key_padding_mask: ArrayLike | None = None,
        src_mask: ArrayLike | None = None,
    ) -> tuple[np.ndarray, TransformerCache]:
        """What calling gives, with dropout, and the cache for `backward`."""
        return self._run(x, lengths, src_key_padding_mask, src_mask, True)

    def _run(
        self, x: Any, lengths: Any, padding: Any, src_mask: Any, training: bool
    ) -> tuple[np.ndarray, TransformerCache]:
        x = sequences("x", x, self.d_model, self.dtype)
        N, T = x.shape[:2]
        padding = _check.flags_array("src_key_padding_mask", padding, "(N, T)", (N, T))
        valid = valid_steps(lengths, None if padding is None else ~padding, N, T)
        x, caches = cleared(x, valid), []
        masks = {"attn_mask": src_mask, "key_padding_mask": None if valid is None else ~valid}

        def climb(module: Module, x: np.ndarray) -> np.ndarray:
            y, cache = run(module, x, training, **(masks if module is self.self_attn else {}))
            caches.append(cache)
            return y

        for norm, modules in self._parts():
            y = climb(norm, x) if self.norm_first else x
            for module in modules:
                y = climb(module, y)
            x = x + y if self.norm_first else climb(norm, x + y)
        return cleared(x, valid), TransformerCache(caches, valid, x.shape)

    def backward(self, cache: TransformerCache, dy: ArrayLike) -> np.ndarray:
        """Add into the gradients of all parts; return that with respect to `x`."""
        caches, valid, shape = cache
        d = cleared(_check.shaped("dy", dy, self.dtype, "(N, T, d_model)", shape, "the layer"), valid)
        remaining = iter(reversed(caches))
        for norm, modules in reversed(self._parts()):
            total = d if self.norm_first else run_backward(norm, next(remaining), d)
            d = total
            for module in reversed(modules):
                d = run_backward(module, next(remaining), d)
            d = total + (run_backward(norm, next(remaining), d) if self.norm_first else d)
        return d
