"""Streams: a stack of frozen layers fed step by step, each step one compiled call."""
from libc.string cimport memset

from fastrnn._core.arrays cimport address, is_plain, shape_of
from fastrnn._core.cell cimport advance
from fastrnn._core.kernels cimport FR_LSTM, fr_step
from fastrnn._core.matrix cimport multiply_part
from fastrnn._core.stack cimport Layer
from fastrnn._core.team cimport flush, fr_barrier, meet, restore

from fastrnn._core.matrix import aligned


cdef class Fed:
    """A layer of a stream."""

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
        self.gates, self.extra = <char*>address(gates), <char*>address(extra)
        self.product, self.c = <char*>address(product), <char*>address(c)
        self.h[0], self.h[1] = <char*>address(h[0]), <char*>address(h[1])

    cdef const char* climb(self, const char* x, int now, Py_ssize_t b0, Py_ssize_t n, int rank, int size,
                           fr_barrier* barrier) noexcept nogil:
        cdef:
            Py_ssize_t H = self.layer.cell.H, G = self.layer.cell.G, item = self.layer.cell.itemsize
            Py_ssize_t state = b0 * H * item, gates = b0 * G * item
            fr_step s
        memset(&s, 0, sizeof(s))
        s.h, s.h_prev, s.c, s.c_prev = self.h[1 - now] + state, self.h[now] + state, self.c + state, self.c + state
        s.gates, s.extra, s.bias = self.gates + gates, self.extra + state, self.layer.cell.bias
        s.B, s.H, s.ldh, s.ld_gates, s.ld_prev = n, H, H, G, H
        multiply_part(self.layer.w_ih, <char*>s.gates, G, x, self.layer.w_ih.K, n, rank, size)
        meet(barrier, size)
        advance(self.layer.cell, &s, self.product + gates, rank, size, barrier, now)
        if self.above is None:
            return <const char*>s.h
        return self.above.climb(<const char*>s.h, now, b0, n, rank, size, barrier)


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

    def __init__(self, list layers, Py_ssize_t batch_size, dtype):
        cdef Fed fed
        self.layers = [Fed(layer, batch_size, dtype) for layer in layers]
        self.first, self.top = self.layers[0], None
        for fed in self.layers:
            if self.top is not None:
                self.top.above = fed
            self.top = fed
        self.B, self.I, self.itemsize = batch_size, self.first.layer.w_ih.K, dtype.itemsize

    @property
    def states(self):
        """The arrays of each layer's state, to read and to write: [h] or [h, c]."""
        cdef Fed fed
        return [[fed.states[0][self.now], *fed.states[1:]] for fed in self.layers]

    def step(self, x):
        """The last layer's new state for x (B,I); None when x is not a C-contiguous (B,I) array of the float type."""
        cdef:
            const char* rows
            unsigned long long mode
        if not is_plain(x, self.itemsize, 2) or shape_of(x)[0] != self.B or shape_of(x)[1] != self.I:
            return None
        rows = <const char*>address(x)
        mode = flush()
        with nogil:
            self.first.climb(rows, self.now, 0, self.B, 0, 1, NULL)
        self.now = 1 - self.now
        restore(mode)
        return self.top.states[0][self.now]
