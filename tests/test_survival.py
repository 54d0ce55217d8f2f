"""Forks, crowds, too many threads, numbers too small to be normal: the same bits, in time, and nothing left behind."""

import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import helpers
import numpy as np
import pytest
from test_layers import LAYERS, as_tuple, every_layer

import fastrnn

SECONDS = 60  # what takes longer hangs; a spawned process imports everything first, on a busy machine in 20
COUNTS = (1, 2, 3, 5, 8, 16, 64)
SHARED = pytest.mark.parametrize(("T", "B", "H"), [(20, 64, 128), (10, 1, 512)])  # enough work for a second thread

# A child calls exactly what Python warns of: code that uses threads.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def made(kind, T, B, H, dtype=np.float32, **options):
    """A frozen layer and an input."""
    fast = LAYERS[kind](H, H, dtype=dtype, rng=1, **options).freeze()
    return fast, np.random.default_rng(0).standard_normal((T, B, H)).astype(dtype)


def called(fast, x, threads=2, lengths=None, state=None, engine="native"):
    """Everything that a call returns, on so many threads."""
    with fastrnn.config_context(engine=engine, num_threads=threads):
        y, end = fast(x, state, lengths)
    return y, *as_tuple(end)


def same(results, expected):
    return len(results) == len(expected) and all(map(np.array_equal, results, expected))


def exit_of_child(check, seconds=SECONDS):
    """The exit status of a forked child: 0 if `check` returns True there; one that hangs is ended, which is -9."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if check() else 2
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            end = float("inf")
        time.sleep(0.002)


@forks
@SHARED
@pytest.mark.parametrize("ragged", [False, True])
def test_a_fork_computes_on_and_so_does_its_parent(T, B, H, ragged):
    fast, x = made("lstm", T, B, H)
    lengths = np.arange(B) % T + 1 if ragged else None
    expected = called(fast, x, lengths=lengths)

    def again():
        return same(called(fast, x, lengths=lengths), expected)

    for _ in range(3):
        assert exit_of_child(lambda: again() and exit_of_child(again, SECONDS / 2) == 0) == 0
        assert again()
    with ExitStack() as settings:  # open in both, and closed by each
        settings.enter_context(fastrnn.config_context(num_threads=2))
        assert exit_of_child(lambda: settings.close() is None and again()) == 0


@forks
@pytest.mark.parametrize("kind", ["lstm", "gru_before"])
@pytest.mark.parametrize("ragged", [False, True])
# A BLAS may hang after a fork within a product on many threads, so its engine gets products that it does on one.
@pytest.mark.parametrize(
    ("engine", "T", "B", "H"), [("native", 20, 64, 128), ("native", 10, 1, 512), ("blas", 3, 4, 16)]
)
def test_a_fork_while_another_thread_is_inside_a_call(engine, T, B, H, kind, ragged):
    fast, x = made(kind, T, B, H)
    lengths = np.arange(B) % T + 1 if ragged else None
    expected, stop, wrong = called(fast, x, 2, lengths, engine=engine), threading.Event(), []

    def check():
        return same(called(fast, x, 2, lengths, engine=engine), expected)

    def work():
        while not stop.is_set():
            if not check():
                wrong.append(True)

    other = threading.Thread(target=work, daemon=True)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # forks then fall anywhere in the other thread, between its kernels as well
    other.start()
    try:
        for _ in range(3):
            assert exit_of_child(check) == 0
            assert check()
    finally:
        stop.set()
        other.join(SECONDS)
        sys.setswitchinterval(interval)
    assert not other.is_alive()
    assert not wrong


@SHARED
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pools_of_processes(T, B, H, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {method}")
    fast, x = made("lstm", T, B, H)
    expected = called(fast, x)
    with multiprocessing.get_context(method).Pool(2) as pool:
        waiting = pool.starmap_async(called, [(fast, x, threads) for threads in (2, 1, 2, 3)], chunksize=1)
        time.sleep(0.01)
        assert same(called(fast, x), expected)  # meanwhile
        assert all(same(results, expected) for results in waiting.get(SECONDS))


@every_layer
@pytest.mark.parametrize("ragged", [False, True])
def test_a_crowd_around_one_frozen_layer(kind, ragged):
    crowd, T, H = 8, 9, 130
    fast, x = made(kind, T, 135, H)
    batches = [np.ascontiguousarray(x[:, : 2**k + k]) for k in range(crowd)]  # from 1 sequence to 135
    lengths = [np.arange(b.shape[1]) * 7 % (T + 1) if ragged else None for b in batches]
    alone = [called(fast, b, 1, n) for b, n in zip(batches, lengths, strict=True)]
    together = threading.Barrier(crowd)

    def work(k):
        together.wait(SECONDS)
        order = [(k + step) % crowd for step in range(crowd)]
        return all(same(called(fast, batches[i], 2, lengths[i]), alone[i]) for i in order)

    with ThreadPoolExecutor(crowd) as pool:
        assert all(pool.map(work, range(crowd)))


@every_layer
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("T", "B", "H"), [(10, 1, 389), (9, 7, 201), (12, 64, 150)])
def test_any_number_of_threads(kind, T, B, H, bidirectional, dtype):
    fast, x = made(kind, T, B, H, dtype, bidirectional=bidirectional)
    for lengths in (None, np.arange(B) * 5 % (T + 1) if B > 1 else [T - 1]):
        expected = called(fast, x, 1, lengths)
        for threads in COUNTS[1:]:
            assert same(called(fast, x, threads, lengths), expected), threads


@every_layer
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("T", "B"), [(0, 64), (20, 0), (0, 0)])
def test_nothing_to_do_on_any_number_of_threads(kind, T, B, bidirectional):
    fast, x = made(kind, T, B, 128, bidirectional=bidirectional)
    start = np.ones((1 + bidirectional, B, 128), np.float32)
    for threads, lengths in itertools.product(COUNTS, (None, np.zeros(B, int))):
        y, *end = called(fast, x, threads, lengths, (start, start) if kind == "lstm" else start)
        assert y.shape == (T, B, start.shape[0] * 128)
        assert all(np.array_equal(e, start) for e in end)


def denormal(rng, shape, dtype):
    """Numbers of one to four digits less than a float has where it is normal: 1e-39 to 1e-42 in single precision."""
    return (np.finfo(dtype).tiny * rng.choice([-1, 1], shape) * 10 ** rng.uniform(-4, -1, shape)).astype(dtype)


def tiny_problem(variant, T, B, H, dtype, **options):
    problem, rng = helpers.make(variant, T, B, H, H, dtype, **options), np.random.default_rng(1)
    names = [name for name in ("x", "h0", "c0") if name in problem.arrays]
    return problem.with_arrays(**{name: denormal(rng, problem.arrays[name].shape, dtype) for name in names})


@pytest.mark.parametrize(("T", "B", "H"), [(4, 64, 128), (10, 1, 389)])
@pytest.mark.parametrize("biases", [("b_ih", "b_hh"), ()], ids=["biases", "plain"])
def test_denormal_numbers(variant, compiled, dtype, T, B, H, biases):
    problem = tiny_problem(variant, T, B, H, dtype, biases=biases)
    expected, _ = helpers.forward(problem, fastrnn.reference)
    results = []
    for threads in (1, 2, 5) if compiled.name == "native" else (2,):
        with compiled.active(num_threads=threads):
            results.append(helpers.forward(problem)[0])
    # Without biases all results are tiny, and may come out as zeros, but not as anything larger.
    allowed = (1e-5 if dtype == np.float32 else 1e-13) if biases else 100 * np.finfo(dtype).tiny
    for name, wanted in expected.items():
        assert np.isfinite(results[0][name]).all()
        assert np.abs(results[0][name] - wanted).max() <= allowed, name
    for other in results[1:]:  # a worker treats them as the caller does
        helpers.assert_same_bits(other, results[0])


@every_layer
def test_a_stream_of_denormal_numbers_is_the_whole_sequence(kind, dtype):
    rng = np.random.default_rng(0)
    fast = LAYERS[kind](64, 200, bias=False, dtype=dtype, rng=1).freeze()
    x = denormal(rng, (8, 2, 64), dtype)
    with fastrnn.config_context(engine="native"):
        expected, _ = fast(x)
        stream = fast.stream(2)
        for t in range(8):
            assert np.array_equal(stream.step(x[t]), expected[t])
    assert np.abs(expected).max() <= 100 * np.finfo(dtype).tiny


def keeps_denormals():
    """Whether the calling thread computes with them: to a flushing one both the argument and the result are zeros."""
    return bool(np.float32(1e-40) * np.float32(0.5) != 0) and bool(np.float64(1e-310) * np.float64(0.5) != 0)


def everything(variant, threads, dtype):
    """Run all there is for a cell: sequences forward and backward, frozen, frozen ragged, one step at a time."""
    kind = {"relu": "relu", False: "gru_before"}.get(variant.value, variant.cell)
    problem, (fast, x) = tiny_problem(variant, 10, 64, 128, dtype), made(kind, 10, 64, 128, dtype)
    with fastrnn.config_context(num_threads=threads):
        _, cache = helpers.forward(problem)
        yield "forward"
        helpers.backward(problem, cache)
        yield "backward"
        fast(x)
        yield "frozen"
        fast(x, lengths=np.arange(64) % 11)
        yield "ragged"
        fast.stream(64).step(x[0])
        yield "step"
        fast.stream().step(x[0, :1])
        yield "one step"


def test_the_mode_of_the_calling_thread_is_left_as_it_was(variant, compiled, threads, dtype):
    assert keeps_denormals()
    with compiled.active():
        for what in everything(variant, threads, dtype):
            assert keeps_denormals(), what


def test_a_mode_that_flushes_is_left_as_well(variant, threads):
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such mode")
    try:
        left = [(what, keeps_denormals()) for what in everything(variant, threads, np.float32)]
    finally:
        torch.set_flush_denormal(False)
    assert not [what for what, kept in left if kept]
