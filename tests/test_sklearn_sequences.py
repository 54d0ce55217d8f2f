"""What the estimators make of sequences: their forms, the network and its losses, weights, stopping, bad input."""

import numpy as np
import pytest

import fastrnn
from fastrnn import nn

pytest.importorskip("sklearn", reason="scikit-learn, which the extra sklearn installs, is not there")
from nn_helpers import numeric_gradient
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

from fastrnn.interop._sklearn_network import WeightedCrossEntropy, WeightedSquares
from fastrnn.interop.sklearn import RNNClassifier, RNNRegressor


def ragged(n=50, features=2, seed=0, shortest=1):
    """Sequences, and the sums of their first feature."""
    rng = np.random.default_rng(seed)
    X = [rng.uniform(-1, 1, (length, features)) for length in rng.integers(shortest, 9, n)]
    return X, np.array([x[:, 0].sum() for x in X])


def regressor(**settings):
    return RNNRegressor(**{"hidden_size": 8, "max_iter": 2, "random_state": 0} | settings)


def classifier(**settings):
    return RNNClassifier(**{"hidden_size": 8, "max_iter": 2, "random_state": 0} | settings)


# --- the network -----------------------------------------------------------------------------------------------------

NETWORKS = {
    "lstm-last": ({"cell": "lstm"}, nn.FinalState),
    "gru-mean": ({"pooling": "mean", "num_layers": 2}, nn.MeanOverTime),
    "rnn-both": ({"cell": "rnn", "bidirectional": True, "dropout": 0.2}, nn.FinalState),
    "lstm-attention": ({"cell": "lstm", "pooling": "attention", "bidirectional": True}, nn.AttentionPooling),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_network_and_its_forecasts(kind):
    settings, pool = NETWORKS[kind]
    X, y = ragged(300)  # more than run side by side
    fitted = regressor(max_iter=1, **settings).fit(X, y)
    *reading, dropout, head = fitted.model_
    layer = fitted.layer_
    assert layer is getattr(reading[0], "layer", reading[0])
    assert type(layer) is {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU, "rnn": fastrnn.RNN}[settings.get("cell", "gru")]
    assert (layer.hidden_size, layer.num_layers) == (8, settings.get("num_layers", 1))
    assert type(reading[-1]) is pool
    assert dropout.p == settings.get("dropout", 0)
    assert head.in_features == 8 * (1 + settings.get("bidirectional", False))
    predicted = fitted.predict(X)
    with fastrnn.config_context(engine="reference"):
        each = [fitted.model_(x[None])[0, 0] for x in X]
    np.testing.assert_allclose(predicted, each, rtol=1e-10, atol=1e-12)
    same = np.stack([x[:3] for x in X if len(x) >= 3])
    np.testing.assert_allclose(fitted.predict(same), fitted.predict(list(same)), rtol=1e-12, atol=1e-14)


def test_training_is_that_of_fit():
    X, y = ragged(20, shortest=4)
    X = np.stack([x[:4] for x in X])
    fitted = regressor(max_iter=3, batch_size=20, weight_decay=0.1, max_norm=0.05).fit(X, y)
    model = regressor(max_iter=1, learning_rate_init=1e-300, batch_size=20).fit(X, y).model_  # as it begins
    optimiser = nn.AdamW(model, 0.005, weight_decay=0.1)
    options = {"loss": nn.MSELoss(), "optimiser": optimiser, "epochs": 3, "batch_size": 20, "max_norm": 0.05}
    history = nn.fit(model, X, y[:, None], shuffle=False, **options)
    for one, other in zip(fitted.model_.parameters(), model.parameters(), strict=True):
        np.testing.assert_allclose(one.value, other.value, rtol=1e-9, atol=1e-12)
    losses = [record["loss"] for record in fitted.history_.epochs]
    np.testing.assert_allclose(losses, [record["loss"] for record in history.epochs], rtol=1e-10)
    assert fitted.n_iter_ == 3


def test_losses_are_those_of_the_package_weighted():
    rng = np.random.default_rng(0)
    outputs, labels, values = rng.standard_normal((6, 3)), rng.integers(0, 3, 6), rng.standard_normal((6, 3))
    pairs = (
        (WeightedCrossEntropy(), nn.CrossEntropyLoss(), labels, labels[:, None]),
        (WeightedSquares(), nn.MSELoss(), values, values),
    )
    for loss, plain, y, columns in pairs:
        value, cache = loss.forward(outputs, np.column_stack([columns, np.ones(6)]))
        expected, plain_cache = plain.forward(outputs, y)
        assert value == pytest.approx(expected, rel=1e-14)
        np.testing.assert_allclose(loss.backward(cache), plain.backward(plain_cache), atol=1e-15)
        weighted = np.column_stack([columns, rng.uniform(0, 3, 6)])
        value, cache = loss.forward(outputs, weighted)
        each = [plain.forward(outputs[n : n + 1], y[n : n + 1])[0] for n in range(6)]
        assert value == pytest.approx(np.mean(weighted[:, -1] * each), rel=1e-12)
        numeric = numeric_gradient(lambda loss=loss, y=weighted: loss.forward(outputs, y)[0], outputs)
        np.testing.assert_allclose(loss.backward(cache), numeric, atol=1e-8)
        assert loss.forward(outputs.astype(np.float32), weighted)[1].dtype == np.float32


# --- samples ---------------------------------------------------------------------------------------------------------


def test_it_learns_from_ragged_sequences():
    X, y = ragged(200)
    fitted = regressor(max_iter=40, hidden_size=16, learning_rate_init=0.01).fit(X, y)
    unseen, sums = ragged(100, seed=1)
    assert fitted.score(unseen, sums) > 0.9
    labels = np.where(y > 0, "more", "less").astype(object)
    fitted = classifier(max_iter=15, hidden_size=16, learning_rate_init=0.01).fit(X, labels)
    assert fitted.score(unseen, np.where(sums > 0, "more", "less")) > 0.85
    assert list(fitted.classes_) == ["less", "more"]
    probabilities = fitted.predict_proba(unseen)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(fitted.classes_[probabilities.argmax(axis=1)], fitted.predict(unseen))


def test_forms_of_the_same_samples():
    X, y = ragged(12, features=1, shortest=5)
    table = np.stack([x[:5, 0] for x in X])
    steps = table[:, :, None]
    forms = {
        "table": (table, table.tolist()),
        "steps": (steps, steps.tolist()),
        "list": (list(steps), list(table), tuple(steps), [x.tolist() for x in steps[:11]] + [steps[11, :4].tolist()]),
    }
    objects = np.empty(12, object)
    objects[:] = list(steps)
    forms["list"] += (objects,)
    for kind, same in forms.items():
        for k, samples in enumerate(same):
            fitted = regressor().fit(samples, y)
            assert fitted.n_features_in_ == (5 if kind == "table" else 1)
            if kind != "list" or k != 3:
                np.testing.assert_array_equal(fitted.predict(samples), regressor().fit(same[0], y).predict(same[0]))
            for others in (steps[:, :2], list(table[:, :2]), [x[: n % 4] for n, x in enumerate(steps)]):
                assert fitted.predict(others).shape == (12,)
    fitted = regressor().fit(steps, y)
    np.testing.assert_array_equal(fitted.predict(table), fitted.predict(steps))


def test_a_column_of_sequences():
    pandas = pytest.importorskip("pandas")
    X, y = ragged(20)
    frame = pandas.DataFrame({"x": X, "y": y}, index=np.arange(5, 25))
    fitted = regressor().fit(frame["x"], frame["y"])
    np.testing.assert_array_equal(fitted.predict(frame["x"][3:]), regressor().fit(X, y).predict(X)[3:])
    scores = cross_val_score(regressor(), frame["x"], frame["y"], cv=2)
    np.testing.assert_array_equal(scores, cross_val_score(regressor(), X, y, cv=2))


def test_tables_remember_their_columns_until_sequences_come():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.default_rng(0).standard_normal((8, 3)), columns=["a", "b", "c"])
    y = np.arange(8) % 2
    fitted = classifier().fit(frame, y)
    assert list(fitted.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(frame[["b", "a", "c"]])
    with pytest.raises(ValueError, match="X has 2 features, but RNNClassifier is expecting 3"):
        classifier().fit(frame.to_numpy(), y).predict(frame.to_numpy()[:, :2])
    fitted.fit(frame.to_numpy()[:, :, None], y)
    assert not hasattr(fitted, "feature_names_in_")
    assert fitted.n_features_in_ == 1


def test_float_types():
    X, y = ragged(10, shortest=3)
    for dtype, expected in ((np.float32, np.float32), (np.float64, np.float64), (np.float16, np.float64), (int, float)):
        samples = [x.astype(dtype) for x in X]
        fitted = regressor().fit(samples, y)
        assert fitted.predict(X).dtype == fitted.layer_.dtype == expected
        fitted.partial_fit(X, y)
        array = np.stack([x[:3] for x in samples])
        assert regressor().fit(array, y.astype(np.float32)).predict(array).dtype == expected
    mixed = [X[0].astype(np.float32), *X[1:]]
    assert regressor().fit(mixed, y).predict(mixed).dtype == np.float64


def test_empty_and_single_sequences():
    X, y = ragged(6)
    X[0], X[3] = np.zeros((0, 2)), np.zeros((1, 2))
    for settings, _ in NETWORKS.values():
        fitted = regressor(**settings).fit(X, y)
        alone = fitted.predict([X[0]])
        np.testing.assert_allclose(alone, fitted.predict(X)[:1], rtol=1e-12)
        np.testing.assert_allclose(alone, fitted.model_[-1].bias, rtol=1e-12)
        assert regressor(**settings).fit(X[:1], y[:1]).predict(X[:1]).shape == (1,)
    assert classifier().fit(np.ones((1, 1)), ["one"]).predict([[5.0]]) == ["one"]


def test_several_targets():
    X, y = ragged(200)
    both = np.column_stack([y, [len(x) / 4 for x in X]])
    fitted = regressor(max_iter=40, hidden_size=16, learning_rate_init=0.01).fit(X, both)
    assert fitted.predict(X).shape == (200, 2)
    assert fitted.score(X, both) > 0.9
    assert regressor().fit(X, y[:, None]).predict(X).shape == (200, 1)
    with pytest.raises(ValueError, match=r"^y: shape \(200,\), expected \(n, 2\) as before"):
        fitted.partial_fit(X, y)


# --- weights, stopping, going on -------------------------------------------------------------------------------------


def test_weights_are_repetitions_and_nothing():
    X, y = ragged(8)
    weights = np.array([0, 1, 2, 3, 0, 1, 1, 2])
    repeated = [x for x, w in zip(X, weights, strict=True) for _ in range(w)]
    for make, targets in ((regressor, y), (classifier, np.digitize(y, [-0.5, 0.5]))):
        weighted = make(max_iter=5).fit(X, targets, sample_weight=weights)
        plain = make(max_iter=5).fit(repeated, targets.repeat(weights))
        output = "predict_proba" if make is classifier else "predict"
        np.testing.assert_allclose(getattr(weighted, output)(X), getattr(plain, output)(X), rtol=1e-8)
        scaled = make(max_iter=5).fit(X, targets, sample_weight=[10 * w for w in weights])
        np.testing.assert_allclose(getattr(scaled, output)(X), getattr(plain, output)(X), rtol=1e-8)
        going_on = make().partial_fit(X, targets, **({"classes": [0, 1, 2]} if make is classifier else {}))
        before = going_on.predict(X)
        going_on.partial_fit(X, targets, sample_weight=1 - np.sign(weights))
        assert make is classifier or not np.array_equal(going_on.predict(X), before)
    only = classifier(max_iter=1).fit(X, [0, 1] * 4, sample_weight=[0, 1] * 4)
    assert list(only.classes_) == [1]  # what does not count is not there


def test_early_stopping_keeps_the_best_epoch(capsys):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 4, 2)), np.where(rng.random(40) < 0.25, "few", "many")  # nothing to be learnt
    settings = {"max_iter": 200, "early_stopping": True, "n_iter_no_change": 3, "learning_rate_init": 0.05}
    fitted = classifier(validation_fraction=0.2, verbose=True, **settings).fit(X, y)
    losses = [record["val_loss"] for record in fitted.history_.epochs]
    assert fitted.n_iter_ == len(losses) == fitted.history_.best_epoch + 3 < 200
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == fitted.n_iter_
    assert lines[0].startswith("epoch 1: loss 0.")
    assert ", val_loss " in lines[0]
    best = classifier(validation_fraction=0.2, **settings | {"max_iter": fitted.history_.best_epoch}).fit(X, y)
    np.testing.assert_array_equal(best.predict_proba(X), fitted.predict_proba(X))
    unlucky = classifier(**settings)
    with pytest.raises(ValueError, match=r"least populated class.*only one"):  # each is held out in proportion
        unlucky.fit(X, ["only one", *["many"] * 39])
    assert unlucky.partial_fit(X, ["many"] * 40, ["many"]).n_iter_ == 1


def test_partial_fit_is_an_epoch_after_the_other():
    X, y = ragged(40)
    whole, parts = regressor(max_iter=4).fit(X, y), regressor()
    for _ in range(4):
        assert parts.partial_fit(X, y) is parts
    np.testing.assert_array_equal(whole.predict(X), parts.predict(X))
    assert parts.n_iter_ == 4
    assert [record["epoch"] for record in parts.history_.epochs] == [1, 2, 3, 4]
    assert [r["loss"] for r in parts.history_.epochs] == [r["loss"] for r in whole.history_.epochs]
    labels = np.where(y > 0, "b", "a")
    fitted = classifier().partial_fit(X[:20], labels[:20], classes=["c", "b", "a"])
    fitted.partial_fit(X[20:], labels[20:])
    fitted.partial_fit(X, labels, classes=["a", "b", "c"])
    assert fitted.predict_proba(X).shape == (40, 3)
    assert fitted.n_iter_ == 3
    for arguments, message in (
        ((X, labels, ["a", "b"]), r"^classes: \['a' 'b'\], expected \['a' 'b' 'c'\] as before"),
        ((X[:2], ["b", "d"]), r"^y: labels \[\"'d'\"\], expected only those known"),
        ((np.ones((40, 3, 3)), labels), r"^X: 3 features in each step, expected 2 as in training"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted.partial_fit(*arguments)
    with pytest.raises(ValueError, match=r"^classes: None, expected all labels in the first call"):
        classifier().partial_fit(X, labels)
    fitted = classifier()
    with pytest.raises(ValueError, match=r"^y: labels \[\"'b'\"\]"):
        fitted.partial_fit(X, labels, classes=["a"])
    assert fitted.partial_fit(X, labels, classes=["a", "b"]).n_iter_ == 1  # nothing is left of the first try


def test_warm_start():
    X, y = ragged(30)
    fitted = regressor(warm_start=True, max_iter=2).fit(X, y)
    losses = [record["loss"] for record in fitted.history_.epochs]
    model = fitted.model_
    fitted.set_params(max_iter=3).fit(X, y)
    assert fitted.model_ is model
    assert fitted.n_iter_ == 3
    assert fitted.history_.epochs[0]["loss"] < losses[0]
    with pytest.raises(ValueError, match=r"^X: 3 features in each step, expected 2"):
        fitted.fit(np.ones((30, 2, 3)), y)
    assert fitted.set_params(warm_start=False).fit(X, y).model_ is not model


def test_changed_parameters_are_heeded_or_refused():
    X, y = ragged(30)
    for name, value in (("learning_rate_init", 0.5), ("weight_decay", 0.9), ("max_norm", 1e-3), ("batch_size", 7)):
        changed, same = (regressor().partial_fit(X, y) for _ in range(2))
        changed.set_params(**{name: value}).partial_fit(X, y)
        assert not np.array_equal(changed.predict(X), same.partial_fit(X, y).predict(X)), name
    fitted = regressor(warm_start=True).fit(X, y)
    for name, value in (("hidden_size", 9), ("cell", "lstm"), ("pooling", "mean"), ("dropout", 0.5)):
        before = getattr(fitted, name)
        fitted.set_params(**{name: value})
        for go_on in (fitted.fit, fitted.partial_fit):
            with pytest.raises(ValueError, match=rf"^{name}: {value!r}, expected {before!r}, for"):
                go_on(X, y)
        assert fitted.set_params(warm_start=False).fit(X, y).layer_.hidden_size == fitted.hidden_size
        fitted.set_params(warm_start=True)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_a_fit_that_fails_changes_nothing():
    X, y = ragged(30)
    labels = np.where(y > 0, "b", "a")
    estimator = classifier(early_stopping=True)
    with pytest.raises(ValueError, match="least populated class"):
        estimator.fit(X, ["only one", *labels[1:]])
    with pytest.raises(NotFittedError):
        estimator.predict(X)
    estimator.fit(X, labels)
    before = estimator.predict_proba(X)
    for samples, targets, message in (
        (X, ["only one", *labels[1:]], "least populated class"),
        (np.ones((30, 4)), labels[:3], "inconsistent numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            estimator.fit(samples, targets)
        np.testing.assert_array_equal(estimator.predict_proba(X), before)
        assert list(estimator.classes_) == ["a", "b"]
        assert estimator.n_features_in_ == 2


X, Y = np.ones((4, 3)), np.array([0.0, 1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cell": "tree"}, r"^cell: 'tree', expected one of 'gru', 'lstm', 'rnn'"),
        ({"pooling": "first"}, r"^pooling: 'first'"),
        ({"hidden_size": 0}, r"^hidden_size: 0"),
        ({"num_layers": 0}, r"^num_layers: 0"),
        ({"dropout": 1.5}, r"^dropout: 1.5"),
        ({"dropout": None}, r"^dropout: None, expected a probability from 0 to 1"),
        ({"weight_decay": "small"}, r"^weight_decay: 'small', expected a number from 0"),
        ({"max_iter": 0}, r"^max_iter: 0"),
        ({"batch_size": 0}, r"^batch_size: 0"),
        ({"n_iter_no_change": -1}, r"^n_iter_no_change: -1"),
        ({"learning_rate_init": float("nan")}, r"^learning_rate_init: nan"),
        ({"validation_fraction": 1.0}, r"^validation_fraction: 1.0"),
        ({"weight_decay": -1.0}, r"^weight_decay: -1.0"),
        ({"max_norm": 0.0}, r"^max_norm: 0.0"),
    ],
)
def test_parameters_out_of_range(settings, message):
    estimator = regressor(**settings)  # which is no time to complain, for scikit-learn
    for method in (estimator.fit, estimator.partial_fit):
        with pytest.raises(ValueError, match=message):
            method(X, Y)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (csr_array(X), "Sparse data was passed"),
        (X[None, None], r"(^X: shape \(1, 1, 4, 3\)|dim 4)"),
        (np.ones((4, 3, 0)), r"^X: shape \(4, 3, 0\)"),
        (np.ones(4), "Expected 2D array, got 1D array"),
        ([], "Expected 2D array"),
        (np.full((4, 3, 1), np.nan), "Input X contains NaN"),
        ([np.ones((2, 1)), np.full((3, 1), np.inf), *[np.ones((2, 1))] * 2], r"Input X\[1\] contains infinity"),
        ([np.ones((2, 1)), np.ones((2, 2)), *[np.ones((2, 1))] * 2], r"^X\[1\]: 2 features, expected 1 as in X\[0\]"),
        ([np.ones((2, 1, 1))] * 4, "dim 3|shape"),
        ([[1.0, 2.0], [1.0], 3.0, [2.0]], r"X\[2\]"),
        (["some", "words", "and", "more"], r"."),
        (list(np.ones((3, 2, 1))), "inconsistent numbers of samples"),
    ],
)
def test_samples_that_are_none(x, message):
    with pytest.raises((ValueError, TypeError), match=message):
        regressor().fit(x, Y)


@pytest.mark.parametrize(
    ("y", "weight", "message"),
    [
        (None, None, "requires y to be passed"),
        ([0.0, np.nan, 1.0, 1.0], None, "Input y contains NaN"),
        (np.ones((4, 1, 1)), None, r"dim 3|^y: shape"),
        ([np.ones(2), np.ones(3), np.ones(1), np.ones(1)], None, "inhomogeneous"),
        (Y, np.ones(3), r"^sample_weight: float64 \(3,\), expected numbers \(n,\) = \(4,\)"),
        (Y, [1, -1, 1, 1], r"^sample_weight: negative"),
        (Y, [1, np.nan, 1, 1], r"^sample_weight: negative, not finite"),
        (Y, np.zeros(4), r"^sample_weight: .*all zero"),
        (Y, ["a"] * 4, r"^sample_weight: <U1"),
    ],
)
def test_targets_and_weights_that_are_none(y, weight, message):
    with pytest.raises(ValueError, match=message):
        regressor().fit(X, y, sample_weight=weight)


def test_before_fit():
    for method in ("predict", "predict_proba"):
        with pytest.raises(NotFittedError):
            getattr(classifier(), method)(X)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        classifier().fit(X, [0.5, 0.25, 0.0, 1.0])
