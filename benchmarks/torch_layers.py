"""PyTorch modules on this package's kernels beside `torch.nn`'s own: a training step, over the rows of `peers.py`.

    python benchmarks/torch_layers.py --threads 1,2

A step is forward and backward to the gradients of x, the states and all parameters, by `torch.autograd.grad`. Both have
the same tensors, and their gradients are compared with the NumPy reference before anything is timed. They run in turn,
round by round, with the functions of `fastrnn.functional` by themselves, which says what autograd and the modules cost;
medians are compared. Each thread count has a child process of its own, on as many CPUs as it has threads.
"""

import argparse
import importlib
import os
import subprocess
import sys

import numpy as np
from engines import cpu_name
from peers import CELLS, available_cpus, environment


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", default=",".join(CELLS), help="%(default)s")
    parser.add_argument("--threads", default="1,2", help="thread counts, %(default)s")
    parser.add_argument("--rows", default="", metavar="SUBSTR", help='only shapes "T,B,I,H" that contain this')
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing for each row, %(default)s")
    parser.add_argument("--forward", action="store_true", help="inference, not training")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.cells = options.cells.split(",")
    if unknown := sorted(set(options.cells) - set(CELLS)):
        parser.error(f"--cells: {', '.join(unknown)}, expected some of {', '.join(CELLS)}")
    options.threads = [int(count) for count in options.threads.split(",")]
    if not all(1 <= threads <= len(available_cpus()) for threads in options.threads):
        parser.error(f"--threads: {options.threads}, expected from 1 to {len(available_cpus())}, the CPUs there are")
    return options


def libraries(threads):
    """`torch.nn`, the same modules replaced, and the functions."""
    from comparison.libraries import FastRNN, PyTorch

    from fastrnn.interop import torch as interop

    class Replaced(PyTorch):
        key, name = "replaced", "fastrnn.interop.torch"

        def __init__(self, theirs):
            self.threads, self.torch = theirs.threads, theirs.torch

        def _layer(self, problem):
            layer, *rest = super()._layer(problem)
            interop.replace_rnns(layer)
            return layer, *rest

    theirs = PyTorch(threads)
    return theirs, Replaced(theirs), FastRNN(threads)


def measure(cell, shape, loaded, options):
    """The medians of one row in microseconds: torch.nn, replaced, the functions."""
    from comparison.placement import place, tasks
    from comparison.problem import Problem, compare
    from comparison.timing import WARM_UP, interleave, summary

    problem, runs = Problem(cell, shape), {}
    expected = problem.expected_outputs() if options.forward else problem.expected_gradients()
    for library in loaded:
        before = tasks()
        run = (library.build if options.forward else library.build_training)(problem)
        for _ in range(WARM_UP):
            result = run()
        place(tasks() - before)
        got = (library.outputs if options.forward else library.gradients)(problem, result)
        compare(got, expected, relative=not options.forward)
        runs[library.key] = run
    times = interleave(runs, options.seconds, options.worker)
    return [1e6 * summary(each)["median"] for each in times.values()]


def work(options):
    """The child process: the table of one thread count."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, available_cpus()[-options.worker :])
    from comparison.problem import SHAPES

    loaded = libraries(options.worker)
    work = "inference" if options.forward else "training step"
    print(f"\n{work}, {options.worker} thread{'s' * (options.worker > 1)}\n")
    alone = "frozen layer" if options.forward else "functions alone"
    print(f"| cell | T, B, I, H | torch.nn, us | fastrnn.interop.torch, us | ratio | {alone}, us | beside, us |")
    print("|---|---|---:|---:|---:|---:|---:|", flush=True)
    ratios = []
    for cell in options.cells:
        for shape in SHAPES:
            if options.rows not in ",".join(map(str, shape)):
                continue
            theirs, ours, functions = measure(cell, shape, loaded, options)
            ratios.append(theirs / ours)
            figures = f"{theirs:.0f} | {ours:.0f} | {ratios[-1]:.2f} | {functions:.0f} | {ours - functions:.0f}"
            print(f"| {cell.upper()} | {', '.join(map(str, shape))} | {figures} |", flush=True)
    print(f"\ngeometric mean of {len(ratios)} ratios {np.exp(np.mean(np.log(ratios))):.2f}, least {min(ratios):.2f}")


def main():
    options = parse()
    if options.worker:
        return work(options)
    torch = importlib.import_module("torch")
    print(f"{cpu_name()}, {len(available_cpus())} CPUs, PyTorch {torch.__version__}", flush=True)
    for threads in options.threads:
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(threads)]
        subprocess.run(command, env=environment(threads), check=True)


if __name__ == "__main__":
    main()
