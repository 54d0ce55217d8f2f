# Weights as everything multiplies with them. See matrix.pyx.
from fastrnn._core.blas cimport gemm
from fastrnn._core.kernels cimport fr_kernels
from fastrnn._core.team cimport Work


cdef class Matrix:
    cdef const fr_kernels* kernels  # NULL: BLAS
    cdef const char* data           # packed, or for BLAS and where there is scratch as it came
    cdef const char* source         # what members have still to pack, each its own columns, or NULL
    cdef char* scratch              # of each member who multiplies with unpacked weights, else NULL
    cdef Py_ssize_t scratch_size    # of one
    cdef int members                # how many have some
    cdef object owner               # of data and scratch
    cdef readonly Py_ssize_t K, N   # a (m,K) becomes c (m,N)
    cdef readonly object dtype
    cdef Py_ssize_t itemsize
    cdef Py_ssize_t ld              # of what came: row stride, and whether it is (N,K) or (K,N)
    cdef bint by_output

    cdef set(self, owner, const char* w, Py_ssize_t n, Py_ssize_t k, dtype, const fr_kernels* kernels, bint transposed,
             int unpacked_for, bint later=*, char* scratch=*)
    cdef void pack_part(self, Py_ssize_t n0, Py_ssize_t n1) noexcept nogil


cdef class Multiplication(Work):
    # c (m,N) = a (m,K) w, or c += with `add`, which is for one thread.
    cdef Matrix w
    cdef char* c
    cdef const char* a
    cdef Py_ssize_t ldc, lda, m
    cdef bint add

    cdef go(self, int members, long patience)


cdef class Outer(Work):
    # c (M,N) = a' b, or c += with `add`; a (K,M), b (K,N), of whose rows first <= row < last of each block are added.
    cdef const fr_kernels* kernels
    cdef char* scratch          # of each part
    cdef Py_ssize_t scratch_size
    cdef char* c
    cdef const char* a
    cdef const char* b
    cdef Py_ssize_t ldc, lda, ldb, M, N, itemsize
    cdef const Py_ssize_t* blocks
    cdef Py_ssize_t blocks_count
    cdef bint add

    cdef go(self, int members, long patience)


cdef inline void outer_blocks(const fr_kernels* kernels, char* c, Py_ssize_t ldc, const char* a, Py_ssize_t lda,
                              const char* b, Py_ssize_t ldb, Py_ssize_t M, Py_ssize_t N, Py_ssize_t item,
                              const Py_ssize_t* blocks, Py_ssize_t count, bint add, char* scratch) noexcept nogil:
    """c (M,N) = a' b over the rows first <= row < last of each block, or c += with `add`."""
    cdef Py_ssize_t i, row
    for i in range(count):
        row = blocks[2 * i]
        kernels.outer(c, ldc, a + row * lda * item, lda, b + row * ldb * item, ldb, M, N, blocks[2 * i + 1] - row,
                      add or i > 0, scratch)


cdef inline void multiply(Matrix w, void* c, Py_ssize_t ldc, const void* a, Py_ssize_t lda, Py_ssize_t m, bint add,
                          bint backwards) noexcept nogil:
    """
    c (m,N) = a (m,K) w, or c += with `add`; all of w's type. Row strides ldc, lda. Unpacked: for one thread. Packed: from
    the last columns on if `backwards`, see fastrnn.h.
    """
    if w.scratch != NULL:
        multiply_unpacked(w, c, ldc, a, lda, m, 0, w.N, add, 0)
    elif w.kernels != NULL:
        w.kernels.multiply(c, ldc, a, lda, w.data, m, w.K, w.N, add, 1, 0, 0, backwards)
    elif w.itemsize == 4:
        gemm(False, w.by_output, m, w.N, w.K, <const float*>a, lda, <const float*>w.data, w.ld,
             <float>(1 if add else 0), <float*>c, ldc)
    else:
        gemm(False, w.by_output, m, w.N, w.K, <const double*>a, lda, <const double*>w.data, w.ld,
             <double>(1 if add else 0), <double*>c, ldc)


cdef inline int most_members(Matrix w, int members) noexcept:
    """
    How many of so many members can multiply with it, if there is one: one with BLAS, whose own threads share, and unpacked
    as many as have scratch.
    """
    if w is None or w.kernels != NULL and w.scratch == NULL:
        return members
    return 1 if w.kernels == NULL else min(members, w.members)


# Columns are shared out in multiples of this, which every kernel's panels divide (64 floats, 32 doubles at most).
cdef enum:
    COLUMNS = 64


cdef inline void multiply_columns(Matrix w, void* c, Py_ssize_t ldc, const void* a, Py_ssize_t lda, Py_ssize_t m,
                                  Py_ssize_t n0, Py_ssize_t n1, bint add, bint backwards) noexcept nogil:
    """The columns n0 <= n < n1 of c = a w, or c += with `add`; n0 a multiple of COLUMNS, w packed."""
    if n0 < n1:
        w.kernels.multiply(<char*>c + n0 * w.itemsize, ldc, a, lda, w.data + n0 * w.K * w.itemsize, m, w.K, n1 - n0,
                           add, 1, 0, 0, backwards)


cdef inline void multiply_unpacked(Matrix w, void* c, Py_ssize_t ldc, const void* a, Py_ssize_t lda, Py_ssize_t m,
                                   Py_ssize_t n0, Py_ssize_t n1, bint add, int rank) noexcept nogil:
    """As `multiply_columns` for any n0, with the scratch of member `rank`."""
    cdef Py_ssize_t column = w.ld if w.by_output else 1, step = 1 if w.by_output else w.ld
    w.kernels.multiply_once(<char*>c + n0 * w.itemsize, ldc, a, lda, w.data + n0 * column * w.itemsize, column, step, m,
                            w.K, n1 - n0, add, w.scratch + rank * w.scratch_size)


# c = a w for m rows of each of so many groups, which begin `from_` rows of a and `to` rows of c after one another; w packed.
cdef inline void multiply_groups(Matrix w, char* c, Py_ssize_t ldc, const char* a, Py_ssize_t m, Py_ssize_t groups,
                                 Py_ssize_t from_, Py_ssize_t to) noexcept nogil:
    w.kernels.multiply(c, ldc, a, w.K, w.data, m, w.K, w.N, False, groups, from_, to, False)


# A member's part of c = a w: of the rows if there are enough, else of the columns.
cdef void multiply_part(Matrix w, char* c, Py_ssize_t ldc, const char* a, Py_ssize_t lda, Py_ssize_t m, int rank,
                        int size) noexcept nogil
