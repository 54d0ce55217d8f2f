"""One time step of a stack of layers, for streams: no allocation, no Python between the layers.

A stepper owns the state and all scratch memory. The results of a step are those of the time loops with T=1.
"""
import numpy as np

from fastrnn._core.blas cimport real
from fastrnn._core.kernels cimport (find_table, fr_table, gru_gates, gru_reset, gru_update, lstm_gates, rnn_gates)
from fastrnn._core.matrix cimport Matrix, multiply

from fastrnn._core.matrix import aligned

cdef enum Cell:
    RNN_TANH
    RNN_RELU
    LSTM
    GRU_AFTER
    GRU_BEFORE

CELLS = {"rnn-tanh": RNN_TANH, "rnn-relu": RNN_RELU, "lstm": LSTM, "gru-after": GRU_AFTER, "gru-before": GRU_BEFORE}


cdef class Layer:
    """One layer's weights, state and scratch.

    Parameters
    ----------
    cell : str
        A key of `CELLS`.
    w_ih, w_hh, w_n : Matrix
        As the time loops take them; w_n for the GRU with the reset before the product, else None.
    bias : array
        As the cell's gate function takes it.
    batch_size, hidden_size : int
    """
    cdef Cell cell
    cdef Matrix w_ih, w_hh, w_n
    cdef Py_ssize_t B, H
    cdef void* bias
    cdef void* gates
    cdef void* scratch      # reset after: gh (B,3H); before: r h (B,H)
    cdef void* c
    cdef void* h[2]         # h[now] is the state, the other one is where the next goes
    cdef int now
    cdef tuple owners
    cdef readonly list states   # [[h, the other h], c]

    def __init__(self, str cell, Matrix w_ih, Matrix w_hh, w_n, bias, Py_ssize_t batch_size, Py_ssize_t hidden_size):
        self.cell, self.w_ih, self.w_hh, self.w_n = CELLS[cell], w_ih, w_hh, w_n
        self.B, self.H = batch_size, hidden_size
        dtype = bias.dtype

        def zeros(width):
            array = aligned(batch_size * width, dtype)
            array[:] = 0
            return array.reshape(batch_size, width)

        gates, scratch = zeros(w_ih.N), zeros(3 * hidden_size)
        h = [zeros(hidden_size), zeros(hidden_size)]
        c = zeros(hidden_size)
        self.states = [h, c] if self.cell == LSTM else [h]
        self.owners = bias, gates, scratch, c
        self.bias, self.gates, self.scratch, self.c = address(bias), address(gates), address(scratch), address(c)
        self.h[0], self.h[1] = address(h[0]), address(h[1])

    @property
    def state(self):
        """The arrays of the state, to read and to write: [h] or [h, c]."""
        return [self.states[0][self.now], *self.states[1:]]


cdef void* address(array) except NULL:
    return <void*><size_t>array.ctypes.data


cdef const real* step_layer(Layer layer, const fr_table* table, const real* x) noexcept nogil:
    """Take a step; where the new state is."""
    cdef:
        Py_ssize_t B = layer.B, H = layer.H, I = layer.w_ih.K, G = layer.w_ih.N
        real* gates = <real*>layer.gates
        real* scratch = <real*>layer.scratch
        real* c = <real*>layer.c
        const real* bias = <const real*>layer.bias
        const real* h = <const real*>layer.h[layer.now]
        real* h_next = <real*>layer.h[1 - layer.now]
    multiply(layer.w_ih, gates, G, x, I, B, False)
    if layer.cell == LSTM:
        multiply(layer.w_hh, gates, G, h, H, B, True)
        lstm_gates(table, gates, c, h_next, c, bias, B, H)
    elif layer.cell == GRU_AFTER:
        multiply(layer.w_hh, scratch, G, h, H, B, False)
        gru_gates(table, gates, <real*>NULL, h_next, scratch, h, bias, B, H)
    elif layer.cell == GRU_BEFORE:
        multiply(layer.w_hh, gates, G, h, H, B, True)
        gru_reset(table, gates, scratch, h, bias, B, H)
        multiply(layer.w_n, gates + 2 * H, G, scratch, H, B, True)
        gru_update(table, gates, h_next, h, bias, B, H)
    else:
        multiply(layer.w_hh, gates, G, h, H, B, True)
        rnn_gates(table, h_next, gates, bias, B, H, layer.cell == RNN_RELU)
    layer.now = 1 - layer.now
    return h_next


cdef class Stepper:
    """A stack of `Layer`s of one float type, fed step by step."""
    cdef const fr_table* table
    cdef readonly list layers
    cdef readonly Py_ssize_t B, I
    cdef bint single

    def __init__(self, str isa, list layers, dtype):
        self.table, self.layers = find_table(isa), layers
        self.B, self.I = (<Layer>layers[0]).B, (<Layer>layers[0]).w_ih.K
        self.single = dtype == np.float32

    def step(self, x):
        """The last layer's new state for x (B,I); None when x is not a C-contiguous (B,I) array of the float type."""
        cdef const float[:, ::1] xf
        cdef const double[:, ::1] xd
        cdef Layer layer
        cdef const float* f = NULL
        cdef const double* d = NULL
        try:
            if self.single:
                xf = x
                if xf.shape[0] != self.B or xf.shape[1] != self.I:
                    return None
                f = &xf[0, 0]
            else:
                xd = x
                if xd.shape[0] != self.B or xd.shape[1] != self.I:
                    return None
                d = &xd[0, 0]
        except (TypeError, ValueError):
            return None
        for layer in self.layers:
            with nogil:
                if self.single:
                    f = step_layer(layer, self.table, f)
                else:
                    d = step_layer(layer, self.table, d)
        return layer.states[0][layer.now]
