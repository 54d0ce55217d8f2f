"""The extension modules. Everything else about the package is in pyproject.toml."""

import os
import sys
from glob import glob

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

MSVC = sys.platform == "win32" and "MSC" in sys.version
# Instruction sets are chosen per function in csrc and at import, never for the whole build: a wheel runs anywhere.
# -ffp-contract: a*b + c as one instruction where there is one; with -std=c11 GCC would not, and the kernels lean on it.
# -Wno-incompatible-pointer-types: Cython hands on pointers in bytes, to functions of either float type (kernels.pxd);
# from GCC 14 on that would be an error.
FLAGS = ["-O3", "-g0", "-std=c11", "-ffp-contract=fast", "-fvisibility=hidden", "-Wno-incompatible-pointer-types"]
if MSVC:
    FLAGS = ["/O2", "/std:c11"]


def extension(name, sources=()):
    return Extension(
        f"fastrnn._core.{name}",
        [f"fastrnn/_core/{name}.pyx", *sources],
        include_dirs=["csrc", numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        depends=glob("csrc/*.h"),
        extra_compile_args=FLAGS,
        libraries=[] if sys.platform == "win32" else ["m"],
        extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
    )


setup(
    ext_modules=cythonize(
        [
            extension("kernels", ["csrc/dispatch.c", *sorted(glob("csrc/isa_*.c"))]),  # takes the longest
            extension("back"),
            extension("blas"),
            extension("cell"),
            extension("decode"),
            extension("dense"),
            extension("matrix"),
            extension("memory"),
            extension("plan"),
            extension("probe"),
            extension("scan"),
            extension("stack"),
            extension("staged"),
            extension("stream"),
            extension("team", ["csrc/team.c"]),
        ],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "freethreading_compatible": True,
        },
    ),
    options={"build_ext": {"parallel": os.cpu_count()}},
)
