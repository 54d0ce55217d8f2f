"""Pictures of training: the loss over the epochs, gradients by parameter and by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.module import Module
from fastrnn.viz._axes import axes, legend, numbers, over_steps

_CURVES = {"loss": ("training", "o", "C0"), "val_loss": ("validation", "s", "C1")}


def loss_history(history: Any, *, unit: str = "loss", title: str = "", ax: Any = None) -> Any:
    """
    Draw the loss of training and validation over the epochs, and where the validation was best.

    Parameters
    ----------
    history : History, or sequence of dict, or dict of str to sequence of float
        What `fastrnn.nn.fit` returns; or one record an epoch, with "loss" and perhaps "val_loss"; or the values of
        all epochs under these names. A value that is None or missing is a gap.
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
    TypeError, ValueError
        If there are no losses in `history`.
    """
    curves = _losses(history)
    ax = axes(ax)
    last = {name: values[-1] for name, values in curves.items() if np.isfinite(values[-1])}
    highest = max(last, key=last.get, default=None)  # its number stands above its end, the other one's below
    for name, values in curves.items():
        label, marker, colour = _CURVES[name]
        epochs = np.arange(1, len(values) + 1)
        ax.plot(epochs, values, marker=marker if len(values) <= 40 else None, color=colour, label=label)
        if name in last:
            above = name == highest
            ax.annotate(
                f"{values[-1]:.3g}", (epochs[-1], values[-1]), xytext=(0, 7 if above else -7),
                textcoords="offset points", ha="center", va="bottom" if above else "top",
            )  # fmt: skip
    validation = curves.get("val_loss")
    if validation is not None and np.isfinite(validation).any():
        best = int(np.nanargmin(validation))
        ax.axvline(best + 1, color="0.5", ls="--", label=f"best: {validation[best]:.3g} in epoch {best + 1}", zorder=0)
    over_steps(ax, "epoch", unit, title)
    ax.margins(0.1)  # room for the numbers at the ends
    legend(ax)
    return ax


def _losses(history: Any) -> dict[str, np.ndarray]:
    """The values under each name of `_CURVES` that has any."""
    records = getattr(history, "epochs", history)
    if isinstance(records, Mapping):
        columns = {name: records.get(name) for name in _CURVES}
    elif isinstance(records, Sequence) and all(isinstance(record, Mapping) for record in records):
        known = [name for name in _CURVES if any(name in record for record in records)]
        columns = {name: [record.get(name) for record in records] for name in known}
    else:
        raise TypeError(f"history: {type(history).__name__}, expected a History, records of epochs or a dict of losses")
    curves = {name: np.array(values, dtype=np.float64) for name, values in columns.items() if values is not None}
    curves = {name: values for name, values in curves.items() if name == "loss" or np.isfinite(values).any()}
    if "loss" not in curves or not curves["loss"].size:
        raise ValueError("history: no 'loss' in it, expected one value an epoch")
    if shapes := {name: values.shape for name, values in curves.items() if values.ndim != 1}:
        raise ValueError(f"history: shapes {shapes}, expected one value an epoch")
    return curves


def gradient_flow(module: Module | Mapping[str, float], *, ax: Any = None) -> Any:
    """
    Draw the norm of each parameter's gradient, on a logarithmic scale: which vanish, which explode.

    Parameters
    ----------
    module : Module, or mapping of str to float
        After a backward pass, or the norms by name.
    ax : matplotlib Axes, optional
        Where to draw; None makes a new figure as high as the names need.

    Returns
    -------
    matplotlib.axes.Axes
        The parameters in order, from the top down. A norm of 0 stands at the left edge as "0", one that is not finite
        at the right edge.

    Raises
    ------
    ImportError
        Without matplotlib.
    TypeError, ValueError
        For something else, or nothing in it.
    """
    if isinstance(module, Module):
        norms = {p.name: float(np.linalg.norm(p.grad.astype(np.float64))) for p in module.parameters()}
    elif isinstance(module, Mapping):
        norms = dict(module)
    else:
        raise TypeError(f"module: {type(module).__name__}, expected a Module or norms by name")
    values = numbers("module", list(norms.values()), "one norm for each parameter", (None,))
    ax = axes(ax, height=1.2 + 0.28 * len(values))
    rows = np.arange(len(values))
    shown = np.isfinite(values) & (values > 0)
    low, high = (values[shown].min() / 3, values[shown].max() * 3) if shown.any() else (0.1, 10)
    ax.hlines(rows[shown], low, values[shown], color="C0", alpha=0.4, lw=3)
    ax.plot(values[shown], rows[shown], "o", color="C0")
    for row in rows[~shown]:
        zero = values[row] == 0
        ax.annotate(
            "0" if zero else f"{values[row]}", (low if zero else high, row), xytext=(5 if zero else -5, 0),
            textcoords="offset points", ha="left" if zero else "right", va="center", color="C3", weight="bold",
        )  # fmt: skip
    ax.set(xscale="log", xlim=(low, high), ylim=(len(values) - 0.5, -0.5), xlabel="norm of the gradient")
    ax.set_yticks(rows, list(norms))
    ax.grid(axis="x", alpha=0.3)
    return ax


def gradient_over_time(
    norms: ArrayLike, labels: Sequence[str] | None = None, *, xlabel: str = "time step", ax: Any = None
) -> Any:
    """
    Draw norms of gradients by step on a logarithmic scale: how far back in time a loss reaches.

    Parameters
    ----------
    norms : array (T,) or (T, K)
        Of the gradient at each step, for K networks or layers. For a layer, ``np.linalg.norm(dx, axis=-1).mean(1)`` of
        the (T, B, I) that `backward` gave for a loss at the last step.
    labels : sequence of K str, optional
        What they are, for the legend.
    xlabel : str
        What a step is.
    ax : matplotlib Axes, optional
        Where to draw; None makes a new figure of 800 by 500 pixels.

    Returns
    -------
    matplotlib.axes.Axes
        With gaps where a norm is 0 or not finite.

    Raises
    ------
    ImportError
        Without matplotlib.
    TypeError, ValueError
        For norms of another shape, or not as many labels.
    """
    values = numbers("norms", norms, "(T,) or (T, K)", (None,), (None, None))
    values = values.reshape(len(values), -1)
    if labels is not None and len(labels) != values.shape[1]:
        raise ValueError(f"labels: {len(labels)} of them, expected one for each of {values.shape[1]} columns of norms")
    values = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    ax = axes(ax)
    for k, column in enumerate(values.T):
        ax.plot(column, label=None if labels is None else labels[k], marker="." if len(column) <= 100 else None)
    over_steps(ax, xlabel, "norm of the gradient")
    ax.set_yscale("log")
    if labels is not None:
        legend(ax)
    return ax
