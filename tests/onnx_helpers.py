"""What the tests of ONNX share: nodes and models of them, random weights, ONNX Runtime."""

import re

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
PLAIN = {"RNN": ["Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}
INPUTS = {op: ["X", "W", "R", "B", "sequence_lens", "initial_h"] for op in GATES}
INPUTS["LSTM"] += ["initial_c", "P"]
OUTPUTS = {"RNN": ["Y", "Y_h"], "LSTM": ["Y", "Y_h", "Y_c"], "GRU": ["Y", "Y_h"]}


def make_node(op, present, outputs=None, name="cell", **attributes):
    """A node whose inputs and outputs have ONNX's names."""
    names = [known if known in present else "" for known in INPUTS[op]]
    while not names[-1]:
        names.pop()
    return helper.make_node(op, names, outputs or OUTPUTS[op], name=name, **attributes)


def make_model(nodes, inputs, outputs, constants=(), element=TensorProto.FLOAT, opset=14):
    """A model of nodes, whose inputs are arrays by name."""
    values = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()
    ]
    results = [helper.make_tensor_value_info(name, element, None) for name in outputs]
    initialisers = [numpy_helper.from_array(v, k) for k, v in dict(constants).items()]
    graph = helper.make_graph(nodes, "graph", values, results, initialisers)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports))


def run_ort(model, inputs):
    """A model's outputs by name, as ONNX Runtime has them."""
    ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime, the oracle of these tests, is not installed")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def refused(text, kind=ValueError):
    """An error whose message begins so."""
    return pytest.raises(kind, match="^" + re.escape(text))


def assert_close(actual, expected, tolerance=1e-5):
    """No element further off than `tolerance` times the largest, at least 1."""
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max(initial=0) <= tolerance * max(1, np.abs(expected).max(initial=0))


def weights(op, D, I, H, seed=0, bias=True):
    """The float32 weights of a node, by the names of its inputs."""
    rng, G = np.random.default_rng(seed), GATES[op]
    shapes = {"W": (D, G * H, I), "R": (D, G * H, H)} | ({"B": (D, 2 * G * H)} if bias else {})
    return {name: (rng.standard_normal(shape) / 2).astype(np.float32) for name, shape in shapes.items()}
