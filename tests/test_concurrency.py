"""Many Python threads at once: the same numbers, and time for the others while one computes."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import helpers
import numpy as np
import pytest

import fastrnn
from fastrnn import _blas_threads, _compiled

WORKERS = 8


def run_alone_and_together(engine, variant, ragged):
    """Pairs of results of one problem: by itself, and while other threads run others."""
    sizes = [(7 + k, 3 + k % 4, 5, 20 + 9 * k) for k in range(WORKERS)]  # above and below what a BLAS gives its threads
    problems = [helpers.make(variant, *size, np.float32, k, lengths=ragged) for k, size in enumerate(sizes)]
    with engine.active():
        alone = [helpers.run(problem) for problem in problems]
    together = threading.Barrier(WORKERS)

    def work(k):
        together.wait(60)
        with engine.active():  # settings belong to a thread
            return [helpers.run(problems[(k + step) % WORKERS]) for step in range(WORKERS)]

    with ThreadPoolExecutor(WORKERS) as pool:
        for k, results in enumerate(pool.map(work, range(WORKERS))):
            for step, result in enumerate(results):
                yield result, alone[(k + step) % WORKERS]


def test_the_same_bits_as_alone(compiled, variant, ragged):
    # The count of the BLAS's threads is the process's, so this holds for the workers too.
    with compiled.active(num_threads=1):
        for result, alone in run_alone_and_together(compiled, variant, ragged):
            helpers.assert_same_bits(result, alone)


def test_the_same_values_as_alone_on_a_blas_with_threads(compiled, variant, ragged):
    """OpenBLAS does a product in the caller's thread while its own are busy, which rounds otherwise: no bits here."""
    with compiled.active(num_threads=2):
        for result, alone in run_alone_and_together(compiled, variant, ragged):
            helpers.assert_close(result, alone, 1e-5)


def test_one_set_of_weights_for_all(compiled, variant):
    """Threads may read the same arrays, for nothing is written to an argument."""
    problem = helpers.make(variant, 11, 4, 3, 33, seed=1)

    def work(_):
        with compiled.active():
            return helpers.run(problem)

    with compiled.active(num_threads=1), ThreadPoolExecutor(WORKERS) as pool:
        expected = helpers.run(problem)
        for result in pool.map(work, range(5 * WORKERS)):
            helpers.assert_same_bits(result, expected)


@pytest.fixture
def progress():
    """
    Call a function; did another Python thread get to run meanwhile?

    With a switch interval of an hour the interpreter takes its lock from nobody, so another thread runs only if the
    function gives the lock away. The other one gives it back at each round, by sleeping.
    """
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("this interpreter has no lock to release")
    rounds = 0
    stop = False

    def count():
        nonlocal rounds
        while not stop:
            rounds += 1
            time.sleep(0)

    def made_while(function):
        before = rounds
        function()
        return rounds > before

    interval = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    thread = threading.Thread(target=count)
    thread.start()
    yield made_while
    stop = True
    thread.join(60)
    sys.setswitchinterval(interval)


def eventually(function, seconds=60):
    """Whether one of many tries succeeds: on a busy machine a single call may end before the other thread wakes up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if function():
            return True
    return False


def test_others_run_while_a_call_computes(compiled, variant, progress):
    problem = helpers.make(variant, 10_000, 1, 2, 4, np.float32)
    assert not progress(lambda: sum(range(100_000)))  # plain Python holds on to the lock

    def backward():
        _, cache = helpers.forward(problem)
        return progress(lambda: helpers.backward(problem, cache))

    with compiled.active():
        assert eventually(lambda: progress(lambda: helpers.forward(problem)))
        assert eventually(backward)


def test_others_run_while_a_time_loop_runs(variant, progress, monkeypatch):
    """The loops by themselves, for in a whole call it may be NumPy or a large product that lets others run."""
    problem = helpers.make(variant, 10_000, 1, 2, 4, np.float32)
    others_ran = {"forward": False, "backward": False}

    def watched(name, loop):
        def call(*arguments):
            others_ran[name] |= progress(lambda: loop(*arguments))

        return call

    def run():
        helpers.run(problem)
        return all(others_ran.values())

    monkeypatch.setattr(_compiled, "forward", watched("forward", _compiled.forward))
    backward = watched("backward", getattr(_compiled.back, variant.cell))
    monkeypatch.setattr(_compiled, "back", SimpleNamespace(**{variant.cell: backward}))
    with fastrnn.config_context(engine="blas"):
        assert eventually(run), others_ran


def test_settings_changed_by_another_thread_do_no_harm(compiled):
    """The thread count of the process is changed to and fro while others compute."""
    problem = helpers.make(helpers.VARIANTS[2], 9, 6, 5, 40, seed=2)
    with compiled.active():
        expected = helpers.run(problem)
    before = fastrnn.get_num_threads()
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for n in (1, 2):
                fastrnn.set_num_threads(n)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        with compiled.active():
            for _ in range(50):
                helpers.assert_close(helpers.run(problem), expected, 1e-12)
    finally:
        stop.set()
        thread.join(60)
        fastrnn.set_num_threads(before)


@pytest.mark.skipif(_blas_threads.get() is None, reason="this BLAS does not say how many threads it uses")
def test_a_thread_count_set_while_another_thread_computes_stays():
    before = fastrnn.get_num_threads()
    problem = helpers.make(helpers.VARIANTS[2], 300, 1, 5, 40, seed=3)
    try:
        for n in [2, 3] * 10:
            stop = threading.Event()

            def compute(stop=stop):
                while not stop.is_set():
                    helpers.run(problem)

            thread = threading.Thread(target=compute)
            thread.start()
            time.sleep(0.01)
            fastrnn.set_num_threads(n)
            stop.set()
            thread.join(60)
            assert _blas_threads.get() == n
    finally:
        fastrnn.set_num_threads(before)
