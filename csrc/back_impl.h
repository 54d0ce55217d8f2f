/* The element-wise part of one step back of each cell: everything but the matrix products.
 * What each function takes and gives is said in fastrnn.h; the equations are those of fastrnn/reference.py.
 *
 * Each function is a body for up to VL units of one row, and OVER_ROWS, which calls it with a constant VL along the
 * row and once more for what is left, so that the tail costs one pass with partial loads and no second copy.
 */
#define load FR(load)
#define store FR(store)
#define OVER_ROWS(BODY)                                                                                                \
    for (ptrdiff_t b = 0; b < B; b++) {                                                                                \
        ptrdiff_t j = first;                                                                                           \
        for (; j + VL <= last; j += VL) { const ptrdiff_t n = VL; BODY }                                               \
        if (j < last) { const ptrdiff_t n = last - j; BODY }                                                           \
    }

/* --- RNN ------------------------------------------------------------------------------------------------------- */

static void FR(rnn_dgates)(REAL *dpre, const REAL *dh, const REAL *dy, const REAL *h, ptrdiff_t B, ptrdiff_t H,
                           ptrdiff_t first, ptrdiff_t last, int relu) {
    if (relu) {
        for (ptrdiff_t b = 0; b < B; b++)
            for (ptrdiff_t k = b * H + first; k < b * H + last; k++) dpre[k] = h[k] > 0 ? dh[k] + dy[k] : 0;
    } else {
        OVER_ROWS({
            const ptrdiff_t k = b * H + j;
            vec y = load(h + k, n);
            store(dpre + k, (load(dh + k, n) + load(dy + k, n)) * ((REAL)1 - y * y), n);
        })
    }
}

/* --- LSTM ------------------------------------------------------------------------------------------------------ */

static void FR(lstm_dgates)(REAL *gates, ptrdiff_t ldg, REAL *dc, const REAL *dh, const REAL *dy, const REAL *c,
                            const REAL *c_prev, ptrdiff_t B, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last) {
    OVER_ROWS({
        REAL *row = gates + b * ldg + j;
        const ptrdiff_t k = b * H + j;
        vec i = load(row, n);
        vec f = load(row + H, n);
        vec g = load(row + 2 * H, n);
        vec o = load(row + 3 * H, n);
        vec tanh_c = FR(vtanh)(load(c + k, n));
        vec dh_all = load(dh + k, n) + load(dy + k, n);
        vec dc_all = load(dc + k, n) + dh_all * o * ((REAL)1 - tanh_c * tanh_c);
        store(row, dc_all * g * i * ((REAL)1 - i), n);
        store(row + H, dc_all * load(c_prev + k, n) * f * ((REAL)1 - f), n);
        store(row + 2 * H, dc_all * i * ((REAL)1 - g * g), n);
        store(row + 3 * H, dh_all * tanh_c * o * ((REAL)1 - o), n);
        store(dc + k, dc_all * f, n);
    })
}

/* --- GRU, reset after the product ------------------------------------------------------------------------------ */

static void FR(gru_dgates)(REAL *gates, ptrdiff_t ldg, REAL *hn, REAL *dh, const REAL *dy, const REAL *h_prev,
                           ptrdiff_t B, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last) {
    OVER_ROWS({
        REAL *row = gates + b * ldg + j;
        const ptrdiff_t k = b * H + j;
        vec r = load(row, n);
        vec z = load(row + H, n);
        vec n_gate = load(row + 2 * H, n);
        vec dh_all = load(dh + k, n) + load(dy + k, n);
        vec dn = dh_all * ((REAL)1 - z) * ((REAL)1 - n_gate * n_gate);
        store(row, dn * load(hn + k, n) * r * ((REAL)1 - r), n);
        store(row + H, dh_all * (load(h_prev + k, n) - n_gate) * z * ((REAL)1 - z), n);
        store(row + 2 * H, dn, n);
        store(hn + k, dn * r, n);
        store(dh + k, dh_all * z, n);
    })
}

/* --- GRU, reset before the product ----------------------------------------------------------------------------- */

static void FR(gru_dupdate)(REAL *gates, ptrdiff_t ldg, REAL *dh, const REAL *dy, const REAL *h_prev, ptrdiff_t B,
                            ptrdiff_t H, ptrdiff_t first, ptrdiff_t last) {
    OVER_ROWS({
        REAL *row = gates + b * ldg + j;
        const ptrdiff_t k = b * H + j;
        vec z = load(row + H, n);
        vec n_gate = load(row + 2 * H, n);
        vec dh_all = load(dh + k, n) + load(dy + k, n);
        store(row + H, dh_all * (load(h_prev + k, n) - n_gate) * z * ((REAL)1 - z), n);
        store(row + 2 * H, dh_all * ((REAL)1 - z) * ((REAL)1 - n_gate * n_gate), n);
        store(dh + k, dh_all * z, n);
    })
}

static void FR(gru_dreset)(REAL *gates, ptrdiff_t ldg, REAL *dh, const REAL *drh, const REAL *h_prev, ptrdiff_t B,
                           ptrdiff_t H, ptrdiff_t first, ptrdiff_t last) {
    OVER_ROWS({
        REAL *row = gates + b * ldg + j;
        const ptrdiff_t k = b * H + j;
        vec r = load(row, n);
        vec d = load(drh + k, n);
        store(row, d * load(h_prev + k, n) * r * ((REAL)1 - r), n);
        store(dh + k, load(dh + k, n) + d * r, n);
    })
}

#undef load
#undef store
#undef OVER_ROWS
