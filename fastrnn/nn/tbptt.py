"""Truncated backpropagation through time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fastrnn.nn.clip import clip_grad_norm_


def truncated_bptt(
    model: Any,
    loss: Any,
    optimiser: Any,
    chunks: Iterable[tuple[Any, Any]],
    *,
    state: Any = None,
    max_norm: float | None = None,
) -> Iterator[float]:
    """
    Train on consecutive chunks of long sequences, handing the state on from each chunk to the next.

    The state goes forward and no gradient comes back through it, so the cost of a step does not grow with the sequence.

    Parameters
    ----------
    model
        With ``forward(inputs, state) -> (outputs, state, cache)`` and ``backward(cache, doutputs)``.
    loss
        With ``forward(outputs, targets) -> (value, cache)`` and ``backward(cache) -> doutputs``.
    optimiser
        With ``zero_grad()`` and ``step()``.
    chunks : iterable of (inputs, targets)
        In the order of time, the same sequences in each.
    state : optional
        What the first chunk starts from.
    max_norm : float, optional
        The global norm that the gradients are clipped to.

    Yields
    ------
    float
        The loss of each chunk, before its step.

    Notes
    -----
    Williams & Peng, An efficient gradient-based algorithm for on-line training of recurrent network trajectories, 1990.
    """
    for inputs, targets in chunks:
        optimiser.zero_grad()
        outputs, state, cache = model.forward(inputs, state)
        value, loss_cache = loss.forward(outputs, targets)
        model.backward(cache, loss.backward(loss_cache))
        if max_norm is not None:
            clip_grad_norm_(model, max_norm)
        optimiser.step()
        yield value
