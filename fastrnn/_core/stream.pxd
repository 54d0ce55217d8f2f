# A stack that is fed step by step. See stream.pyx.
from fastrnn._core.stack cimport Layer
from fastrnn._core.team cimport fr_barrier


cdef class Fed:
    # A layer of a stream: its state and scratch.
    cdef Layer layer
    cdef Fed above
    cdef Py_ssize_t B
    cdef char* gates
    cdef char* extra        # (B,H)
    cdef char* product      # (B,G): scratch of the blas engine
    cdef char* c
    cdef char* h[2]         # one is the state, the other one is where the next goes
    cdef tuple owners
    cdef list states        # [[h, the other h], c]

    # A member's units of a step of the n sequences from b0 on, and of the layers above; where their new state at the top
    # is. All members come back when it is there.
    cdef const char* climb(self, const char* x, int now, Py_ssize_t b0, Py_ssize_t n, int rank, int size,
                           fr_barrier* barrier) noexcept nogil


cdef class Stepper:
    cdef Fed first, top
    cdef list layers
    cdef int now            # which h is the state
    cdef readonly Py_ssize_t B, I
    cdef Py_ssize_t itemsize
