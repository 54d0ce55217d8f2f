"""What docs/scaling.md says can be checked: its example, and the arithmetic of its table."""

import sys
from pathlib import Path

import pytest

import fastrnn

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import scaling

    yield scaling
    del sys.modules["scaling"]


def test_the_table_of_traffic_is_what_the_script_prints(scaling, capsys):
    scaling.show_traffic()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 2 * 3
    assert "\n".join(rows) in TEXT


def test_parameters_are_counted_as_layers_have_them(scaling):
    layers = [fastrnn.LSTM(5, 7), fastrnn.LSTM(7, 3)]
    assert scaling.weights_of(5, (7, 3)) == sum(p.value.size for layer in layers for p in layer.parameters())


def test_the_ring_sends_every_number_twice_but_for_one_part(scaling):
    assert scaling.traffic(1000, 1) == 0
    assert scaling.traffic(1000, 2) == 1000
    assert scaling.traffic(1000, 8) == 1750
