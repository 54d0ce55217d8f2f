"""Sharing a job among threads: every part once, errors told, and no thread missed after a fork."""

import itertools
import os
import threading

import helpers
import numpy as np
import pytest

import fastrnn
from fastrnn import _team


def parts_of(size, threads, least=1, multiplications=10**9):
    seen, lock = [], threading.Lock()

    def part(start, stop):
        with lock:
            seen.append((start, stop))

    with fastrnn.config_context(num_threads=threads):
        _team.share(part, size, multiplications, least)
    return sorted(seen)


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
@pytest.mark.parametrize(("size", "least"), [(0, 1), (1, 1), (7, 1), (100, 6), (5, 6), (64, 6)])
def test_parts_cover_the_whole_once(threads, size, least):
    parts = parts_of(size, threads, least)
    assert parts[0][0] == 0
    assert parts[-1][1] == size
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    assert all(stop - start >= min(size, least) for start, stop in parts)
    assert len(parts) <= max(1, min(threads, size // least))


def test_small_jobs_are_not_shared():
    assert parts_of(100, 8, multiplications=_team.SHARE_FROM - 1) == [(0, 100)]
    assert len(parts_of(100, 8, multiplications=3 * _team.SHARE_FROM)) == 3


def test_an_error_in_a_part_reaches_the_caller_and_the_team_goes_on():
    def part(start, stop):
        if start:
            raise KeyError(start)

    with fastrnn.config_context(num_threads=3), pytest.raises(KeyError):
        _team.share(part, 9, 10**9)
    assert len(parts_of(9, 3)) == 3


def test_a_job_within_a_job_is_done():
    total, lock = [], threading.Lock()

    def inner(start, stop):
        with lock:
            total.append(stop - start)

    with fastrnn.config_context(num_threads=2):
        _team.share(lambda start, stop: _team.share(inner, stop - start, 10**9), 10, 10**9)
    assert sum(total) == 10


@pytest.mark.parametrize("variant", helpers.VARIANTS, ids=str)
@pytest.mark.parametrize("ragged", [False, True])
def test_native_gives_the_same_bits_on_any_number_of_threads(variant, ragged, monkeypatch):
    monkeypatch.setattr(_team, "SHARE_FROM", 1)
    problem = helpers.make(variant, 7, 23, 5, 19, np.float32, seed=1, lengths=ragged or None)
    results = []
    for threads in (1, 2, 3, 5):
        with helpers.Engine("native").active(num_threads=threads):
            results.append(helpers.run(problem))
    for other in results[1:]:
        helpers.assert_same_bits(results[0], other)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_its_own_team():
    assert len(parts_of(9, 3)) == 3  # the parent's workers run
    child = os.fork()
    if child == 0:
        os._exit(0 if len(parts_of(9, 3)) == 3 else 1)
    assert os.waitpid(child, 0)[1] == 0
