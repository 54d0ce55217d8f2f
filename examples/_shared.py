"""What the examples share: their command line, optional libraries, pictures, scores."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).parent / "out"


def run(main: Callable[..., dict]) -> None:
    """Run an example from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="train less: a few seconds, a lower score")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of the pictures (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (%(default)s)")
    options = parser.parse_args()
    try:
        result = main(quick=options.quick, out=options.out, seed=options.seed)
    except ImportError as error:
        raise SystemExit(str(error)) from None
    print(f"score {result['score']:.4g}, picture {result['picture']}")


def optional(module: str, package: str) -> Any:
    """A module of a library that not everyone has."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(f"{package} is not installed; pip install 'fastrnn[examples]'") from None


def save(ax: Any, out: Path | str, name: str) -> Path:
    """Save the picture that `ax` is in as ``out/name.png``; its path."""
    path = Path(out) / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    ax.figure.savefig(path)
    importlib.import_module("matplotlib.pyplot").close(ax.figure)
    return path


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The share of samples whose largest logit is that of their label."""
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def digits_in_common(*pairs: tuple[Any, Any]) -> float:
    """How many decimal digits all pairs of arrays agree to, at most 16: 12 is a difference of 1e-12."""
    differences = [np.max(np.abs(np.subtract(a, b)) / np.maximum(1, np.abs(b)), initial=1e-16) for a, b in pairs]
    return float(-np.log10(max(differences)))
