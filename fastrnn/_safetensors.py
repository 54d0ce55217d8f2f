"""The safetensors format: named arrays and some text, in a file that holds nothing else.

A file is the length n of a header, 8 bytes, little-endian; the header, n bytes of JSON that give each array's dtype,
shape and place; and the arrays, little-endian and row by row, without gaps. The specification is
https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from fastrnn._files import read_block

METADATA = "__metadata__"
MAX_HEADER = 100_000_000  # the limit of the format
MAX_DIMENSIONS = 32  # what NumPy can do everywhere
ALIGNMENT = 64  # of the first array in the file
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "C64": "<c8",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
NAMES = {np.dtype(code): name for name, code in DTYPES.items() if name != "BF16"}


def write(file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """
    Write a file.

    Parameters
    ----------
    file : binary file
    arrays : mapping of str to array
        Of booleans, integers, or floats of 2 to 8 bytes.
    metadata : mapping of str to str, optional

    Raises
    ------
    TypeError, ValueError
        For another dtype, name or number of dimensions, before anything is written.
    """
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    parts, end = [], 0
    # Wide numbers first: then every one is at a multiple of its size, and can be used where it is.
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        dtype = array.dtype.newbyteorder("<")
        if name == METADATA:
            raise ValueError(f"{name}: the name of an array, expected another, for the format has this for itself")
        if dtype not in NAMES:
            raise TypeError(f"{name}: dtype {array.dtype}, expected one of {', '.join(map(str, NAMES))}")
        if array.ndim > MAX_DIMENSIONS:
            raise ValueError(f"{name}: {array.ndim} dimensions, expected at most {MAX_DIMENSIONS}")
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": NAMES[dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
        parts.append(np.ascontiguousarray(array, dtype))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()  # which refuses half a character
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise ValueError(f"header: {len(text)} bytes, expected at most {MAX_HEADER}")
    file.write(len(text).to_bytes(8, "little") + text)
    for part in parts:
        file.write(part.reshape(-1).view(np.uint8))


def read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """
    Read a file: its arrays and its metadata. Arrays share one block of memory; those of BF16 become float32.

    The header is checked against the size of the file before anything is made of what it says.

    Raises
    ------
    ValueError
        For another file, or a damaged one.
    OSError
        If it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, MAX_HEADER):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = _header(read_block(file, length).tobytes())
        places, metadata = _places(header, size - 8 - length)
        data = read_block(file, size - 8 - length)
    arrays = {name: _array(data[begin:end], dtype, shape) for name, (dtype, shape, begin, end) in places.items()}
    return arrays, metadata


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r:.80} is there twice")
        found[name] = value
    return found


def parse_json(text: str | bytes) -> Any:
    """JSON as it is defined: no name twice in one object, no NaN; ValueError for anything else."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=refuse)
    except RecursionError:
        raise ValueError("JSON that is too deep") from None


def _header(text: bytes) -> dict[str, Any]:
    header = parse_json(text.decode())  # UnicodeDecodeError is a ValueError
    if not text.startswith(b"{") or not isinstance(header, dict):
        raise ValueError("the header is no JSON object")
    return header


def _places(header: dict[str, Any], size: int) -> tuple[dict[str, tuple], dict[str, str]]:
    """Dtype, shape, begin and end of each array, checked to fill `size` bytes; and the metadata."""
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{METADATA} is no object of texts")
    places = {name: _place(name, entry, size) for name, entry in header.items()}
    last = 0
    for name, (_, _, begin, end) in sorted(places.items(), key=lambda item: item[1][2:]):
        if begin != last:
            raise ValueError(f"{name!r:.80} begins at {begin}, expected {last}, where the one before ends")
        last = end
    if last != size:
        raise ValueError(f"the arrays have {last} bytes, and {size} are there")
    return places, metadata


def _place(name: str, entry: Any, size: int) -> tuple[str, tuple[int, ...], int, int]:
    where = f"{name!r:.80}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{where} is no object of dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{where} has dtype {dtype!r:.20}, expected one of {', '.join(DTYPES)}")
    if not _whole(shape) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"{where} has shape {shape!r:.80}, expected at most {MAX_DIMENSIONS} whole numbers")
    if not _whole(offsets) or len(offsets) != 2:
        raise ValueError(f"{where} has data_offsets {offsets!r:.80}, expected two whole numbers")
    begin, end = offsets
    if end > size:
        raise ValueError(f"{where} ends behind the end of the file")
    if end - begin != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
        raise ValueError(f"{where} has {end - begin} bytes, which is not what its shape needs")
    if max(shape, default=0) > sys.maxsize:  # beside a 0
        raise ValueError(f"{where} has shape {shape!r:.80}, which is too large")
    return dtype, tuple(shape), begin, end


def _whole(values: Any) -> bool:
    """Whether it is a list of whole numbers from 0."""
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _array(data: np.ndarray, name: str, shape: tuple[int, ...]) -> np.ndarray:
    dtype = np.dtype(DTYPES[name])
    if data.ctypes.data % dtype.itemsize:
        data = data.copy()
    array = data.view(dtype)
    if name == "BF16":  # the upper half of a float32
        array = (array.astype("=u4") << 16).view("=f4")
    return array.astype(array.dtype.newbyteorder("="), copy=False).reshape(shape)
