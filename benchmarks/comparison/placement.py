"""Which CPU each thread runs on, where the system lets itself be told (Linux).

Two threads that wait for one another by spinning, as OpenMP's and OpenBLAS's do, are sometimes put on one CPU, and each
wait then lasts for a slice of the scheduler's: a call of 0.7 ms took 8 ms, for one library in one run and for another
in the next. So the thread that calls keeps to the first CPU while it is timed, and the teams that work beside it to
the others. Pools that do all the work while the caller sleeps are left to the system.
"""

import os
from contextlib import contextmanager, suppress
from pathlib import Path

TASKS = Path("/proc/self/task")


def can_place():
    return TASKS.exists() and hasattr(os, "sched_setaffinity")


def tasks():
    """The threads of this process, by the system's ids."""
    return {int(task.name) for task in TASKS.iterdir()} if can_place() else set()


def place(team):
    """Put these threads on the CPUs of this process, one on each but the first."""
    cpus = sorted(os.sched_getaffinity(0)) if can_place() else []
    for k, task in enumerate(sorted(team - {os.getpid()})):
        if len(cpus) > 1:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(task, {cpus[1 + k % (len(cpus) - 1)]})


@contextmanager
def caller_on_first_cpu():
    """Within it, the calling thread; threads started there would be there as well, so start none."""
    if not can_place():
        yield
        return
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)
