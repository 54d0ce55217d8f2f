"""Two threads beside one, on shapes drawn at random: no call should become slower by having a second one.

    python benchmarks/threads.py

Frozen layers, and training steps, of one layer. The two run in turn, medians are compared, and so are the results, to
the bit. What looks slower is timed again, longer. Pins of the BLAS to another CPU are cleared in a child process.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import time

from engines import PINS, cpu_name

LIMIT = 1.05  # times one thread's time
LARGEST = 4e9  # multiplications of a call


def log_uniform(rng, low, high):
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))


def draw(rng):
    """A cell and T, B, I, H, each of its orders of magnitude as likely as any other."""
    while True:
        cell = ("lstm", "gru", "rnn")[rng.integers(3)]
        T, B, I, H = (log_uniform(rng, 1, most) for most in (300, 128, 1024, 1024))
        if T * B * H * (I + H) * {"lstm": 4, "gru": 3, "rnn": 1}[cell] <= LARGEST:
            return cell, (T, B, I, H)


def call_of(work, cell, shape):
    """What is timed; it returns its results."""
    import numpy as np
    from conftest import Problem

    import fastrnn

    if work == "training":
        return Problem(cell, shape, np.float32).train
    T, B, I, H = shape
    layer = getattr(fastrnn, cell.upper())(I, H, rng=0).freeze()
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype(np.float32)

    def frozen():
        y, state = layer(x)
        return (y, *state) if isinstance(state, tuple) else (y, state)

    return frozen


def compare(work, cell, shape, seconds, rounds=6):
    """Two threads' time over one's, and one's."""
    import numpy as np

    import fastrnn

    call = call_of(work, cell, shape)
    results, times = {}, {1: [], 2: []}
    for _ in range(rounds):
        for threads, mine in times.items():
            fastrnn.set_num_threads(threads)
            results[threads] = call()  # wakes the other thread
            end = time.perf_counter() + seconds / rounds
            while len(mine) < rounds or time.perf_counter() < end:
                start = time.perf_counter()
                call()
                mine.append(time.perf_counter() - start)
    for one, two in zip(*results.values(), strict=True):
        np.testing.assert_array_equal(one, two)
    one, two = map(statistics.median, times.values())
    return two / one, one


def main(count, seconds, seed):
    import numpy as np

    rng = np.random.default_rng(seed)
    print(f"{cpu_name()}, {count} shapes of each, from seed {seed}\n")
    print("| work | no slower | slower by over 5% | mean ratio | the worst: cell, T, B, I, H | us, 1 thread | ratio |")
    print("|---|---:|---:|---:|---|---:|---:|")
    failed = False
    for work in ("frozen", "training"):
        results = []
        for k in range(count):
            if sys.stderr.isatty():
                print(f"\r{work} {k + 1}/{count} ", end="", file=sys.stderr, flush=True)
            cell, shape = draw(rng)
            found, one = compare(work, cell, shape, seconds)
            if found > LIMIT:  # or a neighbour on the machine
                found, one = compare(work, cell, shape, 8 * seconds)
            results.append((found, one, cell, shape))
        worst, one, cell, shape = max(results)
        slower = sum(found > LIMIT for found, *_ in results)
        mean = math.exp(sum(math.log(found) for found, *_ in results) / count)
        where = f"{cell.upper()} {', '.join(map(str, shape))}"
        print(f"| {work} | {count - slower} | {slower} | {mean:.2f} | {where} | {one * 1e6:.0f} | {worst:.2f} |")
        failed |= slower > 0
    return int(failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=150, help="shapes of each kind of work")
    parser.add_argument("--seconds", type=float, default=0.1, help="for each side of a shape")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if any(pin in os.environ for pin in PINS):
        environment = {name: value for name, value in os.environ.items() if name not in PINS}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment).returncode)
    sys.exit(main(**vars(arguments)))
