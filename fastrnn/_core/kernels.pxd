# csrc/fastrnn.h for Cython, which says what each function takes and gives.
#
# C has the table twice, for float and for double. Here one struct stands for both, with void pointers: the C compiler
# sees the real members behind it and checks the types of every call. The inline functions pick f32 or f64 by the type
# of their arguments.
from fastrnn._core.blas cimport real

cdef extern from "fastrnn.h" nogil:
    ctypedef struct fr_kernels "fr_kernels_f32":
        void (*rnn_gates)(void* h, const void* pre, const void* bias, Py_ssize_t B, Py_ssize_t H,
                          int relu) noexcept nogil
        void (*rnn_dgates)(void* dpre, const void* dh, const void* dy, const void* h, Py_ssize_t B, Py_ssize_t H,
                           int relu) noexcept nogil
        void (*lstm_gates)(void* gates, void* c, void* h, const void* c_prev, const void* bias, Py_ssize_t B,
                           Py_ssize_t H) noexcept nogil
        void (*lstm_dgates)(void* gates, void* dc, const void* dh, const void* dy, const void* c, const void* c_prev,
                            Py_ssize_t B, Py_ssize_t H) noexcept nogil
        void (*gru_gates)(void* gates, void* hn, void* h, const void* gh, const void* h_prev, const void* bias,
                          Py_ssize_t B, Py_ssize_t H) noexcept nogil
        void (*gru_dgates)(void* gates, void* hn, void* dh, const void* dy, const void* h_prev, Py_ssize_t B,
                           Py_ssize_t H) noexcept nogil
        void (*gru_reset)(void* gates, void* rh, const void* h_prev, const void* bias, Py_ssize_t B,
                          Py_ssize_t H) noexcept nogil
        void (*gru_update)(void* gates, void* h, const void* h_prev, const void* bias, Py_ssize_t B,
                           Py_ssize_t H) noexcept nogil
        void (*gru_dupdate)(void* gates, void* dh, const void* dy, const void* h_prev, Py_ssize_t B,
                            Py_ssize_t H) noexcept nogil
        void (*gru_dreset)(void* gates, void* dh, const void* drh, const void* h_prev, Py_ssize_t B,
                           Py_ssize_t H) noexcept nogil
        Py_ssize_t (*packed_size)(Py_ssize_t K, Py_ssize_t N) noexcept nogil
        void (*pack)(void* packed, const void* w, Py_ssize_t column, Py_ssize_t step, Py_ssize_t K,
                     Py_ssize_t N) noexcept nogil
        void (*multiply)(void* c, Py_ssize_t ldc, const void* a, Py_ssize_t lda, const void* packed, Py_ssize_t M,
                         Py_ssize_t K, Py_ssize_t N, int add) noexcept nogil
        void (*outer)(void* c, Py_ssize_t ldc, const void* a, Py_ssize_t lda, const void* b, Py_ssize_t ldb,
                      Py_ssize_t M, Py_ssize_t N, Py_ssize_t K) noexcept nogil
        void (*activate)(void* y, const void* x, Py_ssize_t n, int which) noexcept nogil

    ctypedef struct fr_table:
        const char* name
        fr_kernels f32
        fr_kernels f64


# The table for an instruction set by its name, or NULL; see kernels.pyx.
cdef const fr_table* find_table(str isa) except NULL


cdef inline void rnn_gates(const fr_table* table, real* h, const real* pre, const real* bias, Py_ssize_t B,
                           Py_ssize_t H, int relu) noexcept nogil:
    if real is float:
        table.f32.rnn_gates(h, pre, bias, B, H, relu)
    else:
        table.f64.rnn_gates(h, pre, bias, B, H, relu)

cdef inline void rnn_dgates(const fr_table* table, real* dpre, const real* dh, const real* dy, const real* h,
                            Py_ssize_t B, Py_ssize_t H, int relu) noexcept nogil:
    if real is float:
        table.f32.rnn_dgates(dpre, dh, dy, h, B, H, relu)
    else:
        table.f64.rnn_dgates(dpre, dh, dy, h, B, H, relu)

cdef inline void lstm_gates(const fr_table* table, real* gates, real* c, real* h, const real* c_prev,
                            const real* bias, Py_ssize_t B, Py_ssize_t H) noexcept nogil:
    if real is float:
        table.f32.lstm_gates(gates, c, h, c_prev, bias, B, H)
    else:
        table.f64.lstm_gates(gates, c, h, c_prev, bias, B, H)

cdef inline void lstm_dgates(const fr_table* table, real* gates, real* dc, const real* dh, const real* dy,
                             const real* c, const real* c_prev, Py_ssize_t B, Py_ssize_t H) noexcept nogil:
    if real is float:
        table.f32.lstm_dgates(gates, dc, dh, dy, c, c_prev, B, H)
    else:
        table.f64.lstm_dgates(gates, dc, dh, dy, c, c_prev, B, H)

cdef inline void gru_gates(const fr_table* table, real* gates, real* hn, real* h, const real* gh, const real* h_prev,
                           const real* bias, Py_ssize_t B, Py_ssize_t H) noexcept nogil:
    if real is float:
        table.f32.gru_gates(gates, hn, h, gh, h_prev, bias, B, H)
    else:
        table.f64.gru_gates(gates, hn, h, gh, h_prev, bias, B, H)

cdef inline void gru_dgates(const fr_table* table, real* gates, real* hn, real* dh, const real* dy,
                            const real* h_prev, Py_ssize_t B, Py_ssize_t H) noexcept nogil:
    if real is float:
        table.f32.gru_dgates(gates, hn, dh, dy, h_prev, B, H)
    else:
        table.f64.gru_dgates(gates, hn, dh, dy, h_prev, B, H)

cdef inline void gru_reset(const fr_table* table, real* gates, real* rh, const real* h_prev, const real* bias,
                           Py_ssize_t B, Py_ssize_t H) noexcept nogil:
    if real is float:
        table.f32.gru_reset(gates, rh, h_prev, bias, B, H)
    else:
        table.f64.gru_reset(gates, rh, h_prev, bias, B, H)

cdef inline void gru_update(const fr_table* table, real* gates, real* h, const real* h_prev, const real* bias,
                            Py_ssize_t B, Py_ssize_t H) noexcept nogil:
    if real is float:
        table.f32.gru_update(gates, h, h_prev, bias, B, H)
    else:
        table.f64.gru_update(gates, h, h_prev, bias, B, H)

cdef inline void gru_dupdate(const fr_table* table, real* gates, real* dh, const real* dy, const real* h_prev,
                             Py_ssize_t B, Py_ssize_t H) noexcept nogil:
    if real is float:
        table.f32.gru_dupdate(gates, dh, dy, h_prev, B, H)
    else:
        table.f64.gru_dupdate(gates, dh, dy, h_prev, B, H)

cdef inline void gru_dreset(const fr_table* table, real* gates, real* dh, const real* drh, const real* h_prev,
                            Py_ssize_t B, Py_ssize_t H) noexcept nogil:
    if real is float:
        table.f32.gru_dreset(gates, dh, drh, h_prev, B, H)
    else:
        table.f64.gru_dreset(gates, dh, drh, h_prev, B, H)
