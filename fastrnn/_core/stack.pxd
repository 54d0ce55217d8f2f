# A stack's layers, and the arrays that come to it. See stack.pyx.
from fastrnn._core.cell cimport Cell
from fastrnn._core.matrix cimport Matrix


cdef class Layer:
    cdef Matrix w_ih
    cdef Cell cell
    cdef Layer other, above

