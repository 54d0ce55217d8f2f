"""The cells' time loops, backward, for both compiled engines.

The steps s0 <= s < s1 at a time, from the last ones on. All row arrays are in the plan's order (plan.pyx): h and dy
(rows,H) of all steps, c, extra (rows,H) and gates (rows,G*H), row stride ld_gates, of these. States (B,H) are sorted as
the plan sorts them.
What a step takes and gives is said in fastrnn.h.
"""
from fastrnn._core.arrays cimport address
from fastrnn._core.kernels cimport find_table, fr_kernels, kernels_of
from fastrnn._core.matrix cimport COLUMNS, Matrix, most_members, multiply, multiply_columns, multiply_unpacked
from fastrnn._core.plan cimport Plan
from fastrnn._core.team cimport Work, cut, meet, run, share


cdef class Loop(Work):
    """
    By rows each part has its own sequences, all units. By units each member has its own units of all sequences: their
    gates' gradients, and after all have met, their columns of dh.
    """

    cdef void step(self, Py_ssize_t r, Py_ssize_t before, Py_ssize_t b0, Py_ssize_t m, Py_ssize_t j0, Py_ssize_t j1,
                   int rank, int size, bint backwards) noexcept nogil:
        """
        m rows from r on, the units j0 <= j < j1; the rows of the step before begin at `before`, -1 at the start. Every
        second step goes through the weights `backwards`.
        """
        pass

    cdef void part(self, int rank, int size) noexcept nogil:
        cdef Py_ssize_t s, b0 = 0, b1 = self.plan.B, j0 = 0, j1 = self.H, panels = (self.H + COLUMNS - 1) // COLUMNS
        if self.by_units:
            j0, j1 = cut(panels, rank, size) * COLUMNS, min(self.H, cut(panels, rank + 1, size) * COLUMNS)
            if self.w.source != NULL:
                self.w.pack_part(j0, j1)
                if self.w_n is not None:
                    self.w_n.pack_part(j0, j1)
        else:
            b0, b1 = self.plan.cut(rank, size), self.plan.cut(rank + 1, size)
            size = 1  # nobody to meet
        for s in range(self.s1 - 1, self.s0 - 1, -1):
            self.step(self.plan.row(s) + b0, self.plan.row(s - 1) + b0 if s > self.start else -1, b0,
                      self.plan.size(s, b0, b1), j0, j1, rank, size, s & 1)

    cdef set(self, const fr_kernels* kernels, Plan plan, Py_ssize_t s0, Py_ssize_t s1, Py_ssize_t H,
             Py_ssize_t itemsize, char* dh, const char* dy):
        """What all cells have."""
        self.kernels, self.plan, self.s0, self.s1, self.H, self.itemsize = kernels, plan, s0, s1, H, itemsize
        self.dh, self.dy = dh, dy

    cdef go(self, sharing):
        cdef int members = most_members(self.w_n, most_members(self.w, sharing.members))
        cdef long patience = sharing.patience
        self.by_units = members > 1 and sharing.by_units
        if self.plan.B and self.H:
            with nogil:
                if self.by_units:
                    run(self, members, patience)
                else:
                    share(self, members, patience)


cdef inline const char* previous(Loop loop, const char* rows, const char* start, Py_ssize_t before,
                                 Py_ssize_t b0) noexcept nogil:
    return start + b0 * loop.H * loop.itemsize if before < 0 else rows + before * loop.H * loop.itemsize


cdef inline void product(Loop loop, Matrix w, char* c, const char* a, Py_ssize_t lda, Py_ssize_t m, Py_ssize_t j0,
                         Py_ssize_t j1, bint add, int rank, bint backwards) noexcept nogil:
    """The columns j0 <= j < j1 of c (m,H) = a w, or c += with `add`, by member `rank`."""
    if j0 == j1:
        return
    if w.scratch != NULL:
        multiply_unpacked(w, c, loop.H, a, lda, m, j0, j1, add, rank)
    elif j0 == 0 and j1 == loop.H:
        multiply(w, c, loop.H, a, lda, m, add, backwards)
    else:
        multiply_columns(w, c, loop.H, a, lda, m, j0, j1, add, backwards)


cdef char* rows(array, Py_ssize_t base) except? NULL:
    """An array that begins with row `base`, from where row 0 would be."""
    cdef Py_ssize_t nbytes = array.shape[1] * array.itemsize
    return <char*>address(array) - base * nbytes


cdef begin(Loop loop, str isa, Plan plan, Py_ssize_t s0, Py_ssize_t s1, dh, dy):
    loop.set(kernels_of(find_table(isa), dh.itemsize), plan, s0, s1, dh.shape[1], dh.itemsize, <char*>address(dh),
             <const char*>address(dy))


cdef class RNNLoop(Loop):
    cdef void step(self, Py_ssize_t r, Py_ssize_t before, Py_ssize_t b0, Py_ssize_t m, Py_ssize_t j0, Py_ssize_t j1,
                   int rank, int size, bint backwards) noexcept nogil:
        cdef Py_ssize_t H = self.H, k = r * H * self.itemsize
        cdef char* dh = self.dh + b0 * H * self.itemsize
        self.kernels.rnn_dgates(self.gates + k, dh, self.dy + k, self.h + k, m, H, j0, j1, self.relu)
        meet(&self.barrier, size)
        # dh(t-1) = dpre(t) W_hh
        product(self, self.w, dh, self.gates + k, H, m, j0, j1, False, rank, backwards)


ctypedef fused number:
    float
    double


cdef void add_rows(number* to, const number* rows, Py_ssize_t m, Py_ssize_t H, Py_ssize_t j0, Py_ssize_t j1) noexcept nogil:
    """The columns j0 <= j < j1 of to (m,H) += rows."""
    cdef Py_ssize_t b, j
    for b in range(m):
        for j in range(b * H + j0, b * H + j1):
            to[j] += rows[j]


cdef class LSTMLoop(Loop):
    cdef void step(self, Py_ssize_t r, Py_ssize_t before, Py_ssize_t b0, Py_ssize_t m, Py_ssize_t j0, Py_ssize_t j1,
                   int rank, int size, bint backwards) noexcept nogil:
        cdef Py_ssize_t H = self.H, k = r * H * self.itemsize, b = b0 * H * self.itemsize
        cdef char* gates = self.gates + r * self.ld_gates * self.itemsize
        if self.dcs != NULL and self.itemsize == 4:
            add_rows(<float*>(self.dc + b), <const float*>(self.dcs + k), m, H, j0, j1)
        elif self.dcs != NULL:
            add_rows(<double*>(self.dc + b), <const double*>(self.dcs + k), m, H, j0, j1)
        self.kernels.lstm_dgates(gates, self.ld_gates, self.dc + b, self.dh + b, self.dy + k, self.c + k,
                                 previous(self, self.c, self.c0, before, b0), m, H, j0, j1)
        meet(&self.barrier, size)
        # dh(t-1) = dgates(t) W_hh
        product(self, self.w, self.dh + b, gates, self.ld_gates, m, j0, j1, False, rank, backwards)


cdef class GRULoop(Loop):
    cdef void step(self, Py_ssize_t r, Py_ssize_t before, Py_ssize_t b0, Py_ssize_t m, Py_ssize_t j0, Py_ssize_t j1,
                   int rank, int size, bint backwards) noexcept nogil:
        cdef Py_ssize_t H = self.H, k = r * H * self.itemsize, b = b0 * H * self.itemsize
        cdef char* gates = self.gates + r * self.ld_gates * self.itemsize
        cdef char* dh = self.dh + b
        cdef const char* h_prev = previous(self, self.h, self.h0, before, b0)
        if self.reset_after:
            self.kernels.gru_dgates(gates, self.ld_gates, self.extra + k, dh, self.dy + k, h_prev, m, H, j0, j1)
            meet(&self.barrier, size)
            # dh(t-1) = z dh(t) + dhn W_hn + d[r z] W_h[rz]
            product(self, self.w_n, dh, self.extra + k, H, m, j0, j1, True, rank, backwards)
        else:
            self.kernels.gru_dupdate(gates, self.ld_gates, dh, self.dy + k, h_prev, m, H, j0, j1)
            meet(&self.barrier, size)
            # drh = dn W_hn;  dh(t-1) = z dh(t) + r drh + d[r z] W_h[rz]
            product(self, self.w_n, self.drh + b, gates + 2 * H * self.itemsize, self.ld_gates, m, j0, j1, False, rank,
                    backwards)
            self.kernels.gru_dreset(gates, self.ld_gates, dh, self.drh + b, h_prev, m, H, j0, j1)
            meet(&self.barrier, size)
        product(self, self.w, dh, gates, self.ld_gates, m, j0, j1, True, rank, backwards)


def rnn(str isa, Plan plan, dpre, dh, dy, h, Matrix w_hh, bint relu, sharing):
    """Fill dpre (rows,H), the gradient of the pre-activations. dh (B,H) comes in as that of h_n, goes out as that of h0."""
    cdef RNNLoop loop = RNNLoop()
    loop.w, loop.relu = w_hh, relu
    loop.gates, loop.h = <char*>address(dpre), <const char*>address(h)
    begin(loop, isa, plan, 0, plan.steps, dh, dy)
    loop.go(sharing)


def lstm(str isa, Plan plan, Py_ssize_t s0, Py_ssize_t s1, gates, dh, dc, dy, dcs, c, c0, Matrix w_hh, sharing):
    """
    Turn gates into dgates. dh, dc (B,H) come in as the gradients of h(s1-1), c(s1-1) and go out as those of the states
    before s0. dcs (rows,H) is what arrives at c of all steps besides, or None. c0 (B,H) is c(s0-1).
    """
    cdef LSTMLoop loop = LSTMLoop()
    cdef Py_ssize_t base = plan.first_row(s0, s1) if s1 > s0 else 0
    loop.w, loop.start = w_hh, s0
    loop.gates, loop.ld_gates, loop.dc = rows(gates, base), gates.shape[1], <char*>address(dc)
    loop.c, loop.c0 = rows(c, base), <const char*>address(c0)
    if dcs is not None:
        loop.dcs = <const char*>address(dcs)
    begin(loop, isa, plan, s0, s1, dh, dy)
    loop.go(sharing)


def gru(str isa, Plan plan, Py_ssize_t s0, Py_ssize_t s1, gates, extra, dh, drh, dy, h, h0, Matrix w_rz, Matrix w_n,
        bint reset_after, sharing):
    """
    Turn gates, and with the reset after the product extra, into gradients; dh as for the LSTM. drh (B,H) is scratch for
    the reset before.
    """
    cdef GRULoop loop = GRULoop()
    cdef Py_ssize_t base = plan.first_row(s0, s1) if s1 > s0 else 0
    loop.w, loop.w_n, loop.reset_after = w_rz, w_n, reset_after
    loop.gates, loop.ld_gates = rows(gates, base), gates.shape[1]
    loop.extra, loop.drh = rows(extra, base), <char*>address(drh)
    loop.h, loop.h0 = <const char*>address(h), <const char*>address(h0)
    begin(loop, isa, plan, s0, s1, dh, dy)
    loop.go(sharing)
