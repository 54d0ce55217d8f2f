"""Keras's layers, models and files here, and ours there: the same outputs."""

import io
import json
import os
import subprocess
import sys
import warnings
import zipfile

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import pytest

import fastrnn
from fastrnn import nn

h5py = pytest.importorskip("h5py", reason="h5py, which reads Keras's files, is not installed")
jax = pytest.importorskip("jax", reason="JAX, on which Keras runs here, is not installed")
keras = pytest.importorskip("keras", reason="Keras, the oracle of these tests, is not installed")
if keras.backend.backend() != "jax":
    pytest.skip("Keras runs on another backend than JAX, see KERAS_BACKEND", allow_module_level=True)

from fastrnn.interop import _keras_cells  # noqa: E402
from fastrnn.interop import keras as interop  # noqa: E402

# Of Keras itself, where NumPy copies its variables.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

L = keras.layers
N, T, I, H = 3, 4, 2, 5
X = np.random.default_rng(0).standard_normal((N, T, I)).astype(np.float32)
TOKENS = np.random.default_rng(1).integers(1, 11, (N, T))


@pytest.fixture(autouse=True, scope="module")
def _zeros_at_first():
    """JAX compiles a program for every initial value of Keras's, all of which are replaced here."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("Orthogonal", "GlorotUniform", "RandomUniform"):
            cls = getattr(keras.initializers, name)
            patch.setattr(cls, "__call__", lambda self, shape, dtype=None: np.zeros(shape, dtype or "float32"))
        yield


def call(layer, x):
    with jax.disable_jit():
        found = layer(x)
        return [np.asarray(part) for part in found] if isinstance(found, list | tuple) else np.asarray(found)


def shaken(layer, shape=(N, T, I)):
    """A built layer whose weights, biases too, are no longer those that it began with."""
    if not layer.built:
        layer.build(shape)
    rng = np.random.default_rng(2)
    layer.set_weights([w + 0.5 * rng.standard_normal(w.shape).astype(w.dtype) for w in layer.get_weights()])
    return layer


LAYERS = {
    "SimpleRNN": lambda **o: L.SimpleRNN(H, **o),
    "SimpleRNN relu": lambda **o: L.SimpleRNN(H, activation="relu", **o),
    "SimpleRNN linear": lambda **o: L.SimpleRNN(H, activation="linear", use_bias=False, **o),
    "LSTM": lambda **o: L.LSTM(H, **o),
    "LSTM hard": lambda **o: L.LSTM(H, recurrent_activation="hard_sigmoid", activation="softsign", **o),
    "LSTM dropout": lambda **o: L.LSTM(H, dropout=0.3, recurrent_dropout=0.2, use_bias=False, **o),
    "GRU after": lambda **o: L.GRU(H, **o),
    "GRU before": lambda **o: L.GRU(H, reset_after=False, **o),
    "GRU without bias": lambda **o: L.GRU(H, use_bias=False, **o),
    "GRU elu": lambda **o: L.GRU(H, reset_after=False, activation="elu", recurrent_activation="hard_sigmoid", **o),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_in_and_out(name):
    theirs = shaken(LAYERS[name](return_sequences=True, return_state=True))
    ours = interop.from_keras(theirs)
    y, state = ours(X)
    expected = call(theirs, X)
    np.testing.assert_allclose(y, expected[0], atol=1e-5)
    for mine, other in zip(state if isinstance(state, tuple) else (state,), expected[1:], strict=True):
        np.testing.assert_allclose(mine[0], other, atol=1e-5)
    assert ours.varies == any(word in name for word in ("linear", "hard", "dropout", "elu")) or name.endswith("relu")
    assert_alike(interop.to_keras(ours), theirs)


def assert_alike(mine, theirs):
    """That two Keras layers or models compute the same, for they have the same options and weights."""
    for a, b in zip(getattr(mine, "layers", [mine]), getattr(theirs, "layers", [theirs]), strict=True):
        assert type(a) is type(b)
        ours, others = (options(layer.get_config()) for layer in (a, b))
        assert ours == others
        for weight, other in zip(a.get_weights(), b.get_weights(), strict=True):
            np.testing.assert_allclose(weight, other, rtol=1e-6)


def options(config):
    """Those that have to do with what a layer computes."""
    named = ("units", "activation", "recurrent_activation", "use_bias", "reset_after", "dropout", "recurrent_dropout",
             "rate", "epsilon", "merge_mode", "input_dim", "output_dim", "go_backwards", "stateful")  # fmt: skip
    found = {name: config.get(name) for name in named}
    inner = [options(config[name]["config"]) for name in ("layer", "backward_layer") if name in config]
    return found, inner


MERGES = [("LSTM", "sum"), ("GRU", "mul"), ("SimpleRNN", "ave"), ("GRU", None), ("LSTM", "concat"), ("GRU", "concat")]


@pytest.mark.parametrize(("cell", "merge"), MERGES)
def test_bidirectional_layers(cell, merge):
    theirs = shaken(L.Bidirectional(getattr(L, cell)(H, return_sequences=True), merge_mode=merge))
    ours = interop.from_keras(theirs)
    y, expected = ours(X)[0], call(theirs, X)
    np.testing.assert_allclose(np.stack(y) if merge is None else y, expected, atol=1e-5)
    assert_alike(interop.to_keras(ours), theirs)


def test_stacks_and_stacked_layers():
    model = keras.Sequential(
        [keras.Input((T, I)), L.LSTM(H, return_sequences=True), L.Bidirectional(L.GRU(3, return_sequences=True))]
    )
    shaken(model)
    stack = interop.from_keras(model.layers)
    assert isinstance(stack, fastrnn.Stack)
    np.testing.assert_allclose(stack(X)[0], call(model, X), atol=1e-5)
    assert_alike(interop.to_keras(stack), model)
    layer = fastrnn.GRU(I, H, 3, bidirectional=True, dropout=0.5, batch_first=True, reset_after=False, rng=0)
    theirs = interop.to_keras(layer)
    assert [type(part).__name__ for part in theirs.layers] == ["Bidirectional", "Dropout"] * 2 + ["Bidirectional"]
    np.testing.assert_allclose(call(theirs, X), layer(X)[0], atol=1e-5)
    with jax.enable_x64(True):
        double = fastrnn.LSTM(I, H, dtype=np.float64, rng=0)
        theirs = interop.to_keras(double)
        assert {weight.dtype for weight in theirs.get_weights()} == {np.dtype(np.float64)}
        assert interop.from_keras(theirs).dtype == np.float64


def classifier():
    return keras.Sequential(
        [
            keras.Input((None,)),
            L.Embedding(11, I),
            L.LayerNormalization(),
            L.Bidirectional(L.LSTM(3, return_sequences=True), name="both"),
            L.Dense(4),
            L.Activation("tanh"),
            L.Bidirectional(L.GRU(2), merge_mode="sum"),
            L.Dropout(0.3),
            L.Dense(4),
            L.Activation("gelu"),
            L.Dense(3, use_bias=False),
            L.Activation("softmax"),
        ]
    )


def regressor():
    x = keras.Input((T, I))
    y = L.GRU(H, return_sequences=True, name="lower")(x)
    y = L.LSTM(H)(y)
    return keras.Model(x, L.ReLU()(L.Dense(2, activation="sigmoid")(y)))


def averaging():
    return keras.Sequential(
        [
            keras.Input((T, I)),
            L.TimeDistributed(L.Dense(3)),
            L.GRU(H, return_sequences=True),
            L.GlobalAveragePooling1D(),
        ]
    )


MODELS = {"classifier": (classifier, TOKENS), "regressor": (regressor, X), "averaging": (averaging, X)}


@pytest.mark.parametrize("name", MODELS)
def test_models_and_their_files(name, tmp_path):
    make, x = MODELS[name]
    model = shaken(make())
    expected = call(model, x)
    np.testing.assert_allclose(interop.from_keras(model)(x), expected, atol=1e-5)
    for file in ("m.keras", "m.h5"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras has one about .h5
            model.save(tmp_path / file)
        ours = interop.from_keras(tmp_path / file)
        assert isinstance(ours, nn.Sequential)
        np.testing.assert_allclose(ours(x), expected, atol=1e-5)
        if name == "classifier":  # whose layers are none of those that are two modules here
            assert_alike(interop.to_keras(ours), model)
        fastrnn.save(ours, tmp_path / "m.safetensors")
        np.testing.assert_array_equal(fastrnn.load(tmp_path / "m.safetensors")(x), ours(x))


TRAIN = """
import importlib.util, os
os.environ["KERAS_BACKEND"] = "torch" if importlib.util.find_spec("torch") else "jax"  # which takes longer to begin
import keras, numpy as np
L = keras.layers
model = keras.Sequential([keras.Input((5, 3)), L.Bidirectional(L.LSTM(4, return_sequences=True)), L.GRU(6), L.Dense(2)])
model.compile("adam", "mse", run_eagerly=True)
rng = np.random.default_rng(0)
x = rng.standard_normal((16, 5, 3)).astype("float32")
for _ in range(3):
    model.train_on_batch(x, x[:, -1, :2])
model.save("m.keras"); model.save("m.h5")
np.savez("expected.npz", x=x, y=model.predict_on_batch(x))
"""
LOAD = """
import sys, numpy as np
for name in ("keras", "tensorflow", "jax", "torch"):
    sys.modules[name] = None  # importing it would fail
from fastrnn.interop import keras
file = np.load("expected.npz")
for name in ("m.keras", "m.h5"):
    print(np.abs(keras.from_keras(name)(file["x"]) - file["y"]).max())
"""


def test_trained_and_saved_by_keras_and_loaded_without_it(tmp_path):
    subprocess.run([sys.executable, "-c", TRAIN], cwd=tmp_path, check=True, capture_output=True)
    found = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, check=True, capture_output=True, text=True)
    distances = [float(line) for line in found.stdout.split()]
    assert len(distances) == 2
    assert max(distances) < 1e-5


def test_masks_are_the_callers():
    model = keras.Sequential([keras.Input((None,)), L.Embedding(11, I, mask_zero=True), L.Bidirectional(L.LSTM(H))])
    shaken(model)
    tokens = np.where(np.arange(T) < np.array([[4], [2], [3]]), TOKENS, 0)
    with pytest.warns(UserWarning, match=r"^Embedding '.*': mask_zero; hand the numbers"):
        ours = interop.from_keras(model)
    np.testing.assert_allclose(ours(tokens, [4, 2, 3]), call(model, tokens), atol=1e-5)


# --- the proof -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("LSTM", lambda p: p | {"weight_ih": np.roll(p["weight_ih"], H, axis=0)}, r"^LSTM '\w+': gate i of step 0 "),
        ("LSTM", lambda p: p | {"weight_hh": p["weight_hh"][::-1]}, r"gate i of step 1 differs by "),
        ("GRU after", lambda p: p | {"bias_hh": p["bias_ih"], "bias_ih": p["bias_hh"]}, r"gate h of step 0 differs"),
        ("GRU after", lambda p: {n: np.roll(a, H, axis=0) for n, a in p.items()}, r"^GRU '\w+': gate z of step 0 "),
        ("GRU before", lambda p: p | {"weight_hh": p["weight_hh"].copy() * 1.01}, r"gate z of step 1 differs"),
        ("SimpleRNN", lambda p: p | {"bias_ih": 2 * p["bias_ih"]}, r"^SimpleRNN '\w+': gate h of step 0 "),
    ],
)
def test_a_wrong_translation_is_named(name, wrong, message, monkeypatch):
    right = _keras_cells.ours
    monkeypatch.setattr(_keras_cells, "ours", lambda *args: wrong(right(*args)))
    with pytest.raises(ValueError, match=message):
        interop.from_keras(shaken(LAYERS[name]()))


def test_a_wrong_backward_direction_is_named(monkeypatch):
    right, calls = _keras_cells.ours, []

    def wrong(cell, direction):
        calls.append(cell)
        found = right(cell, direction)
        return found if len(calls) == 1 else {name: -a for name, a in found.items()}

    monkeypatch.setattr(_keras_cells, "ours", wrong)
    with pytest.raises(ValueError, match=r"^Bidirectional '\w+': gate i of step 0 of the backward direction differs"):
        interop.from_keras(shaken(L.Bidirectional(L.LSTM(H))))


def test_a_wrong_way_out_is_named(monkeypatch):
    monkeypatch.setattr(_keras_cells, "_swapped", lambda cell, columns: columns)
    with pytest.raises(ValueError, match=r"^layer 0: gate z of step 0"):
        interop.to_keras(fastrnn.Stack([fastrnn.RNN(2, 3, rng=0), fastrnn.GRU(3, 3, 1, rng=0)]))


# --- what is refused -------------------------------------------------------------------------------------------------


def test_layers_that_have_no_counterpart(tmp_path):
    other = L.Bidirectional(L.LSTM(H), backward_layer=L.LSTM(H, activation="relu", go_backwards=True))
    for layer, message in (
        (L.LSTM(H), r"^LSTM 'lstm\w*': 0 weights, expected 3; it has not been built"),
        (shaken(L.LSTM(H, go_backwards=True)), r"^LSTM .*: go_backwards, which only a Bidirectional"),
        (shaken(L.GRU(H, activation="swish")), r"^GRU .*: activation 'silu', expected one of tanh, "),
        (shaken(other), r"^Bidirectional .*: activation 'relu' backwards, expected 'tanh' as forwards"),
        (shaken(L.Dense(3, activation="selu")), r"^Dense .*: activation 'selu', expected one of linear"),
        (shaken(L.Conv1D(3, 2)), r"^Conv1D .*: it has no counterpart here"),
        (shaken(L.TimeDistributed(L.Conv1D(3, 2)), (N, 2, T, I)), r"^TimeDistributed .*: of a 'Conv1D'"),
        (L.ReLU(max_value=6), r"^ReLU .*: max_value 6.*, expected None"),
        (shaken(L.LayerNormalization(axis=1)), r"^LayerNormalization .*: axis "),
        (L.GlobalAveragePooling1D(keepdims=True), r"^GlobalAveragePooling1D .*: keepdims True, expected False"),
    ):
        with pytest.raises(ValueError, match=message):
            interop.from_keras(layer)
    for source, message in (
        (3, r"^source: int, expected a path, or a layer or model of Keras"),
        ([shaken(L.Dense(2))], r"^source: Linear, expected recurrent layers"),
        ([], r"^source: none, expected recurrent layers"),
    ):
        with pytest.raises(TypeError, match=message):
            interop.from_keras(source)
    for module, message in (
        (fastrnn.LSTM(I, H, peepholes=True), r"^layer: peepholes, which Keras's LSTM has not"),
        (fastrnn.LSTM(I, H, layer_norm=True, clip=1.0), r"^layer: clip, layer_norm, which"),
        (fastrnn.LSTM(I, H, activations=("sigmoid", "tanh", "relu")), r"^layer: its activations of g and of c differ"),
        (fastrnn.RNN(I, H, activations=("scaled_tanh",)), r"^layer: it has the activation \('scaled_tanh', 1.0, 1.0\)"),
        (fastrnn.MinGRU(I, H), r"^layer: MinGRU, expected RNN, LSTM or GRU"),
        (fastrnn.Stack([fastrnn.RNN(H, H)], residual=True), r"^module: a Stack with residual"),
        (nn.SelfAttention(3), r"^module: SelfAttention, which Keras has no counterpart of"),
    ):
        with pytest.raises(ValueError, match=message):
            interop.to_keras(module)


def test_of_graphs_the_recurrent_layers_alone_can_be_had(tmp_path):
    x = keras.Input((T, I))
    both = L.Bidirectional(L.GRU(3, return_sequences=True), name="both")
    y = L.LSTM(I, return_sequences=True, name="first")(x)

    class Mine(L.Dense):
        pass

    # a class of others, and weights that are no floats
    model = shaken(keras.Model(x, both(L.Normalization()(Mine(I)(L.Conv1D(I, 1)(L.Add()([x, y])))))))
    expected = call(model.get_layer("first"), X), call(both, X)
    for source in (model, tmp_path / "graph.keras", tmp_path / "graph.h5"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras has one about .h5
            model.save(source if source is not model else tmp_path / "other.keras")
        with pytest.raises(ValueError, match=r"layer 'add\w*' reads .*: no graph can be read"):
            interop.from_keras(source)
        found = interop.recurrent_layers(source)
        assert list(found) == ["first", "both"]
        for layer, y in zip(found.values(), expected, strict=True):
            np.testing.assert_allclose(layer(X)[0], y, atol=1e-5)
    with pytest.raises(TypeError, match=r"^source: LSTM, expected a path, or a model of Keras"):
        interop.recurrent_layers(model.get_layer("first"))


def test_chains_that_are_graphs_after_all(tmp_path):
    """What reads a state, begins from one or is one of several outputs is not what it would be in a chain."""
    for name, make, message in (
        ("c", lambda y, h, c: L.Dense(2)(c), r"^layer 'dense\w*' reads .*: no graph can be read"),
        ("h", lambda y, h, c: L.Dense(2)(h), r"^layer 'dense\w*' reads .*: no graph can be read"),
        ("begun", lambda y, h, c: L.LSTM(H)(y, initial_state=[h, c]), r"^layer 'lstm\w*' reads .*: no graph can be"),
        ("two", lambda y, h, c: [y, L.GRU(3)(y)], r"^the model gives .*: no graph can be read"),
        ("named", lambda y, h, c: {"y": L.GRU(3)(y)}, r"^the model gives .*: no graph can be read"),
        ("states", lambda y, h, c: [y, h, c], r"^the model gives .*: no graph can be read"),
        ("a state", lambda y, h, c: c, r"^the model gives .*: no graph can be read"),
    ):
        x = keras.Input((T, I))
        model = keras.Model(x, make(*L.LSTM(H, return_sequences=True, return_state=True)(x)))
        with pytest.raises(ValueError, match=message):
            print(name, interop.from_keras(model))
        model.save(tmp_path / "m.keras")
        with pytest.raises(ValueError, match=message.replace("^", r"m.keras: .*\(")):
            interop.from_keras(tmp_path / "m.keras")
    model = keras.Sequential([keras.Input((T, I)), L.GRU(H, return_state=True)])
    with pytest.raises(ValueError, match=r"^GRU 'gru\w*': return_state, expected the outputs alone in a model"):
        interop.from_keras(model)
    x = keras.Input((T, I))
    model = shaken(keras.Model(x, L.Dense(2)(L.LSTM(H, return_state=True)(x)[0])))  # a chain after all
    np.testing.assert_allclose(interop.from_keras(model)(X), call(model, X), atol=1e-5)


def test_classes_of_others_are_not_taken_for_those_of_keras():
    class LSTM(L.LSTM):
        def call(self, sequences, initial_state=None, mask=None, training=False):
            return 2 * super().call(sequences, initial_state, mask, training)

    class Model(keras.Model):
        pass

    with pytest.raises(ValueError, match=r"^LSTM of 'test_interop_keras', which is not Keras"):
        interop.from_keras(shaken(LSTM(H)))
    model = keras.Sequential([keras.Input((T, I)), LSTM(H)])
    with pytest.raises(ValueError, match=r"^LSTM 'lstm\w*' of 'test_interop_keras.*', which is not Keras"):
        interop.from_keras(model)
    assert interop.recurrent_layers(model) == {}
    with pytest.raises(ValueError, match=r"^Model of 'test_interop_keras', which is not Keras"):
        interop.from_keras(Model())
    with pytest.raises(ValueError, match=r"^it is a 'Model', which does not say what its layers are"):
        interop.recurrent_layers(Model())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_become_float32(dtype):
    layer = L.GRU(H, dtype=dtype)
    layer.build((N, T, I))
    ours = interop.from_keras(layer)
    assert ours.dtype == np.float32
    for array, weight in ((ours.weight_ih_l0, layer.cell.kernel), (ours.bias_hh_l0, layer.cell.bias[1])):
        assert set(array.ravel()) == set(np.asarray(weight, np.float32).ravel())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small model's bytes as both files, and what it makes of X."""
    folder = tmp_path_factory.mktemp("keras")
    model = shaken(keras.Sequential([keras.Input((T, I)), L.LSTM(H, recurrent_activation="hard_sigmoid", name="x")]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("m.keras", "m.h5"):
            model.save(folder / name)
    return {name: (folder / name).read_bytes() for name in ("m.keras", "m.h5")}, call(model, X)


def archive(raw, **changes):
    """A .keras file with some members replaced, or left out for None."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            content = changes.get(name.split(".")[0], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return file.getvalue()


def members(raw):
    with zipfile.ZipFile(io.BytesIO(raw)) as file:
        return json.loads(file.read("config.json")), file.read("model.weights.h5")


def edited(raw, edit):
    """The bytes of an HDF5 file after a change."""
    file = io.BytesIO(raw)
    with h5py.File(file, "r+") as h5:
        edit(h5)
    return file.getvalue()


def test_files_of_keras_2(files, tmp_path):
    """Its hard_sigmoid has another slope; its .keras files have another root; its .h5 files have bytes for texts."""
    raw, new = files[0]["m.keras"], files[1]
    weights = edited(members(raw)[1], lambda h5: h5.move("layers", "_layer_checkpoint_dependencies"))
    old = tmp_path / "m.keras"
    old.write_bytes(archive(raw, metadata='{"keras_version": "2.13.1"}', model=weights))
    first = interop.from_keras(old)

    def edit(h5):
        h5.attrs["keras_version"] = np.bytes_(b"2.4.0")
        group = h5["model_weights/x"]
        group.attrs["weight_names"] = [name.encode() for name in group.attrs["weight_names"]]

    (tmp_path / "m.h5").write_bytes(edited(files[0]["m.h5"], edit))
    second = interop.from_keras(tmp_path / "m.h5")
    np.testing.assert_array_equal(first(X), second(X))
    assert np.abs(first(X) - new).max() > 1e-3
    assert first[0].variant_options["activations"][0] == ("hard_sigmoid", 0.2, 0.5)


def test_files_that_are_damaged_or_lie(files, tmp_path):
    raw, h5 = files[0]["m.keras"], files[0]["m.h5"]
    config, weights = members(raw)
    (tmp_path / "secret.h5").write_bytes(weights)
    inside = "layers/lstm/cell/vars"

    def with_config(change, root="config"):
        copy = json.loads(json.dumps(config))
        change(copy)
        return archive(raw, **{root: json.dumps(copy)})

    def layer(copy):
        return copy["config"]["layers"][1]

    def replaced(make):
        def edit(h5):
            del h5[inside]["0"]
            make(h5[inside])

        return archive(raw, model=edited(weights, edit))

    def elsewhere(path):
        """A link to a file that whoever opens it waits for."""

        def edit(h5):
            del h5[path]
            h5[path] = h5py.ExternalLink(str(tmp_path / "fifo"), "/")

        return edit

    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
    cases = {
        "empty": (b"", ".keras"),
        "cut": (raw[: len(raw) // 2], ".keras"),
        "text": (b"hello", ".h5"),
        "cut h5": (h5[: len(h5) // 2], ".h5"),
        "cut weights": (archive(raw, model=weights[: len(weights) // 2]), ".keras"),
        "no weights": (archive(raw, model=None), ".keras"),
        "weights alone": (weights, ".h5"),
        "no version": (archive(raw, metadata="{}"), ".keras"),
        "no JSON": (archive(raw, config="{"), ".keras"),
        "deep JSON": (archive(raw, config='{"a":' * 50000), ".keras"),
        "a layer registered by others": (
            with_config(lambda c: layer(c).update(module=None, registered_name="LSTM")), ".keras"
        ),
        "a wrapped layer of others": (
            with_config(lambda c: layer(c)["config"].update(layer={"module": "evil.layers", "class_name": "LSTM"})),
            ".keras",
        ),
        "a list": (archive(raw, config="[]"), ".keras"),
        "another model": (with_config(lambda c: c.update(class_name="MyModel")), ".keras"),
        "a layer of others": (with_config(lambda c: layer(c).update(module="evil.layers")), ".keras"),
        "a lambda": (with_config(lambda c: layer(c).update(class_name="Lambda")), ".keras"),
        "an activation of others": (
            with_config(lambda c: layer(c)["config"].update(activation={"module": "os", "class_name": "system"})),
            ".keras",
        ),
        "many units": (with_config(lambda c: layer(c)["config"].update(units=10**12)), ".keras"),
        "units as text": (with_config(lambda c: layer(c)["config"].update(units="5")), ".keras"),
        "no units": (with_config(lambda c: layer(c)["config"].pop("units")), ".keras"),
        "a dropout of 7": (with_config(lambda c: layer(c)["config"].update(dropout=7)), ".keras"),
        "a link to another file": (
            replaced(lambda g: g.__setitem__("0", h5py.ExternalLink("secret.h5", "/x"))), ".keras"
        ),
        "a group in another file": (
            archive(raw, model=edited(weights, elsewhere("layers/lstm/cell"))), ".keras"
        ),
        "all layers in another file": (archive(raw, model=edited(weights, elsewhere("layers"))), ".keras"),
        "all weights in another file": (edited(h5, elsewhere("model_weights")), ".h5"),
        "a layer in another file": (edited(h5, elsewhere("model_weights/x")), ".h5"),
        "a soft link": (replaced(lambda g: g.__setitem__("0", h5py.SoftLink("/layers"))), ".keras"),
        "numbers of another file": (
            replaced(lambda g: g.create_dataset("0", (2, 20), "f4", external=[("secret.h5", 0, 160)])), ".keras"
        ),
        "a group": (replaced(lambda g: g.create_group("0")), ".keras"),
        "integers": (replaced(lambda g: g.create_dataset("0", data=np.ones((2, 20), int))), ".keras"),
        "a claim of terabytes": (
            replaced(lambda g: g.create_dataset("0", (10**6, 10**6), "f4", chunks=(9, 9))), ".keras"
        ),
        "another shape": (replaced(lambda g: g.create_dataset("0", data=np.ones((20, 2), "f4"))), ".keras"),
        "NaN": (replaced(lambda g: g.create_dataset("0", data=np.full((2, 20), np.nan, "f4"))), ".keras"),
    }  # fmt: skip
    for name, (content, ending) in cases.items():
        path = tmp_path / f"bad{ending}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"bad.\w+: no Keras model that can be read, or damaged \("):
            print(name, interop.from_keras(path))
    for name, error, message in (
        ("missing.keras", OSError, "No such file"),
        ("m.pt", ValueError, r"^path: 'm.pt', expected one ending in .keras, .h5"),
        ("m.weights.h5", ValueError, r"^path: 'm.weights.h5' has weights without a model"),
    ):
        with pytest.raises(error, match=message):
            interop.from_keras(name)


def test_weights_that_are_many_times_in_a_file_are_not_read_so_often(files, tmp_path):
    def in_h5(h5):
        attrs = h5["model_weights/x"].attrs
        attrs["weight_names"] = list(attrs["weight_names"]) * 1000

    def in_keras(h5):
        for k in range(3, 3000):
            h5[f"layers/lstm/cell/vars/{k}"] = h5["layers/lstm/cell/vars/0"]

    raw = files[0]["m.keras"]
    (tmp_path / "m.h5").write_bytes(edited(files[0]["m.h5"], in_h5))
    (tmp_path / "m.keras").write_bytes(archive(raw, model=edited(members(raw)[1], in_keras)))
    for name in ("m.h5", "m.keras"):
        with pytest.raises(ValueError, match="expected floats within the file's size"):
            interop.from_keras(tmp_path / name)


def test_libraries_that_are_missing_are_named(files, tmp_path):
    (tmp_path / "m.keras").write_bytes(files[0]["m.keras"])
    code = "import sys; sys.modules['h5py'] = sys.modules['keras'] = None; import fastrnn; k = fastrnn.interop.keras; "
    for call_, message in (
        ("k.from_keras('m.keras')", "ImportError: h5py is not installed; pip install 'fastrnn[keras]'"),
        ("k.to_keras(fastrnn.RNN(2, 3))", "ImportError: keras is not installed; pip install keras"),
    ):
        run = subprocess.run([sys.executable, "-c", code + call_], cwd=tmp_path, capture_output=True, text=True)
        assert message in run.stderr
