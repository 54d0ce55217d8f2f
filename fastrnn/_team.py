"""Threads: running the parts of a job side by side.

The kernels release the GIL and their parts share nothing, so ordinary Python threads will do. Parts are claimed one by
one, by the caller as by the workers: where a worker is late, for its core is busy with another process, the caller does
its part, and nobody ever waits for a thread that has not begun. Who waits watches a bell for a tenth of a millisecond
(`_core.bell`), then sleeps.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

from fastrnn import _settings
from fastrnn._core.bell import Bell

# A job of fewer multiplications than this for each thread is not shared out. On one AVX-512 core they take 35 us, and
# handing a part over takes as long: two parts of 49 us were done in 85.
SHARE_FROM = 4_000_000
WATCH = 100_000  # looks at a bell before sleeping


class _Job:
    """Parts to be claimed, and a count of those that are not done."""

    __slots__ = ("all_done", "bell", "count", "error", "left", "lock", "next", "part")

    def __init__(self, part: Callable[[int], None], count: int):
        self.part, self.count = part, count
        self.lock = threading.Lock()
        self.next = 0
        self.left = count
        self.bell = Bell()
        self.all_done = threading.Lock()
        self.all_done.acquire()
        self.error: BaseException | None = None

    def work(self) -> None:
        """Claim parts and do them until none is left."""
        while True:
            with self.lock:
                index = self.next
                self.next += 1
            if index >= self.count:
                return
            try:
                self.part(index)
            except BaseException as error:
                self.error = error
            with self.lock:
                self.left -= 1
                if self.left == 0:
                    self.all_done.release()
                    self.bell.ring()

    def wait(self) -> None:
        """Until all parts are done."""
        if self.left:
            self.bell.watch(0, WATCH)
        self.all_done.acquire()
        del self.part  # a worker may hold this job a moment longer, and need not hold its arrays
        if self.error is not None:
            raise self.error


class _Worker:
    """A thread that does its share of one job after the other."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.bell = Bell()
        threading.Thread(target=self._run, name="fastrnn", daemon=True).start()

    def call(self, job: _Job) -> None:
        self.jobs.put(job)
        self.bell.ring()

    def _run(self) -> None:
        while True:
            seen = self.bell.count()
            if self.jobs.empty():
                self.bell.watch(seen, WATCH)
            self.jobs.get().work()


class _Team:
    """Workers, called for one job at a time; who finds them busy works alone."""

    def __init__(self) -> None:
        self.busy = threading.Lock()
        self.workers: list[_Worker] = []

    def run(self, part: Callable[[int], None], count: int) -> None:
        """Do part(0) ... part(count - 1) on as many threads."""
        if not self.busy.acquire(blocking=False):
            for index in range(count):
                part(index)
            return
        try:
            while len(self.workers) < count - 1:
                self.workers.append(_Worker())
            job = _Job(part, count)
            for worker in self.workers[: count - 1]:
                worker.call(job)
            job.work()
            job.wait()
        finally:
            self.busy.release()


_team = _Team()


def _after_fork() -> None:
    """The child of a fork has none of its parent's threads."""
    global _team
    _team = _Team()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def share(part: Callable[[int, int], None], size: int, multiplications: int, least: int = 1) -> None:
    """
    Run ``part(start, stop)`` over the whole of 0..size, cut into ranges for as many threads as are worth it.

    Parameters
    ----------
    part : callable
        Must not depend on how the range is cut, nor on the order.
    size : int
        Where the last range stops.
    multiplications : int
        How much work the whole is.
    least : int
        How long a range is at least, if the whole is.
    """
    count = max(1, min(_settings.get_num_threads(), multiplications // SHARE_FROM, size // least))
    if count == 1:
        part(0, size)
        return
    cuts = [size * k // count for k in range(count + 1)]
    _team.run(lambda k: part(cuts[k], cuts[k + 1]), count)
