# NumPy's arrays as C sees them, by NumPy's C interface: through Python's buffers each took a tenth of a microsecond, and a
# call of few units has twenty. New ones are made in memory.pyx.
cimport numpy

cdef extern from *:
    """
    #undef I /* of complex.h, which NumPy's headers bring along; here it is the input's size */
    """


cdef inline void* address(array) except? NULL:
    """Where an array's memory begins. The array stays with the caller."""
    return numpy.PyArray_DATA(<numpy.ndarray?>array)


cdef inline const Py_ssize_t* shape_of(array) except NULL:
    return <const Py_ssize_t*>numpy.PyArray_DIMS(<numpy.ndarray?>array)


cdef inline int float_type(Py_ssize_t itemsize) noexcept:
    """NumPy's number of the float type."""
    return numpy.NPY_FLOAT if itemsize == 4 else numpy.NPY_DOUBLE


cdef inline bint is_plain(array, Py_ssize_t itemsize, int ndim, bint writable=False):
    """Whether it is an array as the kernels want it: native floats of this size, aligned, in C order."""
    if not isinstance(array, numpy.ndarray):
        return False
    cdef numpy.ndarray it = <numpy.ndarray>array
    return (numpy.PyArray_TYPE(it) == float_type(itemsize) and numpy.PyArray_NDIM(it) == ndim
            and (numpy.PyArray_ISCARRAY(it) if writable else numpy.PyArray_ISCARRAY_RO(it)))
