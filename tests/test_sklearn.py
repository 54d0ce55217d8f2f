"""The estimators as scikit-learn sees them: its own checks, pipelines, searches, copies, processes and threads."""

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn, which the extra sklearn installs, is not there")
import joblib
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator

from fastrnn.interop.sklearn import RNNClassifier, RNNForecaster, RNNRegressor


def table(n=60, T=7, seed=0):
    """Series that rise or fall, far from zero and far apart; the names of what they do; how steeply."""
    rng = np.random.default_rng(seed)
    slope = rng.uniform(-1, 1, n)
    X = 50 + 10 * (slope[:, None] * np.arange(T) / T + 0.1 * rng.standard_normal((n, T)))
    return X, np.where(slope > 0, "rises", "falls"), slope


# Few epochs of small networks, as many as the checks of what is learned need.
@pytest.mark.parametrize(
    "estimator",
    [
        RNNClassifier(hidden_size=8, bidirectional=True, max_iter=8, learning_rate_init=0.02),
        RNNRegressor(cell="rnn", hidden_size=16, max_iter=15, learning_rate_init=0.01),
    ],
    ids=["classifier", "regressor"],
)
def test_the_checks_of_scikit_learn_pass(estimator):
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    wrong = {r["check_name"]: r["exception"] for r in results if r["status"] not in ("passed", "skipped")}
    assert not wrong
    assert len(results) >= 45
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}


def test_what_they_say_of_themselves():
    assert is_classifier(RNNClassifier())
    assert is_regressor(RNNRegressor())
    for estimator in (RNNClassifier(), RNNRegressor()):
        tags = get_tags(estimator).input_tags
        assert (tags.two_d_array, tags.three_d_array, tags.sparse, tags.allow_nan) == (True, True, False, False)
    tags = get_tags(RNNForecaster()).input_tags
    assert (tags.one_d_array, tags.two_d_array) == (True, False)
    assert set(RNNClassifier().get_params()) == set(RNNRegressor().get_params())
    assert set(RNNForecaster().get_params()) == {*RNNRegressor().get_params(), "window"}


def test_a_pipeline_scales_and_a_search_searches():
    X, y, slope = table()
    pipeline = make_pipeline(StandardScaler(), RNNClassifier(max_iter=15, hidden_size=8, random_state=0))
    grid = {"rnnclassifier__cell": ["rnn", "gru"], "rnnclassifier__pooling": ["last", "attention"]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    assert search.best_score_ > 0.85
    assert set(search.predict(X)) == {"rises", "falls"}
    assert search.predict_proba(X).shape == (60, 2)
    regressor = RNNRegressor(max_iter=30, random_state=0)
    regressor = TransformedTargetRegressor(regressor, transformer=StandardScaler())
    regressor = make_pipeline(StandardScaler(), regressor).fit(X, 1000 + 100 * slope)
    assert regressor.score(X, 1000 + 100 * slope) > 0.8


def test_searches_take_arrays_of_three_axes_and_lists():
    X, y, _ = table()
    X = (X - 50) / 10
    scores = [
        cross_val_score(RNNClassifier(max_iter=10, random_state=0), samples, y, cv=3)
        for samples in (X, X[:, :, None], list(X), list(X[:, :, None]))
    ]
    np.testing.assert_array_equal(scores[1], scores[0])
    np.testing.assert_array_equal(scores[3], scores[2])  # lists meet in other batches than arrays
    assert min(map(np.mean, scores)) > 0.8


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_searches_run_side_by_side(backend):
    X, y, _ = table(n=40)
    X = [x[: 4 + n % 4] - 50 for n, x in enumerate(X)]
    space = {"hidden_size": [4, 8], "cell": ["gru", "rnn"]}
    estimator = RNNClassifier(max_iter=5, random_state=0)
    alone = GridSearchCV(estimator, space, cv=2).fit(X, y)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        both = GridSearchCV(estimator, space, cv=2).fit(X, y)
        some = RandomizedSearchCV(estimator, space, n_iter=2, cv=2, random_state=0).fit(X, y)
    np.testing.assert_array_equal(both.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])
    assert both.best_params_ == alone.best_params_
    np.testing.assert_array_equal(both.predict_proba(X), alone.predict_proba(X))
    assert set(some.best_params_) == set(space)


def test_a_search_of_a_forecaster_keeps_the_order_of_time():
    series = np.sin(np.arange(150) * 2 * np.pi / 10)
    forecaster = RNNForecaster(cell="rnn", hidden_size=16, max_iter=40, early_stopping=False, random_state=0)
    search = GridSearchCV(forecaster, {"window": [1, 10]}, cv=TimeSeriesSplit(2, test_size=15), n_jobs=2).fit(series)
    assert search.best_params_ == {"window": 10}  # of one step alone nobody can tell whether it goes up or down
    assert search.best_score_ > 0.8
    assert search.predict(4).shape == (4,)


ESTIMATORS = {
    "classifier": (RNNClassifier(max_iter=3, bidirectional=True, dropout=0.3, num_layers=2, random_state=0), 1),
    "regressor": (RNNRegressor(max_iter=3, pooling="attention", dropout=0.3, random_state=0), 2),
    "stopped": (RNNRegressor(max_iter=3, early_stopping=True, random_state=0), 2),
}


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_copies_and_runs_are_alike_to_the_bit(kind):
    estimator, which = ESTIMATORS[kind]
    X, y = table()[0] - 50, table()[which]
    first, second = (clone(estimator).fit(X, y) for _ in range(2))
    other = clone(estimator).set_params(random_state=1).fit(X, y)

    def outputs(fitted):
        return (fitted.predict_proba if which == 1 else fitted.predict)(X)

    np.testing.assert_array_equal(outputs(first), outputs(second))
    assert not np.array_equal(outputs(first), outputs(other))
    again = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(outputs(again), outputs(first))
    for copy in (first, again):  # the copy also goes on as the first does
        copy.partial_fit(X, y)
    np.testing.assert_array_equal(outputs(again), outputs(first))
    assert not np.array_equal(outputs(again), outputs(second))
    assert not hasattr(clone(first), "model_")


def test_numpys_legacy_generator_is_a_source_of_chance():
    X, _, y = table(20)
    state = np.random.RandomState(3)
    first, second = (RNNRegressor(max_iter=1, random_state=state).fit(X, y).predict(X) for _ in range(2))
    assert not np.array_equal(first, second)
    state = np.random.RandomState(3)
    np.testing.assert_array_equal(RNNRegressor(max_iter=1, random_state=state).fit(X, y).predict(X), first)
