"""One LSTM reads up to 20 digits, another writes them reversed or sorted; between them is nothing but one state.

The first token of the source says which of the two is wanted. There is no attention, so the whole string has to go
through 192 units. Training goes from short strings to long ones; for the last 40 percent of the steps a tenth of what
the decoder reads is what it wrote itself. The strings of the test, whose sum ends in 0, are never trained on.
"""

import numpy as np
from _digits import TASKS, TOKENS, exact, train
from _shared import OUT, optional, run, save

from fastrnn import models

WANTED, WANTED_QUICK = 0.98, 0.3  # of strings of each length alike, those without a mistake; the worse of both tasks


def main(quick=False, out=OUT, seed=0):
    """Train on 64 new strings a step, test on 50 of each length; quick is up to 5 digits."""
    rng = np.random.default_rng(seed)
    lengths, steps = (range(1, 6), 300) if quick else (range(1, 21), 2400)
    model = models.Seq2Seq(TOKENS, TOKENS, 16, 64 if quick else 192, forget_bias=1.0, rng=rng)
    train(model, steps, lengths[-1], rng, teacher_forcing=0.9)

    _, ax = optional("matplotlib.pyplot", "matplotlib").subplots(figsize=(8, 4), layout="constrained")
    scores = []
    for name, task in TASKS.items():
        greedy, beam = (exact(model, task, lengths, 50, np.random.default_rng(seed + 1), width) for width in (1, 4))
        scores.append(greedy.mean())
        print(f"{name}: {greedy.mean():.2%} right, with a beam of 4 {beam.mean():.2%}")
        ax.plot(lengths, 100 * greedy, "o-", label=f"{name}, {greedy.mean():.1%} of all")
    ax.set(xlabel="digits", ylabel="right to the last digit, %", ylim=(0, 102), title="Through one state")
    ax.set_xticks(lengths)
    ax.legend(loc="lower left")
    return {"score": float(min(scores)), "picture": save(ax, out, "seq2seq_digits")}


if __name__ == "__main__":
    run(main)
