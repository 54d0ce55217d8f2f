"""Matrix products: who computes them, on which of the three ways, and on how many threads.

NumPy brings a BLAS of its own. With both at work in turn, the idle threads of one spin on the cores that the other
needs: a training step of the demo's quick model took 16 ms on two cores that way and 4.4 ms with SciPy's alone. So
nothing in this package multiplies matrices with ``@``, but for the `reference` engine, which does nothing else.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from fastrnn import _settings, _sharing
from fastrnn._blas_threads import product_of, step_products_of
from fastrnn._core.blas import matmul_into
from fastrnn._core.cell import Cell
from fastrnn._core.matrix import Matrix, multiply_into, outer_into, sum_rows_into
from fastrnn._sharing import ALONE, Sharing


def _blas(c, a, b, trans_a=False, trans_b=False, add=False) -> None:
    with product_of(c.size * a.shape[1 - trans_a]):
        matmul_into(c, a, b, trans_a, trans_b, add)


class NumPyProducts:
    """Those of the `reference` engine that a layer without a recurrence has."""

    def forward(self, out: np.ndarray, a: np.ndarray, w: np.ndarray) -> None:
        """Out (m,n) = a (m,k) W'."""
        np.matmul(a, w.T, out)

    def backward(self, out: np.ndarray, d: np.ndarray, w: np.ndarray) -> None:
        """Out (m,k) = d (m,n) W."""
        np.matmul(d, w, out)

    def weight_gradient(self, out: np.ndarray, d: np.ndarray, rows: np.ndarray, blocks: np.ndarray, add: bool) -> None:
        """Out += d (m,n) transposed times rows (m,k)."""
        out += d.T @ rows

    def bias_gradient(self, out: np.ndarray, d: np.ndarray, blocks: np.ndarray, add: bool) -> None:
        """Out += the sum over the rows of d."""
        out += d.sum(axis=0)


class BlasProducts:
    """The products of the `blas` engine."""

    engine = "blas"

    # OpenBLAS's AVX-512 kernels read a small transposed operand at half the speed: at B=32, H=50 the recurrent product
    # takes 6.3 us with W_hh as it is and 3.8 us with a transposed copy, which costs 2.8 us once. From H=128 on there is
    # no gain. With few rows there is little, and a loss: those products then add up one by one, where they add up in as
    # many partial sums as a vector has lanes, and the plain RNN at B=2, H=96 has 1.7 times the rounding error.
    TRANSPOSE_BELOW = 32 * 1024  # elements of W_hh
    TRANSPOSE_FROM_STEPS = 4
    TRANSPOSE_FROM_BATCH = 8

    def cell(self, kind: str, isa: str, w_hh: np.ndarray, bias: np.ndarray, steps: int, batch: int) -> Cell:
        """The recurrent half of a cell (`_core.cell`), for so many steps of so many sequences."""
        H = w_hh.shape[1]
        parts = (w_hh[: 2 * H], w_hh[2 * H :]) if kind == "gru-before" else (w_hh,)
        return Cell(kind, isa, bias, w_hh, tuple(self.recurrent_forward(w, steps, batch, 1) for w in parts))

    def recurrent_forward(self, w: np.ndarray, steps: int, batch: int, members: int) -> Matrix:
        """W for a loop of so many members that is not a plain cell's: rows (m,k) become (m,n)."""
        small = w.size <= self.TRANSPOSE_BELOW
        if small and steps >= self.TRANSPOSE_FROM_STEPS and batch >= self.TRANSPOSE_FROM_BATCH:
            return Matrix(np.ascontiguousarray(w.T), transposed=True)
        return Matrix(w)

    def recurrent_backward(self, w: np.ndarray, steps: int, batch: int, members: int) -> Matrix:
        """W for the loop of a backward pass: rows (m,n) become (m,k)."""
        return Matrix(w, transposed=True)

    def looping(self, batch: int, w_hh: np.ndarray) -> AbstractContextManager:
        """The context for a time loop."""
        return step_products_of(batch * w_hh.size)

    def sharing(self, steps: int, batch: int, w_hh: np.ndarray) -> Sharing:
        """How threads share a time loop; the BLAS shares out its own products."""
        return ALONE

    def scanning(self, gates: int, parts: int) -> Sharing:
        """How threads share a loop without products over so many gates: not, for the BLAS's own spin."""
        return ALONE

    def forward(self, out: np.ndarray, a: np.ndarray, w: np.ndarray) -> None:
        """Out (m,n) = a (m,k) W'."""
        _blas(out, a, w, False, True)

    def backward(self, out: np.ndarray, d: np.ndarray, w: np.ndarray) -> None:
        """Out (m,k) = d (m,n) W."""
        _blas(out, d, w)

    def weight_gradient(self, out: np.ndarray, d: np.ndarray, rows: np.ndarray, blocks: np.ndarray, add: bool) -> None:
        """
        Out = d (m,n) transposed times rows (m,k), or += with `add`, of each of these blocks of rows in turn.

        One running sum over all T*B rows has up to 2.5 times the rounding error of NumPy's sum step by step; parts of
        about the root of their number bring it down to the same. From 96 rows on they cost it 3% of its speed.
        """
        if not len(blocks) and not add:
            out[...] = 0
        for first, last in blocks:
            part = max(96, math.isqrt(last - first))
            for start in range(first, last, part):
                stop = min(last, start + part)
                _blas(out, d[start:stop], rows[start:stop], True, False, add)
                add = True

    def bias_gradient(self, out: np.ndarray, d: np.ndarray, blocks: np.ndarray, add: bool) -> None:
        """Out = the sum over the rows of d, or += with `add`, of each of these blocks in turn."""
        sum_rows_into(_settings.isa(), out, d, blocks, add)


class NativeProducts(BlasProducts):
    """The products of the `native` engine: the kernels of csrc."""

    engine = "native"

    def __init__(self, isa: str):
        self.isa = isa

    def cell(self, kind: str, isa: str, w_hh: np.ndarray, bias: np.ndarray, steps: int, batch: int) -> Cell:
        """The recurrent half of a cell, packed, but for a single step that is not shared."""
        if steps > 1 or self.sharing(steps, batch, w_hh).members > 1:
            return Cell(kind, isa, bias, w_hh)
        return super().cell(kind, isa, w_hh, bias, steps, batch)

    def recurrent_forward(self, w: np.ndarray, steps: int, batch: int, members: int) -> Matrix:
        """W for a loop of so many members that is not a plain cell's, packed, but for a single step of one."""
        return Matrix(w, isa=self.isa, unpacked_for=int(steps == 1 and members == 1))

    def recurrent_backward(self, w: np.ndarray, steps: int, batch: int, members: int) -> Matrix:
        """W for the loop of a backward pass, the same way."""
        return Matrix(w, transposed=True, isa=self.isa, unpacked_for=int(steps == 1 and members == 1))

    def looping(self, batch: int, w_hh: np.ndarray) -> AbstractContextManager:
        """The context for a time loop: none."""
        return nullcontext()

    def sharing(self, steps: int, batch: int, w_hh: np.ndarray) -> Sharing:
        """How threads share a time loop."""
        return _sharing.passing(steps, batch, w_hh.size, w_hh.itemsize)

    def scanning(self, gates: int, parts: int) -> Sharing:
        """How threads share a loop without products over so many gates."""
        return _sharing.independent(gates * _sharing.SCANNED, parts)

    def forward(self, out: np.ndarray, a: np.ndarray, w: np.ndarray) -> None:
        """Out (m,n) = a (m,k) W'."""
        self._multiply(out, a, w, False)

    def backward(self, out: np.ndarray, d: np.ndarray, w: np.ndarray) -> None:
        """Out (m,k) = d (m,n) W."""
        self._multiply(out, d, w, True)

    def _multiply(self, out: np.ndarray, a: np.ndarray, w: np.ndarray, transposed: bool) -> None:
        sharing = _sharing.independent(len(a) * w.size, len(a) // _sharing.ROWS)
        matrix = Matrix(w, transposed, self.isa, unpacked_for=sharing.members)
        multiply_into(matrix, out, a, False, sharing.members, sharing.patience)

    def weight_gradient(self, out: np.ndarray, d: np.ndarray, rows: np.ndarray, blocks: np.ndarray, add: bool) -> None:
        """Out = d (m,n) transposed times rows (m,k), or += with `add`, of each of these blocks of rows in turn."""
        sharing = _sharing.independent(d.size * rows.shape[1], d.shape[1] // _sharing.ROWS)
        outer_into(self.isa, out, d, rows, blocks, add, sharing.members, sharing.patience)


def products() -> NumPyProducts | BlasProducts:
    """Those of the engine that runs."""
    engine, isa = _settings.resolve()
    return NativeProducts(isa) if engine == "native" else BlasProducts() if engine == "blas" else NumPyProducts()
