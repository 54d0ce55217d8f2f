"""What `fit` trains and validates on: samples of one length or of many, cut into batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastrnn import _check
from fastrnn.data.sequences import create_mask, pad_sequences, time_split

POOL = 16  # batches that are sorted by length together: padding becomes little, and what meets what is still chance


class Batch(NamedTuple):
    """Some samples, padded; `options` is what the model gets besides x, `mask` (N, T) says where y is no padding."""

    x: np.ndarray
    y: np.ndarray
    options: dict[str, np.ndarray]
    mask: np.ndarray | None

    @property
    def weight(self) -> int:
        """How many samples, or steps that are no padding, a mean over this batch stands for."""
        return len(self.y) if self.mask is None else int(self.mask.sum())

    def compared(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outputs and targets without padding, as losses and metrics take them."""
        return (outputs, self.y) if self.mask is None else (outputs[self.mask], self.y[self.mask])

    def scattered(self, d: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """The gradient with respect to `outputs`, of one with respect to those compared."""
        if self.mask is None:
            return d
        whole = np.zeros_like(outputs)
        whole[self.mask] = d
        return whole


class Samples:
    """
    x and y with samples on axis 0.

    A list as x is of sequences of different lengths; y may then be a list of as many steps each. Errors begin with
    `prefix`.
    """

    def __init__(self, x: Any, y: Any, lengths: Any = None, prefix: str = ""):
        self.ragged = isinstance(x, list)
        self.x = [np.asarray(one) for one in x] if self.ragged else _check.as_array(f"{prefix}x", x)
        tagged = isinstance(y, list) and len(y) > 0 and np.ndim(y[0]) > 0
        self.y = [np.asarray(one) for one in y] if tagged else _check.as_array(f"{prefix}y", y)
        for name, value in (("x", self.x), ("y", self.y)):
            shapes = {one.shape[1:] if one.ndim else None for one in (value if isinstance(value, list) else [value])}
            if len(shapes) != 1 or None in shapes or not len(value):
                each = "sequences (T, ...) with the same ..." if isinstance(value, list) else "an array (N, ...)"
                raise ValueError(f"{prefix}{name}: shapes {shapes or 'none'}, expected {each}, and at least one sample")
        if len(self.x) != len(self.y):
            raise ValueError(f"{prefix}y: {len(self.y)} samples, expected {len(self.x)} as in x")
        if tagged and (not self.ragged or [*map(len, self.x)] != [*map(len, self.y)]):
            raise ValueError(f"{prefix}y: a list of sequences, expected an array, or the steps of x, a list too")
        if self.ragged and lengths is not None:
            raise ValueError(f"{prefix}lengths: given with a list, expected None, for its sequences have their own")
        if lengths is not None and self.x.ndim < 2:
            raise ValueError(f"{prefix}lengths: given with x of shape {self.x.shape}, expected (N, T, ...)")
        self.lengths = lengths
        if self.ragged:
            self.lengths = np.array([*map(len, self.x)])
        elif lengths is not None:
            self.lengths = _check.lengths_array(lengths, self.x.shape[1], len(self.x))

    def __len__(self) -> int:
        return len(self.x)

    def split(self, fraction: float) -> tuple[Samples, Samples]:
        """The samples without their last part, and that part."""
        given = None if self.ragged else self.lengths
        members = (self.x, self.y) if given is None else (self.x, self.y, given)
        first, last = time_split(members, (1 - fraction, fraction))
        return Samples(*first), Samples(*last)

    def batches(self, size: int, rng: np.random.Generator | None = None, buckets: bool = False) -> Iterator[Batch]:
        """All samples, `size` at a time: in their order, or in one of chance, with `buckets` of like lengths."""
        order = np.arange(len(self)) if rng is None else rng.permutation(len(self))
        if not (buckets and self.ragged):
            starts = range(0, len(self), size)
        else:
            for start in range(0, len(self), POOL * size):
                pool = order[start : start + POOL * size]
                pool[:] = pool[np.argsort(self.lengths[pool], kind="stable")]
            starts = np.arange(0, len(self), size)
            if rng is not None:
                rng.shuffle(starts)
        for start in starts:
            yield self._batch(order[start : start + size])

    def _batch(self, chosen: np.ndarray) -> Batch:
        options = {} if self.lengths is None else {"lengths": self.lengths[chosen]}
        x = pad_sequences([self.x[n] for n in chosen])[0] if self.ragged else self.x[chosen]
        if isinstance(self.y, list):
            return Batch(x, pad_sequences([self.y[n] for n in chosen])[0], options, create_mask(options["lengths"]))
        return Batch(x, self.y[chosen], options, None)
