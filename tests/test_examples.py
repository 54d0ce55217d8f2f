"""The examples reach what they promise, in their quick versions, and `run_all` says so."""

import importlib
import sys
from pathlib import Path

import pytest

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
matplotlib.use("Agg")

FOLDER = Path(__file__).parents[1] / "examples"
NEEDS = {
    "attention_key": None,
    "cell_by_hand": None,
    "digits_bidirectional": "sklearn",
    "digits_classifier": "sklearn",
    "forecast_sunspots": "statsmodels",
    "masked_step": None,
    "rnn_from_scratch": None,
    "sentiment": None,
    "vanishing_gradients": None,
}


@pytest.fixture(autouse=True)
def in_their_folder(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


def run_all(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["run_all.py", *map(str, arguments)])
    return importlib.import_module("run_all").main()


def test_all_are_found():
    assert importlib.import_module("run_all").examples().keys() == NEEDS.keys()
    for name in NEEDS:
        lines = (FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith('"""')
        assert len(lines) < 80, name


@pytest.mark.parametrize("name", NEEDS)
def test_score(name, tmp_path):
    if NEEDS[name]:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed")
    module = importlib.import_module(name)
    result = module.main(quick=True, out=tmp_path)
    assert result["score"] >= getattr(module, "WANTED_QUICK", module.WANTED)
    assert result["picture"] == tmp_path / f"{name}.png"
    assert result["picture"].read_bytes().startswith(b"\x89PNG")
    assert not matplotlib.pyplot.get_fignums()


def test_table(monkeypatch, tmp_path, capsys):
    assert run_all(monkeypatch, "--quick", "--out", tmp_path, "cell_by_hand", "masked_step.py") == 0
    table = [line.split() for line in capsys.readouterr().out.rsplit("\n\n", 1)[1].splitlines()]
    assert table[0] == ["system", "score", "wanted", "seconds", "picture"]
    assert [(row[0], row[2], row[4]) for row in table[1:]] == [
        (name, "12", str(tmp_path / f"{name}.png")) for name in ("cell_by_hand", "masked_step")
    ]


def test_a_score_that_is_too_low(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.import_module("cell_by_hand"), "WANTED", 17)
    assert run_all(monkeypatch, "--out", tmp_path, "cell_by_hand", "masked_step") == 1
    assert capsys.readouterr().out.count("too low") == 1


def test_a_library_that_is_not_there(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "statsmodels.api", None)
    assert run_all(monkeypatch, "--out", tmp_path, "forecast_sunspots") == 0
    assert "statsmodels is not installed; pip install 'fastrnn[examples]'" in capsys.readouterr().out


def test_a_name_that_is_unknown(monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        run_all(monkeypatch, "sunspots")
    assert error.value.code == 2
    assert "no example of the name sunspots" in capsys.readouterr().err
