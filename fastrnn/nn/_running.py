"""One way to run any module: plain or recurrent, for training or for its result only."""

from __future__ import annotations

from typing import Any

from fastrnn.module import Module


def run(module: Module, x: Any, training: bool, **options: Any) -> tuple[Any, Any]:
    """The output of a module, without the state that recurrent layers add, and its cache, or None."""
    if training:
        y, *_, cache = module.forward(x, **options)
        return y, cache
    y = module(x, **options)
    return (y[0] if isinstance(y, tuple) else y), None


def run_backward(module: Module, cache: Any, dy: Any) -> Any:
    """The gradient of what `run` was given as `x`, without those of further inputs."""
    dx = module.backward(cache, dy)
    return dx[0] if isinstance(dx, tuple) else dx
