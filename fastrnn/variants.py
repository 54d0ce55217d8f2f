"""What differs from the plain cell: a description of the stages of a step, given to the cell functions as `variant`."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _check

# The activations of ONNX, with the constants alpha and beta that they begin with; see `Variant.activations`.
ACTIVATIONS: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 0.0),
    "tanh": (0.0, 0.0),
    "relu": (0.0, 0.0),
    "affine": (1.0, 0.0),
    "leaky_relu": (0.01, 0.0),
    "thresholded_relu": (1.0, 0.0),
    "scaled_tanh": (1.0, 1.0),
    "hard_sigmoid": (0.2, 0.5),
    "elu": (1.0, 0.0),
    "softsign": (0.0, 0.0),
    "softplus": (0.0, 0.0),
}
PLAIN = {"rnn": ("tanh",), "lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh")}
ARRAYS = ("peepholes", "w_hr", "norm_ih", "norm_hh", "norm_c", "norm_c_bias")
EPSILON = 1e-5  # added to the variance, as in torch.nn.LayerNorm


class Activation(NamedTuple):
    """One of `ACTIVATIONS` and its constants."""

    name: str
    alpha: float
    beta: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """
    What a cell does besides, or instead of, the plain one's steps. Every part may be combined with every other.

    With N for the normalisation of a vector to mean 0 and variance 1, and dropout's masks m_x, m_h, a step is

    1. ``a = gain_ih * N(W_ih (m_x x)) + b_ih  and  gain_hh * N(W_hh (m_h h)) + b_hh``, put together as the cell says;
    2. an LSTM's peepholes: ``+ p * c`` for i and f (of the step before) and o (of this one);
    3. the clip to [-clip, clip], then the activation of each gate;
    4. the new state; an LSTM's output is ``o * act_h(gain_c * N(c) + bias_c)``;
    5. the projection ``h = W_hr h``;
    6. zoneout: each element of h (and c) stays as it was with its probability. c as it would be goes into h.

    Parameters
    ----------
    activations : tuple, optional
        In ONNX's order: RNN ``(f,)``; LSTM ``(f, g, h)`` for the gates i f o, for g, and for c on its way to h; GRU
        ``(f, g)`` for r z and for n. Each a name of `ACTIVATIONS` or a tuple (name, alpha) or (name, alpha, beta).
        None: the plain cell's.
    clip : float, optional
        The largest absolute value of a pre-activation, above 0.
    coupled : bool
        LSTM: ``f = 1 - i`` (CIFG, ONNX's input_forget); rows f of the weights have no effect and zero gradients, but
        that a normalisation counts them in.
    peepholes : array (3H,), optional
        LSTM: p of i, f, o.
    w_hr : array (P, H), optional
        LSTM: the projection; h, y and the columns of `w_hh` then have P units, c still H.
    norm_ih, norm_hh : array (G*H,), optional
        Layer normalisation: gain_ih, gain_hh. The biases of the cell are its shifts. The two products of the GRU with
        the reset before are normalised each for itself.
    norm_c, norm_c_bias : array (H,), optional
        LSTM: gain_c and bias_c, one or both.
    zoneout : float or (float, float)
        The probability for h, for an LSTM those for h and c; one number is of h alone.
    recurrent_dropout, input_dropout : float
        The probability with which an element of h (on its way into the product) or x is zero, the same one at all steps
        of a sequence; others are scaled by 1 / (1 - p).
    training : bool
        Whether elements are drawn. Otherwise there is no dropout, and zoneout mixes by its probability.
    rng : int, numpy.random.Generator or None
        What they are drawn from; an int is a seed, and gives the same masks again.

    Notes
    -----
    Peepholes: Gers & Schmidhuber 2000. Projection: Sak et al. 2014. Coupled gates: Greff et al. 2015. Layer
    normalisation: Ba et al. 2016. Zoneout: Krueger et al. 2017, whose h is made from the c before zoneout. Dropout, one
    mask for all steps: Gal & Ghahramani 2016.
    """

    activations: tuple | None = None
    clip: float | None = None
    coupled: bool = False
    peepholes: ArrayLike | None = None
    w_hr: ArrayLike | None = None
    norm_ih: ArrayLike | None = None
    norm_hh: ArrayLike | None = None
    norm_c: ArrayLike | None = None
    norm_c_bias: ArrayLike | None = None
    zoneout: float | tuple[float, float] = 0.0
    recurrent_dropout: float = 0.0
    input_dropout: float = 0.0
    training: bool = True
    rng: int | np.random.Generator | None = None

    def __post_init__(self):
        set_ = object.__setattr__
        if self.clip is not None and not float(self.clip) > 0:  # True for NaN too
            raise ValueError(f"clip: {self.clip!r}, expected a number above 0, or None")
        for name in ("recurrent_dropout", "input_dropout"):
            set_(self, name, probability(name, getattr(self, name), 1.0))
        pair = self.zoneout if isinstance(self.zoneout, tuple | list) else (self.zoneout, 0.0)
        if len(pair) != 2:
            raise ValueError(f"zoneout: {self.zoneout!r}, expected a probability, or those of h and c")
        set_(self, "zoneout", tuple(probability("zoneout", p) for p in pair))


def checked(variant: Any) -> Variant | None:
    """The argument `variant` of the cell functions."""
    if variant is not None and not isinstance(variant, Variant):
        raise TypeError(f"variant: {type(variant).__name__}, expected a fastrnn.Variant or None")
    return variant


def probability(name: str, value: Any, below: float | None = None) -> float:
    """`value` as a probability; of dropout, which divides by 1 - p, below 1."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: {value!r}, expected a probability") from None
    if not 0 <= number <= 1 or number == below:
        raise ValueError(f"{name}: {value!r}, expected a probability from 0 to {'below ' if below else ''}1")
    return number


def activation(spec: Any) -> Activation:
    """One activation as it may be given: a name, or a tuple of name, alpha and beta."""
    name, *constants = (spec,) if isinstance(spec, str) else tuple(spec)
    if name not in ACTIVATIONS:
        raise ValueError(f"activations: {name!r}, expected one of {', '.join(map(repr, ACTIVATIONS))}")
    if len(constants) > 2 or not all(np.isfinite(float(value)) for value in constants):
        raise ValueError(f"activations: {spec!r}, expected a name, or (name, alpha) or (name, alpha, beta)")
    return Activation(name, *map(float, constants), *ACTIVATIONS[name][len(constants) :])


def activations_of(cell: str, given: tuple | None, nonlinearity: str = "tanh") -> tuple[Activation, ...]:
    """Those of a cell, the plain ones for None."""
    plain = (nonlinearity,) if cell == "rnn" else PLAIN[cell]
    given = plain if given is None else (given,) if isinstance(given, str) else tuple(given)
    if len(given) != len(plain):
        raise ValueError(f"activations: {len(given)} of them, expected {len(plain)} for {cell}, in place of {plain}")
    return tuple(activation(spec) for spec in given)


class Drawn(NamedTuple):
    """The random parts of one call: arrays of the call's dtype, or numbers; None where there is nothing to do."""

    x: np.ndarray | None  # (B,I), what x is multiplied with
    h: np.ndarray | None  # (B,P), what h is multiplied with on its way into the product
    zone_h: np.ndarray | float | None  # (T,B,P): 1 where h stays, or how much of it stays everywhere
    zone_c: np.ndarray | float | None  # (T,B,H)


def draw(variant: Variant, T: int, B: int, I: int, P: int, H: int, dtype: np.dtype) -> Drawn:
    """Dropout's and zoneout's masks for one call, in this order."""
    rng = np.random.default_rng(variant.rng)

    def dropout(p: float, width: int) -> np.ndarray | None:
        if not p or not variant.training:
            return None
        return ((rng.random((B, width), np.float32) >= p) / (1 - p)).astype(dtype)

    def zone(p: float, width: int) -> np.ndarray | float | None:
        if not p or not variant.training:
            return p or None
        return (rng.random((T, B, width), np.float32) < p).astype(dtype)

    zone_h, zone_c = variant.zoneout
    masks = dropout(variant.input_dropout, I), dropout(variant.recurrent_dropout, P)
    return Drawn(*masks, zone(zone_h, P), zone(zone_c, H))


class Arrays(NamedTuple):
    """A variant's arrays, checked; None where it has none."""

    peepholes: np.ndarray | None
    w_hr: np.ndarray | None
    norm_ih: np.ndarray | None
    norm_hh: np.ndarray | None
    norm_c: np.ndarray | None
    norm_c_bias: np.ndarray | None


def checked_arrays(variant: Variant, cell: str, H: int, dtype: np.dtype) -> Arrays:
    """The arrays of a variant of this cell, whose gates have H units."""
    rows = _check.GATES[cell] * H
    shapes = {"peepholes": ("(3H,)", (3 * H,)), "norm_c": ("(H,)", (H,)), "norm_c_bias": ("(H,)", (H,))}
    shapes |= dict.fromkeys(("norm_ih", "norm_hh"), ("(G*H,)", (rows,)))
    arrays: dict[str, np.ndarray | None] = {}
    for name in ARRAYS:
        value = getattr(variant, name)
        if value is None:
            arrays[name] = None
            continue
        if cell != "lstm" and name not in ("norm_ih", "norm_hh"):
            raise ValueError(f"{name}: a {cell} has none, expected None")
        if name == "w_hr":
            arrays[name] = _check.float_array(name, value, dtype)
            if arrays[name].ndim != 2 or arrays[name].shape[1] != H or not len(arrays[name]):
                raise ValueError(f"w_hr: shape {arrays[name].shape}, expected (P, H) with H = {H} and P >= 1")
        else:
            arrays[name] = _check.shaped(name, value, dtype, *shapes[name])
    if cell != "lstm" and (variant.coupled or variant.zoneout[1]):
        name = "coupled" if variant.coupled else "zoneout"
        raise ValueError(f"{name}: a {cell} has no cell state, expected {'False' if variant.coupled else '0 for it'}")
    return Arrays(**arrays)
