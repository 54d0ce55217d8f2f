"""Who decides which engine, instruction set and thread count run: the environment, the process, a context."""

import contextvars
import os
import subprocess
import sys
import threading
from pathlib import Path

import helpers
import numpy as np
import pytest

import fastrnn
from fastrnn import _blas_threads, functional
from fastrnn._core import kernels

ENGINES = ("native", "blas", "reference")  # what "auto" may be, now or later


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = fastrnn.get_num_threads()
    yield
    fastrnn.set_num_threads(before)


def python(code, **environment):
    """Run `code` in a fresh interpreter; what it printed, and its error."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FASTRNN_")}
    clean["PYTHONPATH"] = os.pathsep.join([str(Path(fastrnn.__file__).parents[1]), clean.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, timeout=100
    )
    return result.stdout.strip(), result.stderr.strip(), result.returncode


def engine_used():
    """The engine that really runs, as the cache tells it."""
    problem = helpers.make(helpers.VARIANTS[0], 2, 1, 3, 4)
    return helpers.forward(problem)[1].engine


SHOW = "import fastrnn; c = fastrnn.get_config(); print(c['engine'], c['isa'], c['num_threads'])"


def test_environment():
    out, err, code = python(SHOW, FASTRNN_ENGINE="reference", FASTRNN_ISA="baseline", FASTRNN_NUM_THREADS="3")
    assert (out, err, code) == ("reference baseline 3", "", 0)


def test_environment_that_says_nothing():
    out, err, code = python(SHOW, FASTRNN_ENGINE="", FASTRNN_ISA="auto", FASTRNN_NUM_THREADS="")
    engine, isa, threads = out.split()
    assert (err, code) == ("", 0)
    assert engine in ENGINES
    assert isa == kernels.available_isas()[0]
    assert int(threads) >= 1


@pytest.mark.parametrize(
    ("name", "value", "known"),
    [
        ("FASTRNN_ENGINE", "cuda", ["auto", "native", "blas", "reference"]),
        ("FASTRNN_ENGINE", "BLAS", ["auto", "native", "blas", "reference"]),
        ("FASTRNN_ISA", "mmx", ["auto", "avx512", "avx2", "neon", "baseline"]),
        ("FASTRNN_NUM_THREADS", "0", ["from 1"]),
        ("FASTRNN_NUM_THREADS", "-2", ["from 1"]),
        ("FASTRNN_NUM_THREADS", "many", ["from 1"]),
        ("FASTRNN_NUM_THREADS", "1.5", ["from 1"]),
    ],
)
def test_unknown_values_in_the_environment(name, value, known):
    _, err, code = python("import fastrnn", **{name: value})
    message = err.splitlines()[-1]
    assert code == 1
    assert message.startswith(f"ValueError: {name}: ")
    assert all(word in message for word in [value, *known])


def test_an_instruction_set_that_cannot_run_here():
    absent = sorted({"avx512", "avx2", "neon"} - set(kernels.available_isas()))
    assert absent  # no processor has both AVX2 and Neon
    with (
        pytest.raises(ValueError, match=f"isa: '{absent[0]}' cannot run here, expected one of .*'baseline'"),
        fastrnn.config_context(isa=absent[0]),
    ):
        pass


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"engine": "cuda"}, "engine: 'cuda', expected one of 'auto', 'native', 'blas', 'reference'"),
        ({"engine": 1}, "engine: 1, expected one of 'auto'"),
        ({"isa": "mmx"}, "isa: 'mmx', expected one of 'auto', 'avx512', 'avx2', 'neon', 'baseline'"),
        ({"num_threads": 0}, "num_threads: 0, expected a whole number from 1"),
        ({"num_threads": -1}, "num_threads: -1, expected a whole number from 1"),
        ({"num_threads": 2.0}, "num_threads: 2.0, expected a whole number from 1"),
        ({"num_threads": float("nan")}, "num_threads: nan, expected a whole number from 1"),
        ({"engine": "blas", "num_threads": 0}, "num_threads: 0"),
    ],
    ids=str,
)
def test_unknown_values_in_a_context(setting, message):
    before = fastrnn.get_config()
    with pytest.raises(ValueError, match=f"^{message}"), fastrnn.config_context(**setting):
        pytest.fail("the block must not run")
    assert fastrnn.get_config() == before


def test_the_engine_really_changes(engine):
    with fastrnn.config_context(engine=engine.name):
        assert engine_used() == fastrnn.get_config()["engine"] == engine.name
    assert engine_used() in ENGINES


def test_auto_and_an_engine_that_is_not_built_resolve_to_one_that_is():
    for name in ("auto", "native"):
        with fastrnn.config_context(engine=name):
            assert engine_used() == fastrnn.get_config()["engine"]
            assert engine_used() in ENGINES


def test_the_instruction_set_really_changes():
    for isa in kernels.available_isas():
        with fastrnn.config_context(isa=isa):
            assert fastrnn.get_config()["isa"] == isa
            assert fastrnn.get_config()["asked"]["isa"] == isa


def snapshot():
    config = fastrnn.get_config()
    return config["engine"], config["isa"], config["num_threads"]


def test_contexts_nest_and_restore():
    outside = snapshot()
    blas_outside = _blas_threads.get()
    with fastrnn.config_context(engine="reference", num_threads=5):
        assert snapshot() == ("reference", outside[1], 5)
        with fastrnn.config_context(isa="baseline"):  # leaves the other two
            assert snapshot() == ("reference", "baseline", 5)
            with fastrnn.config_context(engine="blas", num_threads=2):
                assert snapshot() == ("blas", "baseline", 2)
            assert snapshot() == ("reference", "baseline", 5)
        assert snapshot() == ("reference", outside[1], 5)
    assert snapshot() == outside
    assert _blas_threads.get() == blas_outside


def test_contexts_restore_after_an_exception():
    outside = snapshot()
    blas_outside = _blas_threads.get()
    with (
        pytest.raises(ZeroDivisionError),
        fastrnn.config_context(engine="reference", isa="baseline", num_threads=3),
    ):
        1 / 0  # noqa: B018
    assert snapshot() == outside
    assert _blas_threads.get() == blas_outside


def test_a_context_belongs_to_its_thread():
    outside = snapshot()
    seen = {}

    def look():
        seen["thread"] = snapshot()
        with fastrnn.config_context(isa="baseline"):
            inside.set()
            go_on.wait(60)
            seen["thread's own"] = snapshot()

    inside, go_on = threading.Event(), threading.Event()
    with fastrnn.config_context(engine="reference"):
        thread = threading.Thread(target=look)
        thread.start()
        assert inside.wait(60)
        seen["main"] = snapshot()
        go_on.set()
        thread.join(60)
    assert seen["thread"] == outside
    assert seen["thread's own"] == (outside[0], "baseline", outside[2])
    assert seen["main"] == ("reference", *outside[1:])


def test_a_copied_context_takes_the_settings_along():
    """Which is how asyncio tasks, and whoever starts threads with care, hand them on."""
    with fastrnn.config_context(engine="reference"):
        context = contextvars.copy_context()
    assert context.run(engine_used) == "reference"


@pytest.mark.parametrize("n", [1, 3, np.int64(2)])
def test_thread_count(n):
    fastrnn.set_num_threads(n)
    assert fastrnn.get_num_threads() == fastrnn.get_config()["num_threads"] == n
    assert _blas_threads.get() in (None, n)
    with fastrnn.config_context(num_threads=4):
        assert fastrnn.get_num_threads() == 4
    assert fastrnn.get_num_threads() == n


@pytest.mark.parametrize("n", [0, -1, 1.0, "many", None, [2], float("inf")])
def test_wrong_thread_counts(n):
    before = fastrnn.get_num_threads()
    with pytest.raises(ValueError, match=r"^n: .*expected a whole number from 1"):
        fastrnn.set_num_threads(n)
    assert fastrnn.get_num_threads() == before


def test_a_context_hides_only_what_it_sets():
    """A thread count that is set within a context that says nothing of threads holds at once, there too."""
    with fastrnn.config_context(engine="reference"):
        fastrnn.set_num_threads(3)
        assert fastrnn.get_num_threads() == 3


def test_contexts_that_overlap_leave_the_blas_as_it_was():
    """Two threads within contexts of their own, the first to enter being the first to leave."""
    before = _blas_threads.get()
    if before is None:
        pytest.skip("this BLAS does not say how many threads it uses")
    entered, left = threading.Event(), threading.Event()

    def second():
        with fastrnn.config_context(num_threads=before + 2):
            entered.set()
            left.wait(60)

    thread = threading.Thread(target=second)
    try:
        with fastrnn.config_context(num_threads=before + 1):
            thread.start()
            assert entered.wait(60)
        left.set()
        thread.join(60)
        assert _blas_threads.get() == before
    finally:
        _blas_threads.set(before)


def test_settings_are_keywords():
    with pytest.raises(TypeError, match="positional"):
        fastrnn.config_context("blas")


def test_show_config(engine, capsys):
    with engine.active(num_threads=3):
        config = fastrnn.get_config()
        fastrnn.show_config()
    text = capsys.readouterr().out
    assert text.startswith(f"fastrnn {fastrnn.__version__}\n")
    lines = {line.split()[0]: line for line in text.splitlines()[1:]}
    assert f"-> {engine.name}" in lines["engine"]
    assert f"-> {config['isa']}" in lines["isa"]
    assert all(isa in lines["isa"] for isa in kernels.available_isas())
    assert "-> 3" in lines["threads"]
    assert config["blas"] in lines["BLAS"]
    assert np.__version__ in lines["with"]


def test_get_config_names_what_runs():
    config = fastrnn.get_config()
    assert config["engine"] in ENGINES
    assert config["isa"] in config["available_isas"] == kernels.available_isas()
    assert config["versions"]["numpy"] == np.__version__
    assert config["blas"]


def test_a_reference_cache_goes_back_to_the_reference():
    """Backward follows the cache, whatever the settings have become since."""
    problem = helpers.make(helpers.VARIANTS[0], 3, 2, 4, 5)
    with fastrnn.config_context(engine="reference"):
        _, cache = helpers.forward(problem)
        expected = helpers.run(problem)
    grads = helpers.backward(problem, cache, functional)
    helpers.assert_same_bits(grads, {name: expected[name] for name in grads})
