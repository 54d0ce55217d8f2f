"""The time loops of the LSTM, for both compiled engines.

All row arrays are in the plan's order (plan.pyx): x (rows,I), h, c, dy (rows,H), gates (rows,4H) with blocks i f g o.
States h0, c0, dh, dc (B,H) are sorted as the plan sorts them.
"""
from fastrnn._core.blas cimport real
from fastrnn._core.kernels cimport find_table, fr_table, lstm_dgates, lstm_gates
from fastrnn._core.matrix cimport Matrix, multiply
from fastrnn._core.plan cimport Plan


def forward(str isa, Plan plan, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t s0, Py_ssize_t s1, real[:, ::1] h, real[:, ::1] c, real[:, ::1] gates,
            const real[:, ::1] h0, const real[:, ::1] c0, Matrix w_hh, const real[::1] bias, bint save):
    """Run the steps s0 <= s < s1 of the sequences b0 <= b < b1 (as sorted). Fills their rows of h; gates come in as x W_ih' and go out as i f g o.

    save=True:  c is (rows,H) and gates (rows,4H), both kept whole for backward.
    save=False: c (B,H) comes in as c(s0-1) and goes out as c(s1-1); gates begins with the first row of these steps.
    """
    cdef:
        const fr_table* table = find_table(isa)
        Py_ssize_t H = h0.shape[1], G = 4 * H
        Py_ssize_t s, r, m, base = 0 if save or s0 == s1 else plan.first_row(s0, s1)
        const real* h_prev
        const real* c_prev
        real* g
        real* c_new
    with nogil:
        for s in range(s0, s1):
            r, m = plan.row(s) + b0, plan.size(s, b0, b1)
            if s > 0:
                h_prev = &h[plan.row(s - 1) + b0, 0]
            else:
                h_prev = &h0[b0, 0]
            c_new = &c[r, 0] if save else &c[b0, 0]
            if s == 0:
                c_prev = &c0[b0, 0]
            else:
                c_prev = &c[plan.row(s - 1) + b0, 0] if save else c_new
            g = &gates[r - base, 0]
            # gates += h(t-1) W_hh'
            multiply(w_hh, g, G, h_prev, H, m, True)
            lstm_gates(table, g, c_new, &h[r, 0], c_prev, &bias[0], m, H)


def backward(str isa, Plan plan, Py_ssize_t b0, Py_ssize_t b1, real[:, ::1] gates, real[:, ::1] dh, real[:, ::1] dc, const real[:, ::1] dy,
             const real[:, ::1] c, const real[:, ::1] c0, Matrix w_hh):
    """Turn gates into dgates, for the sequences b0 <= b < b1. dh, dc (B,H) come in as the gradients of h_n, c_n and go out as those of h0, c0."""
    cdef:
        const fr_table* table = find_table(isa)
        Py_ssize_t H = dh.shape[1], G = 4 * H, s, r, m
        const real* c_prev
    with nogil:
        for s in range(plan.steps - 1, -1, -1):
            r, m = plan.row(s) + b0, plan.size(s, b0, b1)
            c_prev = &c[plan.row(s - 1) + b0, 0] if s > 0 else &c0[b0, 0]
            lstm_dgates(table, &gates[r, 0], &dc[b0, 0], &dh[b0, 0], &dy[r, 0], &c[r, 0], c_prev, m, H)
            # dh(t-1) = dgates(t) W_hh
            multiply(w_hh, &dh[b0, 0], H, &gates[r, 0], G, m, False)
