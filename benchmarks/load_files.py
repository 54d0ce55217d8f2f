"""How long it takes to load a saved layer, beside reading its bytes and saving it."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fastrnn


def layer_of(megabytes: float) -> fastrnn.LSTM:
    """An LSTM of about this size: 8 H^2 numbers of 4 bytes."""
    H = max(1, round((megabytes * 1e6 / 32) ** 0.5))
    return fastrnn.LSTM(H, H, rng=0)


def interleaved(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each function, all of them in turn, what they return kept till the clock has stopped."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            kept = function()
            seconds[name].append(time.perf_counter() - start)
            del kept
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    layer = layer_of(args.megabytes)
    with tempfile.TemporaryDirectory() as folder:
        for ending in ("safetensors", "npz"):
            path = Path(folder) / f"layer.{ending}"
            fastrnn.save(layer, path)
            again = fastrnn.load(path)
            assert all((again.params[name] == value).all() for name, value in layer.params.items())
            functions = {
                "read the bytes": path.read_bytes,
                "into an array": lambda path=path: np.fromfile(path, np.uint8),
                "load": lambda path=path: fastrnn.load(path),
                "save": lambda path=path: fastrnn.save(layer, path),
            }
            seconds = interleaved(functions, args.repeats)
            base = statistics.median(seconds["read the bytes"])
            print(f"{path.name}, {os.path.getsize(path) / 1e6:.0f} MB")
            for name, values in seconds.items():
                middle = statistics.median(values)
                print(f"  {name:<16}{1e3 * middle:8.1f} ms  {middle / base:6.2f}")


if __name__ == "__main__":
    main()
