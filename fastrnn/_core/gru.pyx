"""The time loops of the GRU, for both compiled engines, with the reset gate after or before the recurrent product.

All row arrays are in the plan's order (plan.pyx): x (rows,I), h, dy, extra (rows,H), gates (rows,3H) with blocks
r z n. h0, dh (B,H) are sorted as the plan sorts them. bias (4H) is laid out as fastrnn.h says for gru_gates.

What `extra` holds, which is what backward needs besides the gates:
    reset after:  hn = h(t-1) W_hn' + b_hn, which backward overwrites with its gradient
    reset before: rh = r h(t-1)
"""
from fastrnn._core.blas cimport real
from fastrnn._core.kernels cimport (find_table, fr_table, gru_dgates, gru_dreset, gru_dupdate, gru_gates, gru_reset,
                                    gru_update)
from fastrnn._core.matrix cimport Matrix, multiply
from fastrnn._core.plan cimport Plan


def forward(str isa, Plan plan, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t s0, Py_ssize_t s1, real[:, ::1] h, real[:, ::1] extra,
            real[:, ::1] gates, real[:, ::1] gh, const real[:, ::1] h0, Matrix w_first, Matrix w_n,
            const real[::1] bias, bint save):
    """Run the steps s0 <= s < s1 of the sequences b0 <= b < b1 (as sorted). Fills their rows of h; gates come in as x W_ih' and go out as r z n.

    save=True:  extra is (rows,H) and gates (rows,3H), both kept whole for backward.
    save=False: extra (B,H) is scratch; gates begins with the first row of these steps.
    gh (B,3H) is scratch; reset before does not touch it.
    Reset after: w_first is all of W_hh, w_n is None. Reset before: W_h[r z] and W_hn.
    """
    cdef:
        const fr_table* table = find_table(isa)
        Py_ssize_t H = h0.shape[1], G = 3 * H
        Py_ssize_t s, r, m, base = 0 if save or s0 == s1 else plan.first_row(s0, s1)
        const real* h_prev
        bint reset_after = w_n is None
        real* g
        real* e
    with nogil:
        for s in range(s0, s1):
            r, m = plan.row(s) + b0, plan.size(s, b0, b1)
            if s > 0:
                h_prev = &h[plan.row(s - 1) + b0, 0]
            else:
                h_prev = &h0[b0, 0]
            g = &gates[r - base, 0]
            e = &extra[r, 0] if save else &extra[b0, 0]
            if reset_after:
                # gh = h(t-1) W_hh'
                multiply(w_first, &gh[b0, 0], G, h_prev, H, m, False)
                gru_gates(table, g, e, &h[r, 0], &gh[b0, 0], h_prev, &bias[0], m, H)
            else:
                # gates[r z] += h(t-1) W_h[rz]';  gates[n] += (r h(t-1)) W_hn'
                multiply(w_first, g, G, h_prev, H, m, True)
                gru_reset(table, g, e, h_prev, &bias[0], m, H)
                multiply(w_n, g + 2 * H, G, e, H, m, True)
                gru_update(table, g, &h[r, 0], h_prev, &bias[0], m, H)


def backward(str isa, Plan plan, Py_ssize_t b0, Py_ssize_t b1, real[:, ::1] gates, real[:, ::1] extra, real[:, ::1] dh, real[:, ::1] drh,
             const real[:, ::1] dy, const real[:, ::1] h, const real[:, ::1] h0, Matrix w_rz, Matrix w_n,
             bint reset_after):
    """Turn gates, and with reset after extra, into gradients, for the sequences b0 <= b < b1. dh (B,H) comes in as that of h_n, goes out as that of h0.

    drh (B,H) is scratch; reset after does not touch it.
    """
    cdef:
        const fr_table* table = find_table(isa)
        Py_ssize_t H = dh.shape[1], G = 3 * H, s, r, m
        const real* h_prev
        real* g
    with nogil:
        for s in range(plan.steps - 1, -1, -1):
            r, m = plan.row(s) + b0, plan.size(s, b0, b1)
            if s > 0:
                h_prev = &h[plan.row(s - 1) + b0, 0]
            else:
                h_prev = &h0[b0, 0]
            g = &gates[r, 0]
            if reset_after:
                gru_dgates(table, g, &extra[r, 0], &dh[b0, 0], &dy[r, 0], h_prev, m, H)
                # dh(t-1) = z dh(t) + dhn W_hn + d[r z] W_h[rz]
                multiply(w_n, &dh[b0, 0], H, &extra[r, 0], H, m, True)
            else:
                gru_dupdate(table, g, &dh[b0, 0], &dy[r, 0], h_prev, m, H)
                # drh = dn W_hn;  dh(t-1) = z dh(t) + r drh + d[r z] W_h[rz]
                multiply(w_n, &drh[b0, 0], H, g + 2 * H, G, m, False)
                gru_dreset(table, g, &dh[b0, 0], &drh[b0, 0], h_prev, m, H)
            multiply(w_rz, &dh[b0, 0], H, g, G, m, True)
