"""Memory for results and caches that is used again.

A fresh large allocation costs a page fault for every 4 KB at its first touch, 0.5 to 1 us each: at T=30, B=32, I=10,
H=50 that was 230 faults and a third of the time of an LSTM training step. So blocks of 64 KB and more, once the arrays
in them are gone, are kept for the next call, up to `KEEP_BYTES` in all; the oldest habit of allocators, done here
because the C library gives such blocks back to the system at once. That is enough for a training step of an LSTM of 2048
units: 0.82 s with its 224 MB kept, 0.84 with none, and 1.07 where the host of a virtual machine had yet to provide them.
Sizes that are not asked for any more make room. A `Workspace` keeps them for its owner alone, and all of them. Blocks
begin at 64-byte boundaries; large ones ask for huge pages, where the system has them.
"""
cimport cython
cimport numpy

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.contextvars cimport get_value
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc

from fastrnn._core.arrays cimport float_type

from contextvars import ContextVar

import numpy as np

cdef extern from *:
    """
    #if defined(__linux__)
    #include <sys/mman.h>
    #endif
    #if defined(__linux__) && defined(MADV_HUGEPAGE)
    /* The system refuses where it has none, which does not matter. */
    static void fr_ask_for_huge_pages(void *memory, size_t nbytes) { (void)madvise(memory, nbytes, MADV_HUGEPAGE); }
    #else
    static void fr_ask_for_huge_pages(void *memory, size_t nbytes) { (void)memory, (void)nbytes; }
    #endif
    """
    void fr_ask_for_huge_pages(void* memory, size_t nbytes) nogil

cdef enum:
    ALIGNMENT = 64
    HUGE = 2 * 1024 * 1024
    # How often all that is kept is asked for until what was not is forgotten; a block counts as 1/1024 of it at least. A
    # training step takes some ten blocks a layer.
    FORGOTTEN = 4
    SHARE = 1024

cdef object np_empty = np.empty, ndarray = np.ndarray

KEEP_BYTES = 256 * 1024 * 1024
MAX_BYTES = 2**47           # more than a process can address


cdef class Pool:
    """Blocks without an owner, up to so many bytes."""

    def __cinit__(self, keep_bytes=None):
        self.keep_bytes = <size_t>-1 if keep_bytes is None else <size_t>keep_bytes

    def __dealloc__(self):
        self.give_back()

    cdef void give_back(self) noexcept nogil:
        cdef int size_class, k
        for size_class in range(CLASSES):
            for k in range(self.kept_count[size_class]):
                free(self.kept[size_class][k])
            self.kept_count[size_class] = 0
        self.kept_bytes = 0

    cdef void* take(self, int size_class, size_t size):
        """A kept block, or NULL."""
        cdef void* raw = NULL
        with self.lock:
            self.asked += max(size, self.keep_bytes // SHARE)
            self.last_asked[size_class] = self.asked
            if self.kept_count[size_class]:
                self.kept_count[size_class] -= 1
                raw = self.kept[size_class][self.kept_count[size_class]]
                self.kept_bytes -= size
        return raw

    cdef void make_room(self, size_t size) noexcept nogil:
        """Give back blocks of sizes that are forgotten, until `size` bytes fit."""
        cdef int size_class
        for size_class in range(CLASSES):
            while self.kept_bytes + size > self.keep_bytes and self.kept_count[size_class] and (
                self.asked - self.last_asked[size_class] > FORGOTTEN * self.keep_bytes
            ):
                self.kept_count[size_class] -= 1
                free(self.kept[size_class][self.kept_count[size_class]])
                self.kept_bytes -= size_of(size_class)

    cdef bint keep(self, void* raw, int size_class, size_t size):
        """Whether there was room for it."""
        with self.lock:
            if size > self.keep_bytes or self.kept_count[size_class] == PER_CLASS:
                return False  # what is kept would make room for nothing
            if self.kept_bytes + size > self.keep_bytes:
                self.make_room(size)
            if self.kept_bytes + size > self.keep_bytes:
                return False
            self.kept[size_class][self.kept_count[size_class]] = raw
            self.kept_count[size_class] += 1
            self.kept_bytes += size
        return True


cdef Pool of_process = Pool(KEEP_BYTES)
_active = ContextVar("fastrnn_workspace", default=of_process)


@cython.final
cdef class Workspace(Pool):
    """
    Memory for a layer's passes, kept from one to the next whatever its size.

    Results, caches and scratch of a `forward` that is given one, and of its `backward`, lie in it; what nobody refers to
    any more is used by the next. Without one, at most 256 MB are kept, for the whole process. One workspace serves any
    number of layers and threads.

    Attributes
    ----------
    nbytes : int
        How many bytes wait to be used again.

    Examples
    --------
    >>> import fastrnn, numpy as np
    >>> layer, workspace = fastrnn.LSTM(3, 5), fastrnn.Workspace()
    >>> x = np.zeros((7, 2, 3), np.float32)
    >>> for _ in range(10):
    ...     y, state, cache = layer.forward(x, workspace=workspace)
    ...     dx, dstate = layer.backward(cache, np.ones_like(y))
    """

    @property
    def nbytes(self):
        return self.kept_bytes

    def clear(self):
        """Give what waits to be used again back to the system."""
        with self.lock:
            self.give_back()

    def __repr__(self):
        return f"<Workspace with {self.nbytes} bytes to be used again>"


cdef class working_in:
    """A context whose memory is taken from a workspace, within this thread (or asyncio task); None changes nothing."""
    cdef object workspace, token

    def __init__(self, workspace):
        self.workspace = workspace

    def __enter__(self):
        if self.workspace is not None:
            self.token = _active.set(self.workspace)

    def __exit__(self, *error):
        if self.workspace is not None:
            _active.reset(self.token)


cdef size_t round_up(size_t nbytes, int* size_class) noexcept nogil:
    """The block size that `nbytes` gets, of the form (5..8) * 2^k, and its class."""
    cdef int k = 0
    while (nbytes - 1) >> (k + 3):
        k += 1
    cdef size_t quarter = (nbytes + (<size_t>1 << k) - 1) >> k  # 4 < quarter <= 8
    size_class[0] = 4 * k + <int>(quarter - 5)
    return quarter << k


cdef size_t size_of(int size_class) noexcept nogil:
    return <size_t>(5 + size_class % 4) << size_class // 4


# A block refers to nothing that refers back, and must have its pool until it is gone: the collector of cycles, which takes
# it from the blocks in a cycle, has no business here.
@cython.final
@cython.no_gc
cdef class Block:
    """A piece of memory under one or more arrays."""

    def __init__(self, Py_ssize_t nbytes, Pool pool not None):
        if self.raw != NULL:
            raise TypeError("a block is made once")  # arrays may lie in it
        self.set(nbytes, pool)

    cdef set(self, Py_ssize_t nbytes, Pool pool):
        self.nbytes, self.pool = nbytes, pool
        self.size = nbytes
        self.kept = nbytes >= SMALLEST or pool is not of_process
        if self.kept:
            # Below 5 bytes there would be no class; a line of the cache is the least.
            self.size = round_up(max(nbytes, ALIGNMENT), &self.size_class)
            self.raw = pool.take(self.size_class, self.size)
        cdef size_t boundary = ALIGNMENT if self.size < 2 * HUGE else HUGE
        if self.raw == NULL:
            self.raw = malloc(self.size + boundary)
            if self.raw == NULL:
                raise MemoryError(f"{self.size} bytes")
            if boundary == HUGE:
                fr_ask_for_huge_pages(<void*>(<uintptr_t>self.raw + HUGE - 1 & ~<uintptr_t>(HUGE - 1)), self.size)
        self.data = <char*>(<uintptr_t>self.raw + boundary - 1 & ~<uintptr_t>(boundary - 1))

    def __dealloc__(self):
        if self.raw != NULL and not (self.kept and self.pool.keep(self.raw, self.size_class, self.size)):
            free(self.raw)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.nbytes, 0, flags)


cdef Block room(Py_ssize_t nbytes):
    cdef Block block = Block.__new__(Block)
    block.set(max(1, nbytes), get_value(_active))
    return block


cdef numpy.ndarray array_in(Block block, char* data, Py_ssize_t itemsize, int ndim, Py_ssize_t n0, Py_ssize_t n1,
                            Py_ssize_t n2):
    cdef numpy.npy_intp[3] shape = [n0, n1, n2]
    cdef numpy.ndarray array = numpy.PyArray_SimpleNewFromData(ndim, shape, float_type(itemsize), data)
    Py_INCREF(block)  # which the next line takes
    numpy.PyArray_SetBaseObject(array, block)
    return array


cdef numpy.ndarray new_array(Py_ssize_t itemsize, int ndim, Py_ssize_t n0, Py_ssize_t n1=1, Py_ssize_t n2=1):
    cdef numpy.npy_intp[3] shape = [n0, n1, n2]
    cdef double nbytes = <double>itemsize * n0 * n1 * n2  # which cannot overflow
    cdef Block block
    if nbytes < SMALLEST or nbytes > MAX_BYTES:  # NumPy says best what is too large
        return numpy.PyArray_EMPTY(ndim, shape, float_type(itemsize), 0)
    block = room(<Py_ssize_t>nbytes)
    return array_in(block, block.data, itemsize, ndim, n0, n1, n2)


cpdef empty(shape, dtype):
    """As `numpy.empty`, from kept memory where the array is large."""
    cdef double nbytes = dtype.itemsize  # which cannot overflow
    for n in shape:
        nbytes *= n
    if nbytes < SMALLEST or nbytes > MAX_BYTES:  # NumPy says best what is too large
        return np_empty(shape, dtype)
    return ndarray(shape, dtype, room(<Py_ssize_t>nbytes))


def kept_memory():
    """How many bytes are kept for reuse, for the whole process."""
    return of_process.kept_bytes
