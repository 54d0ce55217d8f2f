"""A picture of a recurrent network unrolled over its first steps."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from fastrnn import _check
from fastrnn.layers import Stack
from fastrnn.layers.recurrent import RecurrentLayer
from fastrnn.viz._axes import axes

_FORWARD, _BACKWARD = "#cfe3f5", "#fbdcc0"
_ASIDE = 0.2  # how far the two directions of a step stand from its middle, where steps are 1 apart


def unrolled(layer: RecurrentLayer | Stack, *, steps: int = 4, ax: Any = None) -> Any:
    """
    Draw a layer or stack unrolled over its first steps: time to the right, layers upwards.

    Parameters
    ----------
    layer : a recurrent layer, or a Stack of them
        With all its layers and directions. Connections of a stack that pass layers by are not drawn.
    steps : int
        How many steps; up to 6 are easy to read.
    ax : matplotlib Axes, optional
        Where to draw; None makes a new figure 800 pixels wide.

    Returns
    -------
    matplotlib.axes.Axes
        Forward cells are blue, backward ones orange; widths stand in brackets.

    Raises
    ------
    ImportError
        Without matplotlib.
    TypeError, ValueError
        For something else, or no steps.
    """
    steps = _check.positive_int("steps", steps)
    rows = _rows(layer)
    heights = [3 if row.bidirectional else 1 for row, _ in rows]
    ax = axes(ax, height=min(12, 1.4 + 0.9 * sum(heights)))
    nodes = [_node(ax, t, 0, f"$x_{{{t}}}$ ({layer.input_size})") for t in range(steps)]
    arrows: list[tuple[Any, Any]] = []
    top = 0
    for (row, name), height in zip(rows, heights, strict=True):
        nodes = (_both_directions if row.bidirectional else _one_direction)(ax, row, name, nodes, top + 1, arrows)
        top += height
    ends = [_node(ax, t, top + 1, f"$y_{{{t}}}$ ({layer.output_size})") for t in range(steps)]
    arrows += zip(nodes, ends, strict=True)
    for start, end in arrows:  # last, for an arrow ends where its node is when it is drawn
        ax.annotate(
            "", end.get_position(), start.get_position(),
            arrowprops={
                "arrowstyle": "-|>", "color": "0.3", "shrinkA": 1, "shrinkB": 1,
                "patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch(),
            },
        )  # fmt: skip
    ax.set(xlim=(-1.15, steps - 0.15), ylim=(-0.4, top + 1.4))
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


def _node(ax: Any, x: float, y: float, text: str, colour: str | None = None) -> Any:
    box = {"boxstyle": "round,pad=0.4", "facecolor": colour, "edgecolor": "0.3"}
    plain = {"boxstyle": "round,pad=0.2", "facecolor": "none", "edgecolor": "none"}
    return ax.text(x, y, text, ha="center", va="center", fontsize=9, bbox=box if colour else plain)


def _one_direction(
    ax: Any, layer: RecurrentLayer, name: str, below: list, y: float, arrows: list, aside: float = 0
) -> list:
    """Draw the cells of one direction; the nodes of their outputs."""
    backward = aside > 0
    cells = [_node(ax, t + aside, y, name, _BACKWARD if backward else _FORWARD) for t in range(len(below))]
    which = "n" if backward else "0"
    states = "\n".join(f"${s}_{which}$ ({layer._state_width(s)})" for s in layer.state_names)
    chain = [_node(ax, -0.85, y, states), *cells, _node(ax, len(below) - 0.3, y, "...")]
    arrows += zip(below, cells, strict=True)
    arrows += pairwise(chain[::-1] if backward else chain)
    return cells


def _both_directions(ax: Any, layer: RecurrentLayer, name: str, below: list, y: float, arrows: list) -> list:
    """Draw the cells of two directions, and below and above each other what comes of them."""
    merged = [_node(ax, t, y + 2, layer.merge or "pair") for t in range(len(below))]
    for aside, height in ((-_ASIDE, y), (_ASIDE, y + 1)):
        arrows += zip(_one_direction(ax, layer, name, below, height, arrows, aside), merged, strict=True)
    return merged
