"""fastrnn: recurrent networks on the CPU, as fast as the machine allows, behind a NumPy API.

`fastrnn.functional` runs the cells, `fastrnn.reference` is their specification in NumPy, and `RNN`, `LSTM` and `GRU`
are the layers. `fastrnn.nn`, `fastrnn.data`, `fastrnn.models`, `fastrnn.interop` and `fastrnn.viz` are imported when
they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastrnn import functional, reference
from fastrnn._core.memory import Workspace
from fastrnn._settings import config_context, get_config, get_num_threads, set_num_threads, show_config
from fastrnn.layers import GRU, LSTM, RNN, IndRNN, MinGRU, MinLSTM, Stack
from fastrnn.module import Module
from fastrnn.packed import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence
from fastrnn.variants import Variant

if TYPE_CHECKING:  # what __getattr__ imports when it is first used
    from fastrnn import data, interop, models, nn, viz
    from fastrnn.files import load, load_arrays, save, save_arrays

__version__ = "0.1.0"
__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "IndRNN",
    "MinGRU",
    "MinLSTM",
    "Module",
    "PackedSequence",
    "Stack",
    "Variant",
    "Workspace",
    "config_context",
    "data",
    "functional",
    "get_config",
    "get_num_threads",
    "interop",
    "load",
    "load_arrays",
    "models",
    "nn",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "reference",
    "save",
    "save_arrays",
    "set_num_threads",
    "show_config",
    "viz",
]

_LAZY = ("data", "interop", "models", "nn", "viz")
_OF_FILES = ("load", "load_arrays", "save", "save_arrays")


def __getattr__(name: str) -> Any:
    if name in _OF_FILES:
        return getattr(importlib.import_module("fastrnn.files"), name)
    if name in _LAZY:
        return importlib.import_module(f"fastrnn.{name}")
    raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_OF_FILES})
