"""The ONNX model of a layer, node by node; `fastrnn.interop.onnx.to_onnx` is its face, and the one that imports it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fastrnn import variants
from fastrnn.interop import _onnx_ops as ops
from fastrnn.layers.recurrent import RecurrentLayer


class Writer:
    """The graph of one layer as it grows."""

    def __init__(self, layer: RecurrentLayer, lengths: bool, state: bool):
        self.layer, self.lengths, self.state = layer, lengths, state
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []
        self.element = helper.np_dtype_to_tensor_dtype(layer.dtype)

    def node(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Add one; its name is its first output's."""
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name=outputs[0], **attributes))

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add an initialiser."""
        self.initialisers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def value(self, name: str, *shape: str | int, element: int | None = None) -> onnx.ValueInfoProto:
        """An input or output of the model."""
        return helper.make_tensor_value_info(name, element or self.element, shape)

    def model(self, opset: int) -> onnx.ModelProto:
        """All of it."""
        layer, L = self.layer, self.layer.num_layers
        I, H, D = layer.input_size, layer.hidden_size, layer.directions
        outer = ("B", "T") if layer.batch_first else ("T", "B")
        states = layer.state_names
        inputs = [self.value("x", *outer, I)]
        inputs += [self.value("lengths", "B", element=onnx.TensorProto.INT32)] if self.lengths else []
        inputs += [self.value(f"{s}_0", D * L, "B", H) for s in states] if self.state else []
        ys = ["y", "y_reverse"] if layer.merge is None else ["y"]
        outputs = [self.value(y, *outer, layer.output_size) for y in ys]
        outputs += [self.value(f"{s}_n", D * L, "B", H) for s in states]
        starts = {s: self.starts(s) for s in states}
        x = "x"
        if layer.batch_first:  # few runtimes have layout 1
            self.node("Transpose", [x], ["x_time_major"], perm=[1, 0, 2])
            x = "x_time_major"
        for k in range(L):
            self.recurrent(k, x, [starts[s][k] for s in states])
            last = k == L - 1
            x = "y" if last else f"y_l{k}"
            self.merged(f"Y_l{k}", ys if last else [x], [2, 0, 1, 3] if last and layer.batch_first else [0, 2, 1, 3])
        for s in states:
            self.node("Concat", [f"{s}_n_l{k}" for k in range(L)], [f"{s}_n"], axis=0)
        graph = helper.make_graph(self.nodes, type(layer).__name__, inputs, outputs, self.initialisers)
        imports = [helper.make_opsetid("", opset)]
        return helper.make_model(
            graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports), producer_name="fastrnn"
        )

    def merged(self, y: str, outputs: Sequence[str], perm: Sequence[int]) -> None:
        """What a layer makes of a node's output (T, D, B, H): D goes beside H first, then becomes part of it."""
        layer, together = self.layer, f"{y}_together"
        self.node("Transpose", [y], [together], perm=perm)
        parts = [together]
        if layer.bidirectional and layer.merge != "concat":
            parts = [f"{y}_forward", f"{y}_reverse"]
            self.node("Split", [together, self.shared("ones", np.array([1, 1]))], parts, axis=2)
        if layer.merge in ("sum", "mul", "ave"):
            self.node("Mul" if layer.merge == "mul" else "Add", parts, [f"{y}_merged"])
            parts = [f"{y}_merged"]
        if layer.merge == "ave":
            self.node("Div", [*parts, self.shared("two", np.array(2, layer.dtype))], [f"{y}_mean"])
            parts = [f"{y}_mean"]
        shape = self.shared("y_shape", np.array([0, 0, layer.output_size]))  # 0: as it was
        for part, output in zip(parts, outputs, strict=True):
            self.node("Reshape", [part, shape], [output])

    def shared(self, name: str, value: np.ndarray) -> str:
        """An initialiser that several nodes read."""
        there = any(tensor.name == name for tensor in self.initialisers)
        return name if there else self.constant(name, value)

    def starts(self, state: str) -> list[str]:
        """The initial state of each layer, "" for zeros."""
        L = self.layer.num_layers
        if self.state:
            return self.split(f"{state}_0")
        if self.layer.learn_initial_state:
            return [self.learned(state, k) for k in range(L)]
        return [""] * L

    def learned(self, state: str, k: int) -> str:
        """The parameters that layer k starts from, for each sequence."""
        layer = self.layer
        rows = np.stack([layer.params[f"{state}0{suffix}"] for suffix in layer._suffixes(k)])[:, None]
        if "start_shape" not in [name for node in self.nodes for name in node.output]:  # (D, B, H) from that of x
            self.node("Shape", ["x"], ["x_shape"])
            self.node("Gather", ["x_shape", self.constant("axis_of_B", np.array([int(not layer.batch_first)]))], ["B"])
            sizes = [
                self.constant("D", np.array([layer.directions])),
                "B",
                self.constant("H", np.array([rows.shape[2]])),
            ]
            self.node("Concat", sizes, ["start_shape"], axis=0)
        name = f"{state}_0_l{k}"
        self.node("Expand", [self.constant(f"{name}_learned", rows), "start_shape"], [name])
        return name

    def split(self, name: str) -> list[str]:
        """The parts of a state that belong to each layer."""
        L, D = self.layer.num_layers, self.layer.directions
        parts = [f"{name}_l{k}" for k in range(L)]
        self.node("Split", [name, self.constant(f"{name}_split", np.full(L, D))], parts, axis=0)
        return parts

    def variant(self, directions: int) -> dict[str, Any]:
        """The attributes for cells that are not ONNX's plain ones."""
        layer, options = self.layer, self.layer.variant_options
        attributes: dict[str, Any] = {}
        acts = variants.activations_of(layer.cell, options["activations"], getattr(layer, "nonlinearity", "tanh"))
        if acts != variants.activations_of(layer.cell, None):
            attributes["activations"] = [ops.onnx_name(act.name) for act in acts] * directions
            alpha = [act.alpha for act in acts if ops.CONSTANTS.get(act.name, 0) > 0] * directions
            beta = [act.beta for act in acts if ops.CONSTANTS.get(act.name, 0) > 1] * directions
            attributes |= {"activation_alpha": alpha} if alpha else {}
            attributes |= {"activation_beta": beta} if beta else {}
        attributes |= {} if options["clip"] is None else {"clip": float(options["clip"])}
        return attributes | ({"input_forget": 1} if options["coupled"] else {})

    def recurrent(self, k: int, x: str, starts: list[str]) -> None:
        """The node of layer k."""
        layer, cell = self.layer, self.layer.cell
        suffixes, order = layer._suffixes(k), ops.inverse(ops.GATES[cell])

        def stacked(name: str) -> np.ndarray:
            return ops.blocks(np.stack([layer.params[name + suffix] for suffix in suffixes]), order)

        W = self.constant(f"W_l{k}", stacked("weight_ih"))
        R = self.constant(f"R_l{k}", stacked("weight_hh"))
        B = ""
        if layer.bias:
            B = self.constant(f"B_l{k}", np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1))
        P = ""
        if "peephole_l0" in layer.params:
            peepholes = np.stack([layer.params["peephole" + suffix] for suffix in suffixes])
            P = self.constant(f"P_l{k}", ops.blocks(peepholes, ops.inverse(ops.PEEPHOLES)))
        inputs = [x, W, R, B, "lengths" if self.lengths else "", *starts, *([P] if cell == "lstm" else [])]
        while not inputs[-1]:
            inputs.pop()
        attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
        if len(suffixes) > 1:
            attributes["direction"] = "bidirectional"
        if cell == "gru":
            attributes["linear_before_reset"] = int(layer.reset_after)
        attributes |= self.variant(len(suffixes))
        outputs = [f"Y_l{k}", *(f"{s}_n_l{k}" for s in layer.state_names)]
        self.node(cell.upper(), inputs, outputs, **attributes)
