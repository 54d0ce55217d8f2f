"""The examples in docs/files.md and docs/keras.md run."""

import os
import re
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("name", ["files.md", "keras.md"])
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
def test_examples(name, tmp_path, monkeypatch):
    if name == "keras.md":
        pytest.importorskip("keras", reason="Keras is not installed")
        pytest.importorskip("h5py", reason="h5py is not installed")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.S)
    exec(compile(code, name, "exec"), {})
