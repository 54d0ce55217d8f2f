"""The measurement of the machine's limits: that it works, not how fast the machine is."""

import math
import threading

import pytest

from fastrnn._core import kernels, probe

CALLS = [("fma_gflops",), ("read_gbs", 4096), ("read_gbs", 5001), ("read_gbs", 1 << 20), ("read_gbs", 50_000_000)]


@pytest.mark.parametrize("isa", kernels.available_isas())
@pytest.mark.parametrize(("name", "arguments"), [(name, arguments) for name, *arguments in CALLS])
def test_a_positive_number(monkeypatch, isa, name, arguments):
    monkeypatch.setattr(probe, "available_isas", lambda: (isa,))
    for seconds in (0.01, 1e-300):  # as short as can be: once
        value = getattr(probe, name)(*arguments, seconds)
        assert math.isfinite(value)
        assert value > 0


@pytest.mark.parametrize("nbytes", [-(2**63), -1, 0, 4095])
def test_too_little_to_read(nbytes):
    with pytest.raises(ValueError, match=f"nbytes: {nbytes}, expected at least 4096"):
        probe.read_gbs(nbytes, 0.01)


@pytest.mark.parametrize("seconds", [0, -0.1, math.nan, math.inf])
@pytest.mark.parametrize(("name", "arguments"), [("fma_gflops", ()), ("read_gbs", (4096,))])
def test_no_time(name, arguments, seconds):
    with pytest.raises(ValueError, match=r"seconds: .*, expected a positive number"):
        getattr(probe, name)(*arguments, seconds)


@pytest.mark.parametrize(("name", "arguments"), [("fma_gflops", ()), ("read_gbs", (4096,))])
def test_others_run_meanwhile(name, arguments):
    """With the GIL kept, this thread would not see the other at work."""
    begun = threading.Event()

    def work():
        begun.set()
        getattr(probe, name)(*arguments, 1)

    thread = threading.Thread(target=work)
    thread.start()
    turns = 0
    begun.wait()
    while thread.is_alive():
        turns += 1
        thread.join(0.01)
    assert turns > 2  # it waits for 10 ms at a time
