"""Checkpoints of `fit`: all that the next epoch depends on, in one file that is read without executing anything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastrnn._files import read_npz, replacing
from fastrnn.module import Module

FORMAT = "fastrnn.fit/1"


def modules(module: Any, name: str = "model") -> Iterator[tuple[str, Any]]:
    """A module and all within it, with their names."""
    yield name, module
    for child, value in vars(module).items():
        if isinstance(value, Module):
            yield from modules(value, f"{name}.{child}")


def _generators(run: Any) -> dict[str, np.random.Generator]:
    found = {name: getattr(module, "rng", None) for name, module in modules(run.model)}
    return {"fit": run.rng} | {name: rng for name, rng in found.items() if isinstance(rng, np.random.Generator)}


def _kinds(run: Any) -> dict[str, Any]:
    """What must be the same in the run that goes on."""
    return {
        "optimiser": type(run.optimiser).__name__,
        "schedule": None if run.schedule is None else type(run.schedule).__name__,
        "patience": run.patience is not None,
        "generators": {name: rng.bit_generator.state["bit_generator"] for name, rng in _generators(run).items()},
    }


def save(path: str | os.PathLike, run: Any) -> None:
    """Write the state of a run; a crash in the middle leaves an older file as it was."""
    states = {name: rng.bit_generator.state for name, rng in _generators(run).items()}
    header = {"format": FORMAT, "kinds": _kinds(run), "history": run.history.epochs, "rng": states}
    parts = {"model": run.model.state_dict(), "optimiser": run.optimiser.state_dict(), "best": run.best or {}}
    if run.schedule is not None:
        parts["schedule"] = run.schedule.state_dict()
    arrays = {f"{part}/{name}": np.asarray(value) for part, values in parts.items() for name, value in values.items()}
    odd = [name for name, array in arrays.items() if array.dtype.hasobject]
    if odd:
        raise TypeError(f"checkpoint: {odd} are no numbers or arrays, which is all that can be saved")
    text = json.dumps(header, default=lambda value: value.tolist())  # the states of some generators are arrays
    with replacing(path) as file:
        np.savez(file, header=np.array(text), **arrays)


def load(path: str | os.PathLike, run: Any) -> None:
    """
    Put a run into the state that was saved.

    Raises
    ------
    ValueError
        If the file is damaged, or of a run of other parts; then nothing has been changed.
    OSError
        If it cannot be read.
    """
    header, parts = _read(path)
    kinds = _kinds(run)
    for name, kind in header["kinds"].items():
        if kind != kinds.get(name):
            raise ValueError(f"checkpoint: {path} is of a run with {name} {kind}, expected {kinds.get(name)}")
    before, optimiser_before = run.model.state_dict(), run.optimiser.state_dict()
    try:
        run.model.load_state_dict(parts["best"] or before)  # seen to fit now, for it is loaded at the end
        run.model.load_state_dict(parts["model"])
        run.optimiser.load_state_dict(parts["optimiser"])
        if run.schedule is not None:
            run.schedule.load_state_dict(parts["schedule"])
    except (ValueError, TypeError) as error:
        run.model.load_state_dict(before)
        run.optimiser.load_state_dict(optimiser_before)
        raise ValueError(f"checkpoint: {path} is of another model, optimiser or schedule ({error})") from None
    for name, rng in _generators(run).items():  # in place, for modules may share one
        rng.bit_generator.state = header["rng"][name]
    run.best = parts["best"] or None
    run.history.epochs[:] = header["history"]


def _read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    try:
        arrays = read_npz(path)
        header = json.loads(str(arrays.pop("header")))
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']!r}")
        parts: dict[str, dict[str, np.ndarray]] = {part: {} for part in ("model", "optimiser", "schedule", "best")}
        for name, value in arrays.items():
            part, _, inner = name.partition("/")
            parts[part][inner] = value
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"checkpoint: {path} is no checkpoint of fit, or damaged ({error})") from None
    return header, parts
