"""The compiled core: BLAS, the cells' time loops, the C kernels of `csrc`. Private; see `fastrnn._compiled`."""

try:
    from fastrnn._core import kernels as _built  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"fastrnn's extension modules are not in {__path__[0]} ({error}). In a source tree, build them there with"
        " 'pip install -e .', or work in another folder to use an installed fastrnn."
    ) from error
