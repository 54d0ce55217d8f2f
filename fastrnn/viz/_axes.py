"""What the pictures share: where they are drawn, checked values, lines over steps, heat maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check

DPI = 100  # a figure 8 inches wide has 800 pixels


def pyplot() -> Any:
    """matplotlib.pyplot, imported when it is first used."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError("matplotlib is not installed; pip install 'fastrnn[plot]'") from None
    return pyplot


def axes(ax: Any = None, height: float = 5, count: int | None = None) -> Any:
    """`ax`, or that of a new figure 800 pixels wide; `count` of them below each other, with one axis of steps."""
    if ax is not None:
        return ax
    shape = {"nrows": count, "sharex": True, "squeeze": False} if count else {}
    _, ax = pyplot().subplots(figsize=(8, height), dpi=DPI, layout="constrained", **shape)
    return list(ax[:, 0]) if count else ax


def numbers(name: str, value: ArrayLike, axes: str, *shapes: tuple[int | None, ...]) -> np.ndarray:
    """`value` as floats of one of these shapes, where None is any size from 1; `axes` names them in the message."""
    array = _check.as_array(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: dtype {array.dtype}, expected real numbers")
    # None is what the array has there.
    if array.shape not in (
        tuple(n if want is None else want for n, want in zip(array.shape, shape, strict=False))
        for shape in shapes
        if len(shape) == array.ndim
    ):
        raise ValueError(f"{name}: shape {array.shape}, expected {axes}")
    if not array.size:
        raise ValueError(f"{name}: shape {array.shape}, expected {axes} with no size 0")
    return array.astype(np.float64)


def over_steps(ax: Any, xlabel: str, ylabel: str, title: str = "") -> None:
    """Label a picture whose x axis counts."""
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    ax.grid(alpha=0.3)


def legend(ax: Any, **options: Any) -> None:
    """Say what the lines are, without taking room from the axes beside these."""
    ax.legend(fontsize="small", **options).set_in_layout(False)


def heat_map(ax: Any, values: np.ndarray, label: str, *, signed: bool, top: float | None = None) -> Any:
    """
    Draw rows from the top down, with a bar that says what the colours are; the image.

    Signed values are red above 0 and blue below it, as far from white as `top`; others go from 0 to `top`. Where that
    is None it is the largest one.
    """
    if top is None:
        top = float(np.abs(values[np.isfinite(values)]).max(initial=0)) or 1.0
    colours = {"cmap": "RdBu_r", "vmin": -top} if signed else {"cmap": "viridis", "vmin": 0}
    image = ax.imshow(values, **colours, vmax=top, aspect="auto", interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label=label, pad=0.02)
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return image
