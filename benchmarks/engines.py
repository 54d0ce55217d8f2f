"""The compiled engine beside the NumPy reference: the table of the README.

    python benchmarks/engines.py

Results are compared before anything is timed; the two run in turn, round by round, and medians are compared.
Pins of the BLAS to another CPU are cleared in a child process.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def cpu_name():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def medians(functions, seconds=0.6, least=15):
    """The median time of each function, run in turn until `seconds` have passed for each on average."""
    times = [[] for _ in functions]
    for function in functions:
        function()
    end = time.perf_counter() + seconds * len(functions)
    while len(times[0]) < least or time.perf_counter() < end:
        for function, mine in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            mine.append(time.perf_counter() - start)
    return [statistics.median(mine) for mine in times]


def main():
    import numpy as np
    from conftest import Problem

    import fastrnn

    config = fastrnn.get_config()
    print(
        f"{cpu_name()}, {config['num_threads']} threads, engine {config['engine']}, {config['isa']}, {config['blas']}\n"
    )
    print("| work | cell | T, B, I, H | dtype | reference, us | fastrnn, us | ratio |")
    print("|---|---|---|---|---:|---:|---:|")
    for work, shape in (("forward", (100, 1, 64, 128)), ("training", (30, 32, 10, 50))):
        for cell in ("lstm", "gru", "rnn"):
            for dtype in (np.float32, np.float64):
                problem = Problem(cell, shape, dtype)
                run = problem.forward if work == "forward" else problem.train
                for a, b in zip(run(), run(fastrnn.reference), strict=True):
                    if a is not None:
                        tolerance = 1e-4 if dtype == np.float32 else 1e-11
                        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())
                ours, reference = medians([run, lambda run=run: run(fastrnn.reference)])
                row = (work, cell.upper(), ", ".join(map(str, shape)), np.dtype(dtype))
                figures = (f"{reference * 1e6:.0f}", f"{ours * 1e6:.0f}", f"{reference / ours:.1f}")
                print("|", " | ".join(map(str, (*row, *figures))), "|")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    if any(pin in os.environ for pin in PINS):
        environment = {name: value for name, value in os.environ.items() if name not in PINS}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment).returncode)
    main()
