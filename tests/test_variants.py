"""Variants: the reference by finite differences and by PyTorch, the compiled engines by the reference."""

import dataclasses
from types import SimpleNamespace

import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn import Variant, functional, reference
from fastrnn.variants import ACTIVATIONS

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
ARRAYS = {"rnn": ("norm_ih", "norm_hh"), "gru": ("norm_ih", "norm_hh")}
ARRAYS["lstm"] = (*ARRAYS["rnn"], "peepholes", "w_hr", "norm_c", "norm_c_bias")
# The cases that finite differences are taken of: what is here is combined with lengths and both directions.
CASES = {
    "plain": ("lstm", (), {}),
    "peepholes, clip": ("lstm", ("peepholes",), {"clip": 0.8}),
    "coupled, projected": ("lstm", ("peepholes", "w_hr"), {"coupled": True}),
    "layer norm": ("lstm", ("norm_ih", "norm_hh", "norm_c", "norm_c_bias"), {}),
    "norm_c alone": ("lstm", ("norm_c",), {}),
    "norm_c_bias alone": ("lstm", ("norm_c_bias",), {"activations": ("hard_sigmoid", "softsign", "elu")}),
    "everything": (
        "lstm",
        ARRAYS["lstm"],
        {"zoneout": (0.3, 0.4), "recurrent_dropout": 0.3, "input_dropout": 0.4, "rng": 3, "clip": 2.0},
    ),
    "zoneout at inference": ("lstm", ("w_hr",), {"zoneout": (0.3, 0.4), "training": False}),
    "relu for tanh": ("lstm", (), {"activations": ("sigmoid", "relu", "relu")}),
    "rnn": ("rnn", ("norm_ih", "norm_hh"), {"zoneout": 0.3, "recurrent_dropout": 0.3, "input_dropout": 0.4, "rng": 3}),
    "rnn, scaled tanh": ("rnn", (), {"activations": (("scaled_tanh", 1.3, 0.7),), "clip": 1.5}),
    "gru, reset after": ("gru", ("norm_ih", "norm_hh"), {"zoneout": 0.3, "recurrent_dropout": 0.3, "rng": 3}),
    "gru, reset before": (
        "gru",
        ("norm_ih", "norm_hh"),
        {"zoneout": 0.3, "recurrent_dropout": 0.3, "input_dropout": 0.4, "rng": 3, "reset_after": False},
    ),
    "gru, norm of h": ("gru", ("norm_hh",), {"activations": ("hard_sigmoid", "softplus"), "reset_after": False}),
}


def make(cell, names, options, T, B, I, H, P, dtype=np.float64, seed=0, lengths=None, reverse=False):
    """A random problem: the arguments of forward, those of the variant, and the arriving gradients."""
    rng = np.random.default_rng(seed)
    G = GATES[cell]
    P = P if "w_hr" in names else H

    def draw(*shape, scale=0.7):
        return (rng.standard_normal(shape) * scale).astype(dtype)

    arrays = {"x": draw(T, B, I), "h0": draw(B, P)}
    if cell == "lstm":
        arrays["c0"] = draw(B, H)
    arrays |= {"w_ih": draw(G * H, I), "w_hh": draw(G * H, P, scale=P**-0.5), "b_ih": draw(G * H), "b_hh": draw(G * H)}
    shapes = {"peepholes": (3 * H,), "w_hr": (P, H), "norm_c": (H,), "norm_c_bias": (H,)}
    extra = {name: draw(*shapes.get(name, (G * H,))) for name in names}
    for name in extra.keys() - {"peepholes", "w_hr", "norm_c_bias"}:
        extra[name] += 1
    options = dict(options)
    own = {name: options.pop(name) for name in ("reset_after", "nonlinearity") if name in options}
    dy, dstates = draw(T, B, P), [draw(B, P)] + ([draw(B, H)] if cell == "lstm" else [])
    if lengths is not None:
        lengths = np.asarray(lengths)
        padding = np.arange(T)[:, None] >= lengths
        arrays["x"][padding] = dy[padding] = np.nan
    call = own | {"lengths": lengths, "reverse": reverse}
    return SimpleNamespace(cell=cell, arrays=arrays, extra=extra, options=options, call=call, dy=dy, dstates=dstates)


def astype(p, dtype):
    def convert(arrays):
        return {name: a.astype(dtype) for name, a in arrays.items()}

    values = {"arrays": convert(p.arrays), "extra": convert(p.extra), "dy": p.dy.astype(dtype)}
    return SimpleNamespace(**vars(p) | values | {"dstates": [d.astype(dtype) for d in p.dstates]})


def forward(p, module=functional, save=True):
    function = getattr(module, f"{p.cell}_forward")
    *outputs, cache = function(**p.arrays, variant=Variant(**p.extra, **p.options), **p.call, save=save)
    return dict(zip(("y", "h_n", "c_n"), outputs, strict=False)), cache


def run(p, module=functional):
    """All outputs and all gradients by name."""
    outputs, cache = forward(p, module)
    grads = getattr(module, f"{p.cell}_backward")(cache, p.dy, *p.dstates)
    named = grads._asdict()
    of_variant = named.pop("variant")
    assert of_variant.keys() == p.extra.keys()
    return outputs | {f"d{name}": g for name, g in (named | of_variant).items()}


def numeric_gradients(p, module, step=1e-6):
    arriving = dict(zip(("y", "h_n", "c_n"), [np.nan_to_num(p.dy), *p.dstates], strict=False))

    def loss(arrays, extra):
        outputs, _ = forward(SimpleNamespace(**vars(p) | {"arrays": arrays, "extra": extra}), module, save=False)
        return sum(float(np.sum(arriving[name] * out)) for name, out in outputs.items())

    result = {}
    for group in (p.arrays, p.extra):
        for name, a in group.items():
            result[f"d{name}"] = gradient = np.empty_like(a)
            for index in np.ndindex(a.shape):
                values = []
                for sign in (1, -1):
                    moved = a.copy()
                    moved[index] += sign * step
                    changed = {**group, name: moved}
                    values.append(loss(*(changed if g is group else g for g in (p.arrays, p.extra))))
                gradient[index] = (values[0] - values[1]) / (2 * step)
    return result


@pytest.mark.parametrize(("lengths", "reverse"), [(None, False), ((3, 0, 2), True)], ids=["dense", "ragged reverse"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients_are_those_of_finite_differences(case, lengths, reverse):
    p = make(*case, 3, 3, 2, 4, 3, seed=1, lengths=lengths, reverse=reverse)
    results = run(p, reference)
    expected = numeric_gradients(p, reference)
    helpers.assert_close({name: results[name] for name in expected}, expected, 2e-7)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_each_activation_has_its_slope(act):
    p = make("gru", (), {"activations": ((act, 0.4, 0.3), act)}, 2, 2, 2, 3, 3, seed=2)
    for name in ("w_hh", "x"):
        p.arrays[name] *= 0.3  # nothing bounds some of them
    results, expected = run(p, reference), numeric_gradients(p, reference)
    helpers.assert_close({name: results[name] for name in expected}, expected, 1e-6)


def test_nothing_of_a_variant_is_the_plain_cell(variant, engine):
    """A variant that asks for nothing, against the code of the plain cells."""
    problem = helpers.make(variant, 5, 4, 3, 19, seed=3, lengths=True)
    with engine.active():
        outputs, cache = helpers.forward(problem, variant=Variant())
        grads = helpers.backward(problem, cache)
        assert grads.pop("dvariant") == {}
        helpers.assert_close(outputs | grads, helpers.run(problem), 1e-13)


TOLERANCE = {np.float32: 2e-4, np.float64: 1e-11}


@st.composite
def configurations(draw):
    cell = draw(st.sampled_from(list(GATES)))
    names = tuple(name for name in ARRAYS[cell] if draw(st.booleans()))
    spec = st.one_of(st.sampled_from(list(ACTIVATIONS)), st.tuples(st.sampled_from(list(ACTIVATIONS)), st.just(0.6)))
    options = {
        "clip": draw(st.sampled_from([None, 0.7, 3.0])),
        "zoneout": draw(st.sampled_from([0.0, 0.4, (0.3, 0.2)])) if cell == "lstm" else draw(st.sampled_from([0, 0.4])),
        "recurrent_dropout": draw(st.sampled_from([0.0, 0.4])),
        "input_dropout": draw(st.sampled_from([0.0, 0.4])),
        "training": draw(st.booleans()),
        "rng": draw(st.integers(0, 99)),
    }
    if draw(st.booleans()):
        options["activations"] = tuple(draw(spec) for _ in range({"rnn": 1, "lstm": 3, "gru": 2}[cell]))
    if cell == "lstm":
        options["coupled"] = draw(st.booleans())
    if cell == "gru":
        options["reset_after"] = draw(st.booleans())
    T, B, I = draw(st.integers(0, 4)), draw(st.integers(0, 5)), draw(st.integers(0, 3))
    H, P = draw(st.sampled_from([1, 3, 8, 17, 35])), draw(st.sampled_from([1, 2, 9, 20]))
    lengths = draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    marks = [draw(st.booleans()) and np.random.default_rng(draw(st.integers(0, 9))).random((T, B)) for _ in range(2)]
    seed, reverse = draw(st.integers(0, 99)), draw(st.booleans())
    p = make(cell, names, options, T, B, I, H, P, seed=seed, lengths=lengths, reverse=reverse)
    for name, random in zip(("mask", "reset"), marks, strict=True):
        p.call[name] = None if random is False else random < (0.7 if name == "mask" else 0.2)
    return p


@pytest.mark.parametrize("dtype", helpers.DTYPES)
@settings(max_examples=60)
@given(p=configurations())
def test_compiled_engines_agree_with_the_reference(compiled, dtype, p):
    # What jumps (a clip, a threshold) may do so on either side of a rounding error: compare at the same numbers.
    p = astype(p, dtype)
    jumps = "thresholded_relu" in str(p.options.get("activations"))
    if jumps and dtype is np.float32:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        expected = run(astype(p, np.float64), reference)
    if not all(np.abs(a).max(initial=0) < 1e4 for a in expected.values()):
        return  # it has run away, and rounding errors with it
    with compiled.active():
        results = run(p)
        inference, _ = forward(p, save=False)
        shown = forward(p)[1].gates()
    normalised = dtype is np.float32 and any("norm" in name for name in p.extra)
    tolerance = TOLERANCE[dtype] * (10 if normalised else 1)  # what varies little is blown up
    if p.options["clip"] is None or dtype is np.float64:
        helpers.assert_close(results, expected, tolerance)
    outputs = {name: results[name] for name in inference}
    helpers.assert_close(outputs, {name: expected[name] for name in inference}, tolerance)
    helpers.assert_same_bits(inference, outputs)
    helpers.assert_close(shown, forward(astype(p, np.float64), reference)[1].gates(), tolerance)


def test_c_of_all_steps_and_its_gradient(engine):
    names = ARRAYS["lstm"]
    p = make("lstm", names, {"zoneout": (0.2, 0.3), "rng": 1}, 4, 3, 2, 5, 3, seed=9, lengths=(4, 0, 2))
    dc = np.random.default_rng(1).standard_normal((4, 3, 5))

    def loss(w_ih):
        arrays = p.arrays | {"w_ih": w_ih}
        *_, c = reference.lstm_forward(
            **arrays, variant=Variant(**p.extra, **p.options), **p.call, return_cell_states=True
        )
        return float(np.sum(c * dc))

    with engine.active():
        *_, cache, c = functional.lstm_forward(
            **p.arrays, variant=Variant(**p.extra, **p.options), **p.call, return_cell_states=True
        )
        grads = functional.lstm_backward(cache, None, dc=dc)
    assert loss(p.arrays["w_ih"]) == pytest.approx(np.sum(c * dc), rel=1e-12)
    for index in ((0, 0), (7, 1), (13, 0), (19, 1)):
        moved = [p.arrays["w_ih"].copy() for _ in range(2)]
        for w, step in zip(moved, (1e-6, -1e-6), strict=True):
            w[index] += step
        assert grads.w_ih[index] == pytest.approx((loss(moved[0]) - loss(moved[1])) / 2e-6, abs=1e-7)


def test_threads_change_no_bit(compiled):
    p = make("lstm", ARRAYS["lstm"], {"zoneout": (0.2, 0.1), "rng": 1}, 40, 24, 8, 70, 50, np.float32, seed=4)
    results = []
    for threads in (1, 2):
        with compiled.active(), fastrnn.config_context(num_threads=threads):
            results.append(run(p))
    if compiled.name == "native":
        helpers.assert_same_bits(*results)
    else:
        helpers.assert_close(*results, 1e-4)


@pytest.mark.parametrize("cell", GATES)
def test_a_sequence_has_the_same_bits_in_any_batch(cell):
    names = ARRAYS[cell]
    p = make(
        cell, names, {"zoneout": 0.3, "training": False}, 6, 5, 3, 21, 10, np.float32, seed=5, lengths=(6, 2, 0, 5, 1)
    )
    with fastrnn.config_context(engine="native"):
        together, _ = forward(p)
        for b in range(5):
            one = {
                name: a[:, b : b + 1] if name == "x" else a[b : b + 1]
                for name, a in p.arrays.items()
                if name in ("x", "h0", "c0")
            }
            alone = SimpleNamespace(
                **vars(p) | {"arrays": p.arrays | one, "call": p.call | {"lengths": p.call["lengths"][b : b + 1]}}
            )
            outputs, _ = forward(alone)
            np.testing.assert_array_equal(outputs["y"][:, 0], together["y"][:, b])


def test_projection_is_that_of_torch():
    torch = pytest.importorskip("torch")
    T, B, I, H, P = 4, 3, 2, 7, 5
    theirs = torch.nn.LSTM(I, H, proj_size=P, dtype=torch.float64)
    p = make("lstm", ("w_hr",), {}, T, B, I, H, P, seed=6)
    names = {"w_ih": "weight_ih_l0", "w_hh": "weight_hh_l0", "b_ih": "bias_ih_l0", "b_hh": "bias_hh_l0"}
    theirs.load_state_dict(
        {n: torch.tensor(p.arrays[k]) for k, n in names.items()} | {"weight_hr_l0": torch.tensor(p.extra["w_hr"])}
    )
    x, h0, c0 = (torch.tensor(p.arrays[name], requires_grad=True) for name in ("x", "h0", "c0"))
    y, (h_n, c_n) = theirs(x, (h0[None], c0[None]))
    dy, dh, dc = map(torch.tensor, (p.dy, *p.dstates))
    ((y * dy).sum() + (h_n[0] * dh).sum() + (c_n[0] * dc).sum()).backward()
    expected = {"y": y, "h_n": h_n[0], "c_n": c_n[0], "dx": x.grad, "dh0": h0.grad, "dc0": c0.grad}
    expected |= {f"d{k}": getattr(theirs, n).grad for k, n in names.items()} | {"dw_hr": theirs.weight_hr_l0.grad}
    helpers.assert_close(run(p), {name: a.detach().numpy() for name, a in expected.items()}, 1e-12)


def test_layer_norm_is_that_of_torch():
    torch = pytest.importorskip("torch")
    norm, T = torch.nn.functional.layer_norm, 4
    p = make("lstm", ("norm_ih", "norm_hh", "norm_c", "norm_c_bias"), {}, T, 3, 2, 5, 5, seed=7)
    t = {name: torch.tensor(a, requires_grad=True) for name, a in (p.arrays | p.extra).items()}
    h, c, ys = t["h0"], t["c0"], []
    for step in t["x"]:
        a = norm(step @ t["w_ih"].T, (20,), t["norm_ih"], t["b_ih"]) + norm(
            h @ t["w_hh"].T, (20,), t["norm_hh"], t["b_hh"]
        )
        i, f, g, o = a.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * norm(c, (5,), t["norm_c"], t["norm_c_bias"]).tanh()
        ys.append(h)
    y = torch.stack(ys)
    dy, dh, dc = map(torch.tensor, (p.dy, *p.dstates))
    ((y * dy).sum() + (h * dh).sum() + (c * dc).sum()).backward()
    expected = {"y": y, "h_n": h, "c_n": c} | {f"d{name}": a.grad for name, a in t.items()}
    helpers.assert_close(run(p), {name: a.detach().numpy() for name, a in expected.items()}, 1e-12)


def test_zoneout_and_dropout_are_drawn_as_they_say():
    T, B, H = 200, 50, 20
    p = make("lstm", (), {"zoneout": (0.3, 0.1), "rng": 0}, T, B, 3, H, H, np.float32, seed=8)
    y = forward(p)[0]["y"]
    stayed = np.mean(y[1:] == y[:-1])
    assert abs(stayed - 0.3) < 0.01
    np.testing.assert_array_equal(y, forward(p)[0]["y"])  # the seed says all
    p.options |= {"zoneout": 0.0, "input_dropout": 0.25}
    p.arrays["x"][:] = 1
    p.arrays["w_ih"][:] = 1e6  # whoever sees any of x is at the end of its scale
    unseen = np.abs(forward(p)[0]["y"][9:]).max(axis=2) < 0.7
    assert (unseen == unseen[0]).all()  # at all steps or at none


def test_bad_variants():
    p = make("lstm", (), {}, 2, 2, 2, 3, 3)

    def error(kind, match, cell="lstm", **options):
        arrays = {name: a for name, a in p.arrays.items() if name != "c0" or cell == "lstm"}
        rows = 3 * GATES[cell]
        arrays |= {name: a[:rows] for name, a in arrays.items() if name[0] in "wb"}
        for module in (reference, functional):
            with pytest.raises(kind, match=match):
                getattr(module, f"{cell}_forward")(**arrays, variant=Variant(**options))

    error(ValueError, r"^clip: -1, expected a number above 0", clip=-1)
    error(ValueError, r"^zoneout: 1.5, expected a probability from 0 to 1", zoneout=1.5)
    error(ValueError, r"^recurrent_dropout: 1, expected a probability from 0 to below 1", recurrent_dropout=1)
    error(TypeError, r"^input_dropout: 'x', expected a probability", input_dropout="x")
    error(ValueError, r"^activations: 'swish', expected one of", activations=("sigmoid", "swish", "tanh"))
    error(ValueError, r"^activations: 2 of them, expected 3 for lstm", activations=("sigmoid", "tanh"))
    error(ValueError, r"^peepholes: shape \(3,\), expected \(3H,\) = \(9,\)", peepholes=np.zeros(3))
    error(ValueError, r"^w_hr: shape \(2, 2\), expected \(P, H\) with H = 3", w_hr=np.zeros((2, 2)))
    error(TypeError, r"^norm_ih: dtype float32, expected float64", norm_ih=np.zeros(12, np.float32))
    error(ValueError, r"^peepholes: a gru has none", cell="gru", peepholes=np.zeros(9))
    error(ValueError, r"^coupled: a rnn has no cell state", cell="rnn", coupled=True)
    error(ValueError, r"^zoneout: a gru has no cell state", cell="gru", zoneout=(0.1, 0.1))
    for module in (reference, functional):
        with pytest.raises(TypeError, match=r"^variant: dict, expected a fastrnn.Variant or None"):
            module.lstm_forward(**p.arrays, variant={})
    with pytest.raises(ValueError, match=r"^checkpoint: .* not together with a variant"):
        functional.lstm_forward(**p.arrays, variant=Variant(), checkpoint=2)
    assert dataclasses.fields(Variant)
