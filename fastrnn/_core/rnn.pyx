"""The time loops of the plain RNN, for both compiled engines.

All row arrays are in the plan's order (plan.pyx): x (rows,I), h, dy, dpre (rows,H). h0, dh (B,H) are sorted as the
plan sorts them.
"""
from fastrnn._core.blas cimport real
from fastrnn._core.kernels cimport find_table, fr_table, rnn_dgates, rnn_gates
from fastrnn._core.matrix cimport Matrix, multiply
from fastrnn._core.plan cimport Plan


def forward(str isa, Plan plan, Py_ssize_t b0, Py_ssize_t b1, real[:, ::1] h, const real[:, ::1] h0, Matrix w_hh,
            const real[::1] bias, bint relu):
    """Run all steps of the sequences b0 <= b < b1 (as sorted). h comes in as x W_ih' and goes out as the states: the cell needs no other memory."""
    cdef:
        const fr_table* table = find_table(isa)
        Py_ssize_t H = h0.shape[1], s, r, m
        const real* h_prev
    with nogil:
        for s in range(plan.steps):
            r, m = plan.row(s) + b0, plan.size(s, b0, b1)
            if s > 0:
                h_prev = &h[plan.row(s - 1) + b0, 0]
            else:
                h_prev = &h0[b0, 0]
            # h(t) = act(h(t) + h(t-1) W_hh' + b)
            multiply(w_hh, &h[r, 0], H, h_prev, H, m, True)
            rnn_gates(table, &h[r, 0], &h[r, 0], &bias[0], m, H, relu)


def backward(str isa, Plan plan, Py_ssize_t b0, Py_ssize_t b1, real[:, ::1] dpre, real[:, ::1] dh, const real[:, ::1] dy, const real[:, ::1] h,
             Matrix w_hh, bint relu):
    """Fill dpre, the gradient of the pre-activations, for the sequences b0 <= b < b1. dh (B,H) comes in as that of h_n and goes out as that of h0."""
    cdef:
        const fr_table* table = find_table(isa)
        Py_ssize_t H = dh.shape[1], s, r, m
    with nogil:
        for s in range(plan.steps - 1, -1, -1):
            r, m = plan.row(s) + b0, plan.size(s, b0, b1)
            rnn_dgates(table, &dpre[r, 0], &dh[b0, 0], &dy[r, 0], &h[r, 0], m, H, relu)
            # dh(t-1) = dpre(t) W_hh
            multiply(w_hh, &dh[b0, 0], H, &dpre[r, 0], H, m, False)
