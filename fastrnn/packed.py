"""Packed sequences as PyTorch has them: the valid steps of a ragged batch, and nothing between them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check

__all__ = ["PackedSequence", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence"]


class PackedSequence(NamedTuple):
    """
    The valid steps of a batch of sequences, all first steps, then all second ones, the longest sequence first in each.

    Made by `pack_padded_sequence` or `pack_sequence`; the layers take one as `x`.

    Attributes
    ----------
    data : array (N, ...)
        The N valid steps.
    batch_sizes : integers (T,)
        How many sequences have each step; none may have more than the one before it.
    sorted_indices : integers (B,) or None
        Which of the caller's sequences stands at each place in the order of length; None: they came in that order.
    unsorted_indices : integers (B,) or None
        The place of each of the caller's sequences: the inverse of the former.
    """

    data: np.ndarray
    batch_sizes: np.ndarray
    sorted_indices: np.ndarray | None = None
    unsorted_indices: np.ndarray | None = None


def pack_padded_sequence(
    x: ArrayLike, lengths: ArrayLike, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """
    Pack a padded batch.

    Parameters
    ----------
    x : array (T, B, ...), or (B, T, ...) with `batch_first`
        Of any dtype.
    lengths : integers (B,)
        The number of valid steps of each sequence, 1 to T.
    batch_first : bool
        Which of the two first axes of `x` is the batch.
    enforce_sorted : bool
        Whether to refuse lengths that do not descend; if not, the sequences are sorted, and the result says how.

    Returns
    -------
    PackedSequence
        With indices where `enforce_sorted` is False.

    Raises
    ------
    TypeError, ValueError
        For an `x` without the two axes or without sequences, and for lengths of another shape, out of range or in
        another order.
    """
    array = _check.as_array("x", x)
    if array.ndim < 2:
        raise ValueError(f"x: shape {array.shape}, expected {'(B, T, ...)' if batch_first else '(T, B, ...)'}")
    array = array.swapaxes(0, 1) if batch_first else array
    T, B = array.shape[:2]
    if B == 0:
        raise ValueError(f"x: shape {np.shape(x)}, expected at least one sequence")
    if lengths is None:
        raise TypeError("lengths: None, expected integers (B,)")
    lengths = _check.lengths_array(lengths, T, B)
    if lengths.min() < 1:
        raise ValueError(f"lengths: {lengths.min()} among them, expected 1 to T = {T}")
    order = None
    if not enforce_sorted:
        order = np.argsort(-lengths, kind="stable")
        lengths = lengths[order]
    elif np.any(np.diff(lengths) > 0):
        raise ValueError("lengths: not in descending order, expected that or enforce_sorted=False")
    batch_sizes = np.count_nonzero(np.arange(lengths[0])[:, None] < lengths, axis=1)
    packed = PackedSequence(array[:0], batch_sizes, order, None if order is None else np.argsort(order))
    return repacked(packed, array)


def pack_sequence(sequences: Iterable[ArrayLike], enforce_sorted: bool = True) -> PackedSequence:
    """
    Pack a list of sequences.

    Parameters
    ----------
    sequences : iterable of array (T_b, ...)
        Of one dtype, and of one shape but for their lengths, which are at least 1.
    enforce_sorted : bool
        As for `pack_padded_sequence`.

    Returns
    -------
    PackedSequence

    Raises
    ------
    TypeError, ValueError
        For no sequences, an empty one, one unlike the first, or lengths that do not descend.
    """
    arrays = [_check.as_array(f"sequences[{b}]", sequence) for b, sequence in enumerate(sequences)]
    if not arrays:
        raise ValueError("sequences: none, expected at least one")
    first = arrays[0]
    for b, array in enumerate(arrays):
        if array.ndim == 0 or len(array) == 0:
            raise ValueError(f"sequences[{b}]: shape {array.shape}, expected at least one step")
        if array.shape[1:] != first.shape[1:]:
            raise ValueError(f"sequences[{b}]: steps of shape {array.shape[1:]}, expected {first.shape[1:]} as before")
        if array.dtype != first.dtype:
            raise TypeError(f"sequences[{b}]: dtype {array.dtype}, expected {first.dtype} as before")
    lengths = [len(array) for array in arrays]
    padded = np.zeros((len(arrays), max(lengths), *first.shape[1:]), first.dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=enforce_sorted)


def pad_packed_sequence(
    packed: PackedSequence, batch_first: bool = False, padding_value: Any = 0.0, total_length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """
    Take a packed batch apart again; the inverse of `pack_padded_sequence`.

    Parameters
    ----------
    packed : PackedSequence
        With or without indices.
    batch_first : bool
        Which of the two first axes of the result is the batch.
    padding_value : number
        What stands past the sequences' ends.
    total_length : int, optional
        The T of the result, no less than the longest sequence; None is just that.

    Returns
    -------
    padded : array (T, B, ...), or (B, T, ...) with `batch_first`
        The sequences in the caller's order.
    lengths : integers (B,)
        Their lengths.

    Raises
    ------
    TypeError, ValueError
        For anything else than a PackedSequence whose parts fit together, or too small a `total_length`.
    """
    t, b, B = _checked_places(packed)
    T = len(packed.batch_sizes)
    if total_length is not None:
        if _check.positive_int("total_length", total_length) < T:
            raise ValueError(f"total_length: {total_length}, expected at least {T}, the longest sequence's")
        T = total_length
    data = np.asarray(packed.data)
    padded = np.full((T, B, *data.shape[1:]), padding_value, data.dtype)
    padded[t, b] = data
    return padded.swapaxes(0, 1) if batch_first else padded, np.bincount(b, minlength=B)


def unpacked(x: Any, lengths: Any, batch_first: bool) -> tuple[Any, Any, PackedSequence | None]:
    """The array and the lengths of a layer's `x` that may be packed, and it itself if it is."""
    if not isinstance(x, PackedSequence):
        return x, lengths, None
    if lengths is not None:
        raise ValueError("lengths: given beside a PackedSequence, expected None, for it has its own")
    return *pad_packed_sequence(x, batch_first), x


def repacked(packed: PackedSequence, padded: np.ndarray) -> PackedSequence:
    """The steps of a padded array (T, B, ...) at the places that `packed` has its own from."""
    t, b, _ = _places(packed)
    return packed._replace(data=padded[t, b])


def like_packed(name: str, value: Any, packed: PackedSequence) -> PackedSequence:
    """`value`, if it is packed as `packed` is."""
    if not isinstance(value, PackedSequence):
        raise TypeError(f"{name}: {type(value).__name__}, expected a PackedSequence as x was")
    if any(not np.array_equal(a, b) for a, b in zip(value[1:3], packed[1:3], strict=True)):
        raise ValueError(f"{name}: batch_sizes or indices of another batch, expected those of x")
    return value


def _places(packed: PackedSequence) -> tuple[np.ndarray, np.ndarray, int]:
    """The step and the caller's sequence of each row of the data; how many sequences there are."""
    sizes, B = packed.batch_sizes, int(packed.batch_sizes[0])
    t, b = np.nonzero(np.arange(B) < np.asarray(sizes)[:, None])
    return t, b if packed.sorted_indices is None else np.asarray(packed.sorted_indices)[b], B


def _checked_places(packed: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """As `_places`, of what a caller gave."""
    if not isinstance(packed, PackedSequence):
        raise TypeError(f"packed: {type(packed).__name__}, expected a PackedSequence")
    sizes = np.asarray(packed.batch_sizes)
    if sizes.ndim != 1 or not len(sizes) or sizes.dtype.kind not in "iu" or sizes[-1] < 1:
        raise ValueError(f"packed: batch_sizes {packed.batch_sizes!r}, expected integers (T,) from 1")
    if np.any(sizes[1:] > sizes[:-1]):
        raise ValueError(f"packed: batch_sizes {packed.batch_sizes!r}, expected none above the one before it")
    shape = np.shape(packed.data)
    if not shape or shape[0] != sizes.sum():
        raise ValueError(f"packed: data of shape {shape}, expected {sizes.sum()} rows, the sum of batch_sizes")
    order = packed.sorted_indices
    if order is not None and not np.array_equal(np.sort(order), np.arange(sizes[0])):
        raise ValueError(f"packed: sorted_indices {order!r}, expected each of 0 to {sizes[0] - 1} once")
    return _places(packed)
