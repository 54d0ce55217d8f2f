"""Pictures say what they show."""

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed").use("Agg")

from fastrnn import viz  # noqa: E402


def test_history():
    ax = viz.plot_history([3, 2, 1.5], [3.1, 2.2, 1.9], unit="bits per character", title="A model")
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("epoch", "bits per character", "A model")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation"]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 3], [2, 2], [3, 1.5]])
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [3.1, 2.2, 1.9])
    ax.figure.canvas.draw()
