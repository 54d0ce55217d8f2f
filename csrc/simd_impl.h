/* The vector type of one instruction set and one float type, and how it is loaded, stored, compared.
 *
 * In:  REAL, INT (the unsigned integer of REAL's width), VL (lanes; 1 means plain scalars), FR(name) (adds a suffix).
 *      Optional, where the instruction set has something better than the portable form below, each measured:
 *      V_LOAD_PART, V_STORE_PART, V_MIN, V_MAX.
 * Out: vec, ivec, OVER, and the inline functions load, store, splat, bits, from_bits, transpose, vmin, vmax.
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

/* The lanes of the lower (higher) halves of a and b side by side: a0 b0 a1 b1 .. With 32-byte vectors it is the halves of each
 * 16 bytes, one instruction instead of two, and there is SWAP: those of a, then those of b. */
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
#elif VL == 2
#define LOW 0, 2
#define HIGH 1, 3
#elif VL == 4
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#elif VL == 8
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#elif VL == 16
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
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
    vec t[VL];
#ifdef SWAP_LOW
    enum { PART = VL / 2 };
    FR_UNROLL for (int l = 0; l < PART; l++) {
        t[l] = SWAP_LOW(v[l], v[l + PART]);
        t[l + PART] = SWAP_HIGH(v[l], v[l + PART]);
    }
    FR_UNROLL for (int l = 0; l < VL; l++) v[l] = t[l];
#else
    enum { PART = VL };
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
