"""ONNX's operators: its own tests of them, random nodes beside ONNX Runtime, chains of nodes, bad nodes."""

from importlib import import_module
from importlib.metadata import version

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx", reason="onnx, which the extra of this name installs, is not there")
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import _NodeTestCases
from onnx.backend.test.runner import Runner
from onnx_helpers import GATES, INPUTS, OUTPUTS, PLAIN, assert_close, make_model, make_node, refused, run_ort, weights

import fastrnn.interop.onnx as interop

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


# --- ONNX's own tests ------------------------------------------------------------------------------------------------

for module in ("rnn", "lstm", "gru"):  # a module makes its cases when it is imported; all modules take half a minute
    with np.errstate(invalid="ignore"):  # of its products a BLAS says so now and then, whose results are finite
        import_module(f"onnx.backend.test.case.node.{module}")
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
