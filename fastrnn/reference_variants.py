"""The equations of every variant in plain NumPy: one staged step for each cell, and its mirror.

`fastrnn.reference` comes here where it is given a `variant`; what each part means is said at `variants.Variant`.
Read a cell's `*_step` beside its `*_step_backward`, then `forward` and `backward`, which drive them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastrnn import _check, variants
from fastrnn._cache import GRUGrads, LSTMGrads, RNNGrads, VariantCache
from fastrnn._walk import sigmoid
from fastrnn.variants import EPSILON, Activation

GRADS = {"rnn": RNNGrads, "lstm": LSTMGrads, "gru": GRUGrads}


def activate(x: np.ndarray, act: Activation) -> tuple[np.ndarray, np.ndarray]:
    """The value of an activation, and its slope."""
    name, alpha, beta = act.name, x.dtype.type(act.alpha), x.dtype.type(act.beta)
    if name == "sigmoid":
        y = sigmoid(x)
        return y, y * (1 - y)
    if name == "tanh":
        y = np.tanh(x)
        return y, 1 - y**2
    if name == "relu":
        return np.maximum(x, 0), (x > 0).astype(x.dtype)
    if name == "affine":
        return alpha * x + beta, np.full_like(x, alpha)
    if name == "leaky_relu":
        return np.where(x >= 0, x, alpha * x), np.where(x >= 0, x.dtype.type(1), alpha)
    if name == "thresholded_relu":
        return np.where(x >= alpha, x, x.dtype.type(0)), (x >= alpha).astype(x.dtype)
    if name == "scaled_tanh":
        y = np.tanh(beta * x)
        return alpha * y, alpha * beta * (1 - y**2)
    if name == "hard_sigmoid":
        y = alpha * x + beta
        return np.minimum(np.maximum(y, 0), 1), np.where((y > 0) & (y < 1), alpha, x.dtype.type(0))
    if name == "elu":
        e = alpha * np.exp(np.minimum(x, 0))
        return np.where(x >= 0, x, e - alpha), np.where(x >= 0, x.dtype.type(1), e)
    if name == "softsign":
        d = 1 / (1 + np.abs(x))
        return x * d, d * d
    if name == "softplus":
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), sigmoid(x)
    raise AssertionError(name)


def normalise(a):
    """Rows of mean 0 and variance 1, and 1 / their deviation."""
    centred = a - a.mean(axis=-1, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + a.dtype.type(EPSILON))
    return centred * scale, scale


def normalise_backward(d, normal, scale):
    """The gradient of what `normalise` was given."""
    return scale * (d - d.mean(axis=-1, keepdims=True) - normal * (d * normal).mean(axis=-1, keepdims=True))


class Product:
    """``gain * N(W a) + b``, without the N where there is no gain; its gradients add up in arrays of their own."""

    def __init__(self, w, gain, b):
        self.w, self.gain, self.b = w, gain, b
        self.dw = np.zeros_like(w)
        self.dgain = None if gain is None else np.zeros_like(gain)
        self.db = np.zeros(len(w), w.dtype)

    def forward(self, a):
        """The result and what backward needs."""
        result, kept = a @ self.w.T, (a,)
        if self.gain is not None:
            normal, scale = normalise(result)
            result, kept = self.gain * normal, (a, normal, scale)
        return result if self.b is None else result + self.b, kept

    def backward(self, d, kept):
        """The gradient of a; d is zero where no sequence runs."""
        a = kept[0]
        many = tuple(range(d.ndim - 1))
        self.db += d.sum(axis=many)
        if self.gain is not None:
            _, normal, scale = kept
            self.dgain += (d * normal).sum(axis=many)
            d = normalise_backward(d * self.gain, normal, scale)
        self.dw += np.tensordot(d, a, (many, many))
        return d @ self.w


class Stages(NamedTuple):
    """What all steps of a call share."""

    acts: tuple[Activation, ...]
    clip: float | None
    coupled: bool
    reset_after: bool
    peepholes: np.ndarray | None  # (3,H)
    dpeepholes: np.ndarray | None
    norm_c: np.ndarray | None
    norm_c_bias: np.ndarray | None
    dnorm_c: np.ndarray | None
    dnorm_c_bias: np.ndarray | None
    recurrent: tuple[Product, ...]  # one, or the GRU's r z and n

    def gate(self, pre, which):
        """The clip and the activation: value and slope."""
        act = self.acts[which]
        if self.clip is None:
            return activate(pre, act)
        value, slope = activate(np.clip(pre, -self.clip, self.clip), act)
        return value, slope * (np.abs(pre) < self.clip)


# --- RNN -------------------------------------------------------------------------------------------------------------


def rnn_step(s: Stages, a_x, h, h_in, c):
    """One step: the output before zoneout, no c, and what its mirror needs. h_in is h after its dropout."""
    a, kept = s.recurrent[0].forward(h_in)
    y, slope = s.gate(a_x + a, 0)
    return y, None, (slope, kept)


def rnn_step_backward(s: Stages, kept, dh, dc):
    """The gradients of a_x, of h past the product, of h into it, and of c."""
    slope, kept_h = kept
    d = dh * slope
    return d, 0, s.recurrent[0].backward(d, kept_h), None


# --- LSTM ------------------------------------------------------------------------------------------------------------


def lstm_step(s: Stages, a_x, h, h_in, c):
    """As `rnn_step`."""
    a, kept = s.recurrent[0].forward(h_in)
    i, f, g, o = np.split(a_x + a, 4, axis=1)
    p_i, p_f, p_o = (0, 0, 0) if s.peepholes is None else s.peepholes
    i, slope_i = s.gate(i + p_i * c, 0)
    f, slope_f = (1 - i, None) if s.coupled else s.gate(f + p_f * c, 0)
    g, slope_g = s.gate(g, 1)
    c_new = f * c + i * g
    o, slope_o = s.gate(o + p_o * c_new, 0)
    normal, scale, inner = None, None, c_new
    if s.norm_c is not None or s.norm_c_bias is not None:
        normal, scale = normalise(c_new)
        inner = normal if s.norm_c is None else s.norm_c * normal
        inner = inner if s.norm_c_bias is None else inner + s.norm_c_bias
    outer, slope_c = activate(inner, s.acts[2])
    return (
        o * outer,
        c_new,
        (kept, c, c_new, (i, f, g, o), (slope_i, slope_f, slope_g, slope_o), outer, slope_c, normal, scale),
    )


def lstm_step_backward(s: Stages, kept, dh, dc):
    """As `rnn_step_backward`; dc is that of the new c."""
    kept_h, c, c_new, (i, f, g, o), (slope_i, slope_f, slope_g, slope_o), outer, slope_c, normal, scale = kept
    p_i, p_f, p_o = (0, 0, 0) if s.peepholes is None else s.peepholes
    do = dh * outer * slope_o
    dinner = dh * o * slope_c
    if normal is not None:
        if s.norm_c is not None:
            s.dnorm_c[...] += (dinner * normal).sum(axis=0)
        if s.norm_c_bias is not None:
            s.dnorm_c_bias[...] += dinner.sum(axis=0)
        dinner = normalise_backward(dinner if s.norm_c is None else dinner * s.norm_c, normal, scale)
    dc = dc + dinner + p_o * do
    if s.coupled:
        di, df = dc * (g - c) * slope_i, np.zeros_like(i)
    else:
        di, df = dc * g * slope_i, dc * c * slope_f
    dg = dc * i * slope_g
    dc_before = dc * f + p_i * di + p_f * df
    if s.peepholes is not None:
        s.dpeepholes[...] += [(di * c).sum(axis=0), (df * c).sum(axis=0), (do * c_new).sum(axis=0)]
    d = np.concatenate((di, df, dg, do), axis=1)
    return d, 0, s.recurrent[0].backward(d, kept_h), dc_before


# --- GRU -------------------------------------------------------------------------------------------------------------


def gru_step(s: Stages, a_x, h, h_in, c):
    """As `rnn_step`."""
    r, z, n = np.split(a_x, 3, axis=1)
    if s.reset_after:
        a, kept = s.recurrent[0].forward(h_in)
        r_h, z_h, hn = np.split(a, 3, axis=1)
    else:
        a, kept = s.recurrent[0].forward(h_in)
        r_h, z_h = np.split(a, 2, axis=1)
    r, slope_r = s.gate(r + r_h, 0)
    z, slope_z = s.gate(z + z_h, 0)
    kept_n = None
    if s.reset_after:
        n, slope_n = s.gate(n + r * hn, 1)
    else:
        hn = h_in
        a, kept_n = s.recurrent[1].forward(r * h_in)
        n, slope_n = s.gate(n + a, 1)
    return n + z * (h - n), None, (h, hn, (r, z, n), (slope_r, slope_z, slope_n), kept, kept_n)


def gru_step_backward(s: Stages, kept, dh, dc):
    """As `rnn_step_backward`."""
    h, hn, (r, z, n), (slope_r, slope_z, slope_n), kept_h, kept_n = kept
    dn = dh * (1 - z) * slope_n
    dz = dh * (h - n) * slope_z
    if s.reset_after:
        dr = dn * hn * slope_r
        dh_in = s.recurrent[0].backward(np.concatenate((dr, dz, dn * r), axis=1), kept_h)
    else:
        drh = s.recurrent[1].backward(dn, kept_n)
        dr = drh * hn * slope_r
        dh_in = drh * r + s.recurrent[0].backward(np.concatenate((dr, dz), axis=1), kept_h)
    return np.concatenate((dr, dz, dn), axis=1), dh * z, dh_in, None


STEPS = {
    "rnn": (rnn_step, rnn_step_backward),
    "lstm": (lstm_step, lstm_step_backward),
    "gru": (gru_step, gru_step_backward),
}


# --- sequences -------------------------------------------------------------------------------------------------------


def zoned(new, before, zone, t):
    """What zoneout makes of a new state."""
    if zone is None:
        return new
    keep = zone[t] if isinstance(zone, np.ndarray) else new.dtype.type(zone)
    return keep * before + (1 - keep) * new


def zoned_backward(d, zone, t):
    """The gradients of the new state and of the one before."""
    if zone is None:
        return d, 0
    keep = zone[t] if isinstance(zone, np.ndarray) else d.dtype.type(zone)
    return d * (1 - keep), d * keep


def stages(cell, inputs: _check.Inputs, arrays: variants.Arrays, variant, nonlinearity, reset_after) -> Stages:
    """What all steps share."""
    H = len(inputs.w_hh) // _check.GATES[cell]
    peepholes = None if arrays.peepholes is None else arrays.peepholes.reshape(3, H)

    def zeros(a):
        return None if a is None else np.zeros_like(a)

    parts = [slice(0, 2 * H), slice(2 * H, None)] if cell == "gru" and not reset_after else [slice(None)]

    def part(a, rows):
        return None if a is None else a[rows]

    recurrent = [Product(inputs.w_hh[p], part(arrays.norm_hh, p), part(inputs.b_hh, p)) for p in parts]
    acts = variants.activations_of(cell, variant.activations, nonlinearity)
    bias, gain = arrays.norm_c_bias, arrays.norm_c
    of_c = gain, bias, zeros(gain), zeros(bias)
    return Stages(
        acts, variant.clip, variant.coupled, reset_after, peepholes, zeros(peepholes), *of_c, tuple(recurrent)
    )


def gates_by_name(cell, walk, steps, y, all_c):
    """What `Cache.gates` shows."""
    names, place = {"lstm": ("ifgo", 3), "gru": ("rzn", 2)}.get(cell, ("", 0))
    of_steps = {t: kept[place] for t, (kept, _) in steps.items()} if names else {}
    like = y if all_c is None else all_c
    shown = walk.by_name(of_steps, tuple(names), like)
    return shown | ({} if all_c is None else {"c": all_c.copy()}) | {"h": y}


def forward(cell, inputs: _check.Inputs, variant, walk, *, nonlinearity="tanh", reset_after=True, save=True):
    """Y, the final states, the states c of all steps of an LSTM (else None), and the cache."""
    x, states, w_ih, w_hh, b_ih = inputs[:5]
    T, B, I = x.shape
    H = len(w_hh) // _check.GATES[cell]
    P = states[0].shape[1]
    arrays = variants.checked_arrays(variant, cell, H, x.dtype)
    drawn = variants.draw(variant, T, B, I, P, H, x.dtype)
    s = stages(cell, inputs, arrays, variant, nonlinearity, reset_after)
    x = walk.without_padding(x)
    from_x = Product(w_ih, arrays.norm_ih, b_ih)
    a_x, kept_x = from_x.forward(x if drawn.x is None else x * drawn.x)
    project = None if arrays.w_hr is None else Product(arrays.w_hr, None, None)
    h, c = states[0].copy(), states[1].copy() if len(states) > 1 else None
    y, all_c, steps = np.zeros((T, B, P), x.dtype), None if c is None else np.zeros((T, B, H), x.dtype), {}
    step, _ = STEPS[cell]
    for t in walk:
        h, c = walk.zeros_where_reset(t, h), None if c is None else walk.zeros_where_reset(t, c)
        out, c_new, kept = step(s, a_x[t], h, h if drawn.h is None else h * drawn.h, c)
        out, kept_out = (out, None) if project is None else project.forward(out)
        h_next = zoned(out, h, drawn.zone_h, t)
        y[t] = walk.where_running(t, h_next, 0)
        h = walk.where_running(t, h_next, h)
        if c is not None:
            c_next = zoned(c_new, c, drawn.zone_c, t)
            all_c[t] = walk.where_running(t, c_next, 0)
            c = walk.where_running(t, c_next, c)
        steps[t] = kept, kept_out
    cache = None
    if save:
        kept = (walk, s, from_x, kept_x, project, drawn, arrays, steps, inputs)
        cache = VariantCache(cell, "reference", y, H, *kept, gates=lambda: gates_by_name(cell, walk, steps, y, all_c))
    return y, (h,) if c is None else (h, c), all_c, cache


def backward(cell, kept: tuple, dy, dstates, dc_all=None):
    """The gradients, from what the cache kept."""
    walk, s, from_x, kept_x, project, drawn, arrays, steps, inputs = kept
    dy, dc_all = walk.without_padding(dy), None if dc_all is None else walk.without_padding(dc_all)
    dh, dc = dstates[0], dstates[1] if len(dstates) > 1 else None
    da_x = np.zeros((*dy.shape[:2], len(inputs.w_ih)), dy.dtype)
    _, step_backward = STEPS[cell]
    for t in reversed(walk):
        kept_step, kept_out = steps[t]
        d_all = dh + dy[t]
        d, dh_past = zoned_backward(walk.where_running(t, d_all, 0), drawn.zone_h, t)
        d = d if project is None else project.backward(d, kept_out)
        dc_new, dc_past = None, 0
        if dc is not None:
            dc_t = dc if dc_all is None else dc + dc_all[t]
            dc_new, dc_past = zoned_backward(walk.where_running(t, dc_t, 0), drawn.zone_c, t)
        da_x[t], dh_direct, dh_in, dc_before = step_backward(s, kept_step, d, dc_new)
        dh_in = dh_in if drawn.h is None else dh_in * drawn.h
        dh = walk.zeros_where_reset(t, walk.where_running(t, dh_in + dh_direct + dh_past, dh))
        if dc is not None:
            dc = walk.zeros_where_reset(t, walk.where_running(t, dc_before + dc_past, dc))
    dx = from_x.backward(da_x, kept_x)
    dx = dx if drawn.x is None else dx * drawn.x
    parts = [np.concatenate([getattr(p, name) for p in s.recurrent]) for name in ("dw", "db")]
    found: dict[str, Any] = {
        "peepholes": None if s.peepholes is None else s.dpeepholes.ravel(),
        "w_hr": None if project is None else project.dw,
        "norm_ih": from_x.dgain,
        "norm_hh": None if arrays.norm_hh is None else np.concatenate([p.dgain for p in s.recurrent]),
        "norm_c": s.dnorm_c,
        "norm_c_bias": s.dnorm_c_bias,
    }
    biases = None if inputs.b_ih is None else from_x.db, None if inputs.b_hh is None else parts[1]
    dstates = (dh,) if dc is None else (dh, dc)
    of_variant = {name: d for name, d in found.items() if d is not None}
    return GRADS[cell](dx, *dstates, from_x.dw, parts[0], *biases, of_variant)
