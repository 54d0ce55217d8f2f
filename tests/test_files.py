"""Modules in files: what comes back is what was saved, in every class there is."""

import inspect
import json
import os
import pickle
import tracemalloc

import numpy as np
import pytest

import fastrnn
from fastrnn import models, nn
from fastrnn._building import build, describe, registry
from fastrnn.data import CharVocabulary
from fastrnn.module import Module

B, T, I, H = 3, 5, 4, 6
RNG = np.random.default_rng(0)
X = RNG.standard_normal((B, T, I))
TOKENS = RNG.integers(3, 9, (B, T))
F64 = {"dtype": np.float64, "rng": 1}

MODULES = {
    "RNN": lambda: fastrnn.RNN(I, H, 2, "relu", batch_first=True, **F64),
    "LSTM": lambda: fastrnn.LSTM(I, H, 2, bidirectional=True, dropout=0.3, batch_first=True, merge="sum", **F64),
    "LSTM of variants": lambda: fastrnn.LSTM(
        I, H, proj_size=2, peepholes=True, clip=3.0, zoneout=(0.1, 0.2), forget_bias=1.0, batch_first=True,
        layer_norm=True, learn_initial_state=True, activations=(("hard_sigmoid", 0.2), "tanh", "relu"), **F64
    ),
    "GRU": lambda: fastrnn.GRU(I, H, reset_after=False, bias=False, batch_first=True, **F64),
    "IndRNN": lambda: fastrnn.IndRNN(I, H, 2, batch_first=True, nonlinearity="tanh", **F64),
    "MinGRU": lambda: fastrnn.MinGRU(I, H, candidate="positive", batch_first=True, bidirectional=True, **F64),
    "MinLSTM": lambda: fastrnn.MinLSTM(I, H, scan="parallel", batch_first=True, **F64),
    "Stack": lambda: fastrnn.Stack(
        [fastrnn.GRU(I, H, batch_first=True, **F64), fastrnn.LSTM(I + H, 2, batch_first=True, **F64)], skip="input"
    ),
    "Stack of stacks": lambda: fastrnn.Stack(
        (fastrnn.Stack([fastrnn.RNN(I, I, batch_first=True, **F64)], residual=True),
         fastrnn.IndRNN(I, I, batch_first=True, **F64)), residual=[False, True],
    ),
    "Sequential": lambda: nn.Sequential(
        fastrnn.LSTM(I, H, batch_first=True, **F64),
        nn.SelfAttention(H, 4, **F64),
        nn.TransformerEncoderLayer(H, 2, 7, activation="gelu", norm_first=True, **F64),
        nn.TimeDistributed(nn.Sequential(nn.Linear(H, 3, False, **F64), nn.GELU())),
        nn.LayerNorm(3, 1e-3, dtype="float64"),
        nn.Dropout(0.2),
        nn.AttentionPooling(3, **F64),
        nn.Softmax(),
    ),
    "Sequential of tokens": lambda: nn.Sequential(
        nn.Embedding(9, I, padding_idx=-1, **F64), fastrnn.GRU(I, H, batch_first=True, **F64), nn.LastStep(),
        nn.Linear(H, 2, **F64), nn.Tanh(), nn.ReLU(), nn.Sigmoid(),
    ),
    "MultiHeadAttention": lambda: nn.MultiHeadAttention(I, 2, kdim=I, **F64),
    "MultiHeadAttention of other widths": lambda: nn.Sequential(nn.MultiHeadAttention(I, 4, bias=False, **F64)),
    "MeanOverTime": lambda: nn.MeanOverTime(),
    "FinalState": lambda: nn.FinalState(fastrnn.LSTM(I, H, 2, bidirectional=True, batch_first=True, **F64)),
    "ScaledDotProductAttention": lambda: nn.ScaledDotProductAttention(scale=0.3),
    "GeneralAttention": lambda: nn.GeneralAttention(I, I, **F64),
    "AdditiveAttention": lambda: nn.AdditiveAttention(I, I, 3, **F64),
    "HierarchicalRNN": lambda: models.HierarchicalRNN(I, H, 2, 5, "lstm", top_down=True, batch_first=True, **F64),
    "SequenceModel": lambda: models.SequenceModel(I, H, cell="gru", **F64),
    "Seq2Seq": lambda: models.Seq2Seq(9, 9, 4, H, attention="bahdanau", bidirectional=True, **F64),
    "Seq2Seq of Luong": lambda: models.Seq2Seq(9, 9, 4, H, 2, "gru", "luong", bos=3, **F64),
    "CharModel": lambda: models.CharModel(CharVocabulary("abc\ud800\udc00 ü"), 4, H, 2, 0.1, **F64),
    "LuongAttention": lambda: models.LuongAttention(3, 4, **F64),
    "BahdanauAttention": lambda: models.BahdanauAttention(3, 4, 5, **F64),
}  # fmt: skip


def results(module):
    """What a module makes of something that it takes."""
    if isinstance(module, models.LuongAttention):
        return module.forward(X[:, :, :3], X, np.ones((B, T), bool))[0]
    if isinstance(module, models.BahdanauAttention):
        return module.forward(X[:, 0, :3], X @ module.keys.weight.T, X, np.ones((B, T), bool))[0]
    if isinstance(module, models.Seq2Seq):
        return module.forward(TOKENS, None, TOKENS)[0]
    if isinstance(module, models.CharModel):
        return module(np.arange(6)[:, None])[0]
    if isinstance(module, nn.ScaledDotProductAttention | nn.GeneralAttention | nn.AdditiveAttention):
        return module(X, X, X)
    if isinstance(module, nn.Sequential) and isinstance(module[0], nn.Embedding):
        return module(TOKENS)
    y = module(X)
    return y[0] if isinstance(y, tuple) else y


@pytest.fixture(params=MODULES)
def module(request):
    module = MODULES[request.param]()
    for k, parameter in enumerate(module.parameters()):  # away from zeros and ones at which some begin
        parameter.value[...] += 0.01 * np.cos(np.arange(parameter.value.size) + k).reshape(parameter.value.shape)
    return module


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_what_is_saved_comes_back(module, ending, tmp_path):
    path = tmp_path / f"model.{ending}"
    fastrnn.save(module, path)
    again = fastrnn.load(path, rng=3)
    assert type(again) is type(module)
    assert describe(again) == describe(module)
    ours, theirs = ({p.name: p for p in m.parameters()} for m in (again, module))
    assert list(ours) == list(theirs)
    for name, parameter in ours.items():
        np.testing.assert_array_equal(parameter.value, theirs[name].value)
        assert parameter.value.dtype == parameter.grad.dtype == theirs[name].value.dtype
        assert parameter.value.flags.writeable
        assert not parameter.grad.any()
    np.testing.assert_array_equal(results(again), results(module))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_every_public_module_is_among_them():
    saved = set()

    def note(description):
        if isinstance(description, dict):
            saved.add(description.get("class"))
            for value in description.get("arguments", {}).values():
                for part in value if isinstance(value, list) else [value]:
                    note(part)

    for make in MODULES.values():
        note(describe(make()))
    assert set(registry()) - saved == {"VariantLayer"}


def test_a_loaded_module_trains_on(tmp_path):
    module = fastrnn.LSTM(I, H, 2, dropout=0.5, dtype=np.float64, rng=0)
    fastrnn.save(module, tmp_path / "m.safetensors")
    x = np.ascontiguousarray(X.swapaxes(0, 1))
    found = []
    for rng in (5, 5, 6):
        again = fastrnn.load(tmp_path / "m.safetensors", rng=rng)
        assert isinstance(again.rng, np.random.Generator)
        assert type(again.rng) is np.random.Generator
        y, _, cache = again.forward(x)
        again.backward(cache, np.ones_like(y))
        assert again.grads["weight_hh_l0"].any()
        again.weight_hh_l0 = again.weight_hh_l0 - again.grads["weight_hh_l0"]
        found.append(y)
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_arguments_are_those_that_were_given():
    layer = fastrnn.LSTM(3, 4, dtype="float64", peepholes=True, rng=0)
    assert layer.arguments == {"input_size": 3, "hidden_size": 4, "dtype": "float64", "peepholes": True}
    layers = [layer]
    stack = fastrnn.Stack(layers)
    layers.append(layer)
    assert stack.arguments == {"layers": (layer,)}
    relu = nn.ReLU()
    assert nn.Sequential(relu, relu).arguments == {"modules": (relu, relu)}
    assert pickle.loads(pickle.dumps(layer)).arguments == layer.arguments


class Own(Module):
    def __init__(self, width):
        super().__init__()
        self.add_parameter("w", np.arange(float(width)))


def test_modules_that_cannot_be_saved(tmp_path):
    replaced = models.SequenceModel(I, H, rng=0)
    replaced.head = nn.Linear(H, 7, rng=0)
    odd = fastrnn.RNN(I, H, rng=0)
    odd.__dict__["_arguments"] = ((I, H), {"activations": (np.tanh,)})
    for module, error, message in (
        (Own(3), TypeError, r"^module: Own, expected one of this package"),
        (nn.Sequential(Own(3)), TypeError, r"^module: Own, expected one of this package"),
        ({"a": 1}, TypeError, r"^module: dict, expected a fastrnn.Module"),
        (replaced, ValueError, r"^module: SequenceModel is not what it was built as \("),
        (odd, TypeError, r"^RNN.activations: ufunc, expected a number"),
        (fastrnn.LSTM(I, H, clip=np.inf), ValueError, r"^LSTM.clip: inf, expected a finite number"),
    ):
        with pytest.raises(error, match=message):
            fastrnn.save(module, tmp_path / "m.npz")
    with pytest.raises(ValueError, match=r"^path: '.*m.pt', expected one ending in .safetensors or .npz"):
        fastrnn.save(fastrnn.RNN(I, H), tmp_path / "m.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_was_changed_since_it_was_built_is_not_saved_as_it_was(tmp_path):
    """Of the same parameters, the file would be of another module."""

    def changed(name, value):
        module = nn.Sequential(fastrnn.GRU(I, H, batch_first=True, rng=0), nn.Dropout(0.5), nn.ReLU())
        *way, last = name.split(".")
        owner = module
        for step in way:
            owner = getattr(owner, step)
        setattr(owner, last, value)
        return module

    for module, message in (
        (changed("2", nn.Tanh()), "2: Tanh, built as ReLU"),
        (
            changed("0", fastrnn.GRU(I, H, batch_first=True, reset_after=False, rng=0)),
            "0.reset_after: False, built as ",
        ),
        (changed("1.p", 0.1), "1.p: 0.1, built as 0.5"),
        (changed("0.batch_first", False), "0.batch_first: False, built as True"),
        (changed("3", nn.Tanh()), "3: Tanh, built as NoneType"),
    ):
        with pytest.raises(ValueError, match=rf"^module: Sequential is not what it was built as \({message}"):
            fastrnn.save(module, tmp_path / "m.npz")
    assert list(tmp_path.iterdir()) == []
    stateful = fastrnn.LSTM(I, H, stateful=True, rng=0)
    stateful(X.astype(np.float32))
    fastrnn.save(stateful, tmp_path / "m.npz")  # what it remembers is no setting


def test_what_cannot_be_written_is_named(tmp_path):
    layer, path = fastrnn.GRU(2, 3, rng=0), str(tmp_path / "missing" / "gru.npz")
    with pytest.raises(FileNotFoundError) as caught:
        fastrnn.save(layer, path)
    assert caught.value.filename == path
    with pytest.raises(TypeError, match=r"^arrays: GRU, expected arrays by name"):
        fastrnn.save_arrays(layer, tmp_path / "gru.npz")
    assert not list(tmp_path.iterdir())


def test_what_a_module_of_ones_own_can_do_instead(tmp_path):
    own = Own(3)
    own.w = own.w + 1
    for ending in ("safetensors", "npz"):
        path = tmp_path / f"own.{ending}"
        fastrnn.save_arrays(own.state_dict(), path)
        again = Own(3)
        again.load_state_dict(fastrnn.load_arrays(path))
        np.testing.assert_array_equal(again.w, [1, 2, 3])
        with pytest.raises(ValueError, match=r"arrays without the description of a module"):
            fastrnn.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    fastrnn.save(fastrnn.RNN(2, 3, rng=0), path)
    old = path.read_bytes()
    monkeypatch.setattr(fastrnn._safetensors, "write", lambda file, *_: (file.write(b"half"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        fastrnn.save(fastrnn.RNN(2, 3, rng=0), path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(ending, tmp_path):
    resource = pytest.importorskip("resource", reason="limits of files are Unix's")
    path = tmp_path / f"m.{ending}"
    fastrnn.save(fastrnn.RNN(2, 3, rng=0), path)
    old, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    layer = fastrnn.LSTM(30, 40, rng=0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            fastrnn.save(layer, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions, and links for administrators alone")
@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_saving_again_keeps_permissions_and_links(mode, tmp_path):
    """Weights that are their owner's alone stay so, and whoever reads the link's target sees the new ones."""
    (tmp_path / "runs").mkdir()
    path, link = tmp_path / "runs" / "m.npz", tmp_path / "latest.npz"
    link.symlink_to(path)
    fastrnn.save_arrays({"a": np.zeros(2)}, link)  # the target is made
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(mode)
    fastrnn.save_arrays({"a": np.ones(2)}, link)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == mode
    np.testing.assert_array_equal(fastrnn.load_arrays(path)["a"], [1, 1])
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# --- descriptions that nobody wrote -----------------------------------------------------------------------------------

LAYER = fastrnn.LSTM(3, 4, 2, rng=0)
ARRAYS = {p.name: p.value for p in LAYER.parameters()}
PLAIN = describe(LAYER)


def changed(**arguments):
    return {"class": "LSTM", "arguments": PLAIN["arguments"] | arguments}


def nested(depth):
    module = {"class": "ReLU", "arguments": {}}
    for _ in range(depth):
        module = {"class": "Sequential", "arguments": {"modules": [module]}}
    return module


BAD = {
    "nothing": None,
    "a number": 3,
    "a list": [PLAIN],
    "no arguments": {"class": "LSTM"},
    "something more": PLAIN | {"code": "print()"},
    "arguments in a list": {"class": "LSTM", "arguments": [3, 4]},
    "an unknown class": PLAIN | {"class": "os.system"},
    "a class that is none": PLAIN | {"class": ["LSTM"]},
    "a function": PLAIN | {"class": "fit"},
    "an abstract class": PLAIN | {"class": "VariantLayer"},
    "another class": PLAIN | {"class": "GRU"},
    "an unknown argument": changed(color="red"),
    "a source of chance": changed(rng=1),
    "self": changed(self=1),
    "a module for a number": changed(hidden_size=PLAIN),
    "a text for a number": changed(hidden_size="4"),
    "units beyond all reason": changed(hidden_size=10**12),
    "inputs beyond all reason": changed(input_size=10**30),
    "layers beyond all reason": changed(num_layers=10**12),
    "many layers": changed(num_layers=60000),
    "many units": changed(hidden_size=60000),
    "fewer units": changed(hidden_size=3),
    "fewer layers": changed(num_layers=1),
    "another dtype": changed(dtype="float64"),
    "an impossible dtype": changed(dtype="O"),
    "no dtype": changed(dtype="float99"),
    "half a dtype": changed(dtype="(1,"),
    "a dtype without end": changed(dtype="f" * 100000),
    "a depth without end": nested(3000),
    "an array of its own": {"class": "LayerNorm", "arguments": {"normalized_shape": 2**60}},
    "a wide array of its own": {"class": "LayerNorm", "arguments": {"normalized_shape": 2**34}},
    "falling characters": {"class": "CharVocabulary", "code_points": [98, 97]},
    "characters beyond": {"class": "CharVocabulary", "code_points": [1, 2**40]},
    "no characters": {"class": "CharVocabulary", "code_points": []},
    "characters alone": {"class": "CharVocabulary", "code_points": [97, 98]},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_descriptions(name):
    with pytest.raises(ValueError) as error:
        build(BAD[name], ARRAYS)
    assert len(str(error.value)) < 400


def test_many_small_wishes_cannot_ask_for_much_memory():
    """60 bytes each, and 600 kB of ones and zeros that no source of chance gives."""
    norm = {"class": "LayerNorm", "arguments": {"normalized_shape": 60000}}
    description = {"class": "Sequential", "arguments": {"modules": [norm] * 500}}
    for arrays in (ARRAYS, {"0.weight": np.ones(60000, np.float32)}):
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match="asks for more parameters of shape"):
                build(description, arrays)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 10_000_000


def test_bad_descriptions_in_files(tmp_path):
    path = tmp_path / "m.safetensors"
    for text in ("", "{", "[]", "{}", '{"version": 2}', '{"version": 1}', '{"version": 1, "version": 1}', "[" * 100000):
        with open(path, "wb") as file:
            fastrnn._safetensors.write(file, ARRAYS, {"fastrnn": text})
        with pytest.raises(ValueError, match=r"m.safetensors: not a module of this package, or damaged \("):
            fastrnn.load(path)
        assert fastrnn.load_arrays(path).keys() == ARRAYS.keys()


def test_a_good_description_is_json_of_names_and_numbers():
    assert json.loads(json.dumps(PLAIN)) == PLAIN
    assert describe(build(PLAIN, ARRAYS)) == PLAIN


def test_arguments_of_every_class_can_be_found():
    """Positional ones without a name could not be written down."""
    for cls in registry().values():
        kinds = [parameter.kind for parameter in inspect.signature(cls).parameters.values()]
        assert inspect.Parameter.POSITIONAL_ONLY not in kinds


ODD = [None, -1, 0, 1, 2, 60000, 2**31, 10**400, 0.5, 1e308, float("nan"), "", "tanh", [], [1], [[]], {}, True,
       {"class": "ReLU", "arguments": {}}, {"class": "CharVocabulary", "code_points": [97]}]  # fmt: skip


def variations(node):
    """A description with each of its arguments, those of modules within it too, replaced by each odd one."""
    for name, value in node.get("arguments", {}).items():
        for odd in ODD:
            yield node | {"arguments": node["arguments"] | {name: odd}}
        for k, part in enumerate(value if isinstance(value, list) else []):
            for inner in variations(part) if isinstance(part, dict) else ():
                replaced = [*value[:k], inner, *value[k + 1 :]]
                yield node | {"arguments": node["arguments"] | {name: replaced}}


@pytest.mark.parametrize("name", MODULES)
def test_odd_arguments_make_a_module_or_a_value_error(name):
    module = MODULES[name]()
    arrays = {p.name: p.value for p in module.parameters()}
    shapes = {name: array.shape for name, array in arrays.items()}
    for description in variations(describe(module)):
        try:
            found = build(description, arrays)
        except ValueError:
            continue
        assert {p.name: p.value.shape for p in found.parameters()} == shapes
