"""One step of a stream, as Python sees it."""

import numpy as np
import pytest

import fastrnn

LAYERS = {"rnn": fastrnn.RNN, "lstm": fastrnn.LSTM, "gru": fastrnn.GRU}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


@pytest.mark.benchmark(group="stream step")
@pytest.mark.parametrize("hidden_size", [32, 128, 512])
def bench_step(measure, engine, cell, hidden_size):
    stream = LAYERS[cell](hidden_size, hidden_size, rng=0).freeze().stream()
    x = np.random.default_rng(0).standard_normal((1, hidden_size)).astype(np.float32)
    measure(lambda: stream.step(x), 2 * GATES[cell] * hidden_size * 2 * hidden_size)
