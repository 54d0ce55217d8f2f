"""`Plan`, the order in which a batch is walked, against loops over sequences and steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn._core.plan import Plan


@st.composite
def batches(draw):
    """T, B, width, lengths (or None), reverse, dtype and a source of numbers."""
    T, B, width = draw(st.integers(0, 9)), draw(st.integers(0, 7)), draw(st.integers(0, 5))
    lengths = draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return T, B, width, lengths, draw(st.booleans()), dtype, np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def order(lengths):
    """The sequences, longest first; equal ones as they came."""
    return sorted(range(len(lengths)), key=lambda b: -lengths[b])


def places(T, B, lengths, reverse):
    """The (t, b) of every row, in the order of the rows."""
    if lengths is None:  # as they lie in memory, whichever way they are walked
        return [(t, b) for t in range(T) for b in range(B)]
    return [(lengths[b] - 1 - s if reverse else s, b) for s in range(T) for b in order(lengths) if lengths[b] > s]


def plan_of(T, B, lengths, reverse):
    return Plan(T, B, None if lengths is None else np.array(lengths, dtype=np.intp), reverse)


@given(batches())
def test_sizes(batch):
    T, B, _, lengths, reverse, _, _ = batch
    plan = plan_of(T, B, lengths, reverse)
    assert (plan.T, plan.B, plan.reverse, plan.ragged) == (T, B, reverse, lengths is not None)
    assert plan.rows == len(places(T, B, lengths, reverse))
    assert plan.steps == max([T] * B if lengths is None else lengths, default=0)


@given(batches())
def test_pack_and_unpack(batch):
    T, B, width, lengths, reverse, dtype, rng = batch
    plan = plan_of(T, B, lengths, reverse)
    array = rng.standard_normal((T, B, width)).astype(dtype)
    expected = np.array([array[t, b] for t, b in places(T, B, lengths, reverse)], dtype).reshape(plan.rows, width)
    rows = plan.pack(array)
    assert rows.dtype == dtype
    np.testing.assert_array_equal(rows, expected)

    padded = np.zeros_like(array)
    for t, b in places(T, B, lengths, reverse):
        padded[t, b] = array[t, b]
    back = plan.unpack(rows)
    assert back.shape == (T, B, width)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, padded)


@given(batches())
def test_sort_and_unsort(batch):
    T, B, width, lengths, reverse, dtype, rng = batch
    plan = plan_of(T, B, lengths, reverse)
    state = rng.standard_normal((B, width)).astype(dtype)
    expected = state if lengths is None else state[order(lengths)]
    np.testing.assert_array_equal(plan.sort(state), expected)
    np.testing.assert_array_equal(plan.unsort(plan.sort(state)), state)


@given(batches())
def test_last(batch):
    T, B, width, lengths, reverse, dtype, rng = batch
    plan = plan_of(T, B, lengths, reverse)
    array = rng.standard_normal((T, B, width)).astype(dtype)
    state = rng.standard_normal((B, width)).astype(dtype)
    expected = state.copy()
    for b in range(B):
        length = T if lengths is None else lengths[b]
        if length:
            expected[b] = array[0 if reverse else length - 1, b]
    rows, sorted_state = plan.pack(array), plan.sort(state)
    last = plan.last(rows, sorted_state)
    np.testing.assert_array_equal(last, expected)
    assert not np.shares_memory(last, state)  # it goes to the caller, who may change it
    assert not np.shares_memory(last, rows)


@given(batches())
def test_previous(batch):
    T, B, width, lengths, reverse, dtype, rng = batch
    plan = plan_of(T, B, lengths, reverse)
    array = rng.standard_normal((T, B, width)).astype(dtype)
    state = rng.standard_normal((B, width)).astype(dtype)
    expected = []
    for t, b in places(T, B, lengths, reverse):
        length = T if lengths is None else lengths[b]
        before = t + 1 if reverse else t - 1
        expected.append(array[before, b] if 0 <= before < length else state[b])
    expected = np.array(expected, dtype).reshape(plan.rows, width)
    both = plan.states(plan.sort(state))
    h = plan.of_steps(both)
    h[:] = plan.pack(array)
    for s0 in range(plan.steps + 1):
        for s1 in range(s0, plan.steps + 1):
            previous = plan.previous(both, plan.sort(state), s0, s1)
            np.testing.assert_array_equal(previous, expected[rows_of(plan, s0, s1)])
    if lengths is None:
        assert np.shares_memory(both, plan.previous(both, state, 0, plan.steps)) or not expected.size


def rows_of(plan, s0, s1):
    """The rows of these steps, as a slice."""
    runs = [run for s, _, run in plan.blocks(None, 1) if s0 <= s < s1]
    return slice(min(r.start for r in runs), max(r.stop for r in runs)) if runs else slice(0, 0)


@given(batches(), st.integers(1, 12))
def test_runs_of_steps_do_not_cross_multiples(batch, most):
    plan = plan_of(*batch[:2], *batch[3:5])
    runs = plan.blocks(5, most)
    assert [s for s0, s1, _ in runs for s in range(s0, s1)] == list(range(plan.steps))
    for s0, s1, rows in runs:
        assert s0 // most == (s1 - 1) // most
        assert (rows.start, rows.stop) == (rows_of(plan, s0, s1).start, rows_of(plan, s0, s1).stop)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [700, 3, 0, 411, 699]])
def test_sums_are_made_of_the_same_blocks_piece_by_piece(lengths, reverse):
    plan = plan_of(700, 5, lengths, reverse)
    whole = plan.blocks_of_sums(0, plan.steps).tolist()
    assert len(whole) == -(-700 // plan.steps_at_once) > 3
    assert sorted(row for first, last in whole for row in range(first, last)) == list(range(plan.rows))
    pieces = []
    for s0, s1, rows in plan.blocks(None, 3 * plan.steps_at_once)[::-1]:
        pieces += [[first + rows.start, last + rows.start] for first, last in plan.blocks_of_sums(s0, s1).tolist()]
    assert pieces == whole


@pytest.mark.parametrize("reverse", [False, True])
def test_a_dense_batch_is_not_copied(reverse):
    plan = Plan(4, 3, None, reverse)
    array = np.zeros((4, 3, 2))
    rows = plan.pack(array)
    state = np.zeros((3, 2))
    assert np.shares_memory(rows, array)
    assert np.shares_memory(plan.unpack(rows), array)
    assert plan.sort(state) is plan.unsort(state) is state


def test_a_full_batch_is_not_shuffled():
    """Equal lengths keep their order, so rows of a full ragged batch are those of the dense one."""
    array = np.arange(24.0).reshape(4, 3, 2)
    np.testing.assert_array_equal(Plan(4, 3, np.array([4, 4, 4])).pack(array), array.reshape(12, 2))


def test_lengths_of_any_integer_type_and_stride():
    array = np.arange(30.0).reshape(5, 3, 2)
    expected = Plan(5, 3, np.array([2, 5, 0], dtype=np.intp)).pack(array)
    for lengths in (np.array([2, 5, 0], np.uint8), np.array([2, 9, 5, 9, 0], np.int32)[::2], [2, 5, 0]):
        np.testing.assert_array_equal(Plan(5, 3, lengths).pack(array), expected)
