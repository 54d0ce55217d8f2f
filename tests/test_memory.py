"""The memory of results and caches: used again, never while somebody still sees it, and never growing."""

import gc
import os
import sys
from dataclasses import replace

import helpers
import numpy as np
import pytest

import fastrnn
from fastrnn import _compiled
from fastrnn._core import memory, plan

FLOAT64 = np.dtype(np.float64)
LARGE = memory.SMALLEST  # bytes from which on blocks are kept


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("nbytes", [LARGE, LARGE + 1, 100_003, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_large_arrays_begin_at_a_cache_line(nbytes):
    held = [memory.empty((nbytes,), np.dtype(np.uint8)) for _ in range(5)]
    assert all(address(a) % 64 == 0 for a in held)
    for k, a in enumerate(held):  # all of it is there, and belongs to nobody else
        a[:] = k
    assert [int(a.min()) for a in held] == [int(a.max()) for a in held] == list(range(5))


def test_the_smallest_blocks_have_a_class():
    """Of 1 to 4 bytes they had none, and giving them back wrote in front of the pool."""
    workspace = fastrnn.Workspace()
    for nbytes in (1, 2, 3, 4, 5, 63, 64):
        for _ in range(3):  # taken, given back, taken again
            assert memory.Block(nbytes, workspace) is not None
        assert workspace.nbytes == 64


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("variant", helpers.VARIANTS, ids=str)
@pytest.mark.parametrize("engine", ["blas", "native"])
def test_what_is_kept_for_backward_is_what_the_docstrings_say(engine, variant, ragged):
    T, B, I, H = 40, 5, 7, 33
    lengths = [40, 3, 0, 17, 1] if ragged else None
    problem = helpers.make(variant, T, B, I, H, np.float32, lengths=lengths)
    with fastrnn.config_context(engine=engine):
        _, cache = helpers.forward(problem)
    rows = sum(lengths) if ragged else T * B
    numbers = {"rnn": 1, "lstm": 6, "gru": 5}[variant.cell] * rows * H
    if engine == "native" and not ragged:
        (kept,) = cache.peek()
        assert numbers * 4 <= kept.nbytes <= (numbers + 3 * B * H + 4 * H) * 4
        return
    given = [a for a in problem.arrays.values() if a is not None]
    kept = [a for a in cache.peek() if isinstance(a, np.ndarray) and not any(np.shares_memory(a, g) for g in given)]
    size = sum(rows * a.shape[1] for a in kept if len(a) in (rows, rows + B) and a.shape[1] % H == 0)
    assert size == numbers
    # besides, for sequences of several lengths, x as packed; initial states, one of them beside h; and the bias
    assert sum(a.size for a in kept) <= size + ragged * rows * I + 3 * B * H + 4 * H


@pytest.mark.parametrize("engine", ["blas", "native"])
@pytest.mark.parametrize("variant", helpers.VARIANTS, ids=str)
def test_with_checkpoints_y_and_little_else_is_kept(engine, variant):
    T, B, H, k = 640, 3, 33, 86
    problem = helpers.make(variant, T, B, 7, H, np.float32)
    with fastrnn.config_context(engine=engine):
        _, cache = helpers.forward(problem, checkpoint=k)
    given = [a for a in problem.arrays.values() if a is not None]
    everything = [*cache.peek(), *(a for kept in cache._kept for a in getattr(kept, "c", []))]
    kept = [a for a in everything if isinstance(a, np.ndarray) and not any(np.shares_memory(a, g) for g in given)]
    states = -(-T // k) if variant.cell == "lstm" else 0
    assert sum(a.size for a in kept) <= (T * B + (states + 3) * B + 4) * H


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (1,), (7, 5), (64, 128), (65, 127, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shape_and_dtype(shape, dtype):
    a = memory.empty(shape, np.dtype(dtype))
    assert (a.shape, a.dtype) == (shape, dtype)
    assert a.flags.c_contiguous
    assert a.flags.writeable
    a[...] = 3
    assert a.sum() == 3 * a.size


def test_a_freed_block_is_used_again():
    with memory.working_in(fastrnn.Workspace()):  # empty, whatever the tests before this one left in the process's
        a = memory.empty((300, 1000), FLOAT64)
        first = address(a)
        del a
        assert address(memory.empty((300, 1000), FLOAT64)) == first


def test_sizes_that_nobody_asks_for_make_room():
    """What came first filled the pool, and nothing of another size was ever kept."""
    held = [memory.empty((size,), FLOAT64) for size in range(10_000, 4_000_000, 40_000)]
    del held
    full = memory.kept_memory()
    size = memory.KEEP_BYTES * 7 // 64
    assert full > memory.KEEP_BYTES - 2 * size
    blocks = []
    for _ in range(1000):
        blocks = [memory.empty((size,), np.dtype(np.uint8)) for _ in range(5)]
        addresses = {address(a) for a in blocks}
        del blocks[:]
    blocks = [memory.empty((size,), np.dtype(np.uint8)) for _ in range(5)]
    assert {address(a) for a in blocks} == addresses
    assert 0 < memory.kept_memory() <= memory.KEEP_BYTES - 5 * size


def test_large_ones_make_room_soon():
    """Ten steps of a large model were mapped anew each time, where smaller models had filled the pool."""
    held = [memory.empty((size,), FLOAT64) for size in range(10_000, 4_000_000, 40_000)]
    del held
    for _ in range(10):
        blocks = [memory.empty((memory.KEEP_BYTES * 7 // 64,), np.dtype(np.uint8)) for _ in range(5)]
        seen = [bytes(a[:8]) for a in blocks]  # zeros where the system has just given it
        for a in blocks:
            a[:8] = 77
        del a, blocks
    assert seen == [b"M" * 8] * 5


@pytest.mark.parametrize("what", ["larger than all that is kept", "one of a size with many"])
def test_what_is_not_kept_takes_no_room(what):
    def some(count):  # alike, and of a size that is kept
        return [memory.empty((LARGE,), np.dtype(np.uint8)) for _ in range(count)]

    def forget_all_others():
        for _ in range(300):
            some(1)

    forget_all_others()
    some(32)
    [memory.empty((size,), FLOAT64) for size in range(10_000, 4_000_000, 40_000)]
    forget_all_others()
    kept = memory.kept_memory()
    if what == "larger than all that is kept":
        memory.empty((memory.KEEP_BYTES + 1,), np.dtype(np.uint8))
    else:
        some(33)
    assert memory.kept_memory() == kept > memory.KEEP_BYTES * 3 // 4


def test_a_block_lives_as_long_as_any_view_of_it():
    a = memory.empty((200, 100), FLOAT64)
    a[:] = 1
    view = a[150:, ::2].T
    del a
    others = [memory.empty((200, 100), FLOAT64) for _ in range(3)]
    for other in others:
        assert not np.shares_memory(other, view)
        other[:] = 2
    assert (view == 1).all()


def test_a_block_in_a_garbage_cycle_is_given_back():
    """The collector took the pool from a block, which then crashed as it went."""
    workspace = fastrnn.Workspace()
    cycle = [memory.Block(LARGE, workspace)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert workspace.nbytes >= LARGE


def test_what_is_kept_is_bounded():
    held = [memory.empty((size,), FLOAT64) for size in range(10_000, 4_000_000, 40_000)]
    assert sum(a.nbytes for a in held) > 5 * memory.KEEP_BYTES
    del held
    assert 0 < memory.kept_memory() <= memory.KEEP_BYTES
    for _ in range(3):  # the same size over and over
        held = [memory.empty((20_000,), FLOAT64) for _ in range(100)]
        del held
        assert memory.kept_memory() <= memory.KEEP_BYTES


@pytest.mark.parametrize("shape", [(2**48,), (2**31, 2**31), (2**62, 4), (2**63,), (2**70, 3), (1, 2**64)])
def test_shapes_that_no_memory_can_hold(shape):
    with pytest.raises((MemoryError, ValueError, OverflowError)):
        memory.empty(shape, FLOAT64)


@pytest.mark.parametrize("shape", [(-1,), (-3, 100_000), (-300, -100_000)])
def test_negative_shapes(shape):
    with pytest.raises(ValueError, match="negative"):
        memory.empty(shape, FLOAT64)


def test_kernels_never_read_what_a_block_held_before(compiled, variant, ragged, reverse, monkeypatch):
    def full_of_nan(shape, dtype):
        return np.full(shape, np.nan, dtype)

    problem = helpers.make(variant, 6, 4, 3, 19, seed=1, lengths=ragged, reverse=reverse)
    single = helpers.make(variant, 5, 1, 3, 19, seed=2, reverse=reverse)  # one row: another function of the BLAS
    with compiled.active():
        expected = [(helpers.run(p), helpers.forward(p, save=False)[0]) for p in (problem, single)]
        for module in [m for name, m in sys.modules.items() if name.startswith("fastrnn.")]:
            if getattr(module, "empty", None) is memory.empty and module is not memory:
                monkeypatch.setattr(module, "empty", full_of_nan)
        assert _compiled.empty is plan.empty is full_of_nan
        for p, (results, inference) in zip((problem, single), expected, strict=True):
            helpers.assert_same_bits(helpers.run(p), results)
            helpers.assert_same_bits(helpers.forward(p, save=False)[0], inference)


@pytest.mark.parametrize("absent", [(), ("h0", "c0", "b_ih", "b_hh")], ids=["all", "few"])
@pytest.mark.parametrize("T", [1, 6])
def test_dense_passes_never_read_what_a_block_held_before(variant, reverse, T, absent):
    """They take blocks and not arrays, so it is the blocks that are filled."""
    problem, workspace, held = helpers.make(variant, T, 4, 3, 19, seed=1, reverse=reverse), fastrnn.Workspace(), []
    problem = problem.with_arrays(**{name: None for name in absent if name in problem.arrays})
    with fastrnn.config_context(engine="native"), memory.working_in(workspace):
        expected = helpers.run(problem)
        assert workspace.nbytes > problem.dy.nbytes
        for size in (quarters << k for k in range(3, 20) for quarters in (5, 6, 7, 8)):
            kept = None
            while kept != workspace.nbytes:  # until there is no other one of this size
                kept = workspace.nbytes
                held.append(memory.Block(size, workspace))
                np.frombuffer(held[-1], np.uint8)[:] = 255
        assert workspace.nbytes == 0
        del held[:]
        helpers.assert_same_bits(helpers.run(problem), expected)


def resident_bytes():
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_training_does_not_grow_the_process():
    problems = [
        helpers.make(variant, 8, 16, 3, 40, np.float32, seed=k, lengths=lengths)
        for k, variant in enumerate(helpers.VARIANTS)
        for lengths in (None, True)
    ]

    def train(calls):
        for k in range(calls):
            problem = problems[k % len(problems)]
            outputs, cache = helpers.forward(problem)
            if k % 7:  # now and then a cache is dropped unused
                helpers.backward(problem, cache)
            with pytest.raises(ValueError, match="lengths"):  # errors must not leak either
                helpers.forward(replace(problem, lengths=np.full(16, 9)))
            del outputs, cache

    with fastrnn.config_context(num_threads=1):
        train(300)
        gc.collect()
        before = resident_bytes()
        train(2000)
        gc.collect()
        grown = resident_bytes() - before
    assert grown < 5 * 1024 * 1024, f"{grown} bytes more after 2000 calls"


def test_a_workspace_keeps_what_nobody_refers_to():
    layer = fastrnn.LSTM(30, 200, num_layers=2, rng=0)
    x = np.random.default_rng(1).standard_normal((40, 16, 30)).astype(np.float32)
    expected_y, _, cache = layer.forward(x)
    expected_dx, _ = layer.backward(cache, np.ones_like(expected_y))
    expected = {name: grad.copy() for name, grad in layer.grads.items()}
    workspace = fastrnn.Workspace()
    sizes = []
    for _ in range(3):
        layer.zero_grad()
        y, _, cache = layer.forward(x, workspace=workspace)
        dx, _ = layer.backward(cache, np.ones_like(y))
        helpers.assert_same_bits({"y": y, "dx": dx, **layer.grads}, {"y": expected_y, "dx": expected_dx, **expected})
        del y, dx, cache
        gc.collect()
        sizes.append(workspace.nbytes)
    assert sizes[0] > 10 * x.nbytes
    assert sizes[1] == sizes[2]  # the same blocks again
    y, _, _ = layer.forward(x, workspace=workspace)
    workspace.clear()
    assert workspace.nbytes == 0
    np.testing.assert_array_equal(y, expected_y)  # what is referred to stays


def test_a_workspace_keeps_more_than_the_process_does():
    workspace = fastrnn.Workspace()
    with memory.working_in(workspace):
        held = [memory.empty((2 * memory.KEEP_BYTES // 8,), FLOAT64)]
        held[0][:] = 1
        first = address(held.pop())
        assert workspace.nbytes >= 2 * memory.KEEP_BYTES
        assert address(memory.empty((2 * memory.KEEP_BYTES // 8,), FLOAT64)) == first
    assert address(memory.empty((2 * memory.KEEP_BYTES // 8,), FLOAT64)) != first
