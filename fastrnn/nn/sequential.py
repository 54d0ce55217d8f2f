"""Modules one after the other."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn import _check
from fastrnn.module import Module
from fastrnn.nn._masking import cleared, valid_steps
from fastrnn.nn._running import run, run_backward
from fastrnn.nn.embedding import Embedding


class SequentialCache(NamedTuple):
    """What `backward` needs: the modules' caches, and the valid steps of `x`."""

    caches: list[Any]
    valid: np.ndarray | None


class Sequential(Module):
    """
    Modules one after the other, each reading the output of the one before; samples are on the first axis.

    Of a recurrent layer, which must be ``batch_first``, the output goes on, and its state is left.

    Parameters
    ----------
    *modules : Module
        Their parameters are named with their place in front, ``0.weight_ih_l0``. One without parameters may come twice.

    Raises
    ------
    TypeError, ValueError
        For no modules, something else than one, or a layer whose output cannot go on.

    Examples
    --------
    >>> from fastrnn import nn
    >>> model = nn.Sequential(fastrnn.GRU(8, 32, batch_first=True, rng=0), nn.LastStep(), nn.Linear(32, 2, rng=0))
    >>> logits = model(np.ones((3, 100, 8), np.float32), lengths=[100, 7, 0])
    >>> print(model.summary((100, 8)))
       module    output        parameters
    -------------------------------------
       input     (N, 100, 8)
    0  GRU       (N, 100, 32)       4,032
    1  LastStep  (N, 32)                0
    2  Linear    (N, 2)                66
    -------------------------------------
       total                        4,098
    """

    def __init__(self, *modules: Module):
        super().__init__()
        if not modules:
            raise ValueError("modules: none, expected at least one")
        for k, module in enumerate(modules):
            _check_module(k, module, modules[:k])
            setattr(self, str(k), module)
        self._count = len(modules)

    @property
    def modules(self) -> tuple[Module, ...]:
        """The modules, from the first on."""
        return tuple(vars(self)[str(k)] for k in range(self._count))

    @property
    def uses_lengths(self) -> bool:
        """Whether any of the modules does."""
        return any(module.uses_lengths for module in self.modules)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules)

    def __getitem__(self, k: int) -> Module:
        return self.modules[k]

    def __call__(self, x: ArrayLike, lengths: ArrayLike | None = None) -> np.ndarray:
        """
        Run the modules for the result only.

        Parameters
        ----------
        x : array (N, ...), with lengths (N, T, ...)
            What the first module takes.
        lengths : integers (N,), optional
            The number of valid steps of each sequence, for every module that uses them. What stands in `x` past the
            ends has no effect on the steps before.

        Returns
        -------
        array
            What the last module gives.
        """
        return self._run(x, lengths, False)[0]

    def forward(self, x: ArrayLike, lengths: ArrayLike | None = None) -> tuple[np.ndarray, SequentialCache]:
        """The same for training, and the cache for `backward`."""
        return self._run(x, lengths, True)

    def backward(self, cache: SequentialCache, dy: ArrayLike) -> np.ndarray | None:
        """Add into the gradients of all modules; return that with respect to `x`, None where indices went in."""
        for module, part in zip(reversed(self.modules), reversed(cache.caches), strict=True):
            dy = run_backward(module, part, dy)
        return None if dy is None else cleared(dy, cache.valid)

    def _run(self, x: Any, lengths: Any, training: bool) -> tuple[np.ndarray, SequentialCache]:
        valid, caches = None, []
        if lengths is not None:
            x = _check.as_array("x", x)
            if x.ndim < 2:
                raise ValueError(f"x: shape {x.shape}, expected (N, T, ...) beside lengths")
            valid = valid_steps(lengths, None, *x.shape[:2])
            x = cleared(x, valid)
        for module in self.modules:
            x, part = run(module, x, training, **({"lengths": lengths} if module.uses_lengths else {}))
            caches.append(part)
        return x, SequentialCache(caches, valid)

    def summary(self, input_shape: tuple[int, ...], dtype: DTypeLike | None = None) -> str:
        """
        A table of the modules, the shapes of their outputs, and how many numbers their parameters have.

        Parameters
        ----------
        input_shape : tuple of int
            That of one sample: without the first axis, which the table calls N.
        dtype : dtype, optional
            Of the input; None is what the first module with parameters takes: integers, or its floats.
        """
        first = next((module for module in _leaves(self) if module.params), None)
        if dtype is None:
            dtype = np.intp if isinstance(first, Embedding) else getattr(first, "dtype", np.float32)
        x = np.zeros((1, *input_shape), dtype)
        rows = [("", "module", "output", "parameters"), ("", "input", _shape(x), "")]
        for k, module in enumerate(self.modules):
            twin = copy.deepcopy(module)  # so that a stateful layer does not remember this
            if getattr(twin, "stateful", False):
                twin.reset_state()
            x, _ = run(twin, x, False)
            rows.append((str(k), type(module).__name__, _shape(x), f"{_size(module):,}"))
        rows.append(("", "total", "", f"{_size(self):,}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"{place:>{widths[0]}}  {name:<{widths[1]}}  {shape:<{widths[2]}}  {count:>{widths[3]}}"
            for place, name, shape, count in rows
        ]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _check_module(k: int, module: Any, before: tuple[Module, ...]) -> None:
    if not isinstance(module, Module):
        raise TypeError(f"modules[{k}]: {type(module).__name__}, expected a fastrnn.Module")
    if any(module is other for other in before) and any(True for _ in module.parameters()):
        raise ValueError(f"modules[{k}]: the same object as one before it, expected one with parameters of its own")
    if not getattr(module, "batch_first", True):
        raise ValueError(f"modules[{k}]: batch_first False, expected True, for samples are on the first axis")
    if getattr(module, "merge", "concat") is None:
        raise ValueError(f"modules[{k}]: merge=None gives two outputs, expected one")


def _leaves(module: Module) -> Iterator[Module]:
    """A module and those in it, in the order in which they run."""
    yield module
    for child in vars(module).values():
        if isinstance(child, Module):
            yield from _leaves(child)


def _shape(x: np.ndarray) -> str:
    return f"({', '.join(['N', *map(str, x.shape[1:])])})"


def _size(module: Module) -> int:
    return sum(parameter.value.size for parameter in module.parameters())
