/* What a decoder does between its cells' steps: a row's softmax, and attention over a source.
 *
 * A: sums are added up lane by lane and then over the lanes, and each row by itself: the same in any batch, but with
 *    other bits for other lengths of vectors.
 * B: behind the end of a row there are zeros, of v and of the values too, which add nothing.
 */
#define load FR(load)
#define store FR(store)

static double FR(exp_row)(REAL *y, const REAL *x, ptrdiff_t N, double top, double scale) {
    vec sum = FR(splat)(0); /* A */
    OVER(N, vec e = FR(vexp)((load(x + j, n) - (REAL)top) * (REAL)scale); store(y + j, e, n);
         if (n < VL) e = load(y + j, n); /* exp(0) is 1 */
         sum += e;);
    return FR(add_lanes)(sum);
}

static void FR(attend)(REAL *context, REAL *weights, const REAL *query, const REAL *v, const REAL *keys,
                       const REAL *values, ptrdiff_t S, ptrdiff_t A, ptrdiff_t E) {
    REAL top = 0;
    for (ptrdiff_t s = 0; s < S; s++) {
        const REAL *key = keys + s * A;
        vec sum = FR(splat)(0);
        if (v)
            OVER(A, sum += load(v + j, n) * FR(vtanh)(load(query + j, n) + load(key + j, n));); /* B */
        else
            OVER(A, sum += load(query + j, n) * load(key + j, n););
        weights[s] = FR(add_lanes)(sum);
        if (s == 0 || weights[s] > top) top = weights[s];
    }
    const REAL total = (REAL)FR(exp_row)(weights, weights, S, top, 1);
    for (ptrdiff_t s = 0; s < S; s++) weights[s] /= total;
    OVER(E, vec sum = FR(splat)(0); for (ptrdiff_t s = 0; s < S; s++) sum += weights[s] * load(values + s * E + j, n);
         store(context + j, sum, n););
}

#undef load
#undef store
