"""Layers for serving: an immutable copy, and one that is fed step by step."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check, _settings, _sharing
from fastrnn._compiled import bias_sum, gru_bias
from fastrnn._core import stack
from fastrnn._core.cell import Cell
from fastrnn._core.matrix import Matrix
from fastrnn._core.plan import Plan
from fastrnn._core.stream import Stepper
from fastrnn._products import BlasProducts
from fastrnn.packed import PackedSequence, unpacked

if TYPE_CHECKING:
    from fastrnn.layers.recurrent import RecurrentLayer


def _stack_layers(layer: RecurrentLayer, isa: str, packed: bool) -> list[stack.Layer]:
    """The layers as `_core.stack` takes them: forward directions, which know their reverse ones."""
    options = {"rnn": "nonlinearity", "gru": "reset_after"}
    kind = layer.cell
    if kind in options:
        value = getattr(layer, options[kind])
        kind += f"-{value}" if kind == "rnn" else "-after" if value else "-before"
    result = []
    for k in range(layer.num_layers):
        direction = None
        for suffix in reversed(layer._suffixes(k)):
            w_ih, w_hh, b_ih, b_hh = layer._weights(suffix)
            bias = (gru_bias if layer.cell == "gru" else bias_sum)(b_ih, b_hh, w_hh)
            cell = Cell(kind, isa, bias, w_hh) if packed else BlasProducts().cell(kind, isa, w_hh, bias, 1, 1)
            direction = stack.Layer(Matrix(w_ih, isa=isa if packed else None), cell, direction)
        result.append(direction)
    return result


def _of_the_layer(name: str) -> property:
    return property(lambda self: getattr(self._layer, name), doc=f"The layer's `{name}`.")


class Frozen:
    """
    An immutable copy of a layer, made by its `freeze`.

    It can be called from many threads at once, pickled, and streamed from; it has no gradients. Its sizes have the
    layer's names: `input_size`, `hidden_size`, `output_size`, `num_layers`, `bidirectional`, `batch_first`, `dtype`.
    """

    __slots__ = ("_from_zeros", "_layer", "_packs", "_plain", "_stacks")

    def __init__(self, layer: RecurrentLayer):
        layer = copy.deepcopy(layer)
        layer.grads.clear()
        for name, value in layer.params.items():
            layer.params[name] = np.ascontiguousarray(value)  # as the kernels read them
            layer.params[name].flags.writeable = False
        layer.varies = layer.varies_when_called  # what is plain but for dropout in training is packed as plain ones are
        layer.stateful, layer._remembered = False, None  # many threads may call it: a stream has the state
        object.__setattr__(self, "_layer", layer)
        object.__setattr__(self, "_stacks", {})
        # `_core.stack` has the directions write side by side
        object.__setattr__(self, "_packs", layer.merge == "concat" and not layer.varies)
        # and takes x and a state as they come, and, unless it has learned one, no state
        object.__setattr__(self, "_plain", not layer.batch_first)
        object.__setattr__(self, "_from_zeros", not layer.learn_initial_state)
        if self._packs and _settings.engine() == "native":
            self._packed(_settings.isa())

    def _packed(self, isa: str) -> stack.Stack:
        """The weights packed for an instruction set, once."""
        known = self._stacks.get(isa)
        if known is None:  # two threads here at once pack the same
            known = self._stacks[isa] = stack.Stack(_stack_layers(self._layer, isa, True), _sharing.passing)
        return known

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a frozen layer cannot be changed (setting {name!r}); freeze its source again")

    input_size, hidden_size, output_size, num_layers, bidirectional, batch_first, dtype = map(
        _of_the_layer,
        ("input_size", "hidden_size", "output_size", "num_layers", "bidirectional", "batch_first", "dtype"),
    )

    def __reduce__(self):
        return Frozen, (self._layer,)

    def __repr__(self) -> str:
        return f"Frozen({self._layer!r})"

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters by name."""
        return {name: value.copy() for name, value in self._layer.params.items()}

    def __call__(
        self,
        x: ArrayLike,
        state: Any = None,
        lengths: ArrayLike | None = None,
        out: np.ndarray | None = None,
        *,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
    ) -> tuple[np.ndarray, Any]:
        """
        Run the layer.

        Parameters
        ----------
        x, state, lengths
            As for calling the layer it was frozen from; of a stateful layer, too, no state is zeros.
        out : array shaped as y, optional
            Where to put `y`: writable, of the layer's dtype; with `merge=None` a tuple of two. Not for a
            PackedSequence.
        mask, reset
            As for calling the layer. With resets it is the layer that runs, which packs its weights for the call.

        Returns
        -------
        y, state
            As for the layer; `y` is `out` where that was given.

        Raises
        ------
        TypeError, ValueError
            For an argument of another dtype or shape, or out of range; the message names it.
        """
        engine, isa = _settings.resolve()
        if engine != "native" or not self._packs or reset is not None:
            return self._run_layer(x, state, lengths, out, mask, reset)
        packed = self._stacks.get(isa) or self._packed(isa)
        if self._plain and lengths is None and mask is None and (self._from_zeros or state is not None):
            done = packed.run(x, state, None, out)
            if done is not None:
                return done
        return self._run_checked(packed, x, state, lengths, out, mask)

    def _check_out(self, out: Any, x: Any) -> None:
        layer = self._layer
        if isinstance(x, PackedSequence):
            raise TypeError("out: given beside a PackedSequence, expected None")
        if layer.merge is None and not (isinstance(out, tuple) and len(out) == 2):
            raise TypeError(f"out: {type(out).__name__}, expected the tuple (forward, backward)")
        for part in out if layer.merge is None else (out,):
            _check.output(part, layer.dtype, (*np.shape(x)[:2], layer.output_size))

    def _run_layer(
        self, x: ArrayLike, state: Any, lengths: Any, out: np.ndarray | None, mask: Any, reset: Any
    ) -> tuple:
        """What calling gives, by the layer, for the other engines and for resets."""
        if out is not None:
            self._check_out(out, x)
        y, final, _ = self._layer._run(x, state, lengths, False, mask=mask, reset=reset)
        if out is None:
            return y, final
        for to, part in zip(out, y, strict=True) if self._layer.merge is None else [(out, y)]:
            to[...] = part
        return out, final

    def _run_checked(
        self, weights: stack.Stack, x: ArrayLike, state: Any, lengths: Any, out: np.ndarray | None, mask: Any
    ) -> tuple:
        """What calling gives, for any arguments that can be made plain, with an error for those that cannot."""
        layer = self._layer
        if out is not None:
            self._check_out(out, x)
        x, lengths, packed = unpacked(x, lengths, layer.batch_first)
        plain = np.require(layer._input(x), layer.dtype, ["C", "A"])
        T, B, _ = plain.shape
        parts, _ = layer._start(state, B)
        shape = (layer.directions * layer.num_layers, B, layer.hidden_size)
        parts = [np.zeros(shape, layer.dtype) if part is None else part for part in parts]
        lengths = _check.lengths_array(lengths, T, B)
        mask = layer._flags("mask", mask, T, B)
        plans = None
        if lengths is not None or mask is not None:
            plans = [Plan(T, B, lengths, reverse, mask) for reverse in (False, True)[: layer.directions]]
            parts = [plans[0].sort_states(part) for part in parts]
        start = tuple(np.ascontiguousarray(part) for part in parts)
        y, final = weights.run(plain, start if len(start) > 1 else start[0], plans, None)
        if plans is not None:
            final = final if isinstance(final, tuple) else (final,)
            final = tuple(plans[0].unsort_states(part) for part in final)
            final = final if len(final) > 1 else final[0]
        y = layer._output(y, packed)
        if out is not None:
            out[...] = y
            y = out
        return y, final

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
            With a state of zeros, or the one that the layer has learned to start from.

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
    >>> s = fastrnn.LSTM(3, 4, rng=0).freeze().stream()
    >>> for x_t in np.ones((5, 1, 3), np.float32):  # each (1, I)
    ...     h = s.step(x_t)  # (1, H)
    >>> h.shape
    (1, 4)
    """

    def __init__(self, frozen: Frozen, batch_size: int = 1):
        layer = frozen._layer
        if layer.bidirectional:
            raise ValueError("stream: the layer is bidirectional, and the way back starts where a stream has no end")
        self._layer = layer
        self.batch_size = _check.positive_int("batch_size", batch_size)
        self._stepper = self._states = None
        if _settings.engine() == "reference" or layer.varies:
            shapes = [(self.batch_size, layer._state_width(name)) for name in layer.state_names]
            self._states = [[np.zeros(shape, layer.dtype) for shape in shapes] for _ in range(layer.num_layers)]
        else:
            isa = _settings.isa()
            native = _settings.engine() == "native"
            layers = frozen._packed(isa).layers if native else _stack_layers(layer, isa, packed=False)
            self._stepper = Stepper(layers, self.batch_size, layer.dtype)
        self.reset()

    def __repr__(self) -> str:
        return f"Stream({self._layer!r}, batch_size={self.batch_size})"

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
        return self._states if self._stepper is None else self._stepper.states

    @property
    def state(self) -> Any:
        """A copy of the state, (num_layers, B, H), for an LSTM ``(h, c)``; assign one to continue from it."""
        return self._layer._packed_state(self._parts())

    @state.setter
    def state(self, value: Any) -> None:
        given, _ = self._layer._start(value, self.batch_size)
        for k, mine in enumerate(self._parts()):
            for s, part in zip(mine, given, strict=True):
                s[...] = 0 if part is None else part[k]

    def reset(self, mask: ArrayLike | None = None) -> None:
        """
        Set the state to what it was at first.

        Parameters
        ----------
        mask : bool (B,), optional
            Which sequences to reset; None is all.
        """
        if mask is None:
            rows: Any = slice(None)
        else:
            rows = _check.batch_mask("mask", mask, self.batch_size)
        for k, parts in enumerate(self._parts()):
            for name, s in zip(self._layer.state_names, parts, strict=True):
                s[rows] = self._layer.params.get(f"{name}0_l{k}", 0)
