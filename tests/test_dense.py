"""The short way of dense sequences has the long way's bits, and takes it where its arguments are not plain."""

import copy

import helpers
import numpy as np
import pytest

import fastrnn
from fastrnn import _dense, _sharing, functional

SHAPES = [
    *((1, 1, 5, 3), (1, 1, 8, 48), (1, 4, 9, 70), (1, 3, 40, 340), (1, 1, 70, 330), (1, 80, 30, 130)),
    *((7, 1, 3, 40), (5, 3, 16, 33), (300, 2, 4, 17), (3, 70, 40, 96)),
    *((1, 1, 1300, 240), (4, 1, 600, 130)),  # threads share products with x and not those with h
    *((1, 2, 9, 256), (4, 5, 24, 256)),  # rows of gates have a gap behind them
]


def by_the_long_way(monkeypatch, function, *arguments, **options):
    with monkeypatch.context() as m:
        m.setattr(_dense, "forward", lambda *_: None)
        return function(*arguments, **options)


@pytest.fixture(params=[e for e in helpers.COMPILED if e.name == "native"], ids=str)
def native(request):
    return request.param


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_bits_as_the_long_way(monkeypatch, native, variant, dtype, threads, reverse, shape):
    problem = helpers.make(variant, *shape, dtype, reverse=reverse)
    with native.active(threads):
        outputs, cache = helpers.forward(problem)
        assert type(cache) is _dense.DenseCache
        gates = cache.gates()
        expected, other = by_the_long_way(monkeypatch, helpers.forward, problem)
        assert type(other) is not _dense.DenseCache
        helpers.assert_same_bits(gates, other.gates())
        helpers.assert_same_bits(outputs, expected)
        helpers.assert_same_bits(helpers.backward(problem, cache), helpers.backward(problem, other))
        helpers.assert_same_bits(helpers.forward(problem, save=False)[0], expected)


@pytest.mark.parametrize("T", [1, 3])
def test_a_sequence_alone_has_the_bits_it_has_in_a_batch(native, variant, dtype, T):
    problem = helpers.make(variant, T, 3, 16, 64, dtype)
    of_batch = ("x", "h0", "c0")
    alone = problem.with_arrays(
        **{k: a[:, 1:2] if k == "x" else a[1:2] if k in of_batch else a for k, a in problem.arrays.items()}
    )
    ends = {name: d[1:2] for name, d in problem.dstates.items()}
    with native.active():
        whole = helpers.run(problem)
        outputs, cache = helpers.forward(alone)
        grads = getattr(functional, f"{variant.cell}_backward")(cache, problem.dy[:, 1:2], **ends)
    for name in ("y", "h_n", "c_n"):
        if name in outputs:
            assert np.array_equal(outputs[name], whole[name][:, 1:2] if name == "y" else whole[name][1:2]), name
    for name in of_batch:
        if f"d{name}" in whole:
            wanted = whole[f"d{name}"]
            assert np.array_equal(getattr(grads, name), wanted[:, 1:2] if name == "x" else wanted[1:2]), name


def test_a_first_step_has_the_bits_of_one_alone_whose_weights_are_not_packed(native, variant):
    """Of 4 MB and more they are packed past the caches."""
    H = {"lstm": 529, "gru": 730, "rnn": 1033}[variant.cell]
    problem = helpers.make(variant, 2, 2, 3, H, np.float32)
    with native.active():
        outputs, _ = helpers.forward(problem)
        first, _ = helpers.forward(problem.with_arrays(x=problem.arrays["x"][:1]))
    assert np.array_equal(first["y"][0], outputs["y"][0])


@pytest.mark.parametrize("absent", [("b_ih",), ("b_hh",), ("b_ih", "b_hh"), ("h0",), ("c0",), ("h0", "c0")], ids=str)
def test_what_may_be_none(monkeypatch, variant, absent):
    problem = helpers.make(variant, 4, 3, 5, 17, np.float32)
    problem = problem.with_arrays(**{name: None for name in absent if name in problem.arrays})
    outputs, cache = helpers.forward(problem)
    assert type(cache) is _dense.DenseCache
    expected = by_the_long_way(monkeypatch, helpers.run, problem)
    helpers.assert_same_bits(outputs | helpers.backward(problem, cache), expected)


@pytest.mark.parametrize("none", [("dy",), ("dh_n",), ("dc_n",), ("dy", "dh_n", "dc_n")], ids=str)
def test_gradients_that_may_be_none(variant, none):
    problem = helpers.make(variant, 4, 3, 5, 17, np.float32)
    ends = {name: None if name in none else d for name, d in problem.dstates.items()}
    zeros = {name: np.zeros_like(d) if name in none else d for name, d in problem.dstates.items()}
    dy = problem.dy if "dy" not in none else None
    backward = getattr(functional, f"{variant.cell}_backward")
    grads = backward(helpers.forward(problem)[1], dy, **ends)
    expected = backward(helpers.forward(problem)[1], np.zeros_like(problem.dy) if dy is None else dy, **zeros)
    helpers.assert_same_bits(grads._asdict(), expected._asdict())


def test_gradients_of_cell_states():
    problem = helpers.make(helpers.Variant("lstm"), 6, 3, 5, 17)
    dc = np.random.default_rng(1).standard_normal((6, 3, 17))
    _, cache = helpers.forward(problem)
    _, other = helpers.forward(problem, fastrnn.reference)
    grads = helpers.backward(problem, cache, dc=dc)
    helpers.assert_close(grads, helpers.backward(problem, other, fastrnn.reference, dc=dc), 1e-12)


@pytest.mark.parametrize("need", [("x",), ("h0",), ("w_ih",), ("w_hh",), ("b_ih",), ("b_hh", "x"), ()], ids=str)
def test_only_what_is_needed(variant, need):
    problem = helpers.make(variant, 4, 3, 5, 17, np.float32)
    everything = helpers.run(problem)
    grads = helpers.backward(problem, helpers.forward(problem)[1], need=need)
    helpers.assert_same_bits(grads, {f"d{name}": everything[f"d{name}"] for name in need})


AWKWARD = {
    "fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "byteswapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "list": lambda a: a if a.ndim == 3 else [np.asarray(row) for row in a],
    "unaligned": lambda a: helpers.shifted(a, 1),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}


@pytest.mark.parametrize("how", AWKWARD)
def test_arrays_that_are_not_plain(variant, how):
    problem = helpers.make(variant, 4, 3, 5, 17)
    expected, make = helpers.run(problem), AWKWARD[how]
    problem = problem.with_arrays(**{name: make(a) for name, a in problem.arrays.items()})
    outputs, cache = helpers.forward(problem)
    ends = {name: make(d) for name, d in problem.dstates.items()}
    grads = getattr(functional, f"{variant.cell}_backward")(cache, make(problem.dy), **ends)
    named = {f"d{name}": grad for name, grad in grads._asdict().items() if grad is not None}
    helpers.assert_same_bits(outputs | named, expected)


def test_refused_gradients_leave_the_cache_as_it_is(variant):
    problem = helpers.make(variant, 4, 3, 5, 17, np.float32)
    expected = helpers.run(problem)
    outputs, cache = helpers.forward(problem)
    backward = getattr(functional, f"{variant.cell}_backward")
    with pytest.raises(ValueError, match="dy: shape"):
        backward(cache, problem.dy[1:])
    with pytest.raises(ValueError, match="dh_n: shape"):
        backward(cache, problem.dy, problem.dstates["dh_n"][1:])
    helpers.assert_same_bits(outputs | helpers.backward(problem, cache), expected)
    with pytest.raises(ValueError, match="used by a backward pass already"):
        helpers.backward(problem, cache)
    with pytest.raises(ValueError, match="used by a backward pass already"):
        cache.gates()


def interrupted_backward(monkeypatch, problem, cache, interrupt):
    """A backward pass in the midst of which, its arguments checked and taken, something else happens."""

    def passing(*_, **__):
        interrupt()
        return _sharing.ALONE

    with monkeypatch.context() as m:
        m.setattr(_sharing, "passing", passing)
        return helpers.backward(problem, cache)


def test_a_cache_is_used_once_whoever_comes_in_between(monkeypatch, variant):
    """A second thread had a TypeError, and made the first one's pass fail."""
    problem = helpers.make(variant, 64, 5, 7, 64, np.float32)  # enough work to ask for threads
    expected = helpers.run(problem)
    outputs, cache = helpers.forward(problem)
    other, tries = copy.copy(cache), []

    def use_it_again():
        for same in (cache, other):
            with pytest.raises(ValueError, match="used by a backward pass already"):
                helpers.backward(problem, same)
            with pytest.raises(ValueError, match="used by a backward pass already"):
                same.gates()
            tries.append(same)

    helpers.assert_same_bits(outputs | interrupted_backward(monkeypatch, problem, cache, use_it_again), expected)
    assert tries == [cache, other]


def test_a_pass_that_failed_half_way_has_used_its_cache(monkeypatch, variant):
    problem = helpers.make(variant, 64, 5, 7, 64, np.float32)
    _, cache = helpers.forward(problem)

    def fail():
        raise MemoryError

    with pytest.raises(MemoryError):
        interrupted_backward(monkeypatch, problem, cache, fail)
    assert cache.used
    with pytest.raises(ValueError, match="used by a backward pass already"):
        helpers.backward(problem, cache)


def test_the_way_of_a_cache_is_not_that_of_another_cell():
    _, cache = helpers.forward(helpers.make(helpers.Variant("gru"), 4, 3, 5, 17))
    with pytest.raises(ValueError, match="it is of gru_forward"):
        functional.rnn_backward(cache, np.zeros((4, 3, 17)))


@pytest.mark.parametrize("empty", ["T", "B", "I"])
def test_empty_ones_go_the_long_way(variant, empty):
    sizes = {"T": 4, "B": 3, "I": 5} | {empty: 0}
    problem = helpers.make(variant, *sizes.values(), 17)
    outputs, cache = helpers.forward(problem)
    assert type(cache) is not _dense.DenseCache
    helpers.assert_close(outputs, helpers.forward(problem, fastrnn.reference)[0], 1e-12)
