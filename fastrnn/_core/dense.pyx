"""Training passes of one direction of one layer over dense sequences, each in one compiled call, for the native engine.

`fastrnn._compiled` says in Python how a pass goes, for everything there is: ragged sequences, checkpoints, the BLAS. What
lies between its calls of the kernels is most of a small pass: forward and back of an LSTM at T=1, B=1, I=H=32 took 121 us
that way and takes 24 this way, T=100, B=1, I=16, H=32 213 and 114 us (Zen 3, one thread, busy host). Here are the same
steps for what is plain; whatever is not is refused with None.

All pointers go in bytes. Rows are those of a dense plan (plan.pyx): (T,B,width) as it lies.
"""
cimport numpy

from libc.string cimport memcpy, memset

from fastrnn._core cimport back
from fastrnn._core.arrays cimport address, is_plain, shape_of
from fastrnn._core.cell cimport Cell, Loop, gates_apart
from fastrnn._core.kernels cimport (FR_GRU, FR_GRU_RESET, FR_LSTM, FR_RNN_RELU, FR_GRU_UPDATE, FR_RNN_TANH, find_table,
                                    fr_kernels, fr_step, kernels_of)
from fastrnn._core.matrix cimport COLUMNS, Matrix, Multiplication, Outer, outer_blocks
from fastrnn._core.memory cimport Block, array_in, new_array, room
from fastrnn._core.plan cimport Plan, dense_plan
from fastrnn._core.team cimport flush, restore, share, worth_asking

import numpy as np

from fastrnn._core.cell import KINDS

cdef object FLOAT32 = np.dtype(np.float32), FLOAT64 = np.dtype(np.float64)

cdef enum:
    # Input weights of more bytes are not packed as a whole, but panel by panel, see matrix.pyx.
    SMALL_BYTES = 256 * 1024
    # Without a cache, gates of this many bytes and more are made block by block elsewhere.
    BLOCK_BYTES = 2 * 1024 * 1024


cdef class Pass:
    """A forward pass, and what is kept of it for the way back."""
    cdef const fr_kernels* kernels
    cdef Plan plan
    cdef int kind
    cdef Py_ssize_t T, B, I, H, gates_width, ld_gates, item
    cdef object dtype, sharing
    cdef tuple owners               # of all that is pointed to
    cdef const char* x
    cdef const char* w_ih
    cdef const char* w_hh
    cdef bint has_b_ih, has_b_hh
    cdef Block states, kept
    cdef char* h                    # (T*B,H), in `states`, with h0 before or behind it; the rest in `kept`
    cdef char* gates                # (T*B,gates_width), row stride ld_gates; of an RNN h
    cdef char* c0                   # (B,H)
    cdef char* c                    # (T*B,H)
    cdef char* extra                # (T*B,H)
    # while a pass runs
    cdef char* scratch              # of what is done alone, see `prepare`
    cdef Py_ssize_t* blocks         # of sums over all rows
    cdef Py_ssize_t blocks_count

    cdef bint accept(self, str kind, str isa, x, w_ih, w_hh, b_ih, b_hh):
        """Take the arguments in, but for states; False if they are not plain."""
        cdef const Py_ssize_t* shape
        number = KINDS.get(kind)
        if type(x) is not numpy.ndarray or number is None:
            return False
        self.kind, self.item = number, numpy.PyArray_ITEMSIZE(<numpy.ndarray>x)
        cdef Py_ssize_t G = 4 if self.kind == FR_LSTM else 3 if self.kind in (FR_GRU, FR_GRU_RESET) else 1
        if self.item != 4 and self.item != 8 or not is_plain(x, self.item, 3):
            return False
        shape = shape_of(x)
        self.dtype = FLOAT32 if self.item == 4 else FLOAT64
        self.T, self.B, self.I, self.x = shape[0], shape[1], shape[2], <const char*>address(x)
        if type(w_hh) is not numpy.ndarray or not is_plain(w_hh, self.item, 2):
            return False
        shape = shape_of(w_hh)
        self.H, self.gates_width, self.w_hh = shape[1], shape[0], <const char*>address(w_hh)
        if self.gates_width != G * self.H or 0 in (self.T, self.B, self.I, self.H):
            return False
        if max(self.T * self.B, self.I, self.gates_width) > 0x7fffffff:
            return False
        self.w_ih = self.plain(w_ih, 2, self.gates_width, self.I)
        self.has_b_ih, self.has_b_hh = b_ih is not None, b_hh is not None
        self.kernels = kernels_of(find_table(isa), self.item)
        self.owners = x, w_ih, w_hh
        return self.w_ih != NULL

    cdef const char* plain(self, array, int ndim, Py_ssize_t n0, Py_ssize_t n1=0, Py_ssize_t n2=0):
        """Where an array of this shape begins, NULL if it is not plain."""
        if type(array) is not numpy.ndarray or not is_plain(array, self.item, ndim):
            return NULL
        cdef const Py_ssize_t* shape = shape_of(array)
        cdef bint fits = shape[0] == n0 and (ndim < 2 or shape[1] == n1) and (ndim < 3 or shape[2] == n2)
        return <const char*>address(array) if fits else NULL

    cdef bint copy_state(self, char* to, array):
        """A state (B,H), or zeros for None; False if it is not plain."""
        cdef const char* source
        if array is None:
            memset(to, 0, self.B * self.H * self.item)
            return True
        source = self.plain(array, 2, self.B, self.H)
        if source != NULL:
            memcpy(to, source, self.B * self.H * self.item)
        return source != NULL

    cdef bint set_bias(self, char* bias, b_ih, b_hh):
        """The bias as the cells want it, see fastrnn.h; False if one is not plain."""
        cdef Py_ssize_t n = self.gates_width, k = n
        cdef const char* source
        if self.kind == FR_GRU or self.kind == FR_GRU_RESET:
            k = 2 * self.H
            memset(bias + n * self.item, 0, self.H * self.item)
        memset(bias, 0, n * self.item)
        if b_ih is not None:
            source = self.plain(b_ih, 1, n)
            if source == NULL:
                return False
            memcpy(bias, source, n * self.item)
        if b_hh is not None:
            source = self.plain(b_hh, 1, n)
            if source == NULL:
                return False
            self.kernels.times(bias, source, k, NULL, 1, k, True)
            memcpy(bias + n * self.item, source + k * self.item, (n - k) * self.item)
        return True

    @property
    def cell(self):
        return "lstm" if self.kind == FR_LSTM else "gru" if self.kind in (FR_GRU, FR_GRU_RESET) else "rnn"

    @property
    def nbytes(self):
        """What is kept, in bytes."""
        return self.states.nbytes + self.kept.nbytes

    cdef bint alone(self, Py_ssize_t k) noexcept nogil:
        """Whether products with weights (gates_width,k), or parts of them, are too small to share."""
        cdef Py_ssize_t rows = self.T * self.B
        return rows * self.gates_width * k < worth_asking(rows)

    cdef Block prepare(self, Py_ssize_t before):
        """
        Scratch for all that is done alone, behind so many bytes for other things: whoever makes it keeps it as long as it
        is needed. One for all, and no return to Python between the products: forward and back at T=1, B=1, 32 units 1.11
        (LSTM) and 1.16 (GRU) times as fast as with blocks and a return for each.
        """
        cdef Py_ssize_t width, most = 0
        for width in (self.I, self.H):
            if self.alone(width):
                most = max(most, COLUMNS * max(self.gates_width, width),
                           self.kernels.outer_size(self.gates_width, width, self.T * self.B))
        before = (before + 63) & ~63
        cdef Block block = room(before + most * self.item)
        self.scratch = block.data + before
        return block

    cdef int multiply(self, char* c, Py_ssize_t ldc, const char* a, Py_ssize_t lda, const char* w, Py_ssize_t n,
                      Py_ssize_t k, bint transposed) except -1 nogil:
        """c = a (rows,k) W', or with `transposed` a (rows,n) W, for W (n,k), which is read once."""
        cdef:
            Py_ssize_t m = self.T * self.B
            unsigned long long mode
        if not self.alone(k):
            with gil:
                self.multiply_together(c, ldc, a, lda, w, n, k, transposed)
            return 0
        mode = flush()
        if transposed:
            self.kernels.multiply_once(c, ldc, a, lda, w, 1, k, m, n, k, False, self.scratch)
        else:
            self.kernels.multiply_once(c, ldc, a, lda, w, k, 1, m, k, n, False, self.scratch)
        restore(mode)
        return 0

    cdef multiply_together(self, char* c, Py_ssize_t ldc, const char* a, Py_ssize_t lda, const char* w, Py_ssize_t n,
                           Py_ssize_t k, bint transposed):
        """The same by as many threads as it is worth."""
        cdef:
            Py_ssize_t m = self.T * self.B
            Multiplication job = Multiplication.__new__(Multiplication)
        # by columns, where there are panels for all, or else by rows, see matrix.pyx
        how = self.sharing.independent(m * n * k, max(m // self.sharing.ROWS, (k if transposed else n) // COLUMNS), m)
        job.w = Matrix.__new__(Matrix)
        job.w.set(self, w, n, k, self.dtype, self.kernels, transposed, how.members)
        job.c, job.ldc, job.a, job.lda, job.m = c, ldc, a, lda, m
        job.go(how.members, how.patience)

    cdef loop_sharing(self):
        """How threads share the time loop."""
        if self.alone(self.H):
            return self.sharing.ALONE
        return self.sharing.passing(self.T, self.B, self.gates_width * self.H, self.item)

    cdef Matrix recurrent(self, Py_ssize_t first, Py_ssize_t rows, sharing):
        """So many rows of W_hh, from the first on, for the way back; packed, but for a single step, by those who share it."""
        cdef Matrix matrix = Matrix.__new__(Matrix)
        cdef bint alone = self.alone(self.H)
        cdef int unpacked_for = 0 if self.T > 1 else 1 if alone else sharing.members
        matrix.set(self, self.w_hh + first * self.H * self.item, rows, self.H, self.dtype, self.kernels, True,
                   unpacked_for, not alone and sharing.by_units, self.scratch if alone else NULL)
        return matrix

    cdef forward(self, h0, c0, b_ih, b_hh, bint reverse, cache_of):
        cdef:
            Py_ssize_t H = self.H, rows = self.T * self.B, state = self.B * H * self.item, size = rows * H * self.item
            bint lstm = self.kind == FR_LSTM, rnn = self.kind in (FR_RNN_TANH, FR_RNN_RELU)
            Py_ssize_t gates
            char* begin
            char* bias
        self.ld_gates = H if rnn else gates_apart(self.gates_width, self.item)
        gates = self.ld_gates * rows * self.item
        self.plan = dense_plan(self.T, self.B, reverse)
        self.states = room(state + size)
        self.h, begin = self.states.data + (0 if reverse else state), self.states.data + (size if reverse else 0)
        # gates | c0, c | extra | bias
        self.kept = room((0 if rnn else gates + size) + (state if lstm else 0) + 4 * H * self.item)
        self.gates = self.h if rnn else self.kept.data
        self.extra = self.c0 = self.kept.data + (0 if rnn else gates)
        self.c = self.c0 + state if lstm else NULL
        bias = self.kept.data + self.kept.nbytes - 4 * H * self.item
        if not self.set_bias(bias, b_ih, b_hh) or not self.copy_state(begin, h0):
            return None
        if lstm and not self.copy_state(self.c0, c0):
            return None
        if self.T == 1:
            self.step(begin, bias)
        else:
            self.steps(begin, bias)
        y = array_in(self.states, self.h, self.item, 3, self.T, self.B, H)
        h_n, cache = self.last(self.h), None
        if cache_of is not None:
            numpy.PyArray_CLEARFLAGS(y, numpy.NPY_ARRAY_WRITEABLE)
            cache = cache_of(y, self)
        return (y, h_n, self.last(self.c), cache) if lstm else (y, h_n, cache)

    cdef steps(self, char* begin, const char* bias):
        """The time loop."""
        cdef Cell cell = Cell.__new__(Cell)
        cdef Loop loop = Loop.__new__(Loop)
        cdef Block scratch
        sharing = self.loop_sharing()
        if sharing.by_units or self.gates_width * self.I * self.item > SMALL_BYTES:
            scratch = self.prepare(0)
            with nogil:
                self.multiply(self.gates, self.ld_gates, self.x, self.I, self.w_ih, self.gates_width, self.I, False)
        else:
            loop.x, loop.w_ih = self.x, Matrix.__new__(Matrix)
            loop.w_ih.set(self, self.w_ih, self.gates_width, self.I, self.dtype, self.kernels, False, 0)
        cell.set(self.kind, self.kernels, self.H, self.gates_width, self.dtype)
        cell.bias, cell.owners = bias, (self,)
        cell.pack(self.w_hh, sharing.by_units)
        loop.cell, loop.plan, loop.s1, loop.by_units = cell, self.plan, self.T, sharing.by_units
        loop.q.h, loop.q.ldh, loop.q.gates, loop.q.ld_gates, loop.q.save = self.h, self.H, self.gates, self.ld_gates, True
        loop.q.h0, loop.q.c, loop.q.c0, loop.q.extra = begin, self.c, self.c0, self.extra
        loop.go(sharing.members, sharing.patience)

    cdef step(self, char* begin, const char* bias):
        """A single one, whose weights are not worth packing."""
        cdef:
            Py_ssize_t H = self.H, G = self.gates_width, once = 2 * H if self.kind == FR_GRU_RESET else G
            Block room_for_all = self.prepare(self.B * G * self.item)
            char* product = room_for_all.data
            fr_step s
        memset(&s, 0, sizeof(s))
        s.h, s.ldh, s.h_prev, s.ld_prev, s.gates, s.extra = self.h, H, begin, H, self.gates, self.extra
        s.c, s.c_prev, s.bias, s.B, s.H, s.ld_gates, s.save = self.c, self.c0, bias, self.B, H, self.ld_gates, True
        with nogil:
            self.multiply(self.gates, self.ld_gates, self.x, self.I, self.w_ih, G, self.I, False)
            # product (B,N) = h0 W', for the GRU that resets before it first of r z, then of n with r h0
            self.multiply(product, once, begin, H, self.w_hh, once, H, False)
            self.step_gates(&s, self.kind, product)
            if self.kind == FR_GRU_RESET:
                self.multiply(product, H, self.extra, H, self.w_hh + 2 * H * H * self.item, H, H, False)
                self.step_gates(&s, FR_GRU_UPDATE, product)

    cdef void step_gates(self, const fr_step* s, int kind, char* product) noexcept nogil:
        cdef unsigned long long mode = flush()
        self.kernels.step_gates(s, kind, product)
        restore(mode)

    cdef last(self, const char* rows):
        """A copy of the last step's rows (B,H)."""
        cdef Py_ssize_t state = self.B * self.H * self.item
        result = new_array(self.item, 2, self.B, self.H)
        memcpy(<char*>address(result), rows + self.plan.row(self.T - 1) * self.H * self.item, state)
        return result

    def show(self):
        """
        What is kept, as it is now: views (T,B,width). Of an LSTM c and the gates, of a GRU what meets the reset gate and the
        gates, of an RNN nothing.
        """
        if self.gates == self.h:
            return ()
        return (array_in(self.kept, self.extra if self.c == NULL else self.c, self.item, 3, self.T, self.B, self.H),
                array_in(self.kept, self.gates, self.item, 3, self.T, self.B, self.ld_gates)[:, :, :self.gates_width])

    def backward(self, take, dy, dh_n, dc_n, dcs, frozenset need):
        """
        The gradients of everything: those of x, h0, c0 (LSTM), w_ih, w_hh, b_ih, b_hh, None for what is not needed or was
        not there. None, with nothing changed, if an argument is not plain. `take` is called before anything is changed,
        and raises at the second time.
        """
        cdef:
            Py_ssize_t H = self.H, rows = self.T * self.B, state = self.B * H * self.item
            Py_ssize_t nbytes = rows * H * self.item, most
            bint lstm = self.kind == FR_LSTM
            back.Loop loop
            Block zeros, room_for_all
            const char* of_y
            const char* of_c = NULL
        dh, dc = new_array(self.item, 2, self.B, H), new_array(self.item, 2, self.B, H) if lstm else None
        if dy is None:
            zeros = room(nbytes)
            memset(zeros.data, 0, nbytes)
            of_y = zeros.data
        else:
            of_y = self.plain(dy, 3, self.T, self.B, H)
        if of_y == NULL or not self.copy_state(<char*>address(dh), dh_n):
            return None
        if lstm and not self.copy_state(<char*>address(dc), dc_n):
            return None
        if dcs is not None:
            of_c = self.plain(dcs, 3, self.T, self.B, H)
            if of_c == NULL:
                return None
        take()
        sharing = self.loop_sharing()
        most = self.plan.steps_at_once
        self.blocks_count = (self.T + most - 1) // most
        room_for_all = self.prepare(self.blocks_count * 2 * sizeof(Py_ssize_t))
        self.blocks = <Py_ssize_t*>room_for_all.data
        self.list_blocks(most)
        if lstm:
            loop = self.lstm_loop(<char*>address(dc), of_c, sharing)
        elif self.gates == self.h:
            loop = self.rnn_loop(sharing)
        else:
            loop = self.gru_loop(sharing)
        loop.set(self.kernels, self.plan, 0, self.T, H, self.item, <char*>address(dh), of_y)
        if not self.alone(H):
            loop.go(sharing)
        return self.gradients(loop, dh, dc, need)

    cdef back.Loop lstm_loop(self, char* dc, const char* dcs, sharing):
        cdef back.LSTMLoop loop = back.LSTMLoop.__new__(back.LSTMLoop)
        loop.gates, loop.ld_gates, loop.c, loop.c0, loop.dc, loop.dcs = self.gates, self.ld_gates, self.c, self.c0, dc, dcs
        loop.w = self.recurrent(0, self.gates_width, sharing)
        return loop

    cdef back.Loop rnn_loop(self, sharing):
        cdef back.RNNLoop loop = back.RNNLoop.__new__(back.RNNLoop)
        cdef Block dpre = room(self.T * self.B * self.H * self.item)
        loop.h, loop.relu, loop.gates, self.kept = self.h, self.kind == FR_RNN_RELU, dpre.data, dpre
        loop.w = self.recurrent(0, self.H, sharing)
        return loop

    cdef back.Loop gru_loop(self, sharing):
        cdef back.GRULoop loop = back.GRULoop.__new__(back.GRULoop)
        cdef Py_ssize_t H = self.H
        cdef Block drh = room(self.B * H * self.item)
        loop.gates, loop.ld_gates, loop.extra = self.gates, self.ld_gates, self.extra
        loop.h, loop.h0 = self.h, self.states.data
        if self.plan.reverse:
            loop.h0 += self.T * self.B * H * self.item
        loop.reset_after, loop.drh = self.kind == FR_GRU, drh.data
        loop.w, loop.w_n = self.recurrent(0, 2 * H, sharing), self.recurrent(2 * H, H, sharing)
        self.owners = *self.owners, drh
        return loop

    cdef gradients(self, back.Loop loop, dh, dc, frozenset need):
        """All of them, from those of the gates; if these are made alone, they are made here."""
        cdef:
            Py_ssize_t H = self.H, G = self.gates_width, ld = self.ld_gates, I = self.I, item = self.item, ldn = ld
            bint gru = self.kind == FR_GRU or self.kind == FR_GRU_RESET, copied
            bint all_needed = len(need) == (8 if self.kind == FR_LSTM else 7)  # of the fields of fastrnn._cache.LSTMGrads
            Py_ssize_t first = 2 * H if gru else G      # of the rows of W_hh
            const char* dgates = loop.gates
            const char* previous = self.states.data + (self.B * H * item if self.plan.reverse else 0)
            const char* dn = dgates + 2 * H * item
            const char* n_times = previous
            char* to_x = NULL
            char* to_ih = NULL
            char* to_hh = NULL
            char* to_b_ih = NULL
            char* to_b_hh = NULL
        dx = dw_ih = dw_hh = db_ih = db_hh = None
        if gru:
            # extra is then the gradient of h(t-1) W_hn' + b_hn, or still r h(t-1), which W_hn was multiplied with
            if self.kind == FR_GRU:
                dn, ldn = self.extra, H
            else:
                n_times = self.extra
        if all_needed or "x" in need:
            dx = new_array(item, 3, self.T, self.B, I)
            to_x = <char*>address(dx)
        if all_needed or "w_ih" in need:
            dw_ih = new_array(item, 2, G, I)
            to_ih = <char*>address(dw_ih)
        if all_needed or "w_hh" in need:
            dw_hh = new_array(item, 2, G, H)
            to_hh = <char*>address(dw_hh)
        if self.has_b_ih and (all_needed or "b_ih" in need):
            db_ih = new_array(item, 1, G)
            to_b_ih = <char*>address(db_ih)
        if self.has_b_hh and (all_needed or "b_hh" in need):
            db_hh = new_array(item, 1, G)
            to_b_hh = <char*>address(db_hh)
        copied = to_b_ih != NULL and to_b_hh != NULL and self.kind != FR_GRU
        with nogil:
            if self.alone(H):
                share(loop, 1, 0)
            if to_x != NULL:
                self.multiply(to_x, I, dgates, ld, self.w_ih, G, I, True)
            if to_ih != NULL:
                self.outer(to_ih, dgates, ld, G, self.x, I)
            if to_hh != NULL:
                self.outer(to_hh, dgates, ld, first, previous, H)
                if gru:
                    self.outer(to_hh + first * H * item, dn, ldn, H, n_times, H)
            if to_b_ih != NULL:
                self.sum(to_b_ih, dgates, ld, G)
            if copied:
                memcpy(to_b_hh, to_b_ih, G * item)
            elif to_b_hh != NULL:
                self.sum(to_b_hh, dgates, ld, first)
                if gru:
                    self.sum(to_b_hh + first * item, dn, ldn, H)
        if not all_needed and "h0" not in need:
            dh = None
        if self.kind != FR_LSTM:
            return dx, dh, dw_ih, dw_hh, db_ih, db_hh, None
        return dx, dh, dc if all_needed or "c0" in need else None, dw_ih, dw_hh, db_ih, db_hh, None

    cdef void list_blocks(self, Py_ssize_t most) noexcept:
        """The rows first <= row < last of each block of a sum, `most` steps at a time as `Plan.blocks_of_sums` cuts them."""
        cdef Py_ssize_t i, s0, s1
        for i in range(self.blocks_count):  # from the last steps to the first
            s0 = (self.blocks_count - 1 - i) * most
            s1 = min(self.T, s0 + most)
            self.blocks[2 * i] = self.plan.first_row(s0, s1)
            self.blocks[2 * i + 1] = self.blocks[2 * i] + self.plan.count(s0, s1)

    cdef int outer(self, char* c, const char* a, Py_ssize_t lda, Py_ssize_t m, const char* b,
                   Py_ssize_t n) except -1 nogil:
        """c (m,n) = a' b over all rows; b's lie together."""
        cdef unsigned long long mode
        if not self.alone(n):
            with gil:
                self.outer_together(c, a, lda, m, b, n)
            return 0
        mode = flush()
        outer_blocks(self.kernels, c, n, a, lda, b, n, m, n, self.item, self.blocks, self.blocks_count, False, self.scratch)
        restore(mode)
        return 0

    cdef outer_together(self, char* c, const char* a, Py_ssize_t lda, Py_ssize_t m, const char* b, Py_ssize_t n):
        """The same by as many threads as it is worth."""
        cdef Outer job = Outer.__new__(Outer)
        how = self.sharing.independent(self.T * self.B * m * n, m // self.sharing.ROWS, self.T * self.B)
        job.kernels, job.itemsize, job.M, job.N = self.kernels, self.item, m, n
        job.c, job.ldc, job.a, job.lda, job.b, job.ldb = c, n, a, lda, b, n
        job.blocks, job.blocks_count = self.blocks, self.blocks_count
        job.go(how.members, how.patience)

    cdef void sum(self, char* y, const char* a, Py_ssize_t lda, Py_ssize_t n) noexcept nogil:
        """y (n) = the sum of all rows of a."""
        cdef Py_ssize_t i, row
        for i in range(self.blocks_count):
            row = self.blocks[2 * i]
            self.kernels.sum_rows(y, a + row * lda * self.item, lda, self.blocks[2 * i + 1] - row, n, i > 0)


def forward(str isa, str kind, x, h0, c0, w_ih, w_hh, b_ih, b_hh, bint reverse, cache_of, sharing):
    """
    Run forward, keeping what backward needs.

    Parameters
    ----------
    isa, kind : str
        As for `_core.cell.Cell`.
    x, h0, c0, w_ih, w_hh, b_ih, b_hh
        As in `fastrnn.functional`, as they came; c0 None but for an LSTM.
    cache_of : callable or None
        Of y and this `Pass`, whose `backward` will be called: what is returned as cache. None: it will not.
    sharing : module
        `fastrnn._sharing`.

    Returns
    -------
    tuple or None
        y, h_n, an LSTM's c_n, and the cache or None. None if an argument is not plain, that is, an array in C order of native
        floats, none of them empty, and all shapes fit; or if without a cache too much would be kept.
    """
    cdef Pass it = Pass.__new__(Pass)
    if not it.accept(kind, isa, x, w_ih, w_hh, b_ih, b_hh):
        return None
    if cache_of is None and it.T * it.B * it.gates_width * it.item > BLOCK_BYTES:
        return None
    it.sharing = sharing
    return it.forward(h0, c0, b_ih, b_hh, reverse, cache_of)
