"""What the package promises as a package."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import fastrnn

README = Path(__file__).parent.parent / "README.md"


def test_version():
    assert fastrnn.__version__ == version("fastrnn")


def test_every_public_name_exists():
    for name in fastrnn.__all__:
        assert getattr(fastrnn, name) is not None
    assert {"nn", "data", "models"} <= set(dir(fastrnn))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastrnn.nothing


def test_importing_loads_nothing_that_is_not_needed():
    code = (
        "import sys, fastrnn, fastrnn.interop; "
        "names = 'torch onnx matplotlib fastrnn.nn scipy.sparse sklearn jax dask h5py pytest'; "
        "print([m for m in names.split() if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_typing_information_is_installed():
    assert (Path(fastrnn.__file__).parent / "py.typed").exists()
