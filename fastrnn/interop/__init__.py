"""Ways in from other libraries, and out to them; each is imported when it is first used, and needs its library.

`torch`, `jax` and `keras` are bridges to frameworks, `onnx` runs, reads and writes ONNX models, `sklearn` has
estimators for scikit-learn, `dask` runs frozen layers over arrays larger than memory.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastrnn.interop import dask, jax, keras, onnx, sklearn, torch

__all__ = ["dask", "jax", "keras", "onnx", "sklearn", "torch"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"fastrnn.interop.{name}")
    raise AttributeError(f"module 'fastrnn.interop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
