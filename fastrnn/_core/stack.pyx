"""A stack of frozen layers in one compiled call: a step of a stream, or whole sequences. No Python between the layers.

For one direction and dense batches; the results are those of the cells' time loops, to the bit. Everything else goes
by `fastrnn._compiled`.
"""
import numpy as np

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

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


cdef class Weights:
    """One layer's weights, prepared; never changed, so any number of threads may use them.

    Parameters
    ----------
    cell : str
        A key of `CELLS`.
    w_ih, w_hh, w_n : Matrix
        As the time loops take them; w_n for the GRU with the reset before the product, else None.
    bias : array
        As the cell's gate function takes it.
    """
    cdef Cell cell
    cdef Matrix w_ih, w_hh, w_n
    cdef Py_ssize_t I, H, G     # G: all gates together
    cdef readonly object bias
    cdef const void* bias_data

    def __init__(self, str cell, Matrix w_ih, Matrix w_hh, w_n, bias):
        self.cell, self.w_ih, self.w_hh, self.w_n, self.bias = CELLS[cell], w_ih, w_hh, w_n, bias
        self.I, self.H, self.G = w_ih.K, w_hh.K, w_ih.N
        self.bias_data = address(bias)


cdef class Layer:
    """A layer of a stream: its weights, state and scratch."""
    cdef Weights weights
    cdef Py_ssize_t B
    cdef void* gates
    cdef void* scratch      # (B,3H)
    cdef void* c
    cdef void* h[2]         # h[now] is the state, the other one is where the next goes
    cdef int now
    cdef tuple owners
    cdef readonly list states   # [[h, the other h], c]

    def __init__(self, Weights weights, Py_ssize_t batch_size):
        self.weights, self.B = weights, batch_size
        dtype = weights.bias.dtype

        def zeros(width):
            array = aligned(batch_size * width, dtype)
            array[:] = 0
            return array.reshape(batch_size, width)

        H = weights.H
        gates, scratch = zeros(weights.G), zeros(3 * H)
        h = [zeros(H), zeros(H)]
        c = zeros(H)
        self.states = [h, c] if weights.cell == LSTM else [h]
        self.owners = gates, scratch, c
        self.gates, self.scratch, self.c = address(gates), address(scratch), address(c)
        self.h[0], self.h[1] = address(h[0]), address(h[1])

    @property
    def state(self):
        """The arrays of the state, to read and to write: [h] or [h, c]."""
        return [self.states[0][self.now], *self.states[1:]]


cdef void* address(array) except NULL:
    return <void*><size_t>array.ctypes.data


cdef void advance(Weights w, const fr_table* table, real* h_next, real* c, real* gates, real* scratch, const real* h,
                  Py_ssize_t B) noexcept nogil:
    """A step from where the gates (B,G) hold the input's part. c is changed in place, scratch is (B,3H)."""
    cdef:
        Py_ssize_t H = w.H, G = w.G
        const real* bias = <const real*>w.bias_data
    if w.cell == LSTM:
        multiply(w.w_hh, gates, G, h, H, B, True)
        lstm_gates(table, gates, c, h_next, c, bias, B, H)
    elif w.cell == GRU_AFTER:
        multiply(w.w_hh, scratch, G, h, H, B, False)
        gru_gates(table, gates, <real*>NULL, h_next, scratch, h, bias, B, H)
    elif w.cell == GRU_BEFORE:
        multiply(w.w_hh, gates, G, h, H, B, True)
        gru_reset(table, gates, scratch, h, bias, B, H)
        multiply(w.w_n, gates + 2 * H, G, scratch, H, B, True)
        gru_update(table, gates, h_next, h, bias, B, H)
    else:
        multiply(w.w_hh, gates, G, h, H, B, True)
        rnn_gates(table, h_next, gates, bias, B, H, w.cell == RNN_RELU)


cdef const real* step_layer(Layer layer, const fr_table* table, const real* x) noexcept nogil:
    """Take a step of a stream; where the new state is."""
    cdef:
        real* gates = <real*>layer.gates
        real* h_next = <real*>layer.h[1 - layer.now]
    multiply(layer.weights.w_ih, gates, layer.weights.G, x, layer.weights.I, layer.B, False)
    advance(layer.weights, table, h_next, <real*>layer.c, gates, <real*>layer.scratch,
            <const real*>layer.h[layer.now], layer.B)
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
        self.B, self.I = (<Layer>layers[0]).B, (<Layer>layers[0]).weights.I
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


cdef void run_layer(Weights w, const fr_table* table, real* y, real* h_n, real* c, real* gates, real* scratch,
                    const real* x, const real* h0, Py_ssize_t T, Py_ssize_t B, Py_ssize_t block) noexcept nogil:
    """A layer over T steps, `block` of them at a time: gates is (block*B, G). c holds c0 and gets c_n."""
    cdef:
        Py_ssize_t H = w.H, t, t0 = 0, steps
        const real* h = h0
    while t0 < T:
        steps = min(block, T - t0)
        multiply(w.w_ih, gates, w.G, x + t0 * B * w.I, w.I, steps * B, False)
        for t in range(t0, t0 + steps):
            advance(w, table, y + t * B * H, c, gates + (t - t0) * B * w.G, scratch, h, B)
            h = y + t * B * H
        t0 += steps
    memcpy(h_n, h, B * H * sizeof(real))


def run(str isa, list layers, const real[:, :, ::1] x, list states, real[:, :, ::1] y, Py_ssize_t block_bytes):
    """
    Run a stack over dense sequences.

    Parameters
    ----------
    isa : str
    layers : list of Weights
    x : array (T,B,I)
    states : list of array (layers,B,H)
        h, for an LSTM also c: the initial states, overwritten with the final ones.
    y : array (T,B,H)
        Filled with the last layer's states.
    block_bytes : int
        About how much memory the gates of a block of steps may take.
    """
    cdef:
        const fr_table* table = find_table(isa)
        Py_ssize_t T = x.shape[0], B = x.shape[1], H = y.shape[2], n = len(layers), k, G = 0, block
        real[:, :, ::1] h = states[0]
        real[:, :, ::1] c = states[len(states) - 1]     # untouched unless the cell has one
        Weights w
        real* scratch
        real* between
        const real* source = &x[0, 0, 0]
        real* target
    if T == 0 or B == 0:
        return
    for w in layers:
        G = max(G, w.G)
    block = min(T, max(1, block_bytes // (B * G * <Py_ssize_t>sizeof(real))))
    # gates, scratch, a copy of h0, and where there are several layers two sequences for what passes between them
    scratch = <real*>malloc((block * B * G + 4 * B * H + (2 * T * B * H if n > 1 else 0)) * sizeof(real) + 64)
    if scratch == NULL:
        raise MemoryError()
    cdef real* gates = <real*>((<size_t>scratch + 63) & ~<size_t>63)
    cdef real* rest = gates + block * B * G
    cdef real* h0 = rest + 3 * B * H
    between = h0 + B * H
    try:
        for k in range(n):
            w = layers[k]
            with nogil:
                target = &y[0, 0, 0] if k == n - 1 else between + (k % 2) * T * B * H
                memcpy(h0, &h[k, 0, 0], B * H * sizeof(real))
                run_layer(w, table, target, &h[k, 0, 0], &c[k, 0, 0], gates, rest, source, h0, T, B, block)
                source = target
    finally:
        free(scratch)
