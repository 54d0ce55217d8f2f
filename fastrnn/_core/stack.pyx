"""A stack of frozen layers run over whole sequences in one compiled call, with no Python in between.

Inside a call each direction of each layer is a `Layer`; they are chained by attributes, for C code without the
interpreter's lock can follow an attribute and cannot take from a list.

What lies where in a pass: a layer reads a padded array (T,B,width) and fills another one (T,B,D*H), each direction its
own columns. Dense sequences are worked on in place. Ragged ones are gathered into packed rows (plan.pyx) before a
direction and scattered after it.
"""
cimport cython

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from numpy cimport PyArray_NBYTES

from fastrnn._core.arrays cimport address, is_plain, shape_of
from fastrnn._core.cell cimport Cell, Sequence, gates_apart, walk
from fastrnn._core.kernels cimport FR_LSTM
from fastrnn._core.matrix cimport Matrix, multiply_groups, multiply_part
from fastrnn._core.memory cimport SMALLEST, Block, new_array, room
from fastrnn._core.plan cimport Plan, dense_plan
from fastrnn._core.team cimport Work, await_, fr_barrier, fr_progress, meet, run, share, tell, worth_asking


cdef class Layer:
    """
    One direction of one layer; never changed, so any number of threads may use it.

    Parameters
    ----------
    w_ih : Matrix
        Packed or for BLAS, as the cell is.
    cell : Cell
    other : Layer or None
        Its reverse direction.
    """
    def __init__(self, Matrix w_ih, Cell cell, Layer other=None):
        self.w_ih, self.cell, self.other = w_ih, cell, other


cdef class Stack:
    """
    The layers of a frozen object, chained.

    Parameters
    ----------
    layers : list of Layer
        From the first up, forward directions.
    sharing : callable
        `fastrnn._sharing.passing`. Asked for work worth it only.
    """
    cdef readonly list layers
    cdef Layer first
    cdef object sharing
    cdef readonly Py_ssize_t L, D, H, I, itemsize, weights
    cdef Py_ssize_t G, ld_gates
    cdef bint has_c

    def __init__(self, list layers, sharing):
        cdef Layer layer, below = None
        self.layers, self.first, self.L, self.sharing = layers, layers[0], len(layers), sharing
        self.D = 1 if self.first.other is None else 2
        self.H, self.G, self.I = self.first.cell.H, self.first.cell.G, self.first.w_ih.K
        self.itemsize, self.has_c = self.first.cell.itemsize, self.first.cell.kind == FR_LSTM
        self.ld_gates = gates_apart(self.G, self.itemsize)
        for layer in layers:
            self.weights += self.D * layer.w_ih.N * (layer.w_ih.K + self.H)
            if below is not None:
                below.above = layer
            below = layer

    def run(self, x, state, plans, out):
        """
        Run whole sequences.

        Parameters
        ----------
        x : array (T,B,I)
        state : array (L*D,B,H), for an LSTM a tuple of two, or None for zeros
            As the plan sorts them.
        plans : list of Plan, or None
            Of ragged sequences, for each direction; None: dense.
        out : array (T,B,D*H) or None
            Where to put y.

        Returns
        -------
        tuple or None
            y and the final state, as sorted. None where an argument is not a plain array, C-contiguous and of the
            layers' type and shape, or x and `out` share memory, for y is written while x is read: nothing has been done
            then.
        """
        cdef:
            _Pass job = _Pass.__new__(_Pass)
            Py_ssize_t T, B, few
            int members = 1
            long patience = 0
        if not is_plain(x, self.itemsize, 3) or shape_of(x)[2] != self.I:
            return None
        T, B = shape_of(x)[0], shape_of(x)[1]
        y = new_array(self.itemsize, 3, T, B, self.D * self.H) if out is None else out
        final = self.begin_state(job, state, B)
        if final is None or not fits(y, self.itemsize, T, B, self.D * self.H, True):
            return None
        if out is not None and overlap(x, y):
            return None
        job.x, job.y, job.T, job.B = <const char*>address(x), <char*>address(y), T, B
        job.stack, job.first = self, self.first
        job.groups, job.way = 1, ROWS
        if plans is not None:
            job.ragged, job.plan, job.plan_back = True, plans[0], plans[self.D - 1]
        else:
            job.plan = dense_plan(T, B, False)
            if self.D == 2:
                job.plan_back = dense_plan(T, B, True)
        few = (job.plan.rows + job.plan.steps - 1) // max(1, job.plan.steps)  # of ragged sequences fewer and fewer run
        if job.plan.rows * self.weights >= worth_asking(few):
            how = self.sharing(job.plan.steps, few, self.H * self.G, self.itemsize, self.I * self.G, self.L, self.D)
            members, patience, job.way = how.members, how.patience, WAYS[how.way]
            if job.way == LAYERS and (job.ragged or self.D == 2):
                members = 1
            if job.way == LAYERS or job.way == ROWS and job.ragged:
                job.groups = members
            elif job.way != ROWS and self.D == 2 and members > 1:
                job.groups = 2
        if T and B and self.H:
            job.allocate(members)
            with nogil:
                if job.way == ROWS or job.way == DIRECTIONS and self.L == 1 and members == 2:
                    share(job, members, patience)
                else:
                    run(job, members, patience)
        return y, final if self.has_c else final[0]

    cdef begin_state(self, _Pass job, state, Py_ssize_t B):
        """The arrays of the final state, which begin as the initial one; None if `state` is not plain."""
        cdef Py_ssize_t nbytes = self.L * self.D * B * self.H * self.itemsize
        cdef int k
        if state is not None and self.has_c and (type(state) is not tuple or len(state) != 2):
            return None
        h = new_array(self.itemsize, 3, self.L * self.D, B, self.H)
        arrays = (h, new_array(self.itemsize, 3, self.L * self.D, B, self.H)) if self.has_c else (h,)
        for k in range(2 if self.has_c else 1):
            job.states[k] = <char*>address(arrays[k])
            if state is None:
                memset(job.states[k], 0, nbytes)
                continue
            part = state[k] if self.has_c else state
            if not fits(part, self.itemsize, self.L * self.D, B, self.H, False):
                return None
            memcpy(job.states[k], address(part), nbytes)
        return arrays


cdef bint fits(array, Py_ssize_t itemsize, Py_ssize_t n0, Py_ssize_t n1, Py_ssize_t n2, bint writable):
    """Whether it is a plain array of this shape."""
    if not is_plain(array, itemsize, 3, writable):
        return False
    cdef const Py_ssize_t* shape = shape_of(array)
    return shape[0] == n0 and shape[1] == n1 and shape[2] == n2


cdef bint overlap(a, b):
    """Whether two plain arrays have memory in common."""
    cdef const char* from_a = <const char*>address(a)
    cdef const char* from_b = <const char*>address(b)
    return from_a < from_b + PyArray_NBYTES(b) and from_b < from_a + PyArray_NBYTES(a)


cdef enum Way:
    ROWS
    UNITS
    DIRECTIONS
    LAYERS

WAYS = {"rows": ROWS, "units": UNITS, "directions": DIRECTIONS, "layers": LAYERS}

cdef enum:
    # Gates made at a time: so many bytes, from 128 KB to 2 MB it makes no difference, or as many as the input weights
    # have. Those are read once for each block, and large ones drive the recurrent ones out of the cache: with a block
    # for each step an LSTM of T=25, B=32, I=H=1024 took 72 ms, with one block 65.
    BLOCK_BYTES = 256 * 1024
    GAP = 256                   # bytes between members' gates
    FOLLOWING = 16              # blocks at least where layers follow one another


@cython.final
@cython.no_gc
cdef class _Pass(Work):
    """
    One call of a stack.

    A group is the members who share a direction, or one member by layers or, with ragged sequences, by rows; it has
    scratch of its own. Members by rows of dense sequences have each their own rows of one group's, but for gates: those
    of a member lie together, for what a core reads ahead of its rows would be what the other one writes. On two cores of
    a Zen 3, LSTM, T=100 B=32 I=32 H=64 1.1 to 1.25 times as fast.
    """
    cdef Stack stack
    cdef Layer first
    cdef Plan plan, plan_back
    cdef Py_ssize_t T, B, block
    cdef bint ragged
    cdef Way way
    cdef int groups
    cdef const char* x
    cdef char* y
    cdef char* states[2]        # h, c: (L*D,B,H): in and out
    cdef char* memory
    cdef Block owner
    cdef char* gates            # of each group: a block of rows
    cdef char* extra            # of each group: (B,H)
    cdef char* h0               # of each group: (B,H)
    cdef char* packed_x         # of each group, ragged: rows
    cdef char* packed_h
    cdef char* between          # of each layer but the last; padded
    cdef Py_ssize_t gates_size, state_size, packed_x_size, packed_h_size, between_size
    cdef fr_barrier barrier[2]  # of each direction
    cdef fr_barrier everybody
    cdef fr_progress* progress  # of each layer, where they follow one another

    def __dealloc__(self):
        free(self.memory)

    cdef allocate(self, int members):
        """One piece of memory for all scratch, each part at a 64-byte boundary."""
        cdef:
            Stack stack = self.stack
            Py_ssize_t rows = self.plan.rows, item = stack.itemsize, width = max(stack.I, stack.D * stack.H), size
            Py_ssize_t step = self.B * stack.ld_gates * item
        self.block = max(1, max(BLOCK_BYTES, width * stack.G * item) // step)
        if self.way == LAYERS:
            self.block = max(1, min(self.block, self.T // FOLLOWING))
        self.block = min(self.block, self.plan.steps)
        self.gates_size = padded(min(rows, self.block * self.B) * stack.ld_gates * item) + members * GAP
        self.state_size = padded(self.B * stack.H * item)
        self.packed_x_size = padded(rows * width * item) if self.ragged else 0
        self.packed_h_size = padded(rows * stack.H * item) if self.ragged else 0
        self.between_size = padded(self.T * self.B * stack.D * stack.H * item)
        size = self.groups * (self.gates_size + 2 * self.state_size + self.packed_x_size + self.packed_h_size)
        size += (stack.L - 1) * self.between_size
        if self.way == LAYERS:
            size += stack.L * sizeof(fr_progress)
        self.gates = self.scratch(size)
        self.extra = self.gates + self.groups * self.gates_size
        self.h0 = self.extra + self.groups * self.state_size
        self.packed_x = self.h0 + self.groups * self.state_size
        self.packed_h = self.packed_x + self.groups * self.packed_x_size
        self.between = self.packed_h + self.groups * self.packed_h_size
        if self.way == LAYERS:
            self.progress = <fr_progress*>(self.between + (stack.L - 1) * self.between_size)
            memset(self.progress, 0, stack.L * sizeof(fr_progress))

    cdef char* scratch(self, Py_ssize_t size) except NULL:
        """Memory to be given back with this object: from malloc what it keeps itself, else what memory.pyx keeps."""
        cdef char* start
        if size < SMALLEST:
            start = self.memory = <char*>malloc(size + 64)
            if start == NULL:
                raise MemoryError(f"{size} bytes")
        else:
            self.owner = room(size)
            return self.owner.data
        return <char*>((<size_t>start + 63) & ~<size_t>63)

    cdef const char* input(self, int k) noexcept nogil:
        return self.x if k == 0 else self.between + (k - 1) * self.between_size

    cdef char* output(self, int k) noexcept nogil:
        return self.y if k == self.stack.L - 1 else self.between + k * self.between_size

    cdef void part(self, int rank, int size) noexcept nogil:
        if self.way == LAYERS and size > 1:
            self.follow(self.first, 0, rank, size)
        else:
            self.climb(self.first, 0, rank, size)

    cdef void climb(self, Layer layer, int k, int rank, int size) noexcept nogil:
        """This layer, all members in it, and those above."""
        cdef int group = rank if self.way == ROWS and self.groups > 1 else 0
        if layer.other is None:
            self.direction(layer, self.plan, self.stack, k, 0, group, rank, size)
        elif size == 1 or self.way == ROWS:
            self.direction(layer, self.plan, self.stack, k, 0, group, rank, size)
            self.direction(layer.other, self.plan_back, self.stack, k, 1, group, rank, size)
        elif rank % 2 == 0:  # members 0 2 4 .. forward, 1 3 5 .. backward
            self.direction(layer, self.plan, self.stack, k, 0, 0, rank // 2, (size + 1) // 2)
        else:
            self.direction(layer.other, self.plan_back, self.stack, k, 1, 1, rank // 2, size // 2)
        if layer.above is not None:
            if self.way != ROWS:
                meet(&self.everybody, size)
            self.climb(layer.above, k + 1, rank, size)

    cdef void direction(self, Layer layer, Plan plan, Stack stack, int k, int d, int group, int rank,
                        int size) noexcept nogil:
        """Direction d of layer k, by the members of a group, or by rows those of a member's own sequences."""
        cdef:
            Py_ssize_t item = stack.itemsize, H = stack.H, width = layer.w_ih.K, state = self.B * H * item, s0 = 0
            Py_ssize_t k0 = plan.cut(rank, size), k1 = plan.cut(rank + 1, size)
            const char* rows = self.input(k)
            char* out = self.output(k) + d * H * item
            char* h_n = self.states[0] + (k * stack.D + d) * state
            char* h0 = self.h0 + group * self.state_size
            fr_barrier* barrier = &self.barrier[d]
            int meeting = 1 if self.way == ROWS else size
            Sequence q
        self.begin(&q, layer.cell, k, d, group)
        q.own = self.way == ROWS and size > 1
        if q.own and not self.ragged:
            q.gates += padded(k0 * self.block * stack.ld_gates * item) + rank * GAP
        memcpy(h0 + k0 * H * item, h_n + k0 * H * item, (k1 - k0) * H * item)
        if self.ragged:
            rows = self.packed_x + group * self.packed_x_size
            plan.gather(<char*>rows, self.input(k), width * item, k0, k1)
            q.h, q.ldh = self.packed_h + group * self.packed_h_size, H
        else:
            q.h, q.ldh = out, stack.D * H
        meet(barrier, meeting)
        while s0 < plan.steps:
            self.steps(layer, plan, &q, rows, s0, min(s0 + self.block, plan.steps), rank, size, barrier)
            s0 += self.block
        if self.ragged:
            plan.scatter(out, stack.D * H * item, q.h, H * item, k0, k1)
        plan.last_rows(h_n, q.h, H * item, q.ldh * item, k0, k1)
        meet(barrier, meeting)

    cdef void begin(self, Sequence* q, Cell cell, int k, int d, int group) noexcept nogil:
        memset(q, 0, sizeof(Sequence))
        q.gates, q.ld_gates = self.gates + group * self.gates_size, self.stack.ld_gates
        q.extra = self.extra + group * self.state_size
        q.h0 = self.h0 + group * self.state_size
        if cell.kind == FR_LSTM:
            q.c = self.states[1] + (k * self.stack.D + d) * self.B * cell.H * cell.itemsize
            q.c0 = q.c

    cdef void steps(self, Layer layer, Plan plan, Sequence* q, const char* x, Py_ssize_t s0, Py_ssize_t s1, int rank,
                    int size, fr_barrier* barrier) noexcept nogil:
        """A block of steps: the input's part of the gates, then the time loop."""
        cdef Py_ssize_t k0, k1, s = s0, n, own = 0, row = q.ld_gates * layer.w_ih.itemsize
        q.base = plan.first_row(s0, s1)
        x += q.base * layer.w_ih.K * layer.w_ih.itemsize
        if self.way != ROWS or size == 1:
            multiply_part(layer.w_ih, q.gates, q.ld_gates, x, layer.w_ih.K, plan.count(s0, s1), rank, size)
            meet(barrier, size)
            walk(layer.cell, plan, q, s0, s1, 0, self.B, rank, size, barrier)
            return
        k0, k1 = plan.cut(rank, size), plan.cut(rank + 1, size)
        while s < s1:
            n = plan.alike(s, s1)
            multiply_groups(layer.w_ih, q.gates + own * row, q.ld_gates,
                            x + (plan.first_row(s, s + n) - q.base + k0) * layer.w_ih.K * layer.w_ih.itemsize,
                            plan.size(s, k0, k1), n, plan.running(s), plan.size(s, k0, k1))
            own += n * plan.size(s, k0, k1)
            s += n
        walk(layer.cell, plan, q, s0, s1, k0, k1, 0, 1, NULL)

    cdef void follow(self, Layer layer, int k, int rank, int size) noexcept nogil:
        """Layers rank, rank + size, .. of dense sequences of one direction, each a block behind the one below."""
        if k % size == rank:
            self.follow_below(layer, self.plan, k, rank)
        if layer.above is not None:
            self.follow(layer.above, k + 1, rank, size)

    cdef void follow_below(self, Layer layer, Plan plan, int k, int rank) noexcept nogil:
        cdef:
            Py_ssize_t s0 = 0, done = 0, state = self.B * layer.cell.H * layer.cell.itemsize
            char* h_n = self.states[0] + k * state
            Sequence q
        self.begin(&q, layer.cell, k, 0, rank)
        q.h, q.ldh = self.output(k), layer.cell.H
        memcpy(self.h0 + rank * self.state_size, h_n, state)
        while s0 < plan.steps:
            done += 1
            if k:
                await_(&self.progress[k - 1], done)
            self.steps(layer, plan, &q, self.input(k), s0, min(s0 + self.block, plan.steps), 0, 1, NULL)
            tell(&self.progress[k], done)
            s0 += self.block
        plan.last_rows(h_n, q.h, layer.cell.H * layer.cell.itemsize, layer.cell.H * layer.cell.itemsize, 0, self.B)


cdef Py_ssize_t padded(Py_ssize_t nbytes) noexcept nogil:
    return (nbytes + 63) & ~<Py_ssize_t>63
