"""The time loops of the GRU on the `blas` engine, with the reset gate after or before the recurrent product.

All row arrays are in the plan's order (plan.pyx): x (rows,I), h, dy, extra (rows,H), gates (rows,3H) with blocks
r z n. h0, dh (B,H) are sorted as the plan sorts them. bias (4H) is laid out as fastrnn.h says for gru_gates.

What `extra` holds, which is what backward needs besides the gates:
    reset after:  hn = h(t-1) W_hn' + b_hn, which backward overwrites with its gradient
    reset before: rh = r h(t-1)
"""
from fastrnn._core.blas cimport gemm, real
from fastrnn._core.kernels cimport (find_table, fr_table, gru_dgates, gru_dreset, gru_dupdate, gru_gates, gru_reset,
                                    gru_update)
from fastrnn._core.plan cimport Plan


def forward(str isa, Plan plan, Py_ssize_t s0, Py_ssize_t s1, real[:, ::1] h, real[:, ::1] extra,
            real[:, ::1] gates, real[:, ::1] gh, const real[:, ::1] h0, const real[:, ::1] w_hh, bint transposed,
            const real[::1] bias, bint reset_after, bint save):
    """Run the steps s0 <= s < s1. Fills their rows of h; gates come in as x W_ih' and go out as r z n.

    save=True:  extra is (rows,H) and gates (rows,3H), both kept whole for backward.
    save=False: extra (B,H) is scratch; gates begins with the first row of these steps.
    gh (B,3H) is scratch; reset before does not touch it. `w_hh` is (3H,H), or its transpose with `transposed`.
    """
    cdef:
        const fr_table* table = find_table(isa)
        Py_ssize_t H = h0.shape[1], G = 3 * H, ldw = w_hh.shape[1]
        Py_ssize_t s, r, m, base = 0 if save or s0 == s1 else plan.first_row(s0, s1)
        const real* h_prev
        const real* w_hn = &w_hh[0, 2 * H] if transposed else &w_hh[2 * H, 0]
        real* g
        real* e
    with nogil:
        for s in range(s0, s1):
            r, m = plan.row(s), plan.size(s)
            if s > 0:
                h_prev = &h[plan.row(s - 1), 0]
            else:
                h_prev = &h0[0, 0]
            g = &gates[r - base, 0]
            e = &extra[r, 0] if save else &extra[0, 0]
            if reset_after:
                # gh = h(t-1) W_hh'
                gemm(False, not transposed, m, G, H, h_prev, H, &w_hh[0, 0], ldw, <real>0, &gh[0, 0], G)
                gru_gates(table, g, e, &h[r, 0], &gh[0, 0], h_prev, &bias[0], m, H)
            else:
                # gates[r z] += h(t-1) W_h[rz]';  gates[n] += (r h(t-1)) W_hn'
                gemm(False, not transposed, m, 2 * H, H, h_prev, H, &w_hh[0, 0], ldw, <real>1, g, G)
                gru_reset(table, g, e, h_prev, &bias[0], m, H)
                gemm(False, not transposed, m, H, H, e, H, w_hn, ldw, <real>1, g + 2 * H, G)
                gru_update(table, g, &h[r, 0], h_prev, &bias[0], m, H)


def backward(str isa, Plan plan, real[:, ::1] gates, real[:, ::1] extra, real[:, ::1] dh, real[:, ::1] drh,
             const real[:, ::1] dy, const real[:, ::1] h, const real[:, ::1] h0, const real[:, ::1] w_hh,
             bint reset_after):
    """Turn gates, and with reset after extra, into gradients. dh (B,H) comes in as that of h_n, goes out as that of h0.

    drh (B,H) is scratch; reset after does not touch it.
    """
    cdef:
        const fr_table* table = find_table(isa)
        Py_ssize_t H = dh.shape[1], G = 3 * H, s, r, m
        const real* h_prev
        const real* w_hn = &w_hh[2 * H, 0]
        real* g
    with nogil:
        for s in range(plan.steps - 1, -1, -1):
            r, m = plan.row(s), plan.size(s)
            if s > 0:
                h_prev = &h[plan.row(s - 1), 0]
            else:
                h_prev = &h0[0, 0]
            g = &gates[r, 0]
            if reset_after:
                gru_dgates(table, g, &extra[r, 0], &dh[0, 0], &dy[r, 0], h_prev, m, H)
                # dh(t-1) = z dh(t) + dhn W_hn + d[r z] W_h[rz]
                gemm(False, False, m, H, H, &extra[r, 0], H, w_hn, H, <real>1, &dh[0, 0], H)
            else:
                gru_dupdate(table, g, &dh[0, 0], &dy[r, 0], h_prev, m, H)
                # drh = dn W_hn;  dh(t-1) = z dh(t) + r drh + d[r z] W_h[rz]
                gemm(False, False, m, H, H, g + 2 * H, G, w_hn, H, <real>0, &drh[0, 0], H)
                gru_dreset(table, g, &dh[0, 0], &drh[0, 0], h_prev, m, H)
            gemm(False, False, m, H, 2 * H, g, G, &w_hh[0, 0], H, <real>1, &dh[0, 0], H)
