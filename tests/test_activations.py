"""sigmoid and tanh of every instruction set, in units in the last place (ulp)."""

import helpers
import numpy as np
import pytest

from fastrnn._core import kernels

FUNCTIONS = ("sigmoid", "tanh")
ULP = 2.5  # what csrc/math_impl.h promises


@pytest.fixture(scope="module", params=kernels.available_isas())
def isa(request):
    return request.param


@pytest.fixture(scope="module", params=FUNCTIONS)
def function(request):
    return request.param


def activate(isa, function, x):
    y = np.full_like(x, 77)
    kernels.activate(isa, y, x, function)
    return y


def exact(function, x):
    """The value with more digits than x has."""
    if x.dtype == np.float32:
        x = x.astype(np.float64)
    elif np.finfo(np.longdouble).eps < np.finfo(np.float64).eps:
        x = x.astype(np.longdouble)
    else:
        pytest.skip("NumPy's longdouble is no longer than double on this platform")
    if function == "sigmoid":
        e = np.exp(-np.abs(x))
        return np.where(x >= 0, 1 / (1 + e), e / (1 + e))
    return getattr(np, function)(x)


def ulps(y, wanted):
    """The error in units of y's last place; below the smallest normal number, in units of the last place there."""
    tiny = np.finfo(y.dtype).smallest_normal
    place = np.spacing(np.maximum(np.abs(wanted), tiny).astype(y.dtype))
    # A result below the smallest normal number may be any such number: the processor may flush them to zero.
    error = np.where(np.abs(wanted) < tiny, np.maximum(np.abs(y - wanted) - tiny, 0), np.abs(y - wanted))
    return error / place


def grid(function, dtype):
    low, high = -750.0, 750.0
    rng = np.random.default_rng(0)
    tiny = np.geomspace(np.finfo(dtype).smallest_normal, 1, 20_000)
    pieces = [
        np.linspace(-1, 1, 50_001),
        np.linspace(-25, 25, 100_001),  # where tanh and float32's sigmoid saturate
        np.linspace(max(low, -110), min(high, 110), 50_001),
        np.linspace(low, high, 50_001),
        tiny,
        -tiny,
        np.log(2) * (rng.integers(-30, 30, 20_000) + 0.5) * (1 + 1e-6 * rng.standard_normal(20_000)),  # exp's seams
        np.array([0.0, -0.0, low, high]),
    ]
    x = np.concatenate(pieces).astype(dtype)
    return x[(x >= low) & (x <= high)]


def test_error_in_ulps(isa, function, dtype):
    x = grid(function, dtype)
    error = ulps(activate(isa, function, x), exact(function, x))
    worst = int(np.argmax(error))
    assert error[worst] <= ULP, f"{function}({x[worst]!r}) is off by {float(error[worst]):.2f} ulp"


def test_far_outside(isa, dtype):
    """Where the functions have stopped changing they give their limits, up to the largest number there is."""
    large = np.array([30, 89, 1e3, 1e10, np.finfo(dtype).max], dtype)
    np.testing.assert_array_equal(activate(isa, "tanh", large), 1)
    np.testing.assert_array_equal(activate(isa, "tanh", -large), -1)
    np.testing.assert_allclose(activate(isa, "sigmoid", large), 1, rtol=1e-12)
    falling = activate(isa, "sigmoid", -large)
    assert (np.diff(falling) <= 0).all()
    assert 0 <= falling[-1] <= np.finfo(dtype).smallest_normal


def test_infinities_give_the_limits(isa, function, dtype):
    at_minus, at_plus = activate(isa, function, np.array([-np.inf, np.inf], dtype))
    low, high = {"sigmoid": (0, 1), "tanh": (-1, 1)}[function]
    # Numbers below the smallest normal one count as zero: the processor may flush them.
    assert abs(at_minus - low) <= np.finfo(dtype).smallest_normal
    assert at_plus == high


def test_exact_at_zero(isa, dtype):
    zeros = np.array([0.0, -0.0, 0.0], dtype)
    for function, value in (("sigmoid", 0.5), ("tanh", 0)):
        np.testing.assert_array_equal(activate(isa, function, zeros), value)


def test_not_a_number_stays_in_its_place(isa, function, dtype):
    x = np.linspace(-3, 3, 37, dtype=dtype)
    clean = activate(isa, function, x)
    for k in range(len(x)):
        with_nan = x.copy()
        with_nan[k] = np.nan
        y = activate(isa, function, with_nan)
        assert np.isnan(y[k])
        np.testing.assert_array_equal(np.delete(y, k), np.delete(clean, k))


def test_every_length_and_every_place_gives_the_same_bits(isa, function, dtype):
    """A value's result depends neither on its lane, nor on whether it lies in a whole vector or in the tail."""
    x = np.random.default_rng(1).normal(scale=4, size=71).astype(dtype)
    each = np.array([activate(isa, function, x[k : k + 1])[0] for k in range(len(x))])
    for length in range(len(x)):
        np.testing.assert_array_equal(activate(isa, function, x[:length]), each[:length])
        np.testing.assert_array_equal(activate(isa, function, x[length:]), each[length:])


def test_nothing_is_written_past_the_end(isa, function, dtype):
    x = np.random.default_rng(2).normal(size=70).astype(dtype)
    for length in range(len(x)):
        y = np.full(len(x) + 20, 77, dtype)
        kernels.activate(isa, y[10 : 10 + length], x[:length], function)
        assert (y[:10] == 77).all()
        assert (y[10 + length :] == 77).all()


def test_no_alignment_is_needed(isa, function, dtype):
    x = np.random.default_rng(3).normal(size=45).astype(dtype)
    expected = activate(isa, function, x)
    size = np.dtype(dtype).itemsize
    for offset in range(0, 64, size):
        y = helpers.shifted(np.zeros_like(x), 64 - size - offset)
        kernels.activate(isa, y, helpers.shifted(x, offset), function)
        np.testing.assert_array_equal(y, expected)


def test_in_place(isa, function, dtype):
    x = np.random.default_rng(4).normal(size=45).astype(dtype)
    expected = activate(isa, function, x)
    kernels.activate(isa, x, x, function)
    np.testing.assert_array_equal(x, expected)


def test_wrong_arguments():
    x = np.zeros(3)
    with pytest.raises(ValueError, match=r"isa: 'abacus' cannot run here; available: .*baseline"):
        kernels.activate("abacus", x, x, "tanh")
    with pytest.raises(ValueError, match="y: length 4, expected that of x, 3"):
        kernels.activate("baseline", np.zeros(4), x, "tanh")
    assert kernels.available_isas()[-1] == "baseline"
