"""The three recurrent layers, with `torch.nn`'s constructor arguments and parameter names."""

from __future__ import annotations

from typing import Any

from fastrnn import _check, functional
from fastrnn.layers._variant import VariantLayer


class RNN(VariantLayer):
    """
    A stack of plain RNNs; the equation is in `fastrnn.functional.rnn_forward`.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As of `torch.nn` and of `fastrnn.layers.recurrent.RecurrentLayer`.
    nonlinearity : {"tanh", "relu"}
        The activation, after `num_layers` as in `torch.nn.RNN`.
    **common
        Those of `fastrnn.layers.recurrent.RecurrentLayer`, merge, stateful, learn_initial_state, dtype and rng; and
        those for variants in `fastrnn.layers.VariantLayer`, activations, clip, layer_norm, zoneout, recurrent_dropout
        and input_dropout.
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
        **common: Any,
    ):
        self.__dict__["nonlinearity"] = _check.choice("nonlinearity", nonlinearity, ("tanh", "relu"))
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **common)

    def _options(self) -> dict[str, Any]:
        return {"nonlinearity": self.nonlinearity}

    def _functions(self):
        return functional.rnn_forward, functional.rnn_backward


class LSTM(VariantLayer):
    """
    A stack of LSTMs; the equations are in `fastrnn.functional.lstm_forward`. The state is ``(h, c)``.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As of `torch.nn` and of `fastrnn.layers.recurrent.RecurrentLayer`.
    proj_size : int
        The width P of h, y and the h of the state, made of the cell's H units by ``weight_hr_l{k}`` (P, H), as in
        `torch.nn.LSTM`; 0 is none. c has H units all the same.
    peepholes : bool, keyword only
        Whether i, f and o also see c: ``peephole_l{k}`` (3H,).
    coupled : bool, keyword only
        Whether ``f = 1 - i``.
    forget_bias : float, keyword only
        What the two biases of f add up to at first; None leaves them as the others. Jozefowicz et al. 2015 give it 1.
    **common
        Those of `fastrnn.layers.recurrent.RecurrentLayer`, merge, stateful, learn_initial_state, dtype and rng; and
        those for variants in `fastrnn.layers.VariantLayer`, activations, clip, layer_norm, zoneout, recurrent_dropout
        and input_dropout.
    """

    cell = "lstm"
    state_names = ("h", "c")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        peepholes: bool = False,
        coupled: bool = False,
        forget_bias: float | None = None,
        **common: Any,
    ):
        if proj_size and not 0 < _check.positive_int("proj_size", proj_size) < hidden_size:
            raise ValueError(f"proj_size: {proj_size}, expected fewer than hidden_size = {hidden_size}")
        common |= {"proj_size": proj_size, "peepholes": peepholes, "coupled": coupled}
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **common)
        if forget_bias is not None:
            if not bias:
                raise ValueError(f"forget_bias: {forget_bias!r}, expected None for a layer without biases")
            for name, value in self.params.items():
                if name.startswith("bias"):
                    value[self.hidden_size : 2 * self.hidden_size] = forget_bias if name.startswith("bias_ih") else 0

    def _functions(self):
        return functional.lstm_forward, functional.lstm_backward


class GRU(VariantLayer):
    """
    A stack of GRUs; the equations are in `fastrnn.functional.gru_forward`.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As of `torch.nn` and of `fastrnn.layers.recurrent.RecurrentLayer`.
    reset_after : bool, keyword only
        Whether the reset gate is applied after the recurrent product, as in PyTorch, or before it.
    **common
        As for `RNN`.
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
        **common: Any,
    ):
        self.__dict__["reset_after"] = bool(reset_after)
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **common)

    def _options(self) -> dict[str, Any]:
        return {"reset_after": self.reset_after}

    def _functions(self):
        return functional.gru_forward, functional.gru_backward
