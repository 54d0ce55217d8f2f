/* Recurrences that are element by element: IndRNN, minGRU, minLSTM, many steps of many sequences in one call.
 * What each function takes and gives is said in fastrnn.h; the equations are those of fastrnn/reference_elementwise.py.
 *
 * A: No matrix product stands between two steps, so the loops are bound by memory. Steps are the outer loop: every array
 *    is read and written once, in the order it lies in, and h(t-1) is still in the cache from the step before.
 * B: A minGRU or minLSTM is h(t) = h(t-1) + take (candidate - h(t-1)), so it is linear in h(t-1), with the factor
 *    keep = 1 - take. From zeros that gives `local`, and the product of all `keep` gives what is left of the state before:
 *    the ends of a chunk of steps, known before the state before them is. One product in it, as in step_impl.h.
 * C: A sigmoid of less than exp(-40) is exp(x) to the last bit, so there f / (f + i) depends on the difference alone.
 *    Both are shifted up to where at least one of them is far from zero: no 0 / 0.
 * D: The options of a call are looked up for every vector: a branch that always goes the same way costs nothing beside
 *    the loads.
 */
#define load FR(load)
#define store FR(store)
/* The values of a where the condition of two vectors holds, else those of b. */
#if VL > 1
#define WHERE(condition, a, b)                                                                                         \
    FR(from_bits)(((ivec)(condition) & FR(bits)(a)) | (~(ivec)(condition) & FR(bits)(b)))
#else
#define WHERE(condition, a, b) ((condition) ? (a) : (b))
#endif
/* BODY for up to VL units of a row, as OVER_ROWS of back_impl.h. Row r is that of sequence b at step t; h_prev is its
 * state before, gates and h begin with the row's first number. */
#define OVER_STEP(G, BODY)                                                                                             \
    for (ptrdiff_t b = 0; b < s->B; b++) {                                                                             \
        const ptrdiff_t r = t * s->distance + b;                                                                       \
        REAL *gates = (REAL *)s->gates + r * (G) * H;                                                                  \
        REAL *h = (REAL *)s->h + r * H;                                                                                \
        const REAL *h_prev = t ? h - s->distance * H : (const REAL *)s->h_prev + b * H;                                \
        (void)h, (void)h_prev;                                                                                         \
        ptrdiff_t j = s->first;                                                                                        \
        for (; j + VL <= s->last; j += VL) { const ptrdiff_t n = VL; BODY }                                            \
        if (j < s->last) { const ptrdiff_t n = s->last - j; BODY }                                                     \
    }

/* --- IndRNN ---------------------------------------------------------------------------------------------------- */

static FR_INLINE void FR(ind_steps)(const fr_scan *s, const int relu) {
    const ptrdiff_t H = s->H;
    const REAL *bias = s->bias, *u = s->u;
    for (ptrdiff_t t = 0; t < s->steps; t++)
        OVER_STEP(1, {
            vec pre = load(gates + j, n) + load(bias + j, n) + load(u + j, n) * load(h_prev + j, n);
            store(h + j, relu ? FR(vmax)(pre, 0) : FR(vtanh)(pre), n);
        })
}

static FR_INLINE void FR(ind_back)(const fr_scan *s, const int relu) {
    const ptrdiff_t H = s->H;
    const REAL *u = s->u;
    for (ptrdiff_t t = s->steps - 1; t >= 0; t--)
        OVER_STEP(1, {
            REAL *dh = (REAL *)s->dh + b * H + j;
            REAL *du = (REAL *)s->du + b * H + j;
            vec y = load(h + j, n);
            vec d = load(dh, n) + load((const REAL *)s->dy + r * H + j, n);
            d = relu ? WHERE(y > FR(splat)(0), d, FR(splat)(0)) : d * ((REAL)1 - y * y);
            store(gates + j, d, n);
            store(du, load(du, n) + d * load(h_prev + j, n), n);
            store(dh, d * load(u + j, n), n);
        })
}

/* --- minGRU and minLSTM ---------------------------------------------------------------------------------------- */

#define MIN_GATES(cell) ((cell) == FR_MIN_GRU ? 2 : 3)

/* From pre-activations to gates: z, or f and i (C), and the candidate. `row` and bias are those of unit j. */
static FR_INLINE void FR(min_activate)(vec *gate, vec *other, vec *candidate, const fr_scan *s, const int cell,
                                       const REAL *row, ptrdiff_t j, ptrdiff_t n) {
    const ptrdiff_t H = s->H, last = MIN_GATES(cell) - 1;
    const REAL *bias = (const REAL *)s->bias + j;
    vec a = load(row, n) + load(bias, n);
    if (cell == FR_MIN_LSTM) {
        vec b = load(row + H, n) + load(bias + H, n);
        vec most = WHERE(a > b, a, b);
        vec shift = WHERE(most < FR(splat)(-40), most + (REAL)40, FR(splat)(0)); /* 0 for NaN */
        a = a - shift;
        *other = FR(vsigmoid)(b - shift);
    }
    *gate = FR(vsigmoid)(a);
    *candidate = load(row + last * H, n) + load(bias + last * H, n);
    if (s->positive)
        *candidate = WHERE(*candidate >= FR(splat)(0), *candidate + (REAL)0.5, FR(vsigmoid)(*candidate));
}

static FR_INLINE void FR(min_load)(vec *gate, vec *other, vec *candidate, const fr_scan *s, const int cell,
                                   const REAL *row, ptrdiff_t n) {
    *gate = load(row, n);
    if (cell == FR_MIN_LSTM) *other = load(row + s->H, n);
    *candidate = load(row + (MIN_GATES(cell) - 1) * s->H, n);
}

static FR_INLINE void FR(min_store)(vec gate, vec other, vec candidate, const fr_scan *s, const int cell, REAL *row,
                                    ptrdiff_t n) {
    store(row, gate, n);
    if (cell == FR_MIN_LSTM) store(row + s->H, other, n);
    store(row + (MIN_GATES(cell) - 1) * s->H, candidate, n);
}

/* How much of the candidate the new state takes, and how much of the old one it keeps. */
static FR_INLINE vec FR(min_take)(vec gate, vec other, const int cell) {
    return cell == FR_MIN_GRU ? gate : other / (gate + other);
}
static FR_INLINE vec FR(min_keep)(vec gate, vec other, const int cell) {
    return cell == FR_MIN_GRU ? (REAL)1 - gate : gate / (gate + other);
}

static FR_INLINE void FR(min_steps)(const fr_scan *s, const int cell) {
    const ptrdiff_t H = s->H;
    for (ptrdiff_t t = 0; t < s->steps; t++)
        OVER_STEP(MIN_GATES(cell), {
            vec gate;
            vec other = FR(splat)(0);
            vec candidate;
            if (s->fresh) {
                FR(min_activate)(&gate, &other, &candidate, s, cell, gates + j, j, n);
                if (s->save) FR(min_store)(gate, other, candidate, s, cell, gates + j, n);
            } else {
                FR(min_load)(&gate, &other, &candidate, s, cell, gates + j, n);
            }
            vec before = load(h_prev + j, n);
            store(h + j, before + FR(min_take)(gate, other, cell) * (candidate - before), n);
        })
}

static FR_INLINE void FR(min_ends)(const fr_scan *s, const int cell) {
    const ptrdiff_t H = s->H;
    for (ptrdiff_t t = 0; t < s->steps; t++)
        OVER_STEP(MIN_GATES(cell), {
            REAL *product = (REAL *)s->product + b * H + j;
            REAL *local = (REAL *)s->local + b * H + j;
            vec gate;
            vec other = FR(splat)(0);
            vec candidate;
            FR(min_activate)(&gate, &other, &candidate, s, cell, gates + j, j, n);
            FR(min_store)(gate, other, candidate, s, cell, gates + j, n);
            vec before = load(local, n);
            store(local, before + FR(min_take)(gate, other, cell) * (candidate - before), n);
            store(product, load(product, n) * FR(min_keep)(gate, other, cell), n);
        })
}

static FR_INLINE void FR(min_back)(const fr_scan *s, const int cell) {
    const ptrdiff_t H = s->H;
    for (ptrdiff_t t = s->steps - 1; t >= 0; t--)
        OVER_STEP(MIN_GATES(cell), {
            REAL *dh = (REAL *)s->dh + b * H + j;
            vec gate;
            vec other = FR(splat)(0);
            vec candidate;
            FR(min_load)(&gate, &other, &candidate, s, cell, gates + j, n);
            vec take = FR(min_take)(gate, other, cell);
            vec keep = FR(min_keep)(gate, other, cell);
            vec d = load(dh, n) + load((const REAL *)s->dy + r * H + j, n);
            vec moved = d * (load(h_prev + j, n) - candidate) * take * keep; /* d of log(keep / take) */
            vec dcandidate = d * take;
            if (s->positive)
                dcandidate = dcandidate * WHERE(candidate >= FR(splat)((REAL)0.5), FR(splat)(1),
                                                candidate * ((REAL)1 - candidate));
            if (cell == FR_MIN_GRU)
                FR(min_store)(-moved, other, dcandidate, s, cell, gates + j, n);
            else
                FR(min_store)(moved * ((REAL)1 - gate), moved * (other - (REAL)1), dcandidate, s, cell, gates + j, n);
            store(dh, d * keep, n);
        })
}

static FR_INLINE void FR(min_back_ends)(const fr_scan *s, const int cell) {
    const ptrdiff_t H = s->H;
    for (ptrdiff_t t = s->steps - 1; t >= 0; t--)
        OVER_STEP(MIN_GATES(cell), {
            REAL *product = (REAL *)s->product + b * H + j;
            REAL *local = (REAL *)s->local + b * H + j;
            vec gate = load(gates + j, n);
            vec other = cell == FR_MIN_LSTM ? load(gates + H + j, n) : FR(splat)(0);
            vec keep = FR(min_keep)(gate, other, cell);
            store(local, keep * (load(local, n) + load((const REAL *)s->dy + r * H + j, n)), n);
            store(product, keep * load(product, n), n);
        })
}

/* --- for the table ---------------------------------------------------------------------------------------------- */

static void FR(scan)(const fr_scan *s, int cell) {
    if (cell == FR_IND_TANH) FR(ind_steps)(s, 0);
    if (cell == FR_IND_RELU) FR(ind_steps)(s, 1);
    if (cell == FR_MIN_GRU) FR(min_steps)(s, FR_MIN_GRU);
    if (cell == FR_MIN_LSTM) FR(min_steps)(s, FR_MIN_LSTM);
}

static void FR(scan_back)(const fr_scan *s, int cell) {
    if (cell == FR_IND_TANH) FR(ind_back)(s, 0);
    if (cell == FR_IND_RELU) FR(ind_back)(s, 1);
    if (cell == FR_MIN_GRU) FR(min_back)(s, FR_MIN_GRU);
    if (cell == FR_MIN_LSTM) FR(min_back)(s, FR_MIN_LSTM);
}

static void FR(scan_ends)(const fr_scan *s, int cell) {
    if (cell == FR_MIN_GRU) FR(min_ends)(s, FR_MIN_GRU);
    if (cell == FR_MIN_LSTM) FR(min_ends)(s, FR_MIN_LSTM);
}

static void FR(scan_back_ends)(const fr_scan *s, int cell) {
    if (cell == FR_MIN_GRU) FR(min_back_ends)(s, FR_MIN_GRU);
    if (cell == FR_MIN_LSTM) FR(min_back_ends)(s, FR_MIN_LSTM);
}

static void FR(scan_carry)(REAL *local, const REAL *product, const REAL *before, ptrdiff_t size) {
    for (ptrdiff_t j = 0; j < size; j += VL) {
        const ptrdiff_t n = size - j < VL ? size - j : VL;
        store(local + j, load(local + j, n) + load(product + j, n) * load(before + j, n), n);
    }
}

#undef load
#undef store
#undef WHERE
#undef OVER_STEP
#undef MIN_GATES
