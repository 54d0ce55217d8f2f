"""Writing files so that a crash in the middle leaves the old one, and reading archives of arrays without trust."""

from __future__ import annotations

import io
import math
import os
import secrets
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import numpy as np


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """
    A file to write to that takes the place of `path` when the block ends well, and vanishes when it does not.

    As with `open`, a link stays one, and a file that is there keeps its permissions.
    """
    given, path = path, os.path.realpath(os.fsdecode(path))
    temporary = f"{path}.{secrets.token_hex(4)}"
    try:
        file = open(temporary, "xb")  # noqa: SIM115
    except OSError as error:
        error.filename = os.fspath(given)  # which the caller knows
        raise
    try:
        with file:  # whose end fails too, on a full disk
            with suppress(FileNotFoundError):
                shutil.copymode(path, temporary)  # before there is anything in it to be read
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def read_block(file: Any, size: int) -> np.ndarray:
    """The next bytes of a file, at an address that suits every instruction set; ValueError if there are fewer."""
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    block, done = room[start : start + size], 0
    while done < size:
        count = file.readinto(memoryview(block)[done:])
        if not count:
            raise ValueError(f"{size - done} bytes are missing at the end")
        done += count
    return block


def write_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """What `numpy.savez` writes, whatever the arrays are called; ValueError for a name that no archive can keep."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            if zipfile.ZipInfo(name).filename != name:  # cut at a NUL, and without the backslashes of Windows
                raise ValueError(f"{name!r}: the name of an array, expected one that an .npz file can keep")
            with archive.open(name + ".npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """
    All arrays of an ``.npz`` file as `numpy.savez` writes it; ValueError for another file or a damaged one.

    Nothing in it is executed, and nothing is made of a size that the file only claims to have.
    """
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                if len(members) < len(archive.infolist()):
                    raise ValueError("a name is there twice")
                size = os.fstat(file.fileno()).st_size
                if sum(info.file_size for info in members.values()) > size:
                    raise ValueError("its members are compressed, or lie over one another")
                if not all(0 <= info.header_offset < size for info in members.values()):
                    raise ValueError("a member is outside of the file")
                return {name: _member(file, info) for name, info in members.items()}
        except (ValueError, TypeError, LookupError, EOFError, ArithmeticError, MemoryError, RecursionError, SyntaxError,
                zipfile.BadZipFile, NotImplementedError, struct.error) as error:  # fmt: skip
            raise ValueError(f"{error}") from None


def _member(file: BinaryIO, info: zipfile.ZipInfo) -> np.ndarray:
    """An array of an archive, in memory once, where `zipfile` would have it three times."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ValueError(f"{info.filename!r:.80} is compressed or encrypted, expected it as numpy.savez writes it")
    file.seek(info.header_offset)
    signature, name, extra = struct.unpack("<4s22xHH", file.read(30))
    if signature != b"PK\x03\x04" or file.read(name) != info.filename.encode():
        raise ValueError(f"{info.filename!r:.80} is not where it should be")
    file.seek(extra, os.SEEK_CUR)
    content = read_block(file, info.file_size)
    if zlib.crc32(content) != info.CRC:
        raise ValueError(f"{info.filename!r:.80} has changed since it was written")
    return _array(info.filename, content)


def _array(name: str, content: np.ndarray) -> np.ndarray:
    """The array that the bytes of an ``.npy`` file are, without a copy."""
    stream = io.BytesIO(content[:65536].tobytes())
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name!r:.80} is of version {version}")
    shape, fortran, dtype = readers[version](stream)
    data = content[stream.tell() :]
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{name!r:.80}: {len(data)} bytes are not {shape!s:.80} of {dtype!s:.80}")
    return data.view(dtype).reshape(shape, order="F" if fortran else "C")
