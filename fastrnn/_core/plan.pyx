"""How a batch of sequences is walked: every cell's time loop works on *rows* and *steps* and knows nothing else.

The rows of all steps lie below one another in one (rows, width) array, so that whatever does not depend on the
recurrence is one matrix product over all of them. Step s reads and writes the rows [row(s), row(s) + running(s)).

- Dense (no `lengths`): a (T, B, width) array is already such an array; nothing is copied. `reverse` walks its blocks
  from the last to the first.
- Ragged: sequences are sorted by length, longest first, so that those still running at a step are the first ones, and
  only their rows exist: `rows` is the sum of the lengths, and a finished sequence costs nothing. `reverse` packs each
  sequence from its own end. (The same idea as PyTorch's PackedSequence.)
- With a mask the s-th row of a sequence is its s-th valid step. With resets each stretch between two of them is a
  sequence of its own that begins with zeros, so there are more of them, shorter, and the loops need not know.
"""
cimport cython

import numpy as np

from libc.string cimport memcpy, memset

from fastrnn._core.memory import empty


cdef enum:
    ROWS_AT_ONCE = 256  # whose part of a panel stays in the cache (OUTER_BLOCK of csrc/product_impl.h)


@cython.final
@cython.no_gc
@cython.freelist(8)
cdef class Plan:
    """
    Parameters
    ----------
    T, B : int
        Steps and columns of the padded arrays.
    lengths : integers (B,), optional
    reverse : bool
    mask, reset : bool (T, B), C-contiguous, optional
        As in `fastrnn.functional`.
    """

    def __init__(self, Py_ssize_t T, Py_ssize_t B, lengths=None, bint reverse=False, mask=None, reset=None):
        self.set_dense(T, B, reverse)
        self.ragged = lengths is not None or mask is not None or reset is not None
        if not self.ragged:
            return
        lengths = np.full(B, T, dtype=np.intp) if lengths is None else np.ascontiguousarray(lengths, dtype=np.intp)
        if mask is not None or reset is not None:
            self.follow_marks(lengths, mask, reset)
            return
        self.final = self.sort_by_length(np.arange(B, dtype=np.intp), lengths)
        with nogil:
            self.find_rows()

    cdef void set_dense(self, Py_ssize_t T, Py_ssize_t B, bint reverse) noexcept:
        self.T, self.columns, self.B, self.reverse = T, B, B, reverse
        self.steps, self.rows = T if B else 0, T * B

    def follow_marks(self, Py_ssize_t[::1] ends, mask, reset):
        """Cut the columns into sequences at their resets, and count their valid steps."""
        cdef:
            bint masked = mask is not None, cut = reset is not None, inside
            const unsigned char[::1] valid, resets
            Py_ssize_t most = self.B, n = self.B, i, t, b, place
        if masked:
            valid = mask.reshape(-1).view(np.uint8)
        if cut:
            resets = reset.reshape(-1).view(np.uint8)
            most += np.count_nonzero(reset)
        columns, fresh = np.arange(most, dtype=np.intp), np.zeros(most, dtype=bool)
        cdef:
            Py_ssize_t[::1] column = columns, count = np.zeros(most, dtype=np.intp)
            Py_ssize_t[::1] now = np.arange(self.B, dtype=np.intp)
            Py_ssize_t[::1] sequence = np.empty(self.T * self.B, dtype=np.intp)
            unsigned char[::1] zeros = fresh.view(np.uint8)
        with nogil:
            for i in range(self.T):
                t = self.T - 1 - i if self.reverse else i
                for b in range(self.columns):
                    place = t * self.columns + b
                    inside = t < ends[b]
                    if cut and inside and resets[place]:
                        if count[now[b]]:
                            column[n] = b
                            now[b] = n
                            n += 1
                        zeros[now[b]] = True
                    sequence[place] = -1
                    if inside and (not masked or valid[place]):
                        sequence[place] = now[b]
                        count[now[b]] += 1
        self.B = n
        rank = self.sort_by_length(column[:n], count[:n])
        self.final = np.take(rank, now)
        if cut:
            self.fresh = np.empty(n, dtype=bool)
            self.fresh[np.asarray(rank)] = fresh[:n]
        count[:] = 0
        with nogil:
            self.find_marked_rows(sequence, rank, count)

    cdef Py_ssize_t[::1] sort_by_length(self, Py_ssize_t[::1] columns, Py_ssize_t[::1] lengths):
        """
        What depends on the sequences' lengths alone; where each of them is sorted to. Stable, so that equal lengths keep
        their order and a full batch is not shuffled.
        """
        cdef Py_ssize_t s, k, i, longer = 0
        self.steps = self.rows = 0
        for i in range(self.B):
            self.steps, self.rows = max(self.steps, lengths[i]), self.rows + lengths[i]
        cdef Py_ssize_t[::1] place = np.zeros(self.steps + 1, dtype=np.intp), rank = np.empty(self.B, dtype=np.intp)
        self.batch_sizes, self.offsets = np.empty(self.steps, dtype=np.intp), np.zeros(self.steps + 1, dtype=np.intp)
        self.order, self.lengths = np.empty(self.B, dtype=np.intp), np.empty(self.B, dtype=np.intp)
        for i in range(self.B):
            place[lengths[i]] += 1
        for s in range(self.steps, -1, -1):  # place[s]: how many lengths exceed s, so where the first of s goes
            place[s], longer = longer, longer + place[s]
        for s in range(self.steps):
            self.batch_sizes[s] = place[s]
            self.offsets[s + 1] = self.offsets[s] + place[s]
        for i in range(self.B):
            k = place[lengths[i]]
            place[lengths[i]] += 1
            rank[i], self.order[k], self.lengths[k] = k, columns[i], lengths[i]
        self.until = np.cumsum(self.lengths)
        self.source = np.empty(self.rows, dtype=np.intp)
        self.gaps = np.empty(self.T * self.columns - self.rows, dtype=np.intp)
        return rank

    cdef void find_rows(self) noexcept nogil:
        """Fill `source` and `gaps`, all steps before the ends being valid."""
        cdef Py_ssize_t s, k, t, running, gap = 0
        for s in range(self.T):
            running = self.batch_sizes[s] if s < self.steps else 0
            for k in range(running):
                t = self.lengths[k] - 1 - s if self.reverse else s
                self.source[self.offsets[s] + k] = t * self.columns + self.order[k]
            for k in range(running, self.B):
                self.gaps[gap] = s * self.columns + self.order[k]
                gap += 1

    cdef void find_marked_rows(self, Py_ssize_t[::1] sequence, Py_ssize_t[::1] rank,
                               Py_ssize_t[::1] seen) noexcept nogil:
        """The same, given for each place its sequence, or -1. `seen` is scratch, zeros."""
        cdef Py_ssize_t i, b, t, place, k, gap = 0
        for i in range(self.T):
            t = self.T - 1 - i if self.reverse else i
            for b in range(self.columns):
                place = t * self.columns + b
                k = sequence[place]
                if k < 0:
                    self.gaps[gap] = place
                    gap += 1
                else:
                    self.source[self.offsets[seen[k]] + rank[k]] = place
                    seen[k] += 1

    def blocks(self, max_rows=None, steps_at_most=None):
        """
        Cut the steps into runs of at most `max_rows` rows (but a step at least): (s0, s1, slice of rows) each. None
        crosses a multiple of `steps_at_most`.
        """
        cdef Py_ssize_t s0 = 0, s1, first, most = steps_at_most or max(1, self.steps), step = most
        if max_rows is not None:
            step = min(most, max(1, max_rows // max(1, self.B)))
        result = []
        while s0 < self.steps:
            s1 = min(self.steps, s0 + step, (s0 // most + 1) * most)
            first = self.first_row(s0, s1)
            result.append((s0, s1, slice(first, first + self.count(s0, s1))))
            s0 = s1
        return result

    @property
    def steps_at_once(self):
        """How many steps make a block of a sum over steps: about ROWS_AT_ONCE rows of all sequences."""
        return max(1, ROWS_AT_ONCE // max(1, self.B))

    def blocks_of_sums(self, s0, s1):
        """
        How weight gradients are summed over the steps s0 <= s < s1: (n,2), the rows first <= row < last of each block,
        counted from the steps' lowest row, from the last steps to the first. Blocks begin at multiples of
        `steps_at_once`, so what is summed piece by piece has the same bits if the pieces do.
        """
        cdef Py_ssize_t base, most = self.steps_at_once
        if s1 <= s0:
            return np.empty((0, 2), dtype=np.intp)
        if s1 - s0 <= most:
            return np.array([[0, self.count(s0, s1)]], dtype=np.intp)
        base = self.first_row(s0, s1)
        runs = [run for run in self.blocks(None, most) if s0 <= run[0] < s1]
        rows = [(run[2].start - base, run[2].stop - base) for run in reversed(runs)]
        return np.array(rows, dtype=np.intp)

    def rows_of(self, Py_ssize_t s):
        """The rows of a step, as a slice."""
        return slice(self.row(s), self.row(s) + self.running(s))

    def pack(self, array):
        """(T, B, width) -> (rows, width): the rows that belong to sequences, in walking order. Dense: a view."""
        if not self.ragged:
            return array.reshape(self.rows, array.shape[2])
        rows = empty((self.rows, array.shape[2]), array.dtype)
        cdef Py_ssize_t nbytes = array.shape[2] * array.itemsize
        cdef char* to = <char*><size_t>rows.ctypes.data
        array = np.ascontiguousarray(array)
        cdef const char* source = <const char*><size_t>array.ctypes.data
        with nogil:
            self.gather(to, source, nbytes, 0, self.B)
        return rows

    def unpack(self, rows):
        """(rows, width) -> (T, B, width), zeros where no sequence is. Dense: a view."""
        if not self.ragged:
            return rows.reshape(self.T, self.B, rows.shape[1])
        array = empty((self.T, self.columns, rows.shape[1]), rows.dtype)
        cdef Py_ssize_t nbytes = rows.shape[1] * rows.itemsize
        cdef char* to = <char*><size_t>array.ctypes.data
        rows = np.ascontiguousarray(rows)
        cdef const char* source = <const char*><size_t>rows.ctypes.data
        with nogil:
            self.scatter(to, nbytes, source, nbytes, 0, self.B)
        return array

    def sort(self, state):
        """
        What the sequences begin with (columns, H) -> (B, H) in the order of the rows; zeros after a reset. Dense: the same
        array.
        """
        if not self.ragged:
            return state
        result = np.take(state, self.order, axis=0)
        if self.fresh is not None:
            result[self.fresh] = 0
        return result

    def of_sequences(self, array):
        """Something of every column (columns, width) -> of every sequence, sorted. Dense: the same array."""
        return np.take(array, self.order, axis=0) if self.ragged else array

    def unsort(self, state):
        """
        The way back from `sort`, for gradients: zeros for a column whose own state is not begun with. Dense: the same
        array.
        """
        if self.fresh is None:
            return self.unsort_ends(state)
        result = np.zeros((self.columns, *state.shape[1:]), state.dtype)
        own = np.flatnonzero(~self.fresh)
        result[np.asarray(self.order)[own]] = state[own]
        return result

    def sort_ends(self, state):
        """As `sort`, for the gradients of what the sequences end with: zeros for those that end at a reset."""
        if self.fresh is None:
            return self.sort(state)
        result = np.zeros((self.B, *state.shape[1:]), state.dtype)
        result[np.asarray(self.final)] = state
        return result

    def unsort_ends(self, state):
        """What the columns' last sequences end with, (B, H) as sorted -> (columns, H). Dense: the same array."""
        return np.take(state, self.final, axis=0) if self.ragged else state

    def sort_states(self, states):
        """As `sort`, for those of several layers (layers, B, H); not with resets."""
        return np.take(states, self.order, axis=1)

    def unsort_states(self, states):
        """The way back from `sort_states`."""
        return np.take(states, self.final, axis=1)

    def last(self, rows, state):
        """Each column's last row, or its row of `state` (sorted) where that sequence is empty: (columns, H)."""
        if not self.ragged:
            return (rows[:self.B] if self.reverse else rows[self.rows - self.B:]).copy() if self.steps else state.copy()
        final = np.asarray(self.final)
        lengths = np.take(self.lengths, final)
        result, running = state[final], np.flatnonzero(lengths)
        result[running] = rows[np.asarray(self.offsets)[lengths[running] - 1] + final[running]]
        return result

    def states(self, h0):
        """Memory for h of all steps, with h0 (sorted) beside it where that makes `previous` a view: for dense sequences."""
        cdef Py_ssize_t N = self.rows
        if self.ragged:
            return empty((N, h0.shape[1]), h0.dtype)
        both = empty((N + self.B, h0.shape[1]), h0.dtype)
        both[slice(N, None) if self.reverse else slice(0, self.B)] = h0
        return both

    def of_steps(self, both):
        """The part of `states` that is h (rows,H)."""
        return both if self.ragged else both[:self.rows] if self.reverse else both[self.B:]

    def previous(self, both, h0, Py_ssize_t s0, Py_ssize_t s1):
        """What the steps s0 <= s < s1 started from, h(s-1), a row for each of theirs; `both` is of `states`."""
        cdef Py_ssize_t s, base = 0, end = 0, first, size
        if s1 > s0:
            base = self.first_row(s0, s1)
            end = base + self.count(s0, s1)
        if not self.ragged:
            return both[base + self.B:end + self.B] if self.reverse else both[base:end]
        cdef Py_ssize_t nbytes = both.shape[1] * both.itemsize
        out, h0 = empty((end - base, both.shape[1]), both.dtype), np.ascontiguousarray(h0)
        cdef char* to = <char*><size_t>out.ctypes.data
        cdef const char* rows = <const char*><size_t>both.ctypes.data
        cdef const char* start = <const char*><size_t>h0.ctypes.data
        with nogil:
            for s in range(s0, s1):
                first, size = self.offsets[s] - base, self.batch_sizes[s]
                memcpy(to + first * nbytes, rows + self.offsets[s - 1] * nbytes if s else start, size * nbytes)
        return out

    cdef void gather(self, char* rows, const char* array, Py_ssize_t nbytes, Py_ssize_t k0, Py_ssize_t k1) noexcept nogil:
        """Rows of `nbytes` from the padded array, for the sequences k0 <= k < k1 (as sorted)."""
        cdef Py_ssize_t s, row
        for s in range(self.steps):
            for row in range(self.offsets[s] + k0, self.offsets[s] + min(k1, self.batch_sizes[s])):
                memcpy(rows + row * nbytes, array + self.source[row] * nbytes, nbytes)

    cdef void scatter(self, char* array, Py_ssize_t stride, const char* rows, Py_ssize_t nbytes, Py_ssize_t k0,
                      Py_ssize_t k1) noexcept nogil:
        """Into the padded array, whose rows are `stride` bytes apart, with zeros in a fair part of the gaps."""
        cdef Py_ssize_t s, row, gap
        if self.B == 0:
            return
        for s in range(self.steps):
            for row in range(self.offsets[s] + k0, self.offsets[s] + min(k1, self.batch_sizes[s])):
                memcpy(array + self.source[row] * stride, rows + row * nbytes, nbytes)
        for gap in range(self.gaps.shape[0] * k0 // self.B, self.gaps.shape[0] * k1 // self.B):
            memset(array + self.gaps[gap] * stride, 0, nbytes)

    cdef void last_rows(self, char* to, const char* rows, Py_ssize_t nbytes, Py_ssize_t stride, Py_ssize_t k0,
                        Py_ssize_t k1) noexcept nogil:
        """Each sequence's last row, k0 <= k < k1 (as sorted); nothing for an empty one."""
        cdef Py_ssize_t k, steps
        for k in range(k0, k1):
            steps = self.lengths[k] if self.ragged else self.steps
            if steps:
                memcpy(to + k * nbytes, rows + (self.row(steps - 1) + k) * stride, nbytes)


cdef Plan dense_plan(Py_ssize_t T, Py_ssize_t B, bint reverse):
    cdef Plan plan = Plan.__new__(Plan)
    plan.set_dense(T, B, reverse)
    return plan
