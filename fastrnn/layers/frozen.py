"""Layers for serving: an immutable copy, and one that is fed step by step."""

from __future__ import annotations

import copy
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check, _settings
from fastrnn._blas_threads import STEP_SERIAL_BELOW
from fastrnn._compiled import BLOCK_BYTES, bias_sum, gru_bias
from fastrnn._core import stack
from fastrnn._core.memory import empty
from fastrnn._products import ROWS, BlasProducts, PreparedProducts
from fastrnn._team import SHARE_FROM, share
from fastrnn.functional import prefers_blas
from fastrnn.layers.recurrent import RecurrentLayer
from fastrnn.module import positive_int


def _stack_weights(layer: RecurrentLayer, products: BlasProducts) -> list[stack.Weights]:
    """The weights of a layer of one direction as `_core.stack` takes them."""
    options = {"rnn": "nonlinearity", "gru": "reset_after"}
    cell = layer.cell
    if cell in options:
        value = getattr(layer, options[cell])
        cell += f"-{value}" if cell == "rnn" else "-after" if value else "-before"
    result = []
    for k in range(layer.num_layers):
        w_ih, w_hh, b_ih, b_hh = layer._weights(f"_l{k}")
        bias = (gru_bias if layer.cell == "gru" else bias_sum)(b_ih, b_hh, w_hh)
        parts = [w_hh]
        if cell == "gru-before":
            parts = [w_hh[: 2 * layer.hidden_size], w_hh[2 * layer.hidden_size :]]
        matrices = [products.recurrent(w, 1, 1) for w in (w_ih, *parts)]
        result.append(stack.Weights(cell, *matrices, *[None] * (3 - len(matrices)), bias))
    return result


class _Prepared:
    """A frozen layer's weights, packed for an instruction set."""

    def __init__(self, layer: RecurrentLayer, isa: str):
        weights = [w for w in layer.params.values() if w.ndim == 2]
        self.size = sum(w.size for w in weights)
        self.products = PreparedProducts(isa, weights)
        self.stack = None if layer.bidirectional else _stack_weights(layer, self.products)
        # Chosen here and not by each call, which would take it a microsecond.
        self.run = stack.run["float" if layer.dtype == np.float32 else "double"]


class Frozen:
    """
    An immutable copy of a layer, made by its `freeze`.

    It can be called from many threads at once, pickled, and streamed from; it has no gradients.
    """

    __slots__ = ("_layer", "_prepared")

    def __init__(self, layer: RecurrentLayer):
        layer = copy.deepcopy(layer)
        layer.grads.clear()
        for value in layer.params.values():
            value.flags.writeable = False
        object.__setattr__(self, "_layer", layer)
        object.__setattr__(self, "_prepared", {})
        if _settings.engine() == "native":
            self._prepare(_settings.isa())

    def _prepare(self, isa: str) -> _Prepared:
        """The weights packed for an instruction set, once."""
        known = self._prepared.get(isa)
        if known is None:  # two threads here at once pack the same
            known = self._prepared[isa] = _Prepared(self._layer, isa)
        return known

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
            self._check_out(out, x)
        products = None
        engine, isa = _settings.resolve()
        if engine == "native":
            prepared = self._prepare(isa)
            if lengths is None and type(x) is np.ndarray and x.ndim == 3:
                done = self._run_stack(prepared, x, state, out)
                if done is not None:
                    return done
            batch = np.shape(x)[0 if layer.batch_first else 1] if np.ndim(x) == 3 else 0
            if not prefers_blas(batch, layer.params["weight_hh_l0"]):
                products = prepared.products
        y, final, _ = layer._run(x, state, lengths, False, products)
        if out is None:
            return y, final
        out[...] = y
        return out, final

    def _check_out(self, out: Any, x: Any) -> None:
        layer = self._layer
        shape = (*np.shape(x)[:2], layer.directions * layer.hidden_size)
        if not isinstance(out, np.ndarray) or out.dtype != layer.dtype:
            raise TypeError(f"out: {getattr(out, 'dtype', type(out).__name__)}, expected an array of {layer.dtype}")
        if out.shape != shape:
            raise ValueError(f"out: shape {out.shape}, expected that of y, {shape}")
        if not out.flags.writeable:
            raise ValueError("out: read-only, expected a writable array")

    def _run_stack(self, prepared: _Prepared, x: np.ndarray, state: Any, out: np.ndarray | None) -> tuple | None:
        """What calling gives, by one compiled call for each thread; None for what that does not do."""
        layer = self._layer
        if layer.batch_first:
            x = x.transpose(1, 0, 2)
        T, B, I = x.shape
        if prepared.stack is None or layer.input_size != I or x.dtype != layer.dtype or not x.flags.c_contiguous:
            return None
        work = T * B * prepared.size
        if work >= STEP_SERIAL_BELOW and prefers_blas(B, layer.params["weight_hh_l0"]):
            return None
        shape = (layer.num_layers, B, layer.hidden_size)
        if state is None:
            states = [np.zeros(shape, layer.dtype) for _ in layer.state_names]
        else:
            several = len(layer.state_names) > 1 and isinstance(state, tuple | list)
            parts = state if several else (state,)
            if len(parts) != len(layer.state_names) or not all(
                type(part) is np.ndarray and part.shape == shape and part.dtype == layer.dtype for part in parts
            ):
                return None  # which says what is wrong, or converts it
            states = [part.copy() for part in parts]
        plain = out is not None and not layer.batch_first and out.flags.c_contiguous
        direct = plain and not np.may_share_memory(out, x)
        y = out if direct else empty((T, B, layer.hidden_size), layer.dtype)
        isa = prepared.products.isa

        def part(b0: int, b1: int) -> None:
            if b1 - b0 == B:
                prepared.run(isa, prepared.stack, x, states, y, BLOCK_BYTES)
                return
            # Sequences do not meet: each thread runs its own through the whole stack, and nobody waits.
            mine = [np.ascontiguousarray(s[:, b0:b1]) for s in states]
            y_mine = empty((T, b1 - b0, layer.hidden_size), layer.dtype)
            prepared.run(isa, prepared.stack, np.ascontiguousarray(x[:, b0:b1]), mine, y_mine, BLOCK_BYTES)
            y[:, b0:b1] = y_mine
            for s, s_mine in zip(states, mine, strict=True):
                s[:, b0:b1] = s_mine

        if work < 2 * SHARE_FROM:
            part(0, B)
        else:
            share(part, B, work, ROWS)
        if not direct:
            y = layer._output(y)
            if out is not None:
                out[...] = y
                y = out
        return y, tuple(states) if len(states) > 1 else states[0]

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
        shape = (self.batch_size, layer.hidden_size)
        self._stepper = self._states = None
        if _settings.engine() == "reference":
            self._states = [[np.zeros(shape, layer.dtype) for _ in layer.state_names] for _ in range(layer.num_layers)]
        else:
            isa = _settings.isa()
            if _settings.engine() == "native":
                weights = frozen._prepare(isa).stack
            else:
                weights = _stack_weights(layer, BlasProducts())
            self._stepper = stack.Stepper(isa, [stack.Layer(w, self.batch_size) for w in weights], layer.dtype)

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
            The last layer's hidden state. Copy it to keep it: the next steps use the same memory.
        """
        if self._stepper is not None:
            h = self._stepper.step(x_t)
            if h is not None:
                return h
        layer = self._layer
        shape = (self.batch_size, layer.input_size)
        x_t = _check.shaped("x_t", x_t, layer.dtype, "(B, I)", shape, "the layer")
        if self._stepper is not None:
            return self._stepper.step(x_t)  # it was not contiguous, or not in native byte order
        states = layer._packed_state(self._states)
        _, end = layer(np.expand_dims(x_t, 1 if layer.batch_first else 0), states)
        for k, mine in enumerate(self._states):
            for s, part in zip(mine, end if isinstance(end, tuple) else (end,), strict=True):
                s[...] = part[k]
        return self._states[-1][0]

    def _parts(self) -> list[list[np.ndarray]]:
        """The arrays of the state, of each layer."""
        return self._states if self._stepper is None else [layer.state for layer in self._stepper.layers]

    @property
    def state(self) -> Any:
        """A copy of the state, (num_layers, B, H), for an LSTM ``(h, c)``; assign one to continue from it."""
        return self._layer._packed_state(self._parts())

    @state.setter
    def state(self, value: Any) -> None:
        given = self._layer._states("state", value, self.batch_size)
        for k, mine in enumerate(self._parts()):
            for s, part in zip(mine, given, strict=True):
                s[...] = 0 if part is None else part[k]

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
        for parts in self._parts():
            for s in parts:
                s[rows] = 0
