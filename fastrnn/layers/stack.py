"""Stacks of layers of different widths and cells, with residual and dense connections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check
from fastrnn.module import Module
from fastrnn.packed import PackedSequence, like_packed, pad_packed_sequence, repacked, unpacked

_PROTOCOL = ("input_size", "output_size", "batch_first", "dtype", "forward", "backward", "freeze")


class Wiring(NamedTuple):
    """What each layer of a stack reads, and to whose output its input is added."""

    residual: tuple[bool, ...]
    skip: str

    def sources(self, k: int) -> list[int]:
        """What layer k reads side by side: 0 is the stack's input, j the output of layer j - 1."""
        if self.skip == "all":
            return list(range(k + 1))
        return [0, k] if self.skip == "input" and k else [k]

    def climb(self, x: np.ndarray, run: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
        """The output of the last layer, where `run` gives that of layer k for its input."""
        levels = [x]
        for k, residual in enumerate(self.residual):
            below = [levels[j] for j in self.sources(k)]
            x_k = below[0] if len(below) == 1 else np.concatenate(below, axis=-1)
            y_k = run(k, x_k)
            levels.append(y_k + x_k if residual else y_k)
        return levels[-1]


class StackCache:
    """What a stack's forward keeps for its backward: opaque, good for one use with the stack that made it."""

    __slots__ = ("caches", "ends", "packed", "past", "stack", "y_shape")

    def __init__(self, stack: Stack, y_shape: tuple[int, ...], past: np.ndarray | None, packed: PackedSequence | None):
        self.stack, self.y_shape, self.past, self.packed = stack, y_shape, past, packed
        self.caches: list[Any] | None = []
        self.ends: list[Any] = []


class Stack(Module):
    """
    Layers one above the other, each reading the outputs of the one below: any cells, any widths.

    Parameters
    ----------
    layers : sequence of Module
        From the first up: `RNN`, `LSTM`, `GRU`, another `Stack`, or any module that has their ``input_size``,
        ``output_size``, ``batch_first`` and ``dtype`` and is called, run forward and backward and frozen as they are.
    residual : bool or sequence of bool, one for each layer
        Whether a layer's input is added to its output: ``y_k = layer_k(x_k) + x_k``.
    skip : {"none", "input", "all"}
        What each layer above the first reads beside the outputs of the one below it, ``x_k = [y_(k-1)]``: the stack's
        input, ``x_k = [x, y_(k-1)]``, or that and all outputs below, ``x_k = [x, y_0, ..., y_(k-1)]``. They stand side
        by side in this order, and its ``input_size`` is the sum of their widths.

    Attributes
    ----------
    layers : tuple of Module
        Their parameters are named with their place in front: ``0.weight_ih_l0``.
    input_size, output_size : int
        The width of the first layer's input and of the last one's output.

    Raises
    ------
    TypeError, ValueError
        For a module that lacks something, a width that does not fit, or layers that differ in dtype or `batch_first`.

    Notes
    -----
    Residual: He et al., Deep residual learning for image recognition, 2016. Skips from the input: Graves, Generating
    sequences with recurrent neural networks, 2013; from everything below: Huang et al., Densely connected
    convolutional networks, 2017.

    Examples
    --------
    >>> from fastrnn import GRU, LSTM, RNN, Stack
    >>> stack = Stack([LSTM(10, 20), GRU(20, 30), RNN(30, 30)], residual=[False, False, True])
    >>> y, state = stack(np.ones((7, 2, 10), np.float32))  # and the layers' states in a list
    >>> y.shape
    (7, 2, 30)
    >>> dense = Stack([GRU(10, 20), GRU(10 + 20, 40), GRU(10 + 20 + 40, 5)], skip="all")
    """

    uses_lengths = True

    def __init__(self, layers: Sequence[Module], *, residual: bool | Sequence[bool] = False, skip: str = "none"):
        super().__init__()
        if isinstance(layers, Module):
            raise TypeError(f"layers: {type(layers).__name__}, expected a sequence of layers")
        layers = tuple(layers)
        if not layers:
            raise ValueError("layers: none, expected at least one")
        _check.choice("skip", skip, ("none", "input", "all"))
        residual = (residual,) * len(layers) if isinstance(residual, bool) else tuple(map(bool, residual))
        if len(residual) != len(layers):
            raise ValueError(f"residual: {len(residual)} of them, expected one for each of {len(layers)} layers")
        self.wiring = Wiring(residual, skip)
        _check_layers(layers, self.wiring)
        for k, layer in enumerate(layers):
            setattr(self, str(k), layer)
        self.input_size, self.output_size = layers[0].input_size, layers[-1].output_size
        self.batch_first, self.dtype = layers[0].batch_first, layers[0].dtype

    @property
    def layers(self) -> tuple[Any, ...]:
        """The layers, from the first up."""
        return tuple(vars(self)[str(k)] for k in range(len(self.wiring.residual)))

    def __repr__(self) -> str:
        residual, skip = self.wiring
        parts = [repr(list(self.layers))]
        parts += [f"residual={list(residual)}"] if any(residual) else []
        parts += [f"skip={skip!r}"] if skip != "none" else []
        return f"Stack({', '.join(parts)})"

    def __call__(
        self, x: ArrayLike, state: Any = None, lengths: ArrayLike | None = None, **options: Any
    ) -> tuple[Any, list[Any]]:
        """
        Run the stack for its results only.

        Parameters
        ----------
        x : array (T, B, I), or (B, T, I) with `batch_first`, or PackedSequence
            Of the layers' dtype.
        state : sequence of the layers' states, optional
            Each may be None, which is what its layer makes of it; None is that for all.
        lengths : integers (B,), optional
            The number of valid steps of each sequence.
        **options
            Further keyword arguments for every layer.

        Returns
        -------
        y : array (T, B, output_size), or (B, T, output_size) with `batch_first`, or PackedSequence as x
            The last layer's output, zeros past the sequences' ends.
        state : list of the layers' states
            After each sequence's last step.

        Raises
        ------
        TypeError, ValueError
            For an argument of another dtype or shape, or out of range; the message names it.
        """
        return _run(self, self.layers, x, state, lengths, options)

    def forward(
        self, x: ArrayLike, state: Any = None, lengths: ArrayLike | None = None, **options: Any
    ) -> tuple[Any, list[Any], StackCache]:
        """
        Run the stack for training.

        Parameters
        ----------
        x, state, lengths, **options
            As for calling the stack; options as of the layers' `forward`.

        Returns
        -------
        y, state
            As for calling the stack.
        cache : StackCache
            For `backward`, once.
        """
        layers = self.layers
        x, states, lengths, past, packed = _begin(self, x, state, lengths, options)
        cache = StackCache(self, (*x.shape[:2], self.output_size), past, packed)

        def run(k: int, x_k: np.ndarray) -> np.ndarray:
            y_k, end, layer_cache = layers[k].forward(x_k, states[k], lengths, **options)
            cache.ends.append(end)
            cache.caches.append(layer_cache)
            return y_k

        return _end(self, self.wiring.climb(x, run), packed), list(cache.ends), cache

    def backward(
        self, cache: StackCache, dy: Any, dstate: Any = None, *, need: Iterable[str] = ("x", "params")
    ) -> tuple[Any, list[Any]]:
        """
        Add the gradients of all parameters into those of the layers, and return those of what went in.

        Parameters
        ----------
        cache : StackCache
            From this stack's `forward`; used up by this call.
        dy : array or PackedSequence shaped as y, or None
            The gradient of the loss with respect to `y`; None is zeros.
        dstate : sequence of the layers' states, optional
            That with respect to the final states.
        need : {"x", "params"}, any of them
            What to compute.

        Returns
        -------
        dx : array or PackedSequence shaped as x, or None
            None where it is not needed.
        dstate : list of the layers' states
            With respect to the initial states.

        Raises
        ------
        TypeError, ValueError
            For a cache that is used or of another stack, or an array of another dtype or shape.
        """
        asked = _check.needed(need, ("x", "params"))
        if not isinstance(cache, StackCache):
            raise TypeError(f"cache: {type(cache).__name__}, expected what this stack's forward returned")
        if cache.stack is not self:
            raise ValueError(f"cache: it is of another stack, {cache.stack!r}")
        if cache.caches is None:
            raise ValueError("cache: it has been used by a backward pass already; run forward again for another one")
        layers = self.layers
        dstates = _states("dstate", dstate, len(layers))
        _check_like("dstate", dstates, cache.ends)
        levels: list[Any] = [None] * len(layers) + [self._output_gradient(dy, cache)]  # as `Wiring.sources` has them
        caches, cache.caches = cache.caches, None
        dinitial = []
        for k in range(len(layers) - 1, -1, -1):
            wanted = asked | {"x"} if k else asked
            dy_k = levels[k + 1]
            dx_k, d = layers[k].backward(caches[k], dy_k, dstates[k], need=wanted)
            dinitial.insert(0, d)
            if "x" not in wanted:
                break  # layer 0, from data
            if self.wiring.residual[k]:
                dx_k = dx_k + dy_k
            sources = self.wiring.sources(k)
            widths = [layers[j - 1].output_size if j else self.input_size for j in sources]
            for j, part in zip(sources, np.split(dx_k, np.cumsum(widths)[:-1], axis=2), strict=True):
                levels[j] = part if levels[j] is None else levels[j] + part
        dx = levels[0] if "x" in asked else None
        return None if dx is None else _end(self, dx, cache.packed), dinitial

    def _output_gradient(self, dy: Any, cache: StackCache) -> np.ndarray:
        if dy is None:
            return np.zeros(cache.y_shape, self.dtype)
        if cache.packed is not None:
            dy, _ = pad_packed_sequence(like_packed("dy", dy, cache.packed), self.batch_first)
        axes = "(B, T, ...)" if self.batch_first else "(T, B, ...)"
        dy = _check.shaped("dy", dy, self.dtype, axes, cache.y_shape, "the stack")
        return dy if cache.past is None else np.where(cache.past, self.dtype.type(0), dy)

    def freeze(self) -> FrozenStack:
        """
        Make an immutable copy for serving.

        Returns
        -------
        FrozenStack
            Safe to call from many threads at once; later changes of the layers do not reach it.
        """
        layers = tuple(layer.freeze() for layer in self.layers)
        return FrozenStack(layers, self.wiring, self.input_size, self.output_size, self.batch_first, self.dtype)


@dataclass(frozen=True, eq=False)
class FrozenStack:
    """An immutable copy of a stack, made by its `freeze`: callable from many threads at once, and streamed from."""

    layers: tuple[Any, ...]
    wiring: Wiring
    input_size: int
    output_size: int
    batch_first: bool
    dtype: np.dtype

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters by name."""
        return {f"{k}.{name}": a for k, layer in enumerate(self.layers) for name, a in layer.state_dict().items()}

    def __call__(
        self,
        x: ArrayLike,
        state: Any = None,
        lengths: ArrayLike | None = None,
        out: np.ndarray | None = None,
        **options: Any,
    ) -> tuple[Any, list[Any]]:
        """
        Run the stack.

        Parameters
        ----------
        x, state, lengths, **options
            As for calling the stack it was frozen from.
        out : array shaped as y, optional
            Where to put `y`: writable, of the layers' dtype. Not for a PackedSequence.

        Returns
        -------
        y, state
            As for the stack; `y` is `out` where that was given.
        """
        if out is not None:
            if isinstance(x, PackedSequence):
                raise TypeError("out: given beside a PackedSequence, expected None")
            _check.output(out, self.dtype, (*np.shape(x)[:2], self.output_size))
        y, ends = _run(self, self.layers, x, state, lengths, options)
        if out is not None:
            out[...] = y
            y = out
        return y, ends

    def stream(self, batch_size: int = 1) -> StackStream:
        """
        Start a stream: the same stack, fed one time step at a time.

        Parameters
        ----------
        batch_size : int
            How many sequences run side by side.

        Returns
        -------
        StackStream
            With the state that each layer starts from.

        Raises
        ------
        ValueError
            For a bidirectional layer.
        """
        return StackStream(self, batch_size)


class StackStream:
    """A frozen stack with a state, fed step by step. For one thread at a time."""

    def __init__(self, frozen: FrozenStack, batch_size: int = 1):
        self.batch_size = _check.positive_int("batch_size", batch_size)
        self._wiring = frozen.wiring
        self._streams = [layer.stream(batch_size) for layer in frozen.layers]

    def __repr__(self) -> str:
        return f"StackStream({self._streams!r}, batch_size={self.batch_size})"

    def step(self, x_t: ArrayLike) -> np.ndarray:
        """
        Take one time step.

        Parameters
        ----------
        x_t : array (B, I)
            The input of this step.

        Returns
        -------
        array (B, output_size)
            The last layer's output. Copy it to keep it: the next steps may use the same memory.
        """
        return self._wiring.climb(np.asarray(x_t), lambda k, x_k: self._streams[k].step(x_k))

    @property
    def state(self) -> list[Any]:
        """Copies of the layers' states; assign such a list to continue from it."""
        return [stream.state for stream in self._streams]

    @state.setter
    def state(self, value: Any) -> None:
        given, before = _states("state", value, len(self._streams)), self.state
        try:
            for stream, part in zip(self._streams, given, strict=True):
                stream.state = part
        except (TypeError, ValueError):
            for stream, part in zip(self._streams, before, strict=True):
                stream.state = part
            raise

    def reset(self, mask: ArrayLike | None = None) -> None:
        """
        Set the state to what it was at first.

        Parameters
        ----------
        mask : bool (B,), optional
            Which sequences to reset; None is all.
        """
        for stream in self._streams:
            stream.reset(mask)


def _check_layers(layers: tuple[Any, ...], wiring: Wiring) -> None:
    first = layers[0]
    for k, layer in enumerate(layers):
        lacks = [name for name in _PROTOCOL if not hasattr(layer, name)]
        if not isinstance(layer, Module) or lacks:
            hint = f"; it lacks {', '.join(lacks)}" if isinstance(layer, Module) else ""
            raise TypeError(f"layers[{k}]: {type(layer).__name__}, expected a layer or a module like one{hint}")
        if any(layer is other for other in layers[:k]):
            raise ValueError(f"layers[{k}]: the same object as one below it, expected one with parameters of its own")
        if getattr(layer, "merge", "concat") is None:
            raise ValueError(f"layers[{k}]: merge=None gives two outputs, expected one")
        for name in ("batch_first", "dtype"):
            value, expected = getattr(layer, name), getattr(first, name)
            if value != expected:
                raise ValueError(f"layers[{k}]: {name} {value}, expected {expected} as in layers[0]")
        if k:
            widths = {
                f"layers[{j - 1}]" if j else "x": layers[j - 1].output_size if j else first.input_size
                for j in wiring.sources(k)
            }
            if layer.input_size != sum(widths.values()):
                parts = " + ".join(f"{width} of {name}" for name, width in widths.items())
                raise ValueError(f"layers[{k}]: input_size {layer.input_size}, expected {parts}")
        if wiring.residual[k] and layer.input_size != layer.output_size:
            raise ValueError(
                f"residual: layers[{k}] makes {layer.output_size} of {layer.input_size}, expected one width to add up"
            )


def _states(name: str, state: Any, count: int) -> list[Any]:
    """A stack's state as one of each layer."""
    if state is None:
        return [None] * count
    if not isinstance(state, list | tuple):
        raise TypeError(f"{name}: {type(state).__name__}, expected a list of {count} layers' states")
    if len(state) != count:
        raise ValueError(f"{name}: {len(state)} of them, expected one for each of {count} layers")
    return list(state)


def _check_like(name: str, value: Any, state: Any) -> None:
    """That `value` has the parts of a state, each of its shape and dtype or None: before any layer adds gradients."""
    if value is None or state is None:
        return
    if not isinstance(state, list | tuple):
        _check.shaped(name, value, state.dtype, "that of the state", state.shape, "the stack")
        return
    if not isinstance(value, list | tuple) or len(value) != len(state):
        raise TypeError(f"{name}: {type(value).__name__}, expected {len(state)} arrays in a tuple or list")
    for k, (part, like) in enumerate(zip(value, state, strict=True)):
        _check_like(f"{name}[{k}]", part, like)


def _begin(stack: Stack | FrozenStack, x: Any, state: Any, lengths: Any, options: dict) -> tuple:
    """The arguments of a call, checked: x, the states, lengths, which steps do not run, and x if it was packed."""
    for name in ("return_cell_states", "trace"):
        if options.get(name):
            raise ValueError(f"{name}: given to a stack, expected for a layer of its own")
    x, lengths, packed = unpacked(x, lengths, stack.batch_first)
    x = _check.layer_input(x, stack.input_size, stack.batch_first, stack.dtype)
    states = _states("state", state, len(stack.wiring.residual))
    T, B = x.shape[:2][:: -1 if stack.batch_first else 1]
    lengths = _check.lengths_array(lengths, T, B)
    mask = _check.flags_array("mask", options.get("mask"), "that of x", x.shape[:2])
    past = None
    if any(stack.wiring.residual):  # else nothing but layers, which know, reads where no sequence runs
        if lengths is not None:
            past = np.arange(T)[:, None] >= lengths
            past = past.T if stack.batch_first else past
        if mask is not None:
            past = ~mask if past is None else past | ~mask
        if past is not None:
            past = past[:, :, None]
            x = np.where(past, stack.dtype.type(0), x)
    return x, states, lengths, past, packed


def _end(stack: Stack | FrozenStack, y: np.ndarray, packed: PackedSequence | None) -> Any:
    if packed is None:
        return y
    return repacked(packed, y.swapaxes(0, 1) if stack.batch_first else y)


def _run(stack: Stack | FrozenStack, layers: tuple[Any, ...], x: Any, state: Any, lengths: Any, options: dict) -> tuple:
    """What calling a stack gives, frozen or not."""
    x, states, lengths, _, packed = _begin(stack, x, state, lengths, options)
    ends = []

    def run(k: int, x_k: np.ndarray) -> np.ndarray:
        y_k, end = layers[k](x_k, states[k], lengths, **options)
        ends.append(end)
        return y_k

    return _end(stack, stack.wiring.climb(x, run), packed), ends
