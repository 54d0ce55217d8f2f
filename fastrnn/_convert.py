"""Files of several formats as modules, and modules as such files: ``python -m fastrnn convert`` and ``inspect``."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn import files
from fastrnn._building import build, describe
from fastrnn._files import replacing
from fastrnn.layers import GRU, LSTM, RNN, Stack
from fastrnn.layers.recurrent import RecurrentLayer
from fastrnn.module import Module

KERAS = (".keras", ".h5", ".hdf5")
ENDINGS = (*files.ENDINGS, *KERAS, ".onnx")
GATES: dict[int, type[RecurrentLayer]] = {1: RNN, 3: GRU, 4: LSTM}
PARAMETER = re.compile(r"(?:(.*)\.)?((?:weight|bias)_(?:ih|hh|hr)_l)(\d+)(_reverse)?")


# --- recurrent layers of a state_dict --------------------------------------------------------------------------------


def recurrent_layers(arrays: Mapping[str, np.ndarray], nonlinearity: str = "tanh") -> dict[str, RecurrentLayer]:
    """
    Make a layer of every RNN, LSTM and GRU whose parameters are among arrays, by PyTorch's names for them.

    Parameters
    ----------
    arrays : mapping of str to array
        A `state_dict`; arrays of other names are left out of account.
    nonlinearity : {"tanh", "relu"}
        That of RNNs, which their parameters do not tell.

    Returns
    -------
    dict of str to RNN, LSTM or GRU
        By what stands in front of their parameters' names, "" for nothing. Time-major, and of the arrays' dtype, which
        for half precision is float32.

    Raises
    ------
    ValueError
        For parameters that are no such layer's; the message names one.
    """
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        match = PARAMETER.fullmatch(name)
        if match:
            front = match[1] or ""
            groups.setdefault(front, {})[name[len(front) + bool(front) :]] = array
    return {front: _layer(front, group, nonlinearity) for front, group in groups.items()}


def _layer(front: str, group: dict[str, np.ndarray], nonlinearity: str) -> RecurrentLayer:
    where = f"{front}." if front else ""
    expected = {"weight_ih_l0": None, "weight_hh_l0": None} | group
    first, again, projection = (expected.get(f"weight_{kind}_l0") for kind in ("ih", "hh", "hr"))
    for name, array in expected.items():
        if array is None or (name.startswith("weight") and (array.ndim != 2 or not array.size)):
            raise ValueError(f"{where}{name}: {'missing' if array is None else array.shape}, expected a matrix")
        if array.dtype.kind != "f":
            raise ValueError(f"{where}{name}: dtype {array.dtype}, expected floats")
    H = again.shape[1] if projection is None else projection.shape[-1]
    gates = len(again) / H
    if gates not in GATES:
        raise ValueError(f"{where}weight_hh_l0: {len(again)} rows for {H} units, expected 1, 3 or 4 times as many")
    options: dict[str, Any] = {"nonlinearity": nonlinearity} if gates == 1 else {}
    options |= {} if projection is None else {"proj_size": len(projection)}
    dtype = np.dtype(np.float32 if first.dtype.itemsize < 8 else np.float64)
    layers = 1 + max(int(PARAMETER.fullmatch(name)[3]) for name in group)
    arguments = {
        "input_size": first.shape[1],
        "hidden_size": H,
        "num_layers": layers,
        "bias": "bias_ih_l0" in group,
        "bidirectional": "weight_ih_l0_reverse" in group,
        "dtype": str(dtype),
    }
    group = {name: np.array(array, dtype) for name, array in group.items()}
    try:
        return build({"class": GATES[gates].__name__, "arguments": arguments | options}, group)
    except ValueError as error:
        raise ValueError(f"{where}weight_ih_l0 and others: no whole {GATES[gates].__name__} ({error})") from None


# --- converting ------------------------------------------------------------------------------------------------------


def convert(source: str, target: str, names: Sequence[str] = (), nonlinearity: str = "tanh") -> Module:
    """
    Write what is in one file into another; their endings say how.

    Parameters
    ----------
    source, target : path
        ``.safetensors`` and ``.npz`` have a module of this package, or (to be read) a `state_dict` of PyTorch's names;
        ``.keras``, ``.h5`` and ``.onnx`` what these libraries have.
    names : sequence of str
        Which layers, of a source with several; those of a `Stack` from the first up.
    nonlinearity : {"tanh", "relu"}
        Of an RNN in a `state_dict`.

    Returns
    -------
    Module
        What has been written.

    Raises
    ------
    ValueError
        If the source is damaged, or the target cannot hold what is in it; then nothing is written.
    """
    kind = files.ending(target, ENDINGS)
    module = _read(source, names, nonlinearity)
    try:
        _write(module, target, kind)
    except TypeError as error:
        raise ValueError(str(error)) from None
    return module


def _read(path: str, names: Sequence[str], nonlinearity: str) -> Module:
    kind = files.ending(path, ENDINGS)
    if kind in KERAS:
        from fastrnn.interop import keras

        return _chosen(path, keras.recurrent_layers(path), names) if names else keras.from_keras(path)
    if kind == ".onnx":
        from fastrnn.interop import onnx

        return _chosen(path, onnx.from_onnx(path), names)
    with files.naming(path, f"no {kind} file, or damaged"):
        arrays, text = files.read(path)
        module = None if text is None else files.built(text, arrays)
    if module is not None:
        return _chosen(path, dict(_within(module)), names) if names else module
    with files.naming(path, "not whole layers"):
        found = recurrent_layers(arrays, nonlinearity)
    return _chosen(path, found, names)


def _within(module: Module, front: str = "") -> Iterator[tuple[str, RecurrentLayer]]:
    """The recurrent layers in a module, with their names."""
    if isinstance(module, RecurrentLayer):
        yield front, module
        return
    for child, value in vars(module).items():
        if isinstance(value, Module):
            yield from _within(value, f"{front}.{child}" if front else child)


def _chosen(path: str, found: Mapping[str, Any], names: Sequence[str]) -> Module:
    """The one layer that there is, or that is asked for, or several as a stack."""
    if not found:
        raise ValueError(f"{path}: no recurrent layers{' of these names' if names else ''} are in it")
    if not names and len(found) > 1:
        raise ValueError(f"{path}: {len(found)} layers, {', '.join(map(repr, found))}; say which with --layer")
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{path}: no layer {missing[0]!r}, expected some of {', '.join(map(repr, found))}")
    layers = [found[name] for name in names or found]
    return layers[0] if len(layers) == 1 else Stack(layers)


def _write(module: Module, path: str, kind: str) -> None:
    if kind in files.ENDINGS:
        files.save(module, path)
        return
    if kind == ".onnx":
        from fastrnn.interop import onnx

        if not isinstance(module, RecurrentLayer):
            raise ValueError(f"{path}: of a {type(module).__name__}, expected a single RNN, LSTM or GRU; see --layer")
        content = onnx.to_onnx(module, lengths=True, state=True).SerializeToString()
    else:
        content = _keras_file(module, kind)
    with replacing(path) as file:
        file.write(content)


def _keras_file(module: Module, kind: str) -> bytes:
    """A module as the Keras file of this ending."""
    from fastrnn.interop import keras as interop

    model = interop.to_keras(module)
    import keras

    if not isinstance(model, keras.Sequential):
        if not isinstance(module, RecurrentLayer):
            raise ValueError(
                f"module: a {type(module).__name__} alone, expected a recurrent layer, or a model with one"
            )
        model = keras.Sequential([keras.Input((None, module.input_size)), model])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / f"model{kind}"
        model.save(place)
        return place.read_bytes()


# --- looking ---------------------------------------------------------------------------------------------------------


def inspect(path: str) -> str:
    """What is in a file: what it is, each array with its shape and dtype, and how much that is."""
    kind = files.ending(path, ENDINGS)
    what, arrays = _LOOKS.get(kind, _of_keras)(path)
    rows = [
        (
            name if name.isprintable() else repr(name),  # what the file says is no command to a terminal
            " x ".join(map(str, a.shape)) or "one number",
            str(a.dtype),
            f"{a.nbytes:,}",
        )
        for name, a in arrays.items()
    ]
    widths = [max([0, *map(len, column)]) for column in zip(*rows, strict=True)] if rows else []
    lines = [f"{path}: {what}, {os.path.getsize(path):,} bytes"]
    for name, shape, dtype, size in rows:
        lines.append(f"  {name:<{widths[0]}}  {shape:<{widths[1]}}  {dtype:<{widths[2]}}  {size:>{widths[3]}} bytes")
    total = sum(array.size for array in arrays.values())
    lines.append(f"{len(rows)} arrays, {total:,} numbers")
    return "\n".join(lines)


def _of_files(path: str) -> tuple[str, Mapping[str, np.ndarray]]:
    with files.naming(path, f"no {files.ending(path)} file, or damaged"):
        arrays, text = files.read(path)
        return "arrays" if text is None else described(describe(files.built(text, arrays))), arrays


def _of_keras(path: str) -> tuple[str, Mapping[str, np.ndarray]]:
    from fastrnn.interop import _keras_files

    with _keras_files.naming(path):
        found = _keras_files.of_file(path)
    arrays = {f"{layer.name}.{k}": weight for layer in found for k, weight in enumerate(layer.weights)}
    return f"Keras model of {', '.join(f'{layer.kind} {layer.name!r}' for layer in found) or 'nothing'}", arrays


def _of_onnx(path: str) -> tuple[str, Mapping[str, np.ndarray]]:
    from fastrnn.interop import onnx

    layers = onnx.from_onnx(path)
    arrays = {f"{name}.{p.name}": p.value for name, layer in layers.items() for p in layer.parameters()}
    nodes = ", ".join(f"{n!r} {layer!r}" for n, layer in layers.items())
    return f"ONNX model, its recurrent nodes {nodes or 'none'}", arrays


_LOOKS: dict[str, Callable[[str], tuple[str, Mapping[str, np.ndarray]]]] = {
    ".safetensors": _of_files, ".npz": _of_files, ".onnx": _of_onnx,
}  # fmt: skip


def described(node: Any) -> str:
    """A description of a module as the call that makes it."""
    if isinstance(node, list):
        return f"[{', '.join(map(described, node))}]"
    if not isinstance(node, dict):
        return repr(node)
    if "code_points" in node:
        return f"CharVocabulary of {len(node['code_points'])} characters"
    arguments = node.get("arguments", {})
    return f"{node.get('class')}({', '.join(f'{name}={described(value)}' for name, value in arguments.items())})"
