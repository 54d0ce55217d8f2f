"""What is run: cells, shapes, arrays, and the results that are right."""

import copy

import numpy as np

from fastrnn import reference

CELLS = ("lstm", "gru", "rnn")
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
# T, B, I, H; the last three are DeepBench's.
SHAPES = [
    (1, 1, 32, 32),
    (1, 1, 64, 128),
    (1, 1, 256, 512),
    (100, 1, 16, 32),
    (100, 1, 64, 128),
    (100, 1, 256, 256),
    (50, 1, 512, 512),
    (25, 1, 1024, 1024),
    (30, 32, 10, 50),
    (100, 32, 32, 64),
    (50, 32, 128, 256),
    (25, 64, 512, 512),
    (25, 32, 1024, 1024),
    (150, 1, 256, 256),
    (150, 32, 256, 256),
    (25, 16, 2048, 2048),
]
TOLERANCE = 1e-4


class MismatchError(Exception):
    """A library's results are not those of the reference."""


class Problem:
    """One cell at one shape, its arrays random but the same at every call: GRU with reset after, RNN with tanh."""

    def __init__(self, cell, shape, dtype=np.float32):
        T, B, I, H = self.shape = shape
        self.cell, self.dtype = cell, np.dtype(dtype)
        self.gates = G = GATES[cell]
        rng = np.random.default_rng(0)
        bound = 1 / np.sqrt(H)  # as layers start; larger weights make the recurrence chaotic

        def draw(*size):
            return rng.uniform(-bound, bound, size).astype(dtype)

        self.x = rng.uniform(-1, 1, (T, B, I)).astype(dtype)
        self.states = [draw(B, H) for _ in range(2 if cell == "lstm" else 1)]  # h0, and c0
        self.w_ih, self.w_hh, self.b_ih, self.b_hh = draw(G * H, I), draw(G * H, H), draw(G * H), draw(G * H)
        self.dy = draw(T, B, H)

    def first_step(self):
        """The same problem with one time step."""
        first = copy.copy(self)
        first.shape = (1, *self.shape[1:])
        first.x, first.dy = self.x[:1], self.dy[:1]
        return first

    @property
    def label(self):
        return ",".join(map(str, self.shape))

    @property
    def state_dict(self):
        """The parameters by PyTorch's names."""
        values = (self.w_ih, self.w_hh, self.b_ih, self.b_hh)
        return dict(zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), values, strict=True))

    @property
    def arguments(self):
        """Those of `fastrnn.functional`'s forward functions."""
        return [self.x, *self.states, self.w_ih, self.w_hh, self.b_ih, self.b_hh]

    @property
    def flops(self):
        """Of a forward pass, in its matrix products; training takes three times that."""
        T, B, I, H = self.shape
        return 2 * T * B * self.gates * H * (I + H)

    @property
    def flops_before(self):
        """Those of the input's product, where it is made for all steps at once."""
        T, B, I, H = self.shape
        return 2 * T * B * self.gates * H * I if T > 1 else 0

    @property
    def bytes_per_step(self):
        """The weights that a step at batch 1 has to read: W_hh, and W_ih where there is but one step."""
        T, _, I, H = self.shape
        return self.gates * H * (H + (I if T == 1 else 0)) * self.dtype.itemsize

    def _reference(self, save):
        arguments = [a.astype(np.float64) for a in self.arguments]
        return getattr(reference, f"{self.cell}_forward")(*arguments, save=save)

    def expected_outputs(self):
        """``y, h_n`` and for an LSTM ``c_n``, by the NumPy reference in float64."""
        return list(self._reference(save=False)[:-1])

    def expected_gradients(self):
        """Those of ``x, h0, (c0,) w_ih, w_hh, b_ih, b_hh``, by the NumPy reference in float64."""
        cache = self._reference(save=True)[-1]
        grads = getattr(reference, f"{self.cell}_backward")(cache, self.dy.astype(np.float64))
        return [grad for grad in grads if grad is not None]  # there is no variant


def compare(got, expected, relative):
    """The largest difference, of outputs as it is, of gradients relative to the largest value of each array."""
    if [np.shape(a) for a in got] != [b.shape for b in expected]:
        raise MismatchError(f"shapes {[np.shape(a) for a in got]}, expected {[b.shape for b in expected]}")
    scales = [max(np.abs(b).max(), 1e-30) if relative else 1.0 for b in expected]
    worst = max(float(np.abs(a - b).max()) / s for a, b, s in zip(got, expected, scales, strict=True))
    if not worst <= TOLERANCE:  # True for NaN too
        raise MismatchError(f"results differ by {worst:.1e}, more than {TOLERANCE:.0e}")
    return worst
