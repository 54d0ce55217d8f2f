"""Decoders: the compiled loop beside that in NumPy, beam search beside brute force."""

import itertools

import numpy as np
import pytest

import fastrnn
from fastrnn import _sharing
from fastrnn.models import BahdanauAttention, Decoder, LuongAttention, SequenceModel
from fastrnn.models._decoder_reference import log_softmax
from fastrnn.nn import Embedding, Linear

V, D, H, E, A, S = 11, 5, 17, 6, 9, 7
ATTENTIONS = (None, "luong", "bahdanau")
LAYERS = {"rnn": fastrnn.RNN, "lstm": fastrnn.LSTM, "gru": fastrnn.GRU}


def make(cell="lstm", attention=None, dtype=np.float64, vocabulary=V, sharp=3.0, seed=0, **options):
    """A decoder with random weights whose choices are neither certain nor all alike."""
    options |= {"dtype": dtype, "rng": np.random.default_rng(seed)}
    common = {"dtype": dtype, "rng": options["rng"]}
    layer = LAYERS[cell](D + (E if attention == "bahdanau" else 0), H, 2, **options)
    looks = {
        None: lambda: None,
        "luong": lambda: LuongAttention(H, E, **common),
        "bahdanau": lambda: BahdanauAttention(H, E, A, **common),
    }[attention]()
    head = Linear(H, vocabulary, **common)
    head.weight *= sharp
    return Decoder(layer, head, Embedding(vocabulary, D, **common), looks)


def inputs(decoder, B, seed=1):
    """Start tokens, a state, and a memory of ragged lengths where there is attention."""
    rng = np.random.default_rng(seed)
    layer = decoder.frozen._layer
    state = tuple(rng.standard_normal((2, B, H)).astype(decoder.dtype) * 0.5 for _ in layer.state_names)
    given = {"state": state if len(state) > 1 else state[0]}
    if decoder.attention is not None:
        given |= {
            "memory": rng.standard_normal((B, S, E)).astype(decoder.dtype),
            "lengths": np.array([S, 1, 3, 0, 5, 2, 6])[:B],
        }
    return rng.integers(0, decoder.vocabulary, B), given


def by_reference(decoder, method, *arguments, **options):
    with fastrnn.config_context(engine="reference"):
        return getattr(decoder, method)(*arguments, **options)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("choice", [{}, {"temperature": 1.3}, {"temperature": 0.6, "top_k": 3}], ids=str)
def test_the_compiled_loop_is_the_one_in_numpy(compiled, cell, attention, choice):
    decoder = make(cell, attention)
    start, given = inputs(decoder, 5)
    options = given | choice | {"uniforms": np.random.default_rng(2).random((12, 5)), "log_probs": True}
    options["weights"] = attention is not None
    expected = by_reference(decoder, "sample", start, 12, **options)
    with compiled.active():
        found = decoder.sample(start, 12, **options)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.lengths, 12)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-11)
    if attention:
        np.testing.assert_allclose(found.weights, expected.weights, atol=1e-12)
    for a, b in zip(np.atleast_1d(found.state), np.atleast_1d(expected.state), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11)
    assert len(np.unique(found.tokens)) >= 3


@pytest.mark.parametrize("variant", [{"reset_after": False}, {"layer_norm": True}], ids=str)
def test_other_cells(variant):
    decoder = make("gru", "bahdanau", **variant)
    start, given = inputs(decoder, 3)
    options = given | {"temperature": 1.0, "uniforms": np.random.default_rng(2).random((9, 3))}
    expected = by_reference(decoder, "sample", start, 9, **options)
    np.testing.assert_array_equal(decoder.sample(start, 9, **options).tokens, expected.tokens)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_float32(compiled, attention):
    decoder = make("lstm", attention, np.float32)
    start, given = inputs(decoder, 4)
    forced = np.random.default_rng(5).integers(0, V, (10, 4))  # so that rounding cannot lead elsewhere
    options = given | {"forced": forced, "log_probs": True}
    expected = by_reference(decoder, "sample", start, 10, **options)
    with compiled.active():
        found = decoder.sample(start, 10, **options)
    np.testing.assert_array_equal(found.tokens, forced)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=2e-5)


def test_forced_tokens_are_read_and_the_others_chosen():
    decoder = make("gru")
    start, given = inputs(decoder, 3)
    forced = np.full((6, 3), -1)
    forced[2, 1] = 4
    free, mixed = decoder.sample(start, 6, **given), decoder.sample(start, 6, forced=forced, **given)
    np.testing.assert_array_equal(mixed.tokens[:, [0, 2]], free.tokens[:, [0, 2]])
    assert mixed.tokens[2, 1] == 4
    rest = decoder.sample([4], 3, state=decoder.sample(start[1:2], 3, state=given["state"][:, 1:2]).state)
    np.testing.assert_array_equal(mixed.tokens[3:, 1], rest.tokens[:, 0])


def test_log_probs_are_those_of_the_layers():
    decoder = make("lstm", sharp=1.0)
    start, given = inputs(decoder, 3)
    found = decoder.sample(start, 8, temperature=0.5, rng=0, log_probs=True, **given)
    read = np.concatenate([start[None], found.tokens[:-1]])
    hidden, _ = decoder.frozen(decoder.embedding(read), given["state"])
    expected = np.take_along_axis(log_softmax(decoder.head(hidden)), found.tokens[..., None], 2)[..., 0]
    np.testing.assert_allclose(found.log_probs, expected, atol=1e-11)


def test_a_first_token_that_is_never_written(compiled):
    parts = {"dtype": np.float64, "rng": np.random.default_rng(0)}
    decoder = Decoder(fastrnn.GRU(D, H, **parts), Linear(H, V, **parts), Embedding(V + 1, D, **parts))
    with compiled.active():
        found = decoder.sample([V], 1, log_probs=True)
    chances = log_softmax(decoder.head(decoder.frozen(decoder.embedding(np.array([[V]])))[0])[0, 0])
    assert found.tokens == chances.argmax()
    assert found.log_probs[0, 0] == pytest.approx(chances.max(), abs=1e-12)
    with pytest.raises(ValueError, match=r"^start: values from 12"):
        decoder.sample([V + 1], 1)


def test_sampling_follows_the_softmax():
    decoder = make("rnn", sharp=2.0)
    start, many = np.zeros(1, int), 20000
    p = np.exp(log_softmax(decoder.head(decoder.frozen(decoder.embedding(start[None]))[0])[0, 0]) / 0.8)
    p /= p.sum()
    found = decoder.sample(np.zeros(many, int), 1, temperature=0.8, rng=0).tokens
    np.testing.assert_allclose(np.bincount(found[0], minlength=V) / many, p, atol=0.015)
    likely = set(np.argsort(-p)[:3])
    few = decoder.sample(np.zeros(many, int), 1, temperature=5.0, top_k=3, rng=0).tokens
    assert set(np.unique(few)) == likely
    assert np.all(decoder.sample(start, 1, temperature=9.0, top_k=1, rng=3).tokens == p.argmax())


def test_either_end_of_the_line(compiled):
    """With AVX-512 the sum of all parts was rounded up, u next to 1 was beyond it, and the likeliest was taken."""
    decoder = make("rnn", sharp=2.0)
    uniforms = np.array([[0.0, 1 - 1e-16]])
    with compiled.active():
        assert np.all(decoder.sample([0, 0], 1, temperature=1.0, uniforms=uniforms).tokens == [[0, V - 1]])
        cold = decoder.sample([0, 0], 1, temperature=1e-300, uniforms=uniforms).tokens
    likeliest = decoder.head(decoder.frozen(decoder.embedding(np.zeros((1, 1), int)))[0]).argmax()
    assert np.all(cold == likeliest)


def test_equal_logits_go_to_the_first(compiled):
    decoder = make("rnn")
    decoder.head.weight[...] = 0
    decoder._bias[...] = [0, 2, 1, 2, 0, 1, 1, 0, 0, 0, 0]
    with compiled.active():
        assert decoder.sample([0], 1).tokens == 1
        u = (np.arange(40)[:, None] + 0.5) / 40
        for k, expected in ((1, [1]), (2, [1, 3]), (3, [1, 2, 3]), (4, [1, 2, 3, 5])):
            found = decoder.sample([0], 40, temperature=1.0, top_k=k, uniforms=u).tokens
            assert sorted(np.unique(found)) == expected


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_row_does_not_depend_on_the_others(attention, threads):
    decoder = make("lstm", attention, np.float32)
    start, given = inputs(decoder, 7)
    options = {"temperature": 1.0, "log_probs": True, "end": 3}
    u = np.random.default_rng(2).random((400, 7))
    with fastrnn.config_context(num_threads=threads):
        together = decoder.sample(start, 400, uniforms=u, **options, **given)
        for b in range(7):
            mine = {"state": tuple(part[:, b : b + 1] for part in given["state"])}
            mine |= {name: given[name][b : b + 1] for name in ("memory", "lengths") if name in given}
            alone = decoder.sample(start[b : b + 1], 400, uniforms=u[:, b : b + 1], **options, **mine)
            n = alone.lengths[0]
            assert n == together.lengths[b]
            np.testing.assert_array_equal(alone.tokens[:n, 0], together.tokens[:n, b])
            np.testing.assert_array_equal(alone.log_probs[:n, 0], together.log_probs[:n, b])


@pytest.mark.parametrize("cell", [("lstm", {}), ("gru", {"reset_after": False})], ids=str)
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_members_who_meet_write_the_same(cell, attention, dtype, monkeypatch):
    decoder = make(cell[0], attention, dtype, 150, **cell[1])  # more columns than one member takes
    start, given = inputs(decoder, 3)
    options = given | {"temperature": 1.0, "uniforms": np.random.default_rng(2).random((9, 3)), "log_probs": True}
    alone, beams = decoder.sample(start, 9, **options), decoder.search(start, 6, 4, end=2, **given)
    for members in (2, 3):
        sharing = {"members": members, "patience": 10**9, "together": True}
        monkeypatch.setattr(decoder, "_sharing", lambda *_, sharing=sharing: sharing)
        for found, expected in (
            (decoder.sample(start, 9, **options), alone),
            (decoder.search(start, 6, 4, end=2, **given), beams),
        ):
            assert len(np.unique(found.tokens)) >= 3
            np.testing.assert_array_equal(found.tokens, expected.tokens)
        np.testing.assert_array_equal(found.scores, beams.scores)
    again = decoder.sample(start, 9, weights=attention is not None, **options)
    np.testing.assert_array_equal(again.log_probs, alone.log_probs)
    for a, b in zip(np.atleast_1d(again.state), np.atleast_1d(alone.state), strict=True):
        np.testing.assert_array_equal(a, b)
    options["uniforms"] = np.random.default_rng(3).random((200, 3)) ** 3
    ended = decoder.sample(start, 200, end=4, **options)
    monkeypatch.undo()
    assert ended.lengths.max() < 200
    np.testing.assert_array_equal(ended.tokens, decoder.sample(start, 200, end=4, **options).tokens)


def test_members_who_meet_feed_the_same(monkeypatch):
    options = {"rng": 0, "dtype": np.float32}
    decoder = Decoder(fastrnn.LSTM(70, H, 2, **options), Linear(H, 70, **options))
    start, noise = np.random.default_rng(1).standard_normal((2, 8, 3, 70)).astype(np.float32)
    alone, _ = decoder.feed(start[0], 8, noise=noise)
    monkeypatch.setattr(decoder, "_sharing", lambda *_: {"members": 2, "patience": 10**9, "together": True})
    np.testing.assert_array_equal(decoder.feed(start[0], 8, noise=noise)[0], alone)


def test_few_sequences_of_large_layers_are_shared_by_units(monkeypatch):
    monkeypatch.setattr(_sharing, "CPUS", 2)
    layer = fastrnn.GRU(D, 160, rng=0)
    decoder = Decoder(layer, Linear(160, V, rng=1), Embedding(V, D, rng=2))
    with fastrnn.config_context(num_threads=2, engine="native"):
        assert decoder._sharing(100, 1, 1)["together"]
        assert decoder._sharing(100, 8, 1)["together"]  # the hypotheses of one source
        assert "together" not in decoder._sharing(100, 8, 8)
        assert decoder._sharing(1, 1, 1)["members"] == 1


def test_the_end(compiled):
    decoder = make("gru", "luong")
    start, given = inputs(decoder, 5)
    options = given | {"temperature": 1.0, "uniforms": np.random.default_rng(3).random((200, 5))}
    with compiled.active():
        free = decoder.sample(start, 200, **options)
        found = decoder.sample(start, 200, end=4, padding=-7, log_probs=True, weights=True, **options)
    assert len(found.tokens) == found.lengths.max() < 200
    for b, n in enumerate(found.lengths):
        np.testing.assert_array_equal(found.tokens[:n, b], free.tokens[:n, b])
        assert found.tokens[n - 1, b] == 4
        assert 4 not in found.tokens[: n - 1, b]
        assert np.all(found.tokens[n:, b] == -7)
        assert np.all(found.log_probs[:n, b] < 0)
        assert np.all(found.log_probs[n:, b] == 0)
        assert np.all(found.weights[n:, b] == 0)


@pytest.mark.parametrize("attention", ATTENTIONS[1:])
def test_attention_ignores_padding(compiled, attention):
    decoder = make("lstm", attention)
    start, given = inputs(decoder, 5)
    there = np.arange(S) < given["lengths"][:, None]
    with compiled.active():
        found = decoder.sample(start, 6, weights=True, **given)
        given["memory"][~there] = 1e3
        again = decoder.sample(start, 6, weights=True, **given)
    np.testing.assert_array_equal(found.weights, again.weights)
    np.testing.assert_array_equal(found.tokens, again.tokens)
    assert np.all(found.weights[:, ~there] == 0)
    np.testing.assert_allclose(found.weights.sum(axis=2), np.broadcast_to(given["lengths"] > 0, (6, 5)), atol=1e-12)


def test_a_state_goes_on():
    decoder = make("lstm")
    start, given = inputs(decoder, 3)
    u = np.random.default_rng(2).random((11, 3))
    whole = decoder.sample(start, 11, temperature=1.0, uniforms=u, **given)
    first = decoder.sample(start, 4, temperature=1.0, uniforms=u[:4], **given)
    rest = decoder.sample(first.tokens[-1], 7, temperature=1.0, uniforms=u[4:], state=first.state)
    np.testing.assert_array_equal(np.concatenate([first.tokens, rest.tokens]), whole.tokens)
    for a, b in zip(rest.state, whole.state, strict=True):
        np.testing.assert_array_equal(a, b)
    assert decoder.sample(start, 0, **given).tokens.shape == (0, 3)


# --- beam search -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("beam", [1, 2, 5, 20])
def test_the_compiled_search_is_the_one_in_numpy(compiled, attention, beam):
    decoder = make("lstm", attention)
    start, given = inputs(decoder, 4)
    options = given | {"end": 2, "padding": 0, "penalty": 0.7, "weights": attention is not None}
    expected = by_reference(decoder, "search", start, 9, beam, **options)
    with compiled.active():
        found = decoder.search(start, 9, beam, **options)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-11)
    if attention:
        np.testing.assert_allclose(found.weights, expected.weights, atol=1e-12)


def every_sequence(vocabulary, steps, end):
    """All that a decoder can write in so many steps."""
    for tokens in itertools.product(range(vocabulary), repeat=steps):
        if end not in tokens[:-1]:
            yield tokens
    for n in range(1, steps):
        for tokens in itertools.product([v for v in range(vocabulary) if v != end], repeat=n - 1):
            yield (*tokens, end)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_wide_beam_finds_what_trying_all_finds(attention):
    decoder, steps, end = make("gru", attention, vocabulary=3, sharp=1.0), 4, 2
    start, given = inputs(decoder, 2)
    every = list(every_sequence(3, steps, end))
    scores = np.empty((len(every), 2))
    for k, tokens in enumerate(every):
        forced = np.repeat(np.array(tokens)[:, None], 2, axis=1)
        scores[k] = decoder.sample(start, len(tokens), forced=forced, log_probs=True, **given).log_probs.mean(axis=0)
    found = decoder.search(start, steps, 90, end=end, padding=0, **given)  # wide enough for all
    for b in range(2):
        order = np.argsort(-scores[:, b])
        np.testing.assert_allclose(found.scores[b, : len(every)], scores[order, b], atol=1e-12)
        assert np.all(np.isneginf(found.scores[b, len(every) :]))
        for w in (0, 1, len(every) - 1):
            assert tuple(found.tokens[: found.lengths[b, w], b, w]) == every[order[w]]
            assert np.all(found.tokens[found.lengths[b, w] :, b, w] == 0)


@pytest.mark.parametrize("engine", ["reference", "blas", "native"])
def test_any_padding_stands_behind_the_ends(engine):
    decoder = make("gru", "luong")
    start, given = inputs(decoder, 4)
    with fastrnn.config_context(engine=engine):
        plain, other = (decoder.search(start, 30, 13, end=2, padding=padding, **given) for padding in (0, 10**12))
    assert len(np.unique(plain.lengths)) > 2
    np.testing.assert_array_equal(other.lengths, plain.lengths)
    np.testing.assert_array_equal(other.scores, plain.scores)
    behind = np.arange(len(plain.tokens))[:, None, None] >= plain.lengths
    assert np.all(other.tokens[behind] == 10**12)
    assert np.all(plain.tokens[behind] == 0)
    np.testing.assert_array_equal(other.tokens[~behind], plain.tokens[~behind])


@pytest.mark.parametrize(("steps", "places"), [(0, S), (5, 0)])
def test_a_search_without_steps_or_memory(steps, places):
    decoder = make("gru", "luong")
    start, given = inputs(decoder, 2)
    given["memory"], given["lengths"] = given["memory"][:, :places], None
    found = decoder.search(start, steps, 3, end=2, weights=True, **given)
    assert found.weights.shape == (len(found.tokens), 2, 3, places)
    assert len(found.tokens) <= steps


def test_a_beam_of_one_is_greedy():
    decoder = make("lstm", "luong")
    start, given = inputs(decoder, 4)
    greedy = decoder.sample(start, 15, end=2, weights=True, log_probs=True, **given)
    found = decoder.search(start, 15, 1, end=2, weights=True, **given)
    np.testing.assert_array_equal(found.tokens[:, :, 0], greedy.tokens)
    np.testing.assert_allclose(found.weights[:, :, 0], greedy.weights, atol=1e-12)
    np.testing.assert_allclose(found.scores[:, 0], greedy.log_probs.sum(axis=0) / greedy.lengths, atol=1e-12)


# --- feeding back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_series_go_on(compiled, cell):
    model = SequenceModel(3, H, 2, cell, dtype=np.float64, rng=0)
    x = np.random.default_rng(1).standard_normal((4, 6, 3))
    with compiled.active():
        y = model.continue_(x, 5)
        noisy = model.continue_(x, 5, noise=0.5, rng=7)
        again = model.continue_(x, 5, noise=0.5, rng=7)
    assert y.shape == (4, 5, 3)
    whole = np.concatenate([x, y], axis=1)
    np.testing.assert_allclose(model(whole[:, :-1])[:, 5:], y, atol=1e-12)
    np.testing.assert_array_equal(noisy, again)
    added = noisy - model(np.concatenate([x, noisy], axis=1)[:, :-1])[:, 5:]
    np.testing.assert_allclose(added, np.random.default_rng(7).standard_normal((5, 4, 3)).transpose(1, 0, 2) * 0.5)
    with fastrnn.config_context(engine="reference"):
        np.testing.assert_allclose(model.continue_(x, 5), y, atol=1e-12)


def test_it_learns_a_sine():
    t = np.arange(120) * 0.3 + np.arange(8)[:, None]
    x = np.sin(t).astype(np.float32)[:, :, None]
    model = SequenceModel(1, 24, rng=0)
    optimiser = fastrnn.nn.Adam(model, 0.01)
    for _ in range(150):
        y, cache = model.forward(x[:, :79])
        optimiser.zero_grad()
        model.backward(cache, (y - x[:, 1:80]) * np.float32(2 / y.size))
        optimiser.step()
    assert np.abs(model.continue_(x[:, :80], 20) - x[:, 80:100]).max() < 0.2


# --- what is refused -------------------------------------------------------------------------------------------------


def test_bad_arguments():
    decoder, looking = make(), make(attention="luong")
    memory = np.zeros((1, S, E))
    series = Decoder(fastrnn.RNN(2, 3, rng=0), Linear(3, 2, rng=0))
    rnn, head, words = fastrnn.RNN(4, 3), Linear(3, 5), Embedding(5, 4)
    for call, message in (
        (lambda: decoder.sample([V], 2), r"^start: values from 11"),
        (lambda: decoder.sample([[1]], 2), r"^start: shape \(1, 1\)"),
        (lambda: decoder.sample(np.zeros(0, int), 2), r"^start: empty"),
        (lambda: decoder.sample([1], -1), r"^steps: -1, expected a whole number from 0"),
        (lambda: SequenceModel(2, 3).continue_(np.zeros((1, 2, 2), np.float32), -1, noise=1.0), r"^steps: -1"),
        (lambda: decoder.sample([1], 2, temperature=-1.0), r"^temperature: -1.0"),
        (lambda: decoder.sample([1], 2, temperature=np.nan), r"^temperature: nan"),
        (lambda: decoder.sample([1], 2, top_k=0), r"^top_k: 0"),
        (lambda: decoder.sample([1], 2, temperature=1.0, uniforms=np.zeros((2, 2))), r"^uniforms: shape \(2, 2\)"),
        (lambda: decoder.sample([1], 2, temperature=1.0, uniforms=np.ones((2, 1))), r"^uniforms: from 1.0 to 1.0"),
        (lambda: decoder.sample([1], 2, temperature=1.0, uniforms=np.full((2, 1), np.nan)), r"^uniforms: from nan"),
        (lambda: decoder.sample([1], 2, forced=[[1], [V]]), r"^forced: values from 1 to 11, expected"),
        (lambda: decoder.sample([1], 2, forced=[[1], [-2]]), r"^forced: values from -2"),
        (lambda: decoder.sample([1], 2, forced=[[1.5], [-1]]), r"^forced: dtype float64"),
        (lambda: decoder.sample([1], 2, forced=[[1]]), r"^forced: shape \(1, 1\)"),
        (lambda: decoder.sample([1], 2, end=V), r"^end: values from 11"),
        (lambda: decoder.sample([1], 2, end=-1), r"^end: values from -1"),
        (lambda: decoder.search([1], 2, 2, end=None), r"^end: dtype object, expected integers"),
        (lambda: decoder.search([1], 2, 2, end=V), r"^end: values from 11"),
        (lambda: decoder.search([1], 2, 2, end=0, penalty=np.nan), r"^penalty: nan"),
        (lambda: decoder.sample([1], 2, state=np.zeros(3)), r"^state: "),
        (lambda: decoder.sample([1], 2, memory=memory), r"^memory: given"),
        (lambda: decoder.sample([1], 2, weights=True), r"^weights: asked for"),
        (lambda: decoder.search([1], 2, 0, end=2), r"^beam: 0"),
        (lambda: looking.sample([1], 2), r"^memory: dtype object"),
        (lambda: looking.sample([1], 2, memory=memory[:, :, 1:]), r"^memory: shape \(1, 7, 5\)"),
        (lambda: looking.sample([1], 2, memory=memory, lengths=[8]), r"^lengths: values from 8"),
        (lambda: decoder.feed(np.zeros((1, V)), 2), r"^start: the decoder has an embedding"),
        (lambda: series.sample([1], 2), r"^start: the decoder has no embedding"),
        (lambda: series.feed(np.zeros((1, 3), np.float32), 2), r"^start: shape \(1, 3\)"),
        (lambda: Decoder(fastrnn.RNN(2, 3), Linear(3, 4)), r"^layer: input_size 2, expected 4"),
        (lambda: Decoder(fastrnn.RNN(4, 3), Linear(2, 4)), r"^head: in_features 2, expected 3"),
        (lambda: Decoder(fastrnn.RNN(4, 3, bidirectional=True), Linear(6, 4)), r"^layer: bidirectional"),
        (lambda: Decoder(rnn, Linear(3, 6), Embedding(5, 4)), r"^embedding: 5 vectors, expected one for each of the 6"),
        (lambda: Decoder(rnn, head, words, LuongAttention(2, 4)), r"^attention: hidden_size 2, expected 3"),
        (lambda: Decoder(fastrnn.RNN(8, 3), head, words, BahdanauAttention(2, 4, 5)), r"^attention: hidden_size 2"),
        (lambda: Decoder(rnn, Linear(3, 5, dtype=float), words), r"^head: dtype float64, expected float32"),
        (lambda: Decoder(rnn, head, Embedding(5, 4, dtype=float)), r"^embedding: dtype float64, expected float32"),
        (lambda: Decoder(rnn, head, words, LuongAttention(3, 4, dtype=float)), r"^attention: dtype float64"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()
