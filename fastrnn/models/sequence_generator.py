"""A model of real-valued series: what comes next, and from there on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check
from fastrnn.layers import GRU, LSTM
from fastrnn.models.decoder import Decoder
from fastrnn.module import Module
from fastrnn.nn import Linear

CELLS = {"lstm": LSTM, "gru": GRU}


class SequenceModel(Module):
    """
    Predicts the next values of series from those before: a recurrent layer and a linear map.

    Parameters
    ----------
    features : int
        F, how many values there are at a time.
    hidden_size, num_layers : int
    cell : {"lstm", "gru"}
    dropout : float
        Between the layers, in training.
    dtype : {float32, float64}
    rng : int, numpy.random.Generator or None
        The source of the initial parameters and of dropout.

    Attributes
    ----------
    layer : LSTM or GRU
    head : Linear

    Examples
    --------
    >>> model = fastrnn.models.SequenceModel(1, 16, rng=0)
    >>> series = np.sin(np.arange(50, dtype=np.float32) / 3).reshape(1, 50, 1)  # (N, T, F)
    >>> y, cache = model.forward(series[:, :-1])  # to be compared with series[:, 1:]
    >>> model.continue_(series, 100).shape
    (1, 100, 1)
    """

    def __init__(
        self,
        features: int,
        hidden_size: int,
        num_layers: int = 1,
        cell: str = "lstm",
        dropout: float = 0.0,
        *,
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
    ):
        super().__init__()
        rng = np.random.default_rng(rng)
        layer = CELLS[_check.choice("cell", cell, tuple(CELLS))]
        self.layer = layer(features, hidden_size, num_layers, batch_first=True, dropout=dropout, dtype=dtype, rng=rng)
        self.head = Linear(hidden_size, features, dtype=dtype, rng=rng)

    def __call__(self, x: ArrayLike, lengths: ArrayLike | None = None) -> np.ndarray:
        """What `forward` predicts, for inference."""
        return self.head(self.layer(x, lengths=lengths)[0])

    def forward(self, x: ArrayLike, lengths: ArrayLike | None = None) -> tuple[np.ndarray, tuple]:
        """For each step of x (N, T, F) the values predicted for the next, (N, T, F), and the cache."""
        hidden, _, layer_cache = self.layer.forward(x, lengths=lengths)
        y, head_cache = self.head.forward(hidden)
        return y, (layer_cache, head_cache)

    def backward(self, cache: tuple, dy: ArrayLike) -> np.ndarray:
        """Add into the gradients of both layers; return that of x."""
        layer_cache, head_cache = cache
        return self.layer.backward(layer_cache, self.head.backward(head_cache, dy))[0]

    def continue_(
        self,
        x: ArrayLike,
        steps: int,
        *,
        noise: float = 0.0,
        rng: int | np.random.Generator | None = None,
    ) -> np.ndarray:
        """
        Continue series, each predicted value being the next input; the loop is compiled.

        Parameters
        ----------
        x : array (N, T, F)
            At least one step of each.
        steps : int
        noise : float
            The standard deviation of what is added to each prediction; 0 follows them exactly.
        rng : int, numpy.random.Generator or None
            Its source.

        Returns
        -------
        array (N, steps, F)

        Raises
        ------
        TypeError, ValueError
            For an argument of another dtype or shape, or out of range; the message names it.
        """
        x = _check.layer_input(x, self.layer.input_size, True, self.layer.dtype)
        N, T, F = x.shape
        if not N or not T:
            raise ValueError(f"x: shape {x.shape}, expected at least one series of at least one step")
        if not 0 <= noise < np.inf:
            raise ValueError(f"noise: {noise}, expected a finite number from 0")
        steps, added = _check.positive_int("steps", steps, 0), None
        if noise:
            added = (np.random.default_rng(rng).standard_normal((steps, N, F)) * noise).astype(self.layer.dtype)
        decoder = Decoder(self.layer, self.head)
        _, state = decoder.frozen(x[:, :-1])
        y, _ = decoder.feed(x[:, -1], steps, state=state, noise=added)
        return np.ascontiguousarray(y.transpose(1, 0, 2))
