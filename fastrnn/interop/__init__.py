"""Ways in from other libraries, and out to them; each is imported when it is first used, and needs its library.

`fastrnn.interop.onnx` runs, reads and writes ONNX models; `fastrnn.interop.sklearn` has estimators for scikit-learn.
`fastrnn.interop.onnx` runs, reads and writes ONNX models; `fastrnn.interop.jax` has the kernels as functions of JAX.
`fastrnn.interop.onnx` runs, reads and writes ONNX models; `fastrnn.interop.jax` has the kernels as functions of JAX;
`fastrnn.interop.dask` runs frozen layers over Dask arrays.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["onnx", "sklearn"]
__all__ = ["jax", "onnx"]
__all__ = ["dask", "jax", "onnx"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"fastrnn.interop.{name}")
    raise AttributeError(f"module 'fastrnn.interop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
