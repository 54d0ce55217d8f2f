"""Layers for serving: an immutable copy, and one that is fed step by step."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check
from fastrnn.layers.recurrent import RecurrentLayer
from fastrnn.module import positive_int


class Frozen:
    """
    An immutable copy of a layer, made by its `freeze`.

    It can be called from many threads at once, pickled, and streamed from; it has no gradients.
    """

    __slots__ = ("_layer",)

    def __init__(self, layer: RecurrentLayer):
        layer.grads.clear()
        for value in layer.params.values():
            value.flags.writeable = False
        object.__setattr__(self, "_layer", layer)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a frozen layer cannot be changed (setting {name!r}); freeze its source again")

    def __reduce__(self):
        return Frozen, (self._layer,)

    def __repr__(self) -> str:
        return f"Frozen({self._layer!r})"

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters by name."""
        return {name: value.copy() for name, value in self._layer.params.items()}

    def __call__(
        self, x: ArrayLike, state: Any = None, lengths: ArrayLike | None = None, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, Any]:
        """
        Run the layer.

        Parameters
        ----------
        x, state, lengths
            As for calling the layer it was frozen from.
        out : array shaped as y, optional
            Where to put `y`: writable, of the layer's dtype.

        Returns
        -------
        y, state
            As for the layer; `y` is `out` where that was given.

        Raises
        ------
        TypeError, ValueError
            For an argument of another dtype or shape, or out of range; the message names it.
        """
        layer = self._layer
        if out is not None:
            shape = (*np.shape(x)[:2], layer.directions * layer.hidden_size)
            if not isinstance(out, np.ndarray) or out.dtype != layer.dtype:
                raise TypeError(f"out: {getattr(out, 'dtype', type(out).__name__)}, expected an array of {layer.dtype}")
            if out.shape != shape:
                raise ValueError(f"out: shape {out.shape}, expected that of y, {shape}")
            if not out.flags.writeable:
                raise ValueError("out: read-only, expected a writable array")
        y, final = layer(x, state, lengths)
        if out is None:
            return y, final
        out[...] = y
        return out, final

    def stream(self, batch_size: int = 1) -> Stream:
        """
        Start a stream: the same layer, fed one time step at a time.

        Parameters
        ----------
        batch_size : int
            How many sequences run side by side.

        Returns
        -------
        Stream
            With a state of zeros.

        Raises
        ------
        ValueError
            For a bidirectional layer, which needs the end of a sequence before its start.
        """
        return Stream(self, batch_size)


class Stream:
    """
    A frozen layer with a state, fed step by step. For one thread at a time.

    Examples
    --------
    >>> s = layer.freeze().stream()
    >>> for x_t in signal:                     # each (1, I)
    ...     h = s.step(x_t)                    # (1, H)
    """

    def __init__(self, frozen: Frozen, batch_size: int = 1):
        layer = frozen._layer
        if layer.bidirectional:
            raise ValueError("stream: the layer is bidirectional, and the way back starts where a stream has no end")
        self._layer = layer
        self.batch_size = positive_int("batch_size", batch_size)
        shape = (layer.num_layers, self.batch_size, layer.hidden_size)
        self._states = [np.zeros(shape, layer.dtype) for _ in layer.state_names]

    def _as_users_see_it(self, states: list[np.ndarray]) -> Any:
        return tuple(states) if len(states) > 1 else states[0]

    def step(self, x_t: ArrayLike) -> np.ndarray:
        """
        Take one time step.

        Parameters
        ----------
        x_t : array (B, I)
            The input of this step.

        Returns
        -------
        array (B, H)
            The last layer's hidden state. Copy it to keep it: the next step may use the same memory.
        """
        layer = self._layer
        x_t = _check.shaped("x_t", x_t, layer.dtype, "(B, I)", (self.batch_size, layer.input_size), "the layer")
        axis = 1 if layer.batch_first else 0
        _, state = layer(np.expand_dims(x_t, axis), self._as_users_see_it(self._states))
        self._states = list(state) if isinstance(state, tuple) else [state]
        return self._states[0][-1]

    @property
    def state(self) -> Any:
        """A copy of the state, (num_layers, B, H), for an LSTM ``(h, c)``; assign one to continue from it."""
        return self._as_users_see_it([s.copy() for s in self._states])

    @state.setter
    def state(self, value: Any) -> None:
        parts = self._layer._states("state", value, self.batch_size)
        for mine, given in zip(self._states, parts, strict=True):
            mine[...] = 0 if given is None else given

    def reset(self, mask: ArrayLike | None = None) -> None:
        """
        Set the state to zeros.

        Parameters
        ----------
        mask : bool (B,), optional
            Which sequences to reset; None is all.
        """
        if mask is None:
            rows: Any = slice(None)
        else:
            rows = np.asarray(mask)
            if rows.dtype != bool or rows.shape != (self.batch_size,):
                raise ValueError(f"mask: {rows.dtype} {rows.shape}, expected bool (B,) = {(self.batch_size,)}")
        for s in self._states:
            s[:, rows] = 0
