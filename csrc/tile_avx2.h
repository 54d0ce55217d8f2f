/* A block of steps of a tile of 4 to 6 rows by 2 vectors for AVX2, instruction by instruction.
 *
 * 6 rows by 2 vectors are 12 multiply-adds, 6 numbers of a and 2 vectors of weights, 20 instructions a step at least. GCC
 * makes 25, for it keeps an address for each row and counts every step; told to unroll, it moves loads ahead until it has
 * no registers left. These are 22, and the same multiply-adds in the same order.
 *
 * sum[r][v] <- the sums over n steps, n a multiple of 4 and not 0. w is [n][2] vectors. a is the first row's number of the
 * first step: rows are `row` bytes apart and steps a number, or, BY_STEPS, rows a number and steps R numbers. `pace` bytes
 * from `soon` on are asked for with every second step. All three end where the next step would begin.
 */
#define AT_ROWS_0(k, R, BYTES) #k "*" BYTES "(%[a])"
#define AT_ROWS_1(k, R, BYTES) #k "*" BYTES "(%[a],%[row])"
#define AT_ROWS_2(k, R, BYTES) #k "*" BYTES "(%[a],%[row],2)"
#define AT_ROWS_3(k, R, BYTES) #k "*" BYTES "(%[a],%[row3])"
#define AT_ROWS_4(k, R, BYTES) #k "*" BYTES "(%[a],%[row],4)"
#define AT_ROWS_5(k, R, BYTES) #k "*" BYTES "(%[a],%[row5])"
#define AT_STEPS(k, R, BYTES, r) "(" #k "*" #R "+" #r ")*" BYTES "(%[a])"
#define AT_STEPS_0(k, R, BYTES) AT_STEPS(k, R, BYTES, 0)
#define AT_STEPS_1(k, R, BYTES) AT_STEPS(k, R, BYTES, 1)
#define AT_STEPS_2(k, R, BYTES) AT_STEPS(k, R, BYTES, 2)
#define AT_STEPS_3(k, R, BYTES) AT_STEPS(k, R, BYTES, 3)
#define AT_STEPS_4(k, R, BYTES) AT_STEPS(k, R, BYTES, 4)
#define AT_STEPS_5(k, R, BYTES) AT_STEPS(k, R, BYTES, 5)

#define ROW(r, AT, k, R, T, BYTES)                                                                                     \
    "vbroadcasts" T " " AT##_##r(k, R, BYTES) ", %%ymm15\n\t"                                                          \
    "vfmadd231p" T " %%ymm13, %%ymm15, %[s" #r "0]\n\t"                                                                \
    "vfmadd231p" T " %%ymm14, %%ymm15, %[s" #r "1]\n\t"
#define ROWS_4(...) ROW(0, __VA_ARGS__) ROW(1, __VA_ARGS__) ROW(2, __VA_ARGS__) ROW(3, __VA_ARGS__)
#define ROWS_5(...) ROWS_4(__VA_ARGS__) ROW(4, __VA_ARGS__)
#define ROWS_6(...) ROWS_5(__VA_ARGS__) ROW(5, __VA_ARGS__)
#define STEP(k, AT, R, T, BYTES)                                                                                       \
    "vmovups 64*" #k "-128(%[w]), %%ymm13\n\t"                                                                         \
    "vmovups 64*" #k "-96(%[w]), %%ymm14\n\t" ROWS_##R(AT, k, R, T, BYTES)
#define ASK "prefetcht1 (%[soon])\n\tadd %[pace], %[soon]\n\t"
#define NOTHING ""
#define ZERO(r) "vxorps %[s" #r "0], %[s" #r "0], %[s" #r "0]\n\tvxorps %[s" #r "1], %[s" #r "1], %[s" #r "1]\n\t"
#define ZERO_4 ZERO(0) ZERO(1) ZERO(2) ZERO(3)
#define ZERO_5 ZERO_4 ZERO(4)
#define ZERO_6 ZERO_5 ZERO(5)
#define STEPS(ASK, AT, R, T, BYTES, FURTHER)                                                                           \
    ZERO_##R ".p2align 5\n1:\n\t" ASK STEP(0, AT, R, T, BYTES) STEP(1, AT, R, T, BYTES) ASK STEP(2, AT, R, T, BYTES)   \
        STEP(3, AT, R, T, BYTES) "add $4*" FURTHER "*" BYTES ", %[a]\n\tadd $256, %[w]\n\tsub $4, %[n]\n\tjg 1b\n\t"

#define SUMS_OF(r) [s##r##0] "=&x"(sum[r][0]), [s##r##1] "=&x"(sum[r][1])
#define SUMS_4 SUMS_OF(0), SUMS_OF(1), SUMS_OF(2), SUMS_OF(3)
#define SUMS_5 SUMS_4, SUMS_OF(4)
#define SUMS_6 SUMS_5, SUMS_OF(5)
#define CHANGED "xmm13", "xmm14", "xmm15", "cc", "memory" /* which is read */

#define BY_ROWS(R, T, BYTES, a_, row_, w_, n_, soon_, pace_)                                                           \
    do {                                                                                                               \
        const char *a_at = (const char *)(a_), *w_at = (const char *)(w_) + 128, *soon_at = (const char *)(soon_);     \
        ptrdiff_t left = (n_);                                                                                         \
        __asm__ volatile(STEPS(ASK, AT_ROWS, R, T, BYTES, "1")                                                         \
                         : SUMS_##R, [a] "+r"(a_at), [w] "+r"(w_at), [soon] "+r"(soon_at), [n] "+r"(left)              \
                         : [row] "r"(row_), [row3] "r"(3 * (row_)), [row5] "r"(5 * (row_)), [pace] "r"(pace_)          \
                         : CHANGED);                                                                                   \
    } while (0)
#define BY_STEPS(R, T, BYTES, a_, w_, n_)                                                                              \
    do {                                                                                                               \
        const char *a_at = (const char *)(a_), *w_at = (const char *)(w_) + 128;                                       \
        ptrdiff_t left = (n_);                                                                                         \
        __asm__ volatile(STEPS(NOTHING, AT_STEPS, R, T, BYTES, #R)                                                     \
                         : SUMS_##R, [a] "+r"(a_at), [w] "+r"(w_at), [n] "+r"(left)                                    \
                         :                                                                                             \
                         : CHANGED);                                                                                   \
    } while (0)

/* What product_impl.h uses; R is a constant wherever it is inlined. */
#define WITH_ROWS(R, MACRO, ...)                                                                                       \
    do {                                                                                                               \
        if ((R) == 6) MACRO(6, __VA_ARGS__);                                                                           \
        if ((R) == 5) MACRO(5, __VA_ARGS__);                                                                           \
        if ((R) == 4) MACRO(4, __VA_ARGS__);                                                                           \
    } while (0)
#define V_BY_ROWS_F32(R, ...) WITH_ROWS(R, BY_ROWS, "s", "4", __VA_ARGS__)
#define V_BY_ROWS_F64(R, ...) WITH_ROWS(R, BY_ROWS, "d", "8", __VA_ARGS__)
#define V_BY_STEPS_F32(R, ...) WITH_ROWS(R, BY_STEPS, "s", "4", __VA_ARGS__)
#define V_BY_STEPS_F64(R, ...) WITH_ROWS(R, BY_STEPS, "d", "8", __VA_ARGS__)
