"""Layers over Dask arrays: as in one call, however the arrays are cut, also where a worker is killed."""

import os
import signal
import sys
import time

import numpy as np
import pytest

import fastrnn

dask = pytest.importorskip("dask", reason="Dask is not installed")
da = pytest.importorskip("dask.array", reason="Dask's arrays are not installed")

from fastrnn.interop import dask as interop  # noqa: E402
from fastrnn.interop.dask import map_sequences  # noqa: E402

T, B, I, H = 11, 7, 3, 5
LAYERS = {
    "rnn": lambda: fastrnn.RNN(I, H, rng=0),
    "lstm": lambda: fastrnn.LSTM(I, H, 2, rng=0),
    "gru, both ways": lambda: fastrnn.GRU(I, H, bidirectional=True, rng=0),
    "both ways apart": lambda: fastrnn.LSTM(I, H, bidirectional=True, merge=None, rng=0),
    "projected": lambda: fastrnn.LSTM(I, H, proj_size=2, rng=0),
    "learned start": lambda: fastrnn.GRU(I, H, learn_initial_state=True, rng=0),
    "batch first": lambda: fastrnn.LSTM(I, H, batch_first=True, rng=0),
    "float64": lambda: fastrnn.GRU(I, H, reset_after=False, dtype=np.float64, rng=0),
    "stack": lambda: fastrnn.Stack([fastrnn.LSTM(I, H, rng=0), fastrnn.GRU(H, H, rng=1)], residual=[False, True]),
    "mingru": lambda: fastrnn.MinGRU(I, H, rng=0),
}


def leaves(nested):
    return [a for part in nested for a in leaves(part)] if isinstance(nested, list | tuple) else [nested]


def make(kind, chunks=(4, 3)):
    """A layer with parameters that are not as at first, its input, and that as a Dask array cut along all axes."""
    layer, rng = LAYERS[kind](), np.random.default_rng(1)
    for parameter in layer.parameters():
        parameter.value[...] += 0.1 * rng.standard_normal(parameter.value.shape)
    x = rng.standard_normal((T, B, I)).astype(layer.dtype)
    if layer.batch_first:
        x, chunks = np.ascontiguousarray(x.swapaxes(0, 1)), chunks[::-1]
    return layer, x, da.from_array(x, chunks=(*chunks, 2))


def compute(*results):
    return dask.compute(*results, scheduler="synchronous")


def assert_same(got, wanted):
    assert type(got) is type(wanted)
    for a, b in zip(leaves(got), leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture(autouse=True)
def _native():
    with fastrnn.config_context(engine="native"):  # which promises the same bits
        yield


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("lengths", [None, np.array([11, 0, 4, 5, 8, 1, 9])], ids=["dense", "ragged"])
def test_as_in_one_call(kind, lengths):
    layer, x, cut = make(kind)
    y, state = map_sequences(layer, cut, lengths)
    wanted_y, wanted_state = layer(x, None, lengths)
    for lazy, wanted in zip(leaves((y, state)), leaves((wanted_y, wanted_state)), strict=True):
        assert (lazy.shape, lazy.dtype) == (wanted.shape, wanted.dtype)
    assert_same(compute(y, state), (wanted_y, wanted_state))


@pytest.mark.parametrize("kind", ["lstm", "stack", "batch first", "both ways apart"])
def test_from_a_state_and_with_lengths_of_dask(kind):
    layer, x, cut = make(kind)
    rng = np.random.default_rng(2)
    _, like = layer(x)
    state = interop._map(lambda a: rng.standard_normal(a.shape).astype(a.dtype), like)
    lengths = np.array([11, 0, 4, 5, 8, 1, 9])
    wanted = layer(x, state, lengths)
    of_dask = interop._map(lambda a: da.from_array(a, chunks=(1, 2, 2)), state)
    assert_same(compute(*map_sequences(layer, cut, da.from_array(lengths, chunks=2), state=state)), wanted)
    assert_same(compute(*map_sequences(layer.freeze(), cut, lengths, state=of_dask)), wanted)


@pytest.mark.parametrize("kind", ["lstm", "stack", "batch first", "gru, both ways", "mingru"])
def test_masks_and_resets(kind):
    layer, x, cut = make(kind)
    rng = np.random.default_rng(2)
    mask, reset = rng.random(x.shape[:2]) < 0.7, rng.random(x.shape[:2]) < 0.2
    lengths = np.array([11, 0, 4, 5, 8, 1, 9])
    assert_same(compute(*map_sequences(layer, cut, lengths, mask=mask)), layer(x, None, lengths, mask=mask))
    wanted = layer(x, None, lengths, mask=mask, reset=reset)
    of_dask = {"mask": da.from_array(mask, chunks=2), "reset": da.from_array(reset, chunks=3)}
    assert_same(compute(*map_sequences(layer, cut, lengths, **of_dask)), wanted)


def test_a_state_may_be_given_in_part():
    layer, x, cut = make("lstm")
    h = np.ones((2, B, H), np.float32)
    assert_same(compute(*map_sequences(layer, cut, state=(h, None))), layer(x, (h, None)))


@pytest.mark.parametrize("shape", [(0, B, I), (T, 0, I), (1, 1, I)], ids=str)
@pytest.mark.parametrize("kind", ["lstm", "gru, both ways"])
def test_nothing_and_one(kind, shape):
    layer, x = LAYERS[kind](), np.ones(shape, np.float32)
    assert_same(compute(*map_sequences(layer, da.from_array(x, chunks=(4, 3, I)))), layer(x))


def test_only_what_is_asked_for_is_read():
    layer, x, _ = make("lstm")
    read = []

    def block(block_info=None):
        (t0, t1), (b0, b1), _ = block_info[None]["array-location"]
        read.append((t0, b0))
        return x[t0:t1, b0:b1]

    lazy = da.map_blocks(block, chunks=((4, 4, 3), (3, 3, 1), (I,)), dtype=x.dtype, meta=np.empty((0, 0, 0), x.dtype))
    y, _ = map_sequences(layer, lazy)
    read.clear()
    (some,) = compute(y[:6, 4])
    np.testing.assert_array_equal(some, layer(x)[0][:6, 4])
    assert sorted(read) == [(0, 3), (4, 3)]


def test_what_is_compared_to_its_input_reads_it_once():
    layer, x, cut = make("lstm")
    read = []

    def note(block):
        read.append(block.shape)
        return block

    lazy = cut.map_blocks(note, dtype=x.dtype, meta=np.empty((0, 0, 0), x.dtype))
    y, _ = map_sequences(layer, lazy, mask=lazy[:, :, 0] > 0)
    read.clear()
    (error,) = compute(abs(y[:, :, :I] - lazy).max())
    np.testing.assert_array_equal(error, abs(layer(x, mask=x[:, :, 0] > 0)[0][:, :, :I] - x).max())
    assert len(read) == lazy.npartitions


@pytest.mark.parametrize("kind", ["lstm", "mingru"])
def test_chunks_of_nothing_and_resets_to_a_given_state(kind):
    layer, x, _ = make(kind)
    rng = np.random.default_rng(2)
    state = interop._map(lambda a: rng.standard_normal(a.shape).astype(a.dtype), layer(x)[1])
    lengths, reset = np.array([11, 0, 4, 5, 8, 1, 9]), rng.random((T, B)) < 0.3
    wanted = layer(x, state, lengths, reset=reset)
    for chunks in ((0, 4, 0, 7), (0, 3, 0, 4)), ((11, 0), (7, 0)), ((1,) * T, (1,) * B):
        cut = da.from_array(x, chunks=(*chunks, I))
        assert_same(compute(*map_sequences(layer, cut, lengths, state=state, reset=reset)), wanted)


def test_the_chunks_of_time_of_a_bidirectional_layer_are_joined_and_those_of_others_stay():
    for kind, chunks in (("gru, both ways", (11,)), ("lstm", (4, 4, 3))):
        layer, _, cut = make(kind)
        assert map_sequences(layer, cut)[0].chunks[:2] == (chunks, (3, 3, 1))


def test_a_call_uses_as_many_threads_as_it_is_told(monkeypatch):
    seen = []
    original = fastrnn.layers.frozen.Frozen.__call__

    def spy(self, *arguments, **options):
        seen.append(fastrnn.get_num_threads())
        return original(self, *arguments, **options)

    monkeypatch.setattr(fastrnn.layers.frozen.Frozen, "__call__", spy)
    layer, _, cut = make("lstm")
    for count in (1, 3):
        results = map_sequences(layer, cut, num_threads=count)
        seen.clear()
        compute(*results)
        assert seen == [count] * 9


@pytest.mark.parametrize("kind", ["lstm", "stack", "mingru"])
def test_later_changes_of_the_layer_do_not_matter(kind):
    layer, x, cut = make(kind)
    results, wanted = map_sequences(layer, cut), layer(x)
    for parameter in layer.parameters():
        parameter.value[...] += 1
    assert_same(compute(*results), wanted)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"fast": 3}, TypeError, "fast: int, expected a recurrent layer or stack"),
        ({"fast": fastrnn.MinGRU(I, H, stateful=True)}, ValueError, "fast: a stateful layer"),
        ({"x": np.zeros((T, B, I), np.float32)}, TypeError, "x: ndarray, expected a dask array"),
        ({"x": da.zeros((T, B, I + 1), dtype=np.float32)}, ValueError, r"x: shape .*, expected \(T, B, I\) with I = 3"),
        ({"x": da.zeros((T, B, I))}, TypeError, "x: dtype float64, expected float32"),
        ({"lengths": [1, 2]}, ValueError, r"lengths: shape \(2,\), expected \(B,\) = \(7,\)"),
        ({"lengths": da.zeros(B)}, TypeError, "lengths: dtype float64, expected integers"),
        ({"lengths": [12] * B}, ValueError, "lengths: values from 12 to 12, expected 0 to T = 11"),
        ({"mask": np.ones((T, B))}, TypeError, "mask: dtype float64, expected bool"),
        ({"mask": da.ones((T, B))}, TypeError, "mask: dtype float64, expected bool"),
        ({"reset": np.ones((B, T), bool)}, ValueError, r"reset: shape \(7, 11\), expected that of x"),
        ({"reset": da.ones((B, T), dtype=bool)}, ValueError, r"reset: shape \(7, 11\), expected that of x, \(11, 7\)"),
        ({"state": np.zeros((2, B, H))}, TypeError, "state: ndarray, expected a tuple of 2"),
        ({"state": (None, np.zeros((1, B, H)))}, ValueError, r"state\[1\]: shape \(1, 7, 5\), expected .* \(2, 7, 5\)"),
        ({"state": (None, np.zeros((2, B, H)))}, TypeError, r"state\[1\]: dtype float64, expected float32"),
        ({"num_threads": 0}, ValueError, "num_threads: 0, expected a whole number from 1"),
    ],
)
def test_bad_input_is_named(arguments, error, message):
    layer, _, cut = make("lstm")
    with pytest.raises(error, match=message):
        map_sequences(**{"fast": layer, "x": cut} | arguments)


def test_chunks_of_unknown_sizes_are_refused():
    layer, x, cut = make("lstm")
    with pytest.raises(ValueError, match="x: chunks of unknown sizes"):
        map_sequences(layer, cut[:, da.from_array(x[0, :, 0] > 0, chunks=3)])


def test_lengths_of_dask_out_of_range_are_named_when_they_are_computed():
    layer, _, cut = make("lstm")
    y, _ = map_sequences(layer, cut, da.full(B, 12))
    with pytest.raises(ValueError, match="lengths: values from 12 to 12, expected 0 to T = 11"):
        compute(y)


# --- on a cluster ----------------------------------------------------------------------------------------------------


def _block(block, pause=0.0, block_info=None):
    """A block of the input, made of where it is, after a while."""
    time.sleep(pause)
    (t0, _), (b0, _), _ = block_info[None]["array-location"]
    return np.random.default_rng(1000 * t0 + b0).standard_normal(block.shape).astype(np.float32)


# What a killed process leaves behind in this one, sockets and tasks, is Dask's to complain of.
@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_is_killed_loses_nothing_and_doubles_nothing(tmp_path):
    distributed = pytest.importorskip("distributed", reason="Dask's cluster is not installed")
    layer = fastrnn.LSTM(I, H, 2, rng=0)
    places = da.zeros((8, 40, I), dtype=np.float32, chunks=(4, 4, I))
    x, slow = (da.map_blocks(_block, places, pause=pause, dtype=np.float32) for pause in (0.0, 0.1))
    lengths = np.random.default_rng(3).integers(0, 9, 40)
    wanted = layer(x.compute(scheduler="synchronous"), None, lengths)
    with (
        dask.config.set({"temporary-directory": str(tmp_path)}),
        distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = client.run(os.getpid)
        assert len(pids) == 2
        y, (h, c) = map_sequences(layer, slow, lengths)
        futures = client.compute([y, h, c])
        address, pid = next(iter(pids.items()))
        while len(client.has_what()[address]) < 3:  # it has results by now, and the rest before it
            time.sleep(0.02)
        assert not any(future.done() for future in futures)
        os.kill(pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        got_y, *got_state = client.gather(futures)
    assert_same((got_y, tuple(got_state)), wanted)
