/* Which tables this CPU can run. */
#include "fastrnn.h"

#if FR_X86_VECTORS
/* __builtin_cpu_supports also asks whether the operating system saves the registers. */
static int cpu_has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static int cpu_has_avx512(void) {
    return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

const fr_table *const *fr_tables(int *count) {
    /* Filled anew at each call with the same values: two threads here at once write the same. */
    static const fr_table *usable[4];
    int n = 0;
#if FR_X86_VECTORS
    __builtin_cpu_init();
    if (fr_table_avx512 && cpu_has_avx512()) usable[n++] = fr_table_avx512;
    if (fr_table_avx2 && cpu_has_avx2()) usable[n++] = fr_table_avx2;
#endif
    if (fr_table_neon) usable[n++] = fr_table_neon;
    usable[n++] = fr_table_baseline;
    *count = n;
    return usable;
}
