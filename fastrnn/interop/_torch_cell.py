"""One layer and direction of a recurrent module as PyTorch's autograd sees it; `fastrnn.interop.torch` is its face."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from fastrnn import functional
from fastrnn._cache import Cache, GRUGrads, LSTMGrads, RNNGrads
from fastrnn.variants import Variant

FORWARD = {"rnn": functional.rnn_forward, "lstm": functional.lstm_forward, "gru": functional.gru_forward}
BACKWARD = {"rnn": functional.rnn_backward, "lstm": functional.lstm_backward, "gru": functional.gru_backward}
# The tensors of a cell, in the order of its forward function; those of a variant follow. States are (1, B, H), a part
# of what modules have, for every view that autograd sees costs two microseconds.
TENSORS = {cell: grads._fields[:-1] for cell, grads in (("rnn", RNNGrads), ("lstm", LSTMGrads), ("gru", GRUGrads))}


class Call(NamedTuple):
    """What a cell is called with besides tensors."""

    cell: str
    options: dict[str, Any]  # of its forward function
    variant: dict[str, Any] | None = None  # the arguments of a Variant that are no arrays, if there is one
    arrays: tuple[str, ...] = ()  # the names of those that are: they are the last tensors


def run(call: Call, tensors: tuple[torch.Tensor | None, ...], save: bool) -> tuple[list[np.ndarray], Cache | None]:
    """The outputs y, h_n (c_n), and the cache if that is to be saved; nothing is copied on the way in."""
    arrays = [None if t is None else t.numpy(force=True) for t in tensors]
    for k in range(1, len(TENSORS[call.cell]) - 4):
        arrays[k] = None if arrays[k] is None else arrays[k][0]
    if call.variant is None:
        y, *states, cache = FORWARD[call.cell](*arrays, **call.options, save=save)
    else:
        own = len(arrays) - len(call.arrays)
        variant = Variant(**call.variant, **dict(zip(call.arrays, arrays[own:], strict=True)))
        y, *states, cache = FORWARD[call.cell](*arrays[:own], **call.options, variant=variant, save=save)
    return [y, *(state[None] for state in states)], cache


def run_backward(
    call: Call, cache: Cache, dy: torch.Tensor | None, dstates: tuple[torch.Tensor | None, ...], need: tuple[bool, ...]
) -> list[torch.Tensor | None]:
    """The gradients of the tensors, None for those that are not needed."""
    names = TENSORS[call.cell]
    own = len(need) - len(call.arrays)
    want = [name for name, wanted in zip(names, need, strict=False) if wanted]
    if any(need[own:]):
        want.append("variant")
    arriving = [None if d is None else d.numpy(force=True)[0] for d in dstates]
    dy = None if dy is None else dy.numpy(force=True)
    grads = BACKWARD[call.cell](cache, dy, *arriving, need=want)
    found = [*grads[:own], *(grads.variant[name] if "variant" in want else None for name in call.arrays)]
    for k in range(1, 1 + len(dstates)):
        found[k] = found[k][None] if need[k] else None
    return [torch.from_numpy(g) if wanted else None for g, wanted in zip(found, need, strict=True)]


_left_alone: dict[Callable, Callable] = {}


def apart(function: Callable, *arguments: Any) -> Any:
    """
    Call a function that `torch.compile` is to leave alone.

    It breaks its graph at recurrent modules, and then looks into every Python function that they call.
    """
    if "torch._dynamo" not in sys.modules:  # nothing has been compiled, and importing it takes a second
        return function(*arguments)
    if function not in _left_alone:
        _left_alone[function] = torch.compiler.disable(function)
    return _left_alone[function](*arguments)


class Cell(torch.autograd.Function):
    """A cell over whole sequences: ``apply(call, *tensors)`` is y, h_n (c_n)."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Run, and keep the cache; PyTorch keeps the tensors that it refers to, and sees whether any is changed."""
        outputs, cache = run(call, tensors, True)
        outputs[0].flags.writeable = True  # from now on it is PyTorch that says so if y is changed before backward
        results = tuple(map(torch.from_numpy, outputs))
        ctx.save_for_backward(*tensors, results[0])
        ctx.set_materialize_grads(False)
        ctx.call, ctx.cache = call, cache
        return results

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor | None, *dstates: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Run back; a second time, with retain_graph=True, after another forward, for a cache is used up."""
        *tensors, _ = ctx.saved_tensors
        cache, ctx.cache = ctx.cache, None
        if cache is None:
            _, cache = apart(run, ctx.call, tensors, True)
        grads = apart(run_backward, ctx.call, cache, dy, dstates, ctx.needs_input_grad[1:])
        if torch.is_grad_enabled():  # create_graph=True
            grads = _Once.apply(len(grads), *grads, *tensors, dy, *dstates)
        return None, *grads


class _Once(torch.autograd.Function):
    """Gradients as they are, and an error for whoever wants theirs: without it they would pass for constants."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        return tuple(None if t is None else t.detach() for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor | None) -> None:
        raise RuntimeError(
            "fastrnn.interop.torch: gradients of gradients asked for, which these modules do not have; torch.nn's "
            "have them on the CPU, see restore_rnns"
        )
