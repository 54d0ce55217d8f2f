"""Forward and training of each cell, engines side by side."""

import pytest
from conftest import Problem


@pytest.mark.benchmark(group="forward")
def bench_forward(measure, engine, cell, shape, dtype):
    problem = Problem(cell, shape, dtype)
    measure(problem.forward, problem.flops)


@pytest.mark.benchmark(group="training")
def bench_training(measure, engine, cell, shape, dtype):
    problem = Problem(cell, shape, dtype)
    measure(problem.train, 3 * problem.flops)
