"""Layers of the nodes in ONNX models, and models of layers beside ONNX Runtime and ONNX's reference."""

import numpy as np
import pytest

import fastrnn

pytest.importorskip("onnx", reason="onnx, which the extra of this name installs, is not there")
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx_helpers import assert_close, make_model, make_node, refused, run_ort, weights

import fastrnn.interop.onnx as interop

# --- layers of a model -----------------------------------------------------------------------------------------------

LAYERS = {
    "rnn": lambda *a, **k: fastrnn.RNN(*a, rng=1, **k),
    "rnn-relu": lambda *a, **k: fastrnn.RNN(*a, nonlinearity="relu", rng=1, **k),
    "lstm": lambda *a, **k: fastrnn.LSTM(*a, rng=1, **k),
    "gru": lambda *a, **k: fastrnn.GRU(*a, rng=1, **k),
    "gru-before": lambda *a, **k: fastrnn.GRU(*a, reset_after=False, rng=1, **k),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_layers_come_back_from_their_models(kind, bidirectional, bias, dtype):
    layer = LAYERS[kind](3, 4, bidirectional=bidirectional, bias=bias, dtype=dtype)
    ((name, back),) = interop.from_onnx(interop.to_onnx(layer)).items()
    assert name == "Y_l0"
    assert repr(back) == repr(layer)
    for name, value in layer.params.items():
        assert np.array_equal(back.params[name], value), name


def test_layers_are_found_anywhere(tmp_path):
    first, second = weights("LSTM", 2, 3, 4), weights("GRU", 1, 3, 4, seed=1, bias=False)
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"]),
        helper.make_node("Identity", ["W"], ["same"]),
        helper.make_node("Identity", ["same"], ["same again"]),
        helper.make_node("Constant", [], ["R"], value=numpy_helper.from_array(first["R"])),
        helper.make_node(
            "LSTM", ["positive", "same again", "R", "B", "lengths"], ["y"], direction="bidirectional", layout=1
        ),
    ]
    inner = helper.make_node("GRU", ["x", "W2", "R2"], ["inner"], name="within")
    body = helper.make_graph([inner], "body", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)])
    nodes.append(helper.make_node("If", ["which"], ["z"], then_branch=body, else_branch=body))
    nodes[-1].attribute[1].g.node[0].name = "within, else"
    x = np.random.default_rng(2).standard_normal((2, 5, 3)).astype(np.float32)
    lengths = np.array([5, 3], np.int32)
    inputs = {"x": x, "lengths": lengths, "which": np.array(True)}
    constants = {"W": first["W"], "B": first["B"], "W2": second["W"], "R2": second["R"]}
    model = make_model(nodes, inputs, ["y", "z"], constants)
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.data", size_threshold=0)
    apart = onnx.load(path, load_external_data=False)

    found = interop.from_onnx(path)
    assert found.keys() == {"LSTM_0", "within", "within, else"}
    lstm, gru = found["LSTM_0"], found["within"]
    assert repr(lstm) == "LSTM(3, 4, batch_first, bidirectional, dtype=float32)"
    assert repr(gru) == "GRU(3, 4, reset_after=False, bias=False, dtype=float32)"
    given = {"X": np.maximum(x, 0), **first, "sequence_lens": lengths}
    y, h, c = interop.run_node(make_node("LSTM", given, direction="bidirectional", layout=1), given)
    mine, (h_n, c_n) = lstm(given["X"], lengths=lengths)
    assert np.array_equal(mine, y.reshape(2, 5, 8))
    assert np.array_equal(h_n, h.swapaxes(0, 1))
    assert np.array_equal(c_n, c.swapaxes(0, 1))
    given = {"X": x} | second
    (y,) = interop.run_node(make_node("GRU", given, ["Y"]), given)
    assert np.array_equal(gru(x)[0], y[:, 0])
    with refused("LSTM node number 0: input W: constant 'same again': its data is in a file of its own"):
        interop.from_onnx(apart)


NEEDS_MORE = [
    ("LSTM", {"direction": "reverse"}, {}, "attribute direction: reverse"),
    ("GRU", {}, {"initial_h": np.arange(8, dtype="f").reshape(1, 2, 4)}, "input initial_h: a constant for each"),
    ("GRU", {}, {"initial_h": np.ones((2, 1, 4), "f")}, "input initial_h: float32 (2, 1, 4), expected float32 (D, B"),
    ("GRU", {}, {"sequence_lens": np.array([1, 2], np.int32)}, "input sequence_lens: a constant"),
    ("RNN", {"hidden_size": 5}, {}, "attribute hidden_size: 5, expected 4"),
]


@pytest.mark.parametrize(("op", "attributes", "more", "match"), NEEDS_MORE)
def test_nodes_that_need_more_than_a_layer_has(op, attributes, more, match):
    constants = weights(op, 1, 3, 4) | more
    x = np.zeros((5, 2, 3), np.float32)
    node = make_node(op, {"X", *constants}, ["Y"], **attributes)
    with refused(f"{op} node 'cell': {match}"):
        interop.from_onnx(make_model([node], {"X": x}, ["Y"], constants))


def test_a_constant_initial_state_is_one_that_is_learned():
    constants = weights("LSTM", 2, 3, 4) | {"initial_c": np.arange(8, dtype="f").reshape(2, 1, 4).repeat(3, axis=1)}
    x = np.random.default_rng(1).standard_normal((5, 3, 3)).astype(np.float32)
    node = make_node("LSTM", {"X", *constants}, direction="bidirectional")
    model = make_model([node], {"X": x}, ["Y", "Y_h", "Y_c"], constants)
    layer = interop.from_onnx(model)["cell"]
    expected = interop.prepare(model).run({"X": x})
    y, (h_n, c_n) = layer(x)
    assert layer.learn_initial_state
    assert np.array_equal(y, np.concatenate([expected["Y"][:, 0], expected["Y"][:, 1]], axis=2))
    assert np.array_equal(h_n, expected["Y_h"])
    assert np.array_equal(c_n, expected["Y_c"])


def test_models_that_no_layers_are_made_of(tmp_path):
    constants, x = weights("RNN", 1, 3, 4), np.zeros((5, 2, 3), np.float32)
    node = make_node("RNN", ["X", "W", "R"], ["Y"])
    with refused("RNN node 'cell': input R: 'R', expected a constant"):
        interop.from_onnx(make_model([node], {"X": x, "R": constants["R"]}, ["Y"], {"W": constants["W"]}))
    with refused("RNN node 'cell': a second one of this name"):
        interop.from_onnx(make_model([node, node], {"X": x}, ["Y"], constants))
    both = make_node("RNN", ["X", "W", "R"], ["Y"], direction="bidirectional", activations=["Tanh", "Relu"])
    with refused("RNN node 'cell': attribute activations: each direction has its own"):
        interop.from_onnx(make_model([both], {"X": x}, ["Y"], weights("RNN", 2, 3, 4)))
    broken = make_model([node], {"X": x}, ["Y"], constants)
    broken.graph.initializer[0].dims[:] = [1, 4, 2**40]
    with refused("RNN node 'cell': input W: constant 'W': "):
        interop.from_onnx(broken)
    (tmp_path / "text.onnx").write_text("no model at all")
    with refused(f"model: {str(tmp_path / 'text.onnx')!r} is not a whole ONNX model"):
        interop.from_onnx(tmp_path / "text.onnx")
    with refused("model: bytes, expected an onnx.ModelProto or a path", TypeError):
        interop.from_onnx(b"")
    assert interop.from_onnx(make_model([helper.make_node("Relu", ["X"], ["Y"])], {"X": x}, ["Y"])) == {}


# --- models of layers ------------------------------------------------------------------------------------------------


def layer_inputs(layer, T, B, lengths, state):
    """All that a layer's model is given, by name."""
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal((B, T, 3) if layer.batch_first else (T, B, 3)).astype(layer.dtype)}
    if lengths:
        # ONNX Runtime's final state of an empty sequence is zeros, so that of one with a state is left out.
        inputs["lengths"] = rng.permutation(np.r_[int(state), T, rng.integers(1, T, B - 2)]).astype(np.int32)
    if state:
        for name in layer.state_names:
            shape = (layer.directions * layer.num_layers, B, layer.hidden_size)
            inputs[f"{name}_0"] = rng.standard_normal(shape).astype(layer.dtype)
    return inputs


def run_layer(layer, inputs):
    state = [inputs[f"{name}_0"] for name in layer.state_names if f"{name}_0" in inputs]
    y, final = layer(
        inputs["x"], tuple(state) if len(state) > 1 else state[0] if state else None, inputs.get("lengths")
    )
    final = final if isinstance(final, tuple) else (final,)
    y = {"y": y[0], "y_reverse": y[1]} if layer.merge is None else {"y": y}
    return y | {f"{name}_n": part for name, part in zip(layer.state_names, final, strict=True)}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("stack", [(1, False), (1, True), (3, False), (2, True)], ids=str)
@pytest.mark.parametrize("lengths", [False, True], ids=["dense", "ragged"])
@pytest.mark.parametrize("state", [False, True], ids=["zeros", "state"])
def test_layers_run_the_same_in_onnx_runtime(kind, stack, lengths, state):
    options = {"batch_first": lengths != state, "bias": not lengths or state}  # each with and without the others
    layer = LAYERS[kind](3, 4, num_layers=stack[0], bidirectional=stack[1], **options)
    model = interop.to_onnx(layer, lengths=lengths, state=state, opset=22 if state else 14)
    onnx.checker.check_model(model, full_check=True)
    for T, B in ((5, 3), (4, 2)):  # both axes are free
        inputs = layer_inputs(layer, T, B, lengths, state)
        expected = run_ort(model, inputs)
        actual = run_layer(layer, inputs)
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(actual[name], value)


@pytest.mark.parametrize("merge", ["sum", "mul", "ave", None])
@pytest.mark.parametrize("batch_first", [False, True])
def test_merged_directions_and_learned_states_in_onnx_runtime(merge, batch_first):
    options = {"bidirectional": True, "merge": merge, "batch_first": batch_first, "learn_initial_state": True}
    layer = LAYERS["lstm"](3, 4, num_layers=1 if merge is None else 2, **options)
    rng = np.random.default_rng(0)
    for name, value in layer.params.items():
        if name.startswith(("h0", "c0")):
            value[...] = rng.standard_normal(value.shape)
    for state in (False, True):
        model = interop.to_onnx(layer, state=state)
        onnx.checker.check_model(model, full_check=True)
        inputs = layer_inputs(layer, 5, 2, False, state)
        expected = run_ort(model, inputs)
        actual = run_layer(layer, inputs)
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(actual[name], value)


@pytest.mark.parametrize("kind", ["lstm", "gru", "gru-before"])
@pytest.mark.parametrize("opset", [14, onnx.defs.onnx_opset_version()])
def test_layers_of_float64_run_the_same_by_onnx_s_reference(kind, opset):
    from onnx.reference import ReferenceEvaluator

    layer = LAYERS[kind](3, 4, num_layers=2, bidirectional=True, batch_first=True, dtype=np.float64)
    model = interop.to_onnx(layer, state=True, opset=opset)
    onnx.checker.check_model(model, full_check=True)
    inputs = layer_inputs(layer, 5, 2, False, True)
    outputs = ReferenceEvaluator(model).run(None, inputs)
    for actual, expected in zip(run_layer(layer, inputs).values(), outputs, strict=True):
        assert_close(actual, expected, 1e-12)


def test_what_is_not_written():
    layer = fastrnn.GRU(3, 4)
    with refused("opset: 13, expected 14 to"):
        interop.to_onnx(layer, opset=13)
    with refused("layer: Linear, expected a fastrnn.RNN, LSTM or GRU", TypeError):
        interop.to_onnx(fastrnn.nn.Linear(3, 4))
    layer.add_parameter("scale_l0", np.ones(4, np.float32))
    with refused("layer: it has the parameter scale_l0, which ONNX's GRU does not"):
        interop.to_onnx(layer)


@pytest.mark.parametrize("location", ["../weights.bin", "/weights.bin", "none.bin"])
def test_data_outside_of_the_model_s_folder_is_not_read(tmp_path, location):
    (tmp_path / "model").mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(16 * 3 * 4))
    location = str(tmp_path) + location if location.startswith("/") else location
    tensor = onnx.TensorProto(name="W", data_type=onnx.TensorProto.FLOAT, dims=[1, 16, 3])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    constants, x = weights("LSTM", 1, 3, 4), np.zeros((2, 1, 3), np.float32)
    model = make_model([make_node("LSTM", ["X", "W", "R"], ["Y"])], {"X": x}, ["Y"], constants)
    for k, old in enumerate(model.graph.initializer):
        if old.name == "W":
            model.graph.initializer[k].CopyFrom(tensor)
    path = tmp_path / "model" / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="is not a whole ONNX model"):
        interop.from_onnx(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_truncated_file(tmp_path, part):
    path = tmp_path / "model.onnx"
    whole = interop.to_onnx(fastrnn.GRU(3, 4)).SerializeToString()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ValueError, match=r"^model: "):
        interop.from_onnx(path)


VARIANTS = {
    "peepholes": ("LSTM", {"peepholes": True, "clip": 0.9}),
    "coupled": ("LSTM", {"coupled": True, "activations": (("hard_sigmoid", 0.3), "relu", ("elu", 0.7))}),
    "leaky": ("RNN", {"activations": (("leaky_relu", 0.3),)}),
    "gru": ("GRU", {"activations": (("hard_sigmoid", 0.3, 0.4), "softsign"), "clip": 2.0, "reset_after": False}),
}


@pytest.mark.parametrize(("cell", "options"), VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_variants_there_and_back(cell, options, bidirectional):
    # Dropout within the cell is for training, and no part of a model.
    layer = getattr(fastrnn, cell)(3, 4, bidirectional=bidirectional, recurrent_dropout=0.5, rng=1, **options)
    model = interop.to_onnx(layer)
    onnx.checker.check_model(model, full_check=True)
    inputs = layer_inputs(layer, 5, 2, False, False)
    expected = run_ort(model, inputs)
    (back,) = interop.from_onnx(model).values()
    for run in (run_layer(layer, inputs), run_layer(back, inputs)):
        for name, value in expected.items():
            assert_close(run[name], value)


@pytest.mark.parametrize("options", [{"layer_norm": True}, {"zoneout": 0.1}, {"proj_size": 2}], ids=str)
def test_variants_that_onnx_has_not(options):
    with refused("layer: it has the "):
        interop.to_onnx(fastrnn.LSTM(3, 4, **options))


# --- the documentation -----------------------------------------------------------------------------------------------
