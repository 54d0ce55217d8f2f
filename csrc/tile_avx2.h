/* A tile of 4 to 6 rows by 2 vectors for AVX2, or of 4 by 3, instruction by instruction.
 *
 * 6 rows by 2 vectors are 12 multiply-adds, 6 numbers of a and 2 vectors of weights, 20 instructions a step at least. GCC
 * makes 25, for it keeps an address for each row and counts every step; told to unroll, it moves loads ahead until it has
 * no registers left. These are 21, and the same multiply-adds in the same order.
 *
 * c (R, NV vectors), rows `ldc` bytes apart, <- the sums over K steps, in chains of `chain` steps that begin from zero
 * and are added to those before, which are in total[R][NV]: none for the first one, unless `begun`. w is [K][NV]
 * vectors. a is the first row's number of the first step: rows are `row` bytes apart and steps a number, or, BY_STEPS,
 * rows a number and steps R numbers. `pace` bytes from `soon` on are asked for with every second step, or, if RARELY,
 * twice as many with every fourth.
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

/* Of each row and its 2 or 3 sums. */
#define EACH_4(DO, ...) DO(0, __VA_ARGS__) DO(1, __VA_ARGS__) DO(2, __VA_ARGS__) DO(3, __VA_ARGS__)
#define EACH_5(DO, ...) EACH_4(DO, __VA_ARGS__) DO(4, __VA_ARGS__)
#define EACH_6(DO, ...) EACH_5(DO, __VA_ARGS__) DO(5, __VA_ARGS__)
#define OF_2(DO, r, ...) DO(r, 0, __VA_ARGS__) DO(r, 1, __VA_ARGS__)
#define OF_3(DO, r, ...) OF_2(DO, r, __VA_ARGS__) DO(r, 2, __VA_ARGS__)
#define OF_ROW(r, DO, NV, ...) OF_##NV(DO, r, NV, __VA_ARGS__)
#define S_2_00 "%%ymm0"
#define S_2_01 "%%ymm1"
#define S_2_10 "%%ymm2"
#define S_2_11 "%%ymm3"
#define S_2_20 "%%ymm4"
#define S_2_21 "%%ymm5"
#define S_2_30 "%%ymm6"
#define S_2_31 "%%ymm7"
#define S_2_40 "%%ymm8"
#define S_2_41 "%%ymm9"
#define S_2_50 "%%ymm10"
#define S_2_51 "%%ymm11"
#define S_3_00 "%%ymm0"
#define S_3_01 "%%ymm1"
#define S_3_02 "%%ymm2"
#define S_3_10 "%%ymm3"
#define S_3_11 "%%ymm4"
#define S_3_12 "%%ymm5"
#define S_3_20 "%%ymm6"
#define S_3_21 "%%ymm7"
#define S_3_22 "%%ymm8"
#define S_3_30 "%%ymm9"
#define S_3_31 "%%ymm10"
#define S_3_32 "%%ymm11"
#define S(r, v, NV) S_##NV##_##r##v

#define ADD_ONE(r, v, NV, T) "vfmadd231p" T " %%ymm1" W_##v ", %%ymm15, " S(r, v, NV) "\n\t"
#define W_0 "2"
#define W_1 "3"
#define W_2 "4"
#define ADD_ROW(r, AT, k, R, NV, T, BYTES)                                                                             \
    "vbroadcasts" T " " AT##_##r(k, R, BYTES) ", %%ymm15\n\t" OF_##NV(ADD_ONE, r, NV, T)
#define WEIGHT(v, k, NV) "vmovups 32*(" #NV "*" #k "+" #v ")(%[w]), %%ymm1" W_##v "\n\t"
#define WEIGHTS_2(k) WEIGHT(0, k, 2) WEIGHT(1, k, 2)
#define WEIGHTS_3(k) WEIGHT(0, k, 3) WEIGHT(1, k, 3) WEIGHT(2, k, 3)
#define STEP(k, AT, R, NV, T, BYTES) WEIGHTS_##NV(k) EACH_##R(ADD_ROW, AT, k, R, NV, T, BYTES)
#define ASK "prefetcht1 (%[soon])\n\tadd %[pace], %[soon]\n\t"
#define NOTHING ""
#define FOUR_STEPS(k0, k1, k2, k3, ASK, ASK_AGAIN, ...)                                                                \
    ASK STEP(k0, __VA_ARGS__) STEP(k1, __VA_ARGS__) ASK_AGAIN STEP(k2, __VA_ARGS__) STEP(k3, __VA_ARGS__)

#define ZERO_SUM(r, v, NV, T) "vxorps " S(r, v, NV) ", " S(r, v, NV) ", " S(r, v, NV) "\n\t"
#define IN_TOTAL(r, v, NV) "32*(" #NV "*" #r "+" #v ")(%[total])"
#define PLUS_TOTAL(r, v, NV, T) "vaddp" T " " IN_TOTAL(r, v, NV) ", " S(r, v, NV) ", " S(r, v, NV) "\n\t"
#define TO_TOTAL(r, v, NV, T) "vmovaps " S(r, v, NV) ", " IN_TOTAL(r, v, NV) "\n\t"
#define TO_C(r, v, NV) "vmovups " S(r, v, NV) ", 32*" #v "(%[a])\n\t"
#define ROW_TO_C(r, NV) OF_##NV(TO_C, r, NV) "add %[n], %[a]\n\t"
#define SUMS(ASK, ASK_AGAIN, AT, R, NV, T, BYTES, FURTHER)                                                             \
    "1:\n\t" EACH_##R(OF_ROW, ZERO_SUM, NV, T)                                                                         \
    "mov %[chain], %[n]\n\tcmp %[n], %[left]\n\tcmovl %[left], %[n]\n\tsub %[n], %[left]\n\t"                          \
    "sub $8, %[n]\n\tjl 3f\n\t"                                                                                        \
    ".p2align 5\n2:\n\t"                                                                                               \
    FOUR_STEPS(0, 1, 2, 3, ASK, ASK_AGAIN, AT, R, NV, T, BYTES)                                                        \
    FOUR_STEPS(4, 5, 6, 7, ASK, ASK_AGAIN, AT, R, NV, T, BYTES)                                                        \
    "add $8*" FURTHER "*" BYTES ", %[a]\n\tadd $8*32*" #NV ", %[w]\n\tsub $8, %[n]\n\tjge 2b\n\t"                      \
    "3:\n\tadd $8, %[n]\n\tjz 5f\n\t"                                                                                  \
    "4:\n\t" STEP(0, AT, R, NV, T, BYTES)                                                                              \
    "add $" FURTHER "*" BYTES ", %[a]\n\tadd $32*" #NV ", %[w]\n\tsub $1, %[n]\n\tjnz 4b\n\t"                          \
    "5:\n\ttest %[begun], %[begun]\n\tjz 6f\n\t" EACH_##R(OF_ROW, PLUS_TOTAL, NV, T)                                   \
    "6:\n\ttest %[left], %[left]\n\tjz 7f\n\t" EACH_##R(OF_ROW, TO_TOTAL, NV, T) "mov $1, %[begun]\n\tjmp 1b\n"        \
    "7:\n\tmov %[c], %[a]\n\tmov %[ldc], %[n]\n\t" EACH_##R(ROW_TO_C, NV)

#define TILE_ASM(SUMS, ...)                                                                                            \
    __asm__ volatile(SUMS                                                                                              \
                     : [a] "+r"(a_at), [w] "+r"(w_at), [soon] "+r"(soon_at), [left] "+r"(left), [n] "=&r"(n),          \
                       [begun] "+r"(goes_on)                                                                           \
                     : [c] "m"(c_at), [ldc] "m"(ldc_bytes), [total] "r"(total), [chain] "m"(chain_of)__VA_ARGS__       \
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",        \
                       "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory")
#define OPERANDS(c_, ldc_, a_, w_, K_, chain_, soon_)                                                                  \
    char *const c_at = (char *)(c_);                                                                                   \
    const char *a_at = (const char *)(a_), *w_at = (const char *)(w_), *soon_at = (const char *)(soon_);               \
    ptrdiff_t left = (K_), n, goes_on = begun;                                                                         \
    const ptrdiff_t ldc_bytes = (ldc_), chain_of = (chain_)
#define ROW_OPERANDS(row_, pace_)                                                                                      \
    , [row] "r"(row_), [row3] "r"(3 * (row_)), [row5] "r"(5 * (row_)), [pace] "r"(pace_)
#define BY_ROWS(R, NV, T, BYTES, c_, ldc_, a_, row_, w_, K_, chain_, soon_, pace_, RARELY)                             \
    do {                                                                                                               \
        OPERANDS(c_, ldc_, a_, w_, K_, chain_, soon_);                                                                 \
        if (RARELY)                                                                                                    \
            TILE_ASM(SUMS(ASK, NOTHING, AT_ROWS, R, NV, T, BYTES, "1"), ROW_OPERANDS(row_, 2 * (pace_)));              \
        else                                                                                                           \
            TILE_ASM(SUMS(ASK, ASK, AT_ROWS, R, NV, T, BYTES, "1"), ROW_OPERANDS(row_, pace_));                        \
    } while (0)
#define BY_STEPS(R, NV, T, BYTES, c_, ldc_, a_, w_, K_, chain_)                                                        \
    do {                                                                                                               \
        OPERANDS(c_, ldc_, a_, w_, K_, chain_, w_);                                                                    \
        TILE_ASM(SUMS(NOTHING, NOTHING, AT_STEPS, R, NV, T, BYTES, #R), );                                             \
    } while (0)

/* What product_impl.h uses; R and NV are constants wherever it is inlined. */
#define V_WRITTEN(R, NV) ((NV) == 2 ? (R) >= 4 && (R) <= 6 : (NV) == 3 && (R) == 4)
#define WITH_SIZE(R, NV, MACRO, ...)                                                                                   \
    do {                                                                                                               \
        if ((R) == 6) MACRO(6, 2, __VA_ARGS__);                                                                        \
        if ((R) == 5) MACRO(5, 2, __VA_ARGS__);                                                                        \
        if ((R) == 4 && (NV) == 2) MACRO(4, 2, __VA_ARGS__);                                                           \
        if ((R) == 4 && (NV) == 3) MACRO(4, 3, __VA_ARGS__);                                                           \
    } while (0)
#define V_BY_ROWS_F32(R, NV, ...) WITH_SIZE(R, NV, BY_ROWS, "s", "4", __VA_ARGS__)
#define V_BY_ROWS_F64(R, NV, ...) WITH_SIZE(R, NV, BY_ROWS, "d", "8", __VA_ARGS__)
#define V_BY_STEPS_F32(R, NV, ...) WITH_SIZE(R, NV, BY_STEPS, "s", "4", __VA_ARGS__)
#define V_BY_STEPS_F64(R, NV, ...) WITH_SIZE(R, NV, BY_STEPS, "d", "8", __VA_ARGS__)
