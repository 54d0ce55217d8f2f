"""PyTorch's recurrent modules on this package's kernels, beside torch.nn's own: outputs, gradients, errors."""

import copy
import re

import numpy as np
import pytest
from helpers import ENGINES, assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn

pytest.importorskip("torch", reason="torch, which the extra of this name installs, is not there")
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

from fastrnn.interop import torch as interop

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
torch.set_num_threads(1)  # the problems are small, and threads that wait for one another stall on a busy machine

PAIRS = [(torch.nn.RNN, interop.RNN), (torch.nn.LSTM, interop.LSTM), (torch.nn.GRU, interop.GRU)]
X = torch.zeros(5, 2, 3)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.fixture(params=PAIRS, ids=lambda pair: pair[1].cell)
def pair(request):
    return request.param


def pair_of(theirs, ours, *args, **options):
    """Both kinds of module with the same parameters: they draw the same ones."""
    modules = []
    for cls in (theirs, ours):
        torch.manual_seed(0)
        modules.append(cls(*args, **options))
    return modules


def tensors_of(value):
    """What a module took or returned, flat."""
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, torch.Tensor):
        return [value]
    return [] if value is None else [t for part in value for t in tensors_of(part)]


def results(module, x, hx, **options):
    """Outputs and the gradients of everything that wants one, of a loss that weighs each output's element."""
    leaves = [t for t in (*tensors_of(x), *tensors_of(hx), *module.parameters()) if t.requires_grad]
    torch.manual_seed(1)
    outputs = tensors_of(module(x, hx, **options))
    found = {f"output {k}": out.detach().numpy() for k, out in enumerate(outputs)}
    if leaves:
        loss = sum((out * torch.randn(out.shape, dtype=out.dtype)).sum() for out in outputs)
        grads = torch.autograd.grad(loss, leaves)
        found |= {f"gradient {k}": g.numpy() for k, g in enumerate(grads)}
    return found


@st.composite
def problems(draw):
    """A pair of modules, an input and a state."""
    theirs, ours = draw(st.sampled_from(PAIRS))
    size = st.integers(1, 4)
    I, H, layers = draw(size), draw(size), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    form = draw(st.sampled_from(["batched", "unbatched", "packed", "sorted"]))
    options = {name: draw(st.booleans()) for name in ("bias", "batch_first", "bidirectional")}
    if theirs is torch.nn.RNN:
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    if theirs is torch.nn.LSTM:
        options["proj_size"] = draw(st.integers(0, H - 1))
    if layers > 1 and form in ("batched", "unbatched"):  # packed steps would take other numbers from the generator
        options["dropout"] = draw(st.sampled_from([0.0, 0.5, 1.0]))
    modules = pair_of(theirs, ours, I, H, layers, dtype=dtype, **options)
    training = draw(st.booleans())
    frozen = draw(st.sampled_from(["nothing", "weights", "one weight"]))
    for module in modules:
        module.train(training)
        if frozen == "weights":
            module.requires_grad_(False)
        elif frozen == "one weight":
            module.weight_hh_l0.requires_grad_(False)
    T, B = draw(st.integers(1, 5)), 1 if form == "unbatched" else draw(size)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    wants = draw(st.booleans())

    def tensor(*shape):
        return torch.tensor(rng.standard_normal(shape), dtype=dtype, requires_grad=wants)

    if form in ("packed", "sorted"):
        lengths = rng.integers(1, T + 1, B)
        lengths = np.sort(lengths)[::-1] if form == "sorted" else lengths
        x = pack_sequence([tensor(n, I).detach() for n in lengths], enforce_sorted=form == "sorted")
        x.data.requires_grad_(wants)
    else:
        x = tensor(T, I) if form == "unbatched" else tensor(*((B, T) if options["batch_first"] else (T, B)), I)
    hx = None
    if draw(st.booleans()):
        many = layers * (1 + options["bidirectional"])
        shape = (many,) if form == "unbatched" else (many, B)
        hx = tensor(*shape, options.get("proj_size") or H)
        hx = (hx, tensor(*shape, H)) if theirs is torch.nn.LSTM else hx
    return modules, x, hx


@settings(max_examples=300)
@given(problems())
def test_parity(problem):
    (theirs, ours), x, hx = problem
    expected, got = results(theirs, x, hx), results(ours, x, hx)
    assert_close(got, expected, TOLERANCE[ours.weight_ih_l0.dtype])
    assert type(theirs(x, hx)[0]) is type(ours(x, hx)[0])
    with torch.no_grad():
        assert_close(results_without(ours, x, hx), results_without(theirs, x, hx), TOLERANCE[ours.weight_ih_l0.dtype])
        assert not any(out.requires_grad for out in tensors_of(ours(x, hx)))


def results_without(module, x, hx):
    torch.manual_seed(1)
    return {f"output {k}": out.numpy() for k, out in enumerate(tensors_of(module(x, hx)))}


def test_every_engine(pair):
    theirs, ours = pair_of(*pair, 3, 4, 2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    expected = results(theirs, x, None)
    for engine in ENGINES:
        with engine.active():
            assert_close(results(ours, x, None), expected, 1e-10)


@pytest.mark.parametrize("form", ["dense", "lengths", "packed", "one step", "one step of large weights"])
@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True, "num_layers": 3}, {"bias": False, "batch_first": True}]
)
@pytest.mark.parametrize("given", ["no state", "a state", "one of two"])
def test_one_compiled_call_gives_the_same_bits(pair, form, options, given):
    """Without gradients a whole module is one call; with them it is one for each layer and direction."""
    H = 256 if form == "one step of large weights" else 5
    _, module = pair_of(*pair, 3, H, **options)
    T = 1 if form.startswith("one step") else 6
    x = torch.randn(4, T, 3) if module.batch_first else torch.randn(T, 4, 3)
    lengths = [6, 2, 0, 5]
    if form == "packed":
        x = pack_padded_sequence(x, [6, 2, 1, 5], module.batch_first, enforce_sorted=False)
    hx = None
    if given != "no state":
        many = module.num_layers * len(module._ways)
        h, c = torch.randn(4, many, H).transpose(0, 1), torch.randn(many, 4, H)
        hx = h if module.cell != "lstm" else (h, c if given == "a state" else None)
    which = {"lengths": lengths} if form == "lengths" else {}
    by_cell = tensors_of(module(x, hx, **which))
    with torch.no_grad(), fastrnn.config_context(num_threads=2):
        at_once = tensors_of(module(x, hx, **which))
    for a, b in zip(at_once, by_cell, strict=True):
        assert torch.equal(a, b)
        assert not a.requires_grad


def test_one_compiled_call_looks_at_what_it_is_given(pair):
    _, module = pair_of(*pair, 3, 4)
    with torch.no_grad():
        with pytest.raises(ValueError, match=r"w_ih: shape \(\d+, 2\), expected"):
            torch.func.functional_call(module, {"weight_ih_l0": module.weight_ih_l0[:, :2]}, X)
        with pytest.raises(ValueError, match=r"w_hh: shape \(\d+, 3\), expected"):
            torch.func.functional_call(module, {"weight_hh_l0": module.weight_hh_l0[:, :3]}, X)
        with pytest.raises(TypeError, match="b_hh: dtype float64, expected float32"):
            torch.func.functional_call(module, {"bias_hh_l0": module.bias_hh_l0.double()}, X)
        with pytest.raises(ValueError, match="lengths: values from 1 to 6"):
            module(X, lengths=[1, 6])
        transposed = module.weight_hh_l0.t().contiguous().t()
        assert torch.equal(torch.func.functional_call(module, {"weight_hh_l0": transposed}, X)[0], module(X)[0])


def test_packed_sequences_keep_what_they_know(pair):
    theirs, ours = pair_of(*pair, 3, 4)
    x = pack_sequence([torch.randn(n, 3) for n in (2, 5, 1)], enforce_sorted=False)
    (wanted, _), (got, _) = theirs(x), ours(x)
    for a, b in zip(wanted[1:], got[1:], strict=True):
        assert torch.equal(a, b)


# --- gradients -------------------------------------------------------------------------------------------------------

CHECKED = {
    "rnn": lambda: interop.RNN(2, 3, nonlinearity="tanh", dtype=torch.float64),
    "lstm": lambda: interop.LSTM(2, 2, 2, bidirectional=True, dtype=torch.float64),
    "lstm, projected": lambda: interop.LSTM(2, 3, proj_size=2, dtype=torch.float64),
    "lstm, varied": lambda: interop.LSTM(2, 3, layer_norm=True, peepholes=True, clip=2.0, dtype=torch.float64),
    "gru": lambda: interop.GRU(2, 3, dtype=torch.float64),
    "gru, reset before": lambda: interop.GRU(2, 3, reset_after=False, bias=False, layer_norm=True, dtype=torch.float64),
}


@pytest.mark.parametrize("kind", CHECKED)
def test_gradcheck(kind):
    torch.manual_seed(0)
    module = CHECKED[kind]()
    names = [name for name, _ in module.named_parameters()]
    many = module.num_layers * len(module._ways)
    widths = [module.proj_size or module.hidden_size, module.hidden_size][: len(module.state_names)]
    states = [torch.randn(many, 2, width, dtype=torch.float64, requires_grad=True) for width in widths]
    x = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)

    def function(x, *rest):
        hx = rest[: len(states)] if len(states) > 1 else rest[0]
        parameters = dict(zip(names, rest[len(states) :], strict=True))
        return tuple(tensors_of(torch.func.functional_call(module, parameters, (x, hx), {"lengths": [4, 2]})))

    assert torch.autograd.gradcheck(function, (x, *states, *module.parameters()))


def test_gradients_of_the_same_graph_twice(pair):
    _, module = pair_of(*pair, 3, 4)
    y, _ = module(torch.randn(5, 2, 3))
    first = torch.autograd.grad(y.sum(), list(module.parameters()), retain_graph=True)
    second = torch.autograd.grad(y.sum(), list(module.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y.sum(), list(module.parameters()))


def test_gradients_of_gradients_are_refused(pair):
    _, module = pair_of(*pair, 3, 4)
    x = torch.randn(5, 2, 3, requires_grad=True)
    (dx,) = torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
    assert dx.requires_grad
    with pytest.raises(RuntimeError, match="gradients of gradients"):
        dx.square().sum().backward()


@pytest.mark.parametrize("what", ["x", "weight", "y"])
def test_what_backward_reads_may_not_be_changed(pair, what):
    _, module = pair_of(*pair, 3, 4)
    x = torch.randn(5, 2, 3)
    y, _ = module(x)
    with torch.no_grad():
        {"x": x, "weight": module.weight_hh_l0, "y": y}[what].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_only_what_is_needed_is_computed(pair, monkeypatch):
    from fastrnn.interop import _torch_cell

    _, module = pair_of(*pair, 3, 4)
    seen = []

    def spy(cache, *douts, need):
        seen.append(set(need))
        return backward(cache, *douts, need=need)

    backward = _torch_cell.BACKWARD[module.cell]
    monkeypatch.setitem(_torch_cell.BACKWARD, module.cell, spy)
    module(torch.randn(5, 2, 3))[0].sum().backward()
    assert seen.pop() == {"w_ih", "w_hh", "b_ih", "b_hh"}
    module.requires_grad_(False)
    module.bias_hh_l0.requires_grad_(True)
    x = torch.randn(5, 2, 3, requires_grad=True)
    module(x)[0].sum().backward()
    assert seen.pop() == {"x", "b_hh"}
    module.requires_grad_(False)
    state = torch.randn(1, 2, 4, requires_grad=True)
    module(x.detach(), (state, state.detach()) if module.cell == "lstm" else state)[0].sum().backward()
    assert seen.pop() == {"h0"}


def test_nothing_is_saved_without_gradients(pair, monkeypatch):
    from fastrnn.interop import _torch_cell

    forward, saved = _torch_cell.FORWARD[pair[1].cell], []

    def spy(*arrays, save, **options):
        saved.append(save)
        return forward(*arrays, save=save, **options)

    monkeypatch.setitem(_torch_cell.FORWARD, pair[1].cell, spy)
    _, module = pair_of(*pair, 3, 4)
    x = torch.randn(5, 2, 3)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            module(x)
    module.requires_grad_(False)
    module(x)
    assert not any(saved)
    module(x.requires_grad_())
    assert saved[-1]


def test_arrays_and_tensors_share_their_memory(pair, monkeypatch):
    from fastrnn.interop import _torch_cell

    _, module = pair_of(*pair, 3, 4)
    x = torch.randn(5, 2, 3)
    forward, seen = _torch_cell.FORWARD[module.cell], []

    def spy(*arrays, **options):
        results = forward(*arrays, **options)
        seen.append((arrays, results))
        return results

    monkeypatch.setitem(_torch_cell.FORWARD, module.cell, spy)
    y, _ = module(x)
    ((arrays, (y_array, *_)),) = seen
    assert arrays[0].ctypes.data == x.data_ptr()
    assert arrays[-4].ctypes.data == module.weight_ih_l0.data_ptr()
    assert y_array.ctypes.data == y.data_ptr()


# --- what torch.nn has none of ---------------------------------------------------------------------------------------


def test_lengths_are_those_of_packed_sequences(pair):
    _, module = pair_of(*pair, 3, 4, 2, batch_first=True, bidirectional=True, dtype=torch.float64)
    x = torch.randn(4, 6, 3, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([3, 6, 1, 4])
    got = results(module, x, None, lengths=lengths)
    torch.manual_seed(1)
    y, final = module(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    y, _ = pad_packed_sequence(y, batch_first=True)
    outputs = tensors_of((y, final))
    loss = sum((out * torch.randn(out.shape, dtype=out.dtype)).sum() for out in outputs)
    grads = torch.autograd.grad(loss, [x, *module.parameters()])
    expected = {f"output {k}": out.detach().numpy() for k, out in enumerate(outputs)}
    assert_close(got, expected | {f"gradient {k}": g.numpy() for k, g in enumerate(grads)}, 1e-12)


VARIANTS = {
    "rnn": {"clip": 1.0, "activations": ("softsign",)},
    "lstm": {"layer_norm": True, "peepholes": True, "coupled": True, "zoneout": (0.2, 0.3), "proj_size": 2},
    "gru": {"layer_norm": True, "reset_after": False, "recurrent_dropout": 0.3, "input_dropout": 0.1},
}


@pytest.mark.parametrize("batch_first", [False, True])
def test_variants_are_those_of_the_layers(pair, batch_first):
    options = {"bidirectional": True, "batch_first": batch_first} | VARIANTS[pair[1].cell]
    torch.manual_seed(0)
    module = pair[1](3, 4, 2, dtype=torch.float64, **options)
    layer = getattr(fastrnn, pair[0].__name__)(3, 4, 2, dtype=np.float64, **options)
    assert module.state_dict().keys() == layer.params.keys()
    layer.load_state_dict(module.state_dict())
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 5, 3))
    mask, reset = rng.random((5, 5)) > 0.2, rng.random((5, 5)) > 0.8
    module.eval()
    y, state = module(torch.from_numpy(x), mask=torch.from_numpy(mask), reset=reset)
    y_layer, state_layer = layer(x, mask=mask, reset=reset)
    assert np.array_equal(y.detach().numpy(), y_layer)
    for a, b in zip(tensors_of(state), state_layer if len(module.state_names) > 1 else [state_layer], strict=True):
        assert np.array_equal(a.detach().numpy(), b)


def test_random_variants_draw_from_the_generator_of_torch(pair):
    module = pair[1](3, 4, recurrent_dropout=0.5, zoneout=0.1)
    x = torch.randn(5, 2, 3)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(module(x)[0])
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert torch.equal(module.eval()(x)[0], module(x)[0])
    # the same masks when a cache has to be made anew
    first = torch.autograd.grad(outputs[2].sum(), module.weight_hh_l0, retain_graph=True)
    assert torch.equal(torch.autograd.grad(outputs[2].sum(), module.weight_hh_l0)[0], first[0])


def test_parameters_of_variants_begin_as_the_layers_do():
    torch.manual_seed(0)
    module = interop.LSTM(3, 4, layer_norm=True, peepholes=True, forget_bias=1.0)
    for name, value in ((n, v) for n, v in module.named_parameters() if n.split("_")[0] in ("gain", "shift")):
        assert torch.equal(value, torch.full_like(value, float(name.startswith("gain")))), name
    assert 0 < module.peephole_l0.abs().max() <= 0.5
    assert torch.equal((module.bias_ih_l0 + module.bias_hh_l0)[4:8], torch.ones(4))
    with torch.no_grad():
        module.gain_ih_l0.zero_()
    module.reset_parameters()
    assert torch.equal(module.gain_ih_l0, torch.ones(16))
    assert "peepholes=True" in repr(module)
    assert repr(interop.GRU(3, 4, 2)) == repr(torch.nn.GRU(3, 4, 2))


# --- bad input -------------------------------------------------------------------------------------------------------

BAD = {
    "four axes": (torch.zeros(1, 5, 2, 3), None),
    "another width": (torch.zeros(5, 2, 4), None),
    "another type": (torch.zeros(5, 2, 3, dtype=torch.float64), None),
    "a state of another batch": (X, torch.zeros(1, 3, 4)),
    "a state of another width": (X, torch.zeros(1, 2, 5)),
    "a state without batch": (X, torch.zeros(1, 4)),
    "a state with a batch": (torch.zeros(5, 3), torch.zeros(1, 1, 4)),
    "too many layers": (X, torch.zeros(2, 2, 4)),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_as_by_torch(pair, kind):
    x, hx = BAD[kind]
    theirs, ours = pair_of(*pair, 3, 4)
    hx = (hx, hx) if hx is not None and ours.cell == "lstm" else hx
    with pytest.raises((RuntimeError, ValueError)) as expected:
        theirs(x, hx)
    with pytest.raises(expected.type) as got:
        ours(x, hx)
    numbers = [set(re.findall(r"\d+", str(error.value))) for error in (expected, got)]
    assert numbers[0] <= numbers[1]


def test_packed_input_is_checked_too(pair):
    _, module = pair_of(*pair, 3, 4)
    with pytest.raises(RuntimeError, match="Expected 3, got 4"):
        module(pack_sequence([torch.zeros(2, 4)]))
    h, c = torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)
    with pytest.raises(RuntimeError, match=r"size \(1, 1, 4\), got \[1, 2, 4\]"):
        module(pack_sequence([X[:, 0]]), (c, h) if module.cell == "lstm" else h)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_refused(pair, dtype):
    with pytest.raises(TypeError, match=f"dtype: {dtype}, expected torch.float32 or torch.float64"):
        pair[1](3, 4, dtype=dtype)
    module = pair[1](3, 4)
    with pytest.raises(TypeError, match=f"input: {dtype}, expected torch.float32"):
        module(X.to(dtype))
    with pytest.raises(TypeError, match=f"weight_ih_l0: {dtype}, expected torch.float32"):
        module.to(dtype)(X.to(dtype))


def test_other_devices_are_refused(pair):
    with pytest.raises(ValueError, match="device: 'cuda:1', expected 'cpu'"):
        pair[1](3, 4, device="cuda:1")
    with pytest.raises(ValueError, match="device: '0', expected 'cpu'"):
        pair[1](3, 4, device=0)
    module = pair[1](3, 4)
    with pytest.raises(ValueError, match="input: on device 'meta', expected 'cpu'"):
        module(X.to("meta"))
    h, c = torch.zeros(1, 2, 4, device="meta"), torch.zeros(1, 2, 4)
    with pytest.raises(ValueError, match="h_0: on device 'meta', expected 'cpu'"):
        module(X, (h, c) if module.cell == "lstm" else h)
    later = pair[1](3, 4, device="meta")
    with pytest.raises(ValueError, match="weight_ih_l0: on device 'meta', expected 'cpu'"):
        later(X)
    later.to_empty(device="cpu").load_state_dict(module.state_dict())
    assert torch.equal(later(X)[0], module(X)[0])


def test_other_bad_arguments(pair):
    module = pair[1](3, 4)
    with pytest.raises(ValueError, match=r"lengths: shape \(3,\)"):
        module(X, lengths=[1, 2, 3])
    with pytest.raises(ValueError, match=r"mask: shape \(2, 5\).*transposed"):
        module(X, mask=np.ones((2, 5), bool))
    with pytest.raises(ValueError, match="given beside a PackedSequence"):
        module(pack_sequence([X[:, 0]]), lengths=[5])
    with pytest.raises(ValueError, match="given beside an unbatched input"):
        module(X[:, 0], lengths=[5])
    with pytest.raises(ValueError, match="clip: -1"):
        pair[1](3, 4, clip=-1)
    with pytest.raises(ValueError, match="dropout should be a number"):
        pair[1](3, 4, dropout=2)
    if module.cell == "lstm":
        with pytest.raises(TypeError, match=r"hx: Tensor, expected the tuple \(h_0, c_0\)"):
            module(X, torch.zeros(2, 2, 4))
        with pytest.raises(ValueError, match="forget_bias: 1"):
            interop.LSTM(3, 4, bias=False, forget_bias=1.0)
    else:
        with pytest.raises(ValueError, match="peepholes: a"):
            pair[1](3, 4, peepholes=True)


def test_what_is_no_tensor_is_named(pair):
    module = pair[1](3, 4)
    with pytest.raises(TypeError, match="input: ndarray, expected a tensor or PackedSequence"):
        module(X.numpy())
    state, wrong = torch.zeros(1, 2, 4), np.zeros((1, 2, 4))
    lstm = module.cell == "lstm"
    with pytest.raises(TypeError, match="c_0: ndarray, expected a tensor" if lstm else "h_0: tuple, expected a tensor"):
        module(X, (state, wrong))


def test_marks_are_refused_in_the_axes_of_the_caller(pair):
    module = pair[1](3, 4, batch_first=True)
    x, ones = torch.zeros(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)
    for name in ("mask", "reset"):
        with pytest.raises(ValueError, match=rf"{name}: shape \(5, 2\), expected \(B, T\) = \(2, 5\); transposed"):
            module(x, **{name: ones.T})
        with pytest.raises(TypeError, match=f"{name}: dtype float32, expected bool"):
            module(x, **{name: ones.float()})


def test_tensors_that_are_negated_as_they_are_read(pair):
    theirs, ours = pair_of(*pair, 3, 4)
    x = torch.randn(5, 2, 3, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    assert torch.allclose(ours(x)[0], theirs(x)[0], atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # torch.jit's, that it is deprecated
def test_nothing_passes_for_a_constant(pair):
    """What has to see the computation, and does not, says so."""
    module = pair[1](3, 4)
    weights = dict(module.named_parameters())
    x = torch.randn(5, 2, 3)

    def total(weights):
        return torch.func.functional_call(module, weights, (x,))[0].sum()

    with pytest.raises(RuntimeError, match=r"torch.func's transforms .* see restore_rnns"):
        torch.func.grad(total)(weights)
    for wants in (True, False):
        module.requires_grad_(wants)
        with pytest.raises(RuntimeError, match=r"torch.jit.trace .* see restore_rnns"):
            torch.jit.trace(module, x)
        with torch.autograd.forward_ad.dual_level(), torch.set_grad_enabled(wants):
            assert module(x)[0].shape == (5, 2, 4)
            with pytest.raises(NotImplementedError, match="forward mode AD"):
                module(torch.autograd.forward_ad.make_dual(x, x))


def test_empty_batches_and_sequences(pair):
    _, module = pair_of(*pair, 3, 4)
    y, _ = module(torch.zeros(5, 0, 3))
    assert y.shape == (5, 0, 4)
    y.sum().backward()
    assert not module.weight_ih_l0.grad.any()
    h = torch.randn(1, 2, 4)
    y, state = module(torch.zeros(0, 2, 3), (h, h) if module.cell == "lstm" else h)
    assert y.shape == (0, 2, 4)
    assert torch.equal(tensors_of(state)[0], h)
    with torch.no_grad():
        assert module(torch.zeros(5, 0, 3))[0].shape == (5, 0, 4)
        y, state = module(torch.zeros(0, 2, 3), (h, h) if module.cell == "lstm" else h)
    assert y.shape == (0, 2, 4)
    assert torch.equal(tensors_of(state)[0], h)


def test_copies_are_independent(pair):
    _, module = pair_of(*pair, 3, 4)
    x = torch.randn(5, 2, 3)
    before = module(x)[0]
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.weight_hh_l0.zero_()
    assert torch.equal(module(x)[0], before)
    assert not torch.equal(other(x)[0], before)
