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
RECURRENT = ("SimpleRNN", "LSTM", "GRU", "Bidirectional")
PACKAGES = ("keras", "tf_keras", "tensorflow")


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
    _check_own(layer)
    config = layer.get_config()
    weights = [_as_float(np.asarray(weight)) for weight in layer.get_weights()]
    package = sys.modules[type(layer).__module__.partition(".")[0]]
    major = int(getattr(package, "__version__", "3").partition(".")[0])
    return Found(type(layer).__name__, str(config.get("name")), config, weights, major)


def _check_own(part: Any) -> None:
    """That a layer or model in memory is of a class of Keras's own, and not of another one with that name."""
    module = type(part).__module__
    if module.partition(".")[0] not in PACKAGES:
        raise ValueError(f"{type(part).__name__} of {module!r:.80}, which is not Keras")


def of_model(model: Any, chain: bool = True) -> list[Found]:
    """The layers of a model in memory, each of which reads the one before it; without `chain` the recurrent ones."""
    if chain:
        _check_own(model)
    kind, config = type(model).__name__, model.get_config()
    entries = _entries({"class_name": kind, "config": config}, chain)
    names = [name for _, name, _, wanted in entries if wanted]
    return [of_object(model.get_layer(name)) for name in names]


def of_file(path: str | os.PathLike, chain: bool = True) -> list[Found]:
    """As `of_model`, of a file, without Keras. Nothing in it is executed, and no other file is opened for it."""
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
        left = [len(members["model.weights.h5"])]
        root = "_layer_checkpoint_dependencies" if _at(file, "layers") is None else "layers"
        for kind, name, config, wanted in _entries(model, chain):
            # Keras names a layer's group by its class, with a number from the second one of the class on.
            snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", re.sub(r"\W+", "", kind)).lower()
            place = snake + (f"_{seen[snake]}" if seen[snake] else "")
            seen[snake] += 1
            if not wanted:
                continue
            inner = {"Bidirectional": ["forward_layer/cell", "backward_layer/cell"], "TimeDistributed": ["layer"]}
            inside = inner.get(kind, ["cell"] if "return_sequences" in config else [""])
            paths = [f"{root}/{place}/{part}/vars".replace("//", "/") for part in inside]
            weights = [array for part in paths for array in _numbered(file, part, left)]
            found.append(Found(kind, name, config, weights, major))
    return found


def _numbered(file: Any, path: str, left: list[int]) -> list[np.ndarray]:
    """The datasets 0, 1, 2 ... of a group, none where there is no group."""
    return [_array(file, f"{path}/{k}", left) for k in range(len(_at(file, path) or ()))]


def _of_h5(path: str, size: int, chain: bool) -> list[Found]:
    with _h5py().File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise ValueError("it has no model_config: weights without a model")
        model = parse_json(file.attrs["model_config"])
        root = getattr(_at(file, "model_weights"), "attrs", {})
        version = file.attrs.get("keras_version", root.get("keras_version", "2"))
        major = int(_text(version).split(".")[0])
        found, left = [], [size]
        for kind, name, config in (entry[:3] for entry in _entries(model, chain) if entry[3]):
            group = f"model_weights/{name}"
            names = getattr(_at(file, group), "attrs", {}).get("weight_names", ())
            weights = [_array(file, f"{group}/{_text(weight)}", left) for weight in names]
            found.append(Found(kind, name, config, weights, major))
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _at(file: Any, path: str) -> Any:
    """What is at a path, None if there is nothing; links that lead elsewhere are not followed, but refused."""
    h5py, here = _h5py(), file
    for part in path.split("/"):
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{path!r:.80} is somewhere else")
        here = here[part]
    return here


def _array(file: Any, path: str, left: list[int]) -> np.ndarray:
    """A dataset, if it is in this file itself and takes no more bytes than those before have left of it."""
    h5py, here = _h5py(), _at(file, path)
    if not isinstance(here, h5py.Dataset) or here.is_virtual or here.external:
        raise ValueError(f"{path!r:.80} is no array in this file")
    left[0] -= here.nbytes
    if here.dtype.kind != "f" or left[0] < 0:
        raise ValueError(f"{path!r:.80} is {here.dtype} {here.shape}, expected floats within the file's size")
    return _as_float(here[()])


def _as_float(array: np.ndarray) -> np.ndarray:
    """In float64 as it is, else in float32: that is what there is here."""
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32, copy=False)


# --- the configuration of a model ------------------------------------------------------------------------------------


def _entries(model: dict[str, Any], chain: bool) -> list[tuple[str, str, dict[str, Any], bool]]:
    """
    Class, name and configuration of each layer in the order in which they run, and whether it is wanted.

    InputLayers are left out. Without `chain` those that are wanted are Keras's recurrent ones.
    """
    kind, config = model["class_name"], model["config"]
    if kind not in MODELS and chain:
        raise ValueError(f"it is a {kind!r:.80}, expected a Sequential model or one layer after the other")
    layers = config if isinstance(config, list) else config.get("layers")  # a list in Keras 1
    if layers is None:
        raise ValueError(f"it is a {kind!r:.80}, which does not say what its layers are")
    if kind != "Sequential" and chain:
        _check_chain(layers, config["output_layers"])
    found = []
    for layer in layers:
        name = str(layer["config"].get("name", layer.get("name")))
        other = _package_of_others(layer)
        if chain and other:
            raise ValueError(f"{layer['class_name']} {name!r:.80} of {other!r:.80}, which is not Keras")
        if kind == "Sequential" and chain and layer["config"].get("return_state"):
            raise ValueError(f"{layer['class_name']} {name!r:.80}: return_state, expected the outputs alone in a model")
        if layer["class_name"] != "InputLayer":
            wanted = chain or (not other and layer["class_name"] in RECURRENT)
            found.append((str(layer["class_name"]), name, layer["config"], wanted))
    return found


def _package_of_others(layer: dict[str, Any]) -> str | None:
    """Where the class of a layer, or of one that it wraps, is from, if not from Keras."""
    wrapped = (layer["config"].get(part) for part in ("layer", "backward_layer"))
    for part in (layer, *(part for part in wrapped if isinstance(part, dict))):
        module = str(part.get("module") or part.get("registered_name") or "keras")
        if module.partition(".")[0] not in PACKAGES:
            return module
    return None


def _check_chain(layers: list[dict[str, Any]], outputs: Any) -> None:
    """That each layer reads the first output of the one before it, once, and the model gives that of the last one."""
    expected: list[tuple] = []
    for layer in layers:
        name = layer["config"].get("name", layer.get("name"))
        nodes = layer.get("inbound_nodes", [])
        sources = [source for node in nodes for source in _sources(node)]
        if len(nodes) > 1 or sources != expected:
            raise ValueError(f"layer {name!r:.80} reads {sources!s:.80}, expected {expected}: no graph can be read")
        expected = [(name, 0)]
    if _sources(outputs) != expected:
        raise ValueError(f"the model gives {outputs!s:.80}, expected {expected!s:.80}: no graph can be read")


def _sources(node: Any) -> list[tuple]:
    """The layers that a layer is called with, and which of their outputs; masks do not count."""
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            name, _, output = node["config"]["keras_history"]
            return [(name, output)]
        kwargs = node.get("kwargs", {})
        values = [*node.get("args", ()), *(value for name, value in kwargs.items() if name != "mask")]
        return [source for value in values for source in _sources(value)]
    if isinstance(node, list | tuple):
        if len(node) > 2 and isinstance(node[0], str):  # name, node, output; in Keras 2 also kwargs
            return [(node[0], node[2]), *_sources({"kwargs": node[3] if len(node) > 3 else {}})]
        return [source for value in node for source in _sources(value)]
    return []
