"""Sequence to sequence: gradients, scheduled sampling, decoding, learning."""

import numpy as np
import pytest

import fastrnn
from fastrnn import nn
from fastrnn.models import Seq2Seq

ATTENTIONS = (None, "luong", "bahdanau")
VOCAB_IN, VOCAB_OUT, D, H = 6, 7, 3, 4


def make(attention=None, cell="lstm", bidirectional=False, num_layers=1, dtype=np.float64, **options):
    return Seq2Seq(VOCAB_IN, VOCAB_OUT, D, H, num_layers, cell, attention, bidirectional, dtype=dtype, rng=0, **options)


def data(N=3, S=5, T=4, seed=1):
    rng = np.random.default_rng(seed)
    source, target = rng.integers(0, VOCAB_IN, (N, S)), rng.integers(0, VOCAB_OUT, (N, T))
    target[:, 0] = 1
    return source, np.array([S, 1, 3, 2])[:N], target


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_gradients_are_those_of_finite_differences(attention, cell, bidirectional):
    model, (source, lengths, target) = make(attention, cell, bidirectional, 2), data()
    rng = np.random.default_rng(3)
    for p in model.parameters():
        p.value[...] = rng.standard_normal(p.value.shape) * 0.6
    dlogits = rng.standard_normal((3, 4, VOCAB_OUT))

    def loss():
        return float((model.forward(source, lengths, target)[0] * dlogits).sum())

    _, cache = model.forward(source, lengths, target)
    model.backward(cache, dlogits)
    for name, value, grad in model.parameters():
        direction = rng.standard_normal(value.shape)
        start, eps = value.copy(), 1e-6
        value[...] = start + eps * direction
        up = loss()
        value[...] = start - eps * direction
        slope = (up - loss()) / (2 * eps)
        value[...] = start
        assert abs(slope) > 1e-6, name
        assert float((grad * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_engines_agree(attention):
    model, (source, lengths, target) = make(attention), data()
    results = {}
    for engine in ("reference", "blas", "native"):
        with fastrnn.config_context(engine=engine):
            logits, cache = model.forward(source, lengths, target)
            model.zero_grad()
            model.backward(cache, np.ones_like(logits))
            results[engine] = logits, *(p.grad.copy() for p in model.parameters())
    for engine in ("blas", "native"):
        for a, b in zip(results[engine], results["reference"], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_what_is_written_is_what_forward_finds_likeliest(attention, beam):
    model, (source, lengths, _) = make(attention, bidirectional=True, num_layers=2), data()
    model.head.weight *= 8
    found = model.decode(source, lengths, 9, beam, weights=attention is not None)
    read = np.concatenate([np.full((3, 1), model.bos), found.tokens[:, :-1]], axis=1)
    logits, _ = model.forward(source, lengths, read)
    chances = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    taken = np.take_along_axis(chances, found.tokens[:, :, None], 2)[:, :, 0]
    for n, length in enumerate(found.lengths):
        assert taken[n, :length].mean() == pytest.approx(found.scores[n], abs=1e-11)
        if beam == 1:
            np.testing.assert_array_equal(found.tokens[n, :length], logits[n, :length].argmax(axis=1))
    if beam > 1:
        tokens, scores = found.beams
        assert tokens.shape == (3, 3, found.tokens.shape[1])
        assert np.all(np.diff(scores, axis=1) <= 0)
        assert np.all(found.scores >= model.decode(source, lengths, 9).scores - 0.5)
    if attention:
        expected = np.where(np.arange(found.tokens.shape[1]) < found.lengths[:, None], 1, 0)
        np.testing.assert_allclose(found.weights.sum(axis=2), expected, atol=1e-12)
        for n, length in enumerate(lengths):
            assert np.all(found.weights[n, :, length:] == 0)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_padding_and_neighbours_do_not_matter(attention):
    model, (source, lengths, target) = make(attention, bidirectional=True), data()
    logits, _ = model.forward(source, lengths, target)
    for n, length in enumerate(lengths):
        alone, _ = model.forward(source[n : n + 1, :length], None, target[n : n + 1])
        np.testing.assert_allclose(alone[0], logits[n], atol=1e-12)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_scheduled_sampling(attention):
    model, (source, lengths, target) = make(attention), data()
    model.head.weight *= 5
    greedy = model.decode(source, lengths, 3).tokens  # eos may come, after which there is padding
    free, cache = model.forward(source, lengths, target, teacher_forcing=0.0)
    read = np.concatenate([target[:, :1], free[:, :-1].argmax(axis=2)], axis=1)
    np.testing.assert_allclose(free, model.forward(source, lengths, read)[0], atol=1e-12)
    before_end = np.cumprod(greedy != model.eos, axis=1).astype(bool)
    np.testing.assert_array_equal(read[:, 1:][:, : greedy.shape[1]][before_end], greedy[before_end])
    model.backward(cache, np.ones_like(free))
    assert all(np.isfinite(p.grad).all() for p in model.parameters())
    taught = model.forward(source, lengths, target)[0]
    assert not np.allclose(free, taught)
    model.rng = np.random.default_rng(0)
    some = [model.forward(source, lengths, target, teacher_forcing=0.5)[0] for _ in range(8)]
    assert len({a.tobytes() for a in some}) > 1


@pytest.mark.parametrize("bidirectional", [False, True])
def test_forget_bias(bidirectional):
    model = make(bidirectional=bidirectional, num_layers=2, forget_bias=1.5)
    for layer, directions in ((model.encoder, 1 + bidirectional), (model.decoder, 1)):
        sums = [
            v + layer.params[f"bias_hh{name[7:]}"] for name, v in layer.params.items() if name.startswith("bias_ih")
        ]
        assert len(sums) == 2 * directions
        for bias in sums:
            np.testing.assert_allclose(bias[H : 2 * H], 1.5)
            assert not np.allclose(bias[:H], 1.5)


def test_dropout_is_for_training_only():
    model, (source, lengths, target) = make("luong", num_layers=2, dropout=0.5), data()
    assert not np.array_equal(model.forward(source, lengths, target)[0], model.forward(source, lengths, target)[0])
    first, again = (model.decode(source, lengths, 6, weights=True) for _ in range(2))
    np.testing.assert_array_equal(first.weights, again.weights)


@pytest.mark.parametrize("smoothing", [0, 0.2])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_learning_is_forward_loss_backward_up_to_the_ends(attention, smoothing):
    model, (source, lengths, target) = make(attention), data(T=6)
    target[:, 1:] = [[3, 2, 5, 2, 4], [2, 0, 0, 0, 0], [4, 4, 1, 3, 6]]  # ends at once, soon and never
    counts, loss = np.array([2, 1, 5]), nn.CrossEntropyLoss(label_smoothing=smoothing)
    losses, expected = [], {p.name: np.zeros_like(p.grad) for p in model.parameters()}
    for n, count in enumerate(counts):  # each alone, without anything behind its end
        model.zero_grad()
        wanted = target[n : n + 1, 1 : count + 1]
        logits, cache = model.forward(source[n : n + 1], lengths[n : n + 1], target[n : n + 1, :count])
        value, loss_cache = loss.forward(logits, wanted)
        model.backward(cache, loss.backward(loss_cache, count / counts.sum()))
        losses.append(value * count / counts.sum())
        for p in model.parameters():
            expected[p.name] += p.grad
    model.zero_grad()
    assert model.learn(source, lengths, target, loss=loss) == pytest.approx(sum(losses), abs=1e-12)
    for p in model.parameters():
        np.testing.assert_allclose(p.grad, expected[p.name], atol=1e-12, err_msg=p.name)


def test_learning_from_its_own_tokens():
    model, (source, lengths, target) = make("luong"), data()
    model.head.weight *= 5
    target[:, 1:] = [[3, 4, 2], [5, 2, 0], [6, 3, 4]]
    free, _ = model.forward(source, lengths, target[:, :-1], teacher_forcing=0.0)
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 1]], bool)
    value = model.learn(source, lengths, target, teacher_forcing=0.0)
    assert value == pytest.approx(nn.CrossEntropyLoss()(free, target[:, 1:], mask), abs=1e-12)


def test_bad_arguments():
    model, (source, lengths, target) = make(), data()
    for call, message in (
        (lambda: make("dot"), r"^attention: 'dot'"),
        (lambda: make(cell="rnn"), r"^cell: 'rnn'"),
        (lambda: make(cell="gru", forget_bias=1.0), r"^forget_bias: 1.0 with cell 'gru'"),
        (lambda: make(eos=7), r"^eos: 7"),
        (lambda: model.forward(source, lengths, target[:2]), r"^target_in: shape \(2, 4\)"),
        (lambda: model.forward(source + 1, lengths, target), r"^source: values"),
        (lambda: model.forward(source, lengths + 3, target), r"^lengths: values"),
        (lambda: model.forward(source, lengths, target, 1.5), r"^teacher_forcing: 1.5"),
        (lambda: model.learn(source, lengths, target[:, :1]), r"^target: shape \(3, 1\)"),
        (lambda: model.learn(source, lengths, target + 5), r"^target: values"),
        (lambda: model.learn(source, lengths, target[:2]), r"^target: shape \(2, 4\)"),
        (lambda: model.learn(source[:0], None, target[:0]), r"^target: shape \(0, 4\)"),
        (lambda: model.decode(source[0]), r"^source: shape \(5,\)"),
        (lambda: model.decode(source[:0]), r"^source: shape \(0, 5\)"),
        (lambda: model.decode(source, max_len=-1), r"^max_len: -1, expected a whole number from 0"),
        (lambda: model.decode(source, beam=0), r"^beam: 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
