"""The command line, as a user runs it."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fastrnn
from fastrnn import __main__ as cli
from fastrnn._progress import Progress
from fastrnn.models import CharModel


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "fastrnn", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, run("demo", "--quick", "--epochs", "1", cwd=folder)


def test_demo_trains_saves_and_writes(demo):
    folder, result = demo
    assert result.returncode == 0, result.stderr
    speeds = re.findall(r"^  \w+ +([\d,]+) tokens/s", result.stdout, re.M)
    assert len(speeds) == 2
    difference = float(re.search(r"largest difference of the losses: (\S+) nats", result.stdout)[1])
    assert difference < 1e-5
    bits = re.search(r"epoch 1/1: training (\S+), validation (\S+) bits per character", result.stdout)
    assert 2 < float(bits[2]) < float(bits[1]) < 4
    model = CharModel.load(folder / "fastrnn-demo.npz")
    sample = result.stdout.split("temperature 0.6:\n\n")[1].rsplit("\n\nDone in", 1)[0]
    assert sample == "The " + "".join(model.generate("The ", 300, 0.6, 0))


def test_demo_draws_the_loss_curve_where_it_can(demo):
    folder, result = demo
    pytest.importorskip("matplotlib", reason="matplotlib, which draws the curve, is not installed")
    assert (folder / "fastrnn-demo.png").read_bytes().startswith(b"\x89PNG")
    assert "Loss curve saved to fastrnn-demo.png" in result.stdout


def test_generate(demo):
    folder, _ = demo
    first = run("generate", "fastrnn-demo.npz", "--prompt", "An ", "--length", 60, "--seed", 5, cwd=folder)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("An ")
    assert len(first.stdout.rstrip("\n")) >= 60
    again = run("generate", "fastrnn-demo.npz", "--prompt", "An ", "--length", 60, "--seed", 5, cwd=folder)
    assert again.stdout == first.stdout


def test_info(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("fastrnn 0.")
    for word in ("engine", "isa", "threads", "BLAS"):
        assert word in out


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"fastrnn {fastrnn.__version__}\n"


def test_bad_texts_end_with_code_2_and_write_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fastrnn-demo.npz").write_bytes(b"precious")
    cases = {"empty.txt": b"", "short.txt": b"The cat sat.", "latin1.txt": "The café".encode("latin-1") * 99}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    for name, message in (
        ("empty.txt", "empty.txt: empty, expected text"),
        ("short.txt", "text: 12 characters, expected at least 330"),
        ("latin1.txt", "latin1.txt: not UTF-8 text, byte 7 is 0xe9"),
        ("missing.txt", "No such file"),
    ):
        assert cli.main(["demo", "--text", name]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.startswith("fastrnn: ")
        assert err.count("\n") == 1
    (tmp_path / "fine.txt").write_text("The cat sat on the mat. " * 100)
    assert cli.main(["demo", "--text", "fine.txt", "--prompt", "Ümlaut"]) == 2
    assert cli.main(["demo", "--text", "fine.txt", "--out", "no/such/folder/x"]) == 2
    assert cli.main(["demo", "--text", "fine.txt", "--temperature", "nan"]) == 2
    assert (tmp_path / "fastrnn-demo.npz").read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*cases, "fine.txt", "fastrnn-demo.npz"])


def test_bad_weights_end_with_code_2(demo, tmp_path, capsys):
    folder, _ = demo
    raw = (folder / "fastrnn-demo.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(raw[: len(raw) // 2])
    for name, message in (("half.npz", "not a weights file"), ("missing.npz", "No such file")):
        assert cli.main(["generate", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["generate", str(folder / "fastrnn-demo.npz"), "--prompt", "☃"]) == 2
    assert "'☃' is not among" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows delivers Ctrl-C to whole process groups only")
def test_ctrl_c_keeps_what_was_learned(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "fastrnn", "demo", "--quick", "--epochs", "5000"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("Training"):
            break
    time.sleep(1)  # so that some steps have been taken; any moment from here on will do
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "(stopped early)" in out
    model = CharModel.load(tmp_path / "fastrnn-demo.npz")
    untrained = CharModel(model.vocabulary, **model.config, rng=0)
    assert not np.array_equal(model.head.weight, untrained.head.weight)


class Terminal:
    def __init__(self, tty):
        self.tty, self.text = tty, ""

    def isatty(self):
        return self.tty

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_progress_is_drawn_on_terminals_only():
    terminal = Terminal(True)
    progress = Progress("epoch 1", 200, "tokens", terminal)
    progress.advance(100)
    progress.advance(100, "loss 1.0")
    assert "epoch 1  [########################] 100%" in terminal.text
    assert re.search(r"[\d,]+ tokens/s  loss 1.0", terminal.text)
    log = Terminal(False)
    Progress("epoch 1", 2, "tokens", log).advance(2)
    assert log.text == ""
