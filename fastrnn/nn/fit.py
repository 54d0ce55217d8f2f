"""Training by mini-batches: `fit`, and the history it returns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn._check import positive_int
from fastrnn._progress import Progress
from fastrnn.module import Module
from fastrnn.nn import _resume
from fastrnn.nn._samples import Batch, Samples
from fastrnn.nn.clip import clip_grad_norm_
from fastrnn.nn.optim import Optimiser
from fastrnn.nn.schedules import Schedule

__all__ = ["History", "fit"]

Metrics = Mapping[str, Callable[[np.ndarray, np.ndarray], float]]


@dataclass
class History:
    """
    What became of each epoch.

    Attributes
    ----------
    epochs : list of dict
        One record an epoch: ``epoch`` (from 1), ``loss``, each metric, the same of the validation with ``val_`` in
        front, ``lr``, ``seconds``.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def best_epoch(self) -> int | None:
        """That of the least validation loss, or without validation of the least loss; None where there is no number."""
        losses = [(record.get("val_loss", record["loss"]), record["epoch"]) for record in self.epochs]
        return min((pair for pair in losses if pair[0] == pair[0]), default=(None, None))[1]

    def to_dict(self) -> dict[str, list]:
        """One list per name, with a value for each epoch: what a data frame or a plot takes."""
        return {name: [record.get(name) for record in self.epochs] for name in (self.epochs or [{}])[0]}


@dataclass
class _Run:
    """A training on its way: what a checkpoint is made of."""

    model: Any
    loss: Any
    optimiser: Any
    schedule: Any
    metrics: Metrics
    max_norm: float | None
    patience: int | None
    rng: np.random.Generator
    history: History = field(default_factory=History)
    best: dict[str, np.ndarray] | None = None  # the weights of the best epoch, where patience asks for them

    def over(self, epochs: int) -> bool:
        """Whether there are enough epochs, or too many since the best."""
        done = len(self.history.epochs)
        return done >= epochs or (self.patience is not None and done - (self.history.best_epoch or 0) >= self.patience)

    def train(self, batches: Iterable[Batch], progress: Progress | None) -> dict[str, float]:
        """One epoch: the means of loss and metrics, each batch's before its step."""
        means = _Means(self.metrics)
        _reset_states(self.model)
        for batch in batches:
            if not batch.weight:
                continue
            self.optimiser.zero_grad()
            outputs, cache = self.model.forward(batch.x, **batch.options)
            compared = batch.compared(outputs)
            value, loss_cache = self.loss.forward(*compared)
            self.model.backward(cache, batch.scattered(self.loss.backward(loss_cache), outputs))
            if self.max_norm is not None:
                clip_grad_norm_(self.model, self.max_norm)
            self.optimiser.step()
            means.add(value, compared, batch.weight)
            if progress is not None:
                progress.advance(len(batch.y), f"loss {value:.4g}")
        return means.values()

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The means of loss and metrics in inference."""
        means = _Means(self.metrics)
        _reset_states(self.model)
        for batch in batches:
            if batch.weight:
                compared = batch.compared(self.model(batch.x, **batch.options))
                means.add(self.loss.forward(*compared)[0], compared, batch.weight)
        _reset_states(self.model)
        return {f"val_{name}": value for name, value in means.values().items()}


class _Means:
    """Means over samples, of means over batches."""

    def __init__(self, metrics: Metrics):
        self.metrics, self.total, self.weight = metrics, dict.fromkeys(("loss", *metrics), 0.0), 0

    def add(self, loss: float, compared: tuple[np.ndarray, np.ndarray], weight: int) -> None:
        self.weight += weight
        self.total["loss"] += float(loss) * weight
        for name, metric in self.metrics.items():
            self.total[name] += float(metric(*compared)) * weight

    def values(self) -> dict[str, float]:
        return {name: total / max(self.weight, 1) for name, total in self.total.items()}


def fit(
    model: Any,
    x: ArrayLike | list[ArrayLike],
    y: ArrayLike | list[ArrayLike],
    *,
    loss: Any,
    optimiser: Any,
    epochs: int = 10,
    batch_size: int = 32,
    lengths: ArrayLike | None = None,
    validation: tuple | None = None,
    validation_split: float = 0.0,
    shuffle: bool = True,
    buckets: bool = True,
    max_norm: float | None = None,
    schedule: Any = None,
    patience: int | None = None,
    metrics: Metrics | None = None,
    checkpoint: str | os.PathLike | None = None,
    resume: bool = False,
    callbacks: Iterable[Callable[[dict, Any], Any]] = (),
    progress: bool = True,
    rng: int | np.random.Generator | None = 0,
) -> History:
    """
    Train a model on samples, batch by batch, epoch by epoch.

    Parameters
    ----------
    model : Module
        ``model.forward(x) -> (outputs, cache)``, ``model.backward(cache, doutputs)`` and, for validation,
        ``model(x) -> outputs``, all batch-first. Where there are lengths it is also given ``lengths=``.
    x : array (N, ...), or list of N arrays (T_n, ...)
        The samples. A list is of sequences of different lengths, which are padded with zeros batch by batch.
    y : array (N, ...), or list of N arrays (T_n, ...)
        The targets. With a list, one for each step of an `x` that is a list too: loss and metrics then get the steps
        that are no padding, one below the other, ``(M, ...)``.
    loss
        ``loss.forward(outputs, y) -> (value, cache)``, a mean over samples, and ``loss.backward(cache) -> doutputs``.
    optimiser : Optimiser
        Of the model's parameters.
    epochs : int
        How often to go through all samples; with `resume` those before it count.
    batch_size : int
        Samples of a step; the last one of an epoch may have fewer.
    lengths : integers (N,), optional
        Of an array `x` (N, T, ...): how many steps of each sample are no padding.
    validation : (x, y) or (x, y, lengths), optional
        What the model is not trained on but tested with after each epoch.
    validation_split : float
        Instead: what part of the samples to take for that, always the last ones.
    shuffle : bool
        Whether each epoch has an order of its own; else it is that of the samples.
    buckets : bool
        Whether batches are made of sequences of like lengths, for less padding: where `x` is a list and shuffled.
    max_norm : float, optional
        The global norm that the gradients are clipped to.
    schedule : Schedule, optional
        Its ``step(metric)`` comes after each epoch, with the validation loss, or without validation the loss.
    patience : int, optional
        Stop after so many epochs without a better validation loss. In the end, however it comes, the model has the
        weights of its best epoch.
    metrics : dict of str to callable, optional
        ``metric(outputs, y) -> number``, a mean over samples. Reported are means over the batches by their size.
    checkpoint : path, optional
        Where to save, after each epoch, all that the next one depends on: parameters, optimiser, schedule, history, the
        state of `rng` and of every module's ``rng``. It is one ``.npz`` file, which a crash never leaves half written.
    resume : bool
        Whether to go on from that file, if it is there: with the same arguments, the same bits as without a break.
    callbacks : iterable of callable
        Called as ``callback(record, model)`` after each epoch; "stop" in return ends the training.
    progress : bool
        Whether to show a line with each epoch's progress, if this is a terminal.
    rng : int, numpy.random.Generator or None
        The source of the order.

    Returns
    -------
    History

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit one another, and for a checkpoint that is damaged or of another model.

    Notes
    -----
    Layers that are `stateful` start from zeros in each epoch and before and after each validation.
    """
    _check_parts(model, loss, optimiser, schedule)
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks: {type(callbacks).__name__}, expected an iterable of functions")
    callbacks = tuple(callbacks)  # every epoch needs them, and an iterator ends
    positive_int("epochs", epochs)
    positive_int("batch_size", batch_size)
    if patience is not None:
        positive_int("patience", patience)
    if max_norm is not None and not max_norm > 0:
        raise ValueError(f"max_norm: {max_norm!r}, expected a number above 0")
    if metrics is not None and not isinstance(metrics, Mapping):
        raise TypeError(f"metrics: {type(metrics).__name__}, expected a dict of callables")
    if taken := {"epoch", "loss", "lr", "seconds"}.intersection(metrics or ()):
        raise ValueError(f"metrics: {sorted(taken)}, expected names that a record does not have without them")
    training, held_out = _parts(Samples(x, y, lengths), validation, validation_split)
    if patience is not None and held_out is None:
        raise ValueError(f"patience: {patience}, expected validation or validation_split with it")
    if resume and checkpoint is None:
        raise ValueError("resume: True, expected a checkpoint with it")
    if checkpoint is not None and not Path(checkpoint).absolute().parent.is_dir():
        raise ValueError(f"checkpoint: {checkpoint}, expected a path in a directory that is there")

    run = _Run(model, loss, optimiser, schedule, metrics or {}, max_norm, patience, np.random.default_rng(rng))
    if resume and Path(checkpoint).exists():
        _resume.load(checkpoint, run)
    while not run.over(epochs):
        epoch, start, lr = len(run.history.epochs) + 1, time.perf_counter(), float(optimiser.lr)
        line = Progress(f"epoch {epoch}/{epochs}", len(training), "samples") if progress else None
        try:
            means = run.train(training.batches(batch_size, run.rng if shuffle else None, buckets), line)
        finally:
            if line is not None:
                line.close()
        if held_out is not None:
            means |= run.evaluate(held_out.batches(batch_size, buckets=True))
        record = {"epoch": epoch, **means, "lr": lr, "seconds": time.perf_counter() - start}
        run.history.epochs.append(record)
        if patience is not None and run.history.best_epoch == epoch:
            run.best = model.state_dict()
        if schedule is not None:
            schedule.step(means.get("val_loss", means["loss"]))
        answers = [callback(record, model) for callback in callbacks]
        if checkpoint is not None:
            _resume.save(checkpoint, run)
        if any(isinstance(answer, str) and answer == "stop" for answer in answers):  # others may be arrays
            break
    if run.best is not None:
        model.load_state_dict(run.best)
    return run.history


def _check_parts(model: Any, loss: Any, optimiser: Any, schedule: Any) -> None:
    """What `fit` calls is there, and an optimiser or schedule is not of another run, where it would change nothing."""
    needed = {"model": (model, "forward", "backward"), "loss": (loss, "forward", "backward")}
    needed["optimiser"] = (optimiser, "lr", "step", "zero_grad")
    if schedule is not None:
        needed["schedule"] = (schedule, "step")
    for name, (part, *names) in needed.items():
        if isinstance(part, type) or not all(hasattr(part, needs) for needs in names):
            found = f"the class {part.__name__}" if isinstance(part, type) else type(part).__name__
            raise TypeError(f"{name}: {found}, expected an object with {', '.join(names)}")
    if isinstance(optimiser, Optimiser) and isinstance(model, Module):
        own = {id(parameter.value) for parameter in model.parameters()}
        if not any(id(parameter.value) in own for parameter in optimiser.module.parameters()):
            raise ValueError(f"optimiser: of another {type(optimiser.module).__name__}, expected one of the model")
    if isinstance(schedule, Schedule) and schedule.optimiser is not optimiser:
        raise ValueError(f"schedule: of another {type(schedule.optimiser).__name__}, expected one of the optimiser")


def _parts(samples: Samples, validation: Any, fraction: float) -> tuple[Samples, Samples | None]:
    """What to train on, and what to validate with."""
    if not 0 <= fraction < 1:
        raise ValueError(f"validation_split: {fraction!r}, expected a number from 0 to below 1")
    if validation is None:
        if fraction and not 0 < round(fraction * len(samples)) < len(samples):
            raise ValueError(f"validation_split: {fraction!r}, which is nothing or all of {len(samples)} samples")
        return samples.split(fraction) if fraction else (samples, None)
    if fraction:
        raise ValueError("validation, validation_split: both given, expected one of the two")
    if not isinstance(validation, tuple | list) or len(validation) not in (2, 3):
        raise ValueError(f"validation: {type(validation).__name__}, expected (x, y) or (x, y, lengths)")
    return samples, Samples(*validation, prefix="validation ")


def _reset_states(model: Any) -> None:
    for _, module in _resume.modules(model):
        if getattr(module, "stateful", False):
            module.reset_state()
