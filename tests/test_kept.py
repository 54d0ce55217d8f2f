"""What forward keeps, as arrays, and a cache made of them again."""

from dataclasses import replace

import helpers
import numpy as np
import pytest

from fastrnn import _check, _kept

SIZES = (5, 3, 4, 7)  # T, B, I, H


def restored(problem, columns=slice(None)):
    """A problem of some of the sequences, and the cache of forward made of arrays, of these sequences alone."""
    outputs, cache = helpers.forward(problem)
    arrays = [np.ascontiguousarray(a[:, columns]) for a in _kept.arrays_of(cache)]
    marks = {name: getattr(problem, name) for name in ("lengths", "mask", "reset")}
    marks = {name: None if a is None else a[..., columns] for name, a in marks.items()}
    own = {k: np.ascontiguousarray(problem.arrays[k][columns]) for k in ("h0", "c0") if k in problem.arrays}
    x = np.ascontiguousarray(problem.arrays["x"][:, columns])
    dy = np.ascontiguousarray(problem.dy[:, columns])
    part = replace(problem.with_arrays(x=x, **own), dy=dy, **marks)
    part = replace(part, dstates={name: d[columns] for name, d in problem.dstates.items()})
    weights = (problem.arrays[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh"))
    inputs = _check.sequence_inputs(problem.variant.cell, x, own, *weights, *marks.values())
    y = np.ascontiguousarray(outputs["y"][:, columns])
    options = {"reverse": problem.reverse, **problem.variant.options}
    return part, _kept.cache_of(problem.variant.cell, inputs, y, arrays, **options)


def test_the_same_gradients(compiled, variant, dtype, ragged, reverse):
    problem = helpers.make(variant, *SIZES, dtype, lengths=ragged, reverse=reverse)
    with compiled.active():
        wanted = helpers.backward(problem, helpers.forward(problem)[1])
        helpers.assert_same_bits(helpers.backward(*restored(problem)), wanted)


@pytest.mark.parametrize("marked", [False, True], ids=["lengths", "marks"])
def test_a_part_of_the_batch(variant, reverse, marked):
    rng = np.random.default_rng(1)
    problem = helpers.make(variant, *SIZES, lengths=[3, 5, 2], reverse=reverse)
    if marked:
        problem = replace(problem, mask=rng.random((5, 3)) < 0.7, reset=rng.random((5, 3)) < 0.3)
    part, cache = restored(problem, slice(1, 3))
    wanted = helpers.backward(part, helpers.forward(part)[1])
    helpers.assert_close(helpers.backward(part, cache), wanted, 1e-12)


def test_only_what_is_said_is_written_into(variant):
    problem = helpers.make(variant, *SIZES)
    outputs, cache = helpers.forward(problem)
    arrays, y = _kept.arrays_of(cache), outputs["y"]
    before = [np.array(a) for a in (*arrays, y)]
    states = {name: problem.arrays[name] for name in ("h0", "c0") if name in problem.arrays}
    weights = (problem.arrays[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh"))
    inputs = _check.sequence_inputs(variant.cell, problem.arrays["x"], states, *weights, None)
    helpers.backward(problem, _kept.cache_of(variant.cell, inputs, y, arrays, reverse=False, **variant.options))
    for a, was, written in zip((*arrays, y), before, (*_kept.WRITTEN[variant.cell], False), strict=True):
        assert written or np.array_equal(a, was)
