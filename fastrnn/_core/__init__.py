"""The compiled core: BLAS, the time loops of each cell, and the C kernels of `csrc`. Private; see `fastrnn._blas`."""
