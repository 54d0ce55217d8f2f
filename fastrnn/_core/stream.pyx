"""Streams: a stack of frozen layers fed step by step, each step one compiled call."""
from cpython.buffer cimport PyBuffer_Release
from libc.string cimport memset

from fastrnn._core.cell cimport advance
from fastrnn._core.kernels cimport FR_LSTM, fr_step
from fastrnn._core.matrix cimport address, multiply
from fastrnn._core.stack cimport Layer, take
from fastrnn._core.team cimport flush, restore

from fastrnn._core.matrix import aligned


cdef class _Fed:
    """A layer of a stream: its state and scratch."""
    cdef Layer layer
    cdef Py_ssize_t B
    cdef void* gates
    cdef void* extra
    cdef void* product      # (B,G): scratch of the blas engine
    cdef void* c
    cdef void* h[2]         # h[now] is the state, the other one is where the next goes
    cdef int now
    cdef tuple owners
    cdef list states        # [[h, the other h], c]

    def __init__(self, Layer layer, Py_ssize_t batch_size, dtype):
        self.layer, self.B = layer, batch_size

        def zeros(width):
            array = aligned(batch_size * width, dtype)
            array[:] = 0
            return array.reshape(batch_size, width)

        H, G = layer.cell.H, layer.cell.G
        gates, extra, product, c, h = zeros(G), zeros(H), zeros(G), zeros(H), [zeros(H), zeros(H)]
        self.states = [h, c] if layer.cell.kind == FR_LSTM else [h]
        self.owners = gates, extra, product, c
        self.gates, self.extra, self.product, self.c = address(gates), address(extra), address(product), address(c)
        self.h[0], self.h[1] = address(h[0]), address(h[1])

    cdef const void* step(self, const void* x) noexcept nogil:
        """Take a step; where the new state is."""
        cdef fr_step s
        memset(&s, 0, sizeof(s))
        s.h, s.h_prev, s.c, s.c_prev = self.h[1 - self.now], self.h[self.now], self.c, self.c
        s.gates, s.extra, s.bias = self.gates, self.extra, self.layer.cell.bias
        s.B, s.H, s.ldh, s.ld_prev = self.B, self.layer.cell.H, self.layer.cell.H, self.layer.cell.H
        multiply(self.layer.w_ih, self.gates, self.layer.w_ih.N, x, self.layer.w_ih.K, self.B, False, False)
        advance(self.layer.cell, &s, <char*>self.product, 0, 1, NULL, self.now)
        self.now = 1 - self.now
        return s.h


cdef class Stepper:
    """
    A stack fed step by step.

    Parameters
    ----------
    layers : list of Layer
        Of one direction.
    batch_size : int
    dtype : dtype
    """
    cdef list layers
    cdef readonly Py_ssize_t B, I
    cdef Py_ssize_t itemsize

    def __init__(self, list layers, Py_ssize_t batch_size, dtype):
        self.layers = [_Fed(layer, batch_size, dtype) for layer in layers]
        self.B, self.I, self.itemsize = batch_size, (<Layer>layers[0]).w_ih.K, dtype.itemsize

    @property
    def states(self):
        """The arrays of each layer's state, to read and to write: [h] or [h, c]."""
        cdef _Fed fed
        return [[fed.states[0][fed.now], *fed.states[1:]] for fed in self.layers]

    def step(self, x):
        """The last layer's new state for x (B,I); None when x is not a C-contiguous (B,I) array of the float type."""
        cdef:
            Py_buffer view
            _Fed fed
            const void* rows
            unsigned long long mode
        if not take(&view, x, self.itemsize, 2, False):
            return None
        if view.shape[0] != self.B or view.shape[1] != self.I:
            PyBuffer_Release(&view)
            return None
        rows = view.buf
        mode = flush()
        for fed in self.layers:
            with nogil:
                rows = fed.step(rows)
        restore(mode)
        PyBuffer_Release(&view)
        return fed.states[0][fed.now]
