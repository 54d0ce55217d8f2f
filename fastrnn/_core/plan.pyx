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

    def blocks(self, max_rows=None):
        """Cut the steps into runs of at most `max_rows` rows (but a step at least): (s0, s1, slice of rows) each."""
        if max_rows is None:
            return [(0, self.steps, slice(0, self.rows))]
        cdef Py_ssize_t s0, s1, first, step = max(1, max_rows // max(1, self.B))
        result = []
        for s0 in range(0, self.steps, step):
            s1 = min(self.steps, s0 + step)
            first = self.first_row(s0, s1)
            result.append((s0, s1, slice(first, first + self.count(s0, s1))))
        return result

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

    def previous(self, out, rows, state):
        """Fill out (rows, H) with what each row's step started from: `rows` moved on by a step, `state` in front."""
        cdef Py_ssize_t s, B = self.B, N = self.rows
        if self.ragged:
            for s in range(self.steps):
                start, size = self.offsets[s], self.batch_sizes[s]
                out[start:start + size] = rows[self.offsets[s - 1]:][:size] if s else state[:size]
        elif self.reverse and N:
            out[:N - B], out[N - B:] = rows[B:], state
        elif N:
            out[B:], out[:B] = rows[:N - B], state

    def moved_on(self):
        """
        Of dense rows, as slices: those of the first step, those of all later ones, and those of each one's step before.
        """
        cdef Py_ssize_t B = self.B, N = self.rows
        if self.reverse:
            return slice(max(0, N - B), N), slice(0, max(0, N - B)), slice(B, N)
        return slice(0, min(B, N)), slice(B, N), slice(0, max(0, N - B))

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
