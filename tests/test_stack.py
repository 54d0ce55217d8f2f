"""Stacks of different layers: wiring, gradients, freezing, streaming."""

import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, RNN, Stack, pack_padded_sequence

T, B, I = 5, 3, 4
LENGTHS = [5, 0, 3]
F64 = {"dtype": np.float64}


def plain(**o):
    return Stack([LSTM(I, 6, rng=1, **o), GRU(6, 5, rng=2, **o), RNN(5, 5, rng=3, **o)], residual=[False, False, True])


def all_residual(**o):
    return Stack([GRU(I, I, rng=1, **o), LSTM(I, I, num_layers=2, rng=2, **o)], residual=True)


def from_input(**o):
    return Stack([GRU(I, 6, rng=1, **o), LSTM(I + 6, 3, rng=2, **o), RNN(I + 3, 2, rng=3, **o)], skip="input")


def dense(**o):
    layers = [GRU(I, 6, rng=1, **o), LSTM(I + 6, 3, rng=2, **o), RNN(I + 9, I + 9, rng=3, **o)]
    return Stack(layers, skip="all", residual=[False, False, True])


def nested(**o):
    return Stack([from_input(**o), RNN(2, 2, rng=4, **o)], residual=[False, True])


def two_ways(**o):
    first = LSTM(I, 3, bidirectional=True, rng=1, **o)
    return Stack([first, GRU(6, 4, bidirectional=True, merge="sum", rng=2, **o)], residual=[False, False])


STACKS = {make.__name__: make for make in (plain, all_residual, from_input, dense, nested, two_ways)}
every_stack = pytest.mark.parametrize("make", STACKS.values(), ids=STACKS)
both_ways = pytest.mark.parametrize("batch_first", [False, True])


def leaves(state):
    return [a for part in state for a in leaves(part)] if isinstance(state, list | tuple) else [state]


def like(state, rng):
    """Random numbers in the shape of a state."""
    if isinstance(state, list | tuple):
        return type(state)(like(part, rng) for part in state)
    return rng.standard_normal(state.shape).astype(state.dtype)


def problem(stack, rng, batch_first):
    """x and a state for every layer."""
    x = rng.standard_normal((B, T, I) if batch_first else (T, B, I)).astype(stack.dtype)
    return x, like(stack(x)[1], rng)


def by_hand(stack, x, state, lengths):
    """The definition, written out for the time-major stacks without another one in them."""
    valid = 1 if lengths is None else (np.arange(T)[:, None] < lengths)[:, :, None]
    residual, skip = stack.wiring
    below, ends = [x], []
    for k, layer in enumerate(stack.layers):
        reads = {"none": below[-1:], "input": [x, below[-1]] if k else [x], "all": below}[skip]
        x_k = np.concatenate(reads, axis=2)
        y_k, end = layer(x_k, state[k], lengths)
        below.append((y_k + x_k) * valid if residual[k] else y_k)
        ends.append(end)
    return below[-1], ends


@pytest.mark.parametrize("make", [make for make in STACKS.values() if make is not nested], ids=lambda f: f.__name__)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=str)
def test_a_stack_is_its_layers_by_hand(make, lengths):
    stack = make(**F64)
    x, state = problem(stack, np.random.default_rng(0), False)
    expected, ends = by_hand(stack, x, state, lengths)
    for y, end, *_ in (stack(x, state, lengths), stack.forward(x, state, lengths)):
        assert y.shape == (T, B, stack.output_size)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-15)
        for a, b in zip(leaves(end), leaves(ends), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-15)
    y, _ = stack(x)
    zeros = [None] * len(stack.layers)
    np.testing.assert_allclose(y, by_hand(stack, x, zeros, None)[0], rtol=0, atol=1e-15)


def test_a_nested_stack_is_the_two_by_hand():
    stack = nested(**F64)
    inner, last = stack.layers
    x, state = problem(stack, np.random.default_rng(0), False)
    between, inner_end = inner(x, state[0])
    y, end = last(between, state[1])
    ours, ends = stack(x, state)
    np.testing.assert_array_equal(ours, y + between)
    for a, b in zip(leaves(ends), leaves([inner_end, end]), strict=True):
        np.testing.assert_array_equal(a, b)
    names = [p.name for p in stack.parameters()]
    assert names[:4] == ["0.0.weight_ih_l0", "0.0.weight_hh_l0", "0.0.bias_ih_l0", "0.0.bias_hh_l0"]
    assert names[-1] == "1.bias_hh_l0"


@every_stack
@both_ways
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=str)
def test_gradients_against_finite_differences(make, batch_first, lengths):
    rng = np.random.default_rng(0)
    stack = make(batch_first=batch_first, **F64)
    x, state = problem(stack, rng, batch_first)
    y, ends, cache = stack.forward(x, state, lengths)
    dy, dends = rng.standard_normal(y.shape), like(ends, rng)
    given = dy.copy()
    if lengths is not None:
        past = np.arange(T)[:, None] >= lengths
        given[past.T if batch_first else past] = np.nan
    dx, dstate = stack.backward(cache, given, dends)

    def loss():
        y, ends = stack(x, state, lengths)
        return np.sum(y * dy) + sum(np.sum(a * b) for a, b in zip(leaves(ends), leaves(dends), strict=True))

    values = [(x, dx), *zip(leaves(state), leaves(dstate), strict=True)]
    for value, grad in [*values, *((p.value, p.grad) for p in stack.parameters())]:
        assert grad.shape == value.shape
        for index in rng.permutation(value.size)[:5]:
            at = np.unravel_index(index, value.shape)
            old = value[at]
            value[at] = old + 1e-6
            up = loss()
            value[at] = old - 1e-6
            down = loss()
            value[at] = old
            assert grad[at] == pytest.approx((up - down) / 2e-6, rel=1e-6, abs=1e-8)


@both_ways
@pytest.mark.parametrize("make", [plain, dense], ids=lambda f: f.__name__)
def test_what_is_past_an_end_reaches_nothing(make, batch_first):
    rng = np.random.default_rng(0)
    stack = make(batch_first=batch_first, **F64)
    x, state = problem(stack, rng, batch_first)
    past = (np.arange(T)[:, None] >= LENGTHS).T if batch_first else np.arange(T)[:, None] >= LENGTHS
    x[past] = np.nan
    y, _, cache = stack.forward(x, state, LENGTHS)
    assert not y[past].any()
    dx, _ = stack.backward(cache, np.where(past[:, :, None], np.nan, np.ones_like(y)))
    assert not dx[past].any()
    assert np.isfinite(dx).all()
    assert all(np.isfinite(p.grad).all() for p in stack.parameters())


def test_only_what_is_needed():
    stack = dense(**F64)
    x, _ = problem(stack, np.random.default_rng(0), False)
    y, _, cache = stack.forward(x)
    dx, _ = stack.backward(cache, y)
    grads = {p.name: p.grad.copy() for p in stack.parameters()}
    stack.zero_grad()
    _, _, cache = stack.forward(x)
    assert stack.backward(cache, y, need="params")[0] is None
    for p in stack.parameters():
        np.testing.assert_array_equal(p.grad, grads[p.name])
    stack.zero_grad()
    _, _, cache = stack.forward(x)
    np.testing.assert_array_equal(stack.backward(cache, y, need="x")[0], dx)
    assert not any(p.grad.any() for p in stack.parameters())
    _, _, cache = stack.forward(x)
    assert not stack.backward(cache, None)[0].any()


@every_stack
@both_ways
@pytest.mark.parametrize("engine", ["native", "blas", "reference"])
def test_frozen_stacks(make, batch_first, engine):
    stack = make(batch_first=batch_first)
    x, state = problem(stack, np.random.default_rng(0), batch_first)
    with fastrnn.config_context(engine=engine):
        fast = pickle.loads(pickle.dumps(stack.freeze()))
        for lengths in (None, LENGTHS):
            expected, ends = stack(x, state, lengths)
            out = np.full_like(expected, np.nan)
            y, frozen_ends = fast(x, state, lengths, out=out)
            assert y is out
            for a, b in zip([y, *leaves(frozen_ends)], [expected, *leaves(ends)], strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
            np.testing.assert_array_equal(fast(x, state, lengths)[0], y)
    assert list(fast.state_dict()) == list(stack.state_dict())
    for p in stack.parameters():
        p.value[...] += 1
    with fastrnn.config_context(engine=engine):
        np.testing.assert_array_equal(fast(x, state, LENGTHS)[0], y)
    with pytest.raises(AttributeError):
        fast.layers = ()


@pytest.mark.parametrize("make", [make for make in STACKS.values() if make is not two_ways], ids=lambda f: f.__name__)
@pytest.mark.parametrize("engine", ["native", "blas", "reference"])
def test_streamed_stacks(make, engine):
    stack = make(**F64)
    x, state = problem(stack, np.random.default_rng(0), False)
    with fastrnn.config_context(engine=engine):
        expected, ends = stack(x, state)
        stream = stack.freeze().stream(B)
        stream.state = state
        outputs = [stream.step(x_t).copy() for x_t in x]
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-13)
        for a, b in zip(leaves(stream.state), leaves(ends), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)
        stream.reset([True, False, True])
        for a, b in zip(leaves(stream.state), leaves(ends), strict=True):
            assert not a[:, [0, 2]].any()
            np.testing.assert_allclose(a[:, 1], b[:, 1], rtol=0, atol=1e-13)
        stream.reset()
        np.testing.assert_allclose(stream.step(x[0]), stack(x[:1])[0][0], rtol=0, atol=1e-13)


@every_stack
@both_ways
def test_packed_sequences(make, batch_first):
    rng, lengths = np.random.default_rng(0), [2, 5, 3]
    stack = make(batch_first=batch_first, **F64)
    x, state = problem(stack, rng, batch_first)

    def packed(a):
        return pack_padded_sequence(a, lengths, batch_first, enforce_sorted=False)

    expected, ends, cache = stack.forward(x, state, lengths)
    dx, dstate = stack.backward(cache, expected)
    y, packed_ends, cache = stack.forward(packed(x), state)
    packed_dx, packed_dstate = stack.backward(cache, y)
    np.testing.assert_array_equal(y.data, packed(expected).data)
    np.testing.assert_array_equal(packed_dx.data, packed(dx).data)
    for a, b in zip(leaves([packed_ends, packed_dstate]), leaves([ends, dstate]), strict=True):
        np.testing.assert_array_equal(a, b)
    for call in (stack, stack.freeze()):
        np.testing.assert_allclose(call(packed(x), state)[0].data, y.data, rtol=0, atol=1e-14)


def test_layers_that_learn_or_remember_where_they_start():
    stack = Stack([GRU(I, 5, learn_initial_state=True, **F64), LSTM(5, 3, stateful=True, **F64)])
    stack.layers[0].h0_l0 = np.arange(5.0)
    x = np.random.default_rng(0).standard_normal((T, B, I))
    first, _ = stack(x)
    end = stack.layers[1].state
    second, _, cache = stack.forward(x)
    given = [np.tile(np.arange(5.0), (1, B, 1)), end]
    np.testing.assert_array_equal(second, stack(x, given)[0])
    assert not np.array_equal(first, second)
    stack.backward(cache, second)
    assert stack.layers[0].grads["h0_l0"].any()


def test_options_go_to_every_layer():
    stack = plain(**F64)
    x, _ = problem(stack, np.random.default_rng(0), False)
    y, _, cache = stack.forward(x, checkpoint=2, workspace=fastrnn.Workspace())
    np.testing.assert_array_equal(y, stack.forward(x)[0])
    assert all(layer_cache.workspace is not None for layer_cache in cache.caches)
    with pytest.raises(ValueError, match=r"^checkpoint: 0"):
        stack.forward(x, checkpoint=0)
    with pytest.raises(TypeError, match="anything"):
        stack(x, anything=1)


def test_state_dict_and_repr():
    stack, other = plain(), plain()
    for p in stack.parameters():
        p.value[...] += 1
    other.load_state_dict(stack.state_dict())
    x = np.ones((T, B, I), np.float32)
    np.testing.assert_array_equal(other(x)[0], stack(x)[0])
    assert repr(stack).startswith("Stack([LSTM(4, 6, dtype=float32), GRU(6, 5, ")
    assert repr(stack).endswith("], residual=[False, False, True])")
    assert repr(from_input()).endswith("], skip='input')")


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        ([], {}, r"^layers: none"),
        ([3], {}, r"^layers\[0\]: int, expected a layer"),
        ([RNN(2, 3), fastrnn.Module()], {}, r"^layers\[1\]: Module, expected .* it lacks input_size"),
        ([RNN(2, 3), RNN(2, 3)], {}, r"^layers\[1\]: input_size 2, expected 3 of layers\[0\]"),
        ([RNN(2, 3), RNN(3, 3)], {"skip": "input"}, r"^layers\[1\]: input_size 3, expected 2 of x \+ 3 of layers\[0\]"),
        (
            [RNN(2, 3), RNN(5, 3), RNN(6, 3)],
            {"skip": "all"},
            r"^layers\[2\]: input_size 6, expected 2 of x \+ 3 of layers\[0\] \+ 3 of layers\[1\]",
        ),
        ([RNN(2, 3), RNN(3, 3)], {"skip": "both"}, r"^skip: 'both', expected one of 'none', 'input', 'all'"),
        ([RNN(2, 3), RNN(3, 3)], {"residual": True}, r"^residual: layers\[0\] makes 3 of 2, expected one width"),
        ([RNN(2, 3), RNN(3, 3)], {"residual": [True]}, r"^residual: 1 of them, expected one for each of 2 layers"),
        ([RNN(2, 3), RNN(3, 3, batch_first=True)], {}, r"^layers\[1\]: batch_first True, expected False as in"),
        ([RNN(2, 3), RNN(3, 3, dtype=np.float64)], {}, r"^layers\[1\]: dtype float64, expected float32 as in"),
        ([RNN(3, 3)] * 2, {}, r"^layers\[1\]: the same object as one below it"),
        (GRU(2, 3), {}, r"^layers: GRU, expected a sequence of layers"),
        ([GRU(2, 3, bidirectional=True, merge=None)], {}, r"^layers\[0\]: merge=None gives two outputs"),
    ],
)
def test_bad_stacks(layers, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Stack(layers, **options)


def test_bad_calls():
    stack = plain()
    x = np.zeros((T, B, I), np.float32)
    h = np.zeros((1, B, 6), np.float32)
    for call in (stack, stack.freeze(), stack.forward):
        for arguments, message in (
            ((x[0],), r"^x: shape \(3, 4\), expected \(T, B, I\) with I = 4"),
            ((x.astype(np.float64),), r"^x: dtype float64, expected float32"),
            ((x, h), r"^state: ndarray, expected a list of 3 layers' states"),
            ((x, [h]), r"^state: 1 of them, expected one for each of 3 layers"),
            ((x, [(h, h[:, 1:]), None, None]), r"^state\[1\]: shape"),
            ((x, None, [6, 1, 1]), r"^lengths: values from 1 to 6, expected 0 to T = 5"),
        ):
            with pytest.raises((ValueError, TypeError), match=message):
                call(*arguments)
    with pytest.raises(ValueError, match=r"^out: shape"):
        stack.freeze()(x, out=x)
    y, _, cache = stack.forward(x)
    other = plain()
    with pytest.raises(ValueError, match=r"^cache: it is of another stack"):
        other.backward(cache, y)
    with pytest.raises(TypeError, match=r"^cache: NoneType"):
        stack.backward(None, y)
    with pytest.raises(ValueError, match=r"^dy: shape \(4, 3, 5\)"):
        stack.backward(cache, y[1:])
    for bad, message in (
        ([(h, h), None], r"^dstate: 2 of them"),
        ([h, None, None], r"^dstate\[0\]: ndarray, expected 2 arrays"),
        (
            [(h, h[:, 1:]), None, None],
            r"^dstate\[0\]\[1\]: shape \(1, 2, 6\), expected that of the state = \(1, 3, 6\)",
        ),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            stack.backward(cache, y, bad)
    assert not any(p.grad.any() for p in stack.parameters())
    stack.backward(cache, y, [(h, None), None, None])
    with pytest.raises(ValueError, match=r"^cache: it has been used"):
        stack.backward(cache, y)

    with pytest.raises(ValueError, match=r"^stream: the layer is bidirectional"):
        two_ways().freeze().stream()
    stream = stack.freeze().stream(B)
    stream.step(x[0] + 1)
    before = stream.state
    with pytest.raises(ValueError, match=r"^x_t: shape \(2, 4\)"):
        stream.step(x[0, 1:])
    with pytest.raises(ValueError, match=r"^state: shape"):
        stream.state = [(h, h), h[:, :, 1:], h]
    for a, b in zip(leaves(stream.state), leaves(before), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_stack_may_hold_a_layer_that_cannot_be_frozen():
    rng = np.random.default_rng(40)
    stack = Stack([fastrnn.MinGRU(I, 6, rng=1, **F64), GRU(6, 5, rng=2, **F64)])
    x, state = problem(stack, rng, False)
    reset = rng.random((T, B)) < 0.3
    y, ends, cache = stack.forward(x, state, LENGTHS, reset=reset)
    assert not np.array_equal(y, by_hand(stack, x, state, LENGTHS)[0])  # which has no resets
    below, end = stack.layers[0](x, state[0], LENGTHS, reset=reset)
    expected, top = stack.layers[1](below, state[1], LENGTHS, reset=reset)
    np.testing.assert_allclose(y, expected, atol=1e-14)
    for a, b in zip(ends, (end, top), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-14)
    dx, _ = stack.backward(cache, np.ones_like(y))
    assert dx.shape == x.shape
    assert stack.layers[0].grads["weight_ih_l0"].any()
    with pytest.raises(TypeError, match=r"^freeze: MinGRU has no recurrent matrix"):
        stack.freeze()
