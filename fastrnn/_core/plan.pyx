"""How a batch of sequences is walked: every cell's time loop works on *rows* and *steps* and knows nothing else.

The rows of all steps lie below one another in one (rows, width) array, so that whatever does not depend on the
recurrence is one matrix product over all of them. Step s reads and writes the rows [row(s), row(s) + running(s)).

- Dense (no `lengths`): a (T, B, width) array is already such an array; nothing is copied. `reverse` walks its blocks
  from the last to the first.
- Ragged: sequences are sorted by length, longest first, so that those still running at a step are the first ones, and
  only their rows exist: `rows` is the sum of the lengths, and a finished sequence costs nothing. `reverse` packs each
  sequence from its own end. (The same idea as PyTorch's PackedSequence.)
"""
import numpy as np

from libc.string cimport memcpy, memset

from fastrnn._core.memory import empty


cdef enum:
    ROWS_AT_ONCE = 256  # whose part of a panel stays in the cache (OUTER_BLOCK of csrc/product_impl.h)


cdef class Plan:
    def __init__(self, Py_ssize_t T, Py_ssize_t B, lengths=None, bint reverse=False):
        self.T, self.B, self.reverse = T, B, reverse
        self.ragged = lengths is not None
        if not self.ragged:
            self.steps = T if B else 0
            self.rows = T * B
            return
        lengths = np.ascontiguousarray(lengths, dtype=np.intp)
        # Stable, so that equal lengths keep their order and a full batch is not shuffled.
        order = np.argsort(-lengths, kind="stable").astype(np.intp, copy=False)
        self.steps = int(lengths.max(initial=0))
        self.rows = int(lengths.sum())
        # batch_sizes[s] = how many lengths exceed s.
        counts = np.bincount(lengths, minlength=self.steps + 1)
        batch_sizes = (B - np.cumsum(counts))[: self.steps].astype(np.intp)
        offsets = np.zeros(self.steps + 1, dtype=np.intp)
        np.cumsum(batch_sizes, out=offsets[1:])
        self.batch_sizes, self.offsets, self.order, self.lengths = batch_sizes, offsets, order, lengths
        self.until = np.cumsum(lengths[order])

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
        array = empty((self.T, self.B, rows.shape[1]), rows.dtype)
        cdef Py_ssize_t nbytes = rows.shape[1] * rows.itemsize
        cdef char* to = <char*><size_t>array.ctypes.data
        rows = np.ascontiguousarray(rows)
        cdef const char* source = <const char*><size_t>rows.ctypes.data
        with nogil:
            self.scatter(to, nbytes, source, nbytes, 0, self.B)
        return array

    def sort(self, state):
        """(B, H) in the caller's order -> the order of the rows. Dense: the same array."""
        return np.take(state, self.order, axis=0) if self.ragged else state

    def unsort(self, state):
        """The way back from `sort`. Dense: the same array."""
        if not self.ragged:
            return state
        result = np.empty_like(state)
        result[np.asarray(self.order)] = state
        return result

    def sort_states(self, states):
        """As `sort`, for those of several layers (layers, B, H)."""
        return np.take(states, self.order, axis=1)

    def unsort_states(self, states):
        """The way back from `sort_states`."""
        result = np.empty_like(states)
        result[:, np.asarray(self.order)] = states
        return result

    def last(self, rows, state):
        """Each sequence's last row, or its row of `state` (sorted) where it is empty: (B, H) in the caller's order."""
        if not self.ragged:
            return (rows[:self.B] if self.reverse else rows[self.rows - self.B:]).copy() if self.steps else state.copy()
        lengths = np.asarray(self.lengths)[self.order]
        running = np.count_nonzero(lengths)
        result = state.copy()
        result[:running] = rows[np.asarray(self.offsets)[lengths[:running] - 1] + np.arange(running)]
        return self.unsort(result)

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

    def previous(self, both, h0, s0, s1):
        """What the steps s0 <= s < s1 started from, h(s-1), a row for each of theirs; `both` is of `states`."""
        cdef Py_ssize_t s, base = 0, end = 0, first, size
        if s1 > s0:
            base = self.first_row(s0, s1)
            end = base + self.count(s0, s1)
        if not self.ragged:
            return both[base + self.B:end + self.B] if self.reverse else both[base:end]
        out = empty((end - base, both.shape[1]), both.dtype)
        for s in range(s0, s1):
            first, size = self.offsets[s] - base, self.batch_sizes[s]
            out[first:first + size] = both[self.offsets[s - 1]:][:size] if s else h0[:size]
        return out

    cdef void gather(self, char* rows, const char* array, Py_ssize_t nbytes, Py_ssize_t k0, Py_ssize_t k1) noexcept nogil:
        """Rows of `nbytes` from the padded array, for the sequences k0 <= k < k1 (as sorted)."""
        cdef Py_ssize_t s, t, k, length
        for k in range(k0, k1):
            length = self.lengths[self.order[k]]
            for s in range(length):
                t = length - 1 - s if self.reverse else s
                memcpy(rows + (self.offsets[s] + k) * nbytes, array + (t * self.B + self.order[k]) * nbytes, nbytes)

    cdef void scatter(self, char* array, Py_ssize_t stride, const char* rows, Py_ssize_t nbytes, Py_ssize_t k0,
                      Py_ssize_t k1) noexcept nogil:
        """Into the padded array, whose rows are `stride` bytes apart, with zeros where no sequence is."""
        cdef Py_ssize_t s, t, k, length
        for k in range(k0, k1):
            length = self.lengths[self.order[k]]
            for s in range(length):
                t = length - 1 - s if self.reverse else s
                memcpy(array + (t * self.B + self.order[k]) * stride, rows + (self.offsets[s] + k) * nbytes, nbytes)
            for t in range(length, self.T):
                memset(array + (t * self.B + self.order[k]) * stride, 0, nbytes)

    cdef void last_rows(self, char* to, const char* rows, Py_ssize_t nbytes, Py_ssize_t stride, Py_ssize_t k0,
                        Py_ssize_t k1) noexcept nogil:
        """Each sequence's last row, k0 <= k < k1 (as sorted); nothing for an empty one."""
        cdef Py_ssize_t k, steps
        for k in range(k0, k1):
            steps = self.lengths[self.order[k]] if self.ragged else self.steps
            if steps:
                memcpy(to + k * nbytes, rows + (self.row(steps - 1) + k) * stride, nbytes)
