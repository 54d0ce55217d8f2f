/* The vector type of one instruction set and one float type, and how it is loaded, stored, compared.
 *
 * In:  REAL, INT (the unsigned integer of REAL's width), VL (lanes; 1 means plain scalars), FR(name) (adds a suffix).
 *      Optional, where the instruction set has something better than the portable form below, each measured:
 *      V_LOAD_PART, V_STORE_PART, V_MIN, V_MAX.
 * Out: vec, ivec, and the inline functions load, store, splat, bits, from_bits, vmin, vmax.
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
