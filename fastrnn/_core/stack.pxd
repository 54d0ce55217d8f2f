# A stack's layers, and the arrays that come to it. See stack.pyx.
from fastrnn._core.cell cimport Cell
from fastrnn._core.matrix cimport Matrix


cdef class Layer:
    cdef Matrix w_ih
    cdef Cell cell
    cdef Layer other, above


# A view of a C-contiguous array of native floats of this size, to be released; False, and no view, for others.
cdef bint take(Py_buffer* view, array, Py_ssize_t itemsize, int ndim, bint writable)
