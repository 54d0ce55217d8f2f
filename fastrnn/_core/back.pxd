# The cells' time loops, backward. See back.pyx.
from fastrnn._core.kernels cimport fr_kernels
from fastrnn._core.matrix cimport Matrix
from fastrnn._core.plan cimport Plan
from fastrnn._core.team cimport Work, fr_barrier


cdef class Loop(Work):
    cdef const fr_kernels* kernels
    cdef Plan plan
    cdef Py_ssize_t H, ld_gates, itemsize, s0, s1
    cdef Py_ssize_t start   # the step before which h0, or c0, is what the one before left
    cdef bint by_units
    cdef fr_barrier barrier
    cdef char* gates
    cdef char* dh
    cdef char* dc
    cdef char* extra
    cdef char* drh
    cdef const char* dy
    cdef const char* h
    cdef const char* h0
    cdef const char* c
    cdef const char* c0
    cdef Matrix w, w_n      # the whole of W_hh, or for the GRU its rows r z, and n
    cdef bint relu, reset_after

    cdef void step(self, Py_ssize_t r, Py_ssize_t before, Py_ssize_t b0, Py_ssize_t m, Py_ssize_t j0, Py_ssize_t j1,
                   int rank, int size, bint backwards) noexcept nogil
    cdef set(self, const fr_kernels* kernels, Plan plan, Py_ssize_t s0, Py_ssize_t s1, Py_ssize_t H,
             Py_ssize_t itemsize, char* dh, const char* dy)
    cdef go(self, sharing)


cdef class RNNLoop(Loop):
    pass


cdef class LSTMLoop(Loop):
    cdef const char* dcs    # of what arrives at c of all steps, or NULL


cdef class GRULoop(Loop):
    pass
