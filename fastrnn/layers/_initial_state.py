"""Where a layer starts from when no state is given: zeros, the end of its last call, or parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check
from fastrnn.module import Module


class InitialState(Module):
    """The part of a recurrent layer that `stateful` and `learn_initial_state` are about."""

    def _init_initial_state(self, stateful: bool, learned: bool) -> None:
        if stateful and learned:
            raise ValueError("stateful, learn_initial_state: both True, but a layer starts from one of the two")
        self.stateful, self.learn_initial_state = bool(stateful), bool(learned)
        self._remembered: tuple[np.ndarray, ...] | None = None  # one (D*num_layers, B, H) for each of the cell's

    def _start(self, state: Any, B: int) -> tuple[list[np.ndarray | None], list[str]]:
        """One (D*num_layers, B, H) array per state of the cell, or None for zeros; the names of those learned."""
        if state is None and self._remembered is not None:
            remembered = self._remembered[0].shape[1]
            if remembered != B:
                raise ValueError(
                    f"x: batch of {B}, expected {remembered} as in the remembered state; reset_state() starts anew"
                )
            return list(self._remembered), []
        parts = self._states("state", state, B)
        learned = []
        if self.learn_initial_state:
            learned = [name for name, part in zip(self.state_names, parts, strict=True) if part is None]
            parts = [
                self._learned(name, B) if part is None else part
                for name, part in zip(self.state_names, parts, strict=True)
            ]
        return parts, learned

    def _learned_names(self, state: str) -> list[str]:
        """The parameters that a state starts from, in the order of its first axis."""
        return [f"{state}0{suffix}" for k in range(self.num_layers) for suffix in self._suffixes(k)]

    def _learned(self, state: str, B: int) -> np.ndarray:
        rows = np.stack([self.params[name] for name in self._learned_names(state)])
        return np.repeat(rows[:, None], B, axis=1)

    def _add_learned_gradients(self, learned: list[str], dinitial: Any) -> None:
        """Add those of the initial state into those of the parameters it came from."""
        for state, d in zip(self.state_names, _parts(dinitial), strict=True):
            if state in learned:
                for name, rows in zip(self._learned_names(state), d, strict=True):
                    self.grads[name] += rows.sum(axis=0)

    def _remember(self, final: Any) -> None:
        """Keep a copy of a final state, whose arrays are the caller's."""
        if self.stateful:
            self._remembered = tuple(part.copy() for part in _parts(final))

    @property
    def state(self) -> Any:
        """
        What a stateful layer remembers, a copy; None where it starts from zeros.

        Assign one of any batch size to continue from it.
        """
        if self._remembered is None:
            return None
        copies = tuple(part.copy() for part in self._remembered)
        return copies if len(copies) > 1 else copies[0]

    @state.setter
    def state(self, value: Any) -> None:
        if not self.stateful:
            raise ValueError("state: the layer remembers none, expected one with stateful=True")
        if value is None:
            self._remembered = None
            return
        shapes = [np.shape(part) for part in (_parts(value) if len(self.state_names) > 1 else [value])]
        B = next((shape[1] for shape in shapes if len(shape) == 3), 0)
        many = self.directions * self.num_layers
        self._remembered = tuple(
            np.zeros((many, B, self._state_width(name)), self.dtype) if part is None else part.copy()
            for name, part in zip(self.state_names, self._states("state", value, B), strict=True)
        )

    def reset_state(self, mask: ArrayLike | None = None) -> None:
        """
        Let a stateful layer start from zeros again.

        Parameters
        ----------
        mask : bool (B,), optional
            Which sequences start anew. None is all, and the next call may be of another batch size.

        Raises
        ------
        ValueError
            For a layer that is not stateful, or another mask.
        """
        if not self.stateful:
            raise ValueError("reset_state: the layer remembers no state, expected one with stateful=True")
        if mask is None:
            self._remembered = None
        elif self._remembered is not None:
            rows = _check.batch_mask("mask", mask, self._remembered[0].shape[1])
            for part in self._remembered:
                part[:, rows] = 0


def _parts(state: Any) -> tuple | list:
    """The arrays of a state."""
    return state if isinstance(state, tuple | list) else (state,)
