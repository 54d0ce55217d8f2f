"""A cell is a linear layer on ``[x, h]`` and a tanh: two layers of it by hand are `fastrnn.RNN`, to 12 digits."""

import numpy as np
from _shared import OUT, digits_in_common, run, save

import fastrnn
from fastrnn import nn, viz

WANTED = 12  # decimal digits in common; more do not count
B, T, I, H = 3, 12, 4, 6


class Cell(nn.Sequential):
    """``h' = tanh(W [x, h] + b)``, run over the steps of a batch (B, T, width) from a state of zeros."""

    def __init__(self, width):
        super().__init__(nn.Linear(width + H, H, dtype=np.float64), nn.Tanh())
        self.width = width

    def over_time(self, x):
        """The states of all steps (B, T, H), and a cache for each."""
        h, states, caches = np.zeros((len(x), H)), [], []
        for t in range(x.shape[1]):
            h, cache = self.forward(np.concatenate([x[:, t], h], axis=1))
            states.append(h)
            caches.append(cache)
        return np.stack(states, axis=1), caches

    def back_in_time(self, caches, dy):
        """Gradients of the parameters into `grads`; return that of `x`."""
        dh, dx = 0, np.zeros((*dy.shape[:2], self.width))
        for t in reversed(range(len(caches))):
            both = self.backward(caches[t], dy[:, t] + dh)
            dx[:, t], dh = both[:, : self.width], both[:, self.width :]
        return dx


def main(quick=False, out=OUT, seed=0):
    """Nothing is trained: outputs and gradients are compared."""
    rng = np.random.default_rng(seed)
    rnn = fastrnn.RNN(I, H, num_layers=2, batch_first=True, dtype=np.float64, rng=rng)
    cells = Cell(I), Cell(H)
    for k, cell in enumerate(cells):
        cell[0].weight = np.hstack([rnn.params[f"weight_ih_l{k}"], rnn.params[f"weight_hh_l{k}"]])
        cell[0].bias = rnn.params[f"bias_ih_l{k}"] + rnn.params[f"bias_hh_l{k}"]
    x, dy = rng.standard_normal((B, T, I)), rng.standard_normal((B, T, H))

    y, state, cache = rnn.forward(x)
    dx, _ = rnn.backward(cache, dy)

    first, first_caches = cells[0].over_time(x)
    second, second_caches = cells[1].over_time(first)
    dx_by_hand = cells[0].back_in_time(first_caches, cells[1].back_in_time(second_caches, dy))

    pairs = [(second, y), (np.stack([first[:, -1], second[:, -1]]), state), (dx_by_hand, dx)]
    for k, cell in enumerate(cells):
        pairs.append((cell[0].grads["weight"], np.hstack([rnn.grads[f"weight_ih_l{k}"], rnn.grads[f"weight_hh_l{k}"]])))
        pairs += [(cell[0].grads["bias"], rnn.grads[f"bias_{which}_l{k}"]) for which in ("ih", "hh")]
    digits = digits_in_common(*pairs)
    print(f"outputs, states and gradients have {digits:.1f} digits in common")
    return {"score": min(digits, WANTED), "picture": save(viz.unrolled(rnn), out, "cell_by_hand")}


if __name__ == "__main__":
    run(main)
