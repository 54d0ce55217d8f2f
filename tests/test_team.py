"""The team of threads and how jobs are shared: all come, every way gives the same bits, and the cost model."""

import os
import threading
import time

import helpers
import numpy as np
import pytest
from test_layers import LAYERS, as_tuple, every_layer, states

import fastrnn
from fastrnn import _sharing
from fastrnn._core import team
from fastrnn._sharing import Sharing

PATIENT = 10**9  # ns
WAYS = ("rows", "units", "directions", "layers")


def always(monkeypatch, members, way):
    """Share everything among so many, who will come."""
    sharing = Sharing(members, way, PATIENT) if members > 1 else _sharing.ALONE
    monkeypatch.setattr(_sharing, "passing", lambda *_, **__: sharing)
    monkeypatch.setattr(_sharing, "independent", lambda *_: sharing)


@pytest.mark.parametrize("members", [1, 2, 3, 9])
def test_who_is_asked_comes(members):
    assert team.gathered(members, PATIENT) == members


@pytest.mark.parametrize("gap", [0, 0.005])
def test_a_team_at_rest_does_its_parts_too(gap):
    """Whoever comes and when: all of a result is there. After a while of rest the threads sleep."""
    fast = fastrnn.LSTM(16, 64, rng=0).freeze()
    x = np.random.default_rng(0).standard_normal((30, 40, 16)).astype(np.float32)
    with fastrnn.config_context(num_threads=1):
        expected, _ = fast(x)
    with fastrnn.config_context(num_threads=4):
        for _ in range(20):
            time.sleep(gap)
            np.testing.assert_array_equal(fast(x)[0], expected)


@pytest.mark.parametrize(
    ("case", "make"),
    [
        ("gru", lambda: fastrnn.GRU(9, 256, rng=0)),
        ("projection", lambda: fastrnn.LSTM(9, 256, proj_size=64, rng=0)),
    ],
)
def test_a_single_step_shares_weights_of_which_a_part_would_not_be_shared(case, make, monkeypatch):
    """Each member needs scratch of its own wherever weights are not packed."""
    monkeypatch.setattr(_sharing, "CPUS", 2)
    layer, rng = make(), np.random.default_rng(1)
    B = {"gru": 2, "projection": 16}[case]
    x = rng.standard_normal((1, B, 9)).astype(np.float32)
    dy = rng.standard_normal((1, B, layer.output_size)).astype(np.float32)

    def train():
        layer.zero_grad()
        y, _, cache = layer.forward(x, lengths=[1] * B)
        dx, _ = layer.backward(cache, dy)
        return {"y": y, "dx": dx} | {name: grad.copy() for name, grad in layer.grads.items()}

    with fastrnn.config_context(engine="native"):
        with fastrnn.config_context(num_threads=1):
            expected = train()
        with fastrnn.config_context(num_threads=2):
            whole, part = layer.params["weight_hh_l0"].size, layer.params.get("weight_hr_l0", np.zeros((256, 256))).size
            assert (_sharing.passing(1, B, whole, 4).members, _sharing.passing(1, B, part, 4).members) == (2, 1)
            for _ in range(50):
                helpers.assert_same_bits(train(), expected)


def test_nobody_waits_without_patience():
    assert 1 <= team.gathered(64, 0) <= 64


def test_who_finds_the_team_busy_works_alone():
    sizes, together = [], threading.Barrier(8)

    def call():
        together.wait(60)
        sizes.extend(team.gathered(2, PATIENT) for _ in range(200))

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(sizes) == 1600
    assert set(sizes) <= {1, 2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_its_own_team():
    assert team.gathered(3, PATIENT) == 3  # the parent's workers run
    child = os.fork()
    if child == 0:
        os._exit(0 if team.gathered(3, PATIENT) == 3 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert team.gathered(3, PATIENT) == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("variant", helpers.VARIANTS, ids=str)
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("batch", [1, 23])
def test_a_call_gives_the_same_bits_on_any_number_of_threads(variant, ragged, batch, way, monkeypatch):
    lengths = [6] if ragged and batch == 1 else ragged or None
    problem = helpers.make(variant, 7, batch, 5, 83, np.float32, seed=1, lengths=lengths)
    results = []
    for members in (1, 2, 5):
        always(monkeypatch, members, way)
        with helpers.Engine("native").active():
            results.append(helpers.run(problem))
    for other in results[1:]:
        helpers.assert_same_bits(results[0], other)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@every_layer
def test_a_frozen_layer_gives_the_same_bits_on_any_number_of_threads(kind, bidirectional, ragged, way, monkeypatch):
    rng = np.random.default_rng(0)
    # more multiplications than a call does alone whatever the cost model says (WORTH_ASKING, _core/team.pxd)
    layer = LAYERS[kind](40, 83, num_layers=3, bidirectional=bidirectional, batch_first=ragged, rng=1)
    for batch in (1, 23):
        T = 30 if batch == 1 else 3
        state, lengths = states(layer, batch, rng), rng.integers(1, T + 1, batch) if ragged else None
        x = rng.standard_normal((batch, T, 40) if ragged else (T, batch, 40)).astype(np.float32)
        results = []
        for members in (1, 2) if batch == 1 else (1, 2, 3):  # three meet slowly on two CPUs, so for few steps only
            always(monkeypatch, members, way)
            with fastrnn.config_context(engine="native"):
                y, end = layer.freeze()(x, state, lengths)
            results.append((y, *as_tuple(end)))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)


def test_more_layers_than_threads_can_be(monkeypatch):
    layer = fastrnn.GRU(5, 19, num_layers=70, rng=0)
    x = np.random.default_rng(0).standard_normal((40, 1, 5)).astype(np.float32)
    results = []
    with fastrnn.config_context(engine="native"):
        for members in (1, 2):
            always(monkeypatch, members, "layers")
            results.append(layer.freeze()(x))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def cpus(monkeypatch):
    """A machine of eight CPUs, and all of them asked for."""
    monkeypatch.setattr(_sharing, "CPUS", 8)
    with fastrnn.config_context(num_threads=8):
        yield


def passing(T, B, H, gates=4, layers=1, directions=1):
    return _sharing.passing(T, B, gates * H * H, 4, gates * H * H, layers, directions)


def test_ragged_sequences_are_shared_as_so_many_as_run_at_a_step(monkeypatch):
    asked = []
    monkeypatch.setattr(_sharing, "passing", lambda *job: asked.append(job) or _sharing.ALONE)
    with fastrnn.config_context(engine="native"):
        frozen = fastrnn.LSTM(128, 200, num_layers=2, bidirectional=True, rng=0).freeze()
        x = np.zeros((3, 4, 128), np.float32)
        frozen(x)
        frozen(x, lengths=[3, 1, 0, 3])  # 7 steps in 3
    of_layer = 4 * 200 * 200, 4, 4 * 200 * 128, 2, 2
    assert asked == [(3, 4, *of_layer), (3, 3, *of_layer)]


def test_multiplications_of_few_sequences_count_for_more(cpus):
    """They take longer: a third of the work is worth a second thread."""
    assert passing(1, 1, 450, gates=1) == Sharing(2, "units", passing(1, 1, 450, gates=1).patience)
    assert passing(1, 4, 225, gates=1) == passing(1, 1, 400, gates=1) == _sharing.ALONE
    assert _sharing.independent(400_000, 100, 1).members == 2
    assert _sharing.independent(400_000, 100, 4) == _sharing.independent(300_000, 100, 1) == _sharing.ALONE


@pytest.mark.parametrize(
    ("job", "way"),
    [
        ({"T": 100, "B": 64, "H": 128}, "rows"),  # enough sequences, and weights that fit a core's cache
        ({"T": 25, "B": 64, "H": 1024}, "units"),  # weights that do not
        ({"T": 25, "B": 256, "H": 1024}, "rows"),  # unless there are sequences enough
        ({"T": 100, "B": 1, "H": 128}, "units"),  # one sequence
        ({"T": 100, "B": 1, "H": 256, "gates": 1}, "units"),
        ({"T": 1, "B": 1, "H": 512}, "units"),  # one step
        ({"T": 1000, "B": 1, "H": 32, "layers": 4}, "layers"),  # steps too short to meet after
        ({"T": 1000, "B": 1, "H": 32, "directions": 2}, "directions"),
    ],
)
def test_the_way_of_sharing(job, way, cpus):
    assert passing(**job).way == way
    assert passing(**job).members > 1


@pytest.mark.parametrize("job", [{"T": 1, "B": 1, "H": 128}, {"T": 1000, "B": 1, "H": 32}, {"T": 1, "B": 4, "H": 32}])
def test_what_is_not_worth_sharing(job, cpus):
    assert passing(**job) == _sharing.ALONE


def test_two_directions_on_two_threads_do_not_wait_for_each_other(cpus):
    with fastrnn.config_context(num_threads=2):
        assert passing(100, 64, 128, directions=2) == Sharing(
            2, "directions", passing(100, 64, 128, directions=2).patience
        )


def test_no_more_members_than_cpus_or_than_asked_for(cpus, monkeypatch):
    for asked in (1, 2, 5, 8, 64):
        with fastrnn.config_context(num_threads=asked):
            assert passing(1000, 64, 512).members == min(asked, 8)
            assert _sharing.independent(10**12, 100).members == min(asked, 8)
    monkeypatch.setattr(_sharing, "CPUS", 1)
    assert passing(1000, 64, 512) == _sharing.ALONE


@pytest.mark.parametrize("isa", fastrnn._settings.AVAILABLE_ISAS)
def test_patience_is_a_twentieth_of_the_work(cpus, isa):
    """At as many multiplications a nanosecond as a fast core makes."""
    many, one = _sharing.RATES[isa]
    with fastrnn.config_context(isa=isa):
        assert passing(100, 64, 256).patience == 100 * 64 * 2 * 4 * 256**2 // many // 20
        assert passing(100, 1, 256).patience == 100 * 2 * 4 * 256**2 // one // 20
