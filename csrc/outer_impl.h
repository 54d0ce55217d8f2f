/* The products that make gradients of weights and biases, of the tiles and packing of product_impl.h: c = a' b and sums of rows.
 *
 * A block of OUTER_BLOCK rows of a and b at a time. What is small is read where it lies. What is large is packed first:
 * b's panels one after another as ever, a into strips of a tile's rows, [strips][K][R], which pass by each panel. Packed
 * against as it lies, on a Zen 3: K, M, N = 1600, 1024, 128 1.63 times as fast; 3200, 384, 128 1.30; 3200, 256, 64 1.21;
 * 400, 200, 50 0.96; 1600, 128, 32 0.88. Both give the same bits.
 *
 * Where columns fill their vectors badly and rows do not, c' = b' a is made, and turned while it is small, a panel at a
 * time. K=960 on a Zen 4, AVX-512: M, N = 200, 10 1.45 times as fast; 80, 20 1.6; 60, 20 1.8; 400, 40 1.15; 256, 50 1.25.
 * With AVX2, whose vectors are shorter and whose narrow tiles better, only from a quarter less: 200, 10 1.2; 50, 10 1.45;
 * with a fifth less 400, 13 0.8.
 */
#define OUTER_BLOCK 256 /* rows of b that stay in cache while all of a passes by: 64 KB a panel */
#define FEW_ROWS 8
#define TURNED (8 * VL) /* columns at most of what is turned: of more, less than an eighth is lost in the last vector */

static int FR(outer_packs)(ptrdiff_t M, ptrdiff_t N) { return FR_VECTORS && N * (ptrdiff_t)sizeof(REAL) >= 256 && M >= 64; }

static FR_INLINE ptrdiff_t FR(vectors)(ptrdiff_t n) { return (n + VL - 1) / VL; }

/* Whether c' = b' a is made instead, and turned. */
static int FR(outer_turns)(ptrdiff_t M, ptrdiff_t N) {
    return 8 * FR(vectors)(M) * N <= (FR_REGISTERS == 32 ? 7 : 6) * FR(vectors)(N) * M;
}

static ptrdiff_t FR(outer_size)(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K) {
    const ptrdiff_t strips = FR(outer_packs)(M, N) ? M : 0, turned = FR(outer_packs)(N, M) && N <= TURNED ? N : 0;
    return (K < OUTER_BLOCK ? K : OUTER_BLOCK) * (4 * VL + (strips > turned ? strips : turned)) +
           (N <= TURNED ? N * SUMS_ROW : 0);
}

/* Where strip t of as many as there are begins, for 0 <= t <= strips; all have as many rows, or one less. */
static FR_INLINE ptrdiff_t FR(strip)(ptrdiff_t t, ptrdiff_t strips, ptrdiff_t M) { return M * t / strips; }

/* K steps of a strip; R is a constant in most calls, so that a step's numbers are copied together: all of a product of
 * large matrices 1.05 to 1.25 times as fast as number by number. */
static FR_INLINE void FR(pack_strip)(REAL *to, const REAL *from, ptrdiff_t lda, ptrdiff_t K, const size_t R) {
    for (ptrdiff_t k = 0; k < K; k++) memcpy(to + k * (ptrdiff_t)R, from + k * lda, R * sizeof(REAL));
}

static void FR(pack_strips)(REAL *packed, const REAL *a, ptrdiff_t lda, ptrdiff_t strips, ptrdiff_t M, ptrdiff_t K) {
    /* 16 steps at a time, so that the lines of a that two strips share are still in the L1 cache. */
    for (ptrdiff_t k0 = 0; k0 < K; k0 += 16) {
        const ptrdiff_t n = K - k0 < 16 ? K - k0 : 16;
        for (ptrdiff_t t = 0; t < strips; t++) {
            const ptrdiff_t m = FR(strip)(t, strips, M), R = FR(strip)(t + 1, strips, M) - m;
            REAL *to = packed + m * K + k0 * R;
            const REAL *from = a + k0 * lda + m;
            switch (R) {
            case 3: FR(pack_strip)(to, from, lda, n, 3); break;
            case 4: FR(pack_strip)(to, from, lda, n, 4); break;
            case 5: FR(pack_strip)(to, from, lda, n, 5); break;
            case 6: FR(pack_strip)(to, from, lda, n, 6); break;
            default: FR(pack_strip)(to, from, lda, n, (size_t)R);
            }
        }
    }
}

/* The same for so few rows of a and b that writing c is what takes time: row by row. By tiles, K=1 took 4 times as long, K=8
 * 2.4 times (AVX2, up to 1 MB of c; 4 MB 2 and 1.4 times). */
static FR_INLINE void FR(outer_rows)(REAL *c, ptrdiff_t ldc, const REAL *a, ptrdiff_t lda, const REAL *b, ptrdiff_t ldb,
                                     ptrdiff_t M, ptrdiff_t N, const int K, int add) {
    for (ptrdiff_t m = 0; m < M; m++) {
        vec x[FEW_ROWS];
        REAL *row = c + m * ldc;
        FR_UNROLL for (int k = 0; k < K; k++) x[k] = FR(splat)(a[k * lda + m]);
        OVER(N, vec sum = FR(splat)(0); FR_UNROLL for (int k = 0; k < K; k++) sum += FR(load)(b + k * ldb + j, n) * x[k];
             FR(store)(row + j, add ? FR(load)(row + j, n) + sum : sum, n););
    }
}

static void FR(outer_of_few)(REAL *c, ptrdiff_t ldc, const REAL *a, ptrdiff_t lda, const REAL *b, ptrdiff_t ldb,
                             ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, int add) {
#define OF_ROWS(K)                                                                                                     \
    case K: FR(outer_rows)(c, ldc, a, lda, b, ldb, M, N, K, add); break;
    switch (K) { OF_ROWS(0) OF_ROWS(1) OF_ROWS(2) OF_ROWS(3) OF_ROWS(4) OF_ROWS(5) OF_ROWS(6) OF_ROWS(7) OF_ROWS(8) }
#undef OF_ROWS
}

#if VL > 1
/* c (n,M) = t' or c += t', for t (M,SUMS_ROW), of which n columns count. */
static void FR(turn)(REAL *c, ptrdiff_t ldc, const REAL *t, ptrdiff_t M, ptrdiff_t n, int add) {
    for (ptrdiff_t j = 0; j < n; j += VL)
        for (ptrdiff_t m = 0; m < M; m += VL) {
            const ptrdiff_t rows = n - j < VL ? n - j : VL, lanes = M - m < VL ? M - m : VL;
            vec v[VL];
            FR_UNROLL_ALL for (int l = 0; l < VL; l++) v[l] = FR(load)(t + (m + (l < lanes ? l : 0)) * SUMS_ROW + j, VL);
            FR(transpose)(v);
            /* all loads before all stores: a load would wait for the store of a part of the line in front of it */
            for (ptrdiff_t l = 0; add && l < rows; l++) v[l] += FR(load)(c + (j + l) * ldc + m, lanes);
            for (ptrdiff_t l = 0; l < rows; l++) FR(store)(c + (j + l) * ldc + m, v[l], lanes);
        }
}
#endif

static void FR(outer)(REAL *c, ptrdiff_t ldc, const REAL *a, ptrdiff_t lda, const REAL *b, ptrdiff_t ldb, ptrdiff_t M,
                      ptrdiff_t N, ptrdiff_t K, int add, REAL *scratch) {
    if (K <= FEW_ROWS) {
        FR(outer_of_few)(c, ldc, a, lda, b, ldb, M, N, K, add);
        return;
    }
    const int turns = FR(outer_turns)(M, N);
    if (turns) {
        const REAL *rows = a;
        const ptrdiff_t ld = lda, n = M;
        a = b, lda = ldb, M = N;
        b = rows, ldb = ld, N = n;
    }
    const int packs = FR(outer_packs)(M, N);
    /* what is written once, in whole lines */
    const int stream = !turns && !add && K <= OUTER_BLOCK && M * N * (ptrdiff_t)sizeof(REAL) >= PAST_CACHES &&
                       FR(streams)(c) && N % VL == 0 && ldc % VL == 0;
    REAL *panel = scratch; /* aligned, for its loads; what is turned and the strips come after it */
    ptrdiff_t k = 0;
    do {
        const ptrdiff_t n = K - k < OUTER_BLOCK ? K - k : OUTER_BLOCK;
        const int adds = stream ? STREAM : add || k > 0;
        const REAL *from = a + k * lda;
        REAL *sums = scratch + n * 4 * VL, *strips = sums + (turns ? M * SUMS_ROW : 0);
        ptrdiff_t packed_for = 0; /* how many strips there are */
        for (ptrdiff_t first = 0; first < N;) {
            /* Strips have the rows of a tile of so many vectors, and no tile of more has as many. */
            const ptrdiff_t NV = FR(panel_vectors)(N - first), widest = packs ? TOGETHER(4) : NV;
            const ptrdiff_t most = FR(tile_rows)[widest - 1], tiles = (M + most - 1) / most;
            const REAL *w = b + k * ldb + first;
            REAL *out = turns ? sums : c + first;
            ptrdiff_t ldw = ldb, half = 2 * VL, ldout = turns ? SUMS_ROW : ldc;
            if (packs && !packed_for) FR(pack_strips)(strips, from, lda, packed_for = tiles, M, n);
            if (packs || N - first < NV * VL) { /* where it ends within a vector there may be no memory behind b */
                FR(pack)(panel, w, 1, ldb, n, N - first < 4 * VL ? N - first : 4 * VL);
                w = panel, ldw = LDW(NV), half = HALF(NV, n);
            }
            for (ptrdiff_t v = 0; v < NV; v += widest) {
                const ptrdiff_t width = NV - v < widest ? NV - v : widest;
                const ptrdiff_t lanes = turns || v + width < NV ? VL : FR(last_lanes)(N - first, NV);
                for (ptrdiff_t t = 0; t < tiles; t++) {
                    const ptrdiff_t m = FR(strip)(t, tiles, M), R = FR(strip)(t + 1, tiles, M) - m;
                    const FR(outer_t) tile = FR(outer_of)[width - 1][R - 1];
                    REAL *to = out + m * ldout + v * VL;
                    if (packs)
                        tile(to, ldout, lanes, strips + m * n, R, w + (v ? half : 0), ldw, half, n, turns ? 0 : adds);
                    else
                        tile(to, ldout, lanes, from + m, lda, w, ldw, half, n, turns ? 0 : adds);
                }
            }
#if VL > 1
            if (turns) FR(turn)(c + first * ldc, ldc, sums, M, N - first < 4 * VL ? N - first : 4 * VL, adds);
#endif
            first += NV * VL;
        }
        k += OUTER_BLOCK;
    } while (k < K);
    if (stream) FR(streamed)();
}

/* In blocks, as everything is summed here. */
static void FR(sum_rows)(REAL *y, const REAL *a, ptrdiff_t lda, ptrdiff_t K, ptrdiff_t N, int add) {
    for (ptrdiff_t j = 0; j < N; j += VL) {
        const ptrdiff_t n = N - j < VL ? N - j : VL;
        vec total = FR(splat)(0);
        for (ptrdiff_t k = 0; k < K;) {
            const ptrdiff_t end = K - k > K_BLOCK ? k + K_BLOCK : K;
            vec sum = FR(load)(a + k * lda + j, n);
            for (k++; k < end; k++) sum += FR(load)(a + k * lda + j, n);
            total += sum;
        }
        FR(store)(y + j, add ? FR(load)(y + j, n) + total : total, n);
    }
}

#undef at_once
#undef IN_MEMORY
#undef K_BLOCK
#undef ADD
#undef GO_ON
#undef STREAM
#undef DEPTH
#undef OUTER_BLOCK
#undef TILE_ROWS
#undef ROWS
#undef GIVEN
#undef TILE
#undef TILES
#undef PAIR
#undef LINE
#undef LINES_AT_ONCE
#undef AHEAD
#undef ROWS_AHEAD
#undef ROWS_AT_ONCE
#undef FEW_ROWS
#undef TURNED
#undef PREFETCH_TO_WRITE
#undef WEIGHTS
#undef EACH_SUM
#undef ROW_OF
