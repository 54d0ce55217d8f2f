"""Training: that it learns, stops, starts again where it was, and treats padding as nothing."""

import io
import json
import math
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn import nn


class Squares:
    """Half the mean of the squared differences."""

    def forward(self, outputs, y):
        return 0.5 * float(np.mean((outputs - y) ** 2)), outputs - y

    def backward(self, cache):
        return cache / cache.size


class Reader(fastrnn.Module):
    """A GRU, noise in training from a generator of its own, and a linear layer on the last step or on each."""

    def __init__(self, outputs=1, noise=0.0, every_step=False, dtype=np.float64, rng=0):
        super().__init__()
        self.gru = fastrnn.GRU(2, 6, batch_first=True, dtype=dtype, rng=rng)
        self.head = nn.Linear(6, outputs, dtype=dtype, rng=1)
        self.noise, self.every_step, self.rng = noise, every_step, np.random.default_rng(7)
        self.shapes = []  # of what it was trained on

    def _chosen(self, y, lengths):
        last = y.shape[1] - 1 if lengths is None else np.maximum(lengths, 1) - 1
        return slice(None) if self.every_step else (np.arange(len(y)), last)

    def forward(self, x, lengths=None):
        self.shapes.append(x.shape)
        y, _, cache = self.gru.forward(x, lengths=lengths)
        kept = 1 + self.noise * self.rng.standard_normal(y.shape)
        chosen = self._chosen(y, lengths)
        outputs, head_cache = self.head.forward((y * kept)[chosen])
        return outputs, (cache, kept, chosen, head_cache)

    def backward(self, cache, doutputs):
        cache, kept, chosen, head_cache = cache
        dy = np.zeros(kept.shape)
        dy[chosen] = self.head.backward(head_cache, doutputs)
        return self.gru.backward(cache, dy * kept)[0]

    def __call__(self, x, lengths=None):
        y, _ = self.gru(x, lengths=lengths)
        return self.head(y[self._chosen(y, lengths)])


def sums(N, T=5, seed=0):
    """Sequences, and the sum of their first feature."""
    x = np.random.default_rng(seed).uniform(-0.5, 0.5, (N, T, 2))
    return x, x[:, :, 0].sum(axis=1, keepdims=True)


def ragged(N, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, N)
    x = [rng.uniform(-0.5, 0.5, (length, 2)) for length in lengths]
    return x, np.array([[one[:, 0].sum()] for one in x])


def trained(model, x, y, **options):
    settings = {"loss": Squares(), "optimiser": nn.Adam(model, options.pop("lr", 0.02)), "batch_size": 8} | options
    return nn.fit(model, x, y, **settings)


def assert_same(model, other):
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(a.value, b.value)


def numbers(history):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history.epochs]


def test_it_learns():
    x, y = sums(128)
    seen = []
    history = trained(
        Reader(),
        x,
        y,
        epochs=30,
        validation=sums(32, seed=1),
        max_norm=1.0,
        metrics={"mae": lambda outputs, y: np.abs(outputs - y).mean()},
        callbacks=[lambda record, model: seen.append((record["epoch"], len(model.shapes)))],
    )
    first, last = history.epochs[0], history.epochs[-1]
    assert last["loss"] < first["loss"] / 20
    assert last["val_loss"] < first["val_loss"] / 20
    assert last["val_mae"] == pytest.approx(math.sqrt(2 * last["val_loss"]), rel=0.5)
    assert list(last) == ["epoch", "loss", "mae", "val_loss", "val_mae", "lr", "seconds"]
    assert seen == [(n, 16 * n) for n in range(1, 31)]
    table = history.to_dict()
    assert table["loss"] == [record["loss"] for record in history.epochs]
    assert history.best_epoch == 1 + int(np.argmin(table["val_loss"]))
    assert json.loads(json.dumps(table)) == table
    assert nn.History().to_dict() == {}
    assert nn.History().best_epoch is None


def test_an_epoch_is_the_loop_by_hand():
    x, y = sums(20)
    model, twin = Reader(), Reader()
    history = trained(model, x, y, epochs=1, shuffle=False, max_norm=0.1)
    optimiser, loss, total = nn.Adam(twin, 0.02), Squares(), 0.0
    for start in (0, 8, 16):
        batch = slice(start, start + 8)
        twin.zero_grad()
        outputs, cache = twin.forward(x[batch])
        value, loss_cache = loss.forward(outputs, y[batch])
        twin.backward(cache, loss.backward(loss_cache))
        nn.clip_grad_norm_(twin, 0.1)
        optimiser.step()
        total += value * len(outputs)
    assert_same(model, twin)
    assert history.epochs[0]["loss"] == pytest.approx(total / 20, rel=1e-14)


def test_shuffling_is_of_the_generator_and_takes_each_sample_once():
    x = np.zeros((10, 1, 2))
    x[:, 0, 0] = np.arange(10)
    orders = []

    class Watched(Reader):
        def forward(self, x, lengths=None):
            orders[-1].extend(x[:, 0, 0])
            return super().forward(x, lengths)

    for rng in (1, 1, 2):
        orders.append([])
        trained(Watched(), x, x[:, :, 0], epochs=2, batch_size=4, rng=rng)
    assert sorted(orders[0][:10]) == sorted(orders[0][10:]) == list(range(10))
    assert orders[0][:10] != orders[0][10:]
    assert orders[0] == orders[1] != orders[2]


def test_early_stopping_gives_back_the_best_weights():
    x, y = sums(24)
    noise = np.random.default_rng(3).standard_normal((12, 1))  # nothing to be learnt
    validation = (sums(12, seed=1)[0], noise)
    model, weights = Reader(), {}
    history = trained(
        model,
        x,
        y,
        lr=0.1,
        epochs=60,
        patience=4,
        validation=validation,
        callbacks=[lambda record, model: weights.update({record["epoch"]: model.state_dict()})],
    )
    assert len(history.epochs) == history.best_epoch + 4 < 60
    for p in model.parameters():
        np.testing.assert_array_equal(p.value, weights[history.best_epoch][p.name])
        assert not np.array_equal(p.value, weights[len(history.epochs)][p.name])
    best = min(history.to_dict()["val_loss"])
    assert Squares().forward(model(validation[0]), noise)[0] == pytest.approx(best, rel=1e-12)


def test_only_the_word_stop_stops():
    x, y = sums(8)
    history = trained(Reader(), x, y, epochs=2, callbacks=[lambda record, model: model(x), lambda record, model: None])
    assert len(history.epochs) == 2


def test_no_number_is_never_the_best():
    history = nn.History([{"epoch": n, "loss": 0.0, "val_loss": v} for n, v in ((1, math.nan), (2, 2.0), (3, 1.0))])
    assert history.best_epoch == 3
    assert nn.History([{"epoch": 1, "loss": math.nan}]).best_epoch is None


def schedule_of(optimiser):
    return nn.WarmupLR(optimiser, 2, nn.ReduceOnPlateau(optimiser, 0.5, 0, threshold=0.5))


@pytest.mark.parametrize("samples", ["array", "list"])
@pytest.mark.parametrize("kind", ["Adam", "SGD"])
def test_a_run_that_was_broken_off_ends_with_the_same_bits(tmp_path, samples, kind):
    x, y = sums(30) if samples == "array" else ragged(30)
    path = tmp_path / "run.npz"

    def run(epochs, model, resume=True, **more):
        optimiser = nn.Adam(model, 0.05) if kind == "Adam" else nn.SGD(model, 0.1, momentum=0.9, nesterov=True)
        options = {"epochs": epochs, "validation_split": 0.2, "patience": 50, "schedule": schedule_of(optimiser)}
        return nn.fit(model, x, y, loss=Squares(), optimiser=optimiser, batch_size=7, resume=resume, **options, **more)

    whole = Reader(noise=0.3)
    expected = run(9, whole, resume=False)
    assert len({record["lr"] for record in expected.epochs}) > 3

    def breaking(record, model):
        if record["epoch"] == 7:
            raise KeyboardInterrupt

    run(2, Reader(noise=0.3), checkpoint=path)  # nothing there yet to go on from
    run(9, Reader(noise=0.3, rng=5), checkpoint=path, callbacks=[lambda record, model: "stop"])
    with pytest.raises(KeyboardInterrupt):
        run(9, Reader(noise=0.3, rng=6), checkpoint=path, callbacks=[breaking])
    again = Reader(noise=0.3, rng=8)
    history = run(9, again, checkpoint=path)
    assert numbers(history) == numbers(expected)
    assert_same(again, whole)
    assert again.rng.random() == whole.rng.random()
    finished = Reader(noise=0.3, rng=9)
    assert numbers(run(9, finished, checkpoint=path)) == numbers(expected)  # nothing is left to do
    assert_same(finished, whole)


@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.Philox, np.random.SFC64, np.random.PCG64DXSM])
def test_generators_of_every_kind_go_on(tmp_path, kind):
    x, y = sums(12)
    models = [Reader(noise=0.3) for _ in range(3)]
    for model in models:
        model.rng = np.random.Generator(kind(3))
    trained(models[0], x, y, epochs=3)
    trained(models[1], x, y, epochs=2, checkpoint=tmp_path / "run")
    # the optimiser starts anew with each call, so what it knows comes from the file too
    trained(models[2], x, y, epochs=3, checkpoint=tmp_path / "run", resume=True)
    assert_same(models[0], models[2])


def test_a_crash_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    x, y = sums(12)
    path = tmp_path / "run.npz"
    trained(Reader(), x, y, epochs=2, checkpoint=path)
    before = path.read_bytes()

    def half(file, **arrays):
        file.write(b"PK\x03\x04 half")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", half)
        with pytest.raises(OSError, match="no space left"):
            trained(Reader(), x, y, epochs=3, checkpoint=path, resume=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert len(trained(Reader(), x, y, epochs=3, checkpoint=path, resume=True).epochs) == 3


def test_a_damaged_checkpoint_is_an_error_and_changes_nothing(tmp_path):
    x, y = sums(12)
    path = tmp_path / "run.npz"
    trained(Reader(), x, y, epochs=1, checkpoint=path)
    good = path.read_bytes()
    middle = len(good) // 2
    flipped = good[:middle] + bytes([good[middle] ^ 0xFF]) + good[middle + 1 :]
    other = tmp_path / "other.npz"
    np.savez(other, header=np.array('{"format": "something else"}'))
    for content in (b"", b"hello", good[:middle], good[:-30], flipped, other.read_bytes()):
        path.write_bytes(content)
        model, untouched = Reader(rng=4), Reader(rng=4)
        with pytest.raises(ValueError, match=r"^checkpoint: .*run\.npz is no checkpoint of fit, or damaged"):
            trained(model, x, y, checkpoint=path, resume=True)
        assert_same(model, untouched)


def test_a_checkpoint_of_something_else_is_an_error_and_changes_nothing(tmp_path):
    x, y = sums(12)
    path = tmp_path / "run.npz"
    trained(Reader(), x, y, epochs=1, checkpoint=path)
    model, untouched, split = Reader(rng=4), Reader(rng=4), {"validation_split": 0.25}
    adam = nn.Adam(model)
    for options, message in (
        ({"optimiser": nn.SGD(model)}, r"with optimiser Adam, expected SGD"),
        ({"optimiser": adam, "schedule": nn.StepLR(adam, 2)}, r"with schedule None, expected StepLR"),
        ({"patience": 3, **split}, r"with patience False, expected True"),
        ({"rng": np.random.Generator(np.random.MT19937(0))}, r"with generators .*PCG64.*, expected .*MT19937"),
        ({"optimiser": nn.Adam(model.gru)}, r"of another model, optimiser or schedule"),
    ):
        with pytest.raises(ValueError, match=rf"^checkpoint: .*{message}"):
            trained(model, x, y, checkpoint=path, resume=True, **options)
        assert_same(model, untouched)
    with pytest.raises(ValueError, match=r"^checkpoint: .*of another model.*head\.weight: shape"):
        trained(Reader(outputs=2), x, y, checkpoint=path, resume=True)


def test_a_schedule_that_does_not_fit_changes_neither_model_nor_optimiser(tmp_path):
    x, y = sums(12)
    first, model, untouched = Reader(), Reader(rng=4), Reader(rng=4)
    optimiser = nn.Adam(first)
    trained(first, x, y, epochs=1, checkpoint=tmp_path / "run", optimiser=optimiser, schedule=nn.WarmupLR(optimiser, 3))
    optimiser = nn.Adam(model)
    schedule = nn.WarmupLR(optimiser, 3, nn.StepLR(optimiser, 2))
    with pytest.raises(ValueError, match=r"of another model, optimiser or schedule \(mapping: names"):
        trained(model, x, y, checkpoint=tmp_path / "run", resume=True, optimiser=optimiser, schedule=schedule)
    assert_same(model, untouched)
    assert optimiser.steps == schedule.steps == 0
    assert not any(np.any(value) for name, value in optimiser.state_dict().items() if name != "lr")


@pytest.mark.parametrize("every_step", [False, True])
def test_buckets_and_padding_do_not_change_the_losses(every_step):
    x, y = ragged(150)
    if every_step:
        y = [one[:, :1] * 2 for one in x]
    model = Reader(every_step=every_step)
    losses, padded = [], []
    for buckets in (True, False):
        model.shapes.clear()
        history = trained(model, x, y, lr=0, epochs=2, batch_size=4, buckets=buckets, validation=(x, y))
        assert {shape[0] for shape in model.shapes} == {4, 2}
        losses += [value for record in history.epochs for value in (record["loss"], record["val_loss"])]
        padded.append(sum(shape[0] * shape[1] for shape in model.shapes))
        steps = [shape[1] for shape in model.shapes[:16]]
        assert steps != sorted(steps)  # short and long ones come as chance has it
    alone = [model(one[None]) for one in x]
    if every_step:
        errors = np.concatenate([(a[0] - b) ** 2 for a, b in zip(alone, y, strict=True)])
    else:
        errors = (np.concatenate(alone) - y) ** 2
    np.testing.assert_allclose(losses, 0.5 * errors.mean(), rtol=1e-12)
    assert padded[0] < 1.2 * 2 * sum(map(len, x)) < padded[1]


def test_targets_of_each_step_train_without_padding():
    """One batch of ragged sequences: the gradient is that of each sequence on its own."""
    x = ragged(5)[0]
    y = [one[:, :1] for one in x]
    model, twin = Reader(every_step=True), Reader(every_step=True)
    trained(model, x, y, epochs=1, lr=0.0)
    for one, wanted in zip(x, y, strict=True):
        outputs, cache = twin.forward(one[None])
        twin.backward(cache, (outputs - wanted) / sum(map(len, x)))
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(a.grad, b.grad, rtol=1e-10, atol=1e-14)


def test_arrays_with_lengths_are_as_lists():
    x, y = ragged(20)
    padded, lengths = fastrnn.data.pad_sequences(x, value=np.nan)
    options = {"epochs": 3, "buckets": False, "validation_split": 0.3}
    a, b = Reader(), Reader()
    first = trained(a, x, y, **options)
    second = trained(b, padded, y, lengths=lengths, **options)
    np.testing.assert_allclose(first.to_dict()["val_loss"], second.to_dict()["val_loss"], rtol=1e-12)
    third = trained(Reader(), padded[:14], y[:14], lengths=lengths[:14], epochs=3, buckets=False,
                    validation=(padded[14:], y[14:], lengths[14:]))  # fmt: skip
    assert numbers(second) == numbers(third)


@pytest.mark.parametrize("samples", ["array", "list"])
def test_the_validation_split_takes_the_last_part(samples):
    x, y = sums(20) if samples == "array" else ragged(20)
    a, b = Reader(), Reader()
    first = trained(a, x, y, epochs=2, validation_split=0.25)
    second = trained(b, x[:15], y[:15], epochs=2, validation=(x[15:], y[15:]))
    assert numbers(first) == numbers(second)
    assert_same(a, b)


def test_the_schedule_sees_the_validation():
    x, y = sums(16)
    model, seen = Reader(), []

    class Watching(nn.Schedule):
        def _lr(self, metric):
            seen.append(metric)
            return self.base_lr / (1 + self.steps)

    for options, name in (({"validation_split": 0.25}, "val_loss"), ({}, "loss")):
        seen.clear()
        optimiser = nn.SGD(model, 0.1)
        history = trained(model, x, y, epochs=3, optimiser=optimiser, schedule=Watching(optimiser), **options)
        table = history.to_dict()
        assert seen == table[name]
        assert table["lr"] == pytest.approx([0.1, 0.05, 0.1 / 3])


def test_a_stateful_layer_starts_anew_with_each_pass():
    x, y = sums(16)

    def run(**options):
        model = Reader()
        model.gru = fastrnn.GRU(2, 6, batch_first=True, stateful=True, dtype=np.float64, rng=0)
        return trained(model, x, y, lr=0.0, shuffle=False, **options), model

    history, model = run(epochs=2, validation=sums(5, seed=1))
    losses = history.to_dict()["loss"]
    assert losses[0] == losses[1]
    assert losses[0] != trained(Reader(), x, y, lr=0.0, shuffle=False, epochs=1).epochs[0]["loss"]  # it remembered
    assert model.gru.state is None


class Tagger(fastrnn.Module):
    """A class for each word, in float32."""

    def __init__(self, words):
        super().__init__()
        self.embedding, self.gru = nn.Embedding(words, 4, rng=0), fastrnn.GRU(4, 8, batch_first=True, rng=1)
        self.head = nn.Linear(8, 2, rng=2)

    def forward(self, x, lengths):
        vectors, embedding_cache = self.embedding.forward(x)
        y, _, gru_cache = self.gru.forward(vectors, lengths=lengths)
        logits, head_cache = self.head.forward(y)
        return logits, (embedding_cache, gru_cache, head_cache)

    def backward(self, cache, dlogits):
        embedding_cache, gru_cache, head_cache = cache
        self.embedding.backward(
            embedding_cache, self.gru.backward(gru_cache, self.head.backward(head_cache, dlogits))[0]
        )

    def __call__(self, x, lengths):
        return self.head(self.gru(self.embedding(x), lengths=lengths)[0])


def test_texts_with_a_target_for_each_word():
    """Whether there has been a "no" so far."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["no", "yes", "well", "so"], rng.integers(1, 9))) for _ in range(120)]
    vocabulary = fastrnn.data.WordVocabulary(texts)
    x = [vocabulary.encode(text) for text in texts]
    y = [np.cumsum(one == vocabulary.encode("no")).clip(0, 1) for one in x]
    model = Tagger(len(vocabulary))
    right = {"right": lambda logits, y: np.mean(logits.argmax(axis=-1) == y)}
    options = {"loss": nn.CrossEntropyLoss(), "epochs": 15, "lr": 0.03, "validation_split": 0.2, "metrics": right}
    history = trained(model, x, y, **options)
    assert history.epochs[0]["val_right"] < 1
    assert history.epochs[-1]["val_right"] == 1
    (alone,) = model(x[-1][None], lengths=[len(x[-1])])
    np.testing.assert_array_equal(alone.argmax(axis=-1), y[-1])


def test_progress_is_shown_on_a_terminal_and_wiped(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    x, y = sums(8)
    for progress in (True, False):
        monkeypatch.setattr(sys, "stderr", Terminal())
        trained(Reader(), x, y, epochs=2, progress=progress)
        shown = sys.stderr.getvalue()
        assert ("epoch 2/2  [########################] 100%" in shown) == progress
        assert shown.endswith("\r\x1b[K") == progress


def test_what_cannot_be_saved_is_an_error(tmp_path):
    class Odd(nn.SGD):
        def state_dict(self):
            return super().state_dict() | {"odd": None}

    model = Reader()
    with pytest.raises(TypeError, match=r"^checkpoint: \['optimiser/odd'\]"):
        trained(model, *sums(8), optimiser=Odd(model), checkpoint=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_steps_without_anything_are_left_out():
    x = [np.zeros((0, 2)), np.zeros((0, 2)), np.ones((3, 2))]
    history = trained(Reader(every_step=True), x, [one[:, :1] for one in x], batch_size=2, epochs=1, shuffle=False)
    assert history.epochs[0]["loss"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, r"^epochs: 0"),
        ({"batch_size": 0}, r"^batch_size: 0"),
        ({"patience": 0}, r"^patience: 0"),
        ({"patience": 3}, r"^patience: 3, expected validation"),
        ({"max_norm": -1.0}, r"^max_norm: -1.0"),
        ({"y": np.zeros((5, 1))}, r"^y: 5 samples, expected 6 as in x"),
        ({"x": np.zeros((0, 4, 2)), "y": np.zeros((0, 1))}, r"^x: .*at least one sample"),
        ({"x": [np.zeros((4, 2)), np.zeros((4, 3))]}, r"^x: shapes .*sequences \(T, \.\.\.\)"),
        ({"x": np.float64(3)}, r"^x: .*an array \(N, \.\.\.\)"),
        ({"y": [np.zeros((4, 1))] * 6}, r"^y: a list of sequences"),
        ({"x": [np.zeros((4, 2))] * 6, "y": [np.zeros((3, 1))] * 6}, r"^y: a list of sequences"),
        ({"x": [np.zeros((4, 2))] * 6, "lengths": [1] * 6}, r"^lengths: given with a list"),
        ({"lengths": [5] * 6}, r"^lengths: values from 5 to 5, expected 0 to T = 4"),
        ({"validation": 3}, r"^validation: int"),
        ({"validation": (np.zeros((2, 4, 2)), np.zeros((3, 1)))}, r"^validation y: 3 samples, expected 2"),
        ({"validation": (np.zeros((2, 4, 2)), np.zeros((2, 1))), "validation_split": 0.5}, r"^validation, validation_"),
        ({"validation_split": 1.0}, r"^validation_split: 1.0"),
        ({"validation_split": 0.01}, r"^validation_split: 0.01, which is nothing or all of 6 samples"),
        ({"metrics": [len]}, r"^metrics: list"),
        ({"metrics": {"loss": len}}, r"^metrics: \['loss'\]"),
        ({"resume": True}, r"^resume: True"),
        ({"checkpoint": "no/such/directory/run.npz"}, r"^checkpoint: no/such"),
    ],
)
def test_bad_arguments(options, message):
    model, untouched = Reader(), Reader()
    x, y = options.pop("x", np.zeros((6, 4, 2))), options.pop("y", np.zeros((6, 1)))
    with pytest.raises((ValueError, TypeError), match=message):
        trained(model, x, y, **options)
    assert_same(model, untouched)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"model": "gru"}, r"^model: str, expected an object with forward, backward"),
        ({"loss": "mse"}, r"^loss: str, expected an object with forward, backward"),
        ({"loss": nn.MSELoss}, r"^loss: the class MSELoss, expected an object"),
        ({"optimiser": "adam"}, r"^optimiser: str, expected an object with lr, step, zero_grad"),
        ({"optimiser": nn.Adam(Reader())}, r"^optimiser: of another Reader, expected one of the model"),
        ({"schedule": nn.StepLR(nn.SGD(Reader()), 2)}, r"^schedule: of another SGD, expected one of the optimiser"),
        ({"schedule": 0.1}, r"^schedule: float, expected an object with step"),
        ({"callbacks": print}, r"^callbacks: builtin_function_or_method, expected an iterable of functions"),
    ],
)
def test_parts_that_are_none_or_of_another_model(parts, message):
    model, untouched = Reader(), Reader()
    parts = {"model": model, "loss": nn.MSELoss(), "optimiser": nn.Adam(model)} | parts
    with pytest.raises((TypeError, ValueError), match=message):
        nn.fit(parts.pop("model"), np.ones((6, 4, 2)), np.ones((6, 1)), **parts)
    assert_same(model, untouched)


def test_an_optimiser_of_a_part_of_the_model_trains_that_part():
    model, before = Reader(), Reader()
    nn.fit(model, np.ones((6, 4, 2)), np.ones((6, 1)), loss=nn.MSELoss(), optimiser=nn.Adam(model.head), epochs=1)
    assert_same(model.gru, before.gru)
    assert not np.array_equal(model.head.weight, before.head.weight)


def test_callbacks_of_an_iterator_are_called_after_each_epoch():
    seen = []
    calls = (lambda record, model, k=k: seen.append((record["epoch"], k)) for k in range(2))
    trained(Reader(), np.ones((6, 4, 2)), np.ones((6, 1)), epochs=2, callbacks=calls)
    assert seen == [(1, 0), (1, 1), (2, 0), (2, 1)]
