"""Memory for results and caches that is used again.

A fresh large allocation costs a page fault for every 4 KB at its first touch, 0.5 to 1 us each: at T=30, B=32, I=10,
H=50 that was 230 faults and a third of the time of an LSTM training step. So blocks of 64 KB and more, once the arrays
in them are gone, are kept for the next call, up to `KEEP_BYTES` in all; the oldest habit of allocators, done here
because the C library gives such blocks back to the system at once. Blocks begin at 64-byte boundaries.
"""
cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc

from math import prod

import numpy as np

cdef enum:
    CLASSES = 4 * 64   # four sizes to each power of two, so at most a quarter is wasted
    PER_CLASS = 8
    ALIGNMENT = 64

SMALLEST = 64 * 1024        # below this, malloc itself keeps and reuses
KEEP_BYTES = 64 * 1024 * 1024
MAX_BYTES = 2**47           # more than a process can address

cdef size_t keep_bytes = KEEP_BYTES
cdef size_t kept_bytes = 0
cdef void* kept[CLASSES][PER_CLASS]
cdef int kept_count[CLASSES]
cdef cython.pymutex lock


cdef size_t round_up(size_t nbytes, int* size_class) noexcept nogil:
    """The block size that `nbytes` gets, of the form (4..7) * 2^k, and its class."""
    cdef int k = 0
    while (nbytes - 1) >> (k + 3):
        k += 1
    cdef size_t quarter = (nbytes + (<size_t>1 << k) - 1) >> k  # 4 < quarter <= 8
    size_class[0] = 4 * k + <int>(quarter - 4)
    return quarter << k


@cython.final
cdef class Block:
    """A piece of memory under one or more arrays."""
    cdef void* raw
    cdef char* data
    cdef Py_ssize_t nbytes
    cdef size_t size
    cdef int size_class

    def __cinit__(self, Py_ssize_t nbytes):
        global kept_bytes
        self.nbytes = nbytes
        self.size = round_up(nbytes, &self.size_class)
        with lock:
            if kept_count[self.size_class]:
                kept_count[self.size_class] -= 1
                self.raw = kept[self.size_class][kept_count[self.size_class]]
                kept_bytes -= self.size
        if self.raw == NULL:
            self.raw = malloc(self.size + ALIGNMENT)
            if self.raw == NULL:
                raise MemoryError(f"{self.size} bytes")
        self.data = <char*>((<uintptr_t>self.raw + ALIGNMENT - 1) & ~<uintptr_t>(ALIGNMENT - 1))

    def __dealloc__(self):
        global kept_bytes
        if self.raw == NULL:
            return
        with lock:
            if kept_count[self.size_class] < PER_CLASS and kept_bytes + self.size <= keep_bytes:
                kept[self.size_class][kept_count[self.size_class]] = self.raw
                kept_count[self.size_class] += 1
                kept_bytes += self.size
                self.raw = NULL
        free(self.raw)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.nbytes, 0, flags)


def empty(shape, dtype):
    """As `numpy.empty`, from kept memory where the array is large."""
    nbytes = prod(shape) * dtype.itemsize  # a Python int: it cannot overflow
    if nbytes < SMALLEST or nbytes > MAX_BYTES:  # NumPy says best what is too large
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, Block(nbytes))


def kept_memory():
    """How many bytes are kept for reuse."""
    return kept_bytes
