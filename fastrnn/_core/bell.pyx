"""A flag that a thread can watch for a moment before it goes to sleep.

Waking a sleeping thread takes the system 20 to 50 us, as long as a whole part of a small job. Watching is a hint and
nothing more: who sees the bell rung still takes what it was rung for from a lock or a queue.
"""
cimport cython

cdef extern from *:
    """
    static void watch_rings(const volatile long *rings, long seen, long looks) {
        while (looks-- > 0 && *rings == seen) {}
    }
    """
    void watch_rings(const long* rings, long seen, long looks) noexcept nogil


@cython.final
cdef class Bell:
    """Counts how often it was rung."""
    cdef long rings

    def __cinit__(self):
        self.rings = 0

    def count(self):
        """How often it has been rung."""
        return self.rings

    def ring(self):
        """Ring it."""
        self.rings += 1

    def watch(self, long seen, long looks):
        """Return when it has been rung more than `seen` times, or after so many looks, about 1 ns each."""
        with nogil:
            watch_rings(&self.rings, seen, looks)
