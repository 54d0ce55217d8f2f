"""The functions of JAX against the reference, finite differences, and what JAX's transformations mean."""

import subprocess
import sys
from dataclasses import replace

import helpers
import numpy as np
import pytest

import fastrnn
from fastrnn import reference

jax = pytest.importorskip("jax", reason="JAX is not installed")
import jax.numpy as jnp  # noqa: E402
from jax.extend.core import jaxprs_in_params  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

from fastrnn.interop import jax as kernels  # noqa: E402

SIZES = (5, 3, 4, 7)  # T, B, I, H
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
GRU = helpers.Variant("gru", "reset_after", True)
LSTM = helpers.Variant("lstm")


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


def function(problem, **options):
    """The function of a problem's cell, of its arrays."""
    options = {
        **problem.variant.options,
        "reverse": problem.reverse,
        "mask": problem.mask,
        "reset": problem.reset,
    } | options
    options.setdefault("lengths", problem.lengths)
    return lambda arrays: getattr(kernels, problem.variant.cell)(**arrays, **options)


def named(outputs, grads):
    """As `helpers.run` has them."""
    results = dict(zip(("y", "h_n", "c_n"), outputs, strict=False))
    results |= {f"d{name}": grad for name, grad in grads.items() if grad is not None}
    return {name: np.asarray(result) for name, result in results.items()}


def run(problem, call):
    outputs, transposed = jax.vjp(call, problem.arrays)
    arriving = (np.nan_to_num(problem.dy), *problem.dstates.values())
    return named(outputs, transposed(tuple(map(jnp.asarray, arriving)))[0])


def loss(problem, **options):
    """A number that depends on every output, of the arrays."""
    weights = [np.nan_to_num(problem.dy), *problem.dstates.values()]
    call = function(problem, **options)
    return lambda arrays: sum((jnp.sin(a) * w).sum() for a, w in zip(call(arrays), weights, strict=True))


def calls(f, *arguments):
    """How often each primitive is in a traced function, loops counted once, with the parameters of the last."""
    found = {}

    def look(jaxpr):
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            found[name] = (found.get(name, (0,))[0] + 1, equation.params)
            for inner in jaxprs_in_params(equation.params):
                look(inner)

    look(jax.make_jaxpr(f)(*arguments).jaxpr)
    return {name.removeprefix("fastrnn_"): count for name, count in found.items() if name.startswith("fastrnn_")}, found


@pytest.fixture(params=[helpers.Engine(name) for name in ("reference", "native")], ids=str)
def engine(request):
    """One that keeps what backward needs, and the one that does not; what they compute with is tested elsewhere."""
    return request.param


# --- values and gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "ragged", "reverse"), [(np.float64, None, False), (np.float64, True, True), (np.float32, True, False)]
)
def test_as_the_reference(engine, variant, dtype, ragged, reverse):
    problem = helpers.make(variant, *SIZES, dtype, lengths=ragged, reverse=reverse)
    with engine.active():
        result = run(problem, jax.jit(function(problem)))
    assert result["y"].dtype == dtype
    helpers.assert_close(result, helpers.run(problem.astype(np.float64), reference), TOLERANCE[dtype])


@pytest.mark.parametrize("biases", [(), ("b_ih",), ("b_hh",)], ids=str)
def test_biases_that_are_not_there(variant, biases):
    problem = helpers.make(variant, *SIZES, biases=biases)
    helpers.assert_close(run(problem, function(problem)), helpers.run(problem, reference), 1e-12)


def test_masks_and_resets(variant, reverse):
    rng = np.random.default_rng(1)
    T, B, *_ = SIZES
    problem = helpers.make(variant, *SIZES, lengths=[5, 3, 4], reverse=reverse)
    problem = replace(problem, mask=rng.random((T, B)) < 0.7, reset=rng.random((T, B)) < 0.3)
    helpers.assert_close(run(problem, jax.jit(function(problem))), helpers.run(problem, reference), 1e-12)


@pytest.mark.parametrize("sizes", [(0, 3, 4, 7), (5, 0, 4, 7), (5, 3, 0, 7), (1, 1, 1, 1), (0, 0, 1, 2)], ids=str)
def test_nothing_and_one(variant, sizes):
    problem = helpers.make(variant, *sizes)
    helpers.assert_close(run(problem, jax.jit(function(problem))), helpers.run(problem, reference), 1e-12)


def test_no_state_is_zeros(variant):
    problem = helpers.make(variant, *SIZES)
    states = {name: None for name in problem.arrays if name in ("h0", "c0")}
    zeros = problem.with_arrays(**{name: np.zeros_like(problem.arrays[name]) for name in states})
    for got, wanted in zip(function(problem)({**problem.arrays, **states}), helpers.run(zeros).values(), strict=False):
        np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_finite_differences(variant, ragged):
    problem = helpers.make(variant, 4, 2, 3, 3, lengths=ragged, seed=3)
    arrays = {name: np.nan_to_num(a) for name, a in problem.arrays.items()}
    check_grads(jax.jit(loss(problem)), (arrays,), order=1, modes="rev", atol=1e-6, rtol=1e-6)


def test_lengths_may_be_unknown_when_a_function_is_traced():
    problem = helpers.make(LSTM, *SIZES)
    f = jax.jit(jax.grad(lambda arrays, lengths: loss(problem, lengths=lengths)(arrays)))
    for lengths in (np.array([5, 0, 2]), np.array([1, 5, 4])):
        wanted = jax.jit(jax.grad(loss(problem, lengths=lengths)))(problem.arrays)
        helpers.assert_close(f(problem.arrays, lengths), wanted, 1e-12)
    assert f._cache_size() == 1


def test_only_what_is_needed_is_computed():
    problem = helpers.make(LSTM, *SIZES)

    def of_x(x):
        return loss(problem)({**problem.arrays, "x": x})

    counts, found = calls(jax.grad(of_x), problem.arrays["x"])
    assert counts["back"][0] == counts["keep"][0] == 1
    assert found["fastrnn_back"][1]["need"] == ("x",)
    grads = jax.grad(loss(problem))(problem.arrays)
    np.testing.assert_allclose(jax.grad(of_x)(problem.arrays["x"]), grads["x"], atol=1e-12)


def test_a_gradient_twice_and_none_of_a_result_that_is_not_used(engine):
    problem = helpers.make(GRU, *SIZES)
    with engine.active():
        (_, h_n), transposed = jax.vjp(function(problem), problem.arrays)
        zeros, d = jnp.zeros(problem.dy.shape), jnp.ones(h_n.shape)
        first, second = transposed((zeros, d)), transposed((zeros, d))
        helpers.assert_same_bits(*(jax.tree.map(np.asarray, g[0]) for g in (first, second)))
        alone = jax.grad(lambda arrays: function(problem)(arrays)[1].sum())(problem.arrays)
    helpers.assert_close(alone, first[0], 1e-12)


def test_inputs_are_left_alone(engine, variant):
    problem = helpers.make(variant, *SIZES)
    arrays = {name: jnp.array(a) for name, a in problem.arrays.items()}
    with engine.active():
        results, transposed = jax.vjp(function(problem), arrays)
        before = [np.array(a) for a in jax.tree.leaves((arrays, results))]
        transposed(results)
    for was, leaf in zip(before, jax.tree.leaves((arrays, results)), strict=True):
        assert np.array_equal(was, leaf)


# --- vmap ------------------------------------------------------------------------------------------------------------

V = 3


def mapped(problem, names, seed=5):
    """The arrays, those of these names with one more axis in front."""
    rng = np.random.default_rng(seed)
    arrays = {k: rng.standard_normal((V, *a.shape)) if k in names else a for k, a in problem.arrays.items()}
    return arrays, {name: 0 if name in names else None for name in arrays}


def one_by_one(f, arrays, names):
    results = [f({k: a[v] if k in names else a for k, a in arrays.items()}) for v in range(V)]
    return jax.tree.map(lambda *parts: np.stack(parts), *results)


@pytest.mark.parametrize(
    ("variant", "names", "ragged"),
    [(LSTM, ("x", "h0"), True), (LSTM, ("x", "w_hh"), None), (GRU, ("h0",), True), (GRU, ("x", "b_ih"), True)],
    ids=str,
)
def test_vmap(variant, names, ragged):
    problem = helpers.make(variant, *SIZES, lengths=ragged)
    problem = problem.with_arrays(x=np.nan_to_num(problem.arrays["x"]))
    arrays, axes = mapped(problem, names)
    for f in map(jax.jit, (function(problem), jax.grad(loss(problem)))):
        got, wanted = jax.vmap(f, (axes,))(arrays), one_by_one(f, arrays, names)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-11)


def test_vmap_is_one_batch_if_weights_are_not_mapped():
    problem = helpers.make(LSTM, *SIZES)
    arrays, axes = mapped(problem, ("x",))

    def total(arrays):
        return jax.vmap(loss(problem), (axes,))(arrays).sum()

    counts, found = calls(jax.grad(total), arrays)
    assert {name: count for name, (count, _) in counts.items()} == {"keep": 1, "back": 1}
    assert "scan" not in found
    grads, wanted = jax.jit(jax.grad(total))(arrays), one_by_one(jax.jit(jax.grad(loss(problem))), arrays, ("x",))
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, wanted[name] if name == "x" else wanted[name].sum(0), atol=1e-11)


def test_vmap_over_other_axes_and_twice():
    problem = helpers.make(GRU, *SIZES)
    x = np.random.default_rng(2).standard_normal((5, 2, 3, 4, 4))  # T, two, B, I, four

    def y(x, lengths):
        return function(problem, lengths=lengths)({**problem.arrays, "x": x})[0]

    lengths = np.array([[5, 3, 1], [0, 2, 4]])
    got = jax.vmap(jax.vmap(y, (3, None), 1), (1, 0), 2)(x, lengths)
    for i in range(2):
        for j in range(4):
            np.testing.assert_allclose(got[:, j, i], y(x[:, i, :, :, j], lengths[i]), atol=1e-12)


def test_vmap_over_nothing():
    problem = helpers.make(GRU, *SIZES)
    y, h_n = jax.vmap(lambda x: function(problem)({**problem.arrays, "x": x}))(
        jnp.zeros((0, *problem.arrays["x"].shape))
    )
    assert y.shape == (0, 5, 3, 7)
    assert h_n.shape == (0, 3, 7)


def test_jacobian():
    problem = helpers.make(GRU, 3, 2, 2, 3)

    def h_n(w_hh):
        return function(problem)({**problem.arrays, "w_hh": w_hh})[1]

    h_n = jax.jit(h_n)
    w, step = problem.arrays["w_hh"], 1e-6
    jacobian = jax.jit(jax.jacrev(h_n))(w)
    for i, j in ((0, 0), (2, 1)):
        d = np.zeros_like(w)
        d[i, j] = step
        np.testing.assert_allclose(jacobian[..., i, j], (h_n(w + d) - h_n(w - d)) / (2 * step), atol=1e-8)


def test_a_linear_function_may_be_mapped():
    problem = helpers.make(GRU, *SIZES)
    x, w = problem.arrays["x"], problem.arrays["w_ih"]
    d = np.random.default_rng(4).standard_normal((V, 5, 3, 7))
    for name, at in (("x", x), ("w_ih", w)):
        _, linear = jax.linearize(lambda a, name=name: function(problem)({**problem.arrays, name: a})[0], at)
        (got,) = jax.linear_transpose(jax.vmap(linear), np.zeros((V, *at.shape)))(d)
        (wanted,) = jax.linear_transpose(linear, at)(d[1])
        np.testing.assert_allclose(got[1], wanted, atol=1e-12)


# --- other transformations -------------------------------------------------------------------------------------------


def test_in_a_scan_and_with_remat():
    problem = helpers.make(LSTM, *SIZES)
    arrays = problem.arrays
    weights = {name: a for name, a in arrays.items() if name[0] in "wb"}

    def chunked(x, weights, wrap):
        def step(state, part):
            y, *state = kernels.lstm(part, *state, **weights)
            return tuple(state), y

        _, y = jax.lax.scan(wrap(step), (arrays["h0"], arrays["c0"]), x[:, None])
        return jnp.square(y).sum()

    def whole(x, weights):
        return jnp.square(kernels.lstm(x, arrays["h0"], arrays["c0"], **weights)[0]).sum()

    wanted = jax.jit(jax.grad(whole, (0, 1)))(arrays["x"], weights)
    for wrap in (lambda f: f, jax.checkpoint):
        got = jax.jit(jax.grad(chunked, (0, 1)), static_argnums=2)(arrays["x"], weights, wrap)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-11)


def test_float32_where_x64_is_off():
    problem = helpers.make(LSTM, *SIZES)
    with jax.enable_x64(False):
        y, _, _ = jax.jit(function(problem))(problem.arrays)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, helpers.run(problem)["y"], atol=1e-5)


def test_settings_are_those_where_a_function_is_traced(monkeypatch):
    seen = []
    original = fastrnn.functional.gru_forward

    def spy(*arguments, **options):
        config = fastrnn.get_config()
        seen.append((config["engine"], config["num_threads"]))
        return original(*arguments, **options)

    monkeypatch.setattr(fastrnn.functional, "gru_forward", spy)
    problem = helpers.make(GRU, *SIZES)
    f = jax.jit(function(problem))
    with fastrnn.config_context(engine="blas", num_threads=1):
        f(problem.arrays)
    jax.block_until_ready(f(problem.arrays))
    assert seen == [("blas", 1)] * 2


def test_a_training_loop_learns():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 16, 2)).astype(np.float32)
    target = x[..., 0].sum(0) > 0
    params = dict(fastrnn.GRU(2, 12, rng=0).params) | {"head": rng.standard_normal(12).astype(np.float32) / 4}

    @jax.jit
    @jax.value_and_grad
    def of_batch(p):
        _, h = kernels.gru(x, None, *(p[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")))
        return jnp.log1p(jnp.exp(-jnp.where(target, 1, -1) * (h @ p["head"]))).mean()

    losses = []
    for _ in range(200):
        value, grads = of_batch(params)
        losses.append(float(value))
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, grads)
    assert losses[0] > 0.6
    assert losses[-1] < 0.1


def test_several_devices():
    """With arrays cut by `jit`, `pmap` and `shard_map`, whose own tracking of what varies would lose gradients."""
    code = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import numpy as np
import jax, jax.numpy as jnp, fastrnn
from fastrnn.interop import jax as kernels
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
w = [jnp.asarray(a) for a in fastrnn.GRU(3, 4, rng=0).params.values()]
x = jnp.asarray(np.random.default_rng(0).standard_normal((5, 6, 3)), jnp.float32)
mesh, cut = Mesh(np.array(jax.devices()), ("d",)), P(None, "d")

def f(w, x):
    return kernels.gru(x, None, *w)[0]

def grads(f):
    return jax.jit(jax.grad(lambda w, x: jnp.sin(f(w, x)).sum(), (0, 1)))

def over(**options):
    return jax.shard_map(f, mesh=mesh, in_specs=(P(), cut), out_specs=cut, **options)

wanted = grads(f)(w, x)
sharded = jax.device_put(x, NamedSharding(mesh, cut))
halves = jax.pmap(grads(f), in_axes=(None, 1), out_axes=(0, 1))(w, x.reshape(5, 2, 3, 3))
summed = [part.sum(0) for part in halves[0]], halves[1].reshape(x.shape)
for got in (grads(f)(w, sharded), grads(over(check_vma=False))(w, sharded), summed):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
try:
    over()(w, x)
except NotImplementedError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "shard_map with check_vma=True, expected check_vma=False" in done.stdout, done.stderr


def test_large_arrays_and_one_cpu_do_not_wait_for_one_another():
    code = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
import jax, jax.numpy as jnp, fastrnn
from fastrnn.interop import jax as kernels
w = [jnp.asarray(a) for a in fastrnn.LSTM(512, 64, rng=0).params.values()]
x = jnp.ones((64, 32, 512))
f = jax.jit(jax.grad(lambda x: kernels.lstm(x, None, None, *w)[0].sum()))
for _ in range(3):
    x = x + f(x)
print(x.shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "(64, 32, 512)", done.stderr


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("x", np.zeros((5, 3)), ValueError, r"x: shape \(5, 3\), expected 3 dimensions"),
        ("x", np.zeros((5, 3, 4), int), TypeError, "x: dtype int64, expected float32 or float64"),
        ("x", "text", TypeError, "x: not an array"),
        ("h0", np.zeros((7, 3)), ValueError, r"h0: shape \(7, 3\), expected \(B, H\) = \(3, 7\)"),
        ("h0", np.zeros((3, 7), np.float32), TypeError, "h0: dtype float32, expected float64, that of x"),
        ("w_ih", np.zeros((21, 5)), ValueError, r"w_ih: shape \(21, 5\), expected \(3H, I\) = \(21, 4\)"),
        ("w_hh", np.zeros((7, 7)), ValueError, r"w_hh: shape \(7, 7\), expected \(3H, H\)"),
        ("b_hh", np.zeros(7), ValueError, r"b_hh: shape \(7,\), expected \(3H,\) = \(21,\)"),
        ("lengths", np.array([1, 2]), ValueError, r"lengths: shape \(2,\), expected \(B,\) = \(3,\)"),
        ("lengths", np.ones(3), TypeError, "lengths: dtype float64, expected integers"),
        ("lengths", np.array([1, 6, 2]), ValueError, "lengths: values from 1 to 6, expected 0 to T = 5"),
        ("mask", np.ones((5, 3)), TypeError, "mask: dtype float64, expected bool"),
        ("reset", np.ones((3, 5), bool), ValueError, r"reset: shape \(3, 5\), expected \(T, B\) = \(5, 3\)"),
    ],
)
def test_bad_input_is_named(name, value, error, message):
    arrays = helpers.make(GRU, *SIZES).arrays
    with pytest.raises(error, match=message):
        kernels.gru(**{**arrays, name: value})


def test_bad_values_under_jit_are_named_at_run_time():
    problem = helpers.make(GRU, *SIZES)
    f = jax.jit(lambda lengths: function(problem, lengths=lengths)(problem.arrays))
    with pytest.raises(jax.errors.JaxRuntimeError, match="lengths: values from 1 to 6, expected 0 to T = 5"):
        jax.block_until_ready(f(jnp.array([1, 6, 2])))


def test_lengths_that_no_int32_holds_are_out_of_range():
    problem = helpers.make(GRU, *SIZES)
    f = jax.jit(lambda lengths: function(problem, lengths=lengths)(problem.arrays))
    with pytest.raises(jax.errors.JaxRuntimeError, match="lengths: values from 1 to 4294967297, expected 0 to T = 5"):
        jax.block_until_ready(f(jnp.array([1, 2**32 + 1, 2])))


def test_no_lengths_of_no_sequences():
    problem = helpers.make(GRU, 5, 0, 4, 7)
    assert function(problem, lengths=[])(problem.arrays)[0].shape == (5, 0, 7)


def test_derivatives_that_there_are_not():
    problem = helpers.make(GRU, *SIZES)
    one = jax.tree.map(jnp.ones_like, problem.arrays)
    with pytest.raises(NotImplementedError, match="forward mode"):
        jax.jvp(loss(problem), (problem.arrays,), (one,))
    with pytest.raises(NotImplementedError, match="forward mode"):
        jax.jit(lambda a: jax.jvp(loss(problem), (a,), (one,)))(problem.arrays)
    with pytest.raises(NotImplementedError, match="derivatives of derivatives"):
        jax.grad(lambda a: jax.grad(loss(problem))(a)["x"].sum())(problem.arrays)


def test_unknown_nonlinearity():
    with pytest.raises(ValueError, match="nonlinearity: 'sigmoid', expected one of 'tanh', 'relu'"):
        kernels.rnn(np.zeros((1, 1, 1)), None, np.zeros((1, 1)), np.zeros((1, 1)), nonlinearity="sigmoid")
