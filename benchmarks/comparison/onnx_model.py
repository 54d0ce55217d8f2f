"""A problem as an ONNX model of one node."""

import numpy as np

# Where ONNX's gate blocks (LSTM i o f c, GRU z r h) are among PyTorch's (i f g o, r z n).
GATE_ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}


def one_node_model(problem):
    """The model as bytes: inputs ``x, h0, (c0)``, outputs ``y (T, 1, B, H), h_n, (c_n)``, the weights within."""
    from onnx import TensorProto, helper, numpy_helper

    T, B, I, H = problem.shape
    cell, order = problem.cell, list(GATE_ORDER[problem.cell])

    def blocks(a):
        return a.reshape(len(order), H, *a.shape[1:])[order].reshape(1, *a.shape)

    weights = {
        "W": blocks(problem.w_ih),
        "R": blocks(problem.w_hh),
        "B": np.concatenate([blocks(problem.b_ih), blocks(problem.b_hh)], axis=1),
    }
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]

    def tensor(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    states = ["h", "c"][: len(problem.states)]
    inputs = [tensor("x", T, B, I), *(tensor(f"{s}0", 1, B, H) for s in states)]
    outputs = [tensor("y", T, 1, B, H), *(tensor(f"{s}_n", 1, B, H) for s in states)]
    options = {"linear_before_reset": 1} if cell == "gru" else {}
    # The empty name stands for sequence_lens: all are T.
    names = ["x", *weights, "", *(i.name for i in inputs[1:])]
    node = helper.make_node(cell.upper(), names, [o.name for o in outputs], hidden_size=H, **options)
    graph = helper.make_graph([node], cell, inputs, outputs, initializers)
    # Versions that every ONNX Runtime and OpenVINO of the last years reads.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
