/* What this instruction set can do at most, for benchmarks to compare with: multiply-adds, and reading.
 *
 * A: Both go on in as many chains as hide the wait for a result. A multiply-add takes 4 or 5 cycles and two can start in
 *    each, four on some ARM; more than 12 chains would not fit in 16 registers.
 * B: What is read is combined bitwise: that takes one cycle, whatever the numbers are. Additions or maxima read as
 *    fast, and so do 4 or 16 chains.
 * C: From L3 the hardware's own prefetching settles now at one speed and now at another a fifth lower, for the same loop
 *    and memory; asking 1 to 4 KB ahead always has the higher one. From L1 and L2 that takes up to a third away.
 */
#define FMA_CHAINS (FR_REGISTERS == 32 ? 16 : 12)
#define READ_FLOATS (8 * VL)
#define LINE 64
#define AHEAD 2048 /* bytes; a prefetch may go beyond the memory's end */
#if FR_VECTORS
#define FETCH(p) __builtin_prefetch(p)
#else
#define FETCH(p) ((void)0)
#endif

static ptrdiff_t FR(probe_fma)(REAL *sink, ptrdiff_t n) {
    vec sum[4][4], total = FR(splat)(0);
    /* They approach 2: no overflow, nothing subnormal. The starts differ, and none is 2, or the compiler may leave out
     * a chain. */
    FR_UNROLL for (int i = 0; i < FMA_CHAINS / 4; i++) FR_UNROLL for (int j = 0; j < 4; j++) {
        sum[i][j] = FR(splat)((REAL)(3 + 4 * i + j));
    }
    ptrdiff_t done = 0;
    for (; done < n; done += FMA_CHAINS * VL) {
        FR_UNROLL for (int i = 0; i < FMA_CHAINS / 4; i++) FR_UNROLL for (int j = 0; j < 4; j++) {
            sum[i][j] = sum[i][j] * FR(splat)((REAL)0.5) + FR(splat)(1);
        }
    }
    FR_UNROLL for (int i = 0; i < FMA_CHAINS / 4; i++) FR_UNROLL for (int j = 0; j < 4; j++) {
        total += sum[i][j];
    }
    FR(store)(sink, total, VL);
    return done;
}

static void FR(probe_read)(REAL *sink, const REAL *x, ptrdiff_t n, ptrdiff_t times, int prefetch) {
    const REAL *volatile start = x; /* asked for anew each time: the compiler cannot know that it is the same memory */
    ivec all[8];
    FR_UNROLL for (int j = 0; j < 8; j++) all[j] = FR(bits)(FR(splat)(0));
    while (times-- > 0) {
        const REAL *p = start;
        for (const REAL *end = p + n; p < end; p += READ_FLOATS) {
            if (prefetch) {
                FR_UNROLL for (size_t j = 0; j < READ_FLOATS * sizeof(REAL); j += LINE) {
                    FETCH((const char *)p + AHEAD + j);
                }
            }
            FR_UNROLL for (int j = 0; j < 8; j++) all[j] ^= FR(bits)(FR(load)(p + j * VL, VL));
        }
    }
    FR_UNROLL for (int j = 1; j < 8; j++) all[0] ^= all[j];
    FR(store)(sink, FR(from_bits)(all[0]), VL);
}

#undef FMA_CHAINS
#undef READ_FLOATS
#undef LINE
#undef AHEAD
#undef FETCH
