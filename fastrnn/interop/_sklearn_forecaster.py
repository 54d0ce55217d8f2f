"""`RNNForecaster`: the next values of a series; `fastrnn.interop.sklearn` is its public home."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import r2_score
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from fastrnn import _check
from fastrnn.data import windows
from fastrnn.interop._sklearn_input import FLOATS
from fastrnn.interop._sklearn_network import Network, WeightedSquares, all_or_nothing


@dataclass(kw_only=True, eq=False, repr=False)
class RNNForecaster(Network):
    """
    A recurrent network that continues a series, of one feature or of several.

    It learns to tell the next step from the last `window` ones, and goes on from what it told. The series is scaled to
    mean 0 and variance 1 within, and forecasts are in its own units.

    Parameters
    ----------
    window : int
        How many steps the network sees: two periods of a series that has one are a good start.
    cell, hidden_size, num_layers, bidirectional, dropout, pooling, learning_rate_init, max_iter, batch_size, \
weight_decay, max_norm, n_iter_no_change, warm_start, verbose, random_state
        As of `RNNClassifier`.
    early_stopping : bool
        Whether the last `validation_fraction` of the series is not trained on, but tells when to stop, and how wide the
        intervals of forecasts are.
    validation_fraction : float
        Between 0 and 1.

    Attributes
    ----------
    model_ : fastrnn.nn.Sequential
        The network, from scaled windows (N, window, F) to scaled next steps (N, F).
    mean_, scale_ : array (F,)
        Of what it was trained on.
    history_ : fastrnn.nn.History
        The losses of the epochs, of scaled values.
    n_iter_, n_features_in_ : int
        How many epochs there were, and F.

    Notes
    -----
    In a `GridSearchCV` or `cross_val_score` it needs ``cv=TimeSeriesSplit()``, whose tests follow the training without
    a gap. `sklearn.utils.estimator_checks` do not apply: what `predict` takes is no table but a number of steps.
    """

    _loss = WeightedSquares()
    _shape = (*Network._shape, "window")

    window: int = 24
    early_stopping: bool = True
    validation_fraction: float = 0.2

    @all_or_nothing
    def fit(self, series: ArrayLike, y: None = None) -> RNNForecaster:
        """
        Train on a series.

        Parameters
        ----------
        series : array (S,) or (S, F)
            In the order of time, more than `window` steps. Computed with is float32 where it is, else float64.
        y
            Nothing; scikit-learn's tools pass it.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For parameters out of range, and for a series that is too short, not finite, or not as above.
        """
        first = not (self.warm_start and hasattr(self, "model_"))
        self._check_parameters(first)
        window = _check.positive_int("window", self.window)
        series = self._read(series, first)
        count = len(series) - window  # of the samples, the last of which are held out
        held_out = round(self.validation_fraction * count) if self.early_stopping else 0
        if count < 1 or (self.early_stopping and not 0 < held_out < count):
            held = f", some of them held out by validation_fraction={self.validation_fraction}" * self.early_stopping
            raise ValueError(f"series: {len(series)} steps, expected more after the first window = {window}{held}")
        if first:
            self._set_scale(series[: len(series) - held_out])
            self._begin(series.shape[1], series.shape[1], series.dtype)
        else:
            self._new_optimiser()
        scaled = self._scaled(series)
        x, target = _samples(scaled, window)
        validation = (x[-held_out:], target[-held_out:]) if held_out else None
        cut = count - held_out
        self.history_ = self._train(x[:cut], target[:cut], self.max_iter, validation)
        self.n_iter_ = len(self.history_.epochs)
        self._held_out = scaled[cut:] if held_out else None  # with the window before it
        self._end = scaled[-window:]
        return self

    @all_or_nothing
    def partial_fit(self, series: ArrayLike, y: None = None) -> RNNForecaster:
        """
        Train for one epoch on the steps that follow those before, which then count as known.

        Parameters
        ----------
        series : array (S,) or (S, F)
            At least one step; in the first call, without `fit` before it, more than `window`. The first call sets the
            scale, too, and holds nothing out.
        y
            Nothing.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As of `fit`.
        """
        first = not hasattr(self, "model_")
        self._check_parameters(first)
        window = _check.positive_int("window", self.window)
        series = self._read(series, first)
        if first:
            if len(series) <= window:
                raise ValueError(f"series: {len(series)} steps, expected more than window = {window} at first")
            self._set_scale(series)
            self._begin(series.shape[1], series.shape[1], series.dtype)
            self._held_out, self._end = None, self._scaled(series[:0])
        known = np.concatenate([self._end, self._scaled(series)])
        self._train_once(*_samples(known, window))
        self._end = known[-window:]
        return self

    def predict(
        self, horizon: int = 1, *, history: ArrayLike | None = None, coverage: float | None = None
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Continue the series.

        Parameters
        ----------
        horizon : int
            By how many steps.
        history : array (S,) or (S, F), optional
            What to continue instead of the series of `fit`: at least `window` steps.
        coverage : float, optional
            Between 0 and 1: the share of true values that is to be within an interval around the forecast.

        Returns
        -------
        y : array (horizon,) or (horizon, F), as the series was
        low, high : arrays as y
            The ends of the intervals, with `coverage` only.

        Raises
        ------
        ValueError, TypeError
            For arguments out of range, and for a held-out part that is too short for `horizon` and `coverage`.

        Notes
        -----
        The interval of the h-th step is as wide as the errors of all forecasts by h steps within the held-out part:
        the one of rank ``ceil((n + 1) * coverage)`` of n, as in split conformal prediction (Lei et al.,
        Distribution-free predictive inference for regression, 2018). That is meant for each step by itself, not for all
        at once, and as far as the future is like that part. Its forecasts overlap, and it chose the epoch: where it is
        short, intervals are a guess, and rather too narrow.
        """
        check_is_fitted(self)
        horizon = _check.positive_int("horizon", horizon)
        start = self._end
        if history is not None:
            start = self._scaled(self._read(history, False, "history"))[-self._end.shape[0] :]
            if len(start) < len(self._end):
                raise ValueError(f"history: {len(start)} steps, expected at least window = {len(self._end)}")
        y = self._continued(start[None], horizon)[0] * self.scale_ + self.mean_
        if coverage is None:
            return self._shaped(y)
        margin = self._margin(horizon, coverage) * self.scale_
        return self._shaped(y), self._shaped(y - margin), self._shaped(y + margin)

    def score(self, series: ArrayLike, y: None = None) -> float:
        """
        How well the forecast tells what came.

        Parameters
        ----------
        series : array (S,) or (S, F)
            What follows the series of `fit`, at least two steps.
        y
            Nothing.

        Returns
        -------
        float
            The coefficient of determination of a forecast of S steps, the mean over features: 1 for no error, 0 for
            one as large as that of the steps' own mean.
        """
        check_is_fitted(self)
        series = self._read(series, False)
        return float(r2_score(series, self.predict(len(series)).reshape(series.shape)))

    def _read(self, series: Any, first: bool, name: str = "series") -> np.ndarray:
        """A series as an array (S, F)."""
        array = check_array(series, dtype=FLOATS, ensure_2d=False, input_name=name)
        if array.ndim not in (1, 2):
            raise ValueError(f"{name}: shape {array.shape}, expected (S,) or (S, F)")
        one, array = array.ndim == 1, array.reshape(len(array), -1)
        if first:
            self._one, self.n_features_in_ = one, array.shape[1]
        elif array.shape[1] != self.n_features_in_:
            raise ValueError(f"{name}: {array.shape[1]} features, expected {self.n_features_in_} as in training")
        return array

    def _shaped(self, y: np.ndarray) -> np.ndarray:
        return y[:, 0] if self._one else y

    def _set_scale(self, series: np.ndarray) -> None:
        mean, scale = series.mean(axis=0, dtype=np.float64), series.std(axis=0, dtype=np.float64)
        scale[(np.ptp(series, axis=0) == 0) | (scale == 0)] = 1  # the std of what never changes is a rounding error
        self.mean_, self.scale_ = mean.astype(series.dtype), scale.astype(series.dtype)

    def _scaled(self, series: np.ndarray) -> np.ndarray:
        return ((series - self.mean_) / self.scale_).astype(self.mean_.dtype, copy=False)

    def _continued(self, start: np.ndarray, horizon: int) -> np.ndarray:
        """The next steps (N, horizon, F) after windows (N, window, F), each told from what was told before it."""
        N, window, F = start.shape
        steps = np.concatenate([start, np.empty((N, horizon, F), start.dtype)], axis=1)
        for t in range(horizon):
            steps[:, window + t] = self._run(steps[:, t : t + window])
        return steps[:, window:]

    def _margin(self, horizon: int, coverage: float) -> np.ndarray:
        """How far (horizon, F) from the forecast the scaled values are, with this probability."""
        if not (isinstance(coverage, Real) and 0 < coverage < 1):
            raise ValueError(f"coverage: {coverage!r}, expected a number between 0 and 1")
        if self._held_out is None:
            raise ValueError("coverage: given, but nothing was held out; expected early_stopping=True, and fit")
        window, count = len(self._end), len(self._held_out) - len(self._end)
        fewest = count - horizon + 1  # errors, of the last step
        if math.ceil((fewest + 1) * coverage) > fewest:
            needed = math.ceil(coverage / (1 - coverage) - 1e-9) + horizon - 1
            raise ValueError(
                f"coverage: {coverage}, with horizon: {horizon}, but {count} steps were held out, expected {needed}"
            )
        told = self._continued(_samples(self._held_out, window)[0], horizon)
        margins = []
        for h in range(horizon):
            errors = np.abs(told[: count - h, h] - self._held_out[window + h :])
            rank = math.ceil((len(errors) + 1) * coverage)
            margins.append(np.sort(errors, axis=0)[rank - 1])
        return np.stack(margins)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False  # of samples: the rows of a series are not exchangeable
        return tags


def _samples(series: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (N, window, F), and the steps after them with a weight of 1: (N, F + 1)."""
    x, y = windows(series, window)
    return x, np.concatenate([y[:, 0], np.ones_like(y[:, 0, :1])], axis=1)
