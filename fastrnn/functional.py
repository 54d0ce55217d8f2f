"""The recurrent cells over whole sequences, forward and backward, compiled.

Same names, arguments and results as `fastrnn.reference`, which holds the equations and lacks `need=` alone. Shapes: T
time steps, B sequences, I inputs, H hidden units, G gates (RNN 1, LSTM 4, GRU 3). All arrays of a call share one dtype,
float32 or float64.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check, _compiled, _compiled_variants, _dense, _settings, reference, variants
from fastrnn._cache import Cache, GRUGrads, LSTMGrads, RNNGrads, VariantCache
from fastrnn._products import products
from fastrnn.functional_elementwise import (
    IndRNNGrads,
    MinGRUGrads,
    MinLSTMGrads,
    indrnn_backward,
    indrnn_forward,
    mingru_backward,
    mingru_forward,
    minlstm_backward,
    minlstm_forward,
)
from fastrnn.variants import Variant

__all__ = [
    "GRUGrads",
    "IndRNNGrads",
    "LSTMGrads",
    "MinGRUGrads",
    "MinLSTMGrads",
    "RNNGrads",
    "gru_backward",
    "gru_forward",
    "indrnn_backward",
    "indrnn_forward",
    "lstm_backward",
    "lstm_forward",
    "mingru_backward",
    "mingru_forward",
    "minlstm_backward",
    "minlstm_forward",
    "rnn_backward",
    "rnn_forward",
]


def rnn_forward(
    x: ArrayLike,
    h0: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    reverse: bool = False,
    save: bool = True,
    checkpoint: int | None = None,
    variant: Variant | None = None,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """
    Run a plain RNN over sequences: ``h(t) = act(W_ih x(t) + b_ih + W_hh h(t-1) + b_hh)``.

    Parameters
    ----------
    x : array (T, B, I), float32 or float64
        Time-major input.
    h0 : array (B, H) or None
        The state before the first step; None is zeros.
    w_ih, w_hh : array (H, I), (H, H)
        Weights.
    b_ih, b_hh : array (H,) or None
        Biases; None is none.
    nonlinearity : {"tanh", "relu"}
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
        Keep what `rnn_backward` needs: 1 number for each element of `y` up to the ends,
        itself.
    checkpoint : int, optional
        Changes nothing: an RNN keeps no more than `y` anyway.
    variant : fastrnn.Variant, optional
        What to do besides or instead of the plain cell's steps: activations, clip, layer normalisation, zoneout,
        dropout. Not together with `checkpoint`.

    Returns
    -------
    y : array (T, B, H)
        The states. Read-only when `save`, for backward reads it.
    h_n : array (B, H)
        The state after each sequence's last step, or a reset behind it; that of an empty sequence is its h0.
    cache : Cache or None
        For `rnn_backward`, once; None without `save`. It refers to `x` and the weights: leave them unchanged till then.

    Raises
    ------
    TypeError, ValueError
        For an argument of another dtype or shape, or out of range; the message names it.

    Notes
    -----
    Equation: Elman 1990, with the two biases of `torch.nn.RNN`.
    """
    if lengths is mask is reset is checkpoint is variant is None:
        results = _dense.forward("rnn", f"rnn-{nonlinearity}", x, h0, None, w_ih, w_hh, b_ih, b_hh, reverse, save)
        if results is not None:
            return results
    _check.checkpoint_steps(checkpoint, variants.checked(variant))
    which = {"lengths": lengths, "mask": mask, "reset": reset}
    options = {"nonlinearity": nonlinearity, "reverse": bool(reverse), "save": bool(save)}
    if _settings.engine() == "reference":
        return reference.rnn_forward(x, h0, w_ih, w_hh, b_ih, b_hh, **which, **options, variant=variant)
    _check.choice("nonlinearity", nonlinearity, ("tanh", "relu"))
    inputs = _check.sequence_inputs("rnn", x, {"h0": h0}, w_ih, w_hh, b_ih, b_hh, **which, variant=variant)
    if variant is not None:
        y, (h_n,), cache, _ = _compiled_variants.forward("rnn", inputs, products(), variant, **options)
        return y, h_n, cache
    return _compiled.rnn_forward(inputs, products(), _settings.isa(), nonlinearity, bool(reverse), bool(save))


def lstm_forward(
    x: ArrayLike,
    h0: ArrayLike | None,
    c0: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    reverse: bool = False,
    save: bool = True,
    checkpoint: int | None = None,
    variant: Variant | None = None,
    return_cell_states: bool = False,
) -> tuple[Any, ...]:
    """
    Run an LSTM over sequences.

    With ``a = W_ih x(t) + b_ih + W_hh h(t-1) + b_hh`` in blocks i, f, g, o: ``i, f, o = sigmoid``, ``g = tanh``;
    ``c(t) = f c(t-1) + i g``; ``h(t) = o tanh(c(t))``.

    Parameters
    ----------
    x : array (T, B, I), float32 or float64
        Time-major input.
    h0, c0 : array (B, H) or None
        The state before the first step; None is zeros.
    w_ih, w_hh : array (4H, I), (4H, H)
        Weights, blocks i f g o from top to bottom.
    b_ih, b_hh : array (4H,) or None
        Biases; None is none.
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
        Keep what `lstm_backward` needs: 6 numbers for each element of `y` up to the ends,
        itself, c and the four gates; a row of gates may be followed by 128 bytes of nothing.
    checkpoint : int, optional
        Keep no gates, and c only before every so many steps (rounded up to full blocks of sums over steps, about 256
        rows); `lstm_backward` runs these steps forward again before it runs them back. The same gradients to the bit
        for less memory: besides `y`, 5 numbers for each element of that many steps. The `reference` engine keeps all.
    variant : fastrnn.Variant, optional
        What to do besides or instead of the plain cell's steps: activations, clip, layer normalisation, zoneout,
        dropout, peepholes, coupled gates, projection. Not together with `checkpoint`.
    return_cell_states : bool
        Also return `c`.

    Returns
    -------
    y : array (T, B, H)
        The hidden states. Read-only when `save`, for backward reads it.
    h_n, c_n : array (B, H)
        The state after each sequence's last step, or a reset behind it; that of an empty sequence is its h0, c0.
    cache : Cache or None
        For `lstm_backward`, once; None without `save`. It refers to `x` and the weights: leave them unchanged till
        then.
    c : array (T, B, H), with `return_cell_states`
        The cell states of all steps, zeros where no sequence runs. May be read-only when `save`.

    Raises
    ------
    TypeError, ValueError
        For an argument of another dtype or shape, or out of range; the message names it.

    Notes
    -----
    Equations: Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, as in `torch.nn.LSTM`.
    """
    if lengths is mask is reset is checkpoint is variant is None and not return_cell_states:
        results = _dense.forward("lstm", "lstm", x, h0, c0, w_ih, w_hh, b_ih, b_hh, reverse, save)
        if results is not None:
            return results
    checkpoint = _check.checkpoint_steps(checkpoint, variants.checked(variant))
    which = {"lengths": lengths, "mask": mask, "reset": reset}
    options = {"reverse": bool(reverse), "save": bool(save)}
    if _settings.engine() == "reference":
        options |= {"return_cell_states": return_cell_states, "variant": variant}
        return reference.lstm_forward(x, h0, c0, w_ih, w_hh, b_ih, b_hh, **which, **options)
    inputs = _check.sequence_inputs("lstm", x, {"h0": h0, "c0": c0}, w_ih, w_hh, b_ih, b_hh, **which, variant=variant)
    if variant is not None:
        y, (h_n, c_n), cache, c = _compiled_variants.forward("lstm", inputs, products(), variant, **options)
        return y, h_n, c_n, cache, *((c,) if return_cell_states else ())
    return _compiled.lstm_forward(
        inputs, products(), _settings.isa(), bool(reverse), bool(save), checkpoint, bool(return_cell_states)
    )


def gru_forward(
    x: ArrayLike,
    h0: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    *,
    reset_after: bool = True,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    reverse: bool = False,
    save: bool = True,
    checkpoint: int | None = None,
    variant: Variant | None = None,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """
    Run a GRU over sequences.

    ``r, z = sigmoid(W_i[rz] x(t) + b_i[rz] + W_h[rz] h(t-1) + b_h[rz])``; ``h(t) = (1 - z) n + z h(t-1)`` with
    ``n = tanh(W_in x(t) + b_in + r (W_hn h(t-1) + b_hn))``, or, when the reset comes before the product,
    ``n = tanh(W_in x(t) + b_in + W_hn (r h(t-1)) + b_hn)``.

    Parameters
    ----------
    x : array (T, B, I), float32 or float64
        Time-major input.
    h0 : array (B, H) or None
        The state before the first step; None is zeros.
    w_ih, w_hh : array (3H, I), (3H, H)
        Weights, blocks r z n from top to bottom.
    b_ih, b_hh : array (3H,) or None
        Biases; None is none.
    reset_after : bool
        Whether the reset gate is applied after the recurrent product (PyTorch, cuDNN) or before it (the paper).
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
        Keep what `gru_backward` needs: 5 numbers for each element of `y` up to the ends,
        itself, the three gates and what meets the reset gate; a row of gates may be followed by 128 bytes of nothing.
    checkpoint : int, optional
        Keep `y` alone; `gru_backward` runs so many steps at a time (rounded up to full blocks of sums over steps, about
        256 rows) forward again before it runs them back. The same gradients to the bit for less memory: besides `y`,
        4 numbers for each element of that many steps. The `reference` engine keeps all.
    variant : fastrnn.Variant, optional
        What to do besides or instead of the plain cell's steps: activations, clip, layer normalisation, zoneout,
        dropout. Not together with `checkpoint`.

    Returns
    -------
    y : array (T, B, H)
        The states. Read-only when `save`, for backward reads it.
    h_n : array (B, H)
        The state after each sequence's last step, or a reset behind it; that of an empty sequence is its h0.
    cache : Cache or None
        For `gru_backward`, once; None without `save`. It refers to `x` and the weights: leave them unchanged till then.

    Raises
    ------
    TypeError, ValueError
        For an argument of another dtype or shape, or out of range; the message names it.

    Notes
    -----
    Equations: Cho et al. 2014 for the reset before the product; `torch.nn.GRU` for the reset after it.
    """
    if lengths is mask is reset is checkpoint is variant is None:
        kind = "gru-after" if reset_after else "gru-before"
        results = _dense.forward("gru", kind, x, h0, None, w_ih, w_hh, b_ih, b_hh, reverse, save)
        if results is not None:
            return results
    checkpoint = _check.checkpoint_steps(checkpoint, variants.checked(variant))
    which = {"lengths": lengths, "mask": mask, "reset": reset}
    options = {"reset_after": bool(reset_after), "reverse": bool(reverse), "save": bool(save)}
    if _settings.engine() == "reference":
        return reference.gru_forward(x, h0, w_ih, w_hh, b_ih, b_hh, **which, **options, variant=variant)
    inputs = _check.sequence_inputs("gru", x, {"h0": h0}, w_ih, w_hh, b_ih, b_hh, **which, variant=variant)
    if variant is not None:
        y, (h_n,), cache, _ = _compiled_variants.forward("gru", inputs, products(), variant, **options)
        return y, h_n, cache
    return _compiled.gru_forward(
        inputs, products(), _settings.isa(), bool(reset_after), bool(reverse), bool(save), checkpoint
    )


def _only(asked: frozenset[str], grads: Any) -> Any:
    return grads._replace(**dict.fromkeys(frozenset(grads._fields) - asked))


def rnn_backward(
    cache: Cache, dy: ArrayLike | None, dh_n: ArrayLike | None = None, *, need: Iterable[str] | None = None
) -> RNNGrads:
    """
    The gradients of everything that went into `rnn_forward`.

    Parameters
    ----------
    cache : Cache
        From `rnn_forward`; used up by this call.
    dy : array (T, B, H) or None
        The gradient of the loss with respect to `y`; None is zeros. What it holds where no
        sequence runs is ignored.
    dh_n : array (B, H), optional
        That with respect to `h_n`.
    need : names, optional
        The gradients that are wanted, of the names below; the others are None. That of `x` is a product of its own, and
        so are those of weights and biases together: either is not computed where nothing of it is wanted. None: all.

    Returns
    -------
    RNNGrads
        ``(x, h0, w_ih, w_hh, b_ih, b_hh)``, each of its argument's shape; None for a bias that was None.

    Raises
    ------
    TypeError, ValueError
        For a cache that is used or of another cell, an array of another dtype or shape, or an unknown name.
    """
    asked = _check.needed(need, RNNGrads._fields)
    if (grads := _dense.backward("rnn", cache, dy, dh_n, None, None, asked)) is not None:
        return grads
    if getattr(cache, "engine", None) == "reference":
        return _only(asked, reference.rnn_backward(cache, dy, dh_n))
    dy, (dh,) = _check.output_gradients("rnn", "compiled", cache, dy, {"dh_n": dh_n})
    if isinstance(cache, VariantCache):
        return _only(asked, _compiled_variants.backward(cache, dy, (dh,), asked))
    return _only(asked, _compiled.rnn_backward(cache, dy, dh, asked))


def lstm_backward(
    cache: Cache,
    dy: ArrayLike | None,
    dh_n: ArrayLike | None = None,
    dc_n: ArrayLike | None = None,
    dc: ArrayLike | None = None,
    *,
    need: Iterable[str] | None = None,
) -> LSTMGrads:
    """
    The gradients of everything that went into `lstm_forward`.

    Parameters
    ----------
    cache : Cache
        From `lstm_forward`; used up by this call.
    dy : array (T, B, H) or None
        The gradient of the loss with respect to `y`; None is zeros. What it holds where no
        sequence runs is ignored.
    dh_n, dc_n : array (B, H), optional
        Those with respect to `h_n` and `c_n`.
    dc : array (T, B, H), optional
        That with respect to the cell states of all steps, `c`; as `dy`, it is ignored where no sequence runs.
    need : names, optional
        The gradients that are wanted, of the names below; the others are None. That of `x` is a product of its own, and
        so are those of weights and biases together: either is not computed where nothing of it is wanted. None: all.

    Returns
    -------
    LSTMGrads
        ``(x, h0, c0, w_ih, w_hh, b_ih, b_hh)``, each of its argument's shape; None for a bias that was None.

    Raises
    ------
    TypeError, ValueError
        For a cache that is used or of another cell, an array of another dtype or shape, or an unknown name.
    """
    asked = _check.needed(need, LSTMGrads._fields)
    if (grads := _dense.backward("lstm", cache, dy, dh_n, dc_n, dc, asked)) is not None:
        return grads
    if getattr(cache, "engine", None) == "reference":
        return _only(asked, reference.lstm_backward(cache, dy, dh_n, dc_n, dc))
    dy, states = _check.output_gradients("lstm", "compiled", cache, dy, {"dh_n": dh_n, "dc_n": dc_n})
    dc = _check.step_gradients(cache, dc)
    if isinstance(cache, VariantCache):
        return _only(asked, _compiled_variants.backward(cache, dy, states, asked, dc))
    return _only(asked, _compiled.lstm_backward(cache, dy, *states, dc, asked))


def gru_backward(
    cache: Cache, dy: ArrayLike | None, dh_n: ArrayLike | None = None, *, need: Iterable[str] | None = None
) -> GRUGrads:
    """
    The gradients of everything that went into `gru_forward`.

    Parameters
    ----------
    cache : Cache
        From `gru_forward`; used up by this call.
    dy : array (T, B, H) or None
        The gradient of the loss with respect to `y`; None is zeros. What it holds where no
        sequence runs is ignored.
    dh_n : array (B, H), optional
        That with respect to `h_n`.
    need : names, optional
        The gradients that are wanted, of the names below; the others are None. That of `x` is a product of its own, and
        so are those of weights and biases together: either is not computed where nothing of it is wanted. None: all.

    Returns
    -------
    GRUGrads
        ``(x, h0, w_ih, w_hh, b_ih, b_hh)``, each of its argument's shape; None for a bias that was None.

    Raises
    ------
    TypeError, ValueError
        For a cache that is used or of another cell, an array of another dtype or shape, or an unknown name.
    """
    asked = _check.needed(need, GRUGrads._fields)
    if (grads := _dense.backward("gru", cache, dy, dh_n, None, None, asked)) is not None:
        return grads
    if getattr(cache, "engine", None) == "reference":
        return _only(asked, reference.gru_backward(cache, dy, dh_n))
    dy, (dh,) = _check.output_gradients("gru", "compiled", cache, dy, {"dh_n": dh_n})
    if isinstance(cache, VariantCache):
        return _only(asked, _compiled_variants.backward(cache, dy, (dh,), asked))
    return _only(asked, _compiled.gru_backward(cache, dy, dh, asked))
