"""Timing several functions against one another on a machine that is never quite still."""

import gc
import statistics
import time

from .placement import caller_on_first_cpu

SAMPLE = 300e-6  # seconds; a timed sample repeats the call until it lasts so long
LONG = 0.05  # calls of so many seconds are not warmed up: what a cold start costs is lost in them
LEAST, MOST = 7, 200  # rounds
WARM_UP = 3  # calls at least: some libraries wake their threads for the first and have them for those that follow


def settle(threads, at_most=0.15):
    """Sleep until this process is still.

    The threads of most libraries spin for 1 to 30 ms after a call, waiting for the next one, and would take a core
    from whoever is timed then. The CPU time of threads that run on other cores is brought up to date with the system's
    tick only, 1 to 4 ms; with one thread, on one core, each sleep brings it up to date.
    """
    nap = 0.0005 if threads == 1 else 0.005
    end = time.perf_counter() + at_most
    while time.perf_counter() < end:
        used, start = time.process_time(), time.perf_counter()
        time.sleep(nap)
        if time.process_time() - used < 0.2 * (time.perf_counter() - start):
            return


def repeat(function, calls):
    """Seconds for so many calls."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return time.perf_counter() - start


def calls_per_sample(function):
    """How many calls last for a sample, a power of two."""
    calls = 1
    while repeat(function, calls) < SAMPLE:
        calls *= 2
    return calls


def interleave(functions, seconds, threads):
    """Time functions in turn, A B C A B C, for `seconds` in all; seconds per call, one number for each round.

    Each turn waits until the others' threads are still, calls the function to wake its own and warm the caches, then
    times a sample. At least 7 rounds, whatever they take; at most 200.
    """
    with caller_on_first_cpu():
        return _interleave(functions, seconds, threads)


def _interleave(functions, seconds, threads):
    plan = [(function, calls_per_sample(function), []) for function in functions.values()]
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        for finished in range(MOST):
            if finished >= LEAST and time.perf_counter() >= end:
                break
            for function, calls, times in plan:
                settle(threads)
                if not times or times[0] < LONG:
                    repeat(function, max(WARM_UP, calls // 4))
                times.append(repeat(function, calls) / calls)
    finally:
        gc.enable()
    return {name: times for name, (_, _, times) in zip(functions, plan, strict=True)}


def summary(times):
    """The median, and the quartiles."""
    first, median, third = statistics.quantiles(times, n=4)
    return {"median": median, "quartiles": [first, third], "rounds": len(times)}
