"""The thread count of the BLAS behind SciPy, where that BLAS lets itself be asked and told.

SciPy exposes no call for it, so the symbol is looked up among the libraries that `scipy.linalg.cython_blas` is linked
to (what the threadpoolctl package does, for one library). Where none of the names is found (Accelerate, a BLAS
without threads, Windows), both functions do nothing.
"""

from __future__ import annotations

import ctypes
from functools import cache

from scipy.linalg import cython_blas

_NAMES = (
    ("scipy_openblas_get_num_threads", "scipy_openblas_set_num_threads"),
    ("scipy_openblas_get_num_threads64_", "scipy_openblas_set_num_threads64_"),
    ("openblas_get_num_threads", "openblas_set_num_threads"),
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
    ("bli_thread_get_num_threads", "bli_thread_set_num_threads"),
)


@cache
def _functions():
    try:
        library = ctypes.CDLL(cython_blas.__file__)
    except OSError:
        return None
    for get, set_ in _NAMES:
        try:
            return getattr(library, get), getattr(library, set_)
        except AttributeError:
            continue
    return None


def get() -> int | None:
    """How many threads the BLAS uses, or None where it does not say."""
    functions = _functions()
    return functions[0]() if functions else None


def set(n: int) -> None:
    """Let the BLAS use n threads, in the whole process."""
    functions = _functions()
    if functions:
        functions[1](n)


# OpenBLAS's threads wait for one another by spinning, within every product. When another process, or NumPy's own BLAS,
# wants one of the cores, each wait lasts as long as the scheduler's slice, about 4 ms: the demo's training, with
# thousands of small products, became a hundred times slower. So products of fewer multiplications than these run on one
# thread: where a product stands alone, as any BLAS does it but later (0.08 ms on one AVX-512 core); within a time loop,
# which would wait at every step, only from 0.3 ms.
ALONE_SERIAL_BELOW = 8_000_000
STEP_SERIAL_BELOW = 32_000_000


class serial:
    """A context in which the BLAS runs on one thread, if `wanted`."""

    __slots__ = ("_before",)

    def __init__(self, wanted: bool):
        self._before = get() if wanted else None

    def __enter__(self) -> None:
        # Where another thread is within such a context there is nothing to do, and nothing to undo.
        if self._before is not None and self._before > 1:
            set(1)

    def __exit__(self, *_: object) -> None:
        if self._before is not None and self._before > 1:
            set(self._before)


def product_of(multiplications: int) -> serial:
    """The context for one product."""
    return serial(multiplications < ALONE_SERIAL_BELOW)


def step_products_of(multiplications: int) -> serial:
    """The context for a time loop with a product of this size at each step."""
    return serial(multiplications < STEP_SERIAL_BELOW)
