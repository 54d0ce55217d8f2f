"""Vectors for symbols."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from scipy.sparse import csr_array

from fastrnn import _check
from fastrnn.module import Module, float_dtype


class Embedding(Module):
    """
    A learned vector for each of a number of symbols, as `torch.nn.Embedding`.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        How many symbols, and how long their vectors are.
    dtype : {float32, float64}
        Of the vectors.
    rng : int, numpy.random.Generator or None
        The source of the initial vectors, standard normal.

    Attributes
    ----------
    weight : array (num_embeddings, embedding_dim)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ):
        super().__init__()
        self.num_embeddings = _check.positive_int("num_embeddings", num_embeddings)
        self.embedding_dim = _check.positive_int("embedding_dim", embedding_dim)
        self.dtype = float_dtype(dtype)
        rng = np.random.default_rng(rng)
        self.add_parameter("weight", rng.standard_normal((num_embeddings, embedding_dim)).astype(self.dtype))

    def __call__(self, indices: ArrayLike) -> np.ndarray:
        """The vectors (..., embedding_dim) of `indices` (...)."""
        return self.forward(indices)[0]

    def forward(self, indices: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """The vectors, and the cache for `backward`, which is the indices."""
        indices = _check.indices("indices", indices, self.num_embeddings)
        return self.weight[indices], indices

    def backward(self, cache: np.ndarray, dy: ArrayLike) -> None:
        """Add into `grads`. Indices have no gradient."""
        shape = (*cache.shape, self.embedding_dim)
        dy = _check.shaped("dy", dy, self.dtype, "that of y", shape, "the layer").reshape(-1, self.embedding_dim)
        # grad[s] = the sum of dy over the places of symbol s: a sparse one-hot product, 9 times as fast as np.add.at
        # for 2048 places of 32 values.
        places = np.arange(cache.size)
        ones = np.ones(cache.size, self.dtype)
        one_hot = csr_array((ones, (cache.ravel(), places)), shape=(self.num_embeddings, cache.size))
        self.grads["weight"] += one_hot @ dy
