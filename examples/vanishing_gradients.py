"""How far back in time a loss reaches, and how long a state remembers: plain RNNs against LSTM and GRU."""

import numpy as np
from _shared import OUT, run, save

import fastrnn
from fastrnn import nn, viz

WANTED = 5  # decades (and no more count) that the LSTM's gradient is above that of the RNN of radius 0.9 at step 1
T, B, H = 100, 8, 64


def rnn(radius, rng):
    """A plain RNN whose recurrent matrix is `radius` times an orthogonal one: all its eigenvalues are that large."""
    layer = fastrnn.RNN(H, H, bias=False, dtype=np.float64, rng=rng)
    nn.orthogonal_(layer.weight_hh_l0, gain=radius, rng=rng)
    return layer


def gru(update_bias, rng):
    """A GRU whose update gates are nearly 1, which keeps the state, by a bias."""
    layer = fastrnn.GRU(H, H, dtype=np.float64, rng=rng)
    layer.bias_ih_l0[H : 2 * H], layer.bias_hh_l0[H : 2 * H] = update_bias, 0
    return layer


def main(quick=False, out=OUT, seed=0):
    """Nothing is trained: this is what networks begin with. A second picture, of the states, stands beside."""
    rng = np.random.default_rng(seed)
    layers = {f"RNN, radius {radius}": rnn(radius, rng) for radius in (0.9, 1.0, 1.1)}
    layers["LSTM, forget bias 0"] = fastrnn.LSTM(H, H, forget_bias=0, dtype=np.float64, rng=rng)
    layers["LSTM, forget bias 5"] = fastrnn.LSTM(H, H, forget_bias=5, dtype=np.float64, rng=rng)
    layers["GRU, update bias 5"] = gru(5, rng)
    x, dlast = rng.standard_normal((T, B, H)), rng.standard_normal((B, H))
    dy = np.zeros((T, B, H))
    dy[-1] = dlast
    gradients, states = [], []
    for layer in layers.values():
        _, _, cache = layer.forward(1e-7 * x)  # so small that tanh is linear, else it would hold back what explodes
        norms = np.linalg.norm(layer.backward(cache, dy)[0], axis=-1).mean(axis=1)
        gradients.append(norms / norms[-1])
        heard, *_ = layer(np.where(np.arange(T)[:, None, None] < 10, x, 0))  # ten steps of input, then silence
        nothing, *_ = layer(0 * x)  # biases move the state without any input
        states.append(np.linalg.norm(heard - nothing, axis=-1).mean(axis=1))
    for label, gradient, state in zip(layers, gradients, states, strict=True):
        print(f"{label}: the gradient at the first step is {gradient[0]:.1e} of the last one's, ", end="")
        print(f"of the trace of ten inputs {state[-1] / state[9]:.1e} is left")
    ax = viz.gradient_over_time(np.stack(gradients, axis=1), list(layers))
    ax.set(ylabel="norm of the gradient, that of the last step is 1", title="A loss at the last step")
    picture = save(ax, out, "vanishing_gradients")
    ax = viz.gradient_over_time(np.stack(states, axis=1), list(layers))
    ax.axvline(9.5, color="0.5", ls="--")
    ax.set(ylabel="distance from the state without inputs", title="Ten steps of input, then zeros")
    save(ax, out, "vanishing_states")
    reach = dict(zip(layers, gradients, strict=True))
    score = np.log10(reach["LSTM, forget bias 5"][0] / reach["RNN, radius 0.9"][0])
    return {"score": min(float(score), WANTED), "picture": picture}


if __name__ == "__main__":
    run(main)
