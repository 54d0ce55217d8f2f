"""The functions against PyTorch's modules, which they take their names, gate orders and defaults from."""

from dataclasses import replace

import helpers
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch, the oracle of these tests, is not installed")
torch.set_num_threads(1)  # the problems are small, and threads that wait for one another stall on a busy machine

SIZES = ((5, 3, 4, 7), (6, 4, 1, 2), (1, 1, 3, 1), (20, 9, 12, 33))  # T, B, I, H
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
VARIANTS = [v for v in helpers.VARIANTS if v.value is not False]  # PyTorch has no GRU with the reset before the product
PARAMETERS = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}


def tensor(array):
    return torch.tensor(array, requires_grad=True)


def run_torch(forwards, backwards=None):
    """
    The results of a problem, and of one that runs in reverse over the same x, as PyTorch has them.

    PyTorch runs in reverse only beside a forward direction, so a reversed problem is the second half of a pair.
    """
    directions = [forwards] if backwards is None else [forwards, backwards]
    a = forwards.arrays
    T, _, I = a["x"].shape
    H = a["w_hh"].shape[1]
    options = {"dtype": torch.from_numpy(a["x"]).dtype, "bidirectional": backwards is not None}
    options["bias"] = a["b_ih"] is not None
    if forwards.variant.option == "nonlinearity":
        options["nonlinearity"] = forwards.variant.value
    module = getattr(torch.nn, forwards.variant.cell.upper())(I, H, **options)
    with torch.no_grad():
        for problem, suffix in zip(directions, ("_l0", "_l0_reverse"), strict=False):
            for name, theirs in PARAMETERS.items():
                if problem.arrays[name] is not None:
                    getattr(module, theirs + suffix).copy_(torch.tensor(problem.arrays[name]))

    x = tensor(np.nan_to_num(a["x"]))
    initial = [tensor(np.stack([p.arrays[name] for p in directions])) for name in ("h0", "c0") if name in a]
    state = tuple(initial) if len(initial) == 2 else initial[0]
    if forwards.lengths is None:
        y, final = module(x, state)
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(forwards.lengths), enforce_sorted=False)
        y, final = module(packed, state)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=T)
    final = final if len(initial) == 2 else (final,)

    arriving = np.concatenate([np.nan_to_num(p.dy) for p in directions], axis=2)
    total = (y * torch.tensor(arriving)).sum()
    for name, value in zip(("dh_n", "dc_n"), final, strict=False):
        total = total + (value * torch.tensor(np.stack([p.dstates[name] for p in directions]))).sum()
    total.backward()

    results = []
    for k, (problem, suffix) in enumerate(zip(directions, ("_l0", "_l0_reverse"), strict=False)):
        result = {"y": y[:, :, k * H : (k + 1) * H], "h_n": final[0][k], "dh0": initial[0].grad[k]}
        if len(initial) == 2:
            result |= {"c_n": final[1][k], "dc0": initial[1].grad[k]}
        for name, theirs in PARAMETERS.items():
            if problem.arrays[name] is not None:
                result[f"d{name}"] = getattr(module, theirs + suffix).grad
        results.append({name: value.detach().numpy() for name, value in result.items()})
    return results, x.grad.numpy()


def problems(variant, sizes, dtype, ragged, biases=("b_ih", "b_hh")):
    """One problem for each direction, over the same x and lengths; PyTorch takes no empty sequence."""
    T, B, _, _ = sizes
    lengths = np.random.default_rng(sum(sizes)).integers(1, T + 1, B) if ragged else None
    first = helpers.make(variant, *sizes, dtype, seed=1, lengths=lengths, biases=biases)
    second = helpers.make(variant, *sizes, dtype, seed=2, lengths=lengths, biases=biases, reverse=True)
    return first, second.with_arrays(x=first.arrays["x"])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("biases", [("b_ih", "b_hh"), ()], ids=["biases", "no biases"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_one_direction(engine, variant, dtype, ragged, sizes, biases):
    problem, _ = problems(variant, sizes, dtype, ragged, biases)
    (expected,), dx = run_torch(problem)
    with engine.active():
        helpers.assert_close(helpers.run(problem), expected | {"dx": dx}, TOLERANCE[dtype])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_both_directions(engine, variant, dtype, ragged, sizes):
    pair = problems(variant, sizes, dtype, ragged)
    expected, dx = run_torch(*pair)
    with engine.active():
        results = [helpers.run(problem) for problem in pair]
    helpers.assert_close({"dx": sum(result.pop("dx") for result in results)}, {"dx": dx}, TOLERANCE[dtype])
    for result, wanted in zip(results, expected, strict=True):
        helpers.assert_close(result, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_only_the_last_state_has_a_gradient(engine, variant):
    problem, _ = problems(variant, (5, 3, 4, 7), np.float64, True)
    problem = replace(problem, dy=np.zeros_like(problem.dy))
    (expected,), dx = run_torch(problem)
    with engine.active():
        results = helpers.run(replace(problem, dy=None))
    helpers.assert_close(results, expected | {"dx": dx}, 1e-12)
