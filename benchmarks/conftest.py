"""What the benchmark suites share. Run them with

    pytest benchmarks --benchmark-enable

The BLAS should choose its kernels for this CPU: pins such as OPENBLAS_CORETYPE are refused.
"""

import os

import numpy as np
import pytest

import fastrnn
from fastrnn._core import kernels

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
ENGINES = ("auto", "reference")
# T, B, I, H
SHAPES = [(100, 1, 64, 128), (30, 32, 10, 50), (50, 32, 128, 256)]


def pytest_configure(config):
    pins = [name for name in os.environ if name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")]
    if pins and not config.getoption("benchmark_disable", False):
        raise pytest.UsageError(f"unset {', '.join(pins)}: they pin the BLAS to another CPU than this one")


class Problem:
    """One cell, one shape, one float type, random arrays."""

    def __init__(self, cell, shape, dtype):
        T, B, I, H = self.shape = shape
        rng = np.random.default_rng(0)
        self.cell = cell

        def draw(*size):
            # As wide as layers start: larger weights make the recurrence chaotic, and results could not be compared.
            return rng.uniform(-1 / np.sqrt(H), 1 / np.sqrt(H), size).astype(dtype)

        G = GATES[cell]
        states = 2 if cell == "lstm" else 1
        self.arguments = [draw(T, B, I)] + [draw(B, H) for _ in range(states)]
        self.arguments += [draw(G * H, I), draw(G * H, H), draw(G * H), draw(G * H)]
        self.dy = draw(T, B, H)

    @property
    def flops(self):
        """Of a forward pass, in its matrix products; training takes three times that."""
        T, B, I, H = self.shape
        return 2 * T * B * GATES[self.cell] * H * (I + H)

    def forward(self, module=fastrnn.functional):
        return getattr(module, f"{self.cell}_forward")(*self.arguments, save=False)

    def train(self, module=fastrnn.functional):
        *_, cache = getattr(module, f"{self.cell}_forward")(*self.arguments)
        return getattr(module, f"{self.cell}_backward")(cache, self.dy)


@pytest.fixture(params=["rnn", "lstm", "gru"])
def cell(request):
    return request.param


@pytest.fixture(params=SHAPES, ids=lambda s: "T{}-B{}-I{}-H{}".format(*s))
def shape(request):
    return request.param


@pytest.fixture(params=[np.float32, np.float64], ids=["f32", "f64"])
def dtype(request):
    return request.param


@pytest.fixture(params=ENGINES)
def engine(request):
    with fastrnn.config_context(engine=request.param):
        yield request.param


@pytest.fixture
def measure(benchmark):
    """Run a function under the benchmark, with GF/s and what ran in the report."""

    def run(function, flops):
        config = fastrnn.get_config()
        benchmark(function)
        benchmark.extra_info |= {name: config[name] for name in ("engine", "isa", "num_threads", "blas")}
        benchmark.extra_info["isas"] = ", ".join(kernels.available_isas())
        if benchmark.stats is not None:  # None when benchmarks are disabled
            benchmark.extra_info["gflops"] = round(flops / benchmark.stats.stats.median / 1e9, 2)

    return run
