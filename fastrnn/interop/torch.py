"""
PyTorch modules that run on this package's kernels (the extra `torch`).

`RNN`, `LSTM` and `GRU` are `torch.nn`'s in everything but who computes: the same constructor, parameters, state_dict,
inputs and results. `replace_rnns` has those of an existing model run here, `from_torch` and `to_torch` take weights
from one library to the other.

>>> import torch
>>> from fastrnn.interop import torch as interop
>>> model = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(8, 16, num_layers=2), "head": torch.nn.Linear(16, 1)})
>>> x = torch.ones(5, 3, 8)
>>> before, _ = model["rnn"](x)
>>> interop.replace_rnns(model)
['rnn']
>>> after, _ = model["rnn"](x)
>>> bool(torch.allclose(before, after, atol=1e-6))
True
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastrnn import _check, layers, variants
from fastrnn.layers._variant import NAMES, OPTIONS, array_shapes, not_plain
from fastrnn.layers.recurrent import RecurrentLayer

try:
    import torch
    from torch.autograd import forward_ad
    from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
except ImportError:
    raise ImportError("torch is not installed; pip install 'fastrnn[torch]'") from None

from fastrnn.interop._torch_cell import Call, Cell, apart, run
from fastrnn.interop._torch_op import opaque

__all__ = ["GRU", "LSTM", "RNN", "from_torch", "replace_rnns", "restore_rnns", "to_torch"]

FLOATS = (torch.float32, torch.float64)
RANDOM = {"zoneout", "recurrent_dropout", "input_dropout"}  # what draws while training


class _Recurrent:
    """What the three have in common, in front of their `torch.nn` class: the forward pass, and variants of cells."""

    cell: str
    state_names: tuple[str, ...] = ("h",)
    # What modules have that were `torch.nn`'s when they were made.
    varies = False
    variant_options: dict[str, Any] = {}  # noqa: RUF012  never changed
    variant_arrays: tuple[str, ...] = ()
    forget_bias: float | None = None
    reset_after = True

    def __init__(self, *args: Any, layer_norm: bool = False, peepholes: bool = False, **common: Any):
        device = common.get("device")
        if device is not None and str(device).split(":")[0] not in ("cpu", "meta"):
            raise ValueError(f"device: {str(device)!r}, expected 'cpu', for these modules run there alone")
        given = {name: common.pop(name) for name in OPTIONS if name in common}
        super().__init__(*args, **common)
        _float("dtype", self.weight_ih_l0)
        self.variant_options = not_plain(self.cell, given, getattr(self, "nonlinearity", "tanh"))
        own = self._add_own(layer_norm, peepholes)
        self.variant_arrays = (*(["w_hr"] if self.proj_size else []), *own)
        self.varies = bool(self.variant_options or self.variant_arrays)
        zeros = {name: np.zeros(shape) for name, shape in own.items()}  # what this cell cannot do is an error here
        checked = variants.Variant(**self.variant_options, **zeros)
        variants.checked_arrays(checked, self.cell, self.hidden_size, np.dtype(np.float64))
        self._reset_own()

    def _add_own(self, layer_norm: bool, peepholes: bool) -> dict[str, tuple[int, ...]]:
        """Add the parameters that `torch.nn` has none of; the shape of each array of a Variant."""
        shapes = array_shapes(self.cell, self.hidden_size, layer_norm=layer_norm, peepholes=peepholes)
        for k in range(self.num_layers):
            for way in self._ways:
                for name, shape in shapes.items():
                    value = torch.nn.Parameter(self.weight_ih_l0.new_empty(shape))
                    self.register_parameter(f"{NAMES[name]}_l{k}{way}", value)
        return shapes

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as `torch.nn` does; gains begin at 1, shifts at 0."""
        super().reset_parameters()
        self._reset_own()

    def _reset_own(self) -> None:
        """Those that `torch.nn` has none of."""
        for name, value in self.named_parameters(recurse=False):
            if name.startswith("gain"):
                torch.nn.init.ones_(value)
            elif name.startswith("shift"):
                torch.nn.init.zeros_(value)
            elif name.startswith("peephole"):
                bound = self.hidden_size**-0.5
                torch.nn.init.uniform_(value, -bound, bound)
            elif name.startswith("bias") and self.forget_bias is not None:
                with torch.no_grad():
                    of_f = value[self.hidden_size : 2 * self.hidden_size]
                    of_f.fill_(self.forget_bias if name.startswith("bias_ih") else 0)

    def extra_repr(self) -> str:
        """Show what differs from the defaults."""
        parts = [super().extra_repr(), *(f"{name}={value!r}" for name, value in self.variant_options.items())]
        parts += ["layer_norm=True"] if "norm_ih" in self.variant_arrays else []
        parts += ["peepholes=True"] if "peepholes" in self.variant_arrays else []
        parts += ["reset_after=False"] if not self.reset_after else []
        return ", ".join(parts)

    @property
    def _ways(self) -> tuple[str, ...]:
        """What stands behind the names of each direction's parameters."""
        return ("", "_reverse") if self.bidirectional else ("",)

    # --- running -----------------------------------------------------------------------------------------------------

    def forward(
        self,
        input: torch.Tensor | PackedSequence,
        hx: Any = None,
        *,
        lengths: Any = None,
        mask: Any = None,
        reset: Any = None,
    ) -> tuple:
        """
        Run the module.

        Parameters
        ----------
        input : tensor (T, B, I), or (B, T, I) with `batch_first`, or (T, I), or PackedSequence
            On the CPU, float32 or float64 as the parameters.
        hx : tensor (D*num_layers, B, H), optional
            The initial state, of an LSTM the tuple ``(h_0, c_0)``; None is zeros. Without B for an unbatched input.
        lengths : integers (B,), optional
            The number of valid steps of each sequence, in any order, 0 included, and no PackedSequence needed: outputs
            past an end are zeros.
        mask, reset : bool (T, B), or (B, T) with `batch_first`, optional
            False where a sequence skips a step, and True where it starts anew before one; see `fastrnn.functional`.

        Returns
        -------
        output : tensor (T, B, D*H), or as `input` has its axes, or PackedSequence
            The last layer's hidden states.
        h_n : tensor (D*num_layers, B, H), of an LSTM the tuple ``(h_n, c_n)``
            The states after each sequence's last step.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            What `torch.nn` raises for a shape that does not fit, and for a tensor on another device or of another type.
        """
        states = self._states(hx)
        if isinstance(input, PackedSequence):
            if lengths is not None or mask is not None or reset is not None:
                raise ValueError("lengths, mask, reset: given beside a PackedSequence, expected None")
            return self._forward_packed(input, states)
        if not isinstance(input, torch.Tensor):
            raise TypeError(f"input: {type(input).__name__}, expected a tensor or PackedSequence")
        dim = input.dim()
        if dim not in (2, 3):
            raise ValueError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {dim}D instead")
        batched, batch_axis = dim == 3, 0 if self.batch_first else 1
        for s in states:
            if s is not None and s.dim() != dim:
                kind = "batched 3-D" if batched else "unbatched 2-D"
                raise RuntimeError(f"For {kind} input, hx should also be {dim}-D but got {s.dim()}-D tensor")
        if not batched:
            if lengths is not None or mask is not None or reset is not None:
                raise ValueError("lengths, mask, reset: given beside an unbatched input, expected None")
            input = input.unsqueeze(batch_axis)
            states = [None if s is None else s.unsqueeze(1) for s in states]
        self._check_tensors(input, states, None)
        which = {"lengths": lengths, "mask": mask, "reset": reset}
        if self.batch_first:
            for name in ("mask", "reset"):
                marks = _check.flags_array(name, which[name], "(B, T)", tuple(input.shape[:2]))
                which[name] = None if marks is None else marks.T
            y, final = self._run(input.transpose(0, 1), states, which)
            y = y.transpose(0, 1)
        else:
            y, final = self._run(input, states, which)
        if not batched:
            y, final = y.squeeze(batch_axis), [s.squeeze(1) for s in final]
        return y, tuple(final) if len(final) > 1 else final[0]

    def _forward_packed(self, packed: PackedSequence, states: list) -> tuple:
        data, batch_sizes, order, back = packed
        self._check_tensors(data, states, batch_sizes)
        x, lengths = pad_packed_sequence(PackedSequence(data, batch_sizes))  # in the order of the lengths
        if order is not None:
            states = [None if s is None else s.index_select(1, order) for s in states]
        y, final = self._run(x, states, {"lengths": lengths})
        if back is not None:
            final = [s.index_select(1, back) for s in final]
        y = PackedSequence(pack_padded_sequence(y, lengths).data, batch_sizes, order, back)
        return y, tuple(final) if len(final) > 1 else final[0]

    def _states(self, hx: Any) -> list[torch.Tensor | None]:
        """The initial states by themselves, None for zeros."""
        if len(self.state_names) == 1 or hx is None:
            states = [hx] * len(self.state_names)
        elif isinstance(hx, tuple | list) and len(hx) == 2:
            states = list(hx)
        else:
            raise TypeError(f"hx: {type(hx).__name__}, expected the tuple (h_0, c_0)")
        for k, state in enumerate(states):
            if state is not None and not isinstance(state, torch.Tensor):
                raise TypeError(f"{self.state_names[k]}_0: {type(state).__name__}, expected a tensor")
        return states

    def _check_tensors(self, x: torch.Tensor, states: list, batch_sizes: torch.Tensor | None) -> None:
        """Types, devices and, as `torch.nn` does it, shapes."""
        if batch_sizes is None and self._fit(x, states):  # 2 us instead of 15
            return
        given = {"weight_ih_l0": self.weight_ih_l0, "input": x}
        given |= {f"{name}_0": state for name, state in zip(self.state_names, states, strict=True) if state is not None}
        for name, tensor in given.items():
            _float(name, tensor)
            if not tensor.is_cpu:
                raise ValueError(f"{name}: on device {str(tensor.device)!r}, expected 'cpu'; see tensor.cpu()")
        self.check_input(x, batch_sizes)
        sizes = (self.get_expected_hidden_size, getattr(self, "get_expected_cell_size", None))
        for k, (state, size) in enumerate(zip(states, sizes, strict=False)):
            if state is not None:
                which = f"hidden[{k}]" if len(states) > 1 else "hidden"
                self.check_hidden_size(state, size(x, batch_sizes), f"Expected {which} size {{}}, got {{}}")

    def _fit(self, x: torch.Tensor, states: list) -> bool:
        """Whether nothing is wrong with a batch, as far as that is seen at once."""
        w = self._parameters.get("weight_ih_l0")
        if w is None or w.dtype not in FLOATS or not w.is_cpu:
            return False
        shape = x.shape
        if x.dtype is not w.dtype or not x.is_cpu or shape[2] != self.input_size:
            return False
        batch = shape[0 if self.batch_first else 1]
        parts, size = self.num_layers * len(self._ways), self.proj_size or self.hidden_size
        for state in states:
            if state is not None:
                fits = state.shape == (parts, batch, size) and state.dtype is w.dtype and state.is_cpu
                if not fits:
                    return False
            size = self.hidden_size
        return True

    def _run(self, y: torch.Tensor, states: list, which: dict[str, Any]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """All layers, time-major."""
        if self.num_layers == 1 and not self.bidirectional:
            y, *end = self._run_cell(y, states, "_l0", which)
            return y, end
        ends, ways = [], self._ways
        for k in range(self.num_layers):
            if k and self.dropout and self.training:
                y = torch.nn.functional.dropout(y, self.dropout)
            outputs = []
            for d, way in enumerate(ways):
                i = len(ends)
                start = [None if s is None else s[i : i + 1] for s in states]
                out, *end = self._run_cell(y, start, f"_l{k}{way}", {**which, "reverse": d == 1})
                outputs.append(out)
                ends.append(end)
            y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)
        return y, [torch.cat(parts) for parts in zip(*ends, strict=True)]

    def _weights(self, suffix: str) -> list[torch.Tensor | None]:
        """Those that every cell has: w_ih, w_hh, b_ih, b_hh."""
        own = self._parameters  # ten times as fast as attributes, which have those that something is made of
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if self.bias else ("weight_ih", "weight_hh")
        found = [own[name + suffix] if name + suffix in own else getattr(self, name + suffix) for name in names]
        return found if self.bias else [*found, None, None]

    def _run_cell(self, x: torch.Tensor, start: list, suffix: str, options: dict[str, Any]) -> Any:
        """One layer and direction: y, h_n (c_n)."""
        arrays, variant = self.variant_arrays, None
        tensors = [x, *start, *self._weights(suffix)]
        if self.varies:
            tensors += [getattr(self, NAMES[name] + suffix) for name in arrays]
            variant = {**self.variant_options, "training": self.training}
            if self.training and self.variant_options.keys() & RANDOM:
                variant["rng"] = int(torch.randint(2**62, ()))
        call = Call(self.cell, options | self._options(), variant, arrays)
        save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
        if torch.compiler.is_compiling() and variant is None and options["mask"] is None and options["reset"] is None:
            return opaque(call, tensors, save)
        _refuse_transforms()
        if save or forward_ad._current_level >= 0:  # Cell says so if there are tangents, which it has no use for
            return apart(Cell.apply, call, *tensors)
        outputs, _ = apart(run, call, tensors, False)
        return map(torch.from_numpy, outputs)

    def _options(self) -> dict[str, Any]:
        """The cell's own keyword arguments."""
        return {}


class RNN(_Recurrent, torch.nn.RNN):
    """
    `torch.nn.RNN` on this package's kernels.

    Parameters
    ----------
    *args, **common
        Those of `torch.nn.RNN`; `device` is the CPU, `dtype` float32 or float64.
    activations, clip, layer_norm, zoneout, recurrent_dropout, input_dropout : keyword only
        What the cells do besides: see `fastrnn.layers.VariantLayer`, whose names the further parameters have. Random
        elements are drawn while training, from PyTorch's generator.
    """

    cell = "rnn"

    def _options(self) -> dict[str, Any]:
        return {"nonlinearity": "relu" if self.mode == "RNN_RELU" else "tanh"}


class LSTM(_Recurrent, torch.nn.LSTM):
    """
    `torch.nn.LSTM` on this package's kernels.

    Parameters
    ----------
    peepholes, coupled, forget_bias : keyword only
        As of `fastrnn.LSTM`.
    *args, **common
        Those of `torch.nn.LSTM`, and what `RNN` takes besides.
    """

    cell = "lstm"
    state_names = ("h", "c")

    def __init__(self, *args: Any, forget_bias: float | None = None, **common: Any):
        self.forget_bias = forget_bias
        super().__init__(*args, **common)
        if forget_bias is not None and not self.bias:
            raise ValueError(f"forget_bias: {forget_bias!r}, expected None for a module without biases")


class GRU(_Recurrent, torch.nn.GRU):
    """
    `torch.nn.GRU` on this package's kernels.

    Parameters
    ----------
    reset_after : bool, keyword only
        Whether the reset gate is applied after the recurrent product, as in PyTorch, or before it.
    *args, **common
        Those of `torch.nn.GRU`, and what `RNN` takes besides.
    """

    cell = "gru"

    def __init__(self, *args: Any, reset_after: bool = True, **common: Any):
        self.reset_after = bool(reset_after)
        super().__init__(*args, **common)

    def _options(self) -> dict[str, Any]:
        return {"reset_after": self.reset_after}


OURS = {torch.nn.RNN: RNN, torch.nn.LSTM: LSTM, torch.nn.GRU: GRU}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}


def _float(name: str, tensor: torch.Tensor) -> None:
    if tensor.dtype not in FLOATS:
        raise TypeError(f"{name}: {tensor.dtype}, expected torch.float32 or torch.float64")


def _refuse_transforms() -> None:
    """Of those that record or map what PyTorch computes, for it computes nothing here."""
    if torch.jit.is_tracing():
        what = "torch.jit.trace"
    elif torch._C._are_functorch_transforms_active():
        what = "torch.func's transforms"
    else:
        return
    raise RuntimeError(f"fastrnn.interop.torch: {what} cannot see into these modules; see restore_rnns")


# --- existing models -------------------------------------------------------------------------------------------------


def _modules(model: torch.nn.Module) -> Iterable[tuple[str, torch.nn.Module]]:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: {type(model).__name__}, expected a torch.nn.Module")
    return model.named_modules()


def replace_rnns(model: torch.nn.Module) -> list[str]:
    """
    Have every `torch.nn.RNN`, `LSTM` and `GRU` in a model run on this package's kernels, in place.

    The modules stay the same objects with another class: parameters, hooks, optimisers and whatever else refers to them
    know of nothing. Modules of classes derived from the three are left as they are.

    Parameters
    ----------
    model : torch.nn.Module
        May be such a module itself.

    Returns
    -------
    list of str
        The names of those that were replaced, "" for the model itself.

    Raises
    ------
    TypeError, ValueError
        For parameters of another type than float32 or float64, or elsewhere than on the CPU; then nothing has been
        changed.
    """
    found = [(name, module) for name, module in _modules(model) if type(module) in OURS]
    for name, module in found:
        for parameter, value in module.named_parameters(name):
            _float(parameter, value)
            if value.device.type not in ("cpu", "meta"):
                raise ValueError(f"{parameter}: on device {str(value.device)!r}, expected 'cpu'")
    for _, module in found:
        module.__class__ = OURS[type(module)]
    return [name for name, _ in found]


def restore_rnns(model: torch.nn.Module) -> list[str]:
    """
    Undo `replace_rnns`, and give `torch.nn`'s class to modules that were made as this package's.

    Parameters
    ----------
    model : torch.nn.Module
        May be such a module itself.

    Returns
    -------
    list of str
        The names of those that run on PyTorch again.

    Raises
    ------
    TypeError, ValueError
        For what is no model, or a module with a variant that `torch.nn` does not have; then nothing has been changed.
    """
    found = [(name, module) for name, module in _modules(model) if type(module) in THEIRS]
    for name, module in found:
        if not _is_plain(module):
            raise ValueError(f"{name or 'model'}: {module}, expected a cell that torch.nn has")
    for _, module in found:
        module.__class__ = THEIRS[type(module)]
    return [name for name, _ in found]


def _is_plain(module: _Recurrent) -> bool:
    """Whether `torch.nn` has such a cell."""
    return not module.variant_options and set(module.variant_arrays) <= {"w_hr"} and module.reset_after


# --- weights ---------------------------------------------------------------------------------------------------------

SHARED = ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
LAYERS = {"rnn": layers.RNN, "lstm": layers.LSTM, "gru": layers.GRU}
MODULES = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


def from_torch(module: torch.nn.RNNBase, rng: Any = None) -> RecurrentLayer:
    """
    Make a layer of this package with a module's configuration and a copy of its weights.

    Parameters
    ----------
    module : torch.nn.RNN, LSTM or GRU, or one of this module's
        On any device, of float32 or float64.
    rng : int, numpy.random.Generator or None
        The layer's source of dropout.

    Returns
    -------
    fastrnn.RNN, fastrnn.LSTM or fastrnn.GRU

    Raises
    ------
    TypeError
        For another module, or parameters of another type.
    """
    cell = next((ours.cell for theirs, ours in OURS.items() if isinstance(module, theirs)), None)
    if cell is None:
        raise TypeError(f"module: {type(module).__name__}, expected a torch.nn.RNN, LSTM or GRU")
    _float("weight_ih_l0", module.weight_ih_l0)
    options = {name: getattr(module, name) for name in SHARED}
    if cell == "rnn":
        options["nonlinearity"] = "relu" if module.mode == "RNN_RELU" else "tanh"
    if cell == "lstm":
        options["proj_size"] = module.proj_size
    if isinstance(module, _Recurrent):
        options |= module.variant_options | {"layer_norm": "norm_ih" in module.variant_arrays}
        options |= {"reset_after": module.reset_after} if cell == "gru" else {}
        options |= {"peepholes": "peepholes" in module.variant_arrays} if cell == "lstm" else {}
    dtype = str(module.weight_ih_l0.dtype).removeprefix("torch.")
    layer = LAYERS[cell](module.input_size, module.hidden_size, **options, dtype=dtype, rng=rng)
    layer.load_state_dict({name: getattr(module, name).detach().cpu().numpy() for name in layer.params})
    return layer


def to_torch(layer: RecurrentLayer) -> torch.nn.RNNBase:
    """
    Make a `torch.nn` module with a layer's configuration and a copy of its weights.

    Parameters
    ----------
    layer : fastrnn.RNN, fastrnn.LSTM or fastrnn.GRU

    Returns
    -------
    torch.nn.RNN, LSTM or GRU
        Of a layer with a variant that `torch.nn` does not have, this module's class, which is derived from it.

    Raises
    ------
    TypeError, ValueError
        For another layer, or one that merges its directions otherwise or has an initial state of its own.
    """
    if not isinstance(layer, tuple(LAYERS.values())):
        raise TypeError(f"layer: {type(layer).__name__}, expected a fastrnn.RNN, LSTM or GRU")
    for name, expected in (("merge", "concat"), ("stateful", False), ("learn_initial_state", False)):
        if getattr(layer, name) != expected:
            raise ValueError(
                f"layer: {name}={getattr(layer, name)!r}, expected {expected!r}, for modules have no other"
            )
    options = {name: getattr(layer, name) for name in SHARED} | layer.variant_options | {"layer_norm": layer.layer_norm}
    if layer.cell == "rnn":
        options["nonlinearity"] = layer.nonlinearity
    elif layer.cell == "gru":
        options["reset_after"] = layer.reset_after
    else:
        options |= {"proj_size": layer.proj_size, "peepholes": layer.peepholes}
    dtype = getattr(torch, layer.dtype.name)
    module = MODULES[layer.cell](layer.input_size, layer.hidden_size, **options, dtype=dtype)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in layer.state_dict().items()})
    if _is_plain(module):
        restore_rnns(module)
    return module
