"""What the documentation shows runs: README.md, docs/, docstrings. A library that is missing is named."""

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn

os.environ.setdefault("KERAS_BACKEND", "jax")
ROOT = Path(__file__).parent.parent
NEEDS = {
    "dask": ["dask", "distributed", "joblib"],
    "jax": ["jax"],
    "keras": ["h5py", "keras"],
    "onnx": ["onnx"],
    "sklearn": ["sklearn"],
    "torch": ["torch"],
}
EXAMPLES = [
    pytest.param(path, code, id=f"{path.name}-{k}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for k, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.S))
]


def skip_without(bridge):
    for library in NEEDS.get(bridge, []):
        pytest.importorskip(library, reason=f"{library} is not installed")


def test_every_page_has_an_example():
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} | {"README.md"}
    assert {example.values[0].name for example in EXAMPLES} == pages - {"semantics.md"}


def test_links_lead_to_files_and_headings():
    found = 0
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for link in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", text):
            target = page.parent / link[0] if link[0] else page
            assert target.exists(), f"{page.name}: {link[0]}"
            if link[1]:
                headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
                assert link[1] in {"#" + re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, link
            found += 1
    assert found > 30


@pytest.mark.filterwarnings("ignore")  # of the libraries
@pytest.mark.parametrize(("path", "code"), EXAMPLES)
def test_examples_run(path, code, tmp_path, monkeypatch):
    skip_without(path.stem)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, path.name, "exec"), {"__name__": "__main__"})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bridge", NEEDS)
def test_docstrings_of_bridges_run(bridge):
    skip_without(bridge)
    result = doctest.testmod(importlib.import_module(f"fastrnn.interop.{bridge}"))
    assert result.attempted > 3
    assert not result.failed


@pytest.mark.parametrize(
    "module",
    ["_settings", "files", "layers.frozen", "layers.stack", "models.hierarchical", "models.sequence_generator",
     "nn.sequential"],
)  # fmt: skip
def test_docstrings_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assumed = {"np": np, "fastrnn": fastrnn}
    flags = doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(importlib.import_module(f"fastrnn.{module}"), extraglobs=assumed, optionflags=flags)
    assert result.attempted > 1
    assert not result.failed


@pytest.mark.parametrize(
    "bridge", [name for name in NEEDS if name != "keras"]
)  # whose libraries are for single functions
def test_a_library_that_is_missing_is_named_with_its_extra(bridge):
    library = NEEDS[bridge][0]
    code = f"import sys, fastrnn; sys.modules[{library!r}] = None; fastrnn.interop.{bridge}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert re.search(rf"ImportError: .* not installed.*; pip install 'fastrnn\[{bridge}\]'", run.stderr)
