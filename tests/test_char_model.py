"""The character model: training, saving, sampling."""

import io
import json
import zipfile

import numpy as np
import pytest

import fastrnn
from fastrnn import nn
from fastrnn.data import CharVocabulary, text_batches
from fastrnn.models import CharModel

TEXT = "the quick brown fox jumps over the lazy dog. " * 40


@pytest.fixture
def model():
    return CharModel(CharVocabulary(TEXT), embedding_dim=5, hidden_size=12, num_layers=2, rng=0)


def test_engines_train_alike():
    chunks = list(text_batches(CharVocabulary(TEXT).encode(TEXT), 8, 16))[:10]
    losses = {}
    for engine in ("reference", "blas", "native"):
        model = CharModel(CharVocabulary(TEXT), 5, 12, dtype=np.float64, rng=0)
        with fastrnn.config_context(engine=engine):
            losses[engine] = list(nn.truncated_bptt(model, nn.CrossEntropyLoss(), nn.Adam(model, 0.01), chunks))
    for engine in ("blas", "native"):
        np.testing.assert_allclose(losses[engine], losses["reference"], rtol=1e-10)


def test_it_learns_a_sentence_by_heart():
    vocabulary = CharVocabulary(TEXT)
    numbers = vocabulary.encode(TEXT)
    model = CharModel(vocabulary, 8, 48, rng=0)
    optimiser, loss = nn.Adam(model, 0.02), nn.CrossEntropyLoss()
    before = model.bits_per_character(numbers, 4)
    for _ in range(25):
        for _ in nn.truncated_bptt(model, loss, optimiser, text_batches(numbers, 8, 32), max_norm=5):
            pass
    assert before > 4
    assert model.bits_per_character(numbers, 4) < 0.2
    assert "".join(model.generate("the quick ", 34, temperature=0)) == "brown fox jumps over the lazy dog."


def test_bits_per_character_is_the_mean_over_the_text(model):
    numbers = model.vocabulary.encode(TEXT[:101])
    logits, _ = model(numbers[:100, None])
    bits = nn.CrossEntropyLoss()(logits, numbers[1:, None]) / np.log(2)
    assert model.bits_per_character(numbers, batch_size=1, steps=7) == pytest.approx(bits, rel=1e-5)


def test_sampling(model):
    a = "".join(model.generate("the ", 50, 1.0, rng=3))
    assert a == "".join(model.generate("the ", 50, 1.0, rng=3))
    assert a != "".join(model.generate("the ", 50, 1.0, rng=4))
    assert len(a) == 50
    # an untrained model at a high temperature draws all characters alike
    many = "".join(model.generate("the ", 3000, 1e6, rng=0))
    counts = np.bincount(model.vocabulary.encode(many), minlength=len(model.vocabulary))
    assert counts.min() > 0.5 * 3000 / len(model.vocabulary)
    for arguments, message in (
        (("", 5), r"^prompt: empty"),
        (("THE", 5), r"^text: 'T' is not among"),
        (("the", -1), r"^length: -1, expected a whole number from 0"),
        (("the", 5, -1.0), r"^temperature: -1.0"),
        (("the", 5, float("nan")), r"^temperature: nan"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate(*arguments)


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors"])
def test_saving_and_loading(model, tmp_path, name):
    path = tmp_path / name
    model.save(path)
    again = CharModel.load(path)
    assert again.vocabulary.characters == model.vocabulary.characters
    numbers = model.vocabulary.encode(TEXT[:90])[:, None]
    np.testing.assert_array_equal(again(numbers)[0], model(numbers)[0])
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_failed_save_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = tmp_path / "weights.npz"
    model.save(path)
    old = path.read_bytes()
    monkeypatch.setattr(fastrnn.files, "write_npz", lambda file, arrays: (file.write(b"half"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        model.save(path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["weights.npz"]


def format_1(model):
    """A file as models were saved before there was a format for all modules."""
    header, out = {"format": "fastrnn.CharModel/1", **model.config}, io.BytesIO()
    points = model.vocabulary.code_points
    np.savez(out, header=np.array(json.dumps(header)), vocabulary=points, **model.state_dict())
    return out.getvalue()


def test_files_of_format_1_can_still_be_read(model, tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes(format_1(model))
    again = CharModel.load(path)
    assert (again.vocabulary.characters, again.config) == (model.vocabulary.characters, model.config)
    numbers = model.vocabulary.encode(TEXT[:90])[:, None]
    np.testing.assert_array_equal(again(numbers)[0], model(numbers)[0])


def rewritten(raw, **changes):
    """The weights file with some arrays replaced (or left out, for None)."""
    with np.load(io.BytesIO(raw)) as file:
        arrays = dict(file) | changes
    out = io.BytesIO()
    np.savez(out, **{name: value for name, value in arrays.items() if value is not None})
    return out.getvalue()


def test_bad_weights_files(model, tmp_path):
    path = tmp_path / "weights.npz"
    raw = format_1(model)
    header = {"format": "fastrnn.CharModel/1", **model.config}
    pickled = io.BytesIO()
    np.savez(pickled, header=np.array([{"a": 1}], dtype=object))
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 0xFF
    other_zip = io.BytesIO()
    with zipfile.ZipFile(other_zip, "w") as archive:
        archive.writestr("header.npy", b"\x93NUMPY\x01\x00garbage")
    cases = {
        "empty": b"",
        "text": b"hello",
        "truncated": raw[: len(raw) // 2],
        "last byte": raw[:-1],
        "a flipped byte": bytes(flipped),
        "no archive": raw[100:],
        "other zip": other_zip.getvalue(),
        "pickle": pickled.getvalue(),
        "an array missing": rewritten(raw, **{"head.bias": None}),
        "an array too many": rewritten(raw, extra=np.zeros(3)),
        "another shape": rewritten(raw, **{"head.bias": np.zeros(3, np.float32)}),
        "integers": rewritten(raw, **{"head.bias": np.zeros(len(model.vocabulary), int)}),
        "header gone": rewritten(raw, header=None),
        "header no JSON": rewritten(raw, header=np.array("{")),
        "header a list": rewritten(raw, header=np.array("[1]")),
        "another format": rewritten(raw, header=np.array(json.dumps(header | {"format": "x"}))),
        "huge sizes": rewritten(raw, header=np.array(json.dumps(header | {"hidden_size": 10**12}))),
        "huge layers": rewritten(raw, header=np.array(json.dumps(header | {"num_layers": 10**12}))),
        "sizes as text": rewritten(raw, header=np.array(json.dumps(header | {"hidden_size": "12"}))),
        "vocabulary falling": rewritten(raw, vocabulary=model.vocabulary.code_points[::-1].copy()),
        "vocabulary too short": rewritten(raw, vocabulary=model.vocabulary.code_points[1:]),
        "vocabulary beyond": rewritten(raw, vocabulary=np.append(model.vocabulary.code_points[:-1], np.uint32(2**31))),
    }
    for name, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a weights file of a character model, or damaged"):
            print(name, CharModel.load(path))
