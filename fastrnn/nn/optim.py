"""Optimisers: they change the parameters of a module in place, from its gradients."""

from __future__ import annotations

import math

import numpy as np

from fastrnn.module import Module


class Adam:
    """
    Adam, as `torch.optim.Adam`.

    Parameters
    ----------
    module : Module
        Whose parameters to optimise; it keeps its arrays, so it may be trained, loaded and read in between.
    lr : float
        Learning rate; may be changed between steps.
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

    def __init__(self, module: Module, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8):
        if not (0 <= lr < math.inf):
            raise ValueError(f"lr: {lr!r}, expected a finite number from 0")
        if not (0 <= eps < math.inf):
            raise ValueError(f"eps: {eps!r}, expected a finite number from 0")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas: {betas!r}, expected two numbers from 0 to below 1")
        self.module, self.lr, self.betas, self.eps = module, lr, betas, eps
        self.steps = 0
        self._moments = [(np.zeros_like(p.value), np.zeros_like(p.value)) for p in module.parameters()]

    def zero_grad(self) -> None:
        """Set every gradient to zeros."""
        self.module.zero_grad()

    def step(self) -> None:
        """Move every parameter by one step."""
        self.steps += 1
        beta1, beta2 = self.betas
        step_size = self.lr / (1 - beta1**self.steps)
        root = math.sqrt(1 - beta2**self.steps)
        for (_, value, grad), (mean, square) in zip(self.module.parameters(), self._moments, strict=True):
            mean += (1 - beta1) * (grad - mean)
            square *= beta2
            update = grad * grad
            update *= 1 - beta2
            square += update
            np.sqrt(square, out=update)
            update /= root
            update += self.eps
            np.divide(mean, update, out=update)
            update *= step_size
            value -= update
