"""What the tests share: random problems, the engines that run here, and a way to call each cell by its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import NamedTuple

import numpy as np

import fastrnn
from fastrnn import functional
from fastrnn._core import kernels

GATES = {"rnn": 1, "lstm": 4, "gru": 3}


class Variant(NamedTuple):
    """A cell with one of its options set."""

    cell: str
    option: str | None = None
    value: object = None

    @property
    def options(self) -> dict:
        return {} if self.option is None else {self.option: self.value}

    def __str__(self) -> str:
        return self.cell if self.option is None else f"{self.cell}-{self.option}-{self.value}"


VARIANTS = (
    Variant("rnn", "nonlinearity", "tanh"),
    Variant("rnn", "nonlinearity", "relu"),
    Variant("lstm"),
    Variant("gru", "reset_after", True),
    Variant("gru", "reset_after", False),
)


class Engine(NamedTuple):
    """An engine and, where it has them, one of the instruction sets it can run here."""

    name: str
    isa: str | None = None

    def active(self, num_threads: int | None = None):
        return fastrnn.config_context(engine=self.name, isa=self.isa, num_threads=num_threads)

    def __str__(self) -> str:
        return self.name if self.isa is None else f"{self.name}-{self.isa}"


# The one place that knows the engines: a new compiled one is added to the first tuple.
COMPILED = tuple(Engine(name, isa) for name in ("native", "blas") for isa in kernels.available_isas())
ENGINES = (Engine("reference"), *COMPILED)
THREADS = (1, 2)
DTYPES = (np.float32, np.float64)


@dataclass(frozen=True)
class Problem:
    """All that goes into one forward and one backward call."""

    variant: Variant
    arrays: dict[str, np.ndarray | None]  # x, h0, (c0,) w_ih, w_hh, b_ih, b_hh, in the order of the signature
    dy: np.ndarray | None
    dstates: dict[str, np.ndarray | None]  # dh_n, (dc_n)
    lengths: np.ndarray | None = None
    reverse: bool = False
    mask: np.ndarray | None = None
    reset: np.ndarray | None = None

    def astype(self, dtype) -> Problem:
        """The same numbers in another dtype."""

        def convert(a):
            return None if a is None else a.astype(dtype)

        return replace(
            self,
            arrays={name: convert(a) for name, a in self.arrays.items()},
            dy=convert(self.dy),
            dstates={name: convert(a) for name, a in self.dstates.items()},
        )

    def with_arrays(self, **arrays) -> Problem:
        return replace(self, arrays={**self.arrays, **arrays})


def random_lengths(rng: np.random.Generator, T: int, B: int) -> np.ndarray:
    """Unsorted lengths; 0 and T are among them where there is room for both."""
    lengths = rng.integers(0, T + 1, B)
    lengths[:2] = (0, T)[:B]
    return rng.permutation(lengths)


def make(variant, T, B, I, H, dtype=np.float64, seed=0, *, lengths=None, reverse=False, biases=("b_ih", "b_hh")):
    """
    A random problem with states that are not zero, of numbers that the gates neither ignore nor saturate at.

    `lengths` is an array, or True for random ones. Where they end, x and dy hold NaN: none may ever come through.
    """
    rng = np.random.default_rng(seed)
    rows = GATES[variant.cell] * H
    shapes = {"x": (T, B, I), "h0": (B, H)}
    if variant.cell == "lstm":
        shapes["c0"] = (B, H)
    shapes |= {"w_ih": (rows, I), "w_hh": (rows, H), "b_ih": (rows,), "b_hh": (rows,)}
    arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    arrays["w_ih"] /= max(I, 1) ** 0.5
    arrays["w_hh"] /= H**0.5
    if variant.value == "relu":
        arrays["w_hh"] *= 0.7  # nothing bounds its states: keep them from growing with T
    for name in ("b_ih", "b_hh"):
        if name not in biases:
            arrays[name] = None
    dy = rng.standard_normal((T, B, H))
    dstates = {f"d{name[0]}_n": rng.standard_normal((B, H)) for name in shapes if name in ("h0", "c0")}
    if lengths is True:
        lengths = random_lengths(rng, T, B)
    if lengths is not None:
        lengths = np.asarray(lengths, dtype=np.int64).reshape(B)
        padding = np.arange(T)[:, None] >= lengths
        arrays["x"][padding] = dy[padding] = np.nan
    return Problem(variant, arrays, dy, dstates, lengths, reverse).astype(dtype)


def forward(problem: Problem, module: ModuleType = functional, save: bool = True, **options):
    """The outputs by name, y, h_n (and c_n), and the cache."""
    function = getattr(module, f"{problem.variant.cell}_forward")
    *outputs, cache = function(
        **problem.arrays,
        **problem.variant.options,
        lengths=problem.lengths,
        mask=problem.mask,
        reset=problem.reset,
        reverse=problem.reverse,
        save=save,
        **options,
    )
    return dict(zip(("y", "h_n", "c_n"), outputs, strict=False)), cache


def backward(problem: Problem, cache, module: ModuleType = functional, **options):
    """The gradients by name: dx, dh0 ..., without those that are None."""
    grads = getattr(module, f"{problem.variant.cell}_backward")(cache, problem.dy, **problem.dstates, **options)
    return {f"d{name}": grad for name, grad in grads._asdict().items() if grad is not None}


def run(problem: Problem, module: ModuleType = functional) -> dict[str, np.ndarray]:
    """Every output and every gradient, by name."""
    outputs, cache = forward(problem, module)
    return outputs | backward(problem, cache, module)


def assert_close(actual: dict, expected: dict, tolerance: float) -> None:
    """Same names and shapes, and no element further off than `tolerance` times its array's largest (at least 1)."""
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        assert actual[name].shape == wanted.shape, name
        error = np.abs(actual[name] - wanted).max(initial=0)
        scale = max(1.0, np.abs(wanted).max(initial=0))
        assert error <= tolerance * scale, f"{name}: off by {error:.3g}, allowed {tolerance * scale:.3g}"


def assert_same_bits(actual: dict, expected: dict) -> None:
    """Equal, element by element; the arrays hold no NaN."""
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        same = np.array_equal(actual[name], wanted)
        assert same, name  # of the arrays themselves pytest would tell the difference, for minutes


def shifted(a: np.ndarray, offset: int) -> np.ndarray:
    """A copy of `a` that begins `offset` bytes behind a 64-byte boundary."""
    memory = np.empty(a.nbytes + 64 + offset, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    copy = memory[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy
