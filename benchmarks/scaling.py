"""Ways to use several CPUs, measured; and what training on several machines would send over the network.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --cpus 4 --seconds 5

Inference: an LSTM over many sequences in blocks; all ways return the same final states, compared to the bit before
anything is timed. Training: steps of one model by the kernels' own threads, and of one model in each of several
processes. They run in turn, round by round, and medians are compared. What is not installed is left out. Pins of the
BLAS are cleared in a child process.
"""

import argparse
import contextlib
import functools
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from engines import PINS, cpu_name

T, I, H, LAYERS, BLOCK, BLOCKS = 100, 64, 128, 2, 32, 32
STEPS = 8  # of training, in a turn
# Of models that are trained: input size, and the hidden size of each LSTM above it.
MODELS = {
    "2 x 256, a character model": (64, (256, 256)),
    "400 - 1150 - 1150 - 400, a word model": (400, (1150, 1150, 400)),
    "8 x 1024, a translation model's encoder": (1024, (1024,) * 8),
}
MACHINES, NETWORKS = (8, 64), {"1 Gb/s": 125e6, "10 Gb/s": 1.25e9, "100 Gb/s": 12.5e9}


def weights_of(input_size, hidden_sizes):
    """How many parameters such a stack of LSTMs has."""
    below = (input_size, *hidden_sizes)
    return sum(4 * size * (width + size + 2) for width, size in zip(below, hidden_sizes, strict=False))


def traffic(nbytes, machines):
    """Bytes that each machine sends in a ring all-reduce of so many."""
    return 2 * (machines - 1) / machines * nbytes


# --- inference -------------------------------------------------------------------------------------------------------


def final_state(fast, block, threads=1):
    import fastrnn

    with fastrnn.config_context(num_threads=threads):
        return fast(block)[1][0][-1]


def keep(fast):
    """Of a process of a pool: the model it works with."""
    global kept
    kept = fast


def final_state_of_kept(block):
    return final_state(kept, block)


def inference(cpus, blocks, fast, stack):
    """Ways to the final states of all blocks, by name; what they need stays open in `stack`."""
    import numpy as np

    one = functools.partial(final_state, fast)
    threads = stack.enter_context(ThreadPoolExecutor(cpus))
    spawn = multiprocessing.get_context("spawn")
    processes = stack.enter_context(ProcessPoolExecutor(cpus, spawn, keep, (fast,)))
    ways = {
        "one thread": lambda: [one(block) for block in blocks],
        "the kernels' threads": lambda: [one(block, cpus) for block in blocks],
        "threads of Python": lambda: list(threads.map(one, blocks)),
        "processes": lambda: list(processes.map(final_state_of_kept, blocks)),
    }
    with contextlib.suppress(ImportError):
        import joblib

        parallel = stack.enter_context(joblib.Parallel(cpus))
        ways["joblib"] = lambda: parallel(joblib.delayed(final_state)(fast, block) for block in blocks)
    with contextlib.suppress(ImportError):
        import dask.array as da
        import distributed

        from fastrnn.interop.dask import map_sequences

        def by_dask(x, **options):
            return [map_sequences(fast, x)[1][0][-1].compute(**options)]

        x = da.concatenate([da.from_array(block, chunks=block.shape) for block in blocks], axis=1)
        ways["Dask, threads"] = lambda: by_dask(x, scheduler="threads", num_workers=cpus)
        cluster = distributed.LocalCluster(cpus, threads_per_worker=1, dashboard_address=None)
        client = stack.enter_context(distributed.Client(stack.enter_context(cluster)))
        there = client.persist(x)  # as data is that was read there
        distributed.wait(there)
        ways["Dask, processes"] = lambda: by_dask(there)
    wanted = np.concatenate(ways["one thread"]())
    for name, way in ways.items():
        if not np.array_equal(np.concatenate(way()), wanted):
            raise SystemExit(f"{name}: other final states than one thread")
    return ways


# --- training --------------------------------------------------------------------------------------------------------


def train(seed, steps, threads=1):
    """Steps of training, forward to every gradient; how many."""
    import numpy as np

    import fastrnn

    layer = fastrnn.LSTM(I, H, LAYERS, rng=seed)
    x = np.random.default_rng(seed).standard_normal((T, BLOCK, I)).astype(np.float32)
    with fastrnn.config_context(num_threads=threads):
        for _ in range(steps):
            y, _, cache = layer.forward(x)
            layer.backward(cache, y)
    return steps


def training(cpus, stack):
    """Ways to train, by name, and how many steps each takes in a turn."""
    pool = stack.enter_context(ProcessPoolExecutor(cpus, multiprocessing.get_context("spawn")))
    return {
        "one thread": (lambda: train(0, STEPS), STEPS),
        "the kernels' threads": (lambda: train(0, STEPS, cpus), STEPS),
        f"{cpus} models, a process each": (lambda: list(pool.map(train, range(cpus), [STEPS] * cpus)), cpus * STEPS),
    }


# --- the tables ------------------------------------------------------------------------------------------------------


def rates(ways, seconds):
    """The median rate of each way, pairs of a call and what it gets done; they take turns."""
    times = {name: [] for name in ways}
    for call, _ in ways.values():
        call()
    end = time.perf_counter() + seconds * len(ways)
    while len(times["one thread"]) < 3 or time.perf_counter() < end:
        for name, (call, _) in ways.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: done / statistics.median(times[name]) for name, (_, done) in ways.items()}


def show(title, unit, rate):
    print(f"\n{title}\n\n| by | {unit}/s | to one thread |\n|---|---:|---:|")
    for name, value in rate.items():
        print(f"| {name} | {value:.0f} | {value / rate['one thread']:.2f} |")


def show_traffic():
    """A table for data-parallel training in float32."""
    print("\nData-parallel training, float32: what each machine sends in a step, and its time on the network\n")
    print("| LSTM | parameters | machines | sent | " + " | ".join(NETWORKS) + " |")
    print("|---|---:|---:|---:" + "|---:" * len(NETWORKS) + "|")
    for name, sizes in MODELS.items():
        count = weights_of(*sizes)
        for machines in MACHINES:
            sent = traffic(4 * count, machines)
            times = " | ".join(f"{1000 * sent / speed:.1f} ms" for speed in NETWORKS.values())
            print(f"| {name} | {count / 1e6:.1f} M | {machines} | {sent / 1e6:.1f} MB | {times} |")


def show_break_even(flops):
    """From how much work a step the network is out of sight, for machines that train at so many operations a second."""
    print(
        f"\nAt the {flops / 1e9:.0f} GF/s of this machine's training, the network takes a tenth of the computing's time"
    )
    for name, speed in NETWORKS.items():
        # 2 operations for each weight forward, 4 backward, at each step of each sequence
        steps = 10 * traffic(4, MACHINES[-1]) / speed * flops / 6
        print(f"- with {name} at T x B = {steps:.0f} on each machine")


def measure(options):
    import numpy as np

    import fastrnn

    config = fastrnn.get_config()
    print(f"{cpu_name()}, {options.cpus} of {os.cpu_count()} CPUs, engine {config['engine']}, {config['isa']}")
    fast, rng = fastrnn.LSTM(I, H, LAYERS, rng=0).freeze(), np.random.default_rng(0)
    blocks = [rng.standard_normal((T, BLOCK, I)).astype(np.float32) for _ in range(options.blocks)]
    with contextlib.ExitStack() as stack:
        ways = inference(options.cpus, blocks, fast, stack)
        rate = rates({name: (way, BLOCK * len(blocks)) for name, way in ways.items()}, options.seconds)
    shape = f"an LSTM of {LAYERS} x {H}, T={T}, I={I}"
    show(f"Inference: {shape}, {len(blocks)} blocks of {BLOCK} sequences", "sequences", rate)
    with contextlib.ExitStack() as stack:
        rate = rates(training(options.cpus, stack), options.seconds)
    show(f"Training: {shape}, B={BLOCK}", "steps", rate)
    show_traffic()
    show_break_even(rate["the kernels' threads"] * 6 * weights_of(I, (H,) * LAYERS) * T * BLOCK)


def main():
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cpus", type=int, default=min(2, available), help="threads or processes, 2")
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing for each way, 4")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help=f"of sequences, {BLOCKS}")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not 1 <= options.cpus <= available:
        parser.error(f"--cpus: {options.cpus}, expected 1 to {available}")
    if options.child:
        return measure(options)
    environment = {name: value for name, value in os.environ.items() if name not in PINS}
    return subprocess.run([sys.executable, __file__, *sys.argv[1:], "--child"], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
