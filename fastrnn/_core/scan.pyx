"""Time loops of the recurrences that are element by element (csrc/scan_impl.h), forward and backward.

All row arrays are in the plan's order (plan.pyx), states (B,H) sorted as the plan sorts them. A kernel call does all
steps that have the same sequences. Three ways of sharing, none of which changes a bit:

- By sequences, or where those are too few, by units: nothing here meets.
- Linear recurrences also by chunks of CHUNK steps, the *parallel scan*: every chunk finds how its last state depends on
  the state before it, a pass over the chunks finds these states, and every chunk runs its steps from its own. Chunks are
  always the same ones, whoever works on them. A chunk has a state for each sequence that runs at its first step: those
  are the first ones, and with resets far fewer than all.
"""
import numpy as np

from libc.string cimport memcpy

from fastrnn._core.arrays cimport address
from fastrnn._core.kernels cimport (FR_IND_RELU, FR_IND_TANH, FR_MIN_GRU, FR_MIN_LSTM, find_table, fr_kernels, fr_scan,
                                    kernels_of)
from fastrnn._core.plan cimport Plan
from fastrnn._core.team cimport Work, cut, share

cdef enum:
    CHUNK = 64      # steps
    LINE = 64       # bytes: members do not write to the same one

STEPS_AT_ONCE = CHUNK
KINDS = {"indrnn-tanh": FR_IND_TANH, "indrnn-relu": FR_IND_RELU, "mingru": FR_MIN_GRU, "minlstm": FR_MIN_LSTM}

ctypedef enum Pass:
    STEPS       # all steps, in turn
    ENDS        # of chunks
    FROM_ENDS   # the steps of each chunk, from what `carry` found


cdef class _Scan(Work):
    """The steps s0 <= s < s1 of a plan."""
    cdef const fr_kernels* kernels
    cdef Plan plan
    cdef fr_scan call           # what all kernel calls share; its row arrays from where row 0 would be
    cdef const char* state      # (B,H) from before all steps
    cdef char* end              # (B,H) forward: from before s0. Backward: the gradient of the state after s1 - 1.
    cdef char* ends             # of all chunks: `local`; then the states after each, or the gradients before it
    cdef char* products         # of all chunks
    cdef object memory          # of both, which callers read after `go`
    cdef Py_ssize_t[::1] begin  # of chunks: where their states do, in all arrays of such; then how many there are
    cdef Py_ssize_t H, G, itemsize, s0, s1, chunks
    cdef int cell
    cdef Pass doing
    cdef bint by_units

    cdef inline Py_ssize_t nbytes(self, Py_ssize_t states) noexcept nogil:
        return states * self.H * self.itemsize

    cdef inline void* moved(self, void* states, Py_ssize_t by) noexcept nogil:
        """So many states on; nowhere, if the call has no such array."""
        return NULL if states == NULL else <char*>states + self.nbytes(by)

    cdef inline Py_ssize_t first_step(self, Py_ssize_t chunk) noexcept nogil:
        return min(self.s1, self.s0 + chunk * CHUNK)

    cdef fr_scan at(self, Py_ssize_t s, Py_ssize_t end, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t j0, Py_ssize_t j1,
                    Py_ssize_t chunk) noexcept nogil:
        """A kernel call for the steps s <= step < end, which have the same rows."""
        cdef fr_scan call = self.call
        cdef Py_ssize_t row = self.plan.row(s) + b0
        call.h = self.moved(call.h, row)
        call.gates = self.moved(call.gates, row * self.G)
        call.dy = self.moved(<void*>call.dy, row)
        call.h_prev = self.moved(self.call.h, self.plan.row(s - 1) + b0) if s > 0 else self.moved(<void*>self.state, b0)
        call.du = self.moved(call.du, self.begin[chunk] + b0)
        call.product = self.moved(self.products, self.begin[chunk] + b0)
        call.local = self.moved(self.ends, self.begin[chunk] + b0)
        call.steps, call.B = end - s, self.plan.size(s, b0, b1)
        call.distance = self.plan.row(s + 1) - self.plan.row(s) if end - s > 1 else 0
        call.first, call.last = j0, j1
        return call

    cdef inline Py_ssize_t sequences_of(self, Py_ssize_t chunk) noexcept nogil:
        return self.begin[chunk + 1] - self.begin[chunk] if chunk < self.chunks else 0

    cdef inline char* ends_of(self, Py_ssize_t chunk) noexcept nogil:
        return self.ends + self.nbytes(self.begin[chunk])

    cdef void chunk(self, Py_ssize_t chunk) noexcept nogil:
        """The steps of one, for all sequences."""
        pass

    cdef void part(self, int rank, int size) noexcept nogil:
        cdef Py_ssize_t c, B = self.plan.B, line = LINE // self.itemsize, lines
        if self.doing != STEPS:
            for c in range(cut(self.chunks, rank, size), cut(self.chunks, rank + 1, size)):
                self.chunk(c)
        elif self.by_units:
            lines = (self.H + line - 1) // line
            self.sequences(0, B, cut(lines, rank, size) * line, min(self.H, cut(lines, rank + 1, size) * line))
        else:
            self.sequences(self.plan.cut(rank, size), self.plan.cut(rank + 1, size), 0, self.H)

    cdef void sequences(self, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t j0, Py_ssize_t j1) noexcept nogil:
        """All steps of these."""
        pass

    cdef void carry(self) noexcept nogil:
        """From the ends of all chunks to what each begins with."""
        pass

    cdef Py_ssize_t cut_into_chunks(self, Plan plan, Py_ssize_t s0, Py_ssize_t s1):
        """How many states all chunks have together."""
        cdef Py_ssize_t c
        self.plan, self.s0, self.s1 = plan, s0, s1
        self.chunks = (s1 - s0 + CHUNK - 1) // CHUNK
        self.begin = np.zeros(self.chunks + 1, dtype=np.intp)
        for c in range(self.chunks):
            self.begin[c + 1] = self.begin[c] + plan.running(self.first_step(c))
        return self.begin[self.chunks]

    cdef go(self, str isa, h0, bint parallel, sharing):
        """h0 (B,H), and the rest of `call` and the chunks, has been set."""
        cdef int members = sharing.members
        cdef long patience = sharing.patience
        self.H, self.itemsize = h0.shape[1], h0.itemsize
        self.kernels = kernels_of(find_table(isa), self.itemsize)
        self.state, self.call.H = <const char*>address(h0), self.H
        self.by_units = self.plan.B < members
        if self.plan.B == 0 or self.s0 == self.s1:
            return
        if not parallel:
            with nogil:
                share(self, members, patience)
            return
        products = np.ones((self.begin[self.chunks], self.H), h0.dtype)
        ends = np.zeros((self.begin[self.chunks], self.H), h0.dtype)
        self.products, self.ends, self.memory = <char*>address(products), <char*>address(ends), (products, ends)
        with nogil:
            self.doing = ENDS
            share(self, members, patience)
            self.carry()
            self.doing = FROM_ENDS
            share(self, members, patience)


cdef class _Forward(_Scan):
    cdef void run(self, Py_ssize_t s0, Py_ssize_t s1, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t j0, Py_ssize_t j1,
                  Py_ssize_t chunk, const char* before) noexcept nogil:
        """From the state `before` (B,H), or where that is NULL from what the step before left."""
        cdef Py_ssize_t s = s0, end
        cdef fr_scan call
        while s < s1 and self.plan.size(s, b0, b1):
            end = s + self.plan.alike(s, s1)
            call = self.at(s, end, b0, b1, j0, j1, chunk)
            if s == s0 and before != NULL:
                call.h_prev = before + self.nbytes(b0)
            call.fresh = self.doing != FROM_ENDS
            if self.doing == ENDS:
                self.kernels.scan_ends(&call, self.cell)
            else:
                self.kernels.scan(&call, self.cell)
            s = end

    cdef void sequences(self, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t j0, Py_ssize_t j1) noexcept nogil:
        self.run(self.s0, self.s1, b0, b1, j0, j1, 0, NULL)

    cdef void chunk(self, Py_ssize_t chunk) noexcept nogil:
        cdef const char* before = self.ends_of(chunk - 1) if chunk else self.end
        self.run(self.first_step(chunk), self.first_step(chunk + 1), 0, self.plan.B, 0, self.H, chunk, before)

    cdef void carry(self) noexcept nogil:
        cdef Py_ssize_t c
        cdef const char* before = self.end
        for c in range(self.chunks):
            self.kernels.scan_carry(self.ends_of(c), self.products + self.nbytes(self.begin[c]), before,
                                    self.sequences_of(c) * self.H)
            before = self.ends_of(c)


cdef class _Backward(_Scan):
    cdef void run(self, Py_ssize_t s0, Py_ssize_t s1, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t j0, Py_ssize_t j1,
                  Py_ssize_t chunk, char* dh) noexcept nogil:
        cdef Py_ssize_t s, end = s1
        cdef fr_scan call
        while end > s0:
            s = end - 1 if self.plan.ragged else s0
            while s > s0 and self.plan.running(s - 1) == self.plan.running(s):
                s -= 1
            call = self.at(s, end, b0, b1, j0, j1, chunk)
            call.dh = dh + self.nbytes(b0)
            if self.doing == ENDS:
                self.kernels.scan_back_ends(&call, self.cell)
            else:
                self.kernels.scan_back(&call, self.cell)
            end = s

    cdef void sequences(self, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t j0, Py_ssize_t j1) noexcept nogil:
        cdef Py_ssize_t c
        for c in range(self.chunks - 1, -1, -1):  # each has sums of its own
            self.run(self.first_step(c), self.first_step(c + 1), b0, b1, j0, j1, c, self.end)

    cdef void chunk(self, Py_ssize_t chunk) noexcept nogil:
        cdef Py_ssize_t s0 = self.first_step(chunk), s1 = self.first_step(chunk + 1), on = self.sequences_of(chunk + 1)
        if on:
            self.run(s0, s1, 0, on, 0, self.H, chunk, self.ends_of(chunk + 1))
        self.run(s0, s1, on, self.sequences_of(chunk), 0, self.H, chunk, self.end)  # whose last chunk this is

    cdef void carry(self) noexcept nogil:
        cdef Py_ssize_t c, on = 0
        for c in range(self.chunks - 1, -1, -1):
            if on:
                self.carry_to(c, 0, on, self.ends_of(c + 1))
            self.carry_to(c, on, self.sequences_of(c), self.end)
            on = self.sequences_of(c)

    cdef void carry_to(self, Py_ssize_t chunk, Py_ssize_t b0, Py_ssize_t b1, const char* after) noexcept nogil:
        cdef Py_ssize_t first = self.begin[chunk] + b0
        self.kernels.scan_carry(self.ends + self.nbytes(first), self.products + self.nbytes(first),
                                after + self.nbytes(b0), (b1 - b0) * self.H)


def forward(str isa, Plan plan, str kind, Py_ssize_t s0, Py_ssize_t s1, h, gates, bias, u, h0, start, bint positive,
            bint save, bint parallel, sharing):
    """
    Run the steps s0 <= s < s1, s0 a multiple of STEPS_AT_ONCE if `parallel`.

    Parameters
    ----------
    kind : str
        A key of `KINDS`.
    h : array (rows,H)
        Gets their rows.
    gates : array (rows of these steps,G*H)
        The input's part x W_ih'; with `save` they go out activated. Those of an IndRNN may be h.
    bias : array (G*H,)
    u : array (H,) or None
        Of an IndRNN.
    h0 : array (B,H)
        From before all steps.
    start : array (B,H)
        With `parallel` the state before s0 comes in and that after s1 - 1 goes out, as the scan over chunks has them;
        of the sequences that run on.
    positive : bool
        The candidate's activation.
    sharing : fastrnn._sharing.Sharing
    """
    cdef _Forward scan = _Forward()
    cdef Py_ssize_t base = plan.first_row(s0, s1) if s1 > s0 else 0, row_bytes = gates.shape[1] * gates.itemsize
    scan.cell, scan.G = KINDS[kind], bias.shape[0] // h0.shape[1]
    scan.call.h = <char*>address(h)
    scan.call.gates = <char*>address(gates) - base * row_bytes
    scan.call.bias = address(bias)
    scan.call.u = address(u) if u is not None else NULL
    scan.call.positive, scan.call.save = positive, save
    scan.end = <char*>address(start)
    scan.cut_into_chunks(plan, s0, s1)
    scan.go(isa, h0, parallel, sharing)
    if parallel and scan.chunks and plan.B:
        # of those that may run on
        memcpy(scan.end, scan.ends_of(scan.chunks - 1), scan.nbytes(scan.sequences_of(scan.chunks - 1)))


def backward(str isa, Plan plan, str kind, dgates, dh, dy, h, u, h0, bint positive, bint parallel, sharing):
    """
    Turn gates (rows,G*H) into dgates; an IndRNN's come with any content.

    dh (B,H) comes in as the gradient of h_n and goes out as that of h0. The others are as for `forward`.

    Returns
    -------
    array (n,H) or None
        Of an IndRNN, what sums up to the gradient of u: the sum of CHUNK steps of a sequence in each row.
    """
    cdef _Backward scan = _Backward()
    scan.cell, scan.G = KINDS[kind], dgates.shape[1] // h0.shape[1]
    scan.call.h, scan.call.gates = <char*>address(h), <char*>address(dgates)
    scan.call.dy, scan.call.positive = address(dy), positive
    scan.end = <char*>address(dh)
    cdef Py_ssize_t states = scan.cut_into_chunks(plan, 0, plan.steps)
    du = None
    if u is not None:
        du = np.zeros((states, h0.shape[1]), h0.dtype)
        scan.call.u, scan.call.du = address(u), address(du)
    scan.go(isa, h0, parallel, sharing)
    if parallel and scan.chunks > 1 and plan.B:
        # where the first chunk has gone on from what came to its end
        memcpy(scan.end, scan.ends_of(1), scan.nbytes(scan.sequences_of(1)))
    return du
