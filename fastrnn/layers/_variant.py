"""The part of RNN, LSTM and GRU layers that is about variants of their cells (`fastrnn.variants`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import _check, variants
from fastrnn.layers.recurrent import RecurrentLayer

# What a variant's arrays are called as parameters.
NAMES = {
    "peepholes": "peephole",
    "w_hr": "weight_hr",
    "norm_ih": "gain_ih",
    "norm_hh": "gain_hh",
    "norm_c": "gain_c",
    "norm_c_bias": "shift_c",
}


# The others of a variant's arguments that are also a layer's.
OPTIONS = ("activations", "clip", "zoneout", "recurrent_dropout", "input_dropout", "coupled")


def not_plain(cell: str, options: dict[str, Any], nonlinearity: str) -> dict[str, Any]:
    """Those of `OPTIONS`, checked, that are not the plain cell's."""
    given, plain = variants.Variant(**options), variants.Variant()
    variants.activations_of(cell, given.activations, nonlinearity)
    return {name: value for name, value in options.items() if getattr(given, name) != getattr(plain, name)}


def array_shapes(
    cell: str, H: int, *, layer_norm: bool, peepholes: bool, proj_size: int = 0
) -> dict[str, tuple[int, ...]]:
    """The shapes of a variant's arrays, by its names for them."""
    rows = _check.GATES[cell] * H
    shapes: dict[str, tuple[int, ...]] = {"peepholes": (3 * H,)} if peepholes else {}
    shapes |= {"w_hr": (proj_size, H)} if proj_size else {}
    shapes |= {"norm_ih": (rows,), "norm_hh": (rows,)} if layer_norm else {}
    return shapes | ({"norm_c": (H,), "norm_c_bias": (H,)} if layer_norm and cell == "lstm" else {})


class VariantLayer(RecurrentLayer):
    """
    A stack of cells that may do more, or something else, than the plain ones.

    Parameters
    ----------
    activations : tuple, optional
        Of the gates, in ONNX's order: see `fastrnn.Variant`, which also says what the following do to a step.
    clip : float, optional
        The largest absolute value of a pre-activation.
    layer_norm : bool
        Whether W_ih x and W_hh h, and an LSTM's c on its way to h, are normalised; gains begin at 1.
    zoneout : float or (float, float)
        The probability with which an element of h (and of an LSTM's c) stays as it was.
    recurrent_dropout, input_dropout : float
        The probability with which an element of h on its way into the product, or of x, is zero at all steps.
    **common
        All others are those of `RecurrentLayer`.

    Notes
    -----
    Elements are drawn in `forward` only; a call, and a frozen layer, has no dropout, and zoneout mixes by its
    probability. Frozen layers and streams of variants run through the layer itself, without packed weights, unless
    dropout is all that they are about.
    """

    def __init__(
        self,
        *args: Any,
        activations: tuple | None = None,
        clip: float | None = None,
        layer_norm: bool = False,
        zoneout: float | tuple[float, float] = 0.0,
        recurrent_dropout: float = 0.0,
        input_dropout: float = 0.0,
        coupled: bool = False,
        peepholes: bool = False,
        proj_size: int = 0,
        **common: Any,
    ):
        if proj_size and self.cell != "lstm":
            raise ValueError(f"proj_size: {proj_size}, expected 0, for only an LSTM has a projection")
        given = {"activations": activations, "clip": clip, "coupled": bool(coupled), "zoneout": zoneout}
        given |= {"recurrent_dropout": recurrent_dropout, "input_dropout": input_dropout}
        own = self.__dict__
        own["variant_options"] = given
        own["layer_norm"], own["peepholes"], own["proj_size"] = bool(layer_norm), bool(peepholes), proj_size
        other = not_plain(self.cell, given, getattr(self, "nonlinearity", "tanh")).keys()
        arrays = bool(layer_norm or peepholes or proj_size)
        own["varies"] = arrays or bool(other)
        own["varies_when_called"] = arrays or bool(other - {"recurrent_dropout", "input_dropout"})
        super().__init__(*args, **common)
        if self.varies:  # a first step of nothing, so that what this cell cannot do is an error here and not later
            variants.checked_arrays(self._variant("_l0", False), self.cell, self.hidden_size, self.dtype)

    def _state_width(self, name: str) -> int:
        return self.proj_size if self.proj_size and name == "h" else self.hidden_size

    def _array_shapes(self) -> dict[str, tuple[int, ...]]:
        own = {name: getattr(self, name) for name in ("layer_norm", "peepholes", "proj_size")}
        return array_shapes(self.cell, self.hidden_size, **own)

    def _shapes(self, width: int) -> dict[str, tuple[int, ...]]:
        shapes = super()._shapes(width)
        shapes["weight_hh"] = (shapes["weight_ih"][0], self._state_width("h"))
        return shapes | {NAMES[name]: shape for name, shape in self._array_shapes().items()}

    def _initial(self, name: str, shape: tuple[int, ...], bound: float) -> np.ndarray:
        if name.startswith("gain"):
            return np.ones(shape, self.dtype)
        if name.startswith("shift"):
            return np.zeros(shape, self.dtype)
        return super()._initial(name, shape, bound)

    def _variant(self, suffix: str, training: bool) -> variants.Variant:
        arrays = {name: self.params[NAMES[name] + suffix] for name in self._array_shapes()}
        return variants.Variant(**self.variant_options, **arrays, training=training, rng=self.rng)

    def _cell_forward(self, y: np.ndarray, start: list, suffix: str, *, training: bool, **options: Any) -> tuple:
        if self.varies:
            options["variant"] = self._variant(suffix, training)
        return super()._cell_forward(y, start, suffix, training=training, **options)

    def _wanted(self) -> list[str]:
        return [*super()._wanted(), *(["variant"] if self.varies else [])]

    def _add_gradients(self, grads: Any, suffix: str) -> None:
        super()._add_gradients(grads, suffix)
        for name, grad in (grads.variant or {}).items():
            self.grads[NAMES[name] + suffix] += grad

    def _described(self) -> list[str]:
        default = variants.Variant()
        parts = [f"{name}={v!r}" for name, v in self.variant_options.items() if v and v != getattr(default, name)]
        parts += [name + "=True" for name in ("layer_norm", "peepholes") if getattr(self, name)]
        return [*super()._described(), *parts, *([f"proj_size={self.proj_size}"] if self.proj_size else [])]
