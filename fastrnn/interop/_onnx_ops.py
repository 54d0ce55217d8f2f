"""ONNX's operators RNN, LSTM and GRU in terms of the cell functions: attributes, shapes, orders of gates.

All of it works on plain Python values and arrays; `fastrnn.interop.onnx` reads them from models and writes them there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastrnn import _check, functional, variants
from fastrnn.variants import Activation, Variant

CELLS = {"RNN": "rnn", "LSTM": "lstm", "GRU": "gru"}
STATES = {"rnn": ("initial_h",), "lstm": ("initial_h", "initial_c"), "gru": ("initial_h",)}
INPUTS = {
    "rnn": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "lstm": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
    "gru": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
}
OUTPUTS = {"rnn": ("Y", "Y_h"), "lstm": ("Y", "Y_h", "Y_c"), "gru": ("Y", "Y_h")}

# Which of ONNX's blocks are ours, in our order: i f g o of i o f c, r z n of z r h; i f o of the peepholes i o f.
GATES = {"rnn": (0,), "lstm": (0, 2, 3, 1), "gru": (1, 0, 2)}
PEEPHOLES = (0, 2, 1)

ACTIVATIONS = {name.replace("_", ""): name for name in variants.ACTIVATIONS}
# How many of (alpha, beta) an activation consumes; those that are not here consume none.
CONSTANTS = {"affine": 2, "leaky_relu": 1, "thresholded_relu": 1, "scaled_tanh": 2, "hard_sigmoid": 2, "elu": 1}

DIRECTIONS = {b"forward": (False,), b"reverse": (True,), b"bidirectional": (False, True)}
# The type of each attribute's value. output_sequence was in version 1: what it says the list of outputs says too.
TYPES = {
    "activations": (list, bytes),
    "activation_alpha": (list, float),
    "activation_beta": (list, float),
    "clip": (float, None),
    "direction": (bytes, None),
    "hidden_size": (int, None),
    "layout": (int, None),
    "output_sequence": (int, None),
}
OWN_TYPES = {"rnn": {}, "lstm": {"input_forget": (int, None)}, "gru": {"linear_before_reset": (int, None)}}


class Op(NamedTuple):
    """The attributes of a node."""

    where: str  # the node, as messages name it
    cell: str
    directions: tuple[bool, ...]  # whether each runs in reverse
    batch_first: bool  # layout
    hidden_size: int | None
    activations: tuple[tuple[Activation, ...], ...]  # of each direction
    clip: float | None
    coupled: bool  # input_forget
    reset_after: bool  # linear_before_reset


class Weights(NamedTuple):
    """One direction's, as the cell functions take them."""

    w_ih: np.ndarray
    w_hh: np.ndarray
    b_ih: np.ndarray | None
    b_hh: np.ndarray | None
    peepholes: np.ndarray | None


# --- attributes ------------------------------------------------------------------------------------------------------


def read(where: str, op_type: str, attributes: Mapping[str, Any]) -> Op:
    """A node's attributes, whose values are ints, floats, bytes and lists of them."""
    cell = CELLS[op_type]
    types = TYPES | OWN_TYPES[cell]
    for name, value in attributes.items():
        if name not in types:
            raise ValueError(f"{where}: attribute {name}: unknown, expected some of {', '.join(sorted(types))}")
        kind, of = types[name]
        if not isinstance(value, kind) or (of and not all(isinstance(element, of) for element in value)):
            expected = "text" if bytes in (kind, of) else (of or kind).__name__
            raise ValueError(
                f"{where}: attribute {name}: {_shown(value)}, expected {'a list of ' * bool(of)}{expected} values"
            )

    def refused(name: str, expected: str) -> ValueError:
        return ValueError(f"{where}: attribute {name}: {_shown(attributes[name])}, expected {expected}")

    direction, clip = attributes.get("direction", b"forward"), attributes.get("clip")
    if direction not in DIRECTIONS:
        raise refused("direction", "forward, reverse or bidirectional")
    if clip is not None and not clip > 0:  # True for NaN too
        raise refused("clip", "a number above 0")
    for name in ("layout", "input_forget"):
        if attributes.get(name, 0) not in (0, 1):
            raise refused(name, "0 or 1")
    if attributes.get("hidden_size", 1) < 1:
        raise refused("hidden_size", "at least 1")
    return Op(
        where,
        cell,
        DIRECTIONS[direction],
        attributes.get("layout", 0) == 1,
        attributes.get("hidden_size"),
        _activations(where, cell, len(DIRECTIONS[direction]), attributes),
        clip,
        attributes.get("input_forget", 0) == 1,
        attributes.get("linear_before_reset", 0) != 0,
    )


def _activations(where: str, cell: str, D: int, attributes: Mapping[str, Any]) -> tuple[tuple[Activation, ...], ...]:
    """Those of each direction. The constants are consumed from first to last by those that have any."""
    plain = variants.PLAIN[cell]
    names = [_decoded(name) for name in attributes.get("activations", ())] or list(plain) * D
    if len(names) != D * len(plain):
        raise ValueError(
            f"{where}: attribute activations: {len(names)} of them, expected {D * len(plain)}, "
            f"{len(plain)} for each direction"
        )
    given = [list(attributes.get(name, ())) for name in ("activation_alpha", "activation_beta")]
    found = []
    for name in names:
        # Case does not matter: versions before 7 of the operators left it open.
        ours = ACTIVATIONS.get(name.lower())
        if ours is None:
            known = ", ".join(map(onnx_name, ACTIVATIONS))
            raise ValueError(f"{where}: attribute activations: {name!r:.80}, expected some of {known}")
        constants = list(variants.ACTIVATIONS[ours])
        for k in range(CONSTANTS.get(ours, 0)):
            if given[k]:
                constants[k] = given[k].pop(0)
        if not np.isfinite(constants).all():
            raise ValueError(f"{where}: attributes activation_alpha, activation_beta: {constants}, expected numbers")
        found.append(Activation(ours, *constants))
    for name, rest in zip(("activation_alpha", "activation_beta"), given, strict=True):
        if rest:  # whoever wrote one for each activation, needed or not, means another thing than ONNX
            count = len(attributes[name])
            raise ValueError(f"{where}: attribute {name}: {count} values, expected at most {count - len(rest)}")
    return tuple(tuple(found[d * len(plain) : (d + 1) * len(plain)]) for d in range(D))


def _shown(value: Any) -> str:
    """What a message shows of something that may be anything."""
    return " ".join(repr(value).split())[:80]


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def onnx_name(name: str) -> str:
    """An activation's name in ONNX."""
    return "".join(part.capitalize() for part in ACTIVATIONS.get(name, name).split("_"))


# --- weights ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _in(op: Op) -> Iterator[None]:
    """Have errors about an argument name the node too."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{op.where}: input {error}") from None


def weights(op: Op, W: Any, R: Any, B: Any = None, P: Any = None) -> list[Weights]:
    """The weights of each direction, checked and in our order of gates. Peepholes of zeros are none."""
    D, G = len(op.directions), _check.GATES[op.cell]
    with _in(op):
        W, R = _check.float_array("W", W), _check.as_array("R", R)
        H = R.shape[-1] if R.ndim else 0
        if R.shape != (D, G * H, H) or not H:
            raise ValueError(f"R: shape {R.shape}, expected (D, {G}H, H) with D = {D} and H >= 1")
        R = _check.float_array("R", R, W.dtype, "W")
        if W.ndim != 3 or W.shape[:2] != (D, G * H):
            raise ValueError(f"W: shape {W.shape}, expected (D, {G}H, I) with D = {D} and {G}H = {G * H}")
        if B is not None:
            B = _check.shaped("B", B, W.dtype, f"(D, {2 * G}H)", (D, 2 * G * H), "W").reshape(D, 2, G * H)
        if P is not None:
            P = _check.shaped("P", P, W.dtype, "(D, 3H)", (D, 3 * H), "W")
            P = None if not P.any() else blocks(P, PEEPHOLES)
    if op.hidden_size not in (None, H):
        raise ValueError(f"{op.where}: attribute hidden_size: {op.hidden_size}, expected {H}, the columns of R")
    W, R = blocks(W, GATES[op.cell]), blocks(R, GATES[op.cell])
    b_ih, b_hh = (None, None) if B is None else (blocks(B[:, k], GATES[op.cell]) for k in (0, 1))
    parts = (W, R, b_ih, b_hh, P)
    return [Weights(*(None if part is None else part[d] for part in parts)) for d in range(D)]


def blocks(a: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """`a` (D, G*H, ...) with its blocks of H rows in this order."""
    parts = a.reshape(len(a), len(order), -1, *a.shape[2:])
    return parts[:, order].reshape(a.shape)


def inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """The order that undoes one."""
    return tuple(order.index(k) for k in range(len(order)))


# --- running ---------------------------------------------------------------------------------------------------------


def cell_variant(op: Op, d: int, peepholes: np.ndarray | None) -> tuple[str, Variant | None]:
    """The nonlinearity of a plain RNN, and what else differs from the plain cell in direction d; None if nothing."""
    activations, nonlinearity = op.activations[d], "tanh"
    if activations == variants.activations_of(op.cell, None):
        activations = None
    elif op.cell == "rnn" and activations[0].name == "relu":
        activations, nonlinearity = None, "relu"
    if activations is None and op.clip is None and not op.coupled and peepholes is None:
        return nonlinearity, None
    return nonlinearity, Variant(activations=activations, clip=op.clip, coupled=op.coupled, peepholes=peepholes)


def run(
    op: Op, parts: list[Weights], X: Any, sequence_lens: Any = None, initial_h: Any = None, initial_c: Any = None
) -> tuple[np.ndarray, ...]:
    """The outputs of a node: Y, Y_h and an LSTM's Y_c."""
    D, H, dtype = len(parts), parts[0].w_hh.shape[1], parts[0].w_hh.dtype
    I = parts[0].w_ih.shape[1]
    with _in(op):
        x = _check.float_array("X", X, dtype, "W")
        axes = "(B, T, I)" if op.batch_first else "(T, B, I)"
        if x.ndim != 3 or x.shape[2] != I:
            raise ValueError(f"X: shape {x.shape}, expected {axes} with I = {I}, that of W")
        x = np.ascontiguousarray(x.swapaxes(0, 1)) if op.batch_first else x
        T, B, _ = x.shape
        states = []
        for name, value in zip(STATES[op.cell], (initial_h, initial_c), strict=False):
            axes, shape = ("(B, D, H)", (B, D, H)) if op.batch_first else ("(D, B, H)", (D, B, H))
            state = None if value is None else _check.shaped(name, value, dtype, axes, shape, "W")
            states.append(state.swapaxes(0, 1) if op.batch_first and state is not None else state)
        try:
            lengths = _check.lengths_array(sequence_lens, T, B)
        except (TypeError, ValueError) as error:
            raise ValueError("sequence_lens" + str(error).removeprefix("lengths")) from None
    forward = getattr(functional, f"{op.cell}_forward")
    results = []
    for d, (part, reverse) in enumerate(zip(parts, op.directions, strict=True)):
        nonlinearity, variant = cell_variant(op, d, part.peepholes)
        own = {"rnn": {"nonlinearity": nonlinearity}, "gru": {"reset_after": op.reset_after}}.get(op.cell, {})
        start = [None if state is None else state[d] for state in states]
        *outputs, _ = forward(
            x, *start, *part[:4], **own, lengths=lengths, reverse=reverse, save=False, variant=variant
        )
        results.append(outputs)
    ys, *finals = zip(*results, strict=True)
    if op.batch_first:
        return np.stack([y.swapaxes(0, 1) for y in ys], axis=2), *(np.stack(final, axis=1) for final in finals)
    return np.stack(ys, axis=1), *(np.stack(final) for final in finals)
