# Weights as the time loops multiply with them. See matrix.pyx.
from fastrnn._core.blas cimport gemm, real
from fastrnn._core.kernels cimport fr_table


cdef class Matrix:
    cdef const fr_table* table      # of the packed form; NULL: BLAS
    cdef const void* data
    cdef object owner               # of data
    cdef readonly Py_ssize_t K, N   # a (m,K) becomes c (m,N)
    cdef readonly object dtype
    cdef Py_ssize_t ld              # for BLAS: row stride, and whether data is (N,K) or (K,N)
    cdef bint by_output


cdef inline void multiply(Matrix w, real* c, Py_ssize_t ldc, const real* a, Py_ssize_t lda, Py_ssize_t m,
                          bint add) noexcept nogil:
    """c (m,N) = a (m,K) w, or c += with `add`. Row strides ldc, lda."""
    if w.table == NULL:
        gemm(False, w.by_output, m, w.N, w.K, a, lda, <const real*>w.data, w.ld, <real>(1 if add else 0), c, ldc)
    elif real is float:
        w.table.f32.multiply(c, ldc, a, lda, w.data, m, w.K, w.N, add)
    else:
        w.table.f64.multiply(c, ldc, a, lda, w.data, m, w.K, w.N, add)
