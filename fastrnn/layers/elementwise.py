"""Layers whose recurrence is element by element: IndRNN, MinGRU, MinLSTM."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check, functional
from fastrnn._core.memory import Workspace
from fastrnn.layers.recurrent import LayerCache, RecurrentLayer


class ElementwiseLayer(RecurrentLayer):
    """
    What the three have in common: one bias, no recurrent matrix, and so nothing to make anew or to pack.

    The parameters are those of `RecurrentLayer`; those of layer k are called ``weight_ih_l{k}`` and ``bias_ih_l{k}``.
    To serve a stream, call the layer for each step, with T = 1 and the state of the step before.
    """

    weights = {"weight_ih": "w_ih", "bias_ih": "b"}  # noqa: RUF012

    def _shapes(self, width: int) -> dict[str, tuple[int, ...]]:
        rows = _check.GATES[self.cell] * self.hidden_size
        return {"weight_ih": (rows, width)} | ({"bias_ih": (rows,)} if self.bias else {})

    def _cell_forward(self, y: np.ndarray, start: list, suffix: str, *, checkpoint: None = None, **options) -> tuple:
        return super()._cell_forward(y, start, suffix, **options)

    def forward(
        self,
        x: ArrayLike,
        state: Any = None,
        lengths: ArrayLike | None = None,
        *,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[np.ndarray, Any, LayerCache]:
        """
        Run the layer for training: with dropout between layers, keeping what backward needs.

        Parameters
        ----------
        x, state, lengths, mask, reset
            As for calling the layer.
        workspace : fastrnn.Workspace, optional
            Where memory of this pass and its backward comes from and goes back to.

        Returns
        -------
        y, state
            As for calling the layer. `y` may be read-only.
        cache : LayerCache
            For `backward`, once. It refers to `x` and the parameters: leave them unchanged till then.
        """
        return super().forward(x, state, lengths, mask=mask, reset=reset, workspace=workspace)

    def freeze(self) -> NoReturn:
        """Refuse: there is no recurrent matrix, whose packing a frozen copy would save."""
        raise TypeError(f"freeze: {type(self).__name__} has no recurrent matrix to pack; call the layer itself")


class IndRNN(ElementwiseLayer):
    """
    A stack of IndRNNs; the equation is in `fastrnn.functional.indrnn_forward`.

    The recurrent weights are called ``weight_hh_l{k}``, of shape (H,), and begin uniform in [0, 1): below 1 no state of
    a relu grows without its input. Training may take them above; for very long sequences Li et al. keep them below the
    T-th root of the growth they allow.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As of `torch.nn` and of `fastrnn.layers.recurrent.RecurrentLayer`.
    nonlinearity : {"relu", "tanh"}, keyword only
        The activation.
    **common
        Those of `fastrnn.layers.recurrent.RecurrentLayer`: merge, stateful, learn_initial_state, dtype and rng.
    """

    cell = "indrnn"
    weights = {"weight_ih": "w_ih", "weight_hh": "u", "bias_ih": "b"}  # noqa: RUF012

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
        nonlinearity: str = "relu",
        **common: Any,
    ):
        self.__dict__["nonlinearity"] = _check.choice("nonlinearity", nonlinearity, ("relu", "tanh"))
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **common)
        for name, u in self.params.items():
            if name.startswith("weight_hh"):
                u[...] = self.rng.random(u.shape, dtype=self.dtype)

    def _shapes(self, width: int) -> dict[str, tuple[int, ...]]:
        return super()._shapes(width) | {"weight_hh": (self.hidden_size,)}

    def _options(self) -> dict[str, Any]:
        return {"nonlinearity": self.nonlinearity}

    def _functions(self):
        return functional.indrnn_forward, functional.indrnn_backward


class _MinLayer(ElementwiseLayer):
    """What the two linear ones have in common: their options."""

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
        candidate: str = "linear",
        scan: str = "sequential",
        **common: Any,
    ):
        self.__dict__["candidate"] = _check.choice("candidate", candidate, ("linear", "positive"))
        self.__dict__["scan"] = _check.choice("scan", scan, ("sequential", "parallel"))
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **common)

    def _options(self) -> dict[str, Any]:
        return {"candidate": self.candidate, "scan": self.scan}


class MinGRU(_MinLayer):
    """
    A stack of minGRUs; the equations are in `fastrnn.functional.mingru_forward`.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As of `torch.nn` and of `fastrnn.layers.recurrent.RecurrentLayer`.
    candidate : {"linear", "positive"}, keyword only
        What a candidate goes through.
    scan : {"sequential", "parallel"}, keyword only
        How the steps are run through.
    **common
        Those of `fastrnn.layers.recurrent.RecurrentLayer`: merge, stateful, learn_initial_state, dtype and rng.
    """

    cell = "mingru"

    def _functions(self):
        return functional.mingru_forward, functional.mingru_backward


class MinLSTM(_MinLayer):
    """
    A stack of minLSTMs; the equations are in `fastrnn.functional.minlstm_forward`. The state is h alone.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As of `torch.nn` and of `fastrnn.layers.recurrent.RecurrentLayer`.
    candidate : {"linear", "positive"}, keyword only
        What a candidate goes through.
    scan : {"sequential", "parallel"}, keyword only
        How the steps are run through.
    **common
        Those of `fastrnn.layers.recurrent.RecurrentLayer`: merge, stateful, learn_initial_state, dtype and rng.
    """

    cell = "minlstm"

    def _functions(self):
        return functional.minlstm_forward, functional.minlstm_backward
