"""The three recurrent layers, with `torch.nn`'s constructor arguments and parameter names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastrnn import _check, functional
from fastrnn.layers.recurrent import RecurrentLayer, Seed


class RNN(RecurrentLayer):
    """
    A stack of plain RNNs; the equation is in `fastrnn.functional.rnn_forward`.

    Parameters
    ----------
    nonlinearity : {"tanh", "relu"}
        The activation, after `num_layers` as in `torch.nn.RNN`. All others are those of `RecurrentLayer`.
    """

    cell = "rnn"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        merge: str | None = "concat",
        stateful: bool = False,
        learn_initial_state: bool = False,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ):
        self.__dict__["nonlinearity"] = _check.choice("nonlinearity", nonlinearity, ("tanh", "relu"))
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            merge=merge, stateful=stateful, learn_initial_state=learn_initial_state, dtype=dtype, rng=rng,
        )  # fmt: skip

    def _options(self) -> dict[str, Any]:
        return {"nonlinearity": self.nonlinearity}

    def _functions(self):
        return functional.rnn_forward, functional.rnn_backward


class LSTM(RecurrentLayer):
    """
    A stack of LSTMs; the equations are in `fastrnn.functional.lstm_forward`. The state is ``(h, c)``.

    The parameters are those of `RecurrentLayer`.
    """

    cell = "lstm"
    state_names = ("h", "c")

    def _functions(self):
        return functional.lstm_forward, functional.lstm_backward


class GRU(RecurrentLayer):
    """
    A stack of GRUs; the equations are in `fastrnn.functional.gru_forward`.

    Parameters
    ----------
    reset_after : bool, keyword only
        Whether the reset gate is applied after the recurrent product, as in PyTorch, or before it. All others are
        those of `RecurrentLayer`.
    """

    cell = "gru"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reset_after: bool = True,
        merge: str | None = "concat",
        stateful: bool = False,
        learn_initial_state: bool = False,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ):
        self.__dict__["reset_after"] = bool(reset_after)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            merge=merge, stateful=stateful, learn_initial_state=learn_initial_state, dtype=dtype, rng=rng,
        )  # fmt: skip

    def _options(self) -> dict[str, Any]:
        return {"reset_after": self.reset_after}

    def _functions(self):
        return functional.gru_forward, functional.gru_backward
