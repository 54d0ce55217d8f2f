"""
Keras layers and models in, and layers and models out to Keras (the extra `keras`).

`from_keras` makes layers of Keras's SimpleRNN, LSTM, GRU and Bidirectional, and a `fastrnn.nn.Sequential` of a model,
in memory or in a ``.keras`` or ``.h5`` file. Files are read with h5py alone, Keras need not be installed. `to_keras` is
the way back, and needs Keras. Each translation is proved: the layer is run beside Keras's equations with Keras's
weights, and a difference is an error that names the gate.

>>> import keras, numpy as np
>>> from fastrnn.interop import keras as interop
>>> model = keras.Sequential([keras.Input((None, 8)), keras.layers.Bidirectional(keras.layers.LSTM(16))])
>>> ours = interop.from_keras(model)  # or the path of a file
>>> x = np.ones((2, 5, 8), np.float32)
>>> bool(np.allclose(ours(x), model(x), atol=1e-5))
True
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from fastrnn import nn
from fastrnn.interop import _keras_cells as cells
from fastrnn.interop import _keras_files as files
from fastrnn.interop._keras_files import Found
from fastrnn.interop._keras_writer import keras_layers
from fastrnn.layers import Stack
from fastrnn.layers.recurrent import RecurrentLayer
from fastrnn.module import Module

__all__ = ["from_keras", "recurrent_layers", "to_keras"]

ACTIVATIONS = {
    "linear": None, "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "softmax": nn.Softmax, "gelu": nn.GELU,
}  # fmt: skip


def from_keras(source: Any) -> Any:
    """
    Make a layer, or a model, of Keras's.

    Parameters
    ----------
    source : path, Keras model, Keras layer, or sequence of Keras layers
        Files end in ``.keras`` or ``.h5``. Models are Sequential, or functional with one layer after the other, of
        SimpleRNN, LSTM, GRU, Bidirectional, Embedding, Dense, Dropout, LayerNormalization, Activation,
        GlobalAveragePooling1D and TimeDistributed of a Dense. Layers have been built.

    Returns
    -------
    Module
        Of a file or model a `fastrnn.nn.Sequential` that computes what the model does. Of a recurrent layer an `RNN`,
        `LSTM` or `GRU`, of several a `Stack`; these are `batch_first` and give all outputs and their state, whatever
        ``return_sequences`` and ``return_state`` say. Of another layer a module of `fastrnn.nn`.

    Raises
    ------
    ValueError
        For what has no counterpart here, a translation that fails its test, or a file that is damaged; the message
        names the layer.
    ImportError
        For a file, if h5py is not installed.

    Notes
    -----
    Masks are not looked for: hand the numbers of valid steps over as ``lengths=``. There is a warning where Keras would
    have made masks, by ``mask_zero``.
    """
    if isinstance(source, str | os.PathLike):
        with files.naming(os.fspath(source)):
            return _model(files.of_file(source))
    if isinstance(source, list | tuple):
        found = [from_keras(layer) for layer in source]
        odd = [type(module).__name__ for module in found if not isinstance(module, RecurrentLayer)]
        if odd or not found:
            raise TypeError(f"source: {', '.join(odd) or 'none'}, expected recurrent layers of Keras")
        return Stack(found)
    if not files.is_keras(source):
        raise TypeError(f"source: {type(source).__name__}, expected a path, or a layer or model of Keras")
    if type(source).__name__ in files.MODELS:
        return _model(files.of_model(source))
    found = files.of_object(source)
    if found.kind in files.RECURRENT:
        return _recurrent(found)
    modules = _modules(found)
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def recurrent_layers(source: Any) -> dict[str, RecurrentLayer]:
    """
    Make a layer of every recurrent layer of a model, whatever else is in it and however they are connected.

    Parameters
    ----------
    source : path or Keras model
        As for `from_keras`. Models within the model are not looked into.

    Returns
    -------
    dict of str to RNN, LSTM or GRU
        By Keras's names for the layers, in the model's order; as `from_keras` makes them of layers.

    Raises
    ------
    ValueError, ImportError
        As by `from_keras`.
    """
    if isinstance(source, str | os.PathLike):
        with files.naming(os.fspath(source)):
            return _recurrent_among(files.of_file(source, chain=False))
    if not files.is_keras(source) or not hasattr(source, "get_layer"):
        raise TypeError(f"source: {type(source).__name__}, expected a path, or a model of Keras")
    return _recurrent_among(files.of_model(source, chain=False))


def to_keras(module: Module) -> Any:
    """
    Make a Keras layer or model; the backend is the one that Keras runs on.

    Parameters
    ----------
    module : Module
        An `RNN`, `LSTM` or `GRU`, a plain `Stack` of such, or a `fastrnn.nn.Sequential` of these and of the modules
        that `from_keras` makes.

    Returns
    -------
    keras.layers.Layer or keras.Sequential
        Of a layer without others above it a layer with ``return_sequences=True``, else a model. It is built, and has
        copies of the parameters. Keras's LSTM, SimpleRNN and GRU with the reset before have one bias, the sum of two.

    Raises
    ------
    TypeError, ValueError
        For what has no counterpart in Keras.
    ImportError
        If Keras is not installed.
    """
    try:
        import keras
    except ImportError:
        raise ImportError("keras is not installed; pip install keras, and a backend for it") from None
    layers, width = keras_layers(keras, module)
    if len(layers) == 1 and not isinstance(module, nn.Sequential | Stack):
        return layers[0].build()
    tokens = isinstance(module, nn.Sequential) and isinstance(module[0], nn.Embedding)
    recurrent = any("return_sequences" in part.config for part in layers)
    axes = () if tokens else (width,)
    model = keras.Sequential([keras.Input((None, *axes) if recurrent or tokens else axes)])
    for part in layers:
        model.add(part.build())
    return model


def _recurrent_among(layers: list[Found]) -> dict[str, RecurrentLayer]:
    return {found.name: _recurrent(found) for found in layers}


# --- models ----------------------------------------------------------------------------------------------------------


def _model(layers: list[Found]) -> nn.Sequential:
    modules = [module for found in layers for module in _modules(found)]
    if not modules:
        raise ValueError("the model has no layers")
    return nn.Sequential(*modules)


def _modules(found: Found) -> list[Module]:
    """What a Keras layer is here, one module after the other."""
    where, config = f"{found.kind} {found.name!r:.80}", found.config
    if found.kind in files.RECURRENT:
        layer = _recurrent(found)
        inner = config["layer"]["config"] if found.kind == "Bidirectional" else config
        if inner.get("return_sequences"):
            return [layer]
        return [nn.FinalState(layer)] if layer.bidirectional else [layer, nn.LastStep()]
    if found.kind == "TimeDistributed":
        inner = config["layer"]
        if inner["class_name"] != "Dense":
            raise ValueError(f"{where}: of a {inner['class_name']!r:.80}, expected a Dense")
        return _modules(found._replace(kind="Dense", config=inner["config"]))
    if found.kind == "Dense":
        kernel, bias = _weights(where, found.weights, 2, config.get("use_bias", True))
        linear = nn.Linear(*kernel.shape, bias is not None, dtype=kernel.dtype, rng=0)
        linear.load_state_dict({"weight": kernel.T} | ({} if bias is None else {"bias": bias}))
        return [linear, *_activation(where, config.get("activation"))]
    if found.kind == "Embedding":
        (vectors,) = _weights(where, found.weights, 1, True)
        if config.get("mask_zero"):
            warnings.warn(f"{where}: mask_zero; hand the numbers of steps that are not padding over as lengths=")
        embedding = nn.Embedding(*vectors.shape, dtype=vectors.dtype, rng=0)
        embedding.weight = vectors
        return [embedding]
    if found.kind == "LayerNormalization":
        return [_layer_norm(where, found)]
    if found.kind in ("Activation", "ReLU", "Softmax"):
        _expect(where, config, max_value=(None,), negative_slope=(0, None), threshold=(0, None), axis=(-1,))
        return _activation(where, config.get("activation", found.kind.lower()))
    if found.kind == "Dropout":
        return [nn.Dropout(config["rate"])]
    if found.kind == "GlobalAveragePooling1D":
        _expect(where, config, data_format=("channels_last",), keepdims=(False,))
        return [nn.MeanOverTime()]
    raise ValueError(f"{where}: it has no counterpart here")


def _weights(where: str, weights: list[np.ndarray], count: int, all_of_them: bool) -> list[Any]:
    """The weights of a layer, None for the last one where it has none."""
    if len(weights) != count - (not all_of_them):
        hint = "; it has not been built" if not weights else ""
        raise ValueError(f"{where}: {len(weights)} weights, expected {count - (not all_of_them)}{hint}")
    return [*weights, *([] if all_of_them else [None])]


def _activation(where: str, name: Any) -> list[Module]:
    if not isinstance(name, str | None) or (name or "linear") not in ACTIVATIONS:
        raise ValueError(f"{where}: activation {name!r:.80}, expected one of {', '.join(ACTIVATIONS)}")
    made = ACTIVATIONS[name or "linear"]
    return [] if made is None else [made()]


def _expect(where: str, config: dict[str, Any], **options: tuple) -> None:
    """Refuse a layer with an option that has another value than these."""
    for name, plain in options.items():
        if config.get(name, plain[0]) not in plain:
            raise ValueError(f"{where}: {name} {config[name]!r:.80}, expected {plain[0]}")


def _layer_norm(where: str, found: Found) -> nn.LayerNorm:
    _expect(where, found.config, axis=(-1, [-1], 2, [2]), rms_scaling=(False,))
    center, scale = (bool(found.config.get(name, True)) for name in ("center", "scale"))
    weights = list(found.weights)
    if not weights or len(weights) != center + scale:
        raise ValueError(f"{where}: {len(weights)} weights, expected gamma or beta or both")
    norm = nn.LayerNorm(len(weights[0]), found.config["epsilon"], bias=center, dtype=weights[0].dtype)
    for name, there in (("weight", scale), ("bias", center)):
        if there:
            setattr(norm, name, weights.pop(0))
    return norm


# --- recurrent layers ------------------------------------------------------------------------------------------------


def _recurrent(found: Found) -> RecurrentLayer:
    """A layer with the weights of a Keras layer, proved."""
    both = found.kind == "Bidirectional"
    inner, kind = found.config, found.kind
    if both:
        inner, kind = inner["layer"]["config"], inner["layer"]["class_name"]
    where = f"{found.kind} {found.name!r:.80}"
    if kind not in cells.CELLS:
        raise ValueError(f"{where}: of a {kind!r:.80}, expected {', '.join(cells.CELLS)}")
    if both:
        _check_backward(where, inner, found.config.get("backward_layer"))
    if inner.get("go_backwards"):
        raise ValueError(f"{where}: go_backwards, which only a Bidirectional layer has here; reverse x instead")
    if inner.get("time_major"):
        raise ValueError(f"{where}: time_major, expected samples on the first axis")
    keras = _cell(where, kind, inner, found)
    kernel = keras.directions[0].kernel
    layer = cells.CELLS[kind](
        len(kernel),
        keras.units,
        bias=keras.directions[0].bias is not None,
        batch_first=True,
        bidirectional=both,
        merge=found.config["merge_mode"] if both else "concat",
        stateful=bool(inner.get("stateful", False)),
        input_dropout=inner.get("dropout", 0.0),
        recurrent_dropout=inner.get("recurrent_dropout", 0.0),
        dtype=kernel.dtype,
        rng=0,
        **cells.our_options(keras),
    )
    for direction, suffix in zip(keras.directions, ("_l0", "_l0_reverse"), strict=False):
        for name, value in cells.ours(keras.cell, direction).items():
            setattr(layer, name + suffix, value)
    cells.prove(keras, layer)
    return layer


def _cell(where: str, kind: str, config: dict[str, Any], found: Found) -> cells.Cell:
    """The cell of a Keras layer, its options and the shapes of its weights checked."""
    cell = cells.CELLS[kind].cell
    count, with_bias = 1 + (found.kind == "Bidirectional"), bool(config.get("use_bias", True))
    each = 2 + with_bias
    if len(found.weights) != count * each:
        hint = "; it has not been built" if not found.weights else ""
        raise ValueError(f"{where}: {len(found.weights)} weights, expected {count * each}{hint}")
    reset_after = cell == "gru" and bool(config.get("reset_after"))  # which Keras had not at first
    units = config["units"]
    rows = len(cells.GATES[cell]) * units
    parts = [cells.Direction(*found.weights[d * each : (d + 1) * each], *([] if with_bias else [None]))
             for d in range(count)]  # fmt: skip
    features = len(parts[0].kernel)
    shapes = (features, rows), (units, rows), (2, rows) if reset_after else (rows,)
    for part in parts:
        for name, array, shape in zip(("kernel", "recurrent_kernel", "bias"), part, shapes, strict=True):
            if array is not None and (array.shape != shape or array.dtype != parts[0].kernel.dtype):
                raise ValueError(f"{where}: {name} {array.dtype} {array.shape}, expected {shape} of one dtype")
    names = [_cell_activation(where, config.get("activation", "tanh"), found.keras)]
    if cell != "rnn":
        names.append(_cell_activation(where, config.get("recurrent_activation", "sigmoid"), found.keras))
    return cells.Cell(where, cell, names[0], names[1] if len(names) > 1 else None, reset_after, tuple(parts))


def _cell_activation(where: str, name: Any, major: int) -> str:
    name = "linear" if name is None else name
    if name == "hard_sigmoid" and major < 3:
        return "hard_sigmoid of Keras 2"
    if not isinstance(name, str) or name not in cells.ACTIVATIONS:
        known = ", ".join(name for name in cells.ACTIVATIONS if " " not in name)
        raise ValueError(f"{where}: activation {name!r:.80}, expected one of {known}")
    return name


def _check_backward(where: str, forward: dict[str, Any], backward: dict[str, Any] | None) -> None:
    """That the other direction of a Bidirectional layer computes what the first one does."""
    if backward is None:
        return
    free = ("name", "go_backwards", "dtype", "seed", "trainable", "zero_output_for_mask", "implementation", "unroll")
    for name, value in backward["config"].items():
        if name.endswith(("initializer", "regularizer", "constraint")) or name in free:
            continue
        if forward.get(name) != value:
            raise ValueError(f"{where}: {name} {value!r:.80} backwards, expected {forward.get(name)!r:.80} as forwards")
