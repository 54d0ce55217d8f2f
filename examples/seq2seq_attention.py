"""Strings of up to 50 digits reversed and sorted by decoders that look back: Luong's attention and Bahdanau's.

Each model does both tasks; the first token of the source says which. The strings of the test, whose sum ends in 0, are
never trained on. The picture shows where a decoder looks: to reverse, at one place after the other, from the last to
the first; to sort, at no place in particular, for the state itself can count digits.
"""

import numpy as np
from _digits import EOS, TASKS, TOKENS, ZERO, exact, problems, strings, train
from _shared import OUT, optional, run, save

from fastrnn import models, viz

WANTED, WANTED_QUICK = 0.98, 0.3  # of strings of each length alike, those without a mistake; the worst of all four
ATTENTIONS = {"luong": 2800, "bahdanau": 2000}  # steps of training; one of Bahdanau's takes three times as long


def main(quick=False, out=OUT, seed=0):
    """Train on 64 new strings a step, test on 10 of each length; quick is up to 5 digits, 32 a step."""
    lengths = range(1, 6 if quick else 51)
    _, axes = optional("matplotlib.pyplot", "matplotlib").subplots(2, 2, figsize=(8, 8), layout="constrained")
    scores = []
    for attention, row in zip(ATTENTIONS, axes, strict=True):
        rng = np.random.default_rng(seed)
        options = {"attention": attention, "bidirectional": True, "forget_bias": 1.0, "rng": rng}
        model = models.Seq2Seq(TOKENS, TOKENS, 16, 96, **options)
        steps = 200 if quick else ATTENTIONS[attention]
        train(model, steps, lengths[-1], rng, lr=0.006, batch=32 if quick else 64, growth=0.2, even=True)
        digits = strings(1, min(20, lengths[-1]), rng, held_out=True)
        for ax, (name, task) in zip(row, TASKS.items(), strict=True):
            scores.append(exact(model, task, lengths, 10, rng).mean())
            print(f"{attention}, {name}: {scores[-1]:.2%} right")
            source, target = problems(digits, np.array([task]))
            found = model.decode(source, max_len=target.shape[1] - 1, weights=True)
            read = [name, *map(str, digits[0])]
            written = ["end" if token == EOS else str(token - ZERO) for token in found.tokens[0]]
            viz.attention(found.weights[0], read, written, ax=ax)
            title = f"{attention.title()}, {name}: {scores[-1]:.1%} right"
            ax.set(xlabel="digits read", ylabel="digits written", title=title)
    return {"score": float(min(scores)), "picture": save(ax, out, "seq2seq_attention")}


if __name__ == "__main__":
    run(main)
