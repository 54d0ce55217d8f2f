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
 * D: One row of small weights takes two blocks at a time. A multiply-add takes 4 cycles and two can start in each, so a
 *    block's 4 sums would wait; from the L2 cache, which gives a vector in each cycle, they do not. A step of an LSTM of
 *    32 units: 0.12 -> 0.10 us.
 * E: One row is too few for B. So the products of some blocks are made first, and the units of all of them one after
 *    another: GRU, H=64 1.31 times as fast, H=128 1.19, H=512 1.06; LSTM, H=64 1.10, H=128 1.03, but H=32 0.95.
 */
#define MOST_COLUMNS (4 * VL) /* of a block: gates * units */
#define BLOCKS_AT_ONCE 16
#define SMALL (32 * 1024) /* bytes of weights that stay in the L1 cache */

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

static void FR(step_pack)(REAL *packed, int cell, const REAL *w, ptrdiff_t H) {
    const ptrdiff_t U = FR(block_units)(cell), G = FR(gates_of)[cell];
    for (ptrdiff_t j = 0; j < H; j += U) {
        const ptrdiff_t n = H - j < U ? H - j : U, NV = (G * n + VL - 1) / VL;
        const ptrdiff_t width = NV * VL, ldw = LDW(NV);
        const REAL *from[MOST_COLUMNS];
        for (ptrdiff_t col = 0; col < G * n; col++) from[col] = w + (col / n * H + j + col % n) * H;
        /* Some steps at a time, as in FR(pack). */
        for (ptrdiff_t k0 = 0; k0 < H; k0 += PACKED_AT_ONCE) {
            const ptrdiff_t k1 = k0 + PACKED_AT_ONCE < H ? k0 + PACKED_AT_ONCE : H;
            for (ptrdiff_t v = 0; v * VL < width; v++) {
                REAL *to = packed + FR(vector_at)(v, NV, H);
                if ((v + 1) * VL <= G * n)
                    FR(pack_columns)(to, ldw, from + v * VL, k0, k1);
                else
                    for (ptrdiff_t col = v * VL, l = 0; l < VL; col++, l++)
                        for (ptrdiff_t k = k0; k < k1; k++) to[k * ldw + l] = col < G * n ? from[col][k] : 0;
            }
        }
        packed += H * width;
    }
}

/* --- the new state of n units from j0 on, for `rows` rows from m0 on -------------------------------------------- */

/* Gate g of unit j0 + l is product[row * ldp + g * stride] and what gates and bias hold for it. The product is used up. */
#define PART_ARGUMENTS                                                                                                 \
    const fr_step *s, REAL *product, ptrdiff_t ldp, ptrdiff_t stride, ptrdiff_t m0, ptrdiff_t rows, ptrdiff_t j0,      \
        ptrdiff_t n_units
#define load FR(load)
#define store FR(store)
/* BODY for up to VL units of each row, with a constant VL wherever there are as many. p: product, k: of (B,H) arrays.
 * Rows are the inner loop, so that constants and bias stay in registers: 16 units of an LSTM 31 -> 26 ns, GRU 21 -> 17. */
#define EACH_ROW(GATES, ...)                                                                                           \
    for (ptrdiff_t r = 0; r < rows; r++) {                                                                             \
        REAL *p = product + r * ldp + l;                                                                               \
        REAL *row = (REAL *)s->gates + (m0 + r) * GATES * H + j0 + l;                                                  \
        const REAL *h_prev = (const REAL *)s->h_prev + (m0 + r) * s->ld_prev + j0 + l;                                 \
        REAL *h = (REAL *)s->h + (m0 + r) * s->ldh + j0 + l;                                                           \
        const ptrdiff_t k = (m0 + r) * H + j0 + l;                                                                     \
        (void)p, (void)row, (void)k, (void)h, (void)h_prev;                                                            \
        __VA_ARGS__                                                                                                    \
    }
#define OVER_UNITS(...)                                                                                                \
    const ptrdiff_t H = s->H;                                                                                          \
    for (ptrdiff_t l = 0; l < n_units; l += VL) {                                                                      \
        const REAL *bias = (const REAL *)s->bias + j0 + l;                                                             \
        (void)bias;                                                                                                    \
        if (l + VL <= n_units) {                                                                                       \
            const ptrdiff_t n = VL;                                                                                    \
            __VA_ARGS__                                                                                                \
        } else {                                                                                                       \
            const ptrdiff_t n = n_units - l;                                                                           \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
/* Pre-activation of gate g: x's part, h's part, bias. */
#define PRE(g) (load(row + (g) * H, n) + load(p + (g) * stride, n) + load(bias + (g) * H, n))

/* (1-z) n + z h with one product: of two, compilers are free which one to add to, and GCC does it otherwise for AVX2 than
 * for AVX-512. */
#define MIXED(z, n, h) ((n) + (z) * ((h) - (n)))

static void FR(rnn_tanh_part)(PART_ARGUMENTS) {
    (void)stride;
    OVER_UNITS(EACH_ROW(1, store(h, FR(vtanh)(PRE(0)), n);))
}

static void FR(rnn_relu_part)(PART_ARGUMENTS) {
    (void)stride;
    OVER_UNITS(EACH_ROW(1, store(h, FR(vmax)(PRE(0), 0), n);))
}

static void FR(lstm_part)(PART_ARGUMENTS) {
    REAL *c = s->c;
    const REAL *c_prev = s->c_prev;
    const int save = s->save;
    OVER_UNITS(
        EACH_ROW(4, {
            vec i = FR(vsigmoid)(PRE(0));
            vec f = FR(vsigmoid)(PRE(1));
            vec g = FR(vtanh)(PRE(2));
            store(c + k, f * load(c_prev + k, n) + i * g, n);
            if (save) {
                store(row, i, n);
                store(row + H, f, n);
                store(row + 2 * H, g, n);
            }
        })
        EACH_ROW(4, {
            vec o = FR(vsigmoid)(PRE(3));
            store(h, o * FR(vtanh)(load(c + k, n)), n);
            if (save) store(row + 3 * H, o, n);
        }))
}

static void FR(gru_part)(PART_ARGUMENTS) {
    REAL *hn = s->extra;
    const int save = s->save;
    OVER_UNITS(
        EACH_ROW(3, {
            vec r = FR(vsigmoid)(PRE(0));
            vec n_recurrent = load(p + 2 * stride, n) + load(bias + 3 * H, n);
            store(p + 2 * stride, load(row + 2 * H, n) + load(bias + 2 * H, n) + r * n_recurrent, n);
            if (save) {
                store(row, r, n);
                store(hn + k, n_recurrent, n);
            }
        })
        EACH_ROW(3, {
            vec z = FR(vsigmoid)(PRE(1));
            vec n_gate = FR(vtanh)(load(p + 2 * stride, n));
            store(h, MIXED(z, n_gate, load(h_prev, n)), n);
            if (save) {
                store(row + H, z, n);
                store(row + 2 * H, n_gate, n);
            }
        }))
}

static void FR(gru_reset_part)(PART_ARGUMENTS) {
    REAL *rh = s->extra;
    OVER_UNITS(EACH_ROW(3, {
        vec r = FR(vsigmoid)(PRE(0));
        store(row, r, n);
        store(row + H, FR(vsigmoid)(PRE(1)), n);
        store(rh + k, r * load(h_prev, n), n);
    }))
}

static void FR(gru_update_part)(PART_ARGUMENTS) {
    (void)stride;
    OVER_UNITS(EACH_ROW(3, {
        vec z = load(row + H, n);
        vec n_gate = FR(vtanh)(load(row + 2 * H, n) + load(p, n) + load(bias + 2 * H, n) +
                               load(bias + 3 * H, n));
        store(row + 2 * H, n_gate, n);
        store(h, MIXED(z, n_gate, load(h_prev, n)), n);
    }))
}

typedef void (*FR(part_t))(PART_ARGUMENTS);
static const FR(part_t) FR(part_of)[FR_CELLS] = {
    [FR_RNN_TANH] = FR(rnn_tanh_part), [FR_RNN_RELU] = FR(rnn_relu_part),   [FR_LSTM] = FR(lstm_part),
    [FR_GRU] = FR(gru_part),           [FR_GRU_RESET] = FR(gru_reset_part), [FR_GRU_UPDATE] = FR(gru_update_part)};

static void FR(step_gates)(const fr_step *s, int cell, REAL *product) {
    const ptrdiff_t H = s->H;
    for (ptrdiff_t b = 0; b < s->B; b++)
        FR(part_of)[cell](s, product + b * FR(gates_of)[cell] * H, 0, H, b, 1, 0, H);
}

/* --- all of a step ---------------------------------------------------------------------------------------------- */

/* Of one sequence: the products of some blocks, then the new states of all of them, see E. */
static void FR(step_of_one)(const fr_step *s, int cell, const REAL *a, const REAL *packed, ptrdiff_t first,
                            ptrdiff_t last, int backwards) {
    const ptrdiff_t H = s->H, U = FR(block_units)(cell), G = FR(gates_of)[cell], columns = G * U;
    const ptrdiff_t chain = FR(chain)(H);
    const int small = G * H * H * (ptrdiff_t)sizeof(REAL) <= SMALL;
#if FR_VECTORS
    __attribute__((aligned(64)))
#endif
    REAL sums[BLOCKS_AT_ONCE * SUMS_ROW];
    for (ptrdiff_t done = 0, many; done < last - first; done += many) {
        many = last - first - done < BLOCKS_AT_ONCE ? last - first - done : BLOCKS_AT_ONCE;
        const ptrdiff_t from = backwards ? last - done - many : first + done;
        for (ptrdiff_t i = 0; i < many; i++) {
            const ptrdiff_t p = backwards ? from + many - 1 - i : from + i; /* C */
            const ptrdiff_t NV = p * U + U > H ? (G * (H - p * U) + VL - 1) / VL : columns / VL;
            const REAL *w = packed + p * H * columns;
            if (small && i + 1 < many && (backwards ? p * U + U <= H : p * U + 2 * U <= H)) { /* D: p and the next one */
                const ptrdiff_t q = backwards ? p - 1 : p;
                w = packed + q * H * columns;
                FR(pair_of)[NV - 1](sums + (q - from) * columns, a, w, w + H * columns, H);
                i++;
            } else {
                FR(tile_of)[NV - 1][0](sums + (p - from) * columns, 0, VL, a, 0, w, LDW(NV), HALF(NV, H), H, chain, 0,
                                       NULL, w, 0);
            }
        }
        for (ptrdiff_t p = from; p < from + many; p++) {
            const ptrdiff_t n = H - p * U < U ? H - p * U : U;
            FR(part_of)[cell](s, sums + (p - from) * columns, 0, n, 0, 1, p * U, n);
        }
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
    const int pieces = FR(too_large)(H, 256 * 1024);
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
                FR(part_of)[cell](s, sums, SUMS_ROW, n, m, rows, j, n); /* B */
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
#undef SMALL
#undef BLOCKS_AT_ONCE
#undef PART_ARGUMENTS
#undef OVER_UNITS
#undef EACH_ROW
#undef PRE
#undef MIXED
