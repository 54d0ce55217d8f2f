"""Gradient clipping, as in `torch.nn.utils`."""

from __future__ import annotations

import math

import numpy as np

from fastrnn.module import Module, checked_module


def clip_grad_value_(module: Module, clip_value: float) -> None:
    """
    Clamp every element of every gradient to +-`clip_value`, in place.

    Parameters
    ----------
    module : Module
        Whose gradients, those of the modules in it among them.
    clip_value : float
        The largest absolute value.

    Raises
    ------
    TypeError, ValueError
        For what is no module, or if `clip_value` is not a number above 0.
    """
    if not clip_value > 0:
        raise ValueError(f"clip_value: {clip_value!r}, expected a number above 0")
    for parameter in checked_module("module", module).parameters():
        np.clip(parameter.grad, -clip_value, clip_value, out=parameter.grad)


def clip_grad_norm_(module: Module, max_norm: float) -> float:
    """
    Scale all gradients together so that their global norm is at most `max_norm`, in place.

    Parameters
    ----------
    module : Module
        Whose gradients, those of the modules in it among them.
    max_norm : float
        The largest norm.

    Returns
    -------
    float
        The norm before. Where it is not finite the gradients are left as they are, for there is nothing to scale to.

    Raises
    ------
    TypeError, ValueError
        For what is no module, or if `max_norm` is not a number above 0.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm: {max_norm!r}, expected a number above 0")
    checked_module("module", module)
    norm = math.sqrt(sum(float(np.square(p.grad).sum(dtype=np.float64)) for p in module.parameters()))
    if max_norm < norm < math.inf:
        for _, _, grad in module.parameters():
            grad *= grad.dtype.type(max_norm / norm)
    return norm
