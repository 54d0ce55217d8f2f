"""Initial values of weights, put into arrays in place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["glorot_normal_", "glorot_uniform_", "orthogonal_", "uniform_scaled_"]

Seed = int | np.random.Generator | None


def uniform_scaled_(weight: np.ndarray, gain: float = 1.0, *, rng: Seed = None) -> np.ndarray:
    """
    Uniform in +-gain/sqrt(inputs), what `fastrnn.nn.Linear` begins with.

    Parameters
    ----------
    weight : array (outputs, inputs)
        float32 or float64; changed in place.
    gain : float
        What the values are multiplied with.
    rng : int, numpy.random.Generator or None
        The source of chance; an int is a seed.

    Returns
    -------
    array
        `weight`.

    Raises
    ------
    ValueError, TypeError
        For what is no writable matrix of floats.
    """
    _, inputs = _matrix(weight).shape
    return _uniform(weight, gain / math.sqrt(max(inputs, 1)), rng)


def glorot_uniform_(weight: np.ndarray, gain: float = 1.0, *, gates: int = 1, rng: Seed = None) -> np.ndarray:
    """
    Uniform, with the variance ``2 gain^2 / (inputs + outputs)``, as `torch.nn.init.xavier_uniform_`.

    Parameters
    ----------
    weight, gain, rng
        As of `uniform_scaled_`.
    gates : int
        Of how many equal blocks of rows, one below the other, the matrix consists: 4 for an LSTM's weights, 3 for a
        GRU's. The outputs are those of one block.

    Returns
    -------
    array
        `weight`.

    Notes
    -----
    Glorot & Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010, equation 16.
    """
    return _uniform(weight, gain * _glorot(weight, gates) * math.sqrt(3), rng)


def glorot_normal_(weight: np.ndarray, gain: float = 1.0, *, gates: int = 1, rng: Seed = None) -> np.ndarray:
    """
    Normal, with the variance ``2 gain^2 / (inputs + outputs)``, as `torch.nn.init.xavier_normal_`.

    Parameters
    ----------
    weight, gain, gates, rng
        As of `glorot_uniform_`.

    Returns
    -------
    array
        `weight`.

    Notes
    -----
    Equation 12 of the same paper.
    """
    deviation = gain * _glorot(weight, gates)
    weight[...] = deviation * np.random.default_rng(rng).standard_normal(weight.shape)
    return weight


def orthogonal_(weight: np.ndarray, gain: float = 1.0, *, gates: int = 1, rng: Seed = None) -> np.ndarray:
    """
    `gain` times a random matrix with orthonormal rows or columns, whichever are fewer, as `torch.nn.init.orthogonal_`.

    Parameters
    ----------
    weight, gain, rng
        As of `uniform_scaled_`.
    gates : int
        As of `glorot_uniform_`: each block is such a matrix.

    Returns
    -------
    array
        `weight`.

    Notes
    -----
    Saxe, McClelland & Ganguli, Exact solutions to the nonlinear dynamics of learning in deep linear neural networks,
    2014. The signs of R's diagonal make Q uniform (Mezzadri, How to generate random matrices from the classical compact
    groups, 2007).
    """
    blocks = _blocks(weight, gates)
    rng = np.random.default_rng(rng)
    rows, columns = blocks.shape[1:]
    for block in blocks:
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q *= np.where(np.diag(r) < 0, -gain, gain)
        block[...] = q if rows >= columns else q.T
    return weight


def _matrix(weight: Any) -> np.ndarray:
    if not isinstance(weight, np.ndarray) or weight.dtype.kind != "f":
        raise TypeError(f"weight: {getattr(weight, 'dtype', type(weight).__name__)}, expected an array of floats")
    if weight.ndim != 2 or not weight.flags.writeable:
        kind = "" if weight.flags.writeable else "read-only "
        raise ValueError(f"weight: {kind}shape {weight.shape}, expected a writable (outputs, inputs)")
    return weight


def _blocks(weight: np.ndarray, gates: int) -> np.ndarray:
    """A view (gates, outputs, inputs); splitting the first axis never copies."""
    rows, inputs = _matrix(weight).shape
    if gates < 1 or rows % gates:
        raise ValueError(f"gates: {gates!r}, expected a divisor of the {rows} rows")
    return weight.reshape(gates, rows // gates, inputs)


def _glorot(weight: np.ndarray, gates: int) -> float:
    _, outputs, inputs = _blocks(weight, gates).shape
    return math.sqrt(2 / max(inputs + outputs, 1))


def _uniform(weight: np.ndarray, bound: float, rng: Seed) -> np.ndarray:
    weight[...] = np.random.default_rng(rng).uniform(-bound, bound, weight.shape)
    return weight
