"""What one thread can do at most on this machine, for benchmarks to compare with.

Both functions use the best instruction set, and return the best of many short repetitions: others may use the machine
meanwhile.
"""
from cpython.time cimport perf_counter
from fastrnn._core.kernels cimport FR_PROBE_FLOATS, find_table, fr_table

from math import inf

import numpy as np

from fastrnn._core.kernels import available_isas

cdef enum:
    LEAST_BYTES = 4096
    # Of one repetition: about 0.1 ms, a thousand times what the clock takes.
    MULTIPLY_ADDS = 1 << 24
    READ_BYTES = 1 << 25


def fma_gflops(double seconds):
    """Float32 multiply-adds, two operations each.

    Parameters
    ----------
    seconds : float
        How long to try.

    Returns
    -------
    float
        GF/s.
    """
    check(seconds)
    cdef const fr_table* table = find_table(available_isas()[0])
    cdef float[16] sink
    cdef double best = 0, start, now = perf_counter(), end = now + seconds
    cdef Py_ssize_t count
    with nogil:
        while best == 0 or now < end:
            start = now
            count = table.probe_fma(sink, MULTIPLY_ADDS)
            now = perf_counter()
            best = max(best, count / (now - start))
    return 2 * best / 1e9


def read_gbs(Py_ssize_t nbytes, double seconds):
    """Reading the same memory over and over, from its first byte to its last, with and without prefetching.

    Parameters
    ----------
    nbytes : int
        How much memory, at least 4096; rounded up to a multiple of 512.
    seconds : float
        How long to try.

    Returns
    -------
    float
        GB/s.
    """
    if nbytes < LEAST_BYTES:
        raise ValueError(f"nbytes: {nbytes}, expected at least {LEAST_BYTES}")
    check(seconds)
    cdef const fr_table* table = find_table(available_isas()[0])
    cdef Py_ssize_t n = (nbytes + 4 * FR_PROBE_FLOATS - 1) // (4 * FR_PROBE_FLOATS) * FR_PROBE_FLOATS
    cdef Py_ssize_t times = max(1, READ_BYTES // (4 * n))
    memory = np.ones(n + 15, np.float32)
    cdef const float[::1] x = memory[-memory.ctypes.data % 64 // 4:]  # from where a cache line begins
    cdef float[16] sink
    cdef double best = 0, start, now, end
    cdef int prefetch = 0
    with nogil:
        table.probe_read(sink, &x[0], n, 1, 0)  # into the cache that it fits in
        now = perf_counter()
        end = now + seconds
        while best == 0 or now < end:
            start = now
            table.probe_read(sink, &x[0], n, times, prefetch)
            prefetch = not prefetch
            now = perf_counter()
            best = max(best, 4 * n * times / (now - start))
    return best / 1e9


cdef int check(double seconds) except -1:
    if not 0 < seconds < inf:
        raise ValueError(f"seconds: {seconds}, expected a positive number")
