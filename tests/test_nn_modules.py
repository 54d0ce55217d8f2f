"""Modules of `fastrnn.nn` but attention: gradients by finite differences, parity with PyTorch, padding, bad input."""

import copy
import pickle

import numpy as np
import pytest
from nn_helpers import check_gradients, check_padding, gradients_of, numeric_gradient, randomised

import fastrnn
from fastrnn import nn

F64 = {"dtype": np.float64}
ACTIVATIONS = (nn.Tanh, nn.ReLU, nn.Sigmoid, nn.GELU, nn.Softmax)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def like_torch(module, theirs, x, dy):
    """y and all gradients of a module beside those of one of PyTorch with the same parameters."""
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of this test, is not installed")
    theirs.load_state_dict({name: torch.tensor(value) for name, value in module.state_dict().items()})
    x_t = torch.tensor(x, requires_grad=True)
    y_t = theirs(x_t)
    y_t.backward(torch.tensor(dy))
    y, cache = module.forward(x)
    np.testing.assert_allclose(y, y_t.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(module.backward(cache, dy), x_t.grad.numpy(), atol=1e-12)
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(gradients_of(module)[name], parameter.grad.numpy(), atol=1e-11, err_msg=name)


# --- activations, normalisation, dropout -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations(kind, rng):
    check_gradients(kind(), 2 * rng.standard_normal((2, 3, 4)))
    x = rng.standard_normal((2, 3)).astype(np.float32)
    y, cache = kind().forward(x)
    assert y.dtype == kind().backward(cache, x).dtype == np.float32
    for shape in ((0,), (2, 0, 3), (1, 1)):
        y, cache = kind().forward(np.zeros(shape))
        assert kind().backward(cache, y).shape == shape
    with pytest.raises(TypeError, match=r"^x: dtype int64, expected float32 or float64"):
        kind()(np.arange(3))
    with pytest.raises(ValueError, match=r"^dy: shape \(3,\), expected that of y"):
        kind().backward(cache, np.zeros(3))


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_like_torch(kind, rng):
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of this test, is not installed")
    theirs = torch.nn.Softmax(dim=-1) if kind is nn.Softmax else getattr(torch.nn, kind.__name__)()
    like_torch(kind(), theirs, 3 * rng.standard_normal((3, 5)), rng.standard_normal((3, 5)))


def test_extreme_inputs_do_not_overflow():
    x = np.array([-1e30, -100, 0, 100, 1e30], np.float32)
    for kind in ACTIVATIONS:
        y, cache = kind().forward(x)
        assert np.isfinite(y).all()
        assert np.isfinite(kind().backward(cache, np.ones_like(x))).all()


@pytest.mark.parametrize(("affine", "bias"), [(True, True), (True, False), (False, True)])
def test_layer_norm(affine, bias, rng):
    module = randomised(nn.LayerNorm(4, 1e-3, affine, bias, **F64), rng)
    assert [p.name for p in module.parameters()] == ["weight", "bias"][: affine * (1 + bias)]
    check_gradients(module, rng.standard_normal((2, 3, 4)))
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of this test, is not installed")
    theirs = torch.nn.LayerNorm(4, 1e-3, affine, bias, dtype=torch.float64)
    like_torch(randomised(nn.LayerNorm(4, 1e-3, affine, bias, **F64), rng), theirs, *rng.standard_normal((2, 2, 3, 4)))


def test_layer_norm_of_few_and_bad(rng):
    module = nn.LayerNorm(4)
    y, cache = module.forward(np.zeros((0, 4), np.float32))
    assert module.backward(cache, y).shape == (0, 4)
    one = nn.LayerNorm(1)
    np.testing.assert_array_equal(one(np.full((3, 1), 7, np.float32)), 0)
    for call, message in (
        (lambda: module(np.zeros((2, 3), np.float32)), r"^x: shape \(2, 3\), expected \(\.\.\., 4\)"),
        (lambda: module(np.zeros((2, 4))), r"^x: dtype float64, expected float32"),
        (lambda: module.backward(cache, np.zeros((1, 4), np.float32)), r"^dy: shape \(1, 4\)"),
        (lambda: nn.LayerNorm(0), r"^normalized_shape: 0"),
        (lambda: nn.LayerNorm(2, eps=float("nan")), r"^eps: nan"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()


def test_dropout():
    x = np.ones((200, 50), np.float32)
    module = nn.Dropout(0.25, rng=3)
    y, cache = module.forward(x)
    assert set(np.unique(y)) == {0, np.float32(4 / 3)}
    assert abs((y == 0).mean() - 0.25) < 0.02
    np.testing.assert_array_equal(module.backward(cache, 2 * x), 2 * y)
    np.testing.assert_array_equal(module(x), x)
    np.testing.assert_array_equal(nn.Dropout(0.25, rng=3).forward(x)[0], y)
    again, _ = module.forward(x)
    assert (again != y).any()
    assert not nn.Dropout(1.0).forward(x)[0].any()
    unused = np.random.default_rng(7)
    nothing = nn.Dropout(0, rng=unused)
    y, cache = nothing.forward(x)
    np.testing.assert_array_equal(nothing.backward(cache, y), x)
    assert unused.random() == np.random.default_rng(7).random()  # p = 0 draws nothing
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"^p: .* expected a probability"):
            nn.Dropout(bad)


# --- selection, every step, one after the other ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nn.LastStep, nn.MeanOverTime])
def test_selection(kind, rng):
    x, lengths = rng.standard_normal((3, 5, 2)), np.array([2, 5, 0])
    y, _ = check_gradients(kind(), x, lengths=lengths)
    expected = x[0, 1] if kind is nn.LastStep else (x[0, 0] + x[0, 1]) / 2
    np.testing.assert_allclose(y[0], expected, atol=1e-15)
    assert not y[2].any()
    y, _ = check_gradients(kind(), x)
    np.testing.assert_allclose(y[2], x[2, 4] if kind is nn.LastStep else x[2].mean(axis=0), atol=1e-15)
    check_padding(kind(), x, [2, 5, 1], rng)
    for shape in ((0, 3, 2), (2, 0, 3), (1, 1, 1), (2, 3), (2, 3, 0)):
        y, cache = kind().forward(np.zeros(shape))
        assert y.shape == (shape[0], *shape[2:])
        assert kind().backward(cache, y).shape == shape
    for bad, message in (
        ((np.zeros(3),), r"^x: shape \(3,\), expected \(N, T, \.\.\.\)"),
        ((x, [6, 1, 1]), r"^lengths: values from 1 to 6"),
        ((x, [1, 1]), r"^lengths: shape \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            kind()(*bad)


def test_mean_of_a_mask(rng):
    x = rng.standard_normal((2, 4, 3))
    mask = np.array([[True, False, True, True], [False, False, False, False]])
    y, _ = check_gradients(nn.MeanOverTime(), x, mask=mask, lengths=[3, 4])
    np.testing.assert_allclose(y[0], (x[0, 0] + x[0, 2]) / 2, atol=1e-15)
    assert not y[1].any()
    with pytest.raises(TypeError, match=r"^mask: dtype float64, expected bool"):
        nn.MeanOverTime()(x, mask=np.ones((2, 4)))


def test_time_distributed(rng):
    module = nn.TimeDistributed(nn.Linear(3, 2, rng=0, **F64))
    assert [p.name for p in module.parameters()] == ["module.weight", "module.bias"]
    x = rng.standard_normal((2, 4, 3))
    y, _ = check_gradients(module, x)
    np.testing.assert_allclose(y, module.module(x), atol=1e-15)
    check_gradients(module, x, lengths=[1, 4])
    check_padding(module, x, [1, 4], rng)
    y, cache = module.forward(x, [0, 0])
    assert y.shape == (2, 4, 2)
    assert not y.any()
    assert not module.backward(cache, y).any()
    for shape in ((0, 4, 3), (2, 0, 3)):
        assert module(np.zeros(shape)).shape == (*shape[:2], 2)


def test_time_distributed_recurrence_over_each_step(rng):
    """Words of characters: each step of a sequence is a sequence of its own."""
    gru = fastrnn.GRU(3, 4, batch_first=True, rng=0, **F64)
    module = nn.TimeDistributed(nn.Sequential(gru, nn.LastStep()))
    x = rng.standard_normal((2, 3, 5, 3))
    y, _ = check_gradients(module, x, lengths=[3, 1])
    np.testing.assert_allclose(y[1, 0], gru(x[1, :1])[0][0, -1], atol=1e-15)
    assert module(x, [0, 0]).shape == (2, 3, 4)  # nothing to run on
    indices = np.array([[[1, 2], [3, 0]]])
    check_gradients(nn.TimeDistributed(nn.Embedding(4, 2, rng=0, **F64)), indices)
    for bad, message in (
        (lambda: nn.TimeDistributed(fastrnn.GRU(3, 4)), r"^module: batch_first False"),
        (lambda: nn.TimeDistributed(len), r"^module: builtin_function_or_method"),
        (lambda: module(np.zeros(3)), r"^x: shape \(3,\)"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            bad()


def model(rng, *last):
    gru = fastrnn.GRU(3, 4, batch_first=True, bidirectional=True, rng=0, **F64)
    return nn.Sequential(nn.Linear(3, 3, rng=1, **F64), nn.Tanh(), gru, nn.LayerNorm(8, **F64), *last)


def test_sequential(rng):
    module = model(rng, nn.MeanOverTime(), nn.Sequential(nn.Linear(8, 2, rng=2, **F64), nn.ReLU()))
    x = rng.standard_normal((3, 5, 3))
    check_gradients(module, x)
    check_gradients(module, x, lengths=[5, 2, 1])
    check_padding(module, x, [5, 2, 1], rng)
    check_gradients(nn.Sequential(nn.Linear(3, 2, rng=0, **F64)), x, lengths=[5, 2, 1])
    assert len(module) == 6
    assert module[2] is list(module)[2]
    assert list(module.state_dict())[:3] == ["0.weight", "0.bias", "2.weight_ih_l0"]
    assert module(np.zeros((0, 5, 3))).shape == (0, 2)
    assert module.uses_lengths
    assert not module[5].uses_lengths


def test_sequential_from_indices(rng):
    embedding = nn.Embedding(5, 3, padding_idx=0, rng=0, **F64)
    stack = fastrnn.Stack([fastrnn.LSTM(3, 4, batch_first=True, rng=1, **F64)])
    module = nn.Sequential(embedding, stack, nn.LastStep(), nn.Linear(4, 2, rng=2, **F64))
    indices, far = np.array([[1, 4, 0], [3, 3, 2]]), np.array([[1, 4, -7], [3, 3, 2]])
    y, cache = module.forward(far, [2, 3])
    np.testing.assert_array_equal(y, module(indices, [2, 3]))
    assert module.backward(cache, np.ones_like(y)) is None
    assert embedding.grads["weight"][[1, 2, 3, 4]].all()
    assert not embedding.grads["weight"][0].any()


def test_sequential_drops_in_training_only(rng):
    module = nn.Sequential(nn.Dropout(0.5, rng=0), nn.Linear(3, 1, rng=0, **F64))
    x = np.ones((4, 3))
    np.testing.assert_array_equal(module(x), module(x))
    assert (module.forward(x)[0] != module(x)).any()


def test_summary():
    gru = fastrnn.GRU(3, 4, batch_first=True, stateful=True, rng=0)
    gru(np.zeros((5, 2, 3), np.float32))
    module = nn.Sequential(gru, nn.LastStep(), nn.Linear(4, 2))
    before = gru.state
    lines = module.summary((7, 3)).split("\n")
    np.testing.assert_array_equal(gru.state, before)
    assert [line.split() for line in lines if "-" not in line] == [
        ["module", "output", "parameters"],
        ["input", "(N,", "7,", "3)"],
        ["0", "GRU", "(N,", "7,", "4)", "108"],
        ["1", "LastStep", "(N,", "4)", "0"],
        ["2", "Linear", "(N,", "2)", "10"],
        ["total", "118"],
    ]
    assert len({len(line) for line in lines}) == 1
    words = nn.Sequential(nn.Sequential(nn.Embedding(300, 8)), nn.MeanOverTime())
    assert "(N, 9, 8)       2,400" in words.summary((9,))
    with pytest.raises(ValueError, match=r"^x: shape \(1, 7, 2\)"):
        module.summary((7, 2))


def test_bad_sequential(rng):
    linear = nn.Linear(3, 3)
    relu = nn.ReLU()
    nn.Sequential(relu, linear, relu)
    for bad, message in (
        ((), r"^modules: none"),
        ((linear, "relu"), r"^modules\[1\]: str, expected a fastrnn.Module"),
        ((linear, relu, linear), r"^modules\[2\]: the same object"),
        ((fastrnn.GRU(3, 4),), r"^modules\[0\]: batch_first False, expected True"),
        ((fastrnn.GRU(3, 4, batch_first=True, bidirectional=True, merge=None),), r"^modules\[0\]: merge=None"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            nn.Sequential(*bad)
    with pytest.raises(ValueError, match=r"^x: shape \(3,\), expected \(N, T, \.\.\.\) beside lengths"):
        nn.Sequential(linear)(np.zeros(3), [1])
    with pytest.raises(ValueError, match=r"^lengths: values from 1 to 9"):
        model(rng)(np.zeros((2, 5, 3)), [1, 9])


# --- embedding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding_idx", [1, -3, np.int64(1)])
def test_embedding_padding(padding_idx, rng):
    module = nn.Embedding(4, 3, padding_idx, rng=0, **F64)
    plain = nn.Embedding(4, 3, rng=0, **F64)
    assert module.padding_idx == 1
    assert not module.weight[1].any()
    np.testing.assert_array_equal(np.delete(module.weight, 1, 0), np.delete(plain.weight, 1, 0))
    indices, dy = np.array([[0, 1, 1], [3, 0, 1]]), rng.standard_normal((2, 3, 3))
    dy[indices == 1] = np.nan
    module.backward(module.forward(indices)[1], dy)
    assert not module.grads["weight"][[1, 2]].any()
    np.testing.assert_allclose(module.grads["weight"][0], dy[0, 0] + dy[1, 1], atol=1e-15)


@pytest.mark.parametrize(
    ("bad", "message"), [(4, r"^padding_idx: 4, expected -4 to 3"), (-5, "-5"), (1.0, "1.0"), (True, "True")]
)
def test_bad_embedding_padding(bad, message):
    with pytest.raises((ValueError, TypeError), match=message):
        nn.Embedding(4, 3, bad)


# --- losses ----------------------------------------------------------------------------------------------------------


def loss_case(kind, rng, shape=(2, 3, 4)):
    prediction = 2 * rng.standard_normal(shape)
    if isinstance(kind, nn.CrossEntropyLoss):
        return prediction, rng.integers(0, shape[-1], shape[:-1])
    return prediction, rng.random(shape)


LOSSES = (nn.MSELoss(), nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.2))
LOSS_IDS = ("mse", "bce", "ce", "smoothed")


@pytest.mark.parametrize("loss", LOSSES, ids=LOSS_IDS)
def test_losses(loss, rng):
    prediction, target = loss_case(loss, rng)
    value, cache = loss.forward(prediction, target)
    assert loss(prediction, target) == value
    d = loss.backward(cache, 3.0)
    np.testing.assert_allclose(d, 3 * numeric_gradient(lambda: loss(prediction, target), prediction), atol=1e-8)
    np.testing.assert_array_equal(loss.backward(cache, 3.0), d)
    single = prediction.astype(np.float32)
    value32, cache = loss.forward(single, target)
    assert value32 == pytest.approx(value, rel=1e-5)
    assert loss.backward(cache).dtype == np.float32
    assert np.isfinite(loss(*loss_case(loss, rng, (1,))))


@pytest.mark.parametrize("filling", [0.0, 1e3, np.nan])
@pytest.mark.parametrize("loss", LOSSES, ids=LOSS_IDS)
def test_masked_losses(loss, filling, rng):
    """The loss and the gradient are those of the masked-in steps alone, whatever stands in the others."""
    prediction, target = loss_case(loss, rng)
    mask = np.array([[True, True, False], [True, False, False]])
    expected, cache = loss.forward(prediction[mask], target[mask])
    gradient = loss.backward(cache)
    prediction[~mask] = filling
    target[~mask] = -100 if target.dtype.kind == "i" else filling
    value, cache = loss.forward(prediction, target, mask)
    assert value == pytest.approx(expected, rel=1e-14)
    d = loss.backward(cache)
    np.testing.assert_allclose(d[mask], gradient, atol=1e-15)
    assert not d[~mask].any()
    with pytest.raises(ValueError, match=r"^mask: shape \(2, 3\), nowhere True"):
        loss(prediction, target, np.zeros_like(mask))
    with pytest.raises(ValueError, match=r"^mask: shape \(3, 2\), expected"):
        loss(prediction, target, mask.T)
    with pytest.raises(TypeError, match=r"^mask: dtype int64, expected bool"):
        loss(prediction, target, mask.astype(np.int64))


def test_a_mask_of_elements(rng):
    prediction, target = rng.standard_normal((2, 2, 3))
    mask = np.array([[True, False, True], [False, False, True]])
    assert nn.MSELoss()(prediction, target, mask) == pytest.approx(np.mean((prediction - target)[mask] ** 2))


def test_losses_like_torch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of this test, is not installed")
    theirs = (
        torch.nn.MSELoss(),
        torch.nn.BCEWithLogitsLoss(),
        torch.nn.CrossEntropyLoss(),
        torch.nn.CrossEntropyLoss(label_smoothing=0.2),
    )
    for loss, other in zip(LOSSES, theirs, strict=True):
        prediction, target = loss_case(loss, rng, (5, 4))
        x = torch.tensor(prediction, requires_grad=True)
        expected = other(x, torch.tensor(target))
        expected.backward()
        value, cache = loss.forward(prediction, target)
        assert value == pytest.approx(expected.item(), rel=1e-13)
        np.testing.assert_allclose(loss.backward(cache), x.grad.numpy(), atol=1e-15)


def test_losses_far_out():
    logits = np.array([1e4, -1e4, 1e30, -1e30], np.float32)
    value, cache = nn.BCEWithLogitsLoss().forward(logits, [1, 0, 1, 0])
    assert value == 0
    assert not nn.BCEWithLogitsLoss().backward(cache).any()
    assert nn.BCEWithLogitsLoss()(logits[:2], np.array([False, True])) == 1e4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.MSELoss()(np.zeros((2, 1)), np.zeros(2)), r"^target: shape \(2,\), expected \(2, 1\)"),
        (lambda: nn.MSELoss()(np.zeros(0), np.zeros(0)), r"^prediction: shape \(0,\), expected at least one"),
        (lambda: nn.MSELoss()([1, 2], [1, 2]), r"^prediction: dtype int64"),
        (lambda: nn.MSELoss()([1.0], ["a"]), r"^target: dtype <U1, expected numbers"),
        (lambda: nn.BCEWithLogitsLoss()([1.0, 2.0], [0, 2]), r"^target: values from 0.0 to 2.0, expected 0 to 1"),
        (lambda: nn.BCEWithLogitsLoss()([1.0], [np.nan]), r"^target: values from nan"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=1.5), r"^label_smoothing: 1.5"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=float("nan")), r"^label_smoothing: nan"),
        (lambda: nn.CrossEntropyLoss()([[1.0, 2.0]], [0.0]), r"^target: dtype float64, expected integers"),
        (lambda: nn.CrossEntropyLoss()([[1.0, 2.0]], [2], [True]), r"^target: values from 2 to 2"),
    ],
)
def test_bad_losses(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_summary_of_recurrent_layers():
    for stateful in (False, True):
        layer = fastrnn.GRU(3, 4, batch_first=True, stateful=stateful, rng=0)
        model = nn.Sequential(layer, nn.LastStep(), nn.Linear(4, 2, rng=1))
        lines = model.summary((5, 3)).splitlines()
        assert [line.split()[-1] for line in lines if "Linear" in line or "GRU" in line or "total" in line] == [
            "108",
            "10",
            "118",
        ]
        assert not stateful or layer.state is None


def test_modules_show_what_they_were_made_of():
    gru, head = fastrnn.GRU(3, 4, batch_first=True, rng=0), nn.Linear(4, 2, bias=False, dtype=np.float32, rng=0)
    model = nn.Sequential(gru, nn.LastStep(), head)
    assert repr(model) == f"Sequential({gru!r}, LastStep(), Linear(4, 2, bias=False, dtype=float32))"
    assert repr(copy.deepcopy(model)) == repr(pickle.loads(pickle.dumps(model))) == repr(model)
    assert repr(gru.freeze().stream(5)) == f"Stream({gru!r}, batch_size=5)"
