"""The ONNX model of a layer, node by node; `fastrnn.interop.onnx.to_onnx` is its face, and the one that imports it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

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
        outputs = [self.value("y", *outer, D * H), *(self.value(f"{s}_n", D * L, "B", H) for s in states)]
        starts = {s: self.split(f"{s}_0") if self.state else [""] * L for s in states}
        x = "x"
        if layer.batch_first:  # few runtimes have layout 1
            self.node("Transpose", [x], ["x_time_major"], perm=[1, 0, 2])
            x = "x_time_major"
        wide = self.constant("y_shape", np.array([0, 0, D * H]))  # 0: as it was
        for k in range(L):
            self.recurrent(k, x, [starts[s][k] for s in states])
            last = k == L - 1
            x = "y" if last else f"y_l{k}"
            perm = [2, 0, 1, 3] if last and layer.batch_first else [0, 2, 1, 3]
            self.node("Transpose", [f"Y_l{k}"], [f"Y_l{k}_together"], perm=perm)
            self.node("Reshape", [f"Y_l{k}_together", wide], [x])
        for s in states:
            ends = [f"{s}_n_l{k}" for k in range(L)]
            self.node("Concat", ends, [f"{s}_n"], axis=0)
        graph = helper.make_graph(self.nodes, type(layer).__name__, inputs, outputs, self.initialisers)
        imports = [helper.make_opsetid("", opset)]
        return helper.make_model(
            graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports), producer_name="fastrnn"
        )

    def split(self, name: str) -> list[str]:
        """The parts of a state that belong to each layer."""
        L, D = self.layer.num_layers, self.layer.directions
        parts = [f"{name}_l{k}" for k in range(L)]
        self.node("Split", [name, self.constant(f"{name}_split", np.full(L, D))], parts, axis=0)
        return parts

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
        inputs = [x, W, R, B, "lengths" if self.lengths else "", *starts]
        while not inputs[-1]:
            inputs.pop()
        attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
        if len(suffixes) > 1:
            attributes["direction"] = "bidirectional"
        if cell == "gru":
            attributes["linear_before_reset"] = int(layer.reset_after)
        if cell == "rnn" and layer.nonlinearity != "tanh":
            attributes["activations"] = [ops.onnx_name(layer.nonlinearity)] * len(suffixes)
        outputs = [f"Y_l{k}", *(f"{s}_n_l{k}" for s in layer.state_names)]
        self.node(cell.upper(), inputs, outputs, **attributes)
