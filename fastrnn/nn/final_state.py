"""What a recurrent layer knows at the end of a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check
from fastrnn.layers._merge import merged, parted
from fastrnn.layers.recurrent import RecurrentLayer
from fastrnn.module import Module


class FinalState(Module):
    """
    The hidden state of a recurrent layer's last layer after each sequence's last step.

    Of a bidirectional layer it holds both directions, each after it has seen the whole sequence, put together as the
    layer's `merge` says.

    Parameters
    ----------
    layer : RecurrentLayer
        `batch_first`, and not with ``merge=None``.

    Attributes
    ----------
    layer : RecurrentLayer
    """

    uses_lengths = True

    def __init__(self, layer: RecurrentLayer):
        super().__init__()
        if not isinstance(layer, RecurrentLayer):
            raise TypeError(f"layer: {type(layer).__name__}, expected a recurrent layer")
        if not layer.batch_first or layer.merge is None:
            raise ValueError(f"layer: {layer!r}, expected batch_first, and another merge than None")
        self.layer = layer

    def __call__(self, x: ArrayLike, lengths: ArrayLike | None = None) -> np.ndarray:
        """`y` (N, D*H), or (N, H) where directions are added up, of `x` (N, T, I); `lengths` are integers (N,)."""
        return self._of(self.layer(x, lengths=lengths)[1])[0]

    def forward(self, x: ArrayLike, lengths: ArrayLike | None = None) -> tuple[np.ndarray, tuple]:
        """`y`, and the cache for `backward`."""
        _, state, cache = self.layer.forward(x, lengths=lengths)
        y, ends = self._of(state)
        return y, (cache, ends, len(_parts(state)[0]))

    def backward(self, cache: tuple, dy: ArrayLike) -> np.ndarray:
        """Add into the gradients of the layer; return that with respect to `x`."""
        inner, ends, count = cache
        width = self.layer.output_size
        dy = _check.shaped("dy", dy, self.layer.dtype, "that of y", (ends[0].shape[1], width), "the layer")
        dh = np.zeros((count, *ends[0].shape[1:]), self.layer.dtype)
        dh[-len(ends) :] = np.concatenate(parted(self.layer.merge, dy[None], ends))
        several = len(self.layer.state_names) > 1
        return self.layer.backward(inner, None, (dh, None) if several else dh)[0]

    def _of(self, state: Any) -> tuple[np.ndarray, list[np.ndarray]]:
        """`y`, and the last layer's h of each direction, (1, N, H)."""
        h = _parts(state)[0]
        ends = np.split(h[-self.layer.directions :], self.layer.directions)
        return merged(self.layer.merge, ends)[0], ends


def _parts(state: Any) -> tuple:
    return state if isinstance(state, tuple) else (state,)
