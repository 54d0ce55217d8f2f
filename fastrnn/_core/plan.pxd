cimport cython


@cython.final
@cython.no_gc
@cython.freelist(8)
cdef class Plan:
    """The order in which a ragged batch is walked. See plan.pyx."""
    cdef readonly Py_ssize_t T, columns     # of the padded arrays
    cdef readonly Py_ssize_t B              # how many sequences are walked: with resets more than there are columns
    cdef readonly Py_ssize_t steps, rows
    cdef readonly bint ragged, reverse
    cdef Py_ssize_t[::1] batch_sizes, offsets
    cdef Py_ssize_t[::1] order, lengths, until  # of sorted sequences: the column, the steps, the rows up to and with it
    cdef Py_ssize_t[::1] final      # of columns: the sorted sequence that is the last one there
    cdef Py_ssize_t[::1] source     # of rows: the place in a padded array, t * columns + b
    cdef Py_ssize_t[::1] gaps       # the places that no row comes from
    cdef object fresh               # of sorted sequences: whether they begin with zeros; None: none does

    cdef void set_dense(self, Py_ssize_t T, Py_ssize_t B, bint reverse) noexcept
    cdef Py_ssize_t[::1] sort_by_length(self, Py_ssize_t[::1] columns, Py_ssize_t[::1] lengths)
    cdef void find_rows(self) noexcept nogil
    cdef void find_marked_rows(self, Py_ssize_t[::1] sequence, Py_ssize_t[::1] rank, Py_ssize_t[::1] seen) noexcept nogil

    cdef inline Py_ssize_t running(self, Py_ssize_t s) noexcept nogil:
        """How many sequences are still running at step s: rows [row(s), row(s) + running(s)) belong to it."""
        return self.batch_sizes[s] if self.ragged else self.B

    cdef inline Py_ssize_t size(self, Py_ssize_t s, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
        """How many of the sequences b0 <= b < b1 (as sorted) are still running at step s: the first ones."""
        return max(0, min(b1, self.running(s)) - b0)

    cdef inline Py_ssize_t row(self, Py_ssize_t s) noexcept nogil:
        """The first row of step s in the row arrays."""
        if self.ragged:
            return self.offsets[s]
        return (self.steps - 1 - s if self.reverse else s) * self.B

    cdef inline Py_ssize_t first_row(self, Py_ssize_t s0, Py_ssize_t s1) noexcept nogil:
        """The lowest row of the steps s0 <= s < s1, whose rows lie together."""
        return min(self.row(s0), self.row(s1 - 1))

    cdef inline Py_ssize_t count(self, Py_ssize_t s0, Py_ssize_t s1) noexcept nogil:
        """How many rows the steps s0 <= s < s1 have."""
        cdef Py_ssize_t last = s1 - 1 if not self.reverse or self.ragged else s0
        return self.row(last) + self.running(last) - self.first_row(s0, s1)

    cdef inline Py_ssize_t alike(self, Py_ssize_t s, Py_ssize_t s1) noexcept nogil:
        """How many steps from s on, below s1, have as many rows as s has."""
        cdef Py_ssize_t end = s + 1
        if not self.ragged:
            return s1 - s
        while end < s1 and self.batch_sizes[end] == self.batch_sizes[s]:
            end += 1
        return end - s

    cdef inline Py_ssize_t cut(self, int rank, int size) noexcept nogil:
        """Where the sequences (as sorted) of a member begin, when all are shared by their rows; of `size`: B."""
        if not self.ragged or rank == 0 or rank == size:
            return self.B * rank // size
        cdef Py_ssize_t low = 0, high = self.B, middle, wanted = self.rows * rank // size
        while low < high:
            middle = (low + high) // 2
            if self.until[middle] < wanted:
                low = middle + 1
            else:
                high = middle
        return min(low + 1, self.B)

    cdef void gather(self, char* rows, const char* array, Py_ssize_t nbytes, Py_ssize_t k0, Py_ssize_t k1) noexcept nogil
    cdef void scatter(self, char* array, Py_ssize_t stride, const char* rows, Py_ssize_t nbytes, Py_ssize_t k0,
                      Py_ssize_t k1) noexcept nogil
    cdef void last_rows(self, char* to, const char* rows, Py_ssize_t nbytes, Py_ssize_t stride, Py_ssize_t k0,
                        Py_ssize_t k1) noexcept nogil


# That of dense sequences.
cdef Plan dense_plan(Py_ssize_t T, Py_ssize_t B, bint reverse)
