"""A step that is masked keeps the state: written out step by step, and as `mask=` of a GRU, to 12 digits."""

import numpy as np
from _shared import OUT, digits_in_common, optional, run, save

import fastrnn
from fastrnn import viz

WANTED = 12  # decimal digits in common; more do not count
T, B, I, H = 30, 4, 3, 8


def forward(gru, x, mask):
    """``h[t] = GRU(x[t], h[t-1])`` where the mask is True, else ``h[t-1]``; all states, and a cache for each step."""
    h, states, caches = np.zeros((1, B, H)), [], []
    for x_t, valid in zip(x, mask, strict=True):
        _, new, cache = gru.forward(x_t[None], h)
        h = np.where(valid[:, None], new, h)
        states.append(h[0])
        caches.append(cache)
    return np.stack(states), caches


def backward(gru, caches, mask, dy):
    """The gradient goes into the cell where the mask is True, and past it where it is False."""
    dh, dx = np.zeros((1, B, H)), np.zeros((T, B, I))
    for t in reversed(range(T)):
        valid = mask[t][:, None]
        dh = dh + np.where(valid, dy[t], 0)  # a masked step has no output
        dx[t : t + 1], into_cell = gru.backward(caches[t], None, np.where(valid, dh, 0))
        dh = into_cell + np.where(valid, 0, dh)
    return dx


def main(quick=False, out=OUT, seed=0):
    """Nothing is trained; a third of the steps is missing, as in records of a sensor that drops out."""
    rng = np.random.default_rng(seed)
    gru = fastrnn.GRU(I, H, dtype=np.float64, rng=rng)
    x, dy = rng.standard_normal((T, B, I)).cumsum(axis=0) / 3, rng.standard_normal((T, B, H))
    mask = rng.random((T, B)) > 1 / 3

    states, caches = forward(gru, x, mask)
    dx = backward(gru, caches, mask, dy)
    by_hand = {name: grad.copy() for name, grad in gru.grads.items()}
    gru.zero_grad()

    y, last, cache = gru.forward(x, mask=mask)
    pairs = [(y, np.where(mask[..., None], states, 0)), (last[0], states[-1]), (gru.backward(cache, dy)[0], dx)]
    digits = digits_in_common(*pairs, *((gru.grads[name], by_hand[name]) for name in by_hand))
    print(f"{mask.sum()} of {mask.size} steps are there; outputs and gradients have {digits:.1f} digits in common")

    _, axes = optional("matplotlib.pyplot", "matplotlib").subplots(2, 1, figsize=(8, 7), layout="constrained")
    viz.hidden_states(states[:, 0], title="The state passes masked steps unchanged", ax=axes[0])
    viz.hidden_states(y[:, 0], title="The output of a masked step is zeros", ax=axes[1])
    return {"score": min(digits, WANTED), "picture": save(axes[0], out, "masked_step")}


if __name__ == "__main__":
    run(main)
