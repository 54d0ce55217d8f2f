"""ONNX: its own tests of the operators, random nodes beside ONNX Runtime, layers from and to models, bad models."""

import doctest
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastrnn

pytest.importorskip("onnx", reason="onnx, which the extra of this name installs, is not there")
import onnx.backend.test.case.node.gru
import onnx.backend.test.case.node.lstm
import onnx.backend.test.case.node.rnn
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import _NodeTestCases
from onnx.backend.test.runner import Runner

import fastrnn.interop.onnx as interop

ORT_MISSING = "ONNX Runtime, the oracle of these tests, is not installed"
DOCS = Path(__file__).parent.parent / "docs" / "onnx.md"
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
PLAIN = {"RNN": ["Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}
INPUTS = {op: ["X", "W", "R", "B", "sequence_lens", "initial_h"] for op in GATES}
INPUTS["LSTM"] += ["initial_c", "P"]
OUTPUTS = {"RNN": ["Y", "Y_h"], "LSTM": ["Y", "Y_h", "Y_c"], "GRU": ["Y", "Y_h"]}
# The equations of ONNX's text, with the defaults of alpha and beta.
ACTIVATIONS = {
    "Relu": lambda x: np.maximum(x, 0),
    "Tanh": lambda x: np.tanh(x),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Affine": lambda x, a=1, b=0: a * x + b,
    "LeakyRelu": lambda x, a=0.01: np.where(x >= 0, x, a * x),
    "ThresholdedRelu": lambda x, a=1: np.where(x >= a, x, 0),
    "ScaledTanh": lambda x, a=1, b=1: a * np.tanh(b * x),
    "HardSigmoid": lambda x, a=0.2, b=0.5: np.clip(a * x + b, 0, 1),
    "Elu": lambda x, a=1: np.where(x >= 0, x, a * (np.exp(x) - 1)),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Softplus": lambda x: np.log(1 + np.exp(x)),
}
CONSTANTS = {"Affine": 2, "LeakyRelu": 1, "ThresholdedRelu": 1, "ScaledTanh": 2, "HardSigmoid": 2, "Elu": 1}


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
    ort = pytest.importorskip("onnxruntime", reason=ORT_MISSING)
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


# --- ONNX's own tests ------------------------------------------------------------------------------------------------

CASES = {case.name: case for case in _NodeTestCases if case.model.graph.node[0].op_type in GATES}


def test_all_of_onnx_s_own_tests_are_here():
    known = tuple(int(part) for part in version("onnx").split(".")[:2])
    assert len(CASES) >= (18 if known >= (1, 23) else 12)
    assert {case.model.graph.node[0].op_type for case in CASES.values()} == GATES.keys()


@pytest.mark.parametrize("name", CASES)
def test_onnx_s_own(engine, name):
    case = CASES[name]
    with engine.active():
        assert interop.is_compatible(case.model)
        prepared = interop.prepare(case.model)
        for inputs, outputs in case.data_sets:
            Runner.assert_similar_outputs(outputs, prepared.run(inputs), case.rtol, case.atol)
            alone = interop.run_node(case.model.graph.node[0], inputs)
            Runner.assert_similar_outputs(outputs, alone, case.rtol, case.atol)


# --- random nodes beside ONNX Runtime --------------------------------------------------------------------------------


@st.composite
def activations(draw, count):
    """
    Names and the constants for them, sometimes too few.

    ONNX Runtime 1.32 has another meaning in two places, which are left out, and of which `test_activations` says what
    is right: without their constants Affine, ThresholdedRelu and ScaledTanh have 0 there and are not what ONNX calls
    them, and ThresholdedRelu(alpha) is 0 at alpha itself, which a clip of alpha reaches, so alpha is never a clip.
    """
    names = [draw(st.sampled_from(list(ACTIVATIONS))) for _ in range(count)]
    attributes = {"activations": names}
    for which, name in enumerate(("activation_alpha", "activation_beta")):
        takers = [taker for taker in names if CONSTANTS.get(taker, 0) > which]
        needed = [k for k, taker in enumerate(takers) if taker in ("Affine", "ThresholdedRelu", "ScaledTanh")]
        least = needed[-1] + 1 if needed else 0
        constants = [draw(st.integers(0, 7)) / 8 + 1 / 16 for _ in range(draw(st.integers(least, len(takers))))]
        if constants:
            attributes[name] = constants
    return attributes


@st.composite
def problems(draw, op):
    """Attributes, the inputs that there are, the names of the outputs that there are."""
    T, B, I, H = (draw(st.integers(1, 5)) for _ in range(4))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    D, G = 1 + (direction == "bidirectional"), GATES[op]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = {"X": (T, B, I), "W": (D, G * H, I), "R": (D, G * H, H), "B": (D, 2 * G * H), "sequence_lens": (B,)}
    shapes |= {"initial_h": (D, B, H), "initial_c": (D, B, H), "P": (D, 3 * H)}
    inputs = {}
    for name in INPUTS[op]:
        if name not in ("X", "W", "R") and not draw(st.booleans()):
            continue
        inputs[name] = rng.standard_normal(shapes[name]).astype(np.float32) * np.float32(1 if name == "X" else 0.5)
        if name == "sequence_lens":
            inputs[name] = rng.integers(0, T + 1, B).astype(np.int32)
    attributes = {"direction": direction}
    if draw(st.booleans()):
        attributes["hidden_size"] = H
    if draw(st.booleans()):
        attributes["clip"] = draw(st.integers(1, 16)) / 8
    if op == "LSTM" and draw(st.booleans()):
        attributes["input_forget"] = 1
    if op == "GRU" and draw(st.booleans()):
        attributes["linear_before_reset"] = 1
    if draw(st.booleans()):
        attributes |= draw(activations(D * len(PLAIN[op])))
    which = draw(st.integers(1, 2 ** len(OUTPUTS[op]) - 1))
    return attributes, inputs, [name if which >> k & 1 else "" for k, name in enumerate(OUTPUTS[op])]


def run_here(op, attributes, inputs, outputs, layout=0):
    """The outputs by name, always as layout 0 has them."""
    inputs = dict(inputs)
    if layout:
        for name in ("X", "initial_h", "initial_c"):
            if name in inputs:
                inputs[name] = inputs[name].swapaxes(0, 1)
    node = make_node(op, inputs, outputs, layout=layout, **attributes)
    results = dict(zip(filter(None, outputs), interop.run_node(node, list(inputs.values())), strict=True))
    if layout:
        results = {k: v.transpose(1, 2, 0, 3) if k == "Y" else v.swapaxes(0, 1) for k, v in results.items()}
    return results


def compare(op, attributes, inputs, outputs, layout):
    wide = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in inputs.items()}
    precise = run_here(op, attributes, wide, outputs)
    # Gates without bounds and ThresholdedRelu's jump: what rounding of the inputs alone would change is no comparison.
    rng = np.random.default_rng(0)
    moved = {k: v * (1 + 1e-6 * rng.choice([-1, 1], v.shape)) if v.dtype == np.float64 else v for k, v in wide.items()}
    for name, value in run_here(op, attributes, moved, outputs).items():
        scale = max(1, np.abs(precise[name]).max())
        assume(np.abs(value - precise[name]).max() <= 1e-5 * scale)

    # ONNX Runtime has layout 0 alone, and its CPU kernels float32 alone; it needs hidden_size, which ONNX does not.
    theirs = {"hidden_size": inputs["R"].shape[2]} | attributes
    model = make_model([make_node(op, inputs, outputs, **theirs)], inputs, filter(None, outputs))
    expected = run_ort(model, inputs)
    # Of an empty sequence ONNX Runtime has final states of zeros; after no step, here, the state is the initial one.
    empty = np.zeros(inputs["X"].shape[1], bool)
    if "sequence_lens" in inputs:
        empty = inputs["sequence_lens"] == 0
    for name, initial in (("Y_h", "initial_h"), ("Y_c", "initial_c")):
        if name in expected:
            assert not expected[name][:, empty].any()
            if initial in inputs:
                expected[name][:, empty] = inputs[initial][:, empty]
    narrow = run_here(op, attributes, inputs, outputs, layout)
    for name, wanted in expected.items():
        assert narrow[name].dtype == np.float32
        assert_close(narrow[name], wanted)
        assert_close(precise[name], wanted)


@settings(max_examples=150)
@given(problem=problems("RNN"), layout=st.integers(0, 1))
def test_rnn_beside_onnx_runtime(problem, layout):
    compare("RNN", *problem, layout)


@settings(max_examples=200)
@given(problem=problems("LSTM"), layout=st.integers(0, 1))
def test_lstm_beside_onnx_runtime(problem, layout):
    compare("LSTM", *problem, layout)


@settings(max_examples=150)
@given(problem=problems("GRU"), layout=st.integers(0, 1))
def test_gru_beside_onnx_runtime(problem, layout):
    compare("GRU", *problem, layout)


# --- what ONNX's text says, where ONNX Runtime cannot tell ------------------------------------------------------------


def run_one_step(name, x, **attributes):
    """An activation's values, by the RNN whose only weights are an input's 1."""
    ones = np.ones((1, 1, 1), x.dtype)
    node = make_node("RNN", ("X", "W", "R"), ["Y"], activations=[name], **attributes)
    return interop.run_node(node, [x.reshape(1, -1, 1), ones, 0 * ones])[0].ravel()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    x = np.linspace(-3, 3, 41)  # 0 and 0.75 are among them
    count, equation = CONSTANTS.get(name, 0), ACTIVATIONS[name]
    constants = (0.75, -0.375)[:count]
    attributes = dict(zip(("activation_alpha", "activation_beta"), ([c] for c in constants), strict=False))
    assert_close(run_one_step(name, x), equation(x), 1e-8)
    assert_close(run_one_step(name, x, **attributes), equation(x, *constants), 1e-8)
    assert_close(run_one_step(name.lower(), x), equation(x), 1e-8)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("sizes", [(0, 2), (3, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("layout", [0, 1])
def test_empty(op, sizes, layout):
    (T, B), I, H, G = sizes, 3, 4, GATES[op]
    rng = np.random.default_rng(0)
    shapes = {"X": (T, B, I), "W": (2, G * H, I), "R": (2, G * H, H), "initial_h": (2, B, H)}
    inputs = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    results = run_here(op, {"direction": "bidirectional"}, inputs, OUTPUTS[op], layout)
    assert results["Y"].shape == (T, 2, B, H)
    assert results["Y_h"].shape == (2, B, H)
    if T == 0:
        assert np.array_equal(results["Y_h"], inputs["initial_h"])


# --- models of several nodes -----------------------------------------------------------------------------------------


def weights(op, D, I, H, seed=0, dtype=np.float32, bias=True):
    rng, G = np.random.default_rng(seed), GATES[op]
    shapes = {"W": (D, G * H, I), "R": (D, G * H, H)} | ({"B": (D, 2 * G * H)} if bias else {})
    return {name: (rng.standard_normal(shape) / 2).astype(dtype) for name, shape in shapes.items()}


def two_nodes():
    """A GRU and, from its final state, an RNN; weights in initialisers and Constant nodes."""
    first, second = weights("GRU", 1, 3, 4), weights("RNN", 1, 3, 4, seed=1, bias=False)
    gru = helper.make_node("GRU", ["x", "W", "R", "B"], ["", "middle"], name="gru", linear_before_reset=1)
    constant = helper.make_node("Constant", [], ["W2"], value=numpy_helper.from_array(second["W"]))
    rnn = helper.make_node("RNN", ["x", "W2", "R2", "", "", "middle"], ["y", "h"], name="rnn")
    x = np.random.default_rng(2).standard_normal((5, 2, 3)).astype(np.float32)
    nodes, constants = [gru, constant, rnn], first | {"R2": second["R"]}
    return nodes, {"x": x}, ["y", "h", "middle"], constants, {**first, "X": x}, {**second, "X": x}


def test_prepared_models_chain_their_nodes():
    nodes, inputs, outputs, constants, first, second = two_nodes()
    result = interop.prepare(make_model(nodes, inputs, outputs, constants)).run(inputs)
    (middle,) = interop.run_node(make_node("GRU", first, ["", "Y_h"], linear_before_reset=1), first)
    second["initial_h"] = middle
    y, h = interop.run_node(make_node("RNN", second), second)
    assert np.array_equal(result["middle"], middle)
    assert np.array_equal(result[0], y)
    assert np.array_equal(result["h"], h)
    again = interop.run_model(make_model(nodes, inputs, outputs, constants), [inputs["x"]])
    assert np.array_equal(again["y"], y)


def test_models_that_cannot_be_prepared():
    nodes, inputs, outputs, constants, *_ = two_nodes()

    def cannot(match, nodes=nodes, outputs=outputs, constants=constants):
        with refused(match):
            interop.prepare(make_model(nodes, inputs, outputs, constants))

    other = helper.make_node("Relu", ["x"], ["z"], name="act")
    assert not interop.is_compatible(make_model([*nodes, other], inputs, outputs, constants))
    cannot("Relu node 'act': expected RNN, LSTM, GRU and Constant nodes alone", [*nodes, other])
    cannot("RNN node 'rnn': input initial_h: 'middle', expected an input of the model, a constant", nodes[::-1])
    cannot("output 'z': expected", outputs=["z"])
    cannot("GRU node 'gru': input R: 'R', expected an input", constants={"W": constants["W"]})
    cannot("GRU node 'gru': input W: shape (1, 11, 3)", constants=constants | {"W": np.zeros((1, 11, 3), "f")})
    prepared = interop.prepare(make_model(nodes, inputs, outputs, constants))
    with refused("inputs: 2 of them, expected 1: ['x']"):
        prepared.run([1, 2])
    with refused("inputs: ['z'], expected ['x']"):
        prepared.run({"z": 1})
    with refused("GRU node 'gru': input X: shape (5, 3)"):
        prepared.run([inputs["x"][:, 0]])
    with refused("device: 'CUDA', expected 'CPU'"):
        interop.prepare(make_model(nodes, inputs, outputs, constants), "CUDA")


# --- nodes that are not as ONNX says ---------------------------------------------------------------------------------

ONE = np.zeros((1, 4, 1), np.float32)
GOOD = {"X": np.zeros((3, 2, 1), np.float32), "W": ONE, "R": ONE}
BAD_INPUTS = [
    ({"X": np.zeros((3, 2), "f")}, "input X: shape (3, 2), expected (T, B, I) with I = 1"),
    ({"X": np.zeros((3, 2, 1))}, "input X: dtype float64, expected float32, that of W"),
    ({"W": np.zeros((1, 4, 1), np.float16)}, "input W: dtype float16, expected float32 or float64"),
    ({"W": np.zeros((2, 4, 1), "f")}, "input W: shape (2, 4, 1), expected (D, 4H, I) with D = 1 and 4H = 4"),
    ({"R": np.zeros((1, 4, 2), "f")}, "input R: shape (1, 4, 2), expected (D, 4H, H)"),
    ({"R": np.zeros((1, 0, 0), "f")}, "input R: shape (1, 0, 0)"),
    ({"R": np.zeros((), "f")}, "input R: shape ()"),
    ({"R": None}, "input R: missing"),
    ({"B": np.zeros((1, 4), "f")}, "input B: shape (1, 4), expected (D, 8H) = (1, 8)"),
    ({"P": np.zeros((1, 4), "f")}, "input P: shape (1, 4), expected (D, 3H) = (1, 3)"),
    (
        {"initial_h": np.zeros((2, 1, 1), "f")},
        "input initial_h: shape (2, 1, 1), expected (D, B, H) = (1, 2, 1)",
    ),
    ({"initial_c": np.zeros((1, 2, 1))}, "input initial_c: dtype float64"),
    ({"sequence_lens": np.array([1, 4])}, "input sequence_lens: values from 1 to 4, expected 0 to T = 3"),
    ({"sequence_lens": np.array([1.0, 2.0])}, "input sequence_lens: dtype float64, expected integers"),
]
BAD_ATTRIBUTES = [
    ({"direction": "both"}, "attribute direction: b'both', expected forward, reverse or bidirectional"),
    ({"direction": 1}, "attribute direction: 1, expected text"),
    ({"hidden_size": 2}, "attribute hidden_size: 2, expected 1, the columns of R"),
    ({"hidden_size": -1}, "attribute hidden_size: -1, expected at least 1"),
    ({"clip": 0.0}, "attribute clip: 0.0, expected a number above 0"),
    ({"clip": float("nan")}, "attribute clip: nan"),
    ({"layout": 2}, "attribute layout: 2, expected 0 or 1"),
    ({"input_forget": 2}, "attribute input_forget: 2"),
    ({"linear_before_reset": 1}, "attribute linear_before_reset: unknown"),
    ({"activations": ["Tanh"]}, "attribute activations: 1 of them, expected 3"),
    ({"activations": ["Tanh", "Mish", "Tanh"]}, "attribute activations: 'Mish', expected some of Sigmoid, Tanh, Relu"),
    ({"activations": [1, 2, 3]}, "attribute activations: [1, 2, 3], expected a list of text values"),
    ({"activation_alpha": [1.0]}, "attribute activation_alpha: 1 values, expected at most 0"),
    ({"activations": ["Elu"] * 3, "activation_alpha": [float("inf")]}, "attributes activation_alpha, activation_beta"),
    (
        {"clip": helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0])},
        'attribute clip: dims: 1 data_type: 1 float_data: 1 name: "t", expected float values',
    ),
]


@pytest.mark.parametrize(("changed", "match"), BAD_INPUTS)
def test_bad_inputs(changed, match):
    inputs = GOOD | changed
    ordered = {name: inputs[name] for name in INPUTS["LSTM"] if name in inputs}
    with refused(f"LSTM node 'cell': {match}"):
        interop.run_node(make_node("LSTM", ordered), list(ordered.values()))


@pytest.mark.parametrize(("attributes", "match"), BAD_ATTRIBUTES)
def test_bad_attributes(attributes, match):
    with refused(f"LSTM node 'cell': {match}"):
        interop.run_node(make_node("LSTM", GOOD, **attributes), list(GOOD.values()))


def test_other_bad_nodes():
    with refused("Relu node: expected RNN, LSTM or GRU"):
        interop.run_node(helper.make_node("Relu", ["X"], ["Y"]), [ONE])
    with refused("LSTM node: expected RNN, LSTM or GRU"):
        interop.run_node(helper.make_node("LSTM", ["X", "W", "R"], ["Y"], domain="elsewhere"), list(GOOD.values()))
    with refused("LSTM node 'cell': 2 inputs, expected 3: X, W, R"):
        interop.run_node(make_node("LSTM", GOOD), [ONE, ONE])
    with refused("RNN node 'cell': 3 outputs, expected at most Y, Y_h"):
        interop.run_node(make_node("RNN", GOOD, ["a", "b", "c"]), list(GOOD.values()))
    with refused("LSTM node: input R: missing"):
        interop.run_node(helper.make_node("LSTM", ["X", "W"], ["Y"]), [ONE, ONE])


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
    ("LSTM", {"clip": 1.0}, {}, "attribute clip: 1.0, which a layer does not have"),
    ("LSTM", {"input_forget": 1}, {}, "attribute input_forget"),
    ("LSTM", {}, {"P": np.ones((1, 12), "f")}, "input P"),
    ("RNN", {"activations": ["Softsign"]}, {}, "attribute activations"),
    ("GRU", {}, {"initial_h": np.ones((1, 2, 4), "f")}, "input initial_h: a constant"),
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
    return {"y": y} | {f"{name}_n": part for name, part in zip(layer.state_names, final, strict=True)}


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


# --- the documentation -----------------------------------------------------------------------------------------------


def test_module_example():
    result = doctest.testmod(interop)
    assert result.attempted > 5
    assert not result.failed


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S) or ["1/0"])
def test_examples_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "onnx.md", "exec"), {})
