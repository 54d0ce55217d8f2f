"""The safetensors format, against the library, and what becomes of files that are damaged or lie."""

import io
import json
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn import _safetensors as ours

ARRAYS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "doubles": np.linspace(0, 1, 5).reshape(5, 1),
    "halves": np.array([0.5, 1.5], np.float16),
    "a complex one": np.array([1 + 2j], np.complex64),
    "bytes": np.arange(3, dtype=np.uint8),
    "flags": np.array([[True], [False]]),
    "nothing": np.zeros((0, 3)),
    "one number": np.array(7, np.int64),
    "ünïcode ☃": np.array([-1], np.int32),
} | {dtype: np.ones(3, dtype) for dtype in ("int8", "int16", "uint16", "uint32", "uint64")}


def same(a, b):
    assert a.keys() == b.keys()
    for name, array in a.items():
        assert (b[name].dtype, b[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(b[name], array)


def content(arrays, metadata=None):
    file = io.BytesIO()
    ours.write(file, arrays, metadata)
    return file.getvalue()


def test_there_and_back(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content(ARRAYS, {"a": "b", "ü": ""}))
    arrays, metadata = ours.read(path)
    same(arrays, ARRAYS)
    assert metadata == {"a": "b", "ü": ""}
    assert all(array.flags.writeable and array.flags.aligned for array in arrays.values())


def test_against_the_library(tmp_path):
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    path = tmp_path / "a.safetensors"
    path.write_bytes(content(ARRAYS, {"a": "b"}))
    theirs = library.load_file(path)
    same(theirs, ARRAYS)
    safe_open = __import__("safetensors").safe_open
    with safe_open(path, "np") as file:
        assert file.metadata() == {"a": "b"}
    library.save_file(ARRAYS, path, {"c": "d"})
    arrays, metadata = ours.read(path)
    same(arrays, ARRAYS)
    assert metadata == {"c": "d"}


def test_with_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    files = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    path = tmp_path / "a.safetensors"
    lstm = torch.nn.LSTM(3, 4, 2, bidirectional=True)
    files.save_file(lstm.state_dict(), path)
    layer = fastrnn.LSTM(3, 4, 2, bidirectional=True)
    layer.load_state_dict(fastrnn.load_arrays(path))
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    y = lstm(torch.from_numpy(x))[0].detach().numpy()
    np.testing.assert_allclose(layer(x)[0], y, atol=1e-6)
    layer.weight_ih_l0 = layer.weight_ih_l0 + 1
    fastrnn.save(layer, path)
    lstm.load_state_dict(files.load_file(path))
    np.testing.assert_allclose(layer(x)[0], lstm(torch.from_numpy(x))[0].detach().numpy(), atol=1e-6)
    numbers = torch.tensor([1.0, -2.5, 3e38, 1e-40])
    files.save_file({"a": numbers.bfloat16()}, path)
    np.testing.assert_array_equal(fastrnn.load_arrays(path)["a"], numbers.bfloat16().float().numpy())


def test_arrays_that_cannot_be_saved(tmp_path):
    for arrays, error, message in (
        ({"a": np.array(["text"])}, TypeError, r"^a: dtype <U4, expected numbers"),
        ({"a": np.ones(2, np.longdouble)}, TypeError, r"^a: dtype \S+, expected one of float64, "),
        ({"a": [None]}, TypeError, r"^a: dtype object, expected numbers"),
        ({"__metadata__": np.ones(2)}, ValueError, r"^__metadata__: the name of an array"),
        ({1: np.ones(2), "1": np.ones(3)}, TypeError, r"^arrays: the name 1, expected a text"),
        ({"\ud800": np.ones(2)}, ValueError, r"surrogates not allowed"),
        ({"a": np.ones((1,) * 33)}, ValueError, r"^a: 33 dimensions, expected at most 32"),
    ):
        with pytest.raises(error, match=message):
            fastrnn.save_arrays(arrays, tmp_path / "a.safetensors")
    for name, message in (("a\0b", r"^'a\\x00b': the name of an array, "), ("\ud800", "surrogates not allowed")):
        with pytest.raises(ValueError, match=message):
            fastrnn.save_arrays({name: np.ones(2)}, tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_arrays_may_have_any_names(ending, tmp_path):
    arrays = {
        name: np.full(3, k) for k, name in enumerate(("fastrnn", "a", "a.npy", "", "../b", "/", "ünïcode ☃", "c d"))
    }
    path = os.fsencode(tmp_path / f"a.{ending}")
    fastrnn.save_arrays(arrays, path)
    same(fastrnn.load_arrays(path), arrays)
    with pytest.raises(ValueError, match="arrays without the description of a module"):
        fastrnn.load(path)


def test_any_layout_of_arrays(tmp_path):
    a = np.arange(24, dtype=">f4").reshape(4, 6)
    for array in (a, a.T, a[::2, ::-3], np.asfortranarray(a)):
        for ending in ("safetensors", "npz"):
            fastrnn.save_arrays({"file": array}, tmp_path / f"a.{ending}")
            np.testing.assert_array_equal(fastrnn.load_arrays(tmp_path / f"a.{ending}")["file"], array)


# --- files that lie ---------------------------------------------------------------------------------------------------


def file_of(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


EIGHT = bytes(8)
BAD = {
    "empty": b"",
    "too short": b"\x02\x00\x00",
    "no header": file_of(b""),
    "a header longer than the file": file_of({}, length=1000),
    "a header of 2^63 bytes": file_of({}, length=2**63),
    "a header of 2^64 - 1 bytes": file_of({}, length=2**64 - 1),
    "no JSON": file_of(b"{'a': 1}"),
    "no object": file_of(b"[]"),
    "space in front": file_of(b" {}"),
    "no UTF-8": file_of(b'{"\xff": 1}'),
    "depth": file_of(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "depth of lists": file_of(b"{" + b'"a":' + b"[" * 100000),
    "NaN": file_of(b'{"a": NaN}'),
    "a number without end": file_of(b'{"a": ' + b"9" * 100000 + b"}"),
    "a name twice": file_of(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), EIGHT),
    "metadata of numbers": file_of({"__metadata__": {"a": 1}}),
    "metadata in a list": file_of({"__metadata__": []}),
    "an entry of another kind": file_of({"a": 3}),
    "an entry without shape": file_of({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, EIGHT),
    "an entry with something more": file_of({"a": entry() | {"x": 1}}, EIGHT),
    "an unknown dtype": file_of({"a": entry(dtype="F33")}, EIGHT),
    "a dtype that is a list": file_of({"a": entry() | {"dtype": ["F32"]}}, EIGHT),
    "a pickled dtype": file_of({"a": entry(dtype="O")}, EIGHT),
    "a negative shape": file_of({"a": entry((-2, -1))}, EIGHT),
    "a shape of floats": file_of({"a": entry((2.0,))}, EIGHT),
    "a shape of truths": file_of({"a": entry((True, 2))}, EIGHT),
    "a shape that is a number": file_of({"a": entry() | {"shape": 2}}, EIGHT),
    "many dimensions": file_of({"a": entry((1,) * 70 + (2,))}, EIGHT),
    "a shape beyond the file": file_of({"a": entry((10**12,))}, EIGHT),
    "a product of 2^64 + 2": file_of({"a": entry((2**33, 2**31, 2))}, EIGHT),
    "a product of 2^64": file_of({"a": entry((2**32, 2**32), (0, 0))}),
    "0 of too many": file_of({"a": entry((0, 2**70), (0, 0))}),
    "0 of many squares": file_of({"a": entry((0, 2**62, 2**62), (0, 0))}),
    "offsets beyond the file": file_of({"a": entry((4,), (0, 16))}, EIGHT),
    "offsets the wrong way round": file_of({"a": entry((0,), (8, 0))}, EIGHT),
    "negative offsets": file_of({"a": entry((2,), (-8, 0))}, EIGHT),
    "offsets of floats": file_of({"a": entry(offsets=(0, 8.0))}, EIGHT),
    "three offsets": file_of({"a": entry(offsets=(0, 8, 8))}, EIGHT),
    "a wrong number of bytes": file_of({"a": entry((1,))}, EIGHT),
    "overlapping": file_of({"a": entry(), "b": entry(offsets=(4, 12))}, EIGHT + bytes(4)),
    "the same place twice": file_of({"a": entry(), "b": entry()}, EIGHT),
    "a gap": file_of({"a": entry((1,), (0, 4)), "b": entry((1,), (8, 12))}, bytes(12)),
    "more data": file_of({"a": entry()}, EIGHT + b"x"),
    "less data": file_of({"a": entry()}, bytes(7)),
    "data of nobody": file_of({}, EIGHT),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name, tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(BAD[name])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"bad.safetensors: no .safetensors file, or damaged \(") as error:
            fastrnn.load_arrays(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(str(error.value)) < 500
    assert peak < 20 * len(BAD[name]) + 500_000


def test_a_name_that_is_no_file(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        fastrnn.load_arrays(tmp_path / "missing.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OSError, match="directory"):
        fastrnn.load_arrays(tmp_path / "folder.safetensors")


GOOD = {"safetensors": b"", "npz": b""}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A small saved model's bytes, by ending."""
    folder = tmp_path_factory.mktemp("good")
    for ending in GOOD:
        fastrnn.save(fastrnn.GRU(2, 3, rng=0), folder / f"m.{ending}")
        GOOD[ending] = (folder / f"m.{ending}").read_bytes()
    return folder


@pytest.mark.parametrize("ending", GOOD)
def test_files_cut_anywhere(good, ending, tmp_path):
    path, raw = tmp_path / f"cut.{ending}", GOOD[ending]
    for end in sorted({*range(0, len(raw), 7), len(raw) - 1}):
        path.write_bytes(raw[:end])
        with pytest.raises(ValueError, match="not a module of this package, or damaged"):
            fastrnn.load(path)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_bytes_changed_anywhere(good, ending, data):
    """A ValueError, or a module that differs in its numbers."""
    raw = bytearray(GOOD[ending])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = good / f"changed.{ending}"
    path.write_bytes(raw)
    try:
        module = fastrnn.load(path)
    except ValueError:
        return
    assert type(module) is fastrnn.GRU
    assert module(np.zeros((2, 1, 2), np.float32))[0].shape == (2, 1, 3)


def test_npz_files_that_lie(tmp_path):
    import zipfile

    def archive(*members, method=zipfile.ZIP_STORED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as out:
            for name, raw in members:
                out.writestr(name, raw)
        return file.getvalue()

    def array(shape, data, descr="<f4", version=b"\x01\x00"):
        text = str({"descr": descr, "fortran_order": False, "shape": shape}).encode()
        return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data

    cases = {
        "huge": archive(("a.npy", array((10**12,), bytes(8)))),
        "overflowing": archive(("a.npy", array((2**33, 2**31, 2), bytes(8)))),
        "negative": archive(("a.npy", array((-1, -2), bytes(8)))),
        "objects": archive(("a.npy", array((1,), bytes(8), "|O"))),
        "no dtype": archive(("a.npy", array((1,), bytes(8), "nothing"))),
        "of nothing": archive(("a.npy", array((8,), b"", "<U0"))),
        "version 9": archive(("a.npy", array((2,), bytes(8), version=b"\x09\x00"))),
        "compressed": archive(("a.npy", array((10**6,), bytes(4 * 10**6))), method=zipfile.ZIP_DEFLATED),
        "no array": archive(("a.npy", b"hello")),
        "empty": archive(("a.npy", b"")),
    }
    cases["the same, but for the ending"] = archive(("a", array((2,), bytes(8))), ("a.npy", array((2,), bytes(8))))
    with pytest.warns(UserWarning, match="Duplicate name"):
        cases["twice"] = archive(*[("a.npy", array((2,), bytes(8)))] * 2)
    path = tmp_path / "bad.npz"
    for name, raw in cases.items():
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=r"bad.npz: no .npz file, or damaged \("):
            print(name, fastrnn.load_arrays(path))
