/* The checks of one float type. In: REAL, KERNELS (its table), FR(name) (adds a suffix).
 *
 * CHECK(what, (lengths), calls): `calls` runs on arrays x[0], x[1] ... of these lengths, with `k` as the table: once by
 * `naive` in double and once by the kernels, from the same random numbers. Then all arrays are compared, inputs too.
 * The sizes B, H, K are those of the moment.
 */
static REAL *FR(got)[ARRAYS];

static void FR(prepare)(const char *what, const ptrdiff_t *lengths, int count) {
    snprintf(where, sizeof where, "%s %s: %s, B=%td H=%td K=%td%s", table_name, sizeof(REAL) == 4 ? "f32" : "f64", what,
             B, H, K, with_nan ? ", with NaN" : "");
    for (int i = 0; i < count; i++) {
        const size_t bytes = (size_t)lengths[i] * sizeof(REAL);
        if (lengths[i] > ROOM) fail("needs more ROOM");
        FR(got)[i] = (REAL *)(slot[i] + (at_end ? ROOM * sizeof(double) - bytes : 0));
        for (ptrdiff_t j = 0; j < lengths[i]; j++) FR(got)[i][j] = (REAL)(want[i][j] = some_number());
    }
}

static void FR(compare)(const ptrdiff_t *lengths, int count) {
    for (int i = 0; i < count; i++) {
        double largest = 1;
        for (ptrdiff_t j = 0; j < lengths[i]; j++)
            if (isfinite(want[i][j]) && fabs(want[i][j]) > largest) largest = fabs(want[i][j]);
        const double allowed = 32 * (sizeof(REAL) == 4 ? FLT_EPSILON : DBL_EPSILON) * sqrt(1.0 + (double)K) * largest;
        for (ptrdiff_t j = 0; j < lengths[i]; j++) {
            const double w = want[i][j], g = (double)FR(got)[i][j];
            if (!(w == g || fabs(w - g) <= allowed || (isnan(w) && isnan(g))))
                fail("x[%d][%td] is %.17g, should be %.17g", i, j, g, w);
        }
    }
    checks++;
}

static void FR(check)(const KERNELS *kernels) {
    /* A (rows, n) array of row stride ld ends with its last row's last number. */
    const ptrdiff_t BH = B * H, ld3 = 3 * H + 2, ld4 = 4 * H + 1;
    const ptrdiff_t lda = K + 3, ldc = H + 2, ldw = H + 1, ldt = K + 5, packed = kernels->packed_size(K, H);

    CHECK("sigmoid", (BH, BH), SPREAD(x[1], BH); k->activate(x[0], x[1], BH, 0));
    CHECK("tanh", (BH, BH), SPREAD(x[1], BH); k->activate(x[0], x[1], BH, 1));
    CHECK("rnn_dgates, tanh", (BH, BH, BH, BH), k->rnn_dgates(x[0], x[1], x[2], x[3], B, H, 0, H, 0));
    CHECK("rnn_dgates, relu, dpre is dh", (BH, BH, BH), k->rnn_dgates(x[0], x[0], x[1], x[2], B, H, 0, H, 1));

    /* Between the rows lies NaN, which must neither be used nor overwritten. Packed weights are each table's own. */
    CHECK("lstm_dgates", (SPAN(B, ld4, 4 * H), BH, BH, BH, BH, BH), GAPS(x[0], B, ld4, 4 * H);
          k->lstm_dgates(x[0], ld4, x[1], x[2], x[3], x[4], x[5], B, H, H / 3, H));
    CHECK("gru_dgates", (SPAN(B, ld3, 3 * H), BH, BH, BH, BH), GAPS(x[0], B, ld3, 3 * H);
          k->gru_dgates(x[0], ld3, x[1], x[2], x[3], x[4], B, H, 0, H - H / 3));
    CHECK("gru_dupdate", (SPAN(B, ld3, 3 * H), BH, BH, BH), GAPS(x[0], B, ld3, 3 * H);
          k->gru_dupdate(x[0], ld3, x[1], x[2], x[3], B, H, 0, H));
    CHECK("gru_dreset", (SPAN(B, ld3, 3 * H), BH, BH, BH), GAPS(x[0], B, ld3, 3 * H);
          k->gru_dreset(x[0], ld3, x[1], x[2], x[3], B, H, H / 2, H));
    CHECK("pack, multiply", (SPAN(B, ldc, H), SPAN(B, lda, K), SPAN(K, ldw, H), packed),
          GAPS(x[0], B, ldc, H); GAPS(x[1], B, lda, K); GAPS(x[2], K, ldw, H);
          k->pack(x[3], x[2], 1, ldw, K, H);
          k->multiply(x[0], ldc, x[1], lda, x[3], B, K, H, 0, 1, 0, 0, 0);
          BLANK(x[3], 0, packed));
    CHECK("pack transposed, multiply and add", (SPAN(B, ldc, H), SPAN(B, lda, K), SPAN(H, ldt, K), packed),
          GAPS(x[0], B, ldc, H); GAPS(x[1], B, lda, K); GAPS(x[2], H, ldt, K);
          k->pack(x[3], x[2], ldt, 1, K, H);
          k->multiply(x[0], ldc, x[1], lda, x[3], B, K, H, 1, 1, 0, 0, 1);
          BLANK(x[3], 0, packed));
    CHECK("multiply 1, 2 or 3 rows at a time", (BH, B * K, K * H, packed, BH),
          k->pack(x[3], x[2], 1, H, K, H);
          k->multiply(x[0], H, x[1], K, x[3], B, K, H, 0, 1, 0, 0, 0);
          for (ptrdiff_t rows = 1; rows <= 3; rows++) {
              BLANK(x[4], 0, BH);
              for (ptrdiff_t m = 0; m < B; m += rows)
                  k->multiply(x[4] + m * H, H, x[1] + m * K, K, x[3], B - m < rows ? B - m : rows, K, H, 0, 1, 0,
                              0, rows % 2);
              SAME_BITS(x[0], x[4], BH);
          }
          for (ptrdiff_t rows = 1; rows <= 3 && rows < B; rows++) { /* and in two groups of every second run of rows */
              const ptrdiff_t groups = B / (2 * rows);
              BLANK(x[4], 0, BH);
              for (int odd = 0; odd < 2; odd++) {
                  k->multiply(x[4], H, x[1] + odd * rows * K, K, x[3], rows, K, H, 0, groups, 2 * rows, rows, odd);
                  for (ptrdiff_t g = 0; g < groups; g++)
                      SAME_BITS(x[0] + (2 * g + odd) * rows * H, x[4] + g * rows * H, rows * H);
              }
              BLANK(x[4], 0, BH); /* which lie apart in what is made as well */
              for (int odd = 0; odd < 2; odd++)
                  k->multiply(x[4] + odd * rows * H, H, x[1] + odd * rows * K, K, x[3], rows, K, H, 0, groups, 2 * rows,
                              2 * rows, odd);
              SAME_BITS(x[0], x[4], 2 * groups * rows * H);
              memcpy(x[4], x[0], (size_t)BH * sizeof **x);
          }
          BLANK(x[3], 0, packed));
    CHECK("multiply_once", (SPAN(B, ldc, H), SPAN(B, lda, K), SPAN(K, ldw, H), 64 * K, packed, SPAN(B, ldc, H)),
          GAPS(x[0], B, ldc, H); GAPS(x[1], B, lda, K); GAPS(x[2], K, ldw, H);
          memcpy(x[5], x[0], (size_t)lengths[0] * sizeof **x);
          k->multiply_once(x[0], ldc, x[1], lda, x[2], 1, ldw, B, K, H, B % 2, x[3]);
          k->pack(x[4], x[2], 1, ldw, K, H);
          k->multiply(x[5], ldc, x[1], lda, x[4], B, K, H, B % 2, 1, 0, 0, 0);
          SAME_BITS(x[0], x[5], lengths[0]);
          BLANK(x[3], 0, 64 * K); BLANK(x[4], 0, packed));
    CHECK("multiply_once, transposed",
          (SPAN(B, ldc, H), SPAN(B, lda, K), SPAN(H, ldt, K), 64 * K, packed, SPAN(B, ldc, H)),
          GAPS(x[0], B, ldc, H); GAPS(x[1], B, lda, K); GAPS(x[2], H, ldt, K);
          memcpy(x[5], x[0], (size_t)lengths[0] * sizeof **x);
          k->multiply_once(x[0], ldc, x[1], lda, x[2], ldt, 1, B, K, H, K % 2, x[3]);
          k->pack(x[4], x[2], ldt, 1, K, H);
          k->multiply(x[5], ldc, x[1], lda, x[4], B, K, H, K % 2, 1, 0, 0, 0);
          SAME_BITS(x[0], x[5], lengths[0]);
          BLANK(x[3], 0, 64 * K); BLANK(x[4], 0, packed));
    CHECK("sum_rows", (H, SPAN(K, ldw, H)), GAPS(x[1], K, ldw, H); k->sum_rows(x[0], x[1], ldw, K, H, B % 2));
    const ptrdiff_t scratch = kernels->outer_size(B, H, K);
    CHECK("outer", (SPAN(B, ldc, H), SPAN(K, B + 1, B), SPAN(K, ldw, H), scratch, SPAN(B, ldc, H)),
          GAPS(x[0], B, ldc, H); GAPS(x[1], K, B + 1, B); GAPS(x[2], K, ldw, H);
          memcpy(x[4], x[0], (size_t)lengths[0] * sizeof **x);
          k->outer(x[0], ldc, x[1], B + 1, x[2], ldw, B, H, K, B % 2, x[3]);
          for (ptrdiff_t m = 0; m < B; m += 50) /* so that what was packed now is not */
              k->outer(x[4] + m * ldc, ldc, x[1] + m, B + 1, x[2], ldw, B - m < 50 ? B - m : 50, H, K, B % 2, x[3]);
          SAME_BITS(x[0], x[4], lengths[0]);
          BLANK(x[3], 0, scratch));
}

/* Of the rows from b on. Arrays o .. o+3 are h, c, gates, extra; 4 .. 7 are h_prev, c_prev, bias, w. Each cell gets
 * all: what it does not name has to stay as it is. */
#define STEP(o, b, rows)                                                                                               \
    &(fr_step){.h = x[o] + (b) * ldh,                                                                                  \
               .c = x[(o) + 1] + (b) * H,                                                                              \
               .gates = in_place && width == 1 ? x[o] + (b) * ldg : x[(o) + 2] + (b) * ldg,                            \
               .extra = x[(o) + 3] + (b) * H,                                                                          \
               .h_prev = x[4] + (b) * ldp,                                                                             \
               .c_prev = x[in_place ? (o) + 1 : 5] + (b) * H,                                                          \
               .bias = x[6],                                                                                           \
               ldh, ldg, ldp, rows, H, save}

static void FR(check_step)(const KERNELS *kernels, int cell, int save) {
    static const char *const name[] = {"tanh", "relu", "lstm", "gru", "reset", "update"};
    const int in_place = (B + H + save) % 2; /* every other time: it comes with all kinds of sizes */
    const ptrdiff_t G = naive_gates_of[cell], width = naive_width[cell], BH = B * H, some = save ? 1 : 3;
    const ptrdiff_t ldh = in_place ? H : H + 3, ldp = H + 2, h = SPAN(B, ldh, H), h_prev = SPAN(B, ldp, H);
    const ptrdiff_t ldg = in_place ? width * H : width * H + 5, gates = SPAN(B, ldg, width * H);
    const ptrdiff_t packed = kernels->step_size(cell, H), columns = kernels->packed_size(H, G * H);
    char what[80];
    snprintf(what, sizeof what, "step of %s%s%s", name[cell], save ? ", save" : "", in_place ? ", in place" : "");

    /* All at once, one way; and a few rows at a time in two calls for half of the blocks each, mostly the other way. */
    CHECK(what, (h, BH, gates, BH, h_prev, BH, 4 * H, G * H * H, packed, h, BH, gates, BH),
          GAPS(x[0], B, ldh, H); GAPS(x[2], B, ldg, width * H); GAPS(x[4], B, ldp, H);
          for (int i = 0; i < 4; i++) memcpy(x[9 + i], x[i], (size_t)lengths[i] * sizeof **x);
          const ptrdiff_t n = k->step_blocks(cell, H);
          k->step_pack(x[8], cell, x[7], H, n / 2, n);
          k->step_pack(x[8], cell, x[7], H, 0, n / 2);
          k->step(STEP(0, 0, B), cell, x[8], 0, n, save);
          for (ptrdiff_t b = 0; b < B; b += some) {
              k->step(STEP(9, b, B - b < some ? B - b : some), cell, x[8], n / 2, n, !save);
              k->step(STEP(9, b, B - b < some ? B - b : some), cell, x[8], 0, n / 2, 1);
          }
          for (int i = 0; i < 4; i++) SAME_BITS(x[i], x[9 + i], lengths[i]);
          BLANK(x[8], 0, packed));

    strcat(what, ", product made before");
    CHECK(what, (h, BH, gates, BH, h_prev, BH, 4 * H, G * H * H, columns, B * G * H),
          GAPS(x[0], B, ldh, H); GAPS(x[2], B, ldg, width * H); GAPS(x[4], B, ldp, H);
          k->pack(x[8], x[7], H, 1, H, G * H);
          if (cell == FR_GRU_UPDATE) k->multiply(x[9], G * H, x[3], H, x[8], B, H, G * H, 0, 1, 0, 0, 0);
          else k->multiply(x[9], G * H, x[4], ldp, x[8], B, H, G * H, 0, 1, 0, 0, 0);
          k->step_gates(STEP(0, 0, B), cell, x[9]);
          BLANK(x[8], 0, columns); BLANK(x[9], 0, B * G * H)); /* which is used up */
}

static void FR(check_steps)(const KERNELS *kernels) {
    K = H;
    for (int cell = 0; cell < FR_CELLS; cell++)
        for (int save = 0; save < 2; save++) FR(check_step)(kernels, cell, save);
}

/* Arrays: 0 h, 1 gates, 2 dh, 3 du, 4 product, 5 local, 6 dy, 7 h_prev, 8 bias, 9 u. The units of each call. */
#define SCAN(from, to)                                                                                                 \
    &(fr_scan){.h = x[0] + start * H,                                                                                  \
               .gates = in_place ? x[0] + start * H : x[1] + start * G * H,                                            \
               .dh = x[2],                                                                                             \
               .du = x[3],                                                                                             \
               .product = x[4],                                                                                        \
               .local = x[5],                                                                                          \
               .dy = x[6] + start * H,                                                                                 \
               .h_prev = x[7],                                                                                         \
               .bias = x[8],                                                                                           \
               .u = x[9],                                                                                              \
               steps, distance, B, H, from, to, fresh, save, positive}
#define HALVES(function, cell)                                                                                         \
    k->function(SCAN(0, H / 3), cell);                                                                                 \
    k->function(SCAN(H / 3, H), cell)

/* Three steps forward and back; every second time from the highest rows down. Between the steps there is a row more,
 * which nothing may touch, and gates that come in as values are from 1/2 to 1. */
static void FR(check_scan)(const KERNELS *kernels, int cell) {
    static const char *const name[] = {"indrnn tanh", "indrnn relu", "mingru", "minlstm"};
    const int linear = cell == FR_MIN_GRU || cell == FR_MIN_LSTM, positive = H % 3 > 0, down = (B + H) % 2;
    const ptrdiff_t G = naive_scan_gates(cell), BH = B * H, steps = 3, rows = steps * (B + 1);
    const ptrdiff_t distance = down ? -(B + 1) : B + 1, start = down ? (steps - 1) * (B + 1) : 0;
    char what[80];
#define ARRAYS_OF_SCAN (rows * H, rows * G * H, BH, BH, BH, BH, rows * H, BH, G * H, H)
#define VALUES for (ptrdiff_t at = 0; at < rows * G * H; at++) x[1][at] = (x[1][at] < 0 ? 1 - x[1][at] : 1 + x[1][at]) / 2
    for (int fresh = linear ? 0 : 1; fresh < 2; fresh++) {
        const int save = linear && B % 2, in_place = !linear && B % 2;
        snprintf(what, sizeof what, "scan of %s%s", name[cell], fresh ? "" : ", values");
        CHECK(what, ARRAYS_OF_SCAN, if (!fresh) VALUES; HALVES(scan, cell));
    }
    const int fresh = 1, save = 1, in_place = 0;
    snprintf(what, sizeof what, "scan of %s, back", name[cell]);
    CHECK(what, ARRAYS_OF_SCAN, VALUES; HALVES(scan_back, cell));
    if (!linear) return;
    snprintf(what, sizeof what, "scan of %s, ends", name[cell]);
    CHECK(what, ARRAYS_OF_SCAN, HALVES(scan_ends, cell); k->scan_carry(x[5], x[4], x[7], BH));
    snprintf(what, sizeof what, "scan of %s, ends back", name[cell]);
    CHECK(what, ARRAYS_OF_SCAN, VALUES; HALVES(scan_back_ends, cell); k->scan_carry(x[5], x[4], x[2], BH));
#undef ARRAYS_OF_SCAN
#undef VALUES
}

static void FR(check_sizes)(const KERNELS *kernels) {
    /* Around the tiles' rows, the vectors' lanes, the panels of four vectors, and the blocks of k. */
    static const ptrdiff_t rows[] = {0, 1, 2, 3, 5, 6, 7, 8, 13, 17};
    static const ptrdiff_t units[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 130, 200};
    static const ptrdiff_t depths[] = {0, 1, 2, 63, 64, 65, 128, 130, 300};
    checks = 0;
    for (int pass = 0; pass < 3; pass++) {
        at_end = pass > 0;
        with_nan = pass > 1;
        for (int r = 0; r < COUNT(rows); r++)
            for (int u = 0; u < COUNT(units); u++) {
                B = rows[r], H = units[u], K = depths[(r + u) % COUNT(depths)];
                FR(check)(kernels);
                for (int cell = FR_IND_TANH; cell <= FR_MIN_LSTM; cell++) FR(check_scan)(kernels, cell);
                if ((r + u) % 5 == pass) FR(check_steps)(kernels); /* the slowest: each pass takes its own sizes */
            }
        /* So deep that a panel is gone through in pieces, the last one longer than a chain would be in a sum of its own. */
        B = 9, H = 33, K = 8350;
        FR(check)(kernels);
        B = 129, H = 17, K = 600; /* and that `multiply` takes the rows in two chunks, the second of one row */
        FR(check)(kernels);
        static const ptrdiff_t wide[] = {196, 204, 212, 220, 260}; /* each in one pass, for they are slow */
        for (int i = pass; i < COUNT(wide); i += 3) { /* and that `outer` packs, with 1 to 4 vectors in the last panel */
            B = 71, H = wide[i], K = 300;
            FR(check)(kernels);
        }
    }
    B = 7, H = 1030, K = H, with_nan = 0; /* and so does a step */
    FR(check_step)(kernels, FR_LSTM, 0);
    B = 1, H = 300, K = H; /* and that a step of one row takes its blocks in some */
    FR(check_steps)(kernels);
    B = 3900, H = 17; /* and so many rows that `step` takes them in two */
    FR(check_steps)(kernels);
    printf("%s %s: %d checks passed\n", table_name, sizeof(REAL) == 4 ? "f32" : "f64", checks);
    fflush(stdout);
}
#undef STEP
#undef SCAN
#undef HALVES
