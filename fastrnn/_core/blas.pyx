"""Matrix products through `scipy.linalg.cython_blas`, row-major.

BLAS is column-major, and a row-major matrix is its own transpose there: C = A B in rows is C' = B' A' in columns. So
the operands change places, the flags stay, and nothing is copied.
"""
from scipy.linalg.cython_blas cimport dgemm, dgemv, sgemm, sgemv

# SciPy declares its BLAS with C int whatever the library beneath uses; a SciPy that changed that would be refused
# by the signature check that Cython makes when this module is imported. This is the one place to follow it.
ctypedef int blas_int

# No single dimension may pass this (functional checks T*B, I, G*H); leading dimensions are such dimensions too.
MAX_DIMENSION = 2**31 - 1


cdef void gemm(bint trans_a, bint trans_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t lda,
               const real* b, Py_ssize_t ldb, real beta, real* c, Py_ssize_t ldc) noexcept nogil:
    """C (m,n) = A (m,k) B (k,n) + beta C. `trans_a`: A is stored (k,m). `trans_b`: B is stored (n,k)."""
    cdef:
        blas_int m_ = <blas_int>m, n_ = <blas_int>n, k_ = <blas_int>k, one = 1
        blas_int lda_ = <blas_int>max(lda, 1), ldb_ = <blas_int>max(ldb, 1), ldc_ = <blas_int>max(ldc, 1)
        real alpha = 1
        char* flag_a = b"T" if trans_a else b"N"
        char* flag_b = b"T" if trans_b else b"N"
        char* flag_v = b"N" if trans_b is False else b"T"
        blas_int rows, columns
        Py_ssize_t i, j
    if m == 0 or n == 0:
        return
    if k == 0:  # several BLAS leave C as it was
        if beta == 0:
            for i in range(m):
                for j in range(n):
                    c[i * ldc + j] = 0
        return
    if m == 1 and not trans_a:
        # One row: gemv, 3 to 7 times as fast as a gemm with m=1 under OpenBLAS's Haswell kernels, equal under SkylakeX's.
        # c' = B' a': B lies in columns as (n,k) when stored (k,n), which is what the product wants, so 'N'.
        rows = n_ if not trans_b else k_
        columns = k_ if not trans_b else n_
        if real is float:
            sgemv(flag_v, &rows, &columns, &alpha, <real*>b, &ldb_, <real*>a, &one, &beta, c, &one)
        else:
            dgemv(flag_v, &rows, &columns, &alpha, <real*>b, &ldb_, <real*>a, &one, &beta, c, &one)
        return
    if real is float:
        sgemm(flag_b, flag_a, &n_, &m_, &k_, &alpha, <real*>b, &ldb_, <real*>a, &lda_, &beta, c, &ldc_)
    else:
        dgemm(flag_b, flag_a, &n_, &m_, &k_, &alpha, <real*>b, &ldb_, <real*>a, &lda_, &beta, c, &ldc_)


def matmul_into(real[:, :] c, const real[:, :] a, const real[:, :] b, bint trans_a=False, bint trans_b=False,
                bint add=False):
    """C = op(A) op(B), or C += with `add`. Rows may be strided, the elements within a row lie together."""
    cdef:
        Py_ssize_t m = a.shape[1] if trans_a else a.shape[0], k = a.shape[0] if trans_a else a.shape[1]
        Py_ssize_t n = b.shape[0] if trans_b else b.shape[1], k_b = b.shape[1] if trans_b else b.shape[0]
        Py_ssize_t size = sizeof(real)
        real beta = 1 if add else 0
    if k_b != k or c.shape[0] != m or c.shape[1] != n:
        raise ValueError(f"shapes do not fit: op(A) ({m}, {k}), op(B) ({k_b}, {n}), C ({c.shape[0]}, {c.shape[1]})")
    for columns, stride in ((a.shape[1], a.strides[1]), (b.shape[1], b.strides[1]), (n, c.strides[1])):
        if columns > 1 and stride != size:
            raise ValueError("the elements of a row must lie together")
    with nogil:
        gemm(trans_a, trans_b, m, n, k, &a[0, 0], a.strides[0] // size, &b[0, 0], b.strides[0] // size, beta,
             &c[0, 0], c.strides[0] // size)
