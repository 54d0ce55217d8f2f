"""What the estimators take as samples: arrays and lists of sequences, in one dtype, checked; and weights of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from fastrnn import _check

FLOATS = (np.float64, np.float32)  # what is neither becomes the first, as everywhere in scikit-learn


def read_samples(estimator: Any, X: Any, reset: bool) -> np.ndarray | list[np.ndarray]:
    """
    `X` as an array (n, T, I), or as a list of n arrays (T_i, I), all of one float dtype.

    With `reset` the estimator remembers the number of features and their names, and whether `X` was a table (n, T), in
    which a row is a series of one feature: then the columns are scikit-learn's features, and stay as many as they are.
    Without it, `X` must fit what it remembers.
    """
    listed = is_sequences(X)
    table = not listed and (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) != 3
    if listed:
        x = _sequences(X)
    elif table and (reset or estimator._table):
        x = validate_data(estimator, X, reset=reset, dtype=FLOATS)[:, :, None]
    else:
        x = check_array(X, dtype=FLOATS, allow_nd=True, input_name="X")
        x = x[:, :, None] if x.ndim == 2 else x
        if x.ndim != 3 or not x.shape[2]:
            raise ValueError(f"X: shape {x.shape}, expected (n, T, I) with at least one feature, or (n, T)")
    width = (x[0] if isinstance(x, list) else x).shape[-1]
    if reset:
        estimator._table = table
        if not table:
            estimator.n_features_in_ = width
            vars(estimator).pop("feature_names_in_", None)
    elif width != (inputs := estimator.layer_.input_size):
        raise ValueError(f"X: {width} features in each step, expected {inputs} as in training")
    return x


def is_sequences(X: Any) -> bool:
    """Whether `X` is sequences of any lengths: arrays in a list or in a column, lists that are no rows of one table."""
    if hasattr(X, "dtype"):
        return X.dtype == object and X.ndim == 1 and len(X) > 0 and np.ndim(next(iter(X))) > 0
    if not isinstance(X, list | tuple) or not len(X):
        return False
    return all(getattr(x, "ndim", 0) for x in X) or len({len(x) if hasattr(x, "__len__") else None for x in X}) > 1


def _sequences(X: Any) -> list[np.ndarray]:
    """A list of arrays (T_i, I), the same I and float dtype for all."""
    found = []
    for i, sequence in enumerate(X):
        name = f"X[{i}]"
        x = check_array(sequence, dtype=FLOATS, ensure_2d=False, ensure_min_samples=0, input_name=name)
        if x.ndim not in (1, 2):
            raise ValueError(f"{name}: shape {x.shape}, expected (T, I), or (T,) for one feature")
        x = x[:, None] if x.ndim == 1 else x
        if found and x.shape[1] != found[0].shape[1]:
            raise ValueError(f"{name}: {x.shape[1]} features, expected {found[0].shape[1]} as in X[0]")
        found.append(x)
    dtype = np.result_type(*{x.dtype for x in found})
    return [x.astype(dtype, copy=False) for x in found]


def rows(x: Any, chosen: np.ndarray) -> Any:
    """Some of the samples."""
    return [x[i] for i in chosen] if isinstance(x, list) else x[chosen]


def read_weights(sample_weight: Any, n: int) -> np.ndarray:
    """The weights of n samples; None is ones."""
    if sample_weight is None:
        return np.ones(n)
    weights = _check.as_array("sample_weight", sample_weight)
    if weights.shape != (n,) or weights.dtype.kind not in "biuf":
        raise ValueError(f"sample_weight: {weights.dtype} {weights.shape}, expected numbers (n,) = {(n,)}")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ValueError("sample_weight: negative, not finite or all zero, expected weights from 0, some above it")
    return weights.astype(np.float64)
