"""
ONNX models in and out (the extra `onnx`).

`prepare` and `run_node` run models of RNN, LSTM and GRU nodes, `from_onnx` makes layers of such nodes in any model, and
`to_onnx` writes a layer as a model. No model is trusted: nothing in it is executed, and what does not fit is an error.

>>> import numpy as np, fastrnn
>>> from fastrnn.interop import onnx
>>> layer = fastrnn.LSTM(8, 16, num_layers=2, bidirectional=True, rng=0)
>>> model = onnx.to_onnx(layer)  # input x; outputs y, h_n, c_n
>>> first, second = onnx.from_onnx(model).values()  # one layer for each node
>>> x = np.ones((5, 3, 8), np.float32)
>>> y, state = second(first(x)[0])
>>> bool(np.allclose(y, layer(x)[0], atol=1e-6))
True
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn import _check, layers
from fastrnn.interop import _onnx_ops as ops
from fastrnn.layers.recurrent import RecurrentLayer

try:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import helper, numpy_helper
    from onnx.backend import base
except ImportError:
    raise ImportError("onnx is not installed; pip install 'fastrnn[onnx]'") from None

from fastrnn.interop._onnx_writer import Writer

__all__ = [
    "Backend",
    "Prepared",
    "from_onnx",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
    "to_onnx",
]

STANDARD = ("", "ai.onnx")  # the two names of ONNX's own operators
LAYERS = {"rnn": layers.RNN, "lstm": layers.LSTM, "gru": layers.GRU}
WEIGHTS = ("W", "R", "B", "P")
PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "peephole")


# --- reading ---------------------------------------------------------------------------------------------------------


def _is_recurrent(node: onnx.NodeProto) -> bool:
    return node.op_type in ops.CELLS and node.domain in STANDARD


def _is_constant(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and node.domain in STANDARD


def _where(node: onnx.NodeProto, number: int | None = None) -> str:
    """How messages name a node."""
    named = f" {node.name!r:.80}" if node.name else f" number {number}" if number is not None else ""
    return f"{node.op_type} node{named}"


def _op(node: onnx.NodeProto, where: str) -> ops.Op:
    """A recurrent node's attributes, checked, and so are the numbers of its inputs and outputs."""
    attributes = {}
    for attribute in node.attribute:
        try:
            attributes[attribute.name] = helper.get_attribute_value(attribute)
        except ValueError as error:
            raise ValueError(f"{where}: attribute {attribute.name}: {error}") from None
    op = ops.read(where, node.op_type, attributes)
    for kind, given, known in (("inputs", node.input, ops.INPUTS), ("outputs", node.output, ops.OUTPUTS)):
        if len(given) > len(known[op.cell]):
            raise ValueError(f"{where}: {len(given)} {kind}, expected at most {', '.join(known[op.cell])}")
    return op


def _inputs(op: ops.Op, node: onnx.NodeProto) -> dict[str, str]:
    """The name of each input that is there, by ONNX's name for it."""
    names = {known: name for known, name in zip(ops.INPUTS[op.cell], node.input, strict=False) if name}
    for known in ("X", "W", "R"):
        if known not in names:
            raise ValueError(f"{op.where}: input {known}: missing")
    return names


def _array(name: str, source: onnx.TensorProto | onnx.NodeProto) -> np.ndarray:
    """The value of an initialiser or a Constant node."""
    try:
        if isinstance(source, onnx.NodeProto):
            (attribute,) = source.attribute
            source = helper.get_attribute_value(attribute)
        if not isinstance(source, onnx.TensorProto):
            return np.asarray(source, np.float32 if attribute.name.startswith("value_float") else np.int64)
        if source.data_location == onnx.TensorProto.EXTERNAL:
            raise ValueError("its data is in a file of its own: give the model's path, or load that data first")
        return numpy_helper.to_array(source)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"constant {name!r:.80}: {error}") from None


class _Constants:
    """The constants that a graph's nodes see, decoded when they are asked for: those of other nodes never are."""

    def __init__(self, graph: onnx.GraphProto, outer: _Constants | None = None):
        self.sources: Any = ChainMap({}) if outer is None else outer.sources.new_child()
        self.sources.update((tensor.name, tensor) for tensor in graph.initializer)
        for node in graph.node:
            if _is_constant(node):
                self.sources.update((name, node) for name in node.output)
            elif node.op_type == "Identity" and node.domain in STANDARD and len(node.input) == 1:
                self.sources.update((name, node.input[0]) for name in node.output)

    def find(self, name: str) -> onnx.TensorProto | onnx.NodeProto | None:
        """Where a name's value is, behind Identity nodes too."""
        source, seen = self.sources.get(name), set()
        while isinstance(source, str) and source not in seen:
            seen.add(source)
            source = self.sources.get(source)
        return None if isinstance(source, str) else source

    def get(self, where: str, known: str, name: str) -> np.ndarray | None:
        """The value of a node's input, None if it is no constant."""
        source = self.find(name)
        try:
            return None if source is None else _array(name, source)
        except ValueError as error:
            raise ValueError(f"{where}: input {known}: {error}") from None


def _model(model: Any) -> onnx.ModelProto:
    """A model, read from its path if it is one."""
    if isinstance(model, onnx.ModelProto):
        return model
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"model: {type(model).__name__}, expected an onnx.ModelProto or a path")
    try:
        return onnx.load(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ValueError(f"model: {os.fspath(model)!r} is not a whole ONNX model: {error}") from None


# --- running ---------------------------------------------------------------------------------------------------------


class Prepared(base.BackendRep):
    """A model of recurrent nodes, checked, its constant weights in this package's order; `Backend.prepare` makes it."""

    def __init__(self, model: onnx.ModelProto):
        graph, self._nodes = model.graph, []
        constants = _Constants(graph)
        self.inputs = [value.name for value in graph.input if constants.find(value.name) is None]
        self.outputs = [value.name for value in graph.output]
        known = set(self.inputs)
        for number, node in enumerate(graph.node):
            if _is_constant(node):
                continue
            where = _where(node, number)
            if not _is_recurrent(node):
                raise ValueError(f"{where}: expected RNN, LSTM, GRU and Constant nodes alone; see from_onnx")
            op = _op(node, where)
            names = _inputs(op, node)
            values = {name: constants.get(where, name, source) for name, source in names.items() if source not in known}
            for name, value in values.items():
                if value is None:
                    raise ValueError(
                        f"{where}: input {name}: {names[name]!r:.80}, expected an input of the model, a constant or an "
                        "output of a node before"
                    )
            fed = {name: source for name, source in names.items() if source in known}
            parts = None if any(name in fed for name in WEIGHTS) else _weights(op, values)
            self._nodes.append((op, parts, values, fed, tuple(node.output)))
            known.update(node.output)
        for name in self.outputs:
            if name not in known or not name:
                raise ValueError(
                    f"output {name!r:.80}: expected an input of the model or an output of one of its nodes"
                )

    def run(self, inputs: Sequence[Any] | Mapping[str, Any], **kwargs: Any) -> tuple[np.ndarray, ...]:
        """
        Run the model.

        Parameters
        ----------
        inputs : sequence or mapping of arrays
            The model's inputs that are no initialisers, in its order or by name.
        **kwargs
            Ignored, as ONNX's backends are to.

        Returns
        -------
        tuple of array
            The model's outputs, in its order; ``result["Y"]`` finds one by name.

        Raises
        ------
        ValueError
            For other inputs than the model's, or one that does not fit; the message names the node and its input.
        """
        if isinstance(inputs, Mapping):
            values = dict(inputs)
            if values.keys() != set(self.inputs):
                raise ValueError(f"inputs: {sorted(values)}, expected {sorted(self.inputs)}")
        else:
            if len(inputs) != len(self.inputs):
                raise ValueError(f"inputs: {len(inputs)} of them, expected {len(self.inputs)}: {self.inputs}")
            values = dict(zip(self.inputs, inputs, strict=True))
        for op, parts, constants, fed, outputs in self._nodes:
            given = constants | {name: values[source] for name, source in fed.items()}
            values |= zip(outputs, _run(op, parts, given), strict=False)
        return base.namedtupledict("Outputs", self.outputs)(*(values[name] for name in self.outputs))


def _weights(op: ops.Op, given: Mapping[str, Any]) -> list[ops.Weights]:
    return ops.weights(op, *(given.get(name) for name in WEIGHTS))


def _run(op: ops.Op, parts: list[ops.Weights] | None, given: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """All outputs of a node."""
    others = {name: value for name, value in given.items() if name not in WEIGHTS}
    return ops.run(op, _weights(op, given) if parts is None else parts, **others)


class Backend(base.Backend):
    """
    `onnx.backend.base.Backend` for models whose nodes are RNN, LSTM and GRU, and Constant for their weights.

    Every input and attribute of the operators' versions 7 to 22 counts: both layouts, all three directions, all
    activations with their constants, clip, input_forget, peepholes, linear_before_reset, sequence_lens in any order and
    0 among them. float32 and float64. The engine is the one that `fastrnn.config_context` says.
    """

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether it is the CPU."""
        return isinstance(device, str) and device.split(":")[0] == "CPU"

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the model has no nodes of other operators."""
        return cls.supports_device(device) and all(_is_recurrent(n) or _is_constant(n) for n in model.graph.node)

    @classmethod
    def prepare(cls, model: onnx.ModelProto | str | os.PathLike, device: str = "CPU", **kwargs: Any) -> Prepared:
        """
        Check a model and get its weights ready.

        Parameters
        ----------
        model : onnx.ModelProto or path
            Whose nodes are RNN, LSTM, GRU and Constant.
        device : {"CPU"}
            Where it is to run.
        **kwargs
            Ignored, as ONNX's backends are to.

        Returns
        -------
        Prepared
            Its `run` runs the model, as often as wanted.

        Raises
        ------
        ValueError
            For a node of another operator, or one that is not as ONNX says; the message names the node and its
            attribute or input.
        """
        cls._check_device(device)
        return Prepared(_model(model))

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Sequence[Any] | Mapping[str, Any],
        device: str = "CPU",
        outputs_info: Any = None,
        **kwargs: Any,
    ) -> tuple[np.ndarray, ...]:
        """
        Run one node.

        Parameters
        ----------
        node : onnx.NodeProto
            An RNN, LSTM or GRU.
        inputs : sequence or mapping of arrays
            Those that the node names, in its order; None, or nothing at all, where the name is empty. A mapping has
            them by the node's names.
        device : {"CPU"}
            Where it is to run.
        outputs_info, **kwargs
            Ignored, as ONNX's backends are to.

        Returns
        -------
        tuple of array
            Those outputs that the node names, of Y (T, D, B, H), Y_h and Y_c (D, B, H); with layout 1 (B, T, D, H) and
            (B, D, H).

        Raises
        ------
        ValueError
            For a node or an input that is not as ONNX says; the message names it.
        """
        cls._check_device(device)
        where = _where(node)
        if not _is_recurrent(node):
            raise ValueError(f"{where}: expected RNN, LSTM or GRU")
        op = _op(node, where)
        names = _inputs(op, node)
        if isinstance(inputs, Mapping):
            values = [inputs.get(name) for name in node.input]
        elif len(inputs) == len(node.input):
            values = list(inputs)
        elif len(inputs) == len(names):
            present = iter(inputs)
            values = [next(present) if name else None for name in node.input]
        else:
            raise ValueError(f"{where}: {len(inputs)} inputs, expected {len(names)}: {', '.join(names)}")
        given = dict(zip(ops.INPUTS[op.cell], values, strict=False))
        for name in ("X", "W", "R"):
            if given[name] is None:
                raise ValueError(f"{where}: input {name}: missing")
        results = dict(zip(node.output, _run(op, None, given), strict=False))
        results.pop("", None)
        return base.namedtupledict("Outputs", list(results))(*results.values())

    @classmethod
    def _check_device(cls, device: str) -> None:
        if not cls.supports_device(device):
            raise ValueError(f"device: {device!r}, expected 'CPU'")


is_compatible = Backend.is_compatible
prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
supports_device = Backend.supports_device


# --- layers of a model -----------------------------------------------------------------------------------------------


def from_onnx(model: onnx.ModelProto | str | os.PathLike) -> dict[str, RecurrentLayer]:
    """
    Make a layer of every RNN, LSTM and GRU node of a model.

    Parameters
    ----------
    model : onnx.ModelProto or path
        Its other nodes are left out of account, except that the bodies of If, Loop and Scan are looked into; functions
        are not, see `onnx.inliner`. Weights have to be initialisers or Constant nodes, behind Identity nodes at most.

    Returns
    -------
    dict of str to RNN, LSTM or GRU
        By the node's name, or ``"LSTM_3"`` for one without, the model's fourth recurrent node; in the model's order. A
        bidirectional node becomes a bidirectional layer, layout 1 `batch_first`. A layer's `state` and `lengths` are
        the node's initial_h, initial_c and sequence_lens, which the model's other nodes make; a constant initial state
        that is the same for all sequences becomes one that is learned. Its `y` (T, B, D*H) has
        the two middle axes of Y (T, D, B, H) the other way round and D beside H.

    Raises
    ------
    ValueError
        For a node that is not as ONNX says, or that needs what a layer does not have; the message names the node and
        the attribute or input.
    """
    found: dict[str, RecurrentLayer] = {}
    for number, (node, constants) in enumerate(_recurrent_nodes(_model(model).graph, None)):
        name = node.name or f"{node.op_type}_{number}"
        if name in found:
            raise ValueError(f"{_where(node)}: a second one of this name")
        found[name] = _layer(_op(node, _where(node, number)), node, constants)
    return found


def _recurrent_nodes(graph: onnx.GraphProto, outer: _Constants | None) -> Iterator[tuple[onnx.NodeProto, _Constants]]:
    """The recurrent nodes of a graph and of the graphs in it, with the constants that they see."""
    constants = _Constants(graph, outer)
    for node in graph.node:
        if _is_recurrent(node):
            yield node, constants
        for attribute in node.attribute:
            for body in [attribute.g] * attribute.HasField("g") + list(attribute.graphs):
                yield from _recurrent_nodes(body, constants)


def _layer(op: ops.Op, node: onnx.NodeProto, constants: _Constants) -> RecurrentLayer:
    names = _inputs(op, node)
    given = {}
    for name in WEIGHTS:
        if name in names:
            given[name] = constants.get(op.where, name, names[name])
            if given[name] is None:
                raise ValueError(
                    f"{op.where}: input {name}: {names[name]!r:.80}, expected a constant; fold constants first"
                )
    if "sequence_lens" in names and constants.find(names["sequence_lens"]) is not None:
        raise ValueError(f"{op.where}: input sequence_lens: a constant, which a layer does not hold")
    parts = _weights(op, given)
    if op.directions == (True,):
        raise ValueError(f"{op.where}: attribute direction: reverse, which a layer does not run alone")
    starts = _constant_starts(op, names, constants, len(parts), parts[0].w_hh)
    cls = LAYERS[op.cell]
    options = _layer_options(op, parts)
    layer = cls(
        parts[0].w_ih.shape[1],
        parts[0].w_hh.shape[1],
        bias=parts[0].b_ih is not None,
        batch_first=op.batch_first,
        bidirectional=len(parts) > 1,
        dtype=parts[0].w_ih.dtype,
        learn_initial_state=bool(starts),
        rng=0,
        **options,
    )
    for part, suffix in zip(parts, ("_l0", "_l0_reverse"), strict=False):
        for name, value in zip(PARAMETERS, part, strict=True):
            if name + suffix in layer.params:
                setattr(layer, name + suffix, np.zeros_like(layer.params[name + suffix]) if value is None else value)
    for name, rows in starts.items():
        for row, suffix in zip(rows, ("_l0", "_l0_reverse"), strict=False):
            setattr(layer, name + suffix, row)
    return layer


def _constant_starts(
    op: ops.Op, names: Mapping[str, str], constants: _Constants, D: int, like: np.ndarray
) -> dict[str, np.ndarray]:
    """The initial states (D, H) that are constants and not zeros, by the names of a layer's parameters."""
    found = {}
    for name in ops.STATES[op.cell]:
        value = constants.get(op.where, name, names[name]) if name in names else None
        if value is None or not value.any():
            continue
        H, axes = like.shape[1], "(B, D, H)" if op.batch_first else "(D, B, H)"
        value = value.swapaxes(0, 1) if op.batch_first and value.ndim == 3 else value
        if value.ndim != 3 or value.shape[::2] != (D, H) or value.dtype != like.dtype:
            raise ValueError(f"{op.where}: input {name}: {value.dtype} {value.shape}, expected {like.dtype} {axes}")
        if (value != value[:, :1]).any():
            raise ValueError(f"{op.where}: input {name}: a constant for each sequence, which a layer does not hold")
        found[f"{name[-1]}0"] = value[:, 0]
    return found


def _layer_options(op: ops.Op, parts: list[ops.Weights]) -> dict[str, Any]:
    """A layer's arguments beyond the plain ones: the one place that knows which they are."""
    if len(set(op.activations)) > 1:
        raise ValueError(f"{op.where}: attribute activations: each direction has its own, which a layer does not")
    options: dict[str, Any] = {"reset_after": op.reset_after} if op.cell == "gru" else {}
    nonlinearity, variant = ops.cell_variant(op, 0, None)
    if op.cell == "rnn":
        options["nonlinearity"] = nonlinearity
    if variant is not None:
        parts_of_it = {"activations": variant.activations, "clip": variant.clip, "coupled": variant.coupled or None}
        options |= {name: value for name, value in parts_of_it.items() if value is not None}
    if any(part.peepholes is not None for part in parts):
        options["peepholes"] = True
    return options


# --- a model of a layer ----------------------------------------------------------------------------------------------


def to_onnx(layer: RecurrentLayer, *, opset: int = 14, lengths: bool = False, state: bool = False) -> onnx.ModelProto:
    """
    Write a layer as a model: one RNN, LSTM or GRU node for each of its layers, Transpose and Reshape between them.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
        Whose parameters are copied.
    opset : int
        The version of ONNX's operators, from 14 to the newest that the `onnx` package knows.
    lengths : bool
        Whether the model has the input ``lengths``.
    state : bool
        Whether the model has the inputs ``h_0`` and, for an LSTM, ``c_0``; otherwise these are zeros, or what the layer
        has learned to start from. A stateful layer's memory is not in the model: hand ``h_n`` on as ``h_0``.

    Returns
    -------
    onnx.ModelProto
        The inputs are ``x`` (T, B, I), ``lengths`` (B,) int32, ``h_0`` and ``c_0`` (D*num_layers, B, H), the outputs
        ``y`` (T, B, D*H), ``h_n`` and ``c_n`` (D*num_layers, B, H), all as the layer has them: with `batch_first` x and
        y are (B, T, ...), and `merge` may make y narrower, or a pair, ``y`` and ``y_reverse``. T and B are free.
        Dropout is left out, as it is when a layer is called.

    Raises
    ------
    TypeError
        For another thing than a layer.
    ValueError
        For an unknown opset, or a layer with a part that ONNX's nodes do not have.
    """
    if not isinstance(layer, tuple(LAYERS.values())):
        raise TypeError(f"layer: {type(layer).__name__}, expected a fastrnn.RNN, LSTM or GRU")
    newest = onnx.defs.onnx_opset_version()
    if not 14 <= _check.positive_int("opset", opset) <= newest:
        raise ValueError(f"opset: {opset}, expected 14 to {newest}")
    names = [*PARAMETERS, *(f"{state}0" for state in layer.state_names)]
    parameters = {n + s for n in names for k in range(layer.num_layers) for s in layer._suffixes(k)}
    for kind, given, known in (
        ("parameter", layer.params, parameters),
        ("option", _options_of(layer), ("nonlinearity", "reset_after", "activations", "clip", "coupled")),
    ):
        for name in given:
            if name not in known:
                raise ValueError(f"layer: it has the {kind} {name}, which ONNX's {layer.cell.upper()} does not")
    return Writer(layer, bool(lengths), bool(state)).model(opset)


def _options_of(layer: RecurrentLayer) -> list[str]:
    """The names of what a layer's cells do besides the plain ones' steps, when it is called."""
    drawn = ("recurrent_dropout", "input_dropout")  # in training alone
    given = {name: value for name, value in layer.variant_options.items() if name not in drawn}
    return [*layer._options(), *(name for name, value in given.items() if value and value != (0.0, 0.0))]
