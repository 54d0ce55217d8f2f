"""Writing files so that a crash in the middle leaves the old one, and reading archives of arrays without trust."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of `path` when the block ends well, and vanishes when it does not."""
    path = os.fspath(path)
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=os.path.basename(path) + ".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files for their owner alone; give this one the permissions that open() would have.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file, nothing of which is executed; ValueError for another file or a damaged one."""
    raw = io.BytesIO(Path(path).read_bytes())  # from here on, whatever goes wrong is the content's fault
    try:
        # np.load decides by the first bytes and reads other things than npz; zipfile says what is no archive.
        with zipfile.ZipFile(raw) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"{damaged} is damaged")
        raw.seek(0)
        with np.load(raw, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, TypeError, KeyError, EOFError, OverflowError, MemoryError, RecursionError, zlib.error,
            zipfile.BadZipFile, NotImplementedError) as error:  # fmt: skip
        raise ValueError(str(error)) from None
