# csrc/fastrnn.h for Cython, which says what each function takes and gives.
#
# C has the table twice, for float and for double. Here one struct stands for both, with void pointers: the C compiler
# sees the real members behind it and checks the types of every call.

cdef extern from "fastrnn.h" nogil:
    enum:
        FR_RNN_TANH
        FR_RNN_RELU
        FR_LSTM
        FR_GRU
        FR_GRU_RESET
        FR_GRU_UPDATE

    ctypedef struct fr_step:
        void* h
        void* c
        void* gates
        void* extra
        const void* h_prev
        const void* c_prev
        const void* bias
        Py_ssize_t ldh, ld_gates, ld_prev, B, H
        int save

    ctypedef struct fr_variant:
        int act[3]
        double alpha[3]
        double beta[3]
        double clip, epsilon
        int coupled, normalises_c
        const void* peepholes
        const void* norm_c
        const void* norm_c_bias

    ctypedef struct fr_stage:
        void* gates
        void* slopes
        void* product
        void* h
        void* c
        void* outer
        void* outer_slope
        void* normal
        void* scale
        void* extra
        void* dh
        void* dc
        void* drecurrent
        const void* h_prev
        const void* h_in
        const void* c_prev
        const void* bias
        Py_ssize_t ldh, ld_prev, ld_in, B, H

    enum:
        FR_IND_TANH
        FR_IND_RELU
        FR_MIN_GRU
        FR_MIN_LSTM

    ctypedef struct fr_scan:
        void* h
        void* gates
        void* dh
        void* du
        void* product
        void* local
        const void* dy
        const void* h_prev
        const void* bias
        const void* u
        Py_ssize_t steps, distance, B, H, first, last
        int fresh, save, positive

    ctypedef struct fr_kernels "fr_kernels_f32":
        Py_ssize_t (*step_blocks)(int cell, Py_ssize_t H) noexcept nogil
        Py_ssize_t (*step_size)(int cell, Py_ssize_t H) noexcept nogil
        void (*step_pack)(void* packed, int cell, const void* w, Py_ssize_t H, Py_ssize_t first,
                          Py_ssize_t last) noexcept nogil
        void (*step)(const fr_step* s, int cell, const void* packed, Py_ssize_t first, Py_ssize_t last,
                     int backwards) noexcept nogil
        void (*step_gates)(const fr_step* s, int cell, void* product) noexcept nogil
        void (*rnn_dgates)(void* dpre, const void* dh, const void* dy, const void* h, Py_ssize_t B, Py_ssize_t H,
                           Py_ssize_t first, Py_ssize_t last, int relu) noexcept nogil
        void (*lstm_dgates)(void* gates, Py_ssize_t ldg, void* dc, const void* dh, const void* dy, const void* c,
                            const void* c_prev, Py_ssize_t B, Py_ssize_t H, Py_ssize_t first, Py_ssize_t last) noexcept nogil
        void (*gru_dgates)(void* gates, Py_ssize_t ldg, void* hn, void* dh, const void* dy, const void* h_prev,
                           Py_ssize_t B, Py_ssize_t H, Py_ssize_t first, Py_ssize_t last) noexcept nogil
        void (*gru_dupdate)(void* gates, Py_ssize_t ldg, void* dh, const void* dy, const void* h_prev, Py_ssize_t B,
                            Py_ssize_t H, Py_ssize_t first, Py_ssize_t last) noexcept nogil
        void (*gru_dreset)(void* gates, Py_ssize_t ldg, void* dh, const void* drh, const void* h_prev, Py_ssize_t B,
                           Py_ssize_t H, Py_ssize_t first, Py_ssize_t last) noexcept nogil
        void (*scan)(const fr_scan* s, int cell) noexcept nogil
        void (*scan_back)(const fr_scan* s, int cell) noexcept nogil
        void (*scan_ends)(const fr_scan* s, int cell) noexcept nogil
        void (*scan_back_ends)(const fr_scan* s, int cell) noexcept nogil
        void (*scan_carry)(void* local, const void* product, const void* before, Py_ssize_t n) noexcept nogil
        Py_ssize_t (*packed_size)(Py_ssize_t K, Py_ssize_t N) noexcept nogil
        void (*pack)(void* packed, const void* w, Py_ssize_t column, Py_ssize_t step, Py_ssize_t K,
                     Py_ssize_t N) noexcept nogil
        void (*multiply)(void* c, Py_ssize_t ldc, const void* a, Py_ssize_t lda, const void* packed, Py_ssize_t M,
                         Py_ssize_t K, Py_ssize_t N, int add, Py_ssize_t groups, Py_ssize_t from_, Py_ssize_t to,
                         int backwards) noexcept nogil
        void (*multiply_once)(void* c, Py_ssize_t ldc, const void* a, Py_ssize_t lda, const void* w, Py_ssize_t column,
                              Py_ssize_t step, Py_ssize_t M, Py_ssize_t K, Py_ssize_t N, int add,
                              void* scratch) noexcept nogil
        Py_ssize_t (*outer_size)(Py_ssize_t M, Py_ssize_t N, Py_ssize_t K) noexcept nogil
        void (*outer)(void* c, Py_ssize_t ldc, const void* a, Py_ssize_t lda, const void* b, Py_ssize_t ldb,
                      Py_ssize_t M, Py_ssize_t N, Py_ssize_t K, int add, void* scratch) noexcept nogil
        void (*sum_rows)(void* y, const void* a, Py_ssize_t lda, Py_ssize_t K, Py_ssize_t N, int add) noexcept nogil
        void (*stage)(const fr_stage* s, const fr_variant* v, int cell) noexcept nogil
        void (*stage_back)(const fr_stage* s, const fr_variant* v, int cell) noexcept nogil
        void (*norm_rows)(void* y, void* normal, void* scale, const void* gain, const void* bias, Py_ssize_t B,
                          Py_ssize_t N, double epsilon) noexcept nogil
        void (*norm_back)(void* dx, const void* d, const void* normal, const void* scale, const void* gain,
                          Py_ssize_t B, Py_ssize_t N) noexcept nogil
        void (*zone_out)(void* y, Py_ssize_t ldy, const void* before, Py_ssize_t ldb, const void* keep, double always,
                         Py_ssize_t B, Py_ssize_t N) noexcept nogil
        void (*zone_back)(void* past, void* d, const void* keep, double always, Py_ssize_t B,
                          Py_ssize_t N) noexcept nogil
        void (*times)(void* y, const void* x, Py_ssize_t ldx, const void* mask, Py_ssize_t B, Py_ssize_t N,
                      int add) noexcept nogil
        void (*sum_products)(void* y, const void* a, Py_ssize_t lda, const void* b, Py_ssize_t ldb, Py_ssize_t K,
                             Py_ssize_t N, int add) noexcept nogil
        double (*exp_row)(void* y, const void* x, Py_ssize_t N, double top, double scale) noexcept nogil
        void (*attend)(void* context, void* weights, const void* query, const void* v, const void* keys,
                       const void* values, Py_ssize_t S, Py_ssize_t A, Py_ssize_t E) noexcept nogil
        void (*activate)(void* y, const void* x, Py_ssize_t n, int which) noexcept nogil

    ctypedef struct fr_table:
        const char* name
        fr_kernels f32
        fr_kernels f64
        Py_ssize_t (*probe_fma)(float* sink, Py_ssize_t n) noexcept nogil
        void (*probe_read)(float* sink, const float* x, Py_ssize_t n, Py_ssize_t times,
                           int prefetch) noexcept nogil

    enum:
        FR_PROBE_FLOATS


# The table for an instruction set by its name, or NULL; see kernels.pyx.
cdef const fr_table* find_table(str isa) except NULL


cdef inline const fr_kernels* kernels_of(const fr_table* table, Py_ssize_t itemsize) noexcept nogil:
    """The kernels for one float type."""
    return &table.f32 if itemsize == 4 else &table.f64
