"""Truncated backpropagation through time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastrnn._check import positive_int
from fastrnn.nn.clip import clip_grad_norm_


def truncated_bptt(
    model: Any,
    loss: Any,
    optimiser: Any,
    chunks: Iterable[tuple[Any, Any]],
    *,
    state: Any = None,
    max_norm: float | None = None,
    k2: int | None = None,
) -> Iterator[float]:
    """
    Train on consecutive chunks of long sequences, handing the state on from each chunk to the next.

    The gradient comes back through a limited number of steps, so the cost of an update does not grow with the sequence.
    With k1 the steps of a chunk, this is TBPTT(k1, k2): after every k1 steps an update, for the loss of these steps,
    through the last k2 steps.

    Parameters
    ----------
    model
        With ``forward(inputs, state) -> (outputs, state, cache)`` and ``backward(cache, doutputs)``.
    loss
        With ``forward(outputs, targets) -> (value, cache)`` and ``backward(cache) -> doutputs``.
    optimiser
        With ``zero_grad()`` and ``step()``.
    chunks : iterable of (inputs, targets)
        In the order of time, the same sequences in each. With `k2` beyond a chunk, inputs and outputs have the time as
        their first axis, and all chunks but the last are equally long.
    state : optional
        What the first chunk starts from.
    max_norm : float, optional
        The global norm that the gradients are clipped to.
    k2 : int, optional
        Through how many steps the gradient goes back, a multiple of a chunk's; None is one chunk. The chunks before
        that of an update are run forward again.

    Yields
    ------
    float
        The loss of each chunk, before its step.

    Raises
    ------
    ValueError
        For a `k2` that is no multiple of the first chunk's steps.

    Notes
    -----
    Williams & Peng, An efficient gradient-based algorithm for on-line training of recurrent network trajectories, 1990.
    """
    window: deque = deque()  # (inputs, the state before them) of the chunks that a gradient goes back through
    most = 1 if k2 is None else None
    for inputs, targets in chunks:
        if most is None:
            k1 = len(inputs)
            most, rest = divmod(positive_int("k2", k2), max(1, k1))
            if rest or not most:
                raise ValueError(f"k2: {k2}, expected a multiple of the {k1} steps of a chunk")
        if len(window) == most:
            window.popleft()
        window.append((inputs, state))
        optimiser.zero_grad()
        together = inputs if len(window) == 1 else np.concatenate([part for part, _ in window])
        outputs, state, cache = model.forward(together, window[0][1])
        before = len(together) - len(inputs) if len(window) > 1 else 0
        value, loss_cache = loss.forward(outputs[before:] if before else outputs, targets)
        doutputs = loss.backward(loss_cache)
        if before:
            doutputs = np.concatenate([np.zeros_like(outputs[:before]), doutputs])
        model.backward(cache, doutputs)
        if max_norm is not None:
            clip_grad_norm_(model, max_norm)
        optimiser.step()
        yield value
