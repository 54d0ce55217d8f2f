"""The examples reach what they promise, in their quick versions, and `run_all` says so."""

import importlib
import sys
from pathlib import Path

import pytest

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
matplotlib.use("Agg")

FOLDER = Path(__file__).parents[1] / "examples"
NEEDS = {
    "attention_hybrid": None,
    "attention_key": None,
    "best_practices": None,
    "cell_by_hand": None,
    "char_generation": None,
    "digits_bidirectional": "sklearn",
    "digits_classifier": "sklearn",
    "forecast_sunspots": "statsmodels",
    "hierarchical": None,
    "masked_step": None,
    "rnn_from_scratch": None,
    "sentiment": None,
    "seq2seq_attention": None,
    "seq2seq_dates": None,
    "seq2seq_digits": None,
    "sequence_generation": None,
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
    assert table[0] == ["system", "wanted", "seconds", "seed", "0", "picture"]
    assert [(row[:2], row[3:]) for row in table[1:]] == [
        ([name, "12"], ["12", str(tmp_path / f"{name}.png")]) for name in ("cell_by_hand", "masked_step")
    ]


def test_seeds(monkeypatch, tmp_path, capsys):
    def other(quick, out, seed):
        seen.append((quick, out, seed))
        return {"score": 1 - seed / 100, "picture": out / "x.png"}

    seen, module = [], importlib.import_module("cell_by_hand")
    monkeypatch.setattr(module, "main", other)
    monkeypatch.setattr(module, "WANTED", 0.9)
    assert run_all(monkeypatch, "--out", tmp_path, "cell_by_hand", "--seeds", 5, 4, 6) == 0
    assert seen == [(False, tmp_path, 5), (False, tmp_path / "seed_4", 4), (False, tmp_path / "seed_6", 6)]
    lines = capsys.readouterr().out.splitlines()
    assert "wanted  seconds   seed 5   seed 4   seed 6  picture" in lines[-2]
    assert lines[-1].split()[3:] == ["0.95", "0.96", "0.94", str(tmp_path / "x.png")]
    assert run_all(monkeypatch, "--out", tmp_path, "cell_by_hand", "--seeds", 5, 2) == 1
    assert "SEEDS DIFFER" in capsys.readouterr().out
    assert run_all(monkeypatch, "--quick", "--out", tmp_path, "cell_by_hand", "--seeds", 5, 2) == 0
    assert run_all(monkeypatch, "--out", tmp_path, "cell_by_hand", "--seeds", 9, 11) == 1
    assert "TOO LOW" in capsys.readouterr().out


def test_a_seed_from_the_command_line(monkeypatch, tmp_path, capsys):
    pictures = []
    for seed in (0, 0, 1):
        out = tmp_path / str(len(pictures))
        monkeypatch.setattr(sys, "argv", ["masked_step.py", "--quick", "--out", str(out), "--seed", str(seed)])
        importlib.import_module("_shared").run(importlib.import_module("masked_step").main)
        assert "score 12, picture" in capsys.readouterr().out
        pictures.append((out / "masked_step.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_score_that_is_too_low(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.import_module("cell_by_hand"), "WANTED", 17)
    assert run_all(monkeypatch, "--out", tmp_path, "cell_by_hand", "masked_step") == 1
    assert capsys.readouterr().out.count("TOO LOW") == 1


def test_a_library_that_is_not_there(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "statsmodels.api", None)
    assert run_all(monkeypatch, "--out", tmp_path, "forecast_sunspots") == 0
    assert "statsmodels is not installed; pip install 'fastrnn[examples]'" in capsys.readouterr().out


def test_a_name_that_is_unknown(monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        run_all(monkeypatch, "sunspots")
    assert error.value.code == 2
    assert "no example of the name sunspots" in capsys.readouterr().err
