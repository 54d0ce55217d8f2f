# Memory that is used again. See memory.pyx.
cimport cython
cimport numpy


cdef enum:
    CLASSES = 4 * 64   # four sizes to each power of two, so at most a quarter is wasted
    PER_CLASS = 32


cpdef enum:
    SMALLEST = 65536    # bytes; what is below, malloc itself keeps and reuses


cdef class Pool:
    cdef size_t keep_bytes, kept_bytes
    cdef void* kept[CLASSES][PER_CLASS]
    cdef int kept_count[CLASSES]
    cdef unsigned long long asked, last_asked[CLASSES]  # bytes
    cdef cython.pymutex lock

    cdef void give_back(self) noexcept nogil
    cdef void make_room(self, size_t size) noexcept nogil
    cdef void* take(self, int size_class, size_t size)
    cdef bint keep(self, void* raw, int size_class, size_t size)


@cython.final
@cython.no_gc
cdef class Block:
    """A piece of memory under one or more arrays."""
    cdef Pool pool
    cdef void* raw
    cdef char* data         # begins at a 64-byte boundary
    cdef Py_ssize_t nbytes
    cdef size_t size
    cdef int size_class
    cdef bint kept

    cdef set(self, Py_ssize_t nbytes, Pool pool)


# A block of the workspace in use.
cdef Block room(Py_ssize_t nbytes)

# An array of floats at `data` in a block, which it keeps.
cdef numpy.ndarray array_in(Block block, char* data, Py_ssize_t itemsize, int ndim, Py_ssize_t n0, Py_ssize_t n1, Py_ssize_t n2)

# An uninitialised array of floats, from kept memory where it is large.
cdef numpy.ndarray new_array(Py_ssize_t itemsize, int ndim, Py_ssize_t n0, Py_ssize_t n1=*, Py_ssize_t n2=*)

# As `numpy.empty`, from kept memory where the array is large.
cpdef empty(shape, dtype)
