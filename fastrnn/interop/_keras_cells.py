"""Keras's recurrent cells: their weights in our order and back, their equations, and the proof that the two agree."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from fastrnn.layers import GRU, LSTM, RNN
from fastrnn.layers.recurrent import RecurrentLayer
from fastrnn.variants import Activation, activation, activations_of

CELLS: dict[str, type[RecurrentLayer]] = {"SimpleRNN": RNN, "LSTM": LSTM, "GRU": GRU}
CLASSES = {"rnn": "SimpleRNN", "lstm": "LSTM", "gru": "GRU"}
GATES = {"rnn": "h", "lstm": "ifco", "gru": "zrh"}  # Keras's names, in its order
OURS = {"rnn": "h", "lstm": "ifgo", "gru": "zrn"}  # what `trace` calls them

# Keras's activations as ours, and what they are.
ACTIVATIONS: dict[str, tuple[Activation, Any]] = {
    "tanh": (activation("tanh"), np.tanh),
    "sigmoid": (activation("sigmoid"), expit),
    "relu": (activation("relu"), lambda a: np.maximum(a, 0)),
    "linear": (activation("affine"), lambda a: a),
    "softsign": (activation("softsign"), lambda a: a / (1 + np.abs(a))),
    "softplus": (activation("softplus"), lambda a: np.logaddexp(a, 0)),
    "elu": (activation("elu"), lambda a: np.where(a > 0, a, np.expm1(np.minimum(a, 0)))),
    "leaky_relu": (activation(("leaky_relu", 0.2)), lambda a: np.where(a > 0, a, 0.2 * a)),
    "hard_sigmoid": (activation(("hard_sigmoid", 1 / 6, 0.5)), lambda a: np.clip(a / 6 + 0.5, 0, 1)),
    "hard_sigmoid of Keras 2": (activation(("hard_sigmoid", 0.2, 0.5)), lambda a: np.clip(0.2 * a + 0.5, 0, 1)),
}


class Direction(NamedTuple):
    """The weights of a Keras layer: (I, G*H), (H, G*H), and (G*H,), or (2, G*H) of a GRU with the reset after."""

    kernel: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray | None


class Cell(NamedTuple):
    """A Keras recurrent layer: what it is called, its cell in our names, its options and its weights."""

    name: str
    cell: str
    activation: str  # one of ACTIVATIONS
    recurrent_activation: str | None
    reset_after: bool
    directions: tuple[Direction, ...]

    @property
    def units(self) -> int:
        """H."""
        return len(self.directions[0].recurrent)


# --- the translation -------------------------------------------------------------------------------------------------


def _swapped(cell: str, columns: np.ndarray) -> np.ndarray:
    """The last axis in the other library's order of gates: Keras's z r h is our r z n; LSTMs' are the same."""
    if cell != "gru":
        return columns
    z, r, h = np.split(columns, 3, axis=-1)
    return np.concatenate([r, z, h], axis=-1)


def ours(cell: str, direction: Direction) -> dict[str, np.ndarray]:
    """Our parameters, without a suffix; where Keras has one bias, ours of h is zeros."""
    kernel, recurrent, bias = direction
    found = {"weight_ih": _swapped(cell, kernel).T, "weight_hh": _swapped(cell, recurrent).T}
    if bias is not None:
        both = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])
        found["bias_ih"], found["bias_hh"] = _swapped(cell, both)
    return found


def theirs(cell: str, params: dict[str, np.ndarray], both_biases: bool) -> Direction:
    """Keras's weights of our parameters, without a suffix."""
    bias = None
    if "bias_ih" in params:
        both = np.stack([params["bias_ih"], params["bias_hh"]])
        bias = _swapped(cell, both if both_biases else both.sum(axis=0))
    return Direction(_swapped(cell, params["weight_ih"].T), _swapped(cell, params["weight_hh"].T), bias)


def our_options(keras: Cell) -> dict[str, Any]:
    """A layer's arguments that say what its cells compute; none for what is plain."""
    outer = ACTIVATIONS[keras.activation][0]
    if keras.cell == "rnn":
        return {"nonlinearity": outer.name} if outer.name in ("tanh", "relu") else {"activations": (tuple(outer),)}
    options: dict[str, Any] = {"reset_after": keras.reset_after} if keras.cell == "gru" else {}
    inner = ACTIVATIONS[keras.recurrent_activation][0]
    given = (inner, outer) if keras.cell == "gru" else (inner, outer, outer)
    if given != activations_of(keras.cell, None):
        options["activations"] = tuple(map(tuple, given))
    return options


def keras_activations(layer: RecurrentLayer) -> tuple[str, str | None]:
    """The names of a layer's activations in Keras 3: that of the candidate, and that of the gates."""
    given = activations_of(layer.cell, layer.variant_options["activations"], getattr(layer, "nonlinearity", "tanh"))
    names = {found: name for name, (found, _) in ACTIVATIONS.items() if " " not in name}
    for part in given:
        if part not in names:
            raise ValueError(f"layer: it has the activation {tuple(part)}, which Keras's {CLASSES[layer.cell]} has not")
    if layer.cell == "lstm" and given[1] != given[2]:
        raise ValueError("layer: its activations of g and of c differ, and Keras's LSTM has one for both")
    return (names[given[0]], None) if layer.cell == "rnn" else (names[given[1]], names[given[0]])


# --- the equations ---------------------------------------------------------------------------------------------------


def _steps(keras: Cell, direction: Direction, x: np.ndarray) -> list[dict[str, np.ndarray]]:
    """The gates of every step of x (T, B, I), in Keras's names and from its weights as they are; c and h among them."""
    act = ACTIVATIONS[keras.activation][1]
    gate = ACTIVATIONS[keras.recurrent_activation or "linear"][1]
    kernel, recurrent, bias = (None if a is None else a.astype(np.float64) for a in direction)
    H = keras.units
    h = c = np.zeros((x.shape[1], H))
    bias = np.zeros(kernel.shape[1]) if bias is None else bias
    of_x, of_h = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    found = []
    for x_t in x:
        a = x_t @ kernel + of_x
        if keras.cell == "rnn":
            h = act(a + h @ recurrent + of_h)
            found.append({"h": h})
        elif keras.cell == "lstm":
            i, f, g, o = np.split(a + h @ recurrent + of_h, 4, axis=1)
            i, f, g, o = gate(i), gate(f), act(g), gate(o)
            c = f * c + i * g
            h = o * act(c)
            found.append({"i": i, "f": f, "c": g, "o": o, "the cell state": c, "the output": h})
        else:
            a_z, a_r, a_h = np.split(a, 3, axis=1)
            z, r = (gate(p + h @ recurrent[:, k * H : (k + 1) * H] + of_h[k * H : (k + 1) * H])
                    for k, p in enumerate((a_z, a_r)))  # fmt: skip
            inner = r * (h @ recurrent[:, 2 * H :] + of_h[2 * H :])
            if not keras.reset_after:
                inner = (r * h) @ recurrent[:, 2 * H :] + of_h[2 * H :]
            n = act(a_h + inner)
            h = z * h + (1 - z) * n
            found.append({"z": z, "r": r, "h": n, "the output": h})
    return found


def prove(keras: Cell, layer: RecurrentLayer, k: int = 0) -> None:
    """
    Run the k-th of a layer's stacked cells beside Keras's equations for a few steps.

    Raises
    ------
    ValueError
        If they differ; the message names the first step and gate that do.
    """
    x = np.random.default_rng(0).standard_normal((4, 2, len(keras.directions[0].kernel))).astype(layer.dtype)
    names = dict(zip(GATES[keras.cell], OURS[keras.cell], strict=True)) | {"the cell state": "c", "the output": "h"}
    tolerance = 2e-4 if layer.dtype == np.float32 else 1e-9
    single = _alone(layer, k)
    trace = single(x, trace=True)[-1][0]
    for d, direction in enumerate(keras.directions):
        order = slice(None, None, -1 if d else 1)
        mine = {name: trace[d][ours_][order] for name, ours_ in names.items() if ours_ in trace[d]}
        for t, expected in enumerate(_steps(keras, direction, x[order].astype(np.float64))):
            for gate, value in expected.items():
                distance = np.abs(mine[gate][t] - value).max()
                if not distance <= tolerance * max(1.0, np.abs(value).max()):
                    which = f"{gate}" if " " in gate else f"gate {gate}"
                    way = " of the backward direction" if d else ""
                    raise ValueError(
                        f"{keras.name}: {which} of step {t}{way} differs by {distance:.3g} from Keras's equations"
                    )


def _alone(layer: RecurrentLayer, k: int) -> RecurrentLayer:
    """The k-th of stacked cells as a time-major layer of its own, whose outputs stand side by side."""
    leave = {"num_layers", "batch_first", "dropout", "stateful", "merge", "input_size"}
    options = {name: value for name, value in layer.arguments.items() if name not in leave}
    width = layer.params[f"weight_ih_l{k}"].shape[1]
    single = type(layer)(width, **options, rng=0)
    single.load_state_dict({name: layer.params[name.replace("_l0", f"_l{k}")] for name in single.params})
    return single
