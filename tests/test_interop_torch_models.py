"""PyTorch's recurrent modules on this package's kernels, as parts of models: replaced, saved, compiled, trained."""

import copy
import gc
import io
import os
import pickle
import re
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import fastrnn

pytest.importorskip("torch", reason="torch, which the extra of this name installs, is not there")
import torch

from fastrnn.interop import _torch_cell, _torch_op
from fastrnn.interop import torch as interop

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
torch.set_num_threads(1)


class Model(torch.nn.Module):
    """All three modules, one of them at two places."""

    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True)
        self.blocks = torch.nn.ModuleList([torch.nn.GRU(8, 5, batch_first=True), torch.nn.RNN(5, 5, batch_first=True)])
        self.again = self.blocks[1]
        self.head = torch.nn.Linear(5, 2)

    def forward(self, x):
        y, _ = self.lstm(x)
        for block in (*self.blocks, self.again):
            y, _ = block(y)
        return self.head(y[:, -1])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


X = torch.randn(6, 7, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 1, 0, 1, 0])


def train(model, steps=5, clip=None):
    """The losses, and with them whether gradients arrive where they should."""
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(model(X), LABELS)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
    return losses


# --- replace and restore ---------------------------------------------------------------------------------------------


def test_models_change_in_place_and_back(model):
    called = []
    model.lstm.register_forward_hook(lambda *_: called.append("hook"))
    before, parameters, state = model(X), list(model.parameters()), model.state_dict()
    modules = list(model.modules())
    assert interop.replace_rnns(model) == ["lstm", "blocks.0", "blocks.1"]
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert [type(m).__module__ for m in (model.lstm, *model.blocks)] == ["fastrnn.interop.torch"] * 3
    assert torch.allclose(model(X), before, atol=1e-6)
    assert called == ["hook"] * 2
    assert model.state_dict().keys() == state.keys()
    assert interop.replace_rnns(model) == []
    assert interop.restore_rnns(model) == ["lstm", "blocks.0", "blocks.1"]
    assert type(model.again) is torch.nn.RNN
    assert torch.equal(model(X), before)


def test_a_module_by_itself():
    module = torch.nn.GRU(3, 4)
    assert interop.replace_rnns(module) == [""]
    assert type(module) is interop.GRU
    assert interop.restore_rnns(module) == [""]


def test_derived_modules_stay_as_they_are():
    class Mine(torch.nn.LSTM):
        def forward(self, input, hx=None):
            return super().forward(2 * input, hx)

    model = torch.nn.ModuleList([Mine(3, 4)])
    assert interop.replace_rnns(model) == []


def test_nothing_is_replaced_or_restored_where_one_cannot_be():
    model = torch.nn.ModuleList([torch.nn.GRU(3, 4), torch.nn.LSTM(3, 4).half()])
    with pytest.raises(TypeError, match=r"1\.weight_ih_l0: torch.float16, expected torch.float32"):
        interop.replace_rnns(model)
    assert type(model[0]) is torch.nn.GRU
    model = torch.nn.ModuleList([interop.GRU(3, 4), interop.GRU(3, 4, reset_after=False)])
    with pytest.raises(ValueError, match=r"1: GRU\(3, 4, reset_after=False\), expected a cell that torch.nn has"):
        interop.restore_rnns(model)
    assert type(model[0]) is interop.GRU


@pytest.mark.parametrize("change", [interop.replace_rnns, interop.restore_rnns])
def test_what_is_no_model_of_torch(change):
    with pytest.raises(TypeError, match=r"^model: GRU, expected a torch.nn.Module"):
        change(fastrnn.GRU(2, 3))


def test_training_is_the_same(model):
    other = copy.deepcopy(model)
    interop.replace_rnns(other)
    wanted = train(model, clip=0.5)
    np.testing.assert_allclose(train(other, clip=0.5), wanted, rtol=1e-5)
    assert wanted[-1] < wanted[0]


# --- what PyTorch does with modules ----------------------------------------------------------------------------------


def test_saving_and_pickling(model):
    interop.replace_rnns(model)
    model.variant = interop.LSTM(3, 4, peepholes=True)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (torch.load(buffer, weights_only=False), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert type(other.lstm) is interop.LSTM
        assert torch.equal(other(X), model(X))
        assert torch.equal(other.variant(X)[0], model.variant(X)[0])
        train(other, steps=1)
        assert not torch.equal(other(X), model(X))
    buffer = io.BytesIO()
    torch.save(model.lstm.state_dict(), buffer)
    buffer.seek(0)
    plain = torch.nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True)
    plain.load_state_dict(torch.load(buffer))
    assert torch.allclose(plain(X)[0], model.lstm(X)[0], atol=1e-6)


def test_other_types_of_parameters(model):
    interop.replace_rnns(model)
    y = model(X)
    model.double()
    assert torch.allclose(model(X.double()).float(), y, atol=1e-5)


def test_functional_calls_and_parametrisations(model):
    interop.replace_rnns(model)
    module = model.blocks[0]
    x = torch.randn(2, 3, 8)
    double = {name: 2 * value for name, value in module.state_dict().items()}
    expected = torch.nn.GRU(8, 5, batch_first=True)
    expected.load_state_dict(double)
    assert torch.allclose(torch.func.functional_call(module, double, x)[0], expected(x)[0], atol=1e-6)
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    module(x)[0].sum().backward()
    assert module.parametrizations.weight_hh_l0.original0.grad.abs().max() > 0


def test_activation_checkpoints(model):
    interop.replace_rnns(model)
    x = X.clone().requires_grad_()
    wanted = torch.autograd.grad(model(x).sum(), x)
    for reentrant in (False, True):
        y = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=reentrant)
        x.grad = None
        y.sum().backward()
        assert torch.equal(x.grad, wanted[0])


class Encoded(torch.utils.data.Dataset):
    """Samples that a module makes where they are asked for."""

    def __init__(self):
        torch.manual_seed(0)
        self.module = interop.GRU(3, 4)

    def __len__(self):
        return 8

    def __getitem__(self, k):
        with torch.no_grad():
            return self.module(torch.full((5, 3), float(k)))[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 on: there are other threads
def test_forked_workers_of_data_loaders():
    data = Encoded()
    with fastrnn.config_context(num_threads=2):
        interop.LSTM(64, 128)(torch.randn(50, 32, 64))  # the threads are there when the workers are forked
        options = {"num_workers": 2, "multiprocessing_context": "fork", "timeout": 60}
        batches = list(torch.utils.data.DataLoader(data, batch_size=2, **options))
    assert torch.equal(torch.cat(batches), torch.stack([data[k] for k in range(8)]))


@pytest.mark.parametrize("whole", [False, True], ids=["graph breaks", "one graph"])
@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of what it is made of
def test_compiled_models(model, whole):
    import torch._dynamo

    if not torch._dynamo.is_dynamo_supported() or (whole and not hasattr(torch._dynamo.config, "allow_rnn")):
        pytest.skip("this PyTorch cannot")
    interop.replace_rnns(model)
    x = X.clone().requires_grad_()
    wanted = [model(x), *torch.autograd.grad(model(x).sum(), [x, *model.parameters()])]
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=whole):
        compiled = torch.compile(model, backend="aot_eager", fullgraph=whole)
        y = compiled(x)
        assert bool(_torch_op._held) == whole
        grads = torch.autograd.grad(y.sum(), [x, *model.parameters()], retain_graph=True)
        for a, b in zip((y, *grads), wanted, strict=True):
            assert torch.allclose(a, b, atol=1e-6)
        assert not _torch_op._held
        again = torch.autograd.grad(y.sum(), [x, *model.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(grads, again, strict=True))
        with torch.no_grad():
            assert torch.allclose(compiled(x), wanted[0], atol=1e-6)
        assert not _torch_op._held


def test_exported_models(model):
    interop.replace_rnns(model)
    axes = {0: torch.export.Dim("B", min=2), 1: torch.export.Dim("T", min=2)}
    exported = torch.export.export(model, (X,), dynamic_shapes={"x": axes})
    assert [str(node.target) for node in exported.graph.nodes].count("fastrnn.cell.default") == 4 + 3
    other = torch.randn(3, 9, 3)
    assert torch.allclose(exported.module()(other), model(other), atol=1e-6)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_operator(cell):
    """Its schema, shapes and gradients are what they are said to be; the cache goes with the graph."""
    torch.manual_seed(0)
    module = getattr(interop, cell.upper())(2, 3, dtype=torch.float64)
    x = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    states = [torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True) for _ in module.state_names]
    tensors = (x, *states, *module.parameters())
    call = _torch_cell.Call(cell, {"lengths": [4, 2], "reverse": True, **module._options()})
    assert torch.autograd.gradcheck(lambda *tensors: _torch_op.opaque(call, tensors, True), tensors)
    gc.collect()
    assert not _torch_op._held
    h0, c0 = (*states, None)[:2]
    arguments = (cell, x, h0, c0, *module.parameters(), torch.tensor([4, 2]), True, "tanh", True, True)
    torch.library.opcheck(torch.ops.fastrnn.cell, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_operator_keeps_its_output(cell):
    """Backward reads it: a compiler that takes it for finished with would have others' results in its memory."""
    module = getattr(interop, cell.upper())(2, 3)
    x = torch.randn(4, 2, 2)
    call = _torch_cell.Call(cell, {"lengths": None, "reverse": False, **module._options()})
    states = [None] * len(module.state_names)
    y, *_ = _torch_op.opaque(call, (x, *states, *module.parameters()), True)
    y.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_nothing_is_left_of_what_is_dropped():
    model = Model()
    interop.replace_rnns(model)
    y = model.lstm(X)[0]
    node = y.grad_fn
    while not hasattr(node, "cache"):
        node = node.next_functions[0][0]
    kept = [weakref.ref(node.cache.y), weakref.ref(model)]
    with torch.no_grad():
        model(X)
    del node, y, model
    gc.collect()
    assert [ref() for ref in kept] == [None, None]


# --- layers of this package ------------------------------------------------------------------------------------------

OPTIONS = {
    "RNN": [{}, {"nonlinearity": "relu", "bias": False}, {"activations": ("elu",)}],
    "LSTM": [{}, {"proj_size": 2, "num_layers": 2, "dropout": 0.5}, {"peepholes": True, "clip": 1.0, "coupled": True}],
    "GRU": [{}, {"bidirectional": True, "batch_first": True}, {"reset_after": False, "layer_norm": True}],
}


@pytest.mark.parametrize(("name", "options"), [(name, options) for name in OPTIONS for options in OPTIONS[name]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_and_back(name, options, dtype):
    layer = getattr(fastrnn, name)(3, 4, **options, dtype=dtype, rng=0)
    module = interop.to_torch(layer)
    assert isinstance(module, getattr(torch.nn, name))
    plain = options.keys().isdisjoint({"activations", "peepholes", "reset_after"})
    assert (type(module) is getattr(torch.nn, name)) == plain
    back = interop.from_torch(module, rng=0)
    assert repr(back) == repr(layer)
    for key, value in layer.params.items():
        assert np.array_equal(back.params[key], value), key
        assert not np.shares_memory(back.params[key], module.state_dict()[key].numpy())
    x = np.random.default_rng(0).standard_normal((5, 5, 3)).astype(dtype)
    y = module.eval()(torch.from_numpy(x))[0]
    np.testing.assert_allclose(y.detach().numpy(), layer(x)[0], atol=1e-6 if dtype == np.float32 else 1e-12)


def test_what_does_not_translate_is_refused():
    with pytest.raises(TypeError, match=r"module: Linear, expected a torch.nn.RNN, LSTM or GRU"):
        interop.from_torch(torch.nn.Linear(3, 4))
    with pytest.raises(TypeError, match=r"weight_ih_l0: torch\.bfloat16"):
        interop.from_torch(torch.nn.GRU(3, 4, dtype=torch.bfloat16))
    with pytest.raises(TypeError, match=r"layer: MinGRU, expected a fastrnn.RNN, LSTM or GRU"):
        interop.to_torch(fastrnn.MinGRU(3, 4))
    with pytest.raises(ValueError, match="layer: merge='sum', expected 'concat'"):
        interop.to_torch(fastrnn.GRU(3, 4, bidirectional=True, merge="sum"))
    with pytest.raises(ValueError, match="layer: stateful=True, expected False"):
        interop.to_torch(fastrnn.GRU(3, 4, stateful=True))


# --- the documentation -----------------------------------------------------------------------------------------------


def test_distributed_training_is_that_of_one_process():
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this PyTorch has no gloo")
    path = ROOT / "examples" / "distributed" / "ddp.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FASTRNN_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, path, "--quick", "--processes", "2"], capture_output=True, text=True, timeout=240,
        env=environment,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"2 processes: .* losses differ by [0-9.e-]+ at most", run.stdout)
