/* A step of a variant of a cell: stage by stage, each a pass over a row that stays in the L1 cache, and the way back.
 *
 * What the arrays of a step are is said in fastrnn.h (fr_stage), the equations in fastrnn/reference_variants.py. The
 * plain cells do all of this in one pass (step_impl.h), which is why they have code of their own; here every activation
 * keeps its slope, so that backward needs to know none of them.
 *
 * A: sums along a row are added up lane by lane and then over the lanes: the same for a row in any batch, but with other
 *    bits for other lengths of vectors.
 * B: log(1 + e) = 2 artanh(s), s = e / (2 + e) <= 1/3: its series has fallen below a rounding error after so many terms.
 */
#include <math.h>

#define load FR(load)
#define store FR(store)
#if REAL_BITS == 32
#define LOG_TERMS 7
#else
#define LOG_TERMS 16
#endif

/* --- activations ------------------------------------------------------------------------------------------------ */

/* x < y ? a : b */
static FR_INLINE vec FR(less)(vec x, vec y, vec a, vec b) {
#if VL > 1
    ivec is = (ivec)(x < y);
    return FR(from_bits)((is & FR(bits)(a)) | (~is & FR(bits)(b)));
#else
    return x < y ? a : b;
#endif
}

static FR_INLINE vec FR(softplus)(vec x) {
    const vec zero = FR(splat)(0);
    vec e = FR(vexpm1)(FR(less)(x, zero, x, -x)) + (REAL)1;
    vec s = e / (e + (REAL)2), square = s * s, sum = FR(splat)((REAL)1 / (2 * LOG_TERMS + 1)); /* B */
    for (int k = LOG_TERMS - 1; k >= 0; k--) sum = sum * square + (REAL)1 / (REAL)(2 * k + 1);
    return FR(vmax)(x, 0) + (s + s) * sum;
}

/* The value and the slope at x. */
static FR_INLINE vec FR(act)(const int act, vec x, REAL alpha, REAL beta, vec *slope) {
    const vec zero = FR(splat)(0), one = FR(splat)(1), a = FR(splat)(alpha);
    vec y, t;
    switch (act) {
    case FR_SIGMOID:
        y = FR(vsigmoid)(x);
        *slope = y * (one - y);
        return y;
    case FR_TANH:
        y = FR(vtanh)(x);
        *slope = one - y * y;
        return y;
    case FR_RELU:
        *slope = FR(less)(zero, x, one, zero);
        return FR(vmax)(x, 0);
    case FR_AFFINE:
        *slope = a;
        return x * alpha + beta;
    case FR_LEAKY_RELU:
        *slope = FR(less)(x, zero, a, one);
        return FR(less)(x, zero, x * alpha, x);
    case FR_THRESHOLDED_RELU:
        *slope = FR(less)(x, a, zero, one);
        return FR(less)(x, a, zero, x);
    case FR_SCALED_TANH:
        t = FR(vtanh)(x * beta);
        *slope = (one - t * t) * (alpha * beta);
        return t * alpha;
    case FR_HARD_SIGMOID:
        t = x * alpha + beta;
        *slope = FR(less)(zero, t, FR(less)(t, one, a, zero), zero);
        return FR(vmin)(FR(vmax)(t, 0), 1);
    case FR_ELU:
        t = FR(vexpm1)(FR(vmin)(x, 0)) * alpha;
        *slope = FR(less)(x, zero, t + alpha, one);
        return FR(less)(x, zero, t, x);
    case FR_SOFTSIGN:
        t = one / (FR(less)(x, zero, -x, x) + one);
        *slope = t * t;
        return x * t;
    default: /* FR_SOFTPLUS */
        *slope = FR(vsigmoid)(x);
        return FR(softplus)(x);
    }
}

#define ACT_LOOP(which)                                                                                                \
    case which:                                                                                                        \
        OVER(N, vec x = load(y + j, n), s, v;                                                                          \
             v = FR(act)(which, FR(vmin)(FR(vmax)(x, -clip), clip), alpha, beta, &s); store(y + j, v, n);              \
             if (slope) store(slope + j, FR(less)(FR(less)(x, zero, -x, x), top, s, zero), n););                       \
        break;

/* y (N) <- its activation, after the clip, and unless it is NULL the slope; a clipped one has none. */
static void FR(act_row)(REAL *y, REAL *slope, ptrdiff_t N, const fr_variant *v, int which, int clips) {
    const REAL alpha = (REAL)v->alpha[which], beta = (REAL)v->beta[which];
    const REAL clip = clips ? (REAL)v->clip : (REAL)INFINITY;
    const vec zero = FR(splat)(0), top = FR(splat)(clip);
    switch (v->act[which]) {
        ACT_LOOP(FR_SIGMOID)
        ACT_LOOP(FR_TANH)
        ACT_LOOP(FR_RELU)
        ACT_LOOP(FR_AFFINE)
        ACT_LOOP(FR_LEAKY_RELU)
        ACT_LOOP(FR_THRESHOLDED_RELU)
        ACT_LOOP(FR_SCALED_TANH)
        ACT_LOOP(FR_HARD_SIGMOID)
        ACT_LOOP(FR_ELU)
        ACT_LOOP(FR_SOFTSIGN)
        ACT_LOOP(FR_SOFTPLUS)
    }
}

/* --- layer normalisation ---------------------------------------------------------------------------------------- */

static FR_INLINE REAL FR(add_lanes)(vec v) { /* A */
    REAL lane[VL], sum = 0;
    store(lane, v, VL);
    for (int l = 0; l < VL; l++) sum += lane[l];
    return sum;
}

static void FR(norm_rows)(REAL *y, REAL *normal, REAL *scale, const REAL *gain, const REAL *bias, ptrdiff_t B,
                          ptrdiff_t N, double epsilon) {
    for (ptrdiff_t b = 0; b < B; b++) {
        REAL *row = y + b * N;
        vec sum = FR(splat)(0), squares = FR(splat)(0);
        OVER(N, sum += load(row + j, n););
        const REAL mean = FR(add_lanes)(sum) / (REAL)N;
        OVER(N, vec d = load(row + j, n) - mean; store(row + j, d, n);
             if (n < VL) d = load(row + j, n); /* zeros behind */
             squares += d * d;);
        const REAL s = 1 / (REAL)sqrt((double)(FR(add_lanes)(squares) / (REAL)N + (REAL)epsilon));
        if (scale) scale[b] = s;
        OVER(N, store(row + j, load(row + j, n) * s, n););
        if (normal) memcpy(normal + b * N, row, (size_t)N * sizeof(REAL));
        /* A loop of its own, so that the product above is rounded whether it is kept or not. */
        OVER(N, vec d = load(row + j, n); if (gain) d *= load(gain + j, n); if (bias) d += load(bias + j, n);
             store(row + j, d, n););
    }
}

static void FR(norm_back)(REAL *dx, const REAL *d, const REAL *normal, const REAL *scale, const REAL *gain, ptrdiff_t B,
                          ptrdiff_t N) {
    for (ptrdiff_t b = 0; b < B; b++) {
        const REAL *from = d + b * N, *x = normal + b * N;
        REAL *to = dx + b * N;
        vec sum = FR(splat)(0), products = FR(splat)(0);
        OVER(N, vec g = load(from + j, n); if (gain) g *= load(gain + j, n); sum += g;
             products += g * load(x + j, n););
        const REAL mean = FR(add_lanes)(sum) / (REAL)N, along = FR(add_lanes)(products) / (REAL)N;
        OVER(N, vec g = load(from + j, n); if (gain) g *= load(gain + j, n);
             store(to + j, (g - mean - load(x + j, n) * along) * scale[b], n););
    }
}

/* --- a step forward --------------------------------------------------------------------------------------------- */

/* a (N) += b c */
static FR_INLINE void FR(add_product)(REAL *a, const REAL *b, const REAL *c, ptrdiff_t N) {
    OVER(N, store(a + j, load(a + j, n) + load(b + j, n) * load(c + j, n), n););
}

/* a (N) += b + c */
static FR_INLINE void FR(add_both)(REAL *a, const REAL *b, const REAL *c, ptrdiff_t N) {
    OVER(N, store(a + j, load(a + j, n) + load(b + j, n) + load(c + j, n), n););
}

static void FR(lstm_stage)(const fr_stage *s, const fr_variant *v, ptrdiff_t b) {
    const ptrdiff_t H = s->H;
    const REAL *bias = s->bias, *product = (const REAL *)s->product + b * 4 * H, *peep = v->peepholes;
    const REAL *c_prev = (const REAL *)s->c_prev + b * H;
    REAL *i = (REAL *)s->gates + b * 4 * H, *f = i + H, *g = f + H, *o = g + H;
    REAL *slope = s->slopes ? (REAL *)s->slopes + b * 4 * H : NULL, *h = (REAL *)s->h + b * s->ldh;
    REAL *c = (REAL *)s->c + b * H, *outer = (REAL *)s->outer + b * H;
    FR(add_both)(i, product, bias, 4 * H);
    if (peep) FR(add_product)(i, peep, c_prev, H);
    if (v->coupled) {
        FR(act_row)(i, slope, H, v, 0, 1);
        OVER(H, store(f + j, (REAL)1 - load(i + j, n), n););
    } else {
        if (peep) FR(add_product)(f, peep + H, c_prev, H);
        FR(act_row)(i, slope, 2 * H, v, 0, 1);
    }
    FR(act_row)(g, slope ? slope + 2 * H : NULL, H, v, 1, 1);
    OVER(H, vec new = load(f + j, n) * load(c_prev + j, n) + load(i + j, n) * load(g + j, n); store(c + j, new, n);
         store(outer + j, new, n););
    if (peep) FR(add_product)(o, peep + 2 * H, c, H);
    FR(act_row)(o, slope ? slope + 3 * H : NULL, H, v, 0, 1);
    if (v->normalises_c)
        FR(norm_rows)(outer, s->normal ? (REAL *)s->normal + b * H : NULL, s->scale ? (REAL *)s->scale + b : NULL,
                      v->norm_c, v->norm_c_bias, 1, H, v->epsilon);
    FR(act_row)(outer, s->outer_slope ? (REAL *)s->outer_slope + b * H : NULL, H, v, 2, 0);
    OVER(H, store(h + j, load(o + j, n) * load(outer + j, n), n););
}

static void FR(gru_stage)(const fr_stage *s, const fr_variant *v, ptrdiff_t b) {
    const ptrdiff_t H = s->H;
    const REAL *bias = s->bias, *product = (const REAL *)s->product + b * 3 * H;
    const REAL *h_prev = (const REAL *)s->h_prev + b * s->ld_prev;
    REAL *r = (REAL *)s->gates + b * 3 * H, *z = r + H, *n_gate = z + H, *hn = (REAL *)s->extra + b * H;
    REAL *slope = s->slopes ? (REAL *)s->slopes + b * 3 * H : NULL, *h = (REAL *)s->h + b * s->ldh;
    FR(add_both)(r, product, bias, 2 * H);
    FR(act_row)(r, slope, 2 * H, v, 0, 1);
    OVER(H, vec recurrent = load(product + 2 * H + j, n) + load(bias + 3 * H + j, n); store(hn + j, recurrent, n);
         store(n_gate + j, load(n_gate + j, n) + load(bias + 2 * H + j, n) + load(r + j, n) * recurrent, n););
    FR(act_row)(n_gate, slope ? slope + 2 * H : NULL, H, v, 1, 1);
    OVER(H, vec new = load(n_gate + j, n);
         store(h + j, new + load(z + j, n) * (load(h_prev + j, n) - new), n););
}

static void FR(gru_reset_stage)(const fr_stage *s, const fr_variant *v, ptrdiff_t b) {
    const ptrdiff_t H = s->H;
    const REAL *h_in = (const REAL *)s->h_in + b * s->ld_in;
    REAL *r = (REAL *)s->gates + b * 3 * H, *rh = (REAL *)s->extra + b * H;
    FR(add_both)(r, (const REAL *)s->product + b * 2 * H, s->bias, 2 * H);
    FR(act_row)(r, s->slopes ? (REAL *)s->slopes + b * 3 * H : NULL, 2 * H, v, 0, 1);
    OVER(H, store(rh + j, load(r + j, n) * load(h_in + j, n), n););
}

static void FR(gru_update_stage)(const fr_stage *s, const fr_variant *v, ptrdiff_t b) {
    const ptrdiff_t H = s->H;
    const REAL *bias = (const REAL *)s->bias + 2 * H, *h_prev = (const REAL *)s->h_prev + b * s->ld_prev;
    REAL *z = (REAL *)s->gates + b * 3 * H + H, *n_gate = z + H, *h = (REAL *)s->h + b * s->ldh;
    FR(add_both)(n_gate, (const REAL *)s->product + b * H, bias, H);
    OVER(H, store(n_gate + j, load(n_gate + j, n) + load(bias + H + j, n), n););
    FR(act_row)(n_gate, s->slopes ? (REAL *)s->slopes + b * 3 * H + 2 * H : NULL, H, v, 1, 1);
    OVER(H, vec new = load(n_gate + j, n);
         store(h + j, new + load(z + j, n) * (load(h_prev + j, n) - new), n););
}

static void FR(rnn_stage)(const fr_stage *s, const fr_variant *v, ptrdiff_t b) {
    const ptrdiff_t H = s->H;
    REAL *a = (REAL *)s->gates + b * H, *h = (REAL *)s->h + b * s->ldh;
    FR(add_both)(a, (const REAL *)s->product + b * H, s->bias, H);
    FR(act_row)(a, s->slopes ? (REAL *)s->slopes + b * H : NULL, H, v, 0, 1);
    OVER(H, store(h + j, load(a + j, n), n););
}

static void FR(stage)(const fr_stage *s, const fr_variant *v, int cell) {
    for (ptrdiff_t b = 0; b < s->B; b++) {
        switch (cell) {
        case FR_LSTM: FR(lstm_stage)(s, v, b); break;
        case FR_GRU: FR(gru_stage)(s, v, b); break;
        case FR_GRU_RESET: FR(gru_reset_stage)(s, v, b); break;
        case FR_GRU_UPDATE: FR(gru_update_stage)(s, v, b); break;
        default: FR(rnn_stage)(s, v, b);
        }
    }
}

/* --- a step backward -------------------------------------------------------------------------------------------- */

static void FR(lstm_stage_back)(const fr_stage *s, const fr_variant *v, ptrdiff_t b) {
    const ptrdiff_t H = s->H;
    const REAL *slope = (const REAL *)s->slopes + b * 4 * H, *c_prev = (const REAL *)s->c_prev + b * H;
    const REAL *peep = v->peepholes, *dh = (const REAL *)s->dh + b * H, *outer = (const REAL *)s->outer + b * H;
    const int coupled = v->coupled;
    REAL *i = (REAL *)s->gates + b * 4 * H, *f = i + H, *g = f + H, *o = g + H;
    REAL *dc = (REAL *)s->dc + b * H, *dinner = (REAL *)s->outer_slope + b * H, *inner = dinner;
    OVER(H, vec d = load(dh + j, n); store(dinner + j, d * load(o + j, n) * load(dinner + j, n), n);
         store(o + j, d * load(outer + j, n) * load(slope + 3 * H + j, n), n););
    if (v->normalises_c) { /* d of what was normalised takes the place of what is not needed any more */
        inner = (REAL *)s->outer + b * H;
        FR(norm_back)(inner, dinner, (const REAL *)s->normal + b * H, (const REAL *)s->scale + b, v->norm_c, 1, H);
    }
    OVER(H, vec d = load(dc + j, n) + load(inner + j, n); if (peep) d += load(peep + 2 * H + j, n) * load(o + j, n);
         vec i_was = load(i + j, n), f_was = load(f + j, n), g_was = load(g + j, n), before = load(c_prev + j, n);
         vec di = (coupled ? g_was - before : g_was) * d * load(slope + j, n);
         vec df = coupled ? FR(splat)(0) : d * before * load(slope + H + j, n); vec past = d * f_was;
         if (peep) past += di * load(peep + j, n) + df * load(peep + H + j, n);
         store(i + j, di, n); store(f + j, df, n); store(g + j, d * i_was * load(slope + 2 * H + j, n), n);
         store(dc + j, past, n););
}

static void FR(gru_stage_back)(const fr_stage *s, ptrdiff_t b) {
    const ptrdiff_t H = s->H;
    const REAL *slope = (const REAL *)s->slopes + b * 3 * H, *h_prev = (const REAL *)s->h_prev + b * s->ld_prev;
    const REAL *hn = (const REAL *)s->extra + b * H;
    REAL *r = (REAL *)s->gates + b * 3 * H, *z = r + H, *n_gate = z + H, *recurrent = (REAL *)s->drecurrent + b * 3 * H;
    REAL *dh = (REAL *)s->dh + b * H;
    OVER(H, vec d = load(dh + j, n), z_was = load(z + j, n), r_was = load(r + j, n), new = load(n_gate + j, n);
         vec dn = d * ((REAL)1 - z_was) * load(slope + 2 * H + j, n);
         vec dz = d * (load(h_prev + j, n) - new) * load(slope + H + j, n);
         vec dr = dn * load(hn + j, n) * load(slope + j, n);
         store(r + j, dr, n); store(z + j, dz, n); store(n_gate + j, dn, n); store(recurrent + j, dr, n);
         store(recurrent + H + j, dz, n); store(recurrent + 2 * H + j, dn * r_was, n);
         store(dh + j, d * z_was, n););
}

static void FR(gru_update_back)(const fr_stage *s, ptrdiff_t b) {
    const ptrdiff_t H = s->H;
    const REAL *slope = (const REAL *)s->slopes + b * 3 * H, *h_prev = (const REAL *)s->h_prev + b * s->ld_prev;
    REAL *z = (REAL *)s->gates + b * 3 * H + H, *n_gate = z + H, *dh = (REAL *)s->dh + b * H;
    REAL *dn = (REAL *)s->drecurrent + b * H;
    OVER(H, vec d = load(dh + j, n), z_was = load(z + j, n), new = load(n_gate + j, n);
         vec d_new = d * ((REAL)1 - z_was) * load(slope + 2 * H + j, n);
         store(z + j, d * (load(h_prev + j, n) - new) * load(slope + H + j, n), n);
         store(n_gate + j, d_new, n); store(dn + j, d_new, n); store(dh + j, d * z_was, n););
}

static void FR(gru_reset_back)(const fr_stage *s, ptrdiff_t b) {
    const ptrdiff_t H = s->H;
    const REAL *slope = (const REAL *)s->slopes + b * 3 * H, *h_in = (const REAL *)s->h_in + b * s->ld_in;
    REAL *r = (REAL *)s->gates + b * 3 * H, *rz = (REAL *)s->drecurrent + b * 2 * H, *drh = (REAL *)s->product + b * H;
    OVER(H, vec d = load(drh + j, n), r_was = load(r + j, n);
         vec dr = d * load(h_in + j, n) * load(slope + j, n);
         store(r + j, dr, n); store(rz + j, dr, n); store(rz + H + j, load(r + H + j, n), n);
         store(drh + j, d * r_was, n););
}

static void FR(stage_back)(const fr_stage *s, const fr_variant *v, int cell) {
    for (ptrdiff_t b = 0; b < s->B; b++) {
        switch (cell) {
        case FR_LSTM: FR(lstm_stage_back)(s, v, b); break;
        case FR_GRU: FR(gru_stage_back)(s, b); break;
        case FR_GRU_UPDATE: FR(gru_update_back)(s, b); break;
        case FR_GRU_RESET: FR(gru_reset_back)(s, b); break;
        default: {
            REAL *a = (REAL *)s->gates + b * s->H;
            const REAL *dh = (const REAL *)s->dh + b * s->H, *slope = (const REAL *)s->slopes + b * s->H;
            OVER(s->H, store(a + j, load(dh + j, n) * load(slope + j, n), n););
        }
        }
    }
}

/* --- zoneout and masks ------------------------------------------------------------------------------------------ */

/* How much of an element stays: of an array, or the same everywhere. */
#define KEEP(b) (keep ? load(keep + (b)*N + j, n) : FR(splat)((REAL)always))

static void FR(zone_out)(REAL *y, ptrdiff_t ldy, const REAL *before, ptrdiff_t ldb, const REAL *keep, double always,
                         ptrdiff_t B, ptrdiff_t N) {
    for (ptrdiff_t b = 0; b < B; b++)
        OVER(N, vec stays = KEEP(b), new = load(y + b * ldy + j, n);
             store(y + b * ldy + j, stays * load(before + b * ldb + j, n) + ((REAL)1 - stays) * new, n););
}

static void FR(zone_back)(REAL *past, REAL *d, const REAL *keep, double always, ptrdiff_t B, ptrdiff_t N) {
    for (ptrdiff_t b = 0; b < B; b++)
        OVER(N, vec stays = KEEP(b), all = load(d + b * N + j, n); store(past + b * N + j, stays * all, n);
             store(d + b * N + j, ((REAL)1 - stays) * all, n););
}

static void FR(times)(REAL *y, const REAL *x, ptrdiff_t ldx, const REAL *mask, ptrdiff_t B, ptrdiff_t N, int add) {
    for (ptrdiff_t b = 0; b < B; b++)
        OVER(N, vec p = load(x + b * ldx + j, n); if (mask) p *= load(mask + b * N + j, n);
             store(y + b * N + j, add ? load(y + b * N + j, n) + p : p, n););
}

static void FR(sum_products)(REAL *y, const REAL *a, ptrdiff_t lda, const REAL *b, ptrdiff_t ldb, ptrdiff_t K,
                             ptrdiff_t N, int add) {
    OVER(N, vec total = FR(splat)(0);
         for (ptrdiff_t k = 0; k < K;) { /* in blocks, as everything is summed here */
             const ptrdiff_t end = K - k > 64 ? k + 64 : K;
             vec sum = FR(splat)(0);
             for (; k < end; k++) sum += load(a + k * lda + j, n) * load(b + k * ldb + j, n);
             total += sum;
         } store(y + j, add ? load(y + j, n) + total : total, n););
}

#undef load
#undef store
#undef LOG_TERMS
#undef ACT_LOOP
#undef KEEP
