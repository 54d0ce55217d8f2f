"""
Modules and arrays in files: ``.safetensors``, which other libraries read too, and NumPy's ``.npz``.

A module's file has its parameters by name, as PyTorch names them, and a description of the module beside them. Reading
one executes nothing: the modules are those of this package, and what does not fit is an error before anything of its
size is made.

>>> import fastrnn
>>> layer = fastrnn.LSTM(8, 16, num_layers=2, rng=0)
>>> fastrnn.save(layer, "lstm.safetensors")
>>> again = fastrnn.load("lstm.safetensors")
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastrnn import _safetensors
from fastrnn._building import build, compare, describe
from fastrnn._files import read_npz, replacing, write_npz
from fastrnn.module import Module

__all__ = ["load", "load_arrays", "save", "save_arrays"]

ENDINGS = (".safetensors", ".npz")
KEY = "fastrnn"  # of the description in the metadata, or in an .npz among the arrays
VERSION = 1


def save(module: Module, path: str | os.PathLike) -> None:
    """
    Write a module: what it was built from, and its parameters.

    Parameters
    ----------
    module : Module
        A layer or model of this package, or several in a `Stack` or `Sequential`. What a stateful layer remembers, and
        the state of a random number generator, are not saved.
    path : path
        Ending in ``.safetensors`` or ``.npz``. A crash in the middle leaves an older file as it was.

    Raises
    ------
    TypeError, ValueError
        For something else than such a module, one whose parts or settings are no longer those it was built with, or
        another ending; then nothing is written.
    """
    if not isinstance(module, Module):
        raise TypeError(f"module: {type(module).__name__}, expected a fastrnn.Module")
    description = describe(module)
    arrays = {p.name: p.value for p in module.parameters()}
    try:
        compare(module, build(description, arrays))
    except ValueError as error:
        raise ValueError(f"module: {type(module).__name__} is not what it was built as ({error})") from None
    _write(path, arrays, json.dumps({"version": VERSION, **description}))


def load(path: str | os.PathLike, *, rng: int | np.random.Generator | None = None) -> Any:
    """
    Make a module of a file that `save` wrote. Nothing in the file is executed.

    Parameters
    ----------
    path : path
        Ending in ``.safetensors`` or ``.npz``.
    rng : int, numpy.random.Generator or None
        The source of dropout in further training.

    Returns
    -------
    Module
        Of the class that was saved.

    Raises
    ------
    ValueError
        If it is no such file, or damaged.
    OSError
        If it cannot be read.
    """
    with naming(path, "not a module of this package, or damaged"):
        arrays, text = read(path)
        if text is None:
            raise ValueError("arrays without the description of a module, for which there is load_arrays")
        return built(text, arrays, rng)


def save_arrays(arrays: Mapping[str, Any], path: str | os.PathLike) -> None:
    """
    Write arrays alone, say a `state_dict` of a module that is not of this package.

    Parameters
    ----------
    arrays : mapping of str to array
        Of booleans, integers or floats.
    path : path
        Ending in ``.safetensors`` or ``.npz``. A crash in the middle leaves an older file as it was.

    Raises
    ------
    TypeError, ValueError
        For another dtype, name or ending; then nothing is written.
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(f"arrays: {type(arrays).__name__}, expected arrays by name, such as a state_dict()")
    found = {name: np.asarray(value) for name, value in arrays.items()}
    for name, array in found.items():
        if not isinstance(name, str):
            raise TypeError(f"arrays: the name {name!r}, expected a text")
        if array.dtype.kind not in "biufc":
            raise TypeError(f"{name}: dtype {array.dtype}, expected numbers")
    _write(path, found, None)


def load_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """
    Read the arrays of a file, whoever wrote it; the description of a module is left out.

    Parameters
    ----------
    path : path
        Ending in ``.safetensors`` or ``.npz``, the latter not compressed.

    Returns
    -------
    dict of str to array
        Those of a ``.safetensors`` file share one block of memory. BF16 becomes float32.

    Raises
    ------
    ValueError
        If it is no such file, or damaged.
    OSError
        If it cannot be read.
    """
    with naming(path, f"no {ending(path)} file, or damaged"):
        return read(path)[0]


def ending(path: str | os.PathLike, endings: Sequence[str] = ENDINGS) -> str:
    """The one of several endings that a path has."""
    name = os.fsdecode(path)
    found = next((end for end in endings if name.lower().endswith(end)), None)
    if found is None:
        raise ValueError(f"path: {name!r}, expected one ending in {', '.join(endings[:-1])} or {endings[-1]}")
    return found


def _write(path: str | os.PathLike, arrays: dict[str, np.ndarray], text: str | None) -> None:
    kind = ending(path)
    with replacing(path) as file:
        if kind == ".npz":
            write_npz(file, arrays if text is None else {KEY: np.array(text), **arrays})
        else:
            _safetensors.write(file, arrays, None if text is None else {KEY: text})


@contextmanager
def naming(path: str | os.PathLike, what: str) -> Iterator[None]:
    """Errors of a file's content with its path in front."""
    ending(path)  # whose error is of the path alone
    try:
        yield
    except (ValueError, MemoryError) as error:
        raise ValueError(f"{os.fsdecode(path)}: {what} ({error!s:.500})") from None


def read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], str | None]:
    """The arrays of a file, and the text of the description of a module if there is one."""
    if ending(path) == ".npz":
        arrays = read_npz(path)
        is_text = KEY in arrays and arrays[KEY].dtype.kind == "U"  # which save_arrays does not write
        return arrays, str(arrays.pop(KEY)) if is_text else None
    arrays, metadata = _safetensors.read(path)
    return arrays, metadata.get(KEY)


def built(text: str, arrays: Mapping[str, np.ndarray], rng: int | np.random.Generator | None = None) -> Module:
    """The module whose description a text is."""
    description = _safetensors.parse_json(text)
    if not isinstance(description, dict) or description.pop("version", None) != VERSION:
        raise ValueError(f"the description of a module is not of version {VERSION}")
    return build(description, arrays, rng)
