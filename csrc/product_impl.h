/* Matrix products on packed weights. Those that make weight gradients are in outer_impl.h, which ends what is defined here.
 *
 * A: Every element of a result is a sum of chains of multiply-adds over k; each begins from zero and is then added to those
 *    before. The order depends on K and nothing else: not on the number of rows, their place in a tile, or who computes
 *    it. So a row has the same bits alone and in any batch. The chains are for accuracy: with one over 96 terms the plain
 *    RNN has 1.7 times NumPy's rounding error, which adds up in as many as a vector has lanes. With 64 steps up to K=128,
 *    with half of K up to 512, with 256 and from 1024 on 128 the error is 0.7 to 1.2 times NumPy's. An end of a chain
 *    costs 1/30 of 64 steps, for the sum of those before waits in the L1 cache; adding to c in memory cost 8%, and 23%
 *    where its rows lie 16 KB apart. Against 64 steps everywhere K >= 256 is 1.02 to 1.05 times as fast (Zen 3).
 * B: A tile of R rows by NV vectors of sums stays in registers over a chain; weights are read once for its R rows. R and
 *    NV are constants in every instance, and TILE_ROWS keeps R * NV sums, NV weights and an x within the registers.
 * C: Packed weights: panels of 4 vectors of columns, [panels][K][4][VL], one sequential stream; see F. The last one has
 *    as many vectors as there are columns for, zeros in the last one beyond the last column.
 * D: A tile asks for `pace` numbers more of what is needed `soon` with each step, some lines at most: the panel after this
 *    one, which the first tile to read it would else wait for, where the L2 cache does not hold it. LSTM, T=25: B=32,
 *    H=1024 65 -> 60 ms; B=16, H=2048 166 -> 148; no difference where the cache does. Evenly over the tiles, for only so
 *    many lines can be on their way: against all in the first four, H=1024 and B=32 1.02, B=64 1.06 (Xeon with AMX).
 *    With AVX-512 4 lines a step and not 1, and for a panel's only tile those AHEAD of it in the same panel: out of memory
 *    (2048,8192) with 5 and 6 rows 1.35 times as fast, 10 and 12 1.2, 16 1.1; LSTM T=25 B=16 I=H=2048 1.06, GRU 1.09; out of
 *    caches 1.00 to 1.03 (Zen 4). One row (K) became slower by it, 0.8.
 *    After the last panel of weights that are used once it is the columns that are packed next: of (1024,4096) with 8 to 64
 *    rows 1.18 to 1.05 times as fast, with AVX2 1.27 to 1.04; smaller ones 0.95 to 1.05, no more than between two runs (Zen 4).
 * E: A panel that is too large for the caches is gone through chain by chain for up to ROWS_OF_SUMS rows: a piece stays
 *    in the L1 cache for all tiles, and the next one is asked for just before it is needed. On a Xeon with 16 GB/s of
 *    memory: LSTM B=16, H=2048 1.24 times as fast, B=32 and 64, H=1024 1.05 to 1.07; smaller panels 0.95 to 1.00, so
 *    they are not. What rows are at least together matters too: (400,2048)(2048,8192) 1.38 times with 128 for 32.
 *    Since tiles ask for more lines (D), none of up to 1 MB is too large for AVX-512: K=2048 by 12 to 400 rows 1.03 to 1.07,
 *    LSTM and GRU T=25 B=16 I=H=2048 1.08 and 1.05, B=8 to 32 I=H=1024 1.01 to 1.04, T=8 B=32 I=H=4096 1.03 (Zen 4, 1 MB of L2).
 * F: With 16 registers a panel of 4 vectors is [2][K][2][VL], and its halves pass by 6 rows each, or both by 3 where
 *    there are no more: weights are read half as often, in one stream, and 16 KB of them serve K=256. On a Zen 3 (AVX2,
 *    32 KB of L1, 104 GF/s), rows of 4 vectors by 3, and these: (32,256)(256,1024) 75 and 85 GF/s, (400,512)(512,2048)
 *    78 and 90. Without the change of place the halves gained less, and lost below K=256.
 * G: Weights whose columns lie along memory are transposed VL by VL in registers: (512,2048) 980 -> 375 us, (128,512) 26 -> 11 us
 *    on a Zen 3, against number by number. What of their columns comes next is asked for, as each may lie in a page of its
 *    own: (1024,4096) 1.2 times as fast with AVX-512 and 1.3 with AVX2, (2048,8192) 1.25 and 1.35 (Zen 4). So are all lines of
 *    rows that are copied: (4096,1024) 1.5 times as fast as with two of four (Zen 4).
 * H: With AVX2 tiles of 4 to 6 rows by 2 vectors and of 4 by 3 are written out, see tile_avx2.h; but for a panel's only
 *    tile, which has a line to ask for with each step. What counts is how few instructions they are: a core that others
 *    use too has fewer to give, though multiply-adds alone are as fast as ever. On such a Zen 3 (products of 60 to 80 of
 *    its 104 GF/s, medians): the steps of a chain, 4 a turn, 1.03 to 1.12 against all in C; then all of a tile but its
 *    stores, 8 a turn, (32,64)(64,256) 1.11, (32,50)(50,200) 1.14, (32,256)(256,1024) 1.05, (200,512)(512,2048) 1.03, a
 *    step of a GRU (4 by 3) of 32, 64 units 1.11, of 64, 512 units 1.21; then those too, and fewer lines asked for at a
 *    time, 1.01 to 1.05.
 * I: Of more than 2 DEPTH steps as many at a time pass by all panels, so that the rows' part of them stays in the L2 cache;
 *    c holds the sums in between. LSTM back: (32,4096)(4096,1024) 61 -> 66 GF/s, (800,4096)(4096,1024) 70 -> 78,
 *    (16,8192)(8192,2048) 66 -> 70; half as deep, K=2048 1.0 (Zen 3, medians on a shared core).
 * J: A tile asks for its lines of c when it begins, unless they are the small array of a step's sums. Those of a weight
 *    gradient come from far: c (2048,512) 1.10, (4096,1024) 1.06 to 1.13 times as fast; other products 1.00 to 1.04.
 * K: Of one row two panels pass at a time, in a function of its own. 4 sums would wait for one another, for a multiply-add
 *    takes 4 cycles and two can start in each; and a tile is 64 instructions before its first. (16)(16,128) 2.6 times as
 *    fast, (50)(50,200) 1.8, (64)(64,256) 1.5, (128)(128,512) 1.2, from the L3 cache 1.05 (Zen 3). Its steps written out 8 a
 *    turn, or 32 blocks of a step before their units for 16, make no difference.
 * L: Of one row with weights as in G, used once, no square is stored but multiplied at once, against packed first (Zen 4, AVX-512
 *    and AVX2): (128,512) 1.6 and 1.3 times as fast, (512,2048) 1.65 and 1.2, (1024,4096) 1.9 and 2.6, (2048,8192) 2.9 and 3.9.
 * M: Of one row with weights whose rows lie along memory, some rows pass by together. Down a strip of 4 vectors, lines 2 or
 *    4 KB apart drove one another out of the cache: (256,1024) 36 -> 77 GB/s, (2048,512) 54 -> 70, (4096,1024) 25 -> 50, with
 *    AVX2 16 -> 60, 36 -> 68, 13 -> 54; other distances 0.85 to 1.1, 16 rows for 8 0.5 to 1.1 (Zen 4).
 * N: What is packed, or made by `outer` at once, and is too large for the caches is written past them, where a vector is a
 *    line: else each line is read before it is written. Packing (1024,4096) 1.9 times as fast, (2048,8192) 1.7, c (4096,1024)
 *    of `outer` 1.15, (8192,2048) 1.27; of 4 MB in a loop of nothing else 0.9, but a training step of an RNN, T=25 B=1
 *    I=H=1024, 1.1, an LSTM, T=50 B=1 I=H=512, 1.02 (Zen 4). With vectors of half a line `outer` 0.7 to 0.8.
 */
#define K_BLOCK 64
#define MAX_ROWS 8
#define ADD 1
#define GO_ON 2 /* see I */
#define STREAM 3 /* see N */
#define DEPTH 1024
#define PACKED_AT_ONCE 128
#define PAST_CACHES (4 * 1024 * 1024) /* see N */
#define ROWS_AHEAD 24 /* each row may be in a page of its own: W (1536,512) for 50 rows 1.95 -> 1.37 ms */
#define ROWS_OF_SUMS 64
#define ROWS_AT_ONCE 8
#define LINES_AT_ONCE (FR_REGISTERS == 32 ? 4 : 1)
#define AHEAD 48 /* steps */
#define LINE (64 / (ptrdiff_t)sizeof(REAL))
#define SUMS_ROW (4 * VL)
/* F: how many vectors of a packed panel of K steps lie together; the distance of its steps, and that of its halves. */
#define TOGETHER(NV) (FR_REGISTERS == 16 && (NV) == 4 ? 2 : (NV))
#define LDW(NV) (TOGETHER(NV) * VL)
#define HALF(NV, K) (TOGETHER(NV) < (NV) ? (K)*2 * VL : 2 * VL)
#if FR_VECTORS
#define PREFETCH(p) __builtin_prefetch(p, 0, 2)
#define PREFETCH_TO_WRITE(p) __builtin_prefetch(p, 1, 3)
#else
#define PREFETCH(p) (void)(p)
#define PREFETCH_TO_WRITE(p) (void)(p)
#endif
#if FR_REGISTERS == 32
#define TILE_ROWS(NV) ((NV) == 4 ? 6 : 8)
#else
#define TILE_ROWS(NV) ((NV) == 4 ? 3 : (NV) == 3 ? 4 : (NV) == 2 ? 6 : 8)
#endif
#define at_once FR(vec_in_array)
/* Keeps an array out of the registers. Of 10 to 14 sums GCC would keep the totals there, and read the weights from the stack
 * at every multiply-add: 4 rows by 3 vectors, 6 and 7 by 2 took 1.8 times as long (AVX-512, GCC 12). */
#if FR_VECTORS
#define IN_MEMORY(array) __asm__("" : "+m"(array))
#else
#define IN_MEMORY(array) (void)(array)
#endif

/* c (R, NV vectors) = a w, whose last vector is of `lanes` columns; with ADD c += a w, with GO_ON c is the sum over the
 * steps before. Vectors 2 and 3 of w lie `half` behind 0 and 1. `before`, if any, holds the sum of the chains that went
 * before, in rows of SUMS_ROW; never together with GO_ON. See D for `soon`. */
#define WEIGHTS(w, k, v) (*(const at_once *)((w) + (k)*ldw + ((v) < 2 ? (v)*VL : half + ((v)-2) * VL)))
#define EACH_SUM FR_UNROLL for (int r = 0; r < R; r++) FR_UNROLL for (int v = 0; v < NV; v++)
/* How many steps a chain has in a sum over K; see A. */
static FR_INLINE ptrdiff_t FR(chain)(ptrdiff_t K) {
    return K <= 2 * K_BLOCK ? K_BLOCK : K >= DEPTH ? DEPTH / 8 : K >= DEPTH / 2 ? DEPTH / 4 : (K + 15) / 16 * 8;
}

/* total <- what the chains before have made, if anything. */
static FR_INLINE int FR(begin_sums)(vec *total, const REAL *c, ptrdiff_t ldc, ptrdiff_t lanes, int add,
                                    const REAL *before, const int R, const int NV) {
    if (before)
        EACH_SUM total[r * NV + v] = *(const at_once *)(before + r * SUMS_ROW + v * VL);
    else if (add == GO_ON)
        EACH_SUM total[r * NV + v] = FR(load)(c + r * ldc + v * VL, v + 1 < NV ? VL : lanes);
    return before || add == GO_ON;
}

static FR_INLINE void FR(put_sums)(REAL *c, ptrdiff_t ldc, ptrdiff_t lanes, const vec *sum, int add, const int R,
                                   const int NV) {
#define PUT(lanes)                                                                                                     \
    EACH_SUM {                                                                                                         \
        REAL *p = c + r * ldc + v * VL;                                                                                \
        const ptrdiff_t n = v + 1 < NV ? VL : lanes;                                                                   \
        FR(store)(p, add == ADD ? FR(load)(p, n) + sum[r * NV + v] : sum[r * NV + v], n);                              \
    }
    if (add == STREAM)
        EACH_SUM FR(put)(c + r * ldc + v * VL, sum[r * NV + v], 1);
    else if (lanes == VL)
        PUT(VL)
    else
        PUT(lanes)
#undef PUT
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" /* total, which is read once it has `begun` */
#endif
static FR_INLINE void FR(any_tile)(REAL *c, ptrdiff_t ldc, ptrdiff_t lanes, const REAL *a, ptrdiff_t row,
                                   ptrdiff_t step, const REAL *w, ptrdiff_t ldw, ptrdiff_t half, ptrdiff_t K,
                                   ptrdiff_t chain, int add, const REAL *before, const REAL *soon, ptrdiff_t pace,
                                   const int R, const int NV) {
    vec sum[MAX_ROWS * 4], total[MAX_ROWS * 4]; /* sum lives in registers, total in the L1 cache */
    int begun = FR(begin_sums)(total, c, ldc, lanes, add, before, R, NV);
    ptrdiff_t k = 0;
    for (;;) {
        const ptrdiff_t end = K - k > chain ? k + chain : K;
        EACH_SUM sum[r * NV + v] = FR(splat)(0);
        for (; k < end; k++) {
            if (R >= 4) {
                PREFETCH(soon + k * pace);
                FR_UNROLL for (int i = 1; i < LINES_AT_ONCE; i++)
                    if (pace > i * LINE) PREFETCH(soon + k * pace + i * LINE);
            }
            if (R < NV) { /* the fewer of both wait in registers: beside 3 by 4 sums Clang spilled, 2.3 times as slow */
                vec x[MAX_ROWS];
                FR_UNROLL for (int r = 0; r < R; r++) x[r] = FR(splat)(a[r * row + k * step]);
                FR_UNROLL for (int v = 0; v < NV; v++) {
                    vec weights = WEIGHTS(w, k, v);
                    FR_UNROLL for (int r = 0; r < R; r++) sum[r * NV + v] += weights * x[r];
                }
            } else {
                vec weights[4];
                FR_UNROLL for (int v = 0; v < NV; v++) weights[v] = WEIGHTS(w, k, v);
                FR_UNROLL for (int r = 0; r < R; r++) {
                    vec x = FR(splat)(a[r * row + k * step]);
                    FR_UNROLL for (int v = 0; v < NV; v++) sum[r * NV + v] += weights[v] * x;
                }
            }
        }
        if (begun) EACH_SUM sum[r * NV + v] += total[r * NV + v];
        if (k >= K) break;
        EACH_SUM total[r * NV + v] = sum[r * NV + v];
        IN_MEMORY(total);
        begun = 1;
    }
    FR(put_sums)(c, ldc, lanes, sum, add, R, NV);
}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

static FR_INLINE void FR(tile)(REAL *c, ptrdiff_t ldc, ptrdiff_t lanes, const REAL *a, ptrdiff_t row, ptrdiff_t step,
                               const REAL *w, ptrdiff_t ldw, ptrdiff_t half, ptrdiff_t K, ptrdiff_t chain, int add,
                               const REAL *before, const REAL *soon, ptrdiff_t pace, const int R, const int NV) {
    if (ldc > SUMS_ROW && add != STREAM) FR_UNROLL for (int r = 0; r < R; r++) PREFETCH_TO_WRITE(c + r * ldc); /* J */
#ifdef V_WRITTEN /* H */
    const ptrdiff_t bytes = sizeof(REAL);
    const int by_rows = step == 1 && 2 * pace <= LINE, by_steps = row == 1 && step == R;
    if (V_WRITTEN(R, NV) && ldw == NV * VL && (by_rows || by_steps)) {
        vec total[MAX_ROWS * 4];
        const int begun = FR(begin_sums)(total, c, ldc, lanes, add, before, R, NV);
        const int direct = lanes == VL && add != ADD && add != STREAM;
        REAL *to = direct ? c : (REAL *)total;
        const ptrdiff_t ldto = (direct ? ldc : NV * VL) * bytes;
        if (by_rows)
            V_BY_ROWS(R, NV, to, ldto, a, row * bytes, w, K, chain, soon, 2 * pace * bytes, 4 * pace <= LINE);
        else
            V_BY_STEPS(R, NV, to, ldto, a, w, K, chain);
        if (!direct) FR(put_sums)(c, ldc, lanes, total, add, R, NV);
        return;
    }
#endif
    FR(any_tile)(c, ldc, lanes, a, row, step, w, ldw, half, K, chain, add, before, soon, pace, R, NV);
}

/* The same for one row and two panels of full vectors, without GO_ON: see K. As a tile of two rows GCC makes some sums of it
 * without multiply-add. */
static FR_INLINE void FR(pair)(REAL *c, const REAL *a, const REAL *w, const REAL *w2, ptrdiff_t K, ptrdiff_t chain,
                               int add, const int NV) {
    const ptrdiff_t ldw = LDW(NV), half = HALF(NV, K);
    vec sum[8], total[8];
    FR_UNROLL for (int v = 0; v < 2 * NV; v++) total[v] = FR(splat)((REAL)-0.0); /* a sum of -0 stays one */
    ptrdiff_t k = 0;
    do {
        const ptrdiff_t end = K - k > chain ? k + chain : K;
        FR_UNROLL for (int v = 0; v < 2 * NV; v++) sum[v] = FR(splat)(0);
        for (; k < end; k++) {
            vec x = FR(splat)(a[k]);
            FR_UNROLL for (int v = 0; v < NV; v++) {
                sum[v] += WEIGHTS(w, k, v) * x;
                sum[NV + v] += WEIGHTS(w2, k, v) * x;
            }
        }
        FR_UNROLL for (int v = 0; v < 2 * NV; v++) total[v] = sum[v] + total[v];
    } while (k < K);
    FR(put_sums)(c, 0, VL, total, add, 1, 2 * NV);
}

/* The instances. `rows` is R; ROWS(R) is R where a tile of R rows fits, else 1, which is then never called. */
#define GIVEN(half, NV) (TOGETHER(NV) < (NV) ? (half) : 2 * VL) /* a constant wherever it can be */
#define ROWS(R, NV) ((R) <= TILE_ROWS(NV) ? (R) : 1)
#define TILE(R, NV)                                                                                                    \
    static void FR(tile_##R##_##NV)(REAL * c, ptrdiff_t ldc, ptrdiff_t lanes, const REAL *a, ptrdiff_t lda,            \
                                    const REAL *w, ptrdiff_t ldw, ptrdiff_t half, ptrdiff_t K, ptrdiff_t chain,        \
                                    int add, const REAL *before, const REAL *soon, ptrdiff_t pace) {                   \
        FR(tile)(c, ldc, lanes, a, lda, 1, w, ldw, GIVEN(half, NV), K, chain, add, before, soon, pace, ROWS(R, NV),    \
                 NV);                                                                                                  \
    }                                                                                                                  \
    static void FR(outer_##R##_##NV)(REAL * c, ptrdiff_t ldc, ptrdiff_t lanes, const REAL *a, ptrdiff_t lda,           \
                                     const REAL *b, ptrdiff_t ldb, ptrdiff_t half, ptrdiff_t K, int add) {             \
        FR(tile)(c, ldc, lanes, a, 1, lda, b, ldb, GIVEN(half, NV), K, FR(chain)(K), add, NULL, b, 0, ROWS(R, NV),     \
                 NV);                                                                                                  \
    }
#define PAIR(NV)                                                                                                       \
    static void FR(pair_##NV)(REAL * c, const REAL *a, const REAL *w, const REAL *w2, ptrdiff_t K, ptrdiff_t chain,    \
                              int add) {                                                                               \
        FR(pair)(c, a, w, w2, K, chain, add, NV);                                                                      \
    }
PAIR(1) PAIR(2) PAIR(3) PAIR(4)
#define TILES(NV) TILE(1, NV) TILE(2, NV) TILE(3, NV) TILE(4, NV) TILE(5, NV) TILE(6, NV) TILE(7, NV) TILE(8, NV)
TILES(1) TILES(2) TILES(3) TILES(4)
typedef void (*FR(tile_t))(REAL *, ptrdiff_t, ptrdiff_t, const REAL *, ptrdiff_t, const REAL *, ptrdiff_t, ptrdiff_t,
                           ptrdiff_t, ptrdiff_t, int, const REAL *, const REAL *, ptrdiff_t);
typedef void (*FR(outer_t))(REAL *, ptrdiff_t, ptrdiff_t, const REAL *, ptrdiff_t, const REAL *, ptrdiff_t, ptrdiff_t,
                            ptrdiff_t, int);
typedef void (*FR(pair_t))(REAL *, const REAL *, const REAL *, const REAL *, ptrdiff_t, ptrdiff_t, int);
#define ROW_OF(KIND, NV)                                                                                               \
    {                                                                                                                  \
        FR(KIND##_1_##NV), FR(KIND##_2_##NV), FR(KIND##_3_##NV), FR(KIND##_4_##NV), FR(KIND##_5_##NV),                 \
            FR(KIND##_6_##NV), FR(KIND##_7_##NV), FR(KIND##_8_##NV)                                                    \
    }
static const FR(tile_t) FR(tile_of)[4][MAX_ROWS] = {ROW_OF(tile, 1), ROW_OF(tile, 2), ROW_OF(tile, 3), ROW_OF(tile, 4)};
static const FR(outer_t) FR(outer_of)[4][MAX_ROWS] = {ROW_OF(outer, 1), ROW_OF(outer, 2), ROW_OF(outer, 3),
                                                      ROW_OF(outer, 4)};
static const FR(pair_t) FR(pair_of)[4] = {FR(pair_1), FR(pair_2), FR(pair_3), FR(pair_4)};
static const int FR(tile_rows)[4] = {TILE_ROWS(1), TILE_ROWS(2), TILE_ROWS(3), TILE_ROWS(4)};

/* How many vectors the next panel has. */
static FR_INLINE ptrdiff_t FR(panel_vectors)(ptrdiff_t columns_left) {
    const ptrdiff_t there = (columns_left + VL - 1) / VL;
    return there < 4 ? there : 4;
}

/* How many columns the last of a panel's NV vectors has. */
static FR_INLINE ptrdiff_t FR(last_lanes)(ptrdiff_t columns_left, ptrdiff_t NV) {
    const ptrdiff_t lanes = columns_left - (NV - 1) * VL;
    return lanes < VL ? lanes : VL;
}

static ptrdiff_t FR(packed_size)(ptrdiff_t K, ptrdiff_t N) { return (N + VL - 1) / VL * VL * K; }

/* VL columns of a packed panel: to[k*width + l] = from[l][k] for k0 <= k < k1; see G. */
static FR_INLINE void FR(pack_columns)(REAL *to, ptrdiff_t width, const REAL *const *from, ptrdiff_t k0, ptrdiff_t k1,
                                       ptrdiff_t ahead, int stream) {
    (void)ahead, (void)stream; /* of scalars */
    ptrdiff_t k = k0;
#if VL > 1
    for (; k + VL <= k1; k += VL) {
        vec v[VL];
        FR_UNROLL_ALL for (int l = 0; l < VL; l++) {
            v[l] = FR(load)(from[l] + k, VL);
            PREFETCH(from[l] + k + ahead);
        }
        FR(transpose)(v);
        FR_UNROLL_ALL for (int l = 0; l < VL; l++) FR(put)(to + (k + l) * width, v[l], stream);
    }
#endif
    for (; k < k1; k++)
        for (int l = 0; l < VL; l++) to[k * width + l] = from[l][k];
}

/* Where vector v of a panel begins. */
static FR_INLINE ptrdiff_t FR(vector_at)(ptrdiff_t v, ptrdiff_t NV, ptrdiff_t K) {
    return v < 2 ? v * VL : HALF(NV, K) + (v - 2) * VL;
}

/* The K rows of a panel of NV vectors, the last of which has `lanes`: copied one after another. With NV in a loop it took 6 to 12
 * times as long within the L2 cache, and products with weights that are used once, (25,1024)(1024,256) 1.8 times, (100,512)
 * (512,128) 1.4, (1600,2048)(2048,512) 1.03 (AVX2). */
static FR_INLINE void FR(pack_rows)(REAL *to, const REAL *from, ptrdiff_t step, ptrdiff_t K, const int NV, ptrdiff_t lanes,
                                    int stream) {
    const ptrdiff_t ldw = LDW(NV);
    for (ptrdiff_t k = 0; k < K; k++, from += step, to += ldw) {
        FR_UNROLL for (ptrdiff_t i = 0; i < NV * VL; i += LINE) PREFETCH(from + ROWS_AHEAD * step + i);
        vec v[4];
        FR_UNROLL for (int i = 0; i < NV; i++) v[i] = FR(load)(from + i * VL, i + 1 < NV ? VL : lanes);
        FR_UNROLL for (int i = 0; i < NV; i++) FR(put)(to + FR(vector_at)(i, NV, K), v[i], stream);
    }
}

/* A panel whose columns lie along memory; some steps at a time, so that what is written stays in the L1 cache until its lines
 * are full. */
static FR_INLINE void FR(pack_panel)(REAL *to, const REAL *w, ptrdiff_t column, ptrdiff_t step, ptrdiff_t K, ptrdiff_t N,
                                     ptrdiff_t NV, int stream) {
    const ptrdiff_t ldw = LDW(NV);
    for (ptrdiff_t k0 = 0; k0 < K; k0 += PACKED_AT_ONCE) {
        const ptrdiff_t k1 = k0 + PACKED_AT_ONCE < K ? k0 + PACKED_AT_ONCE : K;
        const ptrdiff_t ahead = k1 < K ? PACKED_AT_ONCE : 4 * VL * column - k0; /* of these columns, or of the next ones */
        for (ptrdiff_t v = 0; v < NV; v++) {
            const ptrdiff_t n = N - v * VL < VL ? N - v * VL : VL;
            const REAL *from = w + v * VL * column;
            REAL *vector = to + FR(vector_at)(v, NV, K);
            if (step == 1 && n == VL) {
                const REAL *columns[VL];
                for (ptrdiff_t l = 0; l < VL; l++) columns[l] = from + l * column;
                FR(pack_columns)(vector, ldw, columns, k0, k1, ahead, stream);
            } else {
                for (ptrdiff_t l = 0; l < VL; l++)
                    for (ptrdiff_t k = k0; k < k1; k++) vector[k * ldw + l] = l < n ? from[l * column + k * step] : 0;
            }
        }
    }
}

static void FR(pack)(REAL *packed, const REAL *w, ptrdiff_t column, ptrdiff_t step, ptrdiff_t K, ptrdiff_t N) {
    const int stream = K * N * (ptrdiff_t)sizeof(REAL) >= PAST_CACHES && FR(streams)(packed);
    for (ptrdiff_t first = 0; first < N; first += 4 * VL) {
        const ptrdiff_t NV = FR(panel_vectors)(N - first), lanes = N - first - (NV - 1) * VL;
        const REAL *from = w + first * column;
#define ROWS_OF(NV)                                                                                                    \
    lanes < VL ? FR(pack_rows)(packed, from, step, K, NV, lanes, stream) : FR(pack_rows)(packed, from, step, K, NV, VL, stream)
        if (column != 1) FR(pack_panel)(packed, from, column, step, K, N - first, NV, stream);
        else if (NV == 4) ROWS_OF(4);
        else if (NV == 3) ROWS_OF(3);
        else if (NV == 2) ROWS_OF(2);
        else ROWS_OF(1);
#undef ROWS_OF
        packed += K * NV * VL;
    }
    if (stream) FR(streamed)();
}

/* c = a w for M rows and one panel, whose `half` lies that far behind; for `add` see the tile. Rows are split evenly:
 * 8 is 4 + 4, 16 is 6 + 5 + 5. With `pieces` a chain of the K steps at a time, see E; sums (M,SUMS_ROW), which may be c,
 * holds what is not finished. */
static FR_INLINE void FR(tiles)(REAL *c, ptrdiff_t ldc, ptrdiff_t lanes, const REAL *a, ptrdiff_t lda, const REAL *w,
                                ptrdiff_t half, ptrdiff_t M, ptrdiff_t K, ptrdiff_t chain, ptrdiff_t NV, int add,
                                int pieces, REAL *sums, const REAL *soon) {
    const ptrdiff_t ldw = LDW(NV);
    const ptrdiff_t width = M > FR(tile_rows)[NV - 1] ? TOGETHER(NV) : NV; /* F */
    const ptrdiff_t most = FR(tile_rows)[width - 1], tiles = (M + most - 1) / most, numbers = width * VL;
    const ptrdiff_t at_most = LINES_AT_ONCE * LINE, share = (numbers + tiles - 1) / tiles;
    const ptrdiff_t pace = share < at_most ? share : at_most;
    const int one_stream = tiles == 1 && LINES_AT_ONCE > 1;
    for (ptrdiff_t k = 0, n;; k += n, w += n * ldw) {
        n = pieces && tiles > 1 && K - k > chain ? chain : K - k;
        const int last = k + n == K;
        for (ptrdiff_t v = 0; v < NV; v += width) {
            const REAL *weights = w + (v ? half : 0), *ahead = (one_stream ? w + AHEAD * ldw : last ? soon : w + n * ldw);
            if (v) ahead += half;
            const ptrdiff_t of_last = v + width < NV ? VL : lanes;
            for (ptrdiff_t t = 0, m = 0; t < tiles; t++) {
                const ptrdiff_t R = (M - m + tiles - t - 1) / (tiles - t);
                const FR(tile_t) tile = FR(tile_of)[width - 1][R - 1];
                const REAL *rows = a + m * lda + k;
                REAL *sum = sums + m * SUMS_ROW + v * VL, *before = k ? sum : NULL;
                if (last)
                    tile(c + m * ldc + v * VL, ldc, of_last, rows, lda, weights, ldw, half, n, chain, add, before,
                         ahead, pace);
                else
                    tile(sum, SUMS_ROW, VL, rows, lda, weights, ldw, half, n, chain, 0, before, ahead, pace);
                ahead += n * pace; /* no further than into the panel after the next, which is as welcome */
                m += R;
            }
        }
        if (last) break;
    }
}

/* Whether a panel is one for pieces, if all of it may take so many bytes of the caches. */
static FR_INLINE int FR(too_large)(ptrdiff_t K, ptrdiff_t bytes) {
    return K * 4 * VL * (ptrdiff_t)sizeof(REAL) >= bytes;
}

/* As many rows as stay in the L2 cache, with half of it for a panel of K rows; and enough to pay for reading one from
 * further away. */
static FR_INLINE ptrdiff_t FR(rows_at_once)(ptrdiff_t K) {
    const ptrdiff_t rows = 64 * 1024 / (K ? K : 1);
    return rows < 2 * ROWS_OF_SUMS ? 2 * ROWS_OF_SUMS : rows;
}

/* I */
static FR_INLINE ptrdiff_t FR(depth)(ptrdiff_t M, ptrdiff_t K) { return M > 1 && K > 2 * DEPTH ? DEPTH : K; }

/* c (N) = a w, or with ADD c += a w, for one row and panels of so many `columns`; see K. */
static void FR(multiply_one)(REAL *c, const REAL *a, const REAL *packed, ptrdiff_t K, ptrdiff_t N, ptrdiff_t columns,
                             ptrdiff_t chain, int add, int backwards) {
    const ptrdiff_t panels = (N + columns - 1) / columns, full = N / columns;
    for (ptrdiff_t i = 0, p, many; i < panels; i += many) {
        p = backwards ? panels - 1 - i : i;
        many = backwards ? (p && p < full ? 2 : 1) : p + 1 < full ? 2 : 1;
        if (backwards) p -= many - 1;
        const ptrdiff_t first = p * columns, n = p < full ? columns : N - first, NV = (n + VL - 1) / VL;
        const REAL *w = packed + first * K;
        if (many == 2)
            FR(pair_of)[NV - 1](c + first, a, w, w + K * columns, K, chain, add);
        else
            FR(tile_of)[NV - 1][0](c + first, 0, FR(last_lanes)(n, NV), a, 0, w, LDW(NV), HALF(NV, K), K, chain, add,
                                   NULL, w, 0);
    }
}

/* As `multiply` in fastrnn.h, with chains as they are for so many steps of which these are some. What comes `after` the last
 * panel is asked for, see D; NULL for nothing. */
static void FR(multiply_some)(REAL *c, ptrdiff_t ldc, const REAL *a, ptrdiff_t lda, const REAL *packed, ptrdiff_t M,
                              ptrdiff_t K, ptrdiff_t N, ptrdiff_t steps, int add, ptrdiff_t groups, ptrdiff_t from,
                              ptrdiff_t to, int backwards, const REAL *after) {
    const ptrdiff_t panels = (N + 4 * VL - 1) / (4 * VL), depth = add ? K : FR(depth)(M, K);
    const ptrdiff_t most = FR(rows_at_once)(depth), chain = FR(chain)(steps);
    const int pieces = FR(too_large)(depth, FR_REGISTERS == 32 ? 2048 * 1024 : 512 * 1024);
    if (M == 1 && groups == 1) {
        FR(multiply_one)(c, a, packed, K, N, 4 * VL, chain, add, backwards);
        return;
    }
    /* A panel passes by so many rows of so many groups before the next one comes. */
    const ptrdiff_t chunk = M < most ? M : most, together = M ? most / chunk : 1;
#if FR_VECTORS
    __attribute__((aligned(64)))
#endif
    REAL sums[ROWS_OF_SUMS * SUMS_ROW];
    for (ptrdiff_t g0 = 0; g0 < groups; g0 += together)
        for (ptrdiff_t m0 = 0; m0 < M; m0 += chunk) {
            const ptrdiff_t end = M - m0 < chunk ? M : m0 + chunk, g1 = groups - g0 < together ? groups : g0 + together;
            ptrdiff_t k = 0;
            do { /* I */
                const ptrdiff_t n = K - k < depth ? K - k : depth;
                for (ptrdiff_t p = 0; p < panels; p++) {
                    const ptrdiff_t first = (backwards ? panels - 1 - p : p) * 4 * VL, NV = FR(panel_vectors)(N - first);
                    const REAL *w = packed + first * K + k * LDW(NV);
                    const REAL *next = p + 1 == panels ? (after ? after : w) : backwards ? w - K * 4 * VL : w + K * 4 * VL;
                    const ptrdiff_t lanes = FR(last_lanes)(N - first, NV);
                    for (ptrdiff_t g = g0; g < g1; g++)
                        for (ptrdiff_t m = m0; m < end; m += ROWS_OF_SUMS) {
                            const ptrdiff_t rows = end - m < ROWS_OF_SUMS ? end - m : ROWS_OF_SUMS;
                            FR(tiles)(c + (g * to + m) * ldc + first, ldc, lanes, a + (g * from + m) * lda + k, lda,
                                      w, HALF(NV, K), rows, n, chain, NV, k ? GO_ON : add, pieces, sums,
                                      g + 1 < g1 || m + rows < end ? w : next);
                        }
                }
                k += depth;
            } while (k < K);
        }
}

static void FR(multiply)(REAL *c, ptrdiff_t ldc, const REAL *a, ptrdiff_t lda, const REAL *packed, ptrdiff_t M,
                         ptrdiff_t K, ptrdiff_t N, int add, ptrdiff_t groups, ptrdiff_t from, ptrdiff_t to, int backwards) {
    FR(multiply_some)(c, ldc, a, lda, packed, M, K, N, K, add, groups, from, to, backwards, NULL);
}

/* sum (N) += a w for ROWS_AT_ONCE rows of w, or for one; from zero at the `begin` of a chain, whose sum is added to `total`
 * at its `end`, where there is any. */
static FR_INLINE void FR(add_rows)(REAL *sum, REAL *c, const REAL *total, const REAL *a, const REAL *w, ptrdiff_t step,
                                   ptrdiff_t N, int begin, int end, const int rows) {
    vec x[ROWS_AT_ONCE];
    FR_UNROLL for (int r = 0; r < rows; r++) x[r] = FR(splat)(a[r]);
    for (ptrdiff_t j = 0; j < N; j += VL) {
        vec s = begin ? FR(splat)(0) : FR(load)(sum + j, VL);
        FR_UNROLL for (int r = 0; r < rows; r++) s += FR(load)(w + r * step + j, VL) * x[r];
        if (!end)
            FR(store)(sum + j, s, VL);
        else
            FR(store)(c + j, total ? s + FR(load)(total + j, VL) : s, VL);
    }
}

/* One row, and weights whose rows lie along memory: some of them at a time, each a stream, whose sums wait in `sum` (N) for
 * the end of their chain; see M. */
static void FR(multiply_row)(REAL *c, const REAL *a, const REAL *w, ptrdiff_t step, ptrdiff_t K, ptrdiff_t N, REAL *sum) {
    const ptrdiff_t chain = FR(chain)(K);
    for (ptrdiff_t first = 0; first < K; first += chain) {
        const ptrdiff_t last = K - first > chain ? first + chain : K;
        for (ptrdiff_t k = first, n; k < last; k += n) {
            const REAL *from = w + k * step, *total = first ? c : NULL;
            n = last - k < ROWS_AT_ONCE ? 1 : ROWS_AT_ONCE;
            if (n == ROWS_AT_ONCE)
                FR(add_rows)(sum, c, total, a + k, from, step, N, k == first, k + n == last, ROWS_AT_ONCE);
            else
                FR(add_rows)(sum, c, total, a + k, from, step, N, k == first, k + n == last, 1);
        }
    }
}

#if VL > 1
/* One row, and columns that lie along memory; see L. */
static void FR(multiply_across)(REAL *c, const REAL *a, const REAL *w, ptrdiff_t column, ptrdiff_t K, ptrdiff_t N,
                                int add) {
    const ptrdiff_t chain = FR(chain)(K);
    for (ptrdiff_t j = 0; j < N; j += VL) {
        const ptrdiff_t lanes = FR(last_lanes)(N - j, 1);
        const REAL *from[VL];
        for (ptrdiff_t l = 0; l < VL; l++) from[l] = w + (j + (l < lanes ? l : 0)) * column;
        vec total = FR(splat)((REAL)-0.0), v[VL]; /* a sum of -0 stays one */
        ptrdiff_t k = 0;
        do {
            const ptrdiff_t end = K - k > chain ? k + chain : K;
            vec sum = FR(splat)(0);
            for (; k + VL <= end; k += VL) {
                FR_UNROLL_ALL for (int l = 0; l < VL; l++) {
                    v[l] = FR(load)(from[l] + k, VL);
                    PREFETCH(from[l] + k + VL * column); /* of the next columns */
                }
                FR(transpose)(v);
                FR_UNROLL_ALL for (int l = 0; l < VL; l++) sum += v[l] * FR(splat)(a[k + l]);
            }
            if (k < end) {
                const ptrdiff_t n = end - k;
                FR_UNROLL_ALL for (int l = 0; l < VL; l++) v[l] = FR(load)(from[l] + k, n);
                FR(transpose)(v);
                for (ptrdiff_t l = 0; l < n; l++) sum += v[l] * FR(splat)(a[k + l]);
                k = end;
            }
            total = sum + total;
        } while (k < K);
        FR(store)(c + j, add ? FR(load)(c + j, lanes) + total : total, lanes);
    }
}
#endif

static void FR(multiply_once)(REAL *c, ptrdiff_t ldc, const REAL *a, ptrdiff_t lda, const REAL *w, ptrdiff_t column,
                              ptrdiff_t step, ptrdiff_t M, ptrdiff_t K, ptrdiff_t N, int add, REAL *scratch) {
    if (M == 1 && column == 1 && K && N % VL == 0 && (add ? 2 : 1) * N <= 64 * K) {
        REAL *to = add ? scratch + N : c; /* the sum is whole before it is added to what is there (A) */
        FR(multiply_row)(to, a, w, step, K, N, scratch);
        for (ptrdiff_t j = 0; add && j < N; j++) c[j] += to[j];
        return;
    }
#if VL > 1
    if (M == 1 && step == 1 && K) {
        FR(multiply_across)(c, a, w, column, K, N, add);
        return;
    }
#endif
    const ptrdiff_t depth = add ? K : FR(depth)(M, K);
    ptrdiff_t k = 0;
    do { /* I */
        const ptrdiff_t deep = K - k < depth ? K - k : depth;
        for (ptrdiff_t first = 0; first < N; first += 4 * VL) {
            const ptrdiff_t n = N - first < 4 * VL ? N - first : 4 * VL;
            FR(pack)(scratch, w + first * column + k * step, column, step, deep, n);
            /* The next columns, where they lie in one piece. */
            const REAL *after = step == 1 && column == deep && N - first >= 8 * VL ? w + (first + 4 * VL) * column : NULL;
            FR(multiply_some)(c + first, ldc, a + k, lda, scratch, M, deep, n, K, k ? GO_ON : add, 1, 0, 0, 0, after);
        }
        k += depth;
    } while (k < K);
}
