"""What the estimators for scikit-learn share: their parameters, the network that these describe, its training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from scipy.special import log_softmax
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from fastrnn import _check, layers, nn
from fastrnn.data import pad_sequences
from fastrnn.interop._sklearn_input import rows

CELLS = {"gru": layers.GRU, "lstm": layers.LSTM, "rnn": layers.RNN}
POOLINGS = ("last", "mean", "attention")
RANGES = {
    "dropout": (lambda p: 0 <= p <= 1, "a probability from 0 to 1"),
    "learning_rate_init": (lambda rate: 0 < rate < np.inf, "a number above 0"),
    "weight_decay": (lambda decay: 0 <= decay < np.inf, "a number from 0"),
    "max_norm": (lambda norm: norm > 0, "a number above 0, or None"),
    "validation_fraction": (lambda part: 0 < part < 1, "a number between 0 and 1"),
}
CHUNK = 256  # sequences that run side by side in inference: enough for the kernels, little memory


class WeightedCrossEntropy:
    """Softmax cross-entropy of logits (N, C); the targets (N, 2) are the classes and the weights of the samples."""

    def forward(self, logits: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        """The weighted sum over N, and its gradient."""
        at, weight = (np.arange(len(y)), y[:, 0].astype(int)), y[:, 1] / len(y)
        logs = log_softmax(logits, axis=1)
        d = np.exp(logs)
        d[at] -= 1
        return -float(weight @ logs[at]), (d * weight[:, None]).astype(logits.dtype, copy=False)

    def backward(self, cache: np.ndarray) -> np.ndarray:
        """The gradient."""
        return cache


class WeightedSquares(WeightedCrossEntropy):
    """Squared errors of outputs (N, K); the targets (N, K + 1) are the values, and the weights of the samples last."""

    def forward(self, outputs: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        """The weighted sum over N*K, and its gradient."""
        error, weight = outputs - y[:, :-1], y[:, -1:] / outputs.size
        return float((weight * error**2).sum()), (2 * weight * error).astype(outputs.dtype, copy=False)


def all_or_nothing(method: Callable) -> Callable:
    """A method that leaves its estimator as it was where it finds bad input, be it late."""

    @wraps(method)
    def whole(self: Network, *args: Any, **options: Any) -> Any:
        before = dict(vars(self))
        try:
            return method(self, *args, **options)
        except (TypeError, ValueError):
            vars(self).clear()
            vars(self).update(before)
            raise

    return whole


@dataclass(kw_only=True, eq=False, repr=False)  # makes the constructor, as scikit-learn wants it: it only assigns
class Network(BaseEstimator):
    """A recurrent layer, what makes one vector of its outputs, dropout, a linear layer; `RNNClassifier` says more."""

    _loss: ClassVar[Any]
    _shape: ClassVar[tuple[str, ...]] = ("cell", "hidden_size", "num_layers", "bidirectional", "dropout", "pooling")

    cell: str = "gru"
    hidden_size: int = 32
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    pooling: str = "last"
    learning_rate_init: float = 0.005
    max_iter: int = 100
    batch_size: int = 32
    weight_decay: float = 0.0
    max_norm: float | None = 1.0
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 10
    warm_start: bool = False
    verbose: bool = False
    random_state: int | np.random.RandomState | None = None

    def _check_parameters(self, first: bool) -> None:
        """Raise for what is out of range and, where there is a network to go on from, what it was not made with."""
        _check.choice("cell", self.cell, tuple(CELLS))
        _check.choice("pooling", self.pooling, POOLINGS)
        for name in ("hidden_size", "num_layers", "max_iter", "batch_size", "n_iter_no_change"):
            _check.positive_int(name, getattr(self, name))
        for name, (fits, expected) in RANGES.items():
            value = getattr(self, name)
            number = value if isinstance(value, Real) else np.nan  # which is in no range
            if not fits(number) and not (name == "max_norm" and value is None):
                raise ValueError(f"{name}: {value!r}, expected {expected}")
        for name, made in () if first else self._made_with.items():
            if (value := getattr(self, name)) != made:
                raise ValueError(f"{name}: {value!r}, expected {made!r}, for the network to go on from has that")

    def _begin(self, inputs: int, outputs: int, dtype: np.dtype) -> None:
        """Make a new network, its optimiser and history, and the source of all chance."""
        self._rng = rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31, size=4))
        layer = CELLS[self.cell](
            inputs,
            self.hidden_size,
            self.num_layers,
            batch_first=True,
            bidirectional=bool(self.bidirectional),
            dropout=self.dropout if self.num_layers > 1 else 0.0,
            dtype=dtype,
            rng=rng,
            **({"forget_bias": 1.0} if self.cell == "lstm" else {}),
        )
        width = layer.output_size
        reading = {
            "last": lambda: [nn.FinalState(layer)],
            "mean": lambda: [layer, nn.MeanOverTime()],
            "attention": lambda: [layer, nn.AttentionPooling(width, dtype=dtype, rng=rng)],
        }[self.pooling]()
        head = nn.Linear(width, outputs, dtype=dtype, rng=rng)
        self.model_ = nn.Sequential(*reading, nn.Dropout(self.dropout, rng=rng), head)
        self.layer_ = layer
        self.history_ = nn.History()
        self._made_with = {name: getattr(self, name) for name in self._shape}
        self._new_optimiser()

    def _new_optimiser(self) -> None:
        """Forget how the parameters have moved so far."""
        self._optimiser = nn.AdamW(self.model_)

    def _train(self, x: Any, y: np.ndarray, epochs: int, validation: tuple | None = None) -> nn.History:
        """Train for so many epochs; `y` has the weights of the samples in its last column."""
        self._optimiser.lr, self._optimiser.weight_decay = float(self.learning_rate_init), float(self.weight_decay)
        return nn.fit(
            self.model_,
            x,
            y,
            loss=self._loss,
            optimiser=self._optimiser,
            epochs=epochs,
            batch_size=self.batch_size,
            validation=validation,
            patience=None if validation is None else self.n_iter_no_change,
            max_norm=self.max_norm,
            callbacks=[_show] if self.verbose else [],
            progress=bool(self.verbose),
            rng=self._rng,
        )

    def _train_once(self, x: Any, y: np.ndarray) -> None:
        """Train for an epoch more, which the history goes on with."""
        (record,) = self._train(x, y, 1).epochs
        self.n_iter_ = len(self.history_.epochs) + 1
        self.history_.epochs.append(record | {"epoch": self.n_iter_})

    def _cast(self, x: Any) -> Any:
        """Samples in the network's dtype."""
        dtype = self.layer_.dtype
        return [one.astype(dtype, copy=False) for one in x] if isinstance(x, list) else x.astype(dtype, copy=False)

    def _run(self, x: Any) -> np.ndarray:
        """The outputs (n, K) for samples."""
        x = self._cast(x)
        if not isinstance(x, list):
            return np.concatenate([self.model_(x[k : k + CHUNK]) for k in range(0, len(x), CHUNK)])
        order = np.argsort([*map(len, x)], kind="stable")  # like lengths side by side: less padding
        outputs = np.empty((len(x), self.model_[-1].out_features), self.layer_.dtype)
        for k in range(0, len(x), CHUNK):
            chosen = order[k : k + CHUNK]
            outputs[chosen] = self.model_(*pad_sequences(rows(x, chosen)))
        return outputs


def _show(record: dict[str, Any], model: nn.Sequential) -> None:
    """Print an epoch's line."""
    numbers = (f"{name} {record[name]:.4g}" for name in ("loss", "val_loss") if name in record)
    print(f"epoch {record['epoch']}: {', '.join(numbers)}")
