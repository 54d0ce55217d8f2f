"""The parts of the benchmark, each yielding its rows as dictionaries: first compared, then timed."""

import itertools
from functools import partial

import numpy as np

from fastrnn import reference

from .frameworks import JAX, Keras, Thinc
from .libraries import FastRNN, ONNXRuntime, ONNXRuntimeBound, OpenVINO, PyTorch
from .machine import fraction
from .placement import place, tasks
from .problem import SHAPES, Problem, compare
from .timing import WARM_UP, interleave, summary

PEERS = (PyTorch, ONNXRuntime, ONNXRuntimeBound, OpenVINO, JAX, Keras, Thinc)
STREAM_SIZES = (32, 128)  # I = H
STREAM_STEPS = 20  # compared
RAGGED_SHAPE = (50, 64, 64, 128)


def _ready(library, problem, training, expected):
    """The library's function for this problem, once its results are found right."""
    before = tasks()
    run = (library.build_training if training else library.build)(problem)
    for _ in range(WARM_UP):  # what threads it has, it has by now
        result = run()
    if library.team:
        place(tasks() - before)
    if not training:
        compare(library.outputs(problem, result), expected, relative=False)
    elif library.compared:
        compare(library.gradients(problem, result), expected, relative=True)
    return run


def measure_row(part, cell, shape, *, libraries, seconds, threads, limits):
    """One cell at one shape: every library that runs it, and what of it fastrnn made."""
    training = part == "train"
    problem = Problem(cell, shape, np.float64 if part == "float64" else np.float32)
    row = {"part": part, "threads": threads, "cell": cell, "shape": shape, "times": {}, "errors": {}}
    expected = problem.expected_gradients() if training else problem.expected_outputs()
    runs = {}
    for library in libraries:
        if part not in library.parts or cell not in library.cells:
            continue
        try:
            runs[library.key] = _ready(library, problem, training, expected)
        except Exception as error:  # whatever a library may raise: it is out of this row, and the report says why
            row["errors"][library.key] = f"{type(error).__name__}: {error}"
    times = interleave(runs, seconds, threads)
    row["times"] = {key: summary(each) for key, each in times.items()}
    _derive(row, problem, training, limits)
    return row


def _derive(row, problem, training, limits):
    """Add the ratio to the best of the others, GF/s, and the share of the machine's limit."""
    medians = {key: each["median"] for key, each in row["times"].items()}
    ours = medians.pop("fastrnn", None)
    if ours is None:
        return
    if medians:
        row["best"] = min(medians, key=medians.get)
        row["ratio"] = medians[row["best"]] / ours
    row["gflops"] = (3 if training else 1) * problem.flops / ours / 1e9
    row["fraction"], row["limit"] = fraction(problem, ours, row["threads"], limits, training)


def measure_stream(cell, size, *, libraries, seconds, threads):
    """A step at batch 1 with the state carried from step to step, as Python sees it: an array in, an array out."""
    problem = Problem(cell, (STREAM_STEPS, 1, size, size))
    row = {"part": "stream", "threads": threads, "cell": cell, "shape": (1, 1, size, size), "errors": {}}
    expected = problem.expected_outputs()[:1]
    runs = {}
    for library in libraries:
        if "stream" not in library.parts:
            continue
        try:
            before = tasks()
            step = STREAMS[type(library)](library, problem)
            compare([np.stack([step(x_t).copy() for x_t in problem.x])], expected, relative=False)
            place(tasks() - before)
            runs[library.key] = partial(step, problem.x[0])
        except Exception as error:
            row["errors"][library.key] = f"{type(error).__name__}: {error}"
    row["times"] = {key: summary(each) for key, each in interleave(runs, seconds, threads).items()}
    medians = {key: each["median"] for key, each in row["times"].items()}
    ours = medians.pop("fastrnn", None)
    row["ratios"] = {key: median / ours for key, median in medians.items()} if ours else {}
    return row


def _fastrnn_step(library, problem):
    stream = library.frozen(problem).stream()
    stream.state = library.state(problem)
    return stream.step


def _onnxruntime_step(library, problem):
    session = library.session(problem.first_step())
    names = [i.name for i in session.get_inputs()]
    carried = [s[None] for s in problem.states]

    def step(x_t):
        y, *carried[:] = session.run(None, dict(zip(names, [x_t[None], *carried], strict=True)))
        return y[0, 0]

    return step


def _bound_step(library, problem):
    """The states are bound to two pieces of memory in turn; the input is written into its own, the output read."""
    session = library.session(problem.first_step())
    states = [s[None] for s in problem.states]
    x, y = library.value(problem.x[:1]), library.value(states[0][None])
    here, there = ([library.value(s) for s in states] for _ in range(2))
    turns = itertools.cycle(
        library.bind(session, [x, *before], [y, *after]) for before, after in ((here, there), (there, here))
    )

    def step(x_t):
        x.update_inplace(x_t[None])
        return next(turns)()[0].numpy()[0, 0]

    return step


STREAMS = {FastRNN: _fastrnn_step, ONNXRuntime: _onnxruntime_step, ONNXRuntimeBound: _bound_step}


def measure_ragged(cell, shape, *, seconds, threads):
    """A batch of sequences of uniformly distributed lengths beside a dense one: time per token that is there."""
    T, B, _, _ = shape
    problem = Problem(cell, shape)
    lengths = np.random.default_rng(0).integers(1, T + 1, B)
    frozen, state = FastRNN.frozen(problem), FastRNN.state(problem)
    arguments = [a.astype(np.float64) for a in problem.arguments]
    y, *_ = getattr(reference, f"{cell}_forward")(*arguments, lengths=lengths, save=False)
    before = tasks()
    compare([frozen(problem.x, state, lengths)[0]], [y], relative=False)
    place(tasks() - before)
    runs = {"dense": lambda: frozen(problem.x, state), "ragged": lambda: frozen(problem.x, state, lengths)}
    times = {key: summary(each) for key, each in interleave(runs, seconds, threads).items()}
    per_token = {"dense": times["dense"]["median"] / (T * B), "ragged": times["ragged"]["median"] / int(lengths.sum())}
    return {
        "part": "ragged",
        "threads": threads,
        "cell": cell,
        "shape": shape,
        "tokens": int(lengths.sum()),
        "times": times,
        "per_token": per_token,
        "ratio": per_token["ragged"] / per_token["dense"],
        "errors": {},
    }


def jobs(part, cells, substring, libraries, seconds, threads, limits):
    """The rows of a part: the name of each and the function that measures it."""
    if part == "stream":
        cases, measure = STREAM_SIZES, partial(measure_stream, libraries=libraries)
    elif part == "ragged":
        cases, measure = [RAGGED_SHAPE], measure_ragged
    else:
        cases = [shape for shape in SHAPES if substring in ",".join(map(str, shape))]
        measure = partial(measure_row, part, libraries=libraries, limits=limits)
    return [
        (f"{cell} {case}", partial(measure, cell, case, seconds=seconds, threads=threads))
        for cell in cells
        for case in cases
    ]
