"""The time loops of the plain RNN on the `blas` engine.

All row arrays are in the plan's order (plan.pyx): x (rows,I), h, dy, dpre (rows,H). h0, dh (B,H) are sorted as the
plan sorts them.
"""
from fastrnn._core.blas cimport gemm, real
from fastrnn._core.kernels cimport find_table, fr_table, rnn_dgates, rnn_gates
from fastrnn._core.plan cimport Plan


def forward(str isa, Plan plan, real[:, ::1] h, const real[:, ::1] h0, const real[:, ::1] w_hh,
            bint transposed, const real[::1] bias, bint relu):
    """Run all steps. h comes in as x W_ih' and goes out as the states: the cell needs no other memory.

    `w_hh` is (H,H), or its transpose with `transposed`.
    """
    cdef:
        const fr_table* table = find_table(isa)
        Py_ssize_t H = h0.shape[1], s, r, m
        const real* h_prev
    with nogil:
        for s in range(plan.steps):
            r, m = plan.row(s), plan.size(s)
            if s > 0:
                h_prev = &h[plan.row(s - 1), 0]
            else:
                h_prev = &h0[0, 0]
            # h(t) = act(h(t) + h(t-1) W_hh' + b)
            gemm(False, not transposed, m, H, H, h_prev, H, &w_hh[0, 0], H, <real>1, &h[r, 0], H)
            rnn_gates(table, &h[r, 0], &h[r, 0], &bias[0], m, H, relu)


def backward(str isa, Plan plan, real[:, ::1] dpre, real[:, ::1] dh, const real[:, ::1] dy, const real[:, ::1] h,
             const real[:, ::1] w_hh, bint relu):
    """Fill dpre, the gradient of the pre-activations. dh (B,H) comes in as that of h_n and goes out as that of h0."""
    cdef:
        const fr_table* table = find_table(isa)
        Py_ssize_t H = dh.shape[1], s, r, m
    with nogil:
        for s in range(plan.steps - 1, -1, -1):
            r, m = plan.row(s), plan.size(s)
            rnn_dgates(table, &dpre[r, 0], &dh[0, 0], &dy[r, 0], &h[r, 0], m, H, relu)
            # dh(t-1) = dpre(t) W_hh
            gemm(False, False, m, H, H, &dpre[r, 0], H, &w_hh[0, 0], H, <real>0, &dh[0, 0], H)
