"""Strings of digits, what is to become of them, and training from short to long: what the examples of digits share."""

import numpy as np

from fastrnn import nn

PAD, BOS, EOS, REVERSE, SORT = range(5)  # the source begins with what to do
ZERO, TOKENS = 5, 15  # the digits are 5 to 14
TASKS = {"reverse": REVERSE, "sort": SORT}


def strings(n, length, rng, held_out=False):
    """Strings of chance (n, length): those held out have a sum that ends in 0, those to train on never."""
    digits = rng.integers(10, size=(n, length))
    ends = np.zeros(n, int) if held_out else rng.integers(1, 10, n)
    digits[:, -1] = (ends - digits[:, :-1].sum(axis=1)) % 10
    return digits


def problems(digits, tasks):
    """Sources (n, 1 + L) and targets (n, 1 + L + 1) of strings (n, L), each with a task of its own."""
    answers = np.where((tasks == SORT)[:, None], np.sort(digits, axis=1), digits[:, ::-1])
    begin, end = np.full((len(digits), 1), BOS), np.full((len(digits), 1), EOS)
    return np.hstack([tasks[:, None], digits + ZERO]), np.hstack([begin, answers + ZERO, end])


def train(model, steps, top, rng, *, lr=0.003, batch=64, growth=0.0, even=False, teacher_forcing=1.0):
    """
    Batches of one length each, from 4 digits on, up to `top`: when the longest go well they grow by this part, or 1.
    Most batches are of the longest; with `even`, once these are there, all lengths are alike, which takes less time.

    Over the last 40 percent of the steps the learning rate falls to zero, and `teacher_forcing` says which part of the
    target's tokens the model reads; for the others it reads what it found itself.
    """
    optimiser, longest, mean = nn.Adam(model, lr=lr), 4, 1.0
    for step in range(steps):
        left = (steps - step) / (0.4 * steps)
        optimiser.lr = lr * min(1, left)
        hard = rng.random() < 0.7 and not (even and longest == top)
        length = longest - rng.integers(3) if hard else rng.integers(1, longest + 1)
        source, target = problems(strings(batch, length, rng), rng.choice([REVERSE, SORT], batch))
        optimiser.zero_grad()
        loss = model.learn(source, None, target, teacher_forcing=1.0 if left > 1 else teacher_forcing)
        nn.clip_grad_norm_(model, 1.0)
        optimiser.step()
        if length >= longest - 2:
            mean = 0.9 * mean + 0.1 * loss
        if mean < 0.15 and longest < top:
            longest, mean = min(top, longest + max(1, int(growth * longest))), 0.3
        if (step + 1) % (steps // 8) == 0:
            print(f"step {step + 1}: up to {longest} digits, {mean:.3f} nats per digit of the longest", flush=True)


def exact(model, task, lengths, n, rng, beam=1):
    """Which part of n strings of each length, not trained on, comes out right to the last digit, and ends there."""
    right = []
    for length in lengths:
        source, target = problems(strings(n, length, rng, held_out=True), np.full(n, task))
        written = model.decode(source, max_len=length + 1, beam=beam).tokens
        ended = np.pad(written, ((0, 0), (0, length + 1 - written.shape[1])), constant_values=PAD)
        right.append(np.all(ended == target[:, 1:], axis=1).mean())
    return np.array(right)
