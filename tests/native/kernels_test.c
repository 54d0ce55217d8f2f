/* Every function of every table that this CPU runs, in both float types, against the same function written naively.
 *
 *     kernels_test [table ...]     of these tables alone; fails when one of them does not run here
 *
 * The kernels' arrays lie between two pages that must not be touched, flush with the one before or with the one behind:
 * a single number read or written outside stops the test at once, and no alignment is taken for granted.
 * A new function of the table: its equations in naive.h, and a line or two in FR(check) of checks_impl.h.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <float.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "naive.h"

#define ARRAYS 13      /* arrays of one check, at most */
#define ROOM (1 << 23) /* numbers in one of them, at most */
#define COUNT(a) (int)(sizeof(a) / sizeof *(a))

static const char *table_name;
static ptrdiff_t B, H, K;
static int at_end, with_nan, checks;
static char where[200];
static char *slot[ARRAYS];
static double *want[ARRAYS];

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "FAILED %s: ", where);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    _Exit(1);
}

static void outside(int number) { fail("touched memory outside of its arrays (signal %d)", number); }

static char *guarded(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *memory = mmap(NULL, bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + page, bytes, PROT_READ | PROT_WRITE)) fail("no memory");
    return memory + page;
}

/* In [-1, 1) and the same in float and double; now and then NaN, when asked for. */
static double some_number(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    if (with_nan && state >> 60 == 0) return NAN;
    return (double)((int32_t)(state >> 40) - (1 << 23)) / (1 << 23);
}

#define UNPACK(...) __VA_ARGS__
#define CHECK(WHAT, LENGTHS, ...)                                                                                      \
    do {                                                                                                               \
        const ptrdiff_t lengths[] = {UNPACK LENGTHS};                                                                  \
        FR(prepare)(WHAT, lengths, COUNT(lengths));                                                                    \
        {                                                                                                              \
            const fr_kernels_f64 *k = &naive;                                                                          \
            double **x = want;                                                                                         \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
        {                                                                                                              \
            const KERNELS *k = kernels;                                                                                \
            REAL **x = FR(got);                                                                                        \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
        FR(compare)(lengths, COUNT(lengths));                                                                          \
    } while (0)

/* For the calls of a CHECK, so in both types. */
#define SPAN(rows, ld, n) ((rows) ? ((rows) - 1) * (ld) + (n) : 0)
#define BLANK(p, from, to) for (ptrdiff_t at = (from); at < (to); at++) (p)[at] = NAN
#define GAPS(p, rows, ld, n)                                                                                           \
    for (ptrdiff_t row = 1; row < (rows); row++) BLANK(p, (row - 1) * (ld) + (n), row * (ld))
#define SPREAD(p, n) /* to where the activations saturate, and beyond */                                               \
    for (ptrdiff_t at = 0; at < (n); at++) (p)[at] = at > 1 ? (p)[at] * 64 : at ? -INFINITY : INFINITY
#define SAME_BITS(p, q, n)                                                                                             \
    for (ptrdiff_t at = 0; at < (n); at++) {                                                                           \
        if (memcmp((p) + at, (q) + at, sizeof *(p)) && !(isnan((p)[at]) && isnan((q)[at])))                            \
            fail("number %td has other bits in the batch", at);                                                        \
    }

#define REAL float
#define KERNELS fr_kernels_f32
#define FR(name) name##_f32
#include "checks_impl.h"
#undef REAL
#undef KERNELS
#undef FR
#define REAL double
#define KERNELS fr_kernels_f64
#define FR(name) name##_f64
#include "checks_impl.h"

/* What is read is combined by exclusive or: in which lanes is up to the table, but not the lanes all together. */
static void check_probe(const fr_table *table) {
    uint32_t sum = 0, *sink = (uint32_t *)(slot[0] + ROOM * sizeof(double)) - 16;
    snprintf(where, sizeof where, "%s probe", table_name);
    for (ptrdiff_t n = 0; n < 4 * FR_PROBE_FLOATS; n += FR_PROBE_FLOATS) {
        uint32_t *x = (uint32_t *)(slot[1] + ROOM * sizeof(double)) - n;
        memset(sink, 0, 64);
        for (ptrdiff_t i = 0; i < n; i++) sum ^= x[i] = (uint32_t)i * 2654435761u;
        table->probe_read((float *)sink, (float *)x, n, 3, n & FR_PROBE_FLOATS);
        for (int i = 0; i < 16; i++) sum ^= sink[i];
        if (sum) fail("has not read each number, or some twice");
        if (table->probe_fma((float *)sink, n + 1) <= n) fail("too few multiply-adds");
    }
}

int main(int argc, char **argv) {
    signal(SIGSEGV, outside);
    signal(SIGBUS, outside);
    for (int i = 0; i < ARRAYS; i++) {
        slot[i] = guarded(ROOM * sizeof(double));
        want[i] = (double *)guarded(ROOM * sizeof(double));
    }
    int count;
    const fr_table *const *tables = fr_tables(&count);
    for (int a = 1; a < argc; a++) {
        int there = 0;
        for (int t = 0; t < count; t++) there |= strcmp(argv[a], tables[t]->name) == 0;
        snprintf(where, sizeof where, "%s", argv[a]);
        if (!there) fail("no such table here");
    }
    for (int t = 0; t < count; t++) {
        int wanted = argc == 1;
        for (int a = 1; a < argc; a++) wanted |= strcmp(argv[a], tables[t]->name) == 0;
        if (!wanted) continue;
        table_name = tables[t]->name;
        check_probe(tables[t]);
        check_sizes_f32(&tables[t]->f32);
        check_sizes_f64(&tables[t]->f64);
    }
    return 0;
}
