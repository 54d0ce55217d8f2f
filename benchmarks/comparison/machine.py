"""What this machine can do at most: multiply-adds, and reading from each level of the memory."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fastrnn._core.probe import fma_gflops, read_gbs

SECONDS = 0.15
ATTEMPTS = 3  # the best counts: others may use the machine meanwhile
SHARED_FROM = 3  # the level of cache that cores share


class Others:
    """What others take of the CPUs from its making on: other processes, and other guests of the same host."""

    def __init__(self):
        self.start = self._seconds()

    @staticmethod
    def _seconds():
        """CPU time of everybody, of this process, and elapsed, times the CPUs; None where the system does not tell."""
        try:
            lines = Path("/proc/stat").read_text().splitlines()
        except OSError:
            return None
        user, nice, system, _, _, irq, softirq, steal = map(int, lines[0].split()[1:9])
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return np.array([busy, time.process_time(), time.perf_counter() * os.cpu_count()])

    def share(self):
        """The share of all CPUs' time, or None."""
        if self.start is None:
            return None
        busy, own, elapsed = self._seconds() - self.start
        return float(max(0.0, busy - own) / elapsed)


def _all_at_once(threads, measure):
    """The sum of what `measure` returns in so many threads at the same time."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(future.result() for future in [pool.submit(measure) for _ in range(threads)])


def fma_peak(threads):
    """GF/s of float32 multiply-adds of all threads together, two operations each."""
    return max(_all_at_once(threads, lambda: fma_gflops(SECONDS)) for _ in range(ATTEMPTS))


def read_bandwidth(nbytes, threads):
    """GB/s of all threads together, each reading its own `nbytes` over and over."""
    return max(_all_at_once(threads, lambda: read_gbs(nbytes, SECONDS)) for _ in range(ATTEMPTS))


def caches():
    """Bytes of each level of cache as the system tells them, else those of a usual server."""
    sizes = {1: 48 << 10, 2: 1 << 20, 3: 32 << 20}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction" and size.endswith("K") and int(level) in sizes:
            sizes[int(level)] = int(size[:-1]) << 10
    return sizes


def limits(threads):
    """All of them, as they are saved.

    Each thread's working set is half of a cache that it has to itself, its part of a quarter of one that is shared,
    and for the memory twice the last cache.
    """
    sizes = caches()
    read = {}
    for level, size in sizes.items():
        own = size // 2 if level < SHARED_FROM else size // 4 // threads
        read[f"L{level}"] = {"holds": size, "bytes": own, "gbs": read_bandwidth(own, threads)}
    own = 2 * sizes[3]
    read["memory"] = {"holds": None, "bytes": own, "gbs": read_bandwidth(own, threads)}
    return {"fma_gflops": fma_peak(threads), "read": read}


def fraction(problem, seconds, threads, limits, training=False):
    """The share of a limit that `problem` in so many seconds reached, and which limit it is.

    From batch 16 the multiply-adds. At batch 1 reading the weights of each step from the first level that holds them,
    where each thread keeps its share of them in its own caches, after the multiply-adds of the input's product, which
    is one for all steps. None where both count: between, and in training at batch 1.
    """
    T, B, _, _ = problem.shape
    peak = limits["fma_gflops"] * 4 / problem.dtype.itemsize
    if B >= 16:
        return (3 if training else 1) * problem.flops / seconds / 1e9 / peak, "FMA"
    if B > 1 or training:
        return None, None
    weights = problem.bytes_per_step
    levels = limits["read"].items()
    level = next(n for n, read in levels if read["holds"] is None or weights / _parts(n, threads) <= read["holds"])
    least = T * weights / 1e9 / limits["read"][level]["gbs"] + problem.flops_before / 1e9 / peak
    return least / seconds, level


def _parts(level, threads):
    """Into how many parts weights are divided before a level has to hold them."""
    return 1 if level == f"L{SHARED_FROM}" else threads
