"""Arguments that are wrong are refused by name; arguments that are merely unusual work."""

import re
from dataclasses import replace

import helpers
import numpy as np
import pytest

import fastrnn
from fastrnn import functional, reference

T, B, I, H = 4, 3, 2, 5


@pytest.fixture(params=[functional, reference], ids=["functional", "reference"])
def module(request):
    return request.param


def problem_of(cell, **options):
    variant = next(v for v in helpers.VARIANTS if v.cell == cell)
    return helpers.make(variant, T, B, I, H, seed=1, **options)


def call(module, cell, **changes):
    arguments = {**problem_of(cell).arrays, **changes}
    return getattr(module, f"{cell}_forward")(**arguments)


def starts_with(*words):
    """A pattern for a message that begins with the argument's name and goes on with these words in this order."""
    return "^" + ".*".join(re.escape(word) for word in words)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_wrong_shapes(module, cell):
    rows = helpers.GATES[cell] * H
    shapes = {
        "x": [(B, I), (T, B, I, 1), ()],
        "h0": [(H, B), (1, B, H), (B + 1, H), (B, H + 1), (H,)],
        "w_ih": [(I, rows), (rows + 1, I), (rows, I + 1), (rows * I,)],
        "w_hh": [(H, rows + 1), (rows + H, H), (rows - 1, H), (rows * H,), (0, 0), (rows, H, 1)],
        "b_ih": [(rows + 1,), (1, rows), (rows, 1), ()],
        "b_hh": [(rows - 1,), (1, rows), (rows, 1), ()],
    }
    if cell == "lstm":
        shapes["c0"] = shapes["h0"]
    for name, wrong in shapes.items():
        for shape in wrong:
            with pytest.raises(ValueError, match=starts_with(f"{name}: shape {shape}, expected ")):
                call(module, cell, **{name: np.zeros(shape)})


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_transposed_weights_are_recognised(module, cell):
    arrays = problem_of(cell).arrays
    with pytest.raises(ValueError, match=starts_with("w_ih: ", "transposed?")):
        call(module, cell, w_ih=arrays["w_ih"].T)
    with pytest.raises(ValueError, match=starts_with("w_hh: ")):
        call(module, cell, w_hh=arrays["w_hh"].T)


@pytest.mark.parametrize(("cell", "other"), [("rnn", "lstm"), ("lstm", "gru"), ("gru", "lstm"), ("gru", "rnn")])
def test_weights_of_another_cell(module, cell, other):
    with pytest.raises(ValueError, match=starts_with("w_hh: ")):
        call(module, cell, w_hh=problem_of(other).arrays["w_hh"])


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_wrong_dtypes(module, cell):
    for name, array in problem_of(cell).arrays.items():
        for dtype in (np.float32, np.float16, np.int64, np.complex128, bool, object):
            if name == "x" and dtype is np.float32:
                continue  # x decides: see below
            with pytest.raises(TypeError, match=starts_with(f"{name}: dtype {np.dtype(dtype)}, expected float")):
                call(module, cell, **{name: array.astype(dtype)})


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_x_decides_the_dtype(module, cell):
    with pytest.raises(TypeError, match=starts_with("w_hh: dtype float64, expected float32, that of x")):
        call(module, cell, x=problem_of(cell).arrays["x"].astype(np.float32))


@pytest.mark.parametrize("value", [None, "text", [[[1.0], [1.0, 2.0]]], [[[1]]], {}])
def test_what_is_no_array(module, value):
    for name in ("x", "w_ih", "w_hh"):
        with pytest.raises((TypeError, ValueError), match=starts_with(f"{name}: ")):
            call(module, "gru", **{name: value})


@pytest.mark.parametrize(
    ("lengths", "error"),
    [
        ([1, 2, T + 1], ValueError),
        ([-1, 2, 3], ValueError),
        (np.array([1, 2, 2**63 + 1], np.uint64), ValueError),
        ([1, 2], ValueError),
        ([1, 2, 3, 4], ValueError),
        ([[1, 2, 3]], ValueError),
        (2, ValueError),
        ("abc", ValueError),
        ([1.0, 2.0, 3.0], TypeError),
        ([True, False, True], TypeError),
        (["1", "2", "3"], TypeError),
        ([1, None, 3], TypeError),
        ([[1], [2, 3], []], ValueError),
    ],
    ids=str,
)
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_wrong_lengths(module, cell, lengths, error):
    with pytest.raises(error, match=starts_with("lengths: ")):
        call(module, cell, lengths=lengths)


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "TANH", "", None, 1])
def test_unknown_nonlinearity(module, nonlinearity):
    with pytest.raises(ValueError, match=starts_with("nonlinearity: ", "'tanh'", "'relu'")):
        call(module, "rnn", nonlinearity=nonlinearity)


def test_options_are_keywords(module):
    with pytest.raises(TypeError, match="positional argument"):
        module.gru_forward(*problem_of("gru").arrays.values(), False)


def test_sizes_that_a_blas_cannot_count(module):
    """Arrays of no elements, so that they cost nothing."""
    huge = 2**31
    with pytest.raises(ValueError, match=starts_with("x", "T*B")):
        call(module, "rnn", x=np.empty((huge, 1, 0)), h0=None, w_ih=np.empty((H, 0)))
    with pytest.raises(ValueError, match=starts_with("x", "I = ")):
        call(module, "rnn", x=np.empty((0, B, huge)), w_ih=np.empty((0, huge)))


# --- backward ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_wrong_caches(module, cell):
    backward = getattr(module, f"{cell}_backward")
    problem = problem_of(cell)
    with pytest.raises(TypeError, match=starts_with("cache: NoneType", "save=False")):
        backward(helpers.forward(problem, module, save=False)[1], problem.dy)
    for wrong in ("cache", 1, (), np.zeros(3), object()):
        with pytest.raises(TypeError, match=starts_with("cache: ", f"expected the cache that {cell}_forward returned")):
            backward(wrong, problem.dy)
    other = "gru" if cell == "lstm" else "lstm"
    cache_of_other = helpers.forward(problem_of(other), module)[1]
    with pytest.raises(ValueError, match=starts_with("cache: it is of", other, cell)):
        backward(cache_of_other, problem.dy)
    assert not cache_of_other.used

    _, cache = helpers.forward(problem, module)
    helpers.backward(problem, cache, module)
    assert cache.used
    with pytest.raises(ValueError, match=starts_with("cache: ", "used")):
        backward(cache, problem.dy)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_cache_of_the_other_module(cell):
    """Either it works, as it does where `functional` gets one of `reference`, or the message says what is wrong."""
    problem = problem_of(cell)
    expected = helpers.run(problem, reference)
    _, cache = helpers.forward(problem, reference)
    grads = helpers.backward(problem, cache, functional)
    helpers.assert_same_bits(grads, {name: expected[name] for name in grads})
    with fastrnn.config_context(engine="blas"):
        _, cache = helpers.forward(problem, functional)
    try:
        grads = helpers.backward(problem, cache, reference)
    except (TypeError, ValueError) as error:
        assert str(error).startswith("cache: ")  # noqa: PT017  (no error is fine as well)
        assert not cache.used
    else:
        helpers.assert_close(grads, {name: expected[name] for name in grads}, 1e-12)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_rejected_backward_leaves_the_cache_usable(module, cell):
    problem = problem_of(cell, lengths=(2, 0, 4))
    _, cache = helpers.forward(problem, module)
    backward = getattr(module, f"{cell}_backward")
    wrong = {
        "dy": [np.zeros((B, T, H)), np.zeros((T, B)), np.zeros((T, B, H), np.float32), np.zeros((T, B, H), int), "dy"]
    }
    for name in problem.dstates:
        wrong[name] = [np.zeros((H, B)), np.zeros((1, B, H)), np.zeros((B, H), np.float32), [[1.0], [1.0, 2.0]]]
    for name, values in wrong.items():
        for value in values:
            with pytest.raises((TypeError, ValueError), match=starts_with(f"{name}: ")):
                backward(cache, **{"dy": problem.dy, **problem.dstates, name: value})
            assert not cache.used
    grads = helpers.backward(problem, cache, module)
    expected = helpers.run(problem, module)
    helpers.assert_same_bits(grads, {name: expected[name] for name in grads})


def test_the_cache_says_what_it_is(module):
    problem = problem_of("lstm")
    _, cache = helpers.forward(problem, module)
    assert repr(cache).startswith("<lstm cache of y (4, 3, 5) float64, engine ")
    assert repr(cache).endswith("unused>")
    helpers.backward(problem, cache, module)
    assert repr(cache).endswith(", used>")


def test_y_is_read_only_while_backward_may_read_it(module, variant, ragged):
    problem = helpers.make(variant, T, B, I, H, lengths=ragged)
    outputs, _ = helpers.forward(problem, module)
    with pytest.raises(ValueError, match="read-only"):
        outputs["y"][0, 0, 0] = 1
    outputs["h_n"][0, 0] = 1
    outputs, _ = helpers.forward(problem, module, save=False)
    outputs["y"][0, 0, 0] = 1


# --- unusual, and right -----------------------------------------------------------------------------------------------


def every_other(a):
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan, a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def backwards(a):
    return a[::-1].copy()[::-1]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def swapped_bytes(a):
    return a.astype(a.dtype.newbyteorder())


def broadcast(a):
    """Stride 0 along the first axis, where all is the same."""
    return np.broadcast_to(a[:1], a.shape)


LAYOUTS = {
    "every other element": every_other,
    "backwards": backwards,
    "read-only": read_only,
    "swapped bytes": swapped_bytes,
    "unaligned": lambda a: helpers.shifted(a, 1),
    "not at a vector": lambda a: helpers.shifted(a, a.itemsize),
    "Fortran order": np.asfortranarray,
    "transposed twice": lambda a: np.ascontiguousarray(a.T).T,
    "subclass": lambda a: a.view(np.memmap),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("sizes", [(T, B, I, H), (1, 1, 3, 1), (2, 1, 1, 4), (1, 4, 2, 3)], ids=str)
def test_any_layout(module, variant, dtype, sizes, layout):
    problem = helpers.make(variant, *sizes, dtype, seed=2)
    unusual = replace(
        problem,
        arrays={name: layout(a) for name, a in problem.arrays.items()},
        dy=layout(problem.dy),
        dstates={name: layout(a) for name, a in problem.dstates.items()},
    )
    helpers.assert_same_bits(helpers.run(unusual, module), helpers.run(problem, module))


def test_a_state_or_gradient_for_all(module, variant):
    problem = helpers.make(variant, T, B, I, H, seed=3)
    names = [name for name in ("x", "h0", "c0") if name in problem.arrays]
    same = replace(
        problem.with_arrays(**{name: broadcast(problem.arrays[name]) for name in names}), dy=broadcast(problem.dy)
    )
    copied = replace(same.with_arrays(**{name: same.arrays[name].copy() for name in names}), dy=same.dy.copy())
    helpers.assert_same_bits(helpers.run(same, module), helpers.run(copied, module))


def test_lists_are_float64(module, variant):
    problem = helpers.make(variant, T, B, I, H, seed=4, lengths=[2, 0, 4])
    problem = replace(problem.with_arrays(x=np.nan_to_num(problem.arrays["x"])), dy=np.nan_to_num(problem.dy))
    lists = replace(
        problem,
        arrays={name: a.tolist() for name, a in problem.arrays.items()},
        dy=problem.dy.tolist(),
        dstates={name: a.tolist() for name, a in problem.dstates.items()},
        lengths=[2, 0, 4],
    )
    results = helpers.run(lists, module)
    assert {a.dtype for a in results.values()} == {np.dtype(np.float64)}
    helpers.assert_same_bits(results, helpers.run(problem, module))


@pytest.mark.parametrize("sizes", [(0, 3, 2, 4), (3, 0, 2, 4), (0, 0, 0, 1), (3, 2, 0, 1)], ids=str)
def test_nothing_to_do(module, variant, dtype, sizes, ragged):
    """No steps, no sequences, no inputs: empty or constant results of the right shapes, and zero gradients."""
    steps, batch, inputs, hidden = sizes
    problem = helpers.make(variant, *sizes, dtype, seed=5, lengths=ragged)
    results = helpers.run(problem, module)
    assert results["y"].shape == (steps, batch, hidden)
    assert results["dx"].shape == (steps, batch, inputs)
    for name, a in problem.arrays.items():
        assert results[f"d{name}"].shape == a.shape
    if steps * batch == 0:
        assert not any(results[f"d{name}"].any() for name in ("w_ih", "w_hh", "b_ih", "b_hh"))
        np.testing.assert_array_equal(results["h_n"], problem.arrays["h0"])


def test_lengths_of_any_integer_type(module, variant):
    problem = helpers.make(variant, T, B, I, H, seed=6, lengths=[2, 0, 4])
    expected = helpers.run(problem, module)
    for lengths in (np.array([2, 0, 4], np.uint8), np.array([2, 9, 0, 9, 4], ">i4")[::2], (2, 0, 4)):
        helpers.assert_same_bits(helpers.run(replace(problem, lengths=lengths), module), expected)
