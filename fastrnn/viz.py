"""Pictures, drawn with matplotlib (the extra `plot`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError("matplotlib is not installed; pip install 'fastrnn[plot]'") from None
    return pyplot


def plot_history(
    training: ArrayLike, validation: ArrayLike | None = None, *, unit: str = "loss", title: str = "", ax: Any = None
) -> Any:
    """
    Draw a loss over the epochs.

    Parameters
    ----------
    training, validation : sequence of float
        One value an epoch.
    unit : str
        What the values are, for the axis.
    title : str
        Above the picture.
    ax : matplotlib Axes, optional
        Where to draw; None makes a new figure of 800 by 500 pixels.

    Returns
    -------
    matplotlib.axes.Axes
        Its figure saves with ``ax.figure.savefig(path)``.

    Raises
    ------
    ImportError
        Without matplotlib; the message names the extra.
    """
    if ax is None:
        _, ax = _pyplot().subplots(figsize=(8, 5), dpi=100, layout="constrained")
    for label, values, marker in (("training", training, "o"), ("validation", validation, "s")):
        if values is None:
            continue
        values = np.asarray(values)
        ax.plot(np.arange(1, len(values) + 1), values, marker=marker, label=label)
        if len(values):
            ax.annotate(f"{values[-1]:.2f}", (len(values), values[-1]), xytext=(6, 4), textcoords="offset points")
    ax.set_xlabel("epoch")
    ax.set_ylabel(unit)
    ax.set_title(title)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.margins(x=0.08)
    ax.grid(alpha=0.3)
    ax.legend()
    return ax
