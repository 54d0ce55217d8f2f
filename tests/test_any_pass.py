"""A pass of any kind and size has the same bits on one thread and on several: what nobody thought of by itself."""

import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn import Variant, _sharing, functional

CELLS = [
    *(("rnn", {"nonlinearity": name}) for name in ("tanh", "relu")),
    ("lstm", {}),
    *(("gru", {"reset_after": after}) for after in (True, False)),
]
SIZES = (1, 33, 64, 129, 256, 300)  # of the larger ones a single step is worth sharing, or a part of it


@st.composite
def passes(draw):
    """A cell's name, arguments and options, and the gradient of y."""
    cell, options = draw(st.sampled_from(CELLS))
    T, B = draw(st.sampled_from([(1, 1), (1, 2), (1, 3), (1, 20), (1, 64), (2, 3), (3, 12), (7, 1), (7, 9)]))
    I, H, P = draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES)), None
    rng, dtype = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), draw(st.sampled_from(helpers.DTYPES))

    def array(*shape):
        return (rng.standard_normal(shape) / shape[-1] ** 0.5).astype(dtype)

    options = options | {"reverse": draw(st.booleans())}
    if draw(st.booleans()):
        options["lengths"] = rng.integers(0, T + 1, B)
    if draw(st.booleans()):
        options |= {"mask": rng.random((T, B)) < 0.8, "reset": rng.random((T, B)) < 0.2}
    kind = draw(st.sampled_from(["plain", "checkpoint", "clip", "projection"]))
    if kind == "projection" and cell == "lstm":
        P = draw(st.sampled_from([n for n in SIZES if n <= H]))
        options["variant"] = Variant(w_hr=array(P, H))
    elif kind in ("clip", "projection"):
        options["variant"] = Variant(clip=2.0)
    elif kind == "checkpoint":
        options["checkpoint"] = 2
    G, P = helpers.GATES[cell], P or H
    states = [array(B, P), array(B, H)] if cell == "lstm" else [array(B, P)]
    arguments = array(T, B, I), *states, array(G * H, I), array(G * H, P), array(G * H), array(G * H)
    return cell, arguments, options, array(T, B, P)


def run(cell, arguments, options, dy):
    *outputs, cache = getattr(functional, f"{cell}_forward")(*arguments, **options)
    outputs = [output.copy() for output in outputs]
    grads = getattr(functional, f"{cell}_backward")(cache, dy)
    for grad in grads:
        outputs.extend(grad.values() if isinstance(grad, dict) else [grad])  # those of a variant's arrays
    return {str(k): output for k, output in enumerate(outputs) if output is not None}


@settings(max_examples=500)
@given(passes())
def test_the_same_bits_on_several_threads(call):
    with fastrnn.config_context(engine="native", num_threads=1):
        expected = run(*call)
    for threads in (2, 3):
        with pytest.MonkeyPatch.context() as m, fastrnn.config_context(engine="native", num_threads=threads):
            m.setattr(_sharing, "CPUS", threads)  # or there would be no more threads than CPUs
            helpers.assert_same_bits(run(*call), expected)
