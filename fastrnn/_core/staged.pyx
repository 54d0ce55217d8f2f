"""The time loops of the variants, forward and backward, for both compiled engines.

A step is a product, its normalisation, the stages of csrc/stage_impl.h, the projection and zoneout. All arrays of rows
are in the plan's order (plan.pyx); `_compiled_variants` makes them and does before and after what needs no recurrence.
Threads share a call by sequences.
"""
from libc.string cimport memset

from fastrnn._core.arrays cimport address
from fastrnn._core.kernels cimport (FR_GRU, FR_GRU_RESET, FR_GRU_UPDATE, FR_LSTM, FR_RNN_TANH, find_table, fr_kernels,
                                    fr_stage, fr_variant, kernels_of)
from fastrnn._core.matrix cimport Matrix, most_members, multiply
from fastrnn._core.plan cimport Plan
from fastrnn._core.team cimport Work, share

KINDS = {"rnn": FR_RNN_TANH, "lstm": FR_LSTM, "gru-after": FR_GRU, "gru-before": FR_GRU_RESET}
ACTIVATIONS = {name: k for k, name in enumerate((
    "sigmoid", "tanh", "relu", "affine", "leaky_relu", "thresholded_relu", "scaled_tanh", "hard_sigmoid", "elu",
    "softsign", "softplus"))}


cdef char* pointer(dict arrays, str name) except? NULL:
    array = arrays.get(name)
    return NULL if array is None else <char*>address(array)


cdef class Stages(Work):
    """
    One pass through a sequence.

    Parameters
    ----------
    kind : str
        A key of `KINDS`.
    isa : str
    plan : Plan
    options : dict
        ``activations`` (name, alpha, beta), ``clip`` or None, ``epsilon``, ``coupled``, and ``zone_h``, ``zone_c``: how
        much stays where there is no array that says it.
    arrays : dict of str to array or None
        Rows: gates, slopes (G*H); extra, hidden, c, c_new, outer, outer_slope, normal_c (H); scale_c; h, zone_h (P); zone_c
        (H); normal_x, scale_x, normal_h, scale_h, and for the second product of "gru-before" normal_n, scale_n.
        For each sequence, sorted: h0, mask_h (P), c0 (H). For all: bias, peepholes, norm_c, norm_c_bias, norm_ih, norm_hh.
        Scratch: product (B, the wider of G*H and P), h_in (B,P). `c_new` is c before zoneout, `hidden` h before projection and zoneout, and
        each may be the other's array where there is no such stage.
        For backward also dy, dc_all (rows); dh (B,P), dc (B,H), which come in as the gradients of the last states and go
        out as those of the first; drecurrent, and for the second product dn: the gradients of the products, da, da_n: those
        before normalisation, which may be the same; dprojected (rows,P); scratch: past_h (B,P), past_c, dhidden (B,H).
    matrices : tuple of Matrix or None
        W_hh (its rows r z), its rows n for "gru-before", W_hr; transposed ones for backward.
    """
    cdef const fr_kernels* kernels
    cdef Plan plan
    cdef dict arrays
    cdef tuple matrices
    cdef Matrix w, w_n, w_hr
    cdef fr_variant v
    cdef int kind
    cdef bint back, keeps_h, keeps_c
    cdef Py_ssize_t H, P, G, itemsize
    cdef double zone_h_always, zone_c_always
    cdef char *gates, *slopes, *extra, *hidden, *c, *c_new, *outer, *outer_slope, *normal_c, *scale_c, *h, *zone_h, *zone_c
    cdef char *normal_x, *scale_x, *normal_h, *scale_h, *normal_n, *scale_n, *h0, *mask_h, *c0
    cdef char *bias, *norm_ih, *norm_hh, *product, *h_in
    cdef char *dy, *dc_all, *dh, *dc, *drecurrent, *dn, *da, *da_n, *dprojected, *past_h, *past_c, *dhidden

    def __init__(self, str kind, str isa, Plan plan, dict options, dict arrays, tuple matrices, bint back):
        cdef int k
        self.plan, self.arrays, self.matrices, self.back, self.kind = plan, arrays, matrices, back, KINDS[kind]
        self.w, self.w_n, self.w_hr = matrices
        gates, h = arrays["gates"], arrays["h"]
        self.itemsize, self.P = gates.itemsize, h.shape[1]
        self.G = {"rnn": 1, "lstm": 4}.get(kind, 3)
        self.H = gates.shape[1] // self.G
        self.kernels = kernels_of(find_table(isa), self.itemsize)
        memset(&self.v, 0, sizeof(self.v))
        for k, (name, alpha, beta) in enumerate(options["activations"]):
            self.v.act[k], self.v.alpha[k], self.v.beta[k] = ACTIVATIONS[name], alpha, beta
        self.v.clip = float("inf") if options["clip"] is None else options["clip"]
        self.v.epsilon, self.v.coupled = options["epsilon"], options["coupled"]
        self.v.peepholes, self.v.norm_c = pointer(arrays, "peepholes"), pointer(arrays, "norm_c")
        self.v.norm_c_bias = pointer(arrays, "norm_c_bias")
        self.v.normalises_c = self.v.norm_c != NULL or self.v.norm_c_bias != NULL
        self.zone_h_always, self.zone_c_always = options["zone_h"], options["zone_c"]
        self.gates, self.slopes = pointer(arrays, "gates"), pointer(arrays, "slopes")
        self.extra, self.hidden, self.h = pointer(arrays, "extra"), pointer(arrays, "hidden"), pointer(arrays, "h")
        self.c, self.c_new, self.outer = pointer(arrays, "c"), pointer(arrays, "c_new"), pointer(arrays, "outer")
        self.outer_slope = pointer(arrays, "outer_slope")
        self.normal_c, self.scale_c = pointer(arrays, "normal_c"), pointer(arrays, "scale_c")
        self.zone_h, self.zone_c = pointer(arrays, "zone_h"), pointer(arrays, "zone_c")
        self.keeps_h = self.zone_h != NULL or self.zone_h_always != 0
        self.keeps_c = self.zone_c != NULL or self.zone_c_always != 0
        self.normal_x, self.scale_x = pointer(arrays, "normal_x"), pointer(arrays, "scale_x")
        self.normal_h, self.scale_h = pointer(arrays, "normal_h"), pointer(arrays, "scale_h")
        self.normal_n, self.scale_n = pointer(arrays, "normal_n"), pointer(arrays, "scale_n")
        self.h0, self.c0, self.mask_h = pointer(arrays, "h0"), pointer(arrays, "c0"), pointer(arrays, "mask_h")
        self.bias, self.norm_ih = pointer(arrays, "bias"), pointer(arrays, "norm_ih")
        self.norm_hh, self.product = pointer(arrays, "norm_hh"), pointer(arrays, "product")
        self.h_in = pointer(arrays, "h_in")
        if back:
            self.dy, self.dc_all = pointer(arrays, "dy"), pointer(arrays, "dc_all")
            self.dh, self.dc, self.dn = pointer(arrays, "dh"), pointer(arrays, "dc"), pointer(arrays, "dn")
            self.drecurrent, self.da = pointer(arrays, "drecurrent"), pointer(arrays, "da")
            self.da_n, self.dprojected = pointer(arrays, "da_n"), pointer(arrays, "dprojected")
            self.past_h, self.past_c = pointer(arrays, "past_h"), pointer(arrays, "past_c")
            self.dhidden = pointer(arrays, "dhidden")

    def run(self, sharing):
        """Walk all steps."""
        cdef int members = most_members(self.w_hr, most_members(self.w_n, most_members(self.w, sharing.members)))
        cdef long patience = sharing.patience
        if self.plan.B and self.plan.steps:
            with nogil:
                share(self, members, patience)

    cdef void part(self, int rank, int size) noexcept nogil:
        cdef Py_ssize_t s, b0 = self.plan.cut(rank, size), b1 = self.plan.cut(rank + 1, size), m, before
        if self.back:
            for s in range(self.plan.steps - 1, -1, -1):
                m, before = self.plan.size(s, b0, b1), self.plan.row(s - 1) + b0 if s else -1
                if m:
                    self.step_back(self.plan.row(s) + b0, before, b0, m, s & 1)
        else:
            for s in range(self.plan.steps):
                m, before = self.plan.size(s, b0, b1), self.plan.row(s - 1) + b0 if s else -1
                if m:
                    self.step(self.plan.row(s) + b0, before, b0, m, s & 1)

    cdef inline char* at(self, char* array, Py_ssize_t row, Py_ssize_t width) noexcept nogil:
        """Where a row begins; NULL of an array that is not there."""
        return NULL if array == NULL else array + row * width * self.itemsize

    cdef void begin(self, fr_stage* stage, Py_ssize_t r, Py_ssize_t before, Py_ssize_t b0, Py_ssize_t m) noexcept nogil:
        """What the stages of both ways take: the m rows from r on; those of the step before, -1 at the start."""
        cdef Py_ssize_t H = self.H, P = self.P
        memset(stage, 0, sizeof(stage[0]))
        stage.B, stage.H, stage.bias = m, H, self.bias
        stage.gates, stage.slopes = self.at(self.gates, r, self.G * H), self.at(self.slopes, r, self.G * H)
        stage.product = self.at(self.product, b0, max(self.G * H, P))
        stage.extra, stage.outer = self.at(self.extra, r, H), self.at(self.outer, r, H)
        stage.outer_slope = self.at(self.outer_slope, r, H)
        stage.normal, stage.scale = self.at(self.normal_c, r, H), self.at(self.scale_c, r, 1)
        stage.h_prev = self.at(self.h0, b0, P) if before < 0 else self.at(self.h, before, P)
        stage.c_prev = self.at(self.c0, b0, H) if before < 0 else self.at(self.c, before, H)
        stage.ld_prev = stage.ld_in = P
        stage.h_in = stage.h_prev
        if self.mask_h != NULL:
            stage.h_in = self.at(self.h_in, b0, P)
            self.kernels.times(<void*>stage.h_in, stage.h_prev, P, self.at(self.mask_h, b0, P), m, P, False)

    cdef void step(self, Py_ssize_t r, Py_ssize_t before, Py_ssize_t b0, Py_ssize_t m, bint backwards) noexcept nogil:
        cdef:
            Py_ssize_t H = self.H, P = self.P, N = self.G * H if self.kind != FR_GRU_RESET else 2 * H
            double epsilon = self.v.epsilon
            fr_stage stage
        self.begin(&stage, r, before, b0, m)
        stage.h, stage.ldh, stage.c = self.at(self.hidden, r, H), H, self.at(self.c_new, r, H)
        if self.norm_ih != NULL:
            self.kernels.norm_rows(stage.gates, self.at(self.normal_x, r, self.G * H), self.at(self.scale_x, r, 1),
                                   self.norm_ih, NULL, m, self.G * H, epsilon)
        # product (B,N) = (m_h h) W_hh'
        multiply(self.w, stage.product, N, stage.h_in, P, m, False, backwards)
        if self.norm_hh != NULL:
            self.kernels.norm_rows(stage.product, self.at(self.normal_h, r, N), self.at(self.scale_h, r, 1),
                                   self.norm_hh, NULL, m, N, epsilon)
        self.kernels.stage(&stage, &self.v, self.kind)
        if self.kind == FR_GRU_RESET:
            # product (B,H) = (r h) W_hn'
            multiply(self.w_n, stage.product, H, stage.extra, H, m, False, backwards)
            if self.norm_hh != NULL:
                self.kernels.norm_rows(stage.product, self.at(self.normal_n, r, H), self.at(self.scale_n, r, 1),
                                       self.at(self.norm_hh, 2 * H, 1), NULL, m, H, epsilon)
            self.kernels.stage(&stage, &self.v, FR_GRU_UPDATE)
        cdef char* h = self.at(self.h, r, P)
        if self.w_hr is not None:
            # h (B,P) = hidden W_hr'
            multiply(self.w_hr, h, P, stage.h, H, m, False, backwards)
        if self.keeps_h:
            self.kernels.zone_out(h, P, stage.h_prev, P, self.at(self.zone_h, r, P), self.zone_h_always, m, P)
        if self.keeps_c:
            self.kernels.times(self.at(self.c, r, H), stage.c, H, NULL, m, H, False)
            self.kernels.zone_out(self.at(self.c, r, H), H, stage.c_prev, H, self.at(self.zone_c, r, H),
                                  self.zone_c_always, m, H)

    cdef void product_back(self, Matrix w, void* out, char* d, char* da, char* normal, char* scale, char* gain,
                           Py_ssize_t m, Py_ssize_t N, Py_ssize_t width, bint add, bint backwards) noexcept nogil:
        """out (m,width) = d (m,N) w, or += with `add`, on the way through the normalisation, if there is one, into da."""
        if self.norm_hh != NULL:
            self.kernels.norm_back(da, d, normal, scale, gain, m, N)
            d = da
        multiply(w, out, width, d, N, m, add, backwards)

    cdef void step_back(self, Py_ssize_t r, Py_ssize_t before, Py_ssize_t b0, Py_ssize_t m,
                        bint backwards) noexcept nogil:
        cdef:
            Py_ssize_t H = self.H, P = self.P, N = self.G * H
            const fr_kernels* k = self.kernels
            char* dh = self.at(self.dh, b0, P)
            char* dc = self.at(self.dc, b0, H)
            char* product
            char* d
            bint past = self.kind == FR_GRU or self.kind == FR_GRU_RESET  # whether dh has a part that goes past the product
            fr_stage stage
        self.begin(&stage, r, before, b0, m)
        k.times(dh, self.at(self.dy, r, P), P, NULL, m, P, True)
        if self.keeps_h:
            k.zone_back(self.at(self.past_h, b0, P), dh, self.at(self.zone_h, r, P), self.zone_h_always, m, P)
        stage.dh, stage.dc = dh, dc
        if self.w_hr is not None:
            # dhidden (B,H) = dh W_hr
            k.times(self.at(self.dprojected, r, P), dh, P, NULL, m, P, False)
            stage.dh = self.at(self.dhidden, b0, H)
            multiply(self.w_hr, stage.dh, H, dh, P, m, False, backwards)
        if self.dc_all != NULL:
            k.times(dc, self.at(self.dc_all, r, H), H, NULL, m, H, True)
        if self.keeps_c:
            k.zone_back(self.at(self.past_c, b0, H), dc, self.at(self.zone_c, r, H), self.zone_c_always, m, H)
        # dh(t-1) = dpre(t) W_hh, for a GRU + z dh(t)
        product = dh if self.mask_h == NULL else <char*>stage.product
        if self.kind == FR_GRU_RESET:
            stage.drecurrent = self.at(self.dn, r, H)
            k.stage_back(&stage, &self.v, FR_GRU_UPDATE)
            # drh = dn W_hn
            self.product_back(self.w_n, stage.product, self.at(self.dn, r, H), self.at(self.da_n, r, H),
                              self.at(self.normal_n, r, H), self.at(self.scale_n, r, 1),
                              self.at(self.norm_hh, 2 * H, 1), m, H, H, False, backwards)
            product, N = <char*>stage.product, 2 * H
        stage.drecurrent = self.at(self.drecurrent, r, N)
        k.stage_back(&stage, &self.v, self.kind)
        d = <char*>(stage.drecurrent if past else stage.gates)
        self.product_back(self.w, product, d, self.at(self.da, r, N), self.at(self.normal_h, r, N),
                          self.at(self.scale_h, r, 1), self.norm_hh, m, N, P,
                          self.kind == FR_GRU_RESET or past and product == dh, backwards)
        if product != dh:
            k.times(dh, product, P, self.at(self.mask_h, b0, P), m, P, past)
        if self.keeps_h:
            k.times(dh, self.at(self.past_h, b0, P), P, NULL, m, P, True)
        if self.keeps_c:
            k.times(dc, self.at(self.past_c, b0, H), H, NULL, m, H, True)
