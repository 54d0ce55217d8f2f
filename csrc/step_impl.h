/* One time step of each cell, forward: the recurrent product and what follows it, while its sums are in the L1 cache.
 *
 * A: Units are worked on in blocks: VL units of an LSTM or GRU, 4 VL of an RNN. A block's weights lie together, packed
 *    [K][gates][units], one sequential stream for all gates of the block; product_impl.h's tiles multiply with it as
 *    with any panel. The last block has as many units as are left, its gates side by side without a gap, so that 2
 *    units of an LSTM are one vector and not four.
 * B: The sums go to a small scratch array in the L1 cache, from where a function of its own makes the new state of the
 *    block's units, for up to 64 rows at a time: after each tile of 6 rows it would be over before it is up to speed. It
 *    goes over the rows twice, for what waits for an LSTM's c or a GRU's reset waits so long that a core, which has some
 *    200 instructions in view, would see nothing of the next row: 8 units of an LSTM 26 -> 20 ns, of a GRU 18 -> 13.
 * C: The order of the blocks is free, for no sum depends on it. A step walks them against the direction of the one
 *    before, so that what the caches kept of the weights is used before it is driven out. At batch 1, LSTM: H=64 200 ->
 *    285 GB/s, H=256 140 -> 198, H=512 121 -> 133.
 * D: One row is too few for B. So the products of some blocks are made first, and then their units one vector after
 *    another, as if they were rows: an LSTM's c and a GRU's reset gate wait for nobody there either. With two panels at a
 *    time (product_impl.h, K) against a block at a time and its units at once, a step of an LSTM of 32 and 64 units 1.4 times
 *    as fast, of 128 1.15, of 256 and 512 1.07; of a GRU 1.4, 1.5, 1.25, 1.15; of an RNN from 64 units on 1.05 to 1.15 (Zen 3).
 */
#define MOST_COLUMNS (4 * VL) /* of a block: gates * units */
#define BLOCKS_AT_ONCE 16
#define ROWS_BEFORE 4

static const int FR(gates_of)[FR_CELLS] = {
    [FR_RNN_TANH] = 1, [FR_RNN_RELU] = 1, [FR_LSTM] = 4, [FR_GRU] = 3, [FR_GRU_RESET] = 2, [FR_GRU_UPDATE] = 1};

static FR_INLINE ptrdiff_t FR(block_units)(int cell) { return 4 / FR(gates_of)[cell] * VL; }

static ptrdiff_t FR(step_blocks)(int cell, ptrdiff_t H) {
    return (H + FR(block_units)(cell) - 1) / FR(block_units)(cell);
}

static ptrdiff_t FR(step_size)(int cell, ptrdiff_t H) { /* all full blocks, and the last one's vectors */
    const ptrdiff_t U = FR(block_units)(cell), G = FR(gates_of)[cell];
    return H * (H / U * U * G + (H % U * G + VL - 1) / VL * VL);
}

static void FR(step_pack)(REAL *packed, int cell, const REAL *w, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last) {
    const ptrdiff_t U = FR(block_units)(cell), G = FR(gates_of)[cell];
    packed += first * U * G * H;
    const int stream = (last - first) * U * G * H * (ptrdiff_t)sizeof(REAL) >= PAST_CACHES && FR(streams)(packed);
    for (ptrdiff_t j = first * U; j < H && j < last * U; j += U) {
        const ptrdiff_t n = H - j < U ? H - j : U, NV = (G * n + VL - 1) / VL;
        const ptrdiff_t width = NV * VL, ldw = LDW(NV);
        const REAL *from[MOST_COLUMNS];
        for (ptrdiff_t col = 0; col < G * n; col++) from[col] = w + (col / n * H + j + col % n) * H;
        /* Some steps at a time, as in FR(pack). */
        for (ptrdiff_t k0 = 0; k0 < H; k0 += PACKED_AT_ONCE) {
            const ptrdiff_t k1 = k0 + PACKED_AT_ONCE < H ? k0 + PACKED_AT_ONCE : H;
            const ptrdiff_t ahead = k1 < H ? PACKED_AT_ONCE : U * H - k0;
            for (ptrdiff_t v = 0; v * VL < width; v++) {
                REAL *to = packed + FR(vector_at)(v, NV, H);
                if ((v + 1) * VL <= G * n)
                    FR(pack_columns)(to, ldw, from + v * VL, k0, k1, ahead, stream);
                else
                    for (ptrdiff_t col = v * VL, l = 0; l < VL; col++, l++)
                        for (ptrdiff_t k = k0; k < k1; k++) to[k * ldw + l] = col < G * n ? from[col][k] : 0;
            }
        }
        packed += H * width;
    }
    if (stream) FR(streamed)();
}

/* --- the new state of n units from j0 on, for `rows` rows from m0 on -------------------------------------------- */

/* Gate g of unit j0 + l is product[row * ldp + g * stride] and what gates and bias hold for it. The product is used up.
 * With `along` rows are of that many units of one row of the batch, see D. */
#define PART_ARGUMENTS                                                                                                 \
    const fr_step *s, REAL *product, ptrdiff_t ldp, ptrdiff_t stride, ptrdiff_t m0, ptrdiff_t rows, ptrdiff_t j0,      \
        ptrdiff_t n_units
#define load FR(load)
#define store FR(store)
/* A body for up to VL units of each row, with a constant VL wherever there are as many. p: product, k: of (B,H) arrays.
 * Rows are the inner loop, so that constants and bias stay in registers: 16 units of an LSTM 31 -> 26 ns, GRU 21 -> 17. */
#define EACH_ROW(...)                                                                                                  \
    for (ptrdiff_t r = 0; r < rows; r++) {                                                                             \
        REAL *p = product + r * ldp + l, *row = gates + r * gates_row, *h = h_at + r * ldh;                            \
        const REAL *h_prev = h_prev_at + r * ld_prev, *bias = bias_at + r * along;                                     \
        const ptrdiff_t k = m0 * H + j0 + l + r * (along ? along : H);                                                 \
        (void)p, (void)row, (void)k, (void)h, (void)h_prev, (void)bias;                                                \
        __VA_ARGS__                                                                                                    \
    }
#define OVER_UNITS(...)                                                                                                \
    const ptrdiff_t H = s->H, ldh = along ? along : s->ldh, ld_prev = along ? along : s->ld_prev;                      \
    const ptrdiff_t gates_row = along ? along : s->ld_gates;                                                           \
    for (ptrdiff_t l = 0; l < n_units; l += VL) {                                                                      \
        REAL *gates = (REAL *)s->gates + m0 * s->ld_gates + j0 + l, *h_at = (REAL *)s->h + m0 * s->ldh + j0 + l;       \
        const REAL *h_prev_at = (const REAL *)s->h_prev + m0 * s->ld_prev + j0 + l;                                    \
        const REAL *bias_at = (const REAL *)s->bias + j0 + l;                                                          \
        (void)gates, (void)h_at, (void)h_prev_at;                                                                      \
        if (l + VL <= n_units) {                                                                                       \
            const ptrdiff_t n = VL;                                                                                    \
            __VA_ARGS__                                                                                                \
        } else {                                                                                                       \
            const ptrdiff_t n = n_units - l;                                                                           \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
/* The gates of a row that comes soon, which lie too far apart for a core to foresee: a step of an LSTM of 512 units, B=64,
 * 0.91 -> 0.92 of the peak, with `save` 0.89 -> 0.90; of 256, B=32, no difference (Zen 4). */
#define ASK_FOR_GATES(GATES)                                                                                           \
    if (!along) FR_UNROLL for (int g = 0; g < GATES; g++) PREFETCH(row + ROWS_BEFORE * gates_row + g * H)
/* Pre-activation of gate g: x's part, h's part, bias. */
#define PRE(g) (load(row + (g) * H, n) + load(p + (g) * stride, n) + load(bias + (g) * H, n))

/* (1-z) n + z h with one product: of two, compilers are free which one to add to, and GCC does it otherwise for AVX2 than
 * for AVX-512. */
#define MIXED(z, n, h) ((n) + (z) * ((h) - (n)))

/* Loads come first, for a compiler cannot move one up past a store; activations are mixed then: an LSTM's 74 -> 69 cycles a
 * vector, a GRU's 46 -> 43.5 (Zen 4, AVX-512), 56 -> 52 and 34 -> 34 with AVX2. */
FR_INTERLEAVED
static FR_INLINE void FR(rnn_tanh_part)(PART_ARGUMENTS, const ptrdiff_t along) {
    (void)stride;
    OVER_UNITS(EACH_ROW(store(h, FR(vtanh)(PRE(0)), n);))
}

static FR_INLINE void FR(rnn_relu_part)(PART_ARGUMENTS, const ptrdiff_t along) {
    (void)stride;
    OVER_UNITS(EACH_ROW(store(h, FR(vmax)(PRE(0), 0), n);))
}

static FR_INLINE void FR(lstm_part)(PART_ARGUMENTS, const ptrdiff_t along) {
    REAL *c = s->c;
    const REAL *c_prev = s->c_prev;
    const int save = s->save;
    OVER_UNITS(
        EACH_ROW({
            ASK_FOR_GATES(4);
            vec i = PRE(0), f = PRE(1), g = PRE(2), c_before = load(c_prev + k, n);
            i = FR(vsigmoid)(i);
            f = FR(vsigmoid)(f);
            g = FR(vtanh)(g);
            store(c + k, f * c_before + i * g, n);
            if (save) {
                store(row, i, n);
                store(row + H, f, n);
                store(row + 2 * H, g, n);
            }
        })
        EACH_ROW({
            vec o = PRE(3), c_now = load(c + k, n);
            o = FR(vsigmoid)(o);
            store(h, o * FR(vtanh)(c_now), n);
            if (save) store(row + 3 * H, o, n);
        }))
}

static FR_INLINE void FR(gru_part)(PART_ARGUMENTS, const ptrdiff_t along) {
    REAL *hn = s->extra;
    const int save = s->save;
    OVER_UNITS(
        EACH_ROW({
            ASK_FOR_GATES(3);
            vec r = PRE(0), n_recurrent = load(p + 2 * stride, n) + load(bias + 3 * H, n);
            vec n_input = load(row + 2 * H, n) + load(bias + 2 * H, n);
            r = FR(vsigmoid)(r);
            store(p + 2 * stride, n_input + r * n_recurrent, n);
            if (save) {
                store(row, r, n);
                store(hn + k, n_recurrent, n);
            }
        })
        EACH_ROW({
            vec z = PRE(1), n_gate = load(p + 2 * stride, n), h_before = load(h_prev, n);
            z = FR(vsigmoid)(z);
            n_gate = FR(vtanh)(n_gate);
            store(h, MIXED(z, n_gate, h_before), n);
            if (save) {
                store(row + H, z, n);
                store(row + 2 * H, n_gate, n);
            }
        }))
}

static FR_INLINE void FR(gru_reset_part)(PART_ARGUMENTS, const ptrdiff_t along) {
    REAL *rh = s->extra;
    OVER_UNITS(EACH_ROW({
        vec r = FR(vsigmoid)(PRE(0));
        store(row, r, n);
        store(row + H, FR(vsigmoid)(PRE(1)), n);
        store(rh + k, r * load(h_prev, n), n);
    }))
}

static FR_INLINE void FR(gru_update_part)(PART_ARGUMENTS, const ptrdiff_t along) {
    (void)stride;
    OVER_UNITS(EACH_ROW({
        vec z = load(row + H, n);
        vec n_gate = FR(vtanh)(load(row + 2 * H, n) + load(p, n) + load(bias + 2 * H, n) +
                               load(bias + 3 * H, n));
        store(row + 2 * H, n_gate, n);
        store(h, MIXED(z, n_gate, load(h_prev, n)), n);
    }))
}

#define PARTS(NAME)                                                                                                    \
    static void FR(NAME##_rows)(PART_ARGUMENTS) { FR(NAME##_part)(s, product, ldp, stride, m0, rows, j0, n_units, 0); } \
    static void FR(NAME##_along)(PART_ARGUMENTS) { FR(NAME##_part)(s, product, ldp, stride, m0, rows, j0, n_units, VL); }
PARTS(rnn_tanh) PARTS(rnn_relu) PARTS(lstm) PARTS(gru) PARTS(gru_reset) PARTS(gru_update)
FR_AS_WRITTEN

typedef void (*FR(part_t))(PART_ARGUMENTS);
#define PARTS_OF(KIND)                                                                                                 \
    {                                                                                                                  \
        [FR_RNN_TANH] = FR(rnn_tanh_##KIND), [FR_RNN_RELU] = FR(rnn_relu_##KIND), [FR_LSTM] = FR(lstm_##KIND),         \
        [FR_GRU] = FR(gru_##KIND), [FR_GRU_RESET] = FR(gru_reset_##KIND), [FR_GRU_UPDATE] = FR(gru_update_##KIND)      \
    }
static const FR(part_t) FR(rows_of)[FR_CELLS] = PARTS_OF(rows), FR(along_of)[FR_CELLS] = PARTS_OF(along);

/* n units of row b, whose products lie `next` behind those of VL units before. */
static void FR(row_part)(const fr_step *s, int cell, REAL *product, ptrdiff_t next, ptrdiff_t stride, ptrdiff_t b,
                         ptrdiff_t j0, ptrdiff_t n) {
    const ptrdiff_t many = n / VL, rest = n % VL;
    FR(along_of)[cell](s, product, next, stride, b, many, j0, VL);
    if (rest) FR(rows_of)[cell](s, product + many * next, 0, stride, b, 1, j0 + many * VL, rest);
}

static void FR(step_gates)(const fr_step *s, int cell, REAL *product) {
    const ptrdiff_t H = s->H;
    for (ptrdiff_t b = 0; b < s->B; b++)
        FR(row_part)(s, cell, product + b * FR(gates_of)[cell] * H, VL, H, b, 0, H);
}

/* --- all of a step ---------------------------------------------------------------------------------------------- */

/* Of one sequence: the products of some blocks, then the new states of all of them, see D. */
static void FR(step_of_one)(const fr_step *s, int cell, const REAL *a, const REAL *packed, ptrdiff_t first,
                            ptrdiff_t last, int backwards) {
    const ptrdiff_t H = s->H, U = FR(block_units)(cell), G = FR(gates_of)[cell], columns = G * U;
    const ptrdiff_t chain = FR(chain)(H);
    const int apart = G > 1 && U > VL; /* then vectors of units are not at one distance from block to block */
#if FR_VECTORS
    __attribute__((aligned(64)))
#endif
    REAL sums[BLOCKS_AT_ONCE * SUMS_ROW];
    for (ptrdiff_t done = 0, many; done < last - first; done += many) {
        many = last - first - done < BLOCKS_AT_ONCE ? last - first - done : BLOCKS_AT_ONCE;
        const ptrdiff_t from = backwards ? last - done - many : first + done, j = from * U;
        const ptrdiff_t units = H - j < many * U ? H - j : many * U, full = units / U * U, rest = units - full;
        FR(multiply_one)(sums, a, packed + from * H * columns, H, G * units, columns, chain, 0, backwards);
        for (ptrdiff_t u = 0, n = apart ? U : full; u < full; u += n)
            FR(row_part)(s, cell, sums + G * u, apart ? VL : G * VL, U, 0, j + u, n);
        if (rest) FR(row_part)(s, cell, sums + G * full, VL, rest, 0, j + full, rest);
    }
}

static void FR(step)(const fr_step *s, int cell, const REAL *packed, ptrdiff_t first, ptrdiff_t last, int backwards) {
    const ptrdiff_t H = s->H, U = FR(block_units)(cell), G = FR(gates_of)[cell];
    const REAL *a = cell == FR_GRU_UPDATE ? s->extra : s->h_prev;
    const ptrdiff_t lda = cell == FR_GRU_UPDATE ? H : s->ld_prev;
    if (s->B == 1) {
        FR(step_of_one)(s, cell, a, packed, first, last, backwards);
        return;
    }
    const ptrdiff_t chunk = FR(rows_at_once)(H), chain = FR(chain)(H);
    const int pieces = FR(too_large)(H, FR_REGISTERS == 32 ? 2048 * 1024 : 256 * 1024);
#if FR_VECTORS
    __attribute__((aligned(64)))
#endif
    REAL sums[ROWS_OF_SUMS * SUMS_ROW];
    for (ptrdiff_t m0 = 0; m0 < s->B; m0 += chunk) {
        const ptrdiff_t end = s->B - m0 < chunk ? s->B : m0 + chunk;
        for (ptrdiff_t i = first; i < last; i++) {
            const ptrdiff_t p = backwards ? last - 1 - (i - first) : i; /* C */
            const ptrdiff_t j = p * U, n = H - j < U ? H - j : U, NV = (G * n + VL - 1) / VL;
            const REAL *w = packed + p * H * G * U;
            const REAL *soon = i + 1 == last ? w : backwards ? w - H * G * U : w + H * G * U;
            for (ptrdiff_t m = m0; m < end; m += ROWS_OF_SUMS) {
                const ptrdiff_t rows = end - m < ROWS_OF_SUMS ? end - m : ROWS_OF_SUMS;
                FR(tiles)(sums, SUMS_ROW, VL, a + m * lda, lda, w, HALF(NV, H), rows, H, chain, NV, 0, pieces,
                          sums, soon);
                FR(rows_of)[cell](s, sums, SUMS_ROW, n, m, rows, j, n); /* B */
            }
        }
    }
}

#undef load
#undef store
#undef MOST_COLUMNS
#undef ROWS_OF_SUMS
#undef SUMS_ROW
#undef TOGETHER
#undef LDW
#undef HALF
#undef PACKED_AT_ONCE
#undef BLOCKS_AT_ONCE
#undef PREFETCH
#undef ROWS_BEFORE
#undef PART_ARGUMENTS
#undef OVER_UNITS
#undef EACH_ROW
#undef ASK_FOR_GATES
#undef PRE
#undef MIXED
