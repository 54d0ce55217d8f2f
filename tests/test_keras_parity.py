"""The functions and layers against Keras on JAX: results and all gradients, the orders of gates translated here."""

import os
from dataclasses import replace
from functools import cache
from typing import NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

import helpers
import numpy as np
import pytest

import fastrnn

jax = pytest.importorskip("jax", reason="JAX, which gives Keras its gradients, is not installed")
keras = pytest.importorskip("keras", reason="Keras, the oracle of these tests, is not installed")
if keras.backend.backend() != "jax":
    pytest.skip("Keras runs on another backend than JAX, see KERAS_BACKEND", allow_module_level=True)

T, B, I, H = 6, 4, 3, 5
LAYERS = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
MASK = np.random.default_rng(7).random((T, B)) < 0.6  # gaps anywhere
MASK[:, 1], MASK[:, 2] = True, False  # a sequence with none, and one that has no valid step
EVERYTHING = {"return_sequences": True, "return_state": True}
TOLERANCE = 1e-5  # of float32, for on JAX Keras computes in it whatever its layers' dtype is


# --- the translation -------------------------------------------------------------------------------------------------


def blocks(cell, a):
    """Rows of `a` in Keras's order of gates, i f c o or z r h. For rows in that order: in ours."""
    return np.concatenate([a[H : 2 * H], a[:H], a[2 * H :]]) if cell == "gru" else a


def to_keras(cell, w_ih, w_hh, b_ih=None, b_hh=None, *, both_biases=False):
    """Our parameters as [kernel (I, G*H), recurrent kernel (H, G*H), bias], with `both_biases` (2, G*H)."""
    biases = [] if b_ih is None else [np.stack([b_ih, b_hh]) if both_biases else (b_ih + b_hh)[None]]
    biases = [np.stack([blocks(cell, row) for row in b]) for b in biases]
    return [blocks(cell, w_ih).T, blocks(cell, w_hh).T, *(b if both_biases else b[0] for b in biases)]


def from_keras(cell, kernel, recurrent_kernel, *bias):
    """Gradients of Keras's parameters as those of ours: one bias's is that of each of two."""
    biases = [row for b in bias for row in (b if b.ndim == 2 else [b, b])]
    return [blocks(cell, kernel.T), blocks(cell, recurrent_kernel.T), *(blocks(cell, row) for row in biases)]


def run_keras(layer, weights, x, states, arriving, mask=None):
    """
    What a layer returns, and given the gradients arriving there, those of its weights, of x and of the states.

    Batch-first, as everything in Keras.
    """
    layer.build(x.shape)
    layer.set_weights(weights)
    fixed = [v.value for v in layer.non_trainable_variables]

    def results(weights, x, states):
        found, _ = layer.stateless_call(weights, fixed, x, initial_state=states, mask=mask)
        return tuple(found)

    arguments = [v.value for v in layer.trainable_variables], x, states
    with jax.disable_jit():  # steps this few and small run sooner than a program of them is made
        found, back = jax.vjp(results, *jax.tree.map(jax.numpy.asarray, arguments))
        return jax.tree.map(np.asarray, (found, *back(tuple(map(jax.numpy.asarray, arriving)))))


# --- the cells -------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A cell, how it is walked, and what Keras calls its options; hashable, so that Keras runs once for all engines."""

    variant: helpers.Variant
    reverse: bool = False
    masked: bool = False
    bias: bool = True
    keras: tuple = ()

    def __str__(self):
        words = [str(self.variant), *(name for name in ("reverse", "masked") if getattr(self, name))]
        return ", ".join([*words, *([] if self.bias else ["no bias"]), *(str(value) for _, value in self.keras)])

    @property
    def problem(self):
        """Where its mask is False there is NaN, which must never come through."""
        biases = ("b_ih", "b_hh") if self.bias else ()
        problem = helpers.make(self.variant, T, B, I, H, np.float32, seed=3, reverse=self.reverse, biases=biases)
        if not self.masked:
            return problem
        x, dy = (np.where(MASK[:, :, None], a, np.nan) for a in (problem.arrays["x"], problem.dy))
        return replace(problem.with_arrays(x=x), dy=dy, mask=MASK)

    @property
    def options(self):
        """Of the Keras layer."""
        own = {"activation": self.variant.value} if self.variant.cell == "rnn" else self.variant.options
        return {**EVERYTHING, "use_bias": self.bias, "go_backwards": self.reverse, **own, **dict(self.keras)}


@cache
def expected(case):
    """The results and gradients that Keras has, by our names."""
    problem, cell = case.problem, case.variant.cell
    a = problem.arrays
    layer = LAYERS[cell](H, **case.options)
    weights = [a[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    weights = to_keras(cell, *weights, both_biases=cell == "gru" and case.variant.value)
    order = slice(None, None, -1 if case.reverse else 1)  # Keras's outputs are in that of the walk
    x, dy = (np.nan_to_num(v).swapaxes(0, 1) for v in (a["x"], problem.dy))
    states = [a[name] for name in ("h0", "c0") if name in a]
    (y, *final), dweights, dx, dstates = run_keras(
        layer, weights, x, states, [dy[:, order], *problem.dstates.values()], MASK.T if case.masked else None
    )
    named = {"y": y[:, order].swapaxes(0, 1), "dx": dx.swapaxes(0, 1)}
    named |= dict(zip(("h_n", "c_n"), final, strict=False)) | dict(zip(("dh0", "dc0"), dstates, strict=False))
    return named | dict(zip(("dw_ih", "dw_hh", "db_ih", "db_hh"), from_keras(cell, *dweights), strict=False))


def run(problem, variant=None):
    """The same of ours."""
    outputs, kept = helpers.forward(problem, variant=variant)
    results = outputs | helpers.backward(problem, kept)
    assert not results.pop("dvariant", None)
    return results


WALKS = [(reverse, masked) for reverse in (False, True) for masked in (False, True)]
CASES = [
    Case(v, *walk, keras=(("zero_output_for_mask", True),) if walk[1] else ())
    for v in helpers.VARIANTS
    for walk in WALKS
]
CASES += [Case(v, bias=False) for v in helpers.VARIANTS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cells(case, engine):
    with engine.active():
        helpers.assert_close(run(case.problem), expected(case), TOLERANCE)


@pytest.mark.parametrize("case", [Case(v, v.cell == "gru", True) for v in helpers.VARIANTS], ids=str)
def test_skipped_steps_repeat_the_last_output_in_keras(case):
    """So without `zero_output_for_mask`: all else is the same, and ours with the states held is theirs."""
    results = run(case.problem)
    y, h = results["y"].copy(), case.problem.arrays["h0"]
    assert not y[~MASK].any()
    for t in range(T)[:: -1 if case.reverse else 1]:
        h = y[t] = np.where(MASK[t][:, None], y[t], h)
    helpers.assert_close(results | {"y": y}, expected(case), TOLERANCE)


HARD_SIGMOID = ("hard_sigmoid", 1 / 6, 0.5)  # ONNX's begins with a slope of 0.2
ACTIVATIONS = [  # a cell, ours, Keras's
    ("lstm", ("sigmoid", "relu", "relu"), {"activation": "relu"}),
    ("lstm", (HARD_SIGMOID, "tanh", "tanh"), {"recurrent_activation": "hard_sigmoid"}),
    ("lstm", ("softsign", "elu", "elu"), {"recurrent_activation": "softsign", "activation": "elu"}),
    ("gru", (HARD_SIGMOID, "tanh"), {"recurrent_activation": "hard_sigmoid"}),
    ("gru", ("sigmoid", "relu"), {"activation": "relu"}),
    ("rnn", (("leaky_relu", 0.2),), {"activation": "leaky_relu"}),
    ("rnn", ("softplus",), {"activation": "softplus"}),
    ("rnn", ("affine",), {"activation": "linear"}),
]
VARIED = [
    pytest.param(case := Case(v, keras=tuple(theirs.items())), fastrnn.Variant(activations=ours), id=str(case))
    for cell, ours, theirs in ACTIVATIONS
    for v in helpers.VARIANTS
    if v.cell == cell and v.value != "relu"
]


@pytest.mark.parametrize(("case", "variant"), VARIED)
def test_activations(case, variant, engine):
    with engine.active():
        helpers.assert_close(run(case.problem, variant), expected(case), TOLERANCE)


# --- the layers ------------------------------------------------------------------------------------------------------


MERGES = [("lstm", "sum"), ("gru", "mul"), ("rnn", "ave"), ("lstm", None), *((cell, "concat") for cell in LAYERS)]


@pytest.mark.parametrize(("cell", "mode"), MERGES)
def test_bidirectional_layers(cell, mode):
    ours = getattr(fastrnn, cell.upper())(I, H, bidirectional=True, merge=mode, batch_first=True, rng=0)
    theirs = keras.layers.Bidirectional(LAYERS[cell](H, **EVERYTHING), merge_mode=mode)
    rng = np.random.default_rng(5)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    suffixes, names, count = ("_l0", "_l0_reverse"), ("weight_ih", "weight_hh", "bias_ih", "bias_hh"), len(ours.weights)
    both = cell == "gru"
    weights = [
        a
        for suffix in suffixes
        for a in to_keras(cell, *(ours.params[name + suffix] for name in names), both_biases=both)
    ]
    x = draw(B, T, I)
    states = [draw(2, B, H) for _ in ours.state_names]  # h (and c), each of both directions
    dstates = [draw(2, B, H) for _ in states]
    dy = [draw(B, T, 2 * H if mode == "concat" else H) for _ in range(1 if mode else 2)]

    def by_direction(parts):
        return [part[d] for d in (0, 1) for part in parts]

    def of_cell(parts):
        return tuple(parts) if len(parts) > 1 else parts[0]

    results, dweights, dx, dinitial = run_keras(
        theirs, weights, x, by_direction(states), [*dy, *by_direction(dstates)], MASK.T
    )
    y, final, kept = ours.forward(x, of_cell(states), mask=MASK.T)
    dx_ours, dinitial_ours = ours.backward(kept, of_cell(dy), of_cell(dstates))

    def compare(mine, other):
        helpers.assert_close(dict(enumerate(mine)), dict(enumerate(other)), TOLERANCE)

    compare([*(y if mode is None else [y]), *by_direction(as_list(final))], results)
    compare([dx_ours, *by_direction(as_list(dinitial_ours))], [dx, *dinitial])
    half = len(dweights) // 2
    for suffix, part in zip(suffixes, (dweights[:half], dweights[half:]), strict=True):
        compare([ours.grads[name + suffix] for name in names[:count]], from_keras(cell, *part))


def as_list(state):
    return list(state) if isinstance(state, tuple) else [state]


@pytest.mark.parametrize("cell", LAYERS)
def test_without_sequences_keras_gives_the_final_states(cell):
    ours = getattr(fastrnn, cell.upper())(I, H, bidirectional=True, rng=0)
    theirs = keras.layers.Bidirectional(LAYERS[cell](H))
    x = np.random.default_rng(6).standard_normal((T, B, I)).astype(np.float32)
    theirs.build((B, T, I))
    parts = [[ours.params[name + suffix] for name in ours.weights] for suffix in ("_l0", "_l0_reverse")]
    theirs.set_weights([a for part in parts for a in to_keras(cell, *part, both_biases=cell == "gru")])
    _, final = ours(x, mask=MASK)
    h = as_list(final)[0]
    last = np.asarray(theirs(x.swapaxes(0, 1), mask=MASK.T))
    np.testing.assert_allclose(np.concatenate(list(h), axis=1), last, atol=TOLERANCE)


@pytest.mark.parametrize("unit", [False, True])
def test_the_bias_of_the_forget_gate(unit):
    theirs = keras.layers.LSTM(H, unit_forget_bias=unit)
    theirs.build((B, T, I))
    ours = fastrnn.LSTM(I, H, forget_bias=float(unit), rng=0)
    forget = slice(H, 2 * H)
    np.testing.assert_array_equal((ours.bias_ih_l0 + ours.bias_hh_l0)[forget], np.asarray(theirs.cell.bias)[forget])
