"""The variants of the cells on the compiled engines: what goes around the time loops of `_core.staged`.

As `_compiled` does for the plain cells: arguments have been checked, *rows* are those of `_core.plan`. The equations
are in `reference_variants`. Without `save` nothing is kept for backward, but gates are made for all steps at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import _check, _settings, variants
from fastrnn._cache import GRUGrads, LSTMGrads, RNNGrads, VariantCache
from fastrnn._compiled import WEIGHTS, bias_sum, gru_bias, loop_sharing, plan_of
from fastrnn._core.matrix import norm_back_into, sum_products_into
from fastrnn._core.memory import empty
from fastrnn._core.staged import Stages
from fastrnn._products import BlasProducts

GRADS = {"rnn": RNNGrads, "lstm": LSTMGrads, "gru": GRUGrads}


def _times(a: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    return a if mask is None else a * mask


class _Pass:
    """One forward pass, and what it keeps for its way back."""

    def __init__(self, cell, inputs: _check.Inputs, products: BlasProducts, isa: str, variant, plan, acts, kind, save):
        self.cell, self.inputs, self.products, self.isa, self.plan, self.kind = cell, inputs, products, isa, plan, kind
        x, states, _, w_hh, b_ih, b_hh, *_ = inputs
        T, B, I = x.shape
        self.H, self.P, self.dtype = len(w_hh) // _check.GATES[cell], states[0].shape[1], x.dtype
        self.drawn = variants.draw(variant, T, B, I, self.P, self.H, x.dtype)
        self.own = variants.checked_arrays(variant, cell, self.H, x.dtype)
        bias = (gru_bias if cell == "gru" else bias_sum)(b_ih, b_hh, w_hh)
        self.options = {"activations": acts, "clip": variant.clip, "epsilon": variants.EPSILON}
        self.options |= {"coupled": variant.coupled, "zone_h": 0.0, "zone_c": 0.0}
        self.arrays: dict[str, Any] = {"bias": bias, "h0": plan.sort(states[0])}
        self.arrays |= {name: a for name, a in self.own._asdict().items() if name != "w_hr"}
        for name, zone in (("zone_h", self.drawn.zone_h), ("zone_c", self.drawn.zone_c)):
            if isinstance(zone, np.ndarray):
                self.arrays[name] = plan.pack(zone)
            elif zone is not None:
                self.options[name] = zone
        if self.drawn.h is not None:
            self.arrays["mask_h"] = plan.of_sequences(self.drawn.h)
        self.x_rows = plan.pack(_times(x, self.drawn.x))
        self.allocate(save)

    def rows(self, width: int | None = None) -> np.ndarray:
        """Memory for something of every row."""
        return empty((self.plan.rows,) if width is None else (self.plan.rows, width), self.dtype)

    def scratch(self, width: int) -> np.ndarray:
        """Memory for something of every sequence."""
        return empty((self.plan.B, width), self.dtype)

    def allocate(self, save: bool) -> None:
        """The arrays of forward. h and c lie beside the states before the first step, see `Plan.states`."""
        arrays, plan, H, P = self.arrays, self.plan, self.H, self.P
        G = _check.GATES[self.cell]
        self.both = plan.states(arrays["h0"])
        arrays |= {"h": plan.of_steps(self.both), "gates": self.rows(G * H)}
        arrays["product"] = self.scratch(max(G * H, P))
        arrays["h_in"] = None if self.drawn.h is None else self.scratch(P)
        arrays["hidden"] = arrays["h"] if self.own.w_hr is None else self.rows(H)
        if self.cell == "lstm":
            arrays["c0"] = plan.sort(self.inputs.states[1])
            self.both_c = plan.states(arrays["c0"])
            arrays["c"] = plan.of_steps(self.both_c)
            arrays |= {"c_new": arrays["c"] if self.drawn.zone_c is None else self.rows(H), "outer": self.rows(H)}
        elif self.cell == "gru":
            arrays["extra"] = self.rows(H)
        if not save:
            return
        arrays["slopes"] = self.rows(G * H)
        if self.own.norm_ih is not None:
            arrays |= {"normal_x": self.rows(G * H), "scale_x": self.rows()}
        if self.own.norm_hh is not None:
            width = 2 * H if self.kind == "gru-before" else G * H
            arrays |= {"normal_h": self.rows(width), "scale_h": self.rows()}
            if self.kind == "gru-before":
                arrays |= {"normal_n": self.rows(H), "scale_n": self.rows()}
        if self.cell == "lstm":
            arrays["outer_slope"] = self.rows(H)
            if self.own.norm_c is not None or self.own.norm_c_bias is not None:
                arrays |= {"normal_c": self.rows(H), "scale_c": self.rows()}

    def recurrent_parts(self) -> tuple:
        """W_hh as it is multiplied with: whole, or rows r z and rows n; and W_hr."""
        w, H = self.inputs.w_hh, self.H
        parts = (w[: 2 * H], w[2 * H :]) if self.kind == "gru-before" else (w, None)
        return (*parts, self.own.w_hr)

    def run(self, back: bool) -> None:
        """Walk the steps, forward or back."""
        products, steps, B = self.products, self.plan.steps, self.plan.B
        sharing = loop_sharing(products, self.plan, self.inputs.w_hh)
        make = products.recurrent_backward if back else products.recurrent_forward
        matrices = tuple(None if w is None else make(w, steps, B, sharing.members) for w in self.recurrent_parts())
        stages = Stages(self.kind, self.isa, self.plan, self.options, self.arrays, matrices, back)
        with products.looping(B, self.inputs.w_hh):
            stages.run(sharing)

    # --- forward -----------------------------------------------------------------------------------------------------

    def forward(self) -> tuple:
        """Y, the final states, and c of all steps or None."""
        arrays, plan = self.arrays, self.plan
        self.products.forward(arrays["gates"], self.x_rows, self.inputs.w_ih)
        self.run(back=False)
        final = [plan.last(arrays["h"], arrays["h0"])]
        if self.cell == "lstm":
            final.append(plan.last(arrays["c"], arrays["c0"]))
        c = plan.unpack(arrays["c"]) if self.cell == "lstm" else None
        return plan.unpack(arrays["h"]), tuple(final), c

    def gates(self, y: np.ndarray, c: np.ndarray | None) -> dict[str, np.ndarray]:
        """What `Cache.gates` shows."""
        names = {"lstm": "ifgo", "gru": "rzn"}.get(self.cell, "")
        parts = np.split(self.arrays["gates"], len(names), axis=1) if names else ()
        shown = {name: self.plan.unpack(part.copy()) for name, part in zip(names, parts, strict=True)}
        return shown | ({} if c is None else {"c": c.copy()}) | {"h": y}

    # --- backward ----------------------------------------------------------------------------------------------------

    def backward(self, dy, dstates, need: frozenset[str], dc_all=None) -> tuple:
        """The gradients of x, the states, W_ih, W_hh, b_ih, b_hh, and by name those of the variant's arrays."""
        arrays, plan, H, P = self.arrays, self.plan, self.H, self.P
        arrays |= {"dy": plan.pack(dy), "dh": plan.sort_ends(dstates[0])}
        if self.cell == "lstm":
            arrays |= {"dc": plan.sort_ends(dstates[1]), "past_c": self.scratch(H)}
            arrays["dc_all"] = None if dc_all is None else plan.pack(dc_all)
        arrays["past_h"] = self.scratch(P)
        if self.own.w_hr is not None:
            arrays |= {"dprojected": self.rows(P), "dhidden": self.scratch(H)}
        normed = self.own.norm_hh is not None
        if self.kind == "gru-before":
            arrays |= {"drecurrent": self.rows(2 * H), "dn": self.rows(H)}
            arrays["da_n"] = self.rows(H) if normed else arrays["dn"]
        elif self.cell == "gru":
            arrays["drecurrent"] = self.rows(3 * H)
        else:
            arrays["drecurrent"] = arrays["gates"]
        arrays["da"] = empty(arrays["drecurrent"].shape, self.dtype) if normed else arrays["drecurrent"]
        self.run(back=True)
        blocks = plan.blocks_of_sums(0, plan.steps)
        dstates = tuple(plan.unsort(arrays[name]) for name in (("dh", "dc") if self.cell == "lstm" else ("dh",)))
        of_variant = self.variant_gradients(blocks) if "variant" in need else {}
        dw_ih = dw_hh = db_ih = db_hh = None
        if need & WEIGHTS:
            db_ih, db_hh = self.bias_gradients(blocks)
            dw_hh = self.recurrent_gradient(blocks)
        if self.own.norm_ih is not None:  # what comes before was of the gradients behind the normalisation
            norm_back_into(self.isa, arrays["gates"], arrays["normal_x"], arrays["scale_x"], self.own.norm_ih)
        if need & WEIGHTS:
            dw_ih = empty(self.inputs.w_ih.shape, self.dtype)
            self.products.weight_gradient(dw_ih, arrays["gates"], self.x_rows, blocks, False)
        dx = None
        if "x" in need:
            rows = empty(self.x_rows.shape, self.dtype)
            self.products.backward(rows, arrays["gates"], self.inputs.w_ih)
            dx = plan.unpack(rows)
            if self.drawn.x is not None:
                dx *= self.drawn.x
        return (dx, *dstates, dw_ih, dw_hh, db_ih, db_hh, of_variant)

    def h_in_rows(self) -> np.ndarray:
        """What W_hh was multiplied with at all steps."""
        previous = self.plan.previous(self.both, self.arrays["h0"], 0, self.plan.steps)
        if self.drawn.h is None:
            return previous
        T, B, _ = self.inputs.x.shape
        return previous * self.plan.pack(np.broadcast_to(self.drawn.h, (T, B, self.P)))

    def recurrent_gradient(self, blocks) -> np.ndarray:
        """That of W_hh."""
        arrays, products, H = self.arrays, self.products, self.H
        dw, h_in = empty(self.inputs.w_hh.shape, self.dtype), self.h_in_rows()
        products.weight_gradient(dw[: arrays["da"].shape[1]], arrays["da"], h_in, blocks, False)
        if self.kind == "gru-before":
            products.weight_gradient(dw[2 * H :], arrays["da_n"], arrays["extra"], blocks, False)
        return dw

    def bias_gradients(self, blocks) -> tuple:
        """Those of b_ih and b_hh, where there are such."""
        arrays, H = self.arrays, self.H
        db_ih, db_hh = (None if b is None else np.empty_like(b) for b in (self.inputs.b_ih, self.inputs.b_hh))
        if db_ih is not None:
            self.products.bias_gradient(db_ih, arrays["gates"], blocks, False)
        if db_hh is not None:
            self.products.bias_gradient(db_hh[: arrays["drecurrent"].shape[1]], arrays["drecurrent"], blocks, False)
            if self.kind == "gru-before":
                self.products.bias_gradient(db_hh[2 * H :], arrays["dn"], blocks, False)
        return db_ih, db_hh

    def variant_gradients(self, blocks) -> dict[str, np.ndarray]:
        """Those of the variant's arrays, by name."""
        arrays, own, H, plan = self.arrays, self.own, self.H, self.plan
        grads = {name: np.empty_like(a) for name, a in own._asdict().items() if a is not None}

        def sum_products(out, a, b):
            sum_products_into(self.isa, out, a, b, blocks)

        if own.norm_ih is not None:
            sum_products(grads["norm_ih"], arrays["gates"], arrays["normal_x"])
        if own.norm_hh is not None:
            sum_products(grads["norm_hh"][: arrays["drecurrent"].shape[1]], arrays["drecurrent"], arrays["normal_h"])
            if self.kind == "gru-before":
                sum_products(grads["norm_hh"][2 * H :], arrays["dn"], arrays["normal_n"])
        if own.norm_c is not None:
            sum_products(grads["norm_c"], arrays["outer_slope"], arrays["normal_c"])
        if own.norm_c_bias is not None:
            self.products.bias_gradient(grads["norm_c_bias"], arrays["outer_slope"], blocks, False)
        if own.w_hr is not None:
            self.products.weight_gradient(grads["w_hr"], arrays["dprojected"], arrays["hidden"], blocks, False)
        if own.peepholes is not None:
            before = plan.previous(self.both_c, arrays["c0"], 0, plan.steps)
            beside = before, before, arrays["c_new"]
            for k, (gate, c) in enumerate(zip((0, 1, 3), beside, strict=True)):
                part = arrays["gates"][:, gate * H : (gate + 1) * H]
                sum_products(grads["peepholes"][k * H : (k + 1) * H], part, c)
        return grads


def forward(
    cell: str,
    inputs: _check.Inputs,
    products: BlasProducts,
    variant: variants.Variant,
    *,
    reverse: bool,
    save: bool,
    nonlinearity: str = "tanh",
    reset_after: bool = True,
) -> tuple:
    """Y, the final states as a tuple, the cache, and c of all steps or None."""
    acts = variants.activations_of(cell, variant.activations, nonlinearity)
    kind = cell if cell != "gru" else "gru-after" if reset_after else "gru-before"
    run = _Pass(cell, inputs, products, _settings.isa(), variant, plan_of(inputs, reverse), acts, kind, save)
    y, final, c = run.forward()
    if not save:
        return y, final, None, c
    if c is not None:
        c = c.copy() if np.shares_memory(c, run.arrays["c"]) else c  # backward reads its own
    return y, final, VariantCache(cell, products.engine, y, run.H, run, gates=lambda: run.gates(y, c)), c


def backward(cache: VariantCache, dy: np.ndarray, dstates: tuple, need: frozenset[str], dc=None) -> Any:
    """The gradients."""
    (run,) = cache.take()
    return GRADS[cache.cell](*run.backward(dy, dstates, need, dc))
