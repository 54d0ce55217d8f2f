"""Keras models as lists of layers with their weights: of a model in memory, of a ``.keras`` and of an ``.h5`` file."""

from __future__ import annotations

import io
import os
import re
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from fastrnn._safetensors import parse_json

ENDINGS = (".keras", ".h5", ".hdf5")
MODELS = ("Sequential", "Functional", "Model")


class Found(NamedTuple):
    """A layer of a model: its class and name, the rest of its configuration, and its weights in Keras's order."""

    kind: str
    name: str
    config: dict[str, Any]
    weights: list[np.ndarray]
    keras: int  # the major version that made it


def is_keras(source: Any) -> bool:
    """Whether it is a layer or model of Keras, as far as that can be seen without it."""
    return hasattr(source, "get_config") and hasattr(source, "get_weights")


def of_object(layer: Any) -> Found:
    """A layer in memory."""
    config = layer.get_config()
    weights = [np.asarray(weight) for weight in layer.get_weights()]
    package = sys.modules[type(layer).__module__.partition(".")[0]]
    major = int(getattr(package, "__version__", "3").partition(".")[0])
    return Found(type(layer).__name__, str(config.get("name")), config, weights, major)


def of_model(model: Any, chain: bool = True) -> list[Found]:
    """The layers of a model in memory; `chain` says that each has to read the one before it."""
    kind, config = type(model).__name__, model.get_config()
    names = [name for _, name, _ in _entries({"class_name": kind, "config": config}, chain)]
    return [of_object(model.get_layer(name)) for name in names]


def of_file(path: str | os.PathLike, chain: bool = True) -> list[Found]:
    """The layers of a file, read without Keras. Nothing in it is executed, and no other file is opened for it."""
    name, size = os.fspath(path), os.stat(path).st_size
    return (_of_archive if name.lower().endswith(".keras") else _of_h5)(name, size, chain)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Errors of a file's content with its path in front, whatever they are; those of the path as they are."""
    if not path.lower().endswith(ENDINGS):
        raise ValueError(f"path: {path!r}, expected one ending in {', '.join(ENDINGS)}")
    if path.lower().endswith(".weights.h5"):
        raise ValueError(f"path: {path!r} has weights without a model; save the model, as .keras")
    os.stat(path)
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError, RuntimeError, MemoryError,
            EOFError, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        # zipfile and h5py have errors of many kinds for files that are damaged
        raise ValueError(f"{path}: no Keras model that can be read, or damaged ({error})") from None


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise ImportError("h5py is not installed; pip install 'fastrnn[keras]'") from None
    return h5py


def _of_archive(path: str, size: int, chain: bool) -> list[Found]:
    with zipfile.ZipFile(path) as archive:
        members = {}
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            info = archive.getinfo(name)
            if info.file_size > 50 * size:
                raise ValueError(f"{name} claims {info.file_size} bytes in a file of {size}")
            members[name] = archive.read(info)
    version = str(parse_json(members["metadata.json"])["keras_version"])
    major = int(version.split(".")[0])
    model = parse_json(members["config.json"])
    seen: Counter[str] = Counter()
    found = []
    with _h5py().File(io.BytesIO(members["model.weights.h5"]), "r") as file:
        root = "layers" if "layers" in file else "_layer_checkpoint_dependencies"
        for kind, name, config in _entries(model, chain):
            # Keras names a layer's group by its class, with a number from the second one of the class on.
            snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", re.sub(r"\W+", "", kind)).lower()
            place = snake + (f"_{seen[snake]}" if seen[snake] else "")
            seen[snake] += 1
            inner = {"Bidirectional": ["forward_layer/cell", "backward_layer/cell"], "TimeDistributed": ["layer"]}
            inside = inner.get(kind, ["cell"] if "return_sequences" in config else [""])
            paths = [f"{root}/{place}/{part}/vars".replace("//", "/") for part in inside]
            weights = [array for part in paths for array in _numbered(file, part, len(members["model.weights.h5"]))]
            found.append(Found(kind, name, config, weights, major))
    return found


def _numbered(file: Any, path: str, size: int) -> list[np.ndarray]:
    """The datasets 0, 1, 2 ... of a group, none where there is no group."""
    if path not in file:
        return []
    return [_array(file, f"{path}/{k}", size) for k in range(len(file[path]))]


def _of_h5(path: str, size: int, chain: bool) -> list[Found]:
    with _h5py().File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise ValueError("it has no model_config: weights without a model")
        model = parse_json(file.attrs["model_config"])
        version = file.attrs.get("keras_version", file["model_weights"].attrs.get("keras_version", "2"))
        major = int(_text(version).split(".")[0])
        found = []
        for kind, name, config in _entries(model, chain):
            group = f"model_weights/{name}"
            names = file[group].attrs.get("weight_names", ()) if group in file else ()
            weights = [_array(file, f"{group}/{_text(weight)}", size) for weight in names]
            found.append(Found(kind, name, config, weights, major))
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _array(file: Any, path: str, size: int) -> np.ndarray:
    """A dataset, if it is in this file itself and no larger."""
    h5py, here = _h5py(), file
    for part in path.split("/"):
        if not isinstance(here, h5py.Group) or not isinstance(here.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{path!r:.80} is not there, or somewhere else")
        here = here[part]
    if not isinstance(here, h5py.Dataset) or here.is_virtual or here.external:
        raise ValueError(f"{path!r:.80} is no array in this file")
    if here.dtype.kind != "f" or here.nbytes > size:
        raise ValueError(f"{path!r:.80} is {here.dtype} {here.shape}, expected floats within the file's size")
    array = here[()]
    return array.astype(np.float64 if array.dtype.itemsize == 8 else np.float32, copy=False)


# --- the configuration of a model ------------------------------------------------------------------------------------


def _entries(model: dict[str, Any], chain: bool) -> list[tuple[str, str, dict[str, Any]]]:
    """Class, name and configuration of each layer, in the order in which they run; InputLayers are left out."""
    kind, config = model["class_name"], model["config"]
    if kind not in MODELS and chain:
        raise ValueError(f"it is a {kind!r:.80}, expected a Sequential model or one layer after the other")
    layers = config if isinstance(config, list) else config["layers"]  # a list in Keras 1
    if kind != "Sequential" and chain:
        _check_chain(layers)
    found = []
    for layer in layers:
        if not str(layer.get("module") or "keras").startswith(("keras", "tf_keras", "tensorflow.keras")):
            raise ValueError(f"a layer of {layer['module']!r:.80}, which is not Keras")
        if layer["class_name"] != "InputLayer":
            inner = layer["config"]
            found.append((str(layer["class_name"]), str(inner.get("name", layer.get("name"))), inner))
    return found


def _check_chain(layers: list[dict[str, Any]]) -> None:
    """That each layer reads the one before it, once."""
    before = None
    for layer in layers:
        name = layer["config"].get("name", layer.get("name"))
        nodes = layer.get("inbound_nodes", [])
        sources = [source for node in nodes for source in _sources(node)]
        if len(nodes) > 1 or sources != ([] if before is None else [before]):
            raise ValueError(f"layer {name!r:.80} reads {sources!s:.80}, expected {before!r:.80}: no graph can be read")
        before = name


def _sources(node: Any) -> list[str]:
    """The names of the layers whose outputs a layer is called with; masks do not count."""
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            return [node["config"]["keras_history"][0]]
        return [name for value in node.get("args", ()) for name in _sources(value)]
    if isinstance(node, list | tuple):
        if node and isinstance(node[0], str):  # Keras 2: name, node, tensor, kwargs
            return [node[0]]
        return [name for value in node for name in _sources(value)]
    return []
