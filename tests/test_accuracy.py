"""A float32 kernel is as close to the truth as NumPy's float32 is."""

from functools import cache

import helpers
import numpy as np
import pytest

from fastrnn import functional, reference

SIZES = ((12, 3, 5, 17), (40, 16, 24, 48), (150, 2, 7, 96), (20, 3, 140, 200), (3, 2, 5, 520))  # T, B, I, H
SEEDS = range(6)
ALLOWED = 1.5  # times the error of NumPy's float32
RESULTS = {
    "outputs": ("y", "h_n", "c_n"),
    "gradients of x and the states": ("dx", "dh0", "dc0"),
    "gradients of the weights": ("dw_ih", "dw_hh"),
    "gradients of the biases": ("db_ih", "db_hh"),
}


@cache
def error_ratios(engine, variant, sizes):
    """The root mean square error of each result as a multiple of NumPy's."""
    ours, numpys = {}, {}
    for seed in SEEDS:  # over several problems, so that the luck of one rounding does not decide
        problem = helpers.make(variant, *sizes, np.float32, seed)
        exact = helpers.run(problem.astype(np.float64), reference)
        with engine.active():
            results = helpers.run(problem, functional)
        for total, found in ((ours, results), (numpys, helpers.run(problem, reference))):
            for name, values in found.items():
                total[name] = total.get(name, 0) + np.square(values - exact[name]).sum()
    return {name: (ours[name] / numpys[name]) ** 0.5 for name in ours}


@pytest.mark.parametrize("names", RESULTS.values(), ids=RESULTS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_error_of_float32(compiled, variant, sizes, names):
    ratios = error_ratios(compiled, variant, sizes)
    above = {name: round(float(ratios[name]), 2) for name in names if ratios.get(name, 0) > ALLOWED}
    assert not above, f"RMS error as a multiple of NumPy's: {above}, allowed {ALLOWED}"
