# The one door to BLAS. Row-major, sizes as Py_ssize_t; no other module names scipy.linalg.cython_blas.

ctypedef fused real:
    float
    double

cdef void gemm(bint trans_a, bint trans_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t lda,
               const real* b, Py_ssize_t ldb, real beta, real* c, Py_ssize_t ldc) noexcept nogil
