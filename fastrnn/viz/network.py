"""A picture of a recurrent network unrolled over its first steps."""

from __future__ import annotations

from typing import Any

from fastrnn import _check
from fastrnn.layers import Stack
from fastrnn.layers.recurrent import RecurrentLayer
from fastrnn.viz._axes import axes

_MERGED = {"concat": "[ , ]", "sum": "+", "mul": "×", "ave": "mean"}
_COLOURS = {"forward": "#cfe3f5", "backward": "#fbdcc0"}
_WIDE, _HIGH = 0.8, 0.5  # of a box; steps are 1.6 apart, or 2.4 where there are two directions


def unrolled(layer: RecurrentLayer | Stack, *, steps: int = 4, ax: Any = None) -> Any:
    """
    Draw a layer or stack unrolled over its first steps: time to the right, layers upwards.

    Parameters
    ----------
    layer : a recurrent layer, or a Stack of them
        With all its layers and directions. Connections of a stack that pass layers by are not drawn.
    steps : int
        How many steps, at least 1.
    ax : matplotlib Axes, optional
        Where to draw; None makes a new figure 800 pixels wide.

    Returns
    -------
    matplotlib.axes.Axes
        Without axis lines. Widths stand in brackets.

    Raises
    ------
    ImportError
        Without matplotlib.
    TypeError, ValueError
        For something else.
    """
    steps = _check.positive_int("steps", steps)
    rows = _rows(layer)
    both = any(row.bidirectional for row, _ in rows)
    apart = 2.6 if both else 1.6
    ax = axes(ax, height=min(9, 1.6 + sum(2.0 if row.bidirectional else 1.1 for row, _ in rows)))
    columns = [t * apart for t in range(steps)]
    below = 0.0
    for t, x in enumerate(columns):
        ax.text(x, below, f"$x_{{{t}}}$ ({layer.input_size})", ha="center", va="top")
    for row, name in rows:
        below = _layer(ax, row, name, columns, below + 0.05, apart)
    for t, x in enumerate(columns):
        ax.text(x, below + 0.05, f"$y_{{{t}}}$ ({layer.output_size})", ha="center", va="bottom")
    ax.set(xlim=(-apart * 0.95, columns[-1] + apart * 0.95), ylim=(-0.4, below + 0.45))
    ax.set_axis_off()
    return ax


def _rows(layer: Any) -> list[tuple[RecurrentLayer, str]]:
    """Each layer of one step, from the first up, and its name."""
    if isinstance(layer, Stack):
        return [row for part in layer.layers for row in _rows(part)]
    if not isinstance(layer, RecurrentLayer):
        raise TypeError(f"layer: {type(layer).__name__}, expected a recurrent layer or a Stack of them")
    name = type(layer).__name__
    return [(layer, name if layer.num_layers == 1 else f"{name} {k}") for k in range(layer.num_layers)]


def _layer(ax: Any, layer: RecurrentLayer, name: str, columns: list[float], below: float, apart: float) -> float:
    """Draw one layer whose inputs end at the height `below`; the height of its outputs."""
    if not layer.bidirectional:
        y = below + 0.75
        _direction(ax, layer, name, columns, y, "forward", apart)
        for x in columns:
            _arrow(ax, (x, below), (x, y - _HIGH / 2))
            _arrow(ax, (x, y + _HIGH / 2), (x, y + 0.6))
        return y + 0.6
    aside, y, up = 0.5, below + 0.75, below + 1.65
    merge = y + 1.65
    _direction(ax, layer, name, [x - aside for x in columns], y, "forward", apart)
    _direction(ax, layer, name, [x + aside for x in columns], up, "backward", apart)
    sign = _MERGED.get(layer.merge, ",")
    for x in columns:
        for side, height in ((-aside, y), (aside, up)):
            _arrow(ax, (x + side / 4, below), (x + side, height - _HIGH / 2))
            _arrow(ax, (x + side, height + _HIGH / 2), (x + side / 4, merge - 0.15))
        ax.text(x, merge, sign, ha="center", va="center")
        _arrow(ax, (x, merge + 0.15), (x, merge + 0.45))
    return merge + 0.45


def _direction(
    ax: Any, layer: RecurrentLayer, name: str, columns: list[float], y: float, direction: str, apart: float
) -> None:
    """Draw the boxes of one direction at the height `y`, and the states that go from each to the next."""
    states = ", ".join(layer.state_names)
    step = apart if direction == "forward" else -apart
    for x in columns:
        ax.text(
            x, y, name, ha="center", va="center", zorder=3,
            bbox={"boxstyle": "round,pad=0.45", "facecolor": _COLOURS[direction], "edgecolor": "0.3"},
        )  # fmt: skip
    order = columns if direction == "forward" else columns[::-1]
    for x in [order[0] - step, *order]:
        _arrow(ax, (x + step / abs(step) * _WIDE / 2, y), (x + step - step / abs(step) * _WIDE / 2, y))
        ax.text(x + step / 2, y + 0.06, f"{states} ({layer.hidden_size})", ha="center", va="bottom", fontsize=8)


def _arrow(ax: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "0.3", "shrinkA": 0, "shrinkB": 0})
