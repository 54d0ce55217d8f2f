"""Frozen layers where things are not as they should be: a busy core, threads that sleep, denormals, too many threads.

    python benchmarks/disturbed.py

What is compared runs in turn, and medians are compared. The exit status is 1 if a line is above its limit.
Pins of the BLAS to another CPU are cleared in a child process.
"""

import argparse
import itertools
import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import cache

from engines import PINS, cpu_name

# T, B, I, H
SHAPES = (
    (100, 1, 256, 256),
    (50, 32, 128, 256),
    (100, 1, 64, 128),
    (10, 1, 512, 512),
    (20, 64, 128, 128),
    (1, 1, 64, 128),
)
HOG_LIMIT, DENORMAL_LIMIT = 3.0, 1.2
COUNTS = (1, 2, 4, 8, 16, 64)
SETTLE = 0.15  # seconds of calls until the scheduler has come to terms with a process that starts or stops
# It ends by itself should its parent be gone.
HOG = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(100_000))"


def medians(sides, seconds, rounds=6, rest=0.0):
    """The median time of each call of `sides`, pairs of what to do before a turn, or None, and a call after a rest."""
    times = [[] for _ in sides]
    for _ in range(rounds):
        for (prepare, call), mine in zip(sides, times, strict=True):
            begin = time.perf_counter()
            if prepare:
                prepare()
                begin += SETTLE
            call()  # wakes the threads
            while time.perf_counter() < begin:
                call()
            end = time.perf_counter() + seconds / rounds
            for k in itertools.count():
                if rest:
                    time.sleep(rest)
                start = time.perf_counter()
                if k >= 3 and start > end:
                    break
                call()
                mine.append(time.perf_counter() - start)
    return [statistics.median(mine) for mine in times]


@cache
def layers(cell, I, H, dtype):
    """A layer without biases, whose states stay as small as its inputs, and its frozen copy."""
    import fastrnn

    kind = {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU, "relu": fastrnn.RNN}[cell]
    options = {"nonlinearity": "relu"} if cell == "relu" else {}
    layer = kind(I, H, bias=False, dtype=dtype, rng=0, **options)
    return layer, layer.freeze()


def frozen_call(cell, shape, dtype="float32", threads=1, scale=1.0):
    """A function that calls a frozen layer on an input and states of this scale."""
    import numpy as np

    import fastrnn

    T, B, I, H = shape
    layer, fast = layers(cell, I, H, dtype)
    rng = np.random.default_rng(0)
    x, h0, c0 = (scale * rng.standard_normal(size).astype(dtype) for size in ((T, B, I), (1, B, H), (1, B, H)))
    state = (h0, c0) if cell == "lstm" else h0

    def call():
        with fastrnn.config_context(num_threads=threads):
            return fast(x, state)

    if scale < 1:
        with fastrnn.config_context(engine="reference"):  # it flushes nothing
            y, _ = layer(x, state)
        assert 0 < abs(y[-1]).max() < np.finfo(dtype).tiny
    return call


class Table:
    """Lines as they come, and which of them fell short."""

    def __init__(self):
        self.short = []

    def start(self, title, *columns):
        print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * (len(columns) - 1)}---:|", flush=True)

    def line(self, *cells):
        print(f"| {' | '.join(map(str, cells))} |", flush=True)

    def limited(self, names, slow, quick, limit):
        ratio = slow / quick
        self.line(*names, f"{quick * 1e6:.0f}", f"{slow * 1e6:.0f}", f"{ratio:.2f}")
        if ratio > limit:
            self.short.append(f"{', '.join(map(str, names))}: {ratio:.2f}, limit {limit}")


def text(shape):
    return ", ".join(map(str, shape))


@contextmanager
def a_hog():
    """Functions that stop and resume another process on the last CPU."""
    hog = subprocess.Popen([sys.executable, "-c", HOG])
    try:
        os.sched_setaffinity(hog.pid, {max(os.sched_getaffinity(0))})
        yield lambda: hog.send_signal(signal.SIGSTOP), lambda: hog.send_signal(signal.SIGCONT)
    finally:
        hog.kill()
        hog.wait()


def beside_a_hog(table, options):
    table.start(
        "LSTM, another process busy on one CPU",
        *("T, B, I, H", "threads", "alone, us", "disturbed, us", f"ratio (to {HOG_LIMIT:g})"),
    )
    with a_hog() as (stop, resume):
        for shape in options.shapes:
            for threads in (1, 2):
                call = frozen_call("lstm", shape, threads=threads)
                alone, disturbed = medians([(stop, call), (resume, call)], options.seconds)
                table.limited((text(shape), threads), disturbed, alone, HOG_LIMIT)


def after_a_rest(table, options):
    columns = [f"{threads} thread{'s' * (threads > 1)}, us" for threads in (1, 2)]
    table.start("LSTM, each call after so many ms of rest", "T, B, I, H", "rest, ms", *columns, "ratio")
    for shape in options.shapes:
        for rest in (0, 1, 5, 20):
            calls = [(None, frozen_call("lstm", shape, threads=threads)) for threads in (1, 2)]
            one, two = medians(calls, max(options.seconds, 0.1 * rest), rest=rest / 1000)
            table.line(text(shape), rest, f"{one * 1e6:.0f}", f"{two * 1e6:.0f}", f"{one / two:.2f}")


def with_denormals(table, options):
    table.start(
        "Denormal inputs and states",
        *("cell", "dtype", "T, B, I, H", "normal, us", "denormal, us", f"ratio (to {DENORMAL_LIMIT:g})"),
    )
    for cell in ("lstm", "gru", "relu"):
        for dtype, scale in (("float32", 1e-40), ("float64", 1e-310)):
            for shape in ((50, 1, 64, 128), (50, 32, 64, 128)):
                calls = [frozen_call(cell, shape, dtype, scale=s) for s in (1.0, scale)]
                normal, denormal = medians([(None, call) for call in calls], options.seconds)
                table.limited((cell.upper(), dtype, text(shape)), denormal, normal, DENORMAL_LIMIT)


def with_many_threads(table, options):
    columns = [f"{n} thread{'s' * (n > 1)}" for n in COUNTS]
    table.start(f"LSTM, times of the best thread count ({os.cpu_count()} CPUs)", "T, B, I, H", "best, us", *columns)
    for shape in options.shapes:
        times = medians([(None, frozen_call("lstm", shape, threads=n)) for n in COUNTS], options.seconds)
        table.line(text(shape), f"{min(times) * 1e6:.0f}", *(f"{t / min(times):.2f}" for t in times))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer shapes, shorter")
    options = parser.parse_args()
    options.seconds, options.shapes = (0.2, SHAPES[:2]) if options.quick else (1.0, SHAPES)
    import fastrnn

    config = fastrnn.get_config()
    print(f"{cpu_name()}, engine {config['engine']}, {config['isa']}, {config['blas']}")
    table = Table()
    if hasattr(os, "sched_setaffinity"):
        beside_a_hog(table, options)
    else:
        print("\nNo process can be bound to a CPU on this system: nothing is disturbed.")
    after_a_rest(table, options)
    with_denormals(table, options)
    with_many_threads(table, options)
    print()
    for line in table.short:
        print("fell short:", line)
    return bool(table.short)


if __name__ == "__main__":
    if any(pin in os.environ for pin in PINS):
        environment = {name: value for name, value in os.environ.items() if name not in PINS}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment).returncode)
    sys.exit(main())
