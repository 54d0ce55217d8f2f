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

from fastrnn._core.blas cimport real

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
        _gather(self, rows, array)
        return rows

    def unpack(self, rows):
        """(rows, width) -> (T, B, width), zeros where no sequence is. Dense: a view."""
        if not self.ragged:
            return rows.reshape(self.T, self.B, rows.shape[1])
        array = empty((self.T, self.B, rows.shape[1]), rows.dtype)
        _scatter(self, array, rows)
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


def _gather(Plan plan, real[:, ::1] rows, const real[:, :, ::1] array):
    """Packed rows from the padded array."""
    cdef Py_ssize_t s, t, k, b, length, width = array.shape[2], nbytes = width * sizeof(real)
    if width == 0 or plan.B == 0:
        return
    with nogil:
        for k in range(plan.B):
            b = plan.order[k]
            length = plan.lengths[b]
            for s in range(length):
                t = length - 1 - s if plan.reverse else s
                memcpy(&rows[plan.offsets[s] + k, 0], &array[t, b, 0], nbytes)


def _scatter(Plan plan, real[:, :, ::1] array, const real[:, ::1] rows):
    """The padded array from packed rows, with zeros where no sequence is."""
    cdef Py_ssize_t s, t, k, b, length, width = array.shape[2], nbytes = width * sizeof(real)
    if width == 0 or plan.B == 0:
        return
    with nogil:
        for k in range(plan.B):
            b = plan.order[k]
            length = plan.lengths[b]
            for s in range(length):
                t = length - 1 - s if plan.reverse else s
                memcpy(&array[t, b, 0], &rows[plan.offsets[s] + k, 0], nbytes)
            for t in range(length, plan.T):
                memset(&array[t, b, 0], 0, nbytes)
