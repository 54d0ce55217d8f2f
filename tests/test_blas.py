"""`matmul_into`, the one door to BLAS, against NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn._core.blas import matmul_into

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}
sizes = st.one_of(st.integers(0, 3), st.integers(0, 40), st.sampled_from([127, 300]))


def operand(rng, rows, columns, dtype, step, pad):
    """A (rows, columns) window of a larger array: every `step`-th row, `pad` elements apart; and that array."""
    whole = rng.standard_normal((rows * step, columns + pad)).astype(dtype)
    return whole[::step, pad // 2 : pad // 2 + columns], whole


@given(
    m=sizes,
    n=sizes,
    k=sizes,
    dtype=st.sampled_from([np.float32, np.float64]),
    trans_a=st.booleans(),
    trans_b=st.booleans(),
    add=st.booleans(),
    steps=st.tuples(*[st.integers(1, 3)] * 3),
    pads=st.tuples(*[st.integers(0, 5)] * 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_products(m, n, k, dtype, trans_a, trans_b, add, steps, pads, seed):
    rng = np.random.default_rng(seed)
    a, _ = operand(rng, *((k, m) if trans_a else (m, k)), dtype, steps[0], pads[0])
    b, _ = operand(rng, *((n, k) if trans_b else (k, n)), dtype, steps[1], pads[1])
    c, around = operand(rng, m, n, dtype, steps[2], pads[2])
    if not add:
        c[:] = np.nan  # what stood there before must not matter, and 0 * NaN is NaN
    exact = (a.T if trans_a else a).astype(np.float64) @ (b.T if trans_b else b) + (c if add else 0)
    before = around.copy()
    matmul_into(c, a, b, trans_a, trans_b, add)
    # The rounding errors of k products of about 1 add up as a random walk does.
    np.testing.assert_allclose(c, exact, rtol=0, atol=TOLERANCE[dtype] * max(1, k) ** 0.5)
    # Between the rows and beside them nothing was written.
    before[:: steps[2], pads[2] // 2 : pads[2] // 2 + n] = exact
    c[:] = exact
    np.testing.assert_array_equal(around, before)


def test_one_row_whose_stride_means_nothing():
    """Along an axis of length one any stride is right, also one that no BLAS takes for a leading dimension."""
    column = np.arange(1.0, 6.0).reshape(5, 1)
    row = column.T  # (1, 5) with strides (8, 8), contiguous in both orders
    assert row.strides == (8, 8)
    assert row.flags.c_contiguous
    ones, square = np.ones((3, 1)), np.eye(5)
    for a, b, trans_a, trans_b in (
        (ones, row, False, False),
        (ones.T.copy(), row, True, False),
        (row, square, False, False),
        (square, row, False, True),
    ):
        expected = (a.T if trans_a else a) @ (b.T if trans_b else b)
        c = np.full(expected.shape, np.nan)
        matmul_into(c, a, b, trans_a, trans_b)
        np.testing.assert_array_equal(c, expected)
    c = np.full((5, 1), np.nan).T
    matmul_into(c, np.ones((1, 1)), row.copy())
    np.testing.assert_array_equal(c, row)


def test_read_only_operands():
    a, b, c = np.full((2, 3), 2.0), np.full((3, 4), 5.0), np.empty((2, 4))
    a.flags.writeable = b.flags.writeable = False
    matmul_into(c, a, b)
    np.testing.assert_array_equal(c, 30)


@pytest.mark.parametrize(
    ("c", "a", "b", "flags"),
    [
        ((2, 4), (2, 3), (5, 4), ()),
        ((2, 4), (3, 2), (3, 4), ()),
        ((2, 5), (2, 3), (3, 4), ()),
        ((4, 2), (2, 3), (3, 4), ()),
        ((2, 4), (2, 3), (3, 4), (True,)),
        ((2, 4), (2, 3), (3, 4), (False, True)),
    ],
)
def test_shapes_that_do_not_fit(c, a, b, flags):
    with pytest.raises(ValueError, match="shapes do not fit"):
        matmul_into(np.zeros(c), np.zeros(a), np.zeros(b), *flags)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_strided_rows_are_refused(which):
    operands = [np.zeros((2, 2)) for _ in range(3)]
    operands[which] = np.zeros((2, 4))[:, ::2]
    with pytest.raises(ValueError, match="elements of a row must lie together"):
        matmul_into(*operands)


def test_mixed_types_are_refused():
    with pytest.raises((TypeError, ValueError)):
        matmul_into(np.zeros((2, 2)), np.zeros((2, 2), np.float32), np.zeros((2, 2)))
