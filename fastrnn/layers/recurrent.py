"""What RNN, LSTM and GRU layers share: parameters, stacking, directions, dropout between layers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn import _check
from fastrnn._core.memory import Workspace, working_in
from fastrnn.layers._initial_state import InitialState
from fastrnn.layers._merge import MODES, merged, parted
from fastrnn.layers.frozen import Frozen
from fastrnn.module import float_dtype
from fastrnn.packed import PackedSequence, like_packed, pad_packed_sequence, repacked, unpacked

Seed = int | np.random.Generator | None


class LayerCache:
    """What a layer's forward keeps for its backward: opaque, good for one use with the layer that made it."""

    __slots__ = ("B", "cell_states", "cells", "layer", "learned", "masks", "packed", "trace", "workspace")

    def __init__(self, layer: RecurrentLayer, B: int, workspace: Workspace | None = None):
        self.layer = layer
        self.B = B
        self.workspace = workspace
        self.cells: list[list[Any]] | None = []  # [layer][direction]
        self.masks: list[np.ndarray | None] = []  # [layer]: what its input was multiplied with
        self.learned: list[str] = []  # the states that began as parameters
        self.packed: PackedSequence | None = None  # x, where it was one
        self.cell_states: np.ndarray | None = None  # of the last layer, as the caller wants them
        self.trace: list[list[dict[str, np.ndarray]]] | None = None  # [layer][direction], if it is asked for


class RecurrentLayer(InitialState):
    """
    A stack of cells: what the layers that users see, `RNN`, `LSTM`, `GRU` and others, have in common.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, at least 1.
    num_layers : int
        How many layers are stacked.
    bias : bool
        Whether there are biases.
    batch_first : bool
        Whether `x` and `y` are (B, T, ...) and not (T, B, ...). The state never is.
    dropout : float
        The probability with which `forward` drops each output of every layer but the last.
    bidirectional : bool
        Whether each layer also runs from the sequences' ends; `merge` says what becomes of the two outputs.
    merge : {"concat", "sum", "mul", "ave", None}
        What a bidirectional layer, every one of a stack, makes of its directions' outputs: side by side, forward first,
        as in PyTorch (2H wide), or element by element their sum, product or mean (H wide). None, for a single layer:
        `y` is the tuple ``(forward, backward)``, and so is the `dy` of `backward`.
    stateful : bool
        Whether a call without a state starts from where the last one ended; see `state` and `reset_state`.
    learn_initial_state : bool
        Whether a call without a state starts from parameters, the same for each sequence, and not from zeros.
    dtype : {float32, float64}
        Of the parameters, and of every array that goes in and out.
    rng : int, numpy.random.Generator or None
        The source of the initial parameters, uniform in +-1/sqrt(H), and of dropout; an int is a seed.

    Attributes
    ----------
    weight_ih_l{k}, weight_hh_l{k}, bias_ih_l{k}, bias_hh_l{k} : array
        The parameters of layer k, gate blocks as in `torch.nn`; with ``_reverse`` behind, those of the other direction.
    h0_l{k}, c0_l{k} : array (H,)
        With `learn_initial_state`: what h, and an LSTM's c, starts from; zeros at first. ``_reverse`` as above.
    params, grads : dict of str to array
        All of them by name, and the gradients that `backward` adds up.
    """

    uses_lengths = True
    cell: str  # "rnn", "lstm", "gru"
    varies = False  # whether its cells are others than the plain ones
    varies_when_called = False  # and not in training alone
    state_names: tuple[str, ...] = ("h",)
    # Parameters, and which of the cell's arguments each is; in the order of both.
    weights = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}  # noqa: RUF012

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        merge: str | None = "concat",
        stateful: bool = False,
        learn_initial_state: bool = False,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ):
        super().__init__()
        self.input_size = _check.positive_int("input_size", input_size)
        self.hidden_size = _check.positive_int("hidden_size", hidden_size)
        self.num_layers = _check.positive_int("num_layers", num_layers)
        self.bias, self.batch_first, self.bidirectional = bool(bias), bool(batch_first), bool(bidirectional)
        self.merge = _check.choice("merge", merge, MODES)
        if merge != "concat" and not self.bidirectional:
            raise ValueError(f"merge: {merge!r}, expected 'concat' for a layer that is not bidirectional")
        if merge is None and self.num_layers > 1:
            raise ValueError(f"merge: None, expected one output for the layer above, with num_layers = {num_layers}")
        self._init_initial_state(stateful, learn_initial_state)
        self.dropout = float(dropout)
        if not 0 <= self.dropout <= 1:  # False for NaN too
            raise ValueError(f"dropout: {dropout!r}, expected a probability from 0 to 1")
        if self.dropout and self.num_layers == 1:
            above = type(self).__mro__[: type(self).__mro__.index(RecurrentLayer)]
            calls = sum("__init__" in vars(kind) for kind in above)  # between this and the line that makes the layer
            warnings.warn("dropout: it acts between layers, and num_layers is 1", stacklevel=2 + calls)
        self.dtype = float_dtype(dtype)
        self.rng = np.random.default_rng(rng)
        bound = 1 / math.sqrt(self.hidden_size)
        for k in range(self.num_layers):
            width = self.input_size if k == 0 else self.output_size
            for suffix in self._suffixes(k):
                for name, shape in self._shapes(width).items():
                    self.add_parameter(name + suffix, self._initial(name, shape, bound))
                for name in self.state_names if self.learn_initial_state else ():
                    self.add_parameter(f"{name}0{suffix}", np.zeros(self._state_width(name), self.dtype))

    @property
    def directions(self) -> int:
        """2 for a bidirectional layer, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """The width of `y`: H, or 2H where two directions stand side by side."""
        return self._state_width("h") * (self.directions if self.merge == "concat" else 1)

    def _state_width(self, name: str) -> int:
        """The units of a state."""
        return self.hidden_size

    def _shapes(self, width: int) -> dict[str, tuple[int, ...]]:
        """Those of the parameters of one layer and direction whose input has this width."""
        rows = _check.GATES[self.cell] * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, width), "weight_hh": (rows, self.hidden_size)}
        return shapes | {"bias_ih": (rows,), "bias_hh": (rows,)} if self.bias else shapes

    def _initial(self, name: str, shape: tuple[int, ...], bound: float) -> np.ndarray:
        """What a parameter begins as."""
        return self.rng.uniform(-bound, bound, shape).astype(self.dtype)

    def _options(self) -> dict[str, Any]:
        """The cell's own keyword arguments."""
        return {}

    def _functions(self) -> tuple[Any, Any]:
        """The cell's forward and backward functions."""
        raise NotImplementedError

    def _suffixes(self, k: int) -> list[str]:
        return [f"_l{k}", f"_l{k}_reverse"][: self.directions]

    def __repr__(self) -> str:
        parts = [str(self.input_size), str(self.hidden_size)]
        parts += [f"num_layers={self.num_layers}"] if self.num_layers > 1 else []
        parts += self._described()
        parts += [name for name in ("batch_first", "bidirectional") if getattr(self, name)]
        parts += [f"merge={self.merge!r}"] if self.merge != "concat" else []
        parts += [name for name in ("stateful", "learn_initial_state") if getattr(self, name)]
        parts += ["bias=False"] if not self.bias else []
        parts += [f"dropout={self.dropout}"] if self.dropout else []
        return f"{type(self).__name__}({', '.join(parts)}, dtype={self.dtype})"

    def _described(self) -> list[str]:
        return [f"{name}={value!r}" for name, value in self._options().items()]

    # --- shapes in and out ---------------------------------------------------------------------------------------

    def _input(self, x: ArrayLike) -> np.ndarray:
        """`x` checked and time-major."""
        array = _check.layer_input(x, self.input_size, self.batch_first, self.dtype)
        return array.transpose(1, 0, 2) if self.batch_first else array

    def _output(self, y: Any, packed: PackedSequence | None = None) -> Any:
        """A time-major array, or two, as the caller wants them: packed where `x` was."""
        if isinstance(y, tuple):
            return tuple(self._output(part, packed) for part in y)
        if packed is not None:
            return repacked(packed, y)
        return y.transpose(1, 0, 2) if self.batch_first else y

    def _output_gradient(
        self, name: str, dy: Any, T: int, B: int, packed: PackedSequence | None, *, width: int | None = None
    ) -> np.ndarray:
        """`dy`, or one of a tuple of two, or those of cell states, checked and time-major."""
        if packed is not None and dy is not None:
            dy, _ = pad_packed_sequence(like_packed(name, dy, packed), self.batch_first)
        sides = self.merge == "concat" or width is not None
        width = self.output_size if width is None else width
        shape = (B, T, width) if self.batch_first else (T, B, width)
        axes = ("(B, T, " if self.batch_first else "(T, B, ") + ("D*H)" if sides else "H)")
        if dy is None:
            dy = np.zeros(shape, self.dtype)
        return self._output(_check.shaped(name, dy, self.dtype, axes, shape, "the layer"))

    def _states(self, name: str, state: Any, B: int) -> list[np.ndarray | None]:
        """A state argument as one (D*num_layers, B, H) array per state of the cell, or None for zeros."""
        several = len(self.state_names) > 1
        if state is None:
            return [None] * len(self.state_names)
        if several and not (isinstance(state, tuple | list) and len(state) == len(self.state_names)):
            raise TypeError(f"{name}: {type(state).__name__}, expected the tuple ({', '.join(self.state_names)})")
        found: list[np.ndarray | None] = []
        for k, (which, part) in enumerate(zip(self.state_names, state if several else (state,), strict=True)):
            shape = (self.directions * self.num_layers, B, self._state_width(which))
            called = f"{name}[{k}]" if several else name
            axes = "(D*num_layers, B, H)"
            found.append(None if part is None else _check.shaped(called, part, self.dtype, axes, shape, "the layer"))
        return found

    def _flags(self, name: str, value: Any, T: int, B: int) -> np.ndarray | None:
        """A mask or resets, time-major."""
        if value is None or not self.batch_first:
            return _check.flags_array(name, value, "(T, B)", (T, B))
        array = _check.flags_array(name, value, "(B, T)", (B, T))
        return None if array is None else np.ascontiguousarray(array.T)

    def _has_cell_states(self, name: str) -> None:
        if "c" not in self.state_names:
            raise ValueError(f"{name}: given to {self.cell.upper()}, expected an LSTM, for no other layer has them")

    def _packed_state(self, parts: list[list[np.ndarray]]) -> Any:
        """Per layer and direction a list of states -> the state as users see it."""
        alone = len(parts) == 1  # the usual case, and np.stack takes 6 us
        stacked = tuple(arrays[0][None] if alone else np.stack(arrays) for arrays in zip(*parts, strict=True))
        return stacked if len(stacked) > 1 else stacked[0]

    # --- running -------------------------------------------------------------------------------------------------

    def _weights(self, suffix: str) -> list[np.ndarray | None]:
        return [self.params.get(name + suffix) for name in self.weights]

    def _cell_forward(self, y: np.ndarray, start: list, suffix: str, *, training: bool, **options: Any) -> tuple:
        """One layer and direction: y, the final states, the cache. `training` is for cells that are otherwise then."""
        forward, _ = self._functions()
        return forward(y, *start, *self._weights(suffix), **options, **self._options())

    def _run(
        self,
        x: ArrayLike,
        state: Any,
        lengths: Any,
        save: bool,
        checkpoint: int | None = None,
        workspace: Workspace | None = None,
        *,
        mask: Any = None,
        reset: Any = None,
        cell_states: bool = False,
        trace: bool = False,
    ) -> tuple[np.ndarray, Any, LayerCache]:
        x, lengths, packed = unpacked(x, lengths, self.batch_first)
        y = self._input(x)
        B = y.shape[1]
        states, learned = self._start(state, B)
        which = {"lengths": _check.lengths_array(lengths, len(y), B)}
        which |= {name: self._flags(name, value, len(y), B) for name, value in (("mask", mask), ("reset", reset))}
        if cell_states:
            self._has_cell_states("return_cell_states")
        cache = LayerCache(self, B, workspace)
        cache.learned, cache.packed = learned, packed
        cache.trace = [] if trace else None
        final = []
        for k in range(self.num_layers):
            dropped = None
            if save and k > 0 and self.dropout:
                dropped = self._dropout_mask(y.shape)
                y = y * dropped
            more = {"return_cell_states": True} if cell_states and k == self.num_layers - 1 else {}
            outputs, caches, cs = [], [], []
            for d, suffix in enumerate(self._suffixes(k)):
                start = [None if s is None else s[k * self.directions + d] for s in states]
                more |= {"reverse": d == 1, "save": save or trace, "checkpoint": checkpoint}
                results = self._cell_forward(y, start, suffix, training=save, **which, **more)
                if "return_cell_states" in more:
                    *results, c = results
                    cs.append(c)
                out, *end, cell_cache = results
                outputs.append(out)
                final.append(end)
                caches.append(cell_cache)
            y = merged(self.merge, outputs)
            if cs:
                cache.cell_states = self._output(merged("concat", cs), packed)
            if trace:
                cache.trace.append([{k: self._output(a) for k, a in cell.gates().items()} for cell in caches])
            cache.cells.append(caches if save else [])
            cache.masks.append(dropped)
        end = self._packed_state(final)
        self._remember(end)
        return self._output(y, packed), end, cache

    def _dropout_mask(self, shape: tuple[int, ...]) -> np.ndarray:
        """1/(1-p) with probability 1-p, else 0; all zeros for p = 1."""
        keep = 1 - self.dropout
        mask = (self.rng.random(shape, dtype=self.dtype) < keep).astype(self.dtype)
        return mask / self.dtype.type(keep) if keep else mask

    def __call__(
        self,
        x: ArrayLike,
        state: Any = None,
        lengths: ArrayLike | None = None,
        *,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        return_cell_states: bool = False,
        trace: bool = False,
    ) -> tuple:
        """
        Run the layer for its results only: no dropout, and nothing is kept.

        Parameters
        ----------
        x : array (T, B, I), or (B, T, I) with `batch_first`, or PackedSequence
            Of the layer's dtype.
        state : array (D*num_layers, B, H), optional
            The initial state, for an LSTM the tuple ``(h, c)``; None is zeros, unless the layer is `stateful` or has
            learned one. D is 2 for a bidirectional layer. The order of the sequences is the caller's, of a
            PackedSequence that before it was sorted.
        lengths : integers (B,), optional
            The number of valid steps of each sequence, in any order, 0 included; see `fastrnn.functional`.
        mask, reset : bool (T, B), or (B, T) with `batch_first`, optional
            False where a sequence skips a step, and True where it starts anew before one, in all layers; see
            `fastrnn.functional`.
        return_cell_states : bool
            LSTM only: also return `c`.
        trace : bool
            Also return what every cell did, which takes the memory of a training pass. Meant to be looked at; arrays
            may be read-only then.

        Returns
        -------
        y : array (T, B, D*H), or (B, T, D*H) with `batch_first`, or PackedSequence as x
            The last layer's hidden states, forward direction first, or what `merge` makes of the two.
        state : as the argument
            After each sequence's last step.
        c : array (T, B, D*H), or as y has it, with `return_cell_states`
            The last layer's cell states, both directions side by side whatever `merge` is.
        trace : list of list of dict, with `trace`
            For each layer, for each direction, by name: of an LSTM i f g o c h, of a GRU r z n h, of a minLSTM f i h,
            of a minGRU z h, of an RNN or IndRNN h, after the activations; (T, B, H), or (B, T, H) with `batch_first`.
            Zeros where no sequence runs.

        Raises
        ------
        TypeError, ValueError
            For an argument of another dtype or shape, or out of range; the message names it.
        """
        y, final, cache = self._run(
            x, state, lengths, False, mask=mask, reset=reset, cell_states=return_cell_states, trace=trace
        )
        return y, final, *(part for part in (cache.cell_states, cache.trace) if part is not None)

    def forward(
        self,
        x: ArrayLike,
        state: Any = None,
        lengths: ArrayLike | None = None,
        *,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        checkpoint: int | None = None,
        workspace: Workspace | None = None,
        return_cell_states: bool = False,
    ) -> tuple:
        """
        Run the layer for training: with dropout between layers, keeping what backward needs.

        Parameters
        ----------
        x, state, lengths, mask, reset, return_cell_states
            As for calling the layer.
        checkpoint : int, optional
            Keep what makes up every so many steps anew instead of all: the same gradients to the bit, for less memory
            and about a third more time. See `fastrnn.functional`.
        workspace : fastrnn.Workspace, optional
            Where memory of this pass and its backward comes from and goes back to.

        Returns
        -------
        y, state
            As for calling the layer. `y` may be read-only.
        cache : LayerCache
            For `backward`, once. It refers to `x` and the parameters: leave them unchanged till then.
        c : array, with `return_cell_states`
            As for calling the layer. It may be read-only.
        """
        if not isinstance(workspace, Workspace | None):
            raise TypeError(f"workspace: {type(workspace).__name__}, expected a fastrnn.Workspace or None")
        with working_in(workspace):
            y, final, cache = self._run(
                x, state, lengths, True, checkpoint, workspace, mask=mask, reset=reset, cell_states=return_cell_states
            )
        return (y, final, cache) if cache.cell_states is None else (y, final, cache, cache.cell_states)

    def backward(
        self,
        cache: LayerCache,
        dy: ArrayLike | None,
        dstate: Any = None,
        *,
        need: Iterable[str] = ("x", "params"),
        dcell_states: ArrayLike | None = None,
    ) -> tuple[np.ndarray | None, Any]:
        """
        Add the gradients of all parameters into `grads`, and return those of what went in.

        Parameters
        ----------
        cache : LayerCache
            From this layer's `forward`; used up by this call.
        dy : array or PackedSequence shaped as y, or None
            The gradient of the loss with respect to `y`; None is zeros.
        dstate : shaped as the state, optional
            That with respect to the final state.
        need : {"x", "params"}, any of them
            What to compute. A first layer whose `x` is data needs no "x", frozen weights are no "params".
        dcell_states : array shaped as c, optional
            LSTM only: that with respect to the last layer's cell states.

        Returns
        -------
        dx : array or PackedSequence shaped as x, or None
            None where it is not needed.
        dstate : shaped as the state
            With respect to the initial state.

        Raises
        ------
        TypeError, ValueError
            For a cache that is used or of another layer, an array of another dtype or shape, or an unknown name.
        """
        asked = _check.needed(need, ("x", "params"))
        if not isinstance(cache, LayerCache):
            raise TypeError(f"cache: {type(cache).__name__}, expected what this layer's forward returned")
        if cache.layer is not self:
            raise ValueError(f"cache: it is of another layer, {cache.layer!r}")
        if cache.cells is None:
            raise ValueError("cache: it has been used by a backward pass already; run forward again for another one")
        with working_in(cache.workspace):
            return self._run_backward(cache, dy, dstate, asked, dcell_states)

    def _run_backward(
        self, cache: LayerCache, dy: ArrayLike | None, dstate: Any, asked: frozenset[str], dcell_states: Any
    ) -> tuple[np.ndarray | None, Any]:
        _, backward = self._functions()
        of_y = len(cache.cells[0][0].y), cache.B, cache.packed
        if self.merge is None:
            if dy is not None and not (isinstance(dy, tuple | list) and len(dy) == 2):
                raise TypeError(f"dy: {type(dy).__name__}, expected the tuple (forward, backward)")
            d = tuple(self._output_gradient(f"dy[{k}]", part, *of_y) for k, part in enumerate(dy or (None, None)))
        else:
            d = self._output_gradient("dy", dy, *of_y)
        dstates = self._states("dstate", dstate, cache.B)
        dcs = None
        if dcell_states is not None:
            self._has_cell_states("dcell_states")
            width = self.directions * self.hidden_size
            dcs = self._output_gradient("dcell_states", dcell_states, *of_y, width=width)
            dcs = np.split(dcs, self.directions, axis=2)
        cells, cache.cells = cache.cells, None
        dinitial: list[list[np.ndarray]] = [[] for _ in range(self.num_layers * self.directions)]
        for k in range(self.num_layers - 1, -1, -1):
            dx = None
            wanted = [name + "0" for name in self.state_names]
            wanted += ["x"] if k > 0 or "x" in asked else []
            wanted += self._wanted() if "params" in asked else []
            parts = parted(self.merge, d, [cell.y for cell in cells[k]])
            for direction, suffix in enumerate(self._suffixes(k)):
                which = k * self.directions + direction
                end = [None if s is None else s[which] for s in dstates]
                if dcs is not None and k == self.num_layers - 1:
                    end.append(dcs[direction])
                grads = backward(cells[k][direction], parts[direction], *end, need=wanted)
                dx = grads.x if dx is None else dx + grads.x
                dinitial[which] = list(grads[1 : 1 + len(self.state_names)])
                self._add_gradients(grads, suffix)
            d = dx if cache.masks[k] is None else dx * cache.masks[k]
        dstate = self._packed_state(dinitial)
        if "params" in asked:
            self._add_learned_gradients(cache.learned, dstate)
        return None if d is None else self._output(d, cache.packed), dstate

    def _wanted(self) -> list[str]:
        """The gradients of parameters that a cell has."""
        return list(self.weights.values())

    def _add_gradients(self, grads: Any, suffix: str) -> None:
        for name, argument in self.weights.items():
            grad = getattr(grads, argument)
            if grad is not None:
                self.grads[name + suffix] += grad

    def freeze(self) -> Frozen:
        """
        Make an immutable copy for serving.

        Returns
        -------
        Frozen
            Safe to call from many threads at once; later changes of this layer do not reach it.
        """
        return Frozen(self)
