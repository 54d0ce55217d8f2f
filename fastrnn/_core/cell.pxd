# The recurrent half of a cell, ready to run. See cell.pyx.
from fastrnn._core.kernels cimport fr_kernels, fr_step
from fastrnn._core.matrix cimport Matrix
from fastrnn._core.plan cimport Plan
from fastrnn._core.team cimport Work, fr_barrier


cdef class Cell:
    cdef const fr_kernels* kernels
    cdef int kind, halves               # halves: 2 for a GRU that resets before the product
    cdef readonly Py_ssize_t H, G, itemsize
    cdef char* packed[2]                # for the native engine, else NULL
    cdef const char* source             # what members have still to pack, each for itself, or NULL
    cdef Py_ssize_t blocks[2]
    cdef Matrix w, w_n                  # for the blas engine
    cdef const void* bias
    cdef tuple owners
    cdef object dtype

    cdef set(self, int kind, const fr_kernels* kernels, Py_ssize_t H, Py_ssize_t G, dtype)
    cdef pack(self, const char* w_hh, bint later)
    cdef void pack_part(self, int rank, int size) noexcept nogil


ctypedef struct Sequence:
    # What a time loop runs over, rows in the plan's order. c, extra: (rows,H) with save, else (B,H). gates, and with save
    # c and extra, begin with row `base`; `own` gates hold nothing but the rows of the sequences that are walked. Row strides
    # in elements.
    char* h             # (rows,H), row stride ldh
    char* c
    char* gates         # (rows,G), row stride ld_gates
    char* extra
    char* product       # (B,G), scratch of the blas engine
    const char* h0      # (B,H)
    const char* c0      # from before step `start`
    Py_ssize_t ldh, ld_gates, base, start
    bint save, own


# Finish a step whose gates hold the input's part: units of rank `rank` of `size`, who meet at the barrier.
cdef void advance(Cell cell, fr_step* s, char* product, int rank, int size, fr_barrier* barrier,
                  bint backwards) noexcept nogil

# The steps s0 <= s < s1 of the sequences b0 <= b < b1 (as sorted), units as above.
cdef void walk(Cell cell, Plan plan, const Sequence* q, Py_ssize_t s0, Py_ssize_t s1, Py_ssize_t b0, Py_ssize_t b1,
               int rank, int size, fr_barrier* barrier) noexcept nogil


cdef inline Py_ssize_t gates_apart(Py_ssize_t G, Py_ssize_t itemsize) noexcept nogil:
    """
    The row stride for gates. A multiple of 1 KB apart, the same gate's units of a step's rows would be in a few sets of a
    cache and drive one another out. Steps alone as a share of the multiply-adds' peak (Zen 4, AVX-512), LSTM, B=32 or 64:
    with gates saved, 256 units 0.81 -> 0.84, 512 0.86 -> 0.89, 1024 0.84 -> 0.87; without, 0.87 -> 0.88, 0.89 -> 0.92, 0.88
    -> 0.89; a GRU 0.01 to 0.03 more. Training as a whole, scheduled gates (step_impl.h) included: LSTM 1.00 to 1.03 times as
    fast, GRU 0.98 to 1.02.
    """
    return G + 128 // itemsize if G * itemsize >= 2048 and G * itemsize % 1024 == 0 else G


cdef class Loop(Work):
    cdef Cell cell
    cdef Plan plan
    cdef Sequence q
    cdef Py_ssize_t s0, s1
    cdef Matrix w_ih        # packed, where x W_ih' is still to be added: of dense sequences, by rows; else None
    cdef const char* x      # (rows,I)
    cdef bint by_units
    cdef fr_barrier barrier

    cdef void sequences(self, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil
    cdef go(self, int members, long patience)
