"""Writing tokens, each from those before: the compiled loop, that in NumPy, and PyTorch's, on the same model.

    python benchmarks/decode.py

An embedding, an LSTM, a linear head, sampling at temperature 1. Each has processes of its own, in turn, for idle
threads of a BLAS spin on for a while at the expense of whoever comes next; pins of the BLAS are cleared in them.
Medians of tokens a second, of all sequences together, and the compiled loop's share of the multiply-adds that this
machine can do. PyTorch is left out where it is not installed. The exit status is 1 if the compiled loop is slower than
PyTorch's, or not 10 times as fast as NumPy's where that is possible: where it would not take more than the machine has.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np
from comparison.machine import fma_peak
from engines import PINS, cpu_name

VOCABULARY, EMBEDDING, BATCHES, HIDDEN = 96, 64, (1, 32), (128, 512)
ROUNDS, CALLS, STEPS = 3, 7, {"compiled": 400, "NumPy": 40, "PyTorch": 100}


def by_fastrnn(engine, B, H, steps):
    import fastrnn
    from fastrnn.models import Decoder
    from fastrnn.nn import Embedding, Linear

    layer, head = fastrnn.LSTM(EMBEDDING, H, rng=0), Linear(H, VOCABULARY, rng=1)
    decoder = Decoder(layer, head, Embedding(VOCABULARY, EMBEDDING, rng=2))
    start = np.zeros(B, int)

    def call():
        with fastrnn.config_context(engine=engine):
            decoder.sample(start, steps, temperature=1.0, rng=0)

    return call


def by_torch(B, H, steps):
    import torch

    embedding = torch.nn.Embedding(VOCABULARY, EMBEDDING)
    layer, head = torch.nn.LSTM(EMBEDDING, H), torch.nn.Linear(H, VOCABULARY)

    def call():
        with torch.inference_mode():
            token, state = torch.zeros(1, B, dtype=torch.long), None
            for _ in range(steps):
                h, state = layer(embedding(token), state)
                p = torch.softmax(head(h[0]), dim=1)
                token = torch.multinomial(p, 1).T

    return call


def flops(H):
    """Of a token: the gates and the head, two for each multiply-add."""
    return 2 * (4 * H * (EMBEDDING + H) + H * VOCABULARY)


def measure(who):
    """In a child process: print the tokens a second of every call."""
    rates = {}
    for H in HIDDEN:
        for B in BATCHES:
            steps = STEPS[who]
            engine = {"compiled": "native", "NumPy": "reference"}.get(who)
            call = by_torch(B, H, steps) if engine is None else by_fastrnn(engine, B, H, steps)
            call()
            rates[f"{H} {B}"] = mine = []
            for _ in range(CALLS):
                start = time.perf_counter()
                call()
                mine.append(B * steps / (time.perf_counter() - start))
    print(json.dumps(rates))


def main():
    environment = {name: value for name, value in os.environ.items() if name not in PINS}
    names = [name for name in STEPS if name != "PyTorch" or importlib.util.find_spec("torch")]
    rates = {name: {} for name in names}
    for _ in range(ROUNDS):
        for name in names:
            child = subprocess.run(
                [sys.executable, __file__, name], env=environment, check=True, capture_output=True, text=True
            )
            for shape, mine in json.loads(child.stdout).items():
                rates[name].setdefault(shape, []).extend(mine)
    peak = fma_peak(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) * 1e9
    print(f"{cpu_name()}; an LSTM, {VOCABULARY} tokens, sampling; tokens/s\n")
    print("| H | B | " + " | ".join(names) + " | " + " | ".join(f"to {name}" for name in names[1:]) + " | FMA |")
    print("|---:" * (2 + 2 * len(names)) + "|")
    enough = True
    for H in HIDDEN:
        for B in BATCHES:
            mine = {name: statistics.median(rates[name][f"{H} {B}"]) for name in names}
            ratios = {name: mine["compiled"] / mine[name] for name in names[1:]}
            possible = 10 * mine["NumPy"] * flops(H) < peak
            enough = enough and (ratios["NumPy"] >= 10 or not possible) and ratios.get("PyTorch", 1) >= 1
            numbers = [f"{rate:.0f}" for rate in mine.values()] + [f"{ratio:.1f}" for ratio in ratios.values()]
            print(f"| {H} | {B} | " + " | ".join(numbers) + f" | {mine['compiled'] * flops(H) / peak:.0%} |")
    return 0 if enough else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("one", nargs="?", choices=tuple(STEPS), help="this one alone, as JSON")
    one = parser.parse_args().one
    sys.exit(measure(one) if one else main())
