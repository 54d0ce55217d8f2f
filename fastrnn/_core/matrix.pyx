"""Weights as everything multiplies with them: packed for the kernels of `csrc`, or as they are for BLAS.

The loops of the cells know `multiply` and nothing else, so one loop serves the `native` and the `blas` engine.
"""
import numpy as np

from fastrnn._core.arrays cimport address
from fastrnn._core.kernels cimport find_table, fr_kernels, kernels_of
from fastrnn._core.memory cimport Block, array_in, room
from fastrnn._core.team cimport MOST_MEMBERS, Work, cut, share

cdef enum:
    LEAST_HUGE = 4 * 1024 * 1024  # bytes from which memory.pyx asks for huge pages; who touches less takes no more


cdef class Matrix:
    """
    A weight matrix, ready to be multiplied with rows from the left.

    Parameters
    ----------
    w : array (n, k), row-major
        Of float32 or float64. With BLAS, or unpacked, it is referred to, not copied.
    transposed : bool
        False: rows (m, k) become (m, n), a forward pass. True: rows (m, n) become (m, k), its backward pass.
    isa : str or None
        The instruction set to pack for; None for BLAS.
    unpacked_for : int
        0 packs it. Otherwise how many members at most multiply with it: each packs a panel, uses it, and packs the next
        one in its place. For weights that are used once: they are read once and not written.
    """

    def __init__(self, w, bint transposed=False, str isa=None, int unpacked_for=0):
        cdef const fr_kernels* kernels = NULL if isa is None else kernels_of(find_table(isa), w.itemsize)
        if not w.flags.c_contiguous:
            raise ValueError(f"weights: shape {w.shape}, strides {w.strides}, expected rows that lie together")
        self.set(w, <const char*>address(w), w.shape[0], w.shape[1], w.dtype, kernels, transposed, unpacked_for)

    cdef set(self, owner, const char* w, Py_ssize_t n, Py_ssize_t k, dtype, const fr_kernels* kernels, bint transposed,
             int unpacked_for, bint later=False, char* scratch=NULL):
        """
        The same of memory that belongs to `owner`; no kernels for BLAS. Packed `later`: by members, with `pack_part`.
        Unpacked for one, it may be given its scratch, of COLUMNS K elements, which then somebody else keeps.
        """
        self.dtype, self.itemsize, self.kernels = dtype, dtype.itemsize, kernels
        self.K, self.N = (n, k) if transposed else (k, n)
        self.ld, self.by_output = k, not transposed
        cdef Block block
        if kernels == NULL or unpacked_for:
            self.owner, self.data = owner, w
            if unpacked_for == 1 and scratch != NULL:
                self.members, self.scratch = 1, scratch
            elif unpacked_for:
                unpacked_for = min(unpacked_for, MOST_MEMBERS)
                self.scratch_size = COLUMNS * self.itemsize * max(1, self.K)
                block = room(unpacked_for * self.scratch_size)
                self.owner, self.members, self.scratch = (owner, block), unpacked_for, block.data
            return
        self.owner = aligned(kernels.packed_size(self.K, self.N), dtype)
        self.data, self.source = <const char*>address(self.owner), w
        if not later:
            with nogil:
                self.pack_part(0, self.N)
            self.source = NULL

    cdef void pack_part(self, Py_ssize_t n0, Py_ssize_t n1) noexcept nogil:
        """The columns n0 <= n < n1; n0 a multiple of COLUMNS."""
        cdef Py_ssize_t column = self.ld if self.by_output else 1, step = 1 if self.by_output else self.ld
        if n0 < n1:
            self.kernels.pack(<char*>self.data + n0 * self.K * self.itemsize, self.source + n0 * column * self.itemsize,
                              column, step, self.K, n1 - n0)


def aligned(Py_ssize_t size, dtype):
    """An uninitialised vector of kept memory, from 1 MB on in huge pages where the system has them.

    Weights of 1 MB, about a core's own cache, are read from it at 200 GB/s there, and at 165 from pages of 4 KB.
    """
    cdef Py_ssize_t item = dtype.itemsize, nbytes = size * item
    cdef Block block = room(max(nbytes, LEAST_HUGE) if nbytes >= LEAST_HUGE // 4 else nbytes)
    return array_in(block, block.data, item, 1, size, 1, 1)


cdef void multiply_part(Matrix w, char* c, Py_ssize_t ldc, const char* a, Py_ssize_t lda, Py_ssize_t m, int rank,
                        int size) noexcept nogil:
    cdef Py_ssize_t row = cut(m, rank, size), panels, n0
    if w.scratch != NULL:
        panels = (w.N + COLUMNS - 1) // COLUMNS
        if panels >= size:  # each packs its own
            n0 = cut(panels, rank, size) * COLUMNS
            multiply_unpacked(w, c, ldc, a, lda, m, n0, min(w.N, cut(panels, rank + 1, size) * COLUMNS), False, rank)
        else:
            multiply_unpacked(w, c + row * ldc * w.itemsize, ldc, a + row * lda * w.itemsize, lda,
                              cut(m, rank + 1, size) - row, 0, w.N, False, rank)
    elif size == 1 or m >= 16 * size:
        multiply(w, c + row * ldc * w.itemsize, ldc, a + row * lda * w.itemsize, lda, cut(m, rank + 1, size) - row,
                 False, False)
    else:
        panels = (w.N + COLUMNS - 1) // COLUMNS
        multiply_columns(w, c, ldc, a, lda, m, cut(panels, rank, size) * COLUMNS,
                         min(w.N, cut(panels, rank + 1, size) * COLUMNS), False, False)


cdef class Multiplication(Work):
    cdef void part(self, int rank, int size) noexcept nogil:
        if self.add:  # alone
            multiply(self.w, self.c, self.ldc, self.a, self.lda, self.m, True, False)
        else:
            multiply_part(self.w, self.c, self.ldc, self.a, self.lda, self.m, rank, size)

    cdef go(self, int members, long patience):
        members = 1 if self.add else most_members(self.w, members)
        with nogil:
            share(self, members, patience)


cdef Py_ssize_t row_stride(array, dtype) except -1:
    backwards, apart = array.strides[0] < 0, array.strides[1] != dtype.itemsize
    if array.dtype != dtype or array.size and (backwards and array.shape[0] > 1 or apart and array.shape[1] > 1):
        raise ValueError(f"{array.dtype}, strides {array.strides}: expected rows of {dtype} that lie together")
    return max(0, array.strides[0] // dtype.itemsize)


def multiply_into(Matrix w, c, a, bint add=False, int members=1, long patience=0):
    """c = a w, or c += with `add`, for whole arrays; the elements of a row lie together. For `members` see `_sharing`."""
    if a.shape[1] != w.K or c.shape[1] != w.N or a.shape[0] != c.shape[0]:
        raise ValueError(f"shapes do not fit: a {a.shape}, w {(w.K, w.N)}, c {c.shape}")
    cdef Multiplication job = Multiplication()
    job.w, job.m, job.add = w, a.shape[0], add
    job.ldc, job.lda = row_stride(c, w.dtype), row_stride(a, w.dtype)
    job.c, job.a = <char*>address(c), <const char*>address(a)
    job.go(members, patience)


cdef class Outer(Work):
    cdef void part(self, int rank, int size) noexcept nogil:
        cdef Py_ssize_t m = cut(self.M, rank, size)
        outer_blocks(self.kernels, self.c + m * self.ldc * self.itemsize, self.ldc, self.a + m * self.itemsize, self.lda,
                     self.b, self.ldb, cut(self.M, rank + 1, size) - m, self.N, self.itemsize, self.blocks,
                     self.blocks_count, self.add, self.scratch + rank * self.scratch_size)

    cdef go(self, int members, long patience):
        cdef Py_ssize_t K = 0, i
        for i in range(self.blocks_count):
            K = max(K, self.blocks[2 * i + 1] - self.blocks[2 * i])
        members = max(1, min(members, MOST_MEMBERS))  # no more parts are made, and each has scratch for its rows
        cdef Py_ssize_t part = (self.M + members - 1) // members, alone
        # Alone it is all of M; a whole number of cache lines.
        alone = self.kernels.outer_size(self.M, self.N, K) * self.itemsize
        self.scratch_size = alone if members == 1 else self.kernels.outer_size(part, self.N, K) * self.itemsize
        self.scratch_size = (self.scratch_size + 63) & ~63
        cdef Block scratch = room(max(alone, members * self.scratch_size))
        self.scratch = scratch.data
        with nogil:
            share(self, members, patience)


def outer_into(str isa, c, a, b, const Py_ssize_t[:, ::1] blocks, bint add=False, int members=1, long patience=0):
    """c (M,N) = a' b, or c += with `add`; a (K,M), b (K,N), of whose rows each (first, last) of `blocks` is added."""
    if a.shape[0] != b.shape[0] or c.shape[0] != a.shape[1] or c.shape[1] != b.shape[1]:
        raise ValueError(f"shapes do not fit: a {a.shape}, b {b.shape}, c {c.shape}")
    cdef Outer job = Outer()
    cdef Py_ssize_t i
    for i in range(blocks.shape[0]):
        if not 0 <= blocks[i, 0] <= blocks[i, 1] <= a.shape[0]:
            raise ValueError(f"blocks: {np.asarray(blocks[i])}, expected rows within 0 to {a.shape[0]}")
    if blocks.shape[0] == 0:
        if not add:
            c[...] = 0
        return
    job.blocks, job.blocks_count = &blocks[0, 0], blocks.shape[0]
    job.itemsize, job.M, job.N = c.itemsize, a.shape[1], b.shape[1]
    job.kernels, job.add = kernels_of(find_table(isa), job.itemsize), add
    job.ldc, job.lda, job.ldb = row_stride(c, c.dtype), row_stride(a, c.dtype), row_stride(b, c.dtype)
    job.c, job.a, job.b = <char*>address(c), <const char*>address(a), <const char*>address(b)
    job.go(members, patience)


def sum_rows_into(str isa, y, a, const Py_ssize_t[:, ::1] blocks, bint add=False):
    """y (N) = the sum over the rows of a (K,N), block by block as above, or y += with `add`."""
    cdef const fr_kernels* kernels = kernels_of(find_table(isa), a.itemsize)
    cdef Py_ssize_t lda = row_stride(a, a.dtype), N = a.shape[1], i
    cdef void* to = address(y)
    cdef const char* rows = <const char*>address(a)
    cdef Py_ssize_t row_bytes = lda * a.itemsize
    if blocks.shape[0] == 0 and not add:
        y[...] = 0
    with nogil:
        for i in range(blocks.shape[0]):
            kernels.sum_rows(to, rows + blocks[i, 0] * row_bytes, lda, blocks[i, 1] - blocks[i, 0], N, add or i > 0)


def sum_products_into(str isa, y, a, b, const Py_ssize_t[:, ::1] blocks):
    """y (N) = the sum over the rows of a times b, both (K,N), block by block as above."""
    cdef const fr_kernels* kernels = kernels_of(find_table(isa), a.itemsize)
    cdef Py_ssize_t lda = row_stride(a, a.dtype), ldb = row_stride(b, a.dtype), N = a.shape[1], i, item = a.itemsize
    cdef void* to = address(y)
    cdef const char* from_a = <const char*>address(a)
    cdef const char* from_b = <const char*>address(b)
    if blocks.shape[0] == 0:
        y[...] = 0
    with nogil:
        for i in range(blocks.shape[0]):
            kernels.sum_products(to, from_a + blocks[i, 0] * lda * item, lda, from_b + blocks[i, 0] * ldb * item, ldb,
                                 blocks[i, 1] - blocks[i, 0], N, i > 0)


def norm_back_into(str isa, d, normal, scale, gain):
    """d (K,N) <- the gradient of what was normalised, from that of the result."""
    cdef const fr_kernels* kernels = kernels_of(find_table(isa), d.itemsize)
    cdef Py_ssize_t K = d.shape[0], N = d.shape[1]
    cdef void* to = address(d)
    cdef const void* x = address(normal)
    cdef const void* s = address(scale)
    cdef const void* g = address(gain)
    with nogil:
        kernels.norm_back(to, to, x, s, g, K, N)
