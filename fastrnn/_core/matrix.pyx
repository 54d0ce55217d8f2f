"""Weights as the time loops multiply with them: packed for the kernels of `csrc`, or as they are for BLAS.

The loops of the cells know `multiply` and nothing else, so one loop serves the `native` and the `blas` engine.
"""
import numpy as np

from fastrnn._core.kernels cimport find_table


cdef class Matrix:
    """
    A weight matrix, ready to be multiplied with rows from the left.

    Parameters
    ----------
    w : array (n, k), row-major
        Of float32 or float64. With BLAS it is referred to, not copied.
    transposed : bool
        False: rows (m, k) become (m, n), a forward pass. True: rows (m, n) become (m, k), its backward pass.
    isa : str or None
        The instruction set to pack for; None for BLAS.
    """

    def __init__(self, w, bint transposed=False, str isa=None):
        cdef Py_ssize_t n = w.shape[0], k = w.shape[1]
        self.dtype = w.dtype
        self.K, self.N = (n, k) if transposed else (k, n)
        if isa is not None:
            self.table = find_table(isa)
            pack(self, w, transposed)
        else:
            self.owner, self.ld, self.by_output = w, k, not transposed
            if w.dtype == np.float32:
                self.data = address[float](w)
            else:
                self.data = address[double](w)


cdef const void* address(const real[:, ::1] w) noexcept:
    return &w[0, 0]


def pack(Matrix self, const real[:, ::1] w, bint transposed):
    """Fill a matrix's packed form."""
    cdef:
        Py_ssize_t column = 1 if transposed else w.shape[1], step = w.shape[1] if transposed else 1, size
        real[::1] packed
    if real is float:
        size = self.table.f32.packed_size(self.K, self.N)
    else:
        size = self.table.f64.packed_size(self.K, self.N)
    self.owner = packed = aligned(size, self.dtype)
    self.data = &packed[0]
    with nogil:
        if real is float:
            self.table.f32.pack(&packed[0], &w[0, 0], column, step, self.K, self.N)
        else:
            self.table.f64.pack(&packed[0], &w[0, 0], column, step, self.K, self.N)


def aligned(Py_ssize_t size, dtype):
    """An uninitialised vector that begins at a 64-byte boundary."""
    cdef Py_ssize_t itemsize = dtype.itemsize, spare = 64 // itemsize
    array = np.empty(size + spare, dtype)
    cdef Py_ssize_t skip = (-array.ctypes.data // itemsize) % spare
    return array[skip:skip + size]


def multiply_into(Matrix w, real[:, :] c, const real[:, :] a, bint add=False):
    """c = a w, or c += with `add`, for whole arrays; the elements of a row lie together."""
    if a.shape[1] != w.K or c.shape[1] != w.N or a.shape[0] != c.shape[0]:
        raise ValueError(f"shapes do not fit: a {a.shape[0], a.shape[1]}, w {w.K, w.N}, c {c.shape[0], c.shape[1]}")
    cdef Py_ssize_t size = sizeof(real)
    with nogil:
        multiply(w, &c[0, 0], c.strides[0] // size, &a[0, 0], a.strides[0] // size, a.shape[0], add)


def outer_into(str isa, real[:, :] c, const real[:, :] a, const real[:, :] b):
    """c (M,N) = a' b, a (K,M), b (K,N); each row of b is read up to the next multiple of 64 bytes, see fastrnn.h."""
    if a.shape[0] != b.shape[0] or c.shape[0] != a.shape[1] or c.shape[1] != b.shape[1]:
        raise ValueError(f"shapes do not fit: a {a.shape[0], a.shape[1]}, b {b.shape[0], b.shape[1]}")
    cdef:
        const fr_table* table = find_table(isa)
        Py_ssize_t size = sizeof(real), ldc = c.strides[0] // size, lda = a.strides[0] // size
        Py_ssize_t ldb = b.strides[0] // size
    with nogil:
        if real is float:
            table.f32.outer(&c[0, 0], ldc, &a[0, 0], lda, &b[0, 0], ldb, c.shape[0], c.shape[1], a.shape[0])
        else:
            table.f64.outer(&c[0, 0], ldc, &a[0, 0], lda, &b[0, 0], ldb, c.shape[0], c.shape[1], a.shape[0])
