# Weights as everything multiplies with them. See matrix.pyx.
from fastrnn._core.blas cimport gemm
from fastrnn._core.kernels cimport fr_kernels


cdef class Matrix:
    cdef const fr_kernels* kernels  # of the packed form; NULL: BLAS
    cdef const char* data
    cdef object owner               # of data
    cdef readonly Py_ssize_t K, N   # a (m,K) becomes c (m,N)
    cdef readonly object dtype
    cdef Py_ssize_t itemsize
    cdef Py_ssize_t ld              # for BLAS: row stride, and whether data is (N,K) or (K,N)
    cdef bint by_output


cdef inline void multiply(Matrix w, void* c, Py_ssize_t ldc, const void* a, Py_ssize_t lda, Py_ssize_t m,
                          bint add) noexcept nogil:
    """c (m,N) = a (m,K) w, or c += with `add`; all of w's type. Row strides ldc, lda."""
    if w.kernels != NULL:
        w.kernels.multiply(c, ldc, a, lda, w.data, m, w.K, w.N, add, 1, 0)
    elif w.itemsize == 4:
        gemm(False, w.by_output, m, w.N, w.K, <const float*>a, lda, <const float*>w.data, w.ld,
             <float>(1 if add else 0), <float*>c, ldc)
    else:
        gemm(False, w.by_output, m, w.N, w.K, <const double*>a, lda, <const double*>w.data, w.ld,
             <double>(1 if add else 0), <double*>c, ldc)


# Columns are shared out in multiples of this, which every kernel's panels divide (64 floats, 32 doubles at most).
cdef enum:
    COLUMNS = 64


cdef inline void multiply_columns(Matrix w, void* c, Py_ssize_t ldc, const void* a, Py_ssize_t lda, Py_ssize_t m,
                                  Py_ssize_t n0, Py_ssize_t n1, bint add) noexcept nogil:
    """The columns n0 <= n < n1 of c = a w, or c += with `add`; n0 a multiple of COLUMNS, w packed."""
    if n0 < n1:
        w.kernels.multiply(<char*>c + n0 * w.itemsize, ldc, a, lda, w.data + n0 * w.K * w.itemsize, m, w.K, n1 - n0,
                           add, 1, 0)


cdef void* address(array) except? NULL

# c = a w, rows without gaps, for the m rows from `row` on of each of so many groups of `distance` rows; w packed.
cdef inline void multiply_groups(Matrix w, char* c, const char* a, Py_ssize_t row, Py_ssize_t m, Py_ssize_t groups,
                                 Py_ssize_t distance) noexcept nogil:
    w.kernels.multiply(c + row * w.N * w.itemsize, w.N, a + row * w.K * w.itemsize, w.K, w.data, m, w.K, w.N, False,
                       groups, distance)


# A member's part of c = a w: of the rows if there are enough, else of the columns.
cdef void multiply_part(Matrix w, char* c, Py_ssize_t ldc, const char* a, Py_ssize_t lda, Py_ssize_t m, int rank,
                        int size) noexcept nogil
