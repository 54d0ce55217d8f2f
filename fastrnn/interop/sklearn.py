"""
Estimators for scikit-learn (the extra `sklearn`): `RNNClassifier`, `RNNRegressor`, `RNNForecaster`.

The first two keep to scikit-learn's contract, so that pipelines, searches and cross-validation take them, and take
beside its tables (n, T), where each row is a series of one feature, arrays (n, T, I) and lists of sequences (T_i, I) of
any lengths. The forecaster continues one series.

>>> import numpy as np
>>> from sklearn.model_selection import cross_val_score
>>> from fastrnn.interop.sklearn import RNNClassifier
>>> rng = np.random.default_rng(0)
>>> X = [rng.standard_normal((length, 2)) for length in rng.integers(3, 12, 120)]
>>> y = np.where([x[:, 0].sum() > 0 for x in X], "up", "down")
>>> float(cross_val_score(RNNClassifier(max_iter=30, random_state=0), X, y, cv=3).mean()) > 0.85
True
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

try:
    import sklearn  # noqa: F401
except ImportError:
    raise ImportError("scikit-learn is not installed; pip install 'fastrnn[sklearn]'") from None

from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from fastrnn.interop._sklearn_forecaster import RNNForecaster
from fastrnn.interop._sklearn_input import read_samples, read_weights, rows
from fastrnn.interop._sklearn_network import Network, WeightedCrossEntropy, WeightedSquares, all_or_nothing

__all__ = ["RNNClassifier", "RNNForecaster", "RNNRegressor"]


class _SequenceEstimator(Network):
    """From sequences to one vector each."""

    @all_or_nothing
    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        """
        Train on sequences.

        Parameters
        ----------
        X : array (n, T), array (n, T, I), or list (or pandas.Series) of n arrays (T_i, I)
            The sequences; a row of a table (n, T), or an array (T_i,) in a list, is one of one feature. Computed with
            is float32 where that is what `X` is, else float64.
        y : array (n,); of a regressor also (n, K)
            The targets.
        sample_weight : array (n,), optional
            What each sample counts in the loss, from 0, which is as if it were not there.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For parameters out of range, and for `X`, `y`, `sample_weight` that are not as above, not finite, or do not
            fit one another.
        """
        first = not (self.warm_start and hasattr(self, "model_"))
        self._check_parameters(first)
        x, target = self._read(X, y, sample_weight, first)
        if not first:
            self._new_optimiser()
        validation = None
        if self.early_stopping:
            kept, held_out = train_test_split(
                np.arange(len(target)),
                test_size=self.validation_fraction,
                random_state=int(self._rng.integers(2**31)),
                stratify=self.classes_[target[:, 0].astype(int)] if isinstance(self, ClassifierMixin) else None,
            )
            validation = rows(x, held_out), target[held_out]
            x, target = rows(x, kept), target[kept]
        self.history_ = self._train(x, target, self.max_iter, validation)
        self.n_iter_ = len(self.history_.epochs)
        return self

    @all_or_nothing
    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, classes: np.ndarray | None = None) -> Any:
        """One epoch."""
        first = not hasattr(self, "model_")
        self._check_parameters(first)
        self._train_once(*self._read(X, y, sample_weight, first, classes))
        return self

    def _read(
        self, X: Any, y: Any, sample_weight: Any, first: bool, classes: np.ndarray | None = None
    ) -> tuple[Any, np.ndarray]:
        """
        Samples that count, and their targets with weights, whose mean is 1, in the last column.

        The first ones make the network, too.
        """
        if y is None:
            raise ValueError(f"y: None; {type(self).__name__} requires y to be passed, but the target y is None")
        x, y = read_samples(self, X, first), self._read_targets(y)
        check_consistent_length(x, y)
        weight = read_weights(sample_weight, len(x))
        counting = np.flatnonzero(weight)
        if len(counting) < len(x):
            x, y, weight = rows(x, counting), y[counting], weight[counting]
        if first:
            self._learn_targets(y, classes)
        target = np.column_stack([self._encoded(y), weight / weight.mean()])
        if first:
            self._begin(x[0].shape[-1], self._outputs, x[0].dtype)
        return self._cast(x), target

    def _run_on(self, X: Any) -> np.ndarray:
        """The network's outputs."""
        check_is_fitted(self)
        return self._run(read_samples(self, X, reset=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


class RNNClassifier(ClassifierMixin, _SequenceEstimator):
    """
    A recurrent network that tells to which class a sequence belongs.

    A recurrent layer, what makes one vector of its outputs, dropout, a linear layer, softmax; trained with AdamW.

    Parameters
    ----------
    cell : {"gru", "lstm", "rnn"}
        What the recurrent layer is made of.
    hidden_size, num_layers : int
        Its units, and how many of it are stacked.
    bidirectional : bool
        Whether each layer also reads the sequences from their ends.
    dropout : float
        The probability of dropping an element, between layers and before the linear one.
    pooling : {"last", "mean", "attention"}
        Of the layer's outputs, what goes on: the last step's (of each direction, that after it has read everything),
        their mean, or their mean with learned weights (`fastrnn.nn.AttentionPooling`).
    learning_rate_init : float
        That of AdamW.
    max_iter : int
        How many epochs `fit` trains, at most.
    batch_size : int
        Samples in a step.
    weight_decay : float
        What AdamW pulls the parameters towards zero with.
    max_norm : float or None
        What the norm of all gradients together is clipped to.
    early_stopping : bool
        Whether to hold out `validation_fraction` of the samples, to stop after `n_iter_no_change` epochs without a
        lower loss on them, and to keep the parameters of the best epoch.
    validation_fraction : float
        Between 0 and 1.
    n_iter_no_change : int
        See `early_stopping`.
    warm_start : bool
        Whether another `fit` goes on from the network that is there, which must be as the parameters describe it.
    verbose : bool
        Whether to print a line for each epoch.
    random_state : int, numpy.random.RandomState or None
        The source of all chance; with an int, the same data give the same network.

    Attributes
    ----------
    classes_ : array (C,)
        The labels, sorted.
    model_ : fastrnn.nn.Sequential
        The network.
    layer_ : fastrnn.RNN, fastrnn.LSTM or fastrnn.GRU
        The recurrent layer in it.
    history_ : fastrnn.nn.History
        The losses of the epochs, for `fastrnn.viz.loss_history`.
    n_iter_ : int
        How many epochs there were.
    n_features_in_ : int
        T for tables (n, T), which must keep their number of columns; else I.
    feature_names_in_ : array of str
        The names of a data frame's columns, where it had any.

    Notes
    -----
    Networks learn badly from numbers that are far from 1: put a `StandardScaler`, or what fits, before a table.
    """

    _loss = WeightedCrossEntropy()

    def partial_fit(
        self, X: Any, y: ArrayLike, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> RNNClassifier:
        """
        Train for one epoch, from where the last call, or `fit`, ended; `early_stopping` has no effect.

        Parameters
        ----------
        X, y, sample_weight
            As of `fit`.
        classes : array (C,)
            All labels that there will be; may be left out in all calls but the first.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As of `fit`, and for labels that are not among `classes`.
        """
        first = not hasattr(self, "model_")
        if first and classes is None:
            raise ValueError("classes: None, expected all labels in the first call of partial_fit")
        if classes is not None:
            classes = np.unique(classes)
            if not first and not np.array_equal(classes, self.classes_):
                raise ValueError(f"classes: {classes}, expected {self.classes_} as before")
        return self._partial_fit(X, y, sample_weight, classes)

    def _read_targets(self, y: Any) -> np.ndarray:
        y = column_or_1d(check_array(y, ensure_2d=False, dtype=None, input_name="y"), warn=True)
        check_classification_targets(y)
        return y

    def _learn_targets(self, y: np.ndarray, classes: np.ndarray | None) -> None:
        self.classes_ = np.unique(y) if classes is None else classes
        self._outputs = len(self.classes_)

    def _encoded(self, y: np.ndarray) -> np.ndarray:
        if unknown := set(y.tolist()) - set(self.classes_.tolist()):
            raise ValueError(f"y: labels {sorted(map(repr, unknown))}, expected only those known, {self.classes_}")
        return np.searchsorted(self.classes_, y)

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability (n, C) of each class, in the order of `classes_`."""
        return softmax(self._run_on(X).astype(np.float64), axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class (n,) of each sequence."""
        best = np.argmax(self._run_on(X), axis=1)
        return self.classes_[best]


class RNNRegressor(RegressorMixin, _SequenceEstimator):
    """
    A recurrent network that reads a sequence and gives a number, or K of them.

    The network is that of `RNNClassifier` without softmax, the loss the mean squared error. Targets far from 1 are
    learned slowly: see `sklearn.compose.TransformedTargetRegressor`.

    Parameters
    ----------
    cell, hidden_size, num_layers, bidirectional, dropout, pooling, learning_rate_init, max_iter, batch_size, \
weight_decay, max_norm, early_stopping, validation_fraction, n_iter_no_change, warm_start, verbose, random_state
        As of `RNNClassifier`.

    Attributes
    ----------
    model_, history_, n_iter_, n_features_in_, feature_names_in_
        As of `RNNClassifier`.
    """

    _loss = WeightedSquares()

    def partial_fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> RNNRegressor:
        """
        Train for one epoch, from where the last call, or `fit`, ended; `early_stopping` has no effect.

        Parameters
        ----------
        X, y, sample_weight
            As of `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As of `fit`.
        """
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> np.ndarray:
        """The number, or numbers, of each sequence: (n,) or (n, K) as the targets were, in the network's dtype."""
        outputs = self._run_on(X)
        return outputs[:, 0] if self._single else outputs

    def _read_targets(self, y: Any) -> np.ndarray:
        y = check_array(y, ensure_2d=False, dtype="numeric", input_name="y")
        if y.ndim not in (1, 2):
            raise ValueError(f"y: shape {y.shape}, expected (n,) or (n, K)")
        return y

    def _learn_targets(self, y: np.ndarray, classes: None) -> None:
        self._single = y.ndim == 1
        self._outputs = 1 if self._single else y.shape[1]

    def _encoded(self, y: np.ndarray) -> np.ndarray:
        if y.shape[1:] != (() if self._single else (self._outputs,)):
            expected = "(n,)" if self._single else f"(n, {self._outputs})"
            raise ValueError(f"y: shape {y.shape}, expected {expected} as before")
        return y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
