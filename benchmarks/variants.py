"""What variants of the LSTM, and ways through a sequence, cost in training beside the plain cell over dense sequences.

    python benchmarks/variants.py

For an LSTM of each shape T, B, I, H: forward and backward to all gradients, in float32. A token is a valid step of a
sequence. Results are compared with the reference before anything is timed; all run in turn, round by round, and medians
are compared. Pins of the BLAS to another CPU are cleared in a child process.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

from engines import PINS, cpu_name, medians

SHAPES = ((100, 32, 32, 64), (50, 32, 128, 256), (100, 1, 64, 128))  # T, B, I, H
GAPS, RESETS, ZONEOUT, DROPOUT = 0.1, 0.05, (0.1, 0.1), 0.2


class Step(NamedTuple):
    """One row of the table at one shape."""

    run: Callable  # of `functional` or `reference`: all results
    share: float  # of the steps of the sequences, those that are valid


def steps_of(shape):
    """The rows by name."""
    import numpy as np
    from conftest import Problem

    import fastrnn

    problem = Problem("lstm", shape, np.float32)
    T, B, _, H = shape
    rng = np.random.default_rng(1)
    norms = {name: np.ones(4 * H, np.float32) for name in ("norm_ih", "norm_hh")}
    norms |= {"norm_c": np.ones(H, np.float32), "norm_c_bias": np.zeros(H, np.float32)}
    peepholes = rng.uniform(-1 / np.sqrt(H), 1 / np.sqrt(H), 3 * H).astype(np.float32)
    mask = rng.random((T, B)) >= GAPS

    def step(share=1.0, arriving=(), variant=None, **options):
        def run(module=fastrnn.functional):
            made = None if variant is None else fastrnn.Variant(**variant, rng=0)
            y, h, c, cache, *c_all = module.lstm_forward(*problem.arguments, **options, variant=made)
            grads = module.lstm_backward(cache, problem.dy, **dict.fromkeys(arriving, problem.dy))
            return y, h, c, *c_all, *grads[:-1], *(grads.variant or {}).values()

        return Step(run, share)

    return {
        "plain": step(),
        "layer norm": step(variant=norms),
        "zoneout of h and c": step(variant={"zoneout": ZONEOUT}),
        "recurrent dropout": step(variant={"recurrent_dropout": DROPOUT}),
        "zoneout and recurrent dropout": step(variant={"zoneout": ZONEOUT, "recurrent_dropout": DROPOUT}),
        "peepholes": step(variant={"peepholes": peepholes}),
        f"mask with {GAPS:.0%} gaps": step(mask.mean(), mask=mask),
        f"{RESETS:.0%} resets": step(reset=rng.random((T, B)) < RESETS),
        "cell states and their gradient": step(arriving=("dc",), return_cell_states=True),
    }


def compare(steps):
    """Raise an AssertionError where a step is not what the reference does, as far as float32 goes over 100 steps."""
    import numpy as np

    import fastrnn

    for name, step in steps.items():
        for a, b in zip(step.run(), step.run(fastrnn.reference), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-3 * np.abs(b).max(), err_msg=name)


def main():
    import fastrnn

    config = fastrnn.get_config()
    print(
        f"{cpu_name()}, {config['num_threads']} threads, engine {config['engine']}, {config['isa']}, {config['blas']}\n"
    )
    columns = []
    for shape in SHAPES:
        steps = steps_of(shape)
        compare(steps)
        times = medians([step.run for step in steps.values()])
        valid = [step.share * shape[0] * shape[1] for step in steps.values()]
        tokens = [seconds / many for seconds, many in zip(times, valid, strict=True)]
        columns.append([f"{token * 1e6:.3g} | {token / tokens[0]:.2f}" for token in tokens])
    titles = [f"{', '.join(map(str, shape))}: us a token | ratio" for shape in SHAPES]
    print("| training step |", " | ".join(titles), "|")
    print("|---|" + "---:|---:|" * len(SHAPES))
    for name, *cells in zip(steps, *columns, strict=True):
        print("|", " | ".join([name, *cells]), "|")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    if any(pin in os.environ for pin in PINS):
        environment = {name: value for name, value in os.environ.items() if name not in PINS}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment).returncode)
    main()
