"""
The kernels as functions of JAX (the extra `jax`): under `jit`, `grad`, `vmap` and `scan`, on the CPU.

`rnn`, `lstm` and `gru` take and give JAX arrays, with the names, shapes and meanings of `fastrnn.functional`. They have
gradients in reverse mode, once; not in forward mode, and none of second order.

>>> import jax, jax.numpy as jnp, fastrnn
>>> from fastrnn.interop import jax as kernels
>>> w = fastrnn.GRU(3, 8, rng=0).params
>>> def loss(w_ih, w_hh, x):
...     y, h_n = kernels.gru(x, None, w_ih, w_hh, lengths=jnp.array([5, 2]))
...     return jnp.square(h_n).sum()
>>> grads = jax.jit(jax.grad(loss, (0, 1)))(w["weight_ih_l0"], w["weight_hh_l0"], jnp.ones((5, 2, 3)))
>>> [grad.shape for grad in grads]
[(24, 3), (24, 8)]

The engine, the instruction set and the number of threads that a `fastrnn.config_context` sets are those in force where
a function is traced.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import _check, _settings

try:
    import jax
    import jax.numpy as jnp
    from jax.experimental import buffer_callback as _needed  # noqa: F401
    from jax.typing import ArrayLike
except ImportError:
    raise ImportError("jax is not installed, or older than 0.7; pip install 'fastrnn[jax]'") from None

from fastrnn.interop import _jax_primitives as primitives

__all__ = ["gru", "lstm", "rnn"]


def rnn(
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
) -> tuple[jax.Array, jax.Array]:
    """
    Run a plain RNN over sequences, see `fastrnn.functional.rnn_forward`.

    Parameters
    ----------
    x : array (T, B, I), float32, or float64 where JAX has it enabled
        Time-major input.
    h0 : array (B, H) or None
        The state before the first step; None is zeros.
    w_ih, w_hh : array (H, I), (H, H)
        Weights.
    b_ih, b_hh : array (H,) or None
        Biases; None is none.
    nonlinearity : {"tanh", "relu"}
        The activation.
    lengths : integers (B,), optional
        The number of valid steps of each sequence, 0 to T.
    mask, reset : bool (T, B), optional
        False where a sequence skips a step, and True where it starts anew before one.
    reverse : bool
        Run each sequence from its own end to its start.

    Returns
    -------
    y : array (T, B, H)
        The states, zeros where no sequence runs.
    h_n : array (B, H)
        The state after each sequence's last step.

    Raises
    ------
    TypeError, ValueError
        For an argument of another dtype or shape. Of lengths out of range under `jit`, JAX's run-time error has the
        message.

    Notes
    -----
    All gradients come out of one call of the kernels; those that are not asked for are not computed. Mapped by `vmap`,
    the sequences of all calls are one batch, unless weights are mapped as well, or a gradient with respect to weights
    is: then the calls run one after another.
    """
    _check.choice("nonlinearity", nonlinearity, ("tanh", "relu"))
    weights, marks = (w_ih, w_hh, b_ih, b_hh), (lengths, mask, reset)
    return _run("rnn", x, {"h0": h0}, weights, marks, nonlinearity=nonlinearity, reverse=bool(reverse))


def lstm(
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
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """
    Run an LSTM over sequences, see `fastrnn.functional.lstm_forward`.

    Parameters
    ----------
    x : array (T, B, I), float32, or float64 where JAX has it enabled
        Time-major input.
    h0, c0 : array (B, H) or None
        The state before the first step; None is zeros.
    w_ih, w_hh : array (4H, I), (4H, H)
        Weights, blocks i f g o from top to bottom.
    b_ih, b_hh : array (4H,) or None
        Biases; None is none.
    lengths, mask, reset, reverse
        As of `rnn`.

    Returns
    -------
    y : array (T, B, H)
        The hidden states, zeros where no sequence runs.
    h_n, c_n : array (B, H)
        The state after each sequence's last step.

    Raises
    ------
    TypeError, ValueError
        As of `rnn`.
    """
    weights, marks = (w_ih, w_hh, b_ih, b_hh), (lengths, mask, reset)
    return _run("lstm", x, {"h0": h0, "c0": c0}, weights, marks, reverse=bool(reverse))


def gru(
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
) -> tuple[jax.Array, jax.Array]:
    """
    Run a GRU over sequences, see `fastrnn.functional.gru_forward`.

    Parameters
    ----------
    x : array (T, B, I), float32, or float64 where JAX has it enabled
        Time-major input.
    h0 : array (B, H) or None
        The state before the first step; None is zeros.
    w_ih, w_hh : array (3H, I), (3H, H)
        Weights, blocks r z n from top to bottom.
    b_ih, b_hh : array (3H,) or None
        Biases; None is none.
    reset_after : bool
        Whether the reset gate is applied after the recurrent product or before it.
    lengths, mask, reset, reverse
        As of `rnn`.

    Returns
    -------
    y : array (T, B, H)
        The states, zeros where no sequence runs.
    h_n : array (B, H)
        The state after each sequence's last step.

    Raises
    ------
    TypeError, ValueError
        As of `rnn`.
    """
    weights, marks = (w_ih, w_hh, b_ih, b_hh), (lengths, mask, reset)
    return _run("gru", x, {"h0": h0}, weights, marks, reset_after=bool(reset_after), reverse=bool(reverse))


def _run(cell: str, x: Any, states: dict, weights: tuple, marks: tuple, **options: Any) -> tuple[jax.Array, ...]:
    """Check all that is known before the values are, and bind the primitive."""
    gates = _check.GATES[cell]
    rows = f"{gates if gates > 1 else ''}H"
    x = _array("x", x)
    if x.dtype not in _check.FLOATS:
        raise TypeError(f"x: dtype {x.dtype}, expected float32 or float64")
    if x.ndim != 3:
        raise ValueError(f"x: shape {x.shape}, expected 3 dimensions (T, B, I)")
    T, B, I = x.shape
    given = dict(zip((*primitives.WEIGHTS, *primitives.MARKS), (*weights, *marks), strict=True))
    w_hh = _array("w_hh", given["w_hh"])
    H = w_hh.shape[0] // gates if w_hh.ndim == 2 else 0
    if H < 1 or w_hh.shape != (gates * H, H):
        raise ValueError(f"w_hh: shape {w_hh.shape}, expected ({rows}, H) with H >= 1")
    given |= {name: jnp.zeros((B, H), x.dtype) if state is None else state for name, state in states.items()}
    operands = {"x": x}
    for names, axes, shape in (
        (states, "(B, H)", (B, H)),
        (("w_ih",), f"({rows}, I)", (gates * H, I)),
        (("w_hh",), f"({rows}, H)", (gates * H, H)),
        (("b_ih", "b_hh"), f"({rows},)", (gates * H,)),
        (("lengths",), "(B,)", (B,)),
        (("mask", "reset"), "(T, B)", (T, B)),
    ):
        for name in names:
            if given[name] is not None:
                operands[name] = _checked(name, given[name], axes, shape, x.dtype)
    if "lengths" in operands and not isinstance(operands["lengths"], jax.core.Tracer):
        _check.lengths_array(operands["lengths"], T, B)
    if any(map(_varies, operands.values())):
        raise NotImplementedError("fastrnn.interop.jax: shard_map with check_vma=True, expected check_vma=False")
    spec = primitives.Spec(cell, tuple(operands), tuple(options.items()), _settings.overrides(), _settings.engine())
    return tuple(primitives.run_p.bind(*operands.values(), spec=spec))


def _varies(array: jax.Array) -> bool:
    """Whether JAX keeps track of the axes of a mesh along which it varies; results would pass for the same on all."""
    kind = jax.typeof(array)
    return bool(kind.vma if hasattr(kind, "vma") else kind.mat.varying)


def _array(name: str, value: Any) -> jax.Array:
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: not an array: {error}") from None


def _checked(name: str, value: Any, axes: str, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    array = _array(name, value)
    if array.shape != shape:
        raise ValueError(f"{name}: shape {array.shape}, expected {axes} = {shape}")
    kinds, wanted = {"lengths": ("iu", "integers"), "mask": ("b", "bool"), "reset": ("b", "bool")}.get(name, ("", ""))
    if kinds and array.size and array.dtype.kind not in kinds:
        raise TypeError(f"{name}: dtype {array.dtype}, expected {wanted}")
    if not kinds and array.dtype != dtype:
        raise TypeError(f"{name}: dtype {array.dtype}, expected {dtype}, that of x")
    return array
