"""The forecaster: what it sees and learns, how it goes on, intervals, new steps, bad input."""

import math
import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn, which the extra sklearn installs, is not there")
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fastrnn.interop.sklearn import RNNForecaster


def waves(S, noise=0.0, seed=0):
    """A period of 10 steps, far from zero."""
    return 100 + 20 * np.sin(np.arange(S) * 2 * np.pi / 10) + noise * np.random.default_rng(seed).standard_normal(S)


def forecaster(**settings):
    small = {"window": 6, "cell": "rnn", "hidden_size": 8, "max_iter": 2, "random_state": 0}
    return RNNForecaster(**small | settings)


@pytest.fixture(scope="module")
def pair():
    """Two features of 60 steps, the second a thousandth of the first; a forecaster of both; what it held out."""
    series = np.column_stack([waves(60, 2), waves(60, 3, seed=1) / 1000])
    return series, forecaster(max_iter=4, early_stopping=True, validation_fraction=0.25).fit(series), 14  # of 54


def test_it_continues_a_series():
    series = waves(160)
    fitted = forecaster(window=10, hidden_size=16, max_iter=60, learning_rate_init=0.01).fit(series[:130])
    assert fitted.predict(30).shape == (30,)
    assert fitted.score(series[130:]) > 0.95
    assert fitted.score(series[130:] + 5) < fitted.score(series[130:])
    phase = waves(14)  # of another series, which ends elsewhere
    np.testing.assert_allclose(fitted.predict(16, history=phase), waves(30)[14:], atol=8)


def test_each_step_is_told_from_those_before(pair):
    series, fitted, held_out = pair
    training = series[: 60 - held_out]
    np.testing.assert_allclose(fitted.mean_, training.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(fitted.scale_, training.std(axis=0), rtol=1e-12)
    steps = list((series - fitted.mean_) / fitted.scale_)
    for _ in range(4):
        steps.append(fitted.model_(np.array(steps[-6:])[None])[0])
    expected = np.array(steps[-4:]) * fitted.scale_ + fitted.mean_
    np.testing.assert_allclose(fitted.predict(4), expected, rtol=1e-10)
    np.testing.assert_array_equal(fitted.predict(), fitted.predict(4)[:1])
    np.testing.assert_array_equal(fitted.predict(4, history=series[20:]), fitted.predict(4))
    assert fitted.n_features_in_ == 2


def test_what_is_held_out_is_not_trained_on(pair):
    series, fitted, held_out = pair
    other, wrong = series.copy(), series.copy()
    other[60 - held_out :] += 3
    wrong[60 - held_out - 1 :] += 3
    one, two, three = (clone(fitted).set_params(max_iter=1).fit(s) for s in (series, other, wrong))
    np.testing.assert_array_equal(one.model_[-1].weight, two.model_[-1].weight)
    assert one.history_.epochs[0]["val_loss"] != two.history_.epochs[0]["val_loss"]
    assert not np.array_equal(one.model_[-1].weight, three.model_[-1].weight)
    stopped = clone(fitted).set_params(max_iter=300, n_iter_no_change=2, learning_rate_init=0.1).fit(series)
    assert stopped.n_iter_ == stopped.history_.best_epoch + 2 < 300
    everything = clone(fitted).set_params(early_stopping=False).fit(series)
    np.testing.assert_allclose(everything.mean_, series.mean(axis=0), rtol=1e-12)
    assert "val_loss" not in everything.history_.epochs[0]


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_intervals_are_the_errors_of_the_held_out_part(pair, coverage):
    series, fitted, held_out = pair
    y, low, high = fitted.predict(3, coverage=coverage)
    np.testing.assert_array_equal(y, fitted.predict(3))
    for h in range(3):
        errors = []
        for start in range(60 - held_out, 60 - h):
            told = fitted.predict(h + 1, history=series[:start])[-1]
            errors.append(np.abs(told - series[start + h]))
        n = held_out - h
        assert len(errors) == n
        width = np.sort(errors, axis=0)[math.ceil((n + 1) * coverage) - 1]
        np.testing.assert_allclose(high[h] - y[h], width, rtol=1e-9)
        np.testing.assert_allclose(y[h] - low[h], width, rtol=1e-9)


def test_intervals_hold_what_they_promise():
    rng = np.random.default_rng(2)
    series = np.zeros(1000)
    for t in range(1, 1000):
        series[t] = 0.8 * series[t - 1] + rng.standard_normal()
    fitted = forecaster(max_iter=6, validation_fraction=0.5).fit(series[:600])
    inside = []
    for t in range(600, 996, 4):
        _, low, high = fitted.predict(3, history=series[:t], coverage=0.8)
        inside.append((low <= series[t : t + 3]) & (series[t : t + 3] <= high))
    assert (np.abs(np.mean(inside, axis=0) - 0.8) < 0.1).all()


def test_new_steps():
    series = waves(80, 2)
    whole = forecaster(early_stopping=False, max_iter=1).fit(series[:50])
    parts = forecaster().partial_fit(series[:50])
    np.testing.assert_array_equal(whole.predict(5), parts.predict(5))
    assert parts.partial_fit(series[50:51]) is parts  # one step is enough
    parts.partial_fit(series[51:])
    assert parts.n_iter_ == 3
    assert [record["epoch"] for record in parts.history_.epochs] == [1, 2, 3]
    np.testing.assert_array_equal(parts.predict(5), parts.predict(5, history=series))
    assert parts.mean_ == whole.mean_
    copy = pickle.loads(pickle.dumps(parts))
    for one in (parts, copy):
        one.partial_fit(waves(10))
    np.testing.assert_array_equal(copy.predict(5), parts.predict(5))
    with pytest.raises(ValueError, match=r"^coverage: given, but nothing was held out"):
        parts.predict(2, coverage=0.5)
    fitted = forecaster().fit(series)
    before, _, high = fitted.predict(1, coverage=0.5)
    after, _, moved = fitted.partial_fit(waves(5)).predict(1, coverage=0.5)
    assert moved - after == pytest.approx(high - before, rel=0.5)  # the held-out part is still that of fit


def test_warm_start():
    series = waves(60, 2)
    fitted = forecaster(warm_start=True, early_stopping=False).fit(series)
    model, loss = fitted.model_, fitted.history_.epochs[0]["loss"]
    fitted.fit(series)
    assert fitted.model_ is model
    assert fitted.history_.epochs[0]["loss"] < loss


def test_a_window_stays_as_it_is():
    series = waves(60, 2)
    fitted = forecaster(warm_start=True).fit(series)
    before = fitted.predict(2, coverage=0.5)
    fitted.set_params(window=3)
    np.testing.assert_array_equal(fitted.predict(2, coverage=0.5), before)
    for go_on in (fitted.fit, fitted.partial_fit):
        with pytest.raises(ValueError, match=r"^window: 3, expected 6, for the network"):
            go_on(series)


def test_forms_of_a_series():
    pandas = pytest.importorskip("pandas")
    series = waves(40, 1)
    expected = forecaster().fit(series).predict(3)
    for same in (series.tolist(), pandas.Series(series), series[:, None], pandas.DataFrame({"a": series})):
        told = forecaster().fit(same).predict(3)
        assert told.shape == ((3, 1) if np.ndim(same) == 2 else (3,))
        np.testing.assert_array_equal(told.ravel(), expected)
    single = forecaster().fit(series.astype(np.float32))
    assert single.predict(3, coverage=0.5)[1].dtype == np.float32
    assert single.layer_.dtype == np.float32
    np.testing.assert_allclose(single.predict(3), expected, rtol=1e-3)
    assert forecaster(early_stopping=False).fit(np.full(7, 5.0)).predict(2) == pytest.approx([5, 5], abs=1)


def test_scales_of_what_never_changes_and_of_single_precision():
    series = np.full(60, 0.1)  # whose computed deviation is not 0
    series[-5:] = 0.2  # held out
    fitted = forecaster().fit(series)
    assert fitted.scale_ == 1
    assert fitted.history_.epochs[-1]["val_loss"] < 10
    long = np.random.default_rng(0).normal(1000, 1, (100_000, 2)).astype(np.float32)
    fitted = forecaster()
    fitted._set_scale(long)
    np.testing.assert_allclose(fitted.mean_, long.mean(axis=0, dtype=np.float64), rtol=1e-7)
    np.testing.assert_allclose(fitted.scale_, long.std(axis=0, dtype=np.float64), rtol=1e-6)
    assert fitted.mean_.dtype == fitted.scale_.dtype == np.float32


SERIES = waves(40)


@pytest.mark.parametrize(
    ("settings", "series", "message"),
    [
        ({"window": 0}, SERIES, r"^window: 0"),
        ({"cell": "tree"}, SERIES, r"^cell: 'tree'"),
        ({}, SERIES[:6], r"^series: 6 steps, expected more after the first window = 6, some of them held out"),
        ({}, SERIES[:8], r"^series: 8 steps, expected more"),
        ({"early_stopping": False}, SERIES[:6], r"^series: 6 steps, expected more after the first window = 6$"),
        ({}, SERIES.reshape(2, 5, 4), r"dim 3|^series: shape"),
        ({}, np.append(SERIES, np.nan), "Input series contains NaN"),
        ({}, ["a", "b"], "could not convert string"),
    ],
)
def test_bad_series(settings, series, message):
    with pytest.raises(ValueError, match=message):
        forecaster(**settings).fit(series)


def test_a_fit_that_fails_changes_nothing(pair):
    series, fitted, _ = pair
    fitted, before = clone(fitted).fit(series), fitted.predict(3)
    with pytest.raises(ValueError, match=r"^series: 5 steps"):
        fitted.fit(series[:5, 0])
    np.testing.assert_array_equal(fitted.predict(3), before)
    assert fitted.n_features_in_ == 2


def test_bad_arguments(pair):
    series, fitted, _ = pair
    for arguments, message in (
        ({"horizon": 0}, r"^horizon: 0, expected a whole number from 1"),
        ({"history": series[:5]}, r"^history: 5 steps, expected at least window = 6"),
        ({"history": series[:, 0]}, r"^history: 1 features, expected 2 as in training"),
        ({"coverage": 1.0}, r"^coverage: 1.0, expected a number between 0 and 1"),
        ({"coverage": "most"}, r"^coverage: 'most', expected a number between 0 and 1"),
        ({"horizon": 7, "coverage": 0.9}, r"^coverage: 0.9, with horizon: 7, but 14 steps were held out, expected 15$"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted.predict(**arguments)
    with pytest.raises(TypeError, match=r"(?s)^horizon: array.*, expected a whole number"):
        fitted.predict(series)
    with pytest.raises(ValueError, match=r"^series: 1 features"):
        fitted.score(series[:, 0])
    with pytest.raises(ValueError, match=r"^series: 6 steps, expected more than window = 6 at first"):
        forecaster().partial_fit(series[:6])
    for method in (forecaster().predict, lambda: forecaster().score(series)):
        with pytest.raises(NotFittedError):
            method()
