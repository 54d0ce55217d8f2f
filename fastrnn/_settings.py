"""Which engine, instruction set and thread count run, who chose them, and how to say so."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy

from fastrnn import _blas_threads, _check
from fastrnn._core import kernels

ENGINES = ("auto", "native", "blas", "reference")
ISAS = ("auto", "avx512", "avx2", "neon", "baseline")
AVAILABLE_ISAS = kernels.available_isas()

log = logging.getLogger("fastrnn")


@dataclass(frozen=True)
class Config:
    """The settings as they were asked for; None says nothing about one."""

    engine: str | None = None
    isa: str | None = None
    num_threads: int | None = None


def _checked(engine: str | None, isa: str | None, num_threads: int | str | None, names: tuple[str, str, str]) -> dict:
    """Those of the settings that are not None, validated; `names` says how to call them in a message."""
    settings: dict = {}
    if engine is not None:
        settings["engine"] = _check.choice(names[0], engine, ENGINES)
    if isa is not None:
        _check.choice(names[1], isa, ISAS)
        if isa != "auto" and isa not in AVAILABLE_ISAS:
            raise ValueError(f"{names[1]}: {isa!r} cannot run here, expected one of {('auto', *AVAILABLE_ISAS)}")
        settings["isa"] = isa
    if num_threads is not None:
        settings["num_threads"] = _thread_count(names[2], num_threads)
    return settings


def _thread_count(name: str, value: int | str) -> int:
    try:
        count = int(value) if isinstance(value, str) else value.__index__()
    except (AttributeError, ValueError):
        raise ValueError(f"{name}: {value!r}, expected a whole number from 1") from None
    if count < 1:
        raise ValueError(f"{name}: {count}, expected a whole number from 1")
    return count


def _from_environment() -> Config:
    names = ("FASTRNN_ENGINE", "FASTRNN_ISA", "FASTRNN_NUM_THREADS")
    return Config(**_checked(*(os.environ.get(name) or None for name in names), names))


_base = _from_environment()
_NOTHING = Config()
_override: ContextVar[Config] = ContextVar("fastrnn_config", default=_NOTHING)
if _base.num_threads is not None:
    _blas_threads.set(_base.num_threads)


def asked(setting: str) -> Any:
    """A setting as it is in force here: the innermost `config_context` that names it, else the process; or None."""
    value = getattr(_override.get(), setting)
    return getattr(_base, setting) if value is None else value


def overrides() -> Config:
    """What `config_context` has set here, for code that will run in another thread."""
    return _override.get()


def resolve() -> tuple[str, str]:
    """The engine and the instruction set that run, ``"auto"`` resolved: to `native`, and to the best this CPU has."""
    override = _override.get()
    if override is _NOTHING:
        return _resolved  # the usual case, a tenth of a microsecond
    return _resolve(override.engine or _base.engine, override.isa or _base.isa)


def _resolve(engine: str | None, isa: str | None) -> tuple[str, str]:
    return (
        engine if engine in ("blas", "reference") else "native",
        AVAILABLE_ISAS[0] if isa in (None, "auto") else isa,
    )


_resolved = _resolve(_base.engine, _base.isa)  # no call changes these two for the whole process


def engine() -> str:
    """The engine that runs."""
    return resolve()[0]


def isa() -> str:
    """The instruction set that runs."""
    return resolve()[1]


def set_num_threads(n: int) -> None:
    """
    Set how many threads a call may use, for the whole process.

    The `blas` engine takes its threads from the BLAS library behind SciPy, which is told as well where it can be.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    ValueError
        If `n` is not a whole number from 1.
    """
    global _base
    count = _thread_count("n", n)
    _base = replace(_base, num_threads=count)
    _blas_threads.set(count)


def get_num_threads() -> int:
    """
    How many threads a call may use.

    Returns
    -------
    int
        What `config_context`, `set_num_threads` or ``FASTRNN_NUM_THREADS`` said; else the CPUs of this process.
    """
    return asked("num_threads") or _cpus()


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


@contextmanager
def config_context(
    *, engine: str | None = None, isa: str | None = None, num_threads: int | None = None
) -> Iterator[None]:
    """
    Change settings within a ``with`` block, for this thread (or asyncio task) only.

    Parameters
    ----------
    engine : {"auto", "native", "blas", "reference"}, optional
        None leaves the setting as it is, for this and the others.
    isa : {"auto", "avx512", "avx2", "neon", "baseline"}, optional
        The instruction set of the C kernels; it must be one this CPU has.
    num_threads : int, optional
        At least 1. The BLAS library has one count for the whole process: while such contexts are open, it is what the
        youngest one says.

    Raises
    ------
    ValueError
        For an unknown or unavailable value; the message lists the known ones.

    Examples
    --------
    >>> layer, x = fastrnn.GRU(3, 4, rng=0), np.ones((5, 2, 3), np.float32)
    >>> with fastrnn.config_context(engine="reference"):
    ...     y, state = layer(x)
    """
    settings = _checked(engine, isa, num_threads, ("engine", "isa", "num_threads"))
    token = _override.set(replace(_override.get(), **settings))
    try:
        with nullcontext() if num_threads is None else _blas_threads.limited(settings["num_threads"]):
            yield
    finally:
        _override.reset(token)


def get_config() -> dict:
    """
    What runs here, and why.

    Returns
    -------
    dict
        ``engine``, ``isa`` and ``num_threads`` as they resolve; ``asked`` holds the settings they come from;
        ``available_isas``; ``blas``, ``blas_threads`` (None where the library does not say) and ``versions``.
    """
    build = scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "engine": engine(),
        "isa": isa(),
        "num_threads": get_num_threads(),
        "asked": {name: asked(name) or "auto" for name in ("engine", "isa", "num_threads")},
        "available_isas": AVAILABLE_ISAS,
        "blas": f"{build.get('name', 'unknown')} {build.get('version', '')}".strip(),
        "blas_threads": _blas_threads.get(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
    }


def show_config() -> None:
    """Print which engine, instruction set, BLAS and thread count run, and why."""
    from fastrnn import __version__

    config = get_config()
    wish = config["asked"]
    reason = {
        "engine": "the fastest engine of this build" if wish["engine"] == "auto" else "",
        "isa": f"this CPU has {', '.join(config['available_isas'])}",
        "num_threads": "the CPUs of this process" if wish["num_threads"] == "auto" else "",
    }
    print(f"fastrnn {__version__}")
    for key, label in (("engine", "engine"), ("isa", "isa"), ("num_threads", "threads")):
        note = f"  ({reason[key]})" if reason[key] else ""
        print(f"  {label:<8} {wish[key]} -> {config[key]}{note}")
    threads = config["blas_threads"]
    print(f"  BLAS     {config['blas']}, {'its own' if threads is None else threads} threads")
    print("  with     " + ", ".join(f"{name} {version}" for name, version in config["versions"].items()))
