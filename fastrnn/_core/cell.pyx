"""The cells' time loop, forward, for both compiled engines, all cells and both float types.

The pointers here are untyped and go in bytes: whatever knows numbers is behind the tables of csrc.
"""
from libc.string cimport memset

from fastrnn._core.arrays cimport address
from fastrnn._core.kernels cimport (FR_GRU, FR_GRU_RESET, FR_GRU_UPDATE, FR_LSTM, FR_RNN_RELU, FR_RNN_TANH, find_table,
                                    kernels_of)
from fastrnn._core.matrix cimport multiply, multiply_groups
from fastrnn._core.memory cimport Block, room
from fastrnn._core.team cimport Work, cut, meet, run, share

from fastrnn._core.matrix import aligned

cdef enum:
    BLOCK_BYTES = 256 * 1024  # of gates that are made at a time, as in stack.pyx

KINDS = {"rnn-tanh": FR_RNN_TANH, "rnn-relu": FR_RNN_RELU, "lstm": FR_LSTM, "gru-after": FR_GRU,
         "gru-before": FR_GRU_RESET}


cdef class Cell:
    """
    Parameters
    ----------
    kind : str
        A key of `KINDS`.
    isa : str
        The instruction set of its kernels.
    bias : array
        (H) for an RNN, (4H) for an LSTM; for a GRU as fastrnn.h says.
    w_hh : array (G*H, H), row-major
    matrices : tuple of Matrix, optional
        What to multiply with, for the blas engine: W_hh, or for "gru-before" its rows r z and its rows n. None packs
        W_hh for the native engine.
    """

    def __init__(self, str kind, str isa, bias, w_hh, matrices=None):
        self.set(KINDS[kind], kernels_of(find_table(isa), w_hh.itemsize), w_hh.shape[1], w_hh.shape[0], w_hh.dtype)
        self.bias, self.owners = address(bias), (bias,)
        if matrices is None:
            if not w_hh.flags.c_contiguous:
                raise ValueError(f"weights: shape {w_hh.shape}, strides {w_hh.strides}, expected rows that lie together")
            self.pack(<const char*>address(w_hh), False)
        else:
            self.w, self.w_n = matrices if self.halves == 2 else (matrices[0], None)

    cdef set(self, int kind, const fr_kernels* kernels, Py_ssize_t H, Py_ssize_t G, dtype):
        """All but the bias and the weights."""
        self.kind, self.kernels, self.H, self.G = kind, kernels, H, G
        self.dtype, self.itemsize = dtype, dtype.itemsize
        self.halves = 2 if kind == FR_GRU_RESET else 1

    cdef pack(self, const char* w_hh, bint later):
        """Take the weights in, packed; `later`: by the members of the loop, to whom they have to be there until then."""
        cdef int half, kind
        for half in range(self.halves):
            kind = FR_GRU_UPDATE if half else self.kind
            packed = aligned(self.kernels.step_size(kind, self.H), self.dtype)
            self.packed[half], self.blocks[half] = <char*>address(packed), self.kernels.step_blocks(kind, self.H)
            self.owners = *self.owners, packed
        self.source = w_hh
        if not later:
            with nogil:
                self.pack_part(0, 1)
            self.source = NULL

    cdef void pack_part(self, int rank, int size) noexcept nogil:
        """A member's blocks."""
        cdef int half
        for half in range(self.halves):
            self.kernels.step_pack(self.packed[half], FR_GRU_UPDATE if half else self.kind,
                                   self.source + 2 * half * self.H * self.H * self.itemsize, self.H,
                                   cut(self.blocks[half], rank, size), cut(self.blocks[half], rank + 1, size))


cdef void advance(Cell cell, fr_step* s, char* product, int rank, int size, fr_barrier* barrier,
                  bint backwards) noexcept nogil:
    cdef int half, kind
    for half in range(cell.halves):
        kind = FR_GRU_UPDATE if half else cell.kind
        if cell.packed[0] == NULL:
            # product (B,N) = a W'
            if half:
                multiply(cell.w_n, product, cell.H, s.extra, cell.H, s.B, False, False)
            else:
                multiply(cell.w, product, cell.w.N, s.h_prev, s.ld_prev, s.B, False, False)
            cell.kernels.step_gates(s, kind, product)
        else:
            cell.kernels.step(s, kind, cell.packed[half], cut(cell.blocks[half], rank, size),
                              cut(cell.blocks[half], rank + 1, size), backwards)
        if size > 1:
            meet(barrier, size)


cdef void walk(Cell cell, Plan plan, const Sequence* q, Py_ssize_t s0, Py_ssize_t s1, Py_ssize_t b0, Py_ssize_t b1,
               int rank, int size, fr_barrier* barrier) noexcept nogil:
    cdef:
        Py_ssize_t state = cell.H * cell.itemsize, ldh = q.ldh * cell.itemsize, s, row, previous = 0, own = 0, place
        fr_step step
    memset(&step, 0, sizeof(step))
    step.H, step.ldh, step.ld_gates, step.bias, step.save = cell.H, q.ldh, q.ld_gates, cell.bias, q.save
    if s0 > 0:
        previous = plan.row(s0 - 1) + b0
    for s in range(s0, s1):
        row, step.B = plan.row(s) + b0, plan.size(s, b0, b1)
        step.h = q.h + row * ldh
        if s > 0:
            step.h_prev, step.ld_prev = q.h + previous * ldh, q.ldh
        else:
            step.h_prev, step.ld_prev = q.h0 + b0 * state, cell.H
        place = row - q.base
        if q.own:
            place = own if plan.ragged or not plan.reverse else (s1 - 1 - s) * step.B
            own += step.B
        step.gates = q.gates + place * q.ld_gates * cell.itemsize
        step.extra = q.extra + (row - q.base if q.save else b0) * state
        if cell.kind == FR_LSTM:
            step.c = q.c + (row - q.base if q.save else b0) * state
            if s == q.start:
                step.c_prev = q.c0 + b0 * state
            else:
                step.c_prev = q.c + (previous - q.base) * state if q.save else step.c
        advance(cell, &step, q.product, rank, size, barrier, s & 1)
        previous = row


cdef class Loop(Work):
    """The time loop of one layer and direction."""

    cdef void part(self, int rank, int size) noexcept nogil:
        if self.by_units:
            if self.cell.source != NULL:
                self.cell.pack_part(rank, size)
            walk(self.cell, self.plan, &self.q, self.s0, self.s1, 0, self.plan.B, rank, size, &self.barrier)
        else:
            self.sequences(self.plan.cut(rank, size), self.plan.cut(rank + 1, size))

    cdef void sequences(self, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
        """
        Those b0 <= b < b1. Their gates are made so many at a time by who goes on with them, while the cache has them. With
        a product of its own before, whose rows were shared otherwise, T=30 B=32 I=10 H=50 took 89 us on two threads and
        takes 72 (RNN), GRU 210 and 196, LSTM 246 and 234; on cores that share no cache 222 and 146, 609 and 506, 591 and 542.
        """
        cdef Py_ssize_t s0 = self.s0, s1 = self.s1, steps = s1 - s0, m = b1 - b0, first, row
        cdef const char* x
        if self.w_ih is None or m == 0:
            walk(self.cell, self.plan, &self.q, s0, s1, b0, b1, 0, 1, NULL)
            return
        row = self.q.ld_gates * self.cell.itemsize
        steps = max(1, BLOCK_BYTES // (m * row))
        while s0 < self.s1:
            s1 = min(self.s1, s0 + steps)
            first = self.plan.first_row(s0, s1) + b0
            x = self.x + first * self.w_ih.K * self.cell.itemsize
            if m == self.plan.B:
                multiply_groups(self.w_ih, self.q.gates + first * row, self.q.ld_gates, x, m * (s1 - s0), 1, 0, 0)
            else:
                multiply_groups(self.w_ih, self.q.gates + first * row, self.q.ld_gates, x, m, s1 - s0, self.plan.B,
                                self.plan.B)
            walk(self.cell, self.plan, &self.q, s0, s1, b0, b1, 0, 1, NULL)
            s0 = s1

    cdef go(self, int members, long patience):
        cdef Block product
        if self.cell.packed[0] == NULL:
            members = 1  # the BLAS shares out its own products
            product = room(self.plan.B * self.cell.G * self.cell.itemsize)
            self.q.product = product.data
        with nogil:
            if self.by_units:
                run(self, members, patience)
            else:
                share(self, members, patience)


def forward(Cell cell, Plan plan, Py_ssize_t s0, Py_ssize_t s1, h, c, gates, extra, h0, c0, bint save, sharing):
    """
    Run the steps s0 <= s < s1.

    Parameters
    ----------
    h : array (rows,H)
        Gets their rows.
    c, extra : array (rows of these steps,H) with `save`, else (B,H), or None where the cell has none
        c without `save` comes in as c(s0-1) and goes out as c(s1-1). extra as fastrnn.h says.
    gates : array (rows of these steps, G)
        The input's part x W_ih'; with `save` they go out activated.
    h0, c0 : array (B,H)
        As the plan sorts them: h from before all steps; with `save` c(s0-1), else c from before all steps; c0 None where
        the cell has none.
    sharing : fastrnn._sharing.Sharing
    """
    if plan.B == 0 or s0 == s1 or cell.H == 0:
        return
    cdef Loop loop = Loop()
    loop.cell, loop.plan, loop.s0, loop.s1, loop.by_units = cell, plan, s0, s1, sharing.by_units
    loop.q.h, loop.q.gates, loop.q.h0 = <char*>address(h), <char*>address(gates), <char*>address(h0)
    loop.q.ldh, loop.q.ld_gates, loop.q.save = cell.H, cell.G, save
    loop.q.base, loop.q.start = plan.first_row(s0, s1), s0 if save else 0
    if c is not None:
        loop.q.c, loop.q.c0 = <char*>address(c), <char*>address(c0)
    if extra is not None:
        loop.q.extra = <char*>address(extra)
    loop.go(sharing.members, sharing.patience)
