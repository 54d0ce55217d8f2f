"""Schedules: what becomes of an optimiser's learning rate from epoch to epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastrnn._check import positive_int

__all__ = ["CosineLR", "ExponentialLR", "ReduceOnPlateau", "Schedule", "StepLR", "WarmupLR"]


class Schedule:
    """
    What all schedules share; one of your own needs a `_lr`.

    Parameters
    ----------
    optimiser
        With an attribute `lr`, whose value now is what the schedule starts from.

    Attributes
    ----------
    base_lr : float
        What it started from.
    steps : int
        How many have been made.
    """

    _changing: tuple[str, ...] = ("base_lr", "steps")  # the numbers that say how far it has come

    def __init__(self, optimiser: Any):
        if not hasattr(optimiser, "lr"):
            raise TypeError(f"optimiser: {type(optimiser).__name__}, expected one with an lr")
        self.optimiser = optimiser
        self.base_lr = float(optimiser.lr)
        self.steps = 0

    def step(self, metric: float | None = None) -> None:
        """
        Set the learning rate of the epoch to come.

        Parameters
        ----------
        metric : float, optional
            How well the last one went, less is better; for those that ask for it.
        """
        self.steps += 1
        self.optimiser.lr = self._lr(metric)

    def _lr(self, metric: float | None) -> float:
        """The learning rate after `steps` steps."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The numbers that say how far it has come."""
        return {name: getattr(self, name) for name in self._changing}

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """
        Go on from where `state_dict` was taken; the learning rate itself is the optimiser's to load.

        Raises
        ------
        ValueError
            For a missing or unknown name; then nothing has changed.
        """
        old = self.state_dict()
        if mapping.keys() != old.keys():
            raise ValueError(f"mapping: names {sorted(mapping)}, expected {sorted(old)}")
        for name, value in {name: type(old[name])(mapping[name]) for name in old}.items():
            setattr(self, name, value)


class StepLR(Schedule):
    """
    Times `gamma` after every `step_size` steps, as in PyTorch.

    Parameters
    ----------
    optimiser
        See `Schedule`.
    step_size : int
    gamma : float
        Above 0.
    """

    def __init__(self, optimiser: Any, step_size: int, gamma: float = 0.1):
        self.step_size, self.gamma = positive_int("step_size", step_size), _positive("gamma", gamma)
        super().__init__(optimiser)

    def _lr(self, metric: float | None) -> float:
        return self.base_lr * self.gamma ** (self.steps // self.step_size)


class ExponentialLR(Schedule):
    """
    Times `gamma` after every step, as in PyTorch.

    Parameters
    ----------
    optimiser
        See `Schedule`.
    gamma : float
        Above 0.
    """

    def __init__(self, optimiser: Any, gamma: float):
        self.gamma = _positive("gamma", gamma)
        super().__init__(optimiser)

    def _lr(self, metric: float | None) -> float:
        return self.base_lr * self.gamma**self.steps


class CosineLR(Schedule):
    """
    Down to `eta_min` in half a cosine of `T_max` steps, as PyTorch's CosineAnnealingLR, and there it stays.

    Parameters
    ----------
    optimiser
        See `Schedule`.
    T_max : int
    eta_min : float
        From 0.

    Notes
    -----
    Loshchilov & Hutter, SGDR: stochastic gradient descent with warm restarts, 2017, equation 5, without restarts.
    """

    def __init__(self, optimiser: Any, T_max: int, eta_min: float = 0.0):
        self.T_max, self.eta_min = positive_int("T_max", T_max), eta_min
        if not 0 <= eta_min < math.inf:
            raise ValueError(f"eta_min: {eta_min!r}, expected a finite number from 0")
        super().__init__(optimiser)

    def _lr(self, metric: float | None) -> float:
        angle = math.pi * min(self.steps, self.T_max) / self.T_max
        return self.eta_min + (self.base_lr - self.eta_min) * (1 + math.cos(angle)) / 2


class ReduceOnPlateau(Schedule):
    """
    Times `factor` when the metric has not got better for more than `patience` steps, as PyTorch's ReduceLROnPlateau.

    Parameters
    ----------
    optimiser
        See `Schedule`.
    factor : float
        Between 0 and 1.
    patience : int
        How many steps in a row without a better metric are borne, from 0.
    threshold : float
        Better is below ``best * (1 - threshold)``, of a negative best ``best * (1 + threshold)``; in [0, 1).
    min_lr : float
        It does not go below, from 0.
    """

    _changing = (*Schedule._changing, "best", "bad")

    def __init__(
        self, optimiser: Any, factor: float = 0.1, patience: int = 10, *, threshold: float = 1e-4, min_lr: float = 0.0
    ):
        for name, value, good, expected in (
            ("factor", factor, 0 < factor < 1, "a number between 0 and 1"),
            ("patience", patience, patience >= 0, "a whole number from 0"),
            ("threshold", threshold, 0 <= threshold < 1, "a number from 0 to below 1"),
            ("min_lr", min_lr, 0 <= min_lr < math.inf, "a finite number from 0"),
        ):
            if not good:
                raise ValueError(f"{name}: {value!r}, expected {expected}")
        self.factor, self.patience, self.threshold, self.min_lr = factor, patience, threshold, min_lr
        self.best, self.bad = math.inf, 0
        super().__init__(optimiser)

    def step(self, metric: float | None = None) -> None:
        """Take in the metric, which is needed here, and set the learning rate."""
        if metric is None:
            raise ValueError("metric: None, expected a number to see by whether it still gets better")
        super().step(float(metric))

    def _lr(self, metric: float | None) -> float:
        least = self.threshold * abs(self.best) if self.best < math.inf else 0.0
        better = metric < self.best - least
        self.best, self.bad = (metric, 0) if better else (self.best, self.bad + 1)
        if self.bad <= self.patience:
            return self.optimiser.lr
        self.bad = 0
        return max(self.optimiser.lr * self.factor, self.min_lr)


class WarmupLR(Schedule):
    """
    Up in a straight line, as PyTorch's LinearLR, and then what another schedule says.

    It sets the learning rate of the first epoch as soon as it is made, so make `after` before it.

    Parameters
    ----------
    optimiser
        See `Schedule`.
    warmup : int
        After how many steps the optimiser's learning rate of now is reached.
    after : Schedule, optional
        What goes on from there; None stays there.
    start_factor : float
        The part of it that the first epoch has, above 0 to 1.
    """

    def __init__(self, optimiser: Any, warmup: int, after: Schedule | None = None, *, start_factor: float = 1 / 3):
        if not 0 < start_factor <= 1:
            raise ValueError(f"start_factor: {start_factor!r}, expected a number above 0 to 1")
        self.warmup, self.after, self.start_factor = positive_int("warmup", warmup), after, start_factor
        super().__init__(optimiser)
        optimiser.lr = self._lr(None)

    def _lr(self, metric: float | None) -> float:
        if self.steps > self.warmup and self.after is not None:
            self.after.step(metric)
            return self.optimiser.lr
        way = min(self.steps / self.warmup, 1.0)
        return self.base_lr * (self.start_factor + (1 - self.start_factor) * way)

    def state_dict(self) -> dict[str, Any]:
        """The numbers that say how far both have come."""
        after = {} if self.after is None else self.after.state_dict()
        return super().state_dict() | {f"after.{name}": value for name, value in after.items()}

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """As of `Schedule`, for both."""
        if mapping.keys() != self.state_dict().keys():
            raise ValueError(f"mapping: names {sorted(mapping)}, expected {sorted(self.state_dict())}")
        self.base_lr, self.steps = float(mapping["base_lr"]), int(mapping["steps"])
        if self.after is not None:
            after = {k.removeprefix("after."): v for k, v in mapping.items() if k.startswith("after.")}
            self.after.load_state_dict(after)


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: {value!r}, expected a finite number above 0")
    return value
