/* The contract between the C kernels and whoever calls them.
 *
 * Every array is row-major and dense: a (B, H) array has row stride H, a (B, G*H) array has row stride G*H. The caller
 * owns all memory; no function allocates, keeps a pointer, locks or touches Python. Arguments come as outputs, inputs,
 * sizes. Pointers may be unaligned. Unless a comment says otherwise, no two arguments of a call overlap.
 * Any size may be 0. NaN and infinity go through as they do in the equations.
 *
 * Gate blocks within a row of `gates`:  LSTM i f g o,  GRU r z n  (PyTorch's order).
 * `pre` in a comment means "before the activation", `d` + name the gradient of the loss with respect to that name.
 */
#ifndef FASTRNN_H
#define FASTRNN_H

#include <stddef.h>

/* What a step is of. The GRU whose reset comes before the product takes two: a reset of all units, then an update. */
enum { FR_RNN_TANH, FR_RNN_RELU, FR_LSTM, FR_GRU, FR_GRU_RESET, FR_GRU_UPDATE, FR_CELLS };

/* One step forward of B sequences; all numbers are of the table's type. What a cell does not name it does not touch.
 *
 * cell           multiplies     gates out, with `save`   extra (B,H)                   bias
 * FR_RNN_*       h_prev         as they came             -                             (H)
 * FR_LSTM        h_prev         i f g o                  -                             (4H)
 * FR_GRU         h_prev         r z n                    with `save`, out:             (4H): r z n of the input's part,
 *                                                        h_prev W_hn' + b_hn           r and z already with the recurrent
 * FR_GRU_RESET   h_prev         r z (always)             out: r h_prev                 bias added, then b_hn
 * FR_GRU_UPDATE  extra          n (always); in: z too    in: r h_prev                  the same
 */
typedef struct {
    void *h;            /* (B,H), row stride ldh: the new state; not set by FR_GRU_RESET */
    void *c;            /* (B,H): the LSTM's new cell state */
    void *gates;        /* (B,G*H), row stride ld_gates, for both halves of a GRU (B,3H): in: the input's part, x W_ih';
                         * an RNN's may be h */
    void *extra;
    const void *h_prev; /* (B,H), row stride ld_prev; not h */
    const void *c_prev; /* (B,H), may be c */
    const void *bias;
    ptrdiff_t ldh, ld_gates, ld_prev, B, H;
    int save;
} fr_step;

/* The activations of a variant, in ONNX's terms. */
enum {
    FR_SIGMOID, FR_TANH, FR_RELU, FR_AFFINE, FR_LEAKY_RELU, FR_THRESHOLDED_RELU, FR_SCALED_TANH, FR_HARD_SIGMOID, FR_ELU,
    FR_SOFTSIGN, FR_SOFTPLUS
};

/* What differs from the plain cell, the same at all steps. Arrays are NULL where there is none. */
typedef struct {
    int act[3];             /* as Variant.activations orders them */
    double alpha[3], beta[3];
    double clip;            /* infinity for none */
    double epsilon;
    int coupled, normalises_c;
    const void *peepholes;  /* (3H): i f o */
    const void *norm_c, *norm_c_bias; /* (H) */
} fr_variant;

/* One step of B sequences of a variant, see stage_impl.h. The product has been made, and normalised where it is.
 * What only backward needs is NULL where nothing is saved: slopes, outer_slope, normal, scale.
 *
 * stage                                              stage_back
 * gates (B,G*H)   in: x's part; out: activated       in: that; out: dpre
 * slopes (B,G*H)  out                                in
 * product (B,N)   in: N is G*H, for FR_GRU_RESET     FR_GRU_RESET: in: drh (B,H); out: r drh
 *                 2H, for FR_GRU_UPDATE H
 * h (B,H), ldh    out, before projection and zoneout -
 * dh (B,H)        -                                  in: d of h as above; GRUs: out: z dh
 * c, c_prev (B,H) out: before zoneout; in            c_prev in
 * dc (B,H)        -                                  in: d of c as above; out: what comes to c_prev by the gates
 * outer           out: act_h of c (B,H)              in; scratch with normalises_c
 * outer_slope     out (B,H)                          in; out: d of what goes into act_h
 * normal, scale   out: (B,H), (B)                    in
 * extra (B,H)     FR_GRU out: h W_hn' + b_hn;        FR_GRU in
 *                 FR_GRU_RESET out: r h_in
 * h_prev, ld_prev FR_GRU, FR_GRU_UPDATE in           the same
 * h_in, ld_in     FR_GRU_RESET in                    the same
 * drecurrent      -                                  GRUs out: dpre of the product (B,N)
 */
typedef struct {
    void *gates, *slopes, *product, *h, *c, *outer, *outer_slope, *normal, *scale, *extra, *dh, *dc, *drecurrent;
    const void *h_prev, *h_in, *c_prev, *bias; /* bias as for fr_step */
    ptrdiff_t ldh, ld_prev, ld_in, B, H;
} fr_stage;

/* Recurrences that are element by element. Gate blocks: FR_MIN_GRU z h~, FR_MIN_LSTM f i h~; FR_IND_* the input's part. */
enum { FR_IND_TANH, FR_IND_RELU, FR_MIN_GRU, FR_MIN_LSTM };

/* Some steps of B sequences, the units first <= j < last of each: B rows a step, each step's `distance` rows (of either
 * sign) behind those of the step before. Row arrays begin with the first step's first row. What a call does not name it
 * does not touch. */
typedef struct {
    void *h;              /* rows (H): the states */
    void *gates;          /* rows (G*H) */
    void *dh;             /* (B,H) */
    void *du;             /* (B,H) */
    void *product;        /* (B,H) */
    void *local;          /* (B,H) */
    const void *dy;       /* rows (H) */
    const void *h_prev;   /* (B,H): the state before the first of these steps */
    const void *bias, *u; /* (G*H), (H) */
    ptrdiff_t steps, distance, B, H, first, last;
    int fresh, save;      /* whether gates come in as pre-activations without bias; whether their values go out */
    int positive;         /* the candidate is x + 1/2 for x >= 0, else sigmoid(x), and not x */
} fr_scan;

/* One table of functions for each float type; the same list serves both. */
#define FR_DECLARE_KERNELS(NAME, REAL)                                                                                 \
    typedef struct {                                                                                                   \
        /* How many blocks of units a step has, which can be shared out; how many numbers `step_pack` writes. */       \
        ptrdiff_t (*step_blocks)(int cell, ptrdiff_t H);                                                               \
        ptrdiff_t (*step_size)(int cell, ptrdiff_t H);                                                                 \
        /* packed <- these blocks of the recurrent weights w (G*H,H) for `step`; best aligned to 64 bytes. */           \
        void (*step_pack)(REAL *packed, int cell, const REAL *w, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last);        \
        /* The blocks first <= block < last of a step, from the last one down if `backwards`: the recurrent product    \
         * and the new state. */                                                                                       \
        void (*step)(const fr_step *s, int cell, const REAL *packed, ptrdiff_t first, ptrdiff_t last, int backwards);  \
        /* The same for all units where the product (B,G*H) has been made already, which is used up. */                \
        void (*step_gates)(const fr_step *s, int cell, REAL *product);                                                 \
        /* What follows is of the units first <= j < last.                                                             \
         * dpre (B,H) = (dh + dy) act'(h), all (B,H). dpre may be dh. */                                               \
        void (*rnn_dgates)(REAL *dpre, const REAL *dh, const REAL *dy, const REAL *h, ptrdiff_t B, ptrdiff_t H,        \
                           ptrdiff_t first, ptrdiff_t last, int relu);                                                 \
        /* gates (B,4H), row stride ldg: in: i f g o; out: their dpre. dc (B,H): in: dc of this step; out: dc of the   \
         * one before. */                                                                                              \
        void (*lstm_dgates)(REAL *gates, ptrdiff_t ldg, REAL *dc, const REAL *dh, const REAL *dy, const REAL *c,       \
                            const REAL *c_prev, ptrdiff_t B, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last);            \
        /* FR_GRU: gates (B,3H), row stride ldg: in: r z n; out: their dpre. hn (B,H): in: as saved; out: d of itself. \
         * dh (B,H): in: dh of this step, dy not yet added; out: the part of the step before that goes past the        \
         * product, z (dh + dy). */                                                                                    \
        void (*gru_dgates)(REAL *gates, ptrdiff_t ldg, REAL *hn, REAL *dh, const REAL *dy, const REAL *h_prev,         \
                           ptrdiff_t B, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last);                                 \
        /* Backward of FR_GRU_UPDATE: gates z n in: values, out: dpre; r untouched. dh as for gru_dgates. */           \
        void (*gru_dupdate)(REAL *gates, ptrdiff_t ldg, REAL *dh, const REAL *dy, const REAL *h_prev, ptrdiff_t B,     \
                            ptrdiff_t H, ptrdiff_t first, ptrdiff_t last);                                             \
        /* Backward of FR_GRU_RESET: gates r in: value, out: dpre. drh (B,H) = dn W_hn. dh (B,H) += r drh. */          \
        void (*gru_dreset)(REAL *gates, ptrdiff_t ldg, REAL *dh, const REAL *drh, const REAL *h_prev, ptrdiff_t B,     \
                           ptrdiff_t H, ptrdiff_t first, ptrdiff_t last);                                              \
        /* h of all steps from gates, h_prev, bias and u. Those of FR_IND_* are always fresh, never saved, and may be h. */\
        void (*scan)(const fr_scan *s, int cell);                                                                      \
        /* The way back: gates in: values (of FR_IND_*: nothing), out: dpre. dh in: that of the last of these steps    \
         * without its dy; out: that of h_prev. FR_IND_*: du += the sum of dpre h(t-1) over the steps. */              \
        void (*scan_back)(const fr_scan *s, int cell);                                                                 \
        /* Of the linear ones, FR_MIN_*: the last state is product h_prev + local. Gates fresh and saved. Both go on   \
         * from what they hold: 1 and 0 before the first of a chunk's steps. */                                        \
        void (*scan_ends)(const fr_scan *s, int cell);                                                                 \
        /* The way back: that of h_prev is product dh + local, dh being that of the last of these steps; nothing else  \
         * is changed. */                                                                                              \
        void (*scan_back_ends)(const fr_scan *s, int cell);                                                            \
        /* local (n) += product before: from ends to the state itself. */                                              \
        void (*scan_carry)(REAL *local, const REAL *product, const REAL *before, ptrdiff_t n);                         \
        /* How many numbers `pack` writes. */                                                                          \
        ptrdiff_t (*packed_size)(ptrdiff_t K, ptrdiff_t N);                                                            \
        /* packed <- weights (K,N) for `multiply`: number k of column j is w[j*column + k*step].                       \
         * packed is best aligned to 64 bytes. */                                                                      \
        void (*pack)(REAL *packed, const REAL *w, ptrdiff_t column, ptrdiff_t step, ptrdiff_t K, ptrdiff_t N);         \
        /* c (M,N) = a (M,K) w, or c += with `add`; w (K,N) is packed, row strides ldc, lda. For so many groups of M   \
         * rows, each beginning `from` rows of a and `to` rows of c after the one before. From the last columns to the \
         * first if `backwards`: whoever multiplies again and again with large weights uses what the caches kept of    \
         * them. */                                                                                                    \
        void (*multiply)(REAL *c, ptrdiff_t ldc, const REAL *a, ptrdiff_t lda, const REAL *packed, ptrdiff_t M,        \
                         ptrdiff_t K, ptrdiff_t N, int add, ptrdiff_t groups, ptrdiff_t from, ptrdiff_t to,            \
                         int backwards);                                                                               \
        /* The same with weights as they lie, see `pack`, for those that are used once. scratch has room for 64 K      \
         * numbers. */                                                                                                 \
        void (*multiply_once)(REAL *c, ptrdiff_t ldc, const REAL *a, ptrdiff_t lda, const REAL *w, ptrdiff_t column,   \
                              ptrdiff_t step, ptrdiff_t M, ptrdiff_t K, ptrdiff_t N, int add, REAL *scratch);          \
        /* c (M,N) = a' b, or c += with `add`; a (K,M), b (K,N); row strides ldc, lda, ldb. scratch has room for       \
         * outer_size(M,N,K) numbers, best aligned to 64 bytes. */                                                     \
        ptrdiff_t (*outer_size)(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K);                                                \
        void (*outer)(REAL *c, ptrdiff_t ldc, const REAL *a, ptrdiff_t lda, const REAL *b, ptrdiff_t ldb, ptrdiff_t M, \
                      ptrdiff_t N, ptrdiff_t K, int add, REAL *scratch);                                               \
        /* y (N) = the sum over the rows of a (K,N), row stride lda, or y += with `add`. */                            \
        void (*sum_rows)(REAL *y, const REAL *a, ptrdiff_t lda, ptrdiff_t K, ptrdiff_t N, int add);                    \
        /* The variants' stages. A step of `cell`, forward and backward. */                                              \
        void (*stage)(const fr_stage *s, const fr_variant *v, int cell);                                               \
        void (*stage_back)(const fr_stage *s, const fr_variant *v, int cell);                                          \
        /* y (B,N) <- gain (N) times each row at mean 0 and variance 1, plus bias (N); either may be NULL. normal (B,N) \
         * and scale (B), if any, get the row before the gain, and 1 / its deviation. */                               \
        void (*norm_rows)(REAL *y, REAL *normal, REAL *scale, const REAL *gain, const REAL *bias, ptrdiff_t B,         \
                          ptrdiff_t N, double epsilon);                                                                \
        /* dx (B,N), which may be d, from the gradient d of the result. */                                             \
        void (*norm_back)(REAL *dx, const REAL *d, const REAL *normal, const REAL *scale, const REAL *gain,            \
                          ptrdiff_t B, ptrdiff_t N);                                                                   \
        /* y (B,N) <- keep before + (1 - keep) y; keep (B,N), or NULL for `always`. */                                 \
        void (*zone_out)(REAL *y, ptrdiff_t ldy, const REAL *before, ptrdiff_t ldb, const REAL *keep, double always,   \
                         ptrdiff_t B, ptrdiff_t N);                                                                    \
        /* past (B,N) = keep d; d <- (1 - keep) d. */                                                                  \
        void (*zone_back)(REAL *past, REAL *d, const REAL *keep, double always, ptrdiff_t B, ptrdiff_t N);             \
        /* y (B,N) = x mask, or y += with `add`; mask (B,N), or NULL for 1; row stride ldx. */                         \
        void (*times)(REAL *y, const REAL *x, ptrdiff_t ldx, const REAL *mask, ptrdiff_t B, ptrdiff_t N, int add);     \
        /* y (N) = the sum over K rows of a b, or y += with `add`; row strides lda, ldb. */                            \
        void (*sum_products)(REAL *y, const REAL *a, ptrdiff_t lda, const REAL *b, ptrdiff_t ldb, ptrdiff_t K,         \
                             ptrdiff_t N, int add);                                                                    \
        /* y (N) = exp((x - top) scale), where top is at least every x; returns their sum. */                          \
        double (*exp_row)(REAL *y, const REAL *x, ptrdiff_t N, double top, double scale);                              \
        /* One query (A) over a source of S places: weights (S) = softmax(score), score(s) = query . keys(s), or with v \
         * (A) v . tanh(query + keys(s)); context (E) = the sum of weights(s) values(s). keys (S,A), values (S,E). */  \
        void (*attend)(REAL *context, REAL *weights, const REAL *query, const REAL *v, const REAL *keys,               \
                       const REAL *values, ptrdiff_t S, ptrdiff_t A, ptrdiff_t E);                                     \
        /* y (n) = sigmoid(x), tanh(x) or exp(x)-1, for `which` = 0, 1 or 2: open to tests. */                     \
        void (*activate)(REAL *y, const REAL *x, ptrdiff_t n, int which);                                              \
    } NAME

FR_DECLARE_KERNELS(fr_kernels_f32, float);
FR_DECLARE_KERNELS(fr_kernels_f64, double);

#define FR_PROBE_FLOATS 128 /* 512 bytes */

typedef struct {
    const char *name; /* as in FASTRNN_ISA */
    fr_kernels_f32 f32;
    fr_kernels_f64 f64;
    /* At least n float32 multiply-adds, as fast as they go; how many they were. sink (16) takes what comes of them, so
     * that they have to be done. */
    ptrdiff_t (*probe_fma)(float *sink, ptrdiff_t n);
    /* Reads x (n), n a multiple of FR_PROBE_FLOATS, so many times, with or without asking ahead. sink as above. */
    void (*probe_read)(float *sink, const float *x, ptrdiff_t n, ptrdiff_t times, int prefetch);
} fr_table;

/* The tables this build has and this CPU can run, best first; *count is set to how many. */
const fr_table *const *fr_tables(int *count);

/* One of these per csrc/isa_*.c; NULL where the build's target or compiler cannot have it. */
extern const fr_table *const fr_table_avx512;
extern const fr_table *const fr_table_avx2;
extern const fr_table *const fr_table_neon;
extern const fr_table *const fr_table_baseline;

/* GCC's vector extensions, which Clang shares. Any other compiler gets the scalar baseline. */
#if defined(__GNUC__) && !defined(FR_SCALARS)
#define FR_VECTORS 1
#else
#define FR_VECTORS 0
#endif
#if FR_VECTORS && defined(__x86_64__)
#define FR_X86_VECTORS 1
#else
#define FR_X86_VECTORS 0
#endif
#if FR_VECTORS && defined(__aarch64__)
#define FR_ARM_VECTORS 1
#else
#define FR_ARM_VECTORS 0
#endif

#endif
