"""The kernels' matrix products against NumPy, and the promise that a row's bits do not depend on its neighbours."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn._core import kernels
from fastrnn._core.matrix import Matrix, aligned, multiply_into, outer_into, sum_rows_into

ISAS = kernels.available_isas()
DTYPES = (np.float32, np.float64)
# sizes around what tiles (1 to 8 rows), vectors (up to 16 lanes), panels (4 of them) and blocks (64 steps) are cut at;
# of more than 2048 steps 1024 at a time pass by all panels
rows = st.integers(0, 20)
columns = st.integers(0, 140)
steps = st.one_of(st.integers(0, 9), st.sampled_from([63, 64, 65, 128, 300, 2051]))


def draw(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(a, b, dtype):
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-4 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("members", [2, 3, 63, 64, 200])
def test_parts_of_an_outer_product_keep_to_their_scratch(isa, members):
    """More members than a team has, too: 8,322 rows in 64 parts are packed, in 200 they would not be."""
    a, b = draw((20, 64 * 130 + 2), np.float32, 1), draw((20, 208), np.float32, 2)
    blocks = np.array([[0, 20]], np.intp)
    alone, shared = (np.empty((a.shape[1], b.shape[1]), np.float32) for _ in range(2))
    outer_into(isa, alone, a, b, blocks)
    outer_into(isa, shared, a, b, blocks, False, members, 10**9)
    np.testing.assert_array_equal(shared, alone)
    close(alone, a.T @ b, np.float32)


@given(rows, columns, steps, st.booleans(), st.booleans(), st.sampled_from(DTYPES), st.sampled_from([None, *ISAS]))
def test_multiply(m, n, k, transposed, add, dtype, isa):
    a, w, c = draw((m, k), dtype, 1), draw((n, k), dtype, 2), draw((m, n), dtype, 3)
    expected = a.astype(np.float64) @ w.T.astype(np.float64) + (c if add else 0)
    matrix = Matrix(np.ascontiguousarray(w.T) if transposed else w, transposed, isa)
    wide = np.full((m, n + 3), np.nan, dtype)  # rows may be strided, and what lies between them is not touched
    wide[:, :n] = c
    multiply_into(matrix, wide[:, :n], a, add)
    close(wide[:, :n], expected, dtype)
    assert np.isnan(wide[:, n:]).all()


@pytest.mark.parametrize("isa", [None, *ISAS])
def test_what_does_not_lie_in_rows_is_refused(isa):
    """Weights in Fortran order were taken as if they were not, rows from the last to the first as one."""
    w, a, c = draw((6, 5), np.float32, 1), draw((4, 5), np.float32, 2), np.empty((4, 6), np.float32)
    for strided in (np.asfortranarray(w), w[::-1], np.repeat(w, 2, axis=0)[::2]):
        with pytest.raises(ValueError, match="weights: shape"):
            Matrix(strided, isa=isa)
    for out, rows in ((c[::-1], a), (c, a[::-1]), (c, np.asfortranarray(a))):
        with pytest.raises(ValueError, match="expected rows of float32 that lie together"):
            multiply_into(Matrix(w, isa=isa), out, rows)
    multiply_into(Matrix(w, isa=isa), c[:1], a[:1][::-1])
    close(c[:1], a[:1] @ w.T, np.float32)


@given(rows, columns, steps, st.sampled_from(DTYPES), st.sampled_from(ISAS))
def test_outer(m, n, k, dtype, isa):
    a, c = draw((k, m + 2), dtype, 1), np.full((m, n), np.nan, dtype)
    b = np.full((k, n + 16), np.nan, dtype)  # what stands behind a row's numbers does not matter
    b[:, :n] = draw((k, n), dtype, 2)
    blocks = np.array([[k // 3, k], [0, k // 3]], np.intp)
    outer_into(isa, c, a[:, 1 : m + 1], b[:, :n], blocks)
    exact, exact_b = a[:, 1 : m + 1].astype(np.float64), b[:, :n].astype(np.float64)
    close(c, exact.T @ exact_b, dtype)
    outer_into(isa, c, a[:, 1 : m + 1], b[:, :n], blocks[:1], True)
    close(c, exact.T @ exact_b + exact[k // 3 :].T @ exact_b[k // 3 :], dtype)
    sums = np.full(m, np.nan, dtype)
    sum_rows_into(isa, sums, a[:, 1 : m + 1], blocks)
    close(sums, exact.sum(0), dtype)
    sum_rows_into(isa, sums, a[:, 1 : m + 1], blocks[:1], True)
    close(sums, exact.sum(0) + exact[k // 3 :].sum(0), dtype)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [64, 71])
def test_outer_of_many_columns(m, dtype, isa):
    """The way of large ones, whose last panel has 1 to 4 vectors; of 3 only some rows were computed with AVX2."""
    a, b = draw((70, m), dtype, 1), draw((70, 270), dtype, 2)
    for n in [*range(40, 58), *range(190, 270, 7)]:
        c = np.full((m, n), np.nan, dtype)
        outer_into(isa, c, a, b[:, :n], np.array([[0, 70]], np.intp))
        close(c, a.T @ b[:, :n], dtype)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("m", [24, 57, 131, 200])
def test_a_turned_outer_product_has_the_bits_of_one_that_is_not(m, add, dtype, isa):
    """Columns that fill their vectors badly are made as rows; as many that are whole vectors are not."""
    a, wide = draw((700, m), dtype, 1), draw((700, 128), dtype, 2)
    blocks = np.array([[290, 700], [0, 290]], np.intp)  # of several pieces and of one
    expected = draw((m, 128), dtype, 3)
    before = expected.copy()
    outer_into(isa, expected, a, wide, blocks, add)
    for n in (1, 2, 3, 5, 6, 9, 13, 17, 21, 25, 35, 41, 50, 67):
        b = np.ascontiguousarray(wide[:, :n])
        c = np.full((m, n + 5), np.nan, dtype)
        c[:, :n] = before[:, :n]
        outer_into(isa, c[:, :n], a, b, blocks, add)
        np.testing.assert_array_equal(c[:, :n], expected[:, :n])
        assert np.isnan(c[:, n:]).all()  # what lies between the rows is not touched
        shared = before[:, :n].copy()
        outer_into(isa, shared, a, b, blocks, add, 3, 10**9)
        np.testing.assert_array_equal(shared, expected[:, :n])


@given(rows, columns, steps, st.booleans(), st.sampled_from(DTYPES), st.sampled_from(ISAS), st.sampled_from([1, 2, 5]))
def test_weights_as_they_lie_give_the_same_bits(m, n, k, transposed, dtype, isa, members):
    a, w = draw((m, k), dtype, 1), draw((k, n) if transposed else (n, k), dtype, 2)
    packed, unpacked = np.full((2, m, n), np.nan, dtype)
    multiply_into(Matrix(w, transposed, isa), packed, a)
    multiply_into(Matrix(w, transposed, isa, members), unpacked, a, False, members, 10**9)
    np.testing.assert_array_equal(unpacked, packed)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_weights_that_are_packed_past_the_caches(transposed, dtype, isa):
    """Of 4 MB and more: the same bits as in parts that are small, columns that end within a vector and a panel too."""
    a, w = draw((3, 1030), dtype, 1), draw((1100, 1030), dtype, 2)
    given = np.ascontiguousarray(w.T) if transposed else w
    whole, parts = np.empty((3, 1100), dtype), np.empty((3, 1100), dtype)
    multiply_into(Matrix(given, transposed, isa), whole, a)
    for n in range(0, 1100, 192):
        part = np.ascontiguousarray(given[:, n : n + 192] if transposed else given[n : n + 192])
        multiply_into(Matrix(part, transposed, isa), parts[:, n : n + 192], a)
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_allclose(whole, a @ w.T, rtol=0, atol=2e-3 if dtype == np.float32 else 1e-11)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("columns", "apart", "shift"), [(1088, 1088, 0), (1088, 1088, 1), (1088, 1093, 0), (1081, 1088, 0)]
)
def test_an_outer_product_past_the_caches(columns, apart, shift, isa):
    """Where lines are whole and where they are not; what lies between the rows is not touched."""
    a, b = draw((21, 1040), np.float32, 1), draw((21, columns), np.float32, 2)
    memory = aligned(1040 * apart + 16, np.dtype(np.float32))
    memory[:] = np.nan
    c = memory[shift:][: 1040 * apart].reshape(1040, apart)
    blocks = np.array([[0, 21]], np.intp)
    outer_into(isa, c[:, :columns], a, b, blocks)
    part = np.empty((1040, columns), np.float32)
    for m in range(0, 1040, 260):
        outer_into(isa, part[m : m + 260], np.ascontiguousarray(a[:, m : m + 260]), b, blocks)
    np.testing.assert_array_equal(c[:, :columns], part)
    assert np.isnan(c[:, columns:]).all()
    close(part, a.T @ b, np.float32)


@pytest.mark.parametrize("blocks", [[[0, 5]], [[-1, 2]], [[3, 2]]])
def test_blocks_outside_of_the_rows(blocks):
    with pytest.raises(ValueError, match="blocks"):
        outer_into(ISAS[0], np.zeros((3, 4)), np.zeros((4, 3)), np.zeros((4, 4)), np.array(blocks, np.intp))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 16, 37, 64, 150])
def test_a_row_has_the_same_bits_in_any_company(n, isa, dtype):
    k = 300
    a, matrix = draw((41, k), dtype, 1), Matrix(draw((n, k), dtype, 2), False, isa)
    together = np.empty((41, n), dtype)
    multiply_into(matrix, together, a)
    for size in (1, 2, 3, 5, 6, 7, 8, 13):
        for start in range(0, 41, size):
            part = np.empty((len(a[start : start + size]), n), dtype)
            multiply_into(matrix, part, a[start : start + size])
            np.testing.assert_array_equal(part, together[start : start + size])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [5, 64, 150])
def test_avx2_and_avx512_give_the_same_bits(n, dtype):
    if not {"avx512", "avx2"} <= set(ISAS):
        pytest.skip("this CPU does not have both")
    a, w = draw((9, 200), dtype, 1), draw((n, 200), dtype, 2)
    results = []
    for isa in ("avx512", "avx2"):
        c = np.empty((9, n), dtype)
        multiply_into(Matrix(w, False, isa), c, a)
        results.append(c)
    np.testing.assert_array_equal(*results)


def test_shapes_must_fit():
    matrix = Matrix(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="shapes do not fit"):
        multiply_into(matrix, np.zeros((2, 3)), np.zeros((2, 5)))
    with pytest.raises(ValueError, match="shapes do not fit"):
        outer_into(ISAS[0], np.zeros((3, 4)), np.zeros((2, 3)), np.zeros((3, 4)), np.zeros((0, 2), np.intp))
    with pytest.raises(ValueError, match="expected rows of float64"):
        multiply_into(matrix, np.zeros((2, 3), np.float32), np.zeros((2, 4)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("size", [100, 1 << 20])
def test_memory_for_weights_is_the_process_s_own(size):
    """Large pieces are mapped, and a mapping that is shared has no huge pages and goes on being shared after a fork."""
    array = aligned(size, np.dtype(np.float32))
    assert array.size == size
    assert array.ctypes.data % 64 == 0
    array[:] = 1
    child = os.fork()
    if child == 0:
        array[:] = 2
        os._exit(0)
    os.waitpid(child, 0)
    assert (array == 1).all()
