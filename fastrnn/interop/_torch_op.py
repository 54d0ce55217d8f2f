"""A plain cell as one operator that `torch.compile` and `torch.export` see nothing of but shapes.

An operator has only tensors to hand its backward pass. So a forward pass also returns a number in a tensor whose
memory belongs to an array that holds the cache: the cache lives as long as the tensor does. Whoever comes with a number
that is no longer known, for its cache is used up, has the forward pass run again. The cache refers to y, which goes to
the backward pass for that reason alone: where a compiler sees no more use of it, it has other results in its memory.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastrnn.interop._torch_cell import TENSORS, Call, run, run_backward


class _Held(np.ndarray):
    """A number that has a cache with it."""

    cache: Any = None


_numbers = itertools.count(1)
_held: weakref.WeakValueDictionary[int, _Held] = weakref.WeakValueDictionary()

# In schemas: the tensors of any cell, then what else its Call is made of.
ARGUMENTS = (
    "str cell, Tensor x, Tensor? h0, Tensor? c0, Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh, "
    "Tensor? lengths, bool reverse, str nonlinearity, bool reset_after"
)
NAMES = ("x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh")


def _call(cell: str, lengths: Tensor | None, reverse: bool, nonlinearity: str, reset_after: bool) -> Call:
    own = {"rnn": {"nonlinearity": nonlinearity}, "gru": {"reset_after": reset_after}}.get(cell, {})
    return Call(cell, {"lengths": lengths, "reverse": reverse, **own})


def _forward(cell, x, h0, c0, w_ih, w_hh, b_ih, b_hh, lengths, reverse, nonlinearity, reset_after, save):
    call = _call(cell, lengths, reverse, nonlinearity, reset_after)
    outputs, cache = run(call, _of_cell(cell, (x, h0, c0, w_ih, w_hh, b_ih, b_hh)), save)
    outputs[0].flags.writeable = True  # an operator's result is PyTorch's
    held = np.zeros(1, np.int64).view(_Held)
    if save:
        held[0], held.cache = next(_numbers), cache
        _held[int(held[0])] = held
    y, h_n, *c_n = map(torch.from_numpy, outputs)
    return y, h_n, c_n[0] if c_n else x.new_empty(0), torch.from_numpy(held)


def _forward_shapes(cell, x, h0, c0, w_ih, w_hh, b_ih, b_hh, lengths, reverse, nonlinearity, reset_after, save):
    T, B, _ = x.shape
    state = x.new_empty(1, B, w_hh.shape[1])
    c_n = torch.empty_like(state) if cell == "lstm" else x.new_empty(0)
    return x.new_empty(T, B, w_hh.shape[1]), state, c_n, x.new_empty(1, dtype=torch.int64)


def _backward(
    cell, x, h0, c0, w_ih, w_hh, b_ih, b_hh, lengths, reverse, nonlinearity, reset_after, y, number, dy, dh, dc, need
):
    call = _call(cell, lengths, reverse, nonlinearity, reset_after)
    tensors = _of_cell(cell, (x, h0, c0, w_ih, w_hh, b_ih, b_hh))
    held = _held.pop(int(number), None)
    cache = run(call, tensors, True)[1] if held is None else held.cache
    dstates = (dh, dc) if cell == "lstm" else (dh,)
    return [g for g in run_backward(call, cache, dy, dstates, _of_cell(cell, need)) if g is not None]


def _backward_shapes(
    cell, x, h0, c0, w_ih, w_hh, b_ih, b_hh, lengths, reverse, nonlinearity, reset_after, y, number, dy, dh, dc, need
):
    tensors = (x, h0, c0, w_ih, w_hh, b_ih, b_hh)
    return [t.new_empty(t.shape) for t, wanted in zip(tensors, need, strict=True) if wanted]


def _of_cell(cell: str, values: Any) -> tuple:
    """Those of all cells' values that this one has."""
    return tuple(value for name, value in zip(NAMES, values, strict=True) if name in TENSORS[cell])


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    cell, *tensors, lengths, reverse, nonlinearity, reset_after, _ = inputs
    ctx.save_for_backward(*tensors, lengths, output[0], output[3])
    ctx.call = cell, reverse, nonlinearity, reset_after
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dy: Tensor | None, dh: Tensor | None, dc: Tensor | None, _: None) -> tuple:
    *tensors, lengths, y, number = ctx.saved_tensors
    cell, *options = ctx.call
    need = list(ctx.needs_input_grad[1:8])
    dc = dc if cell == "lstm" else None
    found = iter(torch.ops.fastrnn.cell_backward(cell, *tensors, lengths, *options, y, number, dy, dh, dc, need))
    return None, *(next(found) if wanted else None for wanted in need), *[None] * 5


def _define(name: str, schema: str, function: Any, shapes: Any) -> Any:
    made = torch.library.custom_op(f"fastrnn::{name}", function, mutates_args=(), device_types="cpu", schema=schema)
    made.register_fake(shapes)
    return made


_define("cell", f"({ARGUMENTS}, bool save) -> (Tensor, Tensor, Tensor, Tensor)", _forward, _forward_shapes)
_define(
    "cell_backward",
    f"({ARGUMENTS}, Tensor y, Tensor number, Tensor? dy, Tensor? dh, Tensor? dc, bool[] need) -> Tensor[]",
    _backward,
    _backward_shapes,
)
torch.library.register_autograd("fastrnn::cell", _gradients, setup_context=_setup)


def opaque(call: Call, tensors: tuple[Tensor | None, ...], save: bool) -> tuple[Tensor, ...]:
    """As `Cell.apply`, of a call without a variant, mask and resets."""
    options = {"reverse": False, "nonlinearity": "tanh", "reset_after": True} | call.options
    x, h0, *rest = tensors
    c0, *rest = rest if call.cell == "lstm" else (None, *rest)
    lengths = options["lengths"]
    lengths = None if lengths is None else torch.as_tensor(lengths)
    which = lengths, options["reverse"], options["nonlinearity"], options["reset_after"]
    y, h_n, c_n, _ = torch.ops.fastrnn.cell(call.cell, x, h0, c0, *rest, *which, save)
    return (y, h_n, c_n) if call.cell == "lstm" else (y, h_n)
