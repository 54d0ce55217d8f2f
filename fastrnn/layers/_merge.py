"""How the outputs of a layer's two directions become its output, and how a gradient goes back to them."""

from __future__ import annotations

from typing import Any

import numpy as np

MODES = ("concat", "sum", "mul", "ave", None)


def merged(mode: str | None, outputs: list[np.ndarray]) -> Any:
    """One array of the outputs of the directions (T,B,H); for None their tuple."""
    if len(outputs) == 1:
        return outputs[0]
    if mode == "concat":
        return np.concatenate(outputs, axis=2)
    forwards, backwards = outputs
    if mode == "sum":
        return forwards + backwards
    if mode == "mul":
        return forwards * backwards
    if mode == "ave":
        return (forwards + backwards) / 2
    return forwards, backwards


def parted(mode: str | None, d: Any, outputs: list[np.ndarray]) -> list[np.ndarray]:
    """The gradients of `outputs`, given that of what `merged` made of them."""
    if len(outputs) == 1:
        return [d]
    if mode == "concat":
        return np.split(d, 2, axis=2)
    forwards, backwards = outputs
    if mode == "sum":
        return [d, d]
    if mode == "mul":
        return [d * backwards, d * forwards]
    if mode == "ave":
        return [d / 2] * 2
    return list(d)
