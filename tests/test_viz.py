"""Pictures show the numbers they are given, and say what they are."""

from types import SimpleNamespace

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn import viz  # noqa: E402


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    pyplot.close("all")


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def labels(ax):
    return ax.get_xlabel(), ax.get_ylabel()


def texts(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def arrows(ax):
    return [text for text in ax.texts if getattr(text, "arrow_patch", None) is not None]


RECORDS = [{"loss": 3.0, "val_loss": 3.1}, {"loss": 2.0, "val_loss": 1.9}, {"loss": 1.5, "val_loss": 2.25}]
COLUMNS = {"loss": [3, 2, 1.5], "val_loss": [3.1, 1.9, 2.25]}


@pytest.mark.parametrize("history", [RECORDS, COLUMNS, SimpleNamespace(epochs=RECORDS)], ids=["rows", "dict", "object"])
def test_loss_history(history):
    ax = viz.loss_history(history, unit="bits per character", title="A model")
    assert labels(ax) == ("epoch", "bits per character")
    assert ax.get_title() == "A model"
    assert legend(ax) == ["training", "validation", "best: 1.9 in epoch 2"]
    training, validation, best = ax.lines
    np.testing.assert_array_equal(training.get_xydata(), [[1, 3], [2, 2], [3, 1.5]])
    np.testing.assert_array_equal(validation.get_xydata(), [[1, 3.1], [2, 1.9], [3, 2.25]])
    assert list(best.get_xdata()) == [2, 2]
    assert texts(ax) == ["1.5", "2.25"]
    ax.figure.canvas.draw()
    assert ax.figure.canvas.get_width_height() == (800, 500)


def test_loss_history_without_validation_and_with_gaps():
    ax = viz.loss_history([{"loss": 2.0, "val_loss": None}, {"loss": 1.0, "val_loss": None}])
    assert legend(ax) == ["training"]
    ax = viz.loss_history([{"loss": 2.0}, {"loss": 1.0, "val_loss": 5.0}, {"loss": np.inf}])
    assert legend(ax) == ["training", "validation", "best: 5 in epoch 2"]
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [np.nan, 5, np.nan])
    ax.figure.canvas.draw()


@pytest.mark.parametrize("ends", [(1, 1), (1, 1.001), (1.001, 1), (0.5, 2), (2, 0.5)], ids=str)
def test_the_numbers_at_the_ends_stand_apart(ends):
    ax = viz.loss_history({"loss": [3, ends[0]], "val_loss": [2.5, ends[1]]})
    ax.figure.canvas.draw()
    training, validation = (text.get_window_extent() for text in ax.texts)
    assert not training.overlaps(validation)
    frame = ax.get_window_extent()
    for box, line in zip((training, validation), ax.lines, strict=False):
        assert frame.contains(box.x0, box.y0)
        assert frame.contains(box.x1, box.y1)
        end = ax.transData.transform(line.get_xydata()[-1])
        assert 0 < max(box.y0 - end[1], end[1] - box.y1) < 15  # beside the end that it is about


@pytest.mark.parametrize("history", [[], {}, {"val_loss": [1]}, {"loss": []}, [{"val_loss": 1.0}]])
def test_no_losses(history):
    with pytest.raises(ValueError, match=r"^history: no 'loss'"):
        viz.loss_history(history)


@pytest.mark.parametrize("losses", [3.0, [[1.0, 2.0], [3.0, 4.0]]])
def test_losses_that_are_not_one_an_epoch(losses):
    with pytest.raises(ValueError, match=r"^history: shapes \{'loss': \(.*\)\}, expected one value an epoch"):
        viz.loss_history({"loss": losses})


def test_a_history_of_something_else():
    with pytest.raises(TypeError, match=r"^history: list, expected a History"):
        viz.loss_history([1.0, 2.0])


def test_gradient_flow_of_a_module():
    layer = fastrnn.GRU(2, 3, dtype=np.float64, rng=1)
    for k, grad in enumerate(layer.grads.values()):
        grad.flat[:2] = 3 * 10.0**k, 4 * 10.0**k
    ax = viz.gradient_flow(layer)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[5, 0], [50, 1], [500, 2], [5000, 3]])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "norm of the gradient"
    assert ax.yaxis_inverted()  # the first one on top
    assert texts(ax) == []


def test_gradient_flow_shows_what_a_logarithm_cannot():
    ax = viz.gradient_flow({"a": 0.5, "b": 0.0, "c": np.nan, "d": 2.0, "e": np.inf})
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0.5, 0], [2, 3]])
    low, high = ax.get_xlim()
    assert {t.get_text(): t.xy for t in ax.texts} == {"0": (low, 1), "nan": (high, 2), "inf": (high, 4)}
    viz.gradient_flow({"only": 0.0}).figure.canvas.draw()
    with pytest.raises(TypeError, match=r"^module: list, expected a Module or norms by name"):
        viz.gradient_flow([1.0])
    with pytest.raises(ValueError, match=r"^module: shape \(0,\)"):
        viz.gradient_flow({})


def test_gradient_over_time():
    norms = np.array([[1e-6, 0.5], [0, 0.25], [1e-2, np.inf], [1, 2]])
    ax = viz.gradient_over_time(norms, ["RNN", "LSTM"])
    assert labels(ax) == ("time step", "norm of the gradient")
    assert (ax.get_yscale(), legend(ax)) == ("log", ["RNN", "LSTM"])
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 1e-6], [1, np.nan], [2, 1e-2], [3, 1]])
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [0.5, 0.25, np.nan, 2])
    single = viz.gradient_over_time([3.0, 4.0], xlabel="update")
    assert labels(single)[0] == "update"
    assert single.get_legend() is None
    np.testing.assert_array_equal(single.lines[0].get_ydata(), [3, 4])
    with pytest.raises(ValueError, match=r"^labels: 1 of them, expected one for each of 2 columns of norms"):
        viz.gradient_over_time(norms, ["RNN"])
    with pytest.raises(ValueError, match=r"^norms: shape \(1, 2, 3\), expected \(T,\) or \(T, K\)"):
        viz.gradient_over_time(np.ones((1, 2, 3)))


def test_attention():
    weights = np.array([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]])
    ax = viz.attention(weights, ["the", "black", "cat"], ["die", "Katze"])
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), weights)
    assert image.get_clim() == (0, 0.9)
    assert labels(ax) == ("attended to (key)", "attending (query)")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["the", "black", "cat"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["die", "Katze"]
    assert [(t.get_position(), t.get_text()) for t in ax.texts][1:3] == [((1, 0), "0.20"), ((2, 0), "0.10")]
    assert image.colorbar.ax.get_ylabel() == "weight"


def test_attention_of_one_query_and_of_many():
    single = viz.attention([0.25, 0.75])
    np.testing.assert_array_equal(single.images[0].get_array(), [[0.25, 0.75]])
    assert texts(single) == ["0.25", "0.75"]
    assert texts(viz.attention(np.ones((40, 50)) / 50)) == []
    with pytest.raises(ValueError, match=r"^y_labels: 2 of them, expected 1, as weights have"):
        viz.attention([0.25, 0.75], ["a", "b"], ["c", "d"])
    with pytest.raises(ValueError, match=r"^weights: shape \(0, 3\), expected .* with no size 0"):
        viz.attention(np.ones((0, 3)))


def test_hidden_states():
    y, _ = fastrnn.RNN(2, 3, rng=1)(np.random.default_rng(0).standard_normal((7, 4, 2), dtype=np.float32))
    ax = viz.hidden_states(y[:, 2], title="An RNN")
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), y[:, 2].T)  # units down, steps to the right
    top = float(np.abs(y[:, 2]).max())
    assert image.get_clim() == (-top, top)  # so that white is 0
    assert (*labels(ax), ax.get_title()) == ("time step", "unit", "An RNN")
    viz.hidden_states(np.zeros((1, 1))).figure.canvas.draw()
    with pytest.raises(ValueError, match=r"^y: shape \(7, 4, 3\), expected \(T, H\) of one sequence"):
        viz.hidden_states(y)
    with pytest.raises(TypeError, match=r"^y: dtype complex128, expected real numbers"):
        viz.hidden_states(np.ones((2, 2), complex))


@pytest.mark.parametrize(
    ("kind", "titles"),
    [
        (fastrnn.RNN, ["hidden state h"]),
        (fastrnn.GRU, ["reset gate r", "update gate z", "candidate n", "hidden state h"]),
        (
            fastrnn.LSTM,
            ["input gate i", "forget gate f", "candidate g", "output gate o", "cell state c", "hidden state h"],
        ),
    ],
    ids=["rnn", "gru", "lstm"],
)
@pytest.mark.parametrize("batch_first", [False, True])
def test_gates(kind, titles, batch_first):
    layer = kind(2, 3, num_layers=2, bidirectional=True, batch_first=batch_first, rng=1)
    x = np.random.default_rng(0).standard_normal((4, 5, 2), dtype=np.float32)
    *_, trace = layer(x, trace=True)
    figure = viz.gates(trace, layer=1, direction=1, sequence=2, batch_first=batch_first)
    panels = [ax for ax in figure.axes if ax.images and ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in panels] == titles
    for ax in panels:
        name = ax.get_title(loc="left")[-1]
        expected = trace[1][1][name]
        expected = expected[2] if batch_first else expected[:, 2]
        np.testing.assert_array_equal(ax.images[0].get_array(), expected.T)
        top = float(np.abs(expected).max())
        assert ax.images[0].get_clim() == ((0, 1) if name in "ifozr" else (-top, top))
        assert ax.get_ylabel() == "unit"
    assert panels[-1].get_xlabel() == "time step"
    figure.canvas.draw()


def test_gates_on_given_axes():
    *_, trace = fastrnn.GRU(2, 3, rng=1)(np.ones((4, 5, 2), np.float32), trace=True)
    figure, axes = pyplot.subplots(2, 2)
    assert viz.gates(trace, ax=axes.ravel()) is figure
    assert all(len(ax.images) == 1 for ax in axes.ravel())
    with pytest.raises(ValueError, match=r"^ax: 2 of them, expected 4, one for each of r, z, n, h"):
        viz.gates(trace, ax=axes[0])
    with pytest.raises(IndexError):
        viz.gates(trace, layer=1)


def test_forecast():
    actual, predicted = np.arange(6.0), np.array([4.5, 5.5])
    ax = viz.forecast(actual, predicted, interval=(predicted - 1, predicted + 2), split=4, unit="sales")
    assert labels(ax) == ("time step", "sales")
    assert legend(ax) == ["actual", "predicted", "interval", "end of training"]
    series, forecast, split = ax.lines
    np.testing.assert_array_equal(series.get_xydata(), np.stack([actual, actual], 1))
    np.testing.assert_array_equal(forecast.get_xydata(), [[4, 4.5], [5, 5.5]])
    assert list(split.get_xdata()) == [4, 4]
    (band,) = ax.collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices.tolist()}
    assert corners == {(4, 3.5), (5, 4.5), (4, 6.5), (5, 7.5)}
    ax.figure.canvas.draw()


def test_a_forecast_may_go_on_where_the_series_ends():
    ax = viz.forecast([1, 2, 3], [4, 5, 6, 7], start=3)
    assert legend(ax) == ["actual", "predicted"]
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), [3, 4, 5, 6])
    with pytest.raises(ValueError, match=r"^start: -1, with 4 predictions of 3 steps, expected 0 to 3"):
        viz.forecast([1, 2, 3], [4, 5, 6, 7])
    with pytest.raises(ValueError, match=r"^split: 4, expected 0 to 3"):
        viz.forecast([1, 2, 3], [3], split=4)
    with pytest.raises(ValueError, match=r"^interval\[1\]: shape \(2,\), expected \(M,\) = \(1,\)"):
        viz.forecast([1, 2, 3], [3], interval=([2], [4, 5]))
    with pytest.raises(ValueError, match=r"^interval: 3 arrays, expected the two of"):
        viz.forecast([1, 2, 3], [3], interval=([2], [4], [5]))


def test_unrolled():
    ax = viz.unrolled(fastrnn.LSTM(8, 16, num_layers=2), steps=3)
    shown = texts(ax)
    assert [t for t in shown if t.startswith("$x")] == [f"$x_{{{t}}}$ (8)" for t in range(3)]
    assert [t for t in shown if t.startswith("$y")] == [f"$y_{{{t}}}$ (16)" for t in range(3)]
    assert shown.count("LSTM 0") == shown.count("LSTM 1") == 3
    assert shown.count("$h_0$ (16)\n$c_0$ (16)") == 2
    assert len(arrows(ax)) == 3 * 3 + 2 * 4  # up from x to y by two layers, and along each layer
    ax.figure.canvas.draw()


def test_unrolled_in_both_directions():
    ax = viz.unrolled(fastrnn.GRU(8, 16, bidirectional=True, merge="sum"), steps=2)
    cells = [t for t in ax.texts if t.get_text() == "GRU"]
    assert len(cells) == 4
    assert texts(ax).count("sum") == 2
    assert {"$h_0$ (16)", "$h_n$ (16)", "$y_{1}$ (16)"} <= set(texts(ax))
    assert len(arrows(ax)) == 2 * 5 + 2 * 3
    ends = [(t.xyann, t.xy) for t in arrows(ax)]
    along = [(a[0], b[0]) for a, b in ends if a[1] == b[1]]
    assert sorted(b > a for a, b in along) == [False] * 3 + [True] * 3


def test_unrolled_stacks_and_projections():
    stack = fastrnn.Stack([fastrnn.LSTM(8, 16, proj_size=5), fastrnn.RNN(5, 10, num_layers=2)])
    shown = texts(viz.unrolled(stack, steps=1))
    assert {"LSTM", "RNN 0", "RNN 1", "$x_{0}$ (8)", "$y_{0}$ (10)", "$h_0$ (5)\n$c_0$ (16)", "$h_0$ (10)"} < set(shown)
    with pytest.raises(TypeError, match=r"^layer: Linear, expected a recurrent layer or a Stack"):
        viz.unrolled(fastrnn.nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"^steps: 0, expected a whole number from 1"):
        viz.unrolled(fastrnn.RNN(2, 3), steps=0)


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: viz.loss_history(COLUMNS, ax=ax),
        lambda ax: viz.gradient_flow({"a": 1.0}, ax=ax),
        lambda ax: viz.gradient_over_time([1.0, 2.0], ax=ax),
        lambda ax: viz.attention([0.5, 0.5], ax=ax),
        lambda ax: viz.hidden_states([[1.0, 2.0]], ax=ax),
        lambda ax: viz.forecast([1.0, 2.0], [2.0], ax=ax),
        lambda ax: viz.unrolled(fastrnn.RNN(2, 3), ax=ax),
    ],
    ids=["loss", "flow", "over_time", "attention", "hidden", "forecast", "unrolled"],
)
def test_pictures_go_where_they_are_told(draw):
    figure, (left, right) = pyplot.subplots(1, 2)
    assert draw(right) is right
    assert not left.has_data()
    assert not left.texts
    assert pyplot.get_fignums() == [figure.number]


def test_bad_input_leaves_no_figure_behind():
    for bad in (
        lambda: viz.hidden_states([1.0]),
        lambda: viz.attention([1.0], ["a", "b"]),
        lambda: viz.forecast([1.0], [1.0], split=2),
        lambda: viz.unrolled(fastrnn.nn.Linear(2, 3)),
        lambda: viz.gradient_over_time([]),
    ):
        with pytest.raises((ValueError, TypeError)):
            bad()
    assert pyplot.get_fignums() == []
