# csrc/team.h for Cython. See team.pyx.

cdef extern from "team.h" nogil:
    const int MOST_MEMBERS "FR_MOST_MEMBERS"
    ctypedef struct fr_barrier:
        unsigned waiting, turn
    ctypedef struct fr_progress:
        long value


cdef class Work:
    cdef void part(self, int rank, int size) noexcept nogil


# Do `work.part` in up to `members` threads at once; the size the team had. Waits `patience` ns for others to come.
cdef int run(Work work, int members, long patience) noexcept nogil

# Do `work.part` once for each of the parts, in as many threads as come. For parts that do not meet.
cdef void share(Work work, int parts, long patience) noexcept nogil

cdef void meet(fr_barrier* barrier, int size) noexcept nogil
cdef void tell(fr_progress* progress, long value) noexcept nogil
cdef void await_(fr_progress* progress, long value) noexcept nogil


# Denormal numbers count as zeros in between; every job runs so.
cdef extern from "denormals.h" nogil:
    unsigned long long flush "fr_flush"()
    void restore "fr_restore"(unsigned long long mode)


cdef enum:
    # Multiplications from which it pays to ask _sharing.py, which is a call of Python; and those of fewer than its ROWS rows.
    WORTH_ASKING = 1000000
    WORTH_OF_FEW = 300000
    FEW = 4


cdef inline Py_ssize_t worth_asking(Py_ssize_t rows) noexcept nogil:
    return WORTH_ASKING if rows >= FEW else WORTH_OF_FEW


cdef inline Py_ssize_t cut(Py_ssize_t n, int rank, int size) noexcept nogil:
    """Where the part of a member begins, when 0..n is shared evenly; that of `size` is n."""
    return n * rank // size
