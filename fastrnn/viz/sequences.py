"""Pictures of sequences: attention, hidden states and gates as heat maps, forecasts as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.viz._axes import axes, heat_map, legend, numbers, over_steps

_NAMES = {
    "i": "input gate i",
    "f": "forget gate f",
    "g": "candidate g",
    "o": "output gate o",
    "c": "cell state c",
    "r": "reset gate r",
    "z": "update gate z",
    "n": "candidate n",
    "h": "hidden state h",
}
_SIGMOID = ("i", "f", "o", "r", "z")


def attention(
    weights: ArrayLike, x_labels: Sequence[str] | None = None, y_labels: Sequence[str] | None = None, *, ax: Any = None
) -> Any:
    """
    Draw attention weights as a heat map, with their values where there is room.

    Parameters
    ----------
    weights : array (queries, keys), or (keys,) for one query
        Each row adds up to 1.
    x_labels, y_labels : sequence of str, optional
        The keys, which are attended to, and the queries; such as the words of two sentences.
    ax : matplotlib Axes, optional
        Where to draw; None makes a new figure 800 pixels wide.

    Returns
    -------
    matplotlib.axes.Axes
        The first query on top.

    Raises
    ------
    ImportError
        Without matplotlib.
    TypeError, ValueError
        For weights of another shape, or labels that are not one for each row or column.
    """
    values = np.atleast_2d(numbers("weights", weights, "(queries, keys) or (keys,)", (None,), (None, None)))
    rows, columns = values.shape
    for name, labels, size in (("x_labels", x_labels, columns), ("y_labels", y_labels, rows)):
        if labels is not None and len(labels) != size:
            raise ValueError(f"{name}: {len(labels)} of them, expected {size}, as weights have")
    ax = axes(ax, height=min(8, 2 + 0.4 * rows))
    heat_map(ax, values, "weight", signed=False)
    ax.set(xlabel="attended to (key)", ylabel="attending (query)")
    if x_labels is not None:
        ax.set_xticks(np.arange(columns), x_labels, rotation=45, ha="right", rotation_mode="anchor")
    if y_labels is not None:
        ax.set_yticks(np.arange(rows), y_labels)
    if rows <= 16 and columns <= 12:
        for (i, j), value in np.ndenumerate(values):
            colour = "white" if value < 0.6 * values.max() else "black"  # viridis is dark below
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    return ax


def hidden_states(y: ArrayLike, *, title: str = "", ax: Any = None) -> Any:
    """
    Draw the hidden states of one sequence as a heat map, units against steps.

    Parameters
    ----------
    y : array (T, H)
        ``y[:, b]`` of what a layer gives, ``y[b]`` with `batch_first`.
    title : str
        Above the picture.
    ax : matplotlib Axes, optional
        Where to draw; None makes a new figure of 800 by 400 pixels.

    Returns
    -------
    matplotlib.axes.Axes
        Unit 0 on top; red is above 0, blue below.

    Raises
    ------
    ImportError
        Without matplotlib.
    TypeError, ValueError
        For an array of another shape.
    """
    values = numbers("y", y, "(T, H) of one sequence", (None, None))
    ax = axes(ax, height=4)
    heat_map(ax, values.T, "hidden state", signed=True)
    ax.set(xlabel="time step", ylabel="unit", title=title)
    return ax


def gates(
    trace: Sequence[Sequence[Mapping[str, np.ndarray]]],
    *,
    layer: int = 0,
    direction: int = 0,
    sequence: int = 0,
    batch_first: bool = False,
    ax: Sequence[Any] | None = None,
) -> Any:
    """
    Draw what the gates and states of a cell did for one sequence, each as a heat map of units against steps.

    Parameters
    ----------
    trace : list of list of dict
        As ``layer(x, trace=True)`` gives it last.
    layer, direction, sequence : int
        Which one of each.
    batch_first : bool
        Whether the layer is.
    ax : sequence of matplotlib Axes, optional
        Where to draw, as many as the cell has arrays: 6 of an LSTM, 4 of a GRU, 1 of an RNN. None makes a new figure.

    Returns
    -------
    matplotlib.figure.Figure
        Gates from 0 to 1, candidates and states red above 0 and blue below.

    Raises
    ------
    ImportError
        Without matplotlib.
    IndexError
        For a layer, direction or sequence that there is not.
    ValueError
        For another number of axes, or a trace without steps.
    """
    arrays = trace[layer][direction]
    if ax is not None and len(ax) != len(arrays):
        raise ValueError(f"ax: {len(ax)} of them, expected {len(arrays)}, one for each of {', '.join(arrays)}")
    of_one = {name: a[sequence] if batch_first else a[:, sequence] for name, a in arrays.items()}
    of_one = {name: numbers(f"trace {name}", a, "(T, H) of one sequence", (None, None)) for name, a in of_one.items()}
    panels = axes(ax, height=0.8 + 1.35 * len(of_one), count=len(of_one))
    for panel, (name, values) in zip(panels, of_one.items(), strict=True):
        gate = name in _SIGMOID
        heat_map(panel, values.T, "", signed=not gate, top=1 if gate else None)
        panel.set_ylabel("unit")
        panel.set_title(_NAMES.get(name, name), fontsize=10, loc="left", pad=3)
    panels[-1].set_xlabel("time step")
    return panels[0].figure


def forecast(
    actual: ArrayLike,
    predicted: ArrayLike,
    *,
    interval: tuple[ArrayLike, ArrayLike] | None = None,
    split: int | None = None,
    start: int | None = None,
    unit: str = "value",
    ax: Any = None,
) -> Any:
    """
    Draw a series and what was predicted of it.

    Parameters
    ----------
    actual : array (N,)
        The series.
    predicted : array (M,)
        The predictions.
    interval : tuple of two arrays (M,), optional
        The lower and upper ends of an interval around each prediction.
    split : int, optional
        The first step that was not trained on; a line stands there.
    start : int, optional
        The step of the first prediction; None is ``N - M``, so that both end together. N goes on where the series ends.
    unit : str
        What the values are, for the axis.
    ax : matplotlib Axes, optional
        Where to draw; None makes a new figure of 800 by 400 pixels.

    Returns
    -------
    matplotlib.axes.Axes
        With a legend.

    Raises
    ------
    ImportError
        Without matplotlib.
    TypeError, ValueError
        For arrays of other shapes, or a `start` or `split` outside the series.
    """
    actual, predicted = (numbers(n, a, "(N,)", (None,)) for n, a in (("actual", actual), ("predicted", predicted)))
    N, M = len(actual), len(predicted)
    start = N - M if start is None else start
    if not 0 <= start <= N:
        raise ValueError(f"start: {start}, with {M} predictions of {N} steps, expected 0 to {N}")
    if split is not None and not 0 <= split <= N:
        raise ValueError(f"split: {split}, expected 0 to {N}")
    steps = np.arange(start, start + M)
    bounds = () if interval is None else tuple(interval)
    if len(bounds) not in (0, 2):
        raise ValueError(f"interval: {len(bounds)} arrays, expected the two of (lower, upper)")
    bounds = [numbers(f"interval[{k}]", bound, f"(M,) = ({M},)", (M,)) for k, bound in enumerate(bounds)]
    ax = axes(ax, height=4)
    ax.plot(np.arange(N), actual, color="0.35", lw=1.5, label="actual")
    ax.plot(steps, predicted, color="C1", lw=1.5, label="predicted")
    if bounds:
        ax.fill_between(steps, *bounds, color="C1", alpha=0.25, lw=0, label="interval")
    if split is not None:
        ax.axvline(split, color="0.5", ls="--", lw=1, label="end of training")
    over_steps(ax, "time step", unit)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.25 * (high - low))  # room for the legend
    ax.margins(x=0.02)
    legend(ax, loc="upper left", ncols=2)
    return ax
