"""``python -m fastrnn convert`` and ``inspect``: files of other libraries and ours, both ways."""

import os
import re
import subprocess
import sys
import warnings

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import pytest

import fastrnn
from fastrnn import __main__ as cli
from fastrnn import _convert, models, nn
from fastrnn.data import CharVocabulary

I, H = 3, 4
X = np.random.default_rng(0).standard_normal((5, 2, I)).astype(np.float32)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(capsys, *arguments):
    """The exit code, and what was printed."""
    code = cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out + err


def state_of(layer, front=""):
    return {front + name: value for name, value in layer.state_dict().items()}


LAYERS = {
    "rnn": fastrnn.RNN(I, H, 2, rng=0),
    "lstm": fastrnn.LSTM(I, H, 3, bidirectional=True, rng=0),
    "lstm with projections": fastrnn.LSTM(I, H, 2, proj_size=2, rng=0),
    "gru": fastrnn.GRU(I, H, bias=False, dtype=np.float64, rng=0),
    "one unit": fastrnn.GRU(1, 1, rng=0),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("front", ["", "model.encoder."])
def test_state_dicts(name, front, capsys):
    layer = LAYERS[name]
    others = {"head.weight": np.ones((2, H), np.float32), "steps": np.array(7)}
    fastrnn.save_arrays(state_of(layer, front) | others, "torch.safetensors")
    code, out = run(capsys, "convert", "torch.safetensors", "ours.npz")
    assert code == 0, out
    again = fastrnn.load("ours.npz")
    assert repr(again) == repr(layer)
    for parameter, value in layer.params.items():
        np.testing.assert_array_equal(again.params[parameter], value)
    assert out.startswith(f"ours.npz: {type(layer).__name__}(input_size={layer.input_size}, ")
    assert f"{sum(a.size for a in layer.params.values()):,} numbers" in out


def test_state_dicts_of_pytorch(capsys):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    files = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    for theirs in (torch.nn.RNN(I, H, nonlinearity="relu"), torch.nn.LSTM(I, H, 2), torch.nn.GRU(I, H)):
        files.save_file(theirs.state_dict(), "torch.safetensors")
        extra = ["--nonlinearity", "relu"] if isinstance(theirs, torch.nn.RNN) else []
        assert run(capsys, "convert", "torch.safetensors", "ours.safetensors", *extra)[0] == 0
        expected = theirs(torch.from_numpy(X))[0].detach().numpy()
        np.testing.assert_allclose(fastrnn.load("ours.safetensors")(X)[0], expected, atol=1e-6)
        theirs.load_state_dict(files.load_file("ours.safetensors"))  # ours is one of PyTorch's too


def test_half_precision_becomes_single():
    arrays = {name: value.astype(np.float16) for name, value in fastrnn.LSTM(I, H, rng=0).params.items()}
    (layer,) = _convert.recurrent_layers(arrays).values()
    assert layer.dtype == np.float32
    np.testing.assert_array_equal(layer.weight_ih_l0, arrays["weight_ih_l0"])


def test_doubles_of_the_other_byte_order_stay_doubles():
    layer = fastrnn.LSTM(I, H, dtype="float64", rng=0)
    arrays = {name: value.astype(">f8") for name, value in layer.params.items()}
    (again,) = _convert.recurrent_layers(arrays).values()
    assert again.dtype == np.float64
    np.testing.assert_array_equal(again.weight_hh_l0, layer.weight_hh_l0)


def test_several_layers_are_chosen_by_name(capsys):
    lower, upper = fastrnn.GRU(I, H, rng=0), fastrnn.LSTM(H, 2, rng=1)
    fastrnn.save_arrays(state_of(lower, "a.") | state_of(upper, "b."), "two.safetensors")
    code, out = run(capsys, "convert", "two.safetensors", "out.npz")
    assert (code, out) == (2, "fastrnn: two.safetensors: 2 layers, 'a', 'b'; say which with --layer\n")
    assert run(capsys, "convert", "two.safetensors", "out.npz", "--layer", "b")[0] == 0
    assert repr(fastrnn.load("out.npz")) == repr(upper)
    assert run(capsys, "convert", "two.safetensors", "out.npz", "--layer", "a", "--layer", "b")[0] == 0
    stack = fastrnn.load("out.npz")
    np.testing.assert_array_equal(stack(X)[0], upper(lower(X)[0])[0])
    code, out = run(capsys, "convert", "two.safetensors", "out.npz", "--layer", "c")
    assert (code, out) == (2, "fastrnn: two.safetensors: no layer 'c', expected some of 'a', 'b'\n")
    model = nn.Sequential(fastrnn.GRU(I, H, batch_first=True, rng=0), nn.LastStep(), nn.Linear(H, 2, rng=0))
    fastrnn.save(model, "model.npz")
    assert run(capsys, "convert", "model.npz", "layer.safetensors", "--layer", "0")[0] == 0
    assert repr(fastrnn.load("layer.safetensors")) == repr(model[0])
    assert run(capsys, "convert", "model.npz", "same.safetensors")[0] == 0
    np.testing.assert_array_equal(fastrnn.load("same.safetensors")(X.swapaxes(0, 1)), model(X.swapaxes(0, 1)))


def test_onnx(capsys):
    pytest.importorskip("onnx", reason="onnx is not installed")
    layer = fastrnn.GRU(I, H, 2, bidirectional=True, rng=0)
    fastrnn.save(layer, "a.safetensors")
    code, out = run(capsys, "convert", "a.safetensors", "a.onnx")
    assert code == 0, out
    assert out.startswith("a.onnx: ONNX model, its recurrent nodes '")
    names = list(__import__("fastrnn.interop.onnx").interop.onnx.from_onnx("a.onnx"))
    code, out = run(capsys, "convert", "a.onnx", "b.npz", "--layer", names[0], "--layer", names[1])
    assert code == 0, out
    np.testing.assert_allclose(fastrnn.load("b.npz")(X)[0], layer(X)[0], atol=1e-6)
    fastrnn.save(fastrnn.Stack([layer]), "stack.npz")
    code, out = run(capsys, "convert", "stack.npz", "c.onnx")
    assert code == 2
    assert "of a Stack, expected a single RNN, LSTM or GRU" in out
    assert run(capsys, "convert", "stack.npz", "c.onnx", "--layer", "0")[0] == 0
    fastrnn.save(fastrnn.MinGRU(I, H), "min.npz")
    code, out = run(capsys, "convert", "min.npz", "d.onnx")
    assert (code, out) == (2, "fastrnn: layer: MinGRU, expected a fastrnn.RNN, LSTM or GRU\n")
    assert not os.path.exists("d.onnx")
    open("empty.onnx", "w").close()
    assert "its recurrent nodes none, 0 bytes" in run(capsys, "inspect", "empty.onnx")[1]


def test_keras(capsys):
    pytest.importorskip("h5py", reason="h5py is not installed")
    pytest.importorskip("keras", reason="Keras is not installed")
    layer = fastrnn.LSTM(I, H, batch_first=True, rng=0)
    fastrnn.save(layer, "a.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of Keras
        for name in ("a.keras", "a.h5"):
            code, out = run(capsys, "convert", "a.npz", name)
            assert code == 0, out
            assert f"{name}: Keras model of LSTM 'lstm" in out
            assert "3 arrays, 128 numbers" in out
            layer_name = re.search(r"LSTM '(\w+)'", out)[1]
            code, out = run(capsys, "convert", name, "b.safetensors", "--layer", layer_name)
            assert code == 0, out
            again = fastrnn.load("b.safetensors")
            x = X.swapaxes(0, 1)
            np.testing.assert_allclose(again(x)[0], layer(x)[0], atol=1e-6)
        fastrnn.save(nn.Linear(I, H), "linear.npz")
        code, out = run(capsys, "convert", "linear.npz", "linear.keras")
        assert (code, os.path.exists("linear.keras")) == (2, False)
        assert out.startswith("fastrnn: module: a Linear alone, expected a recurrent layer")
    code, out = run(capsys, "convert", "a.keras", "c.npz")
    assert out.startswith("c.npz: Sequential(modules=[LSTM(input_size=3, hidden_size=4, ")


def test_inspect(capsys):
    fastrnn.save_arrays({"a": np.ones((2, 3), np.float32), "number": np.array(3)}, "a.npz")
    code, out = run(capsys, "inspect", "a.npz")
    assert code == 0
    assert out == (
        f"a.npz: arrays, {os.path.getsize('a.npz')} bytes\n"
        "  a       2 x 3       float32  24 bytes\n"
        "  number  one number  int64     8 bytes\n"
        "2 arrays, 7 numbers\n"
    )
    fastrnn.save_arrays({"\x1b[2J": np.ones(2)}, "a.npz")
    assert "'\\x1b[2J'" in run(capsys, "inspect", "a.npz")[1]
    models.CharModel(CharVocabulary("hello"), 2, 3, rng=0).save("c.safetensors")
    out = run(capsys, "inspect", "c.safetensors")[1]
    assert out.startswith("c.safetensors: CharModel(vocabulary=CharVocabulary of 4 characters, embedding_dim=2, ")
    fastrnn.save_arrays({"\u2603": np.ones(2)}, "snow.npz")
    command = [sys.executable, "-m", "fastrnn", "inspect", "snow.npz"]
    result = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=True)
    assert b"\\u2603  2  float64" in result.stdout
    fastrnn.save(nn.ReLU(), "relu.npz")
    assert run(capsys, "inspect", "relu.npz")[1].endswith("bytes\n0 arrays, 0 numbers\n")


def test_what_does_not_fit_ends_with_code_2_and_writes_nothing(capsys):
    whole = state_of(LAYERS["lstm"])
    arrays = {
        "nothing": {"a": np.ones(3)},
        "no matrix": {"weight_ih_l0": np.ones(3), "weight_hh_l0": np.ones((4, 1))},
        "half": {"weight_ih_l0": np.ones((4, 3))},
        "two gates": {"weight_ih_l0": np.ones((4, 3)), "weight_hh_l0": np.ones((4, 2))},
        "one missing": {name: value for name, value in whole.items() if name != "bias_hh_l1"},
        "one too many": whole | {"weight_ih_l7": np.ones((16, 8), np.float32)},
        "far too many": {"weight_ih_l99999999999": np.ones((4, 3))} | whole,
        "another shape": whole | {"weight_hh_l1": np.ones((4, 4), np.float32)},
        "a projection to no units": state_of(LAYERS["lstm with projections"]) | {"weight_hr_l0": np.ones((2, 0))},
        "a number as projection": state_of(LAYERS["lstm with projections"]) | {"weight_hr_l0": np.array(1.0)},
        "quantised": {name: np.ones(value.shape, np.int8) for name, value in whole.items()},
        "half quantised": whole | {"weight_hh_l2": np.ones((16, 4), np.int8)},
        "complex": {name: value * 1j for name, value in whole.items()},
    }
    for name, values in arrays.items():
        fastrnn.save_arrays(values, "bad.safetensors")
        code, out = run(capsys, "convert", "bad.safetensors", "out.npz")
        assert code == 2, (name, out)
        assert out.startswith("fastrnn: bad.safetensors: ")
        assert out.count("\n") == 1
    with open("damaged.npz", "wb") as file:
        file.write(b"hello")
    with open("damaged.keras", "wb") as file:
        file.write(b"hello")
    for arguments, message in (
        (("convert", "damaged.npz", "out.npz"), "no .npz file, or damaged"),
        (("convert", "bad.safetensors", "out.pt"), "path: 'out.pt', expected one ending in .safetensors, "),
        (("convert", "bad.pt", "out.npz"), "path: 'bad.pt', expected one ending in"),
        (("convert", "missing.npz", "out.npz"), "No such file"),
        (("inspect", "damaged.npz"), "no .npz file, or damaged"),
        (("inspect", "missing.safetensors"), "No such file"),
    ):
        code, out = run(capsys, *arguments)
        assert code == 2
        assert message in out
    assert not os.path.exists("out.npz")


def test_inspect_says_what_is_wrong_with_a_description(capsys):
    with open("bad.safetensors", "wb") as file:
        text = '{"version": 1, "class": "GRU", "arguments": {"input_size": 3, "hidden_size": 4, "code_points": 1}}'
        fastrnn._safetensors.write(file, dict(LAYERS["rnn"].params), {"fastrnn": text})
    code, out = run(capsys, "inspect", "bad.safetensors")
    assert code == 2
    assert "bad.safetensors: no .safetensors file, or damaged (" in out
