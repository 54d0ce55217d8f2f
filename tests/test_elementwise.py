"""IndRNN, minGRU, minLSTM: the reference by finite differences, the engines by the reference."""

import tracemalloc
from functools import cache
from typing import NamedTuple

import helpers
import numpy as np
import pytest

import fastrnn
from fastrnn import _compiled, _sharing, functional, reference

GATES = {"indrnn": 1, "mingru": 2, "minlstm": 3}
LAYERS = {"indrnn": fastrnn.IndRNN, "mingru": fastrnn.MinGRU, "minlstm": fastrnn.MinLSTM}
# As in test_parity.py: a wrong formula is off by far more.
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}


class Kind(NamedTuple):
    cell: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self):
        return "-".join((self.cell, *(value for _, value in self.options)))

    def but(self, **options):
        return Kind(self.cell, tuple((dict(self.options) | options).items()))


LINEAR = tuple(
    Kind(cell, (("candidate", candidate), ("scan", scan)))
    for cell in ("mingru", "minlstm")
    for candidate in ("linear", "positive")
    for scan in ("sequential", "parallel")
)
KINDS = (Kind("indrnn", (("nonlinearity", "relu"),)), Kind("indrnn", (("nonlinearity", "tanh"),)), *LINEAR)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
every_linear_kind = pytest.mark.parametrize("kind", LINEAR, ids=str)


class Problem(NamedTuple):
    kind: Kind
    arrays: dict  # x, h0, w_ih, (u,) b, in the order of the signature
    dy: np.ndarray
    dh_n: np.ndarray
    lengths: np.ndarray | None
    reverse: bool
    mask: np.ndarray | None = None
    reset: np.ndarray | None = None

    def astype(self, dtype):
        arrays = {name: None if a is None else a.astype(dtype) for name, a in self.arrays.items()}
        return self._replace(arrays=arrays, dy=self.dy.astype(dtype), dh_n=self.dh_n.astype(dtype))

    def but(self, **arrays):
        return self._replace(arrays=self.arrays | arrays)

    @property
    def valid(self):
        """Where sequences run (T, B)."""
        T, B, _ = self.dy.shape
        inside = np.ones((T, B), bool) if self.lengths is None else np.arange(T)[:, None] < self.lengths
        return inside if self.mask is None else inside & self.mask


def make(kind, T, B, I, H, seed=0, ragged=None, reverse=False):
    """As `helpers.make`, whose `lengths` is `ragged` here: states not zero, and NaN where sequences have ended."""
    rng = np.random.default_rng(seed)
    rows = GATES[kind.cell] * H
    arrays = {"x": rng.standard_normal((T, B, I)), "h0": rng.standard_normal((B, H))}
    arrays["w_ih"] = rng.standard_normal((rows, I)) / max(1, I) ** 0.5
    if kind.cell == "indrnn":
        arrays["u"] = rng.uniform(-0.9, 0.9, H)
    arrays["b"] = rng.standard_normal(rows)
    dy = rng.standard_normal((T, B, H))
    lengths = helpers.random_lengths(rng, T, B) if ragged is True else ragged
    if lengths is not None:
        padding = np.arange(T)[:, None] >= lengths
        arrays["x"][padding] = dy[padding] = np.nan
    return Problem(kind, arrays, dy, rng.standard_normal((B, H)), lengths, reverse)


def marked(problem, mask=True, reset=True, often=0.2, seed=0):
    """`problem` with a random mask and random resets, and NaN wherever a step is skipped."""
    rng = np.random.default_rng(seed)
    shape = problem.dy.shape[:2]
    mask, reset = rng.random(shape) < 0.7 if mask else None, rng.random(shape) < often if reset else None
    problem = problem._replace(mask=mask, reset=reset)
    x, dy = problem.arrays["x"].copy(), problem.dy.copy()
    x[~problem.valid] = dy[~problem.valid] = np.nan
    return problem.but(x=x)._replace(dy=dy)


def forward(problem, module=functional, save=True):
    function = getattr(module, f"{problem.kind.cell}_forward")
    options = {name: getattr(problem, name) for name in ("lengths", "mask", "reset", "reverse")}
    y, h_n, saved = function(**problem.arrays, **dict(problem.kind.options), **options, save=save)
    return {"y": y, "h_n": h_n}, saved


def backward(problem, saved, module=functional, **options):
    grads = getattr(module, f"{problem.kind.cell}_backward")(saved, problem.dy, problem.dh_n, **options)
    return {f"d{name}": grad for name, grad in grads._asdict().items() if grad is not None}


def run(problem, module=functional):
    outputs, saved = forward(problem, module)
    return outputs | backward(problem, saved, module)


# --- the reference ----------------------------------------------------------------------------------------------------


def loss(problem):
    outputs, _ = forward(problem, reference, save=False)
    return float(np.sum(np.nan_to_num(problem.dy) * outputs["y"]) + np.sum(problem.dh_n * outputs["h_n"]))


def numeric_gradient(problem, name, step=1e-5):
    array = problem.arrays[name]
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        ends = []
        for sign in (1, -1):
            moved = array.copy()
            moved[index] += sign * step
            ends.append(loss(problem.but(**{name: moved})))
        gradient[index] = (ends[0] - ends[1]) / (2 * step)
    return gradient


@every_kind
def test_gradients_are_those_of_finite_differences(kind, ragged, reverse):
    problem = make(kind, 4, 3, 2, 5, seed=1, ragged=ragged, reverse=reverse)
    expected = {f"d{name}": numeric_gradient(problem, name) for name in problem.arrays}
    helpers.assert_close(backward(problem, forward(problem, reference)[1], reference), expected, 1e-8)


@every_kind
def test_gradients_past_gaps_and_resets_are_those_of_finite_differences(kind, ragged, reverse):
    problem = marked(make(kind, 5, 6, 2, 3, seed=20, ragged=ragged, reverse=reverse), seed=21)
    expected = {f"d{name}": numeric_gradient(problem, name) for name in problem.arrays}
    helpers.assert_close(backward(problem, forward(problem, reference)[1], reference), expected, 1e-8)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


@pytest.mark.parametrize("candidate", ["linear", "positive"])
def test_equations_as_the_paper_has_them(candidate, engine):
    """Step by step, with the products of each gate by themselves."""
    for cell in ("mingru", "minlstm"):
        kind = Kind(cell, (("candidate", candidate),))
        problem = make(kind, 5, 2, 3, 4, seed=2)
        x, h, w_ih, b = problem.arrays.values()
        parts = [(w_ih[k : k + 4], b[k : k + 4]) for k in range(0, len(b), 4)]
        expected = []
        for x_t in x:
            *gates, c = (x_t @ w.T + bias for w, bias in parts)
            if candidate == "positive":
                c = np.where(c >= 0, c + 0.5, sigmoid(c))
            if cell == "mingru":
                z = sigmoid(gates[0])
                h = (1 - z) * h + z * c
            else:
                f, i = (sigmoid(gate) for gate in gates)
                h = f / (f + i) * h + i / (f + i) * c
            expected.append(h)
        with engine.active():
            outputs, _ = forward(problem)
        helpers.assert_close(outputs, {"y": np.array(expected), "h_n": h}, 1e-13)


@pytest.mark.parametrize(("nonlinearity", "act"), [("relu", lambda a: np.maximum(a, 0)), ("tanh", np.tanh)])
def test_an_indrnn_is_an_rnn_with_a_diagonal_matrix(nonlinearity, act, engine):
    problem = make(Kind("indrnn", (("nonlinearity", nonlinearity),)), 6, 2, 3, 5, seed=3)
    x, h0, w_ih, u, b = problem.arrays.values()
    with engine.active():
        results = run(problem)
    y, h_n, saved = reference.rnn_forward(x, h0, w_ih, np.diag(u), b, nonlinearity=nonlinearity)
    grads = reference.rnn_backward(saved, problem.dy, problem.dh_n)
    expected = {"y": y, "h_n": h_n, "dx": grads.x, "dh0": grads.h0, "dw_ih": grads.w_ih}
    expected |= {"du": np.diag(grads.w_hh), "db": grads.b_ih}
    helpers.assert_close(results, expected, 1e-13)


# --- the compiled engines ---------------------------------------------------------------------------------------------

SIZES = (  # T, B, I, H; a chunk has 64 steps
    (1, 1, 1, 1),
    (9, 3, 2, 17),
    (64, 1, 3, 5),
    (65, 2, 1, 33),
    (200, 3, 4, 18),
    (3, 2, 0, 4),
    (0, 3, 4, 5),
    (3, 0, 4, 5),
)


@cache
def expected_of(kind, sizes, ragged, reverse):
    problem = make(kind, *sizes, seed=sum(sizes), ragged=ragged, reverse=reverse)
    return problem, run(problem._replace(kind=Kind(kind.cell, kind.options[:1])), reference)  # by the sequential scan


@every_kind
def test_same_values_as_the_reference(engine, dtype, kind, ragged, reverse):
    for sizes in SIZES:
        problem, expected = expected_of(kind, sizes, ragged, reverse)
        problem = problem.astype(dtype)
        with engine.active():
            results = run(problem)
            inference, nothing = forward(problem, save=False)
        assert nothing is None
        assert {a.dtype for a in (results | inference).values()} == {np.dtype(dtype)}
        helpers.assert_close(results, expected, TOLERANCE[dtype])
        helpers.assert_close(inference, {name: expected[name] for name in ("y", "h_n")}, TOLERANCE[dtype])


@every_kind
def test_states_and_biases_that_are_none_are_zeros(engine, kind, ragged):
    problem = make(kind, 70, 3, 2, 5, seed=4, ragged=ragged)
    zeros = {name: np.zeros_like(problem.arrays[name]) for name in ("h0", "b")}
    with engine.active():
        expected = run(problem.but(**zeros))
        results = run(problem.but(h0=None, b=None))
    helpers.assert_same_bits(results, {name: a for name, a in expected.items() if name != "db"})


@every_kind
@pytest.mark.parametrize("B", [1, 3])
def test_inference_in_many_blocks_of_steps(kind, B, ragged, reverse, monkeypatch):
    monkeypatch.setattr(_compiled, "BLOCK_BYTES", 1)
    lengths = np.array((299, 0, 301)[:B]) if ragged else None
    problem = make(kind, 301, B, 2, 5, seed=B, ragged=lengths, reverse=reverse)
    with fastrnn.config_context(engine="native"):
        helpers.assert_same_bits(forward(problem, save=False)[0], forward(problem)[0])


@every_kind
@pytest.mark.parametrize("sizes", [(300, 1, 3, 70), (150, 5, 2, 33)], ids=str)
def test_same_bits_on_any_number_of_threads(kind, sizes, dtype, ragged, monkeypatch):
    problem = make(kind, *sizes, seed=5, ragged=ragged if sizes[1] > 1 else None).astype(dtype)
    results = []
    for members in (1, 2, 3):
        monkeypatch.setattr(_sharing, "independent", lambda *_, m=members: _sharing.Sharing(m, "rows", 0))
        with fastrnn.config_context(engine="native", num_threads=members):
            results.append(run(problem))
    helpers.assert_same_bits(results[1], results[0])
    helpers.assert_same_bits(results[2], results[0])


@every_kind
def test_a_sequence_has_the_same_bits_in_any_batch_and_any_padding(kind, reverse):
    problem = make(kind, 140, 4, 3, 21, seed=6, ragged=True, reverse=reverse)
    with fastrnn.config_context(engine="native"):
        together, _ = forward(problem)
        for b, length in enumerate(problem.lengths):
            alone = problem.but(x=problem.arrays["x"][:length, b : b + 1], h0=problem.arrays["h0"][b : b + 1])
            outputs, _ = forward(alone._replace(lengths=None))
            np.testing.assert_array_equal(together["y"][:length, b], outputs["y"][:, 0])
            np.testing.assert_array_equal(together["h_n"][b], outputs["h_n"][0])


def test_a_step_at_a_time(engine):
    for kind in KINDS:
        problem = make(kind, 9, 2, 3, 20, seed=7)
        h = problem.arrays["h0"]
        with engine.active():
            whole, _ = forward(problem, save=False)
            for t in range(9):
                step, _ = forward(problem.but(x=problem.arrays["x"][t : t + 1], h0=h), save=False)
                h = step["h_n"]
        np.testing.assert_allclose(h, whole["h_n"], rtol=0, atol=1e-14)


@every_linear_kind
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_saturated_gates(engine, dtype, kind, size):
    """Pre-activations far outside of what exp can take: a state between the old one and the candidate, never NaN."""
    problem = make(kind, 70, 2, 2, 9, seed=8).astype(dtype)
    gates = slice(0, (GATES[kind.cell] - 1) * 9)
    w_ih, b = problem.arrays["w_ih"].copy(), problem.arrays["b"].copy()
    w_ih[gates] *= dtype(size)
    b[gates] = -dtype(size)
    with engine.active():
        results = run(problem.but(w_ih=w_ih, b=b))
    assert all(np.isfinite(a).all() for a in results.values())
    assert np.abs(results["y"]).max() < 20  # of the old states and all candidates


def test_a_minlstm_whose_gates_are_no_floats_divides_them_all_the_same(engine, dtype):
    """sigmoid(-800) is 0 in either type, but f / (f + i) is that of exp(b_f - b_i)."""
    x, h0, w_ih = np.zeros((1, 1, 1), dtype), np.ones((1, 3), dtype), np.zeros((9, 1), dtype)
    b = np.array([-800, -801, -800, -801, -800, -800, 0, 0, 0], dtype)
    with engine.active():
        y, _, _ = functional.minlstm_forward(x, h0, w_ih, b)
    rtol = 1e-4 if dtype is np.float32 else 1e-12  # the reference takes a difference of logarithms of that size
    np.testing.assert_allclose(y[0, 0], sigmoid(np.array([1.0, -1.0, 0.0])), rtol=rtol)


def test_no_gradient_passes_where_the_slope_of_relu_is_0(engine):
    """Not even one that is not a number."""
    problem = make(KINDS[0], 1, 3, 2, 19, seed=10)
    with engine.active():
        y = forward(problem)[0]["y"]
        zeros, nans = (
            run(problem._replace(dy=np.where(y > 0, problem.dy, dead), dh_n=np.zeros_like(y[0])))
            for dead in (0, np.nan)
        )
    assert (y == 0).any()
    helpers.assert_same_bits(nans, zeros)


@every_kind
def test_not_a_number_is_passed_on(engine, kind):
    problem = make(kind, 5, 3, 2, 19, seed=9)
    x = problem.arrays["x"].copy()
    x[2, 1] = np.nan
    with engine.active():
        y, expected = (forward(p)[0]["y"] for p in (problem.but(x=x), problem))
    assert np.isnan(y[2:, 1]).all()
    np.testing.assert_allclose(y[:2], expected[:2], atol=1e-13)
    np.testing.assert_allclose(y[:, ::2], expected[:, ::2], atol=1e-13)


@every_kind
@pytest.mark.parametrize("need", [(), ("x",), ("w_ih", "h0"), "b"])
def test_only_the_gradients_that_are_needed(engine, kind, need):
    problem = make(kind, 6, 2, 3, 4, seed=10)
    with engine.active():
        everything, some = (backward(problem, forward(problem)[1], need=n) for n in (None, need))
    asked = {need} if isinstance(need, str) else set(need)
    helpers.assert_same_bits(some, {name: everything[name] for name in (f"d{n}" for n in sorted(asked))})


@every_kind
def test_arguments_and_outputs_stay_as_they_were(engine, kind, ragged):
    problem = make(kind, 70, 3, 2, 5, seed=11, ragged=ragged)
    given = {**problem.arrays, "dy": problem.dy, "dh_n": problem.dh_n}
    before = {name: a.copy() for name, a in given.items()}
    with engine.active():
        outputs, saved = forward(problem)
        outputs_before = {name: a.copy() for name, a in outputs.items()}
        grads = backward(problem, saved)
    for name, a in given.items():
        np.testing.assert_array_equal(a, before[name], err_msg=name)
    helpers.assert_same_bits(outputs, outputs_before)
    results = [a for name, a in (outputs | grads).items() if name != "y"]
    for k, a in enumerate(results):
        assert not any(np.shares_memory(a, b) for b in [*results[:k], outputs["y"], *given.values()])


# --- masks, resets, gates ---------------------------------------------------------------------------------------------

MARKS = [{"reset": False}, {"mask": False}, {}]


def run_with_gates(problem, module=functional):
    outputs, saved = forward(problem, module)
    gates = {f"gate {name}": a for name, a in saved.gates().items()}
    return outputs | gates | backward(problem, saved, module)


def walked_by_hand(problem):
    """y and h_n, one valid step of one sequence at a time."""
    y, h = np.zeros_like(problem.dy), problem.arrays["h0"].copy()
    T, B, _ = y.shape
    for b in range(B):
        for t in range(T if problem.lengths is None else problem.lengths[b])[:: -1 if problem.reverse else 1]:
            if problem.reset is not None and problem.reset[t, b]:
                h[b] = 0
            if problem.valid[t, b]:
                step = problem.but(x=problem.arrays["x"][t : t + 1, b : b + 1], h0=h[b : b + 1])
                step = step._replace(lengths=None, mask=None, reset=None)
                h[b] = y[t, b] = forward(step, reference, save=False)[0]["y"][0, 0]
    return {"y": y, "h_n": h}


@every_kind
@pytest.mark.parametrize("marks", MARKS, ids=str)
def test_it_is_the_steps_that_are_valid_one_after_the_other(kind, marks, ragged, reverse):
    problem = marked(make(kind, 7, 6, 2, 3, seed=22, ragged=ragged, reverse=reverse), **marks, seed=23)
    expected = walked_by_hand(problem)
    for engine in helpers.ENGINES:
        with engine.active():
            helpers.assert_close(forward(problem)[0], expected, 1e-13)


@cache
def expected_of_marked(kind, often, ragged, reverse):
    problem = make(kind, 150, 5, 2, 19, seed=24, ragged=np.array((150, 0, 131, 64, 149)) if ragged else None)
    problem = marked(problem._replace(reverse=reverse), often=often, seed=25)
    return problem, run_with_gates(problem._replace(kind=Kind(kind.cell, kind.options[:1])), reference)


@every_kind
def test_same_values_as_the_reference_with_marks(engine, dtype, kind, ragged, reverse):
    for often in (0.005, 0.3):  # sequences of several chunks among others, and many short ones
        problem, expected = expected_of_marked(kind, often, ragged, reverse)
        problem = problem.astype(dtype)
        with engine.active():
            results = run_with_gates(problem)
            inference, _ = forward(problem, save=False)
        assert {a.dtype for a in (results | inference).values()} == {np.dtype(dtype)}
        helpers.assert_close(results, expected, TOLERANCE[dtype])
        helpers.assert_close(inference, {name: expected[name] for name in ("y", "h_n")}, TOLERANCE[dtype])


@every_kind
def test_same_bits_on_threads_and_in_blocks_with_marks(kind, reverse, monkeypatch):
    problem = marked(make(kind, 301, 3, 2, 33, seed=26, reverse=reverse), often=0.01, seed=27)
    with fastrnn.config_context(engine="native", num_threads=1):
        expected = run(problem)
    monkeypatch.setattr(_sharing, "independent", lambda *_: _sharing.Sharing(3, "rows", 0))
    monkeypatch.setattr(_compiled, "BLOCK_BYTES", 1)
    with fastrnn.config_context(engine="native", num_threads=3):
        helpers.assert_same_bits(run(problem), expected)
        helpers.assert_same_bits(forward(problem, save=False)[0], {name: expected[name] for name in ("y", "h_n")})


@every_kind
def test_no_number_passes_a_reset(engine, kind, reverse):
    """What is NaN or arrives as NaN stays on its side."""
    problem = make(kind, 6, 2, 3, 4, seed=28, reverse=reverse)
    reset = np.zeros((6, 2), bool)
    reset[3 if reverse else 2] = True
    before, after = (slice(4, None), slice(0, 4)) if reverse else (slice(0, 2), slice(2, None))
    x, dy = problem.arrays["x"].copy(), problem.dy.copy()
    x[before] = np.nan
    with engine.active():
        outputs, _ = forward(problem.but(x=x)._replace(reset=reset))
        assert np.isnan(outputs["y"][before]).all()
        assert np.isfinite(outputs["y"][after]).all()
        assert np.isfinite(outputs["h_n"]).all()
        dy[after] = np.nan
        problem = problem._replace(reset=reset, dy=dy)
        grads = backward(problem, forward(problem)[1])
    assert np.isnan(grads["dx"][after]).all()
    assert np.isfinite(grads["dx"][before]).all()
    assert np.isfinite(grads["dh0"]).all()


@every_kind
def test_marks_that_say_nothing_and_a_mask_of_the_padding(engine, kind, reverse):
    dense = make(kind, 70, 3, 2, 5, seed=29, reverse=reverse)
    ragged = make(kind, 70, 3, 2, 5, seed=30, ragged=True, reverse=reverse)
    plain = dense._replace(mask=np.ones((70, 3), bool), reset=np.zeros((70, 3), bool))
    with engine.active():
        helpers.assert_same_bits(run_with_gates(plain), run_with_gates(dense))
        helpers.assert_same_bits(
            run_with_gates(ragged._replace(lengths=None, mask=ragged.valid)), run_with_gates(ragged)
        )


@every_kind
def test_nothing_runs(engine, kind):
    """States pass through, and so do their gradients, but for what was reset."""
    problem = make(kind, 5, 3, 2, 4, seed=31)._replace(mask=np.zeros((5, 3), bool), reset=np.zeros((5, 3), bool))
    problem.reset[2, 1] = True
    with engine.active():
        results = run(problem)
    untouched = np.array([[True], [False], [True]])
    np.testing.assert_array_equal(results["h_n"], np.where(untouched, problem.arrays["h0"], 0))
    np.testing.assert_array_equal(results["dh0"], np.where(untouched, problem.dh_n, 0))
    assert not any(results[name].any() for name in ("y", "dx", "dw_ih", "db"))


@every_kind
def test_gates_are_those_of_the_equations(engine, kind):
    problem = make(kind, 70, 3, 2, 5, seed=32)
    x, w_ih, b = (problem.arrays[name] for name in ("x", "w_ih", "b"))
    with engine.active():
        outputs, saved = forward(problem)
        gates = saved.gates()
        expected = {"h": outputs["y"]}
        for k, name in enumerate({"indrnn": "", "mingru": "z", "minlstm": "fi"}[kind.cell]):
            block = slice(5 * k, 5 * k + 5)
            expected[name] = sigmoid(x @ w_ih[block].T + b[block])
        assert list(gates) == {"indrnn": ["h"], "mingru": ["z", "h"], "minlstm": ["f", "i", "h"]}[kind.cell]
        helpers.assert_close(gates, expected, 1e-13)
        shown = {name: a.copy() for name, a in gates.items()}
        backward(problem, saved)
    helpers.assert_same_bits(gates, shown)
    with pytest.raises(ValueError, match=r"^cache: it has been used"):
        saved.gates()


def test_memory_is_that_of_the_rows_however_long_one_sequence_is():
    """A long sequence beside many short ones: states of chunks are there only for those that run."""
    T, B, H = 6400, 2, 64
    reset = np.zeros((T, B), bool)
    reset[::4, 1] = True
    for kind in (KINDS[0], Kind("minlstm", (("scan", "parallel"),))):
        problem = make(kind, T, B, 1, H, seed=33).astype(np.float32)._replace(reset=reset)
        with fastrnn.config_context(engine="native"):
            _, saved = forward(problem)
            tracemalloc.start()
            backward(problem, saved)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 10 * problem.dy.nbytes


# --- bad input --------------------------------------------------------------------------------------------------------


def wrong(argument, value, message):
    return pytest.param({argument: value}, f"^{argument}: {message}", id=f"{argument} {message}")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        wrong("x", np.zeros((5, 2)), r"shape \(5, 2\), expected 3 dimensions"),
        wrong("x", np.zeros((5, 2, 3), int), "dtype int64, expected float32 or float64"),
        wrong("h0", np.zeros((2, 5)), r"shape \(2, 5\), expected \(B, H\) = \(2, 4\)"),
        wrong("w_ih", np.zeros((3, 7)), r"shape \(3, 7\), expected \(.*H, I\) with H >= 1, I = 3"),
        wrong("w_ih", np.zeros((0, 3)), r"shape \(0, 3\)"),
        wrong("b", np.zeros(1), r"shape \(1,\), expected \(.*H,\) = "),
        wrong("b", np.zeros(1, np.float32), "dtype float32, expected float64, that of x"),
        wrong("lengths", [1, 9], "values from 1 to 9, expected 0 to T = 5"),
        wrong("mask", np.ones((2, 5), bool), r"shape \(2, 5\), expected \(T, B\) = \(5, 2\); transposed\?"),
        wrong("reset", np.ones((5, 2)), "dtype float64, expected bool"),
    ],
)
@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("module", [functional, reference])
def test_bad_arguments(cell, module, changed, message):
    arguments = {**make(Kind(cell), 5, 2, 3, 4).arrays, **changed}
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(module, f"{cell}_forward")(**arguments)


@pytest.mark.parametrize("module", [functional, reference])
def test_bad_options_and_caches(module):
    x, h0, w_ih, u, b = make(Kind("indrnn"), 5, 2, 3, 4).arrays.values()
    with pytest.raises(ValueError, match=r"^nonlinearity: 'gelu', expected one of 'relu', 'tanh'"):
        module.indrnn_forward(x, h0, w_ih, u, b, nonlinearity="gelu")
    with pytest.raises(ValueError, match=r"^u: shape \(4, 4\), expected \(H,\) = \(4,\)"):
        module.indrnn_forward(x, h0, w_ih, np.diag(u), b)
    with pytest.raises(ValueError, match=r"^w_ih: shape \(4, 3\), expected \(3H, I\)"):
        module.minlstm_forward(x, None, w_ih)
    with pytest.raises(ValueError, match=r"^scan: 'blelloch', expected one of 'sequential', 'parallel'"):
        module.mingru_forward(x, None, w_ih, scan="blelloch")
    with pytest.raises(ValueError, match=r"^candidate: 'tanh', expected one of 'linear', 'positive'"):
        module.minlstm_forward(x, None, w_ih[:3], candidate="tanh")

    y, _, saved = module.mingru_forward(x, None, w_ih)
    with pytest.raises(ValueError, match=r"^cache: it is of mingru_forward, expected one of minlstm_forward"):
        module.minlstm_backward(saved, y)
    with pytest.raises(ValueError, match=r"^dy: shape \(5, 2, 3\), expected \(T, B, H\) = \(5, 2, 2\)"):
        module.mingru_backward(saved, x)
    module.mingru_backward(saved, np.ones_like(y))
    with pytest.raises(ValueError, match=r"^cache: it has been used"):
        module.mingru_backward(saved, np.ones_like(y))


def test_unknown_gradients_are_refused():
    x, h0, w_ih, b = make(Kind("mingru"), 5, 2, 3, 4).arrays.values()
    y, _, saved = functional.mingru_forward(x, h0, w_ih, b)
    with pytest.raises(ValueError, match=r"^need: 'u', expected some of 'x', 'h0', 'w_ih', 'b'"):
        functional.mingru_backward(saved, y, need=("u",))
