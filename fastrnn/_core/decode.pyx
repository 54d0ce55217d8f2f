"""Decoders: a stream that makes its own next input, many steps in one compiled call.

A step, for rows of which each is a sequence (or, in a beam search, one of the W hypotheses of a source):

    input = [embedding of the last token; context]      context = attention(h of the step before), if it is additive
    h = the stack's step
    out = h, or where attention is general, tanh(W_c [context; h]) with context = attention(h)
    logits = W out + b

Then a token is chosen, or the logits are themselves the next input. No row needs another one but those of its source, so
threads share a call by sources and never wait; or, where those are too few for that and the weights large, by units and
columns, and meet after each part of a step. Of one sequence and 512 units that is 1.5 times as fast on two cores.
"""
import numpy as np

from libc.math cimport INFINITY, log, pow
from libc.string cimport memcpy

from fastrnn._core.arrays cimport address
from fastrnn._core.kernels cimport fr_kernels
from fastrnn._core.matrix cimport COLUMNS, Matrix, multiply, multiply_columns
from fastrnn._core.stream cimport Fed, Stepper
from fastrnn._core.team cimport Work, cut, fr_barrier, meet, run, share

from fastrnn._core.matrix import aligned

ctypedef fused real:
    float
    double

cdef enum Attending:
    NOTHING
    GENERAL
    ADDITIVE

KINDS = {"general": GENERAL, "additive": ADDITIVE}

cdef double MOST_SCALE = 1e30   # 1/temperature: no more, so that a float32 can hold it
cdef double LEAST_PLACE = 1e-30  # on the line from 0 to 1: below it are only tokens whose exp has underflowed


# --- the best of many ------------------------------------------------------------------------------------------------

ctypedef struct Candidate:
    double score
    Py_ssize_t index


cdef inline bint worse(const Candidate* a, const Candidate* b) noexcept nogil:
    """Of equals the later one."""
    return a.score < b.score or a.score == b.score and a.index > b.index


cdef void sink(Candidate* heap, Py_ssize_t count, Py_ssize_t i) noexcept nogil:
    """Restore the order of a heap, the worst on top, of which only place i may be wrong."""
    cdef Py_ssize_t child
    cdef Candidate moved = heap[i]
    while 2 * i + 1 < count:
        child = 2 * i + 1
        if child + 1 < count and worse(&heap[child + 1], &heap[child]):
            child += 1
        if not worse(&heap[child], &moved):
            break
        heap[i] = heap[child]
        i = child
    heap[i] = moved


cdef Py_ssize_t offer(Candidate* heap, Py_ssize_t count, Py_ssize_t most, double score,
                      Py_ssize_t index) noexcept nogil:
    """Take a candidate, of a later index than those before, into the `most` best; how many there are now."""
    cdef Py_ssize_t i
    if count == most:
        if score > heap[0].score:
            heap[0].score, heap[0].index = score, index
            sink(heap, count, 0)
        return count
    heap[count].score, heap[count].index = score, index
    if count + 1 == most:
        for i in range(most // 2 - 1, -1, -1):
            sink(heap, most, i)
    return count + 1


cdef Py_ssize_t largest(const real* x, Py_ssize_t n) noexcept nogil:
    """The first of the largest."""
    cdef Py_ssize_t i, best = 0
    for i in range(1, n):
        if x[i] > x[best]:
            best = i
    return best


# --- choosing a token ------------------------------------------------------------------------------------------------

ctypedef struct Choice:
    Py_ssize_t V
    double scale            # 1/temperature; 0: the likeliest
    Py_ssize_t top_k        # V: all


cdef Py_ssize_t draw(const Choice* how, const fr_kernels* kernels, const real* x, real* p, Candidate* heap,
                     double u) noexcept nogil:
    """The token whose part of the line from 0 to 1 holds u, when tokens share it in their order; p is scratch."""
    cdef Py_ssize_t i, count = 0, best = largest(x, how.V)
    cdef double reach, total
    cdef Candidate mine
    if how.scale == 0:
        return best
    total = kernels.exp_row(p, x, how.V, x[best], how.scale)
    if how.top_k < how.V:
        for i in range(how.V):
            count = offer(heap, count, how.top_k, x[i], i)
        total = 0
        for i in range(how.V):
            mine.score, mine.index = x[i], i
            if worse(&mine, heap):
                p[i] = 0
            total += p[i]
    reach = max(u, LEAST_PLACE) * total
    total = 0
    for i in range(how.V):
        total += p[i]
        if total > reach:
            return i
    for i in range(how.V - 1, -1, -1):  # u is next to 1, and the total above was rounded up
        if p[i] > 0:
            return i
    return best


cdef double log_sum(const fr_kernels* kernels, const real* x, real* p, Py_ssize_t V) noexcept nogil:
    """log(sum exp x); p is scratch."""
    cdef double top = x[largest(x, V)]
    return top + log(kernels.exp_row(p, x, V, top, 1))


# --- the decoder -----------------------------------------------------------------------------------------------------

cdef class Decoder(Work):
    """
    What a step does; for one call.

    Parameters
    ----------
    stepper : Stepper
        With the state to begin with, of B rows.
    head : Matrix
    bias : array (V,)
    embedding : array (V, D), optional
        None: the logits are the next input.
    attention : tuple, optional
        ``(kind, keys (N,S,A), values (N,S,E), lengths (N,), query, v, combine)``: B/N rows look at each source. Of the
        "general" kind the query is h itself and `combine` a Matrix, of the "additive" one `query` is a Matrix and v an
        array (A,).
    """
    cdef:
        Stepper stepper
        Matrix head, query, combine
        const fr_kernels* kernels
        Attending kind
        const char* bias
        const char* embedding
        const char* keys
        const char* values
        const char* v
        const Py_ssize_t* lengths
        Py_ssize_t B, H, V, D, S, A, E, O, item, width, W
        list owners
        # scratch, of each row
        char* input             # (B,width)
        char* logits            # (B,V)
        char* p                 # (B,V)
        char* queries           # (B,A)
        char* joined            # (B,E+H)
        char* out               # (B,O)
        char* seen              # (B,S)
        # what a call gives
        Py_ssize_t steps, end, padding
        Choice how
        const double* uniforms
        const Py_ssize_t* forced
        Py_ssize_t* tokens
        double* log_p
        char* weights
        char* outputs
        char* ended
        Candidate* heap
        # of a beam search
        Py_ssize_t* parents
        double* base
        double* total           # of log-probabilities, of each row
        double* score
        double* moved           # (2,B)
        Py_ssize_t* counts      # tokens
        double penalty
        # of members who meet
        bint together, running
        fr_barrier barrier

    def __init__(self, Stepper stepper, Matrix head, bias, embedding=None, attention=None):
        self.stepper, self.head, self.B, self.item = stepper, head, stepper.B, stepper.itemsize
        self.kernels, self.H = stepper.top.layer.cell.kernels, stepper.top.layer.cell.H
        self.V, self.O, self.width, self.kind, self.W = head.N, self.H, stepper.I, NOTHING, 1
        self.owners = []
        self.bias, self.D = self.take(bias), self.V
        if embedding is not None:
            self.embedding, self.D = self.take(embedding), embedding.shape[1]
        self.input, self.logits = self.scratch(self.width, bias), self.scratch(self.V, bias)
        self.p = self.scratch(self.V, bias)
        if attention is None:
            return
        kind, keys, values, lengths, self.query, v, self.combine = attention
        self.kind = KINDS[kind]
        self.keys, self.values, self.v = self.take(keys), self.take(values), self.take(v)
        self.lengths = <Py_ssize_t*>self.take(lengths)
        self.S, self.A, self.E = keys.shape[1], keys.shape[2], values.shape[2]
        self.W = self.B // max(1, keys.shape[0])
        self.seen = self.scratch(self.S, bias)
        if self.kind == ADDITIVE:
            self.queries = self.scratch(self.A, bias)
        else:
            self.O = self.combine.N
            self.joined, self.out = self.scratch(self.E + self.H, bias), self.scratch(self.O, bias)

    cdef char* take(self, array) except? NULL:
        """Where an array begins, which is kept; NULL for None."""
        if array is None:
            return NULL
        self.owners.append(array)
        return <char*>address(array)

    cdef char* scratch(self, Py_ssize_t width, like) except? NULL:
        """Zeros, so many for each row."""
        array = aligned(self.B * width, like.dtype)
        array[:] = 0
        return self.take(array)

    def write(self, first, tokens, *, double temperature, Py_ssize_t top_k, uniforms, Py_ssize_t end, forced=None,
              log_probs=None, weights=None, **sharing):
        """
        Write tokens, each from those before.

        Parameters
        ----------
        first : intp (B,)
            The first input.
        tokens : intp (steps, B)
            Comes in as padding, which is left behind an `end`.
        uniforms : float64 (steps, B)
            Not needed at temperature 0.
        end : int
            The token that ends a sequence; -1: none does.
        forced : intp (steps, B), optional
            What is taken instead of a choice, where it is not negative.
        log_probs : float64 (steps, B), optional
            Comes in as zeros, and gets log softmax(logits) of what was taken.
        weights : array (steps, B, S), optional
            Comes in as zeros, and gets the attention's.
        """
        self.how.V, self.how.top_k = self.V, top_k
        self.how.scale = min(1 / temperature, MOST_SCALE) if temperature > 0 else 0
        self.begin(len(tokens), end, weights)
        self.tokens, self.uniforms = <Py_ssize_t*>self.take(tokens), <double*>self.take(uniforms)
        self.forced, self.log_p = <Py_ssize_t*>self.take(forced), <double*>self.take(log_probs)
        self.heap = <Candidate*>self.take(np.empty(2 * self.B * top_k if top_k < self.V else 0))
        self.put_all(first)
        self.go(self.B, **sharing)

    def feed(self, first, outputs, **sharing):
        """
        Go on with logits for the next input.

        Parameters
        ----------
        first : array (B, V)
        outputs : array (steps, B, V)
            What comes in is added.
        """
        cdef Py_ssize_t b
        cdef const char* rows = self.take(first)
        self.begin(len(outputs), -1, None)
        self.outputs = self.take(outputs)
        for b in range(self.B):
            memcpy(self.input + b * self.width * self.item, rows + b * self.V * self.item, self.V * self.item)
        self.go(self.B, **sharing)

    def search(self, first, tokens, parents, scores, *, Py_ssize_t beam, Py_ssize_t end, Py_ssize_t padding,
               double penalty, weights=None, **sharing):
        """
        Beam search: of each source the `beam` best, by log-probability / number of tokens ^ penalty.

        Parameters
        ----------
        first : intp (B,)
        tokens : intp (steps, B)
            Comes in as padding.
        parents : intp (steps, B)
            Comes in as 0 .. beam-1 over and over. Which hypothesis of the step before each one goes on with.
        scores : float64 (B,)
            Gets those of the last step, of each source falling.
        weights : array (steps, B, S), optional
            As for `write`, of the rows as they are before their step.
        """
        self.begin(len(tokens), end, weights)
        self.W, self.padding, self.penalty = beam, padding, penalty
        self.tokens, self.parents = <Py_ssize_t*>self.take(tokens), <Py_ssize_t*>self.take(parents)
        self.score, self.base = <double*>self.take(scores), <double*>self.take(np.empty(self.B))
        total = np.full((self.B // beam, beam), -np.inf)
        total[:, 0] = 0  # at first all are the same, so the others do not count
        self.total, self.moved = <double*>self.take(total), <double*>self.take(np.empty(2 * self.B))
        self.counts = <Py_ssize_t*>self.take(np.zeros(self.B, np.intp))
        self.heap = <Candidate*>self.take(np.empty(2 * self.B))
        scores[...] = total.ravel()
        self.put_all(first)
        self.go(self.B // beam, **sharing)

    cdef begin(self, Py_ssize_t steps, Py_ssize_t end, weights):
        self.steps, self.end = steps, end
        self.ended, self.weights = self.take(np.zeros(2 * self.B, bool)), self.take(weights)

    cdef put_all(self, first):
        cdef Py_ssize_t b
        for b in range(self.B):
            self.put(b, first[b])

    def go(self, Py_ssize_t parts, *, int members=1, long patience=0, bint together=False):
        """For so many parts that do not need each other, or with `together` by members who meet."""
        self.together = together
        if self.B and self.steps:
            with nogil:
                if together:
                    run(self, members, patience)
                else:
                    share(self, max(1, min(members, parts)), patience)
            self.stepper.now = (self.stepper.now + self.steps) & 1

    cdef void part(self, int rank, int size) noexcept nogil:
        cdef Py_ssize_t sources = self.B // self.W
        if self.together:
            self.rows(0, self.B, rank, size)
        else:
            self.rows(cut(sources, rank, size) * self.W, cut(sources, rank + 1, size) * self.W, 0, 1)

    cdef void rows(self, Py_ssize_t b0, Py_ssize_t b1, int rank, int size) noexcept nogil:
        """All steps of these rows, by so many members, of whom the first chooses."""
        cdef int now = self.stepper.now
        cdef Py_ssize_t t
        cdef bint running = True
        for t in range(self.steps):
            self.step(t, now, b0, b1, rank, size)
            now = 1 - now
            if rank == 0:
                running = self.choose_all(t, now, b0, b1)
                if size > 1:
                    self.running = running
            meet(&self.barrier, size)
            if size > 1:
                running = self.running
            if not running:
                return

    cdef inline void put(self, Py_ssize_t b, Py_ssize_t token) noexcept nogil:
        """Make a token the next input of a row."""
        memcpy(self.input + b * self.width * self.item, self.embedding + token * self.D * self.item, self.D * self.item)

    cdef void look(self, char* context, Py_ssize_t ld, const char* queries, Py_ssize_t t, Py_ssize_t b0,
                   Py_ssize_t b1) noexcept nogil:
        """The contexts of these rows, whose queries are given."""
        cdef Py_ssize_t b, n
        cdef char* weights
        for b in range(b0, b1):
            n = b // self.W
            weights = self.seen + b * self.S * self.item
            if self.weights != NULL:
                weights = self.weights + (t * self.B + b) * self.S * self.item
            self.kernels.attend(context + (b - b0) * ld * self.item, weights,
                                queries + (b - b0) * self.A * self.item, self.v,
                                self.keys + n * self.S * self.A * self.item,
                                self.values + n * self.S * self.E * self.item, self.lengths[n], self.A, self.E)

    cdef void columns(self, Matrix w, char* c, const char* a, Py_ssize_t n, bint add, int rank,
                      int size) noexcept nogil:
        """A member's part of c (n,N) = a (n,K) w, or c += with `add`."""
        cdef Py_ssize_t panels = (w.N + COLUMNS - 1) // COLUMNS
        if size == 1:
            multiply(w, c, w.N, a, w.K, n, add, False)
        else:
            multiply_columns(w, c, w.N, a, w.K, n, cut(panels, rank, size) * COLUMNS,
                             min(w.N, cut(panels, rank + 1, size) * COLUMNS), add, False)

    cdef void step(self, Py_ssize_t t, int now, Py_ssize_t b0, Py_ssize_t b1, int rank, int size) noexcept nogil:
        """The logits of these rows, from their inputs and states. All members come back when they are there."""
        cdef:
            Py_ssize_t b, n = b1 - b0, item = self.item, side = self.E + self.H
            char* input = self.input + b0 * self.width * item
            char* queries = self.queries + b0 * self.A * item
            char* joined = self.joined + b0 * side * item
            char* out = self.out + b0 * self.O * item
            char* logits = self.logits + b0 * self.V * item
            const char* h
        if rank == 0:
            for b in range(n):
                memcpy(logits + b * self.V * item, self.bias, self.V * item)
        if self.kind == ADDITIVE:
            self.columns(self.query, queries, self.stepper.top.h[now] + b0 * self.H * item, n, False, rank, size)
            meet(&self.barrier, size)
            if rank == 0:
                self.look(input + self.D * item, self.width, queries, t, b0, b1)
            meet(&self.barrier, size)
        h = self.stepper.first.climb(input, now, b0, n, rank, size, &self.barrier)
        if self.kind == GENERAL:
            if rank == 0:
                self.look(joined, side, h, t, b0, b1)
                for b in range(n):
                    memcpy(joined + (b * side + self.E) * item, h + b * self.H * item, self.H * item)
            meet(&self.barrier, size)
            self.columns(self.combine, out, joined, n, False, rank, size)
            meet(&self.barrier, size)
            if rank == 0:
                self.kernels.activate(out, out, n * self.O, 1)
            meet(&self.barrier, size)
            h = out
        self.columns(self.head, logits, h, n, True, rank, size)
        meet(&self.barrier, size)

    cdef bint choose_all(self, Py_ssize_t t, int now, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
        """Make the next input of each row; whether one is not at its end."""
        cdef bint running = False
        cdef Py_ssize_t b, row = self.V * self.item
        cdef char* out
        if self.parents != NULL:
            return self.search_all(t, now, b0, b1)
        if self.outputs != NULL:
            out = self.outputs + (t * self.B + b0) * row
            self.kernels.times(out, self.logits + b0 * row, self.V, NULL, b1 - b0, self.V, True)
            for b in range(b0, b1):
                memcpy(self.input + b * self.width * self.item, out + (b - b0) * row, row)
            return True
        for b in range(b0, b1):
            if self.ended[b]:
                continue
            self.put(b, self.choose(t, b))
            self.ended[b] = self.tokens[t * self.B + b] == self.end
            running = running or not self.ended[b]
        return running

    cdef Py_ssize_t choose(self, Py_ssize_t t, Py_ssize_t b) noexcept nogil:
        """The token of a row, which goes where tokens go."""
        if self.item == 4:
            return pick(self, <const float*>self.logits + b * self.V, <float*>self.p + b * self.V, t, b)
        return pick(self, <const double*>self.logits + b * self.V, <double*>self.p + b * self.V, t, b)

    cdef bint search_all(self, Py_ssize_t t, int now, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
        """The same for the hypotheses of a beam search."""
        cdef bint running = False
        cdef Py_ssize_t b, n
        for n in range(b0 // self.W, b1 // self.W):
            b = n * self.W
            if self.item == 4:
                consider(self, <const float*>self.logits + b * self.V, <float*>self.p + b * self.V, t, b)
            else:
                consider(self, <const double*>self.logits + b * self.V, <double*>self.p + b * self.V, t, b)
            running = self.select(t, b) or running
        if running:
            reorder(self, self.stepper.first, t, now, b0, b1)
        return running

    cdef bint select(self, Py_ssize_t t, Py_ssize_t b) noexcept nogil:
        """Make the candidates of a source its hypotheses, best first; whether one is not at its end."""
        cdef:
            Py_ssize_t w, parent, token, count = self.counts[b], V = self.V, row
            Candidate* heap = self.heap + b
            Candidate best
            double* total = self.moved + b
            double* score = self.moved + self.B + b
            char* ended = self.ended + self.B + b
            bint running = False
        for w in range(count // 2 - 1, -1, -1):  # it is no heap yet where there are fewer than W
            sink(heap, count, w)
        for w in range(self.W - 1, -1, -1):
            row = t * self.B + b + w
            if w >= count:
                total[w], score[w], ended[w] = -INFINITY, -INFINITY, True
                self.tokens[row], self.parents[row] = self.padding, 0
                continue
            best = heap[0]
            heap[0] = heap[w]
            sink(heap, w, 0)
            parent, token = best.index // V, best.index % V
            total[w], score[w] = self.total[b + parent], best.score
            ended[w] = self.ended[b + parent]
            if ended[w]:
                token = self.padding
            else:
                ended[w] = token == self.end
                total[w] = self.base[b + parent] + self.logit(b + parent, token)
            running = running or not ended[w]
            self.tokens[row], self.parents[row] = token, parent
            self.put(b + w, token)
        memcpy(self.total + b, total, self.W * sizeof(double))
        memcpy(self.score + b, score, self.W * sizeof(double))
        memcpy(self.ended + b, ended, self.W)
        return running

    cdef double logit(self, Py_ssize_t b, Py_ssize_t token) noexcept nogil:
        if self.item == 4:
            return (<const float*>self.logits)[b * self.V + token]
        return (<const double*>self.logits)[b * self.V + token]


cdef Py_ssize_t pick(Decoder d, const real* x, real* p, Py_ssize_t t, Py_ssize_t b) noexcept nogil:
    cdef Py_ssize_t token = -1, place = t * d.B + b
    if d.forced != NULL:
        token = d.forced[place]
    if token < 0:
        token = draw(&d.how, d.kernels, x, p, d.heap + b * d.how.top_k if d.how.top_k < d.V else NULL,
                     d.uniforms[place] if d.uniforms != NULL else 0)
    d.tokens[place] = token
    if d.log_p != NULL:
        d.log_p[place] = x[token] - log_sum(d.kernels, x, p, d.V)
    return token


cdef void consider(Decoder d, const real* x, real* p, Py_ssize_t t, Py_ssize_t b) noexcept nogil:
    """The W best candidates of the source whose rows begin with b: hypothesis w with token v is number w V + v."""
    cdef Py_ssize_t w, v, count = 0, V = d.V
    cdef double norm = pow(<double>(t + 1), d.penalty), base
    cdef const real* row
    for w in range(d.W):
        if d.total[b + w] == -INFINITY:
            continue
        if d.ended[b + w]:
            count = offer(d.heap + b, count, d.W, d.score[b + w], w * V)
            continue
        row = x + w * V
        base = d.base[b + w] = d.total[b + w] - log_sum(d.kernels, row, p, V)
        for v in range(V):
            count = offer(d.heap + b, count, d.W, (base + row[v]) / norm, w * V + v)
    d.counts[b] = count


cdef void reorder(Decoder d, Fed fed, Py_ssize_t t, int now, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    """Give each row the states of its parent, in this layer and those above."""
    cdef Py_ssize_t size = fed.layer.cell.H * d.item, b, k
    cdef char* state
    cdef char* spare
    for k in range(2):
        state = fed.h[now] if k == 0 else fed.c
        spare = fed.h[1 - now] if k == 0 else fed.extra
        for b in range(b0, b1):
            memcpy(spare + b * size, state + (b - b % d.W + d.parents[t * d.B + b]) * size, size)
        memcpy(state + b0 * size, spare + b0 * size, (b1 - b0) * size)
    if fed.above is not None:
        reorder(d, fed.above, t, now, b0, b1)
