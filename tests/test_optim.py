"""Optimisers, schedules and initial values, against PyTorch's and their definitions."""

import math

import numpy as np
import pytest

from fastrnn import nn

OPTIMISERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.2}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("RMSprop", {"lr": 0.02}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.2}),
    ("RMSprop", {"lr": 0.02, "momentum": 0.8, "centered": True}),
    ("RMSprop", {"lr": 0.02, "centered": True, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}),
    ("AdamW", {"lr": 0.05}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.3}),
]


def gradients(steps, module, seed=1):
    rng = np.random.default_rng(seed)
    return [{name: rng.standard_normal(a.shape) for name, a in module.params.items()} for _ in range(steps)]


def run(optimiser, all_gradients):
    for grads in all_gradients:
        optimiser.zero_grad()
        for name, grad in grads.items():
            optimiser.module.grads[name] += grad
        optimiser.step()
        for name, grad in grads.items():
            np.testing.assert_array_equal(optimiser.module.grads[name], grad)  # a step does not change them


@pytest.mark.parametrize(("name", "settings"), OPTIMISERS, ids=str)
def test_optimisers_like_torch(name, settings):
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of this test, is not installed")
    ours = nn.Linear(3, 2, dtype=np.float64, rng=0)
    theirs = torch.nn.Linear(3, 2, dtype=torch.float64)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in ours.state_dict().items()})
    oracle = getattr(torch.optim, name)(theirs.parameters(), **settings)
    steps = gradients(20, ours)
    mine = getattr(nn, name)(ours, **settings)
    run(mine, steps)
    for grads in steps:
        for key, parameter in theirs.named_parameters():
            parameter.grad = torch.tensor(grads[key])
        oracle.step()
    assert mine.steps == 20
    for key, parameter in theirs.named_parameters():
        np.testing.assert_allclose(ours.params[key], parameter.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "settings"), OPTIMISERS, ids=str)
def test_an_optimiser_goes_on_from_its_state(name, settings, dtype):
    whole, first, second = (nn.Linear(3, 2, dtype=dtype, rng=0) for _ in range(3))
    steps = gradients(6, whole)
    steps = [{name: grad.astype(dtype) for name, grad in grads.items()} for grads in steps]
    run(getattr(nn, name)(whole, **settings), steps)
    before = getattr(nn, name)(first, **settings)
    run(before, steps[:3])
    state = before.state_dict()
    run(before, steps[3:])  # the state is a copy
    second_optimiser = getattr(nn, name)(second, **{**settings, "lr": 1.0})
    run(second_optimiser, steps[:1])
    second_optimiser.load_state_dict(state)
    assert (second_optimiser.lr, second_optimiser.steps) == (settings["lr"], 3)
    third = nn.Linear(3, 2, dtype=dtype, rng=0)
    run(getattr(nn, name)(third, **settings), steps[:3])
    second.load_state_dict(third.state_dict())
    run(second_optimiser, steps[3:])
    for key, value in whole.params.items():
        assert value.dtype == dtype
        np.testing.assert_array_equal(second.params[key], value)


def test_states_that_do_not_fit_change_nothing():
    optimiser = nn.Adam(nn.Linear(3, 2))
    good = optimiser.state_dict()
    for bad in (
        {**good, "steps": -1},
        {**good, "lr": math.nan},
        {**good, "more": 1},
        {name: value for name, value in good.items() if name != "mean.bias"},
        {**good, "lr": 3.0, "square.weight": np.ones((3, 2))},
        {**good, "lr": 3.0, "square.weight": np.ones((2, 3), int)},
        nn.SGD(nn.Linear(3, 2), momentum=0.5).state_dict(),
    ):
        with pytest.raises(ValueError, match=r"^(mapping|steps|lr|square\.weight): "):
            optimiser.load_state_dict(bad)
    assert optimiser.lr == 1e-3
    assert all(not np.any(value) for name, value in optimiser.state_dict().items() if name != "lr")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", {"lr": -1}),
        ("SGD", {"momentum": 1.0}),
        ("SGD", {"nesterov": True}),
        ("RMSprop", {"alpha": 1.5}),
        ("RMSprop", {"eps": math.inf}),
        ("Adam", {"weight_decay": -0.1}),
        ("AdamW", {"weight_decay": math.nan}),
        ("Adam", {"betas": (0.9,)}),
    ],
)
def test_settings_out_of_range(name, settings):
    with pytest.raises(ValueError, match=rf"^{next(iter(settings))}: "):
        getattr(nn, name)(nn.Linear(1, 1), **settings)


def rates(schedule, steps, metrics=None):
    """The learning rate of each epoch."""
    found = []
    for n in range(steps):
        found.append(schedule.optimiser.lr)
        schedule.step(None if metrics is None else metrics[n])
    return found


def torch_rates(make, steps, metrics=None):
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of this test, is not installed")
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = make(torch.optim.lr_scheduler, optimiser)
    found = []
    for n in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step(*([] if metrics is None else [metrics[n]]))
    return found


def optimiser():
    return nn.SGD(nn.Linear(1, 1), lr=0.5)


@pytest.mark.parametrize(
    ("mine", "theirs", "steps"),
    [
        (lambda o: nn.StepLR(o, 3, 0.5), lambda s, o: s.StepLR(o, 3, 0.5), 10),
        (lambda o: nn.ExponentialLR(o, 0.9), lambda s, o: s.ExponentialLR(o, 0.9), 10),
        (lambda o: nn.CosineLR(o, 7, 0.01), lambda s, o: s.CosineAnnealingLR(o, 7, 0.01), 8),
        (lambda o: nn.WarmupLR(o, 4), lambda s, o: s.LinearLR(o, total_iters=4), 8),
    ],
)
def test_schedules_like_torch(mine, theirs, steps):
    np.testing.assert_allclose(rates(mine(optimiser()), steps), torch_rates(theirs, steps), rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_plateaus_like_torch(seed):
    metrics = 1 + np.random.default_rng(seed).random(40) / np.arange(1, 41)
    mine = rates(nn.ReduceOnPlateau(optimiser(), 0.5, 2, threshold=0.01, min_lr=0.01), 40, metrics)
    wanted = torch_rates(
        lambda s, o: s.ReduceLROnPlateau(o, factor=0.5, patience=2, threshold=0.01, min_lr=0.01), 40, metrics
    )
    np.testing.assert_allclose(mine, wanted, rtol=1e-12)
    assert mine[-1] < 0.1


def test_plateaus_of_numbers_below_zero_and_none():
    schedule = nn.ReduceOnPlateau(optimiser(), 0.5, 0, threshold=0.1)
    assert rates(schedule, 5, [-1.0, -1.05, -1.2, math.nan, -2.0]) == [0.5, 0.5, 0.25, 0.25, 0.125]
    with pytest.raises(ValueError, match=r"^metric: None"):
        schedule.step()


def test_a_cosine_stays_down_and_a_warm_up_hands_over():
    one = optimiser()
    assert rates(nn.CosineLR(one, 2, 0.1), 6)[2:] == pytest.approx([0.1] * 4)
    one = optimiser()
    schedule = nn.WarmupLR(one, 2, nn.ExponentialLR(one, 0.5), start_factor=0.5)
    assert rates(schedule, 6) == pytest.approx([0.25, 0.375, 0.5, 0.25, 0.125, 0.0625])


@pytest.mark.parametrize(
    "make",
    [
        lambda o: nn.StepLR(o, 3, 0.5),
        lambda o: nn.ReduceOnPlateau(o, 0.5, 1),
        lambda o: nn.WarmupLR(o, 3, nn.ReduceOnPlateau(o, 0.5, 1)),
    ],
)
def test_a_schedule_goes_on_from_its_state(make):
    metrics = [1.0, 2.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.4, 1.0, 1.0]
    expected = rates(make(optimiser()), 10, metrics)
    first = make(optimiser())
    start = rates(first, 5, metrics)
    other = optimiser()
    second = make(other)
    second.load_state_dict(first.state_dict())
    other.lr = first.optimiser.lr
    assert start + rates(second, 5, metrics[5:]) == expected
    assert len(set(expected)) > 2
    with pytest.raises(ValueError, match=r"^mapping: names"):
        second.load_state_dict({**first.state_dict(), "more": 1})


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda o: nn.StepLR(o, 0), "step_size"),
        (lambda o: nn.ExponentialLR(o, math.inf), "gamma"),
        (lambda o: nn.CosineLR(o, 3, -1), "eta_min"),
        (lambda o: nn.ReduceOnPlateau(o, 1.0), "factor"),
        (lambda o: nn.WarmupLR(o, 3, start_factor=0), "start_factor"),
    ],
)
def test_schedules_out_of_range(make, name):
    with pytest.raises(ValueError, match=rf"^{name}: "):
        make(optimiser())


@pytest.mark.parametrize(("name", "normal"), [("glorot_uniform_", False), ("glorot_normal_", True)])
def test_glorot(name, normal):
    weight = np.empty((3 * 120, 80))
    assert getattr(nn, name)(weight, 2.0, gates=3, rng=0) is weight
    deviation = 2 * math.sqrt(2 / (120 + 80))
    assert weight.std() == pytest.approx(deviation, rel=0.02)
    assert abs(weight.mean()) < 0.01
    bound = deviation * math.sqrt(3)
    assert (np.abs(weight).max() > bound) == normal
    again = np.empty((360, 80), np.float32)
    np.testing.assert_array_equal(getattr(nn, name)(again, 2.0, gates=3, rng=0), weight.astype(np.float32))


def test_uniform():
    weight = nn.uniform_scaled_(np.empty((200, 100)), 0.5, rng=0)
    assert 0.0499 < np.abs(weight).max() <= 0.05
    assert weight.std() == pytest.approx(0.05 / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5), (1, 3)])
def test_orthogonal(shape):
    rows, columns = shape
    weight = nn.orthogonal_(np.empty((3 * rows, columns)), 1.5, gates=3, rng=0)
    for block in weight.reshape(3, rows, columns):
        product = block @ block.T if rows < columns else block.T @ block
        np.testing.assert_allclose(product, 2.25 * np.eye(min(shape)), atol=1e-12)
    assert not np.allclose(weight[:rows], weight[rows : 2 * rows])


def test_a_mean_of_many_random_rotations_is_nothing():
    """What tells uniform ones from those that QR alone makes, whose diagonals lean to one side."""
    rng = np.random.default_rng(0)
    mean = np.mean([nn.orthogonal_(np.empty((2, 2)), rng=rng) for _ in range(2000)], axis=0)
    assert np.abs(mean).max() < 0.06


@pytest.mark.parametrize("function", [nn.uniform_scaled_, nn.glorot_uniform_, nn.glorot_normal_, nn.orthogonal_])
def test_what_is_no_matrix_of_floats(function):
    frozen = np.zeros((2, 2))
    frozen.flags.writeable = False
    for bad in ([[1.0]], np.zeros((2, 2), int), np.zeros(3), frozen):
        with pytest.raises((TypeError, ValueError), match=r"^weight: "):
            function(bad)
    if function is not nn.uniform_scaled_:
        with pytest.raises(ValueError, match=r"^gates: 3, expected a divisor of the 4 rows"):
            function(np.zeros((4, 2)), gates=3)


@pytest.mark.parametrize(
    "call",
    [
        lambda layer: nn.Adam(layer.parameters()),
        lambda layer: nn.SGD(list(layer.parameters()), 0.1),
        lambda layer: nn.clip_grad_norm_(layer.parameters(), 1.0),
        lambda layer: nn.clip_grad_value_(layer.parameters(), 1.0),
    ],
)
def test_parameters_in_place_of_their_module(call):
    with pytest.raises(TypeError, match=r"^module: (generator|list), expected a fastrnn.Module, not its parameters"):
        call(nn.Linear(3, 2))


def test_a_schedule_of_no_optimiser():
    with pytest.raises(TypeError, match=r"^optimiser: float, expected one with an lr"):
        nn.StepLR(0.1, 3)
