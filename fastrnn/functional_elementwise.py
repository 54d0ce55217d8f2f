"""The cells whose recurrence is element by element, compiled: IndRNN, minGRU, minLSTM. Part of `fastrnn.functional`.

Same names, signatures and results as `fastrnn.reference_elementwise`, which holds the equations.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check, _compiled_elementwise, _settings
from fastrnn import reference_elementwise as reference
from fastrnn._cache import Cache, IndRNNGrads, MinGRUGrads, MinLSTMGrads
from fastrnn._products import products

__all__ = [
    "IndRNNGrads",
    "MinGRUGrads",
    "MinLSTMGrads",
    "indrnn_backward",
    "indrnn_forward",
    "mingru_backward",
    "mingru_forward",
    "minlstm_backward",
    "minlstm_forward",
]


def indrnn_forward(
    x: ArrayLike,
    h0: ArrayLike | None,
    w_ih: ArrayLike,
    u: ArrayLike,
    b: ArrayLike | None = None,
    *,
    nonlinearity: str = "relu",
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    reverse: bool = False,
    save: bool = True,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """
    Run an IndRNN over sequences: ``h(t) = act(W_ih x(t) + b + u * h(t-1))``, units independent of each other.

    Parameters
    ----------
    x : array (T, B, I), float32 or float64
        Time-major input.
    h0 : array (B, H) or None
        The state before the first step; None is zeros.
    w_ih : array (H, I)
        Input weights.
    u : array (H,)
        Recurrent weights, one of each unit for itself.
    b : array (H,) or None
        Bias; None is none.
    nonlinearity : {"relu", "tanh"}
        The activation, act.
    lengths : integers (B,), optional
        The number of valid steps of each sequence, 0 to T, in any order. Outputs past an end are zeros, and the work
        is proportional to the sum of the lengths. None: all are T.
    mask : bool (T, B), optional
        False where a sequence skips a step: its state passes on unchanged, outputs and gradients there are zeros, and
        what the inputs hold there never matters. Gaps may be anywhere; together with `lengths` both must hold.
    reset : bool (T, B), optional
        True where a sequence's state is set to zeros before the step, in the direction it is walked, even if the mask
        skips the step; not past the sequence's length. No gradient passes a reset.
    reverse : bool
        Run each sequence from its own end to its start. Outputs stay at the time of their inputs.
    save : bool
        Keep what `indrnn_backward` needs: 1 number for each element of `y` up to the ends, itself.

    Returns
    -------
    y : array (T, B, H)
        The states. Read-only when `save`, for backward reads it.
    h_n : array (B, H)
        The state after each sequence's last step, or a reset behind it; that of an empty sequence is its h0.
    cache : Cache or None
        For `indrnn_backward`, once; None without `save`. It refers to `x` and the weights: leave them unchanged till
        then.

    Raises
    ------
    TypeError, ValueError
        For an argument of another dtype or shape, or out of range; the message names it.

    Notes
    -----
    Equation: Li et al. 2018, "Independently Recurrent Neural Network (IndRNN)".
    """
    which = {"lengths": lengths, "mask": mask, "reset": reset}
    if _settings.engine() == "reference":
        return reference.indrnn_forward(
            x, h0, w_ih, u, b, nonlinearity=nonlinearity, **which, reverse=reverse, save=save
        )
    _check.choice("nonlinearity", nonlinearity, ("relu", "tanh"))
    inputs = _check.elementwise_inputs("indrnn", x, h0, w_ih, u, b, **which)
    return _compiled_elementwise.indrnn_forward(
        inputs, products(), _settings.isa(), nonlinearity, bool(reverse), bool(save)
    )


def mingru_forward(
    x: ArrayLike,
    h0: ArrayLike | None,
    w_ih: ArrayLike,
    b: ArrayLike | None = None,
    *,
    candidate: str = "linear",
    scan: str = "sequential",
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    reverse: bool = False,
    save: bool = True,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """
    Run a minGRU over sequences: ``h(t) = (1 - z) h(t-1) + z c``.

    With ``z = sigmoid(W_z x(t) + b_z)`` and the candidate ``c = g(W_h x(t) + b_h)``. Neither depends on h(t-1).

    Parameters
    ----------
    x : array (T, B, I), float32 or float64
        Time-major input.
    h0 : array (B, H) or None
        The state before the first step; None is zeros.
    w_ih : array (2H, I)
        Weights, blocks z h from top to bottom.
    b : array (2H,) or None
        Bias; None is none.
    candidate : {"linear", "positive"}
        g: the identity, or ``x + 1/2 for x >= 0, else sigmoid(x)``, with which states that begin positive remain so.
    scan : {"sequential", "parallel"}
        Step by step, or chunks of 64 steps at the same time, which lets a single long sequence use all threads. The two
        agree up to rounding; neither depends on the number of threads.
    lengths : integers (B,), optional
        The number of valid steps of each sequence, 0 to T, in any order. Outputs past an end are zeros, and the work
        is proportional to the sum of the lengths. None: all are T.
    mask : bool (T, B), optional
        False where a sequence skips a step: its state passes on unchanged, outputs and gradients there are zeros, and
        what the inputs hold there never matters. Gaps may be anywhere; together with `lengths` both must hold.
    reset : bool (T, B), optional
        True where a sequence's state is set to zeros before the step, in the direction it is walked, even if the mask
        skips the step; not past the sequence's length. No gradient passes a reset.
    reverse : bool
        Run each sequence from its own end to its start. Outputs stay at the time of their inputs.
    save : bool
        Keep what `mingru_backward` needs: 3 numbers for each element of `y` up to the ends, itself, z and c.

    Returns
    -------
    y : array (T, B, H)
        The states. Read-only when `save`, for backward reads it.
    h_n : array (B, H)
        The state after each sequence's last step, or a reset behind it; that of an empty sequence is its h0.
    cache : Cache or None
        For `mingru_backward`, once; None without `save`. It refers to `x` and the weights: leave them unchanged till
        then.

    Raises
    ------
    TypeError, ValueError
        For an argument of another dtype or shape, or out of range; the message names it.

    Notes
    -----
    Equations: Feng et al. 2024, "Were RNNs All We Needed?", without its log-space form.
    """
    which = {"lengths": lengths, "mask": mask, "reset": reset}
    return _min_forward("mingru", x, h0, w_ih, b, which, candidate, scan, bool(reverse), bool(save))


def minlstm_forward(
    x: ArrayLike,
    h0: ArrayLike | None,
    w_ih: ArrayLike,
    b: ArrayLike | None = None,
    *,
    candidate: str = "linear",
    scan: str = "sequential",
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    reverse: bool = False,
    save: bool = True,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """
    Run a minLSTM over sequences: ``h(t) = f / (f + i) h(t-1) + i / (f + i) c``.

    With ``f, i = sigmoid(W_[fi] x(t) + b_[fi])`` and the candidate ``c = g(W_h x(t) + b_h)``. None depends on h(t-1).

    Parameters
    ----------
    x : array (T, B, I), float32 or float64
        Time-major input.
    h0 : array (B, H) or None
        The state before the first step; None is zeros.
    w_ih : array (3H, I)
        Weights, blocks f i h from top to bottom.
    b : array (3H,) or None
        Bias; None is none.
    candidate : {"linear", "positive"}
        g: the identity, or ``x + 1/2 for x >= 0, else sigmoid(x)``, with which states that begin positive remain so.
    scan : {"sequential", "parallel"}
        Step by step, or chunks of 64 steps at the same time, which lets a single long sequence use all threads. The two
        agree up to rounding; neither depends on the number of threads.
    lengths : integers (B,), optional
        The number of valid steps of each sequence, 0 to T, in any order. Outputs past an end are zeros, and the work
        is proportional to the sum of the lengths. None: all are T.
    mask : bool (T, B), optional
        False where a sequence skips a step: its state passes on unchanged, outputs and gradients there are zeros, and
        what the inputs hold there never matters. Gaps may be anywhere; together with `lengths` both must hold.
    reset : bool (T, B), optional
        True where a sequence's state is set to zeros before the step, in the direction it is walked, even if the mask
        skips the step; not past the sequence's length. No gradient passes a reset.
    reverse : bool
        Run each sequence from its own end to its start. Outputs stay at the time of their inputs.
    save : bool
        Keep what `minlstm_backward` needs: 4 numbers for each element of `y` up to the ends, itself, f, i and c.

    Returns
    -------
    y : array (T, B, H)
        The states. Read-only when `save`, for backward reads it.
    h_n : array (B, H)
        The state after each sequence's last step, or a reset behind it; that of an empty sequence is its h0.
    cache : Cache or None
        For `minlstm_backward`, once; None without `save`. It refers to `x` and the weights: leave them unchanged till
        then.

    Raises
    ------
    TypeError, ValueError
        For an argument of another dtype or shape, or out of range; the message names it.

    Notes
    -----
    Equations: Feng et al. 2024, "Were RNNs All We Needed?", without its log-space form. Where f and i are both too
    small for a float their ratio is still that of the equation.
    """
    which = {"lengths": lengths, "mask": mask, "reset": reset}
    return _min_forward("minlstm", x, h0, w_ih, b, which, candidate, scan, bool(reverse), bool(save))


def _min_forward(cell, x, h0, w_ih, b, which, candidate, scan, reverse, save):
    """`which` says where sequences run and are reset."""
    if _settings.engine() == "reference":
        function, options = getattr(reference, f"{cell}_forward"), {"candidate": candidate, "scan": scan}
        return function(x, h0, w_ih, b, **options, **which, reverse=reverse, save=save)
    positive = _check.choice("candidate", candidate, ("linear", "positive")) == "positive"
    parallel = _check.choice("scan", scan, ("sequential", "parallel")) == "parallel"
    inputs = _check.elementwise_inputs(cell, x, h0, w_ih, None, b, **which)
    return _compiled_elementwise.min_forward(
        cell, inputs, products(), _settings.isa(), positive, parallel, reverse, save
    )


def _backward(cell: str, grads: Any, compiled: Any, cache: Cache, dy: Any, dh_n: Any, need: Any) -> Any:
    asked = _check.needed(need, grads._fields)
    if getattr(cache, "engine", None) == "reference":
        result = getattr(reference, f"{cell}_backward")(cache, dy, dh_n)
    else:
        dy, (dh,) = _check.output_gradients(cell, "compiled", cache, dy, {"dh_n": dh_n})
        result = compiled(cache, dy, dh, asked)
    return result._replace(**dict.fromkeys(frozenset(grads._fields) - asked))


def indrnn_backward(
    cache: Cache, dy: ArrayLike | None, dh_n: ArrayLike | None = None, *, need: Iterable[str] | None = None
) -> IndRNNGrads:
    """
    The gradients of everything that went into `indrnn_forward`.

    Parameters
    ----------
    cache : Cache
        From `indrnn_forward`; used up by this call.
    dy : array (T, B, H) or None
        The gradient of the loss with respect to `y`; None is zeros. What it holds where no sequence runs is
        ignored.
    dh_n : array (B, H), optional
        That with respect to `h_n`.
    need : names, optional
        The gradients that are wanted, of the names below; the others are None. Those of `x`, `w_ih` and `b` are not
        computed where they are not wanted. None: all.

    Returns
    -------
    IndRNNGrads
        ``(x, h0, w_ih, u, b)``, each of its argument's shape; None for a bias that was None.

    Raises
    ------
    TypeError, ValueError
        For a cache that is used or of another cell, an array of another dtype or shape, or an unknown name.
    """
    return _backward("indrnn", IndRNNGrads, _compiled_elementwise.indrnn_backward, cache, dy, dh_n, need)


def mingru_backward(
    cache: Cache, dy: ArrayLike | None, dh_n: ArrayLike | None = None, *, need: Iterable[str] | None = None
) -> MinGRUGrads:
    """
    The gradients of everything that went into `mingru_forward`, by the scan that ran forward.

    Parameters
    ----------
    cache : Cache
        From `mingru_forward`; used up by this call.
    dy : array (T, B, H) or None
        The gradient of the loss with respect to `y`; None is zeros. What it holds where no sequence runs is
        ignored.
    dh_n : array (B, H), optional
        That with respect to `h_n`.
    need : names, optional
        The gradients that are wanted, of the names below; the others are None. Those of `x`, `w_ih` and `b` are not
        computed where they are not wanted. None: all.

    Returns
    -------
    MinGRUGrads
        ``(x, h0, w_ih, b)``, each of its argument's shape; None for a bias that was None.

    Raises
    ------
    TypeError, ValueError
        For a cache that is used or of another cell, an array of another dtype or shape, or an unknown name.
    """
    return _backward("mingru", MinGRUGrads, _compiled_elementwise.mingru_backward, cache, dy, dh_n, need)


def minlstm_backward(
    cache: Cache, dy: ArrayLike | None, dh_n: ArrayLike | None = None, *, need: Iterable[str] | None = None
) -> MinLSTMGrads:
    """
    The gradients of everything that went into `minlstm_forward`, by the scan that ran forward.

    Parameters
    ----------
    cache : Cache
        From `minlstm_forward`; used up by this call.
    dy : array (T, B, H) or None
        The gradient of the loss with respect to `y`; None is zeros. What it holds where no sequence runs is
        ignored.
    dh_n : array (B, H), optional
        That with respect to `h_n`.
    need : names, optional
        The gradients that are wanted, of the names below; the others are None. Those of `x`, `w_ih` and `b` are not
        computed where they are not wanted. None: all.

    Returns
    -------
    MinLSTMGrads
        ``(x, h0, w_ih, b)``, each of its argument's shape; None for a bias that was None.

    Raises
    ------
    TypeError, ValueError
        For a cache that is used or of another cell, an array of another dtype or shape, or an unknown name.
    """
    return _backward("minlstm", MinLSTMGrads, _compiled_elementwise.minlstm_backward, cache, dy, dh_n, need)
