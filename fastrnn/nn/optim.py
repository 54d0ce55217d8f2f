"""Optimisers: they change the parameters of a module in place, from its gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn.module import Module, checked_module

__all__ = ["SGD", "Adam", "AdamW", "Optimiser", "RMSprop"]


class Optimiser:
    """
    What all optimisers share; one of your own needs a `_update`.

    Parameters
    ----------
    module : Module
        Whose parameters to optimise; it keeps its arrays, so it may be trained, loaded and read in between.
    lr : float
        Learning rate, from 0; may be changed between steps.
    weight_decay : float
        What each parameter is pulled towards zero with, from 0.
    slots : tuple of str
        The names of the arrays that it keeps for each parameter, zeros at first.

    Attributes
    ----------
    lr : float
    steps : int
        How many have been made.

    Raises
    ------
    TypeError, ValueError
        For what is no module, and a setting that is out of range or not finite.
    """

    def __init__(self, module: Module, lr: float, weight_decay: float = 0.0, slots: tuple[str, ...] = ()):
        self.module = checked_module("module", module)
        self.lr = _from_zero("lr", lr)
        self.weight_decay = _from_zero("weight_decay", weight_decay)
        self.steps = 0
        self._slots = {slot: [np.zeros_like(p.value) for p in module.parameters()] for slot in slots}

    def zero_grad(self) -> None:
        """Set every gradient to zeros."""
        self.module.zero_grad()

    def step(self) -> None:
        """Move every parameter by one step."""
        self.steps += 1
        for (_, value, grad), *kept in zip(self.module.parameters(), *self._slots.values(), strict=True):
            self._update(value, grad, *kept)

    def _update(self, value: np.ndarray, grad: np.ndarray, *kept: np.ndarray) -> None:
        """Change a parameter and what is kept for it, in place; `grad` stays as it is."""
        raise NotImplementedError

    def _decayed(self, value: np.ndarray, grad: np.ndarray) -> np.ndarray:
        """The gradient with that of the penalty weight_decay/2 |value|^2."""
        return grad + self.weight_decay * value if self.weight_decay else grad

    def _arrays(self) -> dict[str, np.ndarray]:
        names = [p.name for p in self.module.parameters()]
        return {f"{slot}.{n}": a for slot, arrays in self._slots.items() for n, a in zip(names, arrays, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """
        All that changes from step to step.

        Returns
        -------
        dict
            The numbers ``lr`` and ``steps``, and copies of arrays, named with the slot and the parameter. Other
            settings are those of the constructor.
        """
        return {"lr": self.lr, "steps": self.steps, **{name: array.copy() for name, array in self._arrays().items()}}

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """
        Go on from where `state_dict` was taken.

        Raises
        ------
        ValueError, TypeError
            For a missing or unknown name, an array of another shape, or numbers out of range; then nothing has changed.
        """
        arrays = self._arrays()
        if mapping.keys() != {"lr", "steps", *arrays}:
            odd = sorted(mapping.keys() ^ {"lr", "steps", *arrays})
            raise ValueError(f"mapping: it lacks, or has beyond what {type(self).__name__} keeps, {odd}")
        lr, steps = _from_zero("lr", float(mapping["lr"])), int(mapping["steps"])
        if steps < 0:
            raise ValueError(f"steps: {steps}, expected a whole number from 0")
        values = {name: np.asarray(mapping[name]) for name in arrays}
        for name, value in values.items():
            if value.shape != arrays[name].shape or value.dtype.kind != "f":
                raise ValueError(f"{name}: {value.dtype} {value.shape}, expected floats {arrays[name].shape}")
        self.lr, self.steps = lr, steps
        for name, value in values.items():
            arrays[name][...] = value


class SGD(Optimiser):
    """
    Steps down the gradient, with momentum, as `torch.optim.SGD`.

    Parameters
    ----------
    module, lr, weight_decay
        See `Optimiser`; the decay is added to the gradient.
    momentum : float
        In [0, 1): what remains of the last step's velocity.
    nesterov : bool
        Whether the gradient counts as if taken one step of the velocity ahead.

    Raises
    ------
    ValueError
        For a setting out of range, or `nesterov` without momentum.

    Notes
    -----
    Sutskever, Martens, Dahl & Hinton, On the importance of initialization and momentum in deep learning, 2013, with the
    learning rate outside the velocity: ``v = momentum v + g``, ``w -= lr v``.
    """

    def __init__(
        self,
        module: Module,
        lr: float = 1e-3,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ):
        self.momentum, self.nesterov = _below_one("momentum", momentum), bool(nesterov)
        if nesterov and not momentum:
            raise ValueError("nesterov: True, expected a momentum above 0 with it")
        super().__init__(module, lr, weight_decay, ("velocity",) if momentum else ())

    def _update(self, value: np.ndarray, grad: np.ndarray, *kept: np.ndarray) -> None:
        step = grad = self._decayed(value, grad)
        for velocity in kept:
            velocity *= self.momentum
            velocity += grad
            step = grad + self.momentum * velocity if self.nesterov else velocity
        value -= self.lr * step


class RMSprop(Optimiser):
    """
    Gradients divided by the root of a running mean of their squares, as `torch.optim.RMSprop`.

    Parameters
    ----------
    module, lr, weight_decay
        See `Optimiser`; the decay is added to the gradient.
    alpha : float
        Decay of the running mean, in [0, 1).
    eps : float
        Added to the root, at least 0.
    momentum : float
        As of `SGD`, for the gradients divided.
    centered : bool
        Whether the mean square is taken about the running mean, which makes it a variance.

    Notes
    -----
    Tieleman & Hinton, Neural networks for machine learning, lecture 6.5, 2012; centred: Graves, Generating sequences
    with recurrent neural networks, 2013, equations 38 to 41.
    """

    def __init__(
        self,
        module: Module,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        *,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
    ):
        self.alpha, self.eps = _below_one("alpha", alpha), _from_zero("eps", eps)
        self.momentum, self.centered = _below_one("momentum", momentum), bool(centered)
        slots = ("square", *(["mean"] if centered else []), *(["velocity"] if momentum else []))
        super().__init__(module, lr, weight_decay, slots)

    def _update(self, value: np.ndarray, grad: np.ndarray, *kept: np.ndarray) -> None:
        grad = self._decayed(value, grad)
        square, *others = kept
        square *= self.alpha
        square += (1 - self.alpha) * (grad * grad)
        about = square
        if self.centered:
            mean = others.pop(0)
            mean += (1 - self.alpha) * (grad - mean)
            about = square - mean * mean
        step = grad / (np.sqrt(about) + self.eps)
        for velocity in others:
            velocity *= self.momentum
            velocity += step
            step = velocity
        value -= self.lr * step


class Adam(Optimiser):
    """
    Adam, as `torch.optim.Adam`.

    Parameters
    ----------
    module, lr, weight_decay
        See `Optimiser`; the decay is added to the gradient.
    betas : (float, float)
        Decay of the running mean of the gradient and of its square, each in [0, 1).
    eps : float
        Added to the root of the second, at least 0.

    Raises
    ------
    ValueError
        For a setting out of range or not finite.

    Notes
    -----
    Kingma & Ba, Adam: a method for stochastic optimization, 2015, algorithm 1.
    """

    def __init__(
        self,
        module: Module,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: float = 0.0,
    ):
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas: {betas!r}, expected two numbers from 0 to below 1")
        self.betas, self.eps = tuple(betas), _from_zero("eps", eps)
        super().__init__(module, lr, weight_decay, ("mean", "square"))

    def _update(self, value: np.ndarray, grad: np.ndarray, *kept: np.ndarray) -> None:
        (mean, square), (beta1, beta2) = kept, self.betas
        grad = self._decayed(value, grad)
        mean += (1 - beta1) * (grad - mean)
        square *= beta2
        update = grad * grad
        update *= 1 - beta2
        square += update
        np.sqrt(square, out=update)
        update /= math.sqrt(1 - beta2**self.steps)
        update += self.eps
        np.divide(mean, update, out=update)
        update *= self.lr / (1 - beta1**self.steps)
        value -= update


class AdamW(Adam):
    """
    Adam whose decay acts on the parameters and not through the gradients, as `torch.optim.AdamW`.

    Parameters
    ----------
    module, lr, betas, eps
        As of `Adam`.
    weight_decay : float
        The parameters are multiplied by ``1 - lr * weight_decay`` before each step.

    Notes
    -----
    Loshchilov & Hutter, Decoupled weight decay regularization, 2019, algorithm 2.
    """

    def __init__(
        self,
        module: Module,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: float = 1e-2,
    ):
        super().__init__(module, lr, betas, eps, weight_decay=weight_decay)

    def _decayed(self, value: np.ndarray, grad: np.ndarray) -> np.ndarray:
        value *= 1 - self.lr * self.weight_decay  # and the gradient stays what it is
        return grad


def _from_zero(name: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}: {value!r}, expected a finite number from 0")
    return value


def _below_one(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name}: {value!r}, expected a number from 0 to below 1")
    return value
