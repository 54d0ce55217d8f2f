/* The vector type of one instruction set and one float type, and how it is loaded, stored, compared.
 *
 * In:  REAL, INT (the unsigned integer of REAL's width), VL (lanes; 1 means plain scalars), FR(name) (adds a suffix).
 *      Optional, where the instruction set has something better than the portable form below, each measured:
 *      V_LOAD_PART, V_STORE_PART, V_MIN, V_MAX; V_STREAM and V_STREAMED where a vector is a line of the caches.
 * Out: vec, ivec, OVER, and the inline functions load, store, streams, put, streamed, splat, bits, from_bits, transpose, vmin, vmax.
 */
#if VL > 1
typedef REAL FR(vec) __attribute__((vector_size(VL * sizeof(REAL))));
typedef INT FR(ivec) __attribute__((vector_size(VL * sizeof(REAL))));
/* The same vector as it lies in an array: with a scalar's alignment, and allowed to alias it. */
typedef REAL FR(vec_in_array) __attribute__((vector_size(VL * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#else
typedef REAL FR(vec);
typedef INT FR(ivec);
typedef REAL FR(vec_in_array);
#endif
#define vec FR(vec)
#define ivec FR(ivec)

/* n lanes from p, n in 1..VL, zeros behind. n is a constant VL in every main loop, so the branch goes away. */
static FR_INLINE vec FR(load)(const REAL *p, ptrdiff_t n) {
    if (n == VL) return *(const FR(vec_in_array) *)p;
#ifdef V_LOAD_PART
    return V_LOAD_PART(p, n);
#else
    union { vec v; REAL lane[VL]; } u;
    for (ptrdiff_t k = 0; k < VL; k++) u.lane[k] = k < n ? p[k] : 0;
    return u.v;
#endif
}

static FR_INLINE void FR(store)(REAL *p, vec v, ptrdiff_t n) {
    if (n == VL) {
        *(FR(vec_in_array) *)p = v;
        return;
    }
#ifdef V_STORE_PART
    V_STORE_PART(p, v, n);
#else
    union { vec v; REAL lane[VL]; } u;
    u.v = v;
    for (ptrdiff_t k = 0; k < n; k++) p[k] = u.lane[k];
#endif
}

/* The same past the caches, for a vector that is a line of them, where there are such. `streamed` comes after the last one. */
static FR_INLINE int FR(streams)(const REAL *p) {
#ifdef V_STREAM
    return (uintptr_t)p % sizeof(vec) == 0;
#else
    return (void)p, 0;
#endif
}

static FR_INLINE void FR(put)(REAL *p, vec v, int stream) {
#ifdef V_STREAM
    if (stream) {
        V_STREAM(p, v);
        return;
    }
#endif
    (void)stream;
    FR(store)(p, v, VL);
}

static FR_INLINE void FR(streamed)(void) {
#ifdef V_STREAM
    V_STREAMED();
#endif
}

static FR_INLINE ivec FR(bits)(vec v) {
    ivec r;
    memcpy(&r, &v, sizeof r);
    return r;
}

static FR_INLINE vec FR(from_bits)(ivec v) {
    vec r;
    memcpy(&r, &v, sizeof r);
    return r;
}

static FR_INLINE vec FR(splat)(REAL a) {
#if VL > 1
    return a - (vec){0};
#else
    return a;
#endif
}

/* The lanes of the lower (higher) halves of a and b side by side: a0 b0 a1 b1 .. With 32 and 64 bytes it is the halves of each
 * 16 bytes, one instruction that needs no table of lanes, and before come rounds with whole 16 bytes: SWAP, the first
 * (second) of each pair of a, and of b after each; and with 64 bytes HALVES, the first (second) half of a, then of b. A square
 * of 16 by 16 floats in two vectors' zips throughout took 1.1 to 1.3 times as long (Zen 4). */
#if VL * REAL_BITS == 256 && REAL_BITS == 32
#define LOW 0, 8, 1, 9, 4, 12, 5, 13
#define HIGH 2, 10, 3, 11, 6, 14, 7, 15
#define SWAP_LOW(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define SWAP_HIGH(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#elif VL * REAL_BITS == 256
#define LOW 0, 4, 2, 6
#define HIGH 1, 5, 3, 7
#define SWAP_LOW(a, b) SHUFFLE(a, b, 0, 1, 4, 5)
#define SWAP_HIGH(a, b) SHUFFLE(a, b, 2, 3, 6, 7)
#elif VL * REAL_BITS == 512 && REAL_BITS == 32
#define LOW 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define HIGH 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define SWAP_LOW(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
#define SWAP_HIGH(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31)
#define HALVES_LOW(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define HALVES_HIGH(a, b) SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
#elif VL * REAL_BITS == 512
#define LOW 0, 8, 2, 10, 4, 12, 6, 14
#define HIGH 1, 9, 3, 11, 5, 13, 7, 15
#define SWAP_LOW(a, b) SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define SWAP_HIGH(a, b) SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#define HALVES_LOW(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define HALVES_HIGH(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#elif VL == 2
#define LOW 0, 2
#define HIGH 1, 3
#elif VL == 4
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#endif
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif
#define ZIP_LOW(a, b) SHUFFLE(a, b, LOW)
#define ZIP_HIGH(a, b) SHUFFLE(a, b, HIGH)

#if VL > 1
/* Rows of a square become its columns, in log2(VL) rounds of two vectors each. */
static FR_INLINE void FR(transpose)(vec *v) {
    enum { PART = VL * REAL_BITS < 256 ? VL : 128 / REAL_BITS };
    vec t[VL];
#ifdef HALVES_LOW
    FR_UNROLL for (int l = 0; l < VL / 2; l++) {
        t[l] = HALVES_LOW(v[l], v[l + VL / 2]);
        t[l + VL / 2] = HALVES_HIGH(v[l], v[l + VL / 2]);
    }
    FR_UNROLL_ALL for (int l = 0; l < VL; l++) v[l] = t[l];
#endif
#ifdef SWAP_LOW
    FR_UNROLL for (int first = 0; first < VL; first += 2 * PART)
        FR_UNROLL for (int l = first; l < first + PART; l++) {
            t[l] = SWAP_LOW(v[l], v[l + PART]);
            t[l + PART] = SWAP_HIGH(v[l], v[l + PART]);
        }
    FR_UNROLL_ALL for (int l = 0; l < VL; l++) v[l] = t[l];
#endif
    FR_UNROLL for (int done = 1; done < PART; done *= 2) {
        FR_UNROLL for (int first = 0; first < VL; first += PART)
            FR_UNROLL for (int l = 0; l < PART / 2; l++) {
                t[first + 2 * l] = ZIP_LOW(v[first + l], v[first + l + PART / 2]);
                t[first + 2 * l + 1] = ZIP_HIGH(v[first + l], v[first + l + PART / 2]);
            }
        FR_UNROLL_ALL for (int l = 0; l < VL; l++) v[l] = t[l];
    }
}
#endif

/* The smaller (larger) of x and a bound; x itself when x is NaN, so that a NaN is never clamped away. */
static FR_INLINE vec FR(vmin)(vec x, REAL bound) {
#ifdef V_MIN
    return V_MIN(FR(splat)(bound), x);
#elif VL > 1
    vec top = FR(splat)(bound);
    ivec over = (ivec)(x > top);
    return FR(from_bits)((over & FR(bits)(top)) | (~over & FR(bits)(x)));
#else
    return x > bound ? bound : x;
#endif
}

static FR_INLINE vec FR(vmax)(vec x, REAL bound) {
#ifdef V_MAX
    return V_MAX(FR(splat)(bound), x);
#elif VL > 1
    vec bottom = FR(splat)(bound);
    ivec under = (ivec)(x < bottom);
    return FR(from_bits)((under & FR(bits)(bottom)) | (~under & FR(bits)(x)));
#else
    return x < bound ? bound : x;
#endif
}

/* The body for up to VL of N numbers from j on, with a constant n wherever there are VL. */
#define OVER(N, ...)                                                                                                   \
    do {                                                                                                               \
        ptrdiff_t j = 0;                                                                                               \
        for (; j + VL <= (N); j += VL) {                                                                               \
            const ptrdiff_t n = VL;                                                                                    \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
        if (j < (N)) {                                                                                                 \
            const ptrdiff_t n = (N) - j;                                                                               \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    } while (0)
