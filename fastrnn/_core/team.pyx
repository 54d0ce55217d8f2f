"""Jobs that several threads do together, on the team of csrc/team.c. Only this extension module links it.

A job is a subclass of `Work`, which holds what it works on and knows its part for any rank and size.
"""
cdef extern from "team.h" nogil:
    ctypedef void (*fr_work)(void* job, int rank, int size) noexcept nogil
    int fr_team_run(fr_work work, void* job, int wanted, long patience)
    void fr_team_share(fr_work work, void* job, int parts, long patience)
    int fr_team_cpus()
    void fr_barrier_wait(fr_barrier* barrier, int size)
    void fr_progress_raise(fr_progress* progress, long value)
    void fr_progress_wait(fr_progress* progress, long value)


cdef class Work:
    cdef void part(self, int rank, int size) noexcept nogil:
        pass


cdef void begin(Work work, int rank, int size) noexcept nogil:
    cdef unsigned long long mode = flush()
    work.part(rank, size)
    restore(mode)


cdef int run(Work work, int members, long patience) noexcept nogil:
    if members < 2:
        begin(work, 0, 1)
        return 1
    return fr_team_run(<fr_work>begin, <void*>work, members, patience)


cdef void share(Work work, int parts, long patience) noexcept nogil:
    if parts < 2:
        begin(work, 0, 1)
    else:
        fr_team_share(<fr_work>begin, <void*>work, parts, patience)


cdef void meet(fr_barrier* barrier, int size) noexcept nogil:
    fr_barrier_wait(barrier, size)


cdef void tell(fr_progress* progress, long value) noexcept nogil:
    fr_progress_raise(progress, value)


cdef void await_(fr_progress* progress, long value) noexcept nogil:
    fr_progress_wait(progress, value)


def cpus():
    """How many CPUs this process may use; a team is best no larger."""
    return fr_team_cpus()


cdef class _Count(Work):
    cdef int size

    cdef void part(self, int rank, int size) noexcept nogil:
        if rank == 0:
            self.size = size


def gathered(int members, long patience):
    """How many come when so many are asked for: for tests, and to have a team awake."""
    cdef _Count count = _Count()
    with nogil:
        run(count, members, patience)
    return count.size
