"""The C kernels of `csrc`: which instruction sets this CPU can run, and their tables for the cells' time loops.

Only this extension module links `csrc`; the others reach the kernels through `find_table`.
"""

from libc.string cimport strcmp

from fastrnn._core.blas cimport real

cdef extern from "fastrnn.h" nogil:
    const fr_table* const* fr_tables(int* count)

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8(object) except NULL


def available_isas():
    """The instruction sets this build and this CPU both have, best first; the last is always ``"baseline"``."""
    cdef int count
    cdef const fr_table* const* tables = fr_tables(&count)
    return tuple(tables[i].name.decode() for i in range(count))


cdef const fr_table* find_table(str isa) except NULL:
    cdef int count
    cdef const fr_table* const* tables = fr_tables(&count)
    cdef const char* name = PyUnicode_AsUTF8(isa)
    for i in range(count):
        if strcmp(tables[i].name, name) == 0:
            return tables[i]
    raise ValueError(f"isa: {isa!r} cannot run here; available: {', '.join(available_isas())}")


def activate(str isa, real[::1] y, const real[::1] x, str function):
    """y = sigmoid(x), tanh(x) or exp(x) - 1, for the tests of the activations."""
    cdef const fr_table* table = find_table(isa)
    cdef int which = ("sigmoid", "tanh", "expm1").index(function)
    if x.shape[0] != y.shape[0]:
        raise ValueError(f"y: length {y.shape[0]}, expected that of x, {x.shape[0]}")
    if x.shape[0] == 0:
        return
    with nogil:
        if real is float:
            table.f32.activate(&y[0], &x[0], x.shape[0], which)
        else:
            table.f64.activate(&y[0], &x[0], x.shape[0], which)
