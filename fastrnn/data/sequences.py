"""Sequences: padding them, masks of what is no padding, windows of a long one, parts in the order of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check

__all__ = ["create_mask", "pad_sequences", "time_split", "windows"]


def pad_sequences(
    sequences: Sequence[ArrayLike], value: float = 0.0, maxlen: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """
    Put sequences of different lengths side by side in one array.

    Parameters
    ----------
    sequences : N arrays (T_n, ...)
        Alike in all axes but the first.
    value : number
        What stands behind their ends.
    maxlen : int, optional
        How many steps to keep at most, the first ones, and how many the result has; None is the longest's.

    Returns
    -------
    x : array (N, T, ...)
        In the dtype that holds them all.
    lengths : integers (N,)
        How many steps of each are in it.

    Raises
    ------
    ValueError
        For no sequences at all, different shapes, or a value that their dtype cannot hold.
    """
    arrays = [_check.as_array(f"sequences[{n}]", sequence) for n, sequence in enumerate(sequences)]
    if not arrays or min(a.ndim for a in arrays) < 1:
        raise ValueError(f"sequences: {arrays or 'none'}, expected at least one, each with a first axis of steps")
    # [] is an empty sequence of anything, with neither a shape nor a dtype of its own
    full = [a for a in arrays if a.size] or arrays
    shape, dtype = full[0].shape[1:], np.result_type(*{a.dtype for a in full})
    for n, array in enumerate(arrays):
        if array.shape[1:] != shape and array.shape != (0,):
            raise ValueError(f"sequences[{n}]: shape {array.shape}, expected (T, ...) with ... = {shape}")
    T = max(map(len, arrays)) if maxlen is None else _check.positive_int("maxlen", maxlen)
    lengths = np.minimum([len(a) for a in arrays], T)
    with np.errstate(invalid="ignore"):
        padding = np.asarray(value).astype(dtype)
    if dtype.kind in "iub" and padding != value:
        raise ValueError(f"value: {value!r}, expected one that {dtype}, the dtype of the sequences, can hold")
    x = np.full((len(arrays), T, *shape), padding, dtype)
    for row, array, length in zip(x, arrays, lengths, strict=True):
        if length:
            row[:length] = array[:length]
    return x, lengths


def create_mask(lengths: ArrayLike, T: int | None = None) -> np.ndarray:
    """
    Which steps are no padding.

    Parameters
    ----------
    lengths : integers (N,)
        From 0 to T.
    T : int, optional
        How many steps there are; None is the largest length.

    Returns
    -------
    bool (N, T)
        True for the first ``lengths[n]`` steps of row n.

    Raises
    ------
    ValueError, TypeError
        For lengths that are no integers from 0 to `T`.
    """
    lengths = _check.as_array("lengths", lengths)
    if lengths.ndim != 1:
        raise ValueError(f"lengths: shape {lengths.shape}, expected (N,)")
    if T is None:
        T = int(lengths.max(initial=0)) if lengths.dtype.kind in "iu" else 0
    return np.arange(T) < _check.lengths_array(lengths, T, len(lengths))[:, None]


def windows(series: ArrayLike, length: int, horizon: int = 1, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """
    Cut a series into windows, and what follows each: the samples of a forecast.

    Parameters
    ----------
    series : array (S, F) or (S,)
        In the order of time; (S,) counts as one feature.
    length, horizon : int
        How many steps a window has, and how many are to be foretold.
    step : int
        How far each window begins after the one before.

    Returns
    -------
    x : array (N, length, F)
    y : array (N, horizon, F)
        Read-only views of the series, in which nothing is copied; N = (S - length - horizon) // step + 1.

    Raises
    ------
    ValueError
        If the series is too short for one window and its horizon.
    """
    sizes = {"length": length, "horizon": horizon, "step": step}
    length, horizon, step = (_check.positive_int(name, size) for name, size in sizes.items())
    series = _check.as_array("series", series)
    if series.ndim not in (1, 2):
        raise ValueError(f"series: shape {series.shape}, expected (S, F) or (S,)")
    if len(series) < length + horizon:
        raise ValueError(f"series: {len(series)} steps, expected at least {length + horizon}, length + horizon")
    series = series.reshape(len(series), -1) if series.ndim == 1 else series
    both = np.lib.stride_tricks.sliding_window_view(series, length + horizon, axis=0)[::step].transpose(0, 2, 1)
    return both[:, :length], both[:, length:]


def time_split(data: Any, fractions: Sequence[float]) -> list[Any]:
    """
    Cut samples into parts without shuffling, so that none of an earlier part is later than one of the next.

    Parameters
    ----------
    data : int, array, list, or tuple of arrays and lists
        Samples on the first axis, in the order of time. An int is only their number. The members of a tuple are cut
        at the same places.
    fractions : sequence of float
        What each part has of the whole, in sum 1: ``(0.7, 0.15, 0.15)`` for training, validation and test.

    Returns
    -------
    list
        One entry per part: a slice for an int, a piece of an array or a list, a tuple of pieces for a tuple.

    Raises
    ------
    ValueError
        For fractions not above 0 or not 1 in sum, members of different lengths, or a part without samples.
    """
    fractions = [float(f) for f in fractions]
    if not fractions or not all(f > 0 for f in fractions) or not math.isclose(sum(fractions), 1):
        raise ValueError(f"fractions: {fractions}, expected numbers above 0 whose sum is 1")
    members = data if isinstance(data, tuple) else (data,)
    counts = {data} if isinstance(data, int | np.integer) else {len(member) for member in members}
    if len(counts) != 1:
        raise ValueError(f"data: {sorted(counts)} samples, expected the same number in all")
    n = int(counts.pop())
    ends = [round(n * share) for share in np.cumsum(fractions)]
    cuts = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    if any(cut.start >= cut.stop for cut in cuts):
        raise ValueError(f"data: {n} samples, too few for parts of {fractions}")
    if isinstance(data, int | np.integer):
        return cuts
    pieces = [tuple(member[cut] for member in members) for cut in cuts]
    return pieces if isinstance(data, tuple) else [piece for (piece,) in pieces]
