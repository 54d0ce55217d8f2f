"""The thread count of the BLAS behind SciPy, where that BLAS lets itself be asked and told.

SciPy exposes no call for it, so the symbol is looked up among the libraries that `scipy.linalg.cython_blas` is linked
to (what the threadpoolctl package does, for one library). Where none of the names is found (Accelerate, a BLAS
without threads, Windows), both functions do nothing.
"""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import AbstractContextManager, nullcontext
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


# The BLAS has one count for the whole process, while any number of threads want it otherwise for a while. So who wants
# what is written down, and the count follows from that: 1 while a `serial` context is open anywhere, else what the
# youngest open `limited` context says, else what it was before the first was opened.
_lock = threading.Lock()
_serial = 0
_limits: dict[limited, int] = {}
_idle: int | None = None


def _after_fork() -> None:
    """In the child: of all contexts only those of the thread that forked are still open, and it will close them."""
    global _serial
    _serial = _serial_here.depth
    for context in [c for c in _limits if c.thread != threading.get_ident()]:
        del _limits[context]
    _lock.release()


if hasattr(os, "register_at_fork"):  # nobody tells the BLAS anything while its process is copied: it has locks too
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork)


def _apply() -> None:
    count = 1 if _serial else next(reversed(_limits.values()), _idle)
    if count is not None and count != get():
        _functions()[1](count)


def set(n: int) -> None:
    """Let the BLAS use n threads in the whole process, from when no context is open."""
    global _idle
    if _functions() is None:
        return
    with _lock:
        _idle = n
        _apply()


class _Context:
    """While open, this context's wish counts."""

    __slots__ = ()

    def _wish(self, open_: bool) -> None:
        raise NotImplementedError

    def __enter__(self) -> None:
        global _idle
        if _functions() is None:
            return
        with _lock:
            if not _serial and not _limits:
                _idle = get()  # whoever set it
            self._wish(True)
            _apply()

    def __exit__(self, *_: object) -> None:
        if _functions() is None:
            return
        with _lock:
            self._wish(False)
            _apply()


class limited(_Context):
    """A context in which the BLAS uses n threads."""

    __slots__ = ("_n", "thread")

    def __init__(self, n: int):
        self._n = n
        self.thread = threading.get_ident()

    def _wish(self, open_: bool) -> None:
        if open_:
            _limits[self] = self._n
        else:
            _limits.pop(self)


class _Here(threading.local):
    depth = 0


_serial_here = _Here()  # how many of them this thread has open


class _Serial(_Context):
    """A context in which the BLAS uses one thread."""

    __slots__ = ()

    def _wish(self, open_: bool) -> None:
        global _serial
        change = 1 if open_ else -1
        _serial += change
        _serial_here.depth += change


# OpenBLAS's threads wait for one another by spinning, within every product. When another process, or NumPy's own BLAS,
# wants one of the cores, each wait lasts as long as the scheduler's slice, about 4 ms: the demo's training, with
# thousands of small products, became a hundred times slower. So products of fewer multiplications than these run on one
# thread: where a product stands alone, as any BLAS does it but later (0.08 ms on one AVX-512 core); within a time loop,
# which would wait at every step, only from 0.3 ms.
ALONE_SERIAL_BELOW = 8_000_000
STEP_SERIAL_BELOW = 32_000_000

_serially = _Serial()
_as_set: AbstractContextManager = nullcontext()


def product_of(multiplications: int) -> AbstractContextManager:
    """The context for one product."""
    return _serially if multiplications < ALONE_SERIAL_BELOW else _as_set


def step_products_of(multiplications: int) -> AbstractContextManager:
    """The context for a time loop with a product of this size at each step."""
    return _serially if multiplications < STEP_SERIAL_BELOW else _as_set
