"""Training the demo's character model by the native and the blas engine: tokens a second, and whether they learn alike.

    python benchmarks/char_model.py

The same text, seed and steps for both. Each has processes of its own, in turn, for idle threads of a BLAS spin on for a
while at the expense of whoever comes next; pins of the BLAS to another CPU are cleared in them. Medians. The exit
status is 1 if the losses differ by more than 1e-4.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from engines import PINS, cpu_name

STEPS, BATCH, LENGTH, EMBEDDING, HIDDEN = 200, 32, 64, 32, 192
ENGINES = ("native", "blas")
ROUNDS = 3


def train(engine):
    """In a child process: print the seconds and the losses of all steps."""
    import fastrnn
    from fastrnn import nn
    from fastrnn.data import CharVocabulary, text_batches
    from fastrnn.models import CharModel

    text = Path(fastrnn.functional.__file__).read_text()
    vocabulary = CharVocabulary(text)
    chunks = itertools.cycle(text_batches(vocabulary.encode(text), BATCH, LENGTH))
    model = CharModel(vocabulary, EMBEDDING, HIDDEN, rng=0)
    steps = nn.truncated_bptt(model, nn.CrossEntropyLoss(), nn.Adam(model, 2e-3), chunks, max_norm=5)
    times, losses = [], []
    with fastrnn.config_context(engine=engine):
        for _ in range(STEPS):
            start = time.perf_counter()
            losses.append(float(next(steps)))
            times.append(time.perf_counter() - start)
    print(json.dumps([times, losses]))


def main():
    import fastrnn

    config = fastrnn.get_config()
    environment = {name: value for name, value in os.environ.items() if name not in PINS}
    times, losses = {engine: [] for engine in ENGINES}, {}
    for _ in range(ROUNDS):
        for engine in ENGINES:
            child = subprocess.run(
                [sys.executable, __file__, engine], env=environment, check=True, capture_output=True, text=True
            )
            seconds, losses[engine] = json.loads(child.stdout)
            times[engine] += seconds
    medians = {engine: statistics.median(mine) for engine, mine in times.items()}
    difference = max(abs(a - b) for a, b in zip(*losses.values(), strict=True))
    print(f"{cpu_name()}, {config['num_threads']} threads, {config['isa']}, {config['blas']}")
    print(f"an LSTM of {HIDDEN} units, {BATCH} sequences of {LENGTH} characters, {STEPS} steps\n")
    print("| engine | tokens/s | to blas | last loss |")
    print("|---|---:|---:|---:|")
    for engine in ENGINES:
        rate, ratio = BATCH * LENGTH / medians[engine], medians["blas"] / medians[engine]
        print(f"| {engine} | {rate:.0f} | {ratio:.2f} | {losses[engine][-1]:.5f} |")
    print(f"\nlargest difference of their losses: {difference:.1e} (to 1e-4)")
    return 0 if difference <= 1e-4 else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("one", nargs="?", choices=tuple(ENGINES), help="this one alone, as JSON")
    one = parser.parse_args().one
    sys.exit(train(one) if one else main())
