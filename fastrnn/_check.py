"""Validation of what callers pass: one clear error, before any memory is touched.

Every message starts with the argument's name, then says what came and what was expected.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from fastrnn._cache import Cache

GATES = {"rnn": 1, "lstm": 4, "gru": 3, "indrnn": 1, "mingru": 2, "minlstm": 3}
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
# BLAS counts with 32-bit integers.
MAX_DIMENSION = 2**31 - 1


class Inputs(NamedTuple):
    """The arguments of a forward function, checked: C-contiguous, aligned, native byte order, one dtype."""

    x: np.ndarray
    states: tuple[np.ndarray, ...]
    w_ih: np.ndarray
    w_hh: np.ndarray
    b_ih: np.ndarray | None
    b_hh: np.ndarray | None
    lengths: np.ndarray | None
    mask: np.ndarray | None = None
    reset: np.ndarray | None = None


def as_array(name: str, value: Any) -> np.ndarray:
    """`value` as an array of any kind."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: not an array: {error}") from None


def float_array(name: str, value: Any, dtype: np.dtype | None = None, like: str = "x") -> np.ndarray:
    """`value` as a C-contiguous, aligned float32 or float64 array in native byte order; copied only if it must be."""
    array = as_array(name, value)
    native = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("=")
    if dtype is None and native not in FLOATS:
        raise TypeError(f"{name}: dtype {array.dtype}, expected float32 or float64")
    if dtype is not None and native != dtype:
        raise TypeError(f"{name}: dtype {array.dtype}, expected {dtype}, that of {like}")
    flags = array.flags
    if flags.c_contiguous and flags.aligned and array.dtype.isnative:
        return array
    return np.require(array, dtype=native, requirements=["C", "A"])


def shaped(name: str, value: Any, dtype: np.dtype, axes: str, shape: tuple[int, ...], like: str = "x") -> np.ndarray:
    """`value` as by `float_array`, of this shape; `axes` names them in the message."""
    array = float_array(name, value, dtype, like)
    if array.shape != shape:
        hint = "; transposed?" if len(shape) == 2 and array.shape == shape[::-1] else ""
        raise ValueError(f"{name}: shape {array.shape}, expected {axes} = {shape}{hint}")
    return array


def lengths_array(lengths: Any, T: int, B: int) -> np.ndarray | None:
    """`lengths` as an intp array of shape (B,) within 0..T, or None."""
    if lengths is None:
        return None
    array = as_array("lengths", lengths)
    if array.shape != (B,):
        raise ValueError(f"lengths: shape {array.shape}, expected (B,) = {(B,)}")
    if B and array.dtype.kind not in "iu":
        raise TypeError(f"lengths: dtype {array.dtype}, expected integers")
    if B and (array.min() < 0 or array.max() > T):
        raise ValueError(f"lengths: values from {array.min()} to {array.max()}, expected 0 to T = {T}")
    return np.ascontiguousarray(array, dtype=np.intp)


def flags_array(name: str, value: Any, axes: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """`value` as a C-contiguous bool array of this shape, or None; `axes` names them in the message."""
    if value is None:
        return None
    array = as_array(name, value)
    if array.dtype != bool:
        raise TypeError(f"{name}: dtype {array.dtype}, expected bool")
    if array.shape != shape:
        hint = "; transposed?" if array.shape == shape[::-1] else ""
        raise ValueError(f"{name}: shape {array.shape}, expected {axes} = {shape}{hint}")
    return np.ascontiguousarray(array)


def indices(name: str, value: Any, count: int) -> np.ndarray:
    """`value` as an integer array within 0..count-1."""
    array = as_array(name, value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: dtype {array.dtype}, expected integers")
    if array.size and (array.min() < 0 or array.max() >= count):
        raise ValueError(f"{name}: values from {array.min()} to {array.max()}, expected 0 to {count - 1}")
    return array


def sequence_inputs(
    cell: str,
    x: Any,
    states: dict[str, Any],
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    lengths: Any,
    mask: Any = None,
    reset: Any = None,
    variant: Any = None,
) -> Inputs:
    """
    Check the arguments of `<cell>_forward`. `states` maps h0 (and c0) to what was passed; None becomes zeros.

    Where a variant projects h it has P units, the columns of w_hh, while there are still G*H rows.
    """
    projected = variant is not None and variant.w_hr is not None
    x = float_array("x", x)
    if x.ndim != 3:
        raise ValueError(f"x: shape {x.shape}, expected 3 dimensions (T, B, I)")
    T, B, I = x.shape
    gates = GATES[cell]
    w_hh = float_array("w_hh", w_hh, x.dtype)
    H, P = (len(w_hh) // gates, w_hh.shape[1]) if w_hh.ndim == 2 else (0, 0)
    if H < 1 or P < 1 or len(w_hh) != gates * H or (P != H and not projected):
        columns = "P" if projected else "H"
        raise ValueError(f"w_hh: shape {w_hh.shape}, expected ({gates if gates > 1 else ''}H, {columns}) with H >= 1")
    for name, size in (("T*B", T * B), ("I", I), (f"{gates}*H", gates * H)):
        if size > MAX_DIMENSION:
            raise ValueError(f"x, w_hh: {name} = {size}, expected at most {MAX_DIMENSION}")
    w_ih = shaped("w_ih", w_ih, x.dtype, f"({gates if gates > 1 else ''}H, I)", (gates * H, I))
    biases = (
        None if b is None else shaped(name, b, x.dtype, f"({gates if gates > 1 else ''}H,)", (gates * H,))
        for name, b in (("b_ih", b_ih), ("b_hh", b_hh))
    )
    checked_states = tuple(
        np.zeros((B, width), x.dtype) if state is None else shaped(name, state, x.dtype, axes, (B, width))
        for (name, state), (axes, width) in zip(
            states.items(), ((f"(B, {'P' if projected else 'H'})", P), ("(B, H)", H)), strict=False
        )
    )
    lengths = lengths_array(lengths, T, B)
    mask, reset = (flags_array(name, a, "(T, B)", (T, B)) for name, a in (("mask", mask), ("reset", reset)))
    return Inputs(x, checked_states, w_ih, w_hh, *biases, lengths, mask, reset)


class ElementwiseInputs(NamedTuple):
    """The arguments of a forward function whose recurrence is element by element, checked as `Inputs`."""

    x: np.ndarray
    h0: np.ndarray
    w_ih: np.ndarray
    u: np.ndarray | None
    b: np.ndarray | None
    lengths: np.ndarray | None
    mask: np.ndarray | None
    reset: np.ndarray | None


def elementwise_inputs(
    cell: str, x: Any, h0: Any, w_ih: Any, u: Any, b: Any, lengths: Any, mask: Any, reset: Any
) -> ElementwiseInputs:
    """Check the arguments of `<cell>_forward`, which has weights u (H,) only if it is that of an IndRNN."""
    x = float_array("x", x)
    if x.ndim != 3:
        raise ValueError(f"x: shape {x.shape}, expected 3 dimensions (T, B, I)")
    T, B, I = x.shape
    gates = GATES[cell]
    rows = f"{gates if gates > 1 else ''}H"
    w_ih = float_array("w_ih", w_ih, x.dtype)
    if w_ih.ndim != 2 or w_ih.shape[1] != I or len(w_ih) < gates or len(w_ih) % gates:
        raise ValueError(f"w_ih: shape {w_ih.shape}, expected ({rows}, I) with H >= 1, I = {I}")
    H = len(w_ih) // gates
    for name, size in (("T*B", T * B), ("I", I), (rows, gates * H)):
        if size > MAX_DIMENSION:
            raise ValueError(f"x, w_ih: {name} = {size}, expected at most {MAX_DIMENSION}")
    if cell == "indrnn":
        u = shaped("u", u, x.dtype, "(H,)", (H,))
    if b is not None:
        b = shaped("b", b, x.dtype, f"({rows},)", (gates * H,))
    h0 = np.zeros((B, H), x.dtype) if h0 is None else shaped("h0", h0, x.dtype, "(B, H)", (B, H))
    lengths = lengths_array(lengths, T, B)
    mask, reset = (flags_array(name, a, "(T, B)", (T, B)) for name, a in (("mask", mask), ("reset", reset)))
    return ElementwiseInputs(x, h0, w_ih, u, b, lengths, mask, reset)


def output_gradients(
    cell: str, engine: str, cache: Any, dy: Any, dstates: dict[str, Any]
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Check the arguments of `<cell>_backward`. The state gradients come back as fresh arrays, zeros for None."""
    if not isinstance(cache, Cache):
        hint = "; forward ran with save=False" if cache is None else ""
        raise TypeError(f"cache: {type(cache).__name__}, expected the cache that {cell}_forward returned{hint}")
    if cache.cell != cell:
        raise ValueError(f"cache: it is of {cache.cell}_forward, expected one of {cell}_forward")
    if (cache.engine == "reference") != (engine == "reference"):
        raise ValueError(f"cache: it is of the {cache.engine} engine, which fastrnn.functional.{cell}_backward runs")
    if cache.used:
        cache.take()
    y = cache.y
    dy = np.zeros(y.shape, y.dtype) if dy is None else shaped("dy", dy, y.dtype, "(T, B, H)", y.shape, like="y")
    states = (y.shape[1:], (y.shape[1], getattr(cache, "c_width", y.shape[2])))
    return dy, tuple(
        np.zeros(shape, y.dtype) if d is None else np.array(shaped(name, d, y.dtype, "(B, H)", shape, like="y"))
        for (name, d), shape in zip(dstates.items(), states, strict=False)
    )


def step_gradients(cache: Cache, dc: Any) -> np.ndarray | None:
    """Check those of an LSTM's c of all steps, or None; after `output_gradients`."""
    shape = (*cache.y.shape[:2], getattr(cache, "c_width", cache.y.shape[2]))
    return None if dc is None else shaped("dc", dc, cache.y.dtype, "(T, B, H)", shape, like="y")


_all_of = functools.cache(frozenset)


def needed(need: Any, names: tuple[str, ...]) -> frozenset[str]:
    """The gradients that are asked for; None is all."""
    if need is None:
        return _all_of(names)
    if isinstance(need, str):
        need = (need,)
    try:
        asked = frozenset(need)
    except TypeError:
        raise TypeError(f"need: {type(need).__name__}, expected names of gradients") from None
    if not asked <= frozenset(names):
        wrong = ", ".join(sorted(repr(name) for name in asked - frozenset(names)))
        raise ValueError(f"need: {wrong}, expected some of {', '.join(map(repr, names))}")
    return asked


def layer_input(x: Any, size: int, batch_first: bool, dtype: np.dtype) -> np.ndarray:
    """`x` as an array of a layer's dtype with three axes, the last one of this size."""
    array = np.asarray(x)
    if array.ndim != 3 or array.shape[2] != size:
        axes = "(B, T, I)" if batch_first else "(T, B, I)"
        raise ValueError(f"x: shape {array.shape}, expected {axes} with I = {size}")
    if array.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"x: dtype {array.dtype}, expected {dtype}, that of the layer")
    return array


def batch_mask(name: str, value: Any, B: int) -> np.ndarray:
    """`value` as a bool array of shape (B,)."""
    array = as_array(name, value)
    if array.dtype != bool or array.shape != (B,):
        raise ValueError(f"{name}: {array.dtype} {array.shape}, expected bool (B,) = {(B,)}")
    return array


def output(value: Any, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Check an array that results are to be put into."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        raise TypeError(f"out: {getattr(value, 'dtype', type(value).__name__)}, expected an array of {dtype}")
    if value.shape != shape:
        raise ValueError(f"out: shape {value.shape}, expected that of y, {shape}")
    if not value.flags.writeable:
        raise ValueError("out: read-only, expected a writable array")


def positive_int(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int of at least 1, or 0 where that is the least."""
    try:
        number = value.__index__()
    except (AttributeError, TypeError):  # the second is that of arrays
        raise TypeError(f"{name}: {value!r:.80}, expected a whole number from {least}") from None
    if isinstance(value, bool) or number < least:
        raise ValueError(f"{name}: {value!r}, expected a whole number from {least}")
    return number


def checkpoint_steps(value: Any, variant: Any = None) -> int | None:
    """`value` as a number of steps, or None."""
    if value is not None and variant is not None:
        raise ValueError(f"checkpoint: {value!r}, not together with a variant, whose steps are all kept")
    return None if value is None else positive_int("checkpoint", value)


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """`value`, if it is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name}: {value!r}, expected one of {', '.join(map(repr, allowed))}")
    return value
