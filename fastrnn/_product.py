"""Matrix products on SciPy's BLAS, the one the kernels use.

NumPy brings a BLAS of its own. With both at work in turn, the idle threads of one spin on the cores that the other
needs: a training step of the demo's quick model took 16 ms on two cores that way and 4.4 ms with SciPy's alone. So
nothing in this package multiplies matrices with ``@``, but for the `reference` engine, which does nothing else.
"""

from __future__ import annotations

import numpy as np

from fastrnn import _settings
from fastrnn._blas_threads import product_of
from fastrnn._core.blas import matmul_into
from fastrnn._core.memory import empty


def multiply(
    c: np.ndarray, a: np.ndarray, b: np.ndarray, trans_a: bool = False, trans_b: bool = False, add: bool = False
) -> None:
    """C = op(A) op(B), or C += with `add`; the elements of a row lie together, the rows may be strided."""
    with product_of(c.size * a.shape[1 - trans_a]):
        matmul_into(c, a, b, trans_a, trans_b, add)


def product(a: np.ndarray, b: np.ndarray, trans_a: bool = False, trans_b: bool = False) -> np.ndarray:
    """op(A) op(B) in a new array, on the engine that is set."""
    if _settings.engine() == "reference":
        return (a.T if trans_a else a) @ (b.T if trans_b else b)
    c = empty((a.shape[trans_a], b.shape[1 - trans_b]), a.dtype)
    multiply(c, a, b, trans_a, trans_b)
    return c
