"""Keras layers of ours: what they are called, their options and their weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastrnn import nn
from fastrnn.interop import _keras_cells as cells
from fastrnn.layers import Stack
from fastrnn.layers.recurrent import RecurrentLayer
from fastrnn.module import Module

SIMPLE = {
    nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.Softmax: "softmax", nn.GELU: "gelu",
}  # fmt: skip


class Part(NamedTuple):
    """A Keras layer that is yet to be made."""

    make: Any
    config: dict[str, Any]
    weights: list[np.ndarray]
    features: int | None  # of what it takes, where it has weights that depend on it

    def build(self) -> Any:
        """The layer, built and with its weights."""
        layer = self.make(**self.config)
        if self.weights:
            layer.build((None, None) if self.features is None else (None, None, self.features))
            layer.set_weights(self.weights)
        return layer


def keras_layers(keras: Any, module: Any) -> tuple[list[Part], int | None]:
    """The Keras layers that a module is, and the width of what the first one takes."""
    if isinstance(module, RecurrentLayer):
        return _recurrent(keras, module, True), module.input_size
    if isinstance(module, Stack):
        if any(module.wiring.residual) or module.wiring.skip != "none":
            raise ValueError("module: a Stack with residual or skip connections, expected a plain one")
        return [part for layer in module.layers for part in keras_layers(keras, layer)[0]], module.input_size
    if not isinstance(module, nn.Sequential):
        return [_simple(keras, module)], getattr(module, "in_features", getattr(module, "normalized_shape", None))
    parts: list[Part] = []
    modules = list(module)
    for k, part in enumerate(modules):
        if isinstance(part, nn.FinalState):
            parts += _recurrent(keras, part.layer, False)
        elif isinstance(part, RecurrentLayer):
            last = k + 1 < len(modules) and isinstance(modules[k + 1], nn.LastStep)
            if last and part.bidirectional:
                raise ValueError(f"modules[{k + 1}]: LastStep of a bidirectional layer, expected FinalState around it")
            parts += _recurrent(keras, part, not last)
        elif isinstance(part, nn.LastStep):
            if not k or not isinstance(modules[k - 1], RecurrentLayer):
                raise ValueError(f"modules[{k}]: LastStep, expected it behind a recurrent layer")
        elif isinstance(part, nn.Sequential | Stack):
            parts += keras_layers(keras, part)[0]
        else:
            parts.append(_simple(keras, part))
    first = modules[0].layer if isinstance(modules[0], nn.FinalState) else modules[0]
    return parts, getattr(first, "input_size", getattr(first, "in_features", getattr(first, "normalized_shape", None)))


def _simple(keras: Any, module: Module) -> Part:
    """A module that is one Keras layer without a state."""
    name, make = type(module).__name__, keras.layers
    if type(module) in SIMPLE:
        return Part(make.Activation, {"activation": SIMPLE[type(module)]}, [], None)
    if isinstance(module, nn.Dropout):
        return Part(make.Dropout, {"rate": module.p}, [], None)
    if isinstance(module, nn.MeanOverTime):
        return Part(make.GlobalAveragePooling1D, {}, [], None)
    params = module.params
    config: dict[str, Any] = {"dtype": str(getattr(module, "dtype", ""))}
    if isinstance(module, nn.Linear):
        weights = [params["weight"].T, *([params["bias"]] if "bias" in params else [])]
        config |= {"units": module.out_features, "use_bias": "bias" in params}
        return Part(make.Dense, config, weights, module.in_features)
    if isinstance(module, nn.Embedding):
        config |= {"input_dim": module.num_embeddings, "output_dim": module.embedding_dim}
        return Part(make.Embedding, config, [params["weight"]], None)
    if isinstance(module, nn.LayerNorm):
        config |= {"epsilon": module.eps, "scale": "weight" in params, "center": "bias" in params}
        return Part(make.LayerNormalization, config, list(params.values()), module.normalized_shape)
    raise ValueError(f"module: {name}, which Keras has no counterpart of")


def _recurrent(keras: Any, layer: RecurrentLayer, sequences: bool) -> list[Part]:
    """A Keras layer for each of the stacked ones, and Dropout between them; proved."""
    if layer.cell not in cells.CLASSES:
        raise ValueError(f"layer: {type(layer).__name__}, expected RNN, LSTM or GRU")
    _check_options(layer)
    outer, inner = cells.keras_activations(layer)
    make = getattr(keras.layers, cells.CLASSES[layer.cell])
    config: dict[str, Any] = {"units": layer.hidden_size, "activation": outer, "use_bias": layer.bias}
    config |= {} if inner is None else {"recurrent_activation": inner}
    config |= {"reset_after": layer.reset_after} if layer.cell == "gru" else {}
    config |= {"stateful": layer.stateful, "dtype": str(layer.dtype)}
    config |= {"dropout": layer.variant_options["input_dropout"]}
    config |= {"recurrent_dropout": layer.variant_options["recurrent_dropout"]}
    reset_after = layer.cell == "gru" and layer.reset_after
    parts = []
    for k in range(layer.num_layers):
        if k and layer.dropout:
            parts.append(Part(keras.layers.Dropout, {"rate": layer.dropout}, [], None))
        names = [name for name in layer.weights if f"{name}_l{k}" in layer.params]
        directions = tuple(
            cells.theirs(layer.cell, {name: layer.params[name + suffix] for name in names}, reset_after)
            for suffix in layer._suffixes(k)
        )
        cells.prove(cells.Cell(f"layer {k}", layer.cell, outer, inner, reset_after, directions), layer, k)
        weights = [a for direction in directions for a in direction if a is not None]
        one = config | {"return_sequences": sequences or k < layer.num_layers - 1}
        maker = _bidirectional(keras, make, layer.merge) if layer.bidirectional else make
        parts.append(Part(maker, one, weights, len(directions[0].kernel)))
    return parts


def _bidirectional(keras: Any, make: Any, merge: str | None) -> Any:
    return lambda **config: keras.layers.Bidirectional(make(**config), merge_mode=merge, dtype=config["dtype"])


def _check_options(layer: RecurrentLayer) -> None:
    """Refuse a layer that does something which Keras's do not."""
    plain = {"activations", "recurrent_dropout", "input_dropout"}
    nothing = (None, False, 0.0, (0.0, 0.0))
    given = [name for name, value in layer.variant_options.items() if name not in plain and value not in nothing]
    given += [name for name in ("layer_norm", "peepholes", "proj_size", "learn_initial_state") if getattr(layer, name)]
    if given:
        raise ValueError(f"layer: {', '.join(given)}, which Keras's {cells.CLASSES[layer.cell]} has not")
