"""
What `fastrnn.interop.jax` is made of: four primitives, and how JAX's transformations change them.

- `run_p`: forward, for its results only. Its derivative is `keep_p`, forward with what backward needs, and `linear_p`.
- `linear_p`: tangents in, tangents out. Never computed, for there is no kernel: it exists to be transposed.
- `back_p`: its transpose, the backward kernels, for the gradients that are needed.

They are calls of Python functions on XLA's own buffers, which cost about 10 us more than a call of the kernels; those
that go through `jax.pure_callback` cost 200, copy everything once more, and may wait for themselves.

Residuals are plain arrays (`fastrnn._kept`), not a cache: JAX may run either half as often as it likes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from fastrnn import _check, _kept, _settings, functional

MARKS = ("lengths", "mask", "reset")
WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")
# Where the sequences of a batch are, of everything that has them; `kept` is for what `_kept` calls arrays.
BATCH_AXES = {"x": 1, "h0": 0, "c0": 0, "lengths": 0, "mask": 1, "reset": 1, "y": 1, "h_n": 0, "c_n": 0, "kept": 1}


class Spec(NamedTuple):
    """All of a call that is not an array."""

    cell: str
    names: tuple[str, ...]  # of the arrays that there are, in the order in which they are passed
    options: tuple[tuple[str, Any], ...]  # of the cell, and `reverse`
    config: _settings.Config  # what contexts had set
    engine: str

    @property
    def results(self) -> tuple[str, ...]:
        """The names of what forward returns."""
        return ("y", "h_n", "c_n") if self.cell == "lstm" else ("y", "h_n")

    @property
    def kept(self) -> tuple[int, ...]:
        """The widths of what is kept beside y, in H. The reference engine runs forward again instead."""
        return () if self.engine == "reference" else _kept.WIDTHS[self.cell]

    @property
    def written(self) -> tuple[int, ...]:
        """Which of what is kept backward writes into."""
        return tuple(k for k, _ in enumerate(self.kept) if _kept.WRITTEN[self.cell][k])


# --- the kernels on XLA's buffers ------------------------------------------------------------------------------------


def _forward(spec: Spec, save: bool, _: Any, out: Sequence[Any], *buffers: Any) -> None:
    arrays = {name: np.asarray(buffer) for name, buffer in zip(spec.names, buffers, strict=True)}
    with _settings.config_context(**vars(spec.config)):
        *results, cache = _run_forward(spec, arrays, save)
        kept = _kept.arrays_of(cache) if spec.kept and save else ()
        for buffer, result in zip(out, (*results, *kept), strict=True):
            np.asarray(buffer)[...] = result


def _run_forward(spec: Spec, arrays: dict[str, np.ndarray], save: bool) -> tuple:
    return getattr(functional, f"{spec.cell}_forward")(**arrays, **dict(spec.options), save=save)


def _backward(spec: Spec, need: tuple[str, ...], _: Any, out: Sequence[Any], *buffers: Any) -> None:
    given = [np.asarray(buffer) for buffer in buffers]
    n, results = len(spec.names), len(spec.results)
    arrays, (y, *kept), arriving = dict(zip(spec.names, given, strict=False)), given[n:-results], given[-results:]
    for k, buffer in zip(spec.written, out[len(need) :], strict=True):
        kept[k], was = np.asarray(buffer), kept[k]
        if not np.may_share_memory(kept[k], was):
            kept[k][...] = was
    with _settings.config_context(**vars(spec.config)):
        if spec.engine == "reference":
            *_, cache = _run_forward(spec, arrays, True)
        else:
            states = {name: arrays[name] for name in ("h0", "c0") if name in arrays}
            rest = (arrays.get(name) for name in (*WEIGHTS, *MARKS))
            inputs = _check.sequence_inputs(spec.cell, arrays["x"], states, *rest)
            cache = _kept.cache_of(spec.cell, inputs, y, kept, **dict(spec.options))
        grads = getattr(functional, f"{spec.cell}_backward")(cache, *arriving, need=need)
        for buffer, name in zip(out, need, strict=False):
            np.asarray(buffer)[...] = getattr(grads, name)


# --- the primitives --------------------------------------------------------------------------------------------------


def _primitive(name: str, function: Callable, operands: Callable, results: Callable) -> Primitive:
    """
    A primitive that runs `function(avals of the results, *arrays, **parameters)`.

    `operands` and `results` tell of its parameters what goes in and comes out: names in `BATCH_AXES`, or of weights.
    """
    primitive = Primitive(name)
    primitive.multiple_results = True

    def abstract(*avals: Any, spec: Spec, need: tuple[str, ...] = ()) -> list[jax.core.ShapedArray]:
        shapes = {name: aval.shape for name, aval in zip(spec.names, avals, strict=False)}
        (T, B, _), H = shapes["x"], shapes["w_hh"][1]
        shapes |= {"y": (T, B, H), "h_n": (B, H), "c_n": (B, H)}
        widths = iter(spec.kept)
        wanted = [(T, B, next(widths) * H) if name == "kept" else shapes[name] for name in results(spec, need)]
        return [jax.core.ShapedArray(shape, avals[0].dtype) for shape in wanted]

    def run(*arrays: Any, **parameters: Any) -> tuple:
        out = tuple(jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in abstract(*arrays, **parameters))
        return tuple(function(out, *arrays, **parameters))

    def batch(arrays: Sequence[Any], axes: Sequence[Any], *, spec: Spec, need: tuple[str, ...] = ()) -> tuple:
        parameters = {"spec": spec, "need": need} if need else {"spec": spec}
        bind = functools.partial(primitive.bind, **parameters)
        return _batched(bind, arrays, axes, operands(spec, need), results(spec, need))

    primitive.def_abstract_eval(abstract)
    primitive.def_impl(jax.jit(run, static_argnames=("spec", "need")))
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=True), platform="cpu")
    batching.primitive_batchers[primitive] = batch
    ad.primitive_jvps[primitive] = _not_again
    return primitive


def _batched(bind: Callable, arrays: Sequence[Any], axes: Sequence[Any], operands: Any, results: Any) -> tuple:
    """What a primitive gives where some arguments have one more axis: one batch of everything, or a loop."""
    mapped = [axis is not None for axis in axes]
    size = next(array.shape[axis] for array, axis, is_mapped in zip(arrays, axes, mapped, strict=True) if is_mapped)
    one = all(name in BATCH_AXES or not is_mapped for name, is_mapped in zip(operands, mapped, strict=True))
    if not one or not all(name in BATCH_AXES for name in results):
        first = [jnp.moveaxis(a, axis, 0) for a, axis, is_mapped in zip(arrays, axes, mapped, strict=True) if is_mapped]

        def each(now: list) -> Any:
            now = iter(now)
            return bind(*(next(now) if is_mapped else a for a, is_mapped in zip(arrays, mapped, strict=True)))

        return jax.lax.map(each, first), [0] * len(results)
    width = np.delete(arrays[0].shape, axes[0])[1] if mapped[0] else arrays[0].shape[1]  # of x, which comes first
    folded = []
    for name, array, axis, is_mapped in zip(operands, arrays, axes, mapped, strict=True):
        if name in BATCH_AXES:
            at = BATCH_AXES[name]
            array = jnp.moveaxis(array, axis, at) if is_mapped else jnp.expand_dims(array, at)
            shape = (*array.shape[:at], size, *array.shape[at + 1 :])
            array = jnp.broadcast_to(array, shape).reshape(*shape[:at], size * shape[at + 1], *shape[at + 2 :])
        folded.append(array)
    places = [BATCH_AXES[name] for name in results]
    parts = [
        result.reshape(*result.shape[:at], size, width, *result.shape[at + 1 :])
        for result, at in zip(bind(*folded), places, strict=True)
    ]
    return parts, places


def _not_again(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError("fastrnn.interop.jax: derivatives of derivatives, which have no kernels")


def _no_tangents(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError("fastrnn.interop.jax: a derivative in forward mode; there are those in reverse mode only")


def _call(save: bool) -> Callable:
    return lambda out, *arrays, spec: buffer_callback(functools.partial(_forward, spec, save), out)(*arrays)


def _call_backward(out: tuple, *arrays: Any, spec: Spec, need: tuple[str, ...]) -> Any:
    """What backward writes into is a result as well, in the same memory; XLA copies it first where it is not alone."""
    places = [len(spec.names) + 1 + k for k in spec.written]
    also = tuple(jax.ShapeDtypeStruct(arrays[place].shape, arrays[place].dtype) for place in places)
    aliases = {place: len(out) + k for k, place in enumerate(places)}
    function = functools.partial(_backward, spec, need)
    return buffer_callback(function, (*out, *also), input_output_aliases=aliases)(*arrays)[: len(out)]


def _residuals(spec: Spec) -> tuple[str, ...]:
    return (*spec.names, "y", *("kept" for _ in spec.kept))


run_p = _primitive("fastrnn_run", _call(False), lambda spec, _: spec.names, lambda spec, _: spec.results)
keep_p = _primitive(
    "fastrnn_keep",
    _call(True),
    lambda spec, _: spec.names,
    lambda spec, _: (*spec.results, *("kept" for _ in spec.kept)),
)
linear_p = _primitive(
    "fastrnn_linear", _no_tangents, lambda spec, need: (*_residuals(spec), *need), lambda spec, _: spec.results
)
back_p = _primitive(
    "fastrnn_back", _call_backward, lambda spec, _: (*_residuals(spec), *spec.results), lambda _, need: need
)


def _derivative(primals: Sequence[Any], tangents: Sequence[Any], *, spec: Spec) -> tuple:
    outputs = keep_p.bind(*primals, spec=spec)
    results, kept = outputs[: len(spec.results)], outputs[len(spec.results) :]
    known = dict(zip(spec.names, tangents, strict=True))
    given = {name: t for name, t in known.items() if name not in MARKS and not isinstance(t, ad.Zero)}
    if not given:
        return results, [ad.Zero.from_primal_value(result) for result in results]
    return results, linear_p.bind(*primals, results[0], *kept, *given.values(), spec=spec, need=tuple(given))


def _transpose(arriving: Sequence[Any], *arrays: Any, spec: Spec, need: tuple[str, ...]) -> list:
    known = arrays[: -len(need)]
    arriving = [ad.instantiate_zeros(ct) for ct in arriving]
    return [*(None for _ in known), *back_p.bind(*known, *arriving, spec=spec, need=need)]


ad.primitive_jvps[run_p] = _derivative
ad.primitive_transposes[linear_p] = _transpose
