"""
Inference over Dask arrays that need not fit into memory, on threads, processes or a cluster (the extra `dask`).

>>> import dask.array as da, numpy as np, fastrnn
>>> from fastrnn.interop.dask import map_sequences
>>> fast = fastrnn.GRU(3, 8, rng=0).freeze()
>>> x = da.random.default_rng(0).random((100, 64, 3), dtype=np.float32, chunks=(50, 16, 3))  # T, B, I
>>> y, h_n = map_sequences(fast, x)
>>> y
dask.array<concatenate, shape=(100, 64, 8), dtype=float32, chunksize=(50, 16, 8), chunktype=numpy.ndarray>
>>> bool((y.compute() == fast(x.compute())[0]).all())
True
"""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastrnn import _check, _settings
from fastrnn.layers.elementwise import ElementwiseLayer
from fastrnn.layers.frozen import Frozen
from fastrnn.layers.stack import FrozenStack
from fastrnn.module import Module

try:
    import dask
    import dask.array as da
    from dask.base import tokenize
except ImportError:
    raise ImportError("dask is not installed; pip install 'fastrnn[dask]'") from None

__all__ = ["map_sequences"]


def map_sequences(
    fast: Frozen | FrozenStack | Module,
    x: da.Array,
    lengths: Any = None,
    *,
    state: Any = None,
    mask: Any = None,
    reset: Any = None,
    num_threads: int = 1,
) -> tuple[Any, Any]:
    """
    Run a layer over sequences that a Dask array holds.

    Nothing runs before the results are computed, and then only what they need. Each block of sequences is a call of the
    layer by itself. Where time is cut as well, a block starts from the state in which the one before it ended; so
    sequences, too, may be longer than memory.

    Parameters
    ----------
    fast : Frozen, FrozenStack or Module
        What a layer's or a stack's `freeze` made, or one that is frozen now. It travels by pickle, once to each worker,
        which packs its weights.
    x : dask array (T, B, I), or (B, T, I) if the layer has `batch_first`
        Of the layer's dtype, in chunks along B, T or both. The features are made one chunk, and so is the time for a
        bidirectional layer.
    lengths : integers (B,), optional
        The number of valid steps of each sequence, 0 to T: an array, or a Dask array.
    state : as the layer's, optional
        The initial state, (D*num_layers, B, H), for an LSTM a tuple of two, for a stack a list: arrays or Dask arrays.
    mask, reset : bool (T, B), or (B, T) with `batch_first`, optional
        False where a sequence skips a step, and True where it starts anew before one: arrays, or Dask arrays.
    num_threads : int
        How many threads each call may use; Dask runs several calls at once.

    Returns
    -------
    y : dask array (T, B, D*H), or (B, T, D*H), or with ``merge=None`` a tuple of two
        As the layer gives it, in the chunks of `x`. In the `native` engine it has the same bits as in one call.
    state : as the argument, of dask arrays
        After each sequence's last step. Compute both with one `dask.compute`: by themselves each runs the layer.

    Raises
    ------
    TypeError, ValueError
        For an argument of another dtype or shape, or of unknown chunk sizes; the message names it. Of lengths in a Dask
        array that are out of range, when they are computed.

    Notes
    -----
    What lengths, masks and resets mean is in `fastrnn.functional`; how arrays are cut makes no difference to it.
    """
    model, about = _model(fast)
    num_threads = _check.positive_int("num_threads", num_threads)
    batch_axis, time_axis = (0, 1) if about.batch_first else (1, 0)
    x = _checked_input(x, about, _runs_back(model))
    batches, times = _ranges(x.chunks[batch_axis]), _ranges(x.chunks[time_axis])
    T, B = x.shape[time_axis], x.shape[batch_axis]
    lengths = _checked_lengths(lengths, T, B)
    marks = {"mask": _flag_blocks("mask", mask, x), "reset": _flag_blocks("reset", reset, x)}
    # how the results are nested, and their widths
    y_like, state_like = model(np.zeros((0, 0, x.shape[2]), x.dtype))
    _check_state("state", state, state_like, B)

    token = tokenize(pickle.dumps(model))
    sent = dask.delayed(model, name=f"fastrnn-model-{token}", traverse=False)
    # Optimised by itself, the way to x would be gone a second time by whatever else is computed of it.
    blocks = x.to_delayed(optimize_graph=False).reshape(x.numblocks[:2])
    call = dask.delayed(_call, pure=True)
    pairs: list[list[Any]] = [[] for _ in times]  # [time][batch]
    for k, (first, last) in enumerate(batches):
        current = _map(lambda leaf, a=first, b=last: leaf[:, a:b], state)
        some = None if lengths is None else lengths[first:last]
        for i, (start, _) in enumerate(times):
            place = (k, i) if about.batch_first else (i, k)
            here = {name: None if flags is None else flags[place] for name, flags in marks.items()}
            pairs[i].append(call(sent, blocks[place], current, some, here, start, T, about.batch_first, num_threads))
            current = dask.delayed(_pick, pure=True)(pairs[i][-1], (1,))

    def part(pair: Any, path: tuple[int, ...], shape: tuple[int, ...]) -> da.Array:
        return da.from_delayed(dask.delayed(_pick, pure=True)(pair, path), shape, dtype=x.dtype)

    def whole_y(path: tuple[int, ...], like: np.ndarray) -> da.Array:
        rows = []
        for row, (start, stop) in zip(pairs, times, strict=True):
            sizes = [(b - a, stop - start) if about.batch_first else (stop - start, b - a) for a, b in batches]
            parts = [part(pair, (0, *path), (*two, like.shape[2])) for pair, two in zip(row, sizes, strict=True)]
            rows.append(da.concatenate(parts, axis=batch_axis))
        return da.concatenate(rows, axis=time_axis)

    def whole_state(path: tuple[int, ...], like: np.ndarray) -> da.Array:
        shapes = [(like.shape[0], b - a, like.shape[2]) for a, b in batches]
        parts = [part(pair, (1, *path), shape) for pair, shape in zip(pairs[-1], shapes, strict=True)]
        return da.concatenate(parts, axis=1)

    return _map_paths(whole_y, y_like), _map_paths(whole_state, state_like)


def _call(
    model: Any,
    x: np.ndarray,
    state: Any,
    lengths: Any,
    marks: dict[str, Any],
    start: int,
    T: int,
    batch_first: bool,
    num_threads: int,
) -> tuple[Any, Any]:
    """One block, which begins at the step `start` of T."""
    steps, batch = x.shape[:2][:: -1 if batch_first else 1]
    lengths = _check.lengths_array(lengths, T, batch)
    if lengths is not None:
        lengths = np.clip(lengths - start, 0, steps)
    with _settings.config_context(num_threads=num_threads):
        return model(x, state, lengths, **marks)


def _pick(nested: Any, path: tuple[int, ...]) -> Any:
    for k in path:
        nested = nested[k]
    return nested


def _map(function: Callable, nested: Any) -> Any:
    """The same nesting, `function` of each array; None stays."""
    if isinstance(nested, list | tuple):
        return type(nested)(_map(function, part) for part in nested)
    return None if nested is None else function(nested)


def _map_paths(function: Callable, nested: Any, path: tuple[int, ...] = ()) -> Any:
    """The same nesting, `function` of the way to each array and the array."""
    if isinstance(nested, list | tuple):
        return type(nested)(_map_paths(function, part, (*path, k)) for k, part in enumerate(nested))
    return function(path, nested)


def _ranges(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """From where to where each chunk goes."""
    ends = list(itertools.accumulate(sizes, initial=0))
    return list(itertools.pairwise(ends))


def _model(fast: Any) -> tuple[Any, Any]:
    """What is sent to the workers, and what has its sizes as attributes."""
    if isinstance(fast, Frozen | FrozenStack):
        return fast, fast._layer if isinstance(fast, Frozen) else fast
    if not (isinstance(fast, Module) and hasattr(fast, "freeze")):
        raise TypeError(f"fast: {type(fast).__name__}, expected a recurrent layer or stack, frozen or not")
    if not isinstance(fast, ElementwiseLayer):
        return _model(fast.freeze())
    if fast.stateful:  # these layers cannot be frozen
        raise ValueError("fast: a stateful layer, expected one that starts from the state it is given")
    fast = copy.deepcopy(fast)  # as it is now
    return fast, fast


def _layers(model: Any) -> Iterator[Any]:
    if isinstance(model, FrozenStack):
        for layer in model.layers:
            yield from _layers(layer)
    else:
        yield model._layer if isinstance(model, Frozen) else model


def _runs_back(model: Any) -> bool:
    return any(getattr(layer, "bidirectional", False) for layer in _layers(model))


def _checked_input(x: Any, about: Any, uncut: bool) -> da.Array:
    """`x` with its features in one chunk, and if it must be uncut its time."""
    if not isinstance(x, da.Array):
        raise TypeError(f"x: {type(x).__name__}, expected a dask array; call the layer itself")
    axes = "(B, T, I)" if about.batch_first else "(T, B, I)"
    if x.ndim != 3 or x.shape[2] != about.input_size:
        raise ValueError(f"x: shape {x.shape}, expected {axes} with I = {about.input_size}")
    if x.dtype != about.dtype:
        raise TypeError(f"x: dtype {x.dtype}, expected {about.dtype}, that of the layer")
    if any(np.isnan(size) for sizes in x.chunks for size in sizes):
        raise ValueError("x: chunks of unknown sizes, expected known ones; x.compute_chunk_sizes() finds them")
    return x.rechunk({2: -1, int(about.batch_first): -1} if uncut else {2: -1})


def _checked_lengths(lengths: Any, T: int, B: int) -> Any:
    if not isinstance(lengths, da.Array):
        return _check.lengths_array(lengths, T, B)
    if lengths.shape != (B,):
        raise ValueError(f"lengths: shape {lengths.shape}, expected (B,) = {(B,)}")
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths: dtype {lengths.dtype}, expected integers")
    return lengths


def _flag_blocks(name: str, value: Any, x: da.Array) -> np.ndarray | None:
    """A mask or resets as delayed blocks, those of `x`."""
    if value is None:
        return None
    if not isinstance(value, da.Array):
        value = da.from_array(_check.flags_array(name, value, "that of x", x.shape[:2]), chunks=x.chunks[:2])
    if value.dtype != bool:
        raise TypeError(f"{name}: dtype {value.dtype}, expected bool")
    if value.shape != x.shape[:2]:
        raise ValueError(f"{name}: shape {value.shape}, expected that of x, {x.shape[:2]}")
    return value.rechunk(x.chunks[:2]).to_delayed(optimize_graph=False)


def _check_state(name: str, state: Any, like: Any, B: int) -> None:
    """That `state` has the nesting, the shapes and the dtype of `like`, which is that of an empty batch."""
    if state is None:
        return
    if isinstance(like, list | tuple):
        if not isinstance(state, list | tuple) or len(state) != len(like):
            raise TypeError(f"{name}: {type(state).__name__}, expected a {type(like).__name__} of {len(like)}")
        for k, (part, part_like) in enumerate(zip(state, like, strict=True)):
            _check_state(f"{name}[{k}]", part, part_like, B)
        return
    shape = (like.shape[0], B, like.shape[2])
    if getattr(state, "shape", None) != shape:
        raise ValueError(f"{name}: shape {getattr(state, 'shape', None)}, expected (D*num_layers, B, H) = {shape}")
    if state.dtype != like.dtype:
        raise TypeError(f"{name}: dtype {state.dtype}, expected {like.dtype}, that of the layer")
