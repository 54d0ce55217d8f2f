/* What fastrnn.h promises, written as the equations stand: a table of its own, in double, one number at a time.
 * No blocks, no vectors, nothing shared with csrc.
 */
#include <math.h>

#include "fastrnn.h"

static double naive_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double naive_relu(double x) { return x < 0 ? 0 : x; } /* NaN stays */

/* --- one step forward: every unit is a block of its own ---------------------------------------------------------- */

static const ptrdiff_t naive_gates_of[FR_CELLS] = {1, 1, 4, 3, 2, 1};
static const ptrdiff_t naive_width[FR_CELLS] = {1, 1, 4, 3, 3, 3}; /* of `gates` */

/* The new state of unit j in row b; part[g] is what the recurrent product gives to its gate g. */
static void naive_unit(const fr_step *s, int cell, const double *part, ptrdiff_t b, ptrdiff_t j) {
    const ptrdiff_t H = s->H, k = b * H + j;
    const double *bias = (const double *)s->bias + j, *h_prev = (const double *)s->h_prev + b * s->ld_prev + j;
    const double *c_prev = s->c_prev;
    double *h = (double *)s->h + b * s->ldh + j, *c = s->c, *extra = s->extra;
    double *gates = (double *)s->gates + b * s->ld_gates + j;
#define PRE(g) (gates[(g) * H] + part[g] + bias[(g) * H])
    if (cell == FR_RNN_TANH) *h = tanh(PRE(0));
    if (cell == FR_RNN_RELU) *h = naive_relu(PRE(0));
    if (cell == FR_LSTM) {
        const double i = naive_sigmoid(PRE(0)), f = naive_sigmoid(PRE(1)), g = tanh(PRE(2)), o = naive_sigmoid(PRE(3));
        c[k] = f * c_prev[k] + i * g;
        *h = o * tanh(c[k]);
        if (s->save) gates[0] = i, gates[H] = f, gates[2 * H] = g, gates[3 * H] = o;
    }
    if (cell == FR_GRU) {
        const double r = naive_sigmoid(PRE(0)), z = naive_sigmoid(PRE(1)), recurrent = part[2] + bias[3 * H];
        const double n = tanh(gates[2 * H] + bias[2 * H] + r * recurrent);
        *h = (1 - z) * n + z * *h_prev;
        if (s->save) gates[0] = r, gates[H] = z, gates[2 * H] = n, extra[k] = recurrent;
    }
    if (cell == FR_GRU_RESET) {
        gates[0] = naive_sigmoid(PRE(0)), gates[H] = naive_sigmoid(PRE(1));
        extra[k] = gates[0] * *h_prev;
    }
    if (cell == FR_GRU_UPDATE) {
        const double z = gates[H], n = gates[2 * H] = tanh(gates[2 * H] + part[0] + bias[2 * H] + bias[3 * H]);
        *h = (1 - z) * n + z * *h_prev;
    }
#undef PRE
}

static ptrdiff_t naive_step_blocks(int cell, ptrdiff_t H) { return (void)cell, H; }
static ptrdiff_t naive_step_size(int cell, ptrdiff_t H) { return naive_gates_of[cell] * H * H; }

static void naive_step_pack(double *packed, int cell, const double *w, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last) {
    for (ptrdiff_t g = 0; g < naive_gates_of[cell]; g++)
        for (ptrdiff_t i = (g * H + first) * H; i < (g * H + last) * H; i++) packed[i] = w[i];
}

static void naive_step(const fr_step *s, int cell, const double *packed, ptrdiff_t first, ptrdiff_t last,
                       int backwards) {
    const ptrdiff_t H = s->H;
    (void)backwards;
    for (ptrdiff_t b = 0; b < s->B; b++)
        for (ptrdiff_t j = first; j < last; j++) {
            const double *a = cell == FR_GRU_UPDATE ? (double *)s->extra + b * H : (double *)s->h_prev + b * s->ld_prev;
            double part[4] = {0};
            for (ptrdiff_t g = 0; g < naive_gates_of[cell]; g++) {
                const double *w = packed + (g * H + j) * H;
                for (ptrdiff_t k = 0; k < H; k++) part[g] += a[k] * w[k];
            }
            naive_unit(s, cell, part, b, j);
        }
}

static void naive_step_gates(const fr_step *s, int cell, double *product) {
    const ptrdiff_t G = naive_gates_of[cell], H = s->H;
    for (ptrdiff_t b = 0; b < s->B; b++)
        for (ptrdiff_t j = 0; j < H; j++) {
            double part[4] = {0};
            for (ptrdiff_t g = 0; g < G; g++) part[g] = product[(b * G + g) * H + j];
            naive_unit(s, cell, part, b, j);
        }
}

/* --- back, and the products -------------------------------------------------------------------------------------- */

#define EACH_UNIT                                                                                                      \
    for (ptrdiff_t b = 0; b < B; b++)                                                                                  \
        for (ptrdiff_t j = first, k = b * H + j; j < last; j++, k++)
#define GATE(g) gates[b * ldg + (g) * H + j]

static void naive_rnn_dgates(double *dpre, const double *dh, const double *dy, const double *h, ptrdiff_t B,
                             ptrdiff_t H, ptrdiff_t first, ptrdiff_t last, int relu) {
    EACH_UNIT dpre[k] = relu ? (h[k] > 0 ? dh[k] + dy[k] : 0) : (dh[k] + dy[k]) * (1 - h[k] * h[k]);
}

static void naive_lstm_dgates(double *gates, ptrdiff_t ldg, double *dc, const double *dh, const double *dy, const double *c,
                              const double *c_prev, ptrdiff_t B, ptrdiff_t H,
                              ptrdiff_t first, ptrdiff_t last) {
    EACH_UNIT {
        const double i = GATE(0), f = GATE(1), g = GATE(2), o = GATE(3);
        const double d = dh[k] + dy[k], t = tanh(c[k]), e = dc[k] + d * o * (1 - t * t);
        GATE(0) = e * g * i * (1 - i);
        GATE(1) = e * c_prev[k] * f * (1 - f);
        GATE(2) = e * i * (1 - g * g);
        GATE(3) = d * t * o * (1 - o);
        dc[k] = e * f;
    }
}

static void naive_gru_dgates(double *gates, ptrdiff_t ldg, double *hn, double *dh, const double *dy, const double *h_prev,
                             ptrdiff_t B, ptrdiff_t H,
                              ptrdiff_t first, ptrdiff_t last) {
    EACH_UNIT {
        const double r = GATE(0), z = GATE(1), n = GATE(2), d = dh[k] + dy[k];
        const double dn = GATE(2) = d * (1 - z) * (1 - n * n);
        GATE(0) = dn * hn[k] * r * (1 - r);
        GATE(1) = d * (h_prev[k] - n) * z * (1 - z);
        hn[k] = dn * r;
        dh[k] = d * z;
    }
}

static void naive_gru_dupdate(double *gates, ptrdiff_t ldg, double *dh, const double *dy, const double *h_prev, ptrdiff_t B,
                              ptrdiff_t H,
                              ptrdiff_t first, ptrdiff_t last) {
    EACH_UNIT {
        const double z = GATE(1), n = GATE(2), d = dh[k] + dy[k];
        GATE(1) = d * (h_prev[k] - n) * z * (1 - z);
        GATE(2) = d * (1 - z) * (1 - n * n);
        dh[k] = d * z;
    }
}

static void naive_gru_dreset(double *gates, ptrdiff_t ldg, double *dh, const double *drh, const double *h_prev, ptrdiff_t B,
                             ptrdiff_t H,
                              ptrdiff_t first, ptrdiff_t last) {
    EACH_UNIT {
        const double r = GATE(0);
        GATE(0) = drh[k] * h_prev[k] * r * (1 - r);
        dh[k] += r * drh[k];
    }
}

/* --- element by element ------------------------------------------------------------------------------------------ */

/* Each unit of each step, forwards or backwards: `row` counts from the first step's first. */
#define EACH_STEP(T)                                                                                                   \
    for (ptrdiff_t step = 0; step < s->steps; step++)                                                                  \
        for (ptrdiff_t b = 0, t = (T), row = t * s->distance; b < s->B; b++, row++)                                    \
            for (ptrdiff_t j = s->first; j < s->last; j++)
#define FORWARDS step
#define BACKWARDS s->steps - 1 - step

static ptrdiff_t naive_scan_gates(int cell) { return cell == FR_MIN_LSTM ? 3 : cell == FR_MIN_GRU ? 2 : 1; }

static double *naive_number(const void *array, ptrdiff_t row, ptrdiff_t width, ptrdiff_t j) {
    return (double *)array + row * width + j;
}

static double naive_before(const fr_scan *s, ptrdiff_t t, ptrdiff_t b, ptrdiff_t j) {
    return *(t ? naive_number(s->h, (t - 1) * s->distance + b, s->H, j) : naive_number(s->h_prev, b, s->H, j));
}

static double naive_keep(const double *gates, ptrdiff_t H, int cell) {
    return cell == FR_MIN_GRU ? 1 - gates[0] : gates[0] / (gates[0] + gates[H]);
}
static double naive_take(const double *gates, ptrdiff_t H, int cell) {
    return cell == FR_MIN_GRU ? gates[0] : gates[H] / (gates[0] + gates[H]);
}

/* values <- the gates of one unit: of `gates`, which they may be, if fresh from before their activation. */
static void naive_values(double *values, const double *gates, const fr_scan *s, int cell, ptrdiff_t j, int fresh) {
    const ptrdiff_t G = naive_scan_gates(cell), H = s->H;
    for (ptrdiff_t g = 0; g < G; g++) {
        double x = gates[g * H];
        if (fresh) {
            x += ((const double *)s->bias)[g * H + j];
            if (g < G - 1) x = naive_sigmoid(x);
            else if (s->positive) x = x >= 0 ? x + 0.5 : naive_sigmoid(x);
        }
        values[g * H] = x;
    }
}

static void naive_scan(const fr_scan *s, int cell) {
    const ptrdiff_t H = s->H, G = naive_scan_gates(cell);
    double values[3 * H + 1];
    EACH_STEP(FORWARDS) {
        double *gates = naive_number(s->gates, row, G * H, j), *h = naive_number(s->h, row, H, j);
        const double before = naive_before(s, t, b, j);
        if (cell == FR_IND_TANH || cell == FR_IND_RELU) {
            const double pre = *gates + ((const double *)s->bias)[j] + ((const double *)s->u)[j] * before;
            *h = cell == FR_IND_TANH ? tanh(pre) : naive_relu(pre);
            continue;
        }
        naive_values(values, gates, s, cell, j, s->fresh);
        *h = naive_keep(values, H, cell) * before + naive_take(values, H, cell) * values[(G - 1) * H];
        if (s->fresh && s->save) naive_values(gates, gates, s, cell, j, 1);
    }
}

static void naive_scan_back(const fr_scan *s, int cell) {
    const ptrdiff_t H = s->H, G = naive_scan_gates(cell);
    EACH_STEP(BACKWARDS) {
        double *gates = naive_number(s->gates, row, G * H, j), *dh = naive_number(s->dh, b, H, j);
        const double d = *dh + *naive_number(s->dy, row, H, j), before = naive_before(s, t, b, j);
        if (cell == FR_IND_TANH || cell == FR_IND_RELU) {
            const double h = *naive_number(s->h, row, H, j);
            *gates = cell == FR_IND_RELU ? (h > 0 ? d : 0) : d * (1 - h * h);
            *naive_number(s->du, b, H, j) += *gates * before;
            *dh = *gates * ((const double *)s->u)[j];
            continue;
        }
        const double keep = naive_keep(gates, H, cell), take = naive_take(gates, H, cell), c = gates[(G - 1) * H];
        const double dkeep = d * (before - c), first = gates[0];
        gates[(G - 1) * H] = d * take * (s->positive && !(c >= 0.5) ? c * (1 - c) : 1);
        gates[0] = cell == FR_MIN_GRU ? -dkeep * first * (1 - first) : dkeep * keep * take * (1 - first);
        if (cell == FR_MIN_LSTM) gates[H] = -dkeep * keep * take * (1 - gates[H]);
        *dh = d * keep;
    }
}

static void naive_scan_ends(const fr_scan *s, int cell) {
    const ptrdiff_t H = s->H, G = naive_scan_gates(cell);
    EACH_STEP(FORWARDS) {
        double *gates = naive_number(s->gates, row, G * H, j), *local = naive_number(s->local, b, H, j);
        naive_values(gates, gates, s, cell, j, 1);
        *local = naive_keep(gates, H, cell) * *local + naive_take(gates, H, cell) * gates[(G - 1) * H];
        *naive_number(s->product, b, H, j) *= naive_keep(gates, H, cell);
        (void)t;
    }
}

static void naive_scan_back_ends(const fr_scan *s, int cell) {
    const ptrdiff_t H = s->H, G = naive_scan_gates(cell);
    EACH_STEP(BACKWARDS) {
        const double keep = naive_keep(naive_number(s->gates, row, G * H, j), H, cell);
        double *local = naive_number(s->local, b, H, j);
        *local = keep * (*local + *naive_number(s->dy, row, H, j));
        *naive_number(s->product, b, H, j) *= keep;
    }
}

static void naive_scan_carry(double *local, const double *product, const double *before, ptrdiff_t n) {
    for (ptrdiff_t j = 0; j < n; j++) local[j] += product[j] * before[j];
}

static ptrdiff_t naive_packed_size(ptrdiff_t K, ptrdiff_t N) { return K * N; }

static void naive_pack(double *packed, const double *w, ptrdiff_t column, ptrdiff_t step, ptrdiff_t K, ptrdiff_t N) {
    for (ptrdiff_t k = 0; k < K; k++)
        for (ptrdiff_t j = 0; j < N; j++) packed[k * N + j] = w[j * column + k * step];
}

static void naive_multiply(double *c, ptrdiff_t ldc, const double *a, ptrdiff_t lda, const double *packed,
                           ptrdiff_t M, ptrdiff_t K, ptrdiff_t N, int add, ptrdiff_t groups, ptrdiff_t from,
                           ptrdiff_t to, int backwards) {
    (void)backwards;
    for (ptrdiff_t i = 0; i < groups * M; i++)
        for (ptrdiff_t j = 0; j < N; j++) {
            const ptrdiff_t m = i / M * from + i % M, row = i / M * to + i % M;
            double sum = 0;
            for (ptrdiff_t k = 0; k < K; k++) sum += a[m * lda + k] * packed[k * N + j];
            c[row * ldc + j] = add ? c[row * ldc + j] + sum : sum;
        }
}

static void naive_multiply_once(double *c, ptrdiff_t ldc, const double *a, ptrdiff_t lda, const double *w,
                                ptrdiff_t column, ptrdiff_t step, ptrdiff_t M, ptrdiff_t K, ptrdiff_t N, int add,
                                double *scratch) {
    (void)scratch;
    for (ptrdiff_t m = 0; m < M; m++)
        for (ptrdiff_t j = 0; j < N; j++) {
            double sum = 0;
            for (ptrdiff_t k = 0; k < K; k++) sum += a[m * lda + k] * w[j * column + k * step];
            c[m * ldc + j] = add ? c[m * ldc + j] + sum : sum;
        }
}

static ptrdiff_t naive_outer_size(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K) {
    (void)M, (void)N, (void)K;
    return 0;
}

static void naive_outer(double *c, ptrdiff_t ldc, const double *a, ptrdiff_t lda, const double *b, ptrdiff_t ldb,
                        ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, int add, double *scratch) {
    (void)scratch;
    for (ptrdiff_t m = 0; m < M; m++)
        for (ptrdiff_t j = 0; j < N; j++) {
            double sum = 0;
            for (ptrdiff_t k = 0; k < K; k++) sum += a[k * lda + m] * b[k * ldb + j];
            c[m * ldc + j] = add ? c[m * ldc + j] + sum : sum;
        }
}

static void naive_sum_rows(double *y, const double *a, ptrdiff_t lda, ptrdiff_t K, ptrdiff_t N, int add) {
    for (ptrdiff_t j = 0; j < N; j++) {
        if (!add) y[j] = 0;
        for (ptrdiff_t k = 0; k < K; k++) y[j] += a[k * lda + j];
    }
}

static void naive_activate(double *y, const double *x, ptrdiff_t n, int which) {
    for (ptrdiff_t j = 0; j < n; j++) y[j] = which == 0 ? naive_sigmoid(x[j]) : tanh(x[j]);
}

static const fr_kernels_f64 naive = {
    .step_blocks = naive_step_blocks,
    .step_size = naive_step_size,
    .step_pack = naive_step_pack,
    .step = naive_step,
    .step_gates = naive_step_gates,
    .rnn_dgates = naive_rnn_dgates,
    .lstm_dgates = naive_lstm_dgates,
    .gru_dgates = naive_gru_dgates,
    .gru_dupdate = naive_gru_dupdate,
    .gru_dreset = naive_gru_dreset,
    .scan = naive_scan,
    .scan_back = naive_scan_back,
    .scan_ends = naive_scan_ends,
    .scan_back_ends = naive_scan_back_ends,
    .scan_carry = naive_scan_carry,
    .packed_size = naive_packed_size,
    .pack = naive_pack,
    .multiply = naive_multiply,
    .multiply_once = naive_multiply_once,
    .outer_size = naive_outer_size,
    .outer = naive_outer,
    .sum_rows = naive_sum_rows,
    .activate = naive_activate,
};
