"""A recurrent network of two time scales: a layer that steps always, and one above it that steps now and then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn import _check
from fastrnn.layers import GRU, LSTM, RNN
from fastrnn.module import Module
from fastrnn.nn._masking import cleared

CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


class HierarchicalCache(NamedTuple):
    """What `backward` needs: the caches of both layers for each part of the steps, where a sequence runs, T and B."""

    parts: list[tuple[Any, Any]]
    valid: np.ndarray | None  # (T, B)
    steps: int
    batch: int


class HierarchicalRNN(Module):
    """
    Two recurrent layers of two time scales: the upper one reads every so many-th output of the lower one.

    ``l[t] = lower(x[t], l[t-1])``; ``u[t] = upper(l[t], u[t-1])`` if ``t + 1`` is a multiple of `every`, else
    ``u[t] = u[t-1]``; ``y[t] = [l[t], u[t]]``. What the upper layer remembers has passed `every` times fewer steps, and
    so has its gradient.

    Parameters
    ----------
    input_size, hidden_size : int
        I, and H of the lower layer.
    every : int
        How many steps of the lower layer make one of the upper.
    upper_size : int, optional
        U, the units of the upper layer; None is `hidden_size`.
    cell : {"rnn", "lstm", "gru"}
        Of both layers.
    top_down : bool
        Whether the lower layer reads ``[x[t], u[t-1]]``: it knows then what was long ago. It runs in parts of `every`
        steps, which takes longer.
    batch_first : bool
        Whether `x` and `y` are (B, T, ...) and not (T, B, ...).
    dtype : {float32, float64}
        Of the parameters, and of every array that goes in and out.
    rng : int, numpy.random.Generator or None
        The source of the initial parameters.

    Attributes
    ----------
    lower, upper : RNN, LSTM or GRU
    output_size : int
        H + U.

    Notes
    -----
    Two fixed time scales: El Hihi & Bengio, Hierarchical recurrent neural networks for long-term dependencies, 1996;
    Koutnik et al., A clockwork RNN, 2014. With `top_down`: Chung, Ahn & Bengio, Hierarchical multiscale recurrent
    neural networks, 2017, with boundaries that are fixed and not learned, and without their reset of the lower layer.

    Examples
    --------
    >>> from fastrnn import models, nn
    >>> model = models.HierarchicalRNN(8, 32, every=20, batch_first=True)
    >>> y, (lower_state, upper_state) = model(np.ones((2, 50, 8), np.float32), lengths=[50, 30])
    >>> classifier = nn.Sequential(model, nn.LastStep(), nn.Linear(model.output_size, 4))
    """

    uses_lengths = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        every: int,
        upper_size: int | None = None,
        cell: str = "gru",
        *,
        top_down: bool = False,
        batch_first: bool = False,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ):
        super().__init__()
        self.input_size = _check.positive_int("input_size", input_size)
        self.hidden_size = _check.positive_int("hidden_size", hidden_size)
        self.every = _check.positive_int("every", every)
        self.upper_size = _check.positive_int("upper_size", hidden_size if upper_size is None else upper_size)
        self.cell = _check.choice("cell", cell, tuple(CELLS))
        self.top_down, self.batch_first = bool(top_down), bool(batch_first)
        rng = np.random.default_rng(rng)
        width = self.input_size + self.upper_size if self.top_down else self.input_size
        self.lower = CELLS[cell](width, hidden_size, dtype=dtype, rng=rng)
        self.upper = CELLS[cell](hidden_size, self.upper_size, dtype=dtype, rng=rng)
        self.dtype = self.lower.dtype

    @property
    def output_size(self) -> int:
        """The width of `y`, H + U."""
        return self.hidden_size + self.upper_size

    def __repr__(self) -> str:
        sizes = f"{self.input_size}, {self.hidden_size}, every={self.every}, upper_size={self.upper_size}"
        flags = "".join(f", {name}=True" for name in ("top_down", "batch_first") if getattr(self, name))
        return f"HierarchicalRNN({sizes}, cell={self.cell!r}{flags}, dtype={self.dtype})"

    def __call__(
        self, x: ArrayLike, state: Any = None, lengths: ArrayLike | None = None
    ) -> tuple[np.ndarray, tuple[Any, Any]]:
        """
        Run both layers for their results only.

        Parameters
        ----------
        x : array (T, B, I), or (B, T, I) with `batch_first`
            Of the layers' dtype.
        state : tuple of the lower and the upper layer's state, optional
            Each as its layer has it, or None, which is zeros. The steps are counted from it: sequences that are fed in
            chunks are to be cut at multiples of `every`.
        lengths : integers (B,), optional
            The number of valid steps of each sequence, in any order, 0 included.

        Returns
        -------
        y : array (T, B, H + U), or (B, T, H + U) with `batch_first`
            The states of both layers after each step, zeros past the sequences' ends.
        state : tuple of the lower and the upper layer's state
            After each sequence's last step.

        Raises
        ------
        TypeError, ValueError
            For an argument of another dtype or shape, or out of range; the message names it.
        """
        y, state, _ = self._run(x, state, lengths, False)
        return y, state

    def forward(
        self, x: ArrayLike, state: Any = None, lengths: ArrayLike | None = None
    ) -> tuple[np.ndarray, tuple[Any, Any], HierarchicalCache]:
        """What calling gives, and the cache for `backward`, good for one use. Leave `x` unchanged till then."""
        return self._run(x, state, lengths, True)

    def _run(self, x: Any, state: Any, lengths: Any, training: bool) -> tuple:
        x = self._turned(_check.layer_input(x, self.input_size, self.batch_first, self.dtype))
        T, B = x.shape[:2]
        lengths = _check.lengths_array(lengths, T, B)
        below, above = self._states("state", state, B)
        ys, caches = [], []
        for start in self._starts(T):
            part = x[start : start + self._span(T)]
            n = None if lengths is None else np.clip(lengths - start, 0, len(part))
            held = _hidden(above)
            held = np.zeros((1, B, self.upper_size), self.dtype) if held is None else held
            if self.top_down:
                part = np.concatenate([part, np.broadcast_to(held, (len(part), *held.shape[1:]))], axis=2)
            l, below, lower = _step(self.lower, part, below, n, training)
            n = None if n is None else n // self.every
            u, above, upper = _step(self.upper, l[self.every - 1 :: self.every], above, n, training)
            u = np.repeat(np.concatenate([held, u]), self.every, axis=0)[1 : len(part) + 1]
            ys.append(np.concatenate([l, u], axis=2))
            caches.append((lower, upper))
        valid = None if lengths is None else np.arange(T)[:, None] < lengths
        y = cleared(ys[0] if len(ys) == 1 else np.concatenate(ys), valid)
        return self._turned(y), (below, above), HierarchicalCache(caches, valid, T, B)

    def backward(
        self,
        cache: HierarchicalCache,
        dy: ArrayLike | None,
        dstate: Any = None,
        *,
        need: Iterable[str] = ("x", "params"),
    ) -> tuple[np.ndarray | None, tuple[Any, Any]]:
        """
        Add the gradients of all parameters into those of both layers, and return those of what went in.

        Parameters
        ----------
        cache : HierarchicalCache
            From this model's `forward`; used up by this call.
        dy : array shaped as y, or None
            The gradient of the loss with respect to `y`; None is zeros.
        dstate : tuple of the lower and the upper layer's state, optional
            That with respect to the final states.
        need : {"x", "params"}, any of them
            What to compute.

        Returns
        -------
        dx : array shaped as x, or None
            None where it is not needed.
        dstate : tuple of the lower and the upper layer's state
            With respect to the initial states.

        Raises
        ------
        TypeError, ValueError
            For a cache that is used or of another model, or an array of another dtype or shape.
        """
        asked = _check.needed(need, ("x", "params"))
        if not isinstance(cache, HierarchicalCache):
            raise TypeError(f"cache: {type(cache).__name__}, expected what this model's forward returned")
        caches, valid, T, B = cache
        dbelow, dabove = self._states("dstate", dstate, B)
        shape = (B, T, self.output_size) if self.batch_first else (T, B, self.output_size)
        axes = "(B, T, H + U)" if self.batch_first else "(T, B, H + U)"
        dy = np.zeros(shape, self.dtype) if dy is None else dy
        dy = cleared(self._turned(_check.shaped("dy", dy, self.dtype, axes, shape, "the model")), valid)
        below_wants = asked | {"x"} if self.top_down else asked
        dxs = []
        for start, (lower, upper) in zip(reversed(self._starts(T)), reversed(caches), strict=True):
            dl, du = np.split(dy[start : start + self._span(T)], [self.hidden_size], axis=2)
            du = self._gathered(du)
            dread, dabove = self.upper.backward(upper, du[1:], dabove, need=asked | {"x"})
            dl = dl.copy()
            dl[self.every - 1 :: self.every] += dread
            dx, dbelow = self.lower.backward(lower, dl, dbelow, need=below_wants)
            if self.top_down:
                dx, dheld = np.split(dx, [self.input_size], axis=2)
                du[0] += dheld.sum(axis=0)
            _hidden(dabove)[0] += du[0]
            dxs.insert(0, dx)
        dx = self._turned(np.concatenate(dxs)) if "x" in asked else None
        return dx, (dbelow, dabove)

    def _gathered(self, du: np.ndarray) -> np.ndarray:
        """The gradient of what ``u`` repeats: of the state before these steps, and of each state that they make."""
        n, every = len(du) // self.every + 1, self.every
        rows = np.zeros((n * every, *du.shape[1:]), du.dtype)
        rows[1 : len(du) + 1] = du
        return rows.reshape(n, every, *du.shape[1:]).sum(axis=1)

    def _span(self, T: int) -> int:
        """How many steps the lower layer runs at a time."""
        return self.every if self.top_down else max(1, T)

    def _starts(self, T: int) -> range:
        return range(0, max(1, T), self._span(T))

    def _turned(self, array: np.ndarray) -> np.ndarray:
        """From the caller's order of axes to time-major, and back."""
        return array.swapaxes(0, 1) if self.batch_first else array

    def _states(self, name: str, state: Any, B: int) -> list[Any]:
        """A state of both layers, checked."""
        if state is None:
            return [None, None]
        if not isinstance(state, tuple | list) or len(state) != 2:
            raise TypeError(f"{name}: {type(state).__name__}, expected the tuple (lower, upper)")
        for k, layer in enumerate((self.lower, self.upper)):
            layer._states(f"{name}[{k}]", state[k], B)
        return list(state)


def _hidden(state: Any) -> np.ndarray | None:
    """The h of a layer's state."""
    return state[0] if isinstance(state, tuple | list) else state


def _step(layer: Any, x: np.ndarray, state: Any, lengths: Any, training: bool) -> tuple[np.ndarray, Any, Any]:
    if training:
        return layer.forward(x, state, lengths)
    return *layer(x, state, lengths), None
